//! Geometry of windows that slide over the spatial axes of a tensor: convolutions and pooling.

use crate::diag::Diag;
use crate::dim::Dim;

crate::attr_enum! {
    /// How the padding of a window is given.
    AutoPad {
        /// By the field `pads`.
        Explicit = "explicit",
        /// So that the result has `ceil(input / stride)` positions, an odd element at the end.
        SameUpper = "same-upper",
        /// So that the result has `ceil(input / stride)` positions, an odd element at the beginning.
        SameLower = "same-lower",
    }
}

/// The window fields of an operation; one entry per spatial axis, `pads` first all beginnings, then all ends.
#[derive(Clone, Copy, Debug)]
pub struct Windows<'a> {
    /// How the padding is given.
    pub auto_pad: AutoPad,
    /// Steps.
    pub strides: &'a [i64],
    /// Distances of neighbouring elements of a window.
    pub dilations: &'a [i64],
    /// Explicit padding, not negative.
    pub pads: &'a [i64],
}

const LIMIT: i64 = i32::MAX as i64;

impl Windows<'_> {
    /// Checks the fields for this number of spatial axes.
    pub fn check(&self, rank: usize) -> Result<(), Diag> {
        let lens = [self.strides.len(), self.dilations.len(), self.pads.len()];
        if lens != [rank, rank, 2 * rank] {
            return Err(Diag::error(
                "shape-mismatch",
                format!("fields of a window over {rank} axes: {lens:?}"),
            ));
        }
        if !self.strides.iter().chain(self.dilations).all(|v| (1..=LIMIT).contains(v)) {
            return Err(Diag::error("field-range", "strides and dilations must be positive"));
        }
        if !self.pads.iter().all(|v| (0..=LIMIT).contains(v)) {
            return Err(Diag::error("field-range", "padding must not be negative"));
        }
        Ok(())
    }
    /// How far a window of `kernel` elements reaches along an axis.
    pub fn extent(&self, axis: usize, kernel: &Dim) -> Dim {
        kernel.sub(&1.into()).mul(&self.dilations[axis].into()).add(&1.into())
    }
    /// How many positions a window has along an axis. With `ceil`, a last window may reach beyond the padding, but
    /// must begin within the input or the padding before it.
    pub fn positions(&self, axis: usize, input: &Dim, kernel: &Dim, ceil: bool) -> Result<Dim, Diag> {
        let stride = Dim::from(self.strides[axis]);
        if self.auto_pad != AutoPad::Explicit {
            return Ok(input.ceil_div(&stride));
        }
        let begin = Dim::from(self.pads[axis]);
        let end = Dim::from(self.pads[axis + self.strides.len()]);
        let room = input.add(&begin).add(&end).sub(&self.extent(axis, kernel));
        let out = if ceil {
            let all = room.ceil_div(&stride).add(&1.into());
            let sound = input.add(&begin).ceil_div(&stride);
            if end.is(0) && self.strides[axis] == 1 { all } else { all.smaller(&sound) }
        } else {
            room.floor_div(&stride).add(&1.into())
        };
        match out.as_const() {
            Some(v) if v < 0 => Err(Diag::error(
                "shape-mismatch",
                format!("a window does not fit into axis {axis} with its padding"),
            )),
            _ => Ok(out),
        }
    }
    /// The padding before and after an axis.
    pub fn padding(&self, axis: usize, input: &Dim, kernel: &Dim) -> (Dim, Dim) {
        if self.auto_pad == AutoPad::Explicit {
            return (self.pads[axis].into(), self.pads[axis + self.strides.len()].into());
        }
        let stride = Dim::from(self.strides[axis]);
        let steps = input.ceil_div(&stride).sub(&1.into());
        let reach = steps.mul(&stride).add(&self.extent(axis, kernel));
        let total = reach.sub(input).larger(&0.into());
        let half = total.floor_div(&2.into());
        let rest = total.sub(&half);
        if self.auto_pad == AutoPad::SameUpper { (half, rest) } else { (rest, half) }
    }
    /// The padding of an input of known size: the beginnings of all spatial axes, then the ends.
    pub fn padded(&self, input: &[i64], kernel: &[i64]) -> Result<Vec<i64>, Diag> {
        let known = |d: Dim| d.as_const().ok_or_else(|| Diag::error("internal-eval", "a dim is not known"));
        let (mut begins, mut ends) = (Vec::new(), Vec::new());
        for (axis, (i, k)) in input.iter().zip(kernel).enumerate() {
            let (begin, end) = self.padding(axis, &(*i).into(), &(*k).into());
            begins.push(known(begin)?);
            ends.push(known(end)?);
        }
        Ok([begins, ends].concat())
    }
    /// The windows over an input of known size.
    pub fn place(&self, input: &[usize], kernel: &[usize], ceil: bool) -> Result<Placed, Diag> {
        self.check(input.len())?;
        let mut axes = Vec::new();
        let mut out = Vec::new();
        let known = |d: Dim| d.as_const().ok_or_else(|| Diag::error("internal-eval", "a dim is not known"));
        for (axis, (i, k)) in input.iter().zip(kernel).enumerate() {
            let (di, dk) = (Dim::from(*i), Dim::from(*k));
            let (begin, end) = self.padding(axis, &di, &dk);
            axes.push(PlacedAxis {
                input: *i as i64,
                kernel: *k as i64,
                stride: self.strides[axis],
                dilation: self.dilations[axis],
                begin: known(begin)?,
                end: known(end)?,
            });
            out.push(known(self.positions(axis, &di, &dk, ceil)?)? as usize);
        }
        Ok(Placed { axes, out })
    }
}

