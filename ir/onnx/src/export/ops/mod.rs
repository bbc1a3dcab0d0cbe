//! What each IR operation becomes.

use super::cx::ExportCx;
use planish_ir::graph::Node;
use planish_ir::{Diag, Op};

mod control;
mod elementwise;
mod movement;

/// Writes the nodes for `node`.
pub(super) fn emit(cx: &mut ExportCx<'_>, node: &Node) -> Result<(), Diag> {
    match &node.op {
        // Constants are written by their users.
        Op::Const(_) => Ok(()),
        Op::Unary(op) => elementwise::unary(cx, node, op.kind),
        Op::Binary(op) => elementwise::binary(cx, node, op.kind),
        Op::Where(_) => plain(cx, node, "Where"),
        Op::Cast(op) => elementwise::cast(cx, node, op),
        Op::Reshape(op) => movement::reshape(cx, node, op),
        Op::If(_) => control::branch(cx, node),
        Op::Loop(op) => control::iterate(cx, node, op),
        Op::Gate(op) => control::gate(cx, node, op),
        other => Err(Diag::unsupported(format!("`{}` cannot be written as ONNX", other.name()))),
    }
}

/// One node with the operands and results of `node` and no attributes.
fn plain(cx: &mut ExportCx<'_>, node: &Node, op: &str) -> Result<(), Diag> {
    let (inputs, outputs) = (cx.inputs(node), cx.outputs(node));
    cx.push(op, inputs, outputs, Vec::new());
    Ok(())
}
