//! Which old elements make each new one of an axis, and with which weights. Entry `t * new + i` of the tables is tap
//! `t` of new element `i`. Computed in f64, as places decide which elements are neighbours.

use super::{Scale, Step, between, flag};
use crate::kernel::{Builder, CmpOp, Elem, Val};
use crate::lower::elem::load;
use crate::lower::launch::KernelCx;
use planish_ir::DType;
use planish_ir::op::resize::{Resize, ResizeMode, ResizeNearest, ResizeTransform};

/// Buffers: elements, weights, what is added; then the scales and the regions of interest where they are needed.
pub(super) fn kernel(
    k: &mut KernelCx<'_>,
    op: &Resize,
    s: &Step,
    (wide, roi): (DType, Option<DType>),
    axes: i64,
) {
    let (at, weights, extra) = (k.buf(0), k.buf(1), k.buf(2));
    let mut next = 3;
    let mut more = |there: bool| {
        there.then(|| {
            next += 1;
            k.buf(next - 1)
        })
    };
    let given = more(matches!(s.scale, Scale::Given(_)));
    let roi_buf = more(roi.is_some());
    let (old_n, new_n) = (k.dim(0), k.dim(1));
    k.b.parallel_for(|b, _| {
        let (old, new) = (b.sitofp(old_n, Elem::F64), b.sitofp(new_n, Elem::F64));
        let zero = b.float(crate::kernel::Ty::vec(Elem::F64, 1), 0.0);
        let scale = match s.scale {
            Scale::Known(v) => b.fadd(zero, v),
            Scale::Ratio => b.fdiv(new, old),
            Scale::Given(_) => match given {
                Some(buf) => {
                    let v = b.load(buf, s.index, 1);
                    b.fpext(v, Elem::F64)
                }
                None => zero,
            },
        };
        let bounds = roi_buf.zip(roi).map(|(buf, d)| {
            let mut bound = |i: i64| {
                let v = load(b, d, buf, i, 1, None);
                b.float_to(v, Elem::F64)
            };
            (bound(s.index), bound(s.index + axes))
        });
        let top = b.fsub(old, 1.0);
        b.loop_(0, new_n, 1, |b, i| {
            let x = b.sitofp(i, Elem::F64);
            let place = place(b, op.transform, x, scale, old, new, bounds);
            let inside = between(b, place, 0.0, top);
            let e = if op.transform == ResizeTransform::CropAndResize {
                let outside = b_float(b, op.extrapolation);
                b.select(inside, zero, outside)
            } else {
                zero
            };
            let e = b.float_to(e, wide_elem(wide));
            b.store(extra, i, e);
            let place = b.fmin(place, 1e15);
            let place = b.fmax(place, -1e15);
            let floor = b.floor(place);
            let whole = b.cmp(CmpOp::FEq, floor, place);
            let before = b.fsub(floor, 1.0);
            let fraction = b.fsub(place, floor);
            let base = b.select(whole, before, floor);
            let one = b.fadd(zero, 1.0);
            let fraction = b.select(whole, one, fraction);
            let base = b.fptosi(base, Elem::I64);
            let (first, shrink) = match op.mode {
                ResizeMode::Nearest => (None, 1.0),
                ResizeMode::Linear | ResizeMode::Cubic => {
                    let reach = if op.mode == ResizeMode::Cubic { 2.0 } else { 1.0 };
                    let shrink = match s.scale {
                        Scale::Known(v) if op.antialias => v.min(1.0),
                        _ => 1.0,
                    };
                    (Some((-reach / shrink).floor() as i64 + 1), shrink)
                }
            };
            let limit = b.sub(old_n, 1);
            let limit = b.smax(limit, 0);
            let Some(first) = first else {
                let up = nearest(b, op.nearest, fraction);
                let from = b.add(base, up);
                let from = b.smin(from, limit);
                let from = b.smax(from, 0);
                b.store(at, i, from);
                let w = if op.transform == ResizeTransform::CropAndResize {
                    b.select(inside, one, zero)
                } else {
                    one
                };
                let w = b.float_to(w, wide_elem(wide));
                b.store(weights, i, w);
                return;
            };
            let sum = b.for_(0, s.taps, 1, &[zero], |b, t, acc| {
                let offset = b.add(t, first);
                let distance = b.sitofp(offset, Elem::F64);
                let distance = b.fsub(distance, fraction);
                let distance = b.fmul(distance, shrink);
                let mut w = weigh(b, op, distance);
                let from = b.add(base, offset);
                if op.exclude_outside {
                    let low = b.cmp(CmpOp::Sge, from, 0);
                    let high = b.cmp(CmpOp::Sle, from, limit);
                    let ok = b.and(low, high);
                    w = b.select(ok, w, zero);
                }
                let from = b.smin(from, limit);
                let from = b.smax(from, 0);
                let entry = b.at(i, t, new_n);
                b.store(at, entry, from);
                let stored = b.float_to(w, wide_elem(wide));
                b.store(weights, entry, stored);
                vec![b.fadd(acc[0], w)]
            })[0];
            let normal = op.antialias || op.exclude_outside;
            let crop = op.transform == ResizeTransform::CropAndResize;
            if !normal && !crop {
                return;
            }
            let none = b.cmp(CmpOp::FEq, sum, 0.0);
            let mut factor = b.fdiv(one, sum);
            factor = b.select(none, one, factor);
            if !normal {
                factor = one;
            }
            if crop {
                factor = b.select(inside, factor, zero);
            }
            b.loop_(0, s.taps, 1, |b, t| {
                let entry = b.at(i, t, new_n);
                let w = b.load(weights, entry, 1);
                let w = b.float_to(w, Elem::F64);
                let w = b.fmul(w, factor);
                let w = b.float_to(w, wide_elem(wide));
                b.store(weights, entry, w);
            });
        });
    });
}

