//! Accuracy before and after passes that change results, on samples that the passes did not see.
//!
//! With labels it is the part of rows whose largest output is the labelled one (top-1). Without, it is a proxy: how often the largest
//! output is the same as before, or, for outputs that are no scores of classes, the ratio of signal to noise.

use crate::data::Data;
use crate::engine;
use crate::failure::{Failure, Result};
use crate::ui::Ui;
use planish_ir::{DType, Diag, Graph, PrepareOptions, Session, Tensor, Value};
use serde_json::json;

/// Of a normal distribution, beyond which 5% lie.
const Z: f64 = 1.959_963_984_540_054;

/// What was found.
#[derive(Clone, PartialEq, Debug)]
pub struct Accuracy {
    /// What was counted.
    pub metric: Metric,
    /// Of the model as it was given.
    pub before: Option<f64>,
    /// Of the result.
    pub after: f64,
    /// Rows that were compared; of ratios of signal to noise the runs.
    pub samples: u64,
    /// 95% interval of `after - before`; of `after` where there is no `before`.
    pub interval: Option<[f64; 2]>,
    /// Ratio of signal to noise of each output in dB, by name; infinite where nothing differs.
    pub snr: Vec<(String, f64)>,
    /// Whether passes did not see these samples.
    pub held_out: bool,
    /// Where the samples are from.
    pub path: String,
}

/// What accuracy is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Metric {
    /// Part of the rows whose class is the labelled one.
    Top1,
    /// Part of the rows whose class is that of the model as it was given.
    Agreement,
    /// Ratio of signal to noise, dB, of the worst output.
    Snr,
}

impl Metric {
    /// Its name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Metric::Top1 => "top1",
            Metric::Agreement => "agreement",
            Metric::Snr => "snr",
        }
    }
    /// Whether it measures accuracy, or stands for it.
    pub fn class(self) -> &'static str {
        if self == Metric::Top1 { "measured" } else { "proxy" }
    }
}

/// Counts over pairs of runs.
#[derive(Clone, Debug, Default)]
struct Counts {
    runs: u64,
    rows: u64,
    labelled: u64,
    before: u64,
    after: u64,
    /// Rows that only one of the two has right.
    lost: u64,
    won: u64,
    same: u64,
    /// For each output signal and noise.
    power: Vec<[f64; 2]>,
    /// Whether the first output has scores of classes.
    scores: bool,
}

/// The class of each row of scores: the first of the largest along the last axis; of a single score whether it is above a half.
pub(crate) fn classes(t: &Tensor, rows: Option<usize>) -> Option<Vec<i64>> {
    if !t.dtype().is_float() || t.is_empty() {
        return None;
    }
    let last = *t.shape().last()?;
    let rows = rows.unwrap_or_else(|| t.len() / last.max(1));
    if rows == 0 || !t.len().is_multiple_of(rows) {
        return None;
    }
    let values = t.to_f64();
    let class = |row: &[f64]| match row {
        [score] => i64::from(*score > 0.5),
        row => {
            let best = row.iter().enumerate().fold(0, |b, (i, x)| if *x > row[b] { i } else { b });
            best as i64
        }
    };
    Some(values.chunks_exact(t.len() / rows).map(class).collect())
}

impl Counts {
    fn add(&mut self, old: &[Value], new: &[Value], labels: Option<&[i64]>) -> Result<()> {
        self.runs += 1;
        self.power.resize(old.len(), [0.0; 2]);
        for ((a, b), p) in old.iter().zip(new).zip(&mut self.power) {
            let (Value::Tensor(a), Value::Tensor(b)) = (a, b) else { continue };
            if a.dtype() == DType::Str || a.shape() != b.shape() {
                continue;
            }
            for (x, y) in a.to_f64().iter().zip(b.to_f64()) {
                if x.is_finite() && y.is_finite() {
                    p[0] += x * x;
                    p[1] += (x - y).powi(2);
                }
            }
        }
        let first = |v: &[Value]| v.first().and_then(|v| v.tensor().ok().cloned());
        let (Some(a), Some(b)) = (first(old), first(new)) else { return Ok(()) };
        let rows = labels.map(<[i64]>::len);
        let (Some(a), Some(b)) = (classes(&a, rows), classes(&b, rows)) else {
            if let Some(n) = rows {
                let text = format!("{n} labels for an output of shape {:?}", a.shape());
                return Err(Failure::new("label-malformed", text));
            }
            return Ok(());
        };
        self.rows += a.len() as u64;
        self.same += a.iter().zip(&b).filter(|(a, b)| a == b).count() as u64;
        for ((a, b), l) in a.iter().zip(&b).zip(labels.unwrap_or_default()) {
            self.labelled += 1;
            let (old, new) = (a == l, b == l);
            self.before += u64::from(old);
            self.after += u64::from(new);
            self.lost += u64::from(old && !new);
            self.won += u64::from(!old && new);
        }
        Ok(())
    }
    fn accuracy(self, names: Vec<String>, held_out: bool, path: String) -> Accuracy {
        let db = |p: &[f64; 2]| if p[1] == 0.0 { f64::INFINITY } else { 10.0 * (p[0] / p[1]).log10() };
        let snr: Vec<(String, f64)> = names.into_iter().zip(self.power.iter().map(db)).collect();
        let part = |k: u64, n: u64| k as f64 / n.max(1) as f64;
        let (metric, before, after, samples, interval) = if self.labelled > 0 {
            let n = self.labelled;
            let interval = paired(self.lost, self.won, n);
            (Metric::Top1, Some(part(self.before, n)), part(self.after, n), n, Some(interval))
        } else if self.scores && self.rows > 0 {
            let interval = wilson(self.same, self.rows);
            (
                Metric::Agreement,
                Some(1.0),
                part(self.same, self.rows),
                self.rows,
                Some(interval.map(|x| x - 1.0)),
            )
        } else {
            let worst = snr.iter().map(|(_, s)| *s).fold(f64::INFINITY, f64::min);
            (Metric::Snr, None, worst, self.runs, None)
        };
        Accuracy { metric, before, after, samples, interval, snr, held_out, path }
    }
}

