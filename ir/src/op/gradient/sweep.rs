//! Differentiation of the nodes of a region, and copies of regions.

use super::of_node;
use crate::diag::Diag;
use crate::editor::Editor;
use crate::graph::{NodeId, RegionId, ValueId};
use crate::op::binary::{Binary, BinaryKind};
use std::collections::{BTreeMap, BTreeSet};

/// The gradients of a scalar with respect to some values, given those with respect to others, (value, gradient): what `nodes`, in the order
/// of their region, have to do with it. None: it does not depend on that value, or not smoothly anywhere. New nodes go where the editor
/// stands, which must be behind all others.
///
/// # Errors
/// `unsupported-gradient` at a node in between that has no rule.
pub fn sweep(
    ed: &mut Editor<'_>,
    nodes: &[NodeId],
    seeds: &[(ValueId, ValueId)],
    variables: &[ValueId],
) -> Result<Vec<Option<ValueId>>, Diag> {
    // What depends on the variables.
    let mut active: BTreeSet<ValueId> = variables.iter().copied().collect();
    for n in nodes {
        let node = ed.graph().node(*n);
        if node.inputs.iter().flatten().any(|v| active.contains(v)) {
            active.extend(&node.outputs);
        }
    }
    let mut found: BTreeMap<ValueId, ValueId> = BTreeMap::new();
    for (v, gradient) in seeds {
        add(ed, &mut found, *v, *gradient)?;
    }
    for n in nodes.iter().rev() {
        let node = ed.graph().node(*n);
        let inputs = node.inputs.clone();
        let seeds: Vec<Option<ValueId>> = node.outputs.iter().map(|v| found.get(v).copied()).collect();
        let wanted: Vec<bool> = inputs.iter().map(|v| v.is_some_and(|v| active.contains(&v))).collect();
        let given = of_node(ed, *n, &seeds, &wanted)?;
        for (v, gradient) in inputs.iter().zip(given) {
            if let (Some(v), Some(gradient)) = (v, gradient) {
                add(ed, &mut found, *v, gradient)?;
            }
        }
    }
    Ok(variables.iter().map(|v| found.get(v).copied()).collect())
}

/// Adds to the gradient of a value.
fn add(
    ed: &mut Editor<'_>,
    found: &mut BTreeMap<ValueId, ValueId>,
    v: ValueId,
    gradient: ValueId,
) -> Result<(), Diag> {
    let sum = match found.get(&v) {
        Some(before) => ed.node1(Binary { kind: BinaryKind::Add }, &[*before, gradient])?,
        None => gradient,
    };
    found.insert(v, sum);
    Ok(())
}

/// Copies the nodes of a region to where the editor stands. `map` holds what stands for its parameters, and gets what stands for all
/// other values. The copies are given in order.
pub fn copy(
    ed: &mut Editor<'_>,
    region: RegionId,
    map: &mut BTreeMap<ValueId, ValueId>,
) -> Result<Vec<NodeId>, Diag> {
    let nodes: Vec<NodeId> = ed.graph().nodes_in(region).collect();
    let mut copies = Vec::with_capacity(nodes.len());
    for n in nodes {
        let node = ed.graph().node(n).clone();
        let inputs: Vec<_> =
            node.inputs.iter().map(|v| v.map(|v| map.get(&v).copied().unwrap_or(v))).collect();
        let regions = node.regions.iter().map(|r| copy_region(ed, *r)).collect::<Result<Vec<_>, _>>()?;
        ed.set_loc(node.loc.clone());
        let out = ed.node_with_regions(node.op.clone(), &inputs, regions)?;
        for (old, new) in node.outputs.iter().zip(&out) {
            map.insert(*old, *new);
        }
        copies.extend(out.first().and_then(|v| ed.graph().def_node(*v)));
    }
    Ok(copies)
}

/// A copy of a region that no node holds yet.
pub fn copy_region(ed: &mut Editor<'_>, region: RegionId) -> Result<RegionId, Diag> {
    let place = ed.place();
    let new = ed.new_region();
    let mut map = BTreeMap::new();
    for p in ed.graph().region(region).params.clone() {
        let fact = ed.graph().value(p).fact.clone();
        map.insert(p, ed.param(new, fact));
    }
    ed.at_end(new);
    copy(ed, region, &mut map)?;
    for v in ed.graph().region(region).results.clone() {
        ed.result(new, map[&v]);
    }
    ed.go(place);
    Ok(new)
}
