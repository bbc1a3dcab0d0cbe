//! One kernel to one Cranelift function.

use cranelift_codegen::ir::{
    AbiParam, Function, InstBuilder, MemFlagsData, Signature, StackSlot, StackSlotData, StackSlotKind, Type,
    UserFuncName, Value, types,
};
use cranelift_codegen::isa::{CallConv, OwnedTargetIsa};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use planish_codegen::kernel::{Block, Buf, Elem, Inst, Kernel, Op, ParamKind, Special, Ty, Val};

/// Plain memory access: it cannot trap, and its alignment is not relied on.
pub(crate) const PLAIN: MemFlagsData = MemFlagsData::new().with_notrap();

/// Cranelift type of one lane; truth values are bytes 0 or 1, 16-bit floats are their bits.
pub(crate) fn lane_ty(e: Elem) -> Type {
    match e {
        Elem::I1 | Elem::I8 => types::I8,
        Elem::I16 | Elem::F16 | Elem::BF16 => types::I16,
        Elem::I32 => types::I32,
        Elem::I64 => types::I64,
        Elem::F32 => types::F32,
        Elem::F64 => types::F64,
    }
}

/// The machine vector that holds a register of this type, if there is one.
pub(crate) fn packed(t: Ty) -> Option<Type> {
    let arith = !matches!(t.elem, Elem::I1 | Elem::F16 | Elem::BF16);
    (arith && t.lanes > 1 && t.bits() == 128).then(|| lane_ty(t.elem).by(u32::from(t.lanes))).flatten()
}

/// A register: one machine vector where [`packed`] says so, else one value per lane.
pub(crate) type Reg = Vec<Value>;

pub(crate) struct Emitter<'a, 'b> {
    pub(crate) k: &'a Kernel,
    pub(crate) b: FunctionBuilder<'b>,
    pub(crate) regs: Vec<Reg>,
    /// Address of each buffer parameter or value of each scalar.
    params: Vec<Value>,
    locals: Vec<Value>,
    range: (Value, Value),
    pub(crate) ctx: Value,
    /// Eight bytes that masked-off lanes read and write.
    pub(crate) dummy: Value,
    scratch: Option<StackSlot>,
}

/// The function of a verified CPU kernel.
pub(crate) fn function(k: &Kernel, isa: &OwnedTargetIsa, frontend: &mut FunctionBuilderContext) -> Function {
    let mut sig = Signature::new(CallConv::SystemV);
    sig.params.extend([AbiParam::new(types::I64); 4]);
    let mut func = Function::with_name_signature(UserFuncName::user(0, 0), sig);
    let mut b = FunctionBuilder::new(&mut func, frontend);
    let entry = b.create_block();
    b.append_block_params_for_function_params(entry);
    b.switch_to_block(entry);
    b.seal_block(entry);
    let p = b.block_params(entry).to_vec();
    let slot = b.create_sized_stack_slot(StackSlotData::new(StackSlotKind::ExplicitSlot, 8, 3));
    let dummy = b.ins().stack_addr(types::I64, slot, 0);
    let mut e = Emitter {
        k,
        b,
        regs: vec![Reg::new(); k.vals.len()],
        params: Vec::new(),
        locals: Vec::new(),
        range: (p[1], p[2]),
        ctx: p[3],
        dummy,
        scratch: None,
    };
    for i in 0..k.params.len() {
        let v = e.b.ins().load(types::I64, PLAIN, p[0], i as i32 * 8);
        e.params.push(v);
    }
    for l in &k.locals {
        let data = StackSlotData::new(StackSlotKind::ExplicitSlot, l.bytes() as u32 + 64, 4);
        let slot = e.b.create_sized_stack_slot(data);
        let at = e.b.ins().stack_addr(types::I64, slot, 63);
        let low = e.b.ins().iconst(types::I64, -64);
        // Rounded up to the alignment that local arrays have.
        let at = e.b.ins().band(at, low);
        e.locals.push(at);
    }
    e.block(&k.body);
    e.b.ins().return_(&[]);
    e.b.finalize(isa.frontend_config());
    func
}

impl Emitter<'_, '_> {
    pub(crate) fn ty(&self, v: Val) -> Ty {
        self.k.ty(v)
    }

    /// One value per lane.
    pub(crate) fn lanes(&mut self, v: Val) -> Vec<Value> {
        let reg = self.regs[v.index()].clone();
        self.unpack(&reg, self.ty(v))
    }

