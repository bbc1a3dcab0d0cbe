//! Concatenation. Where nothing lies before the axis, parts of the result are its operands: what makes them writes into it.

use super::cx::{LowerCx, Opnd};
use super::layout;
use super::nest::{Block, copy_block};
use planish_ir::graph::Use;
use planish_ir::{DType, Diag, Dim, Op, ValueId};
use planish_rt::plan::SlotId;
use std::collections::HashMap;

/// Results of concatenations that have memory before they are lowered, and operands that lie in them; each in the plain (`false`) or the
/// blocked form.
#[derive(Default)]
pub(super) struct Joined {
    results: HashMap<(ValueId, bool), Opnd>,
    parts: HashMap<(ValueId, bool), Part>,
}

/// An operand in its place.
#[derive(PartialEq)]
struct Part {
    slot: SlotId,
    result: ValueId,
    index: usize,
}

/// A place in the result of a concatenation.
struct Spot {
    result: ValueId,
    /// The operand it is for.
    index: usize,
    /// Elements before it.
    start: Dim,
}

/// Where `v` may lie in the result of the first concatenation that reads it.
fn spot(cx: &LowerCx<'_>, v: ValueId, blocked: bool) -> Option<Spot> {
    let g = cx.graph;
    let n = g.def_node(v)?;
    let joins = |u: &Use| match u {
        Use::Node(m, i) if g.node(*m).region == g.node(n).region => match &g.node(*m).op {
            Op::Concat(c) => Some((*m, *i as usize, c.axis)),
            _ => None,
        },
        _ => None,
    };
    if g.uses(v).iter().any(|u| matches!(u, Use::Result(..))) {
        return None;
    }
    let (m, index, axis) = g.uses(v).iter().find_map(joins)?;
    if (blocked && axis != 1) || !matches!(g.dtype(v), Some(DType::F32 | DType::F64)) {
        return None;
    }
    let result = *g.node(m).outputs.first()?;
    let (_, all) = cx.tensor_type(result).ok()?;
    if !Dim::product(&all[..axis]).is(1) || all.iter().any(|d| cx.depends_on_data(d)) {
        return None;
    }
    let mut start = Dim::Const(0);
    for (i, x) in g.node(m).inputs.iter().enumerate() {
        let (_, dims) = cx.tensor_type((*x)?).ok()?;
        // A part of another size would be written beside its place before anybody looks.
        let alike = dims.len() == all.len() && (0..dims.len()).all(|a| a == axis || dims[a] == all[a]);
        if !alike || (blocked && !layout::whole_blocks(&dims)) {
            return None;
        }
        if i < index {
            start = start.add(&Dim::product(&dims));
        }
    }
    let sum = g
        .node(m)
        .inputs
        .iter()
        .flatten()
        .try_fold(Dim::Const(0), |s, x| Some(s.add(&cx.tensor_type(*x).ok()?.1[axis])))?;
    (sum == all[axis]).then_some(Spot { result, index, start })
}

impl LowerCx<'_> {
    /// The slot of `v`, in the plain or the blocked form with dims `dims`, as a part of the result of a concatenation if it can be.
    pub(super) fn part_of_joined(&mut self, v: ValueId, dims: &[Dim], blocked: bool) -> Option<SlotId> {
        let Spot { result, index, start } = spot(self, v, blocked)?;
        let (dtype, _) = self.tensor_type(v).ok()?;
        let whole = self.joined(result, blocked).ok()?;
        let slot = self.view(&whole, dtype, dims, &start.mul(&Dim::from(dtype.size())));
        self.joined.parts.insert((v, blocked), Part { slot, result, index });
        Some(slot)
    }
    /// The memory of the result of a concatenation, made where it is first needed.
    fn joined(&mut self, result: ValueId, blocked: bool) -> Result<Opnd, Diag> {
        if let Some(y) = self.joined.results.get(&(result, blocked)) {
            return Ok(y.clone());
        }
        let y = if blocked { self.blocked_slot(result)? } else { self.own_slot(result)? };
        self.joined.results.insert((result, blocked), y.clone());
        Ok(y)
    }
}

