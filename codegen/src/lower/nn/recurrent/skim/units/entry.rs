//! What follows the products of a row.

use super::super::super::cell::Lanes;
use super::super::super::shape::Shape;
use super::{At, One, Skim};
use crate::kernel::{Builder, CmpOp, Val};
use planish_ir::op::recurrent::Cell;

/// A vector of units of a row.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) at: At,
    pub(super) lanes: Lanes,
    /// In the sums, of the first gate.
    pub(super) sums: Val,
}

impl Skim<'_> {
    /// What follows the product of gates `g` for the units from `row` on, whose sums begin at `sums`. `given` is what gate `k`, `j` of its
    /// group, gets from the input.
    pub(super) fn entry(
        &self,
        b: &mut Builder,
        (one, shape): (&One<'_>, &Shape),
        g: usize,
        (at, row, sums): (At, Val, Val),
        given: &dyn Fn(&mut Builder, Place, i64, i64) -> Val,
    ) {
        let (h, lanes) = (shape.h, i64::from(self.lanes()));
        b.loop_(0, one.tile.vectors * lanes, lanes, |b, o| {
            let i = b.add(row, o);
            let inside = b.cmp(CmpOp::Slt, i, h);
            let some = |b: &mut Builder| {
                let mask = (h % lanes != 0).then(|| {
                    let left = b.sub(h, i);
                    b.mask_below(self.lanes(), left)
                });
                let dir = b.i64(0);
                let p = Place { at, lanes: Lanes { dir, i, mask }, sums: b.add(sums, o) };
                if let Some([hidden, cell]) = self.cell(b, one, p, g, given) {
                    self.show(b, at, i, mask, hidden, &mut |_, _| cell);
                }
            };
            if h % shape.width == 0 { some(b) } else { b.when(inside, some) }
        });
    }

    /// Stores the new h of a vector of units, and where it is a result; `cell` gives the new c at a place of the state.
    pub(super) fn show(
        &self,
        b: &mut Builder,
        at: At,
        i: Val,
        mask: Option<Val>,
        hidden: Val,
        cell: &mut dyn FnMut(&mut Builder, Val) -> Val,
    ) {
        let to = b.add(at.new, i);
        b.store_opt(self.hidden, to, hidden, mask);
        if let Some(all) = self.all {
            let to = b.at(i, at.place, self.sizes[1]);
            b.store_opt(all, to, hidden, mask);
        }
        if self.last.iter().any(Option::is_some) {
            let to = b.add(at.state, i);
            b.when(at.ends, |b| {
                if let Some(last) = self.last[0] {
                    b.store_opt(last, to, hidden, mask);
                }
                if let Some(last) = self.last[1] {
                    let v = cell(b, to);
                    b.store_opt(last, to, v, mask);
                }
            });
        }
    }

    /// The new states of a vector of units, or `None` after the first of two groups of gates.
    fn cell(
        &self,
        b: &mut Builder,
        one: &One<'_>,
        p: Place,
        g: usize,
        given: &dyn Fn(&mut Builder, Place, i64, i64) -> Val,
    ) -> Option<[Val; 2]> {
        let (lanes, mask, math) = (self.lanes(), p.lanes.mask, &one.math);
        let state = b.add(p.at.state, p.lanes.i);
        let old = b.add(p.at.old, p.lanes.i);
        let parts = |b: &mut Builder, j: i64, k: i64| {
            let from = b.add(p.sums, j * one.tile.vectors * i64::from(lanes));
            let back = b.load(self.sums, from, lanes);
            (back, given(b, p, j, k))
        };
        let gate = |b: &mut Builder, k: i64| {
            let (back, given) = parts(b, k, k);
            b.fadd(back, given)
        };
        let act = |b: &mut Builder, k: i64| {
            let v = gate(b, k);
            math.act(b, p.lanes.dir, 0, v)
        };
        match (self.op.cell, self.spare, self.update) {
            (Cell::Lstm, spare, _) => {
                let cell = spare?;
                let c = b.load_opt(cell, state, lanes, mask);
                let (h, c) = math.lstm(b, p.lanes, c, gate);
                b.store_opt(cell, state, c, mask);
                Some([h, c])
            }
            (_, Some(scaled), Some(update)) => {
                let h = b.load_opt(self.hidden, old, lanes, mask);
                if g == 0 {
                    let r = act(b, 1);
                    let v = b.fmul(r, h);
                    b.store_opt(scaled, state, v, mask);
                    let z = act(b, 0);
                    b.store_opt(update, state, z, mask);
                    return None;
                }
                let z = b.load_opt(update, state, lanes, mask);
                let parts = parts(b, 0, 2);
                let h = math.gru(b, p.lanes, (h, z), parts, None);
                Some([h, h])
            }
            _ => {
                let h = b.load_opt(self.hidden, old, lanes, mask);
                let (z, r) = (act(b, 0), act(b, 1));
                let parts = parts(b, 2, 2);
                let h = math.gru(b, p.lanes, (h, z), parts, Some(r));
                Some([h, h])
            }
        }
    }
}
