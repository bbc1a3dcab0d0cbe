//! Shapes that depend on the shape of a tensor.

use crate::import::ImportCx;
use planish_ir::op::binary::BinaryKind;
use planish_ir::op::concat::Concat;
use planish_ir::op::reshape::Reshape;
use planish_ir::op::views::Shape;
use planish_ir::{Diag, Dim, ValueId};

/// One dim of a shape that is made for a tensor.
#[derive(Clone, Copy, Debug)]
pub(super) enum Size {
    /// A number.
    Known(i64),
    /// The size of an axis of the tensor.
    Axis(usize),
    /// The size of an axis times a number.
    Times(usize, i64),
    /// The size of an axis divided by a number, rounded down.
    Over(usize, i64),
    /// The size of an axis times a number, plus another.
    Affine(usize, i64, i64),
    /// What remains; at most one.
    Rest,
}

/// The sizes as a vector of i64; a constant where all are known.
pub(super) fn size_vector(cx: &mut ImportCx<'_, '_>, x: ValueId, sizes: &[Size]) -> Result<ValueId, Diag> {
    let dims = cx.dims(x)?;
    let axis = |a: usize| dims.get(a).cloned().unwrap_or(Dim::Const(1));
    let known = |s: &Size| match *s {
        Size::Known(v) => Some(v),
        Size::Rest => Some(-1),
        Size::Axis(a) => axis(a).as_const(),
        Size::Times(a, k) => axis(a).mul(&k.into()).as_const(),
        Size::Over(a, k) => axis(a).floor_div(&k.into()).as_const(),
        Size::Affine(a, k, c) => axis(a).mul(&k.into()).add(&c.into()).as_const(),
    };
    if let Some(all) = sizes.iter().map(known).collect::<Option<Vec<_>>>() {
        return cx.const_i64s(&all);
    }
    let mut parts = Vec::new();
    for s in sizes {
        if let Some(v) = known(s) {
            parts.push(cx.const_i64s(&[v])?);
            continue;
        }
        let (Size::Axis(a) | Size::Times(a, _) | Size::Over(a, _) | Size::Affine(a, ..)) = *s else {
            continue;
        };
        let mut v = cx.op(Shape { start: a as i64, end: Some(a as i64 + 1) }, &[x])?;
        if let Size::Times(_, k) | Size::Over(_, k) | Size::Affine(_, k, _) = *s {
            let k = cx.const_i64s(&[k])?;
            let kind = if !matches!(s, Size::Over(..)) { BinaryKind::Mul } else { BinaryKind::Div };
            v = cx.binary(kind, v, k)?;
        }
        if let Size::Affine(_, _, c) = *s {
            let c = cx.const_i64s(&[c])?;
            v = cx.binary(BinaryKind::Add, v, c)?;
        }
        parts.push(v);
    }
    cx.op(Concat { axis: 0 }, &parts)
}

/// `x` under a shape that is made from the dims of `like`.
pub(super) fn reshape_like(
    cx: &mut ImportCx<'_, '_>,
    x: ValueId,
    like: ValueId,
    sizes: &[Size],
) -> Result<ValueId, Diag> {
    let spec = size_vector(cx, like, sizes)?;
    cx.op(Reshape { allow_zero: true }, &[x, spec])
}

/// `x` under the shape of `like`.
pub(super) fn reshape_as(cx: &mut ImportCx<'_, '_>, x: ValueId, like: ValueId) -> Result<ValueId, Diag> {
    let sizes: Vec<Size> = (0..cx.rank(like)?).map(Size::Axis).collect();
    reshape_like(cx, x, like, &sizes)
}
