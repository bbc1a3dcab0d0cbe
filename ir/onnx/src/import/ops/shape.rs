//! Shapes, and operators that rearrange axes or move whole blocks.

use super::Made;
use crate::import::table::{Entry, onnx};
use crate::import::{ImportCx, OnnxNode};
use planish_ir::op::binary::BinaryKind;
use planish_ir::op::concat::{Concat, Pad, PadMode, Split, Tile};
use planish_ir::op::reduce::{Cumulate, Reduce, ReduceKind};
use planish_ir::op::reshape::Reshape;
use planish_ir::op::select::Compress;
use planish_ir::op::slice::Slice;
use planish_ir::op::unary::UnaryKind;
use planish_ir::op::views::{BitCast, Expand, Flatten, Shape, Squeeze, Transpose, Unsqueeze};
use planish_ir::op::{gather::Gather, normalize_axes, normalize_axis};
use planish_ir::{Constant, DType, Diag, Tensor, ValueId};

pub(super) const OPS: &[Entry] = &[
    onnx("BitCast", bit_cast),
    onnx("Concat", concat),
    onnx("ConstantOfShape", constant_of_shape),
    onnx("Expand", expand),
    onnx("Flatten", flatten),
    onnx("Pad", pad),
    onnx("Shape", shape),
    onnx("Size", size),
    onnx("Slice", slice),
    onnx("Split", split),
    onnx("Squeeze", squeeze),
    onnx("Tile", tile),
    onnx("Transpose", transpose),
    onnx("Unsqueeze", unsqueeze),
];

/// Attribute `axis` of a tensor of rank `rank`, as an index below it.
pub(super) fn axis_attr(node: &OnnxNode<'_>, default: i64, rank: usize) -> Result<usize, Diag> {
    normalize_axis(node.int_or("axis", default)?, rank)
}

/// An integer operand as i64.
pub(super) fn as_i64(cx: &mut ImportCx<'_, '_>, v: ValueId) -> Result<ValueId, Diag> {
    cx.cast(v, DType::I64)
}

/// What a node says about axes.
pub(super) enum Axes {
    /// Nothing.
    Absent,
    /// These.
    Known(Vec<i64>),
    /// A vector of i64 that only data tell.
    Data(ValueId),
}

/// Axes from the attribute `axes` before opset `since`, and from operand `at` from then on.
pub(super) fn axes_of(
    cx: &mut ImportCx<'_, '_>,
    node: &OnnxNode<'_>,
    at: usize,
    since: i64,
) -> Result<Axes, Diag> {
    if node.opset < since {
        return Ok(node.ints("axes")?.map_or(Axes::Absent, |a| Axes::Known(a.to_vec())));
    }
    let Some(v) = node.opt(at) else { return Ok(Axes::Absent) };
    if let Some(known) = cx.const_ints(v) {
        return Ok(Axes::Known(known));
    }
    Ok(Axes::Data(as_i64(cx, v)?))
}

fn shape(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let (start, end) = (node.int_or("start", 0)?, node.int("end")?);
    Ok(vec![cx.op(Shape { start, end }, &[node.input(0)?])?])
}

fn size(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let dims = cx.op(Shape { start: 0, end: None }, &[node.input(0)?])?;
    let product = Reduce { kind: ReduceKind::Prod, axes: Some(vec![0]), keepdims: false, noop_empty: false };
    Ok(vec![cx.op(product, &[dims])?])
}

/// For axes that only data tell: a vector of bools, true at every axis of a tensor of rank `rank` that is named, and
/// how many are.
fn axis_mask(cx: &mut ImportCx<'_, '_>, axes: ValueId, extra: usize) -> Result<(ValueId, usize), Diag> {
    let dims = cx.dims(axes)?;
    let count = match dims.as_slice() {
        [n] => n.as_const().and_then(|n| usize::try_from(n).ok()).filter(|n| *n <= 64),
        [] => Some(1),
        _ => None,
    };
    let count =
        count.ok_or_else(|| Diag::error("unsupported-rank", "how many axes there are is not known"))?;
    let rank = extra + count;
    let modulus = cx.constant(Tensor::scalar_i64(rank.max(1) as i64))?;
    let axes = cx.reshape(axes, &[1, count as i64])?;
    let axes = cx.binary(BinaryKind::Mod, axes, modulus)?;
    let places: Vec<i64> = (0..rank as i64).collect();
    let places = cx.constant(Tensor::vec_i64(&places).reshaped(&[rank, 1])?)?;
    let hits = cx.binary(BinaryKind::Equal, places, axes)?;
    let any = Reduce { kind: ReduceKind::Max, axes: Some(vec![1]), keepdims: false, noop_empty: false };
    Ok((cx.op(any, &[hits])?, count))
}

