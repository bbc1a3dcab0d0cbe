//! Folding of trivial operations while a kernel is built: constant integers, identities, index sums.
//!
//! Floating-point operations are never folded: what they give is decided where they run.

use super::inst::{BinOp, CastOp, CmpOp, Op};
use super::types::{Ty, Val};

/// What to use in place of an operation.
pub(crate) enum Folded {
    /// Every lane this bit pattern.
    Const(u64),
    Val(Val),
    /// `op(val, constant)` in place of a longer chain.
    WithConst(BinOp, Val, u64),
    No,
}

/// What is known of a value while building.
pub(crate) trait Known {
    fn ty(&self, v: Val) -> Ty;
    /// The bit pattern that every lane has.
    fn uniform(&self, v: Val) -> Option<u64>;
    fn def(&self, v: Val) -> Option<&Op>;
}

/// The number that the low `width` bits (1 to 64) are in two's complement.
pub fn sext(bits: u64, width: u32) -> i64 {
    (bits << (64 - width)).cast_signed() >> (64 - width)
}

/// The bits of an integer operation on lanes of `width` bits; `None` where it is left to run time (division by zero and
/// overflow), and for operations on floats.
pub fn int_bin(op: BinOp, a: u64, b: u64, width: u32) -> Option<u64> {
    let (sa, sb) = (sext(a, width), sext(b, width));
    let mask = u64::MAX >> (64 - width);
    let sh = (b % u64::from(width)) as u32;
    let r = match op {
        BinOp::Add => a.wrapping_add(b),
        BinOp::Sub => a.wrapping_sub(b),
        BinOp::Mul => a.wrapping_mul(b),
        BinOp::SDiv if sb > 0 => (sa / sb).cast_unsigned(),
        BinOp::SRem if sb > 0 => (sa % sb).cast_unsigned(),
        BinOp::UDiv if b != 0 => a / b,
        BinOp::URem if b != 0 => a % b,
        BinOp::And => a & b,
        BinOp::Or => a | b,
        BinOp::Xor => a ^ b,
        BinOp::Shl => a << sh,
        BinOp::LShr => a >> sh,
        BinOp::AShr => (sa >> sh).cast_unsigned(),
        BinOp::SMin => sa.min(sb).cast_unsigned(),
        BinOp::SMax => sa.max(sb).cast_unsigned(),
        BinOp::UMin => a.min(b),
        BinOp::UMax => a.max(b),
        _ => return None,
    };
    Some(r & mask)
}

/// An integer comparison of lanes of `width` bits; `None` for a comparison of floats.
pub fn int_cmp(op: CmpOp, a: u64, b: u64, width: u32) -> Option<bool> {
    let (sa, sb) = (sext(a, width), sext(b, width));
    Some(match op {
        CmpOp::Eq => a == b,
        CmpOp::Ne => a != b,
        CmpOp::Slt => sa < sb,
        CmpOp::Sle => sa <= sb,
        CmpOp::Sgt => sa > sb,
        CmpOp::Sge => sa >= sb,
        CmpOp::Ult => a < b,
        CmpOp::Ule => a <= b,
        CmpOp::Ugt => a > b,
        CmpOp::Uge => a >= b,
        _ => return None,
    })
}

