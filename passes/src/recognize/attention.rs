//! Softmax written out, and scaled dot-product attention.

use super::{Found, binary, unary};
use crate::util;
use planish_ir::op::attention::Attention;
use planish_ir::op::binary::BinaryKind as B;
use planish_ir::op::matmul::MatMul;
use planish_ir::op::reduce::ReduceKind;
use planish_ir::op::softmax::{Softmax, SoftmaxKind};
use planish_ir::op::unary::UnaryKind as U;
use planish_ir::{DType, Graph, NodeId, Op, ValueId};

/// A reduction over one axis that keeps it: node, operand, axis.
fn reduced(g: &Graph, v: ValueId, kind: ReduceKind) -> Option<(NodeId, ValueId, usize)> {
    let n = g.def_node(v)?;
    match &g.node(n).op {
        Op::Reduce(r) if r.kind == kind && r.keepdims => match r.axes.as_deref() {
            Some([axis]) => Some((n, util::operand(g, n, 0)?, *axis)),
            _ => None,
        },
        _ => None,
    }
}

/// `e / sum(e)` with `e = exp(x - max(x))`, along one axis.
pub(super) fn softmax(g: &Graph, n: NodeId) -> Option<Found> {
    let (div, e, total) = binary(g, *g.node(n).outputs.first()?, B::Div)?;
    let (sum, summed, axis) = reduced(g, total, ReduceKind::Sum)?;
    let (exp, shifted) = unary(g, e, U::Exp)?;
    let (sub, x, largest) = binary(g, shifted, B::Sub)?;
    let (max, source, at) = reduced(g, largest, ReduceKind::Max)?;
    (summed == e && source == x && at == axis).then(|| Found {
        name: "softmax",
        op: Softmax { kind: SoftmaxKind::Softmax, axis }.into(),
        inputs: vec![Some(x)],
        covers: vec![div, sum, exp, sub, max],
    })
}

/// `softmax(scale * q k + mask) v`; scale, as factor or divisor, and mask are optional.
pub(super) fn attention(g: &Graph, n: NodeId) -> Option<Found> {
    let product = |n: NodeId| match &g.node(n).op {
        Op::MatMul(m) if !m.trans_a => Some((m.clone(), util::operand(g, n, 0)?, util::operand(g, n, 1)?)),
        _ => None,
    };
    // One rounding instead of several is within this pass's promise only for the wide types.
    if !matches!(g.dtype(*g.node(n).outputs.first()?), Some(DType::F32 | DType::F64)) {
        return None;
    }
    let (MatMul { trans_b: false, .. }, weights, v) = product(n)? else { return None };
    let s = g.def_node(weights)?;
    let Op::Softmax(Softmax { kind: SoftmaxKind::Softmax, axis }) = g.node(s).op else { return None };
    if axis + 1 != g.dims(weights)?.len() {
        return None;
    }
    let mut covers = vec![n, s];
    let x = util::operand(g, s, 0)?;
    let scores = |v: ValueId| scaled(g, v).filter(|(m, ..)| product(*m).is_some());
    let ((m, scale, nodes), mask) = match scores(x) {
        Some(found) => (found, None),
        None => {
            let (add, a, b) = binary(g, x, B::Add)?;
            let (found, sum, mask) = match scores(a) {
                Some(found) => (found, a, b),
                None => (scores(b)?, b, a),
            };
            // A mask that widens the scores is no mask.
            if g.ty(x) != g.ty(sum) {
                return None;
            }
            covers.push(add);
            (found, Some(mask))
        }
    };
    covers.extend(nodes);
    let (first, q, k) = product(m)?;
    let mut inputs = vec![Some(q), Some(k), Some(v)];
    inputs.extend(mask.map(Some));
    let op = Attention { scale, trans_k: first.trans_b }.into();
    Some(Found { name: "attention", op, inputs, covers })
}

/// A matrix product with the number it is multiplied by, and the nodes from it up to `v`.
fn scaled(g: &Graph, v: ValueId) -> Option<(NodeId, f64, Vec<NodeId>)> {
    let n = g.def_node(v)?;
    if let Op::MatMul(_) = g.node(n).op {
        return Some((n, 1.0, vec![n]));
    }
    let (x, scale) = if let Some((_, a, b)) = binary(g, v, B::Mul) {
        match (util::splat_value(g, a), util::splat_value(g, b)) {
            (_, Some(s)) => (a, s),
            (Some(s), _) => (b, s),
            _ => return None,
        }
    } else {
        let (_, a, b) = binary(g, v, B::Div)?;
        (a, 1.0 / util::splat_value(g, b)?)
    };
    let m = g.def_node(x)?;
    (matches!(g.node(m).op, Op::MatMul(_)) && g.ty(x) == g.ty(v)).then(|| (m, scale, vec![n, m]))
}
