//! Preparation of features.

use super::super::Made;
use super::super::parts::{concat, div, mul, reduce, sub, unsqueeze};
use super::{rows, texts, vector};
use crate::import::{ImportCx, OnnxNode};
use planish_ir::op::binary::BinaryKind;
use planish_ir::op::gather::Gather;
use planish_ir::op::ml::{CastMap, DictVectorize, ZipMap};
use planish_ir::op::reduce::ReduceKind;
use planish_ir::op::unary::UnaryKind;
use planish_ir::{DType, Tensor};

pub(super) fn scale(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let mut x = cx.cast(node.input(0)?, DType::F32)?;
    if let Some(offset) = node.floats("offset")?.filter(|v| !v.is_empty()) {
        let offset = vector(cx, offset)?;
        x = sub(cx, x, offset)?;
    }
    if let Some(scale) = node.floats("scale")?.filter(|v| !v.is_empty()) {
        let scale = vector(cx, scale)?;
        x = mul(cx, x, scale)?;
    }
    Ok(vec![x])
}

pub(super) fn binarize(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let x = node.input(0)?;
    let bound = cx.scalar_like(x, node.float_or("threshold", 0.0)?.into())?;
    let above = cx.binary(BinaryKind::Greater, x, bound)?;
    let dtype = cx.dtype(x)?;
    Ok(vec![cx.cast(above, dtype)?])
}

pub(super) fn normalize(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let x = cx.cast(node.input(0)?, DType::F32)?;
    let last = cx.rank(x)?.checked_sub(1);
    let axis = last.ok_or_else(|| node.error("shape-mismatch", "a scalar has nothing to normalise over"))?;
    let kind = match node.choice("norm", 0, &["MAX", "L1", "L2"])? {
        0 => ReduceKind::Max,
        1 => ReduceKind::L1,
        _ => ReduceKind::L2,
    };
    let norm = reduce(cx, kind, x, Some(&[axis.min(1)]), true)?;
    let (zero, one) = (cx.const_f32(0.0)?, cx.const_f32(1.0)?);
    let flat = cx.binary(BinaryKind::Equal, norm, zero)?;
    let norm = cx.select(flat, one, norm)?;
    Ok(vec![div(cx, x, norm)?])
}

pub(super) fn extract(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let (mut x, index) = (node.input(0)?, node.input(1)?);
    if cx.rank(x)? == 1 {
        x = unsqueeze(cx, x, &[0])?;
    }
    let axis = cx.rank(x)?.checked_sub(1).ok_or_else(|| node.error("shape-mismatch", "a scalar"))?;
    let index = cx.reshape(index, &[-1])?;
    Ok(vec![cx.op(Gather { axis }, &[x, index])?])
}

pub(super) fn join(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let widths = node.ints("inputdimensions")?.unwrap_or_default();
    let mut parts = Vec::new();
    for (i, x) in node.all_inputs()?.into_iter().enumerate() {
        let x = rows(cx, x)?;
        let x = cx.cast(x, DType::F32)?;
        let have = cx.dims(x)?.get(1).and_then(|d| d.as_const());
        if let (Some(want), Some(have)) = (widths.get(i), have)
            && *want != have
        {
            return Err(node.error("shape-mismatch", format!("operand {i} has {have} features, not {want}")));
        }
        parts.push(x);
    }
    Ok(vec![concat(cx, &parts, 1)?])
}

pub(super) fn impute(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let x = node.input(0)?;
    let is_float = cx.dtype(x)?.is_float();
    node.ignore(&["imputed_value_floats", "imputed_value_int64s"]);
    node.ignore(&["replaced_value_float", "replaced_value_int64"]);
    let (gone, with) = if is_float {
        let replaced = node.float_or("replaced_value_float", 0.0)?;
        let gone = if replaced.is_nan() {
            cx.unary(UnaryKind::IsNan, x)?
        } else {
            let v = cx.scalar_like(x, replaced.into())?;
            cx.binary(BinaryKind::Equal, x, v)?
        };
        let with =
            node.floats("imputed_value_floats")?.ok_or_else(|| node.missing("imputed_value_floats"))?;
        (gone, vector(cx, with)?)
    } else {
        let v = cx.constant(Tensor::scalar_i64(node.int_or("replaced_value_int64", 0)?))?;
        let dtype = cx.dtype(x)?;
        let v = cx.cast(v, dtype)?;
        let with = node.ints("imputed_value_int64s")?.ok_or_else(|| node.missing("imputed_value_int64s"))?;
        (cx.binary(BinaryKind::Equal, x, v)?, cx.const_i64s(with)?)
    };
    let dtype = cx.dtype(x)?;
    let with = cx.cast(with, dtype)?;
    Ok(vec![cx.select(gone, with, x)?])
}

pub(super) fn one_hot(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    // Something in no category gives zeros; that it could be an error instead is not followed.
    if !node.flag("zeros", true)? {
        return Err(node.unsupported("zeros = 0"));
    }
    let mut x = node.input(0)?;
    let categories = if cx.dtype(x)? == DType::Str {
        let c = node.strings("cats_strings")?.ok_or_else(|| node.missing("cats_strings"))?;
        texts(cx, &c)?
    } else {
        let c = node.ints("cats_int64s")?.ok_or_else(|| node.missing("cats_int64s"))?;
        // Fractions are dropped.
        x = cx.cast(x, DType::I64)?;
        cx.const_i64s(c)?
    };
    let rank = cx.rank(x)?;
    let wide = unsqueeze(cx, x, &[rank])?;
    let hits = cx.binary(BinaryKind::Equal, wide, categories)?;
    Ok(vec![cx.cast(hits, DType::F32)?])
}

pub(super) fn zip_map<'m>(cx: &mut ImportCx<'_, 'm>, node: &OnnxNode<'m>) -> Made {
    let (keys, _) = super::class_labels(cx, node, "classlabels_int64s", "classlabels_strings", 0)?;
    Ok(vec![cx.op(ZipMap {}, &[node.input(0)?, keys])?])
}

pub(super) fn dict<'m>(cx: &mut ImportCx<'_, 'm>, node: &OnnxNode<'m>) -> Made {
    let (keys, _) = super::class_labels(cx, node, "int64_vocabulary", "string_vocabulary", 0)?;
    Ok(vec![cx.op(DictVectorize {}, &[node.input(0)?, keys])?])
}

pub(super) fn cast_map(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let to = match node.choice("cast_to", 0, &["TO_FLOAT", "TO_STRING", "TO_INT64"])? {
        0 => DType::F32,
        1 => DType::Str,
        _ => DType::I64,
    };
    let sparse = node.choice("map_form", 0, &["DENSE", "SPARSE"])? == 1;
    let width = node.int_or("max_map", 1)?;
    let op = CastMap { to, width: sparse.then_some(width) };
    Ok(vec![cx.op(op, &[node.input(0)?])?])
}
