//! Matrix products.

use super::epilogue::{Epilogue, Place};
use super::tile::{Tile, balanced, in_pieces, max_rows, max_vectors};
use super::{div_up, f32_bytes};
use crate::kernel::{Buf, Builder, CmpOp, Elem, Opd, TargetSpec, Ty, Val};
use crate::lower::cx::{LowerCx, Opnd};
use crate::lower::elem::{compute_elem, load};
use crate::lower::launch::{KernelCx, Launch};
use crate::lower::layout;
use crate::lower::nest::decode;
use planish_ir::op::matmul::MatMul;
use planish_ir::{DType, Diag, Dim, ValueId};

/// Rows of one unit of the parallel axis.
const ROWS: i64 = 64;
/// Rows from which on a product has the time to read ahead.
const MANY_ROWS: i64 = 28;
/// Bytes of the right operand from which on it is read ahead.
const FAR: i64 = 512 << 10;
/// Elements of a line of the cache.
const LINE: i64 = 16;
/// Steps between which a tile reads some of the next block of the right operand ahead.
const STEPS: i64 = 16;
/// Columns of a block where the right operand is not packed.
const COLUMNS: i64 = 48;

/// The operands of a matrix product.
pub(in crate::lower) struct Operands {
    pub(in crate::lower) a: Opnd,
    /// Dims of the right operand.
    pub(in crate::lower) b: Vec<Dim>,
    pub(in crate::lower) b_type: DType,
    /// Value of the right operand. It gets memory only where it is not packed.
    pub(in crate::lower) b_value: ValueId,
    /// Dims of the result.
    pub(in crate::lower) out: Vec<Dim>,
}

impl Operands {
    /// Those of the product that is lowered, and its result with nothing behind it.
    pub(super) fn of(cx: &mut LowerCx<'_>) -> Result<(Operands, Epilogue), Diag> {
        let a = cx.input(0)?;
        let b_value = cx.input_value(1)?;
        let (b_type, b) = cx.tensor_type(b_value)?;
        let y = cx.output(0)?;
        let out = y.dims.clone();
        Ok((Operands { a, b, b_type, b_value, out }, Epilogue::none(y)))
    }
}

pub(in crate::lower) fn lower_matmul(cx: &mut LowerCx<'_>, op: &MatMul) -> Result<(), Diag> {
    let (operands, e) = Operands::of(cx)?;
    emit(cx, op, operands, e)
}

/// Columns of a packed block: the widest of the sizes that pad least.
fn block_width(n: i64) -> i64 {
    let padded = |w: i64| div_up(n, w) * w;
    [48, 64, 32, 16].into_iter().min_by_key(|w| padded(*w)).unwrap_or(16)
}

/// The right operand in blocks of columns, if it is one constant matrix of f32, or an expert's of a stack of them.
fn pack(cx: &mut LowerCx<'_>, op: &MatMul, o: &Operands) -> Result<Option<(Opnd, i64)>, Diag> {
    let rank = o.b.len();
    if o.b[..rank - 2].iter().any(|d| !d.is(1)) || o.a.dtype != DType::F32 {
        return Ok(None);
    }
    let stack = cx.stacked.get(&o.b_value).cloned();
    let found = match &stack {
        Some(s) => cx.f32_elements(cx.graph.constant(s.constant))?,
        None => cx.f32_constant(o.b_value)?,
    };
    let Some(v) = found else {
        return Ok(None);
    };
    let dim = |i: usize| o.b[i].as_const().unwrap_or(0);
    let (k, n) = if op.trans_b { (dim(rank - 1), dim(rank - 2)) } else { (dim(rank - 2), dim(rank - 1)) };
    let width = block_width(n);
    let blocks = div_up(n, width);
    let parts = stack.as_ref().map_or(1, |s| s.parts);
    let size = (blocks * k * width) as usize;
    let part = |p: usize| pack_blocks(&v[p * (k * n) as usize..], (k, n), op.trans_b, width, k);
    let packed: Vec<f32> = (0..parts).flat_map(part).collect();
    let dims = [Dim::from(packed.len())];
    let mut data = cx.weight(DType::F32, &dims, f32_bytes(&packed));
    if let Some(s) = stack {
        let at = s.number.mul(&Dim::from(4 * size));
        data.slot = cx.view(&data, DType::F32, &[Dim::from(size)], &at);
        data.dims = vec![Dim::from(size)];
    }
    Ok(Some((data, width)))
}

