//! `planish advise`: what would make a model faster, before anybody trains.

use crate::advise::{self, Advice, Found};
use crate::data::{Data, DataArgs};
use crate::exit::Exit;
use crate::failure::{Failure, Result};
use crate::load::{self, LoadOptions, SafetyArgs};
use crate::shapes::{ShapeArgs, Shapes};
use crate::synthetic;
use crate::ui::{Format, Ui, schema};
use planish_ir::{DType, Tensor, Value as Val};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Duration;

/// Measure what methods would give for a model on this machine
///
/// Each method is built with its zeros or integers and measured beside the dense program: the speed is what there is to gain if
/// accuracy survives, for which the table says how good the evidence is (measured: on labels; proxy: nearness to the dense outputs;
/// none). Ends with 1 if nothing is at least 1.1 times as fast.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The model
    pub model: PathBuf,
    /// Time for all of it, about
    #[arg(long, default_value = "2m", value_parser = crate::units::duration)]
    pub budget: Duration,
    /// Threads
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub threads: u32,
    #[command(flatten)]
    pub data: DataArgs,
    #[command(flatten)]
    pub shapes: ShapeArgs,
    #[command(flatten)]
    pub safety: SafetyArgs,
    /// Form of the report on stdout
    #[arg(long, value_enum, default_value_t, help_heading = "Output")]
    pub format: Format,
}

/// Samples that results are judged on take at most so much memory.
const JUDGED_BYTES: usize = 512 << 20;
/// Samples that are made up where none are given.
const MADE_UP: u64 = 4;

/// Runs the verb.
pub fn run(args: &Args, ui: &Ui) -> Result<Exit> {
    let load = LoadOptions::new(&args.safety, Shapes::parse(&args.shapes)?);
    let model = load::load(&args.model, &load)?;
    ui.diags(&model.warnings);
    let found = crate::cost::too_large(&model.graph, args.safety.max_memory.unwrap_or(u64::MAX));
    if !found.is_empty() {
        return Err(found.into());
    }
    let path = args.model.display().to_string();
    let data = args.data.read(&model.graph)?;
    data.iter().for_each(|d| d.tell(ui));
    // Ranges come from other samples than those that results are judged on.
    let split = data.as_ref().map(|d| args.data.split(d, &model.graph, None)).transpose()?;
    let (seen, judged) = match split {
        Some((seen, held)) => (Some(seen.clone()), Some(held.map_or(seen, |(held, _)| held))),
        None => (None, None),
    };
    let (inputs, labels) = match &judged {
        Some(d) => loaded(d)?,
        None => {
            let free = synthetic::symbols(&model.graph, 1);
            if !free.is_empty() {
                let sets: Vec<String> =
                    free.keys().map(|s| format!("--set '{}=1'", model.graph.symbols.get(*s).name)).collect();
                let text = format!(
                    "dims are free; set them, or give --data:\n  planish advise '{path}' {}",
                    sets.join(" ")
                );
                return Err(Failure::new("symbol-free", text));
            }
            let made = (0..MADE_UP).map(|seed| synthetic::inputs(&model.graph, &free, seed));
            let made = made.collect::<Result<Vec<Vec<Val>>>>()?;
            (made.into_iter().map(|s| s.into_iter().map(Some).collect()).collect(), Vec::new())
        }
    };
    let progress = ui.progress("methods", advise::parts());
    let threads = args.threads as usize;
    let advice =
        advise::advise(&model, seen.as_ref(), (&inputs, &labels), threads, args.budget, &mut || {
            progress.step()
        })?;
    progress.finish();
    let samples = data.as_ref().map(|d| d.path.as_str());
    match args.format {
        Format::Json => ui.json(&report(&advice, &path, samples, args.threads)),
        Format::Text => show(&advice, &path, samples, args.threads, ui),
    }
    Ok(if advice.gaining().is_empty() { Exit::Budget } else { Exit::Ok })
}

/// The first samples, and the labels of their rows if all have some.
fn loaded(data: &Data) -> Result<(Vec<Vec<Option<Val>>>, Vec<Tensor>)> {
    let (mut inputs, mut labels, mut bytes) = (Vec::new(), Vec::new(), 0);
    for k in 0..data.len() {
        let sample = data.sample(k)?;
        bytes += sample.values.iter().flatten().map(size).sum::<usize>();
        if k > 0 && bytes > JUDGED_BYTES {
            break;
        }
        if let Some(l) = &sample.labels {
            let all = l.iter().map(|x| i128::from(*x)).collect();
            labels.push(Tensor::ints(DType::I64, &[l.len()], all)?);
        }
        inputs.push(sample.values);
    }
    if labels.len() != inputs.len() {
        labels.clear();
    }
    Ok((inputs, labels))
}

fn size(v: &Val) -> usize {
    v.tensor().map_or(0, |t| t.len() * t.dtype().size())
}

fn report(a: &Advice, path: &str, data: Option<&str>, threads: u32) -> Value {
    let method = |f: &Found| {
        json!({
            "name": f.method.name,
            "passes": f.method.passes,
            "ms": f.speed.map(|s| s.0),
            "speedup": f.speed.map(|(_, r)| json!({"ratio": r.ratio, "low": r.low, "high": r.high})),
            "bound": a.bound(f.method.left),
            "evidence": f.evidence.json(),
            "why": f.why,
            "next": f.candidate.is_some().then(|| f.method.command(path, data)),
        })
    };
    let gaining = a.gaining();
    schema(
        "planish.advise",
        json!({
            "model": path,
            "cpu": crate::lock::processor(),
            "threads": threads,
            "data": data,
            "dense_ms": a.dense_ms,
            "changeable_share": a.share,
            "methods": a.found.iter().map(method).collect::<Vec<_>>(),
            "verdict": {
                "helps": !gaining.is_empty(),
                "best": gaining.first().map(|f| f.method.name),
                "why": gaining.is_empty().then(|| a.why_not()),
            },
        }),
    )
}

fn show(a: &Advice, path: &str, data: Option<&str>, threads: u32, ui: &Ui) {
    ui.out(format!(
        "{path}: dense {:.4} ms with {threads} threads on {}",
        a.dense_ms,
        crate::lock::processor()
    ));
    if let (Some(share), Some(most)) = (a.share, a.bound(0.1)) {
        ui.out(format!(
            "{:.0}% of the time is in products and convolutions with constant weights: without nine of ten of these, {most:.2} times as fast at most",
            100.0 * share
        ));
    }
    ui.out(format!("{:<28} {:>9} {:>19}  if accuracy survives; evidence", "method", "ms", "times as fast"));
    for f in &a.found {
        let (ms, speed) = match f.speed {
            Some((ms, r)) => (format!("{ms:.4}"), format!("{:.2} ({:.2}..{:.2})", r.ratio, r.low, r.high)),
            None => ("-".into(), "-".into()),
        };
        let said = f.why.clone().unwrap_or_else(|| f.evidence.text());
        ui.out(format!("{:<28} {ms:>9} {speed:>19}  {said}", f.method.name));
    }
    let gaining = a.gaining();
    if gaining.is_empty() {
        ui.out(format!("nothing of this will help: {}", a.why_not()));
        return;
    }
    if data.is_none() {
        ui.out("inputs were synthetic: nearness says little about accuracy; give --data, with the key `label` where there are labels");
    }
    ui.out("next, the fastest first:");
    for f in gaining.iter().take(3) {
        ui.out(format!("  {}", f.method.command(path, data)));
    }
}
