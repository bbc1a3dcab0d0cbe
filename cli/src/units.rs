//! Quantities with units on the command line.

use std::time::Duration;

/// Bytes: `4096`, `500K`, `64M`, `4G` (powers of 1024).
pub fn bytes(text: &str) -> Result<u64, String> {
    let (number, unit) = split(text);
    let scale: u64 = match unit.trim_end_matches("iB").trim_end_matches('B') {
        "" => 1,
        "K" | "k" => 1 << 10,
        "M" => 1 << 20,
        "G" => 1 << 30,
        "T" => 1 << 40,
        _ => return Err(format!("{unit:?} is no unit of memory (K, M, G)")),
    };
    let number: f64 = number.parse().map_err(|_| format!("{text:?} is no amount of memory"))?;
    if !(number >= 0.0 && number * scale as f64 <= 1e18) {
        return Err(format!("{text:?} is out of range"));
    }
    Ok((number * scale as f64) as u64)
}

/// A duration: `5s`, `300ms`, `2m`. A bare number is an error.
pub fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split(text);
    let scale = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        "" => return Err("a duration needs a unit: 5s, 300ms, 2m".into()),
        _ => return Err(format!("{unit:?} is no unit of time (ms, s, m)")),
    };
    let number: f64 = number.parse().map_err(|_| format!("{text:?} is no duration"))?;
    if !(0.0..=1e7).contains(&(number * scale)) {
        return Err(format!("{text:?} is out of range"));
    }
    Ok(Duration::from_secs_f64(number * scale))
}

/// A fraction: `3%` is 0.03. A bare number is an error.
pub fn percent(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').ok_or("a percentage is needed, such as 3%")?;
    let number: f64 = number.trim().parse().map_err(|_| format!("{text:?} is no percentage"))?;
    if number.is_finite() { Ok(number / 100.0) } else { Err(format!("{text:?} is out of range")) }
}

/// Percentage points: `0.5pt` is 0.5. A bare number is an error.
pub fn points(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix("pt").ok_or("percentage points are needed, such as 0.5pt")?;
    let number: f64 = number.trim().parse().map_err(|_| format!("{text:?} are no percentage points"))?;
    if number.is_finite() { Ok(number) } else { Err(format!("{text:?} is out of range")) }
}

/// A factor: `1.5x` is 1.5. A bare number is an error.
pub fn factor(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('x').ok_or("a factor is needed, such as 1.5x")?;
    let number: f64 = number.trim().parse().map_err(|_| format!("{text:?} is no factor"))?;
    if number.is_finite() && number > 0.0 { Ok(number) } else { Err(format!("{text:?} is out of range")) }
}

fn split(text: &str) -> (&str, &str) {
    let text = text.trim();
    let at = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    (text[..at].trim(), text[at..].trim())
}

/// Bytes for people.
pub fn show_bytes(n: u64) -> String {
    match n {
        0..1_000 => format!("{n} B"),
        1_000..1_000_000 => format!("{:.1} kB", n as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", n as f64 / 1e6),
        _ => format!("{:.2} GB", n as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_read() {
        assert_eq!(bytes("2K"), Ok(2048));
        assert_eq!(bytes("1.5GiB"), Ok(3 << 29));
        assert_eq!(duration("300ms"), Ok(Duration::from_millis(300)));
        assert_eq!(percent("3%"), Ok(0.03));
        assert_eq!((points("0.5pt"), factor("1.5x")), (Ok(0.5), Ok(1.5)));
        assert!(points("0.5").is_err() && points("0.5%").is_err() && points("NaNpt").is_err());
        assert!(factor("2").is_err() && factor("0x").is_err() && factor("-1x").is_err());
        for wrong in ["", "x", "5q", "-1K", "1e30G"] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
        assert!(duration("5").is_err() && duration("-1s").is_err() && percent("3").is_err());
    }
}
