//! Element-wise functions of two tensors that are broadcast against each other.

use crate::diag::Diag;
use crate::dim::Dim;
use crate::dtype::DType;
use crate::graph::{Fact, ValueId};
use crate::op::gradient::GradCx;
use crate::op::unary::UnaryKind;
use crate::op::where_::Where;
use crate::op::{EvalCx, InferCx, OpDef};
use crate::tensor::{Elems, Tensor, Value, elem_count, strides};
use crate::types::{TensorType, Type};

crate::attr_enum! {
    /// Which function of two elements.
    BinaryKind {
        /// Sum; integers wrap.
        Add = "add",
        /// Difference; integers wrap.
        Sub = "sub",
        /// Product; integers wrap.
        Mul = "mul",
        /// Quotient; integers round towards 0, and division by 0 gives 0.
        Div = "div",
        /// Power. An integer base with a negative integer exponent gives 1 / base^n rounded towards 0.
        Pow = "pow",
        /// Remainder with the sign of the divisor; 0 for a divisor of 0.
        Mod = "mod",
        /// Remainder with the sign of the dividend; integers: 0 for a divisor of 0.
        Fmod = "fmod",
        /// The smaller one; NaN if one is NaN.
        Min = "min",
        /// The larger one; NaN if one is NaN.
        Max = "max",
        /// The slope (second operand) times x where x < 0, else x.
        PRelu = "prelu",
        /// Logical and of bools.
        And = "and",
        /// Logical or of bools.
        Or = "or",
        /// Logical exclusive or of bools.
        Xor = "xor",
        /// Bitwise and of integers.
        BitAnd = "bit-and",
        /// Bitwise or of integers.
        BitOr = "bit-or",
        /// Bitwise exclusive or of integers.
        BitXor = "bit-xor",
        /// Shift left; 0 from the width of the type on.
        ShiftLeft = "shift-left",
        /// Shift right, filling with the sign of signed types; nothing but the filling is left from the width on and for a negative count.
        ShiftRight = "shift-right",
        /// Equal; the result is bool.
        Equal = "equal",
        /// Less; the result is bool.
        Less = "less",
        /// Less or equal; the result is bool.
        LessEqual = "less-equal",
        /// Greater; the result is bool.
        Greater = "greater",
        /// Greater or equal; the result is bool.
        GreaterEqual = "greater-equal",
    }
}

crate::op_struct! {
    /// An element-wise function of two broadcast tensors of one dtype (the exponent of `pow` may have another). Floats narrower than 32 bits are computed in f32 and rounded once.
    Binary {
        /// Which.
        kind: BinaryKind,
    }
}

