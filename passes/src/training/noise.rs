//! Noise that is a function of the number of the step.

use planish_ir::op::random::Random;
use planish_ir::{Diag, Editor, NodeId, Op, Type, ValueId};

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
    let seed = ed.input("seed", Type::tensor(planish_ir::DType::I64, Vec::new()));
    for (number, n) in nodes.into_iter().enumerate() {
        let node = ed.graph().node(n);
        let (Op::Random(op), shape) = (node.op.clone(), node.inputs[0]) else { continue };
        ed.rewrite(n, Random { seed: Some(number as i64), ..op }, &[shape, Some(seed)])?;
    }
    Ok(Some(seed))
}
