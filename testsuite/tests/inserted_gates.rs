//! Networks with gates put in: written to ONNX and read again they are the same gates, and every engine gives what the interpreter gives,
//! with the same counters.

use planish_ir::op::control::Gate;
use planish_ir::{
    Diag, Editor, Engine, Graph, Op, PrepareOptions, RunResult, Session, Tensor, Value, interp, text, verify,
};
use planish_onnx::export::{ExportOptions, export};
use planish_onnx::import::{ImportOptions, import_bytes};
use planish_passes::calibrate::Interpreted;
use planish_passes::{Level, Pipeline, TargetFacts, parse_specs};
use planish_testsuite::native::{Maker, Native, targets};
use planish_testsuite::rng::Rng;
use std::fmt::Write;
use std::rc::Rc;

/// A network and inputs for it.
struct Net {
    graph: Graph,
    samples: Vec<Vec<Value>>,
}

fn constant(rng: &mut Rng, shape: &[usize]) -> String {
    let dims: Vec<String> = shape.iter().map(ToString::to_string).collect();
    let count: usize = shape.iter().product();
    let values: Vec<String> =
        (0..count).map(|_| format!("{:.4}", f64::from(rng.range(-999, 999) as i32) / 1000.0)).collect();
    format!("const f32[{}] [{}]", dims.join(","), values.join(", "))
}

fn samples(rng: &mut Rng, shape: &[usize], count: usize) -> Result<Vec<Vec<Value>>, Diag> {
    let size: usize = shape.iter().product();
    (0..count)
        .map(|_| {
            let v: Vec<f32> = (0..size).map(|_| rng.range(-2000, 2000) as f32 / 1000.0).collect();
            Ok(vec![Tensor::f32s(shape, &v)?.into()])
        })
        .collect()
}

/// Two feed-forward pairs with a sum of input and output each, as transformers have them.
fn transformer(dims: &str, symbols: &str, shape: &[usize], function: &str) -> Result<Net, Diag> {
    let mut rng = Rng::new(17);
    let (d, h) = (8, 48);
    let mut nodes = String::new();
    let (mut x, mut next) = (0, 1);
    for layer in 0..2 {
        let (n, up, down) = (next, constant(&mut rng, &[d, h]), constant(&mut rng, &[h, d]));
        let (b, c) = (constant(&mut rng, &[h]), constant(&mut rng, &[d]));
        let plain = "trans_a=false, trans_b=false";
        let _ = write!(
            nodes,
            "  v{n} = {up}\n  v{} = matmul{{{plain}}} v{x}, v{n} : f32[{dims},{h}] @\"up{layer}\"\n  v{} = {b}\n  \
             v{} = binary{{kind=add}} v{}, v{} : f32[{dims},{h}]\n  v{} = unary{{kind={function}}} v{} : f32[{dims},{h}]\n  \
             v{} = {down}\n  v{} = matmul{{{plain}}} v{}, v{} : f32[{dims},{d}] @\"down{layer}\"\n  v{} = {c}\n  \
             v{} = binary{{kind=add}} v{}, v{} : f32[{dims},{d}]\n  v{} = binary{{kind=add}} v{x}, v{} : f32[{dims},{d}]\n",
            n + 1,
            n + 2,
            n + 3,
            n + 1,
            n + 2,
            n + 4,
            n + 3,
            n + 5,
            n + 6,
            n + 4,
            n + 5,
            n + 7,
            n + 8,
            n + 6,
            n + 7,
            n + 9,
            n + 8,
        );
        x = n + 9;
        next = n + 10;
    }
    let source = format!(
        "planish-ir 1\n{symbols}graph @\"main\"(v0 \"x\": f32[{dims},{d}]) {{\n{nodes}  return v{x} \"y\"\n}}\n"
    );
    let graph = text::parse(&source)?;
    let mut full = shape.to_vec();
    full.push(d);
    Ok(Net { graph, samples: samples(&mut rng, &full, 12)? })
}

