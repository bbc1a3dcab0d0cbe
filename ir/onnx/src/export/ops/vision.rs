//! Regions of images.

use super::with;
use crate::export::attr;
use crate::export::cx::ExportCx;
use planish_ir::Diag;
use planish_ir::graph::Node;
use planish_ir::op::vision::{MaxRoiPool, NonMaxSuppression, RoiAlign};

pub(super) fn roi_align(cx: &mut ExportCx<'_>, node: &Node, op: &RoiAlign) -> Result<(), Diag> {
    let place = if op.half_pixel { "half_pixel" } else { "output_half_pixel" };
    let attributes = vec![
        attr::string("mode", if op.max { "max" } else { "avg" }),
        attr::int("output_height", op.height),
        attr::int("output_width", op.width),
        attr::int("sampling_ratio", op.sampling),
        attr::float("spatial_scale", op.scale),
        attr::string("coordinate_transformation_mode", place),
    ];
    with(cx, node, "RoiAlign", attributes)
}

pub(super) fn max_roi_pool(cx: &mut ExportCx<'_>, node: &Node, op: &MaxRoiPool) -> Result<(), Diag> {
    let attributes =
        vec![attr::ints("pooled_shape", [op.height, op.width]), attr::float("spatial_scale", op.scale)];
    with(cx, node, "MaxRoiPool", attributes)
}

pub(super) fn non_max_suppression(
    cx: &mut ExportCx<'_>,
    node: &Node,
    op: &NonMaxSuppression,
) -> Result<(), Diag> {
    with(cx, node, "NonMaxSuppression", vec![attr::flag("center_point_box", op.centered)])
}
