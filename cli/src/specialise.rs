//! Preparation of a model for inputs that are known.
//!
//! A model is prepared as it is where that works. Where it does not because something is unsupported, it is prepared
//! again for the dims of the inputs at hand (of sequences: the rank of the items), and then also for the values of small
//! inputs, first of integers, which decide shapes in many models (the shape of a Reshape, the axes of a Squeeze), then of
//! floats (the scales of a Resize). What was assumed is checked in every run; a run with other values prepares once more.

use crate::engine;
use crate::exit::Exit;
use crate::failure::{Failure, Result};
use crate::inputs::Signature;
use crate::load::{LoadOptions, ModelFile};
use planish_ir::graph::StatePair;
use planish_ir::{Diag, PrepareOptions, Program, RunResult, Session, Tensor, Value};
use std::collections::BTreeMap;

/// The most elements of an input that becomes a constant.
const SMALL: usize = 64;

/// The most variants of one model that are kept.
const KEPT: usize = 8;

/// A model that is prepared when inputs come.
pub struct Adaptive<'a> {
    file: ModelFile,
    load: LoadOptions,
    engine: &'a str,
    options: PrepareOptions,
    /// Inputs and outputs of the model as it stands in the file.
    pub signature: Signature,
    /// Outputs that are fed back, with their inputs.
    states: Vec<(usize, usize)>,
    variants: Vec<Variant>,
    current: usize,
}

/// What was assumed about inputs, by position.
#[derive(Clone, PartialEq, Default)]
struct Assumed {
    shapes: BTreeMap<usize, Vec<usize>>,
    /// The rank of all items of a sequence.
    items: BTreeMap<usize, usize>,
    values: BTreeMap<usize, Tensor>,
}

impl Assumed {
    fn holds(&self, values: &[Option<Value>]) -> bool {
        let tensor = |i: &usize| match values.get(*i) {
            Some(Some(Value::Tensor(t))) => Some(t),
            _ => None,
        };
        let rank = |i: &usize| values.get(*i)?.as_ref().and_then(item_rank);
        self.shapes.iter().all(|(i, s)| tensor(i).is_some_and(|t| t.shape() == s.as_slice()))
            && self.items.iter().all(|(i, r)| rank(i) == Some(*r))
            && self.values.iter().all(|(i, v)| tensor(i) == Some(v))
    }
}

/// The rank that all items of a sequence of tensors have.
fn item_rank(v: &Value) -> Option<usize> {
    let Value::Sequence(_, items) = v else { return None };
    let mut ranks = items.iter().map(|v| v.tensor().ok().map(Tensor::rank));
    let first = ranks.next()??;
    ranks.all(|r| r == Some(first)).then_some(first)
}

struct Variant {
    assumed: Assumed,
    warnings: Vec<Diag>,
    program: Box<dyn Program>,
    session: Box<dyn Session>,
}

