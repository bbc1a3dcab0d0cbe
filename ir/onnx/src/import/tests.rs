use super::*;
use crate::proto::*;
use crate::testing::*;
use planish_ir::{Tensor, Value, interp, verify};

fn import(model: &ModelProto) -> Result<Imported, Vec<&'static str>> {
    let imported = import_model(model, None, &ImportOptions::default())
        .map_err(|found| found.iter().map(|d| d.id).collect::<Vec<_>>())?;
    assert_eq!(verify::verify(&imported.graph), []);
    Ok(imported)
}

fn run(model: &ModelProto, inputs: &[(&[usize], &[f32])]) -> Vec<(Vec<usize>, Vec<f64>)> {
    let imported = import(model).unwrap();
    let inputs = inputs.iter().map(|(s, v)| Value::Tensor(Tensor::f32s(s, v).unwrap())).collect();
    let out = interp::run(&imported.graph, inputs).unwrap();
    out.values.iter().map(|v| v.tensor().unwrap()).map(|t| (t.shape().to_vec(), t.to_f64())).collect()
}

#[test]
fn runs_nodes_in_any_order_and_keeps_names() {
    let nodes = vec![node("Neg", &["t"], &["y"], vec![]), node("Relu", &["x"], &["t"], vec![])];
    let m = model(17, vec![value("x", &["?", "N", "2"])], nodes, &["y", "t"]);
    let imported = import(&m).unwrap();
    let g = &imported.graph;
    let ty = g.ty(g.inputs()[0]).display(&g.symbols).to_string();
    assert_eq!(ty, "f32[x.0,N,2]");
    assert_eq!(imported.output_names, ["y", "t"]);
    assert_eq!(g.value(g.outputs()[0]).name.as_deref(), Some("y"));
    let out = run(&m, &[(&[1, 1, 2], &[-1.0, 3.0])]);
    assert_eq!(out, [(vec![1, 1, 2], vec![0.0, -3.0]), (vec![1, 1, 2], vec![0.0, 3.0])]);
}

#[test]
fn initializers_among_inputs_are_constants() {
    let mut m = model(
        17,
        vec![value("x", &["2"]), value("w", &["2"])],
        vec![node("Add", &["x", "w"], &["y"], vec![])],
        &["y"],
    );
    m.graph.as_mut().unwrap().initializer.push(floats("w", &[2], &[10.0, 20.0]));
    assert_eq!(import(&m).unwrap().graph.inputs().len(), 1);
    assert_eq!(run(&m, &[(&[2], &[1.0, 2.0])])[0].1, [11.0, 22.0]);
}

#[test]
fn every_problem_is_reported_once() {
    let nodes = vec![
        node("NoSuchOp", &["x"], &["a"], vec![]),
        node("Relu", &["a"], &["b"], vec![]),
        node("Add", &["b", "x"], &["y"], vec![]),
        node("Clip", &["nowhere"], &["c"], vec![]),
        node("LeakyRelu", &["x"], &["d"], vec![int("alpha", 1)]),
        node("Where", &["x"], &["e"], vec![]),
    ];
    let m = model(17, vec![value("x", &["2"])], nodes, &["y", "z"]);
    let expected =
        ["unsupported-op", "onnx-undefined-name", "attribute-type", "operand-missing", "onnx-undefined-name"];
    assert_eq!(import(&m).unwrap_err(), expected);
    let found = import_model(&m, None, &ImportOptions::default()).unwrap_err();
    assert!(found[0].is_unsupported());
    assert_eq!(
        found[0].to_string(),
        "error[unsupported-op]: operator NoSuchOp (version 17) is not supported (node \"a\", NoSuchOp-17)"
    );
}

