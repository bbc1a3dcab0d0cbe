//! `--data`: samples that passes are calibrated on, that results are checked on and that accuracy is measured on. They are read one
//! at a time, when they are asked for.

mod find;
mod labels;
mod source;
pub mod table;
pub mod tokens;

use crate::failure::{Failure, Result};
use crate::inputs::{self, Signature};
use crate::preprocess::Preprocess;
use crate::ui::Ui;
use planish_ir::engine::bind_inputs;
use planish_ir::graph::StatePair;
use planish_ir::{Diag, Graph, Value, interp, verify};
use sha2::{Digest, Sha256};
use source::Source;
use std::path::PathBuf;
use std::sync::Arc;
use table::{Shared, TableArgs};
use tokens::Encoder;

/// The options.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Data")]
pub struct DataArgs {
    /// Samples for passes, for the check of the result and for accuracy: a folder or an .npz file, as `--inputs` of `run` takes them, an
    /// .npy file for a model of one input, a folder of PNG or JPEG files (subfolders are classes), a folder of .npz files, an IDX file of
    /// pictures with its labels beside it, or a CSV file. Repeatable
    #[arg(long, value_name = "DIR|FILE")]
    pub data: Vec<PathBuf>,
    /// The first axis of the arrays of .npz and .npy files counts samples
    #[arg(long, requires = "data")]
    pub samples_axis: bool,
    /// Use so many samples, evenly spread over all; with --state the first ones
    #[arg(long, requires = "data", value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub data_limit: Option<u32>,
    /// In samples, an output is an input of the next one; each --data, and each .npz of a folder, is a sequence of its own
    #[arg(long, requires = "data", value_name = "OUT=IN")]
    pub state: Vec<String>,
    /// Samples that accuracy is measured on, in the form of --data. Without, every 5th sample of --data is kept from passes for that
    /// (with --state every 5th sequence); `none` measures no accuracy and keeps nothing
    #[arg(long, requires = "data", value_name = "DIR|FILE|none")]
    pub eval_data: Option<PathBuf>,
    #[command(flatten)]
    pub table: TableArgs,
}

/// Samples of a model. Copies share the files.
#[derive(Clone, Debug)]
pub struct Data {
    /// Where they are from, for people.
    pub path: String,
    set: Arc<Set>,
    /// Which samples of the set, in order.
    picked: Vec<(usize, usize)>,
}

#[derive(Debug)]
struct Set {
    sources: Vec<Source>,
    signature: Signature,
    /// Outputs that are fed back, with their inputs.
    states: Vec<(usize, usize)>,
    /// What else decides the values: settings as text.
    settings: String,
    /// What rows of tables have in common.
    table: Option<Arc<Shared>>,
}

/// The inputs of one inference.
#[derive(Clone, Debug)]
pub struct Sample {
    /// For people; empty for a lone sample.
    pub name: String,
    /// By position; `None` only for inputs that carry state.
    pub values: Vec<Option<Value>>,
    /// The classes of its rows, if they are known.
    pub labels: Option<Vec<i64>>,
}

