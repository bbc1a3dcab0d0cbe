//! The rest of a network behind a gate.

use super::cut::{Cut, mixes};
use super::head::{Features, Head};
use crate::training::exits::stays;
use crate::{Threshold, util};
use planish_ir::graph::Use;
use planish_ir::op::binary::{Binary, BinaryKind};
use planish_ir::op::build::Build;
use planish_ir::op::control::{Fallback, Gate, Granularity};
use planish_ir::op::matmul::MatMul;
use planish_ir::op::reduce::{Reduce, ReduceKind};
use planish_ir::op::softmax::{Softmax, SoftmaxKind};
use planish_ir::op::views::{Flatten, Unsqueeze};
use planish_ir::op::where_::Where;
use planish_ir::{Constant, Diag, Dim, Editor, NodeId, Op, RegionId, Tensor, Type, ValueId};
use std::collections::HashMap;

/// What is built.
pub(super) struct Plan<'a> {
    pub(super) cut: &'a Cut,
    /// What the head says, as the output of the model says it: scores, probabilities, or their logarithms.
    pub(super) scores: ValueId,
    pub(super) threshold: Threshold,
    /// Whether there is one sample only; else rows are gated.
    pub(super) whole: bool,
}

/// Moves the rest of the graph into a gate. The error says why it cannot be done, after which the graph is spoilt.
pub(super) fn build(ed: &mut Editor<'_>, plan: &Plan<'_>) -> Result<(), Diag> {
    let Plan { cut, .. } = plan;
    let loc = ed.graph().node(cut.last).loc.clone();
    ed.set_loc(loc);
    ed.at_end(ed.graph().root());
    let left = plan.scores;
    let stay = stays(&mut Build::new(ed, "early exit"), left, plan.threshold)?;
    let y = ed.graph().outputs()[0];
    let old = ed.graph().ty(y).clone();
    let region = ed.new_region();
    let x_ty = ed.graph().ty(cut.feature).clone();
    let rows = if plan.whole { None } else { Some(Dim::from(ed.graph_mut().symbols.fresh(0, None))) };
    let some = match (&rows, x_ty) {
        (Some(r), Type::Tensor(mut t)) => {
            if let Some(d) = t.shape.as_mut().and_then(|s| s.first_mut()) {
                *d = r.clone();
            }
            Type::Tensor(t)
        }
        (_, ty) => ty,
    };
    let param = ed.param(region, some.into());
    let mut inside: HashMap<ValueId, ValueId> = HashMap::from([(cut.feature, param)]);
    for v in &cut.others {
        let fact = ed.graph().value(*v).fact.clone();
        inside.insert(*v, ed.param(region, fact));
    }
    if plan.whole {
        let fact = ed.graph().value(left).fact.clone();
        ed.param(region, fact);
    }
    move_into(ed, region, &cut.rest, &mut inside, rows.is_some())?;
    if let Some(rows) = &rows
        && let Some(why) = mixes(ed.graph(), &cut.rest, param, rows)
    {
        return Err(Diag::error("gate-skipped", why));
    }
    let root = ed.graph().root();
    ed.set_use(Use::Result(root, 0), left);
    ed.result(region, y);
    let other = ed.new_region();
    let mut operands = vec![Some(stay), Some(cut.feature)];
    if plan.whole {
        operands.extend(cut.others.iter().chain([&left]).map(|v| Some(*v)));
        for v in operands[1..].iter().flatten() {
            let fact = ed.graph().value(*v).fact.clone();
            let p = ed.param(other, fact);
            if *v == left {
                ed.result(other, p);
            }
        }
    }
    ed.at_end(root);
    let gate = Gate {
        granularity: if plan.whole { Granularity::Whole } else { Granularity::Rows },
        axis: 0,
        block: 0,
        k: 0,
        fallback: if plan.whole { Fallback::Region } else { Fallback::Zero },
    };
    let made = ed.node_with_regions(gate, &operands, vec![region, other])?;
    let mut new = *made.first().ok_or_else(|| Diag::error("arity", "a gate has one result"))?;
    if !plan.whole {
        let column = ed.node1(Unsqueeze { axes: vec![1] }, &[stay])?;
        new = ed.node1(Where {}, &[column, new, left])?;
    }
    ed.set_use(Use::Result(root, 0), new);
    if *ed.graph().ty(new) != old {
        return Err(Diag::error("gate-skipped", "the head gives another type than the model"));
    }
    Ok(())
}

/// What a fitted head says, nodes where the editor stands; `ends_in` is what the output of the model is of its scores, if it is not the scores themselves.
pub(super) fn scores(
    ed: &mut Editor<'_>,
    cut: &Cut,
    (head, features): (&Head, &Features),
    ends_in: Option<SoftmaxKind>,
) -> Result<ValueId, Diag> {
    let dtype = ed.graph().dtype(cut.feature).ok_or_else(|| Diag::error("arity", "no tensor"))?;
    let x = match features {
        Features::Flat { .. } => ed.node1(Flatten { axis: 1 }, &[cut.feature])?,
        Features::Pooled { axes, .. } => {
            let mean = Reduce {
                kind: ReduceKind::Mean,
                axes: Some(axes.clone()),
                keepdims: false,
                noop_empty: false,
            };
            ed.node1(mean, &[cut.feature])?
        }
    };
    let classes = head.bias.len();
    let w = Tensor::floats(dtype, &[features.size(), classes], head.weights.clone())?;
    let w = ed.constant(Constant::from(w))?;
    ed.set_name(w, "exit.weight");
    let bias = ed.constant(Constant::from(Tensor::floats(dtype, &[classes], head.bias.clone())?))?;
    ed.set_name(bias, "exit.bias");
    let product = ed.node1(MatMul { trans_a: false, trans_b: false }, &[x, w])?;
    let scores = ed.node1(Binary { kind: BinaryKind::Add }, &[product, bias])?;
    match ends_in {
        None => Ok(scores),
        Some(kind) => ed.node1(Softmax { kind, axis: 1 }, &[scores]),
    }
}

/// Moves nodes of the root to the end of a region. `inside` has what stands there for values outside; constants are copied.
fn move_into(
    ed: &mut Editor<'_>,
    region: RegionId,
    nodes: &[NodeId],
    inside: &mut HashMap<ValueId, ValueId>,
    infer: bool,
) -> Result<(), Diag> {
    for n in nodes {
        let inputs = ed.graph().node(*n).inputs.clone();
        ed.at_end(region);
        for (i, v) in inputs.into_iter().enumerate() {
            let Some(v) = v else { continue };
            let new = match (inside.get(&v), util::constant(ed.graph(), v).cloned()) {
                (Some(new), _) => *new,
                (None, Some(c)) => {
                    let id = ed.constant_id(c);
                    let new = ed.node1(Op::Const(planish_ir::op::Const { id }), &[])?;
                    inside.insert(v, new);
                    new
                }
                // It was moved.
                (None, None) => v,
            };
            ed.set_use(Use::Node(*n, i as u32), new);
        }
        ed.move_here(*n);
        if infer {
            ed.reinfer(*n)?;
        }
    }
    Ok(())
}
