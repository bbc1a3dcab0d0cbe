//! Nets from a line of text, with random weights: something to begin to train.
//!
//! `mlp:784-300-100-10`: sizes of layers, with ReLUs between them. `cnn:1x28x28-32c3-p2-64c3-p2-128-10`: channels x height x width, then convolutions
//! (`32c3`: 32 channels, a kernel of 3 x 3), largest values of squares (`p2`) and full layers. `lstm:28x28-128-10`, `gru:..`: steps x features, then the sizes of
//! recurrent layers, the last number being classes, scored after the last step; `lstm:400x20000e100-128-2` takes numbers of tokens, below 20000, and looks up
//! 100 features for each.

use crate::failure::{Failure, Result};
use planish_ir::op::binary::BinaryKind;
use planish_ir::op::build::Build;
use planish_ir::op::conv::Conv;
use planish_ir::op::gather::Gather;
use planish_ir::op::matmul::MatMul;
use planish_ir::op::pool::{Pool, PoolKind};
use planish_ir::op::random::{stream, unit};
use planish_ir::op::recurrent::{Activation, Cell, Direction, Recurrent};
use planish_ir::op::unary::UnaryKind;
use planish_ir::op::views::{Flatten, Squeeze};
use planish_ir::op::window::AutoPad;
use planish_ir::{DType, Dim, Editor, Graph, Tensor, Type, ValueId};

/// The most elements of one tensor of weights.
const MOST: usize = 1 << 28;

fn bad(arch: &str, why: &str) -> Failure {
    Failure::usage(format!("--arch {arch:?}: {why}"))
}

/// A number that is neither zero nor beyond reason.
fn size(arch: &str, text: &str) -> Result<usize> {
    let n = text.parse().ok().filter(|n| (1..=1 << 24).contains(n));
    n.ok_or_else(|| bad(arch, &format!("{text:?} is no size")))
}

/// Makes the graph. With `pixels` inputs are 0 to 255, and the net scales them to 0 to 1 itself.
pub fn make(arch: &str, pixels: bool, seed: u64) -> Result<Graph> {
    let (kind, rest) =
        arch.split_once(':').ok_or_else(|| bad(arch, "mlp:, cnn:, lstm: or gru: is needed"))?;
    let parts: Vec<&str> = rest.split('-').collect();
    let [input, layers @ ..] = &parts[..] else { return Err(bad(arch, "there are no layers")) };
    if layers.is_empty() {
        return Err(bad(arch, "there are no layers"));
    }
    let mut graph = Graph::new(kind);
    let batch = graph.symbols.named("batch");
    let mut net =
        Net { ed: Editor::new(&mut graph), arch, seed, tensors: 0, batch: Dim::from(batch), pixels };
    let scores = match kind {
        "mlp" => net.mlp(input, layers)?,
        "cnn" => net.cnn(input, layers)?,
        "lstm" => net.recurrent(Cell::Lstm, input, layers)?,
        "gru" => net.recurrent(Cell::Gru, input, layers)?,
        _ => return Err(bad(arch, "mlp:, cnn:, lstm: or gru: is needed")),
    };
    net.ed.output(scores, Some("scores"));
    Ok(graph)
}

struct Net<'e, 'a> {
    ed: Editor<'e>,
    arch: &'a str,
    seed: u64,
    tensors: u64,
    batch: Dim,
    pixels: bool,
}

