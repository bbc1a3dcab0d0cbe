//! Matrix products on GPUs: a block computes a tile of the result over shared memory.

use super::epilogue::{Epilogue, Place};
use super::matmul::{Operands, batch_dims, batch_offset};
use crate::kernel::{Builder, Val};
use crate::lower::cx::LowerCx;
use crate::lower::elem::{compute_elem, load};
use crate::lower::launch::Launch;
use crate::simt::matmul::{Product, Tile};
use planish_ir::op::matmul::MatMul;
use planish_ir::{Diag, Dim};

/// Below this many rows or columns a large tile is mostly empty.
const FEW: i64 = 32;

fn tile(m: &Dim, n: &Dim) -> Tile {
    let few = |d: &Dim| d.as_const().is_some_and(|d| d < FEW);
    if few(m) || few(n) { Tile { block: [16, 16, 16], thread: [1, 1] } } else { Tile::default() }
}

/// Emits a product with what follows it.
pub(super) fn emit(cx: &mut LowerCx<'_>, op: &MatMul, o: &Operands, mut e: Epilogue) -> Result<(), Diag> {
    let right = cx.memory_of(o.b_value)?;
    let rank = o.out.len();
    let (m, n) = (o.out[rank - 2].clone(), o.out[rank - 1].clone());
    let ar = o.a.dims.len();
    let k_dim = o.a.dims[if op.trans_a { ar - 2 } else { ar - 1 }].clone();
    let batch = o.out[..rank - 2].to_vec();
    let nb = batch.len();
    let tile = tile(&m, &n);
    let down = m.ceil_div(&i64::from(tile.block[0]).into());
    let across = n.ceil_div(&i64::from(tile.block[1]).into());
    let mut l = Launch::new("matmul").read(&o.a).read(&right);
    l = e.bufs(l, 2);
    l = l.dim(&m).dim(&n).dim(&k_dim).dim(&down).dim(&across).dims(&batch);
    l = l.dims(&batch_dims(&o.a.dims, nb)).dims(&batch_dims(&o.b, nb));
    let flops = Dim::product(&o.out).mul(&k_dim).mul(&2.into());
    l = l.extent(Dim::product(&batch).mul(&down).mul(&across)).flops(flops);
    let (a_type, b_type) = (o.a.dtype, o.b_type);
    let (trans_a, trans_b) = (op.trans_a, op.trans_b);
    cx.launch_blocks(l, tile.block_threads(), move |kx| {
        let (a, w) = (kx.buf(0), kx.buf(1));
        let epi = e.handles(kx);
        let [m, n, k, down, across] = [0, 1, 2, 3, 4].map(|i| kx.dim(i));
        let (batch, ad, bd) = (kx.dims(5, nb), kx.dims(5 + nb, nb), kx.dims(5 + 2 * nb, nb));
        let unit = kx.unit();
        let b = &mut kx.b;
        let tx = i64::from(tile.threads()[0]);
        let t = b.thread_id(0);
        let (x, y) = (b.urem(t, tx), b.div_const(t, tx));
        let (rest, bx) = b.div_rem(unit, across);
        let (which, by) = b.div_rem(rest, down);
        let coords = crate::lower::nest::decode(b, which, &batch);
        let (a_size, b_size, c_size) = (b.mul(m, k), b.mul(k, n), b.mul(m, n));
        let a0 = batch_offset(b, &coords, &ad, a_size);
        let b0 = batch_offset(b, &coords, &bd, b_size);
        let c0 = b.mul(which, c_size);
        let left = |b: &mut Builder, r: Val, c: Val, inside: Val| {
            let at = if trans_a { b.at(r, c, m) } else { b.at(c, r, k) };
            let at = b.add(at, a0);
            load(b, a_type, a, at, 1, Some(inside))
        };
        let right = |b: &mut Builder, r: Val, c: Val, inside: Val| {
            let at = if trans_b { b.at(r, c, k) } else { b.at(c, r, n) };
            let at = b.add(at, b0);
            load(b, b_type, w, at, 1, Some(inside))
        };
        let finish = |b: &mut Builder, r: Val, col: Val, sum: Val| {
            let index = b.at(col, r, n);
            let index = b.add(index, c0);
            e.finish(b, &epi, sum, &Place { index, channel: col, last: col }, None);
        };
        let product = Product {
            elem: compute_elem(a_type),
            sizes: (m, n, k),
            thread: (x, y),
            block: (bx, by),
            left: &left,
            right: &right,
            finish: &finish,
        };
        product.emit(b, tile);
    })
}
