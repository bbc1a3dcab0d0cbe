//! Dims as expressions of the plan.

use super::cx::LowerCx;
use planish_ir::dim::Atom;
use planish_ir::entity::Entity;
use planish_ir::{Dim, SymId};
use planish_rt::plan::{self, BinOp, Call, ExprId, Step};

impl LowerCx<'_> {
    /// A number of any size that the plan knows when it has drawn it from the random stream of the session. It is no dim
    /// of the graph: only launches may take it.
    pub(super) fn drawn(&mut self) -> Dim {
        let (drawn, own) = self.plan_symbol("r");
        let error = self.error("no random number can be drawn");
        self.step(Step::Call(Box::new(Call {
            func: planish_rt::library::RANDOM,
            args: Vec::new(),
            outs: Vec::new(),
            out_syms: vec![own],
            attrs: Vec::new(),
            fattrs: Vec::new(),
            sattrs: Vec::new(),
            error,
        })));
        drawn
    }
    /// A symbol that only the plan has. It is no dim of the graph: views and launches may take it, slots may not.
    pub(super) fn plan_symbol(&mut self, prefix: &str) -> (Dim, plan::SymId) {
        let name = format!("{prefix}{}", self.plan.symbols.len());
        self.plan.symbols.push(plan::Symbol { name, min: i64::MIN, max: i64::MAX, values: Vec::new() });
        let own = plan::SymId(self.plan.symbols.len() as u32 - 1);
        let unused = self.graph.symbols.iter().count() + own.index();
        let s = SymId::new(unused);
        self.syms.insert(s, own);
        (Dim::from(s), own)
    }
    /// A dim as an expression of the plan.
    pub fn expr(&mut self, d: &Dim) -> ExprId {
        if let Some(v) = d.as_const() {
            return self.pool.constant(v);
        }
        if let Some(e) = self.exprs.get(d) {
            return *e;
        }
        let e = self.new_expr(d);
        self.exprs.insert(d.clone(), e);
        e
    }
    fn new_expr(&mut self, d: &Dim) -> ExprId {
        let mut total: Option<ExprId> = None;
        for (m, c) in d.terms() {
            let mut t = self.pool.constant(c);
            for (atom, e) in m {
                let a = match &atom {
                    Atom::Sym(s) => {
                        let s = self.sym(*s);
                        self.pool.sym(s)
                    }
                    Atom::FloorDiv(a, b) => self.expr2(BinOp::FloorDiv, a, b),
                    Atom::Mod(a, b) => self.expr2(BinOp::Mod, a, b),
                    Atom::Max(a, b) => self.expr2(BinOp::Max, a, b),
                    Atom::Min(a, b) => self.expr2(BinOp::Min, a, b),
                };
                for _ in 0..e {
                    t = self.pool.bin(BinOp::Mul, t, a);
                }
            }
            total = Some(match total {
                None => t,
                Some(x) => self.pool.bin(BinOp::Add, x, t),
            });
        }
        total.unwrap_or_else(|| self.pool.constant(0))
    }
    fn expr2(&mut self, op: BinOp, a: &Dim, b: &Dim) -> ExprId {
        let (a, b) = (self.expr(a), self.expr(b));
        self.pool.bin(op, a, b)
    }
}
