//! What can be measured: a compiled program, ONNX Runtime on a model, any command that prints our bench JSON.

use super::live::{Gone, Live, Slice};
use super::{Latency, Turn};
use crate::failure::{Failure, Result};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// A thing as written on the command line: `[LABEL=]PATH`, `ort:PATH` or `cmd:COMMAND`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Thing {
    /// What it is called in reports.
    pub label: String,
    /// What it is.
    pub kind: Kind,
}

/// The kinds of things.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A model (compiled for this machine first) or a compiled program.
    Path(PathBuf),
    /// ONNX Runtime on a model.
    Ort(PathBuf),
    /// A command.
    Command(String),
}

impl Thing {
    /// Reads the text. A label ends at the first `=` that comes before any slash.
    pub fn parse(text: &str) -> Thing {
        let (label, rest) = match text.split_once('=') {
            Some((l, r)) if !l.is_empty() && !l.contains(['/', ':', ' ']) => (Some(l), r),
            _ => (None, text),
        };
        let (kind, name) = if let Some(path) = rest.strip_prefix("ort:") {
            (Kind::Ort(path.into()), format!("ort:{}", stem(path)))
        } else if let Some(command) = rest.strip_prefix("cmd:") {
            (Kind::Command(command.to_owned()), rest.to_owned())
        } else {
            (Kind::Path(rest.into()), stem(rest))
        };
        Thing { label: label.map_or(name, str::to_owned), kind }
    }
}

fn stem(path: &str) -> String {
    Path::new(path).file_stem().map_or_else(|| path.to_owned(), |s| s.to_string_lossy().into_owned())
}

/// A thing that is ready to be measured.
#[derive(Debug)]
pub enum Runner {
    /// A program of ours: started for every turn.
    Program {
        /// The file.
        path: PathBuf,
        /// Arguments besides those of the measurement.
        args: Vec<String>,
        /// The process of the turn.
        live: Option<Live>,
        /// Its first processes said that they do not measure on request: it is older.
        old: bool,
        /// What its last process said, of an older program.
        said: Option<Turn>,
    },
    /// A process for all turns.
    Ort(Option<Live>),
    /// A shell command, run for every turn.
    Command {
        /// The command.
        text: String,
        /// What it printed last.
        said: Option<Turn>,
    },
}

impl Runner {
    /// A program of ours.
    pub fn program(path: PathBuf, args: Vec<String>) -> Runner {
        Runner::Program { path, args, live: None, old: false, said: None }
    }

    /// A command.
    pub fn command(text: String) -> Runner {
        Runner::Command { text, said: None }
    }

    /// Whether it measures on request, slice by slice. Known after the first [`Runner::begin`].
    pub fn sliced(&self) -> bool {
        match self {
            Runner::Program { old, .. } => !old,
            Runner::Ort(_) => true,
            Runner::Command { .. } => false,
        }
    }

