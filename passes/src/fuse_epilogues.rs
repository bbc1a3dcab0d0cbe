//! See [`FuseEpilogues`].

use crate::{Options, Pass, PassCx, PassMeta, declare_pass, util};
use planish_ir::graph::Use;
use planish_ir::op::fused::{self, Fused};
use planish_ir::{DType, Diag, Editor, Graph, Loc, NodeId, Op, ValueId};
use std::collections::{BTreeSet, HashMap};

declare_pass! {
    /// Groups element-wise operations and conversions from and to 8-bit integers into one node, together with the convolution or matrix product whose result they work on, so that they run on its sums before these are stored.
    ///
    /// # Preserves
    /// All outputs; types narrower than f32 are rounded once at the end of a group instead of after each operation.
    ///
    /// # Declines
    /// A value that something outside the group uses ends it, unless all of that comes after the group and there is no contraction but a matrix product: then the value is another result. An operand that follows neither all axes, the channels, the last axis nor nothing keeps the contraction out: remark `epilogue-kept`.
    ///
    /// # Example
    /// `v2 = conv v0, v1  v3 = unary{kind=relu} v2` becomes `v3 = fused v0, v1 (..) { .. }`.
    pub struct FuseEpilogues {} = { name: "fuse-epilogues", kind: Lowering, options: [] }
}

impl FuseEpilogues {
    pub(crate) fn new(_: &Options) -> Result<Self, Diag> {
        Ok(FuseEpilogues {})
    }
}

/// Most nodes of a group.
const MAX_GROUP: usize = 48;

impl Pass for FuseEpilogues {
    fn meta(&self) -> &'static PassMeta {
        &Self::META
    }
    fn run(&self, ed: &mut Editor<'_>, cx: &mut PassCx) -> Result<(), Diag> {
        let groups_of = |ed: &Editor<'_>, n: NodeId| {
            // Regions of fused groups are left alone.
            let r = ed.graph().node(n).region;
            let parent = ed.graph().region(r).parent;
            !parent.is_some_and(|p| matches!(ed.graph().node(p).op, Op::Fused(_)))
        };
        for (_, nodes) in util::regions(ed.graph()) {
            let mut order: HashMap<NodeId, usize> = nodes.iter().enumerate().map(|(i, n)| (*n, i)).collect();
            for n in nodes.iter().rev() {
                let g = ed.graph();
                if !g.is_live(*n) || !fusible(g, *n) || !groups_of(ed, *n) {
                    continue;
                }
                let (mut group, mut results) = grow(g, *n, &order, true);
                let mut anchor = anchor(g, *n, &group, &order, cx);
                let product = |a: NodeId| matches!(g.node(a).op, Op::MatMul(_));
                if results.len() > 1 && anchor.is_some_and(|a| !product(a)) {
                    (group, results) = grow(g, *n, &order, false);
                    anchor = self::anchor(g, *n, &group, &order, cx);
                }
                if group.len() + usize::from(anchor.is_some()) >= 2 {
                    let made = fuse(ed, *n, &group, &results, anchor, &order)?;
                    order.insert(made, order[n]);
                    cx.add(if anchor.is_some() { "epilogues-fused" } else { "chains-fused" }, 1.0);
                }
            }
        }
        Ok(())
    }
}

/// Whether a node is an element-wise operation on numbers with dims that are known before it runs. Conversions from and to stored
/// integers with one scale are.
fn fusible(g: &Graph, n: NodeId) -> bool {
    let node = g.node(n);
    let numeric = |v: &ValueId| g.dtype(*v).is_some_and(|d| d != DType::Str) && g.dims(*v).is_some();
    let one = |i: usize| match util::operand(g, n, i) {
        Some(v) => g.dims(v).is_some_and(|d| d.iter().all(|d| d.is(1))),
        None => i == 2,
    };
    // One scale is broadcast like any operand; several follow an axis of their own.
    let scaled = match node.op {
        Op::Quantize(_) | Op::Dequantize(_) => one(1) && one(2),
        _ => true,
    };
    fused::follows_contraction(&node.op)
        && scaled
        && node.inputs.iter().flatten().all(numeric)
        && node.outputs.iter().all(numeric)
}

