//! What can be measured: a compiled program, ONNX Runtime on a model, any command that prints our bench JSON.

use super::{Latency, Turn};
use crate::failure::{Failure, Result};
use serde_json::{Map, Value};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

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
    },
    /// A process that waits for turns.
    Ort(Ort),
    /// A shell command, run for every turn.
    Command(String),
}

impl Runner {
    /// Measures for about `slice`.
    pub fn turn(&mut self, slice: Duration) -> Result<Turn> {
        let ms = |d: Duration| format!("{}ms", d.as_millis().max(1));
        match self {
            Runner::Program { path, args } => {
                let mut c = Command::new(&*path);
                c.args(["--bench", "--json", "--duration", &ms(slice), "--warmup", &ms(slice / 5)])
                    .args(&*args);
                let out = c.output().map_err(|e| Failure::file(path, e))?;
                finish(&path.display().to_string(), &out)
            }
            Runner::Command(text) => {
                let out = Command::new("sh").arg("-c").arg(&*text).output();
                let out = out.map_err(|e| Failure::new("bench-failed", format!("sh: {e}")))?;
                finish(text, &out)
            }
            Runner::Ort(ort) => ort.turn(slice),
        }
    }
}

fn finish(what: &str, out: &std::process::Output) -> Result<Turn> {
    let said = String::from_utf8_lossy(&out.stderr);
    if !out.status.success() {
        let id = if out.status.code() == Some(6) { "machine-program" } else { "bench-failed" };
        return Err(Failure::new(id, format!("{what}: {}: {}", out.status, said.trim())));
    }
    let text = String::from_utf8_lossy(&out.stdout);
    let object = text.find('{').map_or("", |at| &text[at..]);
    let mut stream = serde_json::Deserializer::from_str(object).into_iter::<Value>();
    match stream.next() {
        Some(Ok(v)) => turn(&v).map_err(|why| Failure::new("bench-malformed", format!("{what}: {why}"))),
        _ => Err(Failure::new("bench-malformed", format!("{what} did not print a bench object"))),
    }
}

/// A bench object, or one with only `median_ms` (and `p10_ms`, `p90_ms`).
fn turn(v: &Value) -> std::result::Result<Turn, String> {
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
        profile: profile(v),
    })
}

/// The keys of a profile, if the object has one.
fn profile(v: &Value) -> Option<Map<String, Value>> {
    v.get("kernels").filter(|k| !k.is_null())?;
    let keys = ["kernels", "accounted_ms", "unaccounted_ms", "peaks"];
    Some(keys.iter().filter_map(|k| Some(((*k).to_owned(), v.get(*k)?.clone()))).collect())
}

/// A Python process with ONNX Runtime.
#[derive(Debug)]
pub struct Ort {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    /// Its version.
    pub version: String,
}

const SCRIPT: &str = include_str!("ort.py");

/// Pythons that are tried: that of the user, then that of the tests.
fn pythons() -> Vec<PathBuf> {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let venv = home.map(|h| h.join(".cache/planish/venv/bin/python"));
    [Some(PathBuf::from("python3")), venv].into_iter().flatten().collect()
}

impl Ort {
    /// Loads a model. `inputs` holds `input_<i>.npy` for every input.
    pub fn start(model: &Path, threads: usize, inputs: &Path) -> Result<Ort> {
        for python in pythons() {
            let has = Command::new(&python).args(["-c", "import onnxruntime, numpy"]).output();
            if !has.as_ref().is_ok_and(|o| o.status.success()) {
                continue;
            }
            let mut child = Command::new(&python)
                .args(["-c", SCRIPT])
                .arg(model)
                .arg(threads.to_string())
                .arg(inputs)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .map_err(|e| Failure::file(&python, e))?;
            let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else { continue };
            let mut ort = Ort { child, stdin, stdout: BufReader::new(stdout), version: String::new() };
            let ready = ort.answer();
            let ready = ready.map_err(|why| {
                Failure::new("bench-failed", format!("ONNX Runtime on {}: {why}", model.display()))
            })?;
            ready["version"].as_str().unwrap_or("").clone_into(&mut ort.version);
            return Ok(ort);
        }
        let text = "no Python with onnxruntime and numpy was found (python3 -m pip install onnxruntime)";
        Err(Failure::new("machine-onnxruntime", text))
    }
    fn answer(&mut self) -> std::result::Result<Value, String> {
        let mut line = String::new();
        let read = self.stdout.read_line(&mut line).map_err(|e| e.to_string())?;
        if read == 0 {
            use std::io::Read;
            let mut said = String::new();
            if let Some(err) = &mut self.child.stderr {
                // What it said is an addition to the message only.
                let _ = err.take(1 << 16).read_to_string(&mut said);
            }
            return Err(said.trim().lines().last().unwrap_or("it ended").to_owned());
        }
        serde_json::from_str(&line).map_err(|e| e.to_string())
    }
    fn turn(&mut self, slice: Duration) -> Result<Turn> {
        let fail = |why: String| Failure::new("bench-failed", format!("ONNX Runtime: {why}"));
        writeln!(self.stdin, "{}", slice.as_secs_f64()).map_err(|e| fail(e.to_string()))?;
        let v = self.answer().map_err(fail)?;
        turn(&v).map_err(fail)
    }
}

impl Drop for Ort {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
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
