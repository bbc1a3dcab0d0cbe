//! Large matrix products, whose operands are copied, against the graph interpreter.

use crate::engine::ModuleProgram;
use crate::kernel::TargetSpec;
use crate::lower::tests::{ramp, same_on};
use crate::lower::{LowerOptions, lower};
use planish_ir::{Diag, PrepareOptions, Program, Value, interp, text};

/// How the operands of a product lie.
#[derive(Clone, Copy, PartialEq)]
struct Form {
    trans_a: bool,
    trans_b: bool,
    /// Matrices, and whether the right operand is the same for all.
    batch: Option<(usize, bool)>,
}

const PLAIN: Form = Form { trans_a: false, trans_b: false, batch: None };

fn dims(batch: Option<usize>, rows: usize, columns: usize) -> Vec<usize> {
    batch.into_iter().chain([rows, columns]).collect()
}

fn ty(dims: &[usize]) -> String {
    format!("f32[{}]", dims.iter().map(usize::to_string).collect::<Vec<_>>().join(","))
}

fn turned(turned: bool, [rows, columns]: [usize; 2]) -> [usize; 2] {
    if turned { [columns, rows] } else { [rows, columns] }
}

/// Runs a graph on each processor by itself, and as the widest one runs a program for several.
fn agrees(body: &str, inputs: Vec<Value>) -> Result<(), Diag> {
    same_on(body, inputs.clone(), 1e-4, &[])?;
    let g = text::parse(&format!("planish-ir 1\n{body}"))?;
    let want = interp::run(&g, inputs.clone())?.values;
    let targets = vec![TargetSpec::x86_64_v3(), TargetSpec::x86_64_v4()];
    let options = LowerOptions { targets, ..LowerOptions::default() };
    let mut module = lower(&g, &options).map_err(|mut d| d.swap_remove(0))?;
    module.variants.remove(0);
    let program = ModuleProgram::interpreted(&g, module, &PrepareOptions::default())?;
    let inputs: Vec<_> = inputs.into_iter().map(Some).collect();
    for (got, want) in program.session()?.run(&inputs)?.values.iter().zip(&want) {
        let (got, want) = (got.tensor()?, want.tensor()?);
        assert_eq!(got.shape(), want.shape(), "{body}");
        for (x, y) in got.to_f64().iter().zip(want.to_f64()) {
            assert!((x - y).abs() <= 1e-4 * y.abs().max(1.0), "{x} is not {y}: {body}");
        }
    }
    Ok(())
}

/// The product, and in a group with a bias, a sum of all elements and another result.
fn follows([m, n, k]: [usize; 3], form: Form) -> Result<(), Diag> {
    let batch = form.batch.map(|b| b.0);
    let [ar, ac] = turned(form.trans_a, [m, k]);
    let [br, bc] = turned(form.trans_b, [k, n]);
    let a = dims(batch, ar, ac);
    let b = dims(batch.filter(|_| form.batch.is_some_and(|b| !b.1)), br, bc);
    let y = dims(batch, m, n);
    let (at, bt, yt) = (ty(&a), ty(&b), ty(&y));
    let op = format!("matmul{{trans_a={}, trans_b={}}}", form.trans_a, form.trans_b);
    let inputs = || Ok::<_, Diag>(vec![ramp(&a)?, ramp(&b)?]);
    let body = format!("graph @\"g\"(v0: {at}, v1: {bt}) {{ v2 = {op} v0, v1 : {yt}\n return v2 }}");
    agrees(&body, inputs()?)?;
    let body = format!(
        "graph @\"g\"(v0: {at}, v1: {bt}, v2: f32[{n}], v3: {yt}) {{
           v4, v5 = fused v0, v1, v2, v3 (v6: {at}, v7: {bt}, v8: f32[{n}], v9: {yt}) {{
             v10 = {op} v6, v7 : {yt}
             v11 = binary{{kind=add}} v10, v8 : {yt}
             v12 = binary{{kind=sub}} v9, v11 : {yt}
             yield v12, v11
           }} : {yt}, {yt}
           return v4, v5 }}"
    );
    let mut given = inputs()?;
    given.extend([ramp(&[n])?, ramp(&y)?]);
    agrees(&body, given)
}

