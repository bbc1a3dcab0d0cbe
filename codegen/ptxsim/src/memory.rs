//! Global, shared and local memory with their checks.

use crate::fault::FaultKind;
use crate::parse::FIRST_ADDRESS;

/// A fault without the instruction.
pub(crate) type Bad = (FaultKind, String);

/// Addresses of a buffer of the launch: each gets a range of its own, far from the others.
const REGION_BITS: u32 = 40;
/// Generic addresses of shared and of local memory.
pub(crate) const SHARED_WINDOW: u64 = 0x7E << 56;
pub(crate) const LOCAL_WINDOW: u64 = 0x7D << 56;

fn aligned(addr: u64, bytes: usize) -> Result<(), Bad> {
    if addr.is_multiple_of(bytes as u64) {
        return Ok(());
    }
    Err((FaultKind::Misaligned, format!("{bytes} bytes at address {addr:#x}")))
}

/// A buffer of the launch.
struct Region {
    ptr: *mut u8,
    bytes: usize,
    param: usize,
    base: u64,
    written: bool,
    read_only: bool,
}

/// The buffers of a launch.
#[derive(Default)]
pub(crate) struct Global {
    regions: Vec<Region>,
}

impl Global {
    /// Adds a buffer; gives its address on the device, which has the alignment of the host's address.
    pub(crate) fn add(&mut self, param: usize, ptr: *mut u8, bytes: usize) -> u64 {
        let base = ((self.regions.len() as u64 + 1) << REGION_BITS) | (ptr as u64 & 0xFFF);
        self.regions.push(Region { ptr, bytes, param, base, written: false, read_only: false });
        base
    }

    fn find(&mut self, addr: u64, bytes: usize) -> Result<(&mut Region, usize), Bad> {
        aligned(addr, bytes)?;
        // Half a range below a buffer still counts as its neighbourhood, so that messages name it.
        let index = (addr.wrapping_add(1 << (REGION_BITS - 1)) >> REGION_BITS) as usize;
        let region = index.checked_sub(1).and_then(|i| self.regions.get_mut(i));
        let Some(r) = region else {
            return Err((
                FaultKind::OutOfBounds,
                format!("{bytes} bytes at address {addr:#x}, in no buffer"),
            ));
        };
        let offset = addr.wrapping_sub(r.base).cast_signed();
        match usize::try_from(offset) {
            Ok(at) if at.checked_add(bytes).is_some_and(|end| end <= r.bytes) => Ok((r, at)),
            _ => Err((
                FaultKind::OutOfBounds,
                format!("{bytes} bytes at byte {offset} of parameter {}, which has {}", r.param, r.bytes),
            )),
        }
    }

    pub(crate) fn read(&mut self, addr: u64, out: &mut [u8], read_only: bool) -> Result<(), Bad> {
        let (r, at) = self.find(addr, out.len())?;
        r.read_only |= read_only;
        if r.read_only && r.written {
            return Err(read_only_fault(r.param));
        }
        // SAFETY: whoever launched vouches for `bytes` bytes at `ptr`, and `find` has checked the bounds.
        unsafe { std::ptr::copy_nonoverlapping(r.ptr.add(at), out.as_mut_ptr(), out.len()) };
        Ok(())
    }

    pub(crate) fn write(&mut self, addr: u64, from: &[u8]) -> Result<(), Bad> {
        let (r, at) = self.find(addr, from.len())?;
        r.written = true;
        if r.read_only {
            return Err(read_only_fault(r.param));
        }
        // SAFETY: as in `read`.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), r.ptr.add(at), from.len()) };
        Ok(())
    }
}

fn read_only_fault(param: usize) -> Bad {
    (FaultKind::ReadOnly, format!("parameter {param} is written and read by ld.global.nc"))
}

/// Who touched a byte of shared memory since the last barrier.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    Nobody,
    Thread(u32),
    Several,
}

impl By {
    fn other_than(self, thread: u32) -> bool {
        !(self == By::Nobody || self == By::Thread(thread))
    }
}

