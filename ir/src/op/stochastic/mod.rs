//! Units that draw what they give, with estimators of their gradients.
//!
//! Noise is an operand, so a unit is a function like any other: of equal noise it gives equal results, and what is differentiated
//! is that function or an estimator that stands for its derivative. Bengio, Leonard and Courville, *Estimating or Propagating Gradients
//! Through Stochastic Neurons for Conditional Computation*, 2013; Jang, Gu and Poole, *Categorical Reparameterization with
//! Gumbel-Softmax*, 2017.

mod parts;
#[cfg(test)]
mod tests;

use crate::diag::Diag;
use crate::dtype::DType;
use crate::graph::{Fact, ValueId};
use crate::op::binary::BinaryKind;
use crate::op::gradient::GradCx;
use crate::op::reduce::ReduceKind;
use crate::op::softmax::{Softmax, SoftmaxKind};
use crate::op::unary::UnaryKind;
use crate::op::util::expect_equal;
use crate::op::{EvalCx, InferCx, OpDef};
use crate::tensor::{Tensor, Value};
use crate::types::{TensorType, Type};

crate::attr_enum! {
    /// What a unit gives, with `a` what comes in, `s` the sigmoid and `u` uniform noise in 0..1.
    GateKind {
        /// 1 where `s(a) > u`, else 0.
        Binary = "binary",
        /// `r = sqrt(s(a))` where `r > u`, else 0: stochastic times smooth; the mean is `s(a)`.
        Smooth = "smooth",
        /// `max(0, a + z)` with normal `z`: noisy rectifier.
        Gaussian = "gaussian",
        /// The same with logistic `z`, `ln u - ln(1 - u)`: the mean is `ln(1 + e^a)`, and `s(a)` the share above 0.
        Logistic = "logistic",
        /// `s((a + ln u - ln(1 - u)) / t)` at temperature t, or whether that is above 1/2.
        Sigmoid = "gumbel-sigmoid",
        /// The softmax of `(a - ln(-ln u)) / t` over the last axis, or 1 at its first maximum and 0 elsewhere: a draw of the softmax of `a`.
        Softmax = "gumbel-softmax",
    }
}

crate::attr_enum! {
    /// What stands for the derivative of a unit by `a`.
    Estimator {
        /// Binary: 1, the straight-through estimator of Bengio et al.
        Identity = "identity",
        /// Binary: that of the sigmoid.
        SigmoidDeriv = "sigmoid-deriv",
        /// Binary: 1 where the result is 1, else 0.
        Masked = "masked",
        /// Binary: 0; training adds an estimate from the losses of examples.
        Reinforce = "reinforce",
        /// All but binary: the derivative with the noise fixed; the draw of a smooth unit counts as fixed too.
        Derivative = "derivative",
        /// Gumbel kinds: results are 0 or 1, and the derivative that of what is between them.
        StraightThrough = "straight-through",
    }
}

crate::op_struct! {
    /// A unit that draws what it gives, for training: operands are what comes in (floats), noise of its shape and type, uniform in 0..1, and for Gumbel kinds optionally the temperature, a scalar above 0 (1 if omitted). Noise is clipped to 1e-20..1-1e-7 before logarithms, to 1e-10..1-1e-7 for normal noise. The noise has no gradient. `expand-composites` puts element-wise operations in its place and `determinize` what inference uses; gradients come before both.
    StochasticGate {
        /// What it gives.
        kind: GateKind,
        /// What stands for its derivative.
        estimator: Estimator,
        /// Standard deviation of normal noise; 1 for other kinds.
        sd: f64,
    }
}