    pub(crate) fn unpack(&mut self, reg: &Reg, t: Ty) -> Vec<Value> {
        if packed(t).is_none() {
            return reg.clone();
        }
        (0..t.lanes).map(|i| self.b.ins().extractlane(reg[0], i as u8)).collect()
    }

    /// A register of type `t` from its lanes.
    pub(crate) fn pack(&mut self, lanes: Vec<Value>, t: Ty) -> Reg {
        let Some(vt) = packed(t) else { return lanes };
        if lanes.iter().all(|l| *l == lanes[0]) {
            return vec![self.b.ins().splat(vt, lanes[0])];
        }
        // Cranelift has no rule for `scalar_to_vector` of a byte on x86-64.
        let mut v = match t.elem {
            Elem::I8 => self.b.ins().splat(vt, lanes[0]),
            _ => self.b.ins().scalar_to_vector(vt, lanes[0]),
        };
        for (i, l) in lanes.iter().enumerate().skip(1) {
            v = self.b.ins().insertlane(v, *l, i as u8);
        }
        vec![v]
    }

    /// The machine values and their types that make up a register.
    pub(crate) fn parts(t: Ty) -> Vec<Type> {
        match packed(t) {
            Some(vt) => vec![vt],
            None => vec![lane_ty(t.elem); usize::from(t.lanes)],
        }
    }

    pub(crate) fn scalar(&self, v: Val) -> Value {
        self.regs[v.index()][0]
    }

    /// One lane from its bit pattern.
    pub(crate) fn constant(&mut self, e: Elem, bits: u64) -> Value {
        match e {
            Elem::F32 => self.b.ins().f32const(f32::from_bits(bits as u32)),
            Elem::F64 => self.b.ins().f64const(f64::from_bits(bits)),
            _ => {
                let shift = 64 - lane_ty(e).bits();
                self.b.ins().iconst(lane_ty(e), (bits << shift).cast_signed() >> shift)
            }
        }
    }

    /// Bytes in the stack for a change of shape.
    pub(crate) fn scratch(&mut self) -> Value {
        let slot = match self.scratch {
            Some(s) => s,
            None => {
                let bytes = u32::from(Ty::MAX_LANES) * 8;
                let data = StackSlotData::new(StackSlotKind::ExplicitSlot, bytes, 4);
                let s = self.b.create_sized_stack_slot(data);
                self.scratch = Some(s);
                s
            }
        };
        self.b.ins().stack_addr(types::I64, slot, 0)
    }

    pub(crate) fn base(&self, b: Buf) -> Value {
        match b {
            Buf::Param(i) => self.params[usize::from(i)],
            Buf::Local(i) => self.locals[usize::from(i)],
        }
    }

    pub(crate) fn buf_elem(&self, b: Buf) -> Elem {
        // The verifier has seen the buffer.
        self.k.buf_elem(b).unwrap_or(Elem::I8)
    }

    /// Whether loads may be treated as loads of constants.
    pub(crate) fn flags(&self, b: Buf, load: bool) -> MemFlagsData {
        let Buf::Param(i) = b else { return PLAIN };
        match self.k.params[usize::from(i)].kind {
            ParamKind::Buffer { access, may_alias: false, .. } if load && !access.writes() => {
                PLAIN.with_readonly()
            }
            _ => PLAIN,
        }
    }

    pub(crate) fn block(&mut self, b: &Block) {
        for inst in &b.insts {
            self.inst(inst);
        }
    }

    fn inst(&mut self, inst: &Inst) {
        match &inst.op {
            Op::For { lo, hi, step, init, body, .. } => {
                self.for_loop(&inst.outs, (*lo, *hi, *step), init, body);
            }
            Op::If { cond, then, other } => self.branch(&inst.outs, *cond, then, other),
            Op::While { init, cond, body } => self.while_loop(&inst.outs, init, cond, body),
            op => match inst.outs[..] {
                [out] => {
                    let reg = self.value(op, self.ty(out));
                    self.regs[out.index()] = reg;
                }
                _ => self.effect(op),
            },
        }
    }

