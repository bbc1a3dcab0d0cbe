//! Convolutions of stored integers of 8 bits: vectors of 32-bit sums of output channels, four neighbouring channels of the input at a
//! time.
//!
//! With `a` and `w` as the instruction reads them (the zero point of the input moves along where its sign bit is flipped) and `s` the
//! sums of the weights of each output: `sum (a - za) w = sum a w - za s`. The second term is what the sums begin with; padding
//! holds the zero point, so that it is right at the edges as well. Zero points of weights are taken off at compile time.
//!
//! Weights lie as `[group][output block][k / 4][16][4]`, the tail of the channels at each place of the kernel filled with zeros.
//! Lanes of the input beyond the last channel meet these zeros.

use super::{BLOCK, FEW, Operands, Plan2, depthwise, direct};
use super::{WeightsOf, div_up};
use crate::kernel::{Arch, Buf, Builder, Elem, TargetSpec, Ty, Val};
use crate::lower::contraction::epilogue::Epilogue;
use crate::lower::cx::{LowerCx, Opnd};
use bytes::Bytes as Data;
use planish_ir::{DType, Diag, Dim, ValueId};

/// Channels that one instruction takes together.
pub(super) const GROUP: i64 = 4;
/// Terms of a sum of products of 9 and 8 bits that is exact in f32, at most.
pub(super) const EXACT: i64 = 512;
/// Positions of a register tile, at most.
const MOST: usize = 14;

/// Positions of a register tile of `nv` vectors, at most. `pairs`: sums of two products fit 16 bits.
pub(super) fn positions(target: &TargetSpec, nv: usize, pairs: bool) -> usize {
    let registers = usize::from(target.registers).clamp(8, 32);
    let rest = match () {
        () if target.features.vnni || target.features.dotprod => nv + 1,
        () if pairs => nv + 3,
        // Bytes are widened first, and both halves of every factor are kept.
        () => 2 * nv + 3,
    };
    (registers.saturating_sub(rest) / nv).clamp(1, MOST)
}

/// Whether the sum of the products of two neighbouring weights with unsigned bytes fits 16 bits, for all of them.
fn pairs_fit(p: &Plan2, w: &[i8]) -> bool {
    let (kk, k) = (p.kk() as usize, p.k() as usize);
    let fits = |a: i8, b: i8| {
        let (a, b) = (i32::from(a), i32::from(b));
        let ends = [a.max(0) + b.max(0), a.min(0) + b.min(0)];
        ends.iter().all(|s| i16::try_from(255 * s).is_ok())
    };
    // Neighbours are channels at one place of the kernel.
    w.chunks_exact(k.max(1)).all(|row| {
        (0..p.cg as usize)
            .step_by(2)
            .all(|c| (0..kk).all(|t| fits(row[c * kk + t], row.get((c + 1) * kk + t).copied().unwrap_or(0))))
    })
}

/// Constant weights less their zero points, where that leaves signed bytes.
pub(super) fn weights(cx: &LowerCx<'_>, w: ValueId, zero: Option<ValueId>) -> Option<Vec<i8>> {
    let numbers = |v: ValueId| {
        let c = cx.constant(v).filter(|c| matches!(c.dtype, DType::U8 | DType::I8) && !cx.dry)?;
        let unsigned = c.dtype == DType::U8;
        let t = c.decode().ok()?;
        let wide = |x: &u8| if unsigned { i16::from(*x) } else { i16::from(x.cast_signed()) };
        Some((t.bytes().iter().map(wide).collect::<Vec<i16>>(), t.shape().first().copied()))
    };
    let (mut w, outputs) = numbers(w)?;
    if let Some(zero) = zero {
        let (zero, _) = numbers(zero)?;
        let outputs = outputs.filter(|m| *m > 0)?;
        if zero.len() != 1 && zero.len() != outputs {
            return None;
        }
        let row = w.len() / outputs;
        for (i, row) in w.chunks_exact_mut(row.max(1)).enumerate() {
            let z = zero[if zero.len() == 1 { 0 } else { i }];
            row.iter_mut().for_each(|x| *x -= z);
        }
    }
    w.into_iter().map(|x| i8::try_from(x).ok()).collect()
}

/// The weights as `[group][output block][k / 4][16][4]`.
pub(super) fn packed(cx: &mut LowerCx<'_>, p: &Plan2, w: &[i8]) -> Opnd {
    let (kk, k, blocks) = (p.kk() as usize, p.k() as usize, p.blocks() as usize);
    let (mg, cg, block, group) = (p.mg as usize, p.cg as usize, BLOCK as usize, GROUP as usize);
    let inner = if p.cg < FEW { p.padded(p.cg) as usize } else { block };
    let rows = p.padded_k() as usize;
    let mut out = vec![0u8; p.groups as usize * blocks * rows * block];
    for (m, row) in w.chunks_exact(k.max(1)).enumerate() {
        let (g, m) = (m / mg, m % mg);
        let to = (g * blocks + m / block) * rows * block + m % block * group;
        for c in 0..cg {
            let (cb, ci) = (c / inner, c % inner);
            let width = inner.min(p.padded((cg - cb * inner) as i64) as usize);
            for t in 0..kk {
                let at = cb * inner * kk + t * width + ci;
                out[to + at / group * group * block + at % group] = row[c * kk + t].cast_unsigned();
            }
        }
    }
    let dims = [Dim::from(out.len())];
    cx.weight(DType::I8, &dims, out.into())
}

