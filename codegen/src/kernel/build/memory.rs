//! Loads, stores and SIMT memory operations.

use super::{Builder, Opd};
use crate::kernel::inst::{Frag, Op};
use crate::kernel::types::{Buf, Ty, Val};

impl Builder {
    /// `lanes` contiguous elements from element index `idx` (an `I64` value or a literal).
    pub fn load(&mut self, buf: Buf, idx: impl Into<Opd>, lanes: u16) -> Val {
        let align = self.elem(buf).bytes() as u32;
        self.load_aligned(buf, idx, lanes, align)
    }

    /// [`Builder::load`] from an address known to be a multiple of `align` bytes.
    pub fn load_aligned(&mut self, buf: Buf, idx: impl Into<Opd>, lanes: u16, align: u32) -> Val {
        let idx = self.index(idx);
        let ty = Ty::vec(self.elem(buf), lanes);
        self.value(Op::Load { buf, idx, align, mask: None }, ty)
    }

    /// Loads the lanes that are true in `mask`; the others come from `other` (a value or a literal) and touch no memory.
    pub fn load_masked(&mut self, buf: Buf, idx: impl Into<Opd>, mask: Val, other: impl Into<Opd>) -> Val {
        let idx = self.index(idx);
        let ty = Ty::vec(self.elem(buf), self.ty(mask).lanes);
        let other = self.operand(other.into(), ty);
        let align = ty.elem.bytes() as u32;
        self.value(Op::Load { buf, idx, align, mask: Some((mask, other)) }, ty)
    }

    /// [`Builder::load`], or with a mask [`Builder::load_masked`] with zero elsewhere.
    pub fn load_opt(&mut self, buf: Buf, idx: impl Into<Opd>, lanes: u16, mask: Option<Val>) -> Val {
        match mask {
            None => self.load(buf, idx, lanes),
            Some(m) => {
                let zero = self.zero(Ty::vec(self.elem(buf), lanes));
                self.load_masked(buf, idx, m, zero)
            }
        }
    }

    /// Stores all lanes of `val` from element index `idx`.
    pub fn store(&mut self, buf: Buf, idx: impl Into<Opd>, val: Val) {
        let align = self.elem(buf).bytes() as u32;
        self.store_aligned(buf, idx, val, align);
    }

    /// [`Builder::store`] to an address known to be a multiple of `align` bytes.
    pub fn store_aligned(&mut self, buf: Buf, idx: impl Into<Opd>, val: Val, align: u32) {
        let idx = self.index(idx);
        self.effect(Op::Store { buf, idx, val, align, mask: None });
    }

    /// Stores the lanes that are true in `mask`.
    pub fn store_masked(&mut self, buf: Buf, idx: impl Into<Opd>, val: Val, mask: Val) {
        let idx = self.index(idx);
        let align = self.elem(buf).bytes() as u32;
        self.effect(Op::Store { buf, idx, val, align, mask: Some(mask) });
    }

    /// [`Builder::store`], or with a mask [`Builder::store_masked`].
    pub fn store_opt(&mut self, buf: Buf, idx: impl Into<Opd>, val: Val, mask: Option<Val>) {
        match mask {
            None => self.store(buf, idx, val),
            Some(m) => self.store_masked(buf, idx, val, m),
        }
    }

    /// Lane `i` from element index `idx[i]` (`I32` or `I64` lanes).
    pub fn gather(&mut self, buf: Buf, idx: Val) -> Val {
        let ty = Ty::vec(self.elem(buf), self.ty(idx).lanes);
        self.value(Op::Gather { buf, idx, mask: None }, ty)
    }

    /// [`Builder::gather`] of the lanes that are true in `mask`; the others come from `other`.
    pub fn gather_masked(&mut self, buf: Buf, idx: Val, mask: Val, other: impl Into<Opd>) -> Val {
        let ty = Ty::vec(self.elem(buf), self.ty(idx).lanes);
        let other = self.operand(other.into(), ty);
        self.value(Op::Gather { buf, idx, mask: Some((mask, other)) }, ty)
    }

    /// Stores lane `i` to element index `idx[i]`, lowest lane first.
    pub fn scatter(&mut self, buf: Buf, idx: Val, val: Val, mask: Option<Val>) {
        self.effect(Op::Scatter { buf, idx, val, mask });
    }

    /// Hints that the element will be read soon; any index is harmless.
    pub fn prefetch(&mut self, buf: Buf, idx: impl Into<Opd>) {
        let idx = self.index(idx);
        self.effect(Op::Prefetch { buf, idx });
    }

    /// SIMT: starts copying `bytes` (4, 8 or 16) from a parameter to a shared array.
    pub fn copy_async(
        &mut self,
        dst: Buf,
        dst_idx: impl Into<Opd>,
        src: Buf,
        src_idx: impl Into<Opd>,
        bytes: u8,
    ) {
        let (dst_idx, src_idx) = (self.index(dst_idx), self.index(src_idx));
        self.effect(Op::CopyAsync { dst, dst_idx, src, src_idx, bytes });
    }

    /// SIMT: closes the group of copies started by this thread.
    pub fn copy_commit(&mut self) {
        self.effect(Op::CopyCommit);
    }

    /// SIMT: waits until at most `groups` closed groups of this thread are unfinished.
    pub fn copy_wait(&mut self, groups: u8) {
        self.effect(Op::CopyWait(groups));
    }

    /// SIMT: value of lane `lane ^ mask` of the warp (32-bit scalars).
    pub fn shuffle_xor(&mut self, v: Val, mask: u8) -> Val {
        let ty = self.ty(v);
        self.value(Op::ShuffleXor(v, mask), ty)
    }

    /// SIMT: a warp's fragment with its first element at `idx` and rows (columns for [`Frag::B`]) `stride` elements apart.
    pub fn frag_load(&mut self, frag: Frag, buf: Buf, idx: impl Into<Opd>, stride: impl Into<Opd>) -> Val {
        let (idx, stride) = (self.index(idx), self.index(stride));
        let ty = Ty::vec(self.elem(buf), frag.lanes(self.elem(buf)));
        self.value(Op::FragLoad { frag, buf, idx, stride }, ty)
    }

    /// SIMT: stores an accumulator fragment.
    pub fn frag_store(&mut self, buf: Buf, idx: impl Into<Opd>, stride: impl Into<Opd>, val: Val) {
        let (idx, stride) = (self.index(idx), self.index(stride));
        self.effect(Op::FragStore { buf, idx, stride, val });
    }

    /// SIMT: `c + a * b` on fragments.
    pub fn mma(&mut self, a: Val, b: Val, c: Val) -> Val {
        let ty = self.ty(c);
        self.value(Op::Mma { a, b, c }, ty)
    }
}
