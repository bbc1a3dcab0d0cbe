//! The state of an export.

use super::attr;
use super::types::declare;
use super::{ExportOptions, ops};
use crate::proto::tensor_proto::DataLocation;
use crate::proto::{AttributeProto, GraphProto, NodeProto, StringStringEntryProto, TensorProto};
use crate::value::from_tensor;
use bytes::Bytes;
use planish_ir::graph::Node;
use planish_ir::{ConstId, DType, Diag, Encoding, Graph, NodeId, Op, RegionId, Tensor, ValueId};
use std::collections::{BTreeMap, HashMap, HashSet};

/// Default operator set of an export that needs nothing newer: the oldest one with 4-bit integers.
const BASE_OPSET: i64 = 21;
/// Splats of at least this many bytes are written as `ConstantOfShape`.
const LARGE_SPLAT: usize = 4096;
/// Alignment of tensors in the external data file, so that readers can map them.
const ALIGN: u64 = 4096;

pub(crate) struct ExportCx<'g> {
    pub(crate) graph: &'g Graph,
    options: &'g ExportOptions,
    names: HashMap<ValueId, String>,
    taken: Names,
    node_names: Names,
    /// Nodes of the graph or subgraph that is being written.
    nodes: Vec<NodeProto>,
    /// Large constants of one value, in front of all nodes of the main graph: the first user may be in a subgraph.
    splats: Vec<NodeProto>,
    initializers: Vec<TensorProto>,
    constants: HashMap<ConstId, String>,
    small: BTreeMap<Vec<i64>, String>,
    opset: i64,
    domains: BTreeMap<&'static str, i64>,
    external: Vec<(u64, Bytes)>,
    found: Vec<Diag>,
    label: String,
}

/// What remains when the graph is written.
pub(crate) struct Done {
    opset: i64,
    domains: BTreeMap<&'static str, i64>,
    pub(crate) external: Vec<(u64, Bytes)>,
}

impl Done {
    /// The oldest IR version that knows the operator set.
    pub(crate) fn ir_version(&self) -> i64 {
        match self.opset {
            ..=21 => 10,
            22 => 10,
            23 => 11,
            24 => 12,
            25..=27 => 13,
            _ => 14,
        }
    }

    /// Domains and versions that the model uses.
    pub(crate) fn opsets(&self) -> impl Iterator<Item = (&'static str, i64)> + '_ {
        std::iter::once(("", self.opset)).chain(self.domains.iter().map(|(d, v)| (*d, *v)))
    }
}

impl<'g> ExportCx<'g> {
    pub(crate) fn new(graph: &'g Graph, options: &'g ExportOptions) -> Self {
        ExportCx {
            graph,
            options,
            names: HashMap::new(),
            taken: Names::default(),
            node_names: Names::default(),
            nodes: Vec::new(),
            splats: Vec::new(),
            initializers: Vec::new(),
            constants: HashMap::new(),
            small: BTreeMap::new(),
            opset: BASE_OPSET,
            domains: BTreeMap::new(),
            external: Vec::new(),
            found: Vec::new(),
            label: String::new(),
        }
    }

    pub(crate) fn finish(self) -> Result<Done, Vec<Diag>> {
        if !self.found.is_empty() {
            return Err(self.found);
        }
        Ok(Done { opset: self.opset, domains: self.domains, external: self.external })
    }

    pub(crate) fn main(&mut self) -> GraphProto {
        let graph = self.graph;
        let symbols = Some(&graph.symbols);
        let mut inputs = Vec::new();
        for v in graph.inputs() {
            let name = self.define(*v);
            inputs.push(declare(&name, graph.ty(*v), symbols));
        }
        // Names of outputs are fixed before anything inside can take them.
        let mut pending = Vec::new();
        for (i, v) in graph.outputs().iter().enumerate() {
            let given = self.options.output_names.get(i).map(String::as_str);
            let wanted = given.or(graph.value(*v).name.as_deref()).unwrap_or("output");
            let computed = graph.def_node(*v).is_some_and(|n| !matches!(graph.node(n).op, Op::Const(_)));
            let named = self.names.get(v).is_some_and(|name| name == wanted);
            if !named && computed && !self.names.contains_key(v) && !self.taken.taken.contains(wanted) {
                self.taken.taken.insert(wanted.to_string());
                self.names.insert(*v, wanted.to_string());
                pending.push((wanted.to_string(), None));
            } else if named && !pending.iter().any(|(name, _)| name == wanted) {
                pending.push((wanted.to_string(), None));
            } else {
                pending.push((self.fresh(wanted), Some(*v)));
            }
        }
        self.region(graph.root());
        let mut outputs = Vec::new();
        for ((name, copied), v) in pending.into_iter().zip(graph.outputs()) {
            if let Some(from) = copied {
                let from = self.value(from);
                self.push("Identity", vec![from], vec![name.clone()], Vec::new());
            }
            outputs.push(declare(&name, graph.ty(*v), symbols));
        }
        let mut nodes = std::mem::take(&mut self.splats);
        nodes.append(&mut self.nodes);
        GraphProto {
            name: Some(graph.name.clone()),
            node: nodes,
            input: inputs,
            output: outputs,
            initializer: std::mem::take(&mut self.initializers),
            ..GraphProto::default()
        }
    }

