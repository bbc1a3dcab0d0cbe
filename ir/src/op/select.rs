//! Results whose size data decide, and reversal by lengths.

use crate::diag::Diag;
use crate::dim::Dim;
use crate::dtype::DType;
use crate::graph::{Fact, ValueId};
use crate::op::gradient::GradCx;
use crate::op::util::{expect_equal, fact, flat, gather_by, moved, pick, split_at_axis};
use crate::op::views::Squeeze;
use crate::op::{EvalCx, InferCx, OpDef};
use crate::tensor::{Elems, Tensor, Value, strides};
use std::cmp::Ordering;

crate::op_struct! {
    /// The indices of the elements that are not 0, in row-major order: one column each, one row per axis. ONNX `NonZero`.
    NonZero {}
}

impl OpDef for NonZero {
    const NAME: &'static str = "non-zero";
    const INPUTS: (usize, usize) = (1, 1);
    fn infer(&self, cx: &mut InferCx<'_>) -> Result<Vec<Fact>, Diag> {
        let dims = cx.dims(0)?;
        if cx.dtype(0)? == DType::Str {
            return Err(Diag::error("dtype-mismatch", "strings are not compared with 0"));
        }
        let max = Dim::product(dims).bounds(cx.symbols).1;
        let n = cx.fresh(0, 1, 0, max);
        Ok(vec![fact(DType::I64, vec![Dim::from(dims.len()), n])])
    }
    fn eval(&self, cx: &mut EvalCx<'_>) -> Result<Vec<Value>, Diag> {
        let x = cx.tensor(0)?;
        let on: Vec<bool> = match x.elems() {
            Elems::F(v) => v.iter().map(|x| *x != 0.0).collect(),
            Elems::I(v) => v.iter().map(|x| *x != 0).collect(),
            Elems::S(_) => return Err(Diag::error("dtype-mismatch", "strings are not compared with 0")),
        };
        let at: Vec<usize> = (0..on.len()).filter(|i| on[*i]).collect();
        let st = strides(x.shape());
        let mut out = Vec::with_capacity(at.len() * x.rank());
        for (s, n) in st.iter().zip(x.shape()) {
            out.extend(at.iter().map(|p| (p / s % n) as i64));
        }
        Ok(vec![Tensor::vec_i64(&out).reshaped(&[x.rank(), at.len()])?.into()])
    }
}

/// The rule of choosing slices along an axis, or elements, by a vector of their indices.
fn put_back(cx: &mut GradCx<'_, '_>, axis: Option<usize>, at: ValueId) -> Result<(), Diag> {
    let (dy, x) = (cx.only_seed()?, cx.input(0)?);
    let dx = match axis {
        Some(axis) => cx.scatter_add(dy, axis, at, x)?,
        None => {
            let flat = cx.reshape(x, &[-1])?;
            let flat = cx.scatter_add(dy, 0, at, flat)?;
            cx.reshape_like(flat, x)?
        }
    };
    cx.give(0, dx)
}

crate::op_struct! {
    /// The slices along `axis` (or the elements in row-major order) where the second operand, a vector of bools that may be shorter, is true. ONNX `Compress`.
    Compress {
        /// Axis, below the rank; none for elements.
        axis: Option<usize>,
    }
}

impl OpDef for Compress {
    const NAME: &'static str = "compress";
    const INPUTS: (usize, usize) = (2, 2);
    fn infer(&self, cx: &mut InferCx<'_>) -> Result<Vec<Fact>, Diag> {
        cx.expect_dtype(1, |d| d == DType::Bool, "bool")?;
        let (ty, mut dims) = (cx.ty(0)?, cx.dims(0)?.to_vec());
        if cx.dims(1)?.len() != 1 {
            return Err(Diag::error("shape-mismatch", "the condition must be a vector"));
        }
        let axis = match self.axis {
            Some(a) if a >= dims.len() => {
                return Err(Diag::error("axis-out-of-range", format!("axis {a} of rank {}", dims.len())));
            }
            Some(a) => a,
            None => {
                dims = vec![Dim::product(&dims)];
                0
            }
        };
        let max = dims[axis].bounds(cx.symbols).1;
        dims[axis] = match cx.const_ints(1) {
            Some(c) => Dim::from(c.iter().filter(|v| **v != 0).count()),
            None => cx.fresh(0, axis, 0, max),
        };
        Ok(vec![moved(ty, dims, || None)?])
    }
    fn gradient(&self, cx: &mut GradCx<'_, '_>) -> Result<(), Diag> {
        let (dy, c) = (cx.only_seed()?, cx.input(1)?);
        let at = cx.ed.node1(NonZero {}, &[c])?;
        let count = cx.dims(dy)?[self.axis.unwrap_or(0)].clone();
        let at = cx.with_dims(at, vec![Dim::Const(1), count])?;
        let at = cx.ed.node1(Squeeze { axes: vec![0] }, &[at])?;
        put_back(cx, self.axis, at)
    }
    fn eval(&self, cx: &mut EvalCx<'_>) -> Result<Vec<Value>, Diag> {
        let mut x = cx.tensor(0)?.clone();
        if self.axis.is_none() {
            x = x.reshaped(&[x.len()])?;
        }
        let axis = self.axis.unwrap_or(0);
        let c = cx.ints(1)?;
        let at: Vec<usize> = (0..c.len()).filter(|i| c[*i] != 0).collect();
        let n = *x.shape().get(axis).ok_or_else(|| Diag::error("axis-out-of-range", "no such axis"))?;
        if at.last().is_some_and(|a| *a >= n) {
            return Err(Diag::error("index-out-of-range", "the condition is longer than the axis"));
        }
        let st = strides(x.shape());
        let mut shape = x.shape().to_vec();
        shape[axis] = at.len();
        let out = gather_by(&x, shape, |i| Ok(flat(i, &st) - i[axis] * st[axis] + at[i[axis]] * st[axis]))?;
        Ok(vec![out.into()])
    }
}

