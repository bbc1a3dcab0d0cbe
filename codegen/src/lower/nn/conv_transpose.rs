//! Transposed convolution.

use crate::kernel::{Buf, Builder, CmpOp, Elem, Ty, Val};
use crate::lower::cx::{LowerCx, Opnd};
use crate::lower::elem::{compute_elem, load, narrow_to, store};
use crate::lower::launch::{KernelCx, Launch};
use crate::lower::nest::decode;
use planish_ir::op::conv_transpose::ConvTranspose;
use planish_ir::{DType, Diag, Dim};

/// Positions whose index leaves the same rest when divided by the stride see the same elements of the window, and
/// neighbouring ones of them see neighbouring inputs: they are done in vectors, some output channels at a time.
pub(in crate::lower) fn lower_conv_transpose(cx: &mut LowerCx<'_>, op: &ConvTranspose) -> Result<(), Diag> {
    let (x, w, bias) = (cx.input(0)?, cx.input(1)?, cx.opt_input(2)?);
    let y = cx.output(0)?;
    let rank = op.strides.len();
    cx.require_equal(&w.dims[0], &x.dims[1], "the weights are for another number of channels");
    if let Some(bias) = &bias {
        cx.require_equal(&bias.elems(), &y.dims[1], "the bias has another number of channels");
    }
    let known = |d: &Dim| d.as_const().filter(|v| (0..=1 << 20).contains(v));
    let window: Option<Vec<i64>> = w.dims[1..].iter().map(known).collect();
    let Some(window) = window else {
        return Err(Diag::unsupported("weights of a transposed convolution whose size is not known"));
    };
    let each = window[0];
    let block = [4, 2, 1].into_iter().find(|b| each % b == 0).unwrap_or(1);
    let mut l = Launch::new("conv_transpose").read(&x).read(&w);
    if let Some(b) = &bias {
        l = l.read(b);
    }
    l = l.write(&y).dim(&x.dims[1]).dim(&y.dims[1]);
    for a in 0..rank {
        l = l.dim(&x.dims[a + 2]).dim(&y.dims[a + 2]);
    }
    let blocks = y.dims[1].floor_div(&block.into());
    let rows = x.dims[0].mul(&blocks).mul(&Dim::product(&y.dims[2..rank + 1]));
    let taps: i64 = window[1..].iter().product();
    let per = x.dims[1].mul(&taps.into()).mul(&y.dims[rank + 1]);
    let l = l.extent(rows).cost(per.mul(&block.into())).flops(y.elems().mul(&x.dims[1]).mul(&taps.into()));
    let plan = Plan { op, d: x.dtype, window: &window[1..], each, block };
    cx.launch(l, |k| kernel(k, &plan, &bias))
}

struct Plan<'a> {
    op: &'a ConvTranspose,
    d: DType,
    window: &'a [i64],
    /// Output channels of a group.
    each: i64,
    /// Output channels at a time.
    block: i64,
}

/// What the loops of one row of positions share.
struct Row<'a> {
    plan: &'a Plan<'a>,
    x: Buf,
    w: Buf,
    lanes: u16,
    /// Input sizes of the spatial axes.
    sizes: Vec<Val>,
    /// Positions on the outer spatial axes.
    at: Vec<Val>,
    /// Index of the first input channel in `x` (counted in planes), and how many there are.
    first_plane: Val,
    channels: Val,
    /// Elements of one input plane.
    plane: Val,
    /// Index in `w` of the window of the first input channel and the first output channel.
    first_window: Val,
    /// Elements of the last axis of the window that these positions see, with the distance of the input from the
    /// number of the position.
    taps: Vec<(i64, i64)>,
}

