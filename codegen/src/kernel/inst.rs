//! Instructions and their meaning.
//!
//! Every operation is total: there is no undefined behaviour on values, only on addresses (an access outside a buffer).
//! Lane-wise operations take operands of equal type. Floating-point arithmetic is IEEE 754 round-to-nearest-even; which
//! NaN bit pattern results is unspecified; subnormals follow the mode of the machine (normally kept).

use super::types::{Buf, Elem, Val};

pub use super::opcode::{BinOp, CastOp, CmpOp, UnOp};

/// Which bytes of a four-way byte product are signed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Dot4 {
    /// `a` unsigned, `b` signed.
    U8S8,
    /// Both signed.
    S8S8,
    /// `a` unsigned, `b` signed; the sums of the first two and of the last two products saturate to 16 bits.
    U8S8Pairs,
}

/// Values that the launch supplies; all `I64`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Special {
    /// First index of the parallel axis that this call does (CPU).
    RangeLo,
    /// One past the last (CPU).
    RangeHi,
    /// SIMT; the dimension is 0, 1 or 2.
    ThreadId(u8),
    BlockId(u8),
    BlockDim(u8),
    GridDim(u8),
}

/// Operand of a matrix product of a warp: the lanes that one thread holds. The product has 16 rows and 8 columns, and sums of
/// length 16 for factors of `F16` or `BF16`, 8 for `F32` (of which the upper 19 bits count: TF32) and 32 for `I8` (signed).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Frag {
    /// The left factor, element (i, k) at `idx + i * stride + k`.
    A,
    /// The right factor given by columns, element (k, j) at `idx + j * stride + k`.
    B,
    /// The sums, element (i, j) at `idx + i * stride + j`; 4 lanes of `F32`, or of `I32` where factors are `I8`.
    C,
}

impl Frag {
    /// Neighbouring elements that one thread accesses at once; `idx` and `stride` are multiples of it.
    pub const fn together(self, elem: Elem) -> u16 {
        match self {
            Frag::A | Frag::B => (32 / elem.bits()) as u16,
            Frag::C => 2,
        }
    }

    /// Lanes that one thread holds of a fragment of such elements.
    pub const fn lanes(self, elem: Elem) -> u16 {
        match self {
            Frag::A => 4 * self.together(elem),
            Frag::B => 2 * self.together(elem),
            Frag::C => 4,
        }
    }

    /// Length of the sums of a product of such factors.
    pub const fn depth(elem: Elem) -> u32 {
        256 / elem.bits()
    }

    /// (major, minor) coordinate of `slot` in the register of warp lane `lane`: the layout that PTX defines. The element is
    /// at `idx + major * stride + minor`.
    pub const fn coord(self, elem: Elem, lane: u32, slot: u32) -> (u32, u32) {
        let (group, quad) = (lane / 4, lane % 4);
        let n = self.together(elem) as u32;
        let (register, at) = (slot / n, slot % n);
        match self {
            Frag::A => (group + 8 * (register % 2), quad * n + at + 4 * n * (register / 2)),
            Frag::B => (group, quad * n + at + 4 * n * register),
            Frag::C => (group + 8 * (slot / 2), quad * 2 + slot % 2),
        }
    }
}

/// How a loop's iterations came about. The bounds and step are already those of the executing call or thread; the axis is a
/// record for readers and schedulers, never a change of meaning.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Axis {
    Serial,
    /// The axis that `lo..hi` of the CPU ABI partitions.
    Parallel,
    Grid,
    Block,
    Lane,
}

/// Straight-line code with block parameters and results.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Block {
    pub params: Vec<Val>,
    pub insts: Vec<Inst>,
    pub yields: Vec<Val>,
}

/// `outs` are the values defined (their types are in the kernel's value table).
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Inst {
    pub outs: Vec<Val>,
    pub op: Op,
}

