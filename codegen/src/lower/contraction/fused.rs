//! Fused groups: a contraction with its epilogue, or a chain of element-wise operations as one loop nest.

use super::{blocked, conv, conv_integer, epilogue::Epilogue, gated, matmul};
use crate::kernel::{Builder, Val};
use crate::lower::cx::{LowerCx, Opnd};
use crate::lower::elementwise::{self, scalar_op};
use crate::lower::layout;
use crate::lower::quantised;
use planish_ir::op::fused::follows_contraction;
use planish_ir::{DType, Diag, NodeId, Op, ValueId};
use std::collections::HashMap;

pub(in crate::lower) fn lower_fused(cx: &mut LowerCx<'_>) -> Result<(), Diag> {
    let g = cx.graph;
    let region = cx.node().regions[0];
    let mut captures: HashMap<ValueId, ValueId> = HashMap::new();
    for (i, p) in g.region(region).params.iter().enumerate() {
        captures.insert(*p, cx.input_value(i)?);
    }
    let count = cx.node().outputs.len();
    let nodes: Vec<NodeId> = g.nodes_in(region).filter(|n| !matches!(g.node(*n).op, Op::Const(_))).collect();
    let Some(anchor) = nodes.iter().copied().find(|n| !follows_contraction(&g.node(*n).op)) else {
        return chain(cx, &nodes, &captures, &g.region(region).results.clone());
    };
    // A parameter of the region stands for a value outside, which may be a constant that is packed.
    let value = |cx: &LowerCx<'_>, i: usize| -> Result<Option<ValueId>, Diag> {
        let Some(v) = g.node(anchor).inputs.get(i).copied().flatten() else { return Ok(None) };
        match g.value(v).def {
            planish_ir::graph::Def::Param(_, k) => cx.input_value(k as usize).map(Some),
            planish_ir::graph::Def::Node(..) => Ok(Some(v)),
        }
    };
    let missing = || Diag::error("internal-lower", "a fused contraction lacks an operand");
    let xv = value(cx, 0)?.ok_or_else(missing)?;
    let wv = value(cx, 1)?.ok_or_else(missing)?;
    if let Op::ConvInteger(op) = &g.node(anchor).op {
        let (_, out) = cx.tensor_type(g.node(anchor).outputs[0])?;
        let zeros = [value(cx, 2)?, value(cx, 3)?];
        let group = Some((region, anchor, &captures));
        return conv_integer::emit(cx, op, conv_integer::Work { x: xv, w: wv, zeros, out, group });
    }
    let (w_type, w) = cx.tensor_type(wv)?;
    let (_, out) = cx.tensor_type(g.node(anchor).outputs[0])?;
    let bias = value(cx, 2)?.map(|b| cx.memory_of(b)).transpose()?;
    if let Op::Conv(op) = &g.node(anchor).op
        && let Some(p) = blocked::plan(cx, op, xv, wv, &out, cx.lies_blocked(xv))
        && (0..count).all(|k| cx.output_type(k).is_ok_and(|t| conv_integer::goes_blocked(t.0) && t.1 == out))
    {
        let e = Epilogue::of_region(cx, region, anchor, &captures, Some(1), true, vec![])?;
        let o = blocked::Operands { x: xv, w: wv, bias, zero: None, w_zero: None, out };
        return blocked::emit(cx, p, o, e);
    }
    let x = cx.memory_of(xv)?;
    let outs: Vec<Opnd> = (0..count).map(|k| cx.output(k)).collect::<Result<_, _>>()?;
    match &g.node(anchor).op {
        Op::Conv(op) => {
            let e = Epilogue::of_region(cx, region, anchor, &captures, Some(1), false, outs)?;
            let weights = conv::Weighed::Value(wv);
            conv::emit(cx, op, conv::Operands { x, w, w_type, bias, weights, out }, e)
        }
        Op::MatMul(op) => {
            let e = Epilogue::of_region(cx, region, anchor, &captures, None, false, outs)?;
            matmul::emit(cx, op, matmul::Operands { a: x, b: w, b_type: w_type, b_value: wv, out }, e)
        }
        Op::GatedMatMul(op) => {
            let e = Epilogue::of_region(cx, region, anchor, &captures, None, false, outs)?;
            gated::emit(cx, op, matmul::Operands { a: x, b: w, b_type: w_type, b_value: wv, out }, e)
        }
        Op::MatMulInteger(_) => {
            let zeros = [value(cx, 2)?, value(cx, 3)?];
            let e = Epilogue::of_region(cx, region, anchor, &captures, None, false, outs)?;
            quantised::emit_product(cx, quantised::Operands { a: x, b: wv, zeros, out }, e)
        }
        other => Err(Diag::error("internal-lower", format!("`{}` cannot lead a fused group", other.name()))),
    }
}

/// Element-wise operations in one loop nest.
fn chain(
    cx: &mut LowerCx<'_>,
    nodes: &[NodeId],
    captures: &HashMap<ValueId, ValueId>,
    results: &[ValueId],
) -> Result<(), Diag> {
    let g = cx.graph;
    // Operands as the group and as its surroundings know them.
    let mut ins: Vec<(ValueId, ValueId)> = Vec::new();
    let mut types: HashMap<ValueId, DType> = HashMap::new();
    let mut cost = 0;
    for n in nodes {
        for v in g.node(*n).inputs.iter().flatten() {
            if types.contains_key(v) {
                continue;
            }
            let outer = captures.get(v).copied().unwrap_or(*v);
            types.insert(*v, cx.tensor_type(outer)?.0);
            ins.push((*v, outer));
        }
        let y = g.node(*n).outputs[0];
        types.insert(y, cx.tensor_type(y)?.0);
        cost += elementwise::op_cost(&g.node(*n).op);
    }
    for v in results {
        // A result that no operation made is an operand passed on.
        if !types.contains_key(v) {
            let outer =
                captures.get(v).ok_or_else(|| Diag::error("internal-lower", "a result without a value"))?;
            types.insert(*v, cx.tensor_type(*outer)?.0);
            ins.push((*v, *outer));
        }
    }
    let expr = |b: &mut Builder, vals: &[Val]| {
        let mut env: HashMap<ValueId, Val> = ins.iter().map(|(v, _)| *v).zip(vals.iter().copied()).collect();
        for n in nodes {
            let node = g.node(*n);
            let inputs: Vec<ValueId> = node.inputs.iter().flatten().copied().collect();
            let vals: Vec<Val> = inputs.iter().map(|v| env[v]).collect();
            let dtypes: Vec<DType> = inputs.iter().map(|v| types[v]).collect();
            let r = scalar_op(b, &node.op, &vals, &dtypes, types[&node.outputs[0]]);
            env.insert(node.outputs[0], r);
        }
        results.iter().map(|v| env[v]).collect()
    };
    let outer: Vec<ValueId> = ins.iter().map(|(_, v)| *v).collect();
    let numbers = elementwise::Numbers::new(cx, &outer);
    let expr = elementwise::reading(&numbers, &expr);
    let outer = numbers.others(&outer);
    if layout::lower_chain(cx, "chain", &outer, cost.max(1), &expr)? {
        return Ok(());
    }
    let operands: Vec<Opnd> = outer.iter().map(|v| cx.memory_of(*v)).collect::<Result<_, _>>()?;
    let outs: Vec<Opnd> = (0..cx.node().outputs.len()).map(|k| cx.output(k)).collect::<Result<_, _>>()?;
    elementwise::emit(cx, "chain", &operands, &outs, cost.max(1), &expr)
}
