//! Small texts: what is interpreted, what is refused, and every planted fault.

use crate::{Arg, Fault, FaultKind, Limits, Memory, Module, ParseErrorKind};

/// An entry with two buffers and a number, `threads` per block and this body.
fn text(threads: u32, body: &str) -> String {
    format!(
        ".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry k(\n\
         .param .u64 .ptr .global .align 4 a,\n.param .u64 .ptr .global .align 4 b,\n.param .u64 n\n)\n\
         .reqntid {threads}, 1, 1\n{{\n.reg .pred %p<4>;\n.reg .b16 %rs<4>;\n.reg .b32 %r<16>;\n\
         .reg .b64 %rd<16>;\n.shared .align 16 .b8 tile[256];\n\
         ld.param.b64 %rd1, [a];\nld.param.b64 %rd2, [b];\nld.param.b64 %rd3, [n];\n\
         mov.u32 %r1, %tid.x;\nmul.wide.u32 %rd4, %r1, 4;\nadd.s64 %rd5, %rd1, %rd4;\n\
         add.s64 %rd6, %rd2, %rd4;\nmov.b64 %rd7, tile;\nadd.s64 %rd8, %rd7, %rd4;\n{body}\nret;\n}}\n"
    )
}

fn run(threads: u32, body: &str, a: &mut [u32], b: &mut [u32]) -> Result<u64, Fault> {
    let module = Module::parse(&text(threads, body)).unwrap_or_else(|e| panic!("{e}"));
    let entry = module.entry("k").unwrap();
    let args = [Arg::slice(a), Arg::slice(b), Arg::Scalar(7)];
    // SAFETY: the slices live until the launch is over.
    unsafe { entry.launch(&args, [1, 1, 1], Limits { steps: 10_000 }) }.map(|s| s.steps)
}

fn fault(threads: u32, body: &str) -> FaultKind {
    let (mut a, mut b) = ([1u32; 64], [0u32; 64]);
    let f = run(threads, body, &mut a, &mut b).expect_err("a fault");
    assert!(f.line > 0 && f.to_string().contains('`'), "{f}");
    f.kind
}

#[test]
fn shared_arrays_of_the_module_belong_to_every_entry() {
    let whole = text(64, "st.shared.b32 [far], %r1;\nld.shared.b32 %r2, [far];\nst.global.b32 [%rd6], %r2;");
    let declared = whole.replace(".visible", ".shared .align 16 .b8 far[4];\n.visible");
    let module = Module::parse(&declared).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(module.entry("k").unwrap().shared_bytes(), 16 + 256);
    assert_eq!(Module::parse(&whole).unwrap_err().kind, ParseErrorKind::UnknownName);
    let malformed = whole.replace(".visible", ".shared .align 16 .b8 far;\n.visible");
    assert_eq!(Module::parse(&malformed).unwrap_err().kind, ParseErrorKind::Syntax);
}

#[test]
fn lanes_take_their_own_ways_and_meet_again() {
    let body = "setp.lt.u32 %p1, %r1, 5;\n@%p1 bra $A;\nmov.b32 %r2, 100;\nbra.uni $B;\n\
                $A:\nmov.b32 %r2, 0;\nmov.b32 %r3, 0;\n$L:\nadd.s32 %r2, %r2, %r3;\nadd.s32 %r3, %r3, 1;\n\
                setp.le.u32 %p2, %r3, %r1;\n@%p2 bra $L;\n$B:\nshfl.sync.bfly.b32 %r4, %r2, 1, 31, -1;\n\
                st.global.b32 [%rd6], %r4;";
    let (mut a, mut b) = ([0u32; 32], [0u32; 32]);
    run(32, body, &mut a, &mut b).unwrap();
    let value = |i: u32| if i < 5 { (0..=i).sum() } else { 100 };
    let want: Vec<u32> = (0..32).map(|i| value(i ^ 1)).collect();
    assert_eq!(b[..], want[..]);
}

