//! Convolution straight from the input: one output row at a time where a group has few channels, one element a thread on
//! GPUs.

use super::conv::{Operands, Shape};
use super::epilogue::{Epilogue, Place};
use super::panel::{self, RowMask};
use crate::kernel::{Builder, Ty, Val};
use crate::lower::cx::LowerCx;
use crate::lower::elem::{compute_elem, load};
use planish_ir::{Diag, Dim};

pub(super) fn emit(cx: &mut LowerCx<'_>, s: &Shape, o: Operands, mut e: Epilogue) -> Result<(), Diag> {
    let flops = Dim::product(&o.out).mul(&(2 * s.k()).into());
    let w = cx.memory_of(o.w_value)?;
    let l = e.launch("depthwise", &o.x, &w, o.bias.as_ref());
    let has_bias = o.bias.is_some();
    let per_plane = Dim::product(&o.out[2..]).mul(&s.k().into()).floor_div(&8.into());
    let single = cx.simt();
    let units = if single { Dim::product(&o.out) } else { o.out[0].mul(&o.out[1]) };
    let l = s.dims(l, &o).extent(units).cost(per_plane).flops(flops);
    let (x_type, w_type) = (o.x.dtype, o.w_type);
    let (groups, mg, cg, kk) = (s.groups, s.mg, s.cg, s.kk());
    cx.launch(l, move |k| {
        let elem = compute_elem(x_type);
        let lanes = k.lanes(elem);
        let (x, w) = (k.buf(0), k.buf(1));
        let bias = has_bias.then(|| k.buf(2));
        let epi = e.handles(k);
        let g = s.geometry(k, 0);
        let b = &mut k.b;
        let axes = g.output.len();
        let ow = g.output[axes - 1];
        let one = b.i64(1);
        let rows = g.output[..axes - 1].iter().fold(one, |p, d| b.mul(p, *d));
        let plane = g.plane(b);
        let total = g.positions(b);
        let m_all = groups * mg;
        b.parallel_for(|b, unit| {
            let (unit, position) = if single {
                let plane = b.sdiv(unit, total);
                let first = b.mul(plane, total);
                (plane, Some(b.sub(unit, first)))
            } else {
                (unit, None)
            };
            let (n, m) = b.div_rem(unit, m_all);
            let group = b.sdiv(m, mg);
            let first = b.mul(n, groups * cg);
            let first = b.at(first, group, cg);
            let weights = b.mul(m, cg * kk);
            let bias = bias.map(|buf| {
                let s = load(b, w_type, buf, m, 1, None);
                b.splat(s, lanes)
            });
            let sum_row = |b: &mut Builder, row: Val, ox: Val, mask: Option<Val>| {
                let zero = b.zero(Ty::vec(elem, lanes));
                let acc = b.for_(0, cg, 1, &[zero], |b, c, acc| {
                    let channel = b.add(first, c);
                    let base = b.mul(channel, plane);
                    let wbase = b.at(weights, c, kk);
                    panel::for_kernel(b, kk, acc.to_vec(), &|b, i, sum| {
                        let (outer, kx) = g.kernel_coords(b, i);
                        let (start, ok) = g.input_row(b, row, &outer);
                        let at = b.mul(ox, g.strides[axes - 1]);
                        let at = b.at(at, kx, g.dilations[axes - 1]);
                        let at = b.sub(at, g.pads[axes - 1]);
                        let piece = RowMask::new(b, at, g.strides[axes - 1], lanes, g.input[axes - 1], ok);
                        let start = b.add(start, base);
                        let v = piece.load(b, x_type, x, start);
                        let wi = b.add(wbase, i);
                        let ws = load(b, w_type, w, wi, 1, None);
                        let ws = b.splat(ws, lanes);
                        vec![if elem.is_float() {
                            b.fma(v, ws, sum[0])
                        } else {
                            let p = b.mul(v, ws);
                            b.add(sum[0], p)
                        }]
                    })
                })[0];
                let sum = match bias {
                    Some(v) if elem.is_float() => b.fadd(acc, v),
                    Some(v) => b.add(acc, v),
                    None => acc,
                };
                let p = b.at(ox, row, ow);
                let index = b.at(p, unit, total);
                e.finish(b, &epi, sum, &Place { index, channel: m, last: ox }, mask);
            };
            if let Some(position) = position {
                let (row, ox) = b.div_rem(position, ow);
                return sum_row(b, row, ox, None);
            }
            b.loop_(0, rows, 1, |b, row| {
                b.for_lanes(0, ow, lanes, |b, ox, mask| sum_row(b, row, ox, mask));
            });
        });
    })
}
