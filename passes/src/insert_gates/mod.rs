//! See [`InsertGates`].

mod activation;
#[cfg(test)]
mod clusters_tests;
mod columns;
mod early_exit;
mod linear;
mod mixture;
#[cfg(test)]
mod mixture_tests;
mod moe;
mod skim;
mod units;

use crate::calibrate::Samples;
use crate::options::OptionMeta;
use crate::weights::{self, Selection};
use crate::{Options, Pass, PassCx, PassMeta, declare_pass};
use activation::Activation;
use columns::Columns;
use early_exit::EarlyExit;
pub(crate) use early_exit::exit_work;
use mixture::Mixture;
use moe::Moe;
use planish_ir::{Diag, Editor};
use skim::Skim;
use units::Units;

declare_pass! {
    /// Makes networks leave out work that single inputs do not need. What decides is found on samples, without training, but for `units`, `mixture`, `skim` and `early-exit` with `train=true`.
    ///
    /// `kind=activation` (Liu et al. 2024, "Training-free activation sparsity in large language models"): inputs of a matrix product whose
    /// magnitude is below a threshold count as zero, and the product leaves out the weights of blocks of zeros. The threshold of a layer is
    /// the `quantile` of the magnitudes that its inputs had; with `quantile=0` only zeros that are there anyway are used, such as those
    /// after a ReLU, and results stay the same. Eligible are products of at most 4 rows with constant weights, which is where reading
    /// weights is what takes time.
    ///
    /// `kind=moe` makes a mixture of experts of each feed-forward pair of matrix products (Zhang et al. 2022, "MoEfication"; routing as in
    /// Shazeer et al. 2017): the hidden units are divided into `experts` groups of equal size by balanced k-means, a linear router is fitted by ridge
    /// regression to what each group contributes for a row, and each row goes to the `active` groups of the largest prediction.
    /// The results of these groups are summed without weights; the mean of what the groups left out would have added is added
    /// where that makes the error smaller.
    ///
    /// `kind=early-exit` puts a linear classifier half way through a network that gives scores of classes (multinomial logistic regression on the
    /// values there, fitted to the labels of the samples, or without labels to the classes that the model itself gives). Where its
    /// largest probability is strictly above `threshold`, its scores are the result and the rest is not executed: all of it for one sample;
    /// in a batch, the samples that stay are put together. At 1 nothing leaves. With `train=true` there is no gate yet: what the classifier says is one more output, `exit`, for
    /// `planish train`, which trains it together with the whole network (Elhoushi et al. 2024, "LayerSkip"), chooses the threshold and makes the gate; `head=exit` is how it is made of such an output.
    ///
    /// `kind=units` (Bengio, Leonard and Courville 2013, "Estimating or propagating gradients through stochastic neurons for conditional computation") is for
    /// `planish train`: what each unit of a hidden layer gives is multiplied by a gate that a small net of `gater` hyperbolic tangents computes from the inputs of
    /// the layer. The gates draw while they are trained, and `determinize` makes them inference's; weights are random until then.
    ///
    /// `kind=columns`: a product of one row, the result of which a mask multiplies (what `kind=units` leaves behind its training), computes only
    /// the columns where the mask is not zero; its weights are kept column after column for that. The results are the same but for the order of sums.
    ///
    /// `kind=mixture` (Shazeer et al. 2017, "Outrageously large neural networks: the sparsely-gated mixture-of-experts layer") is for `planish train` too: in place of a
    /// feed-forward pair come `experts` pairs of `hidden` units and a router with noise that sends each row to `active` of them. All are computed, and those that are not
    /// chosen count nothing, until `route-experts` makes a gate of what has been trained. An output `balance` says how unequally busy the experts are: `importance` times
    /// the squared coefficient of variation of the sums of their weights, and `load` times that of the numbers of their rows. Training adds it to the loss and removes it.
    ///
    /// `kind=skim` (Seo et al. 2018, "Neural speed reading via Skim-RNN") makes a GRU or an LSTM that goes forward choose at each step between its cell
    /// and one of `small` units, which leaves the other units of the state as they are. The small cell and what chooses are new
    /// weights, drawn from `seed`: the network has to be trained with them. A step skims where its probability of doing so is above
    /// `theta`; at 1 none does, and results stay the same. A layer that is the first of its network is changed too.
    ///
    /// # Preserves
    /// Shapes and types of all values that stay.
    ///
    /// # Declines
    /// A remark `gate-skipped` for every layer that is left alone, with the number that decided; `gate-done` for every one that is not, with the
    /// threshold, the share of blocks that was left out on the samples, and the predicted time to that of the dense layer.
    ///
    /// # Example
    /// `v2 = matmul v0, c1` at `quantile=0.5` becomes `v2 = gated-matmul{threshold=0.67, block=1} v0, c1`.
    pub struct InsertGates {
        kind: Kind,
    } = {
        name: "insert-gates",
        kind: Lossy,
        options: [
            OptionMeta { name: "kind", default: "activation", doc: "`activation`: products that leave out inputs near zero; `moe`: experts in place of feed-forward pairs; `early-exit`: a head behind which the rest may not run; `units`: gates of hidden units, to be trained; `mixture`: experts with a router, to be trained; `columns`: products that a mask makes zero in part; `skim`: recurrent layers with a small cell beside their own, to be trained" },
            OptionMeta { name: "quantile", default: "0.5", doc: "of `activation`: the share of inputs of each layer that counts as zero, 0 to below 1" },
            OptionMeta { name: "block", default: "1", doc: "of `activation`: inputs that are left out together, 1 to 64" },
            OptionMeta { name: "experts", default: "8", doc: "of `moe`: groups of hidden units; must divide their number; of `mixture`: pairs" },
            OptionMeta { name: "active", default: "2", doc: "of `moe` and `mixture`: those computed for each row" },
            OptionMeta { name: "cluster", default: "activations", doc: "of `moe`: hidden units are grouped by their `activations` on samples, or by their input `weights`" },
            OptionMeta { name: "gain", default: "1.1", doc: "of `moe`: layers whose predicted speed-up is below this are left alone" },
            OptionMeta { name: "threshold", default: "0.9", doc: "of `early-exit`: samples of larger probability leave, 0 to 1, or `input`: an input `threshold` of the model says it in every run" },
            OptionMeta { name: "head", default: "", doc: "of `early-exit`: the output that holds the scores of the classifier, and that goes; empty: one is fitted" },
            OptionMeta { name: "train", default: "false", doc: "of `early-exit`: whether the classifier becomes an output `exit`, to be trained, and no gate is made" },
            OptionMeta { name: "after", default: "", doc: "of `early-exit`: the name of the node after which they leave; empty: the place nearest to the middle of the arithmetic" },
            OptionMeta { name: "features", default: "auto", doc: "of `early-exit`: what the classifier sees, `flat`: every element, `pooled`: the mean of each channel, `auto`: flat up to 2048 elements" },
            OptionMeta { name: "unit", default: "straight-through", doc: "of `units`: `straight-through`, `sigmoid-deriv`, `masked` and `reinforce` are 0 or 1 and differ in what stands for their gradient; `smooth`, `noisy-rectifier`, `rectifier`, `gumbel`, `gumbel-hard`, `sigmoid`" },
            OptionMeta { name: "gater", default: "40", doc: "of `units`: hidden units of the net that computes gates" },
            OptionMeta { name: "bias", default: "-2.2", doc: "of `units`: what gates begin with; the sigmoid of -2.2 is 0.1" },
            OptionMeta { name: "temperature", default: "1", doc: "of `units`: of Gumbel gates" },
            OptionMeta { name: "linear", default: "true", doc: "of `units`: whether the activation of the units goes" },
            OptionMeta { name: "hidden", default: "none", doc: "of `mixture`: hidden units of an expert; by default those of the pair divided by `experts`" },
            OptionMeta { name: "start", default: "random", doc: "of `mixture`: weights are `random`, or `copy`: units of the pair, one expert after the other" },
            OptionMeta { name: "router", default: "zero", doc: "of `mixture`: what weights of the router begin with, `zero`, `random`, or `biased`: zero, but the first expert is preferred" },
            OptionMeta { name: "importance", default: "0.1", doc: "of `mixture`: the weight of the sums of weights in `balance`" },
            OptionMeta { name: "load", default: "0.1", doc: "of `mixture`: the weight of the numbers of rows in `balance`; without both there is no such output" },
            OptionMeta { name: "small", default: "5", doc: "of `skim`: units of the small cell, fewer than the layer has" },
            OptionMeta { name: "theta", default: "0.5", doc: "of `skim`: steps whose probability of skimming is above this skim, 0 to 1" },
            OptionMeta { name: "seed", default: "0", doc: "of `moe` and `early-exit`: of the choice of first centres and of kept samples; of `units`, `mixture` and `skim`: of new weights" },
            OptionMeta { name: "samples", default: "data", doc: "`data`: those of --data; `synthetic`: made up, for measurements of speed" },
            weights::INCLUDE,
            weights::EXCLUDE,
            weights::OPS,
            weights::FIRST,
        ]
    }
}

