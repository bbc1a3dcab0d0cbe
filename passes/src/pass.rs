//! What a pass is.

use crate::calibrate::Calibrate;
use crate::cost::{GatedCosts, SparseCosts};
use crate::options::OptionMeta;
use planish_ir::{Diag, Editor, Graph, Loc, NodeId};
use std::collections::BTreeMap;
use std::rc::Rc;

/// What a pass may do to results.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum PassKind {
    /// Equal results, up to the rounding that its documentation states.
    Exact,
    /// Other results; runs only when asked for, and reports metrics.
    Lossy,
    /// Prepares for lowering.
    Lowering,
    /// Equal results and further outputs; runs only when asked for.
    Extending,
}

impl PassKind {
    /// The word in documentation and JSON.
    pub fn name(self) -> &'static str {
        match self {
            PassKind::Exact => "exact",
            PassKind::Lossy => "lossy",
            PassKind::Lowering => "lowering",
            PassKind::Extending => "extending",
        }
    }
}

/// The declaration of a pass.
#[derive(Debug)]
pub struct PassMeta {
    /// Verb-object, kebab-case.
    pub name: &'static str,
    /// Kind.
    pub kind: PassKind,
    /// The lines of its documentation.
    pub doc: &'static [&'static str],
    /// The source file, relative to the crate.
    pub file: &'static str,
    /// Its options.
    pub options: &'static [OptionMeta],
}

/// Facts about the target that passes may ask for.
#[derive(Clone, Debug)]
pub struct TargetFacts {
    /// f32 lanes of a vector.
    pub lanes: u32,
    /// Times of kernels that skip zeros.
    pub sparse: SparseCosts,
    /// Products that leave out inputs.
    pub gated: GatedCosts,
}

impl Default for TargetFacts {
    fn default() -> Self {
        TargetFacts { lanes: 8, sparse: SparseCosts::default(), gated: GatedCosts::default() }
    }
}

/// What a pass gets beside the graph, and where it leaves what it found.
#[derive(Default)]
pub struct PassCx {
    /// The target.
    pub facts: TargetFacts,
    /// Runs the graph on samples.
    pub calibrate: Option<Rc<dyn Calibrate>>,
    /// Remarks and warnings, in order.
    pub remarks: Vec<Diag>,
    /// Metrics by name.
    pub metrics: BTreeMap<String, f64>,
}

impl PassCx {
    /// Leaves a remark about a node.
    pub fn remark(&mut self, graph: &Graph, node: NodeId, id: &'static str, text: impl Into<String>) {
        self.remarks.push(Diag::remark(id, text).at(graph.node(node).loc.clone()));
    }
    /// Leaves a remark about a place.
    pub fn remark_at(&mut self, at: Loc, id: &'static str, text: impl Into<String>) {
        self.remarks.push(Diag::remark(id, text).at(at));
    }
    /// Adds to a metric.
    pub fn add(&mut self, metric: &str, amount: f64) {
        *self.metrics.entry(metric.to_owned()).or_insert(0.0) += amount;
    }
}

/// A pass with its options set.
pub trait Pass {
    /// Its declaration.
    fn meta(&self) -> &'static PassMeta;
    /// Does its work once. The pipeline repeats where its documentation says so.
    fn run(&self, ed: &mut Editor<'_>, cx: &mut PassCx) -> Result<(), Diag>;
}

/// Declares a pass: a struct with its options, and the metadata.
///
/// ```text
/// declare_pass! {
///     /// Removes nodes whose results nobody uses.
///     pub struct EliminateDead = { name: "eliminate-dead", kind: Exact, options: [] }
/// }
/// ```
#[macro_export]
macro_rules! declare_pass {
    ($(#[doc = $doc:literal])* pub struct $name:ident { $($field:ident : $ty:ty),* $(,)? } =
     { name: $text:literal, kind: $kind:ident, options: [$($opt:expr),* $(,)?] }) => {
        $(#[doc = $doc])*
        #[derive(Clone, Debug)]
        pub struct $name { $(pub(crate) $field: $ty,)* }
        impl $name {
            /// The declaration.
            pub const META: $crate::PassMeta = $crate::PassMeta {
                name: $text,
                kind: $crate::PassKind::$kind,
                doc: &[$($doc),*],
                file: file!(),
                options: &[$($opt),*],
            };
        }
    };
}
