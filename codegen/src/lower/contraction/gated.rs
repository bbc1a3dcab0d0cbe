//! Products of few rows that leave out inputs near zero.
//!
//! One kernel looks at the inputs and lists, for each row, the blocks that are not all zero, with their elements one behind the other. The
//! product then walks that list: a unit of the parallel axis is a strip of columns, whose sums stay in registers, and the weights of a block
//! lie together. What takes time is reading weights, so an input that is left out should save several lines of the cache in a row: strips
//! are as wide as the sums in registers allow.

use super::epilogue::{Epilogue, Place};
use super::matmul::{self, Operands, widest};
use super::operands::pack_blocks;
use super::{div_up, f32_bytes};
use crate::kernel::{Buf, Builder, CmpOp, Elem, Ty, Val};
use crate::lower::cx::{LowerCx, Opnd};
use crate::lower::elem::load;
use crate::lower::launch::Launch;
use crate::lower::nest::span;
use planish_ir::op::gated_matmul::GatedMatMul;
use planish_ir::op::matmul::MatMul;
use planish_ir::{DType, Diag, Dim};
use planish_rt::plan::{self, BinOp, Step};

/// Blocks of the list that lie between the one at work and the one whose weights are read ahead.
const AHEAD: i64 = 4;
/// Elements of a line of the cache.
const LINE: i64 = 16;

/// Sums of a tile, at least: with fewer a multiplication would wait for the one before.
const CHAINS: usize = 8;

pub(in crate::lower) fn lower_gated_matmul(cx: &mut LowerCx<'_>, op: &GatedMatMul) -> Result<(), Diag> {
    let (operands, e) = Operands::of(cx)?;
    emit(cx, op, operands, e)
}

/// Emits a product with what follows it.
pub(super) fn emit(cx: &mut LowerCx<'_>, op: &GatedMatMul, o: Operands, e: Epilogue) -> Result<(), Diag> {
    let rank = o.a.dims.len();
    let kb = &o.b[usize::from(op.trans_b)];
    cx.require_equal(&o.a.dims[rank - 1], kb, "the inner dims of a matrix product differ");
    let rows = Dim::product(&o.a.dims[..rank - 1]);
    let most = GatedMatMul::FEW_ROWS as i64;
    if let Some(known) = rows.as_const() {
        return if known <= most { few_rows(cx, op, &o, e) } else { many_rows(cx, op, o, e) };
    }
    let outs: Vec<_> = e.outs.iter().map(|y| y.slot).collect();
    let (count, most) = (cx.expr(&rows), cx.pool.constant(most));
    let cond = plan::Value::Expr(cx.pool.bin(BinOp::Le, count, most));
    let start = cx.now();
    let then_ = cx.block(|cx| few_rows(cx, op, &o, e.clone()))?;
    let else_ = cx.block(|cx| many_rows(cx, op, o, e))?;
    cx.step(Step::If { cond, then_, else_ });
    outs.into_iter().for_each(|y| cx.keep_since(y, start));
    cx.extend_over_loop(start + 1);
    Ok(())
}

/// Whether an element counts as zero.
fn near_zero(b: &mut Builder, v: Val, bound: f32) -> Val {
    let size = b.fabs(v);
    let ty = b.ty(v);
    let bound = b.float(ty, f64::from(bound));
    b.cmp(CmpOp::FLt, size, bound)
}

