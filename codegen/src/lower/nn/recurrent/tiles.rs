//! Tiles of hidden units: how a target cuts them, the order in which they are done, and their products.

use super::shape::Shape;
use crate::kernel::{Buf, Builder, CmpOp, Elem, Ty, Val};

/// How a target cuts tiles.
pub(super) struct Tile {
    /// Vectors of a gate at a time.
    pub(super) vectors: i64,
    /// Batch entries at a time.
    pub(super) entries: usize,
    /// Sums at a time.
    pub(super) sums: i64,
}

impl Tile {
    pub(super) fn new(shape: &Shape, lanes: u16, registers: usize, batch: Option<i64>) -> Tile {
        let gates = shape.groups.iter().map(Vec::len).max().unwrap_or(1) as i64;
        let lanes = i64::from(lanes);
        let mut vectors = shape.width / lanes;
        while vectors > 1 && vectors * gates > 8 {
            vectors /= 2;
        }
        // Sums, one weight, and a value of each entry.
        let fits = |n: usize| (vectors * gates) as usize * n + n < registers;
        let most = batch.map_or(6, |b| b.clamp(1, 6) as usize);
        let entries = (1..=most).rev().find(|&n| fits(n)).unwrap_or(1);
        Tile { vectors, entries, sums: vectors * gates * entries as i64 * lanes }
    }
}

/// What unit `unit` of the parallel axis does of a layer of `tiles` tiles and `rounds` rounds a step: `start` in the first round, then
/// `round(step, tile, round of the step)`.
pub(super) fn in_rounds(
    b: &mut Builder,
    unit: Val,
    (tiles, rounds): (i64, usize),
    start: impl FnOnce(&mut Builder, Val),
    round: impl Fn(&mut Builder, Val, Val, usize),
) {
    let which = b.div_const(unit, tiles);
    let before = b.mul(which, tiles);
    let tile = b.sub(unit, before);
    let first = b.cmp(CmpOp::Eq, which, 0);
    b.if_(
        first,
        |b| {
            start(b, tile);
            vec![]
        },
        |b| {
            let r = b.sub(which, 1);
            let s = b.div_const(r, rounds as i64);
            let before = b.mul(s, rounds as i64);
            let g = b.sub(r, before);
            for k in 0..rounds {
                if rounds == 1 {
                    round(b, s, tile, k);
                } else {
                    let mine = b.cmp(CmpOp::Eq, g, k as i64);
                    b.when(mine, |b| round(b, s, tile, k));
                }
            }
            vec![]
        },
    );
}

/// The tile that stands for `tile` at turn `turn`: every second turn goes through the tiles backwards, so that weights that exceed a cache
/// are met again while a part of them is still in it.
pub(super) fn swept(b: &mut Builder, tiles: i64, tile: Val, turn: Val) -> Val {
    let back = b.sub(tiles - 1, tile);
    let odd = b.and(turn, 1);
    let odd = b.cmp(CmpOp::Ne, odd, 0);
    b.select(odd, back, tile)
}

/// Rows of packed weights: `vectors` vectors of each gate, `width` units apart.
pub(super) struct Rows {
    pub(super) gates: i64,
    /// Gates of the tile, whose weights lie in a row.
    pub(super) of: i64,
    pub(super) vectors: i64,
    pub(super) width: i64,
    pub(super) lanes: u16,
}

impl Rows {
    /// The products of the rows, from element `first` of `m` on, with the `depth` numbers that begin at each of `starts` of `v`. They go
    /// to `to`, entry by entry. Numbers are added up in their order, whatever the target.
    pub(super) fn product(
        &self,
        b: &mut Builder,
        (m, first): (Buf, Val),
        depth: i64,
        (v, starts): (Buf, &[Val]),
        to: Buf,
    ) {
        let (lanes, each) = (self.lanes, self.gates * self.vectors);
        let row_len = self.of * self.width;
        let count = each as usize * starts.len();
        // Multiplications of a turn of the loop: few enough for the registers.
        let turns = [4, 2].into_iter().find(|&n| depth % n == 0 && count as i64 * n <= 48).unwrap_or(1);
        let zero = b.zero(Ty::vec(Elem::F32, lanes));
        let acc = b.for_(0, depth, turns, &vec![zero; count], |b, k, acc| {
            let mut acc = acc.to_vec();
            for turn in 0..turns {
                let k = b.add(k, turn);
                let values: Vec<Val> = starts
                    .iter()
                    .map(|start| {
                        let from = b.add(*start, k);
                        let x = b.load(v, from, 1);
                        b.splat(x, lanes)
                    })
                    .collect();
                let row = b.at(first, k, row_len);
                for p in 0..each {
                    let (gate, vector) = (p / self.vectors, p % self.vectors);
                    let from = b.add(row, gate * self.width + vector * i64::from(lanes));
                    let w = b.load(m, from, lanes);
                    for (e, x) in values.iter().enumerate() {
                        let a = &mut acc[e * each as usize + p as usize];
                        *a = b.fma(w, *x, *a);
                    }
                }
            }
            acc
        });
        for (i, v) in acc.into_iter().enumerate() {
            b.store(to, i as i64 * i64::from(lanes), v);
        }
    }
}
