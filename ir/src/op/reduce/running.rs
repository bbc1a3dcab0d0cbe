//! The rule of running products.

use super::Cumulate;
use crate::diag::Diag;
use crate::graph::ValueId;
use crate::op::binary::BinaryKind;
use crate::op::gradient::GradCx;
use crate::op::normalize_axis;

/// The gradient of element `j` is the product of all before it times `s(j)`, the sum over the results from `j` on of their gradient times the
/// product of what lies between. Both hold where elements are 0, and `s(j) = dy(j) + x(j + 1) s(j + 1)`.
pub(super) fn products(op: &Cumulate, cx: &mut GradCx<'_, '_>) -> Result<(), Diag> {
    let (dy, x, along) = (cx.only_seed()?, cx.input(0)?, cx.input(1)?);
    let dims = cx.dims(x)?;
    let axis = match cx.ints(along).as_deref() {
        Some([a]) => normalize_axis(*a, dims.len())?,
        _ => return Err(cx.no_rule("of products along an axis that is computed")),
    };
    let n = dims[axis].as_const();
    let n = n.ok_or_else(|| cx.no_rule("of products along an axis whose size is not fixed"))?;
    let before = Cumulate { product: true, exclusive: true, reverse: op.reverse };
    let before = cx.ed.node1(before, &[x, along])?;
    let sign = if op.reverse { -1 } else { 1 };
    let next = |cx: &mut GradCx<'_, '_>, v: ValueId, by: i64| match by < n {
        true => cx.moved(v, axis, sign * by),
        false => cx.zeros(v),
    };
    let mut factor = if op.exclusive { x } else { next(cx, x, 1)? };
    let mut sum = dy;
    // After each turn `sum` has twice as many terms, and `factor` the product over as many places.
    let mut by = 1;
    while by < n {
        let far = next(cx, sum, by)?;
        let far = cx.mul(factor, far)?;
        sum = cx.binary(BinaryKind::Add, sum, far)?;
        let more = next(cx, factor, by)?;
        factor = cx.mul(factor, more)?;
        by *= 2;
    }
    if op.exclusive {
        sum = next(cx, sum, 1)?;
    }
    let dx = cx.mul(before, sum)?;
    cx.give(0, dx)
}
