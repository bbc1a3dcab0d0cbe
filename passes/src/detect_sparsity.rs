//! See [`DetectSparsity`].

use crate::cost::{Asked, Job, LEAST_ROWS, scattered};
use crate::{Options, Pass, PassCx, PassMeta, declare_pass, weights};
use planish_ir::op::conv::Conv;
use planish_ir::{ConstId, Constant, DType, Diag, Dim, Editor, Encoding, Graph, Matrix, NodeId, Op, Order};
use std::collections::BTreeSet;

declare_pass! {
    /// Keeps weights as blocks where enough of them are zero and the kernel that skips these is faster.
    ///
    /// Looks for the size of blocks at which the least time is predicted; the prediction is that of a table for the target, by the rows of the
    /// product. Zeros may come from anywhere: a pass of this tool, another tool, training. Blocks of 16 or 32 outputs are for zeros that
    /// were made in such blocks; those of one input and 1, 2 or 4 outputs are for scattered zeros, and serve products of at least 16 rows and
    /// convolutions 1x1 of stride 1. What a recurrent layer takes from its input is a product of as many rows as there are steps in the whole
    /// batch; its recurrence, a product of as many rows as the batch has entries, has kernels for blocks of one input and 8 or 16 units of a
    /// gate. Rows that no type tells (free symbols) count as one. Layers in which less than a tenth of the weights are zero are passed over in silence.
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
/// The operand of a recurrent layer that holds the weights of its recurrence.
const RECURRENCE: usize = 2;
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

/// Dense weights that may lie in blocks.
pub(crate) struct Elements<'c> {
    id: ConstId,
    constant: &'c Constant,
    bytes: &'c [u8],
}

