//! Forward values computed again on the way back, so that fewer of them are kept.

use crate::flops::flops;
use crate::merge_duplicates::merge;
use crate::util;
use planish_ir::graph::{Def, Use};
use planish_ir::op::Effects;
use planish_ir::op::barrier::Barrier;
use planish_ir::{Diag, Dim, Editor, Graph, NodeId, Op, ValueId};
use std::collections::{BTreeMap, BTreeSet};

/// What recomputation did.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Recomputed {
    /// Bytes of forward values that were in memory for the rest of the graph before.
    pub before: u64,
    /// The most bytes of them, and of copies, that are now in memory at once.
    pub kept: u64,
    /// Nodes that are computed twice.
    pub nodes: usize,
}

/// Lets the nodes of the main region that are not `forward` have no more than `budget` bytes of what those compute in memory at once, where that can be
/// done by computing cheap values again from others that are kept: of all choices that free memory the one with the most bytes for an operation
/// comes first. A copy is in memory from its first reader to its last one, and counts. The same operations on the same operands give the same bits. Inputs, constants and outputs of the graph are there anyway and do
/// not count, values whose size is not fixed cannot be counted. Copies read through [`Barrier`]s, which keep them apart from what they copy.
pub fn recompute(ed: &mut Editor<'_>, forward: &[NodeId], budget: u64) -> Result<Recomputed, Diag> {
    // Equal nodes of both sides would be merged later, which keeps the value of the first.
    merge(ed)?;
    let mut plan = Plan::new(ed.graph(), forward);
    let before = plan.load(ed.graph());
    let mut now = before;
    while now.most > budget {
        let Some((kept, load)) = plan.better(ed.graph(), now) else { break };
        (plan.kept, now) = (kept, load);
    }
    let (before, kept) = (before.most, now.most);
    let nodes = if kept < before { write(ed, &plan)? } else { 0 };
    Ok(Recomputed { before, kept, nodes })
}

/// Whether an operation is worth less than the memory of its result: no products, nothing random, nothing with regions.
fn is_cheap(op: &Op) -> bool {
    let listed = matches!(
        op,
        Op::Expand(_)
            | Op::Transpose(_)
            | Op::Softmax(_)
            | Op::LayerNorm(_)
            | Op::Lrn(_)
            | Op::Reduce(_)
            | Op::Dequantize(_)
    );
    listed || op.is_elementwise() || is_view(op)
}

/// Whether the result lies where the operand does.
fn is_view(op: &Op) -> bool {
    matches!(op, Op::Reshape(_) | Op::Squeeze(_) | Op::Unsqueeze(_) | Op::Flatten(_) | Op::Barrier(_))
}

/// The value in whose memory a value lies.
fn memory(g: &Graph, mut v: ValueId) -> ValueId {
    while let Some(n) = g.def_node(v).filter(|n| is_view(&g.node(*n).op)) {
        match util::operand(g, n, 0) {
            Some(x) => v = x,
            None => break,
        }
    }
    v
}

fn bytes_of(g: &Graph, v: ValueId) -> Option<u64> {
    let n = Dim::product(g.dims(v)?).as_const()?;
    u64::try_from(n).ok()?.checked_mul(g.dtype(v)?.size() as u64)
}

/// A value that need not be kept.
struct Choice {
    value: ValueId,
    /// What is kept in its place.
    instead: Vec<ValueId>,
    saved: u64,
    work: u64,
}

/// Bytes of forward values in memory: first the most at once, then those that are kept.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Load {
    most: u64,
    kept: u64,
}

/// What is kept, and who reads it.
#[derive(Clone)]
struct Plan {
    forward: BTreeSet<NodeId>,
    /// Nodes after the forward ones on which an output depends, in order.
    readers: Vec<NodeId>,
    /// What lies in memory from the forward part to a reader, with its bytes.
    kept: BTreeSet<ValueId>,
    sizes: BTreeMap<ValueId, u64>,
}

impl Plan {
    fn new(g: &Graph, forward: &[NodeId]) -> Plan {
        let forward: BTreeSet<NodeId> = forward.iter().copied().filter(|n| g.is_live(*n)).collect();
        let nodes: Vec<NodeId> = g.nodes_in(g.root()).collect();
        let mut used: BTreeSet<ValueId> = g.region(g.root()).results.iter().copied().collect();
        let mut readers = Vec::new();
        for n in nodes.iter().rev() {
            let node = g.node(*n);
            if node.effects() == Effects::Stops || node.outputs.iter().any(|v| used.contains(v)) {
                used.extend(node.inputs.iter().flatten());
                if !forward.contains(n) {
                    readers.push(*n);
                }
            }
        }
        readers.reverse();
        let mut sizes = BTreeMap::new();
        for v in nodes.iter().filter(|n| forward.contains(n)).flat_map(|n| &g.node(*n).outputs) {
            if g.as_const(*v).is_none()
                && !is_result(g, *v)
                && memory(g, *v) == *v
                && let Some(bytes) = bytes_of(g, *v)
            {
                sizes.insert(*v, bytes);
            }
        }
        let mut plan = Plan { forward, readers, kept: BTreeSet::new(), sizes };
        for n in &plan.readers {
            let node = g.node(*n);
            // A shape is known without the elements.
            if matches!(node.op, Op::Shape(_)) {
                continue;
            }
            let read = node.inputs.iter().flatten().map(|v| memory(g, *v));
            plan.kept.extend(read.filter(|v| plan.sizes.contains_key(v)));
        }
        plan
    }

