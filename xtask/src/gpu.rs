//! `cargo xtask gpu`: programs for GPUs on a real one.

use crate::shell::{Failure, Result, cargo, output, run, target_dir};
use std::fs;
use std::process::{Command, Stdio};

/// The exit code of a machine that cannot run something.
const NO_GPU: u8 = 6;

const PROBE: &str = "planish-ir 1
graph @\"probe\"(v0 \"x\": f32[4]) {
  v1 = unary{kind=neg} v0 : f32[4]
  return v1 \"y\"
}
";

/// Compiles a program and starts it with the driver of this machine; then the tests of programs for GPUs, on that driver instead of
/// the stand-in. Exit code 6 where there is no GPU.
pub(crate) fn run_on_gpu() -> Result<()> {
    run(cargo().args(["build", "--package", "planish", "--bin", "planish"]))?;
    let dir = target_dir().join("gpu-probe");
    fs::create_dir_all(&dir)?;
    fs::write(dir.join("probe.pir"), PROBE)?;
    let planish = target_dir().join("debug/planish");
    let compile = ["compile", "probe.pir", "-o", "probe", "--target", "nvptx:sm_80"];
    output(Command::new(planish).current_dir(&dir).args(compile))?;
    let bench = ["--bench", "--duration", "1s"];
    let done = Command::new(dir.join("probe")).args(bench).stdin(Stdio::null()).output()?;
    let said = String::from_utf8_lossy(&done.stderr).trim().to_owned();
    match done.status.code() {
        Some(0) => println!("{}", String::from_utf8_lossy(&done.stdout).trim()),
        Some(6) => return Err(Failure { code: NO_GPU, message: format!("no GPU was used: {said}") }),
        _ => return Err(Failure::new(format!("the first program stopped with {}: {said}", done.status))),
    }
    let tests = ["test", "--package", "planish", "--test", "gpu"];
    run(cargo().args(tests).env("PLANISH_GPU", "1"))
}
