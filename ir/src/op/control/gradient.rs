//! Differentiation of branches and loops. Both compute their regions again on the way back: a branch from its operands, an iteration of a loop
//! from the values that were carried into it, which a second run of the loop keeps.

use super::{If, Loop, counted, region_for, turn};
use crate::diag::Diag;
use crate::dtype::DType;
use crate::graph::{Fact, Graph, RegionId, Use, ValueId};
use crate::op::Op;
use crate::op::binary::{Binary, BinaryKind};
use crate::op::concat::Concat;
use crate::op::gather::Gather;
use crate::op::gradient::{GradCx, copy, sweep};
use crate::op::reduce::Cumulate;
use crate::op::views::{Expand, Shape, Squeeze};
use crate::op::where_::Where;
use crate::tensor::Tensor;
use std::collections::BTreeMap;

fn fact(cx: &GradCx<'_, '_>, v: ValueId) -> Fact {
    cx.ed.graph().value(v).fact.clone()
}

/// Differentiates a copy of `body` at the end of a region: `map` holds what stands for its parameters, `seeds` the gradients of its results by
/// their number. The gradients of variables, values of `body`, zero where there are none.
fn inside(
    cx: &mut GradCx<'_, '_>,
    body: RegionId,
    map: &mut BTreeMap<ValueId, ValueId>,
    seeds: &[(usize, ValueId)],
    variables: &[ValueId],
) -> Result<Vec<ValueId>, Diag> {
    let results = cx.ed.graph().region(body).results.clone();
    let nodes = copy(cx.ed, body, map)?;
    let seeds: Vec<(ValueId, ValueId)> = seeds.iter().map(|(k, v)| (map[&results[*k]], *v)).collect();
    let variables: Vec<ValueId> = variables.iter().map(|v| map[v]).collect();
    let found = sweep(cx.ed, &nodes, &seeds, &variables)?;
    found.into_iter().zip(variables).map(|(d, v)| d.map_or_else(|| cx.zeros(v), Ok)).collect()
}

/// Of a parameter of a loop's body of which each iteration reads its own row and nothing else: that row.
fn own_row(g: &Graph, p: ValueId, turn: ValueId) -> Option<ValueId> {
    let [Use::Node(n, 0)] = g.uses(p) else { return None };
    let node = g.node(*n);
    let reads = matches!(&node.op, Op::Gather(op) if op.axis == 0) && node.inputs.get(1) == Some(&Some(turn));
    reads.then(|| node.outputs[0])
}

/// The gradient of a value of which iteration after iteration read a row, given those of the rows, the last one first; rows behind them have none.
fn unstacked(cx: &mut GradCx<'_, '_>, rows: ValueId, count: ValueId, like: ValueId) -> Result<ValueId, Diag> {
    let dims = cx.dims(like)?;
    let shape = if dims.len() > 1 {
        let (one, rest) = (cx.vector(&[1])?, cx.sizes(like, 1..dims.len())?);
        cx.ed.node1(Concat { axis: 0 }, &[one, rest])?
    } else {
        cx.vector(&[1])?
    };
    let zero = cx.number(0.0, like)?;
    let zeros = cx.ed.node1(Expand {}, &[zero, shape])?;
    let rows = cx.ed.node1(Concat { axis: 0 }, &[rows, zeros])?;
    let places = match dims[0].as_const() {
        Some(n) => cx.vector(&(0..n).collect::<Vec<_>>())?,
        None => {
            let (one, size, axis) = (Tensor::scalar_i64(1), cx.size(like, 0)?, Tensor::scalar_i64(0));
            let (one, axis) = (cx.ed.constant(one)?, cx.ed.constant(axis)?);
            let ones = cx.ed.node1(Expand {}, &[one, size])?;
            cx.ed.node1(Cumulate { product: false, exclusive: true, reverse: false }, &[ones, axis])?
        }
    };
    let one = cx.ed.constant(Tensor::scalar_i64(1))?;
    let last = cx.binary(BinaryKind::Sub, count, one)?;
    let row = cx.binary(BinaryKind::Sub, last, places)?;
    let read = cx.binary(BinaryKind::Less, places, count)?;
    let row = cx.ed.node1(Where {}, &[read, row, count])?;
    cx.ed.node1(Gather { axis: 0 }, &[rows, row])
}

