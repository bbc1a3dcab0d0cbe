//! Pooling over windows.

use super::pool_axis::{Axis, Span, launch};
use crate::kernel::{Buf, Builder, CmpOp, Elem, Opd, Ty, Val};
use crate::lower::cx::{LowerCx, Opnd};
use crate::lower::elem::{compute_elem, load, store};
use crate::lower::launch::KernelCx;
use crate::lower::layout;
use crate::lower::nest::decode;
use crate::math;
use planish_ir::op::pool::{IndexOrder, Pool, PoolKind};
use planish_ir::{DType, Diag};

/// One step of the parallel axis is one row of positions along the last axis, which is done in vectors.
pub(in crate::lower) fn lower_pool(cx: &mut LowerCx<'_>, op: &Pool) -> Result<(), Diag> {
    if layout::lower_pool(cx, op)? {
        return Ok(());
    }
    let x = cx.input(0)?;
    let y = cx.output(0)?;
    let places = if op.indices.is_some() { Some(cx.output(1)?) } else { None };
    let mut l = launch(op, &x, &y);
    if let Some(p) = &places {
        l = l.write(p);
    }
    cx.launch(l, |k| kernel(k, op, &x, places.is_some()))
}

fn kernel(k: &mut KernelCx<'_>, op: &Pool, x: &Opnd, places: bool) {
    let d = x.dtype;
    let elem = compute_elem(d);
    // Places are followed one position at a time.
    let lanes = if places { 1 } else { k.lanes(elem) };
    let (from, to) = (k.buf(0), k.buf(1));
    let place_buf = places.then(|| k.buf(2));
    let axes: Vec<Axis> = (0..op.kernel.len()).map(|a| Axis::read(k, op, a)).collect();
    let Some((inner, outer)) = axes.split_last() else { return };
    k.b.parallel_for(|b, row| {
        let mut counts = vec![b.i64(1)];
        counts.extend(outer.iter().map(|a| a.out));
        let at = decode(b, row, &counts);
        let plane = outer.iter().fold(inner.input, |n, a| b.mul(n, a.input));
        let base = b.mul(at[0], plane);
        // The part of the window along the outer axes that lies in the input, and how much of it counts.
        let mut spans = Vec::new();
        let mut counted = b.i64(1);
        for (a, p) in outer.iter().zip(&at[1..]) {
            let span = a.span(b, op, *p);
            counted = b.mul(counted, span.counted);
            spans.push(span);
        }
        let out_row = b.mul(row, inner.out);
        b.for_lanes(0, inner.out, lanes, |b, i, mask| {
            let start = inner.start(b, i);
            let walk =
                Walk { op, d, from, lanes, outer, inner, spans: &spans, base, start, order: op.indices };
            let init = walk.init(b);
            let acc = walk.outer(b, 0, base, &init);
            let v = walk.finish(b, &acc, counted);
            let to_at = b.add(out_row, i);
            store(b, d, to, to_at, v, mask);
            if let Some(p) = place_buf {
                let found = walk.place(b, acc[1], at[0], plane);
                b.store(p, to_at, found);
            }
        });
    });
}

/// The walk over the window of a vector of positions.
struct Walk<'a> {
    op: &'a Pool,
    d: DType,
    from: Buf,
    lanes: u16,
    outer: &'a [Axis],
    inner: &'a Axis,
    spans: &'a [Span],
    base: Val,
    /// Where the first position's window begins along the last axis.
    start: Val,
    order: Option<IndexOrder>,
}

