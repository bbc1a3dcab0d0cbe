//! What decides a training: the table `[train]` of a recipe.

use super::jitter::Jitter;
use crate::failure::{Failure, Result};
use planish_passes::Options;
use planish_passes::training::{
    Annealing, Dropout, EXIT_WEIGHT, GroupLasso, Loss, Optimizer, Prune, Recipe, Rule, Schedule, Shape,
    Sparsity,
};
use regex::Regex;
use serde::{Deserialize, Serialize};

/// What is made small.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum LossName {
    /// Of classes; scores are logits, or what a softmax at the end makes of them
    CrossEntropy,
    /// Of values; the data hold them as `target`
    MeanSquare,
    /// Kullback-Leibler, from probabilities; the data hold them as `target`
    Divergence,
}

/// How parameters change.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum OptimizerName {
    /// Gradient descent with momentum
    Sgd,
    /// Adam
    Adam,
    /// Adam with decay apart from the gradient
    Adamw,
    /// RMSProp
    Rmsprop,
}

/// Which parameters are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Keep {
    /// Those of the epoch that was best on held-out samples, of the last epochs where pruning went on
    Best,
    /// Those of the last epoch
    Last,
}

/// Complete settings.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Settings {
    /// What is made small.
    pub loss: LossName,
    /// Times that all samples are seen.
    pub epochs: u32,
    /// Samples a step.
    pub batch: u32,
    /// Decides the order of the samples, which are held out, and all noise.
    pub seed: u64,
    /// How parameters change.
    pub optimizer: OptimizerName,
    /// The learning rate; 0.05 with sgd, 0.001 with the others unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<f64>,
    /// Of sgd.
    pub momentum: f64,
    /// Weight decay.
    pub decay: f64,
    /// The largest norm of the weights that come together at an output.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_norm: Option<f64>,
    /// How the rate goes on: `constant`, `linear`, `cosine` or `steps:EVERY:FACTOR`, with EVERY in epochs.
    pub schedule: String,
    /// Steps in which the rate rises.
    pub warmup: u64,
    /// Share of the samples that are held out where no others are given.
    pub holdout: f64,
    /// Epochs without a better result on held-out samples behind which training stops.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patience: Option<u32>,
    /// Which parameters are written.
    pub keep: Keep,
    /// Regular expressions: only parameters whose name one of them matches are trained.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub only: Vec<String>,
    /// Regular expressions: no parameter whose name one of them matches is trained.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fixed: Vec<String>,
    /// Settings of pruning, as `key=value,key=value`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prune: Option<String>,
    /// Group lasso, as `factor=F,block=KxN`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lasso: Option<String>,
    /// Share of stochastic gates that are to be on, as `density=D,factor=F,most=M`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gates: Option<String>,
    /// What the learning rate is multiplied by for parameters whose names begin so, as `NAME=F`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rate_factor: Vec<String>,
    /// What recurrent layers that skim are paid for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skim: Option<f64>,
    /// What the loss of a head half way counts; 0.3 unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_weight: Option<f64>,
    /// Percentage points of errors above the fewest that a threshold may have by which fewer gates are on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_accuracy_drop: Option<f64>,
    /// Whether the threshold of gates is an input of the model that is written.
    pub threshold_input: bool,
    /// How the temperature of Gumbel gates falls, as `RATE:LEAST:EVERY`: `max(LEAST, e^(-RATE t))`, anew after EVERY steps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub anneal: Option<String>,
    /// Share of what layers computed that the layers behind them do not see in a step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dropout: Option<f64>,
    /// The same of the inputs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_dropout: Option<f64>,
    /// By how many pixels pictures are moved, as `N` or `N:HxW`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jitter: Option<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            loss: LossName::CrossEntropy,
            epochs: 10,
            batch: 64,
            seed: 0,
            optimizer: OptimizerName::Sgd,
            rate: None,
            momentum: 0.9,
            decay: 0.0,
            max_norm: None,
            schedule: "cosine".into(),
            warmup: 0,
            holdout: 0.1,
            patience: None,
            keep: Keep::Best,
            only: Vec::new(),
            fixed: Vec::new(),
            prune: None,
            lasso: None,
            gates: None,
            rate_factor: Vec::new(),
            anneal: None,
            skim: None,
            exit_weight: None,
            max_accuracy_drop: None,
            threshold_input: false,
            dropout: None,
            input_dropout: None,
            jitter: None,
        }
    }
}

