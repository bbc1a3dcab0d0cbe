//! Building kernels with Rust closures.
//!
//! A [`Builder`] owns the kernel under construction; instructions are appended to the current block and folded, shared
//! (common subexpressions) and type-checked on the way. A type error is a bug in a kernel builder and panics with the
//! instruction and the types.

mod control;
mod memory;
mod ops;
mod tidy;

use super::fold::{self, Folded, Known};
use super::func::{Class, Kernel, Local, Param, ParamKind};
use super::inst::{BinOp, Block, Inst, Op};
use super::types::{Access, Buf, Elem, Space, Ty, Val};
use super::verify::verify;
use super::{print, rules};
use std::collections::HashMap;

/// An operand: a value, or a literal that takes the type of the other operand (alone, an integer is `I64` and a float `F32`).
#[derive(Clone, Copy, Debug)]
pub enum Opd {
    Val(Val),
    Int(i64),
    Float(f64),
}

impl From<Val> for Opd {
    fn from(v: Val) -> Opd {
        Opd::Val(v)
    }
}

impl From<i64> for Opd {
    fn from(v: i64) -> Opd {
        Opd::Int(v)
    }
}

impl From<f64> for Opd {
    fn from(v: f64) -> Opd {
        Opd::Float(v)
    }
}

/// One open block.
#[derive(Default)]
struct Frame {
    insts: Vec<Inst>,
    seen: HashMap<(Op, Ty), Val>,
}

/// A kernel under construction. See the [module page](crate::kernel) for a worked example.
pub struct Builder {
    kernel: Kernel,
    frames: Vec<Frame>,
    /// What defines each value, where that is pure.
    defs: Vec<Option<Op>>,
    fast_math: bool,
}

impl Known for Builder {
    fn ty(&self, v: Val) -> Ty {
        self.kernel.ty(v)
    }

    fn uniform(&self, v: Val) -> Option<u64> {
        match self.def(v) {
            Some(Op::Const(bits)) if bits.len() == 1 => Some(bits[0]),
            _ => None,
        }
    }

    fn def(&self, v: Val) -> Option<&Op> {
        self.defs[v.index()].as_ref()
    }
}

impl Builder {
    fn new(name: &str, class: Class) -> Builder {
        Builder {
            kernel: Kernel {
                name: name.into(),
                class,
                params: Vec::new(),
                locals: Vec::new(),
                vals: Vec::new(),
                body: Block::default(),
            },
            frames: vec![Frame::default()],
            defs: Vec::new(),
            fast_math: false,
        }
    }

    /// Whether [functions](crate::math) of `F32` that follow may be approximations.
    pub fn set_fast_math(&mut self, fast: bool) {
        self.fast_math = fast;
    }

    /// What [`Builder::set_fast_math`] said last; no at first.
    pub fn fast_math(&self) -> bool {
        self.fast_math
    }

    /// Starts a CPU kernel. `name` is its symbol.
    pub fn cpu(name: &str) -> Builder {
        Builder::new(name, Class::Cpu)
    }

    /// Starts a SIMT kernel with blocks of `block` threads.
    pub fn simt(name: &str, block: [u32; 3]) -> Builder {
        Builder::new(name, Class::Simt { block })
    }

    fn param(&mut self, name: &str, kind: ParamKind) -> u16 {
        let i = u16::try_from(self.kernel.params.len()).expect("fewer than 65536 parameters");
        self.kernel.params.push(Param { name: name.into(), kind });
        i
    }

    /// The next argument word as a buffer, aligned to its element.
    pub fn buffer(&mut self, name: &str, elem: Elem, access: Access) -> Buf {
        let align = elem.bytes() as u32;
        Buf::Param(self.param(name, ParamKind::Buffer { elem, access, align, may_alias: false }))
    }

    /// The next argument word as a buffer that is read.
    pub fn input(&mut self, name: &str, elem: Elem) -> Buf {
        self.buffer(name, elem, Access::Read)
    }

    /// The next argument word as a buffer that is written.
    pub fn output(&mut self, name: &str, elem: Elem) -> Buf {
        self.buffer(name, elem, Access::Write)
    }

    /// The next argument word as a buffer that is read and written.
    pub fn inout(&mut self, name: &str, elem: Elem) -> Buf {
        self.buffer(name, elem, Access::ReadWrite)
    }

    /// States that a buffer parameter's address is a multiple of `align` bytes.
    pub fn set_align(&mut self, buf: Buf, align: u32) {
        if let ParamKind::Buffer { align: a, .. } = self.buffer_param(buf) {
            *a = align;
        }
    }

    /// Allows a buffer parameter's memory to overlap that of other parameters (an operation in place).
    pub fn may_alias(&mut self, buf: Buf) {
        if let ParamKind::Buffer { may_alias, .. } = self.buffer_param(buf) {
            *may_alias = true;
        }
    }

