use super::*;
use crate::Limits;
use crate::import::{ImportOptions, Imported, import_bytes, import_model};
use crate::proto::{ModelProto, decode_model};
use crate::testing::*;
use planish_ir::{Constant, DType, Editor, Tensor, Type, Value, interp, verify};

fn import(model: &ModelProto) -> Imported {
    import_model(model, None, &ImportOptions::default()).unwrap_or_else(|e| panic!("{e:?}"))
}

/// Exports and imports again; both graphs must give the same results. Gives the exported message.
fn round_trip(first: &Imported, inputs: &[(&[usize], &[f32])]) -> ModelProto {
    let options = ExportOptions { output_names: first.output_names.clone(), ..ExportOptions::default() };
    let exported = export(&first.graph, &options).unwrap_or_else(|e| panic!("{e:?}"));
    let bytes = Bytes::from(exported.model);
    let second = import_bytes(&bytes, None, &ImportOptions::default()).unwrap_or_else(|e| panic!("{e:?}"));
    assert_eq!(verify::verify(&second.graph), []);
    assert_eq!(second.output_names, first.output_names);
    let run = |g: &Graph| {
        let inputs = inputs.iter().map(|(s, v)| Value::Tensor(Tensor::f32s(s, v).unwrap())).collect();
        interp::run(g, inputs).unwrap().values
    };
    assert_eq!(run(&first.graph), run(&second.graph));
    decode_model(&bytes, &Limits::default()).unwrap()
}

#[test]
fn names_of_inputs_outputs_and_values_are_kept() {
    let nodes = vec![
        node("Add", &["x", "w"], &["t"], vec![]),
        node("Relu", &["t"], &["y"], vec![]),
        node("Identity", &["y"], &["z"], vec![]),
    ];
    let mut m = model(17, vec![value("x", &["N", "2"])], nodes, &["y", "x", "w", "z"]);
    m.graph.as_mut().unwrap().initializer.push(floats("w", &[2], &[1.0, -9.0]));
    let g = round_trip(&import(&m), &[(&[1, 2], &[1.0, 2.0])]).graph.unwrap();
    let ops: Vec<&str> = g.node.iter().map(|n| n.op_type()).collect();
    assert_eq!(ops, ["Add", "Relu", "Identity", "Identity"]);
    assert_eq!(g.input[0], value("x", &["N", "2"]));
    assert_eq!(g.node[0].output, ["t"]);
}

#[test]
fn control_flow_uses_outer_names() {
    let inner = node(
        "If",
        &["c"],
        &["r"],
        vec![
            graph("then_branch", vec![node("Add", &["a", "w"], &["t"], vec![])], &[], &["t"]),
            graph("else_branch", vec![node("Identity", &["a"], &["e"], vec![])], &[], &["e"]),
        ],
    );
    let body = vec![
        node("Less", &["a", "limit"], &["c"], vec![]),
        inner,
        node("Neg", &["x"], &["s"], vec![]),
        node("IsNaN", &["x"], &["nan"], vec![]),
        node("Not", &["nan"], &["more"], vec![]),
    ];
    let body = graph("body", body, &["i", "go", "a"], &["more", "r", "s"]);
    let nodes = vec![
        node("IsNaN", &["x"], &["start"], vec![]),
        node("Not", &["start"], &["begin"], vec![]),
        node("Loop", &["n", "begin", "x"], &["y", "s"], vec![body]),
    ];
    let mut m = model(17, vec![value("x", &[])], nodes, &["y", "s"]);
    let graph = m.graph.as_mut().unwrap();
    graph.initializer.extend([scalar("n", 7, 5), floats("w", &[], &[1.0]), floats("limit", &[], &[3.0])]);
    let first = import(&m);
    for x in [0.5, 7.0, f32::NAN] {
        let input: &[(&[usize], &[f32])] = &[(&[], &[x])];
        if !x.is_nan() {
            round_trip(&first, input);
        }
    }
    // Unconditional, with an omitted condition, and nothing but captures in the branches.
    let body = crate::testing::graph(
        "body",
        vec![node("Add", &["a", "x"], &["b"], vec![])],
        &["i", "go", "a"],
        &["go", "b"],
    );
    let mut m =
        model(17, vec![value("x", &["N"])], vec![node("Loop", &["n", "", "x"], &["y"], vec![body])], &["y"]);
    m.graph.as_mut().unwrap().initializer.push(scalar("n", 7, 5));
    round_trip(&import(&m), &[(&[2], &[1.0, 2.0])]);
}

