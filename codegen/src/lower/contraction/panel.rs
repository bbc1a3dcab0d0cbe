//! Unfolding the input of a convolution: rows of the input along the last axis, with zeros outside.

use crate::kernel::{Buf, Builder, CmpOp, Elem, Ty, Val};
use crate::lower::elem::widen;
use crate::lower::nest::decode;
use planish_ir::DType;

/// Which lanes of a piece of an input row exist: lane `i` reads element `at + i * stride` of a row of `width`.
pub(super) struct RowMask {
    stride: i64,
    lanes: u16,
    at: Val,
    /// For stride 1 one mask, for stride 2 those of two neighbouring vectors, else that of the gathered lanes.
    masks: Vec<Val>,
}

impl RowMask {
    /// `row_ok` (scalar) says whether the row itself exists.
    pub(super) fn new(
        b: &mut Builder,
        at: Val,
        stride: i64,
        lanes: u16,
        width: Val,
        row_ok: Option<Val>,
    ) -> RowMask {
        let inside = |b: &mut Builder, first: Val, step: i64| {
            // Lanes are compared in 32 bits; bounds beyond that range are clamped.
            let iota = b.iota(Ty::vec(Elem::I32, lanes));
            let pos = b.mul(iota, step);
            let low = b.neg(first);
            let high = b.sub(width, first);
            let narrow = |b: &mut Builder, v: Val| {
                let v = b.smin(v, i64::from(i32::MAX));
                let v = b.smax(v, i64::from(i32::MIN));
                let v = b.trunc(v, Elem::I32);
                b.splat(v, lanes)
            };
            let (low, high) = (narrow(b, low), narrow(b, high));
            let ge = b.cmp(CmpOp::Sge, pos, low);
            let lt = b.cmp(CmpOp::Slt, pos, high);
            let m = b.and(ge, lt);
            match row_ok {
                None => m,
                Some(ok) => {
                    let ok = b.splat(ok, lanes);
                    b.and(m, ok)
                }
            }
        };
        let masks = match stride {
            2 if lanes > 1 => {
                let second = b.add(at, i64::from(lanes));
                vec![inside(b, at, 1), inside(b, second, 1)]
            }
            s => vec![inside(b, at, s)],
        };
        RowMask { stride, lanes, at, masks }
    }

    /// The same piece of a row that may not exist.
    pub(super) fn of_row(&self, b: &mut Builder, ok: Val) -> RowMask {
        let ok = b.splat(ok, self.lanes);
        let masks = self.masks.iter().map(|m| b.and(*m, ok)).collect();
        RowMask { masks, ..*self }
    }
    /// Loads from the row that begins at element `base`; zeros where nothing exists.
    pub(super) fn load(&self, b: &mut Builder, d: DType, buf: Buf, base: Val) -> Val {
        let elem = b.elem(buf);
        let zero = b.zero(Ty::vec(elem, self.lanes));
        let first = b.add(base, self.at);
        let v = match (self.stride, self.masks.as_slice()) {
            (2, [m0, m1]) => {
                let lo = b.load_masked(buf, first, *m0, zero);
                let second = b.add(first, i64::from(self.lanes));
                let hi = b.load_masked(buf, second, *m1, zero);
                let even: Vec<u16> = (0..self.lanes).map(|i| 2 * i).collect();
                b.shuffle(lo, hi, &even)
            }
            (1, [m]) | (_, [m]) if self.stride == 1 || self.lanes == 1 => b.load_masked(buf, first, *m, zero),
            (s, [m]) => {
                let iota = b.iota(Ty::vec(Elem::I64, self.lanes));
                let off = b.mul(iota, s);
                let start = b.splat(first, self.lanes);
                let pos = b.add(start, off);
                b.gather_masked(buf, pos, *m, zero)
            }
            _ => zero,
        };
        widen(b, d, v)
    }
}

/// The geometry of a convolution along its spatial axes, as values of the kernel.
pub(super) struct Geometry {
    /// Input size of each spatial axis.
    pub(super) input: Vec<Val>,
    /// Number of positions along each spatial axis.
    pub(super) output: Vec<Val>,
    /// Padding before each spatial axis.
    pub(super) pads: Vec<Val>,
    pub(super) kernel: Vec<i64>,
    pub(super) strides: Vec<i64>,
    pub(super) dilations: Vec<i64>,
}

