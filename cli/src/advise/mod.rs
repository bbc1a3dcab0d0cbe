//! What methods would give: each is built for this machine, measured beside the dense program in turns, and judged on samples.

pub mod evidence;

use crate::bench::stats::{self, Ratio};
use crate::calibrate::Calibrator;
use crate::data::Data;
use crate::engine::{self, cache::Cache};
use crate::failure::{Failure, Result};
use crate::load::Model;
use crate::pipeline::{PassArgs, Phase, Plan};
use planish_ir::{Graph, Op, Session, Tensor, Value};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// Something that may make a model faster at the price of other results.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Method {
    /// A short name.
    pub name: &'static str,
    /// Passes, as `--pass` takes them.
    pub passes: &'static [&'static str],
    /// Whether ranges of values have to be known before it.
    pub calibrated: bool,
    /// How little of the work in products of constant weights is left, at best.
    pub left: f64,
}

/// The methods, what is most likely to be worth its price first.
pub const METHODS: &[Method] = &[
    Method {
        name: "int8 dynamic",
        passes: &["quantize:mode=dynamic,first=true"],
        calibrated: false,
        left: 0.25,
    },
    Method {
        name: "int8 static",
        passes: &["quantize:mode=static,first=true"],
        calibrated: true,
        left: 0.25,
    },
    Method {
        name: "1x16 blocks, 90% zero",
        passes: &["sparsify-blocks:block=1x16,sparsity=0.9,first=true"],
        calibrated: false,
        left: 0.1,
    },
    Method {
        name: "1x16 blocks, 80% zero",
        passes: &["sparsify-blocks:block=1x16,sparsity=0.8,first=true"],
        calibrated: false,
        left: 0.2,
    },
    Method {
        name: "1x16 blocks, 50% zero",
        passes: &["sparsify-blocks:block=1x16,sparsity=0.5,first=true"],
        calibrated: false,
        left: 0.5,
    },
    Method {
        name: "4x16 blocks, 90% zero, int8",
        passes: &["sparsify-blocks:block=4x16,sparsity=0.9,first=true", "quantize:mode=dynamic,first=true"],
        calibrated: false,
        left: 0.025,
    },
    Method {
        name: "scattered zeros, 90%",
        passes: &["prune-magnitude:sparsity=0.9,first=true"],
        calibrated: false,
        left: 0.1,
    },
    Method {
        name: "inputs near zero, half",
        passes: &["insert-gates:kind=activation,quantile=0.5,first=true"],
        calibrated: true,
        left: 0.5,
    },
];

impl Method {
    /// The passes, with samples that are made up where there are none and some are needed.
    fn specs(&self, data: bool) -> Vec<String> {
        let made_up = |p: &&str| match self.calibrated && !data {
            true => format!("{p},samples=synthetic"),
            false => (*p).to_owned(),
        };
        self.passes.iter().map(made_up).collect()
    }
    /// The command that applies it.
    pub fn command(&self, model: &str, data: Option<&str>) -> String {
        let quoted =
            |text: &str| match text.chars().all(|c| c.is_ascii_alphanumeric() || "-_./:=,".contains(c)) {
                true => text.to_owned(),
                false => format!("'{}'", text.replace('\'', "'\\''")),
            };
        let mut out = format!("planish compile {} -o OUT", quoted(model));
        match (data, self.calibrated) {
            (Some(path), _) => out += &format!(" --data {}", quoted(path)),
            (None, true) => out += " --data SAMPLES",
            (None, false) => {}
        }
        for p in self.passes {
            out += &format!(" --pass {p}");
        }
        out
    }
}

/// A model as one method makes it, ready to run.
pub struct Candidate {
    session: Box<dyn Session>,
    /// What is lowered.
    pub graph: Graph,
    /// How many layers each kind of kernel that skips zeros or multiplies bytes was chosen for, of how many that could have it.
    pub changed: usize,
}

