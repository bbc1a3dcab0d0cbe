//! Register tiles.

use crate::kernel::{Builder, Elem, TargetSpec, Ty, Val};

/// How many rows of a tile with `nv` vectors the registers of a target hold: `rows * nv` sums, `nv` vectors of B and one scalar of A.
/// At most 12 with 32 registers.
pub(super) fn max_rows(target: &TargetSpec, nv: usize) -> usize {
    rows_that_fit(target, nv, 12)
}

/// [`max_rows`] with at most `most` of them where there are 32 registers.
pub(super) fn rows_that_fit(target: &TargetSpec, nv: usize, most: usize) -> usize {
    let registers = usize::from(target.registers).clamp(8, 32);
    ((registers - 1 - nv) / nv).clamp(1, if registers >= 32 { most } else { 6 })
}

/// The widest tile, in vectors, that a target should use for contractions.
pub(super) fn max_vectors(target: &TargetSpec) -> usize {
    if target.registers >= 32 { 3 } else { 2 }
}

/// Cuts `n` rows or vectors into pieces of at most `most` that differ by one at the most, larger ones first.
pub(in crate::lower) fn balanced(n: usize, most: usize) -> Vec<usize> {
    let pieces = n.div_ceil(most.max(1)).max(1);
    (0..pieces).map(|i| n / pieces + usize::from(i < n % pieces)).filter(|p| *p > 0).collect()
}

/// Runs `body` with the beginning and the size of every piece of `0..count`. A known number is cut evenly into pieces of at most
/// `most`, any other into pieces of `most` and then of smaller and smaller powers of two.
pub(in crate::lower) fn in_pieces(
    b: &mut Builder,
    count: Val,
    known: Option<i64>,
    most: usize,
    mut body: impl FnMut(&mut Builder, Val, usize),
) {
    if let Some(known) = known {
        let pieces = balanced(known as usize, most);
        let mut at = 0;
        for same in pieces.chunk_by(|x, y| x == y) {
            let (size, from) = (same[0], at);
            at += (same.len() * size) as i64;
            b.loop_(from, at, size as i64, |b, i| body(b, i, size));
        }
        return;
    }
    let (mut start, mut size) = (b.i64(0), most);
    while size > 0 {
        let left = b.sub(count, start);
        let whole = b.sdiv(left, size as i64);
        let end = b.at(start, whole, size as i64);
        b.loop_(start, end, size as i64, |b, i| body(b, i, size));
        start = end;
        size = size.next_power_of_two() / 2;
    }
}

/// Where a tile reads and what it starts from.
pub(super) struct Tile<'t> {
    /// Rows.
    pub(super) rows: usize,
    /// Vectors.
    pub(super) nv: usize,
    /// Lanes of a vector.
    pub(super) lanes: u16,
    /// `F32` or `F64`, or `I32` for integers.
    pub(super) elem: Elem,
    /// First and one past the last step of the sum.
    pub(super) k: (Val, Val),
    /// Scalar of A for a step and a row.
    pub(super) a: &'t dyn Fn(&mut Builder, Val, usize) -> Val,
    /// Vector of B for a step and a vector.
    pub(super) b: &'t dyn Fn(&mut Builder, Val, usize) -> Val,
}

impl Tile<'_> {
    /// Emits the sum; `init` gives the first value of each (row, vector), zero if absent. The sums come back row by row.
    pub(super) fn emit(&self, b: &mut Builder, init: Option<Vec<Val>>) -> Vec<Val> {
        let ty = Ty::vec(self.elem, self.lanes);
        let zero = b.zero(ty);
        let init = init.unwrap_or_else(|| vec![zero; self.rows * self.nv]);
        b.for_(self.k.0, self.k.1, 1, &init, |b, k, acc| {
            let bs: Vec<Val> = (0..self.nv).map(|v| (self.b)(b, k, v)).collect();
            let mut next = Vec::with_capacity(acc.len());
            for r in 0..self.rows {
                let a = (self.a)(b, k, r);
                let a = b.splat(a, self.lanes);
                for (v, bv) in bs.iter().enumerate() {
                    let sum = acc[r * self.nv + v];
                    next.push(if self.elem.is_float() {
                        b.fma(a, *bv, sum)
                    } else {
                        let p = b.mul(a, *bv);
                        b.add(sum, p)
                    });
                }
            }
            next
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_fit_the_registers() {
        let wide = TargetSpec::x86_64_v4();
        assert_eq!([1, 2, 3, 4].map(|nv| max_rows(&wide, nv)), [12, 12, 9, 6]);
        let narrow = TargetSpec::x86_64_v3();
        assert_eq!([1, 2, 3].map(|nv| max_rows(&narrow, nv)), [6, 6, 4]);
        assert_eq!(balanced(16, 12), [8, 8]);
        assert_eq!(balanced(17, 8), [6, 6, 5]);
        assert_eq!(balanced(0, 8), Vec::<usize>::new());
    }
}
