//! The only way to change a graph. Counts edits, keeps use lists right, infers types.

use crate::constant::{ConstId, Constant};
use crate::diag::{Diag, Loc};
use crate::graph::{Def, Fact, Graph, Node, NodeId, Region, RegionId, Use, ValueData, ValueId};
use crate::op::{InferCx, Op};
use crate::types::Type;
use std::sync::Arc;

/// Changes a graph. New nodes go before `before` of `region`, or to its end.
pub struct Editor<'g> {
    graph: &'g mut Graph,
    region: RegionId,
    before: Option<NodeId>,
    loc: Loc,
    edits: u64,
}

/// A place for new nodes. It holds as long as the node that they go before is not erased.
#[derive(Clone, Debug)]
pub struct Place {
    region: RegionId,
    before: Option<NodeId>,
    loc: Loc,
}

impl<'g> Editor<'g> {
    /// An editor that appends to the root region.
    pub fn new(graph: &'g mut Graph) -> Editor<'g> {
        let region = graph.root;
        Editor { graph, region, before: None, loc: Loc::None, edits: 0 }
    }
    /// The graph.
    pub fn graph(&self) -> &Graph {
        self.graph
    }
    /// The graph's name, symbols and states, which may be changed freely. Nodes cannot be reached from there.
    pub fn graph_mut(&mut self) -> GraphParts<'_> {
        GraphParts {
            symbols: &mut self.graph.symbols,
            states: &mut self.graph.states,
            name: &mut self.graph.name,
        }
    }
    /// How many changes were made.
    pub fn edits(&self) -> u64 {
        self.edits
    }
    /// Puts new nodes at the end of this region from now on.
    pub fn at_end(&mut self, region: RegionId) {
        self.region = region;
        self.before = None;
    }
    /// Puts new nodes before this node from now on, with its location.
    pub fn before(&mut self, node: NodeId) {
        self.region = self.graph.nodes[node].region;
        self.before = Some(node);
        self.loc = self.graph.nodes[node].loc.clone();
    }
    /// Where new nodes go, with their location.
    pub fn place(&self) -> Place {
        Place { region: self.region, before: self.before, loc: self.loc.clone() }
    }
    /// Puts new nodes where [`Editor::place`] was asked.
    pub fn go(&mut self, place: Place) {
        (self.region, self.before, self.loc) = (place.region, place.before, place.loc);
    }
    /// The region that new nodes go to.
    pub fn region(&self) -> RegionId {
        self.region
    }
    /// The location of new nodes from now on.
    pub fn set_loc(&mut self, loc: Loc) {
        self.loc = loc;
    }
    /// The location of new nodes.
    pub fn loc(&self) -> &Loc {
        &self.loc
    }

