//! Interpolation at given places, written out in gathers: grids and deformable convolution.

use super::Made;
use super::sizes::{Size, reshape_like, size_vector};
use crate::import::table::{Entry, onnx};
use crate::import::{ImportCx, OnnxNode};
use planish_ir::op::binary::BinaryKind::{
    Add, And, Div, Fmod, GreaterEqual, Less, LessEqual, Max, Min, Mod, Mul, Sub,
};
use planish_ir::op::concat::Concat;
use planish_ir::op::conv::Conv;
use planish_ir::op::gather::{Gather, GatherElements};
use planish_ir::op::generate::Range;
use planish_ir::op::matmul::MatMul;
use planish_ir::op::reshape::Reshape;
use planish_ir::op::unary::UnaryKind;
use planish_ir::op::views::{Expand, Shape, Unsqueeze};
use planish_ir::op::window::AutoPad;
use planish_ir::{DType, Diag, Tensor, ValueId};

pub(super) const OPS: &[Entry] =
    &[onnx("AffineGrid", affine_grid), onnx("DeformConv", deform_conv), onnx("GridSample", grid_sample)];

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Linear,
    Nearest,
    Cubic,
}

#[derive(Clone, Copy, PartialEq)]
enum Outside {
    Zeros,
    Border,
    Reflection,
}

/// How planes [B, C, S] are sampled, S being the product of the sizes of the axes.
struct Sampler {
    mode: Mode,
    outside: Outside,
    align: bool,
    /// Type of places and weights.
    wide: DType,
    /// Sizes of the axes as i64 [1].
    sizes: Vec<ValueId>,
    /// The same as floats.
    extents: Vec<ValueId>,
}

/// The element of a neighbour on one axis (i64 [B, P]) and its weight (floats [B, P]).
struct Tap {
    index: ValueId,
    weight: Option<ValueId>,
    inside: Option<ValueId>,
}

