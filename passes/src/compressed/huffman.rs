//! Canonical Huffman codes: shorter codes come first, codes of one length in the order of their symbols, so that lengths say all
//! (Schwartz and Kallick, *Generating a canonical prefix encoding*, 1964).

use super::bits::{Reader, Writer};
use super::malformed;
use planish_ir::Diag;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Bits that a length is stored in.
pub(super) const LENGTH_BITS: u32 = 5;
/// The longest code.
const MOST: u32 = (1 << LENGTH_BITS) - 1;

/// The code lengths for these frequencies; 0 for what never occurs. A symbol that is alone has a code of one bit.
pub(super) fn lengths(frequencies: &[u64]) -> Vec<u32> {
    let mut frequencies = frequencies.to_vec();
    loop {
        let found = unlimited(&frequencies);
        if found.iter().all(|l| *l <= MOST) {
            return found;
        }
        // Flatter frequencies have shorter longest codes; all equal ones end this for up to 2^31 symbols.
        frequencies.iter_mut().for_each(|f| *f = f.div_ceil(2));
    }
}

fn unlimited(frequencies: &[u64]) -> Vec<u32> {
    let used: Vec<usize> = (0..frequencies.len()).filter(|i| frequencies[*i] > 0).collect();
    let mut lengths = vec![0; frequencies.len()];
    if let [only] = used[..] {
        lengths[only] = 1;
        return lengths;
    }
    // Leaves, then inner nodes; each node's parent comes behind it.
    let mut parents = vec![0; used.len()];
    let mut heap: BinaryHeap<_> =
        used.iter().enumerate().map(|(node, i)| Reverse((frequencies[*i], node))).collect();
    while let (Some(Reverse((a, left))), Some(Reverse((b, right)))) = (heap.pop(), heap.pop()) {
        let parent = parents.len();
        (parents[left], parents[right]) = (parent, parent);
        parents.push(parent);
        heap.push(Reverse((a.saturating_add(b), parent)));
        if heap.len() == 1 {
            break;
        }
    }
    let mut depths = vec![0; parents.len()];
    for node in (0..parents.len().saturating_sub(1)).rev() {
        depths[node] = depths[parents[node]] + 1;
    }
    used.iter().zip(depths).for_each(|(i, depth)| lengths[*i] = depth);
    lengths
}

/// The code of every symbol, of these lengths.
fn codes(lengths: &[u32]) -> Vec<u64> {
    let mut order: Vec<usize> = (0..lengths.len()).filter(|i| lengths[*i] > 0).collect();
    order.sort_by_key(|i| lengths[*i]);
    let mut codes = vec![0; lengths.len()];
    let (mut code, mut length) = (0u64, 0);
    for i in order {
        code <<= lengths[i] - length;
        length = lengths[i];
        codes[i] = code;
        code += 1;
    }
    codes
}

/// Writes symbols.
pub(super) struct Encoder {
    lengths: Vec<u32>,
    codes: Vec<u64>,
}

impl Encoder {
    /// Of these lengths, which are written first.
    pub(super) fn new(lengths: Vec<u32>, out: &mut Writer) -> Encoder {
        lengths.iter().for_each(|l| out.put((*l).into(), LENGTH_BITS));
        Encoder { codes: codes(&lengths), lengths }
    }
    pub(super) fn put(&self, symbol: usize, out: &mut Writer) {
        out.put(self.codes[symbol], self.lengths[symbol]);
    }
}

/// Reads symbols.
pub(super) struct Decoder {
    /// How many codes there are of each length.
    counts: [u64; MOST as usize + 1],
    /// In the order of their codes.
    symbols: Vec<u32>,
}

impl Decoder {
    /// Of `count` symbols, whose lengths are read.
    pub(super) fn new(count: usize, from: &mut Reader<'_>) -> Result<Decoder, Diag> {
        if from.left() / (LENGTH_BITS as usize) < count {
            return Err(malformed("it ends too early"));
        }
        let lengths: Vec<usize> =
            (0..count).map(|_| Ok(from.bits(LENGTH_BITS)? as usize)).collect::<Result<_, Diag>>()?;
        let mut counts = [0; MOST as usize + 1];
        lengths.iter().filter(|l| **l > 0).for_each(|l| counts[*l] += 1);
        // Kraft's inequality, in parts of the shortest share.
        let sum: u64 = (1..=MOST).map(|l| counts[l as usize] << (MOST - l)).sum();
        if sum > 1 << MOST {
            return Err(malformed("more codes than their lengths allow"));
        }
        let mut symbols: Vec<u32> = (0..count).filter(|i| lengths[*i] > 0).map(|i| i as u32).collect();
        symbols.sort_by_key(|i| lengths[*i as usize]);
        Ok(Decoder { counts, symbols })
    }
    pub(super) fn symbol(&self, from: &mut Reader<'_>) -> Result<usize, Diag> {
        let (mut code, mut first, mut before) = (0, 0, 0);
        for count in &self.counts[1..] {
            code = code << 1 | from.bit()?;
            first <<= 1;
            if code - first < *count {
                return Ok(self.symbols[(before + code - first) as usize] as usize);
            }
            first += count;
            before += count;
        }
        Err(malformed("a code of no symbol"))
    }
}
