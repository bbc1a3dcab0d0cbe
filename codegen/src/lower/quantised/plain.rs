//! Products whose second operand is not known at compile time: every factor is widened to 32 bits.

use super::product::Sides;
use crate::kernel::{Builder, CmpOp, Elem, Ty, Val};
use crate::lower::contraction::{Epilogue, Place};
use crate::lower::cx::{LowerCx, Opnd};
use crate::lower::launch::Launch;
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
    let (a, out) = (&s.a, &s.out);
    let zeros = s.zeros(cx)?;
    let rank = out.len();
    let (m, n, k) = (s.m(), s.n(), s.k());
    let lead = out[..rank - 2].to_vec();
    let (row_blocks, column_blocks) = (m.ceil_div(&ROWS.into()), n.ceil_div(&COLUMNS.into()));
    let units = Dim::product(&lead).mul(&row_blocks).mul(&column_blocks);
    let work = k.mul(&n.smaller(&COLUMNS.into())).mul(&ROWS.into()).floor_div(&Dim::Const(8));
    let flops = Dim::product(out).mul(&k).mul(&2.into());
    let mut l = Launch::new("matmul_integer").read(a).read(w).extent(units).cost(work).flops(flops);
    for z in zeros.iter().flatten() {
        l = l.read(z);
    }
    let first = 2 + zeros.iter().flatten().count();
    l = e.bufs(l, first);
    // Dims: sizes, then the leading dims of the result and of every operand, zero points padded to full rank.
    l = l.dim(&m).dim(&n).dim(&k).dim(&row_blocks).dim(&column_blocks).dims(&lead);
    let lead_of = |x: &Opnd| x.dims[..x.dims.len().saturating_sub(2)].to_vec();
    l = l.dims(&lead_of(a)).dims(&lead_of(w));
    let varies = s.zeros_vary(&zeros);
    for z in zeros.iter().flatten() {
        l = l.dims(&lead_of(z));
    }
    let counts = [lead.len(), lead_of(a).len(), lead_of(w).len()];
    let zero_counts: Vec<usize> = zeros.iter().map(|z| z.as_ref().map_or(0, |z| lead_of(z).len())).collect();
    let (da, dw) = (a.dtype, w.dtype);
    let given: Vec<bool> = zeros.iter().map(Option::is_some).collect();
    cx.launch(l, |kc| {
        let lanes = kc.lanes(Elem::I32);
        let epi = e.handles(kc);
        let (a, w) = (kc.buf(0), kc.buf(1));
        let za = given[0].then(|| kc.buf(2));
        let zb = given[1].then(|| kc.buf(2 + usize::from(given[0])));
        let (m, n, k, row_blocks, column_blocks) = (kc.dim(0), kc.dim(1), kc.dim(2), kc.dim(3), kc.dim(4));
        let mut at = 5;
        let mut take = |count: usize| {
            at += count;
            kc.dims(at - count, count)
        };
        let (lead, lead_a, lead_w) = (take(counts[0]), take(counts[1]), take(counts[2]));
        let (lead_za, lead_zb) = (take(zero_counts[0]), take(zero_counts[1]));
        let b = &mut kc.b;
        b.parallel_for(|b, unit| {
            let (q, column_block) = b.div_rem(unit, column_blocks);
            let (matrix, row_block) = b.div_rem(q, row_blocks);
            let (mk, kn) = (b.mul(m, k), b.mul(k, n));
            let off_a = matrix_offset(b, &lead, &lead_a, matrix, mk);
            let off_w = matrix_offset(b, &lead, &lead_w, matrix, kn);
            let one = b.i64(1);
            let off_za = matrix_offset(b, &lead, &lead_za, matrix, if varies[0] { m } else { one });
            let off_zb = matrix_offset(b, &lead, &lead_zb, matrix, if varies[1] { n } else { one });
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
