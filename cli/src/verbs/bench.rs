//! `planish bench`: alternating, paired measurement.

use crate::bench::thing::{Kind, Ort, Runner, Thing};
use crate::bench::{self, Budget, Turn, profile, stats};
use crate::engine::cache::Cache;
use crate::engine::codegen::{self, BuildOptions};
use crate::exit::Exit;
use crate::failure::{Failure, Result};
use crate::files::Writer;
use crate::inputs::{self, InputArgs, Signature};
use crate::io::npy;
use crate::load::{self, LoadOptions, SafetyArgs};
use crate::shapes::{ShapeArgs, Shapes};
use crate::ui::{Format, Ui, schema};
use crate::{emit, engine, synthetic};
use planish_codegen::kernel::TargetSpec;
use planish_ir::{Diag, Graph, Value as Val};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Measure models, programs, ONNX Runtime and commands in turns
#[derive(Debug, clap::Args)]
pub struct Args {
    /// [LABEL=]PATH of a model or program, ort:PATH (ONNX Runtime on that model), cmd:COMMAND; the first is the base
    #[arg(required = true, value_name = "THING")]
    pub things: Vec<String>,
    #[command(flatten)]
    pub inputs: InputArgs,
    /// Numbers of threads, with commas between
    #[arg(long, value_delimiter = ',', value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub threads: Vec<u32>,
    /// Time for each thing
    #[arg(long, default_value = "5s", value_parser = crate::units::duration)]
    pub duration: Duration,
    /// Stop early when every ratio is known to this width
    #[arg(long, value_parser = crate::units::percent, value_name = "1%")]
    pub interval: Option<f64>,
    /// Fail with 1 when another thing is slower than the base by more
    #[arg(long, value_parser = crate::units::percent, value_name = "3%")]
    pub max_regression: Option<f64>,
    /// A budget that is not decided is a warning
    #[arg(long)]
    pub inconclusive_ok: bool,
    /// Write the report
    #[arg(long, value_name = "R.json")]
    pub report: Option<PathBuf>,
    /// Also the time of every kernel, against what this machine can do at most
    #[arg(long)]
    pub profile: bool,
    /// Replace files that planish did not write
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub shapes: ShapeArgs,
    #[command(flatten)]
    pub safety: SafetyArgs,
    /// Form of the report on stdout
    #[arg(long, value_enum, default_value_t, help_heading = "Output")]
    pub format: Format,
}

/// Runs the verb.
pub fn run(args: &Args, ui: &Ui) -> Result<Exit> {
    let writer = Writer::new(args.force);
    if let Some(path) = &args.report {
        writer.check(path)?;
    }
    let things: Vec<Thing> = args.things.iter().map(|t| Thing::parse(t)).collect();
    let shapes = Shapes::parse(&args.shapes)?;
    let threads: Vec<usize> = match args.threads.as_slice() {
        [] => vec![engine::default_threads()],
        list => list.iter().map(|n| *n as usize).collect(),
    };
    let (mut results, mut pairs) = (Vec::new(), Vec::new());
    let mut exit = Exit::Ok;
    for (set, shapes) in shapes.variants() {
        let work = tempfile::Builder::new().prefix("planish-bench-").tempdir();
        let work = work.map_err(|e| Failure::file(&std::env::temp_dir(), e))?;
        let prepared = prepare(&things, args, shapes, work.path(), ui)?;
        for n in &threads {
            let mut runners = runners(&things, &prepared, *n, args.profile)?;
            let progress = ui.progress("rounds", 7);
            let budget = Budget { duration: args.duration, interval: args.interval };
            let turns = bench::alternate(&mut runners, budget, &mut || progress.step())?;
            progress.finish();
            for (thing, turns) in things.iter().zip(&turns) {
                if let Some(all) = bench::merge(turns) {
                    results.push(result(thing, &set, *n, &all, turns.len()));
                }
            }
            for (thing, other) in things.iter().zip(&turns).skip(1) {
                let r = stats::ratio(&bench::medians(&turns[0]), &bench::medians(other));
                let judged = args.max_regression.map(|most| r.regressed(most));
                match judged {
                    Some(Some(true)) => {
                        exit = exit.and(Exit::Budget);
                        ui.diag(&Diag::error("budget", format!("{} is slower than allowed", thing.label)));
                    }
                    Some(None) => {
                        let text = format!("{}: the interval does not decide the budget", thing.label);
                        if args.inconclusive_ok {
                            ui.diag(&Diag::warning("inconclusive", text));
                        } else {
                            exit = exit.and(Exit::Inconclusive);
                            ui.diag(&Diag::error("inconclusive", text));
                        }
                    }
                    _ => {}
                }
                pairs.push(json!({
                    "base": things[0].label, "other": thing.label, "threads": n, "set": set,
                    "ratio": r.ratio, "low": r.low, "high": r.high, "confidence": 0.95, "verdict": r.verdict(),
                }));
            }
        }
    }
    let report = report(args, &results, &pairs);
    if let Some(path) = &args.report {
        writer.write(path, format!("{report:#}\n").as_bytes())?;
    }
    match args.format {
        Format::Json => ui.json(&report),
        Format::Text => show(&results, &pairs, ui),
    }
    Ok(exit)
}

