//! Real numbers as they are after quantisation, for training.

use super::round_to;
use crate::diag::Diag;
use crate::dtype::DType;
use crate::graph::{Fact, ValueId};
use crate::op::binary::BinaryKind;
use crate::op::build::Build;
use crate::op::gradient::GradCx;
use crate::op::reduce::ReduceKind;
use crate::op::unary::UnaryKind;
use crate::op::util::expect_equal;
use crate::op::where_::Where;
use crate::op::{EvalCx, InferCx, OpDef, normalize_axis};
use crate::tensor::{Tensor, Value, elem_count};
use crate::types::{TensorType, Type};

crate::op_struct! {
    /// `round(clamp(x / s, low, high)) * s`, halves rounded to even: what `dequantize` makes of the result of `quantize`, with a step s that is trained. Operands: x (floats) and scale (of its type), one number or a vector along `axis`. The magnitude of scale is s, at least the smallest normal number of the type, so training cannot lead it out of its range. With Q = `high`, the largest stored integer, and N elements of x that share a step, gradients are those of Esser et al., *Learned Step Size Quantization*, 2020: that of x passes where x / s is between low and high, and that of s is the sum of `round(x / s) - x / s` there, of low or high elsewhere, over `sqrt(N Q)`. `quantize-trained` makes stored integers of it; `expand-composites` puts element-wise operations in its place, gradients come before both.
    FakeQuantize {
        /// Bits of a stored integer, 2 to 8.
        bits: usize,
        /// Whether low is `-2^(bits - 1)` and high `2^(bits - 1) - 1`, or 0 and `2^bits - 1`.
        signed: bool,
        /// The axis along which steps differ.
        axis: i64,
        /// Whether the first axis of x is that of examples, which N does not count.
        batch: bool,
    }
}

/// The smallest normal number.
fn floor(dtype: DType) -> f64 {
    match dtype {
        DType::F64 => f64::MIN_POSITIVE,
        DType::F16 => 2f64.powi(-14),
        _ => f64::from(f32::MIN_POSITIVE),
    }
}

impl FakeQuantize {
    /// The least and the largest stored integer.
    pub fn range(&self) -> [f64; 2] {
        let all = 2f64.powi(self.bits as i32);
        if self.signed { [-all / 2.0, all / 2.0 - 1.0] } else { [0.0, all - 1.0] }
    }
    /// The steps that scales stand for.
    pub fn steps(scale: &Tensor) -> Vec<f64> {
        let floor = floor(scale.dtype());
        scale.to_f64().into_iter().map(|s| if s.is_nan() { s } else { s.abs().max(floor) }).collect()
    }
    /// Which step each element of x has.
    pub fn step_of(&self, x: &[usize], scale: &[usize]) -> Result<Vec<usize>, Diag> {
        if scale.is_empty() {
            return Ok(vec![0; elem_count(x)?]);
        }
        super::scale_positions(x, scale, self.axis, 0)
    }
    /// The stored integers, as floats; NaN where x is.
    pub fn stored(&self, x: &Tensor, scale: &Tensor) -> Result<Vec<f64>, Diag> {
        let ([low, high], steps) = (self.range(), FakeQuantize::steps(scale));
        let at = self.step_of(x.shape(), scale.shape())?;
        let of = |(v, i): (f64, usize)| round_to(x.dtype(), v / steps[i]).clamp(low, high).round_ties_even();
        Ok(x.to_f64().into_iter().zip(at).map(of).collect())
    }
    /// The steps in a shape that broadcasts to that of x.
    fn step(&self, b: &mut Build<'_, '_>, x: ValueId, scale: ValueId) -> Result<ValueId, Diag> {
        let least = floor(b.dtype(scale)?);
        let size = b.unary(UnaryKind::Abs, scale)?;
        let least = b.number(least, scale)?;
        let step = b.binary(BinaryKind::Max, size, least)?;
        if b.dims(scale)?.is_empty() {
            return Ok(step);
        }
        let rank = b.dims(x)?.len();
        let behind: Vec<usize> = (1..rank - normalize_axis(self.axis, rank)?).collect();
        b.unsqueeze(step, &behind)
    }
    /// `x / s`, and that between low and high.
    fn quotient(&self, b: &mut Build<'_, '_>, x: ValueId, step: ValueId) -> Result<[ValueId; 2], Diag> {
        let [low, high] = self.range();
        let q = b.binary(BinaryKind::Div, x, step)?;
        let (low, high) = (b.number(low, x)?, b.number(high, x)?);
        let inner = b.binary(BinaryKind::Max, q, low)?;
        Ok([q, b.binary(BinaryKind::Min, inner, high)?])
    }
    /// Element-wise operations that give the same.
    pub(crate) fn parts(&self, b: &mut Build<'_, '_>, inputs: &[Option<ValueId>]) -> Result<ValueId, Diag> {
        let [Some(x), Some(scale)] = *inputs else {
            return Err(Diag::error("arity", "fake-quantize needs two operands"));
        };
        let step = self.step(b, x, scale)?;
        let [_, inner] = self.quotient(b, x, step)?;
        let stored = b.unary(UnaryKind::Round, inner)?;
        b.mul(stored, step)
    }
}

