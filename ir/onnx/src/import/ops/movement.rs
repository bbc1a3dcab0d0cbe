//! Constants, and operators that move elements without computing.

use super::Made;
use crate::import::table::{Entry, onnx};
use crate::import::{ImportCx, OnnxNode};
use planish_ir::op::reshape::Reshape;
use planish_ir::{DType, Tensor};

pub(super) const OPS: &[Entry] =
    &[onnx("Constant", constant), onnx("Identity", identity), onnx("Reshape", reshape)];

fn constant<'m>(cx: &mut ImportCx<'_, 'm>, node: &OnnxNode<'m>) -> Made {
    let tensor = if let Some(tensor) = node.tensor("value")? {
        cx.tensor(tensor)?
    } else if let Some(v) = node.float("value_float")? {
        Tensor::f32s(&[], &[v])?
    } else if let Some(v) = node.floats("value_floats")? {
        Tensor::f32s(&[v.len()], v)?
    } else if let Some(v) = node.int("value_int")? {
        Tensor::scalar_i64(v)
    } else if let Some(v) = node.ints("value_ints")? {
        Tensor::vec_i64(v)
    } else if let Some(v) = node.string("value_string")? {
        Tensor::from_strings(Vec::new(), vec![v.to_string()])?
    } else if let Some(v) = node.strings("value_strings")? {
        Tensor::from_strings(vec![v.len()], v.iter().map(|s| s.to_string()).collect())?
    } else if let Some(a) = node.attr("sparse_value") {
        let sparse = a.sparse_tensor.as_deref().ok_or_else(|| node.missing("sparse_value"))?;
        cx.sparse_tensor(sparse)?
    } else {
        return Err(node.missing("value"));
    };
    Ok(vec![cx.constant(tensor)?])
}

fn identity(_: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    Ok(vec![node.input(0)?])
}

fn reshape(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let x = node.input(0)?;
    if node.opset < 5 {
        node.ignore(&["consumed_inputs"]);
        let spec = node.ints("shape")?.ok_or_else(|| node.missing("shape"))?;
        return Ok(vec![cx.reshape(x, spec)?]);
    }
    let allow_zero = node.flag("allowzero", false)?;
    let mut spec = node.input(1)?;
    if cx.dtype(spec)? == DType::I32 {
        spec = cx.cast(spec, DType::I64)?;
    }
    Ok(vec![cx.op(Reshape { allow_zero }, &[x, spec])?])
}
