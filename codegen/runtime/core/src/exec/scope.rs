//! In which block the uses of a slot are.
use crate::plan::{Arg, BlockId, Place, Plan, SlotId, Step, Value};
use alloc::vec;
use alloc::vec::Vec;

struct Scopes<'a> {
    plan: &'a Plan,
    parents: Vec<Option<BlockId>>,
    depths: Vec<u32>,
    scopes: Vec<Option<BlockId>>,
}

/// For each block its parent, and for each slot the innermost block that holds all its uses.
pub(super) fn scopes(plan: &Plan) -> (Vec<Option<BlockId>>, Vec<Option<BlockId>>) {
    let n = plan.blocks.len();
    let mut s =
        Scopes { plan, parents: vec![None; n], depths: vec![0; n], scopes: vec![None; plan.slots.len()] };
    s.block(plan.entry);
    for p in plan.inputs.iter().chain(&plan.outputs) {
        s.used(p.slot, plan.entry);
    }
    (s.parents, s.scopes)
}

impl Scopes<'_> {
    fn used(&mut self, mut slot: SlotId, block: BlockId) {
        loop {
            let mut at = block;
            if let Some(mut other) = self.scopes[slot.index()] {
                while at != other {
                    let up = |b: BlockId| self.parents[b.index()].unwrap_or(self.plan.entry);
                    if self.depths[at.index()] >= self.depths[other.index()] {
                        at = up(at);
                    } else {
                        other = up(other);
                    }
                }
            }
            self.scopes[slot.index()] = Some(at);
            match self.plan.slots[slot.index()].place {
                Place::Alias { slot: next, .. } => slot = next,
                _ => return,
            }
        }
    }

    fn value(&mut self, v: Option<Value>, block: BlockId) {
        if let Some(Value::Slot(s)) = v {
            self.used(s, block);
        }
    }

    fn child(&mut self, block: BlockId, parent: BlockId) {
        self.parents[block.index()] = Some(parent);
        self.depths[block.index()] = self.depths[parent.index()] + 1;
        self.block(block);
    }

    fn block(&mut self, b: BlockId) {
        let plan = self.plan;
        for step in &plan.blocks[b.index()].steps {
            match step {
                Step::Launch { args, .. } => self.args(args, b),
                Step::Bind { slot, .. } => self.used(*slot, b),
                Step::Let { .. } | Step::Require { .. } => {}
                Step::Count { value, .. } => self.value(Some(*value), b),
                Step::Copy { dst, src } | Step::Move { dst, src } => {
                    self.used(*dst, b);
                    self.used(*src, b);
                }
                Step::If { cond, then_, else_ } => {
                    self.value(Some(*cond), b);
                    self.child(*then_, b);
                    self.child(*else_, b);
                }
                Step::Loop(l) => {
                    self.value(l.trip, b);
                    self.value(l.cond, b);
                    self.child(l.body, b);
                    self.value(l.body_cond, l.body);
                    self.value(l.iter.map(Value::Slot), l.body);
                    for c in &l.carried {
                        self.used(c.init, b);
                        self.used(c.result, b);
                        self.used(c.param, l.body);
                        self.used(c.yielded, l.body);
                    }
                    for s in &l.scans {
                        self.used(s.result, b);
                        self.used(s.yielded, l.body);
                    }
                }
                Step::Call(c) => {
                    self.args(&c.args, b);
                    c.outs.iter().for_each(|&s| self.used(s, b));
                }
            }
        }
    }

    fn args(&mut self, args: &[Arg], b: BlockId) {
        for a in args {
            if let Arg::Slot(s) = *a {
                self.used(s, b);
            }
        }
    }
}