/// All blocks: the inputs that count as zero are put to zero, and the product is a plain one.
fn many_rows(cx: &mut LowerCx<'_>, op: &GatedMatMul, mut o: Operands, e: Epilogue) -> Result<(), Diag> {
    let rank = o.a.dims.len();
    let (rows, k) = (Dim::product(&o.a.dims[..rank - 1]), o.a.dims[rank - 1].clone());
    let bound = op.bound();
    if bound > 0.0 {
        let xs = cx.temp(DType::F32, &o.a.dims);
        let (n, chunk) = (xs.elems(), cx.chunk());
        let l = Launch::new("gated_zero").read(&o.a).write(&xs).dim(&n);
        cx.launch(l.extent(n.ceil_div(&chunk.into())).cost(chunk), move |kc| {
            let (x, y, n) = (kc.buf(0), kc.buf(1), kc.dim(0));
            let lanes = kc.lanes(Elem::F32);
            kc.b.parallel_for(|b, unit| {
                let (lo, hi) = span(b, unit, chunk, n);
                b.for_lanes(lo, hi, lanes, |b, i, mask| {
                    let v = load(b, DType::F32, x, i, lanes, mask);
                    let near = near_zero(b, v, bound);
                    let zero = b.zero(Ty::vec(Elem::F32, lanes));
                    let v = b.select(near, zero, v);
                    b.store_opt(y, i, v, mask);
                });
            });
        })?;
        o.a = xs;
    }
    cx.count("gate.blocks", &rows.mul(&k.ceil_div(&Dim::from(op.block))));
    matmul::emit(cx, &MatMul { trans_a: false, trans_b: op.trans_b }, o, e)
}

/// Columns of a strip: the widest size that pads little.
fn strip_width(n: i64) -> i64 {
    let least = div_up(n, 16) * 16;
    let fits = |w: &i64| div_up(n, *w) * w * 16 <= least * 17;
    [256, 128, 64, 48, 32].into_iter().find(fits).unwrap_or(16)
}

/// What the kernel that looks at the inputs leaves for the product.
struct Listed {
    /// For each row, the blocks that are not all zero.
    index: Opnd,
    /// Their elements.
    values: Opnd,
    /// How many there are of each row.
    counts: Opnd,
}

/// Sizes of a product of few rows.
#[derive(Clone, Copy)]
struct Sizes {
    k: i64,
    n: i64,
    /// Inputs of a block.
    block: i64,
    /// Blocks of a row.
    blocks: i64,
    /// Columns of a strip.
    width: i64,
}

fn few_rows(cx: &mut LowerCx<'_>, op: &GatedMatMul, o: &Operands, mut e: Epilogue) -> Result<(), Diag> {
    let sides: Option<Vec<i64>> = o.b.iter().map(Dim::as_const).collect();
    let (Some(sides), Some(_)) = (sides, cx.constant(o.b_value)) else {
        return Err(Diag::unsupported("gated products with weights that are no constant"));
    };
    let (k, n) = if op.trans_b { (sides[1], sides[0]) } else { (sides[0], sides[1]) };
    let block = op.block as i64;
    let s = Sizes { k, n, block, blocks: div_up(k, block), width: strip_width(n) };
    let values = cx.f32_constant(o.b_value)?.unwrap_or_default();
    let packed = if values.is_empty() {
        Vec::new()
    } else {
        pack_blocks(&values, (k, n), op.trans_b, s.width, s.blocks * block)
    };
    let w = cx.weight(DType::F32, &[Dim::from(packed.len())], f32_bytes(&packed));
    let rows = Dim::product(&o.a.dims[..o.a.dims.len() - 1]);
    let listed = list(cx, &o.a, &rows, s, op.bound())?;
    let known = rows.as_const();
    let l = Launch::new("matmul_gated").read(&listed.index).read(&listed.values).read(&listed.counts);
    let l = e.bufs(l.read(&w), 4).dim(&rows);
    // On a GPU a column is a thread's.
    let per_unit = if cx.simt() { 1 } else { s.width };
    let cost = rows.mul(&Dim::from(div_up(k * per_unit, 16).max(1)));
    cx.launch(l.extent(Dim::Const(div_up(n, per_unit))).cost(cost), move |kc| {
        let epi = e.handles(kc);
        let lanes = kc.lanes(Elem::F32).min(16);
        let per_strip = (per_unit / i64::from(lanes)).max(1) as usize;
        let nv = widest(kc.target, 1, per_strip);
        let m = kc.dim(0);
        let bufs = [kc.buf(0), kc.buf(1), kc.buf(2), kc.buf(3)];
        let job = Job { bufs, s, lanes, nv, e: &e, epi: &epi };
        kc.b.parallel_for(|b, unit| {
            let first = b.mul(unit, per_unit);
            let (strip, inside) = b.div_rem(first, s.width);
            let from = b.mul(strip, s.blocks * s.block * s.width);
            let from = b.add(from, inside);
            let step = nv as i64 * i64::from(lanes);
            let row = |b: &mut Builder, r: Val| {
                b.loop_(0, per_unit, step, |b, c| {
                    let (from, col) = (b.add(from, c), b.add(first, c));
                    job.tile(b, r, from, col);
                });
            };
            match known {
                Some(known) => (0..known).for_each(|r| {
                    let r = b.i64(r);
                    row(b, r);
                }),
                None => b.loop_(0, m, 1, row),
            }
        });
    })
}