/// Builds the model with these passes for this machine.
fn candidate(model: &Model, passes: Vec<String>, data: Option<&Data>, threads: usize) -> Result<Candidate> {
    let target = engine::host()?;
    let args = PassArgs { pass: passes, ..PassArgs::default() };
    let mut plan = Plan::new(&args, Phase::Fused)?;
    plan.calibrate_on(Calibrator::new(data.cloned()));
    plan.aim(&[target.lanes_f32], None);
    let mut graph = model.graph.clone();
    let mut report = plan.compress(&mut graph, &mut |_| {})?;
    plan.fuse(&mut graph, &mut |_| {}, &mut report)?;
    let metric = |name: &str| report.ran.iter().filter_map(|r| r.metrics.get(name)).sum::<f64>() as usize;
    let changed = metric("tensors-in-blocks") + metric("weights-quantized") + metric("layers-gated");
    let session =
        engine::prepare_for(&target, &graph, threads, Cache::from_option(None).as_ref())?.session()?;
    Ok(Candidate { session, graph, changed })
}

impl Candidate {
    /// The outputs for inputs that are all given.
    pub fn run(&mut self, inputs: &[Option<Value>]) -> Result<Vec<Value>> {
        Ok(self.session.run(inputs)?.values)
    }
    /// The median time of a run in seconds, of runs for about `slice`.
    fn turn(&mut self, inputs: &[Option<Value>], slice: Duration) -> Result<f64> {
        let (begun, mut times) = (Instant::now(), Vec::new());
        while times.is_empty() || begun.elapsed() < slice {
            let started = Instant::now();
            self.session.run(inputs)?;
            times.push(started.elapsed().as_secs_f64());
        }
        Ok(stats::median(&times))
    }
}

/// A method with what was found of it.
pub struct Found {
    /// The method.
    pub method: Method,
    /// Its program, where it could be built in time.
    pub candidate: Option<Candidate>,
    /// Why there is none.
    pub why: Option<String>,
    /// Milliseconds, and how many times as fast as the dense program.
    pub speed: Option<(f64, Ratio)>,
    /// What is known of its results.
    pub evidence: evidence::Evidence,
}

/// What was found of a model.
pub struct Advice {
    /// Milliseconds of the dense program.
    pub dense_ms: f64,
    /// The part of that time in products of constant weights, which the methods change; none if it could not be measured.
    pub share: Option<f64>,
    /// All methods.
    pub found: Vec<Found>,
}

/// A method must be so much faster to be worth its price.
pub const LEAST_GAIN: f64 = 1.1;
/// The most turns of each program.
const TURNS: usize = 40;
/// The fewest: an interval of fewer medians says nothing.
const LEAST_TURNS: usize = 7;
/// The part of the budget that programs may take to be built.
const BUILDING: f64 = 0.6;

