//! The Gauss error function and the activations that use it.

use super::{copysign, exp, poly, tanh};
use crate::kernel::{Builder, CmpOp, Elem, Val};

/// The Gauss error function.
pub fn erf(b: &mut Builder, x: Val) -> Val {
    if b.ty(x).elem == Elem::F64 { erf64(b, x) } else { erf32(b, x) }
}

/// Polynomials: of the square up to 1, with the least relative error, and beyond with the least error; 1.7 ulp together.
fn erf32(b: &mut Builder, x: Val) -> Val {
    // Larger numbers give 1.
    const END: f64 = 3.8325;
    const MIDDLE: f64 = 2.416_249_990_463_257;
    let near = [
        -5.631_421_820e-4,
        4.917_551_327e-3,
        -2.671_131_122e-2,
        1.128_018_011e-1,
        -3.761_232_619e-1,
        1.283_791_225e-1,
    ];
    let far = [
        -9.102_974_895e-6,
        3.024_569_234e-5,
        3.818_661_227e-5,
        -3.215_936_535e-4,
        5.141_345_342e-4,
        3.042_508_372e-4,
        -3.081_998_960e-3,
        7.592_004_654e-3,
        -1.147_814_009e-2,
        1.170_151_656e-2,
        -7.945_949_553e-3,
        3.287_977_724e-3,
        9.993_670_939e-1,
    ];
    let a = b.fabs(x);
    let t = b.fmin(a, END);
    let t = b.fsub(t, MIDDLE);
    let large = poly(b, t, &far);
    let large = copysign(b, large, x);
    let s = b.fmul(x, x);
    let p = poly(b, s, &near);
    let small = b.fma(p, x, x);
    // False for NaN, which the sum above keeps.
    let is_large = b.cmp(CmpOp::FGt, a, 1.0);
    b.select(is_large, large, small)
}

/// Taylor series below 2.5, continued fraction of the complement above.
fn erf64(b: &mut Builder, x: Val) -> Val {
    let ty = b.ty(x);
    let a = b.fabs(x);
    let near = b.fmin(a, 2.5);
    let z = b.fmul(near, near);
    let mut coefs = Vec::new();
    let mut f = 1.0;
    for n in 0..60u32 {
        if n > 0 {
            f *= -1.0 / f64::from(n);
        }
        coefs.push(f / f64::from(2 * n + 1) * 2.0 / std::f64::consts::PI.sqrt());
    }
    coefs.reverse();
    let p = poly(b, z, &coefs);
    let small = b.fmul(p, near);
    let far = b.fmax(a, 2.5);
    let far = b.fmin(far, 6.0);
    let mut f = far;
    for k in (1..=60).rev() {
        let half = b.float(ty, f64::from(k) / 2.0);
        let q = b.fdiv(half, f);
        f = b.fadd(far, q);
    }
    let sq = b.fmul(far, far);
    let sq = b.fneg(sq);
    let e = exp(b, sq);
    let c = b.fmul(e, 1.0 / std::f64::consts::PI.sqrt());
    let c = b.fdiv(c, f);
    let one = b.float(ty, 1.0);
    let large = b.fsub(one, c);
    let is_small = b.cmp(CmpOp::FLt, a, 2.5);
    let r = b.select(is_small, small, large);
    let r = copysign(b, r, x);
    let nan = super::is_nan(b, x);
    b.select(nan, x, r)
}

/// `x * Phi(x)`.
pub fn gelu(b: &mut Builder, x: Val) -> Val {
    let t = b.fmul(x, std::f64::consts::FRAC_1_SQRT_2);
    let e = erf(b, t);
    let h = b.fmul(x, 0.5);
    b.fma(e, h, h)
}

/// The tanh approximation of gelu.
pub fn gelu_tanh(b: &mut Builder, x: Val) -> Val {
    let z = b.fmul(x, x);
    let z = b.fmul(z, x);
    let t = b.fma(z, 0.044_715, x);
    let t = b.fmul(t, (2.0 / std::f64::consts::PI).sqrt());
    let h = tanh(b, t);
    let half = b.fmul(x, 0.5);
    b.fma(h, half, half)
}
