//! Element-wise operations on blocked tensors.

use super::{BLOCK, channel_mask};
use crate::kernel::{Buf, Elem, Val};
use crate::lower::cx::{LowerCx, Opnd};
use crate::lower::elem::load;
use crate::lower::elementwise::{self, Expr};
use crate::lower::launch::Launch;
use crate::lower::nest::span;
use planish_ir::{DType, Diag, Dim, ValueId};

/// Positions of one unit of the parallel axis.
const POSITIONS: i64 = 256;

/// How an operand follows the result.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Follows {
    /// An element for each.
    All,
    /// One for each channel of each image.
    Channel,
    /// One for each channel.
    ChannelOnly,
    /// One for all.
    Nothing,
}

fn follows(x: &[Dim], out: &[Dim]) -> Option<Follows> {
    if x == out {
        return Some(Follows::All);
    }
    if x.iter().all(|d| d.is(1)) {
        return Some(Follows::Nothing);
    }
    let lead = out.len().checked_sub(x.len())?;
    let spatial = out.len() - 2;
    if lead > 1 || x[1 - lead] != out[1] || !x[x.len() - spatial..].iter().all(|d| d.is(1)) {
        return None;
    }
    match x.first().filter(|_| lead == 0) {
        Some(n) if n.is(1) => Some(Follows::ChannelOnly),
        Some(n) if *n == out[0] => Some(Follows::Channel),
        Some(_) => None,
        None => Some(Follows::ChannelOnly),
    }
}

/// Whether tensors of this type lie in blocks of channels.
fn in_blocks(d: DType) -> bool {
    matches!(d, DType::F32 | DType::I32 | DType::U8 | DType::I8)
}

/// Emits element-wise results of the current node in blocks of channels, if an operand lies so and the others allow it. Says
/// whether it did.
pub(in crate::lower) fn lower_chain(
    cx: &mut LowerCx<'_>,
    label: &str,
    ins: &[ValueId],
    cost: i64,
    expr: &Expr<'_>,
) -> Result<bool, Diag> {
    let (_, out) = cx.output_type(0)?;
    let count = cx.node().outputs.len();
    let alike = (0..count).all(|k| cx.output_type(k).is_ok_and(|t| in_blocks(t.0) && t.1 == out));
    if !alike || out.len() < 3 {
        return Ok(false);
    }
    let mut kinds = Vec::with_capacity(ins.len());
    for v in ins {
        let (dtype, dims) = cx.tensor_type(*v)?;
        match follows(&dims, &out) {
            Some(Follows::Nothing) => kinds.push(Follows::Nothing),
            Some(f) if in_blocks(dtype) => kinds.push(f),
            _ => return Ok(false),
        }
    }
    let lies = |(v, f): (&ValueId, &Follows)| *f == Follows::All && cx.blocked_form(*v).is_some();
    if !ins.iter().zip(&kinds).any(lies) {
        return Ok(false);
    }
    let mut operands: Vec<Opnd> = Vec::with_capacity(ins.len());
    for (v, f) in ins.iter().zip(&kinds) {
        operands.push(if *f == Follows::All { cx.blocked(*v)? } else { cx.memory_of(*v)? });
    }
    let outs: Vec<Opnd> = (0..count).map(|k| cx.blocked_output(k)).collect::<Result<_, _>>()?;
    if kinds.iter().all(|f| matches!(f, Follows::All | Follows::Nothing)) {
        elementwise::emit(cx, label, &operands, &outs, cost, expr)?;
        return Ok(true);
    }
    let positions = Dim::product(&out[2..]);
    let blocks = out[1].ceil_div(&BLOCK.into());
    let chunks = positions.ceil_div(&POSITIONS.into());
    let mut l = Launch::new(label);
    for x in &operands {
        l = l.read(x);
    }
    for y in &outs {
        l = l.write(y);
    }
    l = l.dim(&out[1]).dim(&blocks).dim(&positions).dim(&chunks);
    let units = out[0].mul(&blocks).mul(&chunks);
    let per = positions.smaller(&POSITIONS.into()).mul(&(BLOCK * cost).into());
    let l = l.extent(units).cost(per).flops(Dim::product(&out).mul(&cost.into()));
    let types: Vec<DType> = operands.iter().map(|x| x.dtype).collect();
    cx.launch(l, |k| {
        let lanes = k.lanes(Elem::F32).min(BLOCK as u16);
        let bufs: Vec<Buf> = (0..types.len() + count).map(|i| k.buf(i)).collect();
        let (channels, blocks, positions, chunks) = (k.dim(0), k.dim(1), k.dim(2), k.dim(3));
        let b = &mut k.b;
        b.parallel_for(|b, unit| {
            let (row, chunk) = b.div_rem(unit, chunks);
            let (n, block) = b.div_rem(row, blocks);
            let (lo, hi) = span(b, chunk, POSITIONS, positions);
            let base = b.mul(row, positions);
            for part in 0..BLOCK / i64::from(lanes) {
                let off = part * i64::from(lanes);
                let channel = b.mul(block, BLOCK);
                let channel = b.add(channel, off);
                let mask = channel_mask(b, lanes, channel, channels);
                // What does not depend on the position.
                let fixed: Vec<Option<Val>> = kinds
                    .iter()
                    .zip(&types)
                    .zip(&bufs)
                    .map(|((f, d), buf)| match f {
                        Follows::All => None,
                        Follows::Nothing => {
                            let v = load(b, *d, *buf, 0, 1, None);
                            Some(b.splat(v, lanes))
                        }
                        Follows::ChannelOnly => Some(load(b, *d, *buf, channel, lanes, mask)),
                        Follows::Channel => {
                            let at = b.at(channel, n, channels);
                            Some(load(b, *d, *buf, at, lanes, mask))
                        }
                    })
                    .collect();
                b.loop_(lo, hi, 1, |b, p| {
                    let at = b.add(base, p);
                    let at = b.mul(at, BLOCK);
                    let at = b.add(at, off);
                    let vals: Vec<Val> = fixed
                        .iter()
                        .zip(&bufs)
                        .map(|(f, buf)| f.unwrap_or_else(|| b.load(*buf, at, lanes)))
                        .collect();
                    for (v, buf) in expr(b, &vals).into_iter().zip(&bufs[types.len()..]) {
                        b.store(*buf, at, v);
                    }
                });
            }
        });
    })?;
    Ok(true)
}
