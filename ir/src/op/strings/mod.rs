//! Operations on strings.

mod tfidf;

pub use tfidf::{TfIdf, TfIdfMode};

use crate::diag::Diag;
use crate::dtype::DType;
use crate::graph::Fact;
use crate::op::binary::{broadcast_concrete, broadcast_positions};
use crate::op::{EvalCx, InferCx, OpDef};
use crate::tensor::{Tensor, Value, elem_count};
use crate::types::{TensorType, Type};

crate::op_struct! {
    /// Element-wise concatenation of two broadcast tensors of strings.
    StringConcat {}
}

crate::op_struct! {
    /// Each string cut at a delimiter (ONNX StringSplit). Results: the pieces along a new last axis, filled up with empty strings, and the number of pieces of each, i64.
    StringSplit {
        /// Where to cut; empty: at runs of white space, of which leading and trailing ones make no pieces.
        delimiter: String,
        /// The largest number of cuts; none: no limit.
        maxsplit: Option<i64>,
    }
}

crate::attr_enum! {
    /// A change of letters.
    CaseChange {
        /// None.
        Keep = "none",
        /// To lower case.
        Lower = "lower",
        /// To upper case.
        Upper = "upper",
    }
}

crate::op_struct! {
    /// The strings of a vector, or of a matrix of one row, less the stop words, with their letters changed (ONNX StringNormalizer). Without any left: one empty string.
    StringNormalize {
        /// The change of letters.
        case: CaseChange,
        /// Whether stop words must match with their case.
        case_sensitive: bool,
        /// Words to leave out.
        stopwords: Vec<String>,
    }
}

crate::op_struct! {
    /// Whether each string matches a regular expression as a whole (ONNX RegexFullMatch). As in RE2, `\w`, `\d`, `\s` and `\b` know ASCII only.
    RegexMatch {
        /// The expression.
        pattern: String,
    }
}

impl OpDef for StringConcat {
    const NAME: &'static str = "string-concat";
    const INPUTS: (usize, usize) = (2, 2);
    fn infer(&self, cx: &mut InferCx<'_>) -> Result<Vec<Fact>, Diag> {
        cx.expect_dtype(0, |d| d == DType::Str, "str")?;
        cx.expect_same_dtype(0)?;
        let shape = cx.broadcast_all()?;
        Ok(vec![Type::from(TensorType { dtype: DType::Str, shape, quant: None }).into()])
    }
    fn eval(&self, cx: &mut EvalCx<'_>) -> Result<Vec<Value>, Diag> {
        let (a, b) = (cx.tensor(0)?, cx.tensor(1)?);
        let shape = broadcast_concrete(a.shape(), b.shape())?;
        let (pa, pb) = (broadcast_positions(a.shape(), &shape)?, broadcast_positions(b.shape(), &shape)?);
        let joined = pa.into_iter().zip(pb).map(|(i, j)| format!("{}{}", a.strings()[i], b.strings()[j]));
        let joined = joined.collect();
        Ok(vec![Tensor::from_strings(shape, joined)?.into()])
    }
}

impl StringSplit {
    fn cut<'a>(&self, s: &'a str) -> Vec<&'a str> {
        let cuts = self.maxsplit.map_or(usize::MAX, |m| usize::try_from(m).unwrap_or(0));
        if !self.delimiter.is_empty() {
            return if s.is_empty() {
                Vec::new()
            } else {
                s.splitn(cuts.saturating_add(1), self.delimiter.as_str()).collect()
            };
        }
        let (mut out, mut rest) = (Vec::new(), s.trim_start());
        while !rest.is_empty() {
            match rest.find(char::is_whitespace).filter(|_| out.len() < cuts) {
                Some(end) => {
                    out.push(&rest[..end]);
                    rest = rest[end..].trim_start();
                }
                None => {
                    out.push(rest.trim_end());
                    break;
                }
            }
        }
        out
    }
}

impl OpDef for StringSplit {
    const NAME: &'static str = "string-split";
    const INPUTS: (usize, usize) = (1, 1);
    fn infer(&self, cx: &mut InferCx<'_>) -> Result<Vec<Fact>, Diag> {
        cx.expect_dtype(0, |d| d == DType::Str, "str")?;
        let mut dims = cx.dims(0)?.to_vec();
        let counts = Type::tensor(DType::I64, dims.clone());
        let most = self.maxsplit.map(|m| m.max(0).saturating_add(1));
        dims.push(cx.fresh(0, dims.len(), 0, most));
        Ok(vec![Type::tensor(DType::Str, dims).into(), counts.into()])
    }
    fn eval(&self, cx: &mut EvalCx<'_>) -> Result<Vec<Value>, Diag> {
        let x = cx.tensor(0)?;
        let pieces: Vec<Vec<&str>> = x.strings().iter().map(|s| self.cut(s)).collect();
        let width = pieces.iter().map(Vec::len).max().unwrap_or(0);
        let counts = pieces.iter().map(|p| p.len() as i128).collect();
        let mut shape = x.shape().to_vec();
        shape.push(width);
        elem_count(&shape)?;
        let padded = |p: Vec<&str>| {
            (0..width).map(|i| p.get(i).map_or(String::new(), |s| s.to_string())).collect::<Vec<_>>()
        };
        let flat = pieces.into_iter().flat_map(padded).collect();
        Ok(vec![
            Tensor::from_strings(shape, flat)?.into(),
            Tensor::ints(DType::I64, x.shape(), counts)?.into(),
        ])
    }
}

