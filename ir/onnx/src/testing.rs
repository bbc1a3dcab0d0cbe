//! Builders of messages for tests.

use crate::proto::attribute_proto::AttributeType;
use crate::proto::tensor_shape_proto::{Dimension, dimension::Value as DimValue};
use crate::proto::*;

pub(crate) fn own(names: &[&str]) -> Vec<String> {
    names.iter().map(|n| n.to_string()).collect()
}

pub(crate) fn node(op: &str, inputs: &[&str], outputs: &[&str], attribute: Vec<AttributeProto>) -> NodeProto {
    NodeProto {
        op_type: Some(op.into()),
        input: own(inputs),
        output: own(outputs),
        attribute,
        ..NodeProto::default()
    }
}

pub(crate) fn int(name: &str, i: i64) -> AttributeProto {
    let kind = Some(AttributeType::Int as i32);
    AttributeProto { name: Some(name.into()), i: Some(i), r#type: kind, ..AttributeProto::default() }
}

pub(crate) fn float(name: &str, f: f32) -> AttributeProto {
    let kind = Some(AttributeType::Float as i32);
    AttributeProto { name: Some(name.into()), f: Some(f), r#type: kind, ..AttributeProto::default() }
}

/// A value of f32; a dim is a number, a name, or `?`.
pub(crate) fn value(name: &str, dims: &[&str]) -> ValueInfoProto {
    let dim = |d: &&str| Dimension {
        value: match d.parse() {
            Ok(n) => Some(DimValue::DimValue(n)),
            Err(_) if *d == "?" => None,
            Err(_) => Some(DimValue::DimParam(d.to_string())),
        },
        ..Dimension::default()
    };
    let shape = TensorShapeProto { dim: dims.iter().map(dim).collect() };
    let tensor = type_proto::Tensor { elem_type: Some(1), shape: Some(shape) };
    let ty = TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..TypeProto::default() };
    ValueInfoProto { name: Some(name.into()), r#type: Some(ty), ..ValueInfoProto::default() }
}

pub(crate) fn floats(name: &str, dims: &[i64], data: &[f32]) -> TensorProto {
    TensorProto {
        name: Some(name.into()),
        dims: dims.to_vec(),
        data_type: Some(1),
        float_data: data.to_vec(),
        ..TensorProto::default()
    }
}

pub(crate) fn opset(domain: &str, version: i64) -> OperatorSetIdProto {
    OperatorSetIdProto { domain: Some(domain.into()), version: Some(version) }
}

pub(crate) fn model(
    version: i64,
    inputs: Vec<ValueInfoProto>,
    nodes: Vec<NodeProto>,
    outputs: &[&str],
) -> ModelProto {
    let untyped = |n: &&str| ValueInfoProto { name: Some(n.to_string()), ..ValueInfoProto::default() };
    let graph = GraphProto {
        node: nodes,
        input: inputs,
        output: outputs.iter().map(untyped).collect(),
        ..GraphProto::default()
    };
    ModelProto {
        ir_version: Some(8),
        graph: Some(graph),
        opset_import: vec![opset("", version)],
        ..ModelProto::default()
    }
}

pub(crate) fn graph(name: &str, nodes: Vec<NodeProto>, inputs: &[&str], outputs: &[&str]) -> AttributeProto {
    let untyped = |n: &&str| ValueInfoProto { name: Some(n.to_string()), ..ValueInfoProto::default() };
    let graph = GraphProto {
        node: nodes,
        input: inputs.iter().map(untyped).collect(),
        output: outputs.iter().map(untyped).collect(),
        ..GraphProto::default()
    };
    AttributeProto {
        name: Some(name.into()),
        g: Some(Box::new(graph)),
        r#type: Some(AttributeType::Graph as i32),
        ..AttributeProto::default()
    }
}

pub(crate) fn scalar(name: &str, dtype: i32, v: i64) -> TensorProto {
    let mut t = TensorProto { name: Some(name.into()), data_type: Some(dtype), ..TensorProto::default() };
    match dtype {
        7 => t.int64_data.push(v),
        _ => t.int32_data.push(v as i32),
    }
    t
}

pub(crate) fn ints(name: &str, values: &[i64]) -> AttributeProto {
    let kind = Some(AttributeType::Ints as i32);
    AttributeProto {
        name: Some(name.into()),
        ints: values.to_vec(),
        r#type: kind,
        ..AttributeProto::default()
    }
}
