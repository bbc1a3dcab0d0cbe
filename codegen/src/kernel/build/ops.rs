//! Arithmetic, comparisons, conversions and lane operations.
//!
//! Operands are values or literals; a scalar value beside a vector is splatted.

use super::{Builder, Opd};
use crate::kernel::inst::{BinOp, CastOp, CmpOp, Dot4, Op, UnOp};
use crate::kernel::types::{Elem, Ty, Val};

impl Builder {
    /// Wrapping negation.
    pub fn neg(&mut self, a: Val) -> Val {
        self.unary(UnOp::Neg, a)
    }

    /// Bit complement.
    pub fn not(&mut self, a: Val) -> Val {
        self.unary(UnOp::Not, a)
    }

    /// Flips the sign.
    pub fn fneg(&mut self, a: Val) -> Val {
        self.unary(UnOp::FNeg, a)
    }

    /// Clears the sign.
    pub fn fabs(&mut self, a: Val) -> Val {
        self.unary(UnOp::FAbs, a)
    }

    /// Square root.
    pub fn sqrt(&mut self, a: Val) -> Val {
        self.unary(UnOp::Sqrt, a)
    }

    /// Toward minus infinity.
    pub fn floor(&mut self, a: Val) -> Val {
        self.unary(UnOp::Floor, a)
    }

    /// Toward plus infinity.
    pub fn ceil(&mut self, a: Val) -> Val {
        self.unary(UnOp::Ceil, a)
    }

    /// To an integral value toward zero.
    pub fn ftrunc(&mut self, a: Val) -> Val {
        self.unary(UnOp::Trunc, a)
    }

    /// To the nearest integral value, ties to even.
    pub fn round_even(&mut self, a: Val) -> Val {
        self.unary(UnOp::RoundEven, a)
    }

    /// Number of one bits.
    pub fn ctpop(&mut self, a: Val) -> Val {
        self.unary(UnOp::Ctpop, a)
    }

    /// Number of leading zeros.
    pub fn clz(&mut self, a: Val) -> Val {
        self.unary(UnOp::Clz, a)
    }

    /// `a + b`, wrapping.
    pub fn add(&mut self, a: impl Into<Opd>, b: impl Into<Opd>) -> Val {
        self.binary(BinOp::Add, a, b)
    }

    /// `a - b`, wrapping.
    pub fn sub(&mut self, a: impl Into<Opd>, b: impl Into<Opd>) -> Val {
        self.binary(BinOp::Sub, a, b)
    }

    /// `a * b`, wrapping.
    pub fn mul(&mut self, a: impl Into<Opd>, b: impl Into<Opd>) -> Val {
        self.binary(BinOp::Mul, a, b)
    }

    /// Signed quotient toward zero; 0 for a zero divisor.
    pub fn sdiv(&mut self, a: impl Into<Opd>, b: impl Into<Opd>) -> Val {
        self.binary(BinOp::SDiv, a, b)
    }

    /// [`Builder::sdiv`] and what is left of `a`: row and column of a row-major position.
    pub fn div_rem(&mut self, a: Val, b: impl Into<Opd> + Copy) -> (Val, Val) {
        let quotient = self.sdiv(a, b);
        let whole = self.mul(quotient, b);
        (quotient, self.sub(a, whole))
    }

    /// Quotient and remainder of two i64 from 0 to 2^32 - 1, by a division of 32 bits: on a GPU one of 64 bits is a call.
    pub fn div_rem_small(&mut self, a: Val, b: Val) -> (Val, Val) {
        let (short, by) = (self.trunc(a, Elem::I32), self.trunc(b, Elem::I32));
        let quotient = self.udiv(short, by);
        let quotient = self.zext(quotient, Elem::I64);
        let whole = self.mul(quotient, b);
        (quotient, self.sub(a, whole))
    }

    /// Unsigned quotient; 0 for a zero divisor.
    pub fn udiv(&mut self, a: impl Into<Opd>, b: impl Into<Opd>) -> Val {
        self.binary(BinOp::UDiv, a, b)
    }

    /// Signed remainder, sign of `a`; `a` for a zero divisor.
    pub fn srem(&mut self, a: impl Into<Opd>, b: impl Into<Opd>) -> Val {
        self.binary(BinOp::SRem, a, b)
    }

    /// Unsigned remainder; `a` for a zero divisor.
    pub fn urem(&mut self, a: impl Into<Opd>, b: impl Into<Opd>) -> Val {
        self.binary(BinOp::URem, a, b)
    }

    /// Bitwise and.
    pub fn and(&mut self, a: impl Into<Opd>, b: impl Into<Opd>) -> Val {
        self.binary(BinOp::And, a, b)
    }

    /// Bitwise or.
    pub fn or(&mut self, a: impl Into<Opd>, b: impl Into<Opd>) -> Val {
        self.binary(BinOp::Or, a, b)
    }

