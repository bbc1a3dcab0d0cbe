//! The graphs of a model that is compiled: one, or one for each combination of the values that `--set` gives symbols.

use crate::data::Data;
use crate::engine::codegen::{self, BuildOptions};
use crate::equivalence::{Case, Verdict};
use crate::failure::{Failure, Result};
use crate::load::{self, LoadOptions, Model};
use crate::pipeline::Plan;
use crate::preprocess::Preprocess;
use crate::ui::Ui;
use planish_codegen::lower::{self, Module, lower_bodies};
use planish_ir::{Graph, SymId};
use planish_passes::Report;
use std::path::Path;
use std::time::Duration;

/// The most bodies of one artifact.
pub const MOST: usize = 16;

/// A model and the graphs that are compiled for it.
#[derive(Debug)]
pub struct Bodies {
    /// The model with the symbols free that have several values.
    pub model: Model,
    symbols: Vec<SymId>,
    bodies: Vec<Body>,
    /// The graph of the first body after the passes asked for, if it is to be kept.
    compressed: Option<Graph>,
}

#[derive(Debug)]
struct Body {
    /// The settings (`batch=1`), empty where there is one body.
    label: String,
    values: Vec<i64>,
    /// As imported; that of the model where there is one body.
    original: Option<Graph>,
    /// Ready for lowering, after [`Bodies::optimise`].
    fused: Option<Graph>,
}

impl Bodies {
    /// Imports a model once for each combination of values.
    pub fn load(path: &Path, mut options: LoadOptions) -> Result<Bodies> {
        options.shapes = options.shapes.ordered();
        let shapes = options.shapes.clone();
        if shapes.count() > MOST {
            let text = format!(
                "--set asks for {} combinations of values, each compiled by itself; {MOST} are the most",
                shapes.count()
            );
            return Err(Failure::usage(text));
        }
        let names = shapes.several();
        let file = load::open(path, &options)?;
        if names.is_empty() {
            let model = file.import(&options)?;
            let body = Body { label: String::new(), values: Vec::new(), original: None, fused: None };
            return Ok(Bodies { model, symbols: Vec::new(), bodies: vec![body], compressed: None });
        }
        options.shapes = shapes.clone().freed();
        let model = file.import(&options)?;
        let mut symbols = Vec::new();
        for name in &names {
            symbols.extend(load::symbols(&model.graph, name)?);
        }
        let mut bodies = Vec::new();
        for (label, set) in shapes.variants() {
            let value = |name: &&str| match set.set.get(*name) {
                Some(crate::shapes::Setting::One(v)) => Some(*v),
                _ => None,
            };
            let values: Vec<i64> = names.iter().filter_map(value).collect();
            options.shapes = set.clone();
            let model = file.import(&options).map_err(|f| f.about(&label))?;
            bodies.push(Body { label, values, original: Some(model.graph), fused: None });
        }
        if bodies.iter().any(|b| b.values.len() != symbols.len()) {
            return Err(Failure::new("internal-shapes", "a symbol that is set stands for several"));
        }
        Ok(Bodies { model, symbols, bodies, compressed: None })
    }

    /// Whether there are several, or one that is for certain values only.
    pub fn several(&self) -> bool {
        !self.symbols.is_empty()
    }

    /// Refuses tensors that no machine can hold.
    pub fn too_large(&self, limit: u64) -> Result<()> {
        for b in &self.bodies {
            let found = crate::cost::too_large(b.original(&self.model), limit);
            if !found.is_empty() {
                return Err(b.about(found.into()));
            }
        }
        Ok(())
    }

    /// Makes the preprocessing of pictures part of each graph, if the table says so.
    pub fn embed(&mut self, preprocess: &Preprocess) -> Result<()> {
        preprocess.embed(&mut self.model.graph)?;
        self.bodies.iter_mut().filter_map(|b| b.original.as_mut()).try_for_each(|g| preprocess.embed(g))
    }

    /// Adds the outputs that passes of the plan add.
    pub fn extend(&mut self, plan: &Plan) -> Result<()> {
        plan.extend(&mut self.model.graph)?;
        self.bodies.iter_mut().filter_map(|b| b.original.as_mut()).try_for_each(|g| plan.extend(g))
    }

    /// Gives the model a name.
    pub fn rename(&mut self, name: &str) {
        self.model.graph.name = name.to_owned();
        for b in &mut self.bodies {
            if let Some(graph) = &mut b.original {
                graph.name = name.to_owned();
            }
        }
    }

