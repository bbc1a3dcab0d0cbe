//! Reading elements at places that data decide.

use crate::diag::Diag;
use crate::dim::Dim;
use crate::graph::Fact;
use crate::op::concat::Concat;
use crate::op::gradient::GradCx;
use crate::op::reshape::Reshape;
use crate::op::scatter::{Reduction, ScatterElements, ScatterNd};
use crate::op::util::{element_index, expect_equal, flat, gather_by, is_index, moved};
use crate::op::views::Expand;
use crate::op::{EvalCx, InferCx, OpDef};
use crate::tensor::{Value, strides};

crate::op_struct! {
    /// Slices of the first operand along `axis`, chosen by the integers of the second, whose shape takes the place of the axis. Negative indices count from the end. ONNX `Gather`.
    Gather {
        /// Axis, below the rank of the first operand.
        axis: usize,
    }
}

fn axis_error(axis: usize, rank: usize) -> Diag {
    Diag::error("axis-out-of-range", format!("axis {axis} of a tensor of rank {rank}"))
}

fn check_const(i: i64, n: &Dim) -> Result<(), Diag> {
    match n.as_const() {
        Some(n) => element_index(i, n.max(0) as usize).map(|_| ()),
        None => Ok(()),
    }
}

impl OpDef for Gather {
    const NAME: &'static str = "gather";
    const INPUTS: (usize, usize) = (2, 2);
    fn infer(&self, cx: &mut InferCx<'_>) -> Result<Vec<Fact>, Diag> {
        cx.expect_dtype(1, is_index, "i32 or i64")?;
        let (ty, dims, at) = (cx.ty(0)?, cx.dims(0)?, cx.dims(1)?);
        let n = dims.get(self.axis).ok_or_else(|| axis_error(self.axis, dims.len()))?;
        let known = cx.const_ints(1);
        for i in known.iter().flatten() {
            check_const(*i, n)?;
        }
        let mut out = dims[..self.axis].to_vec();
        out.extend_from_slice(at);
        out.extend_from_slice(&dims[self.axis + 1..]);
        let content = || {
            let c = cx.ints(0)?;
            known?.iter().map(|i| c.get(element_index(*i, c.len()).ok()?).cloned()).collect()
        };
        let content = if dims.len() == 1 { content() } else { None };
        Ok(vec![moved(ty, out, || content)?])
    }
    fn gradient(&self, cx: &mut GradCx<'_, '_>) -> Result<(), Diag> {
        let (mut dy, x, mut at) = (cx.only_seed()?, cx.input(0)?, cx.input(1)?);
        match cx.dims(at)?.len() {
            0 => {
                dy = cx.unsqueeze(dy, &[self.axis])?;
                at = cx.unsqueeze(at, &[0])?;
            }
            1 => {}
            _ => {
                // All indices as one axis.
                let (rank, behind) = (cx.dims(x)?.len(), self.axis + cx.dims(at)?.len());
                at = cx.reshape(at, &[-1])?;
                let (count, front) = (cx.size(at, 0)?, cx.sizes(dy, 0..self.axis)?);
                let back = cx.sizes(dy, behind..behind + rank - 1 - self.axis)?;
                let shape = cx.join(&[front, count, back])?;
                dy = cx.ed.node1(Reshape { allow_zero: true }, &[dy, shape])?;
            }
        }
        let dx = cx.scatter_add(dy, self.axis, at, x)?;
        cx.give(0, dx)
    }
    fn eval(&self, cx: &mut EvalCx<'_>) -> Result<Vec<Value>, Diag> {
        let (x, at) = (cx.tensor(0)?, cx.tensor(1)?);
        let n = *x.shape().get(self.axis).ok_or_else(|| axis_error(self.axis, x.rank()))?;
        let index = at.to_i64()?;
        let (st, at_st) = (strides(x.shape()), strides(at.shape()));
        let mut shape = x.shape()[..self.axis].to_vec();
        shape.extend_from_slice(at.shape());
        shape.extend_from_slice(&x.shape()[self.axis + 1..]);
        let (a, b) = (self.axis, self.axis + at.rank());
        let out = gather_by(x, shape, |i| {
            let k = element_index(index[flat(&i[a..b], &at_st)], n)?;
            Ok(flat(&i[..a], &st) + k * st[a] + flat(&i[b..], &st[a + 1..]))
        })?;
        Ok(vec![out.into()])
    }
}

crate::op_struct! {
    /// An element for every integer of the second operand: that of the first operand at the same place, but with the integer as its index along `axis`. ONNX `GatherElements`.
    GatherElements {
        /// Axis, below the rank.
        axis: usize,
    }
}