impl BinaryKind {
    /// Whether the result is bool whatever the operands are.
    pub fn is_comparison(self) -> bool {
        use BinaryKind::*;
        matches!(self, Equal | Less | LessEqual | Greater | GreaterEqual)
    }
    fn accepts(self, d: DType) -> bool {
        use BinaryKind::*;
        match self {
            And | Or | Xor => d == DType::Bool,
            BitAnd | BitOr | BitXor | ShiftLeft | ShiftRight => d.is_int(),
            Equal => true,
            _ => d.is_int() || d.is_float(),
        }
    }
    /// The function on floats; comparisons give 0 or 1.
    pub fn apply_float(self, a: f64, b: f64) -> f64 {
        use BinaryKind::*;
        let flag = |x: bool| f64::from(u8::from(x));
        match self {
            Add => a + b,
            Sub => a - b,
            Mul => a * b,
            Div => a / b,
            Pow => a.powf(b),
            Mod => {
                let r = a % b;
                if r != 0.0 && (r < 0.0) != (b < 0.0) { r + b } else { r }
            }
            Fmod => a % b,
            Min => {
                if a.is_nan() || b.is_nan() {
                    f64::NAN
                } else {
                    a.min(b)
                }
            }
            Max => {
                if a.is_nan() || b.is_nan() {
                    f64::NAN
                } else {
                    a.max(b)
                }
            }
            PRelu => {
                if a < 0.0 {
                    a * b
                } else {
                    a
                }
            }
            Equal => flag(a == b),
            Less => flag(a < b),
            LessEqual => flag(a <= b),
            Greater => flag(a > b),
            GreaterEqual => flag(a >= b),
            And | Or | Xor | BitAnd | BitOr | BitXor | ShiftLeft | ShiftRight => f64::NAN,
        }
    }
    /// The function on integers of `bits` bits, before wrapping.
    pub fn apply_int(self, a: i128, b: i128, bits: u32) -> i128 {
        use BinaryKind::*;
        let flag = i128::from;
        match self {
            Add => a + b,
            Sub => a - b,
            Mul => a.wrapping_mul(b),
            Div => {
                if b == 0 {
                    0
                } else {
                    a / b
                }
            }
            Pow => int_pow(a, b),
            Mod => {
                if b == 0 {
                    0
                } else {
                    ((a % b) + b) % b
                }
            }
            Fmod => {
                if b == 0 {
                    0
                } else {
                    a % b
                }
            }
            Min => a.min(b),
            Max => a.max(b),
            PRelu => {
                if a < 0 {
                    a.wrapping_mul(b)
                } else {
                    a
                }
            }
            And => flag(a != 0 && b != 0),
            Or => flag(a != 0 || b != 0),
            Xor => flag((a != 0) != (b != 0)),
            BitAnd => a & b,
            BitOr => a | b,
            BitXor => a ^ b,
            ShiftLeft => {
                if (0..i128::from(bits)).contains(&b) {
                    a << b
                } else {
                    0
                }
            }
            ShiftRight => a >> if (0..i128::from(bits)).contains(&b) { b } else { i128::from(bits) },
            Equal => flag(a == b),
            Less => flag(a < b),
            LessEqual => flag(a <= b),
            Greater => flag(a > b),
            GreaterEqual => flag(a >= b),
        }
    }
    fn apply_dim(self, a: &Dim, b: &Dim) -> Option<Dim> {
        let flag = |x: bool| Some(i64::from(x).into());
        let difference = || a.sub(b).as_const();
        match self {
            BinaryKind::Add => Some(a.add(b)),
            BinaryKind::Sub => Some(a.sub(b)),
            BinaryKind::Mul => Some(a.mul(b)),
            BinaryKind::Div if a.as_const().is_some() && b.as_const().is_some() => {
                a.as_const()?.checked_div(b.as_const()?).map(Dim::from)
            }
            // Rounding towards 0 and towards minus infinity agree for dims, which are not negative.
            BinaryKind::Div if b.as_const().is_some_and(|b| b > 0) => Some(a.floor_div(b)),
            BinaryKind::Mod if b.as_const().is_some_and(|b| b > 0) => Some(a.modulo(b)),
            BinaryKind::Min => Some(a.smaller(b)),
            BinaryKind::Max => Some(a.larger(b)),
            BinaryKind::Equal => flag(difference()? == 0),
            BinaryKind::Less => flag(difference()? < 0),
            BinaryKind::LessEqual => flag(difference()? <= 0),
            BinaryKind::Greater => flag(difference()? > 0),
            BinaryKind::GreaterEqual => flag(difference()? >= 0),
            BinaryKind::And => flag(a.as_const()? != 0 && b.as_const()? != 0),
            BinaryKind::Or => flag(a.as_const()? != 0 || b.as_const()? != 0),
            BinaryKind::Xor => flag((a.as_const()? != 0) != (b.as_const()? != 0)),
            _ => None,
        }
    }
}

fn int_pow(a: i128, b: i128) -> i128 {
    if b < 0 {
        return match a {
            1 => 1,
            -1 => {
                if b % 2 == 0 {
                    1
                } else {
                    -1
                }
            }
            _ => 0,
        };
    }
    let (mut base, mut e, mut out) = (a, b, 1i128);
    while e > 0 {
        if e & 1 == 1 {
            out = out.wrapping_mul(base);
        }
        base = base.wrapping_mul(base);
        e >>= 1;
    }
    out
}

/// For each element of `out`, the position of its source in a tensor of shape `from` that is broadcast to it.
pub fn broadcast_positions(from: &[usize], out: &[usize]) -> Result<Vec<usize>, Diag> {
    let offset = out
        .len()
        .checked_sub(from.len())
        .ok_or_else(|| Diag::error("shape-mismatch", "rank too large to broadcast"))?;
    let st = strides(from);
    let mut step = vec![0usize; out.len()];
    for (i, d) in from.iter().enumerate() {
        if *d != out[offset + i] && *d != 1 {
            return Err(Diag::error("shape-mismatch", format!("{from:?} cannot be broadcast to {out:?}")));
        }
        step[offset + i] = if *d == 1 { 0 } else { st[i] };
    }
    let n = elem_count(out)?;
    let mut pos = Vec::with_capacity(n);
    let (mut index, mut at) = (vec![0usize; out.len()], 0usize);
    for _ in 0..n {
        pos.push(at);
        for axis in (0..out.len()).rev() {
            index[axis] += 1;
            at += step[axis];
            if index[axis] < out[axis] {
                break;
            }
            at -= step[axis] * out[axis];
            index[axis] = 0;
        }
    }
    Ok(pos)
}

