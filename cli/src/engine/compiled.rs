//! The engine that compiles: the same object bytes as in artifacts, loaded into this process.
#![allow(unsafe_code)]

use super::codegen::{self, BuildOptions};
use planish_codegen::engine::ModuleProgram;
use planish_codegen::kernel::TargetSpec;
use planish_ir::{Diag, Engine, Graph, PrepareOptions, Program};
use planish_rt::kernel::Code;
use planish_rt::loader::LoadedCode;

/// Compiles for the strongest target of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Compiled;

impl Engine for Compiled {
    fn name(&self) -> &'static str {
        "llvm"
    }
    fn prepare(&self, graph: &Graph, options: &PrepareOptions) -> Result<Box<dyn Program>, Vec<Diag>> {
        let target = TargetSpec::host().ok_or_else(|| {
            vec![Diag::error(
                "machine-cpu",
                "this processor has none of the instruction sets that are compiled for",
            )]
        })?;
        let build = BuildOptions { targets: vec![target], ..BuildOptions::default() };
        let mut fused = graph.clone();
        codegen::optimise(&mut fused).map_err(|f| f.diags)?;
        let mut built = codegen::build(&fused, &build).map_err(|f| f.diags)?;
        let variant = built.variants.swap_remove(0);
        let load = |e: planish_rt::error::Error| vec![planish_codegen::engine::rt_error(e)];
        let code = LoadedCode::new(&variant.image.bytes, variant.image.text_len).map_err(load)?;
        let mut kernels = Vec::with_capacity(variant.entries.len());
        for e in &variant.entries {
            // SAFETY: the linker found a kernel of the module at this offset.
            kernels.push(unsafe { code.kernel(*e as usize) }.map_err(load)?);
        }
        let weights = built.module.weights.to_vec();
        let program =
            ModuleProgram::new(graph, built.module, Code::Native(kernels), weights, Box::new(code), options);
        program.map(|p| Box::new(p) as Box<dyn Program>).map_err(|d| vec![d])
    }
}
