//! The parts of the tests that are Python: fetching models, conformance, hostile models, comparison.

use crate::setup::{self, Tools};
use crate::shell::{Failure, Result, cache, cargo, output, root, run, target_dir, watch};
use crate::test::Counts;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;

fn script(tools: &Tools, path: &str) -> Command {
    let mut command = Command::new(&tools.python);
    command
        .arg(root().join("testsuite").join(path))
        .env("PLANISH_CACHE", cache())
        .env("PYTHONUNBUFFERED", "1");
    command
}

/// The `planish` command of the development profile. It is built with the features that the tests are built with, so that
/// after these nothing is compiled a second time.
pub(crate) fn build_planish_for_tests() -> Result<PathBuf> {
    run(cargo().args(["test", "--quiet", "--workspace", "--lib", "--bins", "--tests", "--no-run"]))?;
    Ok(target_dir().join("debug/planish"))
}

/// Builds the `planish` command (release) and returns its path.
pub(crate) fn build_planish() -> Result<PathBuf> {
    run(cargo().args(["build", "--quiet", "--release", "--package", "planish", "--bin", "planish"]))?;
    Ok(target_dir().join("release/planish"))
}

/// The model fetcher.
pub(crate) fn models(args: &[String]) -> Result<()> {
    run(script(&setup::setup()?, "models/fetch.py").args(args))
}

/// Fetches models and data sets by name.
pub(crate) fn fetch(tools: &Tools, names: &[&str]) -> Result<()> {
    output(script(tools, "models/fetch.py").arg("--check").args(names)).map(|_| ())
}

/// Runs a script that ends with `N passed, N failed`.
fn counted(command: &mut Command) -> Result<Counts> {
    let mut counts = None;
    let ok = watch(command, |line| counts = Counts::parse(line).or(counts))?;
    match counts {
        Some(counts) if counts.passed + counts.failed + counts.skipped == 0 => {
            Err(Failure::new("the script ran no test"))
        }
        Some(counts) if ok || counts.failed > 0 => Ok(counts),
        _ => Err(Failure::new("the script did not end with its counts")),
    }
}

/// `cargo xtask compare`: the real models against ONNX Runtime.
pub(crate) fn compare(args: &[String]) -> Result<()> {
    let tools = setup::setup()?;
    let planish = build_planish()?;
    run(script(&tools, "python/compare_models.py").arg("--planish").arg(planish).args(args))
}

/// `cargo xtask bench peers`: networks against other runtimes.
pub(crate) fn peers(args: &[String]) -> Result<()> {
    let tools = setup::setup()?;
    let planish = build_planish()?;
    run(script(&tools, "bench/peers.py").arg("--planish").arg(planish).args(args))
}

/// The real models as executables, those given or all that can be fetched, and what the passes leave of an untidy one.
pub(crate) fn real_models(tools: &Tools, planish: &Path, names: &[&str]) -> Result<Counts> {
    if names.is_empty() {
        output(script(tools, "models/fetch.py").args(["--models", "--check"]))?;
    } else {
        fetch(tools, names)?;
        fetch(tools, &["resnet50-thin", "resnet50-thin-messy"])?;
    }
    let mut counts = counted(script(tools, "python/messy.py").arg("--planish").arg(planish))?;
    counts.add(counted(script(tools, "python/compare_models.py").arg("--planish").arg(planish).args(names))?);
    Ok(counts)
}

/// Properties of executables; fetches the models that they are shown on. Figures of
/// time, and the limit on the compiler's memory, belong to the long run.
pub(crate) fn artifacts(tools: &Tools, planish: &Path, long: bool) -> Result<Counts> {
    fetch(tools, &["mnist-cnn", "silero-vad", "ppocr2-cls", "resnet50-thin", "rxnmap-graph-transformer"])?;
    let mut command = script(tools, "python/artifacts.py");
    command.arg("--planish").arg(planish);
    if !long {
        command.args(["--only", "reproducible", "threads", "glibc", "alone", "aarch64"]);
        command.args(["c-program", "python-modules", "streaming"]);
    }
    counted(&mut command)
}

/// Accuracy of lossy methods on real models and data; fetches these.
pub(crate) fn methods(tools: &Tools, planish: &Path) -> Result<Counts> {
    let mut command = script(tools, "methods/methods.py");
    counted(command.arg("--planish").arg(planish).arg("--judge"))
}

/// The short part of the experiments of papers; fetches the data.
pub(crate) fn papers(tools: &Tools, planish: &Path) -> Result<Counts> {
    let mut command = script(tools, "papers/papers.py");
    counted(command.arg("--planish").arg(planish).arg("--short"))
}

/// `cargo xtask papers`: experiments, and the page of their figures.
pub(crate) fn run_papers(args: &[String]) -> Result<()> {
    let tools = setup::setup()?;
    let planish = build_planish_for_tests()?;
    run(script(&tools, "papers/papers.py").arg("--planish").arg(planish).arg("--update").args(args))
}

/// `cargo xtask bench methods`: all of them, and what they buy.
pub(crate) fn bench_methods(args: &[String]) -> Result<()> {
    let tools = setup::setup()?;
    let planish = build_planish()?;
    run(script(&tools, "methods/methods.py").arg("--planish").arg(planish).args(args))
}

/// `cargo xtask bench verdicts`: false alarms and missed regressions of `planish bench`.
pub(crate) fn bench_verdicts(args: &[String]) -> Result<()> {
    let tools = setup::setup()?;
    let planish = build_planish()?;
    run(script(&tools, "python/verdicts.py").arg("--planish").arg(planish).args(args))
}

