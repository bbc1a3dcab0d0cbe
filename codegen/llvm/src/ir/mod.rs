//! Kernel IR -> LLVM IR text.
//!
//! Text rather than builder calls: one translation serves object code, PTX and reading, a mistake is a parse error with a line
//! and not an abort, and it needs no LLVM to run. `F16` and `BF16` registers are `i16`, so that no 16-bit float type ever
//! reaches the legaliser except inside a conversion that the target has.

mod arith;
mod cast;
mod control;
mod dot;
mod masks;
mod memory;
mod simt;

use planish_codegen::kernel::{
    Access, Arch, Block, Buf, Class, Elem, Inst, Kernel, KernelModule, Op, ParamKind, Space, TargetSpec, Ty,
    Val,
};
use std::collections::BTreeSet;
use std::fmt::Write;

/// What LLVM is told about a target.
pub(crate) struct LlvmTarget {
    pub(crate) triple: &'static str,
    pub(crate) cpu: String,
    pub(crate) features: String,
}

/// Triple, processor and features for a target.
pub(crate) fn llvm_target(t: &TargetSpec) -> LlvmTarget {
    let f = t.features;
    match t.arch {
        Arch::X86_64 => {
            let cpu = if f.avx512 {
                "x86-64-v4"
            } else if f.avx2 {
                "x86-64-v3"
            } else {
                "x86-64-v2"
            };
            let mut features = vec![];
            if f.vnni {
                features.push("+avx512vnni");
            }
            if f.bf16 {
                features.push("+avx512bf16");
            }
            LlvmTarget { triple: "x86_64-unknown-linux-gnu", cpu: cpu.into(), features: features.join(",") }
        }
        Arch::Aarch64 => {
            let features = if f.dotprod { "+neon,+v8.2a,+dotprod" } else { "+neon" };
            LlvmTarget {
                triple: "aarch64-unknown-linux-gnu",
                cpu: "generic".into(),
                features: features.into(),
            }
        }
        Arch::Nvptx => LlvmTarget {
            triple: "nvptx64-nvidia-cuda",
            cpu: format!("sm_{}", t.sm),
            features: format!("+ptx{}", t.ptx),
        },
    }
}

/// LLVM IR of a verified module.
pub(crate) fn module_text(m: &KernelModule, target: &TargetSpec) -> String {
    let lt = llvm_target(target);
    let mut out = format!("target triple = \"{}\"\n", lt.triple);
    let mut decls = BTreeSet::new();
    let mut globals = String::new();
    let mut md = Metadata::default();
    let mut body = String::new();
    for k in &m.kernels {
        let mut f = Emitter::new(k, target, md);
        f.function();
        body.push_str(&f.out);
        globals.push_str(&f.globals);
        decls.append(&mut f.decls);
        md = f.md;
    }
    out.push_str(&globals);
    out.push_str(&body);
    for d in decls {
        let _ = writeln!(out, "{d}");
    }
    let features = if lt.features.is_empty() {
        String::new()
    } else {
        format!(" \"target-features\"=\"{}\"", lt.features)
    };
    let width = u32::from(target.lanes_f32) * 32;
    let width = if target.arch == Arch::X86_64 {
        format!(" \"prefer-vector-width\"=\"{width}\" \"min-legal-vector-width\"=\"{width}\"")
    } else {
        String::new()
    };
    let _ = writeln!(
        out,
        "attributes #0 = {{ nounwind \"target-cpu\"=\"{}\"{features}{width} \"no-jump-tables\"=\"true\" \
         \"frame-pointer\"=\"none\" }}",
        lt.cpu
    );
    out.push_str(&md.lines);
    out
}

/// Numbered metadata of a module.
#[derive(Default)]
struct Metadata {
    lines: String,
    next: usize,
}

impl Metadata {
    /// Appends `!n = text` and gives `!n`.
    fn add(&mut self, text: &str) -> String {
        let id = format!("!{}", self.next);
        self.next += 1;
        let _ = writeln!(self.lines, "{id} = {}", text.replace("!self", &id));
        id
    }
}

/// How accesses to one memory object are written.
#[derive(Clone)]
struct Mem {
    ptr: String,
    space: u8,
    /// `, !alias.scope ...` and so on, appended to loads and stores.
    load_md: String,
    store_md: String,
}

struct Emitter<'a> {
    k: &'a Kernel,
    target: &'a TargetSpec,
    out: String,
    globals: String,
    decls: BTreeSet<String>,
    md: Metadata,
    /// Operand text of each value.
    names: Vec<String>,
    /// The pattern that all lanes of a constant have.
    uniform: Vec<Option<u64>>,
    defs: Vec<Option<&'a Op>>,
    params: Vec<Mem>,
    locals: Vec<Mem>,
    temps: usize,
    labels: usize,
    /// Label of the block being written.
    label: String,
}

