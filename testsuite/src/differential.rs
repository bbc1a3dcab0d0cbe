//! One random graph on several engines: all must agree with the reference interpreter.

use crate::smith::{Built, Sketch, compare};
use planish_ir::text::print;
use planish_ir::verify::verify;
use planish_ir::{Diag, Engine, Graph, Interpreter, PrepareOptions, Value};
use std::panic::{AssertUnwindSafe, catch_unwind};

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

/// The outputs of a graph.
fn outputs(engine: &dyn Engine, graph: &Graph, inputs: &[Option<Value>]) -> Result<Vec<Value>, Vec<Diag>> {
    let program = engine.prepare(graph, &PrepareOptions::default())?;
    let result = program.session().and_then(|mut session| session.run(inputs));
    result.map(|result| result.values).map_err(|diag| vec![diag])
}

/// Runs a sketch on the interpreter and on `engine`.
pub fn run(sketch: &Sketch, engine: &dyn Engine) -> Outcome {
    let attempt = catch_unwind(AssertUnwindSafe(|| run_built(&sketch.build(), engine)));
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
        (Ok(ours), Ok(theirs)) => agreement(built, &ours, &theirs),
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

/// A report of a failure for people: the shrunken graph, its inputs, and how to see it again.
pub fn report(sketch: &Sketch, engine: &dyn Engine) -> String {
    let small = sketch.shrink(&|s| matches!(run(s, engine), Outcome::Differs(_)));
    let built = small.build();
    let inputs: Vec<String> =
        built.inputs.iter().map(|t| format!("{}{:?} {:?}", t.dtype(), t.shape(), t.elems())).collect();
    format!(
        "seed {} ({} of {} steps) on {}: {:?}\n{}\ninputs:\n  {}",
        sketch.seed,
        small.steps.len(),
        sketch.steps.len(),
        engine.name(),
        run(&small, engine),
        print(&built.graph),
        inputs.join("\n  ")
    )
}
