//! Writing elements at places that data decide.

use crate::diag::Diag;
use crate::dtype::DType;
use crate::graph::Fact;
use crate::op::Op;
use crate::op::gather::{GatherElements, GatherNd};
use crate::op::gather::{check_same_rank, tuple_len};
use crate::op::gradient::GradCx;
use crate::op::util::{element_index, expect_equal, flat, for_each_index, is_index, moved};
use crate::op::{EvalCx, InferCx, OpDef};
use crate::tensor::{Elems, Tensor, Value, strides};
use crate::{Dim, op::binary::BinaryKind};

crate::attr_enum! {
    /// What happens when an element is written.
    Reduction {
        /// It replaces the old one; of several the last in row-major order of the updates stays.
        None = "none",
        /// It is added.
        Add = "add",
        /// It is multiplied.
        Mul = "mul",
        /// The smaller one stays.
        Min = "min",
        /// The larger one stays.
        Max = "max",
    }
}

impl Reduction {
    /// The function that combines the old and the new element; none replaces.
    pub fn binary(self) -> Option<BinaryKind> {
        match self {
            Reduction::None => None,
            Reduction::Add => Some(BinaryKind::Add),
            Reduction::Mul => Some(BinaryKind::Mul),
            Reduction::Min => Some(BinaryKind::Min),
            Reduction::Max => Some(BinaryKind::Max),
        }
    }
    fn check(self, d: DType) -> Result<(), Diag> {
        let ok = match self {
            Reduction::None => true,
            Reduction::Add | Reduction::Mul => d.is_float() || d.is_int() || d == DType::Bool,
            Reduction::Min | Reduction::Max => d != DType::Str,
        };
        if ok { Ok(()) } else { Err(Diag::error("dtype-mismatch", format!("{d} cannot be combined"))) }
    }
}

/// `x` with updates written: pairs of a position in `x` and a position in `updates`, in order. Sums and products of
/// floats are formed in `f64` and rounded once.
fn write(x: &Tensor, updates: &Tensor, pairs: &[(usize, usize)], r: Reduction) -> Result<Tensor, Diag> {
    r.check(x.dtype())?;
    let elems = match (x.elems(), updates.elems()) {
        (Elems::F(mut a), Elems::F(u)) => {
            for (to, from) in pairs {
                a[*to] = r.binary().map_or(u[*from], |b| b.apply_float(a[*to], u[*from]));
            }
            Elems::F(a)
        }
        (Elems::I(mut a), Elems::I(u)) => {
            for (to, from) in pairs {
                let v = r.binary().map_or(u[*from], |b| b.apply_int(a[*to], u[*from], x.dtype().bits()));
                // Wrapping at every step keeps products within the widened type.
                let one = Tensor::ints(x.dtype(), &[], vec![v])?.elems();
                if let Elems::I(v) = one {
                    a[*to] = v[0];
                }
            }
            Elems::I(a)
        }
        (Elems::S(mut a), Elems::S(u)) => {
            for (to, from) in pairs {
                a[*to] = u[*from].clone();
            }
            Elems::S(a)
        }
        _ => return Err(Diag::error("dtype-mismatch", "updates of another type")),
    };
    Tensor::from_elems(x.dtype(), x.shape().to_vec(), elems)
}

fn check_updates(cx: &InferCx<'_>, r: Reduction) -> Result<(), Diag> {
    cx.expect_dtype(1, is_index, "i32 or i64")?;
    r.check(cx.dtype(0)?)?;
    if cx.dtype(2)? != cx.dtype(0)? {
        return Err(Diag::error(
            "dtype-mismatch",
            format!("updates of {} into {}", cx.dtype(2)?, cx.dtype(0)?),
        ));
    }
    Ok(())
}

crate::op_struct! {
    /// The first operand with elements of the third written: each at its own place, but with the integer of the second operand at that place as its index along `axis`. ONNX `ScatterElements`, `Scatter`.
    ScatterElements {
        /// Axis, below the rank.
        axis: usize,
        /// How written elements are combined with old ones.
        reduction: Reduction,
    }
}