impl Sampler {
    fn number(&self, cx: &mut ImportCx<'_, '_>, v: f64) -> Result<ValueId, Diag> {
        cx.const_scalar(self.wide, v)
    }
    /// The lowest place on an axis, and how far it is to the highest.
    fn range(&self, cx: &mut ImportCx<'_, '_>, axis: usize) -> Result<(ValueId, ValueId), Diag> {
        if self.align {
            let one = self.number(cx, 1.0)?;
            return Ok((self.number(cx, 0.0)?, cx.binary(Sub, self.extents[axis], one)?));
        }
        Ok((self.number(cx, -0.5)?, self.extents[axis]))
    }
    /// Places beyond the ends of an axis mirrored there.
    fn reflect(&self, cx: &mut ImportCx<'_, '_>, axis: usize, x: ValueId) -> Result<ValueId, Diag> {
        let (low, span) = self.range(cx, axis)?;
        let two = self.number(cx, 2.0)?;
        let period = cx.binary(Mul, span, two)?;
        let from = cx.binary(Sub, x, low)?;
        let from = cx.unary(UnaryKind::Abs, from)?;
        let from = cx.binary(Fmod, from, period)?;
        let back = cx.binary(Sub, period, from)?;
        let nearer = cx.binary(Min, from, back)?;
        cx.binary(Add, low, nearer)
    }
    /// A place in pixels brought into the axis as the mode asks.
    fn bring(&self, cx: &mut ImportCx<'_, '_>, axis: usize, x: ValueId) -> Result<ValueId, Diag> {
        let x = if self.mode == Mode::Nearest { cx.unary(UnaryKind::Round, x)? } else { x };
        if self.outside == Outside::Zeros {
            return Ok(x);
        }
        let (low, span) = self.range(cx, axis)?;
        let high = cx.binary(Add, low, span)?;
        let (above, below) = (cx.binary(GreaterEqual, x, low)?, cx.binary(LessEqual, x, high)?);
        let within = cx.binary(And, above, below)?;
        let moved = if self.outside == Outside::Border {
            let (zero, one) = (self.number(cx, 0.0)?, self.number(cx, 1.0)?);
            let top = cx.binary(Sub, self.extents[axis], one)?;
            let x = cx.binary(Min, x, top)?;
            cx.binary(Max, x, zero)?
        } else {
            self.reflect(cx, axis, x)?
        };
        cx.select(within, x, moved)
    }
    fn taps(&self, cx: &mut ImportCx<'_, '_>, axis: usize, x: ValueId) -> Result<Vec<Tap>, Diag> {
        let x = self.bring(cx, axis, x)?;
        let base = cx.unary(UnaryKind::Floor, x)?;
        let t = cx.binary(Sub, x, base)?;
        let offsets: &[f64] = match self.mode {
            Mode::Nearest => &[0.0],
            Mode::Linear => &[0.0, 1.0],
            Mode::Cubic => &[-1.0, 0.0, 1.0, 2.0],
        };
        let mut out = Vec::new();
        for o in offsets {
            let weight = self.weight(cx, t, *o)?;
            let offset = self.number(cx, *o)?;
            let mut at = cx.binary(Add, base, offset)?;
            let mut inside = None;
            match self.outside {
                Outside::Zeros => {
                    let zero = self.number(cx, 0.0)?;
                    let (above, below) =
                        (cx.binary(GreaterEqual, at, zero)?, cx.binary(Less, at, self.extents[axis])?);
                    inside = Some(cx.binary(And, above, below)?);
                }
                Outside::Border => {}
                Outside::Reflection => at = self.reflect(cx, axis, at)?,
            }
            // No index may leave the axis, whatever the place is.
            let index = cx.cast(at, DType::I64)?;
            let (zero, one) = (cx.const_i64s(&[0])?, cx.const_i64s(&[1])?);
            let top = cx.binary(Sub, self.sizes[axis], one)?;
            let index = cx.binary(Min, index, top)?;
            let index = cx.binary(Max, index, zero)?;
            out.push(Tap { index, weight, inside });
        }
        Ok(out)
    }
    /// The weight of the neighbour at `offset` for the fraction `t`; none is 1.
    fn weight(&self, cx: &mut ImportCx<'_, '_>, t: ValueId, offset: f64) -> Result<Option<ValueId>, Diag> {
        let one = self.number(cx, 1.0)?;
        Ok(match self.mode {
            Mode::Nearest => None,
            Mode::Linear if offset == 0.0 => Some(cx.binary(Sub, one, t)?),
            Mode::Linear => Some(t),
            Mode::Cubic => {
                let a = -0.75;
                let offset = self.number(cx, offset)?;
                let d = cx.binary(Sub, t, offset)?;
                let d = cx.unary(UnaryKind::Abs, d)?;
                // Horner's rule with the coefficients of distances up to 1, or from 1 to 2.
                let mut parts = Vec::new();
                for c in [[a + 2.0, -(a + 3.0), 0.0, 1.0], [a, -5.0 * a, 8.0 * a, -4.0 * a]] {
                    let mut sum = self.number(cx, c[0])?;
                    for c in &c[1..] {
                        let c = self.number(cx, *c)?;
                        let product = cx.binary(Mul, sum, d)?;
                        sum = cx.binary(Add, product, c)?;
                    }
                    parts.push(sum);
                }
                let near = cx.binary(LessEqual, d, one)?;
                Some(cx.select(near, parts[0], parts[1])?)
            }
        })
    }
    /// Samples [B, C, P] of the planes at places [B, P], one tensor for each axis.
    fn run(&self, cx: &mut ImportCx<'_, '_>, planes: ValueId, places: &[ValueId]) -> Result<ValueId, Diag> {
        let mut combined = vec![Tap { index: cx.const_i64s(&[0])?, weight: None, inside: None }];
        for (axis, x) in places.iter().enumerate() {
            let taps = self.taps(cx, axis, *x)?;
            let mut next = Vec::new();
            for c in &combined {
                for t in &taps {
                    let index = cx.binary(Mul, c.index, self.sizes[axis])?;
                    let index = cx.binary(Add, index, t.index)?;
                    let weight = join(cx, Mul, c.weight, t.weight)?;
                    next.push(Tap { index, weight, inside: join(cx, And, c.inside, t.inside)? });
                }
            }
            combined = next;
        }
        let b_c = size_vector(cx, planes, &[Size::Axis(0), Size::Axis(1)])?;
        let points = size_vector(cx, places[0], &[Size::Axis(1)])?;
        let shape = cx.op(Concat { axis: 0 }, &[b_c, points])?;
        let mut sum = None;
        for tap in combined {
            let index = cx.op(Unsqueeze { axes: vec![1] }, &[tap.index])?;
            let index = cx.op(Expand {}, &[index, shape])?;
            let mut v = cx.op(GatherElements { axis: 2 }, &[planes, index])?;
            if let Some(w) = tap.weight {
                let w = cx.op(Unsqueeze { axes: vec![1] }, &[w])?;
                v = cx.binary(Mul, v, w)?;
            }
            if let Some(inside) = tap.inside {
                let inside = cx.op(Unsqueeze { axes: vec![1] }, &[inside])?;
                let zero = self.number(cx, 0.0)?;
                v = cx.select(inside, v, zero)?;
            }
            sum = join(cx, Add, sum, Some(v))?;
        }
        sum.ok_or_else(|| Diag::error("internal-import", "nothing to sample"))
    }
}