/// A matrix in blocks of `width` columns, each with the rows one behind the other: `k` of them, filled up with zeros to `rows`.
pub(super) fn pack_blocks(
    v: &[f32],
    (k, n): (i64, i64),
    transposed: bool,
    width: i64,
    rows: i64,
) -> Vec<f32> {
    let mut packed = vec![0f32; (div_up(n, width) * rows * width) as usize];
    for j in 0..n {
        let (block, c) = (j / width, j % width);
        for i in 0..k {
            let from = if transposed { j * k + i } else { i * n + j };
            packed[((block * rows + i) * width + c) as usize] = v[from as usize];
        }
    }
    packed
}

/// Emits a product with what follows it.
pub(in crate::lower) fn emit(
    cx: &mut LowerCx<'_>,
    op: &MatMul,
    mut o: Operands,
    mut e: Epilogue,
) -> Result<(), Diag> {
    let rank = o.out.len();
    let (m, n) = (o.out[rank - 2].clone(), o.out[rank - 1].clone());
    let ar = o.a.dims.len();
    let k_dim = if op.trans_a { o.a.dims[ar - 2].clone() } else { o.a.dims[ar - 1].clone() };
    let br = o.b.len();
    let kb = if op.trans_b { o.b[br - 1].clone() } else { o.b[br - 2].clone() };
    cx.require_equal(&k_dim, &kb, "the inner dims of a matrix product differ");
    let lead = &o.out[..rank - 2];
    cx.require_broadcast(&o.a.dims[..ar - 2], lead);
    cx.require_broadcast(&o.b[..br - 2], lead);
    if cx.simt() {
        return super::simt::emit(cx, op, &o, e);
    }
    if let Some(x) = super::sparse::takes(cx, op, &o) {
        return super::sparse::emit(cx, &o, &x, e);
    }
    let packed = pack(cx, op, &o)?;
    let b_buf = match &packed {
        Some((data, _)) => data.clone(),
        None => {
            let b = cx.memory_of(o.b_value)?;
            let b = if op.trans_b { transposed(cx, &b)? } else { b };
            o.b.clone_from(&b.dims);
            b
        }
    };
    // With one packed matrix all rows of the left operand are rows of one product.
    let flat = packed.is_some() && !op.trans_a;
    let batch: Vec<Dim> = if flat { Vec::new() } else { o.out[..rank - 2].to_vec() };
    let m = if flat { Dim::product(&o.out[..rank - 1]) } else { m };
    let width = packed.as_ref().map_or(COLUMNS, |p| p.1);
    let blocks = n.ceil_div(&width.into());
    let chunks = m.ceil_div(&ROWS.into());
    let batches = Dim::product(&batch);
    let flops = Dim::product(&o.out).mul(&k_dim).mul(&2.into());
    let mut l = Launch::new("matmul").read(&o.a).read(&b_buf);
    l = e.bufs(l, 2);
    l = l.dim(&m).dim(&n).dim(&k_dim).dim(&blocks).dim(&chunks).dims(&batch);
    let nb = batch.len();
    l = l.dims(&batch_dims(&o.a.dims, nb)).dims(&batch_dims(&o.b, nb));
    let cost = m.smaller(&ROWS.into()).mul(&k_dim).mul(&(width / 16).into());
    l = l.extent(batches.mul(&blocks).mul(&chunks)).cost(cost).flops(flops);
    let (a_type, b_type) = (o.a.dtype, o.b_type);
    let far =
        o.b.iter().try_fold(4, |n: i64, d| n.checked_mul(d.as_const()?)).is_some_and(|bytes| bytes > FAR);
    let ahead = m.as_const().filter(|m| *m >= MANY_ROWS && packed.is_some() && far);
    let packed = packed.is_some();
    let trans_a = op.trans_a;
    let known = (m.as_const(), n.as_const());
    cx.launch(l, move |k| {
        let elem = compute_elem(a_type);
        let lanes = k.lanes(elem);
        let epi = e.handles(k);
        let dims = k.dims(0, 5);
        let batch = k.dims(5, nb);
        let (ad, bd) =
            if packed && !trans_a { (vec![], vec![]) } else { (k.dims(5 + nb, nb), k.dims(5 + 2 * nb, nb)) };
        let job = Job {
            a: k.buf(0),
            b: k.buf(1),
            a_type,
            b_type,
            elem,
            lanes,
            packed,
            trans_a,
            width,
            ahead,
            m: dims[0],
            n: dims[1],
            k: dims[2],
            e: &e,
            epi: &epi,
            target: k.target.clone(),
        };
        units(k, &job, (dims[3], dims[4]), &batch, &ad, &bd, known);
    })
}

