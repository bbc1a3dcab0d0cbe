//! See [`ExpandComposites`].

use crate::{Options, Pass, PassCx, PassMeta, declare_pass};
use planish_ir::op::attention::expand_attention;
use planish_ir::{Diag, Editor};

declare_pass! {
    /// Replaces composites that have no kernel of their own by their parts, so that fusion sees these: attention becomes two matrix products, a factor, a mask and a softmax.
    ///
    /// # Preserves
    /// All outputs up to rounding (relative 1e-5 in f32): several roundings instead of one.
    ///
    /// # Declines
    /// Nothing: every composite has parts.
    ///
    /// # Example
    /// `v3 = attention{scale=0.5, trans_k=true} q, k, v` becomes `matmul`, `binary{kind=mul}`, `softmax`, `matmul`.
    pub struct ExpandComposites {} = { name: "expand-composites", kind: Lowering, options: [] }
}

impl ExpandComposites {
    pub(crate) fn new(_: &Options) -> Result<Self, Diag> {
        Ok(ExpandComposites {})
    }
}

impl Pass for ExpandComposites {
    fn meta(&self) -> &'static PassMeta {
        &Self::META
    }
    fn run(&self, ed: &mut Editor<'_>, cx: &mut PassCx) -> Result<(), Diag> {
        let count = expand_attention(ed)?;
        if count > 0 {
            cx.add("attention-expanded", count as f64);
        }
        Ok(())
    }
}
