//! `planish worker`: a process for test harnesses. One JSON object a line in, one a line out.

use crate::engine;
use crate::exit::Exit;
use crate::failure::{Failure, Result};
use crate::inputs::{self, Signature};
use crate::load::{self, LoadOptions, SafetyArgs};
use crate::outputs;
use crate::shapes::Shapes;
use crate::specialise::Adaptive;
use planish_ir::{PrepareOptions, Value};
use serde::Deserialize;
use serde_json::json;
use std::io::{BufRead, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Serve test harnesses: JSON lines on stdin and stdout
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What executes the models
    #[arg(long, value_name = "ENGINE", default_value = engine::default_engine())]
    pub engine: String,
    /// Threads of a model
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub threads: u32,
    #[command(flatten)]
    pub safety: SafetyArgs,
}

#[derive(Deserialize)]
struct Request {
    id: serde_json::Value,
    model: PathBuf,
    #[serde(default)]
    inputs: Vec<PathBuf>,
    outdir: PathBuf,
}

/// Why a request failed, and when.
struct Refusal {
    stage: &'static str,
    failure: Failure,
}

fn at<T>(stage: &'static str, result: Result<T>) -> std::result::Result<T, Refusal> {
    result.map_err(|failure| Refusal { stage, failure })
}

/// Serves until stdin ends.
#[allow(clippy::print_stdout)]
pub fn run(args: &Args) -> Result<Exit> {
    engine::find(&args.engine)?;
    let mut server = Server { args, cached: None };
    for line in std::io::stdin().lock().lines() {
        let Ok(line) = line else { break };
        if line.trim().is_empty() {
            continue;
        }
        let answer = server.answer(&line);
        let mut out = std::io::stdout().lock();
        if writeln!(out, "{answer}").and_then(|()| out.flush()).is_err() {
            break;
        }
    }
    Ok(Exit::Ok)
}

struct Server<'a> {
    args: &'a Args,
    cached: Option<(Key, Adaptive<'a>)>,
}

/// What a prepared model depends on.
type Key = (PathBuf, u64, SystemTime);

impl<'a> Server<'a> {
    fn answer(&mut self, line: &str) -> serde_json::Value {
        let request: Request = match serde_json::from_str(line) {
            Ok(r) => r,
            Err(e) => {
                let id =
                    serde_json::from_str::<serde_json::Value>(line).ok().and_then(|v| v.get("id").cloned());
                return json!({"id": id, "status": "error", "stage": "load", "msg": format!("bad request: {e}")});
            }
        };
        let id = request.id.clone();
        match catch_unwind(AssertUnwindSafe(|| self.serve(&request))) {
            Ok(Ok(())) => json!({"id": id, "status": "ok"}),
            Ok(Err(Refusal { stage, failure })) => {
                let status = if failure.exit() == Exit::Unsupported { "unsupported" } else { "error" };
                json!({"id": id, "status": status, "stage": stage, "msg": failure.message()})
            }
            Err(_) => {
                self.cached = None;
                json!({"id": id, "status": "error", "stage": "run", "msg": "internal-panic: see stderr"})
            }
        }
    }

    fn serve(&mut self, request: &Request) -> std::result::Result<(), Refusal> {
        let meta = std::fs::metadata(&request.model).map_err(|e| Failure::file(&request.model, e));
        let meta = at("load", meta)?;
        let changed = meta.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        let key = (request.model.clone(), meta.len(), changed);
        if self.cached.as_ref().is_none_or(|(k, _)| *k != key) {
            self.cached = None;
            self.cached = Some((key, at("load", self.load(&request.model))?));
        }
        let Some((_, model)) = &mut self.cached else { return Ok(()) };
        let values = at("run", read(&request.inputs, &model.signature))?;
        let outputs = at("run", model.run(&values))?;
        at("run", write(&request.outdir, &outputs.values, &model.signature))
    }

    fn load(&self, path: &Path) -> Result<Adaptive<'a>> {
        let load = LoadOptions::new(&self.args.safety, Shapes::default());
        let file = load::open(path, &load)?;
        let options = PrepareOptions {
            threads: self.args.threads as usize,
            max_steps: self.args.safety.max_steps,
            max_memory: self.args.safety.max_memory,
            ..PrepareOptions::default()
        };
        Adaptive::new(file, load, &self.args.engine, options)
    }
}

fn read(files: &[PathBuf], signature: &Signature) -> Result<Vec<Option<Value>>> {
    if files.len() > signature.inputs.len() {
        let text = format!("{} inputs given, the model has {}", files.len(), signature.inputs.len());
        return Err(Failure::new("input-mismatch", text));
    }
    let mut values = Vec::new();
    for (i, port) in signature.inputs.iter().enumerate() {
        values.push(match files.get(i) {
            Some(file) => Some(inputs::file_value(file, port).map_err(|f| f.about(file.display()))?),
            // A last input that is not given is an optional one without a value.
            None => match &port.ty {
                planish_ir::Type::Optional(inner) => Some(Value::Optional(inner.clone(), None)),
                _ => None,
            },
        });
    }
    Ok(values)
}

fn write(outdir: &Path, values: &[Value], signature: &Signature) -> Result<()> {
    std::fs::create_dir_all(outdir).map_err(|e| Failure::file(outdir, e))?;
    for (i, (value, port)) in values.iter().zip(&signature.outputs).enumerate() {
        let path = outdir.join(format!("output_{i}.pb"));
        let bytes = outputs::pb(value, &port.name, &port.ty)?;
        std::fs::write(&path, bytes).map_err(|e| Failure::file(&path, e))?;
    }
    Ok(())
}
