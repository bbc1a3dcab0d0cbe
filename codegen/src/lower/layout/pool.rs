//! Pooling of blocked tensors.

use super::BLOCK;
use crate::kernel::{Buf, Builder, CmpOp, Elem, Ty, Val};
use crate::lower::contraction::in_pieces;
use crate::lower::cx::LowerCx;
use crate::lower::elem::mem_elem;
use crate::lower::nn::pool_axis::{Axis, Span, launch};
use planish_ir::op::pool::{Pool, PoolKind};
use planish_ir::{DType, Diag};
use std::collections::{BTreeMap, BTreeSet};

/// Windows that are done together, at most.
const TOGETHER: i64 = 8;

/// Emits the pooling of a blocked tensor. Says whether it did.
pub(in crate::lower) fn lower_pool(cx: &mut LowerCx<'_>, op: &Pool) -> Result<bool, Diag> {
    let Some(x) = cx.blocked_form(cx.input_value(0)?) else { return Ok(false) };
    let rank = op.kernel.len();
    let taken = matches!(op.kind, PoolKind::Max | PoolKind::Average);
    let byte = matches!(x.dtype, DType::U8 | DType::I8);
    let taken = taken && (x.dtype == DType::F32 || byte && op.kind == PoolKind::Max);
    if !taken || op.indices.is_some() || !(1..=2).contains(&rank) {
        return Ok(false);
    }
    let y = cx.blocked_output(0)?;
    let l = launch(op, &x, &y);
    let dtype = x.dtype;
    cx.launch(l, |k| {
        let elem = mem_elem(dtype);
        let lanes = if byte { BLOCK as u16 } else { k.lanes(elem).min(BLOCK as u16) };
        let (from, to) = (k.buf(0), k.buf(1));
        let mut axes: Vec<Axis> = (0..rank).map(|a| Axis::read(k, op, a)).collect();
        let registers = i64::from(k.target.registers);
        let b = &mut k.b;
        let one = b.i64(1);
        if rank == 1 {
            let zero = b.i64(0);
            axes.insert(
                0,
                Axis { input: one, out: one, begin: zero, end: zero, kernel: 1, stride: 1, dilation: 1 },
            );
        }
        let job = Job { op, dtype, from, to, lanes, across: axes[1] };
        let vertical = axes[0];
        // A unit is a row of results of one block.
        b.parallel_for(|b, unit| {
            let (plane, row) = b.div_rem(unit, vertical.out);
            let base = b.mul(plane, vertical.input);
            let y = vertical.span(b, op, row);
            let row = Row { base, to: b.mul(unit, job.across.out), span: y, dilation: vertical.dilation };
            for part in 0..BLOCK / i64::from(lanes) {
                job.columns(b, &row, part * i64::from(lanes), registers);
            }
        });
    })?;
    Ok(true)
}

/// What all windows share.
struct Job<'j> {
    op: &'j Pool,
    dtype: DType,
    from: Buf,
    to: Buf,
    lanes: u16,
    across: Axis,
}

/// A row of results.
struct Row {
    /// The first row of the input, and the first position of the results.
    base: Val,
    to: Val,
    /// Rows of its windows.
    span: Span,
    dilation: i64,
}