/// The rule of writing: `again` writes in the same way without a reduction, `add` adds, `read` reads from the places that are written to. Of elements written to one
/// place each gets the gradient of that place: right for sums, and where places differ.
fn written(
    cx: &mut GradCx<'_, '_>,
    reduction: Reduction,
    [again, add]: [Op; 2],
    read: Op,
) -> Result<(), Diag> {
    let (dy, at, new) = (cx.only_seed()?, cx.input(1)?, cx.input(2)?);
    let dx = match reduction {
        Reduction::Add => dy,
        Reduction::None => {
            let zeros = cx.zeros(new)?;
            cx.ed.node1(again, &[dy, at, zeros])?
        }
        Reduction::Mul => return Err(cx.no_rule("with products")),
        // Elements that are as large as the result share its gradient.
        Reduction::Min | Reduction::Max => {
            let (x, y, dtype) = (cx.input(0)?, cx.output(0), cx.dtype(dy)?);
            let mine = cx.binary(BinaryKind::Equal, x, y)?;
            let mine = cx.cast(mine, dtype)?;
            let there = cx.ed.node1(read.clone(), &[y, at])?;
            let theirs = cx.binary(BinaryKind::Equal, new, there)?;
            let theirs = cx.cast(theirs, dtype)?;
            let count = cx.ed.node1(add, &[mine, at, theirs])?;
            let share = cx.binary(BinaryKind::Div, dy, count)?;
            let dx = cx.mul(share, mine)?;
            cx.give(0, dx)?;
            let share = cx.ed.node1(read, &[share, at])?;
            let dnew = cx.mul(share, theirs)?;
            return cx.give(2, dnew);
        }
    };
    cx.give(0, dx)?;
    let dnew = cx.ed.node1(read, &[dy, at])?;
    cx.give(2, dnew)
}

impl OpDef for ScatterElements {
    const NAME: &'static str = "scatter-elements";
    const INPUTS: (usize, usize) = (3, 3);
    fn infer(&self, cx: &mut InferCx<'_>) -> Result<Vec<Fact>, Diag> {
        check_updates(cx, self.reduction)?;
        let (dims, at, up) = (cx.dims(0)?, cx.dims(1)?, cx.dims(2)?);
        if self.axis >= dims.len() {
            return Err(Diag::error(
                "axis-out-of-range",
                format!("axis {} of rank {}", self.axis, dims.len()),
            ));
        }
        check_same_rank(dims, at, self.axis)?;
        if at.len() != up.len() {
            return Err(Diag::error("shape-mismatch", "indices and updates differ in rank"));
        }
        for (a, u) in at.iter().zip(up) {
            expect_equal(a, u, "indices and updates")?;
        }
        Ok(vec![moved(cx.ty(0)?, dims.to_vec(), || None)?])
    }
    fn gradient(&self, cx: &mut GradCx<'_, '_>) -> Result<(), Diag> {
        let axis = self.axis;
        let as_is = |reduction| Op::from(ScatterElements { axis, reduction });
        written(
            cx,
            self.reduction,
            [Reduction::None, Reduction::Add].map(as_is),
            GatherElements { axis }.into(),
        )
    }
    fn eval(&self, cx: &mut EvalCx<'_>) -> Result<Vec<Value>, Diag> {
        let (x, at, up) = (cx.tensor(0)?, cx.tensor(1)?, cx.tensor(2)?);
        let dims = |s: &[usize]| s.iter().map(|d| Dim::from(*d)).collect::<Vec<_>>();
        check_same_rank(&dims(x.shape()), &dims(at.shape()), self.axis)?;
        if at.shape() != up.shape() || self.axis >= x.rank() {
            return Err(Diag::error("shape-mismatch", "indices and updates differ in shape"));
        }
        let (index, st) = (at.to_i64()?, strides(x.shape()));
        let mut pairs = Vec::with_capacity(index.len());
        for_each_index(at.shape(), |i| {
            let k = element_index(index[pairs.len()], x.shape()[self.axis])?;
            let pos = flat(i, &st) - i[self.axis] * st[self.axis] + k * st[self.axis];
            pairs.push((pos, pairs.len()));
            Ok(())
        })?;
        Ok(vec![write(x, up, &pairs, self.reduction)?.into()])
    }
}

crate::op_struct! {
    /// The first operand with slices of the third written at the index tuples along the last axis of the second. ONNX `ScatterND`.
    ScatterNd {
        /// How written elements are combined with old ones.
        reduction: Reduction,
    }
}

