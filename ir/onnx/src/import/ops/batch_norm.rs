//! Batch normalisation.

use super::Made;
use super::norm::{per_channel, rank_from};
use crate::import::table::{Entry, onnx};
use crate::import::{ImportCx, OnnxNode};
use planish_ir::op::binary::BinaryKind::{Add, Div, Mul, Sub};
use planish_ir::op::reduce::{Reduce, ReduceKind};
use planish_ir::op::unary::UnaryKind;
use planish_ir::{DType, Diag, ValueId};

pub(super) const OPS: &[Entry] = &[onnx("BatchNormalization", batch_norm)];

/// In inference a scale and a shift of each channel, which fold into a convolution before it.
fn batch_norm(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let x = node.input(0)?;
    let rank = rank_from(cx, node, x, 2)?;
    node.ignore(&["consumed_inputs"]);
    let training = if node.opset >= 14 {
        node.flag("training_mode", false)?
    } else if node.opset < 7 {
        // Exporters of that time leave the flag out and mean inference.
        node.flag("is_test", true)?;
        false
    } else {
        false
    };
    let momentum = node.float_or("momentum", 0.9)?;
    if node.opset < 14 && (1..5).any(|i| node.wants(i)) {
        return Err(node.unsupported("statistics as results before version 14"));
    }
    // Without `spatial` every position of a channel has parameters of its own.
    let spatial = node.opset >= 9 || node.flag("spatial", true)?;
    let dtype = cx.dtype(x)?;
    let wide = if dtype == DType::F64 { DType::F64 } else { DType::F32 };
    let mut params = Vec::new();
    for i in 1..5 {
        params.push(cx.cast(node.input(i)?, wide)?);
    }
    let epsilon = cx.const_scalar(wide, node.float_or("epsilon", 1e-5)?.into())?;
    let wide_x = cx.cast(x, wide)?;
    let mut running = Vec::new();
    if training {
        let axes: Vec<usize> = (0..rank).filter(|a| *a != 1).collect();
        let mean = average(cx, wide_x, &axes)?;
        let across = per_channel(cx, mean, &[-1], rank)?;
        let centred = cx.binary(Sub, wide_x, across)?;
        let square = cx.binary(Mul, centred, centred)?;
        let var = average(cx, square, &axes)?;
        for (i, new) in [(3, mean), (4, var)] {
            let (keep, take) =
                (cx.const_scalar(wide, momentum.into())?, cx.const_scalar(wide, 1.0 - f64::from(momentum))?);
            let old = cx.binary(Mul, params[i - 1], keep)?;
            let part = cx.binary(Mul, new, take)?;
            let sum = cx.binary(Add, old, part)?;
            running.push(cx.cast(sum, cx.dtype(node.input(i)?)?)?);
            params[i - 1] = new;
        }
    }
    let (scale, shift) = scale_and_shift(cx, [params[0], params[1], params[2], params[3]], epsilon)?;
    let (scale, shift) = if spatial {
        (per_channel(cx, scale, &[-1], rank)?, per_channel(cx, shift, &[-1], rank)?)
    } else {
        (scale, shift)
    };
    let y = cx.binary(Mul, wide_x, scale)?;
    let y = cx.binary(Add, y, shift)?;
    let mut out = vec![cx.cast(y, dtype)?];
    out.extend(running);
    Ok(out)
}

fn average(cx: &mut ImportCx<'_, '_>, x: ValueId, axes: &[usize]) -> Result<ValueId, Diag> {
    let axes = Some(axes.to_vec());
    cx.op(Reduce { kind: ReduceKind::Mean, axes, keepdims: false, noop_empty: false }, &[x])
}

/// Scale and shift of scale, bias, mean and variance.
fn scale_and_shift(
    cx: &mut ImportCx<'_, '_>,
    [scale, bias, mean, var]: [ValueId; 4],
    epsilon: ValueId,
) -> Result<(ValueId, ValueId), Diag> {
    let var = cx.binary(Add, var, epsilon)?;
    let deviation = cx.unary(UnaryKind::Sqrt, var)?;
    let scale = cx.binary(Div, scale, deviation)?;
    let moved = cx.binary(Mul, mean, scale)?;
    let shift = cx.binary(Sub, bias, moved)?;
    Ok((scale, shift))
}