impl Net<'_, '_> {
    fn size(&self, text: &str) -> Result<usize> {
        size(self.arch, text)
    }
    /// Uniform weights in `-bound..bound`.
    fn weights(&mut self, name: &str, shape: &[usize], bound: f64) -> Result<ValueId> {
        let count = shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d)).filter(|n| *n <= MOST);
        let count = count.ok_or_else(|| bad(self.arch, "a layer is too large"))?;
        let base = stream(self.seed, self.tensors);
        self.tensors += 1;
        let draw = |i: usize| ((unit(stream(base, i as u64)) * 2.0 - 1.0) * bound) as f32;
        let values: Vec<f32> = (0..count).map(draw).collect();
        let v = self.ed.constant(Tensor::f32s(shape, &values)?)?;
        self.ed.set_name(v, name);
        Ok(v)
    }
    fn zeros(&mut self, name: &str, shape: &[usize]) -> Result<ValueId> {
        let count: usize = shape.iter().product();
        let v = self.ed.constant(Tensor::f32s(shape, &vec![0.0; count])?)?;
        self.ed.set_name(v, name);
        Ok(v)
    }
    /// A product with weights and a bias.
    fn full(&mut self, name: &str, x: ValueId, [inputs, outputs]: [usize; 2], bound: f64) -> Result<ValueId> {
        let w = self.weights(&format!("{name}.weight"), &[inputs, outputs], bound)?;
        let b = self.zeros(&format!("{name}.bias"), &[outputs])?;
        let product = self.ed.node1(MatMul { trans_a: false, trans_b: false }, &[x, w])?;
        Ok(Build::new(&mut self.ed, "net").binary(BinaryKind::Add, product, b)?)
    }
    fn relu(&mut self, x: ValueId) -> Result<ValueId> {
        Ok(Build::new(&mut self.ed, "net").unary(UnaryKind::Relu, x)?)
    }
    fn scaled(&mut self, x: ValueId) -> Result<ValueId> {
        match self.pixels {
            true => Ok(Build::new(&mut self.ed, "net").scale(1.0 / 255.0, x)?),
            false => Ok(x),
        }
    }
    fn input(&mut self, dtype: DType, sizes: &[usize]) -> ValueId {
        let dims = std::iter::once(self.batch.clone()).chain(sizes.iter().map(|d| Dim::from(*d))).collect();
        self.ed.input("input", Type::tensor(dtype, dims))
    }
    /// Layers with ReLUs between them; what comes in has so many features.
    fn layers(&mut self, mut x: ValueId, mut inputs: usize, sizes: &[&str]) -> Result<ValueId> {
        for (k, text) in sizes.iter().enumerate() {
            let outputs = self.size(text)?;
            let last = k + 1 == sizes.len();
            // He et al. 2015 before a ReLU, Glorot and Bengio 2010 at the end.
            let fan = if last { inputs + outputs } else { inputs };
            x = self.full(&format!("fc{}", k + 1), x, [inputs, outputs], (6.0 / fan as f64).sqrt())?;
            if !last {
                x = self.relu(x)?;
            }
            inputs = outputs;
        }
        Ok(x)
    }
    fn mlp(&mut self, input: &str, layers: &[&str]) -> Result<ValueId> {
        let inputs = self.size(input)?;
        let x = self.input(DType::F32, &[inputs]);
        let x = self.scaled(x)?;
        self.layers(x, inputs, layers)
    }
    fn cnn(&mut self, input: &str, layers: &[&str]) -> Result<ValueId> {
        let sizes = input.split('x').map(|t| self.size(t)).collect::<Result<Vec<_>>>()?;
        let [mut channels, mut height, mut width] = sizes[..] else {
            return Err(bad(self.arch, "the input is channels x height x width"));
        };
        let x = self.input(DType::F32, &sizes);
        let mut x = self.scaled(x)?;
        let mut convolutions = 0;
        for (k, text) in layers.iter().enumerate() {
            if let Some(side) = text.strip_prefix('p') {
                let side = self.size(side)?;
                if side > height.min(width) {
                    return Err(bad(self.arch, &format!("{text:?} is larger than {height}x{width}")));
                }
                x = self.ed.node1(pool(side as i64), &[x])?;
                (height, width) = (height / side, width / side);
            } else if let Some((out, kernel)) = text.split_once('c') {
                let (out, kernel) = (self.size(out)?, self.size(kernel)?);
                convolutions += 1;
                let bound = (6.0 / (channels * kernel * kernel) as f64).sqrt();
                let name = format!("conv{convolutions}");
                let w = self.weights(&format!("{name}.weight"), &[out, channels, kernel, kernel], bound)?;
                let b = self.zeros(&format!("{name}.bias"), &[out])?;
                let (low, high) = ((kernel as i64 - 1) / 2, kernel as i64 / 2);
                let conv = Conv {
                    strides: vec![1, 1],
                    dilations: vec![1, 1],
                    pads: vec![low, low, high, high],
                    auto_pad: AutoPad::Explicit,
                    groups: 1,
                };
                x = self.ed.node1(conv, &[x, w, b])?;
                x = self.relu(x)?;
                channels = out;
            } else {
                let x = self.ed.node1(Flatten { axis: 1 }, &[x])?;
                return self.layers(x, channels * height * width, &layers[k..]);
            }
        }
        Err(bad(self.arch, "the last layer is a number of classes"))
    }
    fn recurrent(&mut self, cell: Cell, input: &str, layers: &[&str]) -> Result<ValueId> {
        let (steps, features) =
            input.split_once('x').ok_or_else(|| bad(self.arch, "the input is steps x features"))?;
        let steps = self.size(steps)?;
        let (mut x, mut features) = match features.split_once('e') {
            Some((tokens, features)) => {
                let (tokens, features) = (self.size(tokens)?, self.size(features)?);
                let table = self.weights("embedding", &[tokens, features], 0.1)?;
                let ids = self.input(DType::I64, &[steps]);
                (self.ed.node1(Gather { axis: 0 }, &[table, ids])?, features)
            }
            None => {
                let features = self.size(features)?;
                let x = self.input(DType::F32, &[steps, features]);
                (self.scaled(x)?, features)
            }
        };
        let Some((classes, hidden)) = layers.split_last().filter(|(_, hidden)| !hidden.is_empty()) else {
            return Err(bad(self.arch, "at least one recurrent layer and a number of classes are needed"));
        };
        x = Build::new(&mut self.ed, "net").transpose(x, &[1, 0, 2])?;
        let name = if cell == Cell::Lstm { "lstm" } else { "gru" };
        for (k, text) in hidden.iter().enumerate() {
            let size = self.size(text)?;
            let gates = if cell == Cell::Lstm { 4 } else { 3 };
            let bound = 1.0 / (size as f64).sqrt();
            let name = format!("{name}{}", k + 1);
            let w = self.weights(&format!("{name}.w"), &[1, gates * size, features], bound)?;
            let r = self.weights(&format!("{name}.r"), &[1, gates * size, size], bound)?;
            let b = self.bias(cell, &format!("{name}.bias"), size)?;
            let out = self.ed.node(layer(cell), &[Some(x), Some(w), Some(r), Some(b)])?;
            let (from, axis) = if k + 1 == hidden.len() { (out[1], 0) } else { (out[0], 1) };
            x = self.ed.node1(Squeeze { axes: vec![axis] }, &[from])?;
            features = size;
        }
        self.layers(x, features, &[classes])
    }
    /// Zeros, but ones for the forget gates of an LSTM (Gers et al. 2000): it remembers at first.
    fn bias(&mut self, cell: Cell, name: &str, size: usize) -> Result<ValueId> {
        let gates = if cell == Cell::Lstm { 4 } else { 3 };
        let forgets = |i: usize| cell == Cell::Lstm && (2 * size..3 * size).contains(&i);
        let values: Vec<f32> = (0..2 * gates * size).map(|i| f32::from(u8::from(forgets(i)))).collect();
        let v = self.ed.constant(Tensor::f32s(&[1, 2 * gates * size], &values)?)?;
        self.ed.set_name(v, name);
        Ok(v)
    }
}

