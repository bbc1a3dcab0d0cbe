//! See [`SimplifyShapes`].

use crate::{Options, Pass, PassCx, PassMeta, declare_pass, util};
use planish_ir::op::reshape::Reshape;
use planish_ir::op::views::{Squeeze, Transpose, Unsqueeze};
use planish_ir::{Diag, Editor, NodeId, Op, ValueId};

declare_pass! {
    /// Removes and joins operations that only rename or move elements: views that change nothing, chains of views,
    /// transpositions that cancel or move only axes of size 1, expansions to the same shape, casts to the same dtype,
    /// concatenations and splits of one part, slices of everything.
    ///
    /// # Preserves
    /// All outputs bit for bit.
    ///
    /// # Declines
    /// Where a dim is known only at run time and decides, nothing changes.
    ///
    /// # Example
    /// `v1 = transpose{perm=[1, 0]} v0  v2 = transpose{perm=[1, 0]} v1` becomes `v0`.
    pub struct SimplifyShapes {} = { name: "simplify-shapes", kind: Exact, options: [] }
}

impl SimplifyShapes {
    pub(crate) fn new(_: &Options) -> Result<Self, Diag> {
        Ok(SimplifyShapes {})
    }
}

impl Pass for SimplifyShapes {
    fn meta(&self) -> &'static PassMeta {
        &Self::META
    }
    fn run(&self, ed: &mut Editor<'_>, cx: &mut PassCx) -> Result<(), Diag> {
        for (_, nodes) in util::regions(ed.graph()) {
            for n in nodes {
                if ed.graph().is_live(n) && step(ed, n)? {
                    cx.add("nodes-simplified", 1.0);
                }
            }
        }
        Ok(())
    }
}

/// Whether an operation gives its operand's elements in the same order under another shape.
pub(crate) fn is_view(op: &Op) -> bool {
    matches!(op, Op::Reshape(_) | Op::Squeeze(_) | Op::Unsqueeze(_) | Op::Flatten(_))
}

fn step(ed: &mut Editor<'_>, n: NodeId) -> Result<bool, Diag> {
    let g = ed.graph();
    let node = g.node(n);
    let (Some(x), [y]) = (util::operand(g, n, 0), node.outputs.as_slice()) else { return Ok(false) };
    let y = *y;
    if g.uses(y).is_empty() {
        return Ok(false);
    }
    let same_type = g.ty(x) == g.ty(y);
    let op = node.op.clone();
    match op {
        op if is_view(&op) && same_type && g.dims(x).is_some() => forward(ed, n, x),
        op if is_view(&op) => join_views(ed, n, x, y),
        Op::Transpose(t) => transpose(ed, n, x, &t),
        Op::Expand(_) | Op::Tile(_) | Op::Pad(_) | Op::Slice(_) if same_type && is_identity(ed, n) => {
            forward(ed, n, x)
        }
        Op::Cast(c) if g.dtype(x) == Some(c.to) => forward(ed, n, x),
        Op::Concat(_) if node.inputs.len() == 1 => forward(ed, n, x),
        Op::Split(_) => forward(ed, n, x),
        _ => Ok(false),
    }
}

/// Whether an operation whose result has the type of its operand changes nothing.
fn is_identity(ed: &Editor<'_>, n: NodeId) -> bool {
    let g = ed.graph();
    let all = |i: usize, want: f64| {
        util::operand(g, n, i)
            .and_then(|v| util::constant(g, v)?.small(64))
            .is_some_and(|t| t.to_f64().iter().all(|v| *v == want))
    };
    match &g.node(n).op {
        // Equal dims before and after leave nothing to repeat or to drop, unless a slice runs backwards.
        Op::Expand(_) => true,
        Op::Tile(_) => all(1, 1.0),
        Op::Pad(_) => all(1, 0.0),
        Op::Slice(_) => util::operand(g, n, 4).is_none() || all(4, 1.0),
        _ => false,
    }
}

fn forward(ed: &mut Editor<'_>, n: NodeId, x: ValueId) -> Result<bool, Diag> {
    let y = ed.graph().node(n).outputs[0];
    ed.replace(y, x);
    ed.erase(n)?;
    Ok(true)
}

/// A view of a view is one view of the first operand, where its dims can be written down.
fn join_views(ed: &mut Editor<'_>, n: NodeId, x: ValueId, y: ValueId) -> Result<bool, Diag> {
    let g = ed.graph();
    let Some(d) = g.def_node(x) else { return Ok(false) };
    if !is_view(&g.node(d).op) {
        return Ok(false);
    }
    let Some(first) = util::operand(g, d, 0) else { return Ok(false) };
    let (Some(from), Some(to)) = (g.dims(first), g.dims(y)) else { return Ok(false) };
    let (from, to) = (from.to_vec(), to.to_vec());
    if from == to {
        ed.replace(y, first);
        ed.erase(n)?;
        return Ok(true);
    }
    // One unknown dim can be written as -1, unless another dim is 0 and leaves it open.
    let unknown = to.iter().filter(|d| d.as_const().is_none()).count();
    if unknown > 1 || (unknown == 1 && to.iter().any(|d| d.is(0))) {
        return Ok(false);
    }
    let spec: Vec<i64> = to.iter().map(|d| d.as_const().unwrap_or(-1)).collect();
    ed.before(n);
    let spec = util::ints(ed, &spec)?;
    let new = ed.node1(Reshape { allow_zero: true }, &[first, spec])?;
    let declared = ed.graph().value(y).fact.clone();
    ed.set_fact(new, declared);
    ed.replace(y, new);
    ed.erase(n)?;
    Ok(true)
}

fn transpose(ed: &mut Editor<'_>, n: NodeId, x: ValueId, t: &Transpose) -> Result<bool, Diag> {
    let g = ed.graph();
    if t.perm.iter().enumerate().all(|(i, p)| i == *p) {
        return forward(ed, n, x);
    }
    if let Some(d) = g.def_node(x)
        && let Op::Transpose(first) = &g.node(d).op
        && let Some(source) = util::operand(g, d, 0)
    {
        let perm = t.perm.iter().map(|p| first.perm[*p]).collect();
        ed.rewrite(n, Transpose { perm }, &[Some(source)])?;
        return Ok(true);
    }
    // Only axes of size 1 move: the order of the elements stays.
    let Some(dims) = g.dims(x) else { return Ok(false) };
    let long: Vec<usize> = t.perm.iter().copied().filter(|p| !dims[*p].is(1)).collect();
    if long.windows(2).any(|w| w[0] > w[1]) {
        return Ok(false);
    }
    let single: Vec<usize> = (0..dims.len()).filter(|i| dims[*i].is(1)).collect();
    let made: Vec<usize> = (0..t.perm.len()).filter(|i| dims[t.perm[*i]].is(1)).collect();
    let y = ed.graph().node(n).outputs[0];
    ed.before(n);
    let squeezed = ed.node1(Squeeze { axes: single }, &[x])?;
    let new = ed.node1(Unsqueeze { axes: made }, &[squeezed])?;
    ed.replace(y, new);
    ed.erase(n)?;
    Ok(true)
}
