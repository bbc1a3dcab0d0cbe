//! Recurrent layers.

use super::fold_lanes;
use crate::kernel::{Access, BinOp, Buf, Builder, CmpOp, Elem, Ty, Val};
use crate::lower::cx::{LowerCx, Opnd};
use crate::lower::elem::{compute_elem, load, store};
use crate::lower::launch::Launch;
use crate::math;
use planish_ir::op::recurrent::{Activation, Cell, Direction, Recurrent};
use planish_ir::{DType, Diag, Dim};

/// Two kernels: what all steps take from the input, in parallel over rows of the weights; then the steps, one after
/// the other, in parallel over directions and batch.
pub(in crate::lower) fn lower_recurrent(cx: &mut LowerCx<'_>, op: &Recurrent) -> Result<(), Diag> {
    let (x, w, r) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    let opt = [cx.opt_input(3)?, cx.opt_input(4)?, cx.opt_input(5)?, cx.opt_input(6)?, cx.opt_input(7)?];
    let wide = if x.dtype == DType::F64 { DType::F64 } else { DType::F32 };
    let (steps, batch, h) = (x.dims[0].clone(), x.dims[1].clone(), r.dims[2].clone());
    let (dirs, gates) = (op.directions() as i64, op.gates() as i64);
    let rows = h.mul(&gates.into());
    let want: [(Option<&Opnd>, &[Dim]); 7] = [
        (Some(&w), &[dirs.into(), rows.clone(), x.dims[2].clone()]),
        (Some(&r), &[dirs.into(), rows.clone(), h.clone()]),
        (opt[0].as_ref(), &[dirs.into(), rows.mul(&2.into())]),
        (opt[1].as_ref(), std::slice::from_ref(&batch)),
        (opt[2].as_ref(), &[dirs.into(), batch.clone(), h.clone()]),
        (opt[3].as_ref(), &[dirs.into(), batch.clone(), h.clone()]),
        (opt[4].as_ref(), &[dirs.into(), h.mul(&3.into())]),
    ];
    for (operand, dims) in want {
        let have = operand.map_or(&[][..], |o| &o.dims);
        cx.require_dims(have, dims, "weights, lengths or states do not fit the input");
    }
    // Rows of the weights at a time, none of them across two gates.
    let block = if h.as_const().is_some_and(|h| h % 4 == 0) { 4 } else { 1 };
    let fed = cx.temp(wide, &[steps.clone(), batch.clone(), (dirs).into(), rows.clone()]);
    feed(cx, op, &x, &w, opt[0].as_ref(), &fed, block)?;

    let lstm = op.cell == Cell::Lstm;
    let state = [dirs.into(), batch.clone(), h.clone()];
    let hidden = cx.temp(wide, &state);
    let spare = cx.temp(wide, &state);
    let sums = cx.temp(wide, &[dirs.into(), batch.clone(), rows.clone()]);
    let mut outs = Vec::new();
    for k in 0..if lstm { 3 } else { 2 } {
        outs.push(if cx.output_used(k) { Some(cx.output(k)?) } else { None });
    }
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
            op,
            d: x.dtype,
            elem,
            lanes: k.lanes(elem),
            block,
            fed: k.buf(0),
            r: k.buf(1),
            hidden: k.buf(2),
            spare: k.buf(3),
            sums: k.buf(4),
            bias: opt[0],
            lens: opt[1],
            first: [opt[2], opt[3]],
            peep: opt[4],
            all: outs[0],
            last: [outs[1], outs.get(2).copied().flatten()],
            steps: k.dim(0),
            batch: k.dim(1),
            h: k.dim(2),
        };
        k.b.parallel_for(|b, unit| s.unit(b, unit));
    })
}

