//! The products of transformed elements, and the transform back.

use super::super::{BLOCK, MOST, Plan2};
use super::axis::{Axis, both_ways};
use super::{Form, Transformed};
use crate::kernel::{Buf, Builder, CmpOp, Elem, TargetSpec, Ty, Val};
use crate::lower::contraction::epilogue::{Channels, Epilogue};
use crate::lower::contraction::tile::{Tile, in_pieces, rows_that_fit};
use crate::lower::layout::channel_mask;

/// Multiplies and transforms back.
pub(super) struct Back<'j> {
    pub(super) p: &'j Plan2,
    pub(super) f: &'j Form,
    pub(super) e: &'j Epilogue,
    pub(super) epi: &'j [Buf],
    pub(super) input: Transformed,
    /// The tile of the input that is the unit's first.
    pub(super) input_first: Val,
    pub(super) w: Buf,
    pub(super) bias: Option<Buf>,
    /// `[product][tile][blocks that are done together * 16]`.
    pub(super) products: Buf,
    pub(super) lanes: u16,
    /// Blocks that are done together.
    pub(super) wide: i64,
    /// Group of the convolution.
    pub(super) group: Val,
    /// Block of the result, over images and groups, where the group begins.
    pub(super) plane: Val,
    pub(super) output: [Val; 2],
    /// Tiles of a row.
    pub(super) across: Val,
    pub(super) target: &'j TargetSpec,
    /// Whether the weights of a product are read ahead while the one before is made: they come from afar.
    pub(super) ahead: bool,
}

/// Packed weights to be read ahead: some blocks, `apart` elements from each other.
struct Ahead {
    first: Val,
    blocks: i64,
    apart: i64,
}

