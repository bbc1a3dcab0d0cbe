//! Gates and skims from training to inference.

use super::{
    Loss, Optimizer, Recipe, Rule, determinized, draws, inferred, name_parameters, step, thresholds, work,
};
use crate::Threshold;
use crate::pass::TargetFacts;
use crate::pipeline::Pipeline;
use crate::registry::parse_specs;
use planish_ir::op::random::{stream, unit};
use planish_ir::{DType, Diag, Graph, Tensor, Value, interp, text};

fn numbers(seed: u64, count: usize) -> Vec<f32> {
    (0..count as u64).map(|i| (unit(stream(seed, i)) * 2.0 - 1.0) as f32).collect()
}

fn constant(at: usize, name: &str, dims: &str, count: usize) -> String {
    let list: Vec<String> = numbers(at as u64, count).iter().map(|x| format!("{x:.3}")).collect();
    format!("v{at} \"{name}\" = const f32[{dims}] [{}]\n", list.join(", "))
}

fn inserted(net: &str, spec: &str) -> Result<Graph, Diag> {
    let mut graph = text::parse(&format!("planish-ir 1\n{net}"))?;
    let mut pipeline = Pipeline::default();
    pipeline.verify_each = true;
    pipeline.specs(&parse_specs(spec)?);
    pipeline.run(&mut graph, &TargetFacts::default(), &mut |_, _| {})?;
    name_parameters(&mut graph);
    Ok(graph)
}

/// The losses of steps on one batch, and the model with the parameters behind them.
fn trained(model: &Graph, recipe: &Recipe, x: &Tensor, count: usize) -> Result<(Vec<f64>, Graph), Diag> {
    let made = step(model, recipe, &|_| true)?;
    let target = Tensor::ints(DType::I64, &[6], vec![0, 1, 0, 1, 1, 0])?;
    let rate = Tensor::f32s(&[], &[0.05])?;
    let mut inputs = made.first(vec![x.clone().into()], target.into(), rate.into(), 1);
    if let Some(at) = made.temperature {
        inputs.insert(at, Tensor::f32s(&[], &[0.7])?.into());
    }
    let mut losses = Vec::new();
    for s in 0..count {
        if let Some(at) = made.seed {
            inputs[at] = Tensor::scalar_i64(s as i64).into();
        }
        let results = interp::run(&made.graph, inputs.clone())?.values;
        losses.push(results[made.outputs].tensor()?.to_f64()[0]);
        inputs[made.variables_from()..].clone_from_slice(made.variables_after(&results));
    }
    let values: Vec<Value> = inputs[made.variables_from()..].to_vec();
    Ok((losses, made.trained(model, &values)?))
}

/// The share that is on, which is the same where the threshold is an input.
fn density(model: &Graph, threshold: Option<f64>, x: &Tensor) -> Result<f64, Diag> {
    let run = |threshold: Option<Threshold>, inputs: Vec<Value>| -> Result<Vec<Value>, Diag> {
        let (graph, some) = inferred(model, threshold)?;
        assert!(some && graph.output_name(graph.outputs().len() - 1) == "density");
        Ok(interp::run(&graph, inputs)?.values)
    };
    let out = run(threshold.map(Threshold::At), vec![x.clone().into()])?;
    if let Some(t) = threshold {
        let t = Tensor::f32s(&[], &[t as f32])?;
        assert_eq!(run(Some(Threshold::Input), vec![x.clone().into(), t.into()])?, out);
    }
    Ok(out[out.len() - 1].tensor()?.to_f64()[0])
}

