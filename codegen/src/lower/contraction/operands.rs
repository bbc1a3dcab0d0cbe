//! Operands of matrix products, in the order in which tiles read them.
//!
//! A tile that reads each of its rows and columns as a stream of its own asks more of the cache than prefetching follows, and
//! a matrix whose rows are longer than a page costs a translation of the address in every step. So large products read both sides as one
//! stream each: [groups of rows](grouped), copied once for all columns, and [panels of columns](Panel), copied once for many rows.

use super::div_up;
use crate::kernel::{Buf, Builder, CmpOp, Elem, TargetSpec, Val};
use crate::lower::cx::{LowerCx, Opnd};
use crate::lower::elem::{load, store};
use crate::lower::launch::{KernelCx, Launch};
use crate::lower::layout;
use planish_ir::{DType, Diag, Dim};

/// Elements behind a group: vectors with more lanes than a group has rows are written beyond its end.
const SLACK: i64 = 8;
/// Columns that a panel may have.
const PANELS: [i64; 6] = [240, 144, 96, 48, 32, 16];
/// Elements of a panel, at most: 256 KB, half of the second level of the cache of most processors.
const NEAR: i64 = 64 << 10;

/// A matrix in blocks of `width` columns, each with the rows one behind the other: `k` of them, filled up with zeros to `rows`.
pub(super) fn pack_blocks(
    v: &[f32],
    (k, n): (i64, i64),
    transposed: bool,
    width: i64,
    rows: i64,
) -> Vec<f32> {
    let mut packed = vec![0f32; (div_up(n, width) * rows * width) as usize];
    for j in 0..n {
        let (block, c) = (j / width, j % width);
        for i in 0..k {
            let from = if transposed { j * k + i } else { i * n + j };
            packed[((block * rows + i) * width + c) as usize] = v[from as usize];
        }
    }
    packed
}

/// Rows of a group: those of a tile. All targets of a program have the same; none where copying has not been measured.
pub(super) fn group_rows(targets: &[TargetSpec]) -> Option<i64> {
    let few = targets.iter().any(|t| t.registers < 32);
    let wide = targets.iter().all(|t| t.features.avx512);
    if few { Some(6) } else { wide.then_some(8) }
}

/// Matrices of `m` rows and `k` columns in groups of `rows` rows.
#[derive(Clone, Copy)]
pub(super) struct Groups {
    pub(super) m: i64,
    pub(super) k: i64,
    pub(super) rows: i64,
}

impl Groups {
    fn count(self) -> i64 {
        div_up(self.m, self.rows)
    }
    /// Elements of one group.
    pub(super) fn each(self) -> i64 {
        self.k * self.rows + SLACK
    }
    /// Elements of a matrix.
    pub(super) fn size(self) -> i64 {
        self.count() * self.each()
    }
}

/// Matrices of f32 in groups of rows, `[matrix][group][k][row]`, each group followed by room for what vectors
/// write beyond it. What stands for rows beyond `m` is any number. Each matrix is `[m, k]`, or `[k, m]` if `trans`.
pub(super) fn grouped(
    cx: &mut LowerCx<'_>,
    x: &Opnd,
    matrices: &Dim,
    groups: Groups,
    trans: bool,
) -> Result<Opnd, Diag> {
    let y = cx.temp(DType::F32, &[matrices.mul(&groups.size().into())]);
    let Groups { m, k, rows } = groups;
    let l = Launch::new("pack_rows").read(x).write(&y);
    cx.launch(l.extent(matrices.mul(&groups.count().into())).cost(2 * k), move |kc| {
        let lanes = kc.lanes(Elem::F32).min(8);
        let (x, y) = (kc.buf(0), kc.buf(1));
        kc.b.parallel_for(|b, unit| {
            let (matrix, group) = b.div_rem(unit, groups.count());
            let from = b.mul(matrix, m * k);
            let row = b.mul(group, rows);
            let to = b.mul(unit, groups.each());
            if trans {
                let from = b.add(from, row);
                let left = b.sub(m, row);
                // The last part first: what it writes beyond a group is the first part of the next step.
                let wide = i64::from(lanes);
                for part in (0..div_up(rows, wide)).rev().map(|i| i * wide) {
                    let left = b.sub(left, part);
                    let mask = b.mask_below(lanes, left);
                    let (from, to) = (b.add(from, part), b.add(to, part));
                    strip(b, (x, from, m), (y, to, rows), k, mask);
                }
            } else {
                let lines = (0..rows).map(|i| {
                    let row = b.add(row, i);
                    let row = b.smin(row, m - 1);
                    b.at(from, row, k)
                });
                let lines: Vec<Val> = lines.collect();
                interleave(b, (x, &lines), (y, to, rows), k, lanes);
            }
        });
    })?;
    Ok(y)
}

