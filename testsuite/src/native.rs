//! Engines that compile: passes, lowering and machine code as `planish compile` makes it, loaded into this process, for
//! any target that this machine runs.

use planish_clif::Clif;
use planish_codegen::engine::{ModuleProgram, rt_error};
use planish_codegen::kernel::{Backend, KernelModule, TargetSpec};
use planish_codegen::link::link;
use planish_codegen::{LowerOptions, Module, lower};
use planish_ir::{Diag, Engine, Graph, PrepareOptions, Program};
use planish_passes::{Level, Pipeline, TargetFacts};
use planish_rt::kernel::Code;
use planish_rt::loader::LoadedCode;
use std::sync::Arc;

/// What turns kernels into results.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Maker {
    /// The kernel interpreter.
    Interpreter,
    /// Cranelift.
    Cranelift,
    /// LLVM, in this process.
    #[cfg(feature = "llvm")]
    Llvm,
}

/// One way to compile and run graphs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Native {
    /// What makes the code.
    pub maker: Maker,
    /// What it is made for.
    pub target: TargetSpec,
    /// The passes that run before lowering.
    pub level: Level,
    name: &'static str,
}

impl Native {
    /// Code of `maker` for a target, after the passes of `planish compile`.
    pub fn new(maker: Maker, target: TargetSpec) -> Native {
        let maker_name = match maker {
            Maker::Interpreter => "kinterp",
            Maker::Cranelift => "clif",
            #[cfg(feature = "llvm")]
            Maker::Llvm => "llvm",
        };
        // Engines have static names; there are a few dozen of these in a test run.
        let name = format!("{maker_name} for {}", target.name).leak();
        Native { maker, target, level: Level::O2, name }
    }

    /// The graph after the passes, lowered.
    pub fn lowered(&self, graph: &Graph) -> Result<Module, Vec<Diag>> {
        let mut fused = graph.clone();
        for pipeline in [Pipeline::canonical(self.level), Pipeline::fused(self.level)] {
            pipeline.run(&mut fused, &TargetFacts::default(), &mut |_, _| {}).map_err(|diag| vec![diag])?;
        }
        lower(&fused, &LowerOptions { targets: vec![self.target.clone()], ..LowerOptions::default() })
    }

    /// A program of a lowered module, whose kernels may have been changed. `graph` is what was lowered.
    pub fn program(
        &self,
        graph: &Graph,
        module: Module,
        options: &PrepareOptions,
    ) -> Result<ModuleProgram, Vec<Diag>> {
        let fail = |text: String| vec![Diag::error("internal-codegen", text)];
        let kernels = &module.variants[0].kernels;
        let (code, keep) = match self.maker {
            Maker::Interpreter => {
                return ModuleProgram::interpreted(graph, module, options).map_err(|diag| vec![diag]);
            }
            Maker::Cranelift => loaded(&Clif, kernels, &self.target).map_err(fail)?,
            #[cfg(feature = "llvm")]
            Maker::Llvm => loaded(&planish_llvm::Llvm, kernels, &self.target).map_err(fail)?,
        };
        let weights = module.weights.to_vec();
        ModuleProgram::new(graph, module, code, weights, Box::new(keep), options).map_err(|diag| vec![diag])
    }
}

/// Compiles, links and loads kernels; the code must not outlive what it is loaded into.
fn loaded(
    backend: &dyn Backend,
    kernels: &KernelModule,
    target: &TargetSpec,
) -> Result<(Code, Arc<LoadedCode>), String> {
    if let Some(found) = backend.check(kernels, target).first() {
        return Err(found.to_string());
    }
    let object = backend.emit(kernels, target).map_err(|e| e.to_string())?;
    let image = link(&[&object.bytes]).map_err(|e| e.to_string())?;
    let text = |e| rt_error(e).to_string();
    let code = Arc::new(LoadedCode::new(&image.bytes, image.text_len).map_err(text)?);
    let mut functions = Vec::with_capacity(kernels.kernels.len());
    for kernel in &kernels.kernels {
        let offset = image.symbols.get(&kernel.name).ok_or_else(|| format!("no code for {}", kernel.name))?;
        // SAFETY: the linker found a kernel of the module at this offset.
        functions.push(unsafe { code.kernel(*offset as usize) }.map_err(text)?);
    }
    Ok((Code::Native(functions), code))
}

impl Engine for Native {
    fn name(&self) -> &'static str {
        self.name
    }
    fn prepare(&self, graph: &Graph, options: &PrepareOptions) -> Result<Box<dyn Program>, Vec<Diag>> {
        let module = self.lowered(graph)?;
        Ok(Box::new(self.program(graph, module, options)?))
    }
}

/// The targets that this machine runs code for, the weakest first.
pub fn targets() -> Vec<TargetSpec> {
    TargetSpec::all_cpu().into_iter().filter(TargetSpec::runs_here).collect()
}
