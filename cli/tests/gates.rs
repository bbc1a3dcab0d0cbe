//! Gates on every engine and in a program: results, and what was left out.
#![cfg(all(feature = "llvm", target_arch = "x86_64", target_os = "linux"))]

use planish::engine::{ENGINES, prepare};
use planish_ir::text::parse;
use planish_ir::{DType, Diag, PrepareOptions, Tensor, Value};
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

type Outcome = Result<(), Box<dyn Error>>;

/// A gate of every kind, one after the other, and a product that leaves out inputs.
const MODEL: &str = r#"planish-ir 1
sym R 0.. data
sym S 0.. data
sym T 0.. data
graph @"m"(v0 "x": f32[6,8], v1 "rows": bool[6], v2 "blocks": bool[3], v3 "open": bool[], v4 "w": f32[6,3]) {
  v5 = gate{granularity=rows, axis=0, block=0, k=0, fallback=identity} v1, v0 (v6: f32[R,8]) {
    v7 = unary{kind=tanh} v6 : f32[R,8]
    yield v7
  } () {
    yield
  } : f32[6,8]
  v8 = gate{granularity=blocks, axis=1, block=3, k=0, fallback=zero} v2, v5 (v9: f32[6,S]) {
    v10 = unary{kind=neg} v9 : f32[6,S]
    yield v10
  } () {
    yield
  } : f32[6,8]
  v11 = gate{granularity=whole, axis=0, block=0, k=0, fallback=region} v3, v8 (v12: f32[6,8]) {
    v13 = unary{kind=exp} v12 : f32[6,8]
    yield v13
  } (v14: f32[6,8]) {
    v15 = unary{kind=abs} v14 : f32[6,8]
    yield v15
  } : f32[6,8]
  v16 = gate{granularity=routed, axis=0, block=0, k=2, fallback=zero} v4, v11 (v17: i64[], v18: f32[T,8]) {
    v19 = const f32[3,8,4] [WEIGHTS]
    v20 = gather{axis=0} v19, v17 : f32[8,4]
    v21 = matmul{trans_a=false, trans_b=false} v18, v20 : f32[T,4]
    v22 = const f32[3,4] [0.5, -0.5, 0.25, 0.0, 1.0, 2.0, 3.0, 4.0, -1.0, -2.0, -3.0, -4.0]
    v23 = gather{axis=0} v22, v17 : f32[4]
    v24 = binary{kind=add} v21, v23 : f32[T,4]
    yield v24
  } () {
    yield
  } : f32[6,4]
  v25 = const i64[1] [0]
  v26 = const i64[1] [2]
  v27 = slice v16, v25, v26 : f32[2,4]
  v28 = const f32[4,20] splat 0x0000003f
  v29 = gated-matmul{threshold=0.25, block=2, trans_b=false} v27, v28 : f32[2,20]
  return v16 "y", v29 "z"
}
"#;

fn model() -> String {
    let weights: Vec<String> = (0..96).map(|i| format!("{:?}", f64::from((i * 37) % 19 - 9) / 8.0)).collect();
    MODEL.replace("WEIGHTS", &weights.join(", "))
}

fn flags(v: &[i128]) -> Result<Tensor, Diag> {
    let shape: Vec<usize> = if v.len() == 1 { Vec::new() } else { vec![v.len()] };
    Tensor::ints(DType::Bool, &shape, v.to_vec())
}

/// The inputs with these gates.
fn inputs(rows: &[i128], blocks: &[i128], open: i128) -> Result<Vec<Tensor>, Diag> {
    let x: Vec<f32> = (0..48).map(|i| (i as f32 * 0.37).sin() * 2.0).collect();
    let w: Vec<f32> = (0..18).map(|i| ((i * 7) % 5) as f32 / 4.0).collect();
    Ok(vec![
        Tensor::f32s(&[6, 8], &x)?,
        flags(rows)?,
        flags(blocks)?,
        flags(&[open])?,
        Tensor::f32s(&[6, 3], &w)?,
    ])
}

fn counted(counters: BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    counters.into_iter().filter(|(_, n)| *n > 0).collect()
}

