//! What a stochastic gate is made of.

use super::{GateKind, StochasticGate};
use crate::diag::Diag;
use crate::graph::ValueId;
use crate::op::binary::BinaryKind;
use crate::op::build::Build;
use crate::op::softmax::{Softmax, SoftmaxKind};
use crate::op::unary::UnaryKind;
use crate::op::where_::Where;

// Wichura, *Algorithm AS 241: The Percentage Points of the Normal Distribution*, 1988, PPND7: to about 6e-7 for probabilities from
// 1e-10 on. Numerators and denominators of the middle and of the tails, highest power first.
const MIDDLE: [&[f64]; 2] = [
    &[59.109374720, 159.29113202, 50.434271938, 3.3871327179],
    &[67.187563600, 78.757757664, 17.895169469, 1.0],
];
const TAIL: [&[f64]; 2] =
    [&[0.17023821103, 1.3067284816, 2.7568153900, 1.4234372777], &[0.12021132975, 0.73700164250, 1.0]];
/// Half the width of the middle.
const HALF: f64 = 0.425;

/// The number that a normal one is below with probability `u`.
pub(super) fn normal(u: f64) -> f64 {
    let of = |c: &[f64], r: f64| c.iter().fold(0.0, |sum, c| sum * r + c);
    let q = u - 0.5;
    if q.abs() <= HALF {
        let r = HALF * HALF - q * q;
        return q * of(MIDDLE[0], r) / of(MIDDLE[1], r);
    }
    let r = (-u.min(1.0 - u).ln()).sqrt() - 1.6;
    (of(TAIL[0], r) / of(TAIL[1], r)).copysign(q)
}

/// A polynomial of a value.
fn polynomial(b: &mut Build<'_, '_>, c: &[f64], r: ValueId) -> Result<ValueId, Diag> {
    let mut sum = b.scale(c[0], r)?;
    for (i, c) in c.iter().enumerate().skip(1) {
        if i > 1 {
            sum = b.mul(sum, r)?;
        }
        sum = b.plus(*c, sum)?;
    }
    Ok(sum)
}

fn quotient(b: &mut Build<'_, '_>, c: [&[f64]; 2], r: ValueId) -> Result<ValueId, Diag> {
    let (over, under) = (polynomial(b, c[0], r)?, polynomial(b, c[1], r)?);
    b.binary(BinaryKind::Div, over, under)
}

/// The same as [`normal`] in nodes.
fn normal_parts(b: &mut Build<'_, '_>, u: ValueId) -> Result<ValueId, Diag> {
    let q = b.plus(-0.5, u)?;
    let square = b.mul(q, q)?;
    let limit = b.number(HALF * HALF, u)?;
    let r = b.binary(BinaryKind::Sub, limit, square)?;
    let middle = quotient(b, MIDDLE, r)?;
    let middle = b.mul(q, middle)?;
    let other = b.one_less(u)?;
    let tail = b.binary(BinaryKind::Min, u, other)?;
    let tail = b.unary(UnaryKind::Log, tail)?;
    let tail = b.unary(UnaryKind::Neg, tail)?;
    let tail = b.unary(UnaryKind::Sqrt, tail)?;
    let tail = b.plus(-1.6, tail)?;
    let tail = quotient(b, TAIL, tail)?;
    let sign = b.unary(UnaryKind::Sign, q)?;
    let tail = b.mul(sign, tail)?;
    let size = b.unary(UnaryKind::Abs, q)?;
    let inside = b.compare(BinaryKind::LessEqual, size, HALF)?;
    b.ed.node1(Where {}, &[inside, middle, tail])
}