/// Builds and measures, in about `budget`. `labels` has one for each of the inputs, or none. `step` is called after each part of the work, [`parts`] in all.
pub fn advise(
    model: &Model,
    data: Option<&Data>,
    (inputs, labels): (&[Vec<Option<Value>>], &[Tensor]),
    threads: usize,
    budget: Duration,
    step: &mut dyn FnMut(),
) -> Result<Advice> {
    let started = Instant::now();
    let mut dense = candidate(model, Vec::new(), None, threads)?;
    step();
    let share = share(&dense.graph, inputs, threads)?;
    step();
    let mut found: Vec<Found> = Vec::new();
    let mut slowest = Duration::ZERO;
    for method in METHODS {
        let begun = Instant::now();
        let mut f = Found {
            method: *method,
            candidate: None,
            why: None,
            speed: None,
            evidence: evidence::Evidence::none(),
        };
        if (started.elapsed() + slowest).as_secs_f64() > BUILDING * budget.as_secs_f64() {
            f.why = Some("not measured: the budget was spent; give a larger --budget".into());
        } else {
            match candidate(model, method.specs(data.is_some()), data, threads) {
                Ok(c) if c.changed == 0 => {
                    f.why = Some("it changes no layer of this model for the better".into())
                }
                Ok(c) => f.candidate = Some(c),
                Err(failure) => f.why = Some(failure.message()),
            }
        }
        slowest = slowest.max(begun.elapsed());
        found.push(f);
        step();
    }
    // Results are judged before times are taken: that warms everything up as well.
    let last = started + budget.mul_f64(BUILDING + (1.0 - BUILDING) / 4.0);
    evidence::judge(&mut dense, &mut found, (inputs, labels), data.is_none(), last)?;
    step();
    let first = inputs.first().ok_or_else(|| Failure::new("input-missing", "there are no samples"))?;
    let mut base = Vec::new();
    let mut times: Vec<Vec<f64>> = vec![Vec::new(); found.len()];
    let programs = 1 + found.iter().filter(|f| f.candidate.is_some()).count();
    let left = budget.saturating_sub(started.elapsed()).max(Duration::from_millis(50) * programs as u32);
    let slice =
        (left / (LEAST_TURNS * 2 * programs) as u32).clamp(Duration::from_millis(2), Duration::from_secs(1));
    let begun = Instant::now();
    while base.len() < LEAST_TURNS || (base.len() < TURNS && begun.elapsed() < left) {
        base.push(dense.turn(first, slice)?);
        for (f, times) in found.iter_mut().zip(&mut times) {
            if let Some(c) = &mut f.candidate {
                times.push(c.turn(first, slice)?);
            }
        }
        if base.len() >= 3 && begun.elapsed() > left * 2 {
            break;
        }
    }
    for (f, times) in found.iter_mut().zip(&times) {
        if f.candidate.is_some() {
            f.speed = Some((stats::median(times) * 1e3, stats::paired(&logs(&base, times))));
        }
    }
    step();
    Ok(Advice { dense_ms: stats::median(&base) * 1e3, share, found })
}

/// Logarithms of the ratios of paired times.
fn logs(base: &[f64], other: &[f64]) -> Vec<f64> {
    base.iter().zip(other).map(|(b, o)| (b / o).ln()).collect()
}

/// How often [`advise`] calls `step`.
pub fn parts() -> u64 {
    METHODS.len() as u64 + 4
}

impl Advice {
    /// The methods that are faster for certain, the fastest first.
    pub fn gaining(&self) -> Vec<&Found> {
        let mut out: Vec<&Found> =
            self.found.iter().filter(|f| f.speed.is_some_and(|(_, r)| r.low >= LEAST_GAIN)).collect();
        let ratio = |f: &Found| f.speed.map_or(0.0, |(_, r)| r.ratio);
        out.sort_by(|a: &&Found, b: &&Found| ratio(b).total_cmp(&ratio(a)));
        out
    }
    /// The most that a method can give which leaves a part `left` of the work in products: Amdahl's law.
    pub fn bound(&self, left: f64) -> Option<f64> {
        self.share.map(|s| 1.0 / (1.0 - s + s * left))
    }
    /// Why nothing helps.
    pub fn why_not(&self) -> String {
        if self.found.iter().all(|f| f.candidate.is_none()) {
            return match self.share {
                Some(s) if s < 0.05 => "no layer of it is a product or a convolution with constant weights that the methods change".into(),
                _ => "no method could be applied; the table says why".into(),
            };
        }
        match self.share {
            Some(s) if self.bound(0.1).is_some_and(|b| b < 2.0) => format!(
                "only {:.0}% of its time is in products and convolutions that these methods change, so that with nine of ten weights gone it could be {:.2} times as fast at most; the rest moves data or is computed channel by channel",
                100.0 * s,
                self.bound(0.1).unwrap_or(1.0)
            ),
            _ if self.dense_ms < 0.05 => {
                format!("one run takes {:.1} us, most of which is not arithmetic", 1e3 * self.dense_ms)
            }
            _ => "the kernels for its sizes are as fast dense".into(),
        }
    }
}

