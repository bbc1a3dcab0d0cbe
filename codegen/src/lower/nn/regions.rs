//! Pooling of regions of images. One step of the parallel axis is one channel of one region.

use crate::kernel::{Buf, Builder, CmpOp, Elem, Ty, Val};
use crate::lower::cx::{LowerCx, Opnd};
use crate::lower::elem::{compute_elem, load, store};
use crate::lower::launch::{KernelCx, Launch};
use planish_ir::op::vision::{MaxRoiPool, RoiAlign};
use planish_ir::{DType, Diag, Dim};

fn launch(
    cx: &mut LowerCx<'_>,
    label: &str,
    x: &Opnd,
    rois: &Opnd,
    batch: Option<&Opnd>,
    y: &Opnd,
) -> Launch {
    let error = cx.error("a batch index of a region is out of range");
    let mut l = Launch::new(label).read(x).read(rois);
    if let Some(b) = batch {
        l = l.read(b);
    }
    let bins = Dim::product(&y.dims[2..]);
    l.write(y)
        .raises(error)
        .dims(&x.dims)
        .extent(y.dims[0].mul(&y.dims[1]))
        .cost(bins.mul(&60.into()))
        .flops(y.elems().mul(&60.into()))
}

pub(in crate::lower) fn lower_roi_align(cx: &mut LowerCx<'_>, op: &RoiAlign) -> Result<(), Diag> {
    let (x, rois, batch, y) = (cx.input(0)?, cx.input(1)?, cx.input(2)?, cx.output(0)?);
    cx.require_equal(&rois.dims[1], &4.into(), "a region has four coordinates");
    cx.require_equal(&batch.elems(), &rois.dims[0], "there must be a batch index for each region");
    let l = launch(cx, "roi_align", &x, &rois, Some(&batch), &y);
    cx.launch(l, |k| align(k, op, x.dtype))
}

pub(in crate::lower) fn lower_max_roi_pool(cx: &mut LowerCx<'_>, op: &MaxRoiPool) -> Result<(), Diag> {
    let (x, rois, y) = (cx.input(0)?, cx.input(1)?, cx.output(0)?);
    cx.require_equal(&rois.dims[1], &5.into(), "a region has a batch index and four coordinates");
    let l = launch(cx, "max_roi_pool", &x, &rois, None, &y);
    cx.launch(l, |k| max_pool(k, op, x.dtype))
}

/// A region's image and what is needed of it.
struct Image {
    from: Buf,
    d: DType,
    /// First element of the plane.
    base: Val,
    height: Val,
    width: Val,
}

impl Image {
    /// The plane of a channel; runs `body` only if there is one.
    fn with(
        b: &mut Builder,
        (from, d): (Buf, DType),
        dims: &[Val],
        (index, channel): (Val, Val),
        error: i32,
        body: impl FnOnce(&mut Builder, &Image),
    ) {
        let there = b.cmp(CmpOp::Ult, index, dims[0]);
        let missing = b.not(there);
        b.error_if(missing, error);
        b.when(there, |b| {
            let plane = b.at(channel, index, dims[1]);
            let size = b.mul(dims[2], dims[3]);
            let base = b.mul(plane, size);
            body(b, &Image { from, d, base, height: dims[2], width: dims[3] });
        });
    }
    fn pixel(&self, b: &mut Builder, y: Val, x: Val) -> Val {
        let at = b.at(x, y, self.width);
        let at = b.add(at, self.base);
        let v = load(b, self.d, self.from, at, 1, None);
        b.float_to(v, Elem::F64)
    }
}

fn f64s(b: &mut Builder, v: f64) -> Val {
    b.float(Ty::vec(Elem::F64, 1), v)
}

fn number(b: &mut Builder, d: DType, buf: Buf, at: Val) -> Val {
    let v = load(b, d, buf, at, 1, None);
    b.float_to(v, Elem::F64)
}

fn put(b: &mut Builder, d: DType, to: Buf, at: Val, v: Val) {
    let v = b.float_to(v, compute_elem(d));
    store(b, d, to, at, v, None);
}

