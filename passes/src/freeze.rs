//! See [`Freeze`].

use crate::detect_sparsity::{Elements, layer, reencode};
use crate::options::OptionMeta;
use crate::sparsify_blocks::block;
use crate::{Options, Pass, PassCx, PassMeta, declare_pass};
use planish_ir::{Constant, Diag, Editor, Graph, NodeId};

declare_pass! {
    /// Makes the zeros of pruned weights part of their encoding: blocks of zeros are stored no more, and kernels skip them. For weights that
    /// were trained with masks of such blocks, whatever is predicted of the time; `detect-sparsity` looks for the size of blocks
    /// and for layers that gain.
    ///
    /// # Preserves
    /// All values: only the encoding of constants changes.
    ///
    /// # Declines
    /// A remark `freeze-declined` where a block of weights is zero but there is no kernel for blocks of that size, `freeze-done` where there
    /// is, with the share of the blocks that are kept. Weights without a block of zeros are passed over in silence.
    ///
    /// # Example
    /// The weights of a product in which nine of ten 1x16 blocks are zero become `blocks 1x16 kn [...] ...`.
    pub struct Freeze { block: [u32; 2] } = {
        name: "freeze",
        kind: Exact,
        options: [OptionMeta { name: "block", default: "1x16", doc: "inputs x outputs of a block" }]
    }
}

impl Freeze {
    pub(crate) fn new(o: &Options) -> Result<Self, Diag> {
        let text = o.text(Self::META.options, "block");
        let bad = || format!("`{text}` is no size of a block; sizes are written like 1x16");
        Ok(Freeze { block: block(text).ok_or_else(|| Diag::error("pass-option", bad()))? })
    }

    /// The weights of a node in blocks.
    fn blocks(
        &self,
        g: &Graph,
        n: NodeId,
        weights: &Elements<'_>,
        cx: &mut PassCx,
    ) -> Result<Option<Constant>, Diag> {
        let Some(layer) = layer(g, weights) else { return Ok(None) };
        let kept = layer.kept(self.block, weights);
        if kept >= 1.0 {
            return Ok(None);
        }
        let [bk, bn] = self.block;
        let text = format!("{}: {:.1}% of its blocks of {bk}x{bn} are kept", g.describe(n), 100.0 * kept);
        if !layer.takes(self.block, cx) {
            cx.remark(
                g,
                n,
                "freeze-declined",
                format!("{text}, but there is no kernel for such blocks of it"),
            );
            return Ok(None);
        }
        cx.remark(g, n, "freeze-done", text);
        cx.add("tensors-in-blocks", 1.0);
        layer.in_blocks(weights, self.block).map(Some)
    }
}

impl Pass for Freeze {
    fn meta(&self) -> &'static PassMeta {
        &Self::META
    }
    fn run(&self, ed: &mut Editor<'_>, cx: &mut PassCx) -> Result<(), Diag> {
        reencode(ed, cx, |g, n, weights, cx| self.blocks(g, n, weights, cx))
    }
}