crate::op_struct! {
    /// The different elements, or slices along `axis`, ascending if `sorted`, else in the order of their first occurrence. Results: they; where each occurs first; for every original its place among them; how often each occurs. ONNX `Unique`.
    Unique {
        /// Axis, below the rank; none for elements.
        axis: Option<usize>,
        /// Whether they are sorted.
        sorted: bool,
    }
}

impl OpDef for Unique {
    const NAME: &'static str = "unique";
    const INPUTS: (usize, usize) = (1, 1);
    fn infer(&self, cx: &mut InferCx<'_>) -> Result<Vec<Fact>, Diag> {
        let (ty, mut dims) = (cx.ty(0)?, cx.dims(0)?.to_vec());
        let axis = match self.axis {
            Some(a) if a >= dims.len() => {
                return Err(Diag::error("axis-out-of-range", format!("axis {a} of rank {}", dims.len())));
            }
            Some(a) => a,
            None => {
                dims = vec![Dim::product(&dims)];
                0
            }
        };
        let all = dims[axis].clone();
        let max = all.bounds(cx.symbols).1;
        let n = cx.fresh(0, axis, 0, max);
        dims[axis] = n.clone();
        let list = |n: Dim| fact(DType::I64, vec![n]);
        Ok(vec![moved(ty, dims, || None)?, list(n.clone()), list(all), list(n)])
    }
    fn gradient(&self, cx: &mut GradCx<'_, '_>) -> Result<(), Diag> {
        let at = cx.output(1);
        put_back(cx, self.axis, at)
    }
    fn eval(&self, cx: &mut EvalCx<'_>) -> Result<Vec<Value>, Diag> {
        let mut x = cx.tensor(0)?.clone();
        if self.axis.is_none() {
            x = x.reshaped(&[x.len()])?;
        }
        let axis = self.axis.unwrap_or(0);
        if axis >= x.rank() {
            return Err(Diag::error("axis-out-of-range", "no such axis"));
        }
        let (before, n, after) = split_at_axis(x.shape(), axis);
        let e = x.elems();
        let compare = |a: usize, b: usize| {
            for i in 0..before {
                for j in 0..after {
                    let o = compare_at(&e, (i * n + a) * after + j, (i * n + b) * after + j);
                    if o != Ordering::Equal {
                        return o;
                    }
                }
            }
            Ordering::Equal
        };
        let mut order: Vec<usize> = (0..n).collect();
        order.sort_by(|a, b| compare(*a, *b).then(a.cmp(b)));
        // Groups of equals, each with its members ascending.
        let mut groups: Vec<Vec<usize>> = Vec::new();
        for k in order {
            match groups.last_mut() {
                Some(g) if compare(g[0], k) == Ordering::Equal => g.push(k),
                _ => groups.push(vec![k]),
            }
        }
        if !self.sorted {
            groups.sort_by_key(|g| g[0]);
        }
        let mut inverse = vec![0i64; n];
        for (g, members) in groups.iter().enumerate() {
            members.iter().for_each(|m| inverse[*m] = g as i64);
        }
        let first: Vec<i64> = groups.iter().map(|g| g[0] as i64).collect();
        let counts: Vec<i64> = groups.iter().map(|g| g.len() as i64).collect();
        let st = strides(x.shape());
        let mut shape = x.shape().to_vec();
        shape[axis] = groups.len();
        let y =
            gather_by(&x, shape, |i| Ok(flat(i, &st) - i[axis] * st[axis] + groups[i[axis]][0] * st[axis]))?;
        let list = |v: &[i64]| Value::from(Tensor::vec_i64(v));
        Ok(vec![y.into(), list(&first), list(&inverse), list(&counts)])
    }
}

/// The order of two elements; NaN comes last and equals itself.
pub(crate) fn compare_at(e: &Elems, a: usize, b: usize) -> Ordering {
    match e {
        Elems::F(v) => v[a].partial_cmp(&v[b]).unwrap_or_else(|| v[a].is_nan().cmp(&v[b].is_nan())),
        Elems::I(v) => v[a].cmp(&v[b]),
        Elems::S(v) => v[a].cmp(&v[b]),
    }
}

