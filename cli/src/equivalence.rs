//! The check after `optimize` and `compile`: the result and the reference interpreter agree on the samples of `--data`,
//! or on synthetic inputs where none are given.
//!
//! Where a model quantises with scales that it computes, a difference in the last bit of a sum may move a quotient over
//! a half and a number to its neighbour among 256, and with it everything after it. Such models get the wider
//! tolerance, and where inputs still differ, other inputs are tried: a wrong kernel is wrong for all of them.

use crate::compare::{self, Tolerance};
use crate::data::{Data, Sample};
use crate::failure::Failure;
use crate::synthetic;
use planish_ir::{Diag, Engine, Graph, Interpreter, Op, PrepareOptions, Value, ValueId};
use std::collections::BTreeSet;
use std::fmt;
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// What the check found.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Equal; the largest difference as a part of what is allowed.
    Equal {
        /// Part of the tolerance that was used.
        worst: f64,
        /// What was compared.
        on: Basis,
    },
    /// Not equal, and why.
    Different(String),
    /// Nothing could be said, and why.
    NotChecked(String),
}

/// The inputs that a verdict rests on.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Basis {
    /// Whether some were synthetic.
    pub synthetic: bool,
    /// The number of samples that were compared.
    pub samples: usize,
    /// The number of samples there are.
    pub of: usize,
    /// Where the samples are from.
    pub path: String,
}

impl Basis {
    /// Both together.
    #[must_use]
    pub fn and(self, other: Basis) -> Basis {
        Basis {
            synthetic: self.synthetic || other.synthetic,
            samples: self.samples + other.samples,
            of: self.of + other.of,
            path: if self.path.is_empty() { other.path } else { self.path },
        }
    }
}

impl fmt::Display for Basis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.samples, self.of) {
            (0, _) => return f.write_str("synthetic inputs"),
            (1, 1) => write!(f, "the sample of {}", self.path)?,
            (n, of) if n == of => write!(f, "all {n} samples of {}", self.path)?,
            (n, of) => write!(f, "{n} of the {of} samples of {}", self.path)?,
        }
        f.write_str(if self.synthetic {
            ", and on synthetic inputs for sizes that no sample has"
        } else {
            ""
        })
    }
}

/// What is checked.
#[derive(Clone, Copy, Debug)]
pub struct Case<'a> {
    /// The graph as imported: what the interpreter makes of it is right.
    pub graph: &'a Graph,
    /// The inputs; synthetic ones if there are none.
    pub data: Option<&'a Data>,
    /// The time it may take.
    pub limit: Duration,
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

/// Seeds of the inputs of a check; all but the first are for models that quantise dynamically.
const SEEDS: [u64; 4] = [0x5eed, 1, 2, 3];

/// Where the inputs of a trial are from.
enum Source<'a> {
    Seed(u64),
    Sample(&'a Sample),
}

/// Compares what `run` makes of inputs with the interpreter, which gets half of the time for each trial. Of the samples as
/// many are tried as the time allows.
pub fn check(case: Case<'_>, run: &mut dyn FnMut(&Reference) -> Result<Vec<Value>, Verdict>) -> Verdict {
    let started = Instant::now();
    check_by(&|| started.elapsed(), case, run)
}

/// [`check`] by a clock that says how long it has gone on.
fn check_by(
    clock: &dyn Fn() -> Duration,
    case: Case<'_>,
    run: &mut dyn FnMut(&Reference) -> Result<Vec<Value>, Verdict>,
) -> Verdict {
    let quantised = quantises_dynamically(case.graph);
    let allowed = if quantised { Allowed::QUANTISED } else { Allowed::PLAIN };
    match case.data {
        Some(data) => check_samples(clock, case, data, quantised, allowed, run),
        None => check_synthetic(clock, case, quantised, allowed, run),
    }
}