/// Both joined, or the one that there is.
fn join(
    cx: &mut ImportCx<'_, '_>,
    kind: planish_ir::op::binary::BinaryKind,
    a: Option<ValueId>,
    b: Option<ValueId>,
) -> Result<Option<ValueId>, Diag> {
    match (a, b) {
        (Some(a), Some(b)) => cx.binary(kind, a, b).map(Some),
        (a, b) => Ok(a.or(b)),
    }
}

/// Sizes of the spatial axes of `x`, as i64 and as floats.
fn extents(
    cx: &mut ImportCx<'_, '_>,
    x: ValueId,
    rank: usize,
    wide: DType,
) -> Result<(Vec<ValueId>, Vec<ValueId>), Diag> {
    let (mut sizes, mut floats) = (Vec::new(), Vec::new());
    for a in 2..rank {
        let size = size_vector(cx, x, &[Size::Axis(a)])?;
        sizes.push(size);
        floats.push(cx.cast(size, wide)?);
    }
    Ok((sizes, floats))
}

fn wide_of(d: DType) -> DType {
    if d == DType::F64 { DType::F64 } else { DType::F32 }
}

fn grid_sample(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let (x, grid) = (node.input(0)?, node.input(1)?);
    let rank = cx.rank(x)?;
    if !(3..=5).contains(&rank) || cx.rank(grid)? != rank {
        return Err(
            node.error("shape-mismatch", "an input of rank 3 to 5 and a grid of the same rank are needed")
        );
    }
    let mode = node.choice("mode", 0, &["linear", "nearest", "cubic", "bilinear", "bicubic"])?;
    let outside = node.choice("padding_mode", 0, &["zeros", "border", "reflection"])?;
    let dtype = cx.dtype(x)?;
    let wide = wide_of(dtype);
    let (sizes, extents) = extents(cx, x, rank, wide)?;
    let sampler = Sampler {
        mode: [Mode::Linear, Mode::Nearest, Mode::Cubic, Mode::Linear, Mode::Cubic][mode],
        outside: [Outside::Zeros, Outside::Border, Outside::Reflection][outside],
        align: node.flag("align_corners", false)?,
        wide,
        sizes,
        extents,
    };
    let planes = reshape_like(cx, x, x, &[Size::Axis(0), Size::Axis(1), Size::Rest])?;
    let planes = cx.cast(planes, wide)?;
    let grid_wide = cx.cast(grid, wide)?;
    let axes = rank - 2;
    let mut places = Vec::new();
    for axis in 0..axes {
        // The last coordinate of the grid belongs to the first axis.
        let k = cx.constant(Tensor::scalar_i64((axes - 1 - axis) as i64))?;
        let n = cx.op(Gather { axis: rank - 1 }, &[grid_wide, k])?;
        let n = cx.reshape(n, &[0, -1])?;
        let (one, half) = (sampler.number(cx, 1.0)?, sampler.number(cx, 0.5)?);
        let n = cx.binary(Add, n, one)?;
        let place = if sampler.align {
            let n = cx.binary(Mul, n, half)?;
            let top = cx.binary(Sub, sampler.extents[axis], one)?;
            cx.binary(Mul, n, top)?
        } else {
            let n = cx.binary(Mul, n, sampler.extents[axis])?;
            let n = cx.binary(Sub, n, one)?;
            cx.binary(Mul, n, half)?
        };
        places.push(place);
    }
    let y = sampler.run(cx, planes, &places)?;
    let y = cx.cast(y, dtype)?;
    let first = size_vector(cx, x, &[Size::Axis(0), Size::Axis(1)])?;
    let rest: Vec<Size> = (1..=axes).map(Size::Axis).collect();
    let rest = size_vector(cx, grid, &rest)?;
    let shape = cx.op(Concat { axis: 0 }, &[first, rest])?;
    Ok(vec![cx.op(Reshape { allow_zero: true }, &[y, shape])?])
}

