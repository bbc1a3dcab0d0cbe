//! See [`MergeDuplicates`].

use crate::{Options, Pass, PassCx, PassMeta, declare_pass, util};
use planish_ir::op::Effects;
use planish_ir::{Diag, Editor, Op, ValueId};
use std::collections::HashMap;

declare_pass! {
    /// Replaces a node by an earlier one of the same region with the same operation, fields and operands.
    ///
    /// # Preserves
    /// All outputs bit for bit.
    ///
    /// # Declines
    /// Nodes with regions stay, and random operations without an operand for their seed.
    ///
    /// # Example
    /// `v1 = unary{kind=exp} v0  v2 = unary{kind=exp} v0` becomes one node.
    pub struct MergeDuplicates {} = { name: "merge-duplicates", kind: Exact, options: [] }
}

impl MergeDuplicates {
    pub(crate) fn new(_: &Options) -> Result<Self, Diag> {
        Ok(MergeDuplicates {})
    }
}

impl Pass for MergeDuplicates {
    fn meta(&self) -> &'static PassMeta {
        &Self::META
    }
    fn run(&self, ed: &mut Editor<'_>, cx: &mut PassCx) -> Result<(), Diag> {
        let merged = merge(ed)?;
        if merged > 0 {
            cx.add("values-merged", merged as f64);
        }
        Ok(())
    }
}

/// Merges equal nodes; how many values got another one in their place.
pub(crate) fn merge(ed: &mut Editor<'_>) -> Result<usize, Diag> {
    let mut merged = 0;
    for (_, nodes) in util::regions(ed.graph()) {
        let mut seen: HashMap<(String, Vec<Option<ValueId>>), Vec<ValueId>> = HashMap::new();
        for n in nodes {
            let node = ed.graph().node(n);
            if !node.regions.is_empty() || node.effects() != Effects::None {
                continue;
            }
            let op = match &node.op {
                Op::Const(c) => format!("const {}", c.id),
                other => format!("{other:?}"),
            };
            let outputs = node.outputs.clone();
            match seen.get(&(op.clone(), node.inputs.clone())) {
                // Equal shape rules may still have made different symbols for data-dependent dims.
                Some(first) if same_types(ed, first, &outputs) => {
                    let first = first.clone();
                    for (old, new) in outputs.iter().zip(&first) {
                        if !ed.graph().uses(*old).is_empty() {
                            ed.replace(*old, *new);
                            merged += 1;
                        }
                    }
                    ed.erase(n)?;
                }
                Some(_) => {}
                None => {
                    seen.insert((op, node.inputs.clone()), outputs);
                }
            }
        }
    }
    Ok(merged)
}

fn same_types(ed: &Editor<'_>, a: &[ValueId], b: &[ValueId]) -> bool {
    a.iter().zip(b).all(|(x, y)| ed.graph().ty(*x) == ed.graph().ty(*y))
}