impl<'c> Elements<'c> {
    fn of(id: ConstId, constant: &'c Constant) -> Option<Elements<'c>> {
        let Encoding::Dense(values) = &constant.encoding else { return None };
        let fits = matches!(constant.dtype, DType::F32 | DType::I8) && !constant.is_empty();
        fits.then(|| Elements { id, constant, bytes: values.bytes() })
    }
    /// Whether an element is zero.
    fn zero(&self, i: usize) -> bool {
        let size = self.constant.dtype.size();
        is_zero(&self.bytes[i * size..(i + 1) * size])
    }
}

/// What is known of weights.
pub(crate) struct Layer {
    node: NodeId,
    /// What of the node it is, for remarks.
    part: &'static str,
    matrix: Matrix,
    order: Order,
    /// Outputs that blocks do not go beyond.
    group: usize,
    job: Job,
    /// Whether weights are bytes.
    bytes: bool,
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
    /// Those that the table has for it.
    Own,
}

impl Blocks {
    fn has(self, block: [u32; 2]) -> bool {
        match self {
            Blocks::Any | Blocks::Own => true,
            Blocks::Wide => !scattered(block),
            Blocks::OneInput => !scattered(block) && block[0] == 1,
        }
    }
}

/// The product of dims, where unknown ones count as one.
fn at_least(dims: &[Dim]) -> u64 {
    dims.iter().map(|d| d.as_const().map_or(1, |d| u64::try_from(d).unwrap_or(0))).product()
}

/// Rows of the product of a node with one of its operands at least: positions of an image for convolutions.
fn rows(g: &Graph, n: NodeId, operand: usize) -> u64 {
    let node = g.node(n);
    let dims = node.outputs.first().and_then(|v| g.dims(*v)).unwrap_or(&[]);
    match &node.op {
        Op::Conv(_) => at_least(dims.get(2..).unwrap_or(&[])),
        // [steps, directions, batch, units]
        Op::Recurrent(_) if operand == RECURRENCE => at_least(dims.get(2..3).unwrap_or(&[])),
        Op::Recurrent(_) => at_least(dims.get(..1).unwrap_or(&[])) * at_least(dims.get(2..3).unwrap_or(&[])),
        _ => at_least(dims.split_last().map_or(&[], |(_, rows)| rows)),
    }
}

/// Whether a convolution reads every position once and in place.
fn in_place(op: &Conv, shape: &[usize]) -> bool {
    shape[2..].iter().all(|k| *k == 1)
        && op.strides.iter().all(|s| *s == 1)
        && op.pads.iter().all(|p| *p == 0)
}

/// Whether the weights and biases of a recurrent layer are constants of f32: only then are they packed.
fn packed(g: &Graph, n: NodeId) -> bool {
    let known = |i: usize| {
        let v = crate::util::operand(g, n, i);
        v.map(|v| g.as_const(v).is_some_and(|(_, c)| c.dtype == DType::F32))
    };
    [1, RECURRENCE, 3].into_iter().all(|i| known(i) != Some(false))
}

/// The layer that has these weights, if blocks of them can be kept.
pub(crate) fn layer(g: &Graph, elements: &Elements<'_>) -> Option<Layer> {
    let c = elements.constant;
    let users = weights::uses(g, elements.id)?;
    let (node, operand) = *users.first()?;
    let order = weights::order(g, node).ok()?;
    let recurrent = matches!(g.node(node).op, Op::Recurrent(_));
    let alike = |(n, i): &(NodeId, usize)| *i == operand && weights::order(g, *n) == Ok(order);
    if !users.iter().all(alike) {
        return None;
    }
    let matrix = Matrix::new(&c.shape, order)?;
    // A product of several matrices has no such kernel.
    let lead = c.shape.len().checked_sub(2)?;
    let one = c.shape[..lead].iter().all(|d| *d == 1);
    let (job, blocks) = match (&g.node(node).op, c.dtype) {
        (Op::Conv(op), DType::F32) => {
            let every =
                |(n, _): &(NodeId, usize)| matches!(&g.node(*n).op, Op::Conv(op) if in_place(op, &c.shape));
            let enough = CHANNELS.0.contains(&c.shape[1]) && c.shape[0] >= CHANNELS.1;
            let blocks = match c.shape[2..].iter().all(|k| *k == 1) {
                true if enough && users.iter().all(every) => Blocks::Any,
                true => Blocks::Wide,
                false => Blocks::OneInput,
            };
            (if transformed(op, &c.shape) { Job::Transformed } else { Job::Convolution }, blocks)
        }
        (Op::MatMul(_), DType::F32) if one && (lead == 0 || order == Order::Kn) => {
            (Job::Product, Blocks::Any)
        }
        (Op::MatMulInteger(_), DType::I8) if lead == 0 && matrix.k.is_multiple_of(4) => {
            (Job::Product, Blocks::Own)
        }
        (Op::Recurrent(_), DType::F32) if users.iter().all(|(n, _)| packed(g, *n)) => match operand {
            RECURRENCE => (Job::Recurrence, Blocks::Own),
            _ => (Job::Product, Blocks::Any),
        },
        _ => return None,
    };
    let rows = users.iter().map(|(n, i)| rows(g, *n, *i)).min()?;
    let part = match (recurrent, job) {
        (false, _) => "",
        (true, Job::Recurrence) => " (recurrence)",
        (true, _) => " (input)",
    };
    // The gates of a recurrence are cut one by one.
    let group = if job == Job::Recurrence { matrix.k } else { matrix.n };
    Some(Layer { node, part, matrix, order, group, job, bytes: c.dtype == DType::I8, rows, blocks })
}

impl Layer {
    /// Whether there is a kernel for blocks of a size.
    pub(crate) fn takes(&self, block: [u32; 2], cx: &PassCx) -> bool {
        self.blocks.has(block) && cx.facts.sparse.of(self.asked(block), 0.0).is_some()
    }
    /// What the table of costs is asked about a size of blocks.
    fn asked(&self, block: [u32; 2]) -> Asked {
        Asked { block, bytes: self.bytes, rows: self.rows, job: self.job }
    }
    /// The weights in blocks.
    pub(crate) fn in_blocks(&self, weights: &Elements<'_>, block: [u32; 2]) -> Result<Constant, Diag> {
        Constant::in_blocks(&weights.constant.decode()?, block, self.order)
    }
    /// The share of blocks that hold anything but zeros.
    pub(crate) fn kept(&self, block: [u32; 2], weights: &Elements<'_>) -> f64 {
        let (height, width) = (block[0].max(1) as usize, block[1].max(1) as usize);
        let group = self.group.max(1);
        let (down, across) = (self.matrix.k.div_ceil(height), group.div_ceil(width));
        let mut kept = vec![false; down * across * self.matrix.n.div_ceil(group)];
        self.matrix.each([1, 1], |at, i| {
            let (k, n) = (at / self.matrix.n, at % self.matrix.n);
            let strip = n / group * across + n % group / width;
            kept[strip * down + k / height] |= !weights.zero(i);
        });
        kept.iter().filter(|k| **k).count() as f64 / kept.len().max(1) as f64
    }
}

impl Pass for DetectSparsity {
    fn meta(&self) -> &'static PassMeta {
        &Self::META
    }
    fn run(&self, ed: &mut Editor<'_>, cx: &mut PassCx) -> Result<(), Diag> {
        reencode(ed, cx, judge)
    }
}

