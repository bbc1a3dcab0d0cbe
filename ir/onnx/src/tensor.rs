//! Tensor contents: `TensorProto` and `SparseTensorProto` to plain bytes and back.
//!
//! In memory every element takes at least one byte: 2-, 4- and 6-bit elements are unpacked to one byte each (signed
//! integers sign-extended, the others in the low bits). Files hold them packed.

use crate::error::{OnnxError, quoted};
use crate::external::{ExternalData, is_external};
use crate::limits::Limits;
use crate::proto::tensor_proto::DataType;
use crate::proto::{SparseTensorProto, TensorProto};
use bytes::Bytes;

/// A tensor as it is in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dense {
    /// Element type, never `Undefined`.
    pub dtype: DataType,
    /// Extent of each axis; no dims for a scalar.
    pub dims: Vec<u64>,
    /// Elements in row-major order.
    pub data: Data,
}

/// Elements of a tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data {
    /// Little-endian elements of [`element_size`] bytes; not necessarily aligned.
    Bytes(Bytes),
    /// Elements of a string tensor, by convention UTF-8.
    Strings(Vec<Bytes>),
}

/// Bytes of one element in memory; 0 for strings and `Undefined`.
pub fn element_size(dtype: DataType) -> u64 {
    use DataType::*;
    match dtype {
        Undefined | String => 0,
        Uint8 | Int8 | Bool | Float8e4m3fn | Float8e4m3fnuz | Float8e5m2 | Float8e5m2fnuz | Float8e8m0 => 1,
        Uint4 | Int4 | Float4e2m1 | Uint2 | Int2 | Float6e2m3 | Float6e3m2 => 1,
        Uint16 | Int16 | Float16 | Bfloat16 => 2,
        Float | Int32 | Uint32 => 4,
        Double | Int64 | Uint64 | Complex64 => 8,
        Complex128 => 16,
    }
}

/// Bits of one element in a file; 0 for strings and `Undefined`.
pub fn file_bits(dtype: DataType) -> u64 {
    use DataType::*;
    match dtype {
        Uint2 | Int2 => 2,
        Uint4 | Int4 | Float4e2m1 => 4,
        Float6e2m3 | Float6e3m2 => 6,
        other => 8 * element_size(other),
    }
}

/// Decodes tensors of one model, counting what they expand to.
#[derive(Debug)]
pub struct TensorReader<'a> {
    external: &'a mut ExternalData,
    limits: &'a Limits,
    /// Bytes that contents may still expand by, beyond four times what is stored.
    expansion_left: u64,
}

impl<'a> TensorReader<'a> {
    /// A reader that takes external data from `external`.
    pub fn new(external: &'a mut ExternalData, limits: &'a Limits) -> Self {
        TensorReader { external, limits, expansion_left: limits.decode_bytes }
    }

    /// The contents of `tensor`. Raw contents of whole-byte types are slices of the file.
    pub fn dense(&mut self, tensor: &TensorProto) -> Result<Dense, OnnxError> {
        self.dense_inner(tensor).map_err(|e| e.about(format!("tensor {}", quoted(tensor.name()))))
    }

    fn dense_inner(&mut self, tensor: &TensorProto) -> Result<Dense, OnnxError> {
        let dtype = data_type(tensor.data_type())?;
        if tensor.segment.is_some() {
            return Err(OnnxError::new("tensor-segment", "tensors split into segments are not supported"));
        }
        let dims = dims(&tensor.dims, self.limits)?;
        let count = elements(&dims, dtype, self.limits)?;
        if dtype == DataType::String {
            if is_external(tensor) || tensor.raw_data.is_some() {
                return Err(OnnxError::new("tensor-length", "a string tensor must use string_data"));
            }
            check_length(tensor.string_data.len() as u64, count)?;
            return Ok(Dense { dtype, dims, data: Data::Strings(tensor.string_data.clone()) });
        }
        let stored = stored_bytes(dtype, count);
        let packed = if is_external(tensor) {
            Some(self.external.load(tensor, stored)?)
        } else {
            tensor.raw_data.clone().filter(|raw| !raw.is_empty() || !has_typed(tensor))
        };
        let data = match packed {
            Some(raw) => {
                if raw.len() as u64 != stored {
                    let text = format!("{} bytes of data where the shape needs {stored}", raw.len());
                    return Err(OnnxError::new("tensor-length", text));
                }
                unpack(dtype, raw, count)?
            }
            None => from_typed(dtype, tensor, count)?,
        };
        Ok(Dense { dtype, dims, data: Data::Bytes(data) })
    }

