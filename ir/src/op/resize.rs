//! Resampling of axes.

use crate::diag::Diag;
use crate::dim::Dim;
use crate::dtype::DType;
use crate::graph::{Fact, ValueId};
use crate::op::binary::BinaryKind;
use crate::op::conv::{expect_dim, expect_vector, is_number};
use crate::op::gradient::GradCx;
use crate::op::{EvalCx, InferCx, OpDef};
use crate::tensor::{Elems, Tensor, Value, elem_count};
use crate::types::Type;

pub mod taps;
pub use taps::{ResizeAxis, Taps, axis_taps};

crate::attr_enum! {
    /// How new elements follow from old ones.
    ResizeMode {
        /// One neighbour.
        Nearest = "nearest",
        /// Two neighbours per axis.
        Linear = "linear",
        /// Four neighbours per axis.
        Cubic = "cubic",
    }
}

crate::attr_enum! {
    /// How the place of a new element on an axis follows from its index `i`, with `scale = new / old`.
    ResizeTransform {
        /// (i + 0.5) / scale - 0.5.
        HalfPixel = "half-pixel",
        /// As `half-pixel`, about the centre of the axis when the new size was rounded.
        HalfPixelSymmetric = "half-pixel-symmetric",
        /// As `half-pixel`, but 0 when the new size is 1.
        PytorchHalfPixel = "pytorch-half-pixel",
        /// i (old - 1) / (new - 1).
        AlignCorners = "align-corners",
        /// i / scale.
        Asymmetric = "asymmetric",
        /// Between the bounds of a region of interest, relative to `old - 1`.
        CropAndResize = "crop-and-resize",
    }
}

crate::attr_enum! {
    /// Which neighbour is the nearest.
    ResizeNearest {
        /// A half goes down.
        RoundPreferFloor = "round-prefer-floor",
        /// A half goes up.
        RoundPreferCeil = "round-prefer-ceil",
        /// The lower one.
        Floor = "floor",
        /// The upper one.
        Ceil = "ceil",
    }
}

crate::attr_enum! {
    /// What `sizes` mean.
    ResizePolicy {
        /// The new sizes.
        Stretch = "stretch",
        /// Bounds from above; all axes get one scale.
        NotLarger = "not-larger",
        /// Bounds from below; all axes get one scale.
        NotSmaller = "not-smaller",
    }
}

crate::op_struct! {
    /// Resampling of some axes (ONNX Resize), one after the other. Operands: `x`, then optionally regions of interest (floats: all beginnings, all ends), scales (f32) and sizes (i64), all in the order of `axes`; exactly one of scales and sizes is given. A new size is `floor(old * scale)`.
    Resize {
        /// How new elements follow from old ones.
        mode: ResizeMode,
        /// How places follow from indices.
        transform: ResizeTransform,
        /// Which neighbour is the nearest.
        nearest: ResizeNearest,
        /// The parameter of the cubic kernel.
        cubic_a: f64,
        /// Whether neighbours outside of the axis weigh nothing; else they repeat the edge.
        exclude_outside: bool,
        /// The value outside of the axis with `crop-and-resize`.
        extrapolation: f64,
        /// Whether the kernel is stretched when shrinking.
        antialias: bool,
        /// Which axes, in the order of the other operands.
        axes: Vec<usize>,
        /// What sizes mean.
        policy: ResizePolicy,
    }
}

/// `floor(n * scale)` for a dim that is not a number, if the scale is a fraction with a small denominator.
fn scaled(n: &Dim, scale: f32) -> Option<Dim> {
    for q in 1..=1024i64 {
        let p = (f64::from(scale) * q as f64).round();
        if (p / q as f64) as f32 == scale && p.abs() < 1e9 {
            return Some(n.mul(&(p as i64).into()).floor_div(&q.into()));
        }
    }
    None
}

/// `floor(n * scale)` in f32, as exporters compute it.
fn scaled_size(n: usize, scale: f64) -> Result<usize, Diag> {
    let size = (n as f32 * scale as f32).floor();
    if !(0.0..=1e12).contains(&size) {
        return Err(Diag::error("field-range", format!("an axis of {n} scaled by {scale}")));
    }
    Ok(size as usize)
}

