//! Weights that share values: what is left of them, how large they are, and that training moves the values.

use super::*;
use crate::PassSpec;
use crate::compressed::{Decoded, decode};
use crate::pipeline::{Pipeline, Report};
use crate::training::{Loss, Optimizer, Recipe, Rule, name_parameters, step};
use planish_ir::op::matmul::MatMul;
use planish_ir::op::random::{stream, unit};
use planish_ir::{Graph, TensorType, Type, Value, interp, text, verify};

fn run(graph: &mut Graph, specs: &str) -> Result<Report, Diag> {
    let mut pipeline = Pipeline::default();
    pipeline.verify_each = true;
    pipeline.specs(&crate::parse_specs(specs)?);
    pipeline.run(graph, &Default::default(), &mut |_: &PassSpec, _| {})
}

fn constant(graph: &Graph, name: &str) -> Result<Tensor, Diag> {
    for n in graph.all_nodes() {
        let v = graph.node(n).outputs[0];
        if graph.value(v).name.as_deref() == Some(name)
            && let Some((_, c)) = graph.as_const(v)
        {
            return c.decode();
        }
    }
    Err(Diag::error("arity", format!("no constant {name}")))
}

/// What is near a normal distribution.
fn normal(seed: u64, i: u64) -> f64 {
    (0..12).map(|j| unit(stream(seed, 12 * i + j))).sum::<f64>() - 6.0
}

const NET: &str = "planish-ir 1
graph @\"net\"(v0 \"x\": f64[2,3]) {
  v1 \"w\" = const f64[3,2] [0.5, 0.0, -1.0, 0.7, 0.0, -1.4]
  v2 = matmul{trans_a=false, trans_b=false} v0, v1 : f64[2,2] @\"fc\"
  return v2 \"y\"
}";

#[test]
fn weights_become_centroids_and_zeros_stay() -> Result<(), Diag> {
    let mut graph = text::parse(NET)?;
    let report = run(&mut graph, "cluster-weights{bits=1,first=true}")?;
    assert_eq!(verify::verify(&graph), []);
    assert_eq!(constant(&graph, "w.centroids")?.to_f64(), [-1.2, 0.6]);
    assert_eq!(report.ran[0].metrics["weights-kept"], 4.0);
    assert!(report.remarks[0].message.contains("root mean square error 1.581e-1"), "{}", report.remarks[0]);
    let x = Tensor::floats(planish_ir::DType::F64, &[2, 3], vec![1.0, 0.0, 0.0, 0.0, 1.0, 1.0])?;
    let y = interp::run(&graph, vec![x.into()])?.values[0].tensor()?.to_f64();
    assert_eq!(y, [0.6, 0.0, -1.2, 0.6 - 1.2]);
    // What is constant becomes one constant again.
    run(&mut graph, "fold-constants,eliminate-dead")?;
    let kinds: Vec<&str> = graph.all_nodes().iter().map(|n| graph.node(*n).op.name()).collect();
    assert_eq!(kinds, ["const", "matmul"]);
    let w = graph.constants().next().map(|(_, c)| c.decode()).transpose()?;
    assert_eq!(w.map(|w| w.to_f64()), Some(vec![0.6, 0.0, -1.2, 0.6, 0.0, -1.2]));
    Ok(())
}

