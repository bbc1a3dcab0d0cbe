use crate::diag::Diag;
use crate::engine::RunResult;
use crate::interp;
use crate::tensor::{Tensor, Value};
use crate::text::{parse, print};
use crate::verify::verify;

fn run(text: &str, inputs: Vec<Value>) -> Result<RunResult, Diag> {
    let g = parse(text)?;
    assert_eq!(verify(&g), []);
    assert_eq!(print(&parse(&print(&g))?), print(&g));
    interp::run(&g, inputs)
}

fn bools(v: &[i128]) -> Result<Value, Diag> {
    Ok(Tensor::ints(crate::DType::Bool, &[v.len()], v.to_vec())?.into())
}

#[test]
fn only_the_branch_taken_runs() -> Result<(), Diag> {
    let text = r#"planish-ir 1
graph @"main"(v0 "c": bool[1], v1 "x": f32[2]) {
  v2 = if v0, v1 (v3: f32[2]) {
    v4 = unary{kind=neg} v3 : f32[2]
    yield v4
  } (v5: f32[2]) {
    v6 = unary{kind=exp} v5 : f32[2]
    yield v6
  } : f32[2]
  return v2 "y"
}
"#;
    for (c, want) in [(1, [-1.0, -2.0]), (0, [1f64.exp(), 2f64.exp()])] {
        let x = Tensor::f32s(&[2], &[1.0, 2.0])?;
        let out = run(text, vec![bools(&[c])?, x.into()])?;
        let got = out.values[0].tensor()?.to_f64();
        assert!(got.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-6), "{got:?}");
        assert_eq!(out.counters["if.regions"], 1);
    }
    Ok(())
}

const LOOP: &str = r#"planish-ir 1
sym T 0..
graph @"main"(v0 "n": i64[], v1 "x": f32[2]) {
  v2, v3 = loop{carried=1, scans=1, conditional=false} v0, _, v1, v1 (v4: i64[], v5: f32[2], v6: f32[2]) {
    v7 = binary{kind=add} v5, v6 : f32[2]
    v8 = cast{to=f32, saturate=true} v4 : f32[]
    v9 = binary{kind=mul} v7, v8 : f32[2]
    yield v7, v9
  } : f32[2], f32[T,2]
  return v2 "y", v3 "s"
}
"#;

#[test]
fn a_loop_carries_and_stacks() -> Result<(), Diag> {
    let x = Tensor::f32s(&[2], &[1.0, 2.0])?;
    let out = run(LOOP, vec![Tensor::scalar_i64(3).into(), x.clone().into()])?;
    assert_eq!(out.values[0].tensor()?.to_f64(), [4.0, 8.0]);
    assert_eq!(out.values[1].tensor()?.to_f64(), [0.0, 0.0, 3.0, 6.0, 8.0, 16.0]);
    assert_eq!(out.counters["loop.iterations"], 3);
    let none = run(LOOP, vec![Tensor::scalar_i64(-3).into(), x.into()])?;
    assert_eq!(none.values[0].tensor()?.to_f64(), [1.0, 2.0]);
    assert_eq!(none.values[1].tensor()?.shape(), [0, 2]);
    Ok(())
}

/// Without an iteration no value says what is stacked, but the dims of operands do.
#[test]
fn nothing_stacked_has_the_dims_that_are_known() -> Result<(), Diag> {
    let text = r#"planish-ir 1
sym d0 0..3 data
sym d1 0.. data
graph @"main"(v0 "x": f32[3], v1 "mask": bool[3], v2 "trips": i64[]) {
  v3 = compress{axis=0} v0, v1 : f32[d0]
  v4, v5 = loop{carried=1, scans=1, conditional=false} v2, _, v3 (v6: i64[], v7: f32[d0]) {
    v8 = unary{kind=neg} v7 : f32[d0]
    yield v8, v8
  } : f32[d0], f32[d1,d0]
  return v4 "y", v5 "all"
}
"#;
    for (trips, rows) in [(0, 0), (2, 2)] {
        let x = Tensor::f32s(&[3], &[1.0, 2.0, 3.0])?;
        let out = run(text, vec![x.into(), bools(&[1, 0, 1])?, Tensor::scalar_i64(trips).into()])?;
        assert_eq!(out.values[1].tensor()?.shape(), [rows, 2]);
    }
    Ok(())
}

#[test]
fn a_loop_without_end_is_stopped() -> Result<(), Diag> {
    use crate::engine::{Engine, PrepareOptions};
    let g = parse(
        r#"planish-ir 1
graph @"main"(v0 "x": f32[2]) {
  v1 = loop{carried=1, scans=0, conditional=true} _, _, v0 (v2: i64[], v3: f32[2]) {
    v4 = const bool[] [1]
    yield v4, v3
  } : f32[2]
  return v1 "y"
}
"#,
    )?;
    let options = PrepareOptions { max_steps: Some(10), ..PrepareOptions::default() };
    let program = interp::Interpreter.prepare(&g, &options).map_err(|mut d| d.remove(0))?;
    let x = Tensor::f32s(&[2], &[1.0, 2.0])?;
    let d = program.session()?.run(&[Some(x.into())]).err();
    assert_eq!(d.map(|d| d.id), Some("step-limit"));
    Ok(())
}