/// 95% interval of a part (Wilson).
fn wilson(k: u64, n: u64) -> [f64; 2] {
    let (n, p) = (n.max(1) as f64, k as f64 / n.max(1) as f64);
    let middle = p + Z * Z / (2.0 * n);
    let reach = Z * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
    let scale = 1.0 + Z * Z / n;
    [((middle - reach) / scale).max(0.0), ((middle + reach) / scale).min(1.0)]
}

/// 95% interval of the difference of two parts of the same `n` rows: `won` became right and `lost` wrong (Wald with the correction of
/// Bonett and Price, which adds one to either).
fn paired(lost: u64, won: u64, n: u64) -> [f64; 2] {
    let m = n as f64 + 2.0;
    let (lost, won) = ((lost as f64 + 1.0) / m, (won as f64 + 1.0) / m);
    let middle = won - lost;
    let reach = Z * ((won + lost - middle * middle) / m).sqrt();
    [(middle - reach).max(-1.0), (middle + reach).min(1.0)]
}

/// Runs both graphs on the samples. `held_out`: passes have not seen them.
pub fn compare(before: &Graph, after: &Graph, data: &Data, held_out: bool, ui: &Ui) -> Result<Accuracy> {
    let options = PrepareOptions { threads: engine::default_threads(), ..PrepareOptions::default() };
    let open = |graph: &Graph| -> Result<Box<dyn Session>> {
        let program = engine::prepare(engine::default_engine(), &data.stateful(graph)?, &options)?;
        Ok(program.session()?)
    };
    let (mut old, mut new) = (open(before)?, open(after)?);
    let progress = ui.progress("accuracy: samples", data.len() as u64);
    let scores = before.outputs().first().and_then(|v| before.dims(*v)).is_some_and(|d| d.len() <= 2);
    let mut counts = Counts { scores, ..Counts::default() };
    for k in 0..data.len() {
        let sample = data.sample(k)?;
        if data.begins(k) {
            old.reset();
            new.reset();
        }
        let about = |d: Diag| sample.failed(d).about(&data.path);
        let (x, y) = (old.run(&sample.values).map_err(about)?, new.run(&sample.values).map_err(about)?);
        let added = counts.add(&x.values, &y.values, sample.labels.as_deref());
        added.map_err(|f| sample.failed(f).about(&data.path))?;
        progress.step();
    }
    progress.finish();
    let names = (0..before.outputs().len()).map(|i| before.output_name(i).to_owned()).collect();
    Ok(counts.accuracy(names, held_out, data.path.clone()))
}

