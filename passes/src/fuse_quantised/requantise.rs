//! Quantisation of what comes from stored integers: moved towards its producer, and its scale into the constants there.

use super::numbers;
use crate::{PassCx, util};
use planish_ir::graph::Use;
use planish_ir::op::binary::{Binary, BinaryKind as B};
use planish_ir::op::pool::PoolKind;
use planish_ir::op::quant::Quantize;
use planish_ir::op::resize::ResizeMode;
use planish_ir::op::unary::UnaryKind;
use planish_ir::{Constant, DType, Diag, Editor, Graph, NodeId, Op, Tensor, ValueId};

/// Operations between a product and a quantisation that are looked through, at most.
const DEPTH: usize = 32;

pub(super) fn run(ed: &mut Editor<'_>, cx: &mut PassCx) -> Result<(), Diag> {
    // A quantisation that has moved is looked at again where it is now.
    let mut work: Vec<NodeId> = ed.graph().all_nodes();
    while let Some(n) = work.pop() {
        if ed.graph().is_live(n) && bytes(ed.graph(), n).is_some() {
            if undone(ed, n)? {
                cx.add("requantisations-removed", 1.0);
            } else if let Some(moved) = raised(ed, n)? {
                cx.add("quantisations-moved", 1.0);
                work.extend(moved);
            }
        }
    }
    for n in ed.graph().all_nodes() {
        if ed.graph().is_live(n) && scaled(ed, n)? {
            cx.add("scales-folded", 1.0);
        }
    }
    Ok(())
}

/// A quantisation to 8 bits with one constant scale: what of, and the scale.
fn bytes(g: &Graph, n: NodeId) -> Option<(ValueId, f64)> {
    let Op::Quantize(q) = &g.node(n).op else { return None };
    let fits = q.block == 0 && q.precision == DType::F32 && matches!(q.to, DType::U8 | DType::I8);
    let x = util::operand(g, n, 0)?;
    let [scale] = numbers(g, n, 1)?[..] else { return None };
    (fits && scale > 0.0 && scale.is_finite() && g.dtype(x) == Some(DType::F32)).then_some((x, scale))
}

/// The zero point of a conversion, if it is one constant.
fn zero(g: &Graph, n: NodeId) -> Option<i64> {
    let Some(z) = util::operand(g, n, 2) else { return Some(0) };
    let z = util::constant(g, z)?;
    match z.decode().ok()?.to_i64().ok()?[..] {
        [z] => Some(z),
        _ => None,
    }
}

/// A quantisation of a value that was dequantised in the same way is that value.
fn undone(ed: &mut Editor<'_>, n: NodeId) -> Result<bool, Diag> {
    let g = ed.graph();
    let Some((x, scale)) = bytes(g, n) else { return Ok(false) };
    let Some(d) = g.def_node(x) else { return Ok(false) };
    let Op::Dequantize(op) = &g.node(d).op else { return Ok(false) };
    let y = g.node(n).outputs[0];
    let Some(stored) = util::operand(g, d, 0) else { return Ok(false) };
    let alike = op.block == 0
        && op.to == DType::F32
        && numbers(g, d, 1).as_deref() == Some(&[scale][..])
        && zero(g, d).is_some_and(|z| zero(g, n) == Some(z))
        && g.dtype(stored) == g.dtype(y)
        && g.dims(stored) == g.dims(y);
    if !alike {
        return Ok(false);
    }
    ed.replace(y, stored);
    ed.erase(n)?;
    free(ed, x)?;
    Ok(true)
}

/// Erases what made a value that nobody uses any more.
fn free(ed: &mut Editor<'_>, v: ValueId) -> Result<(), Diag> {
    let g = ed.graph();
    let Some(n) = g.def_node(v) else { return Ok(()) };
    if g.is_live(n)
        && !matches!(g.node(n).op, Op::Const(_))
        && g.node(n).outputs.iter().all(|v| g.uses(*v).is_empty())
    {
        ed.erase(n)?;
    }
    Ok(())
}

/// Whether an operation only chooses among elements of its first operand, or of all where it concatenates.
fn chooses(op: &Op) -> bool {
    match op {
        Op::Pool(p) => p.kind == PoolKind::Max && p.indices.is_none(),
        Op::Resize(r) => r.mode == ResizeMode::Nearest,
        Op::Transpose(_)
        | Op::Reshape(_)
        | Op::Squeeze(_)
        | Op::Unsqueeze(_)
        | Op::Flatten(_)
        | Op::Slice(_)
        | Op::Concat(_) => true,
        _ => false,
    }
}

/// Moves a quantisation before an operation that only chooses elements. The quantisations that there are now.
fn raised(ed: &mut Editor<'_>, n: NodeId) -> Result<Option<Vec<NodeId>>, Diag> {
    let g = ed.graph();
    let Some((x, _)) = bytes(g, n) else { return Ok(None) };
    let Some(m) = g.def_node(x) else { return Ok(None) };
    let (node, y) = (g.node(m).clone(), g.node(n).outputs[0]);
    if !chooses(&node.op) || util::only_user(g, x) != Some(n) || node.region != g.node(n).region {
        return Ok(None);
    }
    // The window of a pooling may lie in the padding as a whole, and cropping puts a number of its own there.
    if let Op::Resize(r) = &node.op
        && r.extrapolation != 0.0
    {
        return Ok(None);
    }
    let parts = if matches!(node.op, Op::Concat(_)) { node.inputs.len() } else { 1 };
    let ready = |v: ValueId| {
        // What others read as f32 would be kept twice.
        let single = util::only_user(g, v) == Some(m);
        let stored = g.def_node(v).is_some_and(|d| matches!(g.node(d).op, Op::Dequantize(_)));
        g.dtype(v) == Some(DType::F32) && (single || stored)
    };
    if !node.inputs[..parts].iter().flatten().all(|v| ready(*v)) {
        return Ok(None);
    }
    let (op, scale, zero) = (g.node(n).op.clone(), util::operand(g, n, 1), util::operand(g, n, 2));
    ed.before(n);
    let mut inputs = node.inputs.clone();
    let mut made = Vec::new();
    for v in inputs[..parts].iter_mut().flatten() {
        let q = ed.node(op.clone(), &[Some(*v), scale, zero])?[0];
        made.extend(ed.graph().def_node(q));
        *v = q;
    }
    let out = ed.node(node.op.clone(), &inputs)?[0];
    ed.replace(y, out);
    ed.erase(n)?;
    ed.erase(m)?;
    Ok(Some(made))
}

