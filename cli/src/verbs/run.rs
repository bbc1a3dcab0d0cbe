//! `planish run`: one inference per sample.

use crate::compare::{self, Tolerance};
use crate::engine;
use crate::exit::Exit;
use crate::failure::{Failure, Result};
use crate::files::Writer;
use crate::inputs::{self, InputArgs, Sample, Signature};
use crate::load::{self, LoadOptions, SafetyArgs};
use crate::outputs::{self, OutputArgs};
use crate::shapes::{ShapeArgs, Shapes};
use crate::specialise::Adaptive;
use crate::ui::{Format, Ui, schema};
use planish_ir::{Diag, PrepareOptions, Value};
use serde_json::json;
use std::path::{Path, PathBuf};

/// Run a model, one inference per sample
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The model
    pub model: PathBuf,
    #[command(flatten)]
    pub inputs: InputArgs,
    /// Where outputs go: output_<i>.npy in graph order
    #[arg(long, value_name = "DIR", help_heading = "Outputs")]
    pub output_dir: Option<PathBuf>,
    #[command(flatten)]
    pub outputs: OutputArgs,
    /// Feed an output back as an input of the next sample; it starts as given or zero
    #[arg(long, value_name = "OUT=IN")]
    pub state: Vec<String>,
    /// What executes the model
    #[arg(long, value_name = "ENGINE", default_value = engine::default_engine())]
    pub engine: String,
    /// Threads; the physical cores allowed unless given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub threads: Option<u32>,
    /// Compare with the expected outputs in this folder; a mismatch ends with 4
    #[arg(long, value_name = "DIR", help_heading = "Comparison")]
    pub expect: Option<PathBuf>,
    /// Relative tolerance
    #[arg(long, value_name = "R", default_value_t = Tolerance::default().rtol, help_heading = "Comparison")]
    pub rtol: f64,
    /// Absolute tolerance
    #[arg(long, value_name = "A", default_value_t = Tolerance::default().atol, help_heading = "Comparison")]
    pub atol: f64,
    #[command(flatten)]
    pub shapes: ShapeArgs,
    #[command(flatten)]
    pub safety: SafetyArgs,
    /// Form of the summary on stdout
    #[arg(long, value_enum, default_value_t, help_heading = "Output")]
    pub format: Format,
}

/// Runs the verb.
pub fn run(args: &Args, ui: &Ui) -> Result<Exit> {
    engine::find(&args.engine)?;
    let mut writer = Writer::new(args.outputs.force);
    writer.protect(&args.model);
    if let Some(dir) = &args.inputs.inputs {
        writer.protect(dir);
    }
    let load = LoadOptions::new(&args.safety, Shapes::parse(&args.shapes)?);
    if artifact(&args.model) {
        return run_artifact(args, ui);
    }
    let file = load::open(&args.model, &load)?;
    let signature = file.signature(&load)?;
    let samples = inputs::read(&args.inputs, &signature)?;
    let (_, states) = state_pairs(&args.state, &signature)?;
    if let Some(failure) = samples.first().and_then(|s| inputs::missing(s, &signature, &states)) {
        return Err(failure);
    }
    let options = PrepareOptions {
        threads: args.threads.map_or_else(crate::engine::default_threads, |n| n as usize),
        max_steps: args.safety.max_steps,
        max_memory: args.safety.max_memory,
        ..PrepareOptions::default()
    };
    let mut model = Adaptive::new(file, load, &args.engine, options)?.with_states(&args.state)?;
    let progress = ui.progress("samples", samples.len() as u64);
    let tolerance = Tolerance { rtol: args.rtol, atol: args.atol };
    let mut rows = Vec::new();
    let mut exit = Exit::Ok;
    for sample in &samples {
        let about = |f: Failure| if sample.name.is_empty() { f } else { f.about(&sample.name) };
        ui.diags(&model.ready(&sample.values).map_err(about)?);
        let started = std::time::Instant::now();
        let result = model.next(&sample.values).map_err(about)?;
        let ms = started.elapsed().as_secs_f64() * 1e3;
        if let Some(dir) = &args.output_dir {
            let dir = if sample.name.is_empty() { dir.clone() } else { dir.join(&sample.name) };
            outputs::write(&dir, &result.values, &signature, args.outputs, &writer)?;
        }
        let mut row = json!({"sample": sample.name, "ms": ms});
        let counted: Vec<(&String, &u64)> = result.counters.iter().filter(|(_, n)| **n > 0).collect();
        if !counted.is_empty() {
            row["counters"] = counted.iter().map(|(name, n)| ((*name).clone(), json!(n))).collect();
            let pairs: Vec<String> = counted.iter().map(|(name, n)| format!("{name} {n}")).collect();
            ui.detail(format!("counted: {}", pairs.join(", ")));
        }
        if let Some(dir) = &args.expect {
            let dir = if sample.name.is_empty() { dir.clone() } else { dir.join(&sample.name) };
            let compared = expect(&dir, &result.values, &signature, tolerance)?;
            for (i, d) in compared.iter().enumerate() {
                if let Some(why) = &d.why {
                    exit = exit.and(Exit::Mismatch);
                    let text = format!("output {:?}: {why}", signature.outputs[i].name);
                    ui.diag(&named(Diag::error("mismatch", text), sample));
                }
            }
            let worst = compared.iter().fold(0f64, |w, d| w.max(d.worst));
            row["worst"] = json!(if worst.is_finite() { worst } else { f64::MAX });
            row["ok"] = json!(compared.iter().all(compare::Difference::ok));
        }
        rows.push(row);
        progress.step();
    }
    progress.finish();
    match args.format {
        Format::Json => ui.json(&schema(
            "planish.run",
            json!({"model": args.model.display().to_string(), "engine": args.engine, "samples": rows}),
        )),
        Format::Text => {
            for row in &rows {
                let name = row["sample"].as_str().unwrap_or("");
                let verdict = match row.get("ok").and_then(serde_json::Value::as_bool) {
                    Some(true) => format!("  equal within {}", show_worst(&row["worst"])),
                    Some(false) => "  DIFFERENT".to_owned(),
                    None => String::new(),
                };
                let label = if name.is_empty() { args.model.display().to_string() } else { name.to_owned() };
                ui.out(format!("{label}: {:.3} ms{verdict}", row["ms"].as_f64().unwrap_or(0.0)));
            }
        }
    }
    Ok(exit)
}

