//! Import: an ONNX model as a graph of the IR.
//!
//! All differences between operator set versions, all attributes and all decompositions end here. Problems are
//! collected: a node that cannot be imported makes the values that depend on it unavailable, and import goes on with
//! the others, so that one run reports everything.
//!
//! To add an operator: write a handler in the family's file under `ops/` and list it in that file's `OPS`. A handler
//! reads operands and attributes from the [`OnnxNode`] and builds with the methods of [`ImportCx`].

mod build;
mod cx;
mod node;
mod ops;
mod order;
mod scope;
mod table;
mod types;

pub use cx::{Formal, ImportCx, SubGraph};
pub use node::OnnxNode;
pub use table::{Entry, entries};

use crate::error::OnnxError;
use crate::external::{ExternalData, ExternalOptions};
use crate::functions::Functions;
use crate::limits::Limits;
use crate::map;
use crate::proto::{ModelProto, decode_model};
use bytes::Bytes;
use planish_ir::{Diag, Graph, Severity};
use std::path::Path;

/// Options of an import.
#[derive(Clone, Debug, Default)]
pub struct ImportOptions {
    /// What the model may ask for.
    pub limits: Limits,
    /// Where external data may come from, and how files are read.
    pub external: ExternalOptions,
}

/// An imported model.
#[derive(Debug)]
pub struct Imported {
    /// The graph. Inputs that initializers give are constants, not inputs.
    pub graph: Graph,
    /// Names of the outputs in graph order; two outputs may be one value.
    pub output_names: Vec<String>,
    /// What the file says about itself.
    pub info: ModelInfo,
    /// Findings that are no errors.
    pub warnings: Vec<Diag>,
}

/// What a model file says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelInfo {
    /// Version of the file format.
    pub ir_version: i64,
    /// Tool that wrote the file, with its version.
    pub producer: String,
    /// Operator set versions by domain.
    pub opsets: Vec<(String, i64)>,
    /// How often each operator occurs in all graphs and function bodies, by domain and type.
    pub operators: Vec<(String, String, u64)>,
}

impl From<OnnxError> for Diag {
    fn from(e: OnnxError) -> Diag {
        Diag::error(e.id, e.message)
    }
}

/// Imports the model file at `path`.
pub fn import_file(path: &Path, options: &ImportOptions) -> Result<Imported, Vec<Diag>> {
    let one = |e: OnnxError| vec![Diag::from(e)];
    let bytes = map::open(path, options.external.access, options.limits.file_bytes).map_err(one)?;
    import_bytes(&bytes, Some(path), options)
}

/// Imports a model given as bytes. `path` says which folder external data is relative to.
pub fn import_bytes(
    bytes: &Bytes,
    path: Option<&Path>,
    options: &ImportOptions,
) -> Result<Imported, Vec<Diag>> {
    let one = |e: OnnxError| vec![Diag::from(e)];
    let model = decode_model(bytes, &options.limits).map_err(one)?;
    import_model(&model, path, options)
}

/// Imports a decoded model, which [`decode_model`] must have checked.
pub fn import_model(
    model: &ModelProto,
    path: Option<&Path>,
    options: &ImportOptions,
) -> Result<Imported, Vec<Diag>> {
    let one = |e: OnnxError| vec![Diag::from(e)];
    let functions = Functions::new(model, &options.limits).map_err(one)?;
    let mut external = ExternalData::new(path, &options.external, &options.limits).map_err(one)?;
    let mut left = LARGEST_SEARCH;
    let mut first = None;
    let mut run = |assumed: &[(String, bool)]| {
        left = left.checked_sub(1)?;
        let made = attempt(model, &functions, &mut external, options, assumed);
        if let Err((found, _)) = &made {
            first.get_or_insert_with(|| found.clone());
        }
        Some(made)
    };
    match search(&mut run, &mut Vec::new()) {
        Search::Found(imported) => Ok(*imported),
        Search::Impossible | Search::Unknown => Err(first.unwrap_or_default()),
    }
}

/// The most imports of one model.
const LARGEST_SEARCH: usize = 24;

/// What comes of some assumptions about branches.
enum Search {
    Found(Box<Imported>),
    /// A run in which the assumptions hold would fail.
    Impossible,
    Unknown,
}

type Attempt = Result<Imported, (Vec<Diag>, Vec<String>)>;

/// The branches of an `If` may give tensors of different ranks, and what follows may only make sense for one of them. So
/// each branch is assumed in turn. One is taken as known if the graph can be built with it, and cannot with the other for
/// reasons that would also stop a run; what is merely unsupported is no such reason.
fn search(
    run: &mut dyn FnMut(&[(String, bool)]) -> Option<Attempt>,
    assumed: &mut Vec<(String, bool)>,
) -> Search {
    let (found, open) = match run(assumed) {
        None => return Search::Unknown,
        Some(Ok(imported)) => return Search::Found(Box::new(imported)),
        Some(Err(failed)) => failed,
    };
    let Some(name) = open.into_iter().find(|name| !assumed.iter().any(|(n, _)| n == name)) else {
        let errors = found.iter().filter(|d| d.severity == Severity::Error);
        let stops =
            |d: &Diag| !d.is_unsupported() && !d.id.starts_with("limit") && !d.id.starts_with("internal");
        return if errors.clone().all(stops) { Search::Impossible } else { Search::Unknown };
    };
    let mut with = |taken: bool| {
        assumed.push((name.clone(), taken));
        let found = search(run, assumed);
        assumed.pop();
        found
    };
    match (with(true), with(false)) {
        (found @ Search::Found(_), Search::Impossible) | (Search::Impossible, found) => found,
        _ => Search::Unknown,
    }
}

/// One import. The error are the findings and the `If` nodes whose branches give different ranks.
fn attempt(
    model: &ModelProto,
    functions: &Functions<'_>,
    external: &mut ExternalData,
    options: &ImportOptions,
    assumed: &[(String, bool)],
) -> Attempt {
    let name = model.graph.as_ref().map_or("", |g| g.name());
    let mut graph = Graph::new(if name.is_empty() { "main" } else { name });
    let mut cx = ImportCx::new(&mut graph, model, functions, external, &options.limits);
    cx.assume(assumed);
    let output_names = cx.model();
    let (found, open) = cx.finish();
    if found.iter().any(|d| d.severity == Severity::Error) {
        return Err((found, open));
    }
    Ok(Imported { graph, output_names, info: info(model), warnings: found })
}

/// What `model` says about itself.
pub fn info(model: &ModelProto) -> ModelInfo {
    let mut operators = std::collections::BTreeMap::new();
    let main = model.graph.iter().map(|g| g.node.as_slice());
    let mut work: Vec<&[crate::proto::NodeProto]> =
        main.chain(model.functions.iter().map(|f| f.node.as_slice())).collect();
    while let Some(nodes) = work.pop() {
        for node in nodes {
            let key = (crate::proto::canonical_domain(node.domain()).to_string(), node.op_type().to_string());
            *operators.entry(key).or_insert(0) += 1;
            work.extend(node.attribute.iter().flat_map(crate::functions::graphs).map(|g| g.node.as_slice()));
        }
    }
    let opset = |o: &crate::proto::OperatorSetIdProto| {
        (crate::proto::canonical_domain(o.domain()).to_string(), o.version())
    };
    ModelInfo {
        ir_version: model.ir_version(),
        producer: format!("{} {}", model.producer_name(), model.producer_version()).trim().to_string(),
        opsets: model.opset_import.iter().map(opset).collect(),
        operators: operators.into_iter().map(|((domain, op), n)| (domain, op, n)).collect(),
    }
}

#[cfg(test)]
mod tests;
