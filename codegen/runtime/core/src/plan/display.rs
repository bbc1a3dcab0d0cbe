//! The readable form of a plan.
use super::*;
use core::fmt::{self, Display, Formatter};

impl Display for ValueType {
    /// As ONNX writes it, such as `seq(tensor(float))`.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            ValueType::Tensor(d) => write!(f, "tensor({})", d.onnx_name()),
            ValueType::Sequence(t) => write!(f, "seq({t})"),
            ValueType::Optional(t) => write!(f, "optional({t})"),
            ValueType::Map(k, v) => write!(f, "map({}, {v})", k.onnx_name()),
        }
    }
}

/// An expression written out with the names of its symbols, in parentheses where needed.
struct Shown<'a>(&'a Plan, ExprId, u32);

impl Display for Shown<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Shown(p, id, depth) = *self;
        let sub = |e| Shown(p, e, depth + 1);
        if depth > 8 {
            return write!(f, "{id}");
        }
        match p.exprs[id.index()] {
            Expr::Const(v) => write!(f, "{v}"),
            Expr::Sym(s) => write!(f, "{}", p.symbols[s.index()].name),
            Expr::Select(c, a, b) => write!(f, "select({}, {}, {})", sub(c), sub(a), sub(b)),
            Expr::Bin(op, a, b) => {
                let (a, b) = (sub(a), sub(b));
                let infix = match op {
                    BinOp::Add => "+",
                    BinOp::Sub => "-",
                    BinOp::Mul => "*",
                    BinOp::Eq => "==",
                    BinOp::Ne => "!=",
                    BinOp::Lt => "<",
                    BinOp::Le => "<=",
                    BinOp::And => "&&",
                    BinOp::Or => "||",
                    BinOp::FloorDiv => return write!(f, "floordiv({a}, {b})"),
                    BinOp::CeilDiv => return write!(f, "ceildiv({a}, {b})"),
                    BinOp::Mod => return write!(f, "mod({a}, {b})"),
                    BinOp::Min => return write!(f, "min({a}, {b})"),
                    BinOp::Max => return write!(f, "max({a}, {b})"),
                };
                if depth > 0 { write!(f, "({a} {infix} {b})") } else { write!(f, "{a} {infix} {b}") }
            }
        }
    }
}

struct List<T>(T);

impl<T: Iterator + Clone> Display for List<T>
where
    T::Item: Display,
{
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (i, x) in self.0.clone().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            write!(f, "{x}")?;
        }
        Ok(())
    }
}

