//! One random graph on several engines: all must agree with the reference interpreter.

use crate::smith::{Built, RECIPES, Sketch, compare};
use planish_ir::text::print;
use planish_ir::verify::verify;
use planish_ir::{Diag, Engine, Graph, Interpreter, PrepareOptions, RunResult, Value};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

thread_local! {
    /// Whether this thread is running a graph, whose panics are caught.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// How one graph went on one engine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The results agree.
    Agrees,
    /// The engine says that it does not do something the graph uses; also an error at run time that the reference
    /// reports as well.
    Unsupported(String),
    /// The graph shows a bug.
    Differs(String),
}

fn messages(diags: &[Diag]) -> String {
    diags.iter().map(Diag::to_string).collect::<Vec<_>>().join("; ")
}

/// The outputs of a graph, and what its run counted.
fn outputs(engine: &dyn Engine, graph: &Graph, inputs: &[Option<Value>]) -> Result<RunResult, Vec<Diag>> {
    let program = engine.prepare(graph, &PrepareOptions::default())?;
    let result = program.session().and_then(|mut session| session.run(inputs));
    result.map_err(|diag| vec![diag])
}

/// Runs a sketch on the interpreter and on `engine`. A panic is a difference; its message is reported once, with the
/// shrunken graph, so the panic hook is left out.
pub fn run(sketch: &Sketch, engine: &dyn Engine) -> Outcome {
    static QUIET: Once = Once::new();
    QUIET.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !INSIDE.get() {
                usual(info);
            }
        }));
    });
    INSIDE.set(true);
    let attempt = catch_unwind(AssertUnwindSafe(|| run_built(&sketch.build(), engine)));
    INSIDE.set(false);
    attempt.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
        Outcome::Differs(format!("panic: {}", text.unwrap_or_default()))
    })
}

fn run_built(built: &Built, engine: &dyn Engine) -> Outcome {
    let found = verify(&built.graph);
    if !found.is_empty() {
        return Outcome::Differs(format!("the verifier rejects the graph: {}", messages(&found)));
    }
    let inputs: Vec<Option<Value>> = built.inputs.iter().map(|t| Some(Value::from(t.clone()))).collect();
    let reference = outputs(&Interpreter, &built.graph, &inputs);
    match (outputs(engine, &built.graph, &inputs), reference) {
        (Err(ours), _) if ours.iter().all(Diag::is_unsupported) => Outcome::Unsupported(messages(&ours)),
        (Err(ours), Err(_)) => Outcome::Unsupported(messages(&ours)),
        (Err(ours), Ok(_)) => Outcome::Differs(messages(&ours)),
        (Ok(_), Err(theirs)) => {
            Outcome::Differs(format!("the interpreter alone fails: {}", messages(&theirs)))
        }
        (Ok(ours), Ok(theirs)) => {
            // The other engines run passes first, which may do away with what is counted.
            let counted = |r: &RunResult| r.counters.clone().into_iter().filter(|(_, n)| *n > 0).collect();
            let (a, b): (BTreeMap<String, u64>, BTreeMap<String, u64>) = (counted(&ours), counted(&theirs));
            if engine.name() == "kinterp" && a != b {
                return Outcome::Differs(format!("it counts {a:?}, not {b:?}"));
            }
            agreement(built, &ours.values, &theirs.values)
        }
    }
}

fn agreement(built: &Built, ours: &[Value], theirs: &[Value]) -> Outcome {
    if ours.len() != theirs.len() {
        return Outcome::Differs(format!("{} outputs instead of {}", ours.len(), theirs.len()));
    }
    for (i, (a, b)) in ours.iter().zip(theirs).enumerate() {
        if let Err(why) = compare(a, b, built.exact.get(i).copied().unwrap_or(false)) {
            return Outcome::Differs(format!("output {i}: {why}"));
        }
    }
    Outcome::Agrees
}

/// For every recipe whether the engine supports one of a few graphs of it alone.
pub fn supported(engine: &dyn Engine) -> Vec<bool> {
    let runs = |sketch: &Sketch, op: &str| {
        let graph = sketch.build().graph;
        let there = graph.all_nodes().iter().any(|n| graph.node(*n).op.name() == op);
        there && !matches!(run(sketch, engine), Outcome::Unsupported(_))
    };
    let alone = |recipe: usize| {
        (1..13).any(|seed| runs(&Sketch { seed, steps: vec![(recipe, seed)] }, RECIPES[recipe].op))
    };
    (0..RECIPES.len()).map(alone).collect()
}

/// The operations of a sketch with their fields, without constants: what kind of graph it is.
pub fn kinds(sketch: &Sketch) -> Vec<String> {
    let graph = sketch.build().graph;
    let mut names = Vec::new();
    for n in graph.all_nodes() {
        let op = &graph.node(n).op;
        let mut fields = String::new();
        op.write_attrs(&mut fields);
        let kind = fields.split(',').next().unwrap_or_default();
        if op.name() != "const" {
            names.push(format!("{} {}", op.name(), if kind.starts_with("kind=") { kind } else { "" }));
        }
    }
    names.sort();
    names.dedup();
    names
}

/// A report of a failure for people: the shrunken graph, its inputs, and how to see it again.
pub fn report(small: &Sketch, engine: &dyn Engine) -> String {
    let built = small.build();
    let inputs: Vec<String> =
        built.inputs.iter().map(|t| format!("{}{:?} {:?}", t.dtype(), t.shape(), t.elems())).collect();
    format!(
        "seed {} on {}: {:?}\n{}\ninputs:\n  {}",
        small.seed,
        engine.name(),
        run(small, engine),
        print(&built.graph),
        inputs.join("\n  ")
    )
}
