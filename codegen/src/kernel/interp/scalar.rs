//! The meaning of each operation on one lane. Lanes are bit patterns in a `u64`, upper bits zero.

use crate::kernel::inst::{BinOp, CastOp, CmpOp, UnOp};
use crate::kernel::types::Elem;
use half::{bf16, f16};

/// Sign-extended integer value of a lane.
pub(crate) fn signed(e: Elem, bits: u64) -> i64 {
    let shift = 64 - e.bits();
    (bits << shift).cast_signed() >> shift
}

fn f32_of(bits: u64) -> f32 {
    f32::from_bits(bits as u32)
}

fn f64_of(bits: u64) -> f64 {
    f64::from_bits(bits)
}

fn b32(v: f32) -> u64 {
    u64::from(v.to_bits())
}

/// Applies `f` in the format of `e`; only `F32` and `F64` have arithmetic.
macro_rules! by_float {
    ($e:expr, $($x:ident),+ => $body:expr) => {
        if $e == Elem::F32 {
            $(let $x = f32_of($x);)+
            b32($body)
        } else {
            $(let $x = f64_of($x);)+
            f64::to_bits($body)
        }
    };
}

macro_rules! cmp_float {
    ($e:expr, $x:ident, $y:ident => $body:expr) => {
        if $e == Elem::F32 {
            let ($x, $y) = (f32_of($x), f32_of($y));
            $body
        } else {
            let ($x, $y) = (f64_of($x), f64_of($y));
            $body
        }
    };
}

pub(crate) fn unary(op: UnOp, e: Elem, x: u64) -> u64 {
    let r = match op {
        UnOp::Neg => x.wrapping_neg(),
        UnOp::Not => !x,
        UnOp::FNeg => x ^ (1 << (e.bits() - 1)),
        UnOp::FAbs => x & !(1 << (e.bits() - 1)),
        UnOp::Sqrt => by_float!(e, x => x.sqrt()),
        UnOp::Floor => by_float!(e, x => x.floor()),
        UnOp::Ceil => by_float!(e, x => x.ceil()),
        UnOp::Trunc => by_float!(e, x => x.trunc()),
        UnOp::RoundEven => by_float!(e, x => x.round_ties_even()),
        UnOp::Ctpop => u64::from(x.count_ones()),
        UnOp::Clz => u64::from(x.leading_zeros() - (64 - e.bits())),
    };
    r & e.mask()
}

pub(crate) fn binary(op: BinOp, e: Elem, x: u64, y: u64) -> u64 {
    let (sx, sy) = (signed(e, x), signed(e, y));
    let amount = (y % u64::from(e.bits())) as u32;
    let r = match op {
        BinOp::Add => x.wrapping_add(y),
        BinOp::Sub => x.wrapping_sub(y),
        BinOp::Mul => x.wrapping_mul(y),
        BinOp::SDiv => {
            if sy == 0 {
                0
            } else {
                sx.wrapping_div(sy).cast_unsigned()
            }
        }
        BinOp::UDiv => x.checked_div(y).unwrap_or(0),
        BinOp::SRem => {
            if sy == 0 {
                x
            } else {
                sx.wrapping_rem(sy).cast_unsigned()
            }
        }
        BinOp::URem => x.checked_rem(y).unwrap_or(x),
        BinOp::And => x & y,
        BinOp::Or => x | y,
        BinOp::Xor => x ^ y,
        BinOp::Shl => x << amount,
        BinOp::LShr => x >> amount,
        BinOp::AShr => (sx >> amount).cast_unsigned(),
        BinOp::SMin => sx.min(sy).cast_unsigned(),
        BinOp::SMax => sx.max(sy).cast_unsigned(),
        BinOp::UMin => x.min(y),
        BinOp::UMax => x.max(y),
        BinOp::FAdd => by_float!(e, x, y => x + y),
        BinOp::FSub => by_float!(e, x, y => x - y),
        BinOp::FMul => by_float!(e, x, y => x * y),
        BinOp::FDiv => by_float!(e, x, y => x / y),
        BinOp::FMin | BinOp::FMax => return propagating(op == BinOp::FMin, e, x, y),
        BinOp::FMinNum => {
            let y_nan = compare(CmpOp::FUno, e, y, y);
            if y_nan || compare(CmpOp::FLt, e, x, y) { x } else { y }
        }
        BinOp::FMaxNum => {
            let y_nan = compare(CmpOp::FUno, e, y, y);
            if y_nan || compare(CmpOp::FGt, e, x, y) { x } else { y }
        }
    };
    r & e.mask()
}

