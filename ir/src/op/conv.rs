//! Convolution.

use crate::diag::Diag;
use crate::dim::Dim;
use crate::dtype::DType;
use crate::graph::Fact;
use crate::graph::ValueId;
use crate::op::binary::BinaryKind;
use crate::op::concat::{Concat, Pad, PadMode};
use crate::op::conv_transpose::ConvTranspose;
use crate::op::gradient::GradCx;
use crate::op::matmul::MatMul;
use crate::op::reduce::ReduceKind;
use crate::op::slice::Slice;
use crate::op::window::{AutoPad, Placed, Windows, for_each_index};
use crate::op::{EvalCx, InferCx, OpDef};
use crate::tensor::{Elems, Tensor, Value, elem_count};
use crate::types::Type;

crate::op_struct! {
    /// Convolution (ONNX Conv) of `x` \[N, C, spatial...\] with weights \[M, C / groups, kernel...\] and an optional bias \[M\]: \[N, M, positions...\]. Integers up to 32 bits wrap.
    Conv {
        /// Step along each spatial axis.
        strides: Vec<i64>,
        /// Distance of neighbouring elements of the window along each spatial axis.
        dilations: Vec<i64>,
        /// Padding with zeros: the beginnings of all spatial axes, then the ends.
        pads: Vec<i64>,
        /// How the padding is given.
        auto_pad: AutoPad,
        /// Number of groups of channels that see only each other.
        groups: i64,
    }
}

/// Whether a window operation computes on this type.
pub(crate) fn is_number(d: DType) -> bool {
    d.is_float() || (d.is_int() && d.bits() <= 32)
}

/// The rank behind batch and channel, which must be 1 at least.
pub(crate) fn spatial_rank(dims: &[Dim]) -> Result<usize, Diag> {
    dims.len()
        .checked_sub(2)
        .filter(|r| *r > 0)
        .ok_or_else(|| Diag::error("shape-mismatch", format!("rank {} leaves no spatial axes", dims.len())))
}

/// An error unless two dims may be equal.
pub(crate) fn expect_dim(have: &Dim, want: &Dim, what: &str) -> Result<(), Diag> {
    match (have.as_const(), want.as_const()) {
        (Some(a), Some(b)) if a != b => Err(Diag::error("shape-mismatch", format!("{what} is {a}, not {b}"))),
        _ => Ok(()),
    }
}

/// An error unless operand `i`, if given, is a vector of `want` elements.
pub(crate) fn expect_vector(cx: &InferCx<'_>, i: usize, want: &Dim, what: &str) -> Result<(), Diag> {
    if !cx.has(i) {
        return Ok(());
    }
    match cx.dims(i)? {
        [n] => expect_dim(n, want, what),
        d => Err(Diag::error("shape-mismatch", format!("{what} has rank {}, not 1", d.len()))),
    }
}

impl Conv {
    /// The window fields.
    pub fn windows(&self) -> Windows<'_> {
        Windows {
            auto_pad: self.auto_pad,
            strides: &self.strides,
            dilations: &self.dilations,
            pads: &self.pads,
        }
    }
    pub(crate) fn shape(&self, x: &[Dim], w: &[Dim]) -> Result<Vec<Dim>, Diag> {
        let rank = spatial_rank(x)?;
        self.windows().check(rank)?;
        if w.len() != x.len() {
            return Err(Diag::error("shape-mismatch", "the weights must have the rank of the input"));
        }
        if !(1..=i64::from(i32::MAX)).contains(&self.groups) {
            return Err(Diag::error("field-range", format!("{} groups", self.groups)));
        }
        expect_dim(&w[1].mul(&self.groups.into()), &x[1], "the number of channels of the weights")?;
        if w[0].as_const().is_some_and(|m| m % self.groups != 0) {
            return Err(Diag::error("shape-mismatch", "groups do not divide the output channels"));
        }
        let mut out = vec![x[0].clone(), w[0].clone()];
        for axis in 0..rank {
            out.push(self.windows().positions(axis, &x[axis + 2], &w[axis + 2], false)?);
        }
        Ok(out)
    }
}

