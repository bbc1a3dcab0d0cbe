//! Products with a constant matrix whose zeros are scattered: blocks of one input and 1, 2 or 4 outputs, of which some are kept.
//!
//! Vectors hold rows. For every 1, 2 or 4 outputs there is a [list](super::sparse::Lists) of the inputs that reach them, as the place of the input
//! in the left operand, with one weight for each of the outputs. Lists are filled up with weights of zero to a multiple of
//! [`TOGETHER`] entries, so that they are walked without a rest. Which weights are kept is data.
//!
//! A unit of work is [`ROWS`] rows and some strips of [`STRIP`] outputs. The same tiles serve [blocks](super::sparse) that are as wide as a
//! vector: a weight in all lanes meets several vectors of rows, whereas a row in all lanes would meet one vector of weights, so that every
//! multiplication would wait for a load of its own. The left operand lies so that 16 rows at one input are
//! neighbours: rows of a product are copied to that form as for [blocks](super::sparse), positions of a convolution are transposed
//! from their blocks of channels into a panel next to the sums. The sums of a strip are transposed in registers before they are
//! stored, because vectors of results run along the outputs.

use super::epilogue::{Epilogue, Place};
use super::sparse::{Blocks, Lists, list, lists};
use super::tile::in_pieces;
use super::{div_up, matmul::Operands};
use crate::kernel::{Buf, Builder, Elem, TargetSpec, Ty, Val};
use crate::lower::cx::LowerCx;
use crate::lower::launch::{KernelCx, Launch};
use crate::lower::layout::{self, BLOCK, transposed};
use planish_ir::{Diag, Dim};

/// Outputs whose sums are stored together.
pub(super) const STRIP: i64 = BLOCK;
/// Rows that are neighbours in the left operand.
pub(super) const GROUP: i64 = BLOCK;
/// Groups of rows of a tile, at most.
const GROUPS: i64 = 4;
/// Rows of a unit of work.
pub(super) const ROWS: i64 = GROUP * GROUPS;
/// Entries of a list that are done in one step of its loop.
const TOGETHER: usize = 4;
/// Sums of a tile, at least: with fewer a multiplication would wait for the one before.
const CHAINS: usize = 8;
/// Weights of a line of the cache.
const LINE: i64 = 16;
/// Entries of so many inputs are walked input by input without a loop.
const UNROLL: i64 = 4;

/// Whether there are kernels here for blocks of this size.
pub(super) fn has(block: [u32; 2]) -> bool {
    matches!(block, [1, 1 | 2 | 4])
}

/// The lists of a matrix, strip by strip; an input is the element at which `place` says that it lies.
pub(super) fn packed(cx: &mut LowerCx<'_>, x: &Blocks, place: impl Fn(usize) -> i64) -> Lists {
    let width = x.block[1];
    let per = STRIP as usize / width;
    let mut all: Vec<Vec<(i64, Vec<f32>)>> = x
        .strips(1, width)
        .into_iter()
        .map(|list| list.into_iter().map(|(k, v)| (place(k), v)).collect())
        .collect();
    for list in &mut all {
        if let Some((last, _)) = list.last() {
            let nothing = (*last, vec![0.0; width]);
            list.resize(list.len().next_multiple_of(TOGETHER), nothing);
        }
    }
    all.resize(all.len().next_multiple_of(per), Vec::new());
    lists(cx, all)
}

/// Buffers next to the sums.
#[derive(Clone, Copy)]
pub(super) struct Local {
    /// Sums of a strip, output by output.
    sums: Buf,
    /// The same, row by row.
    rows: Buf,
}

impl Local {
    /// For strips of so many outputs.
    pub(super) fn new(k: &mut KernelCx<'_>, strip: i64) -> Local {
        let mut local = |name: &str| k.b.local(name, Elem::F32, (ROWS * strip) as u32);
        Local { sums: local("sums"), rows: local("rows") }
    }
}

