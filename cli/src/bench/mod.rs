//! Measuring several things in turns, so that what disturbs the machine disturbs them all.

pub mod profile;
pub mod stats;
pub mod thing;

use crate::failure::Result;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::time::{Duration, Instant};
use thing::Runner;

/// Latency of one thing, in milliseconds: the object of the contract without its names.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Latency {
    /// Half of the runs take at most this.
    pub median: f64,
    /// A tenth does.
    pub p10: f64,
    /// Nine tenths do.
    pub p90: f64,
    /// 99 of 100 do.
    pub p99: f64,
    /// The fastest run.
    pub min: f64,
}

/// What one turn of one thing gave.
#[derive(Clone, PartialEq, Debug)]
pub struct Turn {
    /// Latencies.
    pub latency: Latency,
    /// Processor time of a run, all threads together.
    pub cpu_ms: f64,
    /// The first run of the process.
    pub first_ms: f64,
    /// Recorded runs.
    pub runs: u64,
    /// What it says its arithmetic is.
    pub precision: String,
    /// If asked for: `kernels`, `accounted_ms`, `unaccounted_ms` and `peaks`, as a program prints them.
    pub profile: Option<Map<String, Value>>,
}

/// When to stop.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// Time for each thing in all.
    pub duration: Duration,
    /// Width of the interval of every ratio that is precise enough, as a part of the ratio.
    pub interval: Option<f64>,
}

/// The fewest turns: an interval of fewer medians says nothing.
const LEAST: usize = 7;

/// The most turns.
const MOST: usize = 60;

/// Measures all in turns; turn `k` of one is paired with turn `k` of every other.
pub fn alternate(
    runners: &mut [Runner],
    budget: Budget,
    stepped: &mut dyn FnMut(),
) -> Result<Vec<Vec<Turn>>> {
    let slice = (budget.duration / LEAST as u32).clamp(Duration::from_millis(50), Duration::from_secs(2));
    let mut turns: Vec<Vec<Turn>> = vec![Vec::new(); runners.len()];
    let started = Instant::now();
    let total = budget.duration * runners.len() as u32;
    for k in 0..MOST {
        // Every other round goes backwards, so that a drift favours none.
        let order: Vec<usize> =
            if k % 2 == 0 { (0..runners.len()).collect() } else { (0..runners.len()).rev().collect() };
        for i in order {
            let turn = runners[i].turn(slice)?;
            turns[i].push(turn);
        }
        stepped();
        let enough = k + 1 >= LEAST;
        let precise = budget.interval.is_some_and(|wanted| {
            turns.len() > 1
                && turns[1..].iter().all(|other| {
                    let r = stats::ratio(&medians(&turns[0]), &medians(other));
                    (r.high - r.low) <= wanted * r.ratio
                })
        });
        if enough && (precise || started.elapsed() >= total) {
            break;
        }
    }
    Ok(turns)
}

/// The median of every turn.
pub fn medians(turns: &[Turn]) -> Vec<f64> {
    turns.iter().map(|t| t.latency.median).collect()
}

/// All turns of one thing as one: medians of the turns' quantiles, the fastest run of all, the profile of the fastest
/// turn.
pub fn merge(turns: &[Turn]) -> Option<Turn> {
    let of = |f: &dyn Fn(&Turn) -> f64| stats::median(&turns.iter().map(f).collect::<Vec<f64>>());
    let first = turns.first()?;
    Some(Turn {
        latency: Latency {
            median: of(&|t| t.latency.median),
            p10: of(&|t| t.latency.p10),
            p90: of(&|t| t.latency.p90),
            p99: of(&|t| t.latency.p99),
            min: turns.iter().map(|t| t.latency.min).fold(f64::INFINITY, f64::min),
        },
        cpu_ms: of(&|t| t.cpu_ms),
        first_ms: first.first_ms,
        runs: turns.iter().map(|t| t.runs).sum(),
        precision: first.precision.clone(),
        profile: turns
            .iter()
            .filter(|t| t.profile.is_some())
            .min_by(|a, b| a.latency.median.total_cmp(&b.latency.median))
            .and_then(|t| t.profile.clone()),
    })
}
