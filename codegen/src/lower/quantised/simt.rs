//! Products of bytes on GPUs: tensor cores multiply signed bytes and sum in 32 bits; zero points and the offset of unsigned bytes are
//! taken off the sums.

use super::passed::Passed;
use super::plain::widen;
use super::product::Sides;
use crate::kernel::{Builder, Elem, Ty, Val};
use crate::lower::contraction::{Epilogue, Place};
use crate::lower::cx::{LowerCx, Opnd};
use crate::lower::elem::load;
use crate::simt::tensor::{self, TensorProduct};
use planish_ir::{DType, Diag};

/// What is subtracted from a byte so that it is signed.
fn offset(d: DType) -> i64 {
    if d == DType::U8 { 128 } else { 0 }
}

/// Whether the factors are of types that tensor cores multiply.
pub(super) fn takes(s: &Sides) -> bool {
    [s.a.dtype, s.b_type].iter().all(|d| matches!(d, DType::I8 | DType::U8))
}

/// Emits the product of `a` and `w` with their zero points, and what follows it.
pub(super) fn emit(cx: &mut LowerCx<'_>, s: &Sides, w: &Opnd, mut e: Epilogue) -> Result<(), Diag> {
    let down = s.m().ceil_div(&i64::from(tensor::BLOCK[0]).into());
    let across = s.n().ceil_div(&i64::from(tensor::BLOCK[1]).into());
    let (l, passed) = Passed::launch(cx, (s, w), &mut e, [&down, &across])?;
    let types = [s.a.dtype, w.dtype];
    let varies = passed.varies;
    let totals = passed.given.contains(&true) || types.contains(&DType::U8);
    cx.launch_blocks(l, tensor::THREADS, |kc| {
        let epi = e.handles(kc);
        let got = passed.get(kc);
        let (bufs, zero_bufs) = (got.operands, got.zeros);
        let [m, n, k, down, across] = got.sizes;
        let unit = kc.unit();
        let b = &mut kc.b;
        let thread = b.thread_id(0);
        let (rest, bx) = b.div_rem(unit, across);
        let (matrix, by) = b.div_rem(rest, down);
        let ([off_a, off_w], zero_offsets) = got.offsets(b, matrix);
        let mn = b.mul(m, n);
        let off_c = b.mul(matrix, mn);
        let factor = |b: &mut Builder, i: usize, at: Val, inside: Val| {
            let v = load(b, types[i], bufs[i], at, 1, Some(inside));
            let v = b.trunc(v, Elem::I8);
            if types[i] != DType::U8 {
                return v;
            }
            let v = b.xor(v, i64::from(i8::MIN));
            // What is outside the matrix adds nothing.
            let none = b.zero(b.ty(v));
            b.select(inside, v, none)
        };
        let left = |b: &mut Builder, r: Val, c: Val, inside: Val| {
            let at = b.at(c, r, k);
            let at = b.add(at, off_a);
            factor(b, 0, at, inside)
        };
        let right = |b: &mut Builder, r: Val, c: Val, inside: Val| {
            let at = b.at(c, r, n);
            let at = b.add(at, off_w);
            factor(b, 1, at, inside)
        };
        // The zero point of a row of `a` or a column of `w`, less the offset of the bytes; none if that is 0 throughout.
        let zero = |b: &mut Builder, i: usize, line: Val| {
            let shift = offset(types[i]);
            let Some(buf) = zero_bufs[i] else {
                return (shift != 0).then(|| b.int(Ty::scalar(Elem::I32), -shift));
            };
            let at = if varies[i] { b.add(zero_offsets[i], line) } else { zero_offsets[i] };
            let z = b.load(buf, at, 1);
            let z = widen(b, types[i], z);
            Some(b.sub(z, shift))
        };
        let finish = |b: &mut Builder, (r, col): (Val, Val), mut v: Val, totals: Option<(Val, Val)>| {
            if let Some((row, column)) = totals {
                let (za, zw) = (zero(b, 0, r), zero(b, 1, col));
                for (z, total) in [(za, column), (zw, row)] {
                    if let Some(z) = z {
                        let p = b.mul(z, total);
                        v = b.sub(v, p);
                    }
                }
                if let (Some(za), Some(zw)) = (za, zw) {
                    let length = b.trunc(k, Elem::I32);
                    let p = b.mul(za, zw);
                    let p = b.mul(p, length);
                    v = b.add(v, p);
                }
            }
            let index = b.at(col, r, n);
            let index = b.add(index, off_c);
            e.finish(b, &epi, v, &Place { index, channel: col, last: col }, None);
        };
        let product = TensorProduct {
            elem: Elem::I8,
            sizes: (m, n, k),
            thread,
            block: (bx, by),
            left: &left,
            right: &right,
            totals,
            finish: &finish,
        };
        product.emit(b);
    })
}
