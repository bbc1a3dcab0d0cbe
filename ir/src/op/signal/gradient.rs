//! The rules of Fourier transforms, which are linear.

use super::{Dft, Stft, dft_axis};
use crate::diag::Diag;
use crate::graph::ValueId;
use crate::op::concat::{Pad, PadMode};
use crate::op::gather::Gather;
use crate::op::gradient::GradCx;
use crate::tensor::Tensor;

/// `v` cut, or padded with zeros, to `n` elements along an axis.
fn resized(cx: &mut GradCx<'_, '_>, v: ValueId, axis: usize, n: i64) -> Result<ValueId, Diag> {
    let dims = cx.known_dims(v)?;
    if dims[axis] == n {
        return Ok(v);
    }
    let mut pads = vec![0; 2 * dims.len()];
    pads[axis + dims.len()] = n - dims[axis];
    let pads = cx.vector(&pads)?;
    cx.ed.node1(Pad { mode: PadMode::Constant }, &[v, pads])
}

impl Dft {
    /// The transform the other way round, of what has been made whole, without its factor.
    pub(super) fn backward(&self, cx: &mut GradCx<'_, '_>) -> Result<(), Diag> {
        let (mut dy, x) = (cx.only_seed()?, cx.input(0)?);
        let (dims, out) = (cx.known_dims(x)?, cx.known_dims(dy)?);
        let (rank, last) = (dims.len(), dims.len() - 1);
        let axis = match cx.inputs().get(2).copied().flatten() {
            Some(v) => match cx.ints(v).as_deref() {
                Some([a]) => dft_axis(*a, rank)?,
                _ => return Err(cx.no_rule("along an axis that is computed")),
            },
            None => dft_axis(-2, rank)?,
        };
        let given = match cx.inputs().get(1).copied().flatten() {
            Some(v) => match cx.ints(v).as_deref() {
                Some([n]) => Some(*n),
                _ => return Err(cx.no_rule("of a length that is computed")),
            },
            None => None,
        };
        let len = if self.inverse { out[axis] } else { given.unwrap_or(dims[axis]) };
        let along = cx.ed.constant(Tensor::scalar_i64(axis as i64))?;
        if !self.inverse {
            dy = resized(cx, dy, axis, len)?;
        }
        let back = Dft { inverse: !self.inverse, onesided: false };
        let mut dx = cx.ed.node(back, &[Some(dy), None, Some(along)])?[0];
        let factor = if self.inverse { 1.0 / len as f64 } else { len as f64 };
        if self.inverse && self.onesided {
            // A bin stands for two, but for the first and the middle one, of which only the real part counts.
            let weights = (0..len).flat_map(|k| match (k == 0 || 2 * k == len, 2 * k < len) {
                (true, _) => [1.0, 0.0],
                (false, true) => [2.0, 2.0],
                (false, false) => [0.0, 0.0],
            });
            let weights = Tensor::floats(cx.dtype(x)?, &[len as usize, 2], weights.collect())?;
            let weights = cx.ed.constant(weights)?;
            let between: Vec<usize> = (1..last - axis).collect();
            let weights = cx.unsqueeze(weights, &between)?;
            dx = cx.mul(dx, weights)?;
        }
        dx = cx.scale(factor, dx)?;
        dx = resized(cx, dx, axis, dims[axis])?;
        dx = resized(cx, dx, last, dims[last])?;
        cx.give(0, dx)
    }
}

impl Stft {
    /// Frames that are gathered, multiplied with the window and transformed.
    pub(super) fn backward(&self, cx: &mut GradCx<'_, '_>) -> Result<(), Diag> {
        let (x, y) = (cx.input(0)?, cx.output(0));
        let optional = |cx: &GradCx<'_, '_>, i: usize| cx.inputs().get(i).copied().flatten();
        let number = |cx: &GradCx<'_, '_>, v: ValueId| match cx.ints(v).as_deref() {
            Some([n]) => Ok(*n),
            _ => Err(cx.no_rule("with steps or lengths that are computed")),
        };
        let step = number(cx, cx.input(1)?)?;
        let (window, length) = (optional(cx, 2), optional(cx, 3));
        let len = match (length, window) {
            (Some(v), _) => number(cx, v)?,
            (None, Some(w)) => cx.known_dims(w)?[0],
            (None, None) => cx.known_dims(x)?[1],
        };
        let frames = cx.known_dims(y)?[1];
        cx.through(|cx| {
            let places: Vec<i64> = (0..frames).flat_map(|f| (0..len).map(move |i| f * step + i)).collect();
            let places = cx.vector(&places)?;
            let places = cx.reshape(places, &[frames, len])?;
            let mut lines = cx.ed.node1(Gather { axis: 1 }, &[x, places])?;
            if let Some(w) = window {
                let w = resized(cx, w, 0, len)?;
                let w = cx.unsqueeze(w, &[1])?;
                lines = cx.mul(lines, w)?;
            }
            let op = Dft { inverse: false, onesided: self.onesided };
            Ok(vec![cx.ed.node1(op, &[lines])?])
        })
    }
}
