//! Networks that may be left half way, while they are trained: scores of a head are one more output, whose loss is added to that of the whole network
//! (Elhoushi et al., *LayerSkip*, 2024, with the weights of its losses for two depths).

use crate::Threshold;
use planish_ir::op::build::Build;
use planish_ir::op::reduce::ReduceKind;
use planish_ir::op::softmax::{Softmax, SoftmaxKind};
use planish_ir::op::unary::UnaryKind;
use planish_ir::op::where_::Where;
use planish_ir::{Diag, Editor, Graph, Op, ValueId};

/// The name of the output of a model that holds the scores of its head.
pub const EXIT: &str = "exit";
/// The threshold unless another is given.
pub(super) const USUAL: f64 = 0.9;
/// What the loss of the head counts unless told otherwise, that of the whole network being 1.
pub const WEIGHT: f64 = 0.3;

/// Which output is that of a head: one behind the first of its type that is called [`EXIT`].
pub(crate) fn output(model: &Graph) -> Option<usize> {
    let outputs = model.outputs();
    let first = *outputs.first()?;
    (1..outputs.len()).find(|i| model.output_name(*i) == EXIT && model.ty(outputs[*i]) == model.ty(first))
}

/// The largest probability of each row of scores \[N, classes\], which may be probabilities or their logarithms already, \[N\].
fn confidence(b: &mut Build<'_, '_>, scores: ValueId) -> Result<ValueId, Diag> {
    let ends_in = match b.ed.graph().def_node(scores).map(|n| &b.ed.graph().node(n).op) {
        Some(Op::Softmax(s)) => Some(s.kind),
        _ => None,
    };
    let p = match ends_in {
        Some(SoftmaxKind::Softmax) => scores,
        Some(SoftmaxKind::LogSoftmax) => b.unary(UnaryKind::Exp, scores)?,
        _ => b.ed.node1(Softmax { kind: SoftmaxKind::Softmax, axis: 1 }, &[scores])?,
    };
    b.reduce(ReduceKind::Max, p, &[1], false)
}

/// Of each row of scores \[N, classes\], as [`confidence`] takes them, whether it goes on: \[N\].
pub(crate) fn stays(b: &mut Build<'_, '_>, scores: ValueId, threshold: Threshold) -> Result<ValueId, Diag> {
    let confidence = confidence(b, scores)?;
    // What is no number goes on.
    let leaves = threshold.below(b, confidence)?;
    b.unary(UnaryKind::Not, leaves)
}

/// Makes the scores of the head the result of rows that leave, as a network does that computes everything, and removes the output of the head;
/// what says of each row whether it goes on. None where the model has no head.
pub(super) fn chosen(ed: &mut Editor<'_>, threshold: Option<Threshold>) -> Result<Option<ValueId>, Diag> {
    let Some(at) = output(ed.graph()) else { return Ok(None) };
    let root = ed.graph().root();
    ed.at_end(root);
    let (y, head) = (ed.graph().outputs()[0], ed.graph().outputs()[at]);
    let mut b = Build::new(ed, "early exit");
    let stays = stays(&mut b, head, threshold.unwrap_or(Threshold::At(USUAL)))?;
    let column = b.unsqueeze(stays, &[1])?;
    let new = b.ed.node1(Where {}, &[column, y, head])?;
    ed.set_use(planish_ir::graph::Use::Result(root, 0), new);
    ed.remove_output(at)?;
    Ok(Some(stays))
}
