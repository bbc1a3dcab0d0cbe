//! Training of stochastic gates on the interpreter: figures of single steps, and nets that learn.

use super::*;
use planish_ir::op::random::{stream, unit};
use planish_ir::{DType, interp, text, verify};

const S: f64 = 0.1;
const X: [f64; 8] = [0.5, -1.0, 1.5, 0.25, -0.75, 2.0, 1.0, -0.5];
const W: [f64; 6] = [0.3, -0.8, 1.1, 0.6, -0.4, 0.2];

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

fn f64s(shape: &[usize], v: &[f64]) -> Result<Tensor, Diag> {
    Tensor::floats(DType::F64, shape, v.to_vec())
}

/// Four examples of two inputs, three gates.
fn model(gate: &str) -> Result<Graph, Diag> {
    text::parse(&format!(
        "planish-ir 1\ngraph @\"g\"(v0 \"x\": f64[4,2]) {{
         v1 \"w\" = const f64[2,3] {W:?}
         v2 = matmul{{trans_a=false, trans_b=false}} v0, v1 : f64[4,3]
         v3 = const i64[2] [4, 3]
         v4 = random{{dtype=f64, normal=false, a=0.0, b=1.0, seed=none}} v3 : f64[4,3]
         v5 = stochastic-gate{{{gate}}} v2, v4 : f64[4,3]
         v6 = reduce{{kind=sum, axes=none, keepdims=false, noop_empty=false}} v5 : f64[]
         return v5 \"y\", v6 \"on\" }}"
    ))
}

const BINARY: &str = "kind=binary, estimator=identity, sd=1.0";
const REINFORCE: &str = "kind=binary, estimator=reinforce, sd=1.0";
const RECTIFIER: &str = "kind=logistic, estimator=derivative, sd=1.0";

/// Plain descent, so that at rate 1 parameters change by their gradients.
fn plain() -> Recipe {
    let optimizer = Optimizer { rule: Rule::Sgd { momentum: 0.0 }, ..Optimizer::default() };
    Recipe::new(Loss::MeanSquare, optimizer)
}

/// What a step gives by the names of its outputs.
struct Ran {
    y: Vec<f64>,
    loss: f64,
    after: Vec<Vec<f64>>,
}

fn ran(step: &Step, variables: &[(&str, Tensor)], seed: i64) -> Result<Ran, Diag> {
    assert_eq!(verify::verify(&step.graph), []);
    let (x, target) = (f64s(&[4, 2], &X)?, f64s(&[4, 3], &[0.45; 12])?);
    let mut inputs = step.first(vec![x.into()], target.into(), f64s(&[], &[1.0])?.into(), seed);
    for (name, value) in variables {
        let at = step.variables.iter().position(|v| v.name == *name);
        let at = at.unwrap_or_else(|| panic!("no variable {name}"));
        inputs[step.variables_from() + at] = value.clone().into();
    }
    let values = interp::run(&step.graph, inputs)?.values;
    let numbers = |v: &Value| Ok::<_, Diag>(v.tensor()?.to_f64());
    let after = step.variables_after(&values).iter().map(numbers).collect::<Result<_, _>>()?;
    Ok(Ran { y: numbers(&values[0])?, loss: numbers(&values[step.outputs])?[0], after })
}

fn close(what: &str, got: &[f64], want: &[f64]) {
    assert_eq!(got.len(), want.len());
    let near = |(a, b): (&f64, &f64)| (a - b).abs() < 1e-9 * (1.0 + b.abs());
    assert!(got.iter().zip(want).all(near), "{what}: {got:?}, not {want:?}");
}

/// What comes into the gates.
fn arriving(w: &[f64]) -> Vec<f64> {
    (0..12).map(|i| X[i / 3 * 2] * w[i % 3] + X[i / 3 * 2 + 1] * w[3 + i % 3]).collect()
}

/// The gradient of the weights for those of what comes into the gates.
fn back(da: &[f64]) -> Vec<f64> {
    (0..6).map(|i| (0..4).map(|n| X[n * 2 + i / 3] * da[n * 3 + i % 3]).sum()).collect()
}

fn less(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a - b).collect()
}