fn squeeze(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let x = node.input(0)?;
    let dims = cx.dims(x)?;
    let axes = match axes_of(cx, node, 1, 13)? {
        Axes::Known(a) => normalize_axes(&a, dims.len())?,
        Axes::Absent => {
            let symbols = &cx.graph().symbols;
            if dims.iter().any(|d| d.as_const().is_none() && d.bounds(symbols).0.is_none_or(|l| l < 2)) {
                return Err(node.unsupported("which axes have size 1 is known only at run time"));
            }
            (0..dims.len()).filter(|a| dims[*a].is(1)).collect()
        }
        Axes::Data(v) => {
            let count = cx.dims(v)?.first().map_or(Some(1), |d| d.as_const()).unwrap_or(0) as usize;
            let keep = dims.len().checked_sub(count);
            let keep = keep.ok_or_else(|| node.error("axis-out-of-range", "more axes than the rank"))?;
            let (mask, _) = axis_mask(cx, v, keep)?;
            let others = cx.unary(UnaryKind::Not, mask)?;
            let all = cx.op(Shape { start: 0, end: None }, &[x])?;
            let rest = cx.op(Compress { axis: Some(0) }, &[all, others])?;
            let rest = cx.reshape(rest, &[keep as i64])?;
            return Ok(vec![cx.op(Reshape { allow_zero: true }, &[x, rest])?]);
        }
    };
    if axes.is_empty() { Ok(vec![x]) } else { Ok(vec![cx.op(Squeeze { axes }, &[x])?]) }
}

fn unsqueeze(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let x = node.input(0)?;
    let rank = cx.rank(x)?;
    let axes = match axes_of(cx, node, 1, 13)? {
        Axes::Known(a) => normalize_axes(&a, rank + a.len())?,
        Axes::Absent => return Err(node.error("attribute-missing", "the axes are missing")),
        Axes::Data(v) => {
            let (mask, _) = axis_mask(cx, v, rank)?;
            let others = cx.unary(UnaryKind::Not, mask)?;
            let others = cx.cast(others, DType::I64)?;
            let (zero, one) = (cx.const_scalar(DType::I64, 0.0)?, cx.const_scalar(DType::I64, 1.0)?);
            let sum = Cumulate { product: false, exclusive: true, reverse: false };
            let from = cx.op(sum, &[others, zero])?;
            let all = cx.op(Shape { start: 0, end: None }, &[x])?;
            // New axes at the end read the 1 behind the dims.
            let last = cx.const_i64s(&[1])?;
            let all = cx.op(Concat { axis: 0 }, &[all, last])?;
            let dims = cx.op(Gather { axis: 0 }, &[all, from])?;
            let dims = cx.select(mask, one, dims)?;
            return Ok(vec![cx.op(Reshape { allow_zero: true }, &[x, dims])?]);
        }
    };
    if axes.is_empty() { Ok(vec![x]) } else { Ok(vec![cx.op(Unsqueeze { axes }, &[x])?]) }
}

fn flatten(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let x = node.input(0)?;
    let rank = cx.rank(x)?;
    let axis = node.int_or("axis", 1)?;
    let axis = if axis == rank as i64 { rank } else { normalize_axis(axis, rank)? };
    Ok(vec![cx.op(Flatten { axis }, &[x])?])
}

fn bit_cast(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let to = node.dtype("to")?.ok_or_else(|| node.missing("to"))?;
    let x = node.input(0)?;
    if cx.dtype(x)? == to { Ok(vec![x]) } else { Ok(vec![cx.op(BitCast { to }, &[x])?]) }
}

fn transpose(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let x = node.input(0)?;
    let rank = cx.rank(x)?;
    let perm = match node.ints("perm")? {
        None => (0..rank).rev().collect(),
        Some(p) => p.iter().map(|a| normalize_axis(*a, rank)).collect::<Result<Vec<_>, _>>()?,
    };
    if perm.iter().copied().eq(0..rank) {
        return Ok(vec![x]);
    }
    Ok(vec![cx.op(Transpose { perm }, &[x])?])
}

fn concat(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let parts = node.all_inputs()?;
    let rank = cx.rank(node.input(0)?)?;
    let axis = match node.int("axis")? {
        Some(a) => normalize_axis(a, rank)?,
        None if node.opset < 4 => normalize_axis(1, rank)?,
        None => return Err(node.missing("axis")),
    };
    if parts.len() == 1 {
        return Ok(parts);
    }
    Ok(vec![cx.op(Concat { axis }, &parts)?])
}