#[derive(Clone, Copy)]
struct Shadow {
    written: bool,
    epoch: u32,
    writer: By,
    readers: By,
}

/// Shared memory of one block.
pub(crate) struct Shared {
    bytes: Vec<u8>,
    shadow: Vec<Shadow>,
    /// Barriers so far.
    pub(crate) epoch: u32,
}

impl Shared {
    pub(crate) fn new(bytes: usize) -> Shared {
        let fresh = Shadow { written: false, epoch: 0, writer: By::Nobody, readers: By::Nobody };
        Shared { bytes: vec![0; bytes], shadow: vec![fresh; bytes], epoch: 1 }
    }

    /// As for a new block.
    pub(crate) fn forget(&mut self) {
        for s in &mut self.shadow {
            *s = Shadow { written: false, epoch: 0, writer: By::Nobody, readers: By::Nobody };
        }
        self.epoch = 1;
    }

    fn touch(&mut self, addr: u64, bytes: usize, thread: u32, write: bool) -> Result<usize, Bad> {
        aligned(addr, bytes)?;
        let at = addr.wrapping_sub(FIRST_ADDRESS);
        let end = at.checked_add(bytes as u64).filter(|end| *end <= self.bytes.len() as u64);
        if end.is_none() {
            let text = format!(
                "{bytes} bytes at byte {} of {} bytes of shared memory",
                at.cast_signed(),
                self.bytes.len()
            );
            return Err((FaultKind::OutOfBounds, text));
        }
        let at = at as usize;
        let epoch = self.epoch;
        for (i, s) in self.shadow[at..at + bytes].iter_mut().enumerate() {
            if s.epoch != epoch {
                *s = Shadow { written: s.written, epoch, writer: By::Nobody, readers: By::Nobody };
            }
            let fault = |kind, what: &str| Err((kind, format!("byte {} of shared memory {what}", at + i)));
            if s.writer.other_than(thread) {
                return fault(FaultKind::Race, "was written by another thread since the last barrier");
            }
            if write && s.readers.other_than(thread) {
                return fault(FaultKind::Race, "was read by another thread since the last barrier");
            }
            if !write && !s.written {
                return fault(FaultKind::Uninitialised, "is read before anything is written to it");
            }
            if write {
                (s.written, s.writer) = (true, By::Thread(thread));
            } else {
                s.readers = if s.readers.other_than(thread) { By::Several } else { By::Thread(thread) };
            }
        }
        Ok(at)
    }

    pub(crate) fn read(&mut self, addr: u64, out: &mut [u8], thread: u32) -> Result<(), Bad> {
        let at = self.touch(addr, out.len(), thread, false)?;
        out.copy_from_slice(&self.bytes[at..at + out.len()]);
        Ok(())
    }

    /// An asynchronous copy to these bytes begins: from now on it may write them at any time, and nobody may read them until
    /// it is done.
    pub(crate) fn begin_copy(&mut self, addr: u64, bytes: usize, thread: u32) -> Result<(), Bad> {
        let at = self.touch(addr, bytes, thread, true)?;
        self.shadow[at..at + bytes].iter_mut().for_each(|s| s.written = false);
        Ok(())
    }

    pub(crate) fn write(&mut self, addr: u64, from: &[u8], thread: u32) -> Result<(), Bad> {
        let at = self.touch(addr, from.len(), thread, true)?;
        self.bytes[at..at + from.len()].copy_from_slice(from);
        Ok(())
    }
}

/// The part of the local memory of a warp that an access of one lane touches.
pub(crate) fn local_range(
    addr: u64,
    bytes: usize,
    lane: usize,
    size: usize,
) -> Result<std::ops::Range<usize>, Bad> {
    aligned(addr, bytes)?;
    let at = addr.wrapping_sub(FIRST_ADDRESS);
    match at.checked_add(bytes as u64) {
        Some(end) if end <= size as u64 => Ok(lane * size + at as usize..lane * size + end as usize),
        _ => Err((
            FaultKind::OutOfBounds,
            format!("{bytes} bytes at byte {} of {size} bytes of local memory", at.cast_signed()),
        )),
    }
}
