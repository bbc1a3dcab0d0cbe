//! Steps of training on the interpreter.

use super::*;
use planish_ir::op::random::{stream, unit};
use planish_ir::{DType, interp, text, verify};

/// Two inputs, a hidden layer, three classes.
const NET: &str = "planish-ir 1
graph @\"net\"(v0 \"x\": f32[30,2]) {
  v1 \"w1\" = const f32[2,8] [0.5, -0.4, 0.3, -0.2, 0.6, -0.1, 0.2, 0.7, -0.3, 0.5, -0.6, 0.4, 0.1, 0.8, -0.7, 0.2]
  v2 \"b1\" = const f32[8] [0.0, 0.1, 0.0, -0.1, 0.0, 0.1, 0.0, 0.0]
  v3 \"w2\" = const f32[8,3] [0.3, -0.2, 0.1, -0.4, 0.5, 0.2, 0.1, -0.3, 0.4, 0.2, 0.1, -0.5, -0.1, 0.3, 0.2, 0.4, -0.2, 0.1, 0.2, 0.3, -0.1, -0.3, 0.1, 0.2]
  v4 = matmul{trans_a=false, trans_b=false} v0, v1 : f32[30,8]
  v5 = binary{kind=add} v4, v2 : f32[30,8]
  v6 = unary{kind=relu} v5 : f32[30,8]
  v7 = matmul{trans_a=false, trans_b=false} v6, v3 : f32[30,3]
  v8 = softmax{kind=softmax, axis=1} v7 : f32[30,3]
  return v8 \"y\"
}
";

/// Points around three places, with their classes.
fn points() -> Result<(Tensor, Tensor), Diag> {
    let noise = |i: u64| unit(stream(3, i)) - 0.5;
    let at = [[1.0, 0.0], [-0.7, 0.9], [-0.6, -1.0]];
    let x =
        (0..60).map(|i| at[i / 2 % 3][i % 2] + 0.6 * noise(i as u64)).map(|x| x as f32).collect::<Vec<_>>();
    let classes = (0..30).map(|i| (i % 3) as i128).collect();
    Ok((Tensor::f32s(&[30, 2], &x)?, Tensor::ints(DType::I64, &[30], classes)?))
}

/// The losses of some steps, and the variables after them.
fn run(step: &Step, target: &Tensor, rate: f32, count: usize) -> Result<(Vec<f64>, Vec<Value>), Diag> {
    assert_eq!(verify::verify(&step.graph), []);
    let (x, _) = points()?;
    let mut losses = Vec::new();
    let mut inputs = step.first(vec![x.into()], target.clone().into(), Tensor::f32s(&[], &[rate])?.into(), 0);
    let first = step.variables_from();
    for _ in 0..count {
        let results = interp::run(&step.graph, inputs.clone())?.values;
        losses.push(results[step.outputs].tensor()?.to_f64()[0]);
        inputs[first..].clone_from_slice(step.variables_after(&results));
    }
    Ok((losses, inputs.split_off(first)))
}

#[test]
fn every_optimiser_learns_and_repeats_itself() -> Result<(), Diag> {
    let model = text::parse(NET)?;
    let (x, target) = points()?;
    for (rule, rate) in [
        (Rule::Sgd { momentum: 0.0 }, 0.5),
        (Rule::Sgd { momentum: 0.9 }, 0.2),
        (Rule::Adam { decay: [0.9, 0.999], epsilon: 1e-8 }, 0.05),
        (Rule::RmsProp { decay: 0.9, epsilon: 1e-6 }, 0.02),
    ] {
        let optimizer = Optimizer { rule, ..Optimizer::default() };
        let step = step(&model, &Recipe::new(Loss::CrossEntropy, optimizer), &|_| true)?;
        let (losses, variables) = run(&step, &target, rate, 60)?;
        assert!(losses[0] > 0.9 && losses[59] < 0.12, "{rule:?}: {} to {}", losses[0], losses[59]);
        assert_eq!(run(&step, &target, rate, 60)?.1, variables, "{rule:?}");
        let trained = step.trained(&model, &variables)?;
        let said = interp::run(&trained, vec![x.clone().into()])?.values[0].tensor()?.to_f64();
        let right =
            target.to_i64()?.iter().zip(said.chunks(3)).filter(|(c, p)| p[**c as usize] > 0.5).count();
        assert_eq!(right, 30, "{rule:?}");
    }
    Ok(())
}

