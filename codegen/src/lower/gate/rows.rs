//! Gates of rows and of blocks of rows.

use super::{bind_rows, given, has_own_dims};
use crate::kernel::{Access, CmpOp};
use crate::lower::control::{known_symbols, operands, own_symbol};
use crate::lower::cx::{LowerCx, Opnd};
use crate::lower::indexing::gather_rows;
use crate::lower::launch::Launch;
use crate::lower::nest::bits_elem;
use planish_ir::op::control::{Fallback, Gate, Granularity};
use planish_ir::op::normalize_axis;
use planish_ir::{DType, Diag, Dim, SymId};
use planish_rt::plan::{self, SlotId, Step};
use std::collections::BTreeSet;

/// Which rows are on and off.
struct Picked {
    /// For each row its number among those that are on, or -1 - its number among the others.
    places: Opnd,
    /// The rows that are on, and the others.
    lists: [Opnd; 2],
    /// How many rows are on and off, and blocks.
    counts: Opnd,
}

/// What becomes of rows that are off where those that are on are put in place.
#[derive(Clone, Copy, PartialEq)]
enum Others {
    Zero,
    /// Those of the gated operand.
    Same,
    /// They are not touched.
    Left,
}

pub(super) fn lower(cx: &mut LowerCx<'_>, op: &Gate) -> Result<(), Diag> {
    let known = known_symbols(cx);
    let (mask, x) = (cx.input(0)?, cx.input(1)?);
    let axis = normalize_axis(op.axis, x.dims.len())?;
    let n = x.dims[axis].clone();
    let size = if op.granularity == Granularity::Blocks { op.block.max(1) as i64 } else { 1 };
    cx.require_equal(&mask.elems(), &n.ceil_div(&size.into()), "a gate needs one flag per row or block");
    let captures = operands(cx, 2)?;
    let start = cx.now();
    let picked = pick(cx, &mask, &n, size)?;
    let mut job = Job { known, axis, x, captures, picked, start };
    let others = match op.fallback {
        Fallback::Zero => Others::Zero,
        Fallback::Identity => Others::Same,
        Fallback::Region => Others::Left,
    };
    let made = job.run(cx, 0)?;
    let y = cx.output(0)?;
    job.put(cx, &y, &made, 0, others)?;
    if op.fallback == Fallback::Region {
        let made = job.run(cx, 1)?;
        job.put(cx, &y, &made, 1, Others::Left)?;
    }
    let counters = ["gate.rows", "gate.skipped-rows", "gate.blocks", "gate.skipped-blocks"];
    let shown = if op.granularity == Granularity::Blocks { 4 } else { 2 };
    for (i, counter) in counters.into_iter().take(shown).enumerate() {
        let at = cx.view(&job.picked.counts, DType::I64, &[], &Dim::from(8 * i));
        cx.count_value(counter, plan::Value::Slot(at));
    }
    Ok(())
}

/// Lists the rows by whether their flag, or that of their block, is set.
fn pick(cx: &mut LowerCx<'_>, mask: &Opnd, n: &Dim, size: i64) -> Result<Picked, Diag> {
    let rows = std::slice::from_ref(n);
    let [places, on, off] = [(); 3].map(|()| cx.temp(DType::I64, rows));
    let counts = cx.temp(DType::I64, &[Dim::Const(4)]);
    let l = Launch::new("gate_rows").read(mask).write(&places).write(&on).write(&off).write(&counts);
    cx.launch(l.dim(n).dim(&mask.elems()), move |k| {
        let (mask, places, counts) = (k.buf(0), k.buf(1), k.buf(4));
        let lists = [k.buf(2), k.buf(3)];
        let (n, flags) = (k.dim(0), k.dim(1));
        k.b.parallel_for(|b, _| {
            let zero = b.i64(0);
            let rows = b.for_(0, n, 1, &[zero, zero], |b, i, now| {
                let at = b.div_const(i, size);
                let set = b.load(mask, at, 1);
                let on = |b: &mut crate::kernel::Builder| {
                    b.store(lists[0], now[0], i);
                    b.store(places, i, now[0]);
                    vec![b.add(now[0], 1), now[1]]
                };
                let off = |b: &mut crate::kernel::Builder| {
                    b.store(lists[1], now[1], i);
                    let place = b.sub(-1, now[1]);
                    b.store(places, i, place);
                    vec![now[0], b.add(now[1], 1)]
                };
                b.if_(set, on, off)
            });
            let blocks = b.for_(0, flags, 1, &[zero], |b, i, now| {
                let set = b.load(mask, i, 1);
                let one = b.select(set, 1, 0);
                vec![b.add(now[0], one)]
            });
            let others = b.sub(flags, blocks[0]);
            for (i, v) in [rows[0], rows[1], blocks[0], others].into_iter().enumerate() {
                b.store(counts, i as i64, v);
            }
        });
    })?;
    Ok(Picked { places, lists: [on, off], counts })
}

/// A gate that is being lowered.
struct Job {
    known: BTreeSet<SymId>,
    axis: usize,
    x: Opnd,
    captures: Vec<SlotId>,
    picked: Picked,
    /// The clock before anything of it.
    start: u32,
}