    /// Bitwise exclusive or.
    pub fn xor(&mut self, a: impl Into<Opd>, b: impl Into<Opd>) -> Val {
        self.binary(BinOp::Xor, a, b)
    }

    /// Left shift, amount modulo the width.
    pub fn shl(&mut self, a: impl Into<Opd>, b: impl Into<Opd>) -> Val {
        self.binary(BinOp::Shl, a, b)
    }

    /// Logical right shift, amount modulo the width.
    pub fn lshr(&mut self, a: impl Into<Opd>, b: impl Into<Opd>) -> Val {
        self.binary(BinOp::LShr, a, b)
    }

    /// Arithmetic right shift, amount modulo the width.
    pub fn ashr(&mut self, a: impl Into<Opd>, b: impl Into<Opd>) -> Val {
        self.binary(BinOp::AShr, a, b)
    }

    /// Signed minimum.
    pub fn smin(&mut self, a: impl Into<Opd>, b: impl Into<Opd>) -> Val {
        self.binary(BinOp::SMin, a, b)
    }

    /// Signed maximum.
    pub fn smax(&mut self, a: impl Into<Opd>, b: impl Into<Opd>) -> Val {
        self.binary(BinOp::SMax, a, b)
    }

    /// Unsigned minimum.
    pub fn umin(&mut self, a: impl Into<Opd>, b: impl Into<Opd>) -> Val {
        self.binary(BinOp::UMin, a, b)
    }

    /// Unsigned maximum.
    pub fn umax(&mut self, a: impl Into<Opd>, b: impl Into<Opd>) -> Val {
        self.binary(BinOp::UMax, a, b)
    }

    /// Float sum.
    pub fn fadd(&mut self, a: impl Into<Opd>, b: impl Into<Opd>) -> Val {
        self.binary(BinOp::FAdd, a, b)
    }

    /// Float difference.
    pub fn fsub(&mut self, a: impl Into<Opd>, b: impl Into<Opd>) -> Val {
        self.binary(BinOp::FSub, a, b)
    }

    /// Float product.
    pub fn fmul(&mut self, a: impl Into<Opd>, b: impl Into<Opd>) -> Val {
        self.binary(BinOp::FMul, a, b)
    }

    /// Float quotient.
    pub fn fdiv(&mut self, a: impl Into<Opd>, b: impl Into<Opd>) -> Val {
        self.binary(BinOp::FDiv, a, b)
    }

    /// Minimum; NaN if either is.
    pub fn fmin(&mut self, a: impl Into<Opd>, b: impl Into<Opd>) -> Val {
        self.binary(BinOp::FMin, a, b)
    }

    /// Maximum; NaN if either is.
    pub fn fmax(&mut self, a: impl Into<Opd>, b: impl Into<Opd>) -> Val {
        self.binary(BinOp::FMax, a, b)
    }

    /// Minimum; the other operand if one is NaN.
    pub fn fminnum(&mut self, a: impl Into<Opd>, b: impl Into<Opd>) -> Val {
        self.binary(BinOp::FMinNum, a, b)
    }

    /// Maximum; the other operand if one is NaN.
    pub fn fmaxnum(&mut self, a: impl Into<Opd>, b: impl Into<Opd>) -> Val {
        self.binary(BinOp::FMaxNum, a, b)
    }

    /// Sign-extends to lanes of `elem`.
    pub fn sext(&mut self, a: Val, elem: Elem) -> Val {
        self.cast(CastOp::Sext, a, elem)
    }

    /// Zero-extends to lanes of `elem`.
    pub fn zext(&mut self, a: Val, elem: Elem) -> Val {
        self.cast(CastOp::Zext, a, elem)
    }

    /// Truncates to lanes of `elem`.
    pub fn trunc(&mut self, a: Val, elem: Elem) -> Val {
        self.cast(CastOp::Trunc, a, elem)
    }

    /// Converts signed integers to lanes of `elem`.
    pub fn sitofp(&mut self, a: Val, elem: Elem) -> Val {
        self.cast(CastOp::SiToFp, a, elem)
    }

    /// Converts unsigned integers to lanes of `elem`.
    pub fn uitofp(&mut self, a: Val, elem: Elem) -> Val {
        self.cast(CastOp::UiToFp, a, elem)
    }

    /// Converts, saturating, to signed integers to lanes of `elem`.
    pub fn fptosi(&mut self, a: Val, elem: Elem) -> Val {
        self.cast(CastOp::FpToSi, a, elem)
    }

    /// Converts, saturating, to unsigned integers to lanes of `elem`.
    pub fn fptoui(&mut self, a: Val, elem: Elem) -> Val {
        self.cast(CastOp::FpToUi, a, elem)
    }