#[test]
fn malformed_graphs_are_rejected() {
    let x = || vec![value("x", &["2"])];
    let twice = model(
        17,
        x(),
        vec![node("Relu", &["x"], &["y"], vec![]), node("Neg", &["x"], &["y"], vec![])],
        &["y"],
    );
    assert_eq!(import(&twice).unwrap_err(), ["onnx-duplicate-name"]);
    let shadow = model(17, x(), vec![node("Relu", &["x"], &["x"], vec![])], &["x"]);
    assert!(import(&shadow).is_err());
    let cycle = model(17, x(), vec![node("Relu", &["y"], &["y"], vec![])], &["y"]);
    assert_eq!(import(&cycle).unwrap_err(), ["onnx-cycle"]);
    let outputs = model(17, x(), vec![node("Relu", &["x"], &["y", "z"], vec![])], &["y"]);
    assert_eq!(import(&outputs).unwrap_err()[0], "onnx-too-many-outputs");
    let newer = model(OPSET_VERSION + 1, x(), vec![], &["x"]);
    assert_eq!(import(&newer).unwrap_err(), ["unsupported-opset"]);
    let mut none = model(17, x(), vec![node("Relu", &["x"], &["y"], vec![])], &["y"]);
    none.opset_import.clear();
    assert_eq!(import(&none).unwrap_err(), ["onnx-opset-missing"]);
    none.ir_version = Some(2);
    assert!(import(&none).is_ok());
}

#[test]
fn unknown_attributes_are_warned_about() {
    let m = model(
        17,
        vec![value("x", &["2"])],
        vec![node("Relu", &["x"], &["y"], vec![float("slope", 1.0)])],
        &["y"],
    );
    let warnings = import(&m).unwrap().warnings;
    assert_eq!(warnings.iter().map(|d| d.id).collect::<Vec<_>>(), ["attribute-unknown"]);
}

#[test]
fn function_bodies_use_their_own_versions_names_and_attributes() {
    let reference = AttributeProto { ref_attr_name: Some("low".into()), f: None, ..float("min", 0.0) };
    let body = vec![
        node("Clip", &["p"], &["t"], vec![reference, float("max", 5.0)]),
        node("Add", &["t", "q"], &["r"], vec![]),
    ];
    let function = FunctionProto {
        name: Some("Bound".into()),
        domain: Some("f".into()),
        input: own(&["p", "q"]),
        output: own(&["r"]),
        attribute: own(&["low"]),
        node: body,
        opset_import: vec![opset("", 6)],
        ..FunctionProto::default()
    };
    let call = |name: &str, inputs: &[&str], out: &str, low| NodeProto {
        domain: Some("f".into()),
        name: Some(name.into()),
        ..node("Bound", inputs, &[out], vec![float("low", low)])
    };
    // The names `t` of the two bodies and of the caller do not meet.
    let nodes = vec![call("one", &["x", "x"], "t", -1.0), call("two", &["t", "x"], "y", 2.0)];
    let mut m = model(17, vec![value("x", &["3"])], nodes, &["y"]);
    m.functions.push(function.clone());
    m.opset_import.push(opset("f", 1));
    let out = run(&m, &[(&[3], &[-3.0, 1.0, 9.0])]);
    // one: clip(x, -1, 5) + x; two: clip(one, 2, 5) + x
    assert_eq!(out[0].1, [2.0 - 3.0, 2.0 + 1.0, 5.0 + 9.0]);

    m.functions[0].node.push(node("NoSuchOp", &["p"], &["u"], vec![]));
    let found = import_model(&m, None, &ImportOptions::default()).unwrap_err();
    assert_eq!(found.len(), 2);
    assert_eq!(found[1].at.label(), "two/u");
    // An omitted input is an error only where an operator needs it.
    m.functions[0].node.pop();
    m.graph.as_mut().unwrap().node[0].input.pop();
    assert_eq!(import(&m).unwrap_err(), ["operand-missing"]);
}

#[test]
fn broadcast_before_version_7_aligns_at_an_axis() {
    let add = node("Add", &["x", "w"], &["y"], vec![int("broadcast", 1), int("axis", 1)]);
    let m = model(6, vec![value("x", &["1", "2", "2"]), value("w", &["2"])], vec![add], &["y"]);
    let out = run(&m, &[(&[1, 2, 2], &[0.0; 4]), (&[2], &[1.0, 2.0])]);
    assert_eq!(out[0].1, [1.0, 1.0, 2.0, 2.0]);
}

#[test]
fn declared_output_types_are_checked() {
    let mut m = model(17, vec![value("x", &["2"])], vec![node("IsNaN", &["x"], &["y"], vec![])], &[]);
    m.graph.as_mut().unwrap().output.push(value("y", &["2"]));
    assert_eq!(import(&m).unwrap_err(), ["onnx-type-mismatch"]);
}

