//! Loop nests that several families share: copies between strided blocks, and a loop over all indices of a shape.

use super::cx::{LowerCx, Opnd};
use super::launch::{KernelCx, Launch};
use crate::kernel::{Access, Buf, Builder, CmpOp, Elem, Opd, Val};
use planish_ir::{DType, Diag, Dim};

/// The integer type as wide as a dtype in memory, for moving elements bit for bit.
pub(super) fn bits_elem(d: DType) -> Elem {
    match d.size() {
        8 => Elem::I64,
        4 => Elem::I32,
        2 => Elem::I16,
        _ => Elem::I8,
    }
}

/// The indices of a row-major position.
pub(super) fn decode(b: &mut Builder, flat: Val, dims: &[Val]) -> Vec<Val> {
    decode_by(b, flat, dims, |b, rest, d| b.div_rem(rest, d))
}

/// [`decode`] with a division of the caller's.
pub(super) fn decode_by(
    b: &mut Builder,
    flat: Val,
    dims: &[Val],
    divide: impl Fn(&mut Builder, Val, Val) -> (Val, Val),
) -> Vec<Val> {
    let mut rest = flat;
    let mut out = vec![flat; dims.len()];
    for a in (1..dims.len()).rev() {
        (rest, out[a]) = divide(b, rest, dims[a]);
    }
    if let Some(first) = out.first_mut() {
        *first = rest;
    }
    out
}

/// Row-major strides of dims as values.
pub(super) fn stride_vals(b: &mut Builder, dims: &[Val]) -> Vec<Val> {
    let one = b.i64(1);
    let mut out = vec![one; dims.len()];
    for a in (1..dims.len()).rev() {
        out[a - 1] = b.mul(out[a], dims[a]);
    }
    out
}

/// The elements `lo..hi` of the chunk `which` of `n` elements, `size` to a chunk.
pub(super) fn span(
    b: &mut Builder,
    which: Val,
    size: impl Into<Opd> + Copy,
    n: impl Into<Opd>,
) -> (Val, Val) {
    let lo = b.mul(which, size);
    let hi = b.add(lo, size);
    (lo, b.smin(hi, n))
}

/// The sum of index times stride.
pub(super) fn offset(b: &mut Builder, index: &[Val], strides: &[Val]) -> Val {
    let mut at = b.i64(0);
    for (i, s) in index.iter().zip(strides) {
        at = b.at(at, *i, *s);
    }
    at
}

/// Appends the dims of a loop over all their indices to a launch, for [`for_indices`]. `chunk` is that of the lowering.
pub(super) fn over(chunk: i64, l: Launch, dims: &[Dim], cost: i64) -> Launch {
    let inner = dims.last().cloned().unwrap_or(Dim::Const(1));
    let rows = Dim::product(&dims[..dims.len().saturating_sub(1)]);
    let chunks = inner.ceil_div(&chunk.into());
    l.dims(dims).dim(&chunks).extent(rows.mul(&chunks)).cost(inner.smaller(&chunk.into()).mul(&cost.into()))
}

/// A loop over all indices of the `rank` dims that [`over`] appended as dims `at..`: the body gets the index tuple and
/// its row-major position.
pub(super) fn for_indices(
    k: &mut KernelCx<'_>,
    at: usize,
    rank: usize,
    body: impl FnOnce(&mut Builder, &[Val], Val),
) {
    let dims = k.dims(at, rank);
    let chunks = k.dim(at + rank);
    let size = k.chunk();
    k.b.parallel_for(|b, unit| {
        let (row, chunk) = b.div_rem(unit, chunks);
        let Some((inner, outer)) = dims.split_last() else {
            let zero = b.i64(0);
            return body(b, &[], zero);
        };
        let mut index = decode(b, row, outer);
        let base = b.mul(row, *inner);
        let (lo, hi) = span(b, chunk, size, *inner);
        b.loop_(lo, hi, 1, |b, i| {
            index.push(i);
            let flat = b.add(base, i);
            body(b, &index, flat);
        });
    });
}

