//! What training needs of stochastic gates: how many are on, and gradients of those that have none of their own.

use super::loss::of_examples;
use super::{Next, Variable, malformed};
use planish_ir::op::binary::BinaryKind;
use planish_ir::op::build::Build;
use planish_ir::op::reduce::ReduceKind;
use planish_ir::op::stochastic::{Estimator, GateKind, StochasticGate};
use planish_ir::op::unary::UnaryKind;
use planish_ir::op::where_::Where;
use planish_ir::{Diag, Editor, Op, Tensor, ValueId};

/// A share of stochastic gates that is to be on (Bengio, Leonard and Courville, 2013). The first axis of gates is that of examples, all others are
/// those of units. Softmaxes have no such share.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Sparsity {
    /// The share, s.
    pub target: f64,
    /// L. Of binary, smooth and Gumbel units the cross-entropy `-L sum (s ln p + (1 - s) ln(1 - p))` is added to the loss, with p the mean of a unit's sigmoid over
    /// the examples. Of rectifiers L times the sum of the units, as a mean over the examples, is added, and L goes on from there: it is a variable
    /// `gateN.lambda` that is multiplied by 1.1 after a step in which more than s + 0.01 of the units were on, and by 0.9 after one with less
    /// than s - 0.01.
    pub factor: f64,
}

/// A stochastic gate of the model.
#[derive(Clone, Debug)]
pub(super) struct Gate {
    op: StochasticGate,
    /// `gateN`, by the order of the nodes.
    name: String,
    a: ValueId,
    h: ValueId,
}

/// The gates that are not within regions.
pub(super) fn gates(ed: &Editor<'_>) -> Vec<Gate> {
    let g = ed.graph();
    let of = |n| {
        let node = g.node(n);
        let Op::StochasticGate(op) = &node.op else { return None };
        Some((op.clone(), node.inputs.first().copied().flatten()?, node.outputs[0]))
    };
    let found = g.nodes_in(g.root()).filter_map(of).enumerate();
    found.map(|(i, (op, a, h))| Gate { op, name: format!("gate{i}"), a, h }).collect()
}

/// A new variable that is no parameter, as it is before the step.
fn variable(b: &mut Build<'_, '_>, name: String, start: Tensor) -> (Variable, ValueId) {
    let v = b.ed.input(&name, start.ty().into());
    (Variable { name, constant: None, start }, v)
}

/// The old value times a decay and the new one times the rest.
fn averaged(b: &mut Build<'_, '_>, decay: f64, old: ValueId, new: ValueId) -> Result<ValueId, Diag> {
    let (old, new) = (b.scale(decay, old)?, b.scale(1.0 - decay, new)?);
    b.binary(BinaryKind::Add, old, new)
}

impl Sparsity {
    /// Adds to the loss what keeps gates sparse.
    pub(super) fn added(
        self,
        b: &mut Build<'_, '_>,
        mut loss: ValueId,
        gates: &[Gate],
        state: &mut Vec<Next>,
    ) -> Result<ValueId, Diag> {
        if !(self.target > 0.0 && self.target < 1.0 && self.factor.is_finite()) {
            return Err(malformed("the share of gates that are on is between 0 and 1"));
        }
        let to = b.dtype(loss)?;
        for gate in gates {
            let term = match gate.op.kind {
                GateKind::Softmax => continue,
                GateKind::Gaussian | GateKind::Logistic => self.rectified(b, gate, state)?,
                _ => self.entropy(b, gate.a)?,
            };
            let term = b.cast(term, to)?;
            loss = b.binary(BinaryKind::Add, loss, term)?;
        }
        Ok(loss)
    }
    fn entropy(self, b: &mut Build<'_, '_>, a: ValueId) -> Result<ValueId, Diag> {
        let part = |b: &mut Build<'_, '_>, a: ValueId, share: f64| {
            let p = b.unary(UnaryKind::Sigmoid, a)?;
            let p = b.reduce(ReduceKind::Mean, p, &[0], false)?;
            // Where all sigmoids are 0 the logarithm stays finite.
            let p = b.plus(1e-20, p)?;
            let log = b.unary(UnaryKind::Log, p)?;
            let units: Vec<usize> = (0..b.dims(log)?.len()).collect();
            let log = b.reduce(ReduceKind::Sum, log, &units, false)?;
            b.scale(-self.factor * share, log)
        };
        // 1 - s(a) is s(-a), without the loss of digits.
        let on = part(b, a, self.target)?;
        let off = b.unary(UnaryKind::Neg, a)?;
        let off = part(b, off, 1.0 - self.target)?;
        b.binary(BinaryKind::Add, on, off)
    }
    fn rectified(self, b: &mut Build<'_, '_>, gate: &Gate, state: &mut Vec<Next>) -> Result<ValueId, Diag> {
        let h = gate.h;
        let start = Tensor::scalar(b.dtype(h)?, self.factor)?;
        let (variable, factor) = variable(b, format!("{}.lambda", gate.name), start);
        let all: Vec<usize> = (0..b.dims(h)?.len()).collect();
        let on = b.compare(BinaryKind::Greater, h, 0.0)?;
        let to = b.dtype(h)?;
        let on = b.cast(on, to)?;
        let on = b.reduce(ReduceKind::Mean, on, &all, false)?;
        let mut next = factor;
        for (kind, bar, by) in
            [(BinaryKind::Greater, self.target + 0.01, 1.1), (BinaryKind::Less, self.target - 0.01, 0.9)]
        {
            let beyond = b.compare(kind, on, bar)?;
            let moved = b.scale(by, factor)?;
            next = b.ed.node1(Where {}, &[beyond, moved, next])?;
        }
        state.push((variable, next));
        let sum = b.reduce(ReduceKind::Mean, h, &[0], false)?;
        let units: Vec<usize> = (0..b.dims(sum)?.len()).collect();
        let sum = b.reduce(ReduceKind::Sum, sum, &units, false)?;
        b.mul(factor, sum)
    }
}

