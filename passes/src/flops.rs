//! Arithmetic that nodes need, counted from their types.

use planish_ir::{Dim, Graph, NodeId, Op};

/// Floating-point operations of one node, regions not included; a fused multiply-add counts as two. `None` when a shape
/// is not known.
pub fn flops(graph: &Graph, n: NodeId) -> Option<Dim> {
    let node = graph.node(n);
    let operand = |i: usize| node.inputs.get(i).copied().flatten().and_then(|v| graph.dims(v));
    let result = |i: usize| node.outputs.get(i).and_then(|v| graph.dims(*v));
    let out = Dim::product(result(0)?);
    let two = Dim::from(2i64);
    let name = node.op.name();
    Some(match name {
        "conv" => two.mul(&out).mul(&Dim::product(operand(1)?.get(1..)?)),
        "conv-transpose" => two.mul(&Dim::product(operand(0)?)).mul(&Dim::product(operand(1)?.get(1..)?)),
        _ if name.starts_with("matmul") || name == "gemm" => two.mul(&out).mul(operand(0)?.last()?),
        "recurrent" => {
            let steps = operand(0)?.get(..2)?;
            let weights = Dim::product(operand(1)?).add(&Dim::product(operand(2)?));
            two.mul(&Dim::product(steps)).mul(&weights)
        }
        // As if every step was read.
        "skim-recurrent" => {
            let steps = operand(0)?.get(..2)?;
            let weights = [1, 2, 5]
                .iter()
                .try_fold(Dim::from(0i64), |n, i| Some(n.add(&Dim::product(operand(*i)?))))?;
            two.mul(&Dim::product(steps)).mul(&weights)
        }
        "attention" => {
            let keys = operand(1)?;
            two.mul(&two).mul(&out).mul(keys.get(keys.len().checked_sub(2)?)?)
        }
        _ if moves_only(&node.op) => Dim::from(0i64),
        _ => out,
    })
}

/// Whether the operation only renames or copies.
fn moves_only(op: &Op) -> bool {
    let moving = [
        "const",
        "reshape",
        "flatten",
        "transpose",
        "concat",
        "slice",
        "gather",
        "split",
        "expand",
        "pad",
        "tile",
        "shape",
        "squeeze",
        "unsqueeze",
        "identity",
        "cast",
    ];
    moving.contains(&op.name())
}
