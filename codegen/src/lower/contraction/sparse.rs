//! Products with a constant matrix of which only some blocks are kept.
//!
//! The matrix lies in strips as wide as a block. For every strip there is a list of the inputs that reach it: `starts` holds where
//! the list of each strip begins (and where the last one ends), `index` the first input of each block, `values` its elements,
//! input by input. Which blocks are kept is data: kernels depend only on the size of the blocks.
//!
//! A tile keeps the sums of some rows of one strip in registers and walks its list. A few rows are read where they lie, more than
//! that are first copied so that the elements of 16 rows at one input are neighbours: what a list jumps to is one line of the cache
//! then, and rows that lie a power of two apart do not push each other out of it. Where a vector is as wide as such a group, whole
//! groups are computed in [tiles whose vectors hold rows](super::scattered).

use super::epilogue::{Epilogue, Place};
use super::matmul::Operands;
use super::scattered::{self, GROUP as TOGETHER};
use super::tile::{in_pieces, rows_that_fit};
use super::{div_up, f32_bytes};
use crate::kernel::{Buf, Builder, Elem, TargetSpec, Ty, Val};
use crate::lower::cx::{LowerCx, Opnd};
use crate::lower::launch::Launch;
use crate::lower::layout;
use bytes::Bytes;
use planish_ir::op::matmul::MatMul;
use planish_ir::{DType, Diag, Dim, Encoding, Matrix, Order, ValueId};

/// Rows of a tile of one vector and of several, at most.
const MOST: [usize; 2] = [16, 8];
/// Products of fewer rows read them where they lie.
const COPIED: i64 = 8;
/// Bytes of the rows that one unit of the parallel axis works on, at most, and most groups of them.
const NEAR: i64 = 512 << 10;
const GROUPS: i64 = 4;
/// Blocks of so many inputs are walked input by input without a loop.
const UNROLL: i64 = 8;
/// Sums of a tile, at least: with fewer a multiplication would wait for the one before.
const CHAINS: usize = 8;
/// Outputs whose sums a tile with vectors of rows keeps.
const PART: i64 = 8;

/// A matrix in blocks, as its constant holds it.
pub(super) struct Blocks {
    pub(super) matrix: Matrix,
    pub(super) block: [usize; 2],
    /// Kept blocks in the grid, ascending.
    pub(super) index: Vec<u32>,
    /// Their elements, block by block.
    pub(super) values: Vec<f32>,
}

/// The size of the blocks that the weights of a convolution are kept in.
pub(super) fn kept_blocks(cx: &LowerCx<'_>, w: ValueId) -> Option<[u32; 2]> {
    match &cx.constant(w)?.encoding {
        Encoding::BlockSparse { block, order: Order::Nk, .. } => Some(*block),
        _ => None,
    }
}

/// Whether there are kernels here for blocks of this size.
pub(super) fn has(block: [u32; 2]) -> bool {
    block[0] > 0 && matches!(block[1], 16 | 32)
}

impl Blocks {
    /// The constant that a value is, if that is f32 in blocks that there are kernels for.
    pub(super) fn of(cx: &LowerCx<'_>, v: ValueId) -> Option<Blocks> {
        Self::constant(cx, v).filter(|_| !cx.simt())
    }
    /// [`Blocks::of`] for GPUs too.
    fn constant(cx: &LowerCx<'_>, v: ValueId) -> Option<Blocks> {
        let c = cx.constant(v)?;
        let Encoding::BlockSparse { block, order, index, values } = &c.encoding else { return None };
        let known = has(*block) || (scattered::has(*block) && !cx.simt());
        if c.dtype != DType::F32 || !known || cx.dry {
            return None;
        }
        let matrix = Matrix::new(&c.shape, *order)?;
        let values: Vec<f32> = values.to_f64().into_iter().map(|x| x as f32).collect();
        let block = [block[0] as usize, block[1] as usize];
        let fits = values.len() == index.len() * block[0] * block[1];
        fits.then(|| Blocks { matrix, block, index: index.clone(), values })
    }
    /// The matrix cut into blocks of `height` inputs and `width` outputs: strip by strip the first input of every block, and its
    /// elements. Inputs beyond the last are left out, and so are rows of zeros where blocks become lower.
    pub(super) fn strips(&self, height: usize, width: usize) -> Vec<Vec<(usize, Vec<f32>)>> {
        let [bk, bn] = self.block;
        let across = self.matrix.n.div_ceil(bn);
        let per = bn / width;
        let mut strips = vec![Vec::new(); across * per];
        for (at, v) in self.index.iter().zip(self.values.chunks_exact((bk * bn).max(1))) {
            let (k0, strip) = (*at as usize / across * bk, *at as usize % across * per);
            for part in 0..per {
                for i in (0..bk).step_by(height) {
                    let rows = v.chunks_exact(bn).skip(i).take(height);
                    let piece: Vec<f32> =
                        rows.flat_map(|row| row[part * width..(part + 1) * width].iter().copied()).collect();
                    let kept = height == bk || piece.iter().any(|x| *x != 0.0);
                    if k0 + i < self.matrix.k && kept {
                        strips[strip + part].push((k0 + i, piece));
                    }
                }
            }
        }
        strips.truncate(self.matrix.n.div_ceil(width));
        strips
    }
}

