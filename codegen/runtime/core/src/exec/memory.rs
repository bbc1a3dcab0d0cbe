//! Where slots are in memory, and how large.
use super::{Home, Program, Session};
use crate::dtype::DType;
use crate::error::{Error, ErrorKind, Result, fail};
use crate::mem::Buf;
use crate::object::{dense_bytes, read_int};
use crate::plan::{EvalError, ExprId, SlotId, SlotKind, Value};
use alloc::vec::Vec;

impl Session {
    /// The value of an expression, as an error for the user if there is none.
    pub(super) fn eval(&self, p: &Program, e: ExprId) -> Result<i64> {
        self.exprs.get(e).map_err(|why| match why {
            EvalError::Unbound => Error::new(
                ErrorKind::Program,
                alloc::format!("the plan uses {} before it is bound", p.plan.show_expr(e)),
            ),
            EvalError::Overflow => {
                Error::new(ErrorKind::Data, alloc::format!("{} does not fit 64 bits", p.plan.show_expr(e)))
            }
        })
    }

    /// Type and bytes of a tensor slot.
    pub(super) fn slot_bytes(&self, p: &Program, s: SlotId) -> Result<(DType, usize)> {
        let SlotKind::Tensor { dtype, dims } = &p.plan.slots[s.index()].kind else {
            fail!(Program, "slot {s} is no tensor")
        };
        let mut n = dtype.size() as u64;
        let mut empty = false;
        for &d in dims {
            let v = self.eval(p, d)?;
            match u64::try_from(v) {
                Ok(0) => empty = true,
                Ok(v) => n = n.saturating_mul(v),
                Err(_) => fail!(Data, "a tensor would get the negative dim {v}"),
            }
        }
        match usize::try_from(if empty { 0 } else { n }) {
            Ok(n) if n <= isize::MAX as usize => Ok((*dtype, n)),
            _ => fail!(Memory, "a tensor of {} would be too large", *dtype),
        }
    }

    /// The dims of a tensor slot.
    pub(super) fn slot_dims(&self, p: &Program, s: SlotId) -> Result<Vec<i64>> {
        match &p.plan.slots[s.index()].kind {
            SlotKind::Tensor { dims, .. } => dims.iter().map(|&d| self.eval(p, d)).collect(),
            SlotKind::Object => fail!(Program, "slot {s} is no tensor"),
        }
    }

    /// The home behind a slot, with the bytes between its start and the slot's.
    fn root(&self, p: &Program, mut s: SlotId) -> Result<(Home, usize, SlotId)> {
        let mut at = 0usize;
        loop {
            match p.homes[s.index()] {
                Home::Alias { slot, offset } => {
                    let o = self.eval(p, offset)?;
                    match usize::try_from(o).ok().and_then(|o| at.checked_add(o)) {
                        Some(n) => at = n,
                        None => fail!(Program, "slot {s} begins at byte {o} of another"),
                    }
                    s = slot;
                }
                home => return Ok((home, at, s)),
            }
        }
    }

    /// The address of a tensor slot and the bytes from there to the end of its home.
    pub(super) fn place(&self, p: &Program, s: SlotId) -> Result<(*mut u8, usize)> {
        let (home, at, root) = self.root(p, s)?;
        let (base, len) = match home {
            Home::Input(i) => (self.inputs[i].ptr.cast_mut(), self.inputs[i].bytes),
            Home::Output(o) => (self.outputs[o].ptr, self.outputs[o].capacity),
            // SAFETY: `Program::new` checked that the weights hold the range.
            Home::Weights { offset, len } => (unsafe { p.weights.ptr.add(offset) }.cast_mut(), len),
            // SAFETY: the arena holds every offset of the layout it was made for.
            Home::Arena(k) => (unsafe { self.arena.ptr().add(self.offsets[k]) }, self.arena_bytes[k]),
            Home::Heap(h) => (self.heaps[h].ptr(), self.heaps[h].capacity()),
            Home::Object | Home::Alias { .. } => fail!(Program, "slot {root} has no address"),
        };
        match len.checked_sub(at) {
            // SAFETY: `at` is at most the length of the block at `base`.
            Some(rest) => Ok((unsafe { base.add(at) }, rest)),
            None => fail!(Program, "slot {s} begins behind the end of {root}"),
        }
    }

