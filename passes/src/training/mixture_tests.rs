//! Routers of mixtures on the interpreter.

use super::mixture::{Router, Routing, balance, noisy_top_k};
use super::*;
use planish_ir::op::gradient::sweep;
use planish_ir::op::random::{Random, stream, unit};
use planish_ir::{DType, Op, interp, verify};

const EXAMPLES: usize = 6;
const EXPERTS: usize = 5;

fn numbers(seed: u64, shape: &[usize]) -> Result<Tensor, Diag> {
    let n: usize = shape.iter().product();
    let v = (0..n as u64).map(|i| 2.0 * unit(stream(seed, i)) - 1.0).collect();
    Tensor::floats(DType::F64, shape, v)
}

fn operands() -> Result<Vec<Tensor>, Diag> {
    Ok(vec![numbers(1, &[EXAMPLES, 3])?, numbers(2, &[3, EXPERTS])?, numbers(3, &[3, EXPERTS])?])
}

/// Gates, load, balance with these weights, and its gradients by weights and weights of the noise. The noise is the same in every run.
fn graph(k: usize, noise: bool, weights: [f64; 2]) -> Result<Graph, Diag> {
    let mut g = Graph::new("router");
    let mut ed = Editor::new(&mut g);
    let names = ["x", "w", "noise"];
    let v: Vec<ValueId> =
        names.iter().zip(operands()?).map(|(n, t)| ed.input(n, Type::from(t.ty()))).collect();
    let mut b = Build::new(&mut ed, "router");
    let routing =
        noisy_top_k(&mut b, v[0], &Router { weights: v[1], bias: None, noise: noise.then_some(v[2]) }, k)?;
    let balance = balance(&mut b, routing, weights[0], weights[1])?;
    for n in ed.graph().nodes_in(ed.graph().root()).collect::<Vec<_>>() {
        let node = ed.graph().node(n);
        if let Op::Random(op) = node.op.clone() {
            let shape = node.inputs[0];
            ed.before(n);
            let seed = ed.constant(Tensor::scalar_i64(4))?;
            ed.rewrite(n, Random { seed: None, ..op }, &[shape, Some(seed)])?;
        }
    }
    ed.at_end(ed.graph().root());
    let Routing { gates, load } = routing;
    for (v, name) in [(gates, "gates"), (load, "load"), (balance, "balance")] {
        ed.output(v, Some(name));
    }
    let nodes: Vec<NodeId> = ed.graph().nodes_in(ed.graph().root()).collect();
    let one = ed.constant(Tensor::scalar(DType::F64, 1.0)?)?;
    for (d, v) in sweep(&mut ed, &nodes, &[(balance, one)], &v[1..])?.into_iter().zip(&v[1..]) {
        let none = Build::new(&mut ed, "test").zeros(*v)?;
        ed.output(d.unwrap_or(none), None);
    }
    assert_eq!(verify::verify(&g), []);
    Ok(g)
}

fn run(g: &Graph, inputs: &[Tensor]) -> Result<Vec<Vec<f64>>, Diag> {
    let values = interp::run(g, inputs.iter().map(|t| Value::from(t.clone())).collect())?.values;
    values.iter().map(|v| Ok(v.tensor()?.to_f64())).collect()
}

fn scores(inputs: &[Tensor]) -> Vec<Vec<f64>> {
    let (x, w) = (inputs[0].to_f64(), inputs[1].to_f64());
    let of = |n: usize, e: usize| (0..3).map(|i| x[n * 3 + i] * w[i * EXPERTS + e]).sum();
    (0..EXAMPLES).map(|n| (0..EXPERTS).map(|e| of(n, e)).collect()).collect()
}

#[test]
fn as_many_experts_as_asked_for_are_chosen() -> Result<(), Diag> {
    let inputs = operands()?;
    for k in 1..=EXPERTS {
        for noise in [false, true] {
            let got = run(&graph(k, noise, [0.1, 0.1])?, &inputs)?;
            for row in got[0].chunks(EXPERTS) {
                assert_eq!(row.iter().filter(|g| **g != 0.0).count(), k);
                assert!((row.iter().sum::<f64>() - 1.0).abs() < 1e-12);
            }
            let total: f64 = got[1].iter().sum();
            if !noise || k == EXPERTS {
                assert!((total - (k * EXAMPLES) as f64).abs() < 1e-12, "{total}");
            } else {
                assert!(got[1].iter().all(|l| *l > 0.0 && *l < EXAMPLES as f64), "{got:?}");
            }
        }
        // Without noise those with the largest scores, in the proportions of a softmax.
        let got = run(&graph(k, false, [0.1, 0.1])?, &inputs)?;
        for (row, z) in got[0].chunks(EXPERTS).zip(scores(&inputs)) {
            let mut order = z.clone();
            order.sort_by(|a, b| b.total_cmp(a));
            let sum: f64 = order[..k].iter().map(|z| z.exp()).sum();
            for (g, z) in row.iter().zip(z) {
                let want = if z >= order[k - 1] { z.exp() / sum } else { 0.0 };
                assert!((g - want).abs() < 1e-12, "{k}: {row:?}");
            }
        }
    }
    Ok(())
}