/// What is gated.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Activation(Activation),
    Columns(Columns),
    EarlyExit(EarlyExit),
    Moe(Moe),
    Units(Units),
    Mixture(Mixture),
    Skim(Skim),
}

/// Options of each kind beyond those that all have.
const OWN: &[(&str, &[&str])] = &[
    ("activation", &["quantile", "block"]),
    ("columns", &[]),
    ("early-exit", &["threshold", "after", "features", "head", "train", "seed"]),
    ("moe", &["experts", "active", "cluster", "gain", "seed"]),
    ("units", &["unit", "gater", "bias", "temperature", "linear", "seed"]),
    ("mixture", &["experts", "active", "hidden", "start", "router", "importance", "load", "seed"]),
    ("skim", &["small", "theta", "seed"]),
];

impl InsertGates {
    pub(crate) fn new(o: &Options) -> Result<Self, Diag> {
        let m = Self::META.options;
        let text = o.text(m, "kind");
        let bad = |text: String| Diag::error("pass-option", text);
        let Some((_, own)) = OWN.iter().find(|(kind, _)| *kind == text) else {
            let kinds: Vec<&str> = OWN.iter().map(|(kind, _)| *kind).collect();
            return Err(bad(format!("kind cannot be `{text}`, only {}", kinds.join(" or "))));
        };
        let others = OWN.iter().flat_map(|(kind, names)| names.iter().map(move |n| (kind, n)));
        for (kind, name) in others.filter(|(_, n)| !own.contains(n)) {
            // Recipes list every option with its value.
            if o.iter().any(|(given, value)| given == *name && value != Options::default().text(m, name)) {
                return Err(bad(format!("`{name}` is an option of kind={kind}, not of kind={text}")));
            }
        }
        let samples = o.one_of(m, "samples", Samples::WORDS)?;
        let which = Selection::new(o, m)?;
        let kind = match text {
            "moe" => Kind::Moe(Moe::new(o, m, samples, which)?),
            "columns" => Kind::Columns(Columns::new(which)),
            "units" => Kind::Units(Units::new(o, m, which)?),
            "mixture" => Kind::Mixture(Mixture::new(o, m, which)?),
            "skim" => Kind::Skim(Skim::new(o, m, which)?),
            "early-exit" => Kind::EarlyExit(EarlyExit::new(o, m, samples)?),
            _ => Kind::Activation(Activation::new(o, m, samples, which)?),
        };
        Ok(InsertGates { kind })
    }
}

impl Pass for InsertGates {
    fn meta(&self) -> &'static PassMeta {
        &Self::META
    }
    fn run(&self, ed: &mut Editor<'_>, cx: &mut PassCx) -> Result<(), Diag> {
        match &self.kind {
            Kind::Activation(a) => a.run(ed, cx),
            Kind::Columns(c) => c.run(ed, cx),
            Kind::EarlyExit(e) => e.run(ed, cx),
            Kind::Moe(m) => m.run(ed, cx),
            Kind::Units(u) => u.run(ed, cx),
            Kind::Mixture(m) => m.run(ed, cx),
            Kind::Skim(s) => s.run(ed, cx),
        }
    }
}
