//! Time of each kernel against what the machine can do.
use crate::json;
use crate::peaks::Peaks;
use planish_rt::Session;
use planish_rt::plan::Plan;

/// A kernel over all its launches.
#[derive(Clone, PartialEq, Debug)]
pub struct Row {
    /// Name.
    pub name: String,
    /// What it computes: nodes of the model.
    pub nodes: Vec<String>,
    /// Launches.
    pub calls: u64,
    /// Nanoseconds of wall time, all launches together.
    pub ns: u64,
    /// Operations of a launch, if they are counted. A convolution counts as the direct sum whatever computes it.
    pub flops: Option<f64>,
    /// Bytes of the tensors that a launch reads and writes, each counted once.
    pub bytes: f64,
    /// Those of them that are weights.
    pub weights: f64,
    /// Time of a launch at the peak of the machine, in nanoseconds, and what limits it.
    pub floor: Option<(f64, Limit)>,
}

/// What a kernel cannot be faster than.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Limit {
    /// Arithmetic.
    Compute,
    /// Reading and writing.
    Memory,
}

impl Row {
    /// Microseconds of a launch.
    pub fn us(&self) -> f64 {
        self.ns as f64 / self.calls.max(1) as f64 / 1e3
    }

    /// Units of a launch as G a second.
    fn rate(&self, units: f64) -> f64 {
        units * self.calls as f64 / self.ns.max(1) as f64
    }

    /// Of the peak, in percent. Above 100 where fewer operations are done than counted (Winograd), or where data that
    /// counts as far away is near.
    pub fn percent(&self) -> Option<f64> {
        self.floor.map(|(ns, _)| 100.0 * self.rate(ns))
    }

    fn json(&self) -> String {
        let or_null = |v: Option<f64>| v.map_or(String::from("null"), json::number);
        let limit = match self.floor {
            Some((_, Limit::Compute)) => "\"compute\"",
            Some((_, Limit::Memory)) => "\"memory\"",
            None => "null",
        };
        format!(
            "{{\"name\":{},\"nodes\":{},\"us\":{},\"calls\":{},\"gflops\":{},\"flops\":{},\"bytes\":{},\
             \"weight_bytes\":{},\"gbs\":{},\"limit\":{limit},\"percent_of_peak\":{}}}",
            json::string(&self.name),
            json::list(self.nodes.iter().map(|n| json::string(n))),
            json::number(self.us()),
            self.calls,
            or_null(self.flops.map(|f| self.rate(f))),
            or_null(self.flops),
            json::number(self.bytes),
            json::number(self.weights),
            json::number(self.rate(self.bytes)),
            or_null(self.percent()),
        )
    }
}

/// What the runs of a session since its times were zero took.
#[derive(Clone, PartialEq, Debug)]
pub struct Profile {
    /// The kernels, slowest first.
    pub rows: Vec<Row>,
    /// Runs.
    pub runs: u64,
    /// Nanoseconds of the runs, all together.
    pub ns: u64,
    /// What the machine can do, if it was measured.
    pub peaks: Option<Peaks>,
}

impl Profile {
    /// Of `runs` runs that took `ns` together.
    pub fn of(session: &Session, plan: &Plan, runs: u64, ns: u64, peaks: Option<Peaks>) -> Profile {
        let launched = session.profile().iter().zip(&plan.kernels).filter(|(t, _)| t.calls > 0);
        let mut rows: Vec<Row> = launched
            .map(|(t, k)| {
                let value =
                    |e: Option<_>| e.and_then(|e| session.value_of(e)).filter(|&v| v > 0).map(|v| v as f64);
                let calls = t.calls as f64;
                let weights = t.weights as f64 / calls;
                let bytes = value(k.bytes).unwrap_or(t.bytes as f64 / calls);
                Row {
                    name: k.name.clone(),
                    nodes: k.nodes.clone(),
                    calls: t.calls,
                    ns: t.ns,
                    flops: value(k.flops),
                    bytes,
                    weights: weights.min(bytes),
                    floor: None,
                }
            })
            .collect();
        // A weight is read again a whole run later: it comes from where all weights of a run fit.
        let of_a_run: f64 = rows.iter().map(|r| r.weights * r.calls as f64 / runs.max(1) as f64).sum();
        if let Some(peaks) = &peaks {
            for row in &mut rows {
                row.floor = floor(row, peaks, of_a_run);
            }
        }
        rows.sort_by_key(|r| std::cmp::Reverse(r.ns));
        Profile { rows, runs, ns, peaks }
    }

    /// Milliseconds of a run in kernels, and outside of them.
    pub fn accounted(&self) -> (f64, f64) {
        let (runs, inside) = (self.runs.max(1) as f64, self.rows.iter().map(|r| r.ns).sum::<u64>());
        (inside as f64 / runs / 1e6, self.ns.saturating_sub(inside) as f64 / runs / 1e6)
    }

