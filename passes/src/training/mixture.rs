//! Routers of mixtures of experts, as nodes of a model.
//!
//! Shazeer et al., *Outrageously Large Neural Networks: The Sparsely-Gated Mixture-of-Experts Layer*, 2017: of noisy scores the largest `k` are kept and go
//! through a softmax; what keeps experts equally busy is the squared coefficient of variation of two sums over the examples. The thresholds of the
//! smooth load have gradients too, as in the authors' code.

use super::malformed;
use crate::util;
use planish_ir::op::binary::BinaryKind;
use planish_ir::op::build::Build;
use planish_ir::op::matmul::MatMul;
use planish_ir::op::random::Random;
use planish_ir::op::reduce::ReduceKind;
use planish_ir::op::scatter::{Reduction, ScatterElements};
use planish_ir::op::slice::Slice;
use planish_ir::op::softmax::{Softmax, SoftmaxKind};
use planish_ir::op::sort::TopK;
use planish_ir::op::unary::UnaryKind;
use planish_ir::op::where_::Where;
use planish_ir::{DType, Diag, Dim, Editor, Graph, ValueId};

/// What a router says of a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Routing {
    /// Weights of the experts, `[examples, experts]`: those of `k` experts, whose sum is 1, and zeros.
    pub gates: ValueId,
    /// How many examples each expert gets, `[experts]`: the sum of the probabilities of being among the largest when the noise of the one
    /// expert is drawn again. Without noise, or where all experts are chosen, it is a count, which has no gradient.
    pub load: ValueId,
}

/// What a router learns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Router {
    /// Of the scores, `[inputs, experts]`.
    pub weights: ValueId,
    /// What is added to the scores of all examples, `[experts]`.
    pub bias: Option<ValueId>,
    /// Of the deviation of the noise, `[inputs, experts]`; none: there is no noise.
    pub noise: Option<ValueId>,
}

/// Adds a router of `x`, `[examples, inputs]`: scores are `x weights`, and with `noise` normal noise of deviation `softplus(x noise) + 0.01` is
/// added to them. [Steps of training](super::step) give the noise a seed, and `determinize` removes it.
pub fn noisy_top_k(b: &mut Build<'_, '_>, x: ValueId, router: &Router, k: usize) -> Result<Routing, Diag> {
    let Router { weights, bias, noise } = *router;
    let experts = b.dims(weights)?.last().and_then(Dim::as_const).unwrap_or(0);
    let k = k as i64;
    if !(1..=experts).contains(&k) {
        return Err(malformed(format!("{k} of {experts} experts cannot be chosen")));
    }
    let product = MatMul { trans_a: false, trans_b: false };
    let mut clean = b.ed.node1(product.clone(), &[x, weights])?;
    if let Some(bias) = bias {
        clean = b.binary(BinaryKind::Add, clean, bias)?;
    }
    let noisy = match noise {
        Some(noise) => {
            let spread = b.ed.node1(product, &[x, noise])?;
            let spread = b.unary(UnaryKind::Softplus, spread)?;
            let spread = b.plus(0.01, spread)?;
            let (shape, dtype) = (b.shape(clean)?, b.dtype(clean)?);
            let drawn = b.ed.node1(Random { dtype, normal: true, a: 0.0, b: 1.0, seed: None }, &[shape])?;
            let drawn = b.mul(drawn, spread)?;
            Some((b.binary(BinaryKind::Add, clean, drawn)?, spread))
        }
        None => None,
    };
    let scores = noisy.map_or(clean, |(scores, _)| scores);
    let smooth = noisy.filter(|_| k < experts);
    let count = b.vector(&[if smooth.is_some() { k + 1 } else { k }])?;
    let top = b.ed.node(TopK { axis: 1, largest: true }, &[Some(scores), Some(count)])?;
    let (mut best, mut at) = (top[0], top[1]);
    if smooth.is_some() {
        (best, at) = (columns(b, best, 0, k)?, columns(b, at, 0, k)?);
    }
    let weights = b.ed.node1(Softmax { kind: SoftmaxKind::Softmax, axis: 1 }, &[best])?;
    let none = b.zeros(clean)?;
    let gates = b.ed.node1(ScatterElements { axis: 1, reduction: Reduction::None }, &[none, at, weights])?;
    let chances = match smooth {
        Some((scores, spread)) => {
            // An expert that is chosen competes with the next one, another with the last that is chosen.
            let (below, last) = (columns(b, top[0], k, k + 1)?, columns(b, top[0], k - 1, k)?);
            let chosen = b.binary(BinaryKind::Greater, scores, below)?;
            let bar = b.ed.node1(Where {}, &[chosen, below, last])?;
            let apart = b.binary(BinaryKind::Sub, clean, bar)?;
            let apart = b.binary(BinaryKind::Div, apart, spread)?;
            let part = b.scale(std::f64::consts::FRAC_1_SQRT_2, apart)?;
            let part = b.unary(UnaryKind::Erf, part)?;
            let part = b.plus(1.0, part)?;
            b.scale(0.5, part)?
        }
        None => {
            let on = b.compare(BinaryKind::Greater, gates, 0.0)?;
            let to = b.dtype(gates)?;
            b.cast(on, to)?
        }
    };
    let load = b.reduce(ReduceKind::Sum, chances, &[0], false)?;
    Ok(Routing { gates, load })
}

