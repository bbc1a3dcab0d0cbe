//! The graph: arenas of nodes, values, regions and constants, with use lists.

use crate::constant::{ConstId, Constant};
use crate::diag::Loc;
use crate::dim::{Dim, SymId, Symbols};
use crate::entity::PrimaryMap;
use crate::op::{Effects, Op};
use crate::types::Type;
use std::collections::HashMap;
use std::sync::Arc;

crate::entity!(
    /// One operation in a graph.
    NodeId, "n"
);
crate::entity!(
    /// One value: a result of a node or a parameter of a region.
    ValueId, "v"
);
crate::entity!(
    /// A list of nodes with parameters and results.
    RegionId, "r"
);

/// What defines a value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Def {
    /// Result `.1` of a node.
    Node(NodeId, u32),
    /// Parameter `.1` of a region.
    Param(RegionId, u32),
}

/// Where a value is used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Use {
    /// Operand `.1` of a node.
    Node(NodeId, u32),
    /// Result `.1` of a region.
    Result(RegionId, u32),
}

/// What `infer` knows about a value.
#[derive(Clone, PartialEq, Debug)]
pub struct Fact {
    /// The type.
    pub ty: Type,
    /// The elements of a small integer tensor of rank 0 or 1, if they follow from dims.
    pub content: Option<Vec<Dim>>,
}

impl From<Type> for Fact {
    fn from(ty: Type) -> Fact {
        Fact { ty, content: None }
    }
}

/// A value.
#[derive(Clone, Debug)]
pub struct ValueData {
    /// Type and content.
    pub fact: Fact,
    /// What defines it.
    pub def: Def,
    /// Its uses, in no particular order.
    pub(crate) uses: Vec<Use>,
    /// A name for people.
    pub name: Option<Arc<str>>,
}

/// A node.
#[derive(Clone, Debug)]
pub struct Node {
    /// What it does.
    pub op: Op,
    /// Operands; an omitted optional operand is `None`.
    pub inputs: Vec<Option<ValueId>>,
    /// Results.
    pub outputs: Vec<ValueId>,
    /// Regions of control flow, gates and fused groups.
    pub regions: Vec<RegionId>,
    /// Where it comes from.
    pub loc: Loc,
    /// The region it belongs to.
    pub region: RegionId,
    pub(crate) prev: Option<NodeId>,
    pub(crate) next: Option<NodeId>,
    pub(crate) live: bool,
}

impl Node {
    /// What it does besides computing its results.
    pub fn effects(&self) -> Effects {
        self.op.effects(&self.inputs)
    }
}

/// A region: parameters, nodes in an order in which definitions come before uses, and results.
#[derive(Clone, Debug, Default)]
pub struct Region {
    /// Parameters.
    pub params: Vec<ValueId>,
    /// Results, values of this region.
    pub results: Vec<ValueId>,
    /// The node that holds the region; none for the root.
    pub parent: Option<NodeId>,
    pub(crate) first: Option<NodeId>,
    pub(crate) last: Option<NodeId>,
}

/// A pair of an output and an input of the graph: the output of a run is the input of the next.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct StatePair {
    /// Index among the outputs.
    pub output: u32,
    /// Index among the inputs.
    pub input: u32,
}

/// A model as a graph. The parameters and results of the root region are its inputs and outputs.
#[derive(Clone, Debug)]
pub struct Graph {
    /// Name for people.
    pub name: String,
    /// The symbols of its dims.
    pub symbols: Symbols,
    /// Inputs that carry state between runs.
    pub states: Vec<StatePair>,
    /// The names of the outputs.
    pub(crate) output_names: Vec<Option<Arc<str>>>,
    pub(crate) nodes: PrimaryMap<NodeId, Node>,
    pub(crate) values: PrimaryMap<ValueId, ValueData>,
    pub(crate) regions: PrimaryMap<RegionId, Region>,
    pub(crate) consts: PrimaryMap<ConstId, Option<Arc<Constant>>>,
    pub(crate) const_by_hash: HashMap<u64, Vec<ConstId>>,
    pub(crate) root: RegionId,
}

impl Default for Graph {
    fn default() -> Self {
        Graph::new("main")
    }
}