    /// Runs the passes on each body; what several report alike is reported once. `keep`: [`Bodies::compressed`] is
    /// asked for later.
    pub fn optimise(&mut self, plan: &Plan, keep: bool, ui: &Ui) -> Result<Report> {
        let mut all = Report::default();
        for b in &mut self.bodies {
            let mut graph = b.original(&self.model).clone();
            let label = &b.label;
            let mut print = |text: String| match label.is_empty() {
                true => ui.out(text),
                false => ui.out(format!("; {label}\n{text}")),
            };
            let mut report = plan.compress(&mut graph, &mut print)?;
            if keep && self.compressed.is_none() {
                self.compressed = Some(graph.clone());
            }
            plan.fuse(&mut graph, &mut print, &mut report)?;
            b.fused = Some(graph);
            all.ran.extend(report.ran);
            for d in report.remarks {
                if !all.remarks.contains(&d) {
                    all.remarks.push(d);
                }
            }
            for l in report.lossy {
                if !all.lossy.contains(&l) {
                    all.lossy.push(l);
                }
            }
        }
        Ok(all)
    }

    /// The graph after the passes asked for, of the first body, if [`Bodies::optimise`] was to keep it.
    pub fn compressed(&self) -> Option<&Graph> {
        self.compressed.as_ref()
    }

    /// The graph that is lowered; of the first body.
    pub fn fused(&self) -> &Graph {
        self.bodies.first().map_or(&self.model.graph, |b| b.fused(&self.model))
    }

    /// Lowers all bodies into one module.
    pub fn lowered(&self, options: &BuildOptions) -> Result<Module> {
        if self.symbols.is_empty() {
            return codegen::lowered(self.fused(), options);
        }
        let bodies: Vec<lower::Body<'_>> = self
            .bodies
            .iter()
            .map(|b| lower::Body { values: b.values.clone(), graph: b.fused(&self.model) })
            .collect();
        Ok(lower_bodies(&self.model.graph, &self.symbols, &bodies, &options.lower())?)
    }

    /// Refuses samples of sizes that no body is for.
    pub fn accept(&self, data: &Data) -> Result<()> {
        data.check(&mut |sample| {
            if self.bodies.iter().any(|b| data.fits(b.original(&self.model), sample).is_ok()) {
                return Ok(());
            }
            let labels: Vec<&str> = self.bodies.iter().map(|b| b.label.as_str()).collect();
            let text = format!("the sizes are none of those given: {}", labels.join("; "));
            Err(Failure::new("input-mismatch", text))
        })
    }

    /// Checks each body by `one`, which gets the graph as imported, the samples that fit it, and its share of the time: at
    /// least a second.
    pub fn check(
        &self,
        time: Duration,
        data: Option<&Data>,
        one: &mut dyn FnMut(Case<'_>) -> Verdict,
    ) -> Verdict {
        let limit = (time / self.bodies.len().max(1) as u32).max(Duration::from_secs(1)).min(time);
        let mut all: Option<Verdict> = None;
        for b in &self.bodies {
            let about = |why: String| if b.label.is_empty() { why } else { format!("{}: {why}", b.label) };
            let original = b.original(&self.model);
            let data = data.and_then(|d| d.fitting(original));
            let case = Case { graph: original, data: data.as_ref(), limit };
            all = Some(match (all, one(case)) {
                (_, Verdict::Different(why)) => return Verdict::Different(about(why)),
                (Some(before @ Verdict::NotChecked(_)), _) => before,
                (_, Verdict::NotChecked(why)) => Verdict::NotChecked(about(why)),
                (Some(Verdict::Equal { worst: a, on }), Verdict::Equal { worst: b, on: more }) => {
                    Verdict::Equal { worst: a.max(b), on: on.and(more) }
                }
                (_, now) => now,
            });
        }
        all.unwrap_or_else(|| Verdict::NotChecked("there is no body".into()))
    }
}

impl Body {
    fn original<'a>(&'a self, model: &'a Model) -> &'a Graph {
        self.original.as_ref().unwrap_or(&model.graph)
    }

    fn fused<'a>(&'a self, model: &'a Model) -> &'a Graph {
        self.fused.as_ref().unwrap_or_else(|| self.original(model))
    }

    fn about(&self, f: Failure) -> Failure {
        if self.label.is_empty() { f } else { f.about(&self.label) }
    }
}