/// A copy of elements between blocks of strides, all in elements.
#[derive(Clone, Debug)]
pub(super) struct Block {
    /// Sizes of the axes.
    pub(super) dims: Vec<Dim>,
    /// Where the source begins, and its stride for each axis.
    pub(super) src: (Dim, Vec<Dim>),
    /// The same of the destination.
    pub(super) dst: (Dim, Vec<Dim>),
}

/// Rows that a unit of work of a block copy takes together.
const ROWS: i64 = 16;

/// Emits the copy. With `plan`, an i64 slot, the source begins at its element 0 and has the strides that follow.
pub(super) fn copy_block(
    cx: &mut LowerCx<'_>,
    label: &str,
    x: &Opnd,
    y: &Opnd,
    block: Block,
    plan: Option<&Opnd>,
) -> Result<(), Diag> {
    let c = if plan.is_none() { collapse(block) } else { pad_rank(block) };
    let rank = c.dims.len();
    let (rows, inner) = (c.dims[rank - 2].clone(), c.dims[rank - 1].clone());
    let chunk = cx.chunk();
    let block_rows = chunk.min(ROWS);
    let (row_blocks, chunks) = (rows.ceil_div(&block_rows.into()), inner.ceil_div(&chunk.into()));
    let outer = Dim::product(&c.dims[..rank - 2]);
    let elem = bits_elem(x.dtype);
    let mut l = Launch::new(label).raw(x, elem, Access::Read).raw(y, elem, Access::Write);
    if let Some(p) = plan {
        l = l.read(p);
    }
    let l = l
        .dims(&c.dims)
        .dims(&c.src.1)
        .dims(&c.dst.1)
        .dim(&c.src.0)
        .dim(&c.dst.0)
        .dim(&row_blocks)
        .dim(&chunks)
        .extent(outer.mul(&row_blocks).mul(&chunks))
        .cost(inner.smaller(&chunk.into()).mul(&rows.smaller(&block_rows.into())))
        .bytes(Dim::product(&c.dims).mul(&Dim::from(2 * x.dtype.size())));
    let planned = plan.is_some();
    cx.launch(l, move |k| copy_kernel(k, rank, planned, elem))
}

fn copy_kernel(k: &mut KernelCx<'_>, rank: usize, planned: bool, elem: Elem) {
    let (x, y) = (k.buf(0), k.buf(1));
    let dims = k.dims(0, rank);
    let (mut src, dst) = (k.dims(rank, rank), k.dims(2 * rank, rank));
    let rest = k.dims(3 * rank, 4);
    let (mut src_at, dst_at, row_blocks, chunks) = (rest[0], rest[1], rest[2], rest[3]);
    let (lanes, chunk) = (k.lanes(elem), k.chunk());
    if planned {
        let p = k.buf(2);
        src_at = k.b.load(p, 0, 1);
        // A plan has no strides for the axes that were put in front to have two.
        let mut next = 1;
        for s in &mut src {
            if k.b.known_int(*s) != Some(0) {
                *s = k.b.load(p, next, 1);
                next += 1;
            }
        }
    }
    let (ri, ii) = (rank - 2, rank - 1);
    k.b.parallel_for(|b, unit| {
        let sizes = [dims[..ri].to_vec(), vec![row_blocks, chunks]].concat();
        let index = decode(b, unit, &sizes);
        let (mut sx, mut sy) = (src_at, dst_at);
        for a in 0..ri {
            sx = b.at(sx, index[a], src[a]);
            sy = b.at(sy, index[a], dst[a]);
        }
        let (r0, r1) = span(b, index[ri], chunk.min(ROWS), dims[ri]);
        let (i0, i1) = span(b, index[ri + 1], chunk, dims[ii]);
        let known = |b: &Builder, v: Val| b.known_int(v);
        if known(b, src[ri]) == Some(1) && known(b, src[ii]) != Some(1) {
            // The source is contiguous across rows: run through them innermost.
            b.loop_(i0, i1, 1, |b, i| {
                let (px, py) = (b.at(sx, i, src[ii]), b.at(sy, i, dst[ii]));
                b.loop_(r0, r1, 1, |b, r| copy_one(b, x, y, (px, r, src[ri]), (py, r, dst[ri])));
            });
            return;
        }
        b.loop_(r0, r1, 1, |b, r| {
            let (px, py) = (b.at(sx, r, src[ri]), b.at(sy, r, dst[ri]));
            match (known(b, src[ii]), known(b, dst[ii])) {
                (Some(1), Some(1)) => b.for_lanes(i0, i1, lanes, |b, i, mask| {
                    let (from, to) = (b.add(px, i), b.add(py, i));
                    let v = b.load_opt(x, from, lanes, mask);
                    b.store_opt(y, to, v, mask);
                }),
                (Some(0), Some(1)) => {
                    let some = b.cmp(CmpOp::Slt, i0, i1);
                    b.when(some, |b| {
                        let v = b.load(x, px, 1);
                        let v = b.splat(v, lanes);
                        b.for_lanes(i0, i1, lanes, |b, i, mask| {
                            let to = b.add(py, i);
                            b.store_opt(y, to, v, mask);
                        });
                    });
                }
                _ => b.loop_(i0, i1, 1, |b, i| copy_one(b, x, y, (px, i, src[ii]), (py, i, dst[ii]))),
            }
        });
    });
}

