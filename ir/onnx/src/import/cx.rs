//! The state of an import.

use super::node::OnnxNode;
use super::order::{free_names, topological};
use super::scope::{Scope, Slot, opsets};
use super::{table, types};
use crate::error::{OnnxError, quoted};
use crate::external::ExternalData;
use crate::functions::{Bindings, Functions, shown};
use crate::limits::Limits;
use crate::proto::{self, FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto};
use crate::tensor::TensorReader;
use crate::value::to_tensor;
use planish_ir::graph::Fact;
use planish_ir::op::binary::BinaryKind;
use planish_ir::op::gather::Gather;
use planish_ir::op::sequence::SequenceAt;
use planish_ir::op::views::Shape;
use planish_ir::{Diag, Editor, Graph, Loc, RegionId, Severity, Symbols, Tensor, ValueId};
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

/// Builds the graph of one model.
pub struct ImportCx<'g, 'm> {
    /// Where nodes are added: always the end of the region that the current node belongs to.
    pub ed: Editor<'g>,
    model: &'m ModelProto,
    functions: &'m Functions<'m>,
    tensors: TensorReader<'m>,
    scopes: Vec<Scope<'m>>,
    found: Vec<Diag>,
    /// Nodes that may still be built, repeated attempts at loop bodies included.
    nodes_left: u64,
    /// Branches that are taken as known, by the label of their node.
    assumed: HashMap<String, bool>,
    /// Branches that what follows may depend on.
    open: Vec<String>,
}

/// What stands for a formal input of a subgraph.
#[derive(Clone, Debug)]
pub enum Formal {
    /// A parameter of the region, of which this is known.
    Param(Fact),
    /// A constant.
    Constant(Tensor),
    /// Nothing: a parameter of the region that the subgraph does not know of.
    Hidden(Fact),
    /// What parameter `of` of the region is.
    Same {
        /// Which.
        of: usize,
    },
    /// The item of the sequence that is parameter `of`, at the number that is parameter 0.
    Item {
        /// Which.
        of: usize,
    },
    /// The slice of the tensor that is parameter `of`, at the number that is parameter 0, from the end if `reversed`.
    Slice {
        /// Which.
        of: usize,
        /// The axis, which vanishes.
        axis: usize,
        /// Whether the last slice comes first.
        reversed: bool,
    },
}

/// A subgraph that was imported into a region. Parameters of the region are its [`Formal::Param`] inputs, then one for
/// each captured value.
#[derive(Clone, Debug)]
pub struct SubGraph {
    /// The region. Its results are left to the caller.
    pub region: RegionId,
    /// The outputs of the subgraph, values of the region.
    pub outputs: Vec<ValueId>,
}

impl<'g, 'm> ImportCx<'g, 'm> {
    pub(super) fn new(
        graph: &'g mut Graph,
        model: &'m ModelProto,
        functions: &'m Functions<'m>,
        external: &'m mut ExternalData,
        limits: &'m Limits,
    ) -> Self {
        ImportCx {
            ed: Editor::new(graph),
            model,
            functions,
            tensors: TensorReader::new(external, limits),
            scopes: Vec::new(),
            found: Vec::new(),
            nodes_left: limits.nodes,
            assumed: HashMap::new(),
            open: Vec::new(),
        }
    }

    /// Findings, and the branches for which [`ImportCx::branch_is_open`] was called.
    pub(super) fn finish(self) -> (Vec<Diag>, Vec<String>) {
        (self.found, self.open)
    }

    /// Takes the branches of these nodes as known.
    pub(super) fn assume(&mut self, assumed: &[(String, bool)]) {
        self.assumed = assumed.iter().cloned().collect();
    }

    /// Whether the first branch of a node is assumed to be taken, or the second.
    pub(super) fn assumed(&self, node: &OnnxNode<'m>) -> Option<bool> {
        self.assumed.get(&node.loc.label()).copied()
    }

    /// Notes that what follows may depend on which branch is taken.
    pub(super) fn branch_is_open(&mut self, node: &OnnxNode<'m>) {
        self.open.push(node.loc.label());
    }

    /// Records a finding that does not stop the current node.
    pub fn report(&mut self, diag: Diag) {
        self.found.push(diag);
    }

    /// The graph as built so far.
    pub fn graph(&self) -> &Graph {
        self.ed.graph()
    }

