//! `planish check`: every problem of a model at once.

use crate::cost;
use crate::engine::codegen;
use crate::exit::Exit;
use crate::failure::{Failure, Result};
use crate::load::{self, LoadOptions, SafetyArgs};
use crate::manifest::{self, Manifest};
use crate::shapes::{ShapeArgs, Shapes};
use crate::ui::{Format, Ui, diag_json, schema};
use planish_ir::{Diag, Graph, Severity};
use serde_json::json;
use std::path::{Path, PathBuf};

/// Say everything that is wrong with models, or that they are fine
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Models, folders to search for models, or manifests (.toml)
    #[arg(required = true)]
    pub models: Vec<PathBuf>,
    #[command(flatten)]
    pub shapes: ShapeArgs,
    #[command(flatten)]
    pub safety: SafetyArgs,
    /// Form of the result on stdout
    #[arg(long, value_enum, default_value_t, help_heading = "Output")]
    pub format: Format,
}

/// Runs the verb.
pub fn run(args: &Args, ui: &Ui) -> Result<Exit> {
    let options = LoadOptions::new(&args.safety, Shapes::parse(&args.shapes)?);
    let mut models = Vec::new();
    for path in &args.models {
        if manifest::is_manifest(path) {
            let manifest = Manifest::read(path)?;
            for entry in &manifest.models {
                let shapes = ShapeArgs { shape: entry.shape.clone(), set: entry.set.clone() };
                let shapes = Shapes::parse(&shapes)?;
                // Of several values, the first: what is unsupported is so for all.
                let one = shapes.variants().swap_remove(0).1;
                models.push((manifest.at(&entry.path), LoadOptions::new(&args.safety, one)));
            }
        } else if path.is_dir() {
            let found = search(path)?;
            if found.is_empty() {
                return Err(Failure::usage(format!("{}: no model (.onnx) in this folder", path.display())));
            }
            models.extend(found.into_iter().map(|p| (p, options.clone())));
        } else {
            models.push((path.clone(), options.clone()));
        }
    }
    let mut exit = Exit::Ok;
    let mut rows = Vec::new();
    let progress = ui.progress("models", models.len() as u64);
    for (path, options) in &models {
        let diags = one(path, options, args.safety.max_memory);
        let verdict = Exit::of_all(&diags);
        exit = exit.and(verdict);
        match args.format {
            Format::Json => rows.push(json!({
                "path": path.display().to_string(),
                "ok": verdict == Exit::Ok,
                "diagnostics": diags.iter().map(diag_json).collect::<Vec<_>>(),
            })),
            Format::Text => {
                let errors = diags.iter().filter(|d| d.severity == Severity::Error).count();
                let word = if errors == 0 { "ok".to_owned() } else { format!("{errors} problems") };
                ui.out(format!("{}: {word}", crate::ui::printable(&path.display().to_string())));
                for d in &diags {
                    ui.out(crate::ui::printable(&format!("  {}", d.to_string().replace('\n', "\n  "))));
                }
            }
        }
        progress.step();
    }
    progress.finish();
    if args.format == Format::Json {
        ui.json(&schema("planish.check", json!({"models": rows})));
    }
    Ok(exit)
}

/// The findings about one model. A panic of ours is one of them, so that the other models are still looked at.
fn one(path: &Path, options: &LoadOptions, max_memory: Option<u64>) -> Vec<Diag> {
    let checked =
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| findings(path, options, max_memory)));
    checked.unwrap_or_else(|_| {
        vec![Diag::error("internal-panic", "the check of this model failed: a bug of planish")]
    })
}

fn findings(path: &Path, options: &LoadOptions, max_memory: Option<u64>) -> Vec<Diag> {
    match load::load(path, options) {
        Err(failure) => failure.diags,
        Ok(model) => {
            let mut found = model.warnings;
            found.extend(planish_ir::verify::verify(&model.graph));
            found.extend(cost::too_large(&model.graph, max_memory.unwrap_or(u64::MAX)));
            if !found.iter().any(|d| d.severity == Severity::Error) {
                found.extend(no_kernel(&model.graph));
            }
            found.extend(cost::floor(&model.graph));
            found
        }
    }
}

/// What cannot be compiled. Passes may make it go away, so they have a say.
fn no_kernel(graph: &Graph) -> Vec<Diag> {
    if planish_codegen::check(graph).is_empty() {
        return Vec::new();
    }
    let mut graph = graph.clone();
    match codegen::optimise(&mut graph) {
        Ok(()) => planish_codegen::check(&graph),
        Err(failure) => failure.diags,
    }
}

/// The models below a folder, sorted. Links are not followed.
pub fn search(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut out = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(dir) = folders.pop() {
        let entries = std::fs::read_dir(&dir).map_err(|e| Failure::file(&dir, e))?;
        for entry in entries.flatten() {
            let Ok(kind) = entry.file_type() else { continue };
            let path = entry.path();
            if kind.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "onnx") {
                out.push(path);
            }
        }
    }
    out.sort();
    Ok(out)
}
