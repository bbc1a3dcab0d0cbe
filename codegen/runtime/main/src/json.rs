//! Writing JSON.
pub use planish_rt::describe::{list, string};

/// A number with at most 6 decimals; `null` if it is not finite.
pub fn number(v: f64) -> String {
    if !v.is_finite() {
        return String::from("null");
    }
    let s = format!("{v:.6}");
    let s = s.trim_end_matches('0').trim_end_matches('.');
    if s == "-0" { String::from("0") } else { s.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped() {
        assert_eq!(string("a\"b\\\n\u{1}ä"), "\"a\\\"b\\\\\\n\\u0001ä\"");
        assert_eq!(list(["1".into(), string("x")]), "[1,\"x\"]");
        assert_eq!(
            (number(0.5), number(3.0), number(f64::NAN), number(-1e-9)),
            ("0.5".into(), "3".into(), "null".into(), "0".into())
        );
    }
}