impl<'a> Adaptive<'a> {
    /// Takes a model; nothing is compiled yet.
    pub fn new(
        file: ModelFile,
        load: LoadOptions,
        engine: &'a str,
        options: PrepareOptions,
    ) -> Result<Adaptive<'a>> {
        let signature = file.signature(&load)?;
        Ok(Adaptive {
            file,
            load,
            engine,
            options,
            signature,
            states: Vec::new(),
            variants: Vec::new(),
            current: 0,
        })
    }
    /// Feeds outputs back as inputs of the next run (`OUT=IN`).
    pub fn with_states(mut self, pairs: &[String]) -> Result<Adaptive<'a>> {
        self.states = crate::verbs::run::state_pairs(pairs, &self.signature)?.0;
        Ok(self)
    }
    /// Prepares for these inputs and gives the warnings of the import, once.
    pub fn ready(&mut self, values: &[Option<Value>]) -> Result<Vec<Diag>> {
        let before = self.variants.len();
        self.current = self.variant(values)?;
        let fresh = self.variants.len() > before && before == 0;
        Ok(if fresh { self.variants[self.current].warnings.clone() } else { Vec::new() })
    }
    /// Runs once in a fresh session of the best variant.
    pub fn run(&mut self, values: &[Option<Value>]) -> Result<RunResult> {
        let at = self.variant(values)?;
        let variant = &mut self.variants[at];
        variant.session = variant.program.session()?;
        self.step(at, values)
    }
    /// Runs once more in the session of the last run, which carries state.
    pub fn next(&mut self, values: &[Option<Value>]) -> Result<RunResult> {
        let at = self.variant(values)?;
        self.step(at, values)
    }
    fn step(&mut self, at: usize, values: &[Option<Value>]) -> Result<RunResult> {
        let variant = &mut self.variants[at];
        let rest: Vec<Option<Value>> = values
            .iter()
            .enumerate()
            .filter(|(i, _)| !variant.assumed.values.contains_key(i))
            .map(|(_, v)| v.clone())
            .collect();
        Ok(variant.session.run(&rest)?)
    }
    /// The variant whose assumptions hold, made if there is none.
    fn variant(&mut self, values: &[Option<Value>]) -> Result<usize> {
        if let Some(at) = self.variants.iter().position(|v| v.assumed.holds(values)) {
            return Ok(at);
        }
        let mut first: Option<Failure> = None;
        for assumed in self.candidates(values) {
            match self.prepare(&assumed) {
                Ok((program, warnings)) => {
                    let session = program.session()?;
                    if self.variants.len() >= KEPT {
                        self.variants.remove(0);
                    }
                    self.variants.push(Variant { assumed, warnings, program, session });
                    return Ok(self.variants.len() - 1);
                }
                // The refusal of the model as it is says most; later ones are about things we assumed.
                Err(f) if f.exit() == Exit::Unsupported || first.is_some() => {
                    first.get_or_insert(f);
                }
                Err(f) => return Err(f),
            }
        }
        Err(first
            .unwrap_or_else(|| Failure::new("internal-prepare", "no way to prepare the model was tried")))
    }
    /// What may be assumed, least first.
    fn candidates(&self, values: &[Option<Value>]) -> Vec<Assumed> {
        let mut all = Assumed::default();
        let (mut integers, mut numbers) = (BTreeMap::new(), BTreeMap::new());
        for (i, v) in values.iter().enumerate() {
            // State inputs are given once and then come from the model: nothing can be assumed of them.
            if self.states.iter().any(|(_, input)| *input == i) {
                continue;
            }
            if let Some(rank) = v.as_ref().and_then(item_rank) {
                all.items.insert(i, rank);
            }
            let Some(Value::Tensor(t)) = v else { continue };
            all.shapes.insert(i, t.shape().to_vec());
            if t.len() > SMALL || t.dtype().size() == 0 {
                continue;
            }
            if !t.dtype().is_float() {
                integers.insert(i, t.clone());
                numbers.insert(i, t.clone());
            } else if t.rank() < 2 {
                numbers.insert(i, t.clone());
            }
        }
        let mut out = vec![Assumed::default(), all.clone()];
        let mut last = 0;
        for values in [integers, numbers] {
            if values.len() > last {
                last = values.len();
                let mut rest = all.clone();
                rest.shapes.retain(|i, _| !values.contains_key(i));
                let (shapes, items) = (BTreeMap::new(), all.items.clone());
                out.push(Assumed { shapes, items, values: values.clone() });
                out.push(Assumed { values, ..rest });
            }
        }
        out
    }
    fn prepare(&self, assumed: &Assumed) -> Result<(Box<dyn Program>, Vec<Diag>)> {
        let mut load = self.load.clone();
        for (i, dims) in &assumed.shapes {
            let dims = dims.iter().map(|d| Some(*d as i64)).collect();
            load.shapes.shapes.insert(self.signature.inputs[*i].name.clone(), dims);
        }
        for (i, rank) in &assumed.items {
            load.shapes.shapes.insert(self.signature.inputs[*i].name.clone(), vec![None; *rank]);
        }
        load.constants.clone_from(&assumed.values);
        let mut model = self.file.import(&load)?;
        let found = crate::cost::too_large(&model.graph, self.options.max_memory.unwrap_or(u64::MAX));
        if !found.is_empty() {
            return Err(found.into());
        }
        for (output, input) in &self.states {
            let before = assumed.values.keys().filter(|i| *i < input).count();
            model.graph.states.push(StatePair { output: *output as u32, input: (input - before) as u32 });
        }
        if !self.states.is_empty() {
            let found = planish_ir::verify::verify(&model.graph);
            if !found.is_empty() {
                return Err(found.into());
            }
        }
        Ok((engine::prepare(self.engine, &model.graph, &self.options)?, model.warnings))
    }
}
