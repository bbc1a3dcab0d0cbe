//! Training: steps that are compiled programs, over batches of samples, with held-out samples, checkpoints and pruning.

pub mod arch;
pub mod args;
mod blocks;
pub mod checkpoint;
pub mod evaluate;
pub mod jitter;
mod rhythm;
pub mod samples;
pub mod settings;
pub mod teacher;
pub mod tuning;

use crate::engine;
use crate::failure::{Failure, Result};
use crate::files::Writer;
use crate::interrupt;
use crate::ui::Ui;
use checkpoint::Checkpoint;
use evaluate::{Evaluator, Held};
use planish_ir::op::random::stream;
use planish_ir::{DType, Graph, PrepareOptions, Session, Tensor, Value};
use planish_passes::training::{Loss, Pruner, Recipe, Schedule, Step, StoredBlocks, mixture, step};
use rhythm::{Rhythm, time};
use samples::{Samples, Targets, order};
use serde::{Deserialize, Serialize};
use settings::{Keep, Settings};
use std::collections::BTreeMap;
use std::path::Path;

/// The number of the stream that decides how pictures are moved, among those of a training.
const MOVES: u64 = u64::MAX;

/// Makes the graph of the model for so many rows, or for any number.
pub type Make<'a> = dyn Fn(Option<usize>) -> Result<Graph> + 'a;

/// Where a training stands.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Standing {
    /// Epochs that are done.
    pub epoch: u32,
    /// Steps that are done, those of an epoch that has begun included.
    pub step: u64,
    /// Sum of the losses of that epoch.
    pub sum: f64,
    /// Before the first epoch.
    pub start: Option<Held>,
    /// What each epoch gave.
    pub epochs: Vec<Epoch>,
    /// The best epoch, counted from 1.
    pub best: Option<u32>,
}

/// What an epoch gave.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Epoch {
    /// Counted from 1.
    pub epoch: u32,
    /// Mean loss of its batches.
    pub loss: f64,
    /// On held-out samples.
    pub held: Option<Held>,
    /// Share of the blocks that are zero, of all tensors that are pruned.
    pub sparsity: Option<f64>,
}

/// What a training works on.
pub struct Job<'a> {
    /// The settings.
    pub settings: &'a Settings,
    /// The model.
    pub make: &'a Make<'a>,
    /// Which parameters are trained.
    pub trains: &'a dyn Fn(&str) -> bool,
    /// What is made small.
    pub loss: Loss,
    /// What is compared on held-out samples.
    pub held_loss: Loss,
    /// Samples.
    pub samples: Samples,
    /// Samples that training does not see.
    pub held: Option<Samples>,
    /// What rows are compared with instead of what the samples say.
    pub targets: Option<Targets>,
    /// Weights of a trained model, by name.
    pub reference: BTreeMap<String, Tensor>,
    /// What runs the steps, and with how many threads.
    pub engine: (&'a str, usize),
    /// Rows of a batch of a model that takes no other number.
    pub fixed: Option<usize>,
    /// A digest of everything that decides the course.
    pub course: String,
}

/// A training that runs.
pub struct Trainer<'a> {
    job: Job<'a>,
    made: Step,
    session: Box<dyn Session>,
    evaluator: Option<Evaluator<'a>>,
    pruner: Option<Pruner>,
    /// Parameters of which the step has the blocks that are kept.
    stored: Vec<StoredBlocks>,
    rates: Schedule,
    dtype: DType,
    batch: usize,
    /// Steps of an epoch.
    steps: u64,
    /// What the next step begins with, by position among the variables.
    given: BTreeMap<usize, Tensor>,
    standing: Standing,
    best: Option<BTreeMap<String, Tensor>>,
}

/// How a training ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// All epochs are done.
    Done,
    /// Nothing became better for as many epochs as were asked for.
    Early,
    /// A signal; the checkpoint is written.
    Interrupted,
}

