//! bf16 matrix product on tensor cores (`mma.sync m16n8k16`), fp32 accumulation.

use super::{Grid, WARP};
use crate::kernel::{Buf, Builder, Elem, Frag, Kernel, Ty, Val};

/// Rows, columns and depth of a block's tile.
pub const BLOCK: [u32; 3] = [64, 64, 32];
/// Warps of a block, as rows x columns; each computes 32 x 32.
const WARPS: [u32; 2] = [2, 2];
/// Elements from row to row in shared memory: 80 bytes, a multiple of 16, and four-byte words of eight rows fall into
/// different banks.
const PITCH: u32 = BLOCK[2] + 8;
/// Shared-memory stages in flight.
const STAGES: u32 = 2;

/// `c[m,n] = a[m,k] * bt[n,k]^T`: `a` and `bt` row-major bf16, `c` row-major f32; parameters `a`, `bt`, `c`, `n`, `k`. `m` and
/// `n` must be multiples of 64 and `k` a positive multiple of 32 (the caller pads). Grid: [`grid`].
pub fn matmul_bf16(name: &str) -> Kernel {
    let [bm, bn, bk] = BLOCK;
    let threads = WARPS[0] * WARPS[1] * WARP;
    let mut b = Builder::simt(name, [threads, 1, 1]);
    let (a, w) = (b.input("a", Elem::BF16), b.input("bt", Elem::BF16));
    b.set_align(a, 16);
    b.set_align(w, 16);
    let c = b.output("c", Elem::F32);
    b.set_align(c, 8);
    let (n, k) = (b.scalar("n"), b.scalar("k"));
    let sa = b.shared("sa", Elem::BF16, STAGES * bm * PITCH);
    let sb = b.shared("sb", Elem::BF16, STAGES * bn * PITCH);
    let t = b.thread_id(0);
    let (bx, by) = (b.block_id(0), b.block_id(1));
    let (row0, col0) = (b.mul(by, i64::from(bm)), b.mul(bx, i64::from(bn)));
    let warp = b.lshr(t, i64::from(WARP.trailing_zeros()));
    let (wr, wc) = (b.div_const(warp, i64::from(WARPS[1])), b.and(warp, i64::from(WARPS[1]) - 1));
    let (wr, wc) = (b.mul(wr, 32), b.mul(wc, 32));

    let fetch = |b: &mut Builder, k0: Val| {
        copy_tile(b, a, sa, row0, k0, k, bm, t, threads);
        copy_tile(b, w, sb, col0, k0, k, bn, t, threads);
        b.copy_commit();
    };
    let first = b.i64(0);
    fetch(&mut b, first);
    let zero = b.zero(Ty::vec(Elem::F32, Frag::C.lanes(Elem::F32)));
    let init = vec![zero; 8];
    let acc = b.for_(0, k, i64::from(bk), &init, |b, k0, acc| {
        // The next tile is under way while this one is multiplied. Past the end the last one is fetched again, unused.
        let next = b.add(k0, i64::from(bk));
        let last = b.sub(k, i64::from(bk));
        let next = b.smin(next, last);
        let slot = stage_of(b, k0);
        let ahead = b.xor(slot, 1);
        copy_tile_to(b, a, sa, row0, next, k, bm, t, threads, ahead);
        copy_tile_to(b, w, sb, col0, next, k, bn, t, threads, ahead);
        b.copy_commit();
        b.copy_wait(1);
        b.barrier();
        let mut acc = acc.to_vec();
        for step in 0..bk / 16 {
            let ka = i64::from(step * 16);
            let left: Vec<Val> = (0..2)
                .map(|i| {
                    let at = tile_at(b, slot, wr, i * 16, bm, ka);
                    b.frag_load(Frag::A, sa, at, i64::from(PITCH))
                })
                .collect();
            let right: Vec<Val> = (0..4)
                .map(|j| {
                    let at = tile_at(b, slot, wc, j * 8, bn, ka);
                    b.frag_load(Frag::B, sb, at, i64::from(PITCH))
                })
                .collect();
            for (i, l) in left.iter().enumerate() {
                for (j, r) in right.iter().enumerate() {
                    acc[i * 4 + j] = b.mma(*l, *r, acc[i * 4 + j]);
                }
            }
        }
        // Nobody may overwrite this stage before everybody has read it.
        b.barrier();
        acc
    });
    b.copy_wait(0);
    for (i, v) in acc.into_iter().enumerate() {
        let (ri, cj) = ((i / 4) as i64 * 16, (i % 4) as i64 * 8);
        let r = b.add(row0, wr);
        let r = b.add(r, ri);
        let col = b.add(col0, wc);
        let col = b.add(col, cj);
        let at = b.at(col, r, n);
        b.frag_store(c, at, n, v);
    }
    b.finish()
}

/// Which of the two stages holds the tile that begins at depth `k0`.
fn stage_of(b: &mut Builder, k0: Val) -> Val {
    let s = b.lshr(k0, i64::from(BLOCK[2].trailing_zeros()));
    b.and(s, i64::from(STAGES) - 1)
}

/// Index in shared memory of row `base + row` at depth `k` of a stage.
fn tile_at(b: &mut Builder, stage: Val, base: Val, row: i64, rows: u32, k: i64) -> Val {
    let first = b.mul(stage, i64::from(rows * PITCH));
    let r = b.add(base, row);
    let at = b.at(first, r, i64::from(PITCH));
    b.add(at, k)
}

#[allow(clippy::too_many_arguments)]
fn copy_tile(
    b: &mut Builder,
    from: Buf,
    to: Buf,
    row0: Val,
    k0: Val,
    k: Val,
    rows: u32,
    t: Val,
    threads: u32,
) {
    let stage = stage_of(b, k0);
    copy_tile_to(b, from, to, row0, k0, k, rows, t, threads, stage);
}

/// Starts copying `rows x BLOCK[2]` elements from `(row0, k0)` of a matrix with rows of `k` elements, 16 bytes at a time.
#[allow(clippy::too_many_arguments)]
fn copy_tile_to(
    b: &mut Builder,
    from: Buf,
    to: Buf,
    row0: Val,
    k0: Val,
    k: Val,
    rows: u32,
    t: Val,
    threads: u32,
    stage: Val,
) {
    let per_row = BLOCK[2] / 8;
    let pieces = rows * per_row;
    let first = b.mul(stage, i64::from(rows * PITCH));
    for round in 0..pieces / threads {
        let p = b.add(t, i64::from(round * threads));
        let r = b.lshr(p, i64::from(per_row.trailing_zeros()));
        let c = b.and(p, i64::from(per_row) - 1);
        let c = b.mul(c, 8);
        let gr = b.add(row0, r);
        let src = b.at(k0, gr, k);
        let src = b.add(src, c);
        let dst = b.at(first, r, i64::from(PITCH));
        let dst = b.add(dst, c);
        b.copy_async(to, dst, from, src, 16);
    }
}

/// The grid for an `m x n` result.
pub fn grid(m: u32, n: u32) -> Grid {
    [n / BLOCK[1], m / BLOCK[0], 1]
}