#[test]
fn a_tile_goes_through_shared_memory() {
    let body = "ld.global.b32 %r2, [%rd5];\nst.shared.b32 [%rd8], %r2;\nbar.sync 0;\nxor.b32 %r3, %r1, 63;\n\
                mul.wide.u32 %rd9, %r3, 4;\nadd.s64 %rd9, %rd7, %rd9;\nld.shared.b32 %r4, [%rd9];\n\
                st.global.b32 [%rd6], %r4;";
    let mut a: Vec<u32> = (0..64).collect();
    let mut b = [0u32; 64];
    run(64, body, &mut a, &mut b).unwrap();
    assert!(b.iter().enumerate().all(|(i, v)| *v == 63 - i as u32), "{b:?}");
    let without = body.replace("bar.sync 0;\n", "");
    assert_eq!(fault(64, &without), FaultKind::Uninitialised);
    // Every element is written once before, so that only the missing barrier is at fault.
    let race = format!("st.shared.b32 [%rd8], %r1;\nbar.sync 0;\n{without}");
    assert_eq!(fault(64, &race), FaultKind::Race);
    let two = "mov.b32 %r2, 1;\nst.shared.b32 [tile], %r2;";
    assert_eq!(fault(64, two), FaultKind::Race, "two writers");
}

#[test]
fn asynchronous_copies_arrive_when_waited_for() {
    let body = "cp.async.ca.shared.global [%rd8], [%rd5], 4;\ncp.async.commit_group;\ncp.async.wait_group 0;\n\
                bar.sync 0;\nld.shared.b32 %r4, [%rd8];\nst.global.b32 [%rd6], %r4;";
    let (mut a, mut b) = ([9u32; 64], [0u32; 64]);
    run(64, body, &mut a, &mut b).unwrap();
    assert_eq!(b, a);
    assert_eq!(fault(64, &body.replace("cp.async.wait_group 0;\n", "")), FaultKind::Uninitialised);
}

#[test]
fn accesses_are_checked() {
    assert_eq!(fault(64, "ld.global.b32 %r2, [%rd5+4];"), FaultKind::OutOfBounds);
    assert_eq!(fault(64, "ld.global.b32 %r2, [%rd5+-4];"), FaultKind::OutOfBounds);
    assert_eq!(fault(64, "st.global.v2.b32 [%rd5], {%r1, %r1};"), FaultKind::Misaligned);
    assert_eq!(fault(1, "ld.global.b32 %r2, [%rd5+2];"), FaultKind::Misaligned);
    assert_eq!(fault(1, "ld.shared.b32 %r2, [tile];"), FaultKind::Uninitialised);
    assert_eq!(fault(1, "st.shared.b32 [tile+256], %r1;"), FaultKind::OutOfBounds);
    assert_eq!(fault(1, "mov.b64 %rd9, 0;\nld.global.b32 %r2, [%rd9];"), FaultKind::OutOfBounds);
    assert_eq!(fault(1, "ld.global.nc.b32 %r2, [%rd5];\nst.global.b32 [%rd5], %r2;"), FaultKind::ReadOnly);
}

#[test]
fn results_are_written_before_they_are_read_and_by_one_thread() {
    let run = |body: &str| {
        let module = Module::parse(&text(64, body)).unwrap_or_else(|e| panic!("{e}"));
        let (mut a, mut b) = ([3u32; 64], [0u32; 64]);
        let args = [Arg::slice(&mut a), Arg::out(&mut b), Arg::Scalar(0)];
        // SAFETY: the arrays live until the launch is over.
        unsafe { module.entries[0].launch(&args, [2, 1, 1], Limits::default()) }.map_err(|f| f.kind)
    };
    // Both blocks write the same numbers.
    assert!(run("st.global.b32 [%rd6], %r1;").is_ok());
    let half = "setp.lt.u32 %p1, %r1, 40;\n@%p1 st.global.b32 [%rd6], %r1;";
    assert_eq!(run(half), Err(FaultKind::Unwritten));
    assert_eq!(run("ld.global.b32 %r2, [%rd6];"), Err(FaultKind::Uninitialised));
    // Each block its own number, or each thread.
    let block = "mov.u32 %r2, %ctaid.x;\nst.global.b32 [%rd6], %r2;";
    assert_eq!(run(block), Err(FaultKind::Race));
    assert_eq!(run("st.global.b32 [%rd2], %r1;"), Err(FaultKind::Race));
    // What another thread of the block wrote may be read after a barrier.
    let other = "st.global.b32 [%rd6], %r1;\nbar.sync 0;\nxor.b32 %r3, %r1, 63;\nmul.wide.u32 %rd9, %r3, 4;\n\
                 add.s64 %rd9, %rd2, %rd9;\nld.global.b32 %r4, [%rd9];";
    assert!(run(other).is_ok());
    assert_eq!(run(&other.replace("bar.sync 0;\n", "")), Err(FaultKind::Uninitialised));
}

