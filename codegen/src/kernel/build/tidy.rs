//! Dead-code removal and renumbering.

use super::super::func::Kernel;
use super::super::inst::{Block, Inst, Op};
use super::super::types::Val;

pub(super) fn tidy(k: &mut Kernel) {
    let mut live = vec![false; k.vals.len()];
    sweep(&mut k.body, &mut live);
    let mut map = vec![None; k.vals.len()];
    let mut types = Vec::new();
    renumber(&mut k.body, &mut |v: Val| {
        *map[v.index()].get_or_insert_with(|| {
            types.push(k.vals[v.index()]);
            Val(types.len() as u32 - 1)
        })
    });
    k.vals = types;
}

fn has_effect(inst: &Inst) -> bool {
    match &inst.op {
        // It may not end; that is kept.
        Op::While { .. } => true,
        Op::For { .. } | Op::If { .. } => inst.op.blocks().iter().any(|b| b.insts.iter().any(has_effect)),
        op => !op.is_removable(),
    }
}

/// Uses come after definitions, so one backward walk finds all that is live.
fn sweep(b: &mut Block, live: &mut [bool]) {
    b.yields.iter().for_each(|y| live[y.index()] = true);
    let mut kept = Vec::with_capacity(b.insts.len());
    for mut inst in std::mem::take(&mut b.insts).into_iter().rev() {
        if !has_effect(&inst) && !inst.outs.iter().any(|o| live[o.index()]) {
            continue;
        }
        inst.op.for_each_operand(|v| live[v.index()] = true);
        for nb in inst.op.blocks_mut() {
            sweep(nb, live);
        }
        kept.push(inst);
    }
    kept.reverse();
    b.insts = kept;
}

fn renumber(b: &mut Block, f: &mut impl FnMut(Val) -> Val) {
    b.params.iter_mut().for_each(|v| *v = f(*v));
    for inst in &mut b.insts {
        inst.op.map_operands(&mut *f);
        for nb in inst.op.blocks_mut() {
            renumber(nb, f);
        }
        inst.outs.iter_mut().for_each(|v| *v = f(*v));
    }
    b.yields.iter_mut().for_each(|v| *v = f(*v));
}