    fn buffer_param(&mut self, buf: Buf) -> &mut ParamKind {
        match buf {
            Buf::Param(i) => &mut self.kernel.params[usize::from(i)].kind,
            Buf::Local(_) => panic!("a local array is not a parameter"),
        }
    }

    /// The next argument word as an `I64` value.
    pub fn scalar(&mut self, name: &str) -> Val {
        let i = self.param(name, ParamKind::Scalar);
        self.pure(Op::Param(i), Ty::I64)
    }

    /// A scratch array per call (CPU) or thread (SIMT). Its contents start unspecified.
    pub fn local(&mut self, name: &str, elem: Elem, len: u32) -> Buf {
        self.array(name, elem, len, Space::Private)
    }

    /// A scratch array per thread block; SIMT only.
    pub fn shared(&mut self, name: &str, elem: Elem, len: u32) -> Buf {
        self.array(name, elem, len, Space::Shared)
    }

    fn array(&mut self, name: &str, elem: Elem, len: u32, space: Space) -> Buf {
        let i = u16::try_from(self.kernel.locals.len()).expect("fewer than 65536 arrays");
        self.kernel.locals.push(Local { name: name.into(), elem, len, space });
        Buf::Local(i)
    }

    /// Type of a value.
    pub fn ty(&self, v: Val) -> Ty {
        self.kernel.ty(v)
    }

    /// Element type of a buffer.
    pub fn elem(&self, buf: Buf) -> Elem {
        self.kernel.buf_elem(buf).expect("a buffer of this kernel")
    }

    /// Whether a value is known to have only zero bits in all lanes: 0, or +0.
    pub fn is_zero(&self, v: Val) -> bool {
        self.uniform(v) == Some(0)
    }

    /// The value as a compile-time integer, if every lane is one known integer (sign-extended).
    pub fn known_int(&self, v: Val) -> Option<i64> {
        let t = self.ty(v);
        let shift = 64 - t.elem.bits();
        self.uniform(v).filter(|_| t.elem.is_int()).map(|b| (b << shift).cast_signed() >> shift)
    }

    /// The value as a compile-time number, if every lane is one known `F32` or `F64`.
    pub fn known_float(&self, v: Val) -> Option<f64> {
        let bits = self.uniform(v)?;
        match self.ty(v).elem {
            Elem::F64 => Some(f64::from_bits(bits)),
            Elem::F32 => Some(f64::from(f32::from_bits(u32::try_from(bits).ok()?))),
            _ => None,
        }
    }

    fn new_val(&mut self, ty: Ty) -> Val {
        let v = Val(u32::try_from(self.kernel.vals.len()).expect("fewer than 2^32 values"));
        self.kernel.vals.push(ty);
        self.defs.push(None);
        v
    }

    fn push(&mut self, inst: Inst) {
        if let Err(why) = rules::check(&self.kernel, &inst) {
            let mut operands = Vec::new();
            inst.op.for_each_operand(|v| operands.push(format!("{v}: {}", self.ty(v))));
            panic!(
                "kernel {}: {why}: `{}` where {}",
                self.kernel.name,
                print::print_inst_head(&self.kernel, &inst),
                operands.join(", ")
            );
        }
        self.frames.last_mut().expect("a block is open").insts.push(inst);
    }

    /// Appends an instruction without results.
    fn effect(&mut self, op: Op) {
        self.push(Inst { outs: vec![], op });
    }

    /// Appends an instruction with one result, neither folded nor shared.
    fn value(&mut self, op: Op, ty: Ty) -> Val {
        let v = self.new_val(ty);
        self.push(Inst { outs: vec![v], op });
        v
    }

    /// Appends a pure instruction, or finds a value that is equal to it.
    fn pure(&mut self, mut op: Op, ty: Ty) -> Val {
        if let Op::Binary(o, a, b) = &mut op
            && o.is_commutative()
            && self.uniform(*a).is_some()
            && self.uniform(*b).is_none()
        {
            std::mem::swap(a, b);
        }
        if !self.operands_agree(&op) {
            return self.value(op, ty);
        }
        match fold::fold(self, &op, ty) {
            Folded::Const(bits) => return self.const_bits(ty, bits),
            Folded::Val(v) => return v,
            Folded::WithConst(o, v, bits) => {
                let c = self.const_bits(ty, bits);
                return self.binary(o, v, c);
            }
            Folded::No => {}
        }
        let key = (op, ty);
        if let Some(v) = self.frames.iter().rev().find_map(|f| f.seen.get(&key)) {
            return *v;
        }
        let v = self.value(key.0.clone(), ty);
        self.defs[v.index()] = Some(key.0.clone());
        self.frames.last_mut().expect("a block is open").seen.insert(key, v);
        v
    }

