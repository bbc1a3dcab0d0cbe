//! Model-local functions: lookup, cost of their expansion, and attribute binding.
//!
//! Nothing is expanded here. The importer walks into the body of a called function with the scope and the operator set
//! versions of that function, so names never have to be made unique and no message is copied. [`Functions::new`] proves
//! beforehand that this ends: no function calls itself, and expanded size and depths are inside the limits.

use crate::error::{OnnxError, quoted};
use crate::limits::Limits;
use crate::proto::{AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, canonical_domain};
use std::collections::BTreeMap;

/// The functions of a model.
#[derive(Debug, Default)]
pub struct Functions<'m> {
    list: Vec<&'m FunctionProto>,
    /// (domain, name, overload) to index.
    index: BTreeMap<(&'m str, &'m str, &'m str), usize>,
}

/// What a node list costs when all calls in it are expanded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expanded {
    /// Nodes, calls included, saturating.
    pub nodes: u64,
    /// Deepest nesting of subgraphs.
    pub graph_depth: u32,
    /// Longest chain of calls.
    pub call_depth: u32,
}

impl<'m> Functions<'m> {
    /// The functions of `model`, after a check that expanding all calls reachable from its graph is affordable.
    pub fn new(model: &'m ModelProto, limits: &Limits) -> Result<Self, OnnxError> {
        let mut functions = Functions::default();
        for f in &model.functions {
            let key = (canonical_domain(f.domain()), f.name(), f.overload());
            if functions.index.insert(key, functions.list.len()).is_some() {
                let text = format!("function {} is defined twice", shown(f));
                return Err(OnnxError::new("function-duplicate", text));
            }
            functions.list.push(f);
        }
        if let Some(graph) = &model.graph {
            functions.check(&graph.node, limits)?;
        }
        Ok(functions)
    }

    /// The function that `node` calls, if it is a call.
    pub fn get(&self, node: &NodeProto) -> Option<&'m FunctionProto> {
        self.position(node).map(|at| self.list[at])
    }

    fn position(&self, node: &NodeProto) -> Option<usize> {
        if self.list.is_empty() {
            return None;
        }
        self.index.get(&(canonical_domain(node.domain()), node.op_type(), node.overload())).copied()
    }

    fn check(&self, nodes: &[NodeProto], limits: &Limits) -> Result<(), OnnxError> {
        let total = self.measure(nodes)?;
        if total.nodes > limits.nodes {
            let text = format!("expanding the functions gives more nodes than the limit of {}", limits.nodes);
            return Err(OnnxError::new("limit-function-expansion", text));
        }
        if total.graph_depth > limits.graph_depth {
            let text = format!(
                "expanding the functions nests subgraphs deeper than the limit of {}",
                limits.graph_depth
            );
            return Err(OnnxError::new("limit-graph-depth", text));
        }
        if total.call_depth > limits.call_depth {
            let text = format!("functions call each other deeper than the limit of {}", limits.call_depth);
            return Err(OnnxError::new("limit-call-depth", text));
        }
        Ok(())
    }

    /// Cost of `nodes`. Each function is measured once, in an order where callees come first.
    pub fn measure(&self, nodes: &[NodeProto]) -> Result<Expanded, OnnxError> {
        #[derive(Clone)]
        enum Mark {
            New,
            Open,
            Done(Expanded),
        }
        let mut marks = vec![Mark::New; self.list.len()];
        let main = self.local(nodes);
        let mut stack: Vec<(usize, Local, usize)> = Vec::new();
        for (root, _) in &main.calls {
            if matches!(marks[*root], Mark::Done(_)) {
                continue;
            }
            marks[*root] = Mark::Open;
            stack.push((*root, self.local(&self.list[*root].node), 0));
            while let Some((function, local, next)) = stack.last_mut() {
                let Some((callee, _)) = local.calls.get(*next) else {
                    let done = local.total(|callee| match &marks[callee] {
                        Mark::Done(cost) => *cost,
                        _ => Expanded::default(),
                    });
                    marks[*function] = Mark::Done(done);
                    stack.pop();
                    continue;
                };
                *next += 1;
                match marks[*callee] {
                    Mark::Done(_) => {}
                    Mark::Open => {
                        let text = format!("function {} calls itself", shown(self.list[*callee]));
                        return Err(OnnxError::new("function-recursion", text));
                    }
                    Mark::New => {
                        let callee = *callee;
                        marks[callee] = Mark::Open;
                        stack.push((callee, self.local(&self.list[callee].node), 0));
                    }
                }
            }
        }
        Ok(main.total(|callee| match &marks[callee] {
            Mark::Done(cost) => *cost,
            _ => Expanded::default(),
        }))
    }

    fn local(&self, nodes: &[NodeProto]) -> Local {
        let mut local = Local::default();
        let mut work: Vec<(&[NodeProto], u32)> = vec![(nodes, 0)];
        while let Some((nodes, depth)) = work.pop() {
            local.depth = local.depth.max(depth);
            local.nodes += nodes.len() as u64;
            for node in nodes {
                if let Some(callee) = self.position(node) {
                    local.calls.push((callee, depth));
                }
                for graph in node.attribute.iter().flat_map(graphs) {
                    work.push((&graph.node, depth + 1));
                }
            }
        }
        local
    }
}

