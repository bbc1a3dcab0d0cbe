//! A recurrent layer as a loop over its steps, which is what its gradient is taken of (back-propagation through time).

use super::{Activation, Cell, Direction, Recurrent};
use crate::diag::Diag;
use crate::dtype::DType;
use crate::graph::ValueId;
use crate::op::binary::BinaryKind as B;
use crate::op::build::Build;
use crate::op::concat::{Concat, Split};
use crate::op::control::{counted, region_for, turn};
use crate::op::gather::Gather;
use crate::op::gradient::GradCx;
use crate::op::matmul::MatMul;
use crate::op::select::ReverseSequence;
use crate::op::unary::UnaryKind as U;
use crate::op::views::{Expand, Squeeze};
use crate::op::where_::Where;
use crate::tensor::Tensor;

type Cx<'a, 'e, 'g> = &'a mut GradCx<'e, 'g>;

type Nodes<'a, 'e, 'g> = &'a mut Build<'e, 'g>;

/// The weights of the state of one direction.
pub(super) struct Weights {
    /// \[G H, H\] if `across`, else \[H, G H\].
    pub(super) r: ValueId,
    pub(super) across: bool,
    /// Their bias \[G H\].
    pub(super) bias: Option<ValueId>,
    /// The third gate of a GRU whose reset gate scales what goes in, \[H, H\], and its bias, if they are not in there.
    pub(super) fresh: Option<(ValueId, Option<ValueId>)>,
    /// Peepholes \[3 H\].
    pub(super) peepholes: Option<ValueId>,
}

/// What every step of one direction reads.
struct Captures {
    /// The products with the input \[T, B, G H\], with their bias.
    x: ValueId,
    /// Weights of the state \[G H, H\].
    r: ValueId,
    /// Their bias \[G H\].
    bias: Option<ValueId>,
    /// Lengths i64 \[B\].
    lengths: Option<ValueId>,
    /// Peepholes \[3 H\].
    peepholes: Option<ValueId>,
}

impl Recurrent {
    /// The results of the layer, by loops.
    pub(super) fn by_loops(&self, cx: Cx<'_, '_, '_>) -> Result<Vec<ValueId>, Diag> {
        let x = cx.input(0)?;
        let lengths = match cx.has(4) {
            true => {
                let lengths = cx.input(4)?;
                Some(cx.cast(lengths, DType::I64)?)
            }
            false => None,
        };
        let (mut all, mut last, mut cells) = (Vec::new(), Vec::new(), Vec::new());
        for d in 0..self.directions() {
            let reverse = self.direction == Direction::Reverse || d == 1;
            let (steps, ends) = self.direction(cx, x, (d, reverse), lengths)?;
            all.push(cx.unsqueeze(steps, &[1])?);
            for (v, list) in ends.into_iter().zip([&mut last, &mut cells]) {
                list.push(cx.unsqueeze(v, &[0])?);
            }
        }
        let mut out = vec![cx.ed.node1(Concat { axis: 1 }, &all)?, cx.ed.node1(Concat { axis: 0 }, &last)?];
        if self.cell == Cell::Lstm {
            out.push(cx.ed.node1(Concat { axis: 0 }, &cells)?);
        }
        Ok(out)
    }

