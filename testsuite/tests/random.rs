//! Random graphs: well-formed, printable, and alike on all engines.
//!
//! `PLANISH_TEST_GRAPHS` is their number (300 when it is not set), `PLANISH_TEST_SEED` the seed of the first.

use planish_ir::text::{parse, print};
use planish_ir::{Interpreter, Op};
use planish_testsuite::differential::{Outcome, report, run};
use planish_testsuite::smith::{RECIPES, Sketch, sketches};
use std::collections::BTreeSet;

/// Without a recipe: `fused` is made by passes only, and so comes about wherever engines run them.
const NO_RECIPE: [&str; 1] = ["fused"];

#[test]
fn every_operation_has_a_recipe() {
    let covered: BTreeSet<&str> = RECIPES.iter().map(|recipe| recipe.op).collect();
    let all: BTreeSet<&str> = Op::table().into_iter().map(|(name, _)| name).collect();
    let absent: Vec<&str> = all.difference(&covered).copied().filter(|op| !NO_RECIPE.contains(op)).collect();
    assert_eq!(absent, Vec::<&str>::new());
}

/// A recipe that is always rejected tests nothing.
#[test]
fn every_recipe_succeeds_now_and_then() {
    let mut made = BTreeSet::new();
    for seed in 0..1500 {
        let built = Sketch::random(seed, 12).build();
        made.extend(built.graph.all_nodes().iter().map(|n| built.graph.node(*n).op.name()));
    }
    let missing: Vec<&str> = Op::table()
        .into_iter()
        .map(|(op, _)| op)
        .filter(|op| !made.contains(op) && !NO_RECIPE.contains(op))
        .collect();
    assert_eq!(missing, Vec::<&str>::new());
}

#[test]
fn parsing_reverses_printing() {
    for sketch in sketches() {
        let graph = sketch.build().graph;
        let text = print(&graph);
        let again = parse(&text).unwrap_or_else(|why| panic!("seed {}: {why}\n{text}", sketch.seed));
        assert_eq!(print(&again), text, "seed {}", sketch.seed);
    }
}

/// The interpreter against itself: the graphs are valid and run.
#[test]
fn the_interpreter_runs_them() {
    let mut ran = 0;
    for sketch in sketches() {
        match run(&sketch, &Interpreter) {
            Outcome::Agrees => ran += 1,
            Outcome::Unsupported(why) => {
                panic!("seed {}: {why}\n{}", sketch.seed, print(&sketch.build().graph))
            }
            Outcome::Differs(_) => panic!("{}", report(&sketch, &Interpreter)),
        }
    }
    assert!(ran > 0, "no graph ran");
}
