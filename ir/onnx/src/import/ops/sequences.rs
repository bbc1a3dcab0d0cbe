//! Sequences and optionals.

use super::Made;
use crate::import::table::{Entry, onnx};
use crate::import::types::closed;
use crate::import::{Formal, ImportCx, OnnxNode};
use planish_ir::graph::Fact;
use planish_ir::op::control::Loop;
use planish_ir::op::sequence::{
    ConcatSequence, Optional, OptionalGet, OptionalHas, Sequence, SequenceAt, SequenceErase, SequenceInsert,
    SequenceLength, SplitSequence,
};
use planish_ir::{DType, TensorType, Type, ValueId};
use std::sync::Arc;

pub(super) const OPS: &[Entry] = &[
    onnx("ConcatFromSequence", concat),
    onnx("Optional", optional),
    onnx("OptionalGetElement", optional_get),
    onnx("OptionalHasElement", optional_has),
    onnx("SequenceAt", at),
    onnx("SequenceConstruct", construct),
    onnx("SequenceEmpty", empty),
    onnx("SequenceErase", erase),
    onnx("SequenceInsert", insert),
    onnx("SequenceLength", length),
    onnx("SequenceMap", map),
    onnx("SplitToSequence", split),
];

fn construct(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let items = node.all_inputs()?;
    let first = items.first().ok_or_else(|| node.error("operand-missing", "a sequence needs an item"))?;
    let item = cx.dtype(*first)?;
    Ok(vec![cx.op(Sequence { item }, &items)?])
}

fn empty(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let item = node.dtype("dtype")?.unwrap_or(DType::F32);
    Ok(vec![cx.op(Sequence { item }, &[])?])
}

fn at(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    Ok(vec![cx.op(SequenceAt {}, &[node.input(0)?, node.input(1)?])?])
}

fn insert(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    cx.op_many(SequenceInsert {}, &[Some(node.input(0)?), Some(node.input(1)?), node.opt(2)])
}

fn erase(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    cx.op_many(SequenceErase {}, &[Some(node.input(0)?), node.opt(1)])
}

fn length(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    Ok(vec![cx.op(SequenceLength {}, &[node.input(0)?])?])
}

fn concat(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let (axis, new_axis) = (node.need_int("axis")?, node.flag("new_axis", false)?);
    Ok(vec![cx.op(ConcatSequence { axis, new_axis }, &[node.input(0)?])?])
}

fn split(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let (axis, keepdims) = (node.int_or("axis", 0)?, node.flag("keepdims", true)?);
    cx.op_many(SplitSequence { axis, keepdims }, &[Some(node.input(0)?), node.opt(1)])
}

fn optional<'m>(cx: &mut ImportCx<'_, 'm>, node: &OnnxNode<'m>) -> Made {
    let item = match (node.opt(0), node.ty("type")?) {
        // The field matters only without operand.
        (Some(_), _) => TensorType::unranked(DType::F32).into(),
        (None, Some(ty)) => ty,
        (None, None) => return Err(node.missing("type")),
    };
    let operands: Vec<_> = node.opt(0).into_iter().map(Some).collect();
    cx.op_many(Optional { item }, &operands)
}

fn optional_get(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let x = node.input(0)?;
    Ok(vec![if matches!(cx.ty(x), Type::Optional(_)) { cx.op(OptionalGet {}, &[x])? } else { x }])
}

fn optional_has(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let known = match node.opt(0) {
        None => false,
        Some(x) if matches!(cx.ty(x), Type::Optional(_)) => return Ok(vec![cx.op(OptionalHas {}, &[x])?]),
        Some(_) => true,
    };
    Ok(vec![cx.const_scalar(DType::Bool, f64::from(u8::from(known)))?])
}

/// The type of the items of a sequence.
fn item_of(cx: &ImportCx<'_, '_>, v: ValueId) -> Option<Type> {
    match cx.ty(v) {
        Type::Sequence(t) => Some((**t).clone()),
        _ => None,
    }
}

/// A loop over the items whose body appends to the results.
fn map<'m>(cx: &mut ImportCx<'_, 'm>, node: &OnnxNode<'m>) -> Made {
    let body = node.graph("body")?;
    let inputs = node.all_inputs()?;
    let first = *inputs.first().ok_or_else(|| node.error("operand-missing", "operand 0 is missing"))?;
    if item_of(cx, first).is_none() {
        return Err(node.error("type-mismatch", "operand 0 must be a sequence"));
    }
    // Parameters: the iteration, the results so far, the operands; then the items, which the body takes.
    let mut formals = vec![Formal::Hidden(Type::tensor(DType::I64, Vec::new()).into())];
    let results = body.output.len();
    let mut sequences = Vec::new();
    for output in &body.output {
        let declared = output.r#type.as_ref().and_then(|t| closed(t).ok());
        let item = declared.as_ref().and_then(Type::as_tensor).map(|t| t.dtype);
        let item = item.ok_or_else(|| node.unsupported("a body whose output has no declared type"))?;
        sequences.push(item);
        let ty = Type::Sequence(Arc::new(TensorType::unranked(item).into()));
        formals.push(Formal::Hidden(Fact::from(ty)));
    }
    for v in &inputs {
        formals.push(Formal::Hidden(cx.graph().value(*v).fact.clone()));
    }
    for (i, v) in inputs.iter().enumerate() {
        let param = 1 + results + i;
        formals.push(if item_of(cx, *v).is_some() {
            Formal::Item { of: param }
        } else {
            Formal::Same { of: param }
        });
    }
    let (mut made, captured) = cx.subgraphs(node, &[(body, formals)])?;
    let made = made.pop().ok_or_else(|| node.error("internal-import", "the body is missing"))?;
    let outer = cx.ed.region();
    cx.ed.at_end(made.region);
    for (k, v) in made.outputs.iter().enumerate() {
        let so_far = cx.graph().region(made.region).params[1 + k];
        let longer = cx.op(SequenceInsert {}, &[so_far, *v])?;
        cx.ed.result(made.region, longer);
    }
    cx.ed.at_end(outer);
    let count = cx.op(SequenceLength {}, &[first])?;
    let mut operands = vec![Some(count), None];
    for item in sequences {
        operands.push(Some(cx.op(Sequence { item }, &[])?));
    }
    operands.extend(inputs.into_iter().chain(captured).map(Some));
    let op = Loop { carried: results, scans: 0, conditional: false };
    cx.ed.node_with_regions(op, &operands, vec![made.region])
}
