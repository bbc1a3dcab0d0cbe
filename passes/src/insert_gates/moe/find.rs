//! Which feed-forward pairs a graph has.

use crate::experts::{Weights, divisible, product};
use crate::util;
use planish_ir::op::binary::BinaryKind;
use planish_ir::op::unary::UnaryKind;
use planish_ir::{ConstId, DType, Dim, Graph, NodeId, Op, ValueId};

/// `act(x w1 + b1) w2` with constant weights.
#[derive(Clone, Debug)]
pub(in crate::insert_gates) struct FeedForward {
    /// The first product.
    pub(in crate::insert_gates) first: NodeId,
    /// The second product.
    pub(in crate::insert_gates) node: NodeId,
    pub(in crate::insert_gates) x: ValueId,
    /// The operand of the second product.
    pub(in crate::insert_gates) hidden: ValueId,
    pub(in crate::insert_gates) y: ValueId,
    pub(in crate::insert_gates) function: UnaryKind,
    pub(in crate::insert_gates) up: Weights,
    pub(in crate::insert_gates) bias: Option<ConstId>,
    pub(in crate::insert_gates) down: Weights,
    /// The number of rows.
    pub(in crate::insert_gates) rows: Dim,
}

impl FeedForward {
    /// Inputs, hidden units, outputs.
    pub(in crate::insert_gates) fn sizes(&self) -> [usize; 3] {
        [self.up.m.k, self.up.m.n, self.down.m.n]
    }
    /// Multiply-adds for each row.
    pub(in crate::insert_gates) fn macs(&self) -> f64 {
        let [d, h, o] = self.sizes();
        h as f64 * (d + o) as f64
    }
}

/// The pair that ends in product `n` of the root region, or why it cannot be divided; none if `n` ends no such pair.
pub(in crate::insert_gates) fn find(g: &Graph, n: NodeId) -> Option<Result<FeedForward, String>> {
    let (hidden, down) = product(g, n)?;
    let a = g.def_node(hidden)?;
    let Op::Unary(f) = &g.node(a).op else { return None };
    if !divisible(f.kind) {
        return None;
    }
    let mut sum = util::operand(g, a, 0)?;
    let mut inner = vec![hidden, sum];
    let mut bias = None;
    if let Some(add) = g.def_node(sum)
        && let Op::Binary(b) = &g.node(add).op
        && b.kind == BinaryKind::Add
    {
        let (p, q) = (util::operand(g, add, 0)?, util::operand(g, add, 1)?);
        let (p, q) = if g.as_const(p).is_some() { (q, p) } else { (p, q) };
        bias = Some(q);
        sum = p;
        inner.push(sum);
    }
    let first = g.def_node(sum)?;
    let (x, up) = product(g, first)?;
    let bad = |why: String| Some(Err(why));
    if inner.iter().any(|v| util::only_user(g, *v).is_none()) {
        return bad("a value between its products is used elsewhere".into());
    }
    if [x, hidden, g.node(n).outputs[0]].iter().any(|v| g.dtype(*v) != Some(DType::F32)) {
        return bad("it is not f32".into());
    }
    if up.m.n != down.m.k {
        return bad(format!("{} hidden units become {}", up.m.n, down.m.k));
    }
    let bias = match bias.map(|b| g.as_const(b)) {
        None => None,
        Some(Some((id, c))) if c.len() == up.m.n && c.shape.last() == Some(&up.m.n) => Some(id),
        Some(_) => return bad("what is added to its hidden units is no constant vector".into()),
    };
    let dims = g.dims(x)?;
    let rows = Dim::product(&dims[..dims.len().checked_sub(1)?]);
    let y = g.node(n).outputs[0];
    Some(Ok(FeedForward { first, node: n, x, hidden, y, function: f.kind, up, bias, down, rows }))
}
