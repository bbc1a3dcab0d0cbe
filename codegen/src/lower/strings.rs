//! Tensors of strings: their dims, and what moves their elements.
//!
//! An operation that only moves elements is lowered on integers that say which element stands where, with the kernels
//! for numbers; the runtime library then takes the strings from these places.

use super::cx::{LowerCx, Opnd};
use super::dispatch;
use super::launch::{CHUNK, Launch};
use super::nest::span;
use planish_ir::dim::SymOrigin;
use planish_ir::op::scatter::Reduction;
use planish_ir::{DType, Diag, Dim, Op, SymId, ValueId};
use planish_rt::library;
use planish_rt::plan::{Arg, Call, SlotId, Step};
use std::collections::{BTreeMap, BTreeSet};

/// Calls a function without attributes that fails with this message if it has none of its own.
fn call(cx: &mut LowerCx<'_>, func: u16, args: Vec<Arg>, out: SlotId, attrs: &[i64], what: &str) {
    let error = cx.error(what);
    cx.step(Step::Call(Box::new(Call {
        func,
        args,
        outs: vec![out],
        out_syms: Vec::new(),
        attrs: attrs.to_vec(),
        fattrs: Vec::new(),
        sattrs: Vec::new(),
        error,
    })));
}

/// Binds dims of a tensor of strings to its shape, and checks those that are known.
fn bind_dims(cx: &mut LowerCx<'_>, slot: SlotId, dims: &[Dim], what: &str) -> Result<(), Diag> {
    let shape = cx.temp(DType::I64, &[dims.len().into()]);
    call(cx, library::SHAPE_OF, vec![Arg::Slot(slot)], shape.slot, &[], what);
    for (axis, d) in dims.iter().enumerate() {
        cx.bind(d, &shape, axis as u32, &Dim::Const(0), &Dim::Const(1 << 40), what)?;
    }
    Ok(())
}

/// The runtime binds symbols to the dims of dense inputs; those that only inputs of strings have are bound in the run.
pub(super) fn bind_inputs(cx: &mut LowerCx<'_>) -> Result<(), Diag> {
    let graph = cx.graph;
    let tensors = || graph.inputs().iter().filter_map(|v| Some((*v, graph.ty(*v).as_tensor()?)));
    let dense = tensors().filter(|(_, t)| t.dtype != DType::Str);
    let mut bound: Vec<_> =
        dense.flat_map(|(_, t)| t.shape.iter().flatten().flat_map(Dim::symbols)).collect();
    for (v, t) in tensors().filter(|(_, t)| t.dtype == DType::Str) {
        let Some(dims) = &t.shape else { continue };
        let new: Vec<_> = dims.iter().filter_map(Dim::as_symbol).filter(|s| !bound.contains(s)).collect();
        if new.is_empty() {
            continue;
        }
        for s in new {
            cx.bound_in_run(s);
            bound.push(s);
        }
        let slot = cx.slot(v)?;
        bind_dims(cx, slot, dims, "the shape of an input of strings")?;
    }
    Ok(())
}

/// The symbols among the dims of a result that the node gives their values: only data tell them, and no operand has them.
pub(super) fn own_symbols(cx: &LowerCx<'_>, v: ValueId) -> Vec<SymId> {
    let dims = |v: ValueId| cx.graph.dims(v).unwrap_or_default();
    let given: BTreeSet<SymId> =
        cx.node().inputs.iter().flatten().flat_map(|i| dims(*i)).flat_map(Dim::symbols).collect();
    let own = |s: &SymId| cx.graph.symbols.get(*s).origin == SymOrigin::Data && !given.contains(s);
    dims(v).iter().filter_map(Dim::as_symbol).filter(own).collect()
}

