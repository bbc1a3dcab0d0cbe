//! Which feed-forward pairs a graph has.

use crate::util;
use planish_ir::op::binary::BinaryKind;
use planish_ir::op::unary::UnaryKind;
use planish_ir::{ConstId, DType, Diag, Dim, Graph, Matrix, NodeId, Op, ValueId};

/// `act(x w1 + b1) w2` with constant weights.
#[derive(Clone, Debug)]
pub(super) struct FeedForward {
    /// The second product.
    pub(super) node: NodeId,
    pub(super) x: ValueId,
    /// The operand of the second product.
    pub(super) hidden: ValueId,
    pub(super) y: ValueId,
    pub(super) function: UnaryKind,
    pub(super) up: Weights,
    pub(super) bias: Option<ConstId>,
    pub(super) down: Weights,
    /// The number of rows.
    pub(super) rows: Dim,
}

/// A constant matrix from inputs to outputs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Weights {
    id: ConstId,
    pub(super) m: Matrix,
}

impl Weights {
    /// Elements, inputs x outputs.
    pub(super) fn values(&self, g: &Graph) -> Result<Vec<f32>, Diag> {
        let stored = floats(&g.constant(self.id).decode()?);
        let m = &self.m;
        Ok((0..m.k).flat_map(|k| (0..m.n).map(move |n| (k, n))).map(|(k, n)| stored[m.at(k, n)]).collect())
    }
}

/// The elements of an f32 tensor.
pub(super) fn floats(t: &planish_ir::Tensor) -> Vec<f32> {
    t.to_f64().into_iter().map(|v| v as f32).collect()
}

impl FeedForward {
    /// Inputs, hidden units, outputs.
    pub(super) fn sizes(&self) -> [usize; 3] {
        [self.up.m.k, self.up.m.n, self.down.m.n]
    }
    /// Multiply-adds for each row.
    pub(super) fn macs(&self) -> f64 {
        let [d, h, o] = self.sizes();
        h as f64 * (d + o) as f64
    }
}

/// The pair that ends in product `n` of the root region, or why it cannot be divided; none if `n` ends no such pair.
pub(super) fn find(g: &Graph, n: NodeId) -> Option<Result<FeedForward, String>> {
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
    Some(Ok(FeedForward { node: n, x, hidden, y, function: f.kind, up, bias, down, rows }))
}

/// The operand and weights of a product with a constant matrix.
fn product(g: &Graph, n: NodeId) -> Option<(ValueId, Weights)> {
    let Op::MatMul(op) = &g.node(n).op else { return None };
    let (x, w) = (util::operand(g, n, 0)?, util::operand(g, n, 1)?);
    let (id, c) = g.as_const(w)?;
    if op.trans_a || c.shape.len() != 2 || c.dtype != DType::F32 || g.dims(x)?.len() < 2 {
        return None;
    }
    Some((x, Weights { id, m: Matrix::new(&c.shape, op.trans_b)? }))
}

/// Functions that networks have between the products of a feed-forward pair.
fn divisible(f: UnaryKind) -> bool {
    use UnaryKind::*;
    matches!(f, Relu | Gelu | GeluTanh | Mish | HardSwish | Softplus | Softsign | Tanh | Sigmoid)
}
