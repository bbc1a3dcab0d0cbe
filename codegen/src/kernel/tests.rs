//! Builder, verifier and printer.

use super::*;

fn scale_relu() -> Kernel {
    let mut b = Builder::cpu("k_scale_relu");
    let x = b.input("x", Elem::F32);
    let y = b.output("y", Elem::F32);
    let n = b.scalar("n");
    b.parallel_for(|b, chunk| {
        let lo = b.mul(chunk, 1024);
        let hi = b.add(lo, 1024);
        let hi = b.smin(hi, n);
        b.for_lanes(lo, hi, 8, |b, i, mask| {
            let v = b.load_opt(x, i, 8, mask);
            let v = b.fma(v, 2.0, 0.5);
            let v = b.fmax(v, 0.0);
            b.store_opt(y, i, v, mask);
        });
    });
    b.finish()
}

#[test]
fn prints_one_line_per_instruction() {
    let text = scale_relu().to_string();
    let head = "kernel @k_scale_relu cpu {\n  param %x: f32[] read align 4\n  param %y: f32[] write align 4\n  param %n: i64\n  \
                v0: i64 = param %n\n  v1: i64 = range_lo\n  v2: i64 = range_hi\n";
    assert!(text.starts_with(head), "{text}");
    assert!(text.contains("for parallel v1..v2 step v3 { |v4|\n"), "{text}");
    assert_eq!(text, scale_relu().to_string());
    assert_eq!(scale_relu().content_hash(), scale_relu().content_hash());
}

#[test]
fn folds_index_sums_and_identities() {
    let mut b = Builder::cpu("k");
    let y = b.output("y", Elem::I64);
    let n = b.scalar("n");
    let a = b.add(n, 3);
    let a = b.add(5, a);
    let a = b.sub(a, 8);
    assert_eq!(a, n, "3 + 5 - 8 cancels");
    assert_eq!(b.mul(n, 1), n);
    let z = b.mul(n, 0);
    assert_eq!(b.known_int(z), Some(0));
    let q = b.i64(-7);
    let q = b.sdiv(q, 2);
    assert_eq!(b.known_int(q), Some(-3));
    let (p, r) = (b.mul(n, 6), b.mul(n, 6));
    assert_eq!(p, r, "equal expressions are shared");
    b.store(y, 0, p);
    let k = b.finish();
    assert_eq!(k.body.insts.len(), 5, "parameter, 6, product, index, store: {k}");
}

#[test]
fn known_conditions_and_single_trips_leave_no_branch() {
    let mut b = Builder::cpu("k");
    let y = b.output("y", Elem::I64);
    let t = b.int(Ty::BOOL, 1);
    let v = b.if_(t, |b| vec![b.i64(4)], |b| vec![b.i64(5)]);
    let one = b.for_(2, 3, 8, &v, |b, i, c| vec![b.add(c[0], i)]);
    let none = b.for_(3, 3, 1, &one, |_, _, _| panic!("never built"));
    assert_eq!(b.known_int(none[0]), Some(6));
    b.store(y, 0, none[0]);
    let text = b.finish().to_string();
    assert!(!text.contains("for") && !text.contains("if"), "{text}");
}

#[test]
fn values_of_a_block_are_not_shared_with_its_siblings() {
    let mut b = Builder::cpu("k");
    let y = b.output("y", Elem::I64);
    let n = b.scalar("n");
    for k in 0..2 {
        b.loop_(0, n, 1, |b, i| {
            let v = b.mul(n, 12);
            let at = b.add(i, k);
            b.store(y, at, v);
        });
    }
    assert_eq!(b.finish().to_string().matches(" mul ").count(), 2);
}

#[test]
#[should_panic(expected = "left operand has type f32x4, needs f32x8")]
fn builder_refuses_mixed_lanes() {
    let mut b = Builder::cpu("k");
    let x = b.input("x", Elem::F32);
    let (p, q) = (b.load(x, 0, 4), b.load(x, 0, 8));
    b.fadd(p, q);
}

#[test]
fn verifier_reports_every_finding() {
    let i64s = |n| vec![Ty::I64; n];
    let inst = |outs: Vec<Val>, op| Inst { outs, op };
    let v = Val::from_index;
    let k = Kernel {
        name: "bad name".into(),
        class: Class::Cpu,
        params: vec![Param {
            name: "x".into(),
            kind: ParamKind::Buffer { elem: Elem::F32, access: Access::Read, align: 3, may_alias: false },
        }],
        locals: vec![Local { name: "s".into(), elem: Elem::F32, len: 4, space: Space::Shared }],
        vals: i64s(3),
        body: Block {
            params: vec![],
            insts: vec![
                inst(vec![v(0)], Op::Binary(BinOp::Add, v(1), v(1))),
                inst(vec![v(0)], Op::Const(vec![1])),
                inst(vec![], Op::Store { buf: Buf::Param(0), idx: v(0), val: v(0), align: 4, mask: None }),
                inst(vec![], Op::Barrier),
                inst(vec![v(7)], Op::Const(vec![1])),
            ],
            yields: vec![],
        },
    };
    let found: Vec<String> = verify(&k).iter().map(Invalid::to_string).collect();
    for expect in [
        "the name is not a symbol",
        "alignment 3 of %x (f32)",
        "shared array %s in a CPU kernel",
        "v1 is used where it is not defined: `v0: i64 = add v1, v1`",
        "v0 is defined twice",
        "buffer %x is declared read",
        "SIMT-only instruction in a CPU kernel: `barrier`",
        "v7 is not in the value table",
    ] {
        assert!(found.iter().any(|f| f.contains(expect)), "missing `{expect}` in {found:#?}");
    }
    assert!(verify(&scale_relu()).is_empty());
}