#[test]
fn noise_is_a_function_of_the_seed_and_the_node() -> Result<(), Diag> {
    let two = text::parse(
        "planish-ir 1\ngraph @\"g\"(v0 \"x\": f64[4,2]) {
         v1 \"w\" = const f64[2,3] [0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
         v2 = matmul{trans_a=false, trans_b=false} v0, v1 : f64[4,3]
         v3 = const i64[2] [4, 3]
         v4 = random{dtype=f64, normal=false, a=0.0, b=1.0, seed=none} v3 : f64[4,3]
         v5 = random{dtype=f64, normal=false, a=0.0, b=1.0, seed=7} v3 : f64[4,3]
         v6 = binary{kind=sub} v4, v5 : f64[4,3]
         v7 = binary{kind=add} v2, v6 : f64[4,3]
         return v7 \"y\" }",
    )?;
    let step = step(&two, &plain(), &|_| true)?;
    assert_eq!((step.seed, step.variables_from()), (Some(3), 4));
    assert_eq!(step.graph.input_name(3), "seed");
    let draw = |seed: u64, node: u64| (0..12).map(move |i| unit(stream(stream(seed, node), i)));
    let want: Vec<f64> = draw(5, 0).zip(draw(5, 1)).map(|(a, b)| a - b).collect();
    close("noise", &ran(&step, &[], 5)?.y, &want);
    assert_eq!(ran(&step, &[], 5)?.y, ran(&step, &[], 5)?.y);
    assert_ne!(ran(&step, &[], 6)?.y, want);
    Ok(())
}

#[test]
fn sigmoids_are_drawn_to_their_share() -> Result<(), Diag> {
    let model = model(BINARY)?;
    let mut recipe = plain();
    let without = ran(&step(&model, &recipe, &|_| true)?, &[], 1)?;
    recipe.sparsity = Some(Sparsity { target: S, factor: 0.5 });
    let with = ran(&step(&model, &recipe, &|_| true)?, &[], 1)?;
    let entropy = |w: &[f64]| -> f64 {
        let a = arriving(w);
        let units = (0..3).map(|j| a.iter().skip(j).step_by(3).map(|a| sigmoid(*a)).sum::<f64>() / 4.0);
        units.map(|p| -0.5 * (S * p.ln() + (1.0 - S) * (1.0 - p).ln())).sum()
    };
    close("entropy", &[with.loss - without.loss], &[entropy(&W)]);
    let slope = |i: usize| {
        let at = |by: f64| {
            let mut w = W;
            w[i] += by;
            entropy(&w)
        };
        (at(1e-5) - at(-1e-5)) / 2e-5
    };
    let got = less(&without.after[0], &with.after[0]);
    for (i, got) in got.iter().enumerate() {
        assert!((got - slope(i)).abs() < 1e-7, "{i}: {got}, not {}", slope(i));
    }
    // The straight-through estimator itself, of the mean of squares.
    let da: Vec<f64> = without.y.iter().map(|h| 2.0 * (h - 0.45) / 12.0).collect();
    close("identity", &less(&W, &without.after[0]), &back(&da));
    Ok(())
}

#[test]
fn rectifiers_have_a_factor_that_follows_their_share() -> Result<(), Diag> {
    let model = model(RECTIFIER)?;
    let mut recipe = plain();
    let without = ran(&step(&model, &recipe, &|_| true)?, &[], 2)?;
    let on = without.y.iter().filter(|h| **h > 0.0).count() as f64 / 12.0;
    assert!(on > 0.2 && on < 0.8, "{on}");
    for (target, factor) in [(on - 0.02, 1.1), (on - 0.005, 1.0), (on + 0.005, 1.0), (on + 0.02, 0.9)] {
        recipe.sparsity = Some(Sparsity { target, factor: 0.25 });
        let step = step(&model, &recipe, &|_| true)?;
        assert_eq!(step.variables[1].name, "gate0.lambda");
        let with = ran(&step, &[], 2)?;
        close("sum", &[with.loss - without.loss], &[0.25 / 4.0 * without.y.iter().sum::<f64>()]);
        close("lambda", &with.after[1], &[0.25 * factor]);
        let da: Vec<f64> = without.y.iter().map(|h| if *h > 0.0 { 0.0625 } else { 0.0 }).collect();
        close("gradient", &less(&without.after[0], &with.after[0]), &back(&da));
        let more = ran(&step, &[("gate0.lambda", f64s(&[], &[1.0])?)], 2)?;
        close("another lambda", &[more.loss - without.loss], &[without.y.iter().sum::<f64>() / 4.0]);
    }
    Ok(())
}

