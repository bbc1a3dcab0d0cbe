//! One measurement of several things, and what comes of the budgets on it.

use super::judge::{self, Limit, Outcome, Pair};
use super::thing::{self, Kind, Runner, Thing};
use super::{Budget, Series, Turn, pin};
use crate::failure::{Failure, Result};
use crate::report::verdicts::percent;
use crate::report::{self, Measured, Paired};
use crate::ui::Ui;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A thing and how it is started.
#[derive(Clone, Debug)]
pub struct Ready {
    /// The thing.
    pub thing: Thing,
    /// The program, if it is one.
    pub program: Option<PathBuf>,
    /// The folder of `input_<i>.npy`, if there are inputs.
    pub inputs: Option<PathBuf>,
}

/// How to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// Time for each thing.
    pub duration: Duration,
    /// Width of the intervals that are precise enough.
    pub interval: Option<f64>,
    /// Threads.
    pub threads: usize,
    /// The setting of symbols, for the report.
    pub set: String,
    /// Whether programs are profiled too.
    pub profile: bool,
    /// What each thing but the first is held to.
    pub limits: Vec<Limit>,
}

/// What came of it.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Found {
    /// One for each thing.
    pub results: Vec<Measured>,
    /// One for each thing but the first.
    pub pairs: Vec<Paired>,
    /// One for each of these and each limit.
    pub budgets: Vec<report::Budget>,
}

/// The most time that profiles take.
const PROFILE: Duration = Duration::from_secs(2);

impl Ready {
    /// Arguments of a program besides those of the measurement.
    fn arguments(&self, threads: usize) -> Vec<String> {
        let mut args = vec!["--threads".to_owned(), threads.to_string()];
        if let Some(folder) = &self.inputs {
            args.extend(["--inputs".to_owned(), folder.display().to_string()]);
        }
        args
    }
    /// What measures it, and the version of a runtime that is not ours.
    fn runner(&self, threads: usize) -> Result<(Runner, Option<String>)> {
        match (&self.thing.kind, &self.program) {
            (_, Some(path)) => Ok((Runner::program(path.clone(), self.arguments(threads)), None)),
            (Kind::Ort(path), None) => {
                let folder = self.inputs.as_deref().unwrap_or(Path::new("."));
                let (runner, version) = thing::ort(path, threads, folder)?;
                Ok((runner, Some(version)))
            }
            (Kind::Command(text), None) => Ok((Runner::command(text.clone()), None)),
            (Kind::Path(path), None) => Err(Failure::usage(format!("{} cannot be measured", path.display()))),
        }
    }
}

/// Measures in turns and judges the limits. What a limit is not shown to be kept by is measured once more before that is said.
pub fn measure(things: &[Ready], o: &Options, ui: &Ui) -> Result<Found> {
    let all: Vec<usize> = (0..things.len()).collect();
    let (mut series, versions) = alternate(things, &all, o, ui)?;
    let firsts: Vec<Pair> = series[1..].iter().map(|s| judge::pair(&series[0], s, o.threads)).collect();
    let open = |p: &Pair| o.limits.iter().any(|l| judge::first(*l, p) != Outcome::Kept);
    let mut again: Vec<usize> = vec![0];
    again.extend((1..things.len()).filter(|i| open(&firsts[i - 1])));
    let mut seconds: Vec<Option<Pair>> = vec![None; firsts.len()];
    if again.len() > 1 {
        ui.detail("a budget is not shown to be kept: measuring again");
        let (more, _) = alternate(things, &again, o, ui)?;
        for (i, s) in again.iter().zip(&more).skip(1) {
            seconds[i - 1] = Some(judge::pair(&more[0], s, o.threads));
        }
        for (i, s) in again.iter().zip(more) {
            series[*i].slices.extend(s.slices);
            series[*i].processes.extend(s.processes);
        }
    }
    let mut found = Found::default();
    for ((ready, series), version) in things.iter().zip(&series).zip(versions) {
        let profile = match &ready.program {
            Some(path) if o.profile => {
                Some(thing::profile(path, &ready.arguments(o.threads), o.duration.min(PROFILE))?)
            }
            _ => None,
        };
        found.results.extend(result(ready, series, version, profile, o)?);
    }
    for ((ready, one), two) in things[1..].iter().zip(&firsts).zip(&seconds) {
        let pair = two.as_ref().map_or_else(|| one.clone(), |two| judge::join(one, two));
        for limit in &o.limits {
            let outcome = match two {
                Some(two) if judge::first(*limit, one) != Outcome::Kept => judge::confirmed(*limit, one, two),
                _ => judge::first(*limit, one),
            };
            found.budgets.push(budget(*limit, &things[0], ready, &pair, outcome, o));
        }
        found.pairs.push(paired(&things[0], ready, &pair, two.is_some(), o));
    }
    Ok(found)
}

