//! What inference has in place of what training needs: gates that are on or off, where the threshold is, and stored integers.

use super::skim;
use crate::pass::TargetFacts;
use crate::pipeline::Pipeline;
use crate::registry::parse_specs;
use planish_ir::op::binary::BinaryKind;
use planish_ir::op::build::Build;
use planish_ir::op::reduce::ReduceKind;
use planish_ir::op::stochastic::GateKind;
use planish_ir::{DType, Diag, Editor, Graph, Loc, Op, ValueId};

/// Whether a model decides anything by gates, or draws anything.
pub fn draws(graph: &Graph) -> bool {
    let decides = |op: &Op| matches!(op, Op::StochasticGate(_) | Op::Random(_) | Op::SkimRecurrent(_));
    graph.all_nodes().into_iter().any(|n| decides(&graph.node(n).op))
}

/// Thresholds that a gate may have, ascending; empty where no gate compares with one.
pub fn thresholds(graph: &Graph) -> &'static [f64] {
    let kinds = graph.all_nodes().into_iter().filter_map(|n| match &graph.node(n).op {
        Op::StochasticGate(op) => Some((op.kind, op.is_hard())),
        _ => None,
    });
    if !skim::layers(graph).is_empty() {
        return &[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0];
    }
    for (kind, hard) in kinds {
        match kind {
            GateKind::Gaussian | GateKind::Logistic => {
                return &[0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0];
            }
            GateKind::Sigmoid if !hard => {}
            GateKind::Softmax => {}
            _ => return &[0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95],
        }
    }
    &[]
}

/// The model with the share of its gates that are on as one more output, of layers that skim that of the steps that they read; none where it
/// has neither. `threshold` stands for the probability above which steps skim.
pub fn with_density(graph: &Graph, threshold: Option<f64>) -> Result<Option<Graph>, Diag> {
    let gates: Vec<ValueId> = graph
        .nodes_in(graph.root())
        .filter(|n| matches!(graph.node(*n).op, Op::StochasticGate(_)))
        .map(|n| graph.node(n).outputs[0])
        .collect();
    let count = gates.len() + skim::layers(graph).len();
    if count == 0 {
        return Ok(None);
    }
    let mut graph = graph.clone();
    let mut ed = Editor::new(&mut graph);
    ed.at_end(ed.graph().root());
    ed.set_loc(Loc::None);
    let mut b = Build::new(&mut ed, "density");
    let mut shares = skim::read(&mut b, threshold)?;
    for h in &gates {
        let all: Vec<usize> = (0..b.dims(*h)?.len()).collect();
        let on = b.compare(BinaryKind::Greater, *h, 0.0)?;
        let on = b.cast(on, DType::F32)?;
        shares.push(b.reduce(ReduceKind::Mean, on, &all, false)?);
    }
    let mut sum = shares[0];
    for share in &shares[1..] {
        sum = b.binary(BinaryKind::Add, sum, *share)?;
    }
    let mean = b.scale(1.0 / count as f64, sum)?;
    ed.output(mean, Some("density"));
    Ok(Some(graph))
}

/// What inference uses in place of what draws (the pass `determinize`); layers that skim get the threshold as well.
pub fn determinized(graph: &mut Graph, threshold: Option<f64>) -> Result<(), Diag> {
    if let Some(theta) = threshold {
        skim::set_theta(&mut Editor::new(graph), theta)?;
    }
    let text =
        threshold.map_or_else(|| "determinize".to_owned(), |t| format!("determinize{{threshold={t}}}"));
    let mut pipeline = Pipeline::default();
    pipeline.specs(&parse_specs(&text)?);
    pipeline.once("eliminate-dead");
    pipeline.run(graph, &TargetFacts::default(), &mut |_, _| {})?;
    Ok(())
}

/// Stored integers in place of what is rounded for training (the pass `quantize-trained`), if anything is.
pub fn quantized(graph: &mut Graph) -> Result<(), Diag> {
    if !graph.all_nodes().into_iter().any(|n| matches!(graph.node(n).op, Op::FakeQuantize(_))) {
        return Ok(());
    }
    let mut pipeline = Pipeline::default();
    pipeline.once("quantize-trained");
    pipeline.run(graph, &TargetFacts::default(), &mut |_, _| {})?;
    Ok(())
}