    /// Adds an input (a parameter of the root).
    pub fn input(&mut self, name: &str, ty: Type) -> ValueId {
        let v = self.param(self.graph.root, ty.into());
        self.graph.values[v].name = Some(name.into());
        v
    }
    /// Adds a parameter to a region.
    pub fn param(&mut self, region: RegionId, fact: Fact) -> ValueId {
        let index = self.graph.regions[region].params.len() as u32;
        let v = self.graph.values.push(ValueData {
            fact,
            def: Def::Param(region, index),
            uses: Vec::new(),
            name: None,
        });
        self.graph.regions[region].params.push(v);
        self.edits += 1;
        v
    }
    /// Adds a result to a region; of the root: an output.
    pub fn result(&mut self, region: RegionId, v: ValueId) {
        let index = self.graph.regions[region].results.len() as u32;
        self.graph.regions[region].results.push(v);
        self.graph.values[v].uses.push(Use::Result(region, index));
        self.edits += 1;
    }
    /// Adds an output (a result of the root).
    pub fn output(&mut self, v: ValueId, name: Option<&str>) {
        self.graph.output_names.push(name.map(Into::into));
        self.result(self.graph.root, v);
    }
    /// Removes an output, which moves those behind it forward. States that it was part of are no states any more.
    pub fn remove_output(&mut self, index: usize) -> Result<(), Diag> {
        let root = self.graph.root;
        let results = self.graph.regions[root].results.clone();
        if index >= results.len() {
            return Err(Diag::error("arity", format!("there is no output {index}")));
        }
        for (i, v) in results.into_iter().enumerate().skip(index) {
            self.drop_use(v, Use::Result(root, i as u32));
            if i > index {
                self.graph.values[v].uses.push(Use::Result(root, i as u32 - 1));
            }
        }
        self.graph.regions[root].results.remove(index);
        if index < self.graph.output_names.len() {
            self.graph.output_names.remove(index);
        }
        let at = index as u32;
        self.graph.states.retain(|s| s.output != at);
        self.graph.states.iter_mut().filter(|s| s.output > at).for_each(|s| s.output -= 1);
        self.edits += 1;
        Ok(())
    }
    /// Makes a region that no node holds yet. Pass it to [`Editor::node_with_regions`].
    pub fn new_region(&mut self) -> RegionId {
        self.graph.regions.push(Region::default())
    }
    /// Names a value for people.
    pub fn set_name(&mut self, v: ValueId, name: &str) {
        self.graph.values[v].name = Some(name.into());
    }
    /// Overrides what is known of a value; for parameters, and for results whose `infer` knows less.
    pub fn set_fact(&mut self, v: ValueId, fact: Fact) {
        if self.graph.values[v].fact != fact {
            self.graph.values[v].fact = fact;
            self.edits += 1;
        }
    }

    /// Puts a constant into the pool, sharing an equal one.
    pub fn constant_id(&mut self, c: impl Into<Arc<Constant>>) -> ConstId {
        let c: Arc<Constant> = c.into();
        let hash = c.content_hash();
        let same = self.graph.const_by_hash.get(&hash).and_then(|ids| {
            ids.iter().copied().find(|id| self.graph.consts[*id].as_ref().is_some_and(|k| **k == *c))
        });
        same.unwrap_or_else(|| {
            let id = self.graph.consts.push(Some(c));
            self.graph.const_by_hash.entry(hash).or_default().push(id);
            id
        })
    }
    /// Adds a node that is a constant.
    pub fn constant(&mut self, c: impl Into<Constant>) -> Result<ValueId, Diag> {
        let id = self.constant_id(c.into());
        self.node1(Op::Const(crate::op::Const { id }), &[])
    }
    /// Replaces the payload of a constant for all its users. The dtype and shape must stay.
    pub fn set_constant(&mut self, id: ConstId, c: Constant) -> Result<(), Diag> {
        let old = self.graph.constant(id);
        if old.dtype != c.dtype || old.shape != c.shape {
            return Err(Diag::error("constant-malformed", "a new payload must keep dtype and shape"));
        }
        let hash = c.content_hash();
        self.graph.consts[id] = Some(Arc::new(c));
        self.graph.const_by_hash.entry(hash).or_default().push(id);
        self.edits += 1;
        Ok(())
    }

