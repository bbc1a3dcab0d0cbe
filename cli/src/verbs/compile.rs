//! `planish compile`: a model as a native program.

use crate::accuracy::{self, Accuracy};
use crate::artifact::object;
use crate::bodies::Bodies;
use crate::calibrate::Calibrator;
use crate::data::DataArgs;
use crate::emit::{self, Ptxas};
use crate::engine;
use crate::engine::cache::Cache;
use crate::engine::codegen::{self, BuildOptions, Built};
use crate::equivalence::{self, Case, Verdict};
use crate::exit::Exit;
use crate::failure::{Failure, Result};
use crate::files::Writer;
use crate::load::{LoadOptions, Model, SafetyArgs};
use crate::lock;
use crate::pipeline::{self, Factors, PassArgs, Phase, Plan};
use crate::report::{self, Report};
use crate::shapes::{ShapeArgs, Shapes};
use crate::ui::{Format, Ui, schema};
use crate::units::show_bytes;
use planish_codegen::Module;
use planish_codegen::kernel::{Arch, TargetSpec};
use planish_codegen::lower::Precision;
use planish_ir::Diag;
use serde_json::json;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Compile a model to a native program
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The model, or a manifest (.toml) of several
    pub model: PathBuf,
    /// The output file; with several kinds, what its name begins with; the folder of the models of a manifest
    #[arg(short, long, value_name = "OUT")]
    pub output: PathBuf,
    /// What to write, with commas between
    #[arg(long, value_enum, value_delimiter = ',', default_value = "exe", value_name = "KIND")]
    pub emit: Vec<Kind>,
    /// What to compile for: a triple, or nvptx:sm_80
    #[arg(long, value_name = "TRIPLE", default_value = "x86_64-unknown-linux-gnu")]
    pub target: String,
    /// Code variants: portable, host, or names from `planish targets` with commas between
    #[arg(long, value_delimiter = ',', default_value = "portable", value_name = "CPU")]
    pub cpu: Vec<String>,
    /// The name of the model in symbols and reports
    #[arg(long, value_name = "ID")]
    pub name: Option<String>,
    /// Processes that compile at a time; the result does not depend on it
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub jobs: Option<u32>,
    /// Where compiled kernels are kept: a folder, or `none`
    #[arg(long, value_name = "DIR|none")]
    pub cache_dir: Option<PathBuf>,
    /// Do not compare the result with the interpreter on samples or synthetic inputs
    #[arg(long)]
    pub no_check: bool,
    /// Name the kernels in machine code, for `perf` and debuggers
    #[arg(long)]
    pub perf_map: bool,
    /// Compute 3x3 convolutions as they are written, without Winograd's transforms, which round more
    #[arg(long)]
    pub no_winograd: bool,
    /// Approximate exp, tanh, sigmoid, softplus and what follows from them, to a relative error of 2e-6
    #[arg(long)]
    pub fast_math: bool,
    /// For GPUs: what products of f32 matrices multiply; sums are f32 always. tf32 and bf16 round the factors
    #[arg(long, value_enum, value_name = "TYPE")]
    pub precision: Option<Factors>,
    /// Write the report: what passes did to each layer, sizes, the check
    #[arg(long, value_name = "R.json")]
    pub report: Option<PathBuf>,
    /// Replace files that planish did not write
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub passes: PassArgs,
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

/// What can be written.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, clap::ValueEnum)]
pub enum Kind {
    /// Executable.
    Exe,
    /// Shared object.
    Shared,
    /// Static archive of the model and the runtime.
    Static,
    /// Relocatable object of the model without the runtime.
    Object,
    /// C header.
    Header,
    /// Python module; comes with the shared object.
    Python,
    /// LLVM IR as text.
    LlvmIr,
    /// Assembly.
    Asm,
    /// PTX of all kernels, for a GPU.
    Ptx,
    /// PTX assembled by ptxas, for one GPU.
    Cubin,
    /// Kernel IR as text.
    Kernels,
    /// Graph IR as text.
    Graph,
    /// The optimised graph as ONNX.
    Onnx,
}

