//! Reductions and running sums.

use crate::diag::Diag;
use crate::dim::Dim;
use crate::dtype::DType;
use crate::graph::{Fact, ValueId};
use crate::op::binary::BinaryKind;
use crate::op::gradient::GradCx;
use crate::op::unary::UnaryKind;
use crate::op::util::{is_index, scalar_i64, split_at_axis, vector_len};
use crate::op::{EvalCx, InferCx, OpDef, normalize_axes};
use crate::tensor::{Elems, Tensor, Value, elem_count, strides};
use crate::types::{TensorType, Type};

mod running;

crate::attr_enum! {
    /// What a reduction computes.
    ReduceKind {
        /// Sum; of nothing 0.
        Sum = "sum",
        /// Sum divided by the count; of nothing NaN, or 0 of integers.
        Mean = "mean",
        /// Product; of nothing 1.
        Prod = "prod",
        /// Largest, NaN if there is one; of nothing the least value of the type.
        Max = "max",
        /// Smallest, NaN if there is one; of nothing the greatest value of the type.
        Min = "min",
        /// Sum of absolute values.
        L1 = "l1",
        /// Square root of the sum of squares.
        L2 = "l2",
        /// Sum of squares.
        SumSquare = "sum-square",
        /// Logarithm of the sum; of nothing minus infinity.
        LogSum = "log-sum",
        /// Logarithm of the sum of exponentials, without overflow in between; of nothing minus infinity.
        LogSumExp = "log-sum-exp",
    }
}

impl ReduceKind {
    fn accepts(self, d: DType) -> bool {
        match self {
            ReduceKind::Max | ReduceKind::Min => d.is_float() || d.is_int() || d == DType::Bool,
            ReduceKind::LogSumExp => d.is_float(),
            _ => d.is_float() || d.is_int(),
        }
    }
    /// The gradient of `x`, of its shape or of one that is broadcast to it, where `y` is the result and `dy` its gradient, both with all axes.
    fn gradient(
        self,
        cx: &mut GradCx<'_, '_>,
        (dy, x, y): (ValueId, ValueId, ValueId),
        axes: &[usize],
    ) -> Result<ValueId, Diag> {
        use BinaryKind::{Div, Equal, Sub};
        match self {
            ReduceKind::Sum => Ok(dy),
            ReduceKind::Mean => {
                let count = cx.count(x, axes)?;
                cx.binary(Div, dy, count)
            }
            ReduceKind::Max | ReduceKind::Min => {
                // Elements that are as large share it.
                let best = cx.binary(Equal, x, y)?;
                let to = cx.dtype(x)?;
                let best = cx.cast(best, to)?;
                let count = cx.reduce(ReduceKind::Sum, best, axes, true)?;
                let share = cx.binary(Div, dy, count)?;
                cx.mul(best, share)
            }
            ReduceKind::L1 => {
                let sign = cx.unary(UnaryKind::Sign, x)?;
                cx.mul(sign, dy)
            }
            ReduceKind::L2 => {
                // 0 where all elements are.
                let none = cx.compare(Equal, y, 0.0)?;
                let share = cx.binary(Div, dy, y)?;
                let share = cx.only(none, false, share)?;
                cx.mul(x, share)
            }
            ReduceKind::SumSquare => {
                let twice = cx.scale(2.0, x)?;
                cx.mul(twice, dy)
            }
            ReduceKind::LogSum => {
                let sum = cx.unary(UnaryKind::Exp, y)?;
                cx.binary(Div, dy, sum)
            }
            ReduceKind::LogSumExp => {
                let part = cx.binary(Sub, x, y)?;
                let part = cx.unary(UnaryKind::Exp, part)?;
                cx.mul(part, dy)
            }
            ReduceKind::Prod => others(cx, (dy, x), axes),
        }
    }
    /// The reduction of floats, in f64.
    pub fn apply_float(self, v: &[f64]) -> f64 {
        let fold = |k: BinaryKind, one: f64| v.iter().fold(one, |a, b| k.apply_float(a, *b));
        match self {
            ReduceKind::Sum => v.iter().sum::<f64>() + 0.0,
            ReduceKind::Mean => v.iter().sum::<f64>() / v.len() as f64,
            ReduceKind::Prod => v.iter().product(),
            ReduceKind::Max => fold(BinaryKind::Max, f64::NEG_INFINITY),
            ReduceKind::Min => fold(BinaryKind::Min, f64::INFINITY),
            ReduceKind::L1 => v.iter().map(|x| x.abs()).sum::<f64>() + 0.0,
            ReduceKind::L2 => (v.iter().map(|x| x * x).sum::<f64>() + 0.0).sqrt(),
            ReduceKind::SumSquare => v.iter().map(|x| x * x).sum::<f64>() + 0.0,
            ReduceKind::LogSum => (v.iter().sum::<f64>() + 0.0).ln(),
            ReduceKind::LogSumExp => {
                let max = fold(BinaryKind::Max, f64::NEG_INFINITY);
                if !max.is_finite() {
                    return max;
                }
                v.iter().map(|x| (x - max).exp()).sum::<f64>().ln() + max
            }
        }
    }
    /// The reduction of integers, before wrapping to the type; `range` is that of the type.
    pub fn apply_int(self, v: &[i128], range: (i128, i128)) -> i128 {
        let wrap = |x: i128| {
            let span = range.1 - range.0 + 1;
            (x - range.0).rem_euclid(span) + range.0
        };
        let sum = |f: fn(i128) -> i128| v.iter().fold(0, |a, b| wrap(a + f(*b)));
        match self {
            ReduceKind::Sum => sum(|x| x),
            ReduceKind::Mean => sum(|x| x).checked_div(v.len() as i128).unwrap_or(0),
            ReduceKind::Prod => v.iter().fold(1, |a, b| wrap(a * *b)),
            ReduceKind::Max => v.iter().copied().fold(range.0, i128::max),
            ReduceKind::Min => v.iter().copied().fold(range.1, i128::min),
            ReduceKind::L1 => sum(i128::abs),
            ReduceKind::SumSquare => v.iter().fold(0, |a, b| wrap(a + wrap(*b * *b))),
            ReduceKind::L2 => {
                let square: f64 = v.iter().map(|x| (*x as f64) * (*x as f64)).sum();
                (square.sqrt() as i128).clamp(range.0, range.1)
            }
            ReduceKind::LogSum => (sum(|x| x) as f64).ln() as i128,
            ReduceKind::LogSumExp => 0,
        }
    }
}