/// Lists of blocks as kernels read them.
pub(in crate::lower) struct Lists {
    pub(in crate::lower) starts: Opnd,
    pub(in crate::lower) index: Opnd,
    pub(in crate::lower) values: Opnd,
    /// Blocks of all lists.
    pub(in crate::lower) count: i64,
}

/// The lists as weights.
pub(in crate::lower) fn lists(cx: &mut LowerCx<'_>, strips: Vec<Vec<(i64, Vec<f32>)>>) -> Lists {
    let mut starts = vec![0i32];
    let (mut index, mut values) = (Vec::new(), Vec::new());
    for list in strips {
        for (k, v) in list {
            index.push(k as i32);
            values.extend(v);
        }
        starts.push(index.len() as i32);
    }
    let count = index.len() as i64;
    let (starts, index) = (ints(cx, &starts), ints(cx, &index));
    let values = cx.weight(DType::F32, &[Dim::from(values.len())], f32_bytes(&values));
    Lists { starts, index, values, count }
}

/// Integers as weights.
pub(super) fn ints(cx: &mut LowerCx<'_>, v: &[i32]) -> Opnd {
    let bytes: Bytes = v.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>().into();
    cx.weight(DType::I32, &[Dim::from(v.len())], bytes)
}

/// The right operand in blocks, if it is one constant matrix that is.
pub(super) fn takes(cx: &LowerCx<'_>, op: &MatMul, o: &Operands) -> Option<Blocks> {
    let rank = o.b.len();
    let one = o.b[..rank - 2].iter().all(|d| d.is(1)) && (rank == 2 || !op.trans_b);
    if !one || op.trans_a || o.a.dtype != DType::F32 {
        return None;
    }
    Blocks::constant(cx, o.b_value).filter(|x| x.matrix.transposed == op.trans_b)
}