fn split(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let x = node.input(0)?;
    let axis = axis_attr(node, 0, cx.rank(x)?)?;
    let mut sizes = node.opt(1);
    if node.opset < 13
        && let Some(s) = node.ints("split")?
    {
        sizes = Some(cx.const_i64s(s)?);
    }
    let mut parts = node.outputs.len();
    if let Some(n) = node.int("num_outputs")? {
        parts = usize::try_from(n).unwrap_or(0).max(parts);
    }
    if let Some(known) = sizes.and_then(|s| cx.const_ints(s)) {
        parts = parts.max(known.len());
    }
    if let Some(s) = sizes {
        sizes = Some(as_i64(cx, s)?);
    }
    cx.op_many(Split { axis, parts }, &[Some(x), sizes][..1 + usize::from(sizes.is_some())])
}

fn slice(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let x = node.input(0)?;
    let mut operands = vec![Some(x)];
    if node.opset < 10 {
        for name in ["starts", "ends"] {
            let v = node.ints(name)?.ok_or_else(|| node.missing(name))?;
            operands.push(Some(cx.const_i64s(v)?));
        }
        if let Some(a) = node.ints("axes")? {
            operands.push(Some(cx.const_i64s(a)?));
        }
    } else {
        for i in 1..5 {
            let v = node.opt(i).map(|v| as_i64(cx, v)).transpose()?;
            operands.push(v);
        }
    }
    cx.op_many(Slice {}, &operands)
}

fn tile(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let x = node.input(0)?;
    if node.opset >= 6 {
        let repeats = as_i64(cx, node.input(1)?)?;
        return Ok(vec![cx.op(Tile {}, &[x, repeats])?]);
    }
    // The first version repeats along one axis; both numbers are scalars.
    let (tiles, axis) = (as_i64(cx, node.input(1)?)?, as_i64(cx, node.input(2)?)?);
    let places: Vec<i64> = (0..cx.rank(x)? as i64).collect();
    let places = cx.const_i64s(&places)?;
    let (one, axis, tiles) = (cx.const_i64s(&[1])?, cx.reshape(axis, &[1])?, cx.reshape(tiles, &[1])?);
    let here = cx.binary(BinaryKind::Equal, places, axis)?;
    let repeats = cx.select(here, tiles, one)?;
    Ok(vec![cx.op(Tile {}, &[x, repeats])?])
}

fn expand(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let dims = as_i64(cx, node.input(1)?)?;
    Ok(vec![cx.op(Expand {}, &[node.input(0)?, dims])?])
}

fn constant_of_shape(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let value = match node.tensor("value")? {
        Some(t) => cx.tensor(t)?,
        None => Tensor::f32s(&[1], &[0.0])?,
    };
    if value.len() != 1 {
        return Err(node.error("attribute-range", "the value must be one element"));
    }
    let value = value.reshaped(&[])?;
    let dims = as_i64(cx, node.input(0)?)?;
    if let Some(known) = cx.const_ints(dims) {
        let shape: Option<Vec<usize>> = known.iter().map(|d| usize::try_from(*d).ok()).collect();
        let shape = shape.ok_or_else(|| node.error("shape-mismatch", "a dim is negative"))?;
        return Ok(vec![cx.ed.constant(Constant::splat(&value, shape)?)?]);
    }
    let value = cx.constant(value)?;
    Ok(vec![cx.op(Expand {}, &[value, dims])?])
}

fn pad(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let x = node.input(0)?;
    let modes = [PadMode::Constant, PadMode::Reflect, PadMode::Edge, PadMode::Wrap];
    let mode = modes[node.choice("mode", 0, &["constant", "reflect", "edge", "wrap"])?];
    let mut operands = vec![Some(x)];
    if node.opset < 11 {
        let name = if node.opset < 2 { "paddings" } else { "pads" };
        let pads = node.ints(name)?.ok_or_else(|| node.missing(name))?;
        operands.push(Some(cx.const_i64s(pads)?));
        let value = node.float_or("value", 0.0)?;
        operands.push(Some(cx.scalar_like(x, value.into())?));
    } else {
        operands.push(Some(as_i64(cx, node.input(1)?)?));
        operands.push(node.opt(2));
        let axes = node.opt(3).map(|v| as_i64(cx, v)).transpose()?;
        operands.push(axes);
    }
    cx.op_many(Pad { mode }, &operands)
}