impl<'a> Trainer<'a> {
    /// Compiles the step. `resume` is where another training of the same course stood.
    pub fn new(job: Job<'a>, resume: Option<Checkpoint>) -> Result<Trainer<'a>> {
        let settings = job.settings;
        let batch = job.fixed.unwrap_or_else(|| (settings.batch as usize).min(job.samples.len()));
        if batch == 0 || batch > job.samples.len() {
            return Err(Failure::new("train-samples", "there are too few samples to train on"));
        }
        let graph = (job.make)(Some(batch))?;
        let recipe = recipe(&job, &graph)?;
        let mut made = step(&graph, &recipe, job.trains)?;
        let steps = (job.samples.len() / batch) as u64;
        let total = steps * u64::from(settings.epochs);
        let reference = |name: &str| job.reference.get(name).cloned();
        let mut pruner = match settings.pruning()? {
            Some((prune, _)) => Some(Pruner::new(&prune, &graph, &made, total, &reference)?),
            None => None,
        };
        let rate = made.graph.inputs()[made.inputs + 1];
        let dtype = made.graph.dtype(rate).unwrap_or(DType::F32);
        let mut given: BTreeMap<usize, Tensor> =
            made.variables.iter().map(|v| v.start.clone()).enumerate().collect();
        let (mut standing, mut best) = (Standing::default(), None);
        if let Some(from) = resume {
            (standing, best) = resumed(&from, &job.course, &made, &mut given)?;
            if let Some(p) = &mut pruner {
                given.iter().for_each(|(at, t)| p.resume(*at, t));
            }
        } else if let Some(p) = &pruner {
            given.extend(p.masks()?);
        }
        let mut stored = Vec::new();
        if let Some(p) = pruner.as_ref().filter(|p| p.ended(standing.step)) {
            let now = |at: usize| {
                given
                    .get(&at)
                    .cloned()
                    .ok_or_else(|| Failure::new("internal-train", "a variable has no value"))
            };
            if let Some(new) = blocks::in_blocks(&job, &graph, (&recipe, &made), p, &now)? {
                (made, given, stored) = (new.made, new.given, new.stored);
            }
        }
        let session = prepared(&job, &made)?;
        let evaluator = job.held.clone();
        let evaluator = evaluator
            .map(|held| Evaluator::new(job.make, job.held_loss, job.trains, job.engine, (held, job.fixed)));
        let rates = settings.rates(steps)?;
        Ok(Trainer {
            job,
            made,
            session,
            evaluator,
            pruner,
            stored,
            rates,
            dtype,
            batch,
            steps,
            given,
            standing,
            best,
        })
    }
    /// Where it stands.
    pub fn standing(&self) -> &Standing {
        &self.standing
    }
    /// Number of parameters, tensors and elements.
    pub fn parameters(&self) -> (usize, usize) {
        let all = self.made.variables.iter().filter(|v| v.constant.is_some());
        all.fold((0, 0), |(n, e), v| (n + 1, e + v.start.len()))
    }
    /// Name and share of zero blocks of each tensor that is pruned.
    pub fn sparsity(&self) -> Vec<(String, f64)> {
        self.pruner.as_ref().map(Pruner::sparsity).unwrap_or_default()
    }
    /// Name and block size of each parameter of which steps have the kept blocks only.
    pub fn stored(&self) -> impl Iterator<Item = (&str, [u32; 2])> {
        self.stored.iter().map(|s| (s.name.as_str(), s.block))
    }
    fn say_stored(&self, ui: &Ui) {
        let parts = self.stored.iter().map(|s| {
            format!(
                "{} in blocks of {}x{}, {:.1}% of them",
                s.name,
                s.block[0],
                s.block[1],
                100.0 * s.share()
            )
        });
        let parts: Vec<String> = parts.collect();
        if !parts.is_empty() {
            ui.say(format!("from step {} on: {}", self.standing.step + 1, parts.join("; ")));
        }
    }
    /// Trains until the end. After every epoch `told` is called and the checkpoint is written.
    pub fn run(
        &mut self,
        checkpoint: &Path,
        writer: &Writer,
        told: &mut dyn FnMut(&Epoch),
        ui: &Ui,
    ) -> Result<End> {
        let watch = interrupt::Watch::new();
        let epochs = self.job.settings.epochs;
        let total = self.steps * u64::from(epochs);
        let progress = ui.progress("training", total - self.standing.step.min(total));
        if self.standing.start.is_none() && self.standing.step == 0 {
            self.standing.start = self.held()?;
        }
        let mut rhythm = Rhythm::new(self.batch);
        self.say_stored(ui);
        while self.standing.epoch < epochs {
            let rows = order(
                self.job.samples.len(),
                stream(self.job.settings.seed, 1 + u64::from(self.standing.epoch)),
            );
            let done = (self.standing.step - u64::from(self.standing.epoch) * self.steps) as usize;
            for part in rows.chunks_exact(self.batch).skip(done) {
                let before = self.stored.len();
                let loss = self.step(part, total)?;
                if self.stored.len() != before {
                    self.say_stored(ui);
                }
                rhythm.step(loss);
                progress.step_saying(|| self.line(&rhythm, total));
                if watch.stopped() {
                    self.checkpoint()?.write(checkpoint, writer)?;
                    progress.finish();
                    return Ok(End::Interrupted);
                }
            }
            let row = self.close()?;
            told(&row);
            self.checkpoint()?.write(checkpoint, writer)?;
            let stale = self.standing.best.map_or(0, |b| self.standing.epoch - b);
            if self.job.settings.patience.is_some_and(|p| stale >= p) {
                progress.finish();
                return Ok(End::Early);
            }
        }
        progress.finish();
        Ok(End::Done)
    }
    /// One step. An error if the loss is no number any more.
    fn step(&mut self, rows: &[usize], total: u64) -> Result<f64> {
        let mut inputs = self.job.samples.batch(rows)?;
        if let Some(jitter) = self.job.settings.jitters()? {
            inputs[0] = jitter
                .moved(&inputs[0], stream(stream(!self.job.settings.seed, MOVES), self.standing.step))?;
        }
        if let Some(targets) = &self.job.targets {
            inputs.truncate(self.made.inputs);
            inputs.push(targets.batch(rows)?.into());
        }
        inputs.push(Tensor::scalar(self.dtype, self.rates.rate(self.standing.step, total))?.into());
        if self.made.seed.is_some() {
            let seed = stream(!self.job.settings.seed, self.standing.step);
            inputs.push(Tensor::scalar_i64(seed.cast_signed()).into());
        }
        if let (Some(_), Some(annealing)) = (self.made.temperature, self.job.settings.annealing()?) {
            inputs.push(Tensor::scalar(self.dtype, annealing.temperature(self.standing.step))?.into());
        }
        let mut inputs: Vec<Option<Value>> = inputs.into_iter().map(Some).collect();
        let given = std::mem::take(&mut self.given);
        inputs.extend((0..self.made.variables.len()).map(|i| given.get(&i).cloned().map(Value::from)));
        let out = self.session.run_for(&inputs, &[self.made.outputs])?;
        let loss = out[0].tensor()?.to_f64()[0];
        self.standing.step += 1;
        if !loss.is_finite() {
            let text =
                format!("the loss is {loss} in step {}; a smaller --rate may help", self.standing.step);
            return Err(Failure::new("train-diverged", text));
        }
        self.standing.sum += loss;
        let t = self.standing.step;
        if let Some(p) = self.pruner.as_ref().filter(|p| p.looks(t)) {
            let weights = p.weights().map(|at| self.variable(at)).collect::<Result<Vec<_>>>()?;
            if let Some(p) = &mut self.pruner {
                p.look(t, &weights);
                self.given.extend(p.masks()?);
            }
        }
        if let Some(p) = self.pruner.as_ref().filter(|p| p.ended(t) && !p.ended(t - 1)) {
            let graph = (self.job.make)(Some(self.batch))?;
            let recipe = recipe(&self.job, &graph)?;
            let now = |at: usize| self.variable(at);
            if let Some(new) = blocks::in_blocks(&self.job, &graph, (&recipe, &self.made), p, &now)? {
                (self.made, self.given, self.stored) = (new.made, new.given, new.stored);
                self.session = prepared(&self.job, &self.made)?;
            }
        }
        Ok(loss)
    }
    /// Ends an epoch.
    fn close(&mut self) -> Result<Epoch> {
        self.standing.epoch += 1;
        let held = self.held()?;
        let shares = self.sparsity();
        let sparsity =
            (!shares.is_empty()).then(|| shares.iter().map(|s| s.1).sum::<f64>() / shares.len() as f64);
        let row = Epoch {
            epoch: self.standing.epoch,
            loss: self.standing.sum / self.steps.max(1) as f64,
            held,
            sparsity,
        };
        self.standing.sum = 0.0;
        self.standing.epochs.push(row.clone());
        let pruned = self.pruner.as_ref().is_none_or(|p| p.ended(self.standing.step));
        if let (true, Some(held)) = (pruned, &row.held) {
            let before = self.standing.best.and_then(|b| self.standing.epochs[b as usize - 1].held);
            if before.is_none_or(|b| held.better(&b)) {
                self.standing.best = Some(row.epoch);
                self.best = Some(self.now()?);
            }
        }
        Ok(row)
    }
    /// Loss and errors on held-out samples.
    fn held(&mut self) -> Result<Option<Held>> {
        let now = self.now()?;
        let Some(e) = &mut self.evaluator else { return Ok(None) };
        e.run(&|name| now.get(name).cloned()).map(Some)
    }
    /// Parameters as they are: pruned ones with zeros where their masks have them.
    fn now(&self) -> Result<BTreeMap<String, Tensor>> {
        let mut out = BTreeMap::new();
        for (at, v) in self.made.variables.iter().enumerate().filter(|(_, v)| v.constant.is_some()) {
            let mask = self.made.variables.iter().position(|m| m.name == format!("{}.mask", v.name));
            let mut t = self.variable(at)?;
            if let Some(mask) = mask {
                t = masked(&t, &self.variable(mask)?)?;
            }
            out.insert(v.name.clone(), blocks::whole(&self.stored, &v.name, t)?);
        }
        Ok(out)
    }
    /// What a variable is now.
    fn variable(&self, at: usize) -> Result<Tensor> {
        if let Some(t) = self.given.get(&at) {
            return Ok(t.clone());
        }
        match self.session.state(self.made.variable_input(at))? {
            Some(v) => Ok(v.tensor()?.clone()),
            None => Err(Failure::new("internal-train", "a variable has no value")),
        }
    }
    /// The parameters that are to be written: those of the best epoch, or the last.
    pub fn result(&self) -> Result<BTreeMap<String, Tensor>> {
        match (&self.best, self.job.settings.keep) {
            (Some(best), Keep::Best) => Ok(best.clone()),
            _ => self.now(),
        }
    }
    /// Everything that is needed to go on.
    fn checkpoint(&self) -> Result<Checkpoint> {
        let mut tensors = Vec::new();
        for (at, v) in self.made.variables.iter().enumerate() {
            let t = blocks::whole(&self.stored, &v.name, self.variable(at)?)?;
            tensors.push((v.name.clone(), t));
        }
        for (name, t) in self.best.iter().flatten() {
            tensors.push((format!("best:{name}"), t.clone()));
        }
        Ok(Checkpoint { tensors, standing: self.standing.clone(), course: self.job.course.clone() })
    }
    fn line(&self, rhythm: &Rhythm, total: u64) -> String {
        let s = &self.standing;
        let held = s
            .epochs
            .last()
            .and_then(|e| e.held)
            .map(|h| format!(", held out {}", h.text()))
            .unwrap_or_default();
        format!(
            "epoch {}/{}, loss {:.4}{held}, {:.0} samples/s, {} left",
            (s.epoch + 1).min(self.job.settings.epochs),
            self.job.settings.epochs,
            rhythm.loss,
            rhythm.speed(),
            time(rhythm.left(total.saturating_sub(s.step)))
        )
    }
}

/// What the step of a model does.
fn recipe(job: &Job<'_>, graph: &Graph) -> Result<Recipe> {
    let mut recipe = Recipe { loss: job.loss, ..job.settings.recipe()? };
    recipe.terms.extend(mixture::terms(graph));
    Ok(recipe)
}

/// A step that runs.
fn prepared(job: &Job<'_>, made: &Step) -> Result<Box<dyn Session>> {
    let options =
        PrepareOptions { threads: job.engine.1, seed: job.settings.seed, ..PrepareOptions::default() };
    Ok(engine::prepare(job.engine.0, &made.graph, &options)?.session()?)
}

/// Weights where the mask is not zero, and zeros.
fn masked(weights: &Tensor, mask: &Tensor) -> Result<Tensor> {
    let values =
        weights.to_f64().iter().zip(mask.to_f64()).map(|(w, m)| if m == 0.0 { 0.0 } else { *w }).collect();
    Ok(Tensor::floats(weights.dtype(), weights.shape(), values)?)
}

type Resumed = (Standing, Option<BTreeMap<String, Tensor>>);

/// Takes everything from a checkpoint.
fn resumed(
    from: &Checkpoint,
    course: &str,
    made: &Step,
    given: &mut BTreeMap<usize, Tensor>,
) -> Result<Resumed> {
    let other = |why: String| Failure::new("checkpoint-other", why);
    if from.course != course {
        return Err(other(
            "the checkpoint is of another training: model, samples and settings must be the same".into(),
        ));
    }
    let mut best = BTreeMap::new();
    for (at, v) in made.variables.iter().enumerate() {
        let fits = |t: &&Tensor| (t.dtype(), t.shape()) == (v.start.dtype(), v.start.shape());
        let t = from
            .find(&v.name)
            .filter(fits)
            .ok_or_else(|| other(format!("the checkpoint has no {:?} that fits", v.name)))?;
        given.insert(at, t.clone());
        if let (true, Some(t)) = (v.constant.is_some(), from.find(&format!("best:{}", v.name)).filter(fits)) {
            best.insert(v.name.clone(), t.clone());
        }
    }
    Ok((from.standing.clone(), (!best.is_empty()).then_some(best)))
}