/// What an instruction does.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Op {
    /// Lane bit patterns: one (every lane the same) or as many as lanes.
    Const(Vec<u64>),
    /// Value of a scalar parameter (`I64`).
    Param(u16),
    Special(Special),
    /// Scalar to every lane.
    Splat(Val),
    /// Lane `i` holds `i` (truncated to the integer element).
    Iota,
    Unary(UnOp, Val),
    Binary(BinOp, Val, Val),
    /// `a * b + c` rounded once.
    Fma(Val, Val, Val),
    Cmp(CmpOp, Val, Val),
    /// `cond ? a : b`; `cond` is `I1` of the same lanes, or one `I1` for all lanes.
    Select(Val, Val, Val),
    Cast(CastOp, Val),
    /// `acc: i32xN + sum over j<4 of a[4i+j] * b[4i+j]`, wrapping; `a`, `b`: i8x4N. Of [`Dot4::U8S8Pairs`]
    /// the sums of two products saturate to 16 bits first.
    Dot4 {
        kind: Dot4,
        acc: Val,
        a: Val,
        b: Val,
    },
    /// `fma(a[2i], b[2i], fma(a[2i+1], b[2i+1], acc[i]))`; `acc: f32xN`, `a`, `b`: bf16x2N. A back end may treat subnormal
    /// inputs and results as zero and may add the two products in either order.
    Dot2Bf16 {
        acc: Val,
        a: Val,
        b: Val,
    },
    /// Lane `i` is lane `mask[i]` of `a ++ b` (equal types); as many lanes out as the mask has.
    Shuffle(Val, Val, Vec<u16>),
    Extract(Val, u16),
    Insert(Val, Val, u16),
    /// Halves the vector until one lane is left: lane `i` of the low half combined with lane `i` of the high half. Not for
    /// subtraction, division, remainder and shifts.
    Reduce(BinOp, Val),
    /// Contiguous elements from element index `idx` (`I64`). `align` in bytes, at least the element's. With a mask, lanes that are
    /// false touch no memory and come from the second value.
    Load {
        buf: Buf,
        idx: Val,
        align: u32,
        mask: Option<(Val, Val)>,
    },
    Store {
        buf: Buf,
        idx: Val,
        val: Val,
        align: u32,
        mask: Option<Val>,
    },
    /// Lane `i` from element index `idx[i]` (vector of `I32`, sign-extended, or `I64`).
    Gather {
        buf: Buf,
        idx: Val,
        mask: Option<(Val, Val)>,
    },
    /// Lanes are stored in lane order, so that the last wins where indices are equal.
    Scatter {
        buf: Buf,
        idx: Val,
        val: Val,
        mask: Option<Val>,
    },
    /// A hint; may name any address.
    Prefetch {
        buf: Buf,
        idx: Val,
    },
    /// If `cond` (scalar `I1`), stores `code` in the error word of the context; execution goes on.
    ErrorIf {
        cond: Val,
        code: i32,
    },
    /// `for (i = lo; i < hi; i += step)`, signed, `step > 0`; `hi + step` must not overflow. Body parameters are `i` and the
    /// carried values; it yields the next carried values; the last ones are the results.
    For {
        axis: Axis,
        lo: Val,
        hi: Val,
        step: Val,
        init: Vec<Val>,
        body: Block,
    },
    /// `cond` is a scalar `I1`; both arms yield values of the result types.
    If {
        cond: Val,
        then: Block,
        other: Block,
    },
    /// `cond` (parameters: the carried values) yields one `I1`; while true, `body` (same parameters) yields the next values.
    While {
        init: Vec<Val>,
        cond: Block,
        body: Block,
    },

    /// SIMT: all threads of the block reach it together.
    Barrier,
    /// SIMT: the scalar 32-bit value of lane `lane ^ mask` of the warp; every thread of the warp takes part.
    ShuffleXor(Val, u8),
    /// SIMT: `bytes` (4, 8 or 16) from a parameter to a shared array, done at the latest by the matching `CopyWait`.
    CopyAsync {
        dst: Buf,
        dst_idx: Val,
        src: Buf,
        src_idx: Val,
        bytes: u8,
    },
    CopyCommit,
    /// SIMT: waits until at most this many committed groups of this thread are unfinished.
    CopyWait(u8),
    /// SIMT: one warp loads a fragment. `idx` and `stride` are multiples of [`Frag::together`], so that those neighbours are one aligned
    /// access.
    FragLoad {
        frag: Frag,
        buf: Buf,
        idx: Val,
        stride: Val,
    },
    /// SIMT: one warp stores an accumulator fragment; `idx` and `stride` are even.
    FragStore {
        buf: Buf,
        idx: Val,
        stride: Val,
        val: Val,
    },
    /// SIMT: `c + a * b` of a warp. Sums of floats are f32, their order over k is unspecified; those of `I8` are `I32` and wrap.
    Mma {
        a: Val,
        b: Val,
        c: Val,
    },
}

impl Axis {
    pub const ALL: [Axis; 5] = [Axis::Serial, Axis::Parallel, Axis::Grid, Axis::Block, Axis::Lane];

    pub const fn name(self) -> &'static str {
        match self {
            Axis::Serial => "serial",
            Axis::Parallel => "parallel",
            Axis::Grid => "grid",
            Axis::Block => "block",
            Axis::Lane => "lane",
        }
    }
}

