//! Softmax along an axis.

use super::{fold_lanes, keep, simt_rows};
use crate::kernel::{Access, BinOp, Builder, CmpOp, Elem, Ty, Val};
use crate::lower::cx::{LowerCx, Opnd};
use crate::lower::elem::{compute_elem, load, mem_elem, store};
use crate::lower::launch::{KernelCx, Launch};
use crate::lower::nest::span;
use crate::math;
use planish_ir::op::softmax::{Softmax, SoftmaxKind};
use planish_ir::{Diag, Dim};

/// Columns that one step of the parallel axis does.
const COLUMNS: i64 = 64;

/// Rows in vectors along the axis where it is the innermost, else columns in vectors across it.
pub(in crate::lower) fn lower_softmax(cx: &mut LowerCx<'_>, op: &Softmax) -> Result<(), Diag> {
    let (x, y) = (cx.input(0)?, cx.output(0)?);
    let outer = Dim::product(&x.dims[..op.axis]);
    let n = x.dims[op.axis].clone();
    let inner = Dim::product(&x.dims[op.axis + 1..]);
    let flops = x.elems().mul(&25.into());
    if inner.is(1) && op.kind != SoftmaxKind::Hardmax && simt_rows::takes(cx, x.dtype, &n) {
        let l = Launch::new("softmax").read(&x).write(&y).dim(&n).extent(outer).flops(flops);
        return cx.launch_blocks(l, simt_rows::BLOCK, |k| simt_rows::softmax(k, op.kind, x.dtype));
    }
    if inner.is(1) && op.kind != SoftmaxKind::Hardmax {
        let l = Launch::new("softmax")
            .read(&x)
            .raw(&y, mem_elem(y.dtype), Access::ReadWrite)
            .dim(&n)
            .extent(outer)
            .cost(n.mul(&25.into()))
            .flops(flops);
        return cx.launch(l, |k| rows(k, op.kind, &x));
    }
    let blocks = inner.ceil_div(&COLUMNS.into());
    let l = Launch::new("softmax")
        .read(&x)
        .write(&y)
        .dim(&n)
        .dim(&inner)
        .dim(&blocks)
        .extent(outer.mul(&blocks))
        .cost(n.mul(&(25 * COLUMNS).into()))
        .flops(flops);
    cx.launch(l, |k| columns(k, op.kind, &x))
}

fn rows(k: &mut KernelCx<'_>, kind: SoftmaxKind, x: &Opnd) {
    let d = x.dtype;
    let elem = compute_elem(d);
    let lanes = k.lanes(elem);
    let ty = Ty::vec(elem, lanes);
    let (from, to, n) = (k.buf(0), k.buf(1), k.dim(0));
    // What is stored in between must not be rounded.
    let parked = kind == SoftmaxKind::Softmax && mem_elem(d) == elem;
    k.b.parallel_for(|b, row| {
        let base = b.mul(row, n);
        let low = b.float(ty, f64::NEG_INFINITY);
        let max = fold_lanes(b, n, lanes, &[low], |b, acc, i, mask| {
            let at = b.add(base, i);
            let v = load(b, d, from, at, lanes, mask);
            let v = keep(b, mask, v, f64::NEG_INFINITY);
            vec![b.fmaxnum(acc[0], v)]
        });
        let max = b.reduce(BinOp::FMaxNum, max[0]);
        let max = b.splat(max, lanes);
        let zero = b.zero(ty);
        let sum = fold_lanes(b, n, lanes, &[zero], |b, acc, i, mask| {
            let at = b.add(base, i);
            let v = load(b, d, from, at, lanes, mask);
            let v = b.fsub(v, max);
            let e = math::exp(b, v);
            if parked {
                b.store_opt(to, at, e, mask);
            }
            let e = keep(b, mask, e, 0.0);
            vec![b.fadd(acc[0], e)]
        });
        let sum = b.reduce(BinOp::FAdd, sum[0]);
        let last = match kind {
            SoftmaxKind::LogSoftmax => math::log(b, sum),
            _ => b.fdiv(1.0, sum),
        };
        let last = b.splat(last, lanes);
        b.for_lanes(0, n, lanes, |b, i, mask| {
            let at = b.add(base, i);
            let y = if parked {
                let e = b.load_opt(to, at, lanes, mask);
                b.fmul(e, last)
            } else {
                let v = load(b, d, from, at, lanes, mask);
                let v = b.fsub(v, max);
                finish(b, kind, v, last)
            };
            store(b, d, to, at, y, mask);
        });
    });
}

/// The result of `v = x - max`; `last` is the logarithm of the sum, or the reciprocal of the sum.
fn finish(b: &mut Builder, kind: SoftmaxKind, v: Val, last: Val) -> Val {
    if kind == SoftmaxKind::LogSoftmax {
        return b.fsub(v, last);
    }
    let e = math::exp(b, v);
    b.fmul(e, last)
}

fn columns(k: &mut KernelCx<'_>, kind: SoftmaxKind, x: &Opnd) {
    let d = x.dtype;
    let elem = compute_elem(d);
    let lanes = k.lanes(elem);
    let ty = Ty::vec(elem, lanes);
    let (from, to) = (k.buf(0), k.buf(1));
    let (n, inner, blocks) = (k.dim(0), k.dim(1), k.dim(2));
    k.b.parallel_for(|b, unit| {
        let (outer, block) = b.div_rem(unit, blocks);
        let rows = b.mul(outer, n);
        let base = b.mul(rows, inner);
        let (lo, hi) = span(b, block, COLUMNS, inner);
        b.for_lanes(lo, hi, lanes, |b, i, mask| {
            let base = b.add(base, i);
            let low = b.float(ty, f64::NEG_INFINITY);
            let max = b.for_(0, n, 1, &[low], |b, r, acc| {
                let at = b.at(base, r, inner);
                let v = load(b, d, from, at, lanes, mask);
                vec![b.fmaxnum(acc[0], v)]
            })[0];
            if kind == SoftmaxKind::Hardmax {
                let none = b.zero(Ty::vec(Elem::I32, lanes));
                b.for_(0, n, 1, &[none], |b, r, done| {
                    let at = b.at(base, r, inner);
                    let v = load(b, d, from, at, lanes, mask);
                    let hit = b.cmp(CmpOp::FEq, v, max);
                    let hit = b.zext(hit, Elem::I32);
                    let free = b.xor(done[0], 1);
                    let hit = b.and(hit, free);
                    let y = b.cmp(CmpOp::Ne, hit, 0);
                    let (one, zero) = (b.float(ty, 1.0), b.zero(ty));
                    let y = b.select(y, one, zero);
                    store(b, d, to, at, y, mask);
                    vec![b.or(done[0], hit)]
                });
                return;
            }
            let zero = b.zero(ty);
            let sum = b.for_(0, n, 1, &[zero], |b, r, acc| {
                let at = b.at(base, r, inner);
                let v = load(b, d, from, at, lanes, mask);
                let v = b.fsub(v, max);
                let e = math::exp(b, v);
                vec![b.fadd(acc[0], e)]
            })[0];
            let last = match kind {
                SoftmaxKind::LogSoftmax => math::log(b, sum),
                _ => {
                    let one = b.float(ty, 1.0);
                    b.fdiv(one, sum)
                }
            };
            b.loop_(0, n, 1, |b, r| {
                let at = b.at(base, r, inner);
                let v = load(b, d, from, at, lanes, mask);
                let v = b.fsub(v, max);
                let y = finish(b, kind, v, last);
                store(b, d, to, at, y, mask);
            });
        });
    });
}
