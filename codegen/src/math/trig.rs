//! Circular and hyperbolic functions and their inverses, computed in `F64`.

use super::exp_log::{exp, log, log1p};
use super::{copysign, in_f64, nan_where, poly};
use crate::kernel::{Builder, CmpOp, Elem, Val};
use std::f64::consts::{FRAC_2_PI, FRAC_PI_2, FRAC_PI_6};

/// Coefficients of sine or cosine in the square of the argument, highest power first.
fn series(first: u32, terms: u32) -> Vec<f64> {
    let mut c = Vec::new();
    let mut f = 1.0;
    for k in 0..terms {
        if k > 0 {
            let n = f64::from(first + 2 * k);
            f *= -1.0 / (n * (n - 1.0));
        }
        c.push(f);
    }
    c.reverse();
    c
}

/// Remainder of x by pi/2 in [-pi/4, pi/4], and the quadrant as `I64`, for |x| < 2^31.
fn reduce_near(b: &mut Builder, x: Val) -> (Val, Val) {
    let q = b.fmul(x, FRAC_2_PI);
    let n = b.round_even(q);
    // pi/2 in three parts, the first two of 33 bits: where a difference cancels it is exact.
    let r = b.fma(n, -1.570_796_326_734_125_6, x);
    let r = b.fma(n, -6.077_100_506_303_966e-11, r);
    let r = b.fma(n, -2.022_266_248_795_950_6e-21, r);
    (r, b.fptosi(n, Elem::I64))
}

/// 2/pi after the point, in digits of 24 bits.
const DIGITS: [u32; 10] = [
    0xa2_f983, 0x6e_4e44, 0x15_29fc, 0x27_57d1, 0xf5_34dd, 0xc0_db62, 0x95_993c, 0x43_9041, 0xfe_5163,
    0xab_debb,
];

/// [`reduce_near`] of numbers of 24 bits, 2^24 <= |x| < 2^128.
///
/// x is v 2^(24 g) with a whole number v below 2^48. 2/pi 2^(24 g) mod 4 comes in parts of at most 26 bits, whose products with v
/// are exact; so are their remainders by 4, the sum of the first two and, where it cancels, that with the third.
fn reduce_far(b: &mut Builder, x: Val) -> (Val, Val) {
    let ty = b.ty(x);
    let bits = b.bitcast(x, ty.with_elem(Elem::I64));
    let e = b.lshr(bits, 52);
    let e = b.and(e, 0x7ff);
    let digit = |k: usize| f64::from(DIGITS[k]);
    let part = |k: usize, weight: i32| digit(k) * 2f64.powi(weight);
    let parts = |g: usize| {
        let above = if g == 0 { 0.0 } else { f64::from(DIGITS[g - 1] & 3) };
        let low = part(g + 3, -96) + part(g + 4, -120) + part(g + 5, -144);
        [2f64.powi(-24 * g as i32), above + part(g, -24), part(g + 1, -48), part(g + 2, -72), low]
    };
    let mut chosen = parts(0).map(|p| b.float(ty, p));
    for g in 1..5 {
        let reached = b.cmp(CmpOp::Sge, e, 1023 + 24 * (g as i64 + 1));
        for (now, p) in chosen.iter_mut().zip(parts(g)) {
            let p = b.float(ty, p);
            *now = b.select(reached, p, *now);
        }
    }
    let [scale, first, second, third, low] = chosen;
    let v = b.fmul(x, scale);
    let mod4 = |b: &mut Builder, p: Val| {
        let q = b.fmul(p, 0.25);
        let q = b.round_even(q);
        b.fma(q, -4.0, p)
    };
    let p = b.fmul(v, first);
    let p = mod4(b, p);
    let q = b.fmul(v, second);
    let q = mod4(b, q);
    let s = b.fadd(p, q);
    let t = b.fmul(v, third);
    let all = b.fadd(s, t);
    let n = b.round_even(all);
    let f = b.fsub(s, n);
    let f = b.fadd(f, t);
    let f = b.fma(v, low, f);
    (b.fmul(f, FRAC_PI_2), b.fptosi(n, Elem::I64))
}

/// Sine and cosine of the remainder by pi/2 in [-pi/4, pi/4], and the quadrant as `I64`. `narrow` numbers are of 24 bits; wider
/// ones are reduced exactly below 2^31 only.
fn reduce(b: &mut Builder, x: Val, narrow: bool) -> (Val, Val, Val) {
    let (r, quadrant) = if narrow {
        let a = b.fabs(x);
        let far = b.cmp(CmpOp::FGe, a, 2f64.powi(31));
        let finite = b.cmp(CmpOp::FLt, a, f64::INFINITY);
        let far = b.and(far, finite);
        let (r, n) = reduce_near(b, x);
        let some = b.any(far);
        let out = b.if_(
            some,
            |b| {
                let (fr, fn_) = reduce_far(b, x);
                vec![b.select(far, fr, r), b.select(far, fn_, n)]
            },
            |_| vec![r, n],
        );
        (out[0], out[1])
    } else {
        reduce_near(b, x)
    };
    let z = b.fmul(r, r);
    let s = poly(b, z, &series(1, 10));
    let s = b.fmul(s, r);
    let c = poly(b, z, &series(0, 10));
    (s, c, quadrant)
}