    /// Begins a turn, on these processors if they are given.
    pub fn begin(&mut self, processors: Option<&[usize]>) -> Result<()> {
        match self {
            Runner::Program { path, args, live, old, .. } if !*old => {
                let mut c = Command::new(&*path);
                c.args(["--bench", "--json", "--slices"]).args(&*args);
                let what = path.display().to_string();
                match Live::start(&mut c) {
                    Ok(mut made) => {
                        processors.iter().for_each(|p| made.pin(p));
                        // What the first runs find cold is warm after some milliseconds.
                        let first = made.ready["first_ms"].as_f64().unwrap_or(1.0).max(1e-3);
                        let warm = (15.0 / first).clamp(1.0, 1000.0) as u64;
                        made.slice(warm, 0.0).map_err(|g| failed(&what, &g))?;
                        *live = Some(made);
                    }
                    Err(gone) if gone.said.contains("--slices") => *old = true,
                    Err(gone) => return Err(failed(&what, &gone)),
                }
                Ok(())
            }
            Runner::Ort(Some(live)) => {
                processors.iter().for_each(|p| live.pin(p));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Measures for about `ms`, after `skip` runs that do not count.
    pub fn slice(&mut self, skip: u64, ms: f64) -> Result<Slice> {
        match self {
            Runner::Program { live: Some(live), path, .. } => {
                live.slice(skip, ms).map_err(|g| failed(&path.display().to_string(), &g))
            }
            Runner::Program { path, args, said, .. } => {
                let mut c = Command::new(&*path);
                c.args(["--bench", "--json", "--duration", &millis(ms), "--warmup", &millis(ms / 5.0)])
                    .args(&*args);
                let out = c.output().map_err(|e| Failure::file(path, e))?;
                Ok(told(said, finish(&path.display().to_string(), &out)?))
            }
            Runner::Ort(Some(live)) => live.slice(skip, ms).map_err(|g| failed("ONNX Runtime", &g)),
            Runner::Ort(None) => Err(Failure::new("bench-failed", "ONNX Runtime has ended")),
            Runner::Command { text, said } => {
                let out = Command::new("sh").arg("-c").arg(&*text).output();
                let out = out.map_err(|e| Failure::new("bench-failed", format!("sh: {e}")))?;
                Ok(told(said, finish(text, &out)?))
            }
        }
    }

    /// Ends a turn; what the process said about all of it, if it was one for this turn.
    pub fn end(&mut self) -> Result<Option<Turn>> {
        match self {
            Runner::Program { live, said, path, .. } => match live.take() {
                Some(live) => live.finish().map(Some).map_err(|g| failed(&path.display().to_string(), &g)),
                None => Ok(said.take()),
            },
            Runner::Command { said, .. } => Ok(said.take()),
            Runner::Ort(_) => Ok(None),
        }
    }

    /// Ends all turns; what a process for all of them said.
    pub fn finish(&mut self) -> Result<Option<Turn>> {
        match self {
            Runner::Ort(live) => match live.take() {
                Some(live) => live.finish().map(Some).map_err(|g| failed("ONNX Runtime", &g)),
                None => Ok(None),
            },
            _ => Ok(None),
        }
    }
}

fn millis(ms: f64) -> String {
    format!("{ms:.3}ms")
}

/// Keeps what a process said; the whole process counts as one slice.
fn told(said: &mut Option<Turn>, turn: Turn) -> Slice {
    let slice = Slice { median_ms: turn.latency.median, cpu_ms: turn.cpu_ms };
    *said = Some(turn);
    slice
}

fn failed(what: &str, gone: &Gone) -> Failure {
    let machine = gone.status.is_some_and(|s| s.code() == Some(6));
    let status = gone.status.map_or_else(String::new, |s| format!(" {s}:"));
    Failure::new(
        if machine { "machine-program" } else { "bench-failed" },
        format!("{what}:{status} {}", gone.said),
    )
}

/// Runs a program once with `--profile`, for `duration`; the keys of the profile.
pub fn profile(path: &Path, args: &[String], duration: Duration) -> Result<Map<String, Value>> {
    let ms = duration.as_secs_f64() * 1e3;
    let out = Command::new(path)
        .args(["--bench", "--json", "--profile", "--duration", &millis(ms), "--warmup", &millis(ms / 5.0)])
        .args(args)
        .output()
        .map_err(|e| Failure::file(path, e))?;
    let what = path.display().to_string();
    let v = object(&what, &out)?;
    let keys = ["kernels", "accounted_ms", "unaccounted_ms", "peaks"];
    Ok(keys.iter().filter_map(|k| Some(((*k).to_owned(), v.get(*k)?.clone()))).collect())
}

/// Milliseconds from the start of a program to its end after one inference on inputs among `args`, the file being in memory:
/// the least of three. None where the program fails.
pub fn cold_start(path: &Path, args: &[String]) -> Option<f64> {
    let once = || {
        let started = Instant::now();
        let ended = Command::new(path)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        ended.is_ok_and(|s| s.success()).then(|| started.elapsed().as_secs_f64() * 1e3)
    };
    (0..3).filter_map(|_| once()).min_by(f64::total_cmp)
}

fn object(what: &str, out: &Output) -> Result<Value> {
    let said = String::from_utf8_lossy(&out.stderr);
    if !out.status.success() {
        let id = if out.status.code() == Some(6) { "machine-program" } else { "bench-failed" };
        return Err(Failure::new(id, format!("{what}: {}: {}", out.status, said.trim())));
    }
    let text = String::from_utf8_lossy(&out.stdout);
    let object = text.find('{').map_or("", |at| &text[at..]);
    let mut stream = serde_json::Deserializer::from_str(object).into_iter::<Value>();
    match stream.next() {
        Some(Ok(v)) => Ok(v),
        _ => Err(Failure::new("bench-malformed", format!("{what} did not print a bench object"))),
    }
}

fn finish(what: &str, out: &Output) -> Result<Turn> {
    let v = object(what, out)?;
    turn(&v).map_err(|why| Failure::new("bench-malformed", format!("{what}: {why}")))
}

/// A bench object, or one with only `median_ms` (and `p10_ms`, `p90_ms`).
pub fn turn(v: &Value) -> std::result::Result<Turn, String> {
    let latency = &v["latency_ms"];
    let number = |key: &str| latency[key].as_f64().or_else(|| v[format!("{key}_ms")].as_f64());
    let median = number("median").ok_or("the bench object has no latency_ms.median and no median_ms")?;
    if !(median.is_finite() && median > 0.0) {
        return Err(format!("the median is {median}"));
    }
    let or = |key: &str| number(key).unwrap_or(median);
    Ok(Turn {
        latency: Latency { median, p10: or("p10"), p90: or("p90"), p99: or("p99"), min: or("min") },
        cpu_ms: v["cpu_ms"].as_f64().unwrap_or(0.0),
        first_ms: v["first_ms"].as_f64().unwrap_or(0.0),
        runs: v["runs"].as_u64().unwrap_or(1),
        precision: v["precision"].as_str().unwrap_or("").to_owned(),
        memory: v["memory_bytes"].as_u64(),
    })
}

const SCRIPT: &str = include_str!("ort.py");

/// Pythons that are tried: that of the user, then that of the tests.
fn pythons() -> Vec<PathBuf> {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let venv = home.map(|h| h.join(".cache/planish/venv/bin/python"));
    [Some(PathBuf::from("python3")), venv].into_iter().flatten().collect()
}

/// Loads a model into a Python process with ONNX Runtime; also its version. `inputs` holds `input_<i>.npy` for every input.
pub fn ort(model: &Path, threads: usize, inputs: &Path) -> Result<(Runner, String)> {
    for python in pythons() {
        let has = Command::new(&python).args(["-c", "import onnxruntime, numpy"]).output();
        if !has.as_ref().is_ok_and(|o| o.status.success()) {
            continue;
        }
        let mut command = Command::new(&python);
        command.args(["-c", SCRIPT]).arg(model).arg(threads.to_string()).arg(inputs);
        let what = format!("ONNX Runtime on {}", model.display());
        let live = Live::start(&mut command).map_err(|gone| failed(&what, &gone))?;
        let version = live.ready["version"].as_str().unwrap_or("").to_owned();
        return Ok((Runner::Ort(Some(live)), version));
    }
    let text = "no Python with onnxruntime and numpy was found (python3 -m pip install onnxruntime)";
    Err(Failure::new("machine-onnxruntime", text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn things_are_read() {
        let of = |t: &str| Thing::parse(t);
        assert_eq!(of("a/b.onnx"), Thing { label: "b".into(), kind: Kind::Path("a/b.onnx".into()) });
        assert_eq!(of("new=a/b"), Thing { label: "new".into(), kind: Kind::Path("a/b".into()) });
        assert_eq!(of("ort:m.onnx"), Thing { label: "ort:m".into(), kind: Kind::Ort("m.onnx".into()) });
        assert_eq!(of("x=ort:m.onnx").kind, Kind::Ort("m.onnx".into()));
        assert_eq!(of("cmd:X=1 run").kind, Kind::Command("X=1 run".into()));
        assert_eq!(of("./a=b").kind, Kind::Path("./a=b".into()));
    }

    #[test]
    fn bench_objects_are_read_with_and_without_details() {
        let short = turn(&serde_json::json!({"median_ms": 2.0})).map(|t| t.latency.p99);
        assert_eq!(short, Ok(2.0));
        let long = serde_json::json!({"latency_ms": {"median": 1.0, "p10": 0.5}, "runs": 3, "median_ms": 9});
        assert_eq!(turn(&long).map(|t| (t.latency.median, t.latency.p10, t.runs)), Ok((1.0, 0.5, 3)));
        assert!(turn(&serde_json::json!({})).is_err() && turn(&serde_json::json!({"median_ms": 0})).is_err());
    }
}
