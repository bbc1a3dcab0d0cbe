//! Quantised numbers: conversion between real numbers and stored integers, and products and convolutions of stored integers.

mod conv;
mod dynamic;
mod fake;
#[cfg(test)]
mod fake_tests;
mod matmul;

pub use conv::ConvInteger;
pub use dynamic::DynamicQuantize;
pub use fake::FakeQuantize;
pub use matmul::MatMulInteger;

use crate::diag::Diag;
use crate::dim::Dim;
use crate::dtype::DType;
use crate::graph::Fact;
use crate::op::gradient::GradCx;
use crate::op::reduce::ReduceKind;
use crate::op::{EvalCx, InferCx, OpDef, normalize_axis};
use crate::tensor::{Elems, Tensor, Value, elem_count, float_from_bits, float_to_bits};
use crate::types::{TensorType, Type};

crate::op_struct! {
    /// `(x - zero_point) * scale`. Operands: x (integers of up to 32 bits, or floats of up to 8), scale, zero point (of the type of x; omitted: 0). One scale (rank 0, or one element) is for all of x; a vector of scales goes along `axis`; with a `block`, scale has the rank of x and each stands for `block` neighbours along `axis`. Zero points have the shape of the scales.
    Dequantize {
        /// The axis along which scales differ.
        axis: i64,
        /// Neighbours that share a scale; 0: no blocks.
        block: usize,
        /// The float type of the result.
        to: DType,
    }
}

crate::op_struct! {
    /// `saturate(round(x / scale) + zero_point)`, halves rounded to even. Operands: x, scale, zero point (of type `to`; omitted: 0), with scales and zero points as in `dequantize`. Float types are rounded to without zero point.
    Quantize {
        /// The axis along which scales differ.
        axis: i64,
        /// Neighbours that share a scale; 0: no blocks.
        block: usize,
        /// The type of the result: an integer of up to 16 bits or a float of up to 8.
        to: DType,
        /// Whether too large values become the largest finite one of an 8-bit float type rather than infinity or NaN.
        saturate: bool,
        /// The float type that the quotient is rounded to.
        precision: DType,
    }
}

/// The types that numbers are stored as when they are quantised.
pub fn is_storage(d: DType) -> bool {
    use DType::*;
    matches!(
        d,
        U2 | I2 | U4 | I4 | U8 | I8 | U16 | I16 | F8E4M3FN | F8E4M3FNUZ | F8E5M2 | F8E5M2FNUZ | F4E2M1
    )
}

/// Checks the shapes of scales (operand 1) and zero points (operand 2) against x (operand 0).
fn check_scales(cx: &InferCx<'_>, axis: i64, block: usize, zero: DType) -> Result<(), Diag> {
    let scale = cx.dims(1)?;
    if cx.has(2) {
        let d = cx.dtype(2)?;
        if d != zero {
            return Err(Diag::error("dtype-mismatch", format!("zero points are {d}, not {zero}")));
        }
        let dims = cx.dims(2)?;
        let clash = |(a, b): (&Dim, &Dim)| a.as_const().zip(b.as_const()).is_some_and(|(a, b)| a != b);
        let both_one = is_one(dims) && is_one(scale);
        if !both_one && (dims.len() != scale.len() || dims.iter().zip(scale).any(clash)) {
            return Err(Diag::error("shape-mismatch", "zero points and scales have different shapes"));
        }
    }
    if is_one(scale) && block == 0 {
        return Ok(());
    }
    let x = cx.dims(0)?;
    let axis = normalize_axis(axis, x.len())?;
    let clash = |a: &Dim, b: &Dim| a.as_const().zip(b.as_const()).is_some_and(|(a, b)| a != b);
    let wrong = |what: &str| Err(Diag::error("shape-mismatch", format!("scales: {what}")));
    match (block, scale) {
        (0, [n]) if clash(n, &x[axis]) => wrong("their number is not the size of the axis"),
        (0, [_]) => Ok(()),
        (0, _) => wrong("one, a vector, or blocks are needed"),
        (_, s) if s.len() != x.len() => wrong("blocks need the rank of the operand"),
        (b, s) => {
            for (i, (s, d)) in s.iter().zip(x).enumerate() {
                let want = if i == axis { d.ceil_div(&Dim::from(b)) } else { d.clone() };
                if clash(s, &want) {
                    return wrong("their number is not that of the blocks");
                }
            }
            Ok(())
        }
    }
}

fn is_one(dims: &[Dim]) -> bool {
    dims.is_empty() || (dims.len() == 1 && dims[0].is(1))
}

/// For each element of a tensor of shape `x`, the position of its scale.
fn scale_positions(x: &[usize], scale: &[usize], axis: i64, block: usize) -> Result<Vec<usize>, Diag> {
    let n = elem_count(x)?;
    if block == 0 && elem_count(scale)? == 1 {
        return Ok(vec![0; n]);
    }
    let axis = normalize_axis(axis, x.len())?;
    let inner: usize = x[axis + 1..].iter().product();
    let size = x[axis];
    if block == 0 {
        if scale != [size] {
            return Err(Diag::error("shape-mismatch", format!("{scale:?} scales for {size} indices")));
        }
        return Ok((0..n).map(|i| i / inner % size).collect());
    }
    let blocks = size.div_ceil(block);
    let mut want = x.to_vec();
    want[axis] = blocks;
    if scale != want {
        return Err(Diag::error("shape-mismatch", format!("{scale:?} scales where {want:?} are needed")));
    }
    Ok((0..n).map(|i| (i / inner / size * blocks + i / inner % size / block) * inner + i % inner).collect())
}

