//! Convolutions on [blocked channels](crate::lower::layout): vectors of output channels, scalars of the input.
//!
//! | | input |
//! |---|---|
//! | 1x1, stride 1 | read in place, all positions in one line |
//! | 3x3, stride 1, large enough | transformed first ([`winograd`]) |
//! | otherwise | a padded window of it is copied next to the sums first ([`window`]) |
//! | one channel a group | the same, vectors of channels on both sides ([`depthwise`]) |
//!
//! Weights lie as `[group][output block][k][16]`, `k` running over input blocks, then the kernel, then the channels of the block.

mod depthwise;
mod direct;
#[cfg(test)]
mod tests;
mod window;
mod winograd;

use super::conv::Shape;
use super::epilogue::Epilogue;
use super::{div_up, f32_bytes};
use crate::kernel::Val;
use crate::lower::cx::{LowerCx, Opnd};
use crate::lower::launch::{KernelCx, Launch};
use crate::lower::layout::BLOCK;
use planish_ir::op::conv::Conv;
use planish_ir::{DType, Diag, Dim, ValueId};

/// Inputs of fewer channels are read plain, with all channels of a position together.
const FEW: i64 = 8;
/// Convolutions to fewer channels stay plain.
const LEAST: i64 = 8;
/// Bytes of a window of the input, at most.
const WINDOW_BYTES: i64 = 128 << 10;
/// Columns of a tile, at least, where the result is wider.
const NARROW: i64 = 12;
/// Bytes of the weights that one unit of work reads, about.
const WEIGHT_BYTES: i64 = 512 << 10;
/// Units of work that a launch is cut into, at least, where its size is known.
const UNITS: i64 = 8;

/// The operands of a convolution.
pub(super) struct Operands {
    pub(super) x: ValueId,
    pub(super) w: ValueId,
    pub(super) bias: Option<Opnd>,
    /// Dims of the result.
    pub(super) out: Vec<Dim>,
}

/// A convolution along two spatial axes; one along a single axis has rows of height 1.
struct Plan2 {
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
}

impl Plan2 {
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

/// Run-time sizes, rows first.
struct Sizes {
    input: [Val; 2],
    output: [Val; 2],
    pads: [Val; 2],
}

/// The convolution as one on blocked channels, if it is one that profits.
fn plan(cx: &LowerCx<'_>, op: &Conv, x: ValueId, w: ValueId, out: &[Dim]) -> Option<Plan2> {
    let (x_type, x_dims) = cx.tensor_type(x).ok()?;
    let (w_type, w_dims) = cx.tensor_type(w).ok()?;
    let f32s = x_type == DType::F32 && w_type == DType::F32;
    let rank = w_dims.len().checked_sub(2)?;
    let packs = cx.constant(w).is_some() && !cx.dry;
    if cx.simt() || !f32s || !packs || !(1..=2).contains(&rank) || op.groups < 1 {
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
    };
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
        // Alone it is not worth a change of form.
        return (cx.blocked_form(x).is_some() && p.groups >= LEAST && window::tile(&p, 1).is_some())
            .then_some(p);
    }
    let whole = p.groups == 1 || (p.mg % BLOCK == 0 && p.cg % BLOCK == 0);
    // A kernel so large that only a narrow tile fits reads the weights too often.
    let wide_enough = |t: window::Tile| t.out[1] >= NARROW || p.output[1].is(t.out[1]);
    let fits = p.in_place() || window::tile(&p, p.cg).is_some_and(wide_enough);
    (whole && p.mg >= LEAST && p.k() >= FEW && p.kk() > 0 && fits).then_some(p)
}

/// Whether [`emit`] takes the convolution.
pub(super) fn takes(cx: &LowerCx<'_>, op: &Conv, x: ValueId, w: ValueId, out: &[Dim]) -> bool {
    plan(cx, op, x, w, out).is_some()
}

/// Emits a convolution that [`takes`] accepted, with what follows it: the results of the epilogue are blocked.
pub(super) fn emit(cx: &mut LowerCx<'_>, op: &Conv, o: Operands, e: Epilogue) -> Result<(), Diag> {
    let p = plan(cx, op, o.x, o.w, &o.out)
        .ok_or_else(|| Diag::error("internal-lower", "the convolution has no blocked form"))?;
    let (_, x_dims) = cx.tensor_type(o.x)?;
    super::conv::require_channels(
        cx,
        &x_dims,
        (&(p.mg * p.groups).into(), &(p.cg * p.groups).into()),
        o.bias.as_ref(),
    );
    let w = cx.f32_constant(o.w)?.ok_or_else(|| Diag::error("internal-lower", "weights are not constant"))?;
    if p.depthwise() {
        depthwise::emit(cx, p, o, &w, e)
    } else if cx.options.winograd && winograd::pays(&p) {
        winograd::emit(cx, p, o, &w, e)
    } else {
        direct::emit(cx, p, o, &w, e)
    }
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