impl Accuracy {
    /// For scripts. Ratios that are infinite are `null`.
    pub fn json(&self) -> serde_json::Value {
        let finite = |x: f64| x.is_finite().then_some(x);
        let outputs: Vec<_> =
            self.snr.iter().map(|(n, s)| json!({"name": n, "snr_db": finite(*s)})).collect();
        json!({
            "metric": self.metric.name(),
            "class": self.metric.class(),
            "before": self.before,
            "after": finite(self.after),
            "samples": self.samples,
            "low": self.interval.map(|i| i[0]),
            "high": self.interval.map(|i| i[1]),
            "held_out": self.held_out,
            "data": self.path,
            "outputs": outputs,
        })
    }
    /// For people.
    pub fn text(&self) -> String {
        let seen = match self.held_out {
            true => "",
            false => ", which the passes have seen too",
        };
        let unit = if self.metric == Metric::Snr { "samples" } else { "rows" };
        let on = format!("{} {unit} of {}{seen}", self.samples, self.path);
        let [low, high] = self.interval.unwrap_or_default().map(|x| x * 100.0);
        let before = self.before.unwrap_or_default() * 100.0;
        let after = self.after * 100.0;
        match self.metric {
            Metric::Top1 => format!(
                "accuracy (top-1): {before:.2}% -> {after:.2}%, {:+.2} points ({low:+.2} to {high:+.2} with 95% confidence), on {on}",
                after - before
            ),
            Metric::Agreement => format!(
                "a proxy of accuracy, no labels: {after:.2}% of the classes are as before ({:.2}% to {:.2}% with 95% confidence), on {on}",
                low + 100.0,
                high + 100.0
            ),
            Metric::Snr => format!(
                "a proxy of accuracy, no labels: ratio of signal to noise {:.1} dB, on {on}",
                self.after
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scores(rows: &[[f32; 3]]) -> Vec<Value> {
        match Tensor::f32s(&[rows.len(), 3], rows.as_flattened()) {
            Ok(t) => vec![t.into()],
            Err(d) => panic!("{d}"),
        }
    }

    #[test]
    fn rows_are_counted_against_labels() {
        let a = [[0.1, 0.9, 0.0], [0.5, 0.2, 0.1], [0.0, 0.0, 1.0], [0.3, 0.2, 0.1]];
        let b = [[0.1, 0.9, 0.0], [0.1, 0.2, 0.1], [0.0, 2.0, 1.0], [0.3, 0.2, 0.1]];
        let mut c = Counts::default();
        assert!(c.add(&scores(&a), &scores(&b), Some(&[1, 1, 2, 2])).is_ok());
        assert_eq!((c.before, c.after, c.lost, c.won, c.same), (2, 2, 1, 1, 2));
        let all = c.accuracy(vec!["y".into()], true, "d".into());
        assert_eq!((all.metric, all.before, all.after, all.samples), (Metric::Top1, Some(0.5), 0.5, 4));
        let [low, high] = all.interval.unwrap_or_default();
        assert!(low < -0.4 && high > 0.4 && (low + high).abs() < 1e-12);
        assert!(all.text().contains("+0.00 points"), "{}", all.text());
        assert_eq!(all.json()["class"], "measured");
        let mut wrong = Counts::default();
        let failed = wrong.add(&scores(&a), &scores(&b), Some(&[1; 5])).err().map(|f| f.diags[0].id);
        assert_eq!(failed, Some("label-malformed"));
    }

    #[test]
    fn without_labels_it_is_called_a_proxy() {
        let a = [[0.1, 0.9, 0.0], [0.5, 0.2, 0.1]];
        let b = [[0.1, 0.9, 0.0], [0.1, 0.2, 0.1]];
        for (is_scores, metric) in [(true, Metric::Agreement), (false, Metric::Snr)] {
            let mut c = Counts { scores: is_scores, ..Counts::default() };
            assert!(c.add(&scores(&a), &scores(&b), None).is_ok());
            let all = c.accuracy(vec!["y".into()], false, "d".into());
            assert_eq!((all.metric, all.metric.class()), (metric, "proxy"));
            assert!(all.text().starts_with("a proxy") && all.text().contains("seen too"), "{}", all.text());
            let want = 10.0 * (1.12f64 / 0.16).log10();
            assert!((all.snr[0].1 - want).abs() < 1e-5, "{:?}", all.snr);
        }
        let mut same = Counts::default();
        assert!(same.add(&scores(&a), &scores(&a), None).is_ok());
        let json = same.accuracy(vec!["y".into()], true, "d".into()).json();
        assert_eq!((&json["after"], &json["low"]), (&json!(null), &json!(null)));
    }

    #[test]
    fn intervals_are_those_of_the_tables() {
        let close = |a: [f64; 2], b: [f64; 2]| a.iter().zip(b).all(|(x, y)| (x - y).abs() < 5e-4);
        // Wilson's interval of 8 of 10.
        assert!(close(wilson(8, 10), [0.4902, 0.9433]), "{:?}", wilson(8, 10));
        assert!(close(wilson(0, 0), [0.0, 0.7935]), "{:?}", wilson(0, 0));
        // Nothing changed in 1000 rows.
        let [low, high] = paired(0, 0, 1000);
        assert!((low + high).abs() < 1e-12 && (0.002..0.004).contains(&high));
    }

    #[test]
    fn one_score_is_a_class_by_a_half() {
        let t = |v: &[f32]| Tensor::f32s(&[v.len(), 1], v).ok();
        assert_eq!(t(&[0.4, 0.6]).and_then(|t| classes(&t, None)), Some(vec![0, 1]));
        assert_eq!(t(&[]).and_then(|t| classes(&t, None)), None);
    }
}