    /// All h \[T, B, H\] of one direction, and the last h, and c, \[B, H\].
    fn direction(
        &self,
        cx: Cx<'_, '_, '_>,
        x: ValueId,
        (d, reverse): (usize, bool),
        lengths: Option<ValueId>,
    ) -> Result<(ValueId, Vec<ValueId>), Diag> {
        let r = cx.input(2)?;
        let of = |cx: Cx<'_, '_, '_>, i: usize| {
            let at = cx.ed.constant(Tensor::scalar_i64(d as i64))?;
            let all = cx.input(i)?;
            cx.ed.node1(Gather { axis: 0 }, &[all, at])
        };
        let steps = cx.size(x, 0)?;
        let turned = |cx: Cx<'_, '_, '_>, v: ValueId| {
            if !reverse {
                return Ok(v);
            }
            let all = match lengths {
                Some(lengths) => lengths,
                None => {
                    let batch = cx.size(x, 1)?;
                    cx.ed.node1(Expand {}, &[steps, batch])?
                }
            };
            cx.ed.node1(ReverseSequence { batch_axis: 1, time_axis: 0 }, &[v, all])
        };
        let w = of(cx, 1)?;
        let xs = turned(cx, x)?;
        let mut product = cx.ed.node1(MatMul { trans_a: false, trans_b: true }, &[xs, w])?;
        let mut bias = None;
        if cx.has(3) {
            let both = of(cx, 3)?;
            let parts = cx.ed.node(Split { axis: 0, parts: 2 }, &[Some(both)])?;
            product = cx.binary(B::Add, product, parts[0])?;
            bias = Some(parts[1]);
        }
        let peepholes = cx.has(7).then(|| of(cx, 7)).transpose()?;
        let captures = Captures { x: product, r: of(cx, 2)?, bias, lengths, peepholes };
        let mut start = Vec::new();
        for i in 5..5 + if self.cell == Cell::Lstm { 2 } else { 1 } {
            start.push(match cx.has(i) {
                true => of(cx, i)?,
                false => {
                    let shape = [cx.size(x, 1)?, cx.size(r, 2)?];
                    let shape = cx.ed.node1(Concat { axis: 0 }, &shape)?;
                    let zero = cx.number(0.0, x)?;
                    cx.ed.node1(Expand {}, &[zero, shape])?
                }
            });
        }
        let count = cx.ed.node1(Squeeze { axes: vec![0] }, &[steps])?;
        let mut out = self.repeat(cx, count, &start, &captures, d)?;
        let all = out.split_off(start.len());
        let all = turned(cx, all[0])?;
        Ok((all, out))
    }

    fn repeat(
        &self,
        cx: Cx<'_, '_, '_>,
        count: ValueId,
        start: &[ValueId],
        captures: &Captures,
        d: usize,
    ) -> Result<Vec<ValueId>, Diag> {
        let optional = [captures.bias, captures.lengths, captures.peepholes];
        let outer: Vec<ValueId> =
            [captures.x, captures.r].into_iter().chain(optional.into_iter().flatten()).collect();
        let place = cx.ed.place();
        let like = [start, &outer[..]].concat();
        let (body, params) = region_for(cx.ed, &[turn()], &like);
        let turn = params[0];
        cx.ed.at_end(body);
        let (state, inner) = params[1..].split_at(start.len());
        let mut inner = inner.iter().copied();
        let mut next = || inner.next().unwrap_or(turn);
        let inside = Captures {
            x: next(),
            r: next(),
            bias: optional[0].map(|_| next()),
            lengths: optional[1].map(|_| next()),
            peepholes: optional[2].map(|_| next()),
        };
        let mut new = self.step(cx, turn, state, &inside, d)?;
        let mut shown = new[0];
        if let Some(lengths) = inside.lengths {
            let live = cx.binary(B::Less, turn, lengths)?;
            let live = cx.unsqueeze(live, &[1])?;
            shown = cx.only(live, true, shown)?;
            for (new, old) in new.iter_mut().zip(state) {
                *new = cx.ed.node1(Where {}, &[live, *new, *old])?;
            }
        }
        new.iter().for_each(|v| cx.ed.result(body, *v));
        cx.ed.result(body, shown);
        cx.ed.go(place);
        counted(cx.ed, count, (start, &outer), 1, body)
    }

    /// The state after a step.
    fn step(
        &self,
        cx: Cx<'_, '_, '_>,
        turn: ValueId,
        state: &[ValueId],
        c: &Captures,
        d: usize,
    ) -> Result<Vec<ValueId>, Diag> {
        let x = cx.ed.node1(Gather { axis: 0 }, &[c.x, turn])?;
        let weights = Weights { r: c.r, across: true, bias: c.bias, fresh: None, peepholes: c.peepholes };
        self.advance(cx, x, state, &weights, d)
    }

    /// The state after a step, given what it takes from the input, \[B, G H\].
    pub(super) fn advance(
        &self,
        cx: Nodes<'_, '_, '_>,
        x: ValueId,
        state: &[ValueId],
        c: &Weights,
        d: usize,
    ) -> Result<Vec<ValueId>, Diag> {
        let (h, gates) = (state[0], self.gates());
        let parts = |cx: Nodes<'_, '_, '_>, v: ValueId, axis: usize, parts: usize| {
            cx.ed.node(Split { axis, parts }, &[Some(v)])
        };
        let of_state = |cx: Nodes<'_, '_, '_>, h: ValueId, r: ValueId, bias: Option<ValueId>| {
            let y = cx.ed.node1(MatMul { trans_a: false, trans_b: c.across }, &[h, r])?;
            bias.map_or(Ok(y), |b| cx.binary(B::Add, y, b))
        };
        let x = parts(cx, x, 1, gates)?;
        let act = |cx: Nodes<'_, '_, '_>, k: usize, v: ValueId| self.activate(cx, d, k, v, true);
        let all = of_state(cx, h, c.r, c.bias)?;
        let all = parts(cx, all, 1, if c.fresh.is_some() { gates - 1 } else { gates })?;
        let sum = |cx: Nodes<'_, '_, '_>, gate: usize| cx.binary(B::Add, x[gate], all[gate]);
        match self.cell {
            Cell::Rnn => {
                let v = sum(cx, 0)?;
                Ok(vec![act(cx, 0, v)?])
            }
            Cell::Gru => {
                let (update, reset) = (sum(cx, 0)?, sum(cx, 1)?);
                let (update, reset) = (act(cx, 0, update)?, act(cx, 0, reset)?);
                let back = if self.linear_before_reset {
                    cx.mul(reset, all[2])?
                } else {
                    let (r, bias) = match c.fresh {
                        Some(own) => own,
                        None => {
                            let r = parts(cx, c.r, if c.across { 0 } else { 1 }, gates)?[2];
                            (r, c.bias.map(|b| parts(cx, b, 0, gates).map(|p| p[2])).transpose()?)
                        }
                    };
                    let scaled = cx.mul(reset, h)?;
                    of_state(cx, scaled, r, bias)?
                };
                let fresh = cx.binary(B::Add, x[2], back)?;
                let fresh = act(cx, 1, fresh)?;
                let rest = cx.one_less(update)?;
                let fresh = cx.mul(rest, fresh)?;
                let old = cx.mul(update, h)?;
                Ok(vec![cx.binary(B::Add, fresh, old)?])
            }
            Cell::Lstm => {
                let cell = state[1];
                let peepholes = c.peepholes.map(|p| parts(cx, p, 0, 3)).transpose()?;
                let gate = |cx: Nodes<'_, '_, '_>, gate: usize, peephole: usize, cell: ValueId| {
                    let mut v = sum(cx, gate)?;
                    if let Some(p) = &peepholes {
                        let seen = cx.mul(p[peephole], cell)?;
                        v = cx.binary(B::Add, v, seen)?;
                    }
                    act(cx, 0, v)
                };
                let input = gate(cx, 0, 0, cell)?;
                let forget = if self.input_forget { cx.one_less(input)? } else { gate(cx, 2, 2, cell)? };
                let fresh = sum(cx, 3)?;
                let fresh = act(cx, 1, fresh)?;
                let kept = cx.mul(forget, cell)?;
                let added = cx.mul(input, fresh)?;
                let cell = cx.binary(B::Add, kept, added)?;
                let output = gate(cx, 1, 1, cell)?;
                let shown = self.activate(cx, d, 2, cell, false)?;
                Ok(vec![cx.mul(output, shown)?, cell])
            }
        }
    }

    /// Activation `k` of a direction.
    fn activate(
        &self,
        cx: Nodes<'_, '_, '_>,
        d: usize,
        k: usize,
        v: ValueId,
        clip: bool,
    ) -> Result<ValueId, Diag> {
        let k = d * self.activations_each() + k;
        let mut v = v;
        if let Some(c) = self.clip.filter(|_| clip) {
            v = clamp(cx, v, -c, c)?;
        }
        let (a, b) = (self.alpha[k], self.beta[k]);
        let affine = |cx: Nodes<'_, '_, '_>, v: ValueId| {
            let v = cx.scale(a, v)?;
            cx.plus(b, v)
        };
        match self.activations[k] {
            Activation::Relu => cx.unary(U::Relu, v),
            Activation::Tanh => cx.unary(U::Tanh, v),
            Activation::Sigmoid => cx.unary(U::Sigmoid, v),
            Activation::Softsign => cx.unary(U::Softsign, v),
            Activation::Softplus => cx.unary(U::Softplus, v),
            Activation::Affine => affine(cx, v),
            Activation::HardSigmoid => {
                let v = affine(cx, v)?;
                clamp(cx, v, 0.0, 1.0)
            }
            Activation::ScaledTanh => {
                let v = cx.scale(b, v)?;
                let v = cx.unary(U::Tanh, v)?;
                cx.scale(a, v)
            }
            Activation::ThresholdedRelu => {
                let on = cx.compare(B::Greater, v, a)?;
                cx.only(on, true, v)
            }
            Activation::LeakyRelu => {
                let slope = cx.number(a, v)?;
                cx.binary(B::PRelu, v, slope)
            }
            Activation::Elu => {
                let below = cx.compare(B::Less, v, 0.0)?;
                // Not of large numbers, whose exponential would be infinite times 0 on the way back.
                let part = cx.only(below, true, v)?;
                let part = cx.unary(U::Exp, part)?;
                let part = cx.plus(-1.0, part)?;
                let part = cx.scale(a, part)?;
                cx.ed.node1(Where {}, &[below, part, v])
            }
        }
    }
}

pub(super) fn clamp(cx: Nodes<'_, '_, '_>, v: ValueId, low: f64, high: f64) -> Result<ValueId, Diag> {
    let (low, high) = (cx.number(low, v)?, cx.number(high, v)?);
    let v = cx.binary(B::Max, v, low)?;
    cx.binary(B::Min, v, high)
}