/// `if x is NaN { -x + w } else { x }`, in a function-free graph with captures from two levels up.
#[test]
fn branches_capture_values_and_repeat_constants() {
    let inner = node(
        "If",
        &["c"],
        &["r"],
        vec![
            graph("then_branch", vec![node("Add", &["n", "w"], &["t"], vec![])], &[], &["t"]),
            graph("else_branch", vec![node("Sub", &["n", "w"], &["e"], vec![])], &[], &["e"]),
        ],
    );
    let then = graph("then_branch", vec![node("Neg", &["x"], &["n"], vec![]), inner], &[], &["r"]);
    let other = graph("else_branch", vec![node("Identity", &["x"], &["i"], vec![])], &[], &["i"]);
    let nodes = vec![node("IsNaN", &["x"], &["c"], vec![]), node("If", &["c"], &["y"], vec![then, other])];
    let mut m = model(17, vec![value("x", &[])], nodes, &["y"]);
    m.graph.as_mut().unwrap().initializer.push(floats("w", &[], &[1.0]));
    let imported = import(&m).unwrap();
    let g = &imported.graph;
    let ifs: Vec<_> = g.all_nodes().into_iter().filter(|n| g.node(*n).op.name() == "if").collect();
    // The condition and `x`; the constant is inside.
    assert_eq!(ifs.iter().map(|n| g.node(*n).inputs.len()).collect::<Vec<_>>(), [3, 2]);
    assert_eq!(run(&m, &[(&[], &[3.0])])[0].1, [3.0]);
    assert!(run(&m, &[(&[], &[f32::NAN])])[0].1[0].is_nan());
}

#[test]
fn a_branch_that_is_known_is_built_in_place() {
    let attrs = vec![
        graph("then_branch", vec![node("Neg", &["x"], &["t"], vec![])], &[], &["t"]),
        graph("else_branch", vec![node("NoSuchOp", &["x"], &["t"], vec![])], &[], &["t"]),
    ];
    let mut m = model(17, vec![value("x", &["2"])], vec![node("If", &["c"], &["y"], attrs)], &["y"]);
    m.graph.as_mut().unwrap().initializer.push(scalar("c", 9, 1));
    assert_eq!(run(&m, &[(&[2], &[1.0, 2.0])])[0].1, [-1.0, -2.0]);
    m.graph.as_mut().unwrap().initializer[0] = scalar("c", 9, 0);
    assert_eq!(import(&m).unwrap_err(), ["unsupported-op"]);
}

fn counted(body: Vec<NodeProto>, outputs: &[&str]) -> ModelProto {
    let body = graph("body", body, &["i", "go", "a"], outputs);
    let mut names = vec!["y", "s"];
    names.truncate(outputs.len() - 1);
    let mut m =
        model(17, vec![value("x", &["N"])], vec![node("Loop", &["n", "", "x"], &names, vec![body])], &names);
    m.graph.as_mut().unwrap().initializer.push(scalar("n", 7, 3));
    m
}

#[test]
fn loops_carry_and_stack() {
    let body = vec![
        node("Add", &["a", "a"], &["b"], vec![]),
        node("Cast", &["i"], &["f"], vec![int("to", 1)]),
        node("Add", &["f", "x"], &["s"], vec![]),
    ];
    let m = counted(body, &["go", "b", "s"]);
    let imported = import(&m).unwrap();
    let g = &imported.graph;
    let shown: Vec<String> = g.outputs().iter().map(|v| g.ty(*v).display(&g.symbols).to_string()).collect();
    assert_eq!(shown, ["f32[N]", "f32[3,N]"]);
    let out = run(&m, &[(&[2], &[1.0, 2.0])]);
    assert_eq!(out[0].1, [8.0, 16.0]);
    assert_eq!(out[1], (vec![3, 2], vec![1.0, 2.0, 2.0, 3.0, 3.0, 4.0]));
}

