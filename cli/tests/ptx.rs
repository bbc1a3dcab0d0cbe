//! GPUs: files, exit codes, and random graphs through PTX text in the PTX interpreter.
#![cfg(feature = "llvm")]
#![allow(clippy::print_stdout, reason = "shown with --nocapture")]

use planish_testsuite::differential::{Outcome, kinds, report, run, supported};
use planish_testsuite::smith::{RECIPES, sketches};
use planish_testsuite::tools;
use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

type Outcomes = Result<(), Box<dyn Error>>;

/// Broadcasting, a long reduction, a batched product and a convolution, on f32[N,4,70].
const MODEL: &str = r#"planish-ir 1
graph @"m"(v0 "x": f32[N,4,70], v1 "w": f32[70,33]) {
  v2 = const f32[4,1] [1, -2, 0.5, 4]
  v3 = binary{kind=mul} v0, v2 : f32[N,4,70]
  v4 = unary{kind=tanh} v3 : f32[N,4,70]
  v5 "sum" = reduce{kind=sum, axes=[2], keepdims=false, noop_empty=false} v4 : f32[N,4]
  v6 "y" = matmul{trans_a=false, trans_b=false} v4, v1 : f32[N,4,33]
  return v5 "sum", v6 "y"
}
"#;

/// Strings have no kernels.
const STRINGS: &str = r#"planish-ir 1
graph @"s"(v0 "x": str[N]) {
  v1 "y" = string-concat v0, v0 : str[N]
  return v1 "y"
}
"#;

fn planish(dir: &Path, args: &[&str], ptxas: Option<&Path>) -> Result<Output, Box<dyn Error>> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_planish"));
    command.current_dir(dir).args(args).stdin(Stdio::null());
    if let Some(path) = ptxas {
        command.env("PLANISH_PTXAS", path);
    }
    Ok(command.output()?)
}

fn scene() -> Result<tempfile::TempDir, Box<dyn Error>> {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    fs::write(dir.path().join("m.pir"), MODEL)?;
    fs::write(dir.path().join("s.pir"), STRINGS)?;
    Ok(dir)
}

fn said(out: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

#[test]
fn ptx_is_written_checked_and_the_same_each_time() -> Outcomes {
    let dir = scene()?;
    let compile = |out: &str, jobs: &str| -> Result<(serde_json::Value, String), Box<dyn Error>> {
        let args = ["compile", "m.pir", "-o", out, "--target", "nvptx:sm_80", "--emit", "ptx", "-j", jobs];
        let done = planish(dir.path(), &[&args[..], &["--format", "json"]].concat(), None)?;
        assert_eq!(done.status.code(), Some(0), "{}", said(&done));
        Ok((serde_json::from_slice(&done.stdout)?, fs::read_to_string(dir.path().join(out))?))
    };
    let (report, text) = compile("one.ptx", "1")?;
    assert_eq!(report["check"]["verdict"], "equal", "{report}");
    assert!(text.starts_with(".version 8.0\n.target sm_80\n.address_size 64\n"), "{text}");
    assert_eq!(text.matches(".version").count(), 1);
    for part in [".entry k_matmul_0", ".entry k_reduce_0", "bar.sync", "fma.rn.f32"] {
        assert!(text.contains(part), "no {part} in\n{text}");
    }
    assert_eq!(compile("two.ptx", "3")?.1, text);
    Ok(())
}

#[test]
fn a_cubin_needs_ptxas() -> Outcomes {
    let dir = scene()?;
    let args = ["compile", "m.pir", "-o", "m.cubin", "--target", "nvptx:sm_90", "--emit", "cubin"];
    let done = planish(dir.path(), &args, Some(Path::new("/nowhere/ptxas")))?;
    assert_eq!(done.status.code(), Some(6), "{}", said(&done));
    assert!(said(&done).contains("machine-ptxas") && !dir.path().join("m.cubin").exists());
    let ptxas = tools::ptxas();
    let done = planish(dir.path(), &args, Some(&ptxas))?;
    let hint = "set PLANISH_PTXAS to a ptxas 13.0 or run `cargo xtask setup`";
    assert_eq!(done.status.code(), Some(0), "{}: {}; {hint}", ptxas.display(), said(&done));
    assert_eq!(fs::read(dir.path().join("m.cubin"))?[..4], *b"\x7fELF");
    Ok(())
}

#[test]
fn what_a_gpu_has_not_is_refused() -> Outcomes {
    let dir = scene()?;
    let cases: [(&[&str], i32, &str); 5] = [
        (
            &["compile", "m.pir", "-o", "m", "--target", "nvptx:sm_80", "--emit", "shared"],
            2,
            "shared cannot be written",
        ),
        (&["compile", "m.pir", "-o", "m", "--emit", "ptx"], 2, "ptx cannot be written"),
        (&["compile", "m.pir", "-o", "m", "--target", "nvptx:sm_52", "--emit", "ptx"], 2, "nvptx:sm_52"),
        (
            &["compile", "m.pir", "-o", "m", "--target", "nvptx:sm_80", "--emit", "ptx", "--cpu", "host"],
            2,
            "--cpu",
        ),
        (
            &["compile", "s.pir", "-o", "m", "--target", "nvptx:sm_80", "--emit", "ptx"],
            3,
            "call of the runtime library",
        ),
    ];
    for (args, code, text) in cases {
        let done = planish(dir.path(), args, None)?;
        assert_eq!(done.status.code(), Some(code), "{args:?}: {}", said(&done));
        assert!(said(&done).contains(text), "{args:?}: {}", said(&done));
        assert!(!dir.path().join("m").exists());
    }
    Ok(())
}

/// A tenth of the graphs that other engines get: each kernel goes through LLVM and an interpreter.
#[test]
fn random_graphs_agree() -> Outcomes {
    let engine = planish::engine::find("ptxsim").map_err(|f| f.message())?;
    let usable = supported(&*engine);
    let (mut agreed, mut unsupported, mut wrong) = (0, 0, Vec::new());
    for (i, mut sketch) in sketches().enumerate() {
        if i % 10 != 0 {
            continue;
        }
        sketch.steps.retain(|(recipe, _)| usable[*recipe]);
        match run(&sketch, &*engine) {
            Outcome::Agrees => agreed += 1,
            Outcome::Unsupported(_) => unsupported += 1,
            Outcome::Differs(_) => wrong.push(sketch),
        }
    }
    let absent: Vec<&str> = RECIPES.iter().zip(&usable).filter(|(_, ok)| !**ok).map(|(r, _)| r.op).collect();
    println!("{agreed} agree, {unsupported} unsupported; never supported: {absent:?}");
    if let Some(sketch) = wrong.first() {
        let small = sketch.shrink(&|s| matches!(run(s, &*engine), Outcome::Differs(_)));
        let text = report(&small, &*engine);
        panic!("{} graphs differ, the first by {:?}\n{text}", wrong.len(), kinds(&small));
    }
    assert!(agreed > unsupported, "{agreed} agree, {unsupported} unsupported");
    Ok(())
}
