//! Pruning while a net is trained: masks over blocks of weights that a schedule closes and nothing opens again.

use super::{Step, malformed};
use crate::Options;
use crate::options::OptionMeta;
use crate::sparsify_blocks::{Score, block, lowest, scores};
use crate::weights::{self, Selection};
use planish_ir::{Diag, Graph, Matrix, Op, Tensor};

/// When blocks go.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Ramp {
    /// None goes: the zeros that the weights begin with stay.
    Zeros,
    /// The share `s (1 - (1 - t / n)^3)` of the blocks of each tensor, those of the lowest scores, with `t` running from the start to the end (Zhu and
    /// Gupta, *To prune, or not to prune*, 2017).
    Cubic {
        /// s.
        sparsity: f64,
    },
    /// Blocks of a score below a threshold that rises along two straight lines (Narang et al., *Exploring Sparsity in Recurrent Neural
    /// Networks* and *Block-Sparse Recurrent Neural Networks*, 2017). It ends at a quantile of the magnitudes of trained weights, times the
    /// fourth root of the elements of a block.
    Threshold {
        /// The quantile.
        quantile: f64,
        /// Slope of the second line over that of the first.
        slope: f64,
    },
}

/// What is pruned, how and when.
#[derive(Clone, Debug)]
pub struct Prune {
    block: [u32; 2],
    score: Score,
    ramp: Ramp,
    /// Start, bend and end of the schedule as shares of the steps.
    shares: [f64; 3],
    every: u64,
    cap: f64,
    stored: Option<bool>,
    which: Selection,
}

impl Prune {
    /// The settings.
    pub const OPTIONS: &'static [OptionMeta] = &[
        OptionMeta {
            name: "schedule",
            default: "cubic",
            doc: "`cubic`: to a share of the blocks; `threshold`: below a threshold that rises; `zeros`: only weights that are 0 already",
        },
        OptionMeta { name: "block", default: "1x16", doc: "inputs x outputs of a block" },
        OptionMeta {
            name: "score",
            default: "max",
            doc: "largest magnitude of a block (`max`), the mean (`l1`) or the root of the mean square (`l2`)",
        },
        OptionMeta { name: "sparsity", default: "0.9", doc: "share of the blocks that go, with `cubic`" },
        OptionMeta {
            name: "quantile",
            default: "0.9",
            doc: "of the magnitudes of trained weights, where `threshold` ends",
        },
        OptionMeta {
            name: "slope",
            default: "1.5",
            doc: "slope of the threshold behind `ramp` over that before it",
        },
        OptionMeta { name: "start", default: "0.1", doc: "where pruning begins, as a share of all steps" },
        OptionMeta { name: "ramp", default: "0.2", doc: "where the threshold begins to rise faster" },
        OptionMeta { name: "end", default: "0.4", doc: "where pruning ends; what is left is trained on" },
        OptionMeta { name: "every", default: "100", doc: "steps from one look at the weights to the next" },
        OptionMeta {
            name: "stored",
            default: "auto",
            doc: "whether steps behind the end work on stored blocks only: where that is faster (`auto`), wherever it is possible (`true`) or not (`false`)",
        },
        weights::CAP,
        weights::INCLUDE,
        weights::EXCLUDE,
        weights::OPS,
        OptionMeta { name: "first", default: "true", doc: "whether the first layer is pruned too" },
    ];

    /// Reads the settings.
    pub fn new(o: &Options) -> Result<Prune, Diag> {
        let m = Self::OPTIONS;
        o.check("prune", m)?;
        let bad = |text: &str| Diag::error("pass-option", text);
        let share = |name: &str| -> Result<f64, Diag> {
            let x: f64 = o.get(m, name)?;
            if (0.0..=1.0).contains(&x) { Ok(x) } else { Err(bad(&format!("{name} is a share from 0 to 1"))) }
        };
        let (sparsity, quantile, slope) = (share("sparsity")?, share("quantile")?, o.get::<f64>(m, "slope")?);
        if !(slope > 0.0 && slope.is_finite()) {
            return Err(bad("slope is above 0"));
        }
        let shares = [share("start")?, share("ramp")?, share("end")?];
        if !shares.is_sorted() {
            return Err(bad("start, ramp and end follow each other"));
        }
        let ramps = [
            ("zeros", Ramp::Zeros),
            ("cubic", Ramp::Cubic { sparsity }),
            ("threshold", Ramp::Threshold { quantile, slope }),
        ];
        let ramp = o.one_of(m, "schedule", &ramps)?;
        let score = o.one_of(m, "score", &[("l1", Score::L1), ("l2", Score::L2), ("max", Score::Max)])?;
        if score != Score::Max && matches!(ramp, Ramp::Threshold { .. }) {
            return Err(bad("the schedule `threshold` compares the largest magnitude"));
        }
        let size = block(o.text(m, "block")).ok_or_else(|| bad("block is a size such as 1x16"))?;
        let stored =
            o.one_of(m, "stored", &[("auto", Some(false)), ("false", None), ("true", Some(true))])?;
        let every = o.get::<u64>(m, "every")?.max(1);
        let mut which = Selection::new(o, m)?;
        which.first(o.text(m, "first") != "false");
        Ok(Prune { block: size, score, ramp, shares, every, cap: weights::cap(o, m)?, stored, which })
    }
    /// Whether it needs weights of a trained model to begin with.
    pub fn asks_reference(&self) -> bool {
        matches!(self.ramp, Ramp::Threshold { .. })
    }
}

