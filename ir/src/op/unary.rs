//! Element-wise functions of one tensor.

use crate::diag::Diag;
use crate::dtype::DType;
use crate::graph::{Fact, ValueId};
use crate::op::binary::BinaryKind;
use crate::op::gradient::GradCx;
use crate::op::where_::Where;
use crate::op::{EvalCx, InferCx, OpDef};
use crate::tensor::{Elems, Tensor, Value};
use crate::types::{TensorType, Type};

crate::attr_enum! {
    /// Which function of one element.
    UnaryKind {
        /// Negation; integers wrap.
        Neg = "neg",
        /// Absolute value; integers wrap.
        Abs = "abs",
        /// Square root.
        Sqrt = "sqrt",
        /// 1 / x.
        Reciprocal = "reciprocal",
        /// e to the x.
        Exp = "exp",
        /// Natural logarithm.
        Log = "log",
        /// Sine.
        Sin = "sin",
        /// Cosine.
        Cos = "cos",
        /// Tangent.
        Tan = "tan",
        /// Inverse sine.
        Asin = "asin",
        /// Inverse cosine.
        Acos = "acos",
        /// Inverse tangent.
        Atan = "atan",
        /// Hyperbolic sine.
        Sinh = "sinh",
        /// Hyperbolic cosine.
        Cosh = "cosh",
        /// Hyperbolic tangent.
        Tanh = "tanh",
        /// Inverse hyperbolic sine.
        Asinh = "asinh",
        /// Inverse hyperbolic cosine.
        Acosh = "acosh",
        /// Inverse hyperbolic tangent.
        Atanh = "atanh",
        /// Gauss error function.
        Erf = "erf",
        /// 1 / (1 + e^-x).
        Sigmoid = "sigmoid",
        /// max(x, 0); NaN stays NaN.
        Relu = "relu",
        /// ln(1 + e^x).
        Softplus = "softplus",
        /// x / (1 + |x|).
        Softsign = "softsign",
        /// x * tanh(softplus(x)).
        Mish = "mish",
        /// x * max(0, min(1, x / 6 + 0.5)).
        HardSwish = "hard-swish",
        /// x * Phi(x) with erf.
        Gelu = "gelu",
        /// The tanh approximation of gelu.
        GeluTanh = "gelu-tanh",
        /// Towards minus infinity.
        Floor = "floor",
        /// Towards plus infinity.
        Ceil = "ceil",
        /// To nearest, ties to even.
        Round = "round",
        /// -1, 0 or 1; NaN stays NaN.
        Sign = "sign",
        /// Logical negation of bools.
        Not = "not",
        /// Bitwise complement of integers.
        BitNot = "bit-not",
        /// Whether it is NaN; the result is bool.
        IsNan = "is-nan",
        /// Whether it is plus or minus infinity; the result is bool.
        IsInf = "is-inf",
        /// Whether it is plus infinity; the result is bool.
        IsPosInf = "is-pos-inf",
        /// Whether it is minus infinity; the result is bool.
        IsNegInf = "is-neg-inf",
    }
}

crate::op_struct! {
    /// An element-wise function. Floats narrower than 32 bits are computed in f32 and rounded once.
    Unary {
        /// Which.
        kind: UnaryKind,
    }
}

