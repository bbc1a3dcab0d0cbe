//! Expressions over symbols, and their evaluation.
use super::{ExprId, SymId};
use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

/// An operation on two integers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum BinOp {
    /// Sum.
    Add,
    /// Difference.
    Sub,
    /// Product.
    Mul,
    /// Quotient, rounded down.
    FloorDiv,
    /// Quotient, rounded up.
    CeilDiv,
    /// `a - b * floordiv(a, b)`: the sign is that of `b`.
    Mod,
    /// The smaller.
    Min,
    /// The larger.
    Max,
    /// 1 if equal, else 0.
    Eq,
    /// 1 if different, else 0.
    Ne,
    /// 1 if `a < b`, else 0.
    Lt,
    /// 1 if `a <= b`, else 0.
    Le,
    /// 1 if both are not 0, else 0.
    And,
    /// 1 if one is not 0, else 0.
    Or,
}

impl BinOp {
    /// Every operation.
    pub const ALL: [BinOp; 14] = [
        BinOp::Add,
        BinOp::Sub,
        BinOp::Mul,
        BinOp::FloorDiv,
        BinOp::CeilDiv,
        BinOp::Mod,
        BinOp::Min,
        BinOp::Max,
        BinOp::Eq,
        BinOp::Ne,
        BinOp::Lt,
        BinOp::Le,
        BinOp::And,
        BinOp::Or,
    ];

    /// The result, or `None` on overflow and division by zero.
    pub fn apply(self, a: i64, b: i64) -> Option<i64> {
        let floor = |a: i64, b: i64| {
            let q = a.checked_div(b)?;
            Some(if a % b != 0 && (a < 0) != (b < 0) { q - 1 } else { q })
        };
        Some(match self {
            BinOp::Add => a.checked_add(b)?,
            BinOp::Sub => a.checked_sub(b)?,
            BinOp::Mul => a.checked_mul(b)?,
            BinOp::FloorDiv => floor(a, b)?,
            BinOp::CeilDiv => {
                let q = floor(a, b)?;
                if a % b != 0 { q + 1 } else { q }
            }
            BinOp::Mod => a.checked_sub(b.checked_mul(floor(a, b)?)?)?,
            BinOp::Min => a.min(b),
            BinOp::Max => a.max(b),
            BinOp::Eq => (a == b) as i64,
            BinOp::Ne => (a != b) as i64,
            BinOp::Lt => (a < b) as i64,
            BinOp::Le => (a <= b) as i64,
            BinOp::And => (a != 0 && b != 0) as i64,
            BinOp::Or => (a != 0 || b != 0) as i64,
        })
    }
}

/// An expression. Operands have smaller ids than their user.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Expr {
    /// A number.
    Const(i64),
    /// The value of a symbol.
    Sym(SymId),
    /// An operation.
    Bin(BinOp, ExprId, ExprId),
    /// The second if the first is not 0, else the third. An error in the part that is not chosen does not matter.
    Select(ExprId, ExprId, ExprId),
}

/// Makes expressions: equal ones get the same id, and operations on numbers are done at once.
#[derive(Clone, Default, Debug)]
pub struct ExprPool {
    exprs: Vec<Expr>,
    ids: BTreeMap<Expr, ExprId>,
}

impl ExprPool {
    /// An empty pool.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an expression whose operands are ids of this pool.
    pub fn add(&mut self, e: Expr) -> ExprId {
        let e = self.simplify(e);
        if let Some(id) = self.alias(e) {
            return id;
        }
        let next = ExprId(self.exprs.len() as u32);
        *self.ids.entry(e).or_insert_with(|| {
            self.exprs.push(e);
            next
        })
    }

    /// A number.
    pub fn constant(&mut self, v: i64) -> ExprId {
        self.add(Expr::Const(v))
    }

    /// A symbol.
    pub fn sym(&mut self, s: SymId) -> ExprId {
        self.add(Expr::Sym(s))
    }

    /// An operation.
    pub fn bin(&mut self, op: BinOp, a: ExprId, b: ExprId) -> ExprId {
        self.add(Expr::Bin(op, a, b))
    }

    /// The product of some expressions; 1 for none.
    pub fn product(&mut self, of: &[ExprId]) -> ExprId {
        let one = self.constant(1);
        of.iter().fold(one, |a, &b| self.bin(BinOp::Mul, a, b))
    }

    /// The expression behind an id.
    pub fn get(&self, id: ExprId) -> Expr {
        self.exprs[id.index()]
    }

    /// The number an expression is, if it depends on no symbol.
    pub fn as_const(&self, id: ExprId) -> Option<i64> {
        match self.get(id) {
            Expr::Const(v) => Some(v),
            _ => None,
        }
    }

    /// The table for [`super::Plan::exprs`].
    pub fn finish(self) -> Vec<Expr> {
        self.exprs
    }

