use super::*;

/// A loop that doubles `x` (placed by `place`) `trip` times and collects every value.
pub(super) fn doubling(place: fn(&mut Maker, &[ExprId]) -> SlotId, max_steps: u64, far: bool) -> Session {
    let mut m = Maker { far, ..Maker::new() };
    let (_, n) = m.sym("n", 1, 5000);
    let (k, ke) = m.sym("k", 0, i64::MAX);
    let x = m.input("x", DType::F32, &[n]);
    let trip = m.input("trip", DType::I64, &[]);
    let y = m.output("y", DType::F32, &[n]);
    let all = m.output("all", DType::F32, &[ke, n]);
    let param = place(&mut m, &[n]);
    let next = place(&mut m, &[n]);
    let body = m.add(param, param, next, n);
    m.plan.blocks.push(Block { steps: vec![body] });
    let l = Loop {
        trip: Some(Value::Slot(trip)),
        cond: None,
        iter: None,
        iter_sym: None,
        body: BlockId(1),
        body_cond: None,
        carried: vec![Carried {
            init: x,
            param,
            yielded: next,
            result: y,
            syms: vec![],
            result_syms: vec![],
        }],
        scans: vec![ScanOut { yielded: next, result: all, result_syms: vec![(k, 0)] }],
        count_sym: None,
    };
    m.session_with(vec![Step::Loop(Box::new(l))], SessionOptions { max_steps, ..Default::default() })
}

#[test]
fn loops_carry_collect_and_stop() {
    let heap: fn(&mut Maker, &[ExprId]) -> SlotId = |m, d| m.slot(DType::F32, d, Place::Heap);
    let arena: fn(&mut Maker, &[ExprId]) -> SlotId = |m, d| m.arena(d);
    for (place, far) in [(heap, false), (arena, false), (heap, true), (arena, true)] {
        let mut s = doubling(place, 1000, far);
        // Above 4096 bytes the two heap buffers change places.
        for n in [1usize, 3, 2000] {
            for trip in [0usize, 1, 5, 2] {
                let x = vec![1f32; n];
                let out = s.run_values(&[f32s(&[n as i64], &x), i64s(&[], &[trip as i64])]).expect("runs");
                let y = vec![(1 << trip) as f32; n];
                assert_eq!(out[0], f32s(&[n as i64], &y).expect("some"), "{n} {trip}");
                let all: Vec<f32> = (1..=trip).flat_map(|t| vec![(1 << t) as f32; n]).collect();
                assert_eq!(out[1], f32s(&[trip as i64, n as i64], &all).expect("some"));
            }
        }
        let e = s.run_values(&[f32s(&[1], &[0.0]), i64s(&[], &[1 << 62])]).expect_err("endless");
        assert_eq!(e.kind, ErrorKind::Steps);
    }
}

#[test]
fn carried_values_change_places_together() {
    // (a, b) := (b, a) three times, then (b, a).
    let mut m = Maker::new();
    let n = m.c(2);
    let a0 = m.input("a", DType::F32, &[n]);
    let b0 = m.input("b", DType::F32, &[n]);
    let a1 = m.output("x", DType::F32, &[n]);
    let b1 = m.output("y", DType::F32, &[n]);
    let (a, b) = (m.slot(DType::F32, &[n], Place::Heap), m.slot(DType::F32, &[n], Place::Heap));
    m.plan.blocks.push(Block::default());
    let carry = |init, param, yielded, result| Carried {
        init,
        param,
        yielded,
        result,
        syms: vec![],
        result_syms: vec![],
    };
    let three = m.c(3);
    let l = Loop {
        trip: Some(Value::Expr(three)),
        cond: None,
        iter: None,
        iter_sym: None,
        body: BlockId(1),
        body_cond: None,
        carried: vec![carry(a0, a, b, a1), carry(b0, b, a, b1)],
        scans: vec![],
        count_sym: None,
    };
    let mut s = m.session(vec![Step::Loop(Box::new(l))]);
    let (p, q) = (f32s(&[2], &[1.0, 2.0]), f32s(&[2], &[3.0, 4.0]));
    let out = s.run_values(&[p.clone(), q.clone()]).expect("runs");
    assert_eq!(out, [q.expect("some"), p.expect("some")]);
}