impl UnaryKind {
    /// Whether the result is bool whatever the operand is.
    pub fn is_predicate(self) -> bool {
        matches!(self, UnaryKind::IsNan | UnaryKind::IsInf | UnaryKind::IsPosInf | UnaryKind::IsNegInf)
    }
    fn accepts(self, d: DType) -> bool {
        use UnaryKind::*;
        match self {
            Neg | Abs | Sign | Relu => d.is_float() || d.is_int(),
            Not => d == DType::Bool,
            BitNot => d.is_int(),
            _ => d.is_float(),
        }
    }
    /// The derivative at `x`, where the function is `y`; none where it is 0 everywhere.
    fn slope(self, cx: &mut GradCx<'_, '_>, x: ValueId, y: ValueId) -> Result<Option<ValueId>, Diag> {
        use BinaryKind as B;
        use UnaryKind::*;
        // 1 + c x^2
        let square = |cx: &mut GradCx<'_, '_>, c: f64, x: ValueId| {
            let square = cx.mul(x, x)?;
            let square = cx.scale(c, square)?;
            cx.plus(1.0, square)
        };
        let slope = match self {
            Neg => cx.number(-1.0, x)?,
            Abs => cx.unary(Sign, x)?,
            Sqrt => {
                let inverse = cx.unary(Reciprocal, y)?;
                cx.scale(0.5, inverse)?
            }
            Reciprocal => {
                let square = cx.mul(y, y)?;
                cx.unary(Neg, square)?
            }
            Exp => y,
            Log => cx.unary(Reciprocal, x)?,
            Sin => cx.unary(Cos, x)?,
            Cos => {
                let sine = cx.unary(Sin, x)?;
                cx.unary(Neg, sine)?
            }
            Tan => square(cx, 1.0, y)?,
            Asin | Acos => {
                let rest = square(cx, -1.0, x)?;
                let root = cx.unary(Sqrt, rest)?;
                let inverse = cx.unary(Reciprocal, root)?;
                if self == Asin { inverse } else { cx.unary(Neg, inverse)? }
            }
            Atan | Atanh => {
                let rest = square(cx, if self == Atan { 1.0 } else { -1.0 }, x)?;
                cx.unary(Reciprocal, rest)?
            }
            Sinh => cx.unary(Cosh, x)?,
            Cosh => cx.unary(Sinh, x)?,
            Tanh => square(cx, -1.0, y)?,
            Asinh => {
                let rest = square(cx, 1.0, x)?;
                let root = cx.unary(Sqrt, rest)?;
                cx.unary(Reciprocal, root)?
            }
            Acosh => {
                let square = cx.mul(x, x)?;
                let rest = cx.plus(-1.0, square)?;
                let root = cx.unary(Sqrt, rest)?;
                cx.unary(Reciprocal, root)?
            }
            Erf => {
                let bell = bell(cx, x, 1.0)?;
                cx.scale(std::f64::consts::FRAC_2_SQRT_PI, bell)?
            }
            Sigmoid => {
                let rest = cx.one_less(y)?;
                cx.mul(y, rest)?
            }
            Relu => {
                let on = cx.compare(B::Greater, x, 0.0)?;
                let to = cx.dtype(x)?;
                cx.cast(on, to)?
            }
            Softplus => cx.unary(Sigmoid, x)?,
            Softsign => {
                let size = cx.unary(Abs, x)?;
                let below = cx.plus(1.0, size)?;
                let below = cx.mul(below, below)?;
                cx.unary(Reciprocal, below)?
            }
            Mish => {
                // t + x (1 - t^2) sigmoid(x) with t = tanh(softplus(x))
                let soft = cx.unary(Softplus, x)?;
                let t = cx.unary(Tanh, soft)?;
                let rest = square(cx, -1.0, t)?;
                let sigmoid = cx.unary(Sigmoid, x)?;
                let rest = cx.mul(rest, sigmoid)?;
                let rest = cx.mul(rest, x)?;
                cx.binary(B::Add, t, rest)?
            }
            HardSwish => {
                // 0 up to -3, 1 from 3 on, x / 3 + 1/2 between
                let line = cx.scale(1.0 / 3.0, x)?;
                let line = cx.plus(0.5, line)?;
                let on = cx.compare(B::Greater, x, -3.0)?;
                let line = cx.only(on, true, line)?;
                let full = cx.compare(B::GreaterEqual, x, 3.0)?;
                let one = cx.number(1.0, x)?;
                cx.ed.node1(Where {}, &[full, one, line])?
            }
            Gelu => {
                // Phi(x) + x phi(x)
                let part = cx.scale(std::f64::consts::FRAC_1_SQRT_2, x)?;
                let part = cx.unary(Erf, part)?;
                let part = cx.plus(1.0, part)?;
                let part = cx.scale(0.5, part)?;
                let bell = bell(cx, x, 0.5)?;
                let bell = cx.mul(x, bell)?;
                let bell =
                    cx.scale(0.5 * std::f64::consts::FRAC_2_SQRT_PI * std::f64::consts::FRAC_1_SQRT_2, bell)?;
                cx.binary(B::Add, part, bell)?
            }
            GeluTanh => {
                // (1 + t) / 2 + x (1 - t^2) u' / 2 with t = tanh(u), u = c (x + a x^3)
                let c = std::f64::consts::FRAC_2_SQRT_PI * std::f64::consts::FRAC_1_SQRT_2;
                let rest = square(cx, 0.044715, x)?;
                let u = cx.mul(x, rest)?;
                let u = cx.scale(c, u)?;
                let t = cx.unary(Tanh, u)?;
                let slope = square(cx, 3.0 * 0.044715, x)?;
                let slope = cx.scale(0.5 * c, slope)?;
                let rest = square(cx, -1.0, t)?;
                let rest = cx.mul(rest, slope)?;
                let rest = cx.mul(rest, x)?;
                let part = cx.plus(1.0, t)?;
                let part = cx.scale(0.5, part)?;
                cx.binary(B::Add, part, rest)?
            }
            Floor | Ceil | Round | Sign | Not | BitNot | IsNan | IsInf | IsPosInf | IsNegInf => {
                return Ok(None);
            }
        };
        Ok(Some(slope))
    }
    /// The function on a float.
    pub fn apply_float(self, x: f64) -> f64 {
        use UnaryKind::*;
        match self {
            Neg => -x,
            Abs => x.abs(),
            Sqrt => x.sqrt(),
            Reciprocal => 1.0 / x,
            Exp => x.exp(),
            Log => x.ln(),
            Sin => x.sin(),
            Cos => x.cos(),
            Tan => x.tan(),
            Asin => x.asin(),
            Acos => x.acos(),
            Atan => x.atan(),
            Sinh => x.sinh(),
            Cosh => x.cosh(),
            Tanh => x.tanh(),
            Asinh => x.asinh(),
            Acosh => x.acosh(),
            Atanh => x.atanh(),
            Erf => erf(x),
            Sigmoid => sigmoid(x),
            Relu => {
                if x < 0.0 {
                    0.0
                } else {
                    x
                }
            }
            Softplus => softplus(x),
            Softsign => x / (1.0 + x.abs()),
            Mish => x * softplus(x).tanh(),
            HardSwish => x * (x / 6.0 + 0.5).clamp(0.0, 1.0),
            Gelu => 0.5 * x * (1.0 + erf(x / std::f64::consts::SQRT_2)),
            GeluTanh => {
                0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x)).tanh())
            }
            Floor => x.floor(),
            Ceil => x.ceil(),
            Round => x.round_ties_even(),
            Sign => {
                if x == 0.0 || x.is_nan() {
                    x
                } else {
                    x.signum()
                }
            }
            Not | BitNot => f64::NAN,
            IsNan => f64::from(u8::from(x.is_nan())),
            IsInf => f64::from(u8::from(x.is_infinite())),
            IsPosInf => f64::from(u8::from(x == f64::INFINITY)),
            IsNegInf => f64::from(u8::from(x == f64::NEG_INFINITY)),
        }
    }
}

