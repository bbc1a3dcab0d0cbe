//! The weights of a layer that skims in the form that its steps read, and what all steps take from the input whether they read or skim.

use super::super::feed::sum_of_biases;
use super::super::shape::Shape;
use super::Layer;
use crate::kernel::{Builder, Elem, Val};
use crate::lower::contraction::{f32_bytes, in_pieces};
use crate::lower::cx::{LowerCx, Opnd};
use crate::lower::launch::Launch;
use planish_ir::op::recurrent::Recurrent;
use planish_ir::op::recurrent::skim::SkimRecurrent;
use planish_ir::{DType, Diag, Dim, ValueId};

/// Columns of what is fed are a multiple of this.
const COLUMNS: i64 = 16;
/// Places of a unit of the parallel axis.
const PLACES: i64 = 32;

/// A cell with weights known at compile time, in f32.
pub(super) struct Cut {
    pub(super) shape: Shape,
    /// The weights of the state as [`Shape::pack`] has them.
    pub(super) back: Opnd,
    /// The biases as they are given, for a GRU that needs one of them apart.
    pub(super) given: Option<Opnd>,
}

/// Weights known at compile time, in f32.
pub(super) struct Packed {
    pub(super) big: Cut,
    /// None: the small cell has no units.
    pub(super) small: Option<Cut>,
    /// The big cell's weights of the input, in the tiles of its state.
    pub(super) input: Opnd,
    /// The sum of its biases that apply before the activations.
    pub(super) bias: Option<Opnd>,
    /// What all steps take from the input, biases included, `[steps * batch][columns]`: the gates of the small cell, then by how much the
    /// score of skimming is above that of reading.
    pub(super) fed: Opnd,
    pub(super) columns: i64,
    /// The same difference of the predictor's weights of the state.
    pub(super) predictor: Opnd,
    /// Sizes: inputs, units, units of the small cell.
    pub(super) sizes: [i64; 3],
}

/// Packs the weights if all of them are constants of f32, and emits what computes `fed`.
pub(super) fn packed(cx: &mut LowerCx<'_>, l: &Layer<'_>) -> Result<Option<Packed>, Diag> {
    let mut values: Vec<ValueId> = Vec::new();
    for i in (1..6).chain(SkimRecurrent::BIASES) {
        if cx.has(i) {
            values.push(cx.input_value(i)?);
        }
    }
    let known = |v: &ValueId| cx.constant(*v).is_some_and(|c| c.dtype == DType::F32);
    if cx.simt() || cx.dry || !values.iter().all(known) || l.x.dtype != DType::F32 {
        return Ok(None);
    }
    let size = |i: usize| l.sizes[i].as_const();
    let (Some(inputs), Some(h), Some(small)) = (size(2), size(3), size(4)) else { return Ok(None) };
    let plain = l.op.plain();
    let (rows, small_rows) = (plain.gates() as i64 * h, plain.gates() as i64 * small);
    for (i, want) in [
        (1, vec![1, rows, inputs]),
        (2, vec![1, rows, h]),
        (3, vec![1, small_rows, inputs]),
        (4, vec![1, small_rows, small]),
        (5, vec![inputs + h, 2]),
        (6, vec![1, 2 * rows]),
        (7, vec![1, 2 * small_rows]),
        (8, vec![2]),
    ] {
        let want: Vec<Dim> = want.into_iter().map(Dim::from).collect();
        if cx.has(i) && cx.tensor_type(cx.input_value(i)?)?.1 != want {
            return Ok(None);
        }
    }
    if h == 0 {
        return Ok(None);
    }
    let big = cell(cx, &plain, h, (2, 6))?;
    let w = elements(cx, 1)?;
    let input = weight(cx, &big.shape.pack(&w, inputs));
    let given = optional(cx, 6)?;
    let bias = given.map(|given| weight(cx, &sum_of_biases(&plain, &given, h as usize)));
    let small_cell = if small > 0 { Some(cell(cx, &plain, small, (4, 7))?) } else { None };
    let columns = (small_rows + 1 + COLUMNS - 1) / COLUMNS * COLUMNS;
    let predictor = elements(cx, 5)?;
    let above: Vec<f32> = predictor.chunks_exact(2).map(|p| p[1] - p[0]).collect();
    let (of_x, of_h) = above.split_at(inputs as usize);
    let w = elements(cx, 3)?;
    let mut m = vec![0f32; (inputs * columns) as usize];
    for k in 0..inputs as usize {
        let row = &mut m[k * columns as usize..][..columns as usize];
        for (j, to) in row.iter_mut().take(small_rows as usize).enumerate() {
            *to = w[j * inputs as usize + k];
        }
        row[small_rows as usize] = of_x[k];
    }
    let mut start = vec![0f32; columns as usize];
    if let Some(given) = optional(cx, 7)? {
        let sum = sum_of_biases(&plain, &given, small as usize);
        start[..sum.len()].copy_from_slice(&sum);
    }
    if let Some(given) = optional(cx, 8)? {
        start[small_rows as usize] = given[1] - given[0];
    }
    let (m, start) = (weight(cx, &m), weight(cx, &start));
    let fed = fed(cx, l, (&m, &start), (inputs, columns))?;
    let predictor = weight(cx, of_h);
    let sizes = [inputs, h, small];
    Ok(Some(Packed { big, small: small_cell, input, bias, fed, columns, predictor, sizes }))
}

