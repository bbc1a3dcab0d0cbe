//! Joining, splitting and repeating along axes.

use crate::diag::Diag;
use crate::dim::Dim;
use crate::dtype::DType;
use crate::graph::Fact;
use crate::op::gradient::GradCx;
use crate::op::reduce::ReduceKind;
use crate::op::util::{
    expect_equal, fact, flat, gather_by, larger, moved, moved_quant, pick, sizes_of, smaller, split_at_axis,
};
use crate::op::{EvalCx, InferCx, MANY, OpDef};
use crate::tensor::{Tensor, Value, elem_count, strides};
use crate::types::TensorType;

crate::op_struct! {
    /// The operands one after another along `axis`; all other dims are equal. ONNX `Concat`.
    Concat {
        /// Axis, below the rank.
        axis: usize,
    }
}

impl OpDef for Concat {
    const NAME: &'static str = "concat";
    const INPUTS: (usize, usize) = (1, MANY);
    fn infer(&self, cx: &mut InferCx<'_>) -> Result<Vec<Fact>, Diag> {
        let dtype = cx.expect_same_dtype(0)?;
        let mut out = cx.dims(0)?.to_vec();
        if self.axis >= out.len() {
            return Err(Diag::error(
                "axis-out-of-range",
                format!("axis {} of a tensor of rank {}", self.axis, out.len()),
            ));
        }
        let mut content = cx.ints(0);
        for i in 1..cx.len() {
            if !cx.has(i) {
                return Err(Diag::error("arity", format!("operand {i} is missing")));
            }
            let dims = cx.dims(i)?;
            if dims.len() != out.len() {
                return Err(Diag::error("shape-mismatch", "tensors of different ranks cannot be joined"));
            }
            for (axis, (d, o)) in dims.iter().zip(out.iter_mut()).enumerate() {
                if axis == self.axis {
                    *o = o.add(d);
                    continue;
                }
                expect_equal(d, o, "dims of joined tensors")?;
                if d.as_const().is_some() {
                    *o = d.clone();
                }
            }
            content = content.zip(cx.ints(i)).map(|(mut a, b)| {
                a.extend(b);
                a
            });
        }
        let quant = moved_quant(cx.ty(0)?)?;
        let ty = TensorType { dtype, shape: None, quant };
        Ok(vec![moved(&ty, out, || content)?])
    }
    fn gradient(&self, cx: &mut GradCx<'_, '_>) -> Result<(), Diag> {
        let dy = cx.only_seed()?;
        let parts = cx.len();
        let mut sizes = Vec::new();
        for i in 0..parts {
            let part = cx.input(i)?;
            sizes.push(cx.size(part, self.axis)?);
        }
        let sizes = cx.ed.node1(Concat { axis: 0 }, &sizes)?;
        let all = cx.ed.node(Split { axis: self.axis, parts }, &[Some(dy), Some(sizes)])?;
        all.into_iter().enumerate().try_for_each(|(i, d)| cx.give(i, d))
    }
    fn eval(&self, cx: &mut EvalCx<'_>) -> Result<Vec<Value>, Diag> {
        let parts = (0..cx.inputs.len()).map(|i| cx.tensor(i)).collect::<Result<Vec<_>, _>>()?;
        Ok(vec![concat(&parts, self.axis)?.into()])
    }
}

/// The tensors one after another along an axis.
pub fn concat(parts: &[&Tensor], axis: usize) -> Result<Tensor, Diag> {
    let first = parts.first().ok_or_else(|| Diag::error("arity", "nothing to join"))?;
    let mut shape = first.shape().to_vec();
    let bad = || Diag::error("shape-mismatch", "tensors to be joined differ in dims or type");
    *shape.get_mut(axis).ok_or_else(bad)? = 0;
    for p in parts {
        let same = |a: usize| a == axis || p.shape()[a] == shape[a];
        if p.rank() != shape.len() || p.dtype() != first.dtype() || !(0..shape.len()).all(same) {
            return Err(bad());
        }
        shape[axis] += p.shape()[axis];
    }
    elem_count(&shape)?;
    let before: usize = shape[..axis].iter().product();
    let rows = |p: &Tensor| {
        let (_, n, after) = split_at_axis(p.shape(), axis);
        n * after
    };
    if first.dtype() == DType::Str {
        let mut out = Vec::new();
        for b in 0..before {
            for p in parts {
                out.extend_from_slice(&p.strings()[b * rows(p)..(b + 1) * rows(p)]);
            }
        }
        return Tensor::from_strings(shape, out);
    }
    let size = first.dtype().size();
    let mut out = Vec::with_capacity(elem_count(&shape)? * size);
    for b in 0..before {
        for p in parts {
            out.extend_from_slice(&p.bytes()[b * rows(p) * size..(b + 1) * rows(p) * size]);
        }
    }
    Tensor::from_bytes(first.dtype(), shape, out.into())
}

