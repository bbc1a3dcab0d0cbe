//! `planish inspect`: what is in a model.

use crate::cost;
use crate::exit::Exit;
use crate::failure::Result;
use crate::inputs::{Port, Signature};
use crate::load::{self, LoadOptions, Model, SafetyArgs};
use crate::shapes::{ShapeArgs, Shapes};
use crate::ui::{Ui, printable, schema};
use crate::units::show_bytes;
use planish_ir::dim::SymOrigin;
use planish_ir::{Constant, Dim, Encoding, Graph, Op};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;

/// Show inputs, outputs, operators, parameters, arithmetic, and what the weights look like
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The model
    pub model: PathBuf,
    #[command(flatten)]
    pub shapes: ShapeArgs,
    #[command(flatten)]
    pub safety: SafetyArgs,
    /// Form of the result on stdout
    #[arg(long, value_enum, default_value_t, help_heading = "Output")]
    pub format: Form,
}

/// Form of the result.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub enum Form {
    /// For people.
    #[default]
    Text,
    /// For scripts.
    Json,
    /// A drawing for Graphviz.
    Dot,
}

/// Runs the verb.
pub fn run(args: &Args, ui: &Ui) -> Result<Exit> {
    let options = LoadOptions::new(&args.safety, Shapes::parse(&args.shapes)?);
    let model = load::load(&args.model, &options)?;
    ui.diags(&model.warnings);
    match args.format {
        Form::Dot => ui.out(dot(&model.graph)),
        Form::Json => ui.json(&schema("planish.inspect", facts(&model))),
        Form::Text => ui.out(printable(&text(&facts(&model)))),
    }
    Ok(Exit::Ok)
}

/// Inputs or outputs for scripts: dims are numbers or the text of an expression.
pub fn ports(ports: &[Port], graph: &Graph) -> Vec<Value> {
    let dim = |d: &Dim| match d.as_const() {
        Some(v) => json!(v),
        None => json!(d.display(&graph.symbols).to_string()),
    };
    let one = |p: &Port| match p.ty.as_tensor() {
        Some(t) => {
            let shape = t.shape.as_ref().map(|s| s.iter().map(dim).collect::<Vec<_>>());
            json!({"name": p.name, "dtype": t.dtype.name(), "shape": shape})
        }
        None => json!({"name": p.name, "dtype": p.ty.display(&graph.symbols).to_string(), "shape": null}),
    };
    ports.iter().map(one).collect()
}

fn facts(model: &Model) -> Value {
    let g = &model.graph;
    let signature = Signature::of(g);
    let symbols: Vec<Value> = g
        .symbols
        .iter()
        .filter(|(_, s)| s.origin == SymOrigin::Input)
        .map(|(_, s)| json!({"name": *s.name, "min": s.min, "max": s.max}))
        .collect();
    let mut ops: BTreeMap<&str, u64> = BTreeMap::new();
    let (mut flops, mut flops_known) = (Dim::from(0i64), true);
    for n in g.all_nodes() {
        if matches!(g.node(n).op, Op::Const(_)) {
            continue;
        }
        *ops.entry(g.node(n).op.name()).or_insert(0) += 1;
        match cost::flops(g, n) {
            Some(f) => flops = flops.add(&f),
            None => flops_known = false,
        }
    }
    let mut onnx: BTreeMap<String, u64> = BTreeMap::new();
    for (domain, op, count) in &model.info.operators {
        let name = if domain.is_empty() { op.clone() } else { format!("{domain}::{op}") };
        *onnx.entry(name).or_insert(0) += count;
    }
    let opsets: BTreeMap<&str, i64> = model.info.opsets.iter().map(|(d, v)| (d.as_str(), *v)).collect();
    let mut weights = Weights::default();
    g.constants().for_each(|(_, c)| weights.add(c));
    let flops_value = match flops.as_const() {
        Some(v) => json!(v),
        None => json!(flops.display(&g.symbols).to_string()),
    };
    json!({
        "path": model.path.display().to_string(),
        "name": g.name,
        "model_hash": model.hash,
        "file_bytes": model.bytes,
        "ir_version": model.info.ir_version,
        "producer": model.info.producer,
        "opsets": opsets,
        "inputs": ports(&signature.inputs, g),
        "outputs": ports(&signature.outputs, g),
        "symbols": symbols,
        "states": g.states.iter().map(|s| json!([g.output_name(s.output as usize), g.input_name(s.input as usize)])).collect::<Vec<_>>(),
        "nodes": g.node_count(),
        "ops": ops,
        "onnx_ops": onnx,
        "flops": flops_value,
        "flops_complete": flops_known,
        "parameters": weights.parameters,
        "weight_bytes": weights.bytes,
        "weights": {
            "by_dtype": weights.by_dtype,
            "zeros": weights.zeros,
            "zero_fraction": fraction(weights.zeros, weights.parameters),
            "two_of_four": weights.two_of_four,
            "splat": weights.splats,
            "quantized_parameters": weights.quantized,
        },
    })
}

