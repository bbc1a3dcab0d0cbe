//! Transposed convolution.

use crate::diag::Diag;
use crate::dim::Dim;
use crate::graph::Fact;
use crate::op::concat::{Pad, PadMode};
use crate::op::conv::{Conv, of_weights};
use crate::op::conv::{expect_dim, expect_vector, spatial_rank};
use crate::op::gradient::GradCx;
use crate::op::reduce::ReduceKind;
use crate::op::window::AutoPad;
use crate::op::window::for_each_index;
use crate::op::{EvalCx, InferCx, OpDef};
use crate::tensor::{Tensor, Value, elem_count, strides};
use crate::types::Type;

crate::op_struct! {
    /// Transposed convolution (ONNX ConvTranspose) of `x` \[N, C, spatial...\] with weights \[C, M / groups, kernel...\] and an optional bias \[M\]. Each element of the input adds its multiple of the window to the result; `pads` are cut off, or added where negative.
    ConvTranspose {
        /// Distance of the windows of neighbouring elements along each spatial axis.
        strides: Vec<i64>,
        /// Distance of neighbouring elements of the window along each spatial axis.
        dilations: Vec<i64>,
        /// What is cut off: the beginnings of all spatial axes, then the ends.
        pads: Vec<i64>,
        /// What is added at the end of each spatial axis.
        output_padding: Vec<i64>,
        /// Number of groups of channels that see only each other.
        groups: i64,
    }
}

impl ConvTranspose {
    fn shape(&self, x: &[Dim], w: &[Dim]) -> Result<Vec<Dim>, Diag> {
        let rank = spatial_rank(x)?;
        let lens = [self.strides.len(), self.dilations.len(), self.pads.len(), self.output_padding.len()];
        if lens != [rank, rank, 2 * rank, rank] || w.len() != x.len() {
            return Err(Diag::error("shape-mismatch", format!("fields {lens:?} for {rank} spatial axes")));
        }
        let limit = i64::from(i32::MAX);
        if !self.strides.iter().chain(&self.dilations).chain([&self.groups]).all(|v| (1..=limit).contains(v))
        {
            return Err(Diag::error("field-range", "strides, dilations and groups must be positive"));
        }
        if !self.pads.iter().chain(&self.output_padding).all(|v| (-limit..=limit).contains(v)) {
            return Err(Diag::error("field-range", "padding is out of range"));
        }
        expect_dim(&w[0], &x[1], "the number of channels of the weights")?;
        if x[1].as_const().is_some_and(|c| c % self.groups != 0) {
            return Err(Diag::error("shape-mismatch", "groups do not divide the channels"));
        }
        let mut out = vec![x[0].clone(), w[1].mul(&self.groups.into())];
        for a in 0..rank {
            let one = Dim::Const(1);
            let reach = w[a + 2].sub(&one).mul(&self.dilations[a].into()).add(&one);
            let pads = self.output_padding[a] - self.pads[a] - self.pads[a + rank];
            let size = x[a + 2].sub(&one).mul(&self.strides[a].into()).add(&reach).add(&pads.into());
            if size.as_const().is_some_and(|v| v < 0) {
                return Err(Diag::error("shape-mismatch", "more is cut off than there is"));
            }
            out.push(size);
        }
        Ok(out)
    }
}

