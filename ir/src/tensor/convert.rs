//! Conversion between stored elements and widened ones.
//!
//! Floats narrower than 32 bits are described by their exponent and mantissa widths, bias and special values, and
//! converted bit by bit: round to nearest, ties to even.

use crate::dtype::DType;

/// The format of a narrow float.
struct Format {
    exp: u32,
    man: u32,
    bias: i32,
    kind: Special,
}

#[derive(PartialEq)]
enum Special {
    /// Infinities and NaN as in IEEE 754.
    Ieee,
    /// No infinity; all ones is NaN.
    Fn,
    /// No infinity, no negative zero; the sign bit alone is NaN.
    Fnuz,
    /// Neither infinity nor NaN.
    Finite,
}

fn format(d: DType) -> Option<Format> {
    let (exp, man, bias, kind) = match d {
        DType::F16 => (5, 10, 15, Special::Ieee),
        DType::BF16 => (8, 7, 127, Special::Ieee),
        DType::F8E4M3FN => (4, 3, 7, Special::Fn),
        DType::F8E4M3FNUZ => (4, 3, 8, Special::Fnuz),
        DType::F8E5M2 => (5, 2, 15, Special::Ieee),
        DType::F8E5M2FNUZ => (5, 2, 16, Special::Fnuz),
        DType::F4E2M1 => (2, 1, 1, Special::Finite),
        _ => return None,
    };
    Some(Format { exp, man, bias, kind })
}

/// The value of the bits of a float of any type; `f64` and `f32` included.
pub fn float_from_bits(d: DType, bits: u64) -> f64 {
    match d {
        DType::F64 => return f64::from_bits(bits),
        DType::F32 => return f64::from(f32::from_bits(bits as u32)),
        DType::F8E8M0 => {
            return if bits & 0xff == 0xff { f64::NAN } else { 2f64.powi((bits & 0xff) as i32 - 127) };
        }
        _ => {}
    }
    let Some(f) = format(d) else { return f64::NAN };
    let sign = (bits >> (f.exp + f.man)) & 1;
    let e = (bits >> f.man) & ((1 << f.exp) - 1);
    let m = bits & ((1 << f.man) - 1);
    let e_max = (1 << f.exp) - 1;
    let special = match f.kind {
        Special::Ieee if e == e_max => Some(if m == 0 { f64::INFINITY } else { f64::NAN }),
        Special::Fn if e == e_max && m == (1 << f.man) - 1 => Some(f64::NAN),
        Special::Fnuz if sign == 1 && e == 0 && m == 0 => return f64::NAN,
        _ => None,
    };
    let scale = 2f64.powi(-(f.man as i32));
    let v = special.unwrap_or(if e == 0 {
        m as f64 * scale * 2f64.powi(1 - f.bias)
    } else {
        (1.0 + m as f64 * scale) * 2f64.powi(e as i32 - f.bias)
    });
    if sign == 1 { -v } else { v }
}

/// The bits of the float of type `d` nearest to `v`, ties to even. Too large values become infinity in types that
/// have it, and otherwise the largest finite value if `saturate` is set and NaN if not (the largest finite value in
/// types without NaN).
pub fn float_to_bits(d: DType, v: f64, saturate: bool) -> u64 {
    match d {
        DType::F64 => return v.to_bits(),
        DType::F32 => return (v as f32).to_bits().into(),
        // Its exponents are those of f32, which f64 is rounded to first.
        DType::F8E8M0 => return e8m0_bits(f64::from(v as f32)),
        _ => {}
    }
    let Some(f) = format(d) else { return 0 };
    let sign_bit = 1u64 << (f.exp + f.man);
    let sign = if v.is_sign_negative() { sign_bit } else { 0 };
    let e_max = (1u64 << f.exp) - 1;
    let m_all = (1u64 << f.man) - 1;
    let nan = match f.kind {
        Special::Ieee => sign | (e_max << f.man) | (1 << (f.man - 1)),
        Special::Fn => sign | (e_max << f.man) | m_all,
        Special::Fnuz => sign_bit,
        // Without a NaN, it becomes negative zero.
        Special::Finite => sign_bit,
    };
    if v.is_nan() {
        return nan;
    }
    let largest = match f.kind {
        Special::Ieee => (e_max << f.man) - 1,
        Special::Fn => ((e_max << f.man) | m_all) - 1,
        Special::Fnuz | Special::Finite => (e_max << f.man) | m_all,
    };
    let a = v.abs();
    // Wide types (f16, bf16) ignore `saturate`, as casts to them do.
    let overflow = match f.kind {
        Special::Ieee if f.exp + f.man > 7 || !saturate => sign | (e_max << f.man),
        Special::Finite => sign | largest,
        _ if saturate => sign | largest,
        _ => nan,
    };
    if a.is_infinite() {
        return overflow;
    }
    if a == 0.0 {
        return if f.kind == Special::Fnuz { 0 } else { sign };
    }
    let e = ((a.to_bits() >> 52) as i32 - 1023).max(1 - f.bias);
    // The distance between neighbours at this exponent; the scaled value is exact in f64 for normal f64 inputs.
    let scaled = a * 2f64.powi(f.man as i32 - e.max(-900));
    let rounded = scaled.round_ties_even();
    let step = rounded as u64;
    let bits = if e == 1 - f.bias { step } else { (((e + f.bias) as u64) << f.man) + step - (1 << f.man) };
    if bits > largest {
        return overflow;
    }
    if f.kind == Special::Fnuz && bits == 0 { 0 } else { sign | bits }
}

