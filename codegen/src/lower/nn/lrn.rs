//! Local response normalisation. A unit of the parallel axis is a run of positions of one channel, or of one block of channels.

use crate::kernel::{Buf, Builder, Elem, Ty, Val};
use crate::lower::cx::{LowerCx, Opnd};
use crate::lower::elem::{compute_elem, load, store};
use crate::lower::launch::{KernelCx, Launch};
use crate::lower::layout::{BLOCK, channel_mask};
use crate::lower::nest::span;
use crate::math;
use planish_ir::op::lrn::Lrn;
use planish_ir::{DType, Diag, Dim};

/// Positions of a unit.
const POSITIONS: i64 = 256;

pub(in crate::lower) fn lower_lrn(cx: &mut LowerCx<'_>, op: &Lrn) -> Result<(), Diag> {
    let v = cx.input_value(0)?;
    let (dtype, dims) = cx.tensor_type(v)?;
    // A window reaches no further than the vectors beside the one in the middle, which have 4 lanes at least.
    let near = op.reach().1 <= 4;
    if cx.blocked_form(v).is_some() && near && dtype == DType::F32 {
        let (x, y) = (cx.blocked(v)?, cx.blocked_output(0)?);
        let rows = dims[0].mul(&dims[1].ceil_div(&BLOCK.into()));
        return cx.launch(launch(op, &x, &y, &dims, (rows, BLOCK)), |k| blocked(k, op));
    }
    let (x, y) = (cx.input(0)?, cx.output(0)?);
    let rows = dims[0].mul(&dims[1]);
    cx.launch(launch(op, &x, &y, &dims, (rows, 1)), |k| plain(k, op, dtype))
}

/// Dims: channels, positions, runs of positions of a row. A row is that of some channels.
fn launch(op: &Lrn, x: &Opnd, y: &Opnd, dims: &[Dim], (rows, channels): (Dim, i64)) -> Launch {
    let positions = Dim::product(&dims[2..]);
    let runs = positions.ceil_div(&POSITIONS.into());
    let work = channels * (op.size.min(1 << 20) + 20);
    Launch::new("lrn")
        .read(x)
        .write(y)
        .dim(&dims[1])
        .dim(&positions)
        .dim(&runs)
        .extent(rows.mul(&runs))
        .cost(positions.smaller(&POSITIONS.into()).mul(&work.into()))
        .flops(Dim::product(dims).mul(&(2 * op.size.min(1 << 20) + 6).into()))
}

/// `x` scaled by what the sum of squares says.
fn scaled(b: &mut Builder, op: &Lrn, x: Val, sum: Val) -> Val {
    let ty = b.ty(sum);
    let alpha = b.float(ty, op.alpha / op.size as f64);
    let base = b.fma(sum, alpha, op.bias);
    let power = b.float(ty, -op.beta);
    let scale = math::pow(b, base, power);
    b.fmul(x, scale)
}

fn plain(k: &mut KernelCx<'_>, op: &Lrn, d: DType) {
    let elem = compute_elem(d);
    let lanes = k.lanes(elem);
    let (from, to) = (k.buf(0), k.buf(1));
    let (channels, positions, runs) = (k.dim(0), k.dim(1), k.dim(2));
    let (before, after) = op.reach();
    k.b.parallel_for(|b, unit| {
        let (row, run) = b.div_rem(unit, runs);
        let (n, c) = b.div_rem(row, channels);
        let (lo, hi) = span(b, run, POSITIONS, positions);
        let image = b.mul(n, channels);
        let first = b.sub(c, before);
        let first = b.smax(first, 0);
        let end = b.add(c, after + 1);
        let end = b.smin(end, channels);
        let own = b.mul(row, positions);
        b.for_lanes(lo, hi, lanes, |b, p, mask| {
            let zero = b.zero(Ty::vec(elem, lanes));
            let sum = b.for_(first, end, 1, &[zero], |b, c, sum| {
                let row = b.add(image, c);
                let at = b.at(p, row, positions);
                let v = load(b, d, from, at, lanes, mask);
                vec![b.fma(v, v, sum[0])]
            })[0];
            let at = b.add(own, p);
            let x = load(b, d, from, at, lanes, mask);
            let y = scaled(b, op, x, sum);
            store(b, d, to, at, y, mask);
        });
    });
}

