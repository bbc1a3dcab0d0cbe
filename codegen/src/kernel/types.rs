//! Register and memory types, value ids, buffers.

use std::fmt;

/// Element of a register lane and of a buffer. Integers have no sign: the operation says how bits are read.
///
/// `F16` and `BF16` are storage formats: they are loaded, stored, moved, selected and converted, never added or multiplied.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Elem {
    /// A truth value; in memory one byte, 0 or 1 (any nonzero byte loads as true).
    I1,
    I8,
    I16,
    I32,
    I64,
    F16,
    BF16,
    F32,
    F64,
}

impl Elem {
    /// Every element type, in wire order.
    pub const ALL: [Elem; 9] =
        [Elem::I1, Elem::I8, Elem::I16, Elem::I32, Elem::I64, Elem::F16, Elem::BF16, Elem::F32, Elem::F64];

    /// Bits in a register lane (1 for `I1`).
    pub const fn bits(self) -> u32 {
        match self {
            Elem::I1 => 1,
            Elem::I8 => 8,
            Elem::I16 | Elem::F16 | Elem::BF16 => 16,
            Elem::I32 | Elem::F32 => 32,
            Elem::I64 | Elem::F64 => 64,
        }
    }

    /// Bytes in memory (1 for `I1`).
    pub const fn bytes(self) -> usize {
        match self {
            Elem::I1 => 1,
            e => e.bits() as usize / 8,
        }
    }

    /// Integer, `I1` included.
    pub const fn is_int(self) -> bool {
        matches!(self, Elem::I1 | Elem::I8 | Elem::I16 | Elem::I32 | Elem::I64)
    }

    /// Integer wide enough for arithmetic, that is, not `I1`.
    pub const fn is_wide_int(self) -> bool {
        matches!(self, Elem::I8 | Elem::I16 | Elem::I32 | Elem::I64)
    }

    /// Any floating-point format.
    pub const fn is_float(self) -> bool {
        !self.is_int()
    }

    /// Floating-point format with arithmetic: `F32` or `F64`.
    pub const fn is_arith_float(self) -> bool {
        matches!(self, Elem::F32 | Elem::F64)
    }

    /// All bits of a lane set.
    pub const fn mask(self) -> u64 {
        u64::MAX >> (64 - self.bits())
    }

    /// Lower-case name of the text form.
    pub const fn name(self) -> &'static str {
        match self {
            Elem::I1 => "i1",
            Elem::I8 => "i8",
            Elem::I16 => "i16",
            Elem::I32 => "i32",
            Elem::I64 => "i64",
            Elem::F16 => "f16",
            Elem::BF16 => "bf16",
            Elem::F32 => "f32",
            Elem::F64 => "f64",
        }
    }
}

impl fmt::Display for Elem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Register type: `lanes` elements, a power of two up to [`Ty::MAX_LANES`]; one lane is a scalar.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Ty {
    pub elem: Elem,
    pub lanes: u16,
}

impl Ty {
    pub const MAX_LANES: u16 = 256;
    pub const BOOL: Ty = Ty::scalar(Elem::I1);
    pub const I8: Ty = Ty::scalar(Elem::I8);
    pub const I32: Ty = Ty::scalar(Elem::I32);
    pub const I64: Ty = Ty::scalar(Elem::I64);
    pub const F32: Ty = Ty::scalar(Elem::F32);
    pub const F64: Ty = Ty::scalar(Elem::F64);

    pub const fn scalar(elem: Elem) -> Ty {
        Ty { elem, lanes: 1 }
    }

    pub const fn vec(elem: Elem, lanes: u16) -> Ty {
        Ty { elem, lanes }
    }

    /// Same lanes, other element.
    pub const fn with_elem(self, elem: Elem) -> Ty {
        Ty { elem, lanes: self.lanes }
    }

    /// Same element, other lane count.
    pub const fn with_lanes(self, lanes: u16) -> Ty {
        Ty { elem: self.elem, lanes }
    }

    pub const fn is_scalar(self) -> bool {
        self.lanes == 1
    }

    /// Bits of the whole register.
    pub const fn bits(self) -> u32 {
        self.elem.bits() * self.lanes as u32
    }

    /// Bytes that a contiguous load or store of this type touches.
    pub const fn mem_bytes(self) -> usize {
        self.elem.bytes() * self.lanes as usize
    }
}

impl fmt::Display for Ty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.lanes {
            1 => write!(f, "{}", self.elem),
            n => write!(f, "{}x{n}", self.elem),
        }
    }
}

/// One SSA value of one kernel.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Val(pub(crate) u32);

impl Val {
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// For readers that number values themselves (wire format, tests); the verifier checks what they build.
    pub const fn from_index(i: u32) -> Val {
        Val(i)
    }
}

impl fmt::Display for Val {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}", self.0)
    }
}

/// Memory that a kernel addresses: a buffer parameter or a local array.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Buf {
    /// Index into [`crate::kernel::Kernel::params`], of a buffer parameter.
    Param(u16),
    /// Index into [`crate::kernel::Kernel::locals`].
    Local(u16),
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Access {
    Read,
    Write,
    ReadWrite,
}

impl Access {
    pub const fn reads(self) -> bool {
        matches!(self, Access::Read | Access::ReadWrite)
    }

    pub const fn writes(self) -> bool {
        matches!(self, Access::Write | Access::ReadWrite)
    }

    pub const fn name(self) -> &'static str {
        match self {
            Access::Read => "read",
            Access::Write => "write",
            Access::ReadWrite => "readwrite",
        }
    }
}

/// Address space of a local array.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Space {
    /// One copy per call (CPU: stack) or per thread (SIMT).
    Private,
    /// One copy per thread block; SIMT kernels only.
    Shared,
}
