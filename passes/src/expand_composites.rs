//! See [`ExpandComposites`].

use crate::options::OptionMeta;
use crate::{Options, Pass, PassCx, PassMeta, declare_pass};
use planish_ir::op::composites::expand_composites;
use planish_ir::{Diag, Editor, Op};

declare_pass! {
    /// Replaces composites that have no kernel of their own by their parts, so that fusion sees these: attention becomes two matrix products,
    /// a factor, a mask and a softmax. Attention of f32 has a kernel where every dim of an operand is known to be 1 or that of the result.
    /// Stochastic gates become element-wise operations of their noise, and detached values themselves: gradients that are taken later are
    /// those of what is there then, no longer those of their estimators. Values rounded for training become element-wise operations too, or
    /// constants where they are constant. Products with a matrix in blocks become products with the whole matrix, and blocks of a product those of
    /// the whole product, where the positions of the blocks are data, elements are not f32, or blocks have sides beyond 32 or that are no power of two.
    ///
    /// # Preserves
    /// All outputs up to rounding (relative 1e-5 in f32): several roundings instead of one. Draws of stochastic gates differ where noise is
    /// that close to what decides.
    ///
    /// # Declines
    /// What has a kernel stays, unless `all` is true; metric `attention-kept`.
    ///
    /// # Example
    /// With `all=true`, `v3 = attention{scale=0.5, trans_k=true} q, k, v` becomes `matmul`, `binary{kind=mul}`, `softmax`, `matmul`.
    pub struct ExpandComposites { all: bool } = {
        name: "expand-composites",
        kind: Lowering,
        options: [OptionMeta { name: "all", default: "false", doc: "whether composites with a kernel are replaced too" }]
    }
}

impl ExpandComposites {
    pub(crate) fn new(o: &Options) -> Result<Self, Diag> {
        Ok(ExpandComposites { all: o.get(Self::META.options, "all")? })
    }
}

impl Pass for ExpandComposites {
    fn meta(&self) -> &'static PassMeta {
        &Self::META
    }
    fn run(&self, ed: &mut Editor<'_>, cx: &mut PassCx) -> Result<(), Diag> {
        let count = expand_composites(ed, self.all)?;
        let g = ed.graph();
        let kept = g.all_nodes().into_iter().filter(|n| matches!(g.node(*n).op, Op::Attention(_))).count();
        for (name, count) in [
            ("attention-expanded", count.attention),
            ("attention-kept", kept),
            ("stochastic-gates-expanded", count.gates),
            ("fake-quantize-expanded", count.rounded),
            ("blocks-expanded", count.blocks),
            ("detached-removed", count.detached),
        ] {
            if count > 0 {
                cx.add(name, count as f64);
            }
        }
        Ok(())
    }
}