fn kernel(k: &mut KernelCx<'_>, p: &Plan<'_>, bias: &Option<Opnd>) {
    let elem = compute_elem(p.d);
    let lanes = k.lanes(elem);
    let rank = p.window.len();
    let (x, w) = (k.buf(0), k.buf(1));
    let bias = bias.as_ref().map(|_| k.buf(2));
    let y = k.buf(if bias.is_some() { 3 } else { 2 });
    let (c, m) = (k.dim(0), k.dim(1));
    let ins: Vec<Val> = (0..rank).map(|a| k.dim(2 + 2 * a)).collect();
    let outs: Vec<Val> = (0..rank).map(|a| k.dim(3 + 2 * a)).collect();
    let (stride, dilation) = (p.op.strides[rank - 1], p.op.dilations[rank - 1]);
    let pad = p.op.pads[rank - 1];
    let taps: i64 = p.window.iter().product();
    k.b.parallel_for(|b, unit| {
        let blocks = b.div_const(m, p.block);
        let mut counts = vec![b.i64(1), blocks];
        counts.extend(&outs[..rank - 1]);
        let at = decode(b, unit, &counts);
        let first = b.mul(at[1], p.block);
        let group = b.div_const(first, p.each);
        let in_group = b.mul(group, p.each);
        let in_group = b.sub(first, in_group);
        let channels = b.div_const(c, p.op.groups);
        let first_channel = b.mul(group, channels);
        let first_plane = b.mul(at[0], c);
        let first_plane = b.add(first_plane, first_channel);
        let plane = ins.iter().fold(b.i64(1), |n, d| b.mul(n, *d));
        let out_plane = outs.iter().fold(b.i64(1), |n, d| b.mul(n, *d));
        let window = b.mul(first_channel, p.each);
        let window = b.add(window, in_group);
        let first_window = b.mul(window, taps);
        let width = outs[rank - 1];
        let mut row = b.i64(0);
        for (i, d) in at[2..].iter().zip(&outs) {
            row = b.at(*i, row, *d);
        }
        let row = b.mul(row, width);
        for rest in 0..stride {
            let taps: Vec<(i64, i64)> = (0..p.window[rank - 1])
                .filter(|e| (rest + pad - e * dilation).rem_euclid(stride) == 0)
                .map(|e| (e, (rest + pad - e * dilation).div_euclid(stride)))
                .collect();
            let r = Row {
                plan: p,
                x,
                w,
                lanes,
                sizes: ins.clone(),
                at: at[2..].to_vec(),
                first_plane,
                channels,
                plane,
                first_window,
                taps,
            };
            let count = b.sub(width, rest);
            let count = b.smax(count, 0);
            let count = b.ceil_div(count, stride);
            b.for_lanes(0, count, lanes, |b, q, mask| {
                let mut acc = Vec::new();
                for j in 0..p.block {
                    let channel = b.add(first, j);
                    let zero = b.zero(Ty::vec(elem, 1));
                    let v = bias.map_or(zero, |bias| load(b, p.d, bias, channel, 1, None));
                    acc.push(b.splat(v, lanes));
                }
                let base = b.i64(0);
                let acc = r.outer(b, 0, base, base, q, &acc);
                for (j, v) in acc.into_iter().enumerate() {
                    let channel = b.add(first, j as i64);
                    let plane_at = b.at(channel, at[0], m);
                    let to = b.at(row, plane_at, out_plane);
                    let to = b.add(to, rest);
                    let to = b.at(to, q, stride);
                    if stride == 1 {
                        store(b, p.d, y, to, v, mask);
                    } else {
                        let iota = b.iota(Ty::vec(Elem::I64, lanes));
                        let steps = b.mul(iota, stride);
                        let to = b.splat(to, lanes);
                        let to = b.add(to, steps);
                        let v = narrow_to(b, p.d, v, false);
                        b.scatter(y, to, v, mask);
                    }
                }
            });
        }
    });
}

impl Row<'_> {
    /// The elements of the window along the outer axes from `axis` on. `line` is the index of the input row so far,
    /// `element` that of the element of the window.
    fn outer(&self, b: &mut Builder, axis: usize, line: Val, element: Val, q: Val, acc: &[Val]) -> Vec<Val> {
        let op = self.plan.op;
        if axis + 1 == self.plan.window.len() {
            return self.inner(b, line, element, q, acc);
        }
        b.for_(0, self.plan.window[axis], 1, acc, |b, e, acc| {
            let reach = b.mul(e, op.dilations[axis]);
            let from = b.add(self.at[axis], op.pads[axis]);
            let from = b.sub(from, reach);
            let i = b.sdiv(from, op.strides[axis]);
            let back = b.mul(i, op.strides[axis]);
            let whole = b.cmp(CmpOp::Eq, back, from);
            let sound = b.cmp(CmpOp::Sge, from, 0);
            let below = b.cmp(CmpOp::Slt, i, self.sizes[axis]);
            let ok = b.and(whole, sound);
            let ok = b.and(ok, below);
            let line = b.at(i, line, self.sizes[axis]);
            let element = b.at(e, element, self.plan.window[axis]);
            b.if_(ok, |b| self.outer(b, axis + 1, line, element, q, acc), |_| acc.to_vec())
        })
    }
    fn inner(&self, b: &mut Builder, line: Val, element: Val, q: Val, acc: &[Val]) -> Vec<Val> {
        let (p, lanes) = (self.plan, self.lanes);
        let last = p.window.len() - 1;
        let (width, span) = (self.sizes[last], p.window[last]);
        let area: i64 = p.window.iter().product();
        let line = b.mul(line, width);
        let element = b.mul(element, span);
        let mut places = Vec::new();
        for (e, shift) in &self.taps {
            let from = b.add(q, *shift);
            let iota = b.iota(Ty::vec(Elem::I64, lanes));
            let from_v = b.splat(from, lanes);
            let pos = b.add(iota, from_v);
            let limit = b.splat(width, lanes);
            let inside = b.cmp(CmpOp::Ult, pos, limit);
            places.push((*e, from, inside));
        }
        b.for_(0, self.channels, 1, acc, |b, c, acc| {
            let mut acc = acc.to_vec();
            let plane = b.add(self.first_plane, c);
            let base = b.at(line, plane, self.plane);
            let window = b.mul(c, p.each * area);
            let window = b.add(window, self.first_window);
            let window = b.add(window, element);
            for (e, from, inside) in &places {
                let at = b.add(base, *from);
                let v = load(b, p.d, self.x, at, lanes, Some(*inside));
                for (j, a) in acc.iter_mut().enumerate() {
                    let at = b.add(window, j as i64 * area + e);
                    let w = load(b, p.d, self.w, at, 1, None);
                    let w = b.splat(w, lanes);
                    *a = b.fma(w, v, *a);
                }
            }
            acc
        })
    }
}
