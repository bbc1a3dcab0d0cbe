//! Global memory: the buffers of launches, and memory that outlives them, with their checks.

use crate::fault::{Fault, FaultKind};

/// A fault without the instruction.
pub(crate) type Bad = (FaultKind, String);

/// Addresses of a buffer: each gets a range of its own, far from the others.
const REGION_BITS: u32 = 40;

/// Most buffers at a time.
const MAX_REGIONS: usize = 1 << 15;

pub(crate) fn aligned(addr: u64, bytes: usize) -> Result<(), Bad> {
    if addr.is_multiple_of(bytes as u64) {
        return Ok(());
    }
    Err((FaultKind::Misaligned, format!("{bytes} bytes at address {addr:#x}")))
}

/// What a launch knows of the thread that touches memory.
#[derive(Clone, Copy)]
pub(crate) struct Toucher {
    /// Number of the thread in the grid, and the threads of a block.
    pub(crate) thread: u32,
    pub(crate) block_threads: u32,
    /// Barriers that its block has passed.
    pub(crate) epoch: u32,
}

/// Number of the launch, barriers of the block before it, and thread, of the last write of a byte; 0 if nobody.
const LAUNCH_BITS: u32 = 12;
const EPOCH_BITS: u32 = 20;

/// A buffer.
struct Region {
    ptr: *mut u8,
    bytes: usize,
    name: String,
    base: u64,
    /// The launch that last wrote it, and the one that last read it through the read-only path.
    written: u32,
    read_only: u32,
    /// For each byte whether anything was written to it; without it everything was.
    known: Option<Vec<bool>>,
    /// For each byte of watched memory who wrote it last; empty until something is written.
    watched: bool,
    writers: Vec<u64>,
    /// For each byte of watched memory the last launch that read it through the read-only path; empty until one does. Watched memory
    /// may hold several tensors, so that the rule is for bytes there, and for the whole buffer elsewhere.
    frozen: Vec<u32>,
    /// The memory itself where it is not the launcher's.
    _own: Option<Vec<u64>>,
}

/// Memory of a device: buffers with addresses of their own. What is not written is not there to be read.
#[derive(Default)]
pub struct Memory {
    regions: Vec<Option<Region>>,
    launch: u32,
}

// SAFETY: memory that a region does not own is that of one launch, which borrows the whole.
unsafe impl Send for Memory {}

fn fault(bad: Bad) -> Fault {
    let (kind, message) = bad;
    Fault { kind, kernel: String::new(), line: 0, inst: String::new(), thread: None, message }
}

impl Memory {
    /// No buffers.
    pub fn new() -> Memory {
        Memory::default()
    }

    /// A buffer of its own, in which nothing is written; its address, a multiple of 256. None if there are too many.
    pub fn alloc(&mut self, bytes: usize) -> Option<u64> {
        let mut own = vec![0u64; bytes.div_ceil(8)];
        let ptr = own.as_mut_ptr().cast();
        let place = self.regions.iter().position(Option::is_none).unwrap_or(self.regions.len());
        self.add(place, ptr, bytes, 0, format!("allocation {place}"), Some(own)).inspect(|_| {
            if let Some(Some(r)) = self.regions.get_mut(place) {
                r.known = Some(vec![false; bytes]);
                r.watched = true;
            }
        })
    }

    /// Gives back what [`Memory::alloc`] gave. False if there is no such buffer.
    pub fn free(&mut self, addr: u64) -> bool {
        let slot = self.regions.iter_mut().find(|r| r.as_ref().is_some_and(|r| r.base == addr));
        slot.map(|r| *r = None).is_some()
    }

    /// Bytes of all buffers.
    pub fn bytes(&self) -> usize {
        self.regions.iter().flatten().map(|r| r.bytes).sum()
    }

    /// Writes bytes from outside a launch.
    pub fn upload(&mut self, addr: u64, from: &[u8]) -> Result<(), Fault> {
        let (r, at) = self.find(addr, from.len()).map_err(fault)?;
        if let Some(known) = &mut r.known {
            known[at..at + from.len()].fill(true);
        }
        // SAFETY: `find` has checked the bounds.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), r.ptr.add(at), from.len()) };
        Ok(())
    }

    /// Reads bytes outside a launch. Bytes that nothing was written to are a fault.
    pub fn download(&mut self, addr: u64, to: &mut [u8]) -> Result<(), Fault> {
        let (r, at) = self.find(addr, to.len()).map_err(fault)?;
        if let Some(i) = r.known.as_ref().and_then(|k| k[at..at + to.len()].iter().position(|k| !k)) {
            let text = format!("byte {} of {} is read, but no kernel has written it", at + i, r.name);
            return Err(fault((FaultKind::Unwritten, text)));
        }
        // SAFETY: as in `upload`.
        unsafe { std::ptr::copy_nonoverlapping(r.ptr.add(at), to.as_mut_ptr(), to.len()) };
        Ok(())
    }