    /// The main graph; gives the names of its outputs.
    pub(super) fn model(&mut self) -> Vec<String> {
        let model = self.model;
        let mut versions = opsets(&model.opset_import);
        if model.ir_version() < 3 {
            versions.entry(String::new()).or_insert(1);
        }
        if let Some(newest) = versions.get("").filter(|v| **v > proto::OPSET_VERSION) {
            let text =
                format!("operator set {newest} is newer than {}, the newest supported", proto::OPSET_VERSION);
            self.report(Diag::error("unsupported-opset", text));
            return Vec::new();
        }
        let Some(graph) = &model.graph else { return Vec::new() };
        self.scopes.push(Scope {
            region: self.ed.region(),
            names: HashMap::new(),
            opsets: Rc::new(versions),
            bindings: Bindings::default(),
            path: String::new(),
        });
        let constants = constant_names(graph);
        for input in graph.input.iter().filter(|i| !constants.contains(i.name())) {
            let slot = match self.declared(input) {
                Ok(fact) => Slot::Value(self.ed.input(input.name(), fact.ty)),
                Err(e) => self.failed(Diag::from(e.about(format!("input {}", quoted(input.name()))))),
            };
            self.define(input.name(), slot);
        }
        self.body(graph);
        for output in &graph.output {
            match self.slot(output.name()) {
                Some(Slot::Value(v)) => {
                    if self.graph().value(v).name.is_none() {
                        self.ed.set_name(v, output.name());
                    }
                    self.check_output(output, v);
                    self.ed.output(v, Some(output.name()));
                }
                Some(_) => {}
                None => {
                    let text = format!("nothing defines the output {}", quoted(output.name()));
                    self.report(Diag::error("onnx-undefined-name", text));
                }
            }
        }
        self.scopes.pop();
        graph.output.iter().map(|o| o.name().to_string()).collect()
    }

    /// An output whose declared element type is another than the computed one is an error in the model.
    fn check_output(&mut self, output: &ValueInfoProto, v: ValueId) {
        let Some(ty) = &output.r#type else { return };
        let mut scratch = Symbols::default();
        let Ok(declared) = types::declared(ty, output.name(), &mut scratch) else { return };
        let (have, want) =
            (self.graph().ty(v).as_tensor().map(|t| t.dtype), declared.as_tensor().map(|t| t.dtype));
        if have.is_some() && want.is_some() && have != want {
            let text = format!(
                "output {} is declared as {} but computed as {}",
                quoted(output.name()),
                declared.display(&scratch),
                self.graph().ty(v).display(&self.graph().symbols)
            );
            self.report(Diag::error("onnx-type-mismatch", text));
        }
    }

    /// Initializers and nodes of `graph`, into the current scope.
    fn body(&mut self, graph: &'m GraphProto) {
        for tensor in &graph.initializer {
            let made = self.tensor(tensor);
            self.initializer(tensor.name(), made);
        }
        for sparse in &graph.sparse_initializer {
            let name = sparse.values.as_ref().map_or("", |v| v.name());
            let made = self.tensors.sparse(sparse).map_err(Diag::from).and_then(to_tensor);
            self.initializer(name, made);
        }
        self.nodes(&graph.node);
    }

    fn initializer(&mut self, name: &'m str, tensor: Result<Tensor, Diag>) {
        self.ed.set_loc(Loc::name(name));
        let slot = match tensor.and_then(|t| self.ed.constant(t)) {
            Ok(v) => {
                if self.graph().value(v).name.is_none() {
                    self.ed.set_name(v, name);
                }
                Slot::Value(v)
            }
            Err(e) => self.failed(e),
        };
        self.define(name, slot);
    }

    fn nodes(&mut self, nodes: &'m [NodeProto]) {
        match topological(nodes) {
            Ok(order) => order.into_iter().for_each(|at| self.node(&nodes[at])),
            Err(e) => {
                self.report(e.into());
                // Nothing of this list is built, which is no second problem of what uses it.
                if let Some(scope) = self.scopes.last_mut() {
                    for name in nodes.iter().flat_map(|n| &n.output) {
                        scope.names.entry(name).or_insert(Slot::Failed);
                    }
                }
            }
        }
    }