/// 0, 1, ... up to `count` (i64 [1]) as floats.
fn counting(cx: &mut ImportCx<'_, '_>, count: ValueId, wide: DType) -> Result<ValueId, Diag> {
    let (zero, one) = (cx.constant(Tensor::scalar_i64(0))?, cx.constant(Tensor::scalar_i64(1))?);
    let end = cx.reshape(count, &[])?;
    let steps = cx.op(Range {}, &[zero, end, one])?;
    cx.cast(steps, wide)
}

/// Places in [-1, 1] of all pixels of an image, transformed by `theta`.
fn affine_grid(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let (theta, size) = (node.input(0)?, node.input(1)?);
    let align = node.flag("align_corners", false)?;
    let dtype = cx.dtype(theta)?;
    let axes = match cx.dims(size)?.first().and_then(|d| d.as_const()) {
        Some(n @ 4..=5) => n as usize - 2,
        _ => return Err(node.unsupported("a size of other than four or five dims")),
    };
    let theta = cx.cast(theta, wide_of(dtype))?;
    let wide = wide_of(dtype);
    // Coordinates along each axis, which broadcast over the image; the last axis comes first.
    let mut parts = Vec::new();
    for axis in (0..axes).rev() {
        let k = cx.const_i64s(&[axis as i64 + 2])?;
        let count = cx.op(Gather { axis: 0 }, &[size, k])?;
        let i = counting(cx, count, wide)?;
        let n = cx.cast(count, wide)?;
        let (one, two) = (cx.const_scalar(wide, 1.0)?, cx.const_scalar(wide, 2.0)?);
        let i = cx.binary(Mul, i, two)?;
        let place = if align {
            let top = cx.binary(Sub, n, one)?;
            cx.binary(Div, i, top)?
        } else {
            let i = cx.binary(Add, i, one)?;
            cx.binary(Div, i, n)?
        };
        let place = cx.binary(Sub, place, one)?;
        let mut spec = vec![1; axes];
        spec[axis] = -1;
        parts.push(cx.reshape(place, &spec)?);
    }
    parts.push(cx.const_scalar(wide, 1.0)?);
    let ends: Vec<i64> = (2..axes as i64 + 2).collect();
    let ends = cx.const_i64s(&ends)?;
    let image = cx.op(Gather { axis: 0 }, &[size, ends])?;
    let mut columns = Vec::new();
    for p in parts {
        let full = cx.op(Expand {}, &[p, image])?;
        columns.push(cx.reshape(full, &[-1, 1])?);
    }
    let base = cx.op(Concat { axis: 1 }, &columns)?;
    let grid = cx.op(MatMul { trans_a: false, trans_b: true }, &[base, theta])?;
    let batch = size_vector(cx, theta, &[Size::Axis(0)])?;
    let last = cx.const_i64s(&[axes as i64])?;
    let shape = cx.op(Concat { axis: 0 }, &[batch, image, last])?;
    let grid = cx.op(Reshape { allow_zero: true }, &[grid, shape])?;
    Ok(vec![cx.cast(grid, dtype)?])
}

