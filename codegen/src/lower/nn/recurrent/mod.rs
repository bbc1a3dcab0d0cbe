//! Recurrent layers.

mod activation;
mod feed;

use crate::kernel::{Access, Buf, Builder, CmpOp, Elem, Ty, Val};
use crate::lower::cx::{LowerCx, Opnd};
use crate::lower::elem::{compute_elem, load, store};
use crate::lower::launch::Launch;
use activation::activate;
use feed::{Packed, dots, packed, packed_dots, padded};
use planish_ir::op::recurrent::{Cell, Direction, Recurrent};
use planish_ir::{DType, Diag, Dim};

/// First what all steps take from the input: a matrix product, or a kernel of its own where weights are not constants of f32. Then
/// the steps, one after the other, in parallel over directions and batch.
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
    // Rows of the weights at a time, none of them across two gates.
    let block = if h.as_const().is_some_and(|h| h % 4 == 0) { 4 } else { 1 };
    let (fed, r, sum_bias) = match &ready {
        Some(Packed { fed, back, bias }) => (fed.clone(), back.clone(), bias.clone()),
        None => {
            let fed = cx.temp(wide, &[steps.clone(), batch.clone(), (dirs).into(), rows.clone()]);
            let (w, r) = (cx.input(1)?, cx.input(2)?);
            feed::feed(cx, op, &x, &w, opt[0].as_ref(), &fed, block)?;
            (fed, r, None)
        }
    };
    // Rows of a gate among the sums.
    let gate_rows = match (&ready, h.as_const()) {
        (Some(_), Some(h)) => padded(h).into(),
        _ => h.clone(),
    };

    let lstm = op.cell == Cell::Lstm;
    let state = [dirs.into(), batch.clone(), h.clone()];
    let hidden = cx.temp(wide, &state);
    let spare = cx.temp(wide, &state);
    let sums = cx.temp(wide, &[dirs.into(), batch.clone(), gate_rows.mul(&gates.into())]);
    let mut outs = Vec::new();
    for k in 0..if lstm { 3 } else { 2 } {
        outs.push(if cx.output_used(k) { Some(cx.output(k)?) } else { None });
    }
    let mut l = Launch::new(op.cell.name()).read(&fed).read(&r);
    for t in [&hidden, &spare, &sums] {
        l = l.raw(t, compute_elem(wide), Access::ReadWrite);
    }
    for o in opt.iter().chain([&sum_bias]).flatten() {
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
        .dim(&gate_rows)
        .extent(batch.mul(&dirs.into()))
        .cost(cost.clone())
        .flops(cost.mul(&batch).mul(&(2 * dirs).into()));
    let given: Vec<bool> = opt.iter().chain([&sum_bias]).map(Option::is_some).collect();
    let packs = ready.is_some();
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
            packed: packs,
            bias: opt[0],
            sum_bias: opt[5],
            lens: opt[1],
            first: [opt[2], opt[3]],
            peep: opt[4],
            all: outs[0],
            last: [outs[1], outs.get(2).copied().flatten()],
            steps: k.dim(0),
            batch: k.dim(1),
            h: k.dim(2),
            gate_rows: k.dim(3),
        };
        k.b.parallel_for(|b, unit| s.unit(b, unit));
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
    /// Whether the weights are packed.
    packed: bool,
    bias: Option<Buf>,
    /// Biases that are not yet in what was fed.
    sum_bias: Option<Buf>,
    lens: Option<Buf>,
    first: [Option<Buf>; 2],
    peep: Option<Buf>,
    all: Option<Buf>,
    last: [Option<Buf>; 2],
    steps: Val,
    batch: Val,
    h: Val,
    /// Rows of a gate among the sums.
    gate_rows: Val,
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
        let sums = b.mul(self.gate_rows, self.op.gates() as i64);
        let sums = b.mul(unit, sums);
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
        if let (true, Some(h)) = (self.packed, b.known_int(self.h)) {
            let rows = padded(h);
            let first = b.mul(at.dir, self.op.gates() as i64 * rows * h);
            let rows = (lo * rows, hi * rows);
            return packed_dots(b, (self.r, first), (v, at.state), h, (self.sums, at.sums), rows, self.lanes);
        }
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
        let row = b.at(i, self.gate_rows, k);
        let from = b.add(at.sums, row);
        let back = b.load_opt(self.sums, from, self.lanes, mask);
        let row = b.at(i, self.h, k);
        let from = b.add(at.fed, row);
        let mut fed = b.load_opt(self.fed, from, self.lanes, mask);
        if let Some(bias) = self.sum_bias {
            let rows = b.mul(self.h, self.op.gates() as i64);
            let from = b.at(row, at.dir, rows);
            let bias = b.load_opt(bias, from, self.lanes, mask);
            fed = b.fadd(fed, bias);
        }
        (back, fed)
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