    /// What is in memory while the readers run.
    fn load(&self, g: &Graph) -> Load {
        let mut lives: BTreeMap<ValueId, (usize, usize)> = self.kept.iter().map(|v| (*v, (0, 0))).collect();
        for (at, n) in self.readers.iter().enumerate() {
            if matches!(g.node(*n).op, Op::Shape(_)) {
                continue;
            }
            let mut open: Vec<ValueId> = g.node(*n).inputs.iter().flatten().copied().collect();
            while let Some(v) = open.pop() {
                let place = memory(g, v);
                let Some(life) = lives.get_mut(&place) else {
                    // Made here, of what must be in memory here.
                    if self.sizes.contains_key(&place) && !self.is_there(g, place) {
                        lives.insert(place, (at, at));
                        let made = g.def_node(place).map(|n| &g.node(n).inputs);
                        open.extend(made.into_iter().flatten().flatten());
                    }
                    continue;
                };
                life.1 = life.1.max(at);
            }
        }
        let mut change = vec![(0u64, 0u64); self.readers.len() + 1];
        for (v, (first, last)) in lives {
            change[first].0 += self.sizes[&v];
            change[last + 1].1 += self.sizes[&v];
        }
        let (mut most, mut here) = (0, 0);
        for (more, less) in change {
            here = here + more - less;
            most = most.max(here);
        }
        Load { most, kept: self.kept.iter().map(|v| self.sizes[v]).sum() }
    }

    /// What is kept after the choice that saves most for its work, of those after which less is in memory.
    fn better(&self, g: &Graph, now: Load) -> Option<(BTreeSet<ValueId>, Load)> {
        let mut choices: Vec<Choice> = self.kept.iter().filter_map(|v| self.choice(g, *v)).collect();
        // Fractions compared by products.
        let rate = |a: &Choice, b: &Choice| u128::from(a.saved) * u128::from(b.work);
        choices.sort_by_key(|c| c.value);
        choices.sort_by(|a, b| rate(b, a).cmp(&rate(a, b)));
        choices.into_iter().find_map(|choice| {
            let mut kept = self.kept.clone();
            kept.remove(&choice.value);
            kept.extend(&choice.instead);
            let plan = Plan { kept, ..self.clone() };
            let load = plan.load(g);
            (load < now).then_some((plan.kept, load))
        })
    }

    /// What it takes not to keep a value; none if it cannot be computed again, or no memory is saved.
    fn choice(&self, g: &Graph, value: ValueId) -> Option<Choice> {
        let (mut seen, mut work, mut instead) = (BTreeSet::new(), 0u64, Vec::new());
        let mut open = vec![value];
        while let Some(v) = open.pop() {
            let n = g.def_node(v).filter(|n| self.forward.contains(n) && is_cheap(&g.node(*n).op));
            let Some(n) = n else {
                // Only the value itself must be computed again.
                if v == value || !self.sizes.contains_key(&v) {
                    return None;
                }
                instead.push(v);
                continue;
            };
            let operands: Vec<ValueId> = g.node(n).inputs.iter().flatten().copied().collect();
            if !seen.insert(n) {
                continue;
            }
            let elements = Dim::product(g.dims(v)?).as_const()?;
            let counted = flops(g, n).and_then(|d| d.as_const()).unwrap_or(elements).max(elements);
            work = work.saturating_add(u64::try_from(counted).ok()?);
            let mut moves = false;
            for x in operands.into_iter().filter(|x| g.as_const(*x).is_none()) {
                moves = true;
                let place = memory(g, x);
                if !self.is_there(g, place) || place == value {
                    open.push(place);
                }
            }
            if !moves {
                return None;
            }
        }
        instead.sort_unstable();
        instead.dedup();
        let more: u64 = instead.iter().map(|v| self.sizes[v]).sum();
        let saved = self.sizes[&value].checked_sub(more).filter(|s| *s > 0)?;
        Some(Choice { value, instead, saved, work: work.max(1) })
    }

