//! Reductions, products, signals, random numbers.

use super::with;
use crate::export::attr;
use crate::export::cx::ExportCx;
use planish_ir::graph::Node;
use planish_ir::op::gated_matmul::GatedMatMul;
use planish_ir::op::matmul::MatMul;
use planish_ir::op::random::{Multinomial, Random};
use planish_ir::op::reduce::{Cumulate, Reduce, ReduceKind};
use planish_ir::op::signal::{Dft, SignalWindow, WindowKind};
use planish_ir::{DType, Diag};

pub(super) fn reduce(cx: &mut ExportCx<'_>, node: &Node, op: &Reduce) -> Result<(), Diag> {
    let name = match op.kind {
        ReduceKind::Sum => "ReduceSum",
        ReduceKind::Mean => "ReduceMean",
        ReduceKind::Prod => "ReduceProd",
        ReduceKind::Max => "ReduceMax",
        ReduceKind::Min => "ReduceMin",
        ReduceKind::L1 => "ReduceL1",
        ReduceKind::L2 => "ReduceL2",
        ReduceKind::SumSquare => "ReduceSumSquare",
        ReduceKind::LogSum => "ReduceLogSum",
        ReduceKind::LogSumExp => "ReduceLogSumExp",
    };
    let (mut inputs, outputs) = (cx.inputs(node), cx.outputs(node));
    let mut keepdims = op.keepdims;
    let mut attributes = Vec::new();
    match &op.axes {
        Some(axes) if axes.is_empty() => {
            // No axis at all: over an axis of size 1 that is put in for it.
            let last = cx.ints(&[-1]);
            let x = inputs.first().cloned().unwrap_or_default();
            let x = cx.temp("Unsqueeze", vec![x, last.clone()], Vec::new());
            inputs = vec![x, last];
            keepdims = false;
        }
        Some(axes) => {
            let axes: Vec<i64> = axes.iter().map(|a| *a as i64).collect();
            inputs.truncate(1);
            inputs.push(cx.ints(&axes));
        }
        None if inputs.len() > 1 => attributes.push(attr::flag("noop_with_empty_axes", op.noop_empty)),
        None => {}
    }
    attributes.push(attr::flag("keepdims", keepdims));
    cx.push(name, inputs, outputs, attributes);
    Ok(())
}

pub(super) fn cumulate(cx: &mut ExportCx<'_>, node: &Node, op: &Cumulate) -> Result<(), Diag> {
    if op.product {
        cx.needs(26);
    }
    let attributes = vec![attr::flag("exclusive", op.exclusive), attr::flag("reverse", op.reverse)];
    with(cx, node, if op.product { "CumProd" } else { "CumSum" }, attributes)
}

pub(super) fn matmul(cx: &mut ExportCx<'_>, node: &Node, op: &MatMul) -> Result<(), Diag> {
    let inputs = cx.inputs(node);
    product(cx, node, op, inputs)
}

/// The inputs that count as zero are chosen by their magnitude.
pub(super) fn gated_matmul(cx: &mut ExportCx<'_>, node: &Node, op: &GatedMatMul) -> Result<(), Diag> {
    let mut inputs = cx.inputs(node);
    if let Some(x) = inputs.first_mut() {
        let (bound, zero) = (cx.scalar(DType::F32, op.bound().into())?, cx.scalar(DType::F32, 0.0)?);
        let size = cx.temp("Abs", vec![x.clone()], Vec::new());
        let below = cx.temp("Less", vec![size, bound], Vec::new());
        *x = cx.temp("Where", vec![below, zero, x.clone()], Vec::new());
    }
    product(cx, node, &MatMul { trans_a: false, trans_b: op.trans_b }, inputs)
}