    fn region(&mut self, region: RegionId) {
        let graph = self.graph;
        for n in graph.nodes_in(region) {
            if !matches!(graph.node(n).op, Op::Const(_)) {
                self.node(n);
            }
        }
    }

    fn node(&mut self, id: NodeId) {
        let node = self.graph.node(id);
        self.label = node.loc.label();
        for v in &node.outputs {
            self.define(*v);
        }
        let values = node.inputs.iter().flatten().chain(&node.outputs);
        values.filter_map(|v| self.graph.dtype(*v)).for_each(|d| self.needs_dtype(d));
        if let Err(d) = ops::emit(self, node) {
            self.found.push(d.at(node.loc.clone()));
        }
    }

    /// The nodes of the only region of `node` in its place; the parameters of the region are its operands.
    pub(crate) fn inline(&mut self, node: &Node) -> Result<(), Diag> {
        let graph = self.graph;
        let [region] = node.regions[..] else { return Err(Diag::error("arity", "one region is needed")) };
        for (param, v) in graph.region(region).params.iter().zip(&node.inputs) {
            let name = v.map_or(String::new(), |v| self.value(v));
            self.names.insert(*param, name);
        }
        let mut copies = Vec::new();
        for (inner, v) in graph.region(region).results.iter().zip(&node.outputs) {
            let name = self.value(*v);
            let computed = graph.def_node(*inner).is_some_and(|n| !matches!(graph.node(n).op, Op::Const(_)));
            if computed && !self.names.contains_key(inner) {
                self.names.insert(*inner, name);
            } else {
                copies.push((*inner, name));
            }
        }
        self.region(region);
        for (inner, name) in copies {
            let from = self.value(inner);
            self.push("Identity", vec![from], vec![name], Vec::new());
        }
        Ok(())
    }

    /// A subgraph for `region`. Its first `own` parameters become inputs of the subgraph, after the `extra` ones;
    /// `captured` are the outer values of the others. The results come after `leading` outputs.
    pub(crate) fn subgraph(
        &mut self,
        region: RegionId,
        own: usize,
        captured: &[ValueId],
        head: Head,
    ) -> Result<GraphProto, Diag> {
        let graph = self.graph;
        let (params, results) = (&graph.region(region).params, &graph.region(region).results);
        let outer = std::mem::take(&mut self.nodes);
        let label = self.label.clone();
        let mut inputs = Vec::new();
        for v in params.iter().take(own) {
            let name = self.define(*v);
            inputs.push(declare(&name, graph.ty(*v), None));
        }
        for (param, v) in params.iter().skip(own).zip(captured) {
            let name = self.value(*v);
            self.names.insert(*param, name);
        }
        let flag = planish_ir::Type::tensor(DType::Bool, Vec::new());
        let mut outputs = Vec::new();
        if head != Head::None {
            let name = self.fresh("condition");
            inputs.insert(1.min(inputs.len()), declare(&name, &flag, None));
            if head == Head::ConditionPassed {
                let out = self.fresh("condition");
                self.push("Identity", vec![name], vec![out.clone()], Vec::new());
                outputs.push(declare(&out, &flag, None));
            }
        }
        self.region(region);
        let mut given = HashSet::new();
        for v in results {
            let mut name = self.value(*v);
            // An output must be computed in the subgraph itself, and once.
            let local = graph.def_node(*v).is_some_and(|n| !matches!(graph.node(n).op, Op::Const(_)));
            if !local || !given.insert(*v) {
                let copy = self.fresh(&name);
                self.push("Identity", vec![name], vec![copy.clone()], Vec::new());
                name = copy;
            }
            outputs.push(declare(&name, graph.ty(*v), None));
        }
        self.label = label;
        let nodes = std::mem::replace(&mut self.nodes, outer);
        Ok(GraphProto {
            name: Some(format!("{region}")),
            node: nodes,
            input: inputs,
            output: outputs,
            ..GraphProto::default()
        })
    }

