//! See [`DetectSparsity`].

use crate::cost::{Asked, LEAST_ROWS, scattered};
use crate::{Options, Pass, PassCx, PassMeta, declare_pass, weights};
use planish_ir::op::conv::Conv;
use planish_ir::{ConstId, Constant, DType, Diag, Dim, Editor, Encoding, Graph, Matrix, NodeId, Op};
use std::collections::BTreeSet;

declare_pass! {
    /// Keeps weights as blocks where enough of them are zero and the kernel that skips these is faster.
    ///
    /// Looks for the size of blocks at which the least time is predicted; the prediction is that of a table for the target, by the rows of the
    /// product. Zeros may come from anywhere: a pass of this tool, another tool, training. Blocks of 16 or 32 outputs are for zeros that
    /// were made in such blocks; those of one input and 1, 2 or 4 outputs are for scattered zeros, and serve products of at least 16 rows and
    /// convolutions 1x1 of stride 1. Rows that no type tells (free symbols) count as one. Layers in which less than a tenth of the weights are zero are passed over in silence.
    ///
    /// # Preserves
    /// All values: only the encoding of constants changes.
    ///
    /// # Declines
    /// A remark `sparse-declined` where weights have zeros but the dense kernel is predicted to be as fast, `sparse-chosen` where it is
    /// not, both with the two numbers.
    ///
    /// # Example
    /// The weights of a product in which nine of ten 1x16 blocks are zero become `blocks 1x16 kn [...] ...`, those in which nine of ten
    /// are zero anywhere `blocks 1x1 kn [...] ...`.
    pub struct DetectSparsity {} = { name: "detect-sparsity", kind: Exact, options: [] }
}

/// Weights with fewer zeros than this are taken as dense.
const FEW_ZEROS: f64 = 0.1;
/// The part of the time of wide blocks that narrow ones may take to be chosen.
const NARROW: f64 = 0.95;
/// Channels from which on convolutions by transforms pay.
const TRANSFORMED: usize = 32;
/// Channels of a convolution that can skip scattered zeros: input channels from and to, output channels from.
const CHANNELS: (std::ops::RangeInclusive<usize>, usize) = (8..=4096, 8);

impl DetectSparsity {
    pub(crate) fn new(_: &Options) -> Result<Self, Diag> {
        Ok(DetectSparsity {})
    }
}

/// Whether the dense kernel of a convolution works on transformed tiles: stride 1, and a kernel of more than one place.
fn transformed(op: &Conv, shape: &[usize]) -> bool {
    let ones = |v: &[i64]| v.iter().all(|x| *x == 1);
    let kernel = &shape[2..];
    ones(&op.strides)
        && ones(&op.dilations)
        && kernel.iter().any(|k| *k > 1)
        && kernel.iter().all(|k| *k <= 5)
        && shape[..2].iter().all(|c| *c >= TRANSFORMED)
}

/// Whether the bytes of an f32 or of a signed byte are a zero, of either sign.
fn is_zero(element: &[u8]) -> bool {
    match element {
        [a, b, c, d] => u32::from_le_bytes([*a, *b, *c, *d]) << 1 == 0,
        bytes => bytes.iter().all(|b| *b == 0),
    }
}

/// What is known of weights.
struct Layer {
    node: NodeId,
    matrix: Matrix,
    convolution: bool,
    transformed: bool,
    /// Rows of the product at least.
    rows: u64,
    /// The sizes of blocks that there are kernels for.
    blocks: Blocks,
}

/// Sizes of blocks.
#[derive(Clone, Copy, PartialEq)]
enum Blocks {
    /// All.
    Any,
    /// All but those for scattered zeros.
    Wide,
    /// Wide ones of one input: several are no neighbours in memory.
    OneInput,
    /// Of as many inputs as one instruction multiplies bytes.
    Bytes,
}

impl Blocks {
    fn has(self, block: [u32; 2]) -> bool {
        match self {
            Blocks::Any | Blocks::Bytes => true,
            Blocks::Wide => !scattered(block),
            Blocks::OneInput => !scattered(block) && block[0] == 1,
        }
    }
}

/// The product of dims, where unknown ones count as one.
fn at_least(dims: &[Dim]) -> u64 {
    dims.iter().map(|d| d.as_const().map_or(1, |d| u64::try_from(d).unwrap_or(0))).product()
}

/// Rows of the product of a node at least: positions of an image for convolutions.
fn rows(g: &Graph, n: NodeId) -> u64 {
    let node = g.node(n);
    let dims = node.outputs.first().and_then(|v| g.dims(*v)).unwrap_or(&[]);
    match &node.op {
        Op::Conv(_) => at_least(dims.get(2..).unwrap_or(&[])),
        _ => at_least(dims.split_last().map_or(&[], |(_, rows)| rows)),
    }
}

/// Whether a convolution reads every position once and in place.
fn in_place(op: &Conv, shape: &[usize]) -> bool {
    shape[2..].iter().all(|k| *k == 1)
        && op.strides.iter().all(|s| *s == 1)
        && op.pads.iter().all(|p| *p == 0)
}

