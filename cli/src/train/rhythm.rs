//! How fast a training goes, and how long it will.

use std::time::Instant;

/// How fast it goes.
pub(super) struct Rhythm {
    batch: usize,
    since: Instant,
    steps: u64,
    /// Of the last steps, older ones counting less.
    pub(super) loss: f64,
}

impl Rhythm {
    pub(super) fn new(batch: usize) -> Rhythm {
        Rhythm { batch, since: Instant::now(), steps: 0, loss: f64::NAN }
    }
    pub(super) fn step(&mut self, loss: f64) {
        self.steps += 1;
        self.loss = if self.loss.is_nan() { loss } else { 0.98 * self.loss + 0.02 * loss };
    }
    pub(super) fn speed(&self) -> f64 {
        self.steps as f64 * self.batch as f64 / self.since.elapsed().as_secs_f64().max(1e-9)
    }
    pub(super) fn left(&self, steps: u64) -> f64 {
        steps as f64 * self.since.elapsed().as_secs_f64() / self.steps.max(1) as f64
    }
}

/// Seconds for people.
pub(super) fn time(seconds: f64) -> String {
    match seconds.round() as u64 {
        s @ 0..120 => format!("{s} s"),
        s @ 120..7200 => format!("{} min", s.div_ceil(60)),
        s => format!("{} h {} min", s / 3600, s % 3600 / 60),
    }
}
