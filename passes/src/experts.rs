//! Experts whose weights are slices of stacked constants, and gates that compute only those that are chosen.

use crate::util;
use planish_ir::op::binary::{Binary, BinaryKind};
use planish_ir::op::concat::Concat;
use planish_ir::op::control::{Fallback, Gate, Granularity};
use planish_ir::op::gather::Gather;
use planish_ir::op::matmul::MatMul;
use planish_ir::op::reshape::Reshape;
use planish_ir::op::unary::{Unary, UnaryKind};
use planish_ir::op::views::Shape;
use planish_ir::{
    ConstId, Constant, DType, Diag, Dim, Editor, Graph, Matrix, NodeId, Op, Tensor, Type, ValueId,
};

pub(crate) const PRODUCT: MatMul = MatMul { trans_a: false, trans_b: false };
pub(crate) const SUM: Binary = Binary { kind: BinaryKind::Add };

/// Feed-forward pairs `f(x up + bias) down + shift` of equal sizes.
pub(crate) struct Experts {
    /// Experts, inputs, hidden units of each, outputs.
    pub(crate) sizes: [usize; 4],
    pub(crate) function: UnaryKind,
    /// Experts x inputs x units.
    pub(crate) up: Vec<f32>,
    /// Experts x units.
    pub(crate) bias: Option<Vec<f32>>,
    /// Experts x units x outputs.
    pub(crate) down: Vec<f32>,
    /// Experts x outputs.
    pub(crate) shift: Option<Vec<f32>>,
}

impl Experts {
    /// A gate that sends each row to the `active` experts of the largest weights, rows x experts.
    pub(crate) fn gate(
        &self,
        ed: &mut Editor<'_>,
        weights: ValueId,
        rows: ValueId,
        active: usize,
    ) -> Result<ValueId, Diag> {
        let (place, loc) = (ed.place(), ed.loc().clone());
        let region = ed.new_region();
        let count = Dim::from(ed.graph_mut().symbols.fresh(0, None));
        let expert = ed.param(region, Type::tensor(DType::I64, Vec::new()).into());
        let some = ed.param(region, Type::tensor(DType::F32, vec![count, Dim::from(self.sizes[1])]).into());
        ed.at_end(region);
        ed.set_loc(loc);
        let result = self.one(ed, expert, some)?;
        ed.result(region, result);
        ed.go(place);
        let empty = ed.new_region();
        let gate =
            Gate { granularity: Granularity::Routed, axis: 0, block: 0, k: active, fallback: Fallback::Zero };
        let made = ed.node_with_regions(gate, &[Some(weights), Some(rows)], vec![region, empty])?;
        made.first().copied().ok_or_else(|| Diag::error("arity", "a gate has one result"))
    }

    /// What an expert makes of its rows.
    fn one(&self, ed: &mut Editor<'_>, expert: ValueId, rows: ValueId) -> Result<ValueId, Diag> {
        let [experts, inputs, units, outputs] = self.sizes;
        let of_expert = |ed: &mut Editor<'_>, shape: &[usize], v: &[f32]| -> Result<ValueId, Diag> {
            let all = ed.constant(Constant::from(Tensor::f32s(shape, v)?))?;
            ed.node1(Gather { axis: 0 }, &[all, expert])
        };
        let w = of_expert(ed, &[experts, inputs, units], &self.up)?;
        let mut v = ed.node1(PRODUCT, &[rows, w])?;
        if let Some(bias) = &self.bias {
            let b = of_expert(ed, &[experts, units], bias)?;
            v = ed.node1(SUM, &[v, b])?;
        }
        let v = ed.node1(Unary { kind: self.function }, &[v])?;
        let w = of_expert(ed, &[experts, units, outputs], &self.down)?;
        let v = ed.node1(PRODUCT, &[v, w])?;
        let Some(shift) = &self.shift else { return Ok(v) };
        let b = of_expert(ed, &[experts, outputs], shift)?;
        ed.node1(SUM, &[v, b])
    }
}

/// A value with `d` features in its last axis as a matrix of rows.
pub(crate) fn as_rows(ed: &mut Editor<'_>, x: ValueId, d: usize) -> Result<ValueId, Diag> {
    if ed.graph().dims(x).is_some_and(|dims| dims.len() == 2) {
        return Ok(x);
    }
    let shape = util::ints(ed, &[-1, d as i64])?;
    ed.node1(Reshape { allow_zero: false }, &[x, shape])
}

/// Rows of `o` features with the axes that `x` has before its last one.
pub(crate) fn from_rows(ed: &mut Editor<'_>, rows: ValueId, x: ValueId, o: usize) -> Result<ValueId, Diag> {
    let mut lead = ed.graph().dims(x).unwrap_or_default().to_vec();
    lead.pop();
    if lead.len() == 1 {
        return Ok(rows);
    }
    let fixed: Option<Vec<i64>> = lead.iter().map(Dim::as_const).collect();
    let shape = match fixed {
        Some(mut shape) => {
            shape.push(o as i64);
            util::ints(ed, &shape)?
        }
        None => {
            let lead = ed.node1(Shape { start: 0, end: Some(lead.len() as i64) }, &[x])?;
            let o = util::ints(ed, &[o as i64])?;
            ed.node1(Concat { axis: 0 }, &[lead, o])?
        }
    };
    ed.node1(Reshape { allow_zero: false }, &[rows, shape])
}

/// A constant matrix from inputs to outputs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weights {
    id: ConstId,
    pub(crate) m: Matrix,
}

impl Weights {
    /// Elements, inputs x outputs.
    pub(crate) fn values(&self, g: &Graph) -> Result<Vec<f32>, Diag> {
        let stored = floats(&g.constant(self.id).decode()?);
        let m = &self.m;
        Ok((0..m.k).flat_map(|k| (0..m.n).map(move |n| (k, n))).map(|(k, n)| stored[m.at(k, n)]).collect())
    }
}

/// The elements of an f32 tensor.
pub(crate) fn floats(t: &planish_ir::Tensor) -> Vec<f32> {
    t.to_f64().into_iter().map(|v| v as f32).collect()
}

/// The operand and weights of a product with a constant matrix.
pub(crate) fn product(g: &Graph, n: NodeId) -> Option<(ValueId, Weights)> {
    let Op::MatMul(op) = &g.node(n).op else { return None };
    let (x, w) = (util::operand(g, n, 0)?, util::operand(g, n, 1)?);
    let (id, c) = g.as_const(w)?;
    if op.trans_a || c.shape.len() != 2 || c.dtype != DType::F32 || g.dims(x)?.len() < 2 {
        return None;
    }
    Some((x, Weights { id, m: Matrix::new(&c.shape, op.trans_b)? }))
}

/// Functions that networks have between the products of a feed-forward pair.
pub(crate) fn divisible(f: UnaryKind) -> bool {
    use UnaryKind::*;
    matches!(f, Relu | Gelu | GeluTanh | Mish | HardSwish | Softplus | Softsign | Tanh | Sigmoid)
}
