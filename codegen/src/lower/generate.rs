//! Tensors made from few numbers, triangles, and results whose size data decide.

use super::cx::{LowerCx, Opnd};
use super::elem::{convert, load, store};
use super::indexing::gather_rows;
use super::launch::Launch;
use super::lines::flag;
use super::movement::is_fresh;
use super::nest::{bits_elem, decode, for_indices, over, span};
use crate::kernel::{Access, Buf, Builder, CmpOp, Elem, Ty, Val};
use crate::simt::gate;
use planish_ir::op::generate::{EyeLike, OneHot, Trilu};
use planish_ir::op::select::Compress;
use planish_ir::{DType, Diag, Dim};

pub(super) fn lower_range(cx: &mut LowerCx<'_>) -> Result<(), Diag> {
    let (start, limit, step) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    let (d, dims) = cx.output_type(0)?;
    // Floats in 64 bits, integers in their own or 64 bits.
    let wide = if d.is_float() { DType::F64 } else { DType::I64 };
    if is_fresh(cx, &dims[0]) {
        let len = cx.temp(DType::I64, &[Dim::Const(1)]);
        let error = cx.error("a range without end");
        let l = Launch::new("range_len").read(&start).read(&limit).read(&step).write(&len).raises(error);
        cx.launch(l, move |k| {
            let bufs = [k.buf(0), k.buf(1), k.buf(2)];
            let (len, error) = (k.buf(3), k.error(0));
            k.b.parallel_for(|b, _| {
                let [s, e, by] = bufs.map(|buf| {
                    let v = load(b, d, buf, 0, 1, None);
                    convert(b, v, d, wide)
                });
                let n = range_len(b, s, e, by, error);
                b.store(len, 0, n);
            });
        })?;
        cx.bind(&dims[0], &len, 0, &Dim::Const(0), &Dim::Const(1 << 40), "a range is too long")?;
    }
    let y = cx.output(0)?;
    let n = y.elems();
    let l = Launch::new("range").read(&start).read(&step).write(&y).dim(&n);
    let chunk = cx.chunk();
    cx.launch(l.extent(n.ceil_div(&chunk.into())).cost(chunk), move |k| {
        let (start, step, y, n) = (k.buf(0), k.buf(1), k.buf(2), k.dim(0));
        k.b.parallel_for(|b, unit| {
            let [s, by] = [start, step].map(|buf| {
                let v = load(b, d, buf, 0, 1, None);
                convert(b, v, d, wide)
            });
            let (lo, hi) = span(b, unit, chunk, n);
            b.loop_(lo, hi, 1, |b, i| {
                let v = if wide == DType::F64 {
                    let i = b.sitofp(i, Elem::F64);
                    let t = b.fmul(i, by);
                    b.fadd(s, t)
                } else {
                    b.at(s, i, by)
                };
                let v = convert(b, v, wide, d);
                store(b, d, y, i, v, None);
            });
        });
    })
}

/// How many numbers a range has; raises the error for a step of 0 or NaN.
fn range_len(b: &mut Builder, start: Val, limit: Val, step: Val, error: i32) -> Val {
    if b.ty(start).elem.is_float() {
        let zero = b.cmp(CmpOp::FEq, step, 0.0);
        let span = b.fsub(limit, start);
        let n = b.fdiv(span, step);
        let n = b.ceil(n);
        let nan = crate::math::is_nan(b, n);
        let bad = b.or(zero, nan);
        b.error_if(bad, error);
        let n = b.fmax(n, 0.0);
        let n = b.fmin(n, 1e15);
        let n = b.fptosi(n, Elem::I64);
        return b.select(bad, 0, n);
    }
    let zero = b.cmp(CmpOp::Eq, step, 0);
    b.error_if(zero, error);
    let up = b.cmp(CmpOp::Sgt, step, 0);
    let back = b.neg(step);
    let size = b.select(up, step, back);
    let (right, left) = (b.cmp(CmpOp::Sgt, limit, start), b.cmp(CmpOp::Sgt, start, limit));
    let some = b.select(up, right, left);
    // As unsigned numbers the span does not overflow.
    let (fwd, bwd) = (b.sub(limit, start), b.sub(start, limit));
    let span = b.select(up, fwd, bwd);
    let span = b.sub(span, 1);
    let n = b.udiv(span, size);
    let n = b.add(n, 1);
    let n = b.select(some, n, 0);
    b.select(zero, 0, n)
}

pub(super) fn lower_eye(cx: &mut LowerCx<'_>, op: &EyeLike) -> Result<(), Diag> {
    let y = cx.output(0)?;
    let (d, diagonal) = (y.dtype, op.k);
    cx.launch(over(cx.chunk(), Launch::new("eye").write(&y), &y.dims, 2), move |k| {
        let y = k.buf(0);
        for_indices(k, 0, 2, |b, index, flat| {
            let above = b.sub(index[1], index[0]);
            let on = b.cmp(CmpOp::Eq, above, diagonal);
            let v = convert(b, on, DType::Bool, d);
            store(b, d, y, flat, v, None);
        });
    })
}