    /// The dense equivalent of `sparse`; absent elements are zero (the empty string).
    pub fn sparse(&mut self, sparse: &SparseTensorProto) -> Result<Dense, OnnxError> {
        let name = sparse.values.as_ref().map_or("", |v| v.name());
        self.sparse_inner(sparse).map_err(|e| e.about(format!("sparse tensor {}", quoted(name))))
    }

    fn sparse_inner(&mut self, sparse: &SparseTensorProto) -> Result<Dense, OnnxError> {
        let bad = |text: &str| OnnxError::new("sparse-tensor", text);
        let values = sparse.values.as_ref().ok_or_else(|| bad("no values"))?;
        let values = self.dense(values)?;
        let indices = match &sparse.indices {
            Some(t) => self.dense(t)?,
            None if values.dims == [0] => {
                Dense { dtype: DataType::Int64, dims: vec![0], data: Data::Bytes(Bytes::new()) }
            }
            None => return Err(bad("no indices")),
        };
        let dims = dims(&sparse.dims, self.limits)?;
        let count = elements(&dims, values.dtype, self.limits)?;
        let nnz = match values.dims[..] {
            [n] => n,
            _ => return Err(bad("values are not a vector")),
        };
        let rank = dims.len() as u64;
        let linear = match indices.dims[..] {
            [n] if n == nnz => true,
            [n, r] if n == nnz && r == rank => false,
            _ => return Err(bad("indices have the wrong shape")),
        };
        if indices.dtype != DataType::Int64 {
            return Err(bad("indices are not int64"));
        }
        let positions = positions(&indices, if linear { &[] } else { &dims }, nnz, count)?;
        let size = element_size(values.dtype).max(if values.dtype == DataType::String { 32 } else { 1 });
        let stored = nnz.saturating_mul(size + 8 * if linear { 1 } else { rank });
        self.expand(count.saturating_mul(size), stored)?;
        let data = match &values.data {
            Data::Strings(strings) => {
                let mut all = vec![Bytes::new(); to_len(count)?];
                for (at, string) in positions.iter().zip(strings) {
                    all[*at as usize] = string.clone();
                }
                Data::Strings(all)
            }
            Data::Bytes(bytes) => {
                let size = element_size(values.dtype) as usize;
                let mut all = zeroed(count * size as u64)?;
                for (at, element) in positions.iter().zip(bytes.chunks_exact(size)) {
                    let at = *at as usize * size;
                    all[at..at + size].copy_from_slice(element);
                }
                Data::Bytes(all.into())
            }
        };
        Ok(Dense { dtype: values.dtype, dims, data })
    }

    fn expand(&mut self, bytes: u64, stored: u64) -> Result<(), OnnxError> {
        let extra = bytes.saturating_sub(stored.saturating_mul(4));
        match self.expansion_left.checked_sub(extra) {
            Some(left) => {
                self.expansion_left = left;
                Ok(())
            }
            None => {
                Err(OnnxError::new("limit-memory", format!("{bytes} bytes when dense: more than the limit")))
            }
        }
    }
}

/// The element type with protobuf code `code`.
pub fn data_type(code: i32) -> Result<DataType, OnnxError> {
    match DataType::try_from(code) {
        Ok(dtype) if dtype != DataType::Undefined => Ok(dtype),
        _ => Err(OnnxError::new("tensor-dtype", format!("unknown element type {code}"))),
    }
}

fn dims(dims: &[i64], limits: &Limits) -> Result<Vec<u64>, OnnxError> {
    if dims.len() > limits.rank as usize {
        return Err(OnnxError::new("limit-rank", format!("rank {} is over the limit", dims.len())));
    }
    let negative = |d| OnnxError::new("tensor-negative-dim", format!("dimension {d} is negative"));
    dims.iter().map(|d| u64::try_from(*d).map_err(|_| negative(*d))).collect()
}

/// Product of `dims`, checked against the element and byte limits.
fn elements(dims: &[u64], dtype: DataType, limits: &Limits) -> Result<u64, OnnxError> {
    let too_large =
        || OnnxError::new("limit-elements", format!("a tensor of shape {dims:?} is over the limit"));
    // Zero extents do not excuse an overflowing product of the others.
    let nonzero =
        dims.iter().filter(|d| **d != 0).try_fold(1u64, |n, d| n.checked_mul(*d)).ok_or_else(too_large)?;
    let count = if dims.contains(&0) { 0 } else { nonzero };
    if nonzero > limits.elements {
        return Err(too_large());
    }
    let bytes = count.checked_mul(element_size(dtype)).ok_or_else(too_large)?;
    if bytes > limits.tensor_bytes {
        return Err(OnnxError::new("limit-tensor-bytes", format!("{bytes} bytes are over the limit")));
    }
    Ok(count)
}