/// The smallest power of two that is not below `v` in the format that holds nothing else: exponent bits with bias 127.
fn e8m0_bits(v: f64) -> u64 {
    if v.is_nan() || v < 0.0 {
        return 0xff;
    }
    if v.is_infinite() {
        return 0xfe;
    }
    if v < 2f64.powi(-127) {
        return 0;
    }
    let e = (v.to_bits() >> 52) as i64 - 1023;
    let above = v > 2f64.powi(e as i32);
    (e + i64::from(above) + 127).clamp(0, 0xfe) as u64
}

pub(super) fn decode_floats(d: DType, b: &[u8]) -> Vec<f64> {
    match d.size() {
        8 => b
            .chunks_exact(8)
            .map(|c| f64::from_le_bytes([c[0], c[1], c[2], c[3], c[4], c[5], c[6], c[7]]))
            .collect(),
        4 => b.chunks_exact(4).map(|c| f64::from(f32::from_le_bytes([c[0], c[1], c[2], c[3]]))).collect(),
        2 if d == DType::F16 => {
            b.chunks_exact(2).map(|c| half::f16::from_le_bytes([c[0], c[1]]).to_f64()).collect()
        }
        2 => b.chunks_exact(2).map(|c| half::bf16::from_le_bytes([c[0], c[1]]).to_f64()).collect(),
        _ => b.iter().map(|x| float_from_bits(d, u64::from(*x))).collect(),
    }
}

pub(super) fn decode_ints(d: DType, b: &[u8]) -> Vec<i128> {
    use DType::*;
    match d {
        I64 => b
            .chunks_exact(8)
            .map(|c| i64::from_le_bytes([c[0], c[1], c[2], c[3], c[4], c[5], c[6], c[7]]).into())
            .collect(),
        U64 => b
            .chunks_exact(8)
            .map(|c| u64::from_le_bytes([c[0], c[1], c[2], c[3], c[4], c[5], c[6], c[7]]).into())
            .collect(),
        I32 => b.chunks_exact(4).map(|c| i32::from_le_bytes([c[0], c[1], c[2], c[3]]).into()).collect(),
        U32 => b.chunks_exact(4).map(|c| u32::from_le_bytes([c[0], c[1], c[2], c[3]]).into()).collect(),
        I16 => b.chunks_exact(2).map(|c| i16::from_le_bytes([c[0], c[1]]).into()).collect(),
        U16 => b.chunks_exact(2).map(|c| u16::from_le_bytes([c[0], c[1]]).into()).collect(),
        I8 | I4 | I2 => b.iter().map(|x| (*x as i8).into()).collect(),
        Bool => b.iter().map(|x| (*x != 0).into()).collect(),
        _ => b.iter().map(|x| (*x).into()).collect(),
    }
}

pub(super) fn encode_floats(d: DType, v: &[f64]) -> Vec<u8> {
    match d.size() {
        8 => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
        4 => v.iter().flat_map(|x| (*x as f32).to_le_bytes()).collect(),
        2 => v.iter().flat_map(|x| (float_to_bits(d, *x, true) as u16).to_le_bytes()).collect(),
        _ => v.iter().map(|x| float_to_bits(d, *x, true) as u8).collect(),
    }
}

pub(super) fn encode_ints(d: DType, v: &[i128]) -> Vec<u8> {
    match (d, d.size()) {
        (DType::Bool, _) => v.iter().map(|x| u8::from(*x != 0)).collect(),
        (_, 8) => v.iter().flat_map(|x| (*x as u64).to_le_bytes()).collect(),
        (_, 4) => v.iter().flat_map(|x| (*x as u32).to_le_bytes()).collect(),
        (_, 2) => v.iter().flat_map(|x| (*x as u16).to_le_bytes()).collect(),
        (DType::I4, _) => v.iter().map(|x| (((*x as i8) << 4) >> 4) as u8).collect(),
        (DType::I2, _) => v.iter().map(|x| (((*x as i8) << 6) >> 6) as u8).collect(),
        (DType::U4, _) => v.iter().map(|x| (*x as u8) & 15).collect(),
        (DType::U2, _) => v.iter().map(|x| (*x as u8) & 3).collect(),
        _ => v.iter().map(|x| *x as u8).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_narrow_float_survives_a_round_trip() {
        for d in [
            DType::F8E4M3FN,
            DType::F8E4M3FNUZ,
            DType::F8E5M2,
            DType::F8E5M2FNUZ,
            DType::F8E8M0,
            DType::F4E2M1,
        ] {
            for bits in 0..1u64 << d.bits() {
                let v = float_from_bits(d, bits);
                if !v.is_nan() {
                    assert_eq!(
                        float_to_bits(d, v, true),
                        if v.is_infinite() { largest(d, bits) } else { bits },
                        "{d} {bits:#x} {v}"
                    );
                }
            }
        }
        fn largest(d: DType, bits: u64) -> u64 {
            assert_eq!(d, DType::F8E5M2);
            bits & 0x80 | 0x7b
        }
    }

    #[test]
    fn f16_agrees_with_half() {
        for bits in 0..=u16::MAX {
            let h = half::f16::from_bits(bits);
            if !h.is_nan() {
                assert_eq!(float_from_bits(DType::F16, bits.into()), h.to_f64());
            }
        }
        let mut x = 1u64;
        for _ in 0..20_000 {
            x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let v = f64::from(f32::from_bits((x >> 32) as u32));
            if v.is_finite() {
                assert_eq!(
                    float_to_bits(DType::F16, v, true) as u16,
                    half::f16::from_f64(v).to_bits(),
                    "{v:e}"
                );
                assert_eq!(
                    float_to_bits(DType::BF16, v, true) as u16,
                    half::bf16::from_f64(v).to_bits(),
                    "{v:e}"
                );
            }
        }
    }
}
