//! The block of weights of a compiled model: aligned chunks of bytes, equal ones shared.

use bytes::Bytes;
use std::collections::HashMap;

/// Chunks with their offsets, in order.
#[derive(Clone, Debug, Default)]
pub struct Weights {
    chunks: Vec<(u64, Bytes)>,
    len: u64,
    seen: HashMap<u64, Vec<usize>>,
}

impl Weights {
    /// Every chunk starts at a multiple of this many bytes.
    pub const ALIGN: u64 = 64;

    /// Adds a chunk and returns its offset; an equal chunk is stored once.
    pub fn add(&mut self, bytes: Bytes) -> u64 {
        let hash = fnv(&bytes);
        for i in self.seen.get(&hash).into_iter().flatten() {
            if self.chunks[*i].1 == bytes {
                return self.chunks[*i].0;
            }
        }
        let offset = self.len.next_multiple_of(Self::ALIGN);
        self.len = offset + bytes.len() as u64;
        self.seen.entry(hash).or_default().push(self.chunks.len());
        self.chunks.push((offset, bytes));
        offset
    }
    /// Bytes from the start of the first chunk to the end of the last.
    pub fn len(&self) -> u64 {
        self.len
    }
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
    /// The chunks with their offsets, ascending; the gaps are zero.
    pub fn chunks(&self) -> impl Iterator<Item = (u64, &Bytes)> {
        self.chunks.iter().map(|(o, b)| (*o, b))
    }
    /// The block as one piece.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.len as usize);
        for (offset, b) in self.chunks() {
            out.resize(offset as usize, 0);
            out.extend_from_slice(b);
        }
        out
    }
}

/// FNV-1a over 8-byte words.
fn fnv(b: &[u8]) -> u64 {
    let mut h = 0xcbf2_9ce4_8422_2325u64 ^ b.len() as u64;
    let mut chunks = b.chunks_exact(8);
    for c in &mut chunks {
        let w = u64::from_le_bytes([c[0], c[1], c[2], c[3], c[4], c[5], c[6], c[7]]);
        h = (h ^ w).wrapping_mul(0x0100_0000_01b3).rotate_left(29);
    }
    for x in chunks.remainder() {
        h = (h ^ u64::from(*x)).wrapping_mul(0x0100_0000_01b3);
    }
    h
}