/// IEEE 754-2019 minimum and maximum: NaN wins, and -0 is below +0.
fn propagating(min: bool, e: Elem, x: u64, y: u64) -> u64 {
    if compare(CmpOp::FUno, e, x, y) {
        return by_float!(e, x, y => x + y);
    }
    if compare(CmpOp::FEq, e, x, y) {
        let negative = |b: u64| b >> (e.bits() - 1) == 1;
        return if negative(x) == min { x } else { y };
    }
    if compare(CmpOp::FLt, e, x, y) == min { x } else { y }
}

pub(crate) fn compare(op: CmpOp, e: Elem, x: u64, y: u64) -> bool {
    let (sx, sy) = (signed(e, x), signed(e, y));
    match op {
        CmpOp::Eq => x == y,
        CmpOp::Ne => x != y,
        CmpOp::Slt => sx < sy,
        CmpOp::Sle => sx <= sy,
        CmpOp::Sgt => sx > sy,
        CmpOp::Sge => sx >= sy,
        CmpOp::Ult => x < y,
        CmpOp::Ule => x <= y,
        CmpOp::Ugt => x > y,
        CmpOp::Uge => x >= y,
        CmpOp::FEq => cmp_float!(e, x, y => x == y),
        CmpOp::FNe => cmp_float!(e, x, y => x != y),
        CmpOp::FLt => cmp_float!(e, x, y => x < y),
        CmpOp::FLe => cmp_float!(e, x, y => x <= y),
        CmpOp::FGt => cmp_float!(e, x, y => x > y),
        CmpOp::FGe => cmp_float!(e, x, y => x >= y),
        CmpOp::FULt => cmp_float!(e, x, y => x < y || x.is_nan() || y.is_nan()),
        CmpOp::FULe => cmp_float!(e, x, y => x <= y || x.is_nan() || y.is_nan()),
        CmpOp::FUGt => cmp_float!(e, x, y => x > y || x.is_nan() || y.is_nan()),
        CmpOp::FUGe => cmp_float!(e, x, y => x >= y || x.is_nan() || y.is_nan()),
        CmpOp::FUno => cmp_float!(e, x, y => x.is_nan() || y.is_nan()),
        CmpOp::FOrd => cmp_float!(e, x, y => !x.is_nan() && !y.is_nan()),
    }
}

pub(crate) fn fma(e: Elem, x: u64, y: u64, z: u64) -> u64 {
    by_float!(e, x, y, z => x.mul_add(y, z))
}

/// Every conversion but `Bitcast`, which is not lane-wise.
pub(crate) fn cast(op: CastOp, from: Elem, to: Elem, x: u64) -> u64 {
    let r = match op {
        CastOp::Sext => signed(from, x).cast_unsigned(),
        CastOp::Zext | CastOp::Trunc | CastOp::Bitcast => x,
        CastOp::SiToFp => {
            let v = signed(from, x);
            if to == Elem::F32 { b32(v as f32) } else { (v as f64).to_bits() }
        }
        CastOp::UiToFp => {
            if to == Elem::F32 {
                b32(x as f32)
            } else {
                (x as f64).to_bits()
            }
        }
        CastOp::FpToSi => {
            // f64 holds every f32, and `as` truncates, saturates and maps NaN to 0.
            let v = if from == Elem::F32 { f64::from(f32_of(x)) } else { f64_of(x) };
            match to {
                Elem::I8 => (v as i8).cast_unsigned().into(),
                Elem::I16 => (v as i16).cast_unsigned().into(),
                Elem::I32 => (v as i32).cast_unsigned().into(),
                _ => (v as i64).cast_unsigned(),
            }
        }
        CastOp::FpToUi => {
            let v = if from == Elem::F32 { f64::from(f32_of(x)) } else { f64_of(x) };
            match to {
                Elem::I8 => (v as u8).into(),
                Elem::I16 => (v as u16).into(),
                Elem::I32 => (v as u32).into(),
                _ => v as u64,
            }
        }
        CastOp::FpExt => match from {
            Elem::F16 => b32(f16::from_bits(x as u16).to_f32()),
            Elem::BF16 => b32(bf16::from_bits(x as u16).to_f32()),
            _ => f64::from(f32_of(x)).to_bits(),
        },
        CastOp::FpTrunc => match to {
            Elem::F16 => f16::from_f32(f32_of(x)).to_bits().into(),
            Elem::BF16 => bf16::from_f32(f32_of(x)).to_bits().into(),
            _ => b32(f64_of(x) as f32),
        },
    };
    r & to.mask()
}

/// Value of an `F16`, `BF16` or `F32` lane.
pub(crate) fn to_f32(e: Elem, bits: u64) -> f32 {
    if e == Elem::F32 { f32_of(bits) } else { f32_of(cast(CastOp::FpExt, e, Elem::F32, bits)) }
}