/// Copies a vector from each of `k` lines, which begin so many elements from one another on either side; nothing is read beyond `mask`.
fn strip(
    b: &mut Builder,
    (x, from, pitch): (Buf, Val, i64),
    (y, to, apart): (Buf, Val, i64),
    k: i64,
    mask: Val,
) {
    let lanes = b.ty(mask).lanes;
    b.loop_(0, k, 1, |b, step| {
        let at = b.at(from, step, pitch);
        let v = b.load_opt(x, at, lanes, Some(mask));
        let at = b.at(to, step, apart);
        b.store(y, at, v);
    });
}

/// Copies `k` elements of each of some lines so that those of one step are neighbours, and steps `apart` elements from one another: in squares of
/// `lanes`, which may be written beyond the last line.
fn interleave(
    b: &mut Builder,
    (x, lines): (Buf, &[Val]),
    (y, to, apart): (Buf, Val, i64),
    k: i64,
    lanes: u16,
) {
    let wide = i64::from(lanes);
    let whole = k / wide * wide;
    b.loop_(0, whole, wide, |b, step| {
        let mut squares = Vec::new();
        for part in lines.chunks(usize::from(lanes)) {
            let mut square: Vec<Val> = Vec::new();
            for line in part {
                let at = b.add(*line, step);
                square.push(b.load(x, at, lanes));
            }
            square.resize(usize::from(lanes), square[0]);
            squares.push(layout::transposed(b, square));
        }
        // In ascending order: the next vector writes over what is too much.
        for i in 0..lanes {
            let step = b.add(step, i64::from(i));
            let at = b.at(to, step, apart);
            for (part, square) in (0..).zip(&squares) {
                let at = b.add(at, part * wide);
                b.store(y, at, square[usize::from(i)]);
            }
        }
    });
    b.loop_(whole, k, 1, |b, step| {
        let to = b.at(to, step, apart);
        for (i, line) in (0..).zip(lines) {
            let at = b.add(*line, step);
            let v = b.load(x, at, 1);
            let to = b.add(to, i);
            b.store(y, to, v);
        }
    });
}

/// Some columns of a matrix, copied to where a tile reads them as one stream: `[columns / piece][k][piece]`.
#[derive(Clone, Copy)]
pub(super) struct Panel {
    buf: Buf,
    k: i64,
    /// Columns of a tile.
    piece: i64,
}

/// Columns of panels of matrices with `k` rows; none where not even the least panel stays near.
pub(super) fn panel_width(k: i64) -> Option<i64> {
    PANELS.into_iter().find(|w| w * k <= NEAR)
}

impl Panel {
    /// A panel of `width` columns.
    pub(super) fn new(kc: &mut KernelCx<'_>, k: i64, width: i64, piece: i64) -> Panel {
        Panel { buf: kc.b.local("panel", Elem::F32, (k * width) as u32), k, piece }
    }

    /// Where column `col` begins.
    pub(super) fn at(&self, b: &mut Builder, col: Val) -> Val {
        let (piece, within) = b.div_rem(col, self.piece);
        b.at(within, piece, self.piece * self.k)
    }

    /// Loads `lanes` neighbours of row `step`, from a column that begins at `from`; they lie in one piece.
    pub(super) fn load(&self, b: &mut Builder, from: Val, step: Val, lanes: u16) -> Val {
        let at = b.at(from, step, self.piece);
        b.load(self.buf, at, lanes)
    }

    /// Copies the `columns` first columns of a matrix whose rows are `n` elements from one another and the first of which begins at
    /// element `from`. Lanes beyond the last column get any number.
    pub(super) fn fill(
        &self,
        b: &mut Builder,
        (x, from): (Buf, Val),
        n: i64,
        columns: Val,
        (width, lanes): (i64, u16),
    ) {
        let wide = i64::from(lanes);
        let whole = b.cmp(CmpOp::Eq, columns, width);
        b.if_(
            whole,
            |b| {
                b.loop_(0, self.k, 1, |b, step| {
                    let line = b.at(from, step, n);
                    let first = b.mul(step, self.piece);
                    b.loop_(0, width, self.piece, |b, col| {
                        let to = b.at(first, col, self.k);
                        for part in (0..self.piece).step_by(usize::from(lanes)) {
                            let at = b.add(line, col);
                            let at = b.add(at, part);
                            let v = b.load(x, at, lanes);
                            let to = b.add(to, part);
                            b.store(self.buf, to, v);
                        }
                    });
                });
                vec![]
            },
            |b| {
                b.loop_(0, columns, wide, |b, col| {
                    let left = b.sub(columns, col);
                    let mask = b.mask_below(lanes, left);
                    let first = self.at(b, col);
                    let from = b.add(from, col);
                    strip(b, (x, from, n), (self.buf, first, self.piece), self.k, mask);
                });
                vec![]
            },
        );
    }