/// What the things have in common: programs for models, and one folder of inputs for all.
struct Prepared {
    /// For each thing the program to start, if it is one.
    programs: Vec<Option<PathBuf>>,
    inputs: Option<PathBuf>,
}

fn prepare(things: &[Thing], args: &Args, shapes: Shapes, work: &Path, ui: &Ui) -> Result<Prepared> {
    let load = LoadOptions::new(&args.safety, shapes);
    let mut programs = Vec::new();
    let mut folder = None;
    for (i, thing) in things.iter().enumerate() {
        let model = match &thing.kind {
            Kind::Path(path) if super::run::artifact(path) => {
                let path = std::path::absolute(path).map_err(|e| Failure::file(path, e))?;
                programs.push(Some(path));
                continue;
            }
            Kind::Command(_) => {
                programs.push(None);
                continue;
            }
            Kind::Path(path) | Kind::Ort(path) => load::load(path, &load)?,
        };
        if folder.is_none() {
            folder = Some(feed(&model.graph, args, &work.join("inputs"))?);
        }
        programs.push(match &thing.kind {
            Kind::Ort(_) => None,
            _ => {
                ui.detail(format!("compiling {}", thing.label));
                Some(program(model.graph, &work.join(format!("program{i}")))?)
            }
        });
    }
    Ok(Prepared { programs, inputs: folder.or_else(|| args.inputs.inputs.clone()) })
}

/// The program of a model for this machine.
fn program(mut graph: Graph, path: &Path) -> Result<PathBuf> {
    let target = TargetSpec::host().ok_or_else(|| {
        Failure::new("machine-cpu", "this processor has none of the instruction sets that are compiled for")
    })?;
    codegen::optimise(&mut graph)?;
    let options =
        BuildOptions { targets: vec![target], cache: Cache::from_option(None), ..BuildOptions::default() };
    let built = codegen::build(&graph, &options)?;
    emit::executable(&built, false, path, &Writer::new(true), |_| Ok(()))?;
    Ok(path.to_owned())
}

/// Writes the first sample of the inputs given, or synthetic ones, as `input_<i>.npy`.
fn feed(graph: &Graph, args: &Args, folder: &Path) -> Result<PathBuf> {
    let signature = Signature::of(graph);
    let given = args.inputs.inputs.is_some() || !args.inputs.input.is_empty();
    let values: Vec<Val> = if given {
        let samples = inputs::read(&args.inputs, &signature)?;
        let sample = samples.into_iter().next().ok_or_else(|| Failure::usage("there are no inputs"))?;
        if let Some(failure) = inputs::missing(&sample, &signature, &[]) {
            return Err(failure);
        }
        sample.values.into_iter().flatten().collect()
    } else {
        let free = synthetic::symbols(graph, 1);
        if !free.is_empty() {
            let sets: Vec<String> =
                free.keys().map(|s| format!("--set '{}=1'", graph.symbols.get(*s).name)).collect();
            let things: Vec<String> = args.things.iter().map(|t| format!("'{t}'")).collect();
            let text =
                format!("dims are free; set them:\n  planish bench {} {}", things.join(" "), sets.join(" "));
            return Err(Failure::new("symbol-free", text));
        }
        synthetic::inputs(graph, &free, 0x5eed)?
    };
    std::fs::create_dir_all(folder).map_err(|e| Failure::file(folder, e))?;
    for (i, v) in values.iter().enumerate() {
        let path = folder.join(format!("input_{i}.npy"));
        std::fs::write(&path, npy::write(v.tensor()?)).map_err(|e| Failure::file(&path, e))?;
    }
    Ok(folder.to_owned())
}

