//! Gates that route rows to experts.

use super::stacked::Expert;
use super::{bind_rows, given};
use crate::kernel::{Builder, CmpOp, Elem, Ty, Val};
use crate::lower::control::{known_symbols, operands, own_symbol};
use crate::lower::cx::{LowerCx, Opnd};
use crate::lower::elem::{compute_elem, convert, load, store};
use crate::lower::indexing::gather_rows;
use crate::lower::launch::Launch;
use crate::lower::nest::{fill, span, zero};
use planish_ir::op::control::Gate;
use planish_ir::{DType, Diag, Dim};
use planish_rt::plan::{self, Step};

/// Rows by expert: only experts that have rows are listed, in ascending order.
struct Routes {
    /// How many experts are listed.
    used: Opnd,
    /// For each of them its number, how many rows it has, and where they begin in `rows`.
    experts: Opnd,
    sizes: Opnd,
    starts: Opnd,
    /// Rows, expert by expert.
    rows: Opnd,
}

pub(super) fn lower(cx: &mut LowerCx<'_>, op: &Gate) -> Result<(), Diag> {
    let known = known_symbols(cx);
    let (w, x) = (cx.input(0)?, cx.input(1)?);
    let captures = operands(cx, 2)?;
    let r = cx.node().regions[0];
    let n = x.dims[0].clone();
    cx.require_equal(&w.dims[0], &n, "there are weights for another number of rows");
    let (d, dims) = cx.output_type(0)?;
    if !d.is_float() {
        return Err(Diag::unsupported(format!("results of experts of type {d}")));
    }
    if dims.iter().any(|o| own_symbol(cx, &known, o).is_some()) {
        return Err(Diag::unsupported("experts whose results have dims that only data tell"));
    }
    let routes = route(cx, &w, &n, op.k as i64)?;
    let y = cx.output(0)?;
    // Results narrower than f32 are summed before they are rounded.
    let sum_type = if d == DType::F64 { DType::F64 } else { DType::F32 };
    let sums = if d == sum_type { y.clone() } else { cx.temp(sum_type, &y.dims) };
    let nothing = zero(cx, sum_type);
    fill(cx, &nothing, &sums)?;
    let first = cx.now() + 1;
    let (index, iter) = cx.plan_symbol("x");
    let (number, expert) = cx.plan_symbol("e");
    let (begin, start) = cx.plan_symbol("b");
    let [param, taken] = [0, 1].map(|i| cx.graph.region(r).params[i]);
    let mut rows = None;
    let (body, made) = cx.region_after(r, |cx| {
        let at = |cx: &mut LowerCx<'_>, list: &Opnd| {
            let slot = cx.view(list, DType::I64, &[], &index.mul(&8.into()));
            Opnd { slot, dtype: DType::I64, dims: Vec::new() }
        };
        let e = at(cx, &routes.experts);
        let error = cx.error("an expert is out of range");
        let none = cx.expr(&Dim::Const(0));
        for (sym, list, most) in
            [(expert, &e, &w.dims[1]), (start, &at(cx, &routes.starts), &routes.rows.dims[0])]
        {
            let max = cx.expr(most);
            cx.step(Step::Bind { sym, slot: list.slot, index: 0, min: none, max, error });
        }
        let size = at(cx, &routes.sizes);
        let count = bind_rows(cx, &known, (r, 1, 0), (&size, 0), &n)?;
        let list = cx.view(&routes.rows, DType::I64, std::slice::from_ref(&count), &begin.mul(&8.into()));
        let list = Opnd { slot: list, dtype: DType::I64, dims: vec![count.clone()] };
        let mut dims = x.dims.clone();
        dims[0].clone_from(&count);
        let (dtype, _) = cx.tensor_type(taken)?;
        let xs = cx.temp(dtype, &dims);
        gather_rows(cx, &x, &list, &xs, 0)?;
        rows = Some((list, count));
        cx.experts.insert(param, Expert { number: number.clone(), experts: w.dims[1].clone() });
        Ok([&[e.slot, xs.slot], captures.as_slice()].concat())
    })?;
    let (list, count) = rows.ok_or_else(|| Diag::error("internal-lower", "a gate without rows"))?;
    let made = given(cx, r, made[0])?;
    cx.append_to(body, |cx| {
        for (i, (o, m)) in y.dims.iter().zip(&made.dims).enumerate() {
            let want = if i == 0 { &count } else { o };
            cx.require_equal(m, want, "an expert gives a result of another shape");
        }
        add(cx, &w, &list, &made, &sums, &number)?;
        cx.count("gate.regions", &Dim::Const(1));
        cx.count("gate.rows", &count);
        Ok(())
    })?;
    let step = plan::Loop {
        trip: Some(plan::Value::Slot(routes.used.slot)),
        cond: None,
        iter: None,
        iter_sym: Some(iter),
        body,
        body_cond: None,
        carried: Vec::new(),
        scans: Vec::new(),
        count_sym: None,
    };
    cx.step(Step::Loop(Box::new(step)));
    cx.extend_over_loop(first);
    if d != sum_type {
        round(cx, &sums, &y)?;
    }
    Ok(())
}