impl OpDef for GatherElements {
    const NAME: &'static str = "gather-elements";
    const INPUTS: (usize, usize) = (2, 2);
    fn infer(&self, cx: &mut InferCx<'_>) -> Result<Vec<Fact>, Diag> {
        cx.expect_dtype(1, is_index, "i32 or i64")?;
        let (ty, dims, at) = (cx.ty(0)?, cx.dims(0)?, cx.dims(1)?);
        let n = dims.get(self.axis).ok_or_else(|| axis_error(self.axis, dims.len()))?;
        check_same_rank(dims, at, self.axis)?;
        for i in cx.const_ints(1).iter().flatten() {
            check_const(*i, n)?;
        }
        Ok(vec![moved(ty, at.to_vec(), || None)?])
    }
    fn gradient(&self, cx: &mut GradCx<'_, '_>) -> Result<(), Diag> {
        let (dy, x, at) = (cx.only_seed()?, cx.input(0)?, cx.input(1)?);
        let zeros = cx.zeros(x)?;
        let add = ScatterElements { axis: self.axis, reduction: Reduction::Add };
        let dx = cx.ed.node1(add, &[zeros, at, dy])?;
        cx.give(0, dx)
    }
    fn eval(&self, cx: &mut EvalCx<'_>) -> Result<Vec<Value>, Diag> {
        let (x, at) = (cx.tensor(0)?, cx.tensor(1)?);
        let dims = |s: &[usize]| s.iter().map(|d| Dim::from(*d)).collect::<Vec<_>>();
        check_same_rank(&dims(x.shape()), &dims(at.shape()), self.axis)?;
        let n = *x.shape().get(self.axis).ok_or_else(|| axis_error(self.axis, x.rank()))?;
        let (index, st, at_st) = (at.to_i64()?, strides(x.shape()), strides(at.shape()));
        let out = gather_by(x, at.shape().to_vec(), |i| {
            let k = element_index(index[flat(i, &at_st)], n)?;
            Ok(flat(i, &st) - i[self.axis] * st[self.axis] + k * st[self.axis])
        })?;
        Ok(vec![out.into()])
    }
}

/// An error unless indices of shape `at` can address a tensor of shape `dims` element by element.
pub(crate) fn check_same_rank(dims: &[Dim], at: &[Dim], axis: usize) -> Result<(), Diag> {
    if dims.len() != at.len() {
        return Err(Diag::error("shape-mismatch", "the indices must have the rank of the tensor"));
    }
    for (k, (d, i)) in dims.iter().zip(at).enumerate() {
        if let (Some(d), Some(i)) = (d.as_const(), i.as_const())
            && k != axis
            && i > d
        {
            return Err(Diag::error(
                "shape-mismatch",
                format!("indices of size {i} along axis {k} of size {d}"),
            ));
        }
    }
    Ok(())
}

crate::op_struct! {
    /// Slices of the first operand at the index tuples along the last axis of the second; the first `batch_dims` axes of both go together. ONNX `GatherND`.
    GatherNd {
        /// How many leading axes both operands share.
        batch_dims: usize,
    }
}

impl GatherNd {
    fn check(&self, rank: usize, at_rank: usize, k: usize) -> Result<(), Diag> {
        if at_rank == 0 || self.batch_dims >= at_rank || k > rank.saturating_sub(self.batch_dims) {
            return Err(Diag::error(
                "shape-mismatch",
                format!("index tuples of {k} into rank {rank} with {} shared axes", self.batch_dims),
            ));
        }
        Ok(())
    }
}