/// Emits a product with what follows it.
pub(super) fn emit(cx: &mut LowerCx<'_>, o: &Operands, x: &Blocks, mut e: Epilogue) -> Result<(), Diag> {
    if !has([x.block[0] as u32, x.block[1] as u32]) {
        return scattered::emit(cx, o, x, e);
    }
    let (k, n) = (x.matrix.k as i64, x.matrix.n as i64);
    let width = x.block[1] as i64;
    // No row may be read beyond its end.
    let height = if x.matrix.k.is_multiple_of(x.block[0]) { x.block[0] as i64 } else { 1 };
    let strips = x.strips(height as usize, width as usize);
    let m = Dim::product(&o.out[..o.out.len() - 1]);
    let known = m.as_const();
    let copied = known.is_none_or(|m| m >= COPIED);
    // Elements of the left operand from one input to the next.
    let apart = if copied { TOGETHER } else { 1 };
    let place = |list: Vec<(usize, Vec<f32>)>| list.into_iter().map(|(k, v)| (k as i64 * apart, v)).collect();
    let lists = lists(cx, strips.into_iter().map(place).collect());
    let strips = div_up(n, width);
    let a = match copied {
        true => layout::to_blocked(cx, &o.a.with_dims(vec![1.into(), m.clone(), k.into()]))?,
        false => o.a.clone(),
    };
    let rows = match copied {
        true => TOGETHER * (NEAR / (TOGETHER * 4 * k.max(1))).clamp(1, GROUPS),
        false => known.unwrap_or(1).max(1),
    };
    let chunks = m.ceil_div(&rows.into());
    let work = div_up(lists.count * height * width / 16, strips.max(1));
    let mut l =
        Launch::new("matmul_sparse").read(&a).read(&lists.starts).read(&lists.index).read(&lists.values);
    l = e.bufs(l, 4).dim(&m);
    let cost = m.smaller(&rows.into()).mul(&work.max(1).into());
    let flops = m.mul(&(2 * lists.count * height * width).into());
    l = l.extent(chunks.mul(&strips.into())).cost(cost).flops(flops);
    // Groups of rows of every unit, where that is one number.
    let groups = known.filter(|m| m % rows == 0 || (m % TOGETHER == 0 && *m < rows));
    let groups = groups.map(|m| m.min(rows) / TOGETHER);
    let some = known.is_none_or(|m| m >= TOGETHER);
    // Rows of every piece that tiles are cut from, where that is one number.
    let known = if copied { known.filter(|m| m % TOGETHER == 0).map(|_| TOGETHER) } else { known };
    cx.launch(l, move |kc| {
        let epi = e.handles(kc);
        let lanes = kc.lanes(Elem::F32).min(16);
        let m = kc.dim(0);
        let target = kc.target.clone();
        let bufs = [kc.buf(0), kc.buf(1), kc.buf(2), kc.buf(3)];
        let job = Job { bufs, copied, height, width, k, n, lanes, target: &target, e: &e, epi: &epi };
        let in_rows = copied && some && i64::from(lanes) == TOGETHER;
        let in_rows = in_rows.then(|| scattered::Job {
            x: bufs[0],
            group: kc.b.i64(TOGETHER * k),
            lists: [bufs[1], bufs[2], bufs[3]],
            entry: [height, width],
            part: PART,
            together: 1,
            strip: width,
            lanes,
            target: &target,
            local: scattered::Local::new(kc, width),
            stored: None,
        });
        kc.b.parallel_for(|b, unit| {
            let (chunk, strip) = b.div_rem(unit, strips);
            let m0 = b.mul(chunk, rows);
            let (from, to) = list(b, job.bufs[1], strip);
            let col = b.mul(strip, width);
            if !copied {
                job.rows(b, (from, to), (m0, known.unwrap_or(1)), col);
                return;
            }
            let end = b.add(m0, rows);
            let end = b.smin(end, m);
            let mut start = m0;
            if let Some(tiles) = &in_rows {
                let left = b.sub(end, m0);
                let count = b.sdiv(left, TOGETHER);
                let whole = b.mul(count, TOGETHER);
                let first = b.mul(m0, k);
                tiles.strip(b, strip, (first, whole), (count, groups), |b, row, at, sum| {
                    let (row, last) = (b.add(m0, row), b.add(col, at));
                    scattered::finish(b, (&e, &epi), sum, (row, last), (n, n % width != 0));
                });
                if known.is_some() {
                    return;
                }
                start = b.add(m0, whole);
            }
            b.loop_(start, end, TOGETHER, |b, row| match known {
                Some(_) => job.rows(b, (from, to), (row, TOGETHER), col),
                None => {
                    let left = b.sub(end, row);
                    let left = b.smin(left, TOGETHER);
                    in_pieces(b, left, None, job.most(), |b, r, rows| {
                        job.tile(b, (from, to), (row, r), col, rows);
                    });
                }
            });
        });
    })
}

/// What all tiles of a kernel share.
struct Job<'j> {
    /// The left operand, `starts`, `index` and `values`.
    bufs: [Buf; 4],
    /// Whether the left operand is a copy in groups of rows.
    copied: bool,
    height: i64,
    width: i64,
    k: i64,
    n: i64,
    lanes: u16,
    target: &'j TargetSpec,
    e: &'j Epilogue,
    epi: &'j [Buf],
}

/// The list of the strip at `strip`: first block and one past the last.
pub(in crate::lower) fn list(b: &mut Builder, starts: Buf, strip: Val) -> (Val, Val) {
    let next = b.add(strip, 1);
    [strip, next]
        .map(|at| {
            let v = b.load(starts, at, 1);
            b.sext(v, Elem::I64)
        })
        .into()
}

