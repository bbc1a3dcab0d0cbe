//! Products whose inputs near zero were put to zero.

use super::{Found, unary};
use crate::util;
use planish_ir::op::binary::BinaryKind;
use planish_ir::op::gated_matmul::GatedMatMul;
use planish_ir::op::unary::UnaryKind;
use planish_ir::{DType, Dim, Graph, NodeId, Op};

/// `where(|x| < t, 0, x)` times a constant matrix of f32, with a constant t, of few rows as far as is known. Several products may share the
/// choice, which is no part of what is replaced.
pub(super) fn product(g: &Graph, n: NodeId) -> Option<Found> {
    let Op::MatMul(op) = &g.node(n).op else { return None };
    let (v, w) = (util::operand(g, n, 0)?, util::operand(g, n, 1)?);
    if op.trans_a || util::constant(g, w)?.shape.len() != 2 || g.dtype(v) != Some(DType::F32) {
        return None;
    }
    let choice = g.def_node(v)?;
    let Op::Where(_) = g.node(choice).op else { return None };
    let [below, zero, x] = [0, 1, 2].map(|i| util::operand(g, choice, i));
    let (below, x) = (below?, x?);
    if util::splat_value(g, zero?) != Some(0.0) || g.ty(x) != g.ty(v) {
        return None;
    }
    let (_, size, bound) = super::binary(g, below, BinaryKind::Less)?;
    let threshold = util::splat_value(g, bound)?;
    let (_, source) = unary(g, size, UnaryKind::Abs)?;
    let rows = Dim::product(g.dims(x)?.split_last()?.1);
    let least = rows.as_const().or(rows.bounds(&g.symbols).0).unwrap_or(0);
    if source != x || threshold.is_nan() || threshold < 0.0 || least > GatedMatMul::FEW_ROWS as i64 {
        return None;
    }
    let op = GatedMatMul { threshold, block: 1, trans_b: op.trans_b };
    Some(Found { name: "gated-matmul", op: op.into(), inputs: vec![Some(x), Some(w)], covers: Vec::new() })
}