/// What is added to a loss so that experts are equally busy, a number: multiples of the squared coefficients of variation of the sums of the gates and of the
/// load. A model gives it as an output, which [`Recipe::terms`](super::Recipe::terms) names.
pub fn balance(b: &mut Build<'_, '_>, routing: Routing, importance: f64, load: f64) -> Result<ValueId, Diag> {
    let sums = b.reduce(ReduceKind::Sum, routing.gates, &[0], false)?;
    let (first, second) = (variation(b, sums)?, variation(b, routing.load)?);
    let (first, second) = (b.scale(importance, first)?, b.scale(load, second)?);
    b.binary(BinaryKind::Add, first, second)
}

/// The name of the output that a model gives its [`balance`] as.
pub const BALANCE: &str = "balance";

/// What training adds to the loss of a model whose experts are to be equally busy; nothing where no such output is there.
pub fn terms(model: &Graph) -> Vec<(String, f64)> {
    balanced(model).map(|_| (BALANCE.to_owned(), 1.0)).into_iter().collect()
}

/// The model without the output that is there for training only.
///
/// # Errors
/// None unless the graph is malformed.
pub fn without_balance(model: &mut Graph) -> Result<(), Diag> {
    let Some(at) = balanced(model) else { return Ok(()) };
    let mut ed = Editor::new(model);
    let v = ed.graph().outputs()[at];
    ed.remove_output(at)?;
    util::remove(&mut ed, v)
}

/// Which output behind the first one is a number of that name.
fn balanced(model: &Graph) -> Option<usize> {
    let outputs = model.outputs();
    (1..outputs.len()).find(|i| {
        let (v, name) = (outputs[*i], model.output_name(*i));
        name == BALANCE
            && model.dtype(v).is_some_and(DType::is_float)
            && model.dims(v).is_some_and(<[_]>::is_empty)
    })
}

/// The variance of a vector over the square of its mean.
fn variation(b: &mut Build<'_, '_>, v: ValueId) -> Result<ValueId, Diag> {
    let mean = b.reduce(ReduceKind::Mean, v, &[0], false)?;
    let apart = b.binary(BinaryKind::Sub, v, mean)?;
    let square = b.mul(apart, apart)?;
    let variance = b.reduce(ReduceKind::Mean, square, &[0], false)?;
    let under = b.mul(mean, mean)?;
    let under = b.plus(1e-10, under)?;
    b.binary(BinaryKind::Div, variance, under)
}

/// Columns of a matrix.
fn columns(b: &mut Build<'_, '_>, v: ValueId, from: i64, to: i64) -> Result<ValueId, Diag> {
    let (from, to, axis) = (b.vector(&[from])?, b.vector(&[to])?, b.vector(&[1])?);
    b.ed.node1(Slice {}, &[v, from, to, axis])
}
