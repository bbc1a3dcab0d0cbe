//! Convolutions on [blocked channels](crate::lower::layout): vectors of output channels, scalars of the input.
//!
//! | | input |
//! |---|---|
//! | 1x1, stride 1 | read in place, all positions in one line |
//! | 1x1, stride 1, weights with scattered zeros | transposed next to the sums ([`scattered`]) |
//! | up to 5x5, stride 1, large enough | transformed first ([`winograd`]) |
//! | otherwise | a padded window of it is copied next to the sums first ([`window`]) |
//! | bytes | the same, four neighbouring channels at once ([`bytes`]) |
//! | one channel a group | the same, vectors of channels on both sides ([`depthwise`]) |
//!
//! Weights lie as `[group][output block][k][16]`, `k` running over input blocks, then the kernel, then the channels of the block.

mod bytes;
#[cfg(test)]
mod bytes_tests;
mod depthwise;
mod direct;
mod expand;
mod scattered;
#[cfg(test)]
mod tests;
mod window;
mod winograd;

pub(in crate::lower) use expand::Deferred;

use super::conv::Shape;
use super::epilogue::Epilogue;
use super::tile::rows_that_fit;
use super::{div_up, f32_bytes, sparse};
use crate::kernel::{Builder, TargetSpec, Val};
use crate::lower::cx::{LowerCx, Opnd};
use crate::lower::launch::{KernelCx, Launch};
use crate::lower::layout::BLOCK;
use planish_ir::op::conv::Conv;
use planish_ir::op::quant::ConvInteger;
use planish_ir::{DType, Diag, Dim, ValueId};

/// Inputs of fewer channels are read plain, with all channels of a position together.
const FEW: i64 = 8;
/// Convolutions to fewer channels stay plain.
const LEAST: i64 = 8;
/// Bytes of a window of the input, at most.
const WINDOW_BYTES: i64 = 128 << 10;
/// The same where weights do not stay near the core, so that they should be read for as many rows as possible.
const DEEP_WINDOW_BYTES: i64 = 288 << 10;
/// Columns of a tile, at least, where the result is wider.
const NARROW: i64 = 12;
/// Bytes of the weights that one unit of work reads, about.
const WEIGHT_BYTES: i64 = 512 << 10;
/// Positions of a register tile, at most.
const MOST: usize = 14;
/// The same of weights in blocks, where one vector of output channels is computed at a time.
const MOST_SPARSE: usize = 24;
/// Units of work that a launch is cut into, at least, where its size is known.
const UNITS: i64 = 8;

/// The operands of a convolution.
pub(super) struct Operands {
    pub(super) x: ValueId,
    pub(super) w: ValueId,
    pub(super) bias: Option<Opnd>,
    /// Zero points of stored integers: of the input in memory, and of the weights.
    pub(super) zero: Option<Opnd>,
    pub(super) w_zero: Option<ValueId>,
    /// Dims of the result.
    pub(super) out: Vec<Dim>,
}

/// A convolution along two spatial axes; one along a single axis has rows of height 1.
pub(super) struct Plan2 {
    groups: i64,
    /// Output and input channels of a group.
    mg: i64,
    cg: i64,
    kernel: [i64; 2],
    strides: [i64; 2],
    dilations: [i64; 2],
    pads: [Dim; 2],
    batch: Dim,
    input: [Dim; 2],
    output: [Dim; 2],
    /// The tile of a unit of work, where that reads a window.
    window: Option<window::Tile>,
    /// How it is transformed, if it is.
    winograd: Option<winograd::Form>,
    /// Whether its weights are [blocks](super::sparse) of which some are kept.
    sparse: bool,
    /// Whether input and weights are stored integers of 8 bits.
    bytes: bool,
    /// Whether sums of two products of such fit 16 bits.
    pairs: bool,
}