/// `v` rounded to a float type.
fn round_to(d: DType, v: f64) -> f64 {
    float_from_bits(d, float_to_bits(d, v, true))
}

impl OpDef for Dequantize {
    const NAME: &'static str = "dequantize";
    const INPUTS: (usize, usize) = (2, 3);
    fn infer(&self, cx: &mut InferCx<'_>) -> Result<Vec<Fact>, Diag> {
        let d = cx.expect_dtype(0, |d| is_storage(d) || d == DType::I32, "a type of quantised numbers")?;
        cx.expect_dtype(1, DType::is_float, "a float")?;
        if !matches!(self.to, DType::F32 | DType::F16 | DType::BF16 | DType::F64) {
            return Err(Diag::error("dtype-mismatch", format!("the result cannot be {}", self.to)));
        }
        check_scales(cx, self.axis, self.block, d)?;
        let shape = cx.ty(0)?.shape.clone();
        Ok(vec![Type::from(TensorType { dtype: self.to, shape, quant: None }).into()])
    }
    fn gradient(&self, cx: &mut GradCx<'_, '_>) -> Result<(), Diag> {
        let (dy, x, scale) = (cx.only_seed()?, cx.input(0)?, cx.input(1)?);
        if self.block > 0 || cx.wants(0) || cx.wants(2) {
            return Err(cx.no_rule("of blocks and of stored floats"));
        }
        let ones = cx.filled(1.0, scale)?;
        let zero = cx.inputs().get(2).copied().flatten();
        let stored = cx.ed.node(self.clone(), &[Some(x), Some(ones), zero])?[0];
        let part = cx.mul(dy, stored)?;
        let (rank, one) = (cx.dims(x)?.len(), is_one(&cx.dims(scale)?));
        let axis = if one { rank } else { normalize_axis(self.axis, rank)? };
        let axes: Vec<usize> = (0..rank).filter(|a| *a != axis).collect();
        let sum = cx.reduce(ReduceKind::Sum, part, &axes, false)?;
        let sum = cx.reshape_like(sum, scale)?;
        let to = cx.dtype(scale)?;
        let sum = cx.cast(sum, to)?;
        cx.give(1, sum)
    }
    fn eval(&self, cx: &mut EvalCx<'_>) -> Result<Vec<Value>, Diag> {
        let (x, scale) = (cx.tensor(0)?, cx.tensor(1)?);
        let at = scale_positions(x.shape(), scale.shape(), self.axis, self.block)?;
        let zero = zero_points(cx, scale.len())?;
        let scale = scale.to_f64();
        let v = x.to_f64().iter().zip(at).map(|(v, i)| (v - zero[i]) * scale[i]).collect();
        Ok(vec![Tensor::floats(self.to, x.shape(), v)?.into()])
    }
}

/// The zero points of the third operand, or as many zeros.
fn zero_points(cx: &EvalCx<'_>, count: usize) -> Result<Vec<f64>, Diag> {
    match cx.opt_tensor(2)? {
        Some(z) if z.len() == count => Ok(z.to_f64()),
        Some(_) => Err(Diag::error("shape-mismatch", "as many zero points as scales are needed")),
        None => Ok(vec![0.0; count]),
    }
}

impl OpDef for Quantize {
    const NAME: &'static str = "quantize";
    const INPUTS: (usize, usize) = (2, 3);
    fn infer(&self, cx: &mut InferCx<'_>) -> Result<Vec<Fact>, Diag> {
        cx.expect_dtype(0, |d| d.is_float() || d == DType::I32, "a float or i32")?;
        cx.expect_dtype(1, |d| d.is_float() || d == DType::I32, "a float or i32")?;
        if !is_storage(self.to) {
            return Err(Diag::error("dtype-mismatch", format!("numbers are not quantised to {}", self.to)));
        }
        if !matches!(self.precision, DType::F32 | DType::F16 | DType::BF16 | DType::F64) {
            return Err(Diag::error("dtype-mismatch", format!("{} is no precision", self.precision)));
        }
        check_scales(cx, self.axis, self.block, self.to)?;
        let shape = cx.ty(0)?.shape.clone();
        Ok(vec![Type::from(TensorType { dtype: self.to, shape, quant: None }).into()])
    }
    fn eval(&self, cx: &mut EvalCx<'_>) -> Result<Vec<Value>, Diag> {
        let (x, scale) = (cx.tensor(0)?, cx.tensor(1)?);
        let at = scale_positions(x.shape(), scale.shape(), self.axis, self.block)?;
        let zero = zero_points(cx, scale.len())?;
        let scale = scale.to_f64();
        let quotients = x
            .to_f64()
            .into_iter()
            .zip(at)
            .map(|(v, i)| (round_to(self.precision, round_to(self.precision, v) / scale[i]), zero[i]));
        let shape = x.shape().to_vec();
        let out = match self.to.int_range() {
            Some((lo, hi)) => {
                let v = quotients.map(|(q, z)| {
                    // NaN counts as the zero point.
                    let q = if q.is_nan() { 0.0 } else { q.round_ties_even() };
                    (q + z).clamp(lo as f64, hi as f64) as i128
                });
                Tensor::from_elems(self.to, shape, Elems::I(v.collect()))?
            }
            None => {
                let bytes: Vec<u8> =
                    quotients.map(|(q, _)| float_to_bits(self.to, q, self.saturate) as u8).collect();
                Tensor::from_bytes(self.to, shape, bytes.into())?
            }
        };
        Ok(vec![out.into()])
    }
}

#[cfg(test)]
mod tests;
