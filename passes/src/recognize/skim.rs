//! Layers that skim, in the loop that stands for them in formats without such layers
//! ([`without_skims`](planish_ir::op::recurrent::skim::without_skims)).
//!
//! What is looked for is what such a layer is written as, in canonical form: the loop of a layer of the same sizes is made in a graph of
//! its own, and the two are compared node by node. What the made one has as inputs, the found one may have as anything from outside.

use crate::pipeline::CANONICAL;
use crate::{Pipeline, TargetFacts, util};
use planish_ir::graph::Def;
use planish_ir::op::binary::BinaryKind;
use planish_ir::op::build::Build;
use planish_ir::op::control::{Loop, expand_gates};
use planish_ir::op::recurrent::Cell;
use planish_ir::op::recurrent::skim::{Captures, CellParts, SkimRecurrent};
use planish_ir::op::views::Squeeze;
use planish_ir::{ConstId, Diag, Dim, Editor, Graph, NodeId, Op, RegionId, Type, ValueId};
use std::collections::{BTreeMap, BTreeSet};

/// Puts a layer that skims in the place of the loop `n` if that is one; says whether it is.
pub(super) fn recognise(ed: &mut Editor<'_>, n: NodeId) -> Result<bool, Diag> {
    let Some(found) = find(ed.graph(), n)? else { return Ok(false) };
    ed.before(n);
    let node = ed.graph().node(n).clone();
    let start: Vec<ValueId> = node.inputs[2..2 + found.op.states()].iter().flatten().copied().collect();
    let mut captures = found.template;
    let mut failed = None;
    captures.each(&mut |v, _| {
        let Some(pattern) = *v else { return };
        *v = match found.bound.get(&pattern) {
            Some(Bound::Outer(v)) => Some(*v),
            Some(Bound::Constant(id)) => match ed.node1(Op::Const(planish_ir::op::Const { id: *id }), &[]) {
                Ok(v) => Some(v),
                Err(d) => {
                    failed = Some(d);
                    None
                }
            },
            _ => None,
        };
    });
    if let Some(d) = failed {
        return Err(d);
    }
    let operands = found.op.operands(&mut Build::new(ed, "skim-recurrent"), &start, &captures)?;
    let made = ed.node(found.op.clone(), &operands)?;
    let mut new = Vec::new();
    for v in &made[1..=found.op.states()] {
        new.push(ed.node1(Squeeze { axes: vec![0] }, &[*v])?);
    }
    if found.shown[0] {
        new.push(ed.node1(Squeeze { axes: vec![1] }, &[made[0]])?);
    }
    if found.shown[1] {
        new.push(made[found.op.probabilities()]);
    }
    for (old, new) in node.outputs.iter().zip(new) {
        ed.replace(*old, new);
    }
    ed.erase(n)?;
    Ok(true)
}

/// What a value from outside is in the loop that was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Bound {
    Outer(ValueId),
    Constant(ConstId),
    /// A bias that is not there.
    Nothing,
}

/// A loop that is a layer.
struct Found {
    op: SkimRecurrent,
    /// Values of the loop that was made.
    template: Captures,
    /// What they are in the loop that was found.
    bound: BTreeMap<ValueId, Bound>,
    /// Whether every h and the probabilities are results.
    shown: [bool; 2],
}