impl Kind {
    /// What is appended to the stem when several kinds are written.
    pub fn suffix(self) -> &'static str {
        match self {
            Kind::Exe => "",
            Kind::Shared => ".so",
            Kind::Static => ".a",
            Kind::Object => ".o",
            Kind::Header => ".h",
            Kind::Python => ".py",
            Kind::LlvmIr => ".ll",
            Kind::Asm => ".s",
            Kind::Ptx => ".ptx",
            Kind::Cubin => ".cubin",
            Kind::Kernels => ".kir",
            Kind::Graph => ".pir",
            Kind::Onnx => ".onnx",
        }
    }
    /// Whether machine code of a processor is needed where the target is one.
    fn needs_code(self) -> bool {
        matches!(self, Kind::Exe | Kind::Shared | Kind::Static | Kind::Object | Kind::Python)
    }
    /// Whether it can be written for a target of this kind.
    fn suits(self, gpu: bool) -> bool {
        match self {
            Kind::Ptx | Kind::Cubin => gpu,
            Kind::Exe | Kind::Kernels | Kind::Graph | Kind::Onnx | Kind::LlvmIr => true,
            _ => !gpu,
        }
    }
    /// Whether it is a graph.
    fn is_graph(self) -> bool {
        matches!(self, Kind::Graph | Kind::Onnx)
    }
    fn needs_kernels(self) -> bool {
        !matches!(self, Kind::Graph | Kind::Onnx | Kind::Header)
    }
}

/// The file of each kind.
fn outputs(stem: &Path, kinds: &[Kind]) -> Vec<(Kind, PathBuf)> {
    let mut kinds = kinds.to_vec();
    kinds.sort();
    kinds.dedup();
    let named = |k: &Kind| {
        let mut name = OsString::from(stem);
        name.push(k.suffix());
        (*k, PathBuf::from(name))
    };
    let mut files: Vec<(Kind, PathBuf)> = match kinds[..] {
        [only] => vec![(only, stem.to_owned())],
        _ => kinds.iter().map(named).collect(),
    };
    // A Python module needs a shared object. It goes beside it under a name that `import` does not prefer to the
    // module: of `m.so` and `m.py` Python takes the first.
    let module = files.iter().find(|(k, _)| *k == Kind::Python).map(|(_, p)| p.with_extension(""));
    if let Some(module) = module.filter(|_| !kinds.contains(&Kind::Shared)) {
        let mut name = OsString::from("lib");
        name.push(module.file_name().unwrap_or_default());
        name.push(Kind::Shared.suffix());
        files.push((Kind::Shared, module.with_file_name(name)));
    }
    files.sort();
    files
}

/// The code variants that `--target` and `--cpu` ask for.
pub fn targets(triple: &str, cpu: &[String]) -> Result<Vec<TargetSpec>> {
    if let Some(name) = triple.strip_prefix("nvptx:") {
        let chosen = TargetSpec::all_gpu().into_iter().find(|t| t.name == name);
        let Some(chosen) = chosen else {
            return Err(Failure::usage(format!(
                "the target {triple:?} is not supported; see `planish targets`"
            )));
        };
        if cpu != ["portable"] {
            return Err(Failure::usage("--cpu chooses among processors; the target is a GPU"));
        }
        return Ok(vec![chosen]);
    }
    let arch = triple.split('-').next().unwrap_or("");
    let linux = triple.contains("linux");
    let portable = match arch {
        "x86_64" if linux => {
            vec![TargetSpec::x86_64_v3(), TargetSpec::x86_64_v4_vnni(), TargetSpec::x86_64_v4_bf16()]
        }
        "aarch64" if linux => vec![TargetSpec::aarch64()],
        _ => {
            return Err(Failure::usage(format!(
                "the target {triple:?} is not supported; see `planish targets`"
            )));
        }
    };
    let mut out: Vec<TargetSpec> = Vec::new();
    for name in cpu {
        let chosen = match name.as_str() {
            "portable" => portable.clone(),
            "host" => vec![engine::host()?],
            name => vec![TargetSpec::by_name(name).ok_or_else(|| {
                Failure::usage(format!("no code variant is called {name:?}; see `planish targets`"))
            })?],
        };
        out.extend(chosen.into_iter().filter(|t| !out.contains(t)).collect::<Vec<_>>());
    }
    let wanted = portable[0].arch;
    if let Some(t) = out.iter().find(|t| t.arch != wanted) {
        return Err(Failure::usage(format!("the variant {:?} is not for the target {triple:?}", t.name)));
    }
    Ok(out)
}