#[test]
fn units_get_gates_that_thresholds_close() -> Result<(), Diag> {
    let net = format!(
        "graph @\"m\"(v0 \"x\": f32[6,5]) {{\n{}{}
        v3 = matmul{{trans_a=false, trans_b=false}} v0, v1 : f32[6,8]
        v4 = unary{{kind=relu}} v3 : f32[6,8]
        v5 = matmul{{trans_a=false, trans_b=false}} v4, v2 : f32[6,2]
        return v5 \"y\" }}",
        constant(1, "w", "5,8", 40),
        constant(2, "out", "8,2", 16)
    );
    let x = Tensor::f32s(&[6, 5], &numbers(77, 30))?;
    for unit in
        ["straight-through", "masked", "reinforce", "smooth", "noisy-rectifier", "rectifier", "gumbel-hard"]
    {
        let model = inserted(&net, &format!("insert-gates{{kind=units,unit={unit},gater=3,bias=0}}"))?;
        assert!(draws(&model));
        let anneal = unit == "gumbel-hard";
        let recipe = Recipe { anneal, ..Recipe::new(Loss::CrossEntropy, Optimizer::default()) };
        let (losses, after) = trained(&model, &recipe, &x, 60)?;
        assert!(losses[50..].iter().sum::<f64>() < losses[..10].iter().sum::<f64>(), "{unit}: {losses:?}");
        let all = thresholds(&after);
        let shares = all.iter().map(|t| density(&after, Some(*t), &x)).collect::<Result<Vec<f64>, Diag>>()?;
        assert!(shares.is_sorted_by(|a, b| a >= b) && shares[0] > 0.0, "{unit}: {shares:?}");
        let mut plain = after.clone();
        determinized(&mut plain, None)?;
        assert!(!draws(&plain), "{unit}");
        let mut closed = after.clone();
        determinized(&mut closed, (unit == "smooth").then_some(Threshold::At(0.5)))?;
        columns(&closed, &x, unit)?;
        let w = work(&after).ok_or_else(|| Diag::error("arity", unit))?;
        // The product with 40 weights is gated; those of the gater have 15 and 24, beside biases and activations of at most 10 a unit.
        assert_eq!(w.gated, 6.0 * 80.0, "{unit}");
        assert!((6.0 * 78.0..6.0 * 190.0).contains(&w.gates) && w.all > w.gates + w.gated, "{unit}: {w:?}");
        assert_eq!((w.executed(1.0), w.executed(0.0)), (w.all, w.all - w.gated));
    }
    let sigmoid = inserted(&net, "insert-gates{kind=units,unit=sigmoid,gater=3}")?;
    assert!(!draws(&sigmoid) && thresholds(&sigmoid).is_empty());
    Ok(())
}

#[test]
fn layers_learn_to_skim_where_they_are_paid() -> Result<(), Diag> {
    let net = format!(
        "graph @\"r\"(v0 \"x\": f32[7,6,3]) {{\n{}{}{}
        v4, v5, v6 = recurrent{{cell=lstm, direction=forward, activations=[sigmoid, tanh, tanh], alpha=[0.0, 0.0, 0.0], beta=[0.0, 0.0, 0.0], clip=none, linear_before_reset=false, input_forget=false}} v0, v1, v2 : f32[7,1,6,6], f32[1,6,6], f32[1,6,6]
        v7 = squeeze{{axes=[0]}} v5 : f32[6,6]
        v8 = matmul{{trans_a=false, trans_b=false}} v7, v3 : f32[6,2]
        return v8 \"y\" }}",
        constant(1, "w", "1,24,3", 72),
        constant(2, "r", "1,24,6", 144),
        constant(3, "out", "6,2", 12)
    );
    let x = Tensor::f32s(&[7, 6, 3], &numbers(78, 126))?;
    let model = inserted(&net, "insert-gates{kind=skim,small=2,theta=0.5}")?;
    let rule = Rule::Adam { decay: [0.9, 0.999], epsilon: 1e-8 };
    let plain = Recipe {
        anneal: true,
        ..Recipe::new(Loss::CrossEntropy, Optimizer { rule, ..Optimizer::default() })
    };
    let paid = Recipe { skim: 2.0, ..plain.clone() };
    let (free, _) = trained(&model, &plain, &x, 25)?;
    let (losses, after) = trained(&model, &paid, &x, 25)?;
    assert!(free[20..].iter().sum::<f64>() < free[..5].iter().sum::<f64>(), "{free:?}");
    assert!(losses[0] > free[0] && losses[24] < losses[0], "{losses:?}");
    let read = [density(&model, None, &x)?, density(&after, None, &x)?];
    assert!(read[1] < read[0].min(0.2), "{read:?}, {losses:?}");
    assert_eq!(density(&after, Some(1.0), &x)?, 1.0);
    let shares = thresholds(&after).iter().map(|t| density(&after, Some(*t), &x));
    let shares = shares.collect::<Result<Vec<f64>, Diag>>()?;
    assert!(shares.is_sorted(), "{shares:?}");
    let w = work(&after).ok_or_else(|| Diag::error("arity", "no work"))?;
    // 42 steps; of the cells all but the biases.
    assert_eq!(w.gated, 2.0 * 42.0 * f64::from(4 * 6 * (3 + 6) - 4 * 2 * (3 + 2)));
    assert_eq!(w.gates, 2.0 * 42.0 * 18.0);
    Ok(())
}