    /// The name under which `v` can be used.
    pub(crate) fn value(&mut self, v: ValueId) -> String {
        if let Some(name) = self.names.get(&v) {
            return name.clone();
        }
        if let Some((id, _)) = self.graph.as_const(v) {
            return self.constant(id, self.graph.value(v).name.as_deref());
        }
        self.define(v)
    }

    /// Names of a node's operands; the empty string where one is omitted, none at the end.
    pub(crate) fn inputs(&mut self, node: &Node) -> Vec<String> {
        let mut names: Vec<String> =
            node.inputs.iter().map(|v| v.map_or(String::new(), |v| self.value(v))).collect();
        while names.last().is_some_and(String::is_empty) {
            names.pop();
        }
        names
    }

    /// Names of a node's results; the empty string where one is unused, none at the end. The first is always named.
    pub(crate) fn outputs(&mut self, node: &Node) -> Vec<String> {
        let mut names = self.all_outputs(node);
        for (name, v) in names.iter_mut().zip(&node.outputs).skip(1) {
            if self.graph.uses(*v).is_empty() {
                name.clear();
            }
        }
        while names.len() > 1 && names.last().is_some_and(String::is_empty) {
            names.pop();
        }
        names
    }

    /// Names of all of a node's results.
    pub(crate) fn all_outputs(&mut self, node: &Node) -> Vec<String> {
        node.outputs.iter().map(|v| self.value(*v)).collect()
    }

    fn define(&mut self, v: ValueId) -> String {
        if let Some(name) = self.names.get(&v) {
            return name.clone();
        }
        let name = match self.graph.value(v).name.clone() {
            Some(name) => self.fresh(&name),
            None => self.fresh(&v.to_string()),
        };
        self.names.insert(v, name.clone());
        name
    }

    /// A name that nothing else has, `wanted` if that is possible.
    pub(crate) fn fresh(&mut self, wanted: &str) -> String {
        self.taken.unique(if wanted.is_empty() { "value" } else { wanted })
    }

    /// Requires at least this version of the default operator set.
    pub(crate) fn needs(&mut self, opset: i64) {
        self.opset = self.opset.max(opset);
    }

    /// Requires the operator set that knows the element type.
    fn needs_dtype(&mut self, dtype: DType) {
        match dtype {
            DType::F4E2M1 => self.needs(23),
            DType::F8E8M0 => self.needs(24),
            DType::U2 | DType::I2 => self.needs(25),
            _ => {}
        }
    }

    /// Uses a version of another domain.
    pub(crate) fn uses(&mut self, domain: &'static str, version: i64) {
        let slot = self.domains.entry(domain).or_insert(version);
        *slot = version.max(*slot);
    }

    /// A node of the default domain with named results.
    pub(crate) fn push(
        &mut self,
        op: &str,
        input: Vec<String>,
        output: Vec<String>,
        attribute: Vec<AttributeProto>,
    ) {
        self.push_in("", op, input, output, attribute);
    }

    /// A node with named results.
    pub(crate) fn push_in(
        &mut self,
        domain: &str,
        op: &str,
        input: Vec<String>,
        output: Vec<String>,
        attribute: Vec<AttributeProto>,
    ) {
        let wanted = if self.label.is_empty() { op } else { self.label.as_str() };
        let name = self.node_names.unique(wanted);
        self.nodes.push(NodeProto {
            op_type: Some(op.to_string()),
            domain: if domain.is_empty() { None } else { Some(domain.to_string()) },
            name: Some(name),
            input,
            output,
            attribute,
            ..NodeProto::default()
        });
    }

    /// A node of the default domain with one result that has a new name.
    pub(crate) fn temp(&mut self, op: &str, input: Vec<String>, attribute: Vec<AttributeProto>) -> String {
        let wanted = format!("{}_{op}", if self.label.is_empty() { "value" } else { &self.label });
        let name = self.fresh(&wanted);
        self.push(op, input, vec![name.clone()], attribute);
        name
    }

