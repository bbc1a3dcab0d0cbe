//! Shared and local memory with their checks.

use crate::fault::FaultKind;
use crate::memory::{Bad, aligned};
use crate::parse::FIRST_ADDRESS;

/// Generic addresses of shared and of local memory.
pub(crate) const SHARED_WINDOW: u64 = 0x7E << 56;
pub(crate) const LOCAL_WINDOW: u64 = 0x7D << 56;

/// A mark is the number of barriers before it, and in its low bits who: a thread, or several.
const WHO_BITS: u32 = 11;
const SEVERAL: u32 = (1 << WHO_BITS) - 1;
const LAST_EPOCH: u32 = (1 << (32 - WHO_BITS)) - 1;

/// Does something for the bytes of an access, known when this is compiled.
macro_rules! sized {
    ($bytes:expr, $n:ident => $body:expr) => {
        match $bytes {
            1 => sized!(@ $n, 1, $body),
            2 => sized!(@ $n, 2, $body),
            4 => sized!(@ $n, 4, $body),
            8 => sized!(@ $n, 8, $body),
            16 => sized!(@ $n, 16, $body),
            32 => sized!(@ $n, 32, $body),
            other => unreachable!("an access of {other} bytes"),
        }
    };
    (@ $n:ident, $size:literal, $body:expr) => {{
        const $n: usize = $size;
        $body
    }};
}

/// Shared memory of one block.
pub(crate) struct Shared {
    bytes: Vec<u8>,
    /// For each byte whether anything was written to it in this block, and who wrote and read it last.
    written: Vec<bool>,
    writers: Vec<u32>,
    readers: Vec<u32>,
    /// Barriers so far, over all blocks; and when this block began.
    epoch: u32,
    began: u32,
}

impl Shared {
    pub(crate) fn new(bytes: usize) -> Shared {
        let marks = vec![0; bytes];
        Shared {
            bytes: vec![0; bytes],
            written: vec![false; bytes],
            writers: marks.clone(),
            readers: marks,
            epoch: 1,
            began: 1,
        }
    }

    /// As for a new block.
    pub(crate) fn forget(&mut self) {
        self.written.fill(false);
        self.barrier();
        self.began = self.epoch;
    }

    /// Barriers that the block has passed.
    pub(crate) fn passed(&self) -> u32 {
        self.epoch - self.began
    }

    /// All threads have passed a barrier.
    pub(crate) fn barrier(&mut self) {
        self.epoch += 1;
        if self.epoch >= LAST_EPOCH {
            self.writers.fill(0);
            self.readers.fill(0);
            (self.epoch, self.began) = (1, 1);
        }
    }

    #[inline]
    fn touch<const N: usize>(&mut self, addr: u64, thread: u32, write: bool) -> Result<usize, Bad> {
        aligned(addr, N)?;
        let at = addr.wrapping_sub(FIRST_ADDRESS);
        if at.checked_add(N as u64).is_none_or(|end| end > self.bytes.len() as u64) {
            return Err(self.outside(at, N));
        }
        let at = at as usize;
        let now = self.epoch << WHO_BITS;
        let me = now | thread;
        let (written, writers, readers) = (
            array::<_, N>(&mut self.written, at),
            array::<_, N>(&mut self.writers, at),
            array::<_, N>(&mut self.readers, at),
        );
        // Without branches, so that all bytes are looked at together.
        let mine = |marks: &[u32; N]| marks.iter().fold(true, |fine, m| fine & (*m < now || *m == me));
        let fine =
            mine(writers) & if write { mine(readers) } else { written.iter().fold(true, |fine, w| fine & w) };
        if !fine {
            return Err(self.fault(at, N, now, me, write));
        }
        if write {
            *writers = [me; N];
            *written = [true; N];
        } else {
            for r in readers {
                *r = if *r < now || *r == me { me } else { now | SEVERAL };
            }
        }
        Ok(at)
    }

    #[cold]
    fn outside(&self, at: u64, bytes: usize) -> Bad {
        let text = format!(
            "{bytes} bytes at byte {} of {} bytes of shared memory",
            at.cast_signed(),
            self.bytes.len()
        );
        (FaultKind::OutOfBounds, text)
    }

    #[cold]
    fn fault(&self, at: usize, bytes: usize, now: u32, me: u32, write: bool) -> Bad {
        for i in at..at + bytes {
            let (kind, what) = if self.writers[i] >= now && self.writers[i] != me {
                (FaultKind::Race, "was written by another thread since the last barrier")
            } else if write && self.readers[i] >= now && self.readers[i] != me {
                (FaultKind::Race, "was read by another thread since the last barrier")
            } else if !write && !self.written[i] {
                (FaultKind::Uninitialised, "is read before anything is written to it")
            } else {
                continue;
            };
            return (kind, format!("byte {i} of shared memory {what}"));
        }
        unreachable!("some byte is at fault")
    }

    #[inline]
    pub(crate) fn read(&mut self, addr: u64, out: &mut [u8], thread: u32) -> Result<(), Bad> {
        sized!(out.len(), N => {
            let at = self.touch::<N>(addr, thread, false)?;
            *array::<_, N>(out, 0) = *array::<_, N>(&mut self.bytes, at);
        });
        Ok(())
    }

    #[inline]
    pub(crate) fn write(&mut self, addr: u64, from: &[u8], thread: u32) -> Result<(), Bad> {
        sized!(from.len(), N => {
            let at = self.touch::<N>(addr, thread, true)?;
            array::<_, N>(&mut self.bytes, at).copy_from_slice(from);
        });
        Ok(())
    }

    /// An asynchronous copy to these bytes begins: from now on it may write them at any time, and nobody may read them until
    /// it is done.
    pub(crate) fn begin_copy(&mut self, addr: u64, bytes: usize, thread: u32) -> Result<(), Bad> {
        sized!(bytes, N => {
            let at = self.touch::<N>(addr, thread, true)?;
            self.written[at..at + N].fill(false);
        });
        Ok(())
    }
}

/// `N` elements from `at` on, which are there.
fn array<T, const N: usize>(all: &mut [T], at: usize) -> &mut [T; N] {
    match all[at..].first_chunk_mut() {
        Some(part) => part,
        None => unreachable!("the range was checked"),
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