#[test]
fn every_elementwise_operation_survives() {
    let unary = [
        "Erf",
        "Gelu",
        "Mish",
        "HardSwish",
        "Sign",
        "Round",
        "IsInf",
        "Elu",
        "Selu",
        "HardSigmoid",
        "Softsign",
    ];
    for op in unary {
        let m = model(22, vec![value("x", &["N"])], vec![node(op, &["x"], &["y"], vec![])], &["y"]);
        round_trip(&import(&m), &[(&[4], &[-1.5, 0.0, 2.5, f32::INFINITY])]);
    }
    for op in ["PRelu", "Max", "Less", "Pow", "Sub", "GreaterOrEqual"] {
        let m = model(
            22,
            vec![value("x", &["2"]), value("w", &["2", "1"])],
            vec![node(op, &["x", "w"], &["y"], vec![])],
            &["y"],
        );
        round_trip(&import(&m), &[(&[2], &[-1.5, 2.5]), (&[2, 1], &[0.5, 2.0])]);
    }
    let fmod = model(
        28,
        vec![value("x", &["3"]), value("w", &[])],
        vec![node("Mod", &["x", "w"], &["y"], vec![])],
        &["y"],
    );
    let exported = round_trip(&import(&fmod), &[(&[3], &[-1.5, 2.5, 7.0]), (&[], &[2.0])]);
    assert_eq!(exported.opset_import[0].version(), 21);
}

#[test]
fn large_splats_are_written_in_few_bytes() {
    let mut graph = Graph::new("g");
    let mut ed = Editor::new(&mut graph);
    let x = ed.input("x", Type::tensor(DType::F32, vec![1.into()]));
    let one = Tensor::scalar(DType::F32, 3.0).unwrap();
    let c = ed.constant(Constant::splat(&one, vec![1 << 20]).unwrap()).unwrap();
    let kind = planish_ir::op::binary::BinaryKind::Add;
    let y = ed.node1(planish_ir::op::binary::Binary { kind }, &[x, c]).unwrap();
    let root = ed.region();
    ed.result(root, y);
    let exported = export(&graph, &ExportOptions::default()).unwrap();
    assert!(exported.model.len() < 1000, "{}", exported.model.len());
}

#[test]
fn large_constants_go_to_the_external_file() {
    let mut m = model(
        17,
        vec![value("x", &["2"])],
        vec![node("Add", &["x", "w"], &["t"], vec![]), node("Add", &["t", "v"], &["y"], vec![])],
        &["y"],
    );
    let initializer = &mut m.graph.as_mut().unwrap().initializer;
    initializer.extend([floats("w", &[2], &[1.0, 2.0]), floats("v", &[2], &[10.0, 20.0])]);
    let options =
        ExportOptions { external_from: Some(8), external_name: "w.bin".into(), ..ExportOptions::default() };
    let exported = export(&import(&m).graph, &options).unwrap();
    let offsets: Vec<u64> = exported.external.iter().map(|(at, _)| *at).collect();
    assert_eq!(offsets, [0, 4096]);
    let dir = tempfile::tempdir().unwrap();
    let mut data = Vec::new();
    for (at, bytes) in &exported.external {
        data.resize(*at as usize, 0);
        data.extend_from_slice(bytes);
    }
    std::fs::write(dir.path().join("w.bin"), data).unwrap();
    let path = dir.path().join("m.onnx");
    std::fs::write(&path, &exported.model).unwrap();
    let second = crate::import_file(&path, &ImportOptions::default()).unwrap();
    let out = interp::run(&second.graph, vec![Tensor::f32s(&[2], &[0.5, 0.5]).unwrap().into()]).unwrap();
    assert_eq!(out.values[0].tensor().unwrap().to_f64(), [11.5, 22.5]);
}