fn stored_bytes(dtype: DataType, count: u64) -> u64 {
    // `count` is at most 2^40 and an element at most 128 bits.
    (count * file_bits(dtype)).div_ceil(8)
}

fn check_length(got: u64, needed: u64) -> Result<(), OnnxError> {
    if got == needed {
        return Ok(());
    }
    Err(OnnxError::new("tensor-length", format!("{got} elements of data where the shape needs {needed}")))
}

fn to_len(count: u64) -> Result<usize, OnnxError> {
    usize::try_from(count).map_err(|_| OnnxError::new("limit-memory", "a tensor does not fit into memory"))
}

fn zeroed(bytes: u64) -> Result<Vec<u8>, OnnxError> {
    let len = to_len(bytes)?;
    let mut data = Vec::new();
    let reserved = data.try_reserve_exact(len);
    reserved
        .map_err(|_| OnnxError::new("limit-memory", format!("no memory for a tensor of {bytes} bytes")))?;
    data.resize(len, 0);
    Ok(data)
}

fn has_typed(t: &TensorProto) -> bool {
    !(t.float_data.is_empty()
        && t.int32_data.is_empty()
        && t.int64_data.is_empty()
        && t.double_data.is_empty()
        && t.uint64_data.is_empty())
}

/// Elements from the typed field that `dtype` uses.
fn from_typed(dtype: DataType, t: &TensorProto, count: u64) -> Result<Bytes, OnnxError> {
    use DataType::*;
    fn bytes_of<T: Copy, const N: usize>(data: &[T], to: impl Fn(T) -> [u8; N]) -> Bytes {
        data.iter().flat_map(|v| to(*v)).collect::<Vec<u8>>().into()
    }
    let range = |v: i32| OnnxError::new("tensor-value", format!("{v} is out of range for {dtype:?}"));
    let narrow = |low: i32, high: i32| -> Result<Vec<u8>, OnnxError> {
        t.int32_data
            .iter()
            .map(|v| if (low..=high).contains(v) { Ok(*v as u8) } else { Err(range(*v)) })
            .collect()
    };
    let wide = |low: i32, high: i32| -> Result<Bytes, OnnxError> {
        match t.int32_data.iter().find(|v| !(low..=high).contains(*v)) {
            Some(v) => Err(range(*v)),
            None => Ok(bytes_of(&t.int32_data, |v| (v as u16).to_le_bytes())),
        }
    };
    let int32 = t.int32_data.len() as u64;
    match dtype {
        Float => check_length(t.float_data.len() as u64, count)?,
        Complex64 => check_length(t.float_data.len() as u64, 2 * count)?,
        Double => check_length(t.double_data.len() as u64, count)?,
        Complex128 => check_length(t.double_data.len() as u64, 2 * count)?,
        Int64 => check_length(t.int64_data.len() as u64, count)?,
        Uint32 | Uint64 => check_length(t.uint64_data.len() as u64, count)?,
        Uint4 | Int4 | Float4e2m1 | Uint2 | Int2 => check_length(int32, stored_bytes(dtype, count))?,
        _ => check_length(int32, count)?,
    }
    Ok(match dtype {
        Float | Complex64 => bytes_of(&t.float_data, f32::to_le_bytes),
        Double | Complex128 => bytes_of(&t.double_data, f64::to_le_bytes),
        Int64 => bytes_of(&t.int64_data, i64::to_le_bytes),
        Uint64 => bytes_of(&t.uint64_data, u64::to_le_bytes),
        Uint32 => match t.uint64_data.iter().find(|v| **v > u64::from(u32::MAX)) {
            Some(v) => {
                return Err(OnnxError::new("tensor-value", format!("{v} is out of range for {dtype:?}")));
            }
            None => bytes_of(&t.uint64_data, |v| (v as u32).to_le_bytes()),
        },
        Int32 => bytes_of(&t.int32_data, i32::to_le_bytes),
        Int16 => wide(i16::MIN.into(), i16::MAX.into())?,
        Uint16 | Float16 | Bfloat16 => wide(0, u16::MAX.into())?,
        Int8 => narrow(i8::MIN.into(), i8::MAX.into())?.into(),
        Bool => narrow(0, 1)?.into(),
        Float6e2m3 | Float6e3m2 => narrow(0, 63)?.into(),
        // Writers disagree on whether a packed byte is signed.
        Uint4 | Int4 | Float4e2m1 | Uint2 | Int2 => unpack(dtype, narrow(-128, 255)?.into(), count)?,
        Uint8 | Float8e4m3fn | Float8e4m3fnuz | Float8e5m2 | Float8e5m2fnuz | Float8e8m0 => {
            narrow(0, 255)?.into()
        }
        Undefined | String => return Err(OnnxError::new("tensor-dtype", format!("unexpected {dtype:?}"))),
    })
}

