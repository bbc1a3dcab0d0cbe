//! See [`SimplifyAlgebra`].

use crate::{Options, Pass, PassCx, PassMeta, declare_pass, util};
use planish_ir::op::binary::{Binary, BinaryKind};
use planish_ir::op::unary::{Unary, UnaryKind};
use planish_ir::{Diag, Editor, NodeId, Op, RegionId, ValueId};
use std::collections::HashMap;

declare_pass! {
    /// Replaces element-wise operations by simpler ones: `x + 0`, `x - 0`, `x * 1`, `x / 1`, `x ^ 1` vanish; `x ^ 2` becomes `x * x`, `x ^ 0.5` a square root, `x ^ -1` and `1 / x` a reciprocal; a division by a constant power of two
    /// becomes a product; a repeated relu, negation or rounding is done once; a choice with a known condition is made.
    ///
    /// # Preserves
    /// All outputs; `x + 0` may turn a negative zero, and `x ^ 2` and `x ^ 0.5` may differ in the last bit.
    ///
    /// # Declines
    /// `x * 0` stays, because x may be infinite or NaN.
    ///
    /// # Example
    /// `v1 = const f32[] [1.0]  v2 = binary{kind=mul} v0, v1` becomes `v0`.
    pub struct SimplifyAlgebra {} = { name: "simplify-algebra", kind: Exact, options: [] }
}

impl SimplifyAlgebra {
    pub(crate) fn new(_: &Options) -> Result<Self, Diag> {
        Ok(SimplifyAlgebra {})
    }
}

impl Pass for SimplifyAlgebra {
    fn meta(&self) -> &'static PassMeta {
        &Self::META
    }
    fn run(&self, ed: &mut Editor<'_>, cx: &mut PassCx) -> Result<(), Diag> {
        for (_, nodes) in util::regions(ed.graph()) {
            for n in nodes {
                if !ed.graph().is_live(n) {
                    continue;
                }
                let done = match ed.graph().node(n).op.clone() {
                    Op::Binary(b) => binary(ed, n, b.kind)?,
                    Op::Unary(u) => unary(ed, n, u.kind)?,
                    Op::Where(_) => choice(ed, n)?,
                    Op::If(_) => branch(ed, n)?,
                    _ => false,
                };
                if done {
                    cx.add("nodes-simplified", 1.0);
                }
            }
        }
        Ok(())
    }
}

fn replace(ed: &mut Editor<'_>, n: NodeId, new: ValueId) -> Result<bool, Diag> {
    let y = ed.graph().node(n).outputs[0];
    if ed.graph().ty(y) != ed.graph().ty(new) {
        return Ok(false);
    }
    ed.replace(y, new);
    ed.erase(n)?;
    Ok(true)
}

fn binary(ed: &mut Editor<'_>, n: NodeId, kind: BinaryKind) -> Result<bool, Diag> {
    use BinaryKind as B;
    let g = ed.graph();
    let (Some(x), Some(y)) = (util::operand(g, n, 0), util::operand(g, n, 1)) else { return Ok(false) };
    let (a, b) = (util::splat_value(g, x), util::splat_value(g, y));
    match (kind, a, b) {
        (B::Add | B::Sub, _, Some(0.0)) | (B::Mul | B::Div | B::Pow, _, Some(1.0)) => replace(ed, n, x),
        (B::Add, Some(0.0), _) | (B::Mul, Some(1.0), _) => replace(ed, n, y),
        (B::Pow, _, Some(2.0)) => {
            ed.rewrite(n, Binary { kind: B::Mul }, &[Some(x), Some(x)])?;
            Ok(true)
        }
        (B::Pow, _, Some(0.5)) if util::is_float(g, x) => same_shape(ed, n, x, UnaryKind::Sqrt),
        (B::Pow, _, Some(-1.0)) if util::is_float(g, x) => same_shape(ed, n, x, UnaryKind::Reciprocal),
        (B::Div, Some(1.0), _) if util::is_float(g, y) => same_shape(ed, n, y, UnaryKind::Reciprocal),
        (B::Div, _, Some(d))
            if util::is_float(g, x) && d != 0.0 && d.is_normal() && d.abs().log2().fract() == 0.0 =>
        {
            let dtype = g.dtype(y);
            let Some(c) = util::constant(g, y).map(|c| (**c).clone()) else { return Ok(false) };
            let Some(dtype) = dtype else { return Ok(false) };
            let inverse = planish_ir::Constant::splat(&planish_ir::Tensor::scalar(dtype, 1.0 / d)?, c.shape)?;
            ed.before(n);
            let inverse = ed.constant(inverse)?;
            ed.rewrite(n, Binary { kind: B::Mul }, &[Some(x), Some(inverse)])?;
            Ok(true)
        }
        _ => Ok(false),
    }
}

