//! The verifier.
//!
//! It enforces: names are symbols and unique; value ids are in range and defined once; a use is dominated by its definition;
//! types (`rules`); alignments; register types are powers of two of at most [`Ty::MAX_LANES`] lanes; SIMT-only instructions and
//! shared arrays only in SIMT kernels, and `range_lo`/`range_hi` only in CPU kernels; a constant loop step is positive; local
//! arrays fit. It does not prove that indices are in bounds: the interpreter checks that as it runs.

use super::func::{Class, Kernel, KernelModule, Local, ParamKind};
use super::inst::{Block, Op, Special};
use super::print::print_inst_head;
use super::rules;
use super::types::{Space, Ty, Val};
use std::collections::BTreeSet;
use std::fmt;

/// One broken rule.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Invalid {
    pub kernel: String,
    /// The instruction as printed; empty for declarations.
    pub inst: String,
    pub message: String,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "kernel {}: {}", self.kernel, self.message)?;
        if !self.inst.is_empty() {
            write!(f, ": `{}`", self.inst)?;
        }
        Ok(())
    }
}

/// Every finding in a module; empty means valid.
pub fn verify_module(m: &KernelModule) -> Vec<Invalid> {
    let mut out = Vec::new();
    let mut names = BTreeSet::new();
    for k in &m.kernels {
        if !names.insert(&k.name) {
            out.push(Invalid {
                kernel: k.name.clone(),
                inst: String::new(),
                message: "two kernels have this name".into(),
            });
        }
        out.extend(verify(k));
    }
    out
}

/// Every finding in a kernel; empty means valid.
pub fn verify(k: &Kernel) -> Vec<Invalid> {
    let mut v = Verifier { k, found: Vec::new(), defined: vec![false; k.vals.len()], visible: Vec::new() };
    v.declarations();
    v.visible = vec![false; k.vals.len()];
    if !k.body.params.is_empty() || !k.body.yields.is_empty() {
        v.report("", "the body of a kernel has neither parameters nor results");
    }
    v.block(&k.body, 0);
    v.found
}

fn is_symbol(s: &str) -> bool {
    let mut b = s.bytes();
    b.next().is_some_and(|c| c.is_ascii_alphabetic() || c == b'_')
        && b.all(|c| c.is_ascii_alphanumeric() || c == b'_')
}

struct Verifier<'a> {
    k: &'a Kernel,
    found: Vec<Invalid>,
    defined: Vec<bool>,
    visible: Vec<bool>,
}

impl Verifier<'_> {
    fn report(&mut self, inst: &str, message: impl Into<String>) {
        self.found.push(Invalid { kernel: self.k.name.clone(), inst: inst.into(), message: message.into() });
    }

    fn declarations(&mut self) {
        let k = self.k;
        if !is_symbol(&k.name) {
            self.report("", "the name is not a symbol");
        }
        let simt = match k.class {
            Class::Cpu => false,
            Class::Simt { block } => {
                let threads = block.iter().try_fold(1u32, |a, &d| a.checked_mul(d));
                if !threads.is_some_and(|t| (1..=1024).contains(&t)) {
                    self.report("", format!("a block of {block:?} threads; 1 to 1024 are possible"));
                }
                true
            }
        };
        let mut names = BTreeSet::new();
        for n in k.params.iter().map(|p| &p.name).chain(k.locals.iter().map(|l| &l.name)) {
            if !names.insert(n) {
                self.report("", format!("two parameters or arrays are named %{n}"));
            }
        }
        if k.params.len() > usize::from(u16::MAX) || k.locals.len() > usize::from(u16::MAX) {
            self.report("", "too many parameters or arrays");
        }
        for p in &k.params {
            if let ParamKind::Buffer { elem, align, .. } = p.kind
                && (!align.is_power_of_two() || (align as usize) < elem.bytes() || align > 4096)
            {
                self.report("", format!("alignment {align} of %{} ({elem})", p.name));
            }
        }
        let (mut private, mut shared) = (0usize, 0usize);
        for l in &k.locals {
            let size = (l.bytes() + 63) & !63;
            match l.space {
                Space::Private => private = private.saturating_add(size),
                Space::Shared => shared = shared.saturating_add(size),
            }
            if l.len == 0 {
                self.report("", format!("array %{} is empty", l.name));
            }
            if l.space == Space::Shared && !simt {
                self.report("", format!("shared array %{} in a CPU kernel", l.name));
            }
        }
        if private > Local::MAX_PRIVATE_BYTES || shared > Local::MAX_SHARED_BYTES {
            self.report("", format!("arrays take {private} private and {shared} shared bytes"));
        }
        for (i, t) in k.vals.iter().enumerate() {
            if !t.lanes.is_power_of_two() || t.lanes > Ty::MAX_LANES {
                self.report("", format!("v{i} has {} lanes", t.lanes));
            }
        }
    }

    fn define(&mut self, v: Val, at: &str) -> bool {
        match self.defined.get_mut(v.index()) {
            None => {
                self.report(at, format!("{v} is not in the value table"));
                false
            }
            Some(d) if *d => {
                self.report(at, format!("{v} is defined twice"));
                false
            }
            Some(d) => {
                *d = true;
                self.visible[v.index()] = true;
                true
            }
        }
    }

    fn used(&mut self, v: Val, at: &str) -> bool {
        let ok = self.visible.get(v.index()).copied().unwrap_or(false);
        if !ok {
            self.report(at, format!("{v} is used where it is not defined"));
        }
        ok
    }

    /// Definitions of a block are visible in it only.
    fn block(&mut self, b: &Block, depth: usize) {
        if depth > 64 {
            self.report("", "blocks are nested more than 64 deep");
            return;
        }
        let outer = self.visible.clone();
        for &p in &b.params {
            self.define(p, "");
        }
        for inst in &b.insts {
            let at = print_inst_head(self.k, inst);
            let mut ok = true;
            let mut operands = Vec::new();
            inst.op.for_each_operand(|v| operands.push(v));
            for v in operands {
                ok &= self.used(v, &at);
            }
            for nb in inst.op.blocks() {
                self.block(nb, depth + 1);
                let in_table = |v: &Val| v.index() < self.k.vals.len();
                ok &= nb.params.iter().chain(&nb.yields).all(in_table);
            }
            ok &= inst.outs.iter().all(|v| v.index() < self.k.vals.len());
            if ok && let Err(why) = rules::check(self.k, inst) {
                self.report(&at, why);
            }
            self.class(&inst.op, &at, b);
            for &o in &inst.outs {
                self.define(o, &at);
            }
        }
        for &y in &b.yields {
            self.used(y, "");
        }
        self.visible = outer;
    }

    fn class(&mut self, op: &Op, at: &str, block: &Block) {
        let simt = matches!(self.k.class, Class::Simt { .. });
        if op.is_simt() && !simt {
            self.report(at, "SIMT-only instruction in a CPU kernel");
        }
        if simt && matches!(op, Op::Special(Special::RangeLo | Special::RangeHi) | Op::ErrorIf { .. }) {
            self.report(at, "CPU-only instruction in a SIMT kernel");
        }
        if let Op::For { step, .. } = op {
            let konst = block.insts.iter().find(|i| i.outs.first() == Some(step)).map(|i| &i.op);
            if let Some(Op::Const(bits)) = konst
                && bits.first().is_some_and(|&b| b.cast_signed() <= 0)
            {
                self.report(at, "the step is not positive");
            }
        }
    }
}
