//! Recipes whose operands hold the values that arithmetic is strange on: NaN, infinities, zeros of both signs, the
//! smallest numbers, and the ends of integer types. Their results become outputs and nothing is computed with them, since
//! nothing could be said about the size of what comes out.

use super::elementwise::{FLOATS, INTS, float_type, number_type};
use super::values::{any_shape, broadcastable};
use super::{Item, Smith};
use planish_ir::op::binary::BinaryKind;
use planish_ir::op::unary::UnaryKind;
use planish_ir::{DType, Elems, Tensor};

/// A very small number. Subnormal ones of f16 are ordinary numbers in f32; those of the wider types (and of bf16, which
/// has the exponents of f32) are zero inside sessions, which flush them, so that only moving them is comparable.
fn tiny(dtype: DType) -> f64 {
    match dtype {
        DType::F64 => 2f64.powi(-1000),
        DType::F16 => 3.0 * 2f64.powi(-24),
        d if d.bits() <= 8 => 0.5,
        _ => 2f64.powi(-100),
    }
}

/// The number after zero.
fn least(dtype: DType) -> f64 {
    match dtype {
        DType::F64 => f64::from_bits(1),
        DType::F32 => f64::from(f32::from_bits(1)),
        DType::BF16 => f64::from(f32::from_bits(1 << 16)),
        _ => tiny(dtype),
    }
}

fn telling(s: &mut Smith, dtype: DType, shape: &[usize], small: f64) -> Tensor {
    let len: usize = shape.iter().product();
    let elems = match dtype.int_range() {
        Some((least, most)) => {
            let all = [least, least + 1, most, most - 1, 0, 1, 2];
            Elems::I((0..len).map(|_| s.rng.choose(&all)).collect())
        }
        None => {
            let wide = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0, small, -small, 100.0, -100.0];
            // Just above the middle of two neighbours in f16, bf16 and 8-bit types: rounding twice would go down.
            let above = |bits: i32| 1.0 + 2f64.powi(-bits) + 2f64.powi(-30);
            let plain = [0.0, 1.0, -1.0, 0.5, -0.5, 2.5, -3.0, above(11), above(8), above(4), above(3)];
            let of = |s: &mut Smith| if s.rng.one_in(2) { s.rng.choose(&wide) } else { s.rng.choose(&plain) };
            Elems::F((0..len).map(|_| of(s)).collect())
        }
    };
    match Tensor::from_elems(dtype, shape.to_vec(), elems) {
        Ok(tensor) => tensor,
        Err(why) => panic!("telling values of {dtype}: {why}"),
    }
}

/// An input or constant of such values, outside the pool.
fn operand(s: &mut Smith, dtype: DType, shape: &[usize]) -> Item {
    let tensor = telling(s, dtype, shape, tiny(dtype));
    s.outside(tensor)
}

/// [`operand`] with the smallest numbers too, for operations that do not compute.
fn moved(s: &mut Smith, dtype: DType, shape: &[usize]) -> Item {
    let tensor = telling(s, dtype, shape, least(dtype));
    s.outside(tensor)
}

fn finish(s: &mut Smith, name: &str, fields: &[(&str, String)], operands: &[&Item], exact: bool) {
    let operands: Vec<_> = operands.iter().map(|item| Some(item.v)).collect();
    if let Some(results) = s.emit_values(name, fields, &operands) {
        s.only_outputs(&results, exact);
    }
}

fn kind(name: &str) -> Vec<(&'static str, String)> {
    vec![("kind", name.to_owned())]
}

pub(crate) fn unary(s: &mut Smith) -> Option<Item> {
    let op = s.rng.choose(UnaryKind::ALL);
    use UnaryKind::*;
    let dtype = match op {
        Not => return None,
        BitNot => s.rng.choose(&INTS),
        Neg | Abs | Sign | Relu => number_type(s),
        _ => float_type(s),
    };
    let dims = any_shape(&mut s.rng);
    let x = operand(s, dtype, &dims);
    let rounds = matches!(op, Neg | Abs | Sign | Relu | BitNot | Floor | Ceil | Round | Sqrt | Reciprocal);
    finish(s, "unary", &kind(op.name()), &[&x], rounds || op.is_predicate());
    None
}

pub(crate) fn binary(s: &mut Smith) -> Option<Item> {
    let op = s.rng.choose(BinaryKind::ALL);
    use BinaryKind::*;
    let dtype = match op {
        And | Or | Xor | ShiftLeft | ShiftRight => return None,
        BitAnd | BitOr | BitXor => s.rng.choose(&INTS),
        // Integers have no quotient by zero, and no power that is not one.
        Div | Mod | Fmod | Pow => float_type(s),
        _ => number_type(s),
    };
    let dims = any_shape(&mut s.rng);
    let other = broadcastable(&mut s.rng, &dims);
    let (a, b) = (operand(s, dtype, &dims), operand(s, dtype, &other));
    finish(s, "binary", &kind(op.name()), &[&a, &b], op != Pow);
    None
}

pub(crate) fn select(s: &mut Smith) -> Option<Item> {
    let dtype = number_type(s);
    let dims = any_shape(&mut s.rng);
    let mask = s.get(DType::Bool, &dims, super::Domain::Exact);
    let (a, b) = (moved(s, dtype, &dims), moved(s, dtype, &dims));
    finish(s, "where", &[], &[&mask, &a, &b], true);
    None
}

