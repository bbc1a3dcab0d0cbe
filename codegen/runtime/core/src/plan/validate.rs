//! The rules a plan must keep for the executor to be safe from out-of-range ids and endless recursion.
use super::*;
use alloc::format;
use alloc::vec;
use core::result::Result;

const MAX_DEPTH: u32 = 64;

struct Check<'a> {
    plan: &'a Plan,
    used: Vec<bool>,
}

impl Check<'_> {
    fn id(&self, what: &str, index: usize, len: usize) -> Result<(), String> {
        if index < len { Ok(()) } else { Err(format!("{what} {index} of {len}")) }
    }

    fn expr(&self, e: ExprId) -> Result<(), String> {
        self.id("expression", e.index(), self.plan.exprs.len())
    }

    fn exprs(&self, es: &[ExprId]) -> Result<(), String> {
        es.iter().try_for_each(|&e| self.expr(e))
    }

    fn sym(&self, s: SymId) -> Result<(), String> {
        self.id("symbol", s.index(), self.plan.symbols.len())
    }

    fn error(&self, e: ErrorId) -> Result<(), String> {
        self.id("error", e.index(), self.plan.errors.len())
    }

    fn slot(&self, s: SlotId) -> Result<&Slot, String> {
        self.id("slot", s.index(), self.plan.slots.len())?;
        Ok(&self.plan.slots[s.index()])
    }

    /// A tensor slot; the number of its dims.
    fn tensor(&self, s: SlotId) -> Result<(DType, usize), String> {
        match &self.slot(s)?.kind {
            SlotKind::Tensor { dtype, dims } => Ok((*dtype, dims.len())),
            SlotKind::Object => Err(format!("slot {s} is no tensor")),
        }
    }

    /// A tensor slot that steps may write.
    fn writable(&self, s: SlotId) -> Result<(), String> {
        let mut at = self.slot(s)?;
        while let Place::Alias { slot, .. } = at.place {
            at = self.slot(slot)?;
        }
        match at.place {
            Place::Input(_) | Place::Weights { .. } => Err(format!("slot {s} is written but read-only")),
            _ => Ok(()),
        }
    }

    fn scalar(&self, v: Value) -> Result<(), String> {
        match v {
            Value::Slot(s) => {
                let (dtype, _) = self.tensor(s)?;
                if is_integer(dtype) {
                    Ok(())
                } else {
                    Err(format!("slot {s} of {dtype} is used as an integer"))
                }
            }
            Value::Expr(e) => self.expr(e),
        }
    }

    fn args(&self, args: &[Arg], objects: bool) -> Result<(), String> {
        args.iter().try_for_each(|a| match *a {
            Arg::Slot(s) if objects => self.slot(s).map(|_| ()),
            Arg::Slot(s) => self.tensor(s).map(|_| ()),
            Arg::Scalar(e) => self.expr(e),
        })
    }

    fn axes(&self, syms: &[(SymId, u32)], of: SlotId) -> Result<(), String> {
        syms.iter().try_for_each(|&(s, axis)| {
            self.sym(s)?;
            let (_, rank) = self.tensor(of)?;
            self.id("axis", axis as usize, rank)
        })
    }

    fn block(&mut self, b: BlockId, depth: u32) -> Result<(), String> {
        self.id("block", b.index(), self.plan.blocks.len())?;
        if depth > MAX_DEPTH {
            return Err(format!("blocks are nested deeper than {MAX_DEPTH}"));
        }
        if core::mem::replace(&mut self.used[b.index()], true) {
            return Err(format!("block {b} is used twice"));
        }
        let plan = self.plan;
        plan.blocks[b.index()]
            .steps
            .iter()
            .enumerate()
            .try_for_each(|(i, step)| self.step(step, depth).map_err(|e| format!("{b} step {i}: {e}")))
    }

    fn step(&mut self, step: &Step, depth: u32) -> Result<(), String> {
        match step {
            Step::Launch { kernel, args, extent, grain, round } => {
                self.id("kernel", kernel.index(), self.plan.kernels.len())?;
                self.args(args, false)?;
                self.exprs(&[*extent, *grain])?;
                round.map_or(Ok(()), |r| self.expr(r))?;
                let params = self.plan.kernels[kernel.index()].params as usize;
                if params != args.len() {
                    return Err(format!("{} arguments for the {params} of kernel {kernel}", args.len()));
                }
                Ok(())
            }
            Step::Bind { sym, slot, min, max, error, .. } => {
                self.sym(*sym)?;
                self.scalar(Value::Slot(*slot))?;
                self.exprs(&[*min, *max])?;
                self.error(*error)
            }
            Step::Let { sym, value } => {
                self.sym(*sym)?;
                self.expr(*value)
            }
            Step::Require { cond, error } => {
                self.expr(*cond)?;
                self.error(*error)
            }
            Step::Copy { dst, src } => self.same_kind(*dst, *src),
            Step::Move { dst, src } => match (&self.slot(*dst)?.kind, &self.slot(*src)?.kind) {
                (SlotKind::Object, SlotKind::Object) => Ok(()),
                _ => Err(format!("move of a tensor: {dst} {src}")),
            },
            Step::If { cond, then_, else_ } => {
                self.scalar(*cond)?;
                self.block(*then_, depth + 1)?;
                self.block(*else_, depth + 1)
            }
            Step::Loop(l) => self.loop_(l, depth),
            Step::Call(c) => {
                self.args(&c.args, true)?;
                for &s in &c.outs {
                    self.writable(s)?;
                }
                c.out_syms.iter().try_for_each(|&s| self.sym(s))?;
                self.error(c.error)
            }
            Step::Count { counter, value } => {
                self.id("counter", counter.index(), self.plan.counters.len())?;
                match value {
                    Value::Slot(s) if self.tensor(*s)?.0 != DType::I64 => {
                        Err(format!("slot {s} is counted but not i64"))
                    }
                    v => self.scalar(*v),
                }
            }
        }
    }

    fn same_kind(&self, dst: SlotId, src: SlotId) -> Result<(), String> {
        self.writable(dst)?;
        match (&self.slot(dst)?.kind, &self.slot(src)?.kind) {
            (SlotKind::Object, SlotKind::Object) => Ok(()),
            (SlotKind::Tensor { dtype: a, .. }, SlotKind::Tensor { dtype: b, .. })
                if a.size() == b.size() =>
            {
                Ok(())
            }
            _ => Err(format!("copy between slots of different kinds: {dst} {src}")),
        }
    }

    fn loop_(&mut self, l: &Loop, depth: u32) -> Result<(), String> {
        for v in [l.trip, l.cond, l.body_cond].into_iter().flatten() {
            self.scalar(v)?;
        }
        if let Some(s) = l.iter {
            self.writable(s)?;
            if self.tensor(s)?.0 != DType::I64 {
                return Err(format!("iteration slot {s} is not i64"));
            }
        }
        for s in [l.iter_sym, l.count_sym].into_iter().flatten() {
            self.sym(s)?;
        }
        for c in &l.carried {
            for (dst, src) in [(c.param, c.init), (c.param, c.yielded), (c.result, c.param)] {
                if dst != src {
                    self.same_kind(dst, src)?;
                }
            }
            self.axes(&c.syms, c.param)?;
            self.axes(&c.syms, c.init)?;
            self.axes(&c.syms, c.yielded)?;
            self.axes(&c.result_syms, c.result)?;
        }
        for s in &l.scans {
            self.writable(s.result)?;
            let ((a, x), (b, y)) = (self.tensor(s.yielded)?, self.tensor(s.result)?);
            if a.size() != b.size() || y != x + 1 {
                return Err(format!("scan output {} does not fit {}", s.yielded, s.result));
            }
            self.axes(&s.result_syms, s.result)?;
        }
        self.block(l.body, depth + 1)
    }
}