/// What was made.
#[derive(Debug)]
pub struct Made {
    /// The files: kind, path, bytes.
    pub rows: Vec<(Kind, PathBuf, u64)>,
    /// What the comparison with the interpreter said.
    pub checked: Option<Verdict>,
    /// What passes with a loss have left, on samples that they did not see.
    pub accuracy: Option<Accuracy>,
    /// Whether it was asked for with samples.
    pub asked: bool,
    /// For the report, if one was wanted.
    pub model: Option<report::Model>,
    /// Seconds.
    pub seconds: f64,
}

/// Runs the verb.
pub fn run(args: &Args, ui: &Ui) -> Result<Exit> {
    if crate::manifest::is_manifest(&args.model) {
        return super::many::compile(args, ui);
    }
    let writer = Writer::new(args.force);
    if let Some(path) = &args.report {
        writer.check(path)?;
    }
    let made = make(args, args.report.is_some(), ui)?;
    if let Some(path) = &args.report {
        let mut report = Report::new(report::Command::Compile);
        report.models.extend(made.model.clone());
        writer.write(path, &report.file()?)?;
    }
    match args.format {
        Format::Json => {
            let files: Vec<_> = made
                .rows
                .iter()
                .map(|(k, p, n)| json!({"kind": kind_name(*k), "path": p.display().to_string(), "bytes": n}))
                .collect();
            ui.json(&schema(
                "planish.compile",
                json!({
                    "model": args.model.display().to_string(),
                    "seconds": made.seconds,
                    "files": files,
                    "check": made.checked.as_ref().map(Verdict::json),
                    "accuracy": made.accuracy.as_ref().map(Accuracy::json),
                }),
            ));
        }
        Format::Text => {
            for (k, p, n) in &made.rows {
                ui.out(format!("{}: {}, {}", p.display(), kind_name(*k), show_bytes(*n)));
            }
            if let Some(a) = &made.accuracy {
                ui.out(a.text());
            }
            // What was asked for is answered; other checks are remarks.
            if let (Some(v), true) = (&made.checked, made.asked) {
                ui.out(v.diag().message);
            }
            ui.detail(format!("{:.2} s", made.seconds));
        }
    }
    Ok(Exit::Ok)
}

