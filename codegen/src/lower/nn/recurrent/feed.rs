//! What a recurrent layer takes from its input, and its weights in the form that the steps read.

use super::super::fold_lanes;
use crate::kernel::{BinOp, Buf, Builder, CmpOp, Ty, Val};
use crate::lower::contraction::{Epilogue, Product, f32_bytes, product};
use crate::lower::cx::{LowerCx, Opnd};
use crate::lower::elem::{compute_elem, load, store};
use crate::lower::launch::Launch;
use crate::lower::layout::BLOCK;
use planish_ir::op::matmul::MatMul;
use planish_ir::op::recurrent::{Cell, Recurrent};
use planish_ir::{DType, Diag, Dim, ValueId};

/// Weights known at compile time, in f32.
pub(super) struct Packed {
    /// What all steps take from the input, without biases: `[steps, batch, directions, rows]`.
    pub(super) fed: Opnd,
    /// The weights of the recurrence as `[direction][gate][block of 16 rows][k][16]`.
    pub(super) back: Opnd,
    /// The sum of the biases that apply before the activations, `[directions][rows]`.
    pub(super) bias: Option<Opnd>,
}

/// Rows of a gate, padded to whole blocks.
pub(super) fn padded(h: i64) -> i64 {
    (h + BLOCK - 1) / BLOCK * BLOCK
}

/// The input's part as one matrix product, and packed weights, if all of them are constants of f32.
pub(super) fn packed(cx: &mut LowerCx<'_>, op: &Recurrent, x: &Opnd) -> Result<Option<Packed>, Diag> {
    let (wv, rv) = (cx.input_value(1)?, cx.input_value(2)?);
    let bv = if cx.has(3) { Some(cx.input_value(3)?) } else { None };
    let known = |v: ValueId| cx.constant(v).is_some_and(|c| c.dtype == DType::F32);
    let all = known(wv) && known(rv) && bv.is_none_or(known);
    if cx.simt() || cx.dry || !all || x.dtype != DType::F32 {
        return Ok(None);
    }
    let (_, w) = cx.tensor_type(wv)?;
    let (_, r) = cx.tensor_type(rv)?;
    let (Some(rows), Some(h)) = (r[1].as_const(), r[2].as_const()) else { return Ok(None) };
    let (dirs, gates) = (op.directions() as i64, op.gates() as i64);
    if [&w[0], &r[0]].iter().any(|d| !d.is(dirs)) || !w[1].is(rows) || rows != gates * h {
        return Ok(None);
    }
    let places = x.dims[0].mul(&x.dims[1]);
    let all_rows = Dim::from(dirs * rows);
    let out = vec![places.clone(), all_rows.clone()];
    let fed = cx.temp(DType::F32, &out);
    let a = x.with_dims(vec![places, x.dims[2].clone()]);
    let b = vec![all_rows, w[2].clone()];
    let p = Product { a, b, b_type: DType::F32, b_value: wv, out };
    product(cx, &MatMul { trans_a: false, trans_b: true }, p, Epilogue::none(fed.clone()))?;

    let missing = || Diag::error("internal-lower", "weights of a recurrent layer are not constant");
    let data = cx.f32_constant(rv)?.ok_or_else(missing)?;
    let (hu, block) = (h as usize, BLOCK as usize);
    let blocks = padded(h) as usize / block;
    let mut packed = vec![0f32; (dirs * gates) as usize * blocks * hu * block];
    for (row, v) in data.chunks_exact(hu.max(1)).enumerate() {
        let (gate, i) = (row / hu, row % hu);
        let to = (gate * blocks + i / block) * hu * block + i % block;
        for (k, v) in v.iter().enumerate() {
            packed[to + k * block] = *v;
        }
    }
    let back = cx.weight(DType::F32, &[packed.len().into()], f32_bytes(&packed));
    let bias = match bv {
        None => None,
        Some(v) => {
            let given = cx.f32_constant(v)?.ok_or_else(missing)?;
            let (rows, keeps) = (rows as usize, keeps_bias(op));
            let mut sum = Vec::with_capacity(dirs as usize * rows);
            for of_dir in given.chunks_exact((2 * rows).max(1)) {
                for (i, own) in of_dir[..rows].iter().enumerate() {
                    let kept = keeps && i >= 2 * hu;
                    sum.push(if kept { *own } else { own + of_dir[rows + i] });
                }
            }
            Some(cx.weight(DType::F32, &[sum.len().into()], f32_bytes(&sum)))
        }
    };
    Ok(Some(Packed { fed, back, bias }))
}

