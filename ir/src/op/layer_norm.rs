//! Normalisation over the last axes.

use crate::diag::Diag;
use crate::dim::Dim;
use crate::dtype::DType;
use crate::graph::Fact;
use crate::graph::ValueId;
use crate::op::binary::BinaryKind;
use crate::op::binary::broadcast_positions;
use crate::op::gradient::GradCx;
use crate::op::reduce::ReduceKind;
use crate::op::unary::UnaryKind;
use crate::op::{EvalCx, InferCx, OpDef, broadcast_shapes};
use crate::tensor::{Tensor, Value};
use crate::types::{TensorType, Type};

crate::op_struct! {
    /// Normalisation over the axes from `axis` on (ONNX LayerNormalization): `(x - mean) * inv * scale + bias` with `inv = 1 / sqrt(variance + epsilon)`; scale and bias are optional and broadcast to `x`. Further results are the mean and `inv`, with normalised axes of size 1. With `rms` (ONNX RMSNormalization) the mean is taken as 0, and the only further result is `inv`. Computed in f32, or f64 for f64.
    LayerNorm {
        /// The first normalised axis.
        axis: usize,
        /// Added to the variance.
        epsilon: f64,
        /// Whether the mean is left in.
        rms: bool,
    }
}

impl LayerNorm {
    /// The type of the mean and the inverse deviation for elements of this type.
    pub fn stat_dtype(dtype: DType) -> DType {
        if dtype == DType::F64 { DType::F64 } else { DType::F32 }
    }
}

