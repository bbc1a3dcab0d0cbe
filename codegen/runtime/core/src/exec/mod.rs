//! Running plans.
//!
//! A [`Program`] is a plan with its weights and code; it is shared. A [`Session`] holds the memory of one caller.
//! Binding inputs checks them and plans the arena; a run then walks the blocks. A straight line of launches is
//! resolved to functions and argument words once and reused while the symbols and addresses it used stay the same.
mod assign;
mod bind;
mod memory;
mod run;
mod scope;
mod segment;
mod session;
mod steps;

use crate::device::Home as Memory;
use crate::error::{Result, fail};
use crate::kernel::Code;
use crate::mem::Buf;
use crate::plan::{
    Arg, Block, BlockId, Expr, ExprId, Exprs, Place, Plan, SlotId, SlotKind, Step, SymId, Value,
};
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::any::Any;

pub use session::{Desc, KernelTime, OutputView, Session, SessionOptions};

/// What keeps memory alive that a program points into.
pub type Keep = Option<Arc<dyn Any + Send + Sync>>;

/// A plan, its code and its weights.
pub struct Program {
    plan: Plan,
    code: Code,
    weights: Weights,
    /// Where tensors are.
    memory: Memory,
    /// The weights on a device.
    _uploaded: Buf,
    _keep: Keep,
    blocks: Vec<Vec<Item>>,
    segments: Vec<Segment>,
    /// Symbols that are no dim of an input: they are bound while the plan runs.
    late_syms: Vec<SymId>,
    /// For each slot where its bytes are at run time.
    homes: Vec<Home>,
    /// Slots in the arena.
    arena: Vec<ArenaSlot>,
    heaps: usize,
    /// For each output whether its size is known when inputs are bound.
    known_outputs: Vec<bool>,
    /// For each block the one it is a body of.
    parents: Vec<Option<BlockId>>,
    /// For each slot the innermost block that holds all its uses, those of its parts included.
    scopes: Vec<Option<BlockId>>,
}

#[derive(Clone, Copy)]
struct Weights {
    ptr: *const u8,
    len: usize,
}

// SAFETY: weights are never written, and `Program::new` requires them to outlive the program.
unsafe impl Send for Weights {}
// SAFETY: as above.
unsafe impl Sync for Weights {}

/// A part of a block.
enum Item {
    Segment(usize),
    Step(usize),
}

/// A straight line: steps `start..end` of a block.
struct Segment {
    block: usize,
    start: usize,
    end: usize,
    /// Symbols its resolved form depends on, sorted.
    deps: Vec<SymId>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Home {
    Input(usize),
    Output(usize),
    Weights { offset: usize, len: usize },
    Arena(usize),
    Heap(usize),
    Alias { slot: SlotId, offset: ExprId },
    Object,
}

struct ArenaSlot {
    bytes: ExprId,
    first: u32,
    last: u32,
}

impl Program {
    /// A program.
    ///
    /// `keep` is held for as long as the program lives.
    ///
    /// # Errors
    /// The plan is not valid, the code has another number of kernels, or the weights are too short.
    ///
    /// # Safety
    /// `weights` is valid for reads of `weights_len` bytes, is aligned to 64 and is not written while the program
    /// lives; native functions are kernels that match the plan's declarations. `keep` may be what ensures this.
    pub unsafe fn new(
        plan: Plan,
        code: Code,
        weights: *const u8,
        weights_len: usize,
        keep: Keep,
    ) -> Result<Program> {
        if let Err(why) = plan.validate() {
            fail!(Program, "the plan is invalid: {why}");
        }
        if let Code::Native(f) = &code
            && f.len() != plan.kernels.len()
        {
            fail!(Program, "the code has {} kernels, the plan {}", f.len(), plan.kernels.len());
        }
        if plan.weights_len() > weights_len as u64 {
            fail!(Program, "the plan needs {} bytes of weights, there are {weights_len}", plan.weights_len());
        }
        let memory = Memory(match &code {
            Code::Host(table) => table.device(),
            Code::Native(_) => None,
        });
        let mut uploaded = Buf::at(&memory);
        let mut place = Weights { ptr: weights, len: weights_len };
        if memory.0.is_some() && weights_len > 0 {
            uploaded.reserve(weights_len)?;
            // SAFETY: the caller vouches for the weights, and the buffer holds as many bytes.
            unsafe { memory.write(uploaded.ptr(), core::slice::from_raw_parts(weights, weights_len))? };
            place.ptr = uploaded.ptr();
        }
        let exprs = Exprs::new(&plan.exprs, plan.symbols.len());
        let mut input_syms = vec![false; plan.symbols.len()];
        // Dims of other inputs are bound by steps of the plan.
        let dense = plan.inputs.iter().filter(|p| p.ty.is_dense());
        for e in dense.flat_map(|p| p.dims.iter().flatten()) {
            if let Expr::Sym(s) = plan.exprs[e.index()] {
                input_syms[s.index()] = true;
            }
        }
        let known = |e: ExprId| exprs.deps(e).iter().all(|s| input_syms[s.index()]);
        let mut arena = Vec::new();
        let mut heaps = 0;
        let mut heap = || {
            heaps += 1;
            Home::Heap(heaps - 1)
        };
        let homes = plan
            .slots
            .iter()
            .map(|s| match s.place {
                Place::Input(i) => Home::Input(i as usize),
                Place::Output(o) => Home::Output(o as usize),
                Place::Weights { offset, len } => {
                    Home::Weights { offset: offset as usize, len: len as usize }
                }
                Place::Arena { bytes, first, last } if known(bytes) => {
                    arena.push(ArenaSlot { bytes, first, last });
                    Home::Arena(arena.len() - 1)
                }
                Place::Arena { .. } | Place::Heap => heap(),
                Place::Alias { slot, byte_offset } => Home::Alias { slot, offset: byte_offset },
                Place::Object => Home::Object,
            })
            .collect();
        let known_outputs = plan
            .outputs
            .iter()
            .map(|p| p.dims.iter().flatten().all(|&d| known(d)) && p.ty.is_dense())
            .collect();
        let late_syms =
            (0..plan.symbols.len()).filter(|&i| !input_syms[i]).map(|i| SymId(i as u32)).collect();
        let mut p = Program {
            plan,
            code,
            weights: place,
            memory,
            _uploaded: uploaded,
            _keep: keep,
            blocks: Vec::new(),
            segments: Vec::new(),
            late_syms,
            homes,
            arena,
            heaps,
            known_outputs,
            parents: Vec::new(),
            scopes: Vec::new(),
        };
        (p.parents, p.scopes) = scope::scopes(&p.plan);
        for b in 0..p.plan.blocks.len() {
            let items = p.cut(&exprs, b);
            p.blocks.push(items);
        }
        Ok(p)
    }

    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Bytes of weights.
    pub fn weights_len(&self) -> usize {
        self.weights.len
    }

