//! Placing buffers with known lifetimes in one block of memory.
use crate::mem::ALIGN;
use alloc::vec;
use alloc::vec::Vec;

/// A buffer to place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Want {
    /// Size in bytes.
    pub bytes: u64,
    /// First step at which it is used.
    pub first: u32,
    /// Last step at which it is used, included.
    pub last: u32,
}

/// Where the buffers are.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Layout {
    /// Offset of each buffer, a multiple of 64.
    pub offsets: Vec<u64>,
    /// Bytes in all.
    pub total: u64,
}

/// Places buffers such that two that are live at the same step do not overlap: largest first, each at the lowest
/// offset that is free over its lifetime. `None` if a sum does not fit 63 bits. The result depends on the input only.
pub fn plan(wants: &[Want]) -> Option<Layout> {
    let mut order: Vec<usize> = (0..wants.len()).filter(|&i| wants[i].bytes > 0).collect();
    order.sort_by_key(|&i| (core::cmp::Reverse(wants[i].bytes), wants[i].first, i));
    let mut out = Layout { offsets: vec![0; wants.len()], total: 0 };
    // Placed buffers as (offset, end, first, last), sorted by offset.
    let mut placed: Vec<(u64, u64, u32, u32)> = Vec::with_capacity(order.len());
    for i in order {
        let w = wants[i];
        let size = w.bytes.checked_next_multiple_of(ALIGN as u64)?;
        let mut at = 0u64;
        for &(offset, end, first, last) in &placed {
            if last < w.first || w.last < first {
                continue;
            }
            if offset >= at.checked_add(size)? {
                break;
            }
            at = at.max(end);
        }
        let end = at.checked_add(size).filter(|&e| e <= i64::MAX as u64)?;
        let pos = placed.partition_point(|p| *p < (at, end, w.first, w.last));
        placed.insert(pos, (at, end, w.first, w.last));
        out.offsets[i] = at;
        out.total = out.total.max(end);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn live_buffers_never_overlap() {
        let mut seed = 0x9e37_79b9_7f4a_7c15u64;
        let mut next = move || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed
        };
        for round in 0..300 {
            let n = (next() % 60) as usize;
            let wants: Vec<Want> = (0..n)
                .map(|_| {
                    let first = (next() % 40) as u32;
                    Want { bytes: next() % 1000 * (next() % 3), first, last: first + (next() % 12) as u32 }
                })
                .collect();
            let l = plan(&wants).expect("fits");
            assert_eq!(plan(&wants).as_ref(), Some(&l));
            for i in 0..n {
                assert_eq!(l.offsets[i] % 64, 0);
                assert!(l.offsets[i] + wants[i].bytes <= l.total || wants[i].bytes == 0);
                for j in 0..i {
                    let (a, b) = (wants[i], wants[j]);
                    let together = a.first <= b.last && b.first <= a.last && a.bytes > 0 && b.bytes > 0;
                    let apart =
                        l.offsets[i] + a.bytes <= l.offsets[j] || l.offsets[j] + b.bytes <= l.offsets[i];
                    assert!(!together || apart, "round {round}: {a:?} {b:?}");
                }
            }
        }
    }

    #[test]
    fn memory_is_reused_after_the_last_use() {
        let w = |bytes, first, last| Want { bytes, first, last };
        let l = plan(&[w(1000, 0, 1), w(1000, 1, 2), w(1000, 2, 3)]).expect("fits");
        assert_eq!(l.total, 2048);
        assert_eq!(plan(&[w(u64::MAX, 0, 0)]), None);
        assert_eq!(plan(&[w(i64::MAX as u64 - 63, 0, 0), w(i64::MAX as u64 - 63, 0, 0)]), None);
    }
}
