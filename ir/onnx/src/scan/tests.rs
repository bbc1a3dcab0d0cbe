use super::*;

/// A field with a length.
fn ld(number: u32, body: &[u8]) -> Vec<u8> {
    let mut out = varint(u64::from(number) << 3 | 2);
    out.extend(varint(body.len() as u64));
    out.extend(body);
    out
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value > 0x7f {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

fn model(graph: &[u8]) -> Vec<u8> {
    [vec![0x08, 9], ld(7, graph)].concat()
}

fn node(op: &str, rest: &[u8]) -> Vec<u8> {
    ld(1, &[ld(4, op.as_bytes()), rest.to_vec()].concat())
}

fn nested(depth: u32) -> Vec<u8> {
    let mut graph = node("Relu", &[]);
    for _ in 0..depth {
        graph = node("If", &ld(5, &[ld(1, b"then_branch"), ld(6, &graph)].concat()));
    }
    model(&graph)
}

fn run(input: &[u8]) -> Result<Stats, &'static str> {
    scan(Root::Model, input, &Limits::default()).map_err(|e| e.id)
}

#[test]
fn counts_what_a_valid_model_holds() {
    let function = ld(25, &ld(7, &ld(4, b"Relu")));
    let ints =
        node("Pad", &ld(5, &[ld(1, b"pads"), vec![0x40, 1, 0x40, 2], ld(8, &[1, 2, 0x80, 1])].concat()));
    let input = [nested(2), function, ld(7, &ints)].concat();
    let stats = run(&input).unwrap();
    assert_eq!((stats.nodes, stats.graph_depth, stats.functions, stats.attribute_items), (5, 2, 1, 5));
    assert!(stats.charged >= 5 * 512);
}

#[test]
fn allows_32_nested_subgraphs_and_no_more() {
    assert_eq!(run(&nested(32)).unwrap().graph_depth, 32);
    assert_eq!(run(&nested(33)), Err("limit-graph-depth"));
    assert_eq!(run(&nested(5000)), Err("limit-graph-depth"));
}

#[test]
fn a_node_without_operator_is_rejected_before_the_rest_is_read() {
    let graph = [0x0a, 0x00].repeat(1_000_000);
    let error = scan(Root::Model, &model(&graph), &Limits::default()).unwrap_err();
    assert_eq!(error.id, "onnx-empty-op-type");
    assert!(error.message.ends_with("(byte 8)"), "{}", error.message);
    // The last occurrence of a field counts.
    assert_eq!(run(&model(&node("Relu", &ld(4, b"")))), Err("onnx-empty-op-type"));
}

#[test]
fn limits_of_nodes_memory_names_rank_and_items() {
    let limits = Limits { nodes: 3, ..Limits::default() };
    let graph = node("Relu", &[]).repeat(4);
    assert_eq!(scan(Root::Model, &model(&graph), &limits).unwrap_err().id, "limit-nodes");
    let limits = Limits { decode_bytes: 1 << 16, ..Limits::default() };
    let graph = node("Relu", &[]).repeat(200);
    assert_eq!(scan(Root::Model, &model(&graph), &limits).unwrap_err().id, "limit-memory");
    assert_eq!(run(&model(&node(&"x".repeat(65537), &[]))), Err("limit-name-length"));
    assert!(run(&model(&node(&"x".repeat(65536), &[]))).is_ok());
    let dims = |n| ld(5, &[0x08, 1].repeat(n));
    assert_eq!(run(&model(&dims(17))), Err("limit-rank"));
    assert!(run(&model(&dims(16))).is_ok());
    let limits = Limits { attribute_items: 9, ..Limits::default() };
    let graph = node("Pad", &ld(5, &ld(8, &[1; 10])));
    assert_eq!(scan(Root::Model, &model(&graph), &limits).unwrap_err().id, "limit-attribute-items");
    let limits = Limits { functions: 1, ..Limits::default() };
    assert_eq!(scan(Root::Model, &ld(25, b"").repeat(2), &limits).unwrap_err().id, "limit-functions");
}

#[test]
fn lengths_are_checked_against_the_enclosing_message() {
    assert_eq!(run(b"\x3a\xff\xff\xff\xff\x07\0\0\0\0"), Err("onnx-truncated"));
    // The inner length fits into the file but not into its message.
    assert_eq!(run(&[ld(7, &[0x0a, 10]), vec![0; 20]].concat()), Err("onnx-truncated"));
    let whole = nested(3);
    for cut in 1..whole.len() {
        assert!(run(&whole[..cut]).is_err() || cut == 2, "cut at {cut}");
    }
}

#[test]
fn malformed_wire_is_rejected() {
    assert_eq!(run(b""), Err("onnx-empty-file"));
    assert_eq!(run(&[0x07]), Err("onnx-bad-wire"));
    assert_eq!(run(&[0x0b, 0x0c]), Err("onnx-bad-wire"), "groups");
    assert_eq!(
        run(&[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]),
        Err("onnx-bad-wire")
    );
    assert_eq!(run(&ld(1, b"x")), Err("onnx-bad-wire"), "ir_version is a number");
    assert_eq!(run(&model(&ld(5, &ld(4, &[0; 5])))), Err("onnx-bad-wire"), "packed floats of 5 bytes");
    assert_eq!(run(&model(&ld(5, &ld(7, &[0x80])))), Err("onnx-truncated"), "packed number without its end");
}

#[test]
fn deep_types_and_values_are_bounded() {
    let mut ty = ld(1, &[0x08, 1]);
    for _ in 0..300 {
        ty = ld(4, &ld(1, &ty));
    }
    assert_eq!(run(&model(&ld(11, &ld(2, &ty)))), Err("limit-message-depth"));
    let mut value = Vec::new();
    for _ in 0..300 {
        value = ld(5, &value);
    }
    assert_eq!(scan(Root::Sequence, &value, &Limits::default()).unwrap_err().id, "limit-message-depth");
}

#[test]
fn whatever_passes_the_scan_can_be_decoded_or_fails_cleanly() {
    // Every single-byte change of a small model: no panic, and the decoder agrees on structure.
    let base =
        [nested(2), ld(8, &[0x10, 17]), ld(7, &ld(5, &[0x08, 2, 0x10, 1, 0x4a, 4, 1, 2, 3, 4]))].concat();
    let mut accepted = 0;
    for at in 0..base.len() {
        for value in [0u8, 1, 0x0a, 0x3a, 0x7f, 0x80, 0xff] {
            let mut input = base.clone();
            input[at] = value;
            let scanned = run(&input).is_ok();
            let decoded = crate::proto::decode_model(&input.into(), &Limits::default());
            assert!(scanned || decoded.is_err());
            accepted += usize::from(decoded.is_ok());
        }
    }
    assert!(accepted > 0);
}
