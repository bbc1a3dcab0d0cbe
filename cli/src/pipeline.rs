//! PASSES: which passes run, from options and recipes, and running them.

use crate::calibrate::Calibrator;
use crate::failure::{Failure, Result};
use crate::files::Writer;
use crate::lock::{Lock, LockArgs};
use crate::preprocess::Preprocess;
use crate::ui::{Ui, diag_json, schema};
use planish_ir::{Graph, Severity};
use planish_passes::{Calibrate, Level, PassKind, PassSpec, Pipeline, Report, TargetFacts, parse_specs};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::path::PathBuf;
use std::rc::Rc;

/// The options.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Passes")]
pub struct PassArgs {
    /// A pass, NAME[:key=value[,key=value]]; repeatable, in order
    #[arg(long = "pass", value_name = "NAME[:key=value]")]
    pub pass: Vec<String>,
    /// A list of passes, 'a,b{k=v,k=v}' (quoted)
    #[arg(long, value_name = "LIST", conflicts_with = "pass")]
    pub passes: Option<String>,
    /// Passes and settings from a file; options override it
    #[arg(long, value_name = "FILE.toml")]
    pub recipe: Option<PathBuf>,
    /// Write the settings that were used
    #[arg(long, value_name = "OUT.toml")]
    pub save_recipe: Option<PathBuf>,
    /// 0: no passes, 1: canonical form, 2: exact passes and fusion (default), 3: more code
    #[arg(short = 'O', value_name = "LEVEL", value_parser = clap::value_parser!(u8).range(0..=3))]
    pub level: Option<u8>,
    /// Print the graph after a pass, or after `all`
    #[arg(long, value_name = "PASS|all")]
    pub print_after: Vec<String>,
    /// Begin behind this phase
    #[arg(long, value_name = "PHASE", value_enum)]
    pub from: Option<Phase>,
    /// Stop behind this phase
    #[arg(long, value_name = "PHASE", value_enum)]
    pub to: Option<Phase>,
    /// Run the verifier after each pass
    #[arg(long)]
    pub verify_each: bool,
    /// Say how long each pass took
    #[arg(long)]
    pub time_passes: bool,
    /// Print what passes did and declined
    #[arg(long, value_enum, value_name = "FORM")]
    pub remarks: Option<crate::ui::Format>,
    #[command(flatten)]
    pub lock: LockArgs,
}

/// A state of the graph between groups of passes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, clap::ValueEnum)]
pub enum Phase {
    /// As the importer made it.
    Import,
    /// In canonical form.
    Canonical,
    /// After the passes asked for.
    Compressed,
    /// Ready for lowering.
    Fused,
}

/// What decides the result, complete with defaults.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Version of the form.
    pub version: u32,
    /// Tool that wrote it.
    #[serde(default)]
    pub tool: String,
    /// Optimisation level.
    pub level: u8,
    /// The passes asked for, each as written on the command line.
    #[serde(default)]
    pub passes: Vec<String>,
    /// Whether convolutions may be computed by Winograd's transforms, which round more; from level 2.
    #[serde(default = "allowed")]
    pub winograd: bool,
    /// Whether approximations may stand for functions of f32.
    #[serde(default)]
    pub fast_math: bool,
    /// A hash of the measured costs that choices were made by; empty where they were those that come with the tool.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub lock: String,
    /// What products of f32 matrices on GPUs multiply: f32, tf32 or bf16.
    #[serde(default)]
    pub precision: Factors,
    /// What happens to pictures before the model gets them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preprocess: Option<Preprocess>,
    /// How the model is trained; only `train` and `distill` read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub train: Option<crate::train::settings::Settings>,
}

/// Factors of products of f32 matrices on a GPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Factors {
    /// f32, without tensor cores
    #[default]
    F32,
    /// Rounded to 10 bits of mantissa, by tensor cores
    Tf32,
    /// Rounded to 7 bits of mantissa, by tensor cores
    Bf16,
}

impl Factors {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Factors::F32 => "f32",
            Factors::Tf32 => "tf32",
            Factors::Bf16 => "bf16",
        }
    }
}

fn allowed() -> bool {
    true
}

impl Default for Recipe {
    fn default() -> Self {
        let tool = format!("planish {}", env!("CARGO_PKG_VERSION"));
        Recipe {
            version: 1,
            tool,
            level: 2,
            passes: Vec::new(),
            winograd: true,
            fast_math: false,
            lock: String::new(),
            precision: Factors::F32,
            preprocess: None,
            train: None,
        }
    }
}

/// What to run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Settings.
    pub recipe: Recipe,
    specs: Vec<PassSpec>,
    from: Phase,
    to: Phase,
    print_after: Vec<String>,
    verify_each: bool,
    calibrate: Option<Rc<dyn Calibrate>>,
    facts: TargetFacts,
}