/// The element-wise nodes that end in `root`, all with its dims, and those with results that something else uses: `root` first, and others
/// only if `several` may be.
fn grow(
    g: &Graph,
    root: NodeId,
    order: &HashMap<NodeId, usize>,
    several: bool,
) -> (BTreeSet<NodeId>, Vec<NodeId>) {
    let dims = g.dims(g.node(root).outputs[0]);
    let mut group = BTreeSet::from([root]);
    let mut results = vec![root];
    loop {
        let before = group.len();
        let candidates: Vec<NodeId> = group
            .iter()
            .flat_map(|n| g.node(*n).inputs.iter().flatten())
            .filter_map(|v| g.def_node(*v))
            .filter(|d| order.contains_key(d) && !group.contains(d) && fusible(g, *d))
            .collect();
        for d in candidates {
            let y = g.node(d).outputs[0];
            let inside = |u: &Use| matches!(u, Use::Node(m, _) if group.contains(m));
            // The group runs where its root does.
            let after = |u: &Use| match u {
                Use::Node(m, _) => order.get(m).is_some_and(|at| *at > order[&root]),
                Use::Result(..) => true,
            };
            let uses = g.uses(y);
            let only = uses.iter().all(inside);
            let other = several && !only && uses.iter().all(|u| inside(u) || after(u));
            if !(only || other) || g.dims(y) != dims || group.len() >= MAX_GROUP {
                continue;
            }
            if group.insert(d) && other {
                results.push(d);
            }
        }
        if group.len() == before {
            return (group, results);
        }
    }
}

/// The contraction whose sums the group can work on.
fn anchor(
    g: &Graph,
    root: NodeId,
    group: &BTreeSet<NodeId>,
    order: &HashMap<NodeId, usize>,
    cx: &mut PassCx,
) -> Option<NodeId> {
    let dims = g.dims(g.node(root).outputs[0])?;
    let operands: Vec<ValueId> = group
        .iter()
        .flat_map(|n| g.node(*n).inputs.iter().flatten().copied())
        .filter(|v| !g.def_node(*v).is_some_and(|d| group.contains(&d)))
        .collect();
    let mut found: Vec<NodeId> = operands
        .iter()
        .filter_map(|v| g.def_node(*v))
        .filter(|d| {
            order.contains_key(d)
                && matches!(
                    g.node(*d).op,
                    Op::Conv(_)
                        | Op::MatMul(_)
                        | Op::GatedMatMul(_)
                        | Op::MatMulInteger(_)
                        | Op::ConvInteger(_)
                )
        })
        .filter(|d| {
            let y = g.node(*d).outputs[0];
            g.dims(y) == Some(dims)
                && g.uses(y).iter().all(|u| matches!(u, Use::Node(m, _) if group.contains(m)))
        })
        .collect();
    found.sort_by_key(|d| order[d]);
    let chosen = *found.last()?;
    let channel_axis = matches!(g.node(chosen).op, Op::Conv(_) | Op::ConvInteger(_)).then_some(1);
    for v in operands {
        if g.def_node(v) == Some(chosen) {
            continue;
        }
        if fused::follows(g.dims(v)?, dims, channel_axis).is_none() {
            cx.remark(
                g,
                chosen,
                "epilogue-kept",
                format!("an operand of `{}` follows other axes", g.describe(root)),
            );
            return None;
        }
    }
    Some(chosen)
}

fn fuse(
    ed: &mut Editor<'_>,
    root: NodeId,
    group: &BTreeSet<NodeId>,
    results: &[NodeId],
    anchor: Option<NodeId>,
    order: &HashMap<NodeId, usize>,
) -> Result<NodeId, Diag> {
    let mut nodes: Vec<NodeId> = group.iter().copied().chain(anchor).collect();
    nodes.sort_by_key(|n| order[n]);
    let region = ed.new_region();
    let mut map: HashMap<ValueId, ValueId> = HashMap::new();
    let mut captures = Vec::new();
    for n in &nodes {
        for v in ed.graph().node(*n).inputs.clone().into_iter().flatten() {
            let inner = ed.graph().def_node(v).is_some_and(|d| nodes.contains(&d));
            if !inner && !map.contains_key(&v) {
                let fact = ed.graph().value(v).fact.clone();
                map.insert(v, ed.param(region, fact));
                captures.push(Some(v));
            }
        }
    }
    for n in &nodes {
        let node = ed.graph().node(*n).clone();
        let inputs: Vec<Option<ValueId>> = node.inputs.iter().map(|v| v.map(|v| map[&v])).collect();
        ed.at_end(region);
        ed.set_loc(node.loc.clone());
        let made = ed.node(node.op.clone(), &inputs)?;
        for (old, new) in node.outputs.iter().zip(made) {
            let fact = ed.graph().value(*old).fact.clone();
            ed.set_fact(new, fact);
            map.insert(*old, new);
        }
    }
    let results: Vec<ValueId> = results.iter().map(|n| ed.graph().node(*n).outputs[0]).collect();
    for y in &results {
        ed.result(region, map[y]);
    }
    let loc = Loc::fuse(nodes.iter().map(|n| ed.graph().node(*n).loc.clone()));
    ed.before(root);
    ed.set_loc(loc);
    let out = ed.node_with_regions(Fused {}, &captures, vec![region])?;
    for (old, new) in results.iter().zip(&out) {
        ed.replace(*old, *new);
    }
    for n in nodes.iter().rev() {
        ed.erase(*n)?;
    }
    let made = ed.graph().def_node(out[0]);
    made.ok_or_else(|| Diag::error("internal-pass", "a group that no node made"))
}
