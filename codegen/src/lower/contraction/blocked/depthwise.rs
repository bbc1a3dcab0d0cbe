//! Convolution of every channel with itself: vectors of channels of the input times vectors of weights.

use super::window::{self, Source, Stored};
use super::{BLOCK, Operands, Plan2, expand, f32_bytes};
use crate::kernel::{Buf, Builder, Elem, Ty, Val};
use crate::lower::contraction::epilogue::{Channels, Epilogue};
use crate::lower::contraction::tile::in_pieces;
use crate::lower::contraction::{div_up, panel};
use crate::lower::cx::{LowerCx, Opnd};
use crate::lower::layout::channel_mask;
use planish_ir::{DType, Diag, Dim};

/// Positions of a register tile.
const SIZE: usize = 8;

/// The weights as `[block][kernel][16]`.
pub(super) fn weights(cx: &mut LowerCx<'_>, p: &Plan2, w: &[f32]) -> Opnd {
    let (kk, block) = (p.kk() as usize, BLOCK as usize);
    let mut out = vec![0f32; div_up(p.groups, BLOCK) as usize * kk * block];
    for (c, row) in w.chunks_exact(kk).enumerate() {
        for (t, v) in row.iter().enumerate() {
            out[(c / block * kk + t) * block + c % block] = *v;
        }
    }
    let dims = [Dim::from(out.len())];
    cx.weight(DType::F32, &dims, f32_bytes(&out))
}

pub(super) fn emit(
    cx: &mut LowerCx<'_>,
    p: Plan2,
    o: Operands,
    w: &[f32],
    mut e: Epilogue,
) -> Result<(), Diag> {
    if let Some(d) = cx.deferred.remove(&o.x) {
        return expand::emit(cx, d, p, o, w, e);
    }
    let x = cx.blocked(o.x)?;
    let weights = weights(cx, &p, w);
    let signed = x.dtype == DType::I8;
    let t = p.window.ok_or_else(|| Diag::error("internal-lower", "no window is small enough"))?;
    let blocks = div_up(p.groups, BLOCK);
    let (rows, columns) = (p.output[0].ceil_div(&t.out[0].into()), p.output[1].ceil_div(&t.out[1].into()));
    let flops = Dim::product(&o.out).mul(&(2 * p.kk()).into());
    let label = if p.bytes { "depthwise_integer" } else { "depthwise" };
    let mut l = e.launch(label, &x, &weights, o.bias.as_ref());
    if let Some(zero) = &o.zero {
        l = l.read(zero);
    }
    let has_zero = o.zero.is_some();
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
        let zero = has_zero.then(|| k.buf(e.end()));
        let b = &mut k.b;
        let local = b.local("window", Elem::F32, t.len() as u32);
        let stored = if p.bytes {
            let zero = match zero {
                Some(z) => b.load(z, 0, 1),
                None => b.int(Ty::vec(Elem::I8, 1), 0),
            };
            let zero = if signed { b.sext(zero, Elem::I32) } else { b.zext(zero, Elem::I32) };
            Stored::Widened { zero: b.sitofp(zero, Elem::F32), signed }
        } else {
            Stored::F32
        };
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
            window::fill(b, &p, &t, &z, &Source { x, base, blocked: true, lanes, stored }, local, at);
            let height = b.sub(z.output[0], at[0]);
            let height = b.smin(height, t.out[0]);
            let width = b.sub(z.output[1], at[1]);
            let width = b.smin(width, t.out[1]);
            let known = p.output[1].as_const().filter(|w| w % t.out[1] == 0).map(|_| t.out[1]);
            let out = b.mul(row, total);
            for part in 0..BLOCK / i64::from(lanes) {
                let part = Part::new(b, &p, (local, w, bias), block, part * i64::from(lanes), lanes);
                b.loop_(0, height, 1, |b, row| {
                    let y = b.add(at[0], row);
                    let place = b.at(at[1], y, z.output[1]);
                    let place = b.add(place, out);
                    let first = b.mul(row, t.step[0]);
                    let row_of = |b: &mut Builder, ky: Val| {
                        let at = b.at(first, ky, p.dilations[0]);
                        b.mul(at, t.window[1])
                    };
                    part.row(b, (&e, &epi), place, (width, known), t.step[1], &row_of);
                });
            }
        });
    })
}

/// The lanes of a block that are done together.
pub(super) struct Part<'p> {
    p: &'p Plan2,
    /// Where the rows of the input are, positions of 16 channels.
    local: Buf,
    w: Buf,
    lanes: u16,
    /// First lane in the block.
    off: i64,
    weights: Val,
    start: Val,
    channels: Channels,
}

impl<'p> Part<'p> {
    /// The `lanes` channels from `off` on of a block. The buffers are the input's rows, the weights and the bias.
    pub(super) fn new(
        b: &mut Builder,
        p: &'p Plan2,
        (local, w, bias): (Buf, Buf, Option<Buf>),
        block: Val,
        off: i64,
        lanes: u16,
    ) -> Part<'p> {
        let first = b.mul(block, BLOCK);
        let first = b.add(first, off);
        let channels = b.i64(p.groups);
        let mask = channel_mask(b, lanes, first, channels);
        let start = match bias {
            Some(buf) => b.load_opt(buf, first, lanes, mask),
            None => b.zero(Ty::vec(Elem::F32, lanes)),
        };
        let weights = b.mul(block, p.kk() * BLOCK);
        let weights = b.add(weights, off);
        Part { p, local, w, lanes, off, weights, start, channels: Channels { first, mask } }
    }

    /// A row of results that begins at position `place`, of `width` positions, `step` apart in the input. `row_of` gives the position
    /// in the local buffer of the input's row for a row of the kernel.
    pub(super) fn row(
        &self,
        b: &mut Builder,
        (e, epi): (&Epilogue, &[Buf]),
        place: Val,
        (width, known): (Val, Option<i64>),
        step: i64,
        row_of: &dyn Fn(&mut Builder, Val) -> Val,
    ) {
        in_pieces(b, width, known, SIZE, |b, column, size| {
            for (i, sum) in self.sums(b, row_of, column, step, size).into_iter().enumerate() {
                let at = b.add(place, column);
                let at = b.add(at, i as i64);
                let index = b.mul(at, BLOCK);
                let index = b.add(index, self.off);
                // Sums of integers this few are exact in f32.
                let sum = if self.p.bytes { b.fptosi(sum, Elem::I32) } else { sum };
                e.finish_channels(b, epi, sum, index, &self.channels);
            }
        });
    }

    /// The sums of `size` neighbouring positions.
    fn sums(
        &self,
        b: &mut Builder,
        row_of: &dyn Fn(&mut Builder, Val) -> Val,
        column: Val,
        step: i64,
        size: usize,
    ) -> Vec<Val> {
        let p = self.p;
        panel::for_kernel(b, p.kk(), vec![self.start; size], &|b, tap, acc| {
            let (ky, kx) = b.div_rem(tap, p.kernel[1]);
            let at = row_of(b, ky);
            let at = b.at(at, column, step);
            let at = b.at(at, kx, p.dilations[1]);
            let from = b.mul(at, BLOCK);
            let from = b.add(from, self.off);
            let weight = b.at(self.weights, tap, BLOCK);
            let weight = b.load(self.w, weight, self.lanes);
            (0..size)
                .map(|i| {
                    let at = b.add(from, i as i64 * step * BLOCK);
                    let v = b.load(self.local, at, self.lanes);
                    b.fma(v, weight, acc[i])
                })
                .collect()
        })
    }
}