/// Compiles a model and writes its files. `described`: with what a report says about it.
pub fn make(args: &Args, described: bool, ui: &Ui) -> Result<Made> {
    let started = Instant::now();
    let mut writer = Writer::new(args.force);
    writer.protect(&args.model);
    args.data.paths().for_each(|p| writer.protect(p));
    let files = outputs(&args.output, &args.emit);
    for (_, path) in &files {
        writer.check(path)?;
    }
    if args.emit.contains(&Kind::Python) && args.emit.contains(&Kind::Shared) {
        let text = "`import` takes the shared object for the module of the same name; without the kind `shared`, the one \
                    that the module needs gets another name";
        ui.diag(&Diag::warning("python-shadowed", text));
    }
    let targets = targets(&args.target, &args.cpu)?;
    let gpu = targets.iter().any(|t| t.arch == Arch::Nvptx);
    if let Some((kind, _)) = files.iter().find(|(k, _)| !k.suits(gpu)) {
        let other = if gpu { "a GPU: exe, ptx or cubin can be written" } else { "a processor" };
        return Err(Failure::usage(format!(
            "{} cannot be written for {}, which is {other}",
            kind_name(*kind),
            args.target
        )));
    }
    if args.perf_map && (gpu || !files.iter().any(|(k, _)| k.needs_code())) {
        return Err(Failure::usage(
            "--perf-map names kernels in machine code of a processor: an executable, a library or an object",
        ));
    }
    let ptxas = files.iter().any(|(k, _)| *k == Kind::Cubin).then(Ptxas::find).transpose()?;
    let mut plan = Plan::new(&args.passes, Phase::Fused)?;
    plan.recipe.winograd &= !args.no_winograd;
    plan.recipe.fast_math |= args.fast_math;
    plan.recipe.precision = args.precision.unwrap_or(plan.recipe.precision);
    let rounded = plan.recipe.precision != Factors::F32;
    if rounded && !gpu {
        return Err(Failure::usage("--precision is for GPUs; on processors factors are f32"));
    }
    let lanes: Vec<u16> = targets.iter().map(|t| t.lanes_f32).collect();
    lock::settle(&args.passes.lock, &mut plan, &lanes, &writer, ui)?;
    if plan.last() < Phase::Fused && files.iter().any(|(k, _)| k.needs_kernels()) {
        return Err(Failure::usage(
            "--to stops before kernels are made; only graph and onnx can be written then",
        ));
    }
    let load = LoadOptions::new(&args.safety, Shapes::parse(&args.shapes)?);
    let mut bodies = Bodies::load(&args.model, load)?;
    ui.diags(&bodies.model.warnings);
    let preprocess = plan.recipe.preprocess.clone();
    if let Some(p) = &preprocess {
        bodies.embed(p)?;
    }
    bodies.extend(&plan)?;
    let data = args.data.read_with(&bodies.model.graph, preprocess.as_ref())?;
    data.iter().for_each(|d| d.tell(ui));
    data.iter().try_for_each(|d| bodies.accept(d))?;
    let split = data.as_ref().filter(|_| plan.lossy());
    let split = split.map(|d| args.data.split(d, &bodies.model.graph, preprocess.as_ref())).transpose()?;
    let seen = split.as_ref().map_or(data.as_ref(), |(seen, _)| Some(seen));
    let cache = Cache::from_option(args.cache_dir.as_deref());
    plan.calibrate_on(Calibrator::new(seen.cloned()).telling(ui).kept(cache.clone()));
    let held = split.and_then(|(_, held)| held).filter(|_| !args.no_check && !bodies.several());
    bodies.too_large(args.safety.max_memory.unwrap_or(u64::MAX))?;
    if let Some((kind, _)) = files.iter().find(|(k, _)| k.is_graph() && bodies.several()) {
        return Err(Failure::usage(format!(
            "{} holds one graph, but --set gives several values; give one",
            kind_name(*kind)
        )));
    }
    let stem = || args.model.file_stem().map(|s| s.to_string_lossy().into_owned());
    let name = args.name.clone().or_else(stem).unwrap_or_default();
    bodies.rename(&name);
    let kept = described || held.is_some() || files.iter().any(|(k, _)| *k == Kind::Onnx);
    let ran = bodies.optimise(&plan, kept, ui)?;
    pipeline::tell(&ran, &args.passes, ui);
    let accuracy = match (held, bodies.compressed()) {
        (Some((held, apart)), Some(made)) if !ran.lossy.is_empty() => {
            Some(accuracy::compare(&bodies.model.graph, made, &held, apart, ui)?)
        }
        _ => None,
    };
    let checked_later = !args.no_check && ran.lossy.is_empty() && !rounded;
    let options = BuildOptions {
        generator: codegen::Generator::Llvm,
        targets,
        jobs: args.jobs.map_or_else(|| BuildOptions::default().jobs, |n| n as usize),
        max_weights: args.safety.max_memory.unwrap_or(BuildOptions::default().max_weights),
        winograd: plan.winograd(),
        fast_math: plan.recipe.fast_math,
        precision: match plan.recipe.precision {
            Factors::F32 => Precision::F32,
            Factors::Tf32 => Precision::Tf32,
            Factors::Bf16 => Precision::Bf16,
        },
        cache,
    };
    let mut rows = Vec::new();
    let mut write = |kind: Kind, path: &Path, contents: &[u8]| -> Result<()> {
        writer.write(path, contents)?;
        rows.push((kind, path.to_owned(), contents.len() as u64));
        Ok(())
    };
    let mut built: Option<Built> = None;
    let mut module = None;
    if !gpu && files.iter().any(|(k, _)| k.needs_code()) {
        let mut b = codegen::compiled(bodies.lowered(&options)?, &options)?;
        describe(&mut b.module, &bodies.model, &plan, &ran)?;
        built = Some(b);
    } else if files.iter().any(|(k, _)| k.needs_kernels()) {
        let mut m = bodies.lowered(&options)?;
        if gpu {
            describe(&mut m, &bodies.model, &plan, &ran)?;
        }
        module = Some(m);
    }
    let module = built.as_ref().map(|b| &b.module).or(module.as_ref());
    let mut sizes = Vec::new();
    let mut checked: Option<Verdict> = None;
    let on_gpu = |k: Kind| matches!(k, Kind::Ptx | Kind::Cubin) || (gpu && k == Kind::Exe);
    let mut cubin = None;
    let device = match module.filter(|_| files.iter().any(|(k, _)| on_gpu(*k))) {
        Some(m) => {
            let text = codegen::ptx(m, &options)?;
            if checked_later {
                let v = bodies.check(CHECK_TIME, data.as_ref(), &mut |case| emit::check_ptx(m, &text, case));
                checked = Some(judge(v, ui)?);
            }
            if let Some(ptxas) = &ptxas {
                cubin = Some(ptxas.assemble(&text, &options.targets[0].name)?);
            }
            text
        }
        None => String::new(),
    };
    for (kind, path) in &files {
        match (kind, module) {
            (Kind::Graph, _) => {
                write(*kind, path, planish_ir::text::print(bodies.fused()).as_bytes())?;
            }
            (Kind::Onnx, _) => {
                let lost = || Failure::new("internal-bodies", "the graph to be exported was not kept");
                let len = crate::export::write(bodies.compressed().ok_or_else(lost)?, path, &writer)?;
                sizes.push((*kind, path.clone(), len));
            }
            (Kind::Kernels, Some(m)) => {
                let text: String = m
                    .variants
                    .iter()
                    .map(|v| format!("; target {}\n{}\n", v.target.name, v.kernels))
                    .collect();
                write(*kind, path, format!("; plan\n{}\n{text}", comment(&m.plan.to_string())).as_bytes())?;
            }
            (Kind::LlvmIr | Kind::Asm, Some(m)) => write(
                *kind,
                path,
                (if *kind == Kind::Asm { emit::assembly(m) } else { emit::llvm_ir(m) })?.as_bytes(),
            )?,
            (Kind::Ptx, _) => write(*kind, path, device.as_bytes())?,
            (Kind::Cubin, _) => {
                if let Some(code) = &cubin {
                    write(*kind, path, code)?;
                }
            }
            (Kind::Exe, Some(m)) if gpu => {
                let len = emit::gpu_executable(m, &device, cubin.as_deref(), path, &writer)?;
                sizes.push((*kind, path.clone(), len));
            }
            (Kind::Exe, _) => {
                if let Some(b) = &built {
                    let mut verdict = None;
                    let len = emit::executable(b, args.perf_map, path, &writer, |made| {
                        if checked_later {
                            let v = bodies.check(CHECK_TIME, data.as_ref(), &mut |case| check(made, b, case));
                            verdict = Some(judge(v, ui)?);
                        }
                        Ok(())
                    })?;
                    checked = verdict;
                    sizes.push((*kind, path.clone(), len));
                }
            }
            (Kind::Header, _) => write(*kind, path, object::header(&name).as_bytes())?,
            (Kind::Python, _) => {
                let library = files.iter().find(|(k, _)| *k == Kind::Shared).and_then(|(_, p)| p.file_name());
                write(*kind, path, object::python(&name, library.unwrap_or_default()).as_bytes())?;
            }
            (Kind::Shared | Kind::Static | Kind::Object, _) => {
                if let Some(b) = &built {
                    let len = emit::library(*kind, &name, b, args.perf_map, path, &writer)?;
                    sizes.push((*kind, path.clone(), len));
                }
            }
            _ => {}
        }
    }
    if let (None, Some(_), true) = (&checked, &data, checked_later) {
        let v = Verdict::NotChecked("only executables and PTX can be run on the data".into());
        ui.diag(&v.diag());
        checked = Some(v);
    }
    plan.save(&args.passes, &writer)?;
    rows.extend(sizes);
    let seconds = started.elapsed().as_secs_f64();
    let mut made = None;
    if let (true, Some(graph)) = (described, bodies.compressed()) {
        let mut m = report::model::made(&name, &bodies.model, &plan, &ran, graph)?;
        built.iter().for_each(|b| m.built(b));
        m.wrote(rows.iter().map(|(k, p, n)| (kind_name(*k), p.display().to_string(), *n)).collect());
        m.checked(checked.as_ref());
        m.kept(accuracy.as_ref());
        m.seconds = seconds;
        made = Some(m);
    }
    Ok(Made { rows, checked, accuracy, asked: data.is_some(), model: made, seconds })
}

