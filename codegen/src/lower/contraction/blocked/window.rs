//! Windows: the part of the input that a tile of the result needs, copied to local memory with zeros around it.

use super::{DEEP_WINDOW_BYTES, FEW, Plan2, Sizes, WINDOW_BYTES};
use crate::kernel::{Buf, Builder, CmpOp, Elem, Ty, Val};
use crate::lower::contraction::div_up;
use crate::lower::layout::BLOCK;

/// Columns of a tile where the width is not known, and the most where it is.
const COLUMNS: i64 = 28;
const MOST_COLUMNS: i64 = 64;
/// Bytes of weights that stay near the core.
const CACHE: i64 = 1 << 20;
/// Rows of a tile where the height is not known.
const ROWS: i64 = 8;

/// A tile of the result and the window of the input that it needs.
#[derive(Clone, Copy)]
pub(super) struct Tile {
    /// Positions of the result: rows, columns.
    pub(super) out: [i64; 2],
    /// Positions of the window. Along an axis where the kernel is 1 long these are only those that it visits.
    pub(super) window: [i64; 2],
    /// Distance in the window of neighbouring positions of the result.
    pub(super) step: [i64; 2],
    /// Distance in the input of neighbouring positions of the window.
    pub(super) skip: [i64; 2],
    /// Elements of a position: the channels of a block, or all where they are few (of stored integers, a multiple of 4).
    pub(super) width: i64,
    /// Channels of a position where they are few.
    pub(super) few: i64,
    /// Blocks of channels.
    pub(super) blocks: i64,
}

impl Tile {
    /// For `channels` channels and a tile of `out` rows and columns.
    pub(super) fn new(p: &Plan2, channels: i64, out: [i64; 2]) -> Tile {
        let (mut window, mut step, mut skip) = ([0; 2], [0; 2], [0; 2]);
        for a in 0..2 {
            let short = p.kernel[a] == 1;
            step[a] = if short { 1 } else { p.strides[a] };
            skip[a] = if short { p.strides[a] } else { 1 };
            window[a] = (out[a] - 1) * step[a] + (p.kernel[a] - 1) * p.dilations[a] + 1;
        }
        let few = channels < FEW && !p.depthwise();
        let (width, blocks) = if few { (p.padded(channels), 1) } else { (BLOCK, div_up(channels, BLOCK)) };
        Tile { out, window, step, skip, width, few: channels, blocks }
    }
    /// Elements of the window.
    pub(super) fn len(&self) -> i64 {
        self.blocks * self.window[0] * self.window[1] * self.width
    }
}

/// A tile for a convolution whose window has `channels` channels; `None` if even the smallest is too large.
pub(super) fn tile(p: &Plan2, channels: i64) -> Option<Tile> {
    let size = if p.depthwise() { 4 } else { p.size() };
    let deep = p.kk() > 1 && p.kk() * channels * p.mg * size > CACHE;
    let limit = if deep { DEEP_WINDOW_BYTES } else { WINDOW_BYTES };
    let fits = |rows: i64, columns: i64| {
        let t = Tile::new(p, channels, [rows, columns]);
        (t.len() * size <= limit).then_some(t)
    };
    let width = p.output[1].as_const();
    let mut columns = width.map_or(COLUMNS, |w| div_up(w, div_up(w, MOST_COLUMNS).max(1)).max(1));
    while fits(1, columns).is_none() {
        if columns <= 4 {
            return None;
        }
        columns = div_up(columns, 2);
    }
    let most = p.output[0].as_const().unwrap_or(ROWS).max(1);
    let rows = (1..=most).take_while(|r| fits(*r, columns).is_some()).last().unwrap_or(1);
    // All tiles about as high.
    fits(div_up(most, div_up(most, rows)), columns)
}

/// The input of a window.
pub(super) struct Source {
    pub(super) x: Buf,
    /// Element of the input where the first block (or the first channel of plain input) begins.
    pub(super) base: Val,
    /// Whether the channels are blocked.
    pub(super) blocked: bool,
    pub(super) lanes: u16,
    pub(super) stored: Stored,
}

/// What elements of the input are.
#[derive(Clone, Copy)]
pub(super) enum Stored {
    /// f32, padded with 0.
    F32,
    /// Bytes, padded with their zero point.
    Bytes { zero: Val },
    /// Bytes that become f32 less their zero point, which is f32.
    Widened { zero: Val, signed: bool },
}

impl Source {
    /// Pads elements `lo..hi` after `to`, whole positions of `width`.
    fn pad(&self, b: &mut Builder, window: Buf, to: Val, lo: Val, hi: Val, width: i64) {
        let Stored::Bytes { zero } = self.stored else { return zeros(b, window, to, lo, hi, self.lanes) };
        let zero = b.splat(zero, width as u16);
        b.loop_(lo, hi, width, |b, i| {
            let at = b.add(to, i);
            b.store(window, at, zero);
        });
    }
    /// Vectors of a block that are copied, in lanes.
    fn step(&self) -> u16 {
        if matches!(self.stored, Stored::Bytes { .. }) { BLOCK as u16 } else { self.lanes }
    }
    /// Elements of the input as the window holds them.
    fn load(&self, b: &mut Builder, at: Val, lanes: u16) -> Val {
        let v = b.load(self.x, at, lanes);
        let Stored::Widened { zero, signed } = self.stored else { return v };
        let v = if signed { b.sext(v, Elem::I32) } else { b.zext(v, Elem::I32) };
        let v = b.sitofp(v, Elem::F32);
        let zero = b.splat(zero, lanes);
        b.fsub(v, zero)
    }
}

