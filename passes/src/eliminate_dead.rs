//! See [`EliminateDead`].

use crate::{Options, Pass, PassCx, PassMeta, declare_pass, util};
use planish_ir::graph::Use;
use planish_ir::op::Effects;
use planish_ir::{Diag, Editor, NodeId, RegionId};

declare_pass! {
    /// Removes nodes whose results nobody uses, captures that a region does not use, and constants without users.
    ///
    /// # Preserves
    /// All outputs bit for bit, and checks that may end a run. Random operations may vanish as well.
    ///
    /// # Declines
    /// Never; inputs of the graph stay even when unused, because callers pass them.
    ///
    /// # Example
    /// `v1 = unary{kind=neg} v0` without a user disappears.
    pub struct EliminateDead {} = { name: "eliminate-dead", kind: Exact, options: [] }
}

impl EliminateDead {
    pub(crate) fn new(_: &Options) -> Result<Self, Diag> {
        Ok(EliminateDead {})
    }
}

impl Pass for EliminateDead {
    fn meta(&self) -> &'static PassMeta {
        &Self::META
    }
    fn run(&self, ed: &mut Editor<'_>, cx: &mut PassCx) -> Result<(), Diag> {
        loop {
            let before = ed.edits();
            for (_, nodes) in util::regions(ed.graph()).into_iter().rev() {
                for n in nodes.into_iter().rev() {
                    let g = ed.graph();
                    if !g.is_live(n) {
                        continue;
                    }
                    let stops = g.node(n).effects() == Effects::Stops;
                    if !stops && g.node(n).outputs.iter().all(|v| g.uses(*v).is_empty()) {
                        ed.erase(n)?;
                        cx.add("nodes-removed", 1.0);
                    } else if !g.node(n).regions.is_empty() {
                        drop_captures(ed, n);
                    }
                }
            }
            if ed.edits() == before {
                break;
            }
        }
        ed.free_unused_constants();
        Ok(())
    }
}

/// Drops operands of a node with regions that only feed parameters nobody uses. Which operand feeds which parameter
/// is known where all regions take the same trailing operands: the captures.
fn drop_captures(ed: &mut Editor<'_>, n: NodeId) {
    let node = ed.graph().node(n);
    let Some(first) = util::captures_from(&node.op) else { return };
    let regions: Vec<(RegionId, usize)> =
        node.regions.iter().map(|r| (*r, ed.graph().region(*r).params.len())).collect();
    for i in (first..node.inputs.len()).rev() {
        let g = ed.graph();
        let from_end = g.node(n).inputs.len() - i;
        let params: Vec<(RegionId, usize)> =
            regions.iter().map(|(r, _)| (*r, g.region(*r).params.len() - from_end)).collect();
        let unused = params.iter().all(|(r, p)| {
            let v = g.region(*r).params[*p];
            g.uses(v).iter().all(|u| matches!(u, Use::Node(m, _) if !g.is_live(*m)))
        });
        if unused {
            ed.drop_capture(n, i, &params);
        }
    }
}
