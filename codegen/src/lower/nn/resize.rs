//! Resampling of axes, one after the other.

mod table;

use crate::kernel::{Access, BinOp, Builder, CmpOp, Elem, Ty, Val};
use crate::lower::cx::{LowerCx, Opnd};
use crate::lower::elem::{compute_elem, convert, load, mem_elem, store};
use crate::lower::launch::{KernelCx, Launch};
use planish_ir::dim::SymOrigin;
use planish_ir::op::resize::{Resize, ResizeMode, ResizePolicy, ResizeTransform};
use planish_ir::{DType, Diag, Dim};

/// Where the scale of an axis comes from.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Scale {
    /// A number.
    Known(f64),
    /// New size over old size.
    Ratio,
    /// The element of the operand of scales.
    Given(i64),
}

/// One axis to resample.
#[derive(Clone, Debug)]
struct Step {
    axis: usize,
    /// Place in the order of the operands.
    index: i64,
    scale: Scale,
    old: Dim,
    new: Dim,
    /// How many old elements make a new one.
    taps: i64,
}

impl Step {
    fn is_identity(&self, crop: bool) -> bool {
        let same = match self.scale {
            Scale::Known(s) => (s - 1.0).abs() <= 1e-9,
            Scale::Ratio => true,
            Scale::Given(_) => false,
        };
        !crop && same && self.old == self.new
    }
}

/// Tables of weights for each axis, then a pass over the data for each axis.
pub(in crate::lower) fn lower_resize(cx: &mut LowerCx<'_>, op: &Resize) -> Result<(), Diag> {
    let x = cx.input(0)?;
    let count = Dim::from(op.axes.len());
    let crop = op.transform == ResizeTransform::CropAndResize;
    for (i, want) in [(1, count.mul(&2.into())), (2, count.clone()), (3, count)] {
        if cx.has(i) && (i > 1 || crop) {
            let given = cx.input_value(i)?;
            let (_, dims) = cx.tensor_type(given)?;
            cx.require_equal(&Dim::product(&dims), &want, "there must be a scale or size for each axis");
        }
    }
    bind_sizes(cx, op, &x)?;
    let out = cx.output_type(0)?.1;
    let some = Dim::product(&out).smaller(&1.into());
    cx.require_at_most(&some, &x.elems(), "nothing to make other sizes of");
    let steps = steps(cx, op, &x, &out)?;
    let steps: Vec<Step> = steps.into_iter().filter(|s| !s.is_identity(crop)).collect();
    let Some((last, first)) = steps.split_last() else {
        return cx.alias(0, &x);
    };
    let plain = op.mode == ResizeMode::Nearest && !crop;
    let between = if plain { x.dtype } else { wide(x.dtype) };
    let mut from = x;
    for s in first {
        let mut dims = from.dims.clone();
        dims[s.axis] = s.new.clone();
        let to = cx.temp(between, &dims);
        pass(cx, op, s, &from, &to)?;
        from = to;
    }
    let y = cx.output(0)?;
    pass(cx, op, last, &from, &y)
}

/// The type that weighted sums of elements are formed in.
fn wide(d: DType) -> DType {
    if d == DType::F64 || (d.is_int() && d.bits() >= 32) { DType::F64 } else { DType::F32 }
}