fn wide_elem(d: DType) -> Elem {
    if d == DType::F64 { Elem::F64 } else { Elem::F32 }
}

fn b_float(b: &mut Builder, v: f64) -> Val {
    b.float(crate::kernel::Ty::vec(Elem::F64, 1), v)
}

/// The place on the old axis of new element `x`.
fn place(
    b: &mut Builder,
    transform: ResizeTransform,
    x: Val,
    scale: Val,
    old: Val,
    new: Val,
    roi: Option<(Val, Val)>,
) -> Val {
    let width = b.fmul(scale, old);
    let single = b.cmp(CmpOp::FEq, width, 1.0);
    let half = |b: &mut Builder| {
        let at = b.fadd(x, 0.5);
        let at = b.fdiv(at, scale);
        b.fsub(at, 0.5)
    };
    match transform {
        ResizeTransform::HalfPixel => half(b),
        ResizeTransform::PytorchHalfPixel => {
            let at = half(b);
            let low = b_float(b, -0.5);
            b.select(single, low, at)
        }
        ResizeTransform::HalfPixelSymmetric => {
            let at = half(b);
            let covered = b.fdiv(new, scale);
            let margin = b.fsub(old, covered);
            let margin = b.fmul(margin, 0.5);
            b.fadd(margin, at)
        }
        ResizeTransform::Asymmetric => b.fdiv(x, scale),
        ResizeTransform::AlignCorners => {
            let top = b.fsub(old, 1.0);
            let wide = b.fsub(width, 1.0);
            let at = b.fmul(x, top);
            let at = b.fdiv(at, wide);
            let zero = b_float(b, 0.0);
            b.select(single, zero, at)
        }
        ResizeTransform::CropAndResize => {
            let zero = b_float(b, 0.0);
            let (begin, end) = roi.unwrap_or((zero, zero));
            let top = b.fsub(old, 1.0);
            let span = b.fsub(end, begin);
            let span = b.fmul(span, top);
            let middle = b.fmul(span, 0.5);
            let wide = b.fsub(width, 1.0);
            let at = b.fmul(x, span);
            let at = b.fdiv(at, wide);
            let at = b.select(single, middle, at);
            let begin = b.fmul(begin, top);
            b.fadd(begin, at)
        }
    }
}

/// 1 if the upper neighbour is the nearest, else 0; the fraction is in (0, 1].
fn nearest(b: &mut Builder, mode: ResizeNearest, fraction: Val) -> Val {
    let up = match mode {
        ResizeNearest::RoundPreferFloor => b.cmp(CmpOp::FGt, fraction, 0.5),
        ResizeNearest::RoundPreferCeil => b.cmp(CmpOp::FGe, fraction, 0.5),
        ResizeNearest::Floor => b.cmp(CmpOp::FGe, fraction, 1.0),
        ResizeNearest::Ceil => b.cmp(CmpOp::FGt, fraction, 0.0),
    };
    flag(b, up)
}

/// The weight of an element at this distance.
fn weigh(b: &mut Builder, op: &Resize, distance: Val) -> Val {
    let x = b.fabs(distance);
    let zero = b_float(b, 0.0);
    if op.mode != ResizeMode::Cubic {
        let w = b.fsub(1.0, x);
        return b.fmax(w, zero);
    }
    let a = op.cubic_a;
    // ((a + 2) x - (a + 3)) x^2 + 1 up to 1, ((a x - 5 a) x + 8 a) x - 4 a up to 2.
    let near = b.fmul(x, a + 2.0);
    let near = b.fsub(near, a + 3.0);
    let near = b.fmul(near, x);
    let near = b.fmul(near, x);
    let near = b.fadd(near, 1.0);
    let far = b.fmul(x, a);
    let far = b.fsub(far, 5.0 * a);
    let far = b.fmul(far, x);
    let far = b.fadd(far, 8.0 * a);
    let far = b.fmul(far, x);
    let far = b.fsub(far, 4.0 * a);
    let close = b.cmp(CmpOp::FLe, x, 1.0);
    let in_reach = b.cmp(CmpOp::FLt, x, 2.0);
    let far = b.select(in_reach, far, zero);
    b.select(close, near, far)
}
