//! Reading and writing at places that data decide.

use super::cx::{LowerCx, Opnd};
use super::elem::{load, store};
use super::elementwise::scalar_op;
use super::launch::Launch;
use super::nest::{
    Block, bits_elem, copy_block, for_indices, load_index, offset, over, stride_vals, wrap_index,
};
use crate::kernel::{Access, Builder, Val};
use planish_ir::op::binary::Binary;
use planish_ir::op::gather::{Gather, GatherElements, GatherNd};
use planish_ir::op::scatter::{Reduction, ScatterElements, ScatterNd, TensorScatter};
use planish_ir::op::select::ReverseSequence;
use planish_ir::{Diag, Dim, Op};

const RANGE: &str = "an index is out of range";

pub(super) fn lower_gather(cx: &mut LowerCx<'_>, op: &Gather) -> Result<(), Diag> {
    if super::gate::defer(cx, op)? {
        return Ok(());
    }
    let (x, at) = (cx.input(0)?, cx.input(1)?);
    let y = cx.output(0)?;
    gather_rows(cx, &x, &at, &y, op.axis)
}

/// Rows of contiguous elements: `y[o, j, :] = x[o, at[j], :]`, where `axis` of `x` is the middle one.
pub(super) fn gather_rows(
    cx: &mut LowerCx<'_>,
    x: &Opnd,
    at: &Opnd,
    y: &Opnd,
    axis: usize,
) -> Result<(), Diag> {
    let outer = Dim::product(&x.dims[..axis]);
    let n = x.dims[axis].clone();
    let inner = Dim::product(&x.dims[axis + 1..]);
    let count = at.elems();
    let elem = bits_elem(x.dtype);
    let error = cx.error(RANGE);
    let index_type = at.dtype;
    let l = Launch::new("gather")
        .raw(x, elem, Access::Read)
        .raw(y, elem, Access::Write)
        .read(at)
        .raises(error)
        .bytes(y.elems().mul(&Dim::from(2 * x.dtype.size())));
    if inner.is(1) {
        let l = over(cx.chunk(), l.dim(&n), &[outer, count], 4);
        return cx.launch(l, move |k| {
            let (x, y, at) = (k.buf(0), k.buf(1), k.buf(2));
            let (n, error) = (k.dim(0), k.error(0));
            for_indices(k, 1, 2, |b, index, flat| {
                let i = load_index(b, index_type, at, index[1]);
                let (i, bad) = wrap_index(b, i, n);
                b.error_if(bad, error);
                let good = b.not(bad);
                b.when(good, |b| {
                    let from = b.mul(index[0], n);
                    let from = b.add(from, i);
                    let v = b.load(x, from, 1);
                    b.store(y, flat, v);
                });
            });
        });
    }
    let rows = outer.mul(&count);
    let l = l.dim(&n).dim(&count).dim(&inner).extent(rows).cost(inner.clone());
    cx.launch(l, move |k| {
        let (x, y, at) = (k.buf(0), k.buf(1), k.buf(2));
        let (n, count, inner, error) = (k.dim(0), k.dim(1), k.dim(2), k.error(0));
        let lanes = k.lanes(elem);
        k.b.parallel_for(|b, row| {
            let (o, j) = b.div_rem(row, count);
            let i = load_index(b, index_type, at, j);
            let (i, bad) = wrap_index(b, i, n);
            b.error_if(bad, error);
            let good = b.not(bad);
            b.when(good, |b| {
                let from = b.at(i, o, n);
                let from = b.mul(from, inner);
                let to = b.mul(row, inner);
                b.for_lanes(0, inner, lanes, |b, c, mask| {
                    let (s, d) = (b.add(from, c), b.add(to, c));
                    let v = b.load_opt(x, s, lanes, mask);
                    b.store_opt(y, d, v, mask);
                });
            });
        });
    })
}

