//! Launches: blocks, warps in lock-step, reconvergence, barriers.

use crate::entry::Entry;
use crate::fault::{Fault, FaultKind};
use crate::memory::{Bad, Global, Shared};
use crate::op::{Inst, Op, Operand, Reg};

/// Lanes of a warp.
pub(crate) const LANES: usize = 32;
const ALL: u32 = u32::MAX;

/// One argument, in the order of the entry's parameters.
#[derive(Clone, Copy, Debug)]
pub enum Arg {
    /// A buffer in the memory of this process: address and length in bytes.
    Buf(*mut u8, usize),
    /// Eight bytes.
    Scalar(i64),
}

impl Arg {
    /// A buffer in a slice of plain numbers; it must outlive the launch.
    pub fn slice<T: Copy>(s: &mut [T]) -> Arg {
        Arg::Buf(s.as_mut_ptr().cast(), size_of_val(s))
    }
}

/// What a launch may take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Instructions of warps.
    pub steps: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { steps: 1 << 36 }
    }
}

/// What a launch did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stats {
    /// Instructions of warps, each counted once however many lanes took part.
    pub steps: u64,
    pub blocks: u64,
}

/// Pending copies of one lane: closed groups, oldest first, and the open one.
#[derive(Clone, Default)]
pub(crate) struct Copies {
    pub(crate) closed: Vec<Vec<Transfer>>,
    pub(crate) open: Vec<Transfer>,
}

/// To an address of shared memory, from one of global memory.
#[derive(Clone, Copy)]
pub(crate) struct Transfer {
    pub(crate) dst: u64,
    pub(crate) src: u64,
    pub(crate) bytes: usize,
}

/// 32 threads.
pub(crate) struct Warp {
    /// By register, then lane.
    regs: Vec<[u64; LANES]>,
    pc: [u32; LANES],
    /// Lanes that can go on, that wait at a barrier or warp operation, and that exist.
    ready: u32,
    waiting: u32,
    exist: u32,
    /// All ready lanes have one address.
    converged: bool,
    pub(crate) local: Vec<u8>,
    pub(crate) copies: Vec<Copies>,
}

impl Warp {
    pub(crate) fn get(&self, o: Operand, lane: usize) -> u64 {
        match o {
            Operand::Reg(r) => self.regs[r.index as usize][lane],
            Operand::Imm(v) => v,
        }
    }
    pub(crate) fn set(&mut self, r: Reg, lane: usize, v: u64) {
        self.regs[r.index as usize][lane] = v & (u64::MAX >> (64 - r.bits));
    }
    fn gone(&self) -> u32 {
        self.exist & !self.ready & !self.waiting
    }
}

pub(crate) struct Machine<'e> {
    pub(crate) entry: &'e Entry,
    /// Parameter space, one word a parameter.
    pub(crate) params: Vec<u64>,
    pub(crate) global: Global,
    pub(crate) shared: Shared,
    pub(crate) grid: [u32; 3],
    pub(crate) block_id: [u32; 3],
    /// Index of the first thread of the warp that runs.
    pub(crate) first_thread: u32,
    limits: Limits,
    stats: Stats,
}

/// Lanes of a mask.
pub(crate) fn lanes(mask: u32) -> impl Iterator<Item = usize> {
    (0..LANES).filter(move |l| mask >> l & 1 == 1)
}

/// What keeps a warp from going on.
#[derive(PartialEq, Eq)]
enum Pause {
    Barrier,
    End,
}

