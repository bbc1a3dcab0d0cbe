//! Measuring a session.
use crate::files::Result;
use crate::json;
use planish_rt::plan::Plan;
use planish_rt::{Session, sys};
use std::time::Duration;

/// Runs that are recorded at most.
const MAX_RUNS: usize = 10_000_000;

/// What was measured, times in nanoseconds.
#[derive(Clone, PartialEq, Debug)]
pub struct Measured {
    /// Latencies, sorted.
    pub latencies: Vec<u64>,
    /// Processor time of a run on average, all threads together.
    pub cpu: f64,
    /// The first run.
    pub first: u64,
}

/// Runs a session whose inputs are set: once, then `warmup` long, then `duration` long.
pub fn measure(session: &mut Session, duration: Duration, warmup: Duration) -> Result<Measured> {
    let start = sys::now_ns();
    session.run()?;
    let first = sys::now_ns() - start;
    let warm_until = sys::now_ns() + warmup.as_nanos() as u64;
    while sys::now_ns() < warm_until {
        session.run()?;
    }
    session.reset_profile();
    let mut latencies = Vec::with_capacity(4096);
    let cpu = sys::process_cpu_ns();
    let begin = sys::now_ns();
    let mut at = begin;
    while latencies.is_empty() || (at - begin < duration.as_nanos() as u64 && latencies.len() < MAX_RUNS) {
        session.run()?;
        let now = sys::now_ns();
        latencies.push(now - at);
        at = now;
    }
    let cpu = (sys::process_cpu_ns() - cpu) as f64 / latencies.len() as f64;
    latencies.sort_unstable();
    Ok(Measured { latencies, cpu, first })
}

impl Measured {
    /// The latency below which this part of the runs is, in milliseconds.
    pub fn quantile(&self, q: f64) -> f64 {
        let n = self.latencies.len();
        let at = ((n as f64 * q).ceil() as usize).clamp(1, n.max(1)) - 1;
        self.latencies.get(at).map_or(0.0, |&v| v as f64 / 1e6)
    }

    /// Nanoseconds of all runs together.
    pub fn total(&self) -> u64 {
        self.latencies.iter().sum()
    }

    /// The bench object of the contract; `more` holds further keys, each after a comma.
    pub fn json(&self, plan: &Plan, threads: usize, more: &str) -> String {
        let q = |q| json::number(self.quantile(q));
        let (median, p10, p90) = (q(0.5), q(0.1), q(0.9));
        let precision = if plan.meta.precision.is_empty() { "f32" } else { &plan.meta.precision };
        format!(
            "{{\"schema\":\"planish.bench\",\"version\":1,\"name\":{},\"threads\":{threads},\"precision\":{},\
             \"latency_ms\":{{\"median\":{median},\"p10\":{p10},\"p90\":{p90},\"p99\":{},\"min\":{}}},\"cpu_ms\":{},\
             \"first_ms\":{},\"runs\":{},\"median_ms\":{median},\"p10_ms\":{p10},\"p90_ms\":{p90}{more}}}",
            json::string(&plan.meta.name),
            json::string(precision),
            q(0.99),
            json::number(self.latencies.first().map_or(0.0, |&v| v as f64 / 1e6)),
            json::number(self.cpu / 1e6),
            json::number(self.first as f64 / 1e6),
            self.latencies.len(),
        )
    }

    /// The same for people.
    pub fn text(&self, threads: usize) -> String {
        format!(
            "median {:.3} ms, p10 {:.3}, p90 {:.3}, p99 {:.3}, first {:.3}, cpu {:.3}; {} runs, {threads} threads\n",
            self.quantile(0.5),
            self.quantile(0.1),
            self.quantile(0.9),
            self.quantile(0.99),
            self.first as f64 / 1e6,
            self.cpu / 1e6,
            self.latencies.len()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_nearest_ranks() {
        let m =
            Measured { latencies: (1..=100).map(|i| i * 1_000_000).collect(), cpu: 2e6, first: 3_000_000 };
        assert_eq!((m.quantile(0.5), m.quantile(0.99), m.quantile(0.0)), (50.0, 99.0, 1.0));
        let j = m.json(&Plan::default(), 2, "");
        assert!(
            j.contains("\"latency_ms\":{\"median\":50,\"p10\":10,\"p90\":90,\"p99\":99,\"min\":1}"),
            "{j}"
        );
        assert!(j.ends_with("\"median_ms\":50,\"p10_ms\":10,\"p90_ms\":90}"));
    }
}
