//! Printing. Values are renumbered in the order of their definition, so that ids of a session never show.

use super::{VERSION, payload, symbol_name, write_quoted};
use crate::diag::Loc;
use crate::dim::SymOrigin;
use crate::graph::{Graph, NodeId, RegionId, ValueId};
use crate::op::Op;
use crate::types::{Quant, Type};
use std::collections::HashMap;
use std::fmt::Write;

/// How to print.
#[derive(Clone, Copy, Debug, Default)]
pub struct PrintOptions {
    /// Constants with more elements print as a summary that cannot be parsed.
    pub elide: Option<usize>,
    /// Leaves out locations.
    pub no_locations: bool,
}

/// The graph as text that [`super::parse`] reads back.
pub fn print(graph: &Graph) -> String {
    print_with(graph, PrintOptions::default())
}

/// The graph as text, with options.
pub fn print_with(graph: &Graph, options: PrintOptions) -> String {
    let mut p = Printer { g: graph, options, out: String::new(), ids: HashMap::new() };
    p.graph();
    p.out
}

struct Printer<'g> {
    g: &'g Graph,
    options: PrintOptions,
    out: String,
    ids: HashMap<ValueId, usize>,
}

impl Printer<'_> {
    fn graph(&mut self) {
        let _ = writeln!(self.out, "planish-ir {VERSION}");
        self.symbols();
        self.out.push_str("graph @");
        write_quoted(&self.g.name, &mut self.out);
        self.params(self.g.root());
        self.out.push_str(" {\n");
        self.body(self.g.root(), 1, "return");
        for s in &self.g.states {
            let _ = writeln!(self.out, "  state {} -> {}", s.output, s.input);
        }
        self.out.push_str("}\n");
    }
    /// Only symbols that say more than their name.
    fn symbols(&mut self) {
        for (_, s) in self.g.symbols.iter() {
            let _ = write!(self.out, "sym {} {}..", symbol_name(&s.name), s.min);
            if let Some(m) = s.max {
                let _ = write!(self.out, "{m}");
            }
            self.out.push_str(if s.origin == SymOrigin::Data { " data\n" } else { "\n" });
        }
    }
    fn define(&mut self, v: ValueId) {
        let n = self.ids.len();
        self.ids.insert(v, n);
        self.value(v);
    }
    fn value(&mut self, v: ValueId) {
        match self.ids.get(&v) {
            Some(i) => {
                let _ = write!(self.out, "v{i}");
            }
            None => {
                let _ = write!(self.out, "?{v}");
            }
        }
    }
    fn name(&mut self, v: ValueId) {
        if let Some(n) = &self.g.value(v).name {
            self.out.push(' ');
            write_quoted(n, &mut self.out);
        }
    }
    fn ty(&mut self, ty: &Type) {
        if let Type::Tensor(t) = ty
            && let Some(q) = &t.quant
        {
            let mut plain = t.clone();
            plain.quant = None;
            let _ = write!(self.out, "{}", Type::from(plain).display(&self.g.symbols));
            self.quant(q);
            return;
        }
        let _ = write!(self.out, "{}", ty.display(&self.g.symbols));
    }
    fn quant(&mut self, q: &Quant) {
        let (g, mut text) = (self.g, String::new());
        payload::print(g.constant(q.scale), None, &mut text);
        let _ = write!(self.out, "!q(scale={text}");
        if let Some(z) = q.zero_point {
            let mut text = String::new();
            payload::print(g.constant(z), None, &mut text);
            let _ = write!(self.out, ", zero={text}");
        }
        if let Some(a) = q.axis {
            let _ = write!(self.out, ", axis={a}");
        }
        let _ = write!(self.out, ", group={})", q.group);
    }
    fn params(&mut self, r: RegionId) {
        self.out.push('(');
        for (i, p) in self.g.region(r).params.clone().into_iter().enumerate() {
            if i > 0 {
                self.out.push_str(", ");
            }
            self.define(p);
            self.name(p);
            self.out.push_str(": ");
            let ty = self.g.ty(p).clone();
            self.ty(&ty);
        }
        self.out.push(')');
    }
    fn body(&mut self, r: RegionId, depth: usize, last: &str) {
        let g = self.g;
        for n in g.nodes_in(r) {
            self.out.push_str(&"  ".repeat(depth));
            self.node(n, depth);
            self.out.push('\n');
        }
        let _ = write!(self.out, "{}{last}", "  ".repeat(depth));
        for (i, v) in g.region(r).results.iter().enumerate() {
            self.out.push_str(if i == 0 { " " } else { ", " });
            self.value(*v);
            if r == g.root() && !g.output_name(i).is_empty() {
                self.out.push(' ');
                write_quoted(g.output_name(i), &mut self.out);
            }
        }
        self.out.push('\n');
    }
    fn node(&mut self, n: NodeId, depth: usize) {
        let node = self.g.node(n);
        for (i, v) in node.outputs.iter().enumerate() {
            if i > 0 {
                self.out.push_str(", ");
            }
            self.define(*v);
            self.name(*v);
        }
        if !node.outputs.is_empty() {
            self.out.push_str(" = ");
        }
        self.out.push_str(node.op.name());
        if let Op::Const(c) = &node.op {
            self.out.push(' ');
            payload::print(self.g.constant(c.id), self.options.elide, &mut self.out);
        } else {
            self.operands(n, depth);
        }
        if !self.options.no_locations {
            self.loc(&node.loc);
        }
    }
    fn operands(&mut self, n: NodeId, depth: usize) {
        let node = self.g.node(n);
        let mut attrs = String::new();
        node.op.write_attrs(&mut attrs);
        if !attrs.is_empty() {
            let _ = write!(self.out, "{{{attrs}}}");
        }
        for (i, v) in node.inputs.iter().enumerate() {
            self.out.push_str(if i == 0 { " " } else { ", " });
            match v {
                None => self.out.push('_'),
                Some(v) => self.value(*v),
            }
        }
        for r in &node.regions {
            self.out.push(' ');
            self.params(*r);
            self.out.push_str(" {\n");
            self.body(*r, depth + 1, "yield");
            self.out.push_str(&"  ".repeat(depth));
            self.out.push('}');
        }
        for (i, v) in node.outputs.iter().enumerate() {
            self.out.push_str(if i == 0 { " : " } else { ", " });
            let ty = self.g.ty(*v).clone();
            self.ty(&ty);
        }
    }
    fn loc(&mut self, loc: &Loc) {
        let parts: Vec<Loc> = match loc {
            Loc::None | Loc::Text { .. } => return,
            Loc::Fused(parts) => parts.to_vec(),
            other => vec![other.clone()],
        };
        for p in parts {
            self.out.push_str(" @");
            match &p {
                Loc::Onnx { node, op, opset } => {
                    write_quoted(node, &mut self.out);
                    self.out.push(':');
                    write_quoted(op, &mut self.out);
                    let _ = write!(self.out, ":{opset}");
                }
                other => write_quoted(&other.label(), &mut self.out),
            }
        }
    }
}
