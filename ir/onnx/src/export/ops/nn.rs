//! Convolution, pooling, normalisation, recurrence, resampling.

use super::{dtype_of, with};
use crate::export::attr;
use crate::export::cx::ExportCx;
use crate::proto::AttributeProto;
use planish_ir::graph::Node;
use planish_ir::op::conv::Conv;
use planish_ir::op::conv_transpose::ConvTranspose;
use planish_ir::op::layer_norm::LayerNorm;
use planish_ir::op::pool::{IndexOrder, Pool, PoolKind};
use planish_ir::op::quant::ConvInteger;
use planish_ir::op::recurrent::{Activation, Cell, Direction, Recurrent};
use planish_ir::op::resize::{Resize, ResizeMode, ResizeNearest, ResizePolicy, ResizeTransform};
use planish_ir::op::softmax::{Softmax, SoftmaxKind};
use planish_ir::op::window::AutoPad;
use planish_ir::{DType, Diag, Tensor};

fn padding(auto_pad: AutoPad, pads: &[i64]) -> AttributeProto {
    match auto_pad {
        AutoPad::Explicit => attr::ints("pads", pads.iter().copied()),
        AutoPad::SameUpper => attr::string("auto_pad", "SAME_UPPER"),
        AutoPad::SameLower => attr::string("auto_pad", "SAME_LOWER"),
    }
}

fn conv_attributes(op: &Conv) -> Vec<AttributeProto> {
    vec![
        attr::ints("strides", op.strides.iter().copied()),
        attr::ints("dilations", op.dilations.iter().copied()),
        padding(op.auto_pad, &op.pads),
        attr::int("group", op.groups),
    ]
}

pub(super) fn conv(cx: &mut ExportCx<'_>, node: &Node, op: &Conv) -> Result<(), Diag> {
    through_f64(cx, node, "Conv", conv_attributes(op))
}

pub(super) fn conv_integer(cx: &mut ExportCx<'_>, node: &Node, op: &ConvInteger) -> Result<(), Diag> {
    with(cx, node, "ConvInteger", conv_attributes(&op.conv()))
}

pub(super) fn conv_transpose(cx: &mut ExportCx<'_>, node: &Node, op: &ConvTranspose) -> Result<(), Diag> {
    if op.pads.iter().any(|p| *p < 0) {
        return Err(Diag::unsupported(
            "a transposed convolution with negative pads cannot be written as ONNX",
        ));
    }
    let attributes = vec![
        attr::ints("strides", op.strides.iter().copied()),
        attr::ints("dilations", op.dilations.iter().copied()),
        attr::ints("pads", op.pads.iter().copied()),
        attr::ints("output_padding", op.output_padding.iter().copied()),
        attr::int("group", op.groups),
    ];
    through_f64(cx, node, "ConvTranspose", attributes)
}

/// An operator that ONNX defines for floats only: integers go through f64, which holds all sums that do not wrap.
fn through_f64(
    cx: &mut ExportCx<'_>,
    node: &Node,
    op: &str,
    attributes: Vec<AttributeProto>,
) -> Result<(), Diag> {
    let dtype = dtype_of(cx, node, 0)?;
    if dtype.is_float() {
        return with(cx, node, op, attributes);
    }
    let (inputs, outputs) = (cx.inputs(node), cx.outputs(node));
    let to = |d: DType| vec![attr::int("to", d.onnx().into())];
    let wide = inputs
        .into_iter()
        .map(|x| if x.is_empty() { x } else { cx.temp("Cast", vec![x], to(DType::F64)) })
        .collect();
    let y = cx.temp(op, wide, attributes);
    cx.push("Cast", vec![y], outputs, to(dtype));
    Ok(())
}

pub(super) fn pool(cx: &mut ExportCx<'_>, node: &Node, op: &Pool) -> Result<(), Diag> {
    if op.ceil_mode {
        // Older versions count a last window that begins in the padding.
        cx.needs(22);
    }
    let mut attributes = vec![
        attr::ints("kernel_shape", op.kernel.iter().copied()),
        attr::ints("strides", op.strides.iter().copied()),
        attr::ints("dilations", op.dilations.iter().copied()),
        padding(op.auto_pad, &op.pads),
        attr::flag("ceil_mode", op.ceil_mode),
    ];
    let name = match op.kind {
        PoolKind::Max => {
            attributes.push(attr::flag("storage_order", op.indices == Some(IndexOrder::ColumnMajor)));
            "MaxPool"
        }
        PoolKind::Average => {
            attributes.push(attr::flag("count_include_pad", op.count_include_pad));
            "AveragePool"
        }
        PoolKind::Lp => {
            attributes.push(attr::int("p", op.p));
            "LpPool"
        }
    };
    with(cx, node, name, attributes)
}

