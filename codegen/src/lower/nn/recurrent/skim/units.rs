//! Layers that skim with packed weights, step by step as layers that do not: hidden units side by side, each tile all gates of its units.
//!
//! A step begins with a round in which rows of the batch decide; what skims does so there. In the rounds that follow, tiles of units do
//! the rows that read: their weights of the input are read then, not before, as most steps may not need them. Sums are added up in
//! the order of a layer that does not skim, so that one that reads everything gives the same bits.
//!
//! For a batch of one row a step that reads takes from the input what the next steps may need as well: a product of few rows waits for its
//! weights, so that it costs little more for some rows than for one. How many pays depends on how many will read, and on where the
//! weights come from.

mod ahead;
mod entry;

use super::super::super::fold_lanes;
use super::super::cell::CellMath;
use super::super::shape::Shape;
use super::super::tiles::{Rows, Tile, in_rounds, swept};
use super::feed::{Cut, Packed};
use super::{Layer, number};
use crate::kernel::{Access, BinOp, Buf, Builder, CmpOp, Elem, Ty, Val};
use crate::lower::contraction::in_pieces;
use crate::lower::cx::{LowerCx, Opnd};
use crate::lower::launch::Launch;
use crate::lower::layout::BLOCK;
use crate::math;
use entry::Place;
use planish_ir::op::recurrent::Cell;
use planish_ir::op::recurrent::skim::SkimRecurrent;
use planish_ir::{DType, Diag, Dim};

/// Multiplications that cost as much as one basic operation of [`Launch::cost`].
const PRODUCTS_PER_OP: i64 = 2;

/// Emits the steps of a layer.
pub(super) fn steps(cx: &mut LowerCx<'_>, l: &Layer<'_>, p: &Packed, skipped: &Opnd) -> Result<(), Diag> {
    let [steps, batch, ..] = &l.sizes;
    let [inputs, h, _] = p.sizes;
    let (op, plain) = (l.op, l.op.plain());
    let groups = p.big.shape.groups.len();
    let state = [batch.clone(), h.into()];
    let tiles = Dim::from(p.big.shape.all());
    let hidden = cx.temp(DType::F32, &[2.into(), batch.clone(), h.into()]);
    let flags = cx.temp(DType::I64, std::slice::from_ref(batch));
    let list = cx.temp(DType::I64, &[tiles.clone(), batch.clone()]);
    // The cell state of an LSTM; the scaled state of a GRU.
    let spare = (op.cell == Cell::Lstm || groups > 1).then(|| cx.temp(DType::F32, &state));
    // The update gate of a GRU between two rounds.
    let update = (groups > 1).then(|| cx.temp(DType::F32, &state));
    let kept = ahead::Kept::new(cx, batch, &p.big.shape);
    let outs = l.outputs(cx)?;
    let mut launch = Launch::new("skim").read(&l.x).read(&p.fed).read(&p.big.back).read(&p.input);
    launch = launch.read(&p.predictor).raw(&hidden, Elem::F32, Access::ReadWrite);
    for t in [&flags, &list, skipped] {
        launch = launch.raw(t, Elem::I64, Access::ReadWrite);
    }
    let optional = [
        p.bias.as_ref(),
        p.big.given.as_ref(),
        p.small.as_ref().map(|s| &s.back),
        p.small.as_ref().and_then(|s| s.given.as_ref()),
        l.first[0].as_ref(),
        l.first[1].as_ref(),
        l.theta.as_ref(),
    ];
    let (sums, ends) = (kept.as_ref().map(|k| &k.sums), kept.as_ref().map(|k| &k.ends));
    let scratch =
        [(spare.as_ref(), Elem::F32), (update.as_ref(), Elem::F32), (sums, Elem::F32), (ends, Elem::I64)];
    for o in optional.into_iter().flatten() {
        launch = launch.read(o);
    }
    for (o, elem) in scratch {
        if let Some(o) = o {
            launch = launch.raw(o, elem, Access::ReadWrite);
        }
    }
    for o in outs.iter().flatten() {
        launch = launch.write(o);
    }
    let rounds = steps.mul(&Dim::from(groups + 1)).add(&1.into());
    let per_unit = plain.gates() as i64 * (h + inputs);
    let cost = per_unit * p.big.shape.width / (PRODUCTS_PER_OP * groups as i64);
    let flops = steps.mul(batch).mul(&(2 * per_unit * h).into());
    let launch = launch.dim(steps).dim(batch).extent(rounds.mul(&tiles)).rounds(tiles);
    let launch = launch.cost(batch.mul(&cost.into())).flops(flops);
    let there: Vec<bool> = optional
        .iter()
        .map(Option::is_some)
        .chain(scratch.iter().map(|o| o.0.is_some()))
        .chain(outs.iter().map(Option::is_some))
        .collect();
    let theta = l.theta.as_ref().map(|t| t.dtype);
    cx.launch(launch, |k| {
        let mut next = 8;
        let mut buf = |there: &bool| {
            next += i32::from(*there) as usize;
            there.then(|| k.buf(next))
        };
        let bufs: Vec<Option<Buf>> = there.iter().map(&mut buf).collect();
        let lanes = k.lanes(Elem::F32).min(BLOCK as u16);
        let registers = usize::from(k.target.registers);
        let cell = |b: &mut Builder, cut: &'_ Cut, back: Buf, given: Option<Buf>| One {
            tile: Tile::new(&cut.shape, lanes, registers, batch.as_const()),
            math: CellMath {
                op: &plain,
                d: DType::F32,
                lanes,
                h: b.i64(cut.shape.h),
                bias: given,
                peep: None,
            },
            back,
        };
        let back = k.buf(2);
        let big = cell(&mut k.b, &p.big, back, bufs[1]);
        let small = match (&p.small, bufs[2]) {
            (Some(cut), Some(back)) => Some((cell(&mut k.b, cut, back, bufs[3]), &cut.shape)),
            _ => None,
        };
        let sums = big.tile.sums.max(small.as_ref().map_or(0, |s| s.0.tile.sums));
        let taken = sums.max(ahead::STEPS * plain.gates() as i64 * BLOCK);
        let s = Skim {
            op,
            shape: &p.big.shape,
            sizes: p.sizes,
            columns: p.columns,
            big,
            small,
            x: k.buf(0),
            fed: k.buf(1),
            input: k.buf(3),
            predictor: k.buf(4),
            hidden: k.buf(5),
            flags: k.buf(6),
            list: k.buf(7),
            skipped: k.buf(8),
            bias: bufs[0],
            first: [bufs[4], bufs[5]],
            theta: bufs[6].zip(theta),
            spare: bufs[7],
            update: bufs[8],
            kept: bufs[9].zip(bufs[10]),
            registers,
            all: bufs[11],
            last: [bufs[12], bufs[13]],
            probabilities: bufs[14],
            sums: k.b.local("sums", Elem::F32, sums as u32),
            taken: k.b.local("taken", Elem::F32, taken as u32),
            steps: k.dim(0),
            batch: k.dim(1),
        };
        let rounds = (s.shape.all(), 1 + s.shape.groups.len());
        let step = |b: &mut Builder, t: Val, tile: Val, round: usize| match round {
            0 => s.decide(b, t, tile),
            round => s.read(b, t, tile, round - 1),
        };
        k.b.parallel_for(|b, unit| in_rounds(b, unit, rounds, |b, tile| s.start(b, tile), step));
    })
}

