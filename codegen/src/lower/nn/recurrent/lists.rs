//! Weights of the recurrence of which only some blocks are kept.
//!
//! The units of a tile lie in strips. For every strip and gate there is a list of the inputs that reach it, with the weights of each:
//! whether they are zero together is looked at one input at a time, whatever the blocks of the constant. The gates of a round share one
//! list where the batch is one entry: their inputs take turns, so that one loop has enough sums to keep the multipliers busy and ends
//! once for all gates. Lists are filled up with weights of zero, to as many turns for each gate, and to a multiple of them. Which weights
//! are kept is data.

use super::shape::Shape;
use super::tiles::Tile;
use crate::kernel::{Buf, Builder, Elem, Ty, Val};
use crate::lower::contraction::{Lists, inputs, list, lists};
use crate::lower::cx::LowerCx;
use planish_ir::{Constant, Dim, Encoding};

/// Units of a strip, at most.
const STRIP: i64 = 16;
/// Entries of the batch at a time, at most.
const ENTRIES: usize = 6;
/// Sums at a time, where registers allow them: with fewer a multiplication would wait for the one before.
const CHAINS: usize = 8;

/// How lists are cut; the same for every target.
#[derive(Clone, Copy)]
pub(super) struct Cut {
    /// Units of a strip.
    strip: i64,
    /// Whether all gates of a round share a list.
    shared: bool,
}

impl Cut {
    /// For a constant that is kept in blocks.
    pub(super) fn of(c: &Constant, batch: &Dim) -> Option<Cut> {
        let Encoding::BlockSparse { block, .. } = &c.encoding else { return None };
        let strip = if i64::from(block[1]) % STRIP == 0 { STRIP } else { STRIP / 2 };
        Some(Cut { strip, shared: batch.as_const().is_none_or(|b| b <= 1) })
    }

    /// Gates of a list of round `g`.
    fn gates(self, shape: &Shape, g: usize) -> usize {
        if self.shared { shape.groups[g].len() } else { 1 }
    }

    /// The turns that are taken in one step of the loop over a list of so many gates.
    fn turns(gates: usize) -> usize {
        if gates > 1 { 2 } else { 4 }
    }

    /// Lists of a tile in round `g`.
    fn in_tile(self, shape: &Shape, g: usize) -> i64 {
        shape.width / self.strip * (shape.groups[g].len() / self.gates(shape, g)) as i64
    }

    /// The lists of `[directions][gates * h][h]`: `[round of a step][direction][tile][strip][gate, if they share none]`.
    pub(super) fn pack(self, cx: &mut LowerCx<'_>, shape: &Shape, r: &[f32]) -> Lists {
        let (h, strip, tiles) = (shape.h as usize, self.strip as usize, shape.tiles as usize);
        let all: usize = shape.groups.iter().map(Vec::len).sum();
        let mut packed = Vec::new();
        for (g, group) in shape.groups.iter().enumerate() {
            let turns = Cut::turns(self.gates(shape, g));
            for tile in 0..shape.all() as usize {
                let (dir, first) = (tile / tiles, tile % tiles * shape.width as usize);
                for unit in (first..first + shape.width as usize).step_by(strip) {
                    let of_gate = |gate: &i64| -> Vec<(i64, Vec<f32>)> {
                        let row = (dir * all + *gate as usize) * h;
                        let at = |k: usize, unit: usize| if unit < h { r[(row + unit) * h + k] } else { 0.0 };
                        let weights = |k: usize| (unit..unit + strip).map(|u| at(k, u)).collect::<Vec<f32>>();
                        let each = (0..h).map(|k| (k as i64, weights(k)));
                        each.filter(|(_, w)| w.iter().any(|w| *w != 0.0)).collect()
                    };
                    for gates in group.chunks(self.gates(shape, g)) {
                        let mut each: Vec<_> = gates.iter().map(of_gate).collect();
                        let most = each.iter().map(Vec::len).max().unwrap_or(0).next_multiple_of(turns);
                        for list in &mut each {
                            let last = list.last().map_or(0, |(k, _)| *k);
                            list.resize(most, (last, vec![0.0; strip]));
                        }
                        packed.push((0..most).flat_map(|t| each.iter().map(move |l| l[t].clone())).collect());
                    }
                }
            }
        }
        lists(cx, packed)
    }

    /// Multiplications of a step and an entry of the batch.
    pub(super) fn products(self, lists: &Lists) -> i64 {
        lists.count * self.strip
    }

    /// How a target walks the lists.
    pub(super) fn tile(self, shape: &Shape, lanes: u16, registers: usize, batch: Option<i64>) -> Tile {
        let gates = shape.groups.iter().map(Vec::len).max().unwrap_or(1) as i64;
        let most = batch.map_or(ENTRIES, |b| b.clamp(1, ENTRIES as i64) as usize);
        let fits = |g: usize, n: usize| {
            let list = self.gates(shape, g);
            let vectors = self.vectors(lanes, list, registers);
            list * vectors * n + vectors < registers
        };
        let all = |n: &usize| (0..shape.groups.len()).all(|g| fits(g, *n));
        let entries = (1..=most).rev().find(all).unwrap_or(1);
        let vectors = shape.width / i64::from(lanes);
        Tile { vectors, entries, sums: shape.width * gates * entries as i64 }
    }

