//! Parts of tensors.

use crate::diag::Diag;
use crate::dim::Dim;
use crate::dtype::DType;
use crate::graph::{Fact, ValueId};
use crate::op::concat::{Pad, PadMode};
use crate::op::gather::Gather;
use crate::op::generate::Range;
use crate::op::gradient::GradCx;
use crate::op::util::{gather_by, larger, moved, smaller, vector_len};
use crate::op::views::{Expand, Squeeze};
use crate::op::{EvalCx, InferCx, OpDef};
use crate::tensor::{Tensor, Value, strides};

crate::op_struct! {
    /// Part of a tensor. Operands: x, starts, ends, and optionally axes (by default the first ones) and steps (by default 1). Negative starts and ends count from the end; out of range ones are clamped. ONNX `Slice`.
    Slice {}
}

/// Start and length of a slice of an axis of size `n`.
pub fn slice_range(n: i64, start: i64, end: i64, step: i64) -> Result<(i64, i64), Diag> {
    let from_end = |v: i64| if v < 0 { v.saturating_add(n) } else { v };
    let (s, e) = (from_end(start), from_end(end));
    match step {
        0 => Err(Diag::error("slice-malformed", "a step cannot be 0")),
        k if k > 0 => {
            let (s, e) = (s.clamp(0, n), e.clamp(0, n));
            Ok((s, if e > s { (e - s - 1) / k + 1 } else { 0 }))
        }
        k => {
            if n == 0 {
                return Ok((0, 0));
            }
            let (s, e) = (s.clamp(0, n - 1), e.clamp(-1, n - 1));
            Ok((s, if s > e { (s - e - 1) / k.saturating_neg() + 1 } else { 0 }))
        }
    }
}

/// A start or an end within `0..=d`, for positive steps; none when its sign is not known. Axes whose size is not
/// known are shorter than `i32::MAX`, which exporters write for "the end".
fn clamp_symbolic(v: &Dim, d: &Dim, cx: &InferCx<'_>) -> Option<Dim> {
    if let Some(c) = v.as_const() {
        return Some(if c >= i64::from(i32::MAX) {
            d.clone()
        } else if c <= -i64::from(i32::MAX) {
            Dim::Const(0)
        } else if c >= 0 {
            smaller(v, d, cx.symbols)
        } else {
            larger(&d.add(v), &Dim::Const(0), cx.symbols)
        });
    }
    match v.bounds(cx.symbols) {
        (Some(lo), _) if lo >= 0 => Some(smaller(v, d, cx.symbols)),
        (_, Some(hi)) if hi < 0 => Some(larger(&d.add(v), &Dim::Const(0), cx.symbols)),
        _ => None,
    }
}

/// The size of a sliced axis, when it follows.
fn sliced(d: &Dim, start: Option<&Dim>, end: Option<&Dim>, step: i64, cx: &InferCx<'_>) -> Option<Dim> {
    let (s, e) = (start?, end?);
    if let (Some(n), Some(s), Some(e)) = (d.as_const(), s.as_const(), e.as_const()) {
        return slice_range(n, s, e, step).ok().map(|(_, len)| Dim::Const(len));
    }
    if step < 0 {
        let far = -i64::from(i32::MAX);
        let whole =
            s.as_const().is_some_and(|v| v == -1 || v >= -far) && e.as_const().is_some_and(|v| v <= far);
        return whole.then(|| d.ceil_div(&Dim::Const(step.saturating_neg())));
    }
    let (s, e) = (clamp_symbolic(s, d, cx)?, clamp_symbolic(e, d, cx)?);
    let len = larger(&e.sub(&s), &Dim::Const(0), cx.symbols);
    Some(if step == 1 { len } else { len.ceil_div(&Dim::Const(step)) })
}