pub(super) fn lower_gather_elements(cx: &mut LowerCx<'_>, op: &GatherElements) -> Result<(), Diag> {
    let (x, at) = (cx.input(0)?, cx.input(1)?);
    let y = cx.output(0)?;
    let (rank, axis, elem, index_type) = (x.dims.len(), op.axis, bits_elem(x.dtype), at.dtype);
    let error = cx.error(RANGE);
    let l = Launch::new("gather_elements")
        .raw(&x, elem, Access::Read)
        .raw(&y, elem, Access::Write)
        .read(&at)
        .raises(error);
    cx.launch(over(cx.chunk(), l.dims(&x.dims), &y.dims, 6), move |k| {
        let (x, y, at) = (k.buf(0), k.buf(1), k.buf(2));
        let (dims, error) = (k.dims(0, rank), k.error(0));
        let st = stride_vals(&mut k.b, &dims);
        for_indices(k, rank, rank, |b, index, flat| {
            let i = load_index(b, index_type, at, flat);
            let (i, mut bad) = wrap_index(b, i, dims[axis]);
            // Indices may be no longer than the tensor along the other axes.
            for a in (0..rank).filter(|a| *a != axis) {
                let beyond = b.cmp(crate::kernel::CmpOp::Sge, index[a], dims[a]);
                bad = b.or(bad, beyond);
            }
            b.error_if(bad, error);
            let good = b.not(bad);
            b.when(good, |b| {
                let mut from = index.to_vec();
                from[axis] = i;
                let from = offset(b, &from, &st);
                let v = b.load(x, from, 1);
                b.store(y, flat, v);
            });
        });
    })
}

/// The offset that an index tuple of length `count` at `tuple` selects, and whether it is out of range.
fn tuple_offset(
    b: &mut Builder,
    (index_type, at): (planish_ir::DType, crate::kernel::Buf),
    tuple: Val,
    dims: &[Val],
    strides: &[Val],
) -> (Val, Val) {
    let mut from = b.i64(0);
    let mut bad = b.int(crate::kernel::Ty::BOOL, 0);
    for (j, (d, s)) in dims.iter().zip(strides).enumerate() {
        let p = b.add(tuple, j as i64);
        let i = load_index(b, index_type, at, p);
        let (i, wrong) = wrap_index(b, i, *d);
        bad = b.or(bad, wrong);
        from = b.at(from, i, *s);
    }
    (from, bad)
}

/// Rows of contiguous elements: one for each index tuple.
pub(super) fn lower_gather_nd(cx: &mut LowerCx<'_>, op: &GatherNd) -> Result<(), Diag> {
    let (x, at) = (cx.input(0)?, cx.input(1)?);
    let y = cx.output(0)?;
    let batch = op.batch_dims;
    for a in 0..batch {
        cx.require_equal(&x.dims[a], &at.dims[a], "shared axes differ");
    }
    let k_len = at.dims.last().and_then(Dim::as_const).unwrap_or(0) as usize;
    let outer = at.dims.len() - 1;
    let rows = Dim::product(&at.dims[..outer]);
    let per_batch = Dim::product(&at.dims[batch..outer]);
    let inner = Dim::product(&x.dims[batch + k_len..]);
    let block = Dim::product(&x.dims[batch..]);
    let (elem, index_type) = (bits_elem(x.dtype), at.dtype);
    let error = cx.error(RANGE);
    let picked = x.dims[batch..batch + k_len].to_vec();
    let l = Launch::new("gather_nd")
        .raw(&x, elem, Access::Read)
        .raw(&y, elem, Access::Write)
        .read(&at)
        .raises(error)
        .dims(&picked)
        .dim(&per_batch)
        .dim(&inner)
        .dim(&block)
        .extent(rows)
        .cost(inner.add(&Dim::from(8 * k_len)));
    cx.launch(l, move |k| {
        let (x, y, at, error) = (k.buf(0), k.buf(1), k.buf(2), k.error(0));
        let dims = k.dims(0, k_len);
        let (per_batch, inner, block) = (k.dim(k_len), k.dim(k_len + 1), k.dim(k_len + 2));
        let lanes = k.lanes(elem);
        let st: Vec<Val> = stride_vals(&mut k.b, &dims).into_iter().map(|s| k.b.mul(s, inner)).collect();
        k.b.parallel_for(|b, row| {
            let tuple = b.mul(row, k_len as i64);
            let (from, bad) = tuple_offset(b, (index_type, at), tuple, &dims, &st);
            b.error_if(bad, error);
            let good = b.not(bad);
            b.when(good, |b| {
                let o = b.sdiv(row, per_batch);
                let from = b.at(from, o, block);
                let to = b.mul(row, inner);
                b.for_lanes(0, inner, lanes, |b, c, mask| {
                    let (s, d) = (b.add(from, c), b.add(to, c));
                    let v = b.load_opt(x, s, lanes, mask);
                    b.store_opt(y, d, v, mask);
                });
            });
        });
    })
}

/// Copies the operand into the result, which later steps write into.
fn start_from(cx: &mut LowerCx<'_>, x: &Opnd) -> Result<Opnd, Diag> {
    let y = cx.output(0)?;
    let block =
        Block { dims: x.dims.clone(), src: (Dim::Const(0), x.strides()), dst: (Dim::Const(0), y.strides()) };
    copy_block(cx, "copy", x, &y, block, None)?;
    Ok(y)
}

