//! What tiles read ahead, some lines every [`STEPS`] steps: what later tiles will read, while sums keep the processor busy.

use super::{Corner, Job, LINE, Right, STEPS};
use crate::kernel::{Builder, CmpOp, Val};
use crate::lower::contraction::div_up;

/// Lines that a tile reads ahead.
pub(super) struct Ahead {
    /// The first element.
    first: Val,
    /// Neighbouring lines that are read together, and elements from those to the next.
    wide: i64,
    stride: Val,
    /// How many of them every [`STEPS`] steps.
    share: i64,
    /// How many of them a tile has, where it may have more steps.
    count: Option<i64>,
}

impl Ahead {
    /// The lines of a step.
    pub(super) fn lines(&self, b: &mut Builder, step: Val, line: impl Fn(&mut Builder, Val)) {
        for i in 0..self.share {
            let number = b.at(i, step, self.share);
            let number = self.count.map_or(number, |n| b.smin(number, n - 1));
            let at = b.at(self.first, number, self.stride);
            for i in 0..self.wide {
                let at = b.add(at, i * LINE);
                line(b, at);
            }
        }
    }
}

impl Job<'_> {
    /// Lines of a row of a tile.
    fn lines(&self) -> i64 {
        div_up(self.nv as i64 * i64::from(self.lanes), LINE)
    }
    /// The results of the tile of `rows` rows that follows in a panel.
    pub(super) fn next_tile(
        &self,
        b: &mut Builder,
        at: &Corner,
        (row0, rows): (Val, i64),
        col: Val,
    ) -> Ahead {
        let next = b.add(col, self.nv as i64 * i64::from(self.lanes));
        let columns = b.sub(self.n, at.n0);
        let columns = b.smin(columns, self.width);
        let same = b.cmp(CmpOp::Slt, next, columns);
        let below = b.add(row0, rows);
        let row = b.select(same, row0, below);
        let col = b.select(same, next, 0);
        let (first, _) = self.place(b, at, (row, 0), col, 0);
        let steps = b.known_int(self.k).map_or(1, |k| (k / STEPS).max(1));
        Ahead { first, wide: self.lines(), stride: self.n, share: div_up(rows, steps), count: Some(rows) }
    }

    /// The share of a tile of `rows` of `m` rows in the next block: the tiles that use a block read the next one together.
    pub(super) fn next_block(
        &self,
        b: &mut Builder,
        at: &Corner,
        (row0, rows, m): (Val, usize, i64),
        col: Val,
    ) -> Ahead {
        let tiles = div_up(m, rows as i64);
        let number = b.div_const(row0, rows as i64);
        let steps = b.sdiv(self.k, STEPS);
        let number = b.mul(number, steps);
        let (start, wide, stride, share) = match self.right {
            // The tiles of each piece read the lines of every step of the same piece.
            Right::Panel { trans, .. } => {
                let next = b.add(at.n0, self.width);
                let next = b.add(next, col);
                let wide = self.lines();
                let (first, stride) =
                    if trans { (b.mul(next, self.k), b.i64(wide * LINE)) } else { (next, self.n) };
                (b.add(first, at.panel), wide, stride, div_up(STEPS, tiles))
            }
            Right::Rows | Right::Blocks => {
                let lines = div_up(self.width, LINE) * STEPS;
                (b.at(at.b0, self.k, self.width), 1, b.i64(LINE), div_up(lines, tiles))
            }
        };
        let number = b.mul(number, share);
        Ahead { first: b.at(start, number, stride), wide, stride, share, count: None }
    }
}
