//! Losses.

use super::Made;
use super::norm::rank_from;
use crate::import::table::{Entry, onnx};
use crate::import::{ImportCx, OnnxNode};
use planish_ir::op::binary::BinaryKind::{Div, Equal, Mul};
use planish_ir::op::gather::{Gather, GatherElements};
use planish_ir::op::reduce::{Reduce, ReduceKind};
use planish_ir::op::softmax::{Softmax, SoftmaxKind};
use planish_ir::op::unary::UnaryKind;
use planish_ir::op::views::{Squeeze, Unsqueeze};
use planish_ir::{Diag, ValueId};

pub(super) const OPS: &[Entry] =
    &[onnx("NegativeLogLikelihoodLoss", likelihood), onnx("SoftmaxCrossEntropyLoss", cross_entropy)];

fn likelihood(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let x = node.input(0)?;
    Ok(vec![loss(cx, node, x)?])
}

fn cross_entropy(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let x = node.input(0)?;
    rank_from(cx, node, x, 2)?;
    let log = cx.op(Softmax { kind: SoftmaxKind::LogSoftmax, axis: 1 }, &[x])?;
    Ok(vec![loss(cx, node, log)?, log])
}

/// The weighted negative logarithm of the probability of each label, reduced.
fn loss(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>, log: ValueId) -> Result<ValueId, Diag> {
    rank_from(cx, node, log, 2)?;
    let labels = node.input(1)?;
    let reduction = node.choice("reduction", 2, &["none", "sum", "mean"])?;
    let ignored = match node.int("ignore_index")? {
        Some(v) => {
            let v = cx.scalar_like(labels, v as f64)?;
            Some(cx.binary(Equal, labels, v)?)
        }
        None => None,
    };
    let mut sound = labels;
    if let Some(i) = ignored {
        let first = cx.scalar_like(labels, 0.0)?;
        sound = cx.select(i, first, labels)?;
    }
    let columns = cx.op(Unsqueeze { axes: vec![1] }, &[sound])?;
    let picked = cx.op(GatherElements { axis: 1 }, &[log, columns])?;
    let picked = cx.op(Squeeze { axes: vec![1] }, &[picked])?;
    let mut each = cx.unary(UnaryKind::Neg, picked)?;
    let mut weights = match node.opt(2) {
        Some(w) => Some(cx.op(Gather { axis: 0 }, &[w, sound])?),
        None => None,
    };
    if let Some(w) = weights {
        each = cx.binary(Mul, each, w)?;
    }
    if let Some(i) = ignored {
        let (zero, one) = (cx.scalar_like(log, 0.0)?, cx.scalar_like(log, 1.0)?);
        each = cx.select(i, zero, each)?;
        weights = Some(cx.select(i, zero, weights.unwrap_or(one))?);
    }
    let whole = |kind| Reduce { kind, axes: None, keepdims: false, noop_empty: false };
    match (reduction, weights) {
        (0, _) => Ok(each),
        (1, _) => cx.op(whole(ReduceKind::Sum), &[each]),
        (_, None) => cx.op(whole(ReduceKind::Mean), &[each]),
        (_, Some(w)) => {
            let sum = cx.op(whole(ReduceKind::Sum), &[each])?;
            let weight = cx.op(whole(ReduceKind::Sum), &[w])?;
            cx.binary(Div, sum, weight)
        }
    }
}