impl OpDef for ConvTranspose {
    const NAME: &'static str = "conv-transpose";
    const INPUTS: (usize, usize) = (2, 3);
    fn infer(&self, cx: &mut InferCx<'_>) -> Result<Vec<Fact>, Diag> {
        let dtype = cx.expect_dtype(0, |d| d.is_float(), "a float")?;
        cx.expect_same_dtype(0)?;
        let out = self.shape(cx.dims(0)?, cx.dims(1)?)?;
        expect_vector(cx, 2, &out[1], "the bias")?;
        Ok(vec![Type::tensor(dtype, out).into()])
    }
    fn gradient(&self, cx: &mut GradCx<'_, '_>) -> Result<(), Diag> {
        let (mut dy, x, w) = (cx.only_seed()?, cx.input(0)?, cx.input(1)?);
        let (dims, kernel) = (cx.dims(x)?, cx.known_dims(w)?);
        if cx.has(2) {
            let axes: Vec<usize> = (0..dims.len()).filter(|a| *a != 1).collect();
            let db = cx.reduce(ReduceKind::Sum, dy, &axes, false)?;
            cx.give(2, db)?;
        }
        // What was cut off has no gradient, what was added is not used.
        let rank = dims.len() - 2;
        let ends = (0..rank).map(|a| self.pads[a + rank] - self.output_padding[a]);
        let cut: Vec<i64> = self.pads[..rank].iter().copied().chain(ends).collect();
        let none = [0, 0];
        let whole: Vec<i64> = none
            .into_iter()
            .chain(cut[..rank].iter().copied())
            .chain(none)
            .chain(cut[rank..].iter().copied())
            .collect();
        if whole.iter().any(|p| *p != 0) {
            let whole = cx.vector(&whole)?;
            dy = cx.ed.node1(Pad { mode: PadMode::Constant }, &[dy, whole])?;
        }
        let forth = Conv {
            strides: self.strides.clone(),
            dilations: self.dilations.clone(),
            pads: vec![0; 2 * rank],
            auto_pad: AutoPad::Explicit,
            groups: self.groups,
        };
        if cx.wants(0) {
            let dx = cx.ed.node1(forth.clone(), &[dy, w])?;
            let dx = cx.with_dims(dx, dims)?;
            cx.give(0, dx)?;
        }
        if cx.wants(1) {
            let dw = of_weights(cx, (dy, x), &kernel, &forth)?;
            cx.give(1, dw)?;
        }
        Ok(())
    }
    fn eval(&self, cx: &mut EvalCx<'_>) -> Result<Vec<Value>, Diag> {
        let (x, w, b) = (cx.tensor(0)?, cx.tensor(1)?, cx.opt_tensor(2)?);
        let dims = |t: &Tensor| t.shape().iter().map(|d| Dim::from(*d)).collect::<Vec<_>>();
        let shape: Option<Vec<usize>> = self
            .shape(&dims(x), &dims(w))?
            .iter()
            .map(|d| d.as_const().and_then(|v| usize::try_from(v).ok()))
            .collect();
        let shape = shape.ok_or_else(|| Diag::error("shape-mismatch", "a dim is negative"))?;
        let total = elem_count(&shape)?;
        if b.is_some_and(|b| b.len() != shape[1]) {
            return Err(Diag::error("shape-mismatch", "one bias is needed per output channel"));
        }
        let mut out = vec![0.0; total];
        let plane: usize = shape[2..].iter().product();
        if let Some(b) = b {
            let b = b.to_f64();
            for (i, v) in out.iter_mut().enumerate() {
                *v = b[i / plane % shape[1]];
            }
        }
        let (xs, ws) = (x.shape(), w.shape());
        let (xv, wv) = (x.to_f64(), w.to_f64());
        let rank = xs.len() - 2;
        let in_plane: usize = xs[2..].iter().product();
        let window: usize = ws[2..].iter().product();
        let st = strides(&shape[2..]);
        let (cg, mg) = (xs[1] / self.groups as usize, ws[1]);
        let (mut i, mut taps) = (0, Vec::new());
        for_each_index(&xs[2..], |at| {
            taps.clear();
            let mut k = 0;
            for_each_index(&ws[2..], |e| {
                let mut to = Some(0usize);
                for a in 0..rank {
                    let p = at[a] as i64 * self.strides[a] + e[a] as i64 * self.dilations[a] - self.pads[a];
                    let p = usize::try_from(p).ok().filter(|p| *p < shape[a + 2]);
                    to = to.zip(p).map(|(t, p)| t + p * st[a]);
                }
                taps.extend(to.map(|t| (k, t)));
                k += 1;
                Ok(())
            })?;
            for n in 0..xs[0] {
                for c in 0..xs[1] {
                    let value = xv[(n * xs[1] + c) * in_plane + i];
                    for m in 0..mg {
                        let to = (n * shape[1] + c / cg * mg + m) * plane;
                        for (k, t) in &taps {
                            out[to + t] += value * wv[(c * mg + m) * window + k];
                        }
                    }
                }
            }
            i += 1;
            Ok(())
        })?;
        Ok(vec![Tensor::floats(x.dtype(), &shape, out)?.into()])
    }
    fn weight_input(&self) -> Option<usize> {
        Some(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::probe::{eval_op, ramp};

    #[test]
    fn windows_add_up() -> Result<(), Diag> {
        let x = ramp(&[1, 1, 3], 1.0, 1.0)?;
        let w = Tensor::f32s(&[1, 2, 2], &[1.0, 10.0, 0.0, 1.0])?;
        let b = Tensor::f32s(&[2], &[0.0, 100.0])?;
        let mut op = ConvTranspose {
            strides: vec![1],
            dilations: vec![1],
            pads: vec![0, 0],
            output_padding: vec![0],
            groups: 1,
        };
        let y = eval_op(op.clone(), &[Some(x.clone()), Some(w.clone()), Some(b)])?;
        assert_eq!(y[0].to_f64(), [1.0, 12.0, 23.0, 30.0, 100.0, 101.0, 102.0, 103.0]);
        op.strides = vec![2];
        op.pads = vec![1, 0];
        op.output_padding = vec![1];
        let y = eval_op(op, &[Some(x), Some(w), None])?;
        assert_eq!(y[0].to_f64()[..6], [10.0, 2.0, 20.0, 3.0, 30.0, 0.0]);
        Ok(())
    }
}