crate::op_struct! {
    /// A reduction over axes. Sums, products and means are formed in f64, or wrap for integers. The axes are a field, or the second operand if only data tell them; neither means all. ONNX `ReduceSum` and the like.
    Reduce {
        /// What is computed.
        kind: ReduceKind,
        /// Axes, ascending and below the rank.
        axes: Option<Vec<usize>>,
        /// Whether reduced axes stay with size 1.
        keepdims: bool,
        /// Whether an empty second operand means no axis, else all.
        noop_empty: bool,
    }
}

impl Reduce {
    fn axes(&self, rank: usize, operand: Option<&[i64]>) -> Result<Vec<usize>, Diag> {
        match (&self.axes, operand) {
            (Some(_), Some(_)) => Err(Diag::error("arity", "axes are given twice")),
            (Some(a), None) => {
                if a.windows(2).any(|w| w[0] >= w[1]) || a.last().is_some_and(|a| *a >= rank) {
                    return Err(Diag::error("axis-out-of-range", format!("axes {a:?} of rank {rank}")));
                }
                Ok(a.clone())
            }
            (None, Some([])) if self.noop_empty => Ok(Vec::new()),
            (None, None | Some([])) => Ok((0..rank).collect()),
            (None, Some(a)) => normalize_axes(a, rank),
        }
    }
    fn result<T: Clone>(&self, dims: &[T], axes: &[usize], one: T) -> Vec<T> {
        let keep = dims.iter().enumerate().filter_map(|(i, d)| match axes.contains(&i) {
            true if self.keepdims => Some(one.clone()),
            true => None,
            false => Some(d.clone()),
        });
        keep.collect()
    }
    fn content(&self, cx: &InferCx<'_>, dims: &[Dim], axes: &[usize]) -> Option<Vec<Dim>> {
        if dims.len() != 1 || axes != [0] || !matches!(cx.dtype(0).ok()?, DType::I64 | DType::I32) {
            return None;
        }
        let v = cx.ints(0)?;
        // Dims saturate where integers wrap.
        let known: Option<Vec<i64>> = v.iter().map(Dim::as_const).collect();
        let range = cx.dtype(0).ok()?.int_range()?;
        if let Some(known) = known {
            let all: Vec<i128> = known.into_iter().map(i128::from).collect();
            let r = i64::try_from(self.kind.apply_int(&all, range)).ok()?;
            return Some(vec![Dim::Const(r)]);
        }
        let fold = |first: Option<Dim>, f: fn(&Dim, &Dim) -> Dim| {
            let mut it = v.iter();
            let start = first.or_else(|| it.next().cloned())?;
            Some(vec![it.fold(start, |a, b| f(&a, b))])
        };
        match self.kind {
            ReduceKind::Sum => fold(Some(Dim::Const(0)), Dim::add),
            ReduceKind::Prod => fold(Some(Dim::Const(1)), Dim::mul),
            ReduceKind::Max => fold(None, Dim::larger),
            ReduceKind::Min => fold(None, Dim::smaller),
            _ => None,
        }
    }
}