    /// Widens floats to lanes of `elem`.
    pub fn fpext(&mut self, a: Val, elem: Elem) -> Val {
        self.cast(CastOp::FpExt, a, elem)
    }

    /// Narrows floats to lanes of `elem`.
    pub fn fptrunc(&mut self, a: Val, elem: Elem) -> Val {
        self.cast(CastOp::FpTrunc, a, elem)
    }

    /// A unary operation by name.
    pub fn unary(&mut self, op: UnOp, a: Val) -> Val {
        let ty = self.ty(a);
        self.pure(Op::Unary(op, a), ty)
    }

    /// A binary operation by name.
    pub fn bin(&mut self, op: BinOp, a: impl Into<Opd>, b: impl Into<Opd>) -> Val {
        self.binary(op, a, b)
    }

    /// A lane-wise conversion by name, to lanes of `elem`; none if they are that already.
    pub fn cast(&mut self, op: CastOp, a: Val, elem: Elem) -> Val {
        let ty = self.ty(a);
        if ty.elem == elem { a } else { self.pure(Op::Cast(op, a), ty.with_elem(elem)) }
    }

    /// The same bits as another type.
    pub fn bitcast(&mut self, a: Val, ty: Ty) -> Val {
        self.pure(Op::Cast(CastOp::Bitcast, a), ty)
    }

    /// Floats of any format as `elem`: at most one rounding, except that `F64` to a 16-bit format rounds to odd in `F32` first,
    /// which gives the correctly rounded result.
    pub fn float_to(&mut self, a: Val, elem: Elem) -> Val {
        let from = self.ty(a).elem;
        match (from, elem) {
            _ if from == elem => a,
            (Elem::F16 | Elem::BF16, Elem::F32) | (Elem::F32, Elem::F64) => self.fpext(a, elem),
            (Elem::F32, Elem::F16 | Elem::BF16) | (Elem::F64, Elem::F32) => self.fptrunc(a, elem),
            (Elem::F16 | Elem::BF16, _) => {
                let wide = self.fpext(a, Elem::F32);
                self.float_to(wide, elem)
            }
            (Elem::F64, _) => {
                let odd = self.round_to_odd(a);
                self.fptrunc(odd, elem)
            }
            _ => panic!("float_to from {from} to {elem}"),
        }
    }

    /// `F64` to `F32`, inexact results to the neighbour with an odd last bit.
    pub fn round_to_odd(&mut self, a: Val) -> Val {
        let near = self.fptrunc(a, Elem::F32);
        let back = self.fpext(near, Elem::F64);
        let inexact = self.cmp(CmpOp::FNe, back, a);
        let nan = self.cmp(CmpOp::FUno, a, a);
        let not_nan = self.not(nan);
        let bits_ty = self.ty(near).with_elem(Elem::I32);
        let bits = self.bitcast(near, bits_ty);
        let last = self.and(bits, 1);
        let even = self.cmp(CmpOp::Eq, last, 0);
        let fix = self.and(inexact, even);
        let fix = self.and(fix, not_nan);
        let (abs_back, abs_a) = (self.fabs(back), self.fabs(a));
        let below = self.cmp(CmpOp::FLt, abs_back, abs_a);
        let (one, minus) = (self.int(bits_ty, 1), self.int(bits_ty, -1));
        let step = self.select(below, one, minus);
        let moved = self.add(bits, step);
        let bits = self.select(fix, moved, bits);
        let ty = self.ty(near);
        self.bitcast(bits, ty)
    }

    /// `a * b + c` rounded once.
    pub fn fma(&mut self, a: impl Into<Opd>, b: impl Into<Opd>, c: impl Into<Opd>) -> Val {
        let (a, b, c) = (a.into(), b.into(), c.into());
        let ty = self.common(&[a, b, c]);
        let (a, b, c) = (self.operand(a, ty), self.operand(b, ty), self.operand(c, ty));
        self.pure(Op::Fma(a, b, c), ty)
    }

    /// Lane-wise comparison.
    pub fn cmp(&mut self, op: CmpOp, a: impl Into<Opd>, b: impl Into<Opd>) -> Val {
        let (a, b) = (a.into(), b.into());
        let ty = self.common(&[a, b]);
        let (a, b) = (self.operand(a, ty), self.operand(b, ty));
        self.pure(Op::Cmp(op, a, b), ty.with_elem(Elem::I1))
    }

    /// `cond ? a : b` lane by lane; a scalar `cond` chooses whole vectors. Two literals take the lanes of `cond`.
    pub fn select(&mut self, cond: Val, a: impl Into<Opd>, b: impl Into<Opd>) -> Val {
        let (a, b) = (a.into(), b.into());
        let ty = self.common(&[a, b]);
        let ty = if ty.is_scalar() { ty.with_lanes(self.ty(cond).lanes) } else { ty };
        let (a, b) = (self.operand(a, ty), self.operand(b, ty));
        self.pure(Op::Select(cond, a, b), ty)
    }