#[test]
fn a_centroid_changes_by_the_sum_over_its_weights() -> Result<(), Diag> {
    let mut graph = text::parse(NET)?;
    run(&mut graph, "cluster-weights{bits=1,first=true}")?;
    assert_eq!(name_parameters(&mut graph), ["w.centroids"]);
    let optimizer = Optimizer { rule: Rule::Sgd { momentum: 0.0 }, ..Optimizer::default() };
    let made = step(&graph, &Recipe::new(Loss::MeanSquare, optimizer), &|_| true)?;
    let f64s = |shape: &[usize], v: &[f64]| Tensor::floats(planish_ir::DType::F64, shape, v.to_vec());
    let (x, t) = ([0.3, -0.7, 1.1, 0.9, 0.2, -0.4], [0.5, -0.25, 0.0, 1.0]);
    let inputs =
        made.first(vec![f64s(&[2, 3], &x)?.into()], f64s(&[2, 2], &t)?.into(), f64s(&[], &[0.1])?.into(), 0);
    let results = interp::run(&made.graph, inputs)?.values;
    let after = made.variables_after(&results);
    // By hand: dL/dW of the mean over four squares, then its sum over the weights of a centroid.
    let w = [0.6, 0.0, -1.2, 0.6, 0.0, -1.2];
    let mut gradient = [0.0; 6];
    for n in 0..2 {
        for o in 0..2 {
            let y: f64 = (0..3).map(|i| x[n * 3 + i] * w[i * 2 + o]).sum();
            (0..3).for_each(|i| gradient[i * 2 + o] += 2.0 * (y - t[n * 2 + o]) / 4.0 * x[n * 3 + i]);
        }
    }
    let want = [-1.2 - 0.1 * (gradient[2] + gradient[5]), 0.6 - 0.1 * (gradient[0] + gradient[3])];
    let got = after[0].tensor()?.to_f64();
    assert!(got.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-12), "{got:?}, not {want:?}");
    // The trained model has plain weights, with zeros where they were.
    let mut trained = made.trained(&graph, after)?;
    run(&mut trained, "fold-constants,eliminate-dead")?;
    let w = trained.constants().next().map(|(_, c)| c.decode()).transpose()?.map(|w| w.to_f64());
    assert_eq!(w, Some(vec![got[1], 0.0, got[0], got[1], 0.0, got[0]]));
    Ok(())
}

/// Two layers with zeros; the bias of the first one is trained as ever.
const DEEP: &str = "planish-ir 1
graph @\"net\"(v0 \"x\": f32[4,3]) {
  v1 \"w1\" = const f32[3,4] [0.5, 0.0, -1.0, 0.75, 0.0, -1.5, 0.25, 1.0, 0.0, 0.5, -0.25, -1.0]
  v2 \"b1\" = const f32[4] [0.25, 0.5, 0.0, -0.25]
  v3 \"w2\" = const f32[4,2] [0.5, 0.0, -1.0, 0.75, 0.0, -1.5, 0.25, 1.0]
  v4 = matmul{trans_a=false, trans_b=false} v0, v1 : f32[4,4] @\"one\"
  v5 = binary{kind=add} v4, v2 : f32[4,4]
  v6 = unary{kind=tanh} v5 : f32[4,4]
  v7 = matmul{trans_a=false, trans_b=false} v6, v3 : f32[4,2] @\"two\"
  return v7 \"y\"
}";

#[test]
fn weights_are_shared_after_steps_of_training() -> Result<(), Diag> {
    let mut graph = text::parse(DEEP)?;
    let plain = [constant(&graph, "w1")?.to_f64(), constant(&graph, "w2")?.to_f64()];
    let report = run(&mut graph, "cluster-weights{bits=2,first=true}")?;
    let metric = |name: &str| report.ran[0].metrics[name];
    assert_eq!(metric("bytes-dense"), f64::from(4 * (12 + 4 + 8)), "weights and the bias");
    let one = {
        let mut only = text::parse(DEEP)?;
        run(&mut only, "cluster-weights{bits=2,first=true,include=two}")?.ran[0].metrics.clone()
    };
    // What is left alone has its dense size everywhere.
    assert_eq!(one["bytes-dense"], metric("bytes-dense"));
    let two = Encoder::values(&Tensor::floats(DType::F32, &[4, 2], plain[1].clone())?)?.smallest()?.1;
    assert_eq!(one["bytes-pruned"], (4 * (12 + 4) + two) as f64);

    let names = ["b1", "w1.centroids", "w2.centroids"];
    let mut found = name_parameters(&mut graph);
    found.sort();
    assert_eq!(found, names);
    let rule = Rule::Adam { decay: [0.9, 0.999], epsilon: 1e-8 };
    let recipe = Recipe::new(Loss::MeanSquare, Optimizer { rule, ..Optimizer::default() });
    let made = step(&graph, &recipe, &|name| names.contains(&name))?;
    let numbers = |seed, shape: &[usize]| {
        let count = shape.iter().product::<usize>() as u64;
        Tensor::floats(DType::F32, shape, (0..count).map(|i| normal(seed, i)).collect())
    };
    let rate = Tensor::f32s(&[], &[0.05])?;
    let mut inputs =
        made.first(vec![numbers(1, &[4, 3])?.into()], numbers(2, &[4, 2])?.into(), rate.into(), 0);
    let mut losses = Vec::new();
    for _ in 0..3 {
        let results = interp::run(&made.graph, inputs.clone())?.values;
        losses.push(results[made.outputs].tensor()?.to_f64()[0]);
        inputs[made.variables_from()..].clone_from_slice(made.variables_after(&results));
    }
    assert!(losses.is_sorted_by(|a, b| a > b), "{losses:?}");
    let mut trained = made.trained(&graph, &inputs[made.variables_from()..])?;
    let shared = [constant(&trained, "w1.centroids")?, constant(&trained, "w2.centroids")?];
    run(&mut trained, "fold-constants,eliminate-dead")?;
    assert_eq!(verify::verify(&trained), []);
    let products = trained.all_nodes().into_iter().filter(|n| matches!(trained.node(*n).op, Op::MatMul(_)));
    let weights: Vec<Tensor> = products
        .filter_map(|n| trained.as_const(trained.node(n).inputs[1]?))
        .map(|(_, c)| c.decode())
        .collect::<Result<_, _>>()?;
    assert_eq!(weights.len(), 2);
    for (layer, w) in weights.iter().enumerate() {
        let before = constant(&graph, ["w1.centroids", "w2.centroids"][layer])?.to_f64();
        let after = shared[layer].to_f64();
        assert!(before.iter().zip(&after).all(|(a, b)| a != b), "{before:?} {after:?}");
        for (was, is) in plain[layer].iter().zip(w.to_f64()) {
            let want = if *was == 0.0 { 0.0 } else { after[kmeans::nearest(&before, *was)] };
            assert_eq!(is, want, "what was {was} in layer {layer}");
        }
    }
    Ok(())
}

