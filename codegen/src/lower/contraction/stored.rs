//! Products with matrices in blocks whose elements are data, and blocks of products: steps of training of sparse weights.
//!
//! Which blocks there are is known when the program is made; their elements change from step to step and are read where they lie, block by
//! block. A product walks [lists](super::sparse) of blocks in tiles whose [vectors hold rows](super::scattered), forward along the columns of
//! the matrix and back along its rows: only the strides of the elements differ. Blocks of a product are sums over rows, one vector
//! of partial sums for each element; as many neighbouring elements as a vector has lanes are summed at a time and added up in a square.

use super::div_up;
use super::epilogue::Epilogue;
use super::scattered::{self, GROUP, STRIP};
use super::sparse::ints;
use crate::kernel::{Elem, Ty, Val};
use crate::lower::cx::{LowerCx, Opnd};
use crate::lower::launch::Launch;
use crate::lower::layout::{self, BLOCK, transposed};
use planish_ir::op::blocks::{BlockMatMul, BlockOuter};
use planish_ir::{Diag, Dim, Tensor};
use std::collections::BTreeMap;

/// Elements that a unit of the parallel axis sums.
const ELEMENTS: i64 = 512;

/// Positions of blocks, which are constant where there is a kernel.
fn positions(cx: &LowerCx<'_>) -> Result<Tensor, Diag> {
    let c = cx.constant(cx.input_value(2)?);
    c.ok_or_else(|| Diag::error("internal-lower", "positions of blocks are data"))?.decode()
}

/// A product with a matrix in blocks.
pub(in crate::lower) fn lower_block_matmul(cx: &mut LowerCx<'_>, op: &BlockMatMul) -> Result<(), Diag> {
    let (x, values) = (cx.input(0)?, cx.input(1)?);
    let y = cx.output(0)?;
    let places = op.places(&positions(cx)?)?;
    let (from, to) = op.sides();
    let (from, to) = (from as i64, to as i64);
    let m = Dim::product(&y.dims[..y.dims.len() - 1]);
    let (bk, bn) = (op.bk as i64, op.bn as i64);
    // Inputs and outputs of a block, and elements from one to the next.
    let (entry, steps, side) = if op.trans { ([bn, bk], [1, bn], 1) } else { ([bk, bn], [bn, 1], 0) };
    let width = entry[1];
    let mut lists: Vec<Vec<(i64, i32)>> = vec![Vec::new(); (to / width) as usize];
    for (slot, place) in (0..).zip(&places) {
        lists[place[1 - side] / width as usize].push((place[side] as i64 * GROUP, slot));
    }
    let strip = width.max(STRIP);
    lists.resize(lists.len().next_multiple_of((strip / width) as usize), Vec::new());
    let mut starts = vec![0i32];
    let (mut index, mut slots) = (Vec::new(), Vec::new());
    for mut list in lists {
        list.sort_unstable();
        index.extend(list.iter().map(|(at, _)| *at as i32));
        slots.extend(list.iter().map(|(_, slot)| *slot));
        starts.push(index.len() as i32);
    }
    let [starts, index, slots] = [starts, index, slots].map(|v| ints(cx, &v));
    let a = layout::to_blocked(cx, &x.with_dims(vec![1.into(), m.clone(), from.into()]))?;
    let size = places.len() as i64 * bk * bn;
    let mut e = Epilogue::none(y);
    let mut l = Launch::new("block_matmul").read(&a).read(&starts).read(&index).read(&values).read(&slots);
    l = e.bufs(l, 5).dim(&m);
    l = scattered::units(l, &m, div_up(to, strip), size);
    let known = scattered::groups_of_unit(&m);
    cx.launch(l, move |kc| {
        let epi = e.handles(kc);
        let lanes = kc.lanes(Elem::F32).min(BLOCK as u16);
        let m = kc.dim(0);
        let target = kc.target.clone();
        // Sums of a tile are as many as vectors of rows times outputs.
        let part = width.min(if target.registers >= 32 { 8 } else { 4 });
        let job = scattered::Job {
            x: kc.buf(0),
            group: kc.b.i64(GROUP * from),
            lists: [kc.buf(1), kc.buf(2), kc.buf(3)],
            entry,
            part,
            together: 1,
            strip,
            lanes,
            target: &target,
            local: scattered::Local::new(kc, strip),
            stored: Some(scattered::Stored { slots: kc.buf(4), steps }),
        };
        job.product(&mut kc.b, (m, known), [from, to], (&e, &epi));
    })
}

