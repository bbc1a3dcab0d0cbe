//! What the interpreter computes and what it refuses.

use super::{Arg, run_cpu, run_simt};
use crate::kernel::{BinOp, Builder, CmpOp, Elem, Frag, Kernel, Ty};

fn run(k: &Kernel, args: &[Arg], hi: i64) -> Result<i32, String> {
    // SAFETY: the tests pass whole live vectors.
    unsafe { run_cpu(k, args, 0, hi) }.map_err(|t| t.to_string())
}

fn doubling() -> Kernel {
    let mut b = Builder::cpu("twice");
    let x = b.input("x", Elem::F32);
    let y = b.output("y", Elem::F32);
    b.parallel_for(|b, i| {
        let lo = b.mul(i, 5);
        let hi = b.add(lo, 5);
        b.for_lanes(lo, hi, 4, |b, i, m| {
            let v = b.load_opt(x, i, 4, m);
            let v = b.fmul(v, 2.0);
            b.store_opt(y, i, v, m);
        });
    });
    b.finish()
}

#[test]
fn runs_a_masked_tail() {
    let mut x: Vec<f32> = (0..10).map(|v| v as f32).collect();
    let mut y = vec![0f32; 10];
    assert_eq!(run(&doubling(), &[Arg::slice(&mut x), Arg::slice(&mut y)], 2), Ok(0));
    assert_eq!(y, (0..10).map(|v| 2.0 * v as f32).collect::<Vec<_>>());
}

#[test]
fn names_kernel_instruction_and_index_of_a_bad_access() {
    let mut x = vec![1f32; 10];
    let mut y = vec![0f32; 9];
    let e = run(&doubling(), &[Arg::slice(&mut x), Arg::slice(&mut y)], 2).unwrap_err();
    assert!(e.contains("kernel twice: buffer %y: index 9 of 9 elements at `store"), "{e}");
    let all = Arg::slice(&mut x);
    let e = run(&doubling(), &[all, all], 1).unwrap_err();
    assert!(e.contains("%x and %y overlap"), "{e}");
    let e = run(&doubling(), &[all], 1).unwrap_err();
    assert!(e.contains("1 arguments for 2 parameters"), "{e}");
}

#[test]
fn refuses_unwritten_scratch_and_wrong_alignment() {
    let mut b = Builder::cpu("k");
    let y = b.output("y", Elem::F32);
    let s = b.local("s", Elem::F32, 8);
    let v = b.load(s, 0, 4);
    b.store(y, 0, v);
    let mut out = vec![0f32; 4];
    let e = run(&b.finish(), &[Arg::slice(&mut out)], 0).unwrap_err();
    assert!(e.contains("buffer %s: read of an element that was never written"), "{e}");

    let mut b = Builder::cpu("k");
    let y = b.output("y", Elem::F32);
    let v = b.zero(Ty::vec(Elem::F32, 4));
    b.store_aligned(y, 1, v, 16);
    let mut out = [[0u128; 1]; 2];
    let e = run(&b.finish(), &[Arg::slice(&mut out)], 0).unwrap_err();
    assert!(e.contains("index 1 is not aligned to 16 bytes"), "{e}");
}

#[test]
fn while_and_error_word() {
    // Collatz steps of n, with an error when n is not positive.
    let mut b = Builder::cpu("collatz");
    let y = b.output("y", Elem::I64);
    let n = b.scalar("n");
    let bad = b.cmp(CmpOp::Sle, n, 0);
    b.error_if(bad, 7);
    let n = b.smax(n, 1);
    let zero = b.i64(0);
    let r = b.while_(
        &[n, zero],
        |b, c| b.cmp(CmpOp::Ne, c[0], 1),
        |b, c| {
            let odd = b.and(c[0], 1);
            let odd = b.cmp(CmpOp::Eq, odd, 1);
            let up = b.mul(c[0], 3);
            let up = b.add(up, 1);
            let next = b.if_(odd, |_| vec![up], |b| vec![b.ashr(c[0], 1)]);
            let count = b.add(c[1], 1);
            vec![next[0], count]
        },
    );
    b.store(y, 0, r[1]);
    let k = b.finish();
    let mut out = [0i64];
    assert_eq!(run(&k, &[Arg::slice(&mut out), Arg::Scalar(27)], 0), Ok(0));
    assert_eq!(out, [111]);
    assert_eq!(run(&k, &[Arg::slice(&mut out), Arg::Scalar(-3)], 0), Ok(7));
    assert_eq!(out, [0]);
}

