//! Order and scope of names in a graph, before anything is built.

use crate::error::{OnnxError, quoted};
use crate::functions::graphs;
use crate::proto::{GraphProto, NodeProto};
use std::collections::{HashMap, HashSet};

/// The names that `graph` takes from outside, in the order of first use. Nested subgraphs count.
pub(crate) fn free_names(graph: &GraphProto) -> Vec<&str> {
    let mut found = Vec::new();
    let mut seen = HashSet::new();
    collect(graph, &mut Vec::new(), &mut |name| {
        if seen.insert(name) {
            found.push(name);
        }
    });
    found
}

/// Calls `found` for every name used in `graph` that neither it nor one of the `outer` name sets defines. The recursion
/// is bounded by the nesting limit of the wire scan.
fn collect<'m>(graph: &'m GraphProto, outer: &mut Vec<HashSet<&'m str>>, found: &mut impl FnMut(&'m str)) {
    let mut defined: HashSet<&str> = HashSet::new();
    defined.extend(graph.input.iter().map(|v| v.name()));
    defined.extend(graph.initializer.iter().map(|t| t.name()));
    defined.extend(graph.sparse_initializer.iter().filter_map(|s| Some(s.values.as_ref()?.name())));
    for node in &graph.node {
        defined.extend(node.output.iter().map(String::as_str));
    }
    outer.push(defined);
    for node in &graph.node {
        for name in &node.input {
            if !name.is_empty() && !outer.iter().any(|d| d.contains(name.as_str())) {
                found(name);
            }
        }
        for inner in node.attribute.iter().flat_map(graphs) {
            collect(inner, outer, found);
        }
    }
    for output in &graph.output {
        let name = output.name();
        if !name.is_empty() && !outer.iter().any(|d| d.contains(name)) {
            found(name);
        }
    }
    outer.pop();
}

/// An order of `nodes` in which definitions come before uses. Nodes that are in order already stay in order.
pub(crate) fn topological(nodes: &[NodeProto]) -> Result<Vec<usize>, OnnxError> {
    let mut definer: HashMap<&str, usize> = HashMap::new();
    for (at, node) in nodes.iter().enumerate() {
        for name in node.output.iter().filter(|n| !n.is_empty()) {
            if definer.insert(name, at).is_some() {
                let text = format!("two nodes define {}", quoted(name));
                return Err(OnnxError::new("onnx-duplicate-name", text));
            }
        }
    }
    #[derive(Clone, Copy, PartialEq)]
    enum Mark {
        New,
        Open,
        Done,
    }
    let mut marks = vec![Mark::New; nodes.len()];
    let mut order = Vec::with_capacity(nodes.len());
    let mut stack: Vec<(usize, Vec<usize>)> = Vec::new();
    let needs = |at: usize| -> Vec<usize> {
        let node: &NodeProto = &nodes[at];
        let mut needs: Vec<usize> =
            node.input.iter().filter_map(|n| definer.get(n.as_str()).copied()).collect();
        for graph in node.attribute.iter().flat_map(graphs) {
            needs.extend(free_names(graph).into_iter().filter_map(|n| definer.get(n).copied()));
        }
        needs.reverse();
        needs
    };
    for root in 0..nodes.len() {
        if marks[root] != Mark::New {
            continue;
        }
        marks[root] = Mark::Open;
        stack.push((root, needs(root)));
        while let Some((at, pending)) = stack.last_mut() {
            let at = *at;
            match pending.pop() {
                None => {
                    marks[at] = Mark::Done;
                    order.push(at);
                    stack.pop();
                }
                Some(next) => match marks[next] {
                    Mark::Done => {}
                    Mark::Open => {
                        let name = nodes[next].output.first().map_or("", String::as_str);
                        let text = format!("the node that defines {} depends on itself", quoted(name));
                        return Err(OnnxError::new("onnx-cycle", text));
                    }
                    Mark::New => {
                        marks[next] = Mark::Open;
                        stack.push((next, needs(next)));
                    }
                },
            }
        }
    }
    Ok(order)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{AttributeProto, ValueInfoProto};

    fn node(inputs: &[&str], outputs: &[&str]) -> NodeProto {
        let own = |names: &[&str]| names.iter().map(|n| n.to_string()).collect();
        NodeProto { input: own(inputs), output: own(outputs), ..NodeProto::default() }
    }

    fn holding(mut node: NodeProto, nodes: Vec<NodeProto>, inputs: &[&str], outputs: &[&str]) -> NodeProto {
        let values = |names: &[&str]| {
            names
                .iter()
                .map(|n| ValueInfoProto { name: Some(n.to_string()), ..ValueInfoProto::default() })
                .collect()
        };
        let graph = GraphProto {
            node: nodes,
            input: values(inputs),
            output: values(outputs),
            ..GraphProto::default()
        };
        node.attribute.push(AttributeProto { g: Some(Box::new(graph)), ..AttributeProto::default() });
        node
    }

    #[test]
    fn sorts_only_what_is_out_of_order() {
        let nodes = [node(&["b"], &["c"]), node(&["x"], &["a"]), node(&["a"], &["b"])];
        assert_eq!(topological(&nodes).unwrap(), [1, 2, 0]);
        let nodes = [node(&["x"], &["a"]), node(&["y"], &["b"]), node(&["a", "b"], &["c"])];
        assert_eq!(topological(&nodes).unwrap(), [0, 1, 2]);
        let inner = holding(node(&[], &["r"]), vec![node(&["late"], &["q"])], &[], &["q"]);
        assert_eq!(topological(&[inner, node(&[], &["late"])]).unwrap(), [1, 0]);
    }

    #[test]
    fn cycles_and_duplicates_are_errors() {
        assert_eq!(topological(&[node(&["y"], &["y"])]).unwrap_err().id, "onnx-cycle");
        assert_eq!(topological(&[node(&["b"], &["y"]), node(&["y"], &["b"])]).unwrap_err().id, "onnx-cycle");
        assert_eq!(
            topological(&[node(&[], &["y"]), node(&[], &["y"])]).unwrap_err().id,
            "onnx-duplicate-name"
        );
        assert!(topological(&[node(&[], &["", ""])]).is_ok());
    }

    #[test]
    fn free_names_see_through_nesting() {
        let deep =
            holding(node(&["in1"], &["d"]), vec![node(&["p", "x", "t"], &["z"])], &["p"], &["z", "out1"]);
        let n = holding(node(&[], &[]), vec![node(&["y", ""], &["t"]), deep], &[], &["d"]);
        assert_eq!(free_names(n.attribute[0].g.as_ref().unwrap()), ["y", "in1", "x", "out1"]);
    }
}
