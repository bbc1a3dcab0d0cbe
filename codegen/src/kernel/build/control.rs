//! Loops, conditions and launch values.

use super::{Builder, Frame, Opd};
use crate::kernel::inst::{Axis, Block, CmpOp, Inst, Op, Special};
use crate::kernel::types::{Elem, Ty, Val};

impl Builder {
    /// Builds a nested block with parameters of these types.
    fn block<R>(
        &mut self,
        params: &[Ty],
        f: impl FnOnce(&mut Builder, &[Val]) -> (R, Vec<Val>),
    ) -> (R, Block) {
        let params: Vec<Val> = params.iter().map(|&t| self.new_val(t)).collect();
        self.frames.push(Frame::default());
        let (r, yields) = f(self, &params);
        let frame = self.frames.pop().expect("the block just opened");
        (r, Block { params, insts: frame.insts, yields })
    }

    fn types(&self, vals: &[Val]) -> Vec<Ty> {
        vals.iter().map(|&v| self.ty(v)).collect()
    }

    /// `for (i = lo; i < hi; i += step)` with loop-carried values: `body(b, i, carried)` returns the next ones, the last ones come
    /// back. A loop whose trip count is known to be 0 or 1 is not emitted as a loop.
    pub fn for_(
        &mut self,
        lo: impl Into<Opd>,
        hi: impl Into<Opd>,
        step: impl Into<Opd>,
        init: &[Val],
        body: impl FnOnce(&mut Builder, Val, &[Val]) -> Vec<Val>,
    ) -> Vec<Val> {
        self.for_axis(Axis::Serial, lo, hi, step, init, body)
    }

    /// [`Builder::for_`] with a record of what the axis is.
    pub fn for_axis(
        &mut self,
        axis: Axis,
        lo: impl Into<Opd>,
        hi: impl Into<Opd>,
        step: impl Into<Opd>,
        init: &[Val],
        body: impl FnOnce(&mut Builder, Val, &[Val]) -> Vec<Val>,
    ) -> Vec<Val> {
        let (lo, hi, step) = (self.index(lo), self.index(hi), self.index(step));
        let known = (self.known_int(lo), self.known_int(hi), self.known_int(step));
        if let (Some(l), Some(h), Some(s)) = known
            && s > 0
        {
            if l >= h {
                return init.to_vec();
            }
            if l.checked_add(s).is_some_and(|next| next >= h) {
                let next = body(self, lo, init);
                assert_eq!(self.types(&next), self.types(init), "types of carried values change");
                return next;
            }
        }
        let types = self.types(init);
        let mut params = vec![Ty::I64];
        params.extend(&types);
        let ((), block) = self.block(&params, |b, p| ((), body(b, p[0], &p[1..])));
        let outs: Vec<Val> = types.iter().map(|&t| self.new_val(t)).collect();
        let op = Op::For { axis, lo, hi, step, init: init.to_vec(), body: block };
        self.push(Inst { outs: outs.clone(), op });
        outs
    }

    /// [`Builder::for_`] without carried values.
    pub fn loop_(
        &mut self,
        lo: impl Into<Opd>,
        hi: impl Into<Opd>,
        step: impl Into<Opd>,
        body: impl FnOnce(&mut Builder, Val),
    ) {
        self.for_(lo, hi, step, &[], |b, i, _| {
            body(b, i);
            vec![]
        });
    }

    /// Iterates over the part `lo..hi` of the parallel axis that a call of this CPU kernel does.
    pub fn parallel_for(&mut self, body: impl FnOnce(&mut Builder, Val)) {
        let (lo, hi) = (self.range_lo(), self.range_hi());
        self.for_axis(Axis::Parallel, lo, hi, 1, &[], |b, i, _| {
            body(b, i);
            vec![]
        });
    }

    /// `lo..hi` in vectors of `lanes` elements: `body(b, i, None)` for whole vectors, then at most once `body(b, i, Some(mask))`
    /// for the rest (`mask` true on the lanes below `hi`). With one lane there is no rest.
    pub fn for_lanes(
        &mut self,
        lo: impl Into<Opd>,
        hi: impl Into<Opd>,
        lanes: u16,
        mut body: impl FnMut(&mut Builder, Val, Option<Val>),
    ) {
        let (lo, hi) = (self.index(lo), self.index(hi));
        if lanes == 1 {
            return self.loop_(lo, hi, 1, |b, i| body(b, i, None));
        }
        let n = i64::from(lanes);
        let count = self.sub(hi, lo);
        let count = self.smax(count, 0);
        let whole = self.and(count, -n);
        let end = self.add(lo, whole);
        self.loop_(lo, end, n, |b, i| body(b, i, None));
        let rest = self.and(count, n - 1);
        let some = self.cmp(CmpOp::Sgt, rest, 0);
        self.when(some, |b| {
            let mask = b.mask_below(lanes, rest);
            body(b, end, Some(mask));
        });
    }