/// A unary operation in place of a binary one, if the other operand does not widen the result.
fn same_shape(ed: &mut Editor<'_>, n: NodeId, x: ValueId, kind: UnaryKind) -> Result<bool, Diag> {
    let y = ed.graph().node(n).outputs[0];
    if ed.graph().ty(x) != ed.graph().ty(y) {
        return Ok(false);
    }
    ed.rewrite(n, Unary { kind }, &[Some(x)])?;
    Ok(true)
}

fn unary(ed: &mut Editor<'_>, n: NodeId, kind: UnaryKind) -> Result<bool, Diag> {
    use UnaryKind as U;
    let g = ed.graph();
    let Some(x) = util::operand(g, n, 0) else { return Ok(false) };
    let Some(d) = g.def_node(x) else { return Ok(false) };
    let Op::Unary(inner) = &g.node(d).op else { return Ok(false) };
    let Some(source) = util::operand(g, d, 0) else { return Ok(false) };
    match (kind, inner.kind) {
        (U::Neg, U::Neg) | (U::Not, U::Not) | (U::BitNot, U::BitNot) => replace(ed, n, source),
        (a, b) if a == b && matches!(a, U::Relu | U::Abs | U::Floor | U::Ceil | U::Round | U::Sign) => {
            replace(ed, n, x)
        }
        _ => Ok(false),
    }
}

fn choice(ed: &mut Editor<'_>, n: NodeId) -> Result<bool, Diag> {
    let g = ed.graph();
    let known = util::operand(g, n, 0).and_then(|c| util::splat_value(g, c));
    match known {
        Some(c) => match util::operand(g, n, if c != 0.0 { 1 } else { 2 }) {
            Some(v) => replace(ed, n, v),
            None => Ok(false),
        },
        None => Ok(false),
    }
}

/// A branch with a known condition: the nodes of the region that runs take the place of the node.
fn branch(ed: &mut Editor<'_>, n: NodeId) -> Result<bool, Diag> {
    let g = ed.graph();
    let Some(c) = util::operand(g, n, 0).and_then(|c| util::splat_value(g, c)) else { return Ok(false) };
    let region = g.node(n).regions[usize::from(c == 0.0)];
    let args: Vec<ValueId> = g.node(n).inputs[1..].iter().flatten().copied().collect();
    let outputs = g.node(n).outputs.clone();
    ed.before(n);
    let mut map: HashMap<ValueId, ValueId> = g_params(ed, region).into_iter().zip(args).collect();
    let results = clone_nodes(ed, region, &mut map, Some(n))?;
    for (old, new) in outputs.iter().zip(results) {
        ed.replace(*old, new);
    }
    ed.erase(n)?;
    Ok(true)
}

fn g_params(ed: &Editor<'_>, r: RegionId) -> Vec<ValueId> {
    ed.graph().region(r).params.clone()
}

/// Copies the nodes of a region to the editor's place (before `at`, or to the end of its region); gives the values of
/// the region's results.
fn clone_nodes(
    ed: &mut Editor<'_>,
    r: RegionId,
    map: &mut HashMap<ValueId, ValueId>,
    at: Option<NodeId>,
) -> Result<Vec<ValueId>, Diag> {
    let home = ed.region();
    let nodes: Vec<NodeId> = ed.graph().nodes_in(r).collect();
    for n in nodes {
        let node = ed.graph().node(n).clone();
        let inputs: Vec<Option<ValueId>> =
            node.inputs.iter().map(|v| v.map(|v| map.get(&v).copied().unwrap_or(v))).collect();
        let mut regions = Vec::new();
        for inner in &node.regions {
            let copy = ed.new_region();
            let mut inner_map = HashMap::new();
            for p in g_params(ed, *inner) {
                let fact = ed.graph().value(p).fact.clone();
                inner_map.insert(p, ed.param(copy, fact));
            }
            ed.at_end(copy);
            let results = clone_nodes(ed, *inner, &mut inner_map, None)?;
            for v in results {
                ed.result(copy, v);
            }
            regions.push(copy);
        }
        match at {
            Some(at) => ed.before(at),
            None => ed.at_end(home),
        }
        ed.set_loc(node.loc.clone());
        let made = ed.node_with_regions(node.op.clone(), &inputs, regions)?;
        for (old, new) in node.outputs.iter().zip(made) {
            map.insert(*old, new);
        }
    }
    Ok(ed.graph().region(r).results.iter().map(|v| map.get(v).copied().unwrap_or(*v)).collect())
}