/// Gives dense constants that nodes have as weights the encodings that `judge` finds for them.
pub(crate) fn reencode(
    ed: &mut Editor<'_>,
    cx: &mut PassCx,
    judge: impl Fn(&Graph, NodeId, &Elements<'_>, &mut PassCx) -> Result<Option<Constant>, Diag>,
) -> Result<(), Diag> {
    let g = ed.graph();
    let mut seen = BTreeSet::new();
    let mut found: Vec<(ConstId, Constant)> = Vec::new();
    for n in g.all_nodes() {
        for operand in g.node(n).op.weight_inputs() {
            let weights = crate::util::operand(g, n, operand);
            let Some((id, c)) = weights.and_then(|w| g.as_const(w)) else { continue };
            if !seen.insert(id) {
                continue;
            }
            let Some(elements) = Elements::of(id, c) else { continue };
            if let Some(blocks) = judge(g, n, &elements, cx)? {
                found.push((id, blocks));
            }
        }
    }
    found.into_iter().try_for_each(|(id, c)| ed.set_constant(id, c))
}

/// The weights of a node in blocks, if that pays.
fn judge(g: &Graph, n: NodeId, weights: &Elements<'_>, cx: &mut PassCx) -> Result<Option<Constant>, Diag> {
    let count = weights.constant.len();
    let zeros = (0..count).filter(|i| weights.zero(*i)).count();
    let zeros = zeros as f64 / count as f64;
    if zeros < FEW_ZEROS {
        return Ok(None);
    }
    let name = g.describe(n);
    let percent = 100.0 * zeros;
    let Some(layer) = layer(g, weights) else {
        let text =
            format!("{name}: {percent:.0}% of its weights are zero, but there is no kernel for blocks of it");
        cx.remark(g, n, "sparse-declined", text);
        return Ok(None);
    };
    let costs = &cx.facts.sparse;
    let mut best: Option<([u32; 2], f64, f64)> = None;
    for block in costs.blocks(layer.job, layer.bytes) {
        if !layer.takes(block, cx) {
            continue;
        }
        let kept = layer.kept(block, weights);
        let Some(time) = costs.of(layer.asked(block), kept) else { continue };
        // Narrow blocks have longer lists, so they must be better by more than the table is exact to.
        let better = |(wide, _, t): ([u32; 2], f64, f64)| {
            time < if scattered(block) && !scattered(wide) { NARROW * t } else { t }
        };
        if best.is_none_or(better) {
            best = Some((block, kept, time));
        }
    }
    let Some(([bk, bn], kept, time)) = best else { return Ok(None) };
    let kept = 100.0 * kept;
    let gains = time <= costs.margin;
    let few = match !gains && layer.rows < LEAST_ROWS && layer.blocks == Blocks::Any {
        true => {
            format!("; scattered zeros are skipped from {LEAST_ROWS} rows on, {} is certain here", layer.rows)
        }
        false => String::new(),
    };
    let text = format!(
        "{name}{}: {percent:.0}% of its weights are zero, {kept:.0}% of its blocks of {bk}x{bn} are not: {time:.2} of the time of the dense kernel predicted at {} rows, at most {} wanted{few}",
        layer.part, layer.rows, costs.margin
    );
    if !gains {
        cx.remark(g, layer.node, "sparse-declined", text);
        return Ok(None);
    }
    cx.remark(g, layer.node, "sparse-chosen", text);
    cx.add("tensors-in-blocks", 1.0);
    layer.in_blocks(weights, [bk, bn]).map(Some)
}
