//! Quantisation, its inverse, and products of stored integers.

use super::cx::{LowerCx, Opnd};
use super::elem::{self, convert, mem_elem};
use super::elementwise::emit;
use super::launch::Launch;
use super::nest::span;
use crate::kernel::{Builder, CmpOp, Elem, Opd, Ty, Val};
use planish_ir::op::normalize_axis;
use planish_ir::op::quant::{Dequantize, Quantize};
use planish_ir::{DType, Diag, Dim};

/// x, scales and zero points as operands that broadcast against each other, and the dims they broadcast to.
fn aligned(cx: &mut LowerCx<'_>, axis: i64, block: usize) -> Result<(Vec<Opnd>, Vec<Dim>), Diag> {
    let x = cx.input(0)?;
    let mut parts = vec![cx.input(1)?];
    parts.extend(cx.opt_input(2)?);
    let single = |p: &Opnd| p.dims.iter().all(|d| d.is(1));
    if block == 0 && parts.iter().all(single) {
        let mut all = vec![x.clone()];
        all.extend(parts.iter().map(|p| p.with_dims(Vec::new())));
        return Ok((all, x.dims));
    }
    let axis = normalize_axis(axis, x.dims.len())?;
    if block == 0 {
        let mut all = vec![x.clone()];
        for p in &parts {
            let mut dims = vec![Dim::Const(1); x.dims.len()];
            dims[axis] = p.dims.first().cloned().unwrap_or(Dim::Const(1));
            all.push(p.with_dims(dims));
        }
        return Ok((all, x.dims));
    }
    // Axis = blocks x block.
    let blocks = x.dims[axis].exact_div(&Dim::from(block));
    let blocks =
        blocks.ok_or_else(|| Diag::unsupported("the last block of scales is not known to be whole"))?;
    let split = |dims: &[Dim], at: [Dim; 2]| {
        let mut out = dims.to_vec();
        out.splice(axis..=axis, at);
        out
    };
    let wide = split(&x.dims, [blocks.clone(), Dim::from(block)]);
    let mut all = vec![x.with_dims(wide.clone())];
    for p in &parts {
        cx.require_dims(&p.dims, &split_scales(&x.dims, axis, &blocks), "the scales do not fit the blocks");
        all.push(p.with_dims(split(&p.dims, [blocks.clone(), Dim::Const(1)])));
    }
    Ok((all, wide))
}

/// The shape of scales of blocks along an axis.
fn split_scales(dims: &[Dim], axis: usize, blocks: &Dim) -> Vec<Dim> {
    let mut out = dims.to_vec();
    out[axis] = blocks.clone();
    out
}

/// `v` rounded to a float type that is stored narrower than it is computed.
fn rounded(b: &mut Builder, v: Val, to: DType) -> Val {
    match to {
        DType::F16 | DType::BF16 => {
            let narrow = b.fptrunc(v, mem_elem(to));
            b.fpext(narrow, Elem::F32)
        }
        _ => v,
    }
}

/// The type in which numbers of these types are dequantised or quantised.
fn wide(types: &[DType]) -> DType {
    if types.contains(&DType::F64) { DType::F64 } else { DType::F32 }
}

pub(super) fn lower_dequantize(cx: &mut LowerCx<'_>, op: &Dequantize) -> Result<(), Diag> {
    let (ins, dims) = aligned(cx, op.axis, op.block)?;
    let types: Vec<DType> = ins.iter().map(|x| x.dtype).collect();
    let y = cx.output(0)?.with_dims(dims);
    let to = y.dtype;
    // Differences of integers are exact in i32; the product is rounded once.
    let exact = types[0] == DType::I32;
    let work = if exact { DType::F64 } else { wide(&[types[1], to]) };
    emit(cx, "dequantize", &ins, &[y], 4, &|b, v| {
        let mut x = convert(b, v[0], types[0], work);
        if let Some(z) = v.get(2) {
            let z = convert(b, *z, types[2], work);
            x = b.fsub(x, z);
        }
        let s = convert(b, v[1], types[1], work);
        let y = b.fmul(x, s);
        vec![convert(b, y, work, to)]
    })
}