/// A small convolutional classifier.
fn classifier(batch: &str, symbols: &str, size: usize, softmax: bool) -> Result<Net, Diag> {
    let mut rng = Rng::new(23);
    let (c1, c2, w, b) = (
        constant(&mut rng, &[4, 1, 3, 3]),
        constant(&mut rng, &[8, 4, 3, 3]),
        constant(&mut rng, &[200, 4]),
        constant(&mut rng, &[4]),
    );
    let end = if softmax { "softmax{kind=softmax, axis=1} v10" } else { "unary{kind=neg} v10" };
    let conv = "strides=[1, 1], dilations=[1, 1], auto_pad=explicit, groups=1, pads";
    let source = format!(
        "planish-ir 1\n{symbols}graph @\"main\"(v0 \"x\": f32[{batch},1,7,7]) {{
  v1 = {c1}
  v2 = conv{{{conv}=[1, 1, 1, 1]}} v0, v1 : f32[{batch},4,7,7] @\"conv1\"
  v3 = unary{{kind=relu}} v2 : f32[{batch},4,7,7] @\"relu1\"
  v4 = {c2}
  v5 = conv{{{conv}=[0, 0, 0, 0]}} v3, v4 : f32[{batch},8,5,5] @\"conv2\"
  v6 = unary{{kind=relu}} v5 : f32[{batch},8,5,5] @\"relu2\"
  v7 = flatten{{axis=1}} v6 : f32[{batch},200]
  v8 = {w}
  v9 = matmul{{trans_a=false, trans_b=false}} v7, v8 : f32[{batch},4] @\"fc\"
  v11 = {b}
  v10 = binary{{kind=add}} v9, v11 : f32[{batch},4]
  v12 = {end} : f32[{batch},4]
  return v12 \"y\"
}}
"
    );
    let graph = text::parse(&source)?;
    Ok(Net { graph, samples: samples(&mut rng, &[size, 1, 7, 7], 24)? })
}

fn gates(g: &Graph) -> Vec<Gate> {
    let of = |n| match &g.node(n).op {
        Op::Gate(gate) => Some(gate.clone()),
        _ => None,
    };
    g.all_nodes().into_iter().filter_map(of).collect()
}

fn run(mut pipeline: Pipeline, graph: &mut Graph) -> Result<(), Diag> {
    pipeline.verify_each = true;
    pipeline.run(graph, &TargetFacts::default(), &mut |_, _| {}).map(|_| ())
}

