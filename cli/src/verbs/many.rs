//! `compile` and `bench` over the models of a manifest: one table, one report, one exit code. A model that fails is told of,
//! and the others go on.

use super::{bench, compile};
use crate::bench::run::{self, Options, Ready};
use crate::bench::thing::{Kind, Thing};
use crate::engine;
use crate::exit::Exit;
use crate::failure::{Failure, Result};
use crate::files::Writer;
use crate::inputs::InputArgs;
use crate::load::{self, LoadOptions, SafetyArgs};
use crate::manifest::{Entry, Manifest};
use crate::report::{self, Inputs, Report};
use crate::shapes::{ShapeArgs, Shapes};
use crate::ui::{Format, Ui, printable};
use crate::units::show_bytes;
use clap::Parser;
use std::path::{Path, PathBuf};

/// Reads arguments that were put together from a manifest.
#[derive(Debug, Parser)]
struct One {
    #[command(flatten)]
    args: compile::Args,
}

fn parsed(entry: &Entry, mut words: Vec<String>, output: &Path) -> Result<compile::Args> {
    words.insert(0, "compile".into());
    words.extend(["-o".to_owned(), output.display().to_string()]);
    let one = One::try_parse_from(words);
    let one = one.map_err(|e| {
        let text = e.to_string();
        let first = text.lines().next().unwrap_or("").trim_start_matches("error: ");
        Failure::new("manifest-malformed", format!("{}: {first}", entry.name))
    })?;
    Ok(one.args)
}

/// What a command does with one model.
fn each(
    manifest: &Manifest,
    ui: &Ui,
    what: &str,
    mut one: impl FnMut(&Entry) -> Result<Vec<report::Budget>>,
) -> (Exit, Vec<report::Budget>, Vec<(String, Exit)>) {
    let (mut exit, mut budgets, mut states) = (Exit::Ok, Vec::new(), Vec::new());
    let progress = ui.progress(what, manifest.models.len() as u64);
    for entry in &manifest.models {
        let state = match one(entry) {
            Ok(found) => {
                budgets.extend(found);
                Exit::Ok
            }
            Err(failure) => {
                let exit = failure.exit();
                ui.diags(&failure.about(&entry.name).diags);
                exit
            }
        };
        exit = exit.and(state);
        states.push((entry.name.clone(), state));
        progress.step();
    }
    progress.finish();
    (exit, budgets, states)
}

/// `planish compile planish.toml -o FOLDER`.
pub fn compile(args: &compile::Args, ui: &Ui) -> Result<Exit> {
    let manifest = Manifest::read(&args.model)?;
    let own = &args.passes;
    if !own.pass.is_empty() || own.passes.is_some() || own.recipe.is_some() || own.level.is_some() {
        return Err(Failure::usage("passes and recipes of a manifest's models stand in the manifest"));
    }
    if !args.shapes.set.is_empty() || !args.shapes.shape.is_empty() || !args.data.data.is_empty() {
        return Err(Failure::usage("shapes and data of a manifest's models stand in the manifest"));
    }
    let writer = Writer::new(args.force);
    if let Some(path) = &args.report {
        writer.check(path)?;
    }
    let mut report = Report::new(report::Command::Compile);
    let (mut exit, budgets, states) = each(&manifest, ui, "models", |entry| {
        let mut words = manifest.arguments(entry);
        for (option, values) in [("--emit", &entry.emit), ("--cpu", &entry.cpu)] {
            if !values.is_empty() {
                words.extend([option.to_owned(), values.join(",")]);
            }
        }
        if let Some(target) = &entry.target {
            words.extend(["--target".to_owned(), target.clone()]);
        }
        let mut one = parsed(entry, words, &args.output.join(&entry.name))?;
        one.force = args.force;
        one.no_check = args.no_check;
        one.jobs = args.jobs;
        one.cache_dir.clone_from(&args.cache_dir);
        one.safety = args.safety.clone();
        let mut model = compile::make(&one, true, ui)?.model;
        let mut budgets = Vec::new();
        if let Some(m) = &mut model {
            m.name.clone_from(&entry.name);
            budgets = entry.judge(m).map_err(Failure::usage)?;
        }
        report.models.extend(model);
        Ok(budgets)
    });
    exit = exit.and(bench::verdict(&budgets, false, ui));
    report.budgets = budgets;
    finish(report, exit, args.report.as_deref(), &writer, args.format, &states, ui)
}