impl Plan {
    /// An expression for people, with the names of its symbols.
    pub fn show_expr(&self, e: ExprId) -> impl Display + '_ {
        Shown(self, e, 0)
    }

    fn show_dims<'a>(&'a self, dims: &'a [ExprId]) -> impl Display + 'a {
        List(dims.iter().map(|&d| Shown(self, d, 0)))
    }

    fn show_arg(&self, a: Arg) -> String {
        match a {
            Arg::Slot(s) => alloc::format!("{s}"),
            Arg::Scalar(e) => alloc::format!("{}", Shown(self, e, 0)),
        }
    }

    fn show_value(&self, v: Value) -> String {
        match v {
            Value::Slot(s) => alloc::format!("{s}"),
            Value::Expr(e) => alloc::format!("{}", Shown(self, e, 0)),
        }
    }

    fn show_slot(&self, f: &mut Formatter<'_>, id: SlotId) -> fmt::Result {
        let s = &self.slots[id.index()];
        write!(f, "  {id}: ")?;
        match &s.kind {
            SlotKind::Tensor { dtype, dims } => write!(f, "{dtype}[{}]", self.show_dims(dims))?,
            SlotKind::Object => f.write_str("object")?,
        }
        match &s.place {
            Place::Input(i) => writeln!(f, " in input {i}"),
            Place::Output(i) => writeln!(f, " in output {i}"),
            Place::Weights { offset, len } => writeln!(f, " in weights {offset}+{len}"),
            Place::Arena { bytes, first, last } => {
                writeln!(f, " in arena, {} bytes, {first}..={last}", Shown(self, *bytes, 0))
            }
            Place::Heap => writeln!(f, " on heap"),
            Place::Alias { slot, byte_offset } => {
                writeln!(f, " in {slot} + {}", Shown(self, *byte_offset, 0))
            }
            Place::Object => writeln!(f),
        }
    }

    fn show_block(&self, f: &mut Formatter<'_>, b: BlockId, indent: usize) -> fmt::Result {
        self.blocks[b.index()].steps.iter().try_for_each(|s| self.show_step(f, s, indent))
    }

    fn show_step(&self, f: &mut Formatter<'_>, step: &Step, indent: usize) -> fmt::Result {
        let x = |e: ExprId| Shown(self, e, 0);
        let args = |list: &[Arg]| {
            let shown: Vec<String> = list.iter().map(|&a| self.show_arg(a)).collect();
            shown.join(", ")
        };
        let syms = |list: &[(SymId, u32)], of: SlotId| {
            let shown: Vec<String> = list
                .iter()
                .map(|&(s, axis)| alloc::format!("{} = {of}.{axis}", self.symbols[s.index()].name))
                .collect();
            if shown.is_empty() { String::new() } else { alloc::format!(" [{}]", shown.join(", ")) }
        };
        write!(f, "{:indent$}", "")?;
        match step {
            Step::Launch { kernel, args: a, extent, grain, round } => {
                let name = &self.kernels[kernel.index()].name;
                write!(f, "{name}({}) over {} by {}", args(a), x(*extent), x(*grain))?;
                match round {
                    Some(r) => writeln!(f, " in rounds of {}", x(*r)),
                    None => writeln!(f),
                }
            }
            Step::Bind { sym, slot, index, min, max, .. } => {
                let name = &self.symbols[sym.index()].name;
                writeln!(f, "bind {name} = {slot}[{index}] in {}..={}", x(*min), x(*max))
            }
            Step::Let { sym, value } => writeln!(f, "let {} = {}", self.symbols[sym.index()].name, x(*value)),
            Step::Require { cond, error } => {
                writeln!(f, "require {} else {:?}", x(*cond), self.errors[error.index()])
            }
            Step::Copy { dst, src } => writeln!(f, "{dst} := {src}"),
            Step::Move { dst, src } => writeln!(f, "{dst} := move {src}"),
            Step::If { cond, then_, else_ } => {
                writeln!(f, "if {} {{", self.show_value(*cond))?;
                self.show_block(f, *then_, indent + 2)?;
                writeln!(f, "{:indent$}}} else {{", "")?;
                self.show_block(f, *else_, indent + 2)?;
                writeln!(f, "{:indent$}}}", "")
            }
            Step::Loop(l) => {
                f.write_str("loop")?;
                if let Some(v) = l.trip {
                    write!(f, " {} times", self.show_value(v))?;
                }
                if let Some(v) = l.cond {
                    write!(f, " if {}", self.show_value(v))?;
                }
                if let Some(s) = l.iter {
                    write!(f, " iter {s}")?;
                }
                if let Some(s) = l.iter_sym {
                    write!(f, " iter {}", self.symbols[s.index()].name)?;
                }
                writeln!(f, " {{")?;
                for c in &l.carried {
                    writeln!(f, "{:indent$}  carry {} := {}{}", "", c.param, c.init, syms(&c.syms, c.init))?;
                }
                self.show_block(f, l.body, indent + 2)?;
                for c in &l.carried {
                    writeln!(f, "{:indent$}  next {} := {}", "", c.param, c.yielded)?;
                }
                for s in &l.scans {
                    writeln!(f, "{:indent$}  collect {} into {}", "", s.yielded, s.result)?;
                }
                if let Some(v) = l.body_cond {
                    writeln!(f, "{:indent$}  while {}", "", self.show_value(v))?;
                }
                write!(f, "{:indent$}}}", "")?;
                for c in &l.carried {
                    write!(f, " {} := {}{}", c.result, c.param, syms(&c.result_syms, c.result))?;
                }
                for s in &l.scans {
                    write!(f, "{}", syms(&s.result_syms, s.result))?;
                }
                writeln!(f)
            }
            Step::Call(c) => {
                let outs = List(c.outs.iter());
                write!(f, "{outs} = call {}({})", crate::library::name(c.func), args(&c.args))?;
                if !c.out_syms.is_empty() {
                    write!(f, " binds {}", List(c.out_syms.iter().map(|s| &self.symbols[s.index()].name)))?;
                }
                if !c.attrs.is_empty() {
                    write!(f, " {:?}", c.attrs)?;
                }
                if !c.fattrs.is_empty() {
                    write!(f, " {:?}", c.fattrs)?;
                }
                if !c.sattrs.is_empty() {
                    write!(f, " {:?}", c.sattrs)?;
                }
                writeln!(f)
            }
            Step::Count { counter, value } => {
                write!(f, "count {} += ", self.counters[counter.index()])?;
                match value {
                    Value::Slot(s) => writeln!(f, "{s}[0]"),
                    Value::Expr(e) => writeln!(f, "{}", x(*e)),
                }
            }
        }
    }
}

impl Display for Plan {
    /// The plan for people. The plan must be valid.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "plan {:?}", self.meta.name)?;
        for s in &self.symbols {
            if !s.values.is_empty() {
                writeln!(f, "symbol {}", s.allowed())?;
                continue;
            }
            if s.max == i64::MAX {
                writeln!(f, "symbol {} >= {}", s.name, s.min)?;
            } else {
                writeln!(f, "symbol {} in {}..={}", s.name, s.min, s.max)?;
            }
        }
        for (dir, ports) in [("input", &self.inputs), ("output", &self.outputs)] {
            for p in ports {
                write!(f, "{dir} {:?}: {}", p.name, p.ty)?;
                if let Some(d) = &p.dims {
                    write!(f, " [{}]", self.show_dims(d))?;
                }
                writeln!(f, " = {}", p.slot)?;
            }
        }
        for &(o, i) in &self.states {
            writeln!(f, "state {:?} -> {:?}", self.outputs[o as usize].name, self.inputs[i as usize].name)?;
        }
        writeln!(f, "slots {{")?;
        for i in 0..self.slots.len() {
            self.show_slot(f, SlotId(i as u32))?;
        }
        writeln!(f, "}}\nrun {{")?;
        self.show_block(f, self.entry, 2)?;
        writeln!(f, "}}")
    }
}
