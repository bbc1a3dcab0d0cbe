//! Recurrent layers.

use super::Made;
use crate::import::table::{Entry, onnx};
use crate::import::{ImportCx, OnnxNode};
use planish_ir::op::recurrent::{Activation, Cell, Direction, Recurrent};
use planish_ir::op::views::Transpose;
use planish_ir::{Diag, ValueId};

pub(super) const OPS: &[Entry] = &[onnx("GRU", layer), onnx("LSTM", layer), onnx("RNN", layer)];

const NAMES: &[(&str, Activation)] = &[
    ("relu", Activation::Relu),
    ("tanh", Activation::Tanh),
    ("sigmoid", Activation::Sigmoid),
    ("affine", Activation::Affine),
    ("leakyrelu", Activation::LeakyRelu),
    ("thresholdedrelu", Activation::ThresholdedRelu),
    ("scaledtanh", Activation::ScaledTanh),
    ("hardsigmoid", Activation::HardSigmoid),
    ("elu", Activation::Elu),
    ("softsign", Activation::Softsign),
    ("softplus", Activation::Softplus),
];

/// How many parameters an activation takes from the lists.
fn parameters(a: Activation) -> usize {
    match a {
        Activation::LeakyRelu | Activation::ThresholdedRelu | Activation::Elu => 1,
        Activation::Affine | Activation::ScaledTanh | Activation::HardSigmoid => 2,
        _ => 0,
    }
}

fn activations(node: &OnnxNode<'_>, op: &mut Recurrent) -> Result<(), Diag> {
    let (each, want) = (op.activations_each(), op.activations_each() * op.directions());
    let mut list = match node.strings("activations")? {
        None => match op.cell {
            Cell::Rnn => vec![Activation::Tanh],
            Cell::Gru => vec![Activation::Sigmoid, Activation::Tanh],
            Cell::Lstm => vec![Activation::Sigmoid, Activation::Tanh, Activation::Tanh],
        },
        Some(names) => {
            let find = |name: &str| {
                let lower = name.to_ascii_lowercase();
                let found = NAMES.iter().find(|(n, _)| *n == lower).map(|(_, a)| *a);
                found
                    .ok_or_else(|| node.error("attribute-range", format!("no activation is called {name:?}")))
            };
            names.into_iter().map(find).collect::<Result<Vec<_>, _>>()?
        }
    };
    if list.len() == each && want != each {
        list = list.repeat(2);
    }
    if list.len() != want {
        return Err(node.error("attribute-range", format!("{} activations, not {want}", list.len())));
    }
    // The lists hold values only for activations that have such a parameter, in their order.
    let mut alpha = node.floats("activation_alpha")?.unwrap_or(&[]).iter();
    let mut beta = node.floats("activation_beta")?.unwrap_or(&[]).iter();
    for a in &list {
        let (mut first, mut second) = a.defaults();
        if parameters(*a) >= 1 {
            first = alpha.next().map_or(first, |v| f64::from(*v));
        }
        if parameters(*a) >= 2 {
            second = beta.next().map_or(second, |v| f64::from(*v));
        }
        op.alpha.push(first);
        op.beta.push(second);
    }
    op.activations = list;
    Ok(())
}

fn layer(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let cell = match node.op_type {
        "RNN" => Cell::Rnn,
        "GRU" => Cell::Gru,
        _ => Cell::Lstm,
    };
    let direction = node.choice("direction", 0, &["forward", "reverse", "bidirectional"])?;
    let mut op = Recurrent {
        cell,
        direction: [Direction::Forward, Direction::Reverse, Direction::Both][direction],
        activations: Vec::new(),
        alpha: Vec::new(),
        beta: Vec::new(),
        clip: node.float("clip")?.map(f64::from).filter(|c| *c > 0.0),
        linear_before_reset: cell == Cell::Gru && node.flag("linear_before_reset", false)?,
        input_forget: cell == Cell::Lstm && node.flag("input_forget", false)?,
    };
    activations(node, &mut op)?;
    node.ignore(&["hidden_size", "output_sequence"]);
    let batch_first = node.flag("layout", false)?;
    let mut inputs: Vec<Option<ValueId>> = (0..8).map(|i| node.opt(i)).collect();
    if batch_first {
        for i in [0, 5, 6] {
            if let Some(v) = inputs[i] {
                inputs[i] = Some(cx.op(Transpose { perm: vec![1, 0, 2] }, &[v])?);
            }
        }
    }
    while inputs.last().is_some_and(Option::is_none) {
        inputs.pop();
    }
    let mut out = cx.op_many(op, &inputs)?;
    if batch_first {
        for (i, v) in out.iter_mut().enumerate() {
            let perm = if i == 0 { vec![2, 0, 1, 3] } else { vec![1, 0, 2] };
            *v = cx.op(Transpose { perm }, &[*v])?;
        }
    }
    Ok(out)
}