fn gate(granularity: &str, fallback: &str, gates: &str, second: &str) -> String {
    format!(
        r#"planish-ir 1
sym R 0..
sym S 0..
graph @"main"(v0 "m": bool[{gates}], v1 "x": f32[4,2]) {{
  v2 = gate{{granularity={granularity}, axis=0, block=2, k=0, fallback={fallback}}} v0, v1 (v3: f32[R,2]) {{
    v4 = unary{{kind=neg}} v3 : f32[R,2]
    yield v4
  }} {second} : f32[4,2]
  return v2 "y"
}}
"#
    )
}

#[test]
fn gates_skip_rows_and_blocks() -> Result<(), Diag> {
    let x: Value = Tensor::f32s(&[4, 2], &[1., 2., 3., 4., 5., 6., 7., 8.])?.into();
    let none = "() {\n    yield\n  }";
    let out = run(&gate("rows", "zero", "4", none), vec![bools(&[0, 1, 0, 1])?, x.clone()])?;
    assert_eq!(out.values[0].tensor()?.to_f64(), [0., 0., -3., -4., 0., 0., -7., -8.]);
    assert_eq!((out.counters["gate.rows"], out.counters["gate.skipped-rows"]), (2, 2));
    let out = run(&gate("blocks", "identity", "2", none), vec![bools(&[0, 1])?, x.clone()])?;
    assert_eq!(out.values[0].tensor()?.to_f64(), [1., 2., 3., 4., -5., -6., -7., -8.]);
    assert_eq!((out.counters["gate.blocks"], out.counters["gate.skipped-blocks"]), (1, 1));
    let cheap = "(v5: f32[S,2]) {\n    v6 = unary{kind=abs} v5 : f32[S,2]\n    yield v6\n  }";
    let out = run(&gate("rows", "region", "4", cheap), vec![bools(&[0, 0, 0, 1])?, x])?;
    assert_eq!(out.values[0].tensor()?.to_f64(), [1., 2., 3., 4., 5., 6., -7., -8.]);
    Ok(())
}

#[test]
fn a_whole_gate_runs_or_not() -> Result<(), Diag> {
    let text = r#"planish-ir 1
graph @"main"(v0 "m": bool[], v1 "x": f32[2]) {
  v2 = gate{granularity=whole, axis=0, block=0, k=0, fallback=zero} v0, v1 (v3: f32[2]) {
    v4 = unary{kind=neg} v3 : f32[2]
    yield v4
  } () {
    yield
  } : f32[2]
  return v2 "y"
}
"#;
    for (m, want, counter) in [(1, [-1.0, -2.0], "gate.regions"), (0, [0.0, 0.0], "gate.skipped-regions")] {
        let m = Tensor::ints(crate::DType::Bool, &[], vec![m])?;
        let out = run(text, vec![m.into(), Tensor::f32s(&[2], &[1.0, 2.0])?.into()])?;
        assert_eq!(out.values[0].tensor()?.to_f64(), want);
        assert_eq!(out.counters[counter], 1);
    }
    Ok(())
}

#[test]
fn rows_are_routed_to_the_heaviest_experts() -> Result<(), Diag> {
    let text = r#"planish-ir 1
sym R 0..
graph @"main"(v0 "w": f32[2,3], v1 "x": f32[2,1]) {
  v2 = gate{granularity=routed, axis=0, block=0, k=2, fallback=zero} v0, v1 (v3: i64[], v4: f32[R,1]) {
    v5 = cast{to=f32, saturate=true} v3 : f32[]
    v6 = binary{kind=add} v4, v5 : f32[R,1]
    yield v6
  } () {
    yield
  } : f32[2,1]
  return v2 "y"
}
"#;
    let w = Tensor::f32s(&[2, 3], &[0.5, 0.25, 0.125, 1.0, 1.0, 2.0])?;
    let out = run(text, vec![w.into(), Tensor::f32s(&[2, 1], &[10.0, 20.0])?.into()])?;
    // Row 0: experts 0 and 1; row 1: experts 2 and, of the equal ones, 0.
    assert_eq!(out.values[0].tensor()?.to_f64(), [0.5 * 10.0 + 0.25 * 11.0, 2.0 * 22.0 + 1.0 * 20.0]);
    assert_eq!((out.counters["gate.rows"], out.counters["gate.regions"]), (4, 3));
    Ok(())
}

#[test]
fn branches_must_agree() {
    let text = r#"planish-ir 1
graph @"main"(v0 "c": bool[], v1 "x": f32[2]) {
  v2 = if v0, v1 (v3: f32[2]) {
    yield v3
  } (v5: f32[2]) {
    yield v5, v5
  } : f32[2]
  return v2 "y"
}
"#;
    assert_eq!(parse(text).err().map(|d| d.id), Some("arity"));
}
