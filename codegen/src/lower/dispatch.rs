//! The exhaustive match from graph operations to lowering functions.

use super::cx::LowerCx;
use super::{
    concat, contraction, control, einsum, elementwise, gate, generate, indexing, lines, mel, movement, nn,
    objects, quantised, reduce, reshape, signal, trees,
};
use planish_ir::{Diag, Op};

pub(super) fn lower_node(cx: &mut LowerCx<'_>, op: &Op) -> Result<(), Diag> {
    if let Op::Require(r) = op {
        return control::lower_require(cx, r);
    }
    if let Op::Barrier(_) = op {
        return control::lower_barrier(cx);
    }
    // Shape arithmetic needs no kernel of its own.
    if !matches!(op, Op::Const(_)) && movement::lower_content(cx)? {
        return Ok(());
    }
    if let Some(made) = objects::lower_object(cx, op) {
        return made;
    }
    lower_numbers(cx, op)
}

/// Lowers a node whose operands and results are in memory.
pub(super) fn lower_numbers(cx: &mut LowerCx<'_>, op: &Op) -> Result<(), Diag> {
    match op {
        // Constants get a slot when they are used.
        Op::Const(_) => Ok(()),
        Op::Unary(_) | Op::Binary(_) | Op::Where(_) | Op::Cast(_) => elementwise::lower_single(cx, op),
        Op::Conv(c) => contraction::lower_conv(cx, c),
        Op::MatMul(m) => contraction::lower_matmul(cx, m),
        Op::GatedMatMul(o) => contraction::lower_gated_matmul(cx, o),
        Op::BlockMatMul(o) => contraction::lower_block_matmul(cx, o),
        Op::BlockOuter(o) => contraction::lower_block_outer(cx, o),
        Op::Fused(_) => contraction::lower_fused(cx),
        Op::ConvTranspose(o) => nn::lower_conv_transpose(cx, o),
        Op::Pool(o) => nn::lower_pool(cx, o),
        Op::Softmax(o) => nn::lower_softmax(cx, o),
        Op::LayerNorm(o) => nn::lower_layer_norm(cx, o),
        Op::Lrn(o) => nn::lower_lrn(cx, o),
        Op::Recurrent(o) => nn::lower_recurrent(cx, o),
        Op::SkimRecurrent(o) => nn::lower_skim_recurrent(cx, o),
        Op::Resize(o) => nn::lower_resize(cx, o),
        Op::Col2Im(o) => nn::lower_col2im(cx, o),
        Op::RoiAlign(o) => nn::lower_roi_align(cx, o),
        Op::MaxRoiPool(o) => nn::lower_max_roi_pool(cx, o),
        Op::NonMaxSuppression(o) => objects::lower_suppression(cx, o.centered),
        Op::Reshape(_) => reshape::lower_reshape(cx),
        Op::If(_) => control::lower_if(cx),
        Op::Loop(l) => control::lower_loop(cx, l),
        Op::Gate(g) => gate::lower_gate(cx, g),
        Op::Dequantize(q) => quantised::lower_dequantize(cx, q),
        Op::Quantize(q) => quantised::lower_quantize(cx, q),
        Op::DynamicQuantize(_) => quantised::lower_dynamic_quantize(cx),
        Op::ConvInteger(o) => contraction::lower_conv_integer(cx, o),
        Op::MatMulInteger(_) => quantised::lower_matmul_integer(cx),
        Op::TreeEnsemble(t) => trees::lower_tree_ensemble(cx, t),
        // Shape and data movement.
        Op::Shape(_) => movement::lower_shape(cx),
        Op::Squeeze(_) | Op::Unsqueeze(_) | Op::Flatten(_) | Op::BitCast(_) | Op::Detach(_) => {
            movement::lower_view(cx)
        }
        Op::StochasticGate(_) => Err(Diag::error("internal-lower", "stochastic gates are lowered in parts")),
        Op::FakeQuantize(_) => {
            Err(Diag::error("internal-lower", "rounding for training is lowered in parts"))
        }
        Op::Attention(o) => contraction::lower_attention(cx, o),
        Op::Transpose(_) if cx.node_id().is_some_and(|n| contraction::takes_transpose(cx.graph, n)) => Ok(()),
        Op::Transpose(t) => movement::lower_transpose(cx, t),
        Op::Expand(_) => movement::lower_expand(cx),
        Op::Concat(c) => concat::lower_concat(cx, c.axis),
        Op::Split(s) => movement::lower_split(cx, s),
        Op::Tile(_) => movement::lower_tile(cx),
        Op::Slice(_) => movement::lower_slice(cx),
        Op::Pad(p) => movement::lower_pad(cx, p),
        Op::Gather(g) => indexing::lower_gather(cx, g),
        Op::GatherElements(g) => indexing::lower_gather_elements(cx, g),
        Op::GatherNd(g) => indexing::lower_gather_nd(cx, g),
        Op::ScatterElements(s) => indexing::lower_scatter_elements(cx, s),
        Op::ScatterNd(s) => indexing::lower_scatter_nd(cx, s),
        Op::TensorScatter(t) => indexing::lower_tensor_scatter(cx, t),
        Op::ReverseSequence(r) => indexing::lower_reverse_sequence(cx, r),
        Op::Range(_) => generate::lower_range(cx),
        Op::EyeLike(e) => generate::lower_eye(cx, e),
        Op::Trilu(t) => generate::lower_trilu(cx, t),
        Op::OneHot(o) => generate::lower_one_hot(cx, o),
        Op::NonZero(_) => generate::lower_non_zero(cx),
        Op::Compress(c) => generate::lower_compress(cx, c),
        // Reductions, and work along lines.
        Op::ArgReduce(a) => lines::lower_arg_reduce(cx, a),
        Op::Cumulate(c) => lines::lower_cumulate(cx, c),
        Op::TopK(t) => lines::lower_top_k(cx, t),
        Op::Det(_) => signal::lower_det(cx),
        Op::Dft(d) => signal::lower_dft(cx, d),
        Op::Stft(s) => signal::lower_stft(cx, s),
        Op::SignalWindow(w) => signal::lower_window(cx, w),
        Op::MelWeights(_) => mel::lower_mel_weights(cx),
        Op::Random(r) => signal::lower_random(cx, r),
        Op::Multinomial(m) => signal::lower_multinomial(cx, m.seed),
        Op::Einsum(e) => einsum::lower_einsum(cx, e),
        Op::Reduce(r) => reduce::lower_reduce(cx, r),
        // An operation without a line here has no kernel yet; `planish ops` lists which have one.
        #[allow(unreachable_patterns)]
        other => Err(Diag::error("unsupported-op", format!("`{}` has no kernel", other.name()))),
    }
}
