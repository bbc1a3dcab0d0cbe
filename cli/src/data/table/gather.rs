//! Reading tables for the first time.

use super::{Kind, Row, Shared, Table, TableArgs, TextLayout, number};
use crate::data::labels::{Labels, Naming};
use crate::data::tokens::{self, Counter, Encoder, Tokenizer, Vocabulary};
use crate::failure::{Failure, Result};
use crate::inputs::Signature;
use crate::io::csv::{self, Csv};
use planish_ir::DType;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The longest row of text unless told otherwise.
const LONGEST: usize = 512;
/// Ids of a vocabulary unless told otherwise.
const VOCABULARY: u32 = 20_000;
/// The column of classes unless told otherwise.
const LABEL: &str = "label";

/// Where rows go.
#[derive(Clone, Debug)]
struct Target {
    at: usize,
    dtype: DType,
    /// Its dims, those that are free as none; none where even their number is free.
    dims: Option<Vec<Option<usize>>>,
}

impl Target {
    /// The only input that takes text, or numbers, and carries no state.
    fn of(signature: &Signature, states: &[usize], text: bool) -> Result<Target> {
        let takes = |d: DType| if text { matches!(d, DType::I32 | DType::I64) } else { d.is_float() };
        let ports = signature.inputs.iter().enumerate().filter(|(i, _)| !states.contains(i));
        let fitting: Vec<(usize, &planish_ir::TensorType)> = ports
            .filter_map(|(i, p)| Some((i, p.ty.as_tensor()?)))
            .filter(|(_, ty)| takes(ty.dtype))
            .collect();
        let [(at, ty)] = fitting[..] else {
            let what = match text {
                true => "text goes to the input of int32 or int64",
                false => "without --text-column columns go to the input of floats",
            };
            let text = format!("{what}; the model has {} of them", fitting.len());
            return Err(Failure::new("csv-input", text));
        };
        let size = |d: &planish_ir::Dim| d.as_const().and_then(|d| usize::try_from(d).ok());
        let dims = ty.shape.as_ref().map(|s| s.iter().map(size).collect());
        Ok(Target { at, dtype: ty.dtype, dims })
    }
    /// The axis of tokens and the number of axes.
    fn text_axes(&self, layout: TextLayout) -> Result<(usize, usize)> {
        match (self.dims.as_ref().map_or(2, Vec::len), layout) {
            (1, _) => Ok((0, 1)),
            (2, TextLayout::BatchFirst) => Ok((1, 2)),
            (2, TextLayout::TimeFirst) => Ok((0, 2)),
            (n, _) => {
                let text = format!("the input has {n} axes; that of text has 1 or 2");
                Err(Failure::new("csv-input", text))
            }
        }
    }
    /// The shape for a row of so many columns.
    fn row_shape(&self, columns: usize) -> Result<Vec<usize>> {
        let wrong =
            |why: String| Failure::new("csv-input", format!("{columns} columns of numbers, but {why}"));
        let Some(dims) = &self.dims else { return Ok(vec![1, columns]) };
        match dims.split_last() {
            None => Err(wrong("the input is a scalar".into())),
            Some((Some(n), _)) if *n != columns => {
                Err(wrong(format!("the last axis of the input has {n} positions")))
            }
            Some((_, before)) if before.iter().flatten().any(|d| *d != 1) => {
                Err(wrong("the input takes several rows at once".into()))
            }
            Some((_, before)) => Ok([vec![1; before.len()], vec![columns]].concat()),
        }
    }
}

/// A file that was read once.
struct Scanned {
    path: PathBuf,
    csv: Csv,
    rows: Vec<Row>,
    columns: Vec<usize>,
}

/// Reads tables for the first time: checks all rows, finds their places, counts words and collects classes.
struct Gather<'a> {
    args: &'a TableArgs,
    target: Target,
    /// Columns and the values that rows may have in each.
    conditions: Vec<(String, Vec<String>)>,
    counter: Option<Counter>,
    /// Ids of the longest row.
    longest: usize,
    /// Columns of numbers, once they are known.
    features: Option<Vec<String>>,
    left_out: Vec<String>,
    labels: Labels,
}

