//! Decoded instructions.

/// How the bits of a value are read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Bits,
    Unsigned,
    Signed,
    Float,
    /// `bf16`.
    Brain,
    Pred,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Ty {
    pub(crate) kind: Kind,
    pub(crate) bits: u32,
    /// 2 for `s16x2` and the like: two values in one register.
    pub(crate) lanes: u32,
}

impl Ty {
    pub(crate) const fn new(kind: Kind, bits: u32) -> Ty {
        Ty { kind, bits, lanes: 1 }
    }
    pub(crate) const fn bytes(self) -> usize {
        (self.bits * self.lanes) as usize / 8
    }
    pub(crate) const fn mask(self) -> u64 {
        u64::MAX >> (64 - self.bits)
    }
    pub(crate) fn is_int(self) -> bool {
        matches!(self.kind, Kind::Bits | Kind::Unsigned | Kind::Signed)
    }
    pub(crate) fn signed(self) -> bool {
        self.kind == Kind::Signed
    }
    /// f32 or f64: what has arithmetic.
    pub(crate) fn is_float(self) -> bool {
        self.kind == Kind::Float && self.bits >= 32
    }
}

/// A register of a thread; writes keep the low `bits`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Reg {
    pub(crate) index: u32,
    pub(crate) bits: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Operand {
    Reg(Reg),
    Imm(u64),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Space {
    Param,
    Global,
    Shared,
    Local,
    Generic,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Addr {
    pub(crate) base: Operand,
    pub(crate) offset: i64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Special {
    Tid(u8),
    Ntid(u8),
    Ctaid(u8),
    Nctaid(u8),
    Lane,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum UnaryOp {
    Neg,
    Abs,
    Not,
    Sqrt,
    Rcp,
    Popc,
    Clz,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum BinaryOp {
    Add,
    Sub,
    Mul,
    MulHi,
    MulWide,
    Div,
    Rem,
    And,
    Or,
    Xor,
    Shl,
    Shr,
    Min,
    Max,
    /// NaN if either is NaN.
    MinNan,
    MaxNan,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum TernaryOp {
    /// Low half of the product, plus; float: fused.
    Mad,
    MadWide,
    /// Bit field: value, position, length.
    Bfe,
    /// Bytes of two words by the nibbles of the third operand.
    Prmt,
    /// Funnel shift of (second operand : first operand); `left` gives the upper word, else the lower. `wrap` takes the shift modulo 32,
    /// else it stops at 32.
    Funnel {
        left: bool,
        wrap: bool,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Compare {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    /// True if either is NaN, else as the ordered one.
    Equ,
    Neu,
    Ltu,
    Leu,
    Gtu,
    Geu,
    Num,
    Nan,
}

/// Rounding of a conversion.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Round {
    None,
    /// To the nearest float, ties to even.
    Rn,
    /// To an integral value: nearest even, toward zero, down, up.
    Rni,
    Rzi,
    Rmi,
    Rpi,
}

/// What a product of a warp multiplies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum MmaShape {
    /// `m16n8k16`, 16-bit floats of this kind, f32 sums.
    Half(Ty),
    /// `m16n8k8`, f32 of which the upper 19 bits count, f32 sums.
    Tf32,
    /// `m16n8k32`, bytes, signed or not, i32 sums that wrap.
    Bytes { left: Kind, right: Kind },
}

impl MmaShape {
    /// Values of an operand in a register.
    pub(crate) fn per_register(self) -> usize {
        match self {
            MmaShape::Half(_) => 2,
            MmaShape::Tf32 => 1,
            MmaShape::Bytes { .. } => 4,
        }
    }
    /// Length of the sums.
    pub(crate) fn depth(self) -> usize {
        8 * self.per_register()
    }
}

#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Op {
    Load {
        space: Space,
        ty: Ty,
        dst: Vec<Reg>,
        addr: Addr,
        read_only: bool,
    },
    Store {
        space: Space,
        ty: Ty,
        src: Vec<Operand>,
        addr: Addr,
    },
    Move {
        dst: Reg,
        src: Operand,
    },
    Special {
        dst: Reg,
        which: Special,
    },
    /// Parts of `bits` bits, the first lowest.
    Pack {
        dst: Reg,
        parts: Vec<Operand>,
        bits: u32,
    },
    Unpack {
        dst: Vec<Option<Reg>>,
        src: Operand,
        bits: u32,
    },
    Convert {
        dst: Reg,
        src: Operand,
        to: Ty,
        from: Ty,
        round: Round,
    },
    /// Two f32 to one register of two 16-bit floats.
    ConvertPair {
        dst: Reg,
        high: Operand,
        low: Operand,
        to: Ty,
    },
    /// Address of a space to a generic one, or back.
    Generic {
        dst: Reg,
        src: Operand,
        space: Space,
        back: bool,
    },
    Unary {
        op: UnaryOp,
        ty: Ty,
        dst: Reg,
        a: Operand,
    },
    Binary {
        op: BinaryOp,
        ty: Ty,
        dst: Reg,
        a: Operand,
        b: Operand,
    },
    Ternary {
        op: TernaryOp,
        ty: Ty,
        dst: Reg,
        a: Operand,
        b: Operand,
        c: Operand,
    },
    /// `a` into `b` at bit `pos`, `len` bits.
    Insert {
        ty: Ty,
        dst: Reg,
        a: Operand,
        b: Operand,
        pos: Operand,
        len: Operand,
    },
    Compare {
        cmp: Compare,
        ty: Ty,
        dst: Reg,
        a: Operand,
        b: Operand,
    },
    Select {
        dst: Reg,
        a: Operand,
        b: Operand,
        cond: Operand,
    },
    Branch {
        target: u32,
    },
    Return,
    Nothing,
    Barrier,
    /// `shfl.sync.bfly`.
    Butterfly {
        dst: Reg,
        src: Operand,
        lane_mask: Operand,
        clamp: Operand,
        members: Operand,
    },
    /// A product of 16 rows and 8 columns.
    Mma {
        shape: MmaShape,
        d: [Reg; 4],
        a: Vec<Operand>,
        b: Vec<Operand>,
        c: [Operand; 4],
    },
    CopyAsync {
        dst: Addr,
        src: Addr,
        bytes: usize,
    },
    CopyCommit,
    CopyWait(usize),
}

impl Op {
    /// Whether lanes do it together.
    pub(crate) fn joins(&self) -> bool {
        matches!(self, Op::Barrier | Op::Butterfly { .. } | Op::Mma { .. })
    }
}

#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Inst {
    /// Predicate, and whether it is negated.
    pub(crate) guard: Option<(Reg, bool)>,
    pub(crate) op: Op,
    pub(crate) line: u32,
    pub(crate) text: String,
}