/// A number whose order as an integer is the total order of floats.
fn order_key(b: &mut Builder, v: Val) -> Val {
    let (elem, sign) = if b.ty(v).elem == Elem::F64 { (Elem::I64, 63) } else { (Elem::I32, 31) };
    let bits = b.bitcast(v, Ty::scalar(elem));
    let all = b.ashr(bits, sign);
    let flip = b.lshr(all, 1);
    let key = b.xor(bits, flip);
    if elem == Elem::I64 { key } else { b.sext(key, Elem::I64) }
}

/// Chooses the `k` experts of greatest weight for each row, and lists rows by expert.
fn route(cx: &mut LowerCx<'_>, w: &Opnd, n: &Dim, k: i64) -> Result<Routes, Diag> {
    let experts = w.dims[1].clone();
    let k = experts.smaller(&k.into());
    let total = n.mul(&k);
    let chosen = cx.temp(DType::I64, std::slice::from_ref(&total));
    let d = w.dtype;
    let l = Launch::new("gate_choose").read(w).write(&chosen).dim(&experts).dim(&k);
    let cost = experts.mul(&k).mul(&2.into());
    cx.launch(l.extent(n.clone()).cost(cost), move |kc| {
        let (w, chosen, experts, k) = (kc.buf(0), kc.buf(1), kc.dim(0), kc.dim(1));
        kc.b.parallel_for(|b, row| {
            let first = b.mul(row, experts);
            let (none, top) = (b.i64(-1), b.i64(i64::MAX));
            // The last choice; the next one comes after it in the order of weights, then of numbers.
            b.for_(0, k, 1, &[top, none], |b, j, last| {
                let last = [last[0], last[1]];
                let low = b.i64(i64::MIN);
                let best = b.for_(0, experts, 1, &[low, none], |b, e, best| {
                    let at = b.add(first, e);
                    let v = load(b, d, w, at, 1, None);
                    let key = order_key(b, v);
                    let below = b.cmp(CmpOp::Slt, key, last[0]);
                    let same = b.cmp(CmpOp::Eq, key, last[0]);
                    let later = b.cmp(CmpOp::Sgt, e, last[1]);
                    let later = b.and(same, later);
                    let open = b.or(below, later);
                    let above = b.cmp(CmpOp::Sgt, key, best[0]);
                    let start = b.cmp(CmpOp::Slt, best[1], 0);
                    let better = b.or(above, start);
                    let take = b.and(open, better);
                    vec![b.select(take, key, best[0]), b.select(take, e, best[1])]
                });
                let at = b.at(j, row, k);
                b.store(chosen, at, best[1]);
                best
            });
        });
    })?;
    let per_expert = std::slice::from_ref(&experts);
    let [sizes_of, listed, sizes, starts] = [(); 4].map(|()| cx.temp(DType::I64, per_expert));
    let rows = cx.temp(DType::I64, std::slice::from_ref(&total));
    let used = cx.temp(DType::I64, &[Dim::Const(1)]);
    let l = Launch::new("gate_group").read(&chosen).update(&sizes_of).write(&listed).write(&sizes);
    let l = l.write(&starts).write(&rows).write(&used).dim(&total).dim(&experts).dim(&k);
    cx.launch(l, move |kc| {
        let [chosen, next, listed, sizes, starts, rows, used] = [0, 1, 2, 3, 4, 5, 6].map(|i| kc.buf(i));
        let (total, experts, k) = (kc.dim(0), kc.dim(1), kc.dim(2));
        kc.b.parallel_for(|b, _| {
            b.loop_(0, experts, 1, |b, e| {
                let zero = b.i64(0);
                b.store(next, e, zero);
            });
            b.loop_(0, total, 1, |b, i| {
                let e = b.load(chosen, i, 1);
                let n = b.load(next, e, 1);
                let n = b.add(n, 1);
                b.store(next, e, n);
            });
            // From here on `next` is where the next row of an expert goes.
            let zero = b.i64(0);
            let ends = b.for_(0, experts, 1, &[zero, zero], |b, e, now| {
                let n = b.load(next, e, 1);
                b.store(next, e, now[0]);
                let some = b.cmp(CmpOp::Sgt, n, 0);
                b.when(some, |b| {
                    b.store(listed, now[1], e);
                    b.store(sizes, now[1], n);
                    b.store(starts, now[1], now[0]);
                });
                let one = b.select(some, 1, 0);
                vec![b.add(now[0], n), b.add(now[1], one)]
            });
            b.store(used, 0, ends[1]);
            b.loop_(0, total, 1, |b, i| {
                let e = b.load(chosen, i, 1);
                let at = b.load(next, e, 1);
                let row = b.sdiv(i, k);
                b.store(rows, at, row);
                let at = b.add(at, 1);
                b.store(next, e, at);
            });
        });
    })?;
    Ok(Routes { used, experts: listed, sizes, starts, rows })
}

