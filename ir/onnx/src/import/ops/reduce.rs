//! Reductions, running sums, matrix products and sums of products.

use super::Made;
use super::shape::{Axes, as_i64, axes_of};
use crate::import::table::{Entry, onnx};
use crate::import::{ImportCx, OnnxNode};
use planish_ir::op::binary::BinaryKind;
use planish_ir::op::einsum::Einsum;
use planish_ir::op::matmul::{Det, MatMul};
use planish_ir::op::normalize_axes;
use planish_ir::op::reduce::{Cumulate, Reduce, ReduceKind};
use planish_ir::op::views::{Squeeze, Unsqueeze};
use planish_ir::{Diag, ValueId};

pub(super) const OPS: &[Entry] = &[
    onnx("CumProd", cumulate),
    onnx("CumSum", cumulate),
    onnx("Det", det),
    onnx("Einsum", einsum),
    onnx("Gemm", gemm),
    onnx("MatMul", matmul),
    onnx("ReduceL1", reduce),
    onnx("ReduceL2", reduce),
    onnx("ReduceLogSum", reduce),
    onnx("ReduceLogSumExp", reduce),
    onnx("ReduceMax", reduce),
    onnx("ReduceMean", reduce),
    onnx("ReduceMin", reduce),
    onnx("ReduceProd", reduce),
    onnx("ReduceSum", reduce),
    onnx("ReduceSumSquare", reduce),
];

fn reduce(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let kind = match node.op_type {
        "ReduceL1" => ReduceKind::L1,
        "ReduceL2" => ReduceKind::L2,
        "ReduceLogSum" => ReduceKind::LogSum,
        "ReduceLogSumExp" => ReduceKind::LogSumExp,
        "ReduceMax" => ReduceKind::Max,
        "ReduceMean" => ReduceKind::Mean,
        "ReduceMin" => ReduceKind::Min,
        "ReduceProd" => ReduceKind::Prod,
        "ReduceSum" => ReduceKind::Sum,
        _ => ReduceKind::SumSquare,
    };
    let x = node.input(0)?;
    let keepdims = node.flag("keepdims", true)?;
    let since = if kind == ReduceKind::Sum { 13 } else { 18 };
    let axes = axes_of(cx, node, 1, since)?;
    let noop = node.opset >= since && node.flag("noop_with_empty_axes", false)?;
    let with = |axes| Reduce { kind, axes, keepdims, noop_empty: false };
    let op = match axes {
        Axes::Absent if noop => with(Some(Vec::new())),
        Axes::Absent => with(None),
        Axes::Known(a) if a.is_empty() => with(if noop { Some(Vec::new()) } else { None }),
        Axes::Known(a) => with(Some(normalize_axes(&a, cx.rank(x)?)?)),
        Axes::Data(v) => {
            let op = Reduce { kind, axes: None, keepdims, noop_empty: noop };
            return Ok(vec![cx.op(op, &[x, v])?]);
        }
    };
    Ok(vec![cx.op(op, &[x])?])
}

fn cumulate(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let op = Cumulate {
        product: node.op_type == "CumProd",
        exclusive: node.flag("exclusive", false)?,
        reverse: node.flag("reverse", false)?,
    };
    let axis = as_i64(cx, node.input(1)?)?;
    Ok(vec![cx.op(op, &[node.input(0)?, axis])?])
}

fn matmul(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let (mut a, mut b) = (node.input(0)?, node.input(1)?);
    // A vector is a row on the left and a column on the right, and leaves no axis in the result.
    let (row, column) = (cx.rank(a)? == 1, cx.rank(b)? == 1);
    if row {
        a = cx.op(Unsqueeze { axes: vec![0] }, &[a])?;
    }
    if column {
        b = cx.op(Unsqueeze { axes: vec![1] }, &[b])?;
    }
    let y = cx.op(MatMul { trans_a: false, trans_b: false }, &[a, b])?;
    let rank = cx.rank(y)?;
    let axes: Vec<usize> = [row.then(|| rank - 2), column.then(|| rank - 1)].into_iter().flatten().collect();
    if axes.is_empty() { Ok(vec![y]) } else { Ok(vec![cx.op(Squeeze { axes }, &[y])?]) }
}

/// `x` times a number, which is nothing to do for 1.
fn scaled(cx: &mut ImportCx<'_, '_>, x: ValueId, by: f32) -> Result<ValueId, Diag> {
    if by == 1.0 {
        return Ok(x);
    }
    let by = cx.scalar_like(x, by.into())?;
    cx.binary(BinaryKind::Mul, x, by)
}

fn gemm(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    // Before version 7 the third operand was broadcast only if this said so.
    node.ignore(&["broadcast"]);
    let (alpha, beta) = (node.float_or("alpha", 1.0)?, node.float_or("beta", 1.0)?);
    let op = MatMul { trans_a: node.flag("transA", false)?, trans_b: node.flag("transB", false)? };
    let (a, b) = (node.input(0)?, node.input(1)?);
    let mut y = cx.op(op, &[a, b])?;
    y = scaled(cx, y, alpha)?;
    if let Some(c) = node.opt(2) {
        let c = scaled(cx, c, beta)?;
        y = cx.binary(BinaryKind::Add, y, c)?;
    }
    Ok(vec![y])
}

fn einsum(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let equation = node.string("equation")?.ok_or_else(|| node.missing("equation"))?.to_owned();
    let operands = node.all_inputs()?;
    Ok(vec![cx.op(Einsum { equation }, &operands)?])
}

fn det(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    Ok(vec![cx.op(Det {}, &[node.input(0)?])?])
}
