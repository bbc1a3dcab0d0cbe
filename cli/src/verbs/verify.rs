//! `planish verify`: two models node by node, at the values that both have.

use crate::compare::{self, Tolerance};
use crate::exit::Exit;
use crate::failure::{Failure, Result};
use crate::inputs::{self, InputArgs, Signature};
use crate::load::{self, LoadOptions, SafetyArgs};
use crate::shapes::{ShapeArgs, Shapes};
use crate::synthetic;
use crate::ui::{Format, Ui, schema};
use planish_ir::{Diag, Engine, Graph, Interpreter, PrepareOptions, RunResult, Value, ValueId};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Compare two models node by node and name the first divergence
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The model that is right
    pub a: PathBuf,
    /// The model to compare with it
    pub b: PathBuf,
    #[command(flatten)]
    pub inputs: InputArgs,
    /// Relative tolerance
    #[arg(long, value_name = "R", default_value_t = Tolerance::default().rtol)]
    pub rtol: f64,
    /// Absolute tolerance
    #[arg(long, value_name = "A", default_value_t = Tolerance::default().atol)]
    pub atol: f64,
    #[command(flatten)]
    pub shapes: ShapeArgs,
    #[command(flatten)]
    pub safety: SafetyArgs,
    /// Form of the result on stdout
    #[arg(long, value_enum, default_value_t, help_heading = "Output")]
    pub format: Format,
}

/// Runs the verb.
pub fn run(args: &Args, ui: &Ui) -> Result<Exit> {
    let load = LoadOptions::new(&args.safety, Shapes::parse(&args.shapes)?);
    let (a, b) = (load::load(&args.a, &load)?.graph, load::load(&args.b, &load)?.graph);
    let (count, other) = (a.inputs().len(), b.inputs().len());
    if count != other || a.outputs().len() != b.outputs().len() {
        let text = "the models have different numbers of inputs or outputs";
        return Err(Failure::new("signature-mismatch", text));
    }
    let signature = Signature::of(&a);
    let given = args.inputs.inputs.is_some() || !args.inputs.input.is_empty();
    let samples: Vec<Vec<Option<Value>>> = if given {
        let samples = inputs::read(&args.inputs, &signature)?;
        if let Some(f) = samples.first().and_then(|s| inputs::missing(s, &signature, &[])) {
            return Err(f);
        }
        samples.into_iter().map(|s| s.values).collect()
    } else {
        ui.say("no inputs are given: synthetic ones are used");
        let made = synthetic::inputs(&a, &synthetic::symbols(&a, synthetic::SIZES[0]), 0x5eed)?;
        vec![made.into_iter().map(Some).collect()]
    };
    let common = common(&a, &b);
    let tolerance = Tolerance { rtol: args.rtol, atol: args.atol };
    let mut first: Option<(usize, String, String)> = None;
    for (k, sample) in samples.iter().enumerate() {
        let taps = |f: &dyn Fn(&(String, ValueId, ValueId)) -> ValueId| common.iter().map(f).collect();
        let x = execute(&a, taps(&|c| c.1), sample, &args.safety)?;
        let y = execute(&b, taps(&|c| c.2), sample, &args.safety)?;
        let inner = common.iter().map(|c| c.0.clone()).zip(x.taps.iter().zip(&y.taps));
        let names = (0..a.outputs().len()).map(|i| format!("output {:?}", a.output_name(i)));
        for (name, (want, got)) in inner.chain(names.zip(x.values.iter().zip(&y.values))) {
            if let Some(why) = compare::values(got, want, tolerance).why {
                first = Some((k, name, why));
                break;
            }
        }
        if first.is_some() {
            break;
        }
    }
    let boundaries = common.len() + a.outputs().len();
    match args.format {
        Format::Json => ui.json(&schema(
            "planish.verify",
            json!({
                "a": args.a.display().to_string(), "b": args.b.display().to_string(), "samples": samples.len(),
                "boundaries": boundaries, "equal": first.is_none(),
                "first": first.as_ref().map(|(k, name, why)| json!({"sample": k, "value": name, "why": why})),
            }),
        )),
        Format::Text if first.is_none() => {
            ui.out(format!("equal at {boundaries} boundaries on {} samples", samples.len()));
        }
        Format::Text => {}
    }
    match first {
        None => Ok(Exit::Ok),
        Some((k, name, why)) => {
            let text = format!("sample {k}: the first divergence is at {name}: {why}");
            Err(Diag::error("mismatch", text).into())
        }
    }
}

/// Computed values of the root regions that have the same name and a type that may be equal, in the order of `a`.
fn common(a: &Graph, b: &Graph) -> Vec<(String, ValueId, ValueId)> {
    let named = |g: &Graph| {
        let mut out: Vec<(String, ValueId)> = Vec::new();
        for n in g.nodes_in(g.root()) {
            for v in &g.node(n).outputs {
                if let Some(name) = g.value(*v).name.as_deref().filter(|_| g.as_const(*v).is_none()) {
                    out.push((name.to_owned(), *v));
                }
            }
        }
        out
    };
    let others: BTreeMap<String, ValueId> = named(b).into_iter().collect();
    let pair = |(name, v): (String, ValueId)| {
        let w = *others.get(&name)?;
        a.ty(v).fits(b.ty(w)).then(|| (format!("{name:?}"), v, w))
    };
    named(a).into_iter().filter_map(pair).collect()
}

fn execute(
    graph: &Graph,
    taps: Vec<ValueId>,
    sample: &[Option<Value>],
    safety: &SafetyArgs,
) -> Result<RunResult> {
    let options = PrepareOptions {
        taps,
        max_steps: safety.max_steps,
        max_memory: safety.max_memory,
        ..PrepareOptions::default()
    };
    Ok(Interpreter.prepare(graph, &options)?.session()?.run(sample)?)
}