/// LLVM type of an element in a register.
fn elem_ty(e: Elem) -> &'static str {
    match e {
        Elem::I1 => "i1",
        Elem::I8 => "i8",
        Elem::I16 | Elem::F16 | Elem::BF16 => "i16",
        Elem::I32 => "i32",
        Elem::I64 => "i64",
        Elem::F32 => "float",
        Elem::F64 => "double",
    }
}

/// LLVM type of an element in memory.
fn mem_elem(e: Elem) -> Elem {
    if e == Elem::I1 { Elem::I8 } else { e }
}

/// LLVM type of a register.
fn ty(t: Ty) -> String {
    vec_ty(elem_ty(t.elem), t.lanes)
}

fn vec_ty(elem: &str, lanes: u16) -> String {
    if lanes == 1 { elem.into() } else { format!("<{lanes} x {elem}>") }
}

/// Suffix of overloaded intrinsics: `v8f32`, `i64`.
fn suffix(t: Ty) -> String {
    let e = match t.elem {
        Elem::F32 => "f32".to_string(),
        Elem::F64 => "f64".to_string(),
        e => elem_ty(e).to_string(),
    };
    if t.lanes == 1 { e } else { format!("v{}{e}", t.lanes) }
}

/// One lane as an LLVM literal.
fn literal(e: Elem, bits: u64) -> String {
    match e {
        Elem::I1 => (if bits == 0 { "false" } else { "true" }).into(),
        Elem::F64 => format!("0x{bits:016X}"),
        Elem::F32 => format!("0x{:016X}", widen_f32(bits as u32)),
        _ => {
            let shift = 64 - e.bits();
            format!("{}", (bits << shift).cast_signed() >> shift)
        }
    }
}

/// The `double` pattern by which LLVM writes a `float`; NaN patterns keep their bits.
fn widen_f32(bits: u32) -> u64 {
    let v = f32::from_bits(bits);
    if v.is_nan() {
        let sign = u64::from(bits >> 31) << 63;
        return sign | (0x7FF << 52) | (u64::from(bits & 0x007F_FFFF) << 29);
    }
    f64::from(v).to_bits()
}

/// A constant of type `t`: one pattern for all lanes, or one each.
fn constant(t: Ty, bits: &[u64]) -> String {
    match (t.lanes, bits) {
        (1, [b]) => literal(t.elem, *b),
        (_, [0]) => "zeroinitializer".into(),
        (_, [b]) => format!("splat ({} {})", elem_ty(t.elem), literal(t.elem, *b)),
        (_, lanes) => {
            let e = elem_ty(t.elem);
            let items: Vec<String> = lanes.iter().map(|b| format!("{e} {}", literal(t.elem, *b))).collect();
            format!("<{}>", items.join(", "))
        }
    }
}

