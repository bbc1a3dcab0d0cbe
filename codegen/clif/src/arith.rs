//! Arithmetic: whole vectors where the machine has the operation, else lane by lane.

use crate::emit::{Emitter, Reg, lane_ty, packed};
use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::{InstBuilder, Value, types};
use planish_codegen::kernel::{BinOp, CmpOp, Dot4, Elem, Ty, UnOp, Val};

impl Emitter<'_, '_> {
    pub(crate) fn unary(&mut self, op: UnOp, a: Val, t: Ty) -> Reg {
        if packed(t).is_some() && (op.is_float() || matches!(op, UnOp::Neg | UnOp::Not)) {
            let x = self.scalar(a);
            return vec![self.unary_value(op, t.elem, x)];
        }
        let lanes = self.lanes(a);
        let lanes = lanes.into_iter().map(|x| self.unary_value(op, t.elem, x)).collect();
        self.pack(lanes, t)
    }

    fn unary_value(&mut self, op: UnOp, e: Elem, x: Value) -> Value {
        match op {
            UnOp::Neg => self.b.ins().ineg(x),
            UnOp::Not if e == Elem::I1 => self.b.ins().bxor_imm_s(x, 1),
            UnOp::Not => self.b.ins().bnot(x),
            UnOp::FNeg => self.b.ins().fneg(x),
            UnOp::FAbs => self.b.ins().fabs(x),
            UnOp::Sqrt => self.b.ins().sqrt(x),
            UnOp::Floor => self.b.ins().floor(x),
            UnOp::Ceil => self.b.ins().ceil(x),
            UnOp::Trunc => self.b.ins().trunc(x),
            UnOp::RoundEven => self.b.ins().nearest(x),
            UnOp::Ctpop | UnOp::Clz => {
                let wide = self.widened(e, x, false);
                let t = self.b.func.dfg.value_type(wide);
                let n = if op == UnOp::Ctpop { self.b.ins().popcnt(wide) } else { self.b.ins().clz(wide) };
                let extra = if op == UnOp::Clz { t.bits() - e.bits() } else { 0 };
                let n = self.b.ins().iadd_imm_s(n, -i64::from(extra));
                self.narrowed(e, n)
            }
        }
    }

    /// An integer lane in at least 32 bits.
    pub(crate) fn widened(&mut self, e: Elem, x: Value, signed: bool) -> Value {
        match (lane_ty(e).bits() < 32, signed) {
            (false, _) => x,
            (true, true) => self.b.ins().sextend(types::I32, x),
            (true, false) => self.b.ins().uextend(types::I32, x),
        }
    }

    /// Back to the width of `e`.
    pub(crate) fn narrowed(&mut self, e: Elem, x: Value) -> Value {
        if lane_ty(e).bits() < self.b.func.dfg.value_type(x).bits() {
            self.b.ins().ireduce(lane_ty(e), x)
        } else {
            x
        }
    }

    pub(crate) fn binary(&mut self, op: BinOp, a: Val, b: Val, t: Ty) -> Reg {
        let whole = match op {
            BinOp::Mul => matches!(t.elem, Elem::I16 | Elem::I32),
            _ => matches!(
                op,
                BinOp::Add
                    | BinOp::Sub
                    | BinOp::And
                    | BinOp::Or
                    | BinOp::Xor
                    | BinOp::FAdd
                    | BinOp::FSub
                    | BinOp::FMul
                    | BinOp::FDiv
                    | BinOp::FMin
                    | BinOp::FMax
            ),
        };
        if packed(t).is_some() && whole {
            let (x, y) = (self.scalar(a), self.scalar(b));
            return vec![self.binary_lane(op, t.elem, x, y)];
        }
        let (x, y) = (self.lanes(a), self.lanes(b));
        let lanes = x.iter().zip(&y).map(|(x, y)| self.binary_lane(op, t.elem, *x, *y)).collect();
        self.pack(lanes, t)
    }