/// Cost of a node list without what it calls.
#[derive(Default)]
struct Local {
    nodes: u64,
    depth: u32,
    /// Callee and the depth of subgraphs that the call stands in.
    calls: Vec<(usize, u32)>,
}

impl Local {
    fn total(&self, cost: impl Fn(usize) -> Expanded) -> Expanded {
        let mut total = Expanded { nodes: self.nodes, graph_depth: self.depth, call_depth: 0 };
        for (callee, depth) in &self.calls {
            let callee = cost(*callee);
            total.nodes = total.nodes.saturating_add(callee.nodes);
            total.graph_depth = total.graph_depth.max(depth.saturating_add(callee.graph_depth));
            total.call_depth = total.call_depth.max(callee.call_depth.saturating_add(1));
        }
        total
    }
}

/// The subgraphs of an attribute.
pub fn graphs(attribute: &AttributeProto) -> impl Iterator<Item = &GraphProto> {
    attribute.g.as_deref().into_iter().chain(&attribute.graphs)
}

/// `domain::name` of a function, escaped.
pub fn shown(f: &FunctionProto) -> String {
    quoted(&format!("{}::{}", f.domain(), f.name()))
}

/// Attribute values that the body of a called function sees. Empty in the main graph.
#[derive(Clone, Debug, Default)]
pub struct Bindings<'m> {
    values: BTreeMap<&'m str, &'m AttributeProto>,
}

impl<'m> Bindings<'m> {
    /// Values for the body of `function` when `call` calls it from a body with the bindings `caller`. Attributes that
    /// neither the call nor a default gives stay absent.
    pub fn of_call(
        function: &'m FunctionProto,
        call: &'m NodeProto,
        caller: &Bindings<'m>,
    ) -> Result<Bindings<'m>, OnnxError> {
        let mut values = BTreeMap::new();
        for default in &function.attribute_proto {
            values.insert(default.name(), default);
        }
        for attribute in &call.attribute {
            let name = attribute.name();
            let declared = function.attribute.iter().any(|a| a == name)
                || function.attribute_proto.iter().any(|a| a.name() == name);
            if !declared {
                let text = format!("function {} has no attribute {}", shown(function), quoted(name));
                return Err(OnnxError::new("function-attribute", text));
            }
            if let Some(value) = caller.resolve(attribute)? {
                values.insert(name, value);
            }
        }
        Ok(Bindings { values })
    }

    /// The attribute that holds the value of `attribute`: itself, or what its `ref_attr_name` is bound to; `None` where
    /// the reference is to an absent attribute.
    pub fn resolve(&self, attribute: &'m AttributeProto) -> Result<Option<&'m AttributeProto>, OnnxError> {
        let reference = attribute.ref_attr_name();
        if reference.is_empty() {
            return Ok(Some(attribute));
        }
        let Some(value) = self.values.get(reference).copied() else { return Ok(None) };
        if attribute.r#type.is_some() && value.r#type.is_some() && attribute.r#type != value.r#type {
            let text = format!("attribute {} refers to one of another type", quoted(attribute.name()));
            return Err(OnnxError::new("function-attribute", text));
        }
        if graphs(value).next().is_some() {
            let text = format!("attribute {} passes a subgraph into a function", quoted(attribute.name()));
            return Err(OnnxError::new("unsupported-function-graph-attribute", text));
        }
        Ok(Some(value))
    }
}

#[cfg(test)]
mod tests;
