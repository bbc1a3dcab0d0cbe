//! Loss and errors of parameters on samples that training does not see.

use super::Make;
use super::samples::Samples;
use crate::accuracy::classes;
use crate::engine;
use crate::failure::Result;
use planish_ir::{PrepareOptions, Session, Tensor, Value};
use planish_passes::Threshold;
use planish_passes::training::{Loss, draws, evaluation, inferred, thresholds};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeMap;

/// The most rows of a batch.
const MOST: usize = 256;

/// What was found.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Held {
    /// Mean loss.
    pub loss: f64,
    /// Rows whose class is another, where classes are known.
    pub errors: Option<u64>,
    /// Rows that were compared.
    pub rows: u64,
    /// Share of the gates that are on, where there are any.
    #[serde(default)]
    pub density: Option<f64>,
}

impl Held {
    /// Share of the rows whose class is another.
    pub fn error(&self) -> Option<f64> {
        self.errors.map(|e| e as f64 / self.rows.max(1) as f64)
    }
    /// For people.
    pub fn text(&self) -> String {
        let on = self.density.map(|d| format!(", {:.1}% of the gates on", d * 100.0)).unwrap_or_default();
        match self.error() {
            Some(e) => format!("{:.2}% errors, loss {:.4}{on}", e * 100.0, self.loss),
            None => format!("loss {:.5}{on}", self.loss),
        }
    }
    /// For machines.
    pub fn json(&self) -> serde_json::Value {
        json!({
            "loss": self.loss,
            "error": self.error(),
            "errors": self.errors,
            "rows": self.rows,
            "density": self.density,
        })
    }
    /// Whether it is better than another: fewer errors, then a smaller loss.
    pub fn better(&self, than: &Held) -> bool {
        let key = |h: &Held| (h.error().unwrap_or(0.0), h.loss);
        let (a, b) = (key(self), key(than));
        a.0 < b.0 || (a.0 == b.0 && a.1 < b.1)
    }
}

/// Evaluates parameters on samples: a program for each size of a batch, which take parameters as inputs.
pub struct Evaluator<'a> {
    make: &'a Make<'a>,
    loss: Loss,
    trains: &'a dyn Fn(&str) -> bool,
    engine: &'a str,
    threads: usize,
    samples: Samples,
    /// Rows of a batch of a model that takes no other number; what is left of the samples then is not compared.
    fixed: Option<usize>,
    /// Of gates; none: the usual one.
    threshold: Option<f64>,
    /// By rows, and whether the threshold is an input.
    programs: BTreeMap<(usize, bool), Program>,
}

struct Program {
    session: Box<dyn Session>,
    /// Positions of the loss and of the share of the gates that are on among the outputs.
    loss: usize,
    density: Option<usize>,
    /// Position of the threshold among the inputs.
    threshold: Option<usize>,
    parameters: Vec<String>,
}

impl<'a> Evaluator<'a> {
    /// Nothing is compiled yet.
    pub fn new(
        make: &'a Make<'a>,
        loss: Loss,
        trains: &'a dyn Fn(&str) -> bool,
        engine: (&'a str, usize),
        (samples, fixed): (Samples, Option<usize>),
    ) -> Evaluator<'a> {
        Evaluator {
            make,
            loss,
            trains,
            engine: engine.0,
            threads: engine.1,
            samples,
            fixed,
            threshold: None,
            programs: BTreeMap::new(),
        }
    }
    /// Rows that are compared.
    pub fn rows(&self) -> usize {
        self.samples.len()
    }
    /// The thresholds that gates of the model may have.
    pub fn thresholds(&self) -> Result<&'static [f64]> {
        Ok(thresholds(&(self.make)(Some(1))?))
    }
    /// From now on gates compare with this threshold.
    pub fn at(&mut self, threshold: Option<f64>) -> &mut Self {
        self.threshold = threshold;
        self
    }
    /// Loss and errors of these parameters, which are found by name.
    pub fn run(&mut self, parameters: &dyn Fn(&str) -> Option<Tensor>) -> Result<Held> {
        let count = self.samples.len();
        // A size that divides the rows needs no second program for the rest.
        let divides = || (MOST / 2..=MOST).rev().find(|b| count.is_multiple_of(*b));
        let size = self.fixed.unwrap_or_else(|| divides().unwrap_or(MOST).min(count)).max(1);
        let count = if self.fixed.is_some() { count - count % size } else { count };
        let (mut sum, mut errors, mut rows, mut classified, mut on) = (0.0, 0, 0, true, None);
        let all: Vec<usize> = (0..count).collect();
        for part in all.chunks(size) {
            let mut inputs: Vec<Value> = self.samples.batch(part)?;
            let target = inputs.last().cloned();
            let at = self.threshold;
            let p = self.program(part.len())?;
            if let (Some(place), Some(t)) = (p.threshold, at) {
                inputs.insert(place, Tensor::f32s(&[], &[t as f32])?.into());
            }
            for name in &p.parameters {
                let t = parameters(name);
                let t =
                    t.ok_or_else(|| crate::Failure::new("internal-train", format!("no value for {name:?}")))?;
                inputs.push(t.into());
            }
            let inputs: Vec<Option<Value>> = inputs.into_iter().map(Some).collect();
            let wanted: Vec<usize> = [0, p.loss].into_iter().chain(p.density).collect();
            let out = p.session.run_for(&inputs, &wanted)?;
            let lost = out[1].tensor()?.to_f64()[0];
            sum += lost * part.len() as f64;
            if let Some(share) = out.get(2) {
                *on.get_or_insert(0.0) += share.tensor()?.to_f64()[0] * part.len() as f64;
            }
            let labels = target.as_ref().and_then(|t| t.tensor().ok()).filter(|t| !t.dtype().is_float());
            let said =
                labels.and_then(|l| Some((l.to_i64().ok()?, classes(out[0].tensor().ok()?, Some(l.len()))?)));
            match said {
                Some((labels, said)) => {
                    rows += labels.len() as u64;
                    errors += labels.iter().zip(&said).filter(|(a, b)| a != b).count() as u64;
                }
                None => {
                    classified = false;
                    rows += part.len() as u64;
                }
            }
        }
        let each = count.max(1) as f64;
        let density = on.map(|on: f64| on / each);
        Ok(Held { loss: sum / each, errors: classified.then_some(errors), rows, density })
    }
    fn program(&mut self, rows: usize) -> Result<&mut Program> {
        let key = (rows, self.threshold.is_some());
        if !self.programs.contains_key(&key) {
            let mut graph = (self.make)(Some(rows))?;
            let mut density = None;
            if draws(&graph) {
                let (new, has) = inferred(&graph, self.threshold.map(|_| Threshold::Input))?;
                density = has.then(|| new.outputs().len() - 1);
                graph = new;
            }
            let threshold = Threshold::place(&graph).filter(|_| key.1);
            let made = evaluation(&graph, &self.loss, self.trains)?;
            let options = PrepareOptions { threads: self.threads, ..PrepareOptions::default() };
            let session = engine::prepare(self.engine, &made.graph, &options)?.session()?;
            let program =
                Program { session, loss: made.outputs, density, threshold, parameters: made.parameters };
            self.programs.insert(key, program);
        }
        match self.programs.get_mut(&key) {
            Some(p) => Ok(p),
            None => Err(crate::Failure::new("internal-train", "a program is missing")),
        }
    }
}
