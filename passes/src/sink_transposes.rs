//! See [`SinkTransposes`].

use crate::{Options, Pass, PassCx, PassMeta, declare_pass, util};
use planish_ir::graph::Use;
use planish_ir::op::concat::Concat;
use planish_ir::op::reduce::Reduce;
use planish_ir::op::softmax::Softmax;
use planish_ir::op::views::Transpose;
use planish_ir::{Diag, Editor, Graph, NodeId, Op, ValueId};

declare_pass! {
    /// Moves transpositions towards the results, through element-wise operations, reductions, softmax and concatenation, until they meet one that undoes them.
    /// Exporters of channels-last models put one around every convolution; what is left after this pass is what the model's inputs and outputs need.
    ///
    /// # Preserves
    /// All outputs; a reduction over several axes may add in another order (relative 1e-6 in f32). The number of transpositions never grows.
    ///
    /// # Declines
    /// Where the transposed value has other users that keep the transposition alive, or another operand varies and is not transposed in the same way: remark `transpose-kept`.
    ///
    /// # Example
    /// `v1 = transpose{perm=[0, 2, 3, 1]} v0  v2 = unary{kind=relu} v1` becomes the relu of `v0`, transposed.
    pub struct SinkTransposes {} = { name: "sink-transposes", kind: Exact, options: [] }
}

impl SinkTransposes {
    pub(crate) fn new(_: &Options) -> Result<Self, Diag> {
        Ok(SinkTransposes {})
    }
}

impl Pass for SinkTransposes {
    fn meta(&self) -> &'static PassMeta {
        &Self::META
    }
    fn run(&self, ed: &mut Editor<'_>, cx: &mut PassCx) -> Result<(), Diag> {
        for (_, nodes) in util::regions(ed.graph()) {
            for n in nodes {
                if !ed.graph().is_live(n) {
                    continue;
                }
                if cancel(ed, n)? || sink(ed, n, cx)? {
                    cx.add("transposes-moved", 1.0);
                }
            }
        }
        Ok(())
    }
}

/// The operand and the permutation of the transposition that a value is the result of.
fn transposed(g: &Graph, v: ValueId) -> Option<(NodeId, ValueId, &[usize])> {
    let n = g.def_node(v)?;
    match &g.node(n).op {
        Op::Transpose(t) => Some((n, util::operand(g, n, 0)?, &t.perm)),
        _ => None,
    }
}

fn undoes(first: &[usize], second: &[usize]) -> bool {
    first.len() == second.len() && second.iter().enumerate().all(|(i, p)| first[*p] == i)
}

/// A transposition of a transposition that undoes it, removed here so that what follows it can sink in the same run.
fn cancel(ed: &mut Editor<'_>, n: NodeId) -> Result<bool, Diag> {
    let g = ed.graph();
    let Op::Transpose(second) = &g.node(n).op else { return Ok(false) };
    let Some(x) = util::operand(g, n, 0) else { return Ok(false) };
    let Some((_, source, first)) = transposed(g, x) else { return Ok(false) };
    if !undoes(first, &second.perm) {
        return Ok(false);
    }
    let y = g.node(n).outputs[0];
    ed.replace(y, source);
    ed.erase(n)?;
    Ok(true)
}

/// Whether nobody but `n`, and transpositions that undo it, uses the transposition `t`.
fn freed(g: &Graph, t: NodeId, perm: &[usize], n: NodeId) -> bool {
    g.uses(g.node(t).outputs[0]).iter().all(|u| match u {
        Use::Node(m, _) if *m == n => true,
        Use::Node(m, _) => matches!(&g.node(*m).op, Op::Transpose(s) if undoes(perm, &s.perm)),
        Use::Result(..) => false,
    })
}

/// What a node becomes when its operands are not transposed.
struct Sunk {
    op: Op,
    /// The permutation of its result; none when the result needs none.
    perm: Option<Vec<usize>>,
}

