//! Control flow. Captured values are used by their outer names.

use crate::export::attr;
use crate::export::cx::{ExportCx, Head};
use planish_ir::graph::Node;
use planish_ir::op::control::{Fallback, Gate, Granularity, Loop};
use planish_ir::op::require::Require;
use planish_ir::{DType, Diag, ValueId};

pub(super) fn branch(cx: &mut ExportCx<'_>, node: &Node) -> Result<(), Diag> {
    let captured = given(node, 1)?;
    let condition = cx.inputs(node).into_iter().take(1).collect();
    branches(cx, node, condition, 0, &captured)
}

/// An `If` whose two branches are the regions of `node`, which take `captured`.
fn branches(
    cx: &mut ExportCx<'_>,
    node: &Node,
    condition: Vec<String>,
    own: usize,
    captured: &[ValueId],
) -> Result<(), Diag> {
    let [yes, no] = node.regions[..] else { return Err(Diag::error("arity", "two regions are needed")) };
    let attributes = vec![
        attr::graph("then_branch", cx.subgraph(yes, own, captured, Head::None)?),
        attr::graph("else_branch", cx.subgraph(no, own, captured, Head::None)?),
    ];
    let outputs = cx.outputs(node);
    cx.push("If", condition, outputs, attributes);
    Ok(())
}

/// A gate of the whole region is a branch. The others have no counterpart: they run a region on what data select.
pub(super) fn gate(cx: &mut ExportCx<'_>, node: &Node, op: &Gate) -> Result<(), Diag> {
    if op.granularity != Granularity::Whole || op.fallback != Fallback::Region {
        return Err(Diag::unsupported("gates of rows, blocks and experts cannot be written as ONNX"));
    }
    let captured = given(node, 1)?;
    let condition = cx.inputs(node).into_iter().take(1).collect();
    branches(cx, node, condition, 0, &captured)
}

/// The operand as the only element of a new axis: what is picked there is outside where the condition does not hold.
pub(super) fn require(cx: &mut ExportCx<'_>, node: &Node, op: &Require) -> Result<(), Diag> {
    let given = given(node, 0)?;
    let [condition, x] = given[..] else { return Err(Diag::error("arity", "two operands are needed")) };
    if cx.graph.dtype(x).is_none() {
        return Err(Diag::unsupported("conditions on what is no tensor cannot be written as ONNX"));
    }
    let (mut failed, x) = (cx.value(condition), cx.value(x));
    if op.expected {
        failed = cx.temp("Not", vec![failed], Vec::new());
    }
    let at = cx.temp("Cast", vec![failed], vec![attr::int("to", DType::I64.onnx().into())]);
    let axes = cx.ints(&[0]);
    let held = cx.temp("Unsqueeze", vec![x, axes], Vec::new());
    let outputs = cx.outputs(node);
    cx.push("Gather", vec![held, at], outputs, vec![attr::int("axis", 0)]);
    Ok(())
}

pub(super) fn iterate(cx: &mut ExportCx<'_>, node: &Node, op: &Loop) -> Result<(), Diag> {
    let captured = given(node, 2 + op.carried)?;
    let Some(region) = node.regions.first() else { return Err(Diag::error("arity", "a region is needed")) };
    let head = if op.conditional { Head::ConditionComputed } else { Head::ConditionPassed };
    let body = cx.subgraph(*region, 1 + op.carried, &captured, head)?;
    let mut inputs: Vec<String> = Vec::new();
    for v in node.inputs.iter().take(2 + op.carried) {
        inputs.push(v.map_or(String::new(), |v| cx.value(v)));
    }
    if op.conditional && inputs[1].is_empty() {
        // Without a condition operand the one that the body computes would be ignored.
        inputs[1] = cx.scalar(planish_ir::DType::Bool, 1.0)?;
    }
    let outputs = cx.outputs(node);
    cx.push("Loop", inputs, outputs, vec![attr::graph("body", body)]);
    Ok(())
}

/// The operands from `first` on, none of which may be omitted.
fn given(node: &Node, first: usize) -> Result<Vec<ValueId>, Diag> {
    let missing = || Diag::error("arity", "a captured operand is missing");
    node.inputs.iter().skip(first).map(|v| v.ok_or_else(missing)).collect()
}
