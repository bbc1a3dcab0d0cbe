//! Which constants of a model are its parameters.

use planish_ir::graph::Use;
use planish_ir::{Constant, Diag, Editor, Graph, NodeId, Op, Tensor, ValueId};
use std::collections::{BTreeMap, BTreeSet};

/// Gives each constant that training changes a name of its own, and lists these names in the order of the graph: float operands with more than one
/// element that are weights and biases of products, convolutions and recurrent layers, factors and shifts of normalisations, tables of
/// embeddings, and operands of elementwise arithmetic. Constants without a name get that of the node that takes them, and what several take under several
/// names stays one parameter. Parts of tables, as [`ClusterWeights`](crate::cluster_weights::ClusterWeights) makes them, count as tables, and scales that
/// [`FakeQuantize`](crate::fake_quantize::FakeQuantize) makes count also if they are one number.
pub fn name_parameters(graph: &mut Graph) -> Vec<String> {
    let (mut names, mut taken) = (Vec::new(), BTreeSet::new());
    let nodes: Vec<_> = graph.nodes_in(graph.root()).collect();
    for n in nodes {
        let Some(v) = graph.node(n).outputs.first().copied() else { continue };
        let Some((node, operand)) = taker(graph, v) else { continue };
        let named = graph.value(v).name.as_deref().map(str::to_owned);
        let base = named.unwrap_or_else(|| format!("{node}.{operand}"));
        let mut name = base.clone();
        let mut number = 1;
        while !taken.insert(name.clone()) {
            number += 1;
            name = format!("{base}.{number}");
        }
        Editor::new(graph).set_name(v, &name);
        names.push(name);
    }
    names
}

/// The first node that takes a constant as a parameter, and as which operand; none where it is no parameter.
fn taker(graph: &Graph, v: ValueId) -> Option<(String, u32)> {
    let (_, c) = graph.as_const(v)?;
    if !c.dtype.is_float() {
        return None;
    }
    let single = c.shape.iter().product::<usize>() < 2;
    graph.uses(v).iter().find_map(|u| match u {
        Use::Node(node, operand) => {
            let op = &graph.node(*node).op;
            let step = matches!((op, operand), (Op::FakeQuantize(_), 1));
            let part = matches!(op, Op::Concat(_)) && is_table(graph, *node);
            let taken = step || !single && (part || is_parameter(op, *operand as usize));
            taken.then(|| (graph.describe(*node), *operand))
        }
        Use::Result(..) => None,
    })
}

/// Whether the result of a node is only read as the table of gathers.
pub(crate) fn is_table(graph: &Graph, n: NodeId) -> bool {
    let uses = graph.node(n).outputs.iter().flat_map(|v| graph.uses(*v));
    let reads = |u: &Use| matches!(u, Use::Node(n, 0) if matches!(graph.node(*n).op, Op::Gather(_)));
    let mut uses = uses.peekable();
    uses.peek().is_some() && uses.all(reads)
}

/// Whether an operand of an operation is trained where it is a constant.
fn is_parameter(op: &Op, operand: usize) -> bool {
    match op {
        Op::MatMul(_) | Op::Einsum(_) | Op::Binary(_) => true,
        Op::Conv(_) | Op::ConvTranspose(_) | Op::LayerNorm(_) => operand == 1 || operand == 2,
        // Weights, recurrent weights, biases and peepholes; not the states that it starts with.
        Op::Recurrent(_) => matches!(operand, 1..=3 | 7),
        Op::SkimRecurrent(_) => matches!(operand, 1..=8),
        Op::Gather(_) | Op::FakeQuantize(_) => operand == 0,
        Op::Gate(_) | Op::GatedMatMul(_) => operand > 0,
        _ => false,
    }
}

/// The model with other values for the constants of these names.
///
/// # Errors
/// `train-malformed` where no constant has a name or its shape is another.
pub fn with_values(model: &Graph, values: &BTreeMap<String, Tensor>) -> Result<Graph, Diag> {
    let mut graph = model.clone();
    let nodes: Vec<_> = graph.nodes_in(graph.root()).collect();
    let mut left: BTreeSet<&str> = values.keys().map(String::as_str).collect();
    for n in nodes {
        let Some(v) = graph.node(n).outputs.first().copied() else { continue };
        let (Some((_, c)), Some(name)) = (graph.as_const(v), graph.value(v).name.clone()) else { continue };
        let Some(new) = values.get(&*name).filter(|_| left.remove(&*name)) else { continue };
        if (new.dtype(), new.shape()) != (c.dtype, &c.shape[..]) {
            let text = format!("{name} is {}{:?}, not {}{:?}", c.dtype, c.shape, new.dtype(), new.shape());
            return Err(super::malformed(text));
        }
        replace(&mut graph, v, new.clone().into(), &name)?;
    }
    match left.first() {
        Some(name) => Err(super::malformed(format!("the model has no constant {name:?}"))),
        None => Ok(graph),
    }
}

/// Puts a constant in the place of one. Equal constants share a payload, so each gets one of its own.
pub(super) fn replace(graph: &mut Graph, old: ValueId, new: Constant, name: &str) -> Result<(), Diag> {
    let mut ed = Editor::new(graph);
    let node = ed.graph().def_node(old).ok_or_else(|| super::malformed("not the model of this step"))?;
    ed.before(node);
    let new = ed.constant(new)?;
    ed.set_name(new, name);
    ed.replace(old, new);
    ed.erase(node)
}