fn is_integer(d: DType) -> bool {
    use DType::*;
    matches!(d, I8 | I16 | I32 | I64 | U8 | U16 | U32 | U64 | Bool)
}

impl Plan {
    /// Checks that all ids are in range, that expressions and aliases do not form cycles, that each block is used at
    /// most once and nesting is at most 64 deep, that arguments match kernels, that nothing writes an input or a
    /// weight, and that ports, states and loops name slots of the right kind. The message names what is wrong.
    pub fn validate(&self) -> Result<(), String> {
        let mut c = Check { plan: self, used: vec![false; self.blocks.len()] };
        for (i, e) in self.exprs.iter().enumerate() {
            let before = |x: ExprId| {
                if x.index() < i {
                    Ok(())
                } else {
                    Err(format!("expression {i} uses {x}, which is not before it"))
                }
            };
            match *e {
                Expr::Const(_) => {}
                Expr::Sym(s) => c.sym(s)?,
                Expr::Bin(_, a, b) => [a, b].into_iter().try_for_each(before)?,
                Expr::Select(a, b, d) => [a, b, d].into_iter().try_for_each(before)?,
            }
        }
        for (i, s) in self.symbols.iter().enumerate() {
            if s.min > s.max || s.values.iter().any(|v| !s.allows(*v)) {
                return Err(format!("symbol {i} has no values, or some outside its range"));
            }
        }
        for (i, s) in self.slots.iter().enumerate() {
            self.slot_rules(&c, s).map_err(|e| format!("slot {i}: {e}"))?;
        }
        for (dir, ports) in [("input", &self.inputs), ("output", &self.outputs)] {
            for (i, p) in ports.iter().enumerate() {
                port_rules(&c, p).map_err(|e| format!("{dir} {i}: {e}"))?;
            }
        }
        for (i, p) in self.inputs.iter().enumerate() {
            let place = &self.slots[p.slot.index()].place;
            if p.ty.is_dense() && *place != Place::Input(i as u32) {
                return Err(format!("input {i} is not in its own buffer"));
            }
        }
        for &(o, i) in &self.states {
            c.id("state output", o as usize, self.outputs.len())?;
            c.id("state input", i as usize, self.inputs.len())?;
            let (a, b) = (&self.outputs[o as usize], &self.inputs[i as usize]);
            if a.ty != b.ty {
                return Err(format!("state {:?} -> {:?} changes the type", a.name, b.name));
            }
        }
        for k in &self.kernels {
            for e in [k.flops, k.bytes].into_iter().flatten() {
                c.expr(e)?;
            }
        }
        c.block(self.entry, 0)
    }

