//! `cargo xtask demo`: two trained models from packages, compiled and run on a photo and a sound clip.

use crate::python::build_planish;
use crate::setup;
use crate::shell::{Result, cache, root, run};
use std::process::Command;

/// Sets up, builds, and leaves the rest to `testsuite/python/demo.py`.
pub(crate) fn demo() -> Result<()> {
    let tools = setup::setup_for_demo()?;
    println!("demo: building planish (release)");
    let planish = build_planish()?;
    let mut script = Command::new(&tools.python);
    script.arg(root().join("testsuite/python/demo.py")).arg("--planish").arg(planish);
    run(script.env("PLANISH_CACHE", cache()).env("PYTHONUNBUFFERED", "1"))
}
