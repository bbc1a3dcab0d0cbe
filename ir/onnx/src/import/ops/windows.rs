//! Convolution and pooling.

use super::Made;
use crate::import::table::{Entry, onnx};
use crate::import::{ImportCx, OnnxNode};
use planish_ir::op::conv::Conv;
use planish_ir::op::conv_transpose::ConvTranspose;
use planish_ir::op::pool::{IndexOrder, Pool, PoolKind};
use planish_ir::op::window::{AutoPad, Windows};
use planish_ir::{Diag, Dim, ValueId};

pub(super) const OPS: &[Entry] = &[
    onnx("AveragePool", pool),
    onnx("Conv", conv),
    onnx("ConvTranspose", conv_transpose),
    onnx("LpPool", pool),
    onnx("MaxPool", pool),
];

const SIZES: std::ops::RangeInclusive<i64> = 1..=i32::MAX as i64;
const PADS: std::ops::RangeInclusive<i64> = 0..=i32::MAX as i64;

/// Spatial dims of an input [N, C, spatial...].
fn space(cx: &ImportCx<'_, '_>, node: &OnnxNode<'_>, x: ValueId) -> Result<Vec<Dim>, Diag> {
    let dims = cx.dims(x)?;
    match dims.get(2..) {
        Some(s) if !s.is_empty() => Ok(s.to_vec()),
        _ => Err(node.error("shape-mismatch", format!("rank {} leaves no spatial axes", dims.len()))),
    }
}

/// An attribute with one entry per spatial axis.
fn per_axis(
    node: &OnnxNode<'_>,
    name: &str,
    count: usize,
    default: i64,
    range: std::ops::RangeInclusive<i64>,
) -> Result<Vec<i64>, Diag> {
    match node.ints_in(name, range)? {
        None | Some([]) => Ok(vec![default; count]),
        Some(v) if v.len() == count => Ok(v.to_vec()),
        Some(v) => {
            Err(node
                .error("attribute-range", format!("attribute {name:?} has {} entries, not {count}", v.len())))
        }
    }
}

/// The fields of a window.
struct Fields {
    strides: Vec<i64>,
    dilations: Vec<i64>,
    pads: Vec<i64>,
    auto_pad: AutoPad,
}

fn fields(node: &OnnxNode<'_>, rank: usize) -> Result<Fields, Diag> {
    let auto = node.choice("auto_pad", 0, &["NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"])?;
    let pads = per_axis(node, "pads", 2 * rank, 0, PADS)?;
    Ok(Fields {
        strides: per_axis(node, "strides", rank, 1, SIZES)?,
        dilations: per_axis(node, "dilations", rank, 1, SIZES)?,
        pads: if auto == 0 { pads } else { vec![0; 2 * rank] },
        auto_pad: [AutoPad::Explicit, AutoPad::Explicit, AutoPad::SameUpper, AutoPad::SameLower][auto],
    })
}

impl Fields {
    /// Automatic padding as explicit one, where dims are known or do not matter.
    fn resolve(mut self, space: &[Dim], kernel: &[Dim], ceil: bool) -> Fields {
        if self.auto_pad == AutoPad::Explicit {
            return self;
        }
        let windows = Windows {
            auto_pad: self.auto_pad,
            strides: &self.strides,
            dilations: &self.dilations,
            pads: &self.pads,
        };
        let rank = space.len();
        let mut pads = vec![0; 2 * rank];
        for axis in 0..rank {
            // With a stride of 1 the padding is the same for every size.
            let size = if self.strides[axis] == 1 { Dim::from(1) } else { space[axis].clone() };
            let (begin, end) = windows.padding(axis, &size, &kernel[axis]);
            let (Some(begin), Some(end)) = (begin.as_const(), end.as_const()) else { return self };
            (pads[axis], pads[axis + rank]) = (begin, end);
        }
        let explicit = Windows { auto_pad: AutoPad::Explicit, pads: &pads, ..windows };
        let same = (0..rank).all(|a| {
            explicit.positions(a, &space[a], &kernel[a], ceil).ok()
                == windows.positions(a, &space[a], &kernel[a], ceil).ok()
        });
        if same {
            (self.pads, self.auto_pad) = (pads, AutoPad::Explicit);
        }
        self
    }
}

/// Window sizes of convolution weights, which `kernel_shape` must agree with.
fn kernel_of(cx: &ImportCx<'_, '_>, node: &OnnxNode<'_>, w: ValueId, rank: usize) -> Result<Vec<Dim>, Diag> {
    let kernel = space(cx, node, w)?;
    if kernel.len() != rank {
        return Err(node.error("shape-mismatch", "the weights must have the rank of the input"));
    }
    let given = per_axis(node, "kernel_shape", rank, 0, SIZES)?;
    for (have, want) in kernel.iter().zip(given) {
        if want != 0 && have.as_const().is_some_and(|h| h != want) {
            return Err(node.error("shape-mismatch", "`kernel_shape` is not that of the weights"));
        }
    }
    Ok(kernel)
}