impl OpDef for StringNormalize {
    const NAME: &'static str = "string-normalize";
    const INPUTS: (usize, usize) = (1, 1);
    fn infer(&self, cx: &mut InferCx<'_>) -> Result<Vec<Fact>, Diag> {
        cx.expect_dtype(0, |d| d == DType::Str, "str")?;
        let mut dims = cx.dims(0)?.to_vec();
        match dims.as_slice() {
            [_] => {}
            [one, _] if one.as_const().is_none_or(|d| d == 1) => {}
            _ => return Err(Diag::error("shape-mismatch", "a vector or a matrix of one row is needed")),
        }
        let last = dims.len() - 1;
        if !self.stopwords.is_empty() || dims[last].bounds(cx.symbols).0.is_none_or(|l| l <= 0) {
            let most = dims[last].as_const().map(|n| n.max(1));
            dims[last] = cx.fresh(0, last, 1, most);
        }
        Ok(vec![Type::tensor(DType::Str, dims).into()])
    }
    fn eval(&self, cx: &mut EvalCx<'_>) -> Result<Vec<Value>, Diag> {
        let x = cx.tensor(0)?;
        let fold = |s: &str| if self.case_sensitive { s.to_owned() } else { s.to_lowercase() };
        let stop: Vec<String> = self.stopwords.iter().map(|s| fold(s)).collect();
        let change = |s: &String| match self.case {
            CaseChange::Keep => s.clone(),
            CaseChange::Lower => s.to_lowercase(),
            CaseChange::Upper => s.to_uppercase(),
        };
        let mut kept: Vec<String> =
            x.strings().iter().filter(|s| !stop.contains(&fold(s))).map(change).collect();
        if kept.is_empty() {
            kept.push(String::new());
        }
        let shape = if x.rank() == 2 { vec![1, kept.len()] } else { vec![kept.len()] };
        Ok(vec![Tensor::from_strings(shape, kept)?.into()])
    }
}

impl RegexMatch {
    /// The expression for the whole string, in the syntax of the `regex` crate.
    pub fn anchored(&self) -> String {
        let mut out = String::from(r"\A(?:");
        let (mut chars, mut in_class) = (self.pattern.chars(), false);
        while let Some(c) = chars.next() {
            match c {
                '[' => in_class = true,
                ']' => in_class = false,
                _ => {}
            }
            if c != '\\' {
                out.push(c);
                continue;
            }
            match chars.next() {
                Some('w') => out.push_str("[0-9A-Za-z_]"),
                Some('W') => out.push_str("[^0-9A-Za-z_]"),
                Some('d') => out.push_str("[0-9]"),
                Some('D') => out.push_str("[^0-9]"),
                Some('s') => out.push_str(r"[\t\n\f\r ]"),
                Some('S') => out.push_str(r"[^\t\n\f\r ]"),
                Some('b') if !in_class => out.push_str(r"(?-u:\b)"),
                other => out.extend(std::iter::once('\\').chain(other)),
            }
        }
        out.push_str(r")\z");
        out
    }
    fn compile(&self) -> Result<regex::Regex, Diag> {
        regex::RegexBuilder::new(&self.anchored())
            .size_limit(1 << 24)
            .build()
            .map_err(|e| Diag::error("regex-malformed", format!("the pattern {:?}: {e}", self.pattern)))
    }
}

impl OpDef for RegexMatch {
    const NAME: &'static str = "regex-match";
    const INPUTS: (usize, usize) = (1, 1);
    fn infer(&self, cx: &mut InferCx<'_>) -> Result<Vec<Fact>, Diag> {
        cx.expect_dtype(0, |d| d == DType::Str, "str")?;
        self.compile()?;
        let shape = cx.ty(0)?.shape.clone();
        Ok(vec![Type::from(TensorType { dtype: DType::Bool, shape, quant: None }).into()])
    }
    fn eval(&self, cx: &mut EvalCx<'_>) -> Result<Vec<Value>, Diag> {
        let (x, re) = (cx.tensor(0)?, self.compile()?);
        let found = x.strings().iter().map(|s| re.is_match(s).into()).collect();
        Ok(vec![Tensor::ints(DType::Bool, x.shape(), found)?.into()])
    }
}

#[cfg(test)]
mod tests;