    /// The keys `kernels`, `accounted_ms`, `unaccounted_ms` and `peaks`, without the braces.
    pub fn json(&self) -> String {
        let (inside, outside) = self.accounted();
        format!(
            "\"kernels\":{},\"accounted_ms\":{},\"unaccounted_ms\":{},\"peaks\":{}",
            json::list(self.rows.iter().map(Row::json)),
            json::number(inside),
            json::number(outside),
            self.peaks.as_ref().map_or(String::from("null"), Peaks::json),
        )
    }

    /// A table for people.
    pub fn text(&self) -> String {
        let total: u64 = self.rows.iter().map(|r| r.ns).sum();
        let mut text = format!(
            "{:>6} {:>12} {:>8} {:>9} {:>8} {:>7}  kernel\n",
            "%", "us a call", "calls", "GFLOP/s", "GB/s", "of peak"
        );
        for r in &self.rows {
            let peak = match (r.percent(), r.floor) {
                (Some(p), Some((_, Limit::Compute))) => format!("{p:.0}% c"),
                (Some(p), Some((_, Limit::Memory))) => format!("{p:.0}% m"),
                _ => String::from("-"),
            };
            let flops = r.flops.map_or(String::from("-"), |f| format!("{:.1}", r.rate(f)));
            text += &format!(
                "{:>6.2} {:>12.2} {:>8} {flops:>9} {:>8.1} {peak:>7}  {} {}\n",
                100.0 * r.ns as f64 / total.max(1) as f64,
                r.us(),
                r.calls,
                r.rate(r.bytes),
                r.name,
                r.nodes.join(" ")
            );
        }
        let (inside, outside) = self.accounted();
        let share = 100.0 * outside / (inside + outside).max(f64::MIN_POSITIVE);
        text += &format!("in kernels {inside:.4} ms a run, elsewhere {outside:.4} ms ({share:.1}%)\n");
        if let Some(peaks) = &self.peaks {
            text += &peaks.text();
            text += "of peak: c of what arithmetic allows, m of what reading and writing allows, whichever is slower\n";
        }
        text
    }
}

/// The least time of a launch: that of its products, or of its bytes, weights from where those of a whole run fit, other
/// tensors from where they themselves do.
fn floor(row: &Row, peaks: &Peaks, weights_of_a_run: f64) -> Option<(f64, Limit)> {
    let others = row.bytes - row.weights;
    let memory = row.weights / peaks.read(weights_of_a_run as u64) + others / peaks.read(others as u64);
    let rate = if row.name.contains("integer") { peaks.all.int8 } else { peaks.all.fp32 };
    let compute = row.flops.zip(rate).map_or(0.0, |(flops, rate)| flops / rate);
    let limit = if compute >= memory { Limit::Compute } else { Limit::Memory };
    let least = compute.max(memory);
    (least.is_finite() && least > 0.0).then_some((least, limit))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peaks::{Caches, Rates};

    fn peaks() -> Peaks {
        let one = Rates { fp32: Some(100.0), int8: Some(400.0), read: [200.0, 100.0, 50.0, 10.0] };
        Peaks { one, all: one, threads: 1, caches: Caches { l1: 1000, l2: 10_000, l3: 100_000 } }
    }

    fn row(name: &str, flops: f64, bytes: f64, weights: f64) -> Row {
        Row {
            name: name.into(),
            nodes: vec![],
            calls: 2,
            ns: 2000,
            flops: Some(flops),
            bytes,
            weights,
            floor: None,
        }
    }

    #[test]
    fn the_slower_of_arithmetic_and_memory_limits() {
        // 50,000 operations at 100 a nanosecond, 900 bytes at 200.
        let mut r = row("k_matmul_0", 5e4, 900.0, 0.0);
        r.floor = floor(&r, &peaks(), 0.0);
        assert_eq!((r.floor, r.percent()), (Some((500.0, Limit::Compute)), Some(50.0)));
        let r = row("k_matmul_integer_0", 5e4, 900.0, 0.0);
        assert_eq!(floor(&r, &peaks(), 0.0), Some((125.0, Limit::Compute)));
        // The weights of a run fit no cache: 9,000 bytes at 10 a nanosecond, 1,000 more at 200.
        let r = row("k_matmul_0", 100.0, 10_000.0, 9000.0);
        assert_eq!(floor(&r, &peaks(), 1e6), Some((905.0, Limit::Memory)));
        assert_eq!(floor(&row("k", 0.0, 0.0, 0.0), &peaks(), 0.0), None);
    }

    #[test]
    fn what_kernels_do_not_account_for_is_shown() {
        let p = Profile { rows: vec![row("k", 1.0, 1.0, 0.0)], runs: 2, ns: 6000, peaks: None };
        assert_eq!(p.accounted(), (0.001, 0.002));
        assert!(p.text().contains("elsewhere 0.0020 ms (66.7%)"), "{}", p.text());
        assert!(
            p.json().ends_with("\"accounted_ms\":0.001,\"unaccounted_ms\":0.002,\"peaks\":null"),
            "{}",
            p.json()
        );
    }
}