#[test]
fn every_place_of_weights_gets_the_shared_values() -> Result<(), Diag> {
    let twice = NET.replace(
        "return v2 \"y\"",
        "v3 = matmul{trans_a=false, trans_b=true} v2, v1 : f64[2,3] @\"back\"\n return v3 \"y\"",
    );
    for (init, bits) in [("density", 1), ("random,seed=3", 2)] {
        let mut graph = text::parse(&twice)?;
        run(&mut graph, &format!("cluster-weights{{bits={bits},init={init},first=true}}"))?;
        let gathers = graph.all_nodes().into_iter().filter(|n| matches!(graph.node(*n).op, Op::Gather(_)));
        assert_eq!(gathers.count(), 1);
        if bits == 2 {
            // As many values as weights: nothing changes.
            let x = Tensor::floats(planish_ir::DType::F64, &[2, 3], vec![0.5; 6])?;
            let said =
                |g: &Graph| Ok::<_, Diag>(interp::run(g, vec![Value::from(x.clone())])?.values[0].clone());
            assert_eq!(said(&graph)?, said(&text::parse(&twice)?)?);
        }
    }
    Ok(())
}

#[test]
fn what_cannot_share_is_left_alone() -> Result<(), Diag> {
    let why = |text: &str, options: &str| -> Result<String, Diag> {
        let mut graph = text::parse(text)?;
        let before = text::print(&graph);
        let report = run(&mut graph, &format!("cluster-weights{{{options}}}"))?;
        assert_eq!(text::print(&graph), before);
        assert_eq!(report.remarks[0].id, "cluster-skipped");
        Ok(report.remarks[0].message.clone())
    };
    assert_eq!(why(NET, "bits=3,first=true")?, "fc: left alone, 4 weights are not zero, fewer than 8");
    assert_eq!(why(NET, "bits=1")?, "fc: left alone, it is the first layer");
    let infinite = NET.replace("-1.4", "inf");
    assert_eq!(why(&infinite, "bits=1,first=true")?, "fc: left alone, one of its weights is inf");
    for bad in ["bits=0", "bits=13", "init=best", "seed=x"] {
        let mut graph = text::parse(NET)?;
        let failed = run(&mut graph, &format!("cluster-weights{{{bad}}}"));
        assert_eq!(failed.err().map(|d| d.id), Some("pass-option"), "{bad}");
    }
    Ok(())
}

