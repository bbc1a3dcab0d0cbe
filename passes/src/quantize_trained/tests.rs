//! From a net to one that is rounded, trained and stored in integers.

use crate::calibrate::Interpreted;
use crate::pipeline::{Pipeline, Report};
use crate::training::{Loss, Optimizer, Recipe, Rule, Step, finished, name_parameters, step};
use planish_ir::op::random::{stream, unit};
use planish_ir::{DType, Diag, Graph, Op, Tensor, Value, interp, text, verify};
use std::rc::Rc;

fn random(seed: u64, shape: &[usize], low: f64, high: f64) -> Result<Tensor, Diag> {
    let n: usize = shape.iter().product();
    Tensor::floats(
        DType::F32,
        shape,
        (0..n).map(|i| low + (high - low) * unit(stream(seed, i as u64))).collect(),
    )
}

fn list(t: &Tensor) -> String {
    format!("{:?}", t.to_f64())
}

/// Sixteen inputs, a hidden layer of sixteen, as many classes.
fn net() -> Result<Graph, Diag> {
    let (a, b) = (random(1, &[16, 16], -0.4, 0.4)?, random(2, &[16, 16], -0.4, 0.4)?);
    text::parse(&format!(
        "planish-ir 1\ngraph @\"net\"(v0 \"x\": f32[24,16]) {{
         v1 \"w1\" = const f32[16,16] {}
         v2 \"b1\" = const f32[16] {}
         v3 \"w2\" = const f32[16,16] {}
         v4 = matmul{{trans_a=false, trans_b=false}} v0, v1 : f32[24,16] @\"one\"
         v5 = binary{{kind=add}} v4, v2 : f32[24,16]
         v6 = unary{{kind=relu}} v5 : f32[24,16]
         v7 = matmul{{trans_a=false, trans_b=true}} v6, v3 : f32[24,16] @\"two\"
         v8 = softmax{{kind=softmax, axis=1}} v7 : f32[24,16]
         return v8 \"y\" }}",
        list(&a),
        list(&random(3, &[16], -0.1, 0.1)?),
        list(&b),
    ))
}

fn data() -> Result<(Tensor, Tensor), Diag> {
    let x = random(4, &[24, 16], -1.0, 1.0)?;
    let rows = x.to_f64();
    let classes = rows.chunks(16).map(|row| i128::from(row[0] > 0.0) + 2 * i128::from(row[1] > 0.3));
    Ok((x, Tensor::ints(DType::I64, &[24], classes.collect())?))
}

fn run(graph: &mut Graph, specs: &str, samples: &[Tensor]) -> Result<Report, Diag> {
    let mut pipeline = Pipeline::default();
    pipeline.verify_each = true;
    let samples = samples.iter().map(|t| vec![t.clone().into()]).collect();
    pipeline.calibrate = Some(Rc::new(Interpreted { samples, labels: None }));
    pipeline.specs(&crate::parse_specs(specs)?);
    pipeline.run(graph, &Default::default(), &mut |_, _| {})
}

fn said(graph: &Graph, x: &Tensor) -> Result<Tensor, Diag> {
    interp::run(graph, vec![Value::from(x.clone())])?.values[0].tensor().cloned()
}

fn count(graph: &Graph, name: &str) -> usize {
    graph.all_nodes().into_iter().filter(|n| graph.node(*n).op.name() == name).count()
}

/// The losses of some steps, and the variables behind them.
fn trained(made: &Step, rate: f32, steps: usize) -> Result<(Vec<f64>, Vec<Value>), Diag> {
    let (x, target) = data()?;
    let mut inputs = made.first(vec![x.into()], target.into(), Tensor::f32s(&[], &[rate])?.into(), 0);
    let mut losses = Vec::new();
    for _ in 0..steps {
        let results = interp::run(&made.graph, inputs.clone())?.values;
        losses.push(results[made.outputs].tensor()?.to_f64()[0]);
        inputs[made.variables_from()..].clone_from_slice(made.variables_after(&results));
    }
    Ok((losses, inputs.split_off(made.variables_from())))
}

