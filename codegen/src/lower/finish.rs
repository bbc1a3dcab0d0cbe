//! The last step: sizes and lifetimes of arena slots, and the finished module.

use super::cx::LowerCx;
use super::{Module, Variant};
use planish_ir::Diag;
use planish_rt::plan::{BinOp, Expr, ExprId, Place, SlotKind};

/// Vector loads and stores may touch up to this many bytes beyond the end of an arena slot's dims.
const SLACK: i64 = 64;

pub(super) fn finish(mut cx: LowerCx<'_>) -> Result<Module, Vec<Diag>> {
    sizes(&mut cx, 0, None);
    Ok(module(cx))
}

/// Fills in sizes and lifetimes of the slots of the arena from number `from` on. Those that are used only if
/// `only_if` is not 0 take no bytes otherwise.
pub(super) fn sizes(cx: &mut LowerCx<'_>, from: usize, only_if: Option<ExprId>) {
    for (slot, life) in cx.plan.slots.iter_mut().zip(&cx.life).skip(from) {
        let (Place::Arena { bytes, first, last }, SlotKind::Tensor { dtype, dims }) =
            (&mut slot.place, &slot.kind)
        else {
            continue;
        };
        let count = cx.pool.product(dims);
        let size = cx.pool.constant(dtype.size() as i64);
        let total = cx.pool.bin(BinOp::Mul, count, size);
        let slack = cx.pool.constant(SLACK);
        *bytes = cx.pool.bin(BinOp::Add, total, slack);
        if let Some(cond) = only_if {
            let none = cx.pool.constant(0);
            *bytes = cx.pool.add(Expr::Select(cond, *bytes, none));
        }
        *first = life.first;
        *last = life.last;
    }
}

/// The module of what was lowered.
pub(super) fn module(cx: LowerCx<'_>) -> Module {
    let LowerCx { mut plan, pool, weights, kernels, options, .. } = cx;
    plan.exprs = pool.finish();
    let (decls, modules) = kernels.finish();
    plan.kernels = decls;
    let variants = options
        .targets
        .iter()
        .zip(modules)
        .map(|(t, kernels)| Variant { target: t.clone(), kernels })
        .collect();
    Module { plan, weights, variants }
}
