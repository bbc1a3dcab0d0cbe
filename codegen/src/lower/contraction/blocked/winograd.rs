//! Winograd's minimal filtering F(4x4, 3x3) (Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2015): 36
//! products give 16 results of a 3x3 window that take 144 otherwise.
//!
//! A tile of 4x4 results needs 6x6 of the input. With `d` the input, `g` the weights of a pair of channels:
//! `y = At (sum over channels of (G g Gt) * (Bt d B)) A`, where `*` is element by element. Weights are transformed at compile
//! time. A first launch writes the transformed input `[n][36][input block][tile][16]`; a second one makes for a group of output
//! channels and some tiles 36 matrix products over the input channels, keeps them in local memory and transforms them back.
//!
//! Rounding errors grow by the size of the matrices' elements: with `c` input channels a result is off by `2e-6 c max|x| max|w|`
//! at most where everything has one sign, and by about `1e-6 sqrt(9 c) max|x| max|w|` for what networks compute: some 10 times the error
//! of the direct sum.

use super::window::{self, Source};
use super::{BLOCK, MOST, Operands, Plan2, f32_bytes};
use crate::kernel::{Buf, Builder, CmpOp, Elem, TargetSpec, Ty, Val};
use crate::lower::contraction::div_up;
use crate::lower::contraction::epilogue::{Channels, Epilogue};
use crate::lower::contraction::tile::{Tile, in_pieces, rows_that_fit};
use crate::lower::cx::{LowerCx, Opnd};
use crate::lower::launch::Launch;
use crate::lower::layout::channel_mask;
use planish_ir::{DType, Diag, Dim};

/// Results of a tile along an axis.
const OUT: i64 = 4;
/// Elements of the input that a tile needs along an axis.
const IN: usize = 6;
/// Products of a tile and a pair of channels.
const PRODUCTS: usize = IN * IN;
/// Tiles that are transformed back together, at most.
const TILES: i64 = 28;
/// Floating-point operations in the time in which memory gives one byte, roughly, for deciding.
const FLOPS_PER_BYTE: i64 = 10;
/// Positions assumed where the size is not known.
const UNKNOWN: i64 = 28;

/// G, rows of three.
const G: [[f64; 3]; IN] = [
    [0.25, 0.0, 0.0],
    [-1.0 / 6.0, -1.0 / 6.0, -1.0 / 6.0],
    [-1.0 / 6.0, 1.0 / 6.0, -1.0 / 6.0],
    [1.0 / 24.0, 1.0 / 12.0, 1.0 / 6.0],
    [1.0 / 24.0, -1.0 / 12.0, 1.0 / 6.0],
    [0.0, 0.0, 1.0],
];

/// Whether the convolution has this form and gains by it, counted per pair of channels: operations, and bytes of weights that
/// are read once.
pub(super) fn pays(p: &Plan2) -> bool {
    let form = p.groups == 1 && p.kernel == [3, 3] && p.strides == [1, 1] && p.dilations == [1, 1];
    if !form || p.cg < BLOCK || p.mg < BLOCK {
        return false;
    }
    let [h, w] = [0, 1].map(|a| p.output[a].as_const().unwrap_or(UNKNOWN));
    let tiles = div_up(h, OUT) * div_up(w, OUT);
    let direct = 18 * h * w + 36 * FLOPS_PER_BYTE;
    // About 200 vector operations transform 16 input channels of a tile, and as many 16 output channels back.
    let transforms = tiles * (400 / p.mg + 400 / p.cg);
    let products = tiles * 72 + transforms + 144 * FLOPS_PER_BYTE;
    products * 11 < direct * 10
}