    /// One lane, or a whole vector for the operations that `binary` names.
    pub(crate) fn binary_lane(&mut self, op: BinOp, e: Elem, x: Value, y: Value) -> Value {
        match op {
            BinOp::Add => self.b.ins().iadd(x, y),
            BinOp::Sub => self.b.ins().isub(x, y),
            BinOp::Mul => self.b.ins().imul(x, y),
            BinOp::And => self.b.ins().band(x, y),
            BinOp::Or => self.b.ins().bor(x, y),
            BinOp::Xor => self.b.ins().bxor(x, y),
            BinOp::Shl | BinOp::LShr | BinOp::AShr => self.shift(op, e, x, y),
            BinOp::SDiv | BinOp::UDiv | BinOp::SRem | BinOp::URem => self.divide(op, e, x, y),
            BinOp::SMin => self.pick(CmpOp::Slt, e, x, y),
            BinOp::SMax => self.pick(CmpOp::Sgt, e, x, y),
            BinOp::UMin => self.pick(CmpOp::Ult, e, x, y),
            BinOp::UMax => self.pick(CmpOp::Ugt, e, x, y),
            BinOp::FAdd => self.b.ins().fadd(x, y),
            BinOp::FSub => self.b.ins().fsub(x, y),
            BinOp::FMul => self.b.ins().fmul(x, y),
            BinOp::FDiv => self.b.ins().fdiv(x, y),
            BinOp::FMin => self.b.ins().fmin(x, y),
            BinOp::FMax => self.b.ins().fmax(x, y),
            BinOp::FMinNum | BinOp::FMaxNum => {
                let m = self.pick(if op == BinOp::FMinNum { CmpOp::FLt } else { CmpOp::FGt }, e, x, y);
                let nan = self.compare(CmpOp::FUno, e, y, y);
                self.b.ins().select(nan, x, m)
            }
        }
    }

    /// `x op y ? x : y`.
    fn pick(&mut self, op: CmpOp, e: Elem, x: Value, y: Value) -> Value {
        let c = self.compare(op, e, x, y);
        self.b.ins().select(c, x, y)
    }

    fn shift(&mut self, op: BinOp, e: Elem, x: Value, y: Value) -> Value {
        let amount = self.b.ins().band_imm_s(y, i64::from(e.bits()) - 1);
        let amount = self.widened(e, amount, false);
        match op {
            BinOp::Shl => self.b.ins().ishl(x, amount),
            BinOp::LShr => self.b.ins().ushr(x, amount),
            _ => self.b.ins().sshr(x, amount),
        }
    }

    /// Division by 1 in place of 0 and, where signed, of -1; the result is mended after.
    fn divide(&mut self, op: BinOp, e: Elem, x: Value, y: Value) -> Value {
        let signed = matches!(op, BinOp::SDiv | BinOp::SRem);
        let quotient = matches!(op, BinOp::SDiv | BinOp::UDiv);
        let (x, y) = (self.widened(e, x, signed), self.widened(e, y, signed));
        let t = self.b.func.dfg.value_type(x);
        let zero = self.b.ins().iconst(t, 0);
        let one = self.b.ins().iconst(t, 1);
        let is_zero = self.b.ins().icmp_imm_s(IntCC::Equal, y, 0);
        let mut safe = self.b.ins().select(is_zero, one, y);
        let mut minus = None;
        if signed {
            let m = self.b.ins().icmp_imm_s(IntCC::Equal, y, -1);
            safe = self.b.ins().select(m, one, safe);
            minus = Some(m);
        }
        let mut r = match op {
            BinOp::SDiv => self.b.ins().sdiv(x, safe),
            BinOp::UDiv => self.b.ins().udiv(x, safe),
            BinOp::SRem => self.b.ins().srem(x, safe),
            _ => self.b.ins().urem(x, safe),
        };
        if let (Some(m), true) = (minus, quotient) {
            let neg = self.b.ins().ineg(x);
            r = self.b.ins().select(m, neg, r);
        }
        let r = self.b.ins().select(is_zero, if quotient { zero } else { x }, r);
        self.narrowed(e, r)
    }

