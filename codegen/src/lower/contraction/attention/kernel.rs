//! The kernel: scores, weights and values of a block of keys after the other.

use crate::kernel::{BinOp, Buf, Builder, CmpOp, Elem, TargetSpec, Ty, Val};
use crate::lower::contraction::tile::{Tile, in_pieces, max_rows, max_vectors};
use crate::lower::launch::KernelCx;
use crate::lower::nest::decode;
use crate::lower::nn::{fold_lanes, keep};
use crate::math;

/// A buffer with its strides along the batch axes and, last, along rows.
pub(super) type Source = (Buf, Vec<Val>);

/// What all tiles of a kernel share.
pub(super) struct Job {
    pub(super) q: Source,
    pub(super) k: Source,
    pub(super) v: Source,
    pub(super) y: Source,
    /// The mask, and whether it differs from key to key.
    pub(super) mask: Option<(Buf, Vec<Val>, bool)>,
    pub(super) scale: f64,
    pub(super) rows: i64,
    pub(super) keys: i64,
    /// Queries of a unit, keys of a block and columns of values, where all have as many.
    pub(super) known: (Option<i64>, Option<i64>, Option<i64>),
    /// Whether there is one block of keys.
    pub(super) single: bool,
    pub(super) lanes: u16,
    pub(super) target: TargetSpec,
    pub(super) s: Val,
    pub(super) d: Val,
    pub(super) e: Val,
}

/// A unit with the block of keys it is at, and the memory of its rows.
struct Unit {
    /// Elements before the first row.
    q: Val,
    k: Val,
    v: Val,
    y: Val,
    mask: Option<Val>,
    rows: Val,
    scores: Buf,
    /// Of each row: largest score so far, sum of weights so far, and the factor for what was added before.
    largest: Buf,
    sums: Buf,
    factors: Buf,
}