/// What all tiles of a kernel share.
struct Job<'j> {
    a: Buf,
    b: Buf,
    a_type: DType,
    b_type: DType,
    elem: Elem,
    lanes: u16,
    packed: bool,
    trans_a: bool,
    width: i64,
    /// Rows of the product, if its blocks are read ahead.
    ahead: Option<i64>,
    m: Val,
    n: Val,
    k: Val,
    e: &'j Epilogue,
    epi: &'j [Buf],
    target: TargetSpec,
}

/// The dims of an operand along the `axes` batch axes of the result, 1 where it has none: they tell where it is broadcast.
pub(super) fn batch_dims(x: &[Dim], axes: usize) -> Vec<Dim> {
    let lead = x.len() - 2;
    (0..axes).map(|i| (i + lead).checked_sub(axes).map_or(1.into(), |j| x[j].clone())).collect()
}

/// Offset of a batch in an operand whose batch dims may be 1.
pub(super) fn batch_offset(b: &mut Builder, coords: &[Val], dims: &[Val], matrix: Val) -> Val {
    let mut at = b.i64(0);
    for (c, d) in coords.iter().zip(dims) {
        let single = b.cmp(CmpOp::Eq, *d, 1);
        let c = b.select(single, 0, *c);
        let t = b.mul(at, *d);
        at = b.add(t, c);
    }
    b.mul(at, matrix)
}

/// The loop over batches, blocks of columns and chunks of rows.
fn units(
    k: &mut KernelCx<'_>,
    job: &Job<'_>,
    (blocks, chunks): (Val, Val),
    batch: &[Val],
    ad: &[Val],
    bd: &[Val],
    known: (Option<i64>, Option<i64>),
) {
    k.b.parallel_for(|b, unit| {
        let (rest, chunk) = b.div_rem(unit, chunks);
        let (which, block) = b.div_rem(rest, blocks);
        let coords = decode(b, which, batch);
        let a_size = b.mul(job.m, job.k);
        let a0 = batch_offset(b, &coords, ad, a_size);
        let b0 = if job.packed {
            let steps = b.mul(block, job.k);
            b.mul(steps, job.width)
        } else {
            let size = b.mul(job.k, job.n);
            let at = batch_offset(b, &coords, bd, size);
            b.at(at, block, job.width)
        };
        let c_size = b.mul(job.m, job.n);
        let c0 = b.mul(which, c_size);
        let m0 = b.mul(chunk, ROWS);
        let rows = b.sub(job.m, m0);
        let rows = b.smin(rows, ROWS);
        let n0 = b.mul(block, job.width);
        let columns = b.sub(job.n, n0);
        let columns = b.smin(columns, job.width);
        let at = Corner { a0, b0, c0, m0, n0 };
        job.columns(b, &at, rows, columns, known);
    });
}

/// Where a unit begins.
struct Corner {
    a0: Val,
    b0: Val,
    c0: Val,
    m0: Val,
    n0: Val,
}

