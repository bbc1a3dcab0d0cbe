//! CSV files on the command line: text and numbers become samples with classes, files that are wrong are refused.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use serde_json::{Value, json};
use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

type Outcome = Result<(), Box<dyn Error>>;

fn ends(code: i32, dir: &Path, args: &[&str]) -> Result<Output, Box<dyn Error>> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_planish"));
    command.env("XDG_CACHE_HOME", dir.join("cache"));
    let out = command.current_dir(dir).args(args).stdin(Stdio::null()).output()?;
    let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert_eq!(out.status.code(), Some(code), "{args:?}: {said}");
    Ok(out)
}

/// A 16 x 16 matrix with the number in the diagonal, but for the first row, and a little elsewhere.
fn matrix(diagonal: f64) -> String {
    let value = |i: usize| match i {
        0..16 => 0.0,
        i if i.is_multiple_of(17) => diagonal,
        i => (i * 7 % 5) as f64 * 0.001,
    };
    (0..256).map(|i| value(i).to_string()).collect::<Vec<_>>().join(", ")
}

/// Scores of 16 classes: how often the id of each is in the text; 0 has no score. With `layout` the axes of tokens and of rows.
fn counts(shape: &str, tokens: usize, rows: &str) -> String {
    let taken = if tokens == 1 { format!("{rows},T") } else { format!("T,{rows}") };
    let axis = tokens;
    format!(
        "planish-ir 1\ngraph @\"m\"(v0 \"ids\": {shape}) {{\n  v1 = const f32[16,16] [{}]\n  v2 = gather{{axis=0}} v1, v0 : f32[{taken},16]\n  v3 = reduce{{kind=sum, axes=[{axis}], keepdims=false, noop_empty=false}} v2 : f32[{rows},16]\n  v4 = const f32[16,16] [{}]\n  v5 = matmul{{trans_a=false, trans_b=false}} v3, v4 : f32[{rows},16]\n  return v5 \"y\"\n}}\n",
        matrix(1.0),
        matrix(1.0),
    )
}

/// What `optimize` says of the accuracy, and what it says on stderr.
fn accuracy(dir: &Path, args: &[&str]) -> Result<(Value, String), Box<dyn Error>> {
    let fixed = ["-o", "o.onnx", "--format", "json", "--pass", "quantize:first=true", "--force"];
    let out = ends(0, dir, &[&["optimize"], args, &fixed].concat())?;
    let all: Value = serde_json::from_slice(&out.stdout)?;
    Ok((all["accuracy"].clone(), String::from_utf8(out.stderr)?))
}

fn gz(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut e = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    e.write_all(bytes)?;
    e.finish()
}

#[test]
fn reviews_are_classified_by_their_words() -> Outcome {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let dir = dir.path();
    fs::write(dir.join("m.pir"), counts("i64[N,T]", 1, "N"))?;
    fs::write(dir.join("t.pir"), counts("i32[T,N]", 0, "N"))?;
    // The word of id k is w{30 - k}: neither the order of letters nor that of frequency would give these ids.
    let words: String = (2..16).map(|k| format!("w{}\n", 30 - k)).collect();
    fs::write(dir.join("words.txt"), format!("planish-vocabulary 1\n{words}"))?;
    let mut csv = "source,text,label\n".to_owned();
    for k in 2..14 {
        // Most of a row is its own word, and the tenth has a wrong class.
        let label = if k == 11 { 5 } else { k };
        writeln!(csv, "here,\"W{0}<br />W{0}, w{1}!\nw{0}\",{label}", 30 - k, 31 - k)?;
        writeln!(csv, "there,nothing,1")?;
    }
    fs::write(dir.join("r.csv"), &csv)?;
    fs::write(dir.join("r.csv.gz"), gz(csv.as_bytes())?)?;
    let text = ["--text-column", "text", "--where", "source=here", "--vocabulary", "words.txt"];
    for (model, data, more) in [
        ("m.pir", "r.csv", &[][..]),
        ("m.pir", "r.csv.gz", &["--pad", "back", "--tokens", "9"]),
        ("t.pir", "r.csv", &["--text-layout", "time-first"]),
    ] {
        let (a, said) = accuracy(dir, &[&[model, "--data", data], &text[..], more].concat())?;
        assert_eq!(
            (&a["metric"], &a["class"], &a["held_out"]),
            (&json!("top1"), &json!("measured"), &json!(true))
        );
        assert_eq!((&a["before"], &a["samples"]), (&json!(0.5), &json!(2)), "{model} {data}: {a}");
        let tokens = if more.contains(&"9") { 9 } else { 4 };
        let note = format!(
            "text of \"text\": 12 rows of {tokens} tokens (the longest has 4), ids below 16 by the vocabulary words.txt"
        );
        assert!(said.contains(&note), "{said}");
    }
    // With the words of these rows the ids are others.
    let own = ["m.pir", "--data", "r.csv", "--text-column", "text", "--where", "source=here"];
    let (a, said) = accuracy(dir, &own)?;
    assert!(said.contains("ids below 15 by the vocabulary of these rows"), "{said}");
    assert_eq!(a["before"], 0.0, "{a}");
    // Ids that the model has no row for are an error of the data, and not a crash.
    let bytes = ["optimize", "m.pir", "-o", "z.onnx", "--data", "r.csv", "--text-column", "text"];
    let out =
        ends(2, dir, &[&bytes[..], &["--tokenizer", "byte", "--pass", "quantize:first=true"]].concat())?;
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(said.contains("r.csv: line ") && said.contains("an index is out of range"), "{said}");
    assert!(!dir.join("z.onnx").exists());
    Ok(())
}