    fn node(&mut self, proto: &'m NodeProto) {
        let scope = self.scope();
        let domain = proto::canonical_domain(proto.domain());
        let function = self.functions.get(proto);
        let opset = scope.opsets.get(domain).copied();
        let label =
            if proto.name().is_empty() { proto.output.first().map_or("", |o| o) } else { proto.name() };
        let op = if domain.is_empty() {
            proto.op_type().to_string()
        } else {
            format!("{domain}::{}", proto.op_type())
        };
        let loc = Loc::Onnx {
            node: format!("{}{label}", scope.path).into(),
            op: op.as_str().into(),
            opset: opset.unwrap_or(0),
        };
        self.ed.set_loc(loc.clone());
        self.nodes_left = self.nodes_left.saturating_sub(1);
        if self.nodes_left == 0 && !self.found.iter().any(|d| d.id == "limit-nodes") {
            self.report(Diag::error("limit-nodes", "nested loops take too many attempts to build"));
        }
        let outcome = match (function, opset) {
            _ if self.nodes_left == 0 => Err(None),
            (Some(function), _) => self.call(function, proto, &loc, label),
            (None, Some(opset)) => self.operator(proto, opset, loc.clone(), &op),
            (None, None) if table::find(domain, proto.op_type()).is_some() && !domain.is_empty() => {
                self.operator(proto, 1, loc.clone(), &op)
            }
            (None, None) => {
                let text =
                    format!("{op}: the model imports no operator set for domain {}", quoted(proto.domain()));
                Err(Some(Diag::error("onnx-opset-missing", text)))
            }
        };
        let slots = match outcome {
            Ok(slots) => slots,
            Err(reason) => {
                if let Some(diag) = reason {
                    self.report(diag.at(loc));
                }
                vec![Slot::Failed; proto.output.len()]
            }
        };
        for (name, slot) in proto.output.iter().zip(slots) {
            if name.is_empty() {
                continue;
            }
            if let Slot::Value(v) = slot
                && self.graph().value(v).name.is_none()
            {
                self.ed.set_name(v, name);
            }
            self.define(name, slot);
        }
    }

    /// One operator. `Err(None)` means that the reason has been reported where an operand comes from.
    fn operator(
        &mut self,
        proto: &'m NodeProto,
        opset: i64,
        loc: Loc,
        op: &str,
    ) -> Result<Vec<Slot>, Option<Diag>> {
        let entry = table::find(proto::canonical_domain(proto.domain()), proto.op_type());
        let Some(entry) = entry.filter(|e| opset >= e.since) else {
            return Err(Some(Diag::error(
                "unsupported-op",
                format!("operator {op} (version {opset}) is not supported"),
            )));
        };
        let inputs = self.operands(proto)?;
        for graph in proto.attribute.iter().flat_map(crate::functions::graphs) {
            // A capture that failed makes the node unavailable without another message.
            for name in free_names(graph) {
                self.operand(name)?;
            }
        }
        let bindings = self.scope().bindings.clone();
        let node = OnnxNode::new(proto, opset, inputs, loc, &bindings).map_err(|e| Some(e.into()))?;
        let (depth, region) = (self.scopes.len(), self.scope().region);
        let values = (entry.handler)(self, &node);
        self.scopes.truncate(depth);
        self.ed.at_end(region);
        let values = values.map_err(|d| if d.id == REPORTED { None } else { Some(d) })?;
        for name in node.unknown_attributes() {
            let text = format!("{op}: attribute {} is not known and has no effect", quoted(name));
            self.report(Diag::warning("attribute-unknown", text).at(node.loc.clone()));
        }
        if values.len() < node.outputs.len() {
            let text = format!("{op}: {} results where the node names {}", values.len(), node.outputs.len());
            return Err(Some(Diag::error("onnx-too-many-outputs", text)));
        }
        Ok(values.into_iter().map(Slot::Value).collect())
    }

    fn operands(&mut self, proto: &'m NodeProto) -> Result<Vec<Option<ValueId>>, Option<Diag>> {
        proto.input.iter().map(|n| if n.is_empty() { Ok(None) } else { self.operand(n) }).collect()
    }

    fn operand(&mut self, name: &str) -> Result<Option<ValueId>, Option<Diag>> {
        match self.slot(name) {
            Some(Slot::Value(v)) => Ok(Some(v)),
            Some(Slot::Absent) => Ok(None),
            Some(Slot::Failed) => Err(None),
            None => {
                Err(Some(Diag::error("onnx-undefined-name", format!("nothing defines {}", quoted(name)))))
            }
        }
    }

