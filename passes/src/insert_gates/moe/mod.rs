//! Mixtures of experts in place of feed-forward pairs.

mod build;
pub(super) mod find;
mod fit;
#[cfg(test)]
mod tests;

use crate::calibrate::Samples;
use crate::cost::routed_speedup;
use crate::options::OptionMeta;
use crate::weights::Selection;
use crate::{Options, PassCx};
use find::FeedForward;
use planish_ir::{Diag, Editor, Loc};

/// The options of `kind=moe`.
#[derive(Clone, Debug)]
pub(crate) struct Moe {
    experts: usize,
    active: usize,
    by_weights: bool,
    gain: f64,
    seed: u64,
    samples: Samples,
    which: Selection,
}

impl Moe {
    pub(super) fn new(
        o: &Options,
        m: &[OptionMeta],
        samples: Samples,
        which: Selection,
    ) -> Result<Moe, Diag> {
        let bad = |text: String| Err(Diag::error("pass-option", text));
        let (experts, active): (usize, usize) = (o.get(m, "experts")?, o.get(m, "active")?);
        if !(2..=4096).contains(&experts) || active == 0 || active > experts {
            return bad(format!(
                "experts is from 2 to 4096 and active from 1 to experts, not {experts} and {active}"
            ));
        }
        let by_weights = o.one_of(m, "cluster", &[("activations", false), ("weights", true)])?;
        let gain: f64 = o.get(m, "gain")?;
        if gain.is_nan() || gain < 0.0 {
            return bad(format!("gain is not negative, not {gain}"));
        }
        Ok(Moe { experts, active, by_weights, gain, seed: o.get(m, "seed")?, samples, which })
    }

    /// How much faster a pair is predicted to become with so many rows.
    fn speedup(&self, p: &FeedForward, rows: f64) -> f64 {
        routed_speedup(rows, p.macs(), self.router_macs(p), [self.experts, self.active])
    }

    /// Multiply-adds of the router for each row.
    fn router_macs(&self, p: &FeedForward) -> f64 {
        (p.sizes()[0] * self.experts) as f64
    }

    /// The multiply-adds of a row to those of the dense pair.
    fn share(&self, p: &FeedForward) -> f64 {
        self.active as f64 / self.experts as f64 + self.router_macs(p) / p.macs()
    }

    pub(super) fn run(&self, ed: &mut Editor<'_>, cx: &mut PassCx) -> Result<(), Diag> {
        let pairs = self.eligible(ed, cx);
        if pairs.is_empty() {
            return Ok(());
        }
        let Some(runs) = cx.calibrate.clone() else {
            return Err(Diag::error(
                "calibration-missing",
                "experts are made from samples, and nothing runs them here",
            ));
        };
        let surveys = fit::survey(&*runs, ed.graph(), self, &pairs)?;
        let mut chosen = Vec::new();
        for (p, s) in pairs.into_iter().zip(surveys) {
            let rows = p.rows.as_const().map_or(s.rows as f64 / s.samples.max(1) as f64, |n| n as f64);
            let speedup = self.speedup(&p, rows);
            let why = if s.rows == 0 {
                Some("the samples have no finite rows for it".to_owned())
            } else if speedup < self.gain {
                let each = (rows * self.active as f64 / self.experts as f64).max(1.0);
                Some(format!(
                    "{rows} rows, {each:.1} for each expert: a speed-up of {speedup:.2} is predicted, below {}",
                    self.gain
                ))
            } else {
                None
            };
            match why {
                Some(why) => self.skip(ed, cx, &p, &why),
                None => chosen.push((p, s, speedup)),
            }
        }
        let (speedups, rest): (Vec<f64>, Vec<_>) = chosen.into_iter().map(|(p, s, x)| (x, (p, s))).unzip();
        let (pairs, surveys): (Vec<_>, Vec<_>) = rest.into_iter().unzip();
        let divisions = fit::divide(&*runs, ed.graph(), self, &pairs, surveys)?;
        for ((p, division), speedup) in pairs.iter().zip(divisions).zip(speedups) {
            let Some(division) = division else {
                self.skip(ed, cx, p, "the samples give no router");
                continue;
            };
            build::build(ed, self, p, &division)?;
            self.tell(ed, cx, p, &division, speedup);
        }
        Ok(())
    }

    /// The pairs that can be divided.
    fn eligible(&self, ed: &Editor<'_>, cx: &mut PassCx) -> Vec<FeedForward> {
        let g = ed.graph();
        let mut pairs = Vec::new();
        let mut seen = 0;
        for n in g.nodes_in(g.root()) {
            let Some(found) = find::find(g, n) else { continue };
            seen += 1;
            let name = g.describe(n);
            let lanes = cx.facts.lanes as usize;
            let why = match found {
                Err(why) => why,
                Ok(p) => {
                    let [_, h, _] = p.sizes();
                    if let Some(why) = self.which.keeps(&name, g.node(n).op.name(), false) {
                        why.to_owned()
                    } else if !h.is_multiple_of(self.experts) {
                        format!("{h} hidden units cannot be divided among {} experts", self.experts)
                    } else if h / self.experts < lanes {
                        format!("{} hidden units of an expert are fewer than {lanes}", h / self.experts)
                    } else {
                        pairs.push(p);
                        continue;
                    }
                }
            };
            cx.remark(g, n, "gate-skipped", format!("{name}: left alone, {why}"));
        }
        if seen == 0 {
            let text =
                "no pair of matrix products with constant weights and an activation between them was found";
            cx.remark_at(Loc::None, "gate-skipped", text);
        }
        pairs
    }

    fn skip(&self, ed: &Editor<'_>, cx: &mut PassCx, p: &FeedForward, why: &str) {
        let name = ed.graph().describe(p.node);
        cx.remark(ed.graph(), p.node, "gate-skipped", format!("{name}: left alone, {why}"));
    }

    fn tell(
        &self,
        ed: &Editor<'_>,
        cx: &mut PassCx,
        p: &FeedForward,
        division: &fit::Division,
        speedup: f64,
    ) {
        let q = &division.quality;
        let error = if division.means.is_some() { q.errors[1] } else { q.errors[0] };
        let text = format!(
            "{}: {} hidden units as {} experts, {} for a row: {:.1}% of the multiply-adds, a speed-up of {speedup:.2} is predicted; \
             error {error:.4} of the output on {} rows held out ({:.4} without, {:.4} with the means of what is left out), {:.1}% of the \
             contributions computed, {:.2} times the mean rows for the busiest expert",
            ed.graph().describe(p.node),
            p.sizes()[1],
            self.experts,
            self.active,
            100.0 * self.share(p),
            q.rows,
            q.errors[0],
            q.errors[1],
            100.0 * q.captured,
            q.imbalance,
        );
        cx.remark(ed.graph(), p.node, "gate-done", text);
        cx.add("layers-gated", 1.0);
        cx.add("row-macs-before", p.macs());
        cx.add("row-macs-after", self.share(p) * p.macs());
        let worst = cx.metrics.entry("largest-output-error".to_owned()).or_insert(0.0);
        *worst = worst.max(error);
    }
}
