//! What passes ask of runs on data.

mod interpreted;

pub use interpreted::Interpreted;

use crate::stats::Stats;
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

impl Samples {
    /// The words for them in options.
    pub(crate) const WORDS: &[(&str, Samples)] =
        &[("data", Samples::Given), ("synthetic", Samples::Synthetic)];
}

/// A value that statistics are asked of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ask {
    /// A tensor of the root region.
    pub value: ValueId,
    /// The axis whose positions are channels, each with a norm of its own; a negative one counts from the last.
    pub channels: Option<i64>,
}

impl Ask {
    /// Of all elements together.
    pub fn whole(value: ValueId) -> Ask {
        Ask { value, channels: None }
    }
    /// Also of each position along an axis.
    pub fn along(value: ValueId, axis: i64) -> Ask {
        Ask { value, channels: Some(axis) }
    }
}

/// [`Calibrate::stats`] from [`Calibrate::stream`].
pub fn streamed(
    runs: &(impl Calibrate + ?Sized),
    graph: &Graph,
    asked: &[Ask],
    samples: Samples,
) -> Result<Vec<Stats>, Diag> {
    let values: Vec<ValueId> = asked.iter().map(|a| a.value).collect();
    let mut found = vec![Stats::default(); asked.len()];
    runs.stream(graph, &values, samples, &mut |seen| {
        for ((s, a), t) in found.iter_mut().zip(asked).zip(seen) {
            s.add(t, a.channels)?;
        }
        Ok(())
    })?;
    Ok(found)
}

/// Runs a graph on samples. Passes get one through [`PassCx`](crate::PassCx); what runs the graph is not their business.
pub trait Calibrate: Debug {
    /// Calls `visit` once for each sample, in order, with what the values were in its run, in the order of `values`. They are tensors of the
    /// root region; nothing of a sample is kept once its call has returned.
    fn stream(
        &self,
        graph: &Graph,
        values: &[ValueId],
        samples: Samples,
        visit: &mut dyn FnMut(&[&Tensor]) -> Result<(), Diag>,
    ) -> Result<(), Diag>;

    /// For each value its statistics over all samples, in memory that does not depend on their number.
    fn stats(&self, graph: &Graph, asked: &[Ask], samples: Samples) -> Result<Vec<Stats>, Diag> {
        streamed(self, graph, asked, samples)
    }

    /// For each of the values, floats of the root region, the least and the largest element over all samples, as `cover` says. A
    /// value that never had an element has the range 0 to 0.
    fn ranges(
        &self,
        graph: &Graph,
        values: &[ValueId],
        samples: Samples,
        cover: Cover,
    ) -> Result<Vec<[f64; 2]>, Diag> {
        let asked: Vec<Ask> = values.iter().map(|v| Ask::whole(*v)).collect();
        Ok(self.stats(graph, &asked, samples)?.iter().map(|s| s.histogram.range(cover)).collect())
    }
    /// The labels of each sample, in the order of [`Calibrate::stream`]: one for each index of the first axis of its inputs. None where the data
    /// have no labels.
    fn labels(&self, samples: Samples) -> Result<Option<Vec<Vec<i64>>>, Diag> {
        let _ = samples;
        Ok(None)
    }
}