impl Plan2 {
    /// Bytes of an element of input and weights.
    fn size(&self) -> i64 {
        if self.bytes { 1 } else { 4 }
    }
    /// So many channels of the input as the weights are packed for.
    fn padded(&self, channels: i64) -> i64 {
        if self.bytes { div_up(channels, bytes::GROUP) * bytes::GROUP } else { channels }
    }
    /// [`Plan2::k`] as the weights are packed for.
    fn padded_k(&self) -> i64 {
        self.padded(self.cg) * self.kk()
    }
    fn kk(&self) -> i64 {
        self.kernel[0] * self.kernel[1]
    }
    fn k(&self) -> i64 {
        self.cg * self.kk()
    }
    /// Output blocks of a group.
    fn blocks(&self) -> i64 {
        div_up(self.mg, BLOCK)
    }
    fn depthwise(&self) -> bool {
        self.groups > 1 && self.mg == 1 && self.cg == 1
    }
    /// Whether the positions of the result are those of the input.
    fn in_place(&self) -> bool {
        self.kernel == [1, 1] && self.strides == [1, 1] && self.pads.iter().all(|p| p.is(0))
    }
    /// Output blocks that are done together on AVX-512.
    fn wide(&self) -> i64 {
        match self.blocks() {
            // Every block has a list of its own.
            _ if self.sparse => 1,
            1 => 1,
            b if b % 2 == 0 => 2,
            b if b % 3 == 0 => 3,
            _ => 2,
        }
    }
    /// Runs `body` with the first and the number of the vectors of output channels of every register tile, of `blocks` blocks.
    fn for_vectors(
        &self,
        b: &mut Builder,
        target: &TargetSpec,
        lanes: u16,
        blocks: Val,
        body: impl Fn(&mut Builder, Val, usize),
    ) {
        let per_block = BLOCK / i64::from(lanes);
        let nv = match per_block {
            1 => self.wide(),
            n if target.registers >= 32 => n.min(4),
            _ => 2,
        };
        let total = b.mul(blocks, per_block);
        let whole = b.sdiv(total, nv);
        let end = b.mul(whole, nv);
        b.loop_(0, end, nv, |b, v| body(b, v, nv as usize));
        if per_block == 1 && self.blocks() % nv != 0 {
            b.loop_(end, total, 1, |b, v| body(b, v, 1));
        }
    }
    /// Positions of a register tile of `nv` vectors, at most.
    fn most(&self, target: &TargetSpec, nv: usize) -> usize {
        if self.bytes {
            return bytes::positions(target, nv, self.pairs);
        }
        rows_that_fit(target, nv, if self.sparse && nv == 1 { MOST_SPARSE } else { MOST })
    }
    fn positions(&self) -> Dim {
        self.output[0].mul(&self.output[1])
    }
    /// Appends the run-time sizes to a launch.
    fn dims(&self, l: Launch) -> Launch {
        l.dims(&self.input).dims(&self.output).dims(&self.pads)
    }
    /// Reads what [`Plan2::dims`] appended, from dim `at`.
    fn sizes(&self, k: &KernelCx<'_>, at: usize) -> Sizes {
        let two = |i: usize| [k.dim(at + i), k.dim(at + i + 1)];
        Sizes { input: two(0), output: two(2), pads: two(4) }
    }
}