/// The gradient of weights \[M, C / groups, kernel...\] that made a result with gradient `dy` of `x`: `x` convolved with `dy`, channels in the
/// place of images, steps in the place of dilations.
pub(crate) fn of_weights(
    cx: &mut GradCx<'_, '_>,
    (x, dy): (ValueId, ValueId),
    kernel: &[i64],
    op: &Conv,
) -> Result<ValueId, Diag> {
    let (Ok(dims), Ok(_)) = (cx.known_dims(x), cx.known_dims(dy)) else {
        return by_elements(cx, (x, dy), kernel, op);
    };
    let (n, groups) = (dims[0], op.groups);
    let swap = |from: usize| -> Vec<usize> { [1, 0].into_iter().chain(2..from).collect() };
    let whole = swap(dims.len());
    // [n, groups, c, ..] to [c, groups n, ..]
    let mut images = x;
    if groups > 1 {
        let apart: Vec<i64> =
            [n, groups, dims[1] / groups].into_iter().chain(dims[2..].iter().copied()).collect();
        images = cx.reshape(images, &apart)?;
        let perm: Vec<usize> = [2, 1, 0].into_iter().chain(3..apart.len()).collect();
        images = cx.transpose(images, &perm)?;
        let joined: Vec<i64> =
            [dims[1] / groups, groups * n].into_iter().chain(dims[2..].iter().copied()).collect();
        images = cx.reshape(images, &joined)?;
    } else {
        images = cx.transpose(images, &whole)?;
    }
    let windows = cx.transpose(dy, &whole)?;
    let back = Conv {
        strides: op.dilations.clone(),
        dilations: op.strides.clone(),
        pads: op.pads.clone(),
        auto_pad: AutoPad::Explicit,
        groups,
    };
    let mut dw = cx.ed.node1(back, &[images, windows])?;
    // Positions that the last window did not reach.
    let got = cx.known_dims(dw)?;
    if got[2..] != kernel[2..] {
        let ends = cx.vector(&kernel[2..])?;
        let starts = cx.vector(&vec![0; kernel.len() - 2])?;
        let axes: Vec<i64> = (2..kernel.len() as i64).collect();
        let axes = cx.vector(&axes)?;
        dw = cx.ed.node1(Slice {}, &[dw, starts, ends, axes])?;
    }
    cx.transpose(dw, &whole)
}

/// The same where shapes are not fixed: one matrix product for each element of the kernel.
fn by_elements(
    cx: &mut GradCx<'_, '_>,
    (x, dy): (ValueId, ValueId),
    kernel: &[i64],
    op: &Conv,
) -> Result<ValueId, Diag> {
    let (rank, groups) = (kernel.len() - 2, op.groups);
    let whole: Vec<usize> = [1, 0].into_iter().chain(2..kernel.len()).collect();
    let rows = |cx: &mut GradCx<'_, '_>, v: ValueId, channels: i64| -> Result<ValueId, Diag> {
        let v = cx.transpose(v, &whole)?;
        cx.reshape(v, &[groups, channels, -1])
    };
    let (begins, ends) = op.pads.split_at(rank);
    let pads = [&[0, 0], begins, &[0, 0], ends].concat();
    let mut padded = x;
    if pads.iter().any(|p| *p != 0) {
        let pads = cx.vector(&pads)?;
        padded = cx.ed.node1(Pad { mode: PadMode::Constant }, &[x, pads])?;
    }
    let axes: Vec<i64> = (2..kernel.len() as i64).collect();
    let (axes, steps) = (cx.vector(&axes)?, cx.vector(&op.strides)?);
    // How far the windows of the result go, from the first element of one on.
    let positions = cx.sizes(dy, 2..kernel.len())?;
    let reach = cx.product(positions, steps)?;
    let mut dims = cx.dims(x)?[..2].to_vec();
    dims.extend_from_slice(&cx.dims(dy)?[2..]);
    let result = rows(cx, dy, kernel[0] / groups)?;
    let mut parts = Vec::new();
    let window: Vec<usize> = kernel[2..].iter().map(|k| *k as usize).collect();
    let mut elements = Vec::new();
    for_each_index(&window, |e| {
        elements.push(e.iter().zip(&op.dilations).map(|(e, d)| *e as i64 * d).collect::<Vec<i64>>());
        Ok(())
    })?;
    for start in elements {
        let back: Vec<i64> = start.iter().zip(&op.strides).map(|(e, s)| e + 1 - s).collect();
        let (start, back) = (cx.vector(&start)?, cx.vector(&back)?);
        let end = cx.binary(BinaryKind::Add, reach, back)?;
        let taken = cx.ed.node1(Slice {}, &[padded, start, end, axes, steps])?;
        let taken = cx.with_dims(taken, dims.clone())?;
        let taken = rows(cx, taken, kernel[1])?;
        let part = cx.ed.node1(MatMul { trans_a: false, trans_b: true }, &[result, taken])?;
        parts.push(Some(cx.unsqueeze(part, &[3])?));
    }
    if parts.is_empty() {
        return Err(cx.no_rule("of an empty window"));
    }
    let dw = cx.ed.node(Concat { axis: 3 }, &parts)?;
    cx.reshape(dw[0], kernel)
}