fn show_worst(worst: &serde_json::Value) -> String {
    format!("{:.2}% of the tolerance", worst.as_f64().unwrap_or(0.0) * 100.0)
}

fn named(d: Diag, sample: &Sample) -> Diag {
    if sample.name.is_empty() {
        return d;
    }
    Diag { message: format!("{}: {}", sample.name, d.message), ..d }
}

/// Positions of outputs, each with that of the input it is fed to.
pub type StatePairs = Vec<(usize, usize)>;

/// The pairs of `--state` as positions of outputs and inputs, and the inputs among them.
pub fn state_pairs(pairs: &[String], signature: &Signature) -> Result<(StatePairs, Vec<usize>)> {
    let mut out: Vec<(usize, usize)> = Vec::new();
    for text in pairs {
        let wrong = |what: &str, name: &str| {
            Failure::usage(format!("--state {text:?}: no {what} is called {name:?}"))
        };
        let (output, input) = text
            .split_once('=')
            .ok_or_else(|| Failure::usage(format!("--state {text:?} has no `=`: OUT=IN is needed")))?;
        let o = signature.outputs.iter().position(|p| p.name == output);
        let (o, i) = (o.ok_or_else(|| wrong("output", output))?, signature.find(input));
        let i = i.ok_or_else(|| wrong("input", input))?;
        if out.iter().any(|(_, other)| *other == i) {
            return Err(Failure::usage(format!("--state: the input {input:?} is fed twice")));
        }
        out.push((o, i));
    }
    let inputs = out.iter().map(|(_, i)| *i).collect();
    Ok((out, inputs))
}

/// Whether the file is an executable program rather than a model.
pub fn artifact(path: &Path) -> bool {
    use std::io::Read;
    let mut magic = [0u8; 4];
    let read = std::fs::File::open(path).and_then(|mut f| f.read_exact(&mut magic));
    read.is_ok() && magic == *b"\x7fELF" && crate::files::is_executable(path)
}

/// Runs an executable that `compile` made, with the same inputs and outputs, and ends as it does.
fn run_artifact(args: &Args, ui: &Ui) -> Result<Exit> {
    if !args.shapes.shape.is_empty() || !args.shapes.set.is_empty() {
        return Err(Failure::usage("the dims of a compiled model follow from its inputs"));
    }
    let path = std::path::absolute(&args.model).map_err(|e| Failure::file(&args.model, e))?;
    let mut command = std::process::Command::new(path);
    for input in &args.inputs.input {
        command.arg("--input").arg(input);
    }
    for pair in &args.state {
        command.arg("--state").arg(pair);
    }
    for (flag, value) in
        [("--inputs", &args.inputs.inputs), ("--output-dir", &args.output_dir), ("--expect", &args.expect)]
    {
        if let Some(v) = value {
            command.arg(flag).arg(v);
        }
    }
    for (flag, on) in [
        ("--samples-axis", args.inputs.samples_axis),
        ("--pb", args.outputs.pb),
        ("--named", args.outputs.named),
    ] {
        if on {
            command.arg(flag);
        }
    }
    if args.expect.is_some() {
        command.arg("--rtol").arg(args.rtol.to_string()).arg("--atol").arg(args.atol.to_string());
    }
    for (flag, value) in [("--threads", args.threads.map(u64::from)), ("--max-steps", args.safety.max_steps)]
    {
        if let Some(v) = value {
            command.arg(flag).arg(v.to_string());
        }
    }
    let status = command.status().map_err(|e| Failure::file(&args.model, e))?;
    ui.detail(format!("{}: {status}", args.model.display()));
    match status.code() {
        Some(code) => Exit::from_code(code)
            .ok_or_else(|| Failure::new("internal-artifact", format!("the program ended with code {code}"))),
        None => Err(Failure::new("internal-artifact", format!("the program ended: {status}"))),
    }
}

/// Compares outputs with `output_<i>.npy` or `.pb`, or `NAME.npy`, of a folder. Every output must have one.
fn expect(
    dir: &Path,
    values: &[Value],
    signature: &Signature,
    tolerance: Tolerance,
) -> Result<Vec<compare::Difference>> {
    let mut out = Vec::new();
    for (i, (value, port)) in values.iter().zip(&signature.outputs).enumerate() {
        let candidates = [
            format!("output_{i}.pb"),
            format!("output_{i}.npy"),
            format!("{}.npy", crate::percent::encode(&port.name)),
        ];
        let file = candidates.iter().map(|c| dir.join(c)).find(|p| p.is_file()).ok_or_else(|| {
            Failure::new(
                "expect-missing",
                format!("{} holds no output_{i}.pb and no output_{i}.npy", dir.display()),
            )
        })?;
        let want = inputs::file_value(&file, port).map_err(|f| f.about(file.display()))?;
        out.push(compare::values(value, &want, tolerance));
    }
    Ok(out)
}
