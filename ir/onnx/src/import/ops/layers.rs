//! Layers that are made of other operations: global pooling, normalisation by norms, dropout, rearranged blocks.

use super::Made;
use super::norm::rank_from;
use super::sizes::{Size, reshape_like};
use crate::import::table::{Entry, onnx};
use crate::import::{ImportCx, OnnxNode};
use planish_ir::op::binary::BinaryKind::{Add, Div, Equal, GreaterEqual, Max, Min, Mul, Pow, Sub};
use planish_ir::op::concat::{Concat, Pad, PadMode};
use planish_ir::op::conv::Conv;
use planish_ir::op::gather::Gather;
use planish_ir::op::normalize_axes;
use planish_ir::op::normalize_axis;
use planish_ir::op::random::Random;
use planish_ir::op::reduce::{Reduce, ReduceKind};
use planish_ir::op::slice::Slice;
use planish_ir::op::unary::UnaryKind;
use planish_ir::op::views::{Expand, Shape, Transpose};
use planish_ir::op::window::AutoPad;
use planish_ir::{DType, Diag, ValueId};

pub(super) const OPS: &[Entry] = &[
    onnx("CausalConvWithState", causal_conv),
    onnx("CenterCropPad", center_crop_pad),
    onnx("DepthToSpace", depth_to_space),
    onnx("Dropout", dropout),
    onnx("GlobalAveragePool", global_pool),
    onnx("GlobalLpPool", global_pool),
    onnx("GlobalMaxPool", global_pool),
    onnx("LpNormalization", lp_norm),
    onnx("MeanVarianceNormalization", mean_variance_norm),
    onnx("SpaceToDepth", space_to_depth),
];

pub(super) fn reduce(
    cx: &mut ImportCx<'_, '_>,
    kind: ReduceKind,
    axes: &[usize],
    x: ValueId,
) -> Result<ValueId, Diag> {
    cx.op(Reduce { kind, axes: Some(axes.to_vec()), keepdims: true, noop_empty: false }, &[x])
}

/// The p-norm over axes, which stay with size 1.
fn norm(cx: &mut ImportCx<'_, '_>, p: f64, axes: &[usize], x: ValueId) -> Result<ValueId, Diag> {
    if p == 1.0 {
        return reduce(cx, ReduceKind::L1, axes, x);
    } else if p == 2.0 {
        return reduce(cx, ReduceKind::L2, axes, x);
    }
    let size = cx.unary(UnaryKind::Abs, x)?;
    let (p, root) = (cx.scalar_like(x, p)?, cx.scalar_like(x, 1.0 / p)?);
    let powers = cx.binary(Pow, size, p)?;
    let sum = reduce(cx, ReduceKind::Sum, axes, powers)?;
    cx.binary(Pow, sum, root)
}

fn global_pool(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let x = node.input(0)?;
    let axes: Vec<usize> = (2..rank_from(cx, node, x, 3)?).collect();
    let y = match node.op_type {
        "GlobalAveragePool" => reduce(cx, ReduceKind::Mean, &axes, x)?,
        "GlobalMaxPool" => reduce(cx, ReduceKind::Max, &axes, x)?,
        _ => {
            let p = if node.opset < 2 {
                node.float_or("p", 2.0)?.into()
            } else {
                node.int_in("p", 2, 1..=i64::from(i32::MAX))? as f64
            };
            norm(cx, p, &axes, x)?
        }
    };
    Ok(vec![y])
}

/// x / |x|, and 0 where the norm is 0.
fn lp_norm(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let x = node.input(0)?;
    let axis = normalize_axis(node.int_or("axis", -1)?, cx.rank(x)?)?;
    let p = node.int_in("p", 2, 1..=2)?;
    let norm = norm(cx, p as f64, &[axis], x)?;
    let zero = cx.scalar_like(x, 0.0)?;
    let none = cx.binary(Equal, norm, zero)?;
    let y = cx.binary(Div, x, norm)?;
    Ok(vec![cx.select(none, zero, y)?])
}