fn weight(cx: &mut LowerCx<'_>, v: &[f32]) -> Opnd {
    cx.weight(DType::F32, &[v.len().into()], f32_bytes(v))
}

fn optional(cx: &LowerCx<'_>, i: usize) -> Result<Option<Vec<f32>>, Diag> {
    if cx.has(i) { elements(cx, i).map(Some) } else { Ok(None) }
}

fn elements(cx: &LowerCx<'_>, i: usize) -> Result<Vec<f32>, Diag> {
    let missing = || Diag::error("internal-lower", "weights of a layer that skims are not constant");
    cx.f32_constant(cx.input_value(i)?)?.ok_or_else(missing)
}

fn cell(cx: &mut LowerCx<'_>, plain: &Recurrent, h: i64, (r, bias): (usize, usize)) -> Result<Cut, Diag> {
    let shape = Shape::new(plain, h);
    let data = elements(cx, r)?;
    let back = weight(cx, &shape.pack(&data, h));
    let given = if plain.linear_before_reset { cx.opt_input(bias)? } else { None };
    Ok(Cut { shape, back, given })
}

/// A product of all inputs with a matrix of `[inputs][columns]`, plus a first row.
fn fed(
    cx: &mut LowerCx<'_>,
    l: &Layer<'_>,
    (m, start): (&Opnd, &Opnd),
    (inputs, columns): (i64, i64),
) -> Result<Opnd, Diag> {
    let places = l.sizes[0].mul(&l.sizes[1]);
    let fed = cx.temp(DType::F32, &[places.clone(), columns.into()]);
    let cost = Dim::from(inputs * columns / 8 * PLACES);
    let launch = Launch::new("skim_feed").read(&l.x).read(m).read(start).write(&fed).dim(&places);
    let launch = launch.extent(places.ceil_div(&PLACES.into())).cost(cost);
    let launch = launch.flops(places.mul(&Dim::from(2 * inputs * columns)));
    cx.launch(launch, |k| {
        let lanes = k.lanes(Elem::F32).min(COLUMNS as u16);
        let wide = i64::from(lanes);
        let vectors = (COLUMNS / wide).min(2);
        let entries = (usize::from(k.target.registers) - vectors as usize - 1) / vectors as usize;
        let (x, m, start, to, places) = (k.buf(0), k.buf(1), k.buf(2), k.buf(3), k.dim(0));
        k.b.parallel_for(|b, unit| {
            let first = b.mul(unit, PLACES);
            let left = b.sub(places, first);
            let count = b.smin(left, PLACES);
            in_pieces(b, count, None, entries.min(8), |b, from, size| {
                let place = b.add(first, from);
                b.loop_(0, columns, vectors * wide, |b, column| {
                    let at = |b: &mut Builder, v: i64| b.add(column, v * wide);
                    let starts: Vec<Val> = (0..vectors)
                        .map(|v| {
                            let at = at(b, v);
                            b.load(start, at, lanes)
                        })
                        .collect();
                    let acc: Vec<Val> = (0..size).flat_map(|_| starts.iter().copied()).collect();
                    let acc = b.for_(0, inputs, 1, &acc, |b, i, acc| {
                        let row = b.at(column, i, columns);
                        let ws: Vec<Val> = (0..vectors)
                            .map(|v| {
                                let at = b.add(row, v * wide);
                                b.load(m, at, lanes)
                            })
                            .collect();
                        let mut next = Vec::new();
                        for (e, acc) in acc.chunks(vectors as usize).enumerate() {
                            let at = b.add(place, e as i64);
                            let at = b.at(i, at, inputs);
                            let x = b.load(x, at, 1);
                            let x = b.splat(x, lanes);
                            for (w, a) in ws.iter().zip(acc) {
                                next.push(b.fma(*w, x, *a));
                            }
                        }
                        next
                    });
                    for (e, acc) in acc.chunks(vectors as usize).enumerate() {
                        let row = b.add(place, e as i64);
                        let row = b.at(column, row, columns);
                        for (v, a) in acc.iter().enumerate() {
                            let at = b.add(row, v as i64 * wide);
                            b.store(to, at, *a);
                        }
                    }
                });
            });
        });
    })?;
    Ok(fed)
}