impl Back<'_> {
    /// The results of `blocks` (first, count) of the group's output channels and of `tiles` (first, count).
    pub(super) fn emit(
        &self,
        b: &mut Builder,
        blocks: (Val, Val),
        (first, count): (Val, Val),
        known: Option<i64>,
    ) {
        self.products(b, blocks, count, known);
        b.loop_(0, count, 1, |b, t| self.back(b, blocks, first, t));
    }

    /// Tiles of a unit, at most.
    fn chunk(&self) -> i64 {
        self.f.chunk[0] * self.f.chunk[1]
    }

    /// Fills `products`.
    fn products(&self, b: &mut Builder, (block, blocks): (Val, Val), count: Val, known: Option<i64>) {
        let p = self.p;
        let lanes = i64::from(self.lanes);
        let first = b.mul(self.group, p.blocks());
        let first = b.add(first, block);
        b.loop_(0, self.f.products(), 1, |b, e| {
            p.for_vectors(b, self.target, self.lanes, blocks, |b, v, nv| {
                let channel = b.mul(v, lanes);
                let weights: Vec<Val> = (0..nv as i64)
                    .map(|i| {
                        let channel = b.add(channel, i * lanes);
                        let (own, off) = (b.div_const(channel, BLOCK), b.and(channel, BLOCK - 1));
                        let at = b.add(first, own);
                        let at = b.mul(at, self.f.products());
                        let at = b.add(at, e);
                        b.at(off, at, p.cg * BLOCK)
                    })
                    .collect();
                let most = rows_that_fit(self.target, nv, MOST);
                in_pieces(b, count, known, most, |b, t, size| {
                    let ahead = self.ahead.then(|| self.next(b, t, size, weights[0], nv, known));
                    let sums = self.sums(b, e, t, &weights, size, ahead);
                    let to = b.mul(e, self.chunk());
                    let to = b.add(to, t);
                    let to = b.mul(to, self.wide * BLOCK);
                    let to = b.add(to, channel);
                    for (i, sum) in sums.into_iter().enumerate() {
                        let (row, i) = ((i / nv) as i64, (i % nv) as i64);
                        let at = b.add(to, row * self.wide * BLOCK + i * lanes);
                        b.store(self.products, at, sum);
                    }
                });
            });
        });
    }

    /// What the piece of `size` tiles from `t` reads ahead while it multiplies: weights of the next product. The pieces share the
    /// blocks of it where there are as many of them.
    fn next(
        &self,
        b: &mut Builder,
        t: Val,
        size: usize,
        weights: Val,
        nv: usize,
        known: Option<i64>,
    ) -> Ahead {
        let blocks = (nv as i64 * i64::from(self.lanes) / BLOCK).max(1);
        let apart = self.f.products() * self.p.cg * BLOCK;
        let first = b.add(weights, self.p.cg * BLOCK);
        let pieces = known.map_or(1, |n| n / size as i64);
        if pieces < blocks {
            return Ahead { first, blocks, apart };
        }
        let piece = b.div_const(t, size as i64);
        let block = b.srem(piece, blocks);
        Ahead { first: b.at(first, block, apart), blocks: 1, apart }
    }

    /// Sums over the input channels of product `e` for `size` tiles from the unit's tile `t`.
    fn sums(
        &self,
        b: &mut Builder,
        e: Val,
        t: Val,
        weights: &[Val],
        size: usize,
        ahead: Option<Ahead>,
    ) -> Vec<Val> {
        let zero = b.zero(Ty::vec(Elem::F32, self.lanes));
        let tile = b.add(self.input_first, t);
        let origin = b.i64(0);
        let from = self.input.at(b, e, origin, tile);
        let apart = b.mul(self.input.tiles, BLOCK);
        let steps = |b: &mut Builder, block: Val, width: i64, acc: &[Val]| {
            let from = b.at(from, block, apart);
            let k = b.mul(block, BLOCK * BLOCK);
            let starts: Vec<Val> = weights.iter().map(|w| b.add(*w, k)).collect();
            let a = |b: &mut Builder, c: Val, i: usize| {
                let at = b.add(from, c);
                let at = b.add(at, i as i64 * BLOCK);
                b.load(self.input.buf, at, 1)
            };
            let bv = |b: &mut Builder, c: Val, i: usize| {
                if let (Some(next), 0) = (&ahead, i) {
                    let at = b.add(next.first, k);
                    let at = b.at(at, c, BLOCK);
                    for block in 0..next.blocks {
                        let at = b.add(at, block * next.apart);
                        b.prefetch(self.w, at);
                    }
                }
                let at = b.at(starts[i], c, BLOCK);
                b.load(self.w, at, self.lanes)
            };
            let range = (b.i64(0), b.i64(width));
            let (nv, lanes) = (weights.len(), self.lanes);
            Tile { rows: size, nv, lanes, elem: Elem::F32, k: range, a: &a, b: &bv }
                .emit(b, Some(acc.to_vec()))
        };
        let (whole, rest) = (self.p.cg / BLOCK, self.p.cg % BLOCK);
        let init = vec![zero; size * weights.len()];
        let mut acc = b.for_(0, whole, 1, &init, |b, block, acc| steps(b, block, BLOCK, acc));
        if rest > 0 {
            let block = b.i64(whole);
            acc = steps(b, block, rest, &acc);
        }
        acc
    }

    /// Transforms the products of tile `t` of the unit back and finishes its results.
    fn back(&self, b: &mut Builder, (block, blocks): (Val, Val), first: Val, t: Val) {
        let p = self.p;
        let lanes = i64::from(self.lanes);
        let [m0, m1] = self.f.outputs();
        let tile = b.add(first, t);
        let (ty, tx) = b.div_rem(tile, self.across);
        let corner = [b.mul(ty, m0), b.mul(tx, m1)];
        let vectors = b.mul(blocks, BLOCK / lanes);
        b.loop_(0, vectors, 1, |b, v| {
            let channel = b.mul(v, lanes);
            let m: Vec<Val> = (0..self.f.products())
                .map(|e| {
                    let at = b.add(t, e * self.chunk());
                    let at = b.mul(at, self.wide * BLOCK);
                    let at = b.add(at, channel);
                    b.load(self.products, at, self.lanes)
                })
                .collect();
            let y = both_ways(b, self.f.axes, &m, Axis::output);
            let own = b.div_const(channel, BLOCK);
            let off = b.and(channel, BLOCK - 1);
            let own = b.add(block, own);
            let channel = b.at(off, own, BLOCK);
            let channels = b.i64(p.mg);
            let mask = channel_mask(b, self.lanes, channel, channels);
            let channel = b.at(channel, self.group, p.mg);
            let bias = self.bias.map(|buf| b.load_opt(buf, channel, self.lanes, mask));
            let plane = b.add(self.plane, own);
            let place = b.at(corner[0], plane, self.output[0]);
            for i in 0..m0 {
                let row = b.add(corner[0], i);
                let ok = self.within(b, 0, row);
                b.when(ok, |b| {
                    let row = b.add(place, i);
                    let line = b.at(corner[1], row, self.output[1]);
                    for j in 0..m1 {
                        let column = b.add(corner[1], j);
                        let ok = self.within(b, 1, column);
                        b.when(ok, |b| {
                            let at = b.add(line, j);
                            let index = b.at(off, at, BLOCK);
                            let mut sum = y[(i * m1 + j) as usize];
                            if let Some(bias) = bias {
                                sum = b.fadd(sum, bias);
                            }
                            let channels = Channels { first: channel, mask };
                            self.e.finish_channels(b, self.epi, sum, index, &channels);
                        });
                    }
                });
            }
        });
    }

    /// Whether the result has a position `at` of a tile along axis `a`.
    fn within(&self, b: &mut Builder, a: usize, at: Val) -> Val {
        let tile = self.f.outputs()[a];
        match self.p.output[a].as_const().is_some_and(|n| n % tile == 0) {
            true => b.int(Ty::BOOL, 1),
            false => b.cmp(CmpOp::Slt, at, self.output[a]),
        }
    }
}
