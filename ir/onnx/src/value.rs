//! Values as test data and input files hold them: tensors, sequences, maps and optionals.

use crate::error::OnnxError;
use crate::external::ExternalData;
use crate::limits::Limits;
use crate::proto::tensor_proto::DataType;
use crate::proto::{
    self, MapProto, OptionalProto, SequenceProto, TypeProto, optional_proto, sequence_proto, type_proto,
};
use crate::scan::Root;
use crate::tensor::{Data, Dense, TensorReader};
use bytes::Bytes;
use planish_ir::tensor::MapKeys as IrMap;
use planish_ir::{DType, Diag, Tensor, TensorType, Type, Value};
use prost::Message;
use std::sync::Arc;

/// A value of any ONNX type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OnnxValue {
    /// A dense tensor; sparse ones become dense when they are read.
    Tensor(Dense),
    /// Elements of one type.
    Sequence(Vec<OnnxValue>),
    /// A value or nothing.
    Optional(Option<Box<OnnxValue>>),
    /// One value per key, in the order of the file.
    Map(MapKeys, Vec<OnnxValue>),
}

/// Keys of a map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MapKeys {
    /// Keys of an integral type.
    Ints(DataType, Vec<i64>),
    /// String keys, by convention UTF-8.
    Strings(Vec<Bytes>),
}

/// The message that a file holds for a value of type `ty`; a tensor where the type says nothing.
pub fn root_of(ty: &TypeProto) -> Root {
    match &ty.value {
        Some(type_proto::Value::SequenceType(_)) => Root::Sequence,
        Some(type_proto::Value::MapType(_)) => Root::Map,
        Some(type_proto::Value::OptionalType(_)) => Root::Optional,
        _ => Root::Tensor,
    }
}

/// Reads a value file (`.pb`) whose message is `root`. External data is refused.
pub fn decode_value(root: Root, bytes: &Bytes, limits: &Limits) -> Result<OnnxValue, OnnxError> {
    let mut external = ExternalData::none();
    let mut reader = TensorReader::new(&mut external, limits);
    if bytes.is_empty() {
        // An optional without a value, and an empty sequence, may take no bytes at all.
        match root {
            Root::Optional => return Ok(OnnxValue::Optional(None)),
            Root::Sequence => return Ok(OnnxValue::Sequence(Vec::new())),
            _ => {}
        }
    }
    match root {
        Root::Tensor => Ok(OnnxValue::Tensor(reader.dense(&proto::decode_tensor(bytes, limits)?)?)),
        Root::Sequence => sequence(&proto::decode_sequence(bytes, limits)?, &mut reader),
        Root::Map => map(&proto::decode_map(bytes, limits)?, &mut reader),
        Root::Optional => optional(&proto::decode_optional(bytes, limits)?, &mut reader),
        Root::Model => Err(OnnxError::new("onnx-decode", "a model is not a value")),
    }
}

fn sequence(s: &SequenceProto, reader: &mut TensorReader<'_>) -> Result<OnnxValue, OnnxError> {
    use sequence_proto::DataType as Kind;
    let kind = Kind::try_from(s.elem_type()).map_err(|_| bad_kind(s.elem_type()))?;
    let items: Result<Vec<OnnxValue>, OnnxError> = match kind {
        Kind::Undefined => Ok(Vec::new()),
        Kind::Tensor => s.tensor_values.iter().map(|t| Ok(OnnxValue::Tensor(reader.dense(t)?))).collect(),
        Kind::SparseTensor => {
            s.sparse_tensor_values.iter().map(|t| Ok(OnnxValue::Tensor(reader.sparse(t)?))).collect()
        }
        Kind::Sequence => s.sequence_values.iter().map(|v| sequence(v, reader)).collect(),
        Kind::Map => s.map_values.iter().map(|v| map(v, reader)).collect(),
        Kind::Optional => s.optional_values.iter().map(|v| optional(v, reader)).collect(),
    };
    Ok(OnnxValue::Sequence(items?))
}

fn optional(o: &OptionalProto, reader: &mut TensorReader<'_>) -> Result<OnnxValue, OnnxError> {
    let value = if let Some(t) = &o.tensor_value {
        Some(OnnxValue::Tensor(reader.dense(t)?))
    } else if let Some(t) = &o.sparse_tensor_value {
        Some(OnnxValue::Tensor(reader.sparse(t)?))
    } else if let Some(v) = &o.sequence_value {
        Some(sequence(v, reader)?)
    } else if let Some(v) = &o.map_value {
        Some(map(v, reader)?)
    } else if let Some(v) = &o.optional_value {
        Some(optional(v, reader)?)
    } else {
        None
    };
    Ok(OnnxValue::Optional(value.map(Box::new)))
}

