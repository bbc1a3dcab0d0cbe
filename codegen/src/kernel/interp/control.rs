//! Blocks and structured control, under a mask of active threads.

use super::{Machine, Trap};
use crate::kernel::inst::{Block, Inst, Op};
use crate::kernel::types::Val;

impl Machine<'_> {
    pub(super) fn block(&mut self, b: &Block, active: &[bool]) -> Result<(), Trap> {
        for inst in &b.insts {
            match &inst.op {
                Op::For { lo, hi, step, init, body, .. } => {
                    self.for_loop(inst, (*lo, *hi, *step), init, body, active)?;
                }
                Op::If { cond, then, other } => self.branch(inst, *cond, then, other, active)?,
                Op::While { init, cond, body } => self.while_loop(inst, init, cond, body, active)?,
                _ => self.simple(inst, active)?,
            }
        }
        Ok(())
    }

    /// Parallel assignment of whole values in the active threads.
    fn assign(&mut self, to: &[Val], from: &[Val], active: &[bool]) {
        let copies: Vec<Vec<u64>> = from.iter().map(|f| self.vals[f.index()].clone()).collect();
        for (t, data) in to.iter().zip(copies) {
            let n = self.lanes(*t);
            for (thread, _) in active.iter().enumerate().filter(|(_, a)| **a) {
                let at = thread * n..(thread + 1) * n;
                self.vals[t.index()][at.clone()].copy_from_slice(&data[at]);
            }
        }
    }

    fn for_loop(
        &mut self,
        inst: &Inst,
        (lo, hi, step): (Val, Val, Val),
        init: &[Val],
        body: &Block,
        active: &[bool],
    ) -> Result<(), Trap> {
        let (iv, carried) = (body.params[0], &body.params[1..]);
        self.assign(carried, init, active);
        self.assign(&[iv], &[lo], active);
        if let Some(t) = (0..self.threads).find(|&t| active[t] && self.int(step, t) <= 0) {
            return Err(self.trap(inst, format!("loop step {}", self.int(step, t))));
        }
        loop {
            let mask: Vec<bool> =
                (0..self.threads).map(|t| active[t] && self.int(iv, t) < self.int(hi, t)).collect();
            if !mask.contains(&true) {
                break;
            }
            self.block(body, &mask)?;
            self.assign(carried, &body.yields, &mask);
            for t in (0..self.threads).filter(|&t| mask[t]) {
                let next = self
                    .int(iv, t)
                    .checked_add(self.int(step, t))
                    .ok_or_else(|| self.trap(inst, "the loop counter overflows"))?;
                self.vals[iv.index()][t] = next.cast_unsigned();
            }
        }
        self.assign(&inst.outs, carried, active);
        Ok(())
    }

    fn branch(
        &mut self,
        inst: &Inst,
        cond: Val,
        then: &Block,
        other: &Block,
        active: &[bool],
    ) -> Result<(), Trap> {
        for (arm, want) in [(then, 1), (other, 0)] {
            let mask: Vec<bool> =
                (0..self.threads).map(|t| active[t] && self.get(cond, t, 0) == want).collect();
            if mask.contains(&true) {
                self.block(arm, &mask)?;
                self.assign(&inst.outs, &arm.yields, &mask);
            }
        }
        Ok(())
    }

    fn while_loop(
        &mut self,
        inst: &Inst,
        init: &[Val],
        cond: &Block,
        body: &Block,
        active: &[bool],
    ) -> Result<(), Trap> {
        self.assign(&cond.params, init, active);
        let mut mask = active.to_vec();
        loop {
            self.block(cond, &mask)?;
            for (t, m) in mask.iter_mut().enumerate() {
                *m = *m && self.vals[cond.yields[0].index()][t] == 1;
            }
            if !mask.contains(&true) {
                break;
            }
            self.assign(&body.params, &cond.params, &mask);
            self.block(body, &mask)?;
            self.assign(&cond.params, &body.yields, &mask);
        }
        self.assign(&inst.outs, &cond.params, active);
        Ok(())
    }
}