fn find(g: &Graph, n: NodeId) -> Result<Option<Found>, Diag> {
    let Op::Loop(Loop { carried: carried @ 1..=2, scans: scans @ 0..=2, conditional: false }) = g.node(n).op
    else {
        return Ok(None);
    };
    let goes = util::operand(g, n, 1).is_none_or(|v| util::splat_value(g, v) == Some(1.0));
    let Some([_, h]) = util::operand(g, n, 2).and_then(|v| g.dims(v)) else { return Ok(None) };
    let (Some(h), true) = (h.as_const(), goes) else { return Ok(None) };
    let (cell, variants, gates): (_, &[bool], _) =
        if carried == 2 { (Cell::Lstm, &[false], 4) } else { (Cell::Gru, &[true, false], 3) };
    let shown: &[[bool; 2]] = match scans {
        0 => &[[false; 2]],
        1 => &[[true, false], [false, true]],
        _ => &[[true; 2]],
    };
    let captured = &g.node(n).inputs[2 + carried..];
    for x in captured.iter().flatten() {
        let Some([steps, _, inputs]) = g.dims(*x) else { continue };
        let Some(inputs) = inputs.as_const().filter(|_| counts(g, n, steps)) else { continue };
        // A small cell shows by the weights of its input.
        let all = matrices(g, n);
        if !all.iter().any(|d| d[0].is(inputs + h) && d[1].is(2)) {
            continue;
        }
        let of_input = all.iter().filter(|d| d[0].is(inputs)).filter_map(|d| d[1].as_const());
        let mut sizes: BTreeSet<i64> =
            of_input.filter(|c| c % gates == 0).map(|c| c / gates).filter(|s| *s <= h).collect();
        sizes.insert(0);
        for linear in variants {
            for (small, shown) in sizes.iter().rev().flat_map(|s| shown.iter().map(move |shown| (*s, *shown)))
            {
                let op = SkimRecurrent { cell, linear_before_reset: *linear, theta: 0.5, temperature: 0.5 };
                let Some(t) = template(g, n, &op, *x, ([inputs, h, small], shown))? else { continue };
                let mut m = Match::new((&t.graph, t.node), (g, n), t.biases);
                let results = |g: &Graph, n: NodeId| g.region(g.node(n).regions[0]).results.clone();
                let (ours, theirs) = (results(&t.graph, t.node), results(g, n));
                let same =
                    ours.len() == theirs.len() && ours.iter().zip(&theirs).all(|(p, a)| m.value(*p, *a));
                let there = t.captures.list().iter().all(|v| m.bound.contains_key(v));
                if same && there && m.bound.get(&t.captures.x) == Some(&Bound::Outer(*x)) {
                    return Ok(Some(Found { op, template: t.captures, bound: m.bound, shown }));
                }
            }
        }
    }
    Ok(None)
}

/// Whether a loop has as many iterations as an axis has elements.
fn counts(g: &Graph, n: NodeId, steps: &Dim) -> bool {
    let Some(v) = util::operand(g, n, 0) else { return false };
    if g.value(v).fact.content.as_deref() == Some(std::slice::from_ref(steps)) {
        return true;
    }
    let known = util::constant(g, v).and_then(|c| c.decode().ok()?.to_i64().ok());
    known.is_some_and(|n| n.len() == 1 && steps.is(n[0]))
}

/// The dims of all matrices that a loop captures or holds.
fn matrices(g: &Graph, n: NodeId) -> Vec<Vec<Dim>> {
    let mut out = Vec::new();
    let mut see = |v: ValueId| {
        if let Some(d) = g.dims(v).filter(|d| d.len() == 2) {
            out.push(d.to_vec());
        }
    };
    g.node(n).inputs.iter().flatten().for_each(|v| see(*v));
    for r in within(g, n) {
        for m in g.nodes_in(r).filter(|m| matches!(g.node(*m).op, Op::Const(_))) {
            see(g.node(m).outputs[0]);
        }
    }
    out
}

/// The regions of a node, and of the nodes in them.
fn within(g: &Graph, n: NodeId) -> Vec<RegionId> {
    let mut out = g.node(n).regions.clone();
    let mut at = 0;
    while let Some(r) = out.get(at).copied() {
        at += 1;
        out.extend(g.nodes_in(r).flat_map(|m| g.node(m).regions.clone()));
    }
    out
}

/// A loop that was made.
struct Template {
    graph: Graph,
    node: NodeId,
    captures: Captures,
    biases: BTreeSet<ValueId>,
}

