//! See [`PruneMagnitude`].

use crate::options::OptionMeta;
use crate::{Options, Pass, PassCx, PassMeta, declare_pass, util};
use planish_ir::graph::Use;
use planish_ir::{ConstId, Constant, DType, Diag, Editor, Loc, NodeId, Op, Tensor};
use regex::Regex;
use std::collections::BTreeMap;

declare_pass! {
    /// Zeroes the weights of smallest magnitude (Han et al. 2015, "Learning both weights and connections").
    ///
    /// Eligible are the constant weights of convolutions, transposed convolutions, matrix products and recurrent layers with at least two axes. Biases,
    /// factors of norms and embedding tables are no such operands; the first layer of the graph is left alone unless `first=true`.
    ///
    /// # Preserves
    /// Shapes, dtypes and node count; only payloads of constants change.
    ///
    /// # Declines
    /// A remark `prune-skipped` for every tensor that is left alone, with the reason; `prune-done` for every one that is not, with its counts.
    ///
    /// # Example
    /// `const f32[4] [0.1, -3.0, 2.0, 0.2]` at `sparsity=0.5` becomes `const f32[4] [0.0, -3.0, 2.0, 0.0]`.
    pub struct PruneMagnitude {
        sparsity: Option<f64>,
        threshold: Option<f64>,
        global: bool,
        first: bool,
        include: Vec<Regex>,
        exclude: Vec<Regex>,
        ops: Vec<String>,
    } = {
        name: "prune-magnitude",
        kind: Lossy,
        options: [
            OptionMeta { name: "sparsity", default: "none", doc: "share of weights to zero, 0 to 1" },
            OptionMeta { name: "threshold", default: "none", doc: "zero every weight of smaller magnitude; instead of sparsity" },
            OptionMeta { name: "scope", default: "tensor", doc: "`tensor`: the share of each tensor; `global`: of all of them together" },
            OptionMeta { name: "include", default: "", doc: "only nodes whose name one of these regular expressions (separated by |) matches wholly or in part" },
            OptionMeta { name: "exclude", default: "", doc: "no node whose name one of these regular expressions matches" },
            OptionMeta { name: "ops", default: "", doc: "only these operations (separated by |), such as conv|matmul" },
            OptionMeta { name: "first", default: "false", doc: "whether the first layer is pruned too" },
        ]
    }
}

impl PruneMagnitude {
    pub(crate) fn new(o: &Options) -> Result<Self, Diag> {
        let m = Self::META.options;
        let bad = |text: String| Diag::error("pass-option", text);
        let (sparsity, threshold) = (o.optional::<f64>(m, "sparsity")?, o.optional::<f64>(m, "threshold")?);
        if sparsity.is_some() == threshold.is_some() {
            return Err(bad("prune-magnitude needs either sparsity or threshold".into()));
        }
        if sparsity.is_some_and(|s| !(0.0..=1.0).contains(&s))
            || threshold.is_some_and(|t| t.is_nan() || t < 0.0)
        {
            return Err(bad("sparsity is a share from 0 to 1, a threshold is not negative".into()));
        }
        let global = match o.text(m, "scope") {
            "global" => true,
            "tensor" => false,
            other => return Err(bad(format!("scope cannot be `{other}`, only tensor or global"))),
        };
        let patterns = |name: &str| -> Result<Vec<Regex>, Diag> {
            o.list(m, name).iter().map(|p| Regex::new(p).map_err(|e| bad(format!("`{p}`: {e}")))).collect()
        };
        Ok(PruneMagnitude {
            sparsity,
            threshold,
            global,
            first: o.get(m, "first")?,
            include: patterns("include")?,
            exclude: patterns("exclude")?,
            ops: o.list(m, "ops"),
        })
    }
    /// Why a node's weights stay, if they do.
    fn keeps(&self, name: &str, op: &str, is_first: bool) -> Option<&'static str> {
        if is_first && !self.first {
            return Some("it is the first layer");
        }
        if !self.ops.is_empty() && !self.ops.iter().any(|o| o == op) {
            return Some("its operation is not among `ops`");
        }
        if !self.include.is_empty() && !self.include.iter().any(|r| r.is_match(name)) {
            return Some("`include` does not name it");
        }
        self.exclude.iter().any(|r| r.is_match(name)).then_some("`exclude` names it")
    }
}

/// A tensor to prune.
struct Target {
    id: ConstId,
    loc: Loc,
    name: String,
    values: Tensor,
}

