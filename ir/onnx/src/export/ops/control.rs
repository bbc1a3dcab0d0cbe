//! Control flow. Captured values are used by their outer names.

use crate::export::attr;
use crate::export::cx::{ExportCx, Head};
use planish_ir::graph::Node;
use planish_ir::op::control::Loop;
use planish_ir::op::require::Require;
use planish_ir::{DType, Diag, ValueId};

pub(super) fn branch(cx: &mut ExportCx<'_>, node: &Node) -> Result<(), Diag> {
    let captured = given(node, 1)?;
    let condition = cx.inputs(node).into_iter().take(1).collect();
    let [yes, no] = node.regions[..] else { return Err(Diag::error("arity", "two regions are needed")) };
    let attributes = vec![
        attr::graph("then_branch", cx.subgraph(yes, 0, &captured, Head::None)?),
        attr::graph("else_branch", cx.subgraph(no, 0, &captured, Head::None)?),
    ];
    // As many as a subgraph gives, whether anything uses them or not.
    let outputs = cx.all_outputs(node);
    cx.push("If", condition, outputs, attributes);
    Ok(())
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
    // As many as a subgraph gives, whether anything uses them or not.
    let outputs = cx.all_outputs(node);
    cx.push("Loop", inputs, outputs, vec![attr::graph("body", body)]);
    Ok(())
}

/// The operands from `first` on, none of which may be omitted.
fn given(node: &Node, first: usize) -> Result<Vec<ValueId>, Diag> {
    let missing = || Diag::error("arity", "a captured operand is missing");
    node.inputs.iter().skip(first).map(|v| v.ok_or_else(missing)).collect()
}
