//! Normalisation over the last axes.

use super::simt_rows::{self, Norm};
use super::{fold_lanes, keep};
use crate::kernel::{BinOp, Buf, Ty};
use crate::lower::cx::{LowerCx, Opnd};
use crate::lower::elem::{compute_elem, convert, load, store};
use crate::lower::elementwise;
use crate::lower::launch::{KernelCx, Launch};
use planish_ir::op::layer_norm::LayerNorm;
use planish_ir::{DType, Diag, Dim};

/// One kernel where scale and bias have the shape of a row. Otherwise one for the statistics of each row, and an
/// element-wise one in which scale and bias are broadcast.
pub(in crate::lower) fn lower_layer_norm(cx: &mut LowerCx<'_>, op: &LayerNorm) -> Result<(), Diag> {
    let x = cx.input(0)?;
    let (scale, bias) = (cx.opt_input(1)?, cx.opt_input(2)?);
    let row = x.dims[op.axis..].to_vec();
    let fits = |o: &Option<Opnd>| o.as_ref().is_none_or(|o| covers(&o.dims, &row));
    let fused = fits(&scale) && fits(&bias);
    let y = cx.output(0)?;
    let stat = LayerNorm::stat_dtype(x.dtype);
    let mut stat_dims = x.dims.clone();
    stat_dims[op.axis..].fill(Dim::Const(1));
    let wanted = |cx: &mut LowerCx<'_>, k: usize| -> Result<Option<Opnd>, Diag> {
        if cx.output_used(k) {
            return cx.output(k).map(Some);
        }
        Ok(if fused { None } else { Some(cx.temp(stat, &stat_dims)) })
    };
    let mean = if op.rms { None } else { wanted(cx, 1)? };
    let inv = wanted(cx, if op.rms { 1 } else { 2 })?;
    let n = Dim::product(&row);
    let mut l = Launch::new(if op.rms { "rms_norm" } else { "layer_norm" }).read(&x);
    let given = [scale.as_ref(), bias.as_ref()];
    if fused {
        for o in given.into_iter().flatten() {
            l = l.read(o);
        }
        l = l.write(&y);
    }
    for o in [&mean, &inv].into_iter().flatten() {
        l = l.write(o);
    }
    let l = l
        .dim(&n)
        .extent(Dim::product(&x.dims[..op.axis]))
        .cost(n.mul(&8.into()))
        .flops(x.elems().mul(&8.into()));
    let parts = Parts {
        op,
        dtype: x.dtype,
        fused,
        scale: scale.is_some(),
        bias: bias.is_some(),
        mean: mean.is_some(),
        inv: inv.is_some(),
    };
    if simt_rows::takes(cx, x.dtype, &n) {
        cx.launch_blocks(l, simt_rows::BLOCK, |k| {
            let bufs = parts.bufs(k);
            let norm = Norm { dtype: x.dtype, rms: op.rms, epsilon: op.epsilon, bufs };
            simt_rows::normalise(k, &norm);
        })?;
    } else {
        cx.launch(l, |k| kernel(k, &parts))?;
    }
    if fused {
        return Ok(());
    }
    let mut ins = vec![x.clone()];
    ins.extend(mean.iter().chain(&inv).chain(&scale).chain(&bias).cloned());
    let types: Vec<DType> = ins.iter().map(|o| o.dtype).collect();
    let centred = mean.is_some();
    elementwise::emit(cx, "normalise", &ins, &[y], 4, &|b, v| {
        let wide = |b: &mut crate::kernel::Builder, i: usize| convert(b, v[i], types[i], stat);
        let mut at = 1;
        let mut out = wide(b, 0);
        if centred {
            let mean = wide(b, at);
            out = b.fsub(out, mean);
            at += 1;
        }
        let inv = wide(b, at);
        out = b.fmul(out, inv);
        if parts.scale {
            at += 1;
            let scale = wide(b, at);
            out = b.fmul(out, scale);
        }
        if parts.bias {
            at += 1;
            let bias = wide(b, at);
            out = b.fadd(out, bias);
        }
        vec![out]
    })
}

/// Whether `dims` are those of `row`, with ones before them.
fn covers(dims: &[Dim], row: &[Dim]) -> bool {
    dims.len().checked_sub(row.len()).is_some_and(|n| dims[..n].iter().all(|d| d.is(1)) && dims[n..] == *row)
}

struct Parts<'a> {
    op: &'a LayerNorm,
    dtype: DType,
    fused: bool,
    scale: bool,
    bias: bool,
    mean: bool,
    inv: bool,
}

impl Parts<'_> {
    /// Scale, bias, result, mean and reciprocal deviation.
    fn bufs(&self, k: &KernelCx<'_>) -> [Option<Buf>; 5] {
        let given = [self.fused && self.scale, self.fused && self.bias, self.fused, self.mean, self.inv];
        let mut next = 0;
        given.map(|given| {
            given.then(|| {
                next += 1;
                k.buf(next)
            })
        })
    }
}

fn kernel(k: &mut KernelCx<'_>, p: &Parts<'_>) {
    let d = p.dtype;
    let elem = compute_elem(d);
    let lanes = k.lanes(elem);
    let ty = Ty::vec(elem, lanes);
    let n = k.dim(0);
    let x = k.buf(0);
    let [scale, bias, y, mean_out, inv_out] = p.bufs(k);
    let (rms, epsilon) = (p.op.rms, p.op.epsilon);
    k.b.parallel_for(|b, row| {
        let base = b.mul(row, n);
        let zero = b.zero(ty);
        let count = b.sitofp(n, elem);
        let mean = if rms {
            b.zero(Ty::vec(elem, 1))
        } else {
            let sum = fold_lanes(b, n, lanes, &[zero], |b, acc, i, mask| {
                let at = b.add(base, i);
                let v = load(b, d, x, at, lanes, mask);
                vec![b.fadd(acc[0], v)]
            });
            let sum = b.reduce(BinOp::FAdd, sum[0]);
            b.fdiv(sum, count)
        };
        let means = b.splat(mean, lanes);
        let square = fold_lanes(b, n, lanes, &[zero], |b, acc, i, mask| {
            let at = b.add(base, i);
            let v = load(b, d, x, at, lanes, mask);
            let v = if rms { v } else { b.fsub(v, means) };
            let v = keep(b, mask, v, 0.0);
            vec![b.fma(v, v, acc[0])]
        });
        let square = b.reduce(BinOp::FAdd, square[0]);
        let var = b.fdiv(square, count);
        let var = b.fadd(var, epsilon);
        let root = b.sqrt(var);
        let inv = b.fdiv(1.0, root);
        if let Some(out) = mean_out {
            b.store(out, row, mean);
        }
        if let Some(out) = inv_out {
            b.store(out, row, inv);
        }
        let Some(y) = y else { return };
        let invs = b.splat(inv, lanes);
        b.for_lanes(0, n, lanes, |b, i, mask| {
            let at = b.add(base, i);
            let v = load(b, d, x, at, lanes, mask);
            let v = if rms { v } else { b.fsub(v, means) };
            let mut v = b.fmul(v, invs);
            if let Some(s) = scale {
                let s = load(b, d, s, i, lanes, mask);
                v = b.fmul(v, s);
            }
            if let Some(s) = bias {
                let s = load(b, d, s, i, lanes, mask);
                v = b.fadd(v, s);
            }
            store(b, d, y, at, v, mask);
        });
    });
}