/// The gradient of a product over axes: that of each element is the product of all others, which division would not give where one is 0.
fn others(cx: &mut GradCx<'_, '_>, (dy, x): (ValueId, ValueId), axes: &[usize]) -> Result<ValueId, Diag> {
    let Some((axis, rest)) = axes.split_last() else { return Ok(dy) };
    let inner = cx.reduce(ReduceKind::Prod, x, &[*axis], true)?;
    let dy = others(cx, (dy, inner), rest)?;
    let along = cx.ed.constant(Tensor::scalar_i64(*axis as i64))?;
    let mut sides = dy;
    for reverse in [false, true] {
        let side = cx.ed.node1(Cumulate { product: true, exclusive: true, reverse }, &[x, along])?;
        sides = cx.mul(side, sides)?;
    }
    Ok(sides)
}

impl OpDef for Reduce {
    const NAME: &'static str = "reduce";
    const INPUTS: (usize, usize) = (1, 2);
    fn infer(&self, cx: &mut InferCx<'_>) -> Result<Vec<Fact>, Diag> {
        let what = format!("a type that `{}` takes", self.kind.name());
        let dtype = cx.expect_dtype(0, |d| self.kind.accepts(d), &what)?;
        let operand = if cx.has(1) {
            cx.expect_dtype(1, is_index, "i64")?;
            cx.const_ints(1)
        } else {
            None
        };
        if !cx.has(1) && self.axes.is_none() && !self.keepdims && cx.ty(0)?.shape.is_none() {
            return Ok(vec![Type::tensor(dtype, Vec::new()).into()]);
        }
        let dims = cx.dims(0)?;
        if cx.has(1) && operand.is_none() {
            if self.axes.is_some() {
                return Err(Diag::error("arity", "axes are given twice"));
            }
            let out: Vec<Dim> = if self.keepdims {
                (0..dims.len())
                    .map(|a| {
                        let hi = dims[a].bounds(cx.symbols).1.map(|h| h.max(1));
                        if dims[a].is(1) { Dim::Const(1) } else { cx.fresh(0, a, 0, hi) }
                    })
                    .collect()
            } else {
                let n = match vector_len(cx.dims(1)?, "the axes")? {
                    0 if !self.noop_empty => dims.len(),
                    n => n,
                };
                let rank = dims.len().checked_sub(n);
                let rank = rank.ok_or_else(|| Diag::error("axis-out-of-range", "more axes than the rank"))?;
                (0..rank).map(|a| cx.fresh(0, a, 0, None)).collect()
            };
            return Ok(vec![Type::from(TensorType::new(dtype, out)).into()]);
        }
        let axes = self.axes(dims.len(), operand.as_deref())?;
        let out = self.result(dims, &axes, Dim::Const(1));
        let content = self.content(cx, dims, &axes);
        Ok(vec![Fact { ty: TensorType::new(dtype, out).into(), content }])
    }
    fn gradient(&self, cx: &mut GradCx<'_, '_>) -> Result<(), Diag> {
        let (mut dy, x, mut y) = (cx.only_seed()?, cx.input(0)?, cx.output(0));
        let operand = match cx.has(1) {
            true => Some(cx.ints(cx.input(1)?).ok_or_else(|| cx.no_rule("over axes that are computed"))?),
            false => None,
        };
        let axes = self.axes(cx.dims(x)?.len(), operand.as_deref())?;
        if !self.keepdims {
            dy = cx.unsqueeze(dy, &axes)?;
            y = cx.unsqueeze(y, &axes)?;
        }
        let dx = self.kind.gradient(cx, (dy, x, y), &axes)?;
        let dx = cx.like(dx, x)?;
        cx.give(0, dx)
    }
    fn eval(&self, cx: &mut EvalCx<'_>) -> Result<Vec<Value>, Diag> {
        let x = cx.tensor(0)?;
        let operand = if cx.has(1) { Some(cx.ints(1)?) } else { None };
        let axes = self.axes(x.rank(), operand.as_deref())?;
        let shape = self.result(x.shape(), &axes, 1);
        let st = strides(x.shape());
        let part = |over: bool| -> Vec<usize> {
            (0..x.rank()).filter(|a| axes.contains(a) == over).collect::<Vec<_>>()
        };
        let positions = |axes: &[usize]| -> Result<Vec<usize>, Diag> {
            let sizes: Vec<usize> = axes.iter().map(|a| x.shape()[*a]).collect();
            let mut out = Vec::with_capacity(elem_count(&sizes)?);
            crate::op::util::for_each_index(&sizes, |i| {
                out.push(i.iter().zip(axes).map(|(i, a)| i * st[*a]).sum());
                Ok(())
            })?;
            Ok(out)
        };
        let (outer, inner) = (positions(&part(false))?, positions(&part(true))?);
        let e = match x.elems() {
            Elems::F(v) => Elems::F(
                outer
                    .iter()
                    .map(|o| {
                        let all: Vec<f64> = inner.iter().map(|i| v[o + i]).collect();
                        self.kind.apply_float(&all)
                    })
                    .collect(),
            ),
            Elems::I(v) => {
                let range = x.dtype().int_range().unwrap_or((0, 1));
                let all = |o: &usize| inner.iter().map(|i| v[o + i]).collect::<Vec<_>>();
                Elems::I(outer.iter().map(|o| self.kind.apply_int(&all(o), range)).collect())
            }
            Elems::S(_) => return Err(Diag::error("dtype-mismatch", "strings cannot be reduced")),
        };
        Ok(vec![Tensor::from_elems(x.dtype(), shape, e)?.into()])
    }
}

