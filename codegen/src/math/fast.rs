//! Approximations for `F32`: a relative error of at most 2e-6 where the result is a normal number; smaller results may be zero.

use super::{int_ty, poly};
use crate::kernel::{Builder, CmpOp, Elem, Val};

/// Whether approximations are wanted and there is one for values such as `x`.
pub(super) fn applies(b: &Builder, x: Val) -> bool {
    b.fast_math() && b.ty(x).elem == Elem::F32
}

/// e to the x: a polynomial of degree 5 (least relative error on half an octave to either side, 1.05e-7), its exponent moved.
pub(super) fn exp(b: &mut Builder, x: Val) -> Val {
    /// Its sum with a small number has that, rounded, in its lowest bits.
    const MAGIC: f64 = 12_582_912.0;
    let ty = b.ty(x);
    let t = b.float(ty, MAGIC);
    let log2e = b.float(ty, std::f64::consts::LOG2_E);
    let t = b.fma(x, log2e, t);
    let n = b.fsub(t, MAGIC);
    let r = b.fma(n, -0.693_359_375, x);
    let r = b.fma(n, 2.121_944_400_546_905_8e-4, r);
    let coefs =
        [8.312_525_049_509_22e-3, 4.189_011_343_1e-2, 1.666_711_446_4e-1, 4.999_923_178_9e-1, 1.0, 1.0];
    let p = poly(b, r, &coefs);
    let bits = b.bitcast(t, int_ty(ty));
    let shift = b.shl(bits, 23);
    let p = b.bitcast(p, int_ty(ty));
    let y = b.add(p, shift);
    let y = b.bitcast(y, ty);
    // Beyond, the exponent does not fit. False for NaN, which stays.
    let small = b.cmp(CmpOp::FLt, x, -87.33);
    let y = b.select(small, 0.0, y);
    let large = b.cmp(CmpOp::FGt, x, 88.37);
    let most = b.float(ty, f64::INFINITY);
    let y = b.select(large, most, y);
    let nan = super::is_nan(b, x);
    b.select(nan, x, y)
}

/// 1 / (1 + e^-x).
pub(super) fn sigmoid(b: &mut Builder, x: Val) -> Val {
    let n = b.fneg(x);
    let e = exp(b, n);
    let d = b.fadd(e, 1.0);
    let one = b.float(b.ty(x), 1.0);
    b.fdiv(one, d)
}

/// Hyperbolic tangent: a quotient of polynomials of the square, of degree 4 each, with the least relative error (2.1e-8) up to where 1 is nearest.
pub(super) fn tanh(b: &mut Builder, x: Val) -> Val {
    const END: f64 = 9.02;
    let above = [
        1.331_815_255_301_016_5e-8,
        2.058_284_903_328_411e-5,
        3.493_998_016_401_946_5e-3,
        1.337_968_791_188_640_6e-1,
        9.999_999_790_192_947e-1,
    ];
    let below = [
        7.761_651_458_250_418e-7,
        3.283_031_662_583_106_7e-4,
        2.587_093_643_724_601e-2,
        4.671_300_317_122_549e-1,
        1.0,
    ];
    let x = b.fmin(x, END);
    let x = b.fmax(x, -END);
    let z = b.fmul(x, x);
    let p = poly(b, z, &above);
    let p = b.fmul(p, x);
    let q = poly(b, z, &below);
    let y = b.fdiv(p, q);
    let y = b.fmin(y, 1.0);
    b.fmax(y, -1.0)
}