impl<'a> Emitter<'a> {
    fn new(k: &'a Kernel, target: &'a TargetSpec, md: Metadata) -> Emitter<'a> {
        Emitter {
            k,
            target,
            out: String::new(),
            globals: String::new(),
            decls: BTreeSet::new(),
            md,
            names: vec![String::new(); k.vals.len()],
            uniform: vec![None; k.vals.len()],
            defs: masks::definitions(k),
            params: Vec::new(),
            locals: Vec::new(),
            temps: 0,
            labels: 0,
            label: "entry".into(),
        }
    }

    fn line(&mut self, text: impl AsRef<str>) {
        self.out.push_str("  ");
        self.out.push_str(text.as_ref());
        self.out.push('\n');
    }

    /// `%tN = text`; gives `%tN`.
    fn def(&mut self, text: impl AsRef<str>) -> String {
        let name = format!("%t{}", self.temps);
        self.temps += 1;
        self.line(format!("{name} = {}", text.as_ref()));
        name
    }

    fn new_label(&mut self, what: &str) -> String {
        self.labels += 1;
        format!("{what}{}", self.labels)
    }

    fn start(&mut self, label: &str) {
        let _ = writeln!(self.out, "{label}:");
        self.label = label.into();
    }

    fn name(&self, v: Val) -> String {
        self.names[v.index()].clone()
    }

    fn ty_of(&self, v: Val) -> Ty {
        self.k.ty(v)
    }

    /// `type name`.
    fn typed(&self, v: Val) -> String {
        format!("{} {}", ty(self.ty_of(v)), self.names[v.index()])
    }

    fn bind(&mut self, v: Val, name: String) {
        self.names[v.index()] = name;
    }

    /// A call of an intrinsic, declared on the way. `args` are `(type, operand)`.
    fn call(&mut self, ret: &str, name: &str, args: &[(String, String)]) -> String {
        let text = self.call_text(ret, name, args);
        self.def(text)
    }

    fn call_void(&mut self, name: &str, args: &[(String, String)]) {
        let text = self.call_text("void", name, args);
        self.line(text);
    }

    fn call_text(&mut self, ret: &str, name: &str, args: &[(String, String)]) -> String {
        // Parameter attributes such as `align 4` belong to the call, not to the declaration.
        let bare = |t: &String| t.split(" align ").next().unwrap_or(t).to_string();
        let types: Vec<String> = args.iter().map(|(t, _)| bare(t)).collect();
        self.decls.insert(format!("declare {ret} @{name}({})", types.join(", ")));
        let full: Vec<String> = args.iter().map(|(t, v)| format!("{t} {v}")).collect();
        format!("call {ret} @{name}({})", full.join(", "))
    }

    fn function(&mut self) {
        self.constants(&self.k.body);
        match self.k.class {
            Class::Cpu => self.cpu_entry(),
            Class::Simt { block } => self.simt_entry(block),
        }
        self.alias_scopes();
        self.block(&self.k.body);
        self.line("ret void");
        self.out.push_str("}\n\n");
    }

    /// Constants are operands, not instructions; loops may name them before they come.
    fn constants(&mut self, b: &Block) {
        for inst in &b.insts {
            if let (Op::Const(bits), [out]) = (&inst.op, &inst.outs[..]) {
                self.names[out.index()] = constant(self.ty_of(*out), bits);
                if let [one] = bits[..] {
                    self.uniform[out.index()] = Some(one);
                }
            }
            for nb in inst.op.blocks() {
                self.constants(nb);
            }
        }
    }

    fn cpu_entry(&mut self) {
        let _ = writeln!(
            self.out,
            "define void @{}(ptr noalias noundef readonly %args, i64 noundef %lo, i64 noundef %hi, \
             ptr noalias noundef %ctx) #0 {{\nentry:",
            self.k.name
        );
        for (i, p) in self.k.params.iter().enumerate() {
            let at = self.def(format!("getelementptr i64, ptr %args, i64 {i}"));
            let (kind, extra) = match p.kind {
                ParamKind::Buffer { .. } => ("ptr", ", !invariant.load !{}"),
                ParamKind::Scalar => ("i64", ", !invariant.load !{}"),
            };
            let ptr = self.def(format!("load {kind}, ptr {at}, align 8{extra}"));
            self.params.push(Mem { ptr, space: 0, load_md: String::new(), store_md: String::new() });
        }
        for l in &self.k.locals {
            let e = elem_ty(mem_elem(l.elem));
            let ptr = self.def(format!("alloca [{} x {e}], align 64", l.len));
            self.locals.push(Mem { ptr, space: 0, load_md: String::new(), store_md: String::new() });
        }
    }

    /// Tells LLVM what the declarations promise: a buffer without `may_alias` overlaps no buffer that is written.
    fn alias_scopes(&mut self) {
        let k = self.k;
        let domain = self.md.add(&format!("distinct !{{!self, !\"{}\"}}", k.name));
        let mut scopes = vec![None; k.params.len()];
        for (scope, p) in scopes.iter_mut().zip(&k.params) {
            if matches!(p.kind, ParamKind::Buffer { may_alias: false, .. }) {
                *scope = Some(self.md.add(&format!("distinct !{{!self, {domain}, !\"{}\"}}", p.name)));
            }
        }
        let empty = self.md.add("!{}");
        for (i, p) in k.params.iter().enumerate() {
            let ParamKind::Buffer { access, may_alias, .. } = p.kind else { continue };
            let mut md = String::new();
            if let Some(s) = &scopes[i] {
                let own = self.md.add(&format!("!{{{s}}}"));
                let _ = write!(md, ", !alias.scope {own}");
            }
            let others: Vec<&str> = scopes
                .iter()
                .enumerate()
                .filter(|(j, _)| *j != i)
                .filter_map(|(_, s)| s.as_deref())
                .collect();
            if !others.is_empty() {
                let list = self.md.add(&format!("!{{{}}}", others.join(", ")));
                let _ = write!(md, ", !noalias {list}");
            }
            let m = &mut self.params[i];
            m.store_md = md.clone();
            m.load_md = md;
            if access == Access::Read && !may_alias {
                let _ = write!(m.load_md, ", !invariant.load {empty}");
            }
        }
    }

    fn mem(&self, b: Buf) -> Mem {
        match b {
            Buf::Param(i) => self.params[usize::from(i)].clone(),
            Buf::Local(i) => self.locals[usize::from(i)].clone(),
        }
    }

    fn elem_of(&self, b: Buf) -> Elem {
        // The verifier has seen the buffer.
        self.k.buf_elem(b).unwrap_or(Elem::I8)
    }

    fn is_shared(&self, i: usize) -> bool {
        self.k.locals[i].space == Space::Shared
    }

    fn block(&mut self, b: &Block) {
        for inst in &b.insts {
            self.inst(inst);
        }
    }

    fn inst(&mut self, inst: &Inst) {
        match &inst.op {
            Op::Const(_) => {}
            Op::For { lo, hi, step, init, body, .. } => {
                self.for_loop(&inst.outs, (*lo, *hi, *step), init, body);
            }
            Op::If { cond, then, other } => self.branch(&inst.outs, *cond, then, other),
            Op::While { init, cond, body } => self.while_loop(&inst.outs, init, cond, body),
            Op::ErrorIf { cond, code } => self.error_if(*cond, *code),
            op => match inst.outs[..] {
                [out] => {
                    let name = self.value(op, self.ty_of(out));
                    self.bind(out, name);
                }
                _ => self.effect(op),
            },
        }
    }

    /// Operand text of what a value-defining instruction gives.
    fn value(&mut self, op: &Op, t: Ty) -> String {
        match op {
            Op::Param(i) => self.params[usize::from(*i)].ptr.clone(),
            Op::Special(s) => self.special(*s),
            Op::Splat(v) => self.splat(&self.name(*v), t),
            Op::Iota => constant(t, &(0..u64::from(t.lanes)).map(|i| i & t.elem.mask()).collect::<Vec<_>>()),
            Op::Unary(o, a) => self.unary(*o, &self.name(*a), t),
            Op::Binary(o, a, b) => self.binary(*o, *a, *b, t),
            Op::Fma(a, b, c) => self.fma(&self.name(*a), &self.name(*b), &self.name(*c), t),
            Op::Cmp(o, a, b) => self.compare(*o, *a, *b),
            Op::Select(c, a, b) => {
                let text = format!("select {}, {}, {}", self.typed(*c), self.typed(*a), self.typed(*b));
                self.def(text)
            }
            Op::Cast(o, a) => self.cast(*o, *a, t),
            Op::Dot4 { kind, acc, a, b } => self.dot4(*kind, *acc, *a, *b, t),
            Op::Dot2Bf16 { acc, a, b } => self.dot2(*acc, *a, *b, t),
            Op::Shuffle(a, b, mask) => self.shuffle(*a, *b, mask),
            Op::Extract(a, i) => self.extract(&self.name(*a), self.ty_of(*a), *i),
            Op::Insert(a, s, i) => {
                if t.is_scalar() {
                    return self.name(*s);
                }
                let text = format!("insertelement {}, {}, i64 {i}", self.typed(*a), self.typed(*s));
                self.def(text)
            }
            Op::Reduce(o, a) => self.reduce(*o, &self.name(*a), self.ty_of(*a)),
            Op::Load { buf, idx, align, mask } => self.load(*buf, *idx, *align, *mask, t),
            Op::Gather { buf, idx, mask } => self.gather(*buf, *idx, *mask, t),
            Op::ShuffleXor(v, mask) => self.shuffle_xor(*v, *mask, t),
            Op::FragLoad { frag, buf, idx, stride } => self.frag_load(*frag, *buf, *idx, *stride, t),
            Op::Mma { a, b, c } => self.mma(*a, *b, *c),
            other => unreachable!("{other:?} defines no value; the verifier has passed the kernel"),
        }
    }

    fn effect(&mut self, op: &Op) {
        match op {
            Op::Store { buf, idx, val, align, mask } => self.store(*buf, *idx, *val, *align, *mask),
            Op::Scatter { buf, idx, val, mask } => self.scatter(*buf, *idx, *val, *mask),
            Op::Prefetch { buf, idx } => self.prefetch(*buf, *idx),
            Op::Barrier => self.barrier(),
            Op::CopyAsync { dst, dst_idx, src, src_idx, bytes } => {
                self.copy_async((*dst, *dst_idx), (*src, *src_idx), *bytes);
            }
            Op::CopyCommit => self.call_void("llvm.nvvm.cp.async.commit.group", &[]),
            Op::CopyWait(n) => {
                self.call_void("llvm.nvvm.cp.async.wait.group", &[("i32".into(), n.to_string())]);
            }
            Op::FragStore { buf, idx, stride, val } => self.frag_store(*buf, *idx, *stride, *val),
            other => unreachable!("{other:?} has no effect; the verifier has passed the kernel"),
        }
    }
}
