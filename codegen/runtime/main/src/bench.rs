//! Measuring a session.
use crate::counters;
use crate::files::{Result, input};
use crate::json;
use planish_rt::plan::Plan;
use planish_rt::{Session, sys};
use std::io::{BufRead, Write};
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

/// A session and what its inputs are in one run after the other.
pub struct Turns<'s> {
    session: &'s mut Session,
    /// Of each sample: inputs by position, with their bytes. With one sample its inputs are set already.
    samples: Vec<Vec<(usize, &'s [u8])>>,
    next: usize,
}

impl<'s> Turns<'s> {
    /// Samples take turns, the first one first.
    pub fn new(session: &'s mut Session, samples: Vec<Vec<(usize, &'s [u8])>>) -> Turns<'s> {
        Turns { session, samples, next: 0 }
    }
    /// Sets the inputs of the next run, where there are several samples; whether there are.
    fn turn(&mut self) -> Result<bool> {
        let several = self.samples.len() > 1;
        if several {
            for (i, data) in &self.samples[self.next] {
                // SAFETY: samples outlive the session.
                unsafe { self.session.set_input(*i, data.as_ptr(), data.len())? };
            }
            self.next = (self.next + 1) % self.samples.len();
        }
        Ok(several)
    }
    fn run(&mut self) -> Result<()> {
        self.turn()?;
        self.session.run()?;
        Ok(())
    }
    /// What a run counts: the last one, of several samples the mean of one run with each.
    pub fn counters(&mut self, plan: &Plan) -> Result<Vec<(String, f64)>> {
        if self.samples.len() < 2 {
            return Ok(counters::of(self.session, plan));
        }
        let mut sums = vec![0.0; plan.counters.len()];
        for _ in 0..self.samples.len() {
            self.run()?;
            sums.iter_mut().zip(self.session.counters()).for_each(|(sum, n)| *sum += *n as f64);
        }
        let count = self.samples.len() as f64;
        Ok(counters::named(plan, sums.into_iter().map(|n| n / count)))
    }
}

/// Runs a session whose inputs are set: once, then `warmup` long, then `duration` long.
pub fn measure(turns: &mut Turns<'_>, duration: Duration, warmup: Duration) -> Result<Measured> {
    let start = sys::now_ns();
    turns.run()?;
    let first = sys::now_ns() - start;
    let warm_until = sys::now_ns() + warmup.as_nanos() as u64;
    while sys::now_ns() < warm_until {
        turns.run()?;
    }
    turns.session.reset_profile();
    Ok(Measured { first, ..record(turns, duration)? })
}

/// Runs for `duration`, at least once. The first run is that of the caller.
fn record(turns: &mut Turns<'_>, duration: Duration) -> Result<Measured> {
    let mut latencies = Vec::with_capacity(4096);
    let cpu = sys::process_cpu_ns();
    let begin = sys::now_ns();
    let mut at = begin;
    while latencies.is_empty() || (at - begin < duration.as_nanos() as u64 && latencies.len() < MAX_RUNS) {
        if turns.turn()? {
            at = sys::now_ns();
        }
        turns.session.run()?;
        let now = sys::now_ns();
        latencies.push(now - at);
        at = now;
    }
    let cpu = (sys::process_cpu_ns() - cpu) as f64 / latencies.len() as f64;
    latencies.sort_unstable();
    Ok(Measured { latencies, cpu, first: 0 })
}

/// Runs `skip` times without a record, then for `duration`, at least once. The first run is that of the caller.
fn slice(turns: &mut Turns<'_>, skip: u64, duration: Duration) -> Result<Measured> {
    for _ in 0..skip {
        turns.run()?;
    }
    record(turns, duration)
}

/// The unrecorded runs and the milliseconds that a request `SKIP MS` asks for.
fn request(line: &str) -> Option<(u64, Duration)> {
    let (skip, ms) = line.trim().split_once(' ')?;
    let ms: f64 = ms.parse().ok()?;
    Some((skip.parse().ok().filter(|n| *n <= 1_000_000)?, Duration::try_from_secs_f64(ms / 1e3).ok()?))
}

/// Measures on request: runs once and says so, then answers each line `SKIP MS` with one line about a slice of `MS`
/// milliseconds after `SKIP` unrecorded runs, until the requests end. All recorded runs together.
pub fn serve(turns: &mut Turns<'_>, requests: impl BufRead, mut answers: impl Write) -> Result<Measured> {
    let start = sys::now_ns();
    turns.run()?;
    let mut all = Measured { latencies: Vec::new(), cpu: 0.0, first: sys::now_ns() - start };
    // A requester that went away is not waited for: the requests end too.
    let mut say = |text: String| {
        let _ = answers.write_all(text.as_bytes()).and_then(|()| answers.flush());
    };
    say(format!("{{\"first_ms\":{}}}\n", json::number(all.first as f64 / 1e6)));
    for line in requests.lines() {
        let Some((skip, duration)) = line.ok().as_deref().and_then(request) else {
            return input("--slices needs lines of two numbers: unrecorded runs, and milliseconds");
        };
        let m = slice(turns, skip, duration)?;
        let n = m.latencies.len();
        let middle = |i: usize| m.latencies.get(i).map_or(0.0, |v| *v as f64 / 1e6);
        say(format!(
            "{{\"median_ms\":{},\"min_ms\":{},\"cpu_ms\":{},\"runs\":{n}}}\n",
            json::number((middle((n - 1) / 2) + middle(n / 2)) / 2.0),
            json::number(middle(0)),
            json::number(m.cpu / 1e6)
        ));
        all.cpu += m.cpu * n as f64;
        all.latencies.extend(m.latencies);
    }
    all.cpu /= all.latencies.len().max(1) as f64;
    all.latencies.sort_unstable();
    Ok(all)
}

/// The most memory that this process has held at a time, in bytes, if the system tells.
fn memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kb| kb * 1024)
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
        let memory = memory().map_or_else(String::new, |n| format!(",\"memory_bytes\":{n}"));
        format!(
            "{{\"schema\":\"planish.bench\",\"version\":1,\"name\":{},\"threads\":{threads},\"precision\":{},\
             \"latency_ms\":{{\"median\":{median},\"p10\":{p10},\"p90\":{p90},\"p99\":{},\"min\":{},\"mean\":{}}},\"cpu_ms\":{},\
             \"first_ms\":{},\"runs\":{},\"median_ms\":{median},\"p10_ms\":{p10},\"p90_ms\":{p90}{memory}{more}}}",
            json::string(&plan.meta.name),
            json::string(precision),
            q(0.99),
            json::number(self.latencies.first().map_or(0.0, |&v| v as f64 / 1e6)),
            json::number(self.total() as f64 / self.latencies.len().max(1) as f64 / 1e6),
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
            j.contains(
                "\"latency_ms\":{\"median\":50,\"p10\":10,\"p90\":90,\"p99\":99,\"min\":1,\"mean\":50.5}"
            ),
            "{j}"
        );
        assert!(j.contains("\"median_ms\":50,\"p10_ms\":10,\"p90_ms\":90"), "{j}");
        assert!(m.json(&Plan::default(), 2, ",\"x\":1").ends_with(",\"x\":1}"));
    }

    #[test]
    fn requests_are_two_numbers() {
        assert_eq!(request("2 10.5\n"), Some((2, Duration::from_micros(10_500))));
        assert_eq!(request("0 0"), Some((0, Duration::ZERO)));
        for wrong in ["", "1", "1 -1", "-1 1", "1 NaN", "1 1e30", "9999999999 1", "x y"] {
            assert_eq!(request(wrong), None, "{wrong}");
        }
    }
}