/// One tensor that is pruned.
#[derive(Clone, Debug)]
struct Pruned {
    name: String,
    /// Places in the variables of the step.
    weights: usize,
    mask: usize,
    matrix: Matrix,
    shape: Vec<usize>,
    block: [u32; 2],
    /// By block.
    gone: Vec<bool>,
    /// Where a threshold ends.
    last: f64,
}

/// Masks over the steps of a training.
#[derive(Clone, Debug)]
pub struct Pruner {
    prune: Prune,
    /// Start, bend and end in steps.
    steps: [u64; 3],
    pruned: Vec<Pruned>,
}

impl Pruner {
    /// For the step of a model that has masks, and so many steps. `reference` gives the weights of a trained model by name, which a threshold is chosen by.
    ///
    /// # Errors
    /// `train-malformed` where nothing is pruned.
    pub fn new(
        prune: &Prune,
        model: &Graph,
        step: &Step,
        total: u64,
        reference: &dyn Fn(&str) -> Option<Tensor>,
    ) -> Result<Pruner, Diag> {
        let steps = prune.shares.map(|s| (s * total as f64).round() as u64);
        let mut pruned = Vec::new();
        let mut first = true;
        for n in model.nodes_in(model.root()) {
            let node = model.node(n);
            let recurrent = matches!(node.op, Op::Recurrent(_));
            let operands = node.op.weight_inputs();
            let Some(operand) = operands.first() else { continue };
            if !recurrent
                && node.inputs.get(*operand).copied().flatten().is_none_or(|v| model.as_const(v).is_none())
            {
                continue;
            }
            let is_first = std::mem::replace(&mut first, false);
            for operand in operands {
                let Some(v) = node.inputs.get(operand).copied().flatten() else { continue };
                let Some(at) = step.variables.iter().position(|x| x.constant == Some(v)) else { continue };
                let mask = format!("{}.mask", step.variables[at].name);
                let Some(mask) = step.variables.iter().position(|x| x.name == mask) else { continue };
                let names = [&model.describe(n)[..], &step.variables[at].name[..]];
                if prune.which.keeps_any(&names, node.op.name(), is_first).is_some() {
                    continue;
                }
                let start = &step.variables[at].start;
                let order = weights::order(model, n);
                let matrix = order.ok().and_then(|o| Matrix::new(start.shape(), o));
                let Some(matrix) = matrix.filter(|_| pruned.iter().all(|p: &Pruned| p.weights != at)) else {
                    continue;
                };
                let name = step.variables[at].name.clone();
                let (block, gone, last) = match prune.ramp {
                    Ramp::Zeros => {
                        let (values, mut gone) = (start.to_f64(), vec![false; start.len()]);
                        matrix.each([1, 1], |at, i| gone[at] = values[i] == 0.0);
                        ([1, 1], gone, 0.0)
                    }
                    Ramp::Cubic { .. } => (prune.block, none(&matrix, prune.block), 0.0),
                    Ramp::Threshold { quantile, .. } => {
                        let trained = reference(&name).filter(|t| t.shape() == start.shape());
                        let trained = trained.ok_or_else(|| {
                            malformed(format!("the trained model has no weights {name:?} of that shape"))
                        })?;
                        let elements = f64::from(prune.block[0]) * f64::from(prune.block[1]);
                        let last = magnitude(&trained, quantile) * elements.sqrt().sqrt();
                        (prune.block, none(&matrix, prune.block), last)
                    }
                };
                pruned.push(Pruned {
                    name,
                    weights: at,
                    mask,
                    matrix,
                    shape: start.shape().to_vec(),
                    block,
                    gone,
                    last,
                });
            }
        }
        if pruned.is_empty() {
            return Err(malformed("no weights are to be pruned"));
        }
        Ok(Pruner { prune: prune.clone(), steps, pruned })
    }