fn pool(side: i64) -> Pool {
    Pool {
        kind: PoolKind::Max,
        kernel: vec![side, side],
        strides: vec![side, side],
        dilations: vec![1, 1],
        pads: vec![0; 4],
        auto_pad: AutoPad::Explicit,
        ceil_mode: false,
        count_include_pad: false,
        p: 2,
        indices: None,
    }
}

fn layer(cell: Cell) -> Recurrent {
    let activations = match cell {
        Cell::Lstm => vec![Activation::Sigmoid, Activation::Tanh, Activation::Tanh],
        _ => vec![Activation::Sigmoid, Activation::Tanh],
    };
    Recurrent {
        cell,
        direction: Direction::Forward,
        alpha: vec![0.0; activations.len()],
        beta: vec![0.0; activations.len()],
        activations,
        clip: None,
        linear_before_reset: cell == Cell::Gru,
        input_forget: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use planish_ir::{Diag, verify};

    #[test]
    fn nets_have_the_sizes_that_are_written() -> std::result::Result<(), Diag> {
        for (arch, shape, parameters) in [
            ("mlp:784-300-100-10", vec![784], 266_610),
            ("cnn:1x28x28-8c3-p2-16c3-p2-32-10", vec![1, 28, 28], 80 + 1168 + 784 * 32 + 32 + 330),
            ("lstm:28x28-16-10", vec![28, 28], 4 * 16 * (28 + 16) + 128 + 170),
            ("gru:28x28-16-8-10", vec![28, 28], 3 * 16 * 44 + 96 + 3 * 8 * 24 + 48 + 90),
            ("lstm:7x50e6-4-2", vec![7], 300 + 16 * 10 + 32 + 10),
        ] {
            let graph = make(arch, false, 3).map_err(|mut f| f.diags.swap_remove(0))?;
            assert_eq!(verify::verify(&graph), [], "{arch}");
            let x = graph.inputs()[0];
            let dims: Vec<usize> = graph.dims(x).unwrap_or_default()[1..]
                .iter()
                .filter_map(|d| d.as_const())
                .map(|d| d as usize)
                .collect();
            assert_eq!(dims, shape, "{arch}");
            let mut named = graph.clone();
            let names = planish_passes::training::name_parameters(&mut named);
            let count: usize = named
                .nodes_in(named.root())
                .filter_map(|n| named.as_const(*named.node(n).outputs.first()?))
                .filter(|(_, c)| c.dtype.is_float() && !c.shape.is_empty())
                .map(|(_, c)| c.shape.iter().product::<usize>())
                .sum();
            assert_eq!(count, parameters, "{arch}: {names:?}");
        }
        let text = |pixels, seed| make("mlp:4-3-2", pixels, seed).map(|g| planish_ir::text::print(&g)).ok();
        assert_eq!(text(false, 1), text(false, 1));
        assert_ne!(text(false, 1), text(false, 2));
        assert_ne!(text(false, 1), text(true, 1));
        Ok(())
    }

    #[test]
    fn what_is_no_net_is_refused() {
        for arch in [
            "",
            "mlp",
            "mlp:",
            "mlp:3",
            "mlp:3-0",
            "mlp:3-x",
            "tree:3-2",
            "cnn:28x28-3",
            "cnn:1x4x4-p5-2",
            "cnn:1x4x4-8c3",
            "lstm:28-3",
            "lstm:28x28-10",
            "mlp:16777216-16777216-2",
            "mlp:3--2",
        ] {
            assert!(make(arch, false, 0).is_err(), "{arch}");
        }
    }
}