/// Lists the blocks that are not all zero, and counts them.
fn list(cx: &mut LowerCx<'_>, x: &Opnd, rows: &Dim, s: Sizes, bound: f32) -> Result<Listed, Diag> {
    let index = cx.temp(DType::I32, &[rows.clone(), s.blocks.into()]);
    let values = cx.temp(DType::F32, &[rows.clone(), (s.blocks * s.block).into()]);
    let counts = cx.temp(DType::I64, std::slice::from_ref(rows));
    let totals = cx.temp(DType::I64, &[Dim::Const(2)]);
    let l = Launch::new("gated_list").read(x).write(&index).write(&values).write(&counts).write(&totals);
    cx.launch(l.dim(rows), move |kc| {
        let [x, index, values, counts, totals] = [0, 1, 2, 3, 4].map(|i| kc.buf(i));
        let m = kc.dim(0);
        kc.b.parallel_for(|b, _| {
            let zero = b.i64(0);
            let all = b.for_(0, m, 1, &[zero], |b, r, total| {
                let (from, at) = (b.mul(r, s.k), b.mul(r, s.blocks));
                let found = b.for_(0, s.blocks, 1, &[zero], |b, i, now| {
                    let to = b.add(at, now[0]);
                    let number = b.trunc(i, Elem::I32);
                    b.store(index, to, number);
                    let first = b.mul(i, s.block);
                    let to = b.mul(to, s.block);
                    let none = b.int(Ty::BOOL, 0);
                    let some = b.for_(0, s.block, 1, &[none], |b, j, some| {
                        let at = b.add(first, j);
                        let v = element(b, x, (from, at), s, bound);
                        let to = b.add(to, j);
                        b.store(values, to, v);
                        let is = b.cmp(CmpOp::FNe, v, 0.0);
                        vec![b.or(some[0], is)]
                    });
                    let one = b.select(some[0], 1, 0);
                    vec![b.add(now[0], one)]
                });
                b.store(counts, r, found[0]);
                vec![b.add(total[0], found[0])]
            });
            let blocks = b.mul(m, s.blocks);
            let rest = b.sub(blocks, all[0]);
            b.store(totals, 0, all[0]);
            b.store(totals, 1, rest);
        });
    })?;
    for (i, counter) in ["gate.blocks", "gate.skipped-blocks"].into_iter().enumerate() {
        let at = cx.view(&totals, DType::I64, &[], &Dim::from(8 * i));
        cx.count_value(counter, plan::Value::Slot(at));
    }
    Ok(Listed { index, values, counts })
}

/// Input `at` of the row that begins at `from`, zero where it counts as that or is beyond the last one.
fn element(b: &mut Builder, x: Buf, (from, at): (Val, Val), s: Sizes, bound: f32) -> Val {
    let read = |b: &mut Builder| {
        let at = b.add(from, at);
        let v = b.load(x, at, 1);
        let near = near_zero(b, v, bound);
        let zero = b.f32(0.0);
        vec![b.select(near, zero, v)]
    };
    if s.k % s.block == 0 {
        return read(b)[0];
    }
    let inside = b.cmp(CmpOp::Slt, at, s.k);
    b.if_(inside, read, |b| vec![b.f32(0.0)])[0]
}

