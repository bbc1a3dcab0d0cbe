//! Winograd's minimal filtering F(m, r) (Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2015), along one
//! axis or two: `m + r - 1` products along an axis give `m` results of `r` taps. F(4x4, 3x3) takes 36 products for 16 results that
//! take 144 otherwise, F(2x2, 5x5) 36 for 4 that take 100.
//!
//! With `d` the input of a tile, `g` the weights of a pair of channels:
//! `y = At (sum over channels of (G g Gt) * (Bt d B)) A`, where `*` is element by element. Weights are transformed at compile
//! time. The transformed input `[product][input block][tile][16]` of some tiles is made either by the unit of work that needs it,
//! in local memory, or by a launch of its own. A unit makes for some tiles and a group of output channels a matrix product over
//! the input channels for each of the products, keeps them in local memory and transforms them back.
//!
//! Rounding errors grow by the size of the matrices' elements: a result that is the sum of `k` products is off by
//! `2.5e-7 k max|x| max|w|` at most where everything has one sign, and by about `1e-6 sqrt(k) max|x| max|w|` for what networks
//! compute: some 10 times the error of the direct sum.

mod axis;
mod back;
mod form;
mod forth;

pub(super) use form::Form;

use super::{BLOCK, Operands, Plan2, f32_bytes};
use crate::kernel::{Buf, Builder, Elem, Val};
use crate::lower::contraction::div_up;
use crate::lower::contraction::epilogue::Epilogue;
use crate::lower::cx::{LowerCx, Opnd};
use crate::lower::launch::Launch;
use back::Back;
use forth::Forth;
use planish_ir::{DType, Diag, Dim};

/// Where transformed input lies: `[product][block][tile][16]`.
#[derive(Clone, Copy)]
struct Transformed {
    buf: Buf,
    /// Where the image begins, in blocks of 16 elements a tile.
    image: Val,
    /// Blocks of channels in all, and the first of the group.
    blocks: i64,
    group: Val,
    /// Tiles in all.
    tiles: Val,
}

impl Transformed {
    /// The element of product `e`, block `block` of the group, tile `tile`.
    fn at(&self, b: &mut Builder, e: Val, block: Val, tile: Val) -> Val {
        let at = b.at(self.image, e, self.blocks);
        let at = b.add(at, self.group);
        let at = b.add(at, block);
        let at = b.at(tile, at, self.tiles);
        b.mul(at, BLOCK)
    }
}

/// The transformed weights as `[group][output block][product][input channel][16]`.
fn packed(p: &Plan2, f: &Form, w: &[f32]) -> Vec<f32> {
    let (mg, cg, block) = (p.mg as usize, p.cg as usize, BLOCK as usize);
    let (products, blocks) = (f.products() as usize, p.blocks() as usize);
    let mut out = vec![0f32; p.groups as usize * blocks * products * cg * block];
    let width = p.kernel[1] as usize;
    for (pair, g) in w.chunks_exact(p.kk() as usize).enumerate() {
        let (m, c) = (pair / cg, pair % cg);
        let (group, m) = (m / mg, m % mg);
        // The rows, then the columns of what they give.
        let rows: Vec<Vec<f64>> = g
            .chunks_exact(width)
            .map(|row| f.axes[1].weights(&row.iter().map(|v| f64::from(*v)).collect::<Vec<_>>()))
            .collect();
        let first = (group * blocks + m / block) * products;
        for j in 0..f.axes[1].inputs() {
            let column: Vec<f64> = rows.iter().map(|row| row[j]).collect();
            for (i, v) in f.axes[0].weights(&column).into_iter().enumerate() {
                let e = i * f.axes[1].inputs() + j;
                out[((first + e) * cg + c) * block + m % block] = v as f32;
            }
        }
    }
    out
}