#[test]
fn memory_outlives_launches_and_knows_what_was_written() {
    let module = Module::parse(&text(64, "st.global.b32 [%rd6], %r1;")).unwrap();
    let mut memory = Memory::new();
    let (a, b) = (memory.alloc(256).unwrap(), memory.alloc(300).unwrap());
    let words = [a, b, 0];
    module.entries[0].run(&mut memory, &words, [1, 1, 1], Limits::default()).unwrap();
    let mut out = [0u8; 256];
    memory.download(b, &mut out).unwrap();
    assert_eq!(out[252..], 63u32.to_le_bytes());
    let kind = |r: Result<(), Fault>| r.map_err(|f| f.kind);
    assert_eq!(kind(memory.download(b, &mut [0; 300])), Err(FaultKind::Unwritten));
    assert_eq!(kind(memory.download(b + 299, &mut [0; 2])), Err(FaultKind::OutOfBounds));
    // A copy of what was not written is not written either.
    memory.copy(a, b + 44, 256).unwrap();
    memory.download(a, &mut [0; 212]).unwrap();
    assert_eq!(kind(memory.download(a, &mut [0; 213])), Err(FaultKind::Unwritten));
    memory.upload(a, &[1; 256]).unwrap();
    memory.download(a, &mut out).unwrap();
    assert_eq!((out, memory.bytes()), ([1; 256], 556));
    assert!(memory.free(a) && !memory.free(a));
    assert_eq!(kind(memory.upload(a, &[1])), Err(FaultKind::OutOfBounds));
    // Another launch may write what an earlier one wrote.
    let c = memory.alloc(256).unwrap();
    for _ in 0..3 {
        module.entries[0].run(&mut memory, &[c, b, 0], [1, 1, 1], Limits::default()).unwrap();
    }
}

#[test]
fn everybody_must_come() {
    let some = "setp.lt.u32 %p1, %r1, 40;\n@%p1 bra $A;\nret;\n$A:\n";
    assert_eq!(fault(64, &format!("{some}bar.sync 0;")), FaultKind::Divergent);
    assert_eq!(fault(64, &format!("{some}shfl.sync.bfly.b32 %r2, %r1, 1, 31, -1;")), FaultKind::Divergent);
    let other = "setp.lt.u32 %p1, %r1, 40;\n@%p1 bra $A;\nbar.sync 0;\nret;\n$A:\nbar.sync 0;";
    assert_eq!(fault(64, other), FaultKind::Divergent);
    assert_eq!(fault(16, "shfl.sync.bfly.b32 %r2, %r1, 1, 31, -1;"), FaultKind::Divergent);
    assert_eq!(fault(1, "$L:\nbra.uni $L;"), FaultKind::Steps);
}

#[test]
fn launches_are_checked() {
    let module = Module::parse(&text(1, "")).unwrap();
    let entry = module.entry("k").unwrap();
    assert_eq!((entry.block, entry.params(), entry.shared_bytes()), ([1, 1, 1], 3, 256));
    let mut a = [0u32; 4];
    let (buf, n) = (Arg::slice(&mut a), Arg::Scalar(0));
    let odd = Arg::Buf(a.as_mut_ptr().cast::<u8>().wrapping_add(1), 4);
    for args in [vec![buf, buf], vec![buf, n, n], vec![buf, buf, buf], vec![odd, buf, n]] {
        // SAFETY: the array outlives the launch.
        let f = unsafe { entry.launch(&args, [1, 1, 1], Limits::default()) }.unwrap_err();
        assert_eq!(f.kind, FaultKind::Launch, "{f}");
    }
}