pub(super) fn lower_trilu(cx: &mut LowerCx<'_>, op: &Trilu) -> Result<(), Diag> {
    let x = cx.input(0)?;
    let diagonal = cx.opt_input(1)?;
    let y = cx.output(0)?;
    let rank = x.dims.len();
    let (elem, upper) = (bits_elem(x.dtype), op.upper);
    let mut l = Launch::new("trilu").raw(&x, elem, Access::Read).raw(&y, elem, Access::Write);
    l = diagonal.iter().fold(l, |l, d| l.read(d));
    let given = diagonal.is_some();
    cx.launch(over(cx.chunk(), l, &y.dims, 2), move |k| {
        let (x, y) = (k.buf(0), k.buf(1));
        let diagonal = if given {
            let buf = k.buf(2);
            let v = k.b.load(buf, 0, 1);
            // Far diagonals would overflow the difference of indices.
            let v = k.b.smax(v, -(1i64 << 48));
            k.b.smin(v, 1i64 << 48)
        } else {
            k.b.i64(0)
        };
        for_indices(k, 0, rank, |b, index, flat| {
            let above = b.sub(index[rank - 1], index[rank - 2]);
            let keep = b.cmp(if upper { CmpOp::Sge } else { CmpOp::Sle }, above, diagonal);
            let v = b.load(x, flat, 1);
            let zero = b.zero(Ty::scalar(elem));
            let v = b.select(keep, v, zero);
            b.store(y, flat, v);
        });
    })
}

pub(super) fn lower_one_hot(cx: &mut LowerCx<'_>, op: &OneHot) -> Result<(), Diag> {
    let (x, depth, values) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    let (_, dims) = cx.output_type(0)?;
    if is_fresh(cx, &dims[op.axis]) {
        let what = "the depth is out of range";
        cx.bind(&dims[op.axis], &depth, 0, &Dim::Const(0), &Dim::Const(1 << 40), what)?;
    }
    cx.require_equal(&values.elems(), &2.into(), "there must be two values, off and on");
    let y = cx.output(0)?;
    let n = y.dims[op.axis].clone();
    let folded = [Dim::product(&y.dims[..op.axis]), n, Dim::product(&y.dims[op.axis + 1..])];
    let (elem, d) = (bits_elem(y.dtype), x.dtype);
    let l = Launch::new("one_hot").read(&x).raw(&values, elem, Access::Read).raw(&y, elem, Access::Write);
    cx.launch(over(cx.chunk(), l, &folded, 4), move |k| {
        let (x, values, y) = (k.buf(0), k.buf(1), k.buf(2));
        let dims = k.dims(0, 3);
        let (off, on) = (k.b.load(values, 0, 1), k.b.load(values, 1, 1));
        for_indices(k, 0, 3, |b, index, flat| {
            let at = b.at(index[2], index[0], dims[2]);
            let v = load(b, d, x, at, 1, None);
            let i = convert(b, v, d, DType::I64);
            let below = b.cmp(CmpOp::Slt, i, 0);
            let from_end = b.add(i, dims[1]);
            let i = if d.is_unsigned_int() { i } else { b.select(below, from_end, i) };
            let hit = b.cmp(CmpOp::Eq, i, index[1]);
            let v = b.select(hit, on, off);
            b.store(y, flat, v);
        });
    })
}

/// Whether an element is not 0.
fn is_set(b: &mut Builder, d: DType, v: Val) -> Val {
    convert(b, v, d, DType::Bool)
}

pub(super) fn lower_non_zero(cx: &mut LowerCx<'_>) -> Result<(), Diag> {
    let x = cx.input(0)?;
    let (_, dims) = cx.output_type(0)?;
    let (d, rank, total) = (x.dtype, x.dims.len(), x.elems());
    let count = cx.temp(DType::I64, &[Dim::Const(1)]);
    if cx.simt() {
        return non_zero_by_blocks(cx, &x, &dims[1], &count);
    }
    cx.launch(Launch::new("count_set").read(&x).write(&count).dim(&total), move |k| {
        let (x, count, total) = (k.buf(0), k.buf(1), k.dim(0));
        k.b.parallel_for(|b, _| {
            let zero = b.i64(0);
            let n = b.for_(0, total, 1, &[zero], |b, i, now| {
                let v = load(b, d, x, i, 1, None);
                let set = is_set(b, d, v);
                let one = flag(b, set);
                vec![b.add(now[0], one)]
            });
            b.store(count, 0, n[0]);
        });
    })?;
    cx.bind(&dims[1], &count, 0, &Dim::Const(0), &total, "too many elements")?;
    let y = cx.output(0)?;
    let n = dims[1].clone();
    let l = Launch::new("non_zero").read(&x).write(&y).dims(&x.dims).dim(&total).dim(&n);
    cx.launch(l, move |k| {
        let (x, y, dims) = (k.buf(0), k.buf(1), k.dims(0, rank));
        let (total, n) = (k.dim(rank), k.dim(rank + 1));
        k.b.parallel_for(|b, _| {
            let zero = b.i64(0);
            b.for_(0, total, 1, &[zero], |b, i, now| {
                let v = load(b, d, x, i, 1, None);
                let set = is_set(b, d, v);
                b.when(set, |b| {
                    let index = decode(b, i, &dims);
                    for (a, v) in index.into_iter().enumerate() {
                        let row = b.i64(a as i64);
                        let at = b.at(now[0], row, n);
                        b.store(y, at, v);
                    }
                });
                let one = flag(b, set);
                vec![b.add(now[0], one)]
            });
        });
    })
}