impl OpDef for LayerNorm {
    const NAME: &'static str = "layer-norm";
    const INPUTS: (usize, usize) = (1, 3);
    fn infer(&self, cx: &mut InferCx<'_>) -> Result<Vec<Fact>, Diag> {
        let dtype = cx.expect_dtype(0, |d| d.is_float(), "a float")?;
        cx.expect_same_dtype(0)?;
        let shape = cx.dims(0)?.to_vec();
        if self.axis >= shape.len() {
            return Err(Diag::error(
                "axis-out-of-range",
                format!("axis {} of rank {}", self.axis, shape.len()),
            ));
        }
        for i in 1..3 {
            if cx.has(i) {
                let whole = broadcast_shapes(&shape, cx.dims(i)?, cx.symbols)?;
                let differs =
                    |(a, b): (&Dim, &Dim)| a.as_const().zip(b.as_const()).is_some_and(|(a, b)| a != b);
                if whole.len() != shape.len() || whole.iter().zip(&shape).any(differs) {
                    return Err(Diag::error("shape-mismatch", format!("operand {i} does not fit the input")));
                }
            }
        }
        let mut stat = shape.clone();
        stat[self.axis..].fill(Dim::Const(1));
        let stat: Fact = Type::tensor(LayerNorm::stat_dtype(dtype), stat).into();
        let y = Type::from(TensorType { dtype, shape: Some(shape), quant: None }).into();
        Ok(if self.rms { vec![y, stat] } else { vec![y, stat.clone(), stat] })
    }
    fn gradient(&self, cx: &mut GradCx<'_, '_>) -> Result<(), Diag> {
        let x = cx.input(0)?;
        let (dtype, axes) = (cx.dtype(x)?, (self.axis..cx.dims(x)?.len()).collect::<Vec<_>>());
        let mean = |cx: &mut GradCx<'_, '_>, v: ValueId| cx.reduce(ReduceKind::Mean, v, &axes, true);
        let centred = if self.rms {
            x
        } else {
            let centre = mean(cx, x)?;
            cx.binary(BinaryKind::Sub, x, centre)?
        };
        let square = cx.mul(centred, centred)?;
        let variance = mean(cx, square)?;
        let variance = cx.plus(self.epsilon, variance)?;
        let deviation = cx.unary(UnaryKind::Sqrt, variance)?;
        let normal = cx.binary(BinaryKind::Div, centred, deviation)?;
        let count = cx.count(x, &axes)?;
        // That of the mean is the same for all elements, that of `inv` is - n / variance.
        let (of_mean, of_inv) = if self.rms { (None, cx.seed(1)) } else { (cx.seed(1), cx.seed(2)) };
        if let Some(d) = of_mean {
            let d = cx.cast(d, dtype)?;
            let d = cx.binary(BinaryKind::Div, d, count)?;
            let d = cx.like(d, x)?;
            cx.give(0, d)?;
        }
        if let Some(d) = of_inv {
            let d = cx.cast(d, dtype)?;
            let d = cx.binary(BinaryKind::Div, d, count)?;
            let d = cx.binary(BinaryKind::Div, d, variance)?;
            let d = cx.mul(normal, d)?;
            let d = cx.unary(UnaryKind::Neg, d)?;
            cx.give(0, d)?;
        }
        let Some(dy) = cx.seed(0) else { return Ok(()) };
        if cx.has(2) {
            cx.give(2, dy)?;
        }
        let mut inner = dy;
        if cx.has(1) {
            let scaled = cx.mul(dy, normal)?;
            cx.give(1, scaled)?;
            let scale = cx.input(1)?;
            inner = cx.mul(dy, scale)?;
        }
        // (d - mean(d) - n mean(d n)) / deviation
        let product = cx.mul(inner, normal)?;
        let along = mean(cx, product)?;
        let along = cx.mul(normal, along)?;
        let mut dx = cx.binary(BinaryKind::Sub, inner, along)?;
        if !self.rms {
            let centre = mean(cx, inner)?;
            dx = cx.binary(BinaryKind::Sub, dx, centre)?;
        }
        let dx = cx.binary(BinaryKind::Div, dx, deviation)?;
        cx.give(0, dx)
    }
    fn eval(&self, cx: &mut EvalCx<'_>) -> Result<Vec<Value>, Diag> {
        let x = cx.tensor(0)?;
        let shape = x.shape();
        if self.axis >= shape.len() {
            return Err(Diag::error("axis-out-of-range", format!("axis {}", self.axis)));
        }
        let n: usize = shape[self.axis..].iter().product();
        let rows: usize = shape[..self.axis].iter().product();
        let mut v = x.to_f64();
        let (mut means, mut invs) = (vec![0.0; rows], vec![1.0 / self.epsilon.sqrt(); rows]);
        for (r, row) in v.chunks_exact_mut(n.max(1)).enumerate() {
            let mean = if self.rms { 0.0 } else { row.iter().sum::<f64>() / n as f64 };
            let var = row.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / n as f64;
            (means[r], invs[r]) = (mean, 1.0 / (var + self.epsilon).sqrt());
            row.iter_mut().for_each(|x| *x = (*x - mean) * invs[r]);
        }
        if let Some(scale) = cx.opt_tensor(1)? {
            let (at, s) = (broadcast_positions(scale.shape(), shape)?, scale.to_f64());
            v.iter_mut().zip(at).for_each(|(x, i)| *x *= s[i]);
        }
        if let Some(bias) = cx.opt_tensor(2)? {
            let (at, b) = (broadcast_positions(bias.shape(), shape)?, bias.to_f64());
            v.iter_mut().zip(at).for_each(|(x, i)| *x += b[i]);
        }
        let mut stat = shape.to_vec();
        stat[self.axis..].fill(1);
        let dtype = LayerNorm::stat_dtype(x.dtype());
        let mut out = vec![Tensor::floats(x.dtype(), shape, v)?.into()];
        if !self.rms {
            out.push(Tensor::floats(dtype, &stat, means)?.into());
        }
        out.push(Tensor::floats(dtype, &stat, invs)?.into());
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::probe::eval_op;

    #[test]
    fn rows_get_mean_0_and_deviation_1() -> Result<(), Diag> {
        let x = Tensor::f32s(&[2, 2, 1], &[1.0, 3.0, 10.0, 30.0])?;
        let scale = Tensor::f32s(&[2, 1], &[1.0, 2.0])?;
        let bias = Tensor::f32s(&[1], &[0.5])?;
        let op = LayerNorm { axis: 1, epsilon: 0.0, rms: false };
        let y = eval_op(op, &[Some(x.clone()), Some(scale.clone()), Some(bias)])?;
        assert_eq!(y[0].to_f64(), [-0.5, 2.5, -0.5, 2.5]);
        assert_eq!((y[1].to_f64(), y[1].shape()), (vec![2.0, 20.0], &[2, 1, 1][..]));
        assert_eq!(y[2].to_f64()[0], 1.0);
        let x = Tensor::f32s(&[2], &[1.0, 7.0])?;
        let op = LayerNorm { axis: 0, epsilon: 0.0, rms: true };
        let y = eval_op(op.clone(), &[Some(x.clone())])?;
        assert!((y[0].to_f64()[1] - 1.4).abs() < 1e-6 && y.len() == 2);
        assert_eq!(eval_op(op, &[Some(x), Some(scale)]).map_err(|d| d.id), Err("shape-mismatch"));
        Ok(())
    }
}
