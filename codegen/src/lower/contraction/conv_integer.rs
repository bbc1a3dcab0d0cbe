//! Convolutions of stored integers: on [blocked channels](super::blocked) where the weights are known, else in i32.

use super::epilogue::Epilogue;
use super::{blocked, conv};
use crate::kernel::Builder;
use crate::lower::cx::{LowerCx, Opnd};
use crate::lower::elem::convert;
use crate::lower::elementwise;
use planish_ir::op::quant::ConvInteger;
use planish_ir::{DType, Diag, Dim, NodeId, RegionId, ValueId};
use std::collections::HashMap;

/// The operands of a convolution and what follows it.
pub(super) struct Work<'w> {
    pub(super) x: ValueId,
    pub(super) w: ValueId,
    /// Zero points of both.
    pub(super) zeros: [Option<ValueId>; 2],
    /// Dims of the sums.
    pub(super) out: Vec<Dim>,
    /// The region of a fused group, its convolution and what its parameters stand for.
    pub(super) group: Option<(RegionId, NodeId, &'w HashMap<ValueId, ValueId>)>,
}

/// Lowers a convolution that stands alone.
pub(in crate::lower) fn lower_conv_integer(cx: &mut LowerCx<'_>, op: &ConvInteger) -> Result<(), Diag> {
    let zero = |i: usize| cx.node().inputs.get(i).copied().flatten();
    let zeros = [zero(2), zero(3)];
    let (x, w) = (cx.input_value(0)?, cx.input_value(1)?);
    let (_, out) = cx.output_type(0)?;
    emit(cx, op, Work { x, w, zeros, out, group: None })
}

/// Emits a convolution with what follows it.
pub(super) fn emit(cx: &mut LowerCx<'_>, op: &ConvInteger, o: Work<'_>) -> Result<(), Diag> {
    let count = cx.node().outputs.len();
    let blocks = (0..count).all(|k| cx.output_type(k).is_ok_and(|t| goes_blocked(t.0) && t.1 == o.out));
    let plan = blocked::plan_bytes(cx, op, o.x, (o.w, o.zeros[1]), &o.out).filter(|_| blocks);
    if let Some(p) = plan {
        let zero = o.zeros[0].map(|z| cx.memory_of(z)).transpose()?;
        let e = match o.group {
            None => Epilogue::unplaced(),
            Some((region, anchor, captures)) => {
                Epilogue::of_region(cx, region, anchor, captures, Some(1), true, vec![])?
            }
        };
        let o = blocked::Operands { x: o.x, w: o.w, bias: None, zero, w_zero: o.zeros[1], out: o.out };
        return blocked::emit(cx, p, o, e);
    }
    let (_, w_dims) = cx.tensor_type(o.w)?;
    let x = shifted(cx, o.x, o.zeros[0], false)?;
    let w = shifted(cx, o.w, o.zeros[1], true)?;
    let e = match o.group {
        None => Epilogue::none(cx.output(0)?),
        Some((region, anchor, captures)) => {
            let outs: Vec<Opnd> = (0..count).map(|k| cx.output(k)).collect::<Result<_, _>>()?;
            Epilogue::of_region(cx, region, anchor, captures, Some(1), false, outs)?
        }
    };
    let w = conv::Weighed::Memory(w);
    let o = conv::Operands { x, w: w_dims, w_type: DType::I32, bias: None, weights: w, out: o.out };
    conv::emit(cx, &op.conv(), o, e)
}

/// Whether a result of a convolution may be of this type in blocks of channels.
pub(super) fn goes_blocked(d: DType) -> bool {
    matches!(d, DType::F32 | DType::I32 | DType::U8 | DType::I8)
}

/// Stored integers less their zero point in i32; `outputs`: there may be one for each index of the first axis.
fn shifted(cx: &mut LowerCx<'_>, v: ValueId, zero: Option<ValueId>, outputs: bool) -> Result<Opnd, Diag> {
    let x = cx.memory_of(v)?;
    let y = cx.temp(DType::I32, &x.dims);
    let mut ins = vec![x.clone()];
    if let Some(zero) = zero {
        let z = cx.memory_of(zero)?;
        let mut dims = vec![Dim::Const(1); x.dims.len()];
        if outputs && let [n] = &z.dims[..] {
            dims[0] = n.clone();
        }
        ins.push(z.with_dims(dims));
    }
    let types: Vec<DType> = ins.iter().map(|x| x.dtype).collect();
    elementwise::emit(cx, "shift", &ins, std::slice::from_ref(&y), 2, &|b: &mut Builder, v| {
        let wide: Vec<_> = v.iter().zip(&types).map(|(v, d)| convert(b, *v, *d, DType::I32)).collect();
        vec![match wide[..] {
            [x, z] => b.sub(x, z),
            _ => wide[0],
        }]
    })?;
    Ok(y)
}
