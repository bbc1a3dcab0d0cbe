//! Quantised operators.

use super::Made;
use super::parts::{add, div, mul, unsqueeze};
use crate::import::table::{Entry, onnx};
use crate::import::{ImportCx, OnnxNode};
use planish_ir::op::quant::{ConvInteger, Dequantize, DynamicQuantize, MatMulInteger, Quantize};
use planish_ir::op::window::AutoPad;
use planish_ir::{DType, Diag, ValueId};

pub(super) const OPS: &[Entry] = &[
    onnx("ConvInteger", conv_integer),
    onnx("DequantizeLinear", dequantize),
    onnx("DynamicQuantizeLinear", dynamic_quantize),
    onnx("MatMulInteger", matmul_integer),
    onnx("QLinearConv", qlinear_conv),
    onnx("QLinearMatMul", qlinear_matmul),
    onnx("QuantizeLinear", quantize),
    ms("DequantizeLinear", dequantize),
    ms("QuantizeLinear", quantize),
];

/// An operator of the domain of ONNX Runtime's additions.
pub(super) const fn ms(op_type: &'static str, handler: crate::import::table::Handler) -> Entry {
    Entry { domain: "com.microsoft", op_type, since: 1, handler }
}

/// The float type that arithmetic with scales of type `d` is done in.
fn arithmetic(d: DType) -> DType {
    if matches!(d, DType::F16 | DType::BF16 | DType::F64) { d } else { DType::F32 }
}

/// `axis` and `block_size`; -1 and 1 axes need no check here, which the shape rule does.
fn layout(node: &OnnxNode<'_>) -> Result<(i64, usize), Diag> {
    let block = node.int_in("block_size", 0, 0..=i64::from(i32::MAX))?;
    Ok((node.int_or("axis", 1)?, block as usize))
}

/// A zero point that is not 0 everywhere.
fn nonzero(cx: &ImportCx<'_, '_>, zero: Option<ValueId>) -> Option<ValueId> {
    zero.filter(|z| match cx.const_tensor(*z, 1 << 20) {
        Some(t) => t.to_f64().iter().any(|v| *v != 0.0),
        None => true,
    })
}

fn dequantize(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let (axis, block) = layout(node)?;
    let (x, scale) = (node.input(0)?, node.input(1)?);
    let to = node.dtype("output_dtype")?.unwrap_or(arithmetic(cx.dtype(scale)?));
    let zero = nonzero(cx, node.opt(2));
    cx.op_many(Dequantize { axis, block, to }, &[Some(x), Some(scale), zero])
}

fn quantize(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let (axis, block) = layout(node)?;
    let (x, scale) = (node.input(0)?, node.input(1)?);
    let named = node.int_or("output_dtype", 0)?;
    let to = match node.opt(2) {
        Some(zero) => cx.dtype(zero)?,
        None if named != 0 => node.dtype("output_dtype")?.unwrap_or(DType::U8),
        None => DType::U8,
    };
    let precision = match node.int_or("precision", 0)? {
        0 => arithmetic(cx.dtype(scale)?),
        _ => node.dtype("precision")?.unwrap_or(DType::F32),
    };
    let saturate = node.flag("saturate", true)?;
    let zero = nonzero(cx, node.opt(2));
    cx.op_many(Quantize { axis, block, to, saturate, precision }, &[Some(x), Some(scale), zero])
}

/// Scale (f32 scalar), zero point and elements (u8) of a tensor of f32 whose range, extended to 0, is spread over u8.
pub(super) fn quantize_dynamically(
    cx: &mut ImportCx<'_, '_>,
    x: ValueId,
) -> Result<(ValueId, ValueId, ValueId), Diag> {
    let out = cx.op_many(DynamicQuantize {}, &[Some(x)])?;
    match out[..] {
        [y, scale, point] => Ok((y, scale, point)),
        _ => Err(Diag::error("internal-import", "three results")),
    }
}

