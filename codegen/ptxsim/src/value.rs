//! The meaning of operations on the bits of one lane, after the PTX ISA. Upper bits of arguments are ignored.

use crate::op::{BinaryOp, Compare, Kind, Round, TernaryOp, Ty, UnaryOp};
use half::{bf16, f16};

/// The low bits, sign-extended.
fn signed(ty: Ty, x: u64) -> i64 {
    let shift = 64 - ty.bits;
    (x << shift).cast_signed() >> shift
}

fn single(x: u64) -> f32 {
    f32::from_bits(x as u32)
}

fn double(x: u64) -> f64 {
    f64::from_bits(x)
}

fn of_single(x: f32) -> u64 {
    u64::from(x.to_bits())
}

/// Applies one expression in f32 or f64.
macro_rules! float {
    ($ty:expr, $($x:ident),+ => $body:expr) => {
        if $ty.bits == 32 {
            $(let $x = single($x);)+
            of_single($body)
        } else {
            $(let $x = double($x);)+
            f64::to_bits($body)
        }
    };
}

pub(crate) fn unary(op: UnaryOp, ty: Ty, x: u64) -> u64 {
    let sign = 1u64 << (ty.bits - 1);
    let r = match op {
        UnaryOp::Neg if ty.is_float() => x ^ sign,
        UnaryOp::Neg => x.wrapping_neg(),
        UnaryOp::Abs if ty.is_float() => x & !sign,
        UnaryOp::Abs => signed(ty, x).unsigned_abs(),
        UnaryOp::Not => !x,
        UnaryOp::Sqrt => float!(ty, x => x.sqrt()),
        UnaryOp::Rcp => float!(ty, x => 1.0 / x),
        UnaryOp::Popc => u64::from((x & ty.mask()).count_ones()),
        UnaryOp::Clz => u64::from((x & ty.mask()).leading_zeros() - (64 - ty.bits)),
    };
    r & ty.mask()
}

pub(crate) fn binary(op: BinaryOp, ty: Ty, x: u64, y: u64) -> u64 {
    if ty.lanes == 2 {
        let half = Ty { lanes: 1, ..ty };
        let low = binary(op, half, x, y);
        let high = binary(op, half, x >> ty.bits, y >> ty.bits);
        return low | high << ty.bits;
    }
    if ty.is_float() {
        return float_binary(op, ty, x, y);
    }
    let (x, y) = (x & ty.mask(), y & ty.mask());
    let (sx, sy) = (signed(ty, x), signed(ty, y));
    let wide = |sx: i64, sy: i64| -> u128 {
        if ty.signed() {
            (i128::from(sx) * i128::from(sy)).cast_unsigned()
        } else {
            u128::from(x) * u128::from(y)
        }
    };
    let r = match op {
        BinaryOp::Add => x.wrapping_add(y),
        BinaryOp::Sub => x.wrapping_sub(y),
        BinaryOp::Mul => x.wrapping_mul(y),
        BinaryOp::MulHi => (wide(sx, sy) >> ty.bits) as u64,
        // Twice as wide: not masked here.
        BinaryOp::MulWide => return wide(sx, sy) as u64 & (u64::MAX >> (64 - 2 * ty.bits)),
        // Division by zero gives an unspecified value: all ones, so that one that is used shows.
        BinaryOp::Div if y == 0 => u64::MAX,
        BinaryOp::Rem if y == 0 => u64::MAX,
        BinaryOp::Div if ty.signed() => sx.wrapping_div(sy).cast_unsigned(),
        BinaryOp::Rem if ty.signed() => sx.wrapping_rem(sy).cast_unsigned(),
        BinaryOp::Div => x / y,
        BinaryOp::Rem => x % y,
        BinaryOp::And => x & y,
        BinaryOp::Or => x | y,
        BinaryOp::Xor => x ^ y,
        BinaryOp::Shl | BinaryOp::Shr => unreachable!("shifts have an amount of 32 bits"),
        BinaryOp::Min | BinaryOp::MinNan if ty.signed() => sx.min(sy).cast_unsigned(),
        BinaryOp::Max | BinaryOp::MaxNan if ty.signed() => sx.max(sy).cast_unsigned(),
        BinaryOp::Min | BinaryOp::MinNan => x.min(y),
        BinaryOp::Max | BinaryOp::MaxNan => x.max(y),
    };
    r & ty.mask()
}