crate::op_struct! {
    /// Consecutive parts along `axis`. The second operand lists their sizes; without it all have the size rounded up but the last ones, which take what is left. ONNX `Split`.
    Split {
        /// Axis, below the rank.
        axis: usize,
        /// How many parts.
        parts: usize,
    }
}

impl OpDef for Split {
    const NAME: &'static str = "split";
    const INPUTS: (usize, usize) = (1, 2);
    fn infer(&self, cx: &mut InferCx<'_>) -> Result<Vec<Fact>, Diag> {
        let (ty, dims) = (cx.ty(0)?, cx.dims(0)?);
        let n = dims.get(self.axis).cloned().ok_or_else(|| {
            Diag::error("axis-out-of-range", format!("axis {} of a tensor of rank {}", self.axis, dims.len()))
        })?;
        if self.parts == 0 || self.parts > 65_536 {
            return Err(Diag::error("split-malformed", format!("{} parts", self.parts)));
        }
        let mut sizes = Vec::new();
        if cx.has(1) {
            cx.expect_dtype(1, |d| d == DType::I64, "i64")?;
            let known = cx.ints(1);
            if let [len] = cx.dims(1)? {
                expect_equal(len, &Dim::from(self.parts), "the number of parts")?;
            } else {
                return Err(Diag::error("shape-mismatch", "the sizes of the parts must be a vector"));
            }
            match known {
                Some(s) => {
                    let sum = s.iter().fold(Dim::Const(0), |a, d| a.add(d));
                    expect_equal(&sum, &n, "the sum of the parts and the axis")?;
                    if let Some(v) = s.iter().filter_map(Dim::as_const).find(|v| *v < 0) {
                        return Err(Diag::error("split-malformed", format!("a part of size {v}")));
                    }
                    if s.len() != self.parts {
                        return Err(Diag::error(
                            "split-malformed",
                            format!("{} sizes, {} parts", s.len(), self.parts),
                        ));
                    }
                    sizes = s;
                }
                None => {
                    let max = n.bounds(cx.symbols).1;
                    for k in 0..self.parts {
                        sizes.push(cx.fresh(k, self.axis, 0, max));
                    }
                }
            }
        } else {
            let chunk = n.ceil_div(&Dim::from(self.parts));
            let whole = chunk.mul(&Dim::from(self.parts)) == n;
            for k in 0..self.parts {
                if whole {
                    sizes.push(chunk.clone());
                    continue;
                }
                let left = larger(&n.sub(&chunk.mul(&Dim::from(k))), &Dim::Const(0), cx.symbols);
                sizes.push(smaller(&chunk, &left, cx.symbols));
            }
        }
        let content = cx.ints(0);
        let mut at = Some(0usize);
        let mut out = Vec::new();
        for s in sizes {
            let mut d = dims.to_vec();
            let len = s.as_const().and_then(|v| usize::try_from(v).ok());
            let part = || content.as_ref()?.get(at?..at?.checked_add(len?)?).map(<[Dim]>::to_vec);
            d[self.axis] = s.clone();
            out.push(moved(ty, d, part)?);
            at = at.zip(len).and_then(|(a, l)| a.checked_add(l));
        }
        Ok(out)
    }
    fn gradient(&self, cx: &mut GradCx<'_, '_>) -> Result<(), Diag> {
        let mut seeds = Vec::new();
        for k in 0..cx.outputs() {
            let part = cx.output(k);
            seeds.push(match cx.seed(k) {
                Some(dy) => dy,
                None => cx.zeros(part)?,
            });
        }
        let dx = cx.ed.node1(Concat { axis: self.axis }, &seeds)?;
        cx.give(0, dx)
    }
    fn eval(&self, cx: &mut EvalCx<'_>) -> Result<Vec<Value>, Diag> {
        let x = cx.tensor(0)?;
        let bad = || Diag::error("split-malformed", "the parts do not make up the axis");
        let n = *x.shape().get(self.axis).ok_or_else(bad)?;
        let sizes = if cx.has(1) {
            sizes_of(&cx.ints(1)?)?
        } else {
            let chunk = n.div_ceil(self.parts.max(1));
            (0..self.parts).map(|k| n.saturating_sub(k * chunk).min(chunk)).collect()
        };
        let sum = sizes.iter().try_fold(0usize, |a, s| a.checked_add(*s));
        if sizes.len() != self.parts || sum != Some(n) {
            return Err(bad());
        }
        let st = strides(x.shape());
        let mut at = 0;
        let mut out = Vec::new();
        for s in sizes {
            let mut shape = x.shape().to_vec();
            shape[self.axis] = s;
            let start = at * st[self.axis];
            out.push(gather_by(x, shape, |i| Ok(start + flat(i, &st)))?.into());
            at += s;
        }
        Ok(out)
    }
}

