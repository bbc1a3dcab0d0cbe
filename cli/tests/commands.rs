//! The command as scripts use it: exit codes, JSON, files.

use serde_json::Value;
use std::error::Error;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

type Outcome = Result<(), Box<dyn Error>>;

/// `y = relu(x) + x` on f32[N,3].
const MODEL: &str = r#"planish-ir 1
graph @"m"(v0 "x": f32[N,3]) {
  v1 "r" = unary{kind=relu} v0 : f32[N,3]
  v2 "y" = binary{kind=add} v1, v0 : f32[N,3]
  return v2 "y"
}
"#;

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

fn json(out: &Output) -> Result<Value, Box<dyn Error>> {
    Ok(serde_json::from_slice(&out.stdout)?)
}

fn npy(values: &[f32]) -> Vec<u8> {
    let shape = [values.len() / 3, 3];
    match planish_ir::Tensor::f32s(&shape, values) {
        Ok(t) => planish::io::npy::write(&t),
        Err(e) => panic!("{e}"),
    }
}

/// A folder with a model, inputs and expected outputs.
fn scene() -> Result<tempfile::TempDir, Box<dyn Error>> {
    // Beside the build, because extended attributes may be missing on other file systems.
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    fs::write(dir.path().join("m.pir"), MODEL)?;
    fs::create_dir(dir.path().join("in"))?;
    fs::write(dir.path().join("in/input_0.npy"), npy(&[1.0, -2.0, 3.0]))?;
    fs::create_dir(dir.path().join("want"))?;
    fs::write(dir.path().join("want/output_0.npy"), npy(&[2.0, -2.0, 6.0]))?;
    Ok(dir)
}

#[test]
fn run_compares_and_says_so_by_its_exit_code() -> Outcome {
    let dir = scene()?;
    let run = |extra: &[&str]| {
        let args = [&["run", "m.pir", "--inputs", "in", "--engine", "interp"][..], extra].concat();
        planish(dir.path(), &args)
    };
    let out = run(&["--expect", "want", "--format", "json"])?;
    assert_eq!(code(&out), 0, "{}", String::from_utf8_lossy(&out.stderr));
    let v = json(&out)?;
    assert_eq!((v["schema"].as_str(), v["version"].as_u64()), (Some("planish.run"), Some(1)));
    assert_eq!(v["samples"][0]["ok"], Value::Bool(true));
    fs::write(dir.path().join("want/output_0.npy"), npy(&[2.0, -2.5, 6.0]))?;
    let out = run(&["--expect", "want"])?;
    assert_eq!(code(&out), 4);
    assert!(String::from_utf8_lossy(&out.stderr).contains("[mismatch]"));
    assert_eq!(code(&run(&["--expect", "nowhere"])?), 2);
    assert_eq!(code(&run(&["--engine", "warp"])?), 2);
    assert_eq!(code(&run(&["--state", "z=x"])?), 2);
    Ok(())
}

