//! Measuring several things in turns, so that what disturbs the machine disturbs them all.
//!
//! A *turn* starts every program anew, because where a process comes to lie in memory and caches changes its speed for as
//! long as it lives. Within a turn the things take *slices* of some milliseconds, one after the other, so that the slices of
//! a pair see the same machine. The first run of a slice, which finds the caches full of the other's data, is not recorded.

pub mod judge;
pub mod live;
pub mod pin;
pub mod profile;
pub mod run;
pub mod stats;
pub mod thing;

use crate::failure::Result;
use live::Slice;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};
use thing::Runner;

/// Latency in milliseconds.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
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

/// What one process of a thing says about all its runs.
#[derive(Clone, PartialEq, Debug)]
pub struct Turn {
    /// Latencies.
    pub latency: Latency,
    /// Processor time of a run, all threads together; 0 where it is not known.
    pub cpu_ms: f64,
    /// The first run of the process.
    pub first_ms: f64,
    /// Recorded runs.
    pub runs: u64,
    /// What it says its arithmetic is.
    pub precision: String,
    /// The most memory that the process held, in bytes.
    pub memory: Option<u64>,
}

/// What was measured of one thing.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Series {
    /// The slices of each turn.
    pub slices: Vec<Vec<Slice>>,
    /// What its processes said: one a turn, or one for all turns.
    pub processes: Vec<Turn>,
}

/// When to stop, and where to run.
#[derive(Clone, Debug)]
pub struct Budget {
    /// Time for each thing in all.
    pub duration: Duration,
    /// Width of the interval of every ratio that is precise enough, as a part of the ratio.
    pub interval: Option<f64>,
    /// Threads of each thing.
    pub threads: usize,
    /// The processors to pin to.
    pub processors: Vec<usize>,
}

/// The fewest turns: an interval of fewer says nothing.
const LEAST: usize = 7;

/// The most turns.
const MOST: usize = 100;

/// The turns that a measurement is divided into where starting and slices are short enough.
pub const TURNS: u64 = 24;

/// A slice in milliseconds, if a run is not longer.
const SLICE: f64 = 10.0;

/// A slice of what can only be measured by a process of its own.
const WHOLE: f64 = 150.0;

/// The most slices of one thing in a turn.
const SLICES: f64 = 16.0;

/// The slices of one thing: unrecorded runs, milliseconds, and how many in a turn.
#[derive(Clone, Copy, Debug)]
struct Portion {
    skip: u64,
    ms: f64,
}

/// Measures all in turns; slice `s` of turn `k` of one is paired with that of every other.
pub fn alternate(runners: &mut [Runner], budget: &Budget, stepped: &mut dyn FnMut()) -> Result<Vec<Series>> {
    let mut series: Vec<Series> = vec![Series::default(); runners.len()];
    let started = Instant::now();
    let total = budget.duration * runners.len() as u32;
    let mut portions: Vec<Portion> = Vec::new();
    let mut count = 0;
    for k in 0..MOST {
        let place = pin::window(&budget.processors, budget.threads, k);
        let begun = Instant::now();
        for i in order(k, runners.len()) {
            runners[i].begin(place.as_deref())?;
        }
        if portions.is_empty() {
            let starting = begun.elapsed().as_secs_f64() * 1e3;
            (portions, count) = portion(runners, starting, total.as_secs_f64() * 1e3)?;
        }
        series.iter_mut().for_each(|s| s.slices.push(Vec::new()));
        for s in 0..count {
            // Every other slice goes backwards, so that a drift favours none.
            for i in order(k + s, runners.len()) {
                let slice = runners[i].slice(portions[i].skip, portions[i].ms)?;
                series[i].slices[k].push(slice);
            }
        }
        for (runner, series) in runners.iter_mut().zip(&mut series) {
            series.processes.extend(runner.end()?);
        }
        stepped();
        let precise = budget.interval.is_some_and(|wanted| {
            runners.len() > 1
                && series[1..].iter().all(|other| {
                    let r = judge::pair(&series[0], other, budget.threads).ratio;
                    (r.high - r.low) <= wanted * r.ratio
                })
        });
        if k + 1 >= LEAST && (precise || started.elapsed() >= total) {
            break;
        }
    }
    for (runner, series) in runners.iter_mut().zip(&mut series) {
        series.processes.extend(runner.finish()?);
    }
    Ok(series)
}

/// The order of a round.
fn order(round: usize, n: usize) -> Vec<usize> {
    if round.is_multiple_of(2) { (0..n).collect() } else { (0..n).rev().collect() }
}

/// Chooses slices by what a run takes: at least one run, many short ones rather than few long ones, and no more of a turn for
/// starting processes than can be helped.
fn portion(runners: &mut [Runner], starting: f64, total: f64) -> Result<(Vec<Portion>, usize)> {
    if runners.iter().any(|r| !r.sliced()) {
        let ms = (total / runners.len() as f64 / TURNS as f64).clamp(50.0, 2000.0).max(WHOLE.min(total));
        return Ok((vec![Portion { skip: 1, ms }; runners.len()], 1));
    }
    let mut portions = Vec::new();
    let mut all = 0.0;
    for runner in runners.iter_mut() {
        let run = runner.slice(0, 0.0)?.median_ms.max(1e-3);
        let skip = if run >= SLICE / 2.0 { 0 } else { (0.3 / run).ceil() as u64 };
        let ms = if run >= SLICE { 0.0 } else { SLICE };
        all += run.max(ms) + skip as f64 * run;
        portions.push(Portion { skip, ms });
    }
    let room = (total / TURNS as f64 - starting).max(starting);
    Ok((portions, (room / all).floor().clamp(1.0, SLICES) as usize))
}

/// All processes of one thing as one: medians of their quantiles, the fastest run of all.
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
        first_ms: of(&|t| t.first_ms),
        runs: turns.iter().map(|t| t.runs).sum(),
        precision: first.precision.clone(),
        memory: turns.iter().filter_map(|t| t.memory).max(),
    })
}
