//! The gate in place of a feed-forward pair.

use super::Moe;
use super::find::FeedForward;
use super::fit::Division;
use crate::experts::{Experts, PRODUCT, SUM, as_rows, floats, from_rows};
use crate::util;
use planish_ir::op::scatter::{Reduction, ScatterElements};
use planish_ir::op::sort::TopK;
use planish_ir::op::views::{Expand, Shape};
use planish_ir::{Constant, DType, Diag, Editor, Tensor, ValueId};

/// Replaces the result of `p`.
pub(super) fn build(
    ed: &mut Editor<'_>,
    moe: &Moe,
    p: &FeedForward,
    division: &Division,
) -> Result<(), Diag> {
    let [d, _, o] = p.sizes();
    ed.before(p.node);
    let rows = as_rows(ed, p.x, d)?;
    let mask = router(ed, moe, d, rows, division)?;
    let y = experts(ed, moe, p, division)?.gate(ed, mask, rows, moe.active)?;
    let y = from_rows(ed, y, p.x, o)?;
    if ed.graph().ty(y) != ed.graph().ty(p.y) {
        return Err(Diag::error("type-mismatch", "a gate has another type than what it replaces"));
    }
    ed.replace(p.y, y);
    Ok(())
}

/// 1 for each chosen expert of each row, 0 for the others.
fn router(
    ed: &mut Editor<'_>,
    moe: &Moe,
    d: usize,
    rows: ValueId,
    division: &Division,
) -> Result<ValueId, Diag> {
    let floats = |shape: &[usize], v: &[f64]| Tensor::floats(DType::F32, shape, v.to_vec());
    let w = ed.constant(Constant::from(floats(&[d, moe.experts], &division.router)?))?;
    let b = ed.constant(Constant::from(floats(&[moe.experts], &division.constants)?))?;
    let product = ed.node1(PRODUCT, &[rows, w])?;
    let scores = ed.node1(SUM, &[product, b])?;
    let k = util::ints(ed, &[moe.active as i64])?;
    let best = ed.node(TopK { axis: 1, largest: true }, &[Some(scores), Some(k)])?;
    let [_, at] = best[..] else { return Err(Diag::error("arity", "top-k has two results")) };
    let (zeros, ones) = (filled(ed, scores, 0.0)?, filled(ed, at, 1.0)?);
    ed.node1(ScatterElements { axis: 1, reduction: Reduction::None }, &[zeros, at, ones])
}

/// An f32 tensor with the shape of another and one number everywhere.
fn filled(ed: &mut Editor<'_>, like: ValueId, value: f64) -> Result<ValueId, Diag> {
    let one = Tensor::scalar(DType::F32, value)?;
    if let Some(shape) = util::fixed(ed.graph(), like) {
        return ed.constant(Constant::splat(&one, shape)?);
    }
    let shape = ed.node1(Shape { start: 0, end: None }, &[like])?;
    let one = ed.constant(Constant::from(one))?;
    ed.node1(Expand {}, &[one, shape])
}

/// The groups of hidden units as experts.
fn experts(ed: &Editor<'_>, moe: &Moe, p: &FeedForward, division: &Division) -> Result<Experts, Diag> {
    let [d, h, o] = p.sizes();
    let (experts, part) = (moe.experts, h / moe.experts.max(1));
    let units = || division.units.iter();
    let up = p.up.values(ed.graph())?;
    let at = units().flat_map(|u| (0..d).flat_map(move |i| u.iter().map(move |j| (i, *j))));
    let bias = match p.bias {
        Some(id) => {
            let bias = floats(&ed.graph().constant(id).decode()?);
            Some(units().flatten().map(|j| bias[*j]).collect())
        }
        None => None,
    };
    let down = p.down.values(ed.graph())?;
    // Each row goes to `active` experts: each of them adds its part of all means, and takes away its own.
    let shift = division.means.as_ref().map(|means| {
        let total = |c: usize| (0..experts).map(|e| means[e * o + c]).sum::<f64>() / moe.active as f64;
        let totals: Vec<f64> = (0..o).map(total).collect();
        (0..experts * o).map(|i| (totals[i % o] - means[i]) as f32).collect()
    });
    Ok(Experts {
        sizes: [experts, d, part, o],
        function: p.function,
        up: at.map(|(i, j)| up[i * h + j]).collect(),
        bias,
        down: units().flatten().flat_map(|j| down[j * o..(j + 1) * o].iter().copied()).collect(),
        shift,
    })
}