/// (x - mean) / (deviation + 1e-9).
fn mean_variance_norm(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let x = node.input(0)?;
    let axes = normalize_axes(node.ints("axes")?.unwrap_or(&[0, 2, 3]), cx.rank(x)?)?;
    let mean = reduce(cx, ReduceKind::Mean, &axes, x)?;
    let centred = cx.binary(Sub, x, mean)?;
    let square = cx.binary(Mul, centred, centred)?;
    let var = reduce(cx, ReduceKind::Mean, &axes, square)?;
    let deviation = cx.unary(UnaryKind::Sqrt, var)?;
    let epsilon = cx.scalar_like(x, 1e-9)?;
    let below = cx.binary(Add, deviation, epsilon)?;
    Ok(vec![cx.binary(Div, centred, below)?])
}

/// `value` in the shape of `x`.
fn filled_like(cx: &mut ImportCx<'_, '_>, x: ValueId, dtype: DType, value: f64) -> Result<ValueId, Diag> {
    let shape = cx.op(Shape { start: 0, end: None }, &[x])?;
    let value = cx.const_scalar(dtype, value)?;
    cx.op(Expand {}, &[value, shape])
}

fn dropout(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let x = node.input(0)?;
    let seed = node.int("seed")?;
    node.ignore(&["consumed_inputs", "is_test"]);
    if node.opset < 12 {
        node.ignore(&["ratio"]);
    }
    let training = if node.opset >= 12 { node.opt(2) } else { None };
    let known = |v: ValueId| cx.const_tensor(v, 1).and_then(|t| t.to_f64().first().copied());
    if training.is_none_or(|t| known(t) == Some(0.0)) {
        let mask = if node.opset < 10 { cx.dtype(x)? } else { DType::Bool };
        return Ok(if node.wants(1) { vec![x, filled_like(cx, x, mask, 1.0)?] } else { vec![x] });
    }
    let ratio = match node.opt(1) {
        Some(r) => cx.cast(r, DType::F32)?,
        None => cx.const_f32(0.5)?,
    };
    let shape = cx.op(Shape { start: 0, end: None }, &[x])?;
    let random = cx.op(Random { dtype: DType::F32, normal: false, a: 0.0, b: 1.0, seed }, &[shape])?;
    let mut mask = cx.binary(GreaterEqual, random, ratio)?;
    let one = cx.const_f32(1.0)?;
    let kept = cx.binary(Sub, one, ratio)?;
    let scale = cx.binary(Div, one, kept)?;
    let scale = cx.cast(scale, cx.dtype(x)?)?;
    let scaled = cx.binary(Mul, x, scale)?;
    let zero = cx.scalar_like(x, 0.0)?;
    let mut y = cx.select(mask, scaled, zero)?;
    if let Some(t) = training.filter(|t| cx.const_tensor(*t, 1).is_none()) {
        let all = filled_like(cx, x, DType::Bool, 1.0)?;
        y = cx.select(t, y, x)?;
        mask = cx.select(t, mask, all)?;
    }
    Ok(vec![y, mask])
}

/// The size of blocks, at least 1.
fn block(node: &OnnxNode<'_>) -> Result<i64, Diag> {
    node.need_int("blocksize")?;
    node.int_in("blocksize", 1, 1..=1 << 20)
}

fn depth_to_space(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let (x, b) = (node.input(0)?, block(node)?);
    if cx.rank(x)? != 4 {
        return Err(node.error("shape-mismatch", "the input must have rank 4"));
    }
    let depth_first = node.choice("mode", 0, &["DCR", "CRD"])? == 0;
    let (n, c, h, w) = (Size::Axis(0), Size::Over(1, b * b), Size::Axis(2), Size::Axis(3));
    let k = Size::Known(b);
    let (split, perm) = if depth_first {
        ([n, k, k, c, h, w], vec![0, 3, 4, 1, 5, 2])
    } else {
        ([n, c, k, k, h, w], vec![0, 1, 4, 2, 5, 3])
    };
    let blocks = reshape_like(cx, x, x, &split)?;
    let moved = cx.op(Transpose { perm }, &[blocks])?;
    Ok(vec![reshape_like(cx, moved, x, &[n, c, Size::Times(2, b), Size::Times(3, b)])?])
}

