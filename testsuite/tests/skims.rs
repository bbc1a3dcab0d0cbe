//! Layers that skim: written to ONNX and read again they are the same layers, every engine gives what the interpreter gives and skips as
//! many steps, and those that skip none give the bits of layers that cannot.

use planish_ir::op::recurrent::skim::SkimRecurrent;
use planish_ir::{Diag, Engine, Graph, Op, PrepareOptions, RunResult, Tensor, Value, interp, text, verify};
use planish_onnx::export::{ExportOptions, export};
use planish_onnx::import::{ImportOptions, import_bytes};
use planish_passes::{Level, Pipeline, TargetFacts, parse_specs};
use planish_testsuite::native::{Maker, Native, targets};
use planish_testsuite::rng::Rng;

fn constant(rng: &mut Rng, shape: &[usize]) -> String {
    let dims: Vec<String> = shape.iter().map(ToString::to_string).collect();
    let count: usize = shape.iter().product();
    let values: Vec<String> =
        (0..count).map(|_| format!("{:.4}", f64::from(rng.range(-999, 999) as i32) / 1000.0)).collect();
    format!("const f32[{}] [{}]", dims.join(","), values.join(", "))
}

/// A network of one recurrent layer that gives all h, or the last one only.
fn layer(
    (cell, linear): (&str, bool),
    (steps, batch): (&str, &str),
    bias: bool,
    all: bool,
) -> Result<Graph, Diag> {
    let mut rng = Rng::new(31);
    let (g, i, h) = (if cell == "lstm" { 4 } else { 3 }, 3, 9);
    let (w, r, b) = (
        constant(&mut rng, &[1, g * h, i]),
        constant(&mut rng, &[1, g * h, h]),
        constant(&mut rng, &[1, 2 * g * h]),
    );
    let (acts, none) = match cell {
        "lstm" => ("sigmoid, tanh, tanh", "0.0, 0.0, 0.0"),
        _ => ("sigmoid, tanh", "0.0, 0.0"),
    };
    let last = format!("f32[1,{batch},{h}]");
    let (names, types) = match cell {
        "lstm" => ("v4, v5, v6", format!("{last}, {last}")),
        _ => ("v4, v5", last),
    };
    let (bias, operand) = if bias { (format!("  v3 = {b}\n"), ", v3") } else { (String::new(), "") };
    let symbols: String = [steps, batch]
        .iter()
        .filter(|s| s.parse::<i64>().is_err())
        .map(|s| format!("sym {s} 0..\n"))
        .collect();
    let y = if all { "v4" } else { "v5" };
    text::parse(&format!(
        "planish-ir 1\n{symbols}graph @\"main\"(v0 \"x\": f32[{steps},{batch},{i}]) {{\n  v1 = {w}\n  v2 = {r}\n{bias}  \
         {names} = recurrent{{cell={cell}, direction=forward, activations=[{acts}], alpha=[{none}], beta=[{none}], clip=none, \
         linear_before_reset={linear}, input_forget=false}} v0, v1, v2{operand} : f32[{steps},1,{batch},{h}], {types} @\"layer\"\n  \
         return {y} \"y\"\n}}\n"
    ))
}

fn run(mut pipeline: Pipeline, graph: &mut Graph) -> Result<(), Diag> {
    pipeline.verify_each = true;
    pipeline.run(graph, &TargetFacts::default(), &mut |_, _| {}).map(|_| ())
}

fn skimming(graph: &Graph, options: &str) -> Result<Graph, Diag> {
    let mut graph = graph.clone();
    let mut pipeline = Pipeline::default();
    pipeline.specs(&parse_specs(&format!("insert-gates{{kind=skim,{options}}}"))?);
    run(pipeline, &mut graph)?;
    Ok(graph)
}

fn skims(g: &Graph) -> Vec<(SkimRecurrent, Vec<Option<Tensor>>)> {
    let of = |n| match &g.node(n).op {
        Op::SkimRecurrent(op) => {
            let constant = |v: &Option<_>| v.and_then(|v| g.as_const(v)?.1.decode().ok());
            Some((op.clone(), g.node(n).inputs[1..9].iter().map(constant).collect()))
        }
        _ => None,
    };
    g.all_nodes().into_iter().filter_map(of).collect()
}

/// Through ONNX and the passes that every import runs.
fn again(graph: &Graph) -> Result<Graph, Diag> {
    let first = |mut all: Vec<Diag>| all.swap_remove(0);
    let exported = export(graph, &ExportOptions::default()).map_err(first)?;
    let mut graph =
        import_bytes(&exported.model.into(), None, &ImportOptions::default()).map_err(first)?.graph;
    run(Pipeline::canonical(Level::O2), &mut graph)?;
    Ok(graph)
}