#[test]
fn reinforce_follows_its_formula() -> Result<(), Diag> {
    let step = step(&model(REINFORCE)?, &plain(), &|_| true)?;
    let names: Vec<&str> = step.variables.iter().map(|v| v.name.as_str()).collect();
    assert_eq!(names, ["w", "gate0.reinforce.loss", "gate0.reinforce.weight"]);
    let s: Vec<f64> = arriving(&W).into_iter().map(sigmoid).collect();
    for (loss, weight) in [([0.0; 3], [0.0; 3]), ([0.02, 0.01, 0.05], [0.1, 0.2, 0.15])] {
        let state =
            [("gate0.reinforce.loss", f64s(&[3], &loss)?), ("gate0.reinforce.weight", f64s(&[3], &weight)?)];
        let got = ran(&step, &state, 3)?;
        let losses: Vec<f64> =
            got.y.chunks(3).map(|h| h.iter().map(|h| (h - 0.45) * (h - 0.45) / 3.0).sum()).collect();
        close("loss", &[got.loss], &[losses.iter().sum::<f64>() / 4.0]);
        let base = |j: usize| if weight[j] > 0.0 { loss[j] / weight[j] } else { 0.0 };
        let da: Vec<f64> = (0..12).map(|i| (got.y[i] - s[i]) * (losses[i / 3] - base(i % 3)) / 4.0).collect();
        close("gradient", &less(&W, &got.after[0]), &back(&da));
        let square = |i: usize| (got.y[i] - s[i]) * (got.y[i] - s[i]);
        let mean = |f: &dyn Fn(usize) -> f64, j: usize| (0..4).map(|n| f(n * 3 + j)).sum::<f64>() / 4.0;
        let next = |old: &[f64], f: &dyn Fn(usize) -> f64| -> Vec<f64> {
            (0..3).map(|j| 0.9 * old[j] + 0.1 * mean(f, j)).collect()
        };
        close("average of losses", &got.after[1], &next(&loss, &|i| square(i) * losses[i / 3]));
        close("average of weights", &got.after[2], &next(&weight, &square));
    }
    Ok(())
}

/// With the baseline of least variance the estimate for one unit does not depend on what is drawn.
#[test]
fn the_best_baseline_leaves_no_variance() -> Result<(), Diag> {
    for a in [0.0, -2.2] {
        let model = text::parse(&format!(
            "planish-ir 1\ngraph @\"g\"(v0 \"x\": f64[5,1]) {{
             v1 \"w\" = const f64[1,1] [{a:?}]
             v2 = matmul{{trans_a=false, trans_b=false}} v0, v1 : f64[5,1]
             v3 = const i64[2] [5, 1]
             v4 = random{{dtype=f64, normal=false, a=0.0, b=1.0, seed=none}} v3 : f64[5,1]
             v5 = stochastic-gate{{{REINFORCE}}} v2, v4 : f64[5,1]
             return v5 \"y\" }}"
        ))?;
        let step = step(&model, &plain(), &|_| true)?;
        let s = sigmoid(a);
        let (one, zero) = (0.55 * 0.55, 0.45 * 0.45);
        let weight = s * (1.0 - s);
        let state = [weight * ((1.0 - s) * one + s * zero), weight];
        let (x, target) = (f64s(&[5, 1], &[1.0; 5])?, f64s(&[5, 1], &[0.45; 5])?);
        let mut drawn = BTreeSet::new();
        for seed in 0..20 {
            let mut inputs =
                step.first(vec![x.clone().into()], target.clone().into(), f64s(&[], &[1.0])?.into(), seed);
            for (i, v) in state.iter().enumerate() {
                inputs[step.variables_from() + 1 + i] = f64s(&[1], &[*v])?.into();
            }
            let values = interp::run(&step.graph, inputs)?.values;
            drawn.insert(values[0].tensor()?.to_f64().iter().sum::<f64>() as i64);
            let w = step.variables_after(&values)[0].tensor()?.to_f64()[0];
            assert!((a - w - weight * (one - zero)).abs() < 1e-14, "{a}: {w}");
        }
        assert!(drawn.len() > 1);
    }
    Ok(())
}

#[test]
fn terms_and_factors_are_those_of_the_recipe() -> Result<(), Diag> {
    let model = model(BINARY)?;
    let mut recipe = plain();
    let before = ran(&step(&model, &recipe, &|_| true)?, &[], 1)?;
    recipe.terms = vec![("on".into(), 0.5)];
    let with = ran(&step(&model, &recipe, &|_| true)?, &[], 1)?;
    close("term", &[with.loss - before.loss], &[0.5 * before.y.iter().sum::<f64>()]);
    close("its gradient", &less(&before.after[0], &with.after[0]), &back(&[0.5; 12]));
    recipe.factors = vec![("other".into(), 3.0), ("w".into(), 0.01), ("w".into(), 5.0)];
    let slow = ran(&step(&model, &recipe, &|_| true)?, &[], 1)?;
    let hundredth: Vec<f64> = less(&W, &with.after[0]).iter().map(|d| d * 0.01).collect();
    close("factor", &less(&W, &slow.after[0]), &hundredth);
    for (term, target) in [("y", 0.1), ("none", 0.1), ("on", 1.5)] {
        recipe.terms = vec![(term.into(), 1.0)];
        recipe.sparsity = Some(Sparsity { target, factor: 1.0 });
        let found = step(&model, &recipe, &|_| true).map(|_| ()).map_err(|d| d.id);
        assert_eq!(found, Err("train-malformed"), "{term}");
    }
    Ok(())
}

