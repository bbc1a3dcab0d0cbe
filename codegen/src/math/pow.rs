//! Powers.

use super::{exp, log};
use crate::kernel::{Builder, CmpOp, Elem, Val};

/// x to the y, as C defines it. Exponents known at compile time that are small multiples of 1/4 take roots and products only,
/// where these stay within 4 ulp.
pub fn pow(b: &mut Builder, x: Val, y: Val) -> Val {
    let quarters =
        b.known_float(y).map(|y| y * 4.0).filter(|q| q.fract() == 0.0 && (-12.0..=16.0).contains(q));
    match quarters.map(|q| q as i32) {
        Some(q) if ![-11, -9, -7, 15].contains(&q) => pow_quarters(b, x, q),
        _ => pow_general(b, x, y),
    }
}

/// x to the `quarters / 4`, -3 to 4.
///
/// No step leaves the range of normal numbers unless the result is 0, infinite or subnormal: a power below -1 is one of the
/// reciprocal, one between -1 and 0 the reciprocal of one.
fn pow_quarters(b: &mut Builder, x: Val, quarters: i32) -> Val {
    let one = b.float(b.ty(x), 1.0);
    let positive = quarters.unsigned_abs();
    let (whole, part) = (positive / 4, positive % 4);
    // Roots of -0 and of minus infinity are those of the positive ones; of all other negative numbers they are NaN.
    let x = if part == 0 {
        x
    } else {
        let a = b.fabs(x);
        let zero = b.cmp(CmpOp::FEq, x, 0.0);
        let low = b.cmp(CmpOp::FEq, x, f64::NEG_INFINITY);
        let either = b.or(zero, low);
        b.select(either, a, x)
    };
    let x = if quarters <= -4 { b.fdiv(one, x) } else { x };
    let mut factors = Vec::new();
    if whole >= 2 {
        let square = b.fmul(x, x);
        factors.push(if whole == 4 { b.fmul(square, square) } else { square });
    }
    if whole % 2 == 1 {
        factors.push(x);
    }
    if part > 0 {
        let root = b.sqrt(x);
        if part >= 2 {
            factors.push(root);
        }
        if part != 2 {
            factors.push(b.sqrt(root));
        }
    }
    let product = factors.into_iter().reduce(|p, f| b.fmul(p, f)).unwrap_or(one);
    if (-3..0).contains(&quarters) { b.fdiv(one, product) } else { product }
}

/// x to the y through `F64`.
fn pow_general(b: &mut Builder, x: Val, y: Val) -> Val {
    let elem = b.ty(x).elem;
    let (x, y) = (b.float_to(x, Elem::F64), b.float_to(y, Elem::F64));
    let ty = b.ty(x);
    let a = b.fabs(x);
    let l = log(b, a);
    let t = b.fmul(y, l);
    let r = exp(b, t);
    let one = b.float(ty, 1.0);
    // A negative base: the sign for odd exponents, NaN for ones that are no integers.
    let whole = b.ftrunc(y);
    let is_whole = b.cmp(CmpOp::FEq, whole, y);
    let half = b.fmul(y, 0.5);
    let half_whole = b.ftrunc(half);
    let is_even = b.cmp(CmpOp::FEq, half_whole, half);
    let minus = b.fneg(r);
    let not_whole = b.not(is_whole);
    let not_odd = b.or(is_even, not_whole);
    let signed = b.select(not_odd, r, minus);
    let nan = b.float(ty, f64::NAN);
    let finite = b.cmp(CmpOp::FLt, a, f64::INFINITY);
    let bad = b.and(not_whole, finite);
    let signed = b.select(bad, nan, signed);
    let bits = b.bitcast(x, ty.with_elem(Elem::I64));
    let negative = b.cmp(CmpOp::Slt, bits, 0);
    let nonzero = b.cmp(CmpOp::FNe, x, 0.0);
    let apply = b.or(nonzero, is_whole);
    let negative = b.and(negative, apply);
    let r = b.select(negative, signed, r);
    // 1^y, x^0, and (-1)^(+-inf) are 1.
    let is_one = b.cmp(CmpOp::FEq, x, 1.0);
    let is_zero = b.cmp(CmpOp::FEq, y, 0.0);
    let unit = b.cmp(CmpOp::FEq, a, 1.0);
    let ya = b.fabs(y);
    let yinf = b.cmp(CmpOp::FEq, ya, f64::INFINITY);
    let unit = b.and(unit, yinf);
    let always = b.or(is_one, is_zero);
    let always = b.or(always, unit);
    let r = b.select(always, one, r);
    b.float_to(r, elem)
}