fn close(a: &RunResult, b: &RunResult) -> Result<(), Diag> {
    assert_eq!(a.values.len(), b.values.len());
    for (a, b) in a.values.iter().zip(&b.values) {
        let (a, b) = (a.tensor()?, b.tensor()?);
        assert_eq!(a.shape(), b.shape());
        for (x, y) in a.to_f64().iter().zip(b.to_f64()) {
            assert!((x - y).abs() <= 1e-5 * (1.0 + y.abs()), "{x} {y}");
        }
    }
    Ok(())
}

fn counted(r: &RunResult) -> [u64; 2] {
    ["skim.steps", "skim.skipped"].map(|name| r.counters.get(name).copied().unwrap_or(0))
}

fn sample(seed: u64, shape: [usize; 3]) -> Result<Value, Diag> {
    let mut rng = Rng::new(seed);
    let n = shape.iter().product();
    let v: Vec<f32> = (0..n).map(|_| rng.range(-2000, 2000) as f32 / 1000.0).collect();
    Ok(Tensor::f32s(&shape, &v)?.into())
}

const CELLS: [(&str, bool); 3] = [("lstm", false), ("gru", false), ("gru", true)];

#[test]
fn they_come_back_from_onnx() -> Result<(), Diag> {
    for cell in CELLS {
        for (k, (sizes, shape)) in [(("7", "1"), [7, 1, 3]), (("T", "B"), [5, 4, 3]), (("6", "N"), [6, 2, 3])]
            .into_iter()
            .enumerate()
        {
            for small in ["2", "0"] {
                let plain = layer(cell, sizes, k != 1, k != 2)?;
                let before = skimming(&plain, &format!("small={small},theta=0.47,seed=5"))?;
                let after = again(&before)?;
                assert_eq!(verify::verify(&after), []);
                let found = skims(&after);
                assert_eq!(found.len(), 1, "{}", text::print(&after));
                let (op, weights) = &found[0];
                let (old, old_weights) = &skims(&before)[0];
                assert_eq!((op.cell, op.linear_before_reset), (old.cell, old.linear_before_reset));
                assert_eq!(weights[0], old_weights[0]);
                let x = sample(3, shape)?;
                let (a, b) = (interp::run(&before, vec![x.clone()])?, interp::run(&after, vec![x])?);
                close(&a, &b)?;
                assert_eq!(counted(&a), counted(&b));
                assert_eq!(counted(&a)[0], (shape[0] * shape[1]) as u64);
                // Once more changes nothing.
                assert_eq!(skims(&again(&after)?).len(), 1);
            }
        }
    }
    Ok(())
}

fn every_engine_agrees(makers: &[Maker]) -> Result<(), Diag> {
    let target = targets().swap_remove(0);
    let mut skipped = 0;
    for cell in CELLS {
        let plain = layer(cell, ("T", "B"), true, true)?;
        let graph = skimming(&plain, "small=3,theta=0.5,seed=2")?;
        let reads = skimming(&plain, "small=3,theta=1,seed=2")?;
        for maker in makers {
            let engine = Native::new(*maker, target.clone());
            let open = |g: &Graph| {
                let program = engine.prepare(g, &PrepareOptions::default());
                program.map_err(|mut all| all.swap_remove(0))?.session()
            };
            let (mut plain, mut session, mut all) = (open(&plain)?, open(&graph)?, open(&reads)?);
            for (seed, shape) in [[9, 1, 3], [4, 5, 3], [3, 0, 3], [0, 2, 3]].into_iter().enumerate() {
                let x = sample(seed as u64, shape)?;
                let want = interp::run(&graph, vec![x.clone()])?;
                let inputs = [Some(x)];
                let got = session.run(&inputs)?;
                close(&got, &want)?;
                assert_eq!(counted(&got), counted(&want), "{}", engine.name());
                skipped += counted(&got)[1];
                let (a, b) = (plain.run(&inputs)?, all.run(&inputs)?);
                assert_eq!(a.values[0].tensor()?.bytes(), b.values[0].tensor()?.bytes(), "{}", engine.name());
                assert_eq!(counted(&b), [(shape[0] * shape[1]) as u64, 0]);
            }
        }
    }
    assert!(skipped > 0);
    Ok(())
}

#[test]
fn cranelift_skips_what_is_skimmed() -> Result<(), Diag> {
    every_engine_agrees(&[Maker::Interpreter, Maker::Cranelift])
}

#[cfg(feature = "llvm")]
#[test]
fn llvm_skips_what_is_skimmed() -> Result<(), Diag> {
    every_engine_agrees(&[Maker::Llvm])
}