/// A cell.
struct One<'a> {
    tile: Tile,
    math: CellMath<'a>,
    back: Buf,
}

struct Skim<'a> {
    op: &'a SkimRecurrent,
    shape: &'a Shape,
    /// Inputs, units, units of the small cell.
    sizes: [i64; 3],
    columns: i64,
    big: One<'a>,
    small: Option<(One<'a>, &'a Shape)>,
    x: Buf,
    fed: Buf,
    input: Buf,
    predictor: Buf,
    /// `[2][batch][h]`
    hidden: Buf,
    /// Of each row whether it reads.
    flags: Buf,
    /// Of each tile the rows that read.
    list: Buf,
    skipped: Buf,
    bias: Option<Buf>,
    first: [Option<Buf>; 2],
    theta: Option<(Buf, DType)>,
    spare: Option<Buf>,
    update: Option<Buf>,
    /// What the input gives to some steps, and for each tile the step that it does not reach.
    kept: Option<(Buf, Buf)>,
    registers: usize,
    all: Option<Buf>,
    last: [Option<Buf>; 2],
    probabilities: Option<Buf>,
    /// Of the gates of a round, for some rows: what the state gives, and what the input gives.
    sums: Buf,
    taken: Buf,
    steps: Val,
    batch: Val,
}

/// A row of the batch at a step.
#[derive(Clone, Copy)]
struct At {
    /// Where it is in a state.
    state: Val,
    /// The old and the new h.
    old: Val,
    new: Val,
    /// The place of the step and the row in inputs and results.
    place: Val,
    /// Whether the step is the last one.
    ends: Val,
}