fn comment(text: &str) -> String {
    text.lines().map(|l| format!("; {l}\n")).collect()
}

fn kind_name(kind: Kind) -> String {
    use clap::ValueEnum;
    kind.to_possible_value().map_or_else(String::new, |v| v.get_name().to_owned())
}

/// Says in the plan where it comes from.
fn describe(module: &mut Module, model: &Model, plan: &Plan, report: &planish_passes::Report) -> Result<()> {
    let meta = &mut module.plan.meta;
    meta.name.clone_from(&model.graph.name);
    meta.model_hash = format!("sha256:{}", model.hash);
    meta.tool = format!("planish {}", env!("CARGO_PKG_VERSION"));
    meta.recipe_hash = format!("sha256:{}", plan.hash()?);
    meta.lossy.clone_from(&report.lossy);
    if meta.precision.is_empty() {
        meta.precision = plan.recipe.precision.name().into();
    }
    if plan.recipe.precision != Factors::F32 {
        meta.lossy.push(format!("precision {}", plan.recipe.precision.name()));
    }
    Ok(())
}

/// How long the check may take: half for the interpreter, half for the program. Bodies share it.
const CHECK_TIME: Duration = Duration::from_secs(5);

/// Reports what a check found; a difference is an error.
fn judge(verdict: Verdict, ui: &Ui) -> Result<Verdict> {
    ui.diag(&verdict.diag());
    match verdict {
        Verdict::Different(_) => {
            Err(Failure::new("mismatch", "nothing was written; --no-check would write it"))
        }
        other => Ok(other),
    }
}

