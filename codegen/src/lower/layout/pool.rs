//! Pooling of blocked tensors.

use super::BLOCK;
use crate::kernel::{Elem, Ty};
use crate::lower::cx::LowerCx;
use crate::lower::nn::pool_axis::{Axis, launch};
use planish_ir::op::pool::{Pool, PoolKind};
use planish_ir::{DType, Diag};

/// Emits the pooling of a blocked tensor. Says whether it did.
pub(in crate::lower) fn lower_pool(cx: &mut LowerCx<'_>, op: &Pool) -> Result<bool, Diag> {
    let Some(x) = cx.blocked_form(cx.input_value(0)?) else { return Ok(false) };
    let rank = op.kernel.len();
    let taken = matches!(op.kind, PoolKind::Max | PoolKind::Average);
    if !taken || op.indices.is_some() || !(1..=2).contains(&rank) || x.dtype != DType::F32 {
        return Ok(false);
    }
    let y = cx.blocked_output(0)?;
    let l = launch(op, &x, &y);
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
            let y = vertical.span(b, op, row);
            let to_row = b.mul(unit, across.out);
            b.loop_(0, across.out, 1, |b, column| {
                let x = across.span(b, op, column);
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