    /// Whether a value lies in memory when the readers run.
    fn is_there(&self, g: &Graph, v: ValueId) -> bool {
        self.kept.contains(&v) || is_result(g, v) || matches!(g.value(v).def, Def::Param(..))
    }
}

/// Whether a value is an output of the graph.
fn is_result(g: &Graph, v: ValueId) -> bool {
    g.uses(v).iter().any(|u| matches!(u, Use::Result(..)))
}

/// Makes the copies, each before the first node that reads it; how many there are.
fn write(ed: &mut Editor<'_>, plan: &Plan) -> Result<usize, Diag> {
    let mut copies = Copies { plan, made: BTreeMap::new(), held: BTreeMap::new(), count: 0 };
    for n in &plan.readers {
        if matches!(ed.graph().node(*n).op, Op::Shape(_)) {
            continue;
        }
        for (i, v) in ed.graph().node(*n).inputs.clone().into_iter().enumerate() {
            let Some(v) = v.filter(|v| copies.is_lost(ed.graph(), *v)) else { continue };
            ed.before(*n);
            let copy = copies.of(ed, v)?;
            ed.set_use(Use::Node(*n, i as u32), copy);
        }
    }
    Ok(copies.count)
}

struct Copies<'p> {
    plan: &'p Plan,
    made: BTreeMap<ValueId, ValueId>,
    /// What is kept, behind a barrier.
    held: BTreeMap<ValueId, ValueId>,
    count: usize,
}

impl Copies<'_> {
    /// Whether a value was read and is not kept.
    fn is_lost(&self, g: &Graph, v: ValueId) -> bool {
        let place = memory(g, v);
        self.plan.sizes.contains_key(&place) && !self.plan.is_there(g, place)
    }

    /// A copy of a value that is not kept, made where the editor stands with all that it needs.
    fn of(&mut self, ed: &mut Editor<'_>, v: ValueId) -> Result<ValueId, Diag> {
        if let Some(copy) = self.made.get(&v) {
            return Ok(*copy);
        }
        let n = ed.graph().def_node(v).ok_or_else(|| Diag::error("arity", "a value without a node"))?;
        let node = ed.graph().node(n).clone();
        let mut operands = Vec::with_capacity(node.inputs.len());
        for x in &node.inputs {
            operands.push(match x {
                Some(x) if ed.graph().as_const(*x).is_some() => Some(*x),
                Some(x) if self.is_lost(ed.graph(), *x) => Some(self.of(ed, *x)?),
                Some(x) => Some(self.hold(ed, *x)?),
                None => None,
            });
        }
        ed.set_loc(node.loc.clone());
        let made = ed.node(node.op.clone(), &operands)?;
        self.count += 1;
        for (old, new) in node.outputs.iter().zip(&made) {
            let fact = ed.graph().value(*old).fact.clone();
            ed.set_fact(*new, fact);
            self.made.insert(*old, *new);
        }
        Ok(self.made[&v])
    }

    fn hold(&mut self, ed: &mut Editor<'_>, v: ValueId) -> Result<ValueId, Diag> {
        if let Some(held) = self.held.get(&v) {
            return Ok(*held);
        }
        let held = ed.node1(Barrier {}, &[v])?;
        self.held.insert(v, held);
        Ok(held)
    }
}

#[cfg(test)]
mod tests {
    use crate::{Level, Pipeline, TargetFacts, parse_specs};
    use planish_ir::op::random::{stream, unit};
    use planish_ir::{DType, Diag, Graph, Tensor, Value, interp, text};