fn copy_one(b: &mut Builder, x: Buf, y: Buf, from: (Val, Val, Val), to: (Val, Val, Val)) {
    let (px, py) = (b.at(from.0, from.1, from.2), b.at(to.0, to.1, to.2));
    let v = b.load(x, px, 1);
    b.store(y, py, v);
}

/// The same copy with axes of size 1 dropped, and neighbours merged that both sides run through alike.
fn collapse(c: Block) -> Block {
    let mut out = Block { dims: vec![], src: (c.src.0.clone(), vec![]), dst: (c.dst.0.clone(), vec![]) };
    for (a, d) in c.dims.iter().enumerate().rev() {
        if d.is(1) {
            continue;
        }
        let (s, t) = (&c.src.1[a], &c.dst.1[a]);
        let joins = match (out.dims.first(), out.src.1.first(), out.dst.1.first()) {
            (Some(n), Some(ps), Some(pt)) => ps.mul(n) == *s && pt.mul(n) == *t,
            _ => false,
        };
        if joins {
            out.dims[0] = out.dims[0].mul(d);
        } else {
            out.dims.insert(0, d.clone());
            out.src.1.insert(0, s.clone());
            out.dst.1.insert(0, t.clone());
        }
    }
    pad_rank(out)
}

/// Puts axes of size 1 in front, or behind an inner axis that cannot be vectors, until there are two.
fn pad_rank(mut c: Block) -> Block {
    if c.dims.is_empty() {
        c.dims.push(Dim::Const(1));
        c.src.1.push(Dim::Const(1));
        c.dst.1.push(Dim::Const(1));
    }
    while c.dims.len() < 2 {
        c.dims.insert(0, Dim::Const(1));
        c.src.1.insert(0, Dim::Const(0));
        c.dst.1.insert(0, Dim::Const(0));
    }
    c
}

/// Fills a slot with one element of another: every element of `y` becomes element 0 of `value`.
pub(super) fn fill(cx: &mut LowerCx<'_>, value: &Opnd, y: &Opnd) -> Result<(), Diag> {
    let block = Block {
        dims: vec![y.elems()],
        src: (Dim::Const(0), vec![Dim::Const(0)]),
        dst: (Dim::Const(0), vec![Dim::Const(1)]),
    };
    copy_block(cx, "fill", value, y, block, None)
}

/// A slot with one element, zero.
pub(super) fn zero(cx: &mut LowerCx<'_>, d: DType) -> Opnd {
    cx.weight(d, &[], bytes::Bytes::from(vec![0u8; d.size()]))
}

/// Loads an integer element of an i32 or i64 slot as `I64`.
pub(super) fn load_index(b: &mut Builder, d: DType, buf: Buf, at: Val) -> Val {
    let v = b.load(buf, at, 1);
    if d == DType::I32 { b.sext(v, Elem::I64) } else { v }
}

/// A possibly negative index into an axis of size `n`, and whether it is out of range.
pub(super) fn wrap_index(b: &mut Builder, i: Val, n: Val) -> (Val, Val) {
    let below = b.cmp(CmpOp::Slt, i, 0);
    let from_end = b.add(i, n);
    let i = b.select(below, from_end, i);
    let bad = b.cmp(CmpOp::Uge, i, n);
    (i, bad)
}
