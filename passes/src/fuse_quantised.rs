//! See [`FuseQuantised`].

mod requantise;

use crate::{Options, Pass, PassCx, PassMeta, declare_pass, util};
use planish_ir::graph::Use;
use planish_ir::op::binary::{Binary, BinaryKind};
use planish_ir::op::cast::Cast;
use planish_ir::op::quant::{ConvInteger, Dequantize, MatMulInteger};
use planish_ir::op::views::Unsqueeze;
use planish_ir::{Constant, DType, Diag, Editor, Graph, NodeId, Op, Tensor, ValueId};

declare_pass! {
    /// Multiplies stored integers where both operands of a matrix product or convolution are dequantised: the product of the integers, times the product of the scales.
    ///
    /// The left operand has one scale, the right one is a constant of 8-bit integers with a scale for all or for each output.
    ///
    /// What is quantised again stays in bytes: quantisation moves before maximum pooling, transposition, changes of shape, nearest
    /// neighbours and concatenation, vanishes where it undoes a dequantisation, and its scale becomes part of the constants of the product before it,
    /// through addition, limits and ReLU.
    ///
    /// # Preserves
    /// Outputs up to rounding (relative 1e-6 of the largest term of a sum): the sums are exact and rounded once. A value that lies so near the
    /// middle between two stored integers may become the other one.
    ///
    /// # Declines
    /// Other dequantised operands are left to the product of floats; remark `integers-kept` with the reason where the right operand is such a constant.
    ///
    /// # Example
    /// `v4 = matmul (dequantize v0, s0, z0), (dequantize c1, s1)` becomes `v4 = matmul-integer v0, c1, z0`, `cast{to=f32}` and `mul` by `s0 * s1`.
    pub struct FuseQuantised {} = { name: "fuse-quantised", kind: Exact, options: [] }
}

impl FuseQuantised {
    pub(crate) fn new(_: &Options) -> Result<Self, Diag> {
        Ok(FuseQuantised {})
    }
}

/// A product or convolution of integers.
struct Found {
    x: ValueId,
    x_zero: Option<ValueId>,
    /// Of a product, stored as inputs x outputs.
    w: Tensor,
    w_zero: Option<Tensor>,
    /// One scale for all outputs or for each.
    scales: Vec<f64>,
}

/// The node that dequantises a value, if one does.
fn dequantised(g: &Graph, v: ValueId) -> Option<(NodeId, &Dequantize)> {
    let n = g.def_node(v)?;
    match &g.node(n).op {
        Op::Dequantize(d) if d.block == 0 && d.to == DType::F32 => Some((n, d)),
        _ => None,
    }
}

/// The constant f32 elements that an operand is.
fn numbers(g: &Graph, n: NodeId, i: usize) -> Option<Vec<f64>> {
    let c = util::constant(g, util::operand(g, n, i)?)?;
    (c.dtype == DType::F32).then(|| c.decode().ok()).flatten().map(|t| t.to_f64())
}

/// The right operand of a product or convolution, if it is a constant of 8-bit integers that is dequantised: its node, and whether
/// the axis of its scales is that of the outputs.
fn weights(g: &Graph, n: NodeId) -> Option<(NodeId, bool)> {
    let (d, how) = dequantised(g, util::operand(g, n, 1)?)?;
    let c = util::constant(g, util::operand(g, d, 0)?)?;
    let rank = c.shape.len();
    let outputs = match &g.node(n).op {
        Op::MatMul(op) if rank == 2 => usize::from(!op.trans_b),
        Op::Conv(_) if rank > 2 => 0,
        _ => return None,
    };
    if !matches!(c.dtype, DType::I8 | DType::U8) {
        return None;
    }
    let single = numbers(g, d, 1)?.len() == 1;
    Some((d, single || planish_ir::op::normalize_axis(how.axis, rank).ok()? == outputs))
}

/// Whether a product multiplies integers here, or why it does not.
fn fits(g: &Graph, n: NodeId) -> Option<Result<(NodeId, NodeId), &'static str>> {
    let (w, follows) = weights(g, n)?;
    let transposed = matches!(&g.node(n).op, Op::MatMul(op) if op.trans_a);
    let left = util::operand(g, n, 0).and_then(|x| dequantised(g, x));
    let Some((x, _)) = left else { return Some(Err("its left operand is no dequantised value")) };
    let stored = util::operand(g, x, 0).and_then(|v| g.dtype(v));
    Some(if transposed {
        Err("its left operand is transposed")
    } else if !follows {
        Err("the scales of its weights follow its inputs")
    } else if !matches!(stored, Some(DType::U8 | DType::I8)) {
        Err("its left operand is not stored in 8 bits")
    } else if numbers(g, x, 1).is_none_or(|s| s.len() != 1) {
        Err("the scale of its left operand is not one constant")
    } else {
        Ok((x, w))
    })
}

