//! Convolution straight from the input: a few output rows at a time where a group has few channels, one element a thread on GPUs.

use super::conv::{Operands, Shape};
use super::epilogue::{Epilogue, Place};
use super::panel::{self, Geometry, RowMask};
use super::tile::in_pieces;
use crate::kernel::{Buf, Builder, CmpOp, Ty, Val};
use crate::lower::cx::LowerCx;
use crate::lower::elem::{compute_elem, load};
use planish_ir::{DType, Diag, Dim};

/// Rows of results that are done together: a row of the input is loaded once for all of them.
const TOGETHER: usize = 4;

pub(super) fn emit(cx: &mut LowerCx<'_>, s: &Shape, o: Operands, mut e: Epilogue) -> Result<(), Diag> {
    let flops = Dim::product(&o.out).mul(&(2 * s.k()).into());
    let w = o.weights.memory(cx)?;
    let l = e.launch("depthwise", &o.x, &w, o.bias.as_ref());
    let has_bias = o.bias.is_some();
    let per_plane = Dim::product(&o.out[2..]).mul(&s.k().into()).floor_div(&8.into());
    let single = cx.simt();
    let units = if single { Dim::product(&o.out) } else { o.out[0].mul(&o.out[1]) };
    let l = s.dims(l, &o).extent(units).cost(per_plane).flops(flops);
    let (x_type, w_type) = (o.x.dtype, o.w_type);
    let known_rows = o.out[2].as_const();
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
            let finish = |b: &mut Builder, acc: Val, row: Val, ox: Val, mask: Option<Val>| {
                let sum = match bias {
                    Some(v) if elem.is_float() => b.fadd(acc, v),
                    Some(v) => b.add(acc, v),
                    None => acc,
                };
                let p = b.at(ox, row, ow);
                let index = b.at(p, unit, total);
                e.finish(b, &epi, sum, &Place { index, channel: m, last: ox }, mask);
            };
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
                finish(b, acc, row, ox, mask);
            };
            if let Some(position) = position {
                let (row, ox) = b.div_rem(position, ow);
                return sum_row(b, row, ox, None);
            }
            if axes == 2 && kk <= panel::UNROLL {
                let p = Plane { g: &g, x: (x_type, x), w: (w_type, w), first, weights, cg, kk, lanes };
                return b.for_lanes(0, ow, lanes, |b, ox, mask| {
                    let pieces = p.pieces(b, ox);
                    in_pieces(b, rows, known_rows, TOGETHER, |b, row, count| {
                        let sums = p.sums(b, &pieces, (row, count), plane);
                        for (i, sum) in sums.into_iter().enumerate() {
                            let row = b.add(row, i as i64);
                            finish(b, sum, row, ox, mask);
                        }
                    });
                });
            }
            b.loop_(0, rows, 1, |b, row| {
                b.for_lanes(0, ow, lanes, |b, ox, mask| sum_row(b, row, ox, mask));
            });
        });
    })
}

/// The channels of the input that make one channel of the result, and their weights.
struct Plane<'p> {
    g: &'p Geometry,
    x: (DType, Buf),
    w: (DType, Buf),
    /// The first channel of the input, batch included, and the first weight.
    first: Val,
    weights: Val,
    cg: i64,
    kk: i64,
    lanes: u16,
}

impl Plane<'_> {
    /// What the vector of results at column `ox` reads of an input row, for each column of the kernel.
    fn pieces(&self, b: &mut Builder, ox: Val) -> Vec<RowMask> {
        let g = self.g;
        (0..g.kernel[1])
            .map(|kx| {
                let at = b.mul(ox, g.strides[1]);
                let at = b.add(at, kx * g.dilations[1]);
                let at = b.sub(at, g.pads[1]);
                RowMask::new(b, at, g.strides[1], self.lanes, g.input[1], None)
            })
            .collect()
    }
    /// The sums of `count` rows of results from `row` on.
    fn sums(&self, b: &mut Builder, pieces: &[RowMask], (row, count): (Val, usize), plane: Val) -> Vec<Val> {
        let g = self.g;
        let reach = (count as i64 - 1) * g.strides[0] + (g.kernel[0] - 1) * g.dilations[0] + 1;
        let top = b.mul(row, g.strides[0]);
        let top = b.sub(top, g.pads[0]);
        let bottom = b.add(top, reach);
        let above = b.cmp(CmpOp::Sge, top, 0);
        let below = b.cmp(CmpOp::Sle, bottom, g.input[0]);
        let inside = b.and(above, below);
        b.if_(
            inside,
            |b| self.rows(b, pieces, top, count, plane, true),
            |b| self.rows(b, pieces, top, count, plane, false),
        )
    }
    /// [`Plane::sums`] from input row `top` on; `inside` says that all rows exist.
    fn rows(
        &self,
        b: &mut Builder,
        pieces: &[RowMask],
        top: Val,
        count: usize,
        plane: Val,
        inside: bool,
    ) -> Vec<Val> {
        let g = self.g;
        let elem = compute_elem(self.x.0);
        let zero = b.zero(Ty::vec(elem, self.lanes));
        b.for_(0, self.cg, 1, &vec![zero; count], |b, c, acc| {
            let channel = b.add(self.first, c);
            let base = b.mul(channel, plane);
            let weights = b.at(self.weights, c, self.kk);
            let mut sums = acc.to_vec();
            for i in 0..(count as i64 - 1) * g.strides[0] + (g.kernel[0] - 1) * g.dilations[0] + 1 {
                // Rows of results that read this row of the input, and the rows of the kernel for them.
                let readers: Vec<(usize, i64)> = (0..count)
                    .map(|r| (r, i - r as i64 * g.strides[0]))
                    .filter(|(_, at)| *at >= 0 && at % g.dilations[0] == 0)
                    .map(|(r, at)| (r, at / g.dilations[0]))
                    .filter(|(_, ky)| *ky < g.kernel[0])
                    .collect();
                if readers.is_empty() {
                    continue;
                }
                let y = b.add(top, i);
                let start = b.at(base, y, g.input[1]);
                let ok = (!inside).then(|| b.cmp(CmpOp::Ult, y, g.input[0]));
                for (kx, piece) in pieces.iter().enumerate() {
                    let v = match ok {
                        None => piece.load(b, self.x.0, self.x.1, start),
                        Some(ok) => piece.of_row(b, ok).load(b, self.x.0, self.x.1, start),
                    };
                    for (r, ky) in &readers {
                        let at = b.add(weights, ky * g.kernel[1] + kx as i64);
                        let w = load(b, self.w.0, self.w.1, at, 1, None);
                        let w = b.splat(w, self.lanes);
                        sums[*r] = if elem.is_float() {
                            b.fma(v, w, sums[*r])
                        } else {
                            let p = b.mul(v, w);
                            b.add(sums[*r], p)
                        };
                    }
                }
            }
            sums
        })
    }
}