/// Blocks of the product of a transposed operand with another one.
pub(in crate::lower) fn lower_block_outer(cx: &mut LowerCx<'_>, op: &BlockOuter) -> Result<(), Diag> {
    let operands = [(cx.input(0)?, op.k as i64), (cx.input(1)?, op.n as i64)];
    let y = cx.output(0)?;
    let places = op.places(&positions(cx)?)?;
    let m = Dim::product(&operands[0].0.dims[..operands[0].0.dims.len() - 1]);
    let mut blocked = |(x, width): &(Opnd, i64)| {
        layout::to_blocked(cx, &x.with_dims(vec![1.into(), m.clone(), (*width).into()]))
    };
    let (a, b) = (blocked(&operands[0])?, blocked(&operands[1])?);
    let of = |side: usize| places.iter().map(|p| (p[side] as i64 * GROUP) as i32).collect::<Vec<i32>>();
    let (left, right) = (ints(cx, &of(0)), ints(cx, &of(1)));
    let (bk, bn) = (op.bk as i64, op.bn as i64);
    let block = bk * bn;
    let all = places.len() as i64 * block;
    let groups = m.ceil_div(&GROUP.into());
    let l = Launch::new("block_outer").read(&a).read(&b).read(&left).read(&right).write(&y).dim(&groups);
    let cost = groups.mul(&(all.clamp(1, ELEMENTS) * GROUP / 16).into());
    let l = l.extent(div_up(all, ELEMENTS).into()).cost(cost).flops(m.mul(&(2 * all).into()));
    let (k, n) = (op.k as i64, op.n as i64);
    let last = places.len() as i64 - 1;
    cx.launch(l, move |kc| {
        let lanes = kc.lanes(Elem::F32).min(BLOCK as u16);
        let wide = i64::from(lanes);
        let (x, y, left, right, out) = (kc.buf(0), kc.buf(1), kc.buf(2), kc.buf(3), kc.buf(4));
        let groups = kc.dim(0);
        kc.b.parallel_for(|b, unit| {
            let from = b.mul(unit, ELEMENTS);
            let to = b.add(from, ELEMENTS);
            let to = b.smin(to, all);
            b.loop_(from, to, wide, |b, first| {
                let (slot, within) = b.div_rem(first, block);
                let (row, column) = b.div_rem(within, bn);
                // First line of either operand for each of the blocks that the vector meets.
                let firsts: Vec<[Val; 2]> = (0..(wide / block).max(1))
                    .map(|more| {
                        let at = b.add(slot, more);
                        let at = b.smin(at, last);
                        [(left, row), (right, column)].map(|(places, line)| {
                            let place = b.load(places, at, 1);
                            let place = b.sext(place, Elem::I64);
                            b.at(place, line, GROUP)
                        })
                    })
                    .collect();
                let zero = b.zero(Ty::vec(Elem::F32, lanes));
                let sums = b.for_(0, groups, 1, &vec![zero; usize::from(lanes)], |b, group, sums| {
                    let mut sums = sums.to_vec();
                    for part in (0..GROUP).step_by(usize::from(lanes)) {
                        let mut found: [BTreeMap<(i64, i64), Val>; 2] = Default::default();
                        for (e, sum) in (0..).zip(&mut sums) {
                            let lane = Lane::new(e, (block, bn), wide);
                            let mut factors = Vec::with_capacity(2);
                            for (side, (buf, width)) in [(x, k), (y, n)].into_iter().enumerate() {
                                let line = lane.lines[side];
                                let v = *found[side].entry((lane.block, line)).or_insert_with(|| {
                                    let at = b.at(firsts[lane.block as usize][side], group, width * GROUP);
                                    let at = b.add(at, line * GROUP + part);
                                    b.load(buf, at, lanes)
                                });
                                factors.push(v);
                            }
                            *sum = b.fma(factors[0], factors[1], *sum);
                        }
                    }
                    sums
                });
                let rows = transposed(b, sums);
                let sum = rows.into_iter().reduce(|a, c| b.fadd(a, c));
                let mask = (all % wide != 0).then(|| {
                    let left = b.sub(all, first);
                    b.mask_below(lanes, left)
                });
                if let Some(sum) = sum {
                    b.store_opt(out, first, sum, mask);
                }
            });
        });
    })
}

/// What one of the neighbouring elements of a vector is the product of. Sizes of blocks are powers of two, and so is the number of lanes, so
/// that the elements of a vector lie in one row of a block, in whole rows of one, or in whole blocks.
struct Lane {
    /// Which of the blocks that the vector meets.
    block: i64,
    /// Lines of the operands behind those of the first element of that block that the vector meets.
    lines: [i64; 2],
}

impl Lane {
    fn new(e: i64, (block, width): (i64, i64), lanes: i64) -> Lane {
        let inner = e % block.min(lanes);
        let lines = if width >= lanes { [0, inner] } else { [inner / width, inner % width] };
        Lane { block: e / block.min(lanes), lines }
    }
}