    fn value(&mut self, op: &Op, t: Ty) -> Reg {
        match op {
            Op::Const(bits) => {
                if let ([one], Some(vt)) = (&bits[..], packed(t)) {
                    let lane = self.constant(t.elem, *one);
                    return vec![self.b.ins().splat(vt, lane)];
                }
                let lanes: Vec<Value> = (0..usize::from(t.lanes))
                    .map(|i| self.constant(t.elem, bits[if bits.len() == 1 { 0 } else { i }]))
                    .collect();
                self.pack(lanes, t)
            }
            Op::Param(i) => vec![self.params[usize::from(*i)]],
            Op::Special(Special::RangeHi) => vec![self.range.1],
            // SIMT values do not occur in CPU kernels.
            Op::Special(_) => vec![self.range.0],
            Op::Splat(v) => {
                let s = self.scalar(*v);
                self.pack(vec![s; usize::from(t.lanes)], t)
            }
            Op::Iota => {
                let lanes: Vec<Value> =
                    (0..u64::from(t.lanes)).map(|i| self.constant(t.elem, i & t.elem.mask())).collect();
                self.pack(lanes, t)
            }
            Op::Unary(o, a) => self.unary(*o, *a, t),
            Op::Binary(o, a, b) => self.binary(*o, *a, *b, t),
            Op::Fma(a, b, c) => self.fma(*a, *b, *c, t),
            Op::Cmp(o, a, b) => {
                let e = self.ty(*a).elem;
                let (x, y) = (self.lanes(*a), self.lanes(*b));
                x.iter().zip(&y).map(|(x, y)| self.compare(*o, e, *x, *y)).collect()
            }
            Op::Select(c, a, b) => {
                if self.ty(*c).is_scalar() {
                    let c = self.scalar(*c);
                    let (x, y) = (self.regs[a.index()].clone(), self.regs[b.index()].clone());
                    return x.iter().zip(&y).map(|(x, y)| self.b.ins().select(c, *x, *y)).collect();
                }
                let (c, x, y) = (self.lanes(*c), self.lanes(*a), self.lanes(*b));
                let lanes = (0..c.len()).map(|i| self.b.ins().select(c[i], x[i], y[i])).collect();
                self.pack(lanes, t)
            }
            Op::Cast(o, a) => self.cast(*o, *a, t),
            Op::Dot4 { kind, acc, a, b } => self.dot4(*kind, *acc, *a, *b, t),
            Op::Dot2Bf16 { acc, a, b } => self.dot2(*acc, *a, *b, t),
            Op::Shuffle(a, b, mask) => {
                let mut all = self.lanes(*a);
                all.extend(self.lanes(*b));
                let lanes = mask.iter().map(|m| all[usize::from(*m)]).collect();
                self.pack(lanes, t)
            }
            Op::Extract(a, i) => {
                let reg = self.regs[a.index()].clone();
                match packed(self.ty(*a)) {
                    Some(_) => vec![self.b.ins().extractlane(reg[0], *i as u8)],
                    None => vec![reg[usize::from(*i)]],
                }
            }
            Op::Insert(a, s, i) => {
                let (mut reg, s) = (self.regs[a.index()].clone(), self.scalar(*s));
                match packed(t) {
                    Some(_) => reg[0] = self.b.ins().insertlane(reg[0], s, *i as u8),
                    None => reg[usize::from(*i)] = s,
                }
                reg
            }
            Op::Reduce(o, a) => {
                let mut lanes = self.lanes(*a);
                while lanes.len() > 1 {
                    let high = lanes.split_off(lanes.len() / 2);
                    lanes =
                        lanes.iter().zip(&high).map(|(l, h)| self.binary_lane(*o, t.elem, *l, *h)).collect();
                }
                lanes
            }
            Op::Load { buf, idx, mask, .. } => self.load(*buf, *idx, *mask, t),
            Op::Gather { buf, idx, mask } => self.gather(*buf, *idx, *mask, t),
            other => unreachable!("{other:?} defines no value in a CPU kernel; the verifier has passed it"),
        }
    }

    fn effect(&mut self, op: &Op) {
        match op {
            Op::Store { buf, idx, val, mask, .. } => self.store(*buf, *idx, *val, *mask),
            Op::Scatter { buf, idx, val, mask } => self.scatter(*buf, *idx, *val, *mask),
            // A hint.
            Op::Prefetch { .. } => {}
            Op::ErrorIf { cond, code } => self.error_if(*cond, *code),
            other => unreachable!("{other:?} has no effect in a CPU kernel; the verifier has passed it"),
        }
    }
}
