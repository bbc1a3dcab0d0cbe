//! Layers that skim, each row of the batch on its own. With noise a row computes both cells and mixes what they give.

use super::super::cell::CellMath;
use super::super::feed::{dots, row_bias};
use super::super::{At, Steps};
use super::{Layer, number};
use crate::kernel::{Access, Buf, Builder, CmpOp, Ty, Val};
use crate::lower::cx::{LowerCx, Opnd};
use crate::lower::elem::{compute_elem, load, store};
use crate::lower::launch::Launch;
use crate::math;
use planish_ir::op::recurrent::skim::SkimRecurrent;
use planish_ir::op::recurrent::{Cell, Recurrent};
use planish_ir::{DType, Diag, Dim};

/// Rows of weights at a time, none of them across two gates.
fn block(h: &Dim) -> i64 {
    if h.as_const().is_some_and(|h| h % 4 == 0) { 4 } else { 1 }
}

pub(super) fn steps(cx: &mut LowerCx<'_>, l: &Layer<'_>, skipped: &Opnd) -> Result<(), Diag> {
    let [steps, batch, inputs, h, small] = &l.sizes;
    let (op, plain) = (l.op, l.op.plain());
    let weights = (1..6).map(|i| cx.input(i)).collect::<Result<Vec<_>, _>>()?;
    let mut optional = Vec::new();
    for i in SkimRecurrent::BIASES.into_iter().chain([9, 10]) {
        optional.push(cx.opt_input(i)?);
    }
    for i in [SkimRecurrent::THETA, SkimRecurrent::NOISE, SkimRecurrent::TEMPERATURE] {
        optional.push(cx.opt_input(i)?);
    }
    let state = [batch.clone(), h.clone()];
    let rows = [batch.clone(), h.mul(&plain.gates().into())];
    let mixes = optional[6].is_some();
    let temps: Vec<Option<Opnd>> = [
        (true, &rows),
        (true, &rows),
        (true, &state),
        (true, &state),
        // What the small cell makes of the state where both are computed.
        (mixes, &state),
        (mixes, &state),
    ]
    .into_iter()
    .map(|(there, dims)| there.then(|| cx.temp(l.wide, dims)))
    .collect();
    let outs = l.outputs(cx)?;
    let elem = compute_elem(l.wide);
    let mut launch = Launch::new("skim").read(&l.x);
    for w in weights.iter().chain(optional.iter().flatten()) {
        launch = launch.read(w);
    }
    for t in temps.iter().flatten() {
        launch = launch.raw(t, elem, Access::ReadWrite);
    }
    for o in outs.iter().flatten() {
        launch = launch.write(o);
    }
    launch = launch.write(skipped);
    let cost = steps.mul(&rows[1]).mul(&h.add(inputs));
    let launch = launch.dim(steps).dim(batch).dim(inputs).dim(h).dim(small).extent(batch.clone());
    let launch = launch.cost(cost.clone()).flops(cost.mul(batch).mul(&2.into()));
    let types: Vec<Option<DType>> = optional.iter().map(|o| o.as_ref().map(|o| o.dtype)).collect();
    let there: Vec<bool> = temps.iter().chain(&outs).map(Option::is_some).collect();
    let blocks = [block(h), block(small)];
    let (d, wide) = (l.x.dtype, l.wide);
    cx.launch(launch, |k| {
        let mut next = 0;
        let mut buf = || {
            next += 1;
            k.buf(next - 1)
        };
        let x = buf();
        let weights: Vec<Buf> = (0..5).map(|_| buf()).collect();
        let optional: Vec<Option<(Buf, DType)>> = types.iter().map(|t| t.map(|t| (buf(), t))).collect();
        let rest: Vec<Option<Buf>> = there.iter().map(|t| t.then(&mut buf)).collect();
        let skipped = buf();
        let [steps, batch, inputs, h, small] = [0, 1, 2, 3, 4].map(|i| k.dim(i));
        let lanes = k.lanes(elem);
        let cell = |i: usize, h: Val, states: [Option<Buf>; 2]| -> Option<Steps<'_>> {
            let bias = optional[i].map(|b| b.0);
            Some(Steps {
                math: CellMath { op: &plain, d, lanes, h, bias, peep: None },
                elem,
                block: blocks[i],
                fed: rest[0]?,
                r: weights[2 * i + 1],
                hidden: states[0]?,
                spare: states[1]?,
                sums: rest[1]?,
                lens: None,
                first: [optional[3].map(|o| o.0), optional[4].map(|o| o.0)],
                all: None,
                last: [None, None],
                steps,
                batch,
                h,
            })
        };
        let own = [rest[2], rest[3]];
        let (Some(big), Some(small)) =
            (cell(0, h, own), cell(1, small, if mixes { [rest[4], rest[5]] } else { own }))
        else {
            return;
        };
        let s =
            Skim { op, plain: &plain, d, wide, x, inputs, weights, optional, big, small, outs: &rest[6..] };
        k.b.parallel_for(|b, n| {
            let count = s.unit(b, n);
            b.store(skipped, n, count);
        });
    })
}

