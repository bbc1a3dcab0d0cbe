//! Layers with packed weights: hidden units side by side, steps one after the other.
//!
//! The parallel axis counts, round after round, tiles of hidden units of each direction. A tile does all gates of its units, for
//! every batch entry, so that a round needs of others only the states of the round before: those are kept twice, and steps take
//! turns. The first round sets the states. A GRU whose reset gate applies before the product takes two rounds a step.
//!
//! Every second step goes through the tiles backwards, see [`swept`]. Weights that are [mostly zero](super::lists) are listed.

use super::cell::{CellMath, Lanes};
use super::feed::{Back, Packed};
use super::lists::Walk;
use super::shape::Shape;
use super::tiles::{Rows, Tile, in_rounds, swept};
use crate::kernel::{Access, Buf, Builder, CmpOp, Elem, Ty, Val};
use crate::lower::contraction::in_pieces;
use crate::lower::cx::{LowerCx, Opnd};
use crate::lower::elem::load;
use crate::lower::launch::Launch;
use crate::lower::layout::BLOCK;
use planish_ir::op::recurrent::{Cell, Direction, Recurrent};
use planish_ir::{DType, Diag, Dim};

/// Multiplications that cost as much as one basic operation of [`Launch::cost`].
const PRODUCTS_PER_OP: i64 = 2;

/// The operands and results of a layer.
pub(super) struct Layer<'a> {
    pub(super) op: &'a Recurrent,
    /// Steps and batch.
    pub(super) dims: [Dim; 2],
    pub(super) packed: Packed,
    /// Bias, lengths, first h, first c, peepholes.
    pub(super) opt: [Option<Opnd>; 5],
    /// All h, the last h, the last c.
    pub(super) outs: Vec<Option<Opnd>>,
}

/// Emits the steps of a layer.
pub(super) fn steps(cx: &mut LowerCx<'_>, l: Layer<'_>) -> Result<(), Diag> {
    let Layer { op, dims: [steps, batch], packed: Packed { fed, back, bias, shape }, opt, outs } = l;
    let (h, dirs) = (Dim::from(shape.h), Dim::from(shape.dirs));
    let groups = shape.groups.len() as i64;
    let state = [dirs.clone(), batch.clone(), h.clone()];
    let hidden = cx.temp(DType::F32, &[2.into(), dirs, batch.clone(), h]);
    // The cell state of an LSTM; the scaled state of a GRU.
    let spare = (op.cell == Cell::Lstm || groups > 1).then(|| cx.temp(DType::F32, &state));
    // The update gate of a GRU between two rounds.
    let update = (groups > 1).then(|| cx.temp(DType::F32, &state));
    let rounds = steps.mul(&groups.into()).add(&1.into());
    let all = Dim::from(shape.all());
    let rows = op.gates() as i64 * shape.h;
    let (label, weights, lists, products) = match &back {
        Back::Rows(all) => (op.cell.name().to_owned(), all, None, shape.dirs * rows * shape.h),
        Back::Lists(cut, kept) => {
            (format!("{}_sparse", op.cell.name()), &kept.values, Some((*cut, kept)), cut.products(kept))
        }
    };
    let of_unit = match lists {
        None => rows * shape.width,
        Some(_) => products / shape.all() + op.gates() as i64 * shape.width,
    };
    let cost = batch.mul(&of_unit.into()).floor_div(&(PRODUCTS_PER_OP * groups).into());
    let flops = steps.mul(&batch).mul(&(2 * products).into());
    let mut launch = Launch::new(&label).read(&fed).read(weights).raw(&hidden, Elem::F32, Access::ReadWrite);
    for t in [&spare, &update].into_iter().flatten() {
        launch = launch.raw(t, Elem::F32, Access::ReadWrite);
    }
    for o in opt.iter().chain([&bias]).flatten() {
        launch = launch.read(o);
    }
    for o in outs.iter().flatten() {
        launch = launch.write(o);
    }
    let list = lists.map(|(_, l)| [l.starts.clone(), l.index.clone()]);
    for l in list.iter().flatten() {
        launch = launch.read(l);
    }
    let launch = launch.dim(&steps).dim(&batch).extent(rounds.mul(&all)).rounds(all).cost(cost).flops(flops);
    let there: Vec<bool> =
        [&spare, &update].into_iter().chain(&opt).chain([&bias]).chain(&outs).map(Option::is_some).collect();
    cx.launch(launch, |k| {
        let mut next = 2;
        let mut buf = |there: &bool| {
            there.then(|| {
                next += 1;
                k.buf(next)
            })
        };
        let bufs: Vec<Option<Buf>> = there.iter().map(&mut buf).collect();
        let lanes = k.lanes(Elem::F32).min(BLOCK as u16);
        let most = usize::from(k.target.registers);
        let walk = lists.map(|(cut, _)| {
            let [starts, index] = [0, 1].map(|i| k.buf(next + 1 + i));
            Walk { cut, lists: [starts, index, k.buf(1)], lanes, registers: most }
        });
        let plan = match &walk {
            None => Tile::new(&shape, lanes, most, batch.as_const()),
            Some(walk) => walk.cut.tile(&shape, lanes, most, batch.as_const()),
        };
        let sums = k.b.local("sums", Elem::F32, plan.sums as u32);
        let h = k.b.i64(shape.h);
        let u = Units {
            shape: &shape,
            tile: plan,
            math: CellMath { op, d: DType::F32, lanes, h, bias: bufs[2], peep: bufs[6] },
            fed: k.buf(0),
            weights: k.buf(1),
            walk,
            hidden: k.buf(2),
            spare: bufs[0],
            update: bufs[1],
            lens: bufs[3],
            first: [bufs[4], bufs[5]],
            sum_bias: bufs[7],
            all: bufs[8],
            last: [bufs[9], bufs.get(10).copied().flatten()],
            sums,
            steps: k.dim(0),
            batch: k.dim(1),
            known_batch: batch.as_const(),
        };
        k.b.parallel_for(|b, unit| u.unit(b, unit));
    })
}

