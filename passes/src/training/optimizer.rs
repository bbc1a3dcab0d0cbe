//! How a step changes parameters.

use super::{Next, Variable};
use planish_ir::op::binary::BinaryKind;
use planish_ir::op::build::Build;
use planish_ir::op::reduce::ReduceKind;
use planish_ir::op::unary::UnaryKind;
use planish_ir::{Diag, Editor, Tensor, ValueId};

/// The rule of an optimiser, with `w` a parameter, `g` its gradient and `r` the learning rate.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Rule {
    /// Stochastic gradient descent: `v <- m v + g`, `w <- w - r v`.
    Sgd {
        /// m; at 0 there is no v.
        momentum: f64,
    },
    /// Adam (Kingma and Ba, 2015): `m <- b1 m + (1 - b1) g`, `s <- b2 s + (1 - b2) g^2`, `w <- w - r m' / (sqrt(s') + e)` with
    /// `m' = m / (1 - b1^t)` and `s' = s / (1 - b2^t)` in step `t`.
    Adam {
        /// b1 and b2.
        decay: [f64; 2],
        /// e.
        epsilon: f64,
    },
    /// RMSProp (Tieleman and Hinton, 2012): `s <- d s + (1 - d) g^2`, `w <- w - r g / (sqrt(s) + e)`.
    RmsProp {
        /// d.
        decay: f64,
        /// e.
        epsilon: f64,
    },
}

/// An optimiser with its regularisers.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Optimizer {
    /// The rule.
    pub rule: Rule,
    /// Weight decay: added to the gradient as a multiple of the parameter; with `decoupled` the parameter shrinks by `r` times that instead (AdamW,
    /// Loshchilov and Hutter, 2019). Parameters of one axis, such as biases, do not decay.
    pub decay: f64,
    /// Whether decay is apart from the gradient.
    pub decoupled: bool,
    /// The largest Euclidean norm of the weights that come together at an output: columns of matrices `[inputs, outputs]`.
    pub max_norm: Option<f64>,
}

impl Default for Optimizer {
    fn default() -> Self {
        Optimizer { rule: Rule::Sgd { momentum: 0.9 }, decay: 0.0, decoupled: false, max_norm: None }
    }
}

/// State of the optimiser.
type State = Vec<Next>;

impl Optimizer {
    /// The parameters after the step, and the state that is added to it. `gradients` are those of `values`, the inputs that `variables` stand for, and `factors`
    /// what the learning rate is multiplied by for each.
    pub(super) fn update(
        &self,
        ed: &mut Editor<'_>,
        variables: &[Variable],
        values: &[ValueId],
        gradients: &[Option<ValueId>],
        rate: ValueId,
        factors: &[f64],
    ) -> Result<(Vec<ValueId>, State), Diag> {
        let mut state = State::new();
        let corrections = match self.rule {
            Rule::Adam { decay, .. } => Some(corrections(ed, &mut state, decay, rate)?),
            _ => None,
        };
        let mut out = Vec::new();
        for (((variable, w), gradient), factor) in variables.iter().zip(values).zip(gradients).zip(factors) {
            // What the loss does not depend on stays.
            let Some(gradient) = *gradient else {
                out.push(*w);
                continue;
            };
            let decays = self.decay != 0.0 && variable.start.rank() > 1;
            let mut b = Build::new(ed, "optimizer");
            let mut g = gradient;
            if decays && !self.decoupled {
                let more = b.scale(self.decay, *w)?;
                g = b.binary(BinaryKind::Add, g, more)?;
            }
            let by = self.direction(&mut b, variable, g, corrections, &mut state)?;
            let to = b.dtype(*w)?;
            let mut rate = b.cast(rate, to)?;
            if *factor != 1.0 {
                rate = b.scale(*factor, rate)?;
            }
            let by = b.mul(by, rate)?;
            let mut new = b.binary(BinaryKind::Sub, *w, by)?;
            if decays && self.decoupled {
                let less = b.scale(self.decay, *w)?;
                let less = b.mul(less, rate)?;
                new = b.binary(BinaryKind::Sub, new, less)?;
            }
            if let (Some(most), 2) = (self.max_norm, variable.start.rank()) {
                new = limited(&mut b, new, most)?;
            }
            out.push(new);
        }
        Ok((out, state))
    }

