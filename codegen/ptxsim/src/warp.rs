//! Instructions for the lanes of a warp.

use crate::fault::{Fault, FaultKind};
use crate::memory::{Bad, Toucher};
use crate::mma;
use crate::op::{Addr, Inst, Kind, Op, Reg, Round, Space, Special, Ty};
use crate::rows;
use crate::run::{Copies, LANES, Machine, Row, Transfer, Warp, lanes};
use crate::shared::{LOCAL_WINDOW, SHARED_WINDOW, local_range};
use crate::value;

impl Machine<'_> {
    /// An operation that lanes do on their own.
    pub(crate) fn execute(&mut self, w: &mut Warp, inst: &Inst, op: &Op, mask: u32) -> Result<(), Fault> {
        let (dst, row) = match op {
            Op::Move { dst, src } => (dst, w.row(*src)),
            Op::Special { dst, which } => (dst, self.special(*which)),
            Op::Convert { dst, src, to, from, round } => {
                (dst, rows::convert(*to, *from, *round, &w.row(*src)))
            }
            Op::Unary { op, ty, dst, a } => (dst, rows::unary(*op, *ty, &w.row(*a))),
            Op::Binary { op, ty, dst, a, b } => (dst, rows::binary(*op, *ty, &w.row(*a), &w.row(*b))),
            Op::Ternary { op, ty, dst, a, b, c } => {
                (dst, rows::ternary(*op, *ty, &w.row(*a), &w.row(*b), &w.row(*c)))
            }
            Op::Compare { cmp, ty, dst, a, b } => (dst, rows::compare(*cmp, *ty, &w.row(*a), &w.row(*b))),
            Op::Select { dst, a, b, cond } => (dst, rows::select(&w.row(*a), &w.row(*b), &w.row(*cond))),
            Op::Nothing => return Ok(()),
            _ => {
                for l in lanes(mask) {
                    self.lane(w, op, l).map_err(|bad| self.fault(inst, Some(l), bad))?;
                }
                return Ok(());
            }
        };
        w.put(*dst, mask, &row);
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
                    load(w, *r, l, *ty, part);
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
            Op::Insert { ty, dst, a, b, pos, len } => {
                let v = value::insert(*ty, w.get(*a, l), w.get(*b, l), w.get(*pos, l), w.get(*len, l));
                w.set(*dst, l, v);
            }
            Op::CopyAsync { dst, src, bytes } => {
                let c = Transfer { dst: address(w, l, dst), src: address(w, l, src), bytes: *bytes };
                let thread = self.thread(l);
                self.shared.begin_copy(c.dst, c.bytes, thread)?;
                w.copies[l].open.push(c);
                w.copying = true;
            }
            Op::CopyCommit => {
                let Copies { closed, open } = &mut w.copies[l];
                closed.push(std::mem::take(open));
                w.copying = true;
            }
            Op::CopyWait(n) => {
                let closed = &mut w.copies[l].closed;
                let done: Vec<Vec<Transfer>> = closed.drain(..closed.len().saturating_sub(*n)).collect();
                for c in done.into_iter().flatten() {
                    self.finish_copy(l, c)?;
                }
            }
            _ => unreachable!("`execute` and `step` handle what is done for the whole warp"),
        }
        Ok(())
    }

    fn thread(&self, l: usize) -> u32 {
        self.first_thread + l as u32
    }

    fn toucher(&self, l: usize) -> Toucher {
        Toucher {
            thread: self.threads_before + self.thread(l),
            block_threads: self.block_threads,
            epoch: self.shared.passed(),
        }
    }

    fn special(&self, which: Special) -> Row {
        let block = self.entry.block;
        std::array::from_fn(|l| {
            let thread = self.thread(l);
            u64::from(match which {
                Special::Tid(0) => thread % block[0],
                Special::Tid(1) => thread / block[0] % block[1],
                Special::Tid(_) => thread / block[0] / block[1],
                Special::Ntid(d) => block[usize::from(d)],
                Special::Ctaid(d) => self.block_id[usize::from(d)],
                Special::Nctaid(d) => self.grid[usize::from(d)],
                Special::Lane => l as u32,
            })
        })
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
            _ => {
                let by = self.toucher(l);
                self.global.read(at, out, read_only, by)
            }
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
            _ => {
                let by = self.toucher(l);
                self.global.write(at, from, by)
            }
        }
    }

    /// The copy happens when it is waited for.
    fn finish_copy(&mut self, l: usize, c: Transfer) -> Result<(), Bad> {
        let mut raw = [0u8; 16];
        let raw = &mut raw[..c.bytes];
        let by = self.toucher(l);
        self.global.read(c.src, raw, false, by)?;
        let thread = self.thread(l);
        self.shared.write(c.dst, raw, thread)
    }

    /// An operation of all lanes of a warp.
    pub(crate) fn together(&mut self, w: &mut Warp, inst: &Inst) -> Result<(), Fault> {
        match &inst.op {
            Op::Butterfly { dst, src, lane_mask, clamp, members } => {
                let from = w.row(*src);
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
            Op::Mma { shape, d, a, b, c } => mma::multiply(w, *shape, (d, a, b, c)),
            _ => unreachable!("only warp operations come here"),
        }
        Ok(())
    }
}

/// A load into a wider register extends by the sign of a signed type.
fn load(w: &mut Warp, r: Reg, l: usize, ty: Ty, part: &[u8]) {
    let mut word = [0u8; 8];
    word[..part.len()].copy_from_slice(part);
    let v = u64::from_le_bytes(word);
    if ty.kind == Kind::Signed && r.bits > ty.bits {
        let to = Ty { bits: r.bits, ..ty };
        w.set(r, l, value::convert(to, ty, Round::None, v));
    } else {
        w.set(r, l, v);
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
