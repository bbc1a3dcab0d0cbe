//! Where a network can be left.

use crate::flops::flops;
use crate::util;
use planish_ir::graph::Use;
use planish_ir::op::Effects;
use planish_ir::{Dim, Graph, NodeId, Op, ValueId};
use std::collections::HashMap;

/// A place between two nodes of the root region.
#[derive(Clone, Debug)]
pub(super) struct Cut {
    /// The node before it.
    pub(super) last: NodeId,
    /// The nodes after it.
    pub(super) rest: Vec<NodeId>,
    /// The value that a head reads.
    pub(super) feature: ValueId,
    /// Further values that are needed after it, constants not counted.
    pub(super) others: Vec<ValueId>,
    /// Floating-point operations before and after it, for one run.
    pub(super) flops: [f64; 2],
}

/// A feature has a batch axis and is a float tensor.
fn is_feature(g: &Graph, v: ValueId, batch: &Dim) -> bool {
    let fixed = |d: &[Dim]| d.iter().skip(1).all(|d| d.as_const().is_some_and(|n| n > 0));
    util::is_float(g, v) && g.dims(v).is_some_and(|d| d.len() >= 2 && d[0] == *batch && fixed(d))
}

/// The place behind the node that is called `after`, or the one nearest to the middle by arithmetic; `batch` is the first dim of the
/// output. Only places that one value crosses are taken, unless `several`. An error says why there is none.
pub(super) fn choose(g: &Graph, after: &str, batch: &Dim, several: bool) -> Result<Cut, String> {
    let nodes: Vec<NodeId> =
        g.nodes_in(g.root()).filter(|n| !matches!(g.node(*n).op, Op::Const(_))).collect();
    let place: HashMap<NodeId, usize> = nodes.iter().enumerate().map(|(i, n)| (*n, i)).collect();
    let costs: Vec<f64> = nodes.iter().map(|n| cost(g, *n)).collect();
    let total: f64 = costs.iter().sum();
    let last_use = |v: ValueId| {
        let of = |u: &Use| match u {
            Use::Node(n, _) => place.get(n).copied(),
            Use::Result(..) => Some(usize::MAX),
        };
        g.uses(v).iter().filter_map(of).max()
    };
    let mut open: Vec<(ValueId, usize)> =
        g.inputs().iter().filter_map(|v| Some((*v, last_use(*v)?))).collect();
    let wanted = (!after.is_empty()).then_some(after);
    let (mut best, mut before): (Option<(f64, Cut)>, f64) = (None, 0.0);
    let mut refused = None;
    for (i, n) in nodes.iter().enumerate() {
        before += costs[i];
        open.extend(g.node(*n).outputs.iter().filter_map(|v| Some((*v, last_use(*v)?))));
        open.retain(|(_, last)| *last > i);
        let named = wanted.is_some_and(|w| g.describe(*n) == w);
        if wanted.is_some() && !named {
            continue;
        }
        // The latest one is the nearest to the answer.
        let feature = open.iter().rev().map(|(v, _)| *v).find(|v| is_feature(g, *v, batch));
        let done = open.iter().any(|(_, last)| *last == usize::MAX) || i + 1 == nodes.len();
        let why = match feature {
            _ if done => Some("an output is computed before it".to_owned()),
            None => Some("no float tensor with the batch as first axis crosses it".to_owned()),
            Some(_) if open.len() > 1 && !several => Some(format!("{} values cross it", open.len())),
            Some(_) => nodes[i + 1..].iter().find_map(|n| {
                let stops = inner(g, *n).chain([*n]).any(|n| g.node(n).effects() != Effects::None);
                stops.then(|| format!("{} after it must run", g.describe(*n)))
            }),
        };
        match (why, feature) {
            (None, Some(feature)) => {
                let others = open.iter().map(|(v, _)| *v).filter(|v| *v != feature).collect::<Vec<_>>();
                let cut = Cut {
                    last: *n,
                    rest: nodes[i + 1..].to_vec(),
                    feature,
                    flops: [before, total - before],
                    others,
                };
                let far = (before - total / 2.0).abs() / total.max(1.0) + cut.others.len() as f64;
                if best.as_ref().is_none_or(|(d, _)| far <= *d) {
                    best = Some((far, cut));
                }
            }
            (Some(why), _) => refused = refused.or(Some(why)),
            (None, None) => {}
        }
    }
    match (best, wanted) {
        (Some((_, cut)), _) => Ok(cut),
        (None, Some(w)) => Err(match refused {
            Some(why) => format!("it cannot be left after {w:?}: {why}"),
            None => format!("no node is called {w:?}"),
        }),
        (None, None) => Err(match refused {
            Some(why) => format!("it can be left nowhere; {why} at the first of {} places", nodes.len()),
            None => "it has no nodes".into(),
        }),
    }
}

