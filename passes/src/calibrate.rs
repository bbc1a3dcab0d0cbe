//! What passes ask of runs on data.

use planish_ir::{Diag, Graph, Tensor, ValueId};
use std::fmt::Debug;

/// Which part of the values that were seen a range covers.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Cover {
    /// All.
    All,
    /// So many percent, from 50 to 100; what is beyond is left out at both ends.
    Percent(f64),
}

/// Where the samples come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Samples {
    /// What the user gave.
    Given,
    /// Made up.
    Synthetic,
}

/// Runs a graph on samples. Passes get one through [`PassCx`](crate::PassCx); what runs the graph is not their business.
pub trait Calibrate: Debug {
    /// For each of the values, floats of the root region, the least and the largest element over all samples, as `cover` says. A
    /// value that never had an element has the range 0 to 0.
    fn ranges(
        &self,
        graph: &Graph,
        values: &[ValueId],
        samples: Samples,
        cover: Cover,
    ) -> Result<Vec<[f64; 2]>, Diag>;
    /// Calls `visit` once for each sample, in order, with what the values were in its run, in the order of `values`. They are tensors of the
    /// root region; nothing of a sample is kept once its call has returned.
    fn stream(
        &self,
        graph: &Graph,
        values: &[ValueId],
        samples: Samples,
        visit: &mut dyn FnMut(&[&Tensor]) -> Result<(), Diag>,
    ) -> Result<(), Diag>;
}
