//! The last step: sizes and lifetimes of arena slots, and the finished module.

use super::cx::LowerCx;
use super::{Module, Variant};
use planish_ir::Diag;
use planish_rt::plan::{Place, SlotKind};

/// Vector loads and stores may touch up to this many bytes beyond the end of an arena slot's dims.
const SLACK: i64 = 64;

pub(super) fn finish(cx: LowerCx<'_>) -> Result<Module, Vec<Diag>> {
    let LowerCx { mut plan, mut pool, weights, kernels, life, options, .. } = cx;
    for (i, slot) in plan.slots.iter_mut().enumerate() {
        let (Place::Arena { bytes, first, last }, SlotKind::Tensor { dtype, dims }) =
            (&mut slot.place, &slot.kind)
        else {
            continue;
        };
        let count = pool.product(dims);
        let size = pool.constant(dtype.size() as i64);
        let total = pool.bin(planish_rt::plan::BinOp::Mul, count, size);
        let slack = pool.constant(SLACK);
        *bytes = pool.bin(planish_rt::plan::BinOp::Add, total, slack);
        *first = life[i].first;
        *last = life[i].last;
    }
    plan.exprs = pool.finish();
    let (decls, modules) = kernels.finish();
    plan.kernels = decls;
    let variants = options
        .targets
        .iter()
        .zip(modules)
        .map(|(t, kernels)| Variant { target: t.clone(), kernels })
        .collect();
    Ok(Module { plan, weights, variants })
}