/// How fast the averages of [`reinforced`] forget.
const DECAY: f64 = 0.9;

/// The gradients by what comes into binary gates whose estimator is `reinforce` (Williams, 1992): the mean over the examples of
/// `(h - s(a)) (L - M)`, with L the loss of the example and M the baseline of least variance, `E[(h - s(a))^2 L] / E[(h - s(a))^2]` of each unit. Its expectations
/// are averages over the steps before, variables `gateN.reinforce.loss` and `gateN.reinforce.weight`, so it does not depend on what it is subtracted for.
pub(super) fn reinforced(
    b: &mut Build<'_, '_>,
    elements: ValueId,
    gates: &[Gate],
    state: &mut Vec<Next>,
) -> Result<Vec<(ValueId, ValueId)>, Diag> {
    let mut seeds = Vec::new();
    for gate in gates.iter().filter(|g| g.op.estimator == Estimator::Reinforce) {
        let losses = of_examples(b, elements)?;
        let (dims, to) = (b.dims(gate.h)?, b.dtype(gate.h)?);
        let examples = b.dims(losses)?;
        let Some((_, units)) = dims.split_first().filter(|(n, _)| Some(*n) == examples.first()) else {
            return Err(malformed(format!(
                "the first axis of `{}` is not that of the examples, which `reinforce` needs",
                gate.name
            )));
        };
        let units: Option<Vec<usize>> =
            units.iter().map(|d| d.as_const().and_then(|d| usize::try_from(d).ok())).collect();
        let units = units.ok_or_else(|| malformed(format!("units of `{}` are not counted", gate.name)))?;
        let axes: Vec<usize> = (1..dims.len()).collect();
        let losses = b.cast(losses, to)?;
        let loss = b.unsqueeze(losses, &axes)?;
        let p = b.unary(UnaryKind::Sigmoid, gate.a)?;
        let apart = b.binary(BinaryKind::Sub, gate.h, p)?;
        let weight = b.mul(apart, apart)?;
        let weighted = b.mul(weight, loss)?;
        let zeros = || Tensor::floats(to, &units, vec![0.0; units.iter().product()]);
        let mut old = Vec::new();
        for (part, new) in [("loss", weighted), ("weight", weight)] {
            let (variable, before) = variable(b, format!("{}.reinforce.{part}", gate.name), zeros()?);
            let new = b.reduce(ReduceKind::Mean, new, &[0], false)?;
            let after = averaged(b, DECAY, before, new)?;
            state.push((variable, after));
            old.push(before);
        }
        // Of a unit that has not been drawn yet there is none.
        let some = b.compare(BinaryKind::Greater, old[1], 0.0)?;
        let one = b.number(1.0, old[1])?;
        let under = b.ed.node1(Where {}, &[some, old[1], one])?;
        let base = b.binary(BinaryKind::Div, old[0], under)?;
        let rest = b.binary(BinaryKind::Sub, loss, base)?;
        let count = b.count(losses, &[0])?;
        let rest = b.binary(BinaryKind::Div, rest, count)?;
        seeds.push((gate.a, b.mul(apart, rest)?));
    }
    Ok(seeds)
}
