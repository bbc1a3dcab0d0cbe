//! Running a compiled program on values at hand, in a process of its own.

use crate::failure::Failure;
use crate::inputs::{Signature, file_value};
use crate::outputs;
use planish_ir::{Graph, Value};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Why there are no outputs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It took too long.
    Time,
    /// It failed.
    Failed(String),
}

impl From<Failure> for Trouble {
    fn from(f: Failure) -> Trouble {
        Trouble::Failed(f.message())
    }
}

impl From<std::io::Error> for Trouble {
    fn from(e: std::io::Error) -> Trouble {
        Trouble::Failed(e.to_string())
    }
}

/// The outputs of one run, in at most `limit`.
pub fn outputs(
    program: &Path,
    inputs: &[Value],
    graph: &Graph,
    limit: Duration,
) -> Result<Vec<Value>, Trouble> {
    let signature = Signature::of(graph);
    let dir = tempfile::Builder::new().prefix("planish-check-").tempdir()?;
    let (given, made) = (dir.path().join("in"), dir.path().join("out"));
    std::fs::create_dir(&given)?;
    for (i, (value, port)) in inputs.iter().zip(&signature.inputs).enumerate() {
        std::fs::write(given.join(format!("input_{i}.pb")), outputs::pb(value, &port.name, &port.ty)?)?;
    }
    let program = std::path::absolute(program)?;
    let log = std::fs::File::create(dir.path().join("log"))?;
    let mut child = Command::new(program)
        .arg("--inputs")
        .arg(&given)
        .arg("--output-dir")
        .arg(&made)
        .args(["--pb", "--max-steps", "10000"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()?;
    let started = Instant::now();
    let status = loop {
        match child.try_wait()? {
            Some(status) => break status,
            None if started.elapsed() > limit => {
                // It may have ended by itself meanwhile.
                let _ = child.kill();
                let _ = child.wait();
                return Err(Trouble::Time);
            }
            None => std::thread::sleep(Duration::from_millis(2)),
        }
    };
    if !status.success() {
        let said = std::fs::read_to_string(dir.path().join("log")).unwrap_or_default();
        return Err(Trouble::Failed(format!("the program ended with {status}: {}", said.trim())));
    }
    let mut out = Vec::new();
    for (i, port) in signature.outputs.iter().enumerate() {
        out.push(file_value(&made.join(format!("output_{i}.pb")), port)?);
    }
    Ok(out)
}
