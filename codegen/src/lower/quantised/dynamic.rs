//! Quantisation by the range of a tensor: a pass that finds the range of every chunk, and one that joins the ranges and
//! quantises.

use super::integer;
use crate::kernel::{BinOp, Buf, Builder, CmpOp, Elem, Ty, Val};
use crate::lower::cx::LowerCx;
use crate::lower::launch::Launch;
use crate::lower::nest::span;
use planish_ir::{DType, Diag, Dim};

/// Elements of a chunk.
const CHUNK: i64 = 16 * 1024;
/// The same for a thread of a GPU: of the first pass, whose results all threads of the second one read, and of the second.
const THREAD_CHUNKS: [i64; 2] = [1024, 32];

pub(in crate::lower) fn lower_dynamic_quantize(cx: &mut LowerCx<'_>) -> Result<(), Diag> {
    let x = cx.input(0)?;
    let (y, scale, zero) = (cx.output(0)?, cx.output(1)?, cx.output(2)?);
    let sizes = if cx.simt() { THREAD_CHUNKS } else { [CHUNK; 2] };
    let n = x.elems();
    // Something without elements has a scale as well.
    let [parts, units] = sizes.map(|size| n.ceil_div(&size.into()).larger(&1.into()));
    let ranges = cx.temp(DType::F32, &[2.into(), parts.clone()]);
    let cost = n.smaller(&sizes[0].into()).floor_div(&8.into());
    let l = Launch::new("range").read(&x).write(&ranges).dim(&n).dim(&parts).extent(parts.clone()).cost(cost);
    cx.launch(l, |k| {
        let (x, ranges, n, parts) = (k.buf(0), k.buf(1), k.dim(0), k.dim(1));
        let lanes = k.lanes(Elem::F32);
        k.b.parallel_for(|b, unit| {
            let (lo, hi) = span(b, unit, sizes[0], n);
            let [low, high] = extremes(b, [x, x], [lo, lo], [hi, hi], lanes, 4);
            b.store(ranges, unit, low);
            let at = b.add(parts, unit);
            b.store(ranges, at, high);
        });
    })?;
    let cost = n.smaller(&sizes[1].into());
    let l = Launch::new("dynamic_quantize").read(&x).read(&ranges).write(&y).write(&scale).write(&zero);
    let l = l.dim(&n).dim(&parts).extent(units).cost(cost).flops(n.mul(&Dim::Const(10)));
    cx.launch(l, |k| {
        let [x, ranges, y, scale, zero] = [0, 1, 2, 3, 4].map(|i| k.buf(i));
        let (n, parts) = (k.dim(0), k.dim(1));
        let lanes = k.lanes(Elem::F32);
        let b = &mut k.b;
        let none = b.i64(0);
        let end = b.add(parts, parts);
        let [low, high] = extremes(b, [ranges; 2], [none, parts], [parts, end], lanes, 1);
        let range = b.fsub(high, low);
        let step = b.fdiv(range, 255.0);
        let flat = b.cmp(CmpOp::FEq, range, 0.0);
        let one = b.f32(1.0);
        let step = b.select(flat, one, step);
        let point = b.fdiv(low, step);
        let point = b.fneg(point);
        let point = limited(b, point);
        let point = b.round_even(point);
        b.parallel_for(|b, unit| {
            let first = b.cmp(CmpOp::Eq, unit, 0);
            b.when(first, |b| {
                b.store(scale, 0, step);
                let p = integer(b, point, Elem::I8);
                b.store(zero, 0, p);
            });
            let (lo, hi) = span(b, unit, sizes[1], n);
            let (step, point) = (b.splat(step, lanes), b.splat(point, lanes));
            b.for_lanes(lo, hi, lanes, |b, i, mask| {
                let v = b.load_opt(x, i, lanes, mask);
                let q = b.fdiv(v, step);
                let nan = b.cmp(CmpOp::FNe, q, q);
                let nothing = b.zero(b.ty(q));
                let q = b.select(nan, nothing, q);
                let q = b.round_even(q);
                let q = b.fadd(q, point);
                let q = limited(b, q);
                let q = integer(b, q, Elem::I8);
                b.store_opt(y, i, q, mask);
            });
        });
    })
}

/// Limited to 0..255; NaN becomes 0.
fn limited(b: &mut Builder, v: Val) -> Val {
    let ty = b.ty(v);
    let (low, high) = (b.zero(ty), b.float(ty, 255.0));
    let above = b.cmp(CmpOp::FGt, v, low);
    let v = b.select(above, v, low);
    let below = b.cmp(CmpOp::FLt, v, high);
    b.select(below, v, high)
}

/// The least element of a part of one buffer and the largest of a part of another that is as long, both with 0 and without
/// NaN, in `chains` independent vectors.
fn extremes(
    b: &mut Builder,
    bufs: [Buf; 2],
    from: [Val; 2],
    to: [Val; 2],
    lanes: u16,
    chains: usize,
) -> [Val; 2] {
    const KINDS: [CmpOp; 2] = [CmpOp::FLt, CmpOp::FGt];
    let fold = |b: &mut Builder, side: usize, now: Val, v: Val| {
        let better = b.cmp(KINDS[side], v, now);
        b.select(better, v, now)
    };
    let wide = i64::from(lanes);
    let step = wide * chains as i64;
    let count = b.sub(to[0], from[0]);
    let count = b.smax(count, 0);
    let zero = b.zero(Ty::vec(Elem::F32, lanes));
    // Whole steps, whole vectors, and a part of one, whose other lanes are 0.
    let (whole, _) = b.div_rem(count, step);
    let ends = [b.mul(whole, step), b.and(count, -wide)];
    let start = b.i64(0);
    let now = b.for_(start, ends[0], step, &vec![zero; 2 * chains], |b, i, now| {
        (0..2 * chains)
            .map(|c| {
                let (side, at) = (c % 2, (c / 2) as i64 * wide);
                let i = b.add(i, at);
                let at = b.add(from[side], i);
                let v = b.load(bufs[side], at, lanes);
                fold(b, side, now[c], v)
            })
            .collect()
    });
    let mut now = [0, 1].map(|side| {
        let mut chain = now.iter().skip(side).step_by(2).copied();
        let first = chain.next().unwrap_or(zero);
        chain.fold(first, |a, v| fold(b, side, a, v))
    });
    let rest = b.for_(ends[0], ends[1], wide, &now, |b, i, now| {
        [0, 1]
            .map(|side| {
                let at = b.add(from[side], i);
                let v = b.load(bufs[side], at, lanes);
                fold(b, side, now[side], v)
            })
            .to_vec()
    });
    now.copy_from_slice(&rest);
    if lanes > 1 {
        let left = b.sub(count, ends[1]);
        let mask = b.mask_below(lanes, left);
        now = [0, 1].map(|side| {
            let at = b.add(from[side], ends[1]);
            let v = b.load_masked(bufs[side], at, mask, zero);
            fold(b, side, now[side], v)
        });
    }
    [b.reduce(BinOp::FMinNum, now[0]), b.reduce(BinOp::FMaxNum, now[1])]
}