#[test]
fn balance_is_its_formula_and_its_gradient_its_slope() -> Result<(), Diag> {
    let inputs = operands()?;
    let variation = |v: &[f64]| {
        let mean = v.iter().sum::<f64>() / v.len() as f64;
        v.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / v.len() as f64 / (mean * mean + 1e-10)
    };
    for (k, noise, weights) in
        [(2, true, [0.0, 1.0]), (2, true, [1.0, 0.0]), (1, true, [0.3, 0.7]), (3, false, [1.0, 0.0])]
    {
        let g = graph(k, noise, weights)?;
        let got = run(&g, &inputs)?;
        let sums: Vec<f64> = (0..EXPERTS).map(|e| got[0].iter().skip(e).step_by(EXPERTS).sum()).collect();
        let want = weights[0] * variation(&sums) + weights[1] * variation(&got[1]);
        assert!((got[2][0] - want).abs() < 1e-12, "{} is not {want}", got[2][0]);
        let mut moves = 0.0;
        for i in [1, 2] {
            for (at, found) in got[i + 2].iter().enumerate() {
                let moved = |by: f64| -> Result<f64, Diag> {
                    let mut inputs = inputs.clone();
                    let mut v = inputs[i].to_f64();
                    v[at] += by;
                    inputs[i] = Tensor::floats(DType::F64, inputs[i].shape(), v)?;
                    Ok(run(&g, &inputs)?[2][0])
                };
                let want = (moved(1e-6)? - moved(-1e-6)?) / 2e-6;
                assert!(
                    (found - want).abs() < 1e-6,
                    "{k}, {weights:?}: operand {i}, {at}: {found}, not {want}"
                );
                moves += want.abs();
            }
        }
        // With one expert all gates are 1: only the load has a slope.
        assert!(moves > 1e-3, "{k}, {weights:?}");
    }
    Ok(())
}

#[test]
fn what_cannot_be_chosen_is_said() {
    for k in [0, EXPERTS + 1] {
        assert_eq!(graph(k, true, [0.0, 0.0]).map(|_| ()).map_err(|d| d.id), Err("train-malformed"));
    }
}

/// Experts that are written to one side share the work after some steps in which the balance is part of the loss, and do not without.
#[test]
fn balance_spreads_the_work() -> Result<(), Diag> {
    let (examples, experts) = (32, 4);
    let mut model = Graph::new("mixture");
    let mut ed = Editor::new(&mut model);
    let x = ed.input("x", Type::from(Tensor::f32s(&[examples, 3], &[0.0; 96])?.ty()));
    // The first input is 1 for all, and the first expert is preferred.
    let mut start = [0.0f32; 12];
    start[0] = 3.0;
    let w = ed.constant(Tensor::f32s(&[3, experts], &start)?)?;
    ed.set_name(w, "router");
    let spread = ed.constant(Tensor::f32s(&[3, experts], &[0.0; 12])?)?;
    ed.set_name(spread, "router.noise");
    let mut b = Build::new(&mut ed, "mixture");
    let routing = noisy_top_k(&mut b, x, &Router { weights: w, bias: None, noise: Some(spread) }, 1)?;
    let balance = balance(&mut b, routing, 0.1, 0.1)?;
    let heads: Vec<f32> = (0..experts * 3).map(|i| 0.1 * (i % 5) as f32).collect();
    let heads = b.ed.constant(Tensor::f32s(&[experts, 3], &heads)?)?;
    b.ed.set_name(heads, "heads");
    let product = planish_ir::op::matmul::MatMul { trans_a: false, trans_b: false };
    let y = b.ed.node1(product, &[routing.gates, heads])?;
    for (v, name) in [(y, "y"), (balance, "balance"), (routing.load, "load")] {
        ed.output(v, Some(name));
    }
    let mut v: Vec<f32> = (0..96).map(|i| unit(stream(8, i)) as f32 * 2.0 - 1.0).collect();
    v.iter_mut().step_by(3).for_each(|x| *x = 1.0);
    let x = Tensor::f32s(&[examples, 3], &v)?;
    let target = Tensor::f32s(&[examples, 3], &[0.3; 96])?;
    let share = |terms: Vec<(String, f64)>| -> Result<f64, Diag> {
        let mut recipe = Recipe::new(Loss::MeanSquare, Optimizer::default());
        recipe.terms = terms;
        let step = step(&model, &recipe, &|_| true)?;
        let rate = Tensor::f32s(&[], &[0.1])?;
        let mut inputs = step.first(vec![x.clone().into()], target.clone().into(), rate.into(), 0);
        let mut load = Vec::new();
        for number in 0..150 {
            inputs[step.seed.unwrap_or(usize::MAX)] = Tensor::scalar_i64(number).into();
            let results = interp::run(&step.graph, inputs.clone())?.values;
            load = results[2].tensor()?.to_f64();
            inputs[step.variables_from()..].clone_from_slice(step.variables_after(&results));
        }
        let mean = load.iter().sum::<f64>() / load.len() as f64;
        Ok(load.iter().copied().fold(0.0, f64::max) / mean)
    };
    let (without, with) = (share(Vec::new())?, share(vec![("balance".into(), 1.0)])?);
    assert!(without > 2.5 && with < 1.3, "{without} and {with}");
    Ok(())
}