/// Samples of all elements of all windows, then a convolution over them with windows of size 1.
fn deform_conv(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let (x, w, offset) = (node.input(0)?, node.input(1)?, node.input(2)?);
    let dims = cx.dims(w)?;
    if cx.rank(x)? != 4 || dims.len() != 4 || cx.rank(offset)? != 4 {
        return Err(node.unsupported("other than two spatial axes"));
    }
    let known = |i: usize| dims[i].as_const().filter(|v| (1..=1 << 20).contains(v));
    let (Some(kh), Some(kw)) = (known(2), known(3)) else {
        return Err(node.unsupported("weights of unknown size"));
    };
    let range = 1..=i64::from(i32::MAX);
    let pair = |name: &str, n: usize, default: i64, range| -> Result<Vec<i64>, Diag> {
        let v = node.ints_in(name, range)?.map_or_else(|| vec![default; n], <[i64]>::to_vec);
        if v.len() == n {
            Ok(v)
        } else {
            Err(node.error("attribute-range", format!("{name:?} has {} entries", v.len())))
        }
    };
    let strides = pair("strides", 2, 1, range.clone())?;
    let dilations = pair("dilations", 2, 1, range.clone())?;
    let pads = pair("pads", 4, 0, 0..=i64::from(i32::MAX))?;
    node.ignore(&["kernel_shape"]);
    let groups = node.int_in("group", 1, range.clone())?;
    let offset_groups = node.int_in("offset_group", 1, range)?;
    let k = kh.saturating_mul(kw);
    let dtype = cx.dtype(x)?;
    let wide = wide_of(dtype);
    let (sizes, extents) = extents(cx, x, 4, wide)?;
    let sampler = Sampler { mode: Mode::Linear, outside: Outside::Zeros, align: false, wide, sizes, extents };
    let og = offset_groups;
    let planes = reshape_like(cx, x, x, &[Size::Times(0, og), Size::Over(1, og), Size::Rest])?;
    let planes = cx.cast(planes, wide)?;
    let moves =
        reshape_like(cx, offset, offset, &[Size::Times(0, og), Size::Known(k), Size::Known(2), Size::Rest])?;
    let moves = cx.cast(moves, wide)?;
    // Number of each position, and from it row and column.
    let height = cx.op(Shape { start: 2, end: Some(3) }, &[offset])?;
    let width = cx.op(Shape { start: 3, end: Some(4) }, &[offset])?;
    let count = cx.binary(Mul, height, width)?;
    let number = counting(cx, count, DType::I64)?;
    let spots = [cx.binary(Div, number, width)?, cx.binary(Mod, number, width)?];
    let mut places = Vec::new();
    for (axis, spot) in spots.into_iter().enumerate() {
        let step = cx.const_i64s(&[strides[axis]])?;
        let spot = cx.binary(Mul, spot, step)?;
        let element = |e: i64| if axis == 0 { e / kw } else { e % kw };
        let starts: Vec<i64> =
            (0..k).map(|e| element(e).saturating_mul(dilations[axis]) - pads[axis]).collect();
        let starts = cx.const_i64s(&starts)?;
        let starts = cx.reshape(starts, &[-1, 1])?;
        let place = cx.binary(Add, spot, starts)?;
        let place = cx.cast(place, wide)?;
        let which = cx.constant(Tensor::scalar_i64(axis as i64))?;
        let moved = cx.op(Gather { axis: 2 }, &[moves, which])?;
        let place = cx.binary(Add, place, moved)?;
        places.push(reshape_like(cx, place, place, &[Size::Axis(0), Size::Rest])?);
    }
    let mut columns = sampler.run(cx, planes, &places)?;
    if let Some(mask) = node.opt(4) {
        let mask = reshape_like(cx, mask, mask, &[Size::Times(0, og), Size::Known(1), Size::Rest])?;
        let mask = cx.cast(mask, wide)?;
        columns = cx.binary(Mul, columns, mask)?;
    }
    let columns = cx.cast(columns, dtype)?;
    let first = size_vector(cx, x, &[Size::Axis(0), Size::Times(1, k)])?;
    let rest = size_vector(cx, offset, &[Size::Axis(2), Size::Axis(3)])?;
    let shape = cx.op(Concat { axis: 0 }, &[first, rest])?;
    let columns = cx.op(Reshape { allow_zero: true }, &[columns, shape])?;
    let w = reshape_like(cx, w, w, &[Size::Axis(0), Size::Times(1, k), Size::Known(1), Size::Known(1)])?;
    let conv = Conv {
        strides: vec![1, 1],
        dilations: vec![1, 1],
        pads: vec![0; 4],
        auto_pad: AutoPad::Explicit,
        groups,
    };
    cx.op_many(conv, &[Some(columns), Some(w), node.opt(3)])
}