/// What elements made by taps along an axis give back to the `old` elements that made them.
fn transposed(
    cx: &mut GradCx<'_, '_>,
    dy: ValueId,
    axis: usize,
    (taps, old): (&[&[(usize, f64)]], usize),
) -> Result<ValueId, Diag> {
    /// The most elements of a matrix that stands for taps.
    const DENSE: usize = 1 << 22;
    let (new, dtype) = (taps.len(), cx.dtype(dy)?);
    if old.saturating_mul(new) <= DENSE {
        let mut matrix = vec![0.0; old * new];
        for (i, taps) in taps.iter().enumerate() {
            taps.iter().for_each(|(from, w)| matrix[i * old + from] += w);
        }
        return cx.along(dy, axis, Tensor::floats(dtype, &[new, old], matrix)?);
    }
    let rank = cx.dims(dy)?.len();
    let mut sum = None;
    for k in 0..taps.iter().map(|t| t.len()).max().unwrap_or(0) {
        let tap = |t: &&[(usize, f64)]| t.get(k).copied().unwrap_or((0, 0.0));
        let places: Vec<i64> = taps.iter().map(|t| tap(t).0 as i64).collect();
        let weights: Vec<f64> = taps.iter().map(|t| tap(t).1).collect();
        let weights = cx.ed.constant(Tensor::floats(dtype, &[new], weights)?)?;
        let others: Vec<usize> = (0..rank).filter(|a| *a != axis).collect();
        let weights = cx.unsqueeze(weights, &others)?;
        let part = cx.mul(dy, weights)?;
        let part = cx.scatter_axis(part, axis, &places, old as i64)?;
        sum = Some(match sum {
            Some(sum) => cx.binary(BinaryKind::Add, sum, part)?,
            None => part,
        });
    }
    sum.ok_or_else(|| cx.no_rule("without elements"))
}

impl Resize {
    fn check(&self, rank: usize) -> Result<(), Diag> {
        let mut seen = vec![false; rank];
        for a in &self.axes {
            match seen.get_mut(*a) {
                Some(s) if !*s => *s = true,
                _ => {
                    return Err(Diag::error(
                        "axis-out-of-range",
                        format!("axes {:?} of rank {rank}", self.axes),
                    ));
                }
            }
        }
        if self.antialias && self.mode == ResizeMode::Nearest {
            return Err(Diag::error("field-range", "the nearest element cannot be anti-aliased"));
        }
        Ok(())
    }
    /// The resampled axes of a node whose result or its gradient is `y`.
    fn known_axes(
        &self,
        cx: &GradCx<'_, '_>,
        y: ValueId,
        x: ValueId,
    ) -> Result<Vec<(usize, ResizeAxis)>, Diag> {
        let unknown = || cx.no_rule("along an axis whose size is not fixed");
        let sizes = |v: ValueId| -> Result<Vec<usize>, Diag> {
            let dims = cx.dims(v)?;
            let size = |a: &usize| dims[*a].as_const().and_then(|n| usize::try_from(n).ok());
            self.axes.iter().map(size).collect::<Option<_>>().ok_or_else(unknown)
        };
        let floats = |i: usize| -> Result<Option<Vec<f64>>, Diag> {
            let Some(v) = cx.inputs().get(i).copied().flatten() else { return Ok(None) };
            let known = cx
                .ed
                .graph()
                .as_const(v)
                .ok_or_else(|| cx.no_rule("with regions and scales that are computed"))?;
            Ok(Some(known.1.decode()?.to_f64()))
        };
        let (old, new) = (sizes(x)?, sizes(y)?);
        let n = old.len();
        let scales = match (floats(2)?, floats(3)?) {
            (Some(scales), _) => scales,
            (None, Some(sizes)) => {
                self.from_sizes(&old, &sizes.iter().map(|v| *v as i64).collect::<Vec<_>>())?.1
            }
            (None, None) => {
                return Err(Diag::error("arity", "exactly one of scales and sizes must be given"));
            }
        };
        let roi = floats(1)?.unwrap_or_else(|| [vec![0.0; n], vec![1.0; n]].concat());
        let axis = |k: usize| {
            let roi = (roi[k], roi[k + n]);
            (self.axes[k], ResizeAxis { old: old[k], new: new[k], scale: scales[k], roi })
        };
        Ok((0..n).map(axis).collect())
    }
    /// New sizes and scales of `axes` for old sizes, from `sizes` under the policy.
    pub fn from_sizes(&self, old: &[usize], sizes: &[i64]) -> Result<(Vec<usize>, Vec<f64>), Diag> {
        if !sizes.iter().all(|s| (0..=1 << 40).contains(s)) || sizes.len() != old.len() {
            return Err(Diag::error("field-range", format!("new sizes {sizes:?} for {} axes", old.len())));
        }
        let ratio = |(s, o): (&i64, &usize)| *s as f64 / *o as f64;
        let scales: Vec<f64> = sizes.iter().zip(old).map(ratio).collect();
        let one = match self.policy {
            ResizePolicy::Stretch => return Ok((sizes.iter().map(|s| *s as usize).collect(), scales)),
            ResizePolicy::NotLarger => scales.iter().copied().fold(f64::INFINITY, f64::min),
            ResizePolicy::NotSmaller => scales.iter().copied().fold(0.0, f64::max),
        };
        let one = if one.is_finite() { one } else { 0.0 };
        Ok((old.iter().map(|o| (one * *o as f64 + 0.5) as usize).collect(), vec![one; old.len()]))
    }
}

