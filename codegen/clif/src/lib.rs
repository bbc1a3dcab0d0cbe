//! Kernel IR -> Cranelift -> object bytes.
//!
//! Compiles fast and needs no LLVM; its code is the second opinion on what LLVM makes. A register of exactly 128 bits is a vector
//! of the machine, every other vector is kept lane by lane, so kernels for [`TargetSpec::generic128`] suit it best.

mod arith;
mod cast;
mod control;
mod emit;
mod memory;

use cranelift_codegen::control::ControlPlane;
use cranelift_codegen::isa::{self, OwnedTargetIsa};
use cranelift_codegen::settings::{self, Configurable};
use cranelift_codegen::{Context, ir};
use cranelift_frontend::FunctionBuilderContext;
use object::write::{Object, Symbol, SymbolSection};
use object::{Architecture, BinaryFormat, Endianness, SectionKind, SymbolFlags, SymbolKind, SymbolScope};
use planish_codegen::kernel::{
    Arch, Backend, Class, EmitError, Kernel, KernelModule, ObjectBytes, Op, TargetSpec, Unsupported,
    verify_module,
};

/// The Cranelift back end.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clif;

impl Backend for Clif {
    fn name(&self) -> &'static str {
        "cranelift"
    }

    fn check(&self, module: &KernelModule, target: &TargetSpec) -> Vec<Unsupported> {
        let mut found: Vec<Unsupported> = verify_module(module)
            .into_iter()
            .map(|i| Unsupported { kernel: i.kernel, construct: i.inst, reason: i.message })
            .collect();
        for k in &module.kernels {
            let mut report = |construct: &str, reason: &str| {
                found.push(Unsupported {
                    kernel: k.name.clone(),
                    construct: construct.into(),
                    reason: reason.into(),
                });
            };
            if k.class != Class::Cpu {
                report("simt kernel", "Cranelift compiles CPU kernels only");
            }
            if target.arch == Arch::Nvptx {
                report("target", "Cranelift has no PTX");
            }
            let mut fma = false;
            k.body.visit(&mut |i| fma |= matches!(i.op, Op::Fma(..) | Op::Dot2Bf16 { .. }));
            if fma && !target.features.fma {
                report("fma", "the target has no fused multiply-add");
            }
        }
        found
    }

    fn emit(&self, module: &KernelModule, target: &TargetSpec) -> Result<ObjectBytes, EmitError> {
        if let Some(u) = self.check(module, target).first() {
            return Err(EmitError::in_kernel(&u.kernel, format!("{}: {}", u.construct, u.reason)));
        }
        let isa = isa_for(target)?;
        let arch = if target.arch == Arch::X86_64 { Architecture::X86_64 } else { Architecture::Aarch64 };
        let mut obj = Object::new(BinaryFormat::Elf, arch, Endianness::Little);
        let text = obj.section_id(object::write::StandardSection::Text);
        let stack_note = obj.add_section(vec![], b".note.GNU-stack".to_vec(), SectionKind::Other);
        obj.append_section_data(stack_note, &[], 1);
        let mut frontend = FunctionBuilderContext::new();
        for k in &module.kernels {
            let code = compile(k, &isa, &mut frontend)?;
            let value = obj.append_section_data(text, &code, 64);
            obj.add_symbol(Symbol {
                name: k.name.clone().into_bytes(),
                value,
                size: code.len() as u64,
                kind: SymbolKind::Text,
                scope: SymbolScope::Linkage,
                weak: false,
                section: SymbolSection::Section(text),
                flags: SymbolFlags::None,
            });
        }
        let bytes = obj.write().map_err(|e| EmitError::new(format!("object file: {e}")))?;
        Ok(ObjectBytes { bytes })
    }
}

/// Cranelift IR text of a kernel that [`Backend::check`] accepts.
pub fn clif_ir(k: &Kernel, target: &TargetSpec) -> Result<String, EmitError> {
    let isa = isa_for(target)?;
    Ok(emit::function(k, &isa, &mut FunctionBuilderContext::new()).display().to_string())
}

fn compile(
    k: &Kernel,
    isa: &OwnedTargetIsa,
    frontend: &mut FunctionBuilderContext,
) -> Result<Vec<u8>, EmitError> {
    let func: ir::Function = emit::function(k, isa, frontend);
    let mut cx = Context::for_function(func);
    let code = cx
        .compile(&**isa, &mut ControlPlane::default())
        .map_err(|e| EmitError::in_kernel(&k.name, format!("Cranelift: {:?}", e.inner)))?;
    if let Some(r) = code.buffer.relocs().first() {
        return Err(EmitError::in_kernel(
            &k.name,
            format!("Cranelift calls a library function: {:?}", r.target),
        ));
    }
    Ok(code.code_buffer().to_vec())
}

fn isa_for(target: &TargetSpec) -> Result<OwnedTargetIsa, EmitError> {
    let fail = |e: &dyn std::fmt::Display| EmitError::new(format!("Cranelift for {}: {e}", target.name));
    let mut flags = settings::builder();
    for (name, value) in [
        ("opt_level", "speed"),
        ("is_pic", "true"),
        ("unwind_info", "false"),
        ("enable_probestack", "false"),
        ("preserve_frame_pointers", "false"),
        ("enable_verifier", if cfg!(debug_assertions) { "true" } else { "false" }),
    ] {
        flags.set(name, value).map_err(|e| fail(&e))?;
    }
    let name = match target.arch {
        Arch::X86_64 => "x86_64",
        Arch::Aarch64 => "aarch64",
        Arch::Nvptx => return Err(fail(&"no PTX")),
    };
    let mut isa = isa::lookup_by_name(name).map_err(|e| fail(&e))?;
    if target.arch == Arch::X86_64 {
        let v2 = ["has_sse3", "has_ssse3", "has_sse41", "has_sse42", "has_popcnt", "has_cmpxchg16b"];
        let v3 = ["has_avx", "has_avx2", "has_fma", "has_bmi1", "has_bmi2", "has_lzcnt"];
        let more: &[&str] = if target.features.avx2 { &v3 } else { &[] };
        for f in v2.iter().chain(more) {
            isa.enable(f).map_err(|e| fail(&e))?;
        }
    }
    isa.finish(settings::Flags::new(flags)).map_err(|e| fail(&e))
}