#[test]
fn unknown_text_is_refused_with_its_line() {
    let cases = [
        ("ex2.approx.f32 %r2, %r3;", ParseErrorKind::UnknownOpcode),
        ("add.rn.ftz.f32 %r2, %r3, %r3;", ParseErrorKind::UnknownOpcode),
        ("add.f32 %r2, %r3, %r3;", ParseErrorKind::UnknownOpcode),
        ("ld.global.v8.b32 %r2, [%rd5];", ParseErrorKind::UnknownOpcode),
        ("atom.global.add.u32 %r2, [%rd5], 1;", ParseErrorKind::UnknownOpcode),
        ("cvt.rz.f32.f64 %r2, %rd5;", ParseErrorKind::UnknownOpcode),
        ("shfl.sync.down.b32 %r2, %r3, 1, 31, -1;", ParseErrorKind::UnknownOpcode),
        ("bar.sync 1;", ParseErrorKind::Operands),
        ("add.s32 %r2, %r3;", ParseErrorKind::Operands),
        ("add.s32 %r2, %r3, %r3, %r3;", ParseErrorKind::Operands),
        ("add.s32 %r2, %r3, %r99;", ParseErrorKind::UnknownName),
        ("mov.u32 %r2, %clock;", ParseErrorKind::UnknownName),
        ("bra $nowhere;", ParseErrorKind::UnknownName),
        (".local .b32 x[4];", ParseErrorKind::UnknownDirective),
        ("add.s32 %r2 * %r3;", ParseErrorKind::Syntax),
    ];
    for (body, kind) in cases {
        let e = Module::parse(&text(1, body)).expect_err(body);
        assert_eq!((e.kind, e.line), (kind, 25), "{body}: {e}");
    }
    assert!(Module::parse("").is_err());
    assert!(Module::parse(".version 8.0\n.target sm_80\n.visible .entry k(").is_err());
}

#[test]
fn arithmetic_follows_the_isa() {
    // Value in %r2 after the instructions, %r3 = 0x80000000, %r4 = 7, %r5 = NaN.
    let cases: [(&str, u32); 24] = [
        ("shl.b32 %r2, %r4, 32;", 0),
        ("shr.s32 %r2, %r3, 40;", u32::MAX),
        ("bfe.u32 %r2, %r3, 28, 8;", 8),
        ("bfe.s32 %r2, %r3, 28, 4;", 0xFFFF_FFF8),
        ("bfi.b32 %r2, %r4, 0, 4, 2;", 0x30),
        ("prmt.b32 %r2, %r3, %r4, 0x4bU;", 0x0000_07FF),
        ("shf.l.wrap.b32 %r2, %r3, %r4, 2;", 0x1E),
        ("shf.r.wrap.b32 %r2, %r3, %r4, 2;", 0xE000_0000),
        ("shf.l.wrap.b32 %r2, %r3, %r4, 32;", 7),
        ("shf.l.clamp.b32 %r2, %r3, %r4, 40;", 0x8000_0000),
        ("shf.r.clamp.b32 %r2, %r3, %r4, 32;", 7),
        ("cvt.rzi.s32.f32 %r2, %r5;", 0),
        ("mov.b32 %r6, 0fFF800000;\ncvt.rzi.s32.f32 %r2, %r6;", 0x8000_0000),
        ("min.f32 %r2, %r5, %r4;", 7),
        ("max.NaN.f32 %r2, %r5, %r4;", 0x7FFF_FFFF),
        ("min.f32 %r2, 0f00000000, 0f80000000;", 0x8000_0000),
        ("mul.hi.s32 %r2, %r3, 2;", u32::MAX),
        ("setp.ltu.f32 %p1, %r5, %r5;\nselp.b32 %r2, 1, 2, %p1;", 1),
        ("setp.lt.f32 %p1, %r5, %r5;\nselp.b32 %r2, 1, 2, %p1;", 2),
        ("cvt.u16.u32 %rs1, 0xFF80U;\ncvt.s32.s8 %r2, %rs1;", 0xFFFF_FF80),
        ("cvt.rn.bf16x2.f32 %r2, 0f3F800000, 0f40000000;", 0x3F80_4000),
        ("mov.b32 {%rs1, %rs2}, 0x12345678U;\nmov.b32 %r2, {%rs2, %rs1};", 0x5678_1234),
        ("clz.b32 %r2, %r4;", 29),
        ("rcp.rn.f32 %r2, 0f40800000;", 0x3E80_0000),
    ];
    for (code, want) in cases {
        let set = "mov.b32 %r3, 0x80000000U;\nmov.b32 %r4, 7;\nmov.b32 %r5, 0f7FC00000;\n";
        let (mut a, mut b) = ([0u32; 1], [0u32; 1]);
        run(1, &format!("{set}{code}\nst.global.b32 [%rd6], %r2;"), &mut a, &mut b).unwrap();
        assert_eq!(b[0], want, "{code}: {:#x}", b[0]);
    }
}
