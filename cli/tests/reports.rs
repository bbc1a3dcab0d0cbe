//! Reports as scripts use them: what is written fits the published schema, and can be rendered, compared and judged.
#![cfg(all(feature = "llvm", target_arch = "x86_64", target_os = "linux"))]

use serde_json::Value;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

type Outcome = Result<(), Box<dyn Error>>;

/// `y = relu(x w) + x` on f32[N,32], `w` a matrix.
fn model(scale: f32) -> String {
    let cell = |i: usize| format!("{:?}", scale * (((i * 11 + i / 32) % 19) as f32 + 0.5));
    let cells: Vec<String> = (0..32 * 32).map(cell).collect();
    format!(
        r#"planish-ir 1
graph @"m"(v0 "x": f32[4,32]) {{
  v1 "w" = const f32[32,32] [{}]
  v2 "m" = matmul{{trans_a=false, trans_b=false}} v0, v1 : f32[4,32]              @"/m"
  v3 "r" = unary{{kind=relu}} v2 : f32[4,32]
  v4 "y" = binary{{kind=add}} v3, v0 : f32[4,32]
  return v4 "y"
}}
"#,
        cells.join(", ")
    )
}

fn planish(dir: &Path, args: &[&str]) -> Result<Output, Box<dyn Error>> {
    Ok(Command::new(env!("CARGO_BIN_EXE_planish"))
        .current_dir(dir)
        .args(args)
        .stdin(Stdio::null())
        .output()?)
}

fn code(out: &Output) -> i32 {
    out.status.code().unwrap_or(-1)
}

fn said(out: &Output) -> String {
    String::from_utf8_lossy(&out.stderr).into_owned()
}

fn scene() -> Result<tempfile::TempDir, Box<dyn Error>> {
    // Beside the build, because extended attributes may be missing on other file systems.
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    fs::write(dir.path().join("m.pir"), model(1.0))?;
    Ok(dir)
}

fn published() -> Result<Value, Box<dyn Error>> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/reference/report.schema.json");
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}

/// What of a value does not fit a schema, of the keywords that ours uses. Keys that the schema does not name are errors: the
/// schema is to be complete.
fn misfits(schema: &Value, root: &Value, v: &Value, at: &str, out: &mut Vec<String>) {
    if let Some(name) = schema["$ref"].as_str() {
        let target = root.pointer(name.trim_start_matches('#')).unwrap_or(&Value::Null);
        if target.is_null() {
            out.push(format!("{at}: {name} is not defined"));
        }
        return misfits(target, root, v, at, out);
    }
    for key in ["oneOf", "anyOf"] {
        if let Some(all) = schema[key].as_array() {
            let fits = all.iter().filter(|s| {
                let mut found = Vec::new();
                misfits(s, root, v, at, &mut found);
                found.is_empty()
            });
            let n = fits.count();
            if n == 0 || (key == "oneOf" && n > 1) {
                out.push(format!("{at}: {v} fits {n} of {key}"));
            }
            return;
        }
    }
    if schema.get("const").is_some_and(|c| c != v)
        || schema["enum"].as_array().is_some_and(|all| !all.contains(v))
    {
        out.push(format!("{at}: {v} is not among the values"));
    }
    let is = |name: &str| match name {
        "object" => v.is_object(),
        "array" => v.is_array(),
        "string" => v.is_string(),
        "boolean" => v.is_boolean(),
        "null" => v.is_null(),
        "integer" => v.is_u64() || v.is_i64(),
        "number" => v.is_number(),
        _ => false,
    };
    let fits = match &schema["type"] {
        Value::String(name) => is(name),
        Value::Array(names) => names.iter().filter_map(Value::as_str).any(is),
        _ => schema.get("const").is_some() || schema.get("enum").is_some(),
    };
    if !fits {
        out.push(format!("{at}: {v} is no {}", schema["type"]));
    }
    if v.is_null() {
        return;
    }
    for (i, item) in v.as_array().into_iter().flatten().enumerate() {
        misfits(&schema["items"], root, item, &format!("{at}/{i}"), out);
    }
    let Some(object) = v.as_object() else { return };
    for key in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if !object.contains_key(key) {
            out.push(format!("{at}: {key} is missing"));
        }
    }
    for (key, item) in object {
        match schema["properties"].get(key).or(schema.get("additionalProperties")) {
            Some(s) => misfits(s, root, item, &format!("{at}/{key}"), out),
            None => out.push(format!("{at}: the schema has no {key}")),
        }
    }
}

