//! ONNX types as IR types.

use crate::error::{OnnxError, quoted};
use crate::proto::{
    TensorShapeProto, TypeProto, tensor_shape_proto::dimension::Value as DimValue, type_proto,
};
use planish_ir::dim::{SymOrigin, Symbol};
use planish_ir::{DType, Dim, Symbols, TensorType, Type};
use std::sync::Arc;

/// The element type with ONNX number `code`.
pub(crate) fn dtype(code: i32) -> Result<DType, OnnxError> {
    if let Some(dtype) = DType::from_onnx(code) {
        return Ok(dtype);
    }
    match crate::tensor::data_type(code) {
        Ok(known) => {
            let text = format!("element type {} is not supported", known.as_str_name());
            Err(OnnxError::new("unsupported-dtype", text))
        }
        Err(e) => Err(e),
    }
}

/// The type that is declared for the value `name`. Unknown dims become symbols called `NAME.AXIS`; dims with a name
/// are the symbol of that name.
pub(crate) fn declared(ty: &TypeProto, name: &str, symbols: &mut Symbols) -> Result<Type, OnnxError> {
    match &ty.value {
        Some(type_proto::Value::TensorType(t)) => {
            let dtype = dtype(t.elem_type())?;
            let shape = t.shape.as_ref().map(|s| dims(s, name, symbols)).transpose()?;
            Ok(Type::Tensor(TensorType { dtype, shape, quant: None }))
        }
        _ => nested(ty, &mut |axis| Some(symbols.add(item_dim(name, axis)).into())),
    }
}

/// A dim of the items of a container: items may differ, so that it says nothing but that the axis exists.
fn item_dim(name: &str, axis: usize) -> Symbol {
    Symbol { name: Arc::from(format!("{name}.item.{axis}")), min: 0, max: None, origin: SymOrigin::Data }
}

fn dims(shape: &TensorShapeProto, name: &str, symbols: &mut Symbols) -> Result<Vec<Dim>, OnnxError> {
    let unknown = |axis: usize, symbols: &mut Symbols| {
        let name = Arc::from(format!("{name}.{axis}"));
        Dim::from(symbols.add(Symbol { name, min: 0, max: None, origin: SymOrigin::Input }))
    };
    let one = |(axis, dim): (usize, &crate::proto::tensor_shape_proto::Dimension)| match &dim.value {
        Some(DimValue::DimValue(n)) if *n >= 0 => Ok(Dim::from(*n)),
        Some(DimValue::DimValue(-1)) | None => Ok(unknown(axis, symbols)),
        Some(DimValue::DimValue(n)) => {
            let text = format!("axis {axis} of {} is declared as {n}", quoted(name));
            Err(OnnxError::new("onnx-bad-shape", text))
        }
        Some(DimValue::DimParam(p)) => match p.trim() {
            "" | "?" | "-1" => Ok(unknown(axis, symbols)),
            p => Ok(Dim::from(symbols.named(p))),
        },
    };
    shape.dim.iter().enumerate().map(one).collect()
}

/// A type without symbols: its tensors have dims only where all are numbers.
pub(crate) fn closed(ty: &TypeProto) -> Result<Type, OnnxError> {
    nested(ty, &mut |_| None)
}

/// A type inside a container, or a container. Its tensors have dims only where all are numbers or made by `unknown`.
fn nested(ty: &TypeProto, unknown: &mut dyn FnMut(usize) -> Option<Dim>) -> Result<Type, OnnxError> {
    let missing = || OnnxError::new("onnx-bad-type", "a type is incomplete");
    let unsupported = |what: &str| OnnxError::new("unsupported-type", format!("{what} are not supported"));
    match ty.value.as_ref().ok_or_else(missing)? {
        type_proto::Value::TensorType(t) => {
            let dtype = dtype(t.elem_type())?;
            let mut one = |(axis, d): (usize, &crate::proto::tensor_shape_proto::Dimension)| match d.value {
                Some(DimValue::DimValue(n)) if n >= 0 => Some(Dim::from(n)),
                _ => unknown(axis),
            };
            let shape = t.shape.as_ref().and_then(|s| s.dim.iter().enumerate().map(&mut one).collect());
            Ok(Type::Tensor(TensorType { dtype, shape, quant: None }))
        }
        type_proto::Value::SequenceType(s) => {
            Ok(Type::Sequence(Arc::new(nested(s.elem_type.as_deref().ok_or_else(missing)?, unknown)?)))
        }
        type_proto::Value::OptionalType(o) => {
            Ok(Type::Optional(Arc::new(nested(o.elem_type.as_deref().ok_or_else(missing)?, unknown)?)))
        }
        type_proto::Value::MapType(m) => {
            let value = nested(m.value_type.as_deref().ok_or_else(missing)?, unknown)?;
            Ok(Type::Map(dtype(m.key_type())?, Arc::new(value)))
        }
        type_proto::Value::SparseTensorType(_) => Err(unsupported("sparse tensors as inputs or outputs")),
        type_proto::Value::OpaqueType(_) => Err(unsupported("opaque types")),
    }
}
