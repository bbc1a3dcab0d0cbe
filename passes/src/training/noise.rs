//! Noise that is a function of the number of the step.

use planish_ir::op::build::Build;
use planish_ir::op::random::Random;
use planish_ir::op::recurrent::skim::SkimRecurrent;
use planish_ir::{DType, Diag, Editor, NodeId, Op, Type, ValueId};

/// Gives every random node that has no seed as its operand that one, and a number of its own, so that what it draws is a function of
/// the seed, of the node and of the element. Those within regions stay as they are. The input `seed`, if any node needs it.
pub(super) fn seeded(ed: &mut Editor<'_>) -> Result<Option<ValueId>, Diag> {
    let g = ed.graph();
    let random = |n: &NodeId| {
        matches!(g.node(*n).op, Op::Random(_)) && g.node(*n).inputs.get(1).copied().flatten().is_none()
    };
    let nodes: Vec<NodeId> = g.nodes_in(g.root()).filter(random).collect();
    if nodes.is_empty() {
        return Ok(None);
    }
    let seed = ed.input("seed", Type::tensor(DType::I64, Vec::new()));
    for (number, n) in nodes.into_iter().enumerate() {
        let node = ed.graph().node(n);
        let (Op::Random(op), shape) = (node.op.clone(), node.inputs[0]) else { continue };
        ed.rewrite(n, Random { seed: Some(number as i64), ..op }, &[shape, Some(seed)])?;
    }
    Ok(Some(seed))
}

/// Gives all Gumbel gates and layers that skim the input `temperature`, a number, if there are any.
pub(super) fn tempered(ed: &mut Editor<'_>, dtype: DType) -> Result<Option<ValueId>, Diag> {
    let g = ed.graph();
    let gumbel = |n: &NodeId| match &g.node(*n).op {
        Op::StochasticGate(op) => op.is_gumbel(),
        op => matches!(op, Op::SkimRecurrent(_)),
    };
    let nodes: Vec<NodeId> = g.nodes_in(g.root()).filter(gumbel).collect();
    if nodes.is_empty() {
        return Ok(None);
    }
    let temperature = ed.input("temperature", Type::tensor(dtype, Vec::new()));
    for n in nodes {
        let node = ed.graph().node(n);
        let (op, a, mut inputs) = (node.op.clone(), node.inputs[0], node.inputs.clone());
        let at = if matches!(op, Op::SkimRecurrent(_)) { SkimRecurrent::TEMPERATURE } else { 2 };
        inputs.resize(at + 1, None);
        ed.before(n);
        let to = a.and_then(|a| ed.graph().dtype(a)).unwrap_or(dtype);
        let own =
            if to == dtype { temperature } else { Build::new(ed, "temperature").cast(temperature, to)? };
        inputs[at] = Some(own);
        ed.rewrite(n, op, &inputs)?;
    }
    Ok(Some(temperature))
}
