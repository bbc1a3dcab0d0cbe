//! `planish train`: changes the parameters of a model so that a loss on samples becomes small.

use crate::calibrate::Calibrator;
use crate::data::tokens::Encoder;
use crate::data::{Data, DataArgs};
use crate::engine;
use crate::exit::Exit;
use crate::failure::{Failure, Result};
use crate::files::Writer;
use crate::load::{self, LoadOptions, ModelFile, SafetyArgs};
use crate::pipeline::{self, PassArgs, Phase, Plan};
use crate::shapes::{Setting, ShapeArgs, Shapes};
use crate::train::args::TrainArgs;
use crate::train::checkpoint::Checkpoint;
use crate::train::evaluate::{Evaluator, Held};
use crate::train::samples::{Samples, Target, order};
use crate::train::settings::{LossName, Settings};
use crate::train::tuning::{Point, Tuned};
use crate::train::{End, Epoch, Job, Make, Trainer};
use crate::ui::{Format, Ui, schema};
use crate::units::show_bytes;
use planish_ir::op::random::stream;
use planish_ir::{Dim, Editor, Graph, SymId, Tensor, ValueId};
use planish_passes::training::{draws, finished, name_parameters, with_values};
use planish_passes::{Report, Threshold};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Train a model on samples
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The model
    pub model: PathBuf,
    /// The trained model
    #[arg(short, long, value_name = "OUT.onnx")]
    pub output: PathBuf,
    #[command(flatten)]
    pub train: TrainArgs,
    #[command(flatten)]
    pub run: RunArgs,
    #[command(flatten)]
    pub data: DataArgs,
    #[command(flatten)]
    pub passes: PassArgs,
    #[command(flatten)]
    pub shapes: ShapeArgs,
    #[command(flatten)]
    pub safety: SafetyArgs,
    /// Form of the summary on stdout
    #[arg(long, value_enum, default_value_t, help_heading = "Output")]
    pub format: Format,
}

/// How a training is run.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Running")]
pub struct RunArgs {
    /// Where everything that is needed to go on is written after every epoch and when a signal ends the training; OUT with `.checkpoint`
    /// unless given
    #[arg(long, value_name = "FILE")]
    pub checkpoint: Option<PathBuf>,
    /// Go on where the checkpoint stands
    #[arg(long)]
    pub resume: bool,
    /// What runs the steps
    #[arg(long, value_name = "ENGINE", default_value = engine::default_engine())]
    pub engine: String,
    /// Threads; the physical cores allowed unless given. The result does not depend on it
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub threads: Option<u32>,
    /// Measure the time of so many runs with one held-out row each, on one thread, for every threshold that gates may have
    #[arg(long, value_name = "ROWS", value_parser = clap::value_parser!(u32).range(1..))]
    pub latency: Option<u32>,
    /// Replace files that planish did not write
    #[arg(long)]
    pub force: bool,
}

impl RunArgs {
    /// Engine and threads.
    pub fn engine(&self) -> Result<(&str, usize)> {
        engine::find(&self.engine)?;
        Ok((&self.engine, self.threads.map_or_else(engine::default_threads, |n| n as usize)))
    }
    /// Where the checkpoint is.
    pub fn checkpoint(&self, output: &Path) -> PathBuf {
        self.checkpoint.clone().unwrap_or_else(|| beside(output, ".checkpoint"))
    }
}

/// The most bytes of samples that are kept in memory unless told otherwise.
const MOST_SAMPLES: u64 = 4 << 30;

/// A model in a file that can be made for any number of rows.
pub(super) struct Source {
    file: ModelFile,
    load: LoadOptions,
    plan: Plan,
    /// The model for any number of rows, behind the passes that were asked for: some of them run it on samples, which are single rows.
    prepared: OnceCell<(Graph, Report)>,
}