impl StochasticGate {
    /// A binary unit.
    pub fn binary(estimator: Estimator) -> StochasticGate {
        StochasticGate { kind: GateKind::Binary, estimator, sd: 1.0 }
    }
    /// A unit whose derivative is that with the noise fixed.
    pub fn new(kind: GateKind) -> StochasticGate {
        StochasticGate { kind, estimator: Estimator::Derivative, sd: 1.0 }
    }
    /// Whether results of a Gumbel kind are 0 or 1.
    pub fn is_hard(&self) -> bool {
        self.estimator == Estimator::StraightThrough
    }
    /// Whether the unit is a rectifier.
    pub fn is_rectifier(&self) -> bool {
        matches!(self.kind, GateKind::Gaussian | GateKind::Logistic)
    }
    /// Whether it has a temperature.
    pub fn is_gumbel(&self) -> bool {
        matches!(self.kind, GateKind::Sigmoid | GateKind::Softmax)
    }
    /// The type that it is computed in.
    fn wide(dtype: DType) -> DType {
        if dtype == DType::F64 { DType::F64 } else { DType::F32 }
    }
    /// Bounds of the noise.
    fn bounds(&self) -> (f64, f64) {
        (if self.kind == GateKind::Gaussian { 1e-10 } else { 1e-20 }, 1.0 - 1e-7)
    }
    fn check_fields(&self) -> Result<(), Diag> {
        use Estimator::*;
        let bad = |why: String| Err(Diag::error("field-invalid", format!("stochastic-gate: {why}")));
        let fits = match self.estimator {
            Identity | SigmoidDeriv | Masked | Reinforce => self.kind == GateKind::Binary,
            Derivative => self.kind != GateKind::Binary,
            StraightThrough => self.is_gumbel(),
        };
        if !fits {
            return bad(format!("`{}` has no estimator `{}`", self.kind.name(), self.estimator.name()));
        }
        if !(self.sd.is_finite() && self.sd >= 0.0) || self.kind != GateKind::Gaussian && self.sd != 1.0 {
            return bad("sd is not negative, and 1 but for gaussian noise".to_owned());
        }
        Ok(())
    }
}

fn sigmoid(x: f64) -> f64 {
    UnaryKind::Sigmoid.apply_float(x)
}

