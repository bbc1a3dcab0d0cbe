//! Shapes, views and copies: what moves elements by the dims alone.

use super::cx::{LowerCx, Opnd};
use super::launch::Launch;
use super::nest::{Block, bits_elem, copy_block, fill, for_indices, over, stride_vals, zero};
use super::strings::own_symbols;
use crate::kernel::{Access, Buf, Builder, CmpOp, Val};
use planish_ir::op::concat::{Pad, PadMode, Split};
use planish_ir::op::normalize_axis;
use planish_ir::op::views::Transpose;
use planish_ir::{DType, Diag, Dim};

/// Whether everything the node gives is a small integer tensor that follows from dims; then it is written from them.
pub(super) fn lower_content(cx: &mut LowerCx<'_>) -> Result<bool, Diag> {
    let outputs = cx.node().outputs.clone();
    let mut all = Vec::new();
    for v in &outputs {
        let fact = &cx.graph.value(*v).fact;
        match (&fact.content, fact.ty.as_tensor()) {
            (Some(c), Some(t)) if t.dtype == DType::I64 => all.push(c.clone()),
            _ => return Ok(false),
        }
    }
    // A dim that only data tell is bound, and checked against the content, by the operation itself.
    if all.is_empty() || outputs.iter().any(|v| !own_symbols(cx, *v).is_empty()) {
        return Ok(false);
    }
    for (k, content) in all.into_iter().enumerate() {
        let known: Option<Vec<i64>> = content.iter().map(Dim::as_const).collect();
        if let Some(v) = known {
            let (dtype, dims) = cx.output_type(k)?;
            let bytes: Vec<u8> = v.iter().flat_map(|x| x.to_le_bytes()).collect();
            let w = cx.weight(dtype, &dims, bytes.into());
            cx.set_output(k, w.slot)?;
            continue;
        }
        let y = cx.output(k)?;
        let n = content.len();
        cx.launch(Launch::new("dims").write(&y).dims(&content), move |k| {
            let (y, v) = (k.buf(0), k.dims(0, n));
            k.b.parallel_for(|b, _| {
                for (i, v) in v.into_iter().enumerate() {
                    b.store(y, i as i64, v);
                }
            });
        })?;
    }
    Ok(true)
}

/// Dims that infer could not tell are given by the operand's type.
pub(super) fn lower_shape(cx: &mut LowerCx<'_>) -> Result<(), Diag> {
    cx.input(0)?;
    if lower_content(cx)? { Ok(()) } else { Err(Diag::error("unsupported-rank", "the rank is not known")) }
}

/// Squeeze, unsqueeze, flatten and bit-cast: the same bytes.
pub(super) fn lower_view(cx: &mut LowerCx<'_>) -> Result<(), Diag> {
    let x = cx.input(0)?;
    let (_, dims) = cx.output_type(0)?;
    cx.require_equal(&x.elems(), &Dim::product(&dims), "an axis to be removed has not size 1");
    cx.alias(0, &x)
}

pub(super) fn lower_transpose(cx: &mut LowerCx<'_>, op: &Transpose) -> Result<(), Diag> {
    let x = cx.input(0)?;
    let st = x.strides();
    let y = cx.output(0)?;
    let src = op.perm.iter().map(|p| st[*p].clone()).collect();
    let block = Block { dims: y.dims.clone(), src: (Dim::Const(0), src), dst: (Dim::Const(0), y.strides()) };
    copy_block(cx, "transpose", &x, &y, block, None)
}

pub(super) fn lower_expand(cx: &mut LowerCx<'_>) -> Result<(), Diag> {
    let x = cx.input(0)?;
    let (_, out) = cx.output_type(0)?;
    if cx.ints(1).is_none() {
        let spec = cx.input(1)?;
        bind_expanded(cx, &x, &spec, &out)?;
    }
    let y = cx.output(0)?;
    // Element-wise lowering decides at run time which axes are broadcast.
    super::elementwise::emit(cx, "expand", &[x], &[y], 1, &|_, v| v.to_vec())
}