    /// What a parameter changes by, before the learning rate.
    fn direction(
        &self,
        b: &mut Build<'_, '_>,
        variable: &Variable,
        g: ValueId,
        corrections: Option<[ValueId; 2]>,
        state: &mut State,
    ) -> Result<ValueId, Diag> {
        // The new state: d times the old one and f times g.
        let mut average = |b: &mut Build<'_, '_>, part: &str, d: f64, f: f64, g: ValueId| {
            let zeros = Tensor::floats(
                variable.start.dtype(),
                variable.start.shape(),
                vec![0.0; variable.start.len()],
            )?;
            let name = format!("{}.{part}", variable.name);
            let old = b.ed.input(&name, zeros.ty().into());
            let old = b.scale(d, old)?;
            let more = if f == 1.0 { g } else { b.scale(f, g)? };
            let new = b.binary(BinaryKind::Add, old, more)?;
            state.push((Variable { name, constant: None, start: zeros }, new));
            Ok::<ValueId, Diag>(new)
        };
        match self.rule {
            Rule::Sgd { momentum: 0.0 } => Ok(g),
            Rule::Sgd { momentum } => average(b, "momentum", momentum, 1.0, g),
            Rule::RmsProp { decay, epsilon } => {
                let square = b.mul(g, g)?;
                let mean = average(b, "square", decay, 1.0 - decay, square)?;
                let root = b.unary(UnaryKind::Sqrt, mean)?;
                let root = b.plus(epsilon, root)?;
                b.binary(BinaryKind::Div, g, root)
            }
            Rule::Adam { decay: [first, second], epsilon } => {
                let square = b.mul(g, g)?;
                let mut mean = average(b, "mean", first, 1.0 - first, g)?;
                let mut spread = average(b, "square", second, 1.0 - second, square)?;
                if let Some([of_mean, of_spread]) = corrections {
                    let to = b.dtype(g)?;
                    let (of_mean, of_spread) = (b.cast(of_mean, to)?, b.cast(of_spread, to)?);
                    mean = b.binary(BinaryKind::Div, mean, of_mean)?;
                    spread = b.binary(BinaryKind::Div, spread, of_spread)?;
                }
                let root = b.unary(UnaryKind::Sqrt, spread)?;
                let root = b.plus(epsilon, root)?;
                b.binary(BinaryKind::Div, mean, root)
            }
        }
    }
}

/// 1 - b^t for both decays; the state holds b^t, which starts at 1.
fn corrections(
    ed: &mut Editor<'_>,
    state: &mut State,
    decay: [f64; 2],
    like: ValueId,
) -> Result<[ValueId; 2], Diag> {
    let mut b = Build::new(ed, "optimizer");
    let mut of = |name: &str, decay: f64| {
        let start = Tensor::scalar(b.dtype(like)?, 1.0)?;
        let old = b.ed.input(name, start.ty().into());
        let new = b.scale(decay, old)?;
        state.push((Variable { name: name.to_owned(), constant: None, start }, new));
        b.one_less(new)
    };
    Ok([of("power.mean", decay[0])?, of("power.square", decay[1])?])
}

/// Columns of a matrix scaled down to a norm.
fn limited(b: &mut Build<'_, '_>, w: ValueId, most: f64) -> Result<ValueId, Diag> {
    let norm = b.reduce(ReduceKind::L2, w, &[0], true)?;
    let limit = b.number(most, w)?;
    let norm = b.binary(BinaryKind::Max, norm, limit)?;
    let factor = b.binary(BinaryKind::Div, limit, norm)?;
    b.mul(w, factor)
}
