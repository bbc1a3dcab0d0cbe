//! 8-bit and 4-bit floats: bits in a byte to and from `F32`.

use crate::kernel::{Builder, CmpOp, Elem, Ty, Val};
use planish_ir::DType;

struct Format {
    exp: i64,
    man: i64,
    bias: i64,
    /// Largest finite magnitude as bits without sign.
    largest: i64,
    /// Bits of NaN without sign, if the type has NaN; with `nan_signed` only the sign bit is set.
    nan: Option<i64>,
    nan_signed: bool,
    infinity: Option<i64>,
}

fn format(d: DType) -> Option<Format> {
    let f = |exp, man, bias, largest, nan, nan_signed, infinity| {
        Some(Format { exp, man, bias, largest, nan, nan_signed, infinity })
    };
    match d {
        DType::F8E4M3FN => f(4, 3, 7, 0x7e, Some(0x7f), false, None),
        DType::F8E4M3FNUZ => f(4, 3, 8, 0x7f, Some(0x80), true, None),
        DType::F8E5M2 => f(5, 2, 15, 0x7b, Some(0x7e), false, Some(0x7c)),
        DType::F8E5M2FNUZ => f(5, 2, 16, 0x7f, Some(0x80), true, None),
        DType::F4E2M1 => f(2, 1, 1, 7, None, false, None),
        _ => None,
    }
}

/// The largest finite value of an 8-bit or 4-bit float with a mantissa.
pub fn largest(d: DType) -> Option<f64> {
    let f = format(d)?;
    Some(planish_ir::tensor::float_from_bits(d, f.largest as u64))
}

/// Bytes (`I8` lanes) to `F32`.
pub fn decode(b: &mut Builder, d: DType, v: Val) -> Val {
    let bits = b.zext(v, Elem::I32);
    let ity = b.ty(bits);
    let fty = ity.with_elem(Elem::F32);
    let Some(f) = format(d) else {
        // Exponent only: 2^(bits - 127), with 255 as NaN and 0 as the subnormal 2^-127.
        let e = b.shl(bits, 23);
        let normal = b.bitcast(e, fty);
        let sub = b.float(fty, 2f64.powi(-127));
        let zero = b.cmp(CmpOp::Eq, bits, 0);
        let r = b.select(zero, sub, normal);
        let all = b.cmp(CmpOp::Eq, bits, 255);
        let nan = b.float(fty, f64::NAN);
        return b.select(all, nan, r);
    };
    let width = f.exp + f.man;
    let mag = b.and(bits, (1 << width) - 1);
    let shifted = b.shl(mag, 23 - f.man);
    let normal = b.add(shifted, (127 - f.bias) << 23);
    let normal = b.bitcast(normal, fty);
    let whole = b.sitofp(mag, Elem::F32);
    let sub = b.fmul(whole, 2f64.powi((1 - f.bias - f.man) as i32));
    let is_sub = b.cmp(CmpOp::Ult, mag, 1 << f.man);
    let mut r = b.select(is_sub, sub, normal);
    if let Some(inf) = f.infinity {
        let is_inf = b.cmp(CmpOp::Eq, mag, inf);
        let v = b.float(fty, f64::INFINITY);
        r = b.select(is_inf, v, r);
        let is_nan = b.cmp(CmpOp::Ugt, mag, inf);
        let v = b.float(fty, f64::NAN);
        r = b.select(is_nan, v, r);
    } else if let (Some(nan), false) = (f.nan, f.nan_signed) {
        let is_nan = b.cmp(CmpOp::Eq, mag, nan);
        let v = b.float(fty, f64::NAN);
        r = b.select(is_nan, v, r);
    }
    let sign = b.and(bits, 1 << width);
    let negative = b.cmp(CmpOp::Ne, sign, 0);
    let minus = b.fneg(r);
    r = b.select(negative, minus, r);
    if f.nan_signed {
        let is_nan = b.cmp(CmpOp::Eq, bits, 0x80);
        let v = b.float(fty, f64::NAN);
        r = b.select(is_nan, v, r);
    }
    r
}

/// `F32` to bytes: nearest, ties to even. Too large values become the largest finite one if `saturate` is set, else infinity
/// or NaN where the type has them.
pub fn encode(b: &mut Builder, d: DType, v: Val, saturate: bool) -> Val {
    let fty = b.ty(v);
    let ity = fty.with_elem(Elem::I32);
    let Some(f) = format(d) else { return encode_e8m0(b, v) };
    let a = b.fabs(v);
    let raw = b.bitcast(v, ity);
    let sign = b.lshr(raw, 31);
    let sign = b.shl(sign, f.exp + f.man);
    let abits = b.bitcast(a, ity);
    // Normal results: round the mantissa at its last kept bit; a carry moves on into the exponent.
    let cut = 23 - f.man;
    let last = b.lshr(abits, cut);
    let odd = b.and(last, 1);
    let up = b.add(odd, (1 << (cut - 1)) - 1);
    let rounded = b.add(abits, up);
    let rounded = b.lshr(rounded, cut);
    let normal = b.sub(rounded, (127 - f.bias) << f.man);
    let steps = b.fmul(a, 2f64.powi((f.man + f.bias - 1) as i32));
    let steps = b.round_even(steps);
    let sub = b.fptosi(steps, Elem::I32);
    let is_sub = b.cmp(CmpOp::FLt, a, 2f64.powi((1 - f.bias) as i32));
    let mut r = b.select(is_sub, sub, normal);
    let over = b.cmp(CmpOp::Sgt, r, f.largest);
    let too_large = match (saturate || f.nan.is_none(), f.infinity, f.nan) {
        (true, _, _) => f.largest,
        (false, Some(inf), _) => inf,
        (false, None, Some(nan)) if !f.nan_signed => nan,
        _ => f.largest,
    };
    let v_over = b.int(ity, too_large);
    r = b.select(over, v_over, r);
    let zero = b.cmp(CmpOp::Eq, r, 0);
    let mut out = b.or(r, sign);
    if f.nan_signed {
        let z = b.int(ity, 0);
        out = b.select(zero, z, out);
        if !saturate {
            let nan = b.int(ity, 0x80);
            out = b.select(over, nan, out);
        }
    }
    let is_nan = super::is_nan(b, v);
    let nan_bits = match f.nan {
        Some(n) if f.nan_signed => b.int(ity, n),
        Some(n) => b.or(sign, n),
        // Without NaN it becomes negative zero, as the ONNX reference has it.
        None => b.int(ity, 1 << (f.exp + f.man)),
    };
    out = b.select(is_nan, nan_bits, out);
    b.trunc(out, Elem::I8)
}

/// The next power of two that is not smaller; NaN and negative values give 255.
fn encode_e8m0(b: &mut Builder, v: Val) -> Val {
    let ity: Ty = b.ty(v).with_elem(Elem::I32);
    let bits = b.bitcast(v, ity);
    let up = b.add(bits, (1 << 23) - 1);
    let e = b.lshr(up, 23);
    let e = b.smin(e, 254);
    let nan = super::is_nan(b, v);
    let negative = b.cmp(CmpOp::FLt, v, 0.0);
    let bad = b.or(nan, negative);
    let all = b.int(ity, 255);
    let r = b.select(bad, all, e);
    // Values below the smallest power are 0 bits, subnormals of f32 included.
    let tiny = b.cmp(CmpOp::FLe, v, 2f64.powi(-127));
    let zero = b.int(ity, 0);
    let not_bad = b.not(bad);
    let tiny = b.and(tiny, not_bad);
    let r = b.select(tiny, zero, r);
    b.trunc(r, Elem::I8)
}
