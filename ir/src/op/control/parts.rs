//! What gates mean in operations that other formats have.

use super::{Fallback, Gate, Granularity, If, Loop};
use crate::constant::Constant;
use crate::diag::Diag;
use crate::dim::Dim;
use crate::dtype::DType;
use crate::editor::Editor;
use crate::graph::{Fact, Graph, NodeId, RegionId, ValueId};
use crate::op::binary::{Binary, BinaryKind};
use crate::op::cast::Cast;
use crate::op::concat::Concat;
use crate::op::gather::Gather;
use crate::op::reduce::{Reduce, ReduceKind};
use crate::op::scatter::{Reduction, ScatterElements, ScatterNd};
use crate::op::select::NonZero;
use crate::op::sort::TopK;
use crate::op::unary::{Unary, UnaryKind};
use crate::op::views::{Expand, Shape, Squeeze, Transpose, Unsqueeze};
use crate::op::{Op, normalize_axis};
use crate::tensor::Tensor;
use crate::types::{TensorType, Type};
use std::borrow::Cow;

/// The graph, or a copy in which [parts](expand_gates) stand for gates.
pub fn without_gates(graph: &Graph) -> Result<Cow<'_, Graph>, Diag> {
    if !graph.all_nodes().into_iter().any(|n| matches!(graph.node(n).op, Op::Gate(_))) {
        return Ok(Cow::Borrowed(graph));
    }
    let mut copy = graph.clone();
    expand_gates(&mut Editor::new(&mut copy))?;
    Ok(Cow::Owned(copy))
}

/// Replaces gates by their parts; how many there were.
///
/// A gate of the whole region becomes `if`. One of rows or blocks becomes an `if` on whether there are any, in which `non-zero`, `gather` and
/// `scatter-nd` stand around the nodes of the region, and another one for the second region. A routed one becomes `top-k` and a
/// `loop` over the experts that does the same with the rows of each. All others are `unsupported`.
pub fn expand_gates(ed: &mut Editor<'_>) -> Result<usize, Diag> {
    let mut count = 0;
    // Gates in the regions of a gate come after it and are moved with them.
    for n in ed.graph().all_nodes() {
        let Op::Gate(op) = ed.graph().node(n).op.clone() else { continue };
        expand_gate(ed, n, &op)?;
        count += 1;
    }
    Ok(count)
}

/// Puts the parts of a gate in its place; what stands for its result.
pub(super) fn expand_gate(ed: &mut Editor<'_>, n: NodeId, op: &Gate) -> Result<ValueId, Diag> {
    ed.before(n);
    let loc = ed.loc().clone();
    let new = match op.granularity {
        Granularity::Whole => whole(ed, n, op),
        Granularity::Rows | Granularity::Blocks => rows(ed, n, op),
        Granularity::Routed => routed(ed, n, op),
    };
    let new = new.map_err(|d| d.at(loc))?;
    let y = ed.graph().node(n).outputs[0];
    let declared = ed.graph().value(y).fact.clone();
    ed.set_fact(new, declared);
    ed.replace(y, new);
    ed.erase(n)?;
    Ok(new)
}

/// Operand `i` of a gate.
fn operand(ed: &Editor<'_>, n: NodeId, i: usize) -> Result<ValueId, Diag> {
    let given = ed.graph().node(n).inputs.get(i).copied().flatten();
    given.ok_or_else(|| Diag::error("arity", "a gate needs all its operands"))
}

fn given(ed: &Editor<'_>, n: NodeId, from: usize) -> Result<Vec<ValueId>, Diag> {
    (from..ed.graph().node(n).inputs.len()).map(|i| operand(ed, n, i)).collect()
}

/// A region with these parameters and then ones like these values.
pub(crate) fn region_for(
    ed: &mut Editor<'_>,
    first: &[Fact],
    values: &[ValueId],
) -> (RegionId, Vec<ValueId>) {
    let region = ed.new_region();
    let like: Vec<Fact> = values.iter().map(|v| ed.graph().value(*v).fact.clone()).collect();
    let params = first.iter().chain(&like).map(|fact| ed.param(region, fact.clone())).collect();
    (region, params)
}

/// The number of the iteration, as the region of a loop takes it.
pub(crate) fn turn() -> Fact {
    Type::tensor(DType::I64, Vec::new()).into()
}

