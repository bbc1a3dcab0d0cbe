//! fp32 matrix product in thread tiles over shared memory.

use super::Grid;
use crate::kernel::{Buf, Builder, CmpOp, Elem, Kernel, Val};

/// What a block and a thread compute.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tile {
    /// Rows and columns of a block's part of the result, and depth of a shared-memory stage.
    pub block: [u32; 3],
    /// Rows and columns of a thread's part.
    pub thread: [u32; 2],
}

impl Default for Tile {
    /// 64 x 64 x 16, 4 x 4 per thread: 256 threads.
    fn default() -> Tile {
        Tile { block: [64, 64, 16], thread: [4, 4] }
    }
}

impl Tile {
    fn threads(&self) -> [u32; 2] {
        [self.block[1] / self.thread[1], self.block[0] / self.thread[0]]
    }

    /// The grid for an `m x n` result.
    pub fn grid(&self, m: u32, n: u32) -> Grid {
        [n.div_ceil(self.block[1]), m.div_ceil(self.block[0]), 1]
    }
}

/// `c[m,n] = a[m,k] * b[k,n]`, row-major fp32, any sizes; parameters `a`, `b`, `c`, `m`, `n`, `k`. Grid: [`Tile::grid`]. Each sum is
/// a chain of fused multiply-adds in order of k.
pub fn matmul(name: &str, tile: Tile) -> Kernel {
    let [bm, bn, bk] = tile.block;
    let [tm, tn] = tile.thread;
    let [tx, ty] = tile.threads();
    let mut b = Builder::simt(name, [tx, ty, 1]);
    let (a, w) = (b.input("a", Elem::F32), b.input("b", Elem::F32));
    let c = b.output("c", Elem::F32);
    let (m, n, k) = (b.scalar("m"), b.scalar("n"), b.scalar("k"));
    // One more column than needed: neighbouring rows then start in different banks.
    let (sa, sb) = (b.shared("sa", Elem::F32, bm * (bk + 1)), b.shared("sb", Elem::F32, bk * (bn + 1)));
    let (x, y) = (b.thread_id(0), b.thread_id(1));
    let thread = b.at(x, y, i64::from(tx));
    let (bx, by) = (b.block_id(0), b.block_id(1));
    let (row0, col0) = (b.mul(by, i64::from(bm)), b.mul(bx, i64::from(bn)));
    let zero = b.f32(0.0);
    let init = vec![zero; (tm * tn) as usize];
    let acc = b.for_(0, k, i64::from(bk), &init, |b, k0, acc| {
        stage(
            b,
            Stage {
                from: a,
                to: sa,
                rows: bm,
                cols: bk,
                origin: (row0, k0),
                limit: (m, k),
                thread,
                threads: tx * ty,
            },
        );
        stage(
            b,
            Stage {
                from: w,
                to: sb,
                rows: bk,
                cols: bn,
                origin: (k0, col0),
                limit: (k, n),
                thread,
                threads: tx * ty,
            },
        );
        b.barrier();
        let acc = b.for_(0, i64::from(bk), 1, acc, |b, kk, acc| {
            let left: Vec<Val> = (0..tm)
                .map(|i| {
                    let r = b.add(y, i64::from(i * ty));
                    let at = b.at(kk, r, i64::from(bk + 1));
                    b.load(sa, at, 1)
                })
                .collect();
            let right: Vec<Val> = (0..tn)
                .map(|j| {
                    let at = b.at(x, kk, i64::from(bn + 1));
                    let at = b.add(at, i64::from(j * tx));
                    b.load(sb, at, 1)
                })
                .collect();
            let mut next = Vec::with_capacity(acc.len());
            for (i, l) in left.iter().enumerate() {
                for (j, r) in right.iter().enumerate() {
                    next.push(b.fma(*l, *r, acc[i * tn as usize + j]));
                }
            }
            next
        });
        b.barrier();
        acc
    });
    for i in 0..tm {
        for j in 0..tn {
            let r = b.add(row0, y);
            let r = b.add(r, i64::from(i * ty));
            let col = b.add(col0, x);
            let col = b.add(col, i64::from(j * tx));
            let (in_m, in_n) = (b.cmp(CmpOp::Slt, r, m), b.cmp(CmpOp::Slt, col, n));
            let inside = b.and(in_m, in_n);
            let v = acc[(i * tn + j) as usize];
            b.when(inside, |b| {
                let at = b.at(col, r, n);
                b.store(c, at, v);
            });
        }
    }
    b.finish()
}

/// A copy of a `rows x cols` window of a row-major matrix to shared memory, zero outside the matrix.
struct Stage {
    from: Buf,
    to: Buf,
    rows: u32,
    cols: u32,
    origin: (Val, Val),
    /// Rows and columns of the matrix.
    limit: (Val, Val),
    thread: Val,
    threads: u32,
}

fn stage(b: &mut Builder, s: Stage) {
    let cells = i64::from(s.rows * s.cols);
    let threads = i64::from(s.threads);
    b.loop_(s.thread, cells, threads, |b, i| {
        let r = b.div_const(i, i64::from(s.cols));
        let c = b.urem(i, i64::from(s.cols));
        let (gr, gc) = (b.add(s.origin.0, r), b.add(s.origin.1, c));
        let (in_r, in_c) = (b.cmp(CmpOp::Slt, gr, s.limit.0), b.cmp(CmpOp::Slt, gc, s.limit.1));
        let inside = b.and(in_r, in_c);
        let from = b.at(gc, gr, s.limit.1);
        let v = b.load_masked(s.from, from, inside, 0.0);
        let to = b.at(c, r, i64::from(s.cols + 1));
        b.store(s.to, to, v);
    });
}
