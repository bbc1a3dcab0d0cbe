//! Kernels and modules of kernels.

use super::inst::Block;
use super::types::{Access, Buf, Elem, Space, Ty, Val};

/// How a kernel is launched.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Class {
    /// `fn(args: *const u64, lo: i64, hi: i64, ctx: *mut Ctx)`.
    Cpu,
    /// A grid of blocks of `block[0] * block[1] * block[2]` threads, at most 1024, in warps of 32.
    Simt { block: [u32; 3] },
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum ParamKind {
    /// An array; its length is known to the caller only.
    Buffer {
        elem: Elem,
        access: Access,
        /// Bytes; a power of two, at least the element's size.
        align: u32,
        /// Whether its memory may overlap that of another parameter. Without it, a buffer overlaps no buffer that is written.
        may_alias: bool,
    },
    /// An `i64`.
    Scalar,
}

/// One argument word.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Param {
    /// For people; unique in the kernel.
    pub name: String,
    pub kind: ParamKind,
}

/// Scratch array of `len` elements. Contents are unspecified on entry: reading an element that was never written is an error
/// that the interpreter reports.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Local {
    pub name: String,
    pub elem: Elem,
    pub len: u32,
    pub space: Space,
}

impl Local {
    /// Alignment in bytes of every local array.
    pub const ALIGN: u32 = 64;
    /// Most bytes that the private arrays of a kernel may take together.
    pub const MAX_PRIVATE_BYTES: usize = 640 << 10;
    /// Most bytes that the shared arrays of a kernel may take together.
    pub const MAX_SHARED_BYTES: usize = 48 << 10;

    pub fn bytes(&self) -> usize {
        self.len as usize * self.elem.bytes()
    }
}

/// One compiled function.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Kernel {
    /// Symbol name: `[A-Za-z_][A-Za-z0-9_]*`, unique in a module.
    pub name: String,
    pub class: Class,
    pub params: Vec<Param>,
    pub locals: Vec<Local>,
    /// Type of each value, by [`Val::index`].
    pub vals: Vec<Ty>,
    pub body: Block,
}

impl Kernel {
    /// Type of a value.
    pub fn ty(&self, v: Val) -> Ty {
        self.vals[v.index()]
    }

    /// Element type of a buffer, `None` if there is no such buffer.
    pub fn buf_elem(&self, b: Buf) -> Option<Elem> {
        match b {
            Buf::Param(i) => match self.params.get(usize::from(i))?.kind {
                ParamKind::Buffer { elem, .. } => Some(elem),
                ParamKind::Scalar => None,
            },
            Buf::Local(i) => self.locals.get(usize::from(i)).map(|l| l.elem),
        }
    }

    /// Name of a buffer for messages.
    pub fn buf_name(&self, b: Buf) -> &str {
        match b {
            Buf::Param(i) => self.params.get(usize::from(i)).map_or("?", |p| &p.name),
            Buf::Local(i) => self.locals.get(usize::from(i)).map_or("?", |l| &l.name),
        }
    }

    /// Whether the kernel reads or may read (`.0`), writes or may write (`.1`) parameter `i`, by its declaration.
    pub fn param_access(&self, i: usize) -> Option<Access> {
        match self.params.get(i)?.kind {
            ParamKind::Buffer { access, .. } => Some(access),
            ParamKind::Scalar => None,
        }
    }

    /// 128-bit hash of the printed text (FNV-1a), equal exactly when name and code are equal but for collisions.
    pub fn content_hash(&self) -> u128 {
        fnv128(self.to_string().as_bytes())
    }
}

/// FNV-1a with 128 bits.
pub(crate) fn fnv128(bytes: &[u8]) -> u128 {
    let mut h: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    for b in bytes {
        h ^= u128::from(*b);
        h = h.wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013B);
    }
    h
}

/// Kernels that are compiled together for one target.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct KernelModule {
    pub kernels: Vec<Kernel>,
}

impl KernelModule {
    /// 128-bit hash of the printed text (FNV-1a).
    pub fn content_hash(&self) -> u128 {
        fnv128(self.to_string().as_bytes())
    }
}