impl StochasticGate {
    /// Noise within the bounds that logarithms need.
    fn clipped(&self, b: &mut Build<'_, '_>, u: ValueId) -> Result<ValueId, Diag> {
        let (low, high) = self.bounds();
        let (low, high) = (b.number(low, u)?, b.number(high, u)?);
        let u = b.binary(BinaryKind::Max, u, low)?;
        b.binary(BinaryKind::Min, u, high)
    }
    /// Logistic noise of clipped uniform noise.
    fn logit(b: &mut Build<'_, '_>, u: ValueId) -> Result<ValueId, Diag> {
        let rest = b.one_less(u)?;
        let (a, rest) = (b.unary(UnaryKind::Log, u)?, b.unary(UnaryKind::Log, rest)?);
        b.binary(BinaryKind::Sub, a, rest)
    }
    /// What the soft function of a Gumbel kind is applied to, and its result, in the type that gates are computed in.
    pub(super) fn soft(
        &self,
        b: &mut Build<'_, '_>,
        a: ValueId,
        noise: ValueId,
        t: Option<ValueId>,
    ) -> Result<(ValueId, ValueId), Diag> {
        let wide = StochasticGate::wide(b.dtype(a)?);
        let (z, axis) = (self.scores(b, a, noise, t)?, b.dims(a)?.len().saturating_sub(1));
        debug_assert_eq!(b.dtype(z)?, wide);
        let y = match self.kind {
            GateKind::Softmax => b.ed.node1(Softmax { kind: SoftmaxKind::Softmax, axis }, &[z])?,
            _ => b.unary(UnaryKind::Sigmoid, z)?,
        };
        Ok((z, y))
    }
    fn scores(
        &self,
        b: &mut Build<'_, '_>,
        a: ValueId,
        noise: ValueId,
        t: Option<ValueId>,
    ) -> Result<ValueId, Diag> {
        let wide = StochasticGate::wide(b.dtype(a)?);
        let (a, u) = (b.cast(a, wide)?, b.cast(noise, wide)?);
        let u = self.clipped(b, u)?;
        let mut z = if self.kind == GateKind::Sigmoid {
            let noise = StochasticGate::logit(b, u)?;
            b.binary(BinaryKind::Add, a, noise)?
        } else {
            let g = b.unary(UnaryKind::Log, u)?;
            let g = b.unary(UnaryKind::Neg, g)?;
            let g = b.unary(UnaryKind::Log, g)?;
            b.binary(BinaryKind::Sub, a, g)?
        };
        if let Some(t) = t {
            let t = b.cast(t, wide)?;
            z = b.binary(BinaryKind::Div, z, t)?;
        }
        Ok(z)
    }

    /// Puts operations that are not stochastic where the editor stands; gives the result.
    pub fn parts(&self, b: &mut Build<'_, '_>, inputs: &[Option<ValueId>]) -> Result<ValueId, Diag> {
        let given = |i: usize| inputs.get(i).copied().flatten();
        let (Some(a), Some(noise)) = (given(0), given(1)) else {
            return Err(Diag::error("arity", "a stochastic gate needs what comes in and noise"));
        };
        let own = b.dtype(a)?;
        let wide = StochasticGate::wide(own);
        let y = match self.kind {
            GateKind::Softmax if self.is_hard() => {
                let axis = b.dims(a)?.len().saturating_sub(1);
                let z = self.scores(b, a, noise, given(2))?;
                b.ed.node1(Softmax { kind: SoftmaxKind::Hardmax, axis }, &[z])?
            }
            GateKind::Sigmoid if self.is_hard() => {
                let z = self.scores(b, a, noise, given(2))?;
                b.compare(BinaryKind::Greater, z, 0.0)?
            }
            GateKind::Softmax | GateKind::Sigmoid => self.soft(b, a, noise, given(2))?.1,
            GateKind::Binary | GateKind::Smooth => {
                let (a, u) = (b.cast(a, wide)?, b.cast(noise, wide)?);
                let p = b.unary(UnaryKind::Sigmoid, a)?;
                if self.kind == GateKind::Binary {
                    b.binary(BinaryKind::Greater, p, u)?
                } else {
                    let root = b.unary(UnaryKind::Sqrt, p)?;
                    let on = b.binary(BinaryKind::Greater, root, u)?;
                    b.only(on, true, root)?
                }
            }
            GateKind::Gaussian | GateKind::Logistic => {
                let (a, u) = (b.cast(a, wide)?, b.cast(noise, wide)?);
                let u = self.clipped(b, u)?;
                let z = match self.kind {
                    GateKind::Logistic => StochasticGate::logit(b, u)?,
                    _ => {
                        let z = normal_parts(b, u)?;
                        b.scale(self.sd, z)?
                    }
                };
                let sum = b.binary(BinaryKind::Add, a, z)?;
                b.unary(UnaryKind::Relu, sum)?
            }
        };
        b.cast(y, own)
    }
}
