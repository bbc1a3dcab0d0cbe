//! What a cell does with its sums, one vector of hidden units at a time.

use super::activation::activate;
use crate::kernel::{Buf, Builder, CmpOp, Val};
use crate::lower::elem::load;
use planish_ir::DType;
use planish_ir::op::recurrent::Recurrent;

/// A vector of hidden units of one direction.
#[derive(Clone, Copy)]
pub(super) struct Lanes {
    pub(super) dir: Val,
    /// The first unit.
    pub(super) i: Val,
    pub(super) mask: Option<Val>,
}

/// The arithmetic of a layer's cells.
pub(super) struct CellMath<'a> {
    pub(super) op: &'a Recurrent,
    /// Element type of biases and peepholes.
    pub(super) d: DType,
    pub(super) lanes: u16,
    /// Hidden units.
    pub(super) h: Val,
    pub(super) bias: Option<Buf>,
    pub(super) peep: Option<Buf>,
}

impl CellMath<'_> {
    /// Activation `k` of the direction, after clipping.
    pub(super) fn act(&self, b: &mut Builder, dir: Val, k: usize, v: Val) -> Val {
        let v = match self.op.clip {
            Some(c) => {
                let v = b.fmin(v, c);
                b.fmax(v, -c)
            }
            None => v,
        };
        self.plain_act(b, dir, k, v)
    }

    fn plain_act(&self, b: &mut Builder, dir: Val, k: usize, v: Val) -> Val {
        let op = self.op;
        let one = |b: &mut Builder, k: usize| activate(b, op.activations[k], v, op.alpha[k], op.beta[k]);
        let other = k + op.activations_each();
        let same = |k: usize, o: usize| {
            (op.activations[k], op.alpha[k], op.beta[k]) == (op.activations[o], op.alpha[o], op.beta[o])
        };
        if op.directions() == 1 || same(k, other) {
            return one(b, k);
        }
        let forward = b.cmp(CmpOp::Eq, dir, 0);
        b.if_(forward, |b| vec![one(b, k)], |b| vec![one(b, other)])[0]
    }

    /// The new h and c of an LSTM: `gate` gives the sum of a gate, `c` is the old cell state.
    pub(super) fn lstm(
        &self,
        b: &mut Builder,
        at: Lanes,
        c: Val,
        mut gate: impl FnMut(&mut Builder, i64) -> Val,
    ) -> (Val, Val) {
        let peep = |b: &mut Builder, k: i64, v: Val, c: Val| match self.peep {
            None => v,
            Some(p) => {
                let from = b.mul(at.dir, 3);
                let from = b.add(from, k);
                let from = b.at(at.i, from, self.h);
                let w = load(b, self.d, p, from, self.lanes, at.mask);
                b.fma(w, c, v)
            }
        };
        let input = gate(b, 0);
        let input = peep(b, 0, input, c);
        let input = self.act(b, at.dir, 0, input);
        let forget = if self.op.input_forget {
            let ty = b.ty(input);
            let one = b.float(ty, 1.0);
            b.fsub(one, input)
        } else {
            let forget = gate(b, 2);
            let forget = peep(b, 2, forget, c);
            self.act(b, at.dir, 0, forget)
        };
        let fresh = gate(b, 3);
        let fresh = self.act(b, at.dir, 1, fresh);
        let kept = b.fmul(forget, c);
        let c = b.fma(input, fresh, kept);
        let output = gate(b, 1);
        let output = peep(b, 1, output, c);
        let output = self.act(b, at.dir, 0, output);
        let v = self.plain_act(b, at.dir, 2, c);
        (b.fmul(output, v), c)
    }

    /// The new h of a GRU from the old one, the update gate `z`, and what the third gate gets from the recurrence and from the
    /// input; `reset` is the reset gate if it applies to the recurrence's part.
    pub(super) fn gru(
        &self,
        b: &mut Builder,
        at: Lanes,
        (h, z): (Val, Val),
        (mut back, fed): (Val, Val),
        reset: Option<Val>,
    ) -> Val {
        if let Some(r) = reset {
            if let Some(bias) = self.bias {
                // The second half of the direction's biases, third gate.
                let from = b.mul(at.dir, 6);
                let from = b.add(from, 5);
                let from = b.at(at.i, from, self.h);
                let bias = load(b, self.d, bias, from, self.lanes, at.mask);
                back = b.fadd(back, bias);
            }
            back = b.fmul(back, r);
        }
        let v = b.fadd(back, fed);
        let fresh = self.act(b, at.dir, 1, v);
        let change = b.fsub(h, fresh);
        b.fma(z, change, fresh)
    }
}