impl If {
    pub(super) fn rule(cx: &mut GradCx<'_, '_>) -> Result<(), Diag> {
        let operands: Vec<ValueId> = (0..cx.len()).map(|i| cx.input(i)).collect::<Result<_, _>>()?;
        let wanted: Vec<usize> = (1..operands.len()).filter(|i| cx.wants(*i)).collect();
        let seeds: Vec<(usize, ValueId)> =
            (0..cx.outputs()).filter_map(|k| cx.seed(k).map(|v| (k, v))).collect();
        let mut captured = operands[1..].to_vec();
        captured.extend(seeds.iter().map(|(_, v)| *v));
        let bodies = cx.ed.graph().node(cx.node()).regions.clone();
        let place = cx.ed.place();
        let mut regions = Vec::new();
        for body in bodies {
            let (back, params) = region_for(cx.ed, &[], &captured);
            cx.ed.at_end(back);
            let theirs = cx.ed.graph().region(body).params.clone();
            let mut map: BTreeMap<ValueId, ValueId> =
                theirs.into_iter().zip(params.iter().copied()).collect();
            let seeds: Vec<(usize, ValueId)> =
                seeds.iter().zip(&params[operands.len() - 1..]).map(|((k, _), v)| (*k, *v)).collect();
            let theirs = &cx.ed.graph().region(body).params;
            let variables: Vec<ValueId> = wanted.iter().map(|i| theirs[i - 1]).collect();
            for v in inside(cx, body, &mut map, &seeds, &variables)? {
                cx.ed.result(back, v);
            }
            regions.push(back);
        }
        cx.ed.go(place);
        let inputs: Vec<_> = std::iter::once(operands[0]).chain(captured).map(Some).collect();
        let out = cx.ed.node_with_regions(If {}, &inputs, regions)?;
        wanted.into_iter().zip(out).try_for_each(|(i, v)| cx.give(i, v))
    }
}

