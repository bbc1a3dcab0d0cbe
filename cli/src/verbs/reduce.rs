//! `planish reduce`: the smallest model for which a command still fails.

use crate::exit::Exit;
use crate::failure::{Failure, Result};
use crate::files::Writer;
use crate::load::{LoadOptions, SafetyArgs};
use crate::shapes::Shapes;
use crate::ui::Ui;
use planish_onnx::proto::{GraphProto, ModelProto, ValueInfoProto, decode_model, encode_model};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Find the smallest model for which a command still fails
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The model
    pub model: PathBuf,
    /// A shell command that fails (exit code not 0) on the model; `{}` stands for the file, else it is appended
    #[arg(long, value_name = "COMMAND")]
    pub check: String,
    /// The reduced model
    #[arg(short, long, value_name = "SMALL.onnx")]
    pub output: PathBuf,
    /// The most runs of the command
    #[arg(long, value_name = "N", default_value_t = 500)]
    pub runs: u32,
    /// Replace files that planish did not write
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub safety: SafetyArgs,
}

/// Runs the verb.
pub fn run(args: &Args, ui: &Ui) -> Result<Exit> {
    let mut writer = Writer::new(args.force);
    writer.protect(&args.model);
    writer.check(&args.output)?;
    let load = LoadOptions::new(&args.safety, Shapes::default());
    let import = &load.import;
    let bytes = planish_onnx::map::open(&args.model, import.external.access, import.limits.file_bytes)?;
    let model = decode_model(&bytes, &import.limits)?;
    let folder = crate::files::parent(&args.model);
    let mut oracle = Oracle { command: &args.check, folder, left: args.runs };
    if !oracle.fails(&model)? {
        return Err(Failure::usage("the command does not fail on the model as it is"));
    }
    // Types of values between nodes come from the importer, as far as it gets.
    let types = types(&args.model, &model, &load);
    let before = nodes(&model);
    let progress = ui.progress("steps", 0);
    let small = reduce(model, &types, &mut |m| {
        progress.step();
        oracle.fails(m)
    })?;
    progress.finish();
    writer.write(&args.output, &encode_model(&small))?;
    ui.out(format!(
        "{}: {before} -> {} nodes, {} runs",
        args.output.display(),
        nodes(&small),
        args.runs - oracle.left
    ));
    Ok(Exit::Ok)
}

fn nodes(model: &ModelProto) -> usize {
    model.graph.as_ref().map_or(0, |g| g.node.len())
}

struct Oracle<'a> {
    command: &'a str,
    /// Candidates lie beside the model, where its external data are.
    folder: &'a Path,
    left: u32,
}