struct Skim<'a> {
    op: &'a SkimRecurrent,
    plain: &'a Recurrent,
    d: DType,
    /// The type of states.
    wide: DType,
    x: Buf,
    inputs: Val,
    /// From `w` to the predictor.
    weights: Vec<Buf>,
    /// Three biases, first h, first c, theta, noise, temperature.
    optional: Vec<Option<(Buf, DType)>>,
    big: Steps<'a>,
    small: Steps<'a>,
    /// All h, the last h, the last c, the probabilities.
    outs: &'a [Option<Buf>],
}

impl Skim<'_> {
    /// All steps of row `n`; how many of them skim.
    fn unit(&self, b: &mut Builder, n: Val) -> Val {
        let (s, zero) = (&self.big, b.i64(0));
        let state = b.mul(n, s.h);
        let sums = b.mul(s.h, self.plain.gates() as i64);
        let sums = b.mul(n, sums);
        let at = At { dir: zero, state, sums, fed: sums };
        let states = [(s.hidden, s.first[0]), (s.spare, s.first[1])];
        let states = &states[..self.op.states()];
        for (to, from) in states {
            self.each(b, s.h, |b, i, mask| {
                let at = b.add(state, i);
                let v = match from {
                    Some(from) => load(b, self.d, *from, at, self.lanes(), mask),
                    None => b.zero(Ty::vec(s.elem, self.lanes())),
                };
                b.store_opt(*to, at, v, mask);
            });
        }
        let theta = number(b, self.optional[5], self.op.theta, self.wide);
        let count = b.for_(0, s.steps, 1, &[zero], |b, t, count| {
            let place = b.at(n, t, s.batch);
            let x = b.mul(place, self.inputs);
            let score = self.score(b, state, x);
            let p = math::sigmoid(b, score);
            if let Some(to) = self.outs[3] {
                store(b, self.d, to, place, p, None);
            }
            let count = match self.optional[6] {
                Some(noise) => {
                    self.mix(b, at, x, (score, noise, place));
                    count[0]
                }
                None => {
                    let skips = b.cmp(CmpOp::FGt, p, theta);
                    let one = |b: &mut Builder, cell: &Steps<'_>, w: usize, bias: usize, by: i64| {
                        self.cell(b, at, x, (cell, w, bias));
                        vec![b.add(count[0], by)]
                    };
                    b.if_(skips, |b| one(b, &self.small, 2, 1, 1), |b| one(b, &self.big, 0, 0, 0))[0]
                }
            };
            if let Some(all) = self.outs[0] {
                let to = b.mul(place, s.h);
                self.copy(b, (s.hidden, state), (all, to));
            }
            vec![count]
        });
        for (to, (from, _)) in self.outs[1..3].iter().zip(states) {
            if let Some(to) = to {
                self.copy(b, (*from, state), (*to, state));
            }
        }
        count[0]
    }

    fn lanes(&self) -> u16 {
        self.big.math.lanes
    }

    fn each(&self, b: &mut Builder, n: Val, body: impl FnMut(&mut Builder, Val, Option<Val>)) {
        b.for_lanes(0, n, self.lanes(), body);
    }

    /// Copies a state to a result.
    fn copy(&self, b: &mut Builder, (from, first): (Buf, Val), (to, start): (Buf, Val)) {
        self.each(b, self.big.h, |b, i, mask| {
            let at = b.add(first, i);
            let v = load(b, self.wide, from, at, self.lanes(), mask);
            let at = b.add(start, i);
            store(b, self.d, to, at, v, mask);
        });
    }

    /// By how much the score of skimming is above that of reading.
    fn score(&self, b: &mut Builder, state: Val, x: Val) -> Val {
        let (s, predictor) = (&self.big, self.weights[4]);
        let zero = b.zero(Ty::vec(s.elem, 1));
        let mut sum = zero;
        for (first, n, (v, vd), at) in
            [(None, self.inputs, (self.x, self.d), x), (Some(self.inputs), s.h, (s.hidden, self.wide), state)]
        {
            sum = b.for_(0, n, 1, &[sum], |b, i, sum| {
                let from = b.add(at, i);
                let v = load(b, vd, v, from, 1, None);
                let row = first.map_or(i, |first| b.add(first, i));
                let by = self.above(b, predictor, self.d, row);
                vec![b.fma(v, by, sum[0])]
            })[0];
        }
        match self.optional[2] {
            None => sum,
            Some((bias, d)) => {
                let row = b.i64(0);
                let by = self.above(b, bias, d, row);
                b.fadd(sum, by)
            }
        }
    }

    /// The second element of row `row` of two columns less the first.
    fn above(&self, b: &mut Builder, m: Buf, d: DType, row: Val) -> Val {
        let at = b.mul(row, 2);
        let first = load(b, d, m, at, 1, None);
        let at = b.add(at, 1);
        let second = load(b, d, m, at, 1, None);
        b.fsub(second, first)
    }

    /// What a cell makes of its state. `w` is the place of its weights of the input.
    fn cell(&self, b: &mut Builder, at: At, x: Val, (cell, w, bias): (&Steps<'_>, usize, usize)) {
        let rows = b.mul(cell.h, self.plain.gates() as i64);
        let zero = b.i64(0);
        b.loop_(0, rows, cell.block, |b, row| {
            let from = b.mul(row, self.inputs);
            let (w, d) = (self.weights[w], self.d);
            let sums = dots(b, (w, d), from, (self.x, d), x, self.inputs, self.lanes(), cell.block);
            let to = b.add(at.fed, row);
            for (j, sum) in sums.into_iter().enumerate() {
                let row = b.add(row, j as i64);
                let more = match self.optional[bias] {
                    Some(bias) => row_bias(b, self.plain, bias, zero, row, rows),
                    None => b.zero(Ty::vec(cell.elem, 1)),
                };
                let sum = b.fadd(sum, more);
                let to = b.add(to, j as i64);
                store(b, self.wide, cell.fed, to, sum, None);
            }
        });
        match self.op.cell {
            Cell::Lstm => cell.lstm(b, at),
            _ => cell.gru(b, at),
        }
    }

    /// Both cells, and the mean of what they give.
    fn mix(&self, b: &mut Builder, at: At, x: Val, (score, noise, place): (Val, (Buf, DType), Val)) {
        let lanes = self.lanes();
        let pairs = [(self.big.hidden, self.small.hidden), (self.big.spare, self.small.spare)];
        let pairs = &pairs[..self.op.states()];
        for (from, to) in pairs {
            self.each(b, self.big.h, |b, i, mask| {
                let at = b.add(at.state, i);
                let v = load(b, self.wide, *from, at, lanes, mask);
                b.store_opt(*to, at, v, mask);
            });
        }
        self.cell(b, at, x, (&self.big, 0, 0));
        self.cell(b, at, x, (&self.small, 2, 1));
        let gumbel = |b: &mut Builder, k: i64| {
            let at = b.at(k, place, 2);
            let u = load(b, noise.1, noise.0, at, 1, None);
            let u = b.fmax(u, SkimRecurrent::BOUNDS.0);
            let u = b.fmin(u, SkimRecurrent::BOUNDS.1);
            let u = math::log(b, u);
            let u = b.fneg(u);
            let u = math::log(b, u);
            b.fneg(u)
        };
        let (reads, skims) = (gumbel(b, 0), gumbel(b, 1));
        let by = b.fsub(skims, reads);
        let by = b.fadd(score, by);
        let temperature = number(b, self.optional[7], self.op.temperature, self.wide);
        let by = b.fdiv(by, temperature);
        let share = math::sigmoid(b, by);
        let share = b.splat(share, lanes);
        for (to, other) in pairs {
            self.each(b, self.big.h, |b, i, mask| {
                let at = b.add(at.state, i);
                let read = load(b, self.wide, *to, at, lanes, mask);
                let skimmed = load(b, self.wide, *other, at, lanes, mask);
                let by = b.fsub(skimmed, read);
                let v = b.fma(share, by, read);
                b.store_opt(*to, at, v, mask);
            });
        }
    }
}