impl Job<'_> {
    /// Whole tiles of columns, then the rest one masked vector at a time.
    fn columns(
        &self,
        b: &mut Builder,
        at: &Corner,
        rows: Val,
        columns: Val,
        known: (Option<i64>, Option<i64>),
    ) {
        let lanes = i64::from(self.lanes);
        // A width that is no multiple of the widest tile is cut evenly.
        let per_block = (self.width / lanes).max(1) as usize;
        let nv = match known.0 {
            Some(m @ 1..=6) => widest(&self.target, m as usize, per_block),
            _ => max_vectors(&self.target).min(per_block),
        };
        let pieces = balanced(per_block, nv);
        let even = pieces.iter().all(|p| *p == pieces[0]);
        let nv = if even { pieces[0] } else { 1 };
        let step = nv as i64 * lanes;
        let whole = b.sdiv(columns, step);
        let end = b.mul(whole, step);
        b.loop_(0, end, step, |b, col| self.rows(b, at, rows, col, nv, None, known.0));
        if known.1.is_none_or(|n| n % step != 0) {
            b.loop_(end, columns, lanes, |b, col| {
                let left = b.sub(columns, col);
                let mask = b.mask_below(self.lanes, left);
                self.rows(b, at, rows, col, 1, Some(mask), known.0);
            });
        }
    }
    /// All rows of a chunk for some columns. A known number of rows is cut evenly, an unknown one into whole tiles and then
    /// powers of two.
    #[allow(clippy::too_many_arguments)]
    fn rows(
        &self,
        b: &mut Builder,
        at: &Corner,
        rows: Val,
        col: Val,
        nv: usize,
        mask: Option<Val>,
        m: Option<i64>,
    ) {
        let most = max_rows(&self.target, nv).min(9);
        let known = m.filter(|m| *m <= ROWS);
        // With few registers a power of two leaves too few sums to hide the latency of multiplications.
        let few = self.target.registers < 32;
        let most = if known.is_some() || few { most } else { 1 << most.min(8).ilog2() };
        in_pieces(b, rows, known, most, |b, r, size| self.tile(b, at, r, col, size, nv, mask));
    }
    #[allow(clippy::too_many_arguments)]
    fn tile(
        &self,
        b: &mut Builder,
        at: &Corner,
        r0: Val,
        col: Val,
        rows: usize,
        nv: usize,
        mask: Option<Val>,
    ) {
        let row0 = b.add(at.m0, r0);
        // Lines of the next block that a tile reads ahead every few steps: the tiles that use a block read the next one together.
        let ahead = self.ahead.map(|m| div_up(div_up(self.width, LINE) * STEPS, div_up(m, rows as i64)));
        let a = |b: &mut Builder, k: Val, r: usize| {
            let row = b.add(row0, r as i64);
            let idx = if self.trans_a { b.at(row, k, self.m) } else { b.at(k, row, self.k) };
            let idx = b.add(idx, at.a0);
            load(b, self.a_type, self.a, idx, 1, None)
        };
        let bv = |b: &mut Builder, k: Val, v: usize| {
            let stride: Opd = if self.packed { self.width.into() } else { self.n.into() };
            let idx = b.at(at.b0, k, stride);
            let idx = b.add(idx, col);
            let idx = b.add(idx, v as i64 * i64::from(self.lanes));
            // Packed blocks are padded, so only the store needs the mask.
            let mask = if self.packed { None } else { mask };
            load(b, self.b_type, self.b, idx, self.lanes, mask)
        };
        let sums_of = |b: &mut Builder, k: (Val, Val), init: Option<Vec<Val>>| {
            Tile { rows, nv, lanes: self.lanes, elem: self.elem, k, a: &a, b: &bv }.emit(b, init)
        };
        let zero = b.i64(0);
        let sums = match ahead {
            Some(share) => {
                let whole = b.sdiv(self.k, STEPS);
                let first = b.at(at.b0, self.k, self.width);
                let share_of = b.div_const(row0, rows as i64);
                let share_of = b.mul(share_of, whole);
                let zeros = vec![b.zero(Ty::vec(self.elem, self.lanes)); rows * nv];
                let sums = b.for_(0, whole, 1, &zeros, |b, step, acc| {
                    let line = b.add(share_of, step);
                    let line = b.at(first, line, share * LINE);
                    for i in 0..share {
                        let line = b.add(line, i * LINE);
                        b.prefetch(self.b, line);
                    }
                    let from = b.mul(step, STEPS);
                    let to = b.add(from, STEPS);
                    sums_of(b, (from, to), Some(acc.to_vec()))
                });
                let from = b.mul(whole, STEPS);
                sums_of(b, (from, self.k), Some(sums))
            }
            None => sums_of(b, (zero, self.k), None),
        };
        for r in 0..rows {
            let row = b.add(row0, r as i64);
            let line = b.at(at.c0, row, self.n);
            for v in 0..nv {
                let last = b.add(at.n0, col);
                let last = b.add(last, v as i64 * i64::from(self.lanes));
                let index = b.add(line, last);
                let place = Place { index, channel: last, last };
                self.e.finish(b, self.epi, sums[r * nv + v], &place, mask);
            }
        }
    }
}

