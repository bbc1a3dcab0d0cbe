//! Planted compiler bugs: the random graphs notice at least nine of ten kinds, in kernels that are interpreted and in
//! machine code made of them.

#![allow(clippy::print_stdout, reason = "shown with --nocapture")]

use planish_codegen::Module;
use planish_codegen::kernel::verify_module;
use planish_ir::{Diag, Engine, Graph, PrepareOptions, Program};
use planish_testsuite::differential::{Outcome, run, supported};
use planish_testsuite::native::{Maker, Native, targets};
use planish_testsuite::plant::{Bug, plant};
use planish_testsuite::rng::Rng;
use planish_testsuite::smith::{Sketch, sketches};
use std::cell::Cell;

/// An engine on kernels with a bug.
struct Mutant<'e> {
    engine: &'e Native,
    bug: Bug,
    seed: u64,
    /// Whether the bug fitted into a kernel of the last graph.
    planted: Cell<bool>,
}

impl Mutant<'_> {
    fn new(engine: &Native, bug: Bug, seed: u64) -> Mutant<'_> {
        Mutant { engine, bug, seed, planted: Cell::new(false) }
    }
}

impl Engine for Mutant<'_> {
    fn name(&self) -> &'static str {
        "mutant"
    }
    fn prepare(&self, graph: &Graph, options: &PrepareOptions) -> Result<Box<dyn Program>, Vec<Diag>> {
        let mut module: Module = self.engine.lowered(graph)?;
        let mut rng = Rng::new(self.seed);
        let mut planted = false;
        for kernel in &mut module.variants[0].kernels.kernels {
            planted |= plant(kernel, self.bug, &mut rng);
        }
        assert_eq!(verify_module(&module.variants[0].kernels), [], "{:?} makes an invalid kernel", self.bug);
        self.planted.set(planted);
        Ok(Box::new(self.engine.program(graph, module, options)?))
    }
}

/// Runs every kind of bug through the sketches until `caught` says that one shows it; `None`: the bug fits nowhere in
/// that graph. At least nine of ten kinds that fit somewhere must be shown.
fn nine_of_ten(what: &str, usable: &[bool], caught: &dyn Fn(&Sketch, Bug) -> Option<bool>) {
    let (mut hits, mut missed) = (0, Vec::new());
    for bug in Bug::ALL {
        let mut planted = 0;
        let hit = sketches().any(|mut sketch| {
            sketch.steps.retain(|(recipe, _)| usable[*recipe]);
            let found = caught(&sketch, *bug);
            planted += usize::from(found.is_some());
            found == Some(true)
        });
        if hit {
            hits += 1;
        } else {
            missed.push((*bug, planted));
        }
    }
    let fits = Bug::ALL.len() - missed.iter().filter(|(_, planted)| *planted == 0).count();
    let text =
        format!("{what}: {hits} of {fits} kinds caught; missed (kind, graphs that had it): {missed:?}");
    println!("{text}");
    assert!(fits >= 12, "{text}");
    assert!(hits * 10 >= fits * 9, "{text}");
}

#[test]
fn random_graphs_catch_nine_of_ten_kinds() {
    let engine = Native::new(Maker::Interpreter, targets().swap_remove(0));
    nine_of_ten("interpreted", &supported(&engine), &|sketch, bug| {
        let mutant = Mutant::new(&engine, bug, sketch.seed);
        let outcome = run(sketch, &mutant);
        mutant.planted.get().then_some(matches!(outcome, Outcome::Differs(_)))
    });
}

/// The kernel interpreter runs the same kernels first, which stops at accesses outside of buffers: only what stays
/// inside them is run as machine code.
fn machine_code(maker: Maker) {
    let target = targets().swap_remove(0);
    let checked = Native::new(Maker::Interpreter, target.clone());
    let engine = Native::new(maker, target);
    nine_of_ten(engine.name(), &supported(&checked), &|sketch, bug| {
        let mutant = Mutant::new(&checked, bug, sketch.seed);
        let outcome = run(sketch, &mutant);
        let inside = matches!(&outcome, Outcome::Differs(why) if !why.starts_with("panic"));
        if !mutant.planted.get() {
            return None;
        }
        Some(inside && matches!(run(sketch, &Mutant::new(&engine, bug, sketch.seed)), Outcome::Differs(_)))
    });
}

#[test]
fn machine_code_of_cranelift_shows_them_too() {
    machine_code(Maker::Cranelift);
}

#[cfg(feature = "llvm")]
#[test]
fn machine_code_of_llvm_shows_them_too() {
    machine_code(Maker::Llvm);
}
