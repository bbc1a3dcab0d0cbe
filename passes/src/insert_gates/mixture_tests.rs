//! Mixtures of experts from their insertion to gates, on the interpreter.

use crate::training::mixture::{terms, without_balance};
use crate::training::{determinized, name_parameters, with_values};
use crate::{Pipeline, Report, TargetFacts, parse_specs};
use planish_ir::op::random::{stream, unit};
use planish_ir::{Diag, Graph, Op, Tensor, interp, text};
use std::collections::BTreeMap;

fn numbers(seed: u64, count: usize) -> Vec<f32> {
    (0..count as u64).map(|i| (unit(stream(seed, i)) * 2.0 - 1.0) as f32).collect()
}

fn constant(at: usize, name: &str, dims: &str, count: usize) -> String {
    let list: Vec<String> = numbers(at as u64, count).iter().map(|x| format!("{x:.3}")).collect();
    format!("v{at} \"{name}\" = const f32[{dims}] [{}]\n", list.join(", "))
}

/// A pair of `inputs`, 16 hidden units and 3 outputs, with a bias behind it.
fn pair(symbols: &str, dims: &str, inputs: usize, function: &str) -> Result<Graph, Diag> {
    text::parse(&format!(
        "planish-ir 1\n{symbols}graph @\"m\"(v0 \"x\": f32[{dims},{inputs}]) {{\n{}{}{}{}
        v5 = matmul{{trans_a=false, trans_b=false}} v0, v1 : f32[{dims},16]
        v6 = binary{{kind=add}} v5, v2 : f32[{dims},16]
        v7 = unary{{kind={function}}} v6 : f32[{dims},16]
        v8 = matmul{{trans_a=false, trans_b=false}} v7, v3 : f32[{dims},3] @\"down\"
        v9 = binary{{kind=add}} v8, v4 : f32[{dims},3]
        return v9 \"y\" }}",
        constant(1, "w", &format!("{inputs},16"), inputs * 16),
        constant(2, "b", "16", 16),
        constant(3, "out", "16,3", 48),
        constant(4, "last", "3", 3),
    ))
}

fn run(graph: &mut Graph, specs: &str) -> Result<Report, Diag> {
    let mut pipeline = Pipeline::default();
    pipeline.verify_each = true;
    pipeline.specs(&parse_specs(specs)?);
    pipeline.run(graph, &TargetFacts::default(), &mut |_, _| {})
}

fn mixture(graph: &Graph, options: &str) -> Result<Graph, Diag> {
    let mut graph = graph.clone();
    run(&mut graph, &format!("insert-gates{{kind=mixture,{options}}}"))?;
    Ok(graph)
}

/// Without noise and balance, with random numbers for all parameters.
fn settled(graph: &Graph) -> Result<Graph, Diag> {
    let mut graph = graph.clone();
    name_parameters(&mut graph);
    let mut values = BTreeMap::new();
    for (i, n) in graph.all_nodes().into_iter().enumerate() {
        let v = graph.node(n).outputs[0];
        if let (Some((_, c)), Some(name)) = (graph.as_const(v), graph.value(v).name.as_deref())
            && name.contains("experts.") | name.ends_with("router")
        {
            let count = c.shape.iter().product();
            values.insert(name.to_owned(), Tensor::f32s(&c.shape, &numbers(100 + i as u64, count))?);
        }
    }
    assert_eq!(values.len(), 5);
    let mut graph = with_values(&graph, &values)?;
    without_balance(&mut graph)?;
    determinized(&mut graph, None)?;
    Ok(graph)
}

fn draws(graph: &Graph) -> bool {
    graph.all_nodes().into_iter().any(|n| matches!(graph.node(n).op, Op::Random(_)))
}

fn gates(graph: &Graph) -> Vec<usize> {
    let k = |n| match &graph.node(n).op {
        Op::Gate(gate) => Some(gate.k),
        _ => None,
    };
    graph.all_nodes().into_iter().filter_map(k).collect()
}

fn far(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.shape(), b.shape());
    a.to_f64().iter().zip(b.to_f64()).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

#[test]
fn copies_of_the_pair_are_the_pair() -> Result<(), Diag> {
    for (dims, shape) in [("6", vec![6, 5]), ("2,3", vec![2, 3, 5])] {
        let before = pair("", dims, 5, "gelu")?;
        let x = Tensor::f32s(&shape, &numbers(9, 30))?;
        let plain = interp::run(&before, vec![x.clone().into()])?;
        let after = mixture(&before, "experts=3,active=2,hidden=16,start=copy")?;
        let out = interp::run(&after, vec![x.clone().into()])?;
        assert!(far(plain.values[0].tensor()?, out.values[0].tensor()?) < 1e-5);
        // All experts with equal weights: slices are as much on average.
        let mut after = mixture(&before, "experts=4,active=4,start=copy,importance=0,load=0")?;
        determinized(&mut after, None)?;
        let out = interp::run(&after, vec![x.into()])?;
        assert_eq!(out.values.len(), 1);
        assert!(far(plain.values[0].tensor()?, out.values[0].tensor()?) < 1e-5);
    }
    Ok(())
}