crate::op_struct! {
    /// The tensor repeated along every axis as often as the second operand lists. ONNX `Tile`.
    Tile {}
}

impl OpDef for Tile {
    const NAME: &'static str = "tile";
    const INPUTS: (usize, usize) = (2, 2);
    fn infer(&self, cx: &mut InferCx<'_>) -> Result<Vec<Fact>, Diag> {
        cx.expect_dtype(1, |d| d == DType::I64, "i64")?;
        let (ty, dims) = (cx.ty(0)?, cx.dims(0)?);
        if let [len] = cx.dims(1)? {
            expect_equal(len, &Dim::from(dims.len()), "the number of repeats and the rank")?;
        } else {
            return Err(Diag::error("shape-mismatch", "the repeats must be a vector"));
        }
        let out: Vec<Dim> = match cx.ints(1) {
            Some(r) => {
                if r.len() != dims.len() || r.iter().filter_map(Dim::as_const).any(|v| v < 0) {
                    return Err(Diag::error(
                        "tile-malformed",
                        "one repeat from 0 on is needed for each axis",
                    ));
                }
                dims.iter().zip(&r).map(|(d, k)| d.mul(k)).collect()
            }
            None => (0..dims.len()).map(|a| cx.fresh(0, a, 0, None)).collect(),
        };
        let repeat = || {
            let (c, r) = (cx.ints(0)?, cx.const_ints(1)?);
            let k = r.first().copied().unwrap_or(1).clamp(0, 128) as usize;
            Some(std::iter::repeat_n(c, k).flatten().collect::<Vec<_>>())
                .filter(|c| out_len(&out) == Some(c.len()))
        };
        Ok(vec![moved(ty, out.clone(), repeat)?])
    }
    fn gradient(&self, cx: &mut GradCx<'_, '_>) -> Result<(), Diag> {
        let (dy, x) = (cx.only_seed()?, cx.input(0)?);
        let repeats = cx.ints(cx.input(1)?).ok_or_else(|| cx.no_rule("with repeats that are computed"))?;
        let dims = cx.known_dims(x)?;
        // [repeat, dim] of every axis, summed over the repeats.
        let apart: Vec<i64> = repeats.iter().zip(&dims).flat_map(|(r, d)| [*r, *d]).collect();
        let apart = cx.reshape(dy, &apart)?;
        let axes: Vec<usize> = (0..dims.len()).map(|a| 2 * a).collect();
        let dx = cx.reduce(ReduceKind::Sum, apart, &axes, false)?;
        cx.give(0, dx)
    }
    fn eval(&self, cx: &mut EvalCx<'_>) -> Result<Vec<Value>, Diag> {
        let x = cx.tensor(0)?;
        let r = sizes_of(&cx.ints(1)?)?;
        if r.len() != x.rank() {
            return Err(Diag::error("tile-malformed", "one repeat is needed for each axis"));
        }
        let shape = x.shape().iter().zip(&r).map(|(d, k)| d.checked_mul(*k)).collect::<Option<Vec<_>>>();
        let shape = shape.ok_or_else(|| Diag::error("tensor-too-large", "the repeats are too large"))?;
        let st = strides(x.shape());
        let out =
            gather_by(x, shape, |i| Ok(i.iter().zip(x.shape()).zip(&st).map(|((i, d), s)| i % d * s).sum()))?;
        Ok(vec![out.into()])
    }
}

