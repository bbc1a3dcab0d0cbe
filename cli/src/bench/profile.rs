//! The profile of a result as lines of text.

use crate::report::Measured;

/// A line for each kernel, slowest first, and what they leave; none where the result has no profile.
pub fn lines(result: &Measured) -> Vec<String> {
    let Some(kernels) = &result.kernels else { return Vec::new() };
    let number = |v: Option<f64>, digits: usize| v.map_or("-".to_owned(), |v| format!("{v:.digits$}"));
    let total: f64 = kernels.iter().map(|k| k.us * k.calls as f64).sum();
    let mut lines = vec![format!(
        "{:>6} {:>12} {:>8} {:>9} {:>8} {:>7}  kernel",
        "%", "us a call", "calls", "GFLOP/s", "GB/s", "of peak"
    )];
    for k in kernels {
        let limit = k.limit.as_ref().map_or(String::new(), |l| format!("% {}", l.get(..1).unwrap_or("")));
        lines.push(format!(
            "{:>6.2} {:>12.2} {:>8} {:>9} {:>8.1} {:>7}  {} {}",
            100.0 * k.us * k.calls as f64 / total.max(f64::MIN_POSITIVE),
            k.us,
            k.calls,
            number(k.gflops, 1),
            k.gbs,
            number(k.percent_of_peak, 0) + &limit,
            k.name,
            k.nodes.join(" ")
        ));
    }
    lines.push(format!(
        "in kernels {} ms a run, elsewhere {} ms",
        number(result.accounted_ms, 4),
        number(result.unaccounted_ms, 4)
    ));
    if let Some(peaks) = &result.peaks {
        let read = |level: &str| number(peaks.all.read_gbs.get(level).copied(), 0);
        lines.push(format!(
            "peaks of {} threads: f32 {} GFLOP/s, int8 {} GOP/s; reading L1 {}, L2 {}, L3 {}, memory {} GB/s",
            peaks.threads,
            number(peaks.all.fp32_gflops, 0),
            number(peaks.all.int8_gops, 0),
            read("l1"),
            read("l2"),
            read("l3"),
            read("dram")
        ));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn kernels_and_peaks_become_lines() {
        let rates = json!({"fp32_gflops": 250.0, "int8_gops": null, "read_gbs": {"l1": 4.0, "l2": 3.0, "l3": 2.0, "dram": 1.0}});
        let mut result = crate::report::examples::measured("m", 1.0);
        assert!(lines(&result).is_empty());
        let kernel = json!({"name": "k_matmul_0", "nodes": ["MatMul"], "us": 2.0, "calls": 3, "flops": 250_000.0,
            "gflops": 125.0, "bytes": 16_000.0, "weight_bytes": 0.0, "gbs": 8.0, "limit": "compute",
            "percent_of_peak": 50.2});
        let peaks = json!({"threads": 1, "one": rates, "all": rates, "caches": {"l1": 1}});
        result.kernels = serde_json::from_value(json!([kernel])).ok();
        result.peaks = serde_json::from_value(peaks).ok();
        (result.accounted_ms, result.unaccounted_ms) = (Some(0.5), Some(0.25));
        let lines = lines(&result);
        assert!(lines[1].ends_with("125.0      8.0   50% c  k_matmul_0 MatMul"), "{}", lines[1]);
        assert_eq!(lines[2], "in kernels 0.5000 ms a run, elsewhere 0.2500 ms");
        assert!(lines[3].contains("f32 250 GFLOP/s, int8 - GOP/s; reading L1 4"), "{}", lines[3]);
    }
}
