//! Pooling of blocked tensors.

use super::BLOCK;
use crate::kernel::{Builder, Elem, Ty, Val};
use crate::lower::cx::LowerCx;
use crate::lower::launch::Launch;
use crate::lower::nn::pool_axis::Axis;
use planish_ir::op::pool::{Pool, PoolKind};
use planish_ir::{DType, Diag, Dim};

/// Emits the pooling of a blocked tensor. Says whether it did.
pub(in crate::lower) fn lower_pool(cx: &mut LowerCx<'_>, op: &Pool) -> Result<bool, Diag> {
    let Some(x) = cx.blocked_form(cx.input_value(0)?) else { return Ok(false) };
    let rank = op.kernel.len();
    let taken = matches!(op.kind, PoolKind::Max | PoolKind::Average);
    if !taken || op.indices.is_some() || !(1..=2).contains(&rank) || x.dtype != DType::F32 {
        return Ok(false);
    }
    let y = cx.blocked_output(0)?;
    let rows = Dim::product(&y.dims[..rank + 1]);
    let width = y.dims[rank + 1].clone();
    let window: i64 = op.kernel.iter().fold(1, |n, k| n.saturating_mul(*k));
    let mut l = Launch::new("pool").read(&x).write(&y);
    for axis in 0..rank {
        let (begin, end) = op.windows().padding(axis, &x.dims[axis + 2], &op.kernel[axis].into());
        l = l.dim(&x.dims[axis + 2]).dim(&y.dims[axis + 2]).dim(&begin).dim(&end);
    }
    let cost = width.mul(&window.into());
    let l = l.extent(rows).cost(cost).flops(y.elems().mul(&window.into()));
    cx.launch(l, |k| {
        let lanes = k.lanes(Elem::F32).min(BLOCK as u16);
        let (from, to) = (k.buf(0), k.buf(1));
        let mut axes: Vec<Axis> = (0..rank).map(|a| Axis::read(k, op, a)).collect();
        let b = &mut k.b;
        let one = b.i64(1);
        if rank == 1 {
            let zero = b.i64(0);
            axes.insert(
                0,
                Axis { input: one, out: one, begin: zero, end: zero, kernel: 1, stride: 1, dilation: 1 },
            );
        }
        let (vertical, across) = (axes[0], axes[1]);
        let ty = Ty::vec(Elem::F32, lanes);
        // A unit is a row of results of one block.
        b.parallel_for(|b, unit| {
            let (plane, row) = b.div_rem(unit, vertical.out);
            let base = b.mul(plane, vertical.input);
            let y = span(b, op, &vertical, row);
            let to_row = b.mul(unit, across.out);
            b.loop_(0, across.out, 1, |b, column| {
                let x = span(b, op, &across, column);
                for part in 0..BLOCK / i64::from(lanes) {
                    let off = part * i64::from(lanes);
                    let init = match op.kind {
                        PoolKind::Max => b.float(ty, f64::NEG_INFINITY),
                        _ => b.zero(ty),
                    };
                    let sum = b.for_(y.first, y.last, 1, &[init], |b, ky, acc| {
                        let at = b.at(y.start, ky, vertical.dilation);
                        let at = b.add(base, at);
                        let at = b.mul(at, across.input);
                        let at = b.add(at, x.start);
                        b.for_(x.first, x.last, 1, acc, |b, kx, acc| {
                            let at = b.at(at, kx, across.dilation);
                            let at = b.mul(at, BLOCK);
                            let at = b.add(at, off);
                            let v = b.load(from, at, lanes);
                            vec![match op.kind {
                                PoolKind::Max => b.fmax(acc[0], v),
                                _ => b.fadd(acc[0], v),
                            }]
                        })
                    })[0];
                    let v = if op.kind == PoolKind::Max {
                        sum
                    } else {
                        let n = b.mul(y.counted, x.counted);
                        let n = b.sitofp(n, Elem::F32);
                        let n = b.splat(n, lanes);
                        b.fdiv(sum, n)
                    };
                    let at = b.add(to_row, column);
                    let at = b.mul(at, BLOCK);
                    let at = b.add(at, off);
                    b.store(to, at, v);
                }
            });
        });
    })?;
    Ok(true)
}

/// The part of a window along one axis that lies in the input.
struct Span {
    /// Input position of the window's first element, which may be outside.
    start: Val,
    first: Val,
    last: Val,
    /// Elements that an average counts.
    counted: Val,
}

fn span(b: &mut Builder, op: &Pool, a: &Axis, position: Val) -> Span {
    let start = a.start(b, position);
    let first = a.first(b, start);
    let last = a.last(b, start, a.input);
    let counted = if op.count_include_pad {
        let limit = b.add(a.input, a.end);
        a.last(b, start, limit)
    } else {
        let n = b.sub(last, first);
        b.smax(n, 0)
    };
    Span { start, first, last, counted }
}
