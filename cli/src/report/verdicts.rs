//! Judging one report against another.

use super::{Budget, Measured, Report};
use crate::bench::judge::Outcome;
use crate::bench::stats::{self, Ratio};
use serde::Serialize;

/// What may get worse, and by how much; none is not judged.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Limits {
    /// Growth of artifacts, as a part.
    pub size: Option<f64>,
    /// Loss of accuracy, in points (of 100).
    pub accuracy: Option<f64>,
    /// Loss of speed, as a part.
    pub regression: Option<f64>,
}

/// A size in both reports.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct SizeChange {
    /// The model or program.
    pub name: String,
    /// What of it.
    pub what: &'static str,
    /// Bytes before.
    pub old: u64,
    /// Bytes now.
    pub new: u64,
    /// Growth, as a part.
    pub change: f64,
}

/// An accuracy in both reports.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct AccuracyChange {
    /// The model.
    pub name: String,
    /// What was measured.
    pub metric: String,
    /// Before, as a part of 1.
    pub old: f64,
    /// Now.
    pub new: f64,
    /// Points lost.
    pub drop_points: f64,
}

/// A speed in both reports.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct SpeedChange {
    /// The thing, with its setting of symbols.
    pub name: String,
    /// Threads.
    pub threads: usize,
    /// Median latency before.
    pub old_ms: f64,
    /// Now.
    pub new_ms: f64,
    /// Old time over new time: above 1, it has become faster.
    pub ratio: f64,
    /// Lower bound of the 95% interval; null where there were too few turns.
    pub low: Option<f64>,
    /// Upper bound.
    pub high: Option<f64>,
    /// Always false: the two were measured at different times.
    pub paired: bool,
    /// In words.
    pub verdict: String,
}

/// What has changed from one report to another.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct Changes {
    /// Whether both are from machines with the same fingerprint.
    pub same_machine: bool,
    /// Sizes.
    pub sizes: Vec<SizeChange>,
    /// Accuracies.
    pub accuracies: Vec<AccuracyChange>,
    /// Speeds.
    pub speeds: Vec<SpeedChange>,
    /// What only the old report has.
    pub gone: Vec<String>,
    /// What only the new report has.
    pub added: Vec<String>,
    /// The budgets.
    pub budgets: Vec<Budget>,
}

/// Compares two reports. Models go by their names; measurements by name, setting of symbols and threads.
pub fn compare(old: &Report, new: &Report, limits: Limits) -> Changes {
    let same_machine =
        old.machine.fingerprint == new.machine.fingerprint && !old.machine.fingerprint.is_empty();
    let mut c = Changes { same_machine, ..Changes::default() };
    for m in &new.models {
        let Some(before) = old.models.iter().find(|o| o.name == m.name) else {
            c.added.push(m.name.clone());
            continue;
        };
        let sizes = [
            ("artifact", before.sizes.artifact, m.sizes.artifact),
            ("weights", before.sizes.weights, m.sizes.weights),
            ("code", before.sizes.code, m.sizes.code),
        ];
        for (what, a, b) in sizes {
            c.sizes.extend(a.zip(b).map(|(a, b)| grown(&m.name, what, a, b)));
        }
        if let (Some(a), Some(b)) = (&before.accuracy, &m.accuracy)
            && a.metric == b.metric
        {
            c.accuracies.push(AccuracyChange {
                name: m.name.clone(),
                metric: b.metric.clone(),
                old: a.after,
                new: b.after,
                drop_points: 100.0 * (a.after - b.after),
            });
        }
    }
    c.gone.extend(
        old.models.iter().filter(|o| !new.models.iter().any(|m| m.name == o.name)).map(|o| o.name.clone()),
    );
    for r in &new.results {
        let name = key(r);
        let Some(before) = old.results.iter().find(|o| key(o) == name && o.threads == r.threads) else {
            c.added.push(format!("{name} ({} threads)", r.threads));
            continue;
        };
        let listed = c.sizes.iter().any(|s| s.name == r.name && s.what == "artifact");
        if let (Some(a), Some(b), false) = (before.program_bytes, r.program_bytes, listed) {
            c.sizes.push(grown(&r.name, "artifact", a, b));
        }
        let ratio = stats::unpaired(times(before), times(r));
        c.speeds.push(SpeedChange {
            name,
            threads: r.threads,
            old_ms: before.median_ms,
            new_ms: r.median_ms,
            ratio: if ratio.ratio.is_finite() { ratio.ratio } else { before.median_ms / r.median_ms },
            low: finite(&ratio, ratio.low),
            high: finite(&ratio, ratio.high),
            paired: false,
            verdict: ratio.verdict(),
        });
    }
    for o in &old.results {
        if !new.results.iter().any(|r| key(r) == key(o) && r.threads == o.threads) {
            c.gone.push(format!("{} ({} threads)", key(o), o.threads));
        }
    }
    c.budgets = judge(&c, limits);
    c
}