fn out_len(dims: &[Dim]) -> Option<usize> {
    dims.first().map_or(Some(1), |d| d.as_const().and_then(|v| usize::try_from(v).ok()))
}

crate::attr_enum! {
    /// Where the elements outside the operand come from.
    PadMode {
        /// The value of the third operand, or 0.
        Constant = "constant",
        /// Mirrored at the first and last element, which are not repeated.
        Reflect = "reflect",
        /// The nearest element.
        Edge = "edge",
        /// From the other end, as if the tensor were repeated.
        Wrap = "wrap",
    }
}

crate::op_struct! {
    /// The tensor with elements added before and after along axes. Operands: x; pads, the starts of all axes and then their ends, negative ones remove elements; optionally the value, and the axes, by default all. ONNX `Pad`.
    Pad {
        /// Where new elements come from.
        mode: PadMode,
    }
}

impl Pad {
    /// The start and the end pad of each axis.
    fn pads(rank: usize, pads: &[i64], axes: Option<&[i64]>) -> Result<Vec<(i64, i64)>, Diag> {
        let axes: Vec<usize> = match axes {
            Some(a) => a.iter().map(|a| crate::op::normalize_axis(*a, rank)).collect::<Result<_, _>>()?,
            None => (0..rank).collect(),
        };
        if pads.len() != 2 * axes.len() {
            return Err(Diag::error(
                "pad-malformed",
                format!("{} pads for {} axes; two are needed for each", pads.len(), axes.len()),
            ));
        }
        let mut out = vec![(0, 0); rank];
        for (k, a) in axes.iter().enumerate() {
            out[*a] = (pads[k], pads[k + axes.len()]);
        }
        Ok(out)
    }
    /// The index in the operand of index `i - lo`, or none for a constant.
    fn source(&self, i: i64, n: i64) -> Result<Option<i64>, Diag> {
        if (0..n).contains(&i) {
            return Ok(Some(i));
        }
        if self.mode == PadMode::Constant {
            return Ok(None);
        }
        if n == 0 {
            return Err(Diag::error("pad-malformed", "nothing to repeat along an axis of size 0"));
        }
        Ok(Some(match self.mode {
            PadMode::Constant => return Ok(None),
            PadMode::Edge => i.clamp(0, n - 1),
            PadMode::Wrap => i.rem_euclid(n),
            PadMode::Reflect if n == 1 => 0,
            PadMode::Reflect => {
                let k = i.rem_euclid(2 * (n - 1));
                if k < n { k } else { 2 * (n - 1) - k }
            }
        }))
    }
}

