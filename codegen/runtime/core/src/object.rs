//! Values that are not dense tensors in a slot: strings, sequences, optionals and maps.
use crate::dtype::DType;
use crate::error::{Result, fail};
use crate::plan::ValueType;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

/// A tensor that owns its bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tensor {
    /// Element type; not `String`.
    pub dtype: DType,
    /// Dims, each >= 0.
    pub dims: Vec<i64>,
    /// Elements, row-major, little-endian; types below 8 bits take one byte each.
    pub data: Vec<u8>,
}

/// A value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Object {
    /// A tensor of numbers.
    Tensor(Tensor),
    /// A tensor of strings.
    Strings {
        /// Dims.
        dims: Vec<i64>,
        /// Elements, row-major.
        data: Vec<String>,
    },
    /// A sequence.
    Sequence(Vec<Arc<Object>>),
    /// An optional.
    Optional(Option<Arc<Object>>),
    /// A map: keys (a tensor of integers, or strings, of rank 1), and a value for each.
    Map {
        /// Keys.
        keys: Arc<Object>,
        /// Values, in the order of the keys.
        values: Arc<Object>,
    },
}

/// The number of elements of a shape, checked: `None` for a negative dim or a product beyond 2^62.
pub fn elements(dims: &[i64]) -> Option<u64> {
    // A zero anywhere makes the product 0 whatever the other dims are, so it is looked for first.
    if dims.iter().any(|&d| d < 0) {
        return None;
    }
    if dims.contains(&0) {
        return Some(0);
    }
    dims.iter().try_fold(1u64, |n, &d| n.checked_mul(d as u64)).filter(|&n| n <= 1 << 62)
}

/// The bytes of a dense tensor.
pub fn dense_bytes(dtype: DType, dims: &[i64]) -> Option<u64> {
    elements(dims)?.checked_mul(dtype.size() as u64).filter(|&n| n <= isize::MAX as u64)
}

impl Tensor {
    /// A tensor of zeros.
    pub fn zeros(dtype: DType, dims: &[i64]) -> Result<Tensor> {
        match dense_bytes(dtype, dims) {
            Some(n) => Ok(Tensor { dtype, dims: dims.to_vec(), data: vec![0; n as usize] }),
            None => fail!(Memory, "a tensor of shape {dims:?} is too large"),
        }
    }

    /// A tensor of i64.
    pub fn of_i64(dims: Vec<i64>, values: &[i64]) -> Tensor {
        Tensor { dtype: DType::I64, dims, data: values.iter().flat_map(|v| v.to_le_bytes()).collect() }
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.data.len().checked_div(self.dtype.size()).unwrap_or(0)
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Element `i` of a tensor of integers or bools.
    pub fn int(&self, i: usize) -> Option<i64> {
        read_int(self.dtype, self.data.get(i * self.dtype.size()..)?)
    }
}

/// The integer at the start of `bytes`; `None` if they are too short or the type is no integer.
pub fn read_int(dtype: DType, bytes: &[u8]) -> Option<i64> {
    macro_rules! of {
        ($t:ty) => {
            <$t>::from_le_bytes(bytes.get(..size_of::<$t>())?.try_into().ok()?) as i64
        };
    }
    Some(match dtype {
        DType::I8 | DType::I4 | DType::I2 => of!(i8),
        DType::U8 | DType::U4 | DType::U2 => of!(u8),
        DType::Bool => (*bytes.first()? != 0) as i64,
        DType::I16 => of!(i16),
        DType::U16 => of!(u16),
        DType::I32 => of!(i32),
        DType::U32 => of!(u32),
        DType::I64 => of!(i64),
        // A value above i64::MAX saturates: no index or count is that large.
        DType::U64 => i64::try_from(u64::from_le_bytes(bytes.get(..8)?.try_into().ok()?)).unwrap_or(i64::MAX),
        _ => return None,
    })
}

impl Object {
    /// Whether this is a value of `ty`.
    pub fn is(&self, ty: &ValueType) -> bool {
        match (self, ty) {
            (Object::Tensor(t), ValueType::Tensor(d)) => t.dtype == *d,
            (Object::Strings { .. }, ValueType::Tensor(DType::String)) => true,
            (Object::Sequence(v), ValueType::Sequence(t)) => v.iter().all(|o| o.is(t)),
            (Object::Optional(v), ValueType::Optional(t)) => v.as_ref().is_none_or(|o| o.is(t)),
            (Object::Map { keys, values }, ValueType::Map(k, v)) => {
                keys.is(&ValueType::Tensor(*k)) && (values.is(v) || matches!(**values, Object::Sequence(_)))
            }
            _ => false,
        }
    }

    /// The dims of a tensor of numbers or strings.
    pub fn dims(&self) -> Option<&[i64]> {
        match self {
            Object::Tensor(t) => Some(&t.dims),
            Object::Strings { dims, .. } => Some(dims),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn element_counts_are_checked() {
        assert_eq!(elements(&[]), Some(1));
        assert_eq!(elements(&[2, 3]), Some(6));
        assert_eq!(elements(&[1 << 32, 1 << 32, 4]), None);
        assert_eq!(elements(&[1 << 40, 1 << 40, 0]), Some(0));
        assert_eq!(elements(&[-5, 0]), None);
        assert_eq!(dense_bytes(DType::F32, &[1 << 61]), None);
    }

    #[test]
    fn integers_of_all_widths_are_read() {
        assert_eq!(read_int(DType::I8, &[0xff]), Some(-1));
        assert_eq!(read_int(DType::U8, &[0xff]), Some(255));
        assert_eq!(read_int(DType::I32, &[0xfe, 0xff, 0xff, 0xff]), Some(-2));
        assert_eq!(read_int(DType::U64, &[0xff; 8]), Some(i64::MAX));
        assert_eq!(read_int(DType::Bool, &[7]), Some(1));
        assert_eq!(read_int(DType::I64, &[0; 7]), None);
        assert_eq!(read_int(DType::F32, &[0; 4]), None);
    }
}