    /// Adds a node. Its types are inferred, and its results returned.
    pub fn node(&mut self, op: impl Into<Op>, inputs: &[Option<ValueId>]) -> Result<Vec<ValueId>, Diag> {
        self.node_with_regions(op, inputs, Vec::new())
    }
    /// Adds a node with one result and no omitted operands.
    pub fn node1(&mut self, op: impl Into<Op>, inputs: &[ValueId]) -> Result<ValueId, Diag> {
        let inputs: Vec<_> = inputs.iter().map(|v| Some(*v)).collect();
        let out = self.node(op, &inputs)?;
        out.first().copied().ok_or_else(|| Diag::error("arity", "this operation has no result"))
    }
    /// Adds a node with regions made by [`Editor::new_region`].
    pub fn node_with_regions(
        &mut self,
        op: impl Into<Op>,
        inputs: &[Option<ValueId>],
        regions: Vec<RegionId>,
    ) -> Result<Vec<ValueId>, Diag> {
        let op = op.into();
        let facts =
            InferCx::new(self.graph, inputs, &regions, &[]).run(&op).map_err(|d| d.at(self.loc.clone()))?;
        Ok(self.insert(op, inputs, regions, facts))
    }
    /// Adds a node whose results have known facts; used by the text parser, which verifies afterwards.
    pub(crate) fn insert(
        &mut self,
        op: Op,
        inputs: &[Option<ValueId>],
        regions: Vec<RegionId>,
        facts: Vec<Fact>,
    ) -> Vec<ValueId> {
        let id = self.graph.nodes.push(Node {
            op,
            inputs: inputs.to_vec(),
            outputs: Vec::new(),
            regions: regions.clone(),
            loc: self.loc.clone(),
            region: self.region,
            prev: None,
            next: None,
            live: true,
        });
        for (i, fact) in facts.into_iter().enumerate() {
            let v = self.graph.values.push(ValueData {
                fact,
                def: Def::Node(id, i as u32),
                uses: Vec::new(),
                name: None,
            });
            self.graph.nodes[id].outputs.push(v);
        }
        for (i, v) in inputs.iter().enumerate() {
            if let Some(v) = v {
                self.graph.values[*v].uses.push(Use::Node(id, i as u32));
            }
        }
        for r in regions {
            self.graph.regions[r].parent = Some(id);
        }
        self.link(id);
        self.edits += 1;
        self.graph.nodes[id].outputs.clone()
    }
    fn link(&mut self, id: NodeId) {
        let (region, next) = (self.region, self.before);
        let prev = match next {
            Some(n) => self.graph.nodes[n].prev,
            None => self.graph.regions[region].last,
        };
        let node = &mut self.graph.nodes[id];
        (node.region, node.prev, node.next) = (region, prev, next);
        match prev {
            Some(p) => self.graph.nodes[p].next = Some(id),
            None => self.graph.regions[region].first = Some(id),
        }
        match next {
            Some(n) => self.graph.nodes[n].prev = Some(id),
            None => self.graph.regions[region].last = Some(id),
        }
    }
    fn unlink(&mut self, id: NodeId) {
        let (region, prev, next) = {
            let n = &self.graph.nodes[id];
            (n.region, n.prev, n.next)
        };
        match prev {
            Some(p) => self.graph.nodes[p].next = next,
            None => self.graph.regions[region].first = next,
        }
        match next {
            Some(n) => self.graph.nodes[n].prev = prev,
            None => self.graph.regions[region].last = prev,
        }
        if self.before == Some(id) {
            self.before = next;
        }
    }
    /// Moves a node to the editor's place. The caller keeps definitions before uses.
    pub fn move_here(&mut self, id: NodeId) {
        if self.before != Some(id) {
            self.unlink(id);
            self.link(id);
            self.edits += 1;
        }
    }

