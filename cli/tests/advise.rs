//! `advise`, and choices by measured costs.
#![cfg(all(feature = "llvm", target_arch = "x86_64", target_os = "linux"))]

use planish_ir::Tensor;
use serde_json::Value;
use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

type Outcome = Result<(), Box<dyn Error>>;

fn planish(dir: &Path, args: &[&str]) -> Result<Output, Box<dyn Error>> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_planish"));
    Ok(command.current_dir(dir).env("XDG_CACHE_HOME", dir).args(args).stdin(Stdio::null()).output()?)
}

/// Runs a command that must end with this code.
fn ends(code: i32, dir: &Path, args: &[&str]) -> Result<String, Box<dyn Error>> {
    let out = planish(dir, args)?;
    let (stdout, stderr) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert_eq!(out.status.code(), Some(code), "{args:?}: {stdout}{stderr}");
    Ok(if code == 2 { stderr.into_owned() } else { stdout.into_owned() })
}

/// A product of 32 rows with weights of 128 x 64, of which one in `keep` is no zero.
fn product(keep: usize) -> String {
    let mut hex = String::new();
    for i in 0..128 * 64usize {
        let x = if (i * 7919 % 1009) % keep == 0 { (i % 13) as f32 - 6.5 } else { 0.0 };
        for b in x.to_le_bytes() {
            let _ = write!(hex, "{b:02x}");
        }
    }
    format!(
        "planish-ir 1\ngraph @\"m\"(v0 \"x\": f32[32,128]) {{\n  v1 = const f32[128,64] 0x{hex}\n  \
         v2 \"y\" = matmul{{trans_a=false, trans_b=false}} v0, v1 : f32[32,64] @\"fc\"\n  return v2 \"y\" }}\n"
    )
}

fn scene() -> Result<tempfile::TempDir, Box<dyn Error>> {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    fs::write(dir.path().join("m.pir"), product(1))?;
    fs::write(dir.path().join("zeros.pir"), product(20))?;
    Ok(dir)
}

/// Samples with labels.
fn samples(path: &Path) -> Outcome {
    let mut zip = zip::ZipWriter::new(fs::File::create(path)?);
    let x: Vec<f32> = (0..3 * 32 * 128).map(|i| (i as f32 * 0.37).sin()).collect();
    let label = Tensor::ints(planish_ir::DType::I64, &[3, 32], vec![5; 96])?;
    for (key, t) in [("x.npy", Tensor::f32s(&[3, 32, 128], &x)?), ("label.npy", label)] {
        zip.start_file(key, zip::write::SimpleFileOptions::default())?;
        zip.write_all(&planish::io::npy::write(&t))?;
    }
    zip.finish()?;
    Ok(())
}

#[test]
fn methods_are_measured_and_judged() -> Outcome {
    let dir = scene()?;
    samples(&dir.path().join("d.npz"))?;
    let args = [
        "advise",
        "m.pir",
        "--budget",
        "4s",
        "--format",
        "json",
        "--data",
        "d.npz",
        "--samples-axis",
        "--quiet",
    ];
    let out = planish(dir.path(), &args)?;
    let v: Value = serde_json::from_slice(&out.stdout)?;
    assert_eq!((v["schema"].as_str(), v["version"].as_u64()), (Some("planish.advise"), Some(1)), "{v}");
    assert!(v["dense_ms"].as_f64().is_some_and(|x| x > 0.0));
    assert!(v["changeable_share"].as_f64().is_some_and(|x| x > 0.0 && x <= 1.0), "{v:#}");
    let helps = v["verdict"]["helps"].as_bool().ok_or("no verdict")?;
    assert_eq!(out.status.code(), Some(i32::from(!helps)), "{v:#}");
    let methods = v["methods"].as_array().ok_or("no methods")?;
    assert_eq!(methods.len(), 8);
    let mut built = 0;
    for m in methods {
        if m["why"].is_string() {
            assert!(m["speedup"].is_null() && m["next"].is_null(), "{m:#}");
            continue;
        }
        built += 1;
        let e = &m["evidence"];
        assert_eq!((e["class"].as_str(), e["synthetic"].as_bool()), (Some("measured"), Some(false)), "{m:#}");
        assert!(e["accuracy_dense"].as_f64().is_some_and(|a| (0.0..=1.0).contains(&a)));
        assert!(m["speedup"]["ratio"].as_f64().is_some_and(|r| r > 0.0));
        assert!(
            m["next"].as_str().is_some_and(|n| n.starts_with("planish compile m.pir -o OUT --data d.npz"))
        );
    }
    assert!(built > 0, "{v:#}");
    Ok(())
}