#[test]
fn a_fused_group_becomes_its_nodes() {
    let mut graph = Graph::new("g");
    let mut ed = Editor::new(&mut graph);
    let x = ed.input("x", Type::tensor(DType::F32, vec![2.into()]));
    let root = ed.region();
    let inner = ed.new_region();
    let p = ed.param(inner, Type::tensor(DType::F32, vec![2.into()]).into());
    ed.at_end(inner);
    let unary = |kind| planish_ir::op::unary::Unary { kind };
    let t = ed.node1(unary(planish_ir::op::unary::UnaryKind::Neg), &[p]).unwrap();
    let u = ed.node1(unary(planish_ir::op::unary::UnaryKind::Relu), &[t]).unwrap();
    ed.result(inner, u);
    ed.at_end(root);
    let y = ed.node_with_regions(planish_ir::op::fused::Fused {}, &[Some(x)], vec![inner]).unwrap();
    ed.result(root, y[0]);
    ed.set_name(y[0], "y");
    let (model, _) = export_model(&graph, &ExportOptions::default()).unwrap();
    let nodes = model.graph.unwrap().node;
    assert_eq!(nodes.iter().map(|n| n.op_type()).collect::<Vec<_>>(), ["Neg", "Relu"]);
    assert_eq!((nodes[0].input[0].as_str(), nodes[1].output[0].as_str()), ("x", "y"));
}

#[test]
fn gates_that_draw_are_written_in_parts_and_seeds_are_not() {
    use planish_ir::op::detach::Detach;
    use planish_ir::op::random::Random;
    use planish_ir::op::stochastic::{GateKind, StochasticGate};
    let mut g = Graph::new("g");
    let mut ed = Editor::new(&mut g);
    let ty = || Type::from(Tensor::f32s(&[4], &[0.0; 4]).unwrap().ty());
    let (x, u) = (ed.input("x", ty()), ed.input("u", ty()));
    let fixed = ed.node1(Detach {}, &[x]).unwrap();
    let h = ed.node1(StochasticGate::new(GateKind::Smooth), &[fixed, u]).unwrap();
    ed.output(h, Some("y"));
    let options = ExportOptions { output_names: vec!["y".into()], ..ExportOptions::default() };
    let model = Bytes::from(export(&g, &options).unwrap().model);
    let message = decode_model(&model, &Limits::default()).unwrap().graph.unwrap();
    let ops: Vec<&str> = message.node.iter().map(|n| n.op_type()).collect();
    assert_eq!(ops, ["Identity", "Sigmoid", "Sqrt", "Greater", "Where"]);
    let again = import_bytes(&model, None, &ImportOptions::default()).unwrap();
    let run = |g: &Graph| {
        let (x, u) = ([-1.0, 0.5, 2.0, 0.0], [0.9, 0.1, 0.5, 0.8]);
        let inputs = [x, u].map(|v| Value::Tensor(Tensor::f32s(&[4], &v).unwrap()));
        interp::run(g, inputs.to_vec()).unwrap().values
    };
    assert_eq!(run(&again.graph), run(&g));
    let mut ed = Editor::new(&mut g);
    let seed = ed.input("seed", Type::tensor(DType::I64, vec![]));
    let shape = ed.constant(Tensor::vec_i64(&[4])).unwrap();
    let op = Random { dtype: DType::F32, normal: false, a: 0.0, b: 1.0, seed: None };
    let noise = ed.node1(op, &[shape, seed]).unwrap();
    ed.output(noise, Some("noise"));
    let found = export(&g, &ExportOptions::default()).map(|_| ()).unwrap_err();
    assert!(found[0].is_unsupported() && found[0].message.contains("determinize"), "{found:?}");
}
