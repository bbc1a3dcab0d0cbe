//! PTX of SIMT kernels: its text, and what it is refused for.

use planish_codegen::kernel::difftest::{memory, ops};
use planish_codegen::kernel::{
    Backend, BinOp, Builder, Class, Elem, Kernel, KernelModule, Op, Special, TargetSpec, Ty,
};
use planish_codegen::simt::{elementwise, matmul, mma, reduce};
use planish_llvm::Llvm;
use planish_llvm::child::{Limits, Pool};
use planish_llvm::ptx::{BASE, TABLE, emit_ptx};

fn module(k: Kernel) -> KernelModule {
    KernelModule { kernels: vec![k] }
}

fn axpy() -> Kernel {
    elementwise::elementwise("axpy", &[Elem::F32, Elem::F32], Elem::F32, |b, v| b.fma(v[0], 2.0, v[1]))
}

/// Instruction names with counts, sorted: what a change of the code generator may not alter unnoticed.
fn opcodes(ptx: &str) -> String {
    let mut count = std::collections::BTreeMap::new();
    for l in ptx.lines().filter_map(|l| l.strip_prefix('\t')) {
        let l = if l.starts_with('@') { l.split_once(' ').map_or("", |p| p.1) } else { l };
        let op = l.split([' ', '\t', ';']).next().unwrap_or("");
        if op.starts_with(|c: char| c.is_ascii_lowercase()) {
            *count.entry(op.to_string()).or_insert(0) += 1;
        }
    }
    count.iter().map(|(op, n)| format!("{n:4} {op}\n")).collect()
}

fn text(k: Kernel) -> String {
    emit_ptx(&module(k), &TargetSpec::nvptx(80)).unwrap()
}

#[test]
fn elementwise_text() {
    insta::assert_snapshot!(text(axpy()));
}

#[test]
fn reduction_text() {
    insta::assert_snapshot!(text(reduce::reduce_rows("row_sum", BinOp::FAdd, 0.0)));
}

/// A small tile: the same builder and instructions as the default one, and a text that can be read.
#[test]
fn shared_memory_matmul_text() {
    let tile = matmul::Tile { block: [16, 16, 4], thread: [2, 2] };
    insta::assert_snapshot!(text(matmul::matmul("matmul", tile)));
}

#[test]
fn tensor_core_matmul_text() {
    insta::assert_snapshot!(text(mma::matmul_bf16("matmul_bf16")));
}

#[test]
fn tensor_core_instructions() {
    let text = emit_ptx(&module(mma::matmul_bf16("matmul_bf16")), &TargetSpec::nvptx(80)).unwrap();
    assert!(text.contains(".version 8.0\n.target sm_80\n"), "the version is explicit");
    insta::assert_snapshot!(opcodes(&text));
}

#[test]
fn table_names_what_a_target_lacks() {
    let fmax = module(reduce::reduce_rows("row_max", BinOp::FMax, 0.0));
    let why = |m: &KernelModule, sm: u16, ptx: u16| {
        let target = TargetSpec { sm, ptx, ..TargetSpec::nvptx(80) };
        let found = Llvm.check(m, &target);
        assert_eq!(emit_ptx(m, &target).is_err(), !found.is_empty());
        found.iter().map(|u| format!("{}: {}", u.construct, u.reason)).collect::<Vec<_>>()
    };
    let tensor = module(mma::matmul_bf16("k"));
    assert_eq!(why(&tensor, 80, 70), Vec::<String>::new());
    let e = why(&tensor, 75, 80);
    assert_eq!(e, ["copy_async: needs sm_80, the target is sm_75", "mma: needs sm_80, the target is sm_75"]);
    assert_eq!(why(&fmax, 80, 65), ["fmax: needs PTX 7.0, the target has 6.5"]);
    assert_eq!(why(&module(axpy()), 60, 80), ["kernel: needs sm_70, the target is sm_60"]);
    assert_eq!(why(&module(axpy()), 90, 91), ["kernel: PTX 9.1 is above 9.0"]);
    let mut b = Builder::cpu("cpu");
    let y = b.output("y", Elem::F32);
    let v = b.zero(Ty::F32);
    b.store(y, 0, v);
    let e = emit_ptx(&module(b.finish()), &TargetSpec::nvptx(80)).unwrap_err().to_string();
    assert!(e.contains("kernel cpu: cpu kernel: target sm_80 runs the other kind"), "{e}");
}

/// At its least processor and version each construct must compile, and not abort LLVM: hence the child.
#[test]
fn table_suffices() {
    let pool = Pool::new(env!("CARGO_BIN_EXE_planish-codegen-child").into(), vec![], 1, Limits::default());
    for need in TABLE.iter().chain([&BASE]) {
        let k = match need.construct {
            "copy_async" | "mma" => mma::matmul_bf16("k"),
            "fmin" => reduce::reduce_rows("k", BinOp::FMin, 0.0),
            "fmax" => reduce::reduce_rows("k", BinOp::FMax, 0.0),
            _ => axpy(),
        };
        let target = TargetSpec { sm: need.sm, ptx: need.ptx, ..TargetSpec::nvptx(80) };
        pool.emit(&module(k), &target).unwrap_or_else(|e| panic!("{need:?}: {e}"));
    }
}

/// A CPU kernel as a SIMT kernel of one thread that does everything.
fn single_thread(mut k: Kernel) -> Kernel {
    k.class = Class::Simt { block: [1, 1, 1] };
    for inst in &mut k.body.insts {
        match inst.op {
            Op::Special(Special::RangeLo) => inst.op = Op::Const(vec![0]),
            Op::Special(Special::RangeHi) => inst.op = Op::Const(vec![3]),
            _ => {}
        }
    }
    k
}

/// Every operation and element type has a translation; 4 lanes and scalars.
#[test]
fn every_operation_is_translated() {
    let pool = Pool::new(env!("CARGO_BIN_EXE_planish-codegen-child").into(), vec![], 2, Limits::default());
    let mut modules = Vec::new();
    for lanes in [1, 4] {
        let cases = [ops::cases(lanes), memory::cases(lanes, &[1])].concat();
        modules.extend(cases.into_iter().map(|c| module(single_thread(c.kernel))));
    }
    let target = TargetSpec::nvptx(90);
    for (m, r) in modules.iter().zip(pool.emit_all(&modules, &target)) {
        match r {
            Ok(o) => assert!(o.bytes.starts_with(b"//\n// Generated by LLVM NVPTX Back-End")),
            Err(e) => panic!("{}: {}", m.kernels[0].name, e.message),
        }
    }
}