    /// 0 or 1 in a byte.
    pub(crate) fn compare(&mut self, op: CmpOp, e: Elem, x: Value, y: Value) -> Value {
        debug_assert!(e != Elem::I1);
        let int = match op {
            CmpOp::Eq => IntCC::Equal,
            CmpOp::Ne => IntCC::NotEqual,
            CmpOp::Slt => IntCC::SignedLessThan,
            CmpOp::Sle => IntCC::SignedLessThanOrEqual,
            CmpOp::Sgt => IntCC::SignedGreaterThan,
            CmpOp::Sge => IntCC::SignedGreaterThanOrEqual,
            CmpOp::Ult => IntCC::UnsignedLessThan,
            CmpOp::Ule => IntCC::UnsignedLessThanOrEqual,
            CmpOp::Ugt => IntCC::UnsignedGreaterThan,
            CmpOp::Uge => IntCC::UnsignedGreaterThanOrEqual,
            float => {
                let cc = match float {
                    CmpOp::FEq => FloatCC::Equal,
                    CmpOp::FNe => FloatCC::NotEqual,
                    CmpOp::FLt => FloatCC::LessThan,
                    CmpOp::FLe => FloatCC::LessThanOrEqual,
                    CmpOp::FGt => FloatCC::GreaterThan,
                    CmpOp::FGe => FloatCC::GreaterThanOrEqual,
                    CmpOp::FULt => FloatCC::UnorderedOrLessThan,
                    CmpOp::FULe => FloatCC::UnorderedOrLessThanOrEqual,
                    CmpOp::FUGt => FloatCC::UnorderedOrGreaterThan,
                    CmpOp::FUGe => FloatCC::UnorderedOrGreaterThanOrEqual,
                    CmpOp::FUno => FloatCC::Unordered,
                    _ => FloatCC::Ordered,
                };
                return self.b.ins().fcmp(cc, x, y);
            }
        };
        self.b.ins().icmp(int, x, y)
    }

    pub(crate) fn fma(&mut self, a: Val, b: Val, c: Val, t: Ty) -> Reg {
        if packed(t).is_some() {
            let (x, y, z) = (self.scalar(a), self.scalar(b), self.scalar(c));
            return vec![self.b.ins().fma(x, y, z)];
        }
        let (x, y, z) = (self.lanes(a), self.lanes(b), self.lanes(c));
        let lanes = (0..x.len()).map(|i| self.b.ins().fma(x[i], y[i], z[i])).collect();
        self.pack(lanes, t)
    }

    pub(crate) fn dot4(&mut self, kind: Dot4, acc: Val, a: Val, b: Val, t: Ty) -> Reg {
        let (acc, x, y) = (self.lanes(acc), self.lanes(a), self.lanes(b));
        let mut out = Vec::new();
        for (i, sum) in acc.into_iter().enumerate() {
            let mut sum = sum;
            for j in [4 * i, 4 * i + 2] {
                let mut product = |j: usize| {
                    let p = self.widened(Elem::I8, x[j], kind == Dot4::S8S8);
                    let q = self.widened(Elem::I8, y[j], true);
                    self.b.ins().imul(p, q)
                };
                let (first, second) = (product(j), product(j + 1));
                let mut pair = self.b.ins().iadd(first, second);
                if kind == Dot4::U8S8Pairs {
                    let (low, high) = (i64::from(i16::MIN), i64::from(i16::MAX));
                    let ty = self.b.func.dfg.value_type(pair);
                    let (low, high) = (self.b.ins().iconst(ty, low), self.b.ins().iconst(ty, high));
                    pair = self.b.ins().smax(pair, low);
                    pair = self.b.ins().smin(pair, high);
                }
                sum = self.b.ins().iadd(sum, pair);
            }
            out.push(sum);
        }
        self.pack(out, t)
    }

    pub(crate) fn dot2(&mut self, acc: Val, a: Val, b: Val, t: Ty) -> Reg {
        let (acc, x, y) = (self.lanes(acc), self.lanes(a), self.lanes(b));
        let mut out = Vec::new();
        for (i, sum) in acc.into_iter().enumerate() {
            let mut sum = sum;
            for j in [2 * i + 1, 2 * i] {
                let (p, q) = (self.bf16_to_f32(x[j]), self.bf16_to_f32(y[j]));
                sum = self.b.ins().fma(p, q, sum);
            }
            out.push(sum);
        }
        self.pack(out, t)
    }
}
