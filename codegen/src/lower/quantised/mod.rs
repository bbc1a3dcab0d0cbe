//! Quantisation, its inverse, and products of stored integers.

mod dynamic;
mod packing;
mod passed;
mod plain;
mod product;
mod simt;
mod tile;

pub(super) use dynamic::lower_dynamic_quantize;
pub(super) use product::{Operands, emit as emit_product, lower_matmul_integer};

use super::cx::{LowerCx, Opnd};
use super::elem::{self, convert, mem_elem};
use super::elementwise::emit;
use crate::kernel::{Builder, CmpOp, Elem, Val};
use planish_ir::op::normalize_axis;
use planish_ir::op::quant::{Dequantize, Quantize};
use planish_ir::{DType, Diag, Dim};

/// x, scales and zero points as operands that broadcast against each other, and the dims they broadcast to.
fn aligned(cx: &mut LowerCx<'_>, axis: i64, block: usize) -> Result<(Vec<Opnd>, Vec<Dim>), Diag> {
    let x = cx.input(0)?;
    let mut parts = vec![cx.input(1)?];
    parts.extend(cx.opt_input(2)?);
    let single = |p: &Opnd| p.dims.iter().all(|d| d.is(1));
    if block == 0 && parts.iter().all(single) {
        let mut all = vec![x.clone()];
        all.extend(parts.iter().map(|p| p.with_dims(Vec::new())));
        return Ok((all, x.dims));
    }
    let axis = normalize_axis(axis, x.dims.len())?;
    if block == 0 {
        let mut all = vec![x.clone()];
        for p in &parts {
            let mut dims = vec![Dim::Const(1); x.dims.len()];
            dims[axis] = p.dims.first().cloned().unwrap_or(Dim::Const(1));
            all.push(p.with_dims(dims));
        }
        return Ok((all, x.dims));
    }
    // Axis = blocks x block.
    let blocks = x.dims[axis].exact_div(&Dim::from(block));
    let blocks =
        blocks.ok_or_else(|| Diag::unsupported("the last block of scales is not known to be whole"))?;
    let split = |dims: &[Dim], at: [Dim; 2]| {
        let mut out = dims.to_vec();
        out.splice(axis..=axis, at);
        out
    };
    let wide = split(&x.dims, [blocks.clone(), Dim::from(block)]);
    let mut all = vec![x.with_dims(wide.clone())];
    for p in &parts {
        cx.require_dims(&p.dims, &split_scales(&x.dims, axis, &blocks), "the scales do not fit the blocks");
        all.push(p.with_dims(split(&p.dims, [blocks.clone(), Dim::Const(1)])));
    }
    Ok((all, wide))
}

/// The shape of scales of blocks along an axis.
fn split_scales(dims: &[Dim], axis: usize, blocks: &Dim) -> Vec<Dim> {
    let mut out = dims.to_vec();
    out[axis] = blocks.clone();
    out
}

/// `v` rounded to a float type that is stored narrower than it is computed.
fn rounded(b: &mut Builder, v: Val, to: DType) -> Val {
    match to {
        DType::F16 | DType::BF16 => {
            let narrow = b.fptrunc(v, mem_elem(to));
            b.fpext(narrow, Elem::F32)
        }
        _ => v,
    }
}

/// The type in which numbers of these types are dequantised or quantised.
fn wide(types: &[DType]) -> DType {
    if types.contains(&DType::F64) { DType::F64 } else { DType::F32 }
}

pub(super) fn lower_dequantize(cx: &mut LowerCx<'_>, op: &Dequantize) -> Result<(), Diag> {
    let (ins, dims) = aligned(cx, op.axis, op.block)?;
    let types: Vec<DType> = ins.iter().map(|x| x.dtype).collect();
    let y = cx.output(0)?.with_dims(dims);
    let to = y.dtype;
    emit(cx, "dequantize", &ins, &[y], 4, &|b, v| vec![dequantized(b, v, &types, to)])
}

/// The real numbers that stored ones stand for. Operands: the stored ones, scales and zero points.
pub(super) fn dequantized(b: &mut Builder, v: &[Val], types: &[DType], to: DType) -> Val {
    // Differences of integers are exact in i32; the product is rounded once.
    let exact = types[0] == DType::I32;
    let work = if exact { DType::F64 } else { wide(&[types[1], to]) };
    let mut x = convert(b, v[0], types[0], work);
    if let Some(z) = v.get(2) {
        let z = convert(b, *z, types[2], work);
        x = b.fsub(x, z);
    }
    let s = convert(b, v[1], types[1], work);
    let y = b.fmul(x, s);
    convert(b, y, work, to)
}