/// `count` elements of the file form `raw` (whose length has been checked), in memory form.
fn unpack(dtype: DataType, raw: Bytes, count: u64) -> Result<Bytes, OnnxError> {
    let bits = file_bits(dtype) as usize;
    if dtype == DataType::Bool && raw.iter().any(|b| *b > 1) {
        return Ok(raw.iter().map(|b| u8::from(*b != 0)).collect::<Vec<u8>>().into());
    }
    if bits >= 8 {
        return Ok(raw);
    }
    let mut out = zeroed(count)?;
    let mask = (1u16 << bits) - 1;
    let signed = matches!(dtype, DataType::Int4 | DataType::Int2);
    for (i, element) in out.iter_mut().enumerate() {
        let at = i * bits;
        let low = u16::from(raw[at / 8]);
        let high = raw.get(at / 8 + 1).map_or(0, |b| u16::from(*b));
        let value = ((low | high << 8) >> (at % 8) & mask) as u8;
        *element = if signed { ((value << (8 - bits)) as i8 >> (8 - bits)) as u8 } else { value };
    }
    Ok(out.into())
}

/// The file form of `data` (one element per byte for types below 8 bits).
fn pack(dtype: DataType, data: &Bytes) -> Bytes {
    let bits = file_bits(dtype) as usize;
    if bits >= 8 || data.is_empty() {
        return data.clone();
    }
    let mask = (1u16 << bits) - 1;
    let mut out = vec![0u8; (data.len() * bits).div_ceil(8)];
    for (i, element) in data.iter().enumerate() {
        let at = i * bits;
        let value = (u16::from(*element) & mask) << (at % 8);
        out[at / 8] |= value as u8;
        if value > 0xff {
            out[at / 8 + 1] |= (value >> 8) as u8;
        }
    }
    out.into()
}

impl Dense {
    /// The bytes of the elements as a file holds them (packed below 8 bits); `None` for strings.
    pub fn file_bytes(&self) -> Option<Bytes> {
        match &self.data {
            Data::Bytes(bytes) => Some(pack(self.dtype, bytes)),
            Data::Strings(_) => None,
        }
    }

    /// A `TensorProto` with these contents, in `raw_data` (strings in `string_data`).
    pub fn to_proto(&self, name: &str) -> TensorProto {
        let mut tensor = TensorProto {
            dims: self.dims.iter().map(|d| *d as i64).collect(),
            data_type: Some(self.dtype as i32),
            name: if name.is_empty() { None } else { Some(name.to_string()) },
            ..TensorProto::default()
        };
        match &self.data {
            Data::Strings(strings) => tensor.string_data = strings.clone(),
            Data::Bytes(_) => tensor.raw_data = self.file_bytes(),
        }
        tensor
    }
}

/// Linear positions of the `nnz` elements, checked to ascend strictly below `count`. `dims` is empty where the indices
/// are linear already.
fn positions(indices: &Dense, dims: &[u64], nnz: u64, count: u64) -> Result<Vec<u64>, OnnxError> {
    let bad = |text: String| OnnxError::new("sparse-tensor", text);
    let Data::Bytes(bytes) = &indices.data else { return Err(bad("indices are strings".to_string())) };
    let numbers: Vec<i64> = bytes
        .chunks_exact(8)
        .map(|c| i64::from_le_bytes([c[0], c[1], c[2], c[3], c[4], c[5], c[6], c[7]]))
        .collect();
    let mut out = Vec::with_capacity(numbers.len() / dims.len().max(1));
    let linear = indices.dims.len() == 1;
    for at in 0..to_len(nnz)? {
        let position = if linear {
            let index = numbers[at];
            u64::try_from(index)
                .ok()
                .filter(|i| *i < count)
                .ok_or_else(|| bad(format!("index {index} is out of range")))?
        } else {
            let mut position = 0u64;
            for (axis, extent) in dims.iter().enumerate() {
                let index = numbers[at * dims.len() + axis];
                let inside = u64::try_from(index).ok().filter(|i| i < extent);
                let index =
                    inside.ok_or_else(|| bad(format!("index {index} is out of range on axis {axis}")))?;
                position = position * extent + index;
            }
            if dims.is_empty() && count == 0 {
                return Err(bad("an index into an empty tensor".to_string()));
            }
            position
        };
        if out.last().is_some_and(|last| *last >= position) {
            return Err(bad("indices do not ascend".to_string()));
        }
        out.push(position);
    }
    Ok(out)
}

#[cfg(test)]
mod tests;
