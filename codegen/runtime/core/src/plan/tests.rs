use super::*;
use alloc::string::ToString;
use alloc::vec;

/// A plan with every kind of step and place.
fn sample() -> Plan {
    let mut pool = ExprPool::new();
    let n = pool.sym(SymId(0));
    let one = pool.constant(1);
    let four = pool.constant(4);
    let bytes = pool.bin(BinOp::Mul, n, four);
    let i = pool.sym(SymId(1));
    let sel = pool.add(Expr::Select(i, n, one));
    let f32s = |dims| SlotKind::Tensor { dtype: DType::F32, dims };
    let slots = vec![
        Slot { kind: f32s(vec![n]), place: Place::Input(0) },
        Slot { kind: f32s(vec![n]), place: Place::Output(0) },
        Slot { kind: f32s(vec![n]), place: Place::Arena { bytes, first: 0, last: 9 } },
        Slot { kind: f32s(vec![one]), place: Place::Weights { offset: 64, len: 4 } },
        Slot { kind: SlotKind::Tensor { dtype: DType::I64, dims: vec![] }, place: Place::Heap },
        Slot { kind: f32s(vec![one]), place: Place::Alias { slot: SlotId(2), byte_offset: four } },
        Slot { kind: SlotKind::Object, place: Place::Object },
        Slot { kind: f32s(vec![n, n]), place: Place::Heap },
    ];
    let port = |name: &str, slot| Port {
        name: name.into(),
        ty: ValueType::Tensor(DType::F32),
        dims: Some(vec![n]),
        slot: SlotId(slot),
    };
    let launch = Step::Launch {
        kernel: KernelId(0),
        args: vec![Arg::Slot(SlotId(0)), Arg::Slot(SlotId(2)), Arg::Scalar(n)],
        extent: n,
        grain: one,
        round: Some(n),
    };
    let call = Call {
        func: 1,
        args: vec![Arg::Slot(SlotId(0))],
        outs: vec![SlotId(6)],
        out_syms: vec![SymId(1)],
        attrs: vec![-1, i64::MIN, i64::MAX],
        fattrs: vec![0.5, f64::INFINITY],
        sattrs: vec!["ä".into()],
        error: ErrorId(0),
    };
    let body = Loop {
        trip: Some(Value::Slot(SlotId(4))),
        cond: None,
        iter: Some(SlotId(4)),
        iter_sym: Some(SymId(1)),
        body: BlockId(3),
        body_cond: Some(Value::Expr(one)),
        carried: vec![Carried {
            init: SlotId(0),
            param: SlotId(2),
            yielded: SlotId(2),
            result: SlotId(1),
            syms: vec![(SymId(0), 0)],
            result_syms: vec![],
        }],
        scans: vec![ScanOut { yielded: SlotId(2), result: SlotId(7), result_syms: vec![(SymId(1), 0)] }],
        count_sym: None,
    };
    Plan {
        meta: Meta {
            name: "m".into(),
            lossy: vec!["x".into()],
            extra: vec![("a".into(), "b".into())],
            ..Meta::default()
        },
        symbols: vec![
            Symbol { name: "n".into(), min: 1, max: i64::MAX, values: vec![] },
            Symbol { name: "i".into(), min: 0, max: 100, values: vec![] },
        ],
        exprs: pool.finish(),
        slots,
        inputs: vec![port("x", 0)],
        outputs: vec![port("y", 1)],
        states: vec![(0, 0)],
        blocks: vec![
            Block {
                steps: vec![
                    launch.clone(),
                    Step::Bind {
                        sym: SymId(1),
                        slot: SlotId(4),
                        index: 0,
                        min: one,
                        max: n,
                        error: ErrorId(0),
                    },
                    Step::Let { sym: SymId(1), value: sel },
                    Step::Require { cond: n, error: ErrorId(0) },
                    Step::Copy { dst: SlotId(1), src: SlotId(2) },
                    Step::Call(Box::new(call)),
                    Step::Move { dst: SlotId(6), src: SlotId(6) },
                    Step::If { cond: Value::Expr(n), then_: BlockId(1), else_: BlockId(2) },
                    Step::Loop(Box::new(body)),
                    Step::Count { counter: CounterId(0), value: Value::Expr(n) },
                ],
            },
            Block { steps: vec![launch] },
            Block::default(),
            Block::default(),
        ],
        entry: BlockId(0),
        kernels: vec![KernelDecl {
            name: "k".into(),
            params: 3,
            nodes: vec!["/a".into()],
            flops: Some(n),
            bytes: None,
        }],
        errors: vec!["index out of range".into()],
        counters: vec!["gate".into()],
    }
}

#[test]
fn bytes_round_trip() {
    let p = sample();
    p.validate().expect("valid");
    assert_eq!(Plan::decode(&p.encode()).expect("decodes"), p);
    let empty = Plan::default();
    assert_eq!(Plan::decode(&empty.encode()).expect("decodes"), empty);
}

