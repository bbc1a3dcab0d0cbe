//! Layers that skim while they are trained: they mix what both cells give, by noise, and are paid for skimming (Seo et al., *Neural Speed Reading via
//! Skim-RNN*, 2018).

use crate::Threshold;
use crate::threshold::input;
use planish_ir::op::binary::BinaryKind;
use planish_ir::op::build::Build;
use planish_ir::op::concat::Concat;
use planish_ir::op::random::Random;
use planish_ir::op::recurrent::skim::SkimRecurrent;
use planish_ir::op::reduce::ReduceKind;
use planish_ir::op::unary::UnaryKind;
use planish_ir::{DType, Diag, Editor, Graph, NodeId, Op, ValueId};

/// The layers that skim and are not within regions.
pub(super) fn layers(g: &Graph) -> Vec<(NodeId, SkimRecurrent)> {
    let of = |n: NodeId| match &g.node(n).op {
        Op::SkimRecurrent(op) => Some((n, op.clone())),
        _ => None,
    };
    g.nodes_in(g.root()).filter_map(of).collect()
}

/// Gives every layer noise. The steps of training give it a seed.
pub(super) fn noisy(ed: &mut Editor<'_>) -> Result<(), Diag> {
    for (n, op) in layers(ed.graph()) {
        let node = ed.graph().node(n);
        let mut inputs = node.inputs.clone();
        let Some(x) = inputs[0] else { continue };
        inputs.resize(inputs.len().max(SkimRecurrent::TEMPERATURE + 1), None);
        if inputs[SkimRecurrent::NOISE].is_some() {
            continue;
        }
        ed.before(n);
        let mut b = Build::new(ed, "skim");
        let dtype = b.dtype(x)?;
        let (steps, rows, two) = (b.size(x, 0)?, b.size(x, 1)?, b.vector(&[2])?);
        let shape = b.ed.node1(Concat { axis: 0 }, &[steps, rows, two])?;
        let noise = b.ed.node1(Random { dtype, normal: false, a: 0.0, b: 1.0, seed: None }, &[shape])?;
        inputs[SkimRecurrent::NOISE] = Some(noise);
        while inputs.last().is_some_and(Option::is_none) {
            inputs.pop();
        }
        ed.rewrite(n, op, &inputs)?;
    }
    Ok(())
}

/// Adds a multiple of the mean over all steps of `-ln p` to the loss, p being the probability of skimming.
pub(super) fn paid(b: &mut Build<'_, '_>, mut loss: ValueId, factor: f64) -> Result<ValueId, Diag> {
    let to = b.dtype(loss)?;
    for (n, op) in layers(b.ed.graph()) {
        let p = b.ed.graph().node(n).outputs[op.probabilities()];
        // Where a probability is 0 the logarithm stays finite.
        let p = b.plus(1e-20, p)?;
        let log = b.unary(UnaryKind::Log, p)?;
        let all: Vec<usize> = (0..b.dims(log)?.len()).collect();
        let mean = b.reduce(ReduceKind::Mean, log, &all, false)?;
        let term = b.scale(-factor, mean)?;
        let term = b.cast(term, to)?;
        loss = b.binary(BinaryKind::Add, loss, term)?;
    }
    Ok(loss)
}

/// The share of the steps that are read, of each layer; the threshold stands for that of the layers.
pub(super) fn read(b: &mut Build<'_, '_>, threshold: Option<Threshold>) -> Result<Vec<ValueId>, Diag> {
    let mut out = Vec::new();
    for (n, op) in layers(b.ed.graph()) {
        let p = b.ed.graph().node(n).outputs[op.probabilities()];
        let skims = threshold.unwrap_or(Threshold::At(op.theta)).below(b, p)?;
        let skims = b.cast(skims, DType::F32)?;
        let all: Vec<usize> = (0..b.dims(skims)?.len()).collect();
        let share = b.reduce(ReduceKind::Mean, skims, &all, false)?;
        out.push(b.one_less(share)?);
    }
    Ok(out)
}

/// Lets all layers skim above another probability; returns how many.
pub(crate) fn set_theta(ed: &mut Editor<'_>, threshold: Threshold) -> Result<usize, Diag> {
    let all = layers(ed.graph());
    for (n, op) in &all {
        let mut inputs = ed.graph().node(*n).inputs.clone();
        let op = match threshold {
            Threshold::At(theta) => {
                if let Some(own) = inputs.get_mut(SkimRecurrent::THETA) {
                    *own = None;
                }
                SkimRecurrent { theta, ..op.clone() }
            }
            Threshold::Input => {
                inputs.resize(inputs.len().max(SkimRecurrent::THETA + 1), None);
                inputs[SkimRecurrent::THETA] = Some(input(ed)?);
                op.clone()
            }
        };
        while inputs.last().is_some_and(Option::is_none) {
            inputs.pop();
        }
        ed.rewrite(*n, op, &inputs)?;
    }
    Ok(all.len())
}
