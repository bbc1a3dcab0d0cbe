//! Optimisers of the preview domain for training.

use super::Made;
use super::parts::{add, div, mul, scale, sub};
use crate::import::table::{Entry, Handler};
use crate::import::{ImportCx, OnnxNode};
use planish_ir::op::binary::BinaryKind;
use planish_ir::op::unary::UnaryKind;
use planish_ir::{DType, Diag, ValueId};

const fn preview(op_type: &'static str, handler: Handler) -> Entry {
    Entry { domain: "ai.onnx.preview.training", op_type, since: 1, handler }
}

pub(super) const OPS: &[Entry] =
    &[preview("Adagrad", adagrad), preview("Adam", adam), preview("Momentum", momentum)];

/// Rate, step (both f32 scalars), and for each tensor that is optimised: it, its gradient and `states` more.
type Operands = (ValueId, ValueId, Vec<Vec<ValueId>>);

fn operands(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>, states: usize) -> Result<Operands, Diag> {
    let all = node.all_inputs()?;
    let (head, rest) = all.split_at_checked(2).ok_or_else(|| node.error("operand-missing", "R and T"))?;
    let kinds = 2 + states;
    if rest.is_empty() || rest.len() % kinds != 0 {
        return Err(node.error("operand-missing", format!("{kinds} operands for each tensor are needed")));
    }
    let n = rest.len() / kinds;
    let groups = (0..n).map(|i| (0..kinds).map(|k| rest[k * n + i]).collect()).collect();
    let (rate, step) = (cx.cast(head[0], DType::F32)?, cx.cast(head[1], DType::F32)?);
    let (rate, step) = (cx.reshape(rate, &[])?, cx.reshape(step, &[])?);
    Ok((rate, step, groups))
}

/// `norm_coefficient * x + gradient`
fn regularised(
    cx: &mut ImportCx<'_, '_>,
    node: &OnnxNode<'_>,
    x: ValueId,
    gradient: ValueId,
) -> Result<ValueId, Diag> {
    let pull = scale(cx, x, node.float_or("norm_coefficient", 0.0)?.into())?;
    add(cx, pull, gradient)
}

/// `x - rate * direction / (sqrt(square) + epsilon)`
fn descend(
    cx: &mut ImportCx<'_, '_>,
    x: ValueId,
    rate: ValueId,
    direction: ValueId,
    square: ValueId,
    epsilon: f32,
) -> Result<ValueId, Diag> {
    let root = cx.unary(UnaryKind::Sqrt, square)?;
    let epsilon = cx.scalar_like(x, epsilon.into())?;
    let root = add(cx, root, epsilon)?;
    let dtype = cx.dtype(x)?;
    let rate = cx.cast(rate, dtype)?;
    let step = mul(cx, rate, direction)?;
    let step = div(cx, step, root)?;
    sub(cx, x, step)
}

/// Results grouped by kind: all first ones, then all second ones, and so on.
fn by_kind(results: Vec<Vec<ValueId>>) -> Vec<ValueId> {
    let kinds = results.first().map_or(0, Vec::len);
    (0..kinds).flat_map(|k| results.iter().map(move |r| r[k])).collect()
}

fn adagrad(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let (rate, step, groups) = operands(cx, node, 1)?;
    let decay = scale(cx, step, node.float_or("decay_factor", 0.0)?.into())?;
    let one = cx.const_f32(1.0)?;
    let decay = add(cx, decay, one)?;
    let rate = div(cx, rate, decay)?;
    let epsilon = node.float_or("epsilon", 1e-6)?;
    let mut out = Vec::new();
    for g in groups {
        let gradient = regularised(cx, node, g[0], g[1])?;
        let square = mul(cx, gradient, gradient)?;
        let sum = add(cx, g[2], square)?;
        out.push(vec![descend(cx, g[0], rate, gradient, sum, epsilon)?, sum]);
    }
    Ok(by_kind(out))
}

fn adam(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let (rate, step, groups) = operands(cx, node, 2)?;
    let (alpha, beta) = (node.float_or("alpha", 0.9)?, node.float_or("beta", 0.999)?);
    let (zero, one) = (cx.const_f32(0.0)?, cx.const_f32(1.0)?);
    let mut left = [rate; 2];
    for (l, v) in left.iter_mut().zip([alpha, beta]) {
        let base = cx.const_f32(v)?;
        let power = cx.binary(BinaryKind::Pow, base, step)?;
        *l = sub(cx, one, power)?;
    }
    let root = cx.unary(UnaryKind::Sqrt, left[1])?;
    let adjusted = mul(cx, rate, root)?;
    let adjusted = div(cx, adjusted, left[0])?;
    let started = cx.binary(BinaryKind::Greater, step, zero)?;
    let rate = cx.select(started, adjusted, rate)?;
    let epsilon = node.float_or("epsilon", 1e-6)?;
    let shrink = 1.0 - f64::from(node.float_or("norm_coefficient_post", 0.0)?);
    let mut out = Vec::new();
    for g in groups {
        let gradient = regularised(cx, node, g[0], g[1])?;
        let square = mul(cx, gradient, gradient)?;
        let mix = |cx: &mut ImportCx<'_, '_>, old: ValueId, new: ValueId, share: f32| {
            let old = scale(cx, old, share.into())?;
            let new = scale(cx, new, 1.0 - f64::from(share))?;
            add(cx, old, new)
        };
        let mean = mix(cx, g[2], gradient, alpha)?;
        let square = mix(cx, g[3], square, beta)?;
        let x = descend(cx, g[0], rate, mean, square, epsilon)?;
        out.push(vec![scale(cx, x, shrink)?, mean, square]);
    }
    Ok(by_kind(out))
}

fn momentum(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let (rate, step, groups) = operands(cx, node, 1)?;
    let alpha = f64::from(node.float_or("alpha", 0.9)?);
    let nesterov = node.choice("mode", 0, &["standard", "nesterov"])? == 1;
    let (zero, one) = (cx.const_f32(0.0)?, cx.const_f32(1.0)?);
    let beta = cx.const_f32(node.float_or("beta", 1.0)?)?;
    let started = cx.binary(BinaryKind::Greater, step, zero)?;
    let beta = cx.select(started, beta, one)?;
    let mut out = Vec::new();
    for g in groups {
        let dtype = cx.dtype(g[0])?;
        let (rate, beta) = (cx.cast(rate, dtype)?, cx.cast(beta, dtype)?);
        let gradient = regularised(cx, node, g[0], g[1])?;
        let old = scale(cx, g[2], alpha)?;
        let new = mul(cx, gradient, beta)?;
        let v = add(cx, old, new)?;
        let direction = if nesterov {
            let ahead = scale(cx, v, alpha)?;
            add(cx, gradient, ahead)?
        } else {
            v
        };
        let step = mul(cx, rate, direction)?;
        out.push(vec![sub(cx, g[0], step)?, v]);
    }
    Ok(by_kind(out))
}
