//! Constants that lie one behind the other, one for each expert: `gather` of such a stack by the number of the expert is a view.

use crate::lower::cx::{LowerCx, Opnd};
use planish_ir::op::gather::Gather;
use planish_ir::{ConstId, DType, Diag, Dim, ValueId};
use planish_rt::plan::SlotId;

/// The parameter of a region that is the number of the expert.
#[derive(Clone, Debug)]
pub(in crate::lower) struct Expert {
    /// The number, in places where the plan knows it.
    pub(super) number: Dim,
    /// How many experts there are.
    pub(super) experts: Dim,
}

/// One of equal parts of a constant.
#[derive(Clone, Debug)]
pub(in crate::lower) struct Stacked {
    /// The constant.
    pub(in crate::lower) constant: ConstId,
    /// Its parts.
    pub(in crate::lower) parts: usize,
    /// Which one.
    pub(in crate::lower) number: Dim,
}

/// Whether a gather takes an expert's part of a stack of constants. Nothing is emitted then: who reads it decides how the stack lies
/// in memory.
pub(in crate::lower) fn defer(cx: &mut LowerCx<'_>, op: &Gather) -> Result<bool, Diag> {
    let (table, index) = (cx.input_value(0)?, cx.input_value(1)?);
    let (Some(expert), Some((constant, c))) = (cx.experts.get(&index), cx.graph.as_const(table)) else {
        return Ok(false);
    };
    let Some(parts) = c.shape.first().copied().filter(|_| op.axis == 0 && c.dtype != DType::Str) else {
        return Ok(false);
    };
    // Numbers beyond the stack are an error that the gather raises.
    if expert.experts.as_const().is_none_or(|e| e > parts as i64) {
        return Ok(false);
    }
    let number = expert.number.clone();
    let y = cx.output_value(0)?;
    cx.stacked.insert(y, Stacked { constant, parts, number });
    Ok(true)
}

impl LowerCx<'_> {
    /// The slot of an expert's part of a stack as it is stored.
    pub(in crate::lower) fn part_of_stack(&mut self, v: ValueId, s: &Stacked) -> Result<SlotId, Diag> {
        let (dtype, dims) = self.tensor_type(v)?;
        let whole = self.const_slot(s.constant)?;
        let bytes = Dim::product(&dims).mul(&Dim::from(dtype.size()));
        let whole = Opnd { slot: whole, dtype, dims: dims.clone() };
        Ok(self.view(&whole, dtype, &dims, &s.number.mul(&bytes)))
    }
}
