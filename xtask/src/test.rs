//! `cargo xtask test`: every stage, and one closing line with the sum of their counts.

use crate::python::{self, Conformance};
use crate::setup::{self, Tools};
use crate::shell::{Failure, Result, cargo, succeeds, watch};
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

/// Numbers of tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
}

impl Counts {
    fn one(ok: bool) -> Self {
        Self { passed: u64::from(ok), failed: u64::from(!ok), skipped: 0 }
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }

    /// The counts in a closing line: `N passed, N failed`, and what cargo test and nextest print.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let closing = line.starts_with("test result:") || line.trim_start().starts_with("Summary [");
        if !closing && !line.starts_with(|c: char| c.is_ascii_digit()) {
            return None;
        }
        let words: Vec<&str> = line.split([' ', ',', ';', '(']).filter(|word| !word.is_empty()).collect();
        let before = |name: &str| {
            let at = words.iter().position(|word| *word == name)?;
            words.get(at.checked_sub(1)?)?.parse::<u64>().ok()
        };
        let passed = before("passed")?;
        let skipped = before("skipped").or_else(|| before("ignored")).unwrap_or(0);
        let failed = before("failed").unwrap_or(0) + before("timed").unwrap_or(0);
        Some(Self { passed, failed, skipped })
    }
}

/// Models of the ordinary run: small packages that together cover convolution, recurrence, control flow, attention,
/// integer products and trees.
const MODELS: [&str; 16] = [
    "espcn-subpixel",
    "magika",
    "mnist-cnn",
    "mtcnn-pnet",
    "pplcnet-orientation",
    "ppocr2-cls",
    "ppocr4-rec",
    "rawi-int8",
    "resnet50-thin",
    "residual-block",
    "scaler-mlp",
    "sdp-attention",
    "silero-vad",
    "silero-vad-sequence",
    "silero-vad-static",
    "tree-ensemble-classifier",
];

const STAGES: [&str; 12] = [
    "fmt",
    "clippy",
    "unit",
    "doc",
    "conformance",
    "executables",
    "shapes",
    "hostile",
    "models",
    "artifacts",
    "methods",
    "papers",
];

/// The number of random graphs, for `planish-testsuite`.
const GRAPHS: &str = "PLANISH_TEST_GRAPHS";

struct Context {
    long: bool,
    tools: Tools,
    planish: Option<PathBuf>,
}

impl Context {
    fn planish(&mut self) -> Result<PathBuf> {
        match &self.planish {
            Some(path) => Ok(path.clone()),
            None => {
                // The long run holds limits on the time and memory of the compiler itself.
                let built =
                    if self.long { python::build_planish()? } else { python::build_planish_for_tests()? };
                Ok(self.planish.insert(built).clone())
            }
        }
    }
}

/// Runs the stages named in `args`, or all of them.
pub(crate) fn test(args: &[String]) -> Result<()> {
    let long = args.iter().any(|arg| arg == "--long");
    let named: Vec<&str> = args.iter().map(String::as_str).filter(|arg| *arg != "--long").collect();
    if let Some(unknown) = named.iter().find(|name| !STAGES.contains(name)) {
        return Err(Failure::usage(format!("there is no stage {unknown}; stages: {}", STAGES.join(" "))));
    }
    let stages = if named.is_empty() { STAGES.to_vec() } else { named };
    let mut context = Context { long, tools: setup::setup()?, planish: None };
    let mut total = Counts::default();
    let mut rows = Vec::new();
    for stage in stages {
        println!("== {stage}");
        let start = Instant::now();
        let counts = run_stage(&mut context, stage).unwrap_or_else(|failure| {
            println!("{stage}: {}", failure.message);
            Counts::one(false)
        });
        total.add(counts);
        let seconds = start.elapsed().as_secs_f64();
        rows.push(format!(
            "{stage:12} {:6} passed {:4} failed {:5} skipped  {seconds:7.1} s",
            counts.passed, counts.failed, counts.skipped
        ));
    }
    println!("== summary\n{}", rows.join("\n"));
    println!("{} passed, {} failed", total.passed, total.failed);
    if total.failed > 0 || total.passed == 0 { Err(Failure::new("")) } else { Ok(()) }
}

