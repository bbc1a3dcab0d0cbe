//! Operators of the domain of classical models, `ai.onnx.ml`.

mod features;
mod labels;
mod linear;
mod post;
mod tree;

use crate::import::table::{Entry, Handler};
use crate::import::{ImportCx, OnnxNode};
use planish_ir::{DType, Diag, Tensor, ValueId};

const fn ml(op_type: &'static str, handler: Handler) -> Entry {
    Entry { domain: "ai.onnx.ml", op_type, since: 1, handler }
}

pub(super) const OPS: &[Entry] = &[
    ml("ArrayFeatureExtractor", features::extract),
    ml("Binarizer", features::binarize),
    ml("CastMap", features::cast_map),
    ml("CategoryMapper", labels::categories),
    ml("DictVectorizer", features::dict),
    ml("FeatureVectorizer", features::join),
    ml("Imputer", features::impute),
    ml("LabelEncoder", labels::encode),
    ml("LinearClassifier", linear::classify),
    ml("LinearRegressor", linear::regress),
    ml("Normalizer", features::normalize),
    ml("OneHotEncoder", features::one_hot),
    ml("SVMRegressor", linear::support_vectors),
    ml("Scaler", features::scale),
    ml("TreeEnsemble", tree::ensemble),
    ml("TreeEnsembleClassifier", tree::classify),
    ml("TreeEnsembleRegressor", tree::regress),
    ml("ZipMap", features::zip_map),
];

/// A vector of f32 as a constant.
fn vector(cx: &mut ImportCx<'_, '_>, v: &[f32]) -> Result<ValueId, Diag> {
    cx.constant(Tensor::f32s(&[v.len()], v)?)
}

/// Strings as a constant vector.
fn texts(cx: &mut ImportCx<'_, '_>, v: &[&str]) -> Result<ValueId, Diag> {
    cx.constant(Tensor::from_strings(vec![v.len()], v.iter().map(|s| s.to_string()).collect())?)
}

/// The operand as a float, f32 unless it is f64, and as a matrix of one row if it is a vector.
fn rows(cx: &mut ImportCx<'_, '_>, x: ValueId) -> Result<ValueId, Diag> {
    let x = if cx.dtype(x)? == DType::F64 { x } else { cx.cast(x, DType::F32)? };
    if cx.rank(x)? == 1 { super::parts::unsqueeze(cx, x, &[0]) } else { Ok(x) }
}

/// The labels of classes as a constant vector and their number, from `classlabels_*`; 0, 1, ... without any.
fn class_labels<'m>(
    cx: &mut ImportCx<'_, 'm>,
    node: &OnnxNode<'m>,
    ints: &str,
    strings: &str,
    count: usize,
) -> Result<(ValueId, usize), Diag> {
    if let Some(s) = node.strings(strings)?.filter(|s| !s.is_empty()) {
        return Ok((texts(cx, &s)?, s.len()));
    }
    match node.ints(ints)? {
        Some(v) if !v.is_empty() => Ok((cx.const_i64s(v)?, v.len())),
        _ => {
            let all: Vec<i64> = (0..count as i64).collect();
            Ok((cx.const_i64s(&all)?, count))
        }
    }
}