#[test]
fn measurements_are_classified_by_their_largest_column() -> Outcome {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let dir = dir.path();
    let model = format!(
        "planish-ir 1\ngraph @\"m\"(v0 \"x\": f32[N,16]) {{\n  v1 = const f32[16,16] [{}]\n  v2 = matmul{{trans_a=false, trans_b=false}} v0, v1 : f32[N,16]\n  return v2 \"y\"\n}}\n",
        matrix(1.0)
    );
    fs::write(dir.join("m.pir"), model)?;
    // Names of classes and columns of no use stand between the numbers.
    let columns: Vec<String> = (0..16).map(|c| format!("c{c}")).collect();
    let mut csv = format!("kind,{},\"remarks, if any\"\n", columns.join(","));
    for k in (0..16).rev() {
        let numbers: Vec<String> = (0..16).map(|c| if c == k { "4.5" } else { "-.5e-1" }.into()).collect();
        writeln!(csv, "k{k:02},{},none", numbers.join(","))?;
    }
    fs::write(dir.join("n.csv"), csv)?;
    let (a, said) = accuracy(dir, &["m.pir", "--data", "n.csv", "--label-column", "kind"])?;
    assert_eq!((&a["before"], &a["samples"]), (&json!(1.0), &json!(3)), "{a}");
    assert!(
        said.contains("numbers: 16 rows of \"c0\", \"c1\"") && said.contains("not used: \"remarks, if any\"")
    );
    assert!(said.contains("classes: 0 \"k00\", 1 \"k01\""), "{said}");
    let (a, _) = accuracy(dir, &["m.pir", "--data", "n.csv"])?;
    assert_eq!(a["class"], "proxy", "without --label-column there are no classes: {a}");
    Ok(())
}

#[test]
fn tables_that_are_wrong_are_refused_and_nothing_is_written() -> Outcome {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let dir = dir.path();
    fs::write(dir.join("m.pir"), counts("i64[N,T]", 1, "N"))?;
    let text = ["--text-column", "text"];
    for (file, args, want) in [
        (&b""[..], &text[..], "[csv-empty]: x.csv: the file is empty"),
        (b"a\n1\n", &text, "[csv-column]: x.csv: there is no column \"text\""),
        (b"text,label\na,1\nb\n", &text, "[csv-malformed]: x.csv: line 3, column \"label\": 1 fields"),
        (b"text,label\n\"a,1\n", &text, "[csv-malformed]: x.csv: line 2, column \"text\": a quote is opened"),
        (b"text,label\na\xff,1\n", &text, "[csv-malformed]: x.csv: line 2, column \"text\": not UTF-8"),
        (b"text,label\na,\n", &text, "[csv-value]: x.csv: line 2, column \"label\""),
        (
            b"text\na\n",
            &["--text-column", "text", "--where", "text=b"],
            "[csv-empty]: x.csv: no row has text=b",
        ),
        (
            b"text\na\n",
            &["--text-column", "text", "--vocabulary", "m.pir"],
            "[vocabulary-malformed]: m.pir: line 1",
        ),
        (b"c\n1\n", &[], "[csv-input]"),
        (b"\x1f\x8b\x08\0", &text, "[csv-malformed]: x.csv"),
        (b"text\na\n", &["--pad", "back"], "--text-column <NAME>"),
    ] {
        fs::write(dir.join("x.csv"), file)?;
        let out = ends(2, dir, &[&["optimize", "m.pir", "-o", "z.onnx", "--data", "x.csv"], args].concat())?;
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(said.contains(want), "{:?} {args:?}: {said}", String::from_utf8_lossy(file));
        assert!(!dir.join("z.onnx").exists());
    }
    Ok(())
}