impl Plan {
    /// Reads options and recipe. `last` is the phase that the command goes to by itself.
    pub fn new(args: &PassArgs, last: Phase) -> Result<Plan> {
        let mut recipe = match &args.recipe {
            None => Recipe::default(),
            Some(path) => {
                let text = std::fs::read_to_string(path).map_err(|e| Failure::file(path, e))?;
                let recipe: Recipe = toml::from_str(&text)
                    .map_err(|e| Failure::new("recipe-malformed", format!("{}: {e}", path.display())))?;
                if recipe.version != 1 {
                    let text = format!("{}: version {} is not known", path.display(), recipe.version);
                    return Err(Failure::new("recipe-malformed", text));
                }
                Recipe { tool: Recipe::default().tool, ..recipe }
            }
        };
        if let Some(level) = args.level {
            recipe.level = level;
        }
        let mut given = Vec::new();
        for text in args.pass.iter().chain(&args.passes) {
            given.extend(parse_specs(text)?);
        }
        if given.is_empty() {
            for text in &recipe.passes {
                given.extend(parse_specs(text)?);
            }
        }
        for spec in &given {
            spec.make()?;
        }
        recipe.passes = given.iter().map(complete).collect::<Result<_>>()?;
        for name in args.print_after.iter().filter(|n| *n != "all") {
            PassSpec::plain(name).meta()?;
        }
        let (from, to) = (args.from.unwrap_or(Phase::Import), args.to.unwrap_or(last));
        if from > to {
            return Err(Failure::usage("--from names a later phase than --to"));
        }
        if to > last {
            return Err(Failure::usage(
                format!("this command does not go beyond the phase {last:?}").to_lowercase(),
            ));
        }
        Ok(Plan {
            recipe,
            specs: given,
            from,
            to,
            print_after: args.print_after.clone(),
            verify_each: args.verify_each,
            calibrate: None,
            facts: TargetFacts::default(),
        })
    }
    /// The settings of an optimisation level and nothing else.
    pub fn level(level: u8) -> Plan {
        Plan {
            recipe: Recipe { level, ..Recipe::default() },
            specs: Vec::new(),
            from: Phase::Import,
            to: Phase::Fused,
            print_after: Vec::new(),
            verify_each: false,
            calibrate: None,
            facts: TargetFacts::default(),
        }
    }
    /// Passes that ask for runs on samples get this.
    pub fn calibrate_on(&mut self, calibrator: Calibrator) {
        self.calibrate = Some(Rc::new(calibrator));
    }
    /// Whether a pass that changes results was asked for.
    pub fn lossy(&self) -> bool {
        self.specs.iter().any(|s| s.meta().is_ok_and(|m| m.kind == PassKind::Lossy))
    }
    /// What passes are told of processors with vectors of so many lanes of f32; with `lock`, what was measured of them.
    pub fn aim(&mut self, lanes: &[u16], lock: Option<&Lock>) {
        self.facts.sparse.lanes = lanes.iter().map(|l| u32::from(*l)).collect();
        if let Some(lock) = lock {
            self.facts.sparse.measured(&lock.costs());
            self.recipe.lock = lock.hash();
        }
    }
    /// Whether convolutions may be computed by Winograd's transforms.
    pub fn winograd(&self) -> bool {
        self.recipe.winograd && self.rank() >= Level::O2
    }
    fn rank(&self) -> Level {
        match self.recipe.level {
            0 => Level::O0,
            1 => Level::O1,
            2 => Level::O2,
            _ => Level::O3,
        }
    }
    /// A hash of everything that decides the result, in hexadecimal.
    pub fn hash(&self) -> Result<String> {
        let text = self.text()?;
        Ok(Sha256::digest(text.as_bytes()).iter().map(|b| format!("{b:02x}")).collect())
    }
    /// The settings as a recipe file.
    pub fn text(&self) -> Result<String> {
        toml::to_string(&self.recipe).map_err(|e| Failure::new("internal-recipe", e.to_string()))
    }
    /// Where the passes stop.
    pub fn last(&self) -> Phase {
        self.to
    }
    /// The passes that add outputs. They come first: what they name is named as in the file.
    fn extending(&self) -> Pipeline {
        let specs: Vec<PassSpec> = self.specs.iter().filter(|s| extends(s)).cloned().collect();
        let mut pipeline = Pipeline::default();
        if self.to >= Phase::Compressed {
            pipeline.specs(&specs);
        }
        pipeline
    }
    /// Adds the outputs that passes add, so that what the interpreter makes of the graph is what all else is held to.
    pub fn extend(&self, graph: &mut Graph) -> Result<()> {
        self.run(self.extending(), graph, &mut |_| {}, &mut Report::default())
    }
    /// Runs canonical and user passes; gives what they did. `print` takes the text of graphs to be printed.
    pub fn compress(&self, graph: &mut Graph, print: &mut dyn FnMut(String)) -> Result<Report> {
        let mut report = Report::default();
        self.run(self.extending(), graph, print, &mut report)?;
        if self.from < Phase::Canonical && self.to >= Phase::Canonical {
            self.run(Pipeline::canonical(self.rank()), graph, print, &mut report)?;
        }
        if self.from < Phase::Compressed && self.to >= Phase::Compressed {
            let mut user = Pipeline::default();
            let others: Vec<PassSpec> = self.specs.iter().filter(|s| !extends(s)).cloned().collect();
            user.specs(&others);
            self.run(user, graph, print, &mut report)?;
        }
        Ok(report)
    }
    /// Runs what a model goes through before it is trained: exact passes that keep parameters apart, then user passes. Parameters that are equal now
    /// need not be later, so duplicates stay.
    pub fn prepare(&self, graph: &mut Graph, print: &mut dyn FnMut(String)) -> Result<Report> {
        let mut report = Report::default();
        self.run(self.extending(), graph, print, &mut report)?;
        self.settle(graph, print, &mut report)?;
        let mut user = Pipeline::default();
        let others: Vec<PassSpec> = self.specs.iter().filter(|s| !extends(s)).cloned().collect();
        user.specs(&others);
        self.run(user, graph, print, &mut report)?;
        Ok(report)
    }
    /// Whether there are passes that the user has asked for.
    pub fn has_own(&self) -> bool {
        self.specs.iter().any(|s| !extends(s))
    }
    /// Runs the exact passes among those of [`Plan::prepare`]. What user passes have made of parameters stays.
    pub fn settle(
        &self,
        graph: &mut Graph,
        print: &mut dyn FnMut(String),
        report: &mut Report,
    ) -> Result<()> {
        let apart = planish_passes::pipeline::CANONICAL.iter().filter(|p| **p != "merge-duplicates");
        let apart: Vec<PassSpec> = apart
            .map(|p| {
                let mut spec = PassSpec::plain(p);
                if *p == "fold-constants" {
                    spec.options.set("tables", "false");
                }
                spec
            })
            .collect();
        let mut exact = Pipeline::default();
        exact.repeat_specs(apart.clone());
        exact.once("fold-batch-norm");
        exact.repeat_specs(apart);
        self.run(exact, graph, print, report)
    }
    /// Runs the passes before lowering.
    pub fn fuse(&self, graph: &mut Graph, print: &mut dyn FnMut(String), report: &mut Report) -> Result<()> {
        if self.from < Phase::Fused && self.to >= Phase::Fused {
            self.run(Pipeline::fused(self.rank()), graph, print, report)?;
        }
        Ok(())
    }
    fn run(
        &self,
        mut pipeline: Pipeline,
        graph: &mut Graph,
        print: &mut dyn FnMut(String),
        report: &mut Report,
    ) -> Result<()> {
        pipeline.verify_each = self.verify_each;
        pipeline.calibrate.clone_from(&self.calibrate);
        let mut after = |spec: &PassSpec, graph: &Graph| {
            if self.print_after.iter().any(|p| p == "all" || *p == spec.name) {
                let options = planish_ir::text::PrintOptions { elide: Some(16), no_locations: false };
                print(format!("; after {spec}\n{}", planish_ir::text::print_with(graph, options)));
            }
        };
        let done = pipeline.run(graph, &self.facts, &mut after)?;
        report.ran.extend(done.ran);
        report.remarks.extend(done.remarks);
        report.lossy.extend(done.lossy);
        Ok(())
    }
    /// Writes `--save-recipe`.
    pub fn save(&self, args: &PassArgs, writer: &Writer) -> Result<()> {
        match &args.save_recipe {
            Some(path) => writer.write(path, self.text()?.as_bytes()),
            None => Ok(()),
        }
    }
}

