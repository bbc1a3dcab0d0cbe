//! What a recurrent layer takes from its input, and its weights in the form that the steps read.

use super::super::fold_lanes;
use super::lists::Cut;
use super::shape::Shape;
use crate::kernel::{BinOp, Buf, Builder, CmpOp, Ty, Val};
use crate::lower::contraction::{Epilogue, Lists, Product, f32_bytes, product};
use crate::lower::cx::{LowerCx, Opnd};
use crate::lower::elem::{compute_elem, load, store};
use crate::lower::launch::Launch;
use planish_ir::op::matmul::MatMul;
use planish_ir::op::recurrent::{Cell, Recurrent};
use planish_ir::{DType, Diag, Dim, ValueId};

/// The weights of the recurrence.
pub(super) enum Back {
    /// All of them, as [`Shape::pack`] has them.
    Rows(Opnd),
    /// Those that are not zero.
    Lists(Cut, Lists),
}

/// Weights known at compile time, in f32.
pub(super) struct Packed {
    /// What all steps take from the input, without biases: `[steps, batch, directions, rows]`.
    pub(super) fed: Opnd,
    pub(super) back: Back,
    /// The sum of the biases that apply before the activations, `[directions][rows]`.
    pub(super) bias: Option<Opnd>,
    pub(super) shape: Shape,
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
    if [&w[0], &r[0]].iter().any(|d| !d.is(dirs)) || !w[1].is(rows) || rows != gates * h || h == 0 {
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
    let shape = Shape::new(op, h);
    let back = match cx.constant(rv).and_then(|c| Cut::of(c, &x.dims[1])) {
        Some(cut) => Back::Lists(cut, cut.pack(cx, &shape, &data)),
        None => {
            let packed = shape.pack(&data, h);
            Back::Rows(cx.weight(DType::F32, &[packed.len().into()], f32_bytes(&packed)))
        }
    };
    let bias = match bv {
        None => None,
        Some(v) => {
            let given = cx.f32_constant(v)?.ok_or_else(missing)?;
            let sum = sum_of_biases(op, &given, h as usize);
            Some(cx.weight(DType::F32, &[sum.len().into()], f32_bytes(&sum)))
        }
    };
    Ok(Some(Packed { fed, back, bias, shape }))
}

/// The sums of the biases of a cell that apply before the activations, `[directions][gates * h]`.
pub(super) fn sum_of_biases(op: &Recurrent, given: &[f32], h: usize) -> Vec<f32> {
    let (rows, keeps) = (op.gates() * h, keeps_bias(op));
    let mut sum = Vec::with_capacity(op.directions() * rows);
    for of_dir in given.chunks_exact((2 * rows).max(1)) {
        for (i, own) in of_dir[..rows].iter().enumerate() {
            let kept = keeps && i >= 2 * h;
            sum.push(if kept { *own } else { own + of_dir[rows + i] });
        }
    }
    sum
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
pub(super) fn keeps_bias(op: &Recurrent) -> bool {
    op.cell == Cell::Gru && op.linear_before_reset
}

/// What is added to a product of row `row` of the weights of the input, of the `rows` of a direction that begins at row `before`.
pub(super) fn row_bias(
    b: &mut Builder,
    op: &Recurrent,
    (bias, d): (Buf, DType),
    before: Val,
    row: Val,
    rows: Val,
) -> Val {
    let at = b.at(row, before, 2);
    let own = load(b, d, bias, at, 1, None);
    let at = b.add(at, rows);
    let mut back = load(b, d, bias, at, 1, None);
    if keeps_bias(op) {
        let two = b.sdiv(rows, op.gates() as i64);
        let two = b.mul(two, 2);
        let fresh = b.cmp(CmpOp::Sge, row, two);
        let zero = b.zero(Ty::vec(compute_elem(d), 1));
        back = b.select(fresh, zero, back);
    }
    b.fadd(own, back)
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
    let with_bias = bias.is_some();
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
                let row = b.add(in_dir, j);
                biases.push(bias.map_or(zero, |bias| row_bias(b, op, (bias, d), before, row, rows)));
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