#[test]
fn every_engine_leaves_out_the_same() -> Outcome {
    let graph = parse(&model())?;
    for (rows, blocks, open) in
        [([0, 1, 0, 1, 1, 0], [1, 0, 1], 1), ([0; 6], [0; 3], 0), ([1; 6], [1, 1, 0], 0)]
    {
        let given: Vec<Option<Value>> =
            inputs(&rows, &blocks, open)?.into_iter().map(|t| Some(t.into())).collect();
        let run = |engine: &str| -> Result<_, Box<dyn Error>> {
            let program = prepare(engine, &graph, &PrepareOptions::default())
                .map_err(|f| format!("{engine}: {f:?}"))?;
            Ok(program.session()?.run(&given)?)
        };
        let want = run("interp")?;
        let want_counters = counted(want.counters);
        assert!(want_counters.contains_key("gate.skipped-rows") || rows == [1; 6], "{want_counters:?}");
        for (engine, _) in ENGINES {
            let got = run(engine)?;
            assert_eq!(counted(got.counters), want_counters, "{engine}");
            for (a, b) in got.values.iter().zip(&want.values) {
                let (a, b) = (a.tensor()?, b.tensor()?);
                assert_eq!(a.shape(), b.shape(), "{engine}");
                for (x, y) in a.to_f64().iter().zip(b.to_f64()) {
                    assert!((x - y).abs() <= 1e-4 * y.abs().max(1.0), "{engine}: {x} is not {y}");
                }
            }
        }
    }
    Ok(())
}

fn ran(dir: &Path, program: &str, args: &[&str]) -> Result<Output, Box<dyn Error>> {
    let out = Command::new(program).current_dir(dir).args(args).stdin(Stdio::null()).output()?;
    let said = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(0), "{program} {args:?}: {said}");
    Ok(out)
}

#[test]
fn programs_tell_what_was_left_out() -> Outcome {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let dir = dir.path();
    fs::write(dir.join("m.pir"), model())?;
    let given = |folder: &str, rows: &[i128]| -> Outcome {
        fs::create_dir_all(dir.join(folder))?;
        let given = inputs(rows, &[1, 0, 1], 1)?;
        for (name, t) in ["x", "rows", "blocks", "open", "w"].iter().zip(&given) {
            fs::write(dir.join(folder).join(format!("{name}.npy")), planish::io::npy::write(t))?;
        }
        Ok(())
    };
    given("in", &[0, 1, 0, 1, 1, 0])?;
    let tool = env!("CARGO_BIN_EXE_planish");
    let out = ran(dir, tool, &["run", "m.pir", "--inputs", "in", "--engine", "interp", "--format", "json"])?;
    let report: Json = serde_json::from_slice(&out.stdout)?;
    let want = report["samples"][0]["counters"].clone();
    assert_eq!(want["gate.rows"].as_u64(), Some(3 + 5 + 12), "{report}");
    ran(dir, tool, &["compile", "m.pir", "-o", "m"])?;
    let bench =
        ["--bench", "--json", "--inputs", "in", "--duration", "10ms", "--warmup", "0s", "--threads", "1"];
    let out = ran(dir, &dir.join("m").display().to_string(), &bench)?;
    let told: Json = serde_json::from_slice(&out.stdout)?;
    assert_eq!(told["counters"], want, "{told}");
    // Samples take turns, and a run counts their mean.
    given("all/test_data_set_0", &[0, 1, 0, 1, 1, 0])?;
    given("all/test_data_set_1", &[0, 1, 0, 0, 0, 0])?;
    let several: Vec<&str> = bench.iter().map(|a| if *a == "in" { "all" } else { a }).collect();
    let out = ran(dir, &dir.join("m").display().to_string(), &several)?;
    let told: Json = serde_json::from_slice(&out.stdout)?;
    assert_eq!(told["counters"]["gate.rows"].as_f64(), Some(20.0 - 1.0), "{told}");
    let latency = |key: &str| told["latency_ms"][key].as_f64().unwrap_or(0.0);
    assert!(latency("min") > 0.0 && latency("mean") >= latency("min"), "{told}");
    Ok(())
}
