//! See [`SparsifyBlocks`].

use crate::options::OptionMeta;
use crate::weights::{self, Selection, Target};
use crate::{Options, Pass, PassCx, PassMeta, declare_pass};
use planish_ir::{Constant, Diag, Editor, Matrix, Tensor};

declare_pass! {
    /// Zeroes whole blocks of weights, those of the lowest score (Narang et al. 2017, "Block-sparse recurrent neural networks").
    ///
    /// Blocks are written inputs x outputs of the logical matrix, whatever its storage; the inputs of a convolution are channels, each with
    /// the places of its kernel. The score is the mean magnitude (`l1`), the root of the mean square (`l2`) or the largest magnitude (`max`)
    /// of a block. Eligible are the constant weights of matrix products and of convolutions without groups; the first layer is left alone
    /// unless `first=true`. With a threshold or with `scope=global` no tensor loses more than the share `cap` of its blocks: those of the
    /// highest scores stay.
    ///
    /// # Preserves
    /// Shapes, dtypes and node count; only payloads of constants change.
    ///
    /// # Declines
    /// A remark `blocks-skipped` for every tensor that is left alone, with the reason; `blocks-done` for every one that is not, with its counts.
    ///
    /// # Example
    /// `const f32[2,2] [0.1, 0.2, 3.0, -2.0]` of a product at `block=1x2,sparsity=0.5` becomes `const f32[2,2] [0.0, 0.0, 3.0, -2.0]`.
    pub struct SparsifyBlocks {
        block: [u32; 2],
        score: Score,
        sparsity: Option<f64>,
        threshold: Option<f64>,
        global: bool,
        cap: f64,
        which: Selection,
    } = {
        name: "sparsify-blocks",
        kind: Lossy,
        options: [
            OptionMeta { name: "block", default: "1x16", doc: "inputs x outputs of a block; there are kernels for 1x16, 4x16, 1x32, 4x32 and 32x32, and from 16 rows on for 1x1, 1x2 and 1x4" },
            OptionMeta { name: "score", default: "l2", doc: "`l1`, `l2` or `max`" },
            OptionMeta { name: "sparsity", default: "none", doc: "share of blocks to zero, 0 to 1" },
            OptionMeta { name: "threshold", default: "none", doc: "zero every block of lower score; instead of sparsity" },
            OptionMeta { name: "scope", default: "tensor", doc: "`tensor`: the share of each tensor; `global`: of all of them together" },
            weights::CAP,
            weights::INCLUDE,
            weights::EXCLUDE,
            weights::OPS,
            weights::FIRST,
        ]
    }
}

/// How a block is judged.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Score {
    L1,
    L2,
    Max,
}

impl Score {
    /// The score with one more element.
    fn add(self, score: f64, x: f64) -> f64 {
        match self {
            Score::L1 => score + x.abs(),
            Score::L2 => score + x * x,
            Score::Max => score.max(x.abs()),
        }
    }
    /// The score of `count` elements.
    fn finish(self, score: f64, count: usize) -> f64 {
        let n = count.max(1) as f64;
        match self {
            Score::L1 => score / n,
            Score::L2 => (score / n).sqrt(),
            Score::Max => score,
        }
    }
}

/// Reads `KxN`.
pub(crate) fn block(text: &str) -> Option<[u32; 2]> {
    let (k, n) = text.split_once('x')?;
    let block = [k.parse().ok()?, n.parse().ok()?];
    block.iter().all(|d| (1..=1024).contains(d)).then_some(block)
}