#[test]
fn loops_bind_growing_dims_and_sequences() {
    // Each iteration appends a copy of the growing tensor [i + 1] (dims by symbol) to a sequence and stops at 3.
    let mut m = Maker::new();
    let (len, le) = m.sym("len", 0, 100);
    let (i, ie) = m.sym("i", 0, 100);
    let (count, ce) = m.sym("count", 0, 100);
    let one = m.c(1);
    let three = m.c(3);
    let longer = m.pool.bin(BinOp::Add, ie, one);
    let more = m.pool.bin(BinOp::Lt, longer, three);
    let x = m.input("x", DType::F32, &[one]);
    let (lx, ly) = (m.sym("lx", 0, 100), m.sym("ly", 0, 100));
    let param = m.slot(DType::F32, &[le], Place::Heap);
    let next = m.slot(DType::F32, &[longer], Place::Heap);
    let y = m.output("y", DType::F32, &[ly.1]);
    let n = m.output("n", DType::I64, &[]);
    let seq_in = m.object(Place::Object);
    let seq = m.object(Place::Object);
    let seq_next = m.object(Place::Object);
    let seq_out = m.object(Place::Output(2));
    let ty = ValueType::Sequence(Box::new(ValueType::Tensor(DType::F32)));
    m.plan.outputs.push(Port { name: "seq".into(), ty, dims: None, slot: seq_out });
    let call = |func, args: Vec<Arg>, out| {
        Step::Call(Box::new(Call {
            func,
            args,
            outs: vec![out],
            out_syms: vec![],
            attrs: vec![],
            fattrs: vec![],
            sattrs: vec![],
            error: ErrorId(0),
        }))
    };
    // next = [x, x, ...]: an element more than in the last iteration.
    let grain = one;
    let fill = Step::Launch {
        kernel: ADD,
        args: vec![Arg::Slot(param), Arg::Slot(param), Arg::Slot(next)],
        extent: le,
        grain,
        round: None,
    };
    m.plan.blocks.push(Block {
        steps: vec![fill, call(library::SEQ_INSERT, vec![Arg::Slot(seq), Arg::Slot(next)], seq_next)],
    });
    let l = Loop {
        trip: None,
        cond: Some(Value::Expr(one)),
        iter: None,
        iter_sym: Some(i),
        body: BlockId(1),
        body_cond: Some(Value::Expr(more)),
        carried: vec![
            Carried {
                init: x,
                param,
                yielded: next,
                result: y,
                syms: vec![(len, 0)],
                result_syms: vec![(ly.0, 0)],
            },
            Carried {
                init: seq_in,
                param: seq,
                yielded: seq_next,
                result: seq_out,
                syms: vec![],
                result_syms: vec![],
            },
        ],
        scans: vec![],
        count_sym: Some(count),
    };
    let write = m.store(n, ce);
    let _ = lx;
    let steps = vec![call(library::SEQ_CONSTRUCT, vec![], seq_in), Step::Loop(Box::new(l)), write];
    let mut s = m.session(steps);
    for _ in 0..2 {
        let out = s.run_values(&[f32s(&[1], &[1.0])]).expect("runs");
        assert_eq!(out[0].dims(), Some(&[3][..]));
        assert_eq!(out[1], i64s(&[], &[3]).expect("some"));
        let Object::Sequence(items) = &*out[2] else { panic!("a sequence") };
        let dims: Vec<_> = items.iter().map(|o| o.dims().expect("tensor")[0]).collect();
        assert_eq!(dims, [1, 2, 3]);
    }
}