    /// Whether masks may change behind step `t`, counted from 1.
    pub fn looks(&self, t: u64) -> bool {
        let [start, _, end] = self.steps;
        let regular = t >= start && t < end && (t - start).is_multiple_of(self.prune.every);
        match self.prune.ramp {
            Ramp::Zeros => false,
            // The share is met at the end; a threshold is compared before it only.
            Ramp::Cubic { .. } => regular || t == end,
            Ramp::Threshold { .. } => regular,
        }
    }
    /// Whether masks are final behind step `t`.
    pub fn ended(&self, t: u64) -> bool {
        matches!(self.prune.ramp, Ramp::Zeros) || t >= self.steps[2]
    }
    /// Whether steps with final masks work on [stored blocks](super::stored_blocks), and if so, whether wherever it is possible.
    pub fn stores(&self) -> Option<bool> {
        self.prune.stored
    }
    /// The size of blocks that was asked for.
    pub fn block(&self) -> [u32; 2] {
        self.prune.block
    }
    /// The variables of the step that are looked at.
    pub fn weights(&self) -> impl Iterator<Item = usize> + '_ {
        self.pruned.iter().map(|p| p.weights)
    }
    /// Closes masks behind step `t` by the weights, which are in the order of [`Pruner::weights`].
    pub fn look(&mut self, t: u64, weights: &[Tensor]) {
        for (p, w) in self.pruned.iter_mut().zip(weights) {
            let mut scores = scores(self.prune.score, &p.matrix, p.block, &w.to_f64());
            // What is gone stays gone: it comes first in any order.
            scores.iter_mut().zip(&p.gone).for_each(|(s, gone)| {
                if *gone {
                    *s = -1.0
                }
            });
            let limit = self.prune.cap;
            let mut goes = match self.prune.ramp {
                Ramp::Zeros => continue,
                Ramp::Cubic { sparsity } => lowest(&scores, cubic(self.steps, t) * sparsity),
                Ramp::Threshold { slope, .. } => {
                    let least = threshold(self.steps, slope, t) * p.last;
                    scores.iter().map(|s| *s < least).collect()
                }
            };
            let most = (limit * goes.len() as f64).round() as usize;
            if goes.iter().filter(|g| **g).count() > most {
                goes = lowest(&scores, limit);
            }
            p.gone.iter_mut().zip(goes).for_each(|(gone, goes)| *gone |= goes);
        }
    }
    /// The masks, with their places in the variables of the step.
    pub fn masks(&self) -> Result<Vec<(usize, Tensor)>, Diag> {
        let one = |p: &Pruned| {
            let mut mask = vec![1f32; p.shape.iter().product()];
            p.matrix.each(p.block, |at, i| mask[i] = f32::from(u8::from(!p.gone[at])));
            Ok((p.mask, Tensor::f32s(&p.shape, &mask)?))
        };
        self.pruned.iter().map(one).collect()
    }
    /// Takes masks back, as [`Pruner::masks`] gave them. What is given for other places is ignored.
    pub fn resume(&mut self, mask: usize, values: &Tensor) {
        for p in self.pruned.iter_mut().filter(|p| p.mask == mask && p.shape == values.shape()) {
            let values = values.to_f64();
            p.matrix.each(p.block, |at, i| p.gone[at] = values[i] == 0.0);
        }
    }
    /// Name of each tensor and the share of its blocks that are gone.
    pub fn sparsity(&self) -> Vec<(String, f64)> {
        let share = |p: &Pruned| p.gone.iter().filter(|g| **g).count() as f64 / p.gone.len().max(1) as f64;
        self.pruned.iter().map(|p| (p.name.clone(), share(p))).collect()
    }
}

fn none(matrix: &Matrix, block: [u32; 2]) -> Vec<bool> {
    let [down, across] = matrix.grid(block);
    vec![false; down * across]
}

/// A quantile of the magnitudes of a tensor.
fn magnitude(t: &Tensor, quantile: f64) -> f64 {
    let mut all: Vec<f64> = t.to_f64().iter().map(|x| x.abs()).collect();
    all.sort_by(f64::total_cmp);
    all.get((quantile * all.len().saturating_sub(1) as f64).round() as usize).copied().unwrap_or(0.0)
}

/// How much of the way to the last sparsity is gone behind step `t`.
fn cubic([start, _, end]: [u64; 3], t: u64) -> f64 {
    if t >= end {
        return 1.0;
    }
    let done = t.saturating_sub(start) as f64 / (end - start) as f64;
    1.0 - (1.0 - done).powi(3)
}

