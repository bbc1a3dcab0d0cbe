//! LLVM itself: text in, code out. Target machines are kept per thread, as making one costs milliseconds.

use crate::ir::llvm_target;
use inkwell::OptimizationLevel;
use inkwell::context::Context;
use inkwell::memory_buffer::MemoryBuffer;
use inkwell::targets::{
    CodeModel, FileType, InitializationConfig, RelocMode, Target, TargetMachine, TargetTriple,
};
use planish_codegen::kernel::{EmitError, TargetSpec};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Once;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Object,
    Assembly,
}

thread_local! {
    static MACHINES: RefCell<BTreeMap<String, Rc<TargetMachine>>> = const { RefCell::new(BTreeMap::new()) };
}

fn machine(target: &TargetSpec) -> Result<Rc<TargetMachine>, EmitError> {
    static INIT: Once = Once::new();
    INIT.call_once(|| {
        let config = InitializationConfig::default();
        Target::initialize_x86(&config);
        Target::initialize_aarch64(&config);
        Target::initialize_nvptx(&config);
    });
    let lt = llvm_target(target);
    let key = format!("{} {} {}", lt.triple, lt.cpu, lt.features);
    if let Some(m) = MACHINES.with(|c| c.borrow().get(&key).cloned()) {
        return Ok(m);
    }
    let triple = TargetTriple::create(lt.triple);
    let llvm = Target::from_triple(&triple).map_err(|e| EmitError::new(format!("LLVM: {e}")))?;
    let m = llvm
        .create_target_machine(
            &triple,
            &lt.cpu,
            &lt.features,
            OptimizationLevel::Default,
            RelocMode::PIC,
            CodeModel::Small,
        )
        .ok_or_else(|| EmitError::new(format!("LLVM has no machine for {key}")))?;
    m.set_asm_verbosity(false);
    let m = Rc::new(m);
    MACHINES.with(|c| c.borrow_mut().insert(key, m.clone()));
    Ok(m)
}

/// Parses LLVM IR text, checks it and generates code; no IR pass runs.
pub(crate) fn emit(text: &str, target: &TargetSpec, form: Form) -> Result<Vec<u8>, EmitError> {
    let machine = machine(target)?;
    let context = Context::create();
    let buffer = MemoryBuffer::create_from_memory_range_copy(text.as_bytes(), "kernels");
    let module = context
        .create_module_from_ir(buffer)
        .map_err(|e| EmitError::new(format!("LLVM refuses the IR: {}", e.to_string().replace('\n', " "))))?;
    module.set_data_layout(&machine.get_target_data().get_data_layout());
    module
        .verify()
        .map_err(|e| EmitError::new(format!("LLVM's verifier: {}", e.to_string().replace('\n', " "))))?;
    let kind = if form == Form::Object { FileType::Object } else { FileType::Assembly };
    let out = machine
        .write_to_memory_buffer(&module, kind)
        .map_err(|e| EmitError::new(format!("LLVM code generation: {e}")))?;
    Ok(out.as_slice().to_vec())
}
