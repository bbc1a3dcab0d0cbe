//! Elements of values as numbers and strings, whatever their type is.
use crate::dtype::DType;
use crate::error::{Result, fail};
use crate::object::{Object, Tensor, dense_bytes, elements};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::cmp::Ordering;

/// An integer of any of the types. It is compared and narrowed only: arithmetic and text on 128 bits would need
/// support routines of the compiler, which a library linked without them has not.
pub(super) type Wide = i128;

/// The integer as text.
pub(super) fn show(v: Wide) -> String {
    i64::try_from(v).map_or_else(|_| (v as u64).to_string(), |v| v.to_string())
}

/// The integer in a text.
pub(super) fn parse(s: &str) -> Option<Wide> {
    s.parse::<i64>().map(Wide::from).ok().or_else(|| s.parse::<u64>().map(Wide::from).ok())
}

/// The elements of a tensor, row-major.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Elems {
    Floats(Vec<f64>),
    Ints(Vec<Wide>),
    Strings(Vec<String>),
}

/// The value of a half-precision number.
fn half(h: u16) -> f64 {
    let (exponent, fraction) = (i32::from(h >> 10 & 31), f64::from(h & 0x3ff));
    // 2^e for -24 <= e <= 5, exactly, by its bits.
    let power = |e: i32| f64::from_bits(((e + 1023) as u64) << 52);
    let size = match exponent {
        0 => fraction * power(-24),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        e => (1024.0 + fraction) * power(e - 25),
    };
    if h >> 15 == 1 { -size } else { size }
}

impl Elems {
    pub(super) fn of(o: &Object) -> Result<Elems> {
        match o {
            Object::Strings { data, .. } => Ok(Elems::Strings(data.clone())),
            Object::Tensor(t) => Elems::of_tensor(t),
            _ => fail!(Data, "a tensor is needed"),
        }
    }

    fn of_tensor(t: &Tensor) -> Result<Elems> {
        macro_rules! read {
            ($kind:ident, $t:ty, $to:expr) => {
                Elems::$kind(
                    t.data
                        .chunks_exact(size_of::<$t>())
                        .map(|c| $to(<$t>::from_le_bytes(c.try_into().unwrap_or_default())))
                        .collect(),
                )
            };
        }
        Ok(match t.dtype {
            DType::F32 => read!(Floats, f32, f64::from),
            DType::F64 => read!(Floats, f64, |v| v),
            DType::F16 => read!(Floats, u16, half),
            DType::BF16 => read!(Floats, u16, |h| f64::from(f32::from_bits(u32::from(h) << 16))),
            DType::I8 | DType::I4 | DType::I2 => read!(Ints, i8, Wide::from),
            DType::U8 | DType::U4 | DType::U2 | DType::Bool => read!(Ints, u8, Wide::from),
            DType::I16 => read!(Ints, i16, Wide::from),
            DType::U16 => read!(Ints, u16, Wide::from),
            DType::I32 => read!(Ints, i32, Wide::from),
            DType::U32 => read!(Ints, u32, Wide::from),
            DType::I64 => read!(Ints, i64, Wide::from),
            DType::U64 => read!(Ints, u64, Wide::from),
            other => fail!(Data, "elements of type {other} are not handled here"),
        })
    }

    /// The order of two elements; NaN comes last and equals itself.
    pub(super) fn compare(&self, a: usize, b: usize) -> Ordering {
        match self {
            Elems::Floats(v) => v[a].partial_cmp(&v[b]).unwrap_or_else(|| v[a].is_nan().cmp(&v[b].is_nan())),
            Elems::Ints(v) => v[a].cmp(&v[b]),
            Elems::Strings(v) => v[a].cmp(&v[b]),
        }
    }

    /// Whether an element equals one of another list; NaN equals itself.
    pub(super) fn same(&self, a: usize, other: &Elems, b: usize) -> bool {
        match (self, other) {
            (Elems::Floats(x), Elems::Floats(y)) => x[a] == y[b] || (x[a].is_nan() && y[b].is_nan()),
            (Elems::Ints(x), Elems::Ints(y)) => x[a] == y[b],
            (Elems::Strings(x), Elems::Strings(y)) => x[a] == y[b],
            _ => false,
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Elems::Floats(v) => v.len(),
            Elems::Ints(v) => v.len(),
            Elems::Strings(v) => v.len(),
        }
    }
}