    /// Makes a slot that grows at run time hold at least `bytes`, keeping the first `keep`, and checks that others
    /// do.
    pub(super) fn ensure(&mut self, p: &Program, s: SlotId, bytes: usize, keep: usize) -> Result<()> {
        let (home, at, root) = self.root(p, s)?;
        let Some(end) = at.checked_add(bytes) else { fail!(Memory, "a tensor would be too large") };
        let grow = |b: &mut Buf, limit: usize| {
            if end > limit {
                fail!(Memory, "a tensor of {end} bytes is above the limit of {limit} bytes");
            }
            if keep > 0 { b.extend(end, at + keep) } else { b.reserve(end) }
        };
        let limit = self.options.max_memory;
        let grew = match home {
            Home::Heap(h) => grow(&mut self.heaps[h], limit)?,
            Home::Output(o) if !p.known_outputs[o] || self.outputs[o].external.is_none() => {
                let out = &mut self.outputs[o];
                let grew = grow(&mut out.own, limit)?;
                (out.ptr, out.capacity) = (out.own.ptr(), out.own.capacity());
                grew
            }
            _ => {
                let (_, have) = self.place(p, s)?;
                if bytes > have {
                    fail!(Program, "slot {s} needs {bytes} bytes, but {root} leaves {have}");
                }
                false
            }
        };
        if grew {
            self.pointers += 1;
        }
        Ok(())
    }

    /// Makes room for a slot of its own dims. Returns its bytes.
    pub(super) fn ensure_dims(&mut self, p: &Program, s: SlotId) -> Result<usize> {
        let (_, bytes) = self.slot_bytes(p, s)?;
        self.ensure(p, s, bytes, 0)?;
        Ok(bytes)
    }

    /// Element `index` of an integer tensor.
    pub(super) fn read(&self, p: &Program, s: SlotId, index: usize) -> Result<i64> {
        let (dtype, bytes) = self.slot_bytes(p, s)?;
        let (ptr, have) = self.place(p, s)?;
        let size = dtype.size();
        if (index + 1) * size > bytes.min(have) {
            fail!(Data, "element {index} of an integer tensor of {} elements is needed", bytes / size.max(1));
        }
        let mut raw = [0u8; 16];
        let Some(raw) = raw.get_mut(..size) else {
            fail!(Program, "slot {s} of {dtype} is used as an integer")
        };
        // SAFETY: the range was just checked against the slot's memory.
        unsafe { p.memory.read(raw, ptr.add(index * size))? };
        match read_int(dtype, raw) {
            Some(v) => Ok(v),
            None => fail!(Program, "slot {s} of {dtype} is used as an integer"),
        }
    }

    /// The value of a scalar.
    pub(super) fn value(&self, p: &Program, v: Value) -> Result<i64> {
        match v {
            Value::Slot(s) => self.read(p, s, 0),
            Value::Expr(e) => self.eval(p, e),
        }
    }

    /// The heap buffer a slot is, if it is one and not a part of one.
    pub(super) fn heap_of(&self, p: &Program, s: SlotId) -> Option<usize> {
        match p.homes[s.index()] {
            Home::Heap(h) => Some(h),
            _ => None,
        }
    }

    /// The slot that owns the memory of a slot.
    pub(super) fn owner(&self, p: &Program, mut s: SlotId) -> SlotId {
        while let Home::Alias { slot, .. } = p.homes[s.index()] {
            s = slot;
        }
        s
    }

    /// Copies the bytes of a slot out.
    pub(super) fn slot_data(&self, p: &Program, s: SlotId) -> Result<(DType, Vec<i64>, Vec<u8>)> {
        let dims = self.slot_dims(p, s)?;
        let (dtype, bytes) = self.slot_bytes(p, s)?;
        let (ptr, have) = self.place(p, s)?;
        if bytes > have || dense_bytes(dtype, &dims) != Some(bytes as u64) {
            fail!(Program, "slot {s} of {bytes} bytes is in {have} bytes");
        }
        let mut data = alloc::vec![0; bytes];
        // SAFETY: the slot holds `bytes` bytes; all buffers are initialised.
        unsafe { p.memory.read(&mut data, ptr)? };
        Ok((dtype, dims, data))
    }
}
