//! The kernel interpreter: slow, obvious, and strict.
//!
//! Threads of a block run in lock-step under a mask (a CPU kernel is one thread), so that barriers, warp shuffles and fragments
//! are plain. Besides results it reports what machine code would hide: an access outside a buffer, a misaligned access, a read of a
//! local element that was never written, buffers that overlap without [`ParamKind::Buffer::may_alias`], divergent barriers, races in
//! shared memory between barriers, loop bounds that overflow.

mod control;
mod eval;
mod memory;
pub(crate) mod scalar;
#[cfg(test)]
mod tests;
mod warp;

use super::func::{Class, Kernel, Local, ParamKind};
use super::inst::Inst;
use super::print::print_inst_head;
use super::types::{Space, Val};
use memory::Region;
use std::fmt;

/// One argument.
#[derive(Clone, Copy, Debug)]
pub enum Arg {
    /// Address and length in bytes.
    Buf(*mut u8, usize),
    Scalar(i64),
}

impl Arg {
    /// A buffer in a slice of plain numbers; it must outlive the run.
    pub fn slice<T: Copy>(s: &mut [T]) -> Arg {
        Arg::Buf(s.as_mut_ptr().cast(), size_of_val(s))
    }
}

/// Why a run was stopped.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Trap {
    pub kernel: String,
    /// As printed; empty when the launch itself is at fault.
    pub inst: String,
    pub message: String,
}

impl fmt::Display for Trap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "kernel {}: {}", self.kernel, self.message)?;
        if !self.inst.is_empty() {
            write!(f, " at `{}`", self.inst)?;
        }
        Ok(())
    }
}

impl std::error::Error for Trap {}

/// Runs units `lo..hi` of a CPU kernel; gives the error word (0, or the code of an `error_if` that held).
///
/// # Safety
/// Every [`Arg::Buf`] must be readable, and writable where the kernel writes, for its length.
pub unsafe fn run_cpu(kernel: &Kernel, args: &[Arg], lo: i64, hi: i64) -> Result<i32, Trap> {
    if kernel.class != Class::Cpu {
        return Err(launch_trap(kernel, "not a CPU kernel"));
    }
    let mut m = Machine::new(kernel, args, [1, 1, 1], [1, 1, 1])?;
    m.range = (lo, hi);
    m.run_block([0, 0, 0])?;
    Ok(m.error)
}

/// Runs all blocks of a SIMT kernel, one after the other.
///
/// # Safety
/// As [`run_cpu`].
pub unsafe fn run_simt(kernel: &Kernel, args: &[Arg], grid: [u32; 3]) -> Result<(), Trap> {
    let Class::Simt { block } = kernel.class else {
        return Err(launch_trap(kernel, "not a SIMT kernel"));
    };
    let mut m = Machine::new(kernel, args, block, grid)?;
    for z in 0..grid[2] {
        for y in 0..grid[1] {
            for x in 0..grid[0] {
                m.run_block([x, y, z])?;
            }
        }
    }
    Ok(())
}

fn launch_trap(k: &Kernel, message: impl Into<String>) -> Trap {
    Trap { kernel: k.name.clone(), inst: String::new(), message: message.into() }
}

/// A pending asynchronous copy.
#[derive(Clone, Copy)]
struct AsyncCopy {
    dst: usize,
    dst_idx: i64,
    src: usize,
    src_idx: i64,
    elems: i64,
}

/// State of one block (for a CPU kernel: of one call).
struct Machine<'k> {
    k: &'k Kernel,
    threads: usize,
    block: [u32; 3],
    grid: [u32; 3],
    block_id: [u32; 3],
    range: (i64, i64),
    scalars: Vec<i64>,
    /// Parameters, then local arrays: shared once, private once per thread.
    regions: Vec<Region>,
    /// First region of each local array.
    local_at: Vec<usize>,
    /// Lanes of each value, thread by thread.
    vals: Vec<Vec<u64>>,
    /// Barriers so far; accesses of different threads within one epoch race.
    epoch: u32,
    /// Per thread: closed groups of copies, oldest first, and the open one.
    copies: Vec<(Vec<Vec<AsyncCopy>>, Vec<AsyncCopy>)>,
    error: i32,
}

