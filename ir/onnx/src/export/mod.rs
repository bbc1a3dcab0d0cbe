//! Export: a graph of the IR as an ONNX model that other runtimes load.
//!
//! Every IR operation becomes one node of the default operator set or a short chain of them. Names of values are kept
//! where they are unique. Constants become initializers; large ones go to an external data file on request.

mod attr;
mod cx;
mod ops;
mod types;

use crate::proto::{GraphProto, ModelProto, OperatorSetIdProto};
use bytes::Bytes;
use cx::ExportCx;
use planish_ir::op::composites::without_composites;
use planish_ir::op::control::without_gates;
use planish_ir::op::recurrent::skim::without_skims;
use planish_ir::{Diag, Graph};
use prost::Message;

/// Options of an export.
#[derive(Clone, Debug)]
pub struct ExportOptions {
    /// Names of the outputs in graph order; empty: the names of the values.
    pub output_names: Vec<String>,
    /// Constants of at least this many bytes go to the external data file.
    pub external_from: Option<u64>,
    /// Name of the external data file, relative to the folder of the model.
    pub external_name: String,
    /// Metadata of the model.
    pub metadata: Vec<(String, String)>,
}

impl Default for ExportOptions {
    fn default() -> Self {
        ExportOptions {
            output_names: Vec::new(),
            external_from: None,
            external_name: "model.onnx.data".to_string(),
            metadata: Vec::new(),
        }
    }
}

/// Largest model that is written as one file, in bytes of its constants: a protobuf message ends at 2 GiB.
pub const LARGEST_INLINE: u64 = (2 << 30) - (64 << 20);

/// An exported model.
#[derive(Clone, Debug)]
pub struct Exported {
    /// The bytes of the model file.
    pub model: Vec<u8>,
    /// The parts of the external data file with their offsets, ascending and not overlapping; gaps are zeros.
    pub external: Vec<(u64, Bytes)>,
}

/// Exports `graph`. All operations that have no counterpart are reported together.
pub fn export(graph: &Graph, options: &ExportOptions) -> Result<Exported, Vec<Diag>> {
    let bytes: u64 =
        graph.constants().map(|(_, c)| (c.len() as u64).saturating_mul(c.dtype.size() as u64)).sum();
    let mut options = options.clone();
    if bytes > LARGEST_INLINE && options.external_from.is_none() {
        options.external_from = Some(1 << 10);
    }
    let (model, external) = export_model(graph, &options)?;
    Ok(Exported { model: model.encode_to_vec(), external })
}

/// Declarations of the named values of the root region, for models that are cut there.
pub fn declarations(graph: &Graph) -> Vec<(String, crate::proto::ValueInfoProto)> {
    let results = graph.nodes_in(graph.root()).flat_map(|n| graph.node(n).outputs.iter());
    let one = |v: &planish_ir::ValueId| {
        let name = graph.value(*v).name.as_deref()?;
        Some((name.to_string(), types::declare(name, graph.ty(*v), Some(&graph.symbols))))
    };
    results.filter_map(one).collect()
}

/// Exports `graph` as a message, with the parts of its external data file.
pub fn export_model(
    graph: &Graph,
    options: &ExportOptions,
) -> Result<(ModelProto, Vec<(u64, Bytes)>), Vec<Diag>> {
    let graph = &*without_composites(graph, true).map_err(|diag| vec![diag])?;
    let graph = &*without_skims(graph).map_err(|diag| vec![diag])?;
    let graph = &*without_gates(graph).map_err(|diag| vec![diag])?;
    let mut cx = ExportCx::new(graph, options);
    let body: GraphProto = cx.main();
    let done = cx.finish()?;
    let entry = |(key, value): &(String, String)| crate::proto::StringStringEntryProto {
        key: Some(key.clone()),
        value: Some(value.clone()),
    };
    let opset = |(domain, version): (&str, i64)| OperatorSetIdProto {
        domain: Some(domain.to_string()),
        version: Some(version),
    };
    let model = ModelProto {
        ir_version: Some(done.ir_version()),
        opset_import: done.opsets().map(opset).collect(),
        producer_name: Some("planish".to_string()),
        producer_version: Some(env!("CARGO_PKG_VERSION").to_string()),
        graph: Some(body),
        metadata_props: options.metadata.iter().map(entry).collect(),
        ..ModelProto::default()
    };
    Ok((model, done.external))
}

#[cfg(test)]
mod tests;