impl Graph {
    /// A graph with an empty root region.
    pub fn new(name: &str) -> Graph {
        let mut regions = PrimaryMap::default();
        let root = regions.push(Region::default());
        Graph {
            name: name.to_owned(),
            symbols: Symbols::default(),
            states: Vec::new(),
            output_names: Vec::new(),
            nodes: PrimaryMap::default(),
            values: PrimaryMap::default(),
            regions,
            consts: PrimaryMap::default(),
            const_by_hash: HashMap::new(),
            root,
        }
    }
    /// The region whose parameters and results are the inputs and outputs.
    pub fn root(&self) -> RegionId {
        self.root
    }
    /// The inputs.
    pub fn inputs(&self) -> &[ValueId] {
        &self.regions[self.root].params
    }
    /// The outputs.
    pub fn outputs(&self) -> &[ValueId] {
        &self.regions[self.root].results
    }
    /// The name of an input, empty if it has none.
    pub fn input_name(&self, i: usize) -> &str {
        self.inputs().get(i).and_then(|v| self.values[*v].name.as_deref()).unwrap_or("")
    }
    /// The name of an output, empty if it has none.
    pub fn output_name(&self, i: usize) -> &str {
        self.output_names.get(i).and_then(Option::as_deref).unwrap_or("")
    }
    /// A node. It may have been erased, see [`Graph::is_live`].
    pub fn node(&self, n: NodeId) -> &Node {
        &self.nodes[n]
    }
    /// Whether the node is still part of the graph.
    pub fn is_live(&self, n: NodeId) -> bool {
        self.nodes[n].live
    }
    /// A value.
    pub fn value(&self, v: ValueId) -> &ValueData {
        &self.values[v]
    }
    /// The type of a value.
    pub fn ty(&self, v: ValueId) -> &Type {
        &self.values[v].fact.ty
    }
    /// The dims of a value that is a tensor of known rank.
    pub fn dims(&self, v: ValueId) -> Option<&[Dim]> {
        self.values[v].fact.ty.as_tensor()?.shape.as_deref()
    }
    /// The dtype of a value that is a tensor.
    pub fn dtype(&self, v: ValueId) -> Option<crate::DType> {
        Some(self.values[v].fact.ty.as_tensor()?.dtype)
    }
    /// The uses of a value.
    pub fn uses(&self, v: ValueId) -> &[Use] {
        &self.values[v].uses
    }
    /// A region.
    pub fn region(&self, r: RegionId) -> &Region {
        &self.regions[r]
    }
    /// Puts other dims in the place of symbols, wherever dims are known by them.
    pub fn substitute(&mut self, with: &dyn Fn(SymId) -> Option<Dim>) {
        for value in self.values.values_mut() {
            value.fact.ty = value.fact.ty.substitute(with);
            let content = value.fact.content.iter().flatten().map(|d| d.substitute(with)).collect();
            value.fact.content = value.fact.content.is_some().then_some(content);
        }
    }
    /// The nodes of a region in order.
    pub fn nodes_in(&self, r: RegionId) -> impl Iterator<Item = NodeId> + '_ {
        std::iter::successors(self.regions[r].first, move |n| self.nodes[*n].next)
    }
    /// The nodes of a region, last first.
    pub fn nodes_in_rev(&self, r: RegionId) -> impl Iterator<Item = NodeId> + '_ {
        std::iter::successors(self.regions[r].last, move |n| self.nodes[*n].prev)
    }
    /// All live nodes of all regions: a node, then the nodes of its regions.
    pub fn all_nodes(&self) -> Vec<NodeId> {
        let mut out = Vec::new();
        let mut stack = vec![self.regions[self.root].first];
        while let Some(top) = stack.last_mut() {
            let Some(n) = *top else {
                stack.pop();
                continue;
            };
            *top = self.nodes[n].next;
            out.push(n);
            for r in self.nodes[n].regions.iter().rev() {
                stack.push(self.regions[*r].first);
            }
        }
        out
    }
    /// All regions that are part of the graph, outer ones first.
    pub fn all_regions(&self) -> Vec<RegionId> {
        let mut out = vec![self.root];
        for n in self.all_nodes() {
            out.extend(&self.nodes[n].regions);
        }
        out
    }
    /// The node that defines a value, if a node does.
    pub fn def_node(&self, v: ValueId) -> Option<NodeId> {
        match self.values[v].def {
            Def::Node(n, _) => Some(n),
            Def::Param(..) => None,
        }
    }
    /// The constant a value is defined as, if it is one. Captured constants are not seen through.
    pub fn as_const(&self, v: ValueId) -> Option<(ConstId, &Arc<Constant>)> {
        match &self.node(self.def_node(v)?).op {
            Op::Const(c) => Some((c.id, self.constant(c.id))),
            _ => None,
        }
    }
    /// A constant.
    ///
    /// # Panics
    /// If it was freed, which `Editor` does only when nothing refers to it.
    pub fn constant(&self, c: ConstId) -> &Arc<Constant> {
        match &self.consts[c] {
            Some(k) => k,
            None => unreachable!("constant {c} was freed while in use"),
        }
    }
    /// The constant, unless it was freed or never existed.
    pub fn find_constant(&self, c: ConstId) -> Option<&Arc<Constant>> {
        self.consts.get(c)?.as_ref()
    }
    /// The constants that are still in use.
    pub fn constants(&self) -> impl Iterator<Item = (ConstId, &Arc<Constant>)> {
        self.consts.iter().filter_map(|(id, c)| Some((id, c.as_ref()?)))
    }
    /// How many nodes there are in all regions, constants not counted.
    pub fn node_count(&self) -> usize {
        self.all_nodes().iter().filter(|n| !matches!(self.node(**n).op, Op::Const(_))).count()
    }
    /// A word for a node in messages: its label or its id.
    pub fn describe(&self, n: NodeId) -> String {
        let label = self.node(n).loc.label();
        if label.is_empty() { format!("{} {n}", self.node(n).op.name()) } else { label }
    }
}