fn conv(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let (x, w) = (node.input(0)?, node.input(1)?);
    let space = space(cx, node, x)?;
    let kernel = kernel_of(cx, node, w, space.len())?;
    let f = fields(node, space.len())?.resolve(&space, &kernel, false);
    let op = Conv {
        strides: f.strides,
        dilations: f.dilations,
        pads: f.pads,
        auto_pad: f.auto_pad,
        groups: node.int_in("group", 1, SIZES)?,
    };
    cx.op_many(op, &[Some(x), Some(w), node.opt(2)])
}

fn conv_transpose(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let (x, w) = (node.input(0)?, node.input(1)?);
    let space = space(cx, node, x)?;
    let rank = space.len();
    let kernel = kernel_of(cx, node, w, rank)?;
    let mut f = fields(node, rank)?;
    let mut output_padding = per_axis(node, "output_padding", rank, 0, PADS)?;
    let shape = node.ints_in("output_shape", SIZES)?.filter(|s| !s.is_empty());
    // Some exporters list all dims.
    let shape = shape.map(|s| if s.len() == rank + 2 { &s[2..] } else { s });
    if shape.is_some_and(|s| s.len() != rank) {
        return Err(node.error("attribute-range", "`output_shape` must list the spatial dims"));
    }
    if shape.is_some() || f.auto_pad != AutoPad::Explicit {
        for a in 0..rank {
            let known = |d: &Dim| d.as_const().filter(|v| PADS.contains(v));
            let kernel = known(&kernel[a]).ok_or_else(|| node.unsupported("weights of unknown size"))?;
            let reach = (kernel - 1).saturating_mul(f.dilations[a]).saturating_add(1 + output_padding[a]);
            let total = match shape {
                None => reach.saturating_sub(f.strides[a]),
                Some(shape) => {
                    let size = known(&space[a])
                        .ok_or_else(|| node.unsupported("`output_shape` with an input of unknown size"))?;
                    (size - 1).saturating_mul(f.strides[a]).saturating_add(reach).saturating_sub(shape[a])
                }
            };
            // What the windows do not reach is 0, at the end.
            output_padding[a] = output_padding[a].saturating_add((-total).max(0));
            let total = total.max(0);
            let half = total / 2;
            let begin = if f.auto_pad == AutoPad::SameUpper { half } else { total - half };
            (f.pads[a], f.pads[a + rank]) = (begin, total - begin);
        }
    }
    let op = ConvTranspose {
        strides: f.strides,
        dilations: f.dilations,
        pads: f.pads,
        output_padding,
        groups: node.int_in("group", 1, SIZES)?,
    };
    cx.op_many(op, &[Some(x), Some(w), node.opt(2)])
}

fn pool(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let x = node.input(0)?;
    let space = space(cx, node, x)?;
    let rank = space.len();
    let kind = match node.op_type {
        "MaxPool" => PoolKind::Max,
        "AveragePool" => PoolKind::Average,
        _ => PoolKind::Lp,
    };
    let kernel = per_axis(node, "kernel_shape", rank, 0, SIZES)?;
    if kernel.contains(&0) {
        return Err(node.missing("kernel_shape"));
    }
    let ceil_mode = node.flag("ceil_mode", false)?;
    let kernel_dims: Vec<Dim> = kernel.iter().map(|k| Dim::from(*k)).collect();
    let f = fields(node, rank)?.resolve(&space, &kernel_dims, ceil_mode);
    let p = match kind {
        PoolKind::Lp if node.opset < 2 => i64::from(node.float_or("p", 2.0)?.round() as i32),
        PoolKind::Lp => node.int_in("p", 2, SIZES)?,
        _ => 2,
    };
    let order = if kind == PoolKind::Max { node.int_in("storage_order", 0, 0..=1)? } else { 0 };
    let order = if order == 0 { IndexOrder::RowMajor } else { IndexOrder::ColumnMajor };
    let op = Pool {
        kind,
        kernel,
        strides: f.strides,
        dilations: f.dilations,
        pads: f.pads,
        auto_pad: f.auto_pad,
        ceil_mode,
        count_include_pad: kind == PoolKind::Average && node.flag("count_include_pad", false)?,
        p,
        indices: (kind == PoolKind::Max && node.wants(1)).then_some(order),
    };
    cx.op_many(op, &[Some(x)])
}