/// Binds the dims of a broadcast against a shape known only at run time.
fn bind_expanded(cx: &mut LowerCx<'_>, x: &Opnd, spec: &Opnd, out: &[Dim]) -> Result<(), Diag> {
    let rank = out.len();
    let n = spec.dims.first().and_then(Dim::as_const).unwrap_or(0) as usize;
    let dims = cx.temp(DType::I64, &[Dim::from(rank)]);
    let from = x.dims.clone();
    let own = from.len();
    cx.launch(Launch::new("expand_dims").read(spec).write(&dims).dims(&from), move |k| {
        let (spec, out, have) = (k.buf(0), k.buf(1), k.dims(0, own));
        k.b.parallel_for(|b, _| {
            for a in 0..rank {
                let mine = (a + own).checked_sub(rank).map(|i| have[i]);
                let want = (a + n).checked_sub(rank).map(|i| b.load(spec, i as i64, 1));
                let d = match (mine, want) {
                    (Some(m), Some(w)) => {
                        let one = b.cmp(CmpOp::Eq, w, 1);
                        b.select(one, m, w)
                    }
                    (Some(v), None) | (None, Some(v)) => v,
                    (None, None) => b.i64(1),
                };
                b.store(out, a as i64, d);
            }
        });
    })?;
    bind_fresh(cx, out, &dims, 0, "a dim cannot be broadcast")?;
    Ok(())
}

pub(super) fn lower_split(cx: &mut LowerCx<'_>, op: &Split) -> Result<(), Diag> {
    let x = cx.input(0)?;
    let types: Vec<Vec<Dim>> =
        (0..op.parts).map(|k| cx.output_type(k).map(|t| t.1)).collect::<Result<_, _>>()?;
    if cx.has(1) && cx.ints(1).is_none() {
        let sizes = cx.input(1)?;
        let dims: Vec<Dim> = types.iter().map(|t| t[op.axis].clone()).collect();
        bind_fresh(cx, &dims, &sizes, 0, "the parts do not make up the axis")?;
    }
    let total = types.iter().fold(Dim::Const(0), |s, t| s.add(&t[op.axis]));
    cx.require_equal(&total, &x.dims[op.axis], "the parts do not make up the axis");
    let st = x.strides();
    let mut at = Dim::Const(0);
    for (k, t) in types.iter().enumerate() {
        let start = at.mul(&st[op.axis]);
        at = at.add(&t[op.axis]);
        if Dim::product(&t[..op.axis]).is(1) {
            // Parts of the outermost axis are views.
            let slot = cx.view(&x, x.dtype, t, &start.mul(&Dim::from(x.dtype.size())));
            cx.set_output(k, slot)?;
            continue;
        }
        if !cx.output_used(k) {
            let slot = cx.view(&x, x.dtype, t, &Dim::Const(0));
            cx.set_output(k, slot)?;
            continue;
        }
        let y = cx.output(k)?;
        let block = Block { dims: t.clone(), src: (start, st.clone()), dst: (Dim::Const(0), y.strides()) };
        copy_block(cx, "split", &x, &y, block, None)?;
    }
    Ok(())
}

