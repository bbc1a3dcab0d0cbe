//! Samples in rows of CSV files: text as ids for an input of integers, or columns of numbers for an input of floats.

use super::Sample;
use super::labels::Naming;
use super::tokens::{Encoder, PADDING, Tokenizer};
use crate::failure::{Failure, Result};
use crate::io::csv::Csv;
use planish_ir::{DType, Tensor, Value};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::sync::Arc;

mod gather;
pub(super) use gather::tables;

/// The options for CSV files.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "CSV files")]
pub struct TableArgs {
    /// The column whose text becomes ids for the model's input of integers. Without, columns of numbers are its input of floats
    #[arg(long, requires = "data", value_name = "NAME")]
    pub text_column: Option<String>,
    /// The column with the class of a row: whole numbers, or names, which are numbered from 0 in their order. `label` unless given
    #[arg(long, requires = "data", value_name = "NAME")]
    pub label_column: Option<String>,
    /// Use only rows with this value; repeatable. Several values of one column are alternatives
    #[arg(long = "where", requires = "data", value_name = "COLUMN=VALUE")]
    pub rows: Vec<String>,
    /// Ids of each row: shorter text is filled up with 0, longer is cut. Unless given those of the input where they are fixed, else those
    /// of the longest row, 512 at most
    #[arg(long, requires = "text_column", value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    pub tokens: Option<u32>,
    /// What text is divided into
    #[arg(long, requires = "text_column", value_enum, default_value_t)]
    pub tokenizer: Tokenizer,
    /// The vocabulary that the model was trained with. Where there is no such file, the words of the rows are one
    #[arg(long, requires = "text_column", value_name = "FILE")]
    pub vocabulary: Option<PathBuf>,
    /// Ids of the vocabulary, with 0 for padding and 1 for words that it lacks; all of FILE, or 20000, unless given
    #[arg(long, requires = "text_column", value_name = "N", value_parser = clap::value_parser!(u32).range(3..=5_000_000))]
    pub vocabulary_size: Option<u32>,
    /// The end of text that is filled up or cut
    #[arg(long, requires = "text_column", value_enum, default_value_t)]
    pub pad: Pad,
    /// The order of the axes of the input
    #[arg(long, requires = "text_column", value_enum, default_value_t)]
    pub text_layout: TextLayout,
}

/// Where text is filled up or cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub enum Pad {
    /// Before the text: recurrent models read to the last step
    #[default]
    Front,
    /// After it
    Back,
}

/// Order of axes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub enum TextLayout {
    /// 1 x N
    #[default]
    BatchFirst,
    /// N x 1
    TimeFirst,
}

/// What all tables of a command have in common.
#[derive(Debug)]
pub(super) struct Shared {
    /// Position of the input.
    at: usize,
    dtype: DType,
    /// Its shape for one row.
    shape: Vec<usize>,
    /// How many inputs the model has.
    inputs: usize,
    kind: Kind,
    /// What classes are called, if there is a column of them.
    naming: Option<Naming>,
    /// For people.
    pub(super) notes: Vec<String>,
}

#[derive(Debug)]
enum Kind {
    Text { encoder: Arc<Encoder>, tokens: usize, pad: Pad },
    Numbers(Vec<String>),
}

/// A file whose rows are samples. Only their places are held, and their classes: a row is read, and its text divided, when it is asked
/// for, so that memory does not depend on how long text is, and the file is read twice in all where samples are used once.
#[derive(Debug)]
pub(super) struct Table {
    path: PathBuf,
    csv: Csv,
    rows: Vec<Row>,
    /// The column of text, or those of numbers.
    columns: Vec<usize>,
    labels: Option<Vec<i64>>,
    shared: Arc<Shared>,
}

#[derive(Clone, Copy, Debug)]
struct Row {
    at: u64,
    line: u64,
}