#[test]
fn one_step_is_what_the_formulas_say() -> Result<(), Diag> {
    // y = w x, loss (y - t)^2: the gradient at w = 3, x = 2, t = 1 is 2 (6 - 1) 2 = 20.
    let model = text::parse(
        "planish-ir 1\ngraph @\"g\"(v0 \"x\": f64[1,1]) { v1 \"w\" = const f64[1,1] [3.0]
         v2 = matmul{trans_a=false, trans_b=false} v0, v1 : f64[1,1]\n return v2 \"y\" }",
    )?;
    let number = |x: f64| Tensor::floats(DType::F64, &[1, 1], vec![x]);
    let mut decayed = Optimizer { rule: Rule::Sgd { momentum: 0.0 }, decay: 0.1, ..Optimizer::default() };
    let plain = Optimizer { decay: 0.0, ..decayed };
    let adam = Rule::Adam { decay: [0.9, 0.99], epsilon: 0.0 };
    let norm = Optimizer { max_norm: Some(0.5), ..plain };
    let mut cases = vec![
        (plain, 3.0 - 0.01 * 20.0),
        (decayed, 3.0 - 0.01 * 20.3),
        (norm, 0.5),
        (Optimizer { rule: adam, ..plain }, 3.0 - 0.01),
        (Optimizer { rule: Rule::RmsProp { decay: 0.75, epsilon: 0.0 }, ..plain }, 3.0 - 0.02),
    ];
    (decayed.rule, decayed.decoupled) = (adam, true);
    cases.push((decayed, 3.0 - 0.01 - 0.01 * 0.3));
    for (optimizer, want) in cases {
        let step = step(&model, &Recipe::new(Loss::MeanSquare, optimizer), &|name| name == "w")?;
        let rate = Tensor::floats(DType::F64, &[], vec![0.01])?;
        let results = interp::run(
            &step.graph,
            step.first(vec![number(2.0)?.into()], number(1.0)?.into(), rate.into(), 0),
        )?;
        assert_eq!(results.values[step.outputs].tensor()?.to_f64(), [25.0]);
        let w = step.variables_after(&results.values)[0].tensor()?.to_f64()[0];
        assert!((w - want).abs() < 1e-12, "{optimizer:?}: {w}, not {want}");
    }
    Ok(())
}

#[test]
fn losses_follow_their_definitions() -> Result<(), Diag> {
    let model = text::parse(NET)?;
    let (x, _) = points()?;
    let said = interp::run(&model, vec![x.clone().into()])?.values[0].tensor()?.to_f64();
    let soft: Vec<f32> = (0..90).map(|i| [0.7, 0.3, 0.0][i % 3]).collect();
    let target = Tensor::f32s(&[30, 3], &soft)?;
    let of = |loss: Loss| -> Result<f64, Diag> {
        let step = step(&model, &Recipe::new(loss, Optimizer::default()), &|_| true)?;
        Ok(run(&step, &target, 0.0, 1)?.0[0])
    };
    let pairs = || soft.iter().map(|t| f64::from(*t)).zip(said.iter().copied());
    let entropy = |f: &dyn Fn(f64, f64) -> f64| pairs().map(|(t, p)| f(t, p)).sum::<f64>() / 30.0;
    let cross = entropy(&|t, p| -t * p.ln());
    assert!((of(Loss::SoftTargets { temperature: 1.0 })? - cross).abs() < 1e-5);
    let own = entropy(&|t, _| if t > 0.0 { t * t.ln() } else { 0.0 });
    assert!((of(Loss::Divergence)? - (cross + own)).abs() < 1e-5);
    let square = pairs().map(|(t, p)| (p - t) * (p - t)).sum::<f64>() / 90.0;
    assert!((of(Loss::MeanSquare)? - square).abs() < 1e-6);
    // At a temperature probabilities are softer, and the loss grows with its square.
    let hot = said.chunks(3).zip(soft.chunks(3)).map(|(p, t)| {
        let p: Vec<f64> = p.iter().map(|p| p.powf(0.25)).collect();
        let sum: f64 = p.iter().sum();
        p.iter().zip(t).map(|(p, t)| -f64::from(*t) * (p / sum).ln()).sum::<f64>()
    });
    let hot = 16.0 * hot.sum::<f64>() / 30.0;
    assert!((of(Loss::SoftTargets { temperature: 4.0 })? - hot).abs() < 1e-4);
    // A teacher's part and that of the classes.
    let wide: Vec<f32> = soft.chunks(3).flat_map(|t| [t, &[0.0, 1.0, 0.0]].concat()).collect();
    let wide = Tensor::f32s(&[30, 6], &wide)?;
    let made = step(
        &model,
        &Recipe::new(Loss::Distill { temperature: 4.0, hard: 0.25 }, Optimizer::default()),
        &|_| true,
    )?;
    let sharp = said.chunks(3).map(|p| -p[1].ln()).sum::<f64>() / 30.0;
    assert!((run(&made, &wide, 0.0, 1)?.0[0] - (0.75 * hot + 0.25 * sharp)).abs() < 1e-4);
    Ok(())
}