fn map(m: &MapProto, reader: &mut TensorReader<'_>) -> Result<OnnxValue, OnnxError> {
    let key_type = crate::tensor::data_type(m.key_type())?;
    let keys = match key_type {
        DataType::String => MapKeys::Strings(m.string_keys.clone()),
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => {
            MapKeys::Ints(key_type, m.keys.clone())
        }
        DataType::Uint8 | DataType::Uint16 | DataType::Uint32 | DataType::Uint64 => {
            MapKeys::Ints(key_type, m.keys.clone())
        }
        other => return Err(OnnxError::new("value-kind", format!("{other:?} is no type of map keys"))),
    };
    let count = match &keys {
        MapKeys::Ints(_, k) => k.len(),
        MapKeys::Strings(k) => k.len(),
    };
    let values = match &m.values {
        Some(values) => sequence(values, reader)?,
        None => OnnxValue::Sequence(Vec::new()),
    };
    match values {
        OnnxValue::Sequence(values) if values.len() == count => Ok(OnnxValue::Map(keys, values)),
        OnnxValue::Sequence(values) => {
            let text = format!("a map has {count} keys but {} values", values.len());
            Err(OnnxError::new("value-kind", text))
        }
        _ => Err(OnnxError::new("value-kind", "the values of a map are not a sequence")),
    }
}

fn bad_kind(code: i32) -> OnnxError {
    OnnxError::new("value-kind", format!("unknown kind of element {code}"))
}

impl OnnxValue {
    /// The bytes of a value file (`.pb`): a `TensorProto`, `SequenceProto`, `MapProto` or `OptionalProto` called `name`.
    pub fn encode(&self, name: &str) -> Result<Vec<u8>, OnnxError> {
        Ok(match self {
            OnnxValue::Tensor(t) => t.to_proto(name).encode_to_vec(),
            OnnxValue::Sequence(items) => sequence_proto_of(items, name)?.encode_to_vec(),
            OnnxValue::Optional(value) => optional_proto_of(value.as_deref(), name)?.encode_to_vec(),
            OnnxValue::Map(keys, values) => map_proto_of(keys, values, name)?.encode_to_vec(),
        })
    }
}

fn some_name(name: &str) -> Option<String> {
    if name.is_empty() { None } else { Some(name.to_string()) }
}

/// An empty sequence is written as a sequence of tensors.
fn sequence_proto_of(items: &[OnnxValue], name: &str) -> Result<SequenceProto, OnnxError> {
    use sequence_proto::DataType as Kind;
    let kind = match items.first() {
        None | Some(OnnxValue::Tensor(_)) => Kind::Tensor,
        Some(OnnxValue::Sequence(_)) => Kind::Sequence,
        Some(OnnxValue::Optional(_)) => Kind::Optional,
        Some(OnnxValue::Map(..)) => Kind::Map,
    };
    let mut out =
        SequenceProto { name: some_name(name), elem_type: Some(kind as i32), ..SequenceProto::default() };
    for item in items {
        match (kind, item) {
            (Kind::Tensor, OnnxValue::Tensor(t)) => out.tensor_values.push(t.to_proto("")),
            (Kind::Sequence, OnnxValue::Sequence(v)) => out.sequence_values.push(sequence_proto_of(v, "")?),
            (Kind::Optional, OnnxValue::Optional(v)) => {
                out.optional_values.push(optional_proto_of(v.as_deref(), "")?)
            }
            (Kind::Map, OnnxValue::Map(keys, values)) => out.map_values.push(map_proto_of(keys, values, "")?),
            _ => return Err(OnnxError::new("value-kind", "a sequence mixes kinds of elements")),
        }
    }
    Ok(out)
}

fn optional_proto_of(value: Option<&OnnxValue>, name: &str) -> Result<OptionalProto, OnnxError> {
    use optional_proto::DataType as Kind;
    let mut out = OptionalProto { name: some_name(name), ..OptionalProto::default() };
    let kind = match value {
        None => Kind::Undefined,
        Some(OnnxValue::Tensor(t)) => {
            out.tensor_value = Some(t.to_proto(""));
            Kind::Tensor
        }
        Some(OnnxValue::Sequence(v)) => {
            out.sequence_value = Some(sequence_proto_of(v, "")?);
            Kind::Sequence
        }
        Some(OnnxValue::Map(keys, values)) => {
            out.map_value = Some(map_proto_of(keys, values, "")?);
            Kind::Map
        }
        Some(OnnxValue::Optional(v)) => {
            out.optional_value = Some(Box::new(optional_proto_of(v.as_deref(), "")?));
            Kind::Optional
        }
    };
    out.elem_type = Some(kind as i32);
    Ok(out)
}

fn map_proto_of(keys: &MapKeys, values: &[OnnxValue], name: &str) -> Result<MapProto, OnnxError> {
    let mut out = MapProto { name: some_name(name), ..MapProto::default() };
    match keys {
        MapKeys::Ints(dtype, keys) => {
            out.key_type = Some(*dtype as i32);
            out.keys = keys.clone();
        }
        MapKeys::Strings(keys) => {
            out.key_type = Some(DataType::String as i32);
            out.string_keys = keys.clone();
        }
    }
    out.values = Some(sequence_proto_of(values, "")?);
    Ok(out)
}

