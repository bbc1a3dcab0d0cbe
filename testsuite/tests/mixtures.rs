//! Mixtures of experts that were trained: written to ONNX masked, and read and compiled again they compute the chosen experts only, on every
//! engine with the same counters.

use planish_ir::{Diag, Engine, Graph, Op, PrepareOptions, RunResult, Tensor, Value, interp, text, verify};
use planish_onnx::export::{ExportOptions, export};
use planish_onnx::import::{ImportOptions, import_bytes};
use planish_passes::training::mixture::{terms, without_balance};
use planish_passes::training::{Loss, Optimizer, Recipe, Rule, determinized, name_parameters, step};
use planish_passes::{Level, Pipeline, TargetFacts, parse_specs};
use planish_testsuite::native::{Maker, Native, targets};
use planish_testsuite::rng::Rng;

const EXPERTS: usize = 4;
const D: usize = 16;
const UNITS: usize = 256;
const OUT: usize = 32;

fn numbers(seed: u64, shape: &[usize]) -> Result<Tensor, Diag> {
    let mut rng = Rng::new(seed);
    let count = shape.iter().product();
    let v: Vec<f32> = (0..count).map(|_| rng.range(-1000, 1000) as f32 / 1000.0).collect();
    Tensor::f32s(shape, &v)
}

/// A classifier with a pair of products for so many rows.
fn dense(rows: &str, function: &str) -> Result<Graph, Diag> {
    let splat = |dims: &str| format!("const f32[{dims}] splat 0xcdcccc3d");
    let symbols = if rows.parse::<usize>().is_ok() { String::new() } else { format!("sym {rows} 0..\n") };
    text::parse(&format!(
        "planish-ir 1\n{symbols}graph @\"main\"(v0 \"x\": f32[{rows},{D}]) {{\n  v1 \"up\" = {}\n  v2 \"down\" = {}\n  v3 \"last\" = {}\n  \
         v4 = matmul{{trans_a=false, trans_b=false}} v0, v1 : f32[{rows},64]\n  v5 = unary{{kind={function}}} v4 : f32[{rows},64]\n  \
         v6 = matmul{{trans_a=false, trans_b=false}} v5, v2 : f32[{rows},{OUT}]\n  v7 = binary{{kind=add}} v6, v3 : f32[{rows},{OUT}]\n  \
         return v7 \"y\"\n}}\n",
        splat(&format!("{D},64")),
        splat(&format!("64,{OUT}")),
        splat(&OUT.to_string()),
    ))
}

fn run(mut pipeline: Pipeline, graph: &mut Graph) -> Result<(), Diag> {
    pipeline.verify_each = true;
    pipeline.run(graph, &TargetFacts::default(), &mut |_, _| {}).map(|_| ())
}

fn specs(graph: &mut Graph, text: &str) -> Result<(), Diag> {
    let mut pipeline = Pipeline::default();
    pipeline.specs(&parse_specs(text)?);
    run(pipeline, graph)
}

/// A mixture behind some steps of training, as it is written: all experts on every row.
fn trained(rows: &str, function: &str, active: usize) -> Result<Graph, Diag> {
    let insert = format!(
        "insert-gates{{kind=mixture,experts={EXPERTS},hidden={UNITS},active={active},router=random}}"
    );
    let made = |rows: &str| -> Result<Graph, Diag> {
        let mut graph = dense(rows, function)?;
        specs(&mut graph, &insert)?;
        name_parameters(&mut graph);
        Ok(graph)
    };
    let rule = Rule::Adam { decay: [0.9, 0.999], epsilon: 1e-8 };
    let mut recipe = Recipe::new(Loss::MeanSquare, Optimizer { rule, ..Optimizer::default() });
    let fixed = made("8")?;
    recipe.terms = terms(&fixed);
    let of_batch = step(&fixed, &recipe, &|_| true)?;
    let mut graph = made(rows)?;
    let written = step(&graph, &recipe, &|_| true)?;
    let mut variables: Vec<Value> = of_batch.variables.iter().map(|v| v.start.clone().into()).collect();
    for number in 0..4 {
        let rate = Tensor::f32s(&[], &[0.02])?;
        let (x, target) = (numbers(number, &[8, D])?, numbers(100 + number, &[8, OUT])?);
        let mut inputs = of_batch.first(vec![x.into()], target.into(), rate.into(), number.cast_signed());
        inputs[of_batch.variables_from()..].clone_from_slice(&variables);
        let results = interp::run(&of_batch.graph, inputs)?.values;
        variables = of_batch.variables_after(&results).to_vec();
    }
    graph = written.trained(&graph, &variables)?;
    without_balance(&mut graph)?;
    determinized(&mut graph, None)?;
    assert_eq!((graph.outputs().len(), verify::verify(&graph)), (1, vec![]));
    Ok(graph)
}

/// Through ONNX and the passes that every import runs before it is compiled.
fn compiled(graph: &Graph) -> Result<Graph, Diag> {
    let first = |mut all: Vec<Diag>| all.swap_remove(0);
    let exported = export(graph, &ExportOptions::default()).map_err(first)?;
    let mut graph =
        import_bytes(&exported.model.into(), None, &ImportOptions::default()).map_err(first)?.graph;
    run(Pipeline::canonical(Level::O2), &mut graph)?;
    run(Pipeline::fused(Level::O2), &mut graph)?;
    Ok(graph)
}

fn gates(g: &Graph) -> Vec<usize> {
    let k = |n| match &g.node(n).op {
        Op::Gate(gate) => Some(gate.k),
        _ => None,
    };
    g.all_nodes().into_iter().filter_map(k).collect()
}

fn close(a: &RunResult, b: &RunResult) -> Result<(), Diag> {
    let (a, b) = (a.values[0].tensor()?, b.values[0].tensor()?);
    assert_eq!(a.shape(), b.shape());
    for (x, y) in a.to_f64().iter().zip(b.to_f64()) {
        assert!((x - y).abs() <= 2e-5 * (1.0 + y.abs()), "{x} {y}");
    }
    Ok(())
}

fn only_chosen_experts_run(makers: &[Maker]) -> Result<(), Diag> {
    let target = targets().swap_remove(0);
    for (rows, n, function, active) in [("40", 40, "relu", 1), ("40", 40, "gelu", 2), ("40", 40, "tanh", 2)] {
        let masked = trained(rows, function, active)?;
        assert_eq!(gates(&masked), []);
        let routed = compiled(&masked)?;
        assert_eq!(gates(&routed), [active], "{rows}, {function}\n{}", text::print(&routed));
        let x = Value::from(numbers(77, &[n, D])?);
        let want = interp::run(&masked, vec![x.clone()])?;
        let executed = (n * active) as u64;
        let got = interp::run(&routed, vec![x.clone()])?;
        close(&got, &want)?;
        assert_eq!(got.counters["gate.rows"], executed);
        for maker in makers {
            let engine = Native::new(*maker, target.clone());
            let program = engine.prepare(&routed, &PrepareOptions::default());
            let program = program.map_err(|mut all| all.swap_remove(0))?;
            let got = program.session()?.run(&[Some(x.clone())])?;
            close(&got, &want)?;
            assert_eq!(got.counters["gate.rows"], executed, "{}", engine.name());
        }
    }
    Ok(())
}

#[test]
fn cranelift_runs_chosen_experts() -> Result<(), Diag> {
    only_chosen_experts_run(&[Maker::Interpreter, Maker::Cranelift])
}

#[cfg(feature = "llvm")]
#[test]
fn llvm_runs_chosen_experts() -> Result<(), Diag> {
    only_chosen_experts_run(&[Maker::Llvm])
}