/// Lower and upper neighbour of a place on an axis of `n` pixels, and the weight of the upper one.
fn split(b: &mut Builder, v: Val, n: Val) -> (Val, Val, Val) {
    let zero = f64s(b, 0.0);
    let v = b.fmax(v, zero);
    let low = b.fptosi(v, Elem::I64);
    let top = b.sub(n, 1);
    let last = b.cmp(CmpOp::Sge, low, top);
    let next = b.add(low, 1);
    let whole = b.sitofp(low, Elem::F64);
    let part = b.fsub(v, whole);
    (b.select(last, top, low), b.select(last, top, next), b.select(last, zero, part))
}

/// The four neighbours of a place times their weights; 0 outside.
fn neighbours(b: &mut Builder, image: &Image, y: Val, x: Val) -> Vec<Val> {
    let mut ok = None;
    for (v, n) in [(y, image.height), (x, image.width)] {
        let limit = b.sitofp(n, Elem::F64);
        let above = b.cmp(CmpOp::FGe, v, -1.0);
        let below = b.cmp(CmpOp::FLe, v, limit);
        let some = b.cmp(CmpOp::Sgt, n, 0);
        let both = b.and(above, below);
        let both = b.and(both, some);
        ok = Some(ok.map_or(both, |o| b.and(o, both)));
    }
    let Some(ok) = ok else { return Vec::new() };
    let zero = f64s(b, 0.0);
    b.if_(
        ok,
        |b| {
            let (y0, y1, ly) = split(b, y, image.height);
            let (x0, x1, lx) = split(b, x, image.width);
            let (hy, hx) = (b.fsub(1.0, ly), b.fsub(1.0, lx));
            let mut out = Vec::new();
            for (py, wy) in [(y0, hy), (y1, ly)] {
                for (px, wx) in [(x0, hx), (x1, lx)] {
                    let v = image.pixel(b, py, px);
                    let w = b.fmul(wy, wx);
                    out.push(b.fmul(v, w));
                }
            }
            out
        },
        |_| vec![zero; 4],
    )
}

fn align(k: &mut KernelCx<'_>, op: &RoiAlign, d: DType) {
    let (x, rois, batch, to) = (k.buf(0), k.buf(1), k.buf(2), k.buf(3));
    let (dims, error) = (k.dims(0, 4), k.error(0));
    let bins = op.height * op.width;
    k.b.parallel_for(|b, unit| {
        let (region, channel) = b.div_rem(unit, dims[1]);
        let index = b.load(batch, region, 1);
        Image::with(b, (x, d), &dims, (index, channel), error, |b, image| {
            let offset = if op.half_pixel { 0.5 } else { 0.0 };
            let mut edges = Vec::new();
            for i in 0..4 {
                let at = b.mul(region, 4);
                let at = b.add(at, i);
                let v = number(b, d, rois, at);
                let v = b.fmul(v, op.scale);
                edges.push(b.fsub(v, offset));
            }
            // Along the height, then along the width: start, size of a bin, points of a bin.
            let mut axes = Vec::new();
            for (lo, hi, n) in [(1, 3, op.height), (0, 2, op.width)] {
                let mut size = b.fsub(edges[hi], edges[lo]);
                if !op.half_pixel {
                    size = b.fmax(size, 1.0);
                }
                let bin = b.fdiv(size, n as f64);
                let points = if op.sampling > 0 {
                    b.i64(op.sampling)
                } else {
                    let n = b.ceil(bin);
                    let n = b.fmin(n, 1e6);
                    let n = b.fmax(n, 0.0);
                    b.fptosi(n, Elem::I64)
                };
                axes.push((edges[lo], bin, points));
            }
            let (zero, low) = (f64s(b, 0.0), f64s(b, f64::NEG_INFINITY));
            b.loop_(0, bins, 1, |b, bin| {
                let row = b.div_const(bin, op.width);
                let first = b.mul(row, op.width);
                let column = b.sub(bin, first);
                let place = |b: &mut Builder, axis: usize, bin: Val, i: Val| {
                    let (start, size, points) = axes[axis];
                    let bin = b.sitofp(bin, Elem::F64);
                    let i = b.sitofp(i, Elem::F64);
                    let i = b.fadd(i, 0.5);
                    let points = b.sitofp(points, Elem::F64);
                    let part = b.fmul(i, size);
                    let part = b.fdiv(part, points);
                    let at = b.fma(bin, size, start);
                    b.fadd(at, part)
                };
                let found = b.for_(0, axes[0].2, 1, &[zero, low], |b, iy, acc| {
                    let y = place(b, 0, row, iy);
                    b.for_(0, axes[1].2, 1, acc, |b, ix, acc| {
                        let x = place(b, 1, column, ix);
                        let parts = neighbours(b, image, y, x);
                        let (mut sum, mut best) = (acc[0], acc[1]);
                        for p in parts {
                            sum = b.fadd(sum, p);
                            best = b.fmaxnum(best, p);
                        }
                        vec![sum, best]
                    })
                });
                let count = b.mul(axes[0].2, axes[1].2);
                let count = b.smax(count, 1);
                let v = if op.max {
                    let none = b.cmp(CmpOp::FEq, found[1], low);
                    b.select(none, zero, found[1])
                } else {
                    let count = b.sitofp(count, Elem::F64);
                    b.fdiv(found[0], count)
                };
                let at = b.at(bin, unit, bins);
                put(b, d, to, at, v);
            });
        });
    });
}