impl Skim<'_> {
    fn lanes(&self) -> u16 {
        self.big.math.lanes
    }
    fn at(&self, b: &mut Builder, t: Val, n: Val) -> At {
        let h = self.sizes[1];
        let state = b.mul(n, h);
        let turn = b.and(t, 1);
        let whole = b.mul(self.batch, h);
        let side = b.mul(turn, whole);
        let other = b.sub(whole, side);
        let next = b.add(t, 1);
        At {
            state,
            old: b.add(state, side),
            new: b.add(state, other),
            place: b.at(n, t, self.batch),
            ends: b.cmp(CmpOp::Eq, next, self.steps),
        }
    }

    /// Sets the states of a tile.
    fn start(&self, b: &mut Builder, tile: Val) {
        let (h, lanes) = (self.sizes[1], self.lanes());
        let row = b.mul(tile, self.shape.width);
        let end = b.add(row, self.shape.width);
        let end = b.smin(end, h);
        let cell = (self.op.cell == Cell::Lstm).then_some(self.spare).flatten();
        let empty = b.cmp(CmpOp::Eq, self.steps, 0);
        let may_be_empty = b.known_int(self.steps).is_none_or(|n| n == 0);
        let first = b.cmp(CmpOp::Eq, tile, 0);
        b.loop_(0, self.batch, 1, |b, n| {
            let state = b.mul(n, h);
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
            b.when(first, |b| {
                let none = b.i64(0);
                b.store(self.skipped, n, none);
            });
        });
        self.forget(b, tile);
    }

    /// The rows that tile `tile` decides about, and the steps of those that skim.
    fn decide(&self, b: &mut Builder, t: Val, tile: Val) {
        let [_, h, small] = self.sizes;
        let theta = number(b, self.theta, self.op.theta, DType::F32);
        b.loop_(tile, self.batch, self.shape.all(), |b, n| {
            let at = self.at(b, t, n);
            let units = b.i64(h);
            let zero = b.zero(Ty::vec(Elem::F32, self.lanes()));
            let sum = fold_lanes(b, units, self.lanes(), &[zero], |b, acc, i, mask| {
                let from = b.add(at.old, i);
                let v = b.load_opt(self.hidden, from, self.lanes(), mask);
                let w = b.load_opt(self.predictor, i, self.lanes(), mask);
                vec![b.fma(v, w, acc[0])]
            });
            let sum = b.reduce(BinOp::FAdd, sum[0]);
            let fed = b.mul(at.place, self.columns);
            let of_x = b.add(fed, small * self.op.plain().gates() as i64);
            let of_x = b.load(self.fed, of_x, 1);
            let score = b.fadd(sum, of_x);
            let p = math::sigmoid(b, score);
            if let Some(to) = self.probabilities {
                b.store(to, at.place, p);
            }
            let skips = b.cmp(CmpOp::FGt, p, theta);
            let reads = b.select(skips, 0, 1);
            b.store(self.flags, n, reads);
            b.when(skips, |b| {
                let count = b.load(self.skipped, n, 1);
                let count = b.add(count, 1);
                b.store(self.skipped, n, count);
                self.skim(b, at, fed);
            });
        });
    }

    /// A step that skims: the first units change, all others stay.
    fn skim(&self, b: &mut Builder, at: At, fed: Val) {
        let [_, h, units] = self.sizes;
        let lanes = self.lanes();
        let cell = (self.op.cell == Cell::Lstm).then_some(self.spare).flatten();
        b.for_lanes(units, h, lanes, |b, i, mask| {
            let from = b.add(at.old, i);
            let v = b.load_opt(self.hidden, from, lanes, mask);
            self.show(b, at, i, mask, v, &mut |b, at| match cell {
                Some(cell) => b.load_opt(cell, at, lanes, mask),
                None => v,
            });
        });
        let Some((one, shape)) = &self.small else { return };
        let (gates, per) = (self.op.plain().gates() as i64, one.tile.vectors * i64::from(lanes));
        for (g, group) in shape.groups.iter().enumerate() {
            b.loop_(0, shape.tiles, 1, |b, tile| {
                let weights = b.mul(tile, shape.tile_len(g, units));
                let weights = b.add(weights, shape.base(g, units));
                let row = b.mul(tile, shape.width);
                b.loop_(0, shape.width, per, |b, off| {
                    let first = b.add(weights, off);
                    let cut = self.cut(one, group.len(), shape);
                    let (v, start) = self.recurs(at, g);
                    cut.product(b, (one.back, first), units, (v, &[start]), self.sums);
                    let row = b.add(row, off);
                    let none = b.i64(0);
                    let given = |b: &mut Builder, p: Place, _: i64, k: i64| {
                        debug_assert!(k < gates);
                        let from = b.add(fed, k * units);
                        let from = b.add(from, p.lanes.i);
                        b.load_opt(self.fed, from, lanes, p.lanes.mask)
                    };
                    self.entry(b, (one, shape), g, (at, row, none), &given);
                });
            });
        }
    }

    fn cut(&self, one: &One<'_>, gates: usize, shape: &Shape) -> Rows {
        let (vectors, lanes) = (one.tile.vectors, self.lanes());
        Rows { gates: gates as i64, of: gates as i64, vectors, width: shape.width, lanes }
    }

    /// What the weights of the state are multiplied with in group `g` of gates, and where a row has it.
    fn recurs(&self, at: At, g: usize) -> (Buf, Val) {
        match self.spare {
            Some(scaled) if g > 0 => (scaled, at.state),
            _ => (self.hidden, at.old),
        }
    }

    /// Gates `g` of tile `tile`, of all rows that read.
    fn read(&self, b: &mut Builder, t: Val, tile: Val, g: usize) {
        let ([inputs, h, _], one, shape) = (self.sizes, &self.big, self.shape);
        let turn = match self.kept {
            // Steps that read take turns.
            Some(_) => {
                let skipped = b.load(self.skipped, 0, 1);
                b.sub(t, skipped)
            }
            None => t,
        };
        let tile = swept(b, shape.all(), tile, turn);
        let gates = shape.groups[g].len();
        let each = gates as i64 * one.tile.vectors * i64::from(self.lanes());
        let list = b.mul(tile, self.batch);
        let zero = b.i64(0);
        let count = b.for_(0, self.batch, 1, &[zero], |b, n, count| {
            let to = b.add(list, count[0]);
            b.store(self.list, to, n);
            let reads = b.load(self.flags, n, 1);
            vec![b.add(count[0], reads)]
        })[0];
        let at_depth = |b: &mut Builder, depth: i64| {
            let first = b.mul(tile, shape.tile_len(g, depth));
            b.add(first, shape.base(g, depth))
        };
        let (back, input) = (at_depth(b, h), at_depth(b, inputs));
        let row = b.mul(tile, shape.width);
        if let Some(kept) = self.kept {
            let some = b.cmp(CmpOp::Sgt, count, 0);
            b.when(some, |b| self.look_ahead(b, kept, (t, tile, g), input));
        }
        in_pieces(b, count, None, one.tile.entries, |b, from, size| {
            let first = b.add(list, from);
            b.loop_(0, shape.width, one.tile.vectors * i64::from(self.lanes()), |b, off| {
                let mut rows = Vec::new();
                for e in 0..size as i64 {
                    let at = b.add(first, e);
                    let n = b.load(self.list, at, 1);
                    rows.push(self.at(b, t, n));
                }
                let cut = self.cut(one, gates, shape);
                let starts: Vec<Val> = rows.iter().map(|at| self.recurs(*at, g).1).collect();
                let v = self.recurs(rows[0], g).0;
                let weights = b.add(back, off);
                cut.product(b, (one.back, weights), h, (v, &starts), self.sums);
                if self.kept.is_none() {
                    let starts: Vec<Val> = rows.iter().map(|at| b.mul(at.place, inputs)).collect();
                    let weights = b.add(input, off);
                    cut.product(b, (self.input, weights), inputs, (self.x, &starts), self.taken);
                }
                let row = b.add(row, off);
                b.loop_(0, size as i64, 1, |b, e| {
                    let at = b.add(first, e);
                    let n = b.load(self.list, at, 1);
                    let at = self.at(b, t, n);
                    let sums = b.mul(e, each);
                    let given = |b: &mut Builder, p: Place, j: i64, k: i64| {
                        let lanes = self.lanes();
                        let v = match self.kept {
                            Some(kept) => {
                                let k = b.i64(k);
                                self.recall(b, kept.0, t, (k, p.lanes.i))
                            }
                            None => {
                                let from = b.add(p.sums, j * one.tile.vectors * i64::from(lanes));
                                b.load(self.taken, from, lanes)
                            }
                        };
                        let Some(bias) = self.bias else { return v };
                        let from = b.add(p.lanes.i, k * h);
                        let bias = b.load_opt(bias, from, lanes, p.lanes.mask);
                        b.fadd(v, bias)
                    };
                    self.entry(b, (one, shape), g, (at, row, sums), &given);
                });
            });
        });
    }
}
