//! Convolution of every channel with itself: vectors of channels of the input times vectors of weights.

use super::window::{self, Source};
use super::{BLOCK, Operands, Plan2, f32_bytes};
use crate::kernel::{Buf, Builder, Elem, Ty, Val};
use crate::lower::contraction::epilogue::{Channels, Epilogue};
use crate::lower::contraction::tile::in_pieces;
use crate::lower::contraction::{div_up, panel};
use crate::lower::cx::LowerCx;
use crate::lower::layout::channel_mask;
use planish_ir::{DType, Diag, Dim};

/// Positions of a register tile.
const SIZE: usize = 8;

/// The weights as `[block][kernel][16]`.
fn packed(p: &Plan2, w: &[f32]) -> Vec<f32> {
    let (kk, block) = (p.kk() as usize, BLOCK as usize);
    let mut out = vec![0f32; div_up(p.groups, BLOCK) as usize * kk * block];
    for (c, row) in w.chunks_exact(kk).enumerate() {
        for (t, v) in row.iter().enumerate() {
            out[(c / block * kk + t) * block + c % block] = *v;
        }
    }
    out
}

pub(super) fn emit(
    cx: &mut LowerCx<'_>,
    p: Plan2,
    o: Operands,
    w: &[f32],
    mut e: Epilogue,
) -> Result<(), Diag> {
    let x = cx.blocked(o.x)?;
    let packed = packed(&p, w);
    let weights = cx.weight(DType::F32, &[Dim::from(packed.len())], f32_bytes(&packed));
    let t = p.window.ok_or_else(|| Diag::error("internal-lower", "no window is small enough"))?;
    let blocks = div_up(p.groups, BLOCK);
    let (rows, columns) = (p.output[0].ceil_div(&t.out[0].into()), p.output[1].ceil_div(&t.out[1].into()));
    let flops = Dim::product(&o.out).mul(&(2 * p.kk()).into());
    let l = e.launch("depthwise", &x, &weights, o.bias.as_ref());
    let has_bias = o.bias.is_some();
    let l = p.dims(l).dim(&rows).dim(&columns);
    let units = p.batch.mul(&blocks.into()).mul(&rows).mul(&columns);
    let l = l.extent(units).cost(t.out[0] * t.out[1] * (p.kk() + 4)).flops(flops);
    cx.launch(l, move |k| {
        let lanes = k.lanes(Elem::F32).min(BLOCK as u16);
        let z = p.sizes(k, 0);
        let (rows, columns) = (k.dim(6), k.dim(7));
        let epi = e.handles(k);
        let (x, w) = (k.buf(0), k.buf(1));
        let bias = has_bias.then(|| k.buf(2));
        let b = &mut k.b;
        let local = b.local("window", Elem::F32, t.len() as u32);
        let plane = b.mul(z.input[0], z.input[1]);
        let total = b.mul(z.output[0], z.output[1]);
        b.parallel_for(|b, unit| {
            let (rest, tile_column) = b.div_rem(unit, columns);
            // Block of the whole batch.
            let (row, tile_row) = b.div_rem(rest, rows);
            let (_, block) = b.div_rem(row, blocks);
            let at = [b.mul(tile_row, t.out[0]), b.mul(tile_column, t.out[1])];
            let base = b.mul(row, plane);
            let base = b.mul(base, BLOCK);
            window::fill(b, &p, &t, &z, &Source { x, base, blocked: true, lanes }, local, at);
            let height = b.sub(z.output[0], at[0]);
            let height = b.smin(height, t.out[0]);
            let width = b.sub(z.output[1], at[1]);
            let width = b.smin(width, t.out[1]);
            let known = p.output[1].as_const().filter(|w| w % t.out[1] == 0).map(|_| t.out[1]);
            let out = b.mul(row, total);
            for part in 0..BLOCK / i64::from(lanes) {
                let off = part * i64::from(lanes);
                let channel = b.mul(block, BLOCK);
                let channel = b.add(channel, off);
                let channels = b.i64(p.groups);
                let mask = channel_mask(b, lanes, channel, channels);
                let start = match bias {
                    Some(buf) => b.load_opt(buf, channel, lanes, mask),
                    None => b.zero(Ty::vec(Elem::F32, lanes)),
                };
                let weights = b.mul(block, p.kk() * BLOCK);
                let part = Part { p: &p, t: &t, local, w, lanes, off, weights: b.add(weights, off), start };
                b.loop_(0, height, 1, |b, row| {
                    let y = b.add(at[0], row);
                    let place = b.at(at[1], y, z.output[1]);
                    let place = b.add(place, out);
                    in_pieces(b, width, known, SIZE, |b, column, size| {
                        for (i, sum) in part.sums(b, row, column, size).into_iter().enumerate() {
                            let at = b.add(place, column);
                            let at = b.add(at, i as i64);
                            let index = b.mul(at, BLOCK);
                            let index = b.add(index, off);
                            e.finish_channels(b, &epi, sum, index, &Channels { first: channel, mask });
                        }
                    });
                });
            }
        });
    })
}

/// The lanes of a block that are done together.
struct Part<'p> {
    p: &'p Plan2,
    t: &'p window::Tile,
    local: Buf,
    w: Buf,
    lanes: u16,
    /// First lane in the block.
    off: i64,
    weights: Val,
    start: Val,
}

impl Part<'_> {
    /// The sums of `size` neighbouring positions.
    fn sums(&self, b: &mut Builder, row: Val, column: Val, size: usize) -> Vec<Val> {
        let (p, t) = (self.p, self.t);
        let first = b.mul(row, t.step[0] * t.window[1]);
        let first = b.at(first, column, t.step[1]);
        let first = b.mul(first, BLOCK);
        let first = b.add(first, self.off);
        panel::for_kernel(b, p.kk(), vec![self.start; size], &|b, tap, acc| {
            let (ky, kx) = b.div_rem(tap, p.kernel[1]);
            let at = b.mul(ky, p.dilations[0] * t.window[1]);
            let at = b.at(at, kx, p.dilations[1]);
            let from = b.at(first, at, BLOCK);
            let weight = b.at(self.weights, tap, BLOCK);
            let weight = b.load(self.w, weight, self.lanes);
            (0..size)
                .map(|i| {
                    let at = b.add(from, i as i64 * t.step[1] * BLOCK);
                    let v = b.load(self.local, at, self.lanes);
                    b.fma(v, weight, acc[i])
                })
                .collect()
        })
    }
}