pub(super) fn lower_tile(cx: &mut LowerCx<'_>) -> Result<(), Diag> {
    let x = cx.input(0)?;
    let (_, out) = cx.output_type(0)?;
    let Some(repeats) = cx.ints(1) else {
        let spec = cx.input(1)?;
        let (rank, from) = (out.len(), x.dims.clone());
        cx.require_equal(&spec.elems(), &rank.into(), "there must be a repeat for each axis");
        let dims = cx.temp(DType::I64, &[Dim::from(rank)]);
        cx.launch(Launch::new("tile_dims").read(&spec).write(&dims).dims(&from), move |k| {
            let (spec, out, have) = (k.buf(0), k.buf(1), k.dims(0, rank));
            k.b.parallel_for(|b, _| {
                for (a, d) in have.iter().enumerate() {
                    let r = b.load(spec, a as i64, 1);
                    let n = b.mul(r, *d);
                    b.store(out, a as i64, n);
                }
            });
        })?;
        bind_fresh(cx, &out, &dims, 0, "a repeat is out of range")?;
        let y = cx.output(0)?;
        let elem = bits_elem(x.dtype);
        let l = Launch::new("tile").raw(&x, elem, Access::Read).raw(&y, elem, Access::Write);
        return cx.launch(over(cx.chunk(), l.dims(&x.dims), &y.dims, 4), move |k| {
            let (x, y, from) = (k.buf(0), k.buf(1), k.dims(0, rank));
            let st = stride_vals(&mut k.b, &from);
            for_indices(k, rank, rank, |b, index, flat| {
                let mut at = b.i64(0);
                for a in 0..rank {
                    let i = b.srem(index[a], from[a]);
                    at = b.at(at, i, st[a]);
                }
                let v = b.load(x, at, 1);
                b.store(y, flat, v);
            });
        });
    };
    let y = cx.output(0)?;
    // Every axis is a repeat and the axis itself.
    let (st, dst) = (x.strides(), y.strides());
    let mut block = Block { dims: vec![], src: (Dim::Const(0), vec![]), dst: (Dim::Const(0), vec![]) };
    for a in 0..x.dims.len() {
        block.dims.extend([repeats[a].clone(), x.dims[a].clone()]);
        block.src.1.extend([Dim::Const(0), st[a].clone()]);
        block.dst.1.extend([dst[a].mul(&x.dims[a]), dst[a].clone()]);
    }
    copy_block(cx, "tile", &x, &y, block, None)
}

// ---- slice ----

/// Start, within the axis, and step of a slice whose numbers follow from dims.
fn known_start(n: &Dim, start: &Dim, step: i64, cx: &LowerCx<'_>) -> Option<Dim> {
    let top = if step > 0 { n.clone() } else { n.sub(&Dim::Const(1)) };
    match start.as_const() {
        Some(s) if s < 0 => Some(n.add(start).larger(&Dim::Const(0))),
        Some(_) => Some(start.smaller(&top)),
        None => match start.bounds(&cx.graph.symbols) {
            (Some(lo), _) if lo >= 0 => Some(start.smaller(&top)),
            (_, Some(hi)) if hi < 0 => Some(n.add(start).larger(&Dim::Const(0))),
            _ => None,
        },
    }
}

pub(super) fn lower_slice(cx: &mut LowerCx<'_>) -> Result<(), Diag> {
    let x = cx.input(0)?;
    let (_, out) = cx.output_type(0)?;
    let st = x.strides();
    if let Some((offset, steps)) = static_slice(cx, &x)?
        && !out.iter().any(|d| is_fresh(cx, d))
    {
        let whole = offset.is(0) && steps.iter().all(|s| *s == 1);
        if whole && out == x.dims {
            return cx.alias(0, &x);
        }
        let contiguous = steps.iter().all(|s| *s == 1) && (1..out.len()).all(|a| out[a] == x.dims[a]);
        if contiguous {
            let slot = cx.view(&x, x.dtype, &out, &offset.mul(&Dim::from(x.dtype.size())));
            return cx.set_output(0, slot);
        }
        let y = cx.output(0)?;
        let src = st.iter().zip(&steps).map(|(s, k)| s.mul(&Dim::Const(*k))).collect();
        let block = Block { dims: out, src: (offset, src), dst: (Dim::Const(0), y.strides()) };
        return copy_block(cx, "slice", &x, &y, block, None);
    }
    let plan = plan_slice(cx, &x)?;
    let rank = x.dims.len();
    bind_fresh(cx, &out, &plan, 1 + rank, "the size of a slice is out of range")?;
    let y = cx.output(0)?;
    // Strides come from the plan; 1 marks them as unknown here.
    let src = vec![Dim::Const(1); rank];
    let block = Block { dims: out, src: (Dim::Const(0), src), dst: (Dim::Const(0), y.strides()) };
    copy_block(cx, "slice", &x, &y, block, Some(&plan))
}

