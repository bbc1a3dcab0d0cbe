//! Products with a packed second operand: register tiles of dot products of four bytes.
//!
//! With `a` and `b` as the instructions read them (one side's zero point moves along where the sign bit is flipped), and
//! `s` the sums of the columns of `b`:
//! `sum (a - za)(b - zb) = sum a b - za s - zb (sum a - k za)`.
//! The second term is what the sums begin with, the last one needs a pass over the rows of `a` and is there only for
//! columns that kept a zero point.

use super::packing::{GROUP, Packed};
use super::plain::widen;
use super::product::Sides;
use crate::kernel::{Arch, BinOp, Buf, Builder, CmpOp, Elem, TargetSpec, Ty, Val};
use crate::lower::contraction::{Epilogue, Place, in_pieces, list};
use crate::lower::cx::{LowerCx, Opnd};
use crate::lower::launch::Launch;
use planish_ir::{DType, Diag, Dim};

/// Rows of one unit of the parallel axis.
const ROWS: i64 = 64;

/// Whether the rows of all matrices of the first operand are rows of one product: its zero points are then one, or one
/// for each row.
pub(super) fn rows_are_flat(s: &Sides) -> bool {
    let Some(z) = &s.zero_dims[0] else { return true };
    let lead = &s.out[..s.out.len() - 1];
    z.iter().all(|d| d.is(1))
        || (z.len() == lead.len() + 1 && z[..lead.len()] == *lead)
        || (lead[..lead.len() - 1].iter().all(|d| d.is(1))
            && z.len() >= 2
            && z[z.len() - 2] == lead[lead.len() - 1])
}

/// How a target multiplies bytes.
#[derive(Clone, Copy)]
struct Machine {
    /// The instruction takes the first operand as signed bytes.
    signed: bool,
    /// One instruction does it all.
    single: bool,
    registers: usize,
}

impl Machine {
    fn new(t: &TargetSpec, a: DType) -> Machine {
        let sdot = t.arch == Arch::Aarch64 && t.features.dotprod;
        let vnni = t.arch == Arch::X86_64 && t.features.vnni;
        // Where bytes are widened first, both kinds cost the same.
        let signed = sdot || (!vnni && a == DType::I8);
        Machine { signed, single: sdot || vnni, registers: usize::from(t.registers).clamp(8, 32) }
    }
    /// Whether a tile and what it loads fit into the registers.
    fn fits(self, rows: usize, nv: usize) -> bool {
        let rest = if self.single { nv + 2 } else { 2 * nv + 3 };
        rows * nv + rest <= self.registers
    }
    /// Vectors of a tile of so many rows: a divisor of those of a block.
    fn vectors(self, per_block: usize, rows: usize) -> usize {
        (1..=4).rev().find(|nv| per_block.is_multiple_of(*nv) && self.fits(rows, *nv)).unwrap_or(1)
    }
    /// The most rows of a tile.
    fn rows(self, per_block: usize, listed: bool) -> usize {
        match (self.single, self.registers) {
            // A list is walked for many rows.
            (true, 32) if listed && per_block == 1 => 16,
            (true, 32) => 8,
            (false, 32) if per_block.is_multiple_of(3) => 6,
            (false, 32) => 8,
            _ => 4,
        }
    }
}