pub(super) fn lower_quantize(cx: &mut LowerCx<'_>, op: &Quantize) -> Result<(), Diag> {
    let (ins, dims) = aligned(cx, op.axis, op.block)?;
    let types: Vec<DType> = ins.iter().map(|x| x.dtype).collect();
    let y = cx.output(0)?.with_dims(dims);
    let (to, saturate, precision) = (op.to, op.saturate, op.precision);
    let work = wide(&[types[0], types[1], precision]);
    emit(cx, "quantize", &ins, &[y], 10, &|b, v| {
        let x = convert(b, v[0], types[0], work);
        let x = rounded(b, x, precision);
        let s = convert(b, v[1], types[1], work);
        let q = b.fdiv(x, s);
        let q = rounded(b, q, precision);
        let Some((low, high)) = to.int_range() else {
            let q = convert(b, q, work, DType::F32);
            return vec![if saturate { elem::saturate(b, to, q) } else { q }];
        };
        let nan = b.cmp(CmpOp::FNe, q, q);
        let zero = b.zero(b.ty(q));
        let q = b.select(nan, zero, q);
        let mut q = b.round_even(q);
        if let Some(z) = v.get(2) {
            let z = convert(b, *z, types[2], work);
            q = b.fadd(q, z);
        }
        let q = b.fmax(q, low as f64);
        let q = b.fmin(q, high as f64);
        let wide = b.fptosi(q, Elem::I32);
        vec![b.trunc(wide, mem_elem(to))]
    })
}

/// Rows of the first operand that share the loads of the second.
const ROWS: i64 = 4;
/// Columns of one unit of work.
const COLUMNS: i64 = 256;

/// How an operand that is broadcast over leading axes advances with the flat number of a matrix of the result.
fn matrix_offset(b: &mut Builder, lead: &[Val], own: &[Val], matrix: Val, size: Val) -> Val {
    let (mut rest, mut offset, mut stride) = (matrix, b.i64(0), size);
    for (axis, n) in lead.iter().enumerate().rev() {
        let (q, i) = b.div_rem(rest, *n);
        rest = q;
        if let Some(k) = (axis + own.len()).checked_sub(lead.len()) {
            let single = b.cmp(CmpOp::Eq, own[k], 1);
            let step = b.select(single, 0, stride);
            offset = b.at(offset, i, step);
            stride = b.mul(stride, own[k]);
        }
    }
    offset
}

/// i8 or u8 as i32.
fn widen(b: &mut Builder, d: DType, v: Val) -> Val {
    if d == DType::U8 { b.zext(v, Elem::I32) } else { b.sext(v, Elem::I32) }
}