impl Source {
    pub(super) fn new(path: &Path, load: LoadOptions, plan: Plan) -> Result<Source> {
        Ok(Source { file: load::open(path, &load)?, load, plan, prepared: OnceCell::new() })
    }
    /// Rows that a model takes that takes no other number.
    pub(super) fn fixed(&self) -> Result<Option<usize>> {
        let signature = self.file.signature(&self.load)?;
        let first = |p: &crate::inputs::Port| p.ty.as_tensor()?.shape.as_ref()?.first()?.as_const();
        let rows = signature.inputs.iter().find_map(first);
        Ok(rows.and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0))
    }
    /// The model as it is in the file, for so many rows; those that it takes must be free or as many.
    pub(super) fn plain(&self, rows: Option<usize>) -> Result<Graph> {
        let mut load = self.load.clone();
        if let Some(rows) = rows {
            let signature = self.file.signature(&load)?;
            for port in &signature.inputs {
                let dims = port.ty.as_tensor().and_then(|t| t.shape.as_ref());
                let Some(first) = dims.and_then(|d| d.first()) else { continue };
                if let Some(s) = first.as_symbol() {
                    let name = signature.symbols.get(s).name.clone();
                    load.shapes.set.insert(name.to_string(), Setting::One(rows as i64));
                }
            }
        }
        Ok(self.file.import(&load)?.graph)
    }
    /// The model as it is trained, with names for its parameters.
    pub(super) fn made(&self, rows: Option<usize>) -> Result<Graph> {
        Ok(self.named(rows)?.0)
    }
    /// The same, and these names.
    fn named(&self, rows: Option<usize>) -> Result<(Graph, Vec<String>)> {
        let mut graph = match (self.plan.has_own(), rows) {
            (true, Some(rows)) => self.fixed_to(rows)?,
            (true, None) => self.prepared()?.0.clone(),
            (false, rows) => self.freshly(rows)?.0,
        };
        let names = name_parameters(&mut graph);
        Ok((graph, names))
    }
    fn freshly(&self, rows: Option<usize>) -> Result<(Graph, Report)> {
        let mut graph = self.plain(rows)?;
        let report = self.plan.prepare(&mut graph, &mut |_| {})?;
        Ok((graph, report))
    }
    fn prepared(&self) -> Result<&(Graph, Report)> {
        if let Some(made) = self.prepared.get() {
            return Ok(made);
        }
        let made = self.freshly(None)?;
        Ok(self.prepared.get_or_init(|| made))
    }
    /// Says what the passes did that were asked for.
    fn tell(&self, args: &PassArgs, ui: &Ui) -> Result<()> {
        if self.plan.has_own() {
            pipeline::tell(&self.prepared()?.1, args, ui);
        }
        Ok(())
    }
    /// The prepared model for so many rows.
    fn fixed_to(&self, rows: usize) -> Result<Graph> {
        let mut graph = self.prepared()?.0.clone();
        let first = |v: &ValueId| graph.dims(*v)?.first()?.as_symbol();
        let free: BTreeSet<SymId> = graph.inputs().iter().filter_map(first).collect();
        graph.substitute(&|s| free.contains(&s).then(|| Dim::from(rows)));
        self.plan.settle(&mut graph, &mut |_| {}, &mut Report::default())?;
        Ok(graph)
    }
    /// Which of its parameters are trained, by name.
    pub(super) fn trains(&self, settings: &Settings) -> Result<impl Fn(&str) -> bool + use<>> {
        let names: BTreeSet<String> = self.named(None)?.1.into_iter().collect();
        let chosen = settings.trains()?;
        Ok(move |name: &str| names.contains(name) && chosen(name))
    }
    /// Everything that decides what [`Source::made`] gives.
    pub(super) fn digest(&self) -> Result<String> {
        Ok(format!("{} {}", self.file.hash, self.plan.hash()?))
    }
}

/// Samples that are trained on, and those that are held out.
pub(super) struct Split {
    /// Those that are trained on, in files.
    pub(super) data: Data,
    pub(super) samples: Samples,
    pub(super) held: Option<Samples>,
}

