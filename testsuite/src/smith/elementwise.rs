//! Recipes for functions of single elements, and for conversions.

use super::values::{any_shape, broadcastable};
use super::{Domain, Item, Quality, Smith};
use planish_ir::DType;
use planish_ir::op::binary::BinaryKind;
use planish_ir::op::unary::UnaryKind;

/// The types that arithmetic is tested on.
pub(crate) const FLOATS: [DType; 4] = [DType::F32, DType::F64, DType::F16, DType::BF16];
pub(crate) const INTS: [DType; 8] =
    [DType::I64, DType::I32, DType::I16, DType::I8, DType::U64, DType::U32, DType::U16, DType::U8];

/// Single precision three times in four, else another floating-point type.
pub(crate) fn float_type(s: &mut Smith) -> DType {
    if s.rng.one_in(4) { s.rng.choose(&FLOATS) } else { DType::F32 }
}

/// A floating-point or integer type.
pub(crate) fn number_type(s: &mut Smith) -> DType {
    if s.rng.one_in(3) { s.rng.choose(&INTS) } else { float_type(s) }
}

/// Whether every value up to `size` in steps of a quarter or finer survives in the type, so that sums and products of
/// exact operands are exact.
pub(crate) fn holds_exactly(dtype: DType, size: f64) -> bool {
    match dtype {
        DType::F64 | DType::F32 => size <= 4096.0,
        DType::F16 => size <= 64.0,
        DType::BF16 => size <= 8.0,
        d => d.is_int() || d == DType::Bool || d == DType::Str,
    }
}

pub(crate) fn unary(s: &mut Smith) -> Option<Item> {
    let kind = s.rng.choose(UnaryKind::ALL);
    use UnaryKind::*;
    let x = match kind {
        Not => s.some(&[DType::Bool], |_| true, any_shape),
        BitNot => s.some(&INTS, |_| true, any_shape),
        Neg | Abs | Sign | Relu => {
            let dtype = number_type(s);
            s.some(&[dtype], |item| kind != Sign || item.exact, any_shape)
        }
        Floor | Ceil | Round | IsNan | IsInf | IsPosInf | IsNegInf => {
            let dtype = float_type(s);
            s.some(&[dtype], |item| item.exact, any_shape)
        }
        Sqrt | Log | Reciprocal | Acosh => {
            let (dtype, shape) = (float_type(s), any_shape(&mut s.rng));
            s.get(dtype, &shape, Domain::Positive)
        }
        // Small arguments keep the steep functions within the range of all types.
        Exp | Sinh | Cosh | Tan | Asin | Acos | Atanh => {
            let (dtype, shape) = (float_type(s), any_shape(&mut s.rng));
            let limit = if matches!(kind, Asin | Acos | Atanh | Tan) { 0 } else { 3 };
            s.get(dtype, &shape, Domain::Between(-limit, limit))
        }
        _ => {
            let dtype = float_type(s);
            s.some(&[dtype], |_| true, any_shape)
        }
    };
    let same = matches!(kind, Neg | Abs | Relu | Sign | Floor | Ceil | Round | Not | BitNot);
    let test = matches!(kind, IsNan | IsInf | IsPosInf | IsNegInf);
    let size = match kind {
        Exp | Sinh | Cosh => 21.0,
        Reciprocal => 4.0,
        BitNot => 4.0 * x.size + 8.0,
        _ if test => 1.0,
        _ => x.size.max(4.0),
    };
    let exact = if same { x.exact } else { test };
    s.emit1("unary", &[("kind", kind.name().into())], &[&x], Quality { exact, size })
}

pub(crate) fn binary(s: &mut Smith) -> Option<Item> {
    let kind = s.rng.choose(BinaryKind::ALL);
    use BinaryKind::*;
    let compares = kind.is_comparison();
    let dtype = match kind {
        And | Or | Xor => DType::Bool,
        BitAnd | BitOr | BitXor => s.rng.choose(&INTS),
        ShiftLeft | ShiftRight => s.rng.choose(&[DType::U8, DType::U16, DType::U32, DType::U64]),
        Equal if s.rng.one_in(4) => s.rng.choose(&[DType::Bool, DType::Str]),
        _ => number_type(s),
    };
    let jumps = compares || matches!(kind, Mod | Fmod);
    let a = s.some(&[dtype], |item| !jumps || item.exact, any_shape);
    let shape = broadcastable(&mut s.rng, &a.shape);
    let domain = match kind {
        Div | Mod | Fmod if dtype.is_unsigned_int() => Domain::Positive,
        Div | Mod | Fmod => Domain::NonZero,
        Pow => Domain::Between(0, 3),
        ShiftLeft | ShiftRight => Domain::Between(0, 5),
        _ if jumps => Domain::Exact,
        _ => Domain::Any,
    };
    let b = s.get(dtype, &shape, domain);
    let size = match kind {
        _ if compares => 1.0,
        Add | Sub => a.size + b.size,
        Mul | PRelu => (a.size * b.size).max(a.size),
        Div => a.size * 4.0,
        Pow => a.size.powi(3).max(1.0),
        ShiftLeft => a.size * 32.0,
        BitOr | BitXor => 2.0 * a.size.max(b.size) + 1.0,
        _ => a.size.max(b.size),
    };
    let lossless = match kind {
        Div | Pow => !dtype.is_float(),
        _ => compares || holds_exactly(dtype, size),
    };
    let exact = a.exact && b.exact && lossless;
    // The sizes of integers say nothing once they wrap; all engines wrap alike.
    let swap = matches!(kind, Add | Mul | Min | Max) && s.rng.one_in(2);
    let operands = if swap { [&b, &a] } else { [&a, &b] };
    s.emit1("binary", &[("kind", kind.name().into())], &operands, Quality { exact, size })
}

pub(crate) fn select(s: &mut Smith) -> Option<Item> {
    let dtype = if s.rng.one_in(4) { s.rng.choose(&[DType::Bool, DType::Str]) } else { number_type(s) };
    let a = s.some(&[dtype], |_| true, any_shape);
    let (mask, other) = (broadcastable(&mut s.rng, &a.shape), broadcastable(&mut s.rng, &a.shape));
    let c = s.get(DType::Bool, &mask, Domain::Exact);
    let b = s.get(dtype, &other, Domain::Any);
    let quality = Quality { exact: a.exact && b.exact, size: a.size.max(b.size) };
    let operands = if s.rng.one_in(2) { [&c, &a, &b] } else { [&c, &b, &a] };
    s.emit1("where", &[], &operands, quality)
}

pub(crate) fn cast(s: &mut Smith) -> Option<Item> {
    let from: Vec<DType> = DType::ALL.iter().copied().filter(|d| *d != DType::Str).collect();
    let x = if s.rng.one_in(3) {
        s.some(&from, |item| item.exact, any_shape)
    } else {
        let dtype = number_type(s);
        s.some(&[dtype], |item| item.exact, any_shape)
    };
    let to = if s.rng.one_in(3) { s.rng.choose(&from) } else { number_type(s) };
    // Rounding to fewer bits is the same everywhere for exact operands.
    let size = if to == DType::Bool { 1.0 } else { x.size };
    // Negative integers that become unsigned are as large as the type allows.
    let wraps = to.is_unsigned_int() && !x.dtype.is_unsigned_int() && x.dtype != DType::Bool;
    if wraps && x.dtype.is_float() {
        return None;
    }
    let size = if wraps { f64::powi(2.0, 16) } else { size };
    s.emit1(
        "cast",
        &[("to", to.name().into()), ("saturate", "true".into())],
        &[&x],
        Quality { exact: true, size },
    )
}
