//! Gates in the parts that stand for them in formats without gates, see [`planish_ir::op::control::expand_gates`].

use super::{binary, unary};
use crate::util;
use planish_ir::graph::{Def, Fact, Use};
use planish_ir::op::binary::BinaryKind as B;
use planish_ir::op::control::{Fallback, Gate, Granularity, Loop, transplant};
use planish_ir::op::reduce::ReduceKind;
use planish_ir::op::scatter::{Reduction, ScatterElements, ScatterNd};
use planish_ir::op::sort::TopK;
use planish_ir::op::unary::UnaryKind as U;
use planish_ir::{Diag, Editor, Graph, NodeId, Op, RegionId, Type, ValueId};

/// Puts a gate in the place of its parts if `n` is the node that holds their regions; says which.
pub(super) fn recognise(ed: &mut Editor<'_>, n: NodeId) -> Result<Option<&'static str>, Diag> {
    let (made, name) = match ed.graph().node(n).op {
        Op::Loop(_) => {
            let parts = routed_parts(ed.graph(), n);
            (compacted(ed, n, parts)?, "routed-gate")
        }
        Op::If(_) => match rows_parts(ed.graph(), n) {
            None => (whole(ed, n)?, "whole-gate"),
            parts => (compacted(ed, n, parts)?, "rows-gate"),
        },
        _ => return Ok(None),
    };
    let Some(new) = made else { return Ok(None) };
    let y = ed.graph().node(n).outputs[0];
    ed.replace(y, new);
    ed.erase(n)?;
    Ok(Some(name))
}

/// The parameter of its region that a value is.
fn param(g: &Graph, v: ValueId) -> Option<usize> {
    match g.value(v).def {
        Def::Param(_, i) => Some(i as usize),
        Def::Node(..) => None,
    }
}

/// `non-zero` of a vector as the places in it: the vector, and the nodes.
fn places(g: &Graph, at: ValueId) -> Option<(ValueId, Vec<NodeId>)> {
    let s = g.def_node(at)?;
    let single = match &g.node(s).op {
        Op::Squeeze(s) => s.axes == [0],
        Op::Reshape(_) => g.dims(at)?.len() == 1,
        _ => false,
    };
    let z = g.def_node(util::operand(g, s, 0)?)?;
    let v = util::operand(g, z, 0)?;
    (single && matches!(g.node(z).op, Op::NonZero(_)) && g.dims(v)?.len() == 1).then(|| (v, vec![s, z]))
}

/// The places that a column of them lists: the vector of them, and the node that makes the column.
fn column(g: &Graph, v: ValueId) -> Option<(ValueId, NodeId)> {
    let n = g.def_node(v)?;
    let wide = match &g.node(n).op {
        Op::Unsqueeze(u) => u.axes == [1],
        Op::Reshape(_) => g.dims(v)?.len() == 2 && g.dims(v)?[1].is(1),
        _ => false,
    };
    let from = util::operand(g, n, 0)?;
    let vector = |v: ValueId| g.dims(v).is_some_and(|d| d.len() == 1);
    if !wide || vector(from) {
        return wide.then_some((from, n));
    }
    // The row that `non-zero` gives may have become a column without being a vector in between.
    if !matches!(g.node(g.def_node(from)?).op, Op::NonZero(_)) {
        return None;
    }
    let mut made = g.uses(from).iter().filter_map(|u| match u {
        Use::Node(m, 0) => g.node(*m).outputs.first().copied(),
        _ => None,
    });
    made.find(|at| vector(*at)).map(|at| (at, n))
}

/// `gather{axis=0} x, at`, which takes rows of parameter `x`.
fn pick(g: &Graph, at: ValueId, besides: &[NodeId]) -> Option<(ValueId, NodeId)> {
    let mut found = None;
    for u in g.uses(at) {
        let Use::Node(n, i) = *u else { return None };
        if besides.contains(&n) {
            continue;
        }
        let x = match &g.node(n).op {
            Op::Gather(op) if op.axis == 0 && i == 1 => util::operand(g, n, 0)?,
            _ => return None,
        };
        if found.replace((x, n)).is_some() {
            return None;
        }
    }
    found
}

/// Whether only these nodes use a value.
fn used_by(g: &Graph, v: ValueId, nodes: &[NodeId]) -> bool {
    g.uses(v).iter().all(|u| matches!(u, Use::Node(n, _) if nodes.contains(n)))
}

/// What of a region becomes the region of a gate.
struct Body {
    from: RegionId,
    /// Its nodes that only put rows in their places.
    frame: Vec<NodeId>,
    /// The rows that are picked, and what comes of them.
    picked: ValueId,
    result: ValueId,
}

/// Moves a body into a new region with these parameters before it. Captures are the parameters of the old region in `captures`.
fn move_body(
    ed: &mut Editor<'_>,
    body: &Body,
    first: Option<ValueId>,
    captures: &[ValueId],
) -> Result<RegionId, Diag> {
    let region = ed.new_region();
    for v in first.into_iter().chain([body.picked]).chain(captures.iter().copied()) {
        let fact: Fact = ed.graph().value(v).fact.clone();
        let p = ed.param(region, fact);
        // Frames are left behind and use what they used.
        for u in ed.graph().uses(v).to_vec() {
            if !matches!(u, Use::Node(n, _) if body.frame.contains(&n)) {
                ed.set_use(u, p);
            }
        }
    }
    let nodes: Vec<NodeId> = ed.graph().nodes_in(body.from).filter(|n| !body.frame.contains(n)).collect();
    // A constant that the frame uses too has a copy in it.
    for n in &nodes {
        let Op::Const(c) = ed.graph().node(*n).op.clone() else { continue };
        let v = ed.graph().node(*n).outputs[0];
        for u in ed.graph().uses(v).to_vec() {
            if matches!(u, Use::Node(m, _) if body.frame.contains(&m)) {
                ed.before(*n);
                let copy = ed.node1(Op::Const(c.clone()), &[])?;
                ed.set_use(u, copy);
            }
        }
    }
    ed.at_end(region);
    nodes.into_iter().for_each(|n| ed.move_here(n));
    let result = match ed.graph().value(body.result).def {
        Def::Param(r, _) if r != region => ed.graph().region(region).params[usize::from(first.is_some())],
        _ => body.result,
    };
    ed.result(region, result);
    Ok(region)
}

/// What gates of rows and routed ones are made of: the body, the gate, its first two operands, and which parameters are captures.
type Compacted = (Body, Gate, ValueId, ValueId, Vec<usize>);

/// A gate that takes some rows, before the node that holds its parts.
fn compacted(ed: &mut Editor<'_>, n: NodeId, parts: Option<Compacted>) -> Result<Option<ValueId>, Diag> {
    let Some((body, gate, control, x, captures)) = parts else { return Ok(None) };
    let g = ed.graph();
    let params = g.region(body.from).params.clone();
    let inner: Vec<ValueId> = captures.iter().map(|i| params[*i]).collect();
    let operands: Vec<_> = [Some(control), Some(x)]
        .into_iter()
        .chain(captures.iter().map(|i| g.node(n).inputs[*i + 1]))
        .collect();
    // The number of the expert comes before its rows.
    let number = (gate.granularity == Granularity::Routed).then(|| params[0]);
    ed.before(n);
    let region = move_body(ed, &body, number, &inner)?;
    ed.before(n);
    let empty = ed.new_region();
    Ok(ed.node_with_regions(gate, &operands, vec![region, empty])?.first().copied())
}

/// A loop that runs each expert on the rows whose weight for it is not 0.
fn routed_parts(g: &Graph, n: NodeId) -> Option<Compacted> {
    let Op::Loop(Loop { carried: 1, scans: 0, conditional: false }) = g.node(n).op else { return None };
    let from = *g.node(n).regions.first()?;
    let (trips, sum) = (util::operand(g, n, 0)?, util::operand(g, n, 2)?);
    if util::operand(g, n, 1).is_some() || !util::is_zero(g, sum) {
        return None;
    }
    let result = *g.region(from).results.first()?;
    let write = g.def_node(result)?;
    let Op::ScatterNd(ScatterNd { reduction: Reduction::Add }) = g.node(write).op else { return None };
    let (into, to, what) =
        (util::operand(g, write, 0)?, util::operand(g, write, 1)?, util::operand(g, write, 2)?);
    let (at, unsqueeze) = column(g, to)?;
    let (weights_of, mut frame) = places(g, at)?;
    frame.extend([write, unsqueeze]);
    let slice = g.def_node(weights_of)?;
    let Op::Gather(ref s) = g.node(slice).op else { return None };
    let (chosen, expert) = (util::operand(g, slice, 0)?, util::operand(g, slice, 1)?);
    if s.axis != 1 || param(g, expert) != Some(0) || param(g, into) != Some(1) {
        return None;
    }
    frame.push(slice);
    let (scale, a, b) = binary(g, what, B::Mul)?;
    frame.push(scale);
    let factor = |v: ValueId| {
        let mut nodes = Vec::new();
        let mut v = v;
        if let Some(n) = g.def_node(v)
            && matches!(g.node(n).op, Op::Unsqueeze(_) | Op::Reshape(_))
        {
            nodes.push(n);
            v = util::operand(g, n, 0)?;
        }
        let n = g.def_node(v)?;
        nodes.push(n);
        let is = matches!(&g.node(n).op, Op::Gather(o) if o.axis == 0)
            && util::operand(g, n, 0) == Some(weights_of)
            && util::operand(g, n, 1) == Some(at);
        is.then_some(nodes)
    };
    let (result, factors) = match (factor(a), factor(b)) {
        (_, Some(f)) => (a, f),
        (Some(f), None) => (b, f),
        (None, None) => return None,
    };
    frame.extend(factors);
    let (x, picking) = pick(g, at, &frame)?;
    frame.push(picking);
    let picked = g.node(picking).outputs[0];
    let (cp, xp) = (param(g, chosen)?, param(g, x)?);
    let own = [into, chosen, x, weights_of, at].iter().all(|v| used_by(g, *v, &frame));
    let once =
        frame.iter().all(|f| *f == picking || *f == write || used_by(g, g.node(*f).outputs[0], &frame));
    if !own || !once || cp < 2 || xp < 2 || !follows_rows(g, result, picked) {
        return None;
    }
    // Outside: the weights of the best experts of each row, and 0 for the others.
    let outer = |p: usize| util::operand(g, n, p + 1);
    let spread = g.def_node(outer(cp)?)?;
    let Op::ScatterElements(ScatterElements { axis: 1, reduction: Reduction::None }) = g.node(spread).op
    else {
        return None;
    };
    let (none, which, values) =
        (util::operand(g, spread, 0)?, util::operand(g, spread, 1)?, util::operand(g, spread, 2)?);
    let best = g.def_node(which)?;
    let Op::TopK(TopK { axis: 1, largest: true }) = g.node(best).op else { return None };
    if !util::is_zero(g, none) || g.node(best).outputs[..] != [values, which] {
        return None;
    }
    let weights = util::operand(g, best, 0)?;
    let int = |v: ValueId| util::constant(g, v)?.decode().ok()?.to_i64().ok()?.first().copied();
    let k = usize::try_from(int(util::operand(g, best, 1)?)?).ok()?;
    if g.dims(weights)?.get(1)?.as_const() != int(trips) || k == 0 {
        return None;
    }
    let captures = (2..g.region(from).params.len()).filter(|p| *p != cp && *p != xp).collect();
    let gate = Gate { granularity: Granularity::Routed, axis: 0, block: 0, k, fallback: Fallback::Zero };
    Some((Body { from, frame, picked, result }, gate, weights, outer(xp)?, captures))
}

/// Whether a result has a row for each picked one.
fn follows_rows(g: &Graph, result: ValueId, picked: ValueId) -> bool {
    let first = |v| g.dims(v).and_then(|d| d.first().cloned());
    first(result).is_some()
        && first(result) == first(picked)
        && first(picked).is_some_and(|d| d.as_symbol().is_some())
}

/// A branch on the rows of a mask.
fn rows_parts(g: &Graph, n: NodeId) -> Option<Compacted> {
    let [yes, no] = g.node(n).regions[..] else { return None };
    let ([result], [other]) = (&g.region(yes).results[..], &g.region(no).results[..]) else { return None };
    let write = g.def_node(*result)?;
    let Op::ScatterNd(ScatterNd { reduction: Reduction::None }) = g.node(write).op else { return None };
    let (into, to, result) =
        (util::operand(g, write, 0)?, util::operand(g, write, 1)?, util::operand(g, write, 2)?);
    let (at, unsqueeze) = column(g, to)?;
    let (mask, mut frame) = places(g, at)?;
    frame.extend([write, unsqueeze]);
    let (x, picking) = pick(g, at, &frame)?;
    frame.push(picking);
    let picked = g.node(picking).outputs[0];
    let (mp, xp) = (param(g, mask)?, param(g, x)?);
    let outer = |p: usize| util::operand(g, n, p + 1);
    let mask_outside = outer(mp)?;
    // The condition: whether any row is there.
    let (_, count, zero) = binary(g, util::operand(g, n, 0)?, B::Greater)?;
    let sum = g.def_node(count)?;
    let summed = util::operand(g, sum, 0)?;
    let cast = g.def_node(summed)?;
    let any = matches!(&g.node(sum).op, Op::Reduce(r) if r.kind == ReduceKind::Sum)
        && matches!(g.node(cast).op, Op::Cast(_))
        && util::operand(g, cast, 0) == Some(mask_outside)
        && is_zero_int(g, zero)
        && g.dtype(mask_outside) == Some(planish_ir::DType::Bool);
    if !any || !follows_rows(g, result, picked) {
        return None;
    }
    let mut own = vec![mask, at];
    let fallback = if param(g, into) == Some(xp) && param(g, *other) == Some(xp) {
        Fallback::Identity
    } else if both_zero(g, n, into, *other) {
        if param(g, into).is_some() {
            own.push(into);
        }
        Fallback::Zero
    } else {
        return None;
    };
    own.push(x);
    let once =
        frame.iter().all(|f| *f == picking || *f == write || used_by(g, g.node(*f).outputs[0], &frame));
    let idle = g.nodes_in(no).all(|m| matches!(g.node(m).op, Op::Const(_)));
    if !once || !idle || !own.iter().all(|v| used_by(g, *v, &frame)) {
        return None;
    }
    let gone = [Some(mp), Some(xp), param(g, into)];
    let captures = (0..g.region(yes).params.len()).filter(|p| !gone.contains(&Some(*p))).collect();
    let gate = Gate { granularity: Granularity::Rows, axis: 0, block: 0, k: 0, fallback };
    Some((Body { from: yes, frame, picked, result }, gate, mask_outside, outer(xp)?, captures))
}

fn is_zero_int(g: &Graph, v: ValueId) -> bool {
    util::constant(g, v)
        .and_then(|c| c.decode().ok()?.to_i64().ok())
        .is_some_and(|v| v.iter().all(|x| *x == 0))
}

/// Whether both branches begin with, or give, a tensor of zeros: a constant of theirs or one that they capture.
fn both_zero(g: &Graph, n: NodeId, into: ValueId, other: ValueId) -> bool {
    let zero = |v: ValueId| match param(g, v) {
        Some(p) => util::operand(g, n, p + 1).is_some_and(|v| util::is_zero(g, v)),
        None => util::is_zero(g, v),
    };
    zero(into) && zero(other)
}

/// A branch on a confidence, of which one side computes nothing.
fn whole(ed: &mut Editor<'_>, n: NodeId) -> Result<Option<ValueId>, Diag> {
    let g = ed.graph();
    let node = g.node(n);
    let [yes, no] = node.regions[..] else { return Ok(None) };
    let idle = |r: RegionId| {
        g.nodes_in(r).all(|m| matches!(g.node(m).op, Op::Const(_)))
            && g.region(r).results.iter().all(|v| param(g, *v).is_some())
    };
    let (a, b) = (idle(yes), idle(no));
    let Some(condition) = util::operand(g, n, 0).filter(|c| is_confidence(g, *c)) else { return Ok(None) };
    let tensors = node.outputs.iter().all(|v| matches!(g.ty(*v), Type::Tensor(_)));
    if a == b || node.outputs.len() != 1 || !tensors {
        return Ok(None);
    }
    let (work, rest) = if a { (no, yes) } else { (yes, no) };
    let captured: Vec<ValueId> = node.inputs.iter().skip(1).flatten().copied().collect();
    if captured.is_empty() || captured.len() + 1 != node.inputs.len() {
        return Ok(None);
    }
    ed.before(n);
    let open = match (a, unary(ed.graph(), condition, U::Not)) {
        (false, _) => condition,
        (true, Some((_, inner))) => inner,
        (true, None) => ed.node1(planish_ir::op::unary::Unary { kind: U::Not }, &[condition])?,
    };
    let mut regions = Vec::new();
    for from in [work, rest] {
        let region = ed.new_region();
        let mut params = Vec::new();
        for v in &captured {
            let fact = ed.graph().value(*v).fact.clone();
            params.push(ed.param(region, fact));
        }
        let result = transplant(ed, from, region, &params)?;
        ed.result(region, result);
        regions.push(region);
    }
    ed.before(n);
    let gate = Gate { granularity: Granularity::Whole, axis: 0, block: 0, k: 0, fallback: Fallback::Region };
    let operands: Vec<_> = std::iter::once(open).chain(captured).map(Some).collect();
    Ok(ed.node_with_regions(gate, &operands, regions)?.first().copied())
}

/// Whether a value says if the largest of some numbers is above a constant.
fn is_confidence(g: &Graph, mut v: ValueId) -> bool {
    while let Some(n) = g.def_node(v) {
        match &g.node(n).op {
            Op::Unary(u) if u.kind == U::Not => {}
            Op::Squeeze(_) | Op::Reshape(_) => {}
            Op::Binary(b) if matches!(b.kind, B::Greater | B::GreaterEqual | B::Less | B::LessEqual) => {
                let sides = [util::operand(g, n, 0), util::operand(g, n, 1)];
                let constant = sides.iter().flatten().any(|v| util::constant(g, *v).is_some());
                let most = |v: ValueId| {
                    let n = g.def_node(v)?;
                    matches!(&g.node(n).op, Op::Reduce(r) if r.kind == ReduceKind::Max).then_some(())
                };
                return constant && sides.iter().flatten().any(|v| most(*v).is_some());
            }
            _ => return false,
        }
        match util::operand(g, n, 0) {
            Some(x) => v = x,
            None => return false,
        }
    }
    false
}
