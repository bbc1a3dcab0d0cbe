//! Planted compiler bugs: the random graphs notice at least nine of ten kinds.

#![allow(clippy::print_stdout, reason = "shown with --nocapture")]

use planish_codegen::engine::ModuleProgram;
use planish_codegen::kernel::verify_module;
use planish_codegen::{KernelInterpreter, LowerOptions, Module, lower};
use planish_ir::{Diag, Engine, Graph, PrepareOptions, Program};
use planish_testsuite::differential::{Outcome, run, supported};
use planish_testsuite::plant::{Bug, plant};
use planish_testsuite::rng::Rng;
use planish_testsuite::smith::sketches;
use std::cell::Cell;

/// The kernel interpreter on kernels with a bug.
struct Mutant {
    bug: Bug,
    seed: u64,
    /// Whether the bug fitted into a kernel of the last graph.
    planted: Cell<bool>,
}

impl Engine for Mutant {
    fn name(&self) -> &'static str {
        "mutant"
    }
    fn prepare(&self, graph: &Graph, options: &PrepareOptions) -> Result<Box<dyn Program>, Vec<Diag>> {
        let engine = KernelInterpreter::default();
        let options_of = LowerOptions { targets: vec![engine.target.clone()], ..LowerOptions::default() };
        let mut module: Module = lower(graph, &options_of)?;
        let mut rng = Rng::new(self.seed);
        let mut planted = false;
        for kernel in &mut module.variants[0].kernels.kernels {
            planted |= plant(kernel, self.bug, &mut rng);
        }
        assert_eq!(verify_module(&module.variants[0].kernels), [], "{:?} makes an invalid kernel", self.bug);
        self.planted.set(planted);
        ModuleProgram::interpreted(graph, module, options)
            .map(|program| Box::new(program) as Box<dyn Program>)
            .map_err(|diag| vec![diag])
    }
}

#[test]
fn random_graphs_catch_nine_of_ten_kinds() {
    let usable = supported(&KernelInterpreter::default());
    let (mut caught, mut missed) = (Vec::new(), Vec::new());
    for bug in Bug::ALL {
        let mut planted = 0;
        let hit = sketches().find(|sketch| {
            let mut sketch = sketch.clone();
            sketch.steps.retain(|(recipe, _)| usable[*recipe]);
            let mutant = Mutant { bug: *bug, seed: sketch.seed, planted: Cell::new(false) };
            let outcome = run(&sketch, &mutant);
            planted += usize::from(mutant.planted.get());
            mutant.planted.get() && matches!(outcome, Outcome::Differs(_))
        });
        match hit {
            Some(_) => caught.push(*bug),
            None => missed.push((*bug, planted)),
        }
    }
    let fits = Bug::ALL.len() - missed.iter().filter(|(_, planted)| *planted == 0).count();
    let text =
        format!("{} of {fits} kinds caught; missed (kind, graphs that had it): {missed:?}", caught.len());
    println!("{text}");
    assert!(fits >= 12, "{text}");
    assert!(caught.len() * 10 >= fits * 9, "{text}");
}
