//! IR types as ONNX types.

use crate::proto::tensor_shape_proto::{Dimension, dimension::Value as DimValue};
use crate::proto::{TensorShapeProto, TypeProto, ValueInfoProto, type_proto};
use planish_ir::{Dim, Symbols, Type};

/// A declaration of the value `name`. Dims that are symbols keep their names if `symbols` is given; other unknown dims
/// are left open.
pub(crate) fn declare(name: &str, ty: &Type, symbols: Option<&Symbols>) -> ValueInfoProto {
    ValueInfoProto {
        name: Some(name.to_string()),
        r#type: Some(proto(ty, symbols)),
        ..ValueInfoProto::default()
    }
}

pub(crate) fn proto(ty: &Type, symbols: Option<&Symbols>) -> TypeProto {
    let inner = |ty: &Type| Some(Box::new(proto(ty, None)));
    let value = match ty {
        Type::Tensor(t) => {
            let dim = |d: &Dim| Dimension { value: dim(d, symbols), ..Dimension::default() };
            let shape = t.shape.as_ref().map(|s| TensorShapeProto { dim: s.iter().map(dim).collect() });
            type_proto::Value::TensorType(type_proto::Tensor { elem_type: Some(t.dtype.onnx()), shape })
        }
        Type::Sequence(t) => {
            type_proto::Value::SequenceType(Box::new(type_proto::Sequence { elem_type: inner(t) }))
        }
        Type::Optional(t) => {
            type_proto::Value::OptionalType(Box::new(type_proto::Optional { elem_type: inner(t) }))
        }
        Type::Map(key, t) => type_proto::Value::MapType(Box::new(type_proto::Map {
            key_type: Some(key.onnx()),
            value_type: inner(t),
        })),
    };
    TypeProto { value: Some(value), ..TypeProto::default() }
}

fn dim(dim: &Dim, symbols: Option<&Symbols>) -> Option<DimValue> {
    match dim.as_const() {
        Some(n) => Some(DimValue::DimValue(n)),
        None => Some(DimValue::DimParam(symbols?.get(dim.as_symbol()?).name.to_string())),
    }
}