/// Whether a node dequantises weights of products and convolutions that multiply integers, and of nothing else.
pub(crate) fn multiplies_integers(g: &Graph, n: NodeId) -> bool {
    let [y] = g.node(n).outputs.as_slice() else { return false };
    matches!(g.node(n).op, Op::Dequantize(_))
        && !g.uses(*y).is_empty()
        && g.uses(*y).iter().all(|u| match u {
            Use::Node(m, 1) => matches!(fits(g, *m), Some(Ok((_, w))) if w == n),
            _ => false,
        })
}

fn find(g: &Graph, n: NodeId, (x, w): (NodeId, NodeId)) -> Option<Found> {
    let c = util::constant(g, util::operand(g, w, 0)?)?;
    let mut t = c.decode().ok()?;
    if matches!(&g.node(n).op, Op::MatMul(op) if op.trans_b) {
        let [rows, columns] = [c.shape[0], c.shape[1]];
        let b = t.bytes();
        let swapped: Vec<u8> =
            (0..columns).flat_map(|k| (0..rows).map(move |j| j * columns + k)).map(|i| b[i]).collect();
        t = Tensor::from_bytes(c.dtype, vec![columns, rows], swapped.into()).ok()?;
    }
    let w_zero = match util::operand(g, w, 2) {
        Some(z) => {
            let z = util::constant(g, z)?.decode().ok()?;
            z.to_i64().ok()?.iter().any(|z| *z != 0).then_some(z)
        }
        None => None,
    };
    let step = *numbers(g, x, 1)?.first()?;
    // In the order of roundings of the separate operations.
    let scales = numbers(g, w, 1)?.into_iter().map(|s| f64::from((s * step) as f32)).collect();
    Some(Found { x: util::operand(g, x, 0)?, x_zero: util::operand(g, x, 2), w: t, w_zero, scales })
}

impl Pass for FuseQuantised {
    fn meta(&self) -> &'static PassMeta {
        &Self::META
    }
    fn run(&self, ed: &mut Editor<'_>, cx: &mut PassCx) -> Result<(), Diag> {
        for n in ed.graph().all_nodes() {
            let g = ed.graph();
            if !g.is_live(n) {
                continue;
            }
            let nodes = match fits(g, n) {
                None => continue,
                Some(Ok(nodes)) => nodes,
                Some(Err(why)) => {
                    cx.remark(g, n, "integers-kept", format!("{}: {why}", g.describe(n)));
                    continue;
                }
            };
            let Some(f) = find(g, n, nodes) else { continue };
            let y = g.node(n).outputs[0];
            let op = g.node(n).op.clone();
            ed.before(n);
            let w = ed.constant(Constant::from(f.w))?;
            let w_zero = f.w_zero.map(|z| ed.constant(Constant::from(z))).transpose()?;
            let operands = [Some(f.x), Some(w), f.x_zero, w_zero];
            let (sums, behind) = match &op {
                Op::Conv(c) => (ed.node(ConvInteger::from(c), &operands)?[0], c.strides.len()),
                _ => (ed.node(MatMulInteger {}, &operands)?[0], 0),
            };
            let sums = ed.node1(Cast { to: DType::F32, saturate: true }, &[sums])?;
            // One number for each output: along the last axis of a product, along the channels of a convolution.
            let mut shape = vec![f.scales.len()];
            shape.resize(1 + behind, 1);
            let shape = if f.scales.len() == 1 { &[][..] } else { &shape[..] };
            let scales = ed.constant(Constant::from(Tensor::floats(DType::F32, shape, f.scales.clone())?))?;
            let mut out = ed.node1(Binary { kind: BinaryKind::Mul }, &[sums, scales])?;
            if let Some(bias) = util::operand(ed.graph(), n, 2) {
                let known = util::constant(ed.graph(), bias).and_then(|c| c.decode().ok());
                let bias = match known {
                    Some(t) => {
                        let mut shape = t.shape().to_vec();
                        shape.resize(1 + behind, 1);
                        let t = Tensor::from_bytes(t.dtype(), shape, t.bytes().clone())?;
                        ed.constant(Constant::from(t))?
                    }
                    None => ed.node1(Unsqueeze { axes: (1..=behind).collect() }, &[bias])?,
                };
                out = ed.node1(Binary { kind: BinaryKind::Add }, &[out, bias])?;
            }
            ed.replace(y, out);
            ed.erase(n)?;
            for d in [nodes.0, nodes.1] {
                let g = ed.graph();
                if g.is_live(d) && g.node(d).outputs.iter().all(|v| g.uses(*v).is_empty()) {
                    ed.erase(d)?;
                }
            }
            cx.add(if matches!(op, Op::Conv(_)) { "integer-convolutions" } else { "integer-products" }, 1.0);
        }
        requantise::run(ed, cx)
    }
}
