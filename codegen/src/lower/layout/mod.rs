//! Blocked channels: where a tensor `[n, c, spatial...]` lies as `[n, c / 16, spatial..., 16]`, and what works on that.
//!
//! Convolutions read and write whole vectors of channels in this form, whatever the sizes of the spatial axes are. Lanes
//! beyond the last channel exist in memory and hold anything; nothing may depend on them.
//!
//! The form is chosen as the lowering goes: convolutions make blocked tensors, and what follows them keeps the form as long as
//! it can. Everything else asks for the plain form and gets a copy, made once ([`LowerCx::slot`]); what wants the blocked
//! form of a plain value calls [`LowerCx::blocked`].

mod chain;
mod convert;
mod pool;

pub(super) use chain::lower_chain;
pub(super) use convert::{to_blocked, transposed};
pub(super) use pool::lower_pool;

use super::cx::{LowerCx, Opnd};
use crate::kernel::{Builder, Val};
use planish_ir::{DType, Diag, Dim, ValueId};
use planish_rt::plan::SlotId;

/// Channels of a block.
pub(super) const BLOCK: i64 = 16;

/// The dims of the blocked form of a tensor.
pub(super) fn blocked_dims(dims: &[Dim]) -> Vec<Dim> {
    let mut out = dims.to_vec();
    out[1] = out[1].ceil_div(&BLOCK.into());
    out.push(BLOCK.into());
    out
}

impl LowerCx<'_> {
    /// The blocked form of a value, where it exists.
    pub(super) fn blocked_form(&self, v: ValueId) -> Option<Opnd> {
        let slot = *self.blocked_slots.get(&v)?;
        let (dtype, dims) = self.tensor_type(v).ok()?;
        Some(Opnd { slot, dtype, dims: blocked_dims(&dims) })
    }

    /// Whether a value lies in blocks of channels, or will where it is computed.
    pub(super) fn lies_blocked(&self, v: ValueId) -> bool {
        self.blocked_slots.contains_key(&v) || self.deferred.contains_key(&v)
    }

    /// Declares a value to lie where another one does, in its blocked form at least; whether there is one.
    pub(super) fn same_forms(&mut self, v: ValueId, same: ValueId) -> bool {
        let blocked = self.blocked_slots.get(&v).copied();
        if let Some(slot) = blocked {
            self.blocked_slots.insert(same, slot);
        }
        blocked.is_some()
    }

    /// The blocked form of a value, which is made from the plain one where it does not exist yet.
    pub(super) fn blocked(&mut self, v: ValueId) -> Result<Opnd, Diag> {
        if let Some(x) = self.blocked_form(v) {
            return Ok(x);
        }
        let x = self.memory_of(v)?;
        let y = convert::to_blocked(self, &x)?;
        self.blocked_slots.insert(v, y.slot);
        Ok(y)
    }

    /// Makes the blocked slot of result `k`.
    pub(super) fn blocked_output(&mut self, k: usize) -> Result<Opnd, Diag> {
        self.blocked_slot(self.output_value(k)?)
    }

    /// Makes the blocked slot of a value.
    pub(super) fn blocked_slot(&mut self, v: ValueId) -> Result<Opnd, Diag> {
        let (dtype, dims) = self.tensor_type(v)?;
        let dims = blocked_dims(&dims);
        let y = match self.part_of_joined(v, &dims, true) {
            Some(slot) => Opnd { slot, dtype, dims },
            None => self.temp(dtype, &dims),
        };
        self.blocked_slots.insert(v, y.slot);
        Ok(y)
    }

    /// The plain form of a value of which only the blocked one exists.
    pub(super) fn unblocked(&mut self, v: ValueId, blocked: SlotId) -> Result<SlotId, Diag> {
        let (dtype, dims) = self.tensor_type(v)?;
        let x = Opnd { slot: blocked, dtype, dims: blocked_dims(&dims) };
        convert::to_plain(self, v, &x, &dims)
    }
}

/// Whether the two forms are the same bytes: whole blocks of channels and a single position.
fn same_bytes(dims: &[Dim]) -> bool {
    let whole = dims[1].as_const().is_some_and(|c| c % BLOCK == 0);
    whole && dims[2..].iter().all(|d| d.is(1))
}

/// Whether the blocked form of a tensor has no lanes beyond the last channel.
pub(super) fn whole_blocks(dims: &[Dim]) -> bool {
    dims.len() > 2 && dims[1].as_const().is_some_and(|c| c % BLOCK == 0)
}

/// The operands of a concatenation along `axis` in blocks of channels, if one lies so and all are whole blocks.
pub(super) fn concat_parts(cx: &mut LowerCx<'_>, axis: usize) -> Result<Option<Vec<Opnd>>, Diag> {
    let count = cx.node().inputs.len();
    let values: Vec<ValueId> = (0..count).map(|i| cx.input_value(i)).collect::<Result<_, _>>()?;
    let whole = |cx: &LowerCx<'_>, v: &ValueId| {
        cx.tensor_type(*v)
            .is_ok_and(|(d, dims)| matches!(d, DType::F32 | DType::U8 | DType::I8) && whole_blocks(&dims))
    };
    let lies = values.iter().any(|v| cx.blocked_form(*v).is_some());
    if axis != 1 || !lies || !values.iter().all(|v| whole(cx, v)) {
        return Ok(None);
    }
    values.into_iter().map(|v| cx.blocked(v)).collect::<Result<Vec<_>, _>>().map(Some)
}

/// The lanes of a vector of channels from `first` on that are channels; none where all blocks are whole.
pub(super) fn channel_mask(b: &mut Builder, lanes: u16, first: Val, channels: Val) -> Option<Val> {
    if b.known_int(channels).is_some_and(|c| c % BLOCK == 0) {
        return None;
    }
    let left = b.sub(channels, first);
    Some(b.mask_below(lanes, left))
}
