//! The exhaustive match from graph operations to lowering functions.

use super::cx::LowerCx;
use super::{contraction, control, elementwise, nn, objects, quantised, reshape, trees};
use planish_ir::{Diag, Op};

pub(super) fn lower_node(cx: &mut LowerCx<'_>, op: &Op) -> Result<(), Diag> {
    match op {
        // Constants get a slot when they are used.
        Op::Const(_) => Ok(()),
        Op::Unary(_) | Op::Binary(_) | Op::Where(_) | Op::Cast(_) => elementwise::lower_single(cx, op),
        Op::Conv(c) => contraction::lower_conv(cx, c),
        Op::MatMul(m) => contraction::lower_matmul(cx, m),
        Op::Fused(_) => contraction::lower_fused(cx),
        Op::ConvTranspose(o) => nn::lower_conv_transpose(cx, o),
        Op::Pool(o) => nn::lower_pool(cx, o),
        Op::Softmax(o) => nn::lower_softmax(cx, o),
        Op::LayerNorm(o) => nn::lower_layer_norm(cx, o),
        Op::Recurrent(o) => nn::lower_recurrent(cx, o),
        Op::Resize(o) => nn::lower_resize(cx, o),
        Op::Reshape(_) => reshape::lower_reshape(cx),
        Op::If(_) => control::lower_if(cx),
        Op::Loop(l) => control::lower_loop(cx, l),
        Op::Dequantize(q) => quantised::lower_dequantize(cx, q),
        Op::Quantize(q) => quantised::lower_quantize(cx, q),
        Op::MatMulInteger(_) => quantised::lower_matmul_integer(cx),
        Op::Sequence(_) => objects::lower_sequence(cx),
        Op::SequenceAt(_) => objects::lower_at(cx),
        Op::SequenceInsert(_) => objects::lower_insert(cx),
        Op::SequenceErase(_) => objects::lower_erase(cx),
        Op::SequenceLength(_) => objects::lower_length(cx),
        Op::Optional(_) => objects::lower_optional(cx),
        Op::OptionalGet(_) => objects::lower_get(cx),
        Op::OptionalHas(_) => objects::lower_has(cx),
        Op::TreeEnsemble(t) => trees::lower_tree_ensemble(cx, t),
        // An operation without a line here has no kernel yet; `planish ops` lists which have one.
        #[allow(unreachable_patterns)]
        other => Err(Diag::error("unsupported-op", format!("`{}` has no kernel", other.name()))),
    }
}
