//! The largest and smallest elements and where they are.

use crate::diag::Diag;
use crate::dim::Dim;
use crate::dtype::DType;
use crate::graph::Fact;
use crate::op::gradient::GradCx;
use crate::op::scatter::{Reduction, ScatterElements};
use crate::op::select::compare_at;
use crate::op::util::{fact, flat, gather_by, scalar_i64, size_of, split_at_axis};
use crate::op::{EvalCx, InferCx, OpDef};
use crate::tensor::{Tensor, Value, strides};
use crate::types::TensorType;
use std::cmp::Ordering;

crate::op_struct! {
    /// The `k` (second operand) largest or smallest elements along an axis and their indices, best first; of equal ones the lower index comes first. NaN counts as larger than everything. ONNX `TopK`.
    TopK {
        /// Axis, below the rank.
        axis: usize,
        /// Largest or smallest.
        largest: bool,
    }
}

impl OpDef for TopK {
    const NAME: &'static str = "top-k";
    const INPUTS: (usize, usize) = (2, 2);
    fn infer(&self, cx: &mut InferCx<'_>) -> Result<Vec<Fact>, Diag> {
        let dtype = cx.expect_dtype(0, |d| d.is_int() || d.is_float(), "a number")?;
        cx.expect_dtype(1, |d| d == DType::I64, "i64")?;
        let mut dims = cx.dims(0)?.to_vec();
        let n = dims.get(self.axis).cloned().ok_or_else(|| {
            Diag::error("axis-out-of-range", format!("axis {} of rank {}", self.axis, dims.len()))
        })?;
        crate::op::util::expect_equal(&Dim::product(cx.dims(1)?), &Dim::Const(1), "k")?;
        let max = n.bounds(cx.symbols).1;
        let k = match cx.ints(1).as_deref() {
            Some([k]) => k.clone(),
            _ => cx.fresh(0, self.axis, 0, max),
        };
        if let Some(v) = k.as_const()
            && (v < 0 || n.as_const().is_some_and(|n| v > n))
        {
            return Err(Diag::error("top-k-malformed", format!("{v} of an axis of size {:?}", n)));
        }
        dims[self.axis] = k;
        Ok(vec![fact(dtype, dims.clone()), fact(DType::I64, dims)])
    }
    fn gradient(&self, cx: &mut GradCx<'_, '_>) -> Result<(), Diag> {
        let (dy, x, at) = (cx.only_seed()?, cx.input(0)?, cx.output(1));
        let zeros = cx.zeros(x)?;
        let write = ScatterElements { axis: self.axis, reduction: Reduction::Add };
        let dx = cx.ed.node1(write, &[zeros, at, dy])?;
        cx.give(0, dx)
    }
    fn eval(&self, cx: &mut EvalCx<'_>) -> Result<Vec<Value>, Diag> {
        let x = cx.tensor(0)?;
        if self.axis >= x.rank() {
            return Err(Diag::error("axis-out-of-range", "no such axis"));
        }
        let k = size_of(scalar_i64(cx.tensor(1)?, "k")?)?;
        let (before, n, after) = split_at_axis(x.shape(), self.axis);
        if k > n {
            return Err(Diag::error("top-k-malformed", format!("{k} of an axis of size {n}")));
        }
        let e = x.elems();
        let mut shape = x.shape().to_vec();
        shape[self.axis] = k;
        let mut index = vec![0i64; before * k * after];
        for b in 0..before {
            for a in 0..after {
                let at = |i: usize| (b * n + i) * after + a;
                let mut order: Vec<usize> = (0..n).collect();
                order.sort_by(|i, j| {
                    let o = compare_at(&e, at(*i), at(*j));
                    if self.largest { o.reverse() } else { o }
                });
                for (r, i) in order.into_iter().take(k).enumerate() {
                    index[(b * k + r) * after + a] = i as i64;
                }
            }
        }
        let (st, out_st) = (strides(x.shape()), strides(&shape));
        let ax = self.axis;
        let values = gather_by(x, shape.clone(), |i| {
            let chosen = index[flat(i, &out_st)] as usize;
            Ok(flat(i, &st) - i[ax] * st[ax] + chosen * st[ax])
        })?;
        Ok(vec![values.into(), Tensor::vec_i64(&index).reshaped(&shape)?.into()])
    }
}

crate::op_struct! {
    /// The index (i64) of the largest or smallest element along an axis; the first NaN wins. ONNX `ArgMax`, `ArgMin`.
    ArgReduce {
        /// Largest or smallest.
        largest: bool,
        /// Axis, below the rank.
        axis: usize,
        /// Whether the axis stays with size 1.
        keepdims: bool,
        /// Of equal elements, whether the last one is chosen, else the first.
        last: bool,
    }
}