/// Vectors of a tile of few rows, a divisor of those of a block: as many as the registers hold. What limits these
/// products is reading the right operand, which should be one stream: a block that is read in two passes comes from
/// memory twice.
pub(super) fn widest(target: &TargetSpec, rows: usize, per_block: usize) -> usize {
    let registers = usize::from(target.registers);
    // The vectors of a single row are operands in memory.
    let held = |nv: usize| rows * nv + if rows == 1 { 1 } else { nv } + 1;
    (1..=per_block).rev().find(|nv| per_block.is_multiple_of(*nv) && held(*nv) <= registers).unwrap_or(1)
}

/// Columns that a unit of a transposition takes.
const STRIP: i64 = 16;

/// The operand with its last two axes swapped, in memory of its own.
pub(super) fn transposed(cx: &mut LowerCx<'_>, x: &Opnd) -> Result<Opnd, Diag> {
    let rank = x.dims.len();
    let mut dims = x.dims.clone();
    dims.swap(rank - 1, rank - 2);
    let y = cx.temp(x.dtype, &dims);
    let (rows, cols) = (x.dims[rank - 2].clone(), x.dims[rank - 1].clone());
    let batches = Dim::product(&x.dims[..rank - 2]);
    let strips = cols.ceil_div(&STRIP.into());
    let l = Launch::new("transpose").read(x).write(&y).dim(&rows).dim(&cols).dim(&strips);
    let l = l.extent(batches.mul(&strips)).cost(rows.clone());
    let d = x.dtype;
    cx.launch(l, move |k| {
        let lanes = i64::from(k.lanes(Elem::F32)).min(STRIP);
        let (x, y, rows, cols, strips) = (k.buf(0), k.buf(1), k.dim(0), k.dim(1), k.dim(2));
        k.b.parallel_for(|b, unit| {
            let (batch, strip) = b.div_rem(unit, strips);
            let size = b.mul(rows, cols);
            let first = b.mul(batch, size);
            let c0 = b.mul(strip, STRIP);
            let end = b.add(c0, STRIP);
            let end = b.smin(end, cols);
            // Squares of a vector each, as far as they go.
            let (mut row, mut col) = (b.i64(0), c0);
            if d == DType::F32 && lanes > 1 {
                let whole = b.sdiv(rows, lanes);
                row = b.mul(whole, lanes);
                let width = b.sub(end, c0);
                let whole = b.sdiv(width, lanes);
                col = b.at(c0, whole, lanes);
                b.loop_(0, row, lanes, |b, r| {
                    b.loop_(c0, col, lanes, |b, c| {
                        let square = (0..lanes).map(|i| {
                            let r = b.add(r, i);
                            let at = b.at(first, r, cols);
                            let at = b.add(at, c);
                            b.load(x, at, lanes as u16)
                        });
                        let square = square.collect();
                        for (i, v) in (0..).zip(layout::transposed(b, square)) {
                            let c = b.add(c, i);
                            let at = b.at(first, c, rows);
                            let at = b.add(at, r);
                            b.store(y, at, v);
                        }
                    });
                });
            }
            let single = |b: &mut Builder, r: Val, c: Val| {
                let at = b.at(first, r, cols);
                let at = b.add(at, c);
                let v = load(b, d, x, at, 1, None);
                let at = b.at(first, c, rows);
                let at = b.add(at, r);
                crate::lower::elem::store(b, d, y, at, v, None);
            };
            // Rows beyond the squares, then columns beyond them.
            b.loop_(c0, end, 1, |b, c| b.loop_(row, rows, 1, |b, r| single(b, r, c)));
            b.loop_(col, end, 1, |b, c| b.loop_(0, row, 1, |b, r| single(b, r, c)));
        });
    })?;
    Ok(y)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_rows_take_a_block_in_one_pass_where_registers_hold_it() {
        let (wide, narrow) = (TargetSpec::x86_64_v4(), TargetSpec::x86_64_v3());
        assert_eq!([1, 2, 6].map(|m| widest(&wide, m, 4)), [4, 4, 4]);
        assert_eq!([1, 2, 6].map(|m| widest(&narrow, m, 8)), [8, 4, 2]);
        assert_eq!(widest(&narrow, 6, 3), 1);
    }
}
