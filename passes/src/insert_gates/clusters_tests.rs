//! Experts that are trained on points around eight centres, each with a function of its own (Shazeer et al. 2017, section 4): with a balance
//! in the loss they are equally busy and follow the centres.

use crate::training::mixture::{terms, without_balance};
use crate::training::{Loss, Optimizer, Recipe, Rule, determinized, name_parameters, step};
use crate::{Pipeline, TargetFacts, parse_specs};
use planish_ir::op::random::{stream, unit};
use planish_ir::{Diag, Editor, Graph, Op, Tensor, Value, interp, text};

const ROWS: usize = 64;
const CENTRES: usize = 8;
const OUT: usize = 2;
/// Inputs: a centre lies on each axis.
const D: usize = CENTRES;

/// Points, the centres that they lie around, and what is to be said of them.
struct Batch {
    x: Tensor,
    centres: Vec<usize>,
    target: Tensor,
}

fn normal(bits: impl Fn(u64) -> u64, i: u64) -> f64 {
    let (a, b) = (unit(bits(2 * i)), unit(bits(2 * i + 1)));
    (-2.0 * (1.0 - a).ln()).sqrt() * (std::f64::consts::TAU * b).cos()
}

fn batch(number: u64) -> Result<Batch, Diag> {
    let bits = |i| stream(stream(7, number), i);
    let function = |i: usize| 2.0 * normal(|i| stream(3, i), i as u64);
    let (mut x, mut target) = (Vec::new(), Vec::new());
    let centres: Vec<usize> =
        (0..ROWS as u64).map(|r| (bits(1_000_000 + r) % CENTRES as u64) as usize).collect();
    for (r, c) in centres.iter().enumerate() {
        let away: Vec<f64> = (0..D).map(|i| 0.3 * normal(bits, (r * D + i) as u64)).collect();
        x.extend(away.iter().enumerate().map(|(i, a)| (a + if i == *c { 2.0 } else { 0.0 }) as f32));
        for o in 0..OUT {
            let of = (c * OUT + o) * (D + 1);
            let y: f64 =
                function(of) + away.iter().enumerate().map(|(i, a)| a * function(of + 1 + i)).sum::<f64>();
            target.push(y as f32);
        }
    }
    Ok(Batch { x: Tensor::f32s(&[ROWS, D], &x)?, centres, target: Tensor::f32s(&[ROWS, OUT], &target)? })
}

/// Eight experts of which each row goes to two.
fn model(options: &str) -> Result<Graph, Diag> {
    let zeros = |at: usize, dims: &str, count: usize| {
        format!("v{at} = const f32[{dims}] [{}]\n", vec!["0.0"; count].join(", "))
    };
    let mut graph = text::parse(&format!(
        "planish-ir 1\ngraph @\"m\"(v0 \"x\": f32[{ROWS},{D}]) {{\n{}{}
        v3 = matmul{{trans_a=false, trans_b=false}} v0, v1 : f32[{ROWS},8]
        v4 = unary{{kind=relu}} v3 : f32[{ROWS},8]
        v5 = matmul{{trans_a=false, trans_b=false}} v4, v2 : f32[{ROWS},{OUT}]
        return v5 \"y\" }}",
        zeros(1, &format!("{D},8"), D * 8),
        zeros(2, &format!("8,{OUT}"), 8 * OUT),
    ))?;
    let mut pipeline = Pipeline::default();
    pipeline.specs(&parse_specs(&format!("insert-gates{{kind=mixture,active=2,hidden=8,{options}}}"))?);
    pipeline.run(&mut graph, &TargetFacts::default(), &mut |_, _| {})?;
    name_parameters(&mut graph);
    Ok(graph)
}

