//! What the steps of a layer that skims read, in the form in which they read it, and back to operands.

use super::super::Cell;
use super::SkimRecurrent;
use crate::constant::Constant;
use crate::diag::Diag;
use crate::dim::Dim;
use crate::graph::ValueId;
use crate::op::binary::BinaryKind as B;
use crate::op::build::Build;
use crate::op::concat::Concat;
use crate::op::matmul::MatMul;
use crate::op::slice::Slice;
use crate::op::views::Squeeze;
use crate::tensor::Tensor;

pub(super) type Cx<'a, 'e, 'g> = &'a mut Build<'e, 'g>;

/// What the steps read of a cell.
#[derive(Clone, Copy, Debug)]
pub struct CellParts {
    /// Weights of the input \[I, G H\], or what all steps take from the input \[T, B, G H\].
    pub w: ValueId,
    /// Their bias \[G H\], if it is not in there.
    pub bias: Option<ValueId>,
    /// Weights of the state \[H, G H\], without those of `fresh`.
    pub r: ValueId,
    /// Their bias.
    pub state_bias: Option<ValueId>,
    /// The third gate of a GRU whose reset gate scales what goes in \[H, H\].
    pub fresh: Option<ValueId>,
    /// Its bias.
    pub fresh_bias: Option<ValueId>,
}

/// What every step reads.
#[derive(Clone, Copy, Debug)]
pub struct Captures {
    /// \[T, B, I\], or what the scores take from it \[T, B, 2\].
    pub x: ValueId,
    /// Of x and h \[I + H, 2\], or of h alone.
    pub predictor: ValueId,
    /// Its bias \[2\], if it is not in there.
    pub bias: Option<ValueId>,
    /// The cell that reads.
    pub big: CellParts,
    /// The cell that skims; none: it has no units.
    pub small: Option<CellParts>,
    /// What decides.
    pub theta: Option<ValueId>,
    /// What is added to scores \[T, B, 2\].
    pub gumbel: Option<ValueId>,
    /// What noisy scores are divided by.
    pub temperature: Option<ValueId>,
}

impl CellParts {
    /// Each value; `f` also gets whether it is a bias, and may take one away.
    pub(super) fn each(&mut self, f: &mut dyn FnMut(&mut Option<ValueId>, bool)) {
        let mut some = |v: &mut ValueId| {
            let mut value = Some(*v);
            f(&mut value, false);
            *v = value.unwrap_or(*v);
        };
        some(&mut self.w);
        some(&mut self.r);
        f(&mut self.bias, true);
        f(&mut self.state_bias, true);
        f(&mut self.fresh, false);
        f(&mut self.fresh_bias, true);
    }
}

impl Captures {
    /// Each value, omitted ones too, in an order that is always the same; `f` also gets whether it is a bias, and may take one away.
    pub fn each(&mut self, f: &mut dyn FnMut(&mut Option<ValueId>, bool)) {
        for v in [&mut self.x, &mut self.predictor] {
            let mut value = Some(*v);
            f(&mut value, false);
            *v = value.unwrap_or(*v);
        }
        f(&mut self.bias, true);
        self.big.each(f);
        if let Some(small) = &mut self.small {
            small.each(f);
        }
        for v in [&mut self.theta, &mut self.gumbel, &mut self.temperature] {
            f(v, false);
        }
    }
    /// The values that are there.
    pub fn list(mut self) -> Vec<ValueId> {
        let mut all = Vec::new();
        self.each(&mut |v, _| all.extend(*v));
        all
    }
    /// The same with other values in the order of [`Captures::list`].
    #[must_use]
    pub fn with(mut self, values: &[ValueId]) -> Captures {
        let mut values = values.iter();
        self.each(&mut |v, _| {
            if v.is_some() {
                *v = values.next().copied();
            }
        });
        self
    }
}

/// Operand `i`, if it is given.
pub(super) fn given(inputs: &[Option<ValueId>], i: usize) -> Option<ValueId> {
    inputs.get(i).copied().flatten()
}

pub(super) fn needed(inputs: &[Option<ValueId>], i: usize) -> Result<ValueId, Diag> {
    given(inputs, i).ok_or_else(|| Diag::error("arity", format!("operand {i} is missing")))
}

pub(super) fn squeezed(cx: Cx<'_, '_, '_>, v: ValueId) -> Result<ValueId, Diag> {
    cx.ed.node1(Squeeze { axes: vec![0] }, &[v])
}

pub(super) fn product(cx: Cx<'_, '_, '_>, a: ValueId, b: ValueId) -> Result<ValueId, Diag> {
    cx.ed.node1(MatMul { trans_a: false, trans_b: false }, &[a, b])
}

pub(super) fn plus(cx: Cx<'_, '_, '_>, v: ValueId, bias: Option<ValueId>) -> Result<ValueId, Diag> {
    bias.map_or(Ok(v), |b| cx.binary(B::Add, v, b))
}

/// A part of an axis, of a size that is known.
pub(super) fn part(cx: Cx<'_, '_, '_>, v: ValueId, axis: usize, range: (i64, i64)) -> Result<ValueId, Diag> {
    let (starts, ends) = (cx.vector(&[range.0])?, cx.vector(&[range.1])?);
    let axes = cx.vector(&[axis as i64])?;
    cx.ed.node1(Slice {}, &[v, starts, ends, axes])
}

/// The number of elements along an axis.
pub(super) fn fixed(cx: Cx<'_, '_, '_>, v: ValueId, axis: usize) -> Result<i64, Diag> {
    let n = cx.dims(v)?.get(axis).and_then(Dim::as_const);
    n.ok_or_else(|| Diag::unsupported("the sizes of the cells of a layer that skims are not known"))
}