fn space_to_depth(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let (x, b) = (node.input(0)?, block(node)?);
    if cx.rank(x)? != 4 {
        return Err(node.error("shape-mismatch", "the input must have rank 4"));
    }
    // From version 27 on blocks may come before or behind the channels.
    let depth_first = node.choice("mode", 0, &["DCR", "CRD"])? == 0;
    let (n, c, h, w) = (Size::Axis(0), Size::Axis(1), Size::Over(2, b), Size::Over(3, b));
    let k = Size::Known(b);
    let blocks = reshape_like(cx, x, x, &[n, c, h, k, w, k])?;
    let perm = if depth_first { vec![0, 3, 5, 1, 2, 4] } else { vec![0, 1, 3, 5, 2, 4] };
    let moved = cx.op(Transpose { perm }, &[blocks])?;
    Ok(vec![reshape_like(cx, moved, x, &[n, Size::Times(1, b * b), h, w])?])
}

/// Crops or pads axes about their centre.
fn center_crop_pad(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let x = node.input(0)?;
    let want = cx.cast(node.input(1)?, DType::I64)?;
    let rank = cx.rank(x)?;
    let axes: Vec<i64> = match node.ints("axes")? {
        Some(axes) => {
            let axes = axes.iter().map(|a| normalize_axis(*a, rank));
            axes.map(|a| a.map(|a| a as i64)).collect::<Result<_, _>>()?
        }
        None => (0..rank as i64).collect(),
    };
    let axes = cx.const_i64s(&axes)?;
    let shape = cx.op(Shape { start: 0, end: None }, &[x])?;
    let have = cx.op(Gather { axis: 0 }, &[shape, axes])?;
    let (zero, two) = (cx.const_i64s(&[0])?, cx.const_i64s(&[2])?);
    let surplus = cx.binary(Sub, have, want)?;
    let surplus = cx.binary(Max, surplus, zero)?;
    let start = cx.binary(Div, surplus, two)?;
    let size = cx.binary(Min, have, want)?;
    let end = cx.binary(Add, start, size)?;
    let cropped = cx.op(Slice {}, &[x, start, end, axes])?;
    let missing = cx.binary(Sub, want, size)?;
    let before = cx.binary(Div, missing, two)?;
    let after = cx.binary(Sub, missing, before)?;
    let pads = cx.op(Concat { axis: 0 }, &[before, after])?;
    let pad = Pad { mode: PadMode::Constant };
    cx.op_many(pad, &[Some(cropped), Some(pads), None, Some(axes)])
}

/// A depthwise convolution that sees only the past, of which the last positions are carried on.
fn causal_conv(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let (x, w) = (node.input(0)?, node.input(1)?);
    let activation = node.choice("activation", 0, &["none", "silu", "swish"])?;
    let (dims, kernel) = (cx.dims(x)?, cx.dims(w)?);
    let (3, [_, _, k]) = (dims.len(), kernel.as_slice()) else {
        return Err(node.error("shape-mismatch", "the operands must have rank 3"));
    };
    let (Some(k), Some(c)) = (k.as_const().filter(|k| *k > 0), dims[1].as_const()) else {
        return Err(node.unsupported("a window or number of channels that is not known"));
    };
    let past = match node.opt(3) {
        Some(p) => p,
        None => {
            let shape =
                super::sizes::size_vector(cx, x, &[Size::Axis(0), Size::Axis(1), Size::Known(k - 1)])?;
            let zero = cx.scalar_like(x, 0.0)?;
            cx.op(Expand {}, &[zero, shape])?
        }
    };
    let all = cx.op(Concat { axis: 2 }, &[past, x])?;
    let conv = Conv {
        strides: vec![1],
        dilations: vec![1],
        pads: vec![0, 0],
        auto_pad: AutoPad::Explicit,
        groups: c,
    };
    let mut y = cx.op_many(conv, &[Some(all), Some(w), node.opt(2)])?[0];
    if activation > 0 {
        let dtype = cx.dtype(y)?;
        let wide = cx.cast(y, if dtype == DType::F64 { dtype } else { DType::F32 })?;
        let gate = cx.unary(UnaryKind::Sigmoid, wide)?;
        let product = cx.binary(Mul, wide, gate)?;
        y = cx.cast(product, dtype)?;
    }
    // The last k - 1 positions begin where the length of the input ends.
    let length = cx.op(Shape { start: 2, end: Some(3) }, &[x])?;
    let (end, axis) = (cx.const_i64s(&[i64::MAX])?, cx.const_i64s(&[2])?);
    let state = cx.op(Slice {}, &[all, length, end, axis])?;
    Ok(vec![y, state])
}
