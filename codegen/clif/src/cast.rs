//! Conversions, lane by lane. 16-bit floats are integers here, converted by arithmetic on their bits.

use crate::emit::{Emitter, PLAIN, Reg, lane_ty, packed};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, MemFlagsData, Value, types};
use planish_codegen::kernel::{CastOp, CmpOp, Elem, Ty, Val};

impl Emitter<'_, '_> {
    pub(crate) fn cast(&mut self, op: CastOp, a: Val, to: Ty) -> Reg {
        let from = self.ty(a);
        if op == CastOp::Bitcast {
            return self.bitcast(a, from, to);
        }
        let lanes = self.lanes(a);
        let lanes = lanes.into_iter().map(|x| self.cast_lane(op, from.elem, to.elem, x)).collect();
        self.pack(lanes, to)
    }

    fn cast_lane(&mut self, op: CastOp, from: Elem, to: Elem, x: Value) -> Value {
        let t = lane_ty(to);
        match op {
            CastOp::Sext | CastOp::Zext => {
                // A truth value is a byte already.
                let x = if from == Elem::I1 && op == CastOp::Sext { self.b.ins().ineg(x) } else { x };
                if lane_ty(from) == t {
                    x
                } else if op == CastOp::Sext {
                    self.b.ins().sextend(t, x)
                } else {
                    self.b.ins().uextend(t, x)
                }
            }
            CastOp::Trunc => {
                let x = if lane_ty(from) == t { x } else { self.b.ins().ireduce(t, x) };
                if to == Elem::I1 { self.b.ins().band_imm_s(x, 1) } else { x }
            }
            CastOp::SiToFp => {
                let x = self.widened(from, x, true);
                self.b.ins().fcvt_from_sint(t, x)
            }
            CastOp::UiToFp => {
                let x = self.widened(from, x, false);
                self.b.ins().fcvt_from_uint(t, x)
            }
            CastOp::FpToSi | CastOp::FpToUi => self.float_to_int(op == CastOp::FpToSi, to, x),
            CastOp::FpExt => match from {
                Elem::BF16 => self.bf16_to_f32(x),
                Elem::F16 => self.f16_to_f32(x),
                _ => self.b.ins().fpromote(t, x),
            },
            CastOp::FpTrunc => match to {
                Elem::BF16 => self.f32_to_bf16(x),
                Elem::F16 => self.f32_to_f16(x),
                _ => self.b.ins().fdemote(t, x),
            },
            CastOp::Bitcast => x,
        }
    }

    /// Saturating; narrow results saturate in 32 bits first and are then clamped.
    fn float_to_int(&mut self, signed: bool, to: Elem, x: Value) -> Value {
        let wide = if to == Elem::I64 { types::I64 } else { types::I32 };
        let bits = to.bits();
        if signed {
            let v = self.b.ins().fcvt_to_sint_sat(wide, x);
            if bits >= 32 {
                return v;
            }
            let (lo, hi) = (-(1i64 << (bits - 1)), (1i64 << (bits - 1)) - 1);
            let (lo, hi) = (self.b.ins().iconst(wide, lo), self.b.ins().iconst(wide, hi));
            let c = self.b.ins().icmp(IntCC::SignedLessThan, v, lo);
            let v = self.b.ins().select(c, lo, v);
            let c = self.b.ins().icmp(IntCC::SignedGreaterThan, v, hi);
            let v = self.b.ins().select(c, hi, v);
            self.narrowed(to, v)
        } else {
            let v = self.b.ins().fcvt_to_uint_sat(wide, x);
            if bits >= 32 {
                return v;
            }
            let hi = self.b.ins().iconst(wide, (1i64 << bits) - 1);
            let c = self.b.ins().icmp(IntCC::UnsignedGreaterThan, v, hi);
            let v = self.b.ins().select(c, hi, v);
            self.narrowed(to, v)
        }
    }

    fn bits_of(&mut self, x: Value) -> Value {
        self.b.ins().bitcast(types::I32, MemFlagsData::new(), x)
    }

    fn float_of(&mut self, x: Value) -> Value {
        self.b.ins().bitcast(types::F32, MemFlagsData::new(), x)
    }

    pub(crate) fn bf16_to_f32(&mut self, x: Value) -> Value {
        let w = self.b.ins().uextend(types::I32, x);
        let w = self.b.ins().ishl_imm_u(w, 16);
        self.float_of(w)
    }

    fn f32_to_bf16(&mut self, x: Value) -> Value {
        let bits = self.bits_of(x);
        let high = self.b.ins().ushr_imm_u(bits, 16);
        let odd = self.b.ins().band_imm_s(high, 1);
        let bias = self.b.ins().iadd_imm_s(odd, 0x7FFF);
        let sum = self.b.ins().iadd(bits, bias);
        let near = self.b.ins().ushr_imm_u(sum, 16);
        let quiet = self.b.ins().bor_imm_s(high, 0x40);
        let nan = self.compare(CmpOp::FUno, Elem::F32, x, x);
        let r = self.b.ins().select(nan, quiet, near);
        self.b.ins().ireduce(types::I16, r)
    }

