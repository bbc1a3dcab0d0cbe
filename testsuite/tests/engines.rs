//! The same random graphs on every engine. `PLANISH_TEST_GRAPHS` and `PLANISH_TEST_SEED` as in `random.rs`.
//!
//! Machine code may kill the process, so every engine runs in a process of its own: this program again, with
//! `PLANISH_TEST_PROGRESS` naming a file that tells the seed at work.

#![allow(clippy::print_stdout, reason = "shown with --nocapture")]

use planish_clif::Clif;
use planish_codegen::KernelInterpreter;
use planish_codegen::kernel::{Backend, TargetSpec};
use planish_ir::{DType, Engine, PrepareOptions, Value};
use planish_testsuite::differential::{Outcome, kinds, report, run, supported};
use planish_testsuite::native::{Maker, Native, targets};
use planish_testsuite::smith::{RECIPES, Sketch, sketches};
use std::collections::BTreeMap;
use std::process::Command;

/// Runs all sketches, each on one of the engines in turn, without the recipes that they never support. The test fails
/// when one differs, and shows a shrunken graph for every kind of difference.
fn suite(engines: &[&dyn Engine], note: &dyn Fn(u64)) {
    let usable = supported(engines[0]);
    let absent: Vec<&str> = RECIPES.iter().zip(&usable).filter(|(_, ok)| !**ok).map(|(r, _)| r.op).collect();
    let (mut agreed, mut unsupported) = (0, BTreeMap::<String, usize>::new());
    let mut failures = Vec::<(&dyn Engine, Sketch)>::new();
    for (i, mut sketch) in sketches().enumerate() {
        sketch.steps.retain(|(recipe, _)| usable[*recipe]);
        let engine = engines[i % engines.len()];
        note(sketch.seed);
        match run(&sketch, engine) {
            Outcome::Agrees => agreed += 1,
            Outcome::Unsupported(why) => {
                let why = why.split('[').map(|part| part.split(']').next_back().unwrap_or(part));
                *unsupported.entry(why.collect::<Vec<_>>().join(" ")).or_default() += 1;
            }
            Outcome::Differs(_) => failures.push((engine, sketch)),
        }
    }
    let name = engines[0].name();
    println!("{name}: {agreed} agree, {} differ; never supported: {absent:?}", failures.len());
    for (why, n) in &unsupported {
        println!("{n} unsupported: {why}");
    }
    let failed = failures.len();
    let mut shown = BTreeMap::new();
    for (engine, sketch) in failures.into_iter().take(200) {
        note(sketch.seed);
        let small = sketch.shrink(&|s| matches!(run(s, engine), Outcome::Differs(_)));
        shown.entry(kinds(&small)).or_insert((engine, small));
    }
    let reports: Vec<String> =
        shown.values().take(12).map(|(engine, small)| report(small, *engine)).collect();
    assert!(failed == 0, "{failed} graphs differ, in {} ways\n{}", shown.len(), reports.join("\n"));
    let refused: usize = unsupported.values().sum();
    assert!(agreed > refused, "{agreed} graphs ran, {refused} are not supported");
}

/// Runs [`suite`] in a process of its own for the test with this name.
fn apart(test: &str, engines: &[&dyn Engine]) {
    const PROGRESS: &str = "PLANISH_TEST_PROGRESS";
    if let Some(path) = std::env::var_os(PROGRESS) {
        return suite(engines, &|seed| {
            let _ = std::fs::write(&path, seed.to_string());
        });
    }
    let folder = tempfile::tempdir().unwrap_or_else(|e| panic!("{e}"));
    let path = folder.path().join("seed");
    let own = std::env::current_exe().unwrap_or_else(|e| panic!("{e}"));
    let child = Command::new(own).args([test, "--exact", "--nocapture"]).env(PROGRESS, &path).output();
    let child = child.unwrap_or_else(|e| panic!("{e}"));
    println!("{}{}", String::from_utf8_lossy(&child.stdout), String::from_utf8_lossy(&child.stderr));
    let seed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(child.status.success(), "{}, at seed {seed}", child.status);
}