fn dynamic_quantize(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let (y, scale, point) = quantize_dynamically(cx, node.input(0)?)?;
    Ok(vec![y, scale, point])
}

/// A zero point or scale of the rows of the first operand as something that broadcasts against it.
fn for_rows(cx: &mut ImportCx<'_, '_>, v: ValueId) -> Result<ValueId, Diag> {
    match cx.dims(v)?.as_slice() {
        [one] if one.is(1) => cx.reshape(v, &[]),
        [_] => unsqueeze(cx, v, &[1]),
        _ => Ok(v),
    }
}

/// As [`for_rows`] for the columns of the second operand.
fn for_columns(cx: &mut ImportCx<'_, '_>, v: ValueId) -> Result<ValueId, Diag> {
    match cx.dims(v)?.as_slice() {
        [one] if one.is(1) => cx.reshape(v, &[]),
        _ => Ok(v),
    }
}

/// The product in i32 of operands of any rank from 1 on, less their zero points.
pub(super) fn integer_product(
    cx: &mut ImportCx<'_, '_>,
    a: ValueId,
    b: ValueId,
    zeros: [Option<ValueId>; 2],
) -> Result<ValueId, Diag> {
    let (vector_a, vector_b) = (cx.rank(a)? == 1, cx.rank(b)? == 1);
    let (mut a, mut b) = (a, b);
    if vector_a {
        a = unsqueeze(cx, a, &[0])?;
    }
    if vector_b {
        b = unsqueeze(cx, b, &[1])?;
    }
    let za = nonzero(cx, zeros[0]).map(|z| for_rows(cx, z)).transpose()?;
    let zb = nonzero(cx, zeros[1]).map(|z| for_columns(cx, z)).transpose()?;
    let out = cx.op_many(MatMulInteger {}, &[Some(a), Some(b), za, zb])?;
    let y = *out.first().ok_or_else(|| Diag::error("internal-import", "no result"))?;
    let rank = cx.rank(y)?;
    let mut gone = Vec::new();
    if vector_a {
        gone.push(rank - 2);
    }
    if vector_b {
        gone.push(rank - 1);
    }
    if gone.is_empty() { Ok(y) } else { super::parts::squeeze(cx, y, &gone) }
}

fn matmul_integer(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let (a, b) = (node.input(0)?, node.input(1)?);
    Ok(vec![integer_product(cx, a, b, [node.opt(2), node.opt(3)])?])
}

/// Sums in i32 times `scale_a * scale_b / scale_y`, rounded and moved to the zero point of the result.
fn requantize(
    cx: &mut ImportCx<'_, '_>,
    node: &OnnxNode<'_>,
    sums: ValueId,
    scales: [ValueId; 3],
    zero: ValueId,
) -> Result<ValueId, Diag> {
    let mut f32s = [sums; 3];
    for (to, from) in f32s.iter_mut().zip(scales) {
        *to = cx.cast(from, DType::F32)?;
    }
    let factor = mul(cx, f32s[0], f32s[1])?;
    let factor = div(cx, factor, f32s[2])?;
    let real = cx.cast(sums, DType::F32)?;
    let real = mul(cx, real, factor)?;
    if cx.dims(zero)?.iter().any(|d| !d.is(1)) {
        return Err(node.unsupported("a zero point for each row of the result"));
    }
    let zero = cx.reshape(zero, &[])?;
    let one = cx.const_f32(1.0)?;
    let to = cx.dtype(zero)?;
    cx.op(Quantize { axis: 0, block: 0, to, saturate: true, precision: DType::F32 }, &[real, one, zero])
}

fn qlinear_matmul(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let i = node.all_inputs()?;
    let [a, sa, za, b, sb, zb, sy, zy] = i[..] else {
        return Err(node.error("operand-missing", "8 operands are needed"));
    };
    let sums = integer_product(cx, a, b, [Some(za), Some(zb)])?;
    let scales = [for_rows(cx, sa)?, for_columns(cx, sb)?, for_rows(cx, sy)?];
    Ok(vec![requantize(cx, node, sums, scales, zy)?])
}