/// The layer that has a constant as its weights, if blocks of it can be kept.
fn layer(g: &Graph, id: ConstId, c: &Constant) -> Option<Layer> {
    let users = weights::users(g, id)?;
    let node = *users.first()?;
    let lies = weights::lies_transposed(g, node).ok()?;
    if users.iter().any(|n| weights::lies_transposed(g, *n) != Ok(lies)) {
        return None;
    }
    let matrix = Matrix::new(&c.shape, lies)?;
    // A product of several matrices has no such kernel.
    let lead = c.shape.len().checked_sub(2)?;
    let one = c.shape[..lead].iter().all(|d| *d == 1);
    let (transformed, blocks) = match (&g.node(node).op, c.dtype) {
        (Op::Conv(op), DType::F32) => {
            let every = |n: &NodeId| matches!(&g.node(*n).op, Op::Conv(op) if in_place(op, &c.shape));
            let enough = CHANNELS.0.contains(&c.shape[1]) && c.shape[0] >= CHANNELS.1;
            let blocks = match c.shape[2..].iter().all(|k| *k == 1) {
                true if enough && users.iter().all(every) => Blocks::Any,
                true => Blocks::Wide,
                false => Blocks::OneInput,
            };
            (transformed(op, &c.shape), blocks)
        }
        (Op::MatMul(_), DType::F32) if one && (lead == 0 || !lies) => (false, Blocks::Any),
        (Op::MatMulInteger(_), DType::I8) if lead == 0 && matrix.k.is_multiple_of(4) => {
            (false, Blocks::Bytes)
        }
        _ => return None,
    };
    let rows = users.iter().map(|n| rows(g, *n)).min()?;
    let convolution = matches!(g.node(node).op, Op::Conv(_));
    Some(Layer { node, matrix, convolution, transformed, rows, blocks })
}

impl Pass for DetectSparsity {
    fn meta(&self) -> &'static PassMeta {
        &Self::META
    }
    fn run(&self, ed: &mut Editor<'_>, cx: &mut PassCx) -> Result<(), Diag> {
        let g = ed.graph();
        let mut seen = BTreeSet::new();
        let mut found: Vec<(ConstId, Constant)> = Vec::new();
        for n in g.all_nodes() {
            let weights = g.node(n).op.weight_input().and_then(|i| crate::util::operand(g, n, i));
            let Some((id, c)) = weights.and_then(|w| g.as_const(w)) else { continue };
            let Encoding::Dense(values) = &c.encoding else { continue };
            if !matches!(c.dtype, DType::F32 | DType::I8) || !seen.insert(id) || c.is_empty() {
                continue;
            }
            let size = c.dtype.size();
            let zeros = values.bytes().chunks_exact(size).filter(|b| is_zero(b)).count();
            let zeros = zeros as f64 / c.len() as f64;
            if zeros < FEW_ZEROS {
                continue;
            }
            let name = g.describe(n);
            let percent = 100.0 * zeros;
            let Some(layer) = layer(g, id, c) else {
                let text = format!(
                    "{name}: {percent:.0}% of its weights are zero, but there is no kernel for blocks of it"
                );
                cx.remark(g, n, "sparse-declined", text);
                continue;
            };
            let bytes = values.bytes();
            let mut best: Option<([u32; 2], f64, f64)> = None;
            for block in cx.facts.sparse.blocks(c.dtype == DType::I8) {
                let asked = Asked {
                    block,
                    bytes: c.dtype == DType::I8,
                    rows: layer.rows,
                    convolution: layer.convolution,
                    transformed: layer.transformed,
                };
                if !layer.blocks.has(block) || cx.facts.sparse.of(asked, 0.0).is_none() {
                    continue;
                }
                let [down, across] = layer.matrix.grid(block);
                let mut kept = vec![false; down * across];
                layer.matrix.each(block, |at, i| kept[at] |= !is_zero(&bytes[i * size..(i + 1) * size]));
                let kept = kept.iter().filter(|k| **k).count() as f64 / kept.len() as f64;
                let Some(time) = cx.facts.sparse.of(asked, kept) else { continue };
                // Narrow blocks have longer lists, so they must be better by more than the table is exact to.
                let better = |(wide, _, t): ([u32; 2], f64, f64)| {
                    time < if scattered(block) && !scattered(wide) { NARROW * t } else { t }
                };
                if best.is_none_or(better) {
                    best = Some((block, kept, time));
                }
            }
            let Some(([bk, bn], kept, time)) = best else { continue };
            let kept = 100.0 * kept;
            let gains = time <= cx.facts.sparse.margin;
            let few = match !gains && layer.rows < LEAST_ROWS && layer.blocks == Blocks::Any {
                true => format!(
                    "; scattered zeros are skipped from {LEAST_ROWS} rows on, {} is certain here",
                    layer.rows
                ),
                false => String::new(),
            };
            let text = format!(
                "{name}: {percent:.0}% of its weights are zero, {kept:.0}% of its blocks of {bk}x{bn} are not: {time:.2} of the time of the dense kernel predicted at {} rows, at most {} wanted{few}",
                layer.rows, cx.facts.sparse.margin
            );
            if !gains {
                cx.remark(g, layer.node, "sparse-declined", text);
                continue;
            }
            cx.remark(g, layer.node, "sparse-chosen", text);
            cx.add("tensors-in-blocks", 1.0);
            found.push((id, Constant::in_blocks(&c.decode()?, [bk, bn], layer.matrix.transposed)?));
        }
        for (id, c) in found {
            ed.set_constant(id, c)?;
        }
        Ok(())
    }
}
