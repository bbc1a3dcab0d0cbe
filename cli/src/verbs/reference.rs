//! `planish ops`, `targets` and `explain`: documentation from the code.

use crate::diagnostics;
use crate::engine;
use crate::exit::Exit;
use crate::failure::{Failure, Result};
use crate::ui::{Format, Ui, schema};
use planish_codegen::kernel::TargetSpec;
use planish_onnx::import::entries;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// List the operators that can be imported and the operations of the graph IR
#[derive(Debug, clap::Args)]
pub struct OpsArgs {
    /// Form of the list on stdout
    #[arg(long, value_enum, default_value_t, help_heading = "Output")]
    pub format: Format,
}

/// List targets, processor variants and engines
#[derive(Debug, clap::Args)]
pub struct TargetsArgs {
    /// Form of the list on stdout
    #[arg(long, value_enum, default_value_t, help_heading = "Output")]
    pub format: Format,
}

/// Explain a diagnostic, or list all of them
#[derive(Debug, clap::Args)]
pub struct ExplainArgs {
    /// The id in brackets of a message
    pub id: Option<String>,
    /// Form of the text on stdout
    #[arg(long, value_enum, default_value_t, help_heading = "Output")]
    pub format: Format,
}

/// List the passes, or show one
#[derive(Debug, clap::Args)]
pub struct PassesArgs {
    /// The pass
    pub name: Option<String>,
    /// Form of the text on stdout
    #[arg(long, value_enum, default_value_t, help_heading = "Output")]
    pub format: Format,
}

/// `planish passes`.
pub fn passes(args: &PassesArgs, ui: &Ui) -> Result<Exit> {
    let chosen: Vec<_> = match &args.name {
        None => planish_passes::registry::all().iter().map(|(m, _)| *m).collect(),
        Some(name) => vec![planish_passes::PassSpec::plain(name).meta()?],
    };
    if args.format == Format::Json {
        let rows: Vec<Value> = chosen
            .iter()
            .map(|m| {
                let options: Vec<Value> = m
                    .options
                    .iter()
                    .map(|o| json!({"name": o.name, "default": o.default, "doc": o.doc}))
                    .collect();
                json!({"name": m.name, "kind": m.kind.name(), "doc": text_of(m.doc), "options": options})
            })
            .collect();
        ui.json(&schema("planish.passes", json!({"passes": rows})));
        return Ok(Exit::Ok);
    }
    for m in chosen {
        ui.out(format!("{} ({})", m.name, m.kind.name()));
        text_of(m.doc).lines().for_each(|l| ui.out(format!("    {l}").trim_end()));
        for o in m.options {
            ui.out(format!("    {}={}  {}", o.name, o.default, o.doc));
        }
        ui.out("");
    }
    Ok(Exit::Ok)
}

fn text_of(doc: &[&str]) -> String {
    doc.iter().map(|l| l.strip_prefix(' ').unwrap_or(l)).collect::<Vec<_>>().join("\n").trim().to_owned()
}

/// `planish ops`.
pub fn ops(args: &OpsArgs, ui: &Ui) -> Result<Exit> {
    let mut domains: BTreeMap<&str, Vec<(&str, i64)>> = BTreeMap::new();
    for e in entries() {
        domains.entry(e.domain).or_default().push((e.op_type, e.since));
    }
    let operations = planish_ir::Op::table();
    if args.format == Format::Json {
        let onnx: Vec<Value> = domains
            .iter()
            .flat_map(|(d, ops)| {
                ops.iter().map(move |(op, since)| json!({"domain": d, "op": op, "since": since}))
            })
            .collect();
        let ir: Vec<Value> =
            operations.iter().map(|(n, doc)| json!({"name": n, "doc": joined(doc)})).collect();
        let library: Vec<&str> = planish_rt::library::FUNCTIONS.iter().map(|(_, n)| *n).collect();
        ui.json(&schema("planish.ops", json!({"onnx": onnx, "operations": ir, "library": library})));
        return Ok(Exit::Ok);
    }
    for (domain, ops) in &domains {
        let shown = if domain.is_empty() { "ai.onnx" } else { domain };
        ui.out(format!("{shown}: {} operators", ops.len()));
        let names: Vec<String> = ops
            .iter()
            .map(|(op, since)| if *since > 1 { format!("{op} (from {since})") } else { (*op).to_owned() })
            .collect();
        wrapped(&names).iter().for_each(|l| ui.out(format!("  {l}")));
    }
    ui.out(format!("\ngraph IR: {} operations", operations.len()));
    for (name, doc) in &operations {
        ui.out(format!("  {name}\n      {}", joined(doc)));
    }
    ui.out(format!(
        "\nruntime library: {} functions, for what is no kernel; on a GPU there are none",
        planish_rt::library::FUNCTIONS.len()
    ));
    let names: Vec<String> = planish_rt::library::FUNCTIONS.iter().map(|(_, n)| (*n).to_owned()).collect();
    wrapped(&names).iter().for_each(|l| ui.out(format!("  {l}")));
    Ok(Exit::Ok)
}