impl SparsifyBlocks {
    pub(crate) fn new(o: &Options) -> Result<Self, Diag> {
        let m = Self::META.options;
        let bad = |text: String| Diag::error("pass-option", text);
        let (sparsity, threshold) = (o.optional::<f64>(m, "sparsity")?, o.optional::<f64>(m, "threshold")?);
        if sparsity.is_some() == threshold.is_some() {
            return Err(bad("sparsify-blocks needs either sparsity or threshold".into()));
        }
        if sparsity.is_some_and(|s| !(0.0..=1.0).contains(&s))
            || threshold.is_some_and(|t| t.is_nan() || t < 0.0)
        {
            return Err(bad("sparsity is a share from 0 to 1, a threshold is not negative".into()));
        }
        let score = o.one_of(m, "score", &[("l1", Score::L1), ("l2", Score::L2), ("max", Score::Max)])?;
        let global = o.one_of(m, "scope", &[("tensor", false), ("global", true)])?;
        let text = o.text(m, "block");
        let block = block(text)
            .ok_or_else(|| bad(format!("`{text}` is no size of a block; sizes are written like 1x16")))?;
        let (cap, which) = (weights::cap(o, m)?, Selection::new(o, m)?);
        Ok(SparsifyBlocks { block, score, sparsity, threshold, global, cap, which })
    }
    /// Which of all blocks go: ties at the cut go by index, first ones first, so that a share is met exactly.
    fn zeroed(&self, scores: &[f64]) -> Vec<bool> {
        if let Some(t) = self.threshold {
            return scores.iter().map(|s| *s < t).collect();
        }
        lowest(scores, self.sparsity.unwrap_or(0.0))
    }
    /// The same of one tensor, `zeroed` of which were to go, without those that the cap keeps; whether it keeps any.
    fn capped(&self, scores: &[f64], zeroed: &[bool]) -> (Vec<bool>, bool) {
        let most = (self.cap * scores.len() as f64).round() as usize;
        let shared = self.global || self.threshold.is_some();
        match shared && zeroed.iter().filter(|z| **z).count() > most {
            true => (lowest(scores, self.cap), true),
            false => (zeroed.to_vec(), false),
        }
    }
}

/// The scores of all blocks of a matrix, row-major in its grid.
pub(crate) fn scores(score: Score, m: &Matrix, block: [u32; 2], values: &[f64]) -> Vec<f64> {
    let [down, across] = m.grid(block);
    let (mut scores, mut counts) = (vec![0.0; down * across], vec![0; down * across]);
    m.each(block, |at, i| {
        scores[at] = score.add(scores[at], values[i]);
        counts[at] += 1;
    });
    scores.iter().zip(counts).map(|(s, n)| score.finish(*s, n)).collect()
}

/// A share of all blocks, those of the lowest scores.
pub(crate) fn lowest(scores: &[f64], share: f64) -> Vec<bool> {
    let quota = (share * scores.len() as f64).round() as usize;
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|a, b| scores[*a].total_cmp(&scores[*b]).then(a.cmp(b)));
    let mut out = vec![false; scores.len()];
    order.into_iter().take(quota).for_each(|i| out[i] = true);
    out
}

impl Pass for SparsifyBlocks {
    fn meta(&self) -> &'static PassMeta {
        &Self::META
    }
    fn run(&self, ed: &mut Editor<'_>, cx: &mut PassCx) -> Result<(), Diag> {
        let mut work: Vec<(Target, Matrix, Vec<f64>)> = Vec::new();
        for t in self.which.targets(ed, cx, "blocks-skipped")? {
            let matrix = weights::lies_transposed(ed.graph(), t.node).and_then(|transposed| {
                Matrix::new(t.values.shape(), transposed).ok_or("its weights are no matrix")
            });
            match matrix {
                Err(why) => {
                    let text = format!("{}: left alone, {why}", t.name);
                    cx.remark_at(t.loc, "blocks-skipped", text);
                }
                Ok(m) => {
                    let scores = scores(self.score, &m, self.block, &t.values.to_f64());
                    work.push((t, m, scores));
                }
            }
        }
        let all: Vec<bool> = if self.global {
            self.zeroed(&work.iter().flat_map(|w| w.2.iter().copied()).collect::<Vec<_>>())
        } else {
            work.iter().flat_map(|w| self.zeroed(&w.2)).collect()
        };
        let mut rest = all.as_slice();
        for (t, m, scores) in work {
            let mut values = t.values.to_f64();
            let (gone, later) = rest.split_at(scores.len());
            rest = later;
            let (gone, capped) = self.capped(&scores, gone);
            m.each(self.block, |at, i| {
                if gone[at] {
                    values[i] = 0.0;
                }
            });
            let count = gone.iter().filter(|g| **g).count();
            let [bk, bn] = self.block;
            let held = if capped { format!(", no more than cap={}", self.cap) } else { String::new() };
            let text = format!("{}: {count} of {} blocks of {bk}x{bn} zeroed{held}", t.name, scores.len());
            if capped {
                cx.add("tensors-capped", 1.0);
            }
            cx.remark_at(t.loc, "blocks-done", text);
            cx.add("tensors-pruned", 1.0);
            cx.add("blocks-seen", scores.len() as f64);
            cx.add("blocks-zeroed", count as f64);
            let new = Tensor::floats(t.values.dtype(), t.values.shape(), values)?;
            ed.set_constant(t.id, Constant::from(new))?;
        }
        Ok(())
    }
}
