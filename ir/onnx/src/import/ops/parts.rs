//! Short chains of nodes that several families build from.

use crate::import::ImportCx;
use planish_ir::op::binary::BinaryKind;
use planish_ir::op::concat::Concat;
use planish_ir::op::gather::Gather;
use planish_ir::op::matmul::MatMul;
use planish_ir::op::reduce::{Reduce, ReduceKind};
use planish_ir::op::slice::Slice;
use planish_ir::op::views::{Expand, Shape, Squeeze, Transpose, Unsqueeze};
use planish_ir::{Diag, Tensor, ValueId};

type One = Result<ValueId, Diag>;

pub(super) fn add(cx: &mut ImportCx<'_, '_>, a: ValueId, b: ValueId) -> One {
    cx.binary(BinaryKind::Add, a, b)
}

pub(super) fn sub(cx: &mut ImportCx<'_, '_>, a: ValueId, b: ValueId) -> One {
    cx.binary(BinaryKind::Sub, a, b)
}

pub(super) fn mul(cx: &mut ImportCx<'_, '_>, a: ValueId, b: ValueId) -> One {
    cx.binary(BinaryKind::Mul, a, b)
}

pub(super) fn div(cx: &mut ImportCx<'_, '_>, a: ValueId, b: ValueId) -> One {
    cx.binary(BinaryKind::Div, a, b)
}

/// `x * factor`
pub(super) fn scale(cx: &mut ImportCx<'_, '_>, x: ValueId, factor: f64) -> One {
    let f = cx.scalar_like(x, factor)?;
    mul(cx, x, f)
}

pub(super) fn transpose(cx: &mut ImportCx<'_, '_>, x: ValueId, perm: &[usize]) -> One {
    if perm.iter().enumerate().all(|(i, p)| i == *p) {
        return Ok(x);
    }
    cx.op(Transpose { perm: perm.to_vec() }, &[x])
}

pub(super) fn unsqueeze(cx: &mut ImportCx<'_, '_>, x: ValueId, axes: &[usize]) -> One {
    cx.op(Unsqueeze { axes: axes.to_vec() }, &[x])
}

pub(super) fn squeeze(cx: &mut ImportCx<'_, '_>, x: ValueId, axes: &[usize]) -> One {
    cx.op(Squeeze { axes: axes.to_vec() }, &[x])
}

pub(super) fn concat(cx: &mut ImportCx<'_, '_>, parts: &[ValueId], axis: usize) -> One {
    if let [one] = parts { Ok(*one) } else { cx.op(Concat { axis }, parts) }
}

pub(super) fn matmul(cx: &mut ImportCx<'_, '_>, a: ValueId, b: ValueId) -> One {
    cx.op(MatMul { trans_a: false, trans_b: false }, &[a, b])
}

/// A reduction over axes below the rank; all of them when `axes` is none.
pub(super) fn reduce(
    cx: &mut ImportCx<'_, '_>,
    kind: ReduceKind,
    x: ValueId,
    axes: Option<&[usize]>,
    keepdims: bool,
) -> One {
    cx.op(Reduce { kind, axes: axes.map(<[usize]>::to_vec), keepdims, noop_empty: false }, &[x])
}

/// `x[.., from..to by step, ..]` along one axis, with bounds as ONNX Slice takes them.
pub(super) fn slice(
    cx: &mut ImportCx<'_, '_>,
    x: ValueId,
    axis: usize,
    from: i64,
    to: i64,
    step: i64,
) -> One {
    let parts = [from, to, axis as i64, step].map(|v| [v]);
    let mut args = vec![x];
    for p in &parts {
        args.push(cx.const_i64s(p)?);
    }
    cx.op(Slice {}, &args)
}

/// `x` in reverse along an axis.
pub(super) fn flip(cx: &mut ImportCx<'_, '_>, x: ValueId, axis: usize) -> One {
    slice(cx, x, axis, -1, i64::MIN, -1)
}

/// The size of an axis as an i64 scalar.
pub(super) fn size(cx: &mut ImportCx<'_, '_>, x: ValueId, axis: usize) -> One {
    let v = cx.op(Shape { start: axis as i64, end: Some(axis as i64 + 1) }, &[x])?;
    cx.reshape(v, &[])
}

/// The size of an axis as a vector of one i64.
pub(super) fn size1(cx: &mut ImportCx<'_, '_>, x: ValueId, axis: usize) -> One {
    cx.op(Shape { start: axis as i64, end: Some(axis as i64 + 1) }, &[x])
}

/// Element or slice number `index` (a scalar) along an axis, which vanishes.
pub(super) fn at(cx: &mut ImportCx<'_, '_>, x: ValueId, axis: usize, index: ValueId) -> One {
    cx.op(Gather { axis }, &[x, index])
}

/// As [`at`] with a known index.
pub(super) fn at_const(cx: &mut ImportCx<'_, '_>, x: ValueId, axis: usize, index: i64) -> One {
    let i = cx.constant(Tensor::scalar_i64(index))?;
    at(cx, x, axis, i)
}

/// `x` broadcast to the shape that the integers of `shape` list.
pub(super) fn expand(cx: &mut ImportCx<'_, '_>, x: ValueId, shape: ValueId) -> One {
    cx.op(Expand {}, &[x, shape])
}

/// `x` under the dims that the vectors of integers of `parts` list together.
pub(super) fn reshape_to(cx: &mut ImportCx<'_, '_>, x: ValueId, parts: &[ValueId]) -> One {
    let shape = concat(cx, parts, 0)?;
    cx.op(planish_ir::op::reshape::Reshape { allow_zero: false }, &[x, shape])
}
