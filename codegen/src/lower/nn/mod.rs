//! Layers of neural networks other than convolutions and matrix products.

mod col2im;
mod conv_transpose;
mod layer_norm;
mod lrn;
mod pool;
pub(super) mod pool_axis;
mod recurrent;
mod regions;
mod resize;
mod simt_rows;
mod softmax;
#[cfg(test)]
mod tests;

pub(super) use col2im::lower_col2im;
pub(super) use conv_transpose::lower_conv_transpose;
pub(super) use layer_norm::lower_layer_norm;
pub(super) use lrn::lower_lrn;
pub(super) use pool::lower_pool;
pub(super) use recurrent::{lower_recurrent, lower_skim_recurrent};
pub(super) use regions::{lower_max_roi_pool, lower_roi_align};
pub(super) use resize::lower_resize;
pub(super) use softmax::lower_softmax;

use crate::kernel::{Builder, CmpOp, Val};

/// Folds `0..n` in vectors of `lanes` elements, the last one masked: `step(b, acc, i, mask)` gives the next accumulators.
pub(super) fn fold_lanes(
    b: &mut Builder,
    n: Val,
    lanes: u16,
    init: &[Val],
    mut step: impl FnMut(&mut Builder, &[Val], Val, Option<Val>) -> Vec<Val>,
) -> Vec<Val> {
    if lanes == 1 {
        return b.for_(0, n, 1, init, |b, i, acc| step(b, acc, i, None));
    }
    let lanes_i = i64::from(lanes);
    let whole = b.and(n, -lanes_i);
    let acc = b.for_(0, whole, lanes_i, init, |b, i, acc| step(b, acc, i, None));
    let rest = b.and(n, lanes_i - 1);
    let some = b.cmp(CmpOp::Sgt, rest, 0);
    b.if_(
        some,
        |b| {
            let mask = b.mask_below(lanes, rest);
            step(b, &acc, whole, Some(mask))
        },
        |_| acc.clone(),
    )
}

/// `v` on the lanes of the mask, `other` elsewhere.
pub(super) fn keep(b: &mut Builder, mask: Option<Val>, v: Val, other: f64) -> Val {
    match mask {
        None => v,
        Some(m) => {
            let ty = b.ty(v);
            let other = b.float(ty, other);
            b.select(m, v, other)
        }
    }
}
