//! Quantisation.

use super::{dtype_of, with};
use crate::export::attr;
use crate::export::cx::ExportCx;
use planish_ir::Diag;
use planish_ir::graph::Node;
use planish_ir::op::quant::{Dequantize, Quantize};

pub(super) fn dequantize(cx: &mut ExportCx<'_>, node: &Node, op: &Dequantize) -> Result<(), Diag> {
    let attributes = scales(op.axis, op.block);
    if dtype_of(cx, node, 1)? == op.to {
        return with(cx, node, "DequantizeLinear", attributes);
    }
    // The result has the type of the scale.
    let (mut inputs, outputs) = (cx.inputs(node), cx.outputs(node));
    let to = vec![attr::int("to", op.to.onnx().into())];
    if let Some(scale) = inputs.get_mut(1) {
        *scale = cx.temp("Cast", vec![scale.clone()], to);
    }
    cx.push("DequantizeLinear", inputs, outputs, attributes);
    Ok(())
}

pub(super) fn quantize(cx: &mut ExportCx<'_>, node: &Node, op: &Quantize) -> Result<(), Diag> {
    let mut attributes = scales(op.axis, op.block);
    attributes.push(attr::int("output_dtype", op.to.onnx().into()));
    if op.to.is_float() {
        attributes.push(attr::flag("saturate", op.saturate));
    }
    if op.precision != dtype_of(cx, node, 1)? {
        cx.needs(23);
        attributes.push(attr::int("precision", op.precision.onnx().into()));
    }
    with(cx, node, "QuantizeLinear", attributes)
}

pub(super) fn dynamic_quantize(cx: &mut ExportCx<'_>, node: &Node) -> Result<(), Diag> {
    cx.needs(11);
    with(cx, node, "DynamicQuantizeLinear", Vec::new())
}

fn scales(axis: i64, block: usize) -> Vec<crate::proto::AttributeProto> {
    let mut attributes = vec![attr::int("axis", axis)];
    if block > 0 {
        attributes.push(attr::int("block_size", block as i64));
    }
    attributes
}