fn steps(cx: &mut LowerCx<'_>, op: &Resize, x: &Opnd, out: &[Dim]) -> Result<Vec<Step>, Diag> {
    let old: Vec<Dim> = op.axes.iter().map(|a| x.dims[*a].clone()).collect();
    let known: Option<Vec<usize>> =
        old.iter().map(|d| d.as_const().and_then(|v| usize::try_from(v).ok())).collect();
    let mut scales = vec![Scale::Ratio; old.len()];
    if cx.has(2) {
        let v = cx.input_value(2)?;
        match cx.constant(v).and_then(|c| c.small(64)) {
            Some(t) => t.to_f64().into_iter().zip(&mut scales).for_each(|(v, s)| *s = Scale::Known(v)),
            None => scales.iter_mut().enumerate().for_each(|(i, s)| *s = Scale::Given(i as i64)),
        }
    } else if op.policy != ResizePolicy::Stretch {
        let (Some(known), Some(sizes)) = (&known, cx.const_ints(3)) else {
            return Err(Diag::unsupported("one scale for all axes of sizes that are not known"));
        };
        let found = op.from_sizes(known, &sizes)?.1;
        found.into_iter().zip(&mut scales).for_each(|(v, s)| *s = Scale::Known(v));
    }
    let mut steps = Vec::new();
    for (i, axis) in op.axes.iter().enumerate() {
        let scale = match (scales[i], old[i].as_const(), out[*axis].as_const()) {
            (Scale::Ratio, Some(o), Some(n)) if o > 0 => Scale::Known(n as f64 / o as f64),
            (s, ..) => s,
        };
        let taps = match op.mode {
            ResizeMode::Nearest => 1,
            _ if op.antialias => {
                let Scale::Known(s) = scale else {
                    return Err(Diag::unsupported("anti-aliasing with a scale that is not known"));
                };
                let reach = if op.mode == ResizeMode::Cubic { 2.0 } else { 1.0 };
                if s.is_nan() || s <= 1e-4 {
                    return Err(Diag::error("field-range", format!("an axis cannot be scaled by {s}")));
                }
                2 - 2 * ((-reach / s.min(1.0)).floor() as i64 + 1)
            }
            ResizeMode::Linear => 2,
            ResizeMode::Cubic => 4,
        };
        steps.push(Step {
            axis: *axis,
            index: i as i64,
            scale,
            old: old[i].clone(),
            new: out[*axis].clone(),
            taps,
        });
    }
    Ok(steps)
}

/// Binds dims that only the data tell.
fn bind_sizes(cx: &mut LowerCx<'_>, op: &Resize, x: &Opnd) -> Result<(), Diag> {
    let out = cx.output_type(0)?.1;
    let mut free = Vec::new();
    for (i, a) in op.axes.iter().enumerate() {
        let data = out[*a].as_symbol().is_some_and(|s| cx.graph.symbols.get(s).origin == SymOrigin::Data);
        let elsewhere = x.dims.contains(&out[*a]);
        let told = cx.has(3) && cx.ints(3).is_some_and(|v| v.get(i) == Some(&out[*a]));
        if data && !elsewhere && !told {
            free.push((i, *a));
        }
    }
    if free.is_empty() {
        return Ok(());
    }
    let (zero, most) = (Dim::Const(0), Dim::Const(1 << 40));
    if cx.has(3) {
        if op.policy != ResizePolicy::Stretch {
            return Err(Diag::unsupported("one scale for all axes of sizes that are not known"));
        }
        let sizes = cx.input(3)?;
        for (i, a) in free {
            cx.bind(&out[a], &sizes, i as u32, &zero, &most, "a size of a resized axis is out of range")?;
        }
        return Ok(());
    }
    let scales = cx.input(2)?;
    let n = op.axes.len();
    let sizes = cx.temp(DType::I64, &[n.into()]);
    let mut l = Launch::new("resize_sizes").read(&scales).write(&sizes);
    for a in &op.axes {
        l = l.dim(&x.dims[*a]);
    }
    cx.launch(l, |k| {
        let (from, to) = (k.buf(0), k.buf(1));
        let old = k.dims(0, n);
        k.b.parallel_for(|b, _| {
            for (i, old) in old.iter().enumerate() {
                let s = b.load(from, i as i64, 1);
                let old = b.sitofp(*old, Elem::F32);
                let size = b.fmul(old, s);
                let size = b.floor(size);
                let size = b.fptosi(size, Elem::I64);
                b.store(to, i as i64, size);
            }
        });
    })?;
    for (i, a) in free {
        cx.bind(&out[a], &sizes, i as u32, &zero, &most, "a scale of a resized axis is out of range")?;
    }
    Ok(())
}

