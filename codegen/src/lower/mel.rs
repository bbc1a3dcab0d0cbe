//! The matrix that turns a spectrum into mel bands.

use super::cx::LowerCx;
use super::elem::{convert, load, store};
use super::launch::Launch;
use super::movement::is_fresh;
use crate::kernel::{Builder, CmpOp, Elem, Ty, Val};
use crate::math;
use planish_ir::{DType, Diag, Dim};

/// The only element of an operand in 64 bits.
fn number(b: &mut Builder, buf: crate::kernel::Buf, from: DType, to: DType) -> Val {
    let v = load(b, from, buf, 0, 1, None);
    convert(b, v, from, to)
}

/// Mels of a frequency.
fn mel(b: &mut Builder, hz: Val) -> Val {
    let t = b.fdiv(hz, 700.0);
    let t = b.fadd(t, 1.0);
    let t = math::log(b, t);
    b.fmul(t, 2595.0 / std::f64::consts::LN_10)
}

/// One column of triangles for each unit.
pub(super) fn lower_mel_weights(cx: &mut LowerCx<'_>) -> Result<(), Diag> {
    let operands = (0..5).map(|i| cx.input(i)).collect::<Result<Vec<_>, _>>()?;
    let types: Vec<DType> = operands.iter().map(|x| x.dtype).collect();
    let (d, dims) = cx.output_type(0)?;
    if dims.iter().any(|d| is_fresh(cx, d)) {
        let sizes = cx.temp(DType::I64, &[Dim::Const(2)]);
        let l = Launch::new("mel_sizes").read(&operands[0]).read(&operands[1]).write(&sizes);
        let types = types.clone();
        cx.launch(l, move |k| {
            let (bins, length, sizes) = (k.buf(0), k.buf(1), k.buf(2));
            k.b.parallel_for(|b, _| {
                let bins = number(b, bins, types[0], DType::I64);
                let length = number(b, length, types[1], DType::I64);
                let half = b.ashr(length, 1);
                let rows = b.add(half, 1);
                b.store(sizes, 0, rows);
                b.store(sizes, 1, bins);
            });
        })?;
        for (axis, dim) in dims.iter().enumerate() {
            let what = "a number of bins is out of range";
            cx.bind(dim, &sizes, axis as u32, &Dim::Const(0), &Dim::Const(1 << 32), what)?;
        }
    }
    let y = cx.output(0)?;
    let (rows, bins) = (y.dims[0].clone(), y.dims[1].clone());
    let error = cx.error("an edge is outside the spectrum");
    let mut l = Launch::new("mel_weights").write(&y).dim(&rows).dim(&bins).raises(error);
    for x in &operands[1..] {
        l = l.read(x);
    }
    cx.launch(l.extent(bins).cost(rows.mul(&Dim::Const(8))), move |k| {
        let (y, rows, bins, error) = (k.buf(0), k.dim(0), k.dim(1), k.error(0));
        let from = [k.buf(1), k.buf(2), k.buf(3), k.buf(4)];
        k.b.parallel_for(|b, column| {
            let mut given = Vec::new();
            for (buf, d) in from.iter().zip(&types[1..]) {
                given.push(number(b, *buf, *d, DType::F64));
            }
            let (low, high) = (mel(b, given[2]), mel(b, given[3]));
            let span = b.fsub(high, low);
            let count = b.add(bins, 2);
            let count = b.sitofp(count, Elem::F64);
            let step = b.fdiv(span, count);
            let length = b.fadd(given[0], 1.0);
            let limit = b.sitofp(rows, Elem::F64);
            let mut edge = |after: i64| {
                let i = b.add(column, after);
                let i = b.sitofp(i, Elem::F64);
                let m = b.fma(i, step, low);
                let t = b.fmul(m, std::f64::consts::LN_10 / 2595.0);
                let t = math::exp(b, t);
                let hz = b.fsub(t, 1.0);
                let hz = b.fmul(hz, 700.0);
                let at = b.fmul(length, hz);
                let at = b.fdiv(at, given[1]);
                let at = b.floor(at);
                let (from, to) = (b.cmp(CmpOp::FGe, at, 0.0), b.cmp(CmpOp::FLe, at, limit));
                let inside = b.and(from, to);
                let outside = b.not(inside);
                b.error_if(outside, error);
                b.fptosi(at, Elem::I64)
            };
            let (lo, mid, hi) = (edge(0), edge(1), edge(2));
            let beyond = b.cmp(CmpOp::Sge, mid, rows);
            b.error_if(beyond, error);
            let part = |b: &mut Builder, up: Val, of: Val| {
                let (up, of) = (b.sitofp(up, Elem::F64), b.sitofp(of, Elem::F64));
                b.fdiv(up, of)
            };
            b.loop_(0, rows, 1, |b, j| {
                let (up, rise) = (b.sub(j, lo), b.sub(mid, lo));
                let rising = part(b, up, rise);
                let flat = b.cmp(CmpOp::Eq, lo, mid);
                let rising = b.select(flat, 1.0, rising);
                let (from, to) = (b.cmp(CmpOp::Sge, j, lo), b.cmp(CmpOp::Sle, j, mid));
                let inside = b.and(from, to);
                let zero = b.float(Ty::F64, 0.0);
                let v = b.select(inside, rising, zero);
                let (down, fall) = (b.sub(hi, j), b.sub(hi, mid));
                let falling = part(b, down, fall);
                let (from, to) = (b.cmp(CmpOp::Sge, j, mid), b.cmp(CmpOp::Slt, j, hi));
                let inside = b.and(from, to);
                let v = b.select(inside, falling, v);
                let v = convert(b, v, DType::F64, d);
                let at = b.at(column, j, bins);
                store(b, d, y, at, v, None);
            });
        });
    })
}
