//! Exponential and logarithm, and what follows from them.

use super::{copysign, fast, in_f64, int_ty, nan_where, poly};
use crate::kernel::{Builder, CmpOp, Elem, Ty, Val};

/// 1/k! for k = n down to 0.
fn taylor(n: u32) -> Vec<f64> {
    let mut c = vec![1.0];
    for k in 1..=n {
        c.push(c[c.len() - 1] / f64::from(k));
    }
    c.reverse();
    c
}

/// `2^n` for integer lanes `n` in the exponent range of normal numbers.
fn exp2_int(b: &mut Builder, n: Val, ty: Ty) -> Val {
    let (bias, shift) = if ty.elem == Elem::F64 { (1023, 52) } else { (127, 23) };
    let e = b.add(n, bias);
    let bits = b.shl(e, shift);
    b.bitcast(bits, ty)
}

/// ln 2 in two parts: products of the first with an exponent are exact.
fn ln2(wide: bool) -> (f64, f64) {
    if wide {
        (0.693_147_180_369_123_8, 1.908_214_929_270_587_7e-10)
    } else {
        (0.693_359_375, -2.121_944_400_546_905_8e-4)
    }
}

/// e to the x.
pub fn exp(b: &mut Builder, x: Val) -> Val {
    if fast::applies(b, x) {
        return fast::exp(b, x);
    }
    let ty = b.ty(x);
    let wide = ty.elem == Elem::F64;
    let (lo, hi) = if wide { (-746.0, 710.0) } else { (-104.0, 89.0) };
    let (ln2_hi, ln2_lo) = ln2(wide);
    let x = b.fmax(x, lo);
    let x = b.fmin(x, hi);
    let t = b.fmul(x, std::f64::consts::LOG2_E);
    let n = b.round_even(t);
    let r = b.fma(n, -ln2_hi, x);
    let r = b.fma(n, -ln2_lo, r);
    let p = poly(b, r, &taylor(if wide { 13 } else { 7 }));
    // In two steps, so that results beyond the normal range come out right.
    let n = b.fptosi(n, int_ty(ty).elem);
    let half = b.ashr(n, 1);
    let rest = b.sub(n, half);
    let (s, t) = (exp2_int(b, half, ty), exp2_int(b, rest, ty));
    let p = b.fmul(p, s);
    b.fmul(p, t)
}

/// Natural logarithm.
pub fn log(b: &mut Builder, x: Val) -> Val {
    let ty = b.ty(x);
    let ity = int_ty(ty);
    let wide = ty.elem == Elem::F64;
    let (shift, tiny, up, terms) =
        if wide { (52, f64::MIN_POSITIVE, 54, 12) } else { (23, f64::from(f32::MIN_POSITIVE), 24, 6) };
    let scale = b.float(ty, 2f64.powi(up));
    let small = b.cmp(CmpOp::FLt, x, tiny);
    let scaled = b.fmul(x, scale);
    let y = b.select(small, scaled, x);
    let bits = b.bitcast(y, ity);
    // m in [sqrt(1/2), sqrt(2)): subtract the bits of sqrt(1/2), take the exponent, put the rest back.
    let base = if wide { 0.5f64.sqrt().to_bits() as i64 } else { i64::from(0.5f32.sqrt().to_bits()) };
    let off = b.sub(bits, base);
    let e = b.ashr(off, shift);
    let part = b.shl(e, shift);
    let mbits = b.sub(bits, part);
    let m = b.bitcast(mbits, ty);
    let e_small = b.sub(e, i64::from(up));
    let e = b.select(small, e_small, e);
    let e = b.sitofp(e, ty.elem);
    let num = b.fsub(m, 1.0);
    let den = b.fadd(m, 1.0);
    let f = b.fdiv(num, den);
    let z = b.fmul(f, f);
    // log m = 2 f + 2 f z (1/3 + z/5 + ...)
    let coefs: Vec<f64> = (0..terms).rev().map(|k| 2.0 / f64::from(2 * k + 3)).collect();
    let s = poly(b, z, &coefs);
    let s = b.fmul(s, z);
    let tail = b.fmul(s, f);
    let (ln2_hi, ln2_lo) = ln2(wide);
    let tail = b.fma(e, ln2_lo, tail);
    let two_f = b.fadd(f, f);
    let low = b.fadd(two_f, tail);
    let r = b.fma(e, ln2_hi, low);
    let zero = b.cmp(CmpOp::FEq, x, 0.0);
    let minus = b.float(ty, f64::NEG_INFINITY);
    let r = b.select(zero, minus, r);
    let plus = b.float(ty, f64::INFINITY);
    let inf = b.cmp(CmpOp::FEq, x, plus);
    let r = b.select(inf, plus, r);
    let negative = b.cmp(CmpOp::FLt, x, 0.0);
    let r = nan_where(b, negative, r);
    let nan = super::is_nan(b, x);
    b.select(nan, x, r)
}

