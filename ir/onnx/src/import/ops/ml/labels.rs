//! Labels as numbers, and back.

use super::super::Made;
use super::texts;
use crate::import::{ImportCx, OnnxNode};
use planish_ir::op::ml::LabelEncode;
use planish_ir::{DType, Diag, Tensor, ValueId};

/// The one of `PREFIX_tensor`, `PREFIX_strings`, `PREFIX_int64s` and `PREFIX_floats` that is given.
fn list<'m>(cx: &mut ImportCx<'_, 'm>, node: &OnnxNode<'m>, prefix: &str) -> Result<Option<Tensor>, Diag> {
    if let Some(t) = node.tensor(&format!("{prefix}_tensor"))? {
        let t = cx.tensor(t)?;
        let n = t.len();
        return t.reshaped(&[n]).map(Some);
    }
    if let Some(s) = node.strings(&format!("{prefix}_strings"))? {
        return Tensor::from_strings(vec![s.len()], s.into_iter().map(str::to_owned).collect()).map(Some);
    }
    if let Some(v) = node.ints(&format!("{prefix}_int64s"))? {
        return Ok(Some(Tensor::vec_i64(v)));
    }
    match node.floats(&format!("{prefix}_floats"))? {
        Some(v) => Tensor::f32s(&[v.len()], v).map(Some),
        None => Ok(None),
    }
}

/// The default for values of this type.
fn default<'m>(cx: &mut ImportCx<'_, 'm>, node: &OnnxNode<'m>, dtype: DType) -> Result<ValueId, Diag> {
    node.ignore(&["default_string", "default_int64", "default_float"]);
    let t = if let Some(t) = node.tensor("default_tensor")? {
        cx.tensor(t)?
    } else if dtype == DType::Str {
        Tensor::from_strings(Vec::new(), vec![node.string_or("default_string", "_Unused")?.to_owned()])?
    } else if dtype.is_float() {
        Tensor::scalar(dtype, node.float_or("default_float", -0.0)?.into())?
    } else {
        Tensor::scalar(dtype, node.int_or("default_int64", -1)? as f64)?
    };
    cx.constant(t.reshaped(&[])?)
}

pub(super) fn encode<'m>(cx: &mut ImportCx<'_, 'm>, node: &OnnxNode<'m>) -> Made {
    if let Some(classes) = node.strings("classes_strings")? {
        return both_ways(cx, node, &classes, None);
    }
    let keys = list(cx, node, "keys")?.ok_or_else(|| node.missing("keys_*"))?;
    let values = list(cx, node, "values")?.ok_or_else(|| node.missing("values_*"))?;
    let mut x = node.input(0)?;
    if cx.dtype(x)? != keys.dtype() && keys.dtype() != DType::Str && cx.dtype(x)? != DType::Str {
        x = cx.cast(x, keys.dtype())?;
    }
    let default = default(cx, node, values.dtype())?;
    let (keys, values) = (cx.constant(keys)?, cx.constant(values)?);
    Ok(vec![cx.op(LabelEncode {}, &[x, keys, values, default])?])
}

/// Strings become the numbers of theirs, and numbers the strings.
fn both_ways<'m>(
    cx: &mut ImportCx<'_, 'm>,
    node: &OnnxNode<'m>,
    strings: &[&str],
    numbers: Option<&[i64]>,
) -> Made {
    let x = node.input(0)?;
    let from_strings = cx.dtype(x)? == DType::Str;
    let counted: Vec<i64> = (0..strings.len() as i64).collect();
    let (s, n) = (texts(cx, strings)?, cx.const_i64s(numbers.unwrap_or(&counted))?);
    let (keys, values) = if from_strings { (s, n) } else { (n, s) };
    let dtype = cx.dtype(values)?;
    let default = default(cx, node, dtype)?;
    Ok(vec![cx.op(LabelEncode {}, &[x, keys, values, default])?])
}

pub(super) fn categories<'m>(cx: &mut ImportCx<'_, 'm>, node: &OnnxNode<'m>) -> Made {
    let strings = node.strings("cats_strings")?.ok_or_else(|| node.missing("cats_strings"))?;
    let numbers = node.ints("cats_int64s")?.ok_or_else(|| node.missing("cats_int64s"))?;
    both_ways(cx, node, &strings, Some(numbers))
}