crate::op_struct! {
    /// In every batch the first elements along `time_axis` in reverse, as many as the second operand lists for the batch. ONNX `ReverseSequence`.
    ReverseSequence {
        /// The axis of the batches.
        batch_axis: usize,
        /// The axis that is reversed.
        time_axis: usize,
    }
}

impl ReverseSequence {
    fn check(&self, rank: usize) -> Result<(), Diag> {
        if self.batch_axis == self.time_axis || self.batch_axis.max(self.time_axis) >= rank {
            return Err(Diag::error("axis-out-of-range", format!("batch and time axes of rank {rank}")));
        }
        Ok(())
    }
}

impl OpDef for ReverseSequence {
    const NAME: &'static str = "reverse-sequence";
    const INPUTS: (usize, usize) = (2, 2);
    fn infer(&self, cx: &mut InferCx<'_>) -> Result<Vec<Fact>, Diag> {
        cx.expect_dtype(1, |d| d == DType::I64, "i64")?;
        let dims = cx.dims(0)?;
        self.check(dims.len())?;
        match cx.dims(1)? {
            [n] => expect_equal(n, &dims[self.batch_axis], "lengths and batch")?,
            _ => return Err(Diag::error("shape-mismatch", "the lengths must be a vector")),
        }
        Ok(vec![moved(cx.ty(0)?, dims.to_vec(), || None)?])
    }
    fn gradient(&self, cx: &mut GradCx<'_, '_>) -> Result<(), Diag> {
        cx.give_by(self.clone())
    }
    fn eval(&self, cx: &mut EvalCx<'_>) -> Result<Vec<Value>, Diag> {
        let x = cx.tensor(0)?;
        self.check(x.rank())?;
        let lens = cx.ints(1)?;
        let time = x.shape()[self.time_axis];
        if lens.len() != x.shape()[self.batch_axis] || lens.iter().any(|l| *l < 0 || *l > time as i64) {
            return Err(Diag::error("index-out-of-range", "a length is not within the time axis"));
        }
        let st = strides(x.shape());
        let mut pos = Vec::with_capacity(x.len());
        crate::op::util::for_each_index(x.shape(), |i| {
            let (t, len) = (i[self.time_axis], lens[i[self.batch_axis]] as usize);
            let from = if t < len { len - 1 - t } else { t };
            pos.push(flat(i, &st) - t * st[self.time_axis] + from * st[self.time_axis]);
            Ok(())
        })?;
        Ok(vec![pick(x, x.shape().to_vec(), &pos)?.into()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::checked::{f, fails, i, iota, run, try_run};

    #[test]
    fn finds_nonzeros() {
        let got = run(NonZero {}, &[f(&[2, 2], &[1.0, 0.0, -3.0, f32::NAN])]);
        assert_eq!(got, i(&[2, 3], &[0, 1, 1, 0, 0, 1]));
        assert_eq!(run(NonZero {}, &[f(&[], &[1.0])]).shape(), [0, 1]);
    }

    #[test]
    fn compresses() {
        let c =
            |v: &[i128]| Tensor::ints(DType::Bool, &[v.len()], v.to_vec()).unwrap_or_else(|d| panic!("{d}"));
        assert_eq!(run(Compress { axis: Some(1) }, &[iota(&[2, 3]), c(&[0, 1])]), f(&[2, 1], &[1.0, 4.0]));
        assert_eq!(run(Compress { axis: None }, &[iota(&[2, 2]), c(&[1, 0, 0, 1])]), f(&[2], &[0.0, 3.0]));
        assert_eq!(fails(Compress { axis: Some(0) }, &[iota(&[2]), c(&[0, 0, 1])]), "index-out-of-range");
    }

    #[test]
    fn finds_the_different() {
        let x = f(&[5], &[2.0, 1.0, 1.0, 3.0, 2.0]);
        let all = |sorted| {
            let out =
                try_run(Unique { axis: None, sorted }, &[Some(x.clone())]).unwrap_or_else(|d| panic!("{d}"));
            out.iter().map(Tensor::to_f64).collect::<Vec<_>>()
        };
        assert_eq!(
            all(true),
            [vec![1.0, 2.0, 3.0], vec![1.0, 0.0, 3.0], vec![1.0, 0.0, 0.0, 2.0, 1.0], vec![2.0, 2.0, 1.0]]
        );
        assert_eq!(all(false)[0], [2.0, 1.0, 3.0]);
        let rows =
            run(Unique { axis: Some(0), sorted: true }, &[f(&[3, 2], &[1.0, 0.0, 0.0, 1.0, 1.0, 0.0])]);
        assert_eq!(rows, f(&[2, 2], &[0.0, 1.0, 1.0, 0.0]));
    }

    #[test]
    fn reverses_by_length() {
        let op = ReverseSequence { batch_axis: 0, time_axis: 1 };
        let got = run(op.clone(), &[iota(&[2, 3]), i(&[2], &[2, 3])]);
        assert_eq!(got.to_f64(), [1.0, 0.0, 2.0, 5.0, 4.0, 3.0]);
        assert_eq!(fails(op, &[iota(&[2, 3]), i(&[2], &[2, 4])]), "index-out-of-range");
    }
}
