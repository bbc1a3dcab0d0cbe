//! `cargo xtask bench`: latency of the real models, and of networks beside other runtimes.

use crate::python;
use crate::shell::Result;

/// `peers` and its arguments: `testsuite/bench/peers.py`; `methods`: `testsuite/methods/methods.py`; `verdicts`:
/// `testsuite/python/verdicts.py`. Others: the real models with one thread, alternating with ONNX
/// Runtime through IO binding; arguments go to `compare_models.py`.
pub(crate) fn run(args: &[String]) -> Result<()> {
    if let Some(("peers", rest)) = args.split_first().map(|(task, rest)| (task.as_str(), rest)) {
        return python::peers(rest);
    }
    if let Some(("methods", rest)) = args.split_first().map(|(task, rest)| (task.as_str(), rest)) {
        return python::bench_methods(rest);
    }
    if let Some(("verdicts", rest)) = args.split_first().map(|(task, rest)| (task.as_str(), rest)) {
        return python::bench_verdicts(rest);
    }
    let mut all = vec![String::from("--speed")];
    all.extend_from_slice(args);
    python::compare(&all)
}
