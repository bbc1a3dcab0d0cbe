//! Local response normalisation.

use crate::diag::Diag;
use crate::graph::Fact;
use crate::op::binary::BinaryKind;
use crate::op::concat::{Pad, PadMode};
use crate::op::gradient::GradCx;
use crate::op::slice::Slice;
use crate::op::{EvalCx, InferCx, OpDef};
use crate::tensor::{Tensor, Value};
use crate::types::{TensorType, Type};

crate::op_struct! {
    /// Normalisation over neighbouring channels (ONNX LRN) of a float tensor `[n, c, ...]`: `x / (bias + alpha / size * s) ^ beta`, `s` being the sum of squares of channels `c - (size - 1) / 2` to `c + size / 2` as far as they exist. Floats narrower than 32 bits are computed in f32 and rounded once.
    Lrn {
        /// Channels of a window, 1 at least.
        size: i64,
        /// Factor of the mean of squares.
        alpha: f64,
        /// Exponent.
        beta: f64,
        /// Added to the mean of squares.
        bias: f64,
    }
}

impl Lrn {
    /// Channels of a window before and after that of the result.
    pub fn reach(&self) -> (i64, i64) {
        ((self.size - 1) / 2, self.size / 2)
    }
    fn check(&self, rank: usize) -> Result<(), Diag> {
        if !(1..=i64::from(i32::MAX)).contains(&self.size) {
            return Err(Diag::error("attribute-range", format!("size {}", self.size)));
        }
        if rank < 2 {
            return Err(Diag::error("shape-mismatch", format!("rank {rank}, not 2 at least")));
        }
        Ok(())
    }
}

impl OpDef for Lrn {
    const NAME: &'static str = "lrn";
    const INPUTS: (usize, usize) = (1, 1);
    fn infer(&self, cx: &mut InferCx<'_>) -> Result<Vec<Fact>, Diag> {
        let dtype = cx.expect_dtype(0, |d| d.is_float(), "a float")?;
        let shape = cx.dims(0)?.to_vec();
        self.check(shape.len())?;
        Ok(vec![Type::from(TensorType { dtype, shape: Some(shape), quant: None }).into()])
    }
    fn gradient(&self, cx: &mut GradCx<'_, '_>) -> Result<(), Diag> {
        cx.through(|cx| {
            let x = cx.input(0)?;
            let dims = cx.dims(x)?;
            let channels = dims[1].as_const().ok_or_else(|| cx.no_rule("of channels that are not fixed"))?;
            let (before, after) = self.reach();
            let squares = cx.mul(x, x)?;
            let mut pads = vec![0; 2 * dims.len()];
            (pads[1], pads[dims.len() + 1]) = (before, after);
            let pads = cx.vector(&pads)?;
            let padded = cx.ed.node1(Pad { mode: PadMode::Constant }, &[squares, pads])?;
            let axis = cx.vector(&[1])?;
            let mut sum = squares;
            for k in (0..self.size.min(before + channels)).filter(|k| *k != before) {
                let (start, end) = (cx.vector(&[k])?, cx.vector(&[k + channels])?);
                let part = cx.ed.node1(Slice {}, &[padded, start, end, axis])?;
                sum = cx.binary(BinaryKind::Add, sum, part)?;
            }
            let scaled = cx.scale(self.alpha / self.size as f64, sum)?;
            let base = cx.plus(self.bias, scaled)?;
            let factor = cx.compare(BinaryKind::Pow, base, -self.beta)?;
            Ok(vec![cx.mul(x, factor)?])
        })
    }
    fn eval(&self, cx: &mut EvalCx<'_>) -> Result<Vec<Value>, Diag> {
        let x = cx.tensor(0)?;
        self.check(x.shape().len())?;
        let channels = x.shape()[1];
        let inner: usize = x.shape()[2..].iter().product();
        let v = x.to_f64();
        let (before, after) = self.reach();
        let y = (0..v.len()).map(|i| {
            let (channel, position) = (i / inner % channels, i % inner);
            let image = i / inner / channels * channels;
            let first = (channel as i64 - before).max(0) as usize;
            let last = (channel as i64 + after).min(channels as i64 - 1) as usize;
            let at = |c: usize| v[(image + c) * inner + position];
            let sum: f64 = (first..=last).map(|c| at(c) * at(c)).sum();
            v[i] / (self.bias + self.alpha / self.size as f64 * sum).powf(self.beta)
        });
        Ok(vec![Tensor::floats(x.dtype(), x.shape(), y.collect())?.into()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::probe::eval_op;

    #[test]
    fn windows_end_at_the_first_and_last_channel() -> Result<(), Diag> {
        let x = Tensor::f32s(&[1, 4, 1], &[1.0, 2.0, 3.0, 4.0])?;
        let op = Lrn { size: 3, alpha: 3.0, beta: 1.0, bias: 1.0 };
        let y = eval_op(op.clone(), &[Some(x.clone())])?[0].to_f64();
        let want = [1.0 / 6.0, 2.0 / 15.0, 3.0 / 30.0, 4.0 / 26.0];
        assert!(y.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-7), "{y:?}");
        // An even window has its longer side after the channel.
        let y = eval_op(Lrn { size: 2, alpha: 2.0, ..op.clone() }, &[Some(x.clone())])?[0].to_f64();
        assert!((y[0] - 1.0 / 6.0).abs() < 1e-7 && (y[3] - 4.0 / 17.0).abs() < 1e-7, "{y:?}");
        let none = eval_op(op.clone(), &[Some(Tensor::f32s(&[1, 0, 3], &[])?)])?;
        assert_eq!(none[0].shape(), [1, 0, 3]);
        assert_eq!(
            eval_op(Lrn { size: 0, ..op.clone() }, &[Some(x)]).map_err(|d| d.id),
            Err("attribute-range")
        );
        let flat = Tensor::f32s(&[1], &[1.0])?;
        assert_eq!(eval_op(op, &[Some(flat)]).map_err(|d| d.id), Err("shape-mismatch"));
        Ok(())
    }
}
