//! Buffers with bounds, initialisation and race checks.

use crate::kernel::types::Elem;

/// A thread that touched a byte of shared memory since the last barrier.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Toucher {
    Nobody,
    One(u32),
    Several,
}

/// What is known of one byte of a local array.
#[derive(Clone, Copy)]
struct Shadow {
    written: bool,
    epoch: u32,
    writer: Toucher,
    readers: Toucher,
}

/// One memory object: a parameter's bytes, or a local array.
pub(super) struct Region {
    elem: Elem,
    ptr: *mut u8,
    bytes: usize,
    /// Empty for parameters.
    shadow: Vec<Shadow>,
    /// Backing store of local arrays.
    _own: Vec<u8>,
}

impl Region {
    pub(super) fn param(elem: Elem, ptr: *mut u8, bytes: usize) -> Region {
        Region { elem, ptr, bytes, shadow: Vec::new(), _own: Vec::new() }
    }

    pub(super) fn local(elem: Elem, bytes: usize) -> Region {
        let mut own = vec![0xA5u8; bytes];
        let nobody = Shadow { written: false, epoch: 0, writer: Toucher::Nobody, readers: Toucher::Nobody };
        Region { elem, ptr: own.as_mut_ptr(), bytes, shadow: vec![nobody; bytes], _own: own }
    }

    pub(super) fn elem(&self) -> Elem {
        self.elem
    }

    pub(super) fn address(&self, index: i64) -> usize {
        (self.ptr as usize).wrapping_add((index as usize).wrapping_mul(self.elem.bytes()))
    }

    fn offset(&self, index: i64) -> Result<usize, String> {
        let size = self.elem.bytes();
        let len = self.bytes / size;
        usize::try_from(index)
            .ok()
            .filter(|&i| i < len)
            .map(|i| i * size)
            .ok_or_else(|| format!("index {index} of {len} elements"))
    }

    /// Records an access and refuses reads of unwritten bytes and accesses that race within an epoch.
    fn touch(&mut self, at: usize, write: bool, thread: u32, epoch: u32) -> Result<(), String> {
        if self.shadow.is_empty() {
            return Ok(());
        }
        for s in &mut self.shadow[at..at + self.elem.bytes()] {
            if s.epoch != epoch {
                *s = Shadow { written: s.written, epoch, writer: Toucher::Nobody, readers: Toucher::Nobody };
            }
            let foreign = |t: Toucher| !(t == Toucher::Nobody || t == Toucher::One(thread));
            if !write && !s.written {
                return Err("read of an element that was never written".into());
            }
            if foreign(s.writer) || (write && foreign(s.readers)) {
                return Err(format!("thread {thread} races with another since the last barrier"));
            }
            if write {
                s.written = true;
                s.writer = Toucher::One(thread);
            } else {
                s.readers = match s.readers {
                    Toucher::Nobody => Toucher::One(thread),
                    Toucher::One(t) if t == thread => Toucher::One(thread),
                    _ => Toucher::Several,
                };
            }
        }
        Ok(())
    }

    /// One element as lane bits.
    pub(super) fn read(&mut self, index: i64, thread: u32, epoch: u32) -> Result<u64, String> {
        let at = self.offset(index)?;
        self.touch(at, false, thread, epoch)?;
        let n = self.elem.bytes();
        let mut raw = [0u8; 8];
        // SAFETY: `offset` keeps `at + n` within the region's bytes, which whoever made the region vouches for.
        unsafe { std::ptr::copy_nonoverlapping(self.ptr.add(at), raw.as_mut_ptr(), n) };
        let bits = u64::from_le_bytes(raw);
        Ok(if self.elem == Elem::I1 { u64::from(bits != 0) } else { bits })
    }

    /// Writes one element from lane bits.
    pub(super) fn write(&mut self, index: i64, bits: u64, thread: u32, epoch: u32) -> Result<(), String> {
        let at = self.offset(index)?;
        self.touch(at, true, thread, epoch)?;
        let raw = bits.to_le_bytes();
        // SAFETY: as in `read`.
        unsafe { std::ptr::copy_nonoverlapping(raw.as_ptr(), self.ptr.add(at), self.elem.bytes()) };
        Ok(())
    }
}
