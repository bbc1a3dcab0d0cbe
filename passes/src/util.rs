//! What several passes ask of a graph.

use planish_ir::graph::Use;
use planish_ir::op::Effects;
use planish_ir::{Constant, DType, Diag, Editor, Graph, NodeId, Op, RegionId, Tensor, ValueId};
use std::collections::HashSet;
use std::sync::Arc;

/// The regions of a graph, outer ones first, with their nodes in order.
pub(crate) fn regions(graph: &Graph) -> Vec<(RegionId, Vec<NodeId>)> {
    graph.all_regions().into_iter().map(|r| (r, graph.nodes_in(r).collect())).collect()
}

/// The node that is the only user of a value.
pub(crate) fn only_user(graph: &Graph, v: ValueId) -> Option<NodeId> {
    match graph.uses(v) {
        [Use::Node(n, _)] => Some(*n),
        _ => None,
    }
}

/// The nodes of the root region that a value needs.
pub(crate) fn needs(graph: &Graph, v: ValueId) -> HashSet<NodeId> {
    let mut found = HashSet::new();
    let mut open: Vec<NodeId> = graph.def_node(v).into_iter().collect();
    while let Some(n) = open.pop() {
        if found.insert(n) {
            open.extend(graph.node(n).inputs.iter().flatten().filter_map(|v| graph.def_node(*v)));
        }
    }
    found
}

/// The constant that a value is.
pub(crate) fn constant(graph: &Graph, v: ValueId) -> Option<&Arc<Constant>> {
    graph.as_const(v).map(|(_, c)| c)
}

/// The one number that all elements of a constant value are.
pub(crate) fn splat_value(graph: &Graph, v: ValueId) -> Option<f64> {
    constant(graph, v)?.as_splat()?.to_f64().first().copied()
}

/// Whether every element of a value is 0.
pub(crate) fn is_zero(g: &Graph, v: ValueId) -> bool {
    let expanded = g.def_node(v).filter(|n| matches!(g.node(*n).op, Op::Expand(_)));
    let v = expanded.and_then(|n| operand(g, n, 0)).unwrap_or(v);
    if splat_value(g, v) == Some(0.0) {
        return true;
    }
    let all = |t: Tensor| t.to_f64().iter().all(|x| *x == 0.0);
    constant(g, v).is_some_and(|c| c.dtype.is_float() && c.len() < 1 << 24 && c.decode().is_ok_and(all))
}

/// Operand `i` of a node, if it is given.
pub(crate) fn operand(graph: &Graph, n: NodeId, i: usize) -> Option<ValueId> {
    graph.node(n).inputs.get(i).copied().flatten()
}

/// A new constant vector of i64.
pub(crate) fn ints(ed: &mut Editor<'_>, v: &[i64]) -> Result<ValueId, Diag> {
    ed.constant(Constant::from(Tensor::vec_i64(v)))
}

/// Whether a value is a float tensor.
pub(crate) fn is_float(graph: &Graph, v: ValueId) -> bool {
    graph.dtype(v).is_some_and(DType::is_float)
}

/// The dims as numbers, if all are known.
pub(crate) fn fixed(graph: &Graph, v: ValueId) -> Option<Vec<usize>> {
    graph.dims(v)?.iter().map(|d| d.as_const().and_then(|d| usize::try_from(d).ok())).collect()
}

/// The first operand that is a capture, of operations whose regions all end with their captures as parameters.
pub(crate) fn captures_from(op: &Op) -> Option<usize> {
    match op {
        Op::If(_) => Some(1),
        Op::Loop(l) => Some(2 + l.carried),
        Op::Fused(_) => Some(0),
        _ => None,
    }
}

/// Removes what made a value that nothing uses, and what only that used.
pub(crate) fn remove(ed: &mut Editor<'_>, v: ValueId) -> Result<(), Diag> {
    let g = ed.graph();
    let Some(n) = g.def_node(v) else { return Ok(()) };
    let node = g.node(n);
    let used = node.outputs.iter().any(|v| !g.uses(*v).is_empty());
    if used || node.effects() == Effects::Stops {
        return Ok(());
    }
    let inputs = node.inputs.clone();
    ed.erase(n)?;
    inputs.into_iter().flatten().try_for_each(|v| remove(ed, v))
}