/// The loop of a layer in canonical form, with the dims that the loop `n` has.
fn template(
    g: &Graph,
    n: NodeId,
    op: &SkimRecurrent,
    x: ValueId,
    ([inputs, h, small], shown): ([i64; 3], [bool; 2]),
) -> Result<Option<Template>, Diag> {
    let Some(dtype) = g.dtype(x).filter(|d| d.is_float()) else { return Ok(None) };
    let mut graph = Graph::new("skim");
    let mut ed = Editor::new(&mut graph);
    *ed.graph_mut().symbols = g.symbols.clone();
    let mut next = 0;
    let mut input = |ed: &mut Editor<'_>, ty: Type| {
        next += 1;
        ed.input(&format!("i{next}"), ty)
    };
    let mut fixed = |ed: &mut Editor<'_>, dims: &[i64]| {
        input(ed, Type::tensor(dtype, dims.iter().copied().map(Dim::from).collect()))
    };
    let gates = op.plain().gates() as i64;
    let own = i64::from(op.has_fresh());
    let mut cell = |ed: &mut Editor<'_>, h: i64| CellParts {
        w: fixed(ed, &[inputs, gates * h]),
        bias: Some(fixed(ed, &[gates * h])),
        r: fixed(ed, &[h, (gates - own) * h]),
        state_bias: Some(fixed(ed, &[(gates - own) * h])),
        fresh: op.has_fresh().then(|| fixed(ed, &[h, h])),
        fresh_bias: op.has_fresh().then(|| fixed(ed, &[h])),
    };
    let (big, small) = (cell(&mut ed, h), (small > 0).then(|| cell(&mut ed, small)));
    let (predictor, bias) = (fixed(&mut ed, &[inputs + h, 2]), fixed(&mut ed, &[2]));
    let theta = fixed(&mut ed, &[]);
    let x = input(&mut ed, g.ty(x).clone());
    let start = (0..op.states()).map(|k| util::operand(g, n, 2 + k)).collect::<Option<Vec<_>>>();
    let Some(start) = start else { return Ok(None) };
    let start: Vec<ValueId> = start.into_iter().map(|v| input(&mut ed, g.ty(v).clone())).collect();
    let mut captures = Captures {
        x,
        predictor,
        bias: Some(bias),
        big,
        small,
        theta: Some(theta),
        gumbel: None,
        temperature: None,
    };
    let made = op.repeat(&mut Build::new(&mut ed, "skim-recurrent"), &start, &captures, shown)?;
    made.into_iter().for_each(|v| ed.output(v, None));
    expand_gates(&mut ed)?;
    let mut p = Pipeline::default();
    p.repeat(CANONICAL);
    p.run(&mut graph, &TargetFacts::default(), &mut |_, _| {})?;
    let loops: Vec<NodeId> =
        graph.nodes_in(graph.root()).filter(|m| matches!(graph.node(*m).op, Op::Loop(_))).collect();
    let [node] = loops[..] else { return Ok(None) };
    let mut biases = BTreeSet::new();
    captures.each(&mut |v, bias| biases.extend(v.filter(|_| bias)));
    let same = match (&graph.node(node).op, &g.node(n).op) {
        (Op::Loop(a), Op::Loop(b)) => a == b,
        _ => false,
    };
    Ok(same.then_some(Template { graph, node, captures, biases }))
}

/// What a value within a loop is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Source {
    Turn,
    Carried(usize),
    Outer(ValueId),
    Node(NodeId, usize),
}

/// A loop, and which node holds each region in it.
struct Side<'a> {
    g: &'a Graph,
    node: NodeId,
    owners: BTreeMap<RegionId, NodeId>,
}

impl<'a> Side<'a> {
    fn new(g: &'a Graph, node: NodeId) -> Side<'a> {
        let mut owners = BTreeMap::new();
        owners.extend(g.node(node).regions.iter().map(|r| (*r, node)));
        for r in within(g, node) {
            for m in g.nodes_in(r) {
                owners.extend(g.node(m).regions.iter().map(|r| (*r, m)));
            }
        }
        Side { g, node, owners }
    }
    fn source(&self, mut v: ValueId) -> Option<Source> {
        loop {
            match self.g.value(v).def {
                Def::Node(n, k) => return Some(Source::Node(n, k as usize)),
                Def::Param(r, i) => {
                    let owner = *self.owners.get(&r)?;
                    let (i, node) = (i as usize, self.g.node(owner));
                    match &node.op {
                        Op::Loop(l) if owner == self.node => {
                            return Some(match i {
                                0 => Source::Turn,
                                i if i <= l.carried => Source::Carried(i - 1),
                                _ => Source::Outer(util::operand(self.g, owner, i + 1)?),
                            });
                        }
                        Op::If(_) => v = util::operand(self.g, owner, i + 1)?,
                        _ => return None,
                    }
                }
            }
        }
    }
    /// The constant that a value is.
    fn constant(&self, s: Source) -> Option<ConstId> {
        let v = match s {
            Source::Outer(v) => v,
            Source::Node(n, 0) => self.g.node(n).outputs[0],
            _ => return None,
        };
        self.g.as_const(v).map(|(id, _)| id)
    }
}

/// The comparison of a loop that was made with one that was found.
struct Match<'a> {
    made: Side<'a>,
    found: Side<'a>,
    biases: BTreeSet<ValueId>,
    bound: BTreeMap<ValueId, Bound>,
    nodes: BTreeMap<NodeId, NodeId>,
}

