//! `planish bench`: alternating, paired measurement.

use crate::bench::judge::{Clock, Limit, Outcome};
use crate::bench::profile;
use crate::bench::run::{self, Found, Options, Ready};
use crate::bench::thing::{Kind, Thing};
use crate::engine::codegen;
use crate::exit::Exit;
use crate::failure::{Failure, Result};
use crate::files::Writer;
use crate::inputs::{self, InputArgs, Signature};
use crate::load::{self, LoadOptions, SafetyArgs};
use crate::report::{self, Inputs, Report};
use crate::shapes::{ShapeArgs, Shapes};
use crate::ui::{Format, Ui};
use crate::{emit, engine, manifest, synthetic};
use planish_ir::{Diag, Graph, Value as Val};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Measure models, programs, ONNX Runtime and commands in turns
#[derive(Debug, clap::Args)]
pub struct Args {
    /// [LABEL=]PATH of a model or program, ort:PATH (ONNX Runtime on that model), cmd:COMMAND; the first is the base. Or a
    /// manifest (.toml), whose models name their bases
    #[arg(required = true, value_name = "THING")]
    pub things: Vec<String>,
    #[command(flatten)]
    pub inputs: InputArgs,
    /// Numbers of threads, with commas between
    #[arg(long, value_delimiter = ',', value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub threads: Vec<u32>,
    /// Time for each thing [default: 5s]
    #[arg(long, value_name = "5s", value_parser = crate::units::duration)]
    pub duration: Option<Duration>,
    /// Stop early when every ratio is known to this width
    #[arg(long, value_parser = crate::units::percent, value_name = "1%")]
    pub interval: Option<f64>,
    /// Fail with 1 when another thing is slower than the base by more, after measuring it twice
    #[arg(long, value_parser = crate::units::percent, value_name = "3%")]
    pub max_regression: Option<f64>,
    /// A budget that is not decided is a warning
    #[arg(long)]
    pub inconclusive_ok: bool,
    /// Write the report
    #[arg(long, value_name = "R.json")]
    pub report: Option<PathBuf>,
    /// Also the time of every kernel, against what this machine can do at most
    #[arg(long)]
    pub profile: bool,
    /// Replace files that planish did not write
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub shapes: ShapeArgs,
    #[command(flatten)]
    pub safety: SafetyArgs,
    /// Form of the report on stdout
    #[arg(long, value_enum, default_value_t, help_heading = "Output")]
    pub format: Format,
}

/// Time for each thing, unless told otherwise.
pub const DURATION: Duration = Duration::from_secs(5);

/// Runs the verb.
pub fn run(args: &Args, ui: &Ui) -> Result<Exit> {
    if let Some(path) = args.things.iter().map(Path::new).find(|p| manifest::is_manifest(p)) {
        if args.things.len() > 1 {
            return Err(Failure::usage("a manifest stands alone; its models name their bases"));
        }
        return super::many::bench(args, path, ui);
    }
    let writer = Writer::new(args.force);
    if let Some(path) = &args.report {
        writer.check(path)?;
    }
    let things: Vec<Thing> = args.things.iter().map(|t| Thing::parse(t)).collect();
    if args.max_regression.is_some() && things.len() < 2 {
        return Err(Failure::usage("--max-regression compares with the first thing, and there is only one"));
    }
    let shapes = Shapes::parse(&args.shapes)?;
    let threads: Vec<usize> = match args.threads.as_slice() {
        [] => vec![engine::default_threads()],
        list => list.iter().map(|n| *n as usize).collect(),
    };
    let mut report = Report::new(report::Command::Bench);
    let given = args.inputs.inputs.is_some() || !args.inputs.input.is_empty();
    report.inputs = Some(if given { Inputs::Given } else { Inputs::Synthetic });
    for (set, shapes) in shapes.variants() {
        let work = tempfile::Builder::new().prefix("planish-bench-").tempdir();
        let work = work.map_err(|e| Failure::file(&std::env::temp_dir(), e))?;
        let ready = prepare(&things, args, shapes, work.path(), ui)?;
        for n in &threads {
            let options = Options {
                duration: args.duration.unwrap_or(DURATION),
                interval: args.interval,
                threads: *n,
                set: set.clone(),
                profile: args.profile,
                limits: args.max_regression.map(Limit::Regression).into_iter().collect(),
            };
            let Found { results, pairs, budgets } = run::measure(&ready, &options, ui)?;
            report.results.extend(results);
            report.pairs.extend(pairs);
            report.budgets.extend(budgets);
        }
    }
    let exit = verdict(&report.budgets, args.inconclusive_ok, ui);
    report.exit = exit.code();
    if let [only] = report.results.as_slice() {
        (report.median_ms, report.p10_ms, report.p90_ms) =
            (Some(only.median_ms), Some(only.p10_ms), Some(only.p90_ms));
    }
    if let Some(path) = &args.report {
        writer.write(path, &report.file()?)?;
    }
    match args.format {
        Format::Json => ui.json(&report.json()?),
        Format::Text => show(&report, ui),
    }
    Ok(exit)
}