    /// Folding assumes well-typed operands; the check in `push` reports those that are not.
    fn operands_agree(&self, op: &Op) -> bool {
        match *op {
            Op::Binary(o, a, b) => self.ty(a) == self.ty(b) && rules::bin_allows(o, self.ty(a).elem),
            Op::Cmp(_, a, b) | Op::Select(_, a, b) => self.ty(a) == self.ty(b),
            _ => true,
        }
    }

    /// Every lane of `ty` this bit pattern.
    pub fn const_bits(&mut self, ty: Ty, bits: u64) -> Val {
        self.pure(Op::Const(vec![bits]), ty)
    }

    /// A vector constant by lane bit patterns.
    pub fn const_lanes(&mut self, elem: Elem, bits: &[u64]) -> Val {
        let lanes = u16::try_from(bits.len()).expect("few lanes");
        let same = bits.iter().all(|b| *b == bits[0]);
        let bits = if same { vec![bits[0]] } else { bits.to_vec() };
        self.pure(Op::Const(bits), Ty::vec(elem, lanes))
    }

    /// Every lane of `ty` this integer (low bits). Panics on a float type.
    pub fn int(&mut self, ty: Ty, value: i64) -> Val {
        assert!(ty.elem.is_int(), "integer constant of type {ty}");
        self.const_bits(ty, value.cast_unsigned() & ty.elem.mask())
    }

    /// Every lane of `ty` this number, rounded to the element's format. Panics on an integer type.
    pub fn float(&mut self, ty: Ty, value: f64) -> Val {
        let bits = match ty.elem {
            Elem::F64 => value.to_bits(),
            Elem::F32 => u64::from((value as f32).to_bits()),
            Elem::F16 => u64::from(half::f16::from_f64(value).to_bits()),
            Elem::BF16 => u64::from(half::bf16::from_f64(value).to_bits()),
            _ => panic!("float constant of type {ty}"),
        };
        self.const_bits(ty, bits)
    }

    /// `I64` constant.
    pub fn i64(&mut self, value: i64) -> Val {
        self.int(Ty::I64, value)
    }

    /// `F32` constant.
    pub fn f32(&mut self, value: f32) -> Val {
        self.const_bits(Ty::F32, u64::from(value.to_bits()))
    }

    /// All-zero bits.
    pub fn zero(&mut self, ty: Ty) -> Val {
        self.const_bits(ty, 0)
    }

    /// A literal in the given type, or the value itself; a scalar value is splatted to the lanes of `ty`.
    fn operand(&mut self, o: Opd, ty: Ty) -> Val {
        match o {
            Opd::Val(v) if self.ty(v).is_scalar() && !ty.is_scalar() && self.ty(v).elem == ty.elem => {
                self.splat(v, ty.lanes)
            }
            Opd::Val(v) => v,
            Opd::Int(i) if ty.elem.is_int() => self.int(ty, i),
            Opd::Int(i) => self.float(ty, i as f64),
            Opd::Float(f) => self.float(ty, f),
        }
    }

    /// The common type of operands: that of the widest value among them.
    fn common(&self, opds: &[Opd]) -> Ty {
        let vals = opds.iter().filter_map(|o| match o {
            Opd::Val(v) => Some(self.ty(*v)),
            _ => None,
        });
        vals.reduce(|a, b| if b.lanes > a.lanes { b } else { a })
            .unwrap_or(if opds.iter().any(|o| matches!(o, Opd::Float(_))) { Ty::F32 } else { Ty::I64 })
    }

    /// An index operand (`I64`).
    fn index(&mut self, o: impl Into<Opd>) -> Val {
        self.operand(o.into(), Ty::I64)
    }

    fn binary(&mut self, op: BinOp, a: impl Into<Opd>, b: impl Into<Opd>) -> Val {
        let (a, b) = (a.into(), b.into());
        let ty = self.common(&[a, b]);
        let (a, b) = (self.operand(a, ty), self.operand(b, ty));
        self.pure(Op::Binary(op, a, b), ty)
    }

    /// Ends the kernel: drops unused pure instructions, numbers values in order of definition, verifies. Panics on an invalid
    /// kernel, which is a bug in its builder.
    pub fn finish(mut self) -> Kernel {
        assert_eq!(self.frames.len(), 1, "a block is still open");
        self.kernel.body.insts = std::mem::take(&mut self.frames[0].insts);
        tidy::tidy(&mut self.kernel);
        let found = verify(&self.kernel);
        if let Some(first) = found.first() {
            panic!("{first} (of {} findings)\n{}", found.len(), self.kernel);
        }
        self.kernel
    }
}
