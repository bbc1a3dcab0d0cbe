//! What `compile` makes for several values of a symbol, and the data that results are checked on.
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

/// A folder with a sample for each of these sizes.
fn samples(dir: &Path, name: &str, sizes: &[(usize, usize)]) -> Outcome {
    for (k, (n, t)) in sizes.iter().enumerate() {
        let from = inputs(dir, *n, *t)?;
        let to = dir.join(name).join(format!("test_data_set_{k}"));
        fs::create_dir_all(&to)?;
        for file in ["x.npy", "w.npy"] {
            fs::copy(dir.join(&from).join(file), to.join(file))?;
        }
    }
    Ok(())
}

#[test]
fn results_are_checked_on_the_data_given() -> Outcome {
    let dir = scene()?;
    let dir = dir.path();
    samples(dir, "d", &[(1, 3), (8, 3), (1, 70)])?;
    let check = |args: &[&str]| -> Result<Value, Box<dyn Error>> {
        let out = ends(0, dir, &[args, &["--data", "d", "--format", "json"]].concat())?;
        let v: Value = serde_json::from_slice(&out.stdout)?;
        Ok(v["check"].clone())
    };
    let all = check(&compile("m", &[]))?;
    assert_eq!((&all["verdict"], &all["samples"]), (&json!("equal"), &json!(3)), "{all}");
    assert_eq!(all["inputs"], "all 3 samples of d");
    let all = check(&["optimize", "m.onnx", "-o", "o.onnx"])?;
    assert_eq!((&all["verdict"], &all["inputs"]), (&json!("equal"), &json!("all 3 samples of d")), "{all}");
    let all = check(&compile("n", &["--set", "N=1,8"]))?;
    assert_eq!(all["inputs"], "all 3 samples of d");
    let all = check(&compile("o", &["--set", "N=1,8", "--set", "T=3,70"]))?;
    assert_eq!(all["inputs"], "all 3 samples of d, and on synthetic inputs for sizes that no sample has");
    let said = said(&ends(0, dir, &["optimize", "m.onnx", "-o", "p.onnx"])?);
    assert!(said.contains("equal to the interpreter on synthetic inputs"), "{said}");
    let text = planish(dir, &compile("q", &["--data", "d"]))?;
    assert!(String::from_utf8_lossy(&text.stdout).contains("on all 3 samples of d"), "{text:?}");
    let object = check(&compile("m.o", &["--emit", "object"]))?;
    assert_eq!(object["verdict"], "not-checked", "{object}");
    Ok(())
}

#[test]
fn bad_data_is_refused_as_bad_inputs_are() -> Outcome {
    let dir = scene()?;
    let dir = dir.path();
    samples(dir, "sizes", &[(1, 3), (5, 3)])?;
    for bad in ["rank", "torn", "lacks", "empty"] {
        samples(dir, bad, &[(1, 3)])?;
    }
    let set = |name: &str| dir.join(name).join("test_data_set_0");
    fs::write(set("rank").join("x.npy"), planish::io::npy::write(&Tensor::f32s(&[1, 3], &[0.0; 3])?))?;
    fs::write(set("torn").join("x.npy"), b"\x93NUMPY\x01")?;
    fs::remove_file(set("lacks").join("w.npy"))?;
    fs::remove_dir_all(set("empty"))?;
    for (data, id) in [
        ("rank", "[input-mismatch]"),
        ("torn", "[npy-malformed]"),
        ("lacks", "[input-missing]"),
        ("empty", "[input-missing]"),
        ("nowhere", "[usage]"),
        ("m.onnx", "[usage]"),
    ] {
        for args in [compile("m", &["--data", data]), vec!["optimize", "m.onnx", "-o", "m", "--data", data]] {
            let out = ends(2, dir, &args)?;
            assert!(said(&out).contains(id), "{data}: {}", said(&out));
            assert!(!dir.join("m").exists());
        }
    }
    ends(0, dir, &compile("all", &["--data", "sizes"]))?;
    let out = ends(2, dir, &compile("m", &["--data", "sizes", "--set", "N=1,2"]))?;
    assert!(said(&out).contains("test_data_set_1"), "{}", said(&out));
    Ok(())
}

/// Addresses of the kernels in a file by name, and the places that its own tables name, both in the code section.
fn kernels(path: &Path) -> Result<(Vec<(String, u64)>, Vec<u64>), Box<dyn Error>> {
    use object::{Object, ObjectSection, ObjectSymbol};
    let bytes = fs::read(path)?;
    let file = object::File::parse(&*bytes)?;
    let section = |name| file.section_by_name(name).ok_or(format!("no section {name}"));
    let (code, data) = (section(".planish.code")?, section(".planish.data")?);
    let parts = planish_rt::image::Parts { head: data.data()?.to_vec(), code: code.data()?.to_vec() };
    let places: Vec<u64> = parts.entries().into_iter().flat_map(|e| e.starts).collect();
    let mut names = Vec::new();
    for s in file.symbols().filter(|s| s.section_index() == Some(code.index()) && s.size() > 0) {
        assert!(s.address() >= code.address() && s.address() + s.size() <= code.address() + code.size());
        names.push((s.name()?.to_owned(), s.address() - code.address()));
    }
    Ok((names, places))
}

#[test]
fn kernels_have_names_in_machine_code() -> Outcome {
    let dir = scene()?;
    let dir = dir.path();
    let build = |out: &str, more: &[&str]| {
        let args = ["compile", "m.onnx", "-o", out, "--cache-dir", "none", "--no-check", "--name", "m"];
        ends(0, dir, &[&args[..], more].concat())
    };
    build("m", &["--perf-map"])?;
    build("again", &["--perf-map", "-j", "1"])?;
    assert_eq!(fs::read(dir.join("m"))?, fs::read(dir.join("again"))?, "builds are equal");
    let (names, mut places) = kernels(&dir.join("m"))?;
    let mut at: Vec<u64> = names.iter().map(|n| n.1).collect();
    places.sort_unstable();
    at.sort_unstable();
    assert_eq!(at, places);
    let plan: Vec<&str> = names.iter().filter_map(|n| n.0.strip_suffix(".avx2")).collect();
    assert!(!plan.is_empty() && names.len() == 3 * plan.len(), "{names:?}");
    for isa in ["avx512", "avx512bf16"] {
        assert!(plan.iter().all(|k| names.iter().any(|n| n.0 == format!("{k}.{isa}"))), "{names:?}");
    }
    agrees(dir, "./m", 2, 3)?;
    // Without the option there is nothing of it; with several kinds each has the names.
    build("plain", &[])?;
    assert!(kernels(&dir.join("plain")).is_err());
    build("lib", &["--perf-map", "--emit", "object,shared"])?;
    for file in ["lib.o", "lib.so"] {
        let (found, _) = kernels(&dir.join(file))?;
        let same = |n: &&(String, u64)| names.contains(n);
        assert_eq!(found.iter().filter(same).count(), names.len(), "{file}: {found:?}");
    }
    build("bare", &["--emit", "object"])?;
    assert_eq!(kernels(&dir.join("bare"))?.0, []);
    let refused = ends(2, dir, &compile("g", &["--perf-map", "--emit", "graph"]))?;
    assert!(said(&refused).contains("--perf-map"));
    Ok(())
}
