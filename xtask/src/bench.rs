//! `cargo xtask bench`: latency of the real models.

use crate::python;
use crate::shell::Result;

/// One thread, alternating with ONNX Runtime through IO binding; further arguments go to `compare_models.py`.
pub(crate) fn run(args: &[String]) -> Result<()> {
    let mut all = vec![String::from("--speed")];
    all.extend_from_slice(args);
    python::compare(&all)
}