/// `planish bench planish.toml`.
pub fn bench(args: &bench::Args, path: &Path, ui: &Ui) -> Result<Exit> {
    let manifest = Manifest::read(path)?;
    if !args.shapes.set.is_empty() || !args.shapes.shape.is_empty() {
        return Err(Failure::usage("shapes of a manifest's models stand in the manifest"));
    }
    if args.inputs.inputs.is_some() || !args.inputs.input.is_empty() || args.max_regression.is_some() {
        return Err(Failure::usage("inputs and budgets of a manifest's models stand in the manifest"));
    }
    let writer = Writer::new(args.force);
    if let Some(path) = &args.report {
        writer.check(path)?;
    }
    let mut report = Report::new(report::Command::Bench);
    let given = manifest.models.iter().all(|m| m.inputs.is_some());
    report.inputs = Some(if given { Inputs::Given } else { Inputs::Synthetic });
    let (mut exit, budgets, states) =
        each(&manifest, ui, "models", |entry| measure(&manifest, entry, args, &mut report, ui));
    exit = exit.and(bench::verdict(&budgets, args.inconclusive_ok, ui));
    report.budgets = budgets;
    finish(report, exit, args.report.as_deref(), &writer, args.format, &states, ui)
}

/// Compiles a model and its bases for this machine and measures it against each base.
fn measure(
    manifest: &Manifest,
    entry: &Entry,
    args: &bench::Args,
    report: &mut Report,
    ui: &Ui,
) -> Result<Vec<report::Budget>> {
    let work = tempfile::Builder::new().prefix("planish-bench-").tempdir();
    let work = work.map_err(|e| Failure::file(&std::env::temp_dir(), e))?;
    let shape = ShapeArgs { shape: entry.shape.clone(), set: entry.set.clone() };
    let variants = Shapes::parse(&shape)?.variants();
    let mut budgets = Vec::new();
    let threads: Vec<usize> = match (args.threads.as_slice(), entry.threads.as_slice()) {
        ([], []) => vec![engine::default_threads()],
        ([], list) | (list, _) => list.iter().map(|n| *n as usize).collect(),
    };
    let duration = args.duration.or(entry.time().map_err(Failure::usage)?).unwrap_or(bench::DURATION);
    for (i, (set, shapes)) in variants.into_iter().enumerate() {
        let at = |name: &str| work.path().join(format!("{name}{i}"));
        let one = Entry { set: single(&shapes), shape: entry.shape.clone(), ..entry.clone() };
        let mut made = build(manifest, &one, &at("model"), &args.safety, ui)?;
        let options = LoadOptions::new(&args.safety, shapes);
        let path = manifest.at(&entry.path);
        let model = load::load(&path, &options)?;
        let files =
            InputArgs { inputs: entry.inputs.as_ref().map(|p| manifest.at(p)), ..InputArgs::default() };
        let free = |sets: &[String]| {
            let sets: Vec<String> = sets.iter().map(|s| format!("{s}=1")).collect();
            format!("dims are free; set them in the manifest:\n  set = {sets:?}")
        };
        let inputs = bench::feed(&model.graph, &files, &free, &at("inputs"))?;
        if let Some(m) = &mut made {
            m.name = if set.is_empty() { entry.name.clone() } else { format!("{} {set}", entry.name) };
            budgets.extend(entry.judge(m).map_err(Failure::usage)?);
        }
        report.models.extend(made);
        let own = Ready {
            thing: Thing { label: entry.name.clone(), kind: Kind::Path(path.clone()) },
            program: Some(at("model")),
            inputs: Some(inputs.clone()),
        };
        let mut bases: Vec<Option<Ready>> = Vec::new();
        for (k, base) in entry.base.iter().enumerate() {
            let thing = |label: String, kind| Thing { label: format!("{}:{label}", entry.name), kind };
            let mut ready = Ready {
                thing: thing(base.clone(), Kind::Path(path.clone())),
                program: None,
                inputs: Some(inputs.clone()),
            };
            let out = at(&format!("base{k}-"));
            match base.as_str() {
                "ort" => ready.thing.kind = Kind::Ort(path.clone()),
                other => {
                    let (file, bare) = match other {
                        "dense" => (entry.path.clone(), true),
                        other => (PathBuf::from(other), false),
                    };
                    let file = manifest.at(&file);
                    if !bare {
                        ready.thing = Thing {
                            label: format!("{}:{}", entry.name, Thing::parse(other).label),
                            kind: Kind::Path(file.clone()),
                        };
                    }
                    if super::run::artifact(&file) {
                        ready.program =
                            Some(std::path::absolute(&file).map_err(|e| Failure::file(&file, e))?);
                    } else {
                        let plain = Entry {
                            path: std::path::absolute(&file).map_err(|e| Failure::file(&file, e))?,
                            recipe: None,
                            passes: None,
                            data: None,
                            ..one.clone()
                        };
                        build(manifest, &plain, &out, &args.safety, ui)?;
                        ready.program = Some(out);
                    }
                }
            }
            bases.push(Some(ready));
        }
        if bases.is_empty() {
            bases.push(None);
        }
        for n in &threads {
            for (k, base) in bases.iter().enumerate() {
                let things: Vec<Ready> = base.iter().cloned().chain([own.clone()]).collect();
                let options = Options {
                    duration,
                    interval: args.interval,
                    threads: *n,
                    set: set.clone(),
                    profile: args.profile && k == 0,
                    limits: entry.limits().map_err(Failure::usage)?,
                };
                let found = run::measure(&things, &options, ui)?;
                // The model itself is measured against every base, and stands once in the table.
                let first = |r: &report::Measured| k == 0 || r.name != entry.name;
                report.results.extend(found.results.into_iter().filter(first));
                report.pairs.extend(found.pairs);
                budgets.extend(found.budgets);
            }
        }
    }
    Ok(budgets)
}

