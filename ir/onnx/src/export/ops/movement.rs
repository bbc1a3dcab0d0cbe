//! Operations that move elements without computing.

use crate::export::attr;
use crate::export::cx::ExportCx;
use planish_ir::Diag;
use planish_ir::graph::Node;
use planish_ir::op::reshape::Reshape;

pub(super) fn reshape(cx: &mut ExportCx<'_>, node: &Node, op: &Reshape) -> Result<(), Diag> {
    let attributes = if op.allow_zero { vec![attr::flag("allowzero", true)] } else { Vec::new() };
    let (inputs, outputs) = (cx.inputs(node), cx.outputs(node));
    cx.push("Reshape", inputs, outputs, attributes);
    Ok(())
}
