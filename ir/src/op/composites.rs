//! Operations that others make up, replaced by those.

use crate::diag::Diag;
use crate::editor::Editor;
use crate::graph::{Graph, NodeId};
use crate::op::Op;
use crate::op::attention::has_kernel;
use crate::op::build::Build;
use std::borrow::Cow;

/// How many nodes were replaced.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Expanded {
    /// Attentions.
    pub attention: usize,
    /// Stochastic gates.
    pub gates: usize,
    /// Detached values.
    pub detached: usize,
}

/// Whether a node has no kernel of its own: an attention, also where `all` is asked for, or a stochastic gate.
fn goes(g: &Graph, n: NodeId, all: bool) -> bool {
    match g.node(n).op {
        Op::Attention(_) => all || !has_kernel(g, n),
        Op::StochasticGate(_) => true,
        _ => false,
    }
}

/// Replaces attentions of a graph by their parts, all or those without a [kernel](has_kernel), stochastic gates by theirs, and detached
/// values by themselves.
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
            Op::StochasticGate(op) => {
                count.gates += 1;
                op.parts(&mut Build::new(ed, "stochastic-gate"), &inputs)?
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

/// The graph, or a copy in which [parts](expand_composites) stand for composites; detached values stay.
pub fn without_composites(graph: &Graph, all: bool) -> Result<Cow<'_, Graph>, Diag> {
    if !graph.all_nodes().into_iter().any(|n| goes(graph, n, all)) {
        return Ok(Cow::Borrowed(graph));
    }
    let mut copy = graph.clone();
    expand(&mut Editor::new(&mut copy), all)?;
    Ok(Cow::Owned(copy))
}
