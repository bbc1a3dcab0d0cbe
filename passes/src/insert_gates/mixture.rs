//! Mixtures of experts that are trained together with their router.

use super::linear::Mix;
use super::moe::find::{FeedForward, find};
use crate::experts::{PRODUCT, SUM, as_rows, floats, from_rows};
use crate::options::OptionMeta;
use crate::training::mixture::{BALANCE, Router, Routing, balance, noisy_top_k};
use crate::weights::Selection;
use crate::{Options, PassCx, util};
use planish_ir::graph::Use;
use planish_ir::op::binary::BinaryKind;
use planish_ir::op::build::Build;
use planish_ir::op::random::unit;
use planish_ir::{DType, Diag, Editor, Loc, NodeId, Tensor, ValueId};

/// The options of `kind=mixture`.
#[derive(Clone, Debug)]
pub(crate) struct Mixture {
    experts: usize,
    active: usize,
    /// Hidden units of an expert; none: those of the pair, divided.
    hidden: Option<usize>,
    copy: bool,
    start: Start,
    importance: f64,
    load: f64,
    seed: u64,
    which: Selection,
}

/// What a router begins with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Start {
    Zero,
    Random,
    Biased,
}

/// What is added to the score of the first expert where the router begins biased.
const BIAS: f64 = 6.0;

impl Mixture {
    pub(super) fn new(o: &Options, m: &[OptionMeta], which: Selection) -> Result<Mixture, Diag> {
        let bad = |text: String| Err(Diag::error("pass-option", text));
        let (experts, active): (usize, usize) = (o.get(m, "experts")?, o.get(m, "active")?);
        if !(2..=4096).contains(&experts) || active == 0 || active > experts {
            return bad(format!(
                "experts is from 2 to 4096 and active from 1 to experts, not {experts} and {active}"
            ));
        }
        let hidden: Option<usize> = o.optional(m, "hidden")?;
        if hidden.is_some_and(|h| !(1..=1 << 20).contains(&h)) {
            return bad("hidden is from 1 to 1048576".into());
        }
        let (importance, load): (f64, f64) = (o.get(m, "importance")?, o.get(m, "load")?);
        if ![importance, load].iter().all(|w| w.is_finite() && *w >= 0.0) {
            return bad(format!("importance and load are not negative, not {importance} and {load}"));
        }
        let copy = o.one_of(m, "start", &[("random", false), ("copy", true)])?;
        let words = [("zero", Start::Zero), ("random", Start::Random), ("biased", Start::Biased)];
        let start = o.one_of(m, "router", &words)?;
        let seed = o.get(m, "seed")?;
        Ok(Mixture { experts, active, hidden, copy, start, importance, load, seed, which })
    }

    pub(super) fn run(&self, ed: &mut Editor<'_>, cx: &mut PassCx) -> Result<(), Diag> {
        let mut mix = Mix::new(self.seed);
        let mut seen = 0;
        for n in ed.graph().nodes_in(ed.graph().root()).collect::<Vec<_>>() {
            if !ed.graph().is_live(n) {
                continue;
            }
            let Some(found) = find(ed.graph(), n) else { continue };
            seen += 1;
            let g = ed.graph();
            let name = g.describe(n);
            let found = match self.which.keeps(&name, g.node(n).op.name(), false) {
                Some(why) => Err(why.to_owned()),
                None => found.and_then(|p| Ok((self.units(&p)?, p))),
            };
            match found {
                Err(why) => cx.remark(g, n, "gate-skipped", format!("{name}: left alone, {why}")),
                Ok((units, p)) => {
                    let [d, h, o] = p.sizes();
                    let row = self.active * units * (d + o) + d * self.experts;
                    let text = format!(
                        "{name}: {} experts of {units} hidden units, {} for a row, which takes {:.1}% of the \
                         multiply-adds of the pair of {h}; they have to be trained",
                        self.experts,
                        self.active,
                        100.0 * row as f64 / p.macs()
                    );
                    cx.remark(g, n, "gate-done", text);
                    cx.add("layers-gated", 1.0);
                    cx.add("row-macs-before", p.macs());
                    cx.add("row-macs-after", row as f64);
                    self.replace(ed, &p, units, &mut mix)?;
                }
            }
        }
        if seen == 0 {
            let text =
                "no pair of matrix products with constant weights and an activation between them was found";
            cx.remark_at(Loc::None, "gate-skipped", text);
        }
        Ok(())
    }

    /// Hidden units of an expert, or why there cannot be experts.
    fn units(&self, p: &FeedForward) -> Result<usize, String> {
        let h = p.sizes()[1];
        match self.hidden {
            Some(units) if self.copy && units > h => {
                Err(format!("{units} hidden units cannot be copied from {h}"))
            }
            Some(units) => Ok(units),
            None if !h.is_multiple_of(self.experts) => {
                Err(format!("{h} hidden units cannot be divided among {} experts", self.experts))
            }
            None => Ok(h / self.experts),
        }
    }

