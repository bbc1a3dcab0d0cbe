//! Concrete values: tensors, sequences, optionals and maps.

use crate::diag::Diag;
use crate::dtype::DType;
use crate::types::{TensorType, Type};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;

mod convert;
pub use convert::{float_from_bits, float_to_bits};

/// A tensor in row-major order, one element per `DType::size` bytes, little-endian, at any alignment.
#[derive(Clone, Debug)]
pub struct Tensor {
    dtype: DType,
    shape: Vec<usize>,
    data: Data,
}

#[derive(Clone, Debug)]
enum Data {
    Bytes(Bytes),
    Strings(Arc<[String]>),
}

/// The elements of a tensor widened to one type per kind, for code that should be obvious rather than fast.
#[derive(Clone, Debug, PartialEq)]
pub enum Elems {
    /// All floating-point types.
    F(Vec<f64>),
    /// All integer types, and bool as 0 and 1.
    I(Vec<i128>),
    /// Strings.
    S(Vec<String>),
}

impl Elems {
    /// How many.
    pub fn len(&self) -> usize {
        match self {
            Elems::F(v) => v.len(),
            Elems::I(v) => v.len(),
            Elems::S(v) => v.len(),
        }
    }
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// The elements at these positions, in this order. Positions must be in range.
    #[must_use]
    pub fn pick(&self, positions: impl IntoIterator<Item = usize>) -> Elems {
        match self {
            Elems::F(v) => Elems::F(positions.into_iter().map(|i| v[i]).collect()),
            Elems::I(v) => Elems::I(positions.into_iter().map(|i| v[i]).collect()),
            Elems::S(v) => Elems::S(positions.into_iter().map(|i| v[i].clone()).collect()),
        }
    }
}

impl Tensor {
    /// A tensor over bytes; their number must be the number of elements times `dtype.size()`.
    pub fn from_bytes(dtype: DType, shape: Vec<usize>, bytes: Bytes) -> Result<Tensor, Diag> {
        let want = byte_len(dtype, &shape)?;
        if dtype == DType::Str || bytes.len() != want {
            return Err(Diag::error(
                "tensor-size-mismatch",
                format!("{} bytes of data for {dtype}{shape:?}, which takes {want}", bytes.len()),
            ));
        }
        Ok(Tensor { dtype, shape, data: Data::Bytes(bytes) })
    }
    /// A tensor of strings.
    pub fn from_strings(shape: Vec<usize>, strings: Vec<String>) -> Result<Tensor, Diag> {
        if strings.len() != elem_count(&shape)? {
            return Err(Diag::error(
                "tensor-size-mismatch",
                format!("{} strings for shape {shape:?}", strings.len()),
            ));
        }
        Ok(Tensor { dtype: DType::Str, shape, data: Data::Strings(strings.into()) })
    }
    /// A tensor from widened elements, rounded (floats: to nearest even, infinities and NaN kept where the type has
    /// them, saturating where it has none), wrapped (integers) or tested for non-zero (bool).
    ///
    /// The kind must match the dtype and the number of elements the shape.
    pub fn from_elems(dtype: DType, shape: Vec<usize>, elems: Elems) -> Result<Tensor, Diag> {
        let count = elem_count(&shape)?;
        if count != elems.len() {
            return Err(Diag::error(
                "tensor-size-mismatch",
                format!("{} elements for shape {shape:?}", elems.len()),
            ));
        }
        let bytes = match (&elems, dtype) {
            (Elems::S(_), DType::Str) => {
                let Elems::S(v) = elems else { unreachable!() };
                return Tensor::from_strings(shape, v);
            }
            (Elems::F(v), d) if d.is_float() => convert::encode_floats(d, v),
            (Elems::I(v), d) if !d.is_float() && d != DType::Str => convert::encode_ints(d, v),
            _ => return Err(Diag::error("dtype-mismatch", format!("elements of another kind than {dtype}"))),
        };
        Tensor::from_bytes(dtype, shape, bytes.into())
    }
    /// A tensor of floats of any floating-point type.
    pub fn floats(dtype: DType, shape: &[usize], v: Vec<f64>) -> Result<Tensor, Diag> {
        Tensor::from_elems(dtype, shape.to_vec(), Elems::F(v))
    }
    /// A tensor of integers or bools of any such type.
    pub fn ints(dtype: DType, shape: &[usize], v: Vec<i128>) -> Result<Tensor, Diag> {
        Tensor::from_elems(dtype, shape.to_vec(), Elems::I(v))
    }
    /// A vector of `i64`.
    pub fn vec_i64(v: &[i64]) -> Tensor {
        let bytes: Vec<u8> = v.iter().flat_map(|x| x.to_le_bytes()).collect();
        Tensor { dtype: DType::I64, shape: vec![v.len()], data: Data::Bytes(bytes.into()) }
    }
    /// A scalar `i64`.
    pub fn scalar_i64(v: i64) -> Tensor {
        Tensor { shape: Vec::new(), ..Tensor::vec_i64(&[v]) }
    }
    /// A tensor of `f32`.
    pub fn f32s(shape: &[usize], v: &[f32]) -> Result<Tensor, Diag> {
        let bytes: Vec<u8> = v.iter().flat_map(|x| x.to_le_bytes()).collect();
        Tensor::from_bytes(DType::F32, shape.to_vec(), bytes.into())
    }
    /// A scalar of any numeric type, rounded to it.
    pub fn scalar(dtype: DType, v: f64) -> Result<Tensor, Diag> {
        let e = if dtype.is_float() { Elems::F(vec![v]) } else { Elems::I(vec![v as i128]) };
        Tensor::from_elems(dtype, Vec::new(), e)
    }
    /// Element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }
    /// Dims.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }
    /// Rank.
    pub fn rank(&self) -> usize {
        self.shape.len()
    }
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// The bytes; empty for strings.
    pub fn bytes(&self) -> &Bytes {
        static EMPTY: Bytes = Bytes::new();
        match &self.data {
            Data::Bytes(b) => b,
            Data::Strings(_) => &EMPTY,
        }
    }
    /// The strings; empty for other types.
    pub fn strings(&self) -> &[String] {
        match &self.data {
            Data::Bytes(_) => &[],
            Data::Strings(s) => s,
        }
    }
    /// All elements, widened.
    pub fn elems(&self) -> Elems {
        match &self.data {
            Data::Strings(s) => Elems::S(s.to_vec()),
            Data::Bytes(b) if self.dtype.is_float() => Elems::F(convert::decode_floats(self.dtype, b)),
            Data::Bytes(b) => Elems::I(convert::decode_ints(self.dtype, b)),
        }
    }
    /// All elements as `f64`, whatever the numeric type; empty for strings.
    pub fn to_f64(&self) -> Vec<f64> {
        match self.elems() {
            Elems::F(v) => v,
            Elems::I(v) => v.into_iter().map(|x| x as f64).collect(),
            Elems::S(_) => Vec::new(),
        }
    }
    /// All elements of an integer or bool tensor as `i64`, wrapping `u64`; a diagnostic for other types.
    pub fn to_i64(&self) -> Result<Vec<i64>, Diag> {
        match self.elems() {
            Elems::I(v) => Ok(v.into_iter().map(|x| x as i64).collect()),
            _ => Err(Diag::error("dtype-mismatch", format!("{} where integers are needed", self.dtype))),
        }
    }
    /// The same elements under another shape with as many.
    pub fn reshaped(&self, shape: &[usize]) -> Result<Tensor, Diag> {
        if elem_count(shape)? != self.len() {
            return Err(Diag::error("shape-mismatch", format!("{:?} cannot become {shape:?}", self.shape)));
        }
        Ok(Tensor { shape: shape.to_vec(), ..self.clone() })
    }
    /// The type, with known dims.
    pub fn ty(&self) -> TensorType {
        TensorType::fixed(self.dtype, &self.shape)
    }
}

