//! Sequences, optionals, strings.

use super::{plain, with};
use crate::export::attr;
use crate::export::cx::ExportCx;
use crate::export::types;
use planish_ir::graph::Node;
use planish_ir::op::sequence::{ConcatSequence, Optional, Sequence, SplitSequence};
use planish_ir::op::strings::{CaseChange, RegexMatch, StringNormalize, StringSplit, TfIdf, TfIdfMode};
use planish_ir::{DType, Diag};

pub(super) fn sequence(cx: &mut ExportCx<'_>, node: &Node, op: &Sequence) -> Result<(), Diag> {
    if node.inputs.is_empty() {
        return with(cx, node, "SequenceEmpty", vec![attr::int("dtype", op.item.onnx().into())]);
    }
    plain(cx, node, "SequenceConstruct")
}

pub(super) fn concat(cx: &mut ExportCx<'_>, node: &Node, op: &ConcatSequence) -> Result<(), Diag> {
    let attributes = vec![attr::int("axis", op.axis), attr::flag("new_axis", op.new_axis)];
    with(cx, node, "ConcatFromSequence", attributes)
}

pub(super) fn split(cx: &mut ExportCx<'_>, node: &Node, op: &SplitSequence) -> Result<(), Diag> {
    let attributes = vec![attr::int("axis", op.axis), attr::flag("keepdims", op.keepdims)];
    with(cx, node, "SplitToSequence", attributes)
}

pub(super) fn optional(cx: &mut ExportCx<'_>, node: &Node, op: &Optional) -> Result<(), Diag> {
    if node.inputs.iter().any(Option::is_some) {
        return plain(cx, node, "Optional");
    }
    with(cx, node, "Optional", vec![attr::ty("type", types::proto(&op.item, None))])
}

pub(super) fn string_split(cx: &mut ExportCx<'_>, node: &Node, op: &StringSplit) -> Result<(), Diag> {
    let mut attributes = vec![attr::string("delimiter", &op.delimiter)];
    if let Some(limit) = op.maxsplit {
        attributes.push(attr::int("maxsplit", limit));
    }
    with(cx, node, "StringSplit", attributes)
}

pub(super) fn string_normalize(cx: &mut ExportCx<'_>, node: &Node, op: &StringNormalize) -> Result<(), Diag> {
    let case = match op.case {
        CaseChange::Keep => "NONE",
        CaseChange::Lower => "LOWER",
        CaseChange::Upper => "UPPER",
    };
    let mut attributes =
        vec![attr::string("case_change_action", case), attr::flag("is_case_sensitive", op.case_sensitive)];
    if !op.stopwords.is_empty() {
        attributes.push(attr::strings("stopwords", op.stopwords.iter().map(String::as_str)));
    }
    with(cx, node, "StringNormalizer", attributes)
}

pub(super) fn regex(cx: &mut ExportCx<'_>, node: &Node, op: &RegexMatch) -> Result<(), Diag> {
    with(cx, node, "RegexFullMatch", vec![attr::string("pattern", &op.pattern)])
}

pub(super) fn tf_idf(cx: &mut ExportCx<'_>, node: &Node, op: &TfIdf) -> Result<(), Diag> {
    let pool = super::constant_of(cx, node, 1, "the pool of n-grams")?;
    let mode = match op.mode {
        TfIdfMode::Tf => "TF",
        TfIdfMode::Idf => "IDF",
        TfIdfMode::TfIdf => "TFIDF",
    };
    let mut attributes = vec![
        attr::string("mode", mode),
        attr::int("min_gram_length", op.min_gram),
        attr::int("max_gram_length", op.max_gram),
        attr::int("max_skip_count", op.max_skip),
        attr::ints("ngram_counts", op.starts.iter().copied()),
        attr::ints("ngram_indexes", op.columns.iter().copied()),
    ];
    if !op.weights.is_empty() {
        attributes.push(attr::floats("weights", op.weights.iter().copied()));
    }
    attributes.push(match pool.dtype() {
        DType::Str => attr::strings("pool_strings", pool.strings().iter().map(String::as_str)),
        _ => attr::ints("pool_int64s", pool.to_i64()?),
    });
    let (inputs, outputs) = (cx.inputs(node), cx.outputs(node));
    cx.push("TfIdfVectorizer", inputs.into_iter().take(1).collect(), outputs, attributes);
    Ok(())
}
