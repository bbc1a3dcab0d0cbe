//! Recurrent layers.

mod activation;
mod cell;
mod feed;
mod lists;
mod shape;
mod skim;
#[cfg(test)]
mod tests;
mod tiles;
mod units;

pub(in crate::lower) use skim::lower_skim_recurrent;

use crate::kernel::{Access, Buf, Builder, CmpOp, Elem, Ty, Val};
use crate::lower::cx::{LowerCx, Opnd};
use crate::lower::elem::{compute_elem, load, store};
use crate::lower::launch::Launch;
use cell::{CellMath, Lanes};
use feed::{dots, packed};
use planish_ir::op::recurrent::{Cell, Direction, Recurrent};
use planish_ir::{DType, Diag, Dim};

/// First what all steps take from the input: a matrix product, or a kernel of its own where weights are not constants of f32. Then
/// the steps, one after the other: with such constants in parallel over hidden units, else over directions and batch.
pub(in crate::lower) fn lower_recurrent(cx: &mut LowerCx<'_>, op: &Recurrent) -> Result<(), Diag> {
    let x = cx.input(0)?;
    let ready = packed(cx, op, &x)?;
    // Packed weights are read in no other form.
    let of = |cx: &mut LowerCx<'_>, i: usize| -> Result<(DType, Vec<Dim>), Diag> {
        cx.tensor_type(cx.input_value(i)?)
    };
    let (w, r) = (of(cx, 1)?.1, of(cx, 2)?.1);
    let opt = [cx.opt_input(3)?, cx.opt_input(4)?, cx.opt_input(5)?, cx.opt_input(6)?, cx.opt_input(7)?];
    let wide = if x.dtype == DType::F64 { DType::F64 } else { DType::F32 };
    let (steps, batch, h) = (x.dims[0].clone(), x.dims[1].clone(), r[2].clone());
    let (dirs, gates) = (op.directions() as i64, op.gates() as i64);
    let rows = h.mul(&gates.into());
    let want: [(Option<&Opnd>, &[Dim]); 5] = [
        (opt[0].as_ref(), &[dirs.into(), rows.mul(&2.into())]),
        (opt[1].as_ref(), std::slice::from_ref(&batch)),
        (opt[2].as_ref(), &[dirs.into(), batch.clone(), h.clone()]),
        (opt[3].as_ref(), &[dirs.into(), batch.clone(), h.clone()]),
        (opt[4].as_ref(), &[dirs.into(), h.mul(&3.into())]),
    ];
    let what = "weights, lengths or states do not fit the input";
    cx.require_dims(&w, &[dirs.into(), rows.clone(), x.dims[2].clone()], what);
    cx.require_dims(&r, &[dirs.into(), rows.clone(), h.clone()], what);
    for (operand, dims) in want {
        let have = operand.map_or(&[][..], |o| &o.dims);
        cx.require_dims(have, dims, what);
    }
    let lstm = op.cell == Cell::Lstm;
    if let Some(packed) = ready {
        let outs = outputs(cx, lstm)?;
        return units::steps(cx, units::Layer { op, dims: [steps, batch], packed, opt, outs });
    }
    // Rows of the weights at a time, none of them across two gates.
    let block = if h.as_const().is_some_and(|h| h % 4 == 0) { 4 } else { 1 };
    let fed = cx.temp(wide, &[steps.clone(), batch.clone(), (dirs).into(), rows.clone()]);
    let (w, r) = (cx.input(1)?, cx.input(2)?);
    feed::feed(cx, op, &x, &w, opt[0].as_ref(), &fed, block)?;

    let state = [dirs.into(), batch.clone(), h.clone()];
    let hidden = cx.temp(wide, &state);
    let spare = cx.temp(wide, &state);
    let sums = cx.temp(wide, &[dirs.into(), batch.clone(), rows.clone()]);
    let outs = outputs(cx, lstm)?;
    let mut l = Launch::new(op.cell.name()).read(&fed).read(&r);
    for t in [&hidden, &spare, &sums] {
        l = l.raw(t, compute_elem(wide), Access::ReadWrite);
    }
    for o in opt.iter().flatten() {
        l = l.read(o);
    }
    for o in outs.iter().flatten() {
        l = l.write(o);
    }
    let cost = steps.mul(&rows).mul(&h);
    let l = l
        .dim(&steps)
        .dim(&batch)
        .dim(&h)
        .extent(batch.mul(&dirs.into()))
        .cost(cost.clone())
        .flops(cost.mul(&batch).mul(&(2 * dirs).into()));
    let given: Vec<bool> = opt.iter().map(Option::is_some).collect();
    let wanted: Vec<bool> = outs.iter().map(Option::is_some).collect();
    cx.launch(l, |k| {
        let mut next = 5;
        let mut buf = |there: &bool| {
            there.then(|| {
                next += 1;
                k.buf(next - 1)
            })
        };
        let opt: Vec<Option<Buf>> = given.iter().map(&mut buf).collect();
        let outs: Vec<Option<Buf>> = wanted.iter().map(&mut buf).collect();
        let elem = compute_elem(wide);
        let s = Steps {
            math: CellMath { op, d: x.dtype, lanes: k.lanes(elem), h: k.dim(2), bias: opt[0], peep: opt[4] },
            elem,
            block,
            fed: k.buf(0),
            r: k.buf(1),
            hidden: k.buf(2),
            spare: k.buf(3),
            sums: k.buf(4),
            lens: opt[1],
            first: [opt[2], opt[3]],
            all: outs[0],
            last: [outs[1], outs.get(2).copied().flatten()],
            steps: k.dim(0),
            batch: k.dim(1),
            h: k.dim(2),
        };
        k.b.parallel_for(|b, unit| s.unit(b, unit));
    })
}