impl Job<'_> {
    fn vectors(&self) -> usize {
        (self.width / i64::from(self.lanes)) as usize
    }
    fn most(&self) -> usize {
        let nv = self.vectors();
        rows_that_fit(self.target, nv, MOST[usize::from(nv > 1)])
    }
    /// A known number of rows from `row` on.
    fn rows(&self, b: &mut Builder, list: (Val, Val), (row, count): (Val, i64), col: Val) {
        let rows = b.i64(count);
        in_pieces(b, rows, Some(count), self.most(), |b, r, size| self.tile(b, list, (row, r), col, size));
    }

    /// The rows `row + r..row + r + rows`; `row` is the first of a group.
    fn tile(&self, b: &mut Builder, (from, to): (Val, Val), (row, r): (Val, Val), col: Val, rows: usize) {
        let nv = self.vectors();
        let ty = Ty::vec(Elem::F32, self.lanes);
        let zero = b.zero(ty);
        let chains = CHAINS.div_ceil(rows * nv);
        let first = b.mul(row, self.k);
        let first = if self.copied { b.add(first, r) } else { b.at(first, r, self.k) };
        let count = b.sub(to, from);
        let whole = b.sdiv(count, chains as i64);
        let end = b.at(from, whole, chains as i64);
        let sums = vec![zero; rows * nv * chains];
        let all = b.for_(from, end, chains as i64, &sums, |b, at, all| {
            let mut next = Vec::with_capacity(all.len());
            for (c, sums) in (0..).zip(all.chunks(rows * nv)) {
                let at = b.add(at, c);
                next.extend(self.block(b, at, first, (rows, nv), sums));
            }
            next
        });
        let mut sums = all[..rows * nv].to_vec();
        if chains > 1 {
            sums = b.for_(end, to, 1, &sums, |b, at, sums| self.block(b, at, first, (rows, nv), sums));
        }
        for more in all[rows * nv..].chunks(rows * nv) {
            sums = sums.iter().zip(more).map(|(a, c)| b.fadd(*a, *c)).collect();
        }
        let top = b.add(row, r);
        for v in 0..nv {
            let last = b.add(col, v as i64 * i64::from(self.lanes));
            let mask = (self.n % self.width != 0).then(|| {
                let left = b.sub(self.n, last);
                b.mask_below(self.lanes, left)
            });
            for r in 0..rows {
                let row = b.add(top, r as i64);
                let index = b.at(last, row, self.n);
                self.e.finish(b, self.epi, sums[r * nv + v], &Place { index, channel: last, last }, mask);
            }
        }
    }

    /// Adds what block `at` of the lists gives.
    fn block(
        &self,
        b: &mut Builder,
        at: Val,
        first: Val,
        (rows, nv): (usize, usize),
        sums: &[Val],
    ) -> Vec<Val> {
        let [a, _, index, values] = self.bufs;
        let k = b.load(index, at, 1);
        let k = b.sext(k, Elem::I64);
        let [input, row] = if self.copied { [TOGETHER, 1] } else { [1, self.k] };
        let from = b.add(first, k);
        let weights = b.mul(at, self.height * self.width);
        let x = |b: &mut Builder, i: Val, r: usize| {
            let at = b.at(from, i, input);
            let at = b.add(at, r as i64 * row);
            b.load(a, at, 1)
        };
        inputs(b, self.height, (values, weights, self.width), (rows, nv, self.lanes), sums, &x)
    }
}

/// Adds the products of a block of `height` inputs: `x` gives the scalar of an input of the block for a row of the tile.
pub(in crate::lower) fn inputs(
    b: &mut Builder,
    height: i64,
    (values, first, width): (Buf, Val, i64),
    (rows, nv, lanes): (usize, usize, u16),
    sums: &[Val],
    x: &dyn Fn(&mut Builder, Val, usize) -> Val,
) -> Vec<Val> {
    let step = |b: &mut Builder, i: Val, sums: &[Val]| {
        let at = b.at(first, i, width);
        let w: Vec<Val> = (0..nv)
            .map(|v| {
                let at = b.add(at, v as i64 * i64::from(lanes));
                b.load(values, at, lanes)
            })
            .collect();
        let mut next = Vec::with_capacity(sums.len());
        for r in 0..rows {
            let x = x(b, i, r);
            let x = b.splat(x, lanes);
            for (v, w) in w.iter().enumerate() {
                next.push(b.fma(x, *w, sums[r * nv + v]));
            }
        }
        next
    };
    if height > UNROLL || rows * nv * height as usize > 64 {
        return b.for_(0, height, 1, sums, step);
    }
    (0..height).fold(sums.to_vec(), |sums, i| {
        let i = b.i64(i);
        step(b, i, &sums)
    })
}