impl Loop {
    pub(super) fn rule(&self, cx: &mut GradCx<'_, '_>) -> Result<(), Diag> {
        let body = cx.ed.graph().node(cx.node()).regions[0];
        let params = cx.ed.graph().region(body).params.clone();
        let first = usize::from(self.conditional);
        let operands: Vec<ValueId> = (2..cx.len()).map(|i| cx.input(i)).collect::<Result<_, _>>()?;
        let (carried, captured) = operands.split_at(self.carried);
        if carried.iter().any(|v| cx.ed.graph().dtype(*v).is_none()) {
            return Err(cx.no_rule("that carries what is no tensor"));
        }
        let (kept, count) = self.again(cx, body)?;
        let float = |cx: &GradCx<'_, '_>, v: ValueId| cx.ed.graph().dtype(v).is_some_and(DType::is_float);
        // Gradients of carried floats go from one iteration to the one before, those of captures are summed.
        let smooth: Vec<usize> = (0..self.carried).filter(|k| float(cx, params[1 + k])).collect();
        // A capture of which each iteration reads a row of its own gets these rows stacked.
        let own = |k: usize| own_row(cx.ed.graph(), params[1 + self.carried + k], params[0]);
        let wanted = (0..captured.len()).filter(|k| cx.wants(2 + self.carried + k));
        let (stacked, wanted): (Vec<usize>, Vec<usize>) = wanted.partition(|k| own(*k).is_some());
        let rows: Vec<ValueId> = stacked.iter().filter_map(|k| own(*k)).collect();
        let mut start = Vec::new();
        for k in &smooth {
            let last = cx.output(*k);
            start.push(cx.seed(*k).map_or_else(|| cx.zeros(last), Ok)?);
        }
        for k in &wanted {
            start.push(cx.zeros(captured[*k])?);
        }
        let scans: Vec<(usize, ValueId)> =
            (0..self.scans).filter_map(|s| Some((s, cx.seed(self.carried + s)?))).collect();
        let mut outer = captured.to_vec();
        outer.extend(&kept);
        outer.extend(scans.iter().map(|(_, v)| *v));
        outer.push(count);

        let place = cx.ed.place();
        let like = [start.clone(), outer.clone()].concat();
        let (back, params_in) = region_for(cx.ed, &[turn()], &like);
        let turn = params_in[0];
        let (sums, outer_in) = params_in[1..].split_at(start.len());
        cx.ed.at_end(back);
        let (captures_in, rest) = outer_in.split_at(captured.len());
        let (kept_in, rest) = rest.split_at(kept.len());
        let (scans_in, count_in) = rest.split_at(scans.len());
        // The last iteration comes first.
        let one = cx.ed.constant(Tensor::scalar_i64(1))?;
        let subtract = Binary { kind: BinaryKind::Sub };
        let at = cx.ed.node1(subtract.clone(), &[count_in[0], turn])?;
        let at = cx.ed.node1(subtract, &[at, one])?;
        let mut map = BTreeMap::from([(params[0], at)]);
        let pick = |cx: &mut GradCx<'_, '_>, all: ValueId| cx.ed.node1(Gather { axis: 0 }, &[all, at]);
        for (k, all) in kept_in.iter().enumerate() {
            let value = pick(cx, *all)?;
            map.insert(params[1 + k], value);
        }
        map.extend(params[1 + self.carried..].iter().copied().zip(captures_in.iter().copied()));
        let mut seeds: Vec<(usize, ValueId)> =
            smooth.iter().zip(sums).map(|(k, v)| (first + k, *v)).collect();
        for ((s, _), all) in scans.iter().zip(scans_in) {
            seeds.push((first + self.carried + s, pick(cx, *all)?));
        }
        let variables: Vec<ValueId> = smooth
            .iter()
            .map(|k| params[1 + k])
            .chain(wanted.iter().map(|k| params[1 + self.carried + k]))
            .chain(rows)
            .collect();
        let mut found = inside(cx, body, &mut map, &seeds, &variables)?;
        for (d, sum) in found.iter_mut().zip(sums).skip(smooth.len()) {
            *d = cx.binary(BinaryKind::Add, *sum, *d)?;
        }
        found.iter().for_each(|v| cx.ed.result(back, *v));
        cx.ed.go(place);

        let mut out = counted(cx.ed, count, (&start, &outer), stacked.len(), back)?;
        for (k, rows) in stacked.iter().zip(out.split_off(start.len())) {
            let whole = unstacked(cx, rows, count, captured[*k])?;
            cx.give(2 + self.carried + k, whole)?;
        }
        let places = smooth.iter().map(|k| 2 + k).chain(wanted.iter().map(|k| 2 + self.carried + k));
        places.zip(out).try_for_each(|(i, v)| cx.give(i, v))
    }

    /// Runs the loop again: what was carried into each iteration, stacked, and the number of iterations.
    fn again(&self, cx: &mut GradCx<'_, '_>, body: RegionId) -> Result<(Vec<ValueId>, ValueId), Diag> {
        let place = cx.ed.place();
        let forth = cx.ed.new_region();
        let mut map = BTreeMap::new();
        let theirs = cx.ed.graph().region(body).params.clone();
        for p in &theirs {
            let fact = fact(cx, *p);
            map.insert(*p, cx.ed.param(forth, fact));
        }
        cx.ed.at_end(forth);
        copy(cx.ed, body, &mut map)?;
        let first = usize::from(self.conditional) + self.carried;
        let results = cx.ed.graph().region(body).results.clone();
        results[..first].iter().for_each(|v| cx.ed.result(forth, map[v]));
        // The number of the iteration, so that there is one scan at least.
        theirs[..=self.carried].iter().for_each(|p| cx.ed.result(forth, map[p]));
        cx.ed.go(place);
        let op = Loop { carried: self.carried, scans: self.carried + 1, conditional: self.conditional };
        let inputs = cx.ed.graph().node(cx.node()).inputs.clone();
        let out = cx.ed.node_with_regions(op, &inputs, vec![forth])?;
        let (numbers, kept) = (out[self.carried], out[self.carried + 1..].to_vec());
        let count = cx.ed.node1(Shape { start: 0, end: Some(1) }, &[numbers])?;
        let count = cx.ed.node1(Squeeze { axes: vec![0] }, &[count])?;
        Ok((kept, count))
    }
}