/// The names of the nodes that multiply by constant weights of a single matrix, as kernels call them.
fn changeable(g: &Graph) -> BTreeSet<String> {
    let weighted = |n| match &g.node(n).op {
        Op::Conv(op) => op.groups == 1,
        Op::MatMul(_) | Op::MatMulInteger(_) => true,
        _ => false,
    };
    let constant = |v: planish_ir::ValueId| g.as_const(v).is_some();
    let mut out = BTreeSet::new();
    for n in g.all_nodes() {
        let node = g.node(n);
        let operand = |i: usize| node.inputs.get(i).copied().flatten();
        let changes = match &node.op {
            Op::Fused(_) => node.regions.first().is_some_and(|r| {
                // Operands from outside are parameters, in the order of the operands of the group.
                let outer = |v| match g.value(v).def {
                    planish_ir::graph::Def::Param(_, k) => operand(k as usize),
                    planish_ir::graph::Def::Node(..) => Some(v),
                };
                g.nodes_in(*r).any(|inner| {
                    let weights = g.node(inner).inputs.get(1).copied().flatten().and_then(outer);
                    weighted(inner) && weights.is_some_and(constant)
                })
            }),
            _ => weighted(n) && operand(1).is_some_and(constant),
        };
        if changes {
            out.insert(g.describe(n));
        }
    }
    out
}

/// The part of the time of the dense program that is in nodes that multiply by constant weights, from its own profile.
fn share(fused: &Graph, inputs: &[Vec<Option<Value>>], threads: usize) -> Result<Option<f64>> {
    let names = changeable(fused);
    let work = tempfile::Builder::new().prefix("planish-advise-").tempdir();
    let work = work.map_err(|e| Failure::file(&std::env::temp_dir(), e))?;
    let values: Option<Vec<&Value>> = inputs.first().map(|s| s.iter().flatten().collect());
    let Some(values) = values else { return Ok(None) };
    let Some(profile) = evidence::profile(fused, &values, threads, work.path())? else { return Ok(None) };
    let (mut all, mut of) = (0.0, 0.0);
    for k in profile.get("kernels").and_then(|k| k.as_array()).into_iter().flatten() {
        let time = k["us"].as_f64().unwrap_or(0.0) * k["calls"].as_f64().unwrap_or(0.0);
        all += time;
        let nodes = k["nodes"].as_array().into_iter().flatten();
        if nodes.filter_map(|n| n.as_str()).any(|n| names.contains(n)) {
            of += time;
        }
    }
    all += 1e3 * profile.get("unaccounted_ms").and_then(|x| x.as_f64()).unwrap_or(0.0);
    Ok((all > 0.0).then_some(of / all))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::stats::Ratio;

    fn found(ratio: f64) -> Found {
        Found {
            method: METHODS[0],
            candidate: None,
            why: None,
            speed: Some((1.0, Ratio { ratio, low: ratio * 0.95, high: ratio * 1.05, detectable: 0.05 })),
            evidence: evidence::Evidence::none(),
        }
    }

    #[test]
    fn the_fastest_certain_method_comes_first() {
        let a = Advice { dense_ms: 1.0, share: Some(0.9), found: vec![found(2.0), found(1.1), found(3.0)] };
        let gains: Vec<f64> = a.gaining().iter().filter_map(|f| f.speed.map(|s| s.1.ratio)).collect();
        assert_eq!(gains, [3.0, 2.0]);
        assert!(a.bound(0.1).is_some_and(|b| (b - 1.0 / 0.19).abs() < 1e-9));
        let none = Advice { dense_ms: 1.0, share: Some(0.2), found: vec![found(1.05)] };
        assert!(none.gaining().is_empty());
    }

    #[test]
    fn commands_can_be_copied() {
        let m = METHODS[1];
        assert_eq!(
            m.command("my model.onnx", None),
            "planish compile 'my model.onnx' -o OUT --data SAMPLES --pass quantize:mode=static,first=true"
        );
        assert!(METHODS[0].command("m.onnx", Some("d")).contains("m.onnx -o OUT --data d --pass quantize"));
        // Every pass that is named exists and takes its options.
        for m in METHODS {
            for p in m.specs(false) {
                let specs = planish_passes::parse_specs(&p).expect("a list of passes");
                assert!(specs[0].make().is_ok(), "{p}");
            }
        }
    }
}