/// The tensor of the IR with these contents.
pub fn to_tensor(dense: Dense) -> Result<Tensor, Diag> {
    let dtype = DType::from_onnx(dense.dtype as i32).ok_or_else(|| {
        let text = format!("element type {} is not supported", dense.dtype.as_str_name());
        Diag::error("unsupported-dtype", text)
    })?;
    let too_large =
        |_| Diag::error("limit-elements", format!("a tensor of shape {:?} is too large", dense.dims));
    let shape =
        dense.dims.iter().map(|d| usize::try_from(*d).map_err(too_large)).collect::<Result<Vec<_>, _>>()?;
    match dense.data {
        Data::Bytes(bytes) => Tensor::from_bytes(dtype, shape, bytes),
        Data::Strings(strings) => {
            let text = strings.iter().map(text_of).collect::<Result<_, _>>()?;
            Tensor::from_strings(shape, text)
        }
    }
}

fn text_of(bytes: &Bytes) -> Result<String, Diag> {
    let text =
        std::str::from_utf8(bytes).map_err(|_| Diag::error("tensor-value", "a string is not UTF-8"))?;
    Ok(text.to_string())
}

/// The contents of a tensor of the IR.
pub fn from_tensor(tensor: &Tensor) -> Result<Dense, OnnxError> {
    let data = match tensor.dtype() {
        DType::Str => {
            Data::Strings(tensor.strings().iter().map(|s| Bytes::copy_from_slice(s.as_bytes())).collect())
        }
        _ => Data::Bytes(tensor.bytes().clone()),
    };
    let dtype = crate::tensor::data_type(tensor.dtype().onnx())?;
    Ok(Dense { dtype, dims: tensor.shape().iter().map(|d| *d as u64).collect(), data })
}

impl OnnxValue {
    /// The value of the IR. `ty` decides the type of what is empty.
    pub fn into_value(self, ty: Option<&Type>) -> Result<Value, Diag> {
        let element = |ty: Option<&Type>, items: &[Value]| match ty {
            Some(ty) => Arc::new(ty.clone()),
            None => Arc::new(items.first().map_or_else(|| TensorType::unranked(DType::F32).into(), loose)),
        };
        Ok(match self {
            OnnxValue::Tensor(dense) => Value::Tensor(to_tensor(dense)?),
            OnnxValue::Sequence(items) => {
                let inner = match ty {
                    Some(Type::Sequence(inner)) => Some(&**inner),
                    _ => None,
                };
                let items = items.into_iter().map(|v| v.into_value(inner)).collect::<Result<Vec<_>, _>>()?;
                Value::Sequence(element(inner, &items), items)
            }
            OnnxValue::Optional(value) => {
                let inner = match ty {
                    Some(Type::Optional(inner)) => Some(&**inner),
                    _ => None,
                };
                let value = value.map(|v| v.into_value(inner)).transpose()?;
                Value::Optional(element(inner, value.as_slice()), value.map(Box::new))
            }
            OnnxValue::Map(keys, values) => {
                let inner = match ty {
                    Some(Type::Map(_, inner)) => Some(&**inner),
                    _ => None,
                };
                let values =
                    values.into_iter().map(|v| v.into_value(inner)).collect::<Result<Vec<_>, _>>()?;
                let element = element(inner, &values);
                match keys {
                    MapKeys::Ints(dtype, keys) => {
                        let dtype = DType::from_onnx(dtype as i32)
                            .ok_or_else(|| Diag::error("unsupported-dtype", "unknown type of map keys"))?;
                        Value::Map(IrMap::Int(dtype, element, keys.into_iter().zip(values).collect()))
                    }
                    MapKeys::Strings(keys) => {
                        let keys = keys.iter().map(text_of).collect::<Result<Vec<_>, _>>()?;
                        Value::Map(IrMap::Str(element, keys.into_iter().zip(values).collect()))
                    }
                }
            }
        })
    }

    /// What a file holds for a value of the IR.
    pub fn from_value(value: &Value) -> Result<OnnxValue, OnnxError> {
        let all = |items: &mut dyn Iterator<Item = &Value>| {
            items.map(OnnxValue::from_value).collect::<Result<Vec<_>, _>>()
        };
        Ok(match value {
            Value::Tensor(t) => OnnxValue::Tensor(from_tensor(t)?),
            Value::Sequence(_, items) => OnnxValue::Sequence(all(&mut items.iter())?),
            Value::Optional(_, value) => match value {
                Some(v) => OnnxValue::Optional(Some(Box::new(OnnxValue::from_value(v)?))),
                None => OnnxValue::Optional(None),
            },
            Value::Map(IrMap::Int(dtype, _, map)) => {
                let keys =
                    MapKeys::Ints(crate::tensor::data_type(dtype.onnx())?, map.keys().copied().collect());
                OnnxValue::Map(keys, all(&mut map.values())?)
            }
            Value::Map(IrMap::Str(_, map)) => {
                let keys = map.keys().map(|k| Bytes::copy_from_slice(k.as_bytes())).collect();
                OnnxValue::Map(MapKeys::Strings(keys), all(&mut map.values())?)
            }
        })
    }
}

/// The type of an element, without dims: other elements may have others.
fn loose(value: &Value) -> Type {
    match value.ty() {
        Type::Tensor(t) => TensorType::unranked(t.dtype).into(),
        other => other,
    }
}

#[cfg(test)]
mod tests;
