//! The threshold of gates: errors, arithmetic and time over all that it may be, and the choice.

use super::evaluate::Held;
use super::samples::Samples;
use super::{Make, Trainer};
use crate::engine;
use crate::failure::Result;
use crate::pipeline::{PassArgs, Phase, Plan};
use crate::ui::Ui;
use planish_ir::{Graph, PrepareOptions, Session, Tensor, Value};
use planish_passes::Threshold;
use planish_passes::training::{Work, finished, with_values, work};
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use std::time::Instant;

/// A threshold and what it gives on held-out samples.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Point {
    /// The threshold.
    pub threshold: f64,
    /// Loss, errors and density.
    pub held: Held,
    /// Floating-point operations of a row that are executed.
    pub executed: Option<f64>,
    /// Time of a row.
    pub latency: Option<Latency>,
}

/// The time of single runs, in milliseconds.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Latency {
    /// Mean.
    pub mean: f64,
    /// 99 of 100 are not above it.
    pub p99: f64,
}

/// A threshold of gates that was chosen.
#[derive(Clone, PartialEq, Debug)]
pub struct Tuned {
    /// All that were tried, ascending.
    pub curve: Vec<Point>,
    /// Which of them was chosen.
    place: usize,
    /// Floating-point operations of one row, where gates leave any out.
    pub work: Option<Work>,
}

/// By how much the share of the gates that is on differs between points that are shown.
const APART: f64 = 0.02;

impl Trainer<'_> {
    /// The threshold of gates that [`choose`] takes, with at most this share of them on, and what all give on held-out samples. None where there is nothing to
    /// choose. The time of so many runs with a held-out sample each is measured.
    pub fn threshold(&mut self, most: f64, timed: usize, ui: &Ui) -> Result<Option<Tuned>> {
        let values = self.result()?;
        let rows = self.job.fixed.unwrap_or(1);
        let work = work(&(self.job.make)(Some(rows))?).map(|w| w.of_each(rows));
        let Some(e) = &mut self.evaluator else { return Ok(None) };
        let mut curve = Vec::new();
        let all = e.thresholds()?;
        let progress = ui.progress("thresholds", all.len() as u64);
        for threshold in all.iter().copied() {
            let held = e.at(Some(threshold)).run(&|name| values.get(name).cloned())?;
            let executed = work.zip(held.density).map(|(w, d)| w.executed(d));
            curve.push(Point { threshold, held, executed, latency: None });
            progress.step();
        }
        progress.finish();
        let drop = self.job.settings.max_accuracy_drop.unwrap_or(0.0);
        let Some(place) = choose(&curve, most, drop) else { return Ok(None) };
        if let Some(held) = self.job.held.as_ref().filter(|_| timed > 0) {
            let mut program = Timed::new(self.job.make, &values, (self.job.engine.0, rows))?;
            let found = program.measure(held, timed, &curve, ui)?;
            curve.iter_mut().zip(found).for_each(|(p, latency)| p.latency = Some(latency));
        }
        Ok(Some(Tuned { curve, place, work }))
    }
}

/// Which of the points with at most the share `most` of the gates on, the one with the fewest errors; with `drop` above 0 the one with the fewest gates on among those with at
/// most so many percentage points of errors more. If none has so few gates on, the one with the fewest.
fn choose(curve: &[Point], most: f64, drop: f64) -> Option<usize> {
    let on = |i: usize| curve[i].held.density.unwrap_or(1.0);
    // The first one of equals.
    let sparsest = |a: usize, b: usize| if on(b) < on(a) { b } else { a };
    let few = || (0..curve.len()).filter(|i| on(*i) <= most);
    let fewest = few().reduce(|a, b| if curve[b].held.better(&curve[a].held) { b } else { a });
    let Some(fewest) = fewest else { return (0..curve.len()).reduce(sparsest) };
    let (Some(least), true) = (curve[fewest].held.error(), drop > 0.0) else { return Some(fewest) };
    let near = |i: &usize| curve[*i].held.error().is_some_and(|e| e <= least + drop / 100.0 + 1e-12);
    few().filter(near).reduce(sparsest)
}

/// The program as it will be executed, on one thread, with the threshold as its last input.
struct Timed {
    session: Box<dyn Session>,
    rows: usize,
}

