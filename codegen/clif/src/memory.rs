//! Loads and stores. Lanes that a mask leaves out are redirected to a dummy word, so that no branch is needed.

use crate::emit::{Emitter, Reg, lane_ty, packed};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, MemFlagsData, Value, types};
use planish_codegen::kernel::{Buf, Elem, Ty, Val};

impl Emitter<'_, '_> {
    /// Address of the element with this index (`I64`).
    fn address(&mut self, buf: Buf, idx: Value) -> Value {
        let size = self.buf_elem(buf).bytes();
        let base = self.base(buf);
        let off = self.b.ins().ishl_imm_u(idx, i64::from(size.trailing_zeros()));
        self.b.ins().iadd(base, off)
    }

    fn load_lane(&mut self, e: Elem, flags: MemFlagsData, at: Value, offset: i32) -> Value {
        let v = self.b.ins().load(lane_ty(e), flags, at, offset);
        if e == Elem::I1 { self.b.ins().icmp_imm_s(IntCC::NotEqual, v, 0) } else { v }
    }

    /// One lane, or what it passes through where `mask` is false.
    fn load_masked(&mut self, e: Elem, flags: MemFlagsData, at: Value, mask: Value, pass: Value) -> Value {
        let at = self.b.ins().select(mask, at, self.dummy);
        // The dummy word is written too, so it is no constant memory.
        let flags = if flags.readonly() { crate::emit::PLAIN } else { flags };
        let v = self.load_lane(e, flags, at, 0);
        self.b.ins().select(mask, v, pass)
    }

    pub(crate) fn load(&mut self, buf: Buf, idx: Val, mask: Option<(Val, Val)>, t: Ty) -> Reg {
        let idx = self.scalar(idx);
        let base = self.address(buf, idx);
        let flags = self.flags(buf, true);
        let size = t.elem.bytes() as i32;
        match mask {
            None => {
                if let Some(vt) = packed(t) {
                    return vec![self.b.ins().load(vt, flags, base, 0)];
                }
                (0..i32::from(t.lanes)).map(|i| self.load_lane(t.elem, flags, base, i * size)).collect()
            }
            Some((m, p)) => {
                let (m, p) = (self.lanes(m), self.lanes(p));
                let lanes = (0..m.len())
                    .map(|i| {
                        let at = self.b.ins().iadd_imm_s(base, i64::from(size) * i as i64);
                        self.load_masked(t.elem, flags, at, m[i], p[i])
                    })
                    .collect();
                self.pack(lanes, t)
            }
        }
    }

    pub(crate) fn store(&mut self, buf: Buf, idx: Val, val: Val, mask: Option<Val>) {
        let t = self.ty(val);
        let idx = self.scalar(idx);
        let base = self.address(buf, idx);
        let flags = self.flags(buf, false);
        let size = t.elem.bytes() as i32;
        match mask {
            None => {
                let mut offset = 0;
                for v in self.regs[val.index()].clone() {
                    self.b.ins().store(flags, v, base, offset);
                    offset += if packed(t).is_some() { 16 } else { size };
                }
            }
            Some(m) => {
                let (m, v) = (self.lanes(m), self.lanes(val));
                for i in 0..m.len() {
                    let at = self.b.ins().iadd_imm_s(base, i64::from(size) * i as i64);
                    let at = self.b.ins().select(m[i], at, self.dummy);
                    self.b.ins().store(flags, v[i], at, 0);
                }
            }
        }
    }

    fn indices(&mut self, idx: Val) -> Vec<Value> {
        let narrow = self.ty(idx).elem == Elem::I32;
        let lanes = self.lanes(idx);
        lanes.into_iter().map(|i| if narrow { self.b.ins().sextend(types::I64, i) } else { i }).collect()
    }

    pub(crate) fn gather(&mut self, buf: Buf, idx: Val, mask: Option<(Val, Val)>, t: Ty) -> Reg {
        let flags = self.flags(buf, true);
        let idx = self.indices(idx);
        let masks = mask.map(|(m, p)| (self.lanes(m), self.lanes(p)));
        let mut lanes = Vec::new();
        for (i, x) in idx.into_iter().enumerate() {
            let at = self.address(buf, x);
            lanes.push(match &masks {
                None => self.load_lane(t.elem, flags, at, 0),
                Some((m, p)) => self.load_masked(t.elem, flags, at, m[i], p[i]),
            });
        }
        self.pack(lanes, t)
    }

    pub(crate) fn scatter(&mut self, buf: Buf, idx: Val, val: Val, mask: Option<Val>) {
        let flags = self.flags(buf, false);
        let idx = self.indices(idx);
        let vals = self.lanes(val);
        let mask = mask.map(|m| self.lanes(m));
        for (i, x) in idx.into_iter().enumerate() {
            let mut at = self.address(buf, x);
            if let Some(m) = &mask {
                at = self.b.ins().select(m[i], at, self.dummy);
            }
            self.b.ins().store(flags, vals[i], at, 0);
        }
    }
}