fn trained(model: &Graph, steps: u64) -> Result<(Graph, f64), Diag> {
    let rule = Rule::Adam { decay: [0.9, 0.999], epsilon: 1e-8 };
    let mut recipe = Recipe::new(Loss::MeanSquare, Optimizer { rule, ..Optimizer::default() });
    recipe.terms = terms(model);
    let made = step(model, &recipe, &|_| true)?;
    let mut variables: Vec<Value> = made.variables.iter().map(|v| Value::from(v.start.clone())).collect();
    let mut lost = 0.0;
    for number in 0..steps {
        let Batch { x, target, .. } = batch(number)?;
        let rate = Tensor::f32s(&[], &[0.01])?;
        let mut inputs = made.first(vec![x.into()], target.into(), rate.into(), number.cast_signed());
        inputs[made.variables_from()..].clone_from_slice(&variables);
        let results = interp::run(&made.graph, inputs)?.values;
        lost = results[made.outputs].tensor()?.to_f64()[0];
        variables = made.variables_after(&results).to_vec();
    }
    Ok((made.trained(model, &variables)?, lost))
}

/// How experts share fresh points: the largest number of points to the mean, the coefficient of variation, and the mutual information of the
/// first expert and the centre to the mean of their entropies.
fn shares(trained: &Graph) -> Result<[f64; 3], Diag> {
    let mut graph = trained.clone();
    without_balance(&mut graph)?;
    determinized(&mut graph, None)?;
    let router = graph.all_nodes().into_iter().find(|n| matches!(graph.node(*n).op, Op::ScatterElements(_)));
    let router = router.ok_or_else(|| Diag::error("arity", "no router"))?;
    let gates = graph.node(router).outputs[0];
    Editor::new(&mut graph).output(gates, None);
    let mut load = [0.0; CENTRES];
    let mut pairs = [[0.0; CENTRES]; CENTRES];
    let batches = 16;
    for number in 0..batches {
        let Batch { x, centres, .. } = batch((1 << 40) + number)?;
        let values = interp::run(&graph, vec![x.into()])?.values;
        for (row, c) in values[1].tensor()?.to_f64().chunks_exact(CENTRES).zip(centres) {
            row.iter().zip(&mut load).for_each(|(g, l)| *l += f64::from(*g > 0.0));
            let first = (0..CENTRES).max_by(|a, b| row[*a].total_cmp(&row[*b]));
            pairs[c][first.unwrap_or(0)] += 1.0 / (batches as usize * ROWS) as f64;
        }
    }
    let mean = load.iter().sum::<f64>() / CENTRES as f64;
    let spread = (load.iter().map(|l| (l - mean) * (l - mean)).sum::<f64>() / CENTRES as f64).sqrt();
    let entropy = |p: &[f64]| -> f64 { p.iter().filter(|p| **p > 0.0).map(|p| -p * p.ln()).sum() };
    let centres = entropy(&pairs.map(|row| row.iter().sum()));
    let first: Vec<f64> = (0..CENTRES).map(|e| pairs.iter().map(|row| row[e]).sum()).collect();
    let (first, both) = (entropy(&first), entropy(pairs.as_flattened()));
    let shared = 2.0 * (centres + first - both) / (centres + first);
    Ok([load.into_iter().fold(0.0, f64::max) / mean, spread / mean, shared])
}

#[test]
fn balance_makes_experts_follow_the_centres() -> Result<(), Diag> {
    let (graph, lost) = trained(&model("router=zero")?, 400)?;
    let [most, spread, shared] = shares(&graph)?;
    assert!(most <= 1.3 && spread <= 0.2 && shared >= 0.7, "{most}, {spread}, {shared}, {lost}");
    Ok(())
}

#[test]
fn without_a_balance_the_preferred_expert_stays() -> Result<(), Diag> {
    let (graph, lost) = trained(&model("router=biased,importance=0,load=0")?, 400)?;
    let [most, spread, shared] = shares(&graph)?;
    assert!(most > 2.5, "{most}, {spread}, {shared}, {lost}");
    // The balance takes the same beginning apart.
    let (graph, lost) = trained(&model("router=biased")?, 700)?;
    let [most, spread, shared] = shares(&graph)?;
    assert!(most <= 1.5, "{most}, {spread}, {shared}, {lost}");
    Ok(())
}