    /// Copies bytes inside the device. Bytes that nothing was written to stay so.
    pub fn copy(&mut self, dst: u64, src: u64, bytes: usize) -> Result<(), Fault> {
        let (r, at) = self.find(src, bytes).map_err(fault)?;
        let mut data = vec![0; bytes];
        // SAFETY: as in `upload`.
        unsafe { std::ptr::copy_nonoverlapping(r.ptr.add(at), data.as_mut_ptr(), bytes) };
        let known = r.known.as_ref().map(|k| k[at..at + bytes].to_vec());
        self.upload(dst, &data)?;
        let (r, at) = self.find(dst, bytes).map_err(fault)?;
        if let (Some(to), Some(from)) = (&mut r.known, known) {
            to[at..at + bytes].copy_from_slice(&from);
        }
        Ok(())
    }

    fn add(
        &mut self,
        place: usize,
        ptr: *mut u8,
        bytes: usize,
        low: u64,
        name: String,
        own: Option<Vec<u64>>,
    ) -> Option<u64> {
        if place >= MAX_REGIONS {
            return None;
        }
        let base = ((place as u64 + 1) << REGION_BITS) | low;
        let region = Region {
            ptr,
            bytes,
            name,
            base,
            written: 0,
            read_only: 0,
            known: None,
            watched: false,
            writers: Vec::new(),
            frozen: Vec::new(),
            _own: own,
        };
        self.regions.resize_with(self.regions.len().max(place + 1), || None);
        self.regions[place] = Some(region);
        Some(base)
    }

    /// A buffer of the launcher. Its address on the device has the alignment of the host's; `fresh` ones hold nothing yet.
    pub(crate) fn lend(&mut self, name: String, ptr: *mut u8, bytes: usize, fresh: bool) -> Option<u64> {
        let place = self.regions.len();
        let base = self.add(place, ptr, bytes, ptr as u64 & 0xFFF, name, None)?;
        if fresh && let Some(Some(r)) = self.regions.get_mut(place) {
            r.known = Some(vec![false; bytes]);
            r.watched = true;
        }
        Some(base)
    }

    /// The first byte of a lent buffer that held nothing and still does.
    pub(crate) fn unwritten(&self) -> Option<String> {
        self.regions.iter().flatten().find_map(|r| {
            let i = r.known.as_ref()?.iter().position(|k| !k)?;
            Some(format!("byte {i} of {}, which has {}, is not written", r.name, r.bytes))
        })
    }

    /// A launch begins.
    pub(crate) fn begin(&mut self) {
        self.launch += 1;
        if self.launch >> LAUNCH_BITS != 0 {
            self.launch = 1;
            for r in self.regions.iter_mut().flatten() {
                (r.written, r.read_only) = (0, 0);
                r.writers.clear();
                r.frozen.clear();
            }
        }
    }

    #[inline]
    fn find(&mut self, addr: u64, bytes: usize) -> Result<(&mut Region, usize), Bad> {
        let index = (addr >> REGION_BITS) as usize;
        let inside = |r: &Region| {
            let at = addr.wrapping_sub(r.base) as usize;
            at <= r.bytes && bytes <= r.bytes - at
        };
        let known = index
            .checked_sub(1)
            .filter(|i| self.regions.get(*i).and_then(Option::as_ref).is_some_and(inside));
        let Some(i) = known else { return Err(self.outside(addr, bytes)) };
        match &mut self.regions[i] {
            Some(r) => {
                let at = (addr - r.base) as usize;
                Ok((r, at))
            }
            None => unreachable!("the buffer is there"),
        }
    }

    #[cold]
    fn outside(&self, addr: u64, bytes: usize) -> Bad {
        // Half a range below a buffer still counts as its neighbourhood, so that messages name it.
        let index = (addr.wrapping_add(1 << (REGION_BITS - 1)) >> REGION_BITS) as usize;
        let region = index.checked_sub(1).and_then(|i| self.regions.get(i)?.as_ref());
        let text = match region {
            None => format!("{bytes} bytes at address {addr:#x}, in no buffer"),
            Some(r) => {
                let offset = addr.wrapping_sub(r.base).cast_signed();
                format!("{bytes} bytes at byte {offset} of {}, which has {}", r.name, r.bytes)
            }
        };
        (FaultKind::OutOfBounds, text)
    }