    /// Vectors of a strip whose sums fit into the registers together, for a list of so many gates.
    fn vectors(self, lanes: u16, gates: usize, registers: usize) -> usize {
        let lanes = i64::from(lanes).min(self.strip);
        let mut vectors = (self.strip / lanes) as usize;
        while vectors > 1 && vectors * gates + 2 > registers {
            vectors /= 2;
        }
        vectors
    }
}

/// The lists of a layer, for one target.
pub(super) struct Walk {
    pub(super) cut: Cut,
    /// `starts`, `index` and `values`.
    pub(super) lists: [Buf; 3],
    pub(super) lanes: u16,
    pub(super) registers: usize,
}

impl Walk {
    /// The products of round `g` at a tile with the states that begin at each of `starts` of `v`. They go to `to`: entry, gate, unit of the
    /// tile.
    pub(super) fn product(
        &self,
        b: &mut Builder,
        (shape, g, tile): (&Shape, usize, Val),
        (v, starts): (Buf, &[Val]),
        to: Buf,
    ) {
        let (cut, of_round) = (self.cut, shape.groups[g].len());
        let gates = cut.gates(shape, g);
        let apart = (of_round / gates) as i64;
        let before: i64 = (0..g).map(|g| cut.in_tile(shape, g) * shape.all()).sum();
        let first = b.mul(tile, cut.in_tile(shape, g));
        let first = b.add(first, before);
        b.loop_(0, cut.in_tile(shape, g), 1, |b, at| {
            let strip = b.div_const(at, apart);
            let skipped = b.mul(strip, apart);
            let gate = b.sub(at, skipped);
            let which = b.add(first, at);
            let unit = b.mul(strip, cut.strip);
            let gate = b.mul(gate, shape.width);
            let unit = b.add(unit, gate);
            let place = |e: usize, gate: usize| ((e * of_round + gate) as i64) * shape.width;
            self.list(b, which, (gates, v, starts), |b, (e, gate, offset), sum| {
                let at = b.add(unit, place(e, gate) + offset);
                b.store(to, at, sum);
            });
        });
    }

    /// The sums of a list of so many gates; `store` gets each vector with its entry, gate and first unit of the strip.
    fn list(
        &self,
        b: &mut Builder,
        which: Val,
        (gates, v, starts): (usize, Buf, &[Val]),
        store: impl Fn(&mut Builder, (usize, usize, i64), Val),
    ) {
        let lanes = i64::from(self.lanes).min(self.cut.strip);
        let vectors = self.cut.vectors(self.lanes, gates, self.registers);
        let rows = starts.len();
        let turns = Cut::turns(gates);
        let each = rows * vectors;
        let fits = |chains: &usize| gates * each * chains + 3 <= self.registers;
        let enough = CHAINS.div_ceil(gates * each).next_power_of_two();
        let chains = [turns, turns / 2].into_iter().find(fits).unwrap_or(1).min(enough);
        let zero = b.zero(Ty::vec(Elem::F32, lanes as u16));
        let [from, index, values] = self.lists;
        let (from, end) = list(b, from, which);
        for part in (0..self.cut.strip).step_by(vectors * lanes as usize) {
            let sums = vec![zero; gates * chains * each];
            let sums = b.for_(from, end, (gates * turns) as i64, &sums, |b, at, sums| {
                let mut sums = sums.to_vec();
                for turn in 0..turns {
                    for gate in 0..gates {
                        let at = b.add(at, (turn * gates + gate) as i64);
                        let k = b.load(index, at, 1);
                        let k = b.sext(k, Elem::I64);
                        let first = b.mul(at, self.cut.strip);
                        let first = b.add(first, part);
                        let x = |b: &mut Builder, _: Val, row: usize| {
                            let at = b.add(starts[row], k);
                            b.load(v, at, 1)
                        };
                        let chain = (gate * chains + turn % chains) * each;
                        let chain = chain..chain + each;
                        let cut = (rows, vectors, lanes as u16);
                        let more =
                            inputs(b, 1, (values, first, self.cut.strip), cut, &sums[chain.clone()], &x);
                        sums[chain].copy_from_slice(&more);
                    }
                }
                sums
            });
            for (gate, sums) in sums.chunks(chains * each).enumerate() {
                for i in 0..each {
                    let sum = (1..chains).fold(sums[i], |sum, c| b.fadd(sum, sums[c * each + i]));
                    store(b, (i / vectors, gate, part + (i % vectors) as i64 * lanes), sum);
                }
            }
        }
    }
}