/// Writes one element: as bits, or combined with the old one.
fn combine(b: &mut Builder, op: &Option<Op>, d: planish_ir::DType, old: Val, new: Val) -> Val {
    match op {
        None => new,
        Some(op) => scalar_op(b, op, &[old, new], &[d, d], d),
    }
}

fn reduction_op(r: Reduction) -> Option<Op> {
    r.binary().map(|kind| Op::Binary(Binary { kind }))
}

/// Updates are written one after another, so that the last of equal places wins.
pub(super) fn lower_scatter_elements(cx: &mut LowerCx<'_>, op: &ScatterElements) -> Result<(), Diag> {
    let (x, at, up) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    for (a, u) in at.dims.iter().zip(&up.dims) {
        cx.require_equal(a, u, "indices and updates differ in shape");
    }
    let y = start_from(cx, &x)?;
    let (rank, axis, d, index_type) = (x.dims.len(), op.axis, x.dtype, at.dtype);
    let error = cx.error(RANGE);
    let how = reduction_op(op.reduction);
    let l = Launch::new("scatter_elements").update(&y).read(&up).read(&at).raises(error);
    let l = over(cx.chunk(), l.dims(&x.dims), &at.dims, 8).extent(Dim::Const(1));
    cx.launch(l, move |k| {
        let (y, up, at) = (k.buf(0), k.buf(1), k.buf(2));
        let (dims, sizes, error) = (k.dims(0, rank), k.dims(rank, rank), k.error(0));
        let st = stride_vals(&mut k.b, &dims);
        k.b.parallel_for(|b, _| {
            let mut total = b.i64(1);
            for s in &sizes {
                total = b.mul(total, *s);
            }
            b.loop_(0, total, 1, |b, flat| {
                let mut index = super::nest::decode(b, flat, &sizes);
                let i = load_index(b, index_type, at, flat);
                let (i, mut bad) = wrap_index(b, i, dims[axis]);
                for a in (0..rank).filter(|a| *a != axis) {
                    let beyond = b.cmp(crate::kernel::CmpOp::Sge, index[a], dims[a]);
                    bad = b.or(bad, beyond);
                }
                b.error_if(bad, error);
                let good = b.not(bad);
                b.when(good, |b| {
                    index[axis] = i;
                    let to = offset(b, &index, &st);
                    let new = load(b, d, up, flat, 1, None);
                    let old = load(b, d, y, to, 1, None);
                    let v = combine(b, &how, d, old, new);
                    store(b, d, y, to, v, None);
                });
            });
        });
    })
}

pub(super) fn lower_scatter_nd(cx: &mut LowerCx<'_>, op: &ScatterNd) -> Result<(), Diag> {
    let (x, at, up) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    let k_len = at.dims.last().and_then(Dim::as_const).unwrap_or(0) as usize;
    let outer = at.dims.len() - 1;
    for (a, u) in at.dims[..outer].iter().chain(&x.dims[k_len..]).zip(&up.dims) {
        cx.require_equal(a, u, "indices and updates differ in shape");
    }
    let y = start_from(cx, &x)?;
    let rows = Dim::product(&at.dims[..outer]);
    let inner = Dim::product(&x.dims[k_len..]);
    let (d, index_type) = (x.dtype, at.dtype);
    let error = cx.error(RANGE);
    let how = reduction_op(op.reduction);
    let picked = x.dims[..k_len].to_vec();
    let l = Launch::new("scatter_nd")
        .update(&y)
        .read(&up)
        .read(&at)
        .raises(error)
        .dims(&picked)
        .dim(&rows)
        .dim(&inner);
    cx.launch(l, move |k| {
        let (y, up, at, error) = (k.buf(0), k.buf(1), k.buf(2), k.error(0));
        let dims = k.dims(0, k_len);
        let (rows, inner) = (k.dim(k_len), k.dim(k_len + 1));
        let lanes = k.lanes(super::elem::compute_elem(d));
        let st: Vec<Val> = stride_vals(&mut k.b, &dims).into_iter().map(|s| k.b.mul(s, inner)).collect();
        k.b.parallel_for(|b, _| {
            b.loop_(0, rows, 1, |b, row| {
                let tuple = b.mul(row, k_len as i64);
                let (to, bad) = tuple_offset(b, (index_type, at), tuple, &dims, &st);
                b.error_if(bad, error);
                let good = b.not(bad);
                b.when(good, |b| {
                    let from = b.mul(row, inner);
                    b.for_lanes(0, inner, lanes, |b, c, mask| {
                        let (s, t) = (b.add(from, c), b.add(to, c));
                        let new = load(b, d, up, s, lanes, mask);
                        let v = match &how {
                            None => new,
                            Some(_) => {
                                let old = load(b, d, y, t, lanes, mask);
                                combine(b, &how, d, old, new)
                            }
                        };
                        store(b, d, y, t, v, mask);
                    });
                });
            });
        });
    })
}

