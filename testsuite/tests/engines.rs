//! The same random graphs on every engine. `PLANISH_TEST_GRAPHS` and `PLANISH_TEST_SEED` as in `random.rs`.

#![allow(clippy::print_stdout, reason = "shown with --nocapture")]

use planish_codegen::KernelInterpreter;
use planish_ir::Engine;
use planish_testsuite::differential::{Outcome, kinds, report, run, supported};
use planish_testsuite::smith::{RECIPES, Sketch, sketches};
use std::collections::BTreeMap;

/// Runs all sketches on an engine, without the recipes that it never supports. The test fails when one differs, and
/// shows a shrunken graph for every kind of difference.
fn suite(engine: &dyn Engine) {
    let usable = supported(engine);
    let absent: Vec<&str> = RECIPES.iter().zip(&usable).filter(|(_, ok)| !**ok).map(|(r, _)| r.op).collect();
    let (mut agreed, mut unsupported, mut failures) =
        (0, BTreeMap::<String, usize>::new(), Vec::<Sketch>::new());
    for mut sketch in sketches() {
        sketch.steps.retain(|(recipe, _)| usable[*recipe]);
        match run(&sketch, engine) {
            Outcome::Agrees => agreed += 1,
            Outcome::Unsupported(why) => {
                let why = why.split('[').map(|part| part.split(']').next_back().unwrap_or(part));
                *unsupported.entry(why.collect::<Vec<_>>().join(" ")).or_default() += 1;
            }
            Outcome::Differs(_) => failures.push(sketch),
        }
    }
    println!("{}: {agreed} agree, {} differ; never supported: {absent:?}", engine.name(), failures.len());
    for (why, n) in &unsupported {
        println!("{n} unsupported: {why}");
    }
    let failed = failures.len();
    let mut shown = BTreeMap::new();
    for sketch in failures.into_iter().take(200) {
        let small = sketch.shrink(&|s| matches!(run(s, engine), Outcome::Differs(_)));
        shown.entry(kinds(&small)).or_insert(small);
    }
    let reports: Vec<String> = shown.values().take(12).map(|sketch| report(sketch, engine)).collect();
    assert!(failed == 0, "{failed} graphs differ, in {} ways\n{}", shown.len(), reports.join("\n"));
    assert!(agreed > 0, "no graph ran");
}

#[test]
fn kernel_interpreter_with_four_lanes() {
    suite(&KernelInterpreter::default());
}