    /// Builds the body of `function` in place of a call.
    fn call(
        &mut self,
        function: &'m FunctionProto,
        call: &'m NodeProto,
        loc: &Loc,
        label: &str,
    ) -> Result<Vec<Slot>, Option<Diag>> {
        let scope = self.scope();
        let (region, path) = (scope.region, format!("{}{label}/", scope.path));
        let bindings = Bindings::of_call(function, call, &scope.bindings).map_err(|e| Some(e.into()))?;
        if call.input.len() > function.input.len() || call.output.len() > function.output.len() {
            let text = format!("a call of {} has too many operands or results", shown(function));
            return Err(Some(Diag::error("function-arity", text)));
        }
        let mut versions = opsets(&function.opset_import);
        for (domain, version) in self.scope().opsets.iter() {
            versions.entry(domain.clone()).or_insert(*version);
        }
        let mut names = HashMap::new();
        for (at, formal) in function.input.iter().enumerate() {
            let slot = match call.input.get(at).filter(|n| !n.is_empty()) {
                None => Slot::Absent,
                Some(name) => match self.operand(name) {
                    Ok(Some(v)) => Slot::Value(v),
                    Ok(None) => Slot::Absent,
                    Err(None) => Slot::Failed,
                    Err(reason) => return Err(reason),
                },
            };
            names.insert(formal.as_str(), slot);
        }
        self.scopes.push(Scope { region, names, opsets: Rc::new(versions), bindings, path });
        self.nodes(&function.node);
        let mut slots = Vec::new();
        for output in &function.output {
            slots.push(self.slot(output).unwrap_or_else(|| {
                let text =
                    format!("function {} does not define its output {}", shown(function), quoted(output));
                self.failed(Diag::error("onnx-undefined-name", text).at(loc.clone()))
            }));
        }
        self.scopes.pop();
        self.ed.set_loc(loc.clone());
        Ok(slots)
    }