/// The folder of the conformance suite, written where it is missing.
fn conformance_data(tools: &Tools) -> Result<PathBuf> {
    let data =
        std::env::var_os("PLANISH_CONFORMANCE").map_or_else(|| cache().join("conformance"), PathBuf::from);
    if !data.join("manifest.json").exists() {
        run(script(tools, "conformance/conformance.py").arg("materialize").arg("--out").arg(&data))?;
    }
    Ok(data)
}

/// Conformance tests through compiled programs: one for each operator, all in the long run.
pub(crate) fn executables(tools: &Tools, planish: &Path, long: bool) -> Result<Counts> {
    let mut command = script(tools, "python/executables.py");
    command.arg("--planish").arg(planish).arg("--data").arg(conformance_data(tools)?);
    if long {
        command.arg("--all");
    }
    counted(&mut command)
}

/// Inputs whose shapes do not fit, on the kernel interpreter: a third of the models, all in the long run.
pub(crate) fn wrong_shapes(tools: &Tools, planish: &Path, long: bool) -> Result<Counts> {
    let mut command = script(tools, "python/wrong_shapes.py");
    command.arg("--planish").arg(planish).arg("--data").arg(conformance_data(tools)?);
    if !long {
        command.args(["--every", "3"]);
    }
    counted(&mut command)
}

/// `cargo xtask hostile`.
pub(crate) fn hostile_task() -> Result<()> {
    let tools = setup::setup()?;
    let counts = hostile(&tools, &build_planish()?)?;
    if counts.failed > 0 { Err(Failure::new("hostile models got through")) } else { Ok(()) }
}

/// The hostile models through the command.
pub(crate) fn hostile(tools: &Tools, planish: &Path) -> Result<Counts> {
    let folder = cache().join("hostile");
    run(script(tools, "hostile/generate.py").arg("--out").arg(&folder))?;
    counted(script(tools, "hostile/run.py").arg("--planish").arg(planish).arg("--data").arg(folder))
}

/// What `cargo xtask conformance` was asked for.
pub(crate) struct Conformance<'a> {
    pub(crate) engine: &'a str,
    pub(crate) update_ratchet: bool,
    pub(crate) extra: &'a [String],
}

/// `cargo xtask conformance`.
pub(crate) fn conformance_task(args: &[String]) -> Result<()> {
    let mut args = args.to_vec();
    let mut engine = String::from("llvm");
    if let Some(at) = args.iter().position(|arg| arg == "--engine") {
        if at + 1 >= args.len() {
            return Err(Failure::usage("--engine needs a name"));
        }
        engine = args.remove(at + 1);
        args.remove(at);
    }
    let before = args.len();
    args.retain(|arg| arg != "--update-ratchet");
    let update_ratchet = args.len() < before;
    let request = Conformance { engine: &engine, update_ratchet, extra: &args };
    let counts = conformance(&setup::setup()?, &build_planish()?, &request)?;
    if counts.failed > 0 { Err(Failure::new("fewer tests pass than the ratchet asks for")) } else { Ok(()) }
}

/// Runs the conformance suite on one engine and holds it against the ratchet. Tests that fail above the ratchet count
/// as skipped; each pass missing below it, in all or in tier 1, counts as failed.
pub(crate) fn conformance(tools: &Tools, planish: &Path, request: &Conformance) -> Result<Counts> {
    let data = conformance_data(tools)?;
    let results = target_dir().join("conformance");
    std::fs::create_dir_all(&results)?;
    let report = results.join(format!("{}.json", request.engine));
    let worker = format!("{} worker --engine {} --threads 1", planish.display(), request.engine);
    let mut command = script(tools, "conformance/conformance.py");
    command.args(["run", "--worker-cmd", &worker, "--name", request.engine, "--timeout", "60"]);
    command.arg("--data").arg(&data).arg("--json").arg(&report);
    command.arg("--log").arg(results.join(format!("{}.log", request.engine)));
    // The script fails when one test does, so its report decides: none is left from an earlier run.
    match std::fs::remove_file(&report) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let _ = watch(command.args(request.extra), |_| {})?;
    let report: Value = serde_json::from_str(&std::fs::read_to_string(&report)?)?;
    let summary = &report["summary"];
    let number = |value: &Value| value.as_u64().unwrap_or(0);
    let passed = number(&summary["total"]["pass"]);
    let tier1 = number(&summary["by_category"]["node(direct) tier1"]["pass"]);
    let ran = report["results"].as_object().map_or(0, |all| all.len() as u64);
    if !request.extra.is_empty() {
        return Ok(Counts { passed, failed: 0, skipped: ran - passed });
    }
    let path = root().join("testsuite/conformance/ratchet.json");
    let mut ratchet: Value = serde_json::from_str(&std::fs::read_to_string(&path)?)?;
    let floor = ratchet[request.engine].clone();
    if floor.is_null() && !request.update_ratchet {
        return Err(Failure::new(format!("ratchet.json has no floor for {}", request.engine)));
    }
    let short =
        number(&floor["all"]).saturating_sub(passed).max(number(&floor["tier1"]).saturating_sub(tier1));
    println!(
        "conformance {}: {passed} of {ran} pass (at least {}), tier 1: {tier1} (at least {})",
        request.engine,
        number(&floor["all"]),
        number(&floor["tier1"])
    );
    if request.update_ratchet {
        let raised =
            json!({ "all": passed.max(number(&floor["all"])), "tier1": tier1.max(number(&floor["tier1"])) });
        ratchet[request.engine] = raised;
        std::fs::write(&path, serde_json::to_string_pretty(&ratchet)? + "\n")?;
    }
    Ok(Counts { passed, failed: short, skipped: ran.saturating_sub(passed + short) })
}
