//! Softmax and its relatives.

use crate::diag::Diag;
use crate::graph::Fact;
use crate::op::binary::BinaryKind;
use crate::op::gradient::GradCx;
use crate::op::reduce::ReduceKind;
use crate::op::unary::UnaryKind;
use crate::op::{EvalCx, InferCx, OpDef};
use crate::tensor::{Tensor, Value};
use crate::types::{TensorType, Type};

crate::attr_enum! {
    /// Which function of the elements along an axis.
    SoftmaxKind {
        /// exp(x - max) / sum exp(x - max).
        Softmax = "softmax",
        /// x - max - ln sum exp(x - max).
        LogSoftmax = "log-softmax",
        /// 1 at the first maximum, 0 elsewhere.
        Hardmax = "hardmax",
    }
}

crate::op_struct! {
    /// Softmax, its logarithm or its limit along one axis of a float tensor.
    Softmax {
        /// Which.
        kind: SoftmaxKind,
        /// The axis.
        axis: usize,
    }
}

impl OpDef for Softmax {
    const NAME: &'static str = "softmax";
    const INPUTS: (usize, usize) = (1, 1);
    fn infer(&self, cx: &mut InferCx<'_>) -> Result<Vec<Fact>, Diag> {
        let dtype = cx.expect_dtype(0, |d| d.is_float(), "a float")?;
        let shape = cx.dims(0)?.to_vec();
        if self.axis >= shape.len() {
            return Err(Diag::error(
                "axis-out-of-range",
                format!("axis {} of rank {}", self.axis, shape.len()),
            ));
        }
        Ok(vec![Type::from(TensorType { dtype, shape: Some(shape), quant: None }).into()])
    }
    fn gradient(&self, cx: &mut GradCx<'_, '_>) -> Result<(), Diag> {
        let (dy, y) = (cx.only_seed()?, cx.output(0));
        let dx = match self.kind {
            SoftmaxKind::Hardmax => return Ok(()),
            SoftmaxKind::Softmax => {
                // y (dy - sum(dy y))
                let product = cx.mul(dy, y)?;
                let sum = cx.reduce(ReduceKind::Sum, product, &[self.axis], true)?;
                let rest = cx.binary(BinaryKind::Sub, dy, sum)?;
                cx.mul(y, rest)?
            }
            SoftmaxKind::LogSoftmax => {
                // dy - exp(y) sum(dy)
                let sum = cx.reduce(ReduceKind::Sum, dy, &[self.axis], true)?;
                let part = cx.unary(UnaryKind::Exp, y)?;
                let part = cx.mul(part, sum)?;
                cx.binary(BinaryKind::Sub, dy, part)?
            }
        };
        cx.give(0, dx)
    }
    fn eval(&self, cx: &mut EvalCx<'_>) -> Result<Vec<Value>, Diag> {
        let x = cx.tensor(0)?;
        let Some(&n) = x.shape().get(self.axis) else {
            return Err(Diag::error("axis-out-of-range", format!("axis {}", self.axis)));
        };
        let inner: usize = x.shape()[self.axis + 1..].iter().product();
        let mut v = x.to_f64();
        if !v.is_empty() {
            for block in v.chunks_exact_mut(n * inner) {
                for i in 0..inner {
                    let mut row: Vec<f64> = (0..n).map(|k| block[k * inner + i]).collect();
                    self.row(&mut row);
                    for (k, y) in row.into_iter().enumerate() {
                        block[k * inner + i] = y;
                    }
                }
            }
        }
        Ok(vec![Tensor::floats(x.dtype(), x.shape(), v)?.into()])
    }
}

impl Softmax {
    /// One row, in place.
    pub(super) fn row(&self, row: &mut [f64]) {
        let max = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        match self.kind {
            SoftmaxKind::Softmax => {
                row.iter_mut().for_each(|x| *x = (*x - max).exp());
                let sum: f64 = row.iter().sum();
                row.iter_mut().for_each(|x| *x /= sum);
            }
            SoftmaxKind::LogSoftmax => {
                let sum: f64 = row.iter().map(|x| (x - max).exp()).sum();
                row.iter_mut().for_each(|x| *x = *x - max - sum.ln());
            }
            SoftmaxKind::Hardmax => {
                let first = row.iter().position(|x| *x == max);
                row.iter_mut().enumerate().for_each(|(i, x)| *x = f64::from(u8::from(Some(i) == first)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::probe::eval_op;

    #[test]
    fn rows_along_any_axis() -> Result<(), Diag> {
        let x = Tensor::f32s(&[2, 2], &[0.0, 1000.0, 3f32.ln(), 1000.0])?;
        let near = |a: &Tensor, b: &[f64]| a.to_f64().iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-6);
        let run = |kind, axis, x: &Tensor| eval_op(Softmax { kind, axis }, &[Some(x.clone())]);
        assert!(near(&run(SoftmaxKind::Softmax, 0, &x)?[0], &[0.25, 0.5, 0.75, 0.5]));
        assert!(near(&run(SoftmaxKind::Softmax, 1, &x)?[0], &[0.0, 1.0, 0.0, 1.0]));
        let ln = |v: f64| v.ln();
        assert!(near(&run(SoftmaxKind::LogSoftmax, 0, &x)?[0], &[ln(0.25), ln(0.5), ln(0.75), ln(0.5)]));
        assert!(near(&run(SoftmaxKind::Hardmax, 0, &x)?[0], &[0.0, 1.0, 1.0, 0.0]));
        assert_eq!(run(SoftmaxKind::Softmax, 2, &x).map_err(|d| d.id), Err("axis-out-of-range"));
        Ok(())
    }
}
