//! Matrix products on tensor cores, of any sizes: factors go through shared memory, and so do the sums on their way out.

use super::matmul::Load;
use super::{Grid, WARP};
use crate::kernel::{Builder, CmpOp, Elem, Frag, Kernel, Ty, Val};

/// Rows, columns and depth of a block's tile.
pub const BLOCK: [u32; 3] = [64, 64, 32];
/// Threads of a block: 2 x 2 warps, each of which computes 32 x 32.
pub const THREADS: u32 = 4 * WARP;
/// Elements from row to row of the sums in shared memory.
const SUMS_PITCH: u32 = BLOCK[1] + 2;

/// The grid for an `m x n` result.
pub fn grid(m: u32, n: u32) -> Grid {
    [n.div_ceil(BLOCK[1]), m.div_ceil(BLOCK[0]), 1]
}

/// Stores the sum of (row, column), which is inside the result; with totals, those of the row of the left factor and of the column of
/// the right one.
pub type Finish<'p> = dyn Fn(&mut Builder, (Val, Val), Val, Option<(Val, Val)>) + 'p;

/// A matrix product in a block of [`THREADS`] threads.
pub struct TensorProduct<'p> {
    /// Of the factors: `BF16`, `F16`, `F32` (of which the upper 19 bits count) or `I8`. Sums are `F32`, or `I32` for `I8`.
    pub elem: Elem,
    /// m, n, k.
    pub sizes: (Val, Val, Val),
    /// Number of the thread in its block.
    pub thread: Val,
    /// Column and row of the tile in the result.
    pub block: (Val, Val),
    /// Elements (m, k) and (k, n), of type `elem`.
    pub left: &'p Load<'p>,
    pub right: &'p Load<'p>,
    /// Whether `finish` gets the sums of each row and column of the factors as well; for `I8`.
    pub totals: bool,
    pub finish: &'p Finish<'p>,
}

impl TensorProduct<'_> {
    /// Elements from row to row of a factor in shared memory: runs stay aligned, and the words that the lanes of a fragment load
    /// fall into different banks.
    fn pitch(&self) -> u32 {
        BLOCK[2] + 128 / self.elem.bits()
    }

    /// Emits the product of one tile.
    pub fn emit(&self, b: &mut Builder) {
        let [bm, bn, bk] = BLOCK;
        let (m, n, k) = self.sizes;
        let pitch = self.pitch();
        let sum = if self.elem == Elem::I8 { Elem::I32 } else { Elem::F32 };
        // Rows of the left factor, then columns of the right one.
        let tiles = b.shared("tiles", self.elem, (bm + bn) * pitch);
        let sums = b.shared("sums", sum, bm * SUMS_PITCH);
        let t = self.thread;
        let (bx, by) = self.block;
        let (row0, col0) = (b.mul(by, i64::from(bm)), b.mul(bx, i64::from(bn)));
        let warp = b.lshr(t, i64::from(WARP.trailing_zeros()));
        let (wr, wc) = (b.lshr(warp, 1), b.and(warp, 1));
        let (wr, wc) = (b.mul(wr, 32), b.mul(wc, 32));
        let zero = b.zero(Ty::vec(sum, Frag::C.lanes(sum)));
        let mut init = vec![zero; 8];
        if self.totals {
            init.push(b.zero(Ty::scalar(Elem::I32)));
        }
        let done = b.for_(0, k, i64::from(bk), &init, |b, k0, now| {
            let stage = |b: &mut Builder, left: bool| {
                let (rows, first) = if left { (bm, row0) } else { (bn, col0) };
                b.loop_(t, i64::from(rows * bk), i64::from(THREADS), |b, i| {
                    // Neighbouring threads load neighbours of a row of either factor.
                    let across = i64::from(if left { bk } else { rows });
                    let (down, along) = (b.div_const(i, across), b.urem(i, across));
                    let (r, c) = if left { (down, along) } else { (along, down) };
                    let (gr, gk) = (b.add(first, r), b.add(k0, c));
                    let in_r = b.cmp(CmpOp::Slt, gr, if left { m } else { n });
                    let in_k = b.cmp(CmpOp::Slt, gk, k);
                    let inside = b.and(in_r, in_k);
                    let v =
                        if left { (self.left)(b, gr, gk, inside) } else { (self.right)(b, gk, gr, inside) };
                    let line = if left { r } else { b.add(r, i64::from(bm)) };
                    let to = b.at(c, line, i64::from(pitch));
                    b.store(tiles, to, v);
                });
            };
            stage(b, true);
            stage(b, false);
            b.barrier();
            let mut next = now.to_vec();
            let at = |b: &mut Builder, base: Val, row: u32, k: u32| {
                let r = b.add(base, i64::from(row));
                let at = b.mul(r, i64::from(pitch));
                b.add(at, i64::from(k))
            };
            for step in (0..bk).step_by(Frag::depth(self.elem) as usize) {
                let left: Vec<Val> = (0..2)
                    .map(|i| {
                        let from = at(b, wr, i * 16, step);
                        b.frag_load(Frag::A, tiles, from, i64::from(pitch))
                    })
                    .collect();
                let right: Vec<Val> = (0..4)
                    .map(|j| {
                        let from = at(b, wc, bm + j * 8, step);
                        b.frag_load(Frag::B, tiles, from, i64::from(pitch))
                    })
                    .collect();
                for (i, l) in left.iter().enumerate() {
                    for (j, r) in right.iter().enumerate() {
                        next[i * 4 + j] = b.mma(*l, *r, next[i * 4 + j]);
                    }
                }
            }
            if self.totals {
                // As many threads as rows and columns of the tiles.
                let line = b.mul(t, i64::from(pitch));
                let total = b.for_(0, i64::from(bk), 1, &[next[8]], |b, q, total| {
                    let at = b.add(line, q);
                    let v = b.load(tiles, at, 1);
                    let v = b.sext(v, Elem::I32);
                    vec![b.add(total[0], v)]
                });
                next[8] = total[0];
            }
            // Nobody may overwrite the tiles before everybody has read them.
            b.barrier();
            next
        });
        for (i, v) in done[..8].iter().enumerate() {
            let r = b.add(wr, (i / 4) as i64 * 16);
            let at = b.at(wc, r, i64::from(SUMS_PITCH));
            let at = b.add(at, (i % 4) as i64 * 8);
            b.frag_store(sums, at, i64::from(SUMS_PITCH), *v);
        }
        let totals = self.totals.then(|| {
            let totals = b.shared("totals", Elem::I32, THREADS);
            b.store(totals, t, done[8]);
            totals
        });
        b.barrier();
        b.loop_(t, i64::from(bm * bn), i64::from(THREADS), |b, i| {
            let (r, c) = (b.div_const(i, i64::from(bn)), b.urem(i, i64::from(bn)));
            let (gr, gc) = (b.add(row0, r), b.add(col0, c));
            let (in_m, in_n) = (b.cmp(CmpOp::Slt, gr, m), b.cmp(CmpOp::Slt, gc, n));
            let inside = b.and(in_m, in_n);
            b.when(inside, |b| {
                let at = b.at(c, r, i64::from(SUMS_PITCH));
                let v = b.load(sums, at, 1);
                let totals = totals.map(|totals| {
                    let column = b.add(c, i64::from(bm));
                    (b.load(totals, r, 1), b.load(totals, column, 1))
                });
                (self.finish)(b, (gr, gc), v, totals);
            });
        });
    }
}

