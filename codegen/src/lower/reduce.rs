//! Reductions over axes.

use super::cx::{LowerCx, Opnd};
use super::elem::{compute_elem, convert, load, store};
use super::launch::{KernelCx, Launch};
use super::movement::is_fresh;
use super::nest::{decode, load_index, span, stride_vals};
use crate::kernel::{BinOp, Buf, Builder, CmpOp, Elem, Ty, Val};
use crate::math;
use planish_ir::op::reduce::{Reduce, ReduceKind};
use planish_ir::{DType, Diag, Dim};

/// A reduction as kernels see it.
#[derive(Clone, Copy, Debug)]
struct Kind {
    kind: ReduceKind,
    /// Of the operand and the result.
    dtype: DType,
    /// In which the result is formed.
    acc: DType,
}

/// How two partial results become one.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Fold {
    Sum,
    Prod,
    Max,
    Min,
}

impl Kind {
    fn new(kind: ReduceKind, dtype: DType) -> Kind {
        // Roots and logarithms of integers go through f64.
        let wide = !dtype.is_float() && matches!(kind, ReduceKind::L2 | ReduceKind::LogSum);
        Kind { kind, dtype, acc: if wide { DType::F64 } else { dtype } }
    }
    fn elem(self) -> Elem {
        compute_elem(self.acc)
    }
    fn fold(self) -> Fold {
        match self.kind {
            ReduceKind::Prod => Fold::Prod,
            ReduceKind::Max => Fold::Max,
            ReduceKind::Min => Fold::Min,
            _ => Fold::Sum,
        }
    }
    /// The instruction of a fold.
    fn op(self, f: Fold) -> BinOp {
        let (float, unsigned) = (self.elem().is_float(), self.acc.is_unsigned_int());
        match f {
            Fold::Sum if float => BinOp::FAdd,
            Fold::Sum => BinOp::Add,
            Fold::Prod if float => BinOp::FMul,
            Fold::Prod => BinOp::Mul,
            Fold::Max if self.acc == DType::Bool => BinOp::Or,
            Fold::Max if float => BinOp::FMax,
            Fold::Max if unsigned => BinOp::UMax,
            Fold::Max => BinOp::SMax,
            Fold::Min if self.acc == DType::Bool => BinOp::And,
            Fold::Min if float => BinOp::FMin,
            Fold::Min if unsigned => BinOp::UMin,
            Fold::Min => BinOp::SMin,
        }
    }
    /// What folds to nothing.
    fn identity(self, b: &mut Builder, f: Fold, lanes: u16) -> Val {
        let ty = Ty::vec(self.elem(), lanes);
        if ty.elem.is_float() {
            let v = match f {
                Fold::Sum => 0.0,
                Fold::Prod => 1.0,
                Fold::Max => f64::NEG_INFINITY,
                Fold::Min => f64::INFINITY,
            };
            return b.float(ty, v);
        }
        let (lo, hi) = self.acc.int_range().unwrap_or((0, 1));
        let v = match f {
            Fold::Sum => 0,
            Fold::Prod => 1,
            Fold::Max => lo,
            Fold::Min => hi,
        };
        b.int(ty, v as i64)
    }
    /// What is folded of an element.
    fn each(self, b: &mut Builder, v: Val) -> Val {
        let float = self.elem().is_float();
        match self.kind {
            ReduceKind::L1 if float => b.fabs(v),
            ReduceKind::L1 if self.acc.is_signed_int() => {
                let n = b.neg(v);
                b.smax(v, n)
            }
            ReduceKind::L2 | ReduceKind::SumSquare if float => b.fmul(v, v),
            ReduceKind::SumSquare => b.mul(v, v),
            _ => v,
        }
    }
    /// The result from what was folded of `count` elements.
    fn finish(self, b: &mut Builder, v: Val, count: Val) -> Val {
        let ty = b.ty(v);
        let v = match self.kind {
            ReduceKind::Mean if ty.elem.is_float() => {
                let n = b.sitofp(count, ty.elem);
                let n = b.splat(n, ty.lanes);
                b.fdiv(v, n)
            }
            ReduceKind::Mean => {
                // In 64 bits, so that the count keeps its value.
                let wide =
                    convert(b, v, self.acc, if self.acc.is_unsigned_int() { DType::U64 } else { DType::I64 });
                let n = b.splat(count, ty.lanes);
                let q = if self.acc.is_unsigned_int() { b.udiv(wide, n) } else { b.sdiv(wide, n) };
                convert(b, q, DType::I64, self.acc)
            }
            ReduceKind::L2 => b.sqrt(v),
            ReduceKind::LogSum | ReduceKind::LogSumExp => math::log(b, v),
            _ => v,
        };
        convert(b, v, self.acc, self.dtype)
    }
}