impl Geometry {
    /// Elements of one channel of the input.
    pub(super) fn plane(&self, b: &mut Builder) -> Val {
        let one = b.i64(1);
        self.input.iter().fold(one, |p, d| b.mul(p, *d))
    }
    /// Positions of one channel of the output.
    pub(super) fn positions(&self, b: &mut Builder) -> Val {
        let one = b.i64(1);
        self.output.iter().fold(one, |p, d| b.mul(p, *d))
    }
    /// For a row of positions (all axes but the last) and the outer coordinates of a kernel element: the start of the
    /// input row within its channel, and whether it exists.
    pub(super) fn input_row(&self, b: &mut Builder, row: Val, kernel: &[Val]) -> (Val, Option<Val>) {
        let outer = self.output.len() - 1;
        let coords = decode(b, row, &self.output[..outer]);
        let mut offset = b.i64(0);
        let mut ok: Option<Val> = None;
        for axis in 0..outer {
            let o = b.mul(coords[axis], self.strides[axis]);
            let k = b.mul(kernel[axis], self.dilations[axis]);
            let i = b.add(o, k);
            let i = b.sub(i, self.pads[axis]);
            // One unsigned comparison checks both ends.
            let inside = b.cmp(CmpOp::Ult, i, self.input[axis]);
            ok = Some(match ok {
                None => inside,
                Some(a) => b.and(a, inside),
            });
            let off = b.mul(offset, self.input[axis]);
            offset = b.add(off, i);
        }
        let width = self.input[outer];
        (b.mul(offset, width), ok)
    }
    /// The outer coordinates of kernel element `kk`, and its coordinate along the last axis. Known ones stay literals.
    pub(super) fn kernel_coords(&self, b: &mut Builder, kk: Val) -> (Vec<Val>, Val) {
        let mut coords = Vec::with_capacity(self.kernel.len());
        let mut rest = kk;
        for k in self.kernel.iter().rev() {
            let (q, p) = b.div_rem(rest, *k);
            coords.push(p);
            rest = q;
        }
        coords.reverse();
        let last = coords.pop().unwrap_or(rest);
        (coords, last)
    }
}

/// Kernels up to this many elements are unrolled.
pub(super) const UNROLL: i64 = 25;

/// Runs `body` for every element of a kernel with the carried values.
pub(super) fn for_kernel(
    b: &mut Builder,
    count: i64,
    init: Vec<Val>,
    body: &dyn Fn(&mut Builder, Val, &[Val]) -> Vec<Val>,
) -> Vec<Val> {
    if count > UNROLL {
        return b.for_(0, count, 1, &init, |b, kk, carried| body(b, kk, carried));
    }
    (0..count).fold(init, |carried, kk| {
        let kk = b.i64(kk);
        body(b, kk, &carried)
    })
}

/// Fills `panel[(c * kk_count + kk) * width + p]` for `channels` channels from element `base` of the input, all
/// elements `kk` of the kernel, and the positions `first..first + count`.
#[allow(clippy::too_many_arguments)]
pub(super) fn fill(
    b: &mut Builder,
    g: &Geometry,
    (d, x, base): (DType, Buf, Val),
    panel: Buf,
    width: i64,
    channels: Val,
    (first, count): (Val, Val),
    lanes: u16,
) {
    let axes = g.output.len();
    let ow = g.output[axes - 1];
    let kk_count: i64 = g.kernel.iter().product();
    let plane = g.plane(b);
    let end = b.add(first, count);
    let row0 = b.sdiv(first, ow);
    let last = b.sub(end, 1);
    let row1 = b.sdiv(last, ow);
    let row1 = b.add(row1, 1);
    b.loop_(row0, row1, 1, |b, row| {
        let row_start = b.mul(row, ow);
        let lo = b.sub(first, row_start);
        let lo = b.smax(lo, 0);
        let hi = b.sub(end, row_start);
        let hi = b.smin(hi, ow);
        for_kernel(b, kk_count, Vec::new(), &|b, kk, _| {
            let (outer, kx) = g.kernel_coords(b, kk);
            let (start, ok) = g.input_row(b, row, &outer);
            let start = b.add(start, base);
            b.loop_(lo, hi, i64::from(lanes), |b, ox| {
                let n = b.sub(hi, ox);
                let keep = b.mask_below(lanes, n);
                let at = b.mul(ox, g.strides[axes - 1]);
                let at = b.at(at, kx, g.dilations[axes - 1]);
                let at = b.sub(at, g.pads[axes - 1]);
                let mask = RowMask::new(b, at, g.strides[axes - 1], lanes, g.input[axes - 1], ok);
                let to = b.add(row_start, ox);
                let to = b.sub(to, first);
                let to = b.at(to, kk, width);
                b.loop_(0, channels, 1, |b, c| {
                    let from = b.at(start, c, plane);
                    let v = mask.load(b, d, x, from);
                    let to = b.at(to, c, kk_count * width);
                    b.store_masked(panel, to, v, keep);
                });
            });
            Vec::new()
        });
    });
}
