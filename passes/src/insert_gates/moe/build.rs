//! The gate in place of a feed-forward pair.

use super::Moe;
use super::find::{FeedForward, floats};
use super::fit::Division;
use crate::util;
use planish_ir::op::binary::{Binary, BinaryKind};
use planish_ir::op::concat::Concat;
use planish_ir::op::control::{Fallback, Gate, Granularity};
use planish_ir::op::gather::Gather;
use planish_ir::op::matmul::MatMul;
use planish_ir::op::reshape::Reshape;
use planish_ir::op::scatter::{Reduction, ScatterElements};
use planish_ir::op::sort::TopK;
use planish_ir::op::unary::Unary;
use planish_ir::op::views::{Expand, Shape};
use planish_ir::{Constant, DType, Diag, Dim, Editor, Tensor, Type, ValueId};

const PRODUCT: MatMul = MatMul { trans_a: false, trans_b: false };
const SUM: Binary = Binary { kind: BinaryKind::Add };

/// Replaces the result of `p`.
pub(super) fn build(
    ed: &mut Editor<'_>,
    moe: &Moe,
    p: &FeedForward,
    division: &Division,
) -> Result<(), Diag> {
    let [d, _, o] = p.sizes();
    ed.before(p.node);
    let dims = ed.graph().dims(p.x).unwrap_or_default().to_vec();
    let lead = dims.len().saturating_sub(1);
    let rows = match lead {
        1 => p.x,
        _ => {
            let shape = util::ints(ed, &[-1, d as i64])?;
            ed.node1(Reshape { allow_zero: false }, &[p.x, shape])?
        }
    };
    let mask = router(ed, moe, d, rows, division)?;
    let region = ed.new_region();
    let loc = ed.loc().clone();
    let count = Dim::from(ed.graph_mut().symbols.fresh(0, None));
    let expert = ed.param(region, Type::tensor(DType::I64, Vec::new()).into());
    let some = ed.param(region, Type::tensor(DType::F32, vec![count, Dim::from(d)]).into());
    ed.at_end(region);
    ed.set_loc(loc);
    let result = self::expert(ed, moe, p, division, expert, some)?;
    ed.result(region, result);
    ed.before(p.node);
    let empty = ed.new_region();
    let gate =
        Gate { granularity: Granularity::Routed, axis: 0, block: 0, k: moe.active, fallback: Fallback::Zero };
    let made = ed.node_with_regions(gate, &[Some(mask), Some(rows)], vec![region, empty])?;
    let mut y = *made.first().ok_or_else(|| Diag::error("arity", "a gate has one result"))?;
    if lead != 1 {
        let shape = back(ed, p.x, &dims[..lead], o)?;
        y = ed.node1(Reshape { allow_zero: false }, &[y, shape])?;
    }
    if ed.graph().ty(y) != ed.graph().ty(p.y) {
        return Err(Diag::error("type-mismatch", "a gate has another type than what it replaces"));
    }
    ed.replace(p.y, y);
    Ok(())
}

/// The dims of the operand but the last, then the outputs.
fn back(ed: &mut Editor<'_>, x: ValueId, lead: &[Dim], o: usize) -> Result<ValueId, Diag> {
    let fixed: Option<Vec<i64>> = lead.iter().map(Dim::as_const).collect();
    if let Some(mut shape) = fixed {
        shape.push(o as i64);
        return util::ints(ed, &shape);
    }
    let lead = ed.node1(Shape { start: 0, end: Some(lead.len() as i64) }, &[x])?;
    let o = util::ints(ed, &[o as i64])?;
    ed.node1(Concat { axis: 0 }, &[lead, o])
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

/// What an expert makes of its rows.
fn expert(
    ed: &mut Editor<'_>,
    moe: &Moe,
    p: &FeedForward,
    division: &Division,
    expert: ValueId,
    rows: ValueId,
) -> Result<ValueId, Diag> {
    let [d, h, o] = p.sizes();
    let (experts, part) = (moe.experts, h / moe.experts.max(1));
    let of_expert = |ed: &mut Editor<'_>, shape: &[usize], v: Vec<f32>| -> Result<ValueId, Diag> {
        let all = ed.constant(Constant::from(Tensor::f32s(shape, &v)?))?;
        ed.node1(Gather { axis: 0 }, &[all, expert])
    };
    let units = || division.units.iter();
    let up = p.up.values(ed.graph())?;
    let w = units().flat_map(|u| (0..d).flat_map(move |i| u.iter().map(move |j| (i, *j))));
    let w = of_expert(ed, &[experts, d, part], w.map(|(i, j)| up[i * h + j]).collect())?;
    let mut v = ed.node1(PRODUCT, &[rows, w])?;
    if let Some(id) = p.bias {
        let bias = floats(&ed.graph().constant(id).decode()?);
        let b = of_expert(ed, &[experts, part], units().flatten().map(|j| bias[*j]).collect())?;
        v = ed.node1(SUM, &[v, b])?;
    }
    let v = ed.node1(Unary { kind: p.function }, &[v])?;
    let down = p.down.values(ed.graph())?;
    let w = units().flatten().flat_map(|j| down[j * o..(j + 1) * o].iter().copied()).collect();
    let w = of_expert(ed, &[experts, part, o], w)?;
    let v = ed.node1(PRODUCT, &[v, w])?;
    let Some(means) = &division.means else { return Ok(v) };
    // Each row goes to `active` experts: each of them adds its part of all means, and takes away its own.
    let total = |c: usize| (0..experts).map(|e| means[e * o + c]).sum::<f64>() / moe.active as f64;
    let totals: Vec<f64> = (0..o).map(total).collect();
    let b = (0..experts * o).map(|i| (totals[i % o] - means[i]) as f32).collect();
    let b = of_expert(ed, &[experts, o], b)?;
    ed.node1(SUM, &[v, b])
}
