//! Normalisation and softmax.

use super::Made;
use super::sizes::{Size, reshape_as, reshape_like};
use crate::import::table::{Entry, onnx};
use crate::import::{ImportCx, OnnxNode};
use planish_ir::op::binary::BinaryKind;
use planish_ir::op::layer_norm::LayerNorm;
use planish_ir::op::lrn::Lrn;
use planish_ir::op::normalize_axis;
use planish_ir::op::softmax::{Softmax, SoftmaxKind};
use planish_ir::{Diag, ValueId};

pub(super) const OPS: &[Entry] = &[
    onnx("GroupNormalization", group_norm),
    onnx("Hardmax", softmax),
    onnx("InstanceNormalization", instance_norm),
    onnx("LRN", lrn),
    onnx("LayerNormalization", layer_norm),
    onnx("LogSoftmax", softmax),
    onnx("RMSNormalization", layer_norm),
    onnx("Softmax", softmax),
];

/// A vector over the channels as a shape that broadcasts to inputs of this rank, `axes` standing for the channels.
pub(super) fn per_channel(
    cx: &mut ImportCx<'_, '_>,
    v: ValueId,
    axes: &[i64],
    rank: usize,
) -> Result<ValueId, Diag> {
    let mut spec = axes.to_vec();
    spec.resize(rank - 1, 1);
    cx.reshape(v, &spec)
}

/// Rank, at least `least`.
pub(super) fn rank_from(
    cx: &ImportCx<'_, '_>,
    node: &OnnxNode<'_>,
    x: ValueId,
    least: usize,
) -> Result<usize, Diag> {
    let rank = cx.rank(x)?;
    if rank < least {
        return Err(node.error("shape-mismatch", format!("rank {rank}, not {least} at least")));
    }
    Ok(rank)
}

/// From version 13 on along one axis; before, along all axes from `axis` on together.
fn softmax(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let x = node.input(0)?;
    let kind = match node.op_type {
        "Softmax" => SoftmaxKind::Softmax,
        "LogSoftmax" => SoftmaxKind::LogSoftmax,
        _ => SoftmaxKind::Hardmax,
    };
    let dims = cx.dims(x)?;
    let rank = dims.len();
    let new = node.opset >= 13;
    let axis = node.int_or("axis", if new { -1 } else { 1 })?;
    if !new && axis == rank as i64 {
        // Rows of one element.
        let y = if kind == SoftmaxKind::LogSoftmax { 0.0 } else { 1.0 };
        let (zero, y) = (cx.scalar_like(x, 0.0)?, cx.scalar_like(x, y)?);
        let none = cx.binary(BinaryKind::Mul, x, zero)?;
        return Ok(vec![cx.binary(BinaryKind::Add, none, y)?]);
    }
    let axis = normalize_axis(axis, rank)?;
    if new || dims[axis + 1..].iter().all(|d| d.is(1)) {
        return Ok(vec![cx.op(Softmax { kind, axis }, &[x])?]);
    }
    let mut spec = vec![0; axis];
    spec.push(-1);
    let rows = cx.reshape(x, &spec)?;
    let y = cx.op(Softmax { kind, axis }, &[rows])?;
    Ok(vec![reshape_as(cx, y, x)?])
}

fn layer_norm(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let x = node.input(0)?;
    let rms = node.op_type == "RMSNormalization";
    let axis = normalize_axis(node.int_or("axis", -1)?, cx.rank(x)?)?;
    let epsilon = node.float_or("epsilon", 1e-5)?.into();
    node.int_in("stash_type", 1, 0..=i64::from(i32::MAX))?;
    let scale = node.opt(1);
    cx.op_many(LayerNorm { axis, epsilon, rms }, &[Some(x), scale, node.opt(2)])
}

fn instance_norm(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let x = node.input(0)?;
    node.ignore(&["consumed_inputs"]);
    let rank = rank_from(cx, node, x, 3)?;
    let scale = per_channel(cx, node.input(1)?, &[-1], rank)?;
    let bias = per_channel(cx, node.input(2)?, &[-1], rank)?;
    let epsilon = node.float_or("epsilon", 1e-5)?.into();
    let out = cx.op_many(LayerNorm { axis: 2, epsilon, rms: false }, &[Some(x), Some(scale), Some(bias)])?;
    Ok(out[..1].to_vec())
}

fn group_norm(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let x = node.input(0)?;
    let rank = rank_from(cx, node, x, 2)?;
    let dims = cx.dims(x)?;
    let groups = node.need_int("num_groups")?;
    let each = dims[1].as_const().filter(|c| groups > 0 && c % groups == 0).map(|c| c / groups);
    let each = each
        .ok_or_else(|| node.error("attribute-range", format!("{groups} groups of {:?} channels", dims[1])))?;
    let mut split = vec![Size::Axis(0), Size::Known(groups), Size::Known(each)];
    split.extend((2..rank).map(Size::Axis));
    let parts = reshape_like(cx, x, x, &split)?;
    // Before version 21 there is one scale for each group, from then on one for each channel.
    let axes = if node.opset < 21 { [-1, 1] } else { [groups, -1] };
    let scale = per_channel(cx, node.input(1)?, &axes, rank + 1)?;
    let bias = per_channel(cx, node.input(2)?, &axes, rank + 1)?;
    node.ignore(&["stash_type"]);
    let epsilon = node.float_or("epsilon", 1e-5)?.into();
    let norm = LayerNorm { axis: 2, epsilon, rms: false };
    let y = cx.op_many(norm, &[Some(parts), Some(scale), Some(bias)])?[0];
    Ok(vec![reshape_as(cx, y, x)?])
}

fn lrn(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let op = Lrn {
        size: node.need_int("size")?,
        alpha: node.float_or("alpha", 1e-4)?.into(),
        beta: node.float_or("beta", 0.75)?.into(),
        bias: node.float_or("bias", 1.0)?.into(),
    };
    Ok(vec![cx.op(op, &[node.input(0)?])?])
}
