//! Which weights a lossy pass works on.

use crate::options::OptionMeta;
use crate::{Options, PassCx, util};
use planish_ir::graph::Use;
use planish_ir::{ConstId, DType, Diag, Editor, Graph, Loc, NodeId, Op, Order, Tensor};
use regex::Regex;
use std::collections::BTreeMap;

/// Option of every pass that changes weights.
pub(crate) const INCLUDE: OptionMeta = OptionMeta {
    name: "include",
    default: "",
    doc: "only nodes whose name one of these regular expressions (separated by |) matches wholly or in part",
};
/// Option of every pass that changes weights.
pub(crate) const EXCLUDE: OptionMeta = OptionMeta {
    name: "exclude",
    default: "",
    doc: "no node whose name one of these regular expressions matches",
};
/// Option of every pass that changes weights.
pub(crate) const OPS: OptionMeta = OptionMeta {
    name: "ops",
    default: "",
    doc: "only these operations (separated by |), such as conv|matmul",
};
/// Option of every pass that changes weights.
pub(crate) const FIRST: OptionMeta =
    OptionMeta { name: "first", default: "false", doc: "whether the first layer is changed too" };

/// Option of every pass that zeroes weights.
pub(crate) const CAP: OptionMeta = OptionMeta {
    name: "cap",
    default: "0.99",
    doc: "the largest share of one tensor that a threshold or a share of all tensors together may zero, so that no layer vanishes",
};

/// Reads [`CAP`].
pub(crate) fn cap(o: &Options, m: &[OptionMeta]) -> Result<f64, Diag> {
    let cap: f64 = o.get(m, "cap")?;
    if (0.0..=1.0).contains(&cap) {
        Ok(cap)
    } else {
        Err(Diag::error("pass-option", "cap is a share from 0 to 1"))
    }
}

/// What the options above choose.
#[derive(Clone, Debug)]
pub(crate) struct Selection {
    first: bool,
    include: Vec<Regex>,
    exclude: Vec<Regex>,
    ops: Vec<String>,
}

/// Weights that were chosen.
pub(crate) struct Target {
    pub(crate) id: ConstId,
    /// The first node that has them.
    pub(crate) node: NodeId,
    pub(crate) loc: Loc,
    pub(crate) name: String,
    pub(crate) values: Tensor,
}

