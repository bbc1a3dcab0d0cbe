//! Processes that wait for requests to measure: programs of ours with `--slices`, and ONNX Runtime.

use super::{Turn, pin, thing};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};

/// Some runs in a row.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Slice {
    /// The median of their times.
    pub median_ms: f64,
    /// Processor time of a run on average; 0 where it is not known.
    pub cpu_ms: f64,
}

/// A process that is waiting.
#[derive(Debug)]
pub struct Live {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    /// What it said when it was ready.
    pub ready: Value,
}

/// Why a process gave no answer.
#[derive(Clone, Debug)]
pub struct Gone {
    /// How it ended.
    pub status: Option<ExitStatus>,
    /// What it said, or else that it is gone.
    pub said: String,
}

impl Live {
    /// Starts a process and waits until it is ready.
    pub fn start(command: &mut Command) -> Result<Live, Gone> {
        let gone = |said: String| Gone { status: None, said };
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| gone(e.to_string()))?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let Some(stdout) = stdout else { return Err(gone("it has no output".into())) };
        let mut live = Live { child, stdin, stdout: BufReader::new(stdout), ready: Value::Null };
        live.ready = live.answer()?;
        Ok(live)
    }

    /// Keeps it on these processors.
    pub fn pin(&self, processors: &[usize]) {
        pin::process(self.child.id(), processors);
    }

    /// Measures one slice.
    pub fn slice(&mut self, skip: u64, ms: f64) -> Result<Slice, Gone> {
        let sent = self.stdin.as_mut().is_some_and(|s| writeln!(s, "{skip} {ms}").is_ok());
        if !sent {
            return Err(self.gone());
        }
        let v = self.answer()?;
        match v["median_ms"].as_f64() {
            Some(median_ms) if median_ms > 0.0 => {
                Ok(Slice { median_ms, cpu_ms: v["cpu_ms"].as_f64().unwrap_or(0.0) })
            }
            _ => Err(Gone { status: None, said: format!("it answered {v}") }),
        }
    }

    /// Ends the requests; what the process says about all of them.
    pub fn finish(mut self) -> Result<Turn, Gone> {
        self.stdin = None;
        let v = self.answer()?;
        thing::turn(&v).map_err(|said| Gone { status: None, said })
    }

    fn answer(&mut self) -> Result<Value, Gone> {
        let mut line = String::new();
        match self.stdout.read_line(&mut line) {
            Ok(n) if n > 0 => serde_json::from_str(&line)
                .map_err(|e| Gone { status: None, said: format!("it answered {line:?}: {e}") }),
            _ => Err(self.gone()),
        }
    }

    /// How it ended, after it has stopped answering.
    fn gone(&mut self) -> Gone {
        self.stdin = None;
        let mut said = String::new();
        if let Some(err) = &mut self.child.stderr {
            // What it said is an addition to the message only.
            let _ = err.take(1 << 16).read_to_string(&mut said);
        }
        let last = said.trim().lines().last().unwrap_or("it ended").to_owned();
        Gone { status: self.child.wait().ok(), said: last }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