    /// A mask of `lanes` lanes, true on the first `n` (`I64`; any value, clamped).
    pub fn mask_below(&mut self, lanes: u16, n: impl Into<Opd>) -> Val {
        let n = self.index(n);
        let n = self.smin(n, i64::from(lanes));
        let n = self.smax(n, 0);
        let n = self.trunc(n, Elem::I32);
        let iota = self.iota(Ty::vec(Elem::I32, lanes));
        self.cmp(CmpOp::Slt, iota, n)
    }

    /// `cond` (scalar `I1`) decides which closure's values come back. A known condition emits no branch.
    pub fn if_(
        &mut self,
        cond: Val,
        then: impl FnOnce(&mut Builder) -> Vec<Val>,
        other: impl FnOnce(&mut Builder) -> Vec<Val>,
    ) -> Vec<Val> {
        match self.known_int(cond) {
            Some(0) => return other(self),
            Some(_) => return then(self),
            None => {}
        }
        let ((), then) = self.block(&[], |b, _| ((), then(b)));
        let ((), other) = self.block(&[], |b, _| ((), other(b)));
        let outs: Vec<Val> = self.types(&then.yields).into_iter().map(|t| self.new_val(t)).collect();
        self.push(Inst { outs: outs.clone(), op: Op::If { cond, then, other } });
        outs
    }

    /// [`Builder::if_`] without results and with nothing in the other arm.
    pub fn when(&mut self, cond: Val, then: impl FnOnce(&mut Builder)) {
        self.if_(
            cond,
            |b| {
                then(b);
                vec![]
            },
            |_| vec![],
        );
    }

    /// While `cond(b, carried)` (scalar `I1`) holds, `body(b, carried)` gives the next values; the last ones come back.
    pub fn while_(
        &mut self,
        init: &[Val],
        cond: impl FnOnce(&mut Builder, &[Val]) -> Val,
        body: impl FnOnce(&mut Builder, &[Val]) -> Vec<Val>,
    ) -> Vec<Val> {
        let types = self.types(init);
        let ((), cond) = self.block(&types, |b, p| ((), vec![cond(b, p)]));
        let ((), body) = self.block(&types, |b, p| ((), body(b, p)));
        let outs: Vec<Val> = types.iter().map(|&t| self.new_val(t)).collect();
        self.push(Inst { outs: outs.clone(), op: Op::While { init: init.to_vec(), cond, body } });
        outs
    }

    /// If `cond` (`I1`; a vector means any lane), records the error `code` in the context; execution goes on.
    pub fn error_if(&mut self, cond: Val, code: i32) {
        let cond = self.any(cond);
        if self.known_int(cond) != Some(0) {
            self.effect(Op::ErrorIf { cond, code });
        }
    }

    fn special(&mut self, s: Special) -> Val {
        self.pure(Op::Special(s), Ty::I64)
    }

    /// First index of this call's part of the parallel axis.
    pub fn range_lo(&mut self) -> Val {
        self.special(Special::RangeLo)
    }

    /// One past the last index of this call's part of the parallel axis.
    pub fn range_hi(&mut self) -> Val {
        self.special(Special::RangeHi)
    }

    /// SIMT: index of the thread in its block along `dim`.
    pub fn thread_id(&mut self, dim: u8) -> Val {
        self.special(Special::ThreadId(dim))
    }

    /// SIMT: index of the block in the grid along `dim`.
    pub fn block_id(&mut self, dim: u8) -> Val {
        self.special(Special::BlockId(dim))
    }

    /// SIMT: threads of a block along `dim`.
    pub fn block_dim(&mut self, dim: u8) -> Val {
        self.special(Special::BlockDim(dim))
    }

    /// SIMT: blocks of the grid along `dim`.
    pub fn grid_dim(&mut self, dim: u8) -> Val {
        self.special(Special::GridDim(dim))
    }

    /// SIMT: `0..n` shared out over the threads of the whole grid (dimension 0), with a grid stride.
    pub fn grid_for(&mut self, n: impl Into<Opd>, body: impl FnOnce(&mut Builder, Val)) {
        let (t, g, d, blocks) = (self.thread_id(0), self.block_id(0), self.block_dim(0), self.grid_dim(0));
        let first = self.mul(g, d);
        let first = self.add(first, t);
        let step = self.mul(blocks, d);
        self.for_axis(Axis::Grid, first, n, step, &[], |b, i, _| {
            body(b, i);
            vec![]
        });
    }

    /// SIMT: waits for all threads of the block, which all must reach it.
    pub fn barrier(&mut self) {
        self.effect(Op::Barrier);
    }
}