/// The settings of symbols as `--set` takes them.
fn single(shapes: &Shapes) -> Vec<String> {
    use crate::shapes::Setting;
    let text = |(name, s): (&String, &Setting)| match s {
        Setting::One(v) => format!("{name}={v}"),
        Setting::Range(a, b) => format!("{name}={a}..{b}"),
        Setting::Many(v) | Setting::Among(v) => {
            let all: Vec<String> = v.iter().map(i64::to_string).collect();
            format!("{name}={}", all.join(","))
        }
    };
    shapes.set.iter().map(text).collect()
}

/// Compiles a model for this machine, without a check: that is `compile`'s.
fn build(
    manifest: &Manifest,
    entry: &Entry,
    output: &Path,
    safety: &SafetyArgs,
    ui: &Ui,
) -> Result<Option<report::Model>> {
    ui.detail(format!("compiling {}", entry.name));
    let words = manifest.arguments(entry);
    let mut one = parsed(entry, words, output)?;
    one.cpu = vec!["host".into()];
    one.no_check = true;
    one.safety = safety.clone();
    Ok(compile::make(&one, true, ui)?.model)
}

/// Writes the report, and prints it or the table.
fn finish(
    mut report: Report,
    exit: Exit,
    path: Option<&Path>,
    writer: &Writer,
    format: Format,
    states: &[(String, Exit)],
    ui: &Ui,
) -> Result<Exit> {
    report.exit = exit.code();
    if let Some(path) = path {
        writer.write(path, &report.file()?)?;
    }
    match format {
        Format::Json => ui.json(&report.json()?),
        Format::Text => {
            bench::show(&report, ui);
            table(&report, states).iter().for_each(|l| ui.out(printable(l)));
        }
    }
    Ok(exit)
}

/// One line for each model.
fn table(report: &Report, states: &[(String, Exit)]) -> Vec<String> {
    let mut out = vec![format!(
        "{:<24} {:>10} {:>10} {:>10} {:>9}  {:<12} budgets",
        "model", "artifact", "weights", "median ms", "accuracy", "check"
    )];
    for (name, state) in states {
        let model = report.models.iter().find(|m| m.name == *name || m.name.starts_with(&format!("{name} ")));
        let size = |n: Option<u64>| n.map_or_else(|| "-".to_owned(), show_bytes);
        let speed = report.results.iter().find(|r| r.name == *name).map(|r| r.median_ms);
        let accuracy = model.and_then(|m| m.accuracy.as_ref()).map(|a| format!("{:.2}%", 100.0 * a.after));
        let check = model.and_then(|m| m.check.as_ref()).map_or("-", |c| c.verdict.as_str());
        let about = |b: &&report::Budget| b.subject == *name || b.subject.starts_with(&format!("{name} "));
        let budgets: Vec<String> = report
            .budgets
            .iter()
            .filter(about)
            .map(|b| format!("{} {}", b.budget, b.outcome.words()))
            .collect();
        let last = if *state == Exit::Ok { budgets.join(", ") } else { format!("failed ({})", state.code()) };
        out.push(format!(
            "{name:<24} {:>10} {:>10} {:>10} {:>9}  {check:<12} {last}",
            size(model.and_then(|m| m.sizes.artifact)),
            size(model.and_then(|m| m.sizes.weights)),
            speed.map_or_else(|| "-".to_owned(), |v| format!("{v:.4}")),
            accuracy.unwrap_or_else(|| "-".into())
        ));
    }
    out
}
