//! Steps other than straight lines: symbols, conditions, loops, calls.
use super::{Item, Program, Session};
use crate::error::{Result, fail};
use crate::library::{self, Input};
use crate::object::Object;
use crate::plan::{Arg, BlockId, Call, Expr, Loop, SlotId, SlotKind, Step, SymId};
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

impl Session {
    pub(super) fn run_block(&mut self, p: &Program, b: BlockId) -> Result<()> {
        for item in &p.blocks[b.index()] {
            match *item {
                Item::Segment(k) => self.run_segment(p, k)?,
                Item::Step(k) => self.run_step(p, &p.plan.blocks[b.index()].steps[k])?,
            }
        }
        Ok(())
    }

    fn run_step(&mut self, p: &Program, step: &Step) -> Result<()> {
        match step {
            Step::Bind { sym, slot, index, min, max, error } => {
                let v = self.read(p, *slot, *index as usize)?;
                let (lo, hi) = (self.eval(p, *min)?, self.eval(p, *max)?);
                if v < lo || v > hi {
                    fail!(
                        Data,
                        "{} (the value is {v}, allowed is {lo}..={hi})",
                        p.plan.errors[error.index()]
                    );
                }
                self.set_symbol(p, *sym, v)
            }
            Step::Let { sym, value } => {
                let v = self.eval(p, *value)?;
                self.set_symbol(p, *sym, v)
            }
            Step::If { cond, then_, else_ } => {
                let taken = if self.value(p, *cond)? != 0 { *then_ } else { *else_ };
                self.run_block(p, taken)
            }
            Step::Loop(l) => self.run_loop(p, l),
            Step::Call(c) => self.call(p, c),
            Step::Copy { dst, src } => {
                self.objects[dst.index()] = self.objects[src.index()].clone();
                Ok(())
            }
            Step::Move { dst, src } => {
                if dst != src {
                    self.objects[dst.index()] = self.objects[src.index()].take();
                }
                Ok(())
            }
            Step::Launch { .. } | Step::Require { .. } | Step::Count { .. } => {
                fail!(Program, "a step of a straight line stands alone")
            }
        }
    }

    pub(super) fn set_symbol(&mut self, p: &Program, s: SymId, v: i64) -> Result<()> {
        let sym = &p.plan.symbols[s.index()];
        if !sym.values.is_empty() && !sym.allows(v) {
            fail!(Input, "{:?} is {v}, but the model was compiled for {} only", sym.name, sym.allowed());
        }
        if !sym.allows(v) {
            fail!(Data, "{:?} would be {v}, outside its range {}..={}", sym.name, sym.min, sym.max);
        }
        self.exprs.set(&p.plan.exprs, s, Some(v));
        Ok(())
    }

    /// Binds symbols to dims of `from`, evaluated before any of them changes.
    fn dims_of(
        &self,
        p: &Program,
        syms: &[(SymId, u32)],
        from: SlotId,
        out: &mut Vec<(SymId, i64)>,
    ) -> Result<()> {
        if !syms.is_empty() {
            let dims = self.slot_dims(p, from)?;
            out.extend(syms.iter().map(|&(s, axis)| (s, dims[axis as usize])));
        }
        Ok(())
    }

    fn bind_all(&mut self, p: &Program, values: &[(SymId, i64)]) -> Result<()> {
        values.iter().try_for_each(|&(s, v)| self.set_symbol(p, s, v))
    }

    fn run_loop(&mut self, p: &Program, l: &Loop) -> Result<()> {
        let trip = l.trip.map(|v| self.value(p, v)).transpose()?;
        let mut go = l.cond.map_or(Ok(1), |v| self.value(p, v))? != 0;
        let mut syms = Vec::new();
        for c in &l.carried {
            self.dims_of(p, &c.syms, c.init, &mut syms)?;
        }
        let starts: Vec<_> = l.carried.iter().map(|c| (c.param, c.init, false)).collect();
        self.assign(p, &starts)?;
        self.bind_all(p, &syms)?;
        let nexts: Vec<_> =
            l.carried.iter().map(|c| (c.param, c.yielded, p.is_inside(c.yielded, l.body))).collect();
        let mut shapes: Vec<Option<Vec<i64>>> = vec![None; l.scans.len()];
        let mut count = 0i64;
        while go && trip.is_none_or(|t| count < t) {
            match self.steps_left.checked_sub(1) {
                Some(n) => self.steps_left = n,
                None => fail!(
                    Steps,
                    "loops did more than {} iterations, the limit of --max-steps",
                    self.options.max_steps
                ),
            }
            if let Some(s) = l.iter {
                self.ensure(p, s, 8, 0)?;
                let (at, _) = self.place(p, s)?;
                // SAFETY: the slot holds one i64; `ensure` checked the size.
                unsafe { p.memory.write(at, &count.to_ne_bytes())? };
            }
            if let Some(s) = l.iter_sym {
                self.set_symbol(p, s, count)?;
            }
            self.run_block(p, l.body)?;
            go = l.body_cond.map_or(Ok(1), |v| self.value(p, v))? != 0;
            for (k, s) in l.scans.iter().enumerate() {
                self.collect(p, s.yielded, s.result, count, &mut shapes[k])?;
            }
            syms.clear();
            for c in &l.carried {
                self.dims_of(p, &c.syms, c.yielded, &mut syms)?;
            }
            self.assign(p, &nexts)?;
            self.bind_all(p, &syms)?;
            count += 1;
        }
        syms.clear();
        for c in &l.carried {
            self.dims_of(p, &c.result_syms, c.param, &mut syms)?;
        }
        let ends: Vec<_> =
            l.carried.iter().map(|c| (c.result, c.param, p.is_inside(c.param, l.body))).collect();
        self.assign(p, &ends)?;
        for (k, s) in l.scans.iter().enumerate() {
            let SlotKind::Tensor { dims, .. } = &p.plan.slots[s.yielded.index()].kind else { continue };
            for &(sym, axis) in &s.result_syms {
                let v = match (axis as usize).checked_sub(1) {
                    None => count,
                    Some(a) => match &shapes[k] {
                        Some(shape) => shape[a],
                        None => self.exprs.get(dims[a]).unwrap_or(0),
                    },
                };
                syms.push((sym, v));
            }
        }
        syms.extend(l.count_sym.map(|s| (s, count)));
        self.bind_all(p, &syms)
    }

