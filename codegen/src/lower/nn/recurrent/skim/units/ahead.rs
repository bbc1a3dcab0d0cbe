//! What a single row takes from its next inputs.

use super::super::super::shape::Shape;
use super::super::super::tiles::Rows;
use super::Skim;
use crate::kernel::{Buf, Builder, CmpOp, Val};
use crate::lower::cx::{LowerCx, Opnd};
use crate::lower::layout::BLOCK;
use planish_ir::{DType, Dim};

/// The most steps that are done together, a power of two.
pub(super) const STEPS: i64 = 4;
/// Bytes of the weights of a step from which on they come from so far that several steps cost as much as one.
const FAR: i64 = 768 << 10;
/// In nearer weights, tenths of the steps so far that may have skimmed if several steps are to be done together: multiplications of steps that
/// skim later are in vain, and those of one step hardly wait.
const TENTHS: i64 = 3;

/// Memory for what is taken.
pub(super) struct Kept {
    /// `[STEPS][gates][units]`, the units of whole tiles.
    pub(super) sums: Opnd,
    /// For each tile and round of a step.
    pub(super) ends: Opnd,
}

impl Kept {
    /// For a batch of one row.
    pub(super) fn new(cx: &mut LowerCx<'_>, batch: &Dim, shape: &Shape) -> Option<Kept> {
        let gates: usize = shape.groups.iter().map(Vec::len).sum();
        let units = Dim::from(shape.tiles * shape.width);
        let ends = [Dim::from(shape.tiles), shape.groups.len().into()];
        batch.is(1).then(|| Kept {
            sums: cx.temp(DType::F32, &[STEPS.into(), gates.into(), units]),
            ends: cx.temp(DType::I64, &ends),
        })
    }
}

impl Skim<'_> {
    /// Forgets what a tile has taken.
    pub(super) fn forget(&self, b: &mut Builder, tile: Val) {
        let Some((_, ends)) = self.kept else { return };
        let groups = self.shape.groups.len() as i64;
        for g in 0..groups {
            let at = b.at(g, tile, groups);
            let none = b.i64(0);
            b.store(ends, at, none);
        }
    }

    /// Takes from the inputs of step `t` and of some behind it what gates `g` of a tile need, if that was not done before. `weights` is where
    /// the weights of the tile begin.
    pub(super) fn look_ahead(
        &self,
        b: &mut Builder,
        (kept, ends): (Buf, Buf),
        (t, tile, g): (Val, Val, usize),
        weights: Val,
    ) {
        let [inputs, h, _] = self.sizes;
        let at = b.at(g as i64, tile, self.shape.groups.len() as i64);
        let end = b.load(ends, at, 1);
        let needed = b.cmp(CmpOp::Sge, t, end);
        let bytes = 4 * self.op.plain().gates() as i64 * h * (h + inputs);
        let take = |b: &mut Builder, steps: i64| {
            self.take(b, kept, (t, tile, g), weights, steps);
            let end = b.add(t, steps);
            b.store(ends, at, end);
        };
        b.when(needed, |b| {
            if bytes > FAR {
                take(b, STEPS);
                return;
            }
            let skipped = b.load(self.skipped, 0, 1);
            let skipped = b.mul(skipped, 10);
            let bound = b.mul(t, TENTHS);
            let seldom = b.cmp(CmpOp::Sgt, skipped, bound);
            b.if_(
                seldom,
                |b| {
                    take(b, 1);
                    vec![]
                },
                |b| {
                    take(b, STEPS);
                    vec![]
                },
            );
        });
    }

    fn take(&self, b: &mut Builder, kept: Buf, (t, tile, g): (Val, Val, usize), weights: Val, steps: i64) {
        let (shape, inputs, lanes) = (self.shape, self.sizes[0], i64::from(self.lanes()));
        let (group, of) = (&shape.groups[g], shape.groups[g].len() as i64);
        let (gates, vectors) = self.together(of, steps);
        let cut = Rows { gates, of, vectors, width: shape.width, lanes: self.lanes() };
        let last = b.sub(self.steps, 1);
        let starts: Vec<Val> = (0..steps)
            .map(|e| {
                let s = b.add(t, e);
                let s = b.smin(s, last);
                b.mul(s, inputs)
            })
            .collect();
        let row = b.mul(tile, shape.width);
        b.loop_(0, of, gates, |b, gate| {
            let weights = b.at(weights, gate, shape.width);
            // The gates of a group are neighbours.
            let gate = b.add(gate, group[0]);
            b.loop_(0, shape.width, vectors * lanes, |b, off| {
                let first = b.add(weights, off);
                cut.product(b, (self.input, first), inputs, (self.x, &starts), self.taken);
                let unit = b.add(row, off);
                for e in 0..steps {
                    let s = b.add(t, e);
                    for (j, v) in (0..gates).flat_map(|j| (0..vectors).map(move |v| (j, v))) {
                        let sum = b.load(self.taken, ((e * gates + j) * vectors + v) * lanes, self.lanes());
                        let (gate, unit) = (b.add(gate, j), b.add(unit, v * lanes));
                        let to = self.kept_at(b, s, (gate, unit));
                        b.store(kept, to, sum);
                    }
                }
            });
        });
    }

    /// Of how many gates of a group and how many vectors of each the sums are kept together for so many steps. One step needs many sums at a
    /// time to keep the multipliers busy; several steps read each line of the cache once, where a line is more than a vector.
    fn together(&self, gates: i64, steps: i64) -> (i64, i64) {
        if steps == 1 {
            return (gates, self.big.tile.vectors);
        }
        let fits = |v: &i64| (*v * (steps + 1) + 1) as usize <= self.registers;
        let of_line = BLOCK / i64::from(self.lanes());
        let vectors = [of_line, of_line / 2].into_iter().find(|v| *v > 0 && fits(v)).unwrap_or(1);
        (if vectors == 1 { gates } else { 1 }, vectors)
    }

    fn kept_at(&self, b: &mut Builder, t: Val, (k, unit): (Val, Val)) -> Val {
        let units = self.shape.tiles * self.shape.width;
        let slot = b.and(t, STEPS - 1);
        let at = b.at(unit, slot, self.op.plain().gates() as i64 * units);
        b.at(at, k, units)
    }

    /// What gate `k` of the units from `unit` on takes from the input of step `t`.
    pub(super) fn recall(&self, b: &mut Builder, kept: Buf, t: Val, at: (Val, Val)) -> Val {
        let at = self.kept_at(b, t, at);
        b.load(kept, at, self.lanes())
    }
}
