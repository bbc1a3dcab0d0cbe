use super::*;
use crate::proto::attribute_proto::AttributeType;

fn node(op: &str, domain: &str) -> NodeProto {
    NodeProto { op_type: Some(op.into()), domain: Some(domain.into()), ..NodeProto::default() }
}

fn function(name: &str, nodes: Vec<NodeProto>) -> FunctionProto {
    FunctionProto {
        name: Some(name.into()),
        domain: Some("f".into()),
        node: nodes,
        ..FunctionProto::default()
    }
}

fn model(nodes: Vec<NodeProto>, functions: Vec<FunctionProto>) -> ModelProto {
    let graph = GraphProto { node: nodes, ..GraphProto::default() };
    ModelProto { graph: Some(graph), functions, ..ModelProto::default() }
}

fn with_graph(mut node: NodeProto, body: Vec<NodeProto>) -> NodeProto {
    let graph = GraphProto { node: body, ..GraphProto::default() };
    node.attribute.push(AttributeProto { g: Some(Box::new(graph)), ..AttributeProto::default() });
    node
}

fn error(model: &ModelProto) -> &'static str {
    Functions::new(model, &Limits::default()).unwrap_err().id
}

#[test]
fn doubling_chain_is_rejected_by_its_expanded_size() {
    let mut functions = vec![function("F30", vec![node("Relu", "")])];
    for i in 0..30 {
        let callee = format!("F{}", i + 1);
        functions.push(function(&format!("F{i}"), vec![node(&callee, "f"), node(&callee, "f")]));
    }
    assert_eq!(error(&model(vec![node("F0", "f")], functions)), "limit-function-expansion");
}

#[test]
fn cycles_are_rejected_only_when_reachable() {
    let a = function("A", vec![node("B", "f")]);
    let b = function("B", vec![with_graph(node("If", ""), vec![node("A", "f")])]);
    let called = model(vec![node("A", "f")], vec![a.clone(), b.clone()]);
    assert_eq!(error(&called), "function-recursion");
    let unused = model(vec![node("Relu", "")], vec![a, b]);
    assert!(Functions::new(&unused, &Limits::default()).is_ok());
}

#[test]
fn counts_calls_inside_subgraphs() {
    let leaf = function("L", vec![with_graph(node("If", ""), vec![node("Relu", "")])]);
    let m = model(vec![with_graph(node("If", ""), vec![node("L", "f"), node("L", "f")])], vec![leaf]);
    let functions = Functions::new(&m, &Limits::default()).unwrap();
    let cost = functions.measure(&m.graph.as_ref().unwrap().node).unwrap();
    assert_eq!(cost, Expanded { nodes: 3 + 2 * 2, graph_depth: 2, call_depth: 1 });
}

#[test]
fn long_chains_and_deep_expansions_are_rejected() {
    let chain = |wrap: bool| {
        let mut functions = vec![function("F100", vec![node("Relu", "")])];
        for i in 0..100 {
            let call = node(&format!("F{}", i + 1), "f");
            let body = if wrap { with_graph(node("If", ""), vec![call]) } else { call };
            functions.push(function(&format!("F{i}"), vec![body]));
        }
        model(vec![node("F0", "f")], functions)
    };
    assert_eq!(error(&chain(false)), "limit-call-depth");
    assert_eq!(error(&chain(true)), "limit-graph-depth");
}

#[test]
fn duplicate_definitions_are_rejected_and_overloads_are_not() {
    let f = function("A", vec![node("Relu", "")]);
    assert_eq!(error(&model(vec![], vec![f.clone(), f.clone()])), "function-duplicate");
    let other = FunctionProto { overload: Some("v2".into()), ..f.clone() };
    let m = model(vec![], vec![f, other]);
    let functions = Functions::new(&m, &Limits::default()).unwrap();
    let call = NodeProto { overload: Some("v2".into()), ..node("A", "f") };
    assert_eq!(functions.get(&call).unwrap().overload(), "v2");
    assert!(functions.get(&node("A", "")).is_none());
}

fn int(name: &str, value: i64) -> AttributeProto {
    let kind = Some(AttributeType::Int as i32);
    AttributeProto { name: Some(name.into()), i: Some(value), r#type: kind, ..AttributeProto::default() }
}

fn reference(name: &str, to: &str) -> AttributeProto {
    let kind = Some(AttributeType::Int as i32);
    AttributeProto {
        name: Some(name.into()),
        ref_attr_name: Some(to.into()),
        r#type: kind,
        ..AttributeProto::default()
    }
}

#[test]
fn attributes_come_from_the_call_or_the_default_through_nested_calls() {
    let mut outer = function("O", vec![]);
    outer.attribute = vec!["p".into(), "absent".into()];
    outer.attribute_proto = vec![int("q", 7)];
    let mut inner = function("I", vec![]);
    inner.attribute = vec!["x".into(), "y".into(), "z".into()];

    let mut call_outer = node("O", "f");
    call_outer.attribute.push(int("p", 3));
    let mut call_inner = node("I", "f");
    call_inner.attribute = vec![reference("x", "p"), reference("y", "q"), reference("z", "absent")];

    let in_outer = Bindings::of_call(&outer, &call_outer, &Bindings::default()).unwrap();
    let in_inner = Bindings::of_call(&inner, &call_inner, &in_outer).unwrap();
    let (x, y, z) = (reference("axis", "x"), reference("axis", "y"), reference("axis", "z"));
    assert_eq!(in_inner.resolve(&x).unwrap().unwrap().i, Some(3));
    assert_eq!(in_inner.resolve(&y).unwrap().unwrap().i, Some(7));
    assert!(in_inner.resolve(&z).unwrap().is_none());

    let float = AttributeProto { r#type: Some(AttributeType::Float as i32), ..reference("axis", "x") };
    assert_eq!(in_inner.resolve(&float).unwrap_err().id, "function-attribute");
    let mut unknown = node("I", "f");
    unknown.attribute.push(int("w", 1));
    assert_eq!(Bindings::of_call(&inner, &unknown, &in_outer).unwrap_err().id, "function-attribute");
}