pub(super) fn softmax(cx: &mut ExportCx<'_>, node: &Node, op: &Softmax) -> Result<(), Diag> {
    let name = match op.kind {
        SoftmaxKind::Softmax => "Softmax",
        SoftmaxKind::LogSoftmax => "LogSoftmax",
        SoftmaxKind::Hardmax => "Hardmax",
    };
    with(cx, node, name, vec![attr::int("axis", op.axis as i64)])
}

pub(super) fn layer_norm(cx: &mut ExportCx<'_>, node: &Node, op: &LayerNorm) -> Result<(), Diag> {
    let x = node.inputs.first().copied().flatten();
    let dims = x.and_then(|v| cx.graph.dims(v)).map(<[_]>::to_vec).unwrap_or_default();
    let normalised = dims.get(op.axis..).unwrap_or_default().to_vec();
    let fits = |i: usize| match node.inputs.get(i).copied().flatten() {
        None => true,
        Some(v) => cx.graph.dims(v).is_some_and(|d| d.len() <= normalised.len()),
    };
    let dtype = dtype_of(cx, node, 0)?;
    if op.rms || !fits(1) || !fits(2) {
        return layer_norm_parts(cx, node, op, dims.len(), dtype);
    }
    let (mut inputs, outputs) = (cx.inputs(node), cx.outputs(node));
    if inputs.get(1).is_none_or(String::is_empty) {
        let fixed: Option<Vec<i64>> = normalised.iter().map(|d| d.as_const()).collect();
        let Some(fixed) = fixed else { return layer_norm_parts(cx, node, op, dims.len(), dtype) };
        let count = fixed.iter().product::<i64>().max(0) as usize;
        let shape: Vec<usize> = fixed.iter().map(|d| *d as usize).collect();
        let ones = cx.tensor(&Tensor::floats(dtype, &shape, vec![1.0; count])?, "ones");
        inputs.resize(inputs.len().max(2), String::new());
        inputs[1] = ones;
    }
    let attributes = vec![attr::int("axis", op.axis as i64), attr::float("epsilon", op.epsilon)];
    cx.push("LayerNormalization", inputs, outputs, attributes);
    Ok(())
}

/// The definition of the normalisation, computed in f32 (f64 for f64).
fn layer_norm_parts(
    cx: &mut ExportCx<'_>,
    node: &Node,
    op: &LayerNorm,
    rank: usize,
    dtype: DType,
) -> Result<(), Diag> {
    let (inputs, outputs) = (cx.inputs(node), cx.outputs(node));
    let wide = if dtype == DType::F64 { dtype } else { DType::F32 };
    let to = |d: DType| vec![attr::int("to", d.onnx().into())];
    let input = |i: usize| inputs.get(i).filter(|n| !n.is_empty()).cloned();
    let widened = |cx: &mut ExportCx<'_>, x: String| {
        if dtype == wide { x } else { cx.temp("Cast", vec![x], to(wide)) }
    };
    let output = |i: usize| outputs.get(i).filter(|n| !n.is_empty()).cloned();
    let axes: Vec<i64> = (op.axis..rank).map(|a| a as i64).collect();
    let axes = cx.ints(&axes);
    let mean = |cx: &mut ExportCx<'_>, x: String, axes: &str| {
        cx.temp("ReduceMean", vec![x, axes.to_string()], vec![attr::flag("noop_with_empty_axes", true)])
    };
    let mut x = widened(cx, input(0).unwrap_or_default());
    let mut stats = Vec::new();
    if !op.rms {
        let m = mean(cx, x.clone(), &axes);
        x = cx.temp("Sub", vec![x, m.clone()], Vec::new());
        stats.push(m);
    }
    let square = cx.temp("Mul", vec![x.clone(), x.clone()], Vec::new());
    let variance = mean(cx, square, &axes);
    let epsilon = cx.scalar(wide, op.epsilon)?;
    let sum = cx.temp("Add", vec![variance, epsilon], Vec::new());
    let root = cx.temp("Sqrt", vec![sum], Vec::new());
    let inv = cx.temp("Reciprocal", vec![root], Vec::new());
    let mut y = cx.temp("Mul", vec![x, inv.clone()], Vec::new());
    stats.push(inv);
    for (i, name) in [(1, "Mul"), (2, "Add")] {
        if let Some(other) = input(i) {
            let other = widened(cx, other);
            y = cx.temp(name, vec![y, other], Vec::new());
        }
    }
    let last = output(0).unwrap_or_default();
    let op_type = if dtype == wide { "Identity" } else { "Cast" };
    cx.push(op_type, vec![y], vec![last], if dtype == wide { Vec::new() } else { to(dtype) });
    for (i, stat) in stats.into_iter().enumerate() {
        if let Some(name) = output(i + 1) {
            cx.push("Identity", vec![stat], vec![name], Vec::new());
        }
    }
    Ok(())
}