impl SkimRecurrent {
    /// Whether the third gate of the cells has weights of its own in [`CellParts::fresh`].
    pub fn has_fresh(&self) -> bool {
        self.cell == Cell::Gru && !self.linear_before_reset
    }

    /// What steps that decide read, but for what decides. `inputs` are the operands of the layer.
    pub(super) fn captures(
        &self,
        cx: Cx<'_, '_, '_>,
        inputs: &[Option<ValueId>],
        x: ValueId,
    ) -> Result<Captures, Diag> {
        let small_r = needed(inputs, Self::CELLS[1] + 1)?;
        let small = fixed(cx, small_r, 2)?;
        Ok(Captures {
            x,
            predictor: needed(inputs, Self::PREDICTOR)?,
            bias: given(inputs, Self::BIASES[2]),
            big: self.cell_parts(cx, inputs, 0)?,
            small: if small == 0 { None } else { Some(self.cell_parts(cx, inputs, 1)?) },
            theta: None,
            gumbel: None,
            temperature: None,
        })
    }

    fn cell_parts(
        &self,
        cx: Cx<'_, '_, '_>,
        inputs: &[Option<ValueId>],
        k: usize,
    ) -> Result<CellParts, Diag> {
        let matrix = |cx: Cx<'_, '_, '_>, i: usize| {
            let v = needed(inputs, i)?;
            let v = squeezed(cx, v)?;
            cx.transpose(v, &[1, 0])
        };
        let (w, r) = (matrix(cx, Self::CELLS[k])?, matrix(cx, Self::CELLS[k] + 1)?);
        let h = fixed(cx, r, 0)?;
        let gates = self.plain().gates() as i64;
        let mut c = CellParts { w, bias: None, r, state_bias: None, fresh: None, fresh_bias: None };
        if self.has_fresh() {
            c.r = part(cx, r, 1, (0, 2 * h))?;
            c.fresh = Some(part(cx, r, 1, (2 * h, 3 * h))?);
        }
        if let Some(both) = given(inputs, Self::BIASES[k]) {
            let both = squeezed(cx, both)?;
            c.bias = Some(part(cx, both, 0, (0, gates * h))?);
            let end = if self.has_fresh() { (gates + 2) * h } else { 2 * gates * h };
            c.state_bias = Some(part(cx, both, 0, (gates * h, end))?);
            if self.has_fresh() {
                c.fresh_bias = Some(part(cx, both, 0, (end, 2 * gates * h))?);
            }
        }
        Ok(c)
    }

    /// The captures with what all steps take from the input in place of its weights.
    pub(super) fn fed(&self, cx: Cx<'_, '_, '_>, x: ValueId, mut c: Captures) -> Result<Captures, Diag> {
        for cell in [Some(&mut c.big), c.small.as_mut()].into_iter().flatten() {
            let v = product(cx, x, cell.w)?;
            cell.w = plus(cx, v, cell.bias.take())?;
        }
        let (inputs, rows) = (fixed(cx, x, 2)?, fixed(cx, c.predictor, 0)?);
        let of_x = part(cx, c.predictor, 0, (0, inputs))?;
        let scores = product(cx, x, of_x)?;
        c.x = plus(cx, scores, c.bias.take())?;
        c.predictor = part(cx, c.predictor, 0, (inputs, rows))?;
        Ok(c)
    }

    /// The operands of a layer whose steps decide and read these captures, from these first states.
    pub fn operands(
        &self,
        cx: &mut Build<'_, '_>,
        start: &[ValueId],
        c: &Captures,
    ) -> Result<Vec<Option<ValueId>>, Diag> {
        let mut inputs = vec![None; Self::THETA + 1];
        inputs[0] = Some(c.x);
        inputs[Self::PREDICTOR] = Some(c.predictor);
        inputs[Self::BIASES[2]] = c.bias;
        inputs[Self::THETA] = c.theta;
        for (i, v) in Self::FIRST.into_iter().zip(start) {
            inputs[i] = Some(cx.unsqueeze(*v, &[0])?);
        }
        for (k, cell) in [Some(c.big), c.small].into_iter().enumerate() {
            let first = Self::CELLS[k];
            let Some(cell) = cell else {
                let (rows, columns) = (0, [fixed(cx, c.x, 2)?, 0]);
                for (i, columns) in columns.into_iter().enumerate() {
                    let zero = Tensor::scalar(cx.dtype(c.x)?, 0.0)?;
                    let none = Constant::splat(&zero, vec![1, rows, columns as usize])?;
                    inputs[first + i] = Some(cx.ed.constant(none)?);
                }
                continue;
            };
            let r = match cell.fresh {
                None => cell.r,
                Some(fresh) => cx.ed.node1(Concat { axis: 1 }, &[cell.r, fresh])?,
            };
            for (i, v) in [cell.w, r].into_iter().enumerate() {
                let v = cx.transpose(v, &[1, 0])?;
                inputs[first + i] = Some(cx.unsqueeze(v, &[0])?);
            }
            let biases = [cell.bias, cell.state_bias, cell.fresh_bias];
            if biases.iter().any(Option::is_some) {
                let mut all = Vec::new();
                let of = [Some(cell.w), Some(cell.r), cell.fresh];
                for (bias, of) in biases.into_iter().zip(of) {
                    let Some(of) = of else { continue };
                    let n = fixed(cx, of, 1)? as usize;
                    let zero = Tensor::scalar(cx.dtype(c.x)?, 0.0)?;
                    all.push(match bias {
                        Some(v) => v,
                        None => cx.ed.constant(Constant::splat(&zero, vec![n])?)?,
                    });
                }
                let all = cx.ed.node1(Concat { axis: 0 }, &all)?;
                inputs[Self::BIASES[k]] = Some(cx.unsqueeze(all, &[0])?);
            }
        }
        Ok(inputs)
    }
}