impl Pass for PruneMagnitude {
    fn meta(&self) -> &'static PassMeta {
        &Self::META
    }
    fn run(&self, ed: &mut Editor<'_>, cx: &mut PassCx) -> Result<(), Diag> {
        let targets = self.targets(ed, cx)?;
        let total: usize = targets.iter().map(|t| t.values.len()).sum();
        let bar = match (self.threshold, self.sparsity) {
            (Some(t), _) => Some(t),
            (None, Some(s)) if self.global => {
                let all = targets.iter().flat_map(|t| t.values.to_f64()).map(f64::abs).collect();
                Some(magnitude_at(all, s))
            }
            _ => None,
        };
        let mut zeroed = 0;
        for t in targets {
            let values = t.values.to_f64();
            let cut = bar.unwrap_or_else(|| {
                magnitude_at(values.iter().map(|v| v.abs()).collect(), self.sparsity.unwrap_or(0.0))
            });
            // Ties at the cut are kept by index, so that a share is met exactly.
            let quota = match self.sparsity {
                Some(s) if !self.global => (s * values.len() as f64).round() as usize,
                _ => values.len(),
            };
            let (pruned, count) = prune(&values, cut, quota);
            let before = values.iter().filter(|v| **v == 0.0).count();
            let after = pruned.iter().filter(|v| **v == 0.0).count();
            zeroed += count;
            let text = format!(
                "{}: {} of {} weights zeroed below {cut:.6}, zeros {before} -> {after}",
                t.name,
                count,
                values.len()
            );
            cx.remark_at(t.loc, "prune-done", text);
            cx.add("tensors-pruned", 1.0);
            let new = Tensor::floats(t.values.dtype(), t.values.shape(), pruned)?;
            ed.set_constant(t.id, Constant::from(new))?;
        }
        cx.add("weights-seen", total as f64);
        cx.add("weights-zeroed", zeroed as f64);
        Ok(())
    }
}

impl PruneMagnitude {
    fn targets(&self, ed: &Editor<'_>, cx: &mut PassCx) -> Result<Vec<Target>, Diag> {
        let g = ed.graph();
        let mut chosen: BTreeMap<ConstId, NodeId> = BTreeMap::new();
        let mut first = true;
        for n in g.all_nodes() {
            let node = g.node(n);
            let Some(w) = node.op.weight_input().and_then(|i| util::operand(g, n, i)) else { continue };
            let Some((id, c)) = g.as_const(w) else {
                cx.remark(g, n, "prune-skipped", format!("{}: its weights are no constant", g.describe(n)));
                continue;
            };
            let is_first = std::mem::replace(&mut first, false);
            let reason = if used_otherwise(ed, id) {
                Some("its weights are also used as a table or operand of another kind")
            } else if c.shape.len() < 2
                || !matches!(c.dtype, DType::F32 | DType::F64 | DType::F16 | DType::BF16)
            {
                Some("its weights are no float matrix")
            } else {
                self.keeps(&g.describe(n), node.op.name(), is_first)
            };
            match reason {
                Some(why) => {
                    cx.remark(g, n, "prune-skipped", format!("{}: left alone, {why}", g.describe(n)))
                }
                None => {
                    chosen.entry(id).or_insert(n);
                }
            }
        }
        chosen
            .into_iter()
            .map(|(id, n)| {
                let values = g.constant(id).decode()?;
                Ok(Target { id, loc: g.node(n).loc.clone(), name: g.describe(n), values })
            })
            .collect()
    }
}

/// Whether a constant is an operand of something that does not take it as weights.
fn used_otherwise(ed: &Editor<'_>, id: ConstId) -> bool {
    let g = ed.graph();
    let is_it = |n: &NodeId| matches!(&g.node(*n).op, Op::Const(c) if c.id == id);
    g.all_nodes().into_iter().filter(is_it).flat_map(|n| g.node(n).outputs.clone()).any(|v| {
        g.uses(v).iter().any(|u| match u {
            Use::Node(n, i) => g.node(*n).op.weight_input() != Some(*i as usize),
            Use::Result(..) => true,
        })
    })
}

/// The magnitude below which a share of the values lies.
fn magnitude_at(mut magnitudes: Vec<f64>, share: f64) -> f64 {
    let k = (share * magnitudes.len() as f64).round() as usize;
    if k == 0 || magnitudes.is_empty() {
        return 0.0;
    }
    if k >= magnitudes.len() {
        return f64::INFINITY;
    }
    let (_, v, _) = magnitudes.select_nth_unstable_by(k, f64::total_cmp);
    *v
}

/// Zeroes values of magnitude below `cut`, then values at it, first ones first, until `quota` are zero.
fn prune(values: &[f64], cut: f64, quota: usize) -> (Vec<f64>, usize) {
    let mut out = values.to_vec();
    let mut zeroed = 0;
    let below = values.iter().filter(|v| v.abs() < cut).count();
    let mut ties = if quota < values.len() { quota.saturating_sub(below) } else { 0 };
    for v in &mut out {
        let m = v.abs();
        let tie = m == cut && ties > 0;
        if m < cut || tie {
            ties -= usize::from(tie);
            zeroed += usize::from(*v != 0.0);
            *v = 0.0;
        }
    }
    (out, zeroed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_are_zeroed_first_ones_first() {
        assert_eq!(prune(&[1.0, 1.0, 1.0, 2.0], 1.0, 2).0, [0.0, 0.0, 1.0, 2.0]);
        assert_eq!(magnitude_at(vec![3.0, 1.0, 2.0, 4.0], 0.5), 3.0);
        assert_eq!(magnitude_at(vec![3.0, 1.0], 1.0), f64::INFINITY);
        assert_eq!(prune(&[3.0, -1.0], 0.0, 0).1, 0);
    }
}