pub(super) fn recurrent(cx: &mut ExportCx<'_>, node: &Node, op: &Recurrent) -> Result<(), Diag> {
    let r = node.inputs.get(2).copied().flatten();
    let hidden = r.and_then(|v| cx.graph.dims(v)?.last()?.as_const());
    let hidden = hidden.ok_or_else(|| Diag::unsupported("the hidden size is not a number"))?;
    let mut names = Vec::new();
    let (mut alphas, mut betas) = (Vec::new(), Vec::new());
    for (i, a) in op.activations.iter().enumerate() {
        let (name, parameters) = match a {
            Activation::Relu => ("Relu", 0),
            Activation::Tanh => ("Tanh", 0),
            Activation::Sigmoid => ("Sigmoid", 0),
            Activation::Affine => ("Affine", 2),
            Activation::LeakyRelu => ("LeakyRelu", 1),
            Activation::ThresholdedRelu => ("ThresholdedRelu", 1),
            Activation::ScaledTanh => ("ScaledTanh", 2),
            Activation::HardSigmoid => ("HardSigmoid", 2),
            Activation::Elu => ("Elu", 1),
            Activation::Softsign => ("Softsign", 0),
            Activation::Softplus => ("Softplus", 0),
        };
        names.push(name);
        let parameter = |list: &[f64]| list.get(i).copied().unwrap_or(0.0);
        if parameters > 0 {
            alphas.push(parameter(&op.alpha));
        }
        if parameters > 1 {
            betas.push(parameter(&op.beta));
        }
    }
    let direction = match op.direction {
        Direction::Forward => "forward",
        Direction::Reverse => "reverse",
        Direction::Both => "bidirectional",
    };
    let mut attributes = vec![
        attr::int("hidden_size", hidden),
        attr::string("direction", direction),
        attr::strings("activations", names),
    ];
    if !alphas.is_empty() {
        attributes.push(attr::floats("activation_alpha", alphas));
    }
    if !betas.is_empty() {
        attributes.push(attr::floats("activation_beta", betas));
    }
    if let Some(clip) = op.clip {
        attributes.push(attr::float("clip", clip));
    }
    let name = match op.cell {
        Cell::Rnn => "RNN",
        Cell::Gru => {
            attributes.push(attr::flag("linear_before_reset", op.linear_before_reset));
            "GRU"
        }
        Cell::Lstm => {
            attributes.push(attr::flag("input_forget", op.input_forget));
            "LSTM"
        }
    };
    with(cx, node, name, attributes)
}

pub(super) fn resize(cx: &mut ExportCx<'_>, node: &Node, op: &Resize) -> Result<(), Diag> {
    let mode = match op.mode {
        ResizeMode::Nearest => "nearest",
        ResizeMode::Linear => "linear",
        ResizeMode::Cubic => "cubic",
    };
    let transform = match op.transform {
        ResizeTransform::HalfPixel => "half_pixel",
        ResizeTransform::HalfPixelSymmetric => "half_pixel_symmetric",
        ResizeTransform::PytorchHalfPixel => "pytorch_half_pixel",
        ResizeTransform::AlignCorners => "align_corners",
        ResizeTransform::Asymmetric => "asymmetric",
        ResizeTransform::CropAndResize => "tf_crop_and_resize",
    };
    let nearest = match op.nearest {
        ResizeNearest::RoundPreferFloor => "round_prefer_floor",
        ResizeNearest::RoundPreferCeil => "round_prefer_ceil",
        ResizeNearest::Floor => "floor",
        ResizeNearest::Ceil => "ceil",
    };
    let policy = match op.policy {
        ResizePolicy::Stretch => "stretch",
        ResizePolicy::NotLarger => "not_larger",
        ResizePolicy::NotSmaller => "not_smaller",
    };
    let attributes = vec![
        attr::string("mode", mode),
        attr::string("coordinate_transformation_mode", transform),
        attr::string("nearest_mode", nearest),
        attr::float("cubic_coeff_a", op.cubic_a),
        attr::flag("exclude_outside", op.exclude_outside),
        attr::float("extrapolation_value", op.extrapolation),
        attr::flag("antialias", op.antialias),
        attr::ints("axes", op.axes.iter().map(|a| *a as i64)),
        attr::string("keep_aspect_ratio_policy", policy),
    ];
    with(cx, node, "Resize", attributes)
}
