//! Lowered graphs against the graph interpreter.

use crate::engine::KernelInterpreter;
use crate::kernel::TargetSpec;
use planish_ir::{Diag, Engine, PrepareOptions, Tensor, Value, interp, text};

/// Runs a graph with the graph interpreter and with the kernel interpreter at 4, 8 and 16 lanes.
fn same(body: &str, inputs: Vec<Value>, tolerance: f64) -> Result<(), Diag> {
    let g = text::parse(&format!("planish-ir 1\n{body}"))?;
    planish_ir::verify::check(&g)?;
    let want = interp::run(&g, inputs.clone())?.values;
    for target in [TargetSpec::generic128(), TargetSpec::x86_64_v3(), TargetSpec::x86_64_v4()] {
        let target_name = target.name.clone();
        let engine = KernelInterpreter { target };
        let program = engine.prepare(&g, &PrepareOptions::default()).map_err(|mut d| d.swap_remove(0))?;
        let given: Vec<_> = inputs.iter().cloned().map(Some).collect();
        let got = program.session()?.run(&given)?.values;
        for (g, w) in got.iter().zip(&want) {
            let (g, w) = (g.tensor()?, w.tensor()?);
            assert_eq!((g.dtype(), g.shape()), (w.dtype(), w.shape()), "{body}");
            for (i, (x, y)) in g.to_f64().iter().zip(w.to_f64()).enumerate() {
                let ok =
                    (x - y).abs() <= tolerance * y.abs().max(1.0) || (x.is_nan() && y.is_nan()) || *x == y;
                assert!(ok, "{i}: {x} is not {y} for {}: {body}", target_name);
            }
        }
    }
    Ok(())
}

fn ramp(shape: &[usize]) -> Result<Value, Diag> {
    let n = shape.iter().product::<usize>();
    let v: Vec<f32> = (0..n).map(|i| (i as f32 * 0.37).sin() * 3.0).collect();
    Ok(Tensor::f32s(shape, &v)?.into())
}

#[test]
fn element_wise_operations_broadcast() -> Result<(), Diag> {
    for (n, m) in [(1usize, 1usize), (3, 5), (2, 17), (0, 4), (4, 33)] {
        let body = "graph @\"g\"(v0: f32[N,3,M], v1: f32[3,1], v2: f32[M]) {
          v3 = binary{kind=add} v0, v1 : f32[N,3,M]
          v4 = binary{kind=mul} v3, v2 : f32[N,3,M]
          v5 = unary{kind=tanh} v4 : f32[N,3,M]
          v6 = binary{kind=less} v5, v1 : bool[N,3,M]
          v7 = where v6, v5, v2 : f32[N,3,M]
          v8 = cast{to=f16, saturate=true} v7 : f16[N,3,M]
          v9 = const i64[2] [-1, 3]
          v10 = reshape{allow_zero=false} v8, v9 : f16[floordiv(3*N*M,3),3]
          return v10, v6
        }";
        let body = body.replace("floordiv(3*N*M,3)", "N*M");
        same(&body, vec![ramp(&[n, 3, m])?, ramp(&[3, 1])?, ramp(&[m])?], 1e-3)?;
    }
    Ok(())
}

#[test]
fn unknown_axes_are_broadcast_at_run_time() -> Result<(), Diag> {
    let body = "graph @\"g\"(v0: f32[A,7], v1: f32[B,7]) {
      v2 = binary{kind=sub} v0, v1 : f32[max(A,B),7]
      return v2
    }";
    for (a, b) in [(1, 4), (4, 1), (3, 3), (1, 1)] {
        same(body, vec![ramp(&[a, 7])?, ramp(&[b, 7])?], 0.0)?;
    }
    Ok(())
}

#[test]
fn integers_follow_the_interpreter() -> Result<(), Diag> {
    let x = Tensor::ints(planish_ir::DType::I8, &[9], vec![-128, -7, -1, 0, 1, 2, 3, 100, 127])?;
    let y = Tensor::ints(planish_ir::DType::I8, &[9], vec![-1, 2, -3, 0, 0, 5, 2, 100, 7])?;
    for kind in [
        "add",
        "sub",
        "mul",
        "div",
        "mod",
        "fmod",
        "pow",
        "min",
        "max",
        "bit-and",
        "shift-left",
        "shift-right",
        "prelu",
    ] {
        let body = format!(
            "graph @\"g\"(v0: i8[9], v1: i8[9]) {{ v2 = binary{{kind={kind}}} v0, v1 : i8[9] return v2 }}"
        );
        same(&body, vec![x.clone().into(), y.clone().into()], 0.0)?;
    }
    Ok(())
}

#[test]
fn narrow_floats_round_as_the_interpreter_does() -> Result<(), Diag> {
    let v: Vec<f32> = (-60..60)
        .map(|i| (i as f32).powi(3) / 200.0)
        .chain([f32::NAN, f32::INFINITY, 1e-9, 448.0, 500.0])
        .collect();
    for d in [
        "f8e4m3fn",
        "f8e4m3fnuz",
        "f8e5m2",
        "f8e5m2fnuz",
        "f4e2m1",
        "f8e8m0",
        "f16",
        "bf16",
        "i4",
        "u4",
        "i2",
        "u8",
        "i16",
        "bool",
    ] {
        for saturate in [true, false] {
            let body = format!(
                "graph @\"g\"(v0: f32[125]) {{
              v1 = cast{{to={d}, saturate={saturate}}} v0 : {d}[125]
              v2 = cast{{to=f32, saturate=true}} v1 : f32[125]
              return v2 }}"
            );
            same(&body, vec![Tensor::f32s(&[125], &v)?.into()], 0.0)?;
        }
    }
    Ok(())
}
