//! Ranges of values over the samples of `--data`, for passes.

use crate::data::Data;
use crate::engine;
use crate::synthetic;
use planish_ir::{Diag, Editor, Elems, Graph, PrepareOptions, Tensor, Value, ValueId};
use planish_passes::{Calibrate, Cover, Samples};

/// Samples made up where the user asks for that.
const MADE_UP: u64 = 4;
/// Size of free symbols in samples that are made up.
const SIZE: i64 = 64;
/// Bins of a histogram.
const BINS: usize = 4096;

/// Runs graphs on samples with the default engine.
#[derive(Clone, Debug, Default)]
pub struct Calibrator {
    data: Option<Data>,
}

impl Calibrator {
    /// On these samples.
    pub fn new(data: Option<Data>) -> Calibrator {
        Calibrator { data }
    }
}

/// Counts of values in equal bins from `-limit` to `limit`; doubles the limit when a value does not fit, so that its size does not
/// depend on how many values there are.
#[derive(Clone, Debug)]
struct Histogram {
    limit: f64,
    bins: Vec<u64>,
    low: f64,
    high: f64,
}

impl Histogram {
    fn new() -> Histogram {
        Histogram { limit: 0.0, bins: vec![0; BINS], low: f64::INFINITY, high: f64::NEG_INFINITY }
    }
    /// Counts finite values.
    fn add(&mut self, values: &[f64]) {
        for x in values.iter().copied().filter(|x| x.is_finite()) {
            self.low = self.low.min(x);
            self.high = self.high.max(x);
            if x.abs() > self.limit {
                self.widen(x.abs());
            }
            if self.limit > 0.0 {
                let at = ((x / self.limit + 1.0) * 0.5 * BINS as f64) as usize;
                self.bins[at.min(BINS - 1)] += 1;
            } else {
                self.bins[BINS / 2] += 1;
            }
        }
    }
    fn widen(&mut self, to: f64) {
        if self.limit == 0.0 {
            self.limit = to.max(f64::MIN_POSITIVE).log2().ceil().exp2();
            return;
        }
        while self.limit < to {
            let mut wide = vec![0; BINS];
            for (i, n) in self.bins.iter().enumerate() {
                wide[BINS / 4 + i / 2] += n;
            }
            self.bins = wide;
            self.limit *= 2.0;
        }
    }
    fn range(&self, cover: Cover) -> [f64; 2] {
        if self.low > self.high {
            return [0.0, 0.0];
        }
        let Cover::Percent(percent) = cover else { return [self.low, self.high] };
        let total: u64 = self.bins.iter().sum();
        let outside = (total as f64 * (1.0 - percent / 100.0) / 2.0) as u64;
        let edge = |i: usize| (i as f64 / BINS as f64 * 2.0 - 1.0) * self.limit;
        let beyond = |bins: &mut dyn Iterator<Item = &u64>| {
            let mut seen = 0;
            bins.take_while(|n| {
                seen += **n;
                seen <= outside
            })
            .count()
        };
        let below = beyond(&mut self.bins.iter());
        let above = beyond(&mut self.bins.iter().rev());
        [edge(below).max(self.low), edge(BINS - above).min(self.high)]
    }
}

impl Calibrate for Calibrator {
    fn ranges(
        &self,
        graph: &Graph,
        values: &[ValueId],
        samples: Samples,
        cover: Cover,
    ) -> Result<Vec<[f64; 2]>, Diag> {
        let mut found = vec![Histogram::new(); values.len()];
        self.stream(graph, values, samples, &mut |seen| {
            for (h, t) in found.iter_mut().zip(seen) {
                if let Elems::F(x) = t.elems() {
                    h.add(&x);
                }
            }
            Ok(())
        })?;
        Ok(found.iter().map(|h| h.range(cover)).collect())
    }
    fn stream(
        &self,
        graph: &Graph,
        values: &[ValueId],
        samples: Samples,
        visit: &mut dyn FnMut(&[&Tensor]) -> Result<(), Diag>,
    ) -> Result<(), Diag> {
        let first = |mut f: crate::failure::Failure| f.diags.swap_remove(0);
        let data: Vec<Vec<Value>> = match (samples, &self.data) {
            (Samples::Given, Some(d)) => d.samples.iter().map(|s| s.values.clone()).collect(),
            (Samples::Given, None) => {
                let text =
                    "this pass needs samples: give --data, or samples=synthetic for measurements of speed";
                return Err(Diag::error("calibration-missing", text));
            }
            (Samples::Synthetic, _) => {
                let symbols = synthetic::symbols(graph, SIZE);
                (0..MADE_UP)
                    .map(|seed| synthetic::inputs(graph, &symbols, seed))
                    .collect::<Result<_, _>>()
                    .map_err(first)?
            }
        };
        // The values as further results: what is compiled then is what runs otherwise.
        let mut watched = graph.clone();
        let outputs = watched.outputs().len();
        let mut ed = Editor::new(&mut watched);
        for v in values {
            ed.output(*v, None);
        }
        let options = PrepareOptions { threads: engine::default_threads(), ..PrepareOptions::default() };
        let program = engine::prepare(engine::default_engine(), &watched, &options).map_err(first)?;
        let mut session = program.session()?;
        for sample in data {
            let inputs: Vec<Option<Value>> = sample.into_iter().map(Some).collect();
            let run = session.run(&inputs)?;
            let seen =
                run.values.iter().skip(outputs).map(Value::tensor).collect::<Result<Vec<&Tensor>, Diag>>()?;
            visit(&seen)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_cover_what_they_say() {
        let mut h = Histogram::new();
        assert_eq!(h.range(Cover::All), [0.0, 0.0]);
        let values: Vec<f64> = (0..10_000).map(|i| f64::from(i) / 10_000.0).collect();
        h.add(&values);
        h.add(&[-100.0, 50.0, f64::NAN, f64::INFINITY]);
        assert_eq!(h.range(Cover::All), [-100.0, 50.0]);
        let [low, high] = h.range(Cover::Percent(99.9));
        assert!((-0.1..=0.0).contains(&low) && (0.95..1.1).contains(&high), "{low} {high}");
        let mut zeros = Histogram::new();
        zeros.add(&[0.0; 5]);
        assert_eq!(zeros.range(Cover::Percent(99.0)), [0.0, 0.0]);
    }
}