/// An f32 as a factor of this type: rounded to the nearest, ties to even for 16-bit floats and away from zero for TF32.
pub fn factor(b: &mut Builder, elem: Elem, v: Val) -> Val {
    if elem != Elem::F32 {
        return b.fptrunc(v, elem);
    }
    let bits = b.bitcast(v, Ty::scalar(Elem::I32));
    let up = b.add(bits, 0x1000);
    let cut = b.and(up, i64::from(0xFFFF_E000_u32 as i32));
    let rounded = b.bitcast(cut, Ty::F32);
    let number = b.cmp(CmpOp::FEq, v, v);
    b.select(number, rounded, v)
}

/// `c[m,n] = a[m,k] * b[k,n]`, row-major, any sizes; `a` and `b` are f32, rounded to `elem` (see [`factor`]), and `c` f32; for `I8` they
/// are bytes and `c` i32. Parameters `a`, `b`, `c`, `m`, `n`, `k`. Grid: [`grid`].
pub fn matmul(name: &str, elem: Elem) -> Kernel {
    let bytes = elem == Elem::I8;
    let (memory, sum) = if bytes { (Elem::I8, Elem::I32) } else { (Elem::F32, Elem::F32) };
    let mut b = Builder::simt(name, [THREADS, 1, 1]);
    let (a, w) = (b.input("a", memory), b.input("b", memory));
    let c = b.output("c", sum);
    let (m, n, k) = (b.scalar("m"), b.scalar("n"), b.scalar("k"));
    let thread = b.thread_id(0);
    let block = (b.block_id(0), b.block_id(1));
    let zero = b.zero(Ty::scalar(memory));
    let load = |buf, cols: Val| {
        move |b: &mut Builder, r: Val, c: Val, inside: Val| {
            let at = b.at(c, r, cols);
            let v = b.load_masked(buf, at, inside, zero);
            if bytes { v } else { factor(b, elem, v) }
        }
    };
    let product = TensorProduct {
        elem,
        sizes: (m, n, k),
        thread,
        block,
        left: &load(a, k),
        right: &load(w, n),
        totals: false,
        finish: &|b, (r, col), v, _| {
            let at = b.at(col, r, n);
            b.store(c, at, v);
        },
    };
    product.emit(&mut b);
    b.finish()
}
