//! Loading of models.

use crate::failure::{Failure, Result};
use crate::inputs::{Port, Signature};
use crate::shapes::Shapes;
use bytes::Bytes;
use planish_ir::{DType, Diag, Graph, SymId, Tensor, TensorType};
use planish_onnx::external::ExternalOptions;
use planish_onnx::import::{ModelInfo, import_model};
use planish_onnx::map::Access;
use planish_onnx::proto::{GraphProto, ModelProto, ValueInfoProto, decode_model};
use planish_onnx::{ImportOptions, Limits};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The options that protect against untrusted models.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Safety")]
pub struct SafetyArgs {
    /// The most memory a model may take, such as 500M or 4G
    #[arg(long, value_name = "BYTES", value_parser = crate::units::bytes)]
    pub max_memory: Option<u64>,
    /// The most loop iterations in one run
    #[arg(long, value_name = "N")]
    pub max_steps: Option<u64>,
    /// External data may lie anywhere below this folder, also behind symbolic links
    #[arg(long, value_name = "DIR")]
    pub external_root: Option<PathBuf>,
    /// Accept external data files with several hard links
    #[arg(long)]
    pub allow_hardlinks: bool,
    /// Read model files instead of mapping them
    #[arg(long)]
    pub no_mmap: bool,
}

/// How to load.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// Options of the importer.
    pub import: ImportOptions,
    /// Dims to fix.
    pub shapes: Shapes,
    /// Inputs that become constants, by position.
    pub constants: BTreeMap<usize, Tensor>,
}

impl LoadOptions {
    /// As the options of the command line say.
    pub fn new(safety: &SafetyArgs, shapes: Shapes) -> LoadOptions {
        let access = if safety.no_mmap { Access::Read } else { Access::Map };
        let external = ExternalOptions {
            root: safety.external_root.clone(),
            allow_hardlinks: safety.allow_hardlinks,
            access,
        };
        let mut limits = Limits::default();
        if let Some(max) = safety.max_memory {
            limits.decode_bytes = limits.decode_bytes.min(max);
            limits.tensor_bytes = limits.tensor_bytes.min(max);
        }
        LoadOptions { import: ImportOptions { limits, external }, shapes, constants: BTreeMap::new() }
    }
}

/// A file that has been decoded but not imported, so that it can be imported several times.
#[derive(Debug)]
pub struct ModelFile {
    /// Where it is.
    pub path: PathBuf,
    /// SHA-256 of the file, in hexadecimal.
    pub hash: String,
    /// Its size.
    pub bytes: u64,
    contents: Contents,
}

#[derive(Debug)]
enum Contents {
    Onnx(Box<ModelProto>),
    Text(Box<Graph>),
}

/// A loaded model.
#[derive(Debug)]
pub struct Model {
    /// Where it is.
    pub path: PathBuf,
    /// The graph.
    pub graph: Graph,
    /// What the file says about itself.
    pub info: ModelInfo,
    /// Findings that are no errors.
    pub warnings: Vec<Diag>,
    /// SHA-256 of the file, in hexadecimal.
    pub hash: String,
    /// Size of the file.
    pub bytes: u64,
}

/// Loads a model: ONNX, or the text format of the graph IR (`.pir`).
pub fn load(path: &Path, options: &LoadOptions) -> Result<Model> {
    open(path, options)?.import(options)
}

/// Reads and decodes a file.
pub fn open(path: &Path, options: &LoadOptions) -> Result<ModelFile> {
    let import = &options.import;
    let bytes = planish_onnx::map::open(path, import.external.access, import.limits.file_bytes)?;
    let contents = if path.extension().is_some_and(|e| e == "pir") {
        Contents::Text(Box::new(text(&bytes)?))
    } else {
        Contents::Onnx(Box::new(decode_model(&bytes, &import.limits)?))
    };
    let hash = Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect();
    Ok(ModelFile { path: path.to_owned(), hash, bytes: bytes.len() as u64, contents })
}

fn text(bytes: &Bytes) -> Result<Graph> {
    let text =
        std::str::from_utf8(bytes).map_err(|_| Failure::new("text-malformed", "the file is not UTF-8"))?;
    let graph = planish_ir::text::parse(text)?;
    let found = planish_ir::verify::verify(&graph);
    if found.is_empty() { Ok(graph) } else { Err(found.into()) }
}

