//! Aligned buffers that grow.
use crate::device::Home;
use crate::error::{Result, fail};
use alloc::alloc::{Layout, alloc_zeroed, dealloc};
use core::ptr::NonNull;

/// Alignment of every buffer, in bytes.
pub const ALIGN: usize = 64;

/// Bytes beyond the end of every buffer that belong to it, so that a vector read of the last element stays inside.
const SLACK: usize = 64;

/// A buffer whose address is a multiple of [`ALIGN`]. An empty one takes no memory. One on a device is not zeroed.
///
/// The block is asked for with the alignment of `calloc`, whose fresh pages are zero without being touched, and the
/// address is rounded up inside it.
#[derive(Debug)]
pub struct Buf {
    ptr: NonNull<u8>,
    capacity: usize,
    block: Option<(NonNull<u8>, Layout)>,
    home: Home,
}

// SAFETY: a `Buf` owns its memory; access goes through raw pointers whose users uphold exclusivity.
unsafe impl Send for Buf {}
// SAFETY: as above, a shared `Buf` gives out an address only.
unsafe impl Sync for Buf {}

#[repr(align(64))]
struct Aligned;

impl Default for Buf {
    fn default() -> Self {
        Buf { ptr: NonNull::<Aligned>::dangling().cast(), capacity: 0, block: None, home: Home(None) }
    }
}

impl Buf {
    /// An empty buffer whose memory will be at `home`.
    pub(crate) fn at(home: &Home) -> Buf {
        Buf { home: home.clone(), ..Buf::default() }
    }

    /// Makes room for `bytes`. Where the buffer has to grow, the contents become zeros and the address changes.
    /// Returns whether it grew.
    pub fn reserve(&mut self, bytes: usize) -> Result<bool> {
        if bytes <= self.capacity {
            return Ok(false);
        }
        let home = self.home.clone();
        *self = Buf::at(&home);
        *self = Self::zeros(bytes, home)?;
        Ok(true)
    }

    /// Makes room for `bytes` and keeps the first `keep` bytes. Grows by at least half. Returns whether it grew.
    pub fn extend(&mut self, bytes: usize, keep: usize) -> Result<bool> {
        if bytes <= self.capacity {
            return Ok(false);
        }
        let home = self.home.clone();
        let new = Self::zeros(bytes.max(self.capacity.saturating_add(self.capacity / 2)), home)?;
        let keep = keep.min(self.capacity);
        // SAFETY: both blocks hold `keep` bytes.
        unsafe { self.home.copy(new.ptr(), self.ptr(), keep)? };
        *self = new;
        Ok(true)
    }

    fn zeros(bytes: usize, home: Home) -> Result<Buf> {
        if let Some(device) = &home.0 {
            let at = device.alloc(bytes)?;
            let Some(ptr) = NonNull::new(at as *mut u8) else { fail!(Memory, "the device gave no address") };
            return Ok(Buf { ptr, capacity: bytes, block: None, home });
        }
        let layout = bytes.checked_add(SLACK + ALIGN).and_then(|n| Layout::from_size_align(n, 16).ok());
        let Some(layout) = layout else { fail!(Memory, "{bytes} bytes cannot be addressed") };
        // SAFETY: the layout has a size above 0.
        let Some(base) = NonNull::new(unsafe { alloc_zeroed(layout) }) else {
            fail!(Memory, "out of memory: {bytes} bytes cannot be had")
        };
        let skip = base.as_ptr().align_offset(ALIGN);
        // SAFETY: `skip` is below ALIGN and the block has ALIGN bytes more than `bytes`.
        let ptr = unsafe { base.add(skip) };
        Ok(Buf { ptr, capacity: bytes, block: Some((base, layout)), home })
    }

    /// The address; not null, a multiple of [`ALIGN`].
    pub fn ptr(&self) -> *mut u8 {
        self.ptr.as_ptr()
    }

    /// Bytes it holds.
    pub fn capacity(&self) -> usize {
        self.capacity
    }
}

impl Drop for Buf {
    fn drop(&mut self) {
        if let (Some(device), true) = (&self.home.0, self.capacity > 0) {
            device.free(self.ptr.as_ptr() as u64);
        }
        if let Some((base, layout)) = self.block.take() {
            // SAFETY: the block came from `alloc_zeroed` with this layout and is not used afterwards.
            unsafe { dealloc(base.as_ptr(), layout) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_aligned_and_refuses_the_impossible() {
        let mut b = Buf::default();
        assert_eq!(b.ptr() as usize % ALIGN, 0);
        for n in [1, 63, 64, 1000, 10] {
            let grew = b.reserve(n).expect("memory");
            assert_eq!(grew, n != 10);
            assert_eq!(b.ptr() as usize % ALIGN, 0);
            assert!(b.capacity() >= n);
            // SAFETY: the buffer has n bytes.
            unsafe { b.ptr().add(n - 1).write(1) };
        }
        // SAFETY: the buffer has at least 10 bytes.
        unsafe { b.ptr().add(9).write(7) };
        assert!(b.extend(5000, 10).expect("memory"));
        // SAFETY: as above.
        assert_eq!(unsafe { b.ptr().add(9).read() }, 7);
        assert!(b.reserve(usize::MAX).is_err());
        assert!(b.reserve(isize::MAX as usize - 10).is_err());
    }
}