/// All h, the last h, and for an LSTM the last c, as far as they are used.
fn outputs(cx: &mut LowerCx<'_>, lstm: bool) -> Result<Vec<Option<Opnd>>, Diag> {
    let count = if lstm { 3 } else { 2 };
    (0..count).map(|k| if cx.output_used(k) { cx.output(k).map(Some) } else { Ok(None) }).collect()
}

/// The steps of one layer, each direction and batch entry on its own.
struct Steps<'a> {
    math: CellMath<'a>,
    elem: Elem,
    block: i64,
    fed: Buf,
    r: Buf,
    hidden: Buf,
    /// The cell state of an LSTM; the scaled state of a GRU.
    spare: Buf,
    sums: Buf,
    lens: Option<Buf>,
    first: [Option<Buf>; 2],
    all: Option<Buf>,
    last: [Option<Buf>; 2],
    steps: Val,
    batch: Val,
    h: Val,
}

/// Where one direction and batch entry has its data.
#[derive(Clone, Copy)]
struct At {
    dir: Val,
    /// In the states.
    state: Val,
    /// In the sums.
    sums: Val,
    /// In what was fed, at the current step.
    fed: Val,
}

impl Steps<'_> {
    fn wide(&self) -> DType {
        if self.elem == Elem::F64 { DType::F64 } else { DType::F32 }
    }
    fn unit(&self, b: &mut Builder, unit: Val) {
        let (d, lanes, wide) = (self.math.d, self.math.lanes, self.wide());
        let dir = b.sdiv(unit, self.batch);
        let before = b.mul(dir, self.batch);
        let n = b.sub(unit, before);
        let rows = b.mul(self.h, self.math.op.gates() as i64);
        let state = b.mul(unit, self.h);
        let lstm = self.math.op.cell == Cell::Lstm;
        let starts = [(self.hidden, self.first[0]), (self.spare, self.first[1])];
        for (to, from) in starts.into_iter().take(if lstm { 2 } else { 1 }) {
            b.for_lanes(0, self.h, lanes, |b, i, mask| {
                let at = b.add(state, i);
                let v = match from {
                    Some(from) => load(b, d, from, at, lanes, mask),
                    None => b.zero(Ty::vec(self.elem, lanes)),
                };
                b.store_opt(to, at, v, mask);
            });
        }
        let len = match self.lens {
            Some(lens) => {
                let len = load(b, DType::I32, lens, n, 1, None);
                let len = b.sext(len, Elem::I64);
                let len = b.smin(len, self.steps);
                b.smax(len, 0)
            }
            None => self.steps,
        };
        let dirs = self.math.op.directions() as i64;
        let sums = b.mul(self.h, self.math.op.gates() as i64);
        let sums = b.mul(unit, sums);
        b.loop_(0, len, 1, |b, s| {
            let back = b.sub(len, 1);
            let back = b.sub(back, s);
            let t = match self.math.op.direction {
                Direction::Forward => s,
                Direction::Reverse => back,
                Direction::Both => {
                    let reverse = b.cmp(CmpOp::Sgt, dir, 0);
                    b.select(reverse, back, s)
                }
            };
            let place = b.at(n, t, self.batch);
            let fed = b.at(dir, place, dirs);
            let fed = b.mul(fed, rows);
            let at = At { dir, state, sums, fed };
            match self.math.op.cell {
                Cell::Rnn => self.rnn(b, at),
                Cell::Gru => self.gru(b, at),
                Cell::Lstm => self.lstm(b, at),
            }
            if let Some(all) = self.all {
                let to = self.place(b, t, dir, n, dirs);
                b.for_lanes(0, self.h, lanes, |b, i, mask| {
                    let from = b.add(state, i);
                    let v = b.load_opt(self.hidden, from, lanes, mask);
                    let to = b.add(to, i);
                    store(b, d, all, to, v, mask);
                });
            }
        });
        if let (Some(all), Some(_)) = (self.all, self.lens) {
            b.loop_(len, self.steps, 1, |b, t| {
                let to = self.place(b, t, dir, n, dirs);
                let zero = b.zero(Ty::vec(self.elem, lanes));
                b.for_lanes(0, self.h, lanes, |b, i, mask| {
                    let to = b.add(to, i);
                    store(b, d, all, to, zero, mask);
                });
            });
        }
        for (to, from) in self.last.into_iter().zip([self.hidden, self.spare]) {
            let Some(to) = to else { continue };
            b.for_lanes(0, self.h, lanes, |b, i, mask| {
                let at = b.add(state, i);
                let v = load(b, wide, from, at, lanes, mask);
                store(b, d, to, at, v, mask);
            });
        }
    }
    /// Where the state of step `t` goes in the result of all steps.
    fn place(&self, b: &mut Builder, t: Val, dir: Val, n: Val, dirs: i64) -> Val {
        let at = b.at(dir, t, dirs);
        let at = b.at(n, at, self.batch);
        b.mul(at, self.h)
    }
    /// `sums[rows] = R[rows] . v` for the rows of gates `lo..hi`.
    fn back(&self, b: &mut Builder, at: At, v: Buf, lo: i64, hi: i64) {
        let rows = b.mul(self.h, self.math.op.gates() as i64);
        let (lo, hi) = (b.mul(self.h, lo), b.mul(self.h, hi));
        let first = b.mul(at.dir, rows);
        b.loop_(lo, hi, self.block, |b, row| {
            let from = b.add(first, row);
            let from = b.mul(from, self.h);
            let wide = self.wide();
            let s = dots(
                b,
                (self.r, self.math.d),
                from,
                (v, wide),
                at.state,
                self.h,
                self.math.lanes,
                self.block,
            );
            let to = b.add(at.sums, row);
            for (j, s) in s.into_iter().enumerate() {
                let to = b.add(to, j as i64);
                b.store(self.sums, to, s);
            }
        });
    }
    /// What gate `k` gets from the recurrence, and from the input.
    fn parts(&self, b: &mut Builder, at: At, k: i64, i: Val, mask: Option<Val>) -> (Val, Val) {
        let row = b.at(i, self.h, k);
        let from = b.add(at.sums, row);
        let back = b.load_opt(self.sums, from, self.math.lanes, mask);
        let row = b.at(i, self.h, k);
        let from = b.add(at.fed, row);
        let fed = b.load_opt(self.fed, from, self.math.lanes, mask);
        (back, fed)
    }
    fn gate(&self, b: &mut Builder, at: At, k: i64, i: Val, mask: Option<Val>) -> Val {
        let (back, fed) = self.parts(b, at, k, i, mask);
        b.fadd(back, fed)
    }
    fn old(&self, b: &mut Builder, at: At, buf: Buf, i: Val, mask: Option<Val>) -> (Val, Val) {
        let place = b.add(at.state, i);
        (place, b.load_opt(buf, place, self.math.lanes, mask))
    }
    fn rnn(&self, b: &mut Builder, at: At) {
        self.back(b, at, self.hidden, 0, 1);
        b.for_lanes(0, self.h, self.math.lanes, |b, i, mask| {
            let v = self.gate(b, at, 0, i, mask);
            let v = self.math.act(b, at.dir, 0, v);
            let to = b.add(at.state, i);
            b.store_opt(self.hidden, to, v, mask);
        });
    }
    fn gru(&self, b: &mut Builder, at: At) {
        let linear = self.math.op.linear_before_reset;
        self.back(b, at, self.hidden, 0, if linear { 3 } else { 2 });
        if !linear {
            b.for_lanes(0, self.h, self.math.lanes, |b, i, mask| {
                let r = self.gate(b, at, 1, i, mask);
                let r = self.math.act(b, at.dir, 0, r);
                let (place, h) = self.old(b, at, self.hidden, i, mask);
                let v = b.fmul(r, h);
                b.store_opt(self.spare, place, v, mask);
            });
            self.back(b, at, self.spare, 2, 3);
        }
        b.for_lanes(0, self.h, self.math.lanes, |b, i, mask| {
            let z = self.gate(b, at, 0, i, mask);
            let z = self.math.act(b, at.dir, 0, z);
            let parts = self.parts(b, at, 2, i, mask);
            let reset = linear.then(|| {
                let r = self.gate(b, at, 1, i, mask);
                self.math.act(b, at.dir, 0, r)
            });
            let (place, h) = self.old(b, at, self.hidden, i, mask);
            let v = self.math.gru(b, Lanes { dir: at.dir, i, mask }, (h, z), parts, reset);
            b.store_opt(self.hidden, place, v, mask);
        });
    }
    fn lstm(&self, b: &mut Builder, at: At) {
        self.back(b, at, self.hidden, 0, 4);
        b.for_lanes(0, self.h, self.math.lanes, |b, i, mask| {
            let (place, c) = self.old(b, at, self.spare, i, mask);
            let lanes = Lanes { dir: at.dir, i, mask };
            let (h, c) = self.math.lstm(b, lanes, c, |b, k| self.gate(b, at, k, i, mask));
            b.store_opt(self.spare, place, c, mask);
            b.store_opt(self.hidden, place, h, mask);
        });
    }
}
