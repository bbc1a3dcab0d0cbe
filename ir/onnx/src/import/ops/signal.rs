//! Fourier transforms, windows and random numbers.

use super::Made;
use super::shape::as_i64;
use crate::import::table::{Entry, onnx};
use crate::import::{ImportCx, OnnxNode};
use planish_ir::op::binary::BinaryKind;
use planish_ir::op::random::{Multinomial, Random};
use planish_ir::op::signal::{Dft, MelWeights, SignalWindow, Stft, WindowKind};
use planish_ir::op::views::Shape;
use planish_ir::{DType, Diag};

pub(super) const OPS: &[Entry] = &[
    onnx("Bernoulli", bernoulli),
    onnx("BlackmanWindow", window),
    onnx("DFT", dft),
    onnx("HammingWindow", window),
    onnx("HannWindow", window),
    onnx("MelWeightMatrix", mel_weights),
    onnx("Multinomial", multinomial),
    onnx("RandomNormal", random),
    onnx("RandomNormalLike", random),
    onnx("RandomUniform", random),
    onnx("RandomUniformLike", random),
    onnx("STFT", stft),
];

fn dft(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let op = Dft { inverse: node.flag("inverse", false)?, onesided: node.flag("onesided", false)? };
    let length = node.opt(1).map(|v| as_i64(cx, v)).transpose()?;
    let axis = if node.opset < 20 {
        Some(cx.const_scalar(DType::I64, node.int_or("axis", 1)? as f64)?)
    } else {
        node.opt(2).map(|v| as_i64(cx, v)).transpose()?
    };
    cx.op_many(op, &[Some(node.input(0)?), length, axis])
}

fn stft(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let step = as_i64(cx, node.input(1)?)?;
    let length = node.opt(3).map(|v| as_i64(cx, v)).transpose()?;
    let onesided = node.flag("onesided", true)?;
    cx.op_many(Stft { onesided }, &[Some(node.input(0)?), Some(step), node.opt(2), length])
}

fn window(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let kind = match node.op_type {
        "BlackmanWindow" => WindowKind::Blackman,
        "HammingWindow" => WindowKind::Hamming,
        _ => WindowKind::Hann,
    };
    let dtype = node.dtype("output_datatype")?.unwrap_or(DType::F32);
    let size = as_i64(cx, node.input(0)?)?;
    Ok(vec![cx.op(SignalWindow { kind, periodic: node.flag("periodic", true)?, dtype }, &[size])?])
}

fn mel_weights(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let dtype = node.dtype("output_datatype")?.unwrap_or(DType::F32);
    let mut operands = node.all_inputs()?;
    for v in operands.iter_mut().take(3) {
        *v = as_i64(cx, *v)?;
    }
    Ok(vec![cx.op(MelWeights { dtype }, &operands)?])
}

/// The seed as an integer: the bits of the float that ONNX gives.
fn seed(node: &OnnxNode<'_>) -> Result<Option<i64>, Diag> {
    Ok(node.float("seed")?.map(|s| s.to_bits().into()))
}

fn random(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let normal = node.op_type.starts_with("RandomNormal");
    let (a, b) = if normal {
        (node.float_or("mean", 0.0)?, node.float_or("scale", 1.0)?)
    } else {
        (node.float_or("low", 0.0)?, node.float_or("high", 1.0)?)
    };
    let (dims, default) = if node.op_type.ends_with("Like") {
        let x = node.input(0)?;
        (cx.op(Shape { start: 0, end: None }, &[x])?, cx.dtype(x)?)
    } else {
        let dims = node.ints("shape")?.ok_or_else(|| node.missing("shape"))?;
        (cx.const_i64s(dims)?, DType::F32)
    };
    let dtype = node.dtype("dtype")?.unwrap_or(default);
    Ok(vec![cx.op(Random { dtype, normal, a: a.into(), b: b.into(), seed: seed(node)? }, &[dims])?])
}

fn multinomial(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let op = Multinomial {
        dtype: node.dtype("dtype")?.unwrap_or(DType::I32),
        samples: node.int_in("sample_size", 1, 0..=i64::from(i32::MAX))? as usize,
        seed: seed(node)?,
    };
    Ok(vec![cx.op(op, &[node.input(0)?])?])
}

fn bernoulli(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let x = node.input(0)?;
    let own = cx.dtype(x)?;
    let dims = cx.op(Shape { start: 0, end: None }, &[x])?;
    // Drawn in 64 bits, so that a probability of 1 always wins.
    let draw = Random { dtype: DType::F64, normal: false, a: 0.0, b: 1.0, seed: seed(node)? };
    let draw = cx.op(draw, &[dims])?;
    let wide = cx.cast(x, DType::F64)?;
    let hit = cx.binary(BinaryKind::Less, draw, wide)?;
    let dtype = node.dtype("dtype")?.unwrap_or(own);
    Ok(vec![cx.cast(hit, dtype)?])
}
