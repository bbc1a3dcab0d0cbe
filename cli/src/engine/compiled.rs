//! The engine that compiles: the same object bytes as in artifacts, loaded into this process.
#![allow(unsafe_code)]

use super::codegen::{self, BuildOptions, Generator};
use planish_codegen::engine::{ModuleProgram, tapped};
use planish_codegen::kernel::TargetSpec;
use planish_ir::{Diag, Engine, Graph, PrepareOptions, Program};
use planish_rt::kernel::Code;
use planish_rt::loader::LoadedCode;

/// Compiles for the strongest target of this machine with LLVM, for 128-bit vectors with Cranelift.
#[derive(Clone, Copy, Debug)]
pub(super) struct Compiled(pub(super) Generator);

impl Engine for Compiled {
    fn name(&self) -> &'static str {
        match self.0 {
            Generator::Llvm => "llvm",
            Generator::Cranelift => "clif",
        }
    }
    fn prepare(&self, graph: &Graph, options: &PrepareOptions) -> Result<Box<dyn Program>, Vec<Diag>> {
        let narrow = [TargetSpec::generic128(), TargetSpec::aarch64()];
        let target = match self.0 {
            Generator::Llvm => TargetSpec::host(),
            Generator::Cranelift => narrow.into_iter().find(TargetSpec::runs_here),
        };
        let target = target.ok_or_else(|| super::no_target().diags)?;
        let build = BuildOptions { generator: self.0, targets: vec![target], ..BuildOptions::default() };
        let graph = tapped(graph, &options.taps).map_err(|d| vec![d])?;
        let mut fused = graph.clone().into_owned();
        codegen::optimise(&mut fused).map_err(|f| f.diags)?;
        program(&graph, &fused, &build, options)
    }
}

/// The program of a graph whose passes have made `fused` of it, for the one target of `build`, in this process.
pub(super) fn program(
    graph: &Graph,
    fused: &Graph,
    build: &BuildOptions,
    options: &PrepareOptions,
) -> Result<Box<dyn Program>, Vec<Diag>> {
    let mut built = codegen::build(fused, build).map_err(|f| f.diags)?;
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
