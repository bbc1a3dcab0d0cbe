//! The profile of a result as lines of text.

use serde_json::Value;

/// A line for each kernel, slowest first, and what they leave; none where the result has no profile.
pub fn lines(result: &Value) -> Vec<String> {
    let Some(kernels) = result["kernels"].as_array() else { return Vec::new() };
    let number = |v: &Value, digits: usize| v.as_f64().map_or("-".to_owned(), |v| format!("{v:.digits$}"));
    let time = |k: &Value| k["us"].as_f64().unwrap_or(0.0) * k["calls"].as_f64().unwrap_or(0.0);
    let total: f64 = kernels.iter().map(time).sum();
    let mut lines = vec![format!(
        "{:>6} {:>12} {:>8} {:>9} {:>8} {:>7}  kernel",
        "%", "us a call", "calls", "GFLOP/s", "GB/s", "of peak"
    )];
    for k in kernels {
        let limit = match k["limit"].as_str() {
            Some(limit) => format!("% {}", limit.get(..1).unwrap_or("")),
            None => String::new(),
        };
        let nodes: Vec<&str> =
            k["nodes"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        lines.push(format!(
            "{:>6.2} {:>12} {:>8} {:>9} {:>8} {:>7}  {} {}",
            100.0 * time(k) / total.max(f64::MIN_POSITIVE),
            number(&k["us"], 2),
            k["calls"],
            number(&k["gflops"], 1),
            number(&k["gbs"], 1),
            number(&k["percent_of_peak"], 0) + &limit,
            k["name"].as_str().unwrap_or(""),
            nodes.join(" ")
        ));
    }
    lines.push(format!(
        "in kernels {} ms a run, elsewhere {} ms",
        number(&result["accounted_ms"], 4),
        number(&result["unaccounted_ms"], 4)
    ));
    let (all, read) = (&result["peaks"]["all"], &result["peaks"]["all"]["read_gbs"]);
    if all.is_object() {
        lines.push(format!(
            "peaks of {} threads: f32 {} GFLOP/s, int8 {} GOP/s; reading L1 {}, L2 {}, L3 {}, memory {} GB/s",
            result["peaks"]["threads"],
            number(&all["fp32_gflops"], 0),
            number(&all["int8_gops"], 0),
            number(&read["l1"], 0),
            number(&read["l2"], 0),
            number(&read["l3"], 0),
            number(&read["dram"], 0)
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
        let result = json!({
            "kernels": [{"name": "k_matmul_0", "nodes": ["MatMul"], "us": 2.0, "calls": 3, "gflops": 125.0, "gbs": 8.0,
                         "limit": "compute", "percent_of_peak": 50.2}],
            "accounted_ms": 0.5, "unaccounted_ms": 0.25, "peaks": {"threads": 1, "all": rates},
        });
        let lines = lines(&result);
        assert!(lines[1].ends_with("125.0      8.0   50% c  k_matmul_0 MatMul"), "{}", lines[1]);
        assert_eq!(lines[2], "in kernels 0.5000 ms a run, elsewhere 0.2500 ms");
        assert!(lines[3].contains("f32 250 GFLOP/s, int8 - GOP/s; reading L1 4"), "{}", lines[3]);
        assert!(super::lines(&json!({})).is_empty());
    }
}
