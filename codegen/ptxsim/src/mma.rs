//! Products of matrices by a warp: the fragments that PTX defines.
//!
//! With `g = lane / 4` and `t = lane % 4`, and `w` values to a register of 32 bits, a lane holds of `a` (16 rows) the columns
//! `w * t..` and `w * t + 4 * w..` of the rows `g` and `g + 8`, rows first; of `b` the same rows of column `g`; and of `c` and `d`
//! (8 columns) the columns `2 * t..` of the rows `g` and `g + 8`, a value to a register.

use crate::op::{Kind, MmaShape, Operand, Reg};
use crate::run::{LANES, Warp};
use crate::value;

const F32_OF_TF32: u64 = 0xFFFF_E000;

/// Values of a register of an operand.
fn values(shape: MmaShape, word: u64) -> [f64; 4] {
    match shape {
        MmaShape::Half(ty) => {
            [value::widen(ty, word & 0xFFFF).into(), value::widen(ty, word >> 16 & 0xFFFF).into(), 0.0, 0.0]
        }
        // The hardware reads the upper 19 bits.
        MmaShape::Tf32 => [f64::from(f32::from_bits((word & F32_OF_TF32) as u32)), 0.0, 0.0, 0.0],
        MmaShape::Bytes { .. } => [0.0; 4],
    }
}

/// `d = a * b + c`.
pub(crate) fn multiply(
    w: &mut Warp,
    shape: MmaShape,
    (d, a, b, c): (&[Reg; 4], &[Operand], &[Operand], &[Operand; 4]),
) {
    if let MmaShape::Bytes { left, right } = shape {
        return integers(w, (left == Kind::Signed, right == Kind::Signed), (d, a, b, c));
    }
    let per = shape.per_register();
    let depth = shape.depth();
    let (mut left, mut right) = ([[0f64; 16]; 16], [[0f64; 8]; 16]);
    for l in 0..LANES {
        let (g, t) = (l / 4, l % 4);
        for (i, o) in a.iter().enumerate() {
            let (row, col) = (g + 8 * (i % 2), per * t + 4 * per * (i / 2));
            left[row][col..col + per].copy_from_slice(&values(shape, w.get(*o, l))[..per]);
        }
        for (i, o) in b.iter().enumerate() {
            let row = per * t + 4 * per * i;
            for (j, v) in values(shape, w.get(*o, l))[..per].iter().enumerate() {
                right[row + j][g] = *v;
            }
        }
    }
    for l in 0..LANES {
        let (g, t) = (l / 4, l % 4);
        for i in 0..4 {
            let (row, col) = (g + 8 * (i / 2), 2 * t + i % 2);
            let start = f64::from(f32::from_bits(w.get(c[i], l) as u32));
            // The order and the width of the sums inside are not specified; here they are exact but for f64.
            let sum = (0..depth).fold(start, |s, k| s + left[row][k] * right[k][col]);
            w.set(d[i], l, u64::from((sum as f32).to_bits()));
        }
    }
}

fn integers(
    w: &mut Warp,
    signed: (bool, bool),
    (d, a, b, c): (&[Reg; 4], &[Operand], &[Operand], &[Operand; 4]),
) {
    let byte = |word: u64, j: usize, signed: bool| {
        let v = (word >> (8 * j)) as u8;
        if signed { i32::from(v.cast_signed()) } else { i32::from(v) }
    };
    let (mut left, mut right) = ([[0i32; 32]; 16], [[0i32; 8]; 32]);
    for l in 0..LANES {
        let (g, t) = (l / 4, l % 4);
        for (i, o) in a.iter().enumerate() {
            for j in 0..4 {
                left[g + 8 * (i % 2)][4 * t + 16 * (i / 2) + j] = byte(w.get(*o, l), j, signed.0);
            }
        }
        for (i, o) in b.iter().enumerate() {
            for j in 0..4 {
                right[4 * t + 16 * i + j][g] = byte(w.get(*o, l), j, signed.1);
            }
        }
    }
    for l in 0..LANES {
        let (g, t) = (l / 4, l % 4);
        for i in 0..4 {
            let (row, col) = (g + 8 * (i / 2), 2 * t + i % 2);
            let sum =
                (0..32).fold(w.get(c[i], l) as i32, |s, k| s.wrapping_add(left[row][k] * right[k][col]));
            w.set(d[i], l, u64::from(sum.cast_unsigned()));
        }
    }
}
