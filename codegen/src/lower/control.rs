//! Control flow: regions become blocks of the plan.

use super::cx::LowerCx;
use planish_ir::dim::SymOrigin;
use planish_ir::op::control::Loop;
use planish_ir::op::require::Require;
use planish_ir::{Diag, Dim, RegionId, SymId, Type, ValueId};
use planish_rt::plan::{self, BlockId, Carried, ScanOut, SlotId, Step};
use std::collections::BTreeSet;

/// The symbols that are known before the current node runs, as far as its operands tell.
pub(super) fn known_symbols(cx: &LowerCx<'_>) -> BTreeSet<SymId> {
    let mut out = BTreeSet::new();
    for v in cx.node().inputs.iter().flatten() {
        let fact = &cx.graph.value(*v).fact;
        if let Type::Tensor(t) = &fact.ty {
            t.shape.iter().flatten().for_each(|d| out.extend(d.symbols()));
        }
        fact.content.iter().flatten().for_each(|d| out.extend(d.symbols()));
    }
    out
}

/// The symbol that a dim is, if the node gives it its value.
pub(super) fn own_symbol(cx: &LowerCx<'_>, known: &BTreeSet<SymId>, d: &Dim) -> Option<SymId> {
    let s = d.as_symbol()?;
    (cx.graph.symbols.get(s).origin == SymOrigin::Data && !known.contains(&s)).then_some(s)
}

/// The dims of a value, if it is a tensor that kernels take.
pub(super) fn dense(cx: &LowerCx<'_>, v: ValueId) -> Result<Option<Vec<Dim>>, Diag> {
    match cx.graph.ty(v) {
        Type::Tensor(t) if t.dtype != planish_ir::DType::Str => Ok(Some(t.dims()?.to_vec())),
        _ => Ok(None),
    }
}

/// Makes the slot of result `k`.
pub(super) fn result(cx: &mut LowerCx<'_>, k: usize) -> Result<SlotId, Diag> {
    match dense(cx, cx.output_value(k)?)? {
        Some(_) => Ok(cx.output(k)?.slot),
        None => cx.output_object(k),
    }
}

pub(super) fn operands(cx: &mut LowerCx<'_>, from: usize) -> Result<Vec<SlotId>, Diag> {
    (from..cx.node().inputs.len())
        .map(|i| {
            let v = cx.input_value(i)?;
            cx.slot(v)
        })
        .collect()
}

/// Makes result `k`, whose slot is given, of the value `v`, which lies in `inner`.
pub(super) fn hand_over(
    cx: &mut LowerCx<'_>,
    known: &BTreeSet<SymId>,
    (k, slot): (usize, SlotId),
    v: ValueId,
    inner: SlotId,
) -> Result<(), Diag> {
    let outer = dense(cx, cx.output_value(k)?)?.unwrap_or_default();
    let dims = dense(cx, v)?.unwrap_or_default();
    for (o, i) in outer.iter().zip(&dims) {
        if own_symbol(cx, known, o).is_some() {
            cx.let_(o, i);
        } else {
            cx.require_equal(o, i, "a branch gives a result of another shape");
        }
    }
    cx.copy(slot, inner);
    Ok(())
}