/// Reads a report and checks it against the schema.
fn report(path: &Path) -> Result<Value, Box<dyn Error>> {
    let v: Value = serde_json::from_slice(&fs::read(path)?)?;
    let schema = published()?;
    let mut found = Vec::new();
    misfits(&schema, &schema, &v, "", &mut found);
    if found.is_empty() { Ok(v) } else { Err(format!("{}: {found:#?}", path.display()).into()) }
}

#[test]
fn the_schema_refuses_what_is_wrong() -> Outcome {
    let schema = published()?;
    let of = |v: Value| {
        let mut found = Vec::new();
        misfits(&schema, &schema, &v, "", &mut found);
        found
    };
    assert!(of(serde_json::json!({})).len() > 3);
    assert!(of(serde_json::json!([])).iter().any(|f| f.contains("is no")));
    assert!(of(serde_json::json!({"speed": 1})).iter().any(|f| f.contains("has no speed")));
    Ok(())
}

#[test]
fn bench_writes_what_report_and_compare_read() -> Outcome {
    let dir = scene()?;
    let at = |name: &str| dir.path().join(name);
    for out in ["a", "b"] {
        let done = planish(dir.path(), &["compile", "m.pir", "-o", out, "--cpu", "host", "--no-check"])?;
        assert_eq!(code(&done), 0, "{}", said(&done));
    }
    let args = ["bench", "old=./a", "new=./b", "--duration", "400ms", "--threads", "1", "--profile"];
    let done = planish(dir.path(), &[&args[..], &["--report", "r.json"]].concat())?;
    assert_eq!(code(&done), 0, "{}", said(&done));
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(text.contains("new against old (1 threads)") && text.contains("in kernels"), "{text}");
    let v = report(&at("r.json"))?;
    assert_eq!(
        (v["results"].as_array().map(Vec::len), v["pairs"].as_array().map(Vec::len)),
        (Some(2), Some(1))
    );
    let first = &v["results"][0];
    for key in ["cold_start_ms", "memory_bytes", "program_bytes", "throughput_per_s", "first_ms"] {
        let known = first[key].as_f64().is_some_and(|n| n > 0.0);
        // Without inputs a program cannot be run but measured.
        assert_eq!(known, key != "cold_start_ms", "{key}: {}", first[key]);
    }
    assert!(first["rounds"].as_u64() >= Some(7) && first["kernels"][0]["us"].as_f64() > Some(0.0));
    assert_eq!(first["turns_ms"].as_array().map(|t| t.len() as u64), first["rounds"].as_u64());
    let rendered = planish(dir.path(), &["report", "r.json"])?;
    let rendered = String::from_utf8_lossy(&rendered.stdout).into_owned();
    assert!(rendered.starts_with("### Planish") && rendered.contains("| `new` | `old` | 1 |"), "{rendered}");
    let again = planish(dir.path(), &["report", "r.json", "--format", "json"])?;
    assert_eq!(serde_json::from_slice::<Value>(&again.stdout)?, v, "reading a report loses nothing");
    // The same report against itself, then one that is much slower and larger.
    let same = ["compare", "r.json", "r.json", "--max-size", "0%"];
    assert_eq!(code(&planish(dir.path(), &same)?), 0);
    let mut worse = v.clone();
    for r in worse["results"].as_array_mut().into_iter().flatten() {
        let turns: Vec<Value> =
            r["turns_ms"].as_array().into_iter().flatten().map(|_| Value::from(1e6)).collect();
        r["turns_ms"] = turns.into();
        r["program_bytes"] = (r["program_bytes"].as_u64().unwrap_or(0) * 2).into();
    }
    fs::write(at("worse.json"), worse.to_string())?;
    let of = |more: &[&str]| planish(dir.path(), &[&["compare", "r.json", "worse.json"], more].concat());
    assert_eq!(code(&of(&[])?), 0, "nothing fails unless asked for");
    for (flag, limit) in [("--max-size", "5%"), ("--max-regression", "3%")] {
        let done = of(&[flag, limit])?;
        assert_eq!(code(&done), 1, "{flag}: {}", said(&done));
        assert!(said(&done).contains("[budget]"), "{}", said(&done));
    }
    let done = of(&["--max-accuracy-drop", "0.5pt"])?;
    assert_eq!(code(&done), 5, "no report has an accuracy: {}", said(&done));
    assert_eq!(code(&of(&["--max-accuracy-drop", "0.5pt", "--inconclusive-ok"])?), 0);
    for wrong in [["--max-size", "5"], ["--max-accuracy-drop", "0.5"], ["--max-accuracy-drop", "1%"]] {
        assert_eq!(code(&of(&wrong)?), 2, "{wrong:?}");
    }
    let json = of(&["--format", "json"])?;
    let json: Value = serde_json::from_slice(&json.stdout)?;
    assert_eq!(
        (json["schema"].as_str(), json["speeds"][0]["paired"].as_bool()),
        (Some("planish.compare"), Some(false))
    );
    fs::write(at("bad.json"), r#"{"schema":"planish.report","version":9}"#)?;
    let done = planish(dir.path(), &["report", "bad.json"])?;
    assert!(code(&done) == 2 && said(&done).contains("[report-malformed]"), "{}", said(&done));
    Ok(())
}

/// A program that prints bench objects with these median times, one after the other.
fn scripted(dir: &Path, name: &str, expression: &str) -> Outcome {
    let text = format!(
        "n=$(cat {name}.n 2>/dev/null || echo 0); echo $((n+1)) > {name}.n\nawk -v n=$n 'BEGIN {{ srand(n+7); printf \"{{\\\"median_ms\\\": %f}}\\n\", {expression} }}'\n"
    );
    fs::write(dir.join(name), text)?;
    Ok(())
}

#[test]
fn budgets_on_speed_are_judged_and_confirmed() -> Outcome {
    let dir = scene()?;
    scripted(dir.path(), "base", "10 + 0.02 * (n % 3)")?;
    scripted(dir.path(), "slow", "11 + 0.02 * (n % 2)")?;
    scripted(dir.path(), "once", "(n < 8 ? 11 : 10) + 0.02 * (n % 2)")?;
    scripted(dir.path(), "wild", "n % 2 ? 5 : 20")?;
    let bench = |other: &str, more: &[&str]| {
        for name in ["base", other] {
            // Each measurement begins anew; a file that is not there is as good.
            let _ = fs::remove_file(dir.path().join(format!("{name}.n")));
        }
        let other = format!("cmd:sh ./{other}");
        let args = ["bench", "cmd:sh ./base", &other, "--duration", "10ms", "--max-regression", "3%"];
        planish(dir.path(), &[&args[..], &["--format", "json"], more].concat())
    };
    let done = bench("slow", &[])?;
    assert_eq!(code(&done), 1, "{}", said(&done));
    let v: Value = serde_json::from_slice(&done.stdout)?;
    assert_eq!((&v["pairs"][0]["verdict"], &v["pairs"][0]["remeasured"]), (&"slower".into(), &true.into()));
    assert_eq!((&v["budgets"][0]["outcome"], &v["exit"]), (&"violated".into(), &1.into()));
    // Slow in the first measurement only: not reported as a regression.
    let done = bench("once", &[])?;
    assert_ne!(code(&done), 1, "{}", said(&done));
    let v: Value = serde_json::from_slice(&done.stdout)?;
    assert_eq!(v["pairs"][0]["remeasured"], true);
    let done = bench("wild", &[])?;
    assert_eq!(code(&done), 5, "{}", said(&done));
    assert_eq!(code(&bench("wild", &["--inconclusive-ok"])?), 0);
    let done = bench("base", &[])?;
    assert_eq!(code(&done), 0, "{}", said(&done));
    Ok(())
}

#[test]
fn compile_and_optimize_tell_what_was_done_to_each_layer() -> Outcome {
    let dir = scene()?;
    let pass = ["--pass", "prune-magnitude:sparsity=0.5,first=true"];
    for (verb, out) in [("compile", "m"), ("optimize", "m.onnx")] {
        let args = [verb, "m.pir", "-o", out, "--report", "r.json"];
        let done = planish(dir.path(), &[&args[..], &pass].concat())?;
        assert_eq!(code(&done), 0, "{}", said(&done));
        let v = report(&dir.path().join("r.json"))?;
        let m = &v["models"][0];
        assert_eq!((&v["command"], &m["layers"][0]["node"]), (&verb.into(), &"/m".into()), "{v:#}");
        assert_eq!(m["layers"][0]["weights"], "f32 32x32");
        let pruned = m["passes"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|p| p["pass"].as_str().is_some_and(|t| t.starts_with("prune-magnitude")));
        assert!(pruned.is_some_and(|p| p["edits"].as_u64() == Some(1)), "{v:#}");
        assert!(m["recipe"].as_str().is_some_and(|t| t.contains("prune-magnitude")));
        assert!(m["lossy"][0].is_string() && m["sizes"]["artifact"].as_u64() > Some(0));
        assert_eq!(m["sizes"]["code"].as_u64().is_some(), verb == "compile");
        let rendered = planish(dir.path(), &["report", "r.json"])?;
        assert!(String::from_utf8_lossy(&rendered.stdout).contains("`/m`"));
    }
    fs::write(dir.path().join("mine.json"), "{}")?;
    let done = planish(dir.path(), &["compile", "m.pir", "-o", "other", "--report", "mine.json"])?;
    assert_eq!((code(&done), dir.path().join("other").exists()), (2, false), "{}", said(&done));
    Ok(())
}

#[test]
fn a_manifest_drives_check_compile_and_bench() -> Outcome {
    let dir = scene()?;
    fs::create_dir(dir.path().join("nets"))?;
    fs::write(dir.path().join("nets/two.pir"), model(2.0))?;
    let write = |extra: &str| {
        let text = format!(
            "version = 1\n[[model]]\npath = 'm.pir'\nbudget.max-size = '50M'\n\n\
             [[model]]\nname = 'second'\npath = 'nets/two.pir'\npasses = 'prune-magnitude{{sparsity=0.5,first=true}}'\n\
             base = ['dense']\nthreads = [1]\nduration = '200ms'\n{extra}"
        );
        fs::write(dir.path().join("planish.toml"), text)
    };
    write("")?;
    let done = planish(dir.path(), &["check", "planish.toml", "--format", "json"])?;
    assert_eq!(code(&done), 0, "{}", said(&done));
    let v: Value = serde_json::from_slice(&done.stdout)?;
    assert_eq!(v["models"].as_array().map(Vec::len), Some(2));
    let done = planish(dir.path(), &["compile", "planish.toml", "-o", "out", "--report", "c.json"])?;
    assert_eq!(code(&done), 0, "{}", said(&done));
    assert!(dir.path().join("out/m").exists() && dir.path().join("out/second").exists());
    let v = report(&dir.path().join("c.json"))?;
    assert_eq!(
        (v["models"].as_array().map(Vec::len), &v["budgets"][0]["outcome"]),
        (Some(2), &"kept".into())
    );
    let table = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(table.lines().any(|l| l.starts_with("m ") && l.contains("max-size kept")), "{table}");
    let done = planish(dir.path(), &["bench", "planish.toml", "--report", "b.json"])?;
    assert_eq!(code(&done), 0, "{}", said(&done));
    let v = report(&dir.path().join("b.json"))?;
    assert_eq!((&v["pairs"][0]["base"], &v["pairs"][0]["other"]), (&"second:dense".into(), &"second".into()));
    assert_eq!(v["results"].as_array().map(Vec::len), Some(3));
    // One model that violates, one that is broken: the others go on, and the gravest finding is the exit code.
    write("budget.min-speedup = '50x'\n")?;
    let done = planish(dir.path(), &["bench", "planish.toml"])?;
    assert_eq!(code(&done), 1, "{}", said(&done));
    write("[[model]]\npath = 'gone.onnx'\n")?;
    let done = planish(dir.path(), &["compile", "planish.toml", "-o", "out"])?;
    assert_eq!(code(&done), 2, "{}", said(&done));
    assert!(
        String::from_utf8_lossy(&done.stdout).lines().any(|l| l.starts_with("gone ") && l.contains("failed"))
    );
    write("speed = 1\n")?;
    let done = planish(dir.path(), &["check", "planish.toml"])?;
    assert!(code(&done) == 2 && said(&done).contains("[manifest-malformed]"), "{}", said(&done));
    assert_eq!(code(&planish(dir.path(), &["bench", "planish.toml", "m.pir"])?), 2);
    Ok(())
}
