//! How the hidden units of a layer with packed weights are cut.

use crate::lower::layout::BLOCK;
use planish_ir::op::recurrent::{Cell, Recurrent};

/// How a layer is cut; the same for every target.
pub(super) struct Shape {
    pub(super) h: i64,
    pub(super) dirs: i64,
    /// Units of a tile.
    pub(super) width: i64,
    /// Tiles of a direction.
    pub(super) tiles: i64,
    /// The gates of each round of a step.
    pub(super) groups: Vec<Vec<i64>>,
}

impl Shape {
    pub(super) fn new(op: &Recurrent, h: i64) -> Shape {
        let groups = match op.cell {
            Cell::Rnn => vec![vec![0]],
            Cell::Gru if !op.linear_before_reset => vec![vec![0, 1], vec![2]],
            Cell::Gru => vec![vec![0, 1, 2]],
            Cell::Lstm => vec![vec![0, 1, 2, 3]],
        };
        // Enough sums to keep the multipliers busy, unless that pads more.
        let most = if op.cell == Cell::Rnn { 4 } else { 2 };
        let padded = |blocks: i64| (h + blocks * BLOCK - 1) / (blocks * BLOCK) * blocks * BLOCK;
        let blocks = (1..=most).rev().min_by_key(|&n| padded(n)).unwrap_or(1);
        let width = blocks * BLOCK;
        Shape { h, dirs: op.directions() as i64, width, tiles: (h + width - 1) / width, groups }
    }

    /// Tiles of all directions.
    pub(super) fn all(&self) -> i64 {
        self.dirs * self.tiles
    }

    /// Weights of a tile in round `g` of a step, of products of `depth` numbers.
    pub(super) fn tile_len(&self, g: usize, depth: i64) -> i64 {
        depth * self.width * self.groups[g].len() as i64
    }

    /// The first weight of round `g`.
    pub(super) fn base(&self, g: usize, depth: i64) -> i64 {
        (0..g).map(|g| self.tile_len(g, depth) * self.all()).sum()
    }

    /// The weights `[directions][gates * h][depth]` as `[round of a step][direction][tile][k][gate][unit]`, zero where a tile goes
    /// beyond the units.
    pub(super) fn pack(&self, r: &[f32], depth: i64) -> Vec<f32> {
        let gates: usize = self.groups.iter().map(Vec::len).sum();
        let (h, width, tiles) = (self.h as usize, self.width as usize, self.tiles as usize);
        let mut packed = Vec::with_capacity(self.base(self.groups.len(), depth) as usize);
        let depth = depth as usize;
        for group in &self.groups {
            for tile in 0..self.dirs as usize * tiles {
                let (dir, first) = (tile / tiles, tile % tiles * width);
                for k in 0..depth {
                    for gate in group {
                        let row = (dir * gates + *gate as usize) * h;
                        packed.extend((first..first + width).map(|unit| match unit < h {
                            true => r[(row + unit) * depth + k],
                            false => 0.0,
                        }));
                    }
                }
            }
        }
        packed
    }
}
