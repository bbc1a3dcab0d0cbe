//! The state of a lowering: slots, steps, symbols, weights.

use super::concat::Joined;
use super::contraction::Deferred;
use super::launch::Kernels;
use super::steps::step_slots;
use super::{LowerOptions, Module, dispatch, gate, strings};
use crate::weights::Weights;
use bytes::Bytes;
use planish_ir::dim::SymOrigin;
use planish_ir::graph::Def;
use planish_ir::{ConstId, DType, Diag, Dim, Graph, Loc, NodeId, Op, RegionId, SymId, Type, ValueId};
use planish_rt::plan::{
    self, BinOp, Block, BlockId, ErrorId, ExprId, ExprPool, Place, Plan, Port, Slot, SlotId, SlotKind, Step,
};
use std::collections::{BTreeMap, HashMap};

/// A tensor operand or result: its slot, element type and dims.
#[derive(Clone, Debug)]
pub struct Opnd {
    /// Where it is.
    pub slot: SlotId,
    /// Element type.
    pub dtype: DType,
    /// Dims.
    pub dims: Vec<Dim>,
}

impl Opnd {
    /// The number of elements.
    pub fn elems(&self) -> Dim {
        Dim::product(&self.dims)
    }
    /// Row-major strides in elements.
    pub fn strides(&self) -> Vec<Dim> {
        let mut out = vec![Dim::Const(1); self.dims.len()];
        for i in (1..self.dims.len()).rev() {
            out[i - 1] = out[i].mul(&self.dims[i]);
        }
        out
    }
    /// As large, elsewhere.
    #[must_use]
    pub fn with_slot(&self, slot: SlotId) -> Opnd {
        Opnd { slot, ..self.clone() }
    }
    /// The same memory seen with other dims of as many elements.
    #[must_use]
    pub fn with_dims(&self, dims: Vec<Dim>) -> Opnd {
        Opnd { dims, ..self.clone() }
    }
}

/// Lifetime of a slot in step numbers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Life {
    pub(super) first: u32,
    pub(super) last: u32,
}

/// Lowers one graph. See the [module page](super).
pub struct LowerCx<'g> {
    /// The graph.
    pub graph: &'g Graph,
    pub(super) options: &'g LowerOptions,
    pub(super) plan: Plan,
    pub(super) pool: ExprPool,
    pub(super) weights: Weights,
    pub(super) kernels: Kernels,
    pub(super) life: Vec<Life>,
    slots: HashMap<ValueId, SlotId>,
    /// Blocked forms, see [`layout`](super::layout).
    pub(super) blocked_slots: HashMap<ValueId, SlotId>,
    /// Convolutions that their only readers compute.
    pub(super) deferred: HashMap<ValueId, Deferred>,
    /// What lies in results of concatenations.
    pub(super) joined: Joined,
    consts: HashMap<ConstId, SlotId>,
    pub(super) syms: BTreeMap<SymId, plan::SymId>,
    pub(super) steps: Vec<Step>,
    pub(super) clock: u32,
    node: Option<NodeId>,
    pub(super) diags: Vec<Diag>,
    pub(super) errors: HashMap<String, ErrorId>,
    /// Expressions of dims so far: a dim may hold the same part very often.
    pub(super) exprs: HashMap<Dim, ExprId>,
    /// Whether weights are left out: what is asked is only whether the graph can be lowered.
    pub(super) dry: bool,
    /// Places of elements that stand for tensors of strings, see [`strings`].
    pub(super) places: Option<BTreeMap<ValueId, SlotId>>,
    /// Parameters of regions that are numbers of experts, and parts of stacked constants, see [`gate`].
    pub(super) experts: HashMap<ValueId, gate::Expert>,
    pub(super) stacked: HashMap<ValueId, gate::Stacked>,
    /// Symbols whose values are bound while the plan runs.
    bound_in_run: Vec<SymId>,
}