impl OpDef for ScatterNd {
    const NAME: &'static str = "scatter-nd";
    const INPUTS: (usize, usize) = (3, 3);
    fn infer(&self, cx: &mut InferCx<'_>) -> Result<Vec<Fact>, Diag> {
        check_updates(cx, self.reduction)?;
        let (dims, at, up) = (cx.dims(0)?, cx.dims(1)?, cx.dims(2)?);
        let k = tuple_len(at)?;
        if k > dims.len() || up.len() != at.len() - 1 + dims.len() - k {
            return Err(Diag::error("shape-mismatch", "ranks of tensor, indices and updates disagree"));
        }
        for (a, u) in at[..at.len() - 1].iter().chain(&dims[k..]).zip(up) {
            expect_equal(a, u, "indices and updates")?;
        }
        Ok(vec![moved(cx.ty(0)?, dims.to_vec(), || None)?])
    }
    fn gradient(&self, cx: &mut GradCx<'_, '_>) -> Result<(), Diag> {
        let as_is = |reduction| Op::from(ScatterNd { reduction });
        written(
            cx,
            self.reduction,
            [Reduction::None, Reduction::Add].map(as_is),
            GatherNd { batch_dims: 0 }.into(),
        )
    }
    fn eval(&self, cx: &mut EvalCx<'_>) -> Result<Vec<Value>, Diag> {
        let (x, at, up) = (cx.tensor(0)?, cx.tensor(1)?, cx.tensor(2)?);
        let bad = || Diag::error("shape-mismatch", "shapes of tensor, indices and updates disagree");
        let k = *at.shape().last().ok_or_else(bad)?;
        let outer = at.rank() - 1;
        let tail = x.shape().get(k..).ok_or_else(bad)?;
        if !at.shape()[..outer].iter().chain(tail).eq(up.shape()) {
            return Err(bad());
        }
        let (index, st, at_st) = (at.to_i64()?, strides(x.shape()), strides(at.shape()));
        let mut pairs = Vec::with_capacity(up.len());
        for_each_index(up.shape(), |i| {
            let tuple = flat(&i[..outer], &at_st);
            let mut pos = flat(&i[outer..], &st[k..]);
            for j in 0..k {
                pos += element_index(index[tuple + j], x.shape()[j])? * st[j];
            }
            pairs.push((pos, pairs.len()));
            Ok(())
        })?;
        Ok(vec![write(x, up, &pairs, self.reduction)?.into()])
    }
}

crate::op_struct! {
    /// The first operand (a cache) with the second written along `axis`, in each batch (axis 0) from the index that the third operand lists, by default 0. ONNX `TensorScatter`.
    TensorScatter {
        /// Axis, from 1 to below the rank.
        axis: usize,
        /// Whether writing goes on at 0 past the end, else that is an error.
        circular: bool,
    }
}

