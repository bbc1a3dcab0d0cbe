//! Instructions without nested blocks.

use super::scalar::{binary, cast, compare, fma, signed, to_f32, unary};
use super::{Machine, Trap};
use crate::kernel::inst::{BinOp, CastOp, Dot4, Inst, Op, Special};
use crate::kernel::types::{Buf, Elem, Space, Val};

impl Machine<'_> {
    pub(super) fn simple(&mut self, inst: &Inst, active: &[bool]) -> Result<(), Trap> {
        if self.warp_op(inst, active)? {
            return Ok(());
        }
        for t in (0..self.threads).filter(|&t| active[t]) {
            match inst.outs[..] {
                [] => self.effect(inst, t)?,
                [out] => {
                    let lanes = self.lanes(out);
                    let mut to = std::mem::take(&mut self.vals[out.index()]);
                    let r = self.lanes_of(inst, out, t, &mut to[t * lanes..(t + 1) * lanes]);
                    self.vals[out.index()] = to;
                    r?;
                }
                _ => return Err(self.trap(inst, "several results")),
            }
        }
        Ok(())
    }

    /// Fills the lanes that `inst` defines in thread `t`.
    fn lanes_of(&mut self, inst: &Inst, out: Val, t: usize, to: &mut [u64]) -> Result<(), Trap> {
        let ty = self.k.ty(out);
        let e = ty.elem;
        match &inst.op {
            Op::Const(bits) => fill(to, |i| bits[if bits.len() == 1 { 0 } else { i }]),
            Op::Param(p) => to[0] = self.scalars[usize::from(*p)].cast_unsigned(),
            Op::Special(s) => to[0] = self.special(*s, t).cast_unsigned(),
            Op::Splat(v) => to.fill(self.get(*v, t, 0)),
            Op::Iota => fill(to, |i| i as u64 & e.mask()),
            Op::Unary(o, a) => fill(to, |i| unary(*o, e, self.get(*a, t, i))),
            Op::Binary(o, a, b) => fill(to, |i| binary(*o, e, self.get(*a, t, i), self.get(*b, t, i))),
            Op::Fma(a, b, c) => {
                fill(to, |i| fma(e, self.get(*a, t, i), self.get(*b, t, i), self.get(*c, t, i)));
            }
            Op::Cmp(o, a, b) => {
                let e = self.k.ty(*a).elem;
                fill(to, |i| u64::from(compare(*o, e, self.get(*a, t, i), self.get(*b, t, i))));
            }
            Op::Select(c, a, b) => {
                let scalar = self.k.ty(*c).is_scalar();
                fill(to, |i| {
                    let c = self.get(*c, t, if scalar { 0 } else { i });
                    self.get(if c == 1 { *a } else { *b }, t, i)
                });
            }
            Op::Cast(CastOp::Bitcast, a) => self.bitcast(*a, t, e, to),
            Op::Cast(o, a) => {
                let from = self.k.ty(*a).elem;
                fill(to, |i| cast(*o, from, e, self.get(*a, t, i)));
            }
            Op::Dot4 { kind, acc, a, b } => fill(to, |i| {
                let mut sum = self.get(*acc, t, i) as u32;
                for j in [4 * i, 4 * i + 2] {
                    let product = |j: usize| {
                        let (x, y) = (self.get(*a, t, j), signed(Elem::I8, self.get(*b, t, j)));
                        let x = if *kind == Dot4::S8S8 { signed(Elem::I8, x) } else { x.cast_signed() };
                        x * y
                    };
                    let mut pair = product(j) + product(j + 1);
                    if *kind == Dot4::U8S8Pairs {
                        pair = pair.clamp(i16::MIN.into(), i16::MAX.into());
                    }
                    sum = sum.wrapping_add(pair as i32 as u32);
                }
                u64::from(sum)
            }),
            Op::Dot2Bf16 { acc, a, b } => fill(to, |i| {
                let term = |j: usize, sum: f32| {
                    let x = to_f32(Elem::BF16, self.get(*a, t, j));
                    x.mul_add(to_f32(Elem::BF16, self.get(*b, t, j)), sum)
                };
                let sum = term(2 * i + 1, to_f32(Elem::F32, self.get(*acc, t, i)));
                u64::from(term(2 * i, sum).to_bits())
            }),
            Op::Shuffle(a, b, mask) => {
                let n = self.lanes(*a);
                fill(to, |i| {
                    let m = usize::from(mask[i]);
                    if m < n { self.get(*a, t, m) } else { self.get(*b, t, m - n) }
                });
            }
            Op::Extract(a, i) => to[0] = self.get(*a, t, usize::from(*i)),
            Op::Insert(a, s, i) => {
                fill(to, |j| if j == usize::from(*i) { self.get(*s, t, 0) } else { self.get(*a, t, j) })
            }
            Op::Reduce(o, a) => {
                let lanes: Vec<u64> = (0..self.lanes(*a)).map(|i| self.get(*a, t, i)).collect();
                to[0] = reduce(*o, e, lanes);
            }
            Op::Load { buf, idx, align, mask } => {
                let base = self.int(*idx, t);
                self.check_align(inst, *buf, t, base, *align, mask.map(|(m, _)| m), to.len())?;
                for (i, lane) in to.iter_mut().enumerate() {
                    *lane = match mask {
                        Some((m, p)) if self.get(*m, t, i) == 0 => self.get(*p, t, i),
                        _ => self.read(inst, *buf, t, base.wrapping_add(i as i64))?,
                    };
                }
            }
            Op::Gather { buf, idx, mask } => {
                let it = self.k.ty(*idx).elem;
                for (i, lane) in to.iter_mut().enumerate() {
                    *lane = match mask {
                        Some((m, p)) if self.get(*m, t, i) == 0 => self.get(*p, t, i),
                        _ => self.read(inst, *buf, t, signed(it, self.get(*idx, t, i)))?,
                    };
                }
            }
            _ => return Err(self.trap(inst, "no value")),
        }
        Ok(())
    }

    fn effect(&mut self, inst: &Inst, t: usize) -> Result<(), Trap> {
        match &inst.op {
            Op::Store { buf, idx, val, align, mask } => {
                let base = self.int(*idx, t);
                let n = self.lanes(*val);
                self.check_align(inst, *buf, t, base, *align, *mask, n)?;
                for i in 0..n {
                    if mask.is_none_or(|m| self.get(m, t, i) == 1) {
                        let bits = self.get(*val, t, i);
                        self.write(inst, *buf, t, base.wrapping_add(i as i64), bits)?;
                    }
                }
            }
            Op::Scatter { buf, idx, val, mask } => {
                let it = self.k.ty(*idx).elem;
                for i in 0..self.lanes(*val) {
                    if mask.is_none_or(|m| self.get(m, t, i) == 1) {
                        let at = signed(it, self.get(*idx, t, i));
                        self.write(inst, *buf, t, at, self.get(*val, t, i))?;
                    }
                }
            }
            Op::Prefetch { .. } => {}
            Op::ErrorIf { cond, code } => {
                if self.get(*cond, t, 0) == 1 {
                    self.error = *code;
                }
            }
            _ => return Err(self.trap(inst, "no effect")),
        }
        Ok(())
    }

    fn special(&self, s: Special, t: usize) -> i64 {
        let [bx, by, _] = self.block.map(|d| d as usize);
        let v = match s {
            Special::RangeLo => return self.range.0,
            Special::RangeHi => return self.range.1,
            Special::ThreadId(0) => t % bx,
            Special::ThreadId(1) => t / bx % by,
            Special::ThreadId(_) => t / bx / by,
            Special::BlockId(d) => self.block_id[usize::from(d)] as usize,
            Special::BlockDim(d) => self.block[usize::from(d)] as usize,
            Special::GridDim(d) => self.grid[usize::from(d)] as usize,
        };
        v as i64
    }

    fn bitcast(&self, a: Val, t: usize, to_elem: Elem, to: &mut [u64]) {
        let from = self.k.ty(a);
        let mut bytes = Vec::new();
        for i in 0..usize::from(from.lanes) {
            bytes.extend(&self.get(a, t, i).to_le_bytes()[..from.elem.bytes()]);
        }
        for (lane, raw) in to.iter_mut().zip(bytes.chunks(to_elem.bytes())) {
            let mut word = [0u8; 8];
            word[..raw.len()].copy_from_slice(raw);
            *lane = u64::from_le_bytes(word);
        }
    }

    /// The memory object that `buf` is for thread `t`.
    pub(super) fn region(&self, buf: Buf, t: usize) -> usize {
        match buf {
            Buf::Param(i) => usize::from(i),
            Buf::Local(i) => {
                let i = usize::from(i);
                let own = if self.k.locals[i].space == Space::Shared { 0 } else { t };
                self.local_at[i] + own
            }
        }
    }

    pub(super) fn read(&mut self, inst: &Inst, buf: Buf, t: usize, index: i64) -> Result<u64, Trap> {
        let (r, epoch) = (self.region(buf, t), self.epoch);
        self.regions[r].read(index, t as u32, epoch).map_err(|m| self.bad_access(inst, buf, t, &m))
    }

    pub(super) fn write(
        &mut self,
        inst: &Inst,
        buf: Buf,
        t: usize,
        index: i64,
        bits: u64,
    ) -> Result<(), Trap> {
        let (r, epoch) = (self.region(buf, t), self.epoch);
        self.regions[r].write(index, bits, t as u32, epoch).map_err(|m| self.bad_access(inst, buf, t, &m))
    }

    fn bad_access(&self, inst: &Inst, buf: Buf, t: usize, message: &str) -> Trap {
        let thread = if self.threads > 1 {
            format!(" (thread {t} of block {:?})", self.block_id)
        } else {
            String::new()
        };
        self.trap(inst, format!("buffer %{}: {message}{thread}", self.k.buf_name(buf)))
    }

    /// The address must have the stated alignment unless no lane is accessed.
    #[allow(clippy::too_many_arguments)]
    fn check_align(
        &self,
        inst: &Inst,
        buf: Buf,
        t: usize,
        base: i64,
        align: u32,
        mask: Option<Val>,
        lanes: usize,
    ) -> Result<(), Trap> {
        let region = &self.regions[self.region(buf, t)];
        if align as usize <= region.elem().bytes() {
            return Ok(());
        }
        let used = mask.is_none_or(|m| (0..lanes).any(|i| self.get(m, t, i) == 1));
        let local = matches!(buf, Buf::Local(_));
        // Local arrays are 64-byte aligned in generated code wherever the interpreter's copy happens to be.
        let addr =
            if local { (base as usize).wrapping_mul(region.elem().bytes()) } else { region.address(base) };
        if used && !addr.is_multiple_of(align as usize) {
            let m = format!("index {base} is not aligned to {align} bytes");
            return Err(self.bad_access(inst, buf, t, &m));
        }
        Ok(())
    }
}

fn fill(to: &mut [u64], f: impl Fn(usize) -> u64) {
    for (i, lane) in to.iter_mut().enumerate() {
        *lane = f(i);
    }
}

/// The halving tree of `Op::Reduce`.
fn reduce(op: BinOp, e: Elem, mut lanes: Vec<u64>) -> u64 {
    while lanes.len() > 1 {
        let half = lanes.len() / 2;
        lanes = (0..half).map(|i| binary(op, e, lanes[i], lanes[half + i])).collect();
    }
    lanes[0]
}