#[test]
fn what_cannot_be_trained_is_said() -> Result<(), Diag> {
    let model = text::parse(NET)?;
    let none = step(&model, &Recipe::new(Loss::CrossEntropy, Optimizer::default()), &|_| false);
    assert_eq!(none.map(|_| ()).map_err(|d| d.id), Err("train-malformed"));
    let cold =
        step(&model, &Recipe::new(Loss::SoftTargets { temperature: 0.0 }, Optimizer::default()), &|_| true);
    assert_eq!(cold.map(|_| ()).map_err(|d| d.id), Err("train-malformed"));
    let ints = text::parse("planish-ir 1\ngraph @\"g\"(v0 \"x\": i64[2]) { return v0 \"y\" }")?;
    let ints = step(&ints, &Recipe::new(Loss::MeanSquare, Optimizer::default()), &|_| true);
    assert_eq!(ints.map(|_| ()).map_err(|d| d.id), Err("train-malformed"));
    Ok(())
}

#[test]
fn masks_keep_weights_at_zero_and_lasso_draws_blocks_there() -> Result<(), Diag> {
    let model = text::parse(NET)?;
    let (x, target) = points()?;
    let mut recipe = Recipe::new(Loss::CrossEntropy, Optimizer::default());
    recipe.masks = true;
    let plain = step(&model, &recipe, &|_| true)?;
    let at = |name: &str| plain.variables.iter().position(|v| v.name == name).unwrap_or(usize::MAX);
    let (w, mask) = (at("w1"), at("w1.mask"));
    let rate = Tensor::f32s(&[], &[0.1])?;
    let mut inputs = plain.first(vec![x.into()], target.clone().into(), rate.into(), 0);
    let first = plain.variables_from();
    let ones: Vec<f32> = (0..16).map(|i| (i % 3 != 0).into()).map(|b: u8| f32::from(b)).collect();
    inputs[first + mask] = Tensor::f32s(&[2, 8], &ones)?.into();
    for _ in 0..5 {
        let results = interp::run(&plain.graph, inputs.clone())?.values;
        inputs[first..].clone_from_slice(plain.variables_after(&results));
        let weights = inputs[first + w].tensor()?.to_f64();
        assert!(weights.iter().zip(&ones).all(|(w, m)| (*w == 0.0) == (*m == 0.0)), "{weights:?}");
    }
    // Blocks that do not divide the matrix; what a lasso gives is the sum of their norms.
    let mut recipe = Recipe::new(
        Loss::CrossEntropy,
        Optimizer { rule: Rule::Sgd { momentum: 0.0 }, ..Optimizer::default() },
    );
    let loss = |recipe: &Recipe, rate: f32, count: usize| {
        run(&step(&model, recipe, &|n| n == "w2")?, &target, rate, count)
    };
    let without = loss(&recipe, 0.0, 1)?.0[0];
    recipe.lasso = Some(GroupLasso { factor: 0.5, block: [3, 2] });
    let with = loss(&recipe, 0.0, 1)?.0[0];
    let c = planish_ir::graph::Graph::clone(&model);
    let w2 = c.constants().find(|(_, c)| c.shape == [8, 3]).map(|(_, c)| c.decode()).transpose()?;
    let w2 = w2.ok_or_else(|| Diag::error("arity", "w2"))?.to_f64();
    let mut squares = [[0.0; 2]; 3];
    w2.iter().enumerate().for_each(|(i, x)| squares[i / 3 / 3][i % 3 / 2] += x * x);
    let norms: f64 = squares.iter().flatten().map(|s: &f64| s.sqrt()).sum();
    assert!((with - without - 0.5 * norms).abs() < 1e-5, "{with} {without} {norms}");
    let (losses, _) = loss(&recipe, 0.05, 100)?;
    assert!(losses[99] < losses[0] - 0.5, "{losses:?}");
    Ok(())
}

