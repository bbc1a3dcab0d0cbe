//! Operations on the lines of elements along one axis: where the extremes are, running sums, the top elements.

use super::cx::LowerCx;
use super::elem::{convert, load, store};
use super::launch::Launch;
use super::nest::{bits_elem, load_index};
use crate::kernel::{Access, Builder, CmpOp, Elem, Ty, Val};
use crate::math;
use planish_ir::op::normalize_axis;
use planish_ir::op::reduce::Cumulate;
use planish_ir::op::sort::{ArgReduce, TopK};
use planish_ir::{DType, Diag, Dim};

/// Whether `x` comes before `y` in the order of a search: larger (or smaller) first. NaN is larger than everything.
fn before(b: &mut Builder, d: DType, largest: bool, x: Val, y: Val) -> Val {
    let ty = b.ty(x);
    let (x, y) = if largest { (x, y) } else { (y, x) };
    if ty.elem.is_float() {
        let more = b.cmp(CmpOp::FGt, x, y);
        let (xn, yn) = (math::is_nan(b, x), math::is_nan(b, y));
        let number = b.not(yn);
        let first = b.and(xn, number);
        return b.or(more, first);
    }
    b.cmp(if d.is_unsigned_int() { CmpOp::Ugt } else { CmpOp::Sgt }, x, y)
}

/// Where the first element of a line stands: lines have `n` elements, `after` apart, and are numbered by what comes before
/// and after their axis.
fn first(b: &mut Builder, line: Val, after: Val, n: Val) -> Val {
    let (_, behind) = b.div_rem(line, after);
    let ahead = b.sub(line, behind);
    b.at(behind, ahead, n)
}

pub(super) fn lower_arg_reduce(cx: &mut LowerCx<'_>, op: &ArgReduce) -> Result<(), Diag> {
    let x = cx.input(0)?;
    let y = cx.output(0)?;
    let n = x.dims[op.axis].clone();
    let after = Dim::product(&x.dims[op.axis + 1..]);
    let lines = Dim::product(&x.dims[..op.axis]).mul(&after);
    let error = cx.error("nothing has no largest element");
    let (d, largest, last) = (x.dtype, op.largest, op.last);
    let l = Launch::new("arg_reduce").read(&x).write(&y).dim(&n).dim(&after).raises(error);
    let l = l.extent(lines).cost(n.mul(&Dim::Const(4)));
    cx.launch(l, move |k| {
        let (x, y, n, after, error) = (k.buf(0), k.buf(1), k.dim(0), k.dim(1), k.error(0));
        k.b.parallel_for(|b, line| {
            let empty = b.cmp(CmpOp::Sle, n, 0);
            b.error_if(empty, error);
            let some = b.not(empty);
            b.when(some, |b| {
                let base = first(b, line, after, n);
                let start = load(b, d, x, base, 1, None);
                let zero = b.i64(0);
                let best = b.for_(1, n, 1, &[start, zero], |b, i, now| {
                    let at = b.at(base, i, after);
                    let v = load(b, d, x, at, 1, None);
                    let mut better = before(b, d, largest, v, now[0]);
                    if last {
                        let worse = before(b, d, largest, now[0], v);
                        let not_worse = b.not(worse);
                        better = b.or(better, not_worse);
                    }
                    if b.ty(v).elem.is_float() {
                        // The first NaN stays, and takes the place of any number.
                        let (vn, bn) = (math::is_nan(b, v), math::is_nan(b, now[0]));
                        let kept = b.not(bn);
                        better = b.or(better, vn);
                        better = b.and(better, kept);
                    }
                    vec![b.select(better, v, now[0]), b.select(better, i, now[1])]
                });
                b.store(y, line, best[1]);
            });
        });
    })
}