impl Selection {
    pub(crate) fn new(o: &Options, m: &[OptionMeta]) -> Result<Selection, Diag> {
        let patterns = |name: &str| -> Result<Vec<Regex>, Diag> {
            let read =
                |p: &String| Regex::new(p).map_err(|e| Diag::error("pass-option", format!("`{p}`: {e}")));
            o.list(m, name).iter().map(read).collect()
        };
        Ok(Selection {
            first: o.optional(m, "first")?.unwrap_or(false),
            include: patterns("include")?,
            exclude: patterns("exclude")?,
            ops: o.list(m, "ops"),
        })
    }
    /// Whether the first layer is chosen.
    pub(crate) fn first(&mut self, chosen: bool) {
        self.first = chosen;
    }
    /// Why a node's weights stay, if they do.
    pub(crate) fn keeps(&self, name: &str, op: &str, is_first: bool) -> Option<&'static str> {
        self.keeps_any(&[name], op, is_first)
    }
    /// The same of weights that have several names.
    pub(crate) fn keeps_any(&self, names: &[&str], op: &str, is_first: bool) -> Option<&'static str> {
        if is_first && !self.first {
            return Some("it is the first layer");
        }
        if !self.ops.is_empty() && !self.ops.iter().any(|o| o == op) {
            return Some("its operation is not among `ops`");
        }
        let named = |list: &[Regex]| list.iter().any(|r| names.iter().any(|n| r.is_match(n)));
        if !self.include.is_empty() && !named(&self.include) {
            return Some("`include` does not name it");
        }
        named(&self.exclude).then_some("`exclude` names it")
    }
    /// The float weights of at least two axes that are chosen, in the order of constants; a remark `skipped` for all others.
    pub(crate) fn targets(
        &self,
        ed: &Editor<'_>,
        cx: &mut PassCx,
        skipped: &'static str,
    ) -> Result<Vec<Target>, Diag> {
        let g = ed.graph();
        let mut chosen: BTreeMap<ConstId, NodeId> = BTreeMap::new();
        let mut first = true;
        for n in g.all_nodes() {
            let node = g.node(n);
            let Some(w) = node.op.weight_input().and_then(|i| util::operand(g, n, i)) else { continue };
            let Some((id, c)) = g.as_const(w) else {
                cx.remark(g, n, skipped, format!("{}: its weights are no constant", g.describe(n)));
                continue;
            };
            let is_first = std::mem::replace(&mut first, false);
            let reason = if used_otherwise(g, id) {
                Some("its weights are also used as a table or operand of another kind")
            } else if c.shape.len() < 2
                || !matches!(c.dtype, DType::F32 | DType::F64 | DType::F16 | DType::BF16)
            {
                Some("its weights are no float matrix")
            } else {
                self.keeps(&g.describe(n), node.op.name(), is_first)
            };
            match reason {
                Some(why) => cx.remark(g, n, skipped, format!("{}: left alone, {why}", g.describe(n))),
                None => {
                    chosen.entry(id).or_insert(n);
                }
            }
        }
        chosen
            .into_iter()
            .map(|(id, node)| {
                let values = g.constant(id).decode()?;
                Ok(Target { id, node, loc: g.node(node).loc.clone(), name: g.describe(node), values })
            })
            .collect()
    }
}

/// The nodes that have a constant as their weights; none if something else uses it.
pub(crate) fn users(g: &Graph, id: ConstId) -> Option<Vec<NodeId>> {
    let users = uses(g, id)?;
    users.into_iter().map(|(n, i)| (g.node(n).op.weight_input() == Some(i)).then_some(n)).collect()
}

/// The nodes that have a constant as one of their matrices of weights, and which operand it is; none if something else uses it.
pub(crate) fn uses(g: &Graph, id: ConstId) -> Option<Vec<(NodeId, usize)>> {
    let is_it = |n: &NodeId| matches!(&g.node(*n).op, Op::Const(c) if c.id == id);
    let uses = g.all_nodes().into_iter().filter(is_it).flat_map(|n| g.node(n).outputs.clone());
    let uses: Vec<Use> = uses.flat_map(|v| g.uses(v).to_vec()).collect();
    uses.into_iter()
        .map(|u| match u {
            Use::Node(n, i) if g.node(n).op.weight_inputs().contains(&(i as usize)) => Some((n, i as usize)),
            _ => None,
        })
        .collect()
}

/// Whether a constant is an operand of something that does not take it as weights.
fn used_otherwise(g: &Graph, id: ConstId) -> bool {
    users(g, id).is_none()
}

/// How the weights of a node lie; none for operations that have no kernel for blocks.
pub(crate) fn order(g: &Graph, n: NodeId) -> Result<Order, &'static str> {
    match &g.node(n).op {
        Op::Recurrent(_) => Ok(Order::Rows),
        _ => lies_transposed(g, n).map(Order::from),
    }
}

/// Whether the weights of a product or a convolution lie as outputs x inputs; none for operations that have no kernel for blocks.
pub(crate) fn lies_transposed(g: &Graph, n: NodeId) -> Result<bool, &'static str> {
    match &g.node(n).op {
        Op::MatMul(op) if !op.trans_a => Ok(op.trans_b),
        // Zero points of the weights would make something else of their zeros.
        Op::MatMulInteger(_) if util::operand(g, n, 3).is_none() => Ok(false),
        Op::Conv(op) if op.groups == 1 => Ok(true),
        Op::Conv(_) => Err("its channels are in groups"),
        _ => Err("there is no kernel for blocks of it"),
    }
}
