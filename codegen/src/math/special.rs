//! The Gauss error function and the activations that use it.

use super::{copysign, exp, poly, tanh};
use crate::kernel::{Builder, CmpOp, Elem, Val};

/// The Gauss error function.
pub fn erf(b: &mut Builder, x: Val) -> Val {
    if b.ty(x).elem == Elem::F64 { erf64(b, x) } else { erf32(b, x) }
}

/// A polynomial near 0, and `1 - e^(-t q(t))` beyond 0.927734375, both minimax.
fn erf32(b: &mut Builder, x: Val) -> Val {
    let ty = b.ty(x);
    let t = b.fabs(x);
    let t = b.fmin(t, 4.0);
    let s = b.fmul(x, x);
    let c = [
        -1.728_534_7e-5,
        3.831_971_26e-4,
        -3.883_964_38e-3,
        2.425_462_19e-2,
        -1.067_778_77e-1,
        -6.348_466_87e-1,
        -1.287_175_12e-1,
        0.0,
    ];
    let q = poly(b, t, &c[..7]);
    let minus = b.fneg(t);
    let q = b.fma(q, t, minus);
    let e = exp(b, q);
    let one = b.float(ty, 1.0);
    let large = b.fsub(one, e);
    let large = copysign(b, large, x);
    let d = [
        -5.967_617_03e-4,
        4.991_194_23e-3,
        -2.676_813_49e-2,
        1.128_199_25e-1,
        -3.761_253_36e-1,
        1.283_791_66e-1,
    ];
    let p = poly(b, s, &d);
    let small = b.fma(p, x, x);
    let is_large = b.cmp(CmpOp::FGt, t, 0.927_734_375);
    let r = b.select(is_large, large, small);
    let nan = super::is_nan(b, x);
    b.select(nan, x, r)
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