    /// Two blocks of a normalisation, a product, an activation and a residual.
    const NET: &str = "planish-ir 1
graph @\"g\"(v0 \"x\": f32[6,8], v1 \"w\": f32[8,8], v2 \"u\": f32[8,8], v3 \"b\": f32[8]) {
  v4, v5, v6 = layer-norm{axis=1, epsilon=0.01, rms=false} v0 : f32[6,8], f32[6,1], f32[6,1]
  v7 = matmul{trans_a=false, trans_b=false} v4, v1 : f32[6,8]
  v8 = binary{kind=add} v7, v3 : f32[6,8]
  v9 = unary{kind=gelu} v8 : f32[6,8]
  v10 = binary{kind=add} v9, v0 : f32[6,8]
  v11 = matmul{trans_a=false, trans_b=false} v10, v2 : f32[6,8]
  v12 = unary{kind=tanh} v11 : f32[6,8]
  v13 = softmax{kind=softmax, axis=1} v12 : f32[6,8]
  v14 = matmul{trans_a=false, trans_b=true} v13, v1 : f32[6,8]
  v15 = binary{kind=mul} v14, v14 : f32[6,8]
  v16 = reduce{kind=mean, axes=none, keepdims=false, noop_empty=false} v15 : f32[]
  return v16 \"loss\"
}
";

    struct Ran {
        graph: Graph,
        kept: Option<f64>,
        before: Option<f64>,
        limited: bool,
    }

    /// The graph after `grad` with these options, and after all passes of a level if one is given.
    fn after(net: &str, options: &str, level: Option<Level>) -> Result<Ran, Diag> {
        let mut graph = text::parse(net)?;
        let mut p = level.map_or_else(Pipeline::default, Pipeline::canonical);
        p.verify_each = true;
        p.specs(&parse_specs(&format!("grad{options}"))?);
        let mut report = p.run(&mut graph, &TargetFacts::default(), &mut |_, _| {})?;
        if let Some(level) = level {
            Pipeline::fused(level).run(&mut graph, &TargetFacts::default(), &mut |_, _| {})?;
        }
        let mut metric = |name: &str| report.ran.iter_mut().find_map(|r| r.metrics.remove(name));
        let (kept, before) = (metric("kept-bytes"), metric("kept-bytes-before"));
        let limited = report.remarks.iter().any(|d| d.id == "recompute-limited");
        Ok(Ran { graph, kept, before, limited })
    }

    fn bytes(graph: &Graph) -> Result<Vec<Vec<u8>>, Diag> {
        let inputs = (0..graph.inputs().len()).map(|i| {
            let shape = if i == 3 { vec![8] } else { vec![if i == 0 { 6 } else { 8 }, 8] };
            let n: usize = shape.iter().product();
            let v = (0..n as u64).map(|k| unit(stream(i as u64, k)) - 0.5).collect();
            Ok(Tensor::floats(DType::F32, &shape, v)?.into())
        });
        let values = interp::run(graph, inputs.collect::<Result<Vec<Value>, Diag>>()?)?.values;
        values.iter().map(|v| Ok(v.tensor()?.bytes().to_vec())).collect()
    }

    fn count(graph: &Graph, op: &str) -> usize {
        graph.all_nodes().into_iter().filter(|n| graph.node(*n).op.name() == op).count()
    }

    #[test]
    fn the_same_bits_come_out_of_every_budget() -> Result<(), Diag> {
        for level in [None, Some(Level::O2)] {
            let plain = after(NET, "", level)?;
            let (want, products) = (bytes(&plain.graph)?, count(&plain.graph, "matmul"));
            let mut last = f64::INFINITY;
            for budget in [1_000_000, 2000, 1500, 1300, 1100, 0] {
                let ran = after(NET, &format!("{{recompute={budget}}}"), level)?;
                let kept = ran.kept.unwrap_or(f64::NAN);
                assert!(kept <= last, "{budget}: {kept} bytes after {last}");
                assert_eq!(ran.limited, kept > f64::from(budget), "{budget}: {kept}");
                assert_eq!(bytes(&ran.graph)?, want, "{budget}");
                // Copies stay apart from what they copy, whatever passes come after.
                let before = ran.before.unwrap_or(f64::NAN);
                assert_eq!(count(&ran.graph, "barrier") > 0, kept < before, "{budget}");
                assert_eq!(count(&ran.graph, "matmul"), products, "{budget}");
                last = kept;
            }
            let first = after(NET, "{recompute=1000000}", level)?.before.unwrap_or(f64::NAN);
            assert!(last <= 0.8 * first, "{last} of {first}");
        }
        Ok(())
    }

    #[test]
    fn values_of_free_sizes_and_dear_ones_are_kept() -> Result<(), Diag> {
        let free = NET.replace("6,8", "N,8").replace("6,1", "N,1").replace("graph", "sym N 1..\ngraph");
        let ran = after(&free, "{recompute=0}", None)?;
        assert_eq!((ran.kept, count(&ran.graph, "barrier")), (Some(0.0), 0));
        let dear = "planish-ir 1\ngraph @\"g\"(v0 \"x\": f32[4,4], v1 \"w\": f32[4,4]) {
            v2 = matmul{trans_a=false, trans_b=false} v0, v1 : f32[4,4]
            v3 = matmul{trans_a=false, trans_b=false} v2, v2 : f32[4,4]
            return v3 \"y\" }";
        let ran = after(dear, "{recompute=0}", None)?;
        assert_eq!((ran.kept, ran.limited, count(&ran.graph, "barrier")), (Some(64.0), true, 0));
        Ok(())
    }

    #[test]
    fn a_budget_must_be_a_number() {
        for budget in ["many", "-1", "1.5"] {
            let Err(d) = after(NET, &format!("{{recompute={budget}}}"), None) else { panic!("{budget}") };
            assert_eq!(d.id, "pass-option");
            assert!(d.message.contains("recompute"), "{d}");
        }
    }
}