fn max_pool(k: &mut KernelCx<'_>, op: &MaxRoiPool, d: DType) {
    let (x, rois, to) = (k.buf(0), k.buf(1), k.buf(2));
    let (dims, error) = (k.dims(0, 4), k.error(0));
    let bins = op.height * op.width;
    k.b.parallel_for(|b, unit| {
        let (region, channel) = b.div_rem(unit, dims[1]);
        let first = b.mul(region, 5);
        let index = number(b, d, rois, first);
        let index = b.fptosi(index, Elem::I64);
        Image::with(b, (x, d), &dims, (index, channel), error, |b, image| {
            let mut edges = Vec::new();
            for i in 1..5 {
                let at = b.add(first, i);
                let v = number(b, d, rois, at);
                let v = b.fmul(v, op.scale);
                // To nearest, halves away from 0.
                let size = b.fabs(v);
                let size = b.fadd(size, 0.5);
                let size = b.floor(size);
                edges.push(crate::math::copysign(b, size, v));
            }
            // The pixels of a bin along an axis.
            let span = |b: &mut Builder, lo: usize, hi: usize, bins: i64, bin: Val, n: Val| {
                let size = b.fsub(edges[hi], edges[lo]);
                let size = b.fadd(size, 1.0);
                let size = b.fmax(size, 1.0);
                let size = b.fdiv(size, bins as f64);
                let limit = b.sitofp(n, Elem::F64);
                let edge = |b: &mut Builder, v: Val| {
                    let v = b.fadd(v, edges[lo]);
                    let v = b.fmin(v, limit);
                    let v = b.fmax(v, 0.0);
                    b.fptosi(v, Elem::I64)
                };
                let next = b.add(bin, 1);
                let (bin, next) = (b.sitofp(bin, Elem::F64), b.sitofp(next, Elem::F64));
                let (start, end) = (b.fmul(bin, size), b.fmul(next, size));
                let (start, end) = (b.floor(start), b.ceil(end));
                (edge(b, start), edge(b, end))
            };
            b.loop_(0, bins, 1, |b, bin| {
                let row = b.div_const(bin, op.width);
                let first = b.mul(row, op.width);
                let column = b.sub(bin, first);
                let (y0, y1) = span(b, 1, 3, op.height, row, image.height);
                let (x0, x1) = span(b, 0, 2, op.width, column, image.width);
                let (zero, low) = (f64s(b, 0.0), f64s(b, f64::NEG_INFINITY));
                let best = b.for_(y0, y1, 1, &[low], |b, y, acc| {
                    b.for_(x0, x1, 1, acc, |b, x, acc| {
                        let v = image.pixel(b, y, x);
                        vec![b.fmaxnum(acc[0], v)]
                    })
                })[0];
                let (tall, wide) = (b.cmp(CmpOp::Slt, y0, y1), b.cmp(CmpOp::Slt, x0, x1));
                let some = b.and(tall, wide);
                let v = b.select(some, best, zero);
                let at = b.at(bin, unit, bins);
                put(b, d, to, at, v);
            });
        });
    });
}