impl Entry {
    /// Runs all blocks of a grid, one after the other.
    ///
    /// # Safety
    /// Every [`Arg::Buf`] must be readable, and writable where the kernel writes, for its length.
    pub unsafe fn launch(&self, args: &[Arg], grid: [u32; 3], limits: Limits) -> Result<Stats, Fault> {
        let refuse = |message: String| Fault {
            kind: FaultKind::Launch,
            kernel: self.name.clone(),
            line: 0,
            inst: String::new(),
            thread: None,
            message,
        };
        if args.len() != self.params.len() {
            return Err(refuse(format!("{} arguments for {} parameters", args.len(), self.params.len())));
        }
        let mut global = Global::default();
        let mut params = Vec::with_capacity(args.len());
        for (i, (arg, param)) in args.iter().zip(&self.params).enumerate() {
            params.push(match (*arg, param.pointer) {
                (Arg::Scalar(v), None) => v.cast_unsigned(),
                (Arg::Buf(ptr, bytes), Some(align)) => {
                    if bytes > 0 && !(ptr as usize).is_multiple_of(align.max(1) as usize) {
                        return Err(refuse(format!("{} is not aligned to {align} bytes", param.name)));
                    }
                    global.add(i, ptr, bytes)
                }
                _ => return Err(refuse(format!("the wrong kind of argument for {}", param.name))),
            });
        }
        let mut m = Machine {
            entry: self,
            params,
            global,
            shared: Shared::new(self.shared_bytes),
            grid,
            block_id: [0; 3],
            first_thread: 0,
            limits,
            stats: Stats::default(),
        };
        let threads = self.block.iter().product::<u32>() as usize;
        let mut warps: Vec<Warp> = (0..threads.div_ceil(LANES)).map(|_| m.warp()).collect();
        for z in 0..grid[2] {
            for y in 0..grid[1] {
                for x in 0..grid[0] {
                    m.block_id = [x, y, z];
                    m.block(&mut warps, threads)?;
                }
            }
        }
        Ok(m.stats)
    }
}

