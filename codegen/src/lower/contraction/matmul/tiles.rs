//! The tiles of a unit of a matrix product.

use super::{Corner, Job, Left, ROWS, Right, STEPS};
use crate::kernel::{Builder, Opd, Ty, Val};
use crate::lower::contraction::epilogue::Place;
use crate::lower::contraction::operands::Groups;
use crate::lower::contraction::tile::{Tile, in_pieces, max_rows};
use crate::lower::elem::load;

impl Job<'_> {
    /// All tiles of a unit.
    pub(super) fn tiles(
        &self,
        b: &mut Builder,
        at: &Corner,
        rows: Val,
        columns: Val,
        (m, n): (Option<i64>, Option<i64>),
    ) {
        if matches!(self.right, Right::Panel { .. }) {
            // Results and what they are finished with are read and written row by row.
            self.rows(b, rows, self.nv, m, |b, r, size| {
                self.columns(b, columns, n, |b, col, nv, mask| self.tile(b, at, (r, size), col, nv, mask));
            });
        } else {
            self.columns(b, columns, n, |b, col, nv, mask| {
                self.rows(b, rows, nv, m, |b, r, size| self.tile(b, at, (r, size), col, nv, mask));
            });
        }
    }
    /// Whole tiles of columns, then the rest one masked vector at a time.
    fn columns(
        &self,
        b: &mut Builder,
        columns: Val,
        n: Option<i64>,
        body: impl Fn(&mut Builder, Val, usize, Option<Val>),
    ) {
        let lanes = i64::from(self.lanes);
        let step = self.nv as i64 * lanes;
        let whole = b.sdiv(columns, step);
        let end = b.mul(whole, step);
        b.loop_(0, end, step, |b, col| body(b, col, self.nv, None));
        if n.is_none_or(|n| n % step != 0) {
            b.loop_(end, columns, lanes, |b, col| {
                let left = b.sub(columns, col);
                let mask = b.mask_below(self.lanes, left);
                body(b, col, 1, Some(mask));
            });
        }
    }
    /// All rows of a chunk for tiles of `nv` vectors. A known number of rows is cut evenly, an unknown one into whole tiles and then
    /// powers of two.
    fn rows(
        &self,
        b: &mut Builder,
        rows: Val,
        nv: usize,
        m: Option<i64>,
        body: impl Fn(&mut Builder, Val, usize),
    ) {
        if let Left::Groups(Groups { m, rows: each, .. }) = self.left {
            let whole = b.sdiv(rows, each);
            let whole = b.mul(whole, each);
            let rest = m % each;
            b.loop_(0, whole, each, |b, r| body(b, r, each as usize));
            if rest > 0 {
                b.loop_(whole, rows, each, |b, r| body(b, r, rest as usize));
            }
            return;
        }
        let most = max_rows(&self.target, nv).min(9);
        let known = m.filter(|m| *m <= ROWS);
        // With few registers a power of two leaves too few sums to hide the latency of multiplications.
        let few = self.target.registers < 32;
        let most = if known.is_some() || few { most } else { 1 << most.min(8).ilog2() };
        in_pieces(b, rows, known, most, body);
    }
    fn tile(
        &self,
        b: &mut Builder,
        at: &Corner,
        (r0, rows): (Val, usize),
        col: Val,
        nv: usize,
        mask: Option<Val>,
    ) {
        let row0 = b.add(at.m0, r0);
        // Where groups are copied, a tile begins where one does.
        let group = match self.left {
            Left::Groups(groups) => {
                let group = b.sdiv(row0, groups.rows);
                b.at(at.a0, group, groups.each())
            }
            Left::Rows | Left::Columns => at.a0,
        };
        let piece = match self.right {
            Right::Panel { panel, .. } => panel.at(b, col),
            Right::Rows | Right::Blocks => b.add(at.b0, col),
        };
        let a = |b: &mut Builder, k: Val, r: usize| {
            let row = b.add(row0, r as i64);
            let idx = match self.left {
                Left::Rows => b.at(k, row, self.k),
                Left::Columns => b.at(row, k, self.m),
                Left::Groups(groups) => b.at(r as i64, k, groups.rows),
            };
            let idx = b.add(idx, group);
            load(b, self.a_type, self.a, idx, 1, None)
        };
        let bv = |b: &mut Builder, k: Val, v: usize| {
            let from = b.add(piece, v as i64 * i64::from(self.lanes));
            let stride: Opd = match self.right {
                Right::Panel { panel, .. } => return panel.load(b, from, k, self.lanes),
                Right::Blocks => self.width.into(),
                Right::Rows => self.n.into(),
            };
            let idx = b.at(from, k, stride);
            // Packed blocks are padded, so only the store needs the mask.
            let mask = if matches!(self.right, Right::Blocks) { None } else { mask };
            load(b, self.b_type, self.b, idx, self.lanes, mask)
        };
        let sums_of = |b: &mut Builder, k: (Val, Val), init: Option<Vec<Val>>| {
            Tile { rows, nv, lanes: self.lanes, elem: self.elem, k, a: &a, b: &bv }.emit(b, init)
        };
        let zero = b.i64(0);
        let block = self.ahead.map(|m| self.next_block(b, at, (row0, rows, m), col));
        let tile = match self.left {
            Left::Groups(groups) if self.streams => Some(self.next_tile(b, at, (row0, groups.rows), col)),
            _ => None,
        };
        let sums = if block.is_some() || tile.is_some() {
            let whole = b.sdiv(self.k, STEPS);
            let zeros = vec![b.zero(Ty::vec(self.elem, self.lanes)); rows * nv];
            let sums = b.for_(0, whole, 1, &zeros, |b, step, acc| {
                if let Some(next) = &block {
                    next.lines(b, step, |b, line| b.prefetch(self.b, line));
                }
                if let Some(next) = &tile {
                    next.lines(b, step, |b, line| self.e.prefetch(b, self.epi, line));
                }
                let from = b.mul(step, STEPS);
                let to = b.add(from, STEPS);
                sums_of(b, (from, to), Some(acc.to_vec()))
            });
            let from = b.mul(whole, STEPS);
            sums_of(b, (from, self.k), Some(sums))
        } else {
            sums_of(b, (zero, self.k), None)
        };
        for r in 0..rows {
            for v in 0..nv {
                let (index, last) = self.place(b, at, (row0, r), col, v);
                let place = Place { index, channel: last, last };
                self.e.finish(b, self.epi, sums[r * nv + v], &place, mask);
            }
        }
    }

    /// The element of the result that a vector of a tile begins with, and its column.
    pub(super) fn place(
        &self,
        b: &mut Builder,
        at: &Corner,
        (row0, r): (Val, usize),
        col: Val,
        v: usize,
    ) -> (Val, Val) {
        let row = b.add(row0, r as i64);
        let line = b.at(at.c0, row, self.n);
        let last = b.add(at.n0, col);
        let last = b.add(last, v as i64 * i64::from(self.lanes));
        (b.add(line, last), last)
    }
}
