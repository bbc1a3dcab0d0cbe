//! Arithmetic on registers of all lanes at once. Frequent forms have loops of their own, which the compiler makes vectors of;
//! everything else goes through the operations of one lane.

use crate::op::{BinaryOp, Compare, Kind, Operand, Reg, Round, TernaryOp, Ty, UnaryOp};
use crate::run::{ALL, LANES, Row, Warp};
use crate::value;

impl Warp {
    /// A copy of an operand in all lanes.
    #[inline]
    pub(crate) fn row(&self, o: Operand) -> Row {
        match o {
            Operand::Reg(r) => self.regs[r.index as usize],
            Operand::Imm(v) => [v; LANES],
        }
    }

    #[inline]
    pub(crate) fn get(&self, o: Operand, lane: usize) -> u64 {
        match o {
            Operand::Reg(r) => self.regs[r.index as usize][lane],
            Operand::Imm(v) => v,
        }
    }

    #[inline]
    pub(crate) fn set(&mut self, r: Reg, lane: usize, v: u64) {
        self.regs[r.index as usize][lane] = v & (u64::MAX >> (64 - r.bits));
    }

    /// Writes the lanes of a mask.
    #[inline]
    pub(crate) fn put(&mut self, r: Reg, mask: u32, new: &Row) {
        let keep = u64::MAX >> (64 - r.bits);
        let old = &mut self.regs[r.index as usize];
        if mask == ALL {
            for (o, n) in old.iter_mut().zip(new) {
                *o = n & keep;
            }
        } else {
            for (l, (o, n)) in old.iter_mut().zip(new).enumerate() {
                *o = if mask >> l & 1 == 1 { n & keep } else { *o };
            }
        }
    }
}

#[inline]
fn map1(a: &Row, f: impl Fn(u64) -> u64) -> Row {
    std::array::from_fn(|l| f(a[l]))
}

#[inline]
fn map2(a: &Row, b: &Row, f: impl Fn(u64, u64) -> u64) -> Row {
    std::array::from_fn(|l| f(a[l], b[l]))
}

#[inline]
fn map3(a: &Row, b: &Row, c: &Row, f: impl Fn(u64, u64, u64) -> u64) -> Row {
    std::array::from_fn(|l| f(a[l], b[l], c[l]))
}

fn f32_of(x: u64) -> f32 {
    f32::from_bits(x as u32)
}

fn of_f32(x: f32) -> u64 {
    u64::from(x.to_bits())
}

pub(crate) fn unary(op: UnaryOp, ty: Ty, a: &Row) -> Row {
    map1(a, |x| value::unary(op, ty, x))
}

pub(crate) fn binary(op: BinaryOp, ty: Ty, a: &Row, b: &Row) -> Row {
    use BinaryOp as B;
    if matches!(op, B::Shl | B::Shr) {
        return match (op, ty.signed(), ty.bits) {
            // Amounts are of 32 bits; those of the width and more shift everything out.
            (B::Shl, _, 64) => map2(a, b, |x, n| x.checked_shl(n as u32).unwrap_or(0)),
            (B::Shl, _, 32) => map2(a, b, |x, n| if n as u32 > 31 { 0 } else { x << (n as u32 & 31) }),
            (B::Shr, false, 64) => map2(a, b, |x, n| x.checked_shr(n as u32).unwrap_or(0)),
            (B::Shr, false, 32) => {
                map2(a, b, |x, n| u64::from((x as u32).checked_shr(n as u32).unwrap_or(0)))
            }
            _ => map2(a, b, |x, n| value::shift(op, ty, x, n)),
        };
    }
    if ty.lanes == 2 {
        return map2(a, b, |x, y| value::binary(op, ty, x, y));
    }
    if ty.kind == Kind::Float && ty.bits == 32 {
        return match op {
            B::Add => map2(a, b, |x, y| of_f32(f32_of(x) + f32_of(y))),
            B::Sub => map2(a, b, |x, y| of_f32(f32_of(x) - f32_of(y))),
            B::Mul => map2(a, b, |x, y| of_f32(f32_of(x) * f32_of(y))),
            _ => map2(a, b, |x, y| value::binary(op, ty, x, y)),
        };
    }
    if ty.kind == Kind::Float || ty.kind == Kind::Brain {
        return map2(a, b, |x, y| value::binary(op, ty, x, y));
    }
    // The upper bits of these results are cut off by the register.
    match (op, ty.bits) {
        (B::Add, _) => map2(a, b, u64::wrapping_add),
        (B::Sub, _) => map2(a, b, u64::wrapping_sub),
        (B::Mul, 64) => map2(a, b, u64::wrapping_mul),
        (B::Mul, 32) => map2(a, b, |x, y| u64::from((x as u32).wrapping_mul(y as u32))),
        (B::MulWide, 32) if ty.signed() => {
            map2(a, b, |x, y| (i64::from(x as i32) * i64::from(y as i32)).cast_unsigned())
        }
        (B::MulWide, 32) => map2(a, b, |x, y| u64::from(x as u32) * u64::from(y as u32)),
        (B::And, _) => map2(a, b, |x, y| x & y),
        (B::Or, _) => map2(a, b, |x, y| x | y),
        (B::Xor, _) => map2(a, b, |x, y| x ^ y),
        _ => map2(a, b, |x, y| value::binary(op, ty, x, y)),
    }
}

