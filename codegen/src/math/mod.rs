//! Math functions expanded into basic operations, for scalars and vectors of `F32` and `F64`.
//!
//! `exp`, `log`, `tanh`, `erf` and `sigmoid` of `F32` are computed in `F32` (at most 2 ulp; `erf` and `tanh` 4), and so are powers by
//! small multiples of 1/4 (4 ulp). All other functions of `F32` are computed in `F64` and rounded, sine and cosine with a remainder
//! by pi/2 that is exact up to the largest number. `kernel::difftest::functions` holds all to that. Functions of `F64` are within a
//! few ulp, `pow` within 1e-13 relative, circular functions up to 2^31.
//!
//! Where [`Builder::set_fast_math`] allows it, `exp`, `tanh`, `sigmoid` and `softplus` of `F32`, and what is made of them, are approximations
//! within a relative error of 2e-6.

mod exp_log;
mod fast;
pub mod narrow;
mod pow;
mod special;
#[cfg(test)]
mod tests;
mod trig;

pub use exp_log::{exp, log, sigmoid, softplus, tanh};
pub use pow::pow;
pub use special::{erf, gelu, gelu_tanh};
pub use trig::{acos, acosh, asin, asinh, atan, atanh, cos, cosh, sin, sinh, tan};

use crate::kernel::{Builder, CmpOp, Elem, Ty, Val};

/// The polynomial with these coefficients, highest power first, by Horner's rule.
pub fn poly(b: &mut Builder, x: Val, coefs: &[f64]) -> Val {
    let ty = b.ty(x);
    let mut acc = b.float(ty, coefs[0]);
    for c in &coefs[1..] {
        acc = b.fma(acc, x, *c);
    }
    acc
}

/// `sign(s) * |x|`.
pub fn copysign(b: &mut Builder, x: Val, s: Val) -> Val {
    let ty = b.ty(x);
    let ity = int_ty(ty);
    let (xi, si) = (b.bitcast(x, ity), b.bitcast(s, ity));
    let sign = b.int(ity, if ity.elem == Elem::I64 { i64::MIN } else { i64::from(i32::MIN) });
    let si = b.and(si, sign);
    let not = b.not(sign);
    let xi = b.and(xi, not);
    let out = b.or(xi, si);
    b.bitcast(out, ty)
}

/// The integer type of the same shape.
pub fn int_ty(ty: Ty) -> Ty {
    ty.with_elem(if ty.elem == Elem::F64 { Elem::I64 } else { Elem::I32 })
}

/// Computes `f` in `F64` and rounds to the type of `x`.
fn in_f64(b: &mut Builder, x: Val, f: impl FnOnce(&mut Builder, Val) -> Val) -> Val {
    let elem = b.ty(x).elem;
    if elem == Elem::F64 {
        return f(b, x);
    }
    let wide = b.fpext(x, Elem::F64);
    let out = f(b, wide);
    b.fptrunc(out, elem)
}

/// NaN where `cond` holds.
fn nan_where(b: &mut Builder, cond: Val, v: Val) -> Val {
    let ty = b.ty(v);
    let nan = b.float(ty, f64::NAN);
    b.select(cond, nan, v)
}

/// Whether it is NaN.
pub fn is_nan(b: &mut Builder, x: Val) -> Val {
    b.cmp(CmpOp::FNe, x, x)
}