/// What all tiles of a kernel share.
struct Job<'j> {
    /// Numbers, elements and counts of blocks, and the weights.
    bufs: [Buf; 4],
    s: Sizes,
    lanes: u16,
    nv: usize,
    e: &'j Epilogue,
    epi: &'j [Buf],
}

impl Job<'_> {
    /// The sums of row `r` for some vectors of columns from `col` on, whose weights begin at `from`.
    fn tile(&self, b: &mut Builder, r: Val, from: Val, col: Val) {
        let nv = self.nv;
        let count = b.load(self.bufs[2], r, 1);
        let first = b.mul(r, self.s.blocks);
        let chains = CHAINS.div_ceil(nv);
        let zero = b.zero(Ty::vec(Elem::F32, self.lanes));
        let whole = b.sdiv(count, chains as i64);
        let end = b.mul(whole, chains as i64);
        let sums = vec![zero; nv * chains];
        let last = b.sub(count, 1);
        let all = b.for_(0, end, chains as i64, &sums, |b, i, all| {
            self.read_ahead(b, (first, i), last, from);
            let mut next = Vec::with_capacity(all.len());
            for (c, sums) in (0..).zip(all.chunks(nv)) {
                let at = b.add(first, i);
                let at = b.add(at, c);
                next.extend(self.block(b, at, from, sums));
            }
            next
        });
        let mut sums = all[..nv].to_vec();
        if chains > 1 {
            sums = b.for_(end, count, 1, &sums, |b, i, sums| {
                let at = b.add(first, i);
                self.block(b, at, from, sums)
            });
        }
        for more in all[nv..].chunks(nv) {
            sums = sums.iter().zip(more).map(|(a, c)| b.fadd(*a, *c)).collect();
        }
        let line = b.mul(r, self.s.n);
        for (v, sum) in sums.into_iter().enumerate() {
            let last = b.add(col, v as i64 * i64::from(self.lanes));
            let mask = (self.s.n % self.s.width != 0 && self.lanes > 1).then(|| {
                let left = b.sub(self.s.n, last);
                b.mask_below(self.lanes, left)
            });
            let index = b.add(line, last);
            self.e.finish(b, self.epi, sum, &Place { index, channel: last, last }, mask);
        }
    }

    /// Asks for the weights of a block further on: what a processor guesses from one stretch does not hold for the next.
    fn read_ahead(&self, b: &mut Builder, (first, i): (Val, Val), last: Val, from: Val) {
        if self.lanes == 1 {
            return;
        }
        let at = b.add(i, AHEAD);
        let at = b.smin(at, last);
        let at = b.add(first, at);
        let number = b.load(self.bufs[0], at, 1);
        let number = b.sext(number, Elem::I64);
        let line = b.at(from, number, self.s.block * self.s.width);
        for c in (0..self.nv as i64 * i64::from(self.lanes)).step_by(LINE as usize) {
            let line = b.add(line, c);
            b.prefetch(self.bufs[3], line);
        }
    }

    /// Adds what the block at `at` of the lists gives.
    fn block(&self, b: &mut Builder, at: Val, from: Val, sums: &[Val]) -> Vec<Val> {
        let [index, values, _, weights] = self.bufs;
        let number = b.load(index, at, 1);
        let number = b.sext(number, Elem::I64);
        let rows = b.at(from, number, self.s.block * self.s.width);
        let elements = b.mul(at, self.s.block);
        b.for_(0, self.s.block, 1, sums, |b, i, sums| {
            let x = b.add(elements, i);
            let x = b.load(values, x, 1);
            let x = b.splat(x, self.lanes);
            let line = b.at(rows, i, self.s.width);
            (0..)
                .zip(sums)
                .map(|(v, sum)| {
                    let at = b.add(line, v * i64::from(self.lanes));
                    let w = b.load(weights, at, self.lanes);
                    b.fma(x, w, *sum)
                })
                .collect()
        })
    }
}
