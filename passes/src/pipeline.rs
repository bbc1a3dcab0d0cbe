//! Running passes one after another.

use crate::calibrate::Calibrate;
use crate::pass::{PassCx, PassKind, TargetFacts};
use crate::registry::PassSpec;
use planish_ir::{Diag, Editor, Graph, verify};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// An optimisation level.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Level {
    /// No passes.
    O0,
    /// Canonical form.
    O1,
    /// Exact passes and fusion.
    O2,
    /// As `O2`, with more code.
    O3,
}

/// What a pass did.
#[derive(Clone, Debug)]
pub struct Ran {
    /// The pass as written.
    pub spec: String,
    /// How often it changed something.
    pub edits: u64,
    /// Time it took.
    pub time: Duration,
    /// Nodes before and after, constants not counted.
    pub nodes: (usize, usize),
    /// Metrics.
    pub metrics: BTreeMap<String, f64>,
}

/// What a pipeline did.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Pass by pass, repetitions included.
    pub ran: Vec<Ran>,
    /// Remarks and warnings of all passes.
    pub remarks: Vec<Diag>,
    /// The lossy passes that ran.
    pub lossy: Vec<String>,
}

/// A list of passes; groups may repeat until nothing changes.
#[derive(Clone, Debug, Default)]
pub struct Pipeline {
    groups: Vec<Group>,
    /// Whether the verifier runs after each pass.
    pub verify_each: bool,
    /// What runs the graph on samples for passes that ask for it.
    pub calibrate: Option<Rc<dyn Calibrate>>,
}

#[derive(Clone, Debug)]
struct Group {
    specs: Vec<PassSpec>,
    repeat: bool,
}

/// A group stops repeating after this many rounds.
const MAX_ROUNDS: usize = 12;

/// The passes that bring a graph into canonical form, repeated until nothing changes.
pub const CANONICAL: &[&str] = &[
    "fold-constants",
    "simplify-shapes",
    "sink-transposes",
    "simplify-algebra",
    "merge-duplicates",
    "eliminate-dead",
];

impl Pipeline {
    /// The passes of a level before user passes: canonical form and exact rewrites.
    pub fn canonical(level: Level) -> Pipeline {
        let mut p = Pipeline::default();
        if level >= Level::O1 {
            p.repeat(CANONICAL);
        }
        if level >= Level::O2 {
            p.once("recognize");
            p.once("fold-batch-norm");
            p.repeat(CANONICAL);
        }
        p
    }
    /// The passes of a level after user passes: fusion.
    pub fn fused(level: Level) -> Pipeline {
        let mut p = Pipeline::default();
        if level >= Level::O2 {
            p.repeat(CANONICAL);
            p.once("route-experts");
            p.once("fuse-quantised");
            p.once("expand-composites");
            p.once("detect-sparsity");
            p.once("fuse-epilogues");
            p.once("eliminate-dead");
        }
        p
    }
    /// A pass once.
    pub fn once(&mut self, name: &str) {
        self.groups.push(Group { specs: vec![PassSpec::plain(name)], repeat: false });
    }
    /// Passes in order, each once.
    pub fn specs(&mut self, specs: &[PassSpec]) {
        for s in specs {
            self.groups.push(Group { specs: vec![s.clone()], repeat: false });
        }
    }
    /// Passes again and again until none changes anything.
    pub fn repeat(&mut self, names: &[&str]) {
        self.repeat_specs(names.iter().map(|n| PassSpec::plain(n)).collect());
    }
    /// [`Pipeline::repeat`] of passes with options.
    pub fn repeat_specs(&mut self, specs: Vec<PassSpec>) {
        self.groups.push(Group { specs, repeat: true });
    }
    /// The passes in order.
    pub fn list(&self) -> Vec<PassSpec> {
        self.groups.iter().flat_map(|g| g.specs.iter().cloned()).collect()
    }
    /// Runs everything. `after` sees the graph after each pass that ran.
    pub fn run(
        &self,
        graph: &mut Graph,
        facts: &TargetFacts,
        after: &mut dyn FnMut(&PassSpec, &Graph),
    ) -> Result<Report, Diag> {
        let mut report = Report::default();
        for group in &self.groups {
            for round in 0..MAX_ROUNDS {
                let mut edits = 0;
                for spec in &group.specs {
                    edits += self.one(graph, spec, facts, &mut report)?;
                    after(spec, graph);
                }
                if !group.repeat || edits == 0 {
                    break;
                }
                if round + 1 == MAX_ROUNDS {
                    let last: Vec<String> = group
                        .specs
                        .iter()
                        .zip(report.ran.iter().rev().take(group.specs.len()).rev())
                        .filter(|(_, r)| r.edits > 0)
                        .map(|(s, _)| s.name.clone())
                        .collect();
                    let text = format!(
                        "passes still changed the graph after {MAX_ROUNDS} rounds: {}",
                        last.join(", ")
                    );
                    report.remarks.push(Diag::warning("pass-divergence", text));
                }
            }
        }
        Ok(report)
    }
    fn one(
        &self,
        graph: &mut Graph,
        spec: &PassSpec,
        facts: &TargetFacts,
        report: &mut Report,
    ) -> Result<u64, Diag> {
        let pass = spec.make()?;
        let mut cx = PassCx { facts: facts.clone(), calibrate: self.calibrate.clone(), ..PassCx::default() };
        let before = graph.node_count();
        let start = Instant::now();
        let mut ed = Editor::new(graph);
        pass.run(&mut ed, &mut cx)?;
        let edits = ed.edits();
        let time = start.elapsed();
        if self.verify_each
            && let Some(d) = verify::verify(graph).into_iter().next()
        {
            return Err(d.note(format!("found by the verifier after `{spec}`: a bug of the pass")));
        }
        if pass.meta().kind == PassKind::Lossy {
            report.lossy.push(spec.to_string());
        }
        let nodes = (before, graph.node_count());
        // Rounds repeat remarks; each is kept once.
        for r in cx.remarks {
            if !report.remarks.contains(&r) {
                report.remarks.push(r);
            }
        }
        report.ran.push(Ran { spec: spec.to_string(), edits, time, nodes, metrics: cx.metrics });
        Ok(edits)
    }
}