impl LowerCx<'_> {
    /// Adds to a counter of executed work.
    pub fn count(&mut self, counter: &str, amount: &Dim) {
        let value = plan::Value::Expr(self.expr(amount));
        self.count_value(counter, value);
    }
    /// Adds an expression, or the first element of a slot of i64, to a counter.
    pub(super) fn count_value(&mut self, counter: &str, value: plan::Value) {
        let known = self.plan.counters.iter().position(|c| c == counter);
        let at = known.unwrap_or_else(|| {
            self.plan.counters.push(counter.to_owned());
            self.plan.counters.len() - 1
        });
        self.step(Step::Count { counter: plan::CounterId(at as u32), value });
    }
    /// A block with the steps that the closure makes, between two ticks of the clock.
    pub(super) fn block(
        &mut self,
        make: impl FnOnce(&mut Self) -> Result<(), Diag>,
    ) -> Result<BlockId, Diag> {
        let outer = std::mem::take(&mut self.steps);
        self.clock += 1;
        let made = make(self);
        self.clock += 1;
        let steps = std::mem::replace(&mut self.steps, outer);
        made?;
        self.plan.blocks.push(plan::Block { steps });
        Ok(BlockId(self.plan.blocks.len() as u32 - 1))
    }
    /// Lowers a region into a block that begins with the steps of `before`, which gives the slots of the parameters.
    pub(super) fn region_after(
        &mut self,
        r: RegionId,
        before: impl FnOnce(&mut Self) -> Result<Vec<SlotId>, Diag>,
    ) -> Result<(BlockId, Vec<SlotId>), Diag> {
        let outer = std::mem::take(&mut self.steps);
        self.clock += 1;
        let params = before(self);
        let mut steps = std::mem::replace(&mut self.steps, outer);
        let (block, made) = self.region(r, &params?)?;
        let body = &mut self.plan.blocks[block.index()].steps;
        steps.append(body);
        *body = steps;
        Ok((block, made))
    }
}

pub(super) fn lower_if(cx: &mut LowerCx<'_>) -> Result<(), Diag> {
    let known = known_symbols(cx);
    let cond = cx.input(0)?.slot;
    let params = operands(cx, 1)?;
    let count = cx.node().outputs.len();
    let results: Vec<SlotId> = (0..count).map(|k| result(cx, k)).collect::<Result<_, _>>()?;
    let regions: Vec<RegionId> = cx.node().regions.clone();
    let first = cx.now() + 1;
    let mut blocks = Vec::new();
    for r in regions {
        let (block, made) = cx.region(r, &params)?;
        cx.append_to(block, |cx| {
            for (k, (slot, inner)) in results.iter().zip(&made).enumerate() {
                let v = cx.graph.region(r).results[k];
                hand_over(cx, &known, (k, *slot), v, *inner)?;
            }
            cx.count("if.regions", &Dim::Const(1));
            Ok(())
        })?;
        blocks.push(block);
    }
    let [then_, else_] = blocks[..] else {
        return Err(Diag::error("internal-lower", "an `if` needs two regions"));
    };
    cx.step(Step::If { cond: plan::Value::Slot(cond), then_, else_ });
    for s in &results {
        cx.keep_since(*s, first - 1);
    }
    // What both branches read must outlive the first of them.
    cx.extend_over_loop(first);
    Ok(())
}

/// The result is the operand itself, in the forms that the operand has.
pub(super) fn lower_barrier(cx: &mut LowerCx<'_>) -> Result<(), Diag> {
    let v = cx.input_value(0)?;
    if !cx.same_forms(v, cx.output_value(0)?) {
        let slot = cx.slot(v)?;
        cx.set_output(0, slot)?;
    }
    Ok(())
}

/// The result is the operand itself.
pub(super) fn lower_require(cx: &mut LowerCx<'_>, op: &Require) -> Result<(), Diag> {
    let cond = cx.input(0)?;
    let expected = Dim::Const(op.expected.into());
    cx.bind(&expected, &cond, 0, &expected, &expected, &op.message)?;
    let v = cx.input_value(1)?;
    let slot = cx.slot(v)?;
    cx.set_output(0, slot)
}