fn gated(net: &Net, spec: &str) -> Result<Graph, Diag> {
    let mut graph = net.graph.clone();
    run(Pipeline::canonical(Level::O2), &mut graph)?;
    let mut pipeline = Pipeline::default();
    pipeline.specs(&parse_specs(spec)?);
    pipeline.calibrate = Some(Rc::new(Interpreted { samples: net.samples.clone(), labels: None }));
    run(pipeline, &mut graph)?;
    assert!(!gates(&graph).is_empty(), "{spec}");
    Ok(graph)
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

/// What gates did; plans also list what never happened.
fn counted(r: &RunResult) -> Vec<(&str, u64)> {
    let of_gates = r.counters.iter().filter(|(k, v)| k.starts_with("gate") && **v > 0);
    of_gates.map(|(k, v)| (k.as_str(), *v)).collect()
}

fn cases() -> Result<Vec<(Net, &'static str)>, Diag> {
    let moe = "insert-gates{kind=moe,experts=4,active=2,gain=0}";
    let exit = "insert-gates{kind=early-exit,threshold=0.6,after=relu1}";
    Ok(vec![
        (transformer("10", "", &[10], "relu")?, moe),
        (transformer("1,9", "", &[1, 9], "gelu")?, moe),
        (transformer("B,T", "sym B 0..\nsym T 0..\n", &[2, 5], "gelu-tanh")?, moe),
        (transformer("N", "sym N 0..\n", &[1], "relu")?, moe),
        (classifier("1", "", 1, false)?, exit),
        (classifier("1", "", 1, true)?, exit),
        (classifier("6", "", 6, true)?, exit),
        (classifier("N", "sym N 0..\n", 5, false)?, exit),
    ])
}

#[test]
fn gates_come_back_from_onnx() -> Result<(), Diag> {
    for (net, spec) in cases()? {
        let before = gated(&net, spec)?;
        let after = again(&before)?;
        assert_eq!(gates(&before), gates(&after), "{spec}\n{}", text::print(&after));
        assert_eq!(verify::verify(&after), []);
        for sample in net.samples.iter().take(8) {
            let (a, b) = (interp::run(&before, sample.clone())?, interp::run(&after, sample.clone())?);
            close(&a, &b)?;
            assert_eq!(counted(&a), counted(&b), "{spec}");
        }
        // Once more changes nothing.
        assert_eq!(gates(&again(&after)?), gates(&after));
    }
    Ok(())
}

/// Branches and loops that only look like it stay what they are.
#[test]
fn other_branches_are_no_gates() -> Result<(), Diag> {
    let net = classifier("1", "", 1, false)?;
    let mut graph = gated(&net, "insert-gates{kind=early-exit,threshold=0.6,after=relu1}")?;
    // A second user of the places, or a sum that does not begin with zeros, would be lost: here the condition is another one.
    let n = graph.all_nodes().into_iter().find(|n| matches!(graph.node(*n).op, Op::Gate(_)));
    let n = n.ok_or_else(|| Diag::error("arity", "no gate"))?;
    let mut ed = Editor::new(&mut graph);
    ed.before(n);
    let flag = ed.input("flag", planish_ir::Type::tensor(planish_ir::DType::Bool, vec![1usize.into()]));
    ed.set_use(planish_ir::graph::Use::Node(n, 0), flag);
    assert_eq!(gates(&again(&graph)?), []);
    Ok(())
}

/// Every engine gives what the interpreter gives and counts the same work.
fn every_engine_agrees(makers: &[Maker]) -> Result<(), Diag> {
    let target = targets().swap_remove(0);
    for (net, spec) in cases()? {
        let graph = gated(&net, spec)?;
        for maker in makers {
            let engine = Native::new(*maker, target.clone());
            let program = engine.prepare(&graph, &PrepareOptions::default());
            let program = program.map_err(|mut all| all.swap_remove(0))?;
            let mut session = program.session()?;
            for sample in net.samples.iter().take(6) {
                let want = interp::run(&graph, sample.clone())?;
                let inputs: Vec<Option<Value>> = sample.iter().cloned().map(Some).collect();
                let got = session.run(&inputs)?;
                close(&got, &want)?;
                assert_eq!(counted(&got), counted(&want), "{} {spec}", engine.name());
            }
        }
    }
    Ok(())
}

#[test]
fn cranelift_runs_what_is_chosen() -> Result<(), Diag> {
    every_engine_agrees(&[Maker::Interpreter, Maker::Cranelift])
}

#[cfg(feature = "llvm")]
#[test]
fn llvm_runs_what_is_chosen() -> Result<(), Diag> {
    every_engine_agrees(&[Maker::Llvm])
}

/// An exit that nothing takes leaves compiled results as they were, to the bit.
#[test]
fn exits_that_nothing_takes_change_no_bit() -> Result<(), Diag> {
    let engine = Native::new(Maker::Cranelift, targets().swap_remove(0));
    for (batch, symbols, size) in [("1", "", 1), ("6", "", 6), ("N", "sym N 0..\n", 5)] {
        for softmax in [false, true] {
            let net = classifier(batch, symbols, size, softmax)?;
            let graph = gated(&net, "insert-gates{kind=early-exit,threshold=1,after=relu1}")?;
            let open = |g: &Graph| -> Result<Box<dyn Session>, Diag> {
                let program = engine.prepare(g, &PrepareOptions::default());
                program.map_err(|mut all| all.swap_remove(0))?.session()
            };
            let (mut plain, mut exits) = (open(&net.graph)?, open(&graph)?);
            for sample in net.samples.iter().take(8) {
                let inputs: Vec<Option<Value>> = sample.iter().cloned().map(Some).collect();
                let (a, b) = (plain.run(&inputs)?, exits.run(&inputs)?);
                assert_eq!(a.values[0].tensor()?.bytes(), b.values[0].tensor()?.bytes(), "{batch} {softmax}");
            }
        }
    }
    Ok(())
}
