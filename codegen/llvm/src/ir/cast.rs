//! Conversions. 16-bit floats are `i16` registers.

use super::{Emitter, constant, suffix, ty, vec_ty};
use planish_codegen::kernel::{Arch, CastOp, Elem, Ty, Val};

impl Emitter<'_> {
    pub(super) fn cast(&mut self, op: CastOp, a: Val, to: Ty) -> String {
        let from = self.ty_of(a);
        let a = self.name(a);
        let (f, t) = (ty(from), ty(to));
        match op {
            CastOp::Sext | CastOp::Zext | CastOp::Trunc | CastOp::SiToFp | CastOp::UiToFp => {
                self.def(format!("{} {f} {a} to {t}", op.name()))
            }
            CastOp::Bitcast if f == t => a,
            CastOp::Bitcast => self.def(format!("bitcast {f} {a} to {t}")),
            CastOp::FpToSi if self.converts_vectors(from, to) => self.saturated(&a, from, to),
            CastOp::FpToSi | CastOp::FpToUi => {
                let name = if op == CastOp::FpToSi { "fptosi" } else { "fptoui" };
                let name = format!("llvm.{name}.sat.{}.{}", suffix(to), suffix(from));
                self.call(&t, &name, &[(f, a)])
            }
            CastOp::FpExt => match from.elem {
                Elem::BF16 => self.bf16_to_f32(&a, from),
                Elem::F16 => {
                    let half = vec_ty("half", from.lanes);
                    let h = self.def(format!("bitcast {f} {a} to {half}"));
                    self.def(format!("fpext {half} {h} to {t}"))
                }
                _ => self.def(format!("fpext {f} {a} to {t}")),
            },
            CastOp::FpTrunc => match to.elem {
                Elem::BF16 => self.f32_to_bf16(&a, from),
                Elem::F16 => {
                    let half = vec_ty("half", from.lanes);
                    let h = self.def(format!("fptrunc {f} {a} to {half}"));
                    self.def(format!("bitcast {half} {h} to {t}"))
                }
                _ => self.def(format!("fptrunc {f} {a} to {t}")),
            },
        }
    }

    /// Whether the processor converts vectors of these types, but without saturation: the intrinsic would be done lane by
    /// lane.
    fn converts_vectors(&self, from: Ty, to: Ty) -> bool {
        let wide = match to.elem {
            Elem::I32 => true,
            Elem::I64 => self.target.features.avx512,
            _ => false,
        };
        wide && from.lanes > 1 && self.target.arch == Arch::X86_64
    }

    /// Toward zero, saturating, NaN gives 0: what the instruction cannot convert is kept from it.
    fn saturated(&mut self, a: &str, from: Ty, to: Ty) -> String {
        let (f, t, cond) = (ty(from), ty(to), ty(from.with_elem(Elem::I1)));
        let limit = if to.elem == Elem::I64 { 63f64 } else { 31f64 }.exp2();
        let float = |x: f64| match from.elem {
            Elem::F64 => constant(from, &[x.to_bits()]),
            _ => constant(from, &[u64::from((x as f32).to_bits())]),
        };
        let most = to.elem.mask() >> 1;
        let above = self.def(format!("fcmp oge {f} {a}, {}", float(limit)));
        let inside = self.def(format!("fcmp ogt {f} {a}, {}", float(-limit)));
        let x = self.def(format!("select {cond} {inside}, {f} {a}, {f} {}", float(-limit)));
        let x = self.def(format!("select {cond} {above}, {f} {}, {f} {x}", float(0.0)));
        let r = self.def(format!("fptosi {f} {x} to {t}"));
        let r = self.def(format!("select {cond} {above}, {t} {}, {t} {r}", constant(to, &[most])));
        let nan = self.def(format!("fcmp uno {f} {a}, {a}"));
        self.def(format!("select {cond} {nan}, {t} {}, {t} {r}", constant(to, &[0])))
    }

    fn bf16_to_f32(&mut self, a: &str, from: Ty) -> String {
        let int = from.with_elem(Elem::I32);
        let it = ty(int);
        let wide = self.def(format!("zext {} {a} to {it}", ty(from)));
        let up = self.def(format!("shl {it} {wide}, {}", constant(int, &[16])));
        self.def(format!("bitcast {it} {up} to {}", ty(from.with_elem(Elem::F32))))
    }

    /// Nearest-even by integers: the BF16 conversion instruction flushes subnormals.
    fn f32_to_bf16(&mut self, a: &str, from: Ty) -> String {
        let int = from.with_elem(Elem::I32);
        let (it, ft) = (ty(int), ty(from));
        let c = |n: u64| constant(int, &[n]);
        let bits = self.def(format!("bitcast {ft} {a} to {it}"));
        let high = self.def(format!("lshr {it} {bits}, {}", c(16)));
        let odd = self.def(format!("and {it} {high}, {}", c(1)));
        let bias = self.def(format!("add {it} {odd}, {}", c(0x7FFF)));
        let sum = self.def(format!("add {it} {bits}, {bias}"));
        let near = self.def(format!("lshr {it} {sum}, {}", c(16)));
        let quiet = self.def(format!("or {it} {high}, {}", c(0x40)));
        let nan = self.def(format!("fcmp uno {ft} {a}, {a}"));
        let cond = ty(from.with_elem(Elem::I1));
        let r = self.def(format!("select {cond} {nan}, {it} {quiet}, {it} {near}"));
        self.def(format!("trunc {it} {r} to {}", ty(from.with_elem(Elem::BF16))))
    }
}
