//! The options of a training, which go over the table `[train]` of a recipe.

use super::settings::{Keep, LossName, OptimizerName, Settings};

/// The options.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Training")]
pub struct TrainArgs {
    /// What is made small; cross-entropy unless given
    #[arg(long, value_enum)]
    pub loss: Option<LossName>,
    /// Times that all samples are seen; 10 unless given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub epochs: Option<u32>,
    /// Samples a step; 64 unless given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub batch: Option<u32>,
    /// Decides the order of the samples, which are held out, and all noise; 0 unless given
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// How parameters change; sgd unless given
    #[arg(long, value_enum)]
    pub optimizer: Option<OptimizerName>,
    /// The learning rate; 0.05 with sgd and 0.001 with others unless given
    #[arg(long, value_name = "R")]
    pub rate: Option<f64>,
    /// Momentum of sgd; 0.9 unless given
    #[arg(long, value_name = "M")]
    pub momentum: Option<f64>,
    /// Weight decay
    #[arg(long, value_name = "D")]
    pub decay: Option<f64>,
    /// The largest norm of the weights that come together at an output
    #[arg(long, value_name = "C")]
    pub max_norm: Option<f64>,
    /// How the rate goes on: constant, linear, cosine (unless given) or steps:EVERY:FACTOR, with EVERY in epochs
    #[arg(long, value_name = "SHAPE")]
    pub schedule: Option<String>,
    /// Steps in which the rate rises at the start
    #[arg(long, value_name = "STEPS")]
    pub warmup: Option<u64>,
    /// Share of the samples that is held out where no --eval-data are given; 10% unless given
    #[arg(long, value_name = "P%", value_parser = crate::units::percent)]
    pub holdout: Option<f64>,
    /// Stop behind so many epochs without a better result on held-out samples
    #[arg(long, value_name = "EPOCHS", value_parser = clap::value_parser!(u32).range(1..))]
    pub patience: Option<u32>,
    /// Which parameters are written; those that were best on held-out samples unless given
    #[arg(long, value_enum)]
    pub keep: Option<Keep>,
    /// Train only parameters whose name this regular expression matches; repeatable
    #[arg(long, value_name = "REGEX")]
    pub only: Vec<String>,
    /// Leave parameters alone whose name this regular expression matches; repeatable
    #[arg(long, value_name = "REGEX")]
    pub fixed: Vec<String>,
    /// Prune while training: schedule=cubic|threshold|zeros,block=1x16,sparsity=0.9,..; `planish explain prune` lists all
    #[arg(long, value_name = "KEY=VALUE,..")]
    pub prune: Option<String>,
    /// Draw blocks of weights to zero: factor=1e-5,block=1x16
    #[arg(long, value_name = "KEY=VALUE,..")]
    pub lasso: Option<String>,
    /// Keep stochastic gates off: density=0.1 (share that is on), factor=0.01 (of what is added to the loss), most=0.12 (share that may be
    /// on in the model that is written; density + 0.02 unless given)
    #[arg(long, value_name = "KEY=VALUE,..")]
    pub gates: Option<String>,
    /// Multiply the learning rate of parameters whose names begin so; repeatable
    #[arg(long, value_name = "NAME=F")]
    pub rate_factor: Vec<String>,
    /// Pay recurrent layers that skim (insert-gates:kind=skim) for it: this times the mean of -ln p over all steps is added to the loss, p being the
    /// probability of skimming; 0.01 or so
    #[arg(long, value_name = "F")]
    pub skim: Option<f64>,
    /// What the loss of a head half way (insert-gates:kind=early-exit,train=true) counts, that of the whole network being 1; 0.3 unless given
    #[arg(long, value_name = "F")]
    pub exit_weight: Option<f64>,
    /// Choose the threshold of gates by which the fewest are on among those with at most so many percentage points of errors on held-out samples above the fewest: 0.5pt
    #[arg(long, value_name = "P", value_parser = crate::units::points)]
    pub max_accuracy_drop: Option<f64>,
    /// Give the model that is written an input `threshold` that its gates compare with, in place of the one that was chosen
    #[arg(long)]
    pub threshold_input: bool,
    /// Let the temperature of Gumbel gates fall: max(LEAST, e^(-RATE t)) in step t, anew after EVERY steps
    #[arg(long, value_name = "RATE:LEAST:EVERY")]
    pub anneal: Option<String>,
    /// Set this share of what layers computed, drawn anew in every step, to zero before layers behind take it, and divide the others by what is left:
    /// 0.5 or so
    #[arg(long, value_name = "P")]
    pub dropout: Option<f64>,
    /// The same of what the first layers take; none unless given, 0.2 or so
    #[arg(long, value_name = "P")]
    pub input_dropout: Option<f64>,
    /// Move pictures in every step by up to N pixels up or down and to a side; HxW says how large those are that are flat rows
    #[arg(long, value_name = "N[:HxW]")]
    pub jitter: Option<String>,
}

impl TrainArgs {
    /// The settings of a recipe with these options over them.
    pub fn over(&self, recipe: Option<&Settings>) -> Settings {
        let mut s = recipe.cloned().unwrap_or_default();
        macro_rules! over {
            ($($name:ident),*) => { $(if let Some(v) = self.$name.clone() { s.$name = v; })* };
        }
        over!(loss, epochs, batch, seed, optimizer, momentum, decay, schedule, warmup, holdout, keep);
        macro_rules! over_optional {
            ($($name:ident),*) => { $(if self.$name.is_some() { s.$name.clone_from(&self.$name); })* };
        }
        over_optional!(
            rate,
            max_norm,
            patience,
            prune,
            lasso,
            gates,
            anneal,
            skim,
            exit_weight,
            max_accuracy_drop,
            dropout,
            input_dropout,
            jitter
        );
        s.threshold_input |= self.threshold_input;
        if !self.only.is_empty() {
            s.only.clone_from(&self.only);
        }
        if !self.rate_factor.is_empty() {
            s.rate_factor.clone_from(&self.rate_factor);
        }
        if !self.fixed.is_empty() {
            s.fixed.clone_from(&self.fixed);
        }
        s
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_go_over_a_recipe() -> std::result::Result<(), Box<dyn std::error::Error>> {
        let recipe: Settings = toml::from_str("epochs = 3\noptimizer = \"adamw\"\nonly = ['a']\n")?;
        let args =
            TrainArgs { epochs: Some(5), rate: Some(0.5), fixed: vec!["^ab".into()], ..TrainArgs::default() };
        let s = args.over(Some(&recipe));
        assert_eq!((s.epochs, s.optimizer, s.rate), (5, OptimizerName::Adamw, Some(0.5)));
        s.check().map_err(|f| f.message())?;
        let trains = s.trains().map_err(|f| f.message())?;
        assert_eq!([trains("a"), trains("ab"), trains("b")], [true, false, false]);
        let text = toml::to_string(&s)?;
        assert_eq!(toml::from_str::<Settings>(&text)?, s);
        assert!(toml::from_str::<Settings>("speed = 3").is_err());
        Ok(())
    }
}