impl Timed {
    fn new(
        make: &Make<'_>,
        values: &BTreeMap<String, Tensor>,
        (engine, rows): (&str, usize),
    ) -> Result<Timed> {
        let mut graph: Graph = with_values(&make(Some(rows))?, values)?;
        finished(&mut graph, Some(Threshold::Input))?;
        let columns = vec!["insert-gates:kind=columns".to_owned()];
        let plan = Plan::new(&PassArgs { pass: columns, ..PassArgs::default() }, Phase::Compressed)?;
        plan.compress(&mut graph, &mut |_| {})?;
        let options = PrepareOptions { threads: 1, ..PrepareOptions::default() };
        Ok(Timed { session: engine::prepare(engine, &graph, &options)?.session()?, rows })
    }
    /// Thresholds take turns, sample after sample.
    fn measure(&mut self, samples: &Samples, count: usize, curve: &[Point], ui: &Ui) -> Result<Vec<Latency>> {
        let progress = ui.progress("measuring", count as u64 + 1);
        let mut times: Vec<Vec<f64>> = vec![Vec::with_capacity(count); curve.len()];
        let all: Vec<usize> = (0..samples.len()).collect();
        // The first round warms up.
        let parts = all.chunks_exact(self.rows).cycle();
        for (k, part) in parts.take(if all.len() < self.rows { 0 } else { count + 1 }).enumerate() {
            let mut inputs: Vec<Option<Value>> = samples.batch(part)?.into_iter().map(Some).collect();
            for (point, times) in curve.iter().zip(&mut times) {
                let threshold = Tensor::f32s(&[], &[point.threshold as f32])?;
                if let Some(last) = inputs.last_mut() {
                    *last = Some(threshold.into());
                }
                let start = Instant::now();
                self.session.run(&inputs)?;
                if k > 0 {
                    times.push(start.elapsed().as_secs_f64() * 1e3);
                }
            }
            progress.step();
        }
        progress.finish();
        Ok(times.into_iter().map(Latency::of).collect())
    }
}

impl Latency {
    fn of(mut times: Vec<f64>) -> Latency {
        times.sort_by(f64::total_cmp);
        let mean = times.iter().sum::<f64>() / times.len().max(1) as f64;
        let rank = (times.len() as f64 * 0.99).ceil() as usize;
        Latency { mean, p99: times.get(rank.max(1) - 1).copied().unwrap_or(0.0) }
    }
}

impl Point {
    /// For machines.
    pub fn json(&self) -> Json {
        let mut row = self.held.json();
        row["threshold"] = json!(self.threshold);
        row["flops"] = json!(self.executed);
        row["latency_ms"] = json!(self.latency.map(|l| json!({"mean": l.mean, "p99": l.p99})));
        row
    }
}

impl Tuned {
    /// What was chosen.
    pub fn chosen(&self) -> &Point {
        &self.curve[self.place]
    }
    /// What gates cost, for machines.
    pub fn gates(&self) -> Json {
        json!(self.work.map(|w| json!({"flops": w.all, "deciding_flops": w.gates, "gated_flops": w.gated})))
    }
    /// For people, line after line: the chosen threshold, the last one, and those between which the share of the gates that is on changes.
    pub fn text(&self) -> Vec<String> {
        let mut out = vec![format!("threshold {}, of these:", self.chosen().threshold)];
        let on = |p: &Point| p.held.density.unwrap_or(0.0);
        let mut shown: Option<f64> = None;
        for (i, p) in self.curve.iter().enumerate() {
            let last = i == self.place || i + 1 == self.curve.len();
            if !last && shown.is_some_and(|d| (on(p) - d).abs() < APART) {
                continue;
            }
            shown = Some(on(p));
            let share =
                |w: Work| p.executed.map(|e| format!(", {:.1}% of the operations", 100.0 * e / w.all));
            let executed = self.work.and_then(share).unwrap_or_default();
            let time = |l: Latency| format!(", {:.4} ms, p99 {:.4}", l.mean, l.p99);
            let time = p.latency.map(time).unwrap_or_default();
            out.push(format!("  {:>5}  {}{executed}{time}", p.threshold, p.held.text()));
        }
        if let Some(w) = self.work {
            out.push(format!(
                "a row takes {:.0} floating-point operations with all gates on; {:.1}% of them decide, {:.1}% are left out where all are off",
                w.all,
                100.0 * w.gates / w.all,
                100.0 * w.gated / w.all
            ));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_respect_shares_and_drops() {
        let point = |threshold: f64, errors: u64, density: f64| {
            let held = Held { loss: 0.0, errors: Some(errors), rows: 100, density: Some(density) };
            Point { threshold, held, executed: None, latency: None }
        };
        let curve = [point(0.1, 5, 0.9), point(0.2, 4, 0.5), point(0.3, 6, 0.3), point(0.4, 9, 0.2)];
        let chosen = |most: f64, drop: f64| choose(&curve, most, drop).map(|i| curve[i].threshold);
        assert_eq!(chosen(1.0, 0.0), Some(0.2));
        assert_eq!(chosen(1.0, 1.9), Some(0.2));
        assert_eq!(chosen(1.0, 2.0), Some(0.3));
        assert_eq!(chosen(0.4, 0.0), Some(0.3));
        assert_eq!(chosen(0.4, 5.0), Some(0.4));
        assert_eq!(chosen(0.1, 0.0), Some(0.4));
        assert_eq!(choose(&[], 1.0, 1.0), None);
    }

    #[test]
    fn p99_is_the_nearest_rank() {
        let l = Latency::of((1..=200).rev().map(f64::from).collect());
        assert_eq!((l.mean, l.p99), (100.5, 198.0));
        assert_eq!(Latency::of(vec![3.0]), Latency { mean: 3.0, p99: 3.0 });
        assert_eq!(Latency::of(Vec::new()), Latency { mean: 0.0, p99: 0.0 });
    }
}
