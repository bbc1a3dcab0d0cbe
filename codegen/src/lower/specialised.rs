//! One plan with several bodies: some symbols of the inputs have one of a few values each, and for every combination of
//! these values there is a graph that knows them. When inputs are bound the values are checked; a run then takes the body
//! that was made for them. Weights, kernels and messages that are equal stand in the module once.

use super::cx::{Life, LowerCx};
use super::{LowerOptions, Module, finish};
use planish_ir::dim::SymOrigin;
use planish_ir::op::composites::without_composites;
use planish_ir::{Diag, Dim, Graph, SymId};
use planish_rt::plan::{
    self, BinOp, Block, BlockId, Expr, ExprId, ExprPool, Place, Port, Slot, SlotId, SlotKind, Step, Value,
};
use std::collections::{BTreeMap, BTreeSet};

/// A graph for certain values of symbols.
#[derive(Clone, Debug)]
pub struct Body<'g> {
    /// The values, one for each symbol.
    pub values: Vec<i64>,
    /// The model with these values in the types of its inputs: same inputs and outputs in the same order, and the same
    /// names of the symbols that are still free.
    pub graph: &'g Graph,
}

/// Lowers a model with a body for each combination of values of `symbols`, which are symbols of the inputs of `general`.
/// That graph says only how inputs and outputs look when the symbols are free.
///
/// # Errors
/// What cannot be lowered in the first body that has such operations.
pub fn lower_bodies(
    general: &Graph,
    symbols: &[SymId],
    bodies: &[Body<'_>],
    options: &LowerOptions,
) -> Result<Module, Vec<Diag>> {
    if options.targets.len() > 1 && options.for_gpu() {
        return Err(vec![Diag::error("internal-lower", "a GPU is the only target or none")]);
    }
    let graphs =
        bodies.iter().map(|b| without_composites(b.graph, options.for_gpu())).collect::<Result<Vec<_>, _>>();
    let graphs = graphs.map_err(|d| vec![d])?;
    let mut cx = LowerCx::new(general, options);
    cx.signature();
    let mut entry = cx.steps()?;
    finish::sizes(&mut cx, 0, None);
    let chosen: Vec<plan::SymId> = symbols.iter().map(|s| cx.sym(*s)).collect();
    for (k, s) in chosen.iter().enumerate() {
        let values: BTreeSet<i64> = bodies.iter().filter_map(|b| b.values.get(k).copied()).collect();
        let symbol = &mut cx.plan.symbols[s.index()];
        symbol.min = values.first().copied().unwrap_or(symbol.min);
        symbol.max = values.last().copied().unwrap_or(symbol.max);
        symbol.values = values.into_iter().collect();
    }
    let name = |(id, s): (&SymId, &plan::SymId)| (general.symbols.get(*id).name.to_string(), *s);
    let known: BTreeMap<String, plan::SymId> = cx.syms.iter().map(name).collect();
    let mut made = Vec::new();
    for (body, graph) in bodies.iter().zip(&graphs) {
        let cond = is_chosen(&mut cx.pool, &chosen, &body.values);
        cx = cx.with_graph(graph, &known);
        let from = cx.plan.slots.len();
        cx.signature();
        cx.body(graph.root());
        let steps = cx.end()?;
        finish::sizes(&mut cx, from, Some(cond));
        let ports = std::mem::take(&mut cx.plan.outputs);
        if graph.inputs().len() != general.inputs().len() || ports.len() != general.outputs().len() {
            return Err(vec![Diag::error("internal-lower", "a body has other inputs or outputs")]);
        }
        made.push(Made { cond, steps, ports });
    }
    cx = cx.with_graph(general, &known);
    let values: Vec<BTreeMap<SymId, i64>> =
        bodies.iter().map(|b| symbols.iter().copied().zip(b.values.iter().copied()).collect()).collect();
    for o in 0..general.outputs().len() {
        let port = join(&mut cx, o, &mut made, &values).map_err(|d| vec![d])?;
        cx.plan.outputs.push(port);
    }
    let error = cx.error("the sizes of the inputs are none of those that the model was compiled for");
    let none = cx.pool.constant(0);
    let any = made.iter().fold(none, |any, m| cx.pool.bin(BinOp::Or, any, m.cond));
    entry.push(Step::Require { cond: any, error });
    for m in made {
        let blocks = &mut cx.plan.blocks;
        let then_ = BlockId(blocks.len() as u32);
        blocks.push(Block { steps: m.steps });
        blocks.push(Block::default());
        entry.push(Step::If { cond: Value::Expr(m.cond), then_, else_: BlockId(then_.0 + 1) });
    }
    cx.plan.blocks[0].steps = entry;
    Ok(finish::module(cx))
}

impl<'g> LowerCx<'g> {
    /// The plan, weights and kernels so far, to be continued with the steps of another graph. Nothing of the graph so far
    /// is known to it but the symbols of these names.
    fn with_graph(self, graph: &'g Graph, known: &BTreeMap<String, plan::SymId>) -> LowerCx<'g> {
        let mut next = LowerCx::new(graph, self.options);
        let input = graph.symbols.iter().filter(|(_, s)| s.origin == SymOrigin::Input);
        next.syms = input.filter_map(|(id, s)| Some((id, *known.get(&*s.name)?))).collect();
        // The numbers of steps of one graph are after those of the other: what they keep may share memory.
        next.clock = self.clock + 1;
        (next.plan, next.pool, next.weights) = (self.plan, self.pool, self.weights);
        (next.kernels, next.life, next.errors) = (self.kernels, self.life, self.errors);
        next
    }
    /// Declares the outputs and takes the steps, or the findings if there are any.
    pub(super) fn end(&mut self) -> Result<Vec<Step>, Vec<Diag>> {
        self.outputs();
        self.steps()
    }
    /// Takes the steps, or the findings if there are any.
    pub(super) fn steps(&mut self) -> Result<Vec<Step>, Vec<Diag>> {
        if !self.diags.is_empty() {
            return Err(std::mem::take(&mut self.diags));
        }
        Ok(std::mem::take(&mut self.steps))
    }
    /// Adds a slot of which nothing but the plan knows.
    fn plan_slot(&mut self, slot: Slot) -> SlotId {
        self.plan.slots.push(slot);
        self.life.push(Life { first: self.clock, last: self.clock });
        SlotId(self.plan.slots.len() as u32 - 1)
    }
}

/// A lowered body.
struct Made {
    /// Whether it is the one to run.
    cond: ExprId,
    steps: Vec<Step>,
    /// Its outputs.
    ports: Vec<Port>,
}

fn is_chosen(pool: &mut ExprPool, symbols: &[plan::SymId], values: &[i64]) -> ExprId {
    let mut all: Option<ExprId> = None;
    for (s, v) in symbols.iter().zip(values) {
        let (s, v) = (pool.sym(*s), pool.constant(*v));
        let same = pool.bin(BinOp::Eq, s, v);
        all = Some(all.map_or(same, |x| pool.bin(BinOp::And, x, same)));
    }
    all.unwrap_or_else(|| pool.constant(1))
}

/// Output `o` of the model, which every body writes.
fn join(
    cx: &mut LowerCx<'_>,
    o: usize,
    made: &mut [Made],
    values: &[BTreeMap<SymId, i64>],
) -> Result<Port, Diag> {
    let name = cx.graph.output_name(o).to_owned();
    let Some(first) = made.first().map(|m| m.ports[o].clone()) else {
        return Err(Diag::error("internal-lower", "no body"));
    };
    let rank = |p: &Port| p.dims.as_ref().map(Vec::len);
    if let Some(other) =
        made.iter().map(|m| &m.ports[o]).find(|p| p.ty != first.ty || rank(p) != rank(&first))
    {
        let text = format!("the output {name:?}, which is {} or {} depending on sizes", first.ty, other.ty);
        return Err(Diag::unsupported(text));
    }
    if !first.ty.is_dense() {
        let slot = cx.object_slot();
        for m in made.iter_mut() {
            m.steps.push(Step::Copy { dst: slot, src: m.ports[o].slot });
        }
        let dims = (0..rank(&first).unwrap_or(0)).map(|axis| known_dim(cx, o, axis, made, values));
        let dims = first.dims.as_ref().and_then(|_| dims.collect());
        return Ok(Port { name, slot, dims, ..first });
    }
    let mut dims = Vec::new();
    for axis in 0..rank(&first).unwrap_or(0) {
        dims.push(match known_dim(cx, o, axis, made, values) {
            Some(e) => e,
            None => {
                let symbol = plan::Symbol {
                    name: format!("output{o}.{axis}"),
                    min: 0,
                    max: i64::MAX,
                    values: Vec::new(),
                };
                cx.plan.symbols.push(symbol);
                let sym = plan::SymId(cx.plan.symbols.len() as u32 - 1);
                for m in made.iter_mut() {
                    let value = m.ports[o].dims.as_ref().and_then(|d| d.get(axis).copied());
                    let value =
                        value.ok_or_else(|| Diag::error("internal-lower", "an output without dims"))?;
                    m.steps.push(Step::Let { sym, value });
                }
                cx.pool.sym(sym)
            }
        });
    }
    let plan::ValueType::Tensor(dtype) = first.ty else {
        return Err(Diag::error("internal-lower", "a dense output that is no tensor"));
    };
    let kind = SlotKind::Tensor { dtype, dims: dims.clone() };
    let slot = cx.plan_slot(Slot { kind, place: Place::Output(o as u32) });
    Ok(Port { name, slot, dims: Some(dims), ..first })
}

/// A dim of an output over symbols of the inputs, if it is known when these are bound.
fn known_dim(
    cx: &mut LowerCx<'_>,
    o: usize,
    axis: usize,
    made: &[Made],
    values: &[BTreeMap<SymId, i64>],
) -> Option<ExprId> {
    let each: Option<Vec<ExprId>> =
        made.iter().map(|m| m.ports[o].dims.as_ref()?.get(axis).copied()).collect();
    let each = each?;
    let inputs = input_symbols(cx);
    let known = |pool: &ExprPool, e: ExprId| symbols_of(pool, e).is_subset(&inputs);
    if !each.iter().all(|e| known(&cx.pool, *e)) {
        return None;
    }
    if each.iter().all(|e| *e == each[0]) {
        return Some(each[0]);
    }
    if let Some(e) = multiple(cx, &each, values) {
        return Some(e);
    }
    // What the general graph says, where the bodies agree with it.
    let general = cx.graph.dims(cx.graph.outputs()[o]).and_then(|d| d.get(axis).cloned());
    let general = general.filter(|d| {
        let origin =
            |s: &SymId| cx.graph.symbols.get(*s).origin == SymOrigin::Input && cx.syms.contains_key(s);
        d.symbols().iter().all(origin)
    });
    if let Some(d) = general {
        let fits = |cx: &mut LowerCx<'_>, e: ExprId, v: &BTreeMap<SymId, i64>| {
            let there = d.substitute(&|s| v.get(&s).copied().map(Dim::from));
            cx.expr(&there) == e
        };
        if each.iter().zip(values).all(|(e, v)| fits(cx, *e, v)) {
            return Some(cx.expr(&d));
        }
    }
    let (last, others) = each.split_last()?;
    let chain = others.iter().zip(made).rev();
    Some(chain.fold(*last, |rest, (e, m)| cx.pool.add(Expr::Select(m.cond, *e, rest))))
}

/// A symbol, or a multiple of one, that is the dim in all bodies.
fn multiple(cx: &mut LowerCx<'_>, each: &[ExprId], values: &[BTreeMap<SymId, i64>]) -> Option<ExprId> {
    let each: Vec<i64> = each.iter().map(|e| cx.pool.as_const(*e)).collect::<Option<_>>()?;
    for s in values.first()?.keys() {
        let of = |(d, v): (&i64, &BTreeMap<SymId, i64>)| match v.get(s) {
            Some(v) if *v != 0 && d % v == 0 => Some(d / v),
            _ => None,
        };
        let factors: Option<BTreeSet<i64>> = each.iter().zip(values).map(of).collect();
        if let Some(factor) = factors.filter(|f| f.len() == 1).and_then(|f| f.first().copied()) {
            return Some(cx.expr(&Dim::from(*s).mul(&factor.into())));
        }
    }
    None
}

/// The symbols that the runtime binds to dims of inputs.
fn input_symbols(cx: &LowerCx<'_>) -> BTreeSet<plan::SymId> {
    let dense = cx.plan.inputs.iter().filter(|p| p.ty.is_dense());
    let dims = dense.flat_map(|p| p.dims.iter().flatten());
    let symbol = |e: &ExprId| match cx.pool.get(*e) {
        Expr::Sym(s) => Some(s),
        _ => None,
    };
    dims.filter_map(symbol).collect()
}

fn symbols_of(pool: &ExprPool, e: ExprId) -> BTreeSet<plan::SymId> {
    let (mut work, mut seen, mut out) = (vec![e], BTreeSet::new(), BTreeSet::new());
    while let Some(e) = work.pop() {
        if !seen.insert(e) {
            continue;
        }
        match pool.get(e) {
            Expr::Const(_) => {}
            Expr::Sym(s) => {
                out.insert(s);
            }
            Expr::Bin(_, a, b) => work.extend([a, b]),
            Expr::Select(c, a, b) => work.extend([c, a, b]),
        }
    }
    out
}