    fn slot_rules(&self, c: &Check<'_>, s: &Slot) -> Result<(), String> {
        match (&s.kind, &s.place) {
            (SlotKind::Object, Place::Object | Place::Input(_) | Place::Output(_)) => {}
            (SlotKind::Tensor { dtype, dims }, p) if !matches!(p, Place::Object) => {
                if *dtype == DType::String {
                    return Err(String::from("a string tensor is an object"));
                }
                c.exprs(dims)?;
            }
            _ => return Err(String::from("kind and place do not fit")),
        }
        match s.place {
            Place::Input(i) => c.id("input", i as usize, self.inputs.len()),
            Place::Output(i) => c.id("output", i as usize, self.outputs.len()),
            Place::Weights { offset, len } => {
                offset.checked_add(len).map(|_| ()).ok_or_else(|| String::from("weights beyond 2^64"))
            }
            Place::Arena { bytes, first, last } => {
                c.expr(bytes)?;
                if first <= last { Ok(()) } else { Err(String::from("ends before it begins")) }
            }
            Place::Alias { slot, byte_offset } => {
                c.expr(byte_offset)?;
                let mut at = slot;
                for _ in 0..self.slots.len() {
                    match c.slot(at)?.place {
                        Place::Alias { slot, .. } => at = slot,
                        _ => return c.tensor(at).map(|_| ()),
                    }
                }
                Err(String::from("an alias of itself"))
            }
            Place::Heap | Place::Object => Ok(()),
        }
    }
}

fn port_rules(c: &Check<'_>, p: &Port) -> Result<(), String> {
    let slot = c.slot(p.slot)?;
    if let Some(dims) = &p.dims {
        c.exprs(dims)?;
    }
    match (&slot.kind, &p.ty) {
        (SlotKind::Tensor { dtype, dims }, ValueType::Tensor(d)) => {
            if dtype != d {
                return Err(format!("{d} in a slot of {dtype}"));
            }
            if p.dims.as_ref().is_none_or(|x| x.len() != dims.len()) {
                return Err(String::from("rank differs from the slot's"));
            }
            Ok(())
        }
        (SlotKind::Object, ty) if !ty.is_dense() => Ok(()),
        _ => Err(String::from("type differs from the slot's")),
    }
}