impl Oracle<'_> {
    /// Whether the command fails on a model; `false` once the runs are used up, so that nothing more is tried.
    fn fails(&mut self, model: &ModelProto) -> Result<bool> {
        let Some(left) = self.left.checked_sub(1) else { return Ok(false) };
        self.left = left;
        let file =
            tempfile::Builder::new().prefix(".planish-reduce-").suffix(".onnx").tempfile_in(self.folder);
        let file = file.map_err(|e| Failure::file(self.folder, e))?;
        std::fs::write(file.path(), encode_model(model)).map_err(|e| Failure::file(file.path(), e))?;
        let name = quoted(&file.path().display().to_string());
        let line = if self.command.contains("{}") {
            self.command.replace("{}", &name)
        } else {
            format!("{} {name}", self.command)
        };
        let status = Command::new("sh")
            .arg("-c")
            .arg(line)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .map_err(|e| Failure::new("file-io", format!("sh: {e}")))?;
        Ok(!status.success())
    }
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// The declarations of values: those of the file, and those that the importer infers.
fn types(path: &Path, model: &ModelProto, load: &LoadOptions) -> BTreeMap<String, ValueInfoProto> {
    let mut out = BTreeMap::new();
    if let Ok(imported) = planish_onnx::import::import_model(model, Some(path), &load.import) {
        for (name, info) in planish_onnx::export::declarations(&imported.graph) {
            out.insert(name, info);
        }
    }
    let declared = model.graph.iter().flat_map(|g| g.value_info.iter().chain(&g.output));
    out.extend(declared.filter(|v| v.r#type.is_some()).map(|v| (v.name().to_owned(), v.clone())));
    out
}

/// Reduces a model as long as `fails` says yes: outputs and nodes are dropped, values become inputs.
fn reduce(
    mut model: ModelProto,
    types: &BTreeMap<String, ValueInfoProto>,
    fails: &mut dyn FnMut(&ModelProto) -> Result<bool>,
) -> Result<ModelProto> {
    loop {
        let before = size(&model);
        // Single outputs, then earlier values as the only output.
        let outputs: Vec<ValueInfoProto> = model.graph.iter().flat_map(|g| g.output.clone()).collect();
        if outputs.len() > 1 {
            for output in &outputs {
                if attempt(&mut model, fails, |g| g.output = vec![output.clone()])? {
                    break;
                }
            }
        }
        let inner: Vec<ValueInfoProto> = model
            .graph
            .iter()
            .flat_map(|g| &g.node)
            .flat_map(|n| &n.output)
            .filter_map(|name| types.get(name).cloned())
            .collect();
        // The first value that still fails cuts off most; a binary search would need failures to be monotonic.
        for value in &inner {
            let already =
                model.graph.as_ref().is_some_and(|g| g.output.iter().any(|o| o.name() == value.name()));
            if !already && attempt(&mut model, fails, |g| g.output = vec![value.clone()])? {
                break;
            }
        }
        // Values as inputs, in big parts first: what made them goes.
        let mut part = inner.len().div_ceil(2);
        while part > 0 {
            for chunk in inner.chunks(part) {
                attempt(&mut model, fails, |g| {
                    for value in chunk {
                        let name = value.name();
                        let made = g.node.iter().any(|n| n.output.iter().any(|o| o == name));
                        if made && !g.output.iter().any(|o| o.name() == name) {
                            for n in &mut g.node {
                                n.output.iter_mut().filter(|o| *o == name).for_each(String::clear);
                            }
                            g.input.push(value.clone());
                        }
                    }
                })?;
            }
            part /= 2;
        }
        if size(&model) >= before {
            return Ok(model);
        }
    }
}

/// What gets smaller: nodes, outputs, then everything else.
fn size(model: &ModelProto) -> (usize, usize, usize) {
    let Some(g) = &model.graph else { return (0, 0, 0) };
    (g.node.len(), g.output.len(), encode_model(model).len())
}

/// Applies a change and what follows from it; keeps it if the model gets smaller and the command still fails.
fn attempt(
    model: &mut ModelProto,
    fails: &mut dyn FnMut(&ModelProto) -> Result<bool>,
    change: impl FnOnce(&mut GraphProto),
) -> Result<bool> {
    let mut next = model.clone();
    let Some(g) = &mut next.graph else { return Ok(false) };
    change(g);
    sweep(g);
    if size(&next) < size(model) && fails(&next)? {
        *model = next;
        return Ok(true);
    }
    Ok(false)
}

/// Drops nodes, initializers and inputs that no output needs.
fn sweep(g: &mut GraphProto) {
    let mut needed: BTreeSet<String> = g.output.iter().map(|o| o.name().to_owned()).collect();
    let mut keep = vec![false; g.node.len()];
    // Nodes need not be sorted, so this goes on until nothing is added.
    loop {
        let mut added = false;
        for (at, node) in g.node.iter().enumerate() {
            if !keep[at] && node.output.iter().any(|o| !o.is_empty() && needed.contains(o)) {
                keep[at] = true;
                added = true;
                names(node, &mut needed);
            }
        }
        if !added {
            break;
        }
    }
    let mut at = 0;
    g.node.retain(|_| {
        at += 1;
        keep[at - 1]
    });
    g.initializer.retain(|t| needed.contains(t.name()));
    g.input.retain(|i| needed.contains(i.name()));
    g.value_info.clear();
}

/// The names that a node reads, subgraphs included.
fn names(node: &planish_onnx::proto::NodeProto, out: &mut BTreeSet<String>) {
    out.extend(node.input.iter().filter(|n| !n.is_empty()).cloned());
    for attribute in &node.attribute {
        for graph in attribute.g.iter().map(|g| &**g).chain(&attribute.graphs) {
            out.extend(graph.output.iter().map(|o| o.name().to_owned()));
            graph.node.iter().for_each(|n| names(n, out));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use planish_onnx::proto::NodeProto;

    fn value(name: &str) -> ValueInfoProto {
        ValueInfoProto { name: Some(name.into()), r#type: Some(Default::default()), ..Default::default() }
    }

    #[test]
    fn one_bad_node_remains_of_a_chain() {
        let node = |i: usize, op: &str| NodeProto {
            op_type: Some(op.into()),
            input: vec![format!("v{i}")],
            output: vec![format!("v{}", i + 1)],
            ..Default::default()
        };
        let ops = ["Relu", "Abs", "Neg", "Bad", "Exp", "Log"];
        let graph = GraphProto {
            node: ops.iter().enumerate().map(|(i, op)| node(i, op)).collect(),
            input: vec![value("v0")],
            output: vec![value("v6")],
            ..Default::default()
        };
        let types = (0..7).map(|i| (format!("v{i}"), value(&format!("v{i}")))).collect();
        let model = ModelProto { graph: Some(graph), ..Default::default() };
        let mut bad = |m: &ModelProto| Ok(m.graph.iter().flat_map(|g| &g.node).any(|n| n.op_type() == "Bad"));
        let small = reduce(model, &types, &mut bad).unwrap_or_else(|f| panic!("{}", f.message()));
        let g = small.graph.unwrap_or_default();
        assert_eq!(g.node.iter().map(|n| n.op_type()).collect::<Vec<_>>(), ["Bad"]);
        assert_eq!((g.input[0].name(), g.output[0].name()), ("v3", "v4"));
    }
}
