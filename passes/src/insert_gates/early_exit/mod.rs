//! A head half way through a network, behind which the rest runs only where the head is not sure.

mod build;
mod cut;
mod head;
#[cfg(test)]
mod tests;

use crate::calibrate::Samples;
use crate::options::OptionMeta;
use crate::{Options, PassCx, util};
use build::Plan;
use cut::Cut;
use head::{Features, Rows};
use planish_ir::op::softmax::SoftmaxKind;
use planish_ir::{Diag, Editor, Graph, Loc, Op, Tensor};

/// The options of `kind=early-exit`.
#[derive(Clone, Debug)]
pub(crate) struct EarlyExit {
    after: String,
    threshold: f64,
    features: String,
    seed: u64,
    samples: Samples,
}

/// Thresholds whose outcomes are told.
const CURVE: [f64; 7] = [0.5, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0];
/// A rest with a smaller part of the arithmetic is not worth a head.
const LEAST_REST: f64 = 0.1;

impl EarlyExit {
    pub(super) fn new(o: &Options, m: &[OptionMeta], samples: Samples) -> Result<EarlyExit, Diag> {
        let bad = |text: String| Err(Diag::error("pass-option", text));
        let threshold: f64 = o.get(m, "threshold")?;
        if !(0.0..=1.0).contains(&threshold) {
            return bad(format!("threshold is from 0 to 1, not {threshold}"));
        }
        let features = o.text(m, "features").to_owned();
        if !["auto", "flat", "pooled"].contains(&features.as_str()) {
            return bad(format!("features cannot be `{features}`, only auto, flat or pooled"));
        }
        Ok(EarlyExit {
            after: o.text(m, "after").to_owned(),
            threshold,
            features,
            seed: o.get(m, "seed")?,
            samples,
        })
    }

    pub(super) fn run(&self, ed: &mut Editor<'_>, cx: &mut PassCx) -> Result<(), Diag> {
        let Some(runs) = cx.calibrate.clone() else {
            let text = "a head is fitted to samples, and nothing runs them here";
            return Err(Diag::error("calibration-missing", text));
        };
        let (whole, classes, cut, features) = match self.place(ed.graph()) {
            Ok(found) => found,
            Err(why) => {
                cx.remark_at(Loc::None, "gate-skipped", format!("no early exit: {why}"));
                return Ok(());
            }
        };
        let g = ed.graph();
        let y = g.outputs()[0];
        let labels = runs.labels(self.samples)?;
        let mut rows = Rows::new(features.clone(), classes, self.seed);
        let mut sample = 0;
        runs.stream(g, &[cut.feature, y], self.samples, &mut |seen: &[&Tensor]| {
            let [value, output] = seen else { return Err(Diag::error("arity", "two values are needed")) };
            let of = labels.as_ref().map(|all| all.get(sample).map_or(&[][..], Vec::as_slice));
            sample += 1;
            rows.add(value, output, of)
        })?;
        let head = match rows.fit() {
            Ok(head) => head,
            Err(why) => {
                cx.remark(g, cut.last, "gate-skipped", format!("no early exit: {why}"));
                return Ok(());
            }
        };
        let ends_in = g.def_node(y).and_then(|n| match &g.node(n).op {
            Op::Softmax(s) if s.axis == 1 && s.kind != SoftmaxKind::Hardmax => Some(s.kind),
            _ => None,
        });
        let plan =
            Plan { cut: &cut, head: &head, features: &features, threshold: self.threshold, ends_in, whole };
        // What stops half way through leaves a spoilt graph: it is tried on a copy.
        let mut copy = g.clone();
        let tried = build::build(&mut Editor::new(&mut copy), &plan);
        if let Err(d) = tried {
            cx.remark(g, cut.last, "gate-skipped", format!("no early exit: {}", d.message));
            return Ok(());
        }
        self.tell(g, cx, &plan, labels.is_some());
        build::build(ed, &plan)
    }

    /// Whether there is one sample only, the number of classes, the place of the exit and what its head sees.
    fn place(&self, g: &Graph) -> Result<(bool, usize, Cut, Features), String> {
        let [y] = g.outputs() else {
            return Err(format!("the model has {} outputs, not one", g.outputs().len()));
        };
        let batch = match g.dims(*y) {
            Some([n, classes]) if util::is_float(g, *y) && classes.as_const().is_some_and(|c| c >= 2) => n,
            _ => {
                return Err(format!("its output is {}, not scores of classes", g.ty(*y).display(&g.symbols)));
            }
        };
        let classes = g.dims(*y).and_then(|d| d[1].as_const()).and_then(|c| usize::try_from(c).ok());
        let classes = classes.ok_or("the number of classes is not known")?;
        let whole = batch.is(1);
        let cut = cut::choose(g, &self.after, batch, whole)?;
        let features = Features::of(g.dims(cut.feature).unwrap_or_default(), &self.features)?;
        let total = cut.flops[0] + cut.flops[1];
        let rest = cut.flops[1] / total.max(1.0);
        if rest < LEAST_REST {
            return Err(format!(
                "{:.1}% of the arithmetic comes after {}, less than {:.0}%",
                100.0 * rest,
                g.describe(cut.last),
                100.0 * LEAST_REST
            ));
        }
        let head = head_flops(&features, classes);
        if head >= cut.flops[1] {
            return Err(format!("the head takes {head} operations, the rest {}", cut.flops[1]));
        }
        Ok((whole, classes, cut, features))
    }

    fn tell(&self, g: &Graph, cx: &mut PassCx, plan: &Plan<'_>, labelled: bool) {
        let [before, after] = plan.cut.flops;
        let head = head_flops(plan.features, plan.head.bias.len());
        // Leaving above a part `exits` of the samples.
        let executed = |exits: f64| (before + head + (1.0 - exits) * after) / (before + after);
        let outcome = plan.head.at(self.threshold);
        let measure = if labelled { "accuracy" } else { "agreement with the model (a proxy: no labels)" };
        let curve: Vec<String> = CURVE
            .iter()
            .map(|t| {
                let o = plan.head.at(*t);
                format!("{t}: {:.3} leave, {:.4}, {:.3}", o.exits, o.right, executed(o.exits))
            })
            .collect();
        let text = format!(
            "exit after {}, a head of {} features, {:.1}% of the arithmetic before it, {:.1}% in it, {:.1}% after; on {} samples held out, \
             by threshold: part that leaves, {measure} (whole model {:.4}), part of the arithmetic executed: {}",
            g.describe(plan.cut.last),
            plan.features.size(),
            100.0 * before / (before + after),
            100.0 * head / (before + after),
            100.0 * after / (before + after),
            outcome.rows,
            outcome.model_right,
            curve.join("; "),
        );
        cx.remark(g, plan.cut.last, "gate-done", text);
        for (name, value) in [
            ("exits", outcome.exits),
            ("right", outcome.right),
            ("right-whole-model", outcome.model_right),
            ("flops-before", before),
            ("flops-head", head),
            ("flops-after", after),
            ("flops-share", executed(outcome.exits)),
        ] {
            cx.add(name, value);
        }
    }
}

/// Floating-point operations of a head for one sample, its softmax not counted.
fn head_flops(f: &Features, classes: usize) -> f64 {
    2.0 * (f.size() * classes) as f64
}