    /// Makes every user of `old` use `new` instead.
    pub fn replace(&mut self, old: ValueId, new: ValueId) {
        if old == new {
            return;
        }
        for u in std::mem::take(&mut self.graph.values[old].uses) {
            self.rewire(u, new);
        }
        self.edits += 1;
    }
    fn rewire(&mut self, u: Use, new: ValueId) {
        match u {
            Use::Node(n, i) => self.graph.nodes[n].inputs[i as usize] = Some(new),
            Use::Result(r, i) => self.graph.regions[r].results[i as usize] = new,
        }
        self.graph.values[new].uses.push(u);
    }
    fn drop_use(&mut self, v: ValueId, u: Use) {
        let uses = &mut self.graph.values[v].uses;
        if let Some(at) = uses.iter().position(|x| *x == u) {
            uses.swap_remove(at);
        }
    }
    /// Changes one use only.
    pub fn set_use(&mut self, u: Use, new: ValueId) {
        let old = match u {
            Use::Node(n, i) => self.graph.nodes[n].inputs[i as usize],
            Use::Result(r, i) => Some(self.graph.regions[r].results[i as usize]),
        };
        if old == Some(new) {
            return;
        }
        if let Some(old) = old {
            self.drop_use(old, u);
        }
        self.rewire(u, new);
        self.edits += 1;
    }
    /// Replaces the operation and operands of a node, keeping its results, whose facts are inferred anew.
    pub fn rewrite(&mut self, id: NodeId, op: impl Into<Op>, inputs: &[Option<ValueId>]) -> Result<(), Diag> {
        let op = op.into();
        let (regions, outputs) = (self.graph.nodes[id].regions.clone(), self.graph.nodes[id].outputs.clone());
        let facts = InferCx::new(self.graph, inputs, &regions, &outputs).run(&op)?;
        if facts.len() != outputs.len() {
            return Err(Diag::error("arity", "a rewritten node must keep its number of results"));
        }
        for (i, v) in self.graph.nodes[id].inputs.clone().into_iter().enumerate() {
            if let Some(v) = v {
                self.drop_use(v, Use::Node(id, i as u32));
            }
        }
        for (i, v) in inputs.iter().enumerate() {
            if let Some(v) = v {
                self.graph.values[*v].uses.push(Use::Node(id, i as u32));
            }
        }
        for (v, fact) in outputs.into_iter().zip(facts) {
            self.graph.values[v].fact = fact;
        }
        let node = &mut self.graph.nodes[id];
        node.op = op;
        node.inputs = inputs.to_vec();
        self.edits += 1;
        Ok(())
    }
    /// Infers the results of a node again, after its operands have changed. Whether anything changed.
    pub fn reinfer(&mut self, id: NodeId) -> Result<bool, Diag> {
        let node = &self.graph.nodes[id];
        let (op, inputs, regions, outputs) =
            (node.op.clone(), node.inputs.clone(), node.regions.clone(), node.outputs.clone());
        let facts = InferCx::new(self.graph, &inputs, &regions, &outputs).run(&op)?;
        let mut changed = false;
        for (v, fact) in outputs.into_iter().zip(facts) {
            if self.graph.values[v].fact != fact {
                self.graph.values[v].fact = fact;
                changed = true;
            }
        }
        self.edits += u64::from(changed);
        Ok(changed)
    }
    /// Erases a node and its regions. None of its results may be in use.
    pub fn erase(&mut self, id: NodeId) -> Result<(), Diag> {
        let node = &self.graph.nodes[id];
        if let Some(v) = node.outputs.iter().find(|v| !self.graph.values[**v].uses.is_empty()) {
            return Err(Diag::error("erase-in-use", format!("{id} cannot be erased: {v} is in use")));
        }
        let (inputs, regions) = (node.inputs.clone(), node.regions.clone());
        for r in regions {
            for (i, v) in std::mem::take(&mut self.graph.regions[r].results).into_iter().enumerate() {
                self.drop_use(v, Use::Result(r, i as u32));
            }
            let inner: Vec<NodeId> = self.graph.nodes_in_rev(r).collect();
            for n in inner {
                self.erase(n)?;
            }
        }
        for (i, v) in inputs.into_iter().enumerate() {
            if let Some(v) = v {
                self.drop_use(v, Use::Node(id, i as u32));
            }
        }
        self.unlink(id);
        self.graph.nodes[id].live = false;
        self.edits += 1;
        Ok(())
    }
    /// Throws away a region made by [`Editor::new_region`] that no node holds.
    pub fn discard_region(&mut self, region: RegionId) -> Result<(), Diag> {
        if self.graph.regions[region].parent.is_some() || region == self.graph.root {
            return Err(Diag::error("erase-in-use", format!("{region} is in use")));
        }
        for (i, v) in std::mem::take(&mut self.graph.regions[region].results).into_iter().enumerate() {
            self.drop_use(v, Use::Result(region, i as u32));
        }
        let inner: Vec<NodeId> = self.graph.nodes_in_rev(region).collect();
        inner.into_iter().try_for_each(|n| self.erase(n))
    }
    /// Removes operand `index` of a node that holds regions together with the parameter `param` of each region it
    /// feeds. Both must be unused inside.
    pub fn drop_capture(&mut self, id: NodeId, index: usize, params: &[(RegionId, usize)]) {
        let node = &self.graph.nodes[id];
        let inputs = node.inputs.clone();
        for (i, v) in inputs.iter().enumerate().skip(index) {
            if let Some(v) = v {
                self.drop_use(*v, Use::Node(id, i as u32));
                if i > index {
                    self.graph.values[*v].uses.push(Use::Node(id, i as u32 - 1));
                }
            }
        }
        self.graph.nodes[id].inputs.remove(index);
        for (r, p) in params {
            self.graph.regions[*r].params.remove(*p);
            for (i, v) in self.graph.regions[*r].params.clone().into_iter().enumerate() {
                self.graph.values[v].def = Def::Param(*r, i as u32);
            }
        }
        self.edits += 1;
    }
    /// Frees the payload of constants that no node refers to.
    pub fn free_unused_constants(&mut self) {
        let mut used = vec![false; self.graph.consts.len()];
        let mark = |used: &mut Vec<bool>, id: ConstId| used[crate::entity::Entity::index(id)] = true;
        for n in self.graph.all_nodes() {
            if let Op::Const(c) = &self.graph.nodes[n].op {
                mark(&mut used, c.id);
            }
        }
        for (_, v) in self.graph.values.iter() {
            if let Type::Tensor(t) = &v.fact.ty
                && let Some(q) = &t.quant
            {
                mark(&mut used, q.scale);
                q.zero_point.into_iter().for_each(|z| mark(&mut used, z));
            }
        }
        let dead: Vec<ConstId> =
            self.graph.consts.keys().filter(|id| !used[crate::entity::Entity::index(*id)]).collect();
        for id in dead {
            self.graph.consts[id] = None;
        }
        let consts = &self.graph.consts;
        self.graph.const_by_hash.retain(|_, ids| {
            ids.retain(|id| consts[*id].is_some());
            !ids.is_empty()
        });
    }
}