/// Whether a dim of a result is a symbol that this node has to bind: one that no operand has.
pub(super) fn is_fresh(cx: &LowerCx<'_>, d: &Dim) -> bool {
    let Some(s) = d.as_symbol() else { return false };
    let has = |v: &planish_ir::ValueId| {
        let fact = &cx.graph.value(*v).fact;
        let dims = fact.ty.as_tensor().and_then(|t| t.shape.as_deref()).unwrap_or(&[]);
        dims.iter().chain(fact.content.iter().flatten()).any(|d| d.symbols().contains(&s))
    };
    !cx.node().inputs.iter().flatten().any(has)
}

/// Binds result dims that are this node's own to elements of `plan` from `first` on.
fn bind_fresh(cx: &mut LowerCx<'_>, out: &[Dim], plan: &Opnd, first: usize, what: &str) -> Result<(), Diag> {
    for (a, d) in out.iter().enumerate() {
        if is_fresh(cx, d) {
            cx.bind(d, plan, (first + a) as u32, &Dim::Const(0), &Dim::Const(1 << 40), what)?;
        }
    }
    Ok(())
}

/// The offset in elements and the step of every axis, if they follow from dims.
fn static_slice(cx: &LowerCx<'_>, x: &Opnd) -> Result<Option<(Dim, Vec<i64>)>, Diag> {
    let rank = x.dims.len();
    let (Some(starts), true) = (cx.ints(1), cx.ints(2).is_some()) else { return Ok(None) };
    let axes = match (cx.has(3), cx.const_ints(3)) {
        (false, _) => (0..starts.len() as i64).collect(),
        (true, Some(a)) => a,
        (true, None) => return Ok(None),
    };
    let steps = match (cx.has(4), cx.const_ints(4)) {
        (false, _) => vec![1; starts.len()],
        (true, Some(s)) => s,
        (true, None) => return Ok(None),
    };
    let st = x.strides();
    let (mut offset, mut all) = (Dim::Const(0), vec![1; rank]);
    for ((a, s), k) in axes.iter().zip(&starts).zip(&steps) {
        let a = normalize_axis(*a, rank)?;
        let Some(start) = known_start(&x.dims[a], s, *k, cx) else { return Ok(None) };
        offset = offset.add(&start.mul(&st[a]));
        all[a] = *k;
    }
    Ok(Some((offset, all)))
}

/// A kernel that works out a slice: offset, stride of every axis, size of every axis.
fn plan_slice(cx: &mut LowerCx<'_>, x: &Opnd) -> Result<Opnd, Diag> {
    let rank = x.dims.len();
    let plan = cx.temp(DType::I64, &[Dim::from(1 + 2 * rank)]);
    let (starts, ends) = (cx.input(1)?, cx.input(2)?);
    let (axes, steps) = (cx.opt_input(3)?, cx.opt_input(4)?);
    let count = starts.elems();
    for o in [Some(&ends), axes.as_ref(), steps.as_ref()].into_iter().flatten() {
        cx.require_equal(&o.elems(), &count, "starts, ends, axes and steps of a slice differ in number");
    }
    let error = cx.error("a slice has a step of 0 or an axis out of range");
    let mut l = Launch::new("slice_plan").write(&plan).read(&starts).read(&ends);
    l = [&axes, &steps].into_iter().flatten().fold(l, |l, o| l.read(o));
    let l = l.dims(&x.dims).dim(&count).raises(error);
    let types = [starts.dtype, ends.dtype];
    let axes_type = axes.as_ref().map(|o| o.dtype);
    let steps_type = steps.as_ref().map(|o| o.dtype);
    cx.launch(l, move |k| {
        let (plan, starts, ends) = (k.buf(0), k.buf(1), k.buf(2));
        let axes = axes_type.map(|t| (t, k.buf(3)));
        let steps = steps_type.map(|t| (t, k.buf(3 + usize::from(axes.is_some()))));
        let (dims, count, error) = (k.dims(0, rank), k.dim(rank), k.error(0));
        let st = stride_vals(&mut k.b, &dims);
        k.b.parallel_for(|b, _| {
            let mut offset = b.i64(0);
            for a in 0..rank {
                let n = dims[a];
                let (zero, one) = (b.i64(0), b.i64(1));
                // Start, step and size of this axis: those of the entry that names it.
                let found = b.for_(0, count, 1, &[zero, one, n], |b, j, now| {
                    let here = names_axis(b, axes, j, a, rank, error);
                    let s = super::nest::load_index(b, types[0], starts, j);
                    let e = super::nest::load_index(b, types[1], ends, j);
                    let step = match steps {
                        Some((t, buf)) => super::nest::load_index(b, t, buf, j),
                        None => one,
                    };
                    let none = b.cmp(CmpOp::Eq, step, 0);
                    b.error_if(none, error);
                    let step = b.select(none, 1, step);
                    let (s, len) = slice_range(b, n, s, e, step);
                    [(s, now[0]), (step, now[1]), (len, now[2])]
                        .into_iter()
                        .map(|(new, old)| b.select(here, new, old))
                        .collect()
                });
                offset = b.at(offset, found[0], st[a]);
                let stride = b.mul(found[1], st[a]);
                b.store(plan, 1 + a as i64, stride);
                b.store(plan, (1 + rank + a) as i64, found[2]);
            }
            b.store(plan, 0, offset);
        });
    })?;
    Ok(plan)
}