pub(super) fn lower_tensor_scatter(cx: &mut LowerCx<'_>, op: &TensorScatter) -> Result<(), Diag> {
    let (x, up) = (cx.input(0)?, cx.input(1)?);
    let at = cx.opt_input(2)?;
    for (a, (d, u)) in x.dims.iter().zip(&up.dims).enumerate() {
        if a != op.axis {
            cx.require_equal(d, u, "cache and update differ in shape");
        }
    }
    if let Some(at) = &at {
        cx.require_equal(&at.elems(), &x.dims[0], "there must be a place for each batch");
    }
    let y = start_from(cx, &x)?;
    let (rank, axis, elem, circular) = (x.dims.len(), op.axis, bits_elem(x.dtype), op.circular);
    let error = cx.error(RANGE);
    let mut l = Launch::new("tensor_scatter")
        .raw(&y, elem, Access::ReadWrite)
        .raw(&up, elem, Access::Read)
        .raises(error);
    l = at.iter().fold(l, |l, a| l.read(a));
    let index_type = at.as_ref().map(|a| a.dtype);
    let n = x.dims[axis].clone();
    cx.launch(over(cx.chunk(), l.dims(&x.dims).dim(&n), &up.dims, 6), move |k| {
        let (y, up) = (k.buf(0), k.buf(1));
        let at = index_type.map(|t| (t, k.buf(2)));
        let (dims, n, error) = (k.dims(0, rank), k.dim(rank), k.error(0));
        let st = stride_vals(&mut k.b, &dims);
        for_indices(k, rank + 1, rank, |b, index, flat| {
            let start = match at {
                Some((t, buf)) => load_index(b, t, buf, index[0]),
                None => b.i64(0),
            };
            let mut i = b.add(start, index[axis]);
            if circular {
                let r = b.srem(i, n);
                let below = b.cmp(crate::kernel::CmpOp::Slt, r, 0);
                let up = b.add(r, n);
                i = b.select(below, up, r);
            }
            let bad = b.cmp(crate::kernel::CmpOp::Uge, i, n);
            b.error_if(bad, error);
            let good = b.not(bad);
            b.when(good, |b| {
                let mut to = index.to_vec();
                to[axis] = i;
                let to = offset(b, &to, &st);
                let v = b.load(up, flat, 1);
                b.store(y, to, v);
            });
        });
    })
}

pub(super) fn lower_reverse_sequence(cx: &mut LowerCx<'_>, op: &ReverseSequence) -> Result<(), Diag> {
    let (x, lens) = (cx.input(0)?, cx.input(1)?);
    let y = cx.output(0)?;
    let (rank, elem, batch, time) = (x.dims.len(), bits_elem(x.dtype), op.batch_axis, op.time_axis);
    let error = cx.error("a length is not within the time axis");
    cx.require_equal(&lens.elems(), &x.dims[batch], "there must be a length for each batch");
    let l = Launch::new("reverse_sequence")
        .raw(&x, elem, Access::Read)
        .raw(&y, elem, Access::Write)
        .read(&lens)
        .raises(error);
    cx.launch(over(cx.chunk(), l, &x.dims, 6), move |k| {
        let (x, y, lens, error) = (k.buf(0), k.buf(1), k.buf(2), k.error(0));
        let dims = k.dims(0, rank);
        let st = stride_vals(&mut k.b, &dims);
        for_indices(k, 0, rank, |b, index, flat| {
            let len = b.load(lens, index[batch], 1);
            let bad = b.cmp(crate::kernel::CmpOp::Ugt, len, dims[time]);
            b.error_if(bad, error);
            let len = b.select(bad, 0, len);
            let t = index[time];
            let last = b.sub(len, 1);
            let back = b.sub(last, t);
            let inside = b.cmp(crate::kernel::CmpOp::Slt, t, len);
            let from = b.select(inside, back, t);
            let shift = b.sub(from, t);
            let at = b.at(flat, shift, st[time]);
            let v = b.load(x, at, 1);
            b.store(y, flat, v);
        });
    })
}