impl Machine<'_> {
    fn warp(&self) -> Warp {
        Warp {
            regs: vec![[0; LANES]; self.entry.registers as usize],
            pc: [0; LANES],
            ready: 0,
            waiting: 0,
            exist: 0,
            converged: true,
            local: vec![0; self.entry.local_bytes * LANES],
            copies: vec![Copies::default(); LANES],
        }
    }

    /// A fault of an instruction, in a lane or in the whole warp.
    pub(crate) fn fault(&self, inst: &Inst, lane: Option<usize>, (kind, message): Bad) -> Fault {
        Fault {
            kind,
            kernel: self.entry.name.clone(),
            line: inst.line,
            inst: inst.text.clone(),
            thread: lane.map(|l| (self.block_id, self.first_thread + l as u32)),
            message,
        }
    }

    fn block(&mut self, warps: &mut [Warp], threads: usize) -> Result<(), Fault> {
        self.stats.blocks += 1;
        self.shared.forget();
        for (w, warp) in warps.iter_mut().enumerate() {
            let count = (threads - w * LANES).min(LANES);
            warp.exist = ALL >> (LANES - count);
            (warp.ready, warp.waiting, warp.converged) = (warp.exist, 0, true);
            warp.pc = [0; LANES];
            // Nothing may depend on what a register or local memory holds at the start.
            warp.regs.fill([0xA5A5_A5A5_A5A5_A5A5; LANES]);
            warp.local.fill(0xA5);
            warp.copies.fill(Copies::default());
        }
        loop {
            let mut ended = 0;
            for (w, warp) in warps.iter_mut().enumerate() {
                self.first_thread = (w * LANES) as u32;
                ended += usize::from(self.until_pause(warp)? == Pause::End);
            }
            if ended == warps.len() {
                return Ok(());
            }
            self.release(warps)?;
        }
    }

    /// Every warp has stopped: lets all threads pass the barrier that they must all be at.
    fn release(&mut self, warps: &mut [Warp]) -> Result<(), Fault> {
        let at: Vec<u32> = warps.iter().flat_map(|w| lanes(w.waiting).map(|l| w.pc[l])).collect();
        let Some(first) = at.first().copied() else { return Ok(()) };
        let threads: u32 = warps.iter().map(|w| w.exist.count_ones()).sum();
        let here = at.iter().filter(|pc| **pc == first).count();
        if here < threads as usize {
            let text = format!("{here} of {threads} threads of the block reach the barrier");
            let inst = &self.entry.insts[first as usize];
            let mut fault = self.fault(inst, None, (FaultKind::Divergent, text));
            fault.thread = Some((self.block_id, 0));
            return Err(fault);
        }
        for w in warps {
            for l in lanes(w.waiting) {
                w.pc[l] += 1;
            }
            (w.ready, w.waiting, w.converged) = (w.waiting, 0, true);
        }
        self.shared.epoch += 1;
        Ok(())
    }

    fn until_pause(&mut self, warp: &mut Warp) -> Result<Pause, Fault> {
        let entry = self.entry;
        loop {
            if warp.ready == 0 {
                if warp.waiting == 0 {
                    return Ok(Pause::End);
                }
                if self.warp_operation(warp)? {
                    continue;
                }
                return Ok(Pause::Barrier);
            }
            let (pc, active) = if warp.converged {
                (warp.pc[warp.ready.trailing_zeros() as usize], warp.ready)
            } else {
                let pc = lanes(warp.ready).map(|l| warp.pc[l]).min().unwrap_or(0);
                let active = lanes(warp.ready).filter(|l| warp.pc[*l] == pc).fold(0, |m, l| m | 1 << l);
                warp.converged = active == warp.ready;
                (pc, active)
            };
            let inst = &entry.insts[pc as usize];
            self.stats.steps += 1;
            if self.stats.steps > self.limits.steps {
                let text = format!("more than {} steps", self.limits.steps);
                return Err(self.fault(inst, None, (FaultKind::Steps, text)));
            }
            let mask = match inst.guard {
                None => active,
                Some((reg, negate)) => lanes(active)
                    .filter(|l| (warp.get(Operand::Reg(reg), *l) & 1 == 1) != negate)
                    .fold(0, |m, l| m | 1 << l),
            };
            self.step(warp, inst, pc, active, mask)?;
        }
    }

    /// Executes an instruction for the lanes of `mask`; the other active ones pass it by.
    fn step(&mut self, warp: &mut Warp, inst: &Inst, pc: u32, active: u32, mask: u32) -> Result<(), Fault> {
        let mut next = active;
        match &inst.op {
            Op::Branch { target } => {
                for l in lanes(mask) {
                    warp.pc[l] = *target;
                }
                next &= !mask;
                warp.converged &= next == 0 || mask == 0;
            }
            Op::Return => {
                warp.ready &= !mask;
                next &= !mask;
            }
            Op::Barrier | Op::Butterfly { .. } | Op::Mma { .. } => {
                if mask == warp.exist && mask == ALL && inst.op != Op::Barrier {
                    self.together(warp, inst)?;
                } else {
                    // They wait until every lane of the warp, or thread of the block, has come.
                    warp.ready &= !mask;
                    warp.waiting |= mask;
                    next &= !mask;
                }
            }
            op => self.execute(warp, inst, op, mask)?,
        }
        for l in lanes(next) {
            warp.pc[l] = pc + 1;
        }
        Ok(())
    }

    /// No lane can go on: does the operation that all lanes of the warp wait at. False if that is a barrier.
    fn warp_operation(&mut self, warp: &mut Warp) -> Result<bool, Fault> {
        let entry = self.entry;
        let barrier = |pc: u32| entry.insts[pc as usize].op == Op::Barrier;
        let Some(pc) = lanes(warp.waiting).map(|l| warp.pc[l]).find(|pc| !barrier(*pc)) else {
            return Ok(false);
        };
        let inst = &entry.insts[pc as usize];
        let here = lanes(warp.waiting).filter(|l| warp.pc[*l] == pc).count();
        if here < LANES {
            let text = format!(
                "{here} of {LANES} lanes of the warp take part ({} have ended)",
                warp.gone().count_ones()
            );
            return Err(self.fault(inst, Some(0), (FaultKind::Divergent, text)));
        }
        self.together(warp, inst)?;
        for l in 0..LANES {
            warp.pc[l] += 1;
        }
        (warp.ready, warp.waiting, warp.converged) = (ALL, 0, true);
        Ok(true)
    }
}