struct Units<'a> {
    shape: &'a Shape,
    tile: Tile,
    math: CellMath<'a>,
    fed: Buf,
    weights: Buf,
    /// The lists of which the weights are, if they are not all there.
    walk: Option<Walk>,
    /// `[2][directions][batch][h]`
    hidden: Buf,
    spare: Option<Buf>,
    update: Option<Buf>,
    lens: Option<Buf>,
    first: [Option<Buf>; 2],
    /// Biases that are not yet in what was fed.
    sum_bias: Option<Buf>,
    all: Option<Buf>,
    last: [Option<Buf>; 2],
    /// Of the gates of a round, for some batch entries.
    sums: Buf,
    steps: Val,
    batch: Val,
    known_batch: Option<i64>,
}

/// A round of a step at a tile.
#[derive(Clone, Copy)]
struct At {
    /// The step.
    s: Val,
    dir: Val,
    /// The first unit.
    row: Val,
    /// The tile among those of all directions.
    tile: Val,
}

/// A vector of units of one batch entry.
#[derive(Clone, Copy)]
struct Place {
    lanes: Lanes,
    /// In a state.
    state: Val,
    /// In the sums, of the first gate.
    sums: Val,
    /// In what was fed, of the first gate.
    fed: Val,
}

impl Units<'_> {
    fn unit(&self, b: &mut Builder, unit: Val) {
        let step = |b: &mut Builder, s: Val, tile: Val, g: usize| {
            let tile = swept(b, self.shape.all(), tile, s);
            let (dir, row) = self.dir_row(b, tile);
            self.round(b, At { s, dir, row, tile }, g);
        };
        let rounds = self.shape.groups.len();
        in_rounds(b, unit, (self.shape.all(), rounds), |b, tile| self.start(b, tile), step);
    }

    /// The direction and the first unit of a tile.
    fn dir_row(&self, b: &mut Builder, tile: Val) -> (Val, Val) {
        let dir = if self.shape.dirs == 1 { b.i64(0) } else { b.div_const(tile, self.shape.tiles) };
        let before = b.mul(dir, self.shape.tiles);
        let in_dir = b.sub(tile, before);
        (dir, b.mul(in_dir, self.shape.width))
    }

    /// Where entry `n` of the direction begins in a state.
    fn state(&self, b: &mut Builder, dir: Val, n: Val) -> Val {
        let entry = b.at(n, dir, self.batch);
        b.mul(entry, self.shape.h)
    }

    /// The steps of entry `n`.
    fn len(&self, b: &mut Builder, n: Val) -> Val {
        let Some(lens) = self.lens else { return self.steps };
        let len = load(b, DType::I32, lens, n, 1, None);
        let len = b.sext(len, Elem::I64);
        let len = b.smin(len, self.steps);
        b.smax(len, 0)
    }

    /// Sets the states of a tile.
    fn start(&self, b: &mut Builder, tile: Val) {
        let (dir, row) = self.dir_row(b, tile);
        let lanes = self.math.lanes;
        let end = b.add(row, self.shape.width);
        let end = b.smin(end, self.shape.h);
        let cell = (self.math.op.cell == Cell::Lstm).then_some(self.spare).flatten();
        let may_be_empty = self.lens.is_some() || b.known_int(self.steps).is_none_or(|n| n == 0);
        b.loop_(0, self.batch, 1, |b, n| {
            let state = self.state(b, dir, n);
            let len = self.len(b, n);
            let empty = b.cmp(CmpOp::Eq, len, 0);
            for ((to, from), last) in [Some(self.hidden), cell].into_iter().zip(self.first).zip(self.last) {
                let Some(to) = to else { continue };
                b.for_lanes(row, end, lanes, |b, i, mask| {
                    let at = b.add(state, i);
                    let v = match from {
                        Some(from) => b.load_opt(from, at, lanes, mask),
                        None => b.zero(Ty::vec(Elem::F32, lanes)),
                    };
                    b.store_opt(to, at, v, mask);
                    if let (Some(last), true) = (last, may_be_empty) {
                        b.when(empty, |b| b.store_opt(last, at, v, mask));
                    }
                });
            }
        });
    }

    /// Round `g` of a step.
    fn round(&self, b: &mut Builder, at: At, g: usize) {
        let (gates, lanes) = (self.shape.groups[g].len() as i64, i64::from(self.math.lanes));
        let per = self.tile.vectors * lanes;
        let turn = b.and(at.s, 1);
        let turn = b.mul(turn, self.batch);
        let side = b.mul(turn, self.shape.dirs * self.shape.h);
        let first = b.mul(at.tile, self.shape.tile_len(g, self.shape.h));
        let first = b.add(first, self.shape.base(g, self.shape.h));
        in_pieces(b, self.batch, self.known_batch, self.tile.entries, |b, from, count| {
            b.loop_(0, self.shape.width, per, |b, off| {
                let weights = b.add(first, off);
                let starts: Vec<Val> = (0..count as i64)
                    .map(|e| {
                        let n = b.add(from, e);
                        let state = self.state(b, at.dir, n);
                        if g == 0 { b.add(state, side) } else { state }
                    })
                    .collect();
                let v = if g == 0 { self.hidden } else { self.spare.unwrap_or(self.hidden) };
                match &self.walk {
                    Some(walk) => walk.product(b, (self.shape, g, at.tile), (v, &starts), self.sums),
                    None => {
                        let (vectors, width) = (self.tile.vectors, self.shape.width);
                        let cut = Rows { gates, of: gates, vectors, width, lanes: self.math.lanes };
                        cut.product(b, (self.weights, weights), self.shape.h, (v, &starts), self.sums);
                    }
                }
                b.loop_(0, count as i64, 1, |b, e| {
                    let n = b.add(from, e);
                    let sums = b.mul(e, gates * per);
                    let row = b.add(at.row, off);
                    self.entry(b, At { row, ..at }, g, (n, sums), side);
                });
            });
        });
    }

    /// What follows the product of round `g` at entry `n`, whose sums begin at `sums`.
    fn entry(&self, b: &mut Builder, at: At, g: usize, (n, sums): (Val, Val), side: Val) {
        let (h, dirs, lanes) = (self.shape.h, self.shape.dirs, i64::from(self.math.lanes));
        let len = self.len(b, n);
        let back = b.sub(len, 1);
        let back = b.sub(back, at.s);
        let t = match self.math.op.direction {
            Direction::Forward => at.s,
            Direction::Reverse => back,
            Direction::Both => {
                let reverse = b.cmp(CmpOp::Sgt, at.dir, 0);
                b.select(reverse, back, at.s)
            }
        };
        let state = self.state(b, at.dir, n);
        let place = b.at(n, t, self.batch);
        let fed = b.at(at.dir, place, dirs);
        let fed = b.mul(fed, h * self.math.op.gates() as i64);
        let vectors = |b: &mut Builder, body: &mut dyn FnMut(&mut Builder, Val, Val, Option<Val>)| {
            b.loop_(0, self.tile.vectors * lanes, lanes, |b, o| {
                let i = b.add(at.row, o);
                let inside = b.cmp(CmpOp::Slt, i, h);
                let mut some = |b: &mut Builder| {
                    let mask = (h % lanes != 0).then(|| {
                        let left = b.sub(h, i);
                        b.mask_below(self.math.lanes, left)
                    });
                    body(b, i, o, mask);
                };
                if h % self.shape.width == 0 { some(b) } else { b.when(inside, some) }
            });
        };
        let next = b.add(at.s, 1);
        let ends = b.cmp(CmpOp::Eq, next, len);
        let to_side = b.mul(self.batch, dirs * h);
        let to_side = b.sub(to_side, side);
        let step = |b: &mut Builder| {
            vectors(b, &mut |b, i, o, mask| {
                let lanes = Lanes { dir: at.dir, i, mask };
                let p = Place { lanes, state: b.add(state, i), sums: b.add(sums, o), fed: b.add(fed, i) };
                let old = b.add(p.state, side);
                let Some([hidden, cell]) = self.cell(b, p, g, old) else { return };
                let to = b.add(p.state, to_side);
                b.store_opt(self.hidden, to, hidden, mask);
                if let Some(all) = self.all {
                    let to = self.result(b, t, at.dir, n, i);
                    b.store_opt(all, to, hidden, mask);
                }
                if self.last.iter().any(Option::is_some) {
                    b.when(ends, |b| {
                        for (to, v) in self.last.into_iter().zip([hidden, cell]) {
                            if let Some(to) = to {
                                b.store_opt(to, p.state, v, mask);
                            }
                        }
                    });
                }
            });
            vec![]
        };
        if self.lens.is_none() {
            step(b);
            return;
        }
        let live = b.cmp(CmpOp::Slt, at.s, len);
        b.if_(live, step, |b| {
            // Behind the end of a sequence.
            if let (Some(all), true) = (self.all, g + 1 == self.shape.groups.len()) {
                let zero = b.zero(Ty::vec(Elem::F32, self.math.lanes));
                vectors(b, &mut |b, i, _, mask| {
                    let to = self.result(b, at.s, at.dir, n, i);
                    b.store_opt(all, to, zero, mask);
                });
            }
            vec![]
        });
    }

    /// Where unit `i` of entry `n` goes in the result of all steps.
    fn result(&self, b: &mut Builder, t: Val, dir: Val, n: Val, i: Val) -> Val {
        let at = b.at(dir, t, self.shape.dirs);
        let at = b.at(n, at, self.batch);
        b.at(i, at, self.shape.h)
    }

    /// What gate `k` gets from the recurrence, as gate `j` of its round, and from the input.
    fn parts(&self, b: &mut Builder, p: Place, (j, k): (i64, i64)) -> (Val, Val) {
        let lanes = self.math.lanes;
        let from = b.add(p.sums, j * self.tile.vectors * i64::from(lanes));
        let back = b.load(self.sums, from, lanes);
        let from = b.add(p.fed, k * self.shape.h);
        let mut fed = b.load_opt(self.fed, from, lanes, p.lanes.mask);
        if let Some(bias) = self.sum_bias {
            let row = b.add(p.lanes.i, k * self.shape.h);
            let rows = self.math.op.gates() as i64 * self.shape.h;
            let from = b.at(row, p.lanes.dir, rows);
            let bias = b.load_opt(bias, from, lanes, p.lanes.mask);
            fed = b.fadd(fed, bias);
        }
        (back, fed)
    }

    fn gate(&self, b: &mut Builder, p: Place, k: i64) -> Val {
        let (back, fed) = self.parts(b, p, (k, k));
        b.fadd(back, fed)
    }

    /// The new states of a vector of units, or `None` after the first of two rounds. `old` is the place of the old h.
    fn cell(&self, b: &mut Builder, p: Place, g: usize, old: Val) -> Option<[Val; 2]> {
        let (lanes, mask, dir) = (self.math.lanes, p.lanes.mask, p.lanes.dir);
        match (self.math.op.cell, self.spare, self.update) {
            (Cell::Rnn, ..) => {
                let v = self.gate(b, p, 0);
                let v = self.math.act(b, dir, 0, v);
                Some([v, v])
            }
            (Cell::Lstm, spare, _) => {
                let cell = spare?;
                let c = b.load_opt(cell, p.state, lanes, mask);
                let (h, c) = self.math.lstm(b, p.lanes, c, |b, k| self.gate(b, p, k));
                b.store_opt(cell, p.state, c, mask);
                Some([h, c])
            }
            (Cell::Gru, Some(scaled), Some(update)) => {
                let h = b.load_opt(self.hidden, old, lanes, mask);
                if g == 0 {
                    let r = self.gate(b, p, 1);
                    let r = self.math.act(b, dir, 0, r);
                    let v = b.fmul(r, h);
                    b.store_opt(scaled, p.state, v, mask);
                    let z = self.gate(b, p, 0);
                    let z = self.math.act(b, dir, 0, z);
                    b.store_opt(update, p.state, z, mask);
                    return None;
                }
                let z = b.load_opt(update, p.state, lanes, mask);
                let parts = self.parts(b, p, (0, 2));
                let h = self.math.gru(b, p.lanes, (h, z), parts, None);
                Some([h, h])
            }
            (Cell::Gru, ..) => {
                let h = b.load_opt(self.hidden, old, lanes, mask);
                let z = self.gate(b, p, 0);
                let z = self.math.act(b, dir, 0, z);
                let r = self.gate(b, p, 1);
                let r = self.math.act(b, dir, 0, r);
                let parts = self.parts(b, p, (2, 2));
                let h = self.math.gru(b, p.lanes, (h, z), parts, Some(r));
                Some([h, h])
            }
        }
    }
}