#[test]
fn parameters_that_begin_alike_end_apart() -> Result<(), Diag> {
    let model = text::parse(
        "planish-ir 1\ngraph @\"g\"(v0 \"x\": f64[1,2]) { v1 \"a\" = const f64[2] [0.0, 0.0]
         v2 \"b\" = const f64[2] [0.0, 0.0]\n v3 = binary{kind=add} v0, v1 : f64[1,2]\n v4 = unary{kind=exp} v3 : f64[1,2]
         v5 = binary{kind=add} v4, v2 : f64[1,2]\n return v5 \"y\" }",
    )?;
    let recipe = Recipe::new(Loss::MeanSquare, Optimizer::default());
    let step = step(&model, &recipe, &|_| true)?;
    let numbers = |shape: &[usize], v: &[f64]| Tensor::floats(DType::F64, shape, v.to_vec());
    let (x, target) = (numbers(&[1, 2], &[1.0, 0.5])?, numbers(&[1, 2], &[3.0, 3.0])?);
    let inputs = step.first(vec![x.clone().into()], target.clone().into(), numbers(&[], &[0.1])?.into(), 0);
    let results = interp::run(&step.graph, inputs)?.values;
    let variables = step.variables_after(&results);
    let (a, b) = (variables[0].tensor()?.to_f64(), variables[1].tensor()?.to_f64());
    assert_ne!(a, b);
    let trained = step.trained(&model, variables)?;
    assert_eq!(verify::verify(&trained), []);
    let said = interp::run(&trained, vec![x.into()])?.values[0].tensor()?.to_f64();
    for (i, x) in [1.0f64, 0.5].into_iter().enumerate() {
        assert!((said[i] - ((x + a[i]).exp() + b[i])).abs() < 1e-12, "{said:?}");
    }
    Ok(())
}

/// At a high temperature soft targets are logits compared by their differences (Hinton et al. 2015, section 2.1).
#[test]
fn at_a_high_temperature_students_match_logits() -> Result<(), Diag> {
    let model = text::parse(
        "planish-ir 1\ngraph @\"m\"(v0 \"x\": f64[1,4]) {
        v1 \"z\" = const f64[1,4] [0.5, -1.0, 2.0, -1.5]
        v2 = binary{kind=add} v0, v1 : f64[1,4]
        return v2 \"y\" }",
    )?;
    let teacher = [1.5, 0.5, -3.0, 1.0];
    let optimizer = Optimizer { rule: Rule::Sgd { momentum: 0.0 }, ..Optimizer::default() };
    let gradient = |temperature: f64| -> Result<Vec<f64>, Diag> {
        let soft = soft_scores(&model, temperature)?;
        let base = vec![teacher[0] - 0.5, teacher[1] + 1.0, teacher[2] - 2.0, teacher[3] + 1.5];
        let said = interp::run(&soft, vec![Tensor::floats(DType::F64, &[1, 4], base)?.into()])?;
        let made = step(&model, &Recipe::new(Loss::SoftTargets { temperature }, optimizer), &|_| true)?;
        let x = Tensor::floats(DType::F64, &[1, 4], vec![0.0; 4])?;
        let rate = Tensor::scalar(DType::F64, 1.0)?;
        let inputs = made.first(vec![x.into()], said.values[1].clone(), rate.into(), 0);
        let results = interp::run(&made.graph, inputs)?.values;
        let after = made.variables_after(&results)[0].tensor()?.to_f64();
        Ok(after.iter().zip([0.5, -1.0, 2.0, -1.5]).map(|(w, was)| was - w).collect())
    };
    let want: Vec<f64> = [0.5, -1.0, 2.0, -1.5].iter().zip(teacher).map(|(z, v)| (z - v) / 4.0).collect();
    let cosine = |g: &[f64]| {
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
        dot(g, &want) / (dot(g, g) * dot(&want, &want)).sqrt()
    };
    let hot = gradient(1000.0)?;
    assert!(cosine(&hot) > 0.999, "{hot:?}");
    assert!(hot.iter().zip(&want).all(|(a, b)| (a - b).abs() < 2e-3), "{hot:?} {want:?}");
    assert!(cosine(&gradient(0.5)?) < 0.99);
    Ok(())
}

#[test]
fn forward_values_computed_again_change_nothing() -> Result<(), Diag> {
    let model = text::parse(NET)?;
    let (_, target) = points()?;
    let recipe = Recipe::new(Loss::CrossEntropy, Optimizer::default());
    let whole = step(&model, &recipe, &|_| true)?;
    let lean = step(&model, &Recipe { recompute: Some(0), ..recipe.clone() }, &|_| true)?;
    let again = |s: &Step| {
        s.graph.all_nodes().into_iter().filter(|n| s.graph.node(*n).op.name() == "barrier").count()
    };
    assert!(again(&whole) == 0 && again(&lean) > 0);
    assert_eq!(run(&whole, &target, 0.1, 5)?, run(&lean, &target, 0.1, 5)?);
    Ok(())
}