/// Makes the scale of a quantisation 1 where the constants before it can be divided by it instead.
fn scaled(ed: &mut Editor<'_>, n: NodeId) -> Result<bool, Diag> {
    let g = ed.graph();
    let Some((x, scale)) = bytes(g, n).filter(|(_, scale)| *scale != 1.0) else { return Ok(false) };
    if !sums(g, x, DEPTH) {
        return Ok(false);
    }
    let zero = util::operand(g, n, 2);
    let Op::Quantize(op) = g.node(n).op.clone() else { return Ok(false) };
    let factor = 1.0 / scale;
    let x = if takes(g, x, n, DEPTH) {
        multiply(ed, x, factor, DEPTH)?;
        x
    } else {
        ed.before(n);
        let factor = number(ed, factor)?;
        ed.node1(Binary { kind: B::Mul }, &[x, factor])?
    };
    ed.before(n);
    let one = number(ed, 1.0)?;
    ed.rewrite(n, Quantize { axis: 0, ..op }, &[Some(x), Some(one), zero])?;
    Ok(true)
}

fn number(ed: &mut Editor<'_>, v: f64) -> Result<ValueId, Diag> {
    ed.constant(Constant::from(Tensor::floats(DType::F32, &[], vec![v])?))
}

/// Whether a value follows from sums of a contraction by element-wise operations that nothing else sees.
fn sums(g: &Graph, v: ValueId, depth: usize) -> bool {
    let Some(n) = g.def_node(v).filter(|_| depth > 0 && g.uses(v).len() == 1) else { return false };
    match &g.node(n).op {
        Op::Conv(_) | Op::ConvInteger(_) | Op::MatMul(_) | Op::MatMulInteger(_) => true,
        op => op.is_elementwise() && g.node(n).inputs.iter().flatten().any(|v| sums(g, *v, depth - 1)),
    }
}

/// Whether a constant holds floats that are few.
fn few(g: &Graph, v: ValueId) -> bool {
    util::constant(g, v)
        .is_some_and(|c| c.dtype == DType::F32 && c.shape.iter().filter(|d| **d != 1).count() <= 1)
}

/// Whether a value, which only `user` sees, is multiplied with a positive number by changing constants.
fn takes(g: &Graph, v: ValueId, user: NodeId, depth: usize) -> bool {
    if few(g, v) {
        return true;
    }
    let alone = matches!(g.uses(v), [Use::Node(u, _)] if *u == user);
    let Some(n) = g.def_node(v).filter(|_| alone && depth > 0) else { return false };
    let operand = |i: usize| util::operand(g, n, i);
    let next = |i: usize| operand(i).is_some_and(|v| takes(g, v, n, depth - 1));
    match &g.node(n).op {
        Op::Unary(u) => u.kind == UnaryKind::Relu && next(0),
        Op::Binary(b) => match b.kind {
            B::Mul => (0..2).any(|i| operand(i).is_some_and(|v| few(g, v))),
            B::Add | B::Sub | B::Min | B::Max => next(0) && next(1),
            _ => false,
        },
        Op::Dequantize(d) => d.block == 0 && d.to == DType::F32 && operand(1).is_some_and(|v| few(g, v)),
        _ => false,
    }
}

/// Multiplies what makes a value that [`takes`] it.
fn multiply(ed: &mut Editor<'_>, v: ValueId, factor: f64, depth: usize) -> Result<(), Diag> {
    let Some(n) = ed.graph().def_node(v).filter(|_| depth > 0) else { return Ok(()) };
    let node = ed.graph().node(n).clone();
    let which: Vec<usize> = match &node.op {
        Op::Binary(b) if b.kind == B::Mul => {
            let g = ed.graph();
            (0..2).filter(|i| util::operand(g, n, *i).is_some_and(|v| few(g, v))).take(1).collect()
        }
        Op::Dequantize(_) => vec![1],
        op => (0..if matches!(op, Op::Unary(_)) { 1 } else { 2 }).collect(),
    };
    let mut inputs = node.inputs.clone();
    for i in which {
        let Some(x) = inputs[i] else { continue };
        if !few(ed.graph(), x) {
            multiply(ed, x, factor, depth - 1)?;
            continue;
        }
        let Some(c) = util::constant(ed.graph(), x) else { continue };
        let t = c.decode()?;
        let values = t.to_f64().into_iter().map(|x| x * factor).collect();
        ed.before(n);
        inputs[i] = Some(ed.constant(Constant::from(Tensor::floats(DType::F32, t.shape(), values)?))?);
    }
    ed.rewrite(n, node.op, &inputs)
}
