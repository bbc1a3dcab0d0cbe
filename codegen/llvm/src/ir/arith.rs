//! Arithmetic, comparisons, lane operations.

use super::{Emitter, constant, elem_ty, suffix, ty, vec_ty};
use planish_codegen::kernel::{BinOp, CmpOp, Elem, Ty, UnOp, Val};

impl Emitter<'_> {
    pub(super) fn splat(&mut self, v: &str, t: Ty) -> String {
        if t.is_scalar() {
            return v.into();
        }
        let one = self.def(format!("insertelement {} poison, {} {v}, i64 0", ty(t), elem_ty(t.elem)));
        self.def(format!("shufflevector {0} {one}, {0} poison, <{1} x i32> zeroinitializer", ty(t), t.lanes))
    }

    /// An intrinsic `llvm.name` overloaded on `t`, all operands and the result of that type.
    fn same_ty(&mut self, name: &str, t: Ty, args: &[&str]) -> String {
        let args: Vec<_> = args.iter().map(|a| (ty(t), (*a).to_string())).collect();
        self.call(&ty(t), &format!("llvm.{name}.{}", suffix(t)), &args)
    }

    pub(super) fn unary(&mut self, op: UnOp, a: &str, t: Ty) -> String {
        let name = match op {
            UnOp::Neg => return self.def(format!("sub {} {}, {a}", ty(t), constant(t, &[0]))),
            UnOp::Not => return self.def(format!("xor {} {a}, {}", ty(t), constant(t, &[t.elem.mask()]))),
            UnOp::FNeg => return self.def(format!("fneg {} {a}", ty(t))),
            UnOp::Ctpop => "ctpop",
            UnOp::Clz => {
                let args = [(ty(t), a.to_string()), ("i1".to_string(), "false".to_string())];
                return self.call(&ty(t), &format!("llvm.ctlz.{}", suffix(t)), &args);
            }
            UnOp::FAbs => "fabs",
            UnOp::Sqrt => "sqrt",
            UnOp::Floor => "floor",
            UnOp::Ceil => "ceil",
            UnOp::Trunc => "trunc",
            UnOp::RoundEven => "roundeven",
        };
        self.same_ty(name, t, &[a])
    }

    pub(super) fn binary(&mut self, op: BinOp, a: Val, b: Val, t: Ty) -> String {
        let known = self.uniform[b.index()];
        let (a, b) = (self.name(a), self.name(b));
        match op {
            BinOp::SDiv | BinOp::UDiv | BinOp::SRem | BinOp::URem => self.divide(op, &a, &b, known, t),
            BinOp::Shl | BinOp::LShr | BinOp::AShr => {
                let width = u64::from(t.elem.bits());
                let amount = match known {
                    Some(n) => constant(t, &[n % width]),
                    None => self.def(format!("and {} {b}, {}", ty(t), constant(t, &[width - 1]))),
                };
                let name = op.name();
                self.def(format!("{name} {} {a}, {amount}", ty(t)))
            }
            _ => self.simple_binary(op, &a, &b, t),
        }
    }

    /// Everything but divisions and shifts.
    pub(super) fn simple_binary(&mut self, op: BinOp, a: &str, b: &str, t: Ty) -> String {
        match op {
            BinOp::SMin | BinOp::SMax | BinOp::UMin | BinOp::UMax => self.same_ty(op.name(), t, &[a, b]),
            BinOp::FMin => self.same_ty("minimum", t, &[a, b]),
            BinOp::FMax => self.same_ty("maximum", t, &[a, b]),
            // `a < b ? a : b` is one minps; then a where b is NaN.
            BinOp::FMinNum | BinOp::FMaxNum => {
                let rel = if op == BinOp::FMinNum { "olt" } else { "ogt" };
                let t = ty(t);
                let cond = self.cmp_ty(&t);
                let c = self.def(format!("fcmp {rel} {t} {a}, {b}"));
                let m = self.def(format!("select {cond} {c}, {t} {a}, {t} {b}"));
                let nan = self.def(format!("fcmp uno {t} {b}, {b}"));
                self.def(format!("select {cond} {nan}, {t} {a}, {t} {m}"))
            }
            _ => self.def(format!("{} {} {a}, {b}", op.name(), ty(t))),
        }
    }

    fn cmp_ty(&self, t: &str) -> String {
        match t.strip_prefix('<').and_then(|r| r.split(' ').next()) {
            Some(n) => format!("<{n} x i1>"),
            None => "i1".into(),
        }
    }

    /// Division is guarded unless the divisor is a constant that needs no guard.
    fn divide(&mut self, op: BinOp, a: &str, b: &str, known: Option<u64>, t: Ty) -> String {
        let signed = matches!(op, BinOp::SDiv | BinOp::SRem);
        let tt = ty(t);
        let name = op.name();
        if known.is_some_and(|k| k != 0 && !(signed && k == t.elem.mask())) {
            return self.def(format!("{name} {tt} {a}, {b}"));
        }
        let cond = self.cmp_ty(&tt);
        let (zero, one, ones) = (constant(t, &[0]), constant(t, &[1]), constant(t, &[t.elem.mask()]));
        let is_zero = self.def(format!("icmp eq {tt} {b}, {zero}"));
        // Dividing by 1 in place of 0 and of -1: remainder 0 and quotient a, then mended.
        let mut special = is_zero.clone();
        let mut is_ones = None;
        if signed {
            let m = self.def(format!("icmp eq {tt} {b}, {ones}"));
            special = self.def(format!("or {cond} {is_zero}, {m}"));
            is_ones = Some(m);
        }
        let safe = self.def(format!("select {cond} {special}, {tt} {one}, {tt} {b}"));
        let mut r = self.def(format!("{name} {tt} {a}, {safe}"));
        let quotient = matches!(op, BinOp::SDiv | BinOp::UDiv);
        if let (Some(m), true) = (is_ones, quotient) {
            let neg = self.def(format!("sub {tt} {zero}, {a}"));
            r = self.def(format!("select {cond} {m}, {tt} {neg}, {tt} {r}"));
        }
        let at_zero = if quotient { zero.as_str() } else { a };
        self.def(format!("select {cond} {is_zero}, {tt} {at_zero}, {tt} {r}"))
    }

    pub(super) fn fma(&mut self, a: &str, b: &str, c: &str, t: Ty) -> String {
        self.same_ty("fma", t, &[a, b, c])
    }

    pub(super) fn compare(&mut self, op: CmpOp, a: Val, b: Val) -> String {
        let (inst, pred) = match op {
            CmpOp::Eq => ("icmp", "eq"),
            CmpOp::Ne => ("icmp", "ne"),
            CmpOp::Slt => ("icmp", "slt"),
            CmpOp::Sle => ("icmp", "sle"),
            CmpOp::Sgt => ("icmp", "sgt"),
            CmpOp::Sge => ("icmp", "sge"),
            CmpOp::Ult => ("icmp", "ult"),
            CmpOp::Ule => ("icmp", "ule"),
            CmpOp::Ugt => ("icmp", "ugt"),
            CmpOp::Uge => ("icmp", "uge"),
            CmpOp::FEq => ("fcmp", "oeq"),
            CmpOp::FNe => ("fcmp", "une"),
            CmpOp::FLt => ("fcmp", "olt"),
            CmpOp::FLe => ("fcmp", "ole"),
            CmpOp::FGt => ("fcmp", "ogt"),
            CmpOp::FGe => ("fcmp", "oge"),
            CmpOp::FULt => ("fcmp", "ult"),
            CmpOp::FULe => ("fcmp", "ule"),
            CmpOp::FUGt => ("fcmp", "ugt"),
            CmpOp::FUGe => ("fcmp", "uge"),
            CmpOp::FUno => ("fcmp", "uno"),
            CmpOp::FOrd => ("fcmp", "ord"),
        };
        let text = format!("{inst} {pred} {}, {}", self.typed(a), self.name(b));
        self.def(text)
    }

    pub(super) fn extract(&mut self, a: &str, t: Ty, lane: u16) -> String {
        if t.is_scalar() {
            return a.into();
        }
        self.def(format!("extractelement {} {a}, i64 {lane}", ty(t)))
    }

    pub(super) fn shuffle(&mut self, a: Val, b: Val, mask: &[u16]) -> String {
        let t = self.ty_of(a);
        let (a, b) = (self.name(a), self.name(b));
        if let [lane] = *mask {
            let n = t.lanes;
            return if lane < n { self.extract(&a, t, lane) } else { self.extract(&b, t, lane - n) };
        }
        if t.is_scalar() {
            let to = vec_ty(elem_ty(t.elem), mask.len() as u16);
            let mut v = "poison".to_string();
            for (i, m) in mask.iter().enumerate() {
                let s = if *m == 0 { &a } else { &b };
                v = self.def(format!("insertelement {to} {v}, {} {s}, i64 {i}", elem_ty(t.elem)));
            }
            return v;
        }
        self.shuffle_text(&a, &b, t, mask)
    }

    /// `shufflevector` of two vectors of type `t`.
    pub(super) fn shuffle_text(&mut self, a: &str, b: &str, t: Ty, mask: &[u16]) -> String {
        let lanes: Vec<String> = mask.iter().map(|m| format!("i32 {m}")).collect();
        self.def(format!(
            "shufflevector {0} {a}, {0} {b}, <{1} x i32> <{2}>",
            ty(t),
            mask.len(),
            lanes.join(", ")
        ))
    }

    /// The halving tree; on `I1` one test of the mask as an integer.
    pub(super) fn reduce(&mut self, op: BinOp, a: &str, t: Ty) -> String {
        if t.elem == Elem::I1 && !t.is_scalar() {
            let n = t.lanes;
            let bits = self.def(format!("bitcast {} {a} to i{n}", ty(t)));
            return match op {
                BinOp::Or => self.def(format!("icmp ne i{n} {bits}, 0")),
                BinOp::And => self.def(format!("icmp eq i{n} {bits}, -1")),
                _ => {
                    let int = format!("i{n}");
                    let c = self.call(&int, &format!("llvm.ctpop.{int}"), &[(int.clone(), bits)]);
                    self.def(format!("trunc {int} {c} to i1"))
                }
            };
        }
        let (mut v, mut t) = (a.to_string(), t);
        while t.lanes > 2 {
            let half = t.lanes / 2;
            let low: Vec<u16> = (0..half).collect();
            let high: Vec<u16> = (half..t.lanes).collect();
            let l = self.shuffle_text(&v, &v, t, &low);
            let h = self.shuffle_text(&v, &v, t, &high);
            t = t.with_lanes(half);
            v = self.simple_binary(op, &l, &h, t);
        }
        if t.lanes == 2 {
            let (l, h) = (self.extract(&v, t, 0), self.extract(&v, t, 1));
            v = self.simple_binary(op, &l, &h, t.with_lanes(1));
        }
        v
    }
}