pub(super) fn lower_matmul_integer(cx: &mut LowerCx<'_>) -> Result<(), Diag> {
    let (a, w) = (cx.input(0)?, cx.input(1)?);
    let zeros = [cx.opt_input(2)?, cx.opt_input(3)?];
    let y = cx.output(0)?;
    let rank = y.dims.len();
    let (m, n) = (y.dims[rank - 2].clone(), y.dims[rank - 1].clone());
    let k = a.dims[a.dims.len() - 1].clone();
    let lead = y.dims[..rank - 2].to_vec();
    cx.require_equal(&k, &w.dims[w.dims.len() - 2], "the inner sizes of a product differ");
    cx.require_broadcast(&a.dims[..a.dims.len() - 2], &lead);
    cx.require_broadcast(&w.dims[..w.dims.len() - 2], &lead);
    for (i, z) in zeros.iter().enumerate().filter_map(|(i, z)| Some((i, z.as_ref()?))) {
        let what = "there must be one zero point, or one for each row or column";
        let at = z.dims.len().checked_sub(if i == 0 { 2 } else { 1 });
        match at.map(|at| &z.dims[at]).filter(|d| !d.is(1)) {
            Some(d) => cx.require_equal(d, if i == 0 { &m } else { &n }, what),
            None => cx.require_equal(&Dim::product(&z.dims[at.unwrap_or(0)..]), &1.into(), what),
        }
        cx.require_broadcast(&z.dims[..z.dims.len().saturating_sub(2)], &lead);
    }
    let (row_blocks, column_blocks) = (m.ceil_div(&ROWS.into()), n.ceil_div(&COLUMNS.into()));
    let units = Dim::product(&lead).mul(&row_blocks).mul(&column_blocks);
    let work = k.mul(&n.smaller(&COLUMNS.into())).mul(&ROWS.into()).floor_div(&Dim::Const(8));
    let flops = Dim::product(&y.dims).mul(&k).mul(&2.into());
    let mut l =
        Launch::new("matmul_integer").read(&a).read(&w).write(&y).extent(units).cost(work).flops(flops);
    for z in zeros.iter().flatten() {
        l = l.read(z);
    }
    // Dims: sizes, then the leading dims of the result and of every operand, zero points padded to full rank.
    l = l.dim(&m).dim(&n).dim(&k).dim(&row_blocks).dim(&column_blocks).dims(&lead);
    let lead_of = |x: &Opnd| x.dims[..x.dims.len().saturating_sub(2)].to_vec();
    l = l.dims(&lead_of(&a)).dims(&lead_of(&w));
    // A zero point is one for all, or varies along the rows (columns) with leading axes of its own.
    let varies: Vec<bool> = zeros
        .iter()
        .enumerate()
        .map(|(i, z)| {
            z.as_ref().is_some_and(|z| {
                let at = if i == 0 { z.dims.len().checked_sub(2) } else { z.dims.len().checked_sub(1) };
                at.is_some_and(|at| !z.dims[at].is(1))
            })
        })
        .collect();
    for z in zeros.iter().flatten() {
        l = l.dims(&lead_of(z));
    }
    let counts = [lead.len(), lead_of(&a).len(), lead_of(&w).len()];
    let zero_counts: Vec<usize> = zeros.iter().map(|z| z.as_ref().map_or(0, |z| lead_of(z).len())).collect();
    let (da, dw) = (a.dtype, w.dtype);
    let given: Vec<bool> = zeros.iter().map(Option::is_some).collect();
    cx.launch(l, |kc| {
        let lanes = kc.lanes(Elem::I32);
        let (a, w, y) = (kc.buf(0), kc.buf(1), kc.buf(2));
        let za = given[0].then(|| kc.buf(3));
        let zb = given[1].then(|| kc.buf(3 + usize::from(given[0])));
        let (m, n, k, row_blocks, column_blocks) = (kc.dim(0), kc.dim(1), kc.dim(2), kc.dim(3), kc.dim(4));
        let mut at = 5;
        let mut take = |count: usize| {
            at += count;
            kc.dims(at - count, count)
        };
        let (lead, lead_a, lead_w) = (take(counts[0]), take(counts[1]), take(counts[2]));
        let (lead_za, lead_zb) = (take(zero_counts[0]), take(zero_counts[1]));
        let b = &mut kc.b;
        b.parallel_for(|b, unit| {
            let (q, column_block) = b.div_rem(unit, column_blocks);
            let (matrix, row_block) = b.div_rem(q, row_blocks);
            let (mk, kn) = (b.mul(m, k), b.mul(k, n));
            let off_a = matrix_offset(b, &lead, &lead_a, matrix, mk);
            let off_w = matrix_offset(b, &lead, &lead_w, matrix, kn);
            let one = b.i64(1);
            let off_za = matrix_offset(b, &lead, &lead_za, matrix, if varies[0] { m } else { one });
            let off_zb = matrix_offset(b, &lead, &lead_zb, matrix, if varies[1] { n } else { one });
            let row = b.mul(row_block, ROWS);
            let last = b.sub(m, 1);
            // Rows beyond the last are computed as the last one again.
            let rows: Vec<Val> = (0..ROWS)
                .map(|r| {
                    let r = b.add(row, r);
                    b.smin(r, last)
                })
                .collect();
            let starts: Vec<Val> = rows.iter().map(|r| b.at(off_a, *r, k)).collect();
            let row_zeros: Option<Vec<Val>> = za.map(|za| {
                let load = |b: &mut Builder, r: &Val| {
                    let at = if varies[0] { b.add(off_za, *r) } else { off_za };
                    let z = b.load(za, at, 1);
                    widen(b, da, z)
                };
                rows.iter().map(|r| load(b, r)).collect()
            });
            let base = b.mul(matrix, m);
            let (lo, hi) = span(b, column_block, COLUMNS, n);
            b.for_lanes(lo, hi, lanes, |b, j, mask| {
                let column_zero = zb.map(|zb| {
                    let z = if varies[1] {
                        let at = b.add(off_zb, j);
                        b.load_opt(zb, at, lanes, mask)
                    } else {
                        let z = b.load(zb, off_zb, 1);
                        b.splat(z, lanes)
                    };
                    widen(b, dw, z)
                });
                let zero = b.zero(Ty::vec(Elem::I32, lanes));
                let sums = b.for_(0, k, 1, &[zero; ROWS as usize], |b, t, sums| {
                    let at = b.at(off_w, t, n);
                    let at = b.add(at, j);
                    let v = b.load_opt(w, at, lanes, mask);
                    let mut v = widen(b, dw, v);
                    if let Some(z) = column_zero {
                        v = b.sub(v, z);
                    }
                    let mut next = Vec::with_capacity(sums.len());
                    for (i, s) in sums.iter().enumerate() {
                        let at = b.add(starts[i], t);
                        let x = b.load(a, at, 1);
                        let mut x = widen(b, da, x);
                        if let Some(z) = &row_zeros {
                            x = b.sub(x, z[i]);
                        }
                        let x = b.splat(x, lanes);
                        let p = b.mul(x, v);
                        next.push(b.add(*s, p));
                    }
                    next
                });
                for (r, s) in rows.iter().zip(sums) {
                    let at = b.add(base, *r);
                    let at = b.at(j, at, n);
                    b.store_opt(y, Opd::from(at), s, mask);
                }
            });
        });
    })
}