/// Says which budgets are violated or undecided; how the command ends by them.
pub fn verdict(budgets: &[report::Budget], inconclusive_ok: bool, ui: &Ui) -> Exit {
    let mut exit = Exit::Ok;
    for b in budgets {
        let what =
            if b.subject.is_empty() { b.budget.clone() } else { format!("{}: {}", b.subject, b.budget) };
        match b.outcome {
            Outcome::Kept => {}
            Outcome::Violated => {
                exit = exit.and(Exit::Budget);
                ui.diag(&Diag::error("budget", format!("{what} is {}, found {}", b.limit, b.found)));
            }
            Outcome::Undecided => {
                let found = if b.found.is_empty() { "nothing to judge it by" } else { &b.found };
                let text = format!("{what} is {}, found {found}: not decided", b.limit);
                if inconclusive_ok {
                    ui.diag(&Diag::warning("inconclusive", text));
                } else {
                    exit = exit.and(Exit::Inconclusive);
                    ui.diag(&Diag::error("inconclusive", text));
                }
            }
        }
    }
    exit
}

/// Compiles models, and writes one folder of inputs for all.
fn prepare(things: &[Thing], args: &Args, shapes: Shapes, work: &Path, ui: &Ui) -> Result<Vec<Ready>> {
    let load = LoadOptions::new(&args.safety, shapes);
    let mut ready = Vec::new();
    let mut folder = None;
    for (i, thing) in things.iter().enumerate() {
        let mut one = Ready { thing: thing.clone(), program: None, inputs: None };
        let model = match &thing.kind {
            Kind::Path(path) if super::run::artifact(path) => {
                one.program = Some(std::path::absolute(path).map_err(|e| Failure::file(path, e))?);
                ready.push(one);
                continue;
            }
            Kind::Command(_) => {
                ready.push(one);
                continue;
            }
            Kind::Path(path) | Kind::Ort(path) => load::load(path, &load)?,
        };
        if folder.is_none() {
            let free = |names: &[String]| {
                let sets: Vec<String> = names.iter().map(|n| format!("--set '{n}=1'")).collect();
                let things: Vec<String> = args.things.iter().map(|t| format!("'{t}'")).collect();
                format!("dims are free; set them:\n  planish bench {} {}", things.join(" "), sets.join(" "))
            };
            folder = Some(feed(&model.graph, &args.inputs, &free, &work.join("inputs"))?);
        }
        if !matches!(thing.kind, Kind::Ort(_)) {
            ui.detail(format!("compiling {}", thing.label));
            one.program = Some(program(model.graph, &work.join(format!("program{i}")))?);
        }
        ready.push(one);
    }
    let inputs = folder.or_else(|| args.inputs.inputs.clone());
    ready.iter_mut().for_each(|r| r.inputs.clone_from(&inputs));
    Ok(ready)
}

/// The program of a model for this machine.
fn program(mut graph: Graph, path: &Path) -> Result<PathBuf> {
    codegen::optimise(&mut graph)?;
    emit::host_executable(&graph, path)?;
    Ok(path.to_owned())
}

/// Samples that take turns, at most.
const SAMPLES: usize = 1000;

