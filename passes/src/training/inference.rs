//! Stochastic gates as inference has them: how many are on, and where the threshold is.

use super::malformed;
use crate::pass::TargetFacts;
use crate::pipeline::Pipeline;
use crate::registry::parse_specs;
use planish_ir::op::binary::BinaryKind;
use planish_ir::op::build::Build;
use planish_ir::op::reduce::ReduceKind;
use planish_ir::op::stochastic::GateKind;
use planish_ir::{DType, Diag, Editor, Graph, Loc, Op, ValueId};

/// Whether a model draws anything.
pub fn draws(graph: &Graph) -> bool {
    graph.all_nodes().into_iter().any(|n| matches!(graph.node(n).op, Op::StochasticGate(_) | Op::Random(_)))
}

/// Thresholds that a gate may have, ascending; empty where no gate compares with one.
pub fn thresholds(graph: &Graph) -> &'static [f64] {
    let kinds = graph.all_nodes().into_iter().filter_map(|n| match &graph.node(n).op {
        Op::StochasticGate(op) => Some((op.kind, op.is_hard())),
        _ => None,
    });
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

/// The model with the share of its gates that are on as one more output; none where it has none.
pub fn with_density(graph: &Graph) -> Result<Option<Graph>, Diag> {
    let gates: Vec<ValueId> = graph
        .nodes_in(graph.root())
        .filter(|n| matches!(graph.node(*n).op, Op::StochasticGate(_)))
        .map(|n| graph.node(n).outputs[0])
        .collect();
    if gates.is_empty() {
        return Ok(None);
    }
    let mut graph = graph.clone();
    let mut ed = Editor::new(&mut graph);
    ed.at_end(ed.graph().root());
    ed.set_loc(Loc::None);
    let mut b = Build::new(&mut ed, "density");
    let mut sum = None;
    for h in &gates {
        let all: Vec<usize> = (0..b.dims(*h)?.len()).collect();
        let on = b.compare(BinaryKind::Greater, *h, 0.0)?;
        let on = b.cast(on, DType::F32)?;
        let share = b.reduce(ReduceKind::Mean, on, &all, false)?;
        sum = Some(match sum {
            Some(before) => b.binary(BinaryKind::Add, before, share)?,
            None => share,
        });
    }
    let sum = sum.ok_or_else(|| malformed("a model without gates"))?;
    let mean = b.scale(1.0 / gates.len() as f64, sum)?;
    ed.output(mean, Some("density"));
    Ok(Some(graph))
}

/// What inference uses in place of what draws (the pass `determinize`).
pub fn determinized(graph: &mut Graph, threshold: Option<f64>) -> Result<(), Diag> {
    let text =
        threshold.map_or_else(|| "determinize".to_owned(), |t| format!("determinize{{threshold={t}}}"));
    let mut pipeline = Pipeline::default();
    pipeline.specs(&parse_specs(&text)?);
    pipeline.once("eliminate-dead");
    pipeline.run(graph, &TargetFacts::default(), &mut |_, _| {})?;
    Ok(())
}
