//! Reduction of rows.

use super::{Grid, WARP};
use crate::kernel::{Axis, BinOp, Buf, Builder, CmpOp, Elem, Kernel, Ty, Val};

/// Threads of a block; a power of two of whole warps.
pub const THREADS: u32 = 256;

/// `out[r] = op over c of x[r * cols + c]` for `f32` and an `op` whose neutral element is `neutral`; parameters `x`, `out`,
/// `cols`. One block per row: threads take every 256th column, then warps combine by shuffles and the block by shared memory.
/// The order is fixed by `cols` alone, so equal inputs give equal bits.
pub fn reduce_rows(name: &str, op: BinOp, neutral: f32) -> Kernel {
    let mut b = Builder::simt(name, [THREADS, 1, 1]);
    let x = b.input("x", Elem::F32);
    let out = b.output("out", Elem::F32);
    let cols = b.scalar("cols");
    let warps = THREADS / WARP;
    let parts = b.shared("parts", Elem::F32, warps);
    let (row, t) = (b.block_id(0), b.thread_id(0));
    let base = b.mul(row, cols);
    let start = b.f32(neutral);
    let sum = b.for_axis(Axis::Block, t, cols, i64::from(THREADS), &[start], |b, c, acc| {
        let at = b.add(base, c);
        let v = b.load(x, at, 1);
        vec![b.bin(op, acc[0], v)]
    });
    let in_warp = across_lanes(&mut b, op, sum[0], WARP);
    let lane = b.and(t, i64::from(WARP) - 1);
    let warp = b.lshr(t, i64::from(WARP.trailing_zeros()));
    let first = b.cmp(CmpOp::Eq, lane, 0);
    b.when(first, |b| b.store(parts, warp, in_warp));
    b.barrier();
    let leader = b.cmp(CmpOp::Eq, t, 0);
    b.when(leader, |b| {
        let init = b.load(parts, 0, 1);
        let all = b.for_(1, i64::from(warps), 1, &[init], |b, i, acc| {
            let v = b.load(parts, i, 1);
            vec![b.bin(op, acc[0], v)]
        });
        b.store(out, row, all[0]);
    });
    b.finish()
}

/// Combines the lanes of each warp by halving distances; every lane gets the result.
pub fn across_lanes(b: &mut Builder, op: BinOp, v: Val, lanes: u32) -> Val {
    debug_assert_eq!(b.ty(v), Ty::F32);
    let mut v = v;
    let mut distance = lanes / 2;
    while distance > 0 {
        let other = b.shuffle_xor(v, distance as u8);
        v = b.bin(op, v, other);
        distance /= 2;
    }
    v
}

/// One block per row.
pub fn grid(rows: u32) -> Grid {
    [rows, 1, 1]
}

/// Combines a value of every thread of a block of [`THREADS`]; every thread gets the result.
#[derive(Clone, Copy)]
pub struct Together {
    parts: Buf,
    lane: Val,
    warp: Val,
}

impl Together {
    /// For a block of which this is thread `t`.
    pub fn new(b: &mut Builder, t: Val) -> Together {
        Together {
            parts: b.shared("parts", Elem::F32, THREADS / WARP),
            lane: b.and(t, i64::from(WARP) - 1),
            warp: b.lshr(t, i64::from(WARP.trailing_zeros())),
        }
    }

    /// `op` over the `F32` values `v` of all threads, in an order that depends on nothing; all of them take part.
    pub fn fold(&self, b: &mut Builder, op: BinOp, v: Val) -> Val {
        let in_warp = across_lanes(b, op, v, WARP);
        let first = b.cmp(CmpOp::Eq, self.lane, 0);
        b.when(first, |b| b.store(self.parts, self.warp, in_warp));
        b.barrier();
        let init = b.load(self.parts, 0, 1);
        let all = b.for_(1, i64::from(THREADS / WARP), 1, &[init], |b, i, acc| {
            let v = b.load(self.parts, i, 1);
            vec![b.bin(op, acc[0], v)]
        });
        // Nobody may overwrite the parts before everybody has read them.
        b.barrier();
        all[0]
    }
}