/// Start and size of a slice of an axis of size `n`, as the graph operation defines them. Numbers are clamped first,
/// so that nothing overflows.
fn slice_range(b: &mut Builder, n: Val, start: Val, end: Val, step: Val) -> (Val, Val) {
    let limit = 1i64 << 48;
    let clamp = |b: &mut Builder, v: Val| {
        let v = b.smax(v, -limit);
        b.smin(v, limit)
    };
    let (start, end, step) = (clamp(b, start), clamp(b, end), clamp(b, step));
    let forward = b.cmp(CmpOp::Sgt, step, 0);
    let from_end = |b: &mut Builder, v: Val| {
        let below = b.cmp(CmpOp::Slt, v, 0);
        let w = b.add(v, n);
        b.select(below, w, v)
    };
    let (s, e) = (from_end(b, start), from_end(b, end));
    let last = b.sub(n, 1);
    let top = b.select(forward, n, last);
    let s = b.smin(s, top);
    let s = b.smax(s, 0);
    let low = b.select(forward, 0, -1);
    let e = b.smin(e, top);
    let e = b.smax(e, low);
    let up = b.sub(e, s);
    let down = b.sub(s, e);
    let span = b.select(forward, up, down);
    let back = b.neg(step);
    let size = b.select(forward, step, back);
    let span = b.smax(span, 0);
    let len = b.add(span, size);
    let len = b.sub(len, 1);
    let len = b.sdiv(len, size);
    let empty = b.cmp(CmpOp::Eq, n, 0);
    let len = b.select(empty, 0, len);
    (s, len)
}

// ---- pad ----

/// Whether entry `j` of a list of axes, which may count from the end, names axis `a` of `rank`; without a list, entry `j`
/// is axis `j`. An axis out of range raises `error`.
fn names_axis(b: &mut Builder, axes: Option<(DType, Buf)>, j: Val, a: usize, rank: usize, error: i32) -> Val {
    let mut axis = match axes {
        Some((t, buf)) => super::nest::load_index(b, t, buf, j),
        None => j,
    };
    let below = b.cmp(CmpOp::Slt, axis, 0);
    let from_end = b.add(axis, rank as i64);
    axis = b.select(below, from_end, axis);
    let bad = b.cmp(CmpOp::Uge, axis, rank as i64);
    b.error_if(bad, error);
    b.cmp(CmpOp::Eq, axis, a as i64)
}

