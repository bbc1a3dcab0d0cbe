//! What inference has in place of what training needs: gates that are on or off, where the threshold is, and stored integers.

use super::{exits, mixture, skim};
use crate::Threshold;
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
    exits::output(graph).is_some() || graph.all_nodes().into_iter().any(|n| decides(&graph.node(n).op))
}

/// Thresholds that a gate may have, ascending; empty where no gate compares with one.
pub fn thresholds(graph: &Graph) -> &'static [f64] {
    const PROBABILITIES: &[f64] = &[
        0.05, 0.1, 0.12, 0.14, 0.16, 0.18, 0.2, 0.22, 0.24, 0.26, 0.28, 0.3, 0.32, 0.34, 0.36, 0.38, 0.4,
        0.42, 0.44, 0.46, 0.48, 0.5, 0.52, 0.54, 0.56, 0.58, 0.6, 0.62, 0.64, 0.66, 0.68, 0.7, 0.72, 0.74,
        0.76, 0.78, 0.8, 0.82, 0.84, 0.86, 0.88, 0.9, 0.92, 0.94, 0.96, 0.98, 0.99, 0.995, 1.0,
    ];
    let kinds = graph.all_nodes().into_iter().filter_map(|n| match &graph.node(n).op {
        Op::StochasticGate(op) => Some((op.kind, op.is_hard())),
        _ => None,
    });
    if exits::output(graph).is_some() || !skim::layers(graph).is_empty() {
        return PROBABILITIES;
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

/// What a model gives behind its training, all of it computed, and, as one more output `density`, the share of its gates that are on, of layers that skim
/// that of the steps that they read, of a head half way that of the rows that go on. The second result says whether there is such an output: not where
/// the model has nothing of that kind. A threshold stands for the usual ones.
///
/// # Errors
/// As the pass `determinize`.
pub fn inferred(graph: &Graph, threshold: Option<Threshold>) -> Result<(Graph, bool), Diag> {
    let mut graph = graph.clone();
    let gates: Vec<ValueId> = graph
        .nodes_in(graph.root())
        .filter(|n| matches!(graph.node(*n).op, Op::StochasticGate(_)))
        .map(|n| graph.node(n).outputs[0])
        .collect();
    let mut ed = Editor::new(&mut graph);
    ed.set_loc(Loc::None);
    let stays = exits::chosen(&mut ed, threshold)?;
    ed.at_end(ed.graph().root());
    let mut b = Build::new(&mut ed, "density");
    let mut shares = skim::read(&mut b, threshold)?;
    let on = |b: &mut Build<'_, '_>, on: ValueId| {
        let all: Vec<usize> = (0..b.dims(on)?.len()).collect();
        let on = b.cast(on, DType::F32)?;
        b.reduce(ReduceKind::Mean, on, &all, false)
    };
    if let Some(stays) = stays {
        shares.push(on(&mut b, stays)?);
    }
    for h in gates {
        let is = b.compare(BinaryKind::Greater, h, 0.0)?;
        shares.push(on(&mut b, is)?);
    }
    let some = !shares.is_empty();
    if let Some((first, rest)) = shares.split_first() {
        let mut sum = *first;
        for share in rest {
            sum = b.binary(BinaryKind::Add, sum, *share)?;
        }
        let mean = b.scale(1.0 / shares.len() as f64, sum)?;
        ed.output(mean, Some("density"));
    }
    determinized(&mut graph, threshold)?;
    Ok((graph, some))
}

/// What inference uses in place of what draws (the pass `determinize`), and a gate in front of what comes behind a head (`insert-gates:kind=early-exit`); layers
/// that skim get the threshold as well.
///
/// # Errors
/// As these passes.
pub fn determinized(graph: &mut Graph, threshold: Option<Threshold>) -> Result<(), Diag> {
    let with = |t: Threshold| format!("threshold={t}");
    let mut text = threshold.map_or_else(|| "determinize".into(), |t| format!("determinize{{{}}}", with(t)));
    if exits::output(graph).is_some() {
        let t = with(threshold.unwrap_or(Threshold::At(exits::USUAL)));
        text += &format!(",insert-gates{{kind=early-exit,head={},{t}}}", exits::EXIT);
    }
    let mut pipeline = Pipeline::default();
    pipeline.specs(&parse_specs(&text)?);
    pipeline.once("eliminate-dead");
    pipeline.run(graph, &TargetFacts::default(), &mut |_, _| {})?;
    // What cannot be a gate is computed for all rows.
    let mut ed = Editor::new(graph);
    ed.set_loc(Loc::None);
    exits::chosen(&mut ed, threshold)?;
    Ok(())
}

/// What is left of a model behind its training: nothing that is there for training only, gates [as inference has them](determinized), and
/// [stored integers](quantized).
///
/// # Errors
/// As the passes that do it.
pub fn finished(graph: &mut Graph, threshold: Option<Threshold>) -> Result<(), Diag> {
    mixture::without_balance(graph)?;
    if draws(graph) {
        determinized(graph, threshold)?;
    }
    quantized(graph)
}

/// Stored integers in place of what is rounded for training (the pass `quantize-trained`), if anything is.
fn quantized(graph: &mut Graph) -> Result<(), Diag> {
    if !graph.all_nodes().into_iter().any(|n| matches!(graph.node(n).op, Op::FakeQuantize(_))) {
        return Ok(());
    }
    let mut pipeline = Pipeline::default();
    pipeline.once("quantize-trained");
    pipeline.run(graph, &TargetFacts::default(), &mut |_, _| {})?;
    Ok(())
}