/// The name of a measurement with the setting of symbols.
fn key(r: &Measured) -> String {
    if r.set.is_empty() { r.name.clone() } else { format!("{} {}", r.name, r.set) }
}

/// The times of the turns, of the clock that both have.
fn times(r: &Measured) -> &[f64] {
    &r.turns_ms
}

/// A bound, if the interval has any.
fn finite(ratio: &Ratio, bound: f64) -> Option<f64> {
    (ratio.ratio.is_finite() && bound.is_finite() && ratio.high.is_finite()).then_some(bound)
}

fn grown(name: &str, what: &'static str, old: u64, new: u64) -> SizeChange {
    let change = if old == 0 { 0.0 } else { new as f64 / old as f64 - 1.0 };
    SizeChange { name: name.to_owned(), what, old, new, change }
}

/// One budget for each thing that a limit is about; a limit that nothing in the reports is about is undecided.
fn judge(c: &Changes, limits: Limits) -> Vec<Budget> {
    let mut out = Vec::new();
    let mut add = |budget: &str, subject: &str, limit: String, found: String, outcome: Outcome| {
        let (budget, subject) = (budget.to_owned(), subject.to_owned());
        out.push(Budget { budget, subject, limit, found, outcome });
    };
    let when = |bad: bool| if bad { Outcome::Violated } else { Outcome::Kept };
    if let Some(most) = limits.size {
        let limit = percent(most);
        let mut none = true;
        for s in c.sizes.iter().filter(|s| s.what == "artifact") {
            none = false;
            add("max-size", &s.name, limit.clone(), percent(s.change), when(s.change > most));
        }
        if none {
            add("max-size", "", limit, String::new(), Outcome::Undecided);
        }
    }
    if let Some(most) = limits.accuracy {
        let limit = points(most);
        for a in &c.accuracies {
            // Differences of fractions have rounding errors; a thousandth of a point is none.
            let bad = a.drop_points > most + 1e-9;
            add("max-accuracy-drop", &a.name, limit.clone(), points(a.drop_points), when(bad));
        }
        if c.accuracies.is_empty() {
            add("max-accuracy-drop", "", limit, String::new(), Outcome::Undecided);
        }
    }
    if let Some(most) = limits.regression {
        let limit = percent(most);
        for s in &c.speeds {
            let high = s.high.unwrap_or(f64::INFINITY);
            let low = s.low.unwrap_or(0.0);
            let outcome = if high < 1.0 / (1.0 + most) {
                Outcome::Violated
            } else if low >= 1.0 / (1.0 + most) {
                Outcome::Kept
            } else {
                Outcome::Undecided
            };
            let name = format!("{} ({} threads)", s.name, s.threads);
            add("max-regression", &name, limit.clone(), percent(1.0 / s.ratio - 1.0), outcome);
        }
        if c.speeds.is_empty() {
            add("max-regression", "", limit, String::new(), Outcome::Undecided);
        }
    }
    out
}

/// A part as percent.
pub fn percent(part: f64) -> String {
    format!("{:.1}%", part * 100.0)
}

/// Points with their unit.
pub fn points(points: f64) -> String {
    format!("{points:.2}pt")
}