impl Slice {
    fn axes(rank: usize, count: usize, axes: Option<&[i64]>) -> Result<Vec<usize>, Diag> {
        let bad = |why: String| Diag::error("slice-malformed", why);
        let axes = match axes {
            Some(a) => {
                a.iter().map(|a| crate::op::normalize_axis(*a, rank)).collect::<Result<Vec<_>, _>>()?
            }
            None => (0..count).collect(),
        };
        if axes.len() != count || count > rank {
            return Err(bad(format!("{count} starts, {} axes, rank {rank}", axes.len())));
        }
        let mut sorted = axes.clone();
        sorted.sort_unstable();
        sorted.dedup();
        if sorted.len() != axes.len() {
            return Err(Diag::error("axis-repeated", format!("an axis occurs twice in {axes:?}")));
        }
        Ok(axes)
    }
}

/// The gradient where bounds and sizes are not all known: the numbers of the places along each axis are sliced, too.
fn by_places(cx: &mut GradCx<'_, '_>, mut dy: ValueId, x: ValueId) -> Result<(), Diag> {
    let rank = cx.dims(x)?.len();
    let computed =
        || Diag::error("unsupported-gradient", "`slice` along axes that are computed has no gradient here");
    let axes = match cx.inputs().get(3).copied().flatten() {
        Some(v) => Some(cx.ints(v).ok_or_else(computed)?),
        None => None,
    };
    let [count] = cx.known_dims(cx.input(1)?)?[..] else { return Err(computed()) };
    let axes = Slice::axes(rank, count as usize, axes.as_deref())?;
    let [zero, one] = [0, 1].map(Tensor::scalar_i64);
    let (zero, one) = (cx.ed.constant(zero)?, cx.ed.constant(one)?);
    let first = cx.vector(&[0])?;
    for (k, axis) in axes.into_iter().enumerate() {
        let n = cx.size(x, axis)?;
        let n = cx.ed.node1(Squeeze { axes: vec![0] }, &[n])?;
        let places = cx.ed.node1(Range {}, &[zero, n, one])?;
        let k = cx.vector(&[k as i64])?;
        let mut operands = vec![Some(places)];
        for i in [1, 2, 4] {
            let Some(v) = cx.inputs().get(i).copied().flatten() else { continue };
            let v = cx.ed.node1(Gather { axis: 0 }, &[v, k])?;
            operands.push(Some(cx.cast(v, DType::I64)?));
        }
        if operands.len() == 4 {
            operands.insert(3, Some(first));
        }
        let places = cx.ed.node(Slice {}, &operands)?[0];
        let mut dims = cx.dims(dy)?;
        let places = cx.with_dims(places, vec![dims[axis].clone()])?;
        // Zeros of the shape of the gradient but for this axis, which is that of the operand.
        let shape = [cx.sizes(dy, 0..axis)?, cx.size(x, axis)?, cx.sizes(dy, axis + 1..rank)?];
        let shape = cx.join(&shape)?;
        let nothing = cx.number(0.0, dy)?;
        let like = cx.ed.node1(Expand {}, &[nothing, shape])?;
        dims[axis] = cx.dims(x)?[axis].clone();
        let like = cx.with_dims(like, dims)?;
        dy = cx.scatter_add(dy, axis, places, like)?;
    }
    cx.give(0, dy)
}