/// Runs the finished program and compares its outputs with the interpreter.
fn check(program: &Path, built: &Built, case: Case<'_>) -> Verdict {
    if !built.variants.iter().any(|v| v.target.runs_here()) {
        return Verdict::NotChecked("the program is for another kind of processor".into());
    }
    use crate::artifact_run::{Trouble, outputs};
    equivalence::check(case, &mut |reference| {
        outputs(program, &reference.inputs, case.graph, case.limit).map_err(|trouble| match trouble {
            Trouble::Time => Verdict::NotChecked("the program was not done in time".into()),
            Trouble::Failed(why) => Verdict::Different(why),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_kind_names_the_file_and_several_share_a_stem() {
        let at = |kinds: &[Kind]| -> Vec<String> {
            outputs(Path::new("d/m"), kinds).into_iter().map(|(_, p)| p.display().to_string()).collect()
        };
        assert_eq!(at(&[Kind::Kernels]), ["d/m"]);
        assert_eq!(at(&[Kind::Kernels, Kind::Exe, Kind::Exe]), ["d/m", "d/m.kir"]);
        assert_eq!(at(&[Kind::Python, Kind::Shared]), ["d/m.so", "d/m.py"]);
        assert_eq!(at(&[Kind::Exe, Kind::Python]), ["d/m", "d/libm.so", "d/m.py"]);
        let alone = outputs(Path::new("d/m.py"), &[Kind::Python]);
        assert_eq!(alone[0].1, Path::new("d/libm.so"));
    }

    #[test]
    fn variants_fit_their_target() {
        let of = |triple: &str, cpu: &str| targets(triple, &[cpu.to_owned()]).map(|t| t.len()).ok();
        assert_eq!(of("x86_64-unknown-linux-gnu", "portable"), Some(3));
        assert_eq!(of("aarch64-unknown-linux-gnu", "portable"), Some(1));
        assert_eq!(of("aarch64-unknown-linux-gnu", "x86-64-v3"), None);
        assert_eq!(of("wasm32-unknown-unknown", "portable"), None);
        assert_eq!(of("nvptx:sm_80", "portable"), Some(1));
        assert_eq!(of("nvptx:sm_80", "host"), None);
        assert_eq!(of("nvptx:sm_20", "portable"), None);
        assert!(Kind::Ptx.suits(true) && !Kind::Ptx.suits(false));
        assert!(Kind::Exe.suits(true) && !Kind::Shared.suits(true));
    }
}