/// The transformed weights as `[output block][36][input channel][16]`.
fn packed(p: &Plan2, w: &[f32]) -> Vec<f32> {
    let (mg, cg, block) = (p.mg as usize, p.cg as usize, BLOCK as usize);
    let mut out = vec![0f32; p.blocks() as usize * PRODUCTS * cg * block];
    for (pair, g) in w.chunks_exact(9).enumerate() {
        let (m, c) = (pair / cg, pair % cg);
        debug_assert!(m < mg);
        // G g, then (G g) Gt.
        let mut half = [[0f64; 3]; IN];
        for (row, coefficients) in half.iter_mut().zip(&G) {
            for (j, v) in row.iter_mut().enumerate() {
                *v = (0..3).map(|i| coefficients[i] * f64::from(g[3 * i + j])).sum();
            }
        }
        for (i, row) in half.iter().enumerate() {
            for (j, coefficients) in G.iter().enumerate() {
                let v: f64 = row.iter().zip(coefficients).map(|(a, b)| a * b).sum();
                let at = ((m / block * PRODUCTS + i * IN + j) * cg + c) * block + m % block;
                out[at] = v as f32;
            }
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
    let weights = packed(&p, w);
    let weights = cx.weight(DType::F32, &[Dim::from(weights.len())], f32_bytes(&weights));
    let [down, across] = [0, 1].map(|a| p.output[a].ceil_div(&OUT.into()));
    let tiles = down.mul(&across);
    let x = cx.blocked(o.x)?;
    let transformed = transform(cx, &p, &x, &tiles)?;

    let group = p.wide();
    let groups = div_up(p.blocks(), group);
    let chunk = match tiles.as_const() {
        Some(n) if n > 0 => div_up(n, div_up(n, TILES)),
        _ => TILES,
    };
    let chunks = tiles.ceil_div(&chunk.into());
    let flops = Dim::product(&o.out).mul(&(2 * p.k()).into());
    let l = e.launch("winograd", &transformed, &weights, o.bias.as_ref());
    let has_bias = o.bias.is_some();
    let l = l.dims(&p.output).dim(&p.batch).dim(&tiles).dim(&across).dim(&chunks);
    let l = l.extent(p.batch.mul(&groups.into()).mul(&chunks)).flops(flops);
    let l = l.cost(chunk * PRODUCTS as i64 * p.cg * group);
    let known = tiles.as_const().filter(|n| *n > 0 && n % chunk == 0).map(|_| chunk);
    cx.launch(l, move |k| {
        let lanes = k.lanes(Elem::F32).min(BLOCK as u16);
        let (v, w) = (k.buf(0), k.buf(1));
        let bias = has_bias.then(|| k.buf(2));
        let epi = e.handles(k);
        let output = [k.dim(0), k.dim(1)];
        let (batch, tiles, across, chunks) = (k.dim(2), k.dim(3), k.dim(4), k.dim(5));
        let target = k.target.clone();
        let b = &mut k.b;
        let products = b.local("products", Elem::F32, (PRODUCTS as i64 * chunk * group * BLOCK) as u32);
        let job = Back {
            p: &p,
            e: &e,
            epi: &epi,
            v,
            w,
            bias,
            products,
            lanes,
            chunk,
            group,
            output,
            tiles,
            across,
        };
        b.parallel_for(|b, unit| {
            let (rest, which) = b.div_rem(unit, chunks);
            let (part, n) = b.div_rem(rest, batch);
            let first = b.mul(which, chunk);
            let left = b.sub(tiles, first);
            let count = if known.is_some() { b.i64(chunk) } else { b.smin(left, chunk) };
            let block = b.mul(part, group);
            let left = b.sub(p.blocks(), block);
            let blocks = if p.blocks() % group == 0 { b.i64(group) } else { b.smin(left, group) };
            job.products(b, &target, n, (block, blocks), (first, count), known);
            b.loop_(0, count, 1, |b, t| job.back(b, n, (block, blocks), first, t));
        });
    })
}

/// The launch that transforms the input.
fn transform(cx: &mut LowerCx<'_>, p: &Plan2, x: &Opnd, tiles: &Dim) -> Result<Opnd, Diag> {
    let blocks = div_up(p.cg, BLOCK);
    let dims = [p.batch.clone(), PRODUCTS.into(), blocks.into(), tiles.clone(), BLOCK.into()];
    let y = cx.temp(DType::F32, &dims);
    // A unit is a row of tiles, or a part of it, of one block.
    let across = p.output[1].ceil_div(&OUT.into());
    let most = across.as_const().map_or(TILES, |n| div_up(n, div_up(n, TILES).max(1)).max(1));
    let parts = across.ceil_div(&most.into());
    let down = p.output[0].ceil_div(&OUT.into());
    let t = window::Tile::new(p, BLOCK, [OUT, OUT * most]);
    let mut l = Launch::new("winograd_in").read(x).write(&y);
    l = p.dims(l).dim(&down).dim(&across).dim(&parts).dim(tiles);
    let l = l.extent(p.batch.mul(&blocks.into()).mul(&down).mul(&parts)).cost(most * 300);
    cx.launch(l, move |k| {
        let lanes = k.lanes(Elem::F32).min(BLOCK as u16);
        let z = p.sizes(k, 0);
        let (x, y) = (k.buf(0), k.buf(1));
        let (down, across, parts, tiles) = (k.dim(6), k.dim(7), k.dim(8), k.dim(9));
        let b = &mut k.b;
        let local = b.local("window", Elem::F32, t.len() as u32);
        let plane = b.mul(z.input[0], z.input[1]);
        b.parallel_for(|b, unit| {
            let (rest, part) = b.div_rem(unit, parts);
            let (row, ty) = b.div_rem(rest, down);
            let (n, block) = b.div_rem(row, blocks);
            let tx = b.mul(part, most);
            let base = b.mul(row, plane);
            let base = b.mul(base, BLOCK);
            let at = [b.mul(ty, OUT), b.mul(tx, OUT)];
            window::fill(b, p, &t, &z, &Source { x, base, blocked: true, lanes }, local, at);
            let left = b.sub(across, tx);
            let count = b.smin(left, most);
            let tile = b.at(tx, ty, across);
            b.loop_(0, count, 1, |b, i| {
                let tile = b.add(tile, i);
                for off in (0..BLOCK).step_by(usize::from(lanes)) {
                    let from = b.mul(i, OUT * BLOCK);
                    let from = b.add(from, off);
                    let d: Vec<Val> = (0..PRODUCTS as i64)
                        .map(|e| {
                            let place = e / IN as i64 * t.window[1] + e % IN as i64;
                            let at = b.add(from, place * BLOCK);
                            b.load(local, at, lanes)
                        })
                        .collect();
                    for (e, v) in both_ways(b, &d, IN, input_line).into_iter().enumerate() {
                        let to = b.mul(n, PRODUCTS as i64);
                        let to = b.add(to, e as i64);
                        let to = b.at(block, to, blocks);
                        let to = b.at(tile, to, tiles);
                        let to = b.mul(to, BLOCK);
                        let to = b.add(to, off);
                        b.store(y, to, v);
                    }
                }
            });
        });
    })?;
    Ok(y)
}

/// Transforms the columns of a square of `IN` rows and columns, then the rows.
fn both_ways(
    b: &mut Builder,
    square: &[Val],
    out: usize,
    line: fn(&mut Builder, [Val; IN]) -> Vec<Val>,
) -> Vec<Val> {
    // half[column][row]
    let half: Vec<Vec<Val>> = (0..IN).map(|j| line(b, std::array::from_fn(|i| square[i * IN + j]))).collect();
    (0..out).flat_map(|i| line(b, std::array::from_fn(|j| half[j][i]))).collect()
}

/// Bt times a column.
fn input_line(b: &mut Builder, d: [Val; IN]) -> Vec<Val> {
    let t0 = b.fma(d[2], -4.0, d[4]);
    let t1 = b.fma(d[1], -4.0, d[3]);
    let t2 = b.fsub(d[4], d[2]);
    let t3 = b.fsub(d[3], d[1]);
    let t3 = b.fadd(t3, t3);
    let first = b.fma(d[2], -5.0, d[4]);
    let last = b.fma(d[3], -5.0, d[5]);
    vec![
        b.fma(d[0], 4.0, first),
        b.fadd(t0, t1),
        b.fsub(t0, t1),
        b.fadd(t2, t3),
        b.fsub(t2, t3),
        b.fma(d[1], 4.0, last),
    ]
}

/// At times a column.
fn output_line(b: &mut Builder, m: [Val; IN]) -> Vec<Val> {
    let (s1, d1) = (b.fadd(m[1], m[2]), b.fsub(m[1], m[2]));
    let (s2, d2) = (b.fadd(m[3], m[4]), b.fsub(m[3], m[4]));
    let first = b.fadd(m[0], s1);
    let last = b.fadd(m[5], d1);
    vec![b.fadd(first, s2), b.fma(d2, 2.0, d1), b.fma(s2, 4.0, s1), b.fma(d2, 8.0, last)]
}

/// The launch that multiplies and transforms back.
struct Back<'j> {
    p: &'j Plan2,
    e: &'j Epilogue,
    epi: &'j [Buf],
    /// The transformed input.
    v: Buf,
    w: Buf,
    bias: Option<Buf>,
    /// `[36][tile][blocks of the group * 16]`.
    products: Buf,
    lanes: u16,
    chunk: i64,
    group: i64,
    output: [Val; 2],
    tiles: Val,
    across: Val,
}

impl Back<'_> {
    /// Fills `products` for `blocks` (first, count) of output channels and `tiles` (first, count).
    fn products(
        &self,
        b: &mut Builder,
        target: &TargetSpec,
        n: Val,
        (block, blocks): (Val, Val),
        (first, count): (Val, Val),
        known: Option<i64>,
    ) {
        let p = self.p;
        let lanes = i64::from(self.lanes);
        let cb = div_up(p.cg, BLOCK);
        b.loop_(0, PRODUCTS as i64, 1, |b, e| {
            let image = b.mul(n, PRODUCTS as i64);
            let image = b.add(image, e);
            let image = b.mul(image, cb);
            let image = b.mul(image, self.tiles);
            p.for_vectors(b, target, self.lanes, blocks, |b, v, nv| {
                let channel = b.mul(v, lanes);
                let weights: Vec<Val> = (0..nv as i64)
                    .map(|i| {
                        let channel = b.add(channel, i * lanes);
                        let (own, off) = (b.div_const(channel, BLOCK), b.and(channel, BLOCK - 1));
                        let at = b.add(block, own);
                        let at = b.mul(at, PRODUCTS as i64);
                        let at = b.add(at, e);
                        b.at(off, at, p.cg * BLOCK)
                    })
                    .collect();
                in_pieces(b, count, known, rows_that_fit(target, nv, MOST), |b, t, size| {
                    let at = b.add(first, t);
                    let at = b.add(at, image);
                    let from = b.mul(at, BLOCK);
                    let sums = self.sums(b, from, &weights, size);
                    let to = b.mul(e, self.chunk);
                    let to = b.add(to, t);
                    let to = b.mul(to, self.group * BLOCK);
                    let to = b.add(to, channel);
                    for (i, sum) in sums.into_iter().enumerate() {
                        let (row, i) = ((i / nv) as i64, (i % nv) as i64);
                        let at = b.add(to, row * self.group * BLOCK + i * lanes);
                        b.store(self.products, at, sum);
                    }
                });
            });
        });
    }

    /// Sums over the input channels for `size` tiles from element `from` of the transformed input.
    fn sums(&self, b: &mut Builder, from: Val, weights: &[Val], size: usize) -> Vec<Val> {
        let zero = b.zero(Ty::vec(Elem::F32, self.lanes));
        let apart = b.mul(self.tiles, BLOCK);
        let steps = |b: &mut Builder, block: Val, width: i64, acc: &[Val]| {
            let from = b.at(from, block, apart);
            let k = b.mul(block, BLOCK * BLOCK);
            let starts: Vec<Val> = weights.iter().map(|w| b.add(*w, k)).collect();
            let a = |b: &mut Builder, c: Val, i: usize| {
                let at = b.add(from, c);
                let at = b.add(at, i as i64 * BLOCK);
                b.load(self.v, at, 1)
            };
            let bv = |b: &mut Builder, c: Val, i: usize| {
                let at = b.at(starts[i], c, BLOCK);
                b.load(self.w, at, self.lanes)
            };
            let k = (b.i64(0), b.i64(width));
            let (nv, lanes) = (weights.len(), self.lanes);
            Tile { rows: size, nv, lanes, elem: Elem::F32, k, a: &a, b: &bv }.emit(b, Some(acc.to_vec()))
        };
        let (whole, rest) = (self.p.cg / BLOCK, self.p.cg % BLOCK);
        let init = vec![zero; size * weights.len()];
        let mut acc = b.for_(0, whole, 1, &init, |b, block, acc| steps(b, block, BLOCK, acc));
        if rest > 0 {
            let block = b.i64(whole);
            acc = steps(b, block, rest, &acc);
        }
        acc
    }

    /// Transforms the products of tile `t` of the unit back and finishes its results.
    fn back(&self, b: &mut Builder, n: Val, (block, blocks): (Val, Val), first: Val, t: Val) {
        let p = self.p;
        let lanes = i64::from(self.lanes);
        let tile = b.add(first, t);
        let (ty, tx) = b.div_rem(tile, self.across);
        let corner = [b.mul(ty, OUT), b.mul(tx, OUT)];
        let vectors = b.mul(blocks, BLOCK / lanes);
        b.loop_(0, vectors, 1, |b, v| {
            let channel = b.mul(v, lanes);
            let m: Vec<Val> = (0..PRODUCTS as i64)
                .map(|e| {
                    let at = b.add(t, e * self.chunk);
                    let at = b.mul(at, self.group * BLOCK);
                    let at = b.add(at, channel);
                    b.load(self.products, at, self.lanes)
                })
                .collect();
            let y = both_ways(b, &m, OUT as usize, output_line);
            let own = b.div_const(channel, BLOCK);
            let off = b.and(channel, BLOCK - 1);
            let own = b.add(block, own);
            let first = b.at(off, own, BLOCK);
            let channels = b.i64(p.mg);
            let mask = channel_mask(b, self.lanes, first, channels);
            let bias = self.bias.map(|buf| b.load_opt(buf, first, self.lanes, mask));
            let plane = b.mul(n, p.blocks());
            let plane = b.add(plane, own);
            let place = b.at(corner[0], plane, self.output[0]);
            for i in 0..OUT {
                let row = b.add(corner[0], i);
                let whole = |a: usize| p.output[a].as_const().is_some_and(|n| n % OUT == 0);
                let within = |b: &mut Builder, a: usize, at: Val| match whole(a) {
                    true => b.int(Ty::BOOL, 1),
                    false => b.cmp(CmpOp::Slt, at, self.output[a]),
                };
                let ok = within(b, 0, row);
                b.when(ok, |b| {
                    let row = b.add(place, i);
                    let line = b.at(corner[1], row, self.output[1]);
                    for j in 0..OUT {
                        let column = b.add(corner[1], j);
                        let ok = within(b, 1, column);
                        b.when(ok, |b| {
                            let at = b.add(line, j);
                            let index = b.at(off, at, BLOCK);
                            let mut sum = y[(i * OUT + j) as usize];
                            if let Some(bias) = bias {
                                sum = b.fadd(sum, bias);
                            }
                            self.e.finish_channels(b, self.epi, sum, index, &Channels { first, mask });
                        });
                    }
                });
            }
        });
    }
}