/// Nested loops over sizes: `body` gets the offset and the carried value, and gives the next one.
fn nested(
    b: &mut Builder,
    sizes: &[Val],
    strides: &[Val],
    at: Val,
    init: Val,
    body: &mut dyn FnMut(&mut Builder, Val, Val) -> Val,
) -> Val {
    let (Some((n, sizes)), Some((s, strides))) = (sizes.split_first(), strides.split_first()) else {
        return body(b, at, init);
    };
    b.for_(0, *n, 1, &[init], |b, i, now| {
        let at = b.at(at, i, *s);
        vec![nested(b, sizes, strides, at, now[0], body)]
    })[0]
}

pub(super) fn lower_reduce(cx: &mut LowerCx<'_>, op: &Reduce) -> Result<(), Diag> {
    let (dtype, dims) = cx.tensor_type(cx.input_value(0)?)?;
    let rank = dims.len();
    let axes = match (&op.axes, cx.has(1)) {
        (Some(a), _) => Some(a.clone()),
        (None, false) => Some((0..rank).collect()),
        (None, true) => match cx.const_ints(1) {
            Some(a) if a.is_empty() && op.noop_empty => Some(vec![]),
            Some(a) if a.is_empty() => Some((0..rank).collect()),
            Some(a) => Some(planish_ir::op::normalize_axes(&a, rank)?),
            None => None,
        },
    };
    let kind = Kind::new(op.kind, dtype);
    if let (Some(x), Some(axes)) = (cx.blocked_form(cx.input_value(0)?), &axes)
        && op.keepdims
        && axes.iter().copied().eq(2..rank)
    {
        let y = cx.blocked_output(0)?;
        return reduce_known(cx, kind, &x, axes, &y);
    }
    let x = cx.input(0)?;
    match axes {
        Some(axes) => {
            let y = cx.output(0)?;
            reduce_known(cx, kind, &x, &axes, &y)
        }
        None => reduce_data(cx, kind, &x, op),
    }
}

/// Neighbouring axes of one kind together: size, stride, whether they are reduced.
fn groups(x: &Opnd, axes: &[usize]) -> Vec<(Dim, Dim, bool)> {
    let st = x.strides();
    let mut out: Vec<(Dim, Dim, bool)> = Vec::new();
    for (a, d) in x.dims.iter().enumerate() {
        if d.is(1) {
            continue;
        }
        let reduced = axes.contains(&a);
        match out.last_mut() {
            Some((size, stride, r)) if *r == reduced => {
                *size = size.mul(d);
                stride.clone_from(&st[a]);
            }
            _ => out.push((d.clone(), st[a].clone(), reduced)),
        }
    }
    out
}

fn reduce_known(cx: &mut LowerCx<'_>, kind: Kind, x: &Opnd, axes: &[usize], y: &Opnd) -> Result<(), Diag> {
    let mut groups = groups(x, axes);
    if groups.last().is_none_or(|g| !g.2) && groups.iter().all(|g| !g.2) {
        // Nothing is reduced; a group of size 1 makes it a reduction of single elements.
        groups.push((Dim::Const(1), Dim::Const(1), true));
    }
    let count = groups.iter().filter(|g| g.2).fold(Dim::Const(1), |n, g| n.mul(&g.0));
    let by_rows = groups.last().is_some_and(|g| g.2);
    let split = |reduced: bool| -> (Vec<Dim>, Vec<Dim>) {
        groups.iter().filter(|g| g.2 == reduced).map(|g| (g.0.clone(), g.1.clone())).unzip()
    };
    let ((kept, kept_st), (red, red_st)) = (split(false), split(true));
    let (nk, nr) = (kept.len(), red.len());
    let mut l = Launch::new("reduce").read(x).write(y);
    l = l.dims(&kept).dims(&kept_st).dims(&red).dims(&red_st).dim(&count);
    l = l.flops(x.elems()).bytes(x.elems().mul(&Dim::from(x.dtype.size())));
    if by_rows && cx.simt() && count.as_const().is_none_or(|n| n >= LONG) {
        let l = l.extent(Dim::product(&kept));
        return cx.launch_blocks(l, BLOCK, move |k| block_kernel(k, kind, nk, nr));
    }
    if by_rows {
        let l = l.extent(Dim::product(&kept)).cost(count);
        return cx.launch(l, move |k| rows_kernel(k, kind, nk, nr));
    }
    let inner = kept[nk - 1].clone();
    let columns = cx.chunk().min(COLUMNS);
    let chunks = inner.ceil_div(&columns.into());
    let l = l.dim(&chunks).extent(Dim::product(&kept[..nk - 1]).mul(&chunks));
    let l = l.cost(count.mul(&inner.smaller(&columns.into())));
    cx.launch(l, move |k| columns_kernel(k, kind, nk, nr))
}