/// Shifts: amounts of 32 bits, clamped to the width.
pub(crate) fn shift(op: BinaryOp, ty: Ty, x: u64, amount: u64) -> u64 {
    let n = amount as u32;
    let r = match op {
        BinaryOp::Shl => (x & ty.mask()).checked_shl(n).unwrap_or(0),
        _ if ty.signed() => (signed(ty, x) >> n.min(63)).cast_unsigned(),
        _ => (x & ty.mask()).checked_shr(n).unwrap_or(0),
    };
    r & ty.mask()
}

fn float_binary(op: BinaryOp, ty: Ty, x: u64, y: u64) -> u64 {
    let nan = |x: u64| if ty.bits == 32 { single(x).is_nan() } else { double(x).is_nan() };
    let canonical = if ty.bits == 32 { 0x7FFF_FFFF } else { 0x7FFF_FFFF_FFFF_FFFF };
    match op {
        BinaryOp::Add => float!(ty, x, y => x + y),
        BinaryOp::Sub => float!(ty, x, y => x - y),
        BinaryOp::Mul => float!(ty, x, y => x * y),
        BinaryOp::Div => float!(ty, x, y => x / y),
        BinaryOp::MinNan | BinaryOp::MaxNan if nan(x) || nan(y) => canonical,
        BinaryOp::Min | BinaryOp::Max if nan(x) && nan(y) => canonical,
        BinaryOp::Min | BinaryOp::Max if nan(x) => y,
        BinaryOp::Min | BinaryOp::Max if nan(y) => x,
        // -0 is below +0: equal values of which one is -0.
        BinaryOp::Min | BinaryOp::MinNan => {
            let less = if ty.bits == 32 { single(x) < single(y) } else { double(x) < double(y) };
            let equal = if ty.bits == 32 { single(x) == single(y) } else { double(x) == double(y) };
            if less || (equal && x > y) { x } else { y }
        }
        _ => {
            let more = if ty.bits == 32 { single(x) > single(y) } else { double(x) > double(y) };
            let equal = if ty.bits == 32 { single(x) == single(y) } else { double(x) == double(y) };
            if more || (equal && x < y) { x } else { y }
        }
    }
}

pub(crate) fn ternary(op: TernaryOp, ty: Ty, x: u64, y: u64, z: u64) -> u64 {
    match op {
        TernaryOp::Mad if ty.is_float() => float!(ty, x, y, z => x.mul_add(y, z)),
        TernaryOp::Mad => x.wrapping_mul(y).wrapping_add(z) & ty.mask(),
        TernaryOp::MadWide => {
            let mask = u64::MAX >> (64 - 2 * ty.bits);
            binary(BinaryOp::MulWide, ty, x, y).wrapping_add(z) & mask
        }
        TernaryOp::Bfe => field(ty, x, y, z),
        TernaryOp::Prmt => permute(x, y, z),
        TernaryOp::Funnel { left, wrap } => {
            let n = if wrap { z & 31 } else { z.min(32) };
            let both = y << 32 | x & u64::from(u32::MAX);
            (if left { both << n >> 32 } else { both >> n }) & u64::from(u32::MAX)
        }
    }
}

/// `len` bits from bit `pos`; a signed field is extended by its top bit, or by that of `x` where it runs over the end.
fn field(ty: Ty, x: u64, pos: u64, len: u64) -> u64 {
    let (pos, len) = ((pos & 0xFF) as u32, (len & 0xFF) as u32);
    let top = ty.bits - 1;
    let fill = ty.signed() && len > 0 && x >> (pos + len - 1).min(top) & 1 == 1;
    let mut r = 0u64;
    for i in 0..ty.bits {
        let bit = if i < len && pos + i <= top { x >> (pos + i) & 1 == 1 } else { fill };
        r |= u64::from(bit) << i;
    }
    r
}

/// `len` bits of `a` into `b` from bit `pos`.
pub(crate) fn insert(ty: Ty, a: u64, b: u64, pos: u64, len: u64) -> u64 {
    let (pos, len) = ((pos & 0xFF) as u32, (len & 0xFF) as u32);
    let mut r = b & ty.mask();
    for i in 0..len {
        if pos + i < ty.bits {
            let at = pos + i;
            r = (r & !(1 << at)) | ((a >> i & 1) << at);
        }
    }
    r
}

/// Byte `i` is byte `nibble i` of `y:x`, or its sign eight times where the nibble's top bit is set.
fn permute(x: u64, y: u64, selector: u64) -> u64 {
    let bytes = (x & 0xFFFF_FFFF) | y << 32;
    let mut r = 0;
    for i in 0..4 {
        let n = selector >> (4 * i) & 0xF;
        let byte = bytes >> (8 * (n & 7)) & 0xFF;
        let byte = if n & 8 == 0 { byte } else { (byte >> 7) * 0xFF };
        r |= byte << (8 * i);
    }
    r
}