/// The tables of files, in order. `known` are earlier ones, whose vocabulary, columns and classes these have.
pub(in crate::data) fn tables(
    paths: &[&PathBuf],
    args: &TableArgs,
    signature: &Signature,
    states: &[usize],
    known: Option<&Arc<Shared>>,
) -> Result<Vec<Table>> {
    if paths.is_empty() {
        return match args.given() {
            Some(option) if known.is_none() => Err(Failure::usage(format!("{option} goes with CSV files"))),
            _ => Ok(Vec::new()),
        };
    }
    let vocabulary = args.vocabulary.as_ref().filter(|p| p.exists());
    if args.tokenizer == Tokenizer::Byte && (args.vocabulary.is_some() || args.vocabulary_size.is_some()) {
        return Err(Failure::usage("--vocabulary and --vocabulary-size go with --tokenizer word"));
    }
    let words = args.text_column.is_some() && args.tokenizer == Tokenizer::Word;
    let mut gather = Gather {
        args,
        target: Target::of(signature, states, args.text_column.is_some())?,
        conditions: args.conditions()?,
        counter: (words && vocabulary.is_none() && known.is_none()).then(Counter::default),
        longest: 0,
        features: known.and_then(|k| Some(k.features()?.to_vec())),
        left_out: Vec::new(),
        labels: Labels::new(known.and_then(|k| k.naming.clone())),
    };
    let scan = |path: &&PathBuf| gather.scan(path).map_err(|f| f.about(path.display()));
    let scanned = paths.iter().map(scan).collect::<Result<Vec<Scanned>>>()?;
    let rows: usize = scanned.iter().map(|s| s.rows.len()).sum();
    let labels = gather.labels.resolve()?;
    let shared = match known {
        Some(k) => k.clone(),
        None => {
            let encoder = match (args.tokenizer, vocabulary, gather.counter.take()) {
                (Tokenizer::Byte, ..) => Encoder::Byte,
                (_, Some(path), _) => {
                    let all = Vocabulary::read(path)?;
                    Encoder::Word(args.vocabulary_size.map_or(all.clone(), |n| all.first(n as usize)))
                }
                (.., counter) => {
                    let size = args.vocabulary_size.unwrap_or(VOCABULARY) as usize;
                    Encoder::Word(counter.unwrap_or_default().vocabulary(size))
                }
            };
            Arc::new(gather.shared(signature.inputs.len(), rows, encoder, labels.naming)?)
        }
    };
    let mut classes = labels.classes.into_iter();
    let table = |s: Scanned| Table {
        path: s.path,
        csv: s.csv,
        rows: s.rows,
        columns: s.columns,
        labels: classes.next().flatten(),
        shared: shared.clone(),
    };
    Ok(scanned.into_iter().map(table).collect())
}