/// The sine `shift` quadrants on.
fn turned(b: &mut Builder, (s, c, q): (Val, Val, Val), shift: i64) -> Val {
    let q = b.add(q, shift);
    let odd = b.and(q, 1);
    let odd = b.cmp(CmpOp::Ne, odd, 0);
    let v = b.select(odd, c, s);
    let neg = b.and(q, 2);
    let neg = b.cmp(CmpOp::Ne, neg, 0);
    let m = b.fneg(v);
    b.select(neg, m, v)
}

/// `v` with the sign of a zero that it comes from.
fn odd(b: &mut Builder, x: Val, v: Val) -> Val {
    let zero = b.cmp(CmpOp::FEq, x, 0.0);
    b.select(zero, x, v)
}

/// A function of the remainder by pi/2.
fn circular(b: &mut Builder, x: Val, f: impl FnOnce(&mut Builder, Val, (Val, Val, Val)) -> Val) -> Val {
    let narrow = b.ty(x).elem != Elem::F64;
    in_f64(b, x, |b, x| {
        let reduced = reduce(b, x, narrow);
        f(b, x, reduced)
    })
}

/// Sine.
pub fn sin(b: &mut Builder, x: Val) -> Val {
    circular(b, x, |b, x, r| {
        let s = turned(b, r, 0);
        odd(b, x, s)
    })
}

/// Cosine.
pub fn cos(b: &mut Builder, x: Val) -> Val {
    circular(b, x, |b, _, r| turned(b, r, 1))
}

/// Tangent.
pub fn tan(b: &mut Builder, x: Val) -> Val {
    circular(b, x, |b, x, r| {
        let (s, c) = (turned(b, r, 0), turned(b, r, 1));
        let q = b.fdiv(s, c);
        odd(b, x, q)
    })
}

/// Inverse tangent: reduced to |t| <= tan(pi/12), then a series.
fn atan64(b: &mut Builder, x: Val) -> Val {
    let ty = b.ty(x);
    let a = b.fabs(x);
    let one = b.float(ty, 1.0);
    let big = b.cmp(CmpOp::FGt, a, 1.0);
    let inv = b.fdiv(one, a);
    let t = b.select(big, inv, a);
    // atan t = pi/6 + atan((t sqrt3 - 1) / (t + sqrt3)) for t > tan(pi/12).
    let root = 3f64.sqrt();
    let mid = b.cmp(CmpOp::FGt, t, 2.0 - root);
    let num = b.fma(t, root, -1.0);
    let den = b.fadd(t, root);
    let u = b.fdiv(num, den);
    let u = b.select(mid, u, t);
    let z = b.fmul(u, u);
    let coefs: Vec<f64> =
        (0..14u32).rev().map(|k| if k % 2 == 0 { 1.0 } else { -1.0 } / f64::from(2 * k + 1)).collect();
    let p = poly(b, z, &coefs);
    let p = b.fmul(p, u);
    let more = b.fadd(p, FRAC_PI_6);
    let p = b.select(mid, more, p);
    let quarter = b.float(ty, FRAC_PI_2);
    let rest = b.fsub(quarter, p);
    let p = b.select(big, rest, p);
    copysign(b, p, x)
}

/// Inverse tangent.
pub fn atan(b: &mut Builder, x: Val) -> Val {
    in_f64(b, x, |b, x| {
        let r = atan64(b, x);
        let nan = super::is_nan(b, x);
        b.select(nan, x, r)
    })
}

/// Inverse sine of |x| <= 0.5 by atan, and by the half-angle formula above.
fn asin64(b: &mut Builder, x: Val) -> Val {
    let ty = b.ty(x);
    let a = b.fabs(x);
    let one = b.float(ty, 1.0);
    let out = b.cmp(CmpOp::FGt, a, 1.0);
    let sq = b.fmul(a, a);
    let d = b.fsub(one, sq);
    let d = b.sqrt(d);
    let t = b.fdiv(a, d);
    let low = atan64(b, t);
    let h = b.fsub(one, a);
    let h = b.fmul(h, 0.5);
    let h = b.sqrt(h);
    let hd = b.fmul(h, h);
    let hd = b.fsub(one, hd);
    let hd = b.sqrt(hd);
    let ht = b.fdiv(h, hd);
    let half = atan64(b, ht);
    let quarter = b.float(ty, FRAC_PI_2);
    let high = b.fma(half, -2.0, quarter);
    let small = b.cmp(CmpOp::FLt, a, 0.5);
    let r = b.select(small, low, high);
    let r = copysign(b, r, x);
    nan_where(b, out, r)
}