#[test]
fn reduces_by_halves_and_scatters_in_lane_order() {
    let mut b = Builder::cpu("k");
    let x = b.input("x", Elem::F32);
    let y = b.output("y", Elem::F32);
    let v = b.load(x, 0, 4);
    let s = b.reduce(BinOp::FAdd, v);
    b.store(y, 0, s);
    let at = b.const_lanes(Elem::I32, &[1, 2, 1, 3]);
    b.scatter(y, at, v, None);
    let k = b.finish();
    // (1e8 + -1e8) + (1 + 1): only the halving order gives 2.
    let mut x = [1e8f32, 1.0, -1e8, 1.0];
    let mut out = [0f32; 4];
    run(&k, &[Arg::slice(&mut x), Arg::slice(&mut out)], 0).unwrap();
    assert_eq!(out, [2.0, -1e8, 1.0, 1.0]);
}

/// Each thread writes its slot and reads its neighbour's.
fn neighbour(barrier: bool) -> Kernel {
    let mut b = Builder::simt("neighbour", [64, 1, 1]);
    let y = b.output("y", Elem::I64);
    let s = b.shared("s", Elem::I64, 64);
    let t = b.thread_id(0);
    b.store(s, t, t);
    if barrier {
        b.barrier();
    }
    let other = b.xor(t, 1);
    let v = b.load(s, other, 1);
    let g = b.block_id(0);
    let at = b.at(t, g, 64);
    b.store(y, at, v);
    b.finish()
}

#[test]
fn lock_step_hides_no_race() {
    let mut out = vec![0i64; 128];
    let args = [Arg::slice(&mut out)];
    // SAFETY: a live vector.
    let e = unsafe { run_simt(&neighbour(false), &args, [2, 1, 1]) }.unwrap_err().to_string();
    assert!(e.contains("races with another since the last barrier"), "{e}");
    // SAFETY: a live vector.
    unsafe { run_simt(&neighbour(true), &args, [2, 1, 1]) }.unwrap();
    assert_eq!(out, (0..128).map(|i| (i % 64) ^ 1).collect::<Vec<i64>>());
}

#[test]
fn refuses_a_divergent_barrier() {
    let mut b = Builder::simt("k", [32, 1, 1]);
    let t = b.thread_id(0);
    let half = b.cmp(CmpOp::Slt, t, 16);
    b.when(half, |b| b.barrier());
    // SAFETY: no buffers.
    let e = unsafe { run_simt(&b.finish(), &[], [1, 1, 1]) }.unwrap_err().to_string();
    assert!(e.contains("some threads of the block do not reach the barrier"), "{e}");
}

#[test]
fn fragments_multiply() {
    let mut b = Builder::simt("mma", [32, 1, 1]);
    let (a, bt) = (b.input("a", Elem::BF16), b.input("b", Elem::BF16));
    let d = b.output("d", Elem::F32);
    let fa = b.frag_load(Frag::A, a, 0, 16);
    let fb = b.frag_load(Frag::B, bt, 0, 16);
    let zero = b.zero(Ty::vec(Elem::F32, 4));
    let r = b.mma(fa, fb, zero);
    b.frag_store(d, 0, 8, r);
    let k = b.finish();
    let val = |i: usize| half::bf16::from_f32((i * 7 % 13) as f32 - 6.0);
    let mut a: Vec<half::bf16> = (0..256).map(val).collect();
    let mut bt: Vec<half::bf16> = (0..128).map(|i| val(i + 5)).collect();
    let mut d = vec![0f32; 128];
    let args = [Arg::slice(&mut a), Arg::slice(&mut bt), Arg::slice(&mut d)];
    // SAFETY: live vectors.
    unsafe { run_simt(&k, &args, [1, 1, 1]) }.unwrap();
    for i in 0..16 {
        for j in 0..8 {
            let want: f32 = (0..16).map(|k| a[i * 16 + k].to_f32() * bt[j * 16 + k].to_f32()).sum();
            assert_eq!(d[i * 8 + j], want, "{i},{j}");
        }
    }
}
