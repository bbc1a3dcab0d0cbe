//! What measured series say about each other, and whether a budget on it is kept.

use super::Series;
use super::stats::{self, Ratio};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The times that a ratio is of.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Clock {
    /// Time on the wall.
    Wall,
    /// Processor time: of one thread, which waits for nothing, the same but for what others take of the processor.
    Processor,
}

/// Two series side by side.
#[derive(Clone, PartialEq, Debug)]
pub struct Pair {
    /// base / other.
    pub ratio: Ratio,
    /// The times that it is of.
    pub clock: Clock,
    /// The logarithm of the ratio of each turn.
    pub logs: Vec<f64>,
}

/// The ratio of two series. With one thread, and where both say what processor time they took, that of processor time if it
/// varies less from turn to turn than that of wall time, as it does where other programs run.
pub fn pair(base: &Series, other: &Series, threads: usize) -> Pair {
    let wall = logs(base, other, |s| s.median_ms);
    let mut best = (Clock::Wall, wall);
    if threads == 1 {
        let processor = logs(base, other, |s| s.cpu_ms);
        if processor.len() == best.1.len() && spread(&processor) < spread(&best.1) {
            best = (Clock::Processor, processor);
        }
    }
    let (clock, logs) = best;
    Pair { ratio: stats::paired(&logs), clock, logs }
}

/// Two measurements of the same two things as one.
pub fn join(first: &Pair, second: &Pair) -> Pair {
    let logs: Vec<f64> = first.logs.iter().chain(&second.logs).copied().collect();
    Pair { ratio: stats::paired(&logs), clock: first.clock, logs }
}

/// For each turn the median over its slices of the logarithm of the ratio. Turns without times are left out.
fn logs(base: &Series, other: &Series, time: impl Fn(&super::live::Slice) -> f64) -> Vec<f64> {
    let mut out = Vec::new();
    for (a, b) in base.slices.iter().zip(&other.slices) {
        let ratios: Vec<f64> =
            a.iter().zip(b).map(|(a, b)| (time(a) / time(b)).ln()).filter(|l| l.is_finite()).collect();
        if !ratios.is_empty() {
            out.push(stats::median(&ratios));
        }
    }
    out
}

/// The median distance from the median.
fn spread(values: &[f64]) -> f64 {
    let centre = stats::median(values);
    stats::median(&values.iter().map(|v| (v - centre).abs()).collect::<Vec<_>>())
}

/// A limit on the ratio of speed.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Limit {
    /// The other may be slower by this part at most.
    Regression(f64),
    /// The other must be this many times as fast at least.
    Speedup(f64),
}

impl Limit {
    /// Below this ratio the limit is violated.
    pub fn bound(self) -> f64 {
        match self {
            Limit::Regression(most) => 1.0 / (1.0 + most),
            Limit::Speedup(least) => least,
        }
    }
}

/// What came of a budget.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It is kept.
    Kept,
    /// It is violated.
    Violated,
    /// What was measured does not decide it.
    Undecided,
}

impl Outcome {
    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Outcome::Kept => "kept",
            Outcome::Violated => "violated",
            Outcome::Undecided => "not decided",
        }
    }
}

/// Judges a limit by one measurement.
pub fn first(limit: Limit, pair: &Pair) -> Outcome {
    match pair.ratio.below(limit.bound()) {
        Some(true) => Outcome::Violated,
        Some(false) => Outcome::Kept,
        None => Outcome::Undecided,
    }
}

/// Judges a limit that the first measurement did not show to be kept, with a second one: violated if both together say so and
/// each by itself leans that way, so that no single disturbance is taken for a change.
pub fn confirmed(limit: Limit, one: &Pair, two: &Pair) -> Outcome {
    let bound = limit.bound();
    match first(limit, &join(one, two)) {
        Outcome::Violated if one.ratio.ratio < bound && two.ratio.ratio < bound => Outcome::Violated,
        Outcome::Violated => Outcome::Undecided,
        outcome => outcome,
    }
}

#[cfg(test)]
mod tests {
    use super::super::live::Slice;
    use super::*;

    fn series(turns: &[f64], cpu: &[f64]) -> Series {
        let slice = |(m, c): (&f64, &f64)| vec![Slice { median_ms: *m, cpu_ms: *c }; 3];
        Series { slices: turns.iter().zip(cpu).map(slice).collect(), processes: Vec::new() }
    }

    fn around(ratio: f64, wide: f64) -> Pair {
        let logs: Vec<f64> = (0..16).map(|i| ratio.ln() + wide * (f64::from(i % 4) - 1.5)).collect();
        Pair { ratio: stats::paired(&logs), clock: Clock::Wall, logs }
    }

    #[test]
    fn the_steadier_clock_counts_for_one_thread() {
        let calm = [1.0; 8];
        let base = series(&[1.0, 2.0, 1.0, 3.0, 1.0, 2.0, 1.0, 2.0], &calm);
        let other = series(&[2.0, 1.0, 3.0, 1.0, 1.0, 2.0, 2.0, 1.0], &[1.25; 8]);
        let one = pair(&base, &other, 1);
        assert_eq!((one.clock, (one.ratio.ratio * 100.0).round()), (Clock::Processor, 80.0));
        assert_eq!(pair(&base, &other, 2).clock, Clock::Wall);
        assert_eq!(
            pair(&base, &series(&[1.0; 8], &[0.0; 8]), 1).clock,
            Clock::Wall,
            "a command without cpu_ms"
        );
    }

    #[test]
    fn a_violation_needs_both_measurements() {
        let most = Limit::Regression(0.03);
        let (slow, same) = (around(0.94, 0.003), around(1.0, 0.003));
        assert_eq!((first(most, &slow), first(most, &same)), (Outcome::Violated, Outcome::Kept));
        assert_eq!(first(most, &around(0.97, 0.02)), Outcome::Undecided);
        assert_eq!(confirmed(most, &slow, &slow), Outcome::Violated);
        assert_ne!(confirmed(most, &slow, &same), Outcome::Violated);
        // Far off once: together beyond the limit, but the second measurement does not show it.
        assert_ne!(confirmed(most, &around(0.5, 0.003), &around(0.98, 0.003)), Outcome::Violated);
        assert_eq!(first(Limit::Speedup(1.5), &around(2.0, 0.01)), Outcome::Kept);
        assert_eq!(first(Limit::Speedup(1.5), &around(1.2, 0.01)), Outcome::Violated);
    }
}