    /// Exponent moved by 112; subnormals as whole multiples of 2^-24. No step takes or makes a subnormal f32, which a session
    /// would flush to zero.
    fn f16_to_f32(&mut self, x: Value) -> Value {
        let w = self.b.ins().uextend(types::I32, x);
        let sign = self.b.ins().band_imm_s(w, 0x8000);
        let sign = self.b.ins().ishl_imm_u(sign, 16);
        let mag = self.b.ins().band_imm_s(w, 0x7FFF);
        let shifted = self.b.ins().ishl_imm_u(mag, 13);
        let normal = self.b.ins().iadd_imm_s(shifted, 112 << 23);
        let count = self.b.ins().fcvt_from_sint(types::F32, mag);
        let scale = self.b.ins().f32const(f32::from_bits((127 - 24) << 23));
        let small = self.b.ins().fmul(count, scale);
        let small = self.bits_of(small);
        let is_small = self.b.ins().icmp_imm_s(IntCC::UnsignedLessThan, mag, 0x400);
        let finite = self.b.ins().select(is_small, small, normal);
        let special = self.b.ins().bor_imm_s(shifted, 0x7F80_0000);
        let is_special = self.b.ins().icmp_imm_s(IntCC::UnsignedGreaterThanOrEqual, mag, 0x7C00);
        let r = self.b.ins().select(is_special, special, finite);
        let r = self.b.ins().bor(r, sign);
        self.float_of(r)
    }

    /// Nearest-even: results below the smallest normal number come from adding 0.5, whose last place is theirs.
    fn f32_to_f16(&mut self, x: Value) -> Value {
        let bits = self.bits_of(x);
        let sign = self.b.ins().ushr_imm_u(bits, 16);
        let sign = self.b.ins().band_imm_s(sign, 0x8000);
        let abs = self.b.ins().band_imm_s(bits, 0x7FFF_FFFF);
        let inf = self.b.ins().iconst(types::I32, 0x7C00);
        let nan = self.b.ins().iconst(types::I32, 0x7E00);
        let is_nan = self.b.ins().icmp_imm_s(IntCC::UnsignedGreaterThan, abs, 0x7F80_0000);
        let large = self.b.ins().select(is_nan, nan, inf);
        let f = self.float_of(abs);
        let half = self.b.ins().f32const(0.5);
        let f = self.b.ins().fadd(f, half);
        let f = self.bits_of(f);
        let small = self.b.ins().iadd_imm_s(f, -0x3F00_0000);
        let odd = self.b.ins().ushr_imm_u(abs, 13);
        let odd = self.b.ins().band_imm_s(odd, 1);
        let n = self.b.ins().iadd_imm_s(abs, 0xFFF - (112 << 23));
        let n = self.b.ins().iadd(n, odd);
        let normal = self.b.ins().ushr_imm_u(n, 13);
        let is_small = self.b.ins().icmp_imm_s(IntCC::UnsignedLessThan, abs, 0x3880_0000);
        let r = self.b.ins().select(is_small, small, normal);
        let is_large = self.b.ins().icmp_imm_s(IntCC::UnsignedGreaterThanOrEqual, abs, 0x4780_0000);
        let r = self.b.ins().select(is_large, large, r);
        let r = self.b.ins().bor(r, sign);
        self.b.ins().ireduce(types::I16, r)
    }

    /// Through memory, or directly where shapes allow it.
    fn bitcast(&mut self, a: Val, from: Ty, to: Ty) -> Reg {
        let reg = self.regs[a.index()].clone();
        let little = MemFlagsData::new().with_endianness(cranelift_codegen::ir::Endianness::Little);
        match (packed(from), packed(to)) {
            (Some(_), Some(vt)) => return vec![self.b.ins().bitcast(vt, little, reg[0])],
            (None, None) if from.lanes == to.lanes => {
                let t = lane_ty(to.elem);
                let same = lane_ty(from.elem) == t;
                return reg
                    .into_iter()
                    .map(|x| if same { x } else { self.b.ins().bitcast(t, little, x) })
                    .collect();
            }
            _ => {}
        }
        let at = self.scratch();
        let mut offset = 0;
        for (v, t) in reg.iter().zip(Self::parts(from)) {
            self.b.ins().store(PLAIN, *v, at, offset);
            offset += t.bytes() as i32;
        }
        let mut offset = 0;
        let mut out = Vec::new();
        for t in Self::parts(to) {
            out.push(self.b.ins().load(t, PLAIN, at, offset));
            offset += t.bytes() as i32;
        }
        out
    }
}