fn fraction(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// What the constants hold.
#[derive(Default)]
struct Weights {
    parameters: u64,
    bytes: u64,
    zeros: u64,
    quantized: u64,
    /// Tensors of which at most 2 of every 4 neighbours are not zero, and that are not mostly zero anyway.
    two_of_four: u64,
    splats: u64,
    by_dtype: BTreeMap<&'static str, u64>,
}

impl Weights {
    fn add(&mut self, c: &Constant) {
        let n = c.len() as u64;
        self.parameters += n;
        self.bytes += c.stored_bytes() as u64;
        *self.by_dtype.entry(c.dtype.name()).or_insert(0) += n;
        // Integers of at most 8 bits in a matrix are quantised weights; longer ones are indices and shapes.
        if c.dtype.bits() <= 8 && c.dtype.bits() > 0 && c.shape.len() >= 2 {
            self.quantized += n;
        }
        match &c.encoding {
            Encoding::Splat(b) => {
                self.splats += 1;
                if b.iter().all(|x| *x == 0) {
                    self.zeros += n;
                }
            }
            Encoding::Dense(t) if !t.bytes().is_empty() => {
                let (zeros, pattern) = zeros(t.bytes(), c.dtype.size(), c.dtype.is_float());
                self.zeros += zeros;
                if pattern && n >= 64 && c.shape.len() >= 2 && zeros * 4 < n * 3 {
                    self.two_of_four += 1;
                }
            }
            _ => self.zeros += n.saturating_sub(c.nonzeros() as u64),
        }
    }
}

/// How many elements are zero (of either sign), and whether at least 2 of every 4 neighbours are.
fn zeros(bytes: &[u8], size: usize, float: bool) -> (u64, bool) {
    let mut count = 0u64;
    let mut pattern = true;
    let mut run = 0u32;
    for (i, e) in bytes.chunks_exact(size).enumerate() {
        let (last, rest) = match e.split_last() {
            Some((l, r)) => (*l, r),
            None => continue,
        };
        let zero = rest.iter().all(|b| *b == 0) && (last & if float { 0x7f } else { 0xff }) == 0;
        count += u64::from(zero);
        run += u32::from(zero);
        if i % 4 == 3 {
            pattern &= run >= 2;
            run = 0;
        }
    }
    (count, pattern)
}

fn text(f: &Value) -> String {
    let mut s = String::new();
    let string = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
    let shape = |v: &Value| match v.as_array() {
        Some(dims) => format!("[{}]", dims.iter().map(string).collect::<Vec<_>>().join(",")),
        None => "[..]".to_owned(),
    };
    let number = |v: &Value| v.as_u64().unwrap_or(0);
    let _ = writeln!(
        s,
        "{}: {} ({})",
        string(&f["path"]),
        string(&f["name"]),
        show_bytes(number(&f["file_bytes"]))
    );
    if let Some(opsets) = f["opsets"].as_object().filter(|o| !o.is_empty()) {
        let all = opsets.iter().map(|(d, v)| format!("{} {v}", if d.is_empty() { "ai.onnx" } else { d }));
        let _ = writeln!(s, "opset     {}; {}", all.collect::<Vec<_>>().join(", "), string(&f["producer"]));
    }
    for (word, key) in [("input", "inputs"), ("output", "outputs")] {
        for p in f[key].as_array().into_iter().flatten() {
            let _ =
                writeln!(s, "{word:<9} {} {}{}", string(&p["name"]), string(&p["dtype"]), shape(&p["shape"]));
        }
    }
    for p in f["symbols"].as_array().into_iter().flatten() {
        let range = match (&p["min"], &p["max"]) {
            (min, Value::Null) => format!(">= {min}"),
            (min, max) => format!("{min}..{max}"),
        };
        let _ = writeln!(s, "symbol    {} {range}", string(&p["name"]));
    }
    let _ = writeln!(s, "nodes     {}", f["nodes"]);
    for (op, n) in f["ops"].as_object().into_iter().flatten() {
        let _ = writeln!(s, "  {n:>6} {op}");
    }
    let partial = if f["flops_complete"] == json!(true) { "" } else { " (some shapes are not known)" };
    let _ = writeln!(s, "flops     {}{partial}", string(&f["flops"]));
    let w = &f["weights"];
    let _ =
        writeln!(s, "weights   {} parameters, {}", f["parameters"], show_bytes(number(&f["weight_bytes"])));
    for (dtype, n) in w["by_dtype"].as_object().into_iter().flatten() {
        let _ = writeln!(s, "  {n:>12} {dtype}");
    }
    let _ = write!(
        s,
        "sparsity  {:.1}% zeros, {} tensors with 2 of 4\nquantised {} parameters of at most 8 bits",
        w["zero_fraction"].as_f64().unwrap_or(0.0) * 100.0,
        w["two_of_four"],
        w["quantized_parameters"]
    );
    s
}

/// A drawing of the root region; nodes with regions are drawn as one.
fn dot(g: &Graph) -> String {
    let quote = |t: &str| format!("\"{}\"", t.escape_default().to_string().replace("\\'", "'"));
    let mut s = String::from("digraph {\n  node [shape=box];\n");
    for (i, v) in g.inputs().iter().enumerate() {
        let label = format!("{} {}", g.input_name(i), g.ty(*v).display(&g.symbols));
        let _ = writeln!(s, "  {v} [shape=ellipse, label={}];", quote(&label));
    }
    for n in g.nodes_in(g.root()) {
        let node = g.node(n);
        if matches!(node.op, Op::Const(_)) {
            continue;
        }
        let label = format!("{} {}", node.op.name(), node.loc.label());
        let _ = writeln!(s, "  {n} [label={}];", quote(label.trim()));
        for v in node.inputs.iter().flatten() {
            edge(&mut s, g, *v, &n.to_string(), &quote);
        }
    }
    for (i, v) in g.outputs().iter().enumerate() {
        let _ = writeln!(s, "  out{i} [shape=ellipse, label={}];", quote(g.output_name(i)));
        edge(&mut s, g, *v, &format!("out{i}"), &quote);
    }
    s.push('}');
    s
}

fn edge(s: &mut String, g: &Graph, v: planish_ir::ValueId, to: &str, quote: &dyn Fn(&str) -> String) {
    if g.as_const(v).is_some() {
        return;
    }
    let from = g.def_node(v).map_or_else(|| v.to_string(), |n| n.to_string());
    let label = quote(&g.ty(v).display(&g.symbols).to_string());
    let _ = writeln!(s, "  {from} -> {to} [label={label}];");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_of_both_signs_count() {
        let bytes: Vec<u8> = [0.0f32, -0.0, 1.0, 2.0].iter().flat_map(|v| v.to_le_bytes()).collect();
        assert_eq!(zeros(&bytes, 4, true), (2, true));
        assert_eq!(zeros(&[0, 0x80, 1, 1], 1, false), (1, false));
    }
}