pub(crate) fn cast(s: &mut Smith) -> Option<Item> {
    let from = if s.rng.one_in(2) { s.rng.choose(&FLOATS) } else { s.rng.choose(&INTS) };
    let to: Vec<DType> = DType::ALL.iter().copied().filter(|d| *d != DType::Str && *d != from).collect();
    let to = s.rng.choose(&to);
    let dims = any_shape(&mut s.rng);
    let x = operand(s, from, &dims);
    let fields = [("to", to.name().to_owned()), ("saturate", s.rng.one_in(2).to_string())];
    finish(s, "cast", &fields, &[&x], true);
    None
}

pub(crate) fn reduce(s: &mut Smith) -> Option<Item> {
    // No product: it underflows before it meets an infinity in one order, and after it in another.
    let op = s.rng.choose(&["max", "min", "sum", "mean", "l1", "l2", "log-sum-exp"]);
    let dtype = if matches!(op, "max" | "min") { number_type(s) } else { float_type(s) };
    let dims = any_shape(&mut s.rng);
    let x = operand(s, dtype, &dims);
    let axes: Vec<usize> = (0..x.rank()).filter(|_| s.rng.one_in(2)).collect();
    let fields = [
        ("kind", op.to_owned()),
        ("axes", super::arrays::list(&axes)),
        ("keepdims", s.rng.one_in(2).to_string()),
        ("noop_empty", "false".to_owned()),
    ];
    finish(s, "reduce", &fields, &[&x], matches!(op, "max" | "min"));
    None
}

pub(crate) fn softmax(s: &mut Smith) -> Option<Item> {
    let dtype = float_type(s);
    let op = s.rng.choose(&["softmax", "log-softmax"]);
    let (rows, n) = (1 + s.rng.below(3), 1 + s.rng.below(20));
    let x = operand(s, dtype, &[rows, n]);
    let axis = s.rng.below(2);
    finish(s, "softmax", &[("kind", op.to_owned()), ("axis", axis.to_string())], &[&x], false);
    None
}

pub(crate) fn arg_reduce(s: &mut Smith) -> Option<Item> {
    let dtype = s.rng.choose(&INTS);
    let (rows, n) = (1 + s.rng.below(3), 1 + s.rng.below(20));
    let x = operand(s, dtype, &[rows, n]);
    let fields = [
        ("largest", s.rng.one_in(2).to_string()),
        ("axis", s.rng.below(2).to_string()),
        ("keepdims", s.rng.one_in(2).to_string()),
        ("last", s.rng.one_in(2).to_string()),
    ];
    finish(s, "arg-reduce", &fields, &[&x], true);
    None
}

/// Operations that move elements must not change them.
pub(crate) fn movement(s: &mut Smith) -> Option<Item> {
    let dtype = number_type(s);
    let (rows, n) = (1 + s.rng.below(5), 1 + s.rng.below(20));
    let x = moved(s, dtype, &[rows, n]);
    match s.rng.below(4) {
        0 => finish(s, "transpose", &[("perm", "[1, 0]".to_owned())], &[&x], true),
        1 => {
            let y = moved(s, dtype, &[rows, 3]);
            finish(s, "concat", &[("axis", "1".to_owned())], &[&x, &y], true);
        }
        2 => {
            let pads = s.ints(&[1, 0, 0, 2]);
            finish(s, "pad", &[("mode", "edge".to_owned())], &[&x, &pads], true);
        }
        _ => {
            let index = s.fresh(DType::I64, &[4], super::Domain::Between(0, rows as i64 - 1));
            finish(s, "gather", &[("axis", "0".to_owned())], &[&x, &index], true);
        }
    }
    None
}

/// A matrix product with a NaN or an infinity somewhere reaches the rows and columns that it must, and no others.
pub(crate) fn matmul(s: &mut Smith) -> Option<Item> {
    let (m, k, n) = (1 + s.rng.below(9), 1 + s.rng.below(9), 1 + s.rng.below(40));
    let a = operand(s, DType::F32, &[m, k]);
    let b = s.fresh(DType::F32, &[k, n], super::Domain::Positive);
    let fields = [("trans_a", "false".to_owned()), ("trans_b", "false".to_owned())];
    finish(s, "matmul", &fields, &[&a, &b], false);
    None
}

/// The largest of a window, NaN and infinities among them.
pub(crate) fn pool(s: &mut Smith) -> Option<Item> {
    let n = 4 + s.rng.below(9);
    let x = operand(s, DType::F32, &[1, 2, n]);
    let fields = [
        ("kind", s.rng.choose(&["max", "average"]).to_owned()),
        ("kernel", "[3]".to_owned()),
        ("strides", "[1]".to_owned()),
        ("dilations", "[1]".to_owned()),
        ("pads", "[1, 1]".to_owned()),
        ("auto_pad", "explicit".to_owned()),
        ("ceil_mode", "false".to_owned()),
        ("count_include_pad", "false".to_owned()),
        ("p", "1".to_owned()),
        ("indices", "none".to_owned()),
    ];
    finish(s, "pool", &fields, &[&x], false);
    None
}