fn extends(spec: &PassSpec) -> bool {
    spec.meta().is_ok_and(|m| m.kind == PassKind::Extending)
}

/// A pass with the defaults of all its options written out.
fn complete(spec: &PassSpec) -> Result<String> {
    let meta = spec.meta()?;
    let mut out = PassSpec::plain(&spec.name);
    for option in meta.options {
        out.options.set(option.name, spec.options.text(meta.options, option.name));
    }
    Ok(out.to_string())
}

/// Says what passes did, as the options ask for.
pub fn tell(report: &Report, args: &PassArgs, ui: &Ui) {
    for d in &report.remarks {
        match (args.remarks, d.severity) {
            (Some(crate::ui::Format::Json), _) => {}
            (Some(crate::ui::Format::Text), _) => ui.say(d.to_string()),
            (None, _) => ui.diag(d),
        }
    }
    if args.remarks == Some(crate::ui::Format::Json) {
        let all: Vec<_> = report.remarks.iter().map(diag_json).collect();
        ui.say(schema("planish.remarks", json!({"remarks": all})).to_string());
    }
    if args.time_passes {
        for r in &report.ran {
            ui.say(format!("{:>9.3} ms  {:>6} edits  {}", r.time.as_secs_f64() * 1e3, r.edits, r.spec));
        }
    }
}

