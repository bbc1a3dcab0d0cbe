//! Copies between the two forms.

use super::{BLOCK, blocked_dims, same_bytes};
use crate::kernel::{Builder, CmpOp, Elem, Ty, Val};
use crate::lower::cx::{LowerCx, Opnd};
use crate::lower::elem::mem_elem;
use crate::lower::launch::Launch;
use crate::lower::nest::span;
use planish_ir::{Diag, Dim, ValueId};
use planish_rt::plan::SlotId;

/// Positions of one unit of the parallel axis.
const POSITIONS: i64 = 256;

/// The blocked form of a plain tensor, with zeros in the lanes beyond the last channel.
pub(in crate::lower) fn to_blocked(cx: &mut LowerCx<'_>, x: &Opnd) -> Result<Opnd, Diag> {
    let dims = blocked_dims(&x.dims);
    if same_bytes(&x.dims) {
        let slot = cx.view(x, x.dtype, &dims, &Dim::Const(0));
        return Ok(Opnd { slot, dtype: x.dtype, dims });
    }
    let y = cx.temp(x.dtype, &dims);
    launch(cx, "block", x, &y, &x.dims.clone(), true)?;
    Ok(y)
}

/// The plain form of a blocked tensor, in the slot of the value.
pub(super) fn to_plain(cx: &mut LowerCx<'_>, v: ValueId, x: &Opnd, dims: &[Dim]) -> Result<SlotId, Diag> {
    if same_bytes(dims) {
        let slot = cx.view(x, x.dtype, dims, &Dim::Const(0));
        cx.place(v, slot);
        return Ok(slot);
    }
    let y = cx.own_slot(v)?;
    launch(cx, "unblock", x, &y, dims, false)?;
    Ok(y.slot)
}

fn launch(
    cx: &mut LowerCx<'_>,
    label: &str,
    x: &Opnd,
    y: &Opnd,
    plain: &[Dim],
    to_blocked: bool,
) -> Result<(), Diag> {
    let positions = Dim::product(&plain[2..]);
    let blocks = plain[1].ceil_div(&BLOCK.into());
    let chunks = positions.ceil_div(&POSITIONS.into());
    let l = Launch::new(label).read(x).write(y).dim(&plain[1]).dim(&blocks).dim(&positions).dim(&chunks);
    let units = plain[0].mul(&blocks).mul(&chunks);
    let cost = positions.smaller(&POSITIONS.into()).mul(&4.into());
    let whole = plain[1].as_const().is_some_and(|c| c % BLOCK == 0);
    let elem = mem_elem(x.dtype);
    cx.launch(l.extent(units).cost(cost), |k| {
        let lanes = k.lanes(Elem::F32).min(BLOCK as u16);
        let (x, y) = (k.buf(0), k.buf(1));
        let (channels, blocks, positions, chunks) = (k.dim(0), k.dim(1), k.dim(2), k.dim(3));
        k.b.parallel_for(|b, unit| {
            let (row, chunk) = b.div_rem(unit, chunks);
            let (n, block) = b.div_rem(row, blocks);
            let first = b.mul(block, BLOCK);
            let (lo, hi) = span(b, chunk, POSITIONS, positions);
            // Where the block begins in either form.
            let plane = b.at(first, n, channels);
            let plain = b.mul(plane, positions);
            let blocked = b.mul(row, positions);
            let blocked = b.mul(blocked, BLOCK);
            for part in 0..BLOCK / i64::from(lanes) {
                let c0 = b.add(first, part * i64::from(lanes));
                let some = b.cmp(CmpOp::Slt, c0, channels);
                if to_blocked && !whole {
                    let none = b.not(some);
                    b.when(none, |b| {
                        let first = b.add(blocked, part * i64::from(lanes));
                        let zero = b.zero(Ty::vec(elem, lanes));
                        b.loop_(lo, hi, 1, |b, p| {
                            let at = b.at(first, p, BLOCK);
                            b.store(y, at, zero);
                        });
                    });
                }
                b.when(some, |b| {
                    let left = b.sub(channels, c0);
                    let at_plain = b.mul(positions, part * i64::from(lanes));
                    let at_plain = b.add(at_plain, plain);
                    let at_blocked = b.add(blocked, part * i64::from(lanes));
                    let zero = b.zero(Ty::vec(elem, lanes));
                    b.for_lanes(lo, hi, lanes, |b, p, mask| {
                        // Row i of the square is channel i of the part in the plain form, position i in the blocked one.
                        let from_plain = |b: &mut Builder, i: u16| {
                            let at = b.mul(positions, i64::from(i));
                            let at = b.add(at, at_plain);
                            b.add(at, p)
                        };
                        let from_blocked = |b: &mut Builder, i: u16| {
                            let at = b.add(p, i64::from(i));
                            b.at(at_blocked, at, BLOCK)
                        };
                        let exists = |b: &mut Builder, i: u16| match whole {
                            true => b.int(Ty::BOOL, 1),
                            false => b.cmp(CmpOp::Sgt, left, i64::from(i)),
                        };
                        let within = |b: &mut Builder, i: u16| match mask {
                            None => b.int(Ty::BOOL, 1),
                            Some(m) => b.extract(m, i),
                        };
                        let rows: Vec<Val> = (0..lanes)
                            .map(|i| {
                                if to_blocked {
                                    let (at, ok) = (from_plain(b, i), exists(b, i));
                                    b.if_(ok, |b| vec![b.load_opt(x, at, lanes, mask)], |_| vec![zero])[0]
                                } else {
                                    let (at, ok) = (from_blocked(b, i), within(b, i));
                                    b.if_(ok, |b| vec![b.load(x, at, lanes)], |_| vec![zero])[0]
                                }
                            })
                            .collect();
                        for (i, v) in transposed(b, rows).into_iter().enumerate() {
                            let i = i as u16;
                            if to_blocked {
                                let (at, ok) = (from_blocked(b, i), within(b, i));
                                b.when(ok, |b| b.store(y, at, v));
                            } else {
                                let (at, ok) = (from_plain(b, i), exists(b, i));
                                b.when(ok, |b| b.store_opt(y, at, v, mask));
                            }
                        }
                    });
                });
            }
        });
    })
}

/// A square of as many vectors as they have lanes (a power of two), with rows and columns swapped.
pub(in crate::lower) fn transposed(b: &mut Builder, mut rows: Vec<Val>) -> Vec<Val> {
    let n = rows.len();
    let mut width = 1;
    while width < n {
        // Swaps the off-diagonal squares of `width` in every square of twice the width.
        let pick = |high: bool| -> Vec<u16> {
            (0..n)
                .map(|lane| {
                    let second = lane & width != 0;
                    let from = if high { lane | width } else { lane & !width };
                    (if second { n + from } else { from }) as u16
                })
                .collect()
        };
        let (low, high) = (pick(false), pick(true));
        let mut next = rows.clone();
        for r in (0..n).filter(|r| r & width == 0) {
            let (upper, lower) = (rows[r], rows[r | width]);
            next[r] = b.shuffle(upper, lower, &low);
            next[r | width] = b.shuffle(upper, lower, &high);
        }
        rows = next;
        width *= 2;
    }
    rows
}