impl<'g> LowerCx<'g> {
    pub(super) fn new(graph: &'g Graph, options: &'g LowerOptions) -> LowerCx<'g> {
        LowerCx {
            graph,
            options,
            plan: Plan::default(),
            pool: ExprPool::new(),
            weights: Weights::default(),
            kernels: Kernels::new(&options.targets),
            life: Vec::new(),
            slots: HashMap::new(),
            blocked_slots: HashMap::new(),
            deferred: HashMap::new(),
            joined: Joined::default(),
            consts: HashMap::new(),
            syms: BTreeMap::new(),
            steps: Vec::new(),
            clock: 0,
            node: None,
            diags: Vec::new(),
            errors: HashMap::new(),
            exprs: HashMap::new(),
            dry: false,
            places: None,
            experts: HashMap::new(),
            stacked: HashMap::new(),
            bound_in_run: Vec::new(),
        }
    }

    // ---- signature and regions ----

    pub(super) fn signature(&mut self) {
        self.plan.meta.name = self.graph.name.clone();
        // What another graph of the plan declared stays; its objects are found where it has them.
        let declared = std::mem::take(&mut self.plan.inputs);
        for (i, v) in self.graph.inputs().iter().enumerate() {
            let slot = match self.graph.ty(*v) {
                Type::Tensor(t) if t.dtype != DType::Str => {
                    let Some(dims) = &t.shape else {
                        let name = self.graph.input_name(i);
                        self.diags.push(Diag::error(
                            "unsupported-rank",
                            format!("the rank of input {name:?} is not known"),
                        ));
                        // Something to refer to, so that other findings follow.
                        let slot = self.object_slot();
                        self.slots.insert(*v, slot);
                        continue;
                    };
                    let dims = dims.clone();
                    self.new_slot(t.dtype, &dims, Place::Input(i as u32))
                }
                _ => declared.get(i).map_or_else(|| self.object_slot(), |p| p.slot),
            };
            self.slots.insert(*v, slot);
            let port = self.port(self.graph.input_name(i), *v, slot);
            self.plan.inputs.push(port);
        }
        if let Err(d) = strings::bind_inputs(self) {
            self.diags.push(d);
        }
        if !declared.is_empty() {
            self.plan.inputs = declared;
        }
        self.plan.states = self.graph.states.iter().map(|s| (s.output, s.input)).collect();
    }
    fn port(&mut self, name: &str, v: ValueId, slot: SlotId) -> Port {
        let dims = match self.graph.ty(v) {
            Type::Tensor(t) => t.shape.clone().map(|d| d.iter().map(|d| self.expr(d)).collect()),
            _ => None,
        };
        Port { name: name.to_owned(), ty: value_type(self.graph.ty(v)), dims, slot }
    }
    /// Lowers the nodes of a region into the current block.
    pub(super) fn body(&mut self, r: RegionId) {
        let graph = self.graph;
        for n in graph.nodes_in(r) {
            self.node = Some(n);
            if let Err(d) = dispatch::lower_node(self, &graph.node(n).op) {
                self.diags.push(d.at(graph.node(n).loc.clone()));
                // Its users are still looked at, so that one run reports every problem.
                for v in &graph.node(n).outputs {
                    if !self.slots.contains_key(v) {
                        let slot = self.object_slot();
                        self.slots.insert(*v, slot);
                    }
                }
            }
        }
        self.node = None;
    }
    /// Lowers a region into a block of its own. Its parameters are the given slots; the slots of its results come
    /// back. Everything of the region happens between two ticks of the clock, whose numbers come back too.
    pub fn region(&mut self, r: RegionId, params: &[SlotId]) -> Result<(BlockId, Vec<SlotId>), Diag> {
        let outer = std::mem::take(&mut self.steps);
        let node = self.node;
        for (v, slot) in self.graph.region(r).params.clone().iter().zip(params) {
            self.slots.insert(*v, *slot);
        }
        self.clock += 1;
        self.body(r);
        let results: Result<Vec<SlotId>, Diag> =
            self.graph.region(r).results.clone().into_iter().map(|v| self.slot(v)).collect();
        self.node = node;
        self.clock += 1;
        let steps = std::mem::replace(&mut self.steps, outer);
        let results = results?;
        for s in &results {
            self.touch(*s);
        }
        self.plan.blocks.push(Block { steps });
        Ok((BlockId(self.plan.blocks.len() as u32 - 1), results))
    }
    /// Adds steps to a block that [`LowerCx::region`] made, at its end. Steps are made by the closure.
    pub fn append_to(
        &mut self,
        block: BlockId,
        make: impl FnOnce(&mut Self) -> Result<(), Diag>,
    ) -> Result<(), Diag> {
        let outer = std::mem::take(&mut self.steps);
        let made = make(self);
        let steps = std::mem::replace(&mut self.steps, outer);
        self.plan.blocks[block.index()].steps.extend(steps);
        made
    }
    /// The number of the current step.
    pub fn now(&self) -> u32 {
        self.clock
    }
    /// Makes every slot that was made before step `first` and used since then live until now: call it after a loop
    /// whose body began at `first`.
    pub fn extend_over_loop(&mut self, first: u32) {
        let now = self.clock;
        for l in &mut self.life {
            if l.first < first && l.last >= first {
                l.last = now;
            }
        }
    }
    /// Makes a slot live from step `first` until now, as the carried values of a loop must.
    pub fn keep_since(&mut self, slot: SlotId, first: u32) {
        let root = self.root(slot);
        let now = self.clock;
        let l = &mut self.life[root.index()];
        l.first = l.first.min(first);
        l.last = l.last.max(now);
    }

    // ---- operands and results of the current node ----

    /// The node being lowered.
    pub fn node(&self) -> &'g planish_ir::graph::Node {
        match self.node {
            Some(n) => self.graph.node(n),
            None => unreachable!("no node is being lowered"),
        }
    }
    /// Its id.
    pub fn node_id(&self) -> Option<NodeId> {
        self.node
    }
    /// Whether operand `i` is given.
    pub fn has(&self, i: usize) -> bool {
        matches!(self.node().inputs.get(i), Some(Some(_)))
    }
    /// The value that is operand `i`.
    pub fn input_value(&self, i: usize) -> Result<ValueId, Diag> {
        self.node()
            .inputs
            .get(i)
            .copied()
            .flatten()
            .ok_or_else(|| Diag::error("arity", format!("operand {i} is missing")))
    }
    /// Operand `i`, a tensor.
    pub fn input(&mut self, i: usize) -> Result<Opnd, Diag> {
        let v = self.input_value(i)?;
        self.memory_of(v)
    }
    /// Operand `i`, if it is given.
    pub fn opt_input(&mut self, i: usize) -> Result<Option<Opnd>, Diag> {
        if self.has(i) { self.input(i).map(Some) } else { Ok(None) }
    }
    /// Any value that is visible where the steps go, in memory: a constant is put into the weights.
    pub fn memory_of(&mut self, v: ValueId) -> Result<Opnd, Diag> {
        let place = self.places.as_ref().and_then(|p| p.get(&v).copied());
        let slot = place.map_or_else(|| self.slot(v), Ok)?;
        let (dtype, dims) = self.tensor_type(v)?;
        Ok(Opnd { slot, dtype, dims })
    }
    /// The dtype and dims of a value that must be a numeric tensor of known rank.
    pub fn tensor_type(&self, v: ValueId) -> Result<(DType, Vec<Dim>), Diag> {
        match self.graph.ty(v) {
            Type::Tensor(t) if t.dtype != DType::Str => Ok((t.dtype, t.dims()?.to_vec())),
            Type::Tensor(t) if self.places.is_some() => Ok((DType::I64, t.dims()?.to_vec())),
            t => Err(Diag::unsupported(format!("no kernel takes {}", t.display(&self.graph.symbols)))),
        }
    }
    /// The dtype and dims of result `k`, without making its slot.
    pub fn output_type(&self, k: usize) -> Result<(DType, Vec<Dim>), Diag> {
        self.tensor_type(self.output_value(k)?)
    }
    /// The value that is result `k`.
    pub fn output_value(&self, k: usize) -> Result<ValueId, Diag> {
        self.node()
            .outputs
            .get(k)
            .copied()
            .ok_or_else(|| Diag::error("arity", format!("there is no result {k}")))
    }
    /// Whether anything uses result `k`.
    pub fn output_used(&self, k: usize) -> bool {
        self.node().outputs.get(k).is_some_and(|v| !self.graph.uses(*v).is_empty())
    }
    /// Makes the slot of result `k`.
    pub fn output(&mut self, k: usize) -> Result<Opnd, Diag> {
        self.own_slot(self.output_value(k)?)
    }
    /// Makes the slot of a value.
    pub(super) fn own_slot(&mut self, v: ValueId) -> Result<Opnd, Diag> {
        let (dtype, dims) = self.tensor_type(v)?;
        let string = self.graph.dtype(v) == Some(DType::Str);
        let slot = match self.direct_output(v).filter(|_| !string) {
            Some(i) => self.new_slot(dtype, &dims, Place::Output(i)),
            None => match self.part_of_joined(v, &dims, false) {
                Some(part) => part,
                None => self.temp_slot(dtype, &dims),
            },
        };
        self.slots.insert(v, slot);
        Ok(Opnd { slot, dtype, dims })
    }
    /// The position among the outputs of the model, if the value is exactly one of them.
    fn direct_output(&self, v: ValueId) -> Option<u32> {
        if !matches!(self.graph.value(v).def, Def::Node(n, _) if self.graph.node(n).region == self.graph.root())
        {
            return None;
        }
        let mut hits = self.graph.outputs().iter().enumerate().filter(|(_, o)| **o == v);
        let (i, _) = hits.next()?;
        hits.next().is_none().then_some(i as u32)
    }
    /// Makes result `k` a view of `x`, which must have as many elements.
    pub fn alias(&mut self, k: usize, x: &Opnd) -> Result<(), Diag> {
        let v = self.output_value(k)?;
        let (dtype, dims) = self.tensor_type(v)?;
        let slot = self.view(x, dtype, &dims, &Dim::Const(0));
        self.slots.insert(v, slot);
        Ok(())
    }
    /// A view of a part of `x` that begins `byte_offset` bytes into it.
    pub fn view(&mut self, x: &Opnd, dtype: DType, dims: &[Dim], byte_offset: &Dim) -> SlotId {
        let byte_offset = self.expr(byte_offset);
        self.new_slot(dtype, dims, Place::Alias { slot: x.slot, byte_offset })
    }
    /// Declares result `k` to be in this slot.
    pub fn set_output(&mut self, k: usize, slot: SlotId) -> Result<(), Diag> {
        let v = self.output_value(k)?;
        self.place(v, slot);
        Ok(())
    }
    /// Declares a value to be in this slot.
    pub(super) fn place(&mut self, v: ValueId, slot: SlotId) {
        self.slots.insert(v, slot);
    }
    /// Makes a slot for something that lives for a few steps.
    pub fn temp(&mut self, dtype: DType, dims: &[Dim]) -> Opnd {
        let slot = self.temp_slot(dtype, dims);
        Opnd { slot, dtype, dims: dims.to_vec() }
    }
    fn temp_slot(&mut self, dtype: DType, dims: &[Dim]) -> SlotId {
        let heap = dims.iter().any(|d| self.depends_on_data(d));
        // Bytes, first and last step of an arena slot are filled in at the end.
        let place = if heap { Place::Heap } else { Place::Arena { bytes: ExprId(0), first: 0, last: 0 } };
        self.new_slot(dtype, dims, place)
    }
    /// Whether a dim is known only while the plan runs.
    pub fn depends_on_data(&self, d: &Dim) -> bool {
        let data =
            |s: &SymId| self.graph.symbols.get(*s).origin == SymOrigin::Data || self.bound_in_run.contains(s);
        d.symbols().iter().any(data)
    }
    fn new_slot(&mut self, dtype: DType, dims: &[Dim], place: Place) -> SlotId {
        let dims = dims.iter().map(|d| self.expr(d)).collect();
        self.plan.slots.push(Slot { kind: SlotKind::Tensor { dtype: rt_dtype(dtype), dims }, place });
        self.life.push(Life { first: self.clock, last: self.clock });
        SlotId(self.plan.slots.len() as u32 - 1)
    }
    /// A slot for a string tensor, sequence, optional or map.
    pub fn object_slot(&mut self) -> SlotId {
        self.plan.slots.push(Slot { kind: SlotKind::Object, place: Place::Object });
        self.life.push(Life { first: self.clock, last: self.clock });
        SlotId(self.plan.slots.len() as u32 - 1)
    }
    /// Makes result `k` an object.
    pub fn output_object(&mut self, k: usize) -> Result<SlotId, Diag> {
        let v = self.output_value(k)?;
        let slot = self.object_slot();
        self.slots.insert(v, slot);
        Ok(slot)
    }
    /// The slot of a value of the current region.
    pub fn slot(&mut self, v: ValueId) -> Result<SlotId, Diag> {
        if let Some(s) = self.slots.get(&v) {
            return Ok(*s);
        }
        if let Some(blocked) = self.blocked_slots.get(&v) {
            return self.unblocked(v, *blocked);
        }
        if let Some(part) = self.stacked.get(&v).cloned() {
            let s = self.part_of_stack(v, &part)?;
            self.slots.insert(v, s);
            return Ok(s);
        }
        match self.graph.as_const(v) {
            Some((id, _)) => {
                let s = self.const_slot(id)?;
                self.slots.insert(v, s);
                Ok(s)
            }
            None => Err(Diag::error("internal-lower", format!("{v} has no slot"))),
        }
    }
    pub(super) fn const_slot(&mut self, id: ConstId) -> Result<SlotId, Diag> {
        if let Some(s) = self.consts.get(&id) {
            return Ok(*s);
        }
        let c = self.graph.constant(id).clone();
        let bytes = planish_ir::tensor::byte_len(c.dtype, &c.shape)? as u64;
        if bytes.saturating_add(self.weights.len()) > self.options.max_weights {
            return Err(Diag::error(
                "weights-too-large",
                format!("a constant of shape {:?} takes {bytes} bytes, more than the budget leaves", c.shape),
            ));
        }
        if c.dtype == DType::Str {
            let slot = self.object_slot();
            let t = c.decode()?;
            self.string_constant(slot, t.shape(), t.strings());
            return Ok(slot);
        }
        let dims: Vec<Dim> = c.shape.iter().map(|d| Dim::from(*d)).collect();
        let bytes = if self.dry { Bytes::new() } else { c.decode()?.bytes().clone() };
        let slot = self.weight(c.dtype, &dims, bytes).slot;
        self.consts.insert(id, slot);
        Ok(slot)
    }
    /// The step that fills an object slot with a tensor of strings runs where the constant is first used; constants
    /// of strings are therefore not shared between regions.
    fn string_constant(&mut self, slot: SlotId, shape: &[usize], strings: &[String]) {
        let call = plan::Call {
            func: planish_rt::library::STR_CONST,
            args: Vec::new(),
            outs: vec![slot],
            out_syms: Vec::new(),
            attrs: shape.iter().map(|d| *d as i64).collect(),
            fattrs: Vec::new(),
            sattrs: strings.to_vec(),
            error: self.error("a string constant cannot be made"),
        };
        self.step(Step::Call(Box::new(call)));
    }
    /// Puts bytes made at compile time into the weights.
    pub fn weight(&mut self, dtype: DType, dims: &[Dim], bytes: Bytes) -> Opnd {
        let len = bytes.len() as u64;
        let offset = self.weights.add(bytes);
        let slot = self.new_slot(dtype, dims, Place::Weights { offset, len });
        Opnd { slot, dtype, dims: dims.to_vec() }
    }
    /// The constant that a value is, seen through nothing.
    pub fn constant(&self, v: ValueId) -> Option<&'g std::sync::Arc<planish_ir::Constant>> {
        self.graph.as_const(v).map(|(_, c)| c)
    }
    /// The elements of a constant of f32 that is to be packed.
    pub fn f32_constant(&self, v: ValueId) -> Result<Option<Vec<f32>>, Diag> {
        self.constant(v).map_or(Ok(None), |c| self.f32_elements(c))
    }
    /// Whether [`LowerCx::f32_constant`] finds elements.
    pub(super) fn packs(&self, v: ValueId) -> bool {
        !self.dry && self.constant(v).is_some_and(|c| c.dtype == DType::F32)
    }
    /// The same of a constant.
    pub(super) fn f32_elements(&self, c: &planish_ir::Constant) -> Result<Option<Vec<f32>>, Diag> {
        if c.dtype != DType::F32 || self.dry {
            return Ok(None);
        }
        let read = |b: &[u8]| f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
        Ok(Some(c.decode()?.bytes().chunks_exact(4).map(read).collect()))
    }
    /// The integers of operand `i`, if they follow from constants and dims.
    pub fn ints(&self, i: usize) -> Option<Vec<Dim>> {
        let v = self.input_value(i).ok()?;
        if let Some(c) = &self.graph.value(v).fact.content {
            return Some(c.clone());
        }
        let t = self.constant(v)?.small(256)?;
        Some(t.to_i64().ok()?.into_iter().map(Dim::from).collect())
    }
    /// The integers of operand `i`, if all are known numbers.
    pub fn const_ints(&self, i: usize) -> Option<Vec<i64>> {
        self.ints(i)?.iter().map(Dim::as_const).collect()
    }

    // ---- steps ----

    /// Appends a step; the slots it names live at least until now.
    pub fn step(&mut self, step: Step) {
        if matches!(&step, Step::Call(c) if !c.outs.is_empty()) && self.simt() {
            let refused = Diag::unsupported("a call of the runtime library, which does not run on a GPU");
            let loc = self.node.map(|n| self.graph.node(n).loc.clone());
            self.diags.push(match loc {
                Some(loc) => refused.at(loc),
                None => refused,
            });
        }
        self.clock += 1;
        for s in step_slots(&step) {
            self.touch(s);
        }
        self.steps.push(step);
    }
    pub(super) fn root(&self, mut s: SlotId) -> SlotId {
        while let Place::Alias { slot, .. } = self.plan.slots[s.index()].place {
            s = slot;
        }
        s
    }
    /// Makes a slot live until now.
    pub fn touch(&mut self, s: SlotId) {
        let root = self.root(s);
        self.life[root.index()].last = self.clock;
        self.life[s.index()].last = self.clock;
    }
    /// Copies a tensor or shares an object.
    pub fn copy(&mut self, dst: SlotId, src: SlotId) {
        if dst != src {
            self.step(Step::Copy { dst, src });
        }
    }
    /// Binds a data-dependent dim, which must be a symbol (a known number becomes a check), to element `index` of an
    /// integer slot. `min` and `max` bound the values allowed.
    pub fn bind(
        &mut self,
        dim: &Dim,
        slot: &Opnd,
        index: u32,
        min: &Dim,
        max: &Dim,
        what: &str,
    ) -> Result<(), Diag> {
        let error = self.error(what);
        let (min, max) = (self.expr(min), self.expr(max));
        let sym = match dim.as_symbol() {
            Some(s) => self.sym(s),
            None => {
                let name = format!("t{}", self.plan.symbols.len());
                self.plan.symbols.push(plan::Symbol {
                    name,
                    min: i64::MIN,
                    max: i64::MAX,
                    values: Vec::new(),
                });
                plan::SymId(self.plan.symbols.len() as u32 - 1)
            }
        };
        self.step(Step::Bind { sym, slot: slot.slot, index, min, max, error });
        if dim.as_symbol().is_none() {
            let (have, want) = (self.pool.sym(sym), self.expr(dim));
            let cond = self.pool.bin(BinOp::Eq, have, want);
            self.step(Step::Require { cond, error });
        }
        Ok(())
    }
    /// Binds a symbol of data to an expression over symbols that are known by then.
    pub fn let_(&mut self, dim: &Dim, value: &Dim) {
        if let Some(s) = dim.as_symbol() {
            let (sym, value) = (self.sym(s), self.expr(value));
            self.step(Step::Let { sym, value });
        }
    }
    /// Raises an error at run time unless two dims are equal; nothing is emitted when they are known to be.
    pub fn require_equal(&mut self, a: &Dim, b: &Dim, what: &str) {
        if a != b {
            let (x, y, error) = (self.expr(a), self.expr(b), self.error(what));
            let cond = self.pool.bin(BinOp::Eq, x, y);
            self.step(Step::Require { cond, error });
        }
    }
    /// An error message that kernels and steps can raise.
    pub fn error(&mut self, message: &str) -> ErrorId {
        let text = match self.node {
            Some(n) => format!("{}: {message}", self.graph.describe(n)),
            None => message.to_owned(),
        };
        if let Some(e) = self.errors.get(&text) {
            return *e;
        }
        self.plan.errors.push(text.clone());
        let id = ErrorId(self.plan.errors.len() as u32 - 1);
        self.errors.insert(text, id);
        id
    }
    /// The plan's symbol for a symbol of the graph.
    pub fn sym(&mut self, s: SymId) -> plan::SymId {
        if let Some(p) = self.syms.get(&s) {
            return *p;
        }
        let data = self.graph.symbols.get(s);
        self.plan.symbols.push(plan::Symbol {
            name: data.name.to_string(),
            min: data.min,
            max: data.max.unwrap_or(i64::MAX),
            values: Vec::new(),
        });
        let id = plan::SymId(self.plan.symbols.len() as u32 - 1);
        self.syms.insert(s, id);
        id
    }

    /// What cannot be lowered.
    pub(super) fn findings(mut self) -> Vec<Diag> {
        self.outputs();
        self.diags
    }
    pub(super) fn finish(mut self) -> Result<Module, Vec<Diag>> {
        let steps = self.end()?;
        self.plan.blocks[0].steps = steps;
        super::finish::finish(self)
    }
    /// Copies to the outputs what was not made there.
    pub(super) fn outputs(&mut self) {
        for (i, v) in self.graph.outputs().iter().enumerate() {
            let made = match self.slot(*v) {
                Ok(s) => s,
                Err(d) => {
                    self.diags.push(d);
                    continue;
                }
            };
            let slot = match (&self.plan.slots[made.index()], self.graph.ty(*v)) {
                (Slot { place: Place::Output(k), .. }, _) if *k == i as u32 => made,
                (Slot { kind: SlotKind::Object, .. }, _) => {
                    let out = self.object_slot();
                    self.copy(out, made);
                    out
                }
                (_, Type::Tensor(t)) => match t.dims() {
                    Ok(dims) => {
                        let (dtype, dims) = (t.dtype, dims.to_vec());
                        let out = self.new_slot(dtype, &dims, Place::Output(i as u32));
                        self.copy(out, made);
                        out
                    }
                    Err(d) => {
                        self.diags.push(d);
                        continue;
                    }
                },
                _ => made,
            };
            let port = self.port(self.graph.output_name(i), *v, slot);
            self.plan.outputs.push(port);
        }
    }
    /// Reports something that cannot be lowered without stopping.
    pub fn report(&mut self, d: Diag) {
        let at = self.node.map_or(Loc::None, |n| self.graph.node(n).loc.clone());
        self.diags.push(d.at(at));
    }
    /// Marks a symbol of the signature of a loop body as bound in the run.
    pub fn bound_in_run(&mut self, s: SymId) {
        self.bound_in_run.push(s);
    }
    /// The op of the current node; for messages.
    pub fn op(&self) -> &'g Op {
        &self.node().op
    }
}

/// The runtime's number for an element type.
pub fn rt_dtype(d: DType) -> planish_rt::dtype::DType {
    planish_rt::dtype::DType::from_code(d.onnx() as u32).unwrap_or(planish_rt::dtype::DType::U8)
}

fn value_type(t: &Type) -> plan::ValueType {
    match t {
        Type::Tensor(t) => plan::ValueType::Tensor(rt_dtype(t.dtype)),
        Type::Sequence(t) => plan::ValueType::Sequence(Box::new(value_type(t))),
        Type::Optional(t) => plan::ValueType::Optional(Box::new(value_type(t))),
        Type::Map(k, t) => plan::ValueType::Map(rt_dtype(*k), Box::new(value_type(t))),
    }
}
