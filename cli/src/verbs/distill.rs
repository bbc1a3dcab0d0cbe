//! `planish distill`: trains a model on what others say.

use super::train::{Files, RunArgs, Source, course, hex, reference, seen, split, train, vocabulary};
use crate::data::DataArgs;
use crate::engine::cache::Cache;
use crate::exit::Exit;
use crate::failure::{Failure, Result};
use crate::files::Writer;
use crate::load::{LoadOptions, SafetyArgs};
use crate::pipeline::{PassArgs, Phase, Plan};
use crate::shapes::{ShapeArgs, Shapes};
use crate::train::Job;
use crate::train::args::TrainArgs;
use crate::train::samples::Target;
use crate::train::settings::LossName;
use crate::train::teacher::{Asked, Mean, probabilities, targets};
use crate::ui::{Format, Ui};
use planish_ir::{Dim, Graph};
use planish_passes::training::Loss;
use std::path::PathBuf;

/// Train a student on what teachers say
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Teachers, of which there may be several, and the student behind them
    #[arg(required = true, num_args = 2.., value_name = "TEACHER.. STUDENT")]
    pub models: Vec<PathBuf>,
    /// The trained student
    #[arg(short, long, value_name = "OUT.onnx")]
    pub output: PathBuf,
    /// What scores are divided by before the softmax
    #[arg(long, value_name = "T", default_value_t = 4.0, help_heading = "Distillation")]
    pub temperature: f64,
    /// Weight of the classes of the samples, 0 to 1; the rest is that of the teachers. 0 needs no labels
    #[arg(long, value_name = "W", default_value_t = 0.1, help_heading = "Distillation")]
    pub hard_weight: f64,
    /// How the probabilities of several teachers become one
    #[arg(long, value_enum, default_value_t, help_heading = "Distillation")]
    pub mean: Mean,
    /// Where what teachers said is kept: a folder, or `none`
    #[arg(long, value_name = "DIR|none", help_heading = "Distillation")]
    pub cache_dir: Option<PathBuf>,
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

/// Runs the verb.
pub fn run(args: &Args, ui: &Ui) -> Result<Exit> {
    let mut plan = Plan::new(&args.passes, Phase::Compressed)?;
    let settings = args.train.over(plan.recipe.train.as_ref());
    settings.check()?;
    if settings.loss != LossName::CrossEntropy {
        return Err(Failure::usage("distillation has its own loss; --loss is that of `train`"));
    }
    let warm = args.temperature.is_finite() && args.temperature > 0.0;
    if !warm || !(0.0..=1.0).contains(&args.hard_weight) {
        return Err(Failure::usage("a temperature is above 0, a weight from 0 to 1"));
    }
    plan.recipe.train = Some(settings.clone());
    let engine = args.run.engine()?;
    let checkpoint = args.run.checkpoint(&args.output);
    let mut writer = Writer::new(args.run.force);
    args.models.iter().for_each(|m| writer.protect(m));
    args.data.paths().for_each(|p| writer.protect(p));
    writer.check(&args.output)?;
    writer.check(&checkpoint)?;
    let load = LoadOptions::new(&args.safety, Shapes::parse(&args.shapes)?);
    let [teachers @ .., student] = &args.models[..] else {
        return Err(Failure::usage("a student is needed"));
    };
    let source = Source::new(student, load.clone(), plan.clone())?;
    let teachers: Vec<Source> = teachers
        .iter()
        .map(|t| Source::new(t, load.clone(), Plan::level(2)).map_err(|f| f.about(t.display())))
        .collect::<Result<_>>()?;
    let plain = source.plain(None)?;
    let hard = args.hard_weight > 0.0;
    let target = if hard { seen(&plain, settings.loss)?.1 } else { Target::Nothing };
    let split = split(&args.data, &plain, &settings, Some(target), &plan, &args.safety, ui)?;
    let makes: Vec<_> = teachers.iter().map(|t| move |rows: Option<usize>| t.made(rows)).collect();
    let keyed: Vec<_> = makes
        .iter()
        .zip(&teachers)
        .map(|(make, t)| Ok((make as &crate::train::Make<'_>, t.digest()?, t.fixed()?)))
        .collect::<Result<_>>()?;
    let digest = hex(&split.data.digest()?);
    let cache = Cache::from_option(args.cache_dir.as_deref());
    let asked = Asked {
        temperature: args.temperature,
        mean: args.mean,
        digest: &digest,
        engine,
        cache: cache.as_ref(),
    };
    let soft = probabilities(&keyed, &asked, &split.samples, ui)?;
    let compared = targets(&soft, &split.samples, &scores(&plain)?, hard)?;
    let loss = match hard {
        true => Loss::Distill { temperature: args.temperature, hard: args.hard_weight },
        false => Loss::SoftTargets { temperature: args.temperature },
    };
    let trains = source.trains(&settings)?;
    let make = |rows: Option<usize>| -> Result<Graph> { source.made(rows) };
    let about = format!("{loss:?} {:?} {:?}", args.mean, args.data.eval_data);
    let mut parts = vec![source.digest()?, digest, about];
    parts.extend(keyed.iter().map(|(_, key, _)| key.clone()));
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let job = Job {
        settings: &settings,
        make: &make,
        trains: &trains,
        loss,
        held_loss: Loss::CrossEntropy,
        samples: split.samples.clone(),
        // Without classes nothing is known of the student but what its teachers say.
        held: split.held.clone().filter(|_| hard),
        targets: Some(compared),
        reference: reference(&settings, &load)?,
        engine,
        fixed: source.fixed()?,
        course: course(&parts),
    };
    let files = Files { output: &args.output, checkpoint: &checkpoint, writer: &writer, run: &args.run };
    let exit = train(job, &files, None, args.format, ui)?;
    if exit == Exit::Ok {
        plan.save(&args.passes, &writer)?;
        vocabulary(&args.data, &split.data, &args.output, &writer, ui)?;
    }
    Ok(exit)
}

/// Sizes of the scores of one row.
fn scores(graph: &Graph) -> Result<Vec<usize>> {
    let dims = graph.outputs().first().and_then(|y| graph.dims(*y)).and_then(|d| d.get(1..));
    let sizes: Option<Vec<usize>> =
        dims.and_then(|d| d.iter().map(|d| Dim::as_const(d).and_then(|d| usize::try_from(d).ok())).collect());
    sizes.ok_or_else(|| Failure::new("train-malformed", "the number of the student's scores is not known"))
}
