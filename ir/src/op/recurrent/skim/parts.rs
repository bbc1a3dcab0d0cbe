//! What a layer that skims means in other operations: a loop over the steps. Where it decides, a gate of rows holds the big cell, so
//! that only what reads is computed; with noise both cells are computed and mixed, which is what its gradient is taken of.

use super::super::steps::{Weights, clamp};
use super::SkimRecurrent;
use super::captures::{Captures, CellParts, Cx, fixed, given, needed, part, plus, product, squeezed};
use crate::diag::Diag;
use crate::dim::Dim;
use crate::dtype::DType;
use crate::editor::Editor;
use crate::graph::{Fact, Graph, ValueId};
use crate::op::Op;
use crate::op::binary::BinaryKind as B;
use crate::op::build::Build;
use crate::op::concat::Concat;
use crate::op::control::{Fallback, Gate, Granularity, counted, region_for, turn};
use crate::op::gather::Gather;
use crate::op::softmax::{Softmax, SoftmaxKind};
use crate::op::unary::UnaryKind as U;
use crate::op::views::Expand;
use crate::op::where_::Where;
use crate::tensor::Tensor;
use std::borrow::Cow;

/// The graph, or a copy in which loops stand for layers that skim.
pub fn without_skims(graph: &Graph) -> Result<Cow<'_, Graph>, Diag> {
    let skims = |g: &Graph| {
        let all = g.all_nodes().into_iter();
        all.filter(|n| matches!(g.node(*n).op, Op::SkimRecurrent(_))).collect::<Vec<_>>()
    };
    let found = skims(graph);
    if found.is_empty() {
        return Ok(Cow::Borrowed(graph));
    }
    let mut copy = graph.clone();
    let mut ed = Editor::new(&mut copy);
    for n in found {
        let node = ed.graph().node(n).clone();
        let Op::SkimRecurrent(op) = &node.op else { continue };
        ed.before(n);
        let loc = ed.loc().clone();
        let made = op.by_parts(&mut Build::new(&mut ed, "skim-recurrent"), &node.inputs);
        for (old, new) in node.outputs.iter().zip(made.map_err(|d| d.at(loc))?) {
            let declared = ed.graph().value(*old).fact.clone();
            ed.set_fact(new, declared);
            ed.replace(*old, new);
        }
        ed.erase(n)?;
    }
    Ok(Cow::Owned(copy))
}

fn at(cx: Cx<'_, '_, '_>, axis: usize, v: ValueId, index: ValueId) -> Result<ValueId, Diag> {
    cx.ed.node1(Gather { axis }, &[v, index])
}

impl SkimRecurrent {
    /// The results of the layer, by a loop. `inputs` are its operands.
    pub(super) fn by_parts(
        &self,
        cx: Cx<'_, '_, '_>,
        inputs: &[Option<ValueId>],
    ) -> Result<Vec<ValueId>, Diag> {
        let x = needed(inputs, 0)?;
        let noise = given(inputs, Self::NOISE);
        let r = needed(inputs, Self::CELLS[0] + 1)?;
        let mut c = self.captures(cx, inputs, x)?;
        match noise {
            None => {
                let theta = self.number(cx, x, given(inputs, Self::THETA), self.theta)?;
                c.theta = Some(theta);
            }
            Some(noise) => {
                c = self.fed(cx, x, c)?;
                c.temperature =
                    Some(self.number(cx, x, given(inputs, Self::TEMPERATURE), self.temperature)?);
                let dtype = cx.dtype(x)?;
                // The bounds are no numbers of narrower types.
                let u = cx.cast(noise, if dtype == DType::F64 { dtype } else { DType::F32 })?;
                let mut u = clamp(cx, u, Self::BOUNDS.0, Self::BOUNDS.1)?;
                for kind in [U::Log, U::Neg, U::Log, U::Neg] {
                    u = cx.unary(kind, u)?;
                }
                c.gumbel = Some(cx.cast(u, dtype)?);
            }
        }
        let mut start = Vec::new();
        for i in &Self::FIRST[..self.states()] {
            start.push(match given(inputs, *i) {
                Some(v) => squeezed(cx, v)?,
                None => {
                    let shape = [cx.size(x, 1)?, cx.size(r, 2)?];
                    let shape = cx.ed.node1(Concat { axis: 0 }, &shape)?;
                    let zero = cx.number(0.0, x)?;
                    cx.ed.node1(Expand {}, &[zero, shape])?
                }
            });
        }
        let made = self.repeat(cx, &start, &c, [true; 2])?;
        let (last, scans) = made.split_at(start.len());
        let mut out = vec![cx.unsqueeze(scans[0], &[1])?];
        for v in last {
            out.push(cx.unsqueeze(*v, &[0])?);
        }
        out.push(scans[1]);
        Ok(out)
    }