/// Outputs are the same to the bit, however many threads a session has.
#[test]
fn threads_do_not_change_a_bit() {
    let engine = Native::new(Maker::Cranelift, targets().swap_remove(0));
    let (mut compared, mut refused) = (0, 0);
    for sketch in sketches().step_by(4) {
        let built = sketch.build();
        let inputs: Vec<Option<Value>> =
            built.inputs.iter().map(|tensor| Some(Value::from(tensor.clone()))).collect();
        let outputs = |threads| {
            let options = PrepareOptions { threads, ..PrepareOptions::default() };
            let mut session = engine.prepare(&built.graph, &options).ok()?.session().ok()?;
            session.run(&inputs).ok().map(|result| result.values)
        };
        let Some(one) = outputs(1) else {
            refused += 1;
            continue;
        };
        for threads in [2, 4] {
            let many = outputs(threads).unwrap_or_default();
            assert!(identical(&one, &many), "seed {}, {threads} threads", sketch.seed);
        }
        compared += 1;
    }
    assert!(compared > refused, "{compared} graphs ran, {refused} are not supported");
}

/// Whether values have the same bits.
fn identical(a: &[Value], b: &[Value]) -> bool {
    let alike = |(a, b): (&Value, &Value)| match (a, b) {
        (Value::Tensor(a), Value::Tensor(b)) if a.dtype() != DType::Str => {
            a.shape() == b.shape() && a.bytes() == b.bytes()
        }
        (Value::Sequence(_, a), Value::Sequence(_, b)) => identical(a, b),
        (a, b) => a == b,
    };
    a.len() == b.len() && a.iter().zip(b).all(alike)
}

#[test]
fn kernel_interpreter_with_four_lanes() {
    suite(&[&KernelInterpreter::default()], &|_| {});
}

#[test]
fn kernel_interpreter_with_more_lanes_after_passes() {
    let engines: Vec<Native> =
        targets().into_iter().map(|target| Native::new(Maker::Interpreter, target)).collect();
    suite(&engines.iter().map(|engine| engine as &dyn Engine).collect::<Vec<_>>(), &|_| {});
}

#[test]
fn kernels_for_gpus_in_lock_step() {
    suite(&[&Native::new(Maker::Interpreter, TargetSpec::nvptx(80))], &|_| {});
}

#[test]
fn cranelift() {
    let engines: Vec<Native> =
        targets().into_iter().map(|target| Native::new(Maker::Cranelift, target)).collect();
    apart("cranelift", &engines.iter().map(|engine| engine as &dyn Engine).collect::<Vec<_>>());
}

#[cfg(feature = "llvm")]
#[test]
fn llvm() {
    let engines: Vec<Native> = targets().into_iter().map(|target| Native::new(Maker::Llvm, target)).collect();
    apart("llvm", &engines.iter().map(|engine| engine as &dyn Engine).collect::<Vec<_>>());
}

/// Kernels for all targets, whatever machine this is.
#[test]
fn cranelift_compiles_for_every_target() {
    for target in TargetSpec::all_cpu() {
        let maker = Native::new(Maker::Cranelift, target.clone());
        let (mut compiled, mut refused_earlier) = (0, 0);
        for sketch in sketches().step_by(10) {
            let Ok(module) = maker.lowered(&sketch.build().graph) else {
                refused_earlier += 1;
                continue;
            };
            let kernels = &module.variants[0].kernels;
            let refused = Clif.check(kernels, &target);
            assert!(refused.is_empty(), "{}, seed {}: {refused:?}", target.name, sketch.seed);
            if let Err(why) = Clif.emit(kernels, &target) {
                panic!("{}, seed {}: {why}", target.name, sketch.seed);
            }
            compiled += 1;
        }
        assert!(compiled > refused_earlier, "{}: {compiled} graphs compiled", target.name);
    }
}