/// Adds an expert's results, times the weights of its rows, to the sums.
fn add(
    cx: &mut LowerCx<'_>,
    w: &Opnd,
    list: &Opnd,
    made: &Opnd,
    sums: &Opnd,
    expert: &Dim,
) -> Result<(), Diag> {
    let inner = Dim::product(&made.dims[1..]);
    let (wd, md, sd) = (w.dtype, made.dtype, sums.dtype);
    let l = Launch::new("gate_add").read(w).read(list).read(made).update(sums);
    let l = l.dim(&w.dims[1]).dim(expert).dim(&inner);
    cx.launch(l.extent(list.dims[0].clone()).cost(inner), move |k| {
        let (w, list, made, sums) = (k.buf(0), k.buf(1), k.buf(2), k.buf(3));
        let (experts, expert, inner) = (k.dim(0), k.dim(1), k.dim(2));
        let lanes = k.lanes(compute_elem(sd));
        k.b.parallel_for(|b, i| {
            let row = b.load(list, i, 1);
            let at = b.at(expert, row, experts);
            let weight = load(b, wd, w, at, 1, None);
            let weight = convert(b, weight, wd, sd);
            let weight = b.splat(weight, lanes);
            let (from, to) = (b.mul(i, inner), b.mul(row, inner));
            b.for_lanes(0, inner, lanes, |b, c, mask| {
                let (s, d) = (b.add(from, c), b.add(to, c));
                let v = load(b, md, made, s, lanes, mask);
                let v = convert(b, v, md, sd);
                let old = load(b, sd, sums, d, lanes, mask);
                let new = b.fma(v, weight, old);
                store(b, sd, sums, d, new, mask);
            });
        });
    })
}

/// The sums rounded to the type of the result.
fn round(cx: &mut LowerCx<'_>, sums: &Opnd, y: &Opnd) -> Result<(), Diag> {
    let (n, chunk) = (y.elems(), cx.chunk());
    let (from, to) = (sums.dtype, y.dtype);
    let l = Launch::new("gate_round").read(sums).write(y).dim(&n);
    cx.launch(l.extent(n.ceil_div(&chunk.into())).cost(chunk), move |k| {
        let (x, y, n) = (k.buf(0), k.buf(1), k.dim(0));
        let lanes = k.lanes(Elem::F32);
        k.b.parallel_for(|b, unit| {
            let (lo, hi) = span(b, unit, chunk, n);
            b.for_lanes(lo, hi, lanes, |b, i, mask| {
                let v = load(b, from, x, i, lanes, mask);
                let v = convert(b, v, from, to);
                store(b, to, y, i, v, mask);
            });
        });
    })
}