/// The parts of a graph that hold no node.
pub struct GraphParts<'a> {
    /// Symbols.
    pub symbols: &'a mut crate::dim::Symbols,
    /// State pairs.
    pub states: &'a mut Vec<crate::graph::StatePair>,
    /// Name.
    pub name: &'a mut String,
}

#[cfg(test)]
mod tests {
    use super::Editor;
    use crate::graph::StatePair;
    use crate::{Diag, text, verify};

    #[test]
    fn an_output_goes_and_those_behind_it_move() -> Result<(), Diag> {
        let mut g = text::parse(
            "planish-ir 1\ngraph @\"g\"(v0 \"x\": f32[2], v1 \"h\": f32[2]) {
             v2 = binary{kind=add} v0, v1 : f32[2]
             return v2 \"y\", v0 \"gone\", v2 \"h.next\" }",
        )?;
        g.states = vec![StatePair { output: 1, input: 0 }, StatePair { output: 2, input: 1 }];
        let mut ed = Editor::new(&mut g);
        let edits = ed.edits();
        ed.remove_output(1)?;
        assert!(ed.edits() > edits);
        assert_eq!(ed.remove_output(2).map_err(|d| d.id), Err("arity"));
        assert_eq!(verify::verify(&g), []);
        let names: Vec<&str> = (0..g.outputs().len()).map(|i| g.output_name(i)).collect();
        assert_eq!(names, ["y", "h.next"]);
        assert_eq!(g.states, [StatePair { output: 1, input: 1 }]);
        Ok(())
    }
}