impl Job<'_> {
    /// The channels from `off` on of a row: windows that lie in the input across it are done together.
    fn columns(&self, b: &mut Builder, row: &Row, off: i64, registers: i64) {
        let x = self.across;
        let reach = (x.kernel - 1).saturating_mul(x.dilation).saturating_add(1);
        let held = registers * 5 / 8;
        if reach > held || x.stride > held {
            return b.loop_(0, x.out, 1, |b, column| self.window(b, row, column, off));
        }
        let together = ((held - reach) / x.stride + 1).min(TOGETHER);
        let before = b.smax(x.begin, 0);
        let first = b.ceil_div(before, x.stride);
        let first = b.smin(first, x.out);
        let room = b.add(x.input, x.begin);
        let room = b.sub(room, reach);
        let room = b.add(room, x.stride);
        let room = b.smax(room, 0);
        let last = b.div_const(room, x.stride);
        let last = b.smin(last, x.out);
        let last = b.smax(last, first);
        b.loop_(0, first, 1, |b, column| self.window(b, row, column, off));
        let count = b.sub(last, first);
        let known = b.known_int(count);
        in_pieces(b, count, known, together as usize, |b, i, size| {
            let column = b.add(first, i);
            self.windows(b, row, column, size as i64, off);
        });
        b.loop_(last, x.out, 1, |b, column| self.window(b, row, column, off));
    }
    fn init(&self, b: &mut Builder) -> Val {
        let ty = Ty::vec(mem_elem(self.dtype), self.lanes);
        if let Some((low, _)) = self.dtype.int_range() {
            return b.int(ty, low as i64);
        }
        let low = if self.op.kind == PoolKind::Max { f64::NEG_INFINITY } else { 0.0 };
        b.float(Ty::vec(Elem::F32, self.lanes), low)
    }
    /// `acc` and another element.
    fn with(&self, b: &mut Builder, acc: Val, v: Val) -> Val {
        if self.op.kind != PoolKind::Max {
            return b.fadd(acc, v);
        }
        match self.dtype {
            DType::U8 => return b.umax(acc, v),
            DType::I8 => return b.smax(acc, v),
            _ => {}
        }
        // NaN stays and wins; of two zeros any will do.
        let greater = b.cmp(CmpOp::FGt, v, acc);
        let most = b.select(greater, v, acc);
        let nan = b.cmp(CmpOp::FUno, v, v);
        b.select(nan, v, most)
    }
    /// `size` windows from `column` on, all of which lie in the input across: columns of the input first.
    fn windows(&self, b: &mut Builder, row: &Row, column: Val, size: i64, off: i64) {
        let x = self.across;
        let of = |g: i64| (0..x.kernel).map(move |k| g * x.stride + k * x.dilation);
        let read: BTreeSet<i64> = (0..size).flat_map(of).collect();
        let init = vec![self.init(b); read.len()];
        let start = x.start(b, column);
        let columns = b.for_(row.span.first, row.span.last, 1, &init, |b, ky, acc| {
            let at = b.at(row.span.start, ky, row.dilation);
            let at = b.add(row.base, at);
            let at = b.at(start, at, x.input);
            let at = b.mul(at, BLOCK);
            let mut next = Vec::with_capacity(acc.len());
            for (c, acc) in read.iter().zip(acc) {
                let at = b.add(at, c * BLOCK + off);
                let v = b.load(self.from, at, self.lanes);
                next.push(self.with(b, *acc, v));
            }
            next
        });
        let columns: BTreeMap<i64, Val> = read.into_iter().zip(columns).collect();
        for g in 0..size {
            let mut all = of(g).map(|c| columns[&c]);
            let Some(first) = all.next() else { continue };
            let v = all.fold(first, |acc, v| self.with(b, acc, v));
            let counted = b.i64(x.kernel);
            let column = b.add(column, g);
            self.finish(b, row, column, off, v, counted);
        }
    }
    /// One window, which may lie in part outside.
    fn window(&self, b: &mut Builder, row: &Row, column: Val, off: i64) {
        let x = self.across.span(b, self.op, column);
        let init = self.init(b);
        let v = b.for_(row.span.first, row.span.last, 1, &[init], |b, ky, acc| {
            let at = b.at(row.span.start, ky, row.dilation);
            let at = b.add(row.base, at);
            let at = b.mul(at, self.across.input);
            let at = b.add(at, x.start);
            b.for_(x.first, x.last, 1, acc, |b, kx, acc| {
                let at = b.at(at, kx, self.across.dilation);
                let at = b.mul(at, BLOCK);
                let at = b.add(at, off);
                let v = b.load(self.from, at, self.lanes);
                vec![self.with(b, acc[0], v)]
            })
        })[0];
        self.finish(b, row, column, off, v, x.counted);
    }
    /// Stores the result of a window of which an average counts `counted` columns.
    fn finish(&self, b: &mut Builder, row: &Row, column: Val, off: i64, v: Val, counted: Val) {
        let v = if self.op.kind == PoolKind::Max {
            v
        } else {
            let n = b.mul(row.span.counted, counted);
            let n = b.sitofp(n, Elem::F32);
            let n = b.splat(n, self.lanes);
            b.fdiv(v, n)
        };
        let at = b.add(row.to, column);
        let at = b.mul(at, BLOCK);
        let at = b.add(at, off);
        b.store(self.to, at, v);
    }
}

#[cfg(test)]
mod tests {
    use crate::lower::tests::{ramp, same, weights};
    use planish_ir::{Diag, Tensor};

    /// Windows inside, across the edge, wider than the input and in part between elements, NaN among them.
    #[test]
    fn windows_of_blocks() -> Result<(), Diag> {
        for (h, w) in [(9usize, 21usize), (1, 1), (3, 2), (2, 40)] {
            let mut x = ramp(&[2, 3, h, w])?.tensor()?.to_f64();
            let some = x.len() / 2;
            x[some] = f64::NAN;
            let x: Vec<f32> = x.into_iter().map(|x| x as f32).collect();
            let x = Tensor::f32s(&[2, 3, h, w], &x)?;
            for (kernel, stride, dilation, pads) in [
                ([3usize, 3usize], [1usize, 1usize], [1usize, 1usize], [1usize, 1, 1, 1]),
                ([3, 3], [2, 2], [1, 1], [0, 0, 1, 1]),
                ([2, 3], [2, 3], [2, 2], [1, 2, 1, 2]),
                ([1, 2], [1, 5], [1, 1], [0, 1, 0, 0]),
                ([3, 30], [1, 1], [1, 1], [1, 29, 1, 29]),
                ([2, 2], [3, 40], [1, 1], [1, 1, 1, 1]),
            ] {
                let size = |a: usize, n: usize| {
                    let reach = (kernel[a] - 1) * dilation[a] + 1;
                    (n + pads[a] + pads[a + 2]).checked_sub(reach).map(|room| room / stride[a] + 1)
                };
                let (Some(oh), Some(ow)) = (size(0, h), size(1, w)) else { continue };
                for (kind, count) in [("max", true), ("average", true), ("average", false)] {
                    let body = format!(
                        "graph @\"g\"(v0: f32[2,3,{h},{w}]) {{
                         v1 = const {}
                         v2 = conv{{strides=[1, 1], dilations=[1, 1], pads=[0, 0, 0, 0], auto_pad=explicit, groups=1}} v0, v1 : f32[2,20,{h},{w}]
                         v3 = pool{{kind={kind}, kernel={kernel:?}, strides={stride:?}, dilations={dilation:?}, pads={pads:?}, auto_pad=explicit, ceil_mode=false, count_include_pad={count}, p=2, indices=none}} v2 : f32[2,20,{oh},{ow}]
                         return v3 }}",
                        weights(&[20, 3, 1, 1]),
                    );
                    same(&body, vec![x.clone().into()], 1e-4)?;
                }
            }
        }
        Ok(())
    }
}
