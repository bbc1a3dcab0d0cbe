//! Byte and bf16 dot products: one instruction where the target has it, else a short exact expansion.

use super::{Emitter, constant, ty, vec_ty};
use planish_codegen::kernel::{Arch, Dot4, Elem, Ty, Val};

impl Emitter<'_> {
    pub(super) fn dot4(&mut self, kind: Dot4, acc: Val, a: Val, b: Val, t: Ty) -> String {
        let (acc, a, b) = (self.name(acc), self.name(a), self.name(b));
        self.split_dot(t, Elem::I8, 4, (&acc, &a, &b), |e, t, acc, a, b| e.dot4_part(kind, acc, a, b, t))
    }

    pub(super) fn dot2(&mut self, acc: Val, a: Val, b: Val, t: Ty) -> String {
        let (acc, a, b) = (self.name(acc), self.name(a), self.name(b));
        self.split_dot(t, Elem::BF16, 2, (&acc, &a, &b), |e, t, acc, a, b| e.dot2_part(acc, a, b, t))
    }

    /// Widest accumulator that has dot instructions.
    fn dot_lanes(&self) -> u16 {
        match self.target.arch {
            Arch::X86_64 if self.target.features.avx512 => 16,
            Arch::X86_64 => 8,
            _ => 4,
        }
    }

    /// Applies `f` to pieces of at most the machine's width and joins what it gives.
    fn split_dot(
        &mut self,
        t: Ty,
        byte: Elem,
        ratio: u16,
        (acc, a, b): (&str, &str, &str),
        f: impl Fn(&mut Self, Ty, &str, &str, &str) -> String + Copy,
    ) -> String {
        if t.lanes <= self.dot_lanes() {
            return f(self, t, acc, a, b);
        }
        let half = t.lanes / 2;
        let src = Ty::vec(byte, t.lanes * ratio);
        let mut parts = Vec::new();
        for lo in [0, half] {
            let small: Vec<u16> = (lo..lo + half).collect();
            let wide: Vec<u16> = (lo * ratio..(lo + half) * ratio).collect();
            let acc = self.shuffle_text(acc, acc, t, &small);
            let (pa, pb) = (self.shuffle_text(a, a, src, &wide), self.shuffle_text(b, b, src, &wide));
            parts.push(self.split_dot(t.with_lanes(half), byte, ratio, (&acc, &pa, &pb), f));
        }
        let all: Vec<u16> = (0..t.lanes).collect();
        self.shuffle_text(&parts[0], &parts[1], t.with_lanes(half), &all)
    }

    fn dot4_part(&mut self, kind: Dot4, acc: &str, a: &str, b: &str, t: Ty) -> String {
        let f = self.target.features;
        let bytes = Ty::vec(Elem::I8, t.lanes * 4);
        let (at, bt) = (ty(t), ty(bytes));
        let sized = matches!(t.lanes, 4 | 8 | 16);
        let x86 = self.target.arch == Arch::X86_64;
        if kind == Dot4::U8S8Pairs {
            let fits = x86 && sized && (t.lanes < 16 || f.avx512);
            return if fits {
                self.dot4_saturating(acc, a, b, t)
            } else {
                self.dot4_by_lanes(kind, acc, a, b, t)
            };
        }
        // x * y of one signedness in terms of the other: flipping the top bit of x adds 128 (as unsigned) or takes 128 away.
        let flipped = |e: &mut Self| e.def(format!("xor {bt} {a}, {}", constant(bytes, &[0x80])));
        if x86 && f.vnni && sized {
            let name = format!("llvm.x86.avx512.vpdpbusd.{}", t.bits());
            let call = |e: &mut Self, acc: &str, a: &str, b: &str| {
                e.call(
                    &at,
                    &name,
                    &[(at.clone(), acc.into()), (bt.clone(), a.into()), (bt.clone(), b.into())],
                )
            };
            if kind == Dot4::U8S8 {
                return call(self, acc, a, b);
            }
            let ua = flipped(self);
            let sum = call(self, acc, &ua, b);
            let ones = constant(bytes, &[1]);
            let sb = call(self, &constant(t, &[0]), &ones, b);
            let fix = self.def(format!("shl {at} {sb}, {}", constant(t, &[7])));
            return self.def(format!("sub {at} {sum}, {fix}"));
        }
        if self.target.arch == Arch::Aarch64 && f.dotprod && t.lanes == 4 {
            let name = "llvm.aarch64.neon.sdot.v4i32.v16i8";
            let call = |e: &mut Self, acc: &str, a: &str, b: &str| {
                e.call(&at, name, &[(at.clone(), acc.into()), (bt.clone(), a.into()), (bt.clone(), b.into())])
            };
            if kind == Dot4::S8S8 {
                return call(self, acc, a, b);
            }
            let sa = flipped(self);
            let sum = call(self, acc, &sa, b);
            let ones = constant(bytes, &[1]);
            let sb = call(self, &constant(t, &[0]), &ones, b);
            let fix = self.def(format!("shl {at} {sb}, {}", constant(t, &[7])));
            return self.def(format!("add {at} {sum}, {fix}"));
        }
        if x86 && sized {
            return self.dot4_by_pairs(kind, acc, a, b, t);
        }
        self.dot4_by_lanes(kind, acc, a, b, t)
    }

    /// Even and odd bytes as 16-bit lanes, each pair multiplied and added by `pmaddwd`, which cannot overflow here.
    fn dot4_by_pairs(&mut self, kind: Dot4, acc: &str, a: &str, b: &str, t: Ty) -> String {
        let words = Ty::vec(Elem::I16, t.lanes * 2);
        let (at, wt) = (ty(t), ty(words));
        let bt = ty(Ty::vec(Elem::I8, t.lanes * 4));
        let c8 = constant(words, &[8]);
        let name = match t.lanes {
            4 => "llvm.x86.sse2.pmadd.wd",
            8 => "llvm.x86.avx2.pmadd.wd",
            _ => "llvm.x86.avx512.pmaddw.d.512",
        };
        let mut sum = acc.to_string();
        let wa = self.def(format!("bitcast {bt} {a} to {wt}"));
        let wb = self.def(format!("bitcast {bt} {b} to {wt}"));
        let shift = if kind == Dot4::U8S8 { "lshr" } else { "ashr" };
        for odd in [false, true] {
            let (mut x, mut y) = (wa.clone(), wb.clone());
            if !odd {
                x = self.def(format!("shl {wt} {wa}, {c8}"));
                y = self.def(format!("shl {wt} {wb}, {c8}"));
            }
            let x = self.def(format!("{shift} {wt} {x}, {c8}"));
            let y = self.def(format!("ashr {wt} {y}, {c8}"));
            let p = self.call(&at, name, &[(wt.clone(), x), (wt.clone(), y)]);
            sum = self.def(format!("add {at} {sum}, {p}"));
        }
        sum
    }

    /// Pairs of products added with saturation (`pmaddubsw`), and then pairs of these.
    fn dot4_saturating(&mut self, acc: &str, a: &str, b: &str, t: Ty) -> String {
        let words = Ty::vec(Elem::I16, t.lanes * 2);
        let (at, wt, bt) = (ty(t), ty(words), ty(Ty::vec(Elem::I8, t.lanes * 4)));
        let (pairs, sums) = match t.lanes {
            4 => ("llvm.x86.ssse3.pmadd.ub.sw.128", "llvm.x86.sse2.pmadd.wd"),
            8 => ("llvm.x86.avx2.pmadd.ub.sw", "llvm.x86.avx2.pmadd.wd"),
            _ => ("llvm.x86.avx512.pmaddubs.w.512", "llvm.x86.avx512.pmaddw.d.512"),
        };
        let p = self.call(&wt, pairs, &[(bt.clone(), a.into()), (bt, b.into())]);
        let s = self.call(&at, sums, &[(wt.clone(), p), (wt, constant(words, &[1]))]);
        self.def(format!("add {at} {acc}, {s}"))
    }

    fn dot4_by_lanes(&mut self, kind: Dot4, acc: &str, a: &str, b: &str, t: Ty) -> String {
        let at = ty(t);
        let bt = ty(Ty::vec(Elem::I8, t.lanes * 4));
        let wa = self.def(format!("bitcast {bt} {a} to {at}"));
        let wb = self.def(format!("bitcast {bt} {b} to {at}"));
        let c = |n: u64| constant(t, &[n]);
        let shift = if kind == Dot4::S8S8 { "ashr" } else { "lshr" };
        let mut sum = acc.to_string();
        let mut pair = None;
        for j in 0..4u64 {
            let xa = self.def(format!("shl {at} {wa}, {}", c(24 - 8 * j)));
            let xb = self.def(format!("shl {at} {wb}, {}", c(24 - 8 * j)));
            let xa = self.def(format!("{shift} {at} {xa}, {}", c(24)));
            let xb = self.def(format!("ashr {at} {xb}, {}", c(24)));
            let mut p = self.def(format!("mul {at} {xa}, {xb}"));
            if kind == Dot4::U8S8Pairs {
                let Some(first) = pair.take() else {
                    pair = Some(p);
                    continue;
                };
                p = self.def(format!("add {at} {first}, {p}"));
                let mask = if t.lanes == 1 { "i1".to_string() } else { vec_ty("i1", t.lanes) };
                for (order, limit) in [("sgt", i16::MIN), ("slt", i16::MAX)] {
                    let limit = constant(t, &[i32::from(limit).cast_unsigned().into()]);
                    let within = self.def(format!("icmp {order} {at} {p}, {limit}"));
                    p = self.def(format!("select {mask} {within}, {at} {p}, {at} {limit}"));
                }
            }
            sum = self.def(format!("add {at} {sum}, {p}"));
        }
        sum
    }

    fn dot2_part(&mut self, acc: &str, a: &str, b: &str, t: Ty) -> String {
        let at = ty(t);
        let pairs = t.lanes * 2;
        let it16 = vec_ty("i16", pairs);
        if self.target.features.bf16 && matches!(t.lanes, 4 | 8 | 16) {
            let bft = vec_ty("bfloat", pairs);
            let xa = self.def(format!("bitcast {it16} {a} to {bft}"));
            let xb = self.def(format!("bitcast {it16} {b} to {bft}"));
            let name = format!("llvm.x86.avx512bf16.dpbf16ps.{}", t.bits());
            return self.call(&at, &name, &[(at.clone(), acc.into()), (bft.clone(), xa), (bft, xb)]);
        }
        let int = t.with_elem(Elem::I32);
        let it = ty(int);
        let wa = self.def(format!("bitcast {it16} {a} to {it}"));
        let wb = self.def(format!("bitcast {it16} {b} to {it}"));
        let mut sum = acc.to_string();
        for odd in [true, false] {
            let mut half = |w: &str| {
                let bits = if odd {
                    self.def(format!("and {it} {w}, {}", constant(int, &[0xFFFF_0000])))
                } else {
                    self.def(format!("shl {it} {w}, {}", constant(int, &[16])))
                };
                self.def(format!("bitcast {it} {bits} to {at}"))
            };
            let (x, y) = (half(&wa), half(&wb));
            sum = self.fma(&x, &y, &sum, t);
        }
        sum
    }
}