/// What samples are compared with, and the model as data see it: with what they are compared with as an input where they hold it.
pub(super) fn seen(graph: &Graph, loss: LossName) -> Result<(Graph, Target)> {
    let mut graph = graph.clone();
    let y = graph.outputs().first().copied();
    let y = y.ok_or_else(|| Failure::new("train-malformed", "the model has no output"))?;
    if loss != LossName::CrossEntropy {
        let ty = graph.ty(y).clone();
        Editor::new(&mut graph).input("target", ty);
        return Ok((graph, Target::Values));
    }
    let dims = graph.dims(y).unwrap_or_default();
    let inner = dims.get(1..dims.len().saturating_sub(1)).unwrap_or_default();
    let each: Option<i64> = inner.iter().map(planish_ir::Dim::as_const).product();
    let each = each.and_then(|n| usize::try_from(n).ok());
    let each = each.ok_or_else(|| {
        Failure::new(
            "train-malformed",
            "it is not known how many classes each row has: set the symbols of the output with --set",
        )
    })?;
    Ok((graph, Target::Classes(each)))
}

/// Reads and divides the samples.
pub(super) fn split(
    data: &DataArgs,
    graph: &Graph,
    settings: &Settings,
    target: Option<Target>,
    plan: &Plan,
    safety: &SafetyArgs,
    ui: &Ui,
) -> Result<Split> {
    let (graph, usual) = seen(graph, settings.loss)?;
    let target = target.unwrap_or(usual);
    let preprocess = plan.recipe.preprocess.as_ref();
    let all = data.read_with(&graph, preprocess)?;
    let all = all.ok_or_else(|| Failure::usage("--data is needed: samples to train on"))?;
    all.tell(ui);
    let most = safety.max_memory.unwrap_or(MOST_SAMPLES);
    let (rest, held) = match &data.eval_data {
        Some(_) => {
            let (rest, held) = data.split(&all, &graph, preprocess)?;
            (rest, held.map(|(h, _)| h))
        }
        None => {
            let count = (settings.holdout * all.len() as f64).round() as usize;
            let order = order(all.len(), stream(settings.seed, 0));
            let (held, rest) = order.split_at(count);
            let sorted = |part: &[usize]| {
                let mut part = part.to_vec();
                part.sort_unstable();
                all.pick(&part)
            };
            (sorted(rest).unwrap_or_else(|| all.clone()), sorted(held))
        }
    };
    let samples = Samples::new(&rest, target, most)?;
    let held = held.map(|h| Samples::new(&h, target, most)).transpose()?;
    Ok(Split { data: rest, samples, held })
}

/// Runs the verb.
pub fn run(args: &Args, ui: &Ui) -> Result<Exit> {
    let mut plan = Plan::new(&args.passes, Phase::Compressed)?;
    let settings = args.train.over(plan.recipe.train.as_ref());
    settings.check()?;
    plan.recipe.train = Some(settings.clone());
    let engine = args.run.engine()?;
    let checkpoint = args.run.checkpoint(&args.output);
    let mut writer = Writer::new(args.run.force);
    writer.protect(&args.model);
    args.data.paths().for_each(|p| writer.protect(p));
    writer.check(&args.output)?;
    writer.check(&checkpoint)?;
    let load = LoadOptions::new(&args.safety, Shapes::parse(&args.shapes)?);
    let mut source = Source::new(&args.model, load.clone(), plan.clone())?;
    let plain = source.plain(None)?;
    let split = split(&args.data, &plain, &settings, None, &plan, &args.safety, ui)?;
    source.plan.calibrate_on(Calibrator::new(Some(split.data.clone())).telling(ui));
    source.tell(&args.passes, ui)?;
    let reference = reference(&settings, &load)?;
    let trains = source.trains(&settings)?;
    let make = |rows: Option<usize>| source.made(rows);
    let before = before(&source, &split, &settings, engine)?;
    let course =
        course(&[&source.digest()?, &hex(&split.data.digest()?), &format!("{:?}", args.data.eval_data)]);
    let job = Job {
        settings: &settings,
        make: &make,
        trains: &trains,
        loss: settings.loss(),
        held_loss: settings.loss(),
        samples: split.samples.clone(),
        held: split.held.clone(),
        targets: None,
        reference,
        engine,
        fixed: source.fixed()?,
        course,
    };
    let done = Files { output: &args.output, checkpoint: &checkpoint, writer: &writer, run: &args.run };
    let exit = train(job, &done, before, args.format, ui)?;
    if exit == Exit::Ok {
        plan.save(&args.passes, &writer)?;
        vocabulary(&args.data, &split.data, &args.output, &writer, ui)?;
    }
    Ok(exit)
}

