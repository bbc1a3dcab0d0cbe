//! Lane-wise operations by name, and their meaning. The rules of [`super::inst`] hold: every operation is total.

use super::types::{Elem, Ty};

/// One operand, same type out.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum UnOp {
    /// Wrapping integer negation.
    Neg,
    /// Bit complement (logical not on `I1`).
    Not,
    /// Flips the sign bit, of NaN too.
    FNeg,
    /// Clears the sign bit, of NaN too.
    FAbs,
    /// Correctly rounded; NaN below zero; `sqrt(-0) = -0`.
    Sqrt,
    Floor,
    Ceil,
    /// Toward zero.
    Trunc,
    /// To nearest, ties to even.
    RoundEven,
    /// Number of one bits.
    Ctpop,
    /// Number of leading zero bits; the width for 0.
    Clz,
}

/// Two operands of one type, same type out.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum BinOp {
    /// Wraps around, as do `Sub` and `Mul`.
    Add,
    Sub,
    Mul,
    /// Toward zero; `x / 0 = 0`, `MIN / -1 = MIN`.
    SDiv,
    /// `x / 0 = 0`.
    UDiv,
    /// Sign of the dividend; `x % 0 = x`, `MIN % -1 = 0`.
    SRem,
    /// `x % 0 = x`.
    URem,
    And,
    Or,
    Xor,
    /// Shift amounts are taken modulo the width.
    Shl,
    LShr,
    AShr,
    SMin,
    SMax,
    UMin,
    UMax,
    FAdd,
    FSub,
    FMul,
    FDiv,
    /// NaN if either is NaN; `-0 < +0`.
    FMin,
    /// NaN if either is NaN; `-0 < +0`.
    FMax,
    /// The other operand if one is NaN; otherwise `a < b ? a : b` (so zeros of either sign give `b`).
    FMinNum,
    /// The other operand if one is NaN; otherwise `a > b ? a : b` (so zeros of either sign give `b`).
    FMaxNum,
}

/// Two operands of one type, `I1` lanes out. Float comparisons are ordered (false on NaN) unless named `FU..`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum CmpOp {
    Eq,
    Ne,
    Slt,
    Sle,
    Sgt,
    Sge,
    Ult,
    Ule,
    Ugt,
    Uge,
    FEq,
    /// IEEE `!=`: true on NaN.
    FNe,
    FLt,
    FLe,
    FGt,
    FGe,
    /// `a < b` or NaN, and so on.
    FULt,
    FULe,
    FUGt,
    FUGe,
    /// Either is NaN.
    FUno,
    /// Neither is NaN.
    FOrd,
}

/// Lane-wise conversion; the result type is the type of the defined value.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum CastOp {
    /// To a wider integer; true is -1.
    Sext,
    /// To a wider integer; true is 1.
    Zext,
    /// To a narrower integer: low bits (bit 0 for `I1`).
    Trunc,
    /// Signed `I8..I64` to `F32` or `F64`, nearest-even.
    SiToFp,
    UiToFp,
    /// `F32` or `F64` to a signed `I8..I64`: toward zero, saturating, NaN gives 0.
    FpToSi,
    FpToUi,
    /// `F16|BF16 -> F32` or `F32 -> F64`, exact.
    FpExt,
    /// `F32 -> F16|BF16` or `F64 -> F32`, nearest-even, overflow to infinity.
    FpTrunc,
    /// Same total bits, lanes may differ (lane 0 is the low end); never `I1`.
    Bitcast,
}

impl UnOp {
    pub const ALL: [UnOp; 11] = [
        UnOp::Neg,
        UnOp::Not,
        UnOp::FNeg,
        UnOp::FAbs,
        UnOp::Sqrt,
        UnOp::Floor,
        UnOp::Ceil,
        UnOp::Trunc,
        UnOp::RoundEven,
        UnOp::Ctpop,
        UnOp::Clz,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            UnOp::Neg => "neg",
            UnOp::Not => "not",
            UnOp::FNeg => "fneg",
            UnOp::FAbs => "fabs",
            UnOp::Sqrt => "sqrt",
            UnOp::Floor => "floor",
            UnOp::Ceil => "ceil",
            UnOp::Trunc => "ftrunc",
            UnOp::RoundEven => "round_even",
            UnOp::Ctpop => "ctpop",
            UnOp::Clz => "clz",
        }
    }

    /// Whether operands are floating point.
    pub const fn is_float(self) -> bool {
        !matches!(self, UnOp::Neg | UnOp::Not | UnOp::Ctpop | UnOp::Clz)
    }
}

