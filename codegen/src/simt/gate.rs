//! Gates: which rows are open, and work on those only.

use super::{Grid, WARP};
use crate::kernel::{Axis, Builder, CmpOp, Elem, Kernel, Ty, Val};

/// Threads of a block.
pub const THREADS: u32 = 256;

/// The numbers of the rows whose mask is not zero, ascending, to `index`, and how many they are to `count[0]`; what follows them in
/// `index` is left as it is. Parameters `mask` (u8), `index` (i32), `count` (i32), `n`. One block.
pub fn compact(name: &str) -> Kernel {
    let mut b = Builder::simt(name, [THREADS, 1, 1]);
    let mask = b.input("mask", Elem::I8);
    let (index, count) = (b.output("index", Elem::I32), b.output("count", Elem::I32));
    let n = b.scalar("n");
    let t = b.thread_id(0);
    let zero = b.zero(Ty::scalar(Elem::I8));
    let all = open_rows(
        &mut b,
        t,
        n,
        &|b, i, inside| {
            let flag = b.load_masked(mask, i, inside, zero);
            b.cmp(CmpOp::Ne, flag, zero)
        },
        &|b, place, i| {
            let row = b.trunc(i, Elem::I32);
            b.store(index, place, row);
        },
    );
    let leader = b.cmp(CmpOp::Eq, t, 0);
    let all = b.trunc(all, Elem::I32);
    b.when(leader, |b| b.store(count, 0, all));
    b.finish()
}

/// Goes through the rows `0..n` with a block of [`THREADS`] threads of which this is number `t`. `open` says whether a row is, and must
/// not where its last value is false; `each` gets the place of an open row among them and its number. The number of open rows, which
/// every thread gets.
pub fn open_rows(
    b: &mut Builder,
    t: Val,
    n: Val,
    open: &dyn Fn(&mut Builder, Val, Val) -> Val,
    each: &dyn Fn(&mut Builder, Val, Val),
) -> Val {
    let scan = Scan::new(b, t);
    let none = b.i64(0);
    // All threads of the block take part in every round.
    let all = b.for_(0, n, i64::from(THREADS), &[none], |b, from, before| {
        let i = b.add(from, t);
        let inside = b.cmp(CmpOp::Slt, i, n);
        let set = open(b, i, inside);
        let set = b.and(set, inside);
        let one = b.zext(set, Elem::I32);
        let (own, total) = scan.exclusive(b, one);
        b.when(set, |b| {
            let own = b.zext(own, Elem::I64);
            let place = b.add(before[0], own);
            each(b, place, i);
        });
        let total = b.zext(total, Elem::I64);
        vec![b.add(before[0], total)]
    });
    all[0]
}

/// Sums over the threads of a block that come before each.
pub struct Scan {
    parts: crate::kernel::Buf,
    lane: Val,
    warp: Val,
}

impl Scan {
    /// For a block of [`THREADS`] threads of which this is number `t`.
    pub fn new(b: &mut Builder, t: Val) -> Scan {
        Scan {
            parts: b.shared("parts", Elem::I32, THREADS / WARP),
            lane: b.and(t, i64::from(WARP) - 1),
            warp: b.lshr(t, i64::from(WARP.trailing_zeros())),
        }
    }

    /// The sum of the values (`I32`) of the threads before this one, and of all; all threads of the block take part.
    pub fn exclusive(&self, b: &mut Builder, v: Val) -> (Val, Val) {
        let zero = b.zero(Ty::scalar(Elem::I32));
        let (mut own, mut total) = (zero, v);
        let mut distance = 1;
        while distance < WARP {
            let other = b.shuffle_xor(total, distance as u8);
            let bit = b.and(self.lane, i64::from(distance));
            let behind = b.cmp(CmpOp::Ne, bit, 0);
            let more = b.select(behind, other, zero);
            own = b.add(own, more);
            total = b.add(total, other);
            distance *= 2;
        }
        let first = b.cmp(CmpOp::Eq, self.lane, 0);
        b.when(first, |b| b.store(self.parts, self.warp, total));
        b.barrier();
        let sums = b.for_(0, i64::from(THREADS / WARP), 1, &[own, zero], |b, w, now| {
            let part = b.load(self.parts, w, 1);
            let earlier = b.cmp(CmpOp::Slt, w, self.warp);
            let more = b.select(earlier, part, zero);
            vec![b.add(now[0], more), b.add(now[1], part)]
        });
        // Nobody may overwrite the parts before everybody has read them.
        b.barrier();
        (sums[0], sums[1])
    }
}

/// `out[i, c] = f(x[index[i], c])` for `i < count[0]`; other rows of `out` are left as they are. Parameters `x` (f32), `index` (i32),
/// `count` (i32), `out` (f32), `cols`. Grid: [`rows_grid`] of the most rows that can be open.
pub fn gated_rows(name: &str, f: impl FnOnce(&mut Builder, Val) -> Val) -> Kernel {
    let mut b = Builder::simt(name, [THREADS, 1, 1]);
    let x = b.input("x", Elem::F32);
    let (index, count) = (b.input("index", Elem::I32), b.input("count", Elem::I32));
    let out = b.output("out", Elem::F32);
    let cols = b.scalar("cols");
    let (i, t) = (b.block_id(0), b.thread_id(0));
    let rows = b.load(count, 0, 1);
    let rows = b.sext(rows, Elem::I64);
    let open = b.cmp(CmpOp::Slt, i, rows);
    b.when(open, |b| {
        let row = b.load(index, i, 1);
        let row = b.sext(row, Elem::I64);
        let (from, to) = (b.mul(row, cols), b.mul(i, cols));
        b.for_axis(Axis::Block, t, cols, i64::from(THREADS), &[], |b, c, _| {
            let at = b.add(from, c);
            let v = b.load(x, at, 1);
            let v = f(b, v);
            let at = b.add(to, c);
            b.store(out, at, v);
            vec![]
        });
    });
    b.finish()
}

/// A block for each row.
pub fn rows_grid(rows: u32) -> Grid {
    [rows, 1, 1]
}