/// Writes the vocabulary that a model was trained with beside it, unless there is a file of it already.
pub(super) fn vocabulary(
    args: &DataArgs,
    data: &Data,
    output: &Path,
    writer: &Writer,
    ui: &Ui,
) -> Result<()> {
    let Some(Encoder::Word(words)) = data.encoder() else { return Ok(()) };
    let path = args.table.vocabulary.clone().unwrap_or_else(|| beside(output, ".vocabulary"));
    if args.table.vocabulary.is_some() && path.exists() {
        return Ok(());
    }
    words.write(&path, writer)?;
    ui.say(format!("{}: the vocabulary, for --vocabulary", path.display()));
    Ok(())
}

/// The file beside a model whose name goes on so.
fn beside(output: &Path, end: &str) -> PathBuf {
    let mut name = output.file_name().unwrap_or_default().to_os_string();
    name.push(end);
    output.with_file_name(name)
}

/// Where a training reads and writes.
pub(super) struct Files<'a> {
    pub(super) output: &'a Path,
    pub(super) checkpoint: &'a Path,
    pub(super) writer: &'a Writer,
    pub(super) run: &'a RunArgs,
}

/// Trains, writes the model and says what came of it.
pub(super) fn train(
    job: Job<'_>,
    files: &Files<'_>,
    before: Option<Held>,
    format: Format,
    ui: &Ui,
) -> Result<Exit> {
    let resume = match files.run.resume {
        true => Some(Checkpoint::read(files.checkpoint)?),
        false => None,
    };
    let knob = job.settings.threshold_input;
    let most = job.settings.gated()?.map_or(1.0, |(_, most)| most);
    let (make, rows, held) = (job.make, job.samples.len(), job.held.as_ref().map_or(0, Samples::len));
    if let Some(n) = job.fixed.filter(|n| *n != job.settings.batch as usize) {
        ui.say(format!("the model takes {n} rows and no other number: so many are a batch"));
    }
    let mut trainer = Trainer::new(job, resume)?;
    let (tensors, elements) = trainer.parameters();
    let text = format == Format::Text;
    ui.say(format!("{elements} parameters in {tensors} tensors, {rows} samples, {held} held out"));
    let mut first = true;
    let mut told = |e: &Epoch| {
        if text && std::mem::take(&mut first) {
            ui.out(format!("{:>5}  {:>9}  {}", "epoch", "loss", "held out"));
        }
        if text {
            ui.out(line(e));
        }
    };
    let end = trainer.run(files.checkpoint, files.writer, &mut told, ui)?;
    if end == End::Interrupted {
        let shown = files.checkpoint.display();
        ui.say(format!(
            "interrupted behind step {}; the same command with --resume goes on from {shown}",
            trainer.standing().step
        ));
        return Ok(Exit::Interrupted);
    }
    let mut graph = with_values(&make(None)?, &trainer.result()?)?;
    let timed = files.run.latency.map_or(0, |n| n as usize);
    let tuned = if draws(&graph) { trainer.threshold(most, timed, ui)? } else { None };
    let chosen = tuned.as_ref().map(|t| Threshold::At(t.chosen().threshold));
    finished(&mut graph, if knob { Some(Threshold::Input) } else { chosen })?;
    let bytes = crate::export::write(&graph, files.output, files.writer)?;
    let standing = trainer.standing();
    let best = standing.best.and_then(|b| standing.epochs.get(b as usize - 1));
    let kept = tuned
        .as_ref()
        .map(|t| t.chosen().held)
        .or_else(|| best.or(standing.epochs.last()).and_then(|e| e.held));
    match format {
        Format::Json => ui.json(&schema(
            "planish.train",
            json!({
                "output": files.output.display().to_string(),
                "bytes": bytes,
                "parameters": elements,
                "samples": rows,
                "held_out": held,
                "given": before.map(|h| h.json()),
                "start": standing.start.map(|h| h.json()),
                "epochs": standing.epochs.iter().map(|e| json!({
                    "epoch": e.epoch,
                    "loss": e.loss,
                    "held": e.held.map(|h| h.json()),
                    "sparsity": e.sparsity,
                })).collect::<Vec<_>>(),
                "best": standing.best,
                "result": kept.map(|h| h.json()),
                "threshold": tuned.as_ref().map(|t| t.chosen().threshold),
                "gates": tuned.as_ref().map(Tuned::gates),
                "curve": tuned.iter().flat_map(|t| &t.curve).map(Point::json).collect::<Vec<_>>(),
                "stopped_early": end == End::Early,
                "sparsity": trainer.sparsity().iter().map(|(n, s)| {
                    let mut row = json!({"name": n, "blocks": s});
                    if let Some((_, b)) = trainer.stored().find(|(name, _)| name == n) {
                        row["stored"] = json!(format!("{}x{}", b[0], b[1]));
                    }
                    row
                }).collect::<Vec<_>>(),
            }),
        )),
        Format::Text => {
            for (what, h) in [("given", before), ("at the start", standing.start), ("written", kept)] {
                if let Some(h) = h {
                    ui.out(format!("{what}: {}", h.text()));
                }
            }
            if let Some(t) = &tuned {
                t.text().into_iter().for_each(|line| ui.out(line));
            }
            for (name, share) in trainer.sparsity() {
                ui.out(format!("  {:.1}% of the blocks of {name} are zero", share * 100.0));
            }
            let early = if end == End::Early { ", stopped early" } else { "" };
            ui.out(format!("{}: {}{early}", files.output.display(), show_bytes(bytes)));
        }
    }
    Ok(Exit::Ok)
}

