//! Kernel IR -> LLVM -> object bytes (CPU) and PTX.
//!
//! [`Llvm`] is the in-process back end. A fatal error inside LLVM aborts the process, so programs that must survive one use
//! the child-process protocol, which runs the same code.

pub mod child;
mod ir;
mod lint;
mod machine;
pub mod ptx;

use planish_codegen::kernel::{
    Arch, Backend, Class, EmitError, Kernel, KernelModule, ObjectBytes, Op, TargetSpec, Unsupported,
    verify_module,
};

pub use lint::{lint_object, stack_in_inner_loops};

/// The LLVM back end, in this process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Llvm;

/// LLVM IR text of a module that [`Backend::check`] accepts.
pub fn llvm_ir(module: &KernelModule, target: &TargetSpec) -> String {
    ir::module_text(module, target)
}

/// Assembly (for PTX targets: PTX) text of a module.
pub fn assembly(module: &KernelModule, target: &TargetSpec) -> Result<String, EmitError> {
    refuse(&Llvm.check(module, target))?;
    let bytes = machine::emit(&ir::module_text(module, target), target, machine::Form::Assembly)?;
    String::from_utf8(bytes).map_err(|_| EmitError::new("LLVM wrote assembly that is not UTF-8"))
}

fn refuse(found: &[Unsupported]) -> Result<(), EmitError> {
    match found.first() {
        Some(u) => Err(EmitError::in_kernel(&u.kernel, format!("{}: {}", u.construct, u.reason))),
        None => Ok(()),
    }
}

impl Backend for Llvm {
    fn name(&self) -> &'static str {
        "llvm"
    }

    fn check(&self, module: &KernelModule, target: &TargetSpec) -> Vec<Unsupported> {
        let mut found: Vec<Unsupported> = verify_module(module)
            .into_iter()
            .map(|i| Unsupported { kernel: i.kernel, construct: i.inst, reason: i.message })
            .collect();
        if found.is_empty() {
            for k in &module.kernels {
                check_kernel(k, target, &mut found);
            }
        }
        found
    }

    fn emit(&self, module: &KernelModule, target: &TargetSpec) -> Result<ObjectBytes, EmitError> {
        refuse(&self.check(module, target))?;
        let text = ir::module_text(module, target);
        if target.arch == Arch::Nvptx {
            return Ok(ObjectBytes { bytes: machine::emit(&text, target, machine::Form::Assembly)? });
        }
        let bytes = machine::emit(&text, target, machine::Form::Object)?;
        lint_object(&bytes)?;
        Ok(ObjectBytes { bytes })
    }
}

fn check_kernel(k: &Kernel, target: &TargetSpec, found: &mut Vec<Unsupported>) {
    let mut report = |construct: &str, reason: String| {
        found.push(Unsupported { kernel: k.name.clone(), construct: construct.into(), reason });
    };
    let simt = matches!(k.class, Class::Simt { .. });
    if simt != (target.arch == Arch::Nvptx) {
        report(
            if simt { "simt kernel" } else { "cpu kernel" },
            format!("target {} runs the other kind", target.name),
        );
        return;
    }
    if simt {
        ptx::check_kernel(k, target, found);
        return;
    }
    let f = target.features;
    k.body.visit(&mut |inst| match &inst.op {
        Op::Fma(..) | Op::Dot2Bf16 { .. } if !f.fma => {
            report("fma", format!("target {} has no fused multiply-add", target.name));
        }
        _ => {}
    });
}