#[test]
fn copied_operands_follow_the_interpreter() -> Result<(), Diag> {
    // The last two are large enough for wide vectors.
    for sizes in [[28, 192, 16], [31, 201, 17], [67, 250, 33], [270, 193, 16], [31, 8500, 17], [278, 950, 16]]
    {
        for trans_a in [false, true] {
            for trans_b in [false, true] {
                follows(sizes, Form { trans_a, trans_b, batch: None })?;
            }
        }
    }
    Ok(())
}

#[test]
fn every_width_of_a_panel() -> Result<(), Diag> {
    for (trans_b, k) in [(false, 274), (true, 460), (false, 690), (true, 1370), (false, 2050)] {
        follows([29, 193, k], Form { trans_b, ..PLAIN })?;
    }
    Ok(())
}

#[test]
fn stacks_of_matrices() -> Result<(), Diag> {
    for trans_a in [false, true] {
        for shared in [false, true] {
            follows([30, 8800, 16], Form { trans_a, trans_b: shared, batch: Some((2, shared)) })?;
        }
    }
    Ok(())
}

/// Operands beyond what is read ahead in turn: results of more than 512 KB with an operand of their size, a right operand of as much.
#[test]
fn operands_that_are_read_ahead() -> Result<(), Diag> {
    follows([1040, 260, 16], Form { trans_a: true, ..PLAIN })?;
    follows([28, 9400, 16], PLAIN)?;
    follows([28, 9400, 16], Form { trans_b: true, ..PLAIN })
}

#[test]
fn packed_weights() -> Result<(), Diag> {
    for (m, n, k) in [(28, 192, 16), (75, 205, 35), (40, 700, 200)] {
        let w: Vec<f32> = (0..n * k).map(|i| (i as f32 * 0.21).cos()).collect();
        let w = crate::lower::tests::printed(planish_ir::Tensor::f32s(&[k, n], &w)?.into())?;
        let body = format!(
            "graph @\"g\"(v0: f32[2,{m},{k}]) {{
               v1 = const {w}
               v2 = matmul{{trans_a=false, trans_b=false}} v0, v1 : f32[2,{m},{n}]
               return v2 }}"
        );
        agrees(&body, vec![ramp(&[2, m, k])?])?;
    }
    Ok(())
}

/// Small products, those for processors that have not been measured, and with wide vectors those of constant columns read their operands where they lie.
#[test]
fn what_is_not_copied() -> Result<(), Diag> {
    let copies = |right: &str, m: usize, n: usize, target: TargetSpec| -> Result<bool, Diag> {
        let g = text::parse(&format!(
            "planish-ir 1
            graph @\"g\"(v0: f32[{m},64], v1: f32[64,{n}]) {{
              v2 = const f32[64,{n}] splat 0x0000003f
              v3 = matmul{{trans_a=false, trans_b=false}} v0, {right} : f32[{m},{n}]
              return v3 }}"
        ))?;
        let options = LowerOptions { targets: vec![target], ..LowerOptions::default() };
        let made = lower(&g, &options).map_err(|mut d| d.swap_remove(0))?;
        Ok(made.plan.kernels.iter().any(|k| k.name.contains("pack_rows")))
    };
    let (narrow, wide) = (TargetSpec::x86_64_v3, TargetSpec::x86_64_v4);
    assert!(copies("v1", 28, 192, narrow())?);
    assert!(!copies("v1", 27, 192, narrow())?);
    assert!(!copies("v1", 28, 191, narrow())?);
    // 1 MB of either matrix.
    assert!(copies("v1", 28, 4096, wide())?);
    assert!(!copies("v1", 28, 4095, wide())?);
    assert!(copies("v1", 1024, 256, wide())?);
    assert!(!copies("v1", 1023, 256, wide())?);
    assert!(copies("v2", 28, 4096, narrow())?);
    assert!(!copies("v2", 28, 4096, wide())?);
    assert!(!copies("v1", 28, 4096, TargetSpec::aarch64())?);
    Ok(())
}
