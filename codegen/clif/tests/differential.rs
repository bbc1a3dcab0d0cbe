//! The Cranelift back end against the kernel interpreter.

use planish_clif::Clif;
use planish_codegen::kernel::difftest::functions::check_functions;
use planish_codegen::kernel::difftest::{Case, check_backend, memory, ops, random};
use planish_codegen::kernel::{Backend, Builder, Elem, KernelModule, TargetSpec};

fn check(cases: &[Case], target: &TargetSpec) {
    check_backend(&Clif, cases, target);
}

#[test]
fn every_operation_agrees() {
    for lanes in [1, 2, 4, 8, 16, 32] {
        check(&ops::cases(lanes), &TargetSpec::generic128());
    }
}

#[test]
fn memory_with_tails_agrees() {
    for lanes in [1, 4, 16] {
        check(&memory::cases(lanes, &[0, 1, 2, 3, 15, 16, 17, 67]), &TargetSpec::generic128());
        check(&memory::narrowed(lanes), &TargetSpec::generic128());
    }
}

#[test]
fn random_programs_agree() {
    let cases: Vec<Case> =
        (0..60).map(|seed| random::case(seed, [1, 2, 4, 8, 16][seed as usize % 5])).collect();
    check(&cases, &TargetSpec::generic128());
}

#[test]
fn compiles_for_aarch64() {
    let cases: Vec<Case> = (0..10).map(|seed| random::case(seed, 4)).collect();
    check(&cases, &TargetSpec::aarch64());
}

#[test]
fn refuses_simt_kernels() {
    let mut b = Builder::simt("k", [32, 1, 1]);
    let y = b.output("y", Elem::F32);
    let one = b.f32(1.0);
    b.store(y, 0, one);
    let m = KernelModule { kernels: vec![b.finish()] };
    let e = Clif.emit(&m, &TargetSpec::generic128()).unwrap_err().to_string();
    assert!(e.contains("kernel k: simt kernel: Cranelift compiles CPU kernels only"), "{e}");
}

#[test]
fn math_functions_keep_their_bounds() {
    for lanes in [1, 4] {
        check_functions(&Clif, &TargetSpec::generic128(), lanes, 300);
    }
}