fn pass(cx: &mut LowerCx<'_>, op: &Resize, s: &Step, from: &Opnd, to: &Opnd) -> Result<(), Diag> {
    let w = wide(from.dtype);
    let crop = op.transform == ResizeTransform::CropAndResize;
    let size = s.new.mul(&s.taps.into());
    let at = cx.temp(DType::I64, std::slice::from_ref(&size));
    let weights = cx.temp(w, &[size]);
    // What is added to the sum: the value outside of the axis.
    let extra = cx.temp(w, std::slice::from_ref(&s.new));
    let mut l = Launch::new("resize_table")
        .raw(&at, Elem::I64, Access::ReadWrite)
        .raw(&weights, mem_elem(w), Access::ReadWrite)
        .write(&extra);
    let given = if matches!(s.scale, Scale::Given(_)) { Some(cx.input(2)?) } else { None };
    let roi = if crop { Some(cx.input(1)?) } else { None };
    for o in given.iter().chain(&roi) {
        l = l.read(o);
    }
    let cost = s.new.mul(&(s.taps * 20).into());
    let types = (w, roi.as_ref().map(|r| r.dtype));
    let n = op.axes.len() as i64;
    cx.launch(l.dim(&s.old).dim(&s.new).cost(cost), |k| table::kernel(k, op, s, types, n))?;

    let outer = Dim::product(&from.dims[..s.axis]);
    let inner = Dim::product(&from.dims[s.axis + 1..]);
    let plain = op.mode == ResizeMode::Nearest && !crop;
    let rows = inner.is(1);
    let mut l = Launch::new("resize").read(from).read(&at).read(&weights).read(&extra).write(to);
    l = l.dim(&s.old).dim(&s.new).dim(&inner);
    let extent = if rows { outer } else { outer.mul(&s.new) };
    let cost = if rows { s.new.mul(&(4 * s.taps).into()) } else { inner.mul(&(2 * s.taps).into()) };
    let flops = to.elems().mul(&(2 * s.taps).into());
    let p = Pass { from: from.dtype, to: to.dtype, wide: w, taps: s.taps, plain, crop };
    cx.launch(l.extent(extent).cost(cost).flops(flops), |k| if rows { p.rows(k) } else { p.columns(k) })
}

/// One pass along an axis.
struct Pass {
    from: DType,
    to: DType,
    wide: DType,
    taps: i64,
    /// Whether elements are only copied.
    plain: bool,
    crop: bool,
}