pub(super) fn lower_concat(cx: &mut LowerCx<'_>, axis: usize) -> Result<(), Diag> {
    let n = cx.node().inputs.len();
    let blocked = layout::concat_parts(cx, axis)?;
    let in_blocks = blocked.is_some();
    let parts = match blocked {
        Some(parts) => parts,
        None => (0..n).map(|i| cx.input(i)).collect::<Result<Vec<_>, _>>()?,
    };
    for p in &parts[1..] {
        for (a, (d, e)) in p.dims.iter().zip(&parts[0].dims).enumerate() {
            if a != axis {
                cx.require_equal(d, e, "tensors to be joined differ in a dim");
            }
        }
    }
    let result = cx.output_value(0)?;
    let y = cx.joined(result, in_blocks)?;
    let dst = y.strides();
    let mut at = Dim::Const(0);
    for (i, p) in parts.iter().enumerate() {
        let v = cx.input_value(i)?;
        let place = Part { slot: p.slot, result, index: i };
        if cx.joined.parts.get(&(v, in_blocks)) != Some(&place) {
            let first = at.mul(&dst[axis]);
            // A view where it can be: another part of the result may be what is copied.
            let (to, first) = if Dim::product(&y.dims[..axis]).is(1) {
                let slot = cx.view(&y, y.dtype, &p.dims, &first.mul(&Dim::from(y.dtype.size())));
                (p.with_slot(slot), Dim::Const(0))
            } else {
                (y.clone(), first)
            };
            let block =
                Block { dims: p.dims.clone(), src: (Dim::Const(0), p.strides()), dst: (first, dst.clone()) };
            copy_block(cx, "concat", p, &to, block, None)?;
        }
        at = at.add(&p.dims[axis]);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::lower::tests::{ramp, same, weights};
    use crate::lower::{LowerOptions, lower};
    use planish_ir::{Diag, text};

    /// Checks results, and the number of kernels that copy operands.
    fn joins(body: &str, inputs: &[&[usize]], copies: usize) -> Result<(), Diag> {
        let given = inputs.iter().map(|shape| ramp(shape)).collect::<Result<_, _>>()?;
        same(body, given, 1e-4)?;
        let g = text::parse(&format!("planish-ir 1\n{body}"))?;
        let module = lower(&g, &LowerOptions::default()).map_err(|mut d| d.swap_remove(0))?;
        let steps: usize =
            module.plan.blocks.iter().map(|b| b.steps.iter().filter(|s| copy(s, &module)).count()).sum();
        assert_eq!(steps, copies, "{body}");
        Ok(())
    }

    fn copy(step: &planish_rt::plan::Step, module: &crate::lower::Module) -> bool {
        match step {
            planish_rt::plan::Step::Launch { kernel, .. } => {
                module.plan.kernels[kernel.index()].name.starts_with("k_concat")
            }
            _ => false,
        }
    }

    #[test]
    fn operands_lie_in_the_result() -> Result<(), Diag> {
        for (n, m) in [(3usize, 5usize), (1, 1), (0, 4), (4, 0)] {
            let body = "graph @\"g\"(v0: f32[N,6], v1: f32[M,6]) {
             v2 = unary{kind=exp} v0 : f32[N,6]
             v3 = unary{kind=relu} v1 : f32[M,6]
             v4 = concat{axis=0} v2, v3 : f32[N+M,6]
             v5 = unary{kind=neg} v2 : f32[N,6]
             v6 = concat{axis=0} v4, v5 : f32[2*N+M,6]
             return v6, v3 }";
            // The second operand is an output of the graph besides.
            joins(body, &[&[n, 6], &[m, 6]], 1)?;
        }
        let body = "graph @\"g\"(v0: f32[1,2,6], v1: f32[1,3,6]) {
             v2 = unary{kind=exp} v0 : f32[1,2,6]
             v3 = concat{axis=1} v2, v1, v2 : f32[1,7,6]
             return v3 }";
        // An input, and an operand for the second time.
        joins(body, &[&[1, 2, 6], &[1, 3, 6]], 2)?;
        let body = "graph @\"g\"(v0: f32[2,2,6]) {
             v2 = unary{kind=exp} v0 : f32[2,2,6]
             v3 = concat{axis=1} v2, v2 : f32[2,4,6]
             return v3 }";
        joins(body, &[&[2, 2, 6]], 2)
    }

    #[test]
    fn sizes_that_may_differ_are_looked_at_first() -> Result<(), Diag> {
        let body = "graph @\"g\"(v0: f32[N,A], v1: f32[M,B]) {
             v2 = unary{kind=exp} v0 : f32[N,A]
             v3 = unary{kind=exp} v1 : f32[M,B]
             v4 = concat{axis=0} v2, v3 : f32[N+M,A]
             return v4 }";
        joins(body, &[&[2, 3], &[4, 3]], 2)
    }

    #[test]
    fn blocks_of_channels() -> Result<(), Diag> {
        let conv = "conv{strides=[1, 1], dilations=[1, 1], pads=[0, 0, 0, 0], auto_pad=explicit, groups=1}";
        let body = |n: usize| {
            format!(
                "graph @\"g\"(v0: f32[{n},8,3,5]) {{
             v1 = const {}
             v2 = {conv} v0, v1 : f32[{n},32,3,5]
             v3 = const {}
             v4 = {conv} v2, v3 : f32[{n},16,3,5]
             v5 = concat{{axis=1}} v2, v4 : f32[{n},48,3,5]
             v6 = const {}
             v7 = {conv} v5, v6 : f32[{n},16,3,5]
             v8 = concat{{axis=1}} v5, v7 : f32[{n},64,3,5]
             v9 = unary{{kind=relu}} v8 : f32[{n},64,3,5]
             return v9, v4 }}",
                weights(&[32, 8, 1, 1]),
                weights(&[16, 32, 1, 1]),
                weights(&[16, 48, 1, 1]),
            )
        };
        // An output of the graph is copied, and with several images every operand.
        joins(&body(1), &[&[1, 8, 3, 5]], 1)?;
        joins(&body(2), &[&[2, 8, 3, 5]], 4)
    }
}
