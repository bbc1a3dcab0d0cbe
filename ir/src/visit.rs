//! petgraph's `visit` traits for one region of a graph, so that its algorithms run on it directly.

use crate::entity::Entity;
use crate::graph::{Graph, NodeId, RegionId, Use};
use petgraph::Direction;
use petgraph::visit::{
    Data, GraphBase, GraphProp, IntoNeighbors, IntoNeighborsDirected, IntoNodeIdentifiers, NodeCount,
    NodeIndexable, Visitable,
};
use std::collections::HashSet;

/// The nodes of a region with an edge from each definition to each of its users in the region.
#[derive(Clone, Copy)]
pub struct RegionGraph<'g> {
    /// The graph.
    pub graph: &'g Graph,
    /// The region.
    pub region: RegionId,
}

impl GraphBase for RegionGraph<'_> {
    type NodeId = NodeId;
    type EdgeId = (NodeId, NodeId);
}
impl petgraph::visit::GraphRef for RegionGraph<'_> {}
impl Data for RegionGraph<'_> {
    type NodeWeight = ();
    type EdgeWeight = ();
}
impl GraphProp for RegionGraph<'_> {
    type EdgeType = petgraph::Directed;
}
impl Visitable for RegionGraph<'_> {
    type Map = HashSet<NodeId>;
    fn visit_map(&self) -> Self::Map {
        HashSet::new()
    }
    fn reset_map(&self, map: &mut Self::Map) {
        map.clear();
    }
}
impl NodeCount for RegionGraph<'_> {
    fn node_count(&self) -> usize {
        self.graph.nodes_in(self.region).count()
    }
}
impl NodeIndexable for RegionGraph<'_> {
    fn node_bound(&self) -> usize {
        self.graph.nodes.len()
    }
    fn to_index(&self, n: NodeId) -> usize {
        n.index()
    }
    fn from_index(&self, i: usize) -> NodeId {
        NodeId::new(i)
    }
}
impl IntoNodeIdentifiers for RegionGraph<'_> {
    type NodeIdentifiers = std::vec::IntoIter<NodeId>;
    fn node_identifiers(self) -> Self::NodeIdentifiers {
        self.graph.nodes_in(self.region).collect::<Vec<_>>().into_iter()
    }
}
impl IntoNeighbors for RegionGraph<'_> {
    type Neighbors = std::vec::IntoIter<NodeId>;
    fn neighbors(self, n: NodeId) -> Self::Neighbors {
        self.neighbors_directed(n, Direction::Outgoing)
    }
}
impl IntoNeighborsDirected for RegionGraph<'_> {
    type NeighborsDirected = std::vec::IntoIter<NodeId>;
    fn neighbors_directed(self, n: NodeId, d: Direction) -> Self::NeighborsDirected {
        let node = self.graph.node(n);
        let out: Vec<NodeId> = match d {
            Direction::Incoming => {
                node.inputs.iter().flatten().filter_map(|v| self.graph.def_node(*v)).collect()
            }
            Direction::Outgoing => node
                .outputs
                .iter()
                .flat_map(|v| self.graph.uses(*v))
                .filter_map(|u| match u {
                    Use::Node(n, _) => Some(*n),
                    Use::Result(..) => None,
                })
                .collect(),
        };
        out.into_iter()
    }
}