/// A layer of linear experts with gates of each kind learns to tell points around three places apart.
#[test]
fn nets_of_every_unit_learn() -> Result<(), Diag> {
    let numbers = |seed: u64, n: u64, scale: f64| -> Vec<f64> {
        (0..n).map(|i| ((unit(stream(seed, i)) - 0.5) * scale * 1e4).round() / 1e4).collect()
    };
    let at = [[1.0, 0.0], [-0.7, 0.9], [-0.6, -1.0]];
    let x: Vec<f64> = numbers(3, 60, 0.6).iter().enumerate().map(|(i, e)| at[i / 2 % 3][i % 2] + e).collect();
    let x = Tensor::floats(DType::F32, &[30, 2], x)?;
    let target = Tensor::ints(DType::I64, &[30], (0..30).map(|i| i % 3).collect())?;
    for gate in [
        BINARY,
        "kind=binary, estimator=sigmoid-deriv, sd=1.0",
        "kind=binary, estimator=masked, sd=1.0",
        REINFORCE,
        "kind=smooth, estimator=derivative, sd=1.0",
        "kind=gaussian, estimator=derivative, sd=0.5",
        RECTIFIER,
        "kind=gumbel-sigmoid, estimator=derivative, sd=1.0",
        "kind=gumbel-sigmoid, estimator=straight-through, sd=1.0",
        "kind=gumbel-softmax, estimator=derivative, sd=1.0",
        "kind=gumbel-softmax, estimator=straight-through, sd=1.0",
    ] {
        let model = text::parse(&format!(
            "planish-ir 1\ngraph @\"net\"(v0 \"x\": f32[30,2]) {{
             v1 \"expert\" = const f32[2,8] {:?}
             v2 \"gater\" = const f32[2,8] {:?}
             v3 \"out\" = const f32[8,3] {:?}
             v4 = matmul{{trans_a=false, trans_b=false}} v0, v1 : f32[30,8]
             v5 = matmul{{trans_a=false, trans_b=false}} v0, v2 : f32[30,8]
             v6 = const i64[2] [30, 8]
             v7 = random{{dtype=f32, normal=false, a=0.0, b=1.0, seed=none}} v6 : f32[30,8]
             v8 = stochastic-gate{{{gate}}} v5, v7 : f32[30,8]
             v9 = binary{{kind=mul}} v4, v8 : f32[30,8]
             v10 = matmul{{trans_a=false, trans_b=false}} v9, v3 : f32[30,3]
             return v10 \"y\" }}",
            numbers(11, 16, 2.0),
            numbers(12, 16, 2.0),
            numbers(13, 24, 1.0)
        ))?;
        let mut recipe = Recipe::new(Loss::CrossEntropy, Optimizer::default());
        recipe.sparsity = Some(Sparsity { target: 0.5, factor: 1e-3 });
        if gate == REINFORCE {
            recipe.factors = vec![("gater".into(), 0.01)];
        }
        let step = step(&model, &recipe, &|_| true)?;
        assert_eq!(verify::verify(&step.graph), []);
        let rate = Tensor::f32s(&[], &[0.1])?;
        let mut inputs = step.first(vec![x.clone().into()], target.clone().into(), rate.into(), 0);
        let seed = step.seed.unwrap_or(usize::MAX);
        let mut losses = Vec::new();
        for number in 0..120 {
            inputs[seed] = Tensor::scalar_i64(number).into();
            let results = interp::run(&step.graph, inputs.clone())?.values;
            losses.push(results[step.outputs].tensor()?.to_f64()[0]);
            inputs[step.variables_from()..].clone_from_slice(step.variables_after(&results));
        }
        let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len() as f64;
        let (first, last) = (mean(&losses[..5]), mean(&losses[110..]));
        assert!(last < 0.6 * first, "{gate}: {first} to {last}");
    }
    Ok(())
}