impl Shared {
    pub(super) fn encoder(&self) -> Option<&Encoder> {
        match &self.kind {
            Kind::Text { encoder, .. } => Some(encoder),
            Kind::Numbers(_) => None,
        }
    }
    pub(super) fn features(&self) -> Option<&[String]> {
        match &self.kind {
            Kind::Text { .. } => None,
            Kind::Numbers(names) => Some(names),
        }
    }
    pub(super) fn classes(&self) -> Option<&[String]> {
        match &self.naming {
            Some(Naming::Names(names)) => Some(names),
            Some(Naming::Numbers) | None => None,
        }
    }
    /// Adds what decides the values of samples to a digest.
    fn digest(&self, h: &mut Sha256) {
        h.update(format!("{} {} {:?} {:?}", self.at, self.dtype, self.shape, self.naming));
        match &self.kind {
            Kind::Text { encoder, tokens, pad } => {
                h.update(format!("{tokens} {pad:?}"));
                match &**encoder {
                    Encoder::Word(v) => v.words().for_each(|w| h.update(format!("{w}\n"))),
                    Encoder::Byte => h.update("bytes"),
                }
            }
            Kind::Numbers(names) => h.update(format!("{names:?}")),
        }
    }
}

impl Table {
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }
    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
    pub(super) fn sample(&self, k: usize) -> Result<Sample> {
        let Row { at, line } = self.rows[k];
        let row = self.csv.row(at, line)?;
        let shared = &self.shared;
        let tensor = match &shared.kind {
            Kind::Text { encoder, tokens, pad } => {
                let ids = encoder.encode(row.field(self.columns[0]));
                let ids = fitted(ids, *tokens, *pad).into_iter().map(i128::from).collect();
                Tensor::ints(shared.dtype, &shared.shape, ids)?
            }
            Kind::Numbers(_) => {
                let number = |c: &usize| number(&self.csv, row.field(*c), line, *c, shared.dtype);
                let numbers = self.columns.iter().map(number).collect::<Result<Vec<f64>>>()?;
                Tensor::floats(shared.dtype, &shared.shape, numbers)?
            }
        };
        let mut values = vec![None; shared.inputs];
        values[shared.at] = Some(Value::Tensor(tensor));
        let labels = self.labels.as_ref().map(|l| vec![l[k]]);
        Ok(Sample { name: format!("line {line}"), values, labels })
    }
    /// Adds what decides the values beside the file to a digest.
    pub(super) fn digest(&self, h: &mut Sha256) {
        self.shared.digest(h);
    }
}

/// So many ids, filled up or cut at one end.
fn fitted(mut ids: Vec<u32>, tokens: usize, pad: Pad) -> Vec<u32> {
    match pad {
        Pad::Front if ids.len() >= tokens => ids.split_off(ids.len() - tokens),
        Pad::Front => [vec![PADDING; tokens - ids.len()], ids].concat(),
        Pad::Back => {
            ids.resize(tokens, PADDING);
            ids
        }
    }
}

/// The number in a field, which the type can hold.
fn number(csv: &Csv, field: &str, line: u64, column: usize, dtype: DType) -> Result<f64> {
    let parsed = field.trim().parse::<f64>().ok();
    let held = |x: &f64| if dtype == DType::F64 { x.is_finite() } else { (*x as f32).is_finite() };
    parsed.filter(held).ok_or_else(|| {
        Failure::new("csv-value", format!("{}: {field:?} is no finite number", csv.place(line, column)))
    })
}

impl TableArgs {
    /// An option that was given and only tables need.
    pub(super) fn given(&self) -> Option<&'static str> {
        [
            (self.text_column.is_some(), "--text-column"),
            (self.label_column.is_some(), "--label-column"),
            (!self.rows.is_empty(), "--where"),
        ]
        .iter()
        .find_map(|(given, option)| given.then_some(*option))
    }
    pub(super) fn conditions(&self) -> Result<Vec<(String, Vec<String>)>> {
        let mut out: Vec<(String, Vec<String>)> = Vec::new();
        for text in &self.rows {
            let (column, value) = text.split_once('=').ok_or_else(|| {
                Failure::usage(format!("--where {text:?} has no `=`: COLUMN=VALUE is needed"))
            })?;
            match out.iter_mut().find(|(c, _)| c == column) {
                Some((_, values)) => values.push(value.to_owned()),
                None => out.push((column.to_owned(), vec![value.to_owned()])),
            }
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests;