pub(super) fn lower_loop(cx: &mut LowerCx<'_>, op: &Loop) -> Result<(), Diag> {
    let known = known_symbols(cx);
    let region =
        *cx.node().regions.first().ok_or_else(|| Diag::error("internal-lower", "a `loop` needs a region"))?;
    let inner = cx.graph.region(region).params.clone();
    let yields = cx.graph.region(region).results.clone();
    let trip = match (cx.has(0), cx.ints(0).as_deref()) {
        (false, _) => None,
        (_, Some([n])) => Some(plan::Value::Expr(cx.expr(n))),
        _ => Some(plan::Value::Slot(cx.input(0)?.slot)),
    };
    let cond = cx.opt_input(1)?.map(|c| plan::Value::Slot(c.slot));
    let start = cx.now();
    let iter = cx.temp(planish_ir::DType::I64, &[]).slot;
    let inits = operands(cx, 2)?;
    let mut params = vec![iter];
    let mut carried = Vec::new();
    let own = |cx: &LowerCx<'_>, dims: &[Dim]| -> Vec<(SymId, u32)> {
        let with_axis = dims.iter().enumerate();
        with_axis.filter_map(|(i, d)| Some((own_symbol(cx, &known, d)?, i as u32))).collect()
    };
    let plan_syms = |cx: &mut LowerCx<'_>, list: Vec<(SymId, u32)>| -> Vec<(plan::SymId, u32)> {
        list.into_iter().map(|(s, axis)| (cx.sym(s), axis)).collect()
    };
    for (k, init) in inits.iter().take(op.carried).enumerate() {
        let (param, result, syms, result_syms) = match dense(cx, inner[1 + k])? {
            Some(dims) => {
                let (dtype, _) = cx.tensor_type(inner[1 + k])?;
                let syms = own(cx, &dims);
                let param = cx.temp(dtype, &dims).slot;
                let out = dense(cx, cx.output_value(k)?)?.unwrap_or_default();
                let result_syms = own(cx, &out);
                if out == dims {
                    cx.set_output(k, param)?;
                    (param, param, syms, Vec::new())
                } else {
                    (param, cx.output(k)?.slot, syms, result_syms)
                }
            }
            None => {
                let param = cx.object_slot();
                cx.set_output(k, param)?;
                (param, param, Vec::new(), Vec::new())
            }
        };
        params.push(param);
        let (syms, result_syms) = (plan_syms(cx, syms), plan_syms(cx, result_syms));
        carried.push(Carried { init: *init, param, yielded: param, result, syms, result_syms });
    }
    params.extend(&inits[op.carried.min(inits.len())..]);
    let mut scans = Vec::new();
    for k in 0..op.scans {
        let v = cx.output_value(op.carried + k)?;
        let dims = dense(cx, v)?.ok_or_else(|| Diag::unsupported("a loop that stacks strings"))?;
        let syms = own(cx, &dims);
        let result = cx.output(op.carried + k)?.slot;
        scans.push(ScanOut { yielded: result, result, result_syms: plan_syms(cx, syms) });
    }
    let first = cx.now() + 1;
    let (body, made) = cx.region(region, &params)?;
    cx.append_to(body, |cx| {
        cx.count("loop.iterations", &Dim::Const(1));
        Ok(())
    })?;
    let given = usize::from(op.conditional);
    if made.len() != given + op.carried + op.scans || yields.len() != made.len() {
        return Err(Diag::error("internal-lower", "the region of a `loop` gives another number of results"));
    }
    for (k, c) in carried.iter_mut().enumerate() {
        c.yielded = made[given + k];
    }
    for (k, s) in scans.iter_mut().enumerate() {
        s.yielded = made[given + op.carried + k];
    }
    let body_cond = op.conditional.then(|| plan::Value::Slot(made[0]));
    let kept: Vec<SlotId> = params
        .iter()
        .copied()
        .chain(carried.iter().map(|c| c.result))
        .chain(scans.iter().map(|s| s.result))
        .collect();
    let step = plan::Loop {
        trip,
        cond,
        iter: Some(iter),
        iter_sym: None,
        body,
        body_cond,
        carried,
        scans,
        count_sym: None,
    };
    cx.step(Step::Loop(Box::new(step)));
    for s in kept {
        cx.keep_since(s, start.min(first));
    }
    cx.extend_over_loop(first);
    Ok(())
}
