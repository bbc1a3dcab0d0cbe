//! Softmax and normalisation of long rows on GPUs: a block of threads does a row together.

use crate::kernel::{Axis, BinOp, Builder, Elem, Ty, Val};
use crate::lower::cx::LowerCx;
use crate::lower::elem::{compute_elem, load, store};
use crate::lower::launch::KernelCx;
use crate::math;
use crate::simt::reduce::{THREADS, Together};
use planish_ir::op::softmax::SoftmaxKind;
use planish_ir::{DType, Dim};

/// Shorter rows are one thread's.
const LONG: i64 = 64;

/// Threads of a block.
pub(super) const BLOCK: u32 = THREADS;

/// Whether blocks do rows of `n` elements of this type.
pub(super) fn takes(cx: &LowerCx<'_>, d: DType, n: &Dim) -> bool {
    cx.simt() && compute_elem(d) == Elem::F32 && n.as_const().is_none_or(|n| n >= LONG)
}

/// A row that a block does.
struct Row {
    base: Val,
    thread: Val,
    n: Val,
    together: Together,
}

impl Row {
    fn new(k: &mut KernelCx<'_>, n: Val) -> (Val, Row) {
        let row = k.unit();
        let b = &mut k.b;
        let thread = b.thread_id(0);
        let together = Together::new(b, thread);
        (row, Row { base: b.mul(row, n), thread, n, together })
    }
    /// Folds a value of every element: `each` gets the element's place in the row and in the tensor.
    fn fold(
        &self,
        b: &mut Builder,
        op: BinOp,
        start: f64,
        each: impl FnOnce(&mut Builder, Val, Val, Val) -> Val,
    ) -> Val {
        let start = b.float(Ty::F32, start);
        let own = b.for_axis(Axis::Block, self.thread, self.n, i64::from(BLOCK), &[start], |b, i, acc| {
            let at = b.add(self.base, i);
            vec![each(b, i, at, acc[0])]
        });
        self.together.fold(b, op, own[0])
    }
    fn each(&self, b: &mut Builder, f: impl FnOnce(&mut Builder, Val, Val)) {
        b.for_axis(Axis::Block, self.thread, self.n, i64::from(BLOCK), &[], |b, i, _| {
            let at = b.add(self.base, i);
            f(b, i, at);
            vec![]
        });
    }
}

/// Buffers: x, y; dim: the length of a row.
pub(super) fn softmax(k: &mut KernelCx<'_>, kind: SoftmaxKind, d: DType) {
    let (from, to, n) = (k.buf(0), k.buf(1), k.dim(0));
    let (_, row) = Row::new(k, n);
    let b = &mut k.b;
    let max = row.fold(b, BinOp::FMaxNum, f64::NEG_INFINITY, |b, _, at, acc| {
        let v = load(b, d, from, at, 1, None);
        b.fmaxnum(acc, v)
    });
    let sum = row.fold(b, BinOp::FAdd, 0.0, |b, _, at, acc| {
        let v = load(b, d, from, at, 1, None);
        let v = b.fsub(v, max);
        let e = math::exp(b, v);
        b.fadd(acc, e)
    });
    let last = match kind {
        SoftmaxKind::LogSoftmax => math::log(b, sum),
        _ => b.fdiv(1.0, sum),
    };
    row.each(b, |b, _, at| {
        let v = load(b, d, from, at, 1, None);
        let v = b.fsub(v, max);
        let y = if kind == SoftmaxKind::LogSoftmax {
            b.fsub(v, last)
        } else {
            let e = math::exp(b, v);
            b.fmul(e, last)
        };
        store(b, d, to, at, y, None);
    });
}

/// What a normalisation kernel has besides x: the buffers of scale, bias, result, mean and reciprocal deviation, where they are.
pub(super) struct Norm {
    pub(super) dtype: DType,
    pub(super) rms: bool,
    pub(super) epsilon: f64,
    pub(super) bufs: [Option<crate::kernel::Buf>; 5],
}

/// Buffer 0: x; dim: the length of a row.
pub(super) fn normalise(k: &mut KernelCx<'_>, p: &Norm) {
    let (x, n) = (k.buf(0), k.dim(0));
    let (unit, row) = Row::new(k, n);
    let [scale, bias, y, mean_out, inv_out] = p.bufs;
    let (d, rms) = (p.dtype, p.rms);
    let b = &mut k.b;
    let count = b.sitofp(n, Elem::F32);
    let mean = if rms {
        b.zero(Ty::F32)
    } else {
        let sum = row.fold(b, BinOp::FAdd, 0.0, |b, _, at, acc| {
            let v = load(b, d, x, at, 1, None);
            b.fadd(acc, v)
        });
        b.fdiv(sum, count)
    };
    let centred = |b: &mut Builder, at: Val| {
        let v = load(b, d, x, at, 1, None);
        if rms { v } else { b.fsub(v, mean) }
    };
    let square = row.fold(b, BinOp::FAdd, 0.0, |b, _, at, acc| {
        let v = centred(b, at);
        b.fma(v, v, acc)
    });
    let var = b.fdiv(square, count);
    let var = b.fadd(var, p.epsilon);
    let root = b.sqrt(var);
    let inv = b.fdiv(1.0, root);
    let leader = b.cmp(crate::kernel::CmpOp::Eq, row.thread, 0);
    for (out, v) in [(mean_out, mean), (inv_out, inv)] {
        if let Some(out) = out {
            b.when(leader, |b| b.store(out, unit, v));
        }
    }
    let Some(y) = y else { return };
    row.each(b, |b, i, at| {
        let v = centred(b, at);
        let mut v = b.fmul(v, inv);
        if let Some(s) = scale {
            let s = load(b, d, s, i, 1, None);
            v = b.fmul(v, s);
        }
        if let Some(s) = bias {
            let s = load(b, d, s, i, 1, None);
            v = b.fadd(v, s);
        }
        store(b, d, y, at, v, None);
    });
}
