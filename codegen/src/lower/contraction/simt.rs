//! Matrix products on GPUs: a block computes a tile of the result over shared memory.

use super::div_up;
use super::epilogue::{Epilogue, Place};
use super::matmul::{Operands, batch_dims, batch_offset};
use super::sparse::{self, Blocks};
use crate::kernel::{Builder, CmpOp, Elem, Ty, Val};
use crate::lower::Precision;
use crate::lower::cx::LowerCx;
use crate::lower::elem::{compute_elem, load};
use crate::lower::launch::Launch;
use crate::lower::nest::decode_by;
use crate::simt::matmul::{Product, Tile};
use crate::simt::tensor::{self, TensorProduct};
use planish_ir::op::matmul::MatMul;
use planish_ir::{DType, Diag, Dim};

/// Below this many rows or columns a large tile is mostly empty.
const FEW: i64 = 32;

fn tile(m: &Dim, n: &Dim) -> Tile {
    let few = |d: &Dim| d.as_const().is_some_and(|d| d < FEW);
    if few(m) || few(n) { Tile { block: [16, 16, 16], thread: [1, 1] } } else { Tile::default() }
}

/// Emits a product with what follows it.
pub(super) fn emit(cx: &mut LowerCx<'_>, op: &MatMul, o: &Operands, mut e: Epilogue) -> Result<(), Diag> {
    if let Some(x) = sparse::takes(cx, op, o) {
        return emit_blocks(cx, o, &x, e);
    }
    let right = cx.memory_of(o.b_value)?;
    let rank = o.out.len();
    let (m, n) = (o.out[rank - 2].clone(), o.out[rank - 1].clone());
    let ar = o.a.dims.len();
    let k_dim = o.a.dims[if op.trans_a { ar - 2 } else { ar - 1 }].clone();
    let batch = o.out[..rank - 2].to_vec();
    let nb = batch.len();
    let tile = tile(&m, &n);
    let f32s = o.a.dtype == DType::F32 && o.b_type == DType::F32;
    let factors = match cx.precision() {
        Precision::Tf32 if f32s => Some(Elem::F32),
        Precision::Bf16 if f32s => Some(Elem::BF16),
        _ => None,
    };
    let [rows, columns, _] = if factors.is_some() { tensor::BLOCK } else { tile.block };
    let threads = if factors.is_some() { tensor::THREADS } else { tile.block_threads() };
    let down = m.ceil_div(&i64::from(rows).into());
    let across = n.ceil_div(&i64::from(columns).into());
    let mut l = Launch::new("matmul").read(&o.a).read(&right);
    l = e.bufs(l, 2);
    l = l.dim(&m).dim(&n).dim(&k_dim).dim(&down).dim(&across).dims(&batch);
    l = l.dims(&batch_dims(&o.a.dims, nb)).dims(&batch_dims(&o.b, nb));
    let flops = Dim::product(&o.out).mul(&k_dim).mul(&2.into());
    l = l.extent(Dim::product(&batch).mul(&down).mul(&across)).flops(flops);
    let (a_type, b_type) = (o.a.dtype, o.b_type);
    let (trans_a, trans_b) = (op.trans_a, op.trans_b);
    cx.launch_blocks(l, threads, move |kx| {
        let (a, w) = (kx.buf(0), kx.buf(1));
        let epi = e.handles(kx);
        let [m, n, k, down, across] = [0, 1, 2, 3, 4].map(|i| kx.dim(i));
        let (batch, ad, bd) = (kx.dims(5, nb), kx.dims(5 + nb, nb), kx.dims(5 + 2 * nb, nb));
        let unit = kx.unit();
        let b = &mut kx.b;
        let tx = i64::from(tile.threads()[0]);
        let t = b.thread_id(0);
        let (x, y) = (b.urem(t, tx), b.div_const(t, tx));
        // There are fewer than 2^31 blocks.
        let (rest, bx) = b.div_rem_small(unit, across);
        let (which, by) = b.div_rem_small(rest, down);
        let coords = decode_by(b, which, &batch, Builder::div_rem_small);
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
        if let Some(elem) = factors {
            let product = TensorProduct {
                elem,
                sizes: (m, n, k),
                thread: t,
                block: (bx, by),
                left: &|b, r, c, inside| {
                    let v = left(b, r, c, inside);
                    tensor::factor(b, elem, v)
                },
                right: &|b, r, c, inside| {
                    let v = right(b, r, c, inside);
                    tensor::factor(b, elem, v)
                },
                totals: false,
                finish: &|b, (r, col), v, _| finish(b, r, col, v),
            };
            product.emit(b);
            return;
        }
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

/// Emits a product with a matrix of which some blocks are kept: a block of threads walks the list of one strip of columns.
fn emit_blocks(cx: &mut LowerCx<'_>, o: &Operands, x: &Blocks, mut e: Epilogue) -> Result<(), Diag> {
    let (k, n) = (x.matrix.k as i64, x.matrix.n as i64);
    let [height, width] = x.block.map(|d| d as i64);
    let strips = x.strips(x.block[0], x.block[1]);
    let strips = strips.into_iter().map(|l| l.into_iter().map(|(k, v)| (k as i64, v)).collect()).collect();
    let lists = sparse::lists(cx, strips);
    let strips = div_up(n, width);
    let tile = Tile { block: [64, width as u32, 16], thread: [4, width as u32 / 16] };
    let m = Dim::product(&o.out[..o.out.len() - 1]);
    let down = m.ceil_div(&i64::from(tile.block[0]).into());
    let l =
        Launch::new("matmul_sparse").read(&o.a).read(&lists.starts).read(&lists.index).read(&lists.values);
    let l = e.bufs(l, 4).dim(&m);
    let flops = m.mul(&(2 * lists.count * height * width).into());
    let l = l.extent(down.mul(&strips.into())).flops(flops);
    cx.launch_blocks(l, tile.block_threads(), move |kx| {
        let (a, starts, index, values) = (kx.buf(0), kx.buf(1), kx.buf(2), kx.buf(3));
        let epi = e.handles(kx);
        let m = kx.dim(0);
        let unit = kx.unit();
        let b = &mut kx.b;
        let t = b.thread_id(0);
        let tx = i64::from(tile.threads()[0]);
        let (tx_at, ty_at) = (b.urem(t, tx), b.div_const(t, tx));
        let strips = b.i64(strips);
        let (by, strip) = b.div_rem_small(unit, strips);
        let (from, to) = sparse::list(b, starts, strip);
        let blocks = b.sub(to, from);
        let inputs = b.mul(blocks, height);
        let (first_input, first_column) = (b.mul(from, height), b.mul(strip, width));
        let left = |b: &mut Builder, r: Val, q: Val, inside: Val| {
            let (block, input) = (b.div_const(q, height), b.urem(q, height));
            let block = b.add(from, block);
            let none = b.int(Ty::scalar(Elem::I32), 0);
            let at = b.load_masked(index, block, inside, none);
            let at = b.sext(at, Elem::I64);
            let at = b.add(at, input);
            let some = b.cmp(CmpOp::Slt, at, k);
            let inside = b.and(inside, some);
            let at = b.at(at, r, k);
            load(b, DType::F32, a, at, 1, Some(inside))
        };
        let right = |b: &mut Builder, q: Val, c: Val, inside: Val| {
            let input = b.add(first_input, q);
            let at = b.at(c, input, width);
            load(b, DType::F32, values, at, 1, Some(inside))
        };
        let finish = |b: &mut Builder, r: Val, c: Val, sum: Val| {
            let col = b.add(first_column, c);
            let inside = b.cmp(CmpOp::Slt, col, n);
            b.when(inside, |b| {
                let index = b.at(col, r, n);
                e.finish(b, &epi, sum, &Place { index, channel: col, last: col }, None);
            });
        };
        let (columns, zero) = (b.i64(width), b.i64(0));
        let product = Product {
            elem: Elem::F32,
            sizes: (m, columns, inputs),
            thread: (tx_at, ty_at),
            block: (zero, by),
            left: &left,
            right: &right,
            finish: &finish,
        };
        product.emit(b, tile);
    })
}
