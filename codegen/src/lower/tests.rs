//! Lowered graphs against the graph interpreter.

use crate::engine::KernelInterpreter;
use crate::kernel::TargetSpec;
use crate::lower::{LowerOptions, lower};
use planish_ir::{Constant, Diag, Engine, PrepareOptions, Tensor, Value, interp, text};

/// Runs a graph with the graph interpreter and with the kernel interpreter at 4, 8 and 16 lanes and as SIMT kernels.
pub(super) fn same(body: &str, inputs: Vec<Value>, tolerance: f64) -> Result<(), Diag> {
    same_on(body, inputs, tolerance, &[TargetSpec::nvptx(80)])
}

/// [`same`] for what calls the runtime library: that is refused for a GPU.
pub(super) fn same_on_cpu(body: &str, inputs: Vec<Value>, tolerance: f64) -> Result<(), Diag> {
    let g = text::parse(&format!("planish-ir 1\n{body}"))?;
    let engine = KernelInterpreter { target: TargetSpec::nvptx(80) };
    let refused = engine.prepare(&g, &PrepareOptions::default()).err().expect("a refusal");
    assert!(refused.iter().all(Diag::is_unsupported), "{refused:?}");
    same_on(body, inputs, tolerance, &[])
}

/// [`same`] with these targets in place of a GPU.
pub(super) fn same_on(
    body: &str,
    inputs: Vec<Value>,
    tolerance: f64,
    more: &[TargetSpec],
) -> Result<(), Diag> {
    let g = text::parse(&format!("planish-ir 1\n{body}"))?;
    planish_ir::verify::check(&g)?;
    let reference = interp::run(&g, inputs.clone())?;
    let want = reference.values;
    let cpus = [TargetSpec::generic128(), TargetSpec::x86_64_v3(), TargetSpec::x86_64_v4()];
    for target in cpus.into_iter().chain(more.iter().cloned()) {
        let target_name = target.name.clone();
        let engine = KernelInterpreter { target };
        let program = engine.prepare(&g, &PrepareOptions::default()).map_err(|mut d| d.swap_remove(0))?;
        let given: Vec<_> = inputs.iter().cloned().map(Some).collect();
        let ran = program.session()?.run(&given)?;
        let (got, mut counters) = (ran.values, ran.counters);
        counters.retain(|_, n| *n > 0);
        let mut counted = reference.counters.clone();
        counted.retain(|_, n| *n > 0);
        assert_eq!(counters, counted, "{body}");
        assert_eq!(got.len(), want.len(), "{body}");
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

pub(super) fn ramp(shape: &[usize]) -> Result<Value, Diag> {
    let n = shape.iter().product::<usize>();
    let v: Vec<f32> = (0..n).map(|i| (i as f32 * 0.37).sin() * 3.0).collect();
    Ok(Tensor::f32s(shape, &v)?.into())
}

/// A constant as text writes it.
pub(super) fn printed(c: Constant) -> Result<String, Diag> {
    let mut g = planish_ir::Graph::new("c");
    let mut ed = planish_ir::Editor::new(&mut g);
    let v = ed.constant(c)?;
    ed.output(v, Some("y"));
    let text = text::print(&g);
    let line = text.lines().find(|l| l.contains("const ")).expect("a constant").to_owned();
    Ok(line.split_once("const ").expect("a constant").1.trim().to_owned())
}

/// Whether a graph has a kernel of this name.
pub(super) fn has(body: &str, label: &str) -> Result<bool, Diag> {
    let g = text::parse(&format!("planish-ir 1\n{body}"))?;
    let options = LowerOptions { targets: vec![TargetSpec::x86_64_v4()], ..LowerOptions::default() };
    let module = lower(&g, &options).map_err(|mut d| d.swap_remove(0))?;
    Ok(module.plan.kernels.iter().any(|k| k.name.starts_with(&format!("k_{label}_"))))
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

/// A constant f32 tensor in the text format, with elements that differ.
pub(super) fn weights(shape: &[usize]) -> String {
    let n: usize = shape.iter().product();
    let hex: String = (0..n)
        .flat_map(|i| (((i * 7919) % 23) as f32 * 0.125 - 1.3).to_le_bytes())
        .map(|b| format!("{b:02x}"))
        .collect();
    let dims: Vec<String> = shape.iter().map(usize::to_string).collect();
    format!("f32[{}] 0x{hex}", dims.join(","))
}

/// x dims, weight dims, strides, dilations, pads, groups, output spatial dims.
type ConvCase =
    (&'static [usize], &'static [usize], &'static str, &'static str, &'static str, usize, &'static str);

#[test]
fn convolutions_follow_the_interpreter() -> Result<(), Diag> {
    let cases: &[ConvCase] = &[
        (&[1, 3, 9, 9], &[5, 3, 1, 1], "1, 1", "1, 1", "0, 0, 0, 0", 1, "9,9"),
        (&[2, 16, 7, 8], &[17, 16, 3, 3], "1, 1", "1, 1", "1, 1, 1, 1", 1, "7,8"),
        (&[1, 4, 10, 13], &[8, 4, 3, 5], "2, 2", "1, 1", "1, 2, 1, 2", 1, "5,7"),
        (&[1, 2, 11, 30], &[4, 2, 3, 3], "3, 3", "2, 2", "2, 2, 2, 2", 1, "4,10"),
        (&[1, 8, 9, 20], &[8, 1, 3, 3], "1, 1", "1, 1", "1, 1, 1, 1", 8, "9,20"),
        (&[1, 6, 9, 21], &[12, 2, 3, 3], "2, 2", "1, 1", "0, 1, 1, 1", 3, "4,11"),
        (&[1, 32, 5, 5], &[8, 16, 3, 3], "1, 1", "1, 1", "1, 1, 1, 1", 2, "5,5"),
        (&[1, 3, 40], &[7, 3, 5], "2", "1", "2, 2", 1, "20"),
        (&[1, 2, 4, 5, 6], &[6, 2, 3, 3, 3], "1, 1, 1", "1, 1, 1", "1, 1, 1, 1, 1, 1", 1, "4,5,6"),
        (&[1, 2, 90], &[5, 2, 40], "3", "1", "0, 0", 1, "17"),
        (&[1, 4, 60], &[4, 1, 30], "1", "1", "3, 4", 4, "38"),
        (&[1, 130, 4, 4], &[3, 130, 3, 3], "1, 1", "1, 1", "1, 1, 1, 1", 1, "4,4"),
    ];
    for (x, w, strides, dilations, pads, groups, out) in cases {
        for constant in [true, false] {
            let dims = |d: &[usize]| d.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
            let (param, value) = if constant {
                (String::new(), format!("v1 = const {}", weights(w)))
            } else {
                (format!(", v1: f32[{}]", dims(w)), String::new())
            };
            let body = format!(
                "graph @\"g\"(v0: f32[{}]{param}, v2: f32[{}]) {{ {value}
                 v3 = conv{{strides=[{strides}], dilations=[{dilations}], pads=[{pads}], auto_pad=explicit, groups={groups}}} v0, v1, v2 : f32[{},{},{out}]
                 return v3 }}",
                dims(x), w[0], x[0], w[0]
            );
            let mut inputs = vec![ramp(x)?];
            if !constant {
                inputs.push(ramp(w)?);
            }
            inputs.push(ramp(&[w[0]])?);
            same(&body, inputs, 1e-4)?;
        }
    }
    Ok(())
}

#[test]
fn matrix_products_follow_the_interpreter() -> Result<(), Diag> {
    for (m, k, n) in
        [(1usize, 1usize, 1usize), (1, 40, 100), (5, 7, 33), (17, 20, 48), (70, 3, 130), (4, 0, 5), (0, 3, 4)]
    {
        for (ta, tb) in [(false, false), (true, false), (false, true)] {
            let ad = if ta { [k, m] } else { [m, k] };
            let bd = if tb { [n, k] } else { [k, n] };
            let flags = format!("trans_a={ta}, trans_b={tb}");
            let body = format!(
                "graph @\"g\"(v0: f32[{},{}], v1: f32[{},{}]) {{ v2 = matmul{{{flags}}} v0, v1 : f32[{m},{n}] return v2 }}",
                ad[0], ad[1], bd[0], bd[1]
            );
            same(&body, vec![ramp(&ad)?, ramp(&bd)?], 1e-4)?;
            let body = format!(
                "graph @\"g\"(v0: f32[{},{}]) {{ v1 = const {} v2 = matmul{{{flags}}} v0, v1 : f32[{m},{n}] return v2 }}",
                ad[0],
                ad[1],
                weights(&bd)
            );
            same(&body, vec![ramp(&ad)?], 1e-4)?;
        }
    }
    let body = "graph @\"g\"(v0: f32[B,3,M,5], v1: f32[3,5,N]) { v2 = matmul{trans_a=false, trans_b=false} v0, v1 : f32[B,3,M,N] return v2 }";
    same(body, vec![ramp(&[2, 3, 9, 5])?, ramp(&[3, 5, 18])?], 1e-4)
}

#[test]
fn epilogues_run_on_the_sums() -> Result<(), Diag> {
    let body = format!(
        "graph @\"g\"(v0: f32[1,4,6,6], v1: f32[1,8,6,6]) {{
         v2 = const {}
         v3 = const f32[1,8,1,1] [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]
         v4 = fused v0, v2, v3, v1 (v5: f32[1,4,6,6], v6: f32[8,4,3,3], v7: f32[1,8,1,1], v8: f32[1,8,6,6]) {{
           v9 = conv{{strides=[1, 1], dilations=[1, 1], pads=[1, 1, 1, 1], auto_pad=explicit, groups=1}} v5, v6 : f32[1,8,6,6]
           v10 = binary{{kind=mul}} v9, v7 : f32[1,8,6,6]
           v11 = binary{{kind=add}} v10, v8 : f32[1,8,6,6]
           v12 = unary{{kind=relu}} v11 : f32[1,8,6,6]
           yield v12
         }} : f32[1,8,6,6]
         return v4 }}",
        weights(&[8, 4, 3, 3])
    );
    same(&body, vec![ramp(&[1, 4, 6, 6])?, ramp(&[1, 8, 6, 6])?], 1e-4)?;
    let body = format!(
        "graph @\"g\"(v0: f32[B,20], v1: f32[70], v2: f32[B,70]) {{
         v3 = const {}
         v4 = fused v0, v3, v1, v2 (v5: f32[B,20], v6: f32[20,70], v7: f32[70], v8: f32[B,70]) {{
           v9 = matmul{{trans_a=false, trans_b=false}} v5, v6 : f32[B,70]
           v10 = binary{{kind=add}} v9, v7 : f32[B,70]
           v11 = unary{{kind=gelu}} v10 : f32[B,70]
           v12 = binary{{kind=add}} v8, v11 : f32[B,70]
           yield v12
         }} : f32[B,70]
         return v4 }}",
        weights(&[20, 70])
    );
    for b in [1usize, 3, 13] {
        same(&body, vec![ramp(&[b, 20])?, ramp(&[70])?, ramp(&[b, 70])?], 1e-4)?;
    }
    Ok(())
}

/// The elements are known beforehand, how many the shape makes of them is not.
#[test]
fn constants_take_shapes_that_only_data_tell() -> Result<(), Diag> {
    let body = "sym d 0.. data
        graph @\"g\"(v0: i64[1]) {
          v1 = const i64[2] [-9, -11]
          v2 = reshape{allow_zero=false} v1, v0 : i64[d]
          return v2
        }";
    same(body, vec![Tensor::vec_i64(&[-1]).into()], 0.0)?;
    same(body, vec![Tensor::vec_i64(&[2]).into()], 0.0)
}