/// The convolution in i32 that the attributes of the node describe.
fn convolution(
    cx: &mut ImportCx<'_, '_>,
    node: &OnnxNode<'_>,
    (x, x_zero): (ValueId, Option<ValueId>),
    (w, w_zero): (ValueId, Option<ValueId>),
) -> Result<ValueId, Diag> {
    node.ignore(&["kernel_shape"]);
    let axes = cx.rank(w)?.saturating_sub(2);
    let list = |name: &str, count: usize, default: i64| -> Result<Vec<i64>, Diag> {
        match node.ints_in(name, 0..=i64::from(i32::MAX))? {
            Some(v) if v.len() == count => Ok(v.to_vec()),
            None => Ok(vec![default; count]),
            Some(v) => Err(node.error(
                "attribute-range",
                format!("attribute {name:?} has {} entries, not {count}", v.len()),
            )),
        }
    };
    let auto = node.choice("auto_pad", 0, &["NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"])?;
    let pads = list("pads", 2 * axes, 0)?;
    let op = ConvInteger {
        strides: list("strides", axes, 1)?,
        dilations: list("dilations", axes, 1)?,
        pads: if auto == 0 { pads } else { vec![0; 2 * axes] },
        auto_pad: [AutoPad::Explicit, AutoPad::Explicit, AutoPad::SameUpper, AutoPad::SameLower][auto],
        groups: node.int_in("group", 1, 1..=i64::from(i32::MAX))?,
    };
    let x_zero = match nonzero(cx, x_zero) {
        Some(z) => Some(cx.reshape(z, &[])?),
        None => None,
    };
    let w_zero = nonzero(cx, w_zero);
    let out = cx.op_many(op, &[Some(x), Some(w), x_zero, w_zero])?;
    out.first().copied().ok_or_else(|| node.error("internal-import", "no result"))
}

fn conv_integer(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let (x, w) = (node.input(0)?, node.input(1)?);
    Ok(vec![convolution(cx, node, (x, node.opt(2)), (w, node.opt(3)))?])
}

fn qlinear_conv(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let (x, w) = (node.input(0)?, node.input(3)?);
    let mut sums = convolution(cx, node, (x, node.opt(2)), (w, node.opt(5)))?;
    if let Some(bias) = node.opt(8) {
        let axes: Vec<usize> = (1..cx.rank(w)? - 1).collect();
        let bias = unsqueeze(cx, bias, &axes)?;
        sums = add(cx, sums, bias)?;
    }
    let mut weight_scale = node.input(4)?;
    weight_scale = match cx.dims(weight_scale)?.as_slice() {
        [n] if !n.is(1) => {
            let axes: Vec<usize> = (1..cx.rank(w)? - 1).collect();
            unsqueeze(cx, weight_scale, &axes)?
        }
        _ => cx.reshape(weight_scale, &[])?,
    };
    let (sx, sy) = (cx.reshape(node.input(1)?, &[])?, cx.reshape(node.input(6)?, &[])?);
    Ok(vec![requantize(cx, node, sums, [sx, weight_scale, sy], node.input(7)?)?])
}

/// The float product of quantised operands: the sums in i32 times both scales.
pub(super) fn scaled_product(
    cx: &mut ImportCx<'_, '_>,
    a: (ValueId, ValueId, Option<ValueId>),
    b: (ValueId, ValueId, Option<ValueId>),
) -> Result<ValueId, Diag> {
    let sums = integer_product(cx, a.0, b.0, [a.2, b.2])?;
    let (sa, sb) = (for_rows(cx, a.1)?, for_columns(cx, b.1)?);
    let factor = mul(cx, sa, sb)?;
    let real = cx.cast(sums, DType::F32)?;
    mul(cx, real, factor)
}