/// Emits the product with what follows it.
pub(super) fn emit(cx: &mut LowerCx<'_>, s: &Sides, p: &Packed, mut e: Epilogue) -> Result<(), Diag> {
    let rank = s.out.len();
    let m = Dim::product(&s.out[..rank - 1]);
    let (k, n, width) = (p.k as i64, p.n as i64, p.width as i64);
    let a_zero = s.a_zero(cx)?;
    let row_sums = match &p.zeros {
        Some(_) => Some(row_sums(cx, s, &m, a_zero.as_ref())?),
        None => None,
    };
    let blocks = (n + width - 1) / width;
    let chunks = m.ceil_div(&ROWS.into());
    let label = if p.lists.is_some() { "matmul_integer_sparse" } else { "matmul_integer" };
    let mut l = Launch::new(label).read(&s.a).read(&p.data).read(&p.sums);
    let mut first = 3;
    let lists = p.lists.as_ref();
    let listed = [lists.map(|x| &x.starts), lists.map(|x| &x.index)];
    for x in [a_zero.as_ref(), p.zeros.as_ref(), row_sums.as_ref()].into_iter().chain(listed).flatten() {
        l = l.read(x);
        first += 1;
    }
    l = e.bufs(l, first).dim(&m).dim(&chunks);
    // To load the weights takes as long as to multiply a few rows with them.
    let groups = match lists {
        Some(lists) => lists.count.div_ceil(blocks.max(1) as usize).max(1),
        None => p.k.div_ceil(GROUP),
    };
    let cost = m.smaller(&ROWS.into()).larger(&4.into()).mul(&(groups * p.width / 16).into());
    let flops = match lists {
        Some(lists) => m.mul(&(2 * lists.count * GROUP * p.width).into()),
        None => Dim::product(&s.out).mul(&(2 * k).into()),
    };
    l = l.extent(chunks.mul(&blocks.into())).cost(cost).flops(flops);
    let (a_type, by_row) = (s.a.dtype, a_zero.as_ref().is_some_and(|z| z.dims.iter().any(|d| !d.is(1))));
    let (given, left) = (a_zero.is_some(), p.zeros.is_some());
    let known = m.as_const();
    let has_lists = lists.is_some();
    cx.launch(l, move |kc| {
        let lanes = kc.lanes(Elem::I32);
        let epi = e.handles(kc);
        let mut next = 3;
        let mut take = |some: bool| {
            next += usize::from(some);
            some.then(|| kc.buf(next - 1))
        };
        let (zero, left) = (take(given), take(left).zip(take(left)));
        let lists = take(has_lists).zip(take(has_lists));
        let (m, chunks) = (kc.dim(0), kc.dim(1));
        let machine = Machine::new(kc.target, a_type);
        let job = Job {
            a: kc.buf(0),
            w: kc.buf(1),
            sums: kc.buf(2),
            a_type,
            zero,
            by_row,
            left,
            lists,
            machine,
            lanes,
            width,
            k,
            n,
            e: &e,
            epi: &epi,
        };
        kc.b.parallel_for(|b, unit| {
            let (block, chunk) = b.div_rem(unit, chunks);
            let m0 = b.mul(chunk, ROWS);
            let rows = b.sub(m, m0);
            let rows = b.smin(rows, ROWS);
            job.rows(b, block, m0, rows, known);
        });
    })
}

/// For every row of `a`, its sum less `k` times its zero point.
fn row_sums(cx: &mut LowerCx<'_>, s: &Sides, m: &Dim, zero: Option<&Opnd>) -> Result<Opnd, Diag> {
    let y = cx.temp(DType::I32, std::slice::from_ref(m));
    let k = s.k();
    let mut l = Launch::new("row_sums").read(&s.a).write(&y);
    if let Some(z) = zero {
        l = l.read(z);
    }
    let by_row = zero.is_some_and(|z| z.dims.iter().any(|d| !d.is(1)));
    let l = l.dim(&k).extent(m.clone()).cost(k.floor_div(&Dim::Const(8)));
    let (a_type, given) = (s.a.dtype, zero.is_some());
    cx.launch(l, move |kc| {
        let lanes = kc.lanes(Elem::I32);
        let (a, y, k) = (kc.buf(0), kc.buf(1), kc.dim(0));
        let zero = given.then(|| kc.buf(2));
        kc.b.parallel_for(|b, row| {
            let start = b.mul(row, k);
            let none = b.zero(Ty::vec(Elem::I32, lanes));
            let whole = b.and(k, -i64::from(lanes));
            let add = |b: &mut Builder, i: Val, sum: Val, mask: Option<Val>| {
                let at = b.add(start, i);
                let v = b.load_opt(a, at, lanes, mask);
                let v = widen(b, a_type, v);
                b.add(sum, v)
            };
            let sums = b.for_(0, whole, i64::from(lanes), &[none], |b, i, s| vec![add(b, i, s[0], None)]);
            let rest = b.sub(k, whole);
            let mask = b.mask_below(lanes, rest);
            let sum = if lanes > 1 { add(b, whole, sums[0], Some(mask)) } else { sums[0] };
            let mut sum = b.reduce(BinOp::Add, sum);
            if let Some(z) = zero {
                let at = if by_row { row } else { b.i64(0) };
                let z = b.load(z, at, 1);
                let z = widen(b, a_type, z);
                let k = b.trunc(k, Elem::I32);
                let z = b.mul(z, k);
                sum = b.sub(sum, z);
            }
            b.store(y, row, sum);
        });
    })?;
    Ok(y)
}