/// Writes the samples of the inputs given that are shaped like the first one, or synthetic inputs, as `input_<i>.npy`: several each into a
/// folder of its own. `free` makes the message about dims that are free, of the names of their symbols.
pub fn feed(
    graph: &Graph,
    given: &InputArgs,
    free: &dyn Fn(&[String]) -> String,
    folder: &Path,
) -> Result<PathBuf> {
    let signature = Signature::of(graph);
    let samples: Vec<Vec<Val>> = if given.inputs.is_some() || !given.input.is_empty() {
        let mut samples = Vec::new();
        for sample in inputs::read(given, &signature)?.into_iter().take(SAMPLES) {
            if let Some(failure) = inputs::missing(&sample, &signature, &[]) {
                return Err(failure);
            }
            samples.push(sample.values.into_iter().flatten().collect::<Vec<Val>>());
        }
        let mut samples = samples.into_iter();
        let first = samples.next().ok_or_else(|| Failure::usage("there are no inputs"))?;
        let rest: Vec<Vec<Val>> = samples.filter(|s| alike(s, &first)).collect();
        std::iter::once(first).chain(rest).collect()
    } else {
        let symbols = synthetic::symbols(graph, 1);
        if !symbols.is_empty() {
            let names: Vec<String> = symbols.keys().map(|s| graph.symbols.get(*s).name.to_string()).collect();
            return Err(Failure::new("symbol-free", free(&names)));
        }
        vec![synthetic::inputs(graph, &symbols, 0x5eed)?]
    };
    match samples.as_slice() {
        [one] => inputs::store(one.iter(), folder)?,
        several => {
            for (i, sample) in several.iter().enumerate() {
                inputs::store(sample.iter(), &folder.join(format!("test_data_set_{i}")))?;
            }
        }
    }
    Ok(folder.to_owned())
}

/// Whether all values are tensors of the same types and shapes.
fn alike(a: &[Val], b: &[Val]) -> bool {
    let like = |(x, y): (&Val, &Val)| match (x.tensor(), y.tensor()) {
        (Ok(x), Ok(y)) => (x.dtype(), x.shape()) == (y.dtype(), y.shape()),
        _ => false,
    };
    a.len() == b.len() && a.iter().zip(b).all(like)
}

/// The results for people.
pub fn show(report: &Report, ui: &Ui) {
    for r in &report.results {
        let l = &r.latency_ms;
        let set = if r.set.is_empty() { String::new() } else { format!(" {}", r.set) };
        ui.out(crate::ui::printable(&format!(
            "{:<28} {} threads{set}: median {:.4} ms, p10 {:.4}, p90 {:.4}, first {:.3}; {} runs",
            r.name, r.threads, l.median, l.p10, l.p90, r.first_ms, r.runs
        )));
        profile::lines(r).iter().for_each(|line| ui.out(crate::ui::printable(line)));
    }
    for p in &report.pairs {
        let bound = |v: Option<f64>| v.map_or_else(|| "?".to_owned(), |v| format!("{v:.3}"));
        let clock = match p.clock {
            Clock::Wall => "",
            Clock::Processor => ", by processor time",
        };
        ui.out(crate::ui::printable(&format!(
            "{} against {} ({} threads): {:.3} times as fast, 95% interval {}..{}{clock}: {}",
            p.other,
            p.base,
            p.threads,
            p.ratio,
            bound(p.low),
            bound(p.high),
            p.verdict
        )));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::npy;
    use planish_ir::{Tensor, text};

    #[test]
    fn samples_of_one_shape_are_fed() -> std::result::Result<(), Box<dyn std::error::Error>> {
        let dir = tempfile::tempdir()?;
        let graph = text::parse("planish-ir 1\ngraph @\"g\"(v0 \"x\": f32[N]) { return v0 \"y\" }")?;
        let feed = |given: &str| -> std::result::Result<PathBuf, String> {
            let given = InputArgs { inputs: Some(dir.path().join(given)), ..InputArgs::default() };
            feed(&graph, &given, &|_| String::new(), &dir.path().join("fed")).map_err(|f| format!("{f:?}"))
        };
        let write = |at: &str, x: &[f32]| -> std::result::Result<(), Box<dyn std::error::Error>> {
            std::fs::create_dir_all(dir.path().join(at))?;
            let x = Tensor::f32s(&[x.len()], x)?;
            Ok(std::fs::write(dir.path().join(at).join("x.npy"), npy::write(&x))?)
        };
        write("one", &[1.0])?;
        assert!(feed("one")?.join("input_0.npy").is_file());
        std::fs::remove_dir_all(dir.path().join("fed"))?;
        for (i, x) in [&[1.0, 2.0][..], &[3.0, 4.0], &[5.0], &[6.0, 7.0]].iter().enumerate() {
            write(&format!("all/test_data_set_{i}"), x)?;
        }
        let fed = feed("all")?;
        let read = |i: usize| std::fs::read(fed.join(format!("test_data_set_{i}/input_0.npy")));
        for (i, x) in [[1.0, 2.0], [3.0, 4.0], [6.0, 7.0]].iter().enumerate() {
            assert_eq!(read(i)?, npy::write(&Tensor::f32s(&[2], x)?));
        }
        assert!(read(3).is_err());
        Ok(())
    }
}
