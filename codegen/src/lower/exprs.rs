//! Dims as expressions of the plan.

use super::cx::LowerCx;
use planish_ir::Dim;
use planish_ir::dim::Atom;
use planish_rt::plan::{BinOp, ExprId};

impl LowerCx<'_> {
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