impl OpDef for Resize {
    const NAME: &'static str = "resize";
    const INPUTS: (usize, usize) = (1, 4);
    fn infer(&self, cx: &mut InferCx<'_>) -> Result<Vec<Fact>, Diag> {
        let dtype = cx.expect_dtype(0, |d| is_number(d) || d.is_int(), "a number")?;
        let mut shape = cx.dims(0)?.to_vec();
        self.check(shape.len())?;
        if cx.has(2) == cx.has(3) {
            return Err(Diag::error("arity", "exactly one of scales and sizes must be given"));
        }
        let n = Dim::from(self.axes.len());
        if cx.has(1) {
            cx.expect_dtype(1, |d| d.is_float(), "a float")?;
            expect_vector(cx, 1, &n.mul(&2.into()), "the number of bounds")?;
        } else if self.transform == ResizeTransform::CropAndResize {
            return Err(Diag::error("arity", "crop-and-resize needs a region of interest"));
        }
        let old: Vec<Dim> = self.axes.iter().map(|a| shape[*a].clone()).collect();
        let known: Option<Vec<usize>> =
            old.iter().map(|d| d.as_const().and_then(|v| usize::try_from(v).ok())).collect();
        let mut new: Vec<Option<Dim>> = vec![None; old.len()];
        if cx.has(2) {
            cx.expect_dtype(2, |d| d == DType::F32, "f32")?;
            expect_vector(cx, 2, &n, "the number of scales")?;
            if let Some(scales) = cx.const_tensor(2, 64) {
                for ((to, from), s) in new.iter_mut().zip(&old).zip(scales.to_f64()) {
                    if !(s > 0.0 && s.is_finite()) {
                        return Err(Diag::error("field-range", format!("an axis cannot be scaled by {s}")));
                    }
                    *to = match from.as_const().and_then(|v| usize::try_from(v).ok()) {
                        Some(v) => Some(scaled_size(v, s)?.into()),
                        None => scaled(from, s as f32),
                    };
                }
            }
        } else {
            cx.expect_dtype(3, |d| d == DType::I64, "i64")?;
            expect_vector(cx, 3, &n, "the number of sizes")?;
            match (self.policy, cx.ints(3)) {
                (ResizePolicy::Stretch, Some(sizes)) if sizes.len() == old.len() => {
                    if sizes.iter().any(|s| s.as_const().is_some_and(|v| v < 0)) {
                        return Err(Diag::error("field-range", "a size is negative"));
                    }
                    new = sizes.into_iter().map(Some).collect();
                }
                (_, Some(sizes)) => {
                    let sizes: Option<Vec<i64>> = sizes.iter().map(Dim::as_const).collect();
                    if let (Some(sizes), Some(known)) = (sizes, &known) {
                        let sizes = self.from_sizes(known, &sizes)?.0;
                        new = sizes.into_iter().map(|s| Some(s.into())).collect();
                    }
                }
                _ => {}
            }
        }
        for (a, d) in self.axes.iter().zip(new) {
            shape[*a] = d.unwrap_or_else(|| cx.fresh(0, *a, 0, None));
        }
        Ok(vec![Type::tensor(dtype, shape).into()])
    }
    fn gradient(&self, cx: &mut GradCx<'_, '_>) -> Result<(), Diag> {
        let (mut dy, x) = (cx.only_seed()?, cx.input(0)?);
        if cx.wants(1) || cx.wants(2) {
            return Err(cx.no_rule("with respect to regions and scales"));
        }
        for (axis, place) in self.known_axes(cx, dy, x)?.into_iter().rev() {
            if place.is_identity() {
                continue;
            }
            let taps = axis_taps(self, &place)?;
            let taps: Vec<&[(usize, f64)]> =
                taps.iter().map(|t| if t.outside { &[] } else { t.weights.as_slice() }).collect();
            dy = transposed(cx, dy, axis, (&taps, place.old))?;
        }
        cx.give(0, dy)
    }
    fn eval(&self, cx: &mut EvalCx<'_>) -> Result<Vec<Value>, Diag> {
        let x = cx.tensor(0)?;
        let mut shape = x.shape().to_vec();
        self.check(shape.len())?;
        let old: Vec<usize> = self.axes.iter().map(|a| shape[*a]).collect();
        let (new, scales) = match cx.opt_tensor(3)? {
            Some(s) => self.from_sizes(&old, &s.to_i64()?)?,
            None => {
                let scales = cx.tensor(2)?.to_f64();
                expect_dim(&scales.len().into(), &old.len().into(), "the number of scales")?;
                let new = old.iter().zip(&scales).map(|(o, s)| scaled_size(*o, *s));
                (new.collect::<Result<Vec<_>, _>>()?, scales)
            }
        };
        let n = old.len();
        let roi = match cx.opt_tensor(1)? {
            Some(r) if r.len() == 2 * n => r.to_f64(),
            Some(_) => return Err(Diag::error("shape-mismatch", "an axis needs two bounds")),
            None => [vec![0.0; n], vec![1.0; n]].concat(),
        };
        let mut v = x.to_f64();
        for (k, a) in self.axes.iter().enumerate() {
            let axis = ResizeAxis { old: old[k], new: new[k], scale: scales[k], roi: (roi[k], roi[k + n]) };
            if axis.is_identity() {
                continue;
            }
            let mut to = shape.clone();
            to[*a] = new[k];
            let mut out = Vec::with_capacity(elem_count(&to)?);
            if old[k] == 0 && !to.contains(&0) {
                return Err(Diag::error("shape-mismatch", "an axis of size 0 cannot be resampled"));
            }
            let inner: usize = shape[a + 1..].iter().product();
            let taps = axis_taps(self, &axis)?;
            for block in v.chunks_exact((old[k] * inner).max(1)) {
                for t in &taps {
                    for i in 0..inner {
                        let sum = t.weights.iter().map(|(from, w)| block[from * inner + i] * w).sum();
                        out.push(if t.outside { self.extrapolation } else { sum });
                    }
                }
            }
            (v, shape) = (out, to);
        }
        let elems = match x.dtype().int_range() {
            None => Elems::F(v),
            Some((lo, hi)) => {
                let saturate = |x: f64| (x.trunc() as i128).clamp(lo, hi);
                Elems::I(if self.axes.is_empty() {
                    return Ok(vec![x.clone().into()]);
                } else {
                    v.into_iter().map(saturate).collect()
                })
            }
        };
        Ok(vec![Tensor::from_elems(x.dtype(), shape, elems)?.into()])
    }
}

#[cfg(test)]
mod tests;