/// Loss and errors of the model as it was given, where passes change results before it is trained.
fn before(
    source: &Source,
    split: &Split,
    settings: &Settings,
    engine: (&str, usize),
) -> Result<Option<Held>> {
    let (true, Some(held)) = (source.plan.lossy(), &split.held) else { return Ok(None) };
    let make = |rows: Option<usize>| -> Result<Graph> {
        let mut graph = source.plain(rows)?;
        name_parameters(&mut graph);
        Ok(graph)
    };
    let graph = make(None)?;
    let values: BTreeMap<String, Tensor> = constants(&graph)?;
    let make: &Make<'_> = &make;
    let trains = |_: &str| true;
    let mut e = Evaluator::new(make, settings.loss(), &trains, engine, (held.clone(), source.fixed()?));
    e.run(&|name| values.get(name).cloned()).map(Some)
}

/// The constants of floats that have a name.
fn constants(graph: &Graph) -> Result<BTreeMap<String, Tensor>> {
    let mut out = BTreeMap::new();
    for n in graph.nodes_in(graph.root()) {
        let Some(v) = graph.node(n).outputs.first().copied() else { continue };
        if let (Some((_, c)), Some(name)) = (graph.as_const(v), graph.value(v).name.as_deref())
            && c.dtype.is_float()
        {
            out.entry(name.to_owned()).or_insert(c.decode()?);
        }
    }
    Ok(out)
}

/// Weights of the model that a threshold of pruning is chosen by.
pub(super) fn reference(settings: &Settings, load: &LoadOptions) -> Result<BTreeMap<String, Tensor>> {
    let Some((_, Some(path))) = settings.pruning()? else { return Ok(BTreeMap::new()) };
    let plan = Plan::level(2);
    let source = Source::new(Path::new(&path), load.clone(), plan).map_err(|f| f.about(&path))?;
    constants(&source.made(None)?)
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// A digest of texts.
pub(super) fn course(parts: &[&str]) -> String {
    let mut h = Sha256::new();
    parts.iter().for_each(|p| h.update(format!("{}:{p}", p.len())));
    hex(&h.finalize())
}

fn line(e: &Epoch) -> String {
    let held = e.held.map_or_else(|| "-".to_owned(), |h| h.text());
    let sparsity = e.sparsity.map(|s| format!(", {:.1}% of the blocks zero", s * 100.0)).unwrap_or_default();
    format!("{:>5}  {:>9.5}  {held}{sparsity}", e.epoch, e.loss)
}
