//! What each IR operation becomes.

use super::cx::ExportCx;
use crate::proto::AttributeProto;
use planish_ir::graph::Node;
use planish_ir::{DType, Diag, Op, Tensor};

mod control;
mod elementwise;
mod ml;
mod movement;
mod nn;
mod quant;
mod reduce;
mod sequence;
mod vision;

/// Writes the nodes for `node`.
pub(super) fn emit(cx: &mut ExportCx<'_>, node: &Node) -> Result<(), Diag> {
    let half = |d: DType| matches!(d, DType::F16 | DType::BF16);
    let dtypes = || node.inputs.iter().flatten().filter_map(|v| cx.graph.dtype(*v));
    let newer = match &node.op {
        Op::Range(_) => dtypes().any(half),
        Op::Compress(_) | Op::Einsum(_) | Op::OneHot(_) | Op::ReverseSequence(_) | Op::Unique(_) => {
            dtypes().any(|d| d == DType::BF16)
        }
        _ => false,
    };
    if newer {
        cx.needs(28);
    }
    match &node.op {
        // Constants are written by their users.
        Op::Const(_) => Ok(()),
        Op::Unary(op) => elementwise::unary(cx, node, op.kind),
        Op::Binary(op) => elementwise::binary(cx, node, op.kind),
        Op::Where(_) => plain(cx, node, "Where"),
        Op::Cast(op) => elementwise::cast(cx, node, op),
        Op::Reshape(op) => movement::reshape(cx, node, op),
        Op::Shape(op) => movement::shape(cx, node, op),
        Op::Squeeze(op) => movement::axes(cx, node, "Squeeze", &op.axes),
        Op::Unsqueeze(op) => movement::axes(cx, node, "Unsqueeze", &op.axes),
        Op::Flatten(op) => movement::axis(cx, node, "Flatten", op.axis),
        Op::BitCast(op) => movement::bit_cast(cx, node, op),
        Op::Barrier(_) => plain(cx, node, "Identity"),
        Op::Require(op) => control::require(cx, node, op),
        Op::Transpose(op) => movement::transpose(cx, node, &op.perm),
        Op::Expand(_) => plain(cx, node, "Expand"),
        Op::Concat(op) => movement::axis(cx, node, "Concat", op.axis),
        Op::Split(op) => movement::split(cx, node, op),
        Op::Tile(_) => plain(cx, node, "Tile"),
        Op::Pad(op) => movement::pad(cx, node, op.mode),
        Op::Slice(_) => plain(cx, node, "Slice"),
        Op::Gather(op) => movement::axis(cx, node, "Gather", op.axis),
        Op::GatherElements(op) => movement::axis(cx, node, "GatherElements", op.axis),
        Op::GatherNd(op) => {
            with(cx, node, "GatherND", vec![super::attr::int("batch_dims", op.batch_dims as i64)])
        }
        Op::ScatterElements(op) => movement::scatter_elements(cx, node, op.axis, op.reduction),
        Op::ScatterNd(op) => movement::scatter_nd(cx, node, op.reduction),
        Op::TensorScatter(op) => movement::tensor_scatter(cx, node, op),
        Op::Range(_) => plain(cx, node, "Range"),
        Op::EyeLike(op) => movement::eye(cx, node, op),
        Op::Trilu(op) => movement::trilu(cx, node, op),
        Op::OneHot(op) => movement::one_hot(cx, node, op),
        Op::NonZero(_) => plain(cx, node, "NonZero"),
        Op::Compress(op) => movement::compress(cx, node, op),
        Op::Unique(op) => movement::unique(cx, node, op),
        Op::ReverseSequence(op) => movement::reverse_sequence(cx, node, op),
        Op::TopK(op) => movement::top_k(cx, node, op),
        Op::ArgReduce(op) => movement::arg_reduce(cx, node, op),
        Op::Reduce(op) => reduce::reduce(cx, node, op),
        Op::Cumulate(op) => reduce::cumulate(cx, node, op),
        Op::MatMul(op) => reduce::matmul(cx, node, op),
        Op::GatedMatMul(op) => reduce::gated_matmul(cx, node, op),
        Op::Det(_) => plain(cx, node, "Det"),
        Op::Einsum(op) => reduce::einsum(cx, node, &op.equation),
        Op::Dft(op) => reduce::dft(cx, node, op),
        Op::Stft(op) => with(cx, node, "STFT", vec![super::attr::flag("onesided", op.onesided)]),
        Op::SignalWindow(op) => reduce::window(cx, node, op),
        Op::MelWeights(op) => reduce::mel(cx, node, op.dtype),
        Op::Random(op) => reduce::random(cx, node, op),
        Op::Multinomial(op) => reduce::multinomial(cx, node, op),
        Op::If(_) => control::branch(cx, node),
        Op::Loop(op) => control::iterate(cx, node, op),
        Op::Gate(_) => Err(Diag::error("internal-export", "gates are written in parts")),
        Op::SkimRecurrent(_) => Err(Diag::error("internal-export", "layers that skim are written in parts")),
        Op::Dequantize(op) => quant::dequantize(cx, node, op),
        Op::Quantize(op) => quant::quantize(cx, node, op),
        Op::DynamicQuantize(_) => quant::dynamic_quantize(cx, node),
        Op::MatMulInteger(_) => plain(cx, node, "MatMulInteger"),
        Op::ConvInteger(op) => nn::conv_integer(cx, node, op),
        Op::Sequence(op) => sequence::sequence(cx, node, op),
        Op::SequenceAt(_) => plain(cx, node, "SequenceAt"),
        Op::SequenceInsert(_) => plain(cx, node, "SequenceInsert"),
        Op::SequenceErase(_) => plain(cx, node, "SequenceErase"),
        Op::SequenceLength(_) => plain(cx, node, "SequenceLength"),
        Op::ConcatSequence(op) => sequence::concat(cx, node, op),
        Op::SplitSequence(op) => sequence::split(cx, node, op),
        Op::Optional(op) => sequence::optional(cx, node, op),
        Op::OptionalGet(_) => plain(cx, node, "OptionalGetElement"),
        Op::OptionalHas(_) => plain(cx, node, "OptionalHasElement"),
        Op::StringConcat(_) => plain(cx, node, "StringConcat"),
        Op::StringSplit(op) => sequence::string_split(cx, node, op),
        Op::StringNormalize(op) => sequence::string_normalize(cx, node, op),
        Op::RegexMatch(op) => sequence::regex(cx, node, op),
        Op::TfIdf(op) => sequence::tf_idf(cx, node, op),
        Op::LabelEncode(_) => ml::label_encode(cx, node),
        Op::TreeEnsemble(op) => ml::tree_ensemble(cx, node, op),
        Op::ZipMap(_) => ml::zip_map(cx, node),
        Op::DictVectorize(_) => ml::dict_vectorize(cx, node),
        Op::CastMap(op) => ml::cast_map(cx, node, op),
        Op::Conv(op) => nn::conv(cx, node, op),
        Op::ConvTranspose(op) => nn::conv_transpose(cx, node, op),
        Op::Pool(op) => nn::pool(cx, node, op),
        Op::Softmax(op) => nn::softmax(cx, node, op),
        Op::LayerNorm(op) => nn::layer_norm(cx, node, op),
        Op::Lrn(op) => {
            let attributes = vec![
                super::attr::int("size", op.size),
                super::attr::float("alpha", op.alpha),
                super::attr::float("beta", op.beta),
                super::attr::float("bias", op.bias),
            ];
            with(cx, node, "LRN", attributes)
        }
        Op::StochasticGate(_) => Err(Diag::error("internal-export", "stochastic gates are written in parts")),
        Op::FakeQuantize(_) => {
            Err(Diag::error("internal-export", "rounding for training is written in parts"))
        }
        Op::BlockMatMul(_) | Op::BlockOuter(_) => {
            Err(Diag::error("internal-export", "products with blocks are written in parts"))
        }
        Op::Detach(_) => plain(cx, node, "Identity"),
        Op::Attention(_) => Err(Diag::unsupported("attention that was not expanded")),
        Op::Recurrent(op) => nn::recurrent(cx, node, op),
        Op::Resize(op) => nn::resize(cx, node, op),
        Op::Col2Im(op) => {
            let list = |name: &str, v: &[i64]| super::attr::ints(name, v.iter().copied());
            let attributes =
                vec![list("strides", &op.strides), list("dilations", &op.dilations), list("pads", &op.pads)];
            with(cx, node, "Col2Im", attributes)
        }
        Op::RoiAlign(op) => vision::roi_align(cx, node, op),
        Op::MaxRoiPool(op) => vision::max_roi_pool(cx, node, op),
        Op::NonMaxSuppression(op) => vision::non_max_suppression(cx, node, op),
        Op::Fused(_) => cx.inline(node),
    }
}

