//! Operations that others make up, replaced by those.

use crate::diag::Diag;
use crate::editor::Editor;
use crate::graph::{Graph, NodeId};
use crate::interp;
use crate::op::Op;
use crate::op::attention::has_kernel;
use crate::op::blocks;
use crate::op::build::Build;
use crate::tensor::Tensor;
use std::borrow::Cow;

/// How many nodes were replaced.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Expanded {
    /// Attentions.
    pub attention: usize,
    /// Stochastic gates.
    pub gates: usize,
    /// Values rounded for training.
    pub rounded: usize,
    /// Products with blocks of a matrix, and blocks of products.
    pub blocks: usize,
    /// Detached values.
    pub detached: usize,
}

/// Whether a node has no kernel of its own: an attention or a product with blocks, also where `all` is asked for, a stochastic gate, or a value rounded for training.
fn goes(g: &Graph, n: NodeId, all: bool) -> bool {
    match g.node(n).op {
        Op::Attention(_) => all || !has_kernel(g, n),
        Op::BlockMatMul(_) | Op::BlockOuter(_) => all || !blocks::has_kernel(g, n),
        Op::StochasticGate(_) | Op::FakeQuantize(_) => true,
        _ => false,
    }
}

/// Replaces attentions of a graph and products with blocks by their parts, all or those without a [kernel](has_kernel), stochastic gates and values rounded for
/// training by theirs, or by a constant where all operands are, and detached values by themselves.
pub fn expand_composites(ed: &mut Editor<'_>, all: bool) -> Result<Expanded, Diag> {
    let mut count = expand(ed, all)?;
    for n in ed.graph().all_nodes() {
        let node = ed.graph().node(n);
        if let (Op::Detach(_), Some(Some(x))) = (&node.op, node.inputs.first()) {
            let (x, y) = (*x, node.outputs[0]);
            ed.replace(y, x);
            ed.erase(n)?;
            count.detached += 1;
        }
    }
    Ok(count)
}

fn expand(ed: &mut Editor<'_>, all: bool) -> Result<Expanded, Diag> {
    let nodes: Vec<NodeId> = ed.graph().all_nodes();
    let mut count = Expanded::default();
    for n in nodes {
        if !goes(ed.graph(), n, all) {
            continue;
        }
        let node = ed.graph().node(n);
        let (op, inputs, y) = (node.op.clone(), node.inputs.clone(), node.outputs[0]);
        ed.before(n);
        let new = match &op {
            Op::Attention(op) => {
                count.attention += 1;
                op.parts(ed, &inputs)?
            }
            Op::BlockMatMul(op) => {
                count.blocks += 1;
                op.parts(&mut Build::new(ed, "block-matmul"), &inputs)?
            }
            Op::BlockOuter(op) => {
                count.blocks += 1;
                op.parts(&mut Build::new(ed, "block-outer"), &inputs)?
            }
            Op::StochasticGate(op) => {
                count.gates += 1;
                op.parts(&mut Build::new(ed, "stochastic-gate"), &inputs)?
            }
            Op::FakeQuantize(op) => {
                count.rounded += 1;
                match known(ed.graph(), n)? {
                    Some(t) => ed.constant(t)?,
                    None => op.parts(&mut Build::new(ed, "fake-quantize"), &inputs)?,
                }
            }
            _ => continue,
        };
        let declared = ed.graph().value(y).fact.clone();
        ed.set_fact(new, declared);
        ed.replace(y, new);
        ed.erase(n)?;
    }
    Ok(count)
}

/// The result of a node whose operands are all constants.
fn known(g: &Graph, n: NodeId) -> Result<Option<Tensor>, Diag> {
    let constants = g.node(n).inputs.iter().flatten().map(|v| g.as_const(*v));
    let Some(constants) = constants.collect::<Option<Vec<_>>>() else { return Ok(None) };
    let operands = constants.into_iter().map(|(_, c)| Ok(Some(c.decode()?.into())));
    let made = interp::eval_node(g, n, operands.collect::<Result<_, Diag>>()?, 0)?;
    made.first().map(|v| v.tensor().cloned()).transpose()
}

/// The graph, or a copy in which [parts](expand_composites) stand for composites; detached values stay.
pub fn without_composites(graph: &Graph, all: bool) -> Result<Cow<'_, Graph>, Diag> {
    if !graph.all_nodes().into_iter().any(|n| goes(graph, n, all)) {
        return Ok(Cow::Borrowed(graph));
    }
    let mut copy = graph.clone();
    expand(&mut Editor::new(&mut copy), all)?;
    Ok(Cow::Owned(copy))
}