    /// A constant vector of integers.
    pub(crate) fn ints(&mut self, values: &[i64]) -> String {
        if let Some(name) = self.small.get(values) {
            return name.clone();
        }
        let name = self.fresh("ints");
        self.small.insert(values.to_vec(), name.clone());
        self.initializer(&Tensor::vec_i64(values), &name);
        name
    }

    /// A constant scalar.
    pub(crate) fn scalar(&mut self, dtype: DType, value: f64) -> Result<String, Diag> {
        let name = self.fresh("scalar");
        self.initializer(&Tensor::scalar(dtype, value)?, &name);
        Ok(name)
    }

    /// A constant tensor under a new name like `wanted`.
    pub(crate) fn tensor(&mut self, tensor: &Tensor, wanted: &str) -> String {
        let name = self.fresh(wanted);
        self.initializer(tensor, &name);
        name
    }

    fn constant(&mut self, id: ConstId, wanted: Option<&str>) -> String {
        if let Some(name) = self.constants.get(&id) {
            return name.clone();
        }
        let name = self.fresh(wanted.unwrap_or("constant"));
        self.constants.insert(id, name.clone());
        let constant = self.graph.constant(id).clone();
        self.needs_dtype(constant.dtype);
        if let Encoding::Splat(_) = &constant.encoding
            && constant.len() * constant.dtype.size() >= LARGE_SPLAT
            && let Some(value) = constant.as_splat().and_then(|v| v.reshaped(&[1]).ok())
            && let Ok(value) = from_tensor(&value)
        {
            let shape: Vec<i64> = constant.shape.iter().map(|d| *d as i64).collect();
            let shape = self.ints(&shape);
            let splat = TensorProto {
                dims: vec![1],
                data_type: Some(constant.dtype.onnx()),
                raw_data: value.file_bytes(),
                ..TensorProto::default()
            };
            let outer = std::mem::replace(&mut self.nodes, std::mem::take(&mut self.splats));
            self.push("ConstantOfShape", vec![shape], vec![name.clone()], vec![attr::tensor("value", splat)]);
            self.splats = std::mem::replace(&mut self.nodes, outer);
            return name;
        }
        match constant.decode() {
            Ok(tensor) => self.initializer(&tensor, &name),
            Err(d) => self.found.push(d),
        }
        name
    }

    fn initializer(&mut self, tensor: &Tensor, name: &str) {
        match from_tensor(tensor) {
            Ok(dense) => {
                let mut proto = dense.to_proto(name);
                if let Some(raw) = &proto.raw_data
                    && self.options.external_from.is_some_and(|from| raw.len() as u64 >= from.max(1))
                {
                    let raw = raw.clone();
                    proto.raw_data = None;
                    self.store(&mut proto, raw);
                }
                self.initializers.push(proto);
            }
            Err(e) => self.found.push(e.into()),
        }
    }

    fn store(&mut self, proto: &mut TensorProto, raw: Bytes) {
        let end = self.external.last().map_or(0, |(at, data)| at + data.len() as u64);
        let offset = end.next_multiple_of(ALIGN);
        let entry = |key: &str, value: String| StringStringEntryProto {
            key: Some(key.to_string()),
            value: Some(value),
        };
        proto.data_location = Some(DataLocation::External as i32);
        proto.external_data = vec![
            entry("location", self.options.external_name.clone()),
            entry("offset", offset.to_string()),
            entry("length", raw.len().to_string()),
        ];
        self.external.push((offset, raw));
    }
}

/// Names that are in use.
#[derive(Default)]
struct Names {
    taken: HashSet<String>,
    /// The number to try next after a name.
    next: HashMap<String, u64>,
}

impl Names {
    /// `wanted`, or it with a number if it is taken; taken from now on.
    fn unique(&mut self, wanted: &str) -> String {
        if self.taken.insert(wanted.to_string()) {
            return wanted.to_string();
        }
        let next = self.next.entry(wanted.to_string()).or_insert(0);
        loop {
            *next += 1;
            let name = format!("{wanted}_{next}");
            if self.taken.insert(name.clone()) {
                return name;
            }
        }
    }
}

/// What a loop body has in front of its own inputs and outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Head {
    /// Nothing: a branch.
    None,
    /// A condition as second input; the region's first result is the condition output.
    ConditionComputed,
    /// A condition as second input that is passed on as the first output.
    ConditionPassed,
}