/// 1 / (1 + e^-x). Of |x|, so that results near 0 are quotients by 1 and keep their relative error.
pub fn sigmoid(b: &mut Builder, x: Val) -> Val {
    if fast::applies(b, x) {
        return fast::sigmoid(b, x);
    }
    let a = b.fabs(x);
    let n = b.fneg(a);
    let e = exp(b, n);
    let d = b.fadd(e, 1.0);
    let one = b.float(b.ty(x), 1.0);
    let below = b.cmp(CmpOp::FLt, x, 0.0);
    let num = b.select(below, e, one);
    let y = b.fdiv(num, d);
    // What 1 + e and the quotient lost comes back, times 1 / d = 1 - e / d: the rounding of e^-x alone takes most of 2 ulp.
    let lost = b.fsub(one, d);
    let lost = b.fadd(lost, e);
    let minus = b.fneg(y);
    let rest = b.fma(minus, d, num);
    let rest = b.fma(minus, lost, rest);
    let other = b.fsub(one, y);
    let inverse = b.select(below, other, y);
    b.fma(rest, inverse, y)
}

/// e^x - 1 for |x| <= 1.3, without cancellation.
fn expm1_small(b: &mut Builder, x: Val) -> Val {
    let n = if b.ty(x).elem == Elem::F64 { 22 } else { 12 };
    let mut c = taylor(n);
    c.pop();
    let p = poly(b, x, &c);
    b.fmul(p, x)
}

/// Hyperbolic tangent.
pub fn tanh(b: &mut Builder, x: Val) -> Val {
    if fast::applies(b, x) {
        return fast::tanh(b, x);
    }
    let ty = b.ty(x);
    let a = b.fabs(x);
    let two = b.fadd(a, a);
    // Large: 1 - 2 / (e^2a + 1). Beyond 22 it is 1.
    let capped = b.fmin(two, 44.0);
    let e = exp(b, capped);
    let d = b.fadd(e, 1.0);
    let q = b.float(ty, 2.0);
    let q = b.fdiv(q, d);
    let one = b.float(ty, 1.0);
    let large = b.fsub(one, q);
    let small = if ty.elem == Elem::F64 {
        let t = b.fadd(x, x);
        let t = b.fmin(t, 1.3);
        let t = b.fmax(t, -1.3);
        let m = expm1_small(b, t);
        let d = b.fadd(m, 2.0);
        b.fdiv(m, d)
    } else {
        // Cephes tanhf.
        let z = b.fmul(x, x);
        let c = [
            -5.704_988_727_45e-3,
            2.063_908_879_54e-2,
            -5.373_971_555_31e-2,
            1.333_144_220_36e-1,
            -3.333_328_194_22e-1,
        ];
        let p = poly(b, z, &c);
        let p = b.fmul(p, z);
        b.fma(p, x, x)
    };
    let is_small = b.cmp(CmpOp::FLt, a, 0.625);
    let r = b.select(is_small, small, large);
    let r = copysign(b, r, x);
    let nan = super::is_nan(b, x);
    b.select(nan, x, r)
}

/// ln(1 + e^x).
pub fn softplus(b: &mut Builder, x: Val) -> Val {
    let body = |b: &mut Builder, x: Val| {
        let a = b.fabs(x);
        let n = b.fneg(a);
        let e = exp(b, n);
        let l = log1p(b, e);
        let top = b.fmax(x, 0.0);
        b.fadd(top, l)
    };
    if fast::applies(b, x) { body(b, x) } else { in_f64(b, x, body) }
}

/// ln(1 + x) for x > -1.
pub(super) fn log1p(b: &mut Builder, x: Val) -> Val {
    let u = b.fadd(x, 1.0);
    let l = log(b, u);
    let d = b.fsub(u, 1.0);
    let same = b.cmp(CmpOp::FEq, d, 0.0);
    let q = b.fdiv(x, d);
    let r = b.fmul(l, q);
    // Where 1 + x rounds to 1, x itself is the answer; where u is infinite, the logarithm is.
    let big = b.cmp(CmpOp::FGt, u, 1e300);
    let r = b.select(big, l, r);
    b.select(same, x, r)
}