struct PlacedAxis {
    input: i64,
    kernel: i64,
    stride: i64,
    dilation: i64,
    begin: i64,
    end: i64,
}

/// Windows over an input of known size.
pub struct Placed {
    axes: Vec<PlacedAxis>,
    /// Number of positions along each axis.
    pub out: Vec<usize>,
}

impl Placed {
    /// The elements of the window at a position that lie within the input: pairs of the index in the window and the
    /// index in the spatial part of the input, both row-major.
    pub fn taps(&self, position: &[usize]) -> Vec<(usize, usize)> {
        let mut taps = vec![(0usize, 0usize)];
        for (a, p) in self.axes.iter().zip(position) {
            let start = *p as i64 * a.stride - a.begin;
            let first = if start < 0 { (-start + a.dilation - 1) / a.dilation } else { 0 };
            let mut next = Vec::new();
            for (k, i) in taps {
                for e in first..a.kernel {
                    let at = start + e * a.dilation;
                    if at >= a.input {
                        break;
                    }
                    next.push((k * a.kernel as usize + e as usize, i * a.input as usize + at as usize));
                }
            }
            taps = next;
        }
        taps
    }
    /// How many elements of the window at a position lie within the input or its padding.
    pub fn padded_size(&self, position: &[usize]) -> i64 {
        let sizes = self.axes.iter().zip(position).map(|(a, p)| {
            let room = a.input + a.end + a.begin - *p as i64 * a.stride;
            a.kernel.min((room + a.dilation - 1) / a.dilation).max(0)
        });
        sizes.product()
    }
}

/// Calls `f` with every index below `shape`, the last axis fastest.
pub fn for_each_index(shape: &[usize], mut f: impl FnMut(&[usize]) -> Result<(), Diag>) -> Result<(), Diag> {
    if shape.contains(&0) {
        return Ok(());
    }
    let mut index = vec![0; shape.len()];
    loop {
        f(&index)?;
        let mut axis = shape.len();
        loop {
            if axis == 0 {
                return Ok(());
            }
            axis -= 1;
            index[axis] += 1;
            if index[axis] < shape[axis] {
                break;
            }
            index[axis] = 0;
        }
    }
}
