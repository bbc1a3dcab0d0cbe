//! The engines by name, and code generation for them and for artifacts.

pub mod cache;
pub mod codegen;
mod compiled;
#[cfg(feature = "llvm")]
pub mod ptx;

use crate::failure::{Failure, Result};
use planish_codegen::KernelInterpreter;
use planish_codegen::kernel::TargetSpec;
use planish_ir::{Engine, Interpreter, PrepareOptions, Program};

/// The engines of this build, the default first: name and what it is.
pub const ENGINES: &[(&str, &str)] = &[
    #[cfg(feature = "llvm")]
    ("llvm", "compiles with LLVM: the code of artifacts, loaded into this process"),
    ("clif", "compiles with Cranelift into this process: quick to compile, needs no LLVM"),
    ("interp", "reference interpreter of the graph: slow and obvious"),
    ("kinterp", "interpreter of the kernels that compilers get"),
    #[cfg(feature = "llvm")]
    ("ptxsim", "emits PTX for sm_80 and interprets the text: what a GPU would compute, slowly"),
];

/// The engine that is used when none is named.
pub fn default_engine() -> &'static str {
    ENGINES.first().map_or("interp", |e| e.0)
}

/// The engine with this name.
pub fn find(name: &str) -> Result<Box<dyn Engine>> {
    match name {
        #[cfg(feature = "llvm")]
        "llvm" => Ok(Box::new(compiled::Compiled(codegen::Generator::Llvm))),
        "clif" => Ok(Box::new(compiled::Compiled(codegen::Generator::Cranelift))),
        "interp" => Ok(Box::new(Interpreter)),
        "kinterp" => Ok(Box::new(KernelInterpreter::default())),
        #[cfg(feature = "llvm")]
        "ptxsim" => Ok(Box::new(ptx::PtxSim)),
        _ => {
            let known: Vec<&str> = ENGINES.iter().map(|e| e.0).collect();
            Err(Failure::usage(format!("no engine is called {name:?}; there are {}", known.join(", "))))
        }
    }
}

/// Prepares a graph on an engine.
pub fn prepare(
    engine: &str,
    graph: &planish_ir::Graph,
    options: &PrepareOptions,
) -> Result<Box<dyn Program>> {
    Ok(find(engine)?.prepare(graph, options)?)
}

/// This machine as a target.
pub fn host() -> Result<TargetSpec> {
    TargetSpec::host().ok_or_else(no_target)
}

/// What is said where nothing can be compiled for this machine.
pub(crate) fn no_target() -> Failure {
    Failure::new("machine-cpu", "this processor has none of the instruction sets that are compiled for")
}

/// Prepares a graph that has been through its passes, for one target of this machine.
pub fn prepare_for(
    target: &TargetSpec,
    graph: &planish_ir::Graph,
    threads: usize,
    cache: Option<&cache::Cache>,
) -> Result<Box<dyn Program>> {
    let build = codegen::BuildOptions {
        targets: vec![target.clone()],
        cache: cache.cloned(),
        ..codegen::BuildOptions::default()
    };
    Ok(compiled::program(graph, graph, &build, &PrepareOptions { threads, ..PrepareOptions::default() })?)
}

/// The threads to use unless told otherwise: the physical cores that affinity and cgroup quota allow, as in programs.
pub fn default_threads() -> usize {
    planish_rt::cpu::cores().threads()
}

#[cfg(test)]
mod tests {
    use super::*;
    use planish_ir::{Diag, Tensor, ValueId, text};

    /// A value that a fused loop would swallow, one that is an output too, and an input.
    #[test]
    fn every_engine_reports_values_that_are_no_outputs() -> std::result::Result<(), Diag> {
        let text = "planish-ir 1\ngraph @\"m\"(v0 \"x\": f32[N,3]) {
  v1 = unary{kind=exp} v0 : f32[N,3]
  v2 = binary{kind=mul} v1, v0 : f32[N,3]
  v3 = reduce{kind=sum, axes=[1], keepdims=false, noop_empty=false} v2 : f32[N]
  return v3 \"y\"\n}\n";
        let graph = text::parse(text)?;
        let made: Vec<ValueId> =
            graph.nodes_in(graph.root()).flat_map(|n| graph.node(n).outputs.clone()).collect();
        let taps = vec![made[1], made[2], made[0], graph.inputs()[0]];
        let options = PrepareOptions { taps, ..PrepareOptions::default() };
        for rows in [0, 1, 5] {
            let x: Vec<f32> = (0..3 * rows).map(|i| i as f32 * 0.25 - 1.0).collect();
            let x = Tensor::f32s(&[rows, 3], &x)?;
            let run = |name: &str| -> std::result::Result<planish_ir::RunResult, Diag> {
                let program = prepare(name, &graph, &options).map_err(|mut f| f.diags.swap_remove(0))?;
                program.session()?.run(&[Some(x.clone().into())])
            };
            let want = run("interp")?;
            for (name, _) in ENGINES {
                let got = run(name)?;
                assert_eq!((got.values.len(), got.taps.len()), (1, 4), "{name}");
                for (a, b) in got.taps.iter().chain(&got.values).zip(want.taps.iter().chain(&want.values)) {
                    let d = crate::compare::values(a, b, crate::compare::Tolerance::default());
                    assert!(d.ok(), "{name}, {rows} rows: {:?}", d.why);
                }
            }
        }
        Ok(())
    }
}