impl Pass {
    /// The axis is the innermost: vectors along it, gathered.
    fn rows(&self, k: &mut KernelCx<'_>) {
        let lanes = k.lanes(if self.plain { mem_elem(self.from) } else { compute_elem(self.wide) });
        let (x, at, weights, extra, y) = (k.buf(0), k.buf(1), k.buf(2), k.buf(3), k.buf(4));
        let (old, new) = (k.dim(0), k.dim(1));
        k.b.parallel_for(|b, row| {
            let base = b.mul(row, old);
            let out = b.mul(row, new);
            b.for_lanes(0, new, lanes, |b, i, mask| {
                let to = b.add(out, i);
                let mut sum = None;
                for t in 0..self.taps {
                    let entry = b.at(i, new, t);
                    let from = b.load_opt(at, entry, lanes, mask);
                    let base = b.splat(base, lanes);
                    let from = b.add(from, base);
                    let v = match mask {
                        None => b.gather(x, from),
                        Some(m) => {
                            let zero = b.zero(Ty::vec(b.elem(x), lanes));
                            b.gather_masked(x, from, m, zero)
                        }
                    };
                    if self.plain {
                        b.store_opt(y, to, v, mask);
                        return;
                    }
                    let v = crate::lower::elem::widen(b, self.from, v);
                    let v = convert(b, v, self.from, self.wide);
                    let w = b.load_opt(weights, entry, lanes, mask);
                    sum = Some(self.add(b, sum, w, v));
                }
                let Some(mut sum) = sum else { return };
                if self.crop {
                    let e = b.load_opt(extra, i, lanes, mask);
                    sum = b.fadd(sum, e);
                }
                let v = convert(b, sum, self.wide, self.to);
                store(b, self.to, y, to, v, mask);
            });
        });
    }
    fn add(&self, b: &mut Builder, sum: Option<Val>, w: Val, v: Val) -> Val {
        match sum {
            None => b.bin(BinOp::FMul, w, v),
            Some(s) => b.fma(w, v, s),
        }
    }
    /// Vectors across the axes within: each step does one new element of the axis.
    fn columns(&self, k: &mut KernelCx<'_>) {
        let lanes = k.lanes(if self.plain { mem_elem(self.from) } else { compute_elem(self.wide) });
        let (x, at, weights, extra, y) = (k.buf(0), k.buf(1), k.buf(2), k.buf(3), k.buf(4));
        let (old, new, inner) = (k.dim(0), k.dim(1), k.dim(2));
        k.b.parallel_for(|b, unit| {
            let (outer, i) = b.div_rem(unit, new);
            let first = b.mul(outer, old);
            let out = b.mul(unit, inner);
            let mut lines = Vec::new();
            // Many taps are taken in a loop of their own.
            if self.taps <= 8 {
                for t in 0..self.taps {
                    let t = b.i64(t);
                    lines.push(self.line(b, (at, weights), t, i, new, first, inner));
                }
            }
            let extra = self.crop.then(|| {
                let e = b.load(extra, i, 1);
                b.splat(e, lanes)
            });
            b.for_lanes(0, inner, lanes, |b, c, mask| {
                let to = b.add(out, c);
                let fetch = |b: &mut Builder, line: Val| {
                    let from = b.add(line, c);
                    let v = load(b, self.from, x, from, lanes, mask);
                    convert(b, v, self.from, self.wide)
                };
                if self.plain {
                    let from = b.add(lines[0].0, c);
                    let v = b.load_opt(x, from, lanes, mask);
                    b.store_opt(y, to, v, mask);
                    return;
                }
                let mut sum = None;
                for (line, w) in &lines {
                    let v = fetch(b, *line);
                    let w = b.splat(*w, lanes);
                    sum = Some(self.add(b, sum, w, v));
                }
                let mut sum = sum.unwrap_or_else(|| {
                    let zero = b.zero(Ty::vec(compute_elem(self.wide), lanes));
                    b.for_(0, self.taps, 1, &[zero], |b, t, acc| {
                        let (line, w) = self.line(b, (at, weights), t, i, new, first, inner);
                        let v = fetch(b, line);
                        let w = b.splat(w, lanes);
                        vec![b.fma(w, v, acc[0])]
                    })[0]
                });
                if let Some(e) = extra {
                    sum = b.fadd(sum, e);
                }
                let v = convert(b, sum, self.wide, self.to);
                store(b, self.to, y, to, v, mask);
            });
        });
    }
    /// Where the line of tap `t` of new element `i` begins, and its weight.
    #[allow(clippy::too_many_arguments)]
    fn line(
        &self,
        b: &mut Builder,
        (at, weights): (crate::kernel::Buf, crate::kernel::Buf),
        t: Val,
        i: Val,
        new: Val,
        first: Val,
        inner: Val,
    ) -> (Val, Val) {
        let entry = b.at(i, t, new);
        let from = b.load(at, entry, 1);
        let line = b.add(first, from);
        let line = b.mul(line, inner);
        let w = b.load(weights, entry, 1);
        (line, w)
    }
}

/// A boolean as `I64`.
fn flag(b: &mut Builder, v: Val) -> Val {
    b.zext(v, Elem::I64)
}

/// Both hold.
fn both(b: &mut Builder, x: Val, y: Val) -> Val {
    b.and(x, y)
}

/// `lo <= v <= hi` of floats.
fn between(b: &mut Builder, v: Val, lo: f64, hi: Val) -> Val {
    let above = b.cmp(CmpOp::FGe, v, lo);
    let below = b.cmp(CmpOp::FLe, v, hi);
    both(b, above, below)
}
