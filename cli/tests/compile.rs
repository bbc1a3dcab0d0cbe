//! What `compile` makes for several values of a symbol.
#![cfg(all(feature = "llvm", target_arch = "x86_64", target_os = "linux"))]

use planish_ir::Tensor;
use serde_json::{Value, json};
use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

type Outcome = Result<(), Box<dyn Error>>;

/// A product and a reduction on f32[N,T,4]; the second output does not have the batch.
const MODEL: &str = r#"planish-ir 1
graph @"m"(v0 "x": f32[N,T,4], v1 "w": f32[T]) {
  v2 = const f32[4,5] [1, -2, 3, 4, 5, 6, -7, 8, 9, 10, 11, -12, 13, 14, 15, 16, 17, 18, 19, 20]
  v3 = matmul{trans_a=false, trans_b=false} v0, v2 : f32[N,T,5]
  v4 = unary{kind=tanh} v3 : f32[N,T,5]
  v5 "sum" = reduce{kind=sum, axes=[1], keepdims=false, noop_empty=false} v4 : f32[N,5]
  v6 "v" = unary{kind=exp} v1 : f32[T]
  return v5 "sum", v6 "v"
}
"#;

fn planish(dir: &Path, args: &[&str]) -> Result<Output, Box<dyn Error>> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_planish"));
    Ok(command.current_dir(dir).args(args).stdin(Stdio::null()).output()?)
}

fn said(out: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

/// Runs a command that must end with this code.
fn ends(code: i32, dir: &Path, args: &[&str]) -> Result<Output, Box<dyn Error>> {
    let out = planish(dir, args)?;
    assert_eq!(out.status.code(), Some(code), "{args:?}: {}", said(&out));
    Ok(out)
}

/// Inputs for these sizes in a folder of their own.
fn inputs(dir: &Path, n: usize, t: usize) -> Result<String, Box<dyn Error>> {
    let name = format!("in-{n}-{t}");
    fs::create_dir_all(dir.join(&name))?;
    let ramp = |len: usize| (0..len).map(|i| (i as f32 * 0.37).sin()).collect::<Vec<f32>>();
    let x = Tensor::f32s(&[n, t, 4], &ramp(n * t * 4))?;
    fs::write(dir.join(&name).join("x.npy"), planish::io::npy::write(&x))?;
    fs::write(dir.join(&name).join("w.npy"), planish::io::npy::write(&Tensor::f32s(&[t], &ramp(t))?))?;
    Ok(name)
}

/// A folder with the model as ONNX.
fn scene() -> Result<tempfile::TempDir, Box<dyn Error>> {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    fs::write(dir.path().join("m.pir"), MODEL)?;
    ends(0, dir.path(), &["optimize", "m.pir", "-o", "m.onnx", "-O0"])?;
    Ok(dir)
}

fn compile<'a>(out: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["compile", "m.onnx", "-o", out, "--cpu", "host", "--cache-dir", "none"][..], more].concat()
}

fn describe(dir: &Path, program: &str) -> Result<Value, Box<dyn Error>> {
    let out = Command::new(dir.join(program)).args(["--describe", "--json"]).output()?;
    Ok(serde_json::from_slice(&out.stdout)?)
}

/// The program agrees with the interpreter on inputs of these sizes.
fn agrees(dir: &Path, program: &str, n: usize, t: usize) -> Outcome {
    let given = inputs(dir, n, t)?;
    let want = format!("want-{n}-{t}");
    let reference = ["run", "m.onnx", "--inputs", &given, "--output-dir", &want, "--engine", "interp"];
    ends(0, dir, &reference)?;
    let tolerance = ["--rtol", "1e-5", "--atol", "1e-5"];
    ends(0, dir, &[&["run", program, "--inputs", &given, "--expect", &want][..], &tolerance].concat())?;
    Ok(())
}

#[test]
fn several_values_of_a_symbol_get_a_body_each() -> Outcome {
    let dir = scene()?;
    let dir = dir.path();
    let out = ends(0, dir, &compile("m", &["--set", "N=8,1", "-j", "1", "--format", "json"]))?;
    let made: Value = serde_json::from_slice(&out.stdout)?;
    assert_eq!(made["check"]["verdict"], "equal", "{made}");
    ends(0, dir, &compile("again", &["--set", "N=1,8", "-j", "2"]))?;
    assert_eq!(fs::read(dir.join("m"))?, fs::read(dir.join("again"))?, "builds are equal");
    for (n, t) in [(1, 3), (8, 3), (1, 70), (8, 0)] {
        agrees(dir, "./m", n, t)?;
    }
    let third = inputs(dir, 3, 3)?;
    let refused = ends(2, dir, &["run", "./m", "--inputs", &third])?;
    assert!(said(&refused).contains("N = 1, 8 only"), "{}", said(&refused));
    let d = describe(dir, "m")?;
    assert_eq!(d["inputs"][0]["shape"], json!(["N", "T", 4]));
    assert_eq!(d["outputs"][0]["shape"], json!(["N", 5]));
    assert_eq!(d["outputs"][1]["shape"], json!(["T"]));
    assert_eq!(d["symbols"][0], json!({"name": "N", "min": 1, "max": 8, "values": [1, 8]}));
    let bench = ["--bench", "--json", "--duration", "20ms", "--warmup", "1ms", "--set", "T=3", "--set"];
    for (n, code) in [("N=8", 0), ("N=2", 2)] {
        let out = Command::new(dir.join("m")).args(bench).arg(n).output()?;
        assert_eq!(out.status.code(), Some(code), "{}", said(&out));
    }
    Ok(())
}

#[test]
fn values_of_two_symbols_are_combined() -> Outcome {
    let dir = scene()?;
    let dir = dir.path();
    // `batch` is the first axis of both inputs, which is one symbol then.
    ends(0, dir, &compile("m", &["--set", "N=1,2", "--set", "T=3,4"]))?;
    for (n, t) in [(1, 3), (1, 4), (2, 3), (2, 4)] {
        agrees(dir, "./m", n, t)?;
    }
    let third = inputs(dir, 2, 5)?;
    assert!(said(&ends(2, dir, &["run", "./m", "--inputs", &third])?).contains("T = 3, 4 only"));
    ends(0, dir, &compile("b", &["--set", "batch=2,3", "--no-check"]))?;
    agrees(dir, "./b", 2, 2)?;
    agrees(dir, "./b", 3, 3)?;
    assert_eq!(describe(dir, "b")?["inputs"][0]["shape"], json!(["batch", "batch", 4]));
    Ok(())
}

#[test]
fn what_several_values_cannot_mean_is_refused() -> Outcome {
    let dir = scene()?;
    let dir = dir.path();
    let many: Vec<String> = (1..=17).map(|v| v.to_string()).collect();
    let many = format!("N={}", many.join(","));
    for (args, text) in [
        (&["--set", many.as_str()][..], "17 combinations"),
        (&["--set", "N=1,2,3,4,5", "--set", "T=1,2,3,4"], "20 combinations"),
        (&["--set", "K=1,2"], "no symbol \"K\""),
        (&["--set", "N=1,x"], "no list"),
        (&["--set", "N=1,2", "--emit", "onnx"], "holds one graph"),
    ] {
        let out = ends(2, dir, &compile("m", args))?;
        assert!(said(&out).contains(text), "{args:?}: {}", said(&out));
        assert!(!dir.join("m").exists());
    }
    let out = ends(2, dir, &["run", "m.onnx", "--set", "N=1,2", "--engine", "interp"])?;
    assert!(said(&out).contains("only `compile` and `bench`"), "{}", said(&out));
    Ok(())
}
