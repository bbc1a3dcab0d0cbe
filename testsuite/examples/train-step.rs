//! Writes a step of training of a net of layers with ReLUs as a graph, to be compiled and measured: `train-step OUT.pir BATCH SIZE SIZE.. [BLOCK:KEPT]`,
//! such as `train-step step.pir 128 784 1200 1200 10`, or with `1x16:0.1` behind it the step that has a tenth of the blocks of 1 x 16 of each matrix.
//! Cross-entropy, SGD with momentum. `train-step OUT.pir MODEL.pir` writes the step of any model, such as one that `planish compile --emit graph` wrote.
#![allow(clippy::print_stdout, reason = "a measurement")]

use planish_ir::op::binary::{Binary, BinaryKind};
use planish_ir::op::matmul::MatMul;
use planish_ir::op::random::{stream, unit};
use planish_ir::op::unary::{Unary, UnaryKind};
use planish_ir::{DType, Diag, Dim, Editor, Graph, Tensor, Type, text};
use planish_passes::training::{Loss, Optimizer, Recipe, name_parameters, step, stored_blocks};
use std::collections::BTreeMap;

fn net(batch: usize, sizes: &[usize]) -> Result<Graph, Diag> {
    let mut graph = Graph::new("net");
    let mut ed = Editor::new(&mut graph);
    let dims = vec![Dim::from(batch), Dim::from(sizes[0])];
    let mut x = ed.input("x", Type::tensor(DType::F32, dims));
    for (k, pair) in sizes.windows(2).enumerate() {
        let scale = (6.0 / pair[0] as f64).sqrt();
        let draw = |i: usize| ((unit(stream(k as u64, i as u64)) * 2.0 - 1.0) * scale) as f32;
        let w: Vec<f32> = (0..pair[0] * pair[1]).map(draw).collect();
        let w = ed.constant(Tensor::f32s(pair, &w)?)?;
        ed.set_name(w, &format!("w{k}"));
        let b = ed.constant(Tensor::f32s(&[pair[1]], &vec![0.01 * (k + 1) as f32; pair[1]])?)?;
        ed.set_name(b, &format!("b{k}"));
        let product = ed.node1(MatMul { trans_a: false, trans_b: false }, &[x, w])?;
        x = ed.node1(Binary { kind: BinaryKind::Add }, &[product, b])?;
        if k + 2 < sizes.len() {
            x = ed.node1(Unary { kind: UnaryKind::Relu }, &[x])?;
        }
    }
    ed.output(x, Some("scores"));
    Ok(graph)
}

/// The step with some of the blocks of all matrices.
fn sparse(model: &Graph, size: &str, kept: f64) -> Result<Graph, Box<dyn std::error::Error>> {
    let (bk, bn) = size.split_once('x').ok_or("a block is a size such as 1x16")?;
    let (bk, bn): (usize, usize) = (bk.parse()?, bn.parse()?);
    let mut masks = BTreeMap::new();
    for v in model.nodes_in(model.root()).filter_map(|n| model.node(n).outputs.first()) {
        let (Some((_, c)), Some(name)) = (model.as_const(*v), model.value(*v).name.as_deref()) else {
            continue;
        };
        if let [k, n] = c.shape[..] {
            let on = |i: usize| unit(stream((i / n / bk) as u64, (i % n / bn) as u64)) < kept;
            let mask: Vec<f32> = (0..k * n).map(|i| f32::from(u8::from(on(i)))).collect();
            masks.insert(name.to_owned(), Tensor::f32s(&[k, n], &mask)?);
        }
    }
    let given = |name: &str| masks.get(name).cloned();
    let (graph, stored) = stored_blocks(model, &given, [bk as u32, bn as u32], true)?;
    for s in &stored {
        println!("{}: {:.1}% of the blocks of {}x{}", s.name, s.share() * 100.0, s.block[0], s.block[1]);
    }
    Ok(graph)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (blocks, args): (Vec<_>, Vec<_>) = args.iter().partition(|a| a.contains(':'));
    let written = |model: &Graph, out: &str| -> Result<(), Box<dyn std::error::Error>> {
        let step = step(model, &Recipe::new(Loss::CrossEntropy, Optimizer::default()), &|_| true)?;
        Ok(std::fs::write(out, text::print(&step.graph))?)
    };
    if let [out, model] = &args[..]
        && model.ends_with(".pir")
    {
        let mut model = text::parse(&std::fs::read_to_string(model)?)?;
        name_parameters(&mut model);
        return written(&model, out);
    }
    let [out, sizes @ ..] = &args[..] else { return Err("train-step OUT.pir BATCH SIZE SIZE..".into()) };
    let sizes: Vec<usize> = sizes.iter().map(|s| s.parse()).collect::<Result<_, _>>()?;
    let [batch, sizes @ ..] = &sizes[..] else { return Err("a batch and sizes are needed".into()) };
    let mut model = net(*batch, sizes)?;
    if let Some((size, kept)) = blocks.first().and_then(|b| b.split_once(':')) {
        model = sparse(&model, size, kept.parse()?)?;
    }
    written(&model, out)?;
    let products: usize = sizes.windows(2).map(|p| p[0] * p[1]).sum();
    // The first layer has no gradient of its input.
    let flops = 2 * batch * (3 * products - sizes[0] * sizes[1]);
    println!("{out}: {:.3} GFLOP in dense products", flops as f64 / 1e9);
    Ok(())
}
