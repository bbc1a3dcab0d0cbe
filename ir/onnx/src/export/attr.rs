//! Attributes of exported nodes.

use crate::proto::attribute_proto::AttributeType;
use crate::proto::{AttributeProto, GraphProto, TensorProto, TypeProto};
use bytes::Bytes;

fn named(name: &str, kind: AttributeType) -> AttributeProto {
    AttributeProto { name: Some(name.to_string()), r#type: Some(kind as i32), ..AttributeProto::default() }
}

/// An integer.
pub(crate) fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto { i: Some(value), ..named(name, AttributeType::Int) }
}

/// A flag, as 0 or 1.
pub(crate) fn flag(name: &str, value: bool) -> AttributeProto {
    int(name, i64::from(value))
}

/// Integers.
pub(crate) fn ints(name: &str, values: impl IntoIterator<Item = i64>) -> AttributeProto {
    AttributeProto { ints: values.into_iter().collect(), ..named(name, AttributeType::Ints) }
}

/// A float.
pub(crate) fn float(name: &str, value: f64) -> AttributeProto {
    AttributeProto { f: Some(value as f32), ..named(name, AttributeType::Float) }
}

/// Floats.
pub(crate) fn floats(name: &str, values: impl IntoIterator<Item = f64>) -> AttributeProto {
    AttributeProto {
        floats: values.into_iter().map(|v| v as f32).collect(),
        ..named(name, AttributeType::Floats)
    }
}

/// A string.
pub(crate) fn string(name: &str, value: &str) -> AttributeProto {
    AttributeProto { s: Some(Bytes::copy_from_slice(value.as_bytes())), ..named(name, AttributeType::String) }
}

/// Strings.
pub(crate) fn strings<'a>(name: &str, values: impl IntoIterator<Item = &'a str>) -> AttributeProto {
    let strings = values.into_iter().map(|s| Bytes::copy_from_slice(s.as_bytes())).collect();
    AttributeProto { strings, ..named(name, AttributeType::Strings) }
}

/// A tensor.
pub(crate) fn tensor(name: &str, value: TensorProto) -> AttributeProto {
    AttributeProto { t: Some(Box::new(value)), ..named(name, AttributeType::Tensor) }
}

/// A subgraph.
pub(crate) fn graph(name: &str, value: GraphProto) -> AttributeProto {
    AttributeProto { g: Some(Box::new(value)), ..named(name, AttributeType::Graph) }
}

/// A type.
pub(crate) fn ty(name: &str, value: TypeProto) -> AttributeProto {
    AttributeProto { tp: Some(Box::new(value)), ..named(name, AttributeType::TypeProto) }
}
