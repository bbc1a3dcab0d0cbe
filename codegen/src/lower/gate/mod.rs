//! Gates: regions that run only on what data select.
//!
//! | granularity | steps of the plan |
//! |---|---|
//! | whole | a branch |
//! | rows, blocks | the rows that are on are listed and counted, gathered, given to the region if there are any, and put back in place |
//! | routed | rows are listed by expert; a loop over the experts that have rows gathers them, runs the region and adds its results |
//!
//! The number of rows that a region takes is a symbol that is bound when the list is made. Counters are those of the interpreter:
//! `gate.regions` and `gate.skipped-regions` for regions run and not run, `gate.rows`, `gate.blocks` and their `skipped-` ones for
//! parts of the gated operand. A region that has no rows is not run.

mod routed;
mod rows;
mod stacked;

pub(super) use stacked::{Expert, Stacked, defer};

use super::control::{dense, hand_over, known_symbols, operands, own_symbol, result};
use super::cx::{LowerCx, Opnd};
use super::nest::{fill, zero};
use planish_ir::op::control::{Fallback, Gate, Granularity};
use planish_ir::{Diag, Dim, RegionId, SymId};
use planish_rt::plan::{self, BlockId, SlotId, Step};
use std::collections::BTreeSet;

pub(super) fn lower_gate(cx: &mut LowerCx<'_>, op: &Gate) -> Result<(), Diag> {
    match op.granularity {
        Granularity::Whole => whole(cx, op),
        Granularity::Rows | Granularity::Blocks => rows::lower(cx, op),
        Granularity::Routed => routed::lower(cx, op),
    }
}

fn whole(cx: &mut LowerCx<'_>, op: &Gate) -> Result<(), Diag> {
    let known = known_symbols(cx);
    let cond = cx.input(0)?.slot;
    let x = cx.input_value(1)?;
    let params = operands(cx, 1)?;
    let y = result(cx, 0)?;
    let start = cx.now();
    let regions = cx.node().regions.clone();
    let then_ = branch(cx, &known, regions[0], &params, y, "gate.regions")?;
    let skipped = "gate.skipped-regions";
    let else_ = match op.fallback {
        Fallback::Region => branch(cx, &known, regions[1], &params, y, skipped)?,
        Fallback::Identity => cx.block(|cx| {
            hand_over(cx, &known, (0, y), x, params[0])?;
            cx.count(skipped, &Dim::Const(1));
            Ok(())
        })?,
        Fallback::Zero => cx.block(|cx| {
            let (dtype, dims) = cx.output_type(0)?;
            let from = dense(cx, x)?.unwrap_or_default();
            for (i, o) in dims.iter().enumerate() {
                // A dim that nothing tells is the operand's at the same place.
                if own_symbol(cx, &known, o).is_some() {
                    let unknown =
                        || Diag::unsupported("the shape of the zeros of a skipped gate is not known");
                    cx.let_(o, from.get(i).ok_or_else(unknown)?);
                }
            }
            let nothing = zero(cx, dtype);
            fill(cx, &nothing, &Opnd { slot: y, dtype, dims })?;
            cx.count(skipped, &Dim::Const(1));
            Ok(())
        })?,
    };
    cx.step(Step::If { cond: plan::Value::Slot(cond), then_, else_ });
    cx.keep_since(y, start);
    cx.extend_over_loop(start + 1);
    Ok(())
}

/// A block that makes the result in `y` by a region.
fn branch(
    cx: &mut LowerCx<'_>,
    known: &BTreeSet<SymId>,
    r: RegionId,
    params: &[SlotId],
    y: SlotId,
    counter: &str,
) -> Result<BlockId, Diag> {
    let (block, made) = cx.region(r, params)?;
    cx.append_to(block, |cx| {
        hand_over(cx, known, (0, y), cx.graph.region(r).results[0], made[0])?;
        cx.count(counter, &Dim::Const(1));
        Ok(())
    })?;
    Ok(block)
}

/// Binds the number of rows that a region takes, the dim of its parameter `param` along `axis`, to element `at` of `counts`.
fn bind_rows(
    cx: &mut LowerCx<'_>,
    known: &BTreeSet<SymId>,
    (r, param, axis): (RegionId, usize, usize),
    (counts, at): (&Opnd, u32),
    most: &Dim,
) -> Result<Dim, Diag> {
    let v = cx.graph.region(r).params[param];
    let (_, dims) = cx.tensor_type(v)?;
    let missing = || Diag::error("axis-out-of-range", "the region of a gate takes no such axis");
    let d = dims.get(axis).ok_or_else(missing)?.clone();
    let inputs = cx.graph.inputs().iter().filter_map(|v| cx.graph.dims(*v)).flatten();
    let of_inputs: BTreeSet<SymId> = inputs.flat_map(Dim::symbols).collect();
    let own = |s: &SymId| !known.contains(s) && !of_inputs.contains(s);
    if d.as_const().is_none() && !d.as_symbol().is_some_and(|s| own(&s)) {
        return Err(Diag::unsupported("the rows that a gate's region takes need a symbol of their own"));
    }
    if let Some(s) = d.as_symbol() {
        cx.bound_in_run(s);
    }
    cx.bind(&d, counts, at, &Dim::Const(0), most, "a gate's region takes another number of rows")?;
    Ok(d)
}

/// The tensor that a region of a gate gives.
fn given(cx: &LowerCx<'_>, r: RegionId, slot: SlotId) -> Result<Opnd, Diag> {
    let (dtype, dims) = cx.tensor_type(cx.graph.region(r).results[0])?;
    Ok(Opnd { slot, dtype, dims })
}

/// Whether a dim of the result, but the one along `axis`, is known only when the region has run.
fn has_own_dims(cx: &LowerCx<'_>, known: &BTreeSet<SymId>, axis: usize) -> Result<bool, Diag> {
    let (_, dims) = cx.output_type(0)?;
    Ok(dims.iter().enumerate().any(|(i, d)| i != axis && own_symbol(cx, known, d).is_some()))
}