pub(super) fn lower_cumulate(cx: &mut LowerCx<'_>, op: &Cumulate) -> Result<(), Diag> {
    let x = cx.input(0)?;
    let rank = x.dims.len();
    let y = cx.output(0)?;
    let d = x.dtype;
    // Floats are summed in 64 bits.
    let wide = if d.is_float() { DType::F64 } else { d };
    let op = op.clone();
    let line = move |b: &mut Builder, x, y, base: Val, n: Val, stride: Val| {
        let ty = Ty::scalar(super::elem::compute_elem(wide));
        let init = match (op.product, ty.elem.is_float()) {
            (true, true) => b.float(ty, 1.0),
            (true, false) => b.int(ty, 1),
            (false, _) => b.zero(ty),
        };
        let last = b.sub(n, 1);
        b.for_(0, n, 1, &[init], |b, i, now| {
            let i = if op.reverse { b.sub(last, i) } else { i };
            let at = b.at(base, i, stride);
            let v = load(b, d, x, at, 1, None);
            let v = convert(b, v, d, wide);
            let next = match (op.product, ty.elem.is_float()) {
                (true, true) => b.fmul(now[0], v),
                (true, false) => b.mul(now[0], v),
                (false, true) => b.fadd(now[0], v),
                (false, false) => b.add(now[0], v),
            };
            let out = convert(b, if op.exclusive { now[0] } else { next }, wide, d);
            store(b, d, y, at, out, None);
            vec![next]
        });
    };
    if let Some([axis]) = cx.const_ints(1).as_deref() {
        let axis = normalize_axis(*axis, rank)?;
        let (n, after) = (x.dims[axis].clone(), Dim::product(&x.dims[axis + 1..]));
        let lines = Dim::product(&x.dims[..axis]).mul(&after);
        let l = Launch::new("cumulate").read(&x).write(&y).dim(&n).dim(&after);
        let l = l.extent(lines).cost(n.mul(&Dim::Const(3)));
        return cx.launch(l, move |k| {
            let (x, y, n, after) = (k.buf(0), k.buf(1), k.dim(0), k.dim(1));
            k.b.parallel_for(|b, unit| {
                let base = first(b, unit, after, n);
                line(b, x, y, base, n, after);
            });
        });
    }
    let axis = cx.input(1)?;
    let error = cx.error("the axis is out of range");
    let index_type = axis.dtype;
    let l = Launch::new("cumulate_any").read(&x).write(&y).read(&axis).dims(&x.dims).raises(error);
    cx.launch(l, move |k| {
        let (x, y, axis, dims, error) = (k.buf(0), k.buf(1), k.buf(2), k.dims(0, rank), k.error(0));
        k.b.parallel_for(|b, _| {
            let zero = b.i64(0);
            let a = load_index(b, index_type, axis, zero);
            let ranks = b.i64(rank as i64);
            let (a, bad) = super::nest::wrap_index(b, a, ranks);
            b.error_if(bad, error);
            let one = b.i64(1);
            let (mut outer, mut n, mut after) = (one, one, one);
            for (i, d) in dims.iter().enumerate() {
                let here = b.cmp(CmpOp::Eq, a, i as i64);
                n = b.select(here, *d, n);
                let left = b.cmp(CmpOp::Sgt, a, i as i64);
                let f = b.select(left, *d, one);
                outer = b.mul(outer, f);
                let right = b.cmp(CmpOp::Slt, a, i as i64);
                let f = b.select(right, *d, one);
                after = b.mul(after, f);
            }
            b.loop_(0, outer, 1, |b, o| {
                b.loop_(0, after, 1, |b, i| {
                    let base = b.mul(o, n);
                    let base = b.mul(base, after);
                    let base = b.add(base, i);
                    line(b, x, y, base, n, after);
                });
            });
        });
    })
}

/// Every place takes the best element after the one of the place before, in the order of value and index.
pub(super) fn lower_top_k(cx: &mut LowerCx<'_>, op: &TopK) -> Result<(), Diag> {
    let x = cx.input(0)?;
    let (_, out) = cx.output_type(0)?;
    let n = x.dims[op.axis].clone();
    let k_dim = out[op.axis].clone();
    if super::movement::is_fresh(cx, &k_dim) {
        let k = cx.input(1)?;
        cx.bind(&k_dim, &k, 0, &Dim::Const(0), &n, "k is larger than the axis")?;
    } else if n.as_const().is_none() || k_dim.as_const().is_none() {
        // n - max(n, k) is 0 as long as k is no more than n.
        let excess = n.larger(&k_dim).sub(&n);
        cx.require_equal(&excess, &Dim::Const(0), "k is larger than the axis");
    }
    let (values, indices) = (cx.output(0)?, cx.output(1)?);
    let after = Dim::product(&x.dims[op.axis + 1..]);
    let lines = Dim::product(&x.dims[..op.axis]).mul(&after);
    let (d, largest) = (x.dtype, op.largest);
    let elem = bits_elem(d);
    let l = Launch::new("top_k")
        .read(&x)
        .raw(&x, elem, Access::Read)
        .raw(&values, elem, Access::Write)
        .write(&indices)
        .dim(&n)
        .dim(&after)
        .dim(&k_dim)
        .extent(lines)
        .cost(n.mul(&k_dim).mul(&Dim::Const(6)));
    cx.launch(l, move |k| {
        let (x, bits, values, indices) = (k.buf(0), k.buf(1), k.buf(2), k.buf(3));
        let (n, after, count) = (k.dim(0), k.dim(1), k.dim(2));
        k.b.parallel_for(|b, line| {
            let (from, to) = (first(b, line, after, n), first(b, line, after, count));
            let ty = Ty::scalar(super::elem::compute_elem(d));
            let (none, nothing) = (b.zero(ty), b.i64(-1));
            b.for_(0, count, 1, &[none, nothing], |b, r, last| {
                let start = b.cmp(CmpOp::Slt, last[1], 0);
                let found = b.for_(0, n, 1, &[none, nothing], |b, i, best| {
                    let at = b.at(from, i, after);
                    let v = load(b, d, x, at, 1, None);
                    // After the last one: worse, or as good and further on.
                    let worse = before(b, d, largest, last[0], v);
                    let better = before(b, d, largest, v, last[0]);
                    let alike = b.or(worse, better);
                    let alike = b.not(alike);
                    let further = b.cmp(CmpOp::Sgt, i, last[1]);
                    let alike = b.and(alike, further);
                    let open = b.or(worse, alike);
                    let open = b.or(open, start);
                    let unset = b.cmp(CmpOp::Slt, best[1], 0);
                    let beats = before(b, d, largest, v, best[0]);
                    let beats = b.or(beats, unset);
                    let take = b.and(open, beats);
                    vec![b.select(take, v, best[0]), b.select(take, i, best[1])]
                });
                let place = b.at(to, r, after);
                let chosen = b.smax(found[1], 0);
                let at = b.at(from, chosen, after);
                let v = b.load(bits, at, 1);
                b.store(values, place, v);
                b.store(indices, place, chosen);
                found
            });
        });
    })
}

/// The type of a condition as a number, for sums of flags.
pub(super) fn flag(b: &mut Builder, c: Val) -> Val {
    b.zext(c, Elem::I64)
}
