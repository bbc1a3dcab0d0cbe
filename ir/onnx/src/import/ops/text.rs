//! Operators on strings.

use super::Made;
use crate::import::table::{Entry, onnx};
use crate::import::{ImportCx, OnnxNode};
use planish_ir::op::strings::{
    CaseChange, RegexMatch, StringConcat, StringNormalize, StringSplit, TfIdf, TfIdfMode,
};
use planish_ir::{DType, Tensor};

pub(super) const OPS: &[Entry] = &[
    onnx("RegexFullMatch", regex),
    onnx("StringConcat", concat),
    onnx("StringNormalizer", normalize),
    onnx("StringSplit", split),
    onnx("TfIdfVectorizer", tf_idf),
];

fn concat(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    Ok(vec![cx.op(StringConcat {}, &[node.input(0)?, node.input(1)?])?])
}

fn split(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let delimiter = node.string_or("delimiter", "")?.to_owned();
    let maxsplit = node.int("maxsplit")?;
    cx.op_many(StringSplit { delimiter, maxsplit }, &[Some(node.input(0)?)])
}

fn regex(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let pattern = node.string("pattern")?.ok_or_else(|| node.missing("pattern"))?.to_owned();
    Ok(vec![cx.op(RegexMatch { pattern }, &[node.input(0)?])?])
}

fn normalize(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    // Only the letters of ASCII and Unicode's own rules are followed, whatever the locale.
    node.ignore(&["locale"]);
    let case = match node.choice("case_change_action", 0, &["NONE", "LOWER", "UPPER"])? {
        1 => CaseChange::Lower,
        2 => CaseChange::Upper,
        _ => CaseChange::Keep,
    };
    let case_sensitive = node.flag("is_case_sensitive", false)?;
    let stopwords = node.strings("stopwords")?.unwrap_or_default();
    let stopwords = stopwords.into_iter().map(str::to_owned).collect();
    Ok(vec![cx.op(StringNormalize { case, case_sensitive, stopwords }, &[node.input(0)?])?])
}

fn tf_idf(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let mode = match node.string("mode")? {
        Some("TF") => TfIdfMode::Tf,
        Some("IDF") => TfIdfMode::Idf,
        Some("TFIDF") => TfIdfMode::TfIdf,
        _ => return Err(node.error("attribute-range", "mode must be TF, IDF or TFIDF")),
    };
    let needed = |name: &str| node.ints(name)?.map(<[i64]>::to_vec).ok_or_else(|| node.missing(name));
    let op = TfIdf {
        mode,
        min_gram: node.need_int("min_gram_length")?,
        max_gram: node.need_int("max_gram_length")?,
        max_skip: node.need_int("max_skip_count")?,
        starts: needed("ngram_counts")?,
        columns: needed("ngram_indexes")?,
        weights: node.floats("weights")?.unwrap_or_default().iter().map(|w| f64::from(*w)).collect(),
    };
    let x = node.input(0)?;
    let pool = if cx.dtype(x)? == DType::Str {
        let strings = node.strings("pool_strings")?.ok_or_else(|| node.missing("pool_strings"))?;
        Tensor::from_strings(vec![strings.len()], strings.into_iter().map(str::to_owned).collect())?
    } else {
        Tensor::vec_i64(&needed("pool_int64s")?)
    };
    let pool = cx.constant(pool)?;
    Ok(vec![cx.op(op, &[x, pool])?])
}