/// The gradient of windows over the spatial axes of `x`, brought back to their places: `dy` \[N, .., positions...\] by the transposed
/// convolution with `w`. `x` only tells the sizes.
pub(crate) fn back(
    cx: &mut GradCx<'_, '_>,
    (dy, w, x): (ValueId, ValueId, ValueId),
    (windows, pads): (&Windows<'_>, &[i64]),
    groups: i64,
) -> Result<ValueId, Diag> {
    let (dims, out, kernel) = (cx.dims(x)?, cx.dims(dy)?, cx.dims(w)?);
    let rank = dims.len() - 2;
    let mut cut = false;
    let mut output_padding = Vec::new();
    for a in 0..rank {
        let steps = out[a + 2].sub(&1.into()).mul(&windows.strides[a].into());
        let reach = steps.add(&windows.extent(a, &kernel[a + 2]));
        let rest = dims[a + 2].sub(&reach).add(&(pads[a] + pads[a + rank]).into());
        // What the last window leaves over is less than a step; the result is cut to size if it is not known.
        cut |= rest.as_const().is_none();
        output_padding.push(rest.as_const().unwrap_or(windows.strides[a] - 1));
    }
    let op = ConvTranspose {
        strides: windows.strides.to_vec(),
        dilations: windows.dilations.to_vec(),
        output_padding,
        pads: pads.to_vec(),
        groups,
    };
    let mut dx = cx.ed.node1(op, &[dy, w])?;
    if cut {
        let ends = cx.sizes(x, 2..rank + 2)?;
        let starts = cx.vector(&vec![0; rank])?;
        let axes = cx.vector(&(2..rank as i64 + 2).collect::<Vec<_>>())?;
        dx = cx.ed.node1(Slice {}, &[dx, starts, ends, axes])?;
    }
    let whole = [&cx.dims(dx)?[..2], &dims[2..]].concat();
    cx.with_dims(dx, whole)
}

/// The padding of windows of known size over `x`: the beginnings of all spatial axes, then the ends.
pub(crate) fn padding(
    cx: &GradCx<'_, '_>,
    windows: &Windows<'_>,
    x: ValueId,
    kernel: &[i64],
) -> Result<Vec<i64>, Diag> {
    let (mut begins, mut ends) = (Vec::new(), Vec::new());
    for (a, (d, k)) in cx.dims(x)?[2..].iter().zip(kernel).enumerate() {
        let (begin, end) = windows.padding(a, d, &(*k).into());
        let unknown = || cx.no_rule("with padding that follows from a size that is not fixed");
        begins.push(begin.as_const().ok_or_else(unknown)?);
        ends.push(end.as_const().ok_or_else(unknown)?);
    }
    Ok([begins, ends].concat())
}

impl OpDef for Conv {
    const NAME: &'static str = "conv";
    const INPUTS: (usize, usize) = (2, 3);
    fn infer(&self, cx: &mut InferCx<'_>) -> Result<Vec<Fact>, Diag> {
        let dtype = cx.expect_dtype(0, is_number, "a number of up to 32 bits or a float")?;
        cx.expect_same_dtype(0)?;
        let out = self.shape(cx.dims(0)?, cx.dims(1)?)?;
        expect_vector(cx, 2, &out[1], "the bias")?;
        Ok(vec![Type::tensor(dtype, out).into()])
    }
    fn gradient(&self, cx: &mut GradCx<'_, '_>) -> Result<(), Diag> {
        let (dy, x, w) = (cx.only_seed()?, cx.input(0)?, cx.input(1)?);
        let (rank, kernel) = (cx.dims(x)?.len(), cx.known_dims(w)?);
        let pads = padding(cx, &self.windows(), x, &kernel[2..])?;
        if cx.has(2) {
            let axes: Vec<usize> = (0..rank).filter(|a| *a != 1).collect();
            let db = cx.reduce(ReduceKind::Sum, dy, &axes, false)?;
            cx.give(2, db)?;
        }
        if cx.wants(0) {
            let dx = back(cx, (dy, w, x), (&self.windows(), &pads), self.groups)?;
            cx.give(0, dx)?;
        }
        if cx.wants(1) {
            let dw = of_weights(cx, (x, dy), &kernel, &Conv { pads, ..self.clone() })?;
            cx.give(1, dw)?;
        }
        Ok(())
    }
    fn eval(&self, cx: &mut EvalCx<'_>) -> Result<Vec<Value>, Diag> {
        let y = self.compute(cx.tensor(0)?, cx.tensor(1)?, cx.opt_tensor(2)?)?;
        Ok(vec![y.into()])
    }
    fn weight_input(&self) -> Option<usize> {
        Some(1)
    }
}

impl Conv {
    /// The result for an input, weights and a bias.
    pub(crate) fn compute(&self, x: &Tensor, w: &Tensor, b: Option<&Tensor>) -> Result<Tensor, Diag> {
        let dims = |t: &Tensor| t.shape().iter().map(|d| Dim::from(*d)).collect::<Vec<_>>();
        self.shape(&dims(x), &dims(w))?;
        let (xs, ws) = (x.shape(), w.shape());
        let placed = self.windows().place(&xs[2..], &ws[2..], false)?;
        let mut shape = vec![xs[0], ws[0]];
        shape.extend(&placed.out);
        elem_count(&shape)?;
        if b.is_some_and(|b| b.len() != ws[0]) {
            return Err(Diag::error("shape-mismatch", "one bias is needed per output channel"));
        }
        let sizes = Sizes { n: xs[0], c: xs[1], m: ws[0], groups: self.groups as usize };
        let elems = match (x.elems(), w.elems(), b.map(Tensor::elems)) {
            (Elems::F(x), Elems::F(w), b) => {
                let b = if let Some(Elems::F(b)) = b { b } else { vec![0.0; ws[0]] };
                Elems::F(convolve(&x, &w, &b, &sizes, &placed, |s, x, w| s + x * w)?)
            }
            (Elems::I(x), Elems::I(w), b) => {
                let b = if let Some(Elems::I(b)) = b { b } else { vec![0; ws[0]] };
                Elems::I(convolve(&x, &w, &b, &sizes, &placed, |s, x, w| s + x * w)?)
            }
            _ => return Err(Diag::error("dtype-mismatch", "operands of different kinds")),
        };
        Tensor::from_elems(x.dtype(), shape, elems)
    }
}

/// Adds the product of each row of weights with a patch, term by term, to the sum at `position` of the row's outputs.
fn products<T: Copy>(
    patch: &[T],
    rows: &[T],
    sums: &mut [T],
    positions: usize,
    position: usize,
    add: &impl Fn(T, T, T) -> T,
) {
    /// Rows that are summed side by side: their sums do not wait for each other.
    const SIDE: usize = 8;
    let len = patch.len();
    let count = rows.len().checked_div(len).unwrap_or(0);
    for first in (0..count).step_by(SIDE) {
        let at = |r: usize| (first + r) * positions + position;
        if let Some(block) = rows.get(first * len..(first + SIDE) * len) {
            let mut s: [T; SIDE] = std::array::from_fn(|r| sums[at(r)]);
            let mut lines = block.chunks_exact(len);
            let lines: [&[T]; SIDE] = std::array::from_fn(|_| lines.next().unwrap_or_default());
            for (j, x) in patch.iter().enumerate() {
                for (s, line) in s.iter_mut().zip(lines) {
                    *s = add(*s, *x, line[j]);
                }
            }
            (0..SIDE).for_each(|r| sums[at(r)] = s[r]);
        } else {
            for (r, line) in rows[first * len..].chunks_exact(len).enumerate() {
                let sum = &mut sums[at(r)];
                *sum = patch.iter().zip(line).fold(*sum, |s, (x, w)| add(s, *x, *w));
            }
        }
    }
}

struct Sizes {
    n: usize,
    c: usize,
    m: usize,
    groups: usize,
}

fn convolve<T: Copy>(
    x: &[T],
    w: &[T],
    b: &[T],
    s: &Sizes,
    placed: &Placed,
    add: impl Fn(T, T, T) -> T,
) -> Result<Vec<T>, Diag> {
    let positions = elem_count(&placed.out)?;
    if positions == 0 || s.n == 0 || s.m == 0 {
        return Ok(Vec::new());
    }
    let (cg, mg) = (s.c / s.groups, s.m / s.groups);
    let plane = x.len().checked_div(s.n * s.c).unwrap_or(0);
    let window = w.len().checked_div(s.m * cg).unwrap_or(0);
    let mut out: Vec<T> = Vec::with_capacity(s.n * s.m * positions);
    for _ in 0..s.n {
        for value in b {
            out.extend(std::iter::repeat_n(*value, positions));
        }
    }
    let mut position = 0;
    let mut patch: Vec<T> = Vec::with_capacity(cg * window);
    for_each_index(&placed.out, |index| {
        let taps = placed.taps(index);
        // A window that is whole inside the input is gathered once for all output channels of its group.
        let whole = taps.len() == window && taps.iter().enumerate().all(|(j, (k, _))| j == *k);
        for (n, group) in (0..s.n).flat_map(|n| (0..s.groups).map(move |g| (n, g))) {
            if whole {
                patch.clear();
                for c in group * cg..(group + 1) * cg {
                    let xc = &x[(n * s.c + c) * plane..][..plane];
                    patch.extend(taps.iter().map(|(_, i)| xc[*i]));
                }
                let rows = &w[group * mg * cg * window..][..mg * cg * window];
                let sums = &mut out[(n * s.m + group * mg) * positions..][..mg * positions];
                products(&patch, rows, sums, positions, position, &add);
                continue;
            }
            for m in group * mg..(group + 1) * mg {
                let at = &mut out[(n * s.m + m) * positions + position];
                for c in 0..cg {
                    let xc = &x[(n * s.c + m / mg * cg + c) * plane..][..plane];
                    let wc = &w[(m * cg + c) * window..][..window];
                    for (k, i) in &taps {
                        *at = add(*at, xc[*i], wc[*k]);
                    }
                }
            }
        }
        position += 1;
        Ok(())
    })?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::probe::{eval_op, ramp};

    fn conv(strides: &[i64], dilations: &[i64], pads: &[i64], auto_pad: AutoPad, groups: i64) -> Conv {
        Conv { strides: strides.into(), dilations: dilations.into(), pads: pads.into(), auto_pad, groups }
    }

    #[test]
    fn a_3x3_window_sums_its_neighbourhood() -> Result<(), Diag> {
        let x = ramp(&[1, 1, 3, 3], 1.0, 1.0)?;
        let w = Tensor::f32s(&[1, 1, 3, 3], &[1.0; 9])?;
        let b = Tensor::f32s(&[1], &[0.5])?;
        let op = conv(&[1, 1], &[1, 1], &[1; 4], AutoPad::Explicit, 1);
        let y = eval_op(op, &[Some(x.clone()), Some(w.clone()), Some(b)])?;
        assert_eq!(y[0].to_f64(), [12.5, 21.5, 16.5, 27.5, 45.5, 33.5, 24.5, 39.5, 28.5]);
        let op = conv(&[2, 2], &[1, 1], &[0; 4], AutoPad::SameUpper, 1);
        let y = eval_op(op, &[Some(x.clone()), Some(w.clone()), None])?;
        assert_eq!((y[0].shape(), y[0].to_f64()), (&[1, 1, 2, 2][..], vec![12.0, 16.0, 24.0, 28.0]));
        let op = conv(&[1, 1], &[2, 2], &[0; 4], AutoPad::Explicit, 1);
        assert_eq!(eval_op(op, &[Some(x), Some(w), None]).map_err(|d| d.id), Err("shape-mismatch"));
        Ok(())
    }

    #[test]
    fn same_padding_puts_the_odd_element_where_it_says() -> Result<(), Diag> {
        let x = Tensor::ints(DType::I32, &[1, 1, 3], vec![1, 2, 3])?;
        let w = Tensor::ints(DType::I32, &[1, 1, 2], vec![10, 1])?;
        for (auto_pad, want) in
            [(AutoPad::SameUpper, [12.0, 23.0, 30.0]), (AutoPad::SameLower, [1.0, 12.0, 23.0])]
        {
            let y = eval_op(conv(&[1], &[1], &[0, 0], auto_pad, 1), &[Some(x.clone()), Some(w.clone())])?;
            assert_eq!(y[0].to_f64(), want);
        }
        Ok(())
    }

    #[test]
    fn groups_see_only_their_channels() -> Result<(), Diag> {
        let x = ramp(&[1, 2, 2], 1.0, 1.0)?;
        let w = Tensor::f32s(&[4, 1, 1], &[1.0, 2.0, 3.0, 4.0])?;
        let y =
            eval_op(conv(&[1], &[1], &[0, 0], AutoPad::Explicit, 2), &[Some(x.clone()), Some(w.clone())])?;
        assert_eq!(y[0].to_f64(), [1.0, 2.0, 2.0, 4.0, 9.0, 12.0, 12.0, 16.0]);
        let bad = conv(&[1], &[1], &[0, 0], AutoPad::Explicit, 3);
        assert_eq!(eval_op(bad, &[Some(x), Some(w)]).map_err(|d| d.id), Err("shape-mismatch"));
        Ok(())
    }
}