fn sigmoid(x: f64) -> f64 {
    if x >= 0.0 { 1.0 / (1.0 + (-x).exp()) } else { x.exp() / (1.0 + x.exp()) }
}

fn softplus(x: f64) -> f64 {
    if x > 0.0 { x + (-x).exp().ln_1p() } else { x.exp().ln_1p() }
}

/// The Gauss error function, to about 1e-15: Taylor series near 0, Lentz's continued fraction of erfc elsewhere.
pub fn erf(x: f64) -> f64 {
    if x.is_nan() {
        return x;
    }
    let a = x.abs();
    if a < 2.5 {
        let (mut term, mut sum) = (a, a);
        for n in 1..120 {
            term *= -a * a / f64::from(n);
            let add = term / f64::from(2 * n + 1);
            sum += add;
            if add.abs() < 1e-17 * sum.abs() {
                break;
            }
        }
        return (2.0 / std::f64::consts::PI.sqrt() * sum).copysign(x);
    }
    if a > 6.0 {
        return 1f64.copysign(x);
    }
    // erfc(a) = exp(-a^2) / sqrt(pi) / (a + (1/2)/(a + 1/(a + (3/2)/(a + ...)))), evaluated from the tail.
    let mut f = a;
    for k in (1..=80).rev() {
        f = a + f64::from(k) / 2.0 / f;
    }
    (1.0 - (-a * a).exp() / std::f64::consts::PI.sqrt() / f).copysign(x)
}