/// The elements at some positions, as a value of another shape. Positions are checked.
pub(super) fn pick(o: &Object, dims: Vec<i64>, positions: &[usize]) -> Result<Object> {
    if elements(&dims) != Some(positions.len() as u64) {
        fail!(Data, "{} elements do not make the shape {dims:?}", positions.len());
    }
    match o {
        Object::Strings { data, .. } => {
            let mut out = Vec::with_capacity(positions.len());
            for &p in positions {
                match data.get(p) {
                    Some(s) => out.push(s.clone()),
                    None => fail!(Data, "position {p} is outside {} elements", data.len()),
                }
            }
            Ok(Object::Strings { dims, data: out })
        }
        Object::Tensor(t) => {
            let size = t.dtype.size();
            let Some(bytes) = dense_bytes(t.dtype, &dims) else {
                fail!(Memory, "a tensor would be too large")
            };
            let mut data = Vec::with_capacity(bytes as usize);
            for &p in positions {
                match p.checked_mul(size).and_then(|at| t.data.get(at..at.checked_add(size)?)) {
                    Some(e) => data.extend_from_slice(e),
                    None => fail!(Data, "position {p} is outside {} elements", t.len()),
                }
            }
            Ok(Object::Tensor(Tensor { dtype: t.dtype, dims, data }))
        }
        _ => fail!(Data, "a tensor is needed"),
    }
}

/// The dims of a tensor of numbers or strings.
pub(super) fn dims(o: &Object) -> Result<&[i64]> {
    match o.dims() {
        Some(d) => Ok(d),
        None => fail!(Data, "a tensor is needed"),
    }
}

/// The number of elements before, along and behind an axis.
pub(super) fn around(dims: &[i64], axis: usize) -> Result<(usize, usize, usize)> {
    let Some(&n) = dims.get(axis) else { fail!(Data, "axis {axis} of a tensor of rank {}", dims.len()) };
    let product = |d: &[i64]| d.iter().map(|&x| x as usize).product();
    Ok((product(&dims[..axis]), n as usize, product(&dims[axis + 1..])))
}

/// For each element of `to` in row-major order the position in a tensor of dims `from` that is broadcast to it.
pub(super) fn broadcast(from: &[i64], to: &[i64]) -> Result<Vec<usize>> {
    let Some(pad) = to.len().checked_sub(from.len()) else {
        fail!(Data, "{from:?} does not broadcast to {to:?}")
    };
    let mut strides = alloc::vec![0usize; to.len()];
    let mut step = 1;
    for k in (0..from.len()).rev() {
        if from[k] != 1 {
            if from[k] != to[pad + k] {
                fail!(Data, "{from:?} does not broadcast to {to:?}");
            }
            strides[pad + k] = step;
        }
        step *= from[k] as usize;
    }
    let n = elements(to).unwrap_or(0) as usize;
    let mut out = Vec::with_capacity(n);
    let mut at = alloc::vec![0i64; to.len()];
    let mut position = 0;
    for _ in 0..n {
        out.push(position);
        for k in (0..to.len()).rev() {
            at[k] += 1;
            position += strides[k];
            if at[k] < to[k] {
                break;
            }
            position -= strides[k] * to[k] as usize;
            at[k] = 0;
        }
    }
    Ok(out)
}

/// The dims two shapes broadcast to.
pub(super) fn broadcast_dims(a: &[i64], b: &[i64]) -> Result<Vec<i64>> {
    let rank = a.len().max(b.len());
    let dim = |d: &[i64], k: usize| (k + d.len()).checked_sub(rank).map_or(1, |i| d[i]);
    let mut out = Vec::with_capacity(rank);
    for k in 0..rank {
        out.push(match (dim(a, k), dim(b, k)) {
            (x, y) if x == y => x,
            (1, y) => y,
            (x, 1) => x,
            _ => fail!(Data, "{a:?} and {b:?} do not broadcast"),
        });
    }
    Ok(out)
}