/// Lanes are channels: a window is shifted vectors, each made of two neighbours.
fn blocked(k: &mut KernelCx<'_>, op: &Lrn) {
    let lanes = k.lanes(Elem::F32).min(BLOCK as u16);
    let step = i64::from(lanes);
    let (from, to) = (k.buf(0), k.buf(1));
    let (channels, positions, runs) = (k.dim(0), k.dim(1), k.dim(2));
    let (before, after) = op.reach();
    k.b.parallel_for(|b, unit| {
        let (row, run) = b.div_rem(unit, runs);
        let blocks = b.ceil_div(channels, BLOCK);
        let last = b.sub(blocks, 1);
        let (_, block) = b.div_rem(row, blocks);
        let (lo, hi) = span(b, run, POSITIONS, positions);
        for part in 0..BLOCK / step {
            let channel = b.at(part * step, block, BLOCK);
            // Vectors that do not exist stand for one that does: a load that its mask keeps from faulting is slow.
            let near = |b: &mut Builder, part: i64| {
                let to = b.add(block, part.div_euclid(BLOCK / step));
                let to = b.smax(to, 0);
                let to = b.smin(to, last);
                let to = b.sub(to, block);
                let row = b.add(row, to);
                (b.mul(row, positions), part.rem_euclid(BLOCK / step) * step)
            };
            // The vectors before, at and after this one; channels that do not exist are 0.
            let own = Lanes { row: near(b, part), mask: channel_mask(b, lanes, channel, channels) };
            let left = b.smin(channel, step);
            let left = Lanes { row: near(b, part - 1), mask: Some(b.mask_below(lanes, left)) };
            let rest = b.sub(channels, channel);
            let rest = b.sub(rest, step);
            let right = Lanes { row: near(b, part + 1), mask: Some(b.mask_below(lanes, rest)) };
            b.loop_(lo, hi, 1, |b, p| {
                let (x, at) = own.load(b, from, p, lanes);
                let square = b.fmul(x, x);
                let mut sum = square;
                let neighbour = |b: &mut Builder, side: &Lanes| {
                    let v = side.load(b, from, p, lanes).0;
                    b.fmul(v, v)
                };
                if before > 0 {
                    let left = neighbour(b, &left);
                    for shift in 1..=before {
                        let v = shifted(b, left, square, step - shift);
                        sum = b.fadd(sum, v);
                    }
                }
                if after > 0 {
                    let right = neighbour(b, &right);
                    for shift in 1..=after {
                        let v = shifted(b, square, right, shift);
                        sum = b.fadd(sum, v);
                    }
                }
                let y = scaled(b, op, x, sum);
                b.store(to, at, y);
            });
        }
    });
}

/// Lanes of two neighbouring vectors from lane `first` of the first one on.
fn shifted(b: &mut Builder, low: Val, high: Val, first: i64) -> Val {
    let lanes = b.ty(low).lanes;
    let mask: Vec<u16> = (0..lanes).map(|l| l + first as u16).collect();
    b.shuffle(low, high, &mask)
}

/// A vector of channels at every position.
struct Lanes {
    /// First vector of the block's row, and the first lane within the block.
    row: (Val, i64),
    /// Channels that exist, where that may not be all.
    mask: Option<Val>,
}

impl Lanes {
    /// The vector at a position, and where it lies.
    fn load(&self, b: &mut Builder, from: Buf, p: Val, lanes: u16) -> (Val, Val) {
        let at = b.add(self.row.0, p);
        let at = b.mul(at, BLOCK);
        let at = b.add(at, self.row.1);
        (load(b, DType::F32, from, at, lanes, self.mask), at)
    }
}