pub(super) fn lower_quantize(cx: &mut LowerCx<'_>, op: &Quantize) -> Result<(), Diag> {
    let (ins, dims) = aligned(cx, op.axis, op.block)?;
    let types: Vec<DType> = ins.iter().map(|x| x.dtype).collect();
    let y = cx.output(0)?.with_dims(dims);
    emit(cx, "quantize", &ins, &[y], 10, &|b, v| vec![quantized(b, op, v, &types)])
}

/// Real numbers as stored ones. Operands: the numbers, scales and zero points.
pub(super) fn quantized(b: &mut Builder, op: &Quantize, v: &[Val], types: &[DType]) -> Val {
    let (to, precision) = (op.to, op.precision);
    let work = wide(&[types[0], types[1], precision]);
    let mut q = convert(b, v[0], types[0], work);
    q = rounded(b, q, precision);
    if b.known_float(v[1]) != Some(1.0) {
        let s = convert(b, v[1], types[1], work);
        q = b.fdiv(q, s);
        q = rounded(b, q, precision);
    }
    let Some((low, high)) = to.int_range() else {
        let q = convert(b, q, work, DType::F32);
        return if op.saturate { elem::saturate(b, to, q) } else { q };
    };
    if let (DType::F32, Some(zero)) = (work, known_zero(b, v, types))
        && mem_elem(to) == Elem::I8
    {
        return byte(b, q, [low, high].map(|x| x as i64), zero);
    }
    let nan = b.cmp(CmpOp::FNe, q, q);
    let zero = b.zero(b.ty(q));
    q = b.select(nan, zero, q);
    q = b.round_even(q);
    if let Some(z) = v.get(2) {
        let z = convert(b, *z, types[2], work);
        q = b.fadd(q, z);
    }
    let (low, high) = (b.float(b.ty(q), low as f64), b.float(b.ty(q), high as f64));
    let above = b.cmp(CmpOp::FGt, q, low);
    let q = b.select(above, q, low);
    let below = b.cmp(CmpOp::FLt, q, high);
    let q = b.select(below, q, high);
    integer(b, q, mem_elem(to))
}

/// The zero point of a quantisation, where it is known.
fn known_zero(b: &Builder, v: &[Val], types: &[DType]) -> Option<i64> {
    let Some(z) = v.get(2) else { return Some(0) };
    let bits = b.known_int(*z)?;
    Some(if types[2] == DType::U8 { bits & 0xff } else { bits })
}

/// A float rounded, moved to a zero point and limited, in 8 bits; NaN becomes the zero point.
fn byte(b: &mut Builder, mut q: Val, [low, high]: [i64; 2], zero: i64) -> Val {
    let ty = b.ty(q);
    let (least, most) = (b.float(ty, (low - zero) as f64), b.float(ty, (high - zero) as f64));
    if low != zero {
        let nan = b.cmp(CmpOp::FNe, q, q);
        let nothing = b.zero(ty);
        q = b.select(nan, nothing, q);
    }
    // Limits that are integers may come before the rounding; a NaN is not above the lower one.
    let above = b.cmp(CmpOp::FGt, q, least);
    let q = b.select(above, q, least);
    let below = b.cmp(CmpOp::FLt, q, most);
    let q = b.select(below, q, most);
    // To add 1.5 * 2^23 rounds, and leaves the integer in the low bits.
    let shifted = b.fadd(q, 12_582_912.0);
    let bits = b.bitcast(shifted, ty.with_elem(Elem::I32));
    let bits = if zero == 0 { bits } else { b.add(bits, zero) };
    b.trunc(bits, Elem::I8)
}

/// The integer that a float of at most 16 bits before the point is, in its low bits.
fn integer(b: &mut Builder, v: Val, to: Elem) -> Val {
    let ty = b.ty(v);
    if ty.elem == Elem::F64 {
        let wide = b.fptosi(v, Elem::I32);
        return b.trunc(wide, to);
    }
    // With 1.5 * 2^23 added, the integer is in the low bits of the mantissa.
    let shifted = b.fadd(v, 12_582_912.0);
    let bits = b.bitcast(shifted, ty.with_elem(Elem::I32));
    b.trunc(bits, to)
}
