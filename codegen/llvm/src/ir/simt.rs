//! SIMT kernels: entry, thread indices, barriers, asynchronous copies, fragments.

use super::{Emitter, Mem, elem_ty, mem_elem, ty};
use planish_codegen::kernel::{Buf, Elem, Frag, ParamKind, Special, Ty, Val};
use std::fmt::Write;

impl Emitter<'_> {
    /// Parameters are the arguments themselves; buffers live in global memory.
    pub(super) fn simt_entry(&mut self, block: [u32; 3]) {
        let mut list = Vec::new();
        for (i, p) in self.k.params.iter().enumerate() {
            let (text, space) = match p.kind {
                ParamKind::Buffer { align, may_alias, access, .. } => {
                    let noalias = if may_alias { "" } else { " noalias" };
                    let ro = if access.writes() { "" } else { " readonly" };
                    (format!("ptr addrspace(1){noalias}{ro} align {align} %p{i}"), 1)
                }
                ParamKind::Scalar => (format!("i64 %p{i}"), 0),
            };
            list.push(text);
            self.params.push(Mem {
                ptr: format!("%p{i}"),
                space,
                load_md: String::new(),
                store_md: String::new(),
            });
        }
        let [x, y, z] = block;
        let _ = writeln!(
            self.out,
            "define ptx_kernel void @{}({}) #0 \"nvvm.reqntid\"=\"{x},{y},{z}\" {{\nentry:",
            self.k.name,
            list.join(", ")
        );
        for (i, l) in self.k.locals.iter().enumerate() {
            let e = elem_ty(mem_elem(l.elem));
            let mem = if self.is_shared(i) {
                let name = format!("@{}_{}", self.k.name, l.name);
                let _ = writeln!(
                    self.globals,
                    "{name} = internal addrspace(3) global [{} x {e}] undef, align 64",
                    l.len
                );
                Mem { ptr: name, space: 3, load_md: String::new(), store_md: String::new() }
            } else {
                let ptr = self.def(format!("alloca [{} x {e}], align 16", l.len));
                Mem { ptr, space: 0, load_md: String::new(), store_md: String::new() }
            };
            self.locals.push(mem);
        }
    }

    pub(super) fn special(&mut self, s: Special) -> String {
        let axis = |d: u8| ["x", "y", "z"][usize::from(d)];
        let name = match s {
            Special::RangeLo => return "%lo".into(),
            Special::RangeHi => return "%hi".into(),
            Special::ThreadId(d) => format!("tid.{}", axis(d)),
            Special::BlockId(d) => format!("ctaid.{}", axis(d)),
            Special::BlockDim(d) => format!("ntid.{}", axis(d)),
            Special::GridDim(d) => format!("nctaid.{}", axis(d)),
        };
        let v = self.call("i32", &format!("llvm.nvvm.read.ptx.sreg.{name}"), &[]);
        self.def(format!("zext i32 {v} to i64"))
    }

    pub(super) fn barrier(&mut self) {
        let zero = ("i32".to_string(), "0".to_string());
        self.call_void("llvm.nvvm.barrier.cta.sync.aligned.all", &[zero]);
    }

    pub(super) fn shuffle_xor(&mut self, v: Val, mask: u8, t: Ty) -> String {
        let a = self.name(v);
        let bits = if t.elem == Elem::F32 { self.def(format!("bitcast float {a} to i32")) } else { a };
        let arg = |v: String| ("i32".to_string(), v);
        let r = self.call(
            "i32",
            "llvm.nvvm.shfl.sync.bfly.i32",
            &[arg("-1".into()), arg(bits), arg(mask.to_string()), arg("31".into())],
        );
        if t.elem == Elem::F32 { self.def(format!("bitcast i32 {r} to float")) } else { r }
    }

    pub(super) fn copy_async(&mut self, dst: (Buf, Val), src: (Buf, Val), bytes: u8) {
        let mut at = |(b, i): (Buf, Val)| {
            let (m, e) = (self.mem(b), elem_ty(mem_elem(self.elem_of(b))));
            let pt = format!("ptr addrspace({})", m.space);
            let p = self.def(format!("getelementptr {e}, {pt} {}, i64 {}", m.ptr, self.name(i)));
            (pt, p)
        };
        let (d, s) = (at(dst), at(src));
        // Only the 16-byte form can bypass L1.
        let kind = if bytes == 16 { "cg" } else { "ca" };
        self.call_void(&format!("llvm.nvvm.cp.async.{kind}.shared.global.{bytes}"), &[d, s]);
    }

    /// Addresses of the runs of neighbouring elements that this thread holds: `idx + major * stride + minor`.
    fn frag_runs(
        &mut self,
        (frag, elem): (Frag, Elem),
        m: &Mem,
        idx: Val,
        stride: Val,
    ) -> Vec<(String, String)> {
        let e = elem_ty(elem);
        let pt = if m.space == 0 { "ptr".to_string() } else { format!("ptr addrspace({})", m.space) };
        let (idx, stride) = (self.name(idx), self.name(stride));
        let n = frag.together(elem);
        let lane = self.call("i32", "llvm.nvvm.read.ptx.sreg.laneid", &[]);
        let lane = self.def(format!("zext i32 {lane} to i64"));
        let group = self.def(format!("lshr i64 {lane}, 2"));
        let quad = self.def(format!("and i64 {lane}, 3"));
        let first = self.def(format!("shl i64 {quad}, {}", n.trailing_zeros()));
        let row = self.def(format!("mul i64 {group}, {stride}"));
        let base = self.def(format!("add i64 {idx}, {row}"));
        let base = self.def(format!("add i64 {base}, {first}"));
        let mut out = Vec::new();
        for slot in (0..frag.lanes(elem)).step_by(n.into()) {
            // Lane 0 gives the part of the layout that does not depend on the lane.
            let (major, minor) = frag.coord(elem, 0, slot.into());
            let rows = self.def(format!("mul i64 {stride}, {major}"));
            let at = self.def(format!("add i64 {base}, {rows}"));
            let at = self.def(format!("add i64 {at}, {minor}"));
            let p = self.def(format!("getelementptr {e}, {pt} {}, i64 {at}", m.ptr));
            out.push((pt.clone(), p));
        }
        out
    }

    pub(super) fn frag_load(&mut self, frag: Frag, buf: Buf, idx: Val, stride: Val, t: Ty) -> String {
        let m = self.mem(buf);
        let e = elem_ty(t.elem);
        let n = u32::from(frag.together(t.elem));
        let align = t.elem.bytes() as u32 * n;
        let mut v = "poison".to_string();
        for (i, (pt, p)) in (0..).zip(self.frag_runs((frag, t.elem), &m, idx, stride)) {
            if n == 1 {
                let x = self.def(format!("load {e}, {pt} {p}, align {align}{}", m.load_md));
                v = self.def(format!("insertelement {} {v}, {e} {x}, i64 {i}", ty(t)));
                continue;
            }
            let run = self.def(format!("load <{n} x {e}>, {pt} {p}, align {align}{}", m.load_md));
            for j in 0..n {
                let x = self.def(format!("extractelement <{n} x {e}> {run}, i64 {j}"));
                v = self.def(format!("insertelement {} {v}, {e} {x}, i64 {}", ty(t), n * i + j));
            }
        }
        v
    }

    pub(super) fn frag_store(&mut self, buf: Buf, idx: Val, stride: Val, val: Val) {
        let m = self.mem(buf);
        let t = self.ty_of(val);
        let v = self.name(val);
        let e = elem_ty(t.elem);
        for (i, (pt, p)) in self.frag_runs((Frag::C, t.elem), &m, idx, stride).into_iter().enumerate() {
            let first = 2 * i as u16;
            let pair = self.shuffle_text(&v, &v, t, &[first, first + 1]);
            self.line(format!("store <2 x {e}> {pair}, {pt} {p}, align 8{}", m.store_md));
        }
    }

    pub(super) fn mma(&mut self, a: Val, b: Val, c: Val) -> String {
        let factor = self.ty_of(a).elem;
        let mut args = Vec::new();
        for v in [a, b] {
            let t = self.ty_of(v);
            let words = t.lanes / Frag::A.together(t.elem);
            let packed = self.def(format!("bitcast {} to <{words} x i32>", self.typed(v)));
            for i in 0..words {
                let w = self.def(format!("extractelement <{words} x i32> {packed}, i64 {i}"));
                if factor == Elem::F16 {
                    let h = self.def(format!("bitcast i32 {w} to <2 x half>"));
                    args.push(("<2 x half>".to_string(), h));
                } else {
                    args.push(("i32".to_string(), w));
                }
            }
        }
        let ct = self.ty_of(c);
        let (acc, sum) = (self.name(c), elem_ty(ct.elem));
        for i in 0..4 {
            let x = self.extract(&acc, ct, i);
            args.push((sum.to_string(), x));
        }
        let name = match factor {
            Elem::BF16 => "llvm.nvvm.mma.m16n8k16.row.col.bf16",
            Elem::F16 => "llvm.nvvm.mma.m16n8k16.row.col.f32.f32",
            Elem::F32 => "llvm.nvvm.mma.m16n8k8.row.col.tf32",
            _ => "llvm.nvvm.mma.m16n8k32.row.col.s8",
        };
        let ret = format!("{{{sum}, {sum}, {sum}, {sum}}}");
        let r = self.call(&ret, name, &args);
        let mut v = "poison".to_string();
        for i in 0..4 {
            let x = self.def(format!("extractvalue {ret} {r}, {i}"));
            v = self.def(format!("insertelement <4 x {sum}> {v}, {sum} {x}, i64 {i}"));
        }
        v
    }
}
