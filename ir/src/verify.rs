//! The verifier. It collects every finding.
//!
//! Invariants:
//! 1. An operand is a value of the same region, and its definition comes before its use.
//! 2. Use lists hold exactly the uses.
//! 3. Arity, number of regions and number of results are those of the operation.
//! 4. Types are those that `infer` gives, up to dims that only the data decide.
//! 5. Constants exist; regions belong to the node that lists them.
//! 6. Names of inputs are unique, and so are those of outputs; state pairs have equal types.

use crate::diag::{Diag, Severity};
use crate::dim::Dim;
use crate::graph::{Def, Graph, NodeId, RegionId, Use, ValueId};
use crate::op::InferCx;
use crate::types::Type;
use std::collections::{BTreeSet, HashSet};

/// Everything that is wrong with a graph; empty when it is well-formed.
pub fn verify(graph: &Graph) -> Vec<Diag> {
    let mut v = Verifier { graph, found: Vec::new() };
    let mut uses = vec![Vec::new(); graph.values.len()];
    v.region(graph.root(), &mut uses);
    v.use_lists(&uses);
    v.signature();
    v.found
}

/// [`verify`] as a result with the first finding, for callers that stop there.
pub fn check(graph: &Graph) -> Result<(), Diag> {
    verify(graph).into_iter().find(|d| d.severity == Severity::Error).map_or(Ok(()), Err)
}

struct Verifier<'g> {
    graph: &'g Graph,
    found: Vec<Diag>,
}

impl Verifier<'_> {
    fn error(&mut self, n: Option<NodeId>, id: &'static str, message: String) {
        let mut d = Diag::error(id, message);
        if let Some(n) = n {
            d = d.at(self.graph.node(n).loc.clone());
        }
        self.found.push(d);
    }
    fn region(&mut self, r: RegionId, uses: &mut [Vec<Use>]) {
        let g = self.graph;
        let region = g.region(r);
        let mut seen: HashSet<ValueId> = HashSet::new();
        for (i, p) in region.params.iter().enumerate() {
            seen.insert(*p);
            if g.value(*p).def != Def::Param(r, i as u32) {
                self.error(None, "definition-mismatch", format!("{p} is not parameter {i} of {r}"));
            }
        }
        for n in g.nodes_in(r) {
            let node = g.node(n);
            if node.region != r || !node.live {
                self.error(
                    Some(n),
                    "region-mismatch",
                    format!("{n} is linked into {r} but does not belong to it"),
                );
            }
            for (i, v) in node.inputs.iter().enumerate() {
                let Some(v) = v else { continue };
                uses[crate::entity::Entity::index(*v)].push(Use::Node(n, i as u32));
                if !seen.contains(v) {
                    self.error(
                        Some(n),
                        "use-before-definition",
                        format!("{n} uses {v}, which is not defined before it in {r}"),
                    );
                }
            }
            for (i, v) in node.outputs.iter().enumerate() {
                seen.insert(*v);
                if g.value(*v).def != Def::Node(n, i as u32) {
                    self.error(Some(n), "definition-mismatch", format!("{v} is not result {i} of {n}"));
                }
            }
            for inner in &node.regions {
                if g.region(*inner).parent != Some(n) {
                    self.error(Some(n), "region-mismatch", format!("{inner} does not belong to {n}"));
                }
                self.region(*inner, uses);
            }
            self.types(n);
        }
        for (i, v) in region.results.iter().enumerate() {
            uses[crate::entity::Entity::index(*v)].push(Use::Result(r, i as u32));
            if !seen.contains(v) {
                self.error(
                    None,
                    "use-before-definition",
                    format!("result {i} of {r}, {v}, is not defined in it"),
                );
            }
        }
    }
    fn types(&mut self, n: NodeId) {
        let g = self.graph;
        let node = g.node(n);
        let mut symbols = g.symbols.clone();
        match InferCx::check(g, &mut symbols, n).run(&node.op) {
            Err(d) => self.found.push(d.at(node.loc.clone())),
            Ok(facts) if facts.len() != node.outputs.len() => {
                self.error(
                    Some(n),
                    "arity",
                    format!("`{}` gives {} results, not {}", node.op.name(), facts.len(), node.outputs.len()),
                );
            }
            Ok(facts) => {
                for (v, fact) in node.outputs.iter().zip(facts) {
                    let have = g.ty(*v);
                    if !agrees(&fact.ty, have) {
                        let text = format!(
                            "{v} is declared {}, but `{}` gives {}",
                            have.display(&symbols),
                            node.op.name(),
                            fact.ty.display(&symbols)
                        );
                        self.error(Some(n), "type-mismatch", text);
                    }
                }
            }
        }
    }
    fn use_lists(&mut self, uses: &[Vec<Use>]) {
        for (v, data) in self.graph.values.iter() {
            let key = |u: &Use| match u {
                Use::Node(n, i) => (0, crate::entity::Entity::index(*n), *i),
                Use::Result(r, i) => (1, crate::entity::Entity::index(*r), *i),
            };
            let want: BTreeSet<_> = uses[crate::entity::Entity::index(v)].iter().map(key).collect();
            let have: BTreeSet<_> = data.uses.iter().map(key).collect();
            if want != have || have.len() != data.uses.len() {
                self.error(None, "use-list-mismatch", format!("the use list of {v} is wrong"));
            }
        }
    }
    fn signature(&mut self) {
        let g = self.graph;
        let inputs = (0..g.inputs().len()).map(|i| g.input_name(i)).collect();
        let outputs = (0..g.outputs().len()).map(|i| g.output_name(i)).collect();
        for (what, list) in [("inputs", inputs), ("outputs", outputs)] {
            let list: Vec<&str> = list;
            let mut names = BTreeSet::new();
            for name in list {
                if !name.is_empty() && !names.insert(name) {
                    self.error(None, "name-repeated", format!("two {what} are called {name:?}"));
                }
            }
        }
        for s in &g.states {
            match (g.outputs().get(s.output as usize), g.inputs().get(s.input as usize)) {
                (Some(o), Some(i)) if g.ty(*o).fits(g.ty(*i)) => {}
                _ => self.error(
                    None,
                    "state-mismatch",
                    format!("output {} cannot be the state of input {}", s.output, s.input),
                ),
            }
        }
    }
}

/// Whether a declared type says nothing that contradicts the inferred one. Two known numbers must be equal; a
/// declared dim may know more or less than the inferred one.
fn agrees(inferred: &Type, declared: &Type) -> bool {
    let same = |a: &Dim, b: &Dim| match (a.as_const(), b.as_const()) {
        (Some(x), Some(y)) => x == y,
        _ => true,
    };
    match (inferred, declared) {
        (Type::Tensor(a), Type::Tensor(b)) => {
            a.dtype == b.dtype
                && a.quant == b.quant
                && match (&a.shape, &b.shape) {
                    (Some(x), Some(y)) => x.len() == y.len() && x.iter().zip(y).all(|(p, q)| same(p, q)),
                    _ => true,
                }
        }
        _ => inferred.fits(declared),
    }
}
