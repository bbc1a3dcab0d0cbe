//! See [`InsertGates`].

mod activation;

use crate::calibrate::Samples;
use crate::options::OptionMeta;
use crate::weights::{self, Selection};
use crate::{Options, Pass, PassCx, PassMeta, declare_pass};
use activation::Activation;
use planish_ir::{Diag, Editor};

declare_pass! {
    /// Makes layers leave out work that inputs near zero do not need. Nothing is trained; what decides is found on samples.
    ///
    /// `kind=activation` (Liu et al. 2024, "Training-free activation sparsity in large language models"): inputs of a matrix product whose
    /// magnitude is below a threshold count as zero, and the product leaves out the weights of blocks of zeros. The threshold of a layer is
    /// the `quantile` of the magnitudes that its inputs had; with `quantile=0` only zeros that are there anyway are used, such as those
    /// after a ReLU, and results stay the same. Eligible are products of at most 4 rows with constant weights, which is where reading
    /// weights is what takes time.
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
            OptionMeta { name: "kind", default: "activation", doc: "`activation`: products that leave out inputs near zero" },
            OptionMeta { name: "quantile", default: "0.5", doc: "of `activation`: the share of inputs of each layer that counts as zero, 0 to below 1" },
            OptionMeta { name: "block", default: "1", doc: "of `activation`: inputs that are left out together, 1 to 64" },
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
}

/// Options of each kind beyond those that all have.
const OWN: &[(&str, &[&str])] = &[("activation", &["quantile", "block"])];

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
            if o.iter().any(|(given, _)| given == *name) {
                return Err(bad(format!("`{name}` is an option of kind={kind}, not of kind={text}")));
            }
        }
        let samples = match o.text(m, "samples") {
            "data" => Samples::Given,
            "synthetic" => Samples::Synthetic,
            other => return Err(bad(format!("samples cannot be `{other}`, only data or synthetic"))),
        };
        let which = Selection::new(o, m)?;
        let kind = Kind::Activation(Activation::new(o, m, samples, which)?);
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
        }
    }
}