/// The broadcast of concrete shapes.
pub fn broadcast_concrete(a: &[usize], b: &[usize]) -> Result<Vec<usize>, Diag> {
    let rank = a.len().max(b.len());
    let at = |s: &[usize], i: usize| (i + s.len()).checked_sub(rank).map_or(1, |k| s[k]);
    (0..rank)
        .map(|i| match (at(a, i), at(b, i)) {
            (x, y) if x == y => Ok(x),
            (1, y) => Ok(y),
            (x, 1) => Ok(x),
            (x, y) => {
                Err(Diag::error("shape-mismatch", format!("axes of size {x} and {y} cannot be broadcast")))
            }
        })
        .collect()
}

/// Whether sums and products of this and others like it are far from the ends of `i64`, where dims saturate and integers wrap.
fn calculable(d: &Dim) -> bool {
    d.as_const().is_none_or(|v| v.unsigned_abs() <= 1 << 31)
}

/// a^b: b a^(b-1), and a^b ln a where a is positive, else 0.
fn power(cx: &mut GradCx<'_, '_>, dy: ValueId) -> Result<(), Diag> {
    let (a, b) = (cx.input(0)?, cx.input(1)?);
    if cx.wants(0) {
        let to = cx.dtype(a)?;
        let factor = cx.cast(b, to)?;
        let less = cx.plus(-1.0, b)?;
        let rest = cx.binary(BinaryKind::Pow, a, less)?;
        let slope = cx.mul(factor, rest)?;
        // The power 0 is constant, also where its formula is 0 times infinity.
        let constant = cx.compare(BinaryKind::Equal, b, 0.0)?;
        let slope = cx.only(constant, false, slope)?;
        let da = cx.mul(dy, slope)?;
        cx.give(0, da)?;
    }
    if cx.wants(1) {
        let positive = cx.compare(BinaryKind::Greater, a, 0.0)?;
        let one = cx.number(1.0, a)?;
        let base = cx.ed.node1(Where {}, &[positive, a, one])?;
        let log = cx.unary(UnaryKind::Log, base)?;
        let y = cx.output(0);
        let slope = cx.mul(log, y)?;
        let slope = cx.only(positive, true, slope)?;
        let db = cx.mul(dy, slope)?;
        cx.give(1, db)?;
    }
    Ok(())
}