/// Columns that a unit of work reduces together.
const COLUMNS: i64 = 128;

/// The reduced groups of one result, run through with `lanes` elements at a time from the offset that is given.
#[derive(Clone, Copy)]
struct Walk<'a> {
    x: Buf,
    kind: Kind,
    lanes: u16,
    sizes: &'a [Val],
    strides: &'a [Val],
}

impl Walk<'_> {
    fn element(&self, b: &mut Builder, at: Val, mask: Option<Val>) -> Val {
        let v = load(b, self.kind.dtype, self.x, at, self.lanes, mask);
        convert(b, v, self.kind.dtype, self.kind.acc)
    }
    /// Columns: lanes are results.
    fn columns(
        &self,
        b: &mut Builder,
        at: Val,
        mask: Option<Val>,
        fold: Fold,
        each: &dyn Fn(&mut Builder, Val) -> Val,
    ) -> Val {
        let init = self.kind.identity(b, fold, self.lanes);
        let op = self.kind.op(fold);
        nested(b, self.sizes, self.strides, at, init, &mut |b, at, acc| {
            let v = self.element(b, at, mask);
            let v = each(b, v);
            b.bin(op, acc, v)
        })
    }
    /// Rows: lanes run along the last group, which is contiguous, and are folded at the end.
    fn rows(&self, b: &mut Builder, at: Val, fold: Fold, each: &dyn Fn(&mut Builder, Val) -> Val) -> Val {
        let (kind, lanes) = (self.kind, self.lanes);
        let init = kind.identity(b, fold, lanes);
        let op = kind.op(fold);
        let last = self.sizes.len() - 1;
        let n = self.sizes[last];
        let acc = nested(b, &self.sizes[..last], &self.strides[..last], at, init, &mut |b, at, acc| {
            let whole = b.and(n, -i64::from(lanes));
            let acc = b.for_(0, whole, i64::from(lanes), &[acc], |b, i, now| {
                let p = b.add(at, i);
                let v = self.element(b, p, None);
                let v = each(b, v);
                vec![b.bin(op, now[0], v)]
            })[0];
            if lanes == 1 {
                return acc;
            }
            let rest = b.sub(n, whole);
            let some = b.cmp(CmpOp::Sgt, rest, 0);
            b.if_(
                some,
                |b| {
                    let mask = b.mask_below(lanes, rest);
                    let p = b.add(at, whole);
                    let v = self.element(b, p, Some(mask));
                    let v = each(b, v);
                    let none = kind.identity(b, fold, lanes);
                    let v = b.select(mask, v, none);
                    vec![b.bin(op, acc, v)]
                },
                |_| vec![acc],
            )[0]
        });
        if lanes == 1 { acc } else { b.reduce(op, acc) }
    }
}

/// `m` where it is finite, else 0.
fn finite_or_zero(b: &mut Builder, m: Val) -> Val {
    let ty = b.ty(m);
    let a = b.fabs(m);
    let ok = b.cmp(CmpOp::FLt, a, f64::INFINITY);
    let zero = b.zero(ty);
    b.select(ok, m, zero)
}

/// The result of one walk, `run` being [`Walk::rows`] or [`Walk::columns`].
fn whole(
    b: &mut Builder,
    kind: Kind,
    count: Val,
    run: &dyn Fn(&mut Builder, Fold, &dyn Fn(&mut Builder, Val) -> Val) -> Val,
) -> Val {
    if kind.kind != ReduceKind::LogSumExp {
        let acc = run(b, kind.fold(), &|b, v| kind.each(b, v));
        return kind.finish(b, acc, count);
    }
    let max = run(b, Fold::Max, &|_, v| v);
    let max = finite_or_zero(b, max);
    let sum = run(b, Fold::Sum, &|b, v| {
        let lanes = b.ty(v).lanes;
        let m = if b.ty(max).lanes == lanes { max } else { b.splat(max, lanes) };
        let d = b.fsub(v, m);
        math::exp(b, d)
    });
    let log = math::log(b, sum);
    b.fadd(log, max)
}