    /// The loop over the steps: the last states, then every h \[T, B, H\] and the probabilities \[T, B\], if they are `shown`.
    pub fn repeat(
        &self,
        cx: &mut Build<'_, '_>,
        start: &[ValueId],
        c: &Captures,
        shown: [bool; 2],
    ) -> Result<Vec<ValueId>, Diag> {
        let count = cx.size(c.x, 0)?;
        let count = squeezed(cx, count)?;
        let outer = c.list();
        let place = cx.ed.place();
        let like = [start, &outer[..]].concat();
        let (body, params) = region_for(cx.ed, &[turn()], &like);
        cx.ed.at_end(body);
        let (state, inner) = params[1..].split_at(start.len());
        let inside = c.with(inner);
        let (new, skims) = match c.gumbel {
            None => self.decided(cx, params[0], state, &inside)?,
            Some(_) => self.mixed(cx, params[0], state, &inside)?,
        };
        new.iter().for_each(|v| cx.ed.result(body, *v));
        let shown = [new[0], skims].into_iter().zip(shown).filter_map(|(v, shown)| shown.then_some(v));
        let shown: Vec<ValueId> = shown.collect();
        shown.iter().for_each(|v| cx.ed.result(body, *v));
        cx.ed.go(place);
        counted(cx.ed, count, (start, &outer), shown.len(), body)
    }

    fn number(
        &self,
        cx: Cx<'_, '_, '_>,
        x: ValueId,
        operand: Option<ValueId>,
        field: f64,
    ) -> Result<ValueId, Diag> {
        match operand {
            None => cx.number(field, x),
            Some(v) => {
                let dtype = cx.dtype(x)?;
                cx.cast(v, dtype)
            }
        }
    }

    /// What a cell makes of a state, given what it takes from the input.
    fn advance(
        &self,
        cx: Cx<'_, '_, '_>,
        fed: ValueId,
        state: &[ValueId],
        cell: &CellParts,
    ) -> Result<Vec<ValueId>, Diag> {
        let fresh = cell.fresh.map(|r| (r, cell.fresh_bias));
        let weights = Weights { r: cell.r, across: false, bias: cell.state_bias, fresh, peepholes: None };
        self.plain().advance(cx, fed, state, &weights, 0)
    }

    /// The state that a step which skims leaves behind.
    fn skimmed(
        &self,
        cx: Cx<'_, '_, '_>,
        fed: impl FnOnce(Cx<'_, '_, '_>, &CellParts) -> Result<ValueId, Diag>,
        state: &[ValueId],
        small: Option<&CellParts>,
    ) -> Result<Vec<ValueId>, Diag> {
        let Some(cell) = small else { return Ok(state.to_vec()) };
        let (h, units) = (fixed(cx, state[0], 1)?, fixed(cx, cell.r, 0)?);
        let fed = fed(cx, cell)?;
        if units == h {
            return self.advance(cx, fed, state, cell);
        }
        let first = state.iter().map(|v| part(cx, *v, 1, (0, units))).collect::<Result<Vec<_>, _>>()?;
        let new = self.advance(cx, fed, &first, cell)?;
        let mut out = Vec::new();
        for (new, old) in new.into_iter().zip(state) {
            let rest = part(cx, *old, 1, (units, h))?;
            out.push(cx.ed.node1(Concat { axis: 1 }, &[new, rest])?);
        }
        Ok(out)
    }

    /// The column of skimming of the softmax of scores \[B, 2\].
    fn share(cx: Cx<'_, '_, '_>, scores: ValueId) -> Result<ValueId, Diag> {
        let all = cx.ed.node1(Softmax { kind: SoftmaxKind::Softmax, axis: 1 }, &[scores])?;
        let second = cx.ed.constant(Tensor::scalar_i64(1))?;
        at(cx, 1, all, second)
    }

    /// A step that decides: the new state, and the probabilities of skimming.
    fn decided(
        &self,
        cx: Cx<'_, '_, '_>,
        turn: ValueId,
        state: &[ValueId],
        c: &Captures,
    ) -> Result<(Vec<ValueId>, ValueId), Diag> {
        let x = at(cx, 0, c.x, turn)?;
        let seen = cx.ed.node1(Concat { axis: 1 }, &[x, state[0]])?;
        let scores = product(cx, seen, c.predictor)?;
        let scores = plus(cx, scores, c.bias)?;
        let p = Self::share(cx, scores)?;
        let theta = c.theta.ok_or_else(|| Diag::error("arity", "nothing decides"))?;
        let skips = cx.binary(B::Greater, p, theta)?;
        let reads = cx.unary(U::Not, skips)?;
        // A gate takes one tensor and gives one: the state, then x.
        let rows = [state, &[x]].concat();
        let rows = cx.ed.node1(Concat { axis: 1 }, &rows)?;
        let h = fixed(cx, state[0], 1)?;
        let read = self.read(cx, (reads, rows), (h, x), &c.big)?;
        let fed = |cx: Cx<'_, '_, '_>, cell: &CellParts| {
            let v = product(cx, x, cell.w)?;
            plus(cx, v, cell.bias)
        };
        let skimmed = self.skimmed(cx, fed, state, c.small.as_ref())?;
        let skips = cx.unsqueeze(skips, &[1])?;
        let mut new = Vec::new();
        for (k, skimmed) in (0..).zip(skimmed) {
            let read = part(cx, read, 1, (k * h, (k + 1) * h))?;
            new.push(cx.ed.node1(Where {}, &[skips, skimmed, read])?);
        }
        Ok((new, p))
    }