    /// The expressions made so far.
    pub fn exprs(&self) -> &[Expr] {
        &self.exprs
    }

    fn simplify(&self, e: Expr) -> Expr {
        match e {
            Expr::Bin(op, a, b) => match (self.as_const(a), self.as_const(b)) {
                (Some(x), Some(y)) => op.apply(x, y).map_or(e, Expr::Const),
                _ => e,
            },
            _ => e,
        }
    }

    /// An existing expression that `e` always equals.
    fn alias(&self, e: Expr) -> Option<ExprId> {
        match e {
            Expr::Bin(op, a, b) => {
                let (x, y) = (self.as_const(a), self.as_const(b));
                match (op, x, y) {
                    (BinOp::Add, Some(0), _) | (BinOp::Mul, Some(1), _) => Some(b),
                    (BinOp::Add | BinOp::Sub, _, Some(0)) => Some(a),
                    (BinOp::Mul | BinOp::FloorDiv | BinOp::CeilDiv, _, Some(1)) => Some(a),
                    (BinOp::Min | BinOp::Max, _, _) if a == b => Some(a),
                    _ => None,
                }
            }
            Expr::Select(c, a, b) => match self.as_const(c) {
                Some(0) => Some(b),
                Some(_) => Some(a),
                None if a == b => Some(a),
                None => None,
            },
            _ => None,
        }
    }
}

/// Why an expression has no value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EvalError {
    /// A symbol it needs is not bound yet.
    Unbound,
    /// A sum, product or quotient does not fit 64 bits, or a divisor is 0.
    Overflow,
}

impl fmt::Display for EvalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            EvalError::Unbound => "a size is not known yet",
            EvalError::Overflow => "a size does not fit 64 bits",
        })
    }
}

/// The values of all expressions of a plan for the symbols bound so far.
#[derive(Clone, Debug)]
pub struct Exprs {
    values: Vec<Result<i64, EvalError>>,
    symbols: Vec<Option<i64>>,
    /// For each symbol the expressions that depend on it, in increasing order.
    users: Vec<Vec<u32>>,
    /// For each expression the symbols it depends on, sorted.
    deps: Vec<Vec<SymId>>,
}

impl Exprs {
    /// The table for `exprs` (valid as in [`super::Plan::validate`]) over `symbols` symbols, none bound.
    pub fn new(exprs: &[Expr], symbols: usize) -> Self {
        let mut deps: Vec<Vec<SymId>> = Vec::with_capacity(exprs.len());
        let mut users = vec![Vec::new(); symbols];
        for (i, e) in exprs.iter().enumerate() {
            let mut d = Vec::new();
            match *e {
                Expr::Const(_) => {}
                Expr::Sym(s) => d.push(s),
                Expr::Bin(_, a, b) => {
                    d.extend_from_slice(&deps[a.index()]);
                    d.extend_from_slice(&deps[b.index()]);
                }
                Expr::Select(c, a, b) => {
                    for x in [c, a, b] {
                        d.extend_from_slice(&deps[x.index()]);
                    }
                }
            }
            d.sort_unstable();
            d.dedup();
            for s in &d {
                users[s.index()].push(i as u32);
            }
            deps.push(d);
        }
        let mut t = Exprs {
            values: vec![Err(EvalError::Unbound); exprs.len()],
            symbols: vec![None; symbols],
            users,
            deps,
        };
        for i in 0..exprs.len() {
            t.values[i] = t.compute(exprs, i);
        }
        t
    }

    fn compute(&self, exprs: &[Expr], i: usize) -> Result<i64, EvalError> {
        let v = |e: ExprId| self.values[e.index()];
        match exprs[i] {
            Expr::Const(c) => Ok(c),
            Expr::Sym(s) => self.symbols[s.index()].ok_or(EvalError::Unbound),
            Expr::Bin(op, a, b) => op.apply(v(a)?, v(b)?).ok_or(EvalError::Overflow),
            Expr::Select(c, a, b) => {
                if v(c)? != 0 {
                    v(a)
                } else {
                    v(b)
                }
            }
        }
    }

    /// The value of an expression.
    pub fn get(&self, e: ExprId) -> Result<i64, EvalError> {
        self.values[e.index()]
    }

    /// The value of a symbol.
    pub fn symbol(&self, s: SymId) -> Option<i64> {
        self.symbols[s.index()]
    }

    /// The symbols an expression depends on, sorted.
    pub fn deps(&self, e: ExprId) -> &[SymId] {
        &self.deps[e.index()]
    }

    /// Binds or unbinds a symbol. `exprs` is the table the object was made from.
    pub fn set(&mut self, exprs: &[Expr], s: SymId, value: Option<i64>) {
        if self.symbols[s.index()] == value {
            return;
        }
        self.symbols[s.index()] = value;
        for k in 0..self.users[s.index()].len() {
            let i = self.users[s.index()][k] as usize;
            self.values[i] = self.compute(exprs, i);
        }
    }
}