    #[inline]
    pub(crate) fn read(
        &mut self,
        addr: u64,
        out: &mut [u8],
        read_only: bool,
        by: Toucher,
    ) -> Result<(), Bad> {
        aligned(addr, out.len())?;
        let launch = self.launch;
        let (r, at) = self.find(addr, out.len())?;
        if read_only {
            r.freeze(at, out.len(), launch)?;
        }
        if !r.watched && r.read_only == launch && r.written == launch {
            return Err(read_only_fault(r));
        }
        if let Some(known) = &r.known {
            if let Some(i) = known[at..at + out.len()].iter().position(|k| !k) {
                let text = format!("byte {} of {} is read before anything is written to it", at + i, r.name);
                return Err((FaultKind::Uninitialised, text));
            }
            if r.written == launch && !r.writers.is_empty() {
                r.race(at, out.len(), launch, by, None)?;
            }
        }
        // SAFETY: whoever launched vouches for `bytes` bytes at `ptr`, and `find` has checked the bounds.
        unsafe { std::ptr::copy_nonoverlapping(r.ptr.add(at), out.as_mut_ptr(), out.len()) };
        Ok(())
    }

    #[inline]
    pub(crate) fn write(&mut self, addr: u64, from: &[u8], by: Toucher) -> Result<(), Bad> {
        aligned(addr, from.len())?;
        let launch = self.launch;
        let (r, at) = self.find(addr, from.len())?;
        r.written = launch;
        if r.frozen(at, from.len(), launch) {
            return Err(read_only_fault(r));
        }
        if r.watched {
            if r.writers.is_empty() {
                r.writers = vec![0; r.bytes];
            }
            r.race(at, from.len(), launch, by, Some(from))?;
            let mark = mark(launch, by);
            r.writers[at..at + from.len()].fill(mark);
        }
        if let Some(known) = &mut r.known {
            known[at..at + from.len()].fill(true);
        }
        // SAFETY: as in `read`.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), r.ptr.add(at), from.len()) };
        Ok(())
    }
}

fn mark(launch: u32, by: Toucher) -> u64 {
    let epoch = by.epoch & ((1 << EPOCH_BITS) - 1);
    u64::from(launch) << (64 - LAUNCH_BITS) | u64::from(epoch) << 32 | u64::from(by.thread)
}

impl Region {
    /// Notes a read through the read-only path, of bytes that this launch must not have written.
    fn freeze(&mut self, at: usize, bytes: usize, launch: u32) -> Result<(), Bad> {
        self.read_only = launch;
        if !self.watched {
            return Ok(());
        }
        let written = |w: &u64| (*w >> (64 - LAUNCH_BITS)) as u32 == launch;
        if !self.writers.is_empty() && self.writers[at..at + bytes].iter().any(written) {
            return Err(read_only_fault(self));
        }
        if self.frozen.is_empty() {
            self.frozen = vec![0; self.bytes];
        }
        self.frozen[at..at + bytes].fill(launch);
        Ok(())
    }
    /// Whether this launch has read what is to be written through the read-only path.
    fn frozen(&self, at: usize, bytes: usize, launch: u32) -> bool {
        match (self.watched, self.frozen.is_empty()) {
            (false, _) => self.read_only == launch,
            (true, true) => false,
            (true, false) => self.frozen[at..at + bytes].contains(&launch),
        }
    }
    /// Another thread wrote here in this launch, with no barrier of its block since. Writing the same again is none.
    fn race(&self, at: usize, bytes: usize, launch: u32, by: Toucher, new: Option<&[u8]>) -> Result<(), Bad> {
        let me = mark(launch, by);
        for (i, w) in self.writers[at..at + bytes].iter().enumerate() {
            if *w == me || (*w >> (64 - LAUNCH_BITS)) as u32 != launch {
                continue;
            }
            let (thread, epoch) = (*w as u32, (*w >> 32) as u32 & ((1 << EPOCH_BITS) - 1));
            let same_block = thread / by.block_threads == by.thread / by.block_threads;
            // SAFETY: the range was checked to be inside the region.
            let old = unsafe { *self.ptr.add(at + i) };
            let alike = new.is_some_and(|b| b[i] == old);
            if thread != by.thread && !alike && !(same_block && epoch < by.epoch) {
                let what = if new.is_some() { "written" } else { "read" };
                let text = format!(
                    "byte {} of {} is {what}, and thread {} of block {} wrote it in the same launch",
                    at + i,
                    self.name,
                    thread % by.block_threads,
                    thread / by.block_threads
                );
                return Err((FaultKind::Race, text));
            }
        }
        Ok(())
    }
}

#[cold]
fn read_only_fault(r: &Region) -> Bad {
    (FaultKind::ReadOnly, format!("{} is written and read by ld.global.nc", r.name))
}