impl OpDef for Binary {
    const NAME: &'static str = "binary";
    const INPUTS: (usize, usize) = (2, 2);
    fn is_elementwise(&self) -> bool {
        true
    }
    fn infer(&self, cx: &mut InferCx<'_>) -> Result<Vec<Fact>, Diag> {
        let d = cx.expect_dtype(
            0,
            |d| self.kind.accepts(d),
            &format!("a type that `{}` takes", self.kind.name()),
        )?;
        match self.kind {
            BinaryKind::Pow => cx.expect_dtype(1, |d| self.kind.accepts(d), "a number")?,
            _ => cx.expect_same_dtype(0)?,
        };
        let dtype = if self.kind.is_comparison() { DType::Bool } else { d };
        let shape = cx.broadcast_all()?;
        let content = match (cx.ints(0), cx.ints(1)) {
            (Some(a), Some(b))
                if matches!(d, DType::I64 | DType::I32)
                    && shape.as_ref().is_some_and(|s| s.len() <= 1)
                    && a.iter().chain(&b).all(calculable) =>
            {
                let n = if a.len() == 1 { b.len() } else { a.len() };
                let pick =
                    |v: &[Dim], i: usize| if v.len() == 1 { v.first().cloned() } else { v.get(i).cloned() };
                // What wraps in the type does not as a dim.
                let held =
                    |d: &Dim| dtype != DType::I32 || d.as_const().is_none_or(|v| i32::try_from(v).is_ok());
                (0..n).map(|i| self.kind.apply_dim(&pick(&a, i)?, &pick(&b, i)?).filter(held)).collect()
            }
            _ => None,
        };
        Ok(vec![Fact { ty: Type::from(TensorType { dtype, shape, quant: None }), content }])
    }
    fn gradient(&self, cx: &mut GradCx<'_, '_>) -> Result<(), Diag> {
        use BinaryKind::*;
        let dy = cx.only_seed()?;
        let (a, b, y) = (cx.input(0)?, cx.input(1)?, cx.output(0));
        match self.kind {
            Add | Sub => {
                cx.give(0, dy)?;
                let db = if self.kind == Sub { cx.unary(UnaryKind::Neg, dy)? } else { dy };
                cx.give(1, db)
            }
            Mul => {
                let (da, db) = (cx.mul(dy, b)?, cx.mul(dy, a)?);
                cx.give(0, da)?;
                cx.give(1, db)
            }
            Div => {
                let da = cx.binary(Div, dy, b)?;
                cx.give(0, da)?;
                // - a / b^2
                let db = cx.mul(da, y)?;
                let db = cx.unary(UnaryKind::Neg, db)?;
                cx.give(1, db)
            }
            Pow => power(cx, dy),
            Mod | Fmod => {
                cx.give(0, dy)?;
                if cx.wants(1) {
                    // a = q b + r with a whole q: - q
                    let rest = cx.binary(Sub, a, y)?;
                    let q = cx.binary(Div, rest, b)?;
                    let q = cx.unary(UnaryKind::Round, q)?;
                    let db = cx.mul(dy, q)?;
                    let db = cx.unary(UnaryKind::Neg, db)?;
                    cx.give(1, db)?;
                }
                Ok(())
            }
            Min | Max => {
                let first = if self.kind == Min { LessEqual } else { GreaterEqual };
                let first = cx.binary(first, a, b)?;
                for (i, when) in [(0, true), (1, false)] {
                    let d = cx.only(first, when, dy)?;
                    cx.give(i, d)?;
                }
                Ok(())
            }
            PRelu => {
                let below = cx.compare(Less, a, 0.0)?;
                let scaled = cx.mul(dy, b)?;
                let da = cx.ed.node1(Where {}, &[below, scaled, dy])?;
                cx.give(0, da)?;
                let db = cx.mul(dy, a)?;
                let db = cx.only(below, true, db)?;
                cx.give(1, db)
            }
            _ => Ok(()),
        }
    }
    fn eval(&self, cx: &mut EvalCx<'_>) -> Result<Vec<Value>, Diag> {
        let (a, b) = (cx.tensor(0)?, cx.tensor(1)?);
        let shape = broadcast_concrete(a.shape(), b.shape())?;
        let (pa, pb) = (broadcast_positions(a.shape(), &shape)?, broadcast_positions(b.shape(), &shape)?);
        let pairs = pa.into_iter().zip(pb);
        let d = a.dtype();
        let out = if self.kind.is_comparison() { DType::Bool } else { d };
        let flags = |v: Vec<bool>| Elems::I(v.into_iter().map(i128::from).collect());
        let elems = match (a.elems(), b.elems()) {
            (Elems::F(x), Elems::F(y)) if self.kind.is_comparison() => {
                flags(pairs.map(|(i, j)| self.kind.apply_float(x[i], y[j]) != 0.0).collect())
            }
            (Elems::F(x), Elems::F(y)) => {
                Elems::F(pairs.map(|(i, j)| self.kind.apply_float(x[i], y[j])).collect())
            }
            (Elems::I(x), Elems::I(y)) => {
                Elems::I(pairs.map(|(i, j)| self.kind.apply_int(x[i], y[j], d.bits())).collect())
            }
            (Elems::F(x), Elems::I(y)) => {
                Elems::F(pairs.map(|(i, j)| self.kind.apply_float(x[i], y[j] as f64)).collect())
            }
            (Elems::I(x), Elems::F(y)) => {
                Elems::I(pairs.map(|(i, j)| self.kind.apply_float(x[i] as f64, y[j]) as i128).collect())
            }
            (Elems::S(x), Elems::S(y)) => flags(pairs.map(|(i, j)| x[i] == y[j]).collect()),
            _ => return Err(Diag::error("dtype-mismatch", "operands of different kinds")),
        };
        Ok(vec![Tensor::from_elems(out, shape, elems)?.into()])
    }
}