/// Of one row the columns that gates close are not computed, and the results are the same.
fn columns(model: &Graph, x: &Tensor, unit: &str) -> Result<(), Diag> {
    let text = text::print(model).replace("[6,", "[1,");
    let mut single = text::parse(&text)?;
    let (plain, mut skipped) = (single.clone(), 0);
    let mut pipeline = Pipeline::default();
    pipeline.verify_each = true;
    pipeline.specs(&parse_specs("insert-gates{kind=columns}")?);
    pipeline.run(&mut single, &TargetFacts::default(), &mut |_, _| {})?;
    for row in x.to_f64().chunks(5) {
        let row: Vec<f32> = row.iter().map(|v| *v as f32).collect();
        let row = Tensor::f32s(&[1, 5], &row)?;
        let (want, got) =
            (interp::run(&plain, vec![row.clone().into()])?, interp::run(&single, vec![row.into()])?);
        for (a, b) in want.values[0].tensor()?.to_f64().iter().zip(got.values[0].tensor()?.to_f64()) {
            assert!((a - b).abs() < 1e-5, "{unit}: {a}, not {b}");
        }
        let count = |name: &str| got.counters.get(name).copied().unwrap_or(0);
        assert_eq!(count("gate.rows") + count("gate.skipped-rows"), 8, "{unit}: {:?}", got.counters);
        skipped += count("gate.skipped-rows");
    }
    assert!(skipped > 0, "{unit}");
    Ok(())
}

#[test]
fn heads_half_way_are_trained_with_the_whole() -> Result<(), Diag> {
    let net = format!(
        "graph @\"m\"(v0 \"x\": f32[6,5]) {{\n{}{}{}{}
        v5 = matmul{{trans_a=false, trans_b=false}} v0, v1 : f32[6,8]
        v6 = unary{{kind=relu}} v5 : f32[6,8]
        v7 = matmul{{trans_a=false, trans_b=false}} v6, v2 : f32[6,2]
        v8 = matmul{{trans_a=false, trans_b=false}} v6, v3 : f32[6,8]
        v9 = unary{{kind=relu}} v8 : f32[6,8]
        v10 = matmul{{trans_a=false, trans_b=false}} v9, v4 : f32[6,2]
        return v10 \"y\", v7 \"exit\" }}",
        constant(1, "w", "5,8", 40),
        constant(2, "head", "8,2", 16),
        constant(3, "w2", "8,8", 64),
        constant(4, "out", "8,2", 16)
    );
    let model = inserted(&net, "eliminate-dead")?;
    let x = Tensor::f32s(&[6, 5], &numbers(79, 30))?;
    assert!(draws(&model));
    let recipe = |exit: f64| Recipe { exit, ..Recipe::new(Loss::CrossEntropy, Optimizer::default()) };
    let first = |exit: f64| Ok::<_, Diag>(trained(&model, &recipe(exit), &x, 1)?.0[0]);
    let [none, half, one] = [first(0.0)?, first(0.5)?, first(1.0)?];
    assert!(one > none && (half - (none + one) / 2.0).abs() < 1e-6, "{none} {half} {one}");
    let (losses, after) = trained(&model, &recipe(0.5), &x, 60)?;
    assert!(losses[59] < losses[0], "{losses:?}");
    // Alone, the head learns nothing.
    let head =
        |g: &Graph| Ok::<_, Diag>(interp::run(g, vec![x.clone().into()])?.values[1].tensor()?.to_f64());
    let apart = |g: &Graph| -> Result<f64, Diag> {
        Ok(head(g)?.iter().zip(head(&model)?).map(|(a, b)| (a - b).abs()).sum())
    };
    let weights = |g: &Graph| text::print(g).lines().find(|l| l.contains("\"head\"")).map(str::to_owned);
    assert_eq!(weights(&trained(&model, &recipe(0.0), &x, 5)?.1), weights(&model));
    assert!(apart(&after)? > 0.1);
    let shares = thresholds(&after).iter().map(|t| density(&after, Some(*t), &x));
    let shares = shares.collect::<Result<Vec<f64>, Diag>>()?;
    assert!(shares.is_sorted() && shares[0] == 0.0 && shares[shares.len() - 1] == 1.0, "{shares:?}");
    let w = work(&after).ok_or_else(|| Diag::error("arity", "no work"))?;
    assert_eq!((w.gates, w.gated), (6.0 * 32.0, 6.0 * f64::from(128 + 8 + 32)));
    let mut gated = after.clone();
    determinized(&mut gated, Some(Threshold::At(0.8)))?;
    assert!(!draws(&gated) && gated.outputs().len() == 1);
    Ok(())
}