/// A loop of `count` iterations over values that are carried and captures.
pub(crate) fn counted(
    ed: &mut Editor<'_>,
    count: ValueId,
    (carried, captured): (&[ValueId], &[ValueId]),
    scans: usize,
    body: RegionId,
) -> Result<Vec<ValueId>, Diag> {
    let values = carried.iter().chain(captured).map(|v| Some(*v));
    let operands: Vec<_> = [Some(count), None].into_iter().chain(values).collect();
    let op = Loop { carried: carried.len(), scans, conditional: false };
    ed.node_with_regions(op, &operands, vec![body])
}

/// Moves the nodes of a region to the end of another one, where values stand for its parameters; gives its first result there. The region
/// that is left has no nodes.
pub fn transplant(
    ed: &mut Editor<'_>,
    from: RegionId,
    to: RegionId,
    values: &[ValueId],
) -> Result<ValueId, Diag> {
    let params = ed.graph().region(from).params.clone();
    for (p, v) in params.into_iter().zip(values) {
        ed.replace(p, *v);
    }
    ed.at_end(to);
    let nodes: Vec<NodeId> = ed.graph().nodes_in(from).collect();
    nodes.into_iter().for_each(|n| ed.move_here(n));
    let result = ed.graph().region(from).results.first().copied();
    result.ok_or_else(|| Diag::error("arity", "a region of a gate gives one tensor"))
}

fn whole(ed: &mut Editor<'_>, n: NodeId, op: &Gate) -> Result<ValueId, Diag> {
    let condition = operand(ed, n, 0)?;
    let mut captured = given(ed, n, 1)?;
    let regions = ed.graph().node(n).regions.clone();
    if op.fallback == Fallback::Zero {
        let ty = result_type(ed, n)?;
        captured.push(zeros(ed, &ty, captured[0])?);
    }
    let (yes, params) = region_for(ed, &[], &captured);
    let result = transplant(ed, regions[0], yes, &params)?;
    ed.result(yes, result);
    let (no, params) = region_for(ed, &[], &captured);
    let result = match op.fallback {
        Fallback::Zero => params[params.len() - 1],
        Fallback::Identity => params[0],
        Fallback::Region => transplant(ed, regions[1], no, &params)?,
    };
    ed.result(no, result);
    ed.before(n);
    let operands: Vec<_> = std::iter::once(condition).chain(captured).map(Some).collect();
    first(ed.node_with_regions(If {}, &operands, vec![yes, no])?)
}

fn first(made: Vec<ValueId>) -> Result<ValueId, Diag> {
    made.first().copied().ok_or_else(|| Diag::error("arity", "a result is missing"))
}

fn result_type(ed: &Editor<'_>, n: NodeId) -> Result<TensorType, Diag> {
    let ty = ed.graph().ty(ed.graph().node(n).outputs[0]).as_tensor().cloned();
    ty.ok_or_else(|| Diag::error("type-mismatch", "a gate gives a tensor"))
}

fn ints(ed: &mut Editor<'_>, v: &[i64]) -> Result<ValueId, Diag> {
    ed.constant(Constant::from(Tensor::vec_i64(v)))
}

/// One number everywhere in a tensor of a type; dims that are not known are the first ones of `like`.
fn zeros(ed: &mut Editor<'_>, ty: &TensorType, like: ValueId) -> Result<ValueId, Diag> {
    let zero = Tensor::scalar(ty.dtype, 0.0)?;
    if let Some(shape) = ty.fixed_dims() {
        return ed.constant(Constant::splat(&zero, shape)?);
    }
    let dims = ty.dims()?;
    let lead = dims.iter().rposition(|d| d.as_const().is_none()).map_or(0, |i| i + 1);
    let same = ed.graph().dims(like).is_some_and(|d| d.len() >= lead && d[..lead] == dims[..lead]);
    if !same {
        return Err(Diag::unsupported("the sizes of what a gate gives are not known"));
    }
    let shape = ed.node1(Shape { start: 0, end: Some(lead as i64) }, &[like])?;
    let tail: Vec<i64> = dims[lead..].iter().filter_map(Dim::as_const).collect();
    let tail = ints(ed, &tail)?;
    let shape = ed.node1(Concat { axis: 0 }, &[shape, tail])?;
    let zero = ed.constant(Constant::from(zero))?;
    ed.node1(Expand {}, &[zero, shape])
}

/// The places where a vector is not 0, as many as `count` says.
fn places(ed: &mut Editor<'_>, v: ValueId, count: &Dim) -> Result<ValueId, Diag> {
    let at = ed.node1(NonZero {}, &[v])?;
    ed.set_fact(at, Fact::from(Type::tensor(DType::I64, vec![Dim::from(1usize), count.clone()])));
    ed.node1(Squeeze { axes: vec![0] }, &[at])
}