/// Products of rows `lo..hi` of packed weights that begin at element `first`, with the `h` elements at `at` of `v`: one result a
/// row, stored at `to` of `sums`. Rows are whole blocks.
#[allow(clippy::too_many_arguments)]
pub(super) fn packed_dots(
    b: &mut Builder,
    (weights, first): (Buf, Val),
    (v, at): (Buf, Val),
    h: i64,
    (sums, to): (Buf, Val),
    (lo, hi): (i64, i64),
    lanes: u16,
) {
    let lanes = lanes.min(BLOCK as u16);
    let n = i64::from(lanes);
    let ty = Ty::vec(crate::kernel::Elem::F32, lanes);
    let group = |b: &mut Builder, vector: Val, count: i64| {
        let starts: Vec<Val> = (0..count)
            .map(|i| {
                let row = b.add(vector, i);
                let row = b.mul(row, n);
                let (block, off) = (b.div_const(row, BLOCK), b.and(row, BLOCK - 1));
                let from = b.at(first, block, h * BLOCK);
                b.add(from, off)
            })
            .collect();
        let zero = b.zero(ty);
        let acc = b.for_(0, h, 1, &vec![zero; count as usize], |b, k, acc| {
            let from = b.add(at, k);
            let x = b.load(v, from, 1);
            let x = b.splat(x, lanes);
            let row = b.mul(k, BLOCK);
            let next = starts.iter().zip(acc).map(|(start, a)| {
                let from = b.add(*start, row);
                let w = b.load(weights, from, lanes);
                b.fma(w, x, *a)
            });
            next.collect()
        });
        for (i, v) in acc.into_iter().enumerate() {
            let row = b.add(vector, i as i64);
            let to = b.at(to, row, n);
            b.store(sums, to, v);
        }
    };
    // As many vectors at a time as keep the multipliers busy.
    let (mut from, end) = (lo / n, hi / n);
    for count in [8, 4, 2, 1] {
        let whole = (end - from) / count * count;
        b.loop_(from, from + whole, count, |b, vector| group(b, vector, count));
        from += whole;
    }
}

/// Products of `block` rows of `m`, from element `row` on with distance `n`, with the vector at `at` of `v`.
#[allow(clippy::too_many_arguments)]
pub(super) fn dots(
    b: &mut Builder,
    (m, md): (Buf, DType),
    row: Val,
    (v, vd): (Buf, DType),
    at: Val,
    n: Val,
    lanes: u16,
    block: i64,
) -> Vec<Val> {
    let elem = compute_elem(md);
    let zero = b.zero(Ty::vec(elem, lanes));
    let acc = fold_lanes(b, n, lanes, &vec![zero; block as usize], |b, acc, i, mask| {
        let from = b.add(at, i);
        let x = load(b, vd, v, from, lanes, mask);
        let mut next = Vec::new();
        for (j, a) in acc.iter().enumerate() {
            let from = b.at(row, n, j as i64);
            let from = b.add(from, i);
            let w = load(b, md, m, from, lanes, mask);
            next.push(b.fma(w, x, *a));
        }
        next
    });
    acc.into_iter().map(|a| b.reduce(BinOp::FAdd, a)).collect()
}

/// Whether the bias of the recurrence of gate `h` stays out of what is fed in: it is scaled by the reset gate.
fn keeps_bias(op: &Recurrent) -> bool {
    op.cell == Cell::Gru && op.linear_before_reset
}

/// What all steps take from the input, biases included, in parallel over rows of the weights.
pub(super) fn feed(
    cx: &mut LowerCx<'_>,
    op: &Recurrent,
    x: &Opnd,
    w: &Opnd,
    bias: Option<&Opnd>,
    fed: &Opnd,
    block: i64,
) -> Result<(), Diag> {
    let (d, dirs) = (x.dtype, op.directions() as i64);
    let places = x.dims[0].mul(&x.dims[1]);
    let (inputs, rows) = (x.dims[2].clone(), w.dims[1].clone());
    let mut l = Launch::new("recurrent_feed").read(x).read(w).write(fed);
    if let Some(b) = bias {
        l = l.read(b);
    }
    let cost = places.mul(&inputs).mul(&block.into());
    let blocks = rows.mul(&dirs.into()).floor_div(&block.into());
    let l = l
        .dim(&places)
        .dim(&inputs)
        .dim(&rows)
        .extent(blocks)
        .cost(cost)
        .flops(places.mul(&inputs).mul(&rows).mul(&(2 * dirs).into()));
    let (with_bias, keeps, gates) = (bias.is_some(), keeps_bias(op), op.gates() as i64);
    let out = fed.dtype;
    cx.launch(l, |k| {
        let lanes = k.lanes(compute_elem(d));
        let (x, w, to) = (k.buf(0), k.buf(1), k.buf(2));
        let bias = with_bias.then(|| k.buf(3));
        let (places, inputs, rows) = (k.dim(0), k.dim(1), k.dim(2));
        k.b.parallel_for(|b, unit| {
            // Rows of all directions are counted through.
            let first = b.mul(unit, block);
            let dir = b.sdiv(first, rows);
            let before = b.mul(dir, rows);
            let in_dir = b.sub(first, before);
            let mut biases = Vec::new();
            for j in 0..block {
                let zero = b.zero(Ty::vec(compute_elem(d), 1));
                biases.push(bias.map_or(zero, |bias| {
                    let at = b.at(in_dir, before, 2);
                    let at = b.add(at, j);
                    let own = load(b, d, bias, at, 1, None);
                    let at = b.add(at, rows);
                    let back = load(b, d, bias, at, 1, None);
                    let back = if keeps {
                        let two = b.sdiv(rows, gates);
                        let two = b.mul(two, 2);
                        let row = b.add(in_dir, j);
                        let fresh = b.cmp(CmpOp::Sge, row, two);
                        b.select(fresh, zero, back)
                    } else {
                        back
                    };
                    b.fadd(own, back)
                }));
            }
            let start = b.mul(first, inputs);
            let all = b.mul(rows, dirs);
            b.loop_(0, places, 1, |b, p| {
                let at = b.mul(p, inputs);
                let sums = dots(b, (w, d), start, (x, d), at, inputs, lanes, block);
                let to_at = b.at(first, p, all);
                for (j, (s, bias)) in sums.into_iter().zip(&biases).enumerate() {
                    let s = b.fadd(s, *bias);
                    let at = b.add(to_at, j as i64);
                    store(b, out, to, at, s, None);
                }
            });
        });
    })
}