impl OpDef for TensorScatter {
    const NAME: &'static str = "tensor-scatter";
    const INPUTS: (usize, usize) = (2, 3);
    fn infer(&self, cx: &mut InferCx<'_>) -> Result<Vec<Fact>, Diag> {
        let (ty, dims, up) = (cx.ty(0)?, cx.dims(0)?, cx.dims(1)?);
        if cx.dtype(1)? != ty.dtype {
            return Err(Diag::error("dtype-mismatch", "cache and update must have one dtype"));
        }
        if self.axis == 0 || self.axis >= dims.len() {
            return Err(Diag::error(
                "axis-out-of-range",
                format!("axis {} of rank {}", self.axis, dims.len()),
            ));
        }
        if dims.len() != up.len() {
            return Err(Diag::error("shape-mismatch", "cache and update differ in rank"));
        }
        for (k, (d, u)) in dims.iter().zip(up).enumerate() {
            if k != self.axis {
                expect_equal(d, u, "cache and update")?;
            } else if let (Some(d), Some(u)) = (d.as_const(), u.as_const())
                && u > d
            {
                return Err(Diag::error("shape-mismatch", format!("{u} updates into a cache of {d}")));
            }
        }
        if cx.has(2) {
            cx.expect_dtype(2, is_index, "i64")?;
            match cx.dims(2)? {
                [n] => expect_equal(n, &dims[0], "write indices and batch")?,
                _ => return Err(Diag::error("shape-mismatch", "the write indices must be a vector")),
            }
        }
        Ok(vec![moved(ty, dims.to_vec(), || None)?])
    }
    fn gradient(&self, cx: &mut GradCx<'_, '_>) -> Result<(), Diag> {
        let (dy, x, new) = (cx.only_seed()?, cx.input(0)?, cx.input(1)?);
        let rank = cx.dims(x)?.len();
        let sizes = [x, new].map(|v| cx.dims(v).ok().and_then(|d| d.get(self.axis)?.as_const()));
        let [Some(n), Some(count)] = sizes else {
            return Err(cx.no_rule("along an axis whose size is not fixed"));
        };
        let zeros = cx.zeros(new)?;
        let starts = if cx.has(2) { Some(cx.input(2)?) } else { None };
        let dx = cx.ed.node(self.clone(), &[Some(dy), Some(zeros), starts])?;
        cx.give(0, dx[0])?;
        // What was written at an index reads there.
        let steps: Vec<i64> = (0..count).collect();
        let mut at = cx.vector(&steps)?;
        at = cx.unsqueeze(at, &(0..rank).filter(|a| *a != self.axis).collect::<Vec<_>>())?;
        if let Some(starts) = starts {
            let starts = cx.cast(starts, DType::I64)?;
            let starts = cx.unsqueeze(starts, &(1..rank).collect::<Vec<_>>())?;
            at = cx.binary(BinaryKind::Add, starts, at)?;
        }
        if self.circular {
            at = cx.compare(BinaryKind::Mod, at, n.max(1) as f64)?;
        }
        let at = cx.like(at, new)?;
        let dnew = cx.ed.node1(GatherElements { axis: self.axis }, &[dy, at])?;
        cx.give(1, dnew)
    }
    fn eval(&self, cx: &mut EvalCx<'_>) -> Result<Vec<Value>, Diag> {
        let (x, up) = (cx.tensor(0)?, cx.tensor(1)?);
        let starts = if cx.has(2) { cx.ints(2)? } else { vec![0; x.shape().first().copied().unwrap_or(0)] };
        let fits = |k: usize| {
            if k == self.axis { up.shape()[k] <= x.shape()[k] } else { up.shape()[k] == x.shape()[k] }
        };
        if x.rank() != up.rank()
            || self.axis >= x.rank()
            || !(0..x.rank()).all(fits)
            || starts.len() != x.shape()[0]
        {
            return Err(Diag::error("shape-mismatch", "shapes of cache, update and write indices disagree"));
        }
        let (st, n) = (strides(x.shape()), x.shape()[self.axis]);
        let mut pairs = Vec::with_capacity(up.len());
        for_each_index(up.shape(), |i| {
            let mut k = starts[i[0]].saturating_add(i[self.axis] as i64);
            if self.circular {
                k = k.rem_euclid(n.max(1) as i64);
            } else if k < 0 {
                return Err(Diag::error("index-out-of-range", format!("write index {k}")));
            }
            let k = element_index(k, n)?;
            pairs.push((flat(i, &st) - i[self.axis] * st[self.axis] + k * st[self.axis], pairs.len()));
            Ok(())
        })?;
        Ok(vec![write(x, up, &pairs, Reduction::None)?.into()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::checked::{f, fails, i, iota, run};

    #[test]
    fn scatters_elements() {
        let x = f(&[1, 3], &[1.0, 2.0, 3.0]);
        let (at, up) = (i(&[1, 2], &[-1, 0]), f(&[1, 2], &[10.0, 20.0]));
        let go = |reduction| {
            run(ScatterElements { axis: 1, reduction }, &[x.clone(), at.clone(), up.clone()]).to_f64()
        };
        assert_eq!(go(Reduction::None), [20.0, 2.0, 10.0]);
        assert_eq!(go(Reduction::Add), [21.0, 2.0, 13.0]);
        assert_eq!(go(Reduction::Mul), [20.0, 2.0, 30.0]);
        assert_eq!(go(Reduction::Max), [20.0, 2.0, 10.0]);
        assert_eq!(go(Reduction::Min), [1.0, 2.0, 3.0]);
        let twice = [x.clone(), i(&[1, 2], &[1, 1]), up.clone()];
        assert_eq!(
            run(ScatterElements { axis: 1, reduction: Reduction::Add }, &twice).to_f64(),
            [1.0, 32.0, 3.0]
        );
        let beyond = [x, i(&[1, 2], &[0, 3]), up];
        assert_eq!(
            fails(ScatterElements { axis: 1, reduction: Reduction::None }, &beyond),
            "index-out-of-range"
        );
    }

    #[test]
    fn scatters_slices() {
        let x = iota(&[3, 2]);
        let got = run(
            ScatterNd { reduction: Reduction::None },
            &[x.clone(), i(&[1, 1], &[2]), f(&[1, 2], &[8.0, 9.0])],
        );
        assert_eq!(got.to_f64(), [0.0, 1.0, 2.0, 3.0, 8.0, 9.0]);
        let bad = [x, i(&[1, 3], &[0; 3]), f(&[1], &[1.0])];
        assert_eq!(fails(ScatterNd { reduction: Reduction::None }, &bad), "shape-mismatch");
        let wrap = [i(&[1], &[i64::MAX]), i(&[1, 1], &[0]), i(&[1], &[1])];
        assert_eq!(run(ScatterNd { reduction: Reduction::Add }, &wrap), i(&[1], &[i64::MIN]));
    }

    #[test]
    fn caches_take_updates() {
        let x = iota(&[2, 3]);
        let up = f(&[2, 2], &[10.0, 11.0, 12.0, 13.0]);
        let at = i(&[2], &[1, 2]);
        let got = run(TensorScatter { axis: 1, circular: true }, &[x.clone(), up.clone(), at.clone()]);
        assert_eq!(got.to_f64(), [0.0, 10.0, 11.0, 13.0, 4.0, 12.0]);
        assert_eq!(
            fails(TensorScatter { axis: 1, circular: false }, &[x.clone(), up.clone(), at]),
            "index-out-of-range"
        );
        assert_eq!(fails(TensorScatter { axis: 0, circular: false }, &[x, up]), "axis-out-of-range");
    }
}