/// The threshold behind step `t` as a share of the last one: `(t - start + 1)` up to the bend and `slope (t - ramp + 1)` more behind it, over the
/// same at the end.
fn threshold([start, ramp, end]: [u64; 3], slope: f64, t: u64) -> f64 {
    let rise = |t: u64| match t {
        t if t < start => 0.0,
        t if t < ramp => (t - start + 1) as f64,
        t => (ramp - start + 1) as f64 + slope * (t - ramp + 1) as f64,
    };
    let last = rise(end);
    if t >= end { 1.0 } else { rise(t) / last }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::training::{Loss, Optimizer, Recipe, step};
    use planish_ir::text;

    fn options(pairs: &[(&str, &str)]) -> Options {
        let mut o = Options::default();
        pairs.iter().for_each(|(k, v)| o.set(k, v));
        o
    }

    #[test]
    fn thresholds_rise_along_two_lines_to_one() {
        let at = |t| threshold([100, 200, 400], 1.5, t);
        assert_eq!((at(50), at(400), at(1000)), (0.0, 1.0, 1.0));
        let (first, second) = (at(120) - at(119), at(300) - at(299));
        assert!((second / first - 1.5).abs() < 1e-9 && at(399) > 0.99);
        assert!((100..400).all(|t| at(t) <= at(t + 1)));
        assert_eq!((cubic([10, 10, 20], 10), cubic([10, 10, 20], 20)), (0.0, 1.0));
        assert!((cubic([10, 10, 20], 15) - 0.875).abs() < 1e-12);
    }

    #[test]
    fn masks_close_by_magnitude_and_never_open() -> Result<(), Diag> {
        let model = text::parse(
            "planish-ir 1\ngraph @\"m\"(v0 \"x\": f32[2,2]) {
            v1 \"w\" = const f32[2,4] [4.0, -3.0, 0.1, 0.2, 1.0, 0.5, 8.0, 0.0]
            v2 = matmul{trans_a=false, trans_b=false} v0, v1 : f32[2,4]
            return v2 \"y\" }",
        )?;
        let recipe = Recipe { masks: true, ..Recipe::new(Loss::MeanSquare, Optimizer::default()) };
        let step = step(&model, &recipe, &|_| true)?;
        let prune = Prune::new(&options(&[
            ("block", "1x2"),
            ("sparsity", "0.75"),
            ("start", "0"),
            ("ramp", "0"),
            ("end", "1"),
            ("every", "5"),
        ]))?;
        let mut pruner = Pruner::new(&prune, &model, &step, 10, &|_| None)?;
        assert_eq!((0..12).filter(|t| pruner.looks(*t)).collect::<Vec<_>>(), [0, 5, 10]);
        let w = step.variables[0].start.clone();
        pruner.look(2, std::slice::from_ref(&w));
        let shares = |p: &Pruner| p.sparsity()[0].1;
        assert_eq!(shares(&pruner), 0.25);
        // The block of 0.1 and 0.2 is gone, however large it is said to be later.
        let later = Tensor::f32s(&[2, 4], &[4.0, -3.0, 90.0, 90.0, 1.0, 0.5, 8.0, 0.0])?;
        pruner.look(10, &[later]);
        assert_eq!(shares(&pruner), 0.75);
        let (at, mask) = pruner.masks()?.swap_remove(0);
        assert_eq!(step.variables[at].name, "w.mask");
        assert_eq!(mask.to_f64(), [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0]);
        let mut again = Pruner::new(&prune, &model, &step, 10, &|_| None)?;
        again.resume(at, &mask);
        assert_eq!(shares(&again), 0.75);
        let zeros = Prune::new(&options(&[("schedule", "zeros")]))?;
        let zeros = Pruner::new(&zeros, &model, &step, 10, &|_| None)?;
        assert_eq!(zeros.masks()?[0].1.to_f64(), [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0]);
        assert!(!zeros.looks(5));
        let paper =
            Prune::new(&options(&[("schedule", "threshold"), ("block", "1x2"), ("quantile", "0.5")]))?;
        assert!(Pruner::new(&paper, &model, &step, 10, &|_| None).is_err());
        let mut paper = Pruner::new(&paper, &model, &step, 10, &|_| Some(w.clone()))?;
        paper.look(4, std::slice::from_ref(&w));
        // The middle magnitude is 0.5 or 1, times the fourth root of 2.
        assert_eq!(shares(&paper), 0.5);
        assert!(Prune::new(&options(&[("end", "0.1")])).is_err());
        assert!(Prune::new(&options(&[("speed", "9")])).is_err());
        Ok(())
    }
}