impl ModelFile {
    /// Inputs and outputs as the file declares them; nothing else of the model is looked at. Outputs whose type is
    /// not declared count as tensors.
    pub fn signature(&self, options: &LoadOptions) -> Result<Signature> {
        let model = match &self.contents {
            Contents::Text(graph) => return Ok(Signature::of(graph)),
            Contents::Onnx(model) => model,
        };
        let Some(graph) = &model.graph else {
            return Err(Failure::new("onnx-no-graph", "the file holds no graph"));
        };
        let constants: Vec<&str> = graph.initializer.iter().map(|t| t.name()).collect();
        // A model without nodes, whose inputs are the values of interest.
        let bare = |values: Vec<ValueInfoProto>| ModelProto {
            graph: Some(GraphProto { name: graph.name.clone(), input: values, ..GraphProto::default() }),
            ir_version: model.ir_version,
            opset_import: model.opset_import.clone(),
            ..ModelProto::default()
        };
        let inputs = graph.input.iter().filter(|i| !constants.contains(&i.name())).cloned().collect();
        let mut inputs = bare(inputs);
        options.shapes.apply(&mut inputs)?;
        let mut signature = Signature::of(&import_model(&inputs, None, &options.import)?.graph);
        for output in &graph.output {
            let declared = import_model(&bare(vec![output.clone()]), None, &options.import);
            let ty = match declared {
                Ok(m) => m.graph.inputs().first().map(|v| m.graph.ty(*v).clone()),
                Err(_) => None,
            };
            let ty = ty.unwrap_or_else(|| TensorType::unranked(DType::F32).into());
            signature.outputs.push(Port { name: output.name().to_owned(), ty });
        }
        Ok(signature)
    }
    /// Imports the model with these dims and constants.
    pub fn import(&self, options: &LoadOptions) -> Result<Model> {
        let (mut graph, info, warnings) = match &self.contents {
            Contents::Text(graph) => {
                if options.shapes != Shapes::default() || !options.constants.is_empty() {
                    return Err(Failure::usage(
                        "shapes cannot be set on a text graph; edit its types instead",
                    ));
                }
                ((**graph).clone(), ModelInfo::default(), Vec::new())
            }
            Contents::Onnx(model) => {
                let plain = options.shapes == Shapes::default() && options.constants.is_empty();
                let imported = if plain {
                    import_model(model, Some(&self.path), &options.import)?
                } else {
                    let mut model = (**model).clone();
                    options.shapes.apply(&mut model)?;
                    constants(&mut model, &options.constants)?;
                    import_model(&model, Some(&self.path), &options.import)?
                };
                (imported.graph, imported.info, imported.warnings)
            }
        };
        for (name, min, max) in options.shapes.ranges() {
            for id in symbols(&graph, name)? {
                graph.symbols.set_range(id, min, Some(max));
            }
        }
        Ok(Model {
            path: self.path.clone(),
            graph,
            info,
            warnings,
            hash: self.hash.clone(),
            bytes: self.bytes,
        })
    }
}

/// The symbols that a name of `--set` stands for: one, or for `batch` all that are axis 0 of an input.
pub fn symbols(graph: &Graph, name: &str) -> Result<Vec<SymId>> {
    if let Some(id) = graph.symbols.find(name) {
        return Ok(vec![id]);
    }
    let mut ids = Vec::new();
    if name == "batch" {
        let first = |v: &planish_ir::ValueId| graph.dims(*v)?.first()?.as_symbol();
        ids.extend(graph.inputs().iter().filter_map(first));
        ids.sort();
        ids.dedup();
    }
    if ids.is_empty() {
        return Err(Failure::new("symbol-unknown", format!("the model has no symbol {name:?}")));
    }
    Ok(ids)
}

/// Gives inputs as initializers. The inputs stay listed, and the importer leaves such inputs out.
fn constants(model: &mut ModelProto, constants: &BTreeMap<usize, Tensor>) -> Result<()> {
    let Some(graph) = &mut model.graph else { return Ok(()) };
    let known: Vec<&str> = graph.initializer.iter().map(|t| t.name()).collect();
    let names: Vec<String> =
        graph.input.iter().map(|i| i.name()).filter(|n| !known.contains(n)).map(str::to_owned).collect();
    for (at, tensor) in constants {
        let name = names.get(*at).ok_or_else(|| Failure::new("input-mismatch", format!("no input #{at}")))?;
        graph.initializer.push(planish_onnx::value::from_tensor(tensor)?.to_proto(name));
    }
    Ok(())
}