impl Settings {
    /// Checks what types do not.
    pub fn check(&self) -> Result<()> {
        let bad = |text: &str| Err(Failure::usage(text));
        let positive = |x: Option<f64>| x.is_none_or(|x| x.is_finite() && x > 0.0);
        if !positive(self.rate) || !positive(self.max_norm) {
            return bad("a learning rate and a largest norm are above 0");
        }
        if !(0.0..1.0).contains(&self.momentum) || !(0.0..=1.0).contains(&self.decay) {
            return bad("momentum is from 0 to below 1, decay from 0 to 1");
        }
        if self.skim.is_some_and(|f| !(0.0..=1e6).contains(&f)) {
            return bad("what layers are paid for skimming is not negative");
        }
        if self.exit_weight.is_some_and(|f| !(0.0..=1e6).contains(&f)) {
            return bad("what the loss of a head counts is not negative");
        }
        if self.max_accuracy_drop.is_some_and(|p| !(0.0..=100.0).contains(&p)) {
            return bad("an accuracy drops by 0 to 100 points");
        }
        if !(0.0..0.9).contains(&self.holdout) {
            return bad("less than 90% can be held out");
        }
        if self.epochs == 0 || self.batch == 0 {
            return bad("there is at least one epoch, and one sample in a batch");
        }
        if [self.dropout, self.input_dropout].into_iter().flatten().any(|p| !(0.0..1.0).contains(&p)) {
            return bad("dropout is a share from 0 to below 1");
        }
        self.shape(1)?;
        self.jitters()?;
        self.trains().map(drop)?;
        self.pruning()?;
        self.recipe()?;
        Ok(())
    }
    /// The loss.
    pub fn loss(&self) -> Loss {
        match self.loss {
            LossName::CrossEntropy => Loss::CrossEntropy,
            LossName::MeanSquare => Loss::MeanSquare,
            LossName::Divergence => Loss::Divergence,
        }
    }
    /// What each step does.
    pub fn recipe(&self) -> Result<Recipe> {
        let adam = Rule::Adam { decay: [0.9, 0.999], epsilon: 1e-8 };
        let rule = match self.optimizer {
            OptimizerName::Sgd => Rule::Sgd { momentum: self.momentum },
            OptimizerName::Adam | OptimizerName::Adamw => adam,
            OptimizerName::Rmsprop => Rule::RmsProp { decay: 0.9, epsilon: 1e-8 },
        };
        let decoupled = self.optimizer == OptimizerName::Adamw;
        let optimizer = Optimizer { rule, decay: self.decay, decoupled, max_norm: self.max_norm };
        let lasso = self.lasso.as_deref().map(lasso).transpose()?;
        let factor = |text: &String| {
            let (name, f) = text.split_once('=')?;
            Some((name.to_owned(), f.parse::<f64>().ok().filter(|f| f.is_finite() && *f >= 0.0)?))
        };
        let factors = self.rate_factor.iter().map(|text| {
            factor(text).ok_or_else(|| Failure::usage(format!("--rate-factor {text:?}: NAME=F is needed")))
        });
        Ok(Recipe {
            lasso,
            masks: self.prune.is_some(),
            sparsity: self.gated()?.map(|(sparsity, _)| sparsity),
            factors: factors.collect::<Result<_>>()?,
            anneal: self.annealing()?.is_some(),
            skim: self.skim.unwrap_or(0.0),
            exit: self.exit_weight.unwrap_or(EXIT_WEIGHT),
            dropout: self.dropout(),
            ..Recipe::new(self.loss(), optimizer)
        })
    }
    /// The learning rate over the steps, of which an epoch has so many.
    pub fn rates(&self, epoch: u64) -> Result<Schedule> {
        let usual = if self.optimizer == OptimizerName::Sgd { 0.05 } else { 0.001 };
        Ok(Schedule { base: self.rate.unwrap_or(usual), warmup: self.warmup, shape: self.shape(epoch)? })
    }
    fn shape(&self, epoch: u64) -> Result<Shape> {
        let unknown = || {
            let text =
                format!("schedule {:?}: constant, linear, cosine or steps:EVERY:FACTOR", self.schedule);
            Failure::usage(text)
        };
        Ok(match self.schedule.as_str() {
            "constant" => Shape::Constant,
            "linear" => Shape::Linear,
            "cosine" => Shape::Cosine,
            other => {
                let (every, factor) =
                    other.strip_prefix("steps:").and_then(|t| t.split_once(':')).ok_or_else(unknown)?;
                let every: u64 = every.parse().ok().filter(|e| *e > 0).ok_or_else(unknown)?;
                let factor: f64 = factor.parse().map_err(|_| unknown())?;
                if !(0.0..=1.0).contains(&factor) {
                    return Err(unknown());
                }
                Shape::Steps { every: every.saturating_mul(epoch), factor }
            }
        })
    }
    /// Which parameters are trained, by name.
    pub fn trains(&self) -> Result<impl Fn(&str) -> bool + use<>> {
        let read = |list: &[String]| -> Result<Vec<Regex>> {
            let one = |p: &String| Regex::new(p).map_err(|e| Failure::usage(format!("{p:?}: {e}")));
            list.iter().map(one).collect()
        };
        let (only, fixed) = (read(&self.only)?, read(&self.fixed)?);
        Ok(move |name: &str| {
            (only.is_empty() || only.iter().any(|r| r.is_match(name)))
                && !fixed.iter().any(|r| r.is_match(name))
        })
    }
    /// How many gates are to be on, and the share that may be on in the model that is written.
    pub fn gated(&self) -> Result<Option<(Sparsity, f64)>> {
        let Some(text) = &self.gates else { return Ok(None) };
        let wrong =
            || Failure::usage(format!("--gates {text:?}: density=0.1,factor=0.01,most=0.12 is needed"));
        let (mut target, mut factor, mut most) = (0.1, 0.01, None);
        for (key, value) in pairs("--gates", text)? {
            let value: f64 = value.parse().ok().filter(|v| *v >= 0.0 && *v <= 1e6).ok_or_else(wrong)?;
            match key {
                "density" => target = value,
                "factor" => factor = value,
                "most" => most = Some(value),
                _ => return Err(wrong()),
            }
        }
        if !(target > 0.0 && target < 1.0) {
            return Err(wrong());
        }
        Ok(Some((Sparsity { target, factor }, most.unwrap_or(target + 0.02))))
    }
    /// What is left out of steps.
    fn dropout(&self) -> Option<Dropout> {
        let [inputs, hidden] = [self.input_dropout, self.dropout].map(|p| p.unwrap_or(0.0));
        (inputs > 0.0 || hidden > 0.0).then_some(Dropout { inputs, hidden })
    }
    /// How pictures are moved.
    pub fn jitters(&self) -> Result<Option<Jitter>> {
        let Some(text) = &self.jitter else { return Ok(None) };
        let wrong =
            || Failure::usage(format!("--jitter {text:?}: N or N:HxW is needed, such as 2 or 2:28x28"));
        Jitter::parse(text).ok_or_else(wrong).map(Some)
    }
    /// How the temperature falls.
    pub fn annealing(&self) -> Result<Option<Annealing>> {
        let Some(text) = &self.anneal else { return Ok(None) };
        let read = || {
            let [rate, least, every] = text.split(':').collect::<Vec<_>>().try_into().ok()?;
            let number = |t: &str| t.parse::<f64>().ok().filter(|x| x.is_finite() && *x >= 0.0);
            let least = number(least).filter(|l| *l > 0.0)?;
            Some(Annealing { rate: number(rate)?, least, every: every.parse().ok()? })
        };
        let wrong =
            || Failure::usage(format!("--anneal {text:?}: RATE:LEAST:EVERY is needed, such as 1e-4:0.5:500"));
        read().ok_or_else(wrong).map(Some)
    }
    /// What is pruned, and the model that a threshold is chosen by.
    pub fn pruning(&self) -> Result<Option<(Prune, Option<String>)>> {
        let Some(text) = &self.prune else { return Ok(None) };
        let (mut options, mut reference) = (Options::default(), None);
        for (key, value) in pairs("--prune", text)? {
            match key {
                "reference" => reference = Some(value.to_owned()),
                _ => options.set(key, value),
            }
        }
        let prune = Prune::new(&options)?;
        match (prune.asks_reference(), &reference) {
            (true, None) => {
                Err(Failure::usage("--prune schedule=threshold needs reference=MODEL, a trained one"))
            }
            (false, Some(_)) => Err(Failure::usage("--prune: only schedule=threshold has a reference")),
            _ => Ok(Some((prune, reference))),
        }
    }
}