impl Walk<'_> {
    fn init(&self, b: &mut Builder) -> Vec<Val> {
        let ty = Ty::vec(compute_elem(self.d), self.lanes);
        let mut acc = vec![match (self.op.kind, ty.elem.is_float()) {
            (PoolKind::Max, true) => b.float(ty, f64::NEG_INFINITY),
            (PoolKind::Max, false) => b.int(ty, self.d.int_range().map_or(0, |r| r.0) as i64),
            _ => b.zero(ty),
        }];
        if self.order.is_some() {
            acc.push(b.i64(-1));
        }
        acc
    }
    /// Loops over the elements along the outer axes from `axis` on; `base` is where the row so far begins.
    fn outer(&self, b: &mut Builder, axis: usize, base: Val, acc: &[Val]) -> Vec<Val> {
        let Some(Span { start, first, last, .. }) = self.spans.get(axis) else {
            return self.row(b, base, acc);
        };
        let a = &self.outer[axis];
        let below = self.outer[axis + 1..].iter().fold(self.inner.input, |n, a| b.mul(n, a.input));
        b.for_(*first, *last, 1, acc, |b, e, acc| {
            let i = b.at(*start, e, a.dilation);
            let base = b.at(base, i, below);
            self.outer(b, axis + 1, base, acc)
        })
    }
    fn row(&self, b: &mut Builder, base: Val, acc: &[Val]) -> Vec<Val> {
        // A short window is written out.
        if self.inner.kernel <= 8 {
            let mut acc = acc.to_vec();
            for e in 0..self.inner.kernel {
                let e = b.i64(e * self.inner.dilation);
                acc = self.element(b, base, e, &acc);
            }
            return acc;
        }
        b.for_(0, self.inner.kernel, 1, acc, |b, e, acc| {
            let e = b.mul(e, self.inner.dilation);
            self.element(b, base, e, acc)
        })
    }
    /// Lane `l` has its element at `first + l * stride` along the last axis.
    fn element(&self, b: &mut Builder, base: Val, offset: Val, acc: &[Val]) -> Vec<Val> {
        let first = b.add(self.start, offset);
        let at = b.add(base, first);
        let (v, inside) = self.fetch(b, first, at);
        let float = b.ty(v).elem.is_float();
        let joined = match self.op.kind {
            PoolKind::Max => {
                let bigger = if self.order.is_some() {
                    // The first of equal ones stays; NaN is the largest.
                    let more = b.cmp(if float { CmpOp::FUGt } else { self.greater() }, v, acc[0]);
                    let own = if float { b.cmp(CmpOp::FEq, acc[0], acc[0]) } else { more };
                    let more = b.and(more, own);
                    let none = b.cmp(CmpOp::Slt, acc[1], 0);
                    b.or(more, none)
                } else {
                    inside
                };
                let take = b.and(bigger, inside);
                if self.order.is_some() {
                    let best = b.select(take, v, acc[0]);
                    let plane = b.sub(at, self.base);
                    let place = b.select(take, plane, acc[1]);
                    return vec![best, place];
                }
                let max = if float {
                    b.fmax(acc[0], v)
                } else if self.d.is_unsigned_int() {
                    b.umax(acc[0], v)
                } else {
                    b.smax(acc[0], v)
                };
                b.select(take, max, acc[0])
            }
            PoolKind::Average => b.fadd(acc[0], v),
            PoolKind::Lp => match self.op.p {
                1 => {
                    let v = b.fabs(v);
                    b.fadd(acc[0], v)
                }
                2 => b.fma(v, v, acc[0]),
                p => {
                    let v = b.fabs(v);
                    let ty = b.ty(v);
                    let p = b.float(ty, p as f64);
                    let v = math::pow(b, v, p);
                    let zero = b.zero(ty);
                    let v = b.select(inside, v, zero);
                    b.fadd(acc[0], v)
                }
            },
        };
        vec![joined]
    }
    fn greater(&self) -> CmpOp {
        if self.d.is_unsigned_int() { CmpOp::Ugt } else { CmpOp::Sgt }
    }
    /// The lanes within the input from `first` on along the last axis, 0 elsewhere, and which are within.
    fn fetch(&self, b: &mut Builder, first: Val, at: Val) -> (Val, Val) {
        let (lanes, stride) = (self.lanes, self.inner.stride);
        let inside = |b: &mut Builder, from: Val, step: i64, lanes: u16| {
            let iota = b.iota(Ty::vec(Elem::I64, lanes));
            let pos = b.mul(iota, step);
            let from = b.splat(from, lanes);
            let pos = b.add(pos, from);
            // One unsigned comparison covers both ends.
            let limit = b.splat(self.inner.input, lanes);
            b.cmp(CmpOp::Ult, pos, limit)
        };
        let ok = inside(b, first, stride, lanes);
        let v = match stride {
            1 => load(b, self.d, self.from, at, lanes, Some(ok)),
            2 if lanes > 1 => {
                let low = inside(b, first, 1, lanes);
                let second = b.add(first, i64::from(lanes));
                let high = inside(b, second, 1, lanes);
                let next = b.add(at, i64::from(lanes));
                let low = load(b, self.d, self.from, at, lanes, Some(low));
                let high = load(b, self.d, self.from, next, lanes, Some(high));
                let even: Vec<u16> = (0..lanes).map(|l| 2 * l).collect();
                b.shuffle(low, high, &even)
            }
            _ => {
                let iota = b.iota(Ty::vec(Elem::I64, lanes));
                let pos = b.mul(iota, stride);
                let at = b.splat(at, lanes);
                let pos = b.add(at, pos);
                let zero = b.zero(Ty::vec(b.elem(self.from), lanes));
                let v = b.gather_masked(self.from, pos, ok, zero);
                crate::lower::elem::widen(b, self.d, v)
            }
        };
        (v, ok)
    }
    fn finish(&self, b: &mut Builder, acc: &[Val], counted: Val) -> Val {
        let v = acc[0];
        let ty = b.ty(v);
        match self.op.kind {
            PoolKind::Max => v,
            PoolKind::Average => {
                let n = self.count(b);
                let counted = b.sitofp(counted, ty.elem);
                let counted = b.splat(counted, self.lanes);
                let n = b.fmul(n, counted);
                b.fdiv(v, n)
            }
            PoolKind::Lp => match self.op.p {
                1 => v,
                2 => b.sqrt(v),
                p => {
                    let root = b.float(ty, 1.0 / p as f64);
                    math::pow(b, v, root)
                }
            },
        }
    }
    /// How many elements along the last axis count for each position, as floats.
    fn count(&self, b: &mut Builder) -> Val {
        let elem = compute_elem(self.d);
        let a = self.inner;
        let ty = Ty::vec(Elem::I64, self.lanes);
        let iota = b.iota(ty);
        let start = b.mul(iota, a.stride);
        let first = b.splat(self.start, self.lanes);
        let start = b.add(start, first);
        let limit = if self.op.count_include_pad { b.add(a.input, a.end) } else { a.input };
        let mut n = b.zero(Ty::vec(elem, self.lanes));
        // Windows are short; a sum of comparisons needs no vector division.
        let low = if self.op.count_include_pad { b.i64(i64::MIN) } else { b.i64(0) };
        let (low, limit) = (b.splat(low, self.lanes), b.splat(limit, self.lanes));
        let add = |b: &mut Builder, e: Val, n: Val| {
            let e = b.splat(e, self.lanes);
            let pos = b.add(start, e);
            let above = b.cmp(CmpOp::Sge, pos, low);
            let below = b.cmp(CmpOp::Slt, pos, limit);
            let ok = b.and(above, below);
            let one = b.fadd(n, 1.0);
            b.select(ok, one, n)
        };
        if a.kernel <= 8 {
            for e in 0..a.kernel {
                let e = b.i64(e * a.dilation);
                n = add(b, e, n);
            }
            return n;
        }
        b.for_(0, a.kernel, 1, &[n], |b, e, acc| {
            let e = b.mul(e, a.dilation);
            vec![add(b, e, acc[0])]
        })[0]
    }
    /// The place of the maximum in the whole input; `found` is in the order of rows, or -1.
    fn place(&self, b: &mut Builder, found: Val, plane: Val, size: Val) -> Val {
        let found = b.smax(found, 0);
        let inner = match self.order {
            Some(IndexOrder::ColumnMajor) => {
                let mut dims: Vec<Val> = self.outer.iter().map(|a| a.input).collect();
                dims.push(self.inner.input);
                let at = decode(b, found, &dims);
                let (mut out, mut step) = (b.i64(0), b.i64(1));
                for (i, d) in at.iter().zip(&dims) {
                    out = b.at(out, *i, step);
                    step = b.mul(step, *d);
                }
                out
            }
            _ => found,
        };
        let base: Opd = b.mul(plane, size).into();
        b.add(base, inner)
    }
}