/// What all tiles of a kernel share.
pub(super) struct Job<'j> {
    /// The left operand.
    pub(super) x: Buf,
    /// Elements from one group of rows to the next.
    pub(super) group: Val,
    /// `starts`, `index` and `values` of the lists.
    pub(super) lists: [Buf; 3],
    /// Inputs and outputs of an entry of a list. The inputs lie a group of rows apart.
    pub(super) entry: [i64; 2],
    /// Outputs of an entry whose sums a tile keeps.
    pub(super) part: i64,
    /// Entries that are done in one step of the loop; the length of every list is a multiple of it.
    pub(super) together: usize,
    /// Outputs of a strip.
    pub(super) strip: i64,
    pub(super) lanes: u16,
    pub(super) target: &'j TargetSpec,
    pub(super) local: Local,
    /// Where the weights of an entry are; none: one entry lies behind the other, input by input.
    pub(super) stored: Option<Stored>,
}

/// Weights that lie elsewhere than the lists have their entries.
#[derive(Clone, Copy)]
pub(super) struct Stored {
    /// Which entry of `values` each entry of the lists is.
    pub(super) slots: Buf,
    /// Weights from one input of an entry to the next, and from one output to the next.
    pub(super) steps: [i64; 2],
}

impl<'j> Job<'j> {
    /// For entries of one input and `width` outputs, [packed] in strips of [`STRIP`].
    pub(super) fn new(
        (x, group, lists): (Buf, Val, [Buf; 3]),
        width: i64,
        (lanes, target, local): (u16, &'j TargetSpec, Local),
    ) -> Self {
        let entry = [1, width];
        Job {
            x,
            group,
            lists,
            entry,
            part: width,
            together: TOGETHER,
            strip: STRIP,
            lanes,
            target,
            local,
            stored: None,
        }
    }
    /// Vectors of a group of rows.
    fn per(&self) -> i64 {
        GROUP / i64::from(self.lanes)
    }
    /// Groups of rows of a tile: the sums, the vectors of the left operand and a weight have registers.
    fn most(&self) -> usize {
        let registers = i64::from(self.target.registers.clamp(8, 32));
        // With one output a multiplication reads its vector from memory.
        let vectors = if self.part > 1 { self.part + 1 } else { 1 };
        ((registers - 2) / (vectors * self.per())).clamp(1, GROUPS) as usize
    }

    /// The whole of a product of `m` rows from `k` inputs to `n` outputs: [`units`] of the parallel axis.
    pub(super) fn product(
        &self,
        b: &mut Builder,
        (m, known): (Val, Option<i64>),
        [k, n]: [i64; 2],
        e: (&Epilogue, &[Buf]),
    ) {
        let strips = div_up(n, self.strip);
        b.parallel_for(|b, unit| {
            let (chunk, strip) = b.div_rem(unit, strips);
            let m0 = b.mul(chunk, ROWS);
            let left = b.sub(m, m0);
            let rows = b.smin(left, ROWS);
            let groups = b.ceil_div(rows, GROUP);
            let first = b.mul(m0, k);
            let col = b.mul(strip, self.strip);
            self.strip(b, strip, (first, rows), (groups, known), |b, row, at, sum| {
                let (row, last) = (b.add(m0, row), b.add(col, at));
                finish(b, e, sum, (row, last), (n, n % self.strip != 0));
            });
        });
    }

    /// Computes a strip for the rows whose first lies at element `first`, `groups` groups of them, and hands the vectors of
    /// sums of the first `rows` to `finish` with the row and the first output in the strip.
    pub(super) fn strip(
        &self,
        b: &mut Builder,
        strip: Val,
        (first, rows): (Val, Val),
        (groups, known): (Val, Option<i64>),
        finish: impl Fn(&mut Builder, Val, i64, Val),
    ) {
        in_pieces(b, groups, known, self.most(), |b, g, count| {
            let from = b.at(first, g, self.group);
            self.lists(b, strip, from, count);
            b.loop_(0, count as i64, 1, |b, i| {
                let to = b.add(g, i);
                self.turn(b, i, to, count);
            });
        });
        b.loop_(0, rows, 1, |b, row| {
            for at in (0..self.strip).step_by(usize::from(self.lanes)) {
                let from = b.mul(row, self.strip);
                let from = b.add(from, at);
                let sum = b.load(self.local.rows, from, self.lanes);
                finish(b, row, at, sum);
            }
        });
    }

    /// The sums of all outputs of a strip for `groups` groups of rows.
    fn lists(&self, b: &mut Builder, strip: Val, from: Val, groups: usize) {
        let lanes = i64::from(self.lanes);
        let (per, part) = (self.per(), self.part as usize);
        let [height, width] = self.entry;
        let nv = groups * per as usize;
        let [starts, index, values] = self.lists;
        let [down, across] = self.stored.map_or([width, 1], |s| s.steps);
        let zero = b.zero(Ty::vec(Elem::F32, self.lanes));
        let chains = CHAINS.div_ceil(nv * part).next_power_of_two().min(self.together);
        let parts = width / self.part;
        b.loop_(0, self.strip / self.part, 1, |b, l| {
            let which = b.div_const(l, parts);
            let side = b.mul(which, parts);
            let side = b.sub(l, side);
            let which = b.at(which, strip, self.strip / width);
            let (begin, end) = list(b, starts, which);
            // The weights of the next list come from far away, if nobody asks for them now.
            let ahead = b.sub(end, begin);
            let ahead = b.mul(ahead, height * width);
            let sums = vec![zero; nv * part * chains];
            let sums = b.for_(begin, end, self.together as i64, &sums, |b, at, sums| {
                let mut sums = sums.to_vec();
                for c in 0..self.together {
                    let at = b.add(at, c as i64);
                    let input = b.load(index, at, 1);
                    let input = b.sext(input, Elem::I64);
                    let input = b.add(from, input);
                    let place = match &self.stored {
                        Some(s) => {
                            let slot = b.load(s.slots, at, 1);
                            b.sext(slot, Elem::I64)
                        }
                        None => at,
                    };
                    let whole = b.mul(place, height * width);
                    if self.stored.is_none() {
                        let next = b.add(whole, ahead);
                        let lines = (0..height * width).filter(|i| (i + c as i64 * width) % LINE == 0);
                        lines.for_each(|i| {
                            let line = b.add(next, i);
                            b.prefetch(values, line);
                        });
                    }
                    let first = b.at(whole, side, self.part * across);
                    let chain = c % chains * part * nv;
                    let chain = chain..chain + part * nv;
                    let entry = |b: &mut Builder, i: Val, sums: &[Val]| {
                        let input = b.at(input, i, GROUP);
                        let first = b.at(first, i, down);
                        self.input(b, (input, first), (nv, part, across), sums)
                    };
                    let more = if height > UNROLL {
                        b.for_(0, height, 1, &sums[chain.clone()], entry)
                    } else {
                        (0..height).fold(sums[chain.clone()].to_vec(), |sums, i| {
                            let i = b.i64(i);
                            entry(b, i, &sums)
                        })
                    };
                    sums[chain].copy_from_slice(&more);
                }
                sums
            });
            for (i, first) in sums[..nv * part].iter().enumerate() {
                let sum = (1..chains).fold(*first, |sum, c| b.fadd(sum, sums[c * nv * part + i]));
                let output = b.mul(l, self.part);
                let output = b.add(output, (i / nv) as i64);
                let to = b.mul(output, groups as i64 * GROUP);
                let to = b.add(to, (i % nv) as i64 * lanes);
                b.store(self.local.sums, to, sum);
            }
        });
    }

    /// Adds the products of `nv` vectors of rows at one input, the first at `input`, with `part` weights from `first` on, `across` apart.
    fn input(
        &self,
        b: &mut Builder,
        (input, first): (Val, Val),
        (nv, part, across): (usize, usize, i64),
        sums: &[Val],
    ) -> Vec<Val> {
        let (lanes, per) = (i64::from(self.lanes), self.per());
        let x: Vec<Val> = (0..nv as i64)
            .map(|v| {
                let place = b.at(input, v / per, self.group);
                let place = b.add(place, v % per * lanes);
                b.load(self.x, place, self.lanes)
            })
            .collect();
        let mut next = Vec::with_capacity(sums.len());
        for o in 0..part {
            let weight = b.add(first, o as i64 * across);
            let weight = b.load(self.lists[2], weight, 1);
            let weight = b.splat(weight, self.lanes);
            for (sum, x) in sums[o * nv..(o + 1) * nv].iter().zip(&x) {
                next.push(b.fma(weight, *x, *sum));
            }
        }
        next
    }

    /// Turns the sums of group `from` of `groups` from outputs to rows.
    fn turn(&self, b: &mut Builder, from: Val, to: Val, groups: usize) {
        let lanes = i64::from(self.lanes);
        let row_len = groups as i64 * GROUP;
        let squares = self.strip / lanes * self.per();
        for (part, square) in (0..squares).map(|i| (i / self.per(), i % self.per())) {
            let squares = (0..lanes)
                .map(|o| {
                    let at = b.mul(from, GROUP);
                    let at = b.add(at, (part * lanes + o) * row_len + square * lanes);
                    b.load(self.local.sums, at, self.lanes)
                })
                .collect();
            for (r, v) in (0..).zip(transposed(b, squares)) {
                let row = b.mul(to, GROUP);
                let row = b.add(row, square * lanes + r);
                let at = b.mul(row, self.strip);
                let at = b.add(at, part * lanes);
                b.store(self.local.rows, at, v);
            }
        }
    }
}

/// Emits a product with what follows it.
pub(super) fn emit(cx: &mut LowerCx<'_>, o: &Operands, x: &Blocks, mut e: Epilogue) -> Result<(), Diag> {
    let (k, n) = (x.matrix.k as i64, x.matrix.n as i64);
    let width = x.block[1] as i64;
    let lists = packed(cx, x, |k| k as i64 * GROUP);
    let m = Dim::product(&o.out[..o.out.len() - 1]);
    let a = layout::to_blocked(cx, &o.a.with_dims(vec![1.into(), m.clone(), k.into()]))?;
    let mut l = Launch::new("matmul_scattered").read(&a);
    l = l.read(&lists.starts).read(&lists.index).read(&lists.values);
    l = e.bufs(l, 4).dim(&m);
    l = units(l, &m, div_up(n, STRIP), lists.count * width);
    let known = groups_of_unit(&m);
    cx.launch(l, move |kc| {
        let epi = e.handles(kc);
        let lanes = kc.lanes(Elem::F32).min(BLOCK as u16);
        let m = kc.dim(0);
        let target = kc.target.clone();
        let local = Local::new(kc, STRIP);
        let left = (kc.buf(0), kc.b.i64(GROUP * k), [kc.buf(1), kc.buf(2), kc.buf(3)]);
        let job = Job::new(left, width, (lanes, &target, local));
        job.product(&mut kc.b, (m, known), [k, n], (&e, &epi));
    })
}

/// The parallel axis of a product of `m` rows and so many strips, for which `weights` are kept: a unit is [`ROWS`] rows of a strip.
pub(super) fn units(l: Launch, m: &Dim, strips: i64, weights: i64) -> Launch {
    let work = div_up(weights * GROUPS, strips.max(1)).max(1);
    let chunks = m.ceil_div(&ROWS.into());
    l.extent(chunks.mul(&strips.into())).cost(work).flops(m.mul(&(2 * weights).into()))
}

/// Groups of rows of every unit, where that is one number.
pub(super) fn groups_of_unit(m: &Dim) -> Option<i64> {
    let whole = m.as_const().filter(|m| m % ROWS == 0 || *m <= ROWS);
    whole.map(|m| div_up(m.min(ROWS), GROUP))
}

/// Stores the sums of a row of a result of `n` columns from column `last` on, with what follows them; with `cut` only those below `n`.
pub(super) fn finish(
    b: &mut Builder,
    (e, epi): (&Epilogue, &[Buf]),
    sum: Val,
    (row, last): (Val, Val),
    (n, cut): (i64, bool),
) {
    let lanes = b.ty(sum).lanes;
    let mask = cut.then(|| {
        let left = b.sub(n, last);
        b.mask_below(lanes, left)
    });
    let index = b.at(last, row, n);
    e.finish(b, epi, sum, &Place { index, channel: last, last }, mask);
}