fn sink(ed: &mut Editor<'_>, n: NodeId, cx: &mut PassCx) -> Result<bool, Diag> {
    let g = ed.graph();
    let node = g.node(n);
    let [y] = node.outputs.as_slice() else { return Ok(false) };
    let y = *y;
    let first = node.inputs.iter().flatten().find_map(|v| transposed(g, *v));
    let Some((perm, Some(sunk))) = first.map(|(_, _, perm)| (perm.to_vec(), sunk(g, n, perm))) else {
        return Ok(false);
    };
    if g.uses(y).is_empty() {
        return Ok(false);
    }
    let Some(operands) = node.inputs.iter().map(|v| operand(g, *v, &perm)).collect::<Option<Vec<_>>>() else {
        cx.remark(g, n, "transpose-kept", "another operand is not transposed in the same way");
        return Ok(false);
    };
    let frees = operands.iter().any(|o| matches!(o, Operand::Source(t, _) if freed(g, *t, &perm, n)));
    if !frees {
        cx.remark(g, n, "transpose-kept", "the transposed value has other users");
        return Ok(false);
    }
    ed.before(n);
    let mut inputs = Vec::new();
    for o in operands {
        inputs.push(match o {
            Operand::Source(_, v) => Some(v),
            Operand::Same(v) => v,
            Operand::Constant(v, shape) => Some(permuted(ed, v, shape, &perm)?),
        });
    }
    let mut new = ed.node(sunk.op, &inputs)?[0];
    if let Some(perm) = sunk.perm {
        new = ed.node1(Transpose { perm }, &[new])?;
    }
    let declared = ed.graph().value(y).fact.clone();
    ed.set_fact(new, declared);
    ed.replace(y, new);
    ed.erase(n)?;
    Ok(true)
}

/// The operation on operands that are not transposed by `perm`, if this pass can move it.
fn sunk(g: &Graph, n: NodeId, perm: &[usize]) -> Option<Sunk> {
    let node = g.node(n);
    let whole = |op: Op| Some(Sunk { op, perm: Some(perm.to_vec()) });
    match &node.op {
        op if op.is_elementwise() => {
            // A transposed operand that is widened is the smaller one to transpose.
            let rank = perm.len();
            let dims = g.dims(node.outputs[0]).filter(|d| d.len() == rank)?;
            let narrow = |v: &ValueId| transposed(g, *v).is_some() && g.dims(*v) != Some(dims);
            (!node.inputs.iter().flatten().any(narrow)).then(|| whole(op.clone()))?
        }
        Op::Softmax(s) => whole(Softmax { axis: *perm.get(s.axis)?, ..s.clone() }.into()),
        Op::Concat(c) => whole(Concat { axis: *perm.get(c.axis)? }.into()),
        Op::Reduce(r) if node.inputs.iter().flatten().count() == 1 => {
            let axes = r.axes.as_ref()?;
            let mut moved = axes.iter().map(|a| perm.get(*a).copied()).collect::<Option<Vec<_>>>()?;
            moved.sort_unstable();
            let op = Op::from(Reduce { axes: Some(moved.clone()), ..r.clone() });
            if r.keepdims {
                return whole(op);
            }
            let kept: Vec<usize> = perm.iter().copied().filter(|p| !moved.contains(p)).collect();
            let mut order = kept.clone();
            order.sort_unstable();
            let at = |p: &usize| order.iter().position(|q| q == p);
            let left = kept.iter().map(at).collect::<Option<Vec<_>>>()?;
            let ordered = left.windows(2).all(|w| w[0] < w[1]);
            Some(Sunk { op, perm: (!ordered).then_some(left) })
        }
        _ => None,
    }
}

/// An operand of the operation before the transposition.
enum Operand {
    /// Transposed by this node; the value before it.
    Source(NodeId, ValueId),
    /// One element, or omitted: as it is.
    Same(Option<ValueId>),
    /// A constant to be transposed back, its shape filled up to the rank.
    Constant(ValueId, Vec<usize>),
}

fn operand(g: &Graph, v: Option<ValueId>, perm: &[usize]) -> Option<Operand> {
    let Some(v) = v else { return Some(Operand::Same(None)) };
    if let Some((t, source, p)) = transposed(g, v)
        && p == perm
    {
        return Some(Operand::Source(t, source));
    }
    let dims = g.dims(v)?;
    if dims.len() <= perm.len() && dims.iter().all(|d| d.is(1)) {
        return Some(Operand::Same(Some(v)));
    }
    let c = util::constant(g, v)?;
    let lead = perm.len().checked_sub(c.shape.len())?;
    Some(Operand::Constant(v, std::iter::repeat_n(1, lead).chain(c.shape.iter().copied()).collect()))
}

/// A constant whose transposition by `perm` is `v`.
fn permuted(ed: &mut Editor<'_>, v: ValueId, shape: Vec<usize>, perm: &[usize]) -> Result<ValueId, Diag> {
    let Some(c) = util::constant(ed.graph(), v) else { return Ok(v) };
    let full = c.reshaped(shape)?;
    let full = ed.constant(full)?;
    let mut inverse = vec![0; perm.len()];
    for (i, p) in perm.iter().enumerate() {
        inverse[*p] = i;
    }
    ed.node1(Transpose { perm: inverse }, &[full])
}