#[test]
fn where_nothing_helps_it_says_why() -> Outcome {
    let dir = scene()?;
    let relu = "planish-ir 1\ngraph @\"m\"(v0 \"x\": f32[N,3]) {\n  v1 \"y\" = unary{kind=relu} v0 : f32[N,3]\n  return v1 \"y\" }\n";
    fs::write(dir.path().join("r.pir"), relu)?;
    let text = ends(2, dir.path(), &["advise", "r.pir"])?;
    assert!(text.contains("--set 'N=1'"), "{text}");
    fs::write(dir.path().join("fixed.pir"), relu.replace("[N,3]", "[2,3]"))?;
    let text = ends(1, dir.path(), &["advise", "fixed.pir", "--budget", "1s"])?;
    assert!(text.contains("nothing of this will help: no layer"), "{text}");
    ends(2, dir.path(), &["advise", "r.pir", "--budget", "2"])?;
    ends(2, dir.path(), &["advise", "missing.onnx"])?;
    Ok(())
}

#[test]
fn measured_costs_decide_and_are_recorded() -> Outcome {
    let dir = scene()?;
    let d = dir.path();
    let graph = |out: &str, more: &[&str]| {
        ends(0, d, &[&["compile", "zeros.pir", "-o", out, "--emit", "graph", "--force"][..], more].concat())
    };
    let blocks = |out: &str| fs::read_to_string(d.join(out)).is_ok_and(|t| t.contains(" blocks 1x1 "));
    graph("chosen.pir", &["--save-recipe", "plain.toml"])?;
    assert!(blocks("chosen.pir"));
    let mut costs = String::from("version = 1\n");
    for (lanes, block) in [8, 16].iter().flat_map(|l| ["1x1", "1x2", "1x4", "1x16", "4x16"].map(|b| (l, b))) {
        let _ = write!(
            costs,
            "[[kernel]]\nlanes = {lanes}\ndtype = \"f32\"\nblock = \"{block}\"\nrows = 16\nweight = 30.0\nfixed = 1.0\n"
        );
    }
    fs::write(d.join("costs.toml"), &costs)?;
    graph("declined.pir", &["--lock", "costs.toml", "--save-recipe", "r.toml"])?;
    assert!(!blocks("declined.pir"), "the file says that nothing pays");
    let recipe = fs::read_to_string(d.join("r.toml"))?;
    assert!(recipe.contains("lock = \"") && !fs::read_to_string(d.join("plain.toml"))?.contains("lock"));
    let text = ends(2, d, &["compile", "zeros.pir", "-o", "x", "--recipe", "r.toml"])?;
    assert!(text.contains("[lock-missing]"), "{text}");
    graph("again.pir", &["--recipe", "r.toml", "--lock", "costs.toml"])?;
    assert_eq!(fs::read(d.join("declined.pir"))?, fs::read(d.join("again.pir"))?);
    fs::write(d.join("bad.toml"), costs.replace("30.0", "-1.0"))?;
    let text = ends(2, d, &["compile", "zeros.pir", "-o", "x", "--lock", "bad.toml"])?;
    assert!(text.contains("[lock-malformed]"), "{text}");
    ends(2, d, &["compile", "zeros.pir", "-o", "x", "--tune", "1s"])?;
    Ok(())
}

#[test]
fn tuning_writes_what_a_later_build_reads() -> Outcome {
    let dir = scene()?;
    let d = dir.path();
    let args = ["compile", "zeros.pir", "-o", "a.pir", "--emit", "graph", "--lock", "l.toml"];
    ends(0, d, &[&args[..], &["--tune", "10ms"]].concat())?;
    let text = fs::read_to_string(d.join("l.toml"))?;
    assert!(text.starts_with("version = 1\n") && text.contains("[[kernel]]"), "{text}");
    let first = fs::read(d.join("a.pir"))?;
    ends(0, d, &args)?;
    assert_eq!(fs::read(d.join("a.pir"))?, first, "the same lock gives the same bytes");
    Ok(())
}