pub(crate) fn fold(k: &impl Known, op: &Op, ty: Ty) -> Folded {
    match *op {
        Op::Binary(o, a, b) if !o.is_float() => fold_int(k, o, a, b, ty),
        Op::Cmp(o, a, b) => match (k.uniform(a), k.uniform(b)) {
            (Some(x), Some(y)) => match int_cmp(o, x, y, k.ty(a).elem.bits()) {
                Some(r) => Folded::Const(u64::from(r)),
                None => Folded::No,
            },
            _ => Folded::No,
        },
        Op::Select(_, a, b) if a == b => Folded::Val(a),
        Op::Select(c, a, b) => match k.uniform(c) {
            Some(0) => Folded::Val(b),
            Some(_) => Folded::Val(a),
            None => Folded::No,
        },
        Op::Cast(o, a) => {
            let from = k.ty(a);
            if o == CastOp::Bitcast && from == ty {
                return Folded::Val(a);
            }
            match (o, k.uniform(a)) {
                (CastOp::Zext, Some(x)) => Folded::Const(x),
                (CastOp::Trunc, Some(x)) => Folded::Const(x & ty.elem.mask()),
                (CastOp::Sext, Some(x)) => {
                    Folded::Const(sext(x, from.elem.bits()).cast_unsigned() & ty.elem.mask())
                }
                (CastOp::Bitcast, Some(x)) if from.elem.bits() == ty.elem.bits() => Folded::Const(x),
                _ => Folded::No,
            }
        }
        Op::Splat(v) if ty.is_scalar() => Folded::Val(v),
        Op::Splat(v) => k.uniform(v).map_or(Folded::No, Folded::Const),
        Op::Extract(a, _) => match (k.uniform(a), k.def(a)) {
            (Some(x), _) => Folded::Const(x),
            (None, Some(Op::Splat(s))) => Folded::Val(*s),
            _ if k.ty(a).is_scalar() => Folded::Val(a),
            _ => Folded::No,
        },
        Op::Reduce(_, a) if k.ty(a).is_scalar() => Folded::Val(a),
        Op::Shuffle(a, _, ref m)
            if k.ty(a) == ty && m.iter().enumerate().all(|(i, &l)| i == usize::from(l)) =>
        {
            Folded::Val(a)
        }
        _ => Folded::No,
    }
}

fn fold_int(k: &impl Known, o: BinOp, a: Val, b: Val, ty: Ty) -> Folded {
    let width = ty.elem.bits();
    let (ka, kb) = (k.uniform(a), k.uniform(b));
    if let (Some(x), Some(y)) = (ka, kb) {
        return int_bin(o, x, y, width).map_or(Folded::No, Folded::Const);
    }
    let ones = ty.elem.mask();
    match (o, ka, kb) {
        (BinOp::Add | BinOp::Or | BinOp::Xor, Some(0), _) => return Folded::Val(b),
        (
            BinOp::Add | BinOp::Sub | BinOp::Or | BinOp::Xor | BinOp::Shl | BinOp::LShr | BinOp::AShr,
            _,
            Some(0),
        ) => return Folded::Val(a),
        (BinOp::Mul | BinOp::And, Some(0), _) | (BinOp::Mul | BinOp::And, _, Some(0)) => {
            return Folded::Const(0);
        }
        // On one-bit lanes the constant 1 is all ones, which the `And` rules below cover.
        (BinOp::Mul, Some(1), _) => return Folded::Val(b),
        (BinOp::Mul | BinOp::SDiv | BinOp::UDiv, _, Some(1)) => return Folded::Val(a),
        (BinOp::SRem | BinOp::URem, _, Some(1)) => return Folded::Const(0),
        (BinOp::And, Some(x), _) if x == ones => return Folded::Val(b),
        (BinOp::And, _, Some(x)) if x == ones => return Folded::Val(a),
        (BinOp::Sub | BinOp::Xor, ..) if a == b => return Folded::Const(0),
        (BinOp::And | BinOp::Or | BinOp::SMin | BinOp::SMax | BinOp::UMin | BinOp::UMax, ..) if a == b => {
            return Folded::Val(a);
        }
        // x - c becomes x + (-c), so that sums of constants meet.
        (BinOp::Sub, _, Some(c)) => {
            return Folded::WithConst(BinOp::Add, a, c.wrapping_neg() & ones);
        }
        _ => {}
    }
    // (x + c1) + c2 and (x * c1) * c2: wrapping arithmetic is associative.
    if let (BinOp::Add | BinOp::Mul, Some(c2)) = (o, kb)
        && let Some(Op::Binary(inner, x, y)) = k.def(a)
        && *inner == o
        && let Some(c1) = k.uniform(*y)
        && let Some(c) = int_bin(o, c1, c2, width)
    {
        return Folded::WithConst(o, *x, c);
    }
    Folded::No
}
