//! Operations that move elements without computing.

use super::{plain, with};
use crate::export::attr;
use crate::export::cx::ExportCx;
use planish_ir::Diag;
use planish_ir::graph::Node;
use planish_ir::op::concat::{PadMode, Split};
use planish_ir::op::generate::{EyeLike, OneHot, Trilu};
use planish_ir::op::reshape::Reshape;
use planish_ir::op::scatter::{Reduction, TensorScatter};
use planish_ir::op::select::{Compress, ReverseSequence, Unique};
use planish_ir::op::sort::{ArgReduce, TopK};
use planish_ir::op::views::{BitCast, Shape};

/// One node with an axis.
pub(super) fn axis(cx: &mut ExportCx<'_>, node: &Node, op: &str, axis: usize) -> Result<(), Diag> {
    with(cx, node, op, vec![attr::int("axis", axis as i64)])
}

/// One node whose axes are its second operand.
pub(super) fn axes(cx: &mut ExportCx<'_>, node: &Node, op: &str, axes: &[usize]) -> Result<(), Diag> {
    let axes: Vec<i64> = axes.iter().map(|a| *a as i64).collect();
    let (mut inputs, outputs) = (cx.inputs(node), cx.outputs(node));
    inputs.push(cx.ints(&axes));
    cx.push(op, inputs, outputs, Vec::new());
    Ok(())
}

pub(super) fn reshape(cx: &mut ExportCx<'_>, node: &Node, op: &Reshape) -> Result<(), Diag> {
    let attributes = if op.allow_zero { vec![attr::flag("allowzero", true)] } else { Vec::new() };
    with(cx, node, "Reshape", attributes)
}

pub(super) fn shape(cx: &mut ExportCx<'_>, node: &Node, op: &Shape) -> Result<(), Diag> {
    let mut attributes = vec![attr::int("start", op.start)];
    if let Some(end) = op.end {
        attributes.push(attr::int("end", end));
    }
    with(cx, node, "Shape", attributes)
}

pub(super) fn transpose(cx: &mut ExportCx<'_>, node: &Node, perm: &[usize]) -> Result<(), Diag> {
    with(cx, node, "Transpose", vec![attr::ints("perm", perm.iter().map(|a| *a as i64))])
}

pub(super) fn bit_cast(cx: &mut ExportCx<'_>, node: &Node, op: &BitCast) -> Result<(), Diag> {
    cx.needs(26);
    with(cx, node, "BitCast", vec![attr::int("to", op.to.onnx().into())])
}

pub(super) fn split(cx: &mut ExportCx<'_>, node: &Node, op: &Split) -> Result<(), Diag> {
    let mut attributes = vec![attr::int("axis", op.axis as i64)];
    if node.inputs.get(1).copied().flatten().is_none() {
        attributes.push(attr::int("num_outputs", op.parts as i64));
    }
    // All parts are named: their number counts.
    let (inputs, outputs) = (cx.inputs(node), cx.all_outputs(node));
    cx.push("Split", inputs, outputs, attributes);
    Ok(())
}

pub(super) fn pad(cx: &mut ExportCx<'_>, node: &Node, mode: PadMode) -> Result<(), Diag> {
    let mode = match mode {
        PadMode::Constant => "constant",
        PadMode::Reflect => "reflect",
        PadMode::Edge => "edge",
        PadMode::Wrap => "wrap",
    };
    with(cx, node, "Pad", vec![attr::string("mode", mode)])
}

fn reduction(reduction: Reduction) -> crate::proto::AttributeProto {
    let name = match reduction {
        Reduction::None => "none",
        Reduction::Add => "add",
        Reduction::Mul => "mul",
        Reduction::Min => "min",
        Reduction::Max => "max",
    };
    attr::string("reduction", name)
}

pub(super) fn scatter_elements(
    cx: &mut ExportCx<'_>,
    node: &Node,
    axis: usize,
    how: Reduction,
) -> Result<(), Diag> {
    with(cx, node, "ScatterElements", vec![attr::int("axis", axis as i64), reduction(how)])
}

pub(super) fn scatter_nd(cx: &mut ExportCx<'_>, node: &Node, how: Reduction) -> Result<(), Diag> {
    with(cx, node, "ScatterND", vec![reduction(how)])
}

pub(super) fn tensor_scatter(cx: &mut ExportCx<'_>, node: &Node, op: &TensorScatter) -> Result<(), Diag> {
    cx.needs(24);
    let mode = if op.circular { "circular" } else { "linear" };
    with(cx, node, "TensorScatter", vec![attr::int("axis", op.axis as i64), attr::string("mode", mode)])
}

pub(super) fn eye(cx: &mut ExportCx<'_>, node: &Node, op: &EyeLike) -> Result<(), Diag> {
    with(cx, node, "EyeLike", vec![attr::int("dtype", op.dtype.onnx().into()), attr::int("k", op.k)])
}

pub(super) fn trilu(cx: &mut ExportCx<'_>, node: &Node, op: &Trilu) -> Result<(), Diag> {
    with(cx, node, "Trilu", vec![attr::flag("upper", op.upper)])
}

pub(super) fn one_hot(cx: &mut ExportCx<'_>, node: &Node, op: &OneHot) -> Result<(), Diag> {
    axis(cx, node, "OneHot", op.axis)
}

pub(super) fn compress(cx: &mut ExportCx<'_>, node: &Node, op: &Compress) -> Result<(), Diag> {
    match op.axis {
        Some(at) => axis(cx, node, "Compress", at),
        None => plain(cx, node, "Compress"),
    }
}

pub(super) fn unique(cx: &mut ExportCx<'_>, node: &Node, op: &Unique) -> Result<(), Diag> {
    let mut attributes = vec![attr::flag("sorted", op.sorted)];
    attributes.extend(op.axis.map(|a| attr::int("axis", a as i64)));
    with(cx, node, "Unique", attributes)
}

pub(super) fn reverse_sequence(cx: &mut ExportCx<'_>, node: &Node, op: &ReverseSequence) -> Result<(), Diag> {
    let attributes =
        vec![attr::int("batch_axis", op.batch_axis as i64), attr::int("time_axis", op.time_axis as i64)];
    with(cx, node, "ReverseSequence", attributes)
}

pub(super) fn top_k(cx: &mut ExportCx<'_>, node: &Node, op: &TopK) -> Result<(), Diag> {
    let attributes = vec![
        attr::int("axis", op.axis as i64),
        attr::flag("largest", op.largest),
        attr::flag("sorted", true),
    ];
    let (inputs, outputs) = (cx.inputs(node), cx.all_outputs(node));
    cx.push("TopK", inputs, outputs, attributes);
    Ok(())
}

pub(super) fn arg_reduce(cx: &mut ExportCx<'_>, node: &Node, op: &ArgReduce) -> Result<(), Diag> {
    let attributes = vec![
        attr::int("axis", op.axis as i64),
        attr::flag("keepdims", op.keepdims),
        attr::flag("select_last_index", op.last),
    ];
    with(cx, node, if op.largest { "ArgMax" } else { "ArgMin" }, attributes)
}