/// What the first of two values of the root region needs and the second, the scores of a head, does not, as a place; `batch` and `several` as for [`choose`]. An
/// error says why it cannot be left out.
pub(super) fn behind(
    g: &Graph,
    (y, scores): (ValueId, ValueId),
    batch: &Dim,
    several: bool,
) -> Result<Cut, String> {
    let keeps = util::needs(g, scores);
    let needs = util::needs(g, y);
    let is_rest = |n: &NodeId| needs.contains(n) && !keeps.contains(n);
    let all: Vec<NodeId> = g.nodes_in(g.root()).filter(|n| !matches!(g.node(*n).op, Op::Const(_))).collect();
    let (rest, stays): (Vec<NodeId>, Vec<NodeId>) = all.into_iter().partition(is_rest);
    if !g.def_node(y).is_some_and(|n| is_rest(&n)) {
        return Err("the head needs all that the output needs".into());
    }
    let mut crossing: Vec<ValueId> = Vec::new();
    for v in rest.iter().flat_map(|n| g.node(*n).inputs.iter().flatten()) {
        let outside = g.as_const(*v).is_none() && !g.def_node(*v).is_some_and(|n| is_rest(&n));
        if outside && !crossing.contains(v) {
            crossing.push(*v);
        }
    }
    for n in &rest {
        if inner(g, *n).chain([*n]).any(|n| g.node(n).effects() != Effects::None) {
            return Err(format!("{} must run", g.describe(*n)));
        }
        let other = |u: &Use| match u {
            Use::Node(user, _) => !is_rest(user),
            Use::Result(_, i) => *i != 0,
        };
        if g.node(*n).outputs.iter().any(|v| g.uses(*v).iter().any(other)) {
            return Err(format!("what {} gives is needed elsewhere", g.describe(*n)));
        }
    }
    let feature =
        crossing.iter().rev().copied().find(|v| is_feature(g, *v, batch) && g.def_node(*v).is_some());
    let feature = feature.ok_or("no float tensor with the batch as first axis comes to the rest")?;
    if crossing.len() > 1 && !several {
        return Err(format!("{} values come to the rest", crossing.len()));
    }
    let last = g.def_node(feature).ok_or("the rest begins at an input")?;
    let cost = |nodes: &[NodeId]| nodes.iter().map(|n| cost(g, *n)).sum::<f64>();
    let flops = [cost(&stays), cost(&rest)];
    Ok(Cut { last, rest, feature, others: crossing.into_iter().filter(|v| *v != feature).collect(), flops })
}

/// Floating-point operations of a node with its regions. Symbols count as 1: shares matter, not sums.
fn cost(g: &Graph, n: NodeId) -> f64 {
    let all = std::iter::once(n).chain(inner(g, n));
    all.filter_map(|n| flops(g, n)?.eval(&|_| Some(1))).map(|f| f as f64).sum()
}

/// The nodes in the regions of a node.
fn inner(g: &Graph, n: NodeId) -> impl Iterator<Item = NodeId> {
    let mut found = Vec::new();
    let mut open = g.node(n).regions.clone();
    while let Some(r) = open.pop() {
        for n in g.nodes_in(r) {
            found.push(n);
            open.extend(&g.node(n).regions);
        }
    }
    found.into_iter()
}

/// Why what a region computes for one row of its first parameter may depend on other rows; none if it cannot. `rows` is the dim that only the
/// rows have.
pub(super) fn mixes(g: &Graph, nodes: &[NodeId], param: ValueId, rows: &Dim) -> Option<String> {
    let mut depends = vec![param];
    for n in nodes {
        let node = g.node(*n);
        let from: Vec<(usize, ValueId)> = node
            .inputs
            .iter()
            .enumerate()
            .filter_map(|(i, v)| v.filter(|v| depends.contains(v)).map(|v| (i, v)))
            .collect();
        if from.is_empty() {
            continue;
        }
        let first = |v: &ValueId| g.dims(*v).is_some_and(|d| d.first() == Some(rows));
        let once = |v: &ValueId| g.dims(*v).is_some_and(|d| d.iter().skip(1).all(|d| d.as_const().is_some()));
        let kept = node.outputs.iter().all(|v| first(v) && once(v));
        if !kept || !row_by_row(g, *n, &from) {
            return Some(format!("{} may mix samples", g.describe(*n)));
        }
        depends.extend(&node.outputs);
    }
    None
}

/// Whether an operation treats index after index of the first axis of these operands, given that the results have as many.
fn row_by_row(g: &Graph, n: NodeId, from: &[(usize, ValueId)]) -> bool {
    let node = g.node(n);
    let rank = |v: ValueId| g.dims(v).map_or(0, <[Dim]>::len);
    let result = node.outputs.first().map_or(0, |v| rank(*v));
    let only_first = from.iter().all(|(i, _)| *i == 0);
    let constant = |i: usize| util::operand(g, n, i).is_none_or(|v| g.as_const(v).is_some());
    match &node.op {
        op if op.is_elementwise() => from.iter().all(|(_, v)| rank(*v) == result),
        Op::Conv(_) | Op::ConvTranspose(_) | Op::Pool(_) | Op::Lrn(_) => only_first,
        Op::LayerNorm(l) => only_first && l.axis >= 1,
        Op::Softmax(s) => s.axis >= 1,
        Op::Reduce(r) => util::operand(g, n, 1).is_none() && r.axes.as_ref().is_some_and(|a| !a.contains(&0)),
        Op::MatMul(m) => match from {
            [(0, x)] => rank(*x) == result && (rank(*x) >= 3 || !m.trans_a),
            _ => from.iter().all(|(_, v)| rank(*v) == result && result >= 3),
        },
        Op::Attention(_) => from.iter().all(|(_, v)| rank(*v) == result && result >= 3),
        Op::Reshape(_) => only_first && constant(1),
        Op::Flatten(f) => f.axis >= 1,
        Op::Squeeze(s) => !s.axes.contains(&0),
        Op::Unsqueeze(s) => !s.axes.contains(&0),
        Op::Transpose(t) => t.perm.first() == Some(&0),
        Op::Concat(c) => c.axis >= 1,
        Op::Split(s) => only_first && s.axis >= 1,
        Op::Gather(c) => only_first && c.axis >= 1,
        _ => false,
    }
}