impl Job {
    pub(super) fn units(&self, k: &mut KernelCx<'_>, l: Val, chunks: Val, batch: &[Val]) {
        let b = &mut k.b;
        let scores = b.local("scores", Elem::F32, (self.rows * self.keys) as u32);
        let [largest, sums, factors] =
            ["largest", "sums", "factors"].map(|name| b.local(name, Elem::F32, self.rows as u32));
        b.parallel_for(|b, unit| {
            let (which, chunk) = b.div_rem(unit, chunks);
            let coords = decode(b, which, batch);
            let first = b.mul(chunk, self.rows);
            let begin = |b: &mut Builder, strides: &[Val], row: Val| {
                let at = b.mul(row, strides[coords.len()]);
                coords.iter().zip(strides).fold(at, |at, (c, s)| b.at(at, *c, *s))
            };
            let none = b.i64(0);
            let left = b.sub(l, first);
            let u = Unit {
                q: begin(b, &self.q.1, first),
                k: begin(b, &self.k.1, none),
                v: begin(b, &self.v.1, none),
                y: begin(b, &self.y.1, first),
                mask: self.mask.as_ref().map(|m| begin(b, &m.1, first)),
                rows: b.smin(left, self.rows),
                scores,
                largest,
                sums,
                factors,
            };
            if !self.single {
                b.loop_(0, u.rows, 1, |b, r| {
                    // Not infinity: a row may begin with keys that are masked out.
                    let low = b.float(Ty::F32, f64::from(f32::MIN));
                    b.store(largest, r, low);
                    let zero = b.zero(Ty::F32);
                    b.store(sums, r, zero);
                });
            }
            b.loop_(0, self.s, self.keys, |b, key| {
                let count = b.sub(self.s, key);
                let count = b.smin(count, self.keys);
                self.scores(b, &u, key, count);
                b.loop_(0, u.rows, 1, |b, r| self.weights(b, &u, r, count));
                self.values(b, &u, key, count);
            });
            if !self.single {
                self.normalise(b, &u);
            }
        });
    }
    /// Runs `body` with the first column, the number of vectors and the mask of tiles that cover `count` columns, and with rows.
    fn tiles(
        &self,
        b: &mut Builder,
        u: &Unit,
        (count, known): (Val, Option<i64>),
        body: &dyn Fn(&mut Builder, (Val, usize), (Val, usize), Option<Val>),
    ) {
        let lanes = i64::from(self.lanes);
        let registers = usize::from(self.target.registers);
        let nv = match self.known.0 {
            // A few rows need more vectors to hide the latency of multiplications.
            Some(m @ 1..=6) => ((registers - 1) / (m as usize + 1)).clamp(1, 4),
            _ => max_vectors(&self.target),
        };
        let rows = |b: &mut Builder, col: Val, nv: usize, mask: Option<Val>| {
            let most = max_rows(&self.target, nv).min(9);
            let most = if self.known.0.is_some() || registers < 32 { most } else { 1 << most.min(8).ilog2() };
            in_pieces(b, u.rows, self.known.0, most, |b, r, rows| body(b, (r, rows), (col, nv), mask));
        };
        let whole = b.sdiv(count, lanes);
        in_pieces(b, whole, known.map(|n| n / lanes), nv, |b, i, nv| {
            let col = b.mul(i, lanes);
            rows(b, col, nv, None);
        });
        if lanes > 1 && known.is_none_or(|n| n % lanes != 0) {
            let end = b.mul(whole, lanes);
            let left = b.sub(count, end);
            let some = b.cmp(CmpOp::Sgt, left, 0);
            b.when(some, |b| {
                let mask = b.mask_below(self.lanes, left);
                rows(b, end, 1, Some(mask));
            });
        }
    }
    /// Scores of the `count` keys from `key` on.
    fn scores(&self, b: &mut Builder, u: &Unit, key: Val, count: Val) {
        let (lanes, axes) = (i64::from(self.lanes), self.q.1.len() - 1);
        self.tiles(b, u, (count, self.known.1), &|b, (r0, rows), (col, nv), mask| {
            let zero = b.i64(0);
            let queries = b.at(u.q, r0, self.q.1[axes]);
            let a = |b: &mut Builder, k: Val, r: usize| {
                let at = b.at(queries, r as i64, self.q.1[axes]);
                let at = b.add(at, k);
                b.load(self.q.0, at, 1)
            };
            let first = b.add(u.k, key);
            let first = b.add(first, col);
            let bv = |b: &mut Builder, k: Val, v: usize| {
                let at = b.at(first, k, self.k.1[axes]);
                let at = b.add(at, v as i64 * lanes);
                b.load_opt(self.k.0, at, self.lanes, mask)
            };
            let sums =
                Tile { rows, nv, lanes: self.lanes, elem: Elem::F32, k: (zero, self.d), a: &a, b: &bv }
                    .emit(b, None);
            for r in 0..rows {
                let row = b.add(r0, r as i64);
                for v in 0..nv {
                    let at = b.add(col, v as i64 * lanes);
                    let mut x = b.fmul(sums[r * nv + v], self.scale);
                    if let (Some((buf, strides, wide)), Some(begin)) = (&self.mask, u.mask) {
                        let line = b.at(begin, row, strides[axes]);
                        let m = if *wide {
                            let from = b.add(line, key);
                            let from = b.add(from, at);
                            b.load_opt(*buf, from, self.lanes, mask)
                        } else {
                            let m = b.load(*buf, line, 1);
                            b.splat(m, self.lanes)
                        };
                        x = b.fadd(x, m);
                    }
                    let to = b.at(at, row, self.keys);
                    b.store(u.scores, to, x);
                }
            }
        });
    }
    /// Weights of the scores of row `r`.
    fn weights(&self, b: &mut Builder, u: &Unit, r: Val, count: Val) {
        let ty = Ty::vec(Elem::F32, self.lanes);
        let base = b.mul(r, self.keys);
        let low = b.float(ty, f64::NEG_INFINITY);
        let top = fold_lanes(b, count, self.lanes, &[low], |b, acc, i, mask| {
            let at = b.add(base, i);
            let x = b.load(u.scores, at, self.lanes);
            let x = keep(b, mask, x, f64::NEG_INFINITY);
            vec![b.fmaxnum(acc[0], x)]
        });
        let mut top = b.reduce(BinOp::FMaxNum, top[0]);
        let before = (!self.single).then(|| b.load(u.largest, r, 1));
        if let Some(before) = before {
            top = b.fmaxnum(top, before);
        }
        let wide = b.splat(top, self.lanes);
        let zero = b.zero(ty);
        let sum = fold_lanes(b, count, self.lanes, &[zero], |b, acc, i, mask| {
            let at = b.add(base, i);
            let x = b.load(u.scores, at, self.lanes);
            let x = b.fsub(x, wide);
            let x = math::exp(b, x);
            b.store(u.scores, at, x);
            let x = keep(b, mask, x, 0.0);
            vec![b.fadd(acc[0], x)]
        });
        let sum = b.reduce(BinOp::FAdd, sum[0]);
        let factor = match before {
            None => b.fdiv(1.0, sum),
            Some(before) => {
                b.store(u.largest, r, top);
                let x = b.fsub(before, top);
                let factor = math::exp(b, x);
                let old = b.load(u.sums, r, 1);
                let sum = b.fma(old, factor, sum);
                b.store(u.sums, r, sum);
                factor
            }
        };
        b.store(u.factors, r, factor);
    }
    /// Adds the weighted values of the `count` keys from `key` on.
    fn values(&self, b: &mut Builder, u: &Unit, key: Val, count: Val) {
        let (lanes, axes) = (i64::from(self.lanes), self.q.1.len() - 1);
        let ty = Ty::vec(Elem::F32, self.lanes);
        let begins = b.cmp(CmpOp::Eq, key, 0);
        self.tiles(b, u, (self.e, self.known.2), &|b, (r0, rows), (col, nv), mask| {
            let place = |b: &mut Builder, r: usize, v: usize| {
                let row = b.add(r0, r as i64);
                let at = b.at(u.y, row, self.y.1[axes]);
                let at = b.add(at, col);
                b.add(at, v as i64 * lanes)
            };
            let factor = |b: &mut Builder, r: usize| {
                let row = b.add(r0, r as i64);
                let f = b.load(u.factors, row, 1);
                b.splat(f, self.lanes)
            };
            let init = (!self.single).then(|| {
                let mut init = Vec::with_capacity(rows * nv);
                for r in 0..rows {
                    let f = factor(b, r);
                    for v in 0..nv {
                        let at = place(b, r, v);
                        let old = b.load_opt(self.y.0, at, self.lanes, mask);
                        let old = b.fmul(old, f);
                        let zero = b.zero(ty);
                        let begins = b.splat(begins, self.lanes);
                        init.push(b.select(begins, zero, old));
                    }
                }
                init
            });
            let zero = b.i64(0);
            let weights = b.mul(r0, self.keys);
            let a = |b: &mut Builder, k: Val, r: usize| {
                let at = b.add(weights, r as i64 * self.keys);
                let at = b.add(at, k);
                b.load(u.scores, at, 1)
            };
            let first = b.at(u.v, key, self.v.1[axes]);
            let first = b.add(first, col);
            let bv = |b: &mut Builder, k: Val, v: usize| {
                let at = b.at(first, k, self.v.1[axes]);
                let at = b.add(at, v as i64 * lanes);
                b.load_opt(self.v.0, at, self.lanes, mask)
            };
            let sums = Tile { rows, nv, lanes: self.lanes, elem: Elem::F32, k: (zero, count), a: &a, b: &bv }
                .emit(b, init);
            for r in 0..rows {
                let f = self.single.then(|| factor(b, r));
                for v in 0..nv {
                    let x = sums[r * nv + v];
                    let x = f.map_or(x, |f| b.fmul(x, f));
                    let at = place(b, r, v);
                    b.store_opt(self.y.0, at, x, mask);
                }
            }
        });
    }
    /// Divides by the sums of weights; without keys the result is zero.
    fn normalise(&self, b: &mut Builder, u: &Unit) {
        let axes = self.q.1.len() - 1;
        let ty = Ty::vec(Elem::F32, self.lanes);
        let none = b.cmp(CmpOp::Eq, self.s, 0);
        let none = b.splat(none, self.lanes);
        b.loop_(0, u.rows, 1, |b, r| {
            let sum = b.load(u.sums, r, 1);
            let f = b.fdiv(1.0, sum);
            let f = b.splat(f, self.lanes);
            let row = b.at(u.y, r, self.y.1[axes]);
            b.for_lanes(0, self.e, self.lanes, |b, i, mask| {
                let at = b.add(row, i);
                let x = b.load_opt(self.y.0, at, self.lanes, mask);
                let x = b.fmul(x, f);
                let zero = b.zero(ty);
                let x = b.select(none, zero, x);
                b.store_opt(self.y.0, at, x, mask);
            });
        });
    }
}
