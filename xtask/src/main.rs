//! Development tasks: `cargo xtask TASK`. Set-up, demo, tests, generated documents and checks of the repository.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool")]

mod bench;
mod demo;
mod generate;
mod gpu;
mod python;
mod setup;
mod shell;
mod test;
mod third_party;
mod tidy;

use shell::Failure;
use std::process::ExitCode;

const HELP: &str = "\
usage: cargo xtask TASK

  setup                 check for LLVM 22 and Python with venv, install them where that is possible, make the venv with
                        what the tests need (ONNX Runtime, ptxas)
  demo                  fetch two trained models, compile, run on a photo and a sound clip, compare, print a table
  test [--long] [STAGE...]
                        all tests; --long, with planish built for release: every model, every conformance test on
                        every engine and as an executable, ten times the random graphs, figures of time. Stages:
                        fmt clippy unit doc conformance executables shapes hostile models artifacts methods
                        papers
  gen [--check]         write the generated references in docs/reference (--check: fail when they are stale)
  tidy                  rules of the repository that the compiler does not check
  third-party [--check] write THIRD-PARTY-NOTICES from the dependencies' licence files
  models [ARGS...]      fetch real models (testsuite/models/fetch.py)
  conformance [--engine E] [--update-ratchet] [ARGS...]
                        the ONNX backend tests through `planish worker`
  gpu                   programs for GPUs on the one of this machine, with its driver; exit code 6 where there is none
  hostile               hostile models through `planish`
  compare [ARGS...]     the real models against ONNX Runtime (testsuite/python/compare_models.py)
  bench [ARGS...]       latency of the real models, alternating with ONNX Runtime
  bench peers [ARGS...] networks against ONNX Runtime, OpenVINO, MNN and ncnn, alternating, with the intervals of paired
                        ratios (testsuite/bench/peers.py)
  bench methods [ARGS...]
                        lossy methods on real models and data: accuracy, and time against ONNX Runtime with f32 and 8 bits
                        (testsuite/methods/methods.py)
  papers [--full] [NAME...]
                        experiments of papers, and their figures in docs/papers.md (testsuite/papers/papers.py)
  bench verdicts [ARGS...]
                        budgets on speed, judged on identical rebuilds and on a network that does 5% more work: false alarms
                        and misses (testsuite/python/verdicts.py)
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (task, rest) = match args.split_first() {
        Some((task, rest)) => (task.as_str(), rest),
        None => ("--help", &args[..]),
    };
    let result = match task {
        "setup" => setup::setup().map(|_| ()),
        "demo" => demo::demo(),
        "test" => test::test(rest),
        "gen" => generate::generate(rest),
        "tidy" => tidy::run(),
        "third-party" => third_party::run(rest),
        "models" => python::models(rest),
        "conformance" => python::conformance_task(rest),
        "gpu" => gpu::run_on_gpu(),
        "hostile" => python::hostile_task(),
        "compare" => python::compare(rest),
        "bench" => bench::run(rest),
        "papers" => python::run_papers(rest),
        "--help" | "-h" | "help" => {
            print!("{HELP}");
            Ok(())
        }
        other => Err(Failure::usage(format!("there is no task {other}\n\n{HELP}"))),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.message.is_empty() {
                eprintln!("xtask: {}", failure.message);
            }
            ExitCode::from(failure.code)
        }
    }
}
