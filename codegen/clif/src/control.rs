//! Structured control to blocks with parameters.

use crate::emit::{Emitter, PLAIN, Reg};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{self, BlockArg, InstBuilder, Value, types};
use planish_codegen::kernel::{Block, Val};

fn args(vals: &[Value]) -> Vec<BlockArg> {
    vals.iter().map(|v| BlockArg::Value(*v)).collect()
}

impl Emitter<'_, '_> {
    fn flat(&self, vals: &[Val]) -> Vec<Value> {
        vals.iter().flat_map(|v| self.regs[v.index()].iter().copied()).collect()
    }

    /// Gives `block` the parameters that hold these values and binds them.
    fn bind(&mut self, block: ir::Block, vals: &[Val]) {
        for v in vals {
            let types = Self::parts(self.ty(*v));
            let reg: Reg = types.into_iter().map(|t| self.b.append_block_param(block, t)).collect();
            self.regs[v.index()] = reg;
        }
    }

    pub(crate) fn for_loop(
        &mut self,
        outs: &[Val],
        (lo, hi, step): (Val, Val, Val),
        init: &[Val],
        body: &Block,
    ) {
        let (head, work, exit) = (self.b.create_block(), self.b.create_block(), self.b.create_block());
        let (lo, hi, step) = (self.scalar(lo), self.scalar(hi), self.scalar(step));
        let mut first = vec![lo];
        first.extend(self.flat(init));
        self.b.ins().jump(head, &args(&first));
        self.bind(head, &body.params);
        self.b.switch_to_block(head);
        let iv = self.scalar(body.params[0]);
        let go = self.b.ins().icmp(IntCC::SignedLessThan, iv, hi);
        let carried = self.flat(&body.params[1..]);
        self.b.ins().brif(go, work, &[], exit, &args(&carried));
        self.b.switch_to_block(work);
        self.b.seal_block(work);
        self.block(body);
        let next = self.b.ins().iadd(iv, step);
        let mut again = vec![next];
        again.extend(self.flat(&body.yields));
        self.b.ins().jump(head, &args(&again));
        self.b.seal_block(head);
        self.bind(exit, outs);
        self.b.switch_to_block(exit);
        self.b.seal_block(exit);
    }

    pub(crate) fn branch(&mut self, outs: &[Val], cond: Val, then: &Block, other: &Block) {
        let (yes, no, join) = (self.b.create_block(), self.b.create_block(), self.b.create_block());
        let c = self.scalar(cond);
        self.b.ins().brif(c, yes, &[], no, &[]);
        for (block, arm) in [(yes, then), (no, other)] {
            self.b.switch_to_block(block);
            self.b.seal_block(block);
            self.block(arm);
            let out = self.flat(&arm.yields);
            self.b.ins().jump(join, &args(&out));
        }
        self.bind(join, outs);
        self.b.switch_to_block(join);
        self.b.seal_block(join);
    }

    pub(crate) fn while_loop(&mut self, outs: &[Val], init: &[Val], cond: &Block, body: &Block) {
        let (head, work, exit) = (self.b.create_block(), self.b.create_block(), self.b.create_block());
        let first = self.flat(init);
        self.b.ins().jump(head, &args(&first));
        self.bind(head, &cond.params);
        self.b.switch_to_block(head);
        self.block(cond);
        let go = self.scalar(cond.yields[0]);
        let carried = self.flat(&cond.params);
        self.b.ins().brif(go, work, &[], exit, &args(&carried));
        for (p, c) in body.params.iter().zip(&cond.params) {
            self.regs[p.index()] = self.regs[c.index()].clone();
        }
        self.b.switch_to_block(work);
        self.b.seal_block(work);
        self.block(body);
        let again = self.flat(&body.yields);
        self.b.ins().jump(head, &args(&again));
        self.b.seal_block(head);
        self.bind(exit, outs);
        self.b.switch_to_block(exit);
        self.b.seal_block(exit);
    }

    /// The error word is the first `i32` of the context.
    pub(crate) fn error_if(&mut self, cond: Val, code: i32) {
        let (bad, after) = (self.b.create_block(), self.b.create_block());
        let c = self.scalar(cond);
        self.b.set_cold_block(bad);
        self.b.ins().brif(c, bad, &[], after, &[]);
        self.b.switch_to_block(bad);
        self.b.seal_block(bad);
        let code = self.b.ins().iconst(types::I32, i64::from(code));
        self.b.ins().store(PLAIN, code, self.ctx, 0);
        self.b.ins().jump(after, &[]);
        self.b.switch_to_block(after);
        self.b.seal_block(after);
    }
}