impl OpDef for ArgReduce {
    const NAME: &'static str = "arg-reduce";
    const INPUTS: (usize, usize) = (1, 1);
    fn infer(&self, cx: &mut InferCx<'_>) -> Result<Vec<Fact>, Diag> {
        cx.expect_dtype(0, |d| d.is_int() || d.is_float(), "a number")?;
        let mut dims = cx.dims(0)?.to_vec();
        match dims.get(self.axis).map(Dim::as_const) {
            None => {
                return Err(Diag::error(
                    "axis-out-of-range",
                    format!("axis {} of rank {}", self.axis, dims.len()),
                ));
            }
            Some(Some(0)) if !dims.iter().enumerate().any(|(i, d)| i != self.axis && d.is(0)) => {
                return Err(Diag::error("reduce-empty", "nothing has no largest element"));
            }
            _ => {}
        }
        if self.keepdims {
            dims[self.axis] = Dim::Const(1);
        } else {
            dims.remove(self.axis);
        }
        Ok(vec![Fact { ty: TensorType::new(DType::I64, dims).into(), content: None }])
    }
    fn eval(&self, cx: &mut EvalCx<'_>) -> Result<Vec<Value>, Diag> {
        let x = cx.tensor(0)?;
        if self.axis >= x.rank() {
            return Err(Diag::error("axis-out-of-range", "no such axis"));
        }
        let (before, n, after) = split_at_axis(x.shape(), self.axis);
        if n == 0 && before * after > 0 {
            return Err(Diag::error("reduce-empty", "nothing has no largest element"));
        }
        let e = x.elems();
        let nan = |p: usize| matches!(&e, crate::tensor::Elems::F(v) if v[p].is_nan());
        let mut out = Vec::with_capacity(before * after);
        for b in 0..before {
            for a in 0..after {
                let at = |i: usize| (b * n + i) * after + a;
                let mut best = 0;
                for i in 1..n {
                    if nan(at(best)) {
                        break;
                    }
                    let o = compare_at(&e, at(i), at(best));
                    let o = if self.largest { o } else { o.reverse() };
                    if nan(at(i)) || o == Ordering::Greater || (self.last && o == Ordering::Equal) {
                        best = i;
                    }
                }
                out.push(best as i64);
            }
        }
        let mut shape = x.shape().to_vec();
        if self.keepdims {
            shape[self.axis] = 1;
        } else {
            shape.remove(self.axis);
        }
        Ok(vec![Tensor::vec_i64(&out).reshaped(&shape)?.into()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::checked::{f, fails, i, iota, run, try_run};

    #[test]
    fn finds_the_top() {
        let x = f(&[2, 3], &[1.0, 3.0, 3.0, f32::NAN, -1.0, 0.0]);
        let out = try_run(TopK { axis: 1, largest: true }, &[Some(x.clone()), Some(i(&[1], &[2]))]);
        let out = out.unwrap_or_else(|d| panic!("{d}"));
        assert_eq!(out[1], i(&[2, 2], &[1, 2, 0, 2]));
        let low = run(TopK { axis: 0, largest: false }, &[x.clone(), i(&[1], &[1])]);
        assert_eq!(low.to_f64(), [1.0, -1.0, 0.0]);
        assert_eq!(fails(TopK { axis: 1, largest: true }, &[x.clone(), i(&[1], &[4])]), "top-k-malformed");
        assert_eq!(run(TopK { axis: 1, largest: true }, &[x, i(&[1], &[0])]).len(), 0);
    }

    #[test]
    fn finds_where_the_extremes_are() {
        let x = f(&[2, 3], &[1.0, 3.0, 3.0, 0.0, -1.0, -1.0]);
        let arg = |largest, last| ArgReduce { largest, axis: 1, keepdims: false, last };
        assert_eq!(run(arg(true, false), std::slice::from_ref(&x)), i(&[2], &[1, 0]));
        assert_eq!(run(arg(true, true), std::slice::from_ref(&x)), i(&[2], &[2, 0]));
        assert_eq!(run(arg(false, false), std::slice::from_ref(&x)), i(&[2], &[0, 1]));
        let keep = ArgReduce { largest: false, axis: 0, keepdims: true, last: false };
        assert_eq!(run(keep.clone(), &[x]), i(&[1, 3], &[1, 1, 1]));
        assert_eq!(fails(keep, &[iota(&[0, 2])]), "reduce-empty");
    }
}