#[test]
fn carried_dims_and_ranks_that_change_become_unknown() {
    let typed = |w: &[i64]| {
        let mut m = counted(vec![node("Add", &["a", "w"], &["b"], vec![])], &["go", "b"]);
        let count = w.iter().product::<i64>() as usize;
        m.graph.as_mut().unwrap().initializer.push(floats("w", w, &vec![1.0; count]));
        let g = import(&m).unwrap().graph;
        (g.ty(g.outputs()[0]).display(&g.symbols).to_string(), m)
    };
    let (same, _) = typed(&[1]);
    assert_eq!(same, "f32[N]");
    let (rank, m) = typed(&[3, 1]);
    assert_eq!(rank, "f32[..]");
    assert_eq!(run(&m, &[(&[2], &[1.0, 2.0])])[0], (vec![3, 2], vec![4.0, 5.0, 4.0, 5.0, 4.0, 5.0]));
    let (dim, m) = typed(&[2]);
    assert!(dim != "f32[N]" && dim.starts_with("f32["), "{dim}");
    assert_eq!(run(&m, &[(&[1], &[1.0])])[0], (vec![2], vec![4.0, 4.0]));
}

#[test]
fn problems_inside_subgraphs_are_reported_once() {
    let body = vec![node("NoSuchOp", &["a"], &["b"], vec![])];
    assert_eq!(import(&counted(body, &["go", "b"])).unwrap_err(), ["unsupported-op"]);
    let body = vec![node("Relu", &["a"], &["q"], vec![])];
    assert_eq!(import(&counted(body, &["go", "b"])).unwrap_err(), ["onnx-undefined-name"]);
}

/// `If(size of axis 0 of x == 1) { x without it } else { x }`, then something that only fits vectors.
fn squeezed(follow: Vec<NodeProto>) -> ModelProto {
    let mut nodes = vec![
        node("Shape", &["x"], &["s"], vec![]),
        node("Gather", &["s", "zero"], &["n"], vec![]),
        node("Equal", &["n", "one"], &["c"], vec![]),
        node(
            "If",
            &["c"],
            &["r"],
            vec![
                graph("then_branch", vec![node("Squeeze", &["x", "axes"], &["t"], vec![])], &[], &["t"]),
                graph("else_branch", vec![node("Identity", &["x"], &["e"], vec![])], &[], &["e"]),
            ],
        ),
    ];
    nodes.extend(follow);
    let mut m = model(17, vec![value("x", &["N", "3"])], nodes, &["y"]);
    let axes = TensorProto { dims: vec![1], ..scalar("axes", 7, 0) };
    m.graph.as_mut().unwrap().initializer.extend([scalar("zero", 7, 0), scalar("one", 7, 1), axes]);
    m
}

#[test]
fn a_branch_is_assumed_only_where_the_other_could_not_run() {
    // A bias of ten elements would not fit the rows of a matrix, and a vector has no second axis to be squeezed.
    let only_vectors = squeezed(vec![
        node("Unsqueeze", &["r", "axes"], &["u"], vec![]),
        node("LSTM", &["u", "r", "r"], &["y"], vec![]),
    ]);
    assert!(import(&only_vectors).is_err(), "neither rank fits");
    let matrix = squeezed(vec![node("Transpose", &["r"], &["y"], vec![ints("perm", &[1, 0])])]);
    let imported = import(&matrix).unwrap();
    assert_eq!(imported.warnings.iter().map(|d| d.id).collect::<Vec<_>>(), ["assumed-branch"]);
    assert_eq!(
        run(&matrix, &[(&[2, 3], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0])])[0].1,
        [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]
    );
    // With one row the other branch would be taken.
    let row = Value::Tensor(Tensor::f32s(&[1, 3], &[0.0, 1.0, 2.0]).unwrap());
    assert_eq!(interp::run(&imported.graph, vec![row]).err().map(|d| d.id), Some("condition-failed"));
    // Both ranks make sense here, so nothing is assumed, and the rank is unknown.
    let either = squeezed(vec![node("Relu", &["r"], &["y"], vec![])]);
    let g = import(&either).unwrap().graph;
    assert_eq!(g.ty(g.outputs()[0]).display(&g.symbols).to_string(), "f32[..]");
    // Where an operator is not supported, that says nothing about the branches.
    let unknown = squeezed(vec![
        node("NoSuchOp", &["r"], &["z"], vec![]),
        node("Transpose", &["r"], &["y"], vec![ints("perm", &[1, 0])]),
    ]);
    let errors = import(&unknown).unwrap_err();
    assert!(errors.contains(&"unsupported-op") && errors.contains(&"unsupported-rank"), "{errors:?}");
}
