//! Products whose columns are computed only where a mask behind them is not zero.

use crate::weights::Selection;
use crate::{PassCx, util};
use planish_ir::graph::Use;
use planish_ir::op::binary::{Binary, BinaryKind};
use planish_ir::op::control::{Fallback, Gate, Granularity};
use planish_ir::op::matmul::MatMul;
use planish_ir::op::unary::UnaryKind;
use planish_ir::op::views::{Squeeze, Transpose};
use planish_ir::{DType, Diag, Dim, Editor, Graph, NodeId, Op, Tensor, Type, ValueId};

/// The options of `kind=columns`.
#[derive(Clone, Debug)]
pub(crate) struct Columns {
    which: Selection,
}

/// A product of one row with what it is multiplied by in the end.
struct Layer {
    product: NodeId,
    /// Where the mask is known and the product is not needed yet.
    mul: NodeId,
    x: ValueId,
    w: ValueId,
    mask: ValueId,
    inputs: usize,
    units: usize,
}

impl Columns {
    pub(super) fn new(which: Selection) -> Columns {
        Columns { which }
    }

    pub(super) fn run(&self, ed: &mut Editor<'_>, cx: &mut PassCx) -> Result<(), Diag> {
        for n in ed.graph().nodes_in(ed.graph().root()).collect::<Vec<_>>() {
            let g = ed.graph();
            if g.node(n).op.weight_input().is_none() {
                continue;
            }
            let name = g.describe(n);
            let found = match self.which.keeps(&name, g.node(n).op.name(), false) {
                Some(why) => Err(why),
                None => layer(g, n),
            };
            match found {
                Err(why) => cx.remark(ed.graph(), n, "gate-skipped", format!("{name}: left alone, {why}")),
                Ok(l) => {
                    let text = format!(
                        "{name}: of {} columns of {} weights only those are computed that are multiplied by something",
                        l.units, l.inputs
                    );
                    gated(ed, &l)?;
                    cx.remark(ed.graph(), l.mul, "gate-done", text);
                    cx.add("layers-gated", 1.0);
                }
            }
        }
        Ok(())
    }
}

/// Whether a value is a mask: not negative, and zero for many of its elements.
fn is_mask(g: &Graph, v: ValueId) -> bool {
    let Some(n) = g.def_node(v) else { return false };
    let operands = || g.node(n).inputs.iter().flatten();
    match &g.node(n).op {
        Op::Cast(_) => operands().all(|v| g.dtype(*v) == Some(DType::Bool)),
        Op::Unary(u) => u.kind == UnaryKind::Relu,
        // A probability where it is above a threshold.
        Op::Where(_) => true,
        Op::Binary(b) if b.kind == BinaryKind::Mul => operands().any(|v| is_mask(g, *v)),
        _ => false,
    }
}

/// The layer that begins with a product, or why there is none.
fn layer(g: &Graph, n: NodeId) -> Result<Layer, &'static str> {
    let Op::MatMul(op) = &g.node(n).op else { return Err("only matrix products have columns") };
    let (Some(x), Some(w)) = (util::operand(g, n, 0), util::operand(g, n, 1)) else {
        return Err("an operand is missing");
    };
    let Some((_, c)) = g.as_const(w) else { return Err("its weights are no constant") };
    let [rows, columns] = c.shape[..] else { return Err("its weights are no matrix") };
    let (inputs, units) = if op.trans_b { (columns, rows) } else { (rows, columns) };
    let one = g.dims(x).is_some_and(|d| d.len() == 2 && d[0].is(1) && d[1].is(inputs as i64));
    if op.trans_a || !one {
        return Err("it has not one row only");
    }
    let mut v = g.node(n).outputs[0];
    for _ in 0..2 {
        let [Use::Node(next, _)] = g.uses(v) else { break };
        let Op::Binary(b) = &g.node(*next).op else { break };
        let other = g.node(*next).inputs.iter().flatten().find(|o| **o != v).copied();
        let Some(other) = other else { break };
        match b.kind {
            BinaryKind::Add if g.as_const(other).is_some() => v = g.node(*next).outputs[0],
            BinaryKind::Mul if is_mask(g, other) && g.dims(other) == g.dims(v) => {
                return Ok(Layer { product: n, mul: *next, x, w, mask: other, inputs, units });
            }
            _ => break,
        }
    }
    Err("no mask multiplies what it gives")
}

