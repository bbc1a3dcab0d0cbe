//! Operators of the domain of ONNX Runtime's additions, `com.microsoft`, made of others.

use super::Made;
use super::parts::{add, mul, reshape_to, scale, size1, slice};
use super::quantised::{ms, quantize_dynamically, scaled_product};
use crate::import::table::Entry;
use crate::import::{ImportCx, OnnxNode};
use planish_ir::op::layer_norm::LayerNorm;
use planish_ir::op::matmul::MatMul;
use planish_ir::op::quant::{Dequantize, Quantize};
use planish_ir::op::unary::UnaryKind;
use planish_ir::{DType, Diag, Tensor, ValueId};

pub(super) const OPS: &[Entry] = &[
    ms("BiasGelu", bias_gelu),
    ms("DynamicQuantizeLSTM", super::dynamic_lstm::lstm),
    ms("DynamicQuantizeMatMul", dynamic_matmul),
    ms("FastGelu", fast_gelu),
    ms("FusedMatMul", fused_matmul),
    ms("Gelu", gelu),
    ms("MatMulIntegerToFloat", matmul_to_float),
    ms("QLinearAdd", qlinear_binary),
    ms("QLinearMul", qlinear_binary),
    ms("QuickGelu", quick_gelu),
    ms("SkipLayerNormalization", skip_layer_norm),
    ms("SkipSimplifiedLayerNormalization", skip_layer_norm),
];

fn with_bias(cx: &mut ImportCx<'_, '_>, x: ValueId, bias: Option<ValueId>) -> Result<ValueId, Diag> {
    match bias {
        Some(b) => add(cx, x, b),
        None => Ok(x),
    }
}

fn gelu(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    Ok(vec![cx.unary(UnaryKind::Gelu, node.input(0)?)?])
}

fn bias_gelu(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let x = add(cx, node.input(0)?, node.input(1)?)?;
    Ok(vec![cx.unary(UnaryKind::Gelu, x)?])
}

fn fast_gelu(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let x = with_bias(cx, node.input(0)?, node.opt(1))?;
    Ok(vec![cx.unary(UnaryKind::GeluTanh, x)?])
}

fn quick_gelu(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let x = node.input(0)?;
    let inner = scale(cx, x, node.float_or("alpha", 1.702)?.into())?;
    let gate = cx.unary(UnaryKind::Sigmoid, inner)?;
    Ok(vec![mul(cx, x, gate)?])
}

fn fused_matmul(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    if node.flag("transBatchA", false)? || node.flag("transBatchB", false)? {
        return Err(node.unsupported("transposed batch axes"));
    }
    let (a, b) = (node.input(0)?, node.input(1)?);
    if cx.rank(a)? < 2 || cx.rank(b)? < 2 {
        return Err(node.unsupported("operands that are vectors"));
    }
    let op = MatMul { trans_a: node.flag("transA", false)?, trans_b: node.flag("transB", false)? };
    let y = cx.op(op, &[a, b])?;
    let alpha = node.float_or("alpha", 1.0)?;
    Ok(vec![if alpha == 1.0 { y } else { scale(cx, y, alpha.into())? }])
}

/// The sum of both operands (and the bias), normalised; the further results but the sum are not given.
fn skip_layer_norm(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let rms = node.op_type == "SkipSimplifiedLayerNormalization";
    if node.wants(1) || node.wants(2) {
        return Err(node.unsupported("the mean and the deviation as results"));
    }
    let sum = add(cx, node.input(0)?, node.input(1)?)?;
    let (shift, bias) = if rms { (None, node.opt(3)) } else { (node.opt(3), node.opt(4)) };
    let sum = with_bias(cx, sum, bias)?;
    let axis = cx.rank(sum)?.checked_sub(1).ok_or_else(|| node.error("shape-mismatch", "a scalar"))?;
    let op = LayerNorm { axis, epsilon: node.float_or("epsilon", 1e-5)?.into(), rms };
    let mut operands = vec![Some(sum), Some(node.input(2)?)];
    if shift.is_some() {
        operands.push(shift);
    }
    let y = cx.op_many(op, &operands)?;
    let y = *y.first().ok_or_else(|| node.error("internal-import", "no result"))?;
    Ok(vec![y, y, y, sum])
}