fn runners(things: &[Thing], prepared: &Prepared, threads: usize, profile: bool) -> Result<Vec<Runner>> {
    let one = |(thing, program): (&Thing, &Option<PathBuf>)| match (&thing.kind, program) {
        (_, Some(path)) => {
            let mut args = vec!["--threads".to_owned(), threads.to_string()];
            if let Some(folder) = &prepared.inputs {
                args.extend(["--inputs".to_owned(), folder.display().to_string()]);
            }
            if profile {
                args.push("--profile".into());
            }
            Ok(Runner::Program { path: path.clone(), args })
        }
        (Kind::Ort(path), None) => {
            let folder = prepared.inputs.as_deref().unwrap_or(Path::new("."));
            Ok(Runner::Ort(Ort::start(path, threads, folder)?))
        }
        (Kind::Command(text), None) => Ok(Runner::Command(text.clone())),
        (Kind::Path(path), None) => Err(Failure::usage(format!("{} cannot be measured", path.display()))),
    };
    things.iter().zip(&prepared.programs).map(one).collect()
}

fn result(thing: &Thing, set: &str, threads: usize, t: &Turn, rounds: usize) -> Value {
    let kind = match thing.kind {
        Kind::Path(_) => "program",
        Kind::Ort(_) => "onnxruntime",
        Kind::Command(_) => "command",
    };
    let mut v = schema(
        "planish.bench",
        json!({
            "name": thing.label, "kind": kind, "set": set, "threads": threads, "precision": t.precision,
            "latency_ms": t.latency, "cpu_ms": t.cpu_ms, "first_ms": t.first_ms, "runs": t.runs, "rounds": rounds,
            "median_ms": t.latency.median, "p10_ms": t.latency.p10, "p90_ms": t.latency.p90,
        }),
    );
    for (key, value) in t.profile.iter().flatten() {
        v[key] = value.clone();
    }
    v
}

fn report(args: &Args, results: &[Value], pairs: &[Value]) -> Value {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cpu =
        cpu.lines().find_map(|l| l.strip_prefix("model name")?.split_once(':')).map_or("", |(_, n)| n.trim());
    let mut v = schema(
        "planish.report",
        json!({
            "tool": format!("planish {}", env!("CARGO_PKG_VERSION")),
            "machine": {"cpu": cpu, "cores": engine::default_threads(), "isa": planish_rt::cpu::detect().name()},
            "inputs": if args.inputs.inputs.is_some() || !args.inputs.input.is_empty() { "given" } else { "synthetic" },
            "results": results,
            "pairs": pairs,
        }),
    );
    if let [only] = results {
        for key in ["median_ms", "p10_ms", "p90_ms"] {
            v[key] = only[key].clone();
        }
    }
    v
}

fn show(results: &[Value], pairs: &[Value], ui: &Ui) {
    let text = |v: &Value| v.as_str().unwrap_or("").to_owned();
    let f = |v: &Value| v.as_f64().unwrap_or(0.0);
    for r in results {
        let l = &r["latency_ms"];
        let set = text(&r["set"]);
        let set = if set.is_empty() { set } else { format!(" {set}") };
        ui.out(format!(
            "{:<28} {} threads{set}: median {:.4} ms, p10 {:.4}, p90 {:.4}, first {:.3}; {} runs",
            text(&r["name"]),
            r["threads"],
            f(&l["median"]),
            f(&l["p10"]),
            f(&l["p90"]),
            f(&r["first_ms"]),
            r["runs"]
        ));
        for line in profile::lines(r) {
            ui.out(line);
        }
    }
    for p in pairs {
        ui.out(format!(
            "{} against {} ({} threads): {:.3} times as fast, 95% interval {:.3}..{:.3}: {}",
            text(&p["other"]),
            text(&p["base"]),
            p["threads"],
            f(&p["ratio"]),
            f(&p["low"]),
            f(&p["high"]),
            text(&p["verdict"])
        ));
    }
}