impl<'k> Machine<'k> {
    fn new(k: &'k Kernel, args: &[Arg], block: [u32; 3], grid: [u32; 3]) -> Result<Self, Trap> {
        if args.len() != k.params.len() {
            return Err(launch_trap(
                k,
                format!("{} arguments for {} parameters", args.len(), k.params.len()),
            ));
        }
        let mut scalars = Vec::new();
        let mut regions = Vec::new();
        for (p, a) in k.params.iter().zip(args) {
            let (scalar, region) = match (&p.kind, *a) {
                (ParamKind::Scalar, Arg::Scalar(v)) => {
                    (v, Region::param(super::Elem::I8, std::ptr::null_mut(), 0))
                }
                (ParamKind::Buffer { elem, align, .. }, Arg::Buf(ptr, len)) => {
                    if len >= elem.bytes() && !(ptr as usize).is_multiple_of(*align as usize) {
                        return Err(launch_trap(k, format!("%{} is not aligned to {align} bytes", p.name)));
                    }
                    (0, Region::param(*elem, ptr, len))
                }
                _ => return Err(launch_trap(k, format!("wrong kind of argument for %{}", p.name))),
            };
            scalars.push(scalar);
            regions.push(region);
        }
        check_overlap(k, args)?;
        let threads = block.iter().product::<u32>() as usize;
        let vals = k.vals.iter().map(|t| vec![0; threads * usize::from(t.lanes)]).collect();
        let copies = vec![Default::default(); threads];
        Ok(Machine {
            k,
            threads,
            block,
            grid,
            block_id: [0; 3],
            range: (0, 0),
            scalars,
            regions,
            local_at: Vec::new(),
            vals,
            epoch: 1,
            copies,
            error: 0,
        })
    }

    fn run_block(&mut self, id: [u32; 3]) -> Result<(), Trap> {
        self.block_id = id;
        self.regions.truncate(self.k.params.len());
        self.local_at.clear();
        for l in &self.k.locals {
            self.local_at.push(self.regions.len());
            let copies = if l.space == Space::Shared { 1 } else { self.threads };
            self.regions.extend((0..copies).map(|_| Region::local(l.elem, Local::bytes(l))));
        }
        let active = vec![true; self.threads];
        let body = &self.k.body;
        self.block(body, &active)
    }

    fn trap(&self, inst: &Inst, message: impl Into<String>) -> Trap {
        Trap { kernel: self.k.name.clone(), inst: print_inst_head(self.k, inst), message: message.into() }
    }

    fn lanes(&self, v: Val) -> usize {
        usize::from(self.k.ty(v).lanes)
    }

    /// Lane `i` of `v` in thread `t`.
    fn get(&self, v: Val, t: usize, i: usize) -> u64 {
        self.vals[v.index()][t * self.lanes(v) + i]
    }

    /// A scalar `I64`.
    fn int(&self, v: Val, t: usize) -> i64 {
        self.get(v, t, 0).cast_signed()
    }
}

/// A buffer not marked `may_alias` overlaps no buffer that is written.
fn check_overlap(k: &Kernel, args: &[Arg]) -> Result<(), Trap> {
    let bufs: Vec<_> = k
        .params
        .iter()
        .zip(args)
        .filter_map(|(p, a)| match (&p.kind, a) {
            (ParamKind::Buffer { access, may_alias, .. }, Arg::Buf(ptr, len)) if *len > 0 => {
                Some((&p.name, access.writes(), *may_alias, *ptr as usize, *len))
            }
            _ => None,
        })
        .collect();
    for (i, a) in bufs.iter().enumerate() {
        for b in &bufs[i + 1..] {
            let overlap = a.3 < b.3 + b.4 && b.3 < a.3 + a.4;
            if overlap && (a.1 || b.1) && !(a.2 && b.2) {
                return Err(launch_trap(k, format!("%{} and %{} overlap", a.0, b.0)));
            }
        }
    }
    Ok(())
}