fn product(cx: &mut ExportCx<'_>, node: &Node, op: &MatMul, mut inputs: Vec<String>) -> Result<(), Diag> {
    let outputs = cx.outputs(node);
    if !op.trans_a && !op.trans_b {
        cx.push("MatMul", inputs, outputs, Vec::new());
        return Ok(());
    }
    let rank = |i: usize| node.inputs.get(i).copied().flatten().and_then(|v| Some(cx.graph.dims(v)?.len()));
    let (a, b) = (rank(0), rank(1));
    if a == Some(2) && b == Some(2) {
        let attributes = vec![attr::flag("transA", op.trans_a), attr::flag("transB", op.trans_b)];
        cx.push("Gemm", inputs, outputs, attributes);
        return Ok(());
    }
    for (i, (swap, rank)) in [(op.trans_a, a), (op.trans_b, b)].into_iter().enumerate() {
        let Some(x) = inputs.get_mut(i).filter(|_| swap) else { continue };
        let rank =
            rank.filter(|r| *r >= 2).ok_or_else(|| Diag::unsupported("the rank of a factor is not known"))?;
        let mut perm: Vec<i64> = (0..rank as i64).collect();
        perm.swap(rank - 1, rank - 2);
        *x = cx.temp("Transpose", vec![x.clone()], vec![attr::ints("perm", perm)]);
    }
    cx.push("MatMul", inputs, outputs, Vec::new());
    Ok(())
}

pub(super) fn dft(cx: &mut ExportCx<'_>, node: &Node, op: &Dft) -> Result<(), Diag> {
    with(cx, node, "DFT", vec![attr::flag("inverse", op.inverse), attr::flag("onesided", op.onesided)])
}

pub(super) fn window(cx: &mut ExportCx<'_>, node: &Node, op: &SignalWindow) -> Result<(), Diag> {
    let name = match op.kind {
        WindowKind::Blackman => "BlackmanWindow",
        WindowKind::Hamming => "HammingWindow",
        WindowKind::Hann => "HannWindow",
    };
    let attributes =
        vec![attr::flag("periodic", op.periodic), attr::int("output_datatype", op.dtype.onnx().into())];
    with(cx, node, name, attributes)
}

pub(super) fn random(cx: &mut ExportCx<'_>, node: &Node, op: &Random) -> Result<(), Diag> {
    if node.inputs.get(1).is_some_and(Option::is_some) {
        return Err(Diag::unsupported(
            "`random` with a seed that is computed; ONNX knows constant seeds only, and `determinize` removes the noise of stochastic gates",
        ));
    }
    let (inputs, outputs) = (cx.inputs(node), cx.outputs(node));
    let like = cx.temp("ConstantOfShape", inputs, Vec::new());
    let (name, a, b) =
        if op.normal { ("RandomNormalLike", "mean", "scale") } else { ("RandomUniformLike", "low", "high") };
    let mut attributes =
        vec![attr::int("dtype", op.dtype.onnx().into()), attr::float(a, op.a), attr::float(b, op.b)];
    attributes.extend(op.seed.map(|seed| attr::float("seed", seed as f64)));
    cx.push(name, vec![like], outputs, attributes);
    Ok(())
}

pub(super) fn multinomial(cx: &mut ExportCx<'_>, node: &Node, op: &Multinomial) -> Result<(), Diag> {
    let mut attributes =
        vec![attr::int("dtype", op.dtype.onnx().into()), attr::int("sample_size", op.samples as i64)];
    attributes.extend(op.seed.map(|seed| attr::float("seed", seed as f64)));
    with(cx, node, "Multinomial", attributes)
}

pub(super) fn mel(cx: &mut ExportCx<'_>, node: &Node, dtype: DType) -> Result<(), Diag> {
    with(cx, node, "MelWeightMatrix", vec![attr::int("output_datatype", dtype.onnx().into())])
}

pub(super) fn einsum(cx: &mut ExportCx<'_>, node: &Node, equation: &str) -> Result<(), Diag> {
    with(cx, node, "Einsum", vec![attr::string("equation", equation)])
}