/// Binds the symbols that a call gave its value by the shape of result `k`, a tensor of strings.
pub(super) fn bind_result(cx: &mut LowerCx<'_>, k: usize) -> Result<(), Diag> {
    let v = cx.output_value(k)?;
    let dims = cx.graph.dims(v).unwrap_or_default().to_vec();
    if !own_symbols(cx, v).is_empty() {
        let slot = cx.slot(v)?;
        bind_dims(cx, slot, &dims, "the shape of a tensor of strings")?;
    }
    Ok(())
}

/// Whether the elements of the results are elements of the operands, and only integers say which.
pub(super) fn moves(cx: &LowerCx<'_>, op: &Op) -> bool {
    match op {
        Op::Transpose(_) | Op::Expand(_) | Op::Split(_) | Op::Tile(_) | Op::Slice(_) | Op::Compress(_) => {
            true
        }
        Op::Gather(_) | Op::GatherElements(_) | Op::GatherNd(_) | Op::ReverseSequence(_) => true,
        Op::ScatterElements(s) => s.reduction == Reduction::None,
        Op::ScatterNd(s) => s.reduction == Reduction::None,
        // Without a value empty strings are filled in, which are no element.
        Op::Pad(_) => cx.has(2),
        _ => false,
    }
}

/// Lowers an operation for which [`moves`] holds.
pub(super) fn lower_moves(cx: &mut LowerCx<'_>, op: &Op) -> Result<(), Diag> {
    let graph = cx.graph;
    let string = |v: &ValueId| graph.dtype(*v) == Some(DType::Str);
    let mut sources: Vec<ValueId> = cx.node().inputs.iter().flatten().copied().filter(string).collect();
    sources.dedup();
    let (mut places, mut first) = (BTreeMap::new(), Dim::Const(0));
    for v in &sources {
        let dims = graph.ty(*v).as_tensor().map_or(Ok(&[][..]), |t| t.dims())?;
        let at = cx.temp(DType::I64, dims);
        count_from(cx, &at, &first)?;
        places.insert(*v, at.slot);
        first = first.add(&at.elems());
    }
    cx.places = Some(places);
    let made = dispatch::lower_numbers(cx, op);
    cx.places = None;
    made?;
    let source = joined(cx, &sources)?;
    for k in 0..cx.node().outputs.len() {
        let v = cx.output_value(k)?;
        if string(&v) {
            let at = cx.slot(v)?;
            let out = cx.output_object(k)?;
            call(
                cx,
                library::TAKE,
                vec![Arg::Slot(source), Arg::Slot(at)],
                out,
                &[],
                "strings cannot be moved",
            );
        }
    }
    Ok(())
}

/// All elements of tensors of strings in one.
fn joined(cx: &mut LowerCx<'_>, sources: &[ValueId]) -> Result<SlotId, Diag> {
    if let [one] = sources {
        return cx.slot(*one);
    }
    let what = "strings cannot be joined";
    let mut parts = Vec::new();
    for v in sources {
        let count = Dim::product(cx.graph.dims(*v).unwrap_or_default());
        let (slot, flat, count) = (cx.slot(*v)?, cx.object_slot(), cx.expr(&count));
        call(cx, library::RESHAPE, vec![Arg::Slot(slot), Arg::Scalar(count)], flat, &[], what);
        parts.push(Arg::Slot(flat));
    }
    let all = cx.object_slot();
    call(cx, library::CONCAT, parts, all, &[0], what);
    Ok(all)
}

/// Fills a tensor with the numbers from `first` on.
fn count_from(cx: &mut LowerCx<'_>, at: &Opnd, first: &Dim) -> Result<(), Diag> {
    let n = at.elems();
    let l = Launch::new("places").write(at).dim(&n).dim(first);
    cx.launch(l.extent(n.ceil_div(&CHUNK.into())).cost(CHUNK), |k| {
        let (at, n, first) = (k.buf(0), k.dim(0), k.dim(1));
        k.b.parallel_for(|b, chunk| {
            let (lo, hi) = span(b, chunk, CHUNK, n);
            b.loop_(lo, hi, 1, |b, i| {
                let place = b.add(first, i);
                b.store(at, i, place);
            });
        });
    })
}
