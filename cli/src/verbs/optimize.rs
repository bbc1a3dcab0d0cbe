//! `planish optimize`: passes, and an ONNX model that other runtimes load.

use crate::accuracy;
use crate::calibrate::Calibrator;
use crate::data::DataArgs;
use crate::engine::cache::Cache;
use crate::equivalence::{self, Case, Verdict};
use crate::exit::Exit;
use crate::failure::{Failure, Result};
use crate::files::Writer;
use crate::load::{self, LoadOptions, SafetyArgs};
use crate::lock;
use crate::pipeline::{self, PassArgs, Phase, Plan};
use crate::report;
use crate::shapes::{ShapeArgs, Shapes};
use crate::ui::{Format, Ui, schema};
use crate::units::show_bytes;
use serde_json::json;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Run passes and write ONNX
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The model
    pub model: PathBuf,
    /// The optimised model
    #[arg(short, long, value_name = "OUT.onnx")]
    pub output: PathBuf,
    #[command(flatten)]
    pub passes: PassArgs,
    /// Do not compare the result with the original in the interpreter
    #[arg(long)]
    pub no_check: bool,
    /// Write the report: what passes did to each layer, sizes, the check
    #[arg(long, value_name = "R.json")]
    pub report: Option<PathBuf>,
    /// Where statistics of the samples are kept: a folder, or `none`
    #[arg(long, value_name = "DIR|none")]
    pub cache_dir: Option<PathBuf>,
    /// Replace files that planish did not write
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub shapes: ShapeArgs,
    #[command(flatten)]
    pub data: DataArgs,
    #[command(flatten)]
    pub safety: SafetyArgs,
    /// Form of the summary on stdout
    #[arg(long, value_enum, default_value_t, help_heading = "Output")]
    pub format: Format,
}

/// Passes choose as for vectors of so many lanes of f32: there is no target here, and the result must not depend on the machine.
const LANES: u16 = 16;

/// How long the check may take.
const CHECK_TIME: Duration = Duration::from_secs(5);

/// Runs the verb.
pub fn run(args: &Args, ui: &Ui) -> Result<Exit> {
    let started = Instant::now();
    let mut plan = Plan::new(&args.passes, Phase::Compressed)?;
    let mut writer = Writer::new(args.force);
    writer.protect(&args.model);
    args.data.paths().for_each(|p| writer.protect(p));
    writer.check(&args.output)?;
    if let Some(path) = &args.report {
        writer.check(path)?;
    }
    lock::settle(&args.passes.lock, &mut plan, &[LANES], &writer, ui)?;
    let load = LoadOptions::new(&args.safety, Shapes::parse(&args.shapes)?);
    let mut model = load::load(&args.model, &load)?;
    ui.diags(&model.warnings);
    let found = crate::cost::too_large(&model.graph, args.safety.max_memory.unwrap_or(u64::MAX));
    if !found.is_empty() {
        return Err(found.into());
    }
    let preprocess = plan.recipe.preprocess.clone();
    if let Some(p) = &preprocess {
        p.embed(&mut model.graph)?;
    }
    plan.extend(&mut model.graph)?;
    let data = args.data.read_with(&model.graph, preprocess.as_ref())?;
    data.iter().for_each(|d| d.tell(ui));
    let split = data.as_ref().filter(|_| plan.lossy());
    let split = split.map(|d| args.data.split(d, &model.graph, preprocess.as_ref())).transpose()?;
    let seen = split.as_ref().map_or(data.as_ref(), |(seen, _)| Some(seen));
    let cache = Cache::from_option(args.cache_dir.as_deref());
    plan.calibrate_on(Calibrator::new(seen.cloned()).telling(ui).kept(cache));
    let mut graph = model.graph.clone();
    let report = plan.compress(&mut graph, &mut |text| ui.out(text))?;
    pipeline::tell(&report, &args.passes, ui);
    let lossy = !report.lossy.is_empty();
    let verdict = if args.no_check {
        None
    } else if lossy {
        Some(Verdict::NotChecked("lossy passes change results on purpose".into()))
    } else {
        let case = Case { graph: &model.graph, data: data.as_ref(), limit: CHECK_TIME };
        Some(equivalence::graphs(case, &graph))
    };
    if let Some(v) = &verdict {
        ui.diag(&v.diag());
        if let Verdict::Different(_) = v {
            return Err(Failure::new("mismatch", "nothing was written; --no-check would write it"));
        }
    }
    let accuracy = match split.and_then(|(_, held)| held).filter(|_| lossy && !args.no_check) {
        Some((held, apart)) => Some(accuracy::compare(&model.graph, &graph, &held, apart, ui)?),
        None => None,
    };
    let bytes = crate::export::write(&graph, &args.output, &writer)?;
    plan.save(&args.passes, &writer)?;
    if let Some(path) = &args.report {
        let mut m = report::model::made(&model.graph.name, &model, &plan, &report, &graph)?;
        m.wrote(vec![("onnx".into(), args.output.display().to_string(), bytes)]);
        m.checked(verdict.as_ref());
        m.kept(accuracy.as_ref());
        m.seconds = started.elapsed().as_secs_f64();
        let mut whole = report::Report::new(report::Command::Optimize);
        whole.models.push(m);
        writer.write(path, &whole.file()?)?;
    }
    let nodes = (model.graph.node_count(), graph.node_count());
    match args.format {
        Format::Json => ui.json(&schema(
            "planish.optimize",
            json!({
                "model": args.model.display().to_string(),
                "output": args.output.display().to_string(),
                "nodes_before": nodes.0,
                "nodes_after": nodes.1,
                "bytes": bytes,
                "recipe": plan.recipe,
                "report": pipeline::report_json(&report),
                "check": verdict.as_ref().map(Verdict::json),
                "accuracy": accuracy.as_ref().map(accuracy::Accuracy::json),
            }),
        )),
        Format::Text => {
            ui.out(format!(
                "{}: {} -> {} nodes, {}",
                args.output.display(),
                nodes.0,
                nodes.1,
                show_bytes(bytes)
            ));
            let mut edits: Vec<(&str, u64)> = Vec::new();
            for r in &report.ran {
                match edits.iter_mut().find(|(s, _)| *s == r.spec) {
                    Some((_, n)) => *n += r.edits,
                    None => edits.push((&r.spec, r.edits)),
                }
            }
            for (spec, n) in edits.iter().filter(|(_, n)| *n > 0) {
                ui.out(format!("  {n:>6} edits  {spec}"));
            }
            for r in report.ran.iter().filter(|r| report.lossy.contains(&r.spec)) {
                for (name, value) in &r.metrics {
                    ui.out(format!("  {name} = {value} ({})", r.spec));
                }
            }
            const MOST: usize = 40;
            for d in report.remarks.iter().take(MOST) {
                ui.out(crate::ui::printable(&format!("  {d}")));
            }
            if report.remarks.len() > MOST {
                ui.out(format!(
                    "  ... and {} more remarks (--format json lists all)",
                    report.remarks.len() - MOST
                ));
            }
            if let Some(v) = &verdict {
                ui.out(format!("  {}", v.diag().message));
            }
            if let Some(a) = &accuracy {
                ui.out(format!("  {}", a.text()));
            }
        }
    }
    Ok(Exit::Ok)
}