    /// The big cell in a gate of the rows that read.
    fn read(
        &self,
        cx: Cx<'_, '_, '_>,
        (reads, rows): (ValueId, ValueId),
        (h, x): (i64, ValueId),
        cell: &CellParts,
    ) -> Result<ValueId, Diag> {
        let mut captured = Vec::new();
        let mut inside = *cell;
        inside.each(&mut |v, _| captured.extend(*v));
        let (states, inputs) = (self.states() as i64, fixed(cx, x, 1)?);
        let place = cx.ed.place();
        let some = cx.ed.graph_mut().symbols.fresh(0, None);
        let mut fact: Fact = cx.ed.graph().value(rows).fact.clone();
        if let crate::types::Type::Tensor(t) = &mut fact.ty
            && let Some(dims) = &mut t.shape
        {
            dims[0] = Dim::from(some);
        }
        let (region, params) = region_for(cx.ed, &[fact], &captured);
        cx.ed.at_end(region);
        let mut inner = params[1..].iter().copied();
        inside.each(&mut |v, _| {
            if v.is_some() {
                *v = inner.next();
            }
        });
        let mut state = Vec::new();
        for k in 0..states {
            state.push(part(cx, params[0], 1, (k * h, (k + 1) * h))?);
        }
        let x = part(cx, params[0], 1, (states * h, states * h + inputs))?;
        let fed = product(cx, x, inside.w)?;
        let fed = plus(cx, fed, inside.bias)?;
        let mut new = self.advance(cx, fed, &state, &inside)?;
        new.push(x);
        let new = cx.ed.node1(Concat { axis: 1 }, &new)?;
        cx.ed.result(region, new);
        let none = cx.ed.new_region();
        cx.ed.go(place);
        let gate =
            Gate { granularity: Granularity::Rows, axis: 0, block: 0, k: 0, fallback: Fallback::Identity };
        let operands: Vec<_> = [reads, rows].into_iter().chain(captured).map(Some).collect();
        let made = cx.ed.node_with_regions(gate, &operands, vec![region, none])?;
        made.first().copied().ok_or_else(|| Diag::error("arity", "a gate gives a tensor"))
    }

    /// A step that mixes what both cells give: the new state, and the probabilities of skimming.
    fn mixed(
        &self,
        cx: Cx<'_, '_, '_>,
        turn: ValueId,
        state: &[ValueId],
        c: &Captures,
    ) -> Result<(Vec<ValueId>, ValueId), Diag> {
        let of_x = at(cx, 0, c.x, turn)?;
        let of_h = product(cx, state[0], c.predictor)?;
        let scores = cx.binary(B::Add, of_x, of_h)?;
        let p = Self::share(cx, scores)?;
        let [Some(gumbel), Some(temperature)] = [c.gumbel, c.temperature] else {
            return Err(Diag::error("arity", "nothing is noisy"));
        };
        let gumbel = at(cx, 0, gumbel, turn)?;
        let noisy = cx.binary(B::Add, scores, gumbel)?;
        let noisy = cx.binary(B::Div, noisy, temperature)?;
        let share = Self::share(cx, noisy)?;
        let share = cx.unsqueeze(share, &[1])?;
        let fed = at(cx, 0, c.big.w, turn)?;
        let read = self.advance(cx, fed, state, &c.big)?;
        let fed = |cx: Cx<'_, '_, '_>, cell: &CellParts| at(cx, 0, cell.w, turn);
        let skimmed = self.skimmed(cx, fed, state, c.small.as_ref())?;
        let rest = cx.one_less(share)?;
        let mut new = Vec::new();
        for (read, skimmed) in read.into_iter().zip(skimmed) {
            let (read, skimmed) = (cx.mul(rest, read)?, cx.mul(share, skimmed)?);
            new.push(cx.binary(B::Add, read, skimmed)?);
        }
        Ok((new, p))
    }
}
