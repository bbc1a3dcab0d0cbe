//! The engines by name, and code generation for them and for artifacts.

pub mod cache;
pub mod codegen;
mod compiled;
#[cfg(feature = "llvm")]
pub mod ptx;

use crate::failure::{Failure, Result};
use planish_codegen::KernelInterpreter;
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

/// The threads to use unless told otherwise: the physical cores that affinity and cgroup quota allow, as in programs.
pub fn default_threads() -> usize {
    planish_rt::cpu::cores().threads()
}
