//! Recurrent layers that skim: a step of a row computes the big or the small cell, and reads the weights of that one only.

mod feed;
mod rows;
#[cfg(test)]
mod tests;
mod units;

use crate::kernel::{Buf, Builder, Elem, Ty, Val};
use crate::lower::cx::{LowerCx, Opnd};
use crate::lower::elem::{compute_elem, convert, load};
use crate::lower::launch::Launch;
use planish_ir::op::recurrent::skim::SkimRecurrent;
use planish_ir::{DType, Diag, Dim};
use planish_rt::plan;

/// With constant weights of f32, in parallel over hidden units, step by step; else, and with noise, over rows of the batch.
pub(in crate::lower) fn lower_skim_recurrent(cx: &mut LowerCx<'_>, op: &SkimRecurrent) -> Result<(), Diag> {
    let x = cx.input(0)?;
    let of = |cx: &mut LowerCx<'_>, i: usize| -> Result<Vec<Dim>, Diag> {
        Ok(cx.tensor_type(cx.input_value(i)?)?.1)
    };
    let (r, small) = (of(cx, 2)?, of(cx, 4)?);
    let (h, small) = (r[2].clone(), small[2].clone());
    let [steps, batch, inputs] = [0, 1, 2].map(|i| x.dims[i].clone());
    let (gates, one, two) = (Dim::from(op.plain().gates()), Dim::from(1), Dim::from(2));
    let (big_rows, small_rows) = (h.mul(&gates), small.mul(&gates));
    let want: [(usize, &[&Dim]); 12] = [
        (1, &[&one, &big_rows, &inputs]),
        (2, &[&one, &big_rows, &h]),
        (3, &[&one, &small_rows, &inputs]),
        (4, &[&one, &small_rows, &small]),
        (5, &[&inputs.add(&h), &two]),
        (6, &[&one, &big_rows.mul(&two)]),
        (7, &[&one, &small_rows.mul(&two)]),
        (8, &[&two]),
        (9, &[&one, &batch, &h]),
        (10, &[&one, &batch, &h]),
        (12, &[&steps, &batch, &two]),
        (0, &[&steps, &batch, &inputs]),
    ];
    for (i, dims) in want {
        if cx.has(i) {
            let have = of(cx, i)?;
            let dims: Vec<Dim> = dims.iter().copied().cloned().collect();
            cx.require_dims(&have, &dims, "weights, states or noise do not fit the input");
        }
    }
    let wide = if x.dtype == DType::F64 { DType::F64 } else { DType::F32 };
    let layer = Layer {
        op,
        theta: cx.opt_input(SkimRecurrent::THETA)?,
        first: [cx.opt_input(9)?, cx.opt_input(10)?],
        sizes: [steps, batch.clone(), inputs, h, small],
        wide,
        x,
    };
    let decides = !cx.has(SkimRecurrent::NOISE);
    let skipped = cx.temp(DType::I64, std::slice::from_ref(&batch));
    let packed = if decides { feed::packed(cx, &layer)? } else { None };
    match packed {
        Some(packed) => units::steps(cx, &layer, &packed, &skipped)?,
        None => rows::steps(cx, &layer, &skipped)?,
    }
    if !decides {
        return Ok(());
    }
    cx.count("skim.steps", &layer.sizes[0].mul(&layer.sizes[1]));
    let all = total(cx, &skipped)?;
    cx.count_value("skim.skipped", plan::Value::Slot(all.slot));
    Ok(())
}

/// A layer, whose operands fit.
struct Layer<'a> {
    op: &'a SkimRecurrent,
    x: Opnd,
    theta: Option<Opnd>,
    /// The first h and the first c.
    first: [Option<Opnd>; 2],
    /// T, B, I, H, H'.
    sizes: [Dim; 5],
    /// The type of states.
    wide: DType,
}

impl Layer<'_> {
    /// All h, the last h, and for an LSTM the last c, as far as they are used; then the probabilities.
    fn outputs(&self, cx: &mut LowerCx<'_>) -> Result<[Option<Opnd>; 4], Diag> {
        let mut out = [None, None, None, None];
        let last = self.op.probabilities();
        for k in 0..=last {
            if cx.output_used(k) {
                out[if k == last { 3 } else { k }] = Some(cx.output(k)?);
            }
        }
        Ok(out)
    }
}

/// A number that an operand may give in place of a field, in the type of `wide`.
fn number(b: &mut Builder, operand: Option<(Buf, DType)>, field: f64, wide: DType) -> Val {
    match operand {
        None => b.float(Ty::vec(compute_elem(wide), 1), field),
        Some((buf, d)) => {
            let v = load(b, d, buf, 0, 1, None);
            convert(b, v, d, wide)
        }
    }
}

/// The sum of the numbers of all rows.
fn total(cx: &mut LowerCx<'_>, each: &Opnd) -> Result<Opnd, Diag> {
    let n = each.dims[0].clone();
    if n.is(1) {
        return Ok(each.clone());
    }
    let sum = cx.temp(DType::I64, &[1.into()]);
    cx.launch(Launch::new("skim_count").read(each).write(&sum).dim(&n).cost(n), |k| {
        let (each, sum, n) = (k.buf(0), k.buf(1), k.dim(0));
        k.b.parallel_for(|b, _| {
            let zero = b.zero(Ty::scalar(Elem::I64));
            let all = b.for_(0, n, 1, &[zero], |b, i, acc| {
                let v = b.load(each, i, 1);
                vec![b.add(acc[0], v)]
            });
            b.store(sum, 0, all[0]);
        });
    })?;
    Ok(sum)
}
