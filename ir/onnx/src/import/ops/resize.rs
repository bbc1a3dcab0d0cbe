//! Resampling.

use super::Made;
use crate::import::table::{Entry, onnx};
use crate::import::{ImportCx, OnnxNode};
use planish_ir::op::resize::{Resize, ResizeMode, ResizeNearest, ResizePolicy, ResizeTransform};
use planish_ir::{DType, Diag, Tensor, ValueId};

pub(super) const OPS: &[Entry] = &[onnx("Resize", resize), onnx("Upsample", upsample)];

/// What `sizes` or `scales` of a node come to.
struct Operands {
    roi: Option<ValueId>,
    scales: Option<ValueId>,
    sizes: Option<ValueId>,
}

/// An operand that is given and not empty.
fn filled(cx: &ImportCx<'_, '_>, node: &OnnxNode<'_>, i: usize) -> Result<Option<ValueId>, Diag> {
    let Some(v) = node.opt(i) else { return Ok(None) };
    Ok(if cx.dims(v)?.iter().any(|d| d.is(0)) { None } else { Some(v) })
}

/// The node, without the axes that keep their size.
fn build(cx: &mut ImportCx<'_, '_>, x: ValueId, mut op: Resize, mut o: Operands) -> Made {
    let dims = cx.dims(x)?;
    let crop = op.transform == ResizeTransform::CropAndResize;
    if !crop {
        o.roi = None;
    }
    if !crop && op.policy == ResizePolicy::Stretch {
        let stays: Option<Vec<bool>> = if let Some(s) = o.scales {
            cx.const_tensor(s, 64).map(|t| t.to_f64().iter().map(|s| *s == 1.0).collect())
        } else {
            o.sizes
                .and_then(|s| cx.ints_of(s))
                .map(|sizes| sizes.iter().zip(&op.axes).map(|(s, a)| dims.get(*a) == Some(s)).collect())
        };
        if let Some(stays) = stays
            && stays.len() == op.axes.len()
            && stays.contains(&true)
        {
            let kept: Vec<usize> = (0..stays.len()).filter(|i| !stays[*i]).collect();
            if kept.is_empty() {
                return Ok(vec![x]);
            }
            let axes: Vec<usize> = kept.iter().map(|i| op.axes[*i]).collect();
            if let Some(t) = o.scales.and_then(|s| cx.const_tensor(s, 64)) {
                let t = Tensor::floats(DType::F32, &[kept.len()], t.to_f64().pick(&kept))?;
                (o.scales, op.axes) = (Some(cx.constant(t)?), axes);
            } else if let Some(v) = o.sizes.and_then(|s| cx.const_ints(s)) {
                (o.sizes, op.axes) = (Some(cx.const_i64s(&v.pick(&kept))?), axes);
            }
        }
    }
    cx.op_many(op, &[Some(x), o.roi, o.scales, o.sizes])
}

trait Pick<T> {
    fn pick(&self, at: &[usize]) -> Vec<T>;
}

impl<T: Copy> Pick<T> for Vec<T> {
    fn pick(&self, at: &[usize]) -> Vec<T> {
        at.iter().filter_map(|i| self.get(*i).copied()).collect()
    }
}

fn resize(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let x = node.input(0)?;
    let rank = cx.rank(x)?;
    let mode = node.choice("mode", 0, &["nearest", "linear", "cubic"])?;
    let mode = [ResizeMode::Nearest, ResizeMode::Linear, ResizeMode::Cubic][mode];
    if node.opset < 11 {
        let o = Operands { roi: None, scales: Some(node.input(1)?), sizes: None };
        return build(cx, x, simple(mode, rank), o);
    }
    let transform = node.choice(
        "coordinate_transformation_mode",
        0,
        &[
            "half_pixel",
            "half_pixel_symmetric",
            "pytorch_half_pixel",
            "align_corners",
            "asymmetric",
            "tf_crop_and_resize",
            "tf_half_pixel_for_nn",
        ],
    )?;
    let nearest =
        node.choice("nearest_mode", 0, &["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"])?;
    let mut nearest = [
        ResizeNearest::RoundPreferFloor,
        ResizeNearest::RoundPreferCeil,
        ResizeNearest::Floor,
        ResizeNearest::Ceil,
    ][nearest];
    if transform == 6 {
        // (i + 0.5) / scale rounded down is the half-pixel place with halves rounded up.
        if mode != ResizeMode::Nearest || nearest != ResizeNearest::Floor {
            return Err(node.unsupported("`tf_half_pixel_for_nn` other than nearest and floor"));
        }
        nearest = ResizeNearest::RoundPreferCeil;
    }
    let transform = [
        ResizeTransform::HalfPixel,
        ResizeTransform::HalfPixelSymmetric,
        ResizeTransform::PytorchHalfPixel,
        ResizeTransform::AlignCorners,
        ResizeTransform::Asymmetric,
        ResizeTransform::CropAndResize,
        ResizeTransform::HalfPixel,
    ][transform];
    let axes = match node.ints("axes")? {
        None => (0..rank).collect(),
        Some(axes) => {
            axes.iter().map(|a| planish_ir::op::normalize_axis(*a, rank)).collect::<Result<Vec<_>, _>>()?
        }
    };
    let policy = node.choice("keep_aspect_ratio_policy", 0, &["stretch", "not_larger", "not_smaller"])?;
    let o = Operands { roi: filled(cx, node, 1)?, scales: filled(cx, node, 2)?, sizes: filled(cx, node, 3)? };
    let policy = [ResizePolicy::Stretch, ResizePolicy::NotLarger, ResizePolicy::NotSmaller][policy];
    let op = Resize {
        mode,
        transform,
        nearest,
        cubic_a: node.float_or("cubic_coeff_a", -0.75)?.into(),
        exclude_outside: node.flag("exclude_outside", false)?,
        extrapolation: node.float_or("extrapolation_value", 0.0)?.into(),
        antialias: node.flag("antialias", false)? && mode != ResizeMode::Nearest,
        axes,
        policy: if o.sizes.is_some() { policy } else { ResizePolicy::Stretch },
    };
    build(cx, x, op, o)
}

/// Resampling as `Upsample` and the first `Resize` do it.
fn simple(mode: ResizeMode, rank: usize) -> Resize {
    Resize {
        mode,
        transform: ResizeTransform::Asymmetric,
        nearest: ResizeNearest::Floor,
        cubic_a: -0.75,
        exclude_outside: false,
        extrapolation: 0.0,
        antialias: false,
        axes: (0..rank).collect(),
        policy: ResizePolicy::Stretch,
    }
}

fn upsample(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let x = node.input(0)?;
    let rank = cx.rank(x)?;
    let mode = node.choice("mode", 0, &["nearest", "linear", "bilinear"])?;
    let mode = if mode == 0 { ResizeMode::Nearest } else { ResizeMode::Linear };
    let scales = if node.opset >= 9 {
        node.input(1)?
    } else {
        let scales = match node.floats("scales")? {
            Some(s) => s.to_vec(),
            None => {
                let axis = |name| node.float(name)?.ok_or_else(|| node.missing(name));
                vec![1.0, 1.0, axis("height_scale")?, axis("width_scale")?]
            }
        };
        cx.constant(Tensor::f32s(&[scales.len()], &scales)?)?
    };
    build(cx, x, simple(mode, rank), Operands { roi: None, scales: Some(scales), sizes: None })
}
