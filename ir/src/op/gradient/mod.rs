//! Differentiation of single nodes.
//!
//! Reverse mode: the rule of an operation turns the gradients of a scalar with respect to its results into those with respect to its
//! operands, as nodes of the same graph (products of a vector with the Jacobian; Griewank and Walther, *Evaluating Derivatives*, 2008).
//! Rules stand with their operations, see [`OpDef::gradient`](super::OpDef::gradient); what they share is here. Where a function has a kink, a rule
//! gives one of its subgradients.

#[cfg(test)]
mod free_tests;
#[cfg(test)]
mod linear_tests;
#[cfg(test)]
mod region_tests;
mod sweep;
#[cfg(test)]
pub(crate) mod tests;

pub use sweep::{copy, copy_region, sweep};

use crate::diag::Diag;
use crate::dtype::DType;
use crate::editor::Editor;
use crate::graph::{NodeId, ValueId};
use crate::op::Op;
use crate::op::binary::BinaryKind;
use crate::op::build::Build;
use std::collections::BTreeSet;
use std::ops::{Deref, DerefMut};

/// A node that is differentiated, and the place where the nodes of its rule go.
pub struct GradCx<'e, 'g> {
    build: Build<'e, 'g>,
    node: NodeId,
    inputs: Vec<Option<ValueId>>,
    outputs: Vec<ValueId>,
    seeds: Vec<Option<ValueId>>,
    wanted: Vec<bool>,
    given: Vec<Option<ValueId>>,
}

/// The gradients with respect to the operands of a node that are `wanted`, given those with respect to its results (none: zero). None:
/// the results do not depend on that operand, or not smoothly anywhere.
pub fn of_node(
    ed: &mut Editor<'_>,
    node: NodeId,
    seeds: &[Option<ValueId>],
    wanted: &[bool],
) -> Result<Vec<Option<ValueId>>, Diag> {
    let n = ed.graph().node(node);
    let (op, loc) = (n.op.clone(), n.loc.clone());
    let (inputs, outputs) = (n.inputs.clone(), n.outputs.clone());
    let float = |v: &Option<ValueId>| v.and_then(|v| ed.graph().dtype(v)).is_some_and(DType::is_float);
    let wanted: Vec<bool> = inputs.iter().zip(wanted).map(|(v, w)| *w && float(v)).collect();
    let given = vec![None; inputs.len()];
    if seeds.iter().all(Option::is_none) || !wanted.contains(&true) {
        return Ok(given);
    }
    let seeds = seeds.to_vec();
    ed.set_loc(loc.clone());
    let build = Build::new(ed, op.name());
    let mut cx = GradCx { build, node, inputs, outputs, seeds, wanted, given };
    op.gradient(&mut cx).map_err(|d| d.at(loc))?;
    Ok(cx.given)
}

impl<'e, 'g> Deref for GradCx<'e, 'g> {
    type Target = Build<'e, 'g>;
    fn deref(&self) -> &Build<'e, 'g> {
        &self.build
    }
}

impl<'e, 'g> DerefMut for GradCx<'e, 'g> {
    fn deref_mut(&mut self) -> &mut Build<'e, 'g> {
        &mut self.build
    }
}