impl PartialEq for Tensor {
    /// Bitwise equality of type, shape and data.
    fn eq(&self, o: &Tensor) -> bool {
        self.dtype == o.dtype
            && self.shape == o.shape
            && match (&self.data, &o.data) {
                (Data::Bytes(a), Data::Bytes(b)) => a == b,
                (Data::Strings(a), Data::Strings(b)) => a == b,
                _ => false,
            }
    }
}

/// The most elements a tensor may have.
pub const MAX_ELEMS: usize = 1 << 40;

/// The number of elements of a shape, or a diagnostic when it overflows or exceeds [`MAX_ELEMS`].
pub fn elem_count(shape: &[usize]) -> Result<usize, Diag> {
    if shape.contains(&0) {
        return Ok(0);
    }
    shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d)).filter(|n| *n <= MAX_ELEMS).ok_or_else(|| {
        Diag::error("tensor-too-large", format!("a tensor of shape {shape:?} has too many elements"))
    })
}

/// The number of bytes of a tensor in memory; 0 for strings.
pub fn byte_len(dtype: DType, shape: &[usize]) -> Result<usize, Diag> {
    Ok(elem_count(shape)? * dtype.size())
}

/// Row-major strides in elements.
pub fn strides(shape: &[usize]) -> Vec<usize> {
    let mut out = vec![1; shape.len()];
    for i in (1..shape.len()).rev() {
        out[i - 1] = out[i] * shape[i];
    }
    out
}

/// The value of an input, an output or an intermediate result.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A tensor.
    Tensor(Tensor),
    /// A list; the type of its items matters when it is empty.
    Sequence(Arc<Type>, Vec<Value>),
    /// A value or nothing.
    Optional(Arc<Type>, Option<Box<Value>>),
    /// A map.
    Map(MapKeys),
}

/// A map by its type of keys.
#[derive(Clone, Debug, PartialEq)]
pub enum MapKeys {
    /// Integer keys of the given dtype.
    Int(DType, Arc<Type>, BTreeMap<i64, Value>),
    /// String keys.
    Str(Arc<Type>, BTreeMap<String, Value>),
}

impl From<Tensor> for Value {
    fn from(t: Tensor) -> Value {
        Value::Tensor(t)
    }
}

impl Value {
    /// The tensor, or a diagnostic.
    pub fn tensor(&self) -> Result<&Tensor, Diag> {
        match self {
            Value::Tensor(t) => Ok(t),
            _ => Err(Diag::error("type-mismatch", "a tensor is needed here")),
        }
    }
    /// The type of the value, with known dims for a tensor.
    pub fn ty(&self) -> Type {
        match self {
            Value::Tensor(t) => t.ty().into(),
            Value::Sequence(t, _) => Type::Sequence(t.clone()),
            Value::Optional(t, _) => Type::Optional(t.clone()),
            Value::Map(MapKeys::Int(k, t, _)) => Type::Map(*k, t.clone()),
            Value::Map(MapKeys::Str(t, _)) => Type::Map(DType::Str, t.clone()),
        }
    }
}