pub(super) fn lower_pad(cx: &mut LowerCx<'_>, op: &Pad) -> Result<(), Diag> {
    let x = cx.input(0)?;
    let rank = x.dims.len();
    let (_, out) = cx.output_type(0)?;
    let value = match cx.opt_input(2)? {
        Some(v) => v,
        None => zero(cx, x.dtype),
    };
    let axes = match (cx.has(3), cx.const_ints(3)) {
        (false, _) => Some((0..rank).collect::<Vec<_>>()),
        (true, Some(a)) => Some(a.iter().map(|a| normalize_axis(*a, rank)).collect::<Result<_, _>>()?),
        (true, None) => None,
    };
    let known = axes.zip(cx.ints(1)).map(|(axes, pads)| {
        let (mut lo, mut hi) = (vec![Dim::Const(0); rank], vec![Dim::Const(0); rank]);
        for (k, a) in axes.iter().enumerate() {
            lo[*a] = pads[k].clone();
            hi[*a] = pads[k + axes.len()].clone();
        }
        (lo, hi)
    });
    if let Some((lo, hi)) = &known
        && op.mode == PadMode::Constant
        && lo.iter().chain(hi).all(|p| p.as_const().is_some())
    {
        return pad_constant(cx, &x, &value, lo, hi);
    }
    let starts = match &known {
        Some((lo, _)) => Starts::Known(lo.clone()),
        None => Starts::Data(plan_pad(cx, &x, &out)?),
    };
    let y = cx.output(0)?;
    let elem = bits_elem(x.dtype);
    let error = cx.error("nothing to repeat along an axis of size 0");
    let mut l = Launch::new("pad").raw(&x, elem, Access::Read).raw(&y, elem, Access::Write).raw(
        &value,
        elem,
        Access::Read,
    );
    l = match &starts {
        Starts::Known(lo) => l.dims(lo),
        Starts::Data(p) => l.read(p),
    };
    let first = if matches!(starts, Starts::Known(_)) { rank } else { 0 };
    let l = over(cx.chunk(), l.dims(&x.dims).raises(error), &y.dims, 10);
    let mode = op.mode;
    cx.launch(l, move |k| {
        let (x, y, value) = (k.buf(0), k.buf(1), k.buf(2));
        let lo: Vec<Val> = if first > 0 {
            k.dims(0, rank)
        } else {
            (0..rank)
                .map(|a| {
                    let p = k.buf(3);
                    k.b.load(p, a as i64, 1)
                })
                .collect()
        };
        let (dims, error) = (k.dims(first, rank), k.error(0));
        let st = stride_vals(&mut k.b, &dims);
        let fallback = k.b.load(value, 0, 1);
        for_indices(k, first + rank, rank, |b, index, flat| {
            let mut at = b.i64(0);
            let mut inside: Option<Val> = None;
            for a in 0..rank {
                let i = b.sub(index[a], lo[a]);
                let out = b.cmp(CmpOp::Uge, i, dims[a]);
                let i = pad_source(b, mode, i, dims[a]);
                let bad = if mode == PadMode::Constant { out } else { b.cmp(CmpOp::Sle, dims[a], 0) };
                let good = b.not(bad);
                inside = Some(match inside {
                    Some(w) => b.and(w, good),
                    None => good,
                });
                at = b.at(at, i, st[a]);
            }
            let v = match inside {
                None => b.load(x, at, 1),
                Some(ok) => {
                    if mode != PadMode::Constant {
                        let bad = b.not(ok);
                        b.error_if(bad, error);
                    }
                    b.if_(ok, |b| vec![b.load(x, at, 1)], |_| vec![fallback])[0]
                }
            };
            b.store(y, flat, v);
        });
    })
}

enum Starts {
    Known(Vec<Dim>),
    Data(Opnd),
}