/// The parts of a launch of [`reduce_known`].
fn parts(k: &KernelCx<'_>, nk: usize, nr: usize) -> [Vec<Val>; 4] {
    [k.dims(0, nk), k.dims(nk, nk), k.dims(2 * nk, nr), k.dims(2 * nk + nr, nr)]
}

fn rows_kernel(k: &mut KernelCx<'_>, kind: Kind, nk: usize, nr: usize) {
    let (x, y) = (k.buf(0), k.buf(1));
    let [kept, kept_st, sizes, strides] = parts(k, nk, nr);
    let count = k.dim(2 * (nk + nr));
    let lanes = k.lanes(kind.elem());
    // A logical reduction has no lanes to fold.
    let lanes = if kind.acc == DType::Bool { 1 } else { lanes };
    k.b.parallel_for(|b, unit| {
        let index = decode(b, unit, &kept);
        let at = super::nest::offset(b, &index, &kept_st);
        let walk = Walk { x, kind, lanes, sizes: &sizes, strides: &strides };
        let v = whole(b, kind, count, &|b, fold, each| walk.rows(b, at, fold, each));
        store(b, kind.dtype, y, unit, v, None);
    });
}

/// From this many elements on, a block of a GPU reduces them together; fewer are one thread's.
const LONG: i64 = 64;
/// Threads of such a block, a power of two.
const BLOCK: u32 = 128;

/// One result by a block: threads take every [`BLOCK`]th element of the last group, then halve the partial results in shared
/// memory. The order depends on the dims only.
fn block_kernel(k: &mut KernelCx<'_>, kind: Kind, nk: usize, nr: usize) {
    let (x, y) = (k.buf(0), k.buf(1));
    let [kept, kept_st, sizes, strides] = parts(k, nk, nr);
    let count = k.dim(2 * (nk + nr));
    let unit = k.unit();
    let b = &mut k.b;
    let partial = b.shared("partial", kind.elem(), BLOCK);
    let t = b.thread_id(0);
    let index = decode(b, unit, &kept);
    let at = super::nest::offset(b, &index, &kept_st);
    let walk = Walk { x, kind, lanes: 1, sizes: &sizes, strides: &strides };
    let last = nr - 1;
    let v = whole(b, kind, count, &|b, fold, each| {
        let init = kind.identity(b, fold, 1);
        let op = kind.op(fold);
        let own = nested(b, &sizes[..last], &strides[..last], at, init, &mut |b, at, acc| {
            b.for_(t, sizes[last], i64::from(BLOCK), &[acc], |b, i, now| {
                let p = b.add(at, i);
                let v = walk.element(b, p, None);
                let v = each(b, v);
                vec![b.bin(op, now[0], v)]
            })[0]
        });
        b.store(partial, t, own);
        let mut half = i64::from(BLOCK) / 2;
        while half > 0 {
            b.barrier();
            let active = b.cmp(CmpOp::Slt, t, half);
            b.when(active, |b| {
                let other = b.add(t, half);
                let (l, r) = (b.load(partial, t, 1), b.load(partial, other, 1));
                let v = b.bin(op, l, r);
                b.store(partial, t, v);
            });
            half /= 2;
        }
        b.barrier();
        let all = b.load(partial, 0, 1);
        // The array may be used again.
        b.barrier();
        all
    });
    let leader = b.cmp(CmpOp::Eq, t, 0);
    b.when(leader, |b| store(b, kind.dtype, y, unit, v, None));
}

fn columns_kernel(k: &mut KernelCx<'_>, kind: Kind, nk: usize, nr: usize) {
    let (x, y) = (k.buf(0), k.buf(1));
    let [kept, kept_st, sizes, strides] = parts(k, nk, nr);
    let (count, chunks) = (k.dim(2 * (nk + nr)), k.dim(2 * (nk + nr) + 1));
    let columns = k.chunk().min(COLUMNS);
    let lanes = k.lanes(kind.elem());
    k.b.parallel_for(|b, unit| {
        let (row, chunk) = b.div_rem(unit, chunks);
        let index = decode(b, row, &kept[..nk - 1]);
        let base = super::nest::offset(b, &index, &kept_st[..nk - 1]);
        let inner = kept[nk - 1];
        let to = b.mul(row, inner);
        let (lo, hi) = span(b, chunk, columns, inner);
        b.for_lanes(lo, hi, lanes, |b, i, mask| {
            let at = b.add(base, i);
            let walk = Walk { x, kind, lanes, sizes: &sizes, strides: &strides };
            let v = whole(b, kind, count, &|b, fold, each| walk.columns(b, at, mask, fold, each));
            let at = b.add(to, i);
            store(b, kind.dtype, y, at, v, mask);
        });
    });
}

