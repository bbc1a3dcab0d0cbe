//! Instructions for the lanes of a warp.

use crate::fault::{Fault, FaultKind};
use crate::memory::{Bad, LOCAL_WINDOW, SHARED_WINDOW, local_range};
use crate::op::{Addr, BinaryOp, Inst, Op, Operand, Space, Special, Ty};
use crate::run::{Copies, LANES, Machine, Transfer, Warp, lanes};
use crate::value;

impl Machine<'_> {
    /// An operation that lanes do on their own.
    pub(crate) fn execute(&mut self, warp: &mut Warp, inst: &Inst, op: &Op, mask: u32) -> Result<(), Fault> {
        for l in lanes(mask) {
            self.lane(warp, op, l).map_err(|bad| self.fault(inst, Some(l), bad))?;
        }
        Ok(())
    }

    fn lane(&mut self, w: &mut Warp, op: &Op, l: usize) -> Result<(), Bad> {
        match op {
            Op::Load { space, ty, dst, addr, read_only } => {
                let mut raw = [0u8; 32];
                let n = ty.bytes();
                let raw = &mut raw[..n * dst.len()];
                self.read(w, l, *space, address(w, l, addr), raw, *read_only)?;
                for (r, part) in dst.iter().zip(raw.chunks_exact(n)) {
                    let mut word = [0u8; 8];
                    word[..n].copy_from_slice(part);
                    // A load into a wider register extends by the sign of a signed type.
                    let to = Ty { bits: r.bits.max(ty.bits), ..*ty };
                    let v = value::convert(to, *ty, crate::op::Round::None, u64::from_le_bytes(word));
                    w.set(*r, l, if ty.is_int() { v } else { u64::from_le_bytes(word) });
                }
            }
            Op::Store { space, ty, src, addr } => {
                let mut raw = [0u8; 32];
                let n = ty.bytes();
                for (o, part) in src.iter().zip(raw.chunks_exact_mut(n)) {
                    part.copy_from_slice(&w.get(*o, l).to_le_bytes()[..n]);
                }
                let at = address(w, l, addr);
                self.write(w, l, *space, at, &raw[..n * src.len()])?;
            }
            Op::Move { dst, src } => {
                let v = w.get(*src, l);
                w.set(*dst, l, v);
            }
            Op::Special { dst, which } => {
                let v = self.special(*which, l);
                w.set(*dst, l, u64::from(v));
            }
            Op::Pack { dst, parts, bits } => {
                let part = u64::MAX >> (64 - bits);
                let v = parts.iter().rev().fold(0, |v, p| v << bits | (w.get(*p, l) & part));
                w.set(*dst, l, v);
            }
            Op::Unpack { dst, src, bits } => {
                let v = w.get(*src, l);
                for (i, r) in dst.iter().enumerate() {
                    if let Some(r) = r {
                        let part = v >> (*bits as usize * i) & (u64::MAX >> (64 - bits));
                        w.set(*r, l, part);
                    }
                }
            }
            Op::Convert { dst, src, to, from, round } => {
                let v = value::convert(*to, *from, *round, w.get(*src, l));
                w.set(*dst, l, v);
            }
            Op::ConvertPair { dst, high, low, to } => {
                let half = Ty { lanes: 1, ..*to };
                let (h, lo) = (value::narrow(half, w.get(*high, l)), value::narrow(half, w.get(*low, l)));
                w.set(*dst, l, h << 16 | lo);
            }
            Op::Generic { dst, src, space, back } => {
                let window = match space {
                    Space::Shared => SHARED_WINDOW,
                    Space::Local => LOCAL_WINDOW,
                    _ => 0,
                };
                let v = w.get(*src, l);
                w.set(*dst, l, if *back { v & !window } else { v | window });
            }
            Op::Unary { op, ty, dst, a } => {
                let v = value::unary(*op, *ty, w.get(*a, l));
                w.set(*dst, l, v);
            }
            Op::Binary { op: op @ (BinaryOp::Shl | BinaryOp::Shr), ty, dst, a, b } => {
                let v = value::shift(*op, *ty, w.get(*a, l), w.get(*b, l));
                w.set(*dst, l, v);
            }
            Op::Binary { op, ty, dst, a, b } => {
                let v = value::binary(*op, *ty, w.get(*a, l), w.get(*b, l));
                w.set(*dst, l, v);
            }
            Op::Ternary { op, ty, dst, a, b, c } => {
                let v = value::ternary(*op, *ty, w.get(*a, l), w.get(*b, l), w.get(*c, l));
                w.set(*dst, l, v);
            }
            Op::Insert { ty, dst, a, b, pos, len } => {
                let v = value::insert(*ty, w.get(*a, l), w.get(*b, l), w.get(*pos, l), w.get(*len, l));
                w.set(*dst, l, v);
            }
            Op::Compare { cmp, ty, dst, a, b } => {
                let v = value::compare(*cmp, *ty, w.get(*a, l), w.get(*b, l));
                w.set(*dst, l, u64::from(v));
            }
            Op::Select { dst, a, b, cond } => {
                let v = if w.get(*cond, l) & 1 == 1 { w.get(*a, l) } else { w.get(*b, l) };
                w.set(*dst, l, v);
            }
            Op::CopyAsync { dst, src, bytes } => {
                let c = Transfer { dst: address(w, l, dst), src: address(w, l, src), bytes: *bytes };
                let thread = self.thread(l);
                self.shared.begin_copy(c.dst, c.bytes, thread)?;
                w.copies[l].open.push(c);
            }
            Op::CopyCommit => {
                let Copies { closed, open } = &mut w.copies[l];
                closed.push(std::mem::take(open));
            }
            Op::CopyWait(n) => {
                let closed = &mut w.copies[l].closed;
                let done: Vec<Vec<Transfer>> = closed.drain(..closed.len().saturating_sub(*n)).collect();
                for c in done.into_iter().flatten() {
                    self.finish_copy(l, c)?;
                }
            }
            Op::Nothing => {}
            Op::Branch { .. } | Op::Return | Op::Barrier | Op::Butterfly { .. } | Op::Mma { .. } => {
                unreachable!("`step` handles what moves or joins lanes")
            }
        }
        Ok(())
    }

    fn thread(&self, l: usize) -> u32 {
        self.first_thread + l as u32
    }

    fn special(&self, which: Special, l: usize) -> u32 {
        let block = self.entry.block;
        let thread = self.thread(l);
        match which {
            Special::Tid(0) => thread % block[0],
            Special::Tid(1) => thread / block[0] % block[1],
            Special::Tid(_) => thread / block[0] / block[1],
            Special::Ntid(d) => block[usize::from(d)],
            Special::Ctaid(d) => self.block_id[usize::from(d)],
            Special::Nctaid(d) => self.grid[usize::from(d)],
            Special::Lane => l as u32,
        }
    }

    fn read(
        &mut self,
        w: &Warp,
        l: usize,
        space: Space,
        at: u64,
        out: &mut [u8],
        read_only: bool,
    ) -> Result<(), Bad> {
        let (space, at) = specific(space, at);
        match space {
            Space::Param => {
                let word = usize::try_from(at / 8).ok().and_then(|i| self.params.get(i));
                match word {
                    Some(v) if at % 8 == 0 && out.len() <= 8 => {
                        out.copy_from_slice(&v.to_le_bytes()[..out.len()]);
                        Ok(())
                    }
                    _ => Err((FaultKind::OutOfBounds, format!("parameters at byte {at}"))),
                }
            }
            Space::Shared => self.shared.read(at, out, self.thread(l)),
            Space::Local => {
                let range = local_range(at, out.len(), l, self.entry.local_bytes)?;
                out.copy_from_slice(&w.local[range]);
                Ok(())
            }
            _ => self.global.read(at, out, read_only),
        }
    }

    fn write(&mut self, w: &mut Warp, l: usize, space: Space, at: u64, from: &[u8]) -> Result<(), Bad> {
        let (space, at) = specific(space, at);
        match space {
            Space::Shared => self.shared.write(at, from, self.thread(l)),
            Space::Local => {
                let range = local_range(at, from.len(), l, self.entry.local_bytes)?;
                w.local[range].copy_from_slice(from);
                Ok(())
            }
            _ => self.global.write(at, from),
        }
    }

    /// The copy happens when it is waited for.
    fn finish_copy(&mut self, l: usize, c: Transfer) -> Result<(), Bad> {
        let mut raw = [0u8; 16];
        let raw = &mut raw[..c.bytes];
        self.global.read(c.src, raw, false)?;
        let thread = self.thread(l);
        self.shared.write(c.dst, raw, thread)
    }

    /// An operation of all lanes of a warp.
    pub(crate) fn together(&mut self, w: &mut Warp, inst: &Inst) -> Result<(), Fault> {
        match &inst.op {
            Op::Butterfly { dst, src, lane_mask, clamp, members } => {
                let from: Vec<u64> = (0..LANES).map(|l| w.get(*src, l)).collect();
                for l in 0..LANES {
                    let uniform = w.get(*clamp, l) & 0x1F1F == 31 && w.get(*members, l) as u32 == u32::MAX;
                    if !uniform {
                        let text = "a shuffle of a part of the warp".to_owned();
                        return Err(self.fault(inst, Some(l), (FaultKind::Divergent, text)));
                    }
                    let other = l ^ (w.get(*lane_mask, l) & 31) as usize;
                    w.set(*dst, l, from[other]);
                }
            }
            Op::Mma { elem, d, a, b, c } => multiply(w, *elem, (d, a, b, c)),
            _ => unreachable!("only warp operations come here"),
        }
        Ok(())
    }
}