    /// `acc[i] + sum over j<4 of unsigned a[4i+j] * signed b[4i+j]`, wrapping.
    pub fn dot4_u8s8(&mut self, acc: Val, a: Val, b: Val) -> Val {
        let ty = self.ty(acc);
        self.pure(Op::Dot4 { kind: Dot4::U8S8, acc, a, b }, ty)
    }

    /// `acc[i] + sum over j<4 of signed a[4i+j] * signed b[4i+j]`, wrapping.
    pub fn dot4_s8s8(&mut self, acc: Val, a: Val, b: Val) -> Val {
        let ty = self.ty(acc);
        self.pure(Op::Dot4 { kind: Dot4::S8S8, acc, a, b }, ty)
    }

    /// [`Builder::dot4_u8s8`] whose sums of the first two and of the last two products saturate to 16 bits.
    pub fn dot4_u8s8_pairs(&mut self, acc: Val, a: Val, b: Val) -> Val {
        let ty = self.ty(acc);
        self.pure(Op::Dot4 { kind: Dot4::U8S8Pairs, acc, a, b }, ty)
    }

    /// `acc[i] + a[2i] * b[2i] + a[2i+1] * b[2i+1]` on bf16 pairs.
    pub fn dot2_bf16(&mut self, acc: Val, a: Val, b: Val) -> Val {
        let ty = self.ty(acc);
        self.pure(Op::Dot2Bf16 { acc, a, b }, ty)
    }

    /// A scalar to every one of `lanes` lanes.
    pub fn splat(&mut self, v: Val, lanes: u16) -> Val {
        let ty = self.ty(v).with_lanes(lanes);
        self.pure(Op::Splat(v), ty)
    }

    /// Lane `i` holds `i`.
    pub fn iota(&mut self, ty: Ty) -> Val {
        if ty.is_scalar() { self.zero(ty) } else { self.pure(Op::Iota, ty) }
    }

    /// Lane `i` of the result is lane `mask[i]` of `a ++ b`.
    pub fn shuffle(&mut self, a: Val, b: Val, mask: &[u16]) -> Val {
        let ty = self.ty(a).with_lanes(u16::try_from(mask.len()).expect("few lanes"));
        self.pure(Op::Shuffle(a, b, mask.to_vec()), ty)
    }

    /// `a ++ b`.
    pub fn concat(&mut self, a: Val, b: Val) -> Val {
        let n = self.ty(a).lanes * 2;
        self.shuffle(a, b, &(0..n).collect::<Vec<_>>())
    }

    /// Lanes `first..first + lanes`.
    pub fn slice(&mut self, a: Val, first: u16, lanes: u16) -> Val {
        if lanes == 1 {
            return self.extract(a, first);
        }
        self.shuffle(a, a, &(first..first + lanes).collect::<Vec<_>>())
    }

    /// One lane as a scalar.
    pub fn extract(&mut self, a: Val, lane: u16) -> Val {
        let ty = self.ty(a).with_lanes(1);
        self.pure(Op::Extract(a, lane), ty)
    }

    /// `a` with one lane replaced.
    pub fn insert(&mut self, a: Val, v: Val, lane: u16) -> Val {
        let ty = self.ty(a);
        self.pure(Op::Insert(a, v, lane), ty)
    }

    /// All lanes combined to a scalar by halving: low half with high half, until one lane is left.
    pub fn reduce(&mut self, op: BinOp, a: Val) -> Val {
        let ty = self.ty(a).with_lanes(1);
        self.pure(Op::Reduce(op, a), ty)
    }

    /// Whether any lane of an `I1` value is true.
    pub fn any(&mut self, a: Val) -> Val {
        self.reduce(BinOp::Or, a)
    }

    /// Whether all lanes of an `I1` value are true.
    pub fn all(&mut self, a: Val) -> Val {
        self.reduce(BinOp::And, a)
    }

    /// `ceil(a / d)` of a non-negative `I64` and a positive literal.
    pub fn ceil_div(&mut self, a: impl Into<Opd>, d: i64) -> Val {
        let a = self.index(a);
        let up = self.add(a, d - 1);
        self.div_const(up, d)
    }

    /// `a / d` of a non-negative `I64` and a positive literal.
    pub fn div_const(&mut self, a: impl Into<Opd>, d: i64) -> Val {
        let a = self.index(a);
        if d.count_ones() == 1 && d > 0 {
            self.lshr(a, i64::from(d.trailing_zeros()))
        } else {
            self.udiv(a, d)
        }
    }

    /// `base + i * stride`, all `I64`.
    pub fn at(&mut self, base: impl Into<Opd>, i: impl Into<Opd>, stride: impl Into<Opd>) -> Val {
        let off = self.mul(i, stride);
        self.add(base, off)
    }
}