    /// Puts the experts in the place of a pair: all of them on every row, times their weights.
    fn replace(&self, ed: &mut Editor<'_>, p: &FeedForward, units: usize, mix: &mut Mix) -> Result<(), Diag> {
        let ([d, _, o], experts) = (p.sizes(), self.experts);
        let all = experts * units;
        let name = name(ed, p);
        let start = self.weights(ed, p, units, mix)?;
        ed.before(p.node);
        let rows = as_rows(ed, p.x, d)?;
        let parameter = |ed: &mut Editor<'_>, part: &str, shape: &[usize], v: Vec<f64>| {
            let c = ed.constant(Tensor::floats(DType::F32, shape, v)?)?;
            ed.set_name(c, &format!("{name}.{part}"));
            Ok::<ValueId, Diag>(c)
        };
        let scores = (0..d * experts).map(|_| match self.start {
            Start::Random => (unit(mix.next()) * 2.0 - 1.0) * (6.0 / (d + experts) as f64).sqrt(),
            _ => 0.0,
        });
        let scores = scores.collect();
        let weights = parameter(ed, "router", &[d, experts], scores)?;
        let bias = match self.start {
            Start::Biased => {
                let first = (0..experts).map(|e| if e == 0 { BIAS } else { 0.0 }).collect();
                Some(parameter(ed, "router.bias", &[experts], first)?)
            }
            _ => None,
        };
        let noise = Some(parameter(ed, "router.noise", &[d, experts], vec![0.0; d * experts])?);
        let up = parameter(ed, "experts.up", &[d, all], start.up)?;
        let up_bias = parameter(ed, "experts.up.bias", &[all], start.bias)?;
        let down = parameter(ed, "experts.down", &[all, o], start.down)?;
        let down_bias = parameter(ed, "experts.down.bias", &[experts, o], vec![0.0; experts * o])?;
        let mut b = Build::new(ed, "mixture");
        let routing = noisy_top_k(&mut b, rows, &Router { weights, bias, noise }, self.active)?;
        let hidden = b.ed.node1(PRODUCT, &[rows, up])?;
        let hidden = b.ed.node1(SUM, &[hidden, up_bias])?;
        let hidden = b.unary(p.function, hidden)?;
        let hidden = b.reshape(hidden, &[-1, experts as i64, units as i64])?;
        let gates = b.unsqueeze(routing.gates, &[2])?;
        let hidden = b.mul(hidden, gates)?;
        let hidden = b.reshape(hidden, &[-1, all as i64])?;
        let y = b.ed.node1(PRODUCT, &[hidden, down])?;
        let shift = b.ed.node1(PRODUCT, &[routing.gates, down_bias])?;
        let y = b.ed.node1(SUM, &[y, shift])?;
        let y = from_rows(ed, y, p.x, o)?;
        if ed.graph().ty(y) != ed.graph().ty(p.y) {
            return Err(Diag::error("type-mismatch", "a mixture has another type than what it replaces"));
        }
        ed.replace(p.y, y);
        self.balance(ed, routing)?;
        util::remove(ed, p.y)?;
        util::remove(ed, routing.load)
    }

    /// What the experts begin with.
    fn weights(
        &self,
        ed: &Editor<'_>,
        p: &FeedForward,
        units: usize,
        mix: &mut Mix,
    ) -> Result<Weights, Diag> {
        let ([d, h, o], all) = (p.sizes(), self.experts * units);
        if !self.copy {
            let mut draws = |count: usize, bound: f64| -> Vec<f64> {
                (0..count).map(|_| (unit(mix.next()) * 2.0 - 1.0) * bound).collect()
            };
            // Of each expert as if it were alone (He et al. 2015; Glorot and Bengio 2010): the weights of experts have the sum 1.
            let up = draws(d * all, (6.0 / d as f64).sqrt());
            let down = draws(all * o, (6.0 / (units + o) as f64).sqrt());
            return Ok(Weights { up, bias: vec![0.0; all], down });
        }
        let (up, down) = (p.up.values(ed.graph())?, p.down.values(ed.graph())?);
        let bias = match p.bias {
            Some(id) => floats(&ed.graph().constant(id).decode()?),
            None => vec![0.0; h],
        };
        // A row that goes to each expert as often as to any other gets what the pair gives, on average.
        let scale = h as f64 / units as f64;
        Ok(Weights {
            up: (0..d * all).map(|at| f64::from(up[at / all * h + at % all % h])).collect(),
            bias: (0..all).map(|j| f64::from(bias[j % h])).collect(),
            down: (0..all * o).map(|at| scale * f64::from(down[at / o % h * o + at % o])).collect(),
        })
    }

    /// Adds what keeps experts equally busy to the output of that name, or makes it.
    fn balance(&self, ed: &mut Editor<'_>, routing: Routing) -> Result<(), Diag> {
        if self.importance == 0.0 && self.load == 0.0 {
            return Ok(());
        }
        let place = ed.place();
        ed.at_end(ed.graph().root());
        let mut b = Build::new(ed, "balance");
        let own = balance(&mut b, routing, self.importance, self.load)?;
        let g = ed.graph();
        match (0..g.outputs().len()).find(|i| g.output_name(*i) == BALANCE) {
            Some(i) => {
                let (root, before) = (g.root(), g.outputs()[i]);
                let sum = Build::new(ed, "balance").binary(BinaryKind::Add, before, own)?;
                ed.set_use(Use::Result(root, i as u32), sum);
            }
            None => ed.output(own, Some(BALANCE)),
        }
        ed.go(place);
        Ok(())
    }
}

/// Weights of all experts, one behind the other along the hidden units.
struct Weights {
    up: Vec<f64>,
    bias: Vec<f64>,
    down: Vec<f64>,
}

/// What names of parameters begin with: that of the weights of the first product.
fn name(ed: &Editor<'_>, p: &FeedForward) -> String {
    let g = ed.graph();
    let of = |n: NodeId| util::operand(g, n, 1).and_then(|w| g.value(w).name.as_deref().map(str::to_owned));
    of(p.first).unwrap_or_else(|| g.describe(p.first))
}