/// Emits the convolution with what follows it, which has no results yet.
pub(super) fn emit(cx: &mut LowerCx<'_>, mut p: Plan2, mut o: Operands, mut e: Epilogue) -> Result<(), Diag> {
    e.outs = (0..cx.node().outputs.len()).map(|k| cx.blocked_output(k)).collect::<Result<_, _>>()?;
    let w = weights(cx, o.w, o.w_zero);
    let w = w.ok_or_else(|| Diag::error("internal-lower", "weights are no signed bytes"))?;
    if p.depthwise() {
        let w: Vec<f32> = w.iter().map(|x| f32::from(*x)).collect();
        return depthwise::emit(cx, p, o, &w, e);
    }
    p.pairs = pairs_fit(&p, &w);
    let sums: Vec<u8> = w
        .chunks_exact((p.k() as usize).max(1))
        .flat_map(|row| row.iter().map(|x| i32::from(*x)).fold(0, i32::wrapping_add).to_le_bytes())
        .collect();
    o.bias = Some(cx.weight(DType::I32, &[Dim::from(sums.len() / 4)], Data::from(sums)));
    direct::emit(cx, p, o, &WeightsOf::Bytes(&w), e)
}

/// How the input is read and multiplied.
#[derive(Clone, Copy)]
pub(super) struct Bytes {
    /// The zero point as it is stored.
    pub(super) zero: Val,
    /// The zero point as the instruction sees it, i32; none if it is 0.
    shift: Option<Val>,
    /// The sign bit of the input is flipped.
    flip: bool,
    /// The instruction takes the input as signed bytes.
    signed: bool,
    /// The instruction adds two products in 16 bits first.
    pairs: bool,
}

impl Bytes {
    /// For an input of type `x` and weights of which pairs `fit` 16 bits, with a zero point in memory, if it has one.
    pub(super) fn new(
        b: &mut Builder,
        target: &TargetSpec,
        (x, fit): (DType, bool),
        zero: Option<Buf>,
    ) -> Bytes {
        let sdot = target.arch == Arch::Aarch64 && target.features.dotprod;
        let vnni = target.arch == Arch::X86_64 && target.features.vnni;
        let pairs = fit && target.arch == Arch::X86_64 && !vnni;
        // Where bytes are widened first, both kinds cost the same.
        let signed = sdot || (!vnni && !pairs && x == DType::I8);
        let flip = (x == DType::I8) != signed;
        let moved = if signed { -128 } else { 128 };
        let stored = match zero {
            Some(buf) => b.load(buf, 0, 1),
            None => b.int(Ty::I8, 0),
        };
        let shift = match zero {
            Some(_) => {
                let wide = if x == DType::I8 { b.sext(stored, Elem::I32) } else { b.zext(stored, Elem::I32) };
                Some(if flip { b.add(wide, moved) } else { wide })
            }
            None => flip.then(|| b.int(Ty::I32, moved)),
        };
        Bytes { zero: stored, shift, flip, signed, pairs }
    }

    /// What the sums of the outputs from `first` on begin with. `sums` holds the sums of their weights.
    pub(super) fn start(
        &self,
        b: &mut Builder,
        sums: Option<Buf>,
        (first, mask): (Val, Option<Val>),
        lanes: u16,
    ) -> Val {
        let (Some(shift), Some(sums)) = (self.shift, sums) else { return b.zero(Ty::vec(Elem::I32, lanes)) };
        let s = b.load_opt(sums, first, lanes, mask);
        let shift = b.neg(shift);
        let shift = b.splat(shift, lanes);
        b.mul(s, shift)
    }

    /// Adds the products of `width` neighbouring channels of the positions at `from` of a buffer with the weights at `weights` to
    /// the sums. With `near`, the weights that come so many bytes later are read ahead.
    pub(super) fn steps(
        &self,
        b: &mut Builder,
        (x, from): (Buf, &[Val]),
        (w, weights): (Buf, &[Val]),
        width: i64,
        near: Option<i64>,
        acc: &[Val],
    ) -> Vec<Val> {
        let nv = weights.len();
        let Some(lanes) = acc.first().map(|v| b.ty(*v).lanes) else { return vec![] };
        let bytes = Ty::vec(Elem::I8, lanes * GROUP as u16);
        let mut acc = acc.to_vec();
        for g in 0..div_up(width, GROUP) {
            let ws: Vec<Val> = weights
                .iter()
                .enumerate()
                .map(|(v, at)| {
                    let at = b.add(*at, g * GROUP * BLOCK);
                    if let Some(near) = near.filter(|_| v as i64 * i64::from(lanes) % BLOCK == 0) {
                        let next = b.add(at, near);
                        b.prefetch(w, next);
                    }
                    b.load(w, at, bytes.lanes)
                })
                .collect();
            for (from, sums) in from.iter().zip(acc.chunks_mut(nv)) {
                let at = b.add(*from, g * GROUP);
                let v = b.load(x, at, GROUP as u16);
                let v = b.bitcast(v, Ty::I32);
                let v = b.splat(v, lanes);
                let mut v = b.bitcast(v, bytes);
                if self.flip {
                    v = b.xor(v, 0x80);
                }
                for (w, s) in ws.iter().zip(sums) {
                    *s = match (self.signed, self.pairs) {
                        (true, _) => b.dot4_s8s8(*s, v, *w),
                        (false, true) => b.dot4_u8s8_pairs(*s, v, *w),
                        (false, false) => b.dot4_u8s8(*s, v, *w),
                    };
                }
            }
        }
        acc
    }
}