fn check_synthetic(
    clock: &dyn Fn() -> Duration,
    case: Case<'_>,
    quantised: bool,
    allowed: Allowed,
    run: &mut dyn FnMut(&Reference) -> Result<Vec<Value>, Verdict>,
) -> Verdict {
    let mut verdict = None;
    for seed in if quantised { &SEEDS[..] } else { &SEEDS[..1] } {
        let now = trial(case, &Source::Seed(*seed), allowed, run);
        match (&now, &verdict) {
            // Inputs for which nothing can be said do not excuse those that differed.
            (Verdict::NotChecked(_), Some(_)) => break,
            (Verdict::Different(_), None) => verdict = Some(now),
            (Verdict::Different(_), Some(_)) => {}
            _ => return now,
        }
        if clock() > case.limit {
            break;
        }
    }
    verdict.unwrap_or_else(|| Verdict::NotChecked("no inputs were tried".into()))
}

fn check_samples(
    clock: &dyn Fn() -> Duration,
    case: Case<'_>,
    data: &Data,
    quantised: bool,
    allowed: Allowed,
    run: &mut dyn FnMut(&Reference) -> Result<Vec<Value>, Verdict>,
) -> Verdict {
    let (mut compared, mut most, mut different, mut unclear) = (0, 0f64, None, None);
    // Each sample is checked by itself, with the state of the start where it gives none.
    let stateful = match data.stateful(case.graph) {
        Ok(graph) => graph,
        Err(f) => return Verdict::NotChecked(f.message()),
    };
    let case = Case { graph: &stateful, ..case };
    for k in 0..data.len() {
        let sample = match data.sample(k) {
            Ok(sample) => sample,
            Err(f) => return Verdict::NotChecked(f.message()),
        };
        let about = |why: String| match sample.name.is_empty() {
            true => format!("{}: {why}", data.path),
            false => format!("{}: {}: {why}", data.path, sample.name),
        };
        match trial(case, &Source::Sample(&sample), allowed, run) {
            Verdict::Equal { worst, .. } => {
                compared += 1;
                most = most.max(worst);
            }
            Verdict::Different(why) if quantised => {
                different.get_or_insert(about(why));
            }
            Verdict::Different(why) => return Verdict::Different(about(why)),
            Verdict::NotChecked(why) => {
                unclear.get_or_insert(about(why));
            }
        }
        if clock() > case.limit {
            break;
        }
    }
    match (compared, different, unclear) {
        (0, Some(why), _) => Verdict::Different(why),
        (0, None, why) => Verdict::NotChecked(why.unwrap_or_else(|| "there are no samples".into())),
        (samples, ..) => {
            let (of, path) = (data.len(), data.path.clone());
            Verdict::Equal { worst: most, on: Basis { synthetic: false, samples, of, path } }
        }
    }
}

fn trial(
    case: Case<'_>,
    source: &Source<'_>,
    allowed: Allowed,
    run: &mut dyn FnMut(&Reference) -> Result<Vec<Value>, Verdict>,
) -> Verdict {
    let reference = match reference(case.graph, source, case.limit / 2) {
        Ok(r) => r,
        Err(why) => return Verdict::NotChecked(why),
    };
    match run(&reference) {
        Ok(outputs) => compare_outputs(&outputs, &reference, allowed, case.graph),
        Err(verdict) => verdict,
    }
}

/// Whether something is quantised with a scale that depends on the inputs.
fn quantises_dynamically(graph: &Graph) -> bool {
    graph.all_nodes().into_iter().any(|n| {
        let node = graph.node(n);
        let scale = node.inputs.get(1).copied().flatten();
        matches!(node.op, Op::DynamicQuantize(_))
            || matches!(node.op, Op::Quantize(_)) && scale.is_some_and(|s| computed(graph, s))
    })
}

/// Whether a value depends on parameters of its region.
fn computed(graph: &Graph, v: ValueId) -> bool {
    let (mut work, mut seen) = (vec![v], BTreeSet::new());
    while let Some(v) = work.pop() {
        if seen.insert(v) {
            let Some(n) = graph.def_node(v) else { return true };
            work.extend(graph.node(n).inputs.iter().flatten());
        }
    }
    false
}