#[test]
fn steps_begin_where_they_lose_little() -> Result<(), Diag> {
    let (x, _) = data()?;
    let before = said(&net()?, &x)?.to_f64();
    let mut errors = Vec::new();
    for bits in [8, 4, 2] {
        let mut graph = net()?;
        let report =
            run(&mut graph, &format!("fake-quantize{{bits={bits},first=true}}"), std::slice::from_ref(&x))?;
        let metrics = &report.ran[0].metrics;
        assert_eq!((metrics["weights-rounded"], metrics["operands-rounded"]), (2.0, 2.0));
        let signs: Vec<bool> = graph
            .all_nodes()
            .into_iter()
            .filter_map(|n| match &graph.node(n).op {
                // Of values that are no weights.
                Op::FakeQuantize(op) if graph.as_const(graph.node(n).inputs[0]?).is_none() => Some(op.signed),
                _ => None,
            })
            .collect();
        assert_eq!(signs, [true, false], "what comes in is signed, what a ReLU gives is not");
        let after = said(&graph, &x)?.to_f64();
        errors.push(before.iter().zip(after).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max));
    }
    assert!(errors[0] < 2e-3 && errors.is_sorted() && errors[2] < 0.2, "{errors:?}");
    Ok(())
}

#[test]
fn training_moves_weights_and_steps_and_integers_agree() -> Result<(), Diag> {
    let (x, _) = data()?;
    for bits in [8, 3] {
        let mut graph = net()?;
        run(&mut graph, &format!("fake-quantize{{bits={bits},first=true}}"), std::slice::from_ref(&x))?;
        // Equal work is not merged with what has another step, and steps stay where weights are.
        run(&mut graph, "fold-constants,eliminate-dead", &[])?;
        assert_eq!(count(&graph, "fake-quantize"), 4);
        let mut names = name_parameters(&mut graph);
        names.sort();
        assert_eq!(names, ["b1", "two.0.scale", "w1", "w1.scale", "w2", "w2.scale", "x.scale"]);
        let rule = Rule::Adam { decay: [0.9, 0.999], epsilon: 1e-8 };
        let recipe = Recipe::new(Loss::CrossEntropy, Optimizer { rule, ..Optimizer::default() });
        let made = step(&graph, &recipe, &|_| true)?;
        assert_eq!(verify::verify(&made.graph), []);
        let (losses, variables) = trained(&made, 0.01, 60)?;
        assert!(losses[59] < 0.5 * losses[0], "{bits} bits: {losses:?}");
        for (v, after) in made.variables.iter().zip(&variables).filter(|(v, _)| names.contains(&v.name)) {
            let (before, after) = (v.start.to_f64(), after.tensor()?.to_f64());
            assert_ne!(before, after, "{}", v.name);
        }
        let model = made.trained(&graph, &variables)?;
        let mut stored = model.clone();
        let report = run(&mut stored, "quantize-trained", &[])?;
        assert_eq!(report.ran[0].metrics["values-quantized"], 4.0);
        assert_eq!(count(&stored, "fake-quantize"), 0);
        assert_eq!((count(&stored, "quantize"), count(&stored, "dequantize")), (2, 4));
        let (x2, want) = (random(9, &[24, 16], -1.5, 1.5)?, said(&model, &x)?);
        let mut written = model.clone();
        finished(&mut written, None)?;
        assert_eq!(text::print(&written), text::print(&stored));
        assert_eq!(said(&stored, &x)?, want);
        assert_eq!(said(&stored, &x2)?, said(&model, &x2)?);
        // Products of integers, with sums that are exact.
        let report = run(&mut stored, "fold-constants,fuse-quantised,eliminate-dead", &[])?;
        let products: f64 = report.ran.iter().filter_map(|r| r.metrics.get("integer-products")).sum();
        assert_eq!((products, count(&stored, "matmul")), (2.0, 0));
        let near =
            said(&stored, &x)?.to_f64().into_iter().zip(want.to_f64()).all(|(a, b)| (a - b).abs() < 1e-2);
        assert!(near, "{bits} bits");
    }
    Ok(())
}