impl Gather<'_> {
    fn scan(&mut self, path: &Path) -> Result<Scanned> {
        let csv = Csv::open(path)?;
        let conditions = self.conditions.iter().map(|(c, values)| Ok((csv.column(c)?, values.clone())));
        let conditions = conditions.collect::<Result<Vec<(usize, Vec<String>)>>>()?;
        let label = match &self.args.label_column {
            Some(name) => Some(csv.column(name)?),
            None => csv.column(LABEL).ok(),
        };
        let text = self.args.text_column.as_ref().map(|name| csv.column(name)).transpose()?;
        let mut columns: Option<Vec<usize>> = text.map(|c| vec![c]);
        let mut rows = Vec::new();
        self.labels.begin(label.is_some());
        let (mut all, mut row) = (csv.rows(), csv::Row::default());
        while all.next(&mut row)? {
            if !conditions.iter().all(|(c, values)| values.iter().any(|v| v == row.field(*c))) {
                continue;
            }
            if let Some(c) = label {
                self.labels.add(row.field(c)).map_err(|f| f.about(csv.place(row.line, c)))?;
            }
            let columns = match &mut columns {
                Some(known) => known,
                None => {
                    let other =
                        |c: usize| label != Some(c) && !conditions.iter().any(|(other, _)| *other == c);
                    columns.insert(self.numbers(&csv, &row, &other)?)
                }
            };
            if text.is_some() {
                let field = row.field(columns[0]);
                let words = match (&mut self.counter, self.args.tokenizer) {
                    (_, Tokenizer::Byte) => field.len(),
                    (Some(counter), _) => {
                        counter.add(field).map_err(|f| f.about(csv.place(row.line, columns[0])))?
                    }
                    (None, _) => {
                        let mut n = 0;
                        tokens::words(field, &mut |_| n += 1);
                        n
                    }
                };
                self.longest = self.longest.max(words);
            } else {
                for c in columns.iter() {
                    number(&csv, row.field(*c), row.line, *c, self.target.dtype)?;
                }
            }
            rows.push(Row { at: row.at, line: row.line });
        }
        drop(all);
        match columns {
            Some(columns) if !rows.is_empty() => Ok(Scanned { path: path.to_owned(), csv, rows, columns }),
            _ if self.conditions.is_empty() => {
                Err(Failure::new("csv-empty", "there are names of columns and no rows"))
            }
            _ => Err(Failure::new("csv-empty", format!("no row has {}", self.args.rows.join(", ")))),
        }
    }
    /// The columns of numbers: those of the first table, or by the first row those that have a name and a number, or nothing.
    fn numbers(&mut self, csv: &Csv, row: &csv::Row, other: &dyn Fn(usize) -> bool) -> Result<Vec<usize>> {
        if let Some(names) = &self.features {
            return names.iter().map(|name| csv.column(name)).collect();
        }
        let is = |c: &usize| {
            let field = row.field(*c).trim();
            !csv.names()[*c].is_empty() && (field.is_empty() || field.parse::<f64>().is_ok())
        };
        let (numbers, rest): (Vec<usize>, Vec<usize>) = (0..row.len()).filter(|c| other(*c)).partition(is);
        let names = |columns: &[usize]| columns.iter().map(|c| csv.names()[*c].clone()).collect::<Vec<_>>();
        self.left_out = names(&rest);
        self.features = Some(names(&numbers));
        self.target.row_shape(numbers.len())?;
        Ok(numbers)
    }
    fn shared(self, inputs: usize, rows: usize, encoder: Encoder, naming: Option<Naming>) -> Result<Shared> {
        let mut notes = Vec::new();
        let Target { at, dtype, dims } = &self.target;
        let quoted = |names: &[String]| names.iter().map(|n| format!("{n:?}")).collect::<Vec<_>>().join(", ");
        let (kind, shape) = match (&self.args.text_column, self.features) {
            (Some(column), _) => {
                let (axis, axes) = self.target.text_axes(self.args.text_layout)?;
                let fixed = dims.as_ref().and_then(|d| d[axis]);
                let tokens = match (self.args.tokens.map(|n| n as usize), fixed) {
                    (Some(n), Some(m)) if n != m => {
                        let text = format!("--tokens {n}: the input takes {m}");
                        return Err(Failure::new("csv-input", text));
                    }
                    (Some(n), _) | (None, Some(n)) => n,
                    (None, None) => self.longest.clamp(1, LONGEST),
                };
                let of = match (&encoder, &self.args.vocabulary) {
                    (Encoder::Byte, _) => "bytes".to_owned(),
                    (_, Some(path)) if path.exists() => format!("the vocabulary {}", path.display()),
                    (_, Some(path)) => {
                        format!("the vocabulary of these rows, as there is no {}", path.display())
                    }
                    _ => "the vocabulary of these rows".to_owned(),
                };
                notes.push(format!(
                    "text of {column:?}: {rows} rows of {tokens} tokens (the longest has {}), ids below {} by {of}",
                    self.longest,
                    encoder.size()
                ));
                let mut shape = vec![1; axes];
                shape[axis] = tokens;
                (Kind::Text { encoder: Arc::new(encoder), tokens, pad: self.args.pad }, shape)
            }
            (None, features) => {
                let features = features.unwrap_or_default();
                let rest = match self.left_out.is_empty() {
                    true => String::new(),
                    false => format!("; not used: {}", quoted(&self.left_out)),
                };
                notes.push(format!("numbers: {rows} rows of {}{rest}", quoted(&features)));
                let shape = self.target.row_shape(features.len())?;
                (Kind::Numbers(features), shape)
            }
        };
        if let Some(Naming::Names(names)) = &naming {
            let shown: Vec<String> =
                names.iter().take(20).enumerate().map(|(k, n)| format!("{k} {n:?}")).collect();
            let more = if names.len() > 20 { ", .." } else { "" };
            notes.push(format!("classes: {}{more}", shown.join(", ")));
        }
        Ok(Shared { at: *at, dtype: *dtype, shape, inputs, kind, naming, notes })
    }
}