/// e to the -c x^2.
fn bell(cx: &mut GradCx<'_, '_>, x: ValueId, c: f64) -> Result<ValueId, Diag> {
    let square = cx.mul(x, x)?;
    let square = cx.scale(-c, square)?;
    cx.unary(UnaryKind::Exp, square)
}

impl OpDef for Unary {
    const NAME: &'static str = "unary";
    const INPUTS: (usize, usize) = (1, 1);
    fn is_elementwise(&self) -> bool {
        true
    }
    fn infer(&self, cx: &mut InferCx<'_>) -> Result<Vec<Fact>, Diag> {
        let d = cx.expect_dtype(
            0,
            |d| self.kind.accepts(d),
            &format!("a type that `{}` takes", self.kind.name()),
        )?;
        let dtype = if self.kind.is_predicate() { DType::Bool } else { d };
        let ty = Type::from(TensorType { dtype, shape: cx.ty(0)?.shape.clone(), quant: None });
        let content = match self.kind {
            UnaryKind::Not => cx
                .ints(0)
                .and_then(|v| v.iter().map(|d| Some(i64::from(d.as_const()? == 0).into())).collect()),
            // Other types wrap, and so do the smallest numbers of these.
            UnaryKind::Neg if matches!(d, DType::I64 | DType::I32) => cx
                .ints(0)
                .filter(|v| v.iter().all(|d| d.as_const().is_none_or(|v| v.unsigned_abs() < 1 << 31)))
                .map(|v| v.iter().map(|d| d.mul(&(-1i64).into())).collect()),
            _ => None,
        };
        Ok(vec![Fact { ty, content }])
    }
    fn gradient(&self, cx: &mut GradCx<'_, '_>) -> Result<(), Diag> {
        let (dy, x, y) = (cx.only_seed()?, cx.input(0)?, cx.output(0));
        match self.kind.slope(cx, x, y)? {
            Some(slope) => {
                let dx = cx.mul(dy, slope)?;
                cx.give(0, dx)
            }
            None => Ok(()),
        }
    }
    fn eval(&self, cx: &mut EvalCx<'_>) -> Result<Vec<Value>, Diag> {
        use UnaryKind::*;
        let x = cx.tensor(0)?;
        let (shape, dtype) = (x.shape().to_vec(), x.dtype());
        let out = match x.elems() {
            Elems::F(v) if self.kind.is_predicate() => {
                let bits = v.iter().map(|x| self.kind.apply_float(*x) as i128).collect();
                Tensor::from_elems(DType::Bool, shape, Elems::I(bits))?
            }
            Elems::F(v) => {
                let v = v.iter().map(|x| self.kind.apply_float(*x)).collect();
                Tensor::from_elems(dtype, shape, Elems::F(v))?
            }
            Elems::I(v) => {
                let f = |x: i128| match self.kind {
                    Neg => -x,
                    Abs => x.abs(),
                    Sign => x.signum(),
                    Relu => x.max(0),
                    Not => i128::from(x == 0),
                    BitNot => !x,
                    _ => x,
                };
                Tensor::from_elems(dtype, shape, Elems::I(v.into_iter().map(f).collect()))?
            }
            Elems::S(_) => return Err(Diag::error("dtype-mismatch", "a string has no such function")),
        };
        Ok(vec![out.into()])
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn erf_is_accurate() {
        for (x, want) in [
            (0.5, 0.5204998778130465),
            (1.0, 0.8427007929497149),
            (2.4, 0.9993114861033549),
            (3.0, 0.9999779095030014),
        ] {
            assert!((super::erf(x) - want).abs() < 1e-14, "{x}");
            assert_eq!(super::erf(-x), -super::erf(x));
        }
    }
}
