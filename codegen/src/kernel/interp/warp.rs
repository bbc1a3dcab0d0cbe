//! Instructions that involve several threads, and asynchronous copies.

use super::scalar::to_f32;
use super::{AsyncCopy, Machine, Trap};
use crate::kernel::inst::{Frag, Inst, Op};
use crate::kernel::types::{Buf, Elem, Val};

const WARP: usize = 32;

impl Machine<'_> {
    /// Executes `inst` if it is one of these.
    pub(super) fn warp_op(&mut self, inst: &Inst, active: &[bool]) -> Result<bool, Trap> {
        match &inst.op {
            Op::Barrier => {
                if active.contains(&false) {
                    return Err(self.trap(inst, "some threads of the block do not reach the barrier"));
                }
                self.epoch += 1;
            }
            Op::ShuffleXor(v, mask) => {
                let warps = self.whole_warps(inst, active)?;
                let from = self.vals[v.index()].clone();
                let to = &mut self.vals[inst.outs[0].index()];
                for w in warps {
                    for l in 0..WARP {
                        to[w + l] = from[w + (l ^ usize::from(*mask))];
                    }
                }
            }
            Op::CopyAsync { dst, dst_idx, src, src_idx, bytes } => {
                for t in (0..self.threads).filter(|&t| active[t]) {
                    self.start_copy(inst, t, (*dst, *dst_idx), (*src, *src_idx), *bytes)?;
                }
            }
            Op::CopyCommit => {
                for (t, (closed, open)) in self.copies.iter_mut().enumerate() {
                    if active[t] {
                        closed.push(std::mem::take(open));
                    }
                }
            }
            Op::CopyWait(n) => {
                for t in (0..self.threads).filter(|&t| active[t]) {
                    let closed = &mut self.copies[t].0;
                    let done: Vec<Vec<AsyncCopy>> =
                        closed.drain(..closed.len().saturating_sub(usize::from(*n))).collect();
                    for c in done.into_iter().flatten() {
                        self.finish_copy(inst, t, c)?;
                    }
                }
            }
            Op::FragLoad { frag, buf, idx, stride } => {
                for w in self.whole_warps(inst, active)? {
                    for t in w..w + WARP {
                        let e = self.k.ty(inst.outs[0]).elem;
                        let n = usize::from(frag.lanes(e));
                        for s in 0..n {
                            let at = self.frag_index(inst, (*frag, e), t, s, (*idx, *stride))?;
                            self.vals[inst.outs[0].index()][t * n + s] = self.read(inst, *buf, t, at)?;
                        }
                    }
                }
            }
            Op::FragStore { buf, idx, stride, val } => {
                for w in self.whole_warps(inst, active)? {
                    for t in w..w + WARP {
                        let e = self.k.ty(*val).elem;
                        for s in 0..usize::from(Frag::C.lanes(e)) {
                            let at = self.frag_index(inst, (Frag::C, e), t, s, (*idx, *stride))?;
                            self.write(inst, *buf, t, at, self.get(*val, t, s))?;
                        }
                    }
                }
            }
            Op::Mma { a, b, c } => {
                for w in self.whole_warps(inst, active)? {
                    self.mma(w, inst.outs[0], (*a, *b, *c));
                }
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// First threads of the active warps; a warp that is partly active is an error.
    fn whole_warps(&self, inst: &Inst, active: &[bool]) -> Result<Vec<usize>, Trap> {
        let mut out = Vec::new();
        for (w, warp) in active.chunks(WARP).enumerate() {
            match warp.iter().filter(|a| **a).count() {
                0 => {}
                WARP => out.push(w * WARP),
                n => return Err(self.trap(inst, format!("{n} of {WARP} threads of a warp take part"))),
            }
        }
        Ok(out)
    }

    fn frag_index(
        &self,
        inst: &Inst,
        (frag, elem): (Frag, Elem),
        t: usize,
        slot: usize,
        (idx, stride): (Val, Val),
    ) -> Result<i64, Trap> {
        let (idx, stride) = (self.int(idx, t), self.int(stride, t));
        let n = i64::from(frag.together(elem));
        if idx % n != 0 || stride % n != 0 {
            let text = format!("fragment at {idx} with stride {stride}; both must be multiples of {n}");
            return Err(self.trap(inst, text));
        }
        let (major, minor) = frag.coord(elem, (t % WARP) as u32, slot as u32);
        Ok(idx.wrapping_add(i64::from(major).wrapping_mul(stride)).wrapping_add(i64::from(minor)))
    }

    /// `out = c + a * b` for the warp that begins at thread `w`. Sums of floats are made in f64 and rounded once.
    fn mma(&mut self, w: usize, out: Val, (a, b, c): (Val, Val, Val)) {
        let e = self.k.ty(a).elem;
        let depth = Frag::depth(e) as usize;
        let (mut ma, mut mb) = ([[0f64; 32]; 16], [[0f64; 32]; 8]);
        let number = |bits: u64| match e {
            Elem::I8 => f64::from((bits as u8).cast_signed()),
            // Of f32 the upper 19 bits count.
            Elem::F32 => f64::from(f32::from_bits(bits as u32 & 0xFFFF_E000)),
            _ => f64::from(to_f32(e, bits)),
        };
        for t in w..w + WARP {
            let lane = (t % WARP) as u32;
            for s in 0..u32::from(Frag::A.lanes(e)) {
                let (i, k) = Frag::A.coord(e, lane, s);
                ma[i as usize][k as usize] = number(self.get(a, t, s as usize));
            }
            for s in 0..u32::from(Frag::B.lanes(e)) {
                let (j, k) = Frag::B.coord(e, lane, s);
                mb[j as usize][k as usize] = number(self.get(b, t, s as usize));
            }
        }
        let sums = self.k.ty(c).elem;
        for t in w..w + WARP {
            for s in 0..4 {
                let (i, j) = Frag::C.coord(sums, (t % WARP) as u32, s as u32);
                let products = ma[i as usize][..depth].iter().zip(&mb[j as usize]).map(|(x, y)| x * y);
                let start = self.get(c, t, s);
                let sum = if e == Elem::I8 {
                    // Products of bytes are exact here, and so is their sum.
                    let all: f64 = products.sum();
                    u64::from((start as u32).wrapping_add((all as i32).cast_unsigned()))
                } else {
                    let all = products.fold(f64::from(to_f32(Elem::F32, start)), |s, p| s + p);
                    u64::from((all as f32).to_bits())
                };
                self.vals[out.index()][t * 4 + s] = sum;
            }
        }
    }

    fn start_copy(
        &mut self,
        inst: &Inst,
        t: usize,
        (dst, dst_idx): (Buf, Val),
        (src, src_idx): (Buf, Val),
        bytes: u8,
    ) -> Result<(), Trap> {
        let (d, s) = (self.region(dst, t), self.region(src, t));
        let size = self.regions[s].elem().bytes();
        let (di, si) = (self.int(dst_idx, t), self.int(src_idx, t));
        let misaligned = !self.regions[s].address(si).is_multiple_of(usize::from(bytes))
            || !(di as usize).wrapping_mul(size).is_multiple_of(usize::from(bytes));
        if misaligned {
            return Err(self.trap(inst, format!("copy {di} <- {si} is not aligned to {bytes} bytes")));
        }
        let elems = i64::from(bytes) / size as i64;
        self.copies[t].1.push(AsyncCopy { dst: d, dst_idx: di, src: s, src_idx: si, elems });
        Ok(())
    }

    fn finish_copy(&mut self, inst: &Inst, t: usize, c: AsyncCopy) -> Result<(), Trap> {
        let epoch = self.epoch;
        for i in 0..c.elems {
            let r = self.regions[c.src]
                .read(c.src_idx.wrapping_add(i), t as u32, epoch)
                .and_then(|bits| self.regions[c.dst].write(c.dst_idx.wrapping_add(i), bits, t as u32, epoch));
            r.map_err(|m| self.trap(inst, format!("copy_async: {m}")))?;
        }
        Ok(())
    }
}