fn address(w: &Warp, l: usize, a: &Addr) -> u64 {
    w.get(a.base, l).wrapping_add_signed(a.offset)
}

/// The space that a generic address is in.
fn specific(space: Space, at: u64) -> (Space, u64) {
    match (space, at >> 56) {
        (Space::Generic, 0x7E) => (Space::Shared, at & !SHARED_WINDOW),
        (Space::Generic, 0x7D) => (Space::Local, at & !LOCAL_WINDOW),
        (Space::Generic, _) => (Space::Global, at),
        _ => (space, at),
    }
}

type Operands<'i> = (&'i [crate::op::Reg; 4], &'i [Operand; 4], &'i [Operand; 2], &'i [Operand; 4]);

/// `d = a * b + c` of 16 x 16 and 16 x 8 matrices. With `g = lane / 4` and `t = lane % 4`, a lane holds, two 16-bit values in a
/// register:
/// a: (g, 2t..), (g + 8, 2t..), (g, 2t + 8..), (g + 8, 2t + 8..); b: (2t.., g), (2t + 8.., g);
/// c and d, one value in a register: (g, 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1).
fn multiply(w: &mut Warp, elem: Ty, (d, a, b, c): Operands<'_>) {
    let (mut left, mut right) = ([[0f64; 16]; 16], [[0f64; 8]; 16]);
    for l in 0..LANES {
        let (g, t) = (l / 4, l % 4);
        for (i, o) in a.iter().enumerate() {
            let word = w.get(*o, l);
            let (row, col) = (g + 8 * (i % 2), 2 * t + 8 * (i / 2));
            left[row][col] = value::widen(elem, word & 0xFFFF).into();
            left[row][col + 1] = value::widen(elem, word >> 16 & 0xFFFF).into();
        }
        for (i, o) in b.iter().enumerate() {
            let word = w.get(*o, l);
            let row = 2 * t + 8 * i;
            right[row][g] = value::widen(elem, word & 0xFFFF).into();
            right[row + 1][g] = value::widen(elem, word >> 16 & 0xFFFF).into();
        }
    }
    for l in 0..LANES {
        let (g, t) = (l / 4, l % 4);
        for i in 0..4 {
            let (row, col) = (g + 8 * (i / 2), 2 * t + i % 2);
            let start = f64::from(f32::from_bits(w.get(c[i], l) as u32));
            // The order and the width of the sums inside are not specified; here they are exact but for f64.
            let sum = (0..16).fold(start, |s, k| s + left[row][k] * right[k][col]);
            w.set(d[i], l, u64::from((sum as f32).to_bits()));
        }
    }
}