/// Products of `block` rows of `m`, from element `row` on with distance `n`, with the vector at `at` of `v`.
#[allow(clippy::too_many_arguments)]
fn dots(
    b: &mut Builder,
    (m, md): (Buf, DType),
    row: Val,
    (v, vd): (Buf, DType),
    at: Val,
    n: Val,
    lanes: u16,
    block: i64,
) -> Vec<Val> {
    let elem = compute_elem(md);
    let zero = b.zero(Ty::vec(elem, lanes));
    let acc = fold_lanes(b, n, lanes, &vec![zero; block as usize], |b, acc, i, mask| {
        let from = b.add(at, i);
        let x = load(b, vd, v, from, lanes, mask);
        let mut next = Vec::new();
        for (j, a) in acc.iter().enumerate() {
            let from = b.at(row, n, j as i64);
            let from = b.add(from, i);
            let w = load(b, md, m, from, lanes, mask);
            next.push(b.fma(w, x, *a));
        }
        next
    });
    acc.into_iter().map(|a| b.reduce(BinOp::FAdd, a)).collect()
}

/// Whether the bias of the recurrence of gate `h` stays out of what is fed in: it is scaled by the reset gate.
fn keeps_bias(op: &Recurrent) -> bool {
    op.cell == Cell::Gru && op.linear_before_reset
}

fn feed(
    cx: &mut LowerCx<'_>,
    op: &Recurrent,
    x: &Opnd,
    w: &Opnd,
    bias: Option<&Opnd>,
    fed: &Opnd,
    block: i64,
) -> Result<(), Diag> {
    let (d, dirs) = (x.dtype, op.directions() as i64);
    let places = x.dims[0].mul(&x.dims[1]);
    let (inputs, rows) = (x.dims[2].clone(), w.dims[1].clone());
    let mut l = Launch::new("recurrent_feed").read(x).read(w).write(fed);
    if let Some(b) = bias {
        l = l.read(b);
    }
    let cost = places.mul(&inputs).mul(&block.into());
    let blocks = rows.mul(&dirs.into()).floor_div(&block.into());
    let l = l
        .dim(&places)
        .dim(&inputs)
        .dim(&rows)
        .extent(blocks)
        .cost(cost)
        .flops(places.mul(&inputs).mul(&rows).mul(&(2 * dirs).into()));
    let (with_bias, keeps, gates) = (bias.is_some(), keeps_bias(op), op.gates() as i64);
    let out = fed.dtype;
    cx.launch(l, |k| {
        let lanes = k.lanes(compute_elem(d));
        let (x, w, to) = (k.buf(0), k.buf(1), k.buf(2));
        let bias = with_bias.then(|| k.buf(3));
        let (places, inputs, rows) = (k.dim(0), k.dim(1), k.dim(2));
        k.b.parallel_for(|b, unit| {
            // Rows of all directions are counted through.
            let first = b.mul(unit, block);
            let dir = b.sdiv(first, rows);
            let before = b.mul(dir, rows);
            let in_dir = b.sub(first, before);
            let mut biases = Vec::new();
            for j in 0..block {
                let zero = b.zero(Ty::vec(compute_elem(d), 1));
                biases.push(bias.map_or(zero, |bias| {
                    let at = b.at(in_dir, before, 2);
                    let at = b.add(at, j);
                    let own = load(b, d, bias, at, 1, None);
                    let at = b.add(at, rows);
                    let back = load(b, d, bias, at, 1, None);
                    let back = if keeps {
                        let two = b.sdiv(rows, gates);
                        let two = b.mul(two, 2);
                        let row = b.add(in_dir, j);
                        let fresh = b.cmp(CmpOp::Sge, row, two);
                        b.select(fresh, zero, back)
                    } else {
                        back
                    };
                    b.fadd(own, back)
                }));
            }
            let start = b.mul(first, inputs);
            let all = b.mul(rows, dirs);
            b.loop_(0, places, 1, |b, p| {
                let at = b.mul(p, inputs);
                let sums = dots(b, (w, d), start, (x, d), at, inputs, lanes, block);
                let to_at = b.at(first, p, all);
                for (j, (s, bias)) in sums.into_iter().zip(&biases).enumerate() {
                    let s = b.fadd(s, *bias);
                    let at = b.add(to_at, j as i64);
                    store(b, out, to, at, s, None);
                }
            });
        });
    })
}

