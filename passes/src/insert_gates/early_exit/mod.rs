//! A head half way through a network, behind which the rest runs only where the head is not sure.

mod build;
mod cut;
mod head;
#[cfg(test)]
mod tests;

use crate::calibrate::Samples;
use crate::options::OptionMeta;
use crate::training::EXIT;
use crate::{Options, PassCx, Threshold, util};
use build::Plan;
use cut::Cut;
use head::{Features, Rows};
use planish_ir::op::softmax::SoftmaxKind;
use planish_ir::{Diag, Dim, Editor, Graph, Loc, Op, Tensor, ValueId};

/// The options of `kind=early-exit`.
#[derive(Clone, Debug)]
pub(crate) struct EarlyExit {
    after: String,
    threshold: Threshold,
    features: String,
    /// The output that holds the scores of the head; empty: it is fitted.
    head: String,
    /// Whether the head becomes an output.
    train: bool,
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
        let threshold: Threshold = o.get(m, "threshold")?;
        if matches!(threshold, Threshold::At(t) if !(0.0..=1.0).contains(&t)) {
            return bad(format!("threshold is from 0 to 1, or `input`, not {threshold}"));
        }
        let features = o.text(m, "features").to_owned();
        if !["auto", "flat", "pooled"].contains(&features.as_str()) {
            return bad(format!("features cannot be `{features}`, only auto, flat or pooled"));
        }
        let (head, train) = (o.text(m, "head").to_owned(), o.get(m, "train")?);
        if train && !head.is_empty() {
            return bad("a head that is there already is not added with train=true".into());
        }
        Ok(EarlyExit {
            after: o.text(m, "after").to_owned(),
            threshold,
            features,
            head,
            train,
            seed: o.get(m, "seed")?,
            samples,
        })
    }

    pub(super) fn run(&self, ed: &mut Editor<'_>, cx: &mut PassCx) -> Result<(), Diag> {
        if !self.head.is_empty() {
            return self.with_head(ed, cx);
        }
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
        let head_scores = |ed: &mut Editor<'_>| {
            let loc = ed.graph().node(cut.last).loc.clone();
            ed.set_loc(loc);
            ed.before(*cut.rest.first().unwrap_or(&cut.last));
            build::scores(ed, &cut, (&head, &features), ends_in)
        };
        let make = |ed: &mut Editor<'_>| {
            let scores = head_scores(ed)?;
            build::build(ed, &Plan { cut: &cut, scores, threshold: self.threshold, whole })
        };
        if !tried(g, cx, &cut, &make) {
            return Ok(());
        }
        self.tell(g, cx, &cut, (&head, &features), labels.is_some());
        if self.train {
            let scores = head_scores(ed)?;
            ed.output(scores, Some(EXIT));
            return Ok(());
        }
        make(ed)
    }

    /// Makes the gate of a head that the model has.
    fn with_head(&self, ed: &mut Editor<'_>, cx: &mut PassCx) -> Result<(), Diag> {
        let g = ed.graph();
        let (at, whole, cut) = match headed(g, &self.head) {
            Ok(found) => found,
            Err(why) => {
                cx.remark_at(Loc::None, "gate-skipped", format!("no early exit: {why}"));
                return Ok(());
            }
        };
        let scores = g.outputs()[at];
        let make = |ed: &mut Editor<'_>| {
            ed.remove_output(at)?;
            build::build(ed, &Plan { cut: &cut, scores, threshold: self.threshold, whole })
        };
        if !tried(g, cx, &cut, &make) {
            return Ok(());
        }
        let [before, after] = cut.flops;
        let part = |flops: f64| 100.0 * flops / (before + after).max(1.0);
        let text = format!(
            "exit after {} by the scores `{}`, {:.1}% of the arithmetic before it and in its head, {:.1}% after",
            g.describe(cut.last),
            self.head,
            part(before),
            part(after),
        );
        cx.remark(g, cut.last, "gate-done", text);
        cx.add("flops-before", before);
        cx.add("flops-after", after);
        make(ed)
    }

    /// Whether there is one sample only, the number of classes, the place of the exit and what its head sees.
    fn place(&self, g: &Graph) -> Result<(bool, usize, Cut, Features), String> {
        let [y] = g.outputs() else {
            return Err(format!("the model has {} outputs, not one", g.outputs().len()));
        };
        let (batch, classes) = scores_of(g, *y)?;
        let whole = batch.is(1);
        let cut = cut::choose(g, &self.after, &batch, whole)?;
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

    fn tell(
        &self,
        g: &Graph,
        cx: &mut PassCx,
        cut: &Cut,
        (fitted, features): (&head::Head, &Features),
        labelled: bool,
    ) {
        let [before, after] = cut.flops;
        let head = head_flops(features, fitted.bias.len());
        // Leaving above a part `exits` of the samples.
        let executed = |exits: f64| (before + head + (1.0 - exits) * after) / (before + after);
        let outcome = fitted.at(match self.threshold {
            Threshold::At(t) => t,
            Threshold::Input => 1.0,
        });
        let measure = if labelled { "accuracy" } else { "agreement with the model (a proxy: no labels)" };
        let curve: Vec<String> = CURVE
            .iter()
            .map(|t| {
                let o = fitted.at(*t);
                format!("{t}: {:.3} leave, {:.4}, {:.3}", o.exits, o.right, executed(o.exits))
            })
            .collect();
        let text = format!(
            "exit after {}, a head of {} features, {:.1}% of the arithmetic before it, {:.1}% in it, {:.1}% after; on {} samples held out, \
             by threshold: part that leaves, {measure} (whole model {:.4}), part of the arithmetic executed: {}",
            g.describe(cut.last),
            features.size(),
            100.0 * before / (before + after),
            100.0 * head / (before + after),
            100.0 * after / (before + after),
            outcome.rows,
            outcome.model_right,
            curve.join("; "),
        );
        cx.remark(g, cut.last, "gate-done", text);
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

/// Floating-point operations of a run behind the head whose scores an output of this name holds; none where they cannot be left out.
pub(crate) fn exit_work(g: &Graph, name: &str) -> Option<f64> {
    headed(g, name).ok().map(|(.., cut)| cut.flops[1])
}

/// The output with the scores of the head, whether there is one sample only, and what the scores do not need.
fn headed(g: &Graph, name: &str) -> Result<(usize, bool, Cut), String> {
    let outputs = g.outputs();
    let y = *outputs.first().ok_or("the model has no output")?;
    let at = (1..outputs.len()).find(|i| g.output_name(*i) == name);
    let at = at.ok_or_else(|| format!("no output behind the first is called `{name}`"))?;
    let show = |v: ValueId| g.ty(v).display(&g.symbols).to_string();
    if g.ty(outputs[at]) != g.ty(y) {
        return Err(format!("`{name}` is {}, the first output {}", show(outputs[at]), show(y)));
    }
    let (batch, _) = scores_of(g, y)?;
    let whole = batch.is(1);
    let cut = cut::behind(g, (y, outputs[at]), &batch, whole)?;
    Ok((at, whole, cut))
}

/// Whether a gate can be made, with a remark where not. What stops half way through leaves a spoilt graph: it is tried on a copy.
fn tried(g: &Graph, cx: &mut PassCx, cut: &Cut, make: &dyn Fn(&mut Editor<'_>) -> Result<(), Diag>) -> bool {
    let made = make(&mut Editor::new(&mut g.clone()));
    if let Err(d) = &made {
        cx.remark(g, cut.last, "gate-skipped", format!("no early exit: {}", d.message));
    }
    made.is_ok()
}

/// The batch and the number of classes of scores.
fn scores_of(g: &Graph, y: ValueId) -> Result<(Dim, usize), String> {
    let other = || format!("its output is {}, not scores of classes", g.ty(y).display(&g.symbols));
    let Some([batch, classes]) = g.dims(y) else { return Err(other()) };
    let classes = classes.as_const().and_then(|c| usize::try_from(c).ok()).filter(|c| *c >= 2);
    match classes {
        Some(classes) if util::is_float(g, y) => Ok((batch.clone(), classes)),
        _ => Err(other()),
    }
}

/// Floating-point operations of a head for one sample, its softmax not counted.
fn head_flops(f: &Features, classes: usize) -> f64 {
    2.0 * (f.size() * classes) as f64
}