crate::op_struct! {
    /// Running sums or products along the axis that the second operand, an integer, names. Formed in f64, or wrapping for integers. ONNX `CumSum`, `CumProd`.
    Cumulate {
        /// Products, else sums.
        product: bool,
        /// Whether an element is left out of its own result.
        exclusive: bool,
        /// Whether to run from the end to the start.
        reverse: bool,
    }
}

impl OpDef for Cumulate {
    const NAME: &'static str = "cumulate";
    const INPUTS: (usize, usize) = (2, 2);
    fn infer(&self, cx: &mut InferCx<'_>) -> Result<Vec<Fact>, Diag> {
        let dtype = cx.expect_dtype(0, |d| d.is_int() || d.is_float(), "a number")?;
        cx.expect_dtype(1, is_index, "i32 or i64")?;
        let dims = cx.dims(0)?;
        crate::op::util::expect_equal(&Dim::product(cx.dims(1)?), &Dim::Const(1), "the axis")?;
        if let Some([a]) = cx.const_ints(1).as_deref() {
            crate::op::normalize_axis(*a, dims.len())?;
        }
        Ok(vec![Type::tensor(dtype, dims.to_vec()).into()])
    }
    fn gradient(&self, cx: &mut GradCx<'_, '_>) -> Result<(), Diag> {
        let (dy, axis) = (cx.only_seed()?, cx.input(1)?);
        if self.product {
            return running::products(self, cx);
        }
        let dx = cx.ed.node1(Cumulate { reverse: !self.reverse, ..self.clone() }, &[dy, axis])?;
        cx.give(0, dx)
    }
    fn eval(&self, cx: &mut EvalCx<'_>) -> Result<Vec<Value>, Diag> {
        let x = cx.tensor(0)?;
        let axis = crate::op::normalize_axis(scalar_i64(cx.tensor(1)?, "the axis")?, x.rank())?;
        let (before, n, after) = split_at_axis(x.shape(), axis);
        let line = |b: usize, a: usize| -> Vec<usize> {
            let at = (0..n).map(|i| (b * n + i) * after + a);
            if self.reverse { at.rev().collect() } else { at.collect() }
        };
        let lines = (0..before).flat_map(|b| (0..after).map(move |a| (b, a)));
        let e = match x.elems() {
            Elems::F(v) => {
                let mut out = v.clone();
                for (b, a) in lines {
                    let mut acc = if self.product { 1.0 } else { 0.0 };
                    for p in line(b, a) {
                        let next = if self.product { acc * v[p] } else { acc + v[p] };
                        out[p] = if self.exclusive { acc } else { next };
                        acc = next;
                    }
                }
                Elems::F(out)
            }
            Elems::I(v) => {
                let mut out = v.clone();
                for (b, a) in lines {
                    let mut acc = i128::from(self.product);
                    for p in line(b, a) {
                        // The low 64 bits decide the wrapped result.
                        let next = if self.product {
                            i128::from((acc as i64).wrapping_mul(v[p] as i64))
                        } else {
                            i128::from((acc as i64).wrapping_add(v[p] as i64))
                        };
                        out[p] = if self.exclusive { acc } else { next };
                        acc = next;
                    }
                }
                Elems::I(out)
            }
            Elems::S(_) => return Err(Diag::error("dtype-mismatch", "strings cannot be summed")),
        };
        Ok(vec![Tensor::from_elems(x.dtype(), x.shape().to_vec(), e)?.into()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::checked::{f, fails, i, iota, run};

    fn op(kind: ReduceKind, axes: Option<Vec<usize>>, keepdims: bool) -> Reduce {
        Reduce { kind, axes, keepdims, noop_empty: false }
    }

    #[test]
    fn reduces_axes() {
        let x = iota(&[2, 3]);
        let got = |k, a, keep| run(op(k, a, keep), std::slice::from_ref(&x));
        assert_eq!(got(ReduceKind::Sum, Some(vec![1]), false), f(&[2], &[3.0, 12.0]));
        assert_eq!(got(ReduceKind::Mean, Some(vec![0]), true), f(&[1, 3], &[1.5, 2.5, 3.5]));
        assert_eq!(got(ReduceKind::Max, None, false), f(&[], &[5.0]));
        assert_eq!(got(ReduceKind::Prod, Some(vec![]), false), x);
        let by_operand = Reduce { kind: ReduceKind::Sum, axes: None, keepdims: false, noop_empty: false };
        assert_eq!(run(by_operand.clone(), &[x.clone(), i(&[1], &[-1])]), f(&[2], &[3.0, 12.0]));
        assert_eq!(run(by_operand, &[x.clone(), i(&[0], &[])]), f(&[], &[15.0]));
        let noop = Reduce { kind: ReduceKind::SumSquare, axes: None, keepdims: true, noop_empty: true };
        assert_eq!(run(noop, &[x.clone(), i(&[0], &[])]).to_f64(), [0.0, 1.0, 4.0, 9.0, 16.0, 25.0]);
        assert_eq!(fails(op(ReduceKind::Sum, Some(vec![2]), true), &[x]), "axis-out-of-range");
    }

    #[test]
    fn kinds_and_empty_ones() {
        let x = f(&[2], &[3.0, -4.0]);
        let got = |k, x: &Tensor| run(op(k, None, false), std::slice::from_ref(x)).to_f64()[0];
        assert_eq!(got(ReduceKind::L1, &x), 7.0);
        assert_eq!(got(ReduceKind::L2, &x), 5.0);
        assert!((got(ReduceKind::LogSumExp, &f(&[2], &[1000.0, 1000.0])) - 1000.693).abs() < 1e-3);
        let none = f(&[0], &[]);
        assert_eq!(got(ReduceKind::Sum, &none), 0.0);
        assert_eq!(got(ReduceKind::Prod, &none), 1.0);
        assert_eq!(got(ReduceKind::Max, &none), f64::NEG_INFINITY);
        assert_eq!(got(ReduceKind::LogSum, &none), f64::NEG_INFINITY);
        assert_eq!(got(ReduceKind::LogSumExp, &none), f64::NEG_INFINITY);
        assert_eq!(run(op(ReduceKind::Min, None, false), &[i(&[0], &[])]), i(&[], &[i64::MAX]));
        assert_eq!(run(op(ReduceKind::Sum, None, false), &[i(&[2], &[i64::MAX, 1])]), i(&[], &[i64::MIN]));
        assert_eq!(run(op(ReduceKind::Prod, None, true), &[i(&[3], &[2, 3, 4])]), i(&[1], &[24]));
        assert_eq!(run(op(ReduceKind::Mean, None, false), &[i(&[2], &[-3, 0])]), i(&[], &[-1]));
    }

    #[test]
    fn runs_sums() {
        let x = iota(&[2, 3]);
        let go = |product, exclusive, reverse, axis| {
            run(Cumulate { product, exclusive, reverse }, &[x.clone(), i(&[], &[axis])]).to_f64()
        };
        assert_eq!(go(false, false, false, 1), [0.0, 1.0, 3.0, 3.0, 7.0, 12.0]);
        assert_eq!(go(false, true, true, -1), [3.0, 2.0, 0.0, 9.0, 5.0, 0.0]);
        assert_eq!(go(true, false, false, 0), [0.0, 1.0, 2.0, 0.0, 4.0, 10.0]);
        assert_eq!(
            fails(Cumulate { product: true, exclusive: false, reverse: false }, &[x, i(&[], &[2])]),
            "axis-out-of-range"
        );
    }
}