/// The index in the operand for an index relative to it that may be outside.
fn pad_source(b: &mut Builder, mode: PadMode, i: Val, n: Val) -> Val {
    let positive_mod = |b: &mut Builder, i: Val, n: Val| {
        let n = b.smax(n, 1);
        let r = b.srem(i, n);
        let below = b.cmp(CmpOp::Slt, r, 0);
        let up = b.add(r, n);
        b.select(below, up, r)
    };
    match mode {
        PadMode::Constant => i,
        PadMode::Edge => {
            let last = b.sub(n, 1);
            let i = b.smin(i, last);
            b.smax(i, 0)
        }
        PadMode::Wrap => positive_mod(b, i, n),
        PadMode::Reflect => {
            let last = b.sub(n, 1);
            let period = b.add(last, last);
            let r = positive_mod(b, i, period);
            let back = b.sub(period, r);
            let inside = b.cmp(CmpOp::Slt, r, n);
            b.select(inside, r, back)
        }
    }
}

/// A constant pad by known amounts: the value everywhere, then the operand in its place.
fn pad_constant(cx: &mut LowerCx<'_>, x: &Opnd, value: &Opnd, lo: &[Dim], hi: &[Dim]) -> Result<(), Diag> {
    let y = cx.output(0)?;
    if lo.iter().chain(hi).any(|p| p.as_const().is_some_and(|v| v > 0)) {
        fill(cx, value, &y)?;
    }
    let zero = Dim::Const(0);
    let (st, dst) = (x.strides(), y.strides());
    let mut block = Block { dims: vec![], src: (zero.clone(), st.clone()), dst: (zero.clone(), dst.clone()) };
    for a in 0..x.dims.len() {
        // Negative pads cut the operand.
        let cut = |p: &Dim| Dim::Const((-p.as_const().unwrap_or(0)).max(0));
        let (first, last) = (cut(&lo[a]), cut(&hi[a]));
        let size = x.dims[a].sub(&first).sub(&last);
        block.dims.push(if size.as_const().is_none() && !(first.is(0) && last.is(0)) {
            size.larger(&zero)
        } else {
            size
        });
        block.src.0 = block.src.0.add(&first.mul(&st[a]));
        block.dst.0 = block.dst.0.add(&lo[a].larger(&zero).mul(&dst[a]));
    }
    copy_block(cx, "pad", x, &y, block, None)
}

/// Pads that only data tell: the start of every axis; the dims of the result are bound.
fn plan_pad(cx: &mut LowerCx<'_>, x: &Opnd, out: &[Dim]) -> Result<Opnd, Diag> {
    let rank = x.dims.len();
    let plan = cx.temp(DType::I64, &[Dim::from(2 * rank)]);
    let pads = cx.input(1)?;
    let axes = cx.opt_input(3)?;
    let error = cx.error("an axis of a pad is out of range");
    let count = match &axes {
        Some(a) => a.elems(),
        None => Dim::from(rank),
    };
    cx.require_equal(
        &pads.elems(),
        &count.mul(&2.into()),
        "there must be two amounts for each axis to be padded",
    );
    let mut l = Launch::new("pad_plan").write(&plan).read(&pads);
    l = axes.iter().fold(l, |l, o| l.read(o));
    let axes_type = axes.as_ref().map(|a| a.dtype);
    cx.launch(l.dims(&x.dims).dim(&count).raises(error), move |k| {
        let (plan, pads) = (k.buf(0), k.buf(1));
        let axes = axes_type.map(|t| (t, k.buf(2)));
        let (dims, count, error) = (k.dims(0, rank), k.dim(rank), k.error(0));
        k.b.parallel_for(|b, _| {
            for (a, d) in dims.iter().enumerate() {
                let zero = b.i64(0);
                let found = b.for_(0, count, 1, &[zero, zero], |b, j, now| {
                    let here = names_axis(b, axes, j, a, rank, error);
                    let lo = b.load(pads, j, 1);
                    let at = b.add(j, count);
                    let hi = b.load(pads, at, 1);
                    vec![b.select(here, lo, now[0]), b.select(here, hi, now[1])]
                });
                b.store(plan, a as i64, found[0]);
                let n = b.add(*d, found[0]);
                let n = b.add(n, found[1]);
                b.store(plan, (rank + a) as i64, n);
            }
        });
    })?;
    bind_fresh(cx, out, &plan, rank, "the size of a padded axis is out of range")?;
    Ok(plan)
}
