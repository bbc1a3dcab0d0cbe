//! Writes a step of training of a net of layers with ReLUs as ONNX, to be compiled and measured: `train-step OUT.onnx BATCH SIZE SIZE..`,
//! such as `train-step step.onnx 128 784 1200 1200 10`. Cross-entropy, SGD with momentum.
#![allow(clippy::print_stdout, reason = "a measurement")]

use planish_ir::op::binary::{Binary, BinaryKind};
use planish_ir::op::matmul::MatMul;
use planish_ir::op::random::{stream, unit};
use planish_ir::op::unary::{Unary, UnaryKind};
use planish_ir::{DType, Diag, Dim, Editor, Graph, Tensor, Type};
use planish_onnx::export::{ExportOptions, export};
use planish_passes::training::{Loss, Optimizer, Recipe, step};

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

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [out, sizes @ ..] = &args[..] else { return Err("train-step OUT.onnx BATCH SIZE SIZE..".into()) };
    let sizes: Vec<usize> = sizes.iter().map(|s| s.parse()).collect::<Result<_, _>>()?;
    let [batch, sizes @ ..] = &sizes[..] else { return Err("a batch and sizes are needed".into()) };
    let step = step(&net(*batch, sizes)?, &Recipe::new(Loss::CrossEntropy, Optimizer::default()), &|_| true)?;
    let output_names =
        (0..step.graph.outputs().len()).map(|i| step.graph.output_name(i).to_owned()).collect();
    let exported = export(&step.graph, &ExportOptions { output_names, ..ExportOptions::default() });
    let exported = exported.map_err(|d| d.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))?;
    std::fs::write(out, &exported.model)?;
    let products: usize = sizes.windows(2).map(|p| p[0] * p[1]).sum();
    // The first layer has no gradient of its input.
    let flops = 2 * batch * (3 * products - sizes[0] * sizes[1]);
    println!("{out}: {:.3} GFLOP in products", flops as f64 / 1e9);
    Ok(())
}