pub(super) fn emit(
    cx: &mut LowerCx<'_>,
    p: Plan2,
    f: Form,
    o: Operands,
    w: &[f32],
    mut e: Epilogue,
) -> Result<(), Diag> {
    let weights = packed(&p, &f, w);
    let weights = cx.weight(DType::F32, &[Dim::from(weights.len())], f32_bytes(&weights));
    let [down, across] = [0, 1].map(|a| p.output[a].ceil_div(&f.outputs()[a].into()));
    let tiles = down.mul(&across);
    let blocks_in = div_up(p.cg, BLOCK);
    let x = cx.blocked(o.x)?;
    let source = if f.inside { x } else { transform(cx, &p, &f, &x, &[&down, &across])? };

    // Output blocks that are done together, and how many such parts one unit does.
    let wide = p.wide();
    let groups = div_up(p.blocks(), wide);
    let parts = if f.inside { 1 } else { groups };
    let chunk = f.chunk[0] * f.chunk[1];
    // Chunks: rows and columns of them.
    let (chunk_rows, chunk_columns) = match f.inside {
        true => (down.ceil_div(&f.chunk[0].into()), across.ceil_div(&f.chunk[1].into())),
        false => (Dim::Const(1), tiles.ceil_div(&chunk.into())),
    };
    let flops = Dim::product(&o.out).mul(&(2 * p.k()).into());
    let l = e.launch("winograd", &source, &weights, o.bias.as_ref());
    let has_bias = o.bias.is_some();
    let l = p.dims(l).dim(&p.batch).dim(&down).dim(&across).dim(&chunk_rows).dim(&chunk_columns);
    let units = p.batch.mul(&(p.groups * parts).into()).mul(&chunk_rows).mul(&chunk_columns);
    let l = l.extent(units).flops(flops);
    let l = l.cost(chunk * f.products() * p.cg * div_up(p.blocks(), parts));
    let known = match f.inside {
        true => {
            let even = |a: usize, d: &Dim| d.as_const().is_some_and(|n| n % f.chunk[a] == 0);
            (even(0, &down) && even(1, &across)).then_some(chunk)
        }
        false => tiles.as_const().filter(|n| *n > 0 && n % chunk == 0).map(|_| chunk),
    };
    cx.launch(l, move |k| {
        let lanes = k.lanes(Elem::F32).min(BLOCK as u16);
        let z = p.sizes(k, 0);
        let (source, w) = (k.buf(0), k.buf(1));
        let bias = has_bias.then(|| k.buf(2));
        let epi = e.handles(k);
        let (batch, down, across) = (k.dim(6), k.dim(7), k.dim(8));
        let (chunk_rows, chunk_columns) = (k.dim(9), k.dim(10));
        let target = k.target.clone();
        let b = &mut k.b;
        let products = b.local("products", Elem::F32, (f.products() * chunk * wide * BLOCK) as u32);
        let local = f.inside.then(|| {
            let elements = f.products() * blocks_in * chunk * BLOCK;
            (b.local("transformed", Elem::F32, elements as u32), Forth::new(b, &p, &f, source, lanes))
        });
        let tiles = b.mul(down, across);
        b.parallel_for(|b, unit| {
            let (rest, column) = b.div_rem(unit, chunk_columns);
            let (rest, row) = b.div_rem(rest, chunk_rows);
            let (rest, n) = b.div_rem(rest, batch);
            let (part, group) = b.div_rem(rest, p.groups);
            let (input, first, count) = match &local {
                Some((buf, forth)) => {
                    let corner = [b.mul(row, f.chunk[0]), b.mul(column, f.chunk[1])];
                    let rows = b.sub(down, corner[0]);
                    let rows = b.smin(rows, f.chunk[0]);
                    let columns = b.sub(across, corner[1]);
                    let columns = b.smin(columns, f.chunk[1]);
                    let zero = b.i64(0);
                    let to = Transformed {
                        buf: *buf,
                        image: zero,
                        blocks: blocks_in,
                        group: zero,
                        tiles: b.i64(chunk),
                    };
                    let plane = b.at(group, n, p.groups);
                    let plane = b.mul(plane, blocks_in);
                    b.loop_(0, blocks_in, 1, |b, block| {
                        let from = b.add(plane, block);
                        forth.block(b, &z, (from, block), corner, (rows, columns), (&to, zero, columns));
                    });
                    (to, b.at(corner[1], corner[0], across), b.mul(rows, columns))
                }
                None => {
                    let first = b.mul(column, chunk);
                    let left = b.sub(tiles, first);
                    let blocks = blocks_in * p.groups;
                    let image = b.mul(n, f.products() * blocks);
                    let group = b.mul(group, blocks_in);
                    let from = Transformed { buf: source, image, blocks, group, tiles };
                    (from, first, b.smin(left, chunk))
                }
            };
            let count = known.map_or(count, |n| b.i64(n));
            let plane = b.at(group, n, p.groups);
            let job = Back {
                p: &p,
                f: &f,
                e: &e,
                epi: &epi,
                input,
                input_first: if f.inside { b.i64(0) } else { first },
                w,
                bias,
                products,
                lanes,
                wide,
                group,
                plane: b.mul(plane, p.blocks()),
                output: z.output,
                across,
                target: &target,
                ahead: !f.inside,
            };
            let own = |b: &mut Builder, part: Val| {
                let block = b.mul(part, wide);
                let left = b.sub(p.blocks(), block);
                let blocks = if p.blocks() % wide == 0 { b.i64(wide) } else { b.smin(left, wide) };
                job.emit(b, (block, blocks), (first, count), known);
            };
            match f.inside {
                true => b.loop_(0, groups, 1, |b, part| own(b, part)),
                false => own(b, part),
            }
        });
    })
}