fn matmul_to_float(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let a = (node.input(0)?, node.input(2)?, node.opt(4));
    let b = (node.input(1)?, node.input(3)?, node.opt(5));
    let y = scaled_product(cx, a, b)?;
    Ok(vec![with_bias(cx, y, node.opt(6))?])
}

fn dynamic_matmul(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let (a, sa, za) = quantize_dynamically(cx, node.input(0)?)?;
    let y = scaled_product(cx, (a, sa, Some(za)), (node.input(1)?, node.input(2)?, node.opt(3)))?;
    Ok(vec![with_bias(cx, y, node.opt(4))?])
}

fn qlinear_binary(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let real = |cx: &mut ImportCx<'_, '_>, at: usize| -> Result<ValueId, Diag> {
        let op = Dequantize { axis: 0, block: 0, to: DType::F32 };
        let out = cx.op_many(op, &[Some(node.input(at)?), Some(node.input(at + 1)?), node.opt(at + 2)])?;
        out.first().copied().ok_or_else(|| node.error("internal-import", "no result"))
    };
    let (a, b) = (real(cx, 0)?, real(cx, 3)?);
    let y = if node.op_type == "QLinearAdd" { add(cx, a, b)? } else { mul(cx, a, b)? };
    let to = cx.dtype(node.input(0)?)?;
    let op = Quantize { axis: 0, block: 0, to, saturate: true, precision: DType::F32 };
    cx.op_many(op, &[Some(y), Some(node.input(6)?), node.opt(7)])
}

/// A vector of sizes made of the first sizes of `x` and of known numbers.
pub(super) fn like(
    cx: &mut ImportCx<'_, '_>,
    x: ValueId,
    axes: &[usize],
    more: &[i64],
) -> Result<Vec<ValueId>, Diag> {
    let mut parts = axes.iter().map(|a| size1(cx, x, *a)).collect::<Result<Vec<_>, _>>()?;
    parts.push(cx.const_i64s(more)?);
    Ok(parts)
}

/// `x` with the dims of `of` at `axes`, then the given ones.
pub(super) fn reshape_as(
    cx: &mut ImportCx<'_, '_>,
    x: ValueId,
    of: ValueId,
    axes: &[usize],
    more: &[i64],
) -> Result<ValueId, Diag> {
    let parts = like(cx, of, axes, more)?;
    reshape_to(cx, x, &parts)
}

/// Equal parts along axis 1.
pub(super) fn columns(
    cx: &mut ImportCx<'_, '_>,
    x: ValueId,
    count: usize,
    width: usize,
) -> Result<Vec<ValueId>, Diag> {
    (0..count).map(|i| slice(cx, x, 1, (i * width) as i64, ((i + 1) * width) as i64, 1)).collect()
}

/// Slice `index` of a constant along axis 0, which vanishes.
pub(super) fn constant_part(
    cx: &ImportCx<'_, '_>,
    node: &OnnxNode<'_>,
    v: ValueId,
    index: usize,
) -> Result<Tensor, Diag> {
    let t = cx.const_tensor(v, 1 << 28).ok_or_else(|| node.unsupported("weights that are not constant"))?;
    let (Some(n), shape) = (t.shape().first().copied(), t.shape().to_vec()) else {
        return Err(node.error("shape-mismatch", "weights are a scalar"));
    };
    if index >= n {
        return Err(node.error("shape-mismatch", "weights have too few directions"));
    }
    let bytes = t.bytes().len() / n;
    Tensor::from_bytes(t.dtype(), shape[1..].to_vec(), t.bytes().slice(index * bytes..(index + 1) * bytes))
}
