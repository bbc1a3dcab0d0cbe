//! Steps of training on every engine: losses and parameters are those of the interpreter, step after step.

use planish_ir::op::random::{stream, unit};
use planish_ir::{DType, Diag, Engine, Graph, PrepareOptions, Tensor, Value, interp, text, verify};
use planish_passes::training::{Loss, Optimizer, Recipe, Rule, Sparsity, Step, step};
use planish_passes::{Level, Pipeline, TargetFacts};
use planish_testsuite::native::{Maker, Native, targets};

fn numbers(seed: u64, shape: &[usize]) -> Vec<f32> {
    let count: usize = shape.iter().product();
    (0..count as u64).map(|i| (unit(stream(seed, i)) - 0.5) as f32).collect()
}

fn weights(name: &str, value: usize, shape: &[usize]) -> String {
    let dims: Vec<String> = shape.iter().map(ToString::to_string).collect();
    let list: Vec<String> = numbers(value as u64, shape).iter().map(|x| format!("{x:.4}")).collect();
    format!("v{value} \"{name}\" = const f32[{}] [{}]\n", dims.join(","), list.join(", "))
}

/// A network of convolutions and pools, one with a recurrent layer, one with attention and a normalisation, and one with stochastic gates: text, and the shape of the input.
fn networks() -> Vec<(String, Vec<usize>)> {
    let convolutions = format!(
        "graph @\"c\"(v0 \"x\": f32[4,1,8,8]) {{\n{}{}{}
        v4 = conv{{strides=[1, 1], dilations=[1, 1], pads=[1, 1, 1, 1], auto_pad=explicit, groups=1}} v0, v1, v2 : f32[4,6,8,8]
        v5 = unary{{kind=relu}} v4 : f32[4,6,8,8]
        v6 = pool{{kind=max, kernel=[2, 2], strides=[2, 2], dilations=[1, 1], pads=[0, 0, 0, 0], auto_pad=explicit, ceil_mode=false, count_include_pad=false, p=2, indices=none}} v5 : f32[4,6,4,4]
        v7 = pool{{kind=average, kernel=[3, 3], strides=[2, 2], dilations=[1, 1], pads=[1, 1, 0, 0], auto_pad=explicit, ceil_mode=false, count_include_pad=false, p=2, indices=none}} v6 : f32[4,6,2,2]
        v8 = flatten{{axis=1}} v7 : f32[4,24]
        v9 = matmul{{trans_a=false, trans_b=false}} v8, v3 : f32[4,5]
        return v9 \"y\" }}",
        weights("w", 1, &[6, 1, 3, 3]),
        weights("b", 2, &[6]),
        weights("out", 3, &[24, 5])
    );
    let recurrent = format!(
        "graph @\"r\"(v0 \"x\": f32[5,4,3]) {{\n{}{}{}{}
        v5, v6, v7 = recurrent{{cell=lstm, direction=forward, activations=[sigmoid, tanh, tanh], alpha=[0.0, 0.0, 0.0], beta=[0.0, 0.0, 0.0], clip=none, linear_before_reset=false, input_forget=false}} v0, v1, v2, v3 : f32[5,1,4,6], f32[1,4,6], f32[1,4,6]
        v8 = squeeze{{axes=[0]}} v6 : f32[4,6]
        v9 = matmul{{trans_a=false, trans_b=false}} v8, v4 : f32[4,5]
        return v9 \"y\" }}",
        weights("w", 1, &[1, 24, 3]),
        weights("r", 2, &[1, 24, 6]),
        weights("b", 3, &[1, 48]),
        weights("out", 4, &[6, 5])
    );
    let attention = format!(
        "graph @\"a\"(v0 \"x\": f32[4,6,8]) {{\n{}{}{}{}
        v5 = matmul{{trans_a=false, trans_b=false}} v0, v1 : f32[4,6,8]
        v6 = attention{{scale=0.35, trans_k=true}} v5, v0, v5 : f32[4,6,8]
        v7 = binary{{kind=add}} v6, v0 : f32[4,6,8]
        v8, v9, v10 = layer-norm{{axis=2, epsilon=1e-5, rms=false}} v7, v2, v3 : f32[4,6,8], f32[4,6,1], f32[4,6,1]
        v11 = unary{{kind=gelu}} v8 : f32[4,6,8]
        v12 = reduce{{kind=mean, axes=[1], keepdims=false, noop_empty=false}} v11 : f32[4,8]
        v13 = matmul{{trans_a=false, trans_b=false}} v12, v4 : f32[4,5]
        return v13 \"y\" }}",
        weights("w", 1, &[8, 8]),
        weights("scale", 2, &[8]),
        weights("shift", 3, &[8]),
        weights("out", 4, &[8, 5])
    );
    let drawn = |v: usize| {
        format!("v{v} = random{{dtype=f32, normal=false, a=0.0, b=1.0, seed=none}} v5 : f32[4,8]\n")
    };
    let gates = format!(
        "graph @\"g\"(v0 \"x\": f32[4,6]) {{\n{}{}{}{}
        v5 = const i64[2] [4, 8]
        v6 = matmul{{trans_a=false, trans_b=false}} v0, v1 : f32[4,8]
        v7 = matmul{{trans_a=false, trans_b=false}} v0, v2 : f32[4,8]
        {}v9 = stochastic-gate{{kind=binary, estimator=identity, sd=1.0}} v7, v8 : f32[4,8]
        v10 = matmul{{trans_a=false, trans_b=false}} v0, v3 : f32[4,8]
        {}v12 = stochastic-gate{{kind=binary, estimator=reinforce, sd=1.0}} v10, v11 : f32[4,8]
        {}v14 = stochastic-gate{{kind=gaussian, estimator=derivative, sd=0.5}} v6, v13 : f32[4,8]
        {}v16 = stochastic-gate{{kind=gumbel-softmax, estimator=derivative, sd=1.0}} v10, v15 : f32[4,8]
        v17 = binary{{kind=mul}} v6, v9 : f32[4,8]
        v18 = binary{{kind=mul}} v14, v12 : f32[4,8]
        v19 = binary{{kind=add}} v17, v18 : f32[4,8]
        v20 = binary{{kind=add}} v19, v16 : f32[4,8]
        v21 = matmul{{trans_a=false, trans_b=false}} v20, v4 : f32[4,5]
        return v21 \"y\" }}",
        weights("w", 1, &[6, 8]),
        weights("gater", 2, &[6, 8]),
        weights("other", 3, &[6, 8]),
        weights("out", 4, &[8, 5]),
        drawn(8),
        drawn(11),
        drawn(13),
        drawn(15)
    );
    vec![
        (convolutions, vec![4, 1, 8, 8]),
        (recurrent, vec![5, 4, 3]),
        (attention, vec![4, 6, 8]),
        (gates, vec![4, 6]),
    ]
}