    /// Imports subgraphs of a control flow node into regions of their own, each with what stands for its inputs.
    ///
    /// The second result are the captured values, the same for all regions: every region has, after its own
    /// parameters, one parameter for each of them. Captured constants are repeated inside instead.
    pub fn subgraphs(
        &mut self,
        node: &OnnxNode<'m>,
        graphs: &[(&'m GraphProto, Vec<Formal>)],
    ) -> Result<(Vec<SubGraph>, Vec<ValueId>), Diag> {
        let captured = self.captures(node, graphs.iter().map(|(g, _)| *g))?;
        let mut values: Vec<ValueId> = Vec::new();
        for (_, slot) in &captured {
            if let Slot::Value(v) = slot
                && self.graph().as_const(*v).is_none()
                && !values.contains(v)
            {
                values.push(*v);
            }
        }
        let mut out: Vec<SubGraph> = Vec::with_capacity(graphs.len());
        for (graph, formals) in graphs {
            match self.subgraph(node, graph, formals, &captured, &values) {
                Ok(made) => out.push(made),
                Err(e) => {
                    self.discard(&out)?;
                    return Err(e);
                }
            }
        }
        self.ed.set_loc(node.loc.clone());
        Ok((out, values))
    }

    /// Throws away regions that no node holds yet.
    pub fn discard(&mut self, made: &[SubGraph]) -> Result<(), Diag> {
        made.iter().try_for_each(|m| self.ed.discard_region(m.region))
    }

    /// Imports a subgraph in place of its node; `args` are its inputs. Gives its outputs.
    pub fn inline(
        &mut self,
        node: &OnnxNode<'m>,
        graph: &'m GraphProto,
        args: &[ValueId],
    ) -> Result<Vec<ValueId>, Diag> {
        let names: HashMap<&str, Slot> = self.captures(node, [graph])?.into_iter().collect();
        let region = self.ed.region();
        self.enter(node, graph, names, args.iter().map(|v| Ok(*v)), region)
    }

    /// What the names that `graphs` take from outside stand for.
    fn captures(
        &mut self,
        node: &OnnxNode<'m>,
        graphs: impl IntoIterator<Item = &'m GraphProto>,
    ) -> Result<Vec<(&'m str, Slot)>, Diag> {
        let mut captured: Vec<(&'m str, Slot)> = Vec::new();
        let mut seen = HashSet::new();
        for name in graphs.into_iter().flat_map(free_names) {
            if seen.insert(name) {
                match self.slot(name) {
                    Some(slot) => captured.push((name, slot)),
                    None => {
                        return Err(
                            node.error("onnx-undefined-name", format!("nothing defines {}", quoted(name)))
                        );
                    }
                }
            }
        }
        Ok(captured)
    }

    fn subgraph(
        &mut self,
        node: &OnnxNode<'m>,
        graph: &'m GraphProto,
        formals: &[Formal],
        captured: &[(&'m str, Slot)],
        values: &[ValueId],
    ) -> Result<SubGraph, Diag> {
        let outer = self.ed.region();
        let region = self.ed.new_region();
        let mut args = Vec::with_capacity(formals.len());
        self.ed.at_end(region);
        for formal in formals {
            let param = |cx: &Self, of: usize| cx.graph().region(region).params.get(of).copied();
            let none = || node.error("internal-import", "no such parameter");
            args.push(match formal {
                Formal::Param(fact) => Ok(self.ed.param(region, fact.clone())),
                Formal::Constant(tensor) => self.ed.constant(tensor.clone()),
                Formal::Hidden(fact) => {
                    self.ed.param(region, fact.clone());
                    continue;
                }
                Formal::Same { of } => param(self, *of).ok_or_else(none),
                Formal::Item { of } => match (param(self, *of), param(self, 0)) {
                    (Some(v), Some(i)) => self.op(SequenceAt {}, &[v, i]),
                    _ => Err(none()),
                },
                Formal::Slice { of, axis, reversed } => match (param(self, *of), param(self, 0)) {
                    (Some(v), Some(i)) => self.element(v, *axis, i, *reversed),
                    _ => Err(none()),
                },
            });
        }
        let mut params = HashMap::new();
        for v in values {
            let fact = self.graph().value(*v).fact.clone();
            let param = self.ed.param(region, fact);
            if let Some(name) = self.graph().value(*v).name.clone() {
                self.ed.set_name(param, &name);
            }
            params.insert(*v, param);
        }
        let mut names = HashMap::new();
        for (name, slot) in captured {
            let inner = match slot {
                Slot::Value(v) => match params.get(v) {
                    Some(param) => Slot::Value(*param),
                    None => Slot::Value(self.repeat_constant(*v)?),
                },
                other => *other,
            };
            names.insert(*name, inner);
        }
        let outputs = self.enter(node, graph, names, args.into_iter(), region);
        self.ed.at_end(outer);
        match outputs {
            Ok(outputs) => Ok(SubGraph { region, outputs }),
            Err(e) => {
                self.ed.discard_region(region)?;
                Err(e)
            }
        }
    }

    /// The slice at `i` along an axis, counted from the last one if `reversed`.
    fn element(&mut self, v: ValueId, axis: usize, i: ValueId, reversed: bool) -> Result<ValueId, Diag> {
        let mut index = i;
        if reversed {
            let count = self.op(Shape { start: axis as i64, end: Some(axis as i64 + 1) }, &[v])?;
            let count = self.reshape(count, &[])?;
            let one = self.constant(Tensor::scalar_i64(1))?;
            let last = self.binary(BinaryKind::Sub, count, one)?;
            index = self.binary(BinaryKind::Sub, last, i)?;
        }
        self.op(Gather { axis }, &[v, index])
    }

    /// The body of a subgraph into `region`, in a scope that knows `names` and the inputs.
    fn enter(
        &mut self,
        node: &OnnxNode<'m>,
        graph: &'m GraphProto,
        mut names: HashMap<&'m str, Slot>,
        args: impl ExactSizeIterator<Item = Result<ValueId, Diag>>,
        region: RegionId,
    ) -> Result<Vec<ValueId>, Diag> {
        let outer = self.scope();
        let (opsets, bindings) = (outer.opsets.clone(), outer.bindings.clone());
        let constants = constant_names(graph);
        let inputs: Vec<&ValueInfoProto> =
            graph.input.iter().filter(|i| !constants.contains(i.name())).collect();
        if inputs.len() != args.len() {
            let text = format!(
                "subgraph {} takes {} values, not {}",
                quoted(graph.name()),
                inputs.len(),
                args.len()
            );
            return Err(node.error("subgraph-arity", text));
        }
        for (input, v) in inputs.iter().zip(args) {
            let v = v?;
            if self.graph().value(v).name.is_none() {
                self.ed.set_name(v, input.name());
            }
            names.insert(input.name(), Slot::Value(v));
        }
        let path = format!("{}/", node.loc.label());
        let captures_failed = names.values().any(|s| *s == Slot::Failed);
        self.scopes.push(Scope { region, names, opsets, bindings, path });
        let before = self.found.len();
        self.body(graph);
        let mut outputs = Vec::with_capacity(graph.output.len());
        for output in &graph.output {
            match self.slot(output.name()) {
                Some(Slot::Value(v)) => outputs.push(v),
                Some(_) => {}
                None => {
                    let text = format!("nothing defines the subgraph output {}", quoted(output.name()));
                    self.report(node.error("onnx-undefined-name", text));
                }
            }
        }
        self.scopes.pop();
        self.ed.set_loc(node.loc.clone());
        if outputs.len() == graph.output.len() && !self.errors_since(before) {
            return Ok(outputs);
        }
        let reported = captures_failed || self.errors_since(before);
        let id = if reported { REPORTED } else { "subgraph-output" };
        Err(node.error(id, "an output of a subgraph is not available"))
    }

    /// How many findings there are, for [`ImportCx::errors_since`].
    pub fn findings(&self) -> usize {
        self.found.len()
    }

    /// Whether an error was found after the first `before` findings.
    pub fn errors_since(&self, before: usize) -> bool {
        self.found[before..].iter().any(|d| d.severity == Severity::Error)
    }

    /// Forgets the findings after the first `before`, of an attempt that is made again in another way.
    pub fn forget_since(&mut self, before: usize) {
        self.found.truncate(before);
    }

    /// How many subgraphs and function bodies the current node is nested in.
    pub fn nesting(&self) -> usize {
        self.scopes.len() - 1
    }

    fn repeat_constant(&mut self, v: ValueId) -> Result<ValueId, Diag> {
        let Some((id, _)) = self.graph().as_const(v) else {
            return Err(Diag::error("internal-import", "a captured value is not available in a subgraph"));
        };
        self.ed.node1(planish_ir::op::Const { id }, &[])
    }

    /// The contents of a tensor of the file.
    pub fn tensor(&mut self, tensor: &TensorProto) -> Result<Tensor, Diag> {
        to_tensor(self.tensors.dense(tensor)?)
    }

    /// The contents of a sparse tensor of the file, made dense.
    pub fn sparse_tensor(&mut self, tensor: &proto::SparseTensorProto) -> Result<Tensor, Diag> {
        to_tensor(self.tensors.sparse(tensor)?)
    }

    /// The version of a domain's operator set where the current node stands.
    pub fn opset_of(&self, domain: &str) -> Option<i64> {
        self.scopes.last()?.opsets.get(domain).copied()
    }

    fn declared(&mut self, value: &ValueInfoProto) -> Result<Fact, OnnxError> {
        let missing = || OnnxError::new("onnx-bad-type", "no type is declared");
        let ty = value.r#type.as_ref().ok_or_else(missing)?;
        Ok(types::declared(ty, value.name(), self.ed.graph_mut().symbols)?.into())
    }

    fn scope(&self) -> &Scope<'m> {
        // `model` pushes the first scope before anything else runs, and every other push is popped.
        &self.scopes[self.scopes.len() - 1]
    }

    fn slot(&self, name: &str) -> Option<Slot> {
        self.scopes.last()?.names.get(name).copied()
    }

    fn define(&mut self, name: &'m str, slot: Slot) {
        if let Some(scope) = self.scopes.last_mut()
            && !name.is_empty()
            && scope.names.insert(name, slot).is_some()
        {
            let text = format!("{} is defined twice", quoted(name));
            self.found.push(Diag::error("onnx-duplicate-name", text));
        }
    }

    fn failed(&mut self, diag: Diag) -> Slot {
        self.report(diag);
        Slot::Failed
    }
}

/// Id of a diagnostic that only says that the reason has been reported already; never shown.
const REPORTED: &str = "reported";

/// Names of the values that initializers of `graph` give.
fn constant_names(graph: &GraphProto) -> std::collections::BTreeSet<&str> {
    let sparse = graph.sparse_initializer.iter().filter_map(|s| Some(s.values.as_ref()?.name()));
    graph.initializer.iter().map(|t| t.name()).chain(sparse).collect()
}
