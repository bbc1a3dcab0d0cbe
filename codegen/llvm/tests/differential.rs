//! The LLVM back end against the kernel interpreter: every operation, memory with tails, random programs, on every target that
//! this machine runs. All targets, runnable or not, must give objects without undefined symbols.

use planish_codegen::kernel::TargetSpec;
use planish_codegen::kernel::difftest::functions::check_functions;
use planish_codegen::kernel::difftest::{Case, check_backend, memory, ops, random};
use planish_llvm::Llvm;

fn check(cases: &[Case], target: &TargetSpec) {
    check_backend(&Llvm, cases, target);
}

/// The lane counts that are worth a run on a target: scalars, half, whole and two vectors.
fn lane_counts(t: &TargetSpec) -> Vec<u16> {
    vec![1, 4, t.lanes_f32, t.lanes_f32 * 2]
}

#[test]
fn every_operation_agrees() {
    for t in TargetSpec::all_cpu() {
        let mut counts = lane_counts(&t);
        counts.dedup();
        for lanes in counts {
            check(&ops::cases(lanes), &t);
        }
    }
}

#[test]
fn memory_with_tails_agrees() {
    for t in TargetSpec::all_cpu() {
        for lanes in [1, t.lanes_f32] {
            check(&memory::cases(lanes, &[0, 1, 2, 3, 15, 16, 17, 67]), &t);
            check(&memory::narrowed(lanes), &t);
        }
    }
}

#[test]
fn random_programs_agree() {
    for t in TargetSpec::all_cpu() {
        let cases: Vec<Case> =
            (0..40).map(|seed| random::case(seed, if seed % 2 == 0 { t.lanes_f32 } else { 4 })).collect();
        check(&cases, &t);
    }
}

#[test]
fn math_functions_keep_their_bounds() {
    for t in TargetSpec::all_cpu() {
        for lanes in [1, t.lanes_f32] {
            check_functions(&Llvm, &t, lanes, 1500);
        }
    }
}
