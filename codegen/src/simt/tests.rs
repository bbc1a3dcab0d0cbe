//! SIMT kernels in lock-step by the kernel interpreter, against plain loops.

use super::matmul::Tile;
use super::{elementwise, matmul, mma, reduce};
use crate::kernel::interp::{Arg, run_simt};
use crate::kernel::{BinOp, Elem, Kernel};
use half::bf16;

fn run(k: &Kernel, args: &[Arg], grid: super::Grid) {
    // SAFETY: the tests pass whole live vectors.
    unsafe { run_simt(k, args, grid) }.unwrap_or_else(|t| panic!("{t}"));
}

fn noise(n: usize, seed: u32) -> Vec<f32> {
    (0..n as u32)
        .map(|i| ((i.wrapping_mul(2654435761).wrapping_add(seed) >> 8) % 2001) as f32 / 1000.0 - 1.0)
        .collect()
}

#[test]
fn elementwise_covers_every_element_once() {
    let k =
        elementwise::elementwise("axpy", &[Elem::F32, Elem::F32], Elem::F32, |b, v| b.fma(v[0], 2.0, v[1]));
    for n in [1usize, 255, 256, 257, 1000] {
        let (mut x, mut y) = (noise(n, 1), noise(n, 2));
        let mut out = vec![f32::NAN; n];
        let want: Vec<f32> = x.iter().zip(&y).map(|(x, y)| x.mul_add(2.0, *y)).collect();
        let args = [Arg::slice(&mut x), Arg::slice(&mut y), Arg::slice(&mut out), Arg::Scalar(n as i64)];
        run(&k, &args, [2, 1, 1]);
        assert_eq!(out, want, "{n}");
        assert_eq!(elementwise::grid(n as u64)[0] as usize, n.div_ceil(256));
    }
}

#[test]
fn reduces_rows_of_any_length() {
    let sum = reduce::reduce_rows("row_sum", BinOp::FAdd, 0.0);
    let max = reduce::reduce_rows("row_max", BinOp::FMax, f32::NEG_INFINITY);
    for cols in [1usize, 31, 300, 700] {
        let mut x = noise(3 * cols, 5);
        let (mut s, mut m) = (vec![0f32; 3], vec![0f32; 3]);
        let (xa, n) = (Arg::slice(&mut x), Arg::Scalar(cols as i64));
        run(&sum, &[xa, Arg::slice(&mut s), n], reduce::grid(3));
        run(&max, &[xa, Arg::slice(&mut m), n], reduce::grid(3));
        for (r, row) in x.chunks(cols).enumerate() {
            let want: f64 = row.iter().map(|v| f64::from(*v)).sum();
            assert!((f64::from(s[r]) - want).abs() < 1e-4, "{} {want}", s[r]);
            assert_eq!(m[r], row.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        }
    }
}

#[test]
fn matmul_of_any_size_is_the_chain_of_fmas() {
    let tile = Tile { block: [32, 32, 8], thread: [4, 2] };
    let k = matmul::matmul("matmul", tile);
    for (m, n, kk) in [(1usize, 1usize, 1usize), (33, 40, 17), (64, 32, 8)] {
        let (mut a, mut b) = (noise(m * kk, 1), noise(kk * n, 2));
        let mut c = vec![f32::NAN; m * n];
        let sizes = [m, n, kk].map(|d| Arg::Scalar(d as i64));
        let args = [Arg::slice(&mut a), Arg::slice(&mut b), Arg::slice(&mut c), sizes[0], sizes[1], sizes[2]];
        run(&k, &args, tile.grid(m as u32, n as u32));
        for i in 0..m {
            for j in 0..n {
                let want = (0..kk).fold(0f32, |s, q| a[i * kk + q].mul_add(b[q * n + j], s));
                assert_eq!(c[i * n + j], want, "{i},{j} of {m}x{n}x{kk}");
            }
        }
    }
}

#[test]
fn tensor_core_matmul_matches() {
    let k = mma::matmul_bf16("matmul_bf16");
    let (m, n, kk) = (64usize, 128usize, 96usize);
    let bf = |v: Vec<f32>| -> Vec<bf16> { v.into_iter().map(bf16::from_f32).collect() };
    let (mut a, mut bt) = (bf(noise(m * kk, 3)), bf(noise(n * kk, 4)));
    let mut c = vec![f32::NAN; m * n];
    let args = [
        Arg::slice(&mut a),
        Arg::slice(&mut bt),
        Arg::slice(&mut c),
        Arg::Scalar(n as i64),
        Arg::Scalar(kk as i64),
    ];
    run(&k, &args, mma::grid(m as u32, n as u32));
    for i in 0..m {
        for j in 0..n {
            let want: f64 =
                (0..kk).map(|q| f64::from(a[i * kk + q].to_f32()) * f64::from(bt[j * kk + q].to_f32())).sum();
            let got = f64::from(c[i * n + j]);
            assert!((got - want).abs() < 1e-4, "{i},{j}: {got} {want}");
        }
    }
}