/// Runs the interpreter for at most `limit`. For synthetic inputs, sizes of free dims are tried in turn.
///
/// The interpreter works in a thread of its own, which is left alone when the time is over.
fn reference(graph: &Graph, source: &Source<'_>, limit: Duration) -> Result<Reference, String> {
    if has_random_effects(graph) {
        return Err("the model draws random numbers".into());
    }
    let (send, receive) = mpsc::channel();
    let graph = graph.clone();
    let attempt: Box<dyn FnOnce() -> Result<Reference, String> + Send> = match source {
        Source::Seed(seed) => {
            let seed = *seed;
            Box::new(move || synthetic_run(&graph, seed))
        }
        Source::Sample(sample) => {
            let inputs = sample.complete(&graph).map_err(|d| d.to_string())?;
            Box::new(move || sample_run(&graph, inputs))
        }
    };
    let work = move || {
        // The receiver may be gone: nobody waits any more.
        let _ = send.send(attempt());
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

fn sample_run(graph: &Graph, inputs: Vec<Value>) -> Result<Reference, String> {
    let program = Interpreter.prepare(graph, &options()).map_err(|d| Failure::from(d).message())?;
    let given: Vec<Option<Value>> = inputs.iter().cloned().map(Some).collect();
    let result = program.session().and_then(|mut s| s.run(&given));
    let result = result.map_err(|e| format!("the interpreter does not run on it: {e}"))?;
    Ok(Reference { inputs, outputs: result.values })
}

fn synthetic_run(graph: &Graph, seed: u64) -> Result<Reference, String> {
    let program = Interpreter.prepare(graph, &options()).map_err(|d| Failure::from(d).message())?;
    let free = !synthetic::symbols(graph, 1).is_empty();
    let mut why = String::new();
    for size in if free { &synthetic::SIZES[..] } else { &synthetic::SIZES[..1] } {
        let symbols = synthetic::symbols(graph, *size);
        let inputs = synthetic::inputs(graph, &symbols, seed).map_err(|f| f.message())?;
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

/// Tolerance for an output: a part of each element, and a part of the largest one or of 1.
#[derive(Clone, Copy, Debug)]
struct Allowed {
    of_element: f64,
    of_largest: f64,
}

impl Allowed {
    const PLAIN: Allowed = Allowed { of_element: 1e-3, of_largest: 1e-4 };
    const QUANTISED: Allowed = Allowed { of_element: 2e-2, of_largest: 2e-2 };

    fn for_value(self, value: &Value) -> Tolerance {
        let largest = match value {
            Value::Tensor(t) => {
                t.to_f64().into_iter().filter(|x| x.is_finite()).fold(1.0, |m, x| x.abs().max(m))
            }
            _ => 1.0,
        };
        Tolerance { rtol: self.of_element, atol: self.of_largest * largest }
    }
}

/// Compares outputs with those of the reference.
fn compare_outputs(got: &[Value], reference: &Reference, allowed: Allowed, graph: &Graph) -> Verdict {
    if got.len() != reference.outputs.len() {
        return Verdict::Different(format!("{} outputs instead of {}", got.len(), reference.outputs.len()));
    }
    let mut worst = 0f64;
    for (i, (g, w)) in got.iter().zip(&reference.outputs).enumerate() {
        let d = compare::values(g, w, allowed.for_value(w));
        if let Some(why) = d.why {
            return Verdict::Different(format!("output {:?}: {why}", graph.output_name(i)));
        }
        worst = worst.max(d.worst);
    }
    Verdict::Equal { worst, on: Basis { synthetic: true, ..Basis::default() } }
}

/// Checks an optimised graph against the original, both in the interpreter: the limit for the optimised one, half of
/// it for the original, of each sample.
pub fn graphs(case: Case<'_>, optimised: &Graph) -> Verdict {
    let limit = case.limit;
    check(case, &mut |reference| {
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
        let spawned = std::thread::Builder::new().stack_size(64 << 20).spawn(work);
        spawned.map_err(|e| Verdict::NotChecked(e.to_string()))?;
        match receive.recv_timeout(limit) {
            Ok(Ok(result)) => Ok(result.values),
            Ok(Err(why)) => Err(Verdict::Different(why)),
            Err(_) => Err(Verdict::NotChecked("the optimised graph was not done in time".into())),
        }
    })
}

impl Verdict {
    /// The finding that says so.
    pub fn diag(&self) -> Diag {
        match self {
            Verdict::Equal { worst, on } => Diag::remark(
                "check-equal",
                format!("equal to the interpreter on {on} ({:.1}% of the tolerance)", worst * 100.0),
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
            Verdict::Equal { worst, on } => serde_json::json!({
                "verdict": "equal",
                "worst": worst,
                "inputs": on.to_string(),
                "samples": on.samples,
            }),
            Verdict::Different(why) => serde_json::json!({"verdict": "different", "why": why}),
            Verdict::NotChecked(why) => serde_json::json!({"verdict": "not-checked", "why": why}),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    fn graph(scale: &str) -> Graph {
        let text = format!(
            "planish-ir 1\ngraph @\"m\"(v0 \"x\": f32[8], v1 \"s\": f32[]) {{\n  v2 = const f32[] [0.5]\n  v3 = quantize{{axis=0, block=0, to=u8, saturate=true, precision=f32}} v0, {scale} : u8[8]\n  return v3 \"y\"\n}}\n"
        );
        planish_ir::text::parse(&text).unwrap_or_else(|e| panic!("{e}\n{text}"))
    }

    #[test]
    fn one_equal_trial_is_enough_only_where_scales_are_computed() {
        for (scale, tries) in [("v1", SEEDS.len()), ("v2", 1)] {
            let graph = graph(scale);
            let mut calls = 0;
            let case = Case { graph: &graph, data: None, limit: Duration::from_secs(60) };
            let wrong = check(case, &mut |r| {
                calls += 1;
                let Ok(t) = r.outputs[0].tensor() else { return Ok(Vec::new()) };
                let off = t.to_f64().iter().map(|x| *x as i128 + 100).collect();
                let t =
                    planish_ir::Tensor::from_elems(t.dtype(), t.shape().to_vec(), planish_ir::Elems::I(off));
                Ok(vec![t.map_err(|d| Verdict::Different(d.message))?.into()])
            });
            assert!(matches!(wrong, Verdict::Different(_)), "{wrong:?}");
            assert_eq!(calls, tries);
            let mut calls = 0;
            let late = check(case, &mut |r| {
                calls += 1;
                if calls == tries { Ok(r.outputs.clone()) } else { Ok(Vec::new()) }
            });
            let on = Basis { synthetic: true, ..Basis::default() };
            assert_eq!(late, Verdict::Equal { worst: 0.0, on });
        }
    }

    #[test]
    fn every_sample_counts_but_for_models_that_compute_scales() -> Result<(), Diag> {
        let sample = |k: usize| -> Result<Sample, Diag> {
            let x = planish_ir::Tensor::f32s(&[8], &[k as f32; 8])?;
            let s = planish_ir::Tensor::f32s(&[], &[0.5])?;
            let values = vec![Some(x.into()), Some(s.into())];
            Ok(Sample { name: format!("s{k}"), values, labels: None })
        };
        let data = Data::of_samples("d", (0..3).map(sample).collect::<Result<Vec<_>, _>>()?);
        for (scale, strict) in [("v1", false), ("v2", true)] {
            let graph = graph(scale);
            let case = Case { graph: &graph, data: Some(&data), limit: Duration::from_secs(60) };
            let all = check(case, &mut |r| Ok(r.outputs.clone()));
            assert_eq!(
                all.diag().message,
                "equal to the interpreter on all 3 samples of d (0.0% of the tolerance)"
            );
            // One of them differs.
            let mut calls = 0;
            let one = check(case, &mut |r| {
                calls += 1;
                if calls == 2 { Ok(Vec::new()) } else { Ok(r.outputs.clone()) }
            });
            match one {
                Verdict::Different(why) if strict => assert!(why.starts_with("d: s1: "), "{why}"),
                Verdict::Equal { on, .. } if !strict => assert_eq!(on.to_string(), "2 of the 3 samples of d"),
                other => panic!("{other:?}"),
            }
            assert!(matches!(check(case, &mut |_| Ok(Vec::new())), Verdict::Different(_)));
            // By a clock that every run moves on by 25 s: the time is over after so many.
            for (limit, samples) in [(24, 1), (49, 2), (74, 3), (100, 3)] {
                let case = Case { limit: Duration::from_secs(limit), ..case };
                let now = Cell::new(Duration::ZERO);
                let late = check_by(&|| now.get(), case, &mut |r| {
                    now.set(now.get() + Duration::from_secs(25));
                    Ok(r.outputs.clone())
                });
                let Verdict::Equal { on, .. } = late else { panic!("{late:?}") };
                assert_eq!((on.samples, on.of), (samples, 3));
            }
        }
        Ok(())
    }
}