impl OpDef for Pad {
    const NAME: &'static str = "pad";
    const INPUTS: (usize, usize) = (2, 4);
    fn infer(&self, cx: &mut InferCx<'_>) -> Result<Vec<Fact>, Diag> {
        cx.expect_dtype(1, |d| d == DType::I64, "i64")?;
        let (ty, dims) = (cx.ty(0)?, cx.dims(0)?);
        if cx.has(2) && cx.dtype(2)? != ty.dtype {
            return Err(Diag::error("dtype-mismatch", format!("a pad of {} for {}", cx.dtype(2)?, ty.dtype)));
        }
        let axes = match (cx.has(3), cx.const_ints(3)) {
            (true, Some(a)) => Some(
                a.iter().map(|a| crate::op::normalize_axis(*a, dims.len())).collect::<Result<Vec<_>, _>>()?,
            ),
            (true, None) => None,
            (false, _) => Some((0..dims.len()).collect()),
        };
        let mut out = dims.to_vec();
        match (axes, cx.ints(1)) {
            (Some(axes), Some(p)) => {
                if p.len() != 2 * axes.len() {
                    return Err(Diag::error(
                        "pad-malformed",
                        format!("{} pads for {} axes; two are needed for each", p.len(), axes.len()),
                    ));
                }
                for (k, a) in axes.iter().enumerate() {
                    let d = dims[*a].add(&p[k]).add(&p[k + axes.len()]);
                    if d.as_const().is_some_and(|v| v < 0) {
                        return Err(Diag::error(
                            "pad-malformed",
                            format!("axis {a} would have a negative size"),
                        ));
                    }
                    out[*a] = d;
                }
            }
            (Some(axes), None) => {
                for a in axes {
                    out[a] = cx.fresh(0, a, 0, None);
                }
            }
            (None, _) => {
                for (a, d) in out.iter_mut().enumerate() {
                    *d = cx.fresh(0, a, 0, None);
                }
            }
        }
        Ok(vec![fact(ty.dtype, out)])
    }
    fn gradient(&self, cx: &mut GradCx<'_, '_>) -> Result<(), Diag> {
        let (mut dy, x) = (cx.only_seed()?, cx.input(0)?);
        let rank = cx.dims(x)?.len();
        let computed = "with pads that are computed";
        let axes = match cx.has(3) {
            true => Some(cx.ints(cx.input(3)?).ok_or_else(|| cx.no_rule(computed))?),
            false => None,
        };
        let pads = cx.ints(cx.input(1)?).ok_or_else(|| cx.no_rule(computed))?;
        let pads = Pad::pads(rank, &pads, axes.as_deref())?;
        if cx.wants(2) && self.mode == PadMode::Constant {
            let (nothing, one) = (cx.zeros(x)?, cx.number(1.0, x)?);
            let operands = [Some(nothing), cx.inputs()[1], Some(one), cx.inputs().get(3).copied().flatten()];
            let padding = cx.ed.node(self.clone(), &operands)?[0];
            let d = cx.mul(dy, padding)?;
            let d = cx.reduce(ReduceKind::Sum, d, &(0..rank).collect::<Vec<_>>(), false)?;
            let value = cx.input(2)?;
            let d = cx.reshape_like(d, value)?;
            cx.give(2, d)?;
        }
        if self.mode == PadMode::Constant {
            let back: Vec<i64> = pads.iter().map(|p| -p.0).chain(pads.iter().map(|p| -p.1)).collect();
            let back = cx.vector(&back)?;
            let dx = cx.ed.node1(Pad { mode: PadMode::Constant }, &[dy, back])?;
            return cx.give(0, dx);
        }
        // Axis by axis, the last one first, as each copies what those before it made.
        for (axis, n) in cx.known_dims(x)?.into_iter().enumerate() {
            let (before, after) = pads[axis];
            if (before, after) == (0, 0) {
                continue;
            }
            let places: Vec<i64> = (-before..n + after)
                .map(|i| Ok(self.source(i, n)?.unwrap_or(0)))
                .collect::<Result<_, Diag>>()?;
            dy = cx.scatter_axis(dy, axis, &places, n)?;
        }
        cx.give(0, dy)
    }
    fn eval(&self, cx: &mut EvalCx<'_>) -> Result<Vec<Value>, Diag> {
        let x = cx.tensor(0)?;
        let axes = if cx.has(3) { Some(cx.ints(3)?) } else { None };
        let pads = Pad::pads(x.rank(), &cx.ints(1)?, axes.as_deref())?;
        let mut shape = Vec::new();
        for (d, (lo, hi)) in x.shape().iter().zip(&pads) {
            let n = (*d as i64).checked_add(*lo).and_then(|n| n.checked_add(*hi)).unwrap_or(-1);
            shape.push(usize::try_from(n).map_err(|_| Diag::error("pad-malformed", "a size is negative"))?);
        }
        elem_count(&shape)?;
        // The value stands behind the elements of the operand.
        let value = match cx.opt_tensor(2)? {
            Some(v) if v.len() == 1 => v.reshaped(&[1])?,
            Some(_) => return Err(Diag::error("pad-malformed", "the value must be one element")),
            None if x.dtype() == DType::Str => Tensor::from_strings(vec![1], vec![String::new()])?,
            None => Tensor::scalar(x.dtype(), 0.0)?.reshaped(&[1])?,
        };
        let table = concat(&[&x.reshaped(&[x.len()])?, &value], 0)?;
        let st = strides(x.shape());
        let mut pos = Vec::new();
        crate::op::util::for_each_index(&shape, |index| {
            let mut at = Some(0);
            for (k, i) in index.iter().enumerate() {
                let s = self.source(*i as i64 - pads[k].0, x.shape()[k] as i64)?;
                at = at.zip(s).map(|(a, s)| a + s as usize * st[k]);
            }
            pos.push(at.unwrap_or(x.len()));
            Ok(())
        })?;
        Ok(vec![pick(&table, shape, &pos)?.into()])
    }
}

#[cfg(test)]
#[path = "concat_tests.rs"]
mod tests;