/// Inverse sine; NaN beyond 1.
pub fn asin(b: &mut Builder, x: Val) -> Val {
    in_f64(b, x, asin64)
}

/// Inverse cosine; NaN beyond 1.
pub fn acos(b: &mut Builder, x: Val) -> Val {
    in_f64(b, x, |b, x| {
        // Near 1 by 2 asin(sqrt((1 - x) / 2)), which does not cancel.
        let ty = b.ty(x);
        let one = b.float(ty, 1.0);
        let h = b.fsub(one, x);
        let h = b.fmul(h, 0.5);
        let h = b.sqrt(h);
        let near = asin64(b, h);
        let near = b.fmul(near, 2.0);
        let s = asin64(b, x);
        let quarter = b.float(ty, FRAC_PI_2);
        let far = b.fsub(quarter, s);
        let is_near = b.cmp(CmpOp::FGt, x, 0.5);
        b.select(is_near, near, far)
    })
}

/// `a = |x|`, `e^a / 2` and `e^-a`. The second is the square of `e^(a/2)`, scaled, so that it overflows only with the result.
fn half_exponentials(b: &mut Builder, x: Val) -> (Val, Val, Val) {
    let a = b.fabs(x);
    let half = b.fmul(a, 0.5);
    let e = exp(b, half);
    let he = b.fmul(e, 0.5);
    let up = b.fmul(he, e);
    let n = b.fneg(a);
    (a, up, exp(b, n))
}

/// Hyperbolic sine: a series near 0, exponentials elsewhere.
pub fn sinh(b: &mut Builder, x: Val) -> Val {
    in_f64(b, x, |b, x| {
        let (a, up, d) = half_exponentials(b, x);
        let d = b.fmul(d, 0.5);
        let large = b.fsub(up, d);
        let z = b.fmul(x, x);
        let mut c: Vec<f64> = Vec::new();
        let mut f = 1.0;
        for k in 0..10u32 {
            if k > 0 {
                f /= f64::from(2 * k) * f64::from(2 * k + 1);
            }
            c.push(f);
        }
        c.reverse();
        let p = poly(b, z, &c);
        let small = b.fmul(p, a);
        let is_small = b.cmp(CmpOp::FLt, a, 1.0);
        let r = b.select(is_small, small, large);
        copysign(b, r, x)
    })
}

/// Hyperbolic cosine.
pub fn cosh(b: &mut Builder, x: Val) -> Val {
    in_f64(b, x, |b, x| {
        let (_, up, d) = half_exponentials(b, x);
        b.fma(d, 0.5, up)
    })
}

/// Inverse hyperbolic sine.
pub fn asinh(b: &mut Builder, x: Val) -> Val {
    in_f64(b, x, |b, x| {
        let a = b.fabs(x);
        let z = b.fmul(a, a);
        let s = b.fadd(z, 1.0);
        let s = b.sqrt(s);
        let d = b.fadd(s, 1.0);
        let t = b.fdiv(z, d);
        let t = b.fadd(a, t);
        let near = log1p(b, t);
        let l = log(b, a);
        let far = b.fadd(l, std::f64::consts::LN_2);
        let is_far = b.cmp(CmpOp::FGt, a, 1e8);
        let r = b.select(is_far, far, near);
        copysign(b, r, x)
    })
}

/// Inverse hyperbolic cosine; NaN below 1.
pub fn acosh(b: &mut Builder, x: Val) -> Val {
    in_f64(b, x, |b, x| {
        let t = b.fsub(x, 1.0);
        let t2 = b.fadd(t, t);
        let s = b.fma(t, t, t2);
        let s = b.sqrt(s);
        let u = b.fadd(t, s);
        let near = log1p(b, u);
        let l = log(b, x);
        let far = b.fadd(l, std::f64::consts::LN_2);
        let is_far = b.cmp(CmpOp::FGt, x, 1e8);
        let r = b.select(is_far, far, near);
        let below = b.cmp(CmpOp::FLt, x, 1.0);
        nan_where(b, below, r)
    })
}

/// Inverse hyperbolic tangent; NaN beyond 1.
pub fn atanh(b: &mut Builder, x: Val) -> Val {
    in_f64(b, x, |b, x| {
        let ty = b.ty(x);
        let a = b.fabs(x);
        let one = b.float(ty, 1.0);
        let d = b.fsub(one, a);
        let t = b.fadd(a, a);
        let t = b.fdiv(t, d);
        let l = log1p(b, t);
        let r = b.fmul(l, 0.5);
        let r = copysign(b, r, x);
        let out = b.cmp(CmpOp::FGt, a, 1.0);
        nan_where(b, out, r)
    })
}