pub(crate) fn ternary(op: TernaryOp, ty: Ty, a: &Row, b: &Row, c: &Row) -> Row {
    match (op, ty.kind, ty.bits) {
        (TernaryOp::Mad, Kind::Float, 32) => fused(a, b, c),
        (TernaryOp::Mad, Kind::Unsigned | Kind::Signed | Kind::Bits, 64 | 32) => {
            map3(a, b, c, |x, y, z| x.wrapping_mul(y).wrapping_add(z))
        }
        (TernaryOp::MadWide, Kind::Signed, 32) => map3(a, b, c, |x, y, z| {
            (i64::from(x as i32) * i64::from(y as i32)).cast_unsigned().wrapping_add(z)
        }),
        _ => map3(a, b, c, |x, y, z| value::ternary(op, ty, x, y, z)),
    }
}

/// `a * b + c` in f32, rounded once.
fn fused(a: &Row, b: &Row, c: &Row) -> Row {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("fma") {
        // SAFETY: the processor has what the function needs.
        #[allow(unsafe_code)]
        return unsafe { fused_by_hardware(a, b, c) };
    }
    map3(a, b, c, |x, y, z| of_f32(f32_of(x).mul_add(f32_of(y), f32_of(z))))
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "fma,avx2")]
fn fused_by_hardware(a: &Row, b: &Row, c: &Row) -> Row {
    let mut out = [0; LANES];
    for (l, sum) in out.iter_mut().enumerate() {
        *sum = of_f32(f32_of(a[l]).mul_add(f32_of(b[l]), f32_of(c[l])));
    }
    out
}

pub(crate) fn compare(cmp: Compare, ty: Ty, a: &Row, b: &Row) -> Row {
    use Compare as C;
    macro_rules! by {
        ($of:expr) => {
            match cmp {
                C::Eq => Some(map2(a, b, |x, y| u64::from($of(x) == $of(y)))),
                C::Lt => Some(map2(a, b, |x, y| u64::from($of(x) < $of(y)))),
                C::Le => Some(map2(a, b, |x, y| u64::from($of(x) <= $of(y)))),
                C::Gt => Some(map2(a, b, |x, y| u64::from($of(x) > $of(y)))),
                C::Ge => Some(map2(a, b, |x, y| u64::from($of(x) >= $of(y)))),
                _ => None,
            }
        };
    }
    let quick = match (ty.kind, ty.bits) {
        (Kind::Float, 32) => by!(f32_of),
        (Kind::Signed, 64) => by!(u64::cast_signed),
        (Kind::Signed, 32) => by!(|x: u64| x as i32),
        (Kind::Unsigned, 64) => by!(|x: u64| x),
        (Kind::Unsigned, 32) => by!(|x: u64| x as u32),
        _ => None,
    };
    quick.unwrap_or_else(|| map2(a, b, |x, y| u64::from(value::compare(cmp, ty, x, y))))
}

pub(crate) fn select(a: &Row, b: &Row, cond: &Row) -> Row {
    map3(a, b, cond, |x, y, c| if c & 1 == 1 { x } else { y })
}

pub(crate) fn convert(to: Ty, from: Ty, round: Round, a: &Row) -> Row {
    match (to.kind, to.bits, from.kind, from.bits) {
        (Kind::Signed, 64, Kind::Signed, 32) => map1(a, |x| i64::from(x as i32).cast_unsigned()),
        (Kind::Unsigned, 64, Kind::Unsigned, 32) => map1(a, |x| u64::from(x as u32)),
        (Kind::Unsigned, 32, Kind::Unsigned, 64) => map1(a, |x| u64::from(x as u32)),
        (Kind::Float, 32, Kind::Signed, 32) => map1(a, |x| of_f32(x as i32 as f32)),
        _ => map1(a, |x| value::convert(to, from, round, x)),
    }
}