#[test]
fn outputs_replace_only_what_planish_wrote() -> Outcome {
    let dir = scene()?;
    let args = ["run", "m.pir", "--inputs", "in", "--engine", "interp", "--output-dir", "out", "--pb"];
    assert_eq!(code(&planish(dir.path(), &args)?), 0);
    assert!(dir.path().join("out/output_0.pb").exists());
    assert_eq!(code(&planish(dir.path(), &args)?), 0, "its own files are replaced");
    fs::write(dir.path().join("out/output_0.npy"), "mine")?;
    let out = planish(dir.path(), &args)?;
    assert_eq!(code(&out), 2);
    assert!(String::from_utf8_lossy(&out.stderr).contains("[output-exists]"));
    assert_eq!(fs::read_to_string(dir.path().join("out/output_0.npy"))?, "mine");
    assert_eq!(code(&planish(dir.path(), &[&args[..], &["--force"]].concat())?), 0);
    let left: Vec<_> = fs::read_dir(dir.path().join("out"))?.flatten().map(|e| e.file_name()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
    Ok(())
}

#[test]
fn check_lists_problems_of_all_models() -> Outcome {
    let dir = scene()?;
    fs::create_dir_all(dir.path().join("deep/er"))?;
    fs::write(dir.path().join("deep/bad.onnx"), b"\x08\x07\xff")?;
    fs::write(dir.path().join("deep/er/empty.onnx"), b"")?;
    let out = planish(dir.path(), &["check", "--format", "json", "m.pir", "deep"])?;
    assert_eq!(code(&out), 2);
    let v = json(&out)?;
    assert_eq!(v["schema"], "planish.check");
    let models = v["models"].as_array().ok_or("no models")?;
    let ok: Vec<bool> = models.iter().filter_map(|m| m["ok"].as_bool()).collect();
    assert_eq!(ok, [true, false, false]);
    assert_eq!(models[2]["diagnostics"][0]["id"], "onnx-empty-file");
    assert_eq!(code(&planish(dir.path(), &["check", "in"])?), 2, "a folder without models");
    assert_eq!(code(&planish(dir.path(), &["check", "m.pir"])?), 0);
    let unranked = MODEL.replace("f32[N,3]", "f32[..]");
    fs::write(dir.path().join("unranked.pir"), unranked)?;
    let out = planish(dir.path(), &["check", "unranked.pir"])?;
    assert_eq!(code(&out), 3, "what can be imported but not compiled: {out:?}");
    Ok(())
}

#[test]
fn no_bytes_make_it_panic() -> Outcome {
    let dir = scene()?;
    let mut state = 1u64;
    for len in [0usize, 1, 2, 3, 7, 64, 300] {
        let mut bytes = Vec::new();
        for _ in 0..len {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            bytes.push((state >> 56) as u8);
        }
        for name in ["x.onnx", "x.pir"] {
            fs::write(dir.path().join(name), &bytes)?;
            for verb in ["check", "inspect"] {
                let out = planish(dir.path(), &[verb, name])?;
                assert_eq!(code(&out), 2, "{verb} {bytes:?}: {}", String::from_utf8_lossy(&out.stderr));
            }
        }
    }
    Ok(())
}

#[test]
fn usage_errors_end_with_two_and_help_with_zero() -> Outcome {
    let dir = scene()?;
    for args in [
        &["frobnicate"][..],
        &["run"],
        &["run", "m.pir", "--threads", "0"],
        &["bench", "m.pir", "--duration", "5"],
    ] {
        assert_eq!(code(&planish(dir.path(), args)?), 2, "{args:?}");
    }
    let torn = planish(dir.path(), &["optimize", "m.pir", "-o", "o.onnx", "--passes", "a,bk=v", "a,bk=v"])?;
    assert_eq!(code(&torn), 2);
    assert!(
        String::from_utf8_lossy(&torn.stderr).contains("quotes"),
        "{}",
        String::from_utf8_lossy(&torn.stderr)
    );
    assert_eq!(code(&planish(dir.path(), &["--help"])?), 0);
    assert_eq!(code(&planish(dir.path(), &["explain", "unsupported-op"])?), 0);
    assert_eq!(code(&planish(dir.path(), &["explain", "no-such-id"])?), 2);
    Ok(())
}

#[test]
fn inspect_and_references_print_json() -> Outcome {
    let dir = scene()?;
    let v = json(&planish(dir.path(), &["inspect", "m.pir", "--format", "json"])?)?;
    assert_eq!(v["schema"], "planish.inspect");
    assert_eq!(v["inputs"][0]["shape"], serde_json::json!(["N", 3]));
    assert_eq!(v["nodes"], 2);
    for verb in ["passes", "ops", "targets", "explain"] {
        let v = json(&planish(dir.path(), &[verb, "--format", "json"])?)?;
        assert_eq!(v["schema"], format!("planish.{verb}"));
    }
    let dot = planish(dir.path(), &["inspect", "m.pir", "--format", "dot"])?;
    assert!(String::from_utf8_lossy(&dot.stdout).starts_with("digraph"));
    Ok(())
}

#[test]
fn optimize_writes_a_model_that_verifies() -> Outcome {
    let dir = scene()?;
    let out = planish(
        dir.path(),
        &["optimize", "m.pir", "-o", "o.onnx", "--format", "json", "--save-recipe", "r.toml"],
    )?;
    assert_eq!(code(&out), 0, "{}", String::from_utf8_lossy(&out.stderr));
    assert_eq!(json(&out)?["check"]["verdict"], "equal");
    let again = planish(dir.path(), &["optimize", "m.pir", "-o", "p.onnx", "--recipe", "r.toml"])?;
    assert_eq!(code(&again), 0);
    assert_eq!(fs::read(dir.path().join("o.onnx"))?, fs::read(dir.path().join("p.onnx"))?);
    let same = planish(dir.path(), &["verify", "m.pir", "o.onnx", "--inputs", "in", "--format", "json"])?;
    assert_eq!(code(&same), 0, "{}", String::from_utf8_lossy(&same.stderr));
    assert_eq!(json(&same)?["equal"], Value::Bool(true));
    fs::write(dir.path().join("other.pir"), MODEL.replace("kind=add", "kind=sub"))?;
    assert_eq!(code(&planish(dir.path(), &["verify", "m.pir", "other.pir", "--inputs", "in"])?), 4);
    Ok(())
}

#[test]
fn the_worker_survives_every_request() -> Outcome {
    let dir = scene()?;
    let mut child = Command::new(env!("CARGO_BIN_EXE_planish"))
        .args(["worker", "--engine", "interp"])
        .current_dir(dir.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut stdin = child.stdin.take().ok_or("no stdin")?;
    for line in [
        r#"{"id":"a","model":"m.pir","inputs":["in/input_0.npy"],"outdir":"w"}"#,
        "no json",
        r#"{"id":2,"model":"missing.onnx","inputs":[],"outdir":"w"}"#,
        r#"{"id":3,"model":"m.pir","inputs":[],"outdir":"w"}"#,
        r#"{"id":4,"model":"m.pir","inputs":["in/input_0.npy"],"outdir":"w"}"#,
    ] {
        writeln!(stdin, "{line}")?;
    }
    drop(stdin);
    let out = child.wait_with_output()?;
    assert_eq!(code(&out), 0);
    let answers: Vec<Value> =
        String::from_utf8(out.stdout)?.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let status: Vec<&str> = answers.iter().filter_map(|a| a["status"].as_str()).collect();
    assert_eq!(status, ["ok", "error", "error", "error", "ok"]);
    assert_eq!((&answers[0]["id"], &answers[4]["id"]), (&Value::from("a"), &Value::from(4)));
    assert!(dir.path().join("w/output_0.pb").exists());
    Ok(())
}

#[cfg(all(feature = "llvm", target_arch = "x86_64", target_os = "linux"))]
mod compiled {
    use super::*;

    #[test]
    fn the_program_does_what_the_model_does() -> Outcome {
        let dir = scene()?;
        let compile = |out: &str, jobs: &str| {
            planish(
                dir.path(),
                &["compile", "m.pir", "-o", out, "-j", jobs, "--cache-dir", "none", "--format", "json"],
            )
        };
        let out = compile("m", "1")?;
        assert_eq!(code(&out), 0, "{}", String::from_utf8_lossy(&out.stderr));
        assert_eq!(json(&out)?["check"]["verdict"], "equal");
        assert_eq!(code(&compile("again", "2")?), 0);
        assert_eq!(fs::read(dir.path().join("m"))?, fs::read(dir.path().join("again"))?, "builds are equal");
        let ran = planish(dir.path(), &["run", "./m", "--inputs", "in", "--expect", "want"])?;
        assert_eq!(code(&ran), 0, "{}", String::from_utf8_lossy(&ran.stderr));
        fs::write(dir.path().join("want/output_0.npy"), npy(&[0.0, 0.0, 0.0]))?;
        assert_eq!(code(&planish(dir.path(), &["run", "./m", "--inputs", "in", "--expect", "want"])?), 4);
        let bench = planish(
            dir.path(),
            &["bench", "./m", "--inputs", "in", "--duration", "300ms", "--format", "json"],
        )?;
        assert_eq!(code(&bench), 0, "{}", String::from_utf8_lossy(&bench.stderr));
        let v = json(&bench)?;
        assert_eq!(v["schema"], "planish.report");
        assert!(v["median_ms"].as_f64().is_some_and(|m| m > 0.0));
        Ok(())
    }

    #[test]
    fn approximations_are_asked_for_and_recorded() -> Outcome {
        let dir = scene()?;
        fs::write(dir.path().join("m.pir"), MODEL.replace("kind=relu", "kind=sigmoid"))?;
        let more: [&[&str]; 3] = [&[], &["--fast-math", "--save-recipe", "r.toml"], &["--recipe", "r.toml"]];
        for (out, more) in ["exact.kir", "fast.kir", "again.kir"].iter().zip(more) {
            let args = ["compile", "m.pir", "-o", out, "--emit", "kernels", "--cache-dir", "none"];
            let out = planish(dir.path(), &[&args[..], more].concat())?;
            assert_eq!(code(&out), 0, "{}", String::from_utf8_lossy(&out.stderr));
        }
        let [exact, fast, again] =
            ["exact.kir", "fast.kir", "again.kir"].map(|f| fs::read(dir.path().join(f)).unwrap_or_default());
        assert!(!exact.is_empty() && exact != fast);
        assert_eq!(fast, again, "the recipe says it");
        let out =
            planish(dir.path(), &["compile", "m.pir", "-o", "m", "--fast-math", "--cache-dir", "none"])?;
        assert_eq!(code(&out), 0, "{}", String::from_utf8_lossy(&out.stderr));
        Ok(())
    }

    #[test]
    fn several_kinds_share_a_stem() -> Outcome {
        let dir = scene()?;
        let args = [
            "compile",
            "m.pir",
            "-o",
            "d/m",
            "--emit",
            "kernels,graph,header,object,llvm-ir",
            "--cache-dir",
            "none",
            "--no-check",
        ];
        let out = planish(dir.path(), &args)?;
        assert_eq!(code(&out), 0, "{}", String::from_utf8_lossy(&out.stderr));
        let mut names: Vec<String> = fs::read_dir(dir.path().join("d"))?
            .flatten()
            .filter_map(|e| e.file_name().into_string().ok())
            .collect();
        names.sort();
        assert_eq!(names, ["m.h", "m.kir", "m.ll", "m.o", "m.pir"]);
        Ok(())
    }
}
