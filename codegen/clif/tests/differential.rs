//! The Cranelift back end against the kernel interpreter.

use planish_clif::Clif;
use planish_codegen::kernel::difftest::{Case, memory, ops, random};
use planish_codegen::kernel::native::Native;
use planish_codegen::kernel::{Backend, Builder, Elem, KernelModule, TargetSpec};
use std::collections::BTreeMap;

fn check(cases: &[Case], target: &TargetSpec) {
    let mut kernels = BTreeMap::new();
    for c in cases {
        kernels.entry(c.kernel.name.clone()).or_insert_with(|| c.kernel.clone());
    }
    let module = KernelModule { kernels: kernels.into_values().collect() };
    let object = Clif.emit(&module, target).unwrap_or_else(|e| panic!("{}: {e}", target.name));
    assert_eq!(Clif.emit(&module, target).as_ref(), Ok(&object), "same input, same bytes");
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

#[test]
fn every_operation_agrees() {
    for lanes in [1, 2, 4, 8] {
        check(&ops::cases(lanes), &TargetSpec::generic128());
    }
}

#[test]
fn memory_with_tails_agrees() {
    for lanes in [1, 4] {
        check(&memory::cases(lanes, &[0, 1, 2, 3, 15, 16, 17, 67]), &TargetSpec::generic128());
        check(&memory::narrowed(lanes), &TargetSpec::generic128());
    }
}

#[test]
fn random_programs_agree() {
    let cases: Vec<Case> = (0..60).map(|seed| random::case(seed, [1, 2, 4, 8][seed as usize % 4])).collect();
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