impl BinOp {
    pub const ALL: [BinOp; 25] = [
        BinOp::Add,
        BinOp::Sub,
        BinOp::Mul,
        BinOp::SDiv,
        BinOp::UDiv,
        BinOp::SRem,
        BinOp::URem,
        BinOp::And,
        BinOp::Or,
        BinOp::Xor,
        BinOp::Shl,
        BinOp::LShr,
        BinOp::AShr,
        BinOp::SMin,
        BinOp::SMax,
        BinOp::UMin,
        BinOp::UMax,
        BinOp::FAdd,
        BinOp::FSub,
        BinOp::FMul,
        BinOp::FDiv,
        BinOp::FMin,
        BinOp::FMax,
        BinOp::FMinNum,
        BinOp::FMaxNum,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            BinOp::Add => "add",
            BinOp::Sub => "sub",
            BinOp::Mul => "mul",
            BinOp::SDiv => "sdiv",
            BinOp::UDiv => "udiv",
            BinOp::SRem => "srem",
            BinOp::URem => "urem",
            BinOp::And => "and",
            BinOp::Or => "or",
            BinOp::Xor => "xor",
            BinOp::Shl => "shl",
            BinOp::LShr => "lshr",
            BinOp::AShr => "ashr",
            BinOp::SMin => "smin",
            BinOp::SMax => "smax",
            BinOp::UMin => "umin",
            BinOp::UMax => "umax",
            BinOp::FAdd => "fadd",
            BinOp::FSub => "fsub",
            BinOp::FMul => "fmul",
            BinOp::FDiv => "fdiv",
            BinOp::FMin => "fmin",
            BinOp::FMax => "fmax",
            BinOp::FMinNum => "fminnum",
            BinOp::FMaxNum => "fmaxnum",
        }
    }

    pub const fn is_float(self) -> bool {
        matches!(
            self,
            BinOp::FAdd
                | BinOp::FSub
                | BinOp::FMul
                | BinOp::FDiv
                | BinOp::FMin
                | BinOp::FMax
                | BinOp::FMinNum
                | BinOp::FMaxNum
        )
    }

    /// Defined on `I1` lanes.
    pub const fn is_bitwise(self) -> bool {
        matches!(self, BinOp::And | BinOp::Or | BinOp::Xor)
    }

    /// Usable in `Reduce`.
    pub const fn is_reduction(self) -> bool {
        !matches!(
            self,
            BinOp::Sub
                | BinOp::SDiv
                | BinOp::UDiv
                | BinOp::SRem
                | BinOp::URem
                | BinOp::Shl
                | BinOp::LShr
                | BinOp::AShr
                | BinOp::FSub
                | BinOp::FDiv
        )
    }

    /// `a op b == b op a` bit for bit (NaN patterns aside).
    pub const fn is_commutative(self) -> bool {
        self.is_reduction() && !matches!(self, BinOp::FMinNum | BinOp::FMaxNum)
    }
}

impl CmpOp {
    pub const ALL: [CmpOp; 22] = [
        CmpOp::Eq,
        CmpOp::Ne,
        CmpOp::Slt,
        CmpOp::Sle,
        CmpOp::Sgt,
        CmpOp::Sge,
        CmpOp::Ult,
        CmpOp::Ule,
        CmpOp::Ugt,
        CmpOp::Uge,
        CmpOp::FEq,
        CmpOp::FNe,
        CmpOp::FLt,
        CmpOp::FLe,
        CmpOp::FGt,
        CmpOp::FGe,
        CmpOp::FULt,
        CmpOp::FULe,
        CmpOp::FUGt,
        CmpOp::FUGe,
        CmpOp::FUno,
        CmpOp::FOrd,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            CmpOp::Eq => "eq",
            CmpOp::Ne => "ne",
            CmpOp::Slt => "slt",
            CmpOp::Sle => "sle",
            CmpOp::Sgt => "sgt",
            CmpOp::Sge => "sge",
            CmpOp::Ult => "ult",
            CmpOp::Ule => "ule",
            CmpOp::Ugt => "ugt",
            CmpOp::Uge => "uge",
            CmpOp::FEq => "feq",
            CmpOp::FNe => "fne",
            CmpOp::FLt => "flt",
            CmpOp::FLe => "fle",
            CmpOp::FGt => "fgt",
            CmpOp::FGe => "fge",
            CmpOp::FULt => "fult",
            CmpOp::FULe => "fule",
            CmpOp::FUGt => "fugt",
            CmpOp::FUGe => "fuge",
            CmpOp::FUno => "funo",
            CmpOp::FOrd => "ford",
        }
    }

    pub const fn is_float(self) -> bool {
        !matches!(
            self,
            CmpOp::Eq
                | CmpOp::Ne
                | CmpOp::Slt
                | CmpOp::Sle
                | CmpOp::Sgt
                | CmpOp::Sge
                | CmpOp::Ult
                | CmpOp::Ule
                | CmpOp::Ugt
                | CmpOp::Uge
        )
    }
}

impl CastOp {
    pub const ALL: [CastOp; 10] = [
        CastOp::Sext,
        CastOp::Zext,
        CastOp::Trunc,
        CastOp::SiToFp,
        CastOp::UiToFp,
        CastOp::FpToSi,
        CastOp::FpToUi,
        CastOp::FpExt,
        CastOp::FpTrunc,
        CastOp::Bitcast,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            CastOp::Sext => "sext",
            CastOp::Zext => "zext",
            CastOp::Trunc => "trunc",
            CastOp::SiToFp => "sitofp",
            CastOp::UiToFp => "uitofp",
            CastOp::FpToSi => "fptosi_sat",
            CastOp::FpToUi => "fptoui_sat",
            CastOp::FpExt => "fpext",
            CastOp::FpTrunc => "fptrunc",
            CastOp::Bitcast => "bitcast",
        }
    }

    /// Whether the conversion exists between these types.
    pub fn allows(self, from: Ty, to: Ty) -> bool {
        use Elem::{BF16, F16, F32, F64};
        let (f, t) = (from.elem, to.elem);
        if self == CastOp::Bitcast {
            return from.bits() == to.bits() && f != Elem::I1 && t != Elem::I1;
        }
        from.lanes == to.lanes
            && match self {
                CastOp::Sext | CastOp::Zext => f.is_int() && t.is_int() && f.bits() < t.bits(),
                CastOp::Trunc => f.is_int() && t.is_int() && f.bits() > t.bits(),
                CastOp::SiToFp | CastOp::UiToFp => f.is_wide_int() && t.is_arith_float(),
                CastOp::FpToSi | CastOp::FpToUi => f.is_arith_float() && t.is_wide_int(),
                CastOp::FpExt => matches!((f, t), (F16 | BF16, F32) | (F32, F64)),
                CastOp::FpTrunc => matches!((f, t), (F32, F16 | BF16) | (F64, F32)),
                CastOp::Bitcast => true,
            }
    }
}
