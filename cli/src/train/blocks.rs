//! Going on with the blocks of weights that pruning keeps.

use super::Job;
use crate::failure::{Failure, Result};
use planish_ir::{Graph, Tensor};
use planish_passes::training::{Pruner, Recipe, Step, StoredBlocks, step, stored_blocks};
use std::collections::BTreeMap;

/// A step that multiplies with stored blocks, and what its variables begin with.
pub(super) struct InBlocks {
    pub(super) made: Step,
    pub(super) given: BTreeMap<usize, Tensor>,
    pub(super) stored: Vec<StoredBlocks>,
}

/// The step of a model whose masks are final, with the blocks that they keep; `now` gives the variables of `made`, the step with masks. None where no
/// parameter is stored so.
pub(super) fn in_blocks(
    job: &Job<'_>,
    graph: &Graph,
    (recipe, made): (&Recipe, &Step),
    pruner: &Pruner,
    now: &dyn Fn(usize) -> Result<Tensor>,
) -> Result<Option<InBlocks>> {
    // Norms of whole columns and of other blocks are not those of what is stored.
    let whole = recipe.lasso.is_some() || recipe.optimizer.max_norm.is_some();
    let Some(all) = pruner.stores().filter(|_| !whole) else { return Ok(None) };
    let masks = pruner.masks()?.into_iter().filter_map(|(at, t)| {
        let name = made.variables.get(at)?.name.strip_suffix(".mask")?;
        Some((name.to_owned(), t))
    });
    let masks: BTreeMap<String, Tensor> = masks.collect();
    let (graph, stored) = stored_blocks(graph, &|name| masks.get(name).cloned(), pruner.block(), all)?;
    if stored.is_empty() {
        return Ok(None);
    }
    let new = step(&graph, recipe, job.trains)?;
    let mut given = BTreeMap::new();
    for (at, v) in new.variables.iter().enumerate() {
        let old = made.variables.iter().position(|o| o.name == v.name);
        let old = old.ok_or_else(|| Failure::new("internal-train", format!("{} is new", v.name)))?;
        let mut t = now(old)?;
        if let Some(s) = of(&stored, &v.name).filter(|s| s.is_whole(&t)) {
            t = s.blocks(&t)?;
        }
        given.insert(at, t);
    }
    Ok(Some(InBlocks { made: new, given, stored }))
}

/// The parameter in blocks that a variable is, or is the mask or a state of.
fn of<'s>(stored: &'s [StoredBlocks], name: &str) -> Option<&'s StoredBlocks> {
    stored.iter().find(|s| {
        let rest = name.strip_prefix(&s.name);
        rest.is_some_and(|r| r.is_empty() || r.strip_prefix('.').is_some_and(|part| !part.contains('.')))
    })
}

/// A variable in the shape that it has in a step without stored blocks.
pub(super) fn whole(stored: &[StoredBlocks], name: &str, t: Tensor) -> Result<Tensor> {
    match of(stored, name).filter(|s| s.is_blocks(&t)) {
        Some(s) => Ok(s.whole(&t)?),
        None => Ok(t),
    }
}