/// On GPUs a block of threads looks for the elements that are not 0, first to count them.
fn non_zero_by_blocks(cx: &mut LowerCx<'_>, x: &Opnd, fresh: &Dim, count: &Opnd) -> Result<(), Diag> {
    let (d, rank, total) = (x.dtype, x.dims.len(), x.elems());
    let set = move |b: &mut Builder, x: Buf, i: Val, inside: Val| {
        let v = load(b, d, x, i, 1, Some(inside));
        is_set(b, d, v)
    };
    let l = Launch::new("count_set").read(x).write(count).dim(&total);
    cx.launch_blocks(l, gate::THREADS, move |k| {
        let (x, count, total) = (k.buf(0), k.buf(1), k.dim(0));
        let b = &mut k.b;
        let t = b.thread_id(0);
        let n = gate::open_rows(b, t, total, &|b, i, inside| set(b, x, i, inside), &|_, _, _| {});
        let leader = b.cmp(CmpOp::Eq, t, 0);
        b.when(leader, |b| b.store(count, 0, n));
    })?;
    cx.bind(fresh, count, 0, &Dim::Const(0), &total, "too many elements")?;
    let y = cx.output(0)?;
    let l = Launch::new("non_zero").read(x).write(&y).dims(&x.dims).dim(&total).dim(fresh);
    cx.launch_blocks(l, gate::THREADS, move |k| {
        let (x, y, dims) = (k.buf(0), k.buf(1), k.dims(0, rank));
        let (total, n) = (k.dim(rank), k.dim(rank + 1));
        let b = &mut k.b;
        let t = b.thread_id(0);
        gate::open_rows(b, t, total, &|b, i, inside| set(b, x, i, inside), &|b, place, i| {
            for (a, v) in decode(b, i, &dims).into_iter().enumerate() {
                let row = b.i64(a as i64);
                let at = b.at(place, row, n);
                b.store(y, at, v);
            }
        });
    })
}

/// The places that are set become a list of indices, and the slices there are gathered.
pub(super) fn lower_compress(cx: &mut LowerCx<'_>, op: &Compress) -> Result<(), Diag> {
    let (mut x, cond) = (cx.input(0)?, cx.input(1)?);
    let (_, dims) = cx.output_type(0)?;
    let axis = match op.axis {
        Some(a) => a,
        None => {
            x = x.with_dims(vec![x.elems()]);
            0
        }
    };
    let total = cond.elems();
    cx.require_at_most(&total, &x.dims[axis], "the condition is longer than the axis");
    let list = cx.temp(DType::I64, std::slice::from_ref(&total));
    let count = cx.temp(DType::I64, &[Dim::Const(1)]);
    let l = Launch::new("compress_list").read(&cond).write(&list).write(&count).dim(&total);
    if cx.simt() {
        cx.launch_blocks(l, gate::THREADS, |k| {
            let (cond, list, count, total) = (k.buf(0), k.buf(1), k.buf(2), k.dim(0));
            let b = &mut k.b;
            let t = b.thread_id(0);
            let closed = b.zero(Ty::BOOL);
            let set = |b: &mut Builder, i: Val, inside: Val| b.load_masked(cond, i, inside, closed);
            let n = gate::open_rows(b, t, total, &set, &|b, place, i| b.store(list, place, i));
            let leader = b.cmp(CmpOp::Eq, t, 0);
            b.when(leader, |b| b.store(count, 0, n));
        })?;
    } else {
        cx.launch(l, move |k| {
            let (cond, list, count, total) = (k.buf(0), k.buf(1), k.buf(2), k.dim(0));
            k.b.parallel_for(|b, _| {
                let zero = b.i64(0);
                let n = b.for_(0, total, 1, &[zero], |b, i, now| {
                    let set = b.load(cond, i, 1);
                    b.when(set, |b| b.store(list, now[0], i));
                    let one = flag(b, set);
                    vec![b.add(now[0], one)]
                });
                b.store(count, 0, n[0]);
            });
        })?;
    }
    if is_fresh(cx, &dims[axis]) {
        let what = "the condition is longer than the axis";
        cx.bind(&dims[axis], &count, 0, &Dim::Const(0), &total, what)?;
    }
    let y = cx.output(0)?;
    let at = Opnd { dims: vec![dims[axis].clone()], ..list };
    gather_rows(cx, &x, &at, &y, axis)
}