fn joined(doc: &[&str]) -> String {
    doc.iter().map(|l| l.trim()).collect::<Vec<_>>().join(" ").trim().to_owned()
}

/// Words in lines of at most 100 characters.
fn wrapped(words: &[String]) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for w in words {
        match lines.last_mut() {
            Some(line) if line.len() + w.len() < 98 => {
                line.push_str(", ");
                line.push_str(w);
            }
            _ => lines.push(w.clone()),
        }
    }
    lines
}

/// `planish targets`.
pub fn targets(args: &TargetsArgs, ui: &Ui) -> Result<Exit> {
    let host = TargetSpec::host();
    let all = TargetSpec::all_cpu();
    let gpus: Vec<String> = TargetSpec::all_gpu().iter().map(|t| format!("nvptx:{}", t.name)).collect();
    if args.format == Format::Json {
        let rows: Vec<Value> = all
            .iter()
            .map(|t| json!({"name": t.name, "lanes_f32": t.lanes_f32, "registers": t.registers, "runs_here": t.runs_here()}))
            .collect();
        let engines: Vec<Value> =
            engine::ENGINES.iter().map(|(n, doc)| json!({"name": n, "doc": doc})).collect();
        ui.json(&schema(
            "planish.targets",
            json!({"cpu": rows, "host": host.map(|h| h.name), "gpu": gpus, "engines": engines}),
        ));
        return Ok(Exit::Ok);
    }
    ui.out("code variants (--cpu):");
    for t in &all {
        let here = if t.runs_here() { "  runs here" } else { "" };
        ui.out(format!(
            "  {:<18} {:>2} x f32 a vector, {} registers{here}",
            t.name, t.lanes_f32, t.registers
        ));
    }
    ui.out(format!("host: {}", host.map_or_else(|| "none of them".to_owned(), |h| h.name)));
    ui.out(format!("GPUs (--target, for --emit exe,ptx,cubin): {}", gpus.join(", ")));
    ui.out("engines (--engine):");
    engine::ENGINES.iter().for_each(|(n, doc)| ui.out(format!("  {n:<18} {doc}")));
    Ok(Exit::Ok)
}

/// `planish explain`.
pub fn explain(args: &ExplainArgs, ui: &Ui) -> Result<Exit> {
    let prune: Vec<(&str, String)> = planish_passes::training::Prune::OPTIONS
        .iter()
        .map(|o| (o.name, format!("{} (default {:?})", o.doc, o.default)))
        .chain([(
            "reference",
            "the trained model that the schedule `threshold` takes its weights from".to_owned(),
        )])
        .collect();
    let chosen: Vec<_> = match &args.id {
        None => diagnostics::all().collect(),
        Some(id) if id == "prune" => prune.iter().map(|(id, doc)| (*id, doc.as_str())).collect(),
        Some(id) => match diagnostics::find(id) {
            Some(doc) => vec![(id.as_str(), doc)],
            None => {
                let near: Vec<&str> = diagnostics::all()
                    .map(|(other, _)| other)
                    .filter(|other| other.split('-').any(|w| w.len() > 3 && id.split('-').any(|v| v == w)))
                    .take(8)
                    .collect();
                let hint =
                    if near.is_empty() { String::new() } else { format!("; near it: {}", near.join(", ")) };
                return Err(Failure::usage(format!("no diagnostic is called {id:?}{hint}")));
            }
        },
    };
    if args.format == Format::Json {
        let rows: Vec<Value> = chosen.iter().map(|(id, doc)| json!({"id": id, "doc": doc})).collect();
        ui.json(&schema("planish.explain", json!({"diagnostics": rows})));
    } else {
        for (id, doc) in chosen {
            ui.out(format!("{id}\n    {doc}"));
        }
    }
    Ok(Exit::Ok)
}
