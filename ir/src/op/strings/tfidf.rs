//! Counts of n-grams.

use crate::diag::Diag;
use crate::dim::Dim;
use crate::dtype::DType;
use crate::graph::Fact;
use crate::op::{EvalCx, InferCx, OpDef};
use crate::tensor::{Elems, Tensor, Value};
use crate::types::Type;
use std::collections::HashMap;

crate::attr_enum! {
    /// What becomes of the count of an n-gram.
    TfIdfMode {
        /// The count.
        Tf = "tf",
        /// The weight where the count is not 0.
        Idf = "idf",
        /// The count times the weight.
        TfIdf = "tf-idf",
    }
}

crate::op_struct! {
    /// How often each n-gram of a pool occurs in a sequence of integers or strings, operand 0 (\[C\] or \[N, C\]), as f32 (ONNX TfIdfVectorizer). Operand 1: the pool, a vector of the same kind (integers: i64), all 1-grams first, then all 2-grams, and so on.
    TfIdf {
        /// What becomes of the counts.
        mode: TfIdfMode,
        /// Length of the shortest n-grams counted.
        min_gram: i64,
        /// Length of the longest n-grams counted.
        max_gram: i64,
        /// The most items left out between neighbours of an n-gram.
        max_skip: i64,
        /// Where in the pool the 1-grams, 2-grams, ... begin.
        starts: Vec<i64>,
        /// For each n-gram of the pool in order: the column of the result it is counted in.
        columns: Vec<i64>,
        /// For each n-gram of the pool in order: its weight; empty: 1.
        weights: Vec<f64>,
    }
}

/// An item of a sequence.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Item {
    Int(i64),
    Str(String),
}

fn items(t: &Tensor) -> Result<Vec<Item>, Diag> {
    Ok(match t.elems() {
        Elems::S(v) => v.into_iter().map(Item::Str).collect(),
        _ => t.to_i64()?.into_iter().map(Item::Int).collect(),
    })
}

impl TfIdf {
    fn width(&self) -> Result<i64, Diag> {
        let bad = |why: &str| Diag::error("field-invalid", format!("tf-idf: {why}"));
        if self.columns.iter().any(|c| !(0..1 << 31).contains(c)) {
            return Err(bad("a column is out of range"));
        }
        if self.min_gram < 1 || self.max_gram < self.min_gram || self.max_gram > 1 << 16 {
            return Err(bad("lengths of n-grams"));
        }
        if self.max_skip < 0 || self.starts.windows(2).any(|w| w[0] > w[1]) {
            return Err(bad("skips or starts"));
        }
        if !self.weights.is_empty() && self.weights.len() != self.columns.len() {
            return Err(bad("as many weights as n-grams are needed"));
        }
        Ok(self.columns.iter().max().map_or(0, |m| m + 1))
    }
    /// The number of each n-gram of the pool.
    fn pool(&self, pool: &[Item]) -> Result<HashMap<Vec<Item>, usize>, Diag> {
        let bad = || Diag::error("field-invalid", "tf-idf: the pool does not fit its starts");
        let (mut map, mut number) = (HashMap::new(), 0);
        for (i, start) in self.starts.iter().enumerate() {
            let end = self.starts.get(i + 1).copied().unwrap_or(pool.len() as i64);
            let part = usize::try_from(*start).ok().zip(usize::try_from(end).ok());
            let part = part.and_then(|(s, e)| pool.get(s..e)).ok_or_else(bad)?;
            if part.len() % (i + 1) != 0 {
                return Err(bad());
            }
            for gram in part.chunks(i + 1) {
                map.entry(gram.to_vec()).or_insert(number);
                number += 1;
            }
        }
        if number == self.columns.len() { Ok(map) } else { Err(bad()) }
    }
}

impl OpDef for TfIdf {
    const NAME: &'static str = "tf-idf";
    const INPUTS: (usize, usize) = (2, 2);
    fn infer(&self, cx: &mut InferCx<'_>) -> Result<Vec<Fact>, Diag> {
        let d =
            cx.expect_dtype(0, |d| matches!(d, DType::Str | DType::I32 | DType::I64), "integers or str")?;
        cx.expect_dtype(
            1,
            |p| (p == DType::Str) == (d == DType::Str) && (p == DType::Str || p == DType::I64),
            "the kind of operand 0",
        )?;
        let width = Dim::from(self.width()?);
        let dims = match cx.dims(0)? {
            [] | [_] => vec![width],
            [n, _] => vec![n.clone(), width],
            _ => return Err(Diag::error("shape-mismatch", "a vector or a matrix is needed")),
        };
        Ok(vec![Type::tensor(DType::F32, dims).into()])
    }
    fn eval(&self, cx: &mut EvalCx<'_>) -> Result<Vec<Value>, Diag> {
        let width = self.width()? as usize;
        let (x, pool) = (cx.tensor(0)?, self.pool(&items(cx.tensor(1)?)?)?);
        let (rows, length) = match *x.shape() {
            [n, c] => (n, c),
            [c] => (1, c),
            _ => (1, 1),
        };
        let all = items(x)?;
        let mut out = vec![0.0; rows.saturating_mul(width)];
        for r in 0..rows {
            let row = &all[r * length..(r + 1) * length];
            let mut counts = vec![0u64; self.columns.len()];
            for n in self.min_gram as usize..=self.max_gram as usize {
                // A 1-gram has no neighbours to skip between.
                let skips = if n == 1 { 1 } else { self.max_skip as usize + 1 };
                for step in 1..=skips {
                    let span = (n - 1).saturating_mul(step);
                    for start in 0..row.len().saturating_sub(span) {
                        let gram: Vec<Item> = (0..n).map(|i| row[start + i * step].clone()).collect();
                        if let Some(k) = pool.get(&gram) {
                            counts[*k] += 1;
                        }
                    }
                    if span >= row.len() {
                        break;
                    }
                }
            }
            for (k, count) in counts.into_iter().enumerate() {
                let weight = self.weights.get(k).copied().unwrap_or(1.0);
                let value = match self.mode {
                    TfIdfMode::Tf => count as f64,
                    TfIdfMode::Idf => {
                        if count > 0 {
                            weight
                        } else {
                            0.0
                        }
                    }
                    TfIdfMode::TfIdf => count as f64 * weight,
                };
                out[r * width + self.columns[k] as usize] += value;
            }
        }
        let shape = if x.rank() == 2 { vec![rows, width] } else { vec![width] };
        Ok(vec![Tensor::floats(DType::F32, &shape, out)?.into()])
    }
}