impl DataArgs {
    /// The files and folders that are read.
    pub fn paths(&self) -> impl Iterator<Item = &PathBuf> {
        self.data.iter().chain(self.eval_data.iter().filter(|p| p.as_os_str() != "none"))
    }
    /// Finds the samples and checks that they fit the inputs of the model: every one where each may have another size, else the first.
    pub fn read(&self, graph: &Graph) -> Result<Option<Data>> {
        self.read_with(graph, None)
    }
    /// As [`DataArgs::read`]; pictures are prepared as the table says.
    pub fn read_with(&self, graph: &Graph, preprocess: Option<&Preprocess>) -> Result<Option<Data>> {
        if self.data.is_empty() {
            return Ok(None);
        }
        self.find(&self.data, "--data", graph, preprocess, None).map(Some)
    }
    /// The samples for passes and those that accuracy is measured on, none if there are to be none, and whether they are others.
    pub fn split(
        &self,
        data: &Data,
        graph: &Graph,
        preprocess: Option<&Preprocess>,
    ) -> Result<(Data, Option<(Data, bool)>)> {
        match &self.eval_data {
            Some(p) if p.as_os_str() == "none" => Ok((data.clone(), None)),
            Some(p) => {
                let known = data.set.table.as_ref();
                let held = self.find(std::slice::from_ref(p), "--eval-data", graph, preprocess, known)?;
                Ok((data.clone(), Some((held, true))))
            }
            None => Ok(match (data.part(false), data.part(true)) {
                (Some(rest), Some(held)) => (rest, Some((held, true))),
                _ => (data.clone(), Some((data.clone(), false))),
            }),
        }
    }
    fn find(
        &self,
        paths: &[PathBuf],
        option: &str,
        graph: &Graph,
        preprocess: Option<&Preprocess>,
        known: Option<&Arc<Shared>>,
    ) -> Result<Data> {
        let signature = Signature::of(graph);
        let mut states = crate::verbs::run::state_pairs(&self.state, &signature)?.0;
        if states.is_empty() {
            states.extend(graph.states.iter().map(|s| (s.output as usize, s.input as usize)));
        }
        let resolved = preprocess.map(|p| p.resolve(&signature)).transpose()?;
        let fed: Vec<usize> = states.iter().map(|(_, i)| *i).collect();
        let csv: Vec<&PathBuf> =
            paths.iter().filter(|p| crate::io::csv::is_named(p) && !p.is_dir()).collect();
        let mut tables = table::tables(&csv, &self.table, &signature, &fed, known)?.into_iter();
        let mut sources = Vec::new();
        let mut shared = None;
        for path in paths {
            if csv.contains(&path)
                && let Some(table) = tables.next()
            {
                shared = Some(table.shared().clone());
                sources.push(Source::Table(Box::new(table)));
                continue;
            }
            let cx =
                find::Cx { signature: &signature, preprocess: resolved.as_ref(), axis: self.samples_axis };
            sources.extend(find::sources(path, option, &cx)?);
        }
        let mut picked: Vec<(usize, usize)> = sources
            .iter()
            .enumerate()
            .flat_map(|(s, source)| (0..source.len()).map(move |k| (s, k)))
            .collect();
        let total = picked.len();
        if let Some(limit) = self.data_limit.map(|n| n as usize).filter(|n| *n < total) {
            if states.is_empty() {
                picked = (0..limit)
                    .map(|i| picked[(i as u128 * total as u128 / limit as u128) as usize])
                    .collect();
            } else {
                picked.truncate(limit);
            }
        }
        let shown: Vec<String> = paths.iter().map(|p| p.display().to_string()).collect();
        let path = shown.join(", ");
        if picked.is_empty() {
            return Err(Failure::new("input-missing", format!("{path}: there are no samples")));
        }
        let settings = format!("{states:?} {} {preprocess:?} {:?}", self.samples_axis, self.table.rows);
        let set = Set { sources, signature, states, settings, table: shared };
        let data = Data { path, set: Arc::new(set), picked };
        data.stateful(graph)?;
        data.check(&mut |sample| data.fits(graph, sample))?;
        Ok(data)
    }
}

impl Sample {
    /// A finding about this sample.
    pub fn failed(&self, d: impl Into<Failure>) -> Failure {
        if self.name.is_empty() { d.into() } else { d.into().about(&self.name) }
    }
    /// All inputs; those that carry state in the graph and are not given are as at the start.
    pub fn complete(&self, graph: &Graph) -> std::result::Result<Vec<Value>, Diag> {
        let value = |(i, v): (usize, &Option<Value>)| match v {
            Some(v) => Ok(v.clone()),
            None => interp::initial_state(graph, i, &self.values),
        };
        self.values.iter().enumerate().map(value).collect()
    }
}

