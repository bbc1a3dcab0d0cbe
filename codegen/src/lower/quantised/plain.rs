//! Products whose second operand is not known at compile time: every factor is widened to 32 bits.

use super::passed::Passed;
use super::product::Sides;
use crate::kernel::{Builder, CmpOp, Elem, Ty, Val};
use crate::lower::contraction::{Epilogue, Place};
use crate::lower::cx::{LowerCx, Opnd};
use crate::lower::nest::span;
use planish_ir::{DType, Diag, Dim};

/// Rows of the first operand that share the loads of the second.
const ROWS: i64 = 4;
/// Columns of one unit of work.
const COLUMNS: i64 = 256;

/// How an operand that is broadcast over leading axes advances with the flat number of a matrix of the result.
pub(super) fn matrix_offset(b: &mut Builder, lead: &[Val], own: &[Val], matrix: Val, size: Val) -> Val {
    let (mut rest, mut offset, mut stride) = (matrix, b.i64(0), size);
    for (axis, n) in lead.iter().enumerate().rev() {
        let (q, i) = b.div_rem(rest, *n);
        rest = q;
        if let Some(k) = (axis + own.len()).checked_sub(lead.len()) {
            let single = b.cmp(CmpOp::Eq, own[k], 1);
            let step = b.select(single, 0, stride);
            offset = b.at(offset, i, step);
            stride = b.mul(stride, own[k]);
        }
    }
    offset
}

/// i8 or u8 as i32.
pub(super) fn widen(b: &mut Builder, d: DType, v: Val) -> Val {
    if d == DType::U8 { b.zext(v, Elem::I32) } else { b.sext(v, Elem::I32) }
}

/// Emits the product of `a` and `w` with their zero points, and what follows it.
pub(super) fn emit(cx: &mut LowerCx<'_>, s: &Sides, w: &Opnd, mut e: Epilogue) -> Result<(), Diag> {
    let (m, n, k) = (s.m(), s.n(), s.k());
    let (row_blocks, column_blocks) = (m.ceil_div(&ROWS.into()), n.ceil_div(&COLUMNS.into()));
    let work = k.mul(&n.smaller(&COLUMNS.into())).mul(&ROWS.into()).floor_div(&Dim::Const(8));
    let (l, passed) = Passed::launch(cx, (s, w), &mut e, [&row_blocks, &column_blocks])?;
    let (da, dw) = (s.a.dtype, w.dtype);
    let varies = passed.varies;
    cx.launch(l.cost(work), |kc| {
        let lanes = kc.lanes(Elem::I32);
        let epi = e.handles(kc);
        let got = passed.get(kc);
        let ([a, w], [za, zb]) = (got.operands, got.zeros);
        let [m, n, k, row_blocks, column_blocks] = got.sizes;
        let b = &mut kc.b;
        b.parallel_for(|b, unit| {
            let (q, column_block) = b.div_rem(unit, column_blocks);
            let (matrix, row_block) = b.div_rem(q, row_blocks);
            let ([off_a, off_w], [off_za, off_zb]) = got.offsets(b, matrix);
            let row = b.mul(row_block, ROWS);
            let last = b.sub(m, 1);
            // Rows beyond the last are computed as the last one again.
            let rows: Vec<Val> = (0..ROWS)
                .map(|r| {
                    let r = b.add(row, r);
                    b.smin(r, last)
                })
                .collect();
            let starts: Vec<Val> = rows.iter().map(|r| b.at(off_a, *r, k)).collect();
            let row_zeros: Option<Vec<Val>> = za.map(|za| {
                let load = |b: &mut Builder, r: &Val| {
                    let at = if varies[0] { b.add(off_za, *r) } else { off_za };
                    let z = b.load(za, at, 1);
                    widen(b, da, z)
                };
                rows.iter().map(|r| load(b, r)).collect()
            });
            let base = b.mul(matrix, m);
            let (lo, hi) = span(b, column_block, COLUMNS, n);
            b.for_lanes(lo, hi, lanes, |b, j, mask| {
                let column_zero = zb.map(|zb| {
                    let z = if varies[1] {
                        let at = b.add(off_zb, j);
                        b.load_opt(zb, at, lanes, mask)
                    } else {
                        let z = b.load(zb, off_zb, 1);
                        b.splat(z, lanes)
                    };
                    widen(b, dw, z)
                });
                let zero = b.zero(Ty::vec(Elem::I32, lanes));
                let sums = b.for_(0, k, 1, &[zero; ROWS as usize], |b, t, sums| {
                    let at = b.at(off_w, t, n);
                    let at = b.add(at, j);
                    let v = b.load_opt(w, at, lanes, mask);
                    let mut v = widen(b, dw, v);
                    if let Some(z) = column_zero {
                        v = b.sub(v, z);
                    }
                    let mut next = Vec::with_capacity(sums.len());
                    for (i, s) in sums.iter().enumerate() {
                        let at = b.add(starts[i], t);
                        let x = b.load(a, at, 1);
                        let mut x = widen(b, da, x);
                        if let Some(z) = &row_zeros {
                            x = b.sub(x, z[i]);
                        }
                        let x = b.splat(x, lanes);
                        let p = b.mul(x, v);
                        next.push(b.add(*s, p));
                    }
                    next
                });
                for (r, s) in rows.iter().zip(sums) {
                    let at = b.add(base, *r);
                    let index = b.at(j, at, n);
                    e.finish(b, &epi, s, &Place { index, channel: j, last: j }, mask);
                }
            });
        });
    })
}
