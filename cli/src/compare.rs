//! Comparison of values.

use planish_ir::tensor::MapKeys;
use planish_ir::{DType, Elems, Tensor, Value};

/// What is still equal: `|a - b| <= rtol * |b| + atol`. NaN equals NaN, infinities equal themselves.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Tolerance {
    /// Relative to the expected value.
    pub rtol: f64,
    /// Absolute.
    pub atol: f64,
}

impl Default for Tolerance {
    fn default() -> Self {
        Tolerance { rtol: 1e-3, atol: 1e-5 }
    }
}

impl Tolerance {
    /// At least as wide as elements of this type can show.
    #[must_use]
    pub fn for_dtype(self, d: DType) -> Tolerance {
        let (rtol, atol) = match d {
            DType::F16 => (2e-3, 1e-3),
            DType::BF16 => (1.0 / 64.0, 1e-3),
            d if d.is_float() && d.size() == 1 => (0.13, 1e-2),
            _ => (0.0, 0.0),
        };
        Tolerance { rtol: self.rtol.max(rtol), atol: self.atol.max(atol) }
    }
}

/// Result of a comparison.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Difference {
    /// Why the values do not match; none if they do.
    pub why: Option<String>,
    /// The largest absolute difference of two numbers.
    pub max_abs: f64,
    /// The largest difference as a part of what is allowed.
    pub worst: f64,
}

impl Difference {
    fn no(why: impl Into<String>) -> Difference {
        Difference { why: Some(why.into()), ..Difference::default() }
    }
    /// Whether the values match.
    pub fn ok(&self) -> bool {
        self.why.is_none()
    }
    fn merge(mut self, other: Difference, place: &str) -> Difference {
        if self.why.is_none() {
            self.why = other.why.map(|w| format!("{place}: {w}"));
        }
        self.max_abs = self.max_abs.max(other.max_abs);
        self.worst = self.worst.max(other.worst);
        self
    }
}

/// Compares a value with what is expected.
pub fn values(got: &Value, want: &Value, t: Tolerance) -> Difference {
    match (got, want) {
        (Value::Tensor(a), Value::Tensor(b)) => tensors(a, b, t),
        (Value::Sequence(_, a), Value::Sequence(_, b)) => {
            if a.len() != b.len() {
                return Difference::no(format!("{} items, expected {}", a.len(), b.len()));
            }
            let all = a.iter().zip(b).enumerate();
            all.fold(Difference::default(), |d, (i, (x, y))| d.merge(values(x, y, t), &format!("item {i}")))
        }
        (Value::Optional(_, a), Value::Optional(_, b)) => match (a, b) {
            (Some(a), Some(b)) => values(a, b, t),
            (None, None) => Difference::default(),
            _ => Difference::no("one is absent"),
        },
        (Value::Map(MapKeys::Int(_, _, a)), Value::Map(MapKeys::Int(_, _, b))) => maps(a, b, t),
        (Value::Map(MapKeys::Str(_, a)), Value::Map(MapKeys::Str(_, b))) => maps(a, b, t),
        _ => Difference::no("values of different kinds"),
    }
}

fn maps<K: Ord + std::fmt::Debug>(
    a: &std::collections::BTreeMap<K, Value>,
    b: &std::collections::BTreeMap<K, Value>,
    t: Tolerance,
) -> Difference {
    if !a.keys().eq(b.keys()) {
        return Difference::no("different keys");
    }
    a.iter()
        .zip(b.values())
        .fold(Difference::default(), |d, ((k, x), y)| d.merge(values(x, y, t), &format!("key {k:?}")))
}

/// Compares a tensor with what is expected.
pub fn tensors(got: &Tensor, want: &Tensor, t: Tolerance) -> Difference {
    if got.dtype() != want.dtype() || got.shape() != want.shape() {
        let (a, b) = (got.dtype(), want.dtype());
        return Difference::no(format!("{a}{:?}, expected {b}{:?}", got.shape(), want.shape()));
    }
    let t = t.for_dtype(got.dtype());
    match (got.elems(), want.elems()) {
        (Elems::S(a), Elems::S(b)) => match a.iter().zip(&b).position(|(x, y)| x != y) {
            Some(i) => Difference::no(format!("{:?} at {i}, expected {:?}", a[i], b[i])),
            None => Difference::default(),
        },
        (a, b) => numbers(&wide(a), &wide(b), got.shape(), t),
    }
}

fn wide(e: Elems) -> Vec<f64> {
    match e {
        Elems::F(v) => v,
        Elems::I(v) => v.into_iter().map(|x| x as f64).collect(),
        Elems::S(_) => Vec::new(),
    }
}

fn numbers(a: &[f64], b: &[f64], shape: &[usize], t: Tolerance) -> Difference {
    let mut d = Difference::default();
    let (mut wrong, mut first) = (0usize, None);
    for (i, (x, y)) in a.iter().zip(b).enumerate() {
        if x == y || (x.is_nan() && y.is_nan()) {
            continue;
        }
        let gap = (x - y).abs();
        let allowed = t.rtol * y.abs() + t.atol;
        let part = if gap.is_finite() && allowed > 0.0 { gap / allowed } else { f64::INFINITY };
        d.max_abs = d.max_abs.max(if gap.is_nan() { f64::INFINITY } else { gap });
        d.worst = d.worst.max(part);
        if part > 1.0 {
            wrong += 1;
            first.get_or_insert((i, *x, *y));
        }
    }
    if let Some((i, x, y)) = first {
        let index = position(i, shape);
        d.why = Some(format!(
            "{wrong} of {} elements differ, first at {index:?}: {x} instead of {y}; largest difference {:.3e}, {:.3} times what is allowed",
            a.len(),
            d.max_abs,
            d.worst
        ));
    }
    d
}

fn position(i: usize, shape: &[usize]) -> Vec<usize> {
    let strides = planish_ir::tensor::strides(shape);
    strides.iter().zip(shape).map(|(s, d)| i / s % d).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn f(v: &[f32]) -> Value {
        Value::Tensor(Tensor::f32s(&[v.len()], v).unwrap_or_else(|e| panic!("{e}")))
    }

    #[test]
    fn tolerance_decides() {
        let t = Tolerance { rtol: 0.1, atol: 0.0 };
        assert!(values(&f(&[1.05, f32::NAN, f32::INFINITY]), &f(&[1.0, f32::NAN, f32::INFINITY]), t).ok());
        let d = values(&f(&[1.2, 5.0]), &f(&[1.0, 5.0]), t);
        assert!(d.why.is_some_and(|w| w.contains("1 of 2 elements differ, first at [0]")) && d.worst > 1.9);
        assert!(!values(&f(&[f32::NAN]), &f(&[1.0]), t).ok());
        assert!(!values(&f(&[f32::INFINITY]), &f(&[f32::NEG_INFINITY]), t).ok());
        assert!(!values(&f(&[1.0]), &f(&[1.0, 1.0]), t).ok());
    }
}