impl Data {
    /// Samples in memory.
    pub fn of_samples(path: &str, samples: Vec<Sample>) -> Data {
        let picked = (0..samples.len()).map(|k| (0, k)).collect();
        let signature = Signature { inputs: Vec::new(), outputs: Vec::new(), symbols: Default::default() };
        let sources = vec![Source::Memory(samples)];
        let set = Set { sources, signature, states: Vec::new(), settings: String::new(), table: None };
        Data { path: path.to_owned(), set: Arc::new(set), picked }
    }
    /// How many samples there are; at least one.
    pub fn len(&self) -> usize {
        self.picked.len()
    }
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.picked.is_empty()
    }
    /// Reads a sample.
    pub fn sample(&self, k: usize) -> Result<Sample> {
        let Some((s, i)) = self.picked.get(k) else {
            return Err(Failure::new("internal-data", format!("there is no sample {k}")));
        };
        let source = &self.set.sources[*s];
        let sample = source.sample(*i).map_err(|f| f.about(&self.path))?;
        let states: Vec<usize> = self.set.states.iter().map(|(_, i)| *i).collect();
        let plain = inputs::Sample { name: sample.name.clone(), values: sample.values.clone() };
        match inputs::missing(&plain, &self.set.signature, &states) {
            Some(f) => Err(f.about(&self.path)),
            None => Ok(sample),
        }
    }
    /// How text becomes ids, where samples are text.
    pub fn encoder(&self) -> Option<&Encoder> {
        self.set.table.as_ref()?.encoder()
    }
    /// The columns of numbers, in order, where samples are rows of them.
    pub fn features(&self) -> Option<&[String]> {
        self.set.table.as_ref()?.features()
    }
    /// The names of classes that a table has names for; their places are the labels of samples.
    pub fn classes(&self) -> Option<&[String]> {
        self.set.table.as_ref()?.classes()
    }
    /// Says what was made of tables.
    pub fn tell(&self, ui: &Ui) {
        self.set.table.iter().flat_map(|t| &t.notes).for_each(|note| ui.say(note));
    }
    /// Whether a sample begins a sequence: its state is that of the start. Without state every sample does.
    pub fn begins(&self, k: usize) -> bool {
        let source = |k: usize| self.picked.get(k).map(|(s, _)| *s);
        self.set.states.is_empty() || k == 0 || source(k) != source(k - 1)
    }
    /// A graph whose sessions feed the state of these samples back.
    pub fn stateful(&self, graph: &Graph) -> Result<Graph> {
        let mut graph = graph.clone();
        graph.states =
            self.set.states.iter().map(|(o, i)| StatePair { output: *o as u32, input: *i as u32 }).collect();
        let found = if graph.states.is_empty() { Vec::new() } else { verify::verify(&graph) };
        if found.is_empty() { Ok(graph) } else { Err(found.into()) }
    }
    /// Whether a sample has the types and sizes of the inputs of a graph.
    pub fn fits(&self, graph: &Graph, sample: &Sample) -> Result<()> {
        let inputs = match self.set.states.is_empty() {
            true => sample.complete(graph)?,
            false => sample.complete(&self.stateful(graph)?)?,
        };
        bind_inputs(graph, &inputs.iter().collect::<Vec<_>>())?;
        Ok(())
    }
    /// Calls `one` for every sample where each may have another size, else for the first of each source.
    pub fn check(&self, one: &mut dyn FnMut(&Sample) -> Result<()>) -> Result<()> {
        let mut last = None;
        for (k, (s, _)) in self.picked.iter().enumerate() {
            if last.replace(*s) != Some(*s) || !self.set.sources[*s].uniform() {
                let sample = self.sample(k)?;
                one(&sample).map_err(|f| sample.failed(f).about(&self.path))?;
            }
        }
        Ok(())
    }
    /// The samples that have the sizes a graph knows, if there are any.
    pub fn fitting(&self, graph: &Graph) -> Option<Data> {
        let mut kept = Vec::new();
        let mut last: Option<(usize, bool)> = None;
        for (k, (s, _)) in self.picked.iter().enumerate() {
            let fit = match last {
                Some((source, fit)) if source == *s && self.set.sources[*s].uniform() => fit,
                _ => self.sample(k).is_ok_and(|sample| self.fits(graph, &sample).is_ok()),
            };
            last = Some((*s, fit));
            if fit {
                kept.push(self.picked[k]);
            }
        }
        (!kept.is_empty()).then(|| Data { picked: kept, ..self.clone() })
    }
    /// Only the samples of these places, which ascend; none where there are none.
    pub fn pick(&self, places: &[usize]) -> Option<Data> {
        let picked: Vec<_> = places.iter().filter_map(|k| self.picked.get(*k).copied()).collect();
        (!picked.is_empty()).then(|| Data { picked, ..self.clone() })
    }
    /// Every fifth sample, or all others; with state every fifth sequence. None where fewer than five would have to be divided.
    fn part(&self, held: bool) -> Option<Data> {
        let mut unit = 0;
        let mut picked = Vec::new();
        for k in 0..self.len() {
            unit += usize::from(self.begins(k));
            if unit.is_multiple_of(5) == held {
                picked.push(self.picked[k]);
            }
        }
        (unit >= 5).then(|| Data { picked, ..self.clone() })
    }
    /// A digest of everything that decides the values of the samples.
    pub fn digest(&self) -> Result<[u8; 32]> {
        let mut h = Sha256::new();
        h.update(self.set.settings.as_bytes());
        for source in &self.set.sources {
            source.digest(&mut h)?;
        }
        for (s, k) in &self.picked {
            h.update((*s as u64).to_le_bytes());
            h.update((*k as u64).to_le_bytes());
        }
        Ok(h.finalize().into())
    }
}

#[cfg(test)]
mod tests;
