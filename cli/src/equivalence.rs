//! The check after `optimize` and `compile`: the result and the reference interpreter agree on synthetic inputs.

use crate::compare::{self, Tolerance};
use crate::failure::Failure;
use crate::synthetic;
use planish_ir::{Diag, Engine, Graph, Interpreter, PrepareOptions, Value};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// What the check found.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Equal; the largest difference as a part of what is allowed.
    Equal {
        /// Part of the tolerance that was used.
        worst: f64,
    },
    /// Not equal, and why.
    Different(String),
    /// Nothing could be said, and why.
    NotChecked(String),
}

/// Limits of the reference run.
fn options() -> PrepareOptions {
    PrepareOptions { max_steps: Some(10_000), max_memory: Some(2 << 30), ..PrepareOptions::default() }
}

/// Inputs and what the interpreter makes of them.
#[derive(Debug)]
pub struct Reference {
    /// Inputs in graph order.
    pub inputs: Vec<Value>,
    /// Outputs in graph order.
    pub outputs: Vec<Value>,
}

/// Runs the interpreter on synthetic inputs, for at most `limit`. Sizes of free dims are tried in turn.
///
/// The interpreter works in a thread of its own, which is left alone when the time is over.
pub fn reference(graph: &Graph, limit: Duration) -> Result<Reference, String> {
    if has_random_effects(graph) {
        return Err("the model draws random numbers".into());
    }
    let (send, receive) = mpsc::channel();
    let graph = graph.clone();
    let work = move || {
        // The receiver may be gone: nobody waits any more.
        let _ = send.send(attempt(&graph));
    };
    let spawned = std::thread::Builder::new().stack_size(64 << 20).spawn(work);
    spawned.map_err(|e| e.to_string())?;
    match receive.recv_timeout(limit) {
        Ok(result) => result,
        Err(mpsc::RecvTimeoutError::Timeout) => {
            Err(format!("the interpreter was not done after {:.0} s", limit.as_secs_f64()))
        }
        Err(mpsc::RecvTimeoutError::Disconnected) => Err("the interpreter failed: a bug of planish".into()),
    }
}

fn has_random_effects(graph: &Graph) -> bool {
    graph.all_nodes().iter().any(|n| graph.node(*n).op.name().starts_with("random"))
}

fn attempt(graph: &Graph) -> Result<Reference, String> {
    let program = Interpreter.prepare(graph, &options()).map_err(|d| Failure::from(d).message())?;
    let free = !synthetic::symbols(graph, 1).is_empty();
    let mut why = String::new();
    for size in if free { &synthetic::SIZES[..] } else { &synthetic::SIZES[..1] } {
        let symbols = synthetic::symbols(graph, *size);
        let inputs = synthetic::inputs(graph, &symbols, 0x5eed).map_err(|f| f.message())?;
        let given: Vec<Option<Value>> = inputs.iter().cloned().map(Some).collect();
        let run = program.session().and_then(|mut s| s.run(&given));
        match run {
            Ok(result) => return Ok(Reference { inputs, outputs: result.values }),
            Err(e) if why.is_empty() => why = e.to_string(),
            Err(_) => {}
        }
    }
    Err(format!("the interpreter does not run on synthetic inputs: {why}"))
}

/// The tolerance for a reference value: 1e-3 of each element, and 1e-4 of the largest.
fn tolerance(value: &Value) -> Tolerance {
    let largest = match value {
        Value::Tensor(t) => t.to_f64().into_iter().filter(|x| x.is_finite()).fold(1.0, |m, x| x.abs().max(m)),
        _ => 1.0,
    };
    Tolerance { rtol: 1e-3, atol: 1e-4 * largest }
}

/// Compares outputs with those of the reference.
pub fn compare_outputs(got: &[Value], reference: &Reference, names: &dyn Fn(usize) -> String) -> Verdict {
    if got.len() != reference.outputs.len() {
        return Verdict::Different(format!("{} outputs instead of {}", got.len(), reference.outputs.len()));
    }
    let mut worst = 0f64;
    for (i, (g, w)) in got.iter().zip(&reference.outputs).enumerate() {
        let d = compare::values(g, w, tolerance(w));
        if let Some(why) = d.why {
            return Verdict::Different(format!("output {:?}: {why}", names(i)));
        }
        worst = worst.max(d.worst);
    }
    Verdict::Equal { worst }
}

/// Checks an optimised graph against the original, both in the interpreter, in at most `limit`.
pub fn graphs(original: &Graph, optimised: &Graph, limit: Duration) -> Verdict {
    let started = Instant::now();
    let reference = match reference(original, limit) {
        Ok(r) => r,
        Err(why) => return Verdict::NotChecked(why),
    };
    let left = limit.saturating_sub(started.elapsed()).max(started.elapsed() * 2);
    let (send, receive) = mpsc::channel();
    let graph = optimised.clone();
    let inputs: Vec<Option<Value>> = reference.inputs.iter().cloned().map(Some).collect();
    let work = move || {
        let run = Interpreter
            .prepare(&graph, &options())
            .map_err(|d| Failure::from(d).message())
            .and_then(|p| p.session().and_then(|mut s| s.run(&inputs)).map_err(|e| e.to_string()));
        // The receiver may be gone: nobody waits any more.
        let _ = send.send(run);
    };
    if let Err(e) = std::thread::Builder::new().stack_size(64 << 20).spawn(work) {
        return Verdict::NotChecked(e.to_string());
    }
    match receive.recv_timeout(left) {
        Ok(Ok(result)) => {
            compare_outputs(&result.values, &reference, &|i| original.output_name(i).to_owned())
        }
        Ok(Err(why)) => Verdict::Different(why),
        Err(_) => Verdict::NotChecked("the optimised graph was not done in time".into()),
    }
}

impl Verdict {
    /// The finding that says so.
    pub fn diag(&self) -> Diag {
        match self {
            Verdict::Equal { worst } => Diag::remark(
                "check-equal",
                format!(
                    "equal to the interpreter on synthetic inputs ({:.1}% of the tolerance)",
                    worst * 100.0
                ),
            ),
            Verdict::Different(why) => {
                Diag::error("mismatch", format!("the result differs from the interpreter: {why}"))
            }
            Verdict::NotChecked(why) => Diag::remark("check-skipped", format!("not checked: {why}")),
        }
    }
    /// For scripts.
    pub fn json(&self) -> serde_json::Value {
        match self {
            Verdict::Equal { worst } => serde_json::json!({"verdict": "equal", "worst": worst}),
            Verdict::Different(why) => serde_json::json!({"verdict": "different", "why": why}),
            Verdict::NotChecked(why) => serde_json::json!({"verdict": "not-checked", "why": why}),
        }
    }
}