#[test]
fn damaged_bytes_are_errors() {
    let good = sample().encode();
    for n in 0..good.len() {
        assert!(Plan::decode(&good[..n]).is_err(), "cut at {n}");
    }
    let mut longer = good.clone();
    longer.push(0);
    assert!(Plan::decode(&longer).is_err());
    // Whatever still decodes after a flipped byte must be printable and encode again.
    let mut accepted = 0;
    for i in 0..good.len() {
        for flip in [1u8, 0x80, 0xff, 0x40] {
            let mut b = good.clone();
            b[i] ^= flip;
            if let Ok(p) = Plan::decode(&b) {
                accepted += 1;
                assert!(!p.to_string().is_empty());
                let again = Plan::decode(&p.encode()).expect("decodes again");
                assert_eq!(again.encode(), p.encode());
            }
        }
    }
    assert!(accepted > 0);
    let huge = [&PLAN_MAGIC[..], &[PLAN_VERSION as u8, 0xff, 0xff, 0xff, 0xff, 0x0f]].concat();
    assert!(matches!(Plan::decode(&huge), Err(DecodeError::Malformed(_))));
    assert_eq!(Plan::decode(b"ELF"), Err(DecodeError::Magic));
    assert_eq!(Plan::decode(b"PLNP\x01"), Err(DecodeError::Version(1)));
}

#[test]
fn broken_rules_are_named() {
    type Edit = fn(&mut Plan);
    let edits: &[(Edit, &str)] = &[
        (|p| p.exprs[0] = Expr::Bin(BinOp::Add, ExprId(0), ExprId(0)), "not before it"),
        (|p| p.symbols[1].values = vec![1, 101], "outside its range"),
        (|p| p.slots[2].place = Place::Alias { slot: SlotId(5), byte_offset: ExprId(0) }, "alias of itself"),
        (
            |p| {
                p.blocks[2].steps.push(Step::If {
                    cond: Value::Expr(ExprId(0)),
                    then_: BlockId(0),
                    else_: BlockId(1),
                })
            },
            "used twice",
        ),
        (|p| p.kernels[0].params = 2, "arguments"),
        (|p| p.blocks[1].steps.push(Step::Copy { dst: SlotId(3), src: SlotId(0) }), "read-only"),
        (|p| p.blocks[1].steps.push(Step::Copy { dst: SlotId(6), src: SlotId(0) }), "different kinds"),
        (|p| p.states[0] = (0, 7), "state input"),
        (|p| p.errors.clear(), "error 0 of 0"),
        (|p| p.outputs[0].dims = None, "rank"),
        (|p| p.symbols[1].min = 200, "no values"),
        (|p| p.slots[0].kind = SlotKind::Object, "type differs"),
    ];
    for (edit, expected) in edits {
        let mut p = sample();
        edit(&mut p);
        let e = p.validate().expect_err(expected);
        assert!(e.contains(expected), "{e} / {expected}");
    }
}

#[test]
fn printed_form_reads_well() {
    let text = sample().to_string();
    for line in ["symbol i in 0..=100", "k(s0, s2, n) over n by 1", "s2: f32[n] in arena, n * 4 bytes, 0..=9"]
    {
        assert!(text.contains(line), "{line} in\n{text}");
    }
}

#[test]
fn expressions_are_shared_folded_and_checked() {
    let mut pool = ExprPool::new();
    let n = pool.sym(SymId(0));
    let two = pool.constant(2);
    let a = pool.bin(BinOp::Mul, n, two);
    assert_eq!(pool.bin(BinOp::Mul, n, two), a);
    let six = pool.constant(6);
    let three = pool.constant(3);
    assert_eq!(pool.bin(BinOp::Mul, two, three), six);
    assert_eq!(pool.product(&[]), pool.constant(1));
    assert_eq!(pool.product(&[n]), n);
    let zero = pool.constant(0);
    let q = pool.bin(BinOp::FloorDiv, two, n);
    let s = pool.add(Expr::Select(n, q, zero));
    let exprs = pool.finish();
    let mut v = Exprs::new(&exprs, 1);
    assert_eq!(v.get(a), Err(EvalError::Unbound));
    assert_eq!(v.get(six), Ok(6));
    v.set(&exprs, SymId(0), Some(i64::MAX));
    assert_eq!(v.get(a), Err(EvalError::Overflow));
    v.set(&exprs, SymId(0), Some(0));
    assert_eq!(v.get(q), Err(EvalError::Overflow));
    assert_eq!(v.get(s), Ok(0));
    assert_eq!(v.deps(s), &[SymId(0)]);
    v.set(&exprs, SymId(0), None);
    assert_eq!(v.get(a), Err(EvalError::Unbound));
}

#[test]
fn division_rounds_as_documented() {
    for (a, b, floor, ceil, rem) in
        [(7, 2, 3, 4, 1), (-7, 2, -4, -3, 1), (7, -2, -4, -3, -1), (-8, 2, -4, -4, 0)]
    {
        assert_eq!(BinOp::FloorDiv.apply(a, b), Some(floor));
        assert_eq!(BinOp::CeilDiv.apply(a, b), Some(ceil));
        assert_eq!(BinOp::Mod.apply(a, b), Some(rem));
    }
    for op in [BinOp::FloorDiv, BinOp::CeilDiv, BinOp::Mod] {
        assert_eq!(op.apply(1, 0), None);
        assert_eq!(op.apply(i64::MIN, -1), None);
    }
}