/// One node with the operands and results of `node` and no attributes.
fn plain(cx: &mut ExportCx<'_>, node: &Node, op: &str) -> Result<(), Diag> {
    with(cx, node, op, Vec::new())
}

/// One node with the operands and results of `node`.
fn with(cx: &mut ExportCx<'_>, node: &Node, op: &str, attributes: Vec<AttributeProto>) -> Result<(), Diag> {
    let (inputs, outputs) = (cx.inputs(node), cx.outputs(node));
    cx.push(op, inputs, outputs, attributes);
    Ok(())
}

/// The dtype of operand `i`, a tensor.
fn dtype_of(cx: &ExportCx<'_>, node: &Node, i: usize) -> Result<DType, Diag> {
    let v = node.inputs.get(i).copied().flatten();
    let dtype = v.and_then(|v| cx.graph.dtype(v));
    dtype.ok_or_else(|| Diag::error("type-mismatch", format!("operand {i} must be a tensor")))
}

/// Operand `i`, which must be a constant because ONNX has an attribute for it.
fn constant_of(cx: &ExportCx<'_>, node: &Node, i: usize, what: &str) -> Result<Tensor, Diag> {
    let v = node.inputs.get(i).copied().flatten();
    let found = v.and_then(|v| cx.graph.as_const(v));
    let (_, constant) = found.ok_or_else(|| Diag::unsupported(format!("{what} must be constant")))?;
    constant.decode()
}