/// Fills the window of the tile at `row`, `column` of the result.
pub(super) fn fill(b: &mut Builder, p: &Plan2, t: &Tile, z: &Sizes, s: &Source, window: Buf, at: [Val; 2]) {
    // Input position of the window's first, and how many positions the input's edges leave.
    let mut from = [at[0]; 2];
    let mut inside = [(at[0], at[0]); 2];
    for a in 0..2 {
        let first = b.mul(at[a], p.strides[a]);
        from[a] = b.sub(first, z.pads[a]);
        // Positions `lo..hi` of the window exist.
        let before = b.sub(0, from[a]);
        let before = b.smax(before, 0);
        let lo = b.ceil_div(before, t.skip[a]);
        let lo = b.smin(lo, t.window[a]);
        let left = b.sub(z.input[a], from[a]);
        let left = b.smax(left, 0);
        let hi = b.ceil_div(left, t.skip[a]);
        let hi = b.smin(hi, t.window[a]);
        inside[a] = (lo, b.smax(hi, lo));
    }
    let plane = b.mul(z.input[0], z.input[1]);
    let row_len = t.window[1] * t.width;
    b.loop_(0, t.blocks, 1, |b, block| {
        b.loop_(0, t.window[0], 1, |b, r| {
            let row = b.mul(block, t.window[0]);
            let row = b.add(row, r);
            let to = b.mul(row, row_len);
            let ge = b.cmp(CmpOp::Sge, r, inside[0].0);
            let lt = b.cmp(CmpOp::Slt, r, inside[0].1);
            let exists = b.and(ge, lt);
            b.if_(
                exists,
                |b| {
                    let (lo, hi) = inside[1];
                    let y = b.mul(r, t.skip[0]);
                    let y = b.add(from[0], y);
                    let start = b.mul(y, z.input[1]);
                    let start = b.add(start, from[1]);
                    let lo_at = b.mul(lo, t.width);
                    let none = b.i64(0);
                    s.pad(b, window, to, none, lo_at, t.width);
                    if s.blocked {
                        copy_blocked(b, t, s, window, (block, plane, start), to, (lo, hi));
                    } else {
                        copy_plain(b, t, s, window, (plane, start), to, (lo, hi));
                    }
                    let hi_at = b.mul(hi, t.width);
                    let end = b.i64(row_len);
                    s.pad(b, window, to, hi_at, end, t.width);
                    vec![]
                },
                |b| {
                    let (none, end) = (b.i64(0), b.i64(row_len));
                    s.pad(b, window, to, none, end, t.width);
                    vec![]
                },
            );
        });
    });
}

/// Zeros elements `lo..hi` after `to`.
pub(super) fn zeros(
    b: &mut Builder,
    window: Buf,
    to: Val,
    lo: impl Into<crate::kernel::Opd>,
    hi: impl Into<crate::kernel::Opd>,
    lanes: u16,
) {
    let zero = b.zero(Ty::vec(Elem::F32, lanes));
    b.for_lanes(lo, hi, lanes, |b, i, mask| {
        let at = b.add(to, i);
        b.store_opt(window, at, zero, mask);
    });
}

/// Copies positions `lo..hi` of a row of one block. `start` is where the row begins in a plane of positions.
fn copy_blocked(
    b: &mut Builder,
    t: &Tile,
    s: &Source,
    window: Buf,
    (block, plane, start): (Val, Val, Val),
    to: Val,
    (lo, hi): (Val, Val),
) {
    let lanes = i64::from(s.step());
    let row = b.at(start, block, plane);
    let row = b.mul(row, BLOCK);
    let row = b.add(row, s.base);
    let (lo, hi) = (b.mul(lo, BLOCK), b.mul(hi, BLOCK));
    b.loop_(lo, hi, BLOCK, |b, i| {
        let from = b.mul(i, t.skip[1]);
        let from = b.add(row, from);
        let to = b.add(to, i);
        for part in 0..BLOCK / lanes {
            let from = b.add(from, part * lanes);
            let v = s.load(b, from, s.step());
            let to = b.add(to, part * lanes);
            b.store(window, to, v);
        }
    });
}

/// Copies positions `lo..hi` of a row of a few plain channels, which come together for each position.
fn copy_plain(
    b: &mut Builder,
    t: &Tile,
    s: &Source,
    window: Buf,
    (plane, start): (Val, Val),
    to: Val,
    (lo, hi): (Val, Val),
) {
    b.loop_(lo, hi, 1, |b, i| {
        let from = b.mul(i, t.skip[1]);
        let from = b.add(start, from);
        let from = b.add(from, s.base);
        let to = b.at(to, i, t.width);
        for c in 0..t.width {
            let v = if c < t.few {
                let from = b.at(from, plane, c);
                s.load(b, from, 1)
            } else {
                b.zero(Ty::vec(b.elem(window), 1))
            };
            let to = b.add(to, c);
            b.store(window, to, v);
        }
    });
}