/// Axes that only data tell: a kernel marks them, then every result walks through its elements one by one.
fn reduce_data(cx: &mut LowerCx<'_>, kind: Kind, x: &Opnd, op: &Reduce) -> Result<(), Diag> {
    let rank = x.dims.len();
    let axes = cx.input(1)?;
    let (_, out) = cx.output_type(0)?;
    // For every axis whether it is reduced, then the dims of the result.
    let plan = cx.temp(DType::I64, &[Dim::from(rank + out.len().max(rank))]);
    let count = axes.elems();
    let error = cx.error("an axis is out of range");
    let (index_type, keepdims, noop) = (axes.dtype, op.keepdims, op.noop_empty);
    let l = Launch::new("reduce_plan").write(&plan).read(&axes).dims(&x.dims).dim(&count).raises(error);
    cx.launch(l, move |k| {
        let (plan, axes) = (k.buf(0), k.buf(1));
        let (dims, count, error) = (k.dims(0, rank), k.dim(rank), k.error(0));
        k.b.parallel_for(|b, _| {
            let ranks = b.i64(rank as i64);
            let empty = b.cmp(CmpOp::Eq, count, 0);
            let all = b.zext(empty, Elem::I64);
            let start = if noop { b.i64(0) } else { all };
            let mut next = b.i64(0);
            for (a, d) in dims.iter().enumerate() {
                let flag = b.for_(0, count, 1, &[start], |b, j, now| {
                    let i = load_index(b, index_type, axes, j);
                    let (i, bad) = super::nest::wrap_index(b, i, ranks);
                    b.error_if(bad, error);
                    let here = b.cmp(CmpOp::Eq, i, a as i64);
                    vec![b.select(here, 1, now[0])]
                })[0];
                b.store(plan, a as i64, flag);
                let reduced = b.cmp(CmpOp::Ne, flag, 0);
                if keepdims {
                    let size = b.select(reduced, 1, *d);
                    b.store(plan, (rank + a) as i64, size);
                } else {
                    let at = b.add(next, rank as i64);
                    let kept = b.not(reduced);
                    b.when(kept, |b| b.store(plan, at, *d));
                    let step = b.zext(kept, Elem::I64);
                    next = b.add(next, step);
                }
            }
        });
    })?;
    for (a, d) in out.iter().enumerate() {
        if is_fresh(cx, d) {
            let what = "the size of an axis is out of range";
            cx.bind(d, &plan, (rank + a) as u32, &Dim::Const(0), &Dim::Const(1 << 40), what)?;
        }
    }
    let y = cx.output(0)?;
    let l = Launch::new("reduce_any").read(x).write(&y).read(&plan).dims(&x.dims).extent(y.elems());
    cx.launch(l, move |k| {
        let (x, y, plan, dims) = (k.buf(0), k.buf(1), k.buf(2), k.dims(0, rank));
        let st = stride_vals(&mut k.b, &dims);
        let (mut kept, mut sizes) = (Vec::new(), Vec::new());
        let mut count = k.b.i64(1);
        for (a, d) in dims.iter().enumerate() {
            let b = &mut k.b;
            let flag = b.load(plan, a as i64, 1);
            let reduced = b.cmp(CmpOp::Ne, flag, 0);
            kept.push(b.select(reduced, 1, *d));
            let size = b.select(reduced, *d, 1);
            count = b.mul(count, size);
            sizes.push(size);
        }
        k.b.parallel_for(|b, unit| {
            let index = decode(b, unit, &kept);
            let at = super::nest::offset(b, &index, &st);
            let walk = Walk { x, kind, lanes: 1, sizes: &sizes, strides: &st };
            let v = whole(b, kind, count, &|b, fold, each| walk.columns(b, at, None, fold, each));
            store(b, kind.dtype, y, unit, v, None);
        });
    })
}
