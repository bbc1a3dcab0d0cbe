//! What every engine offers: prepare a graph once, open sessions, run them.

use crate::diag::Diag;
use crate::graph::{Graph, ValueId};
use crate::tensor::Value;
use std::collections::BTreeMap;

/// Options of [`Engine::prepare`].
#[derive(Clone, Debug)]
pub struct PrepareOptions {
    /// Threads a session may use.
    pub threads: usize,
    /// The most loop iterations in one run; none means unlimited.
    pub max_steps: Option<u64>,
    /// The most bytes a session may allocate; none means unlimited.
    pub max_memory: Option<u64>,
    /// Values of the root region to report beside the outputs.
    pub taps: Vec<ValueId>,
    /// The seed of the random stream.
    pub seed: u64,
}

impl Default for PrepareOptions {
    fn default() -> Self {
        PrepareOptions { threads: 1, max_steps: None, max_memory: None, taps: Vec::new(), seed: 0 }
    }
}

/// Something that executes graphs.
pub trait Engine {
    /// Its name on the command line.
    fn name(&self) -> &'static str;
    /// Makes a program of a graph. All reasons why it cannot are reported together.
    fn prepare(&self, graph: &Graph, options: &PrepareOptions) -> Result<Box<dyn Program>, Vec<Diag>>;
}

/// A prepared graph. Sessions of one program are independent of each other.
pub trait Program: Send + Sync {
    /// A session with its own state, which starts as zero.
    fn session(&self) -> Result<Box<dyn Session>, Diag>;
}

/// Runs of a program one after another.
pub trait Session: Send {
    /// Runs once. An input that carries state may be `None`: it is then what the last run left.
    fn run(&mut self, inputs: &[Option<Value>]) -> Result<RunResult, Diag>;
    /// As [`Session::run`], but gives only these outputs, in this order: state that stays inside is not copied.
    fn run_for(&mut self, inputs: &[Option<Value>], outputs: &[usize]) -> Result<Vec<Value>, Diag> {
        pick(self.run(inputs)?.values, outputs)
    }
    /// What the next run reads as the input of this position, which carries state, where it is not given; none where it starts as zero.
    fn state(&self, input: usize) -> Result<Option<Value>, Diag>;
    /// Forgets the state.
    fn reset(&mut self);
}

/// Some of the outputs of a run, in this order.
pub fn pick(values: Vec<Value>, outputs: &[usize]) -> Result<Vec<Value>, Diag> {
    let one = |o: &usize| {
        values.get(*o).cloned().ok_or_else(|| Diag::error("internal-run", format!("there is no output {o}")))
    };
    outputs.iter().map(one).collect()
}

/// What a run gave.
#[derive(Clone, Debug, Default)]
pub struct RunResult {
    /// The outputs in graph order.
    pub values: Vec<Value>,
    /// Counters of executed work, by name.
    pub counters: BTreeMap<String, u64>,
    /// The values asked for in [`PrepareOptions::taps`], in that order.
    pub taps: Vec<Value>,
}

/// Checks inputs against the signature of a graph: number, kind, dtype, rank, fixed dims, and that a symbol has one
/// value wherever it stands. Gives the values of the symbols.
pub fn bind_inputs(graph: &Graph, inputs: &[&Value]) -> Result<BTreeMap<crate::SymId, i64>, Diag> {
    if inputs.len() != graph.inputs().len() {
        return Err(Diag::error(
            "input-mismatch",
            format!("{} inputs given, the model has {}", inputs.len(), graph.inputs().len()),
        ));
    }
    let mut bound = BTreeMap::new();
    for (i, (v, value)) in graph.inputs().iter().zip(inputs).enumerate() {
        let data = graph.value(*v);
        let name = data.name.as_deref().map_or_else(|| format!("#{i}"), |n| format!("{n:?}"));
        let wrong = |why: String| Err(Diag::error("input-mismatch", format!("input {name}: {why}")));
        let got = value.ty();
        if !got.fits(&data.fact.ty) {
            return wrong(format!(
                "{} given, {} declared",
                got.display(&graph.symbols),
                data.fact.ty.display(&graph.symbols)
            ));
        }
        let (Some(have), Some(want)) = (got.as_tensor().and_then(|t| t.fixed_dims()), graph.dims(*v)) else {
            continue;
        };
        for (axis, (d, want)) in have.iter().zip(want).enumerate() {
            let d = *d as i64;
            if let Some(s) = want.as_symbol() {
                let symbol = graph.symbols.get(s);
                if d < symbol.min || symbol.max.is_some_and(|m| d > m) {
                    return wrong(format!("axis {axis} is {d}, outside the range of {}", symbol.name));
                }
                if *bound.entry(s).or_insert(d) != d {
                    return wrong(format!(
                        "axis {axis} is {d}, but {} is {} elsewhere",
                        symbol.name, bound[&s]
                    ));
                }
            }
        }
    }
    // Dims that are more than a symbol are checked once all symbols are known.
    for (v, value) in graph.inputs().iter().zip(inputs) {
        let (Some(have), Some(want)) = (value.ty().as_tensor().and_then(|t| t.fixed_dims()), graph.dims(*v))
        else {
            continue;
        };
        for (axis, (d, want)) in have.iter().zip(want).enumerate() {
            if let Some(w) = want.eval(&|s| bound.get(&s).copied())
                && w != *d as i64
            {
                return Err(Diag::error(
                    "input-mismatch",
                    format!("axis {axis} of an input is {d}, not {w}"),
                ));
            }
        }
    }
    Ok(bound)
}
