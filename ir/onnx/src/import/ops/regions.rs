//! Regions of images, and pooling undone.

use super::Made;
use super::sizes::{Size, size_vector};
use crate::import::table::{Entry, onnx};
use crate::import::{ImportCx, OnnxNode};
use planish_ir::op::binary::BinaryKind::Sub;
use planish_ir::op::col2im::Col2Im;
use planish_ir::op::concat::{Concat, Pad, PadMode};
use planish_ir::op::conv_transpose::ConvTranspose;
use planish_ir::op::reduce::{Reduce, ReduceKind};
use planish_ir::op::reshape::Reshape;
use planish_ir::op::scatter::{Reduction, ScatterElements};
use planish_ir::op::views::Expand;
use planish_ir::op::vision::{MaxRoiPool, NonMaxSuppression, RoiAlign};
use planish_ir::{DType, Diag, Tensor};

pub(super) const OPS: &[Entry] = &[
    onnx("Col2Im", col2im),
    onnx("MaxRoiPool", max_roi_pool),
    onnx("MaxUnpool", max_unpool),
    onnx("NonMaxSuppression", suppression),
    onnx("RoiAlign", roi_align),
];

const SIZES: std::ops::RangeInclusive<i64> = 1..=1 << 20;

fn suppression(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let centered = node.int_in("center_point_box", 0, 0..=1)? == 1;
    let mut inputs = node.inputs.clone();
    // Defaults of omitted operands before given ones: no boxes at all, and no overlap.
    for (i, default) in [(2, Tensor::vec_i64(&[0])), (3, Tensor::f32s(&[1], &[0.0])?)] {
        if inputs.len() > i + 1 && inputs[i].is_none() {
            inputs[i] = Some(cx.constant(default)?);
        }
    }
    cx.op_many(NonMaxSuppression { centered }, &inputs)
}

fn roi_align(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let half = node.choice("coordinate_transformation_mode", 0, &["half_pixel", "output_half_pixel"])? == 0;
    let op = RoiAlign {
        max: node.choice("mode", 0, &["avg", "max"])? == 1,
        height: node.int_in("output_height", 1, SIZES)?,
        width: node.int_in("output_width", 1, SIZES)?,
        sampling: node.int_in("sampling_ratio", 0, 0..=1 << 20)?,
        scale: node.float_or("spatial_scale", 1.0)?.into(),
        half_pixel: half && node.opset >= 16,
    };
    let batch = cx.cast(node.input(2)?, DType::I64)?;
    Ok(vec![cx.op(op, &[node.input(0)?, node.input(1)?, batch])?])
}

fn max_roi_pool(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let Some(&[height, width]) = node.ints_in("pooled_shape", SIZES)? else {
        return Err(node.missing("pooled_shape"));
    };
    let scale = node.float_or("spatial_scale", 1.0)?.into();
    Ok(vec![cx.op(MaxRoiPool { height, width, scale }, &[node.input(0)?, node.input(1)?])?])
}

/// The elements scattered into zeros.
fn max_unpool(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let (x, indices) = (node.input(0)?, node.input(1)?);
    let kernel = node.ints_in("kernel_shape", SIZES)?.ok_or_else(|| node.missing("kernel_shape"))?;
    let n = kernel.len();
    if cx.rank(x)? != n + 2 {
        return Err(node.error("shape-mismatch", format!("a window over {n} axes")));
    }
    let list = |name: &str, len: usize, default: i64| -> Result<Vec<i64>, Diag> {
        let v = node.ints_in(name, 0..=1 << 20)?.map_or_else(|| vec![default; len], <[i64]>::to_vec);
        if v.len() == len {
            Ok(v)
        } else {
            Err(node.error("attribute-range", format!("{name:?} has {} entries", v.len())))
        }
    };
    let (strides, pads) = (list("strides", n, 1)?, list("pads", 2 * n, 0)?);
    let mut sizes = vec![Size::Axis(0), Size::Axis(1)];
    for a in 0..n {
        sizes.push(Size::Affine(a + 2, strides[a], kernel[a] - strides[a] - pads[a] - pads[a + n]));
    }
    let shape = size_vector(cx, x, &sizes)?;
    let count = Reduce { kind: ReduceKind::Prod, axes: Some(vec![0]), keepdims: true, noop_empty: false };
    let count = cx.op(count, &[shape])?;
    let zero = cx.scalar_like(x, 0.0)?;
    let zeros = cx.op(Expand {}, &[zero, count])?;
    let (flat, places) = (cx.reshape(x, &[-1])?, cx.reshape(indices, &[-1])?);
    let scatter = ScatterElements { axis: 0, reduction: Reduction::None };
    let y = cx.op(scatter, &[zeros, places, flat])?;
    let y = cx.op(Reshape { allow_zero: true }, &[y, shape])?;
    let Some(want) = node.opt(2) else { return Ok(vec![y]) };
    let after = cx.binary(Sub, want, shape)?;
    let before = cx.const_i64s(&vec![0; n + 2])?;
    let pads = cx.op(Concat { axis: 0 }, &[before, after])?;
    Ok(vec![cx.op(Pad { mode: PadMode::Constant }, &[y, pads])?])
}