fn run_stage(context: &mut Context, stage: &str) -> Result<Counts> {
    match stage {
        "fmt" => watch(cargo().args(["fmt", "--all", "--check"]), |_| {}).map(Counts::one),
        "clippy" => {
            let lints = ["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"];
            watch(cargo().args(lints), |_| {}).map(Counts::one)
        }
        "unit" => unit(context),
        "doc" => summed(cargo().args(["test", "--quiet", "--workspace", "--doc"])),
        "conformance" => conformance(context),
        "hostile" => {
            let planish = context.planish()?;
            python::hostile(&context.tools, &planish)
        }
        "executables" => {
            let planish = context.planish()?;
            python::executables(&context.tools, &planish, context.long)
        }
        "shapes" => {
            let planish = context.planish()?;
            python::wrong_shapes(&context.tools, &planish, context.long)
        }
        "methods" => {
            let planish = context.planish()?;
            python::methods(&context.tools, &planish)
        }
        "papers" => {
            let planish = context.planish()?;
            python::papers(&context.tools, &planish)
        }
        "artifacts" => {
            let planish = context.planish()?;
            python::artifacts(&context.tools, &planish, context.long)
        }
        _ => {
            let planish = context.planish()?;
            python::real_models(&context.tools, &planish, if context.long { &[] } else { &MODELS })
        }
    }
}

/// The tests of all crates, through nextest where it is installed.
fn unit(context: &Context) -> Result<Counts> {
    let nextest = succeeds(Command::new("cargo-nextest").args(["nextest", "--version"]));
    let mut command = cargo();
    if nextest {
        command.args([
            "nextest",
            "run",
            "--workspace",
            "--no-fail-fast",
            "--status-level",
            "fail",
            "--cargo-quiet",
        ]);
    } else {
        command.args(["test", "--quiet", "--workspace", "--lib", "--bins", "--tests", "--no-fail-fast"]);
    }
    command.env(GRAPHS, if context.long { "20000" } else { "2000" });
    // A changed snapshot is a failure here, never a new file.
    command.env("INSTA_UPDATE", "no").env("PLANISH_PYTHON", &context.tools.python);
    if let Some(ptxas) = &context.tools.ptxas {
        command.env("PLANISH_PTXAS", ptxas);
    }
    summed(&mut command)
}

/// Sums the closing lines of a test runner; a run that failed without a failed test (a build error) counts as one.
fn summed(command: &mut Command) -> Result<Counts> {
    let mut counts = Counts::default();
    let ok = watch(command, |line| counts.add(Counts::parse(line).unwrap_or_default()))?;
    if !ok && counts.failed == 0 {
        counts.failed = 1;
    }
    Ok(counts)
}

/// LLVM in the ordinary run, all engines in the long one.
fn conformance(context: &mut Context) -> Result<Counts> {
    let planish = context.planish()?;
    let mut counts = Counts::default();
    let engines: &[&str] = if context.long { &["llvm", "clif", "interp", "ptxsim"] } else { &["llvm"] };
    for engine in engines {
        let request = Conformance { engine, update_ratchet: false, extra: &[] };
        counts.add(python::conformance(&context.tools, &planish, &request)?);
    }
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use super::Counts;

    fn counts(passed: u64, failed: u64, skipped: u64) -> Option<Counts> {
        Some(Counts { passed, failed, skipped })
    }

    #[test]
    fn reads_the_closing_lines_of_all_runners() {
        assert_eq!(Counts::parse("1866 passed, 167 failed"), counts(1866, 167, 0));
        assert_eq!(
            Counts::parse("test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured"),
            counts(12, 0, 1)
        );
        let nextest = "     Summary [   0.101s] 9 tests run: 7 passed (1 slow), 2 failed, 3 skipped";
        assert_eq!(Counts::parse(nextest), counts(7, 2, 3));
        assert_eq!(
            Counts::parse("     Summary [   0.1s] 9 tests run: 7 passed, 2 timed out, 0 skipped"),
            counts(7, 2, 0)
        );
        assert_eq!(Counts::parse("all 3 checks passed, really"), None);
    }
}
