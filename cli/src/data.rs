//! `--data`: samples that a model is checked on.

use crate::failure::{Failure, Result};
use crate::inputs::{self, Signature};
use planish_ir::engine::bind_inputs;
use planish_ir::{Graph, Value};
use std::path::PathBuf;

/// The options.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Data")]
pub struct DataArgs {
    /// Samples that the result is checked on: a folder or an .npz file, as `--inputs` of `run` takes them
    #[arg(long, value_name = "DIR|FILE.npz")]
    pub data: Option<PathBuf>,
    /// The first axis of the arrays of the .npz counts samples
    #[arg(long, requires = "data")]
    pub samples_axis: bool,
}

/// Samples of a model.
#[derive(Clone, Debug)]
pub struct Data {
    /// Where they are from, for people.
    pub path: String,
    /// At least one.
    pub samples: Vec<Sample>,
}

/// The inputs of one inference, all given.
#[derive(Clone, Debug)]
pub struct Sample {
    /// The name of its folder, empty for a lone sample.
    pub name: String,
    /// By position.
    pub values: Vec<Value>,
}

impl DataArgs {
    /// Reads all samples and checks that they fit the inputs of the model.
    pub fn read(&self, graph: &Graph) -> Result<Option<Data>> {
        let Some(path) = &self.data else { return Ok(None) };
        let signature = Signature::of(graph);
        let mut samples = Vec::new();
        for s in inputs::samples(path, "--data", &signature, self.samples_axis)? {
            if let Some(failure) = inputs::missing(&s, &signature, &[]) {
                return Err(failure.about(path.display()));
            }
            let sample = Sample { name: s.name, values: s.values.into_iter().flatten().collect() };
            fits(graph, &sample).map_err(|d| sample.failed(d).about(path.display()))?;
            samples.push(sample);
        }
        let path = path.display().to_string();
        if samples.is_empty() {
            return Err(Failure::new("input-missing", format!("{path}: there are no samples")));
        }
        Ok(Some(Data { path, samples }))
    }
}

pub(crate) fn fits(graph: &Graph, sample: &Sample) -> std::result::Result<(), planish_ir::Diag> {
    bind_inputs(graph, &sample.values.iter().collect::<Vec<_>>()).map(|_| ())
}

impl Sample {
    /// A finding about this sample.
    pub fn failed(&self, d: impl Into<Failure>) -> Failure {
        if self.name.is_empty() { d.into() } else { d.into().about(&self.name) }
    }
}

impl Data {
    /// The samples that have the sizes a graph knows, if there are any.
    pub fn fitting(&self, graph: &Graph) -> Option<Data> {
        let samples: Vec<Sample> = self.samples.iter().filter(|s| fits(graph, s).is_ok()).cloned().collect();
        (!samples.is_empty()).then(|| Data { path: self.path.clone(), samples })
    }
}