impl OpDef for FakeQuantize {
    const NAME: &'static str = "fake-quantize";
    const INPUTS: (usize, usize) = (2, 2);
    fn infer(&self, cx: &mut InferCx<'_>) -> Result<Vec<Fact>, Diag> {
        if !(2..=8).contains(&self.bits) {
            return Err(Diag::error("field-range", "fake-quantize: bits is from 2 to 8"));
        }
        let wide = |d| matches!(d, DType::F32 | DType::F16 | DType::BF16 | DType::F64);
        let dtype = cx.expect_dtype(0, wide, "a float of 16 bits or more")?;
        cx.expect_same_dtype(0)?;
        let (dims, scale) = (cx.dims(0)?.to_vec(), cx.dims(1)?);
        match scale {
            [] => {}
            [n] => expect_equal(n, &dims[normalize_axis(self.axis, dims.len())?], "scales along an axis")?,
            _ => return Err(Diag::error("shape-mismatch", "scales are one number or a vector")),
        }
        Ok(vec![Type::from(TensorType::new(dtype, dims)).into()])
    }
    fn gradient(&self, cx: &mut GradCx<'_, '_>) -> Result<(), Diag> {
        let (dy, x, scale) = (cx.only_seed()?, cx.input(0)?, cx.input(1)?);
        let step = self.step(cx, x, scale)?;
        let [q, inner] = self.quotient(cx, x, step)?;
        let [low, high] = self.range();
        let above = cx.compare(BinaryKind::Greater, q, low)?;
        let below = cx.compare(BinaryKind::Less, q, high)?;
        let between = cx.binary(BinaryKind::And, above, below)?;
        let dx = cx.only(between, true, dy)?;
        cx.give(0, dx)?;
        if !cx.wants(1) {
            return Ok(());
        }
        let stored = cx.unary(UnaryKind::Round, inner)?;
        let moves = cx.only(between, true, q)?;
        let by_step = cx.binary(BinaryKind::Sub, stored, moves)?;
        let by_step = cx.mul(dy, by_step)?;
        let rank = cx.dims(x)?.len();
        let own = if cx.dims(scale)?.is_empty() { rank } else { normalize_axis(self.axis, rank)? };
        let shared: Vec<usize> = (0..rank).filter(|a| *a != own).collect();
        let sum = cx.reduce(ReduceKind::Sum, by_step, &shared, false)?;
        let counted: Vec<usize> = shared.into_iter().filter(|a| !self.batch || *a > 0).collect();
        let count = cx.count(x, &counted)?;
        let one = cx.number(1.0, x)?;
        let count = cx.binary(BinaryKind::Max, count, one)?;
        let root = cx.unary(UnaryKind::Sqrt, count)?;
        let root = cx.scale(high.sqrt(), root)?;
        let sum = cx.binary(BinaryKind::Div, sum, root)?;
        // That of the magnitude, which grows as a negative scale falls.
        let negative = cx.compare(BinaryKind::Less, scale, 0.0)?;
        let other = cx.unary(UnaryKind::Neg, sum)?;
        let sum = cx.ed.node1(Where {}, &[negative, other, sum])?;
        cx.give(1, sum)
    }
    fn eval(&self, cx: &mut EvalCx<'_>) -> Result<Vec<Value>, Diag> {
        let (x, scale) = (cx.tensor(0)?, cx.tensor(1)?);
        let (steps, at) = (FakeQuantize::steps(scale), self.step_of(x.shape(), scale.shape())?);
        let y = self.stored(x, scale)?.into_iter().zip(at).map(|(q, i)| q * steps[i]).collect();
        Ok(vec![Tensor::floats(x.dtype(), x.shape(), y)?.into()])
    }
}