fn made(network: &str, rule: Rule) -> Result<Step, Diag> {
    let model = text::parse(&format!("planish-ir 1\n{network}"))?;
    let optimizer = Optimizer { rule, decay: 0.01, ..Optimizer::default() };
    let mut recipe = Recipe::new(Loss::CrossEntropy, optimizer);
    recipe.sparsity = Some(Sparsity { target: 0.5, factor: 0.01 });
    let step = step(&model, &recipe, &|_| true)?;
    assert_eq!(verify::verify(&step.graph), []);
    Ok(step)
}

/// Through the passes that a model goes through before it is compiled.
fn prepared(graph: &Graph) -> Result<Graph, Diag> {
    let mut graph = graph.clone();
    for mut pipeline in [Pipeline::canonical(Level::O2), Pipeline::fused(Level::O2)] {
        pipeline.verify_each = true;
        pipeline.run(&mut graph, &TargetFacts::default(), &mut |_, _| {})?;
    }
    Ok(graph)
}

fn every_engine_trains_alike(makers: &[Maker]) -> Result<(), Diag> {
    for (network, shape) in networks() {
        for rule in [Rule::Sgd { momentum: 0.9 }, Rule::Adam { decay: [0.9, 0.999], epsilon: 1e-6 }] {
            let step = made(&network, rule)?;
            let graph = prepared(&step.graph)?;
            let x = Tensor::f32s(&shape, &numbers(9, &shape))?;
            let target = Tensor::ints(DType::I64, &[4], vec![0, 4, 2, 1])?;
            let rate = Tensor::f32s(&[], &[0.05])?;
            let start = step.first(vec![x.into()], target.into(), rate.into(), 1);
            let first = step.variables_from();
            let mut wanted = Vec::new();
            let mut inputs = start.clone();
            for _ in 0..4 {
                let results = interp::run(&step.graph, inputs.clone())?.values;
                inputs[first..].clone_from_slice(step.variables_after(&results));
                wanted.push(results);
            }
            let loss = |results: &[Value]| Ok::<f64, Diag>(results[step.outputs].tensor()?.to_f64()[0]);
            assert!(loss(&wanted[3])? < loss(&wanted[0])?);
            for (maker, target) in makers.iter().flat_map(|m| targets().into_iter().map(move |t| (*m, t))) {
                let engine = Native::new(maker, target);
                let program = engine.prepare(&graph, &PrepareOptions::default());
                let program = program.map_err(|mut all| all.swap_remove(0))?;
                let mut session = program.session()?;
                let mut inputs = start.clone();
                for (number, wanted) in wanted.iter().enumerate() {
                    let given: Vec<Option<Value>> = inputs.iter().cloned().map(Some).collect();
                    let results = session.run(&given)?.values;
                    for (i, (got, want)) in results.iter().zip(wanted).enumerate() {
                        let (got, want) = (got.tensor()?.to_f64(), want.tensor()?.to_f64());
                        for (a, b) in got.iter().zip(&want) {
                            let close = (a - b).abs() <= 2e-4 * (1.0 + b.abs());
                            assert!(
                                close,
                                "{}, {rule:?}, step {number}, output {i}: {a}, not {b}",
                                engine.name()
                            );
                        }
                    }
                    inputs[first..].clone_from_slice(step.variables_after(&results));
                }
            }
        }
    }
    Ok(())
}

#[test]
fn cranelift_trains_as_the_interpreter() -> Result<(), Diag> {
    every_engine_trains_alike(&[Maker::Interpreter, Maker::Cranelift])
}

#[cfg(feature = "llvm")]
#[test]
fn llvm_trains_as_the_interpreter() -> Result<(), Diag> {
    every_engine_trains_alike(&[Maker::Llvm])
}