    /// [`Panel::fill`] from a matrix whose columns lie one behind the other.
    pub(super) fn fill_transposed(&self, b: &mut Builder, (x, from): (Buf, Val), columns: Val, lanes: u16) {
        let wide = i64::from(lanes);
        let last = b.sub(columns, 1);
        b.loop_(0, columns, wide, |b, col| {
            let lines: Vec<Val> = (0..wide)
                .map(|i| {
                    let col = b.add(col, i);
                    let col = b.smin(col, last);
                    b.at(from, col, self.k)
                })
                .collect();
            let first = self.at(b, col);
            interleave(b, (x, &lines), (self.buf, first, self.piece), self.k, lanes);
        });
    }
}

/// Columns that a unit of a transposition takes.
const STRIP: i64 = 16;

/// The operand with its last two axes swapped, in memory of its own.
pub(super) fn transposed(cx: &mut LowerCx<'_>, x: &Opnd) -> Result<Opnd, Diag> {
    let rank = x.dims.len();
    let mut dims = x.dims.clone();
    dims.swap(rank - 1, rank - 2);
    let y = cx.temp(x.dtype, &dims);
    let (rows, cols) = (x.dims[rank - 2].clone(), x.dims[rank - 1].clone());
    let batches = Dim::product(&x.dims[..rank - 2]);
    let strips = cols.ceil_div(&STRIP.into());
    let l = Launch::new("transpose").read(x).write(&y).dim(&rows).dim(&cols).dim(&strips);
    let l = l.extent(batches.mul(&strips)).cost(rows.clone());
    let d = x.dtype;
    cx.launch(l, move |k| {
        let lanes = i64::from(k.lanes(Elem::F32)).min(STRIP);
        let (x, y, rows, cols, strips) = (k.buf(0), k.buf(1), k.dim(0), k.dim(1), k.dim(2));
        k.b.parallel_for(|b, unit| {
            let (batch, strip) = b.div_rem(unit, strips);
            let size = b.mul(rows, cols);
            let first = b.mul(batch, size);
            let c0 = b.mul(strip, STRIP);
            let end = b.add(c0, STRIP);
            let end = b.smin(end, cols);
            // Squares of a vector each, as far as they go.
            let (mut row, mut col) = (b.i64(0), c0);
            if d == DType::F32 && lanes > 1 {
                let whole = b.sdiv(rows, lanes);
                row = b.mul(whole, lanes);
                let width = b.sub(end, c0);
                let whole = b.sdiv(width, lanes);
                col = b.at(c0, whole, lanes);
                b.loop_(0, row, lanes, |b, r| {
                    b.loop_(c0, col, lanes, |b, c| {
                        let square = (0..lanes).map(|i| {
                            let r = b.add(r, i);
                            let at = b.at(first, r, cols);
                            let at = b.add(at, c);
                            b.load(x, at, lanes as u16)
                        });
                        let square = square.collect();
                        for (i, v) in (0..).zip(layout::transposed(b, square)) {
                            let c = b.add(c, i);
                            let at = b.at(first, c, rows);
                            let at = b.add(at, r);
                            b.store(y, at, v);
                        }
                    });
                });
            }
            let single = |b: &mut Builder, r: Val, c: Val| {
                let at = b.at(first, r, cols);
                let at = b.add(at, c);
                let v = load(b, d, x, at, 1, None);
                let at = b.at(first, c, rows);
                let at = b.add(at, r);
                store(b, d, y, at, v, None);
            };
            // Rows beyond the squares, then columns beyond them.
            b.loop_(c0, end, 1, |b, c| b.loop_(row, rows, 1, |b, r| single(b, r, c)));
            b.loop_(col, end, 1, |b, c| b.loop_(0, row, 1, |b, r| single(b, r, c)));
        });
    })?;
    Ok(y)
}