/// A transposed convolution in which each channel of a block adds to its own place of the window.
fn col2im(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let (x, image, block) = (node.input(0)?, node.input(1)?, node.input(2)?);
    let axes = match (cx.dims(image)?.as_slice(), cx.dims(block)?.as_slice()) {
        ([a], [b]) => a.as_const().or(b.as_const()).and_then(|n| usize::try_from(n).ok()),
        _ => None,
    };
    let Some(n) = axes.filter(|n| (1..=16).contains(n)) else {
        return Err(node.unsupported("an image of unknown rank"));
    };
    let list = |name: &str, len: usize, default: i64| -> Result<Vec<i64>, Diag> {
        let v = node.ints_in(name, 0..=1 << 20)?.map_or_else(|| vec![default; len], <[i64]>::to_vec);
        if v.len() == len {
            Ok(v)
        } else {
            Err(node.error("attribute-range", format!("{name:?} has {} entries", v.len())))
        }
    };
    let (strides, dilations) = (list("strides", n, 1)?, list("dilations", n, 1)?);
    let pads = list("pads", 2 * n, 0)?;
    let rows = match cx.dims(x)?[..] {
        [_, ref c, _] => c.as_const(),
        _ => return Err(node.error("shape-mismatch", "the columns must have rank 3")),
    };
    let known = (cx.const_ints(image), cx.const_ints(block), rows);
    let (Some(image), Some(block), Some(rows)) = known else {
        let op = Col2Im { strides, dilations, pads };
        return Ok(vec![cx.op(op, &[x, image, block])?]);
    };
    let sound = |v: &[i64]| v.len() == n && v.iter().all(|v| SIZES.contains(v));
    if !sound(&image) || !sound(&block) {
        return Err(node.error("shape-mismatch", format!("image {image:?} of blocks {block:?}")));
    }
    let window: i64 = block.iter().product();
    let channels = (window <= 1 << 16 && rows % window == 0).then(|| rows / window);
    let channels = channels.ok_or_else(|| node.unsupported(format!("columns of {rows} elements")))?;
    if strides.contains(&0) || dilations.contains(&0) {
        return Err(node.error("attribute-range", "strides and dilations must be positive"));
    }
    let mut sizes = vec![Size::Axis(0), Size::Axis(1)];
    let mut output_padding = Vec::new();
    for a in 0..n {
        let reach = dilations[a] * (block[a] - 1) + 1;
        let room = image[a] + pads[a] + pads[a + n] - reach;
        if room < 0 {
            return Err(node.error("shape-mismatch", "a block is larger than the image"));
        }
        let count = room / strides[a] + 1;
        sizes.push(Size::Known(count));
        output_padding.push(room - (count - 1) * strides[a]);
    }
    let blocks = super::sizes::reshape_like(cx, x, x, &sizes)?;
    // The window of channel k of a block holds a 1 at place k.
    let count = usize::try_from(channels * window * window).unwrap_or(usize::MAX);
    if count > 1 << 26 {
        return Err(node.unsupported("blocks with too many elements"));
    }
    let w = window as usize;
    let eye: Vec<f64> = (0..count).map(|i| f64::from(u8::from(i / w % w == i % w))).collect();
    let mut shape = vec![(channels * window) as usize, 1];
    shape.extend(block.iter().map(|b| *b as usize));
    let dtype = cx.dtype(x)?;
    let eye = cx.constant(Tensor::floats(dtype, &shape, eye)?)?;
    let op = ConvTranspose { strides, dilations, pads, output_padding, groups: channels };
    Ok(vec![cx.op(op, &[blocks, eye])?])
}
