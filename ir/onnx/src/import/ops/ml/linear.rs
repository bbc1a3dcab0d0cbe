//! Linear models and support vectors.

use super::super::Made;
use super::super::parts::{add, matmul, mul, reduce, scale, sub, transpose, unsqueeze};
use super::post::{Other, Post, above, best, two_classes};
use super::{class_labels, rows, vector};
use crate::import::{ImportCx, OnnxNode};
use planish_ir::op::binary::BinaryKind;
use planish_ir::op::reduce::ReduceKind;
use planish_ir::op::unary::UnaryKind;
use planish_ir::{DType, Diag, Tensor, ValueId};

/// The number of features of a matrix.
fn width(cx: &ImportCx<'_, '_>, node: &OnnxNode<'_>, x: ValueId) -> Result<usize, Diag> {
    let w = cx.dims(x)?.get(1).and_then(|d| d.as_const()).and_then(|w| usize::try_from(w).ok());
    w.filter(|w| *w > 0).ok_or_else(|| node.unsupported("a number of features that is not known"))
}

/// `x coefficients^T + intercepts` with coefficients listed target by target, and the number of targets.
fn scores(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>, x: ValueId) -> Result<(ValueId, usize), Diag> {
    let coefficients = node.floats("coefficients")?.ok_or_else(|| node.missing("coefficients"))?;
    let features = width(cx, node, x)?;
    if coefficients.is_empty() || coefficients.len() % features != 0 {
        return Err(node.error(
            "shape-mismatch",
            format!("{} coefficients for {features} features", coefficients.len()),
        ));
    }
    let targets = coefficients.len() / features;
    let mut by_feature = Vec::with_capacity(coefficients.len());
    for f in 0..features {
        by_feature.extend((0..targets).map(|t| coefficients[t * features + f]));
    }
    let w = cx.constant(Tensor::f32s(&[features, targets], &by_feature)?)?;
    let mut y = matmul(cx, x, w)?;
    if let Some(b) = node.floats("intercepts")?.filter(|b| !b.is_empty()) {
        let b = vector(cx, b)?;
        y = add(cx, y, b)?;
    }
    Ok((y, targets))
}

pub(super) fn regress(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    node.ignore(&["targets"]);
    let x = rows(cx, node.input(0)?)?;
    let x = cx.cast(x, DType::F32)?;
    let (y, _) = scores(cx, node, x)?;
    Ok(vec![Post::named(node)?.apply(cx, y)?])
}

pub(super) fn classify<'m>(cx: &mut ImportCx<'_, 'm>, node: &OnnxNode<'m>) -> Made {
    node.ignore(&["multi_class"]);
    let x = rows(cx, node.input(0)?)?;
    let x = cx.cast(x, DType::F32)?;
    let (y, targets) = scores(cx, node, x)?;
    let (labels, count) = class_labels(cx, node, "classlabels_ints", "classlabels_strings", targets.max(2))?;
    let post = Post::named(node)?;
    if targets == 1 && count == 2 {
        let bound = if post == Post::Logistic { 0.0 } else { 0.5 };
        return Ok(vec![above(cx, y, bound, labels)?, two_classes(cx, y, Other::Complement, post)?]);
    }
    Ok(vec![best(cx, y, labels)?, post.apply(cx, y)?])
}

pub(super) fn support_vectors(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let x = rows(cx, node.input(0)?)?;
    let x = cx.cast(x, DType::F32)?;
    let features = width(cx, node, x)?;
    let coefficients = node.floats("coefficients")?.ok_or_else(|| node.missing("coefficients"))?;
    let count = usize::try_from(node.int_or("n_supports", 0)?).unwrap_or(0);
    let kernel = node.choice("kernel_type", 0, &["LINEAR", "POLY", "RBF", "SIGMOID"])?;
    let params = node.floats("kernel_params")?.unwrap_or_default();
    let param = |i: usize| f64::from(params.get(i).copied().unwrap_or(0.0));
    let vectors = node.floats("support_vectors")?.unwrap_or_default();
    let sums = if count == 0 {
        if coefficients.len() != features {
            return Err(node.error("shape-mismatch", "one coefficient for each feature is needed"));
        }
        let w = cx.constant(Tensor::f32s(&[features, 1], coefficients)?)?;
        matmul(cx, x, w)?
    } else {
        if coefficients.len() != count || Some(vectors.len()) != count.checked_mul(features) {
            return Err(node.error("shape-mismatch", "support vectors and coefficients do not fit"));
        }
        let sv = cx.constant(Tensor::f32s(&[count, features], vectors)?)?;
        let k = if kernel == 2 {
            // |x - v|^2, summed over the features: rows x vectors.
            let wide = unsqueeze(cx, x, &[1])?;
            let d = sub(cx, wide, sv)?;
            let d = mul(cx, d, d)?;
            let d = reduce(cx, ReduceKind::Sum, d, Some(&[2]), false)?;
            let d = scale(cx, d, -param(0))?;
            cx.unary(UnaryKind::Exp, d)?
        } else {
            let sv = transpose(cx, sv, &[1, 0])?;
            let dot = matmul(cx, x, sv)?;
            if kernel == 0 {
                dot
            } else {
                let scaled = scale(cx, dot, param(0))?;
                let offset = cx.scalar_like(dot, param(1))?;
                let v = add(cx, scaled, offset)?;
                if kernel == 1 {
                    let degree = cx.scalar_like(dot, param(2))?;
                    cx.binary(BinaryKind::Pow, v, degree)?
                } else {
                    cx.unary(UnaryKind::Tanh, v)?
                }
            }
        };
        let w = cx.constant(Tensor::f32s(&[count, 1], coefficients)?)?;
        matmul(cx, k, w)?
    };
    let rho = cx.const_f32(node.floats("rho")?.and_then(|r| r.first().copied()).unwrap_or(0.0))?;
    let y = add(cx, sums, rho)?;
    if node.flag("one_class", false)? {
        let (zero, one, minus) = (cx.const_f32(0.0)?, cx.const_f32(1.0)?, cx.const_f32(-1.0)?);
        let inside = cx.binary(BinaryKind::Greater, y, zero)?;
        return Ok(vec![cx.select(inside, one, minus)?]);
    }
    Ok(vec![Post::named(node)?.apply(cx, y)?])
}
