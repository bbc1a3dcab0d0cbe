//! What was made of a model, for reports.

use super::{Accuracy, Check, Evidence, File, Layer, Model, Pass, Remark, Sizes};
use crate::accuracy::{Accuracy as Kept, Metric};
use crate::engine::codegen::Built;
use crate::equivalence::Verdict;
use crate::failure::Result;
use crate::load;
use crate::pipeline::Plan;
use planish_ir::constant::Encoding;
use planish_ir::{Constant, Diag, Graph, Severity, ValueId};
use planish_passes::Report as Passes;
use std::sync::Arc;

/// A model as loaded, the plan it went through, and what passes said. `graph` is the result, before it was lowered.
pub fn made(name: &str, model: &load::Model, plan: &Plan, passes: &Passes, graph: &Graph) -> Result<Model> {
    let (layers, remarks) = layers(graph, &passes.remarks);
    Ok(Model {
        name: name.to_owned(),
        path: model.path.display().to_string(),
        hash: format!("sha256:{}", model.hash),
        recipe: plan.text()?,
        recipe_hash: format!("sha256:{}", plan.hash()?),
        sizes: Sizes { model: Some(model.bytes), ..Sizes::default() },
        files: Vec::new(),
        passes: ran(passes),
        lossy: passes.lossy.clone(),
        layers,
        remarks,
        check: None,
        accuracy: None,
        seconds: 0.0,
    })
}

impl Model {
    /// Notes what the code generator has made.
    pub fn built(&mut self, built: &Built) {
        self.sizes.weights = Some(built.module.weights.len());
        self.sizes.code = Some(built.variants.iter().map(|v| v.image.bytes.len() as u64).sum());
    }
    /// Notes the files that were written: kind, path, bytes.
    pub fn wrote(&mut self, files: Vec<(String, String, u64)>) {
        self.files = files.into_iter().map(|(kind, path, bytes)| File { kind, path, bytes }).collect();
        let exe = self.files.iter().find(|f| f.kind == "exe").map(|f| f.bytes);
        self.sizes.artifact = exe.or_else(|| self.files.iter().map(|f| f.bytes).max());
    }
    /// Notes what passes with a loss have left. Ratios of signal to noise are no part of 1 and have no place here.
    pub fn kept(&mut self, accuracy: Option<&Kept>) {
        self.accuracy = accuracy.filter(|a| a.metric != Metric::Snr).map(|a| {
            // Without labels the model as it was agrees with itself.
            let (before, base) = a.before.map_or((1.0, 0.0), |b| (b, b));
            Accuracy {
                metric: a.metric.name().into(),
                class: if a.metric == Metric::Top1 { Evidence::Measured } else { Evidence::Proxy },
                before,
                after: a.after,
                samples: a.samples,
                low: a.interval.map(|[low, _]| base + low),
                high: a.interval.map(|[_, high]| base + high),
            }
        });
    }
    /// Notes what the comparison with the interpreter said.
    pub fn checked(&mut self, verdict: Option<&Verdict>) {
        self.check = verdict.map(|v| match v {
            Verdict::Equal { worst, on } => Check {
                verdict: "equal".into(),
                worst: worst.is_finite().then_some(*worst),
                detail: Some(on.to_string()),
            },
            Verdict::Different(why) => {
                Check { verdict: "different".into(), worst: None, detail: Some(why.clone()) }
            }
            Verdict::NotChecked(why) => {
                Check { verdict: "not-checked".into(), worst: None, detail: Some(why.clone()) }
            }
        });
    }
}

/// What passes did, repetitions added up.
pub fn ran(report: &Passes) -> Vec<Pass> {
    let mut passes: Vec<Pass> = Vec::new();
    for r in &report.ran {
        let at = passes.iter().position(|p| p.pass == r.spec).unwrap_or(passes.len());
        if at == passes.len() {
            passes.push(Pass { pass: r.spec.clone(), edits: 0, ms: 0.0, metrics: Default::default() });
        }
        let p = &mut passes[at];
        p.edits += r.edits;
        p.ms += r.time.as_secs_f64() * 1e3;
        for (k, v) in r.metrics.iter().filter(|(_, v)| v.is_finite()) {
            *p.metrics.entry(k.clone()).or_insert(0.0) += v;
        }
    }
    passes
}

/// A finding for a report.
pub fn remark(d: &Diag) -> Remark {
    let severity = match d.severity {
        Severity::Note => "note",
        Severity::Remark => "remark",
        Severity::Warning => "warning",
        Severity::Error => "error",
    };
    Remark { id: d.id.to_owned(), severity: severity.into(), message: d.message.clone() }
}

/// The nodes with weights in the order of the graph, then other nodes that were remarked on; and remarks on no node.
fn layers(graph: &Graph, remarks: &[Diag]) -> (Vec<Layer>, Vec<Remark>) {
    let mut layers: Vec<Layer> = Vec::new();
    for n in graph.all_nodes() {
        let node = graph.node(n);
        let operands =
            node.op.weight_inputs().into_iter().filter_map(|i| node.inputs.get(i).copied().flatten());
        let matrices: Vec<_> = operands.filter_map(|v| weights(graph, v)).collect();
        if matrices.is_empty() {
            continue;
        }
        layers.push(Layer {
            node: graph.describe(n),
            op: Some(node.op.name().to_owned()),
            weights: Some(matrices.iter().map(|c| form(c)).collect::<Vec<_>>().join("; ")),
            bytes: Some(matrices.iter().map(|c| c.stored_bytes() as u64).sum()),
            remarks: Vec::new(),
        });
    }
    let mut general = Vec::new();
    for d in remarks {
        let name = d.at.label();
        if name.is_empty() {
            general.push(remark(d));
            continue;
        }
        let at = layers.iter().position(|l| l.node == name).unwrap_or(layers.len());
        if at == layers.len() {
            layers.push(Layer { node: name, op: None, weights: None, bytes: None, remarks: Vec::new() });
        }
        layers[at].remarks.push(remark(d));
    }
    (layers, general)
}

/// The constant that weights are, also behind a step that restores them from integers.
fn weights(graph: &Graph, v: ValueId) -> Option<&Arc<Constant>> {
    if let Some((_, c)) = graph.as_const(v) {
        return Some(c);
    }
    let node = graph.node(graph.def_node(v)?);
    let restores = node.op.name().contains("dequantize");
    let first = node.inputs.first().copied().flatten()?;
    restores.then(|| graph.as_const(first))?.map(|(_, c)| c)
}

/// The form of a constant in words.
fn form(c: &Constant) -> String {
    let dims: Vec<String> = c.shape.iter().map(usize::to_string).collect();
    let plain = format!("{} {}", c.dtype.name(), dims.join("x"));
    let part = |kept: usize| 100.0 * kept as f64 / (c.len().max(1)) as f64;
    match &c.encoding {
        Encoding::Dense(_) => plain,
        Encoding::Splat(_) => format!("{plain}, all equal"),
        Encoding::BlockSparse { block: [k, n], values, .. } => {
            format!("{plain}, blocks {k}x{n}, {:.1}% kept", part(values.len()))
        }
        Encoding::NOfM { n, m, .. } => format!("{plain}, {n} of {m}"),
        Encoding::Codebook { centroids, .. } => format!("{plain}, codebook of {}", centroids.len()),
        Encoding::Packed4(_) => format!("{plain}, two in a byte"),
    }
}