impl GradCx<'_, '_> {
    /// The node itself, of the forward computation.
    pub fn node(&self) -> NodeId {
        self.node
    }
    /// Why there is no rule for what the node does.
    pub fn no_rule(&self, what: &str) -> Diag {
        let what = if what.is_empty() { String::new() } else { format!(" {what}") };
        Diag::error("unsupported-gradient", format!("`{}`{what} has no gradient here", self.build.what()))
    }
    /// Whether an operand is there.
    pub fn has(&self, i: usize) -> bool {
        self.inputs.get(i).is_some_and(Option::is_some)
    }
    /// An operand.
    pub fn input(&self, i: usize) -> Result<ValueId, Diag> {
        let v = self.inputs.get(i).copied().flatten();
        v.ok_or_else(|| Diag::error("arity", format!("operand {i} is missing")))
    }
    /// The operands.
    pub fn inputs(&self) -> &[Option<ValueId>] {
        &self.inputs
    }
    /// How many operands there are, with those that are omitted.
    pub fn len(&self) -> usize {
        self.inputs.len()
    }
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.inputs.is_empty()
    }
    /// A result.
    pub fn output(&self, k: usize) -> ValueId {
        self.outputs[k]
    }
    /// How many results there are.
    pub fn outputs(&self) -> usize {
        self.outputs.len()
    }
    /// The gradient of a result; none where that is zero.
    pub fn seed(&self, k: usize) -> Option<ValueId> {
        self.seeds.get(k).copied().flatten()
    }
    /// The gradient of the first result, of operations whose others are not differentiated.
    pub fn only_seed(&self) -> Result<ValueId, Diag> {
        if self.seeds.iter().skip(1).any(Option::is_some) {
            return Err(self.no_rule("with respect to its further results"));
        }
        self.seed(0).ok_or_else(|| self.no_rule("without a gradient of its result"))
    }
    /// Whether the gradient of an operand is asked for.
    pub fn wants(&self, i: usize) -> bool {
        self.wanted.get(i).copied().unwrap_or(false)
    }
    /// Gives the gradient of an operand, of the shape of the operand or of one that the operand was broadcast to; adds to what was given before.
    pub fn give(&mut self, i: usize, gradient: ValueId) -> Result<(), Diag> {
        if !self.wants(i) {
            return Ok(());
        }
        let operand = self.input(i)?;
        let gradient = self.sum_to(gradient, operand)?;
        self.given[i] = Some(match self.given[i] {
            Some(before) => self.binary(BinaryKind::Add, before, gradient)?,
            None => gradient,
        });
        Ok(())
    }

    /// The rule of an operation that moves elements within their shape and whose inverse it is itself: `op` on the gradient and the further operands.
    pub fn give_by(&mut self, op: impl Into<Op>) -> Result<(), Diag> {
        let mut operands = self.inputs.clone();
        operands[0] = Some(self.only_seed()?);
        let dx = self.ed.node(op, &operands)?;
        self.give(0, dx[0])
    }
    /// The rule of an operation that gives the elements of its first operand in their order.
    pub fn give_reshaped(&mut self) -> Result<(), Diag> {
        let (dy, x) = (self.only_seed()?, self.input(0)?);
        let dx = self.reshape_like(dy, x)?;
        self.give(0, dx)
    }
    /// The rule of an operation that others make up: `build` makes its results of its operands, and those nodes are differentiated.
    pub fn through(
        &mut self,
        build: impl FnOnce(&mut Self) -> Result<Vec<ValueId>, Diag>,
    ) -> Result<(), Diag> {
        let region = self.ed.region();
        let before: BTreeSet<NodeId> = self.ed.graph().nodes_in(region).collect();
        let results = build(self)?;
        let nodes: Vec<NodeId> = self.ed.graph().nodes_in(region).filter(|n| !before.contains(n)).collect();
        let seeds: Vec<(ValueId, ValueId)> =
            results.into_iter().zip(&self.seeds).filter_map(|(v, d)| Some((v, (*d)?))).collect();
        let mut variables: Vec<(usize, ValueId)> = Vec::new();
        for (i, v) in self.inputs.iter().enumerate() {
            // A value that is two operands gets the gradient of both at once.
            if let Some(v) = v.filter(|v| self.wants(i) && variables.iter().all(|(_, w)| w != v)) {
                variables.push((i, v));
            }
        }
        let values: Vec<ValueId> = variables.iter().map(|(_, v)| *v).collect();
        let found = sweep(self.build.ed, &nodes, &seeds, &values)?;
        for ((i, _), d) in variables.into_iter().zip(found) {
            if let Some(d) = d {
                self.give(i, d)?;
            }
        }
        Ok(())
    }
}
