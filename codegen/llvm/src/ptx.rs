//! PTX: what each construct needs, and text output.
//!
//! NVPTX aborts the process on an intrinsic that the chosen processor or PTX version lacks, and its default version is the
//! lowest for a processor. So the version is always explicit and every construct is looked up here first.

use crate::ir::module_text;
use crate::machine::{Form, emit};
use crate::refuse;
use planish_codegen::kernel::{
    Arch, BinOp, Class, EmitError, Inst, Kernel, KernelModule, Op, TargetSpec, Unsupported, verify_module,
};

/// Least processor (compute capability times ten) and PTX version (times ten) of a construct.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Needs {
    pub construct: &'static str,
    pub sm: u16,
    pub ptx: u16,
}

/// What any kernel needs.
pub const BASE: Needs = Needs { construct: "kernel", sm: 70, ptx: 63 };

/// What goes beyond [`BASE`].
pub const TABLE: [Needs; 4] = [
    Needs { construct: "copy_async", sm: 80, ptx: 70 },
    Needs { construct: "mma", sm: 80, ptx: 70 },
    Needs { construct: "fmin", sm: 80, ptx: 70 },
    Needs { construct: "fmax", sm: 80, ptx: 70 },
];

/// Highest PTX version that is written: that of CUDA 13.0 drivers.
pub const MAX_PTX: u16 = 90;

fn construct(inst: &Inst) -> Option<&'static str> {
    match &inst.op {
        Op::CopyAsync { .. } | Op::CopyCommit | Op::CopyWait(_) => Some("copy_async"),
        Op::Mma { .. } => Some("mma"),
        Op::Binary(BinOp::FMin, ..) | Op::Reduce(BinOp::FMin, _) => Some("fmin"),
        Op::Binary(BinOp::FMax, ..) | Op::Reduce(BinOp::FMax, _) => Some("fmax"),
        _ => None,
    }
}

/// Constructs of a kernel that the target does not have, each once.
pub(crate) fn check_kernel(k: &Kernel, target: &TargetSpec, found: &mut Vec<Unsupported>) {
    let mut report = |construct: &str, reason: String| {
        let u = Unsupported { kernel: k.name.clone(), construct: construct.into(), reason };
        if !found.contains(&u) {
            found.push(u);
        }
    };
    let mut need = |n: Needs| {
        if target.sm < n.sm {
            report(n.construct, format!("needs sm_{}, the target is sm_{}", n.sm, target.sm));
        }
        if target.ptx < n.ptx {
            report(
                n.construct,
                format!("needs PTX {}, the target has {}", version(n.ptx), version(target.ptx)),
            );
        }
    };
    need(BASE);
    k.body.visit(&mut |inst| {
        if let Some(n) = construct(inst).and_then(|c| TABLE.iter().find(|n| n.construct == c)) {
            need(*n);
        }
    });
    if target.ptx > MAX_PTX {
        report("kernel", format!("PTX {} is above {}", version(target.ptx), version(MAX_PTX)));
    }
    if let Class::Simt { block } = k.class
        && (block[2] > 64 || block.contains(&0))
    {
        report("kernel", format!("block {block:?}"));
    }
}

fn version(v: u16) -> String {
    format!("{}.{}", v / 10, v % 10)
}

/// PTX text of a module for an `Nvptx` target.
pub fn emit_ptx(module: &KernelModule, target: &TargetSpec) -> Result<String, EmitError> {
    if target.arch != Arch::Nvptx {
        return Err(EmitError::new(format!("{} is no PTX target", target.name)));
    }
    if let Some(i) = verify_module(module).first() {
        return Err(EmitError::in_kernel(&i.kernel, i.to_string()));
    }
    let mut found = Vec::new();
    for k in &module.kernels {
        crate::check_kernel(k, target, &mut found);
    }
    refuse(&found)?;
    let bytes = emit(&module_text(module, target), target, Form::Assembly)?;
    String::from_utf8(bytes).map_err(|_| EmitError::new("LLVM wrote PTX that is not UTF-8"))
}