/// What passes did, for scripts: one entry a pass, repetitions added up.
pub fn report_json(report: &Report) -> serde_json::Value {
    let mut rows: Vec<(String, u64, f64, serde_json::Map<String, serde_json::Value>)> = Vec::new();
    for r in &report.ran {
        let at = match rows.iter().position(|(spec, ..)| *spec == r.spec) {
            Some(at) => at,
            None => {
                rows.push((r.spec.clone(), 0, 0.0, serde_json::Map::new()));
                rows.len() - 1
            }
        };
        rows[at].1 += r.edits;
        rows[at].2 += r.time.as_secs_f64() * 1e3;
        for (k, v) in &r.metrics {
            let before = rows[at].3.get(k).and_then(serde_json::Value::as_f64).unwrap_or(0.0);
            rows[at].3.insert(k.clone(), json!(before + v));
        }
    }
    let passes: Vec<_> = rows
        .into_iter()
        .map(|(spec, edits, ms, metrics)| json!({"pass": spec, "edits": edits, "ms": ms, "metrics": metrics}))
        .collect();
    let declined: Vec<_> =
        report.remarks.iter().filter(|d| d.severity <= Severity::Remark).map(diag_json).collect();
    json!({"passes": passes, "remarks": declined, "lossy": report.lossy})
}

/// Whether an argument is a piece of a pass list that the shell has torn apart.
pub fn torn(argument: &str) -> bool {
    let name = argument.split(['=', '{', ',']).next().unwrap_or("");
    (argument.contains('=') || argument.contains('{') || argument.contains('}'))
        && !argument.contains('/')
        && !name.is_empty()
        && argument.contains(',')
        || argument.ends_with('}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_saved_recipe_gives_the_same_plan() -> std::result::Result<(), Box<dyn std::error::Error>> {
        let args = PassArgs {
            passes: Some("eliminate-dead,fold-constants".into()),
            level: Some(1),
            ..PassArgs::default()
        };
        let plan = Plan::new(&args, Phase::Fused).map_err(|f| f.message())?;
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("r.toml");
        std::fs::write(&path, plan.text().map_err(|f| f.message())?)?;
        let again_args = PassArgs { recipe: Some(path.clone()), ..PassArgs::default() };
        let again = Plan::new(&again_args, Phase::Fused).map_err(|f| f.message())?;
        assert_eq!(again.recipe, plan.recipe);
        assert_eq!(again.hash().ok(), plan.hash().ok());
        // Level 1 leaves Winograd's transforms out, and so does a recipe that says so.
        let mut second = Plan::level(2);
        assert_eq!((plan.winograd(), second.winograd()), (false, true));
        second.recipe.winograd = false;
        assert!(!second.winograd());
        assert_ne!(second.hash().ok(), Plan::level(2).hash().ok());
        let mut third = Plan::level(2);
        third.recipe.fast_math = true;
        assert_ne!(third.hash().ok(), Plan::level(2).hash().ok());
        let text = format!(
            "{}\n[preprocess]\nscale = 0.5\nmean = [1, 2, 3]\n",
            plan.text().map_err(|f| f.message())?
        );
        std::fs::write(&path, text)?;
        let pictures = Plan::new(&again_args, Phase::Fused).map_err(|f| f.message())?;
        assert_ne!(pictures.hash().ok(), plan.hash().ok());
        std::fs::write(&path, pictures.text().map_err(|f| f.message())?)?;
        let again = Plan::new(&again_args, Phase::Fused).map_err(|f| f.message())?;
        assert_eq!(again.recipe, pictures.recipe);
        let other = PassArgs { recipe: Some(path.clone()), level: Some(3), ..PassArgs::default() };
        assert_eq!(Plan::new(&other, Phase::Fused).map(|p| p.recipe.level).ok(), Some(3));
        std::fs::write(&path, "version = 1\nlevel = 2\nspeed = 9\n")?;
        let bad = PassArgs { recipe: Some(path), ..PassArgs::default() };
        assert_eq!(Plan::new(&bad, Phase::Fused).err().map(|f| f.diags[0].id), Some("recipe-malformed"));
        Ok(())
    }

    #[test]
    fn torn_lists_are_recognised() {
        assert!(torn("a,bk=v") && torn("k=v}"));
        assert!(!torn("model.onnx") && !torn("dir/a,b=c.onnx"));
    }
}