/// The launch that transforms the input: `[n][product][block][tile][16]`.
fn transform(
    cx: &mut LowerCx<'_>,
    p: &Plan2,
    f: &Form,
    x: &Opnd,
    [down, across]: &[&Dim; 2],
) -> Result<Opnd, Diag> {
    let blocks = div_up(p.cg, BLOCK) * p.groups;
    let tiles = down.mul(across);
    let dims = [p.batch.clone(), f.products().into(), blocks.into(), tiles.clone(), BLOCK.into()];
    let y = cx.temp(DType::F32, &dims);
    // A unit is a row of tiles, or a part of it, of one block.
    let most = f.chunk[1];
    let most = across.as_const().map_or(most, |n| div_up(n, div_up(n, most).max(1)).max(1));
    let f = Form { chunk: [1, most], ..*f };
    let parts = across.ceil_div(&most.into());
    let l = p.dims(Launch::new("winograd_in").read(x).write(&y));
    let l = l.dim(down).dim(across).dim(&parts).dim(&tiles);
    let l = l.extent(p.batch.mul(&blocks.into()).mul(down).mul(&parts)).cost(most * 300);
    cx.launch(l, move |k| {
        let lanes = k.lanes(Elem::F32).min(BLOCK as u16);
        let z = p.sizes(k, 0);
        let (x, y) = (k.buf(0), k.buf(1));
        let (down, across, parts, tiles) = (k.dim(6), k.dim(7), k.dim(8), k.dim(9));
        let b = &mut k.b;
        let forth = Forth::new(b, p, &f, x, lanes);
        b.parallel_for(|b, unit| {
            let (rest, part) = b.div_rem(unit, parts);
            let (from, row) = b.div_rem(rest, down);
            let (n, block) = b.div_rem(from, blocks);
            let corner = [row, b.mul(part, most)];
            let columns = b.sub(across, corner[1]);
            let columns = b.smin(columns, most);
            let to = Transformed {
                buf: y,
                image: b.mul(n, f.products() * blocks),
                blocks,
                group: b.i64(0),
                tiles,
            };
            let first = b.at(corner[1], row, across);
            let one = b.i64(1);
            forth.block(b, &z, (from, block), corner, (one, columns), (&to, first, across));
        });
    })?;
    Ok(y)
}
