//! When two results agree.

use planish_ir::{DType, Elems, Tensor, Value};

/// How far two results may be apart: `|a - b| <= relative * |b| + absolute * max(1, max |b|)`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Tolerance {
    /// Of the element.
    pub relative: f64,
    /// Of the largest element of the tensor.
    pub absolute: f64,
}

/// The tolerance of inexact results of a dtype: a few hundred units in the last place, because the results of many
/// operations in a row are compared. Types that are not floating-point have none.
pub fn tolerance(dtype: DType) -> Tolerance {
    let unit = match dtype {
        DType::F64 => f64::powi(2.0, -40),
        DType::F32 => f64::powi(2.0, -14),
        DType::F16 => f64::powi(2.0, -6),
        DType::BF16 => f64::powi(2.0, -4),
        d if d.is_float() => 0.5,
        _ => 0.0,
    };
    Tolerance { relative: unit, absolute: unit }
}

/// Why `ours` does not agree with `reference`; `exact`: to the value (zeros of both signs are equal, and all NaN).
pub fn compare(ours: &Value, reference: &Value, exact: bool) -> Result<(), String> {
    match (ours, reference) {
        (Value::Tensor(a), Value::Tensor(b)) => compare_tensors(a, b, exact),
        (Value::Sequence(_, a), Value::Sequence(_, b)) => {
            if a.len() != b.len() {
                return Err(format!("{} items instead of {}", a.len(), b.len()));
            }
            a.iter()
                .zip(b)
                .enumerate()
                .try_for_each(|(i, (a, b))| compare(a, b, exact).map_err(|why| format!("item {i}: {why}")))
        }
        (Value::Optional(_, a), Value::Optional(_, b)) => match (a, b) {
            (Some(a), Some(b)) => compare(a, b, exact),
            (None, None) => Ok(()),
            _ => Err("only one of the two is there".into()),
        },
        (a, b) if a == b => Ok(()),
        _ => Err("values of different kinds".into()),
    }
}

fn compare_tensors(a: &Tensor, b: &Tensor, exact: bool) -> Result<(), String> {
    if a.dtype() != b.dtype() || a.shape() != b.shape() {
        return Err(format!("{}{:?} instead of {}{:?}", a.dtype(), a.shape(), b.dtype(), b.shape()));
    }
    let at = |i: usize, x: String, y: String| format!("element {i} of {:?}: {x} instead of {y}", a.shape());
    match (a.elems(), b.elems()) {
        (Elems::F(x), Elems::F(y)) => {
            let limit = tolerance(b.dtype());
            let top = y.iter().filter(|v| v.is_finite()).fold(1f64, |m, v| m.max(v.abs()));
            for (i, (p, q)) in x.iter().zip(&y).enumerate() {
                let same = p == q || (p.is_nan() && q.is_nan());
                let near = !exact
                    && q.is_finite()
                    && (p - q).abs() <= limit.relative * q.abs() + limit.absolute * top;
                if !same && !near {
                    return Err(at(i, format!("{p:?}"), format!("{q:?}")));
                }
            }
            Ok(())
        }
        (x, y) if x == y => Ok(()),
        (Elems::I(x), Elems::I(y)) => {
            let i = x.iter().zip(&y).position(|(p, q)| p != q).unwrap_or(0);
            Err(at(i, x[i].to_string(), y[i].to_string()))
        }
        _ => Err("strings differ".into()),
    }
}