/// The number of rows that a region of a gate takes, as its parameter `i` has it along `axis`.
fn count_of(ed: &Editor<'_>, region: RegionId, (i, axis): (usize, usize)) -> Result<Dim, Diag> {
    let param = ed.graph().region(region).params.get(i).copied();
    let count = param.and_then(|p| ed.graph().dims(p)).and_then(|d| d.get(axis));
    let count = count.filter(|d| d.as_symbol().is_some()).cloned();
    count.ok_or_else(|| Diag::unsupported("a gate whose region fixes the number of its rows has no parts"))
}

fn rows(ed: &mut Editor<'_>, n: NodeId, op: &Gate) -> Result<ValueId, Diag> {
    let (mut mask, x) = (operand(ed, n, 0)?, operand(ed, n, 1)?);
    let ty = result_type(ed, n)?;
    let axis = normalize_axis(op.axis, ty.dims()?.len())?;
    if op.granularity == Granularity::Blocks {
        mask = of_rows(ed, (mask, x), axis, op.block)?;
    }
    let regions = ed.graph().node(n).regions.clone();
    let mut out = match op.fallback {
        Fallback::Identity => x,
        _ => zeros(ed, &ty, x)?,
    };
    if op.fallback == Fallback::Region {
        let others = ed.node1(Unary { kind: UnaryKind::Not }, &[mask])?;
        out = picked(ed, n, regions[1], (others, out), axis)?;
    }
    picked(ed, n, regions[0], (mask, out), axis)
}

/// One bool for each row, of those for blocks.
fn of_rows(
    ed: &mut Editor<'_>,
    (mask, x): (ValueId, ValueId),
    axis: usize,
    block: usize,
) -> Result<ValueId, Diag> {
    let rows = ed.graph().dims(x).and_then(|d| d.get(axis)).and_then(Dim::as_const);
    let rows = rows.ok_or_else(|| Diag::unsupported("gates of blocks of rows whose number is not known"))?;
    let places: Vec<i64> = (0..rows).map(|i| i / block.max(1) as i64).collect();
    let places = ints(ed, &places)?;
    ed.node1(Gather { axis: 0 }, &[mask, places])
}

/// `base` with the results of a region written to the rows that a mask selects; the region does not run if there are none.
fn picked(
    ed: &mut Editor<'_>,
    n: NodeId,
    region: RegionId,
    (mask, base): (ValueId, ValueId),
    axis: usize,
) -> Result<ValueId, Diag> {
    let count = count_of(ed, region, (0, axis))?;
    let numbers = ed.node1(Cast { to: DType::I64, saturate: true }, &[mask])?;
    let sum = Reduce { kind: ReduceKind::Sum, axes: Some(vec![0]), keepdims: false, noop_empty: false };
    let some = ed.node1(sum, &[numbers])?;
    let zero = ed.constant(Constant::from(Tensor::scalar_i64(0)))?;
    let any = ed.node1(Binary { kind: BinaryKind::Greater }, &[some, zero])?;
    let captured = [vec![mask, base], given(ed, n, 1)?].concat();
    let (yes, mut params) = region_for(ed, &[], &captured);
    ed.at_end(yes);
    let at = places(ed, params[0], &count)?;
    let rows = ed.node1(Gather { axis }, &[params[2], at])?;
    let mut values = params.split_off(2);
    values[0] = rows;
    let result = transplant(ed, region, yes, &values)?;
    let at = ed.node1(Unsqueeze { axes: vec![1] }, &[at])?;
    // Tuples of one index are written along the first axis.
    let rank = ed.graph().dims(params[1]).map_or(0, <[Dim]>::len);
    let mut perm: Vec<usize> = (0..rank).collect();
    perm.swap(0, axis);
    let turned = |ed: &mut Editor<'_>, v: ValueId| match axis {
        0 => Ok(v),
        _ => ed.node1(Transpose { perm: perm.clone() }, &[v]),
    };
    let (old, new) = (turned(ed, params[1])?, turned(ed, result)?);
    let out = ed.node1(ScatterNd { reduction: Reduction::None }, &[old, at, new])?;
    let out = turned(ed, out)?;
    ed.result(yes, out);
    let (no, params) = region_for(ed, &[], &captured);
    ed.result(no, params[1]);
    ed.before(n);
    let operands: Vec<_> = std::iter::once(any).chain(captured).map(Some).collect();
    first(ed.node_with_regions(If {}, &operands, vec![yes, no])?)
}

