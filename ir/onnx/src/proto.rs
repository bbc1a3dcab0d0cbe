//! Protobuf types generated from `proto/onnx/onnx-ml.proto` and `proto/onnx/onnx-data.proto` (IR version 14), and
//! decoding of whole files.

use crate::error::OnnxError;
use crate::limits::Limits;
use crate::scan::{Root, scan};
use bytes::Bytes;
use prost::Message;

#[allow(clippy::all, unreachable_pub)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/onnx.rs"));
}

pub use generated::*;

/// Newest IR version that is understood.
pub const IR_VERSION: i64 = 14;
/// Newest version of the default operator set that is understood.
pub const OPSET_VERSION: i64 = 28;

/// Name of an operator domain in one spelling: `ai.onnx` and the empty string are the same domain.
pub fn canonical_domain(domain: &str) -> &str {
    if domain == "ai.onnx" { "" } else { domain }
}

/// Checks `bytes` against `limits` and decodes a model. The result refers to `bytes`, nothing large is copied.
pub fn decode_model(bytes: &Bytes, limits: &Limits) -> Result<ModelProto, OnnxError> {
    scan(Root::Model, bytes, limits)?;
    let model = decode::<ModelProto>(bytes)?;
    if model.graph.is_none() {
        return Err(OnnxError::new("onnx-no-graph", "the file holds no graph: it is not an ONNX model"));
    }
    let version = model.ir_version.unwrap_or(0);
    if !(1..=IR_VERSION).contains(&version) {
        let text = format!("IR version {version} is not supported (1 to {IR_VERSION} are)");
        return Err(OnnxError::new("onnx-ir-version", text));
    }
    Ok(model)
}

/// Checks `bytes` and decodes a tensor file (`.pb`).
pub fn decode_tensor(bytes: &Bytes, limits: &Limits) -> Result<TensorProto, OnnxError> {
    scan(Root::Tensor, bytes, limits)?;
    decode(bytes)
}

/// Checks `bytes` and decodes a sequence file (`.pb`).
pub fn decode_sequence(bytes: &Bytes, limits: &Limits) -> Result<SequenceProto, OnnxError> {
    scan(Root::Sequence, bytes, limits)?;
    decode(bytes)
}

/// Checks `bytes` and decodes a map file (`.pb`).
pub fn decode_map(bytes: &Bytes, limits: &Limits) -> Result<MapProto, OnnxError> {
    scan(Root::Map, bytes, limits)?;
    decode(bytes)
}

/// Checks `bytes` and decodes an optional file (`.pb`).
pub fn decode_optional(bytes: &Bytes, limits: &Limits) -> Result<OptionalProto, OnnxError> {
    scan(Root::Optional, bytes, limits)?;
    decode(bytes)
}

/// The bytes of a model file.
pub fn encode_model(model: &ModelProto) -> Vec<u8> {
    model.encode_to_vec()
}

fn decode<M: Message + Default>(bytes: &Bytes) -> Result<M, OnnxError> {
    M::decode(bytes.clone())
        .map_err(|e| OnnxError::new("onnx-decode", format!("not a valid protobuf message: {e}")))
}