impl OpDef for Slice {
    const NAME: &'static str = "slice";
    const INPUTS: (usize, usize) = (3, 5);
    fn infer(&self, cx: &mut InferCx<'_>) -> Result<Vec<Fact>, Diag> {
        let (ty, dims) = (cx.ty(0)?, cx.dims(0)?);
        let mut count = None;
        for i in 1..cx.len() {
            if !cx.has(i) {
                continue;
            }
            cx.expect_dtype(i, crate::op::util::is_index, "i32 or i64")?;
            let [len] = cx.dims(i)? else {
                return Err(Diag::error("shape-mismatch", "starts, ends, axes and steps must be vectors"));
            };
            if let Some(n) = len.as_const() {
                if count.is_some_and(|c| c != n) {
                    return Err(Diag::error(
                        "slice-malformed",
                        "starts, ends, axes and steps differ in length",
                    ));
                }
                count = Some(n);
            }
        }
        let count = count.and_then(|n| usize::try_from(n).ok()).filter(|n| *n <= dims.len());
        let known_axes = match (cx.has(3), cx.const_ints(3), count) {
            // Axes that are known only at run time, of which there are none.
            (true, None, Some(0)) => Some(Vec::new()),
            (true, Some(a), Some(n)) => Some(Slice::axes(dims.len(), n, Some(&a))?),
            (false, _, Some(n)) => Some(Slice::axes(dims.len(), n, None)?),
            (false, _, None) if vector_len(cx.dims(1)?, "the starts").is_ok() => {
                return Err(Diag::error("slice-malformed", "more starts than axes"));
            }
            _ => None,
        };
        let (starts, ends) = (cx.ints(1), cx.ints(2));
        let steps = if cx.has(4) { cx.const_ints(4) } else { Some(vec![1; count.unwrap_or(dims.len())]) };
        if steps.as_ref().is_some_and(|s| s.contains(&0)) {
            return Err(Diag::error("slice-malformed", "a step cannot be 0"));
        }
        let mut out = dims.to_vec();
        match &known_axes {
            Some(axes) => {
                for (k, a) in axes.iter().enumerate() {
                    let pick = |v: &Option<Vec<Dim>>| v.as_ref().and_then(|v| v.get(k).cloned());
                    let step = steps.as_ref().and_then(|s| s.get(k).copied());
                    let (s, e) = (pick(&starts), pick(&ends));
                    let len = step.and_then(|st| sliced(&dims[*a], s.as_ref(), e.as_ref(), st, cx));
                    let max = dims[*a].bounds(cx.symbols).1;
                    out[*a] = len.unwrap_or_else(|| cx.fresh(0, *a, 0, max));
                }
            }
            None => {
                for (a, d) in out.iter_mut().enumerate() {
                    let max = dims[a].bounds(cx.symbols).1;
                    *d = cx.fresh(0, a, 0, max);
                }
            }
        }
        let content = || {
            let c = cx.ints(0)?;
            let (s, e) = (cx.const_ints(1)?, cx.const_ints(2)?);
            let k = steps.as_ref()?;
            known_axes.as_ref()?;
            let [s, e, k] = [s.as_slice(), &e, k].map(|v| v.first().copied());
            let (start, len) = slice_range(c.len() as i64, s?, e?, k?).ok()?;
            (0..len).map(|i| c.get((start + i * k?) as usize).cloned()).collect()
        };
        let content = if count == Some(0) { cx.ints(0) } else { content() };
        Ok(vec![moved(ty, out, || content)?])
    }
    fn gradient(&self, cx: &mut GradCx<'_, '_>) -> Result<(), Diag> {
        let (mut dy, x) = (cx.only_seed()?, cx.input(0)?);
        let list = |cx: &GradCx<'_, '_>, i: usize| match cx.has(i) {
            true => cx.ints(cx.input(i)?).map(Some).ok_or_else(|| cx.no_rule("along axes that are computed")),
            false => Ok(None),
        };
        let dims = cx.dims(x)?;
        if (1..5).any(|i| i != 3 && cx.has(i) && list(cx, i).is_err()) {
            return by_places(cx, dy, x);
        }
        let (starts, ends) = (list(cx, 1)?.unwrap_or_default(), list(cx, 2)?.unwrap_or_default());
        let axes = Slice::axes(dims.len(), starts.len(), list(cx, 3)?.as_deref())?;
        let known: Option<Vec<i64>> = axes.iter().map(|a| dims[*a].as_const()).collect();
        let Some(known) = known else { return by_places(cx, dy, x) };
        let steps = list(cx, 4)?.unwrap_or_else(|| vec![1; starts.len()]);
        // Zeros around what was cut out, and between where it was not every element.
        let (mut before, mut after) = (vec![0; dims.len()], vec![0; dims.len()]);
        for (k, axis) in axes.into_iter().enumerate() {
            let n = known[k];
            let (start, len) = slice_range(n, starts[k], ends[k], steps[k])?;
            if steps[k] == 1 {
                (before[axis], after[axis]) = (start, n - start - len);
            } else {
                let places: Vec<i64> = (0..len).map(|i| start + i * steps[k]).collect();
                dy = cx.scatter_axis(dy, axis, &places, n)?;
            }
        }
        if before.iter().chain(&after).any(|p| *p != 0) {
            let pads = cx.vector(&[before, after].concat())?;
            dy = cx.ed.node1(Pad { mode: PadMode::Constant }, &[dy, pads])?;
        }
        cx.give(0, dy)
    }
    fn eval(&self, cx: &mut EvalCx<'_>) -> Result<Vec<Value>, Diag> {
        let x = cx.tensor(0)?;
        let (starts, ends) = (cx.ints(1)?, cx.ints(2)?);
        let axes = if cx.has(3) { Some(cx.ints(3)?) } else { None };
        let steps = if cx.has(4) { cx.ints(4)? } else { vec![1; starts.len()] };
        if ends.len() != starts.len() || steps.len() != starts.len() {
            return Err(Diag::error("slice-malformed", "starts, ends and steps differ in length"));
        }
        let axes = Slice::axes(x.rank(), starts.len(), axes.as_deref())?;
        let st = strides(x.shape());
        let mut shape = x.shape().to_vec();
        let mut plan: Vec<(i64, i64)> = vec![(0, 1); x.rank()];
        for (k, a) in axes.iter().enumerate() {
            let (start, len) = slice_range(x.shape()[*a] as i64, starts[k], ends[k], steps[k])?;
            shape[*a] = len as usize;
            plan[*a] = (start, if len > 1 { steps[k] } else { 1 });
        }
        let out = gather_by(x, shape, |i| {
            let at = |a: usize| (plan[a].0 + i[a] as i64 * plan[a].1) as usize * st[a];
            Ok((0..i.len()).map(at).sum())
        })?;
        Ok(vec![out.into()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::checked::{f, fails, i, iota, run};

    #[test]
    fn slices_clamp_and_count_from_the_end() {
        let x = iota(&[6]);
        let cut = |s: i64, e: i64, k: i64| {
            let out =
                run(Slice {}, &[x.clone(), i(&[1], &[s]), i(&[1], &[e]), i(&[1], &[-1]), i(&[1], &[k])]);
            out.to_f64()
        };
        assert_eq!(cut(1, 4, 1), [1.0, 2.0, 3.0]);
        assert_eq!(cut(-3, i64::MAX, 2), [3.0, 5.0]);
        assert_eq!(cut(0, -1, 1), [0.0, 1.0, 2.0, 3.0, 4.0]);
        assert_eq!(cut(-1, i64::MIN, -2), [5.0, 3.0, 1.0]);
        assert_eq!(cut(100, 1, -1), [5.0, 4.0, 3.0, 2.0]);
        assert_eq!(cut(4, 2, 1), [] as [f64; 0]);
        assert_eq!(cut(0, 6, i64::MAX), [0.0]);
        assert_eq!(cut(5, i64::MIN, i64::MIN), [5.0]);
        let two = run(Slice {}, &[iota(&[2, 3]), i(&[2], &[1, 0]), i(&[2], &[2, 2])]);
        assert_eq!(two, f(&[1, 2], &[3.0, 4.0]));
        let bad = [x.clone(), i(&[1], &[0]), i(&[1], &[1]), i(&[1], &[0]), i(&[1], &[0])];
        assert_eq!(fails(Slice {}, &bad), "slice-malformed");
        assert_eq!(fails(Slice {}, &[x, i(&[2], &[0, 0]), i(&[2], &[1, 1])]), "slice-malformed");
    }
}
