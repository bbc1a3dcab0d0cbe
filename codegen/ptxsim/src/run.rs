//! Launches: blocks, warps in lock-step, reconvergence, barriers.

use crate::entry::Entry;
use crate::fault::{Fault, FaultKind};
use crate::memory::{Bad, Memory};
use crate::op::{Inst, Op, Reg};
use crate::shared::Shared;

/// Lanes of a warp.
pub(crate) const LANES: usize = 32;
pub(crate) const ALL: u32 = u32::MAX;

/// One argument, in the order of the entry's parameters.
#[derive(Clone, Copy, Debug)]
pub enum Arg {
    /// A buffer in the memory of this process: address and length in bytes.
    Buf(*mut u8, usize),
    /// A buffer whose contents nobody may read before the kernel has written them, and all of which it must write.
    Out(*mut u8, usize),
    /// Eight bytes.
    Scalar(i64),
}

impl Arg {
    /// A buffer in a slice of plain numbers; it must outlive the launch.
    pub fn slice<T: Copy>(s: &mut [T]) -> Arg {
        Arg::Buf(s.as_mut_ptr().cast(), size_of_val(s))
    }

    /// [`Arg::Out`] in a slice of plain numbers; it must outlive the launch.
    pub fn out<T: Copy>(s: &mut [T]) -> Arg {
        Arg::Out(s.as_mut_ptr().cast(), size_of_val(s))
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
    /// Instructions of threads: each counted for every lane that is there for it.
    pub threads: u64,
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

/// A register of all lanes.
pub(crate) type Row = [u64; LANES];

/// 32 threads.
pub(crate) struct Warp {
    /// By register, then lane.
    pub(crate) regs: Vec<Row>,
    /// Where each lane is; while all ready lanes are at one place, that is `at` instead.
    pc: [u32; LANES],
    at: u32,
    converged: bool,
    /// Lanes that can go on, that wait at a barrier or warp operation, and that exist.
    ready: u32,
    waiting: u32,
    exist: u32,
    pub(crate) local: Vec<u8>,
    pub(crate) copies: Vec<Copies>,
    /// Whether there is a copy that has not been waited for.
    pub(crate) copying: bool,
}

impl Warp {
    fn gone(&self) -> u32 {
        self.exist & !self.ready & !self.waiting
    }

    fn guard(&self, reg: Reg, negate: bool) -> u32 {
        let row = &self.regs[reg.index as usize];
        let mut mask = 0;
        for (l, v) in row.iter().enumerate() {
            mask |= (*v as u32 & 1) << l;
        }
        if negate { !mask } else { mask }
    }

    /// Lanes have places of their own from now on.
    fn diverge(&mut self) {
        if self.converged {
            for l in lanes(self.ready) {
                self.pc[l] = self.at;
            }
            self.converged = false;
        }
    }
}

pub(crate) struct Machine<'e> {
    pub(crate) entry: &'e Entry,
    /// Parameter space, one word a parameter.
    pub(crate) params: &'e [u64],
    pub(crate) global: &'e mut Memory,
    pub(crate) shared: Shared,
    pub(crate) grid: [u32; 3],
    pub(crate) block_id: [u32; 3],
    /// Threads of the blocks before this one, and of one block.
    pub(crate) threads_before: u32,
    pub(crate) block_threads: u32,
    /// Index of the first thread of the warp that runs.
    pub(crate) first_thread: u32,
    limits: Limits,
    stats: Stats,
}

/// Lanes of a mask.
pub(crate) fn lanes(mut mask: u32) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let l = mask.trailing_zeros();
        mask &= mask.wrapping_sub(1);
        (l < 32).then_some(l as usize)
    })
}

/// What keeps a warp from going on.
#[derive(PartialEq, Eq)]
enum Pause {
    Barrier,
    End,
}

impl Entry {
    fn refuse(&self, message: String) -> Fault {
        Fault {
            kind: FaultKind::Launch,
            kernel: self.name.clone(),
            line: 0,
            inst: String::new(),
            thread: None,
            message,
        }
    }

    /// Runs all blocks of a grid, one after the other, on memory of this process.
    ///
    /// # Safety
    /// Every buffer must be readable, and writable where the kernel writes, for its length.
    pub unsafe fn launch(&self, args: &[Arg], grid: [u32; 3], limits: Limits) -> Result<Stats, Fault> {
        if args.len() != self.params.len() {
            let text = format!("{} arguments for {} parameters", args.len(), self.params.len());
            return Err(self.refuse(text));
        }
        let mut memory = Memory::new();
        let mut words = Vec::with_capacity(args.len());
        for (i, (arg, param)) in args.iter().zip(&self.params).enumerate() {
            let (ptr, bytes, fresh) = match (*arg, param.pointer) {
                (Arg::Scalar(v), None) => {
                    words.push(v.cast_unsigned());
                    continue;
                }
                (Arg::Buf(ptr, bytes), Some(_)) => (ptr, bytes, false),
                (Arg::Out(ptr, bytes), Some(_)) => (ptr, bytes, true),
                _ => return Err(self.refuse(format!("the wrong kind of argument for {}", param.name))),
            };
            let align = param.pointer.unwrap_or(1).max(1);
            if bytes > 0 && !(ptr as usize).is_multiple_of(align as usize) {
                return Err(self.refuse(format!("{} is not aligned to {align} bytes", param.name)));
            }
            match memory.lend(format!("parameter {i}"), ptr, bytes, fresh) {
                Some(base) => words.push(base),
                None => return Err(self.refuse("too many buffers".into())),
            }
        }
        let stats = self.run(&mut memory, &words, grid, limits)?;
        match memory.unwritten() {
            None => Ok(stats),
            Some(text) => Err(Fault { kind: FaultKind::Unwritten, ..self.refuse(text) }),
        }
    }