/// The weights of a convolution.
enum WeightsOf<'w> {
    Dense(&'w [f32]),
    Bytes(&'w [i8]),
    Blocks(sparse::Blocks),
}

/// Run-time sizes, rows first.
struct Sizes {
    input: [Val; 2],
    output: [Val; 2],
    pads: [Val; 2],
}

/// The convolution as one on blocked channels, if it is one that profits. `blocked` says whether the input lies so.
pub(super) fn plan(
    cx: &LowerCx<'_>,
    op: &Conv,
    x: ValueId,
    w: ValueId,
    out: &[Dim],
    blocked: bool,
) -> Option<Plan2> {
    let f32s = [x, w].iter().all(|v| cx.graph.dtype(*v) == Some(DType::F32));
    if f32s { plan_of(cx, op, [x, w], out, blocked) } else { None }
}

/// [`plan`] of stored integers; `zero` is the zero point of the weights.
pub(super) fn plan_bytes(
    cx: &LowerCx<'_>,
    op: &ConvInteger,
    x: ValueId,
    (w, zero): (ValueId, Option<ValueId>),
    out: &[Dim],
) -> Option<Plan2> {
    bytes::weights(cx, w, zero)?;
    plan_of(cx, &op.conv(), [x, w], out, true)
}

fn plan_of(cx: &LowerCx<'_>, op: &Conv, [x, w]: [ValueId; 2], out: &[Dim], blocked: bool) -> Option<Plan2> {
    let (x_type, x_dims) = cx.tensor_type(x).ok()?;
    let (_, w_dims) = cx.tensor_type(w).ok()?;
    let bytes = x_type != DType::F32;
    let rank = w_dims.len().checked_sub(2)?;
    let packs = cx.constant(w).is_some() && !cx.dry;
    if cx.simt() || !packs || !(1..=2).contains(&rank) || op.groups < 1 {
        return None;
    }
    let s = Shape::of(op, &x_dims, &w_dims).ok()?;
    let two = |v: &[i64]| if rank == 1 { [1, v[0]] } else { [v[0], v[1]] };
    let one = Dim::Const(1);
    let dims = |d: &[Dim], fill: &Dim| match d {
        [a] => [fill.clone(), a.clone()],
        d => [d[0].clone(), d[1].clone()],
    };
    let mut p = Plan2 {
        groups: s.groups,
        mg: s.mg,
        cg: s.cg,
        kernel: two(&s.kernel),
        strides: two(&s.strides),
        dilations: two(&s.dilations),
        pads: dims(&s.pads, &Dim::Const(0)),
        batch: x_dims[0].clone(),
        input: dims(&x_dims[2..], &one),
        output: dims(&out[2..], &one),
        window: None,
        winograd: None,
        sparse: false,
        bytes,
        pairs: false,
    };
    if let Some(block) = sparse::kept_blocks(cx, w).filter(|_| !p.bytes && p.groups == 1 && p.cg >= FEW) {
        let lists = super::scattered::has(block) && p.in_place() && scattered::width(&p).is_some();
        p.sparse = sparse::has(block) || lists;
    }
    // Tiles run along the second axis: a single column is a row.
    if p.input[1].is(1) && p.kernel[1] == 1 && p.pads[1].is(0) {
        p.kernel.swap(0, 1);
        p.strides.swap(0, 1);
        p.dilations.swap(0, 1);
        p.pads.swap(0, 1);
        p.input.swap(0, 1);
        p.output.swap(0, 1);
    }
    if p.depthwise() {
        p.window = window::tile(&p, 1);
        // Alone it is not worth a change of form.
        let exact = !bytes || p.kk() <= bytes::EXACT;
        let takes = blocked && exact && p.groups >= LEAST && p.window.is_some();
        return takes.then_some(p);
    }
    let whole = p.groups == 1 || (p.mg % BLOCK == 0 && p.cg % BLOCK == 0);
    if whole && cx.options.winograd && !p.sparse && !bytes {
        p.winograd = winograd::Form::of(&p);
    }
    // Few channels of bytes are put together, so that four are read at once.
    let in_place = p.in_place() && !(bytes && p.cg < FEW);
    if !in_place && p.winograd.is_none() {
        p.window = window::tile(&p, p.cg);
        // A kernel so large that only a narrow tile fits reads the weights too often.
        let t = p.window?;
        if t.out[1] < NARROW && !p.output[1].is(t.out[1]) {
            return None;
        }
    }
    (whole && p.mg >= LEAST && p.k() >= FEW && p.kk() > 0).then_some(p)
}

/// Emits a convolution with what follows it, the results of the current node: they are blocked. The epilogue has no results yet.
pub(super) fn emit(cx: &mut LowerCx<'_>, p: Plan2, o: Operands, e: Epilogue) -> Result<(), Diag> {
    let (_, x_dims) = cx.tensor_type(o.x)?;
    super::conv::require_channels(
        cx,
        &x_dims,
        (&(p.mg * p.groups).into(), &(p.cg * p.groups).into()),
        o.bias.as_ref(),
    );
    if p.bytes {
        return bytes::emit(cx, p, o, e);
    }
    let y = cx.output_value(0)?;
    let Some((p, o, mut e)) = expand::defer(cx, y, p, o, e) else { return Ok(()) };
    e.outs = (0..cx.node().outputs.len()).map(|k| cx.blocked_output(k)).collect::<Result<_, _>>()?;
    if p.sparse {
        let blocks = sparse::Blocks::of(cx, o.w)
            .ok_or_else(|| Diag::error("internal-lower", "weights are not in blocks"))?;
        if super::scattered::has([blocks.block[0] as u32, blocks.block[1] as u32]) {
            return scattered::emit(cx, p, o, &blocks, e);
        }
        return direct::emit(cx, p, o, &WeightsOf::Blocks(blocks), e);
    }
    let w = cx.f32_constant(o.w)?.ok_or_else(|| Diag::error("internal-lower", "weights are not constant"))?;
    if p.depthwise() {
        depthwise::emit(cx, p, o, &w, e)
    } else if let Some(f) = p.winograd {
        winograd::emit(cx, p, f, o, &w, e)
    } else {
        direct::emit(cx, p, o, &WeightsOf::Dense(&w), e)
    }
}

/// The weights in blocks: for every block of output channels the inputs that reach it. An input is a channel where the convolution
/// reads in place, else where it is in the window. With them comes how many neighbouring channels a block of them has.
fn packed_blocks(cx: &mut LowerCx<'_>, p: &Plan2, x: &sparse::Blocks) -> (sparse::Lists, i64) {
    let kk = p.kk() as usize;
    let bk = x.block[0];
    let height = if kk == 1 && x.matrix.k.is_multiple_of(bk) { bk.min(BLOCK as usize) } else { 1 };
    let height = if (BLOCK as usize).is_multiple_of(height) { height } else { 1 };
    let place = |k: usize| {
        let (c, t) = ((k / kk) as i64, (k % kk) as i64);
        let Some(w) = &p.window else { return c };
        let (y, x) = (t / p.kernel[1] * p.dilations[0], t % p.kernel[1] * p.dilations[1]);
        let at = (c / BLOCK * w.window[0] + y) * w.window[1] + x;
        at * w.width + c % BLOCK
    };
    let strips = x.strips(height, BLOCK as usize);
    let strips = strips.into_iter().map(|list| list.into_iter().map(|(k, v)| (place(k), v)).collect());
    (sparse::lists(cx, strips.collect()), height as i64)
}

/// The weights as `[group][output block][k][16]`.
fn packed(cx: &mut LowerCx<'_>, p: &Plan2, w: &[f32]) -> Opnd {
    let (kk, k, blocks) = (p.kk() as usize, p.k() as usize, p.blocks() as usize);
    let (mg, cg, block) = (p.mg as usize, p.cg as usize, BLOCK as usize);
    let inner = if p.cg < FEW { cg } else { block };
    let mut out = vec![0f32; p.groups as usize * blocks * k * block];
    for (m, row) in w.chunks_exact(k).enumerate() {
        let (g, m) = (m / mg, m % mg);
        let to = (g * blocks + m / block) * k * block + m % block;
        for c in 0..cg {
            let (cb, ci) = (c / inner, c % inner);
            let width = inner.min(cg - cb * inner);
            for t in 0..kk {
                let at = cb * inner * kk + t * width + ci;
                out[to + at * block] = row[c * kk + t];
            }
        }
    }
    let dims = [Dim::from(out.len())];
    cx.weight(DType::F32, &dims, f32_bytes(&out))
}