impl OpDef for GatherNd {
    const NAME: &'static str = "gather-nd";
    const INPUTS: (usize, usize) = (2, 2);
    fn infer(&self, cx: &mut InferCx<'_>) -> Result<Vec<Fact>, Diag> {
        cx.expect_dtype(1, is_index, "i32 or i64")?;
        let (ty, dims, at) = (cx.ty(0)?, cx.dims(0)?, cx.dims(1)?);
        let k = tuple_len(at)?;
        self.check(dims.len(), at.len(), k)?;
        for b in 0..self.batch_dims {
            expect_equal(&dims[b], &at[b], "shared axes")?;
        }
        let mut out = at[..at.len() - 1].to_vec();
        out.extend_from_slice(&dims[self.batch_dims + k..]);
        Ok(vec![moved(ty, out, || None)?])
    }
    fn gradient(&self, cx: &mut GradCx<'_, '_>) -> Result<(), Diag> {
        let (dy, x, mut at) = (cx.only_seed()?, cx.input(0)?, cx.input(1)?);
        if self.batch_dims > 0 {
            // Whole tuples: the shared axes come first.
            let dims = cx.dims(at)?;
            let (last, dtype) = (dims.len() - 1, cx.dtype(at)?);
            let one = cx.vector(&[1])?;
            let lead = cx.sizes(at, 0..last)?;
            let column = cx.join(&[lead, one])?;
            let mut columns = Vec::new();
            for (axis, d) in dims[..self.batch_dims].iter().enumerate() {
                let n = d.as_const().ok_or_else(|| cx.no_rule("with shared axes that are not fixed"))?;
                let steps = cx.vector(&(0..n).collect::<Vec<_>>())?;
                let steps = cx.cast(steps, dtype)?;
                let others: Vec<usize> = (0..=last).filter(|a| *a != axis).collect();
                let steps = cx.unsqueeze(steps, &others)?;
                columns.push(Some(cx.ed.node1(Expand {}, &[steps, column])?));
            }
            columns.push(Some(at));
            at = cx.ed.node(Concat { axis: last }, &columns)?[0];
        }
        let zeros = cx.zeros(x)?;
        let dx = cx.ed.node1(ScatterNd { reduction: Reduction::Add }, &[zeros, at, dy])?;
        cx.give(0, dx)
    }
    fn eval(&self, cx: &mut EvalCx<'_>) -> Result<Vec<Value>, Diag> {
        let (x, at) = (cx.tensor(0)?, cx.tensor(1)?);
        let k = at.shape().last().copied().unwrap_or(0);
        self.check(x.rank(), at.rank(), k)?;
        let (b, outer) = (self.batch_dims, at.rank() - 1);
        if x.shape()[..b] != at.shape()[..b] {
            return Err(Diag::error("shape-mismatch", "shared axes differ"));
        }
        let (index, st, at_st) = (at.to_i64()?, strides(x.shape()), strides(at.shape()));
        let mut shape = at.shape()[..outer].to_vec();
        shape.extend_from_slice(&x.shape()[b + k..]);
        let out = gather_by(x, shape, |i| {
            let tuple = flat(&i[..outer], &at_st);
            let mut pos = flat(&i[..b], &st) + flat(&i[outer..], &st[b + k..]);
            for j in 0..k {
                pos += element_index(index[tuple + j], x.shape()[b + j])? * st[b + j];
            }
            Ok(pos)
        })?;
        Ok(vec![out.into()])
    }
}

/// The size of the last axis of index tuples, which decides the rank of the result.
pub(crate) fn tuple_len(at: &[Dim]) -> Result<usize, Diag> {
    let last = at.last().ok_or_else(|| Diag::error("shape-mismatch", "index tuples need an axis"))?;
    last.as_const()
        .and_then(|v| usize::try_from(v).ok())
        .ok_or_else(|| Diag::error("unsupported-rank", "the length of the index tuples is not known"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::checked::{f, fails, i, iota, run};

    #[test]
    fn gathers_along_an_axis() {
        let x = iota(&[2, 3]);
        let got = run(Gather { axis: 1 }, &[x.clone(), i(&[1, 2], &[2, -3])]);
        assert_eq!(got, f(&[2, 1, 2], &[2.0, 0.0, 5.0, 3.0]));
        assert_eq!(run(Gather { axis: 0 }, &[i(&[2], &[7, 8]), i(&[], &[1])]), i(&[], &[8]));
        assert_eq!(fails(Gather { axis: 1 }, &[x.clone(), i(&[1], &[3])]), "index-out-of-range");
        assert_eq!(fails(Gather { axis: 2 }, &[x.clone(), i(&[1], &[0])]), "axis-out-of-range");
        assert_eq!(fails(Gather { axis: 0 }, &[x, i(&[1], &[i64::MIN])]), "index-out-of-range");
    }

    #[test]
    fn gathers_elements_and_tuples() {
        let x = iota(&[2, 2]);
        let got = run(GatherElements { axis: 1 }, &[x.clone(), i(&[2, 1], &[1, -2])]);
        assert_eq!(got, f(&[2, 1], &[1.0, 2.0]));
        let got = run(GatherNd { batch_dims: 0 }, &[x.clone(), i(&[2, 2], &[0, 0, 1, -1])]);
        assert_eq!(got, f(&[2], &[0.0, 3.0]));
        let got = run(GatherNd { batch_dims: 1 }, &[x.clone(), i(&[2, 1], &[1, 0])]);
        assert_eq!(got, f(&[2], &[1.0, 2.0]));
        assert_eq!(fails(GatherNd { batch_dims: 0 }, &[x.clone(), i(&[1, 3], &[0; 3])]), "shape-mismatch");
        assert_eq!(fails(GatherElements { axis: 0 }, &[x, i(&[1, 3], &[0; 3])]), "shape-mismatch");
    }
}