/// The steps of one layer.
struct Steps<'a> {
    op: &'a Recurrent,
    d: DType,
    elem: Elem,
    lanes: u16,
    block: i64,
    fed: Buf,
    r: Buf,
    hidden: Buf,
    /// The cell state of an LSTM; the scaled state of a GRU.
    spare: Buf,
    sums: Buf,
    bias: Option<Buf>,
    lens: Option<Buf>,
    first: [Option<Buf>; 2],
    peep: Option<Buf>,
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
        let (d, lanes, wide) = (self.d, self.lanes, self.wide());
        let dir = b.sdiv(unit, self.batch);
        let before = b.mul(dir, self.batch);
        let n = b.sub(unit, before);
        let rows = b.mul(self.h, self.op.gates() as i64);
        let state = b.mul(unit, self.h);
        let lstm = self.op.cell == Cell::Lstm;
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
        let dirs = self.op.directions() as i64;
        let sums = b.mul(unit, rows);
        b.loop_(0, len, 1, |b, s| {
            let back = b.sub(len, 1);
            let back = b.sub(back, s);
            let t = match self.op.direction {
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
            match self.op.cell {
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
        let rows = b.mul(self.h, self.op.gates() as i64);
        let (lo, hi) = (b.mul(self.h, lo), b.mul(self.h, hi));
        let first = b.mul(at.dir, rows);
        b.loop_(lo, hi, self.block, |b, row| {
            let from = b.add(first, row);
            let from = b.mul(from, self.h);
            let wide = self.wide();
            let s = dots(b, (self.r, self.d), from, (v, wide), at.state, self.h, self.lanes, self.block);
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
        let back = b.load_opt(self.sums, from, self.lanes, mask);
        let from = b.add(at.fed, row);
        (back, b.load_opt(self.fed, from, self.lanes, mask))
    }
    fn gate(&self, b: &mut Builder, at: At, k: i64, i: Val, mask: Option<Val>) -> Val {
        let (back, fed) = self.parts(b, at, k, i, mask);
        b.fadd(back, fed)
    }
    /// Activation `k` of the direction, after clipping.
    fn act(&self, b: &mut Builder, at: At, k: usize, v: Val) -> Val {
        let v = match self.op.clip {
            Some(c) => {
                let v = b.fmin(v, c);
                b.fmax(v, -c)
            }
            None => v,
        };
        self.plain_act(b, at, k, v)
    }
    fn plain_act(&self, b: &mut Builder, at: At, k: usize, v: Val) -> Val {
        let op = self.op;
        let one = |b: &mut Builder, k: usize| activate(b, op.activations[k], v, op.alpha[k], op.beta[k]);
        let other = k + op.activations_each();
        let same = |k: usize, o: usize| {
            (op.activations[k], op.alpha[k], op.beta[k]) == (op.activations[o], op.alpha[o], op.beta[o])
        };
        if op.directions() == 1 || same(k, other) {
            return one(b, k);
        }
        let forward = b.cmp(CmpOp::Eq, at.dir, 0);
        b.if_(forward, |b| vec![one(b, k)], |b| vec![one(b, other)])[0]
    }
    fn old(&self, b: &mut Builder, at: At, buf: Buf, i: Val, mask: Option<Val>) -> (Val, Val) {
        let place = b.add(at.state, i);
        (place, b.load_opt(buf, place, self.lanes, mask))
    }
    fn rnn(&self, b: &mut Builder, at: At) {
        self.back(b, at, self.hidden, 0, 1);
        b.for_lanes(0, self.h, self.lanes, |b, i, mask| {
            let v = self.gate(b, at, 0, i, mask);
            let v = self.act(b, at, 0, v);
            let to = b.add(at.state, i);
            b.store_opt(self.hidden, to, v, mask);
        });
    }
    fn gru(&self, b: &mut Builder, at: At) {
        let linear = self.op.linear_before_reset;
        self.back(b, at, self.hidden, 0, if linear { 3 } else { 2 });
        if !linear {
            b.for_lanes(0, self.h, self.lanes, |b, i, mask| {
                let r = self.gate(b, at, 1, i, mask);
                let r = self.act(b, at, 0, r);
                let (place, h) = self.old(b, at, self.hidden, i, mask);
                let v = b.fmul(r, h);
                b.store_opt(self.spare, place, v, mask);
            });
            self.back(b, at, self.spare, 2, 3);
        }
        b.for_lanes(0, self.h, self.lanes, |b, i, mask| {
            let z = self.gate(b, at, 0, i, mask);
            let z = self.act(b, at, 0, z);
            let (mut back, fed) = self.parts(b, at, 2, i, mask);
            if linear {
                let r = self.gate(b, at, 1, i, mask);
                let r = self.act(b, at, 0, r);
                if let Some(bias) = self.bias {
                    // The second half of the direction's biases, third gate.
                    let from = b.mul(at.dir, 6);
                    let from = b.add(from, 5);
                    let from = b.at(i, from, self.h);
                    let bias = load(b, self.d, bias, from, self.lanes, mask);
                    back = b.fadd(back, bias);
                }
                back = b.fmul(back, r);
            }
            let v = b.fadd(back, fed);
            let fresh = self.act(b, at, 1, v);
            let (place, h) = self.old(b, at, self.hidden, i, mask);
            let change = b.fsub(h, fresh);
            let v = b.fma(z, change, fresh);
            b.store_opt(self.hidden, place, v, mask);
        });
    }
    fn lstm(&self, b: &mut Builder, at: At) {
        self.back(b, at, self.hidden, 0, 4);
        b.for_lanes(0, self.h, self.lanes, |b, i, mask| {
            let (place, c) = self.old(b, at, self.spare, i, mask);
            let peep = |b: &mut Builder, k: i64, v: Val, c: Val| match self.peep {
                None => v,
                Some(p) => {
                    let from = b.mul(at.dir, 3);
                    let from = b.add(from, k);
                    let from = b.at(i, from, self.h);
                    let w = load(b, self.d, p, from, self.lanes, mask);
                    b.fma(w, c, v)
                }
            };
            let input = self.gate(b, at, 0, i, mask);
            let input = peep(b, 0, input, c);
            let input = self.act(b, at, 0, input);
            let forget = if self.op.input_forget {
                let ty = b.ty(input);
                let one = b.float(ty, 1.0);
                b.fsub(one, input)
            } else {
                let forget = self.gate(b, at, 2, i, mask);
                let forget = peep(b, 2, forget, c);
                self.act(b, at, 0, forget)
            };
            let fresh = self.gate(b, at, 3, i, mask);
            let fresh = self.act(b, at, 1, fresh);
            let kept = b.fmul(forget, c);
            let c = b.fma(input, fresh, kept);
            b.store_opt(self.spare, place, c, mask);
            let output = self.gate(b, at, 1, i, mask);
            let output = peep(b, 1, output, c);
            let output = self.act(b, at, 0, output);
            let v = self.plain_act(b, at, 2, c);
            let v = b.fmul(output, v);
            b.store_opt(self.hidden, place, v, mask);
        });
    }
}

fn activate(b: &mut Builder, a: Activation, x: Val, alpha: f64, beta: f64) -> Val {
    let ty = b.ty(x);
    let zero = b.zero(ty);
    match a {
        Activation::Relu => b.fmax(x, zero),
        Activation::Tanh => math::tanh(b, x),
        Activation::Sigmoid => math::sigmoid(b, x),
        Activation::Affine => b.fma(x, alpha, beta),
        Activation::LeakyRelu => {
            let low = b.fmul(x, alpha);
            let up = b.cmp(CmpOp::FGe, x, zero);
            b.select(up, x, low)
        }
        Activation::ThresholdedRelu => {
            let up = b.cmp(CmpOp::FGt, x, alpha);
            b.select(up, x, zero)
        }
        Activation::ScaledTanh => {
            let x = b.fmul(x, beta);
            let y = math::tanh(b, x);
            b.fmul(y, alpha)
        }
        Activation::HardSigmoid => {
            let y = b.fma(x, alpha, beta);
            let y = b.fmin(y, 1.0);
            b.fmax(y, zero)
        }
        Activation::Elu => {
            let e = math::exp(b, x);
            let e = b.fsub(e, 1.0);
            let e = b.fmul(e, alpha);
            let up = b.cmp(CmpOp::FGe, x, zero);
            b.select(up, x, e)
        }
        Activation::Softsign => {
            let size = b.fabs(x);
            let size = b.fadd(size, 1.0);
            b.fdiv(x, size)
        }
        Activation::Softplus => math::softplus(b, x),
    }
}