fn routed(ed: &mut Editor<'_>, n: NodeId, op: &Gate) -> Result<ValueId, Diag> {
    let (weights, x) = (operand(ed, n, 0)?, operand(ed, n, 1)?);
    let region = ed.graph().node(n).regions[0];
    let count = count_of(ed, region, (1, 0))?;
    let ty = result_type(ed, n)?;
    let rank = ty.dims()?.len();
    let weights_ty = ed.graph().ty(weights).as_tensor().cloned();
    let weights_ty =
        weights_ty.ok_or_else(|| Diag::error("type-mismatch", "routing weights are a tensor"))?;
    let experts = weights_ty.dims()?.get(1).and_then(Dim::as_const);
    let experts = experts.ok_or_else(|| Diag::unsupported("the number of experts is not known"))?;
    let sum = zeros(ed, &ty, x)?;
    let k = ints(ed, &[i64::try_from(op.k).unwrap_or(i64::MAX).min(experts)])?;
    let best = ed.node(TopK { axis: 1, largest: true }, &[Some(weights), Some(k)])?;
    let [values, at] = best[..] else { return Err(Diag::error("arity", "top-k has two results")) };
    let none = zeros(ed, &weights_ty, weights)?;
    let chosen = ed.node1(ScatterElements { axis: 1, reduction: Reduction::None }, &[none, at, values])?;
    let captured = [vec![chosen], given(ed, n, 1)?].concat();
    let carried = Fact::from(Type::from(ty));
    let (body, mut params) = region_for(ed, &[turn(), carried], &captured);
    let [expert, so_far] = [params.remove(0), params.remove(0)];
    ed.at_end(body);
    let column = ed.node1(Gather { axis: 1 }, &[params[0], expert])?;
    let at = places(ed, column, &count)?;
    let picked = ed.node1(Gather { axis: 0 }, &[params[1], at])?;
    params[0] = expert;
    params[1] = picked;
    let result = transplant(ed, region, body, &params)?;
    let mut factors = ed.node1(Gather { axis: 0 }, &[column, at])?;
    if rank > 1 {
        factors = ed.node1(Unsqueeze { axes: (1..rank).collect() }, &[factors])?;
    }
    let scaled = ed.node1(Binary { kind: BinaryKind::Mul }, &[result, factors])?;
    let at = ed.node1(Unsqueeze { axes: vec![1] }, &[at])?;
    let next = ed.node1(ScatterNd { reduction: Reduction::Add }, &[so_far, at, scaled])?;
    ed.result(body, next);
    ed.before(n);
    let trips = ed.constant(Constant::from(Tensor::scalar_i64(experts)))?;
    first(counted(ed, trips, (&[sum], &captured), 0, body)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interp;
    use crate::tensor::Value;
    use crate::text::{parse, print};
    use crate::verify::verify;

    fn same(text: &str, inputs: &[Value]) -> Result<(), Diag> {
        let g = parse(text)?;
        assert_eq!(verify(&g), []);
        let parts = without_gates(&g)?;
        assert_eq!(verify(&parts), [], "{}", print(&parts));
        assert!(!parts.all_nodes().into_iter().any(|n| matches!(parts.node(n).op, Op::Gate(_))));
        let (a, b) = (interp::run(&g, inputs.to_vec())?, interp::run(&parts, inputs.to_vec())?);
        assert_eq!(a.values, b.values, "{}", print(&parts));
        Ok(())
    }

    fn bools(v: &[i128]) -> Result<Value, Diag> {
        Ok(Tensor::ints(DType::Bool, &[v.len()], v.to_vec())?.into())
    }

    #[test]
    fn parts_of_gates_of_rows_and_wholes_give_the_same() -> Result<(), Diag> {
        let x: Value = Tensor::f32s(&[3, 2], &[1., 2., 3., 4., 5., 6.])?.into();
        for fallback in ["zero", "identity"] {
            let text = format!(
                "planish-ir 1\nsym N 0..\nsym R 0..\ngraph @\"main\"(v0 \"m\": bool[N], v1 \"x\": f32[N,2]) {{\n  v2 = \
                 gate{{granularity=rows, axis=0, block=0, k=0, fallback={fallback}}} v0, v1 (v3: f32[R,2]) {{\n    v4 = \
                 unary{{kind=neg}} v3 : f32[R,2]\n    yield v4\n  }} () {{\n    yield\n  }} : f32[N,2]\n  return v2 \"y\"\n}}\n"
            );
            for mask in [[0, 0, 0], [1, 0, 1], [1, 1, 1]] {
                same(&text, &[bools(&mask)?, x.clone()])?;
            }
            same(&text, &[bools(&[])?, Tensor::f32s(&[0, 2], &[])?.into()])?;
        }
        for fallback in ["zero", "identity", "region"] {
            let second = match fallback {
                "region" => "(v5: f32[3,2]) {\n    v6 = unary{kind=abs} v5 : f32[3,2]\n    yield v6\n  }",
                _ => "() {\n    yield\n  }",
            };
            let text = format!(
                "planish-ir 1\ngraph @\"main\"(v0 \"m\": bool[1], v1 \"x\": f32[3,2]) {{\n  v2 = \
                 gate{{granularity=whole, axis=0, block=0, k=0, fallback={fallback}}} v0, v1 (v3: f32[3,2]) {{\n    v4 = \
                 unary{{kind=neg}} v3 : f32[3,2]\n    yield v4\n  }} {second} : f32[3,2]\n  return v2 \"y\"\n}}\n"
            );
            for open in [0, 1] {
                same(&text, &[bools(&[open])?, x.clone()])?;
            }
        }
        Ok(())
    }

    #[test]
    fn parts_of_routed_gates_give_the_same() -> Result<(), Diag> {
        for (k, n, size) in [(1, "4", 4), (2, "N", 3), (3, "N", 0)] {
            let text = format!(
                "planish-ir 1\nsym N 0..\nsym R 0..\ngraph @\"main\"(v0 \"w\": f32[{n},3], v1 \"x\": f32[{n},2], v7 \"c\": f32[2]) {{\n  \
                 v2 = gate{{granularity=routed, axis=0, block=0, k={k}, fallback=zero}} v0, v1, v7 (v3: i64[], v4: f32[R,2], v8: \
                 f32[2]) {{\n    v5 = cast{{to=f32, saturate=true}} v3 : f32[]\n    v6 = binary{{kind=mul}} v4, v5 : f32[R,2]\n    v9 = \
                 binary{{kind=add}} v6, v8 : f32[R,2]\n    yield v9\n  }} () {{\n    yield\n  }} : f32[{n},2]\n  return v2 \"y\"\n}}\n"
            );
            let w: Vec<f32> = (0..size * 3).map(|i| ((i * 7) % 5) as f32 * 0.5).collect();
            let x: Vec<f32> = (0..size * 2).map(|i| i as f32).collect();
            let inputs = [
                Tensor::f32s(&[size, 3], &w)?,
                Tensor::f32s(&[size, 2], &x)?,
                Tensor::f32s(&[2], &[1.0, -1.0])?,
            ];
            same(&text, &inputs.map(Value::from))?;
        }
        Ok(())
    }

    #[test]
    fn parts_of_blocks_other_axes_and_second_regions_give_the_same() -> Result<(), Diag> {
        let x: Value = Tensor::f32s(&[2, 5], &[1., 2., 3., 4., 5., 6., 7., 8., 9., 10.])?.into();
        for fallback in ["zero", "identity", "region"] {
            let second = match fallback {
                "region" => "(v5: f32[2,Q]) {\n    v6 = unary{kind=exp} v5 : f32[2,Q]\n    yield v6\n  }",
                _ => "() {\n    yield\n  }",
            };
            for (granularity, gates) in [("rows", 5), ("blocks", 3)] {
                let text = format!(
                    "planish-ir 1\nsym R 0..\nsym Q 0..\ngraph @\"main\"(v0 \"m\": bool[{gates}], v1 \"x\": f32[2,5]) {{\n  v2 = \
                     gate{{granularity={granularity}, axis=1, block=2, k=0, fallback={fallback}}} v0, v1 (v3: f32[2,R]) {{\n    \
                     v4 = unary{{kind=neg}} v3 : f32[2,R]\n    yield v4\n  }} {second} : f32[2,5]\n  return v2 \"y\"\n}}\n"
                );
                for mask in [[0; 5], [1, 0, 1, 0, 0], [0, 0, 1, 1, 0], [1; 5]] {
                    same(&text, &[bools(&mask[..gates])?, x.clone()])?;
                }
            }
        }
        Ok(())
    }

    #[test]
    fn what_has_no_parts_is_said() -> Result<(), Diag> {
        let text = "planish-ir 1\ngraph @\"main\"(v0 \"m\": bool[2], v1 \"x\": f32[4,2]) {\n  v2 = \
                    gate{granularity=blocks, axis=0, block=2, k=0, fallback=zero} v0, v1 (v3: f32[4,2]) {\n    v4 = unary{kind=neg} \
                    v3 : f32[4,2]\n    yield v4\n  } () {\n    yield\n  } : f32[4,2]\n  return v2 \"y\"\n}\n";
        let g = parse(text)?;
        assert_eq!(without_gates(&g).err().map(|d| d.id), Some("unsupported"));
        Ok(())
    }
}