    /// Whether all uses of a slot are inside a block and the blocks in it.
    fn is_inside(&self, slot: SlotId, block: BlockId) -> bool {
        let mut at = self.scopes[slot.index()];
        while let Some(b) = at {
            if b == block {
                return true;
            }
            at = self.parents[b.index()];
        }
        false
    }

    /// Whether the shape of an output is known as soon as inputs are bound.
    pub fn output_is_known(&self, o: usize) -> bool {
        self.known_outputs.get(o).copied().unwrap_or(false)
    }

    /// Cuts a block into straight lines and other steps.
    fn cut(&mut self, exprs: &Exprs, block: usize) -> Vec<Item> {
        let mut items = Vec::new();
        let steps: &Block = &self.plan.blocks[block];
        let straight = |s: &Step| match s {
            Step::Launch { .. } | Step::Require { .. } | Step::Count { .. } => true,
            Step::Copy { dst, .. } => matches!(self.plan.slots[dst.index()].kind, SlotKind::Tensor { .. }),
            _ => false,
        };
        let mut i = 0;
        while i < steps.steps.len() {
            let n = steps.steps[i..].iter().take_while(|s| straight(s)).count();
            if n == 0 {
                items.push(Item::Step(i));
                i += 1;
            } else {
                let mut deps = Vec::new();
                steps.steps[i..i + n].iter().for_each(|s| self.step_deps(exprs, s, &mut deps));
                deps.sort_unstable();
                deps.dedup();
                items.push(Item::Segment(self.segments.len()));
                self.segments.push(Segment { block, start: i, end: i + n, deps });
                i += n;
            }
        }
        items
    }

    fn step_deps(&self, exprs: &Exprs, s: &Step, deps: &mut Vec<SymId>) {
        match s {
            Step::Launch { args, extent, grain, round, .. } => {
                for a in args {
                    match *a {
                        Arg::Slot(s) => self.slot_deps(exprs, s, deps),
                        Arg::Scalar(e) => deps.extend_from_slice(exprs.deps(e)),
                    }
                }
                deps.extend_from_slice(exprs.deps(*extent));
                deps.extend_from_slice(exprs.deps(*grain));
                round.iter().for_each(|&r| deps.extend_from_slice(exprs.deps(r)));
            }
            Step::Require { cond, .. } => deps.extend_from_slice(exprs.deps(*cond)),
            Step::Count { value: Value::Slot(s), .. } => self.slot_deps(exprs, *s, deps),
            Step::Count { value: Value::Expr(e), .. } => deps.extend_from_slice(exprs.deps(*e)),
            Step::Copy { dst, src } => {
                self.slot_deps(exprs, *dst, deps);
                self.slot_deps(exprs, *src, deps);
            }
            _ => {}
        }
    }

    /// The symbols that the size and address of a slot depend on.
    fn slot_deps(&self, exprs: &Exprs, mut s: SlotId, deps: &mut Vec<SymId>) {
        loop {
            let slot = &self.plan.slots[s.index()];
            if let SlotKind::Tensor { dims, .. } = &slot.kind {
                dims.iter().for_each(|&d| deps.extend_from_slice(exprs.deps(d)));
            }
            match slot.place {
                Place::Alias { slot, byte_offset } => {
                    deps.extend_from_slice(exprs.deps(byte_offset));
                    s = slot;
                }
                Place::Arena { bytes, .. } => {
                    deps.extend_from_slice(exprs.deps(bytes));
                    return;
                }
                _ => return,
            }
        }
    }
}

#[cfg(test)]
mod tests;
