use crate::diag::Diag;
use crate::interp;
use crate::tensor::{Tensor, Value};
use crate::text::parse;

fn run(line: &str, inputs: &str, results: &str, args: Vec<Tensor>) -> Result<Vec<Value>, Diag> {
    let text =
        format!("planish-ir 1\nsym A 0..\ngraph @\"main\"({inputs}) {{\n  {line}\n  return {results}\n}}\n");
    let g = parse(&text)?;
    assert_eq!(crate::verify::verify(&g), []);
    Ok(interp::run(&g, args.into_iter().map(Value::from).collect())?.values)
}

fn strings(v: &[&str]) -> Result<Tensor, Diag> {
    Tensor::from_strings(vec![v.len()], v.iter().map(|s| s.to_string()).collect())
}

#[test]
fn splits_like_python() -> Result<(), Diag> {
    let x = strings(&["a  b c ", "", " x"])?;
    let line = "v1, v2 = string-split{delimiter=\"\", maxsplit=1} v0 : str[3,A], i64[3]";
    let out = run(line, "v0 \"x\": str[3]", "v1 \"a\", v2 \"n\"", vec![x.clone()])?;
    assert_eq!(out[0].tensor()?.strings(), ["a", "b c", "", "", "x", ""]);
    assert_eq!(out[1].tensor()?.to_i64()?, [2, 0, 1]);
    let line = line.replace("\"\"", "\" \"").replace("=1", "=none");
    let out = run(&line, "v0 \"x\": str[3]", "v1 \"a\", v2 \"n\"", vec![x])?;
    assert_eq!(out[0].tensor()?.strings()[..5], ["a", "", "b", "c", ""]);
    assert_eq!(out[1].tensor()?.to_i64()?, [5, 0, 2]);
    Ok(())
}

#[test]
fn stop_words_vanish() -> Result<(), Diag> {
    let line = "v1 = string-normalize{case=upper, case_sensitive=false, stopwords=[\"Monday\"]} v0 : str[A]";
    let out = run(line, "v0 \"x\": str[2]", "v1 \"a\"", vec![strings(&["monday", "grün"])?])?;
    assert_eq!(out[0].tensor()?.strings(), ["GRÜN"]);
    let out = run(line, "v0 \"x\": str[2]", "v1 \"a\"", vec![strings(&["monday", "MONDAY"])?])?;
    assert_eq!(out[0].tensor()?.strings(), [""]);
    Ok(())
}

#[test]
fn a_pattern_must_match_everything() -> Result<(), Diag> {
    let line = r#"v1 = regex-match{pattern="a|ab"} v0 : bool[3]"#;
    let out = run(line, "v0 \"x\": str[3]", "v1 \"a\"", vec![strings(&["ab", "abc", "a"])?])?;
    assert_eq!(out[0].tensor()?.to_f64(), [1.0, 0.0, 1.0]);
    let words = line.replace("a|ab", r"[\\w.]+\\W\\bc\\]?");
    let out = run(&words, "v0 \"x\": str[3]", "v1 \"a\"", vec![strings(&["a.b c", "é c", "x-c]"])?])?;
    assert_eq!(out[0].tensor()?.to_f64(), [1.0, 0.0, 1.0]);
    let d = run(&line.replace("a|ab", "("), "v0 \"x\": str[3]", "v1 \"a\"", vec![]).err();
    assert_eq!(d.map(|d| d.id), Some("regex-malformed"));
    Ok(())
}

#[test]
fn skipped_bigrams_are_counted() -> Result<(), Diag> {
    let line = "v2 = tf-idf{mode=tf, min_gram=1, max_gram=2, max_skip=1, starts=[0, 2], columns=[0, 1, 2], weights=[]} v0, v1 : f32[3]";
    let x = Tensor::vec_i64(&[1, 2, 3, 1]);
    let pool = Tensor::vec_i64(&[1, 5, 1, 3]);
    let out = run(line, "v0 \"x\": i64[4], v1 \"p\": i64[4]", "v2 \"a\"", vec![x, pool])?;
    assert_eq!(out[0].tensor()?.to_f64(), [2.0, 0.0, 1.0]);
    Ok(())
}