fn pairs<'t>(option: &str, text: &'t str) -> Result<Vec<(&'t str, &'t str)>> {
    let pair = |part: &'t str| {
        part.split_once('=')
            .ok_or_else(|| Failure::usage(format!("{option} {text:?}: {part:?} is no KEY=VALUE")))
    };
    text.split(',').filter(|p| !p.is_empty()).map(pair).collect()
}

fn lasso(text: &str) -> Result<GroupLasso> {
    let wrong = || Failure::usage(format!("--lasso {text:?}: factor=1e-5,block=1x16 is needed"));
    let (mut factor, mut block) = (None, [1, 16]);
    for (key, value) in pairs("--lasso", text)? {
        match key {
            "factor" => factor = value.parse::<f64>().ok().filter(|f| f.is_finite() && *f >= 0.0),
            "block" => {
                let sizes = value.split_once('x').and_then(|(k, n)| Some([k.parse().ok()?, n.parse().ok()?]));
                block = sizes
                    .filter(|b: &[usize; 2]| b.iter().all(|d| (1..=1024).contains(d)))
                    .ok_or_else(wrong)?;
            }
            _ => return Err(wrong()),
        }
    }
    Ok(GroupLasso { factor: factor.ok_or_else(wrong)?, block })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_is_refused() {
        for change in [
            |s: &mut Settings| s.rate = Some(-1.0),
            |s: &mut Settings| s.momentum = 1.0,
            |s: &mut Settings| s.holdout = 0.95,
            |s: &mut Settings| s.schedule = "steps:0:0.5".into(),
            |s: &mut Settings| s.schedule = "fast".into(),
            |s: &mut Settings| s.only = vec!["(".into()],
            |s: &mut Settings| s.prune = Some("block".into()),
            |s: &mut Settings| s.prune = Some("schedule=threshold".into()),
            |s: &mut Settings| s.prune = Some("schedule=zeros,reference=m.onnx".into()),
            |s: &mut Settings| s.lasso = Some("block=1x16".into()),
            |s: &mut Settings| s.lasso = Some("factor=1,block=0x1".into()),
            |s: &mut Settings| s.gates = Some("density=0".into()),
            |s: &mut Settings| s.gates = Some("speed=1".into()),
            |s: &mut Settings| s.rate_factor = vec!["gater".into()],
            |s: &mut Settings| s.anneal = Some("1e-4:0:500".into()),
            |s: &mut Settings| s.dropout = Some(1.0),
            |s: &mut Settings| s.input_dropout = Some(-0.1),
            |s: &mut Settings| s.jitter = Some("2:28".into()),
        ] {
            let mut s = Settings::default();
            assert!(s.check().is_ok());
            change(&mut s);
            assert!(s.check().is_err(), "{s:?}");
        }
        let s = Settings { schedule: "steps:2:0.1".into(), ..Settings::default() };
        assert_eq!(s.rates(100).ok().map(|r| r.shape), Some(Shape::Steps { every: 200, factor: 0.1 }));
    }
}
