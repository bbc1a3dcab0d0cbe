//! The LLVM back end against the kernel interpreter: every operation, memory with tails, random programs, on every target that
//! this machine runs. All targets, runnable or not, must give objects without undefined symbols.

use planish_codegen::kernel::difftest::{Case, memory, ops, random};
use planish_codegen::kernel::native::Native;
use planish_codegen::kernel::{Backend, KernelModule, ObjectBytes, TargetSpec};
use planish_llvm::Llvm;
use std::collections::BTreeMap;

fn compile(cases: &[Case], target: &TargetSpec) -> ObjectBytes {
    let mut kernels = BTreeMap::new();
    for c in cases {
        kernels.entry(c.kernel.name.clone()).or_insert_with(|| c.kernel.clone());
    }
    let module = KernelModule { kernels: kernels.into_values().collect() };
    Llvm.emit(&module, target).unwrap_or_else(|e| panic!("{}: {e}", target.name))
}

fn check(cases: &[Case], target: &TargetSpec) {
    assert!(!cases.is_empty());
    let object = compile(cases, target);
    if !target.runs_here() {
        return;
    }
    let native = Native::load(&[object]).expect("links and loads");
    let mut wrong = Vec::new();
    for c in cases {
        // SAFETY: the cases are made for their kernels, the interpreter has bounds-checked them, and the target runs here.
        let r = c.compare(|k, args, lo, hi| unsafe { native.run(&k.name, args, lo, hi) });
        if let Err(e) = r {
            wrong.push(e);
        }
    }
    let heads: Vec<&str> = wrong.iter().filter_map(|w| w.lines().next()).collect();
    assert!(
        wrong.is_empty(),
        "{}: {} of {} cases\n{heads:#?}\n{}",
        target.name,
        wrong.len(),
        cases.len(),
        wrong[0]
    );
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