    /// Appends what an iteration yielded to a collected output.
    fn collect(
        &mut self,
        p: &Program,
        from: SlotId,
        to: SlotId,
        count: i64,
        shape: &mut Option<Vec<i64>>,
    ) -> Result<()> {
        let dims = self.slot_dims(p, from)?;
        match shape {
            Some(first) if *first != dims => {
                fail!(
                    Data,
                    "a loop output has the shape {dims:?} after one iteration and {first:?} after another"
                )
            }
            Some(_) => {}
            None => *shape = Some(dims),
        }
        let (_, bytes) = self.slot_bytes(p, from)?;
        let done = usize::try_from(count).ok().and_then(|c| c.checked_mul(bytes));
        let Some((done, end)) = done.and_then(|d| Some((d, d.checked_add(bytes)?))) else {
            fail!(Memory, "a loop output is too large")
        };
        self.ensure(p, to, end, done)?;
        let (src, dst) = (self.place(p, from)?.0, self.place(p, to)?.0);
        // SAFETY: `from` holds `bytes`, and `ensure` made `to` hold `done + bytes`.
        unsafe { p.memory.copy(dst.add(done), src, bytes) }
    }

    /// The next number of the random stream (SplitMix64).
    fn random(&mut self) -> i64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = self.random;
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)).cast_signed()
    }

    fn call(&mut self, p: &Program, c: &Call) -> Result<()> {
        if c.func == library::RANDOM {
            for &s in &c.out_syms {
                let v = self.random();
                self.set_symbol(p, s, v)?;
            }
            return Ok(());
        }
        let mut args = Vec::with_capacity(c.args.len());
        for a in &c.args {
            args.push(match *a {
                Arg::Scalar(e) => Input::Scalar(self.eval(p, e)?),
                Arg::Slot(s) => match p.plan.slots[s.index()].kind {
                    SlotKind::Object => match self.objects[s.index()].clone() {
                        Some(v) => Input::Object(v),
                        None => fail!(Program, "object {s} is used before it is written"),
                    },
                    SlotKind::Tensor { .. } => {
                        let (dtype, dims, data) = self.slot_data(p, s)?;
                        Input::Object(Arc::new(Object::Tensor(crate::object::Tensor { dtype, dims, data })))
                    }
                },
            });
        }
        // An object that the call replaces is taken out, so that the function may change it in place.
        for s in &c.outs {
            self.objects[s.index()] = None;
        }
        let results = match library::call(c, args) {
            Ok(r) => r,
            Err(e) if e.message.is_empty() => fail!(Data, "{}", p.plan.errors[c.error.index()]),
            Err(e) => return Err(e),
        };
        if results.len() != c.outs.len() {
            fail!(
                Program,
                "{} returned {} values, not {}",
                library::name(c.func),
                results.len(),
                c.outs.len()
            );
        }
        for (&out, value) in c.outs.iter().zip(&results) {
            if let (SlotKind::Tensor { dims, .. }, Some(shape)) =
                (&p.plan.slots[out.index()].kind, value.dims())
            {
                if dims.len() != shape.len() {
                    fail!(
                        Data,
                        "{} returned shape {shape:?}, not rank {}",
                        library::name(c.func),
                        dims.len()
                    );
                }
                for (&d, &v) in dims.iter().zip(shape) {
                    if let Expr::Sym(s) = p.plan.exprs[d.index()]
                        && c.out_syms.contains(&s)
                    {
                        self.set_symbol(p, s, v)?;
                    }
                }
            }
        }
        for (&out, value) in c.outs.iter().zip(results) {
            match (&p.plan.slots[out.index()].kind, &*value) {
                (SlotKind::Object, _) => self.objects[out.index()] = Some(value),
                (SlotKind::Tensor { dtype, .. }, Object::Tensor(t)) => {
                    let dims = self.slot_dims(p, out)?;
                    if *dtype != t.dtype || dims != t.dims {
                        fail!(
                            Data,
                            "{} returned {} of shape {:?}, not {dtype} of {dims:?}",
                            library::name(c.func),
                            t.dtype,
                            t.dims
                        );
                    }
                    self.ensure(p, out, t.data.len(), 0)?;
                    let (to, _) = self.place(p, out)?;
                    // SAFETY: `ensure` made the slot hold the bytes.
                    unsafe { p.memory.write(to, &t.data)? };
                }
                _ => fail!(Program, "{} returned no tensor", library::name(c.func)),
            }
        }
        Ok(())
    }
}