#[test]
fn routed_equals_masked_and_does_its_share() -> Result<(), Diag> {
    let cases = [
        ("", "6", vec![6, 5], "relu"),
        ("sym N 0..\n", "N", vec![7, 5], "gelu"),
        ("", "1", vec![1, 5], "tanh"),
        ("sym B 0..\nsym T 0..\n", "B,T", vec![2, 3, 5], "relu"),
    ];
    for (symbols, dims, shape, function) in cases {
        let before = pair(symbols, dims, 5, function)?;
        for (experts, active, units) in [(4, 1, 4), (4, 2, 7), (4, 4, 4), (2, 1, 8)] {
            let options = format!("experts={experts},active={active},hidden={units},router=random");
            let made = mixture(&before, &options)?;
            assert_eq!(made.output_name(1), "balance");
            assert!(draws(&made));
            let masked = settled(&made)?;
            assert!(!draws(&masked) && masked.outputs().len() == 1);
            let mut routed = masked.clone();
            let report = run(&mut routed, "route-experts{gain=0}")?;
            assert_eq!(gates(&routed), [active], "{}", text::print(&masked));
            assert_eq!(report.ran[0].metrics["row-macs-after"], (active * units * 8) as f64);
            let rows: usize = shape[..shape.len() - 1].iter().product();
            let x = Tensor::f32s(&shape, &numbers(9, rows * 5))?;
            let (a, b) =
                (interp::run(&masked, vec![x.clone().into()])?, interp::run(&routed, vec![x.into()])?);
            assert!(far(a.values[0].tensor()?, b.values[0].tensor()?) < 1e-5, "{options}");
            assert_eq!(b.counters["gate.rows"], (rows * active) as u64);
        }
    }
    Ok(())
}

#[test]
fn mixtures_in_canonical_form_are_found() -> Result<(), Diag> {
    for symbols in ["", "sym N 0..\n"] {
        let dims = if symbols.is_empty() { "6" } else { "N" };
        let mut graph = settled(&mixture(&pair(symbols, dims, 5, "relu")?, "experts=4,active=2")?)?;
        for mut pipeline in [Pipeline::canonical(crate::Level::O2), Pipeline::default()] {
            pipeline.verify_each = true;
            pipeline.run(&mut graph, &TargetFacts::default(), &mut |_, _| {})?;
        }
        run(&mut graph, "route-experts{gain=0}")?;
        assert_eq!(gates(&graph), [2], "{}", text::print(&graph));
    }
    Ok(())
}

#[test]
fn two_pairs_have_one_balance() -> Result<(), Diag> {
    let graph = text::parse(&format!(
        "planish-ir 1\ngraph @\"m\"(v0 \"x\": f32[4,3]) {{\n{}{}
        v5 = matmul{{trans_a=false, trans_b=false}} v0, v1 : f32[4,6]
        v6 = unary{{kind=relu}} v5 : f32[4,6]
        v7 = matmul{{trans_a=false, trans_b=false}} v6, v2 : f32[4,3] @\"one\"
        v8 = binary{{kind=add}} v7, v0 : f32[4,3]
        v9 = matmul{{trans_a=false, trans_b=false}} v8, v1 : f32[4,6]
        v10 = unary{{kind=relu}} v9 : f32[4,6]
        v11 = matmul{{trans_a=false, trans_b=false}} v10, v2 : f32[4,3] @\"two\"
        return v11 \"y\" }}",
        constant(1, "w", "3,6", 18),
        constant(2, "out", "6,3", 18)
    ))?;
    let x = || Tensor::f32s(&[4, 3], &numbers(5, 12));
    let mut sums = Vec::new();
    for which in ["", ",include=one", ",include=two", ",exclude=."] {
        let made = mixture(&graph, &format!("experts=2,active=1,router=biased,load=0{which}"))?;
        assert_eq!(made.outputs().len(), if which == ",exclude=." { 1 } else { 2 }, "{which}");
        assert_eq!(terms(&made).len(), made.outputs().len() - 1);
        let out = interp::run(&made, vec![x()?.into()])?.values;
        sums.push(out.get(1).map(|v| v.tensor().map(|t| t.to_f64()[0])).transpose()?);
    }
    // One expert of two gets all: the squared coefficient of variation is 1.
    for (i, want) in [0.2, 0.1, 0.1].into_iter().enumerate() {
        assert!(sums[i].is_some_and(|s| (s - want).abs() < 0.01), "{sums:?}");
    }
    Ok(())
}

#[test]
fn options_are_checked() {
    for bad in [
        "experts=1",
        "active=0",
        "experts=4,active=5",
        "hidden=0",
        "importance=-1",
        "load=nan",
        "start=slices",
        "router=fast",
        "gater=3",
    ] {
        let specs = parse_specs(&format!("insert-gates{{kind=mixture,{bad}}}"));
        let made = specs.and_then(|s| s[0].make().map(|_| ()));
        assert_eq!(made.map_err(|d| d.id), Err("pass-option"), "{bad}");
    }
    assert!(parse_specs("route-experts{gain=-1}").and_then(|s| s[0].make().map(|_| ())).is_err());
}