/// Calls `$g` on a reference to each operand of `$op` outside nested blocks; the reference is as mutable as `$op` is.
macro_rules! walk_operands {
    ($op:expr, $g:ident) => {
        match $op {
            Op::Const(_)
            | Op::Param(_)
            | Op::Special(_)
            | Op::Iota
            | Op::Barrier
            | Op::CopyCommit
            | Op::CopyWait(_) => {}
            Op::Splat(a)
            | Op::Unary(_, a)
            | Op::Cast(_, a)
            | Op::Extract(a, _)
            | Op::Reduce(_, a)
            | Op::ShuffleXor(a, _)
            | Op::Prefetch { idx: a, .. }
            | Op::ErrorIf { cond: a, .. }
            | Op::If { cond: a, .. } => $g(a),
            Op::Binary(_, a, b)
            | Op::Cmp(_, a, b)
            | Op::Shuffle(a, b, _)
            | Op::Insert(a, b, _)
            | Op::CopyAsync { dst_idx: a, src_idx: b, .. }
            | Op::FragLoad { idx: a, stride: b, .. } => {
                $g(a);
                $g(b);
            }
            Op::Fma(a, b, c)
            | Op::Select(a, b, c)
            | Op::Mma { a, b, c }
            | Op::Dot4 { acc: a, a: b, b: c, .. }
            | Op::Dot2Bf16 { acc: a, a: b, b: c }
            | Op::FragStore { idx: a, stride: b, val: c, .. } => {
                $g(a);
                $g(b);
                $g(c);
            }
            Op::Load { idx, mask, .. } | Op::Gather { idx, mask, .. } => {
                $g(idx);
                if let Some((m, p)) = mask {
                    $g(m);
                    $g(p);
                }
            }
            Op::Store { idx, val, mask, .. } | Op::Scatter { idx, val, mask, .. } => {
                $g(idx);
                $g(val);
                if let Some(m) = mask {
                    $g(m);
                }
            }
            Op::For { lo, hi, step, init, .. } => {
                $g(lo);
                $g(hi);
                $g(step);
                for v in init {
                    $g(v);
                }
            }
            Op::While { init, .. } => {
                for v in init {
                    $g(v);
                }
            }
        }
    };
}

impl Op {
    /// No effect on memory or control and no dependence on memory: equal operands give equal results.
    pub fn is_pure(&self) -> bool {
        matches!(
            self,
            Op::Const(_)
                | Op::Param(_)
                | Op::Special(_)
                | Op::Splat(_)
                | Op::Iota
                | Op::Unary(..)
                | Op::Binary(..)
                | Op::Fma(..)
                | Op::Cmp(..)
                | Op::Select(..)
                | Op::Cast(..)
                | Op::Dot4 { .. }
                | Op::Dot2Bf16 { .. }
                | Op::Shuffle(..)
                | Op::Extract(..)
                | Op::Insert(..)
                | Op::Reduce(..)
        )
    }

    /// May be dropped when its results are unused.
    pub fn is_removable(&self) -> bool {
        self.is_pure() || matches!(self, Op::Load { .. } | Op::Gather { .. } | Op::FragLoad { .. })
    }

    /// Legal only in SIMT kernels.
    pub fn is_simt(&self) -> bool {
        matches!(
            self,
            Op::Barrier
                | Op::ShuffleXor(..)
                | Op::CopyAsync { .. }
                | Op::CopyCommit
                | Op::CopyWait(_)
                | Op::FragLoad { .. }
                | Op::FragStore { .. }
                | Op::Mma { .. }
                | Op::Special(
                    Special::ThreadId(_) | Special::BlockId(_) | Special::BlockDim(_) | Special::GridDim(_)
                )
        )
    }

    /// Calls `f` on each operand outside nested blocks, in a fixed order.
    pub fn for_each_operand(&self, mut f: impl FnMut(Val)) {
        let mut g = |v: &Val| f(*v);
        walk_operands!(self, g);
    }

    /// Replaces each operand outside nested blocks by `f(operand)`.
    pub fn map_operands(&mut self, mut f: impl FnMut(Val) -> Val) {
        let mut g = |v: &mut Val| *v = f(*v);
        walk_operands!(self, g);
    }

    /// Nested blocks, in order.
    pub fn blocks(&self) -> Vec<&Block> {
        match self {
            Op::For { body, .. } => vec![body],
            Op::If { then, other, .. } => vec![then, other],
            Op::While { cond, body, .. } => vec![cond, body],
            _ => vec![],
        }
    }

    /// Nested blocks, in order.
    pub fn blocks_mut(&mut self) -> Vec<&mut Block> {
        match self {
            Op::For { body, .. } => vec![body],
            Op::If { then, other, .. } => vec![then, other],
            Op::While { cond, body, .. } => vec![cond, body],
            _ => vec![],
        }
    }
}

impl Block {
    /// Calls `f` on every instruction, those of nested blocks after the one that holds them.
    pub fn visit<'a>(&'a self, f: &mut impl FnMut(&'a Inst)) {
        for inst in &self.insts {
            f(inst);
            for nb in inst.op.blocks() {
                nb.visit(f);
            }
        }
    }
}