fn gated(ed: &mut Editor<'_>, l: &Layer) -> Result<(), Diag> {
    let g = ed.graph();
    let Op::MatMul(op) = g.node(l.product).op.clone() else {
        return Err(Diag::error("internal-pass", "a product has become something else"));
    };
    let dtype = g.dtype(l.x).unwrap_or(DType::F32);
    let (_, c) = g.as_const(l.w).ok_or_else(|| Diag::error("internal-pass", "weights are no constant"))?;
    let values = c.decode()?;
    // Each column of the weights becomes a row, so that what is chosen lies together.
    let by_unit = match op.trans_b {
        true => values,
        false => {
            let v = values.to_f64();
            let turned = (0..l.units * l.inputs).map(|i| v[i % l.inputs * l.units + i / l.inputs]).collect();
            Tensor::floats(values.dtype(), &[l.units, l.inputs], turned)?
        }
    };
    // The bias that is added to the product comes before the mask too: all of it moves behind the mask.
    ed.before(l.mul);
    let zero = ed.constant(Tensor::scalar(ed.graph().dtype(l.mask).unwrap_or(dtype), 0.0)?)?;
    let on = ed.node1(Binary { kind: BinaryKind::Greater }, &[l.mask, zero])?;
    let on = ed.node1(Squeeze { axes: vec![0] }, &[on])?;
    let weights = ed.constant(by_unit)?;
    let column = ed.node1(Transpose { perm: vec![1, 0] }, &[l.x])?;
    let (region, empty) = (ed.new_region(), ed.new_region());
    let loc = ed.loc().clone();
    let count = Dim::from(ed.graph_mut().symbols.fresh(0, None));
    let some = ed.param(region, Type::tensor(dtype, vec![count, Dim::from(l.inputs)]).into());
    let row = ed.param(region, Type::tensor(dtype, vec![Dim::from(l.inputs), Dim::from(1)]).into());
    ed.at_end(region);
    ed.set_loc(loc);
    let product = ed.node1(MatMul { trans_a: false, trans_b: false }, &[some, row])?;
    ed.result(region, product);
    ed.before(l.mul);
    let gate = Gate { granularity: Granularity::Rows, axis: 0, block: 0, k: 0, fallback: Fallback::Zero };
    let made = ed.node_with_regions(gate, &[Some(on), Some(weights), Some(column)], vec![region, empty])?;
    let mut y = ed.node1(Transpose { perm: vec![1, 0] }, &[made[0]])?;
    let mul = ed.graph().node(l.mul).inputs.clone();
    let masked = mul.iter().flatten().copied().find(|v| *v != l.mask);
    let masked = masked.ok_or_else(|| Diag::error("internal-pass", "a mask without what it masks"))?;
    if masked != ed.graph().node(l.product).outputs[0] {
        let add = ed.graph().def_node(masked);
        let bias = add.and_then(|n| {
            ed.graph().node(n).inputs.iter().flatten().copied().find(|v| ed.graph().as_const(*v).is_some())
        });
        let bias = bias.ok_or_else(|| Diag::error("internal-pass", "a sum without a bias"))?;
        y = ed.node1(Binary { kind: BinaryKind::Add }, &[y, bias])?;
    }
    let (op, inputs) = (ed.graph().node(l.mul).op.clone(), mul);
    let inputs: Vec<_> = inputs.into_iter().map(|v| if v == Some(masked) { Some(y) } else { v }).collect();
    ed.rewrite(l.mul, op, &inputs)?;
    Ok(())
}
