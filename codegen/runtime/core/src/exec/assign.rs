//! Assignments between slots that happen together, as at the end of a loop iteration.
use super::{Program, Session};
use crate::error::Result;
use crate::mem::Buf;
use crate::plan::{SlotId, SlotKind};
use alloc::vec::Vec;

/// Heap tensors of at least so many bytes change places instead of being copied.
const SWAP_BYTES: usize = 4096;

impl Session {
    /// `dst := src` for all pairs at once. Sizes are those of the sources under the symbols bound now. The flag of
    /// a pair says that its source is not read again before it is written.
    pub(super) fn assign(&mut self, p: &Program, pairs: &[(SlotId, SlotId, bool)]) -> Result<()> {
        let mut tensors: Vec<(SlotId, SlotId, usize, bool)> = Vec::with_capacity(pairs.len());
        let mut objects = Vec::new();
        for &(dst, src, consume) in pairs {
            if dst == src {
                continue;
            }
            match p.plan.slots[src.index()].kind {
                SlotKind::Object => {
                    objects.push((dst, self.objects[src.index()].clone(), consume.then_some(src)))
                }
                SlotKind::Tensor { .. } => tensors.push((dst, src, self.slot_bytes(p, src)?.1, consume)),
            }
        }
        // Dropping the source makes the destination the only owner, so that a sequence can be extended in place.
        for src in objects.iter().filter_map(|o| o.2) {
            self.objects[src.index()] = None;
        }
        for (dst, value, _) in objects {
            self.objects[dst.index()] = value;
        }
        let owners: Vec<(SlotId, SlotId)> =
            tensors.iter().map(|&(d, s, _, _)| (self.owner(p, d), self.owner(p, s))).collect();
        // A source that another pair overwrites, or that is read twice, is copied aside first.
        let mut staged: Vec<Option<Buf>> = Vec::with_capacity(tensors.len());
        for (k, &(_, src, bytes, _)) in tensors.iter().enumerate() {
            let hit = owners.iter().enumerate().any(|(j, &(d, _))| j != k && d == owners[k].1);
            let mut copy = None;
            if hit {
                let mut b = Buf::at(&p.memory);
                b.reserve(bytes)?;
                let (from, _) = self.place(p, src)?;
                // SAFETY: source and buffer hold `bytes` bytes.
                unsafe { p.memory.copy(b.ptr(), from, bytes)? };
                copy = Some(b);
            }
            staged.push(copy);
        }
        for (k, &(dst, src, bytes, consume)) in tensors.iter().enumerate() {
            let alone =
                owners.iter().enumerate().all(|(j, o)| j == k || (o.1 != owners[k].1 && o.0 != owners[k].1));
            if let (true, true, Some(a), Some(b)) =
                (consume && alone, bytes >= SWAP_BYTES, self.heap_of(p, dst), self.heap_of(p, src))
            {
                if self.heaps[a].capacity() != self.heaps[b].capacity() {
                    self.layout += 1;
                }
                self.heaps.swap(a, b);
                self.pointers += 1;
                continue;
            }
            self.ensure(p, dst, bytes, 0)?;
            let to = self.place(p, dst)?.0;
            let from = match &staged[k] {
                Some(b) => b.ptr(),
                None => self.place(p, src)?.0,
            };
            // SAFETY: both hold `bytes` bytes: `ensure` and `slot_bytes` checked it; they may overlap.
            unsafe { p.memory.copy(to, from, bytes)? };
        }
        Ok(())
    }
}
