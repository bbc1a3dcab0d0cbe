//! Scan, as a loop that slices and stacks.

use super::Made;
use super::parts::{at_const, concat, flip, size, transpose, unsqueeze};
use crate::import::table::{Entry, onnx};
use crate::import::{Formal, ImportCx, OnnxNode};
use planish_ir::op::control::Loop;
use planish_ir::op::normalize_axis;
use planish_ir::{DType, Diag, Type, ValueId};

pub(super) const OPS: &[Entry] = &[onnx("Scan", scan)];

/// An attribute with one integer for each of `count` things.
fn each(node: &OnnxNode<'_>, name: &str, count: usize) -> Result<Vec<i64>, Diag> {
    match node.ints(name)? {
        None => Ok(vec![0; count]),
        Some(v) if v.len() == count => Ok(v.to_vec()),
        Some(v) => {
            Err(node
                .error("attribute-range", format!("attribute {name:?} has {} entries, not {count}", v.len())))
        }
    }
}

fn scan<'m>(cx: &mut ImportCx<'_, 'm>, node: &OnnxNode<'m>) -> Made {
    if node.opset >= 9 {
        return over(cx, node, node.all_inputs()?, "scan_input_directions");
    }
    // Version 8: lengths, and a batch axis before everything.
    if node.opt(0).is_some() {
        return Err(node.unsupported("a Scan of version 8 with sequence lengths"));
    }
    let inputs = (1..node.inputs.len()).map(|i| node.input(i)).collect::<Result<Vec<_>, _>>()?;
    let batch = match inputs.first() {
        Some(v) => cx.dims(*v)?.first().and_then(|d| d.as_const()),
        None => Some(1),
    };
    let batch = batch
        .filter(|b| (1..=64).contains(b))
        .ok_or_else(|| node.unsupported("a Scan of version 8 whose batch is not between 1 and 64"))?;
    let mut parts: Vec<Vec<ValueId>> = Vec::new();
    for b in 0..batch {
        let slices = inputs.iter().map(|v| at_const(cx, *v, 0, b)).collect::<Result<Vec<_>, _>>()?;
        for (k, v) in over(cx, node, slices, "directions")?.into_iter().enumerate() {
            let v = unsqueeze(cx, v, &[0])?;
            if parts.len() <= k {
                parts.push(Vec::new());
            }
            parts[k].push(v);
        }
    }
    parts.iter().map(|p| concat(cx, p, 0)).collect()
}

fn over<'m>(cx: &mut ImportCx<'_, 'm>, node: &OnnxNode<'m>, inputs: Vec<ValueId>, directions: &str) -> Made {
    let body = node.graph("body")?;
    let scanned = usize::try_from(node.need_int("num_scan_inputs")?).unwrap_or(0);
    let carried = inputs.len().checked_sub(scanned).filter(|_| scanned > 0);
    let carried = carried.ok_or_else(|| node.error("attribute-range", "num_scan_inputs"))?;
    let reversed = each(node, directions, scanned)?;
    let axes = if node.opset >= 9 { each(node, "scan_input_axes", scanned)? } else { vec![0; scanned] };
    let mut formals = vec![Formal::Hidden(Type::tensor(DType::I64, Vec::new()).into())];
    for v in &inputs[..carried] {
        formals.push(Formal::Param(cx.ty(*v).clone().into()));
    }
    for v in &inputs[carried..] {
        formals.push(Formal::Hidden(cx.ty(*v).clone().into()));
    }
    let mut count = None;
    for (k, v) in inputs[carried..].iter().enumerate() {
        let axis = normalize_axis(axes[k], cx.rank(*v)?).map_err(|d| node.error(d.id, d.message))?;
        formals.push(Formal::Slice { of: 1 + carried + k, axis, reversed: reversed[k] != 0 });
        if count.is_none() {
            count = Some(size(cx, *v, axis)?);
        }
    }
    let (mut made, captured) = cx.subgraphs(node, &[(body, formals)])?;
    let made = made.pop().ok_or_else(|| node.error("internal-import", "the body is missing"))?;
    let scans = made.outputs.len().checked_sub(carried);
    let scans = scans.ok_or_else(|| node.error("subgraph-arity", "the body has too few outputs"))?;
    for v in &made.outputs {
        cx.ed.result(made.region, *v);
    }
    let mut operands = vec![count, None];
    operands.extend(inputs.into_iter().chain(captured).map(Some));
    let op = Loop { carried, scans, conditional: false };
    let mut out = cx.ed.node_with_regions(op, &operands, vec![made.region])?;
    if node.opset >= 9 {
        let backwards = each(node, "scan_output_directions", scans)?;
        let axes = each(node, "scan_output_axes", scans)?;
        for k in 0..scans {
            let v = &mut out[carried + k];
            if backwards[k] != 0 {
                *v = flip(cx, *v, 0)?;
            }
            let rank = cx.rank(*v)?;
            let axis = normalize_axis(axes[k], rank).map_err(|d| node.error(d.id, d.message))?;
            let mut perm: Vec<usize> = (1..rank).collect();
            perm.insert(axis, 0);
            *v = transpose(cx, *v, &perm)?;
        }
    }
    Ok(out)
}