/// Measures some of the things in turns.
fn alternate(
    things: &[Ready],
    which: &[usize],
    o: &Options,
    ui: &Ui,
) -> Result<(Vec<Series>, Vec<Option<String>>)> {
    let (mut runners, mut versions) = (Vec::new(), Vec::new());
    for i in which {
        let (runner, version) = things[*i].runner(o.threads)?;
        runners.push(runner);
        versions.push(version);
    }
    // A command may use more threads than it is told.
    let commands = which.iter().any(|i| matches!(things[*i].thing.kind, Kind::Command(_)));
    let processors = if commands { Vec::new() } else { pin::allowed() };
    let budget = Budget { duration: o.duration, interval: o.interval, threads: o.threads, processors };
    let progress = ui.progress("turns", super::TURNS);
    let series = super::alternate(&mut runners, &budget, &mut || progress.step())?;
    progress.finish();
    Ok((series, versions))
}

fn result(
    ready: &Ready,
    series: &Series,
    runtime: Option<String>,
    profile: Option<Map<String, Value>>,
    o: &Options,
) -> Result<Option<Measured>> {
    let Some(Turn { latency, cpu_ms, first_ms, runs, precision, memory }) = super::merge(&series.processes)
    else {
        return Ok(None);
    };
    let turns = |time: fn(&super::live::Slice) -> f64| -> Vec<f64> {
        let of = |s: &Vec<super::live::Slice>| super::stats::median(&s.iter().map(time).collect::<Vec<_>>());
        series.slices.iter().map(of).collect()
    };
    let mut profile = profile.unwrap_or_default();
    let mut take = |key: &str| profile.remove(key).filter(|v| !v.is_null());
    let read = |e: serde_json::Error| Failure::new("bench-malformed", format!("{}: {e}", ready.thing.label));
    let program = ready.program.as_deref();
    Ok(Some(Measured {
        schema: "planish.bench".into(),
        version: 1,
        name: ready.thing.label.clone(),
        kind: match ready.thing.kind {
            Kind::Path(_) => report::Kind::Program,
            Kind::Ort(_) => report::Kind::Onnxruntime,
            Kind::Command(_) => report::Kind::Command,
        },
        set: o.set.clone(),
        threads: o.threads,
        precision,
        runtime: runtime.map(|v| format!("onnxruntime {v}")),
        cpu_ms,
        first_ms,
        runs,
        rounds: series.slices.len(),
        throughput_per_s: 1000.0 / latency.median,
        cold_start_ms: program
            .filter(|_| ready.inputs.is_some())
            .and_then(|p| thing::cold_start(p, &ready.arguments(o.threads))),
        memory_bytes: memory,
        program_bytes: program.and_then(|p| std::fs::metadata(p).ok()).map(|m| m.len()),
        turns_ms: turns(|s| s.median_ms),
        turns_cpu_ms: turns(|s| s.cpu_ms),
        median_ms: latency.median,
        p10_ms: latency.p10,
        p90_ms: latency.p90,
        latency_ms: latency,
        kernels: take("kernels").map(serde_json::from_value).transpose().map_err(read)?,
        accounted_ms: take("accounted_ms").and_then(|v| v.as_f64()),
        unaccounted_ms: take("unaccounted_ms").and_then(|v| v.as_f64()),
        peaks: take("peaks").map(serde_json::from_value).transpose().map_err(read)?,
    }))
}

fn paired(base: &Ready, other: &Ready, pair: &Pair, remeasured: bool, o: &Options) -> Paired {
    let finite = |v: f64| v.is_finite().then_some(v);
    let r = &pair.ratio;
    // Without an upper bound there is no lower one either.
    let bounded = finite(r.high);
    Paired {
        base: base.thing.label.clone(),
        other: other.thing.label.clone(),
        threads: o.threads,
        set: o.set.clone(),
        ratio: if r.ratio.is_finite() { r.ratio } else { 0.0 },
        low: bounded.and(finite(r.low)),
        high: bounded,
        confidence: 0.95,
        detectable: finite(r.detectable),
        clock: pair.clock,
        turns: pair.logs.len(),
        remeasured,
        verdict: r.verdict(),
    }
}

fn budget(
    limit: Limit,
    base: &Ready,
    other: &Ready,
    pair: &Pair,
    outcome: Outcome,
    o: &Options,
) -> report::Budget {
    let r = &pair.ratio;
    let (name, limit, found) = match limit {
        Limit::Regression(most) => {
            let slower = |ratio: f64| percent(1.0 / ratio - 1.0);
            let found = format!("{} ({} to {})", slower(r.ratio), slower(r.high), slower(r.low));
            ("max-regression", percent(most), found)
        }
        Limit::Speedup(least) => {
            ("min-speedup", format!("{least}x"), format!("{:.3}x ({:.3}x to {:.3}x)", r.ratio, r.low, r.high))
        }
    };
    let set = if o.set.is_empty() { String::new() } else { format!(" {}", o.set) };
    report::Budget {
        budget: name.into(),
        subject: format!("{} against {}{set} ({} threads)", other.thing.label, base.thing.label, o.threads),
        limit,
        found,
        outcome,
    }
}