/// What all tiles of a kernel share.
struct Job<'j> {
    a: Buf,
    w: Buf,
    /// Sums of the columns.
    sums: Buf,
    a_type: DType,
    /// Zero points of `a`.
    zero: Option<Buf>,
    /// There is one for each row.
    by_row: bool,
    /// Zero points that columns kept, and the sums of rows that they are multiplied with.
    left: Option<(Buf, Buf)>,
    /// Where the lists of groups begin, and the groups.
    lists: Option<(Buf, Buf)>,
    machine: Machine,
    lanes: u16,
    width: i64,
    k: i64,
    n: i64,
    e: &'j Epilogue,
    epi: &'j [Buf],
}

impl Job<'_> {
    /// The rows `m0..m0 + rows` of a block of columns. A known number of rows is cut evenly, an unknown one into whole tiles
    /// and smaller ones.
    fn rows(&self, b: &mut Builder, block: Val, m0: Val, rows: Val, known: Option<i64>) {
        let per_block = (self.width / i64::from(self.lanes)) as usize;
        let most = self.machine.rows(per_block, self.lists.is_some());
        let known = known.filter(|m| *m <= ROWS);
        in_pieces(b, rows, known, most, |b, r, size| self.columns(b, block, m0, r, size));
    }

    fn columns(&self, b: &mut Builder, block: Val, m0: Val, r: Val, rows: usize) {
        let per_block = (self.width / i64::from(self.lanes)) as usize;
        let nv = self.machine.vectors(per_block, rows);
        let row0 = b.add(m0, r);
        let step = nv as i64 * i64::from(self.lanes);
        b.loop_(0, self.width, step, |b, col| self.tile(b, block, (row0, r), col, rows, nv));
    }

    /// The zero point of a row as the instruction sees it; none if it is 0.
    fn row_zero(&self, b: &mut Builder, row: Val) -> Option<Val> {
        let flipped = match (self.a_type, self.machine.signed) {
            (DType::I8, false) => 128,
            (DType::U8, true) => -128,
            _ => 0,
        };
        match self.zero {
            None if flipped == 0 => None,
            None => Some(b.int(Ty::I32, flipped)),
            Some(z) => {
                let at = if self.by_row { row } else { b.i64(0) };
                let z = b.load(z, at, 1);
                let z = widen(b, self.a_type, z);
                Some(b.add(z, flipped))
            }
        }
    }

    fn tile(&self, b: &mut Builder, block: Val, (row0, r): (Val, Val), col: Val, rows: usize, nv: usize) {
        let lanes = self.lanes;
        let (group, wide) = (GROUP as i64, i64::from(lanes));
        let groups = (self.k + group - 1) / group;
        let whole = self.k / group;
        let first = if self.lists.is_some() { b.i64(0) } else { b.mul(block, groups * self.width * group) };
        let first = b.at(first, col, group);
        // The first rows ask for the next block, which follows this one: a large model's weights are far away. A single row
        // reads one line after the other, which processors foresee.
        let ahead = (rows > 1).then(|| b.cmp(CmpOp::Eq, r, 0));
        let from = (first, ahead);
        let column = b.at(col, block, self.width);
        let row: Vec<Val> = (0..rows).map(|r| b.add(row0, r as i64)).collect();
        let start = b.mul(row0, self.k);
        let starts: Vec<Val> = (0..rows).map(|r| b.add(start, r as i64 * self.k)).collect();
        // What the sums begin with.
        let zero = b.zero(Ty::vec(Elem::I32, lanes));
        let mut sums = vec![zero; rows * nv];
        let zeros: Vec<Option<Val>> = row.iter().map(|r| self.row_zero(b, *r)).collect();
        for v in (0..nv).filter(|_| zeros[0].is_some()) {
            let at = b.add(column, v as i64 * wide);
            let s = b.load(self.sums, at, lanes);
            for (r, z) in zeros.iter().enumerate() {
                if let Some(z) = z {
                    let z = b.neg(*z);
                    sums[r * nv + v] = b.mul(s, z);
                }
            }
        }
        // Several chains of sums where one would wait for itself.
        let chains = (8 / (rows * nv)).clamp(1, 4) as i64;
        let mut all = sums;
        all.resize(rows * nv * chains as usize, zero);
        // Groups one after the other, or those of a list.
        let (begin, end, last) = match self.lists {
            None => (b.i64(0), b.i64(whole / chains * chains), b.i64(whole)),
            Some((starts, _)) => {
                let (begin, last) = list(b, starts, block);
                let count = b.sub(last, begin);
                let count = b.sdiv(count, chains);
                (begin, b.at(begin, count, chains), last)
            }
        };
        let step = |b: &mut Builder, i: Val, sums: &[Val], count: i64| match self.lists {
            None => self.step(b, from, &starts, i, nv, sums, count),
            Some((_, index)) => {
                let at = b.at(first, i, self.width * group);
                let g = b.load(index, i, 1);
                let g = b.sext(g, Elem::I64);
                self.products(b, at, &starts, g, nv, sums, count)
            }
        };
        all = b.for_(begin, end, chains, &all, |b, g, all| {
            let mut next = Vec::with_capacity(all.len());
            for (c, sums) in (0..chains).zip(all.chunks(rows * nv)) {
                let g = b.add(g, c);
                next.extend(step(b, g, sums, group));
            }
            next
        });
        let mut sums = all[..rows * nv].to_vec();
        sums = b.for_(end, last, 1, &sums, |b, g, s| step(b, g, s, group));
        if whole < groups && self.lists.is_none() {
            let g = b.i64(whole);
            sums = step(b, g, &sums, self.k % group);
        }
        for more in all[rows * nv..].chunks(rows * nv) {
            sums = sums.iter().zip(more).map(|(a, c)| b.add(*a, *c)).collect();
        }
        for v in 0..nv {
            let last = b.add(column, v as i64 * wide);
            let mask = (self.n % self.width != 0).then(|| {
                let left = b.sub(self.n, last);
                b.mask_below(lanes, left)
            });
            let left = self.left.map(|(zeros, by)| (b.load(zeros, last, lanes), by));
            for r in 0..rows {
                let mut sum = sums[r * nv + v];
                if let Some((zeros, by)) = left {
                    let s = b.load(by, row[r], 1);
                    let t = b.mul(zeros, s);
                    sum = b.sub(sum, t);
                }
                let index = b.at(last, row[r], self.n);
                self.e.finish(b, self.epi, sum, &Place { index, channel: last, last }, mask);
            }
        }
    }

    /// Adds the products of group `g` along k, of which the first `count` elements exist, to the sums.
    #[allow(clippy::too_many_arguments)]
    fn step(
        &self,
        b: &mut Builder,
        (first, ahead): (Val, Option<Val>),
        starts: &[Val],
        g: Val,
        nv: usize,
        sums: &[Val],
        count: i64,
    ) -> Vec<Val> {
        let group = GROUP as i64;
        let at = b.at(first, g, self.width * group);
        if let Some(ahead) = ahead.filter(|_| count == group) {
            let size = (self.k + group - 1) / group * self.width * group;
            b.when(ahead, |b| {
                for line in (0..nv as i64 * i64::from(self.lanes) * group).step_by(64) {
                    let at = b.add(at, size + line);
                    b.prefetch(self.w, at);
                }
            });
        }
        self.products(b, at, starts, g, nv, sums, count)
    }

    /// The same with the weights of the group at `at`.
    #[allow(clippy::too_many_arguments)]
    fn products(
        &self,
        b: &mut Builder,
        at: Val,
        starts: &[Val],
        g: Val,
        nv: usize,
        sums: &[Val],
        count: i64,
    ) -> Vec<Val> {
        let (lanes, group) = (self.lanes, GROUP as i64);
        let bytes = Ty::vec(Elem::I8, lanes * GROUP as u16);
        let ws: Vec<Val> = (0..nv)
            .map(|v| {
                let at = b.add(at, v as i64 * i64::from(lanes) * group);
                b.load(self.w, at, bytes.lanes)
            })
            .collect();
        let mut next = Vec::with_capacity(sums.len());
        for (start, sums) in starts.iter().zip(sums.chunks(nv)) {
            let at = b.at(*start, g, group);
            let x = if count == group {
                let x = b.load(self.a, at, GROUP as u16);
                b.bitcast(x, Ty::I32)
            } else {
                self.partial(b, at, count)
            };
            let x = b.splat(x, lanes);
            let mut x = b.bitcast(x, bytes);
            if (self.a_type == DType::I8) != self.machine.signed {
                x = b.xor(x, 0x80);
            }
            for (w, s) in ws.iter().zip(sums) {
                next.push(if self.machine.signed { b.dot4_s8s8(*s, x, *w) } else { b.dot4_u8s8(*s, x, *w) });
            }
        }
        next
    }

    /// Fewer than four bytes as the low ones of 32 bits: nothing beyond a row is read.
    fn partial(&self, b: &mut Builder, at: Val, count: i64) -> Val {
        let mut x = b.zero(Ty::I32);
        for i in 0..count {
            let at = b.add(at, i);
            let v = b.load(self.a, at, 1);
            let v = b.zext(v, Elem::I32);
            let v = b.shl(v, 8 * i);
            x = b.or(x, v);
        }
        x
    }
}