impl OpDef for StochasticGate {
    const NAME: &'static str = "stochastic-gate";
    const INPUTS: (usize, usize) = (2, 3);
    fn infer(&self, cx: &mut InferCx<'_>) -> Result<Vec<Fact>, Diag> {
        self.check_fields()?;
        let dtype = cx.expect_dtype(0, |d| d.is_float(), "a float")?;
        cx.expect_same_dtype(0)?;
        let (dims, noise) = (cx.dims(0)?.to_vec(), cx.dims(1)?);
        if dims.len() != noise.len() {
            return Err(Diag::error("shape-mismatch", "the noise has another rank than what comes in"));
        }
        for (d, n) in dims.iter().zip(noise) {
            expect_equal(d, n, "dims of the noise of a stochastic gate")?;
        }
        if self.kind == GateKind::Softmax && dims.is_empty() {
            return Err(Diag::error("shape-mismatch", "classes need an axis"));
        }
        if cx.has(2) && !(self.is_gumbel() && cx.dims(2)?.is_empty()) {
            return Err(Diag::error("shape-mismatch", "a temperature is a scalar, of Gumbel kinds only"));
        }
        Ok(vec![Type::from(TensorType::new(dtype, dims)).into()])
    }
    fn eval(&self, cx: &mut EvalCx<'_>) -> Result<Vec<Value>, Diag> {
        let (a, noise) = (cx.tensor(0)?, cx.tensor(1)?);
        if a.shape() != noise.shape() {
            return Err(Diag::error("shape-mismatch", "the noise has another shape than what comes in"));
        }
        let t = match cx.opt_tensor(2)? {
            Some(t) => t.to_f64().first().copied().unwrap_or(1.0),
            None => 1.0,
        };
        let wide = StochasticGate::wide(a.dtype());
        let (low, high) = self.bounds();
        let round = |x: f64| Ok::<f64, Diag>(Tensor::scalar(wide, x)?.to_f64()[0]);
        let (low, high) = (round(low)?, round(high)?);
        let logit = |u: f64| u.ln() - (1.0 - u).ln();
        let of = |(a, u): (f64, f64)| {
            let inside = u.clamp(low, high);
            match self.kind {
                GateKind::Binary => f64::from(sigmoid(a) > u),
                GateKind::Smooth => {
                    let root = sigmoid(a).sqrt();
                    if root > u { root } else { 0.0 }
                }
                GateKind::Gaussian => UnaryKind::Relu.apply_float(a + self.sd * parts::normal(inside)),
                GateKind::Logistic => UnaryKind::Relu.apply_float(a + logit(inside)),
                GateKind::Sigmoid if self.is_hard() => f64::from((a + logit(inside)) / t > 0.0),
                GateKind::Sigmoid => sigmoid((a + logit(inside)) / t),
                GateKind::Softmax => (a - (-inside.ln()).ln()) / t,
            }
        };
        let mut y: Vec<f64> = a.to_f64().into_iter().zip(noise.to_f64()).map(of).collect();
        if self.kind == GateKind::Softmax {
            let kind = if self.is_hard() { SoftmaxKind::Hardmax } else { SoftmaxKind::Softmax };
            let classes = a.shape().last().copied().unwrap_or(0);
            for row in y.chunks_exact_mut(classes.max(1)) {
                Softmax { kind, axis: 0 }.row(row);
            }
        }
        Ok(vec![Tensor::floats(a.dtype(), a.shape(), y)?.into()])
    }
    fn gradient(&self, cx: &mut GradCx<'_, '_>) -> Result<(), Diag> {
        let (dy, a, h) = (cx.only_seed()?, cx.input(0)?, cx.output(0));
        // With p = s(a): 1 - p.
        let rest = |cx: &mut GradCx<'_, '_>| {
            let p = cx.unary(UnaryKind::Sigmoid, a)?;
            Ok::<_, Diag>((p, cx.one_less(p)?))
        };
        let da = match (self.kind, self.estimator) {
            (_, Estimator::Reinforce) => return Ok(()),
            (_, Estimator::Masked) => cx.mul(dy, h)?,
            (_, Estimator::SigmoidDeriv) => {
                let (p, rest) = rest(cx)?;
                let slope = cx.mul(p, rest)?;
                cx.mul(dy, slope)?
            }
            (GateKind::Binary, _) => dy,
            (GateKind::Smooth, _) => {
                // b sqrt(p) (1 - p) / 2, and b sqrt(p) is the result.
                let (_, rest) = rest(cx)?;
                let slope = cx.mul(h, rest)?;
                let slope = cx.scale(0.5, slope)?;
                cx.mul(dy, slope)?
            }
            (GateKind::Gaussian | GateKind::Logistic, _) => {
                let on = cx.compare(BinaryKind::Greater, h, 0.0)?;
                cx.only(on, true, dy)?
            }
            (GateKind::Sigmoid | GateKind::Softmax, _) => return self.gumbel_gradient(cx, dy),
        };
        cx.give(0, da)
    }
}

impl StochasticGate {
    /// Of the soft result, whether or not the results are hard.
    fn gumbel_gradient(&self, cx: &mut GradCx<'_, '_>, dy: ValueId) -> Result<(), Diag> {
        let (a, noise) = (cx.input(0)?, cx.input(1)?);
        let t = if cx.has(2) { Some(cx.input(2)?) } else { None };
        let own = cx.dtype(a)?;
        let (z, y) = self.soft(cx, a, noise, t)?;
        let dy = cx.cast(dy, StochasticGate::wide(own))?;
        let dz = if self.kind == GateKind::Sigmoid {
            let rest = cx.one_less(y)?;
            let slope = cx.mul(y, rest)?;
            cx.mul(dy, slope)?
        } else {
            let axis = cx.dims(a)?.len() - 1;
            let product = cx.mul(dy, y)?;
            let sum = cx.reduce(ReduceKind::Sum, product, &[axis], true)?;
            let rest = cx.binary(BinaryKind::Sub, dy, sum)?;
            cx.mul(y, rest)?
        };
        let Some(t) = t else {
            let da = cx.cast(dz, own)?;
            return cx.give(0, da);
        };
        let wide = cx.cast(t, StochasticGate::wide(own))?;
        let da = cx.binary(BinaryKind::Div, dz, wide)?;
        let by_t = cx.mul(da, z)?;
        let by_t = cx.unary(UnaryKind::Neg, by_t)?;
        let (da, by_t) = (cx.cast(da, own)?, cx.cast(by_t, own)?);
        cx.give(0, da)?;
        cx.give(2, by_t)
    }
}