impl Job {
    /// Runs region `which` on its rows, if there are any.
    fn run(&mut self, cx: &mut LowerCx<'_>, which: usize) -> Result<Opnd, Diag> {
        let r = cx.node().regions[which];
        let n = self.x.dims[self.axis].clone();
        let counts = (&self.picked.counts, which as u32);
        let count = bind_rows(cx, &self.known, (r, 0, self.axis), counts, &n)?;
        let rows = Opnd { dims: vec![count.clone()], ..self.picked.lists[which].clone() };
        let mut dims = self.x.dims.clone();
        dims[self.axis] = count.clone();
        let xs = cx.temp(self.x.dtype, &dims);
        gather_rows(cx, &self.x, &rows, &xs, self.axis)?;
        let params = [&[xs.slot], self.captures.as_slice()].concat();
        let (block, made) = cx.region(r, &params)?;
        let made = given(cx, r, made[0])?;
        cx.append_to(block, |cx| {
            let missing =
                || Diag::error("axis-out-of-range", "the result of a gate's region has no such axis");
            let rows = made.dims.get(self.axis).ok_or_else(missing)?;
            cx.require_equal(rows, &count, "the region changed the number of rows");
            let (_, outer) = cx.output_type(0)?;
            for (i, (o, d)) in outer.iter().zip(&made.dims).enumerate().filter(|(i, _)| *i != self.axis) {
                if which == 0 && own_symbol(cx, &self.known, o).is_some() {
                    cx.let_(o, d);
                } else {
                    cx.require_equal(o, d, &format!("axis {i} of a gate's region has another size"));
                }
            }
            Ok(())
        })?;
        let else_ = cx.block(|_| Ok(()))?;
        // Dims of the result that only the region tells are needed even where it has no rows.
        let always = has_own_dims(cx, &self.known, self.axis)?;
        let cond = if always { cx.expr(&Dim::Const(1)) } else { cx.expr(&count) };
        cx.step(Step::If { cond: plan::Value::Expr(cond), then_: block, else_ });
        cx.touch(made.slot);
        cx.extend_over_loop(self.start + 1);
        if which == 0 {
            let ran = cx.block(|cx| {
                cx.count("gate.regions", &Dim::Const(1));
                Ok(())
            })?;
            let not = cx.block(|_| Ok(()))?;
            let some = cx.expr(&count);
            cx.step(Step::If { cond: plan::Value::Expr(some), then_: ran, else_: not });
        }
        Ok(made)
    }

    /// Puts the rows that region `which` gave in their places.
    fn put(
        &self,
        cx: &mut LowerCx<'_>,
        y: &Opnd,
        made: &Opnd,
        which: usize,
        others: Others,
    ) -> Result<(), Diag> {
        let outer = Dim::product(&y.dims[..self.axis]);
        let n = self.x.dims[self.axis].clone();
        let inner = Dim::product(&y.dims[self.axis + 1..]);
        let elem = bits_elem(y.dtype);
        let l = Launch::new("gate_put").raw(made, elem, Access::Read).read(&self.picked.places).raw(
            y,
            elem,
            Access::Write,
        );
        let l = if others == Others::Same { l.raw(&self.x, elem, Access::Read) } else { l };
        let l = l.dim(&n).dim(&inner).dim(&made.dims[self.axis]);
        cx.launch(l.extent(outer.mul(&n)).cost(inner), move |k| {
            let (made, places, y) = (k.buf(0), k.buf(1), k.buf(2));
            let x = (others == Others::Same).then(|| k.buf(3));
            let (n, inner, count) = (k.dim(0), k.dim(1), k.dim(2));
            let lanes = k.lanes(elem);
            k.b.parallel_for(|b, row| {
                let (o, i) = b.div_rem(row, n);
                let place = b.load(places, i, 1);
                let on = b.cmp(if which == 0 { CmpOp::Sge } else { CmpOp::Slt }, place, 0);
                let to = b.mul(row, inner);
                let put = |b: &mut crate::kernel::Builder| {
                    let place = if which == 0 { place } else { b.sub(-1, place) };
                    let from = b.at(place, o, count);
                    let from = b.mul(from, inner);
                    b.for_lanes(0, inner, lanes, |b, c, mask| {
                        let (s, d) = (b.add(from, c), b.add(to, c));
                        let v = b.load_opt(made, s, lanes, mask);
                        b.store_opt(y, d, v, mask);
                    });
                    vec![]
                };
                let rest = |b: &mut crate::kernel::Builder| {
                    if others != Others::Left {
                        b.for_lanes(0, inner, lanes, |b, c, mask| {
                            let at = b.add(to, c);
                            let v = match x {
                                Some(x) => b.load_opt(x, at, lanes, mask),
                                None => b.zero(crate::kernel::Ty::vec(elem, lanes)),
                            };
                            b.store_opt(y, at, v, mask);
                        });
                    }
                    vec![]
                };
                b.if_(on, put, rest);
            });
        })
    }
}