#[test]
fn convolutions_round_by_channel_and_multiply_integers() -> Result<(), Diag> {
    let w = random(5, &[16, 16, 1, 1], -0.5, 0.5)?;
    let model = text::parse(&format!(
        "planish-ir 1\ngraph @\"net\"(v0 \"x\": f32[2,16,3,3]) {{
         v1 \"w\" = const f32[16,16,1,1] {}
         v2 = conv{{strides=[1, 1], dilations=[1, 1], pads=[0, 0, 0, 0], auto_pad=explicit, groups=1}} v0, v1 : f32[2,16,3,3] @\"c\"
         return v2 \"y\" }}",
        list(&w)
    ))?;
    let x = random(6, &[2, 16, 3, 3], 0.0, 2.0)?;
    let mut graph = model.clone();
    run(&mut graph, "fake-quantize{first=true}", std::slice::from_ref(&x))?;
    let rounded = said(&graph, &x)?;
    let far = |a: &Tensor, b: &Tensor| {
        a.to_f64().into_iter().zip(b.to_f64()).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
    };
    assert!(far(&rounded, &said(&model, &x)?) < 0.05);
    run(&mut graph, "quantize-trained", &[])?;
    assert_eq!(said(&graph, &x)?, rounded);
    let report = run(&mut graph, "fuse-quantised", &[])?;
    assert_eq!(report.ran[0].metrics["integer-convolutions"], 1.0);
    assert!(far(&said(&graph, &x)?, &rounded) < 1e-4);
    Ok(())
}

#[test]
fn a_step_that_crosses_zero_stays_one() -> Result<(), Diag> {
    let (x, _) = data()?;
    let mut graph = net()?;
    run(&mut graph, "fake-quantize{first=true}", std::slice::from_ref(&x))?;
    name_parameters(&mut graph);
    let optimizer = Optimizer { rule: Rule::Sgd { momentum: 0.0 }, ..Optimizer::default() };
    let made = step(&graph, &Recipe::new(Loss::CrossEntropy, optimizer), &|name| name.ends_with(".scale"))?;
    // Such a rate throws steps far beyond zero.
    let (losses, variables) = trained(&made, 50.0, 4)?;
    assert!(losses.iter().all(|l| l.is_finite()), "{losses:?}");
    let scales: Vec<f64> =
        variables.iter().map(|v| Ok(v.tensor()?.to_f64())).collect::<Result<Vec<_>, Diag>>()?.concat();
    assert!(scales.iter().any(|s| *s < 0.0) && scales.iter().all(|s| s.is_finite()), "{scales:?}");
    let model = made.trained(&graph, &variables)?;
    let mut stored = model.clone();
    run(&mut stored, "quantize-trained", &[])?;
    assert_eq!(said(&stored, &x)?, said(&model, &x)?);
    for n in stored.all_nodes() {
        if let Op::Dequantize(_) = &stored.node(n).op {
            let scale = stored.node(n).inputs[1].and_then(|v| stored.as_const(v));
            let scale = scale.map(|(_, c)| c.decode()).transpose()?.map(|t| t.to_f64()).unwrap_or_default();
            assert!(!scale.is_empty() && scale.iter().all(|s| *s > 0.0), "{scale:?}");
        }
    }
    Ok(())
}

#[test]
fn options_and_missing_samples_are_said() -> Result<(), Diag> {
    for bad in ["bits=1", "bits=9", "range=all", "percentile=20", "samples=none"] {
        let failed = run(&mut net()?, &format!("fake-quantize{{{bad}}}"), &[]);
        assert_eq!(failed.err().map(|d| d.id), Some("pass-option"), "{bad}");
    }
    let mut pipeline = Pipeline::default();
    pipeline.specs(&crate::parse_specs("fake-quantize{first=true}")?);
    let failed = pipeline.run(&mut net()?, &Default::default(), &mut |_, _| {});
    assert_eq!(failed.err().map(|d| d.id), Some("calibration-missing"));
    Ok(())
}
