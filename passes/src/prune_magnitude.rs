//! See [`PruneMagnitude`].

use crate::options::OptionMeta;
use crate::weights::{self, Selection};
use crate::{Options, Pass, PassCx, PassMeta, declare_pass};
use planish_ir::{Constant, Diag, Editor, Tensor};

declare_pass! {
    /// Zeroes the weights of smallest magnitude (Han et al. 2015, "Learning both weights and connections").
    ///
    /// Eligible are the constant weights of convolutions, transposed convolutions, matrix products and recurrent layers with at least two axes. Biases,
    /// factors of norms and embedding tables are no such operands; the first layer of the graph is left alone unless `first=true`.
    /// With a threshold or with `scope=global` no tensor loses more than the share `cap` of its weights: its largest ones stay.
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
        cap: f64,
        which: Selection,
    } = {
        name: "prune-magnitude",
        kind: Lossy,
        options: [
            OptionMeta { name: "sparsity", default: "none", doc: "share of weights to zero, 0 to 1" },
            OptionMeta { name: "threshold", default: "none", doc: "zero every weight of smaller magnitude; instead of sparsity" },
            OptionMeta { name: "scope", default: "tensor", doc: "`tensor`: the share of each tensor; `global`: of all of them together" },
            weights::CAP,
            weights::INCLUDE,
            weights::EXCLUDE,
            weights::OPS,
            weights::FIRST,
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
        let global = o.one_of(m, "scope", &[("tensor", false), ("global", true)])?;
        let cap = weights::cap(o, m)?;
        Ok(PruneMagnitude { sparsity, threshold, global, cap, which: Selection::new(o, m)? })
    }
}

impl Pass for PruneMagnitude {
    fn meta(&self) -> &'static PassMeta {
        &Self::META
    }
    fn run(&self, ed: &mut Editor<'_>, cx: &mut PassCx) -> Result<(), Diag> {
        let targets = self.which.targets(ed, cx, "prune-skipped")?;
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
            let of = |share: f64| (share * values.len() as f64).round() as usize;
            let quota = match self.sparsity {
                Some(s) if !self.global => of(s),
                _ => values.len(),
            };
            let most = of(self.cap);
            let capped = bar.is_some() && values.iter().filter(|v| v.abs() < cut).count() > most;
            let (cut, quota) = match capped {
                true => (magnitude_at(values.iter().map(|v| v.abs()).collect(), self.cap), most),
                false => (cut, quota),
            };
            let (pruned, count) = prune(&values, cut, quota);
            let before = values.iter().filter(|v| **v == 0.0).count();
            let after = pruned.iter().filter(|v| **v == 0.0).count();
            zeroed += count;
            let held = if capped { format!(", no more than cap={}", self.cap) } else { String::new() };
            let text = format!(
                "{}: {} of {} weights zeroed below {cut:.6}, zeros {before} -> {after}{held}",
                t.name,
                count,
                values.len()
            );
            if capped {
                cx.add("tensors-capped", 1.0);
            }
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