#[test]
fn vectors_that_are_no_table_are_not_trained() -> Result<(), Diag> {
    for (last, names) in [
        ("v5 = gather{axis=0} v4, v3 : f32[2]\n return v5 \"y\"", &["v"][..]),
        // The vector is read in another way too, or not as a table.
        ("v5 = gather{axis=0} v4, v3 : f32[2]\n return v5 \"y\", v4 \"z\"", &[]),
        ("v5 = unary{kind=exp} v4 : f32[3]\n return v5 \"y\"", &[]),
    ] {
        let mut graph = text::parse(&format!(
            "planish-ir 1\ngraph @\"g\"(v0 \"x\": f32[1]) {{ v1 \"v\" = const f32[2] [0.5, 0.25]
             v3 = const i32[2] [0, 2]\n v4 = concat{{axis=0}} v0, v1 : f32[3]\n {last} }}"
        ))?;
        assert_eq!(name_parameters(&mut graph), names, "{last}");
    }
    Ok(())
}

/// LeNet-300-100 with weights of a normal distribution, of which the shares of Han et al. are kept.
fn lenet() -> Result<(Graph, usize), Diag> {
    let mut graph = Graph::new("lenet");
    let mut ed = Editor::new(&mut graph);
    let mut x = ed.input("x", Type::from(TensorType::new(DType::F32, vec![1.into(), 784.into()])));
    let mut biases = 0;
    for (layer, (inputs, outputs, kept)) in
        [(784, 300, 0.08), (300, 100, 0.09), (100, 10, 0.26)].into_iter().enumerate()
    {
        let all: Vec<f64> = (0..inputs * outputs).map(|i| 0.05 * normal(layer as u64, i)).collect();
        let mut sizes: Vec<f64> = all.iter().map(|w| w.abs()).collect();
        sizes.sort_by(|a, b| b.total_cmp(a));
        let bar = sizes[(kept * sizes.len() as f64) as usize];
        let pruned = all.into_iter().map(|w| if w.abs() > bar { w } else { 0.0 }).collect();
        let w = Tensor::floats(DType::F32, &[inputs as usize, outputs as usize], pruned)?;
        let w = ed.constant(Constant::from(w))?;
        x = ed.node1(MatMul { trans_a: false, trans_b: false }, &[x, w])?;
        biases += 4 * outputs as usize;
    }
    ed.output(x, Some("y"));
    Ok((graph, biases))
}

#[test]
fn a_pruned_net_becomes_thirty_times_smaller() -> Result<(), Diag> {
    let (mut graph, biases) = lenet()?;
    let report = run(&mut graph, "cluster-weights{first=true}")?;
    let of = |metric: &str| report.ran[0].metrics[metric] + biases as f64;
    assert_eq!(of("bytes-dense"), 4.0 * 266_610.0);
    let ratio = |metric: &str| of("bytes-dense") / of(metric);
    assert!(ratio("bytes-pruned") > 8.0, "P {:.1}", ratio("bytes-pruned"));
    assert!(ratio("bytes-clustered") >= 30.0, "P+Q {:.1}", ratio("bytes-clustered"));
    assert!(ratio("bytes-huffman") >= 35.0, "P+Q+H {:.1}", ratio("bytes-huffman"));
    // The sizes are those of files that hold the weights which the graph now has, bit by bit.
    let (mut bytes, mut tensors) = (0, Vec::new());
    for n in graph.all_nodes() {
        let Op::Gather(_) = &graph.node(n).op else { continue };
        let part = |v| graph.as_const(v).map(|(_, c)| c.decode()).transpose();
        let inputs: Vec<_> = graph.node(n).inputs.iter().flatten().copied().collect();
        let table = graph.def_node(inputs[0]).map(|d| graph.node(d).inputs[1]);
        let (Some(indices), Some(Some(centroids))) =
            (part(inputs[1])?, table.flatten().map(part).transpose()?)
        else {
            return Err(Diag::error("arity", "no constants"));
        };
        let e = Encoder::shared(&indices, &centroids, true)?;
        let file = e.bytes(e.smallest()?.0)?;
        bytes += file.len();
        let found = decode(&file, indices.len())?;
        assert_eq!(found, Decoded::Shared { indices, codebook: centroids });
        tensors.push(found.tensor()?);
    }
    assert_eq!(bytes as f64, report.ran[0].metrics["bytes-huffman"]);
    run(&mut graph, "fold-constants,eliminate-dead")?;
    let folded: Vec<Tensor> = graph.constants().map(|(_, c)| c.decode()).collect::<Result<_, _>>()?;
    assert_eq!(folded.len(), 3);
    assert!(tensors.iter().all(|t| folded.contains(t)));
    Ok(())
}