    /// Runs all blocks of a grid, one after the other, on the memory of a device. `words` has a word for each parameter:
    /// an address or a number.
    pub fn run(
        &self,
        memory: &mut Memory,
        words: &[u64],
        grid: [u32; 3],
        limits: Limits,
    ) -> Result<Stats, Fault> {
        if words.len() != self.params.len() {
            let text = format!("{} arguments for {} parameters", words.len(), self.params.len());
            return Err(self.refuse(text));
        }
        let threads = self.block.iter().product::<u32>();
        let blocks = grid.iter().try_fold(1u32, |n, d| n.checked_mul(*d));
        if blocks.and_then(|b| b.checked_mul(threads)).is_none() {
            return Err(self.refuse(format!("a grid of {grid:?} blocks of {threads} threads")));
        }
        memory.begin();
        let mut m = Machine {
            entry: self,
            params: words,
            global: memory,
            shared: Shared::new(self.shared_bytes),
            grid,
            block_id: [0; 3],
            threads_before: 0,
            block_threads: threads,
            first_thread: 0,
            limits,
            stats: Stats::default(),
        };
        let threads = threads as usize;
        let mut warps: Vec<Warp> = (0..threads.div_ceil(LANES)).map(|_| m.warp()).collect();
        for z in 0..grid[2] {
            for y in 0..grid[1] {
                for x in 0..grid[0] {
                    m.block_id = [x, y, z];
                    m.block(&mut warps, threads)?;
                    m.threads_before += threads as u32;
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
            at: 0,
            converged: true,
            ready: 0,
            waiting: 0,
            exist: 0,
            local: vec![0; self.entry.local_bytes * LANES],
            copies: vec![Copies::default(); LANES],
            copying: false,
        }
    }

    /// A fault of an instruction, in a lane or in the whole warp.
    #[cold]
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
            (warp.ready, warp.waiting, warp.converged, warp.at) = (warp.exist, 0, true, 0);
            // Nothing may depend on what a register or local memory holds at the start.
            warp.regs.fill([0xA5A5_A5A5_A5A5_A5A5; LANES]);
            warp.local.fill(0xA5);
            if warp.copying {
                warp.copies.fill(Copies::default());
                warp.copying = false;
            }
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
        let mut first = None;
        let (mut here, mut threads) = (0, 0);
        for w in warps.iter() {
            threads += w.exist.count_ones();
            for l in lanes(w.waiting) {
                let pc = *first.get_or_insert(w.pc[l]);
                here += u32::from(w.pc[l] == pc);
            }
        }
        let Some(first) = first else { return Ok(()) };
        if here < threads {
            let text = format!("{here} of {threads} threads of the block reach the barrier");
            let inst = &self.entry.insts[first as usize];
            let mut fault = self.fault(inst, None, (FaultKind::Divergent, text));
            fault.thread = Some((self.block_id, 0));
            return Err(fault);
        }
        for w in warps {
            (w.ready, w.waiting, w.converged, w.at) = (w.waiting, 0, true, first + 1);
        }
        self.shared.barrier();
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
                (warp.at, warp.ready)
            } else {
                let pc = lanes(warp.ready).map(|l| warp.pc[l]).min().unwrap_or(0);
                let active = lanes(warp.ready).filter(|l| warp.pc[*l] == pc).fold(0, |m, l| m | 1 << l);
                if active == warp.ready {
                    (warp.converged, warp.at) = (true, pc);
                }
                (pc, active)
            };
            let inst = &entry.insts[pc as usize];
            self.stats.steps += 1;
            self.stats.threads += u64::from(active.count_ones());
            if self.stats.steps > self.limits.steps {
                let text = format!("more than {} steps", self.limits.steps);
                return Err(self.fault(inst, None, (FaultKind::Steps, text)));
            }
            let mask = match inst.guard {
                None => active,
                Some((reg, negate)) => active & warp.guard(reg, negate),
            };
            self.step(warp, inst, pc, active, mask)?;
        }
    }

    /// Executes an instruction for the lanes of `mask`; the other active ones pass it by.
    fn step(&mut self, warp: &mut Warp, inst: &Inst, pc: u32, active: u32, mask: u32) -> Result<(), Fault> {
        let mut next = active;
        match &inst.op {
            Op::Branch { target } => {
                if mask == active && warp.converged {
                    warp.at = *target;
                    return Ok(());
                }
                if mask != 0 {
                    warp.diverge();
                    for l in lanes(mask) {
                        warp.pc[l] = *target;
                    }
                    next &= !mask;
                }
            }
            Op::Return => {
                warp.ready &= !mask;
                next &= !mask;
            }
            op if op.joins() => {
                if mask == warp.exist && mask == ALL && inst.op != Op::Barrier {
                    self.together(warp, inst)?;
                } else {
                    // They wait until every lane of the warp, or thread of the block, has come.
                    for l in lanes(mask) {
                        warp.pc[l] = pc;
                    }
                    warp.ready &= !mask;
                    warp.waiting |= mask;
                    next &= !mask;
                }
            }
            op => self.execute(warp, inst, op, mask)?,
        }
        if warp.converged {
            warp.at = pc + 1;
        } else {
            for l in lanes(next) {
                warp.pc[l] = pc + 1;
            }
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
        (warp.ready, warp.waiting, warp.converged, warp.at) = (ALL, 0, true, pc + 1);
        Ok(true)
    }
}