impl<'a> Match<'a> {
    fn new(made: (&'a Graph, NodeId), found: (&'a Graph, NodeId), biases: BTreeSet<ValueId>) -> Match<'a> {
        Match {
            made: Side::new(made.0, made.1),
            found: Side::new(found.0, found.1),
            biases,
            bound: BTreeMap::new(),
            nodes: BTreeMap::new(),
        }
    }

    /// Whether two values are the same.
    fn value(&mut self, made: ValueId, found: ValueId) -> bool {
        let (Some(p), Some(a)) = (self.made.source(made), self.found.source(found)) else { return false };
        if let Some(id) = self.made.constant(p) {
            let want = self.made.g.constant(id);
            return self.found.constant(a).is_some_and(|id| **self.found.g.constant(id) == **want);
        }
        match (p, a) {
            (Source::Outer(v), a) => {
                let b = match (self.found.constant(a), a) {
                    (Some(id), _) => Bound::Constant(id),
                    (None, Source::Outer(v)) => Bound::Outer(v),
                    _ => return false,
                };
                // Of what is from outside the constant may stand in the loop or before it.
                let b = if let Source::Outer(v) = a { Bound::Outer(v) } else { b };
                self.found.g.dims(found) == self.made.g.dims(v) && self.bind(v, b)
            }
            (Source::Node(p, k), a) => self.sum_without_bias(p, a, found).unwrap_or_else(|| match a {
                Source::Node(a, j) => k == j && self.node(p, a),
                _ => false,
            }),
            (p, a) => p == a,
        }
    }

    fn bind(&mut self, v: ValueId, b: Bound) -> bool {
        *self.bound.entry(v).or_insert(b) == b
    }

    /// Of a sum with a bias that may not be there: whether the values are the same with the bias or without it.
    fn sum_without_bias(&mut self, p: NodeId, a: Source, found: ValueId) -> Option<bool> {
        let g = self.made.g;
        let Op::Binary(b) = &g.node(p).op else { return None };
        let bias = util::operand(g, p, 1)?;
        let Some(Source::Outer(bias)) = self.made.source(bias) else { return None };
        if b.kind != BinaryKind::Add || !self.biases.contains(&bias) {
            return None;
        }
        let before = (self.bound.clone(), self.nodes.clone());
        if let Source::Node(a, 0) = a
            && self.node(p, a)
        {
            return Some(true);
        }
        (self.bound, self.nodes) = before;
        let rest = util::operand(g, p, 0)?;
        Some(self.bind(bias, Bound::Nothing) && self.value(rest, found))
    }

    fn node(&mut self, p: NodeId, a: NodeId) -> bool {
        if let Some(known) = self.nodes.get(&p) {
            return *known == a;
        }
        let (made, found) = (self.made.g.node(p).clone(), self.found.g.node(a).clone());
        if made.op != found.op || made.regions.len() != found.regions.len() {
            return false;
        }
        let same = if made.regions.is_empty() {
            // Omitted operands may be left away at the end.
            let count = made.inputs.len().max(found.inputs.len());
            (0..count).all(|i| {
                match (made.inputs.get(i).copied().flatten(), found.inputs.get(i).copied().flatten()) {
                    (Some(p), Some(a)) => self.value(p, a),
                    (p, a) => p.is_none() && a.is_none(),
                }
            })
        } else {
            // Captures are compared where they are used.
            matches!(made.op, Op::If(_))
                && made.inputs[0].zip(found.inputs[0]).is_some_and(|(p, a)| self.value(p, a))
                && made.regions.iter().zip(&found.regions).all(|(p, a)| {
                    let (p, a) =
                        (self.made.g.region(*p).results.clone(), self.found.g.region(*a).results.clone());
                    p.len() == a.len() && p.iter().zip(&a).all(|(p, a)| self.value(*p, *a))
                })
        };
        if same {
            self.nodes.insert(p, a);
        }
        same
    }
}

#[cfg(test)]
mod tests;
