//! Matrix product in thread tiles over shared memory.

use super::Grid;
use crate::kernel::{Buf, Builder, CmpOp, Elem, Kernel, Ty, Val};

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
    /// Threads of a block along columns and rows.
    pub fn threads(&self) -> [u32; 2] {
        [self.block[1] / self.thread[1], self.block[0] / self.thread[0]]
    }

    /// Threads of a block.
    pub fn block_threads(&self) -> u32 {
        self.threads().iter().product()
    }

    /// The grid for an `m x n` result.
    pub fn grid(&self, m: u32, n: u32) -> Grid {
        [n.div_ceil(self.block[1]), m.div_ceil(self.block[0]), 1]
    }
}

/// `c[m,n] = a[m,k] * b[k,n]`, row-major fp32, any sizes; parameters `a`, `b`, `c`, `m`, `n`, `k`. Grid: [`Tile::grid`]. Each sum is
/// a chain of fused multiply-adds in order of k.
pub fn matmul(name: &str, tile: Tile) -> Kernel {
    let [tx, ty] = tile.threads();
    let mut b = Builder::simt(name, [tx, ty, 1]);
    let (a, w) = (b.input("a", Elem::F32), b.input("b", Elem::F32));
    let c = b.output("c", Elem::F32);
    let (m, n, k) = (b.scalar("m"), b.scalar("n"), b.scalar("k"));
    let (x, y) = (b.thread_id(0), b.thread_id(1));
    let (bx, by) = (b.block_id(0), b.block_id(1));
    let row_major = |buf: Buf, cols: Val| {
        move |b: &mut Builder, r: Val, c: Val, inside: Val| {
            let at = b.at(c, r, cols);
            b.load_masked(buf, at, inside, 0.0)
        }
    };
    let product = Product {
        elem: Elem::F32,
        sizes: (m, n, k),
        thread: (x, y),
        block: (bx, by),
        left: &row_major(a, k),
        right: &row_major(w, n),
        finish: &|b, r, col, v| {
            let at = b.at(col, r, n);
            b.store(c, at, v);
        },
    };
    product.emit(&mut b, tile);
    b.finish()
}

/// Element (row, column) of a matrix, zero where the third value is false.
pub type Load<'p> = dyn Fn(&mut Builder, Val, Val, Val) -> Val + 'p;

/// A matrix product in a block of [`Tile::block_threads`] threads.
pub struct Product<'p> {
    /// Of the operands as loaded, and of the sums: `F32`, `F64`, or an integer type.
    pub elem: Elem,
    /// m, n, k.
    pub sizes: (Val, Val, Val),
    /// Column and row of the thread in its block.
    pub thread: (Val, Val),
    /// Column and row of the tile in the result.
    pub block: (Val, Val),
    /// Elements (m, k) and (k, n).
    pub left: &'p Load<'p>,
    pub right: &'p Load<'p>,
    /// Stores the sum of (row, column), which is inside the result.
    pub finish: &'p dyn Fn(&mut Builder, Val, Val, Val),
}

impl Product<'_> {
    /// Emits the product of one tile. Each sum is a chain in order of k, of fused multiply-adds for floating point.
    pub fn emit(&self, b: &mut Builder, tile: Tile) {
        let [bm, bn, bk] = tile.block;
        let [tm, tn] = tile.thread;
        let [tx, ty] = tile.threads();
        let (m, n, k) = self.sizes;
        // One more column than needed: neighbouring rows then start in different banks.
        let (sa, sb) = (b.shared("sa", self.elem, bm * (bk + 1)), b.shared("sb", self.elem, bk * (bn + 1)));
        let (x, y) = self.thread;
        let thread = b.at(x, y, i64::from(tx));
        let (bx, by) = self.block;
        let (row0, col0) = (b.mul(by, i64::from(bm)), b.mul(bx, i64::from(bn)));
        let zero = b.zero(Ty::scalar(self.elem));
        let init = vec![zero; (tm * tn) as usize];
        let stage = |b: &mut Builder, load: &Load<'_>, to: Buf, (rows, cols), origin, limit| {
            stage(b, Stage { load, to, rows, cols, origin, limit, thread, threads: tx * ty });
        };
        let acc = b.for_(0, k, i64::from(bk), &init, |b, k0, acc| {
            stage(b, self.left, sa, (bm, bk), (row0, k0), (m, k));
            stage(b, self.right, sb, (bk, bn), (k0, col0), (k, n));
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
                        let sum = acc[i * tn as usize + j];
                        next.push(if self.elem.is_float() {
                            b.fma(*l, *r, sum)
                        } else {
                            let p = b.mul(*l, *r);
                            b.add(sum, p)
                        });
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
                b.when(inside, |b| (self.finish)(b, r, col, v));
            }
        }
    }
}

/// A copy of a `rows x cols` window of a matrix to shared memory, zero outside the matrix.
struct Stage<'s> {
    load: &'s Load<'s>,
    to: Buf,
    rows: u32,
    cols: u32,
    origin: (Val, Val),
    /// Rows and columns of the matrix.
    limit: (Val, Val),
    thread: Val,
    threads: u32,
}

fn stage(b: &mut Builder, s: Stage<'_>) {
    let cells = i64::from(s.rows * s.cols);
    let threads = i64::from(s.threads);
    b.loop_(s.thread, cells, threads, |b, i| {
        let r = b.div_const(i, i64::from(s.cols));
        let c = b.urem(i, i64::from(s.cols));
        let (gr, gc) = (b.add(s.origin.0, r), b.add(s.origin.1, c));
        let (in_r, in_c) = (b.cmp(CmpOp::Slt, gr, s.limit.0), b.cmp(CmpOp::Slt, gc, s.limit.1));
        let inside = b.and(in_r, in_c);
        let v = (s.load)(b, gr, gc, inside);
        let to = b.at(c, r, i64::from(s.cols + 1));
        b.store(s.to, to, v);
    });
}
