use super::*;
use planish_ir::op::control::without_gates;
use planish_ir::op::random::{stream, unit};
use planish_ir::op::recurrent::skim::without_skims;
use planish_ir::{DType, Tensor, Value, interp, verify};

fn pseudo(seed: u64, shape: &[usize]) -> Result<Tensor, Diag> {
    let n: usize = shape.iter().product();
    Tensor::floats(DType::F32, shape, (0..n as u64).map(|k| unit(stream(seed, k)) * 2.0 - 1.0).collect())
}

/// A layer of a symbolic batch whose results `kept` are outputs.
fn layer(
    op: &SkimRecurrent,
    small: usize,
    biases: bool,
    kept: &[usize],
    steps: Option<usize>,
) -> Result<Graph, Diag> {
    let (i, h, g) = (3, 4, op.plain().gates());
    let mut graph = Graph::new("g");
    let mut ed = Editor::new(&mut graph);
    let batch = ed.graph_mut().symbols.named("B");
    let t = match steps {
        Some(t) => Dim::from(t),
        None => Dim::from(ed.graph_mut().symbols.named("T")),
    };
    let x = ed.input("x", Type::tensor(DType::F32, vec![t, Dim::from(batch), i.into()]));
    let shapes: [&[usize]; 8] = [
        &[1, g * h, i],
        &[1, g * h, h],
        &[1, g * small, i],
        &[1, g * small, small],
        &[i + h, 2],
        &[1, 2 * g * h],
        &[1, 2 * g * small],
        &[2],
    ];
    let mut operands = vec![Some(x)];
    for (k, shape) in shapes.iter().enumerate().take(if biases { 8 } else { 5 }) {
        operands.push(Some(ed.constant(pseudo(k as u64 + 7, shape)?)?));
    }
    let out = ed.node(op.clone(), &operands)?;
    for (k, v) in out.into_iter().enumerate().filter(|(k, _)| kept.contains(k)) {
        ed.output(v, Some(&format!("y{k}")));
    }
    Ok(graph)
}

fn canonical(graph: &mut Graph, recognise: bool) -> Result<(), Diag> {
    let mut p = Pipeline::default();
    p.verify_each = true;
    p.repeat(CANONICAL);
    if recognise {
        p.once("recognize");
        p.repeat(CANONICAL);
    }
    p.run(graph, &TargetFacts::default(), &mut |_, _| {}).map(|_| ())
}

fn op_of(g: &Graph) -> Option<SkimRecurrent> {
    g.all_nodes().into_iter().find_map(|n| match &g.node(n).op {
        Op::SkimRecurrent(op) => Some(op.clone()),
        _ => None,
    })
}

#[test]
fn the_loop_of_a_layer_is_the_layer_again() -> Result<(), Diag> {
    for (cell, linear) in [(Cell::Lstm, false), (Cell::Gru, false), (Cell::Gru, true)] {
        let op = SkimRecurrent { cell, linear_before_reset: linear, theta: 0.45, temperature: 0.5 };
        let kept: [&[usize]; 4] = [&[0, 1, 2, 3], &[1], &[0], &[op.probabilities()]];
        for (k, kept) in kept.into_iter().enumerate() {
            for (small, biases) in [(2, true), (4, false), (0, true)] {
                let first = layer(&op, small, biases, kept, (k % 2 == 0).then_some(6))?;
                let parts = without_skims(&first)?.into_owned();
                let mut parts = without_gates(&parts)?.into_owned();
                canonical(&mut parts, true)?;
                assert_eq!(verify::verify(&parts), []);
                let shown = planish_ir::text::print(&parts);
                let found = op_of(&parts);
                assert!(
                    found.is_some_and(|f| f.cell == cell && f.linear_before_reset == linear),
                    "{cell:?} {linear} {kept:?} {small} {biases}: {shown}"
                );
                assert!(!shown.contains("loop{"), "{shown}");
                let x = Value::from(pseudo(99, &[6, 3, 3])?);
                let (a, b) = (interp::run(&first, vec![x.clone()])?, interp::run(&parts, vec![x])?);
                assert_eq!(a.counters.get("skim.skipped"), b.counters.get("skim.skipped"));
                for (a, b) in a.values.iter().zip(&b.values) {
                    assert_eq!(a.tensor()?.bytes(), b.tensor()?.bytes());
                }
            }
        }
    }
    Ok(())
}

#[test]
fn other_loops_stay() -> Result<(), Diag> {
    let op = SkimRecurrent { cell: Cell::Lstm, linear_before_reset: false, theta: 0.45, temperature: 0.5 };
    let first = layer(&op, 2, true, &[0], Some(5))?;
    let mut parts = without_gates(without_skims(&first)?.as_ref())?.into_owned();
    canonical(&mut parts, false)?;
    // An activation in the loop that such a layer does not have.
    let text = planish_ir::text::print(&parts).replacen("unary{kind=tanh}", "unary{kind=sin}", 1);
    let mut other = planish_ir::text::parse(&text)?;
    canonical(&mut other, true)?;
    assert!(op_of(&other).is_none());
    Ok(())
}
