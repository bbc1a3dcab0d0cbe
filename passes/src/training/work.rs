//! What gates cost and what they leave out, counted from the types of a model as it is trained.

use super::exits;
use crate::flops::flops;
use crate::insert_gates::exit_work;
use crate::util;
use planish_ir::op::binary::BinaryKind;
use planish_ir::{Dim, Graph, NodeId, Op, ValueId};
use std::collections::HashSet;

/// Floating-point operations of a run.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Work {
    /// All of them, if every gate is on.
    pub all: f64,
    /// Of those: what decides.
    pub gates: f64,
    /// Of those: what is left out if every gate is off, less what is done in its place.
    pub gated: f64,
}

impl Work {
    /// The work of each of so many rows, which are alike.
    pub fn of_each(self, rows: usize) -> Work {
        let each = |flops: f64| flops / rows as f64;
        Work { all: each(self.all), gates: each(self.gates), gated: each(self.gated) }
    }
    /// What is executed if this share of the gates is on, from 0 to 1.
    pub fn executed(&self, density: f64) -> f64 {
        self.all - (1.0 - density) * self.gated
    }
}

/// The work of a model whose shapes are known; none where it has no gate that leaves anything out. What gates of units leave out are the columns of the product
/// that they multiply, which `insert-gates:kind=columns` skips; layers that skim compute the small cell in place of the big one; behind a head half way
/// there is the rest of the network.
pub fn work(graph: &Graph) -> Option<Work> {
    let count = |n: NodeId| flops(graph, n).and_then(|f| f.as_const()).unwrap_or(0) as f64;
    let sum = |nodes: &HashSet<NodeId>| nodes.iter().map(|n| count(*n)).sum::<f64>();
    let all = graph.all_nodes().into_iter().map(count).sum();
    let (mut gates, mut gated) = (0.0, 0.0);
    for n in graph.nodes_in(graph.root()) {
        match &graph.node(n).op {
            Op::StochasticGate(_) => {
                let Some((product, u)) = multiplied(graph, n) else { continue };
                let decides = util::needs(graph, graph.node(n).outputs[0]);
                gates += sum(&decides.difference(&util::needs(graph, u)).copied().collect());
                gated += count(product);
            }
            Op::SkimRecurrent(_) => {
                let [big, small, decides] = cells(graph, n)?;
                gates += decides;
                gated += big - small;
            }
            _ => {}
        }
    }
    if let Some((y, head)) = exits::output(graph).map(|at| (graph.outputs()[0], graph.outputs()[at])) {
        gates += sum(&util::needs(graph, head).difference(&util::needs(graph, y)).copied().collect());
        gated += exit_work(graph, exits::EXIT)?;
    }
    (gated > 0.0).then_some(Work { all, gates, gated })
}

/// The product that gives units a gate multiplies, and what the gate multiplies.
fn multiplied(g: &Graph, gate: NodeId) -> Option<(NodeId, ValueId)> {
    let h = g.node(gate).outputs[0];
    let user = |u: &planish_ir::graph::Use| match u {
        planish_ir::graph::Use::Node(n, _) => Some(*n),
        planish_ir::graph::Use::Result(..) => None,
    };
    let n = g
        .uses(h)
        .iter()
        .filter_map(user)
        .find(|n| matches!(&g.node(*n).op, Op::Binary(b) if b.kind == BinaryKind::Mul))?;
    let u = g.node(n).inputs.iter().flatten().find(|v| **v != h).copied()?;
    let mut v = u;
    // A bias and an activation at most.
    for _ in 0..3 {
        let n = g.def_node(v)?;
        match &g.node(n).op {
            Op::MatMul(_) => return Some((n, u)),
            Op::Binary(_) | Op::Unary(_) => {
                v = g.node(n).inputs.iter().flatten().find(|v| g.as_const(**v).is_none()).copied()?;
            }
            _ => return None,
        }
    }
    None
}

/// The operations of the big cell, of the small one, and of what chooses, over all steps and rows.
fn cells(g: &Graph, n: NodeId) -> Option<[f64; 3]> {
    let operand = |i: usize| g.node(n).inputs.get(i).copied().flatten().and_then(|v| g.dims(v));
    let steps = Dim::product(operand(0)?.get(..2)?).as_const()? as f64;
    let size = |i: usize| Some(Dim::product(operand(i)?).as_const()? as f64);
    let each = |i: usize, j: usize| Some(2.0 * steps * (size(i)? + size(j)?));
    Some([each(1, 2)?, each(3, 4)?, 2.0 * steps * size(5)?])
}