pub(crate) fn compare(cmp: Compare, ty: Ty, x: u64, y: u64) -> bool {
    let (order, nan) = if ty.is_float() {
        let (x, y) =
            if ty.bits == 32 { (f64::from(single(x)), f64::from(single(y))) } else { (double(x), double(y)) };
        (x.partial_cmp(&y), x.is_nan() || y.is_nan())
    } else if ty.signed() {
        (Some(signed(ty, x).cmp(&signed(ty, y))), false)
    } else {
        (Some((x & ty.mask()).cmp(&(y & ty.mask()))), false)
    };
    use std::cmp::Ordering::{Equal, Greater, Less};
    match cmp {
        Compare::Eq => order == Some(Equal),
        Compare::Ne => matches!(order, Some(Less | Greater)),
        Compare::Lt => order == Some(Less),
        Compare::Le => matches!(order, Some(Less | Equal)),
        Compare::Gt => order == Some(Greater),
        Compare::Ge => matches!(order, Some(Greater | Equal)),
        Compare::Equ => nan || order == Some(Equal),
        Compare::Neu => order != Some(Equal),
        Compare::Ltu => nan || order == Some(Less),
        Compare::Leu => order != Some(Greater),
        Compare::Gtu => nan || order == Some(Greater),
        Compare::Geu => order != Some(Less),
        Compare::Num => !nan,
        Compare::Nan => nan,
    }
}

/// A 16-bit float as f32.
pub(crate) fn widen(ty: Ty, x: u64) -> f32 {
    if ty.kind == Kind::Brain {
        bf16::from_bits(x as u16).to_f32()
    } else {
        f16::from_bits(x as u16).to_f32()
    }
}

/// f32 to a 16-bit float, to nearest even.
pub(crate) fn narrow(ty: Ty, x: u64) -> u64 {
    let x = single(x);
    u64::from(if ty.kind == Kind::Brain { bf16::from_f32(x).to_bits() } else { f16::from_f32(x).to_bits() })
}

pub(crate) fn convert(to: Ty, from: Ty, round: Round, x: u64) -> u64 {
    let float = |t: Ty| matches!(t.kind, Kind::Float | Kind::Brain);
    match (float(to), float(from)) {
        // Signed sources are extended by their sign; a result narrower than its register is extended by its own.
        (false, false) => {
            let v = if from.signed() { signed(from, x).cast_unsigned() } else { x & from.mask() };
            if to.signed() { signed(to, v).cast_unsigned() } else { v & to.mask() }
        }
        (false, true) => to_integer(to, from, round, x),
        (true, false) => match (to.bits, from.signed()) {
            (32, true) => of_single(signed(from, x) as f32),
            (32, false) => of_single((x & from.mask()) as f32),
            (_, true) => (signed(from, x) as f64).to_bits(),
            (_, false) => ((x & from.mask()) as f64).to_bits(),
        },
        (true, true) if to == from => float!(to, x => match round {
            Round::Rni => x.round_ties_even(),
            Round::Rzi => x.trunc(),
            Round::Rmi => x.floor(),
            _ => x.ceil(),
        }),
        (true, true) => match (to.bits, from.bits) {
            (32, 16) => of_single(widen(from, x)),
            (64, 16) => f64::from(widen(from, x)).to_bits(),
            (64, _) => f64::from(single(x)).to_bits(),
            (32, _) => of_single(double(x) as f32),
            (_, 32) => narrow(to, x),
            _ if to.kind == Kind::Brain => u64::from(bf16::from_f64(double(x)).to_bits()),
            _ => u64::from(f16::from_f64(double(x)).to_bits()),
        },
    }
}

/// Rounded to an integral value and clamped. NaN gives 0, content with f64 or 64-bit integers involved: then the value of the
/// top bit alone.
fn to_integer(to: Ty, from: Ty, round: Round, x: u64) -> u64 {
    let v = if from.bits == 32 { f64::from(single(x)) } else { double(x) };
    if v.is_nan() {
        return if from.bits == 64 || to.bits == 64 { 1 << (to.bits - 1) } else { 0 };
    }
    let v = match round {
        Round::Rni => v.round_ties_even(),
        Round::Rmi => v.floor(),
        Round::Rpi => v.ceil(),
        _ => v.trunc(),
    };
    if to.signed() {
        let (lo, hi) = (i64::MIN >> (64 - to.bits), i64::MAX >> (64 - to.bits));
        // A cast saturates, and the limits of narrower types are exact in f64.
        (v as i64).clamp(lo, hi).cast_unsigned()
    } else {
        (v as u64).min(to.mask())
    }
}
