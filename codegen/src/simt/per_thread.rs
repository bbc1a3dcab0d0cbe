//! Kernels of the CPU shape on a grid: every unit of the parallel axis is one thread's.

use super::Grid;
use crate::kernel::{
    Access, Axis, BinOp, Block, Buf, Builder, Class, Elem, Inst, Kernel, Op, Param, ParamKind, Special, Ty,
    Val,
};
use std::collections::HashMap;

/// Threads of a block.
pub const THREADS: u32 = 128;

/// Parameters that follow those of the kernel: first unit, one past the last, address of the error word (`i32`).
pub const EXTRA_PARAMS: usize = 3;

/// The grid for a launch over `extent` of the parallel axis with blocks of `threads`; none if it would be larger than grids can be.
pub fn grid(extent: u64, threads: u32) -> Option<Grid> {
    let blocks = u32::try_from(extent.div_ceil(threads.into())).ok()?;
    (blocks <= i32::MAX.cast_unsigned()).then_some([blocks.max(1), 1, 1])
}

/// A CPU kernel as a SIMT kernel of blocks of `threads`, with the parameters of [`EXTRA_PARAMS`] at its end. Thread `t` of all
/// `n` of the grid does the units `lo + t`, `lo + t + n`, and so on; so any grid works. A unit must not depend on others, as on a
/// CPU. Local arrays are each thread's own.
pub fn per_thread(mut k: Kernel, threads: u32) -> Kernel {
    debug_assert_eq!(k.class, Class::Cpu);
    k.class = Class::Simt { block: [threads, 1, 1] };
    let first_param = k.params.len() as u16;
    for name in ["range_lo", "range_hi"] {
        k.params.push(Param { name: name.into(), kind: ParamKind::Scalar });
    }
    let kind = ParamKind::Buffer { elem: Elem::I32, access: Access::ReadWrite, align: 4, may_alias: true };
    k.params.push(Param { name: "error_word".into(), kind });
    let mut head = Vec::new();
    let mut add = |op: Op| {
        let v = Val(k.vals.len() as u32);
        k.vals.push(Ty::I64);
        head.push(Inst { outs: vec![v], op });
        v
    };
    let (lo, hi) = (add(Op::Param(first_param)), add(Op::Param(first_param + 1)));
    let thread = add(Op::Special(Special::ThreadId(0)));
    let block = add(Op::Special(Special::BlockId(0)));
    let width = add(Op::Special(Special::BlockDim(0)));
    let blocks = add(Op::Special(Special::GridDim(0)));
    let before = add(Op::Binary(BinOp::Mul, block, width));
    let own = add(Op::Binary(BinOp::Add, before, thread));
    let first = add(Op::Binary(BinOp::Add, lo, own));
    let stride = add(Op::Binary(BinOp::Mul, blocks, width));
    let zero = add(Op::Const(vec![0]));
    let mut t = Translation {
        vals: &mut k.vals,
        renamed: HashMap::new(),
        first,
        hi,
        stride,
        zero,
        error: Buf::Param(first_param + 2),
    };
    t.block(&mut k.body);
    head.append(&mut k.body.insts);
    k.body.insts = head;
    k
}

struct Translation<'k> {
    vals: &'k mut Vec<Ty>,
    /// Values of the launch range, and what stands for them.
    renamed: HashMap<Val, Val>,
    first: Val,
    hi: Val,
    stride: Val,
    zero: Val,
    error: Buf,
}

impl Translation<'_> {
    fn block(&mut self, b: &mut Block) {
        let mut out = Vec::with_capacity(b.insts.len());
        for mut inst in std::mem::take(&mut b.insts) {
            let range = match inst.op {
                Op::Special(Special::RangeLo) => Some(self.first),
                Op::Special(Special::RangeHi) => Some(self.hi),
                _ => None,
            };
            if let Some(v) = range {
                self.renamed.extend(inst.outs.iter().map(|o| (*o, v)));
                continue;
            }
            inst.op.map_operands(|v| self.renamed.get(&v).copied().unwrap_or(v));
            for nested in inst.op.blocks_mut() {
                self.block(nested);
            }
            match &mut inst.op {
                Op::For { axis: axis @ Axis::Parallel, step, .. } => {
                    *axis = Axis::Grid;
                    *step = self.stride;
                }
                Op::ErrorIf { cond, code } => inst.op = self.error_if(*cond, *code),
                _ => {}
            }
            out.push(inst);
        }
        b.insts = out;
        for y in &mut b.yields {
            *y = self.renamed.get(y).copied().unwrap_or(*y);
        }
    }

    fn error_if(&mut self, cond: Val, code: i32) -> Op {
        let v = Val(self.vals.len() as u32);
        self.vals.push(Ty::I32);
        let bits = u64::from(code.cast_unsigned());
        let insts = vec![
            Inst { outs: vec![v], op: Op::Const(vec![bits]) },
            Inst {
                outs: vec![],
                op: Op::Store { buf: self.error, idx: self.zero, val: v, align: 4, mask: None },
            },
        ];
        let then = Block { insts, ..Block::default() };
        Op::If { cond, then, other: Block::default() }
    }
}

/// Ends a SIMT kernel whose blocks do a unit each, with the same parameters of [`EXTRA_PARAMS`]: it needs none of them.
pub fn with_range(mut b: Builder) -> Kernel {
    for name in ["range_lo", "range_hi"] {
        b.scalar(name);
    }
    let error = b.inout("error_word", Elem::I32);
    b.may_alias(error);
    b.finish()
}
