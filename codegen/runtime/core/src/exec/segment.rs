//! Straight lines of launches: resolved once, run often.
use super::{Program, Session};
use crate::error::{Error, ErrorKind, Result, fail};
use crate::kernel::{Code, KernelFn};
use crate::plan::{Arg, Place, SlotId, Step, Value};
use crate::pool::Pool;
use alloc::vec::Vec;

/// The resolved form of a straight line.
#[derive(Default)]
pub(super) struct Resolved {
    /// Values of the symbols it depends on when it was resolved.
    bound: Vec<i64>,
    layout: u64,
    pointers: u64,
    ops: Vec<Op>,
    words: Vec<u64>,
    sizes: Vec<u64>,
    /// Words that are addresses of slots.
    addresses: Vec<(u32, SlotId)>,
}

/// How the threads share the parallel axis of a launch.
#[derive(Clone, Copy)]
struct Cut {
    extent: i64,
    grain: i64,
    /// Units of a round; the extent if there is one only.
    round: i64,
}

impl Cut {
    fn run(self, pool: Option<&Pool>, call: &(dyn Fn(i64, i64) + Sync)) {
        match pool {
            Some(pool) if self.round > self.grain && self.round < self.extent => {
                pool.run_rounds(self.extent, self.round, self.grain, call);
            }
            Some(pool) if self.round > self.grain => pool.run(self.extent, self.grain, call),
            _ => call(0, self.extent),
        }
    }
}

/// Bytes of the slots that a launch reads or writes, each counted once; weights once for each round.
#[derive(Clone, Copy, Default)]
pub(super) struct Moved {
    /// All of them.
    pub(super) bytes: u64,
    /// Those of weights.
    pub(super) weights: u64,
}

enum Op {
    Native {
        f: KernelFn,
        kernel: u32,
        words: u32,
        cut: Cut,
        moved: Moved,
    },
    Host {
        kernel: u32,
        words: u32,
        count: u32,
        cut: Cut,
        moved: Moved,
    },
    /// Destination word, source word, bytes.
    Copy {
        words: u32,
        bytes: usize,
    },
    Count {
        counter: usize,
        value: i64,
    },
    /// Adds the i64 at the address of a word.
    CountAt {
        counter: usize,
        word: usize,
    },
}

impl Session {
    /// Runs a straight line.
    pub(super) fn run_segment(&mut self, p: &Program, index: usize) -> Result<()> {
        let mut r = core::mem::take(&mut self.segments[index]);
        let outcome = self.refresh(p, index, &mut r).and_then(|()| self.run_ops(p, &r));
        self.segments[index] = r;
        outcome
    }

    fn refresh(&mut self, p: &Program, index: usize, r: &mut Resolved) -> Result<()> {
        let deps = &p.segments[index].deps;
        let same = r.layout == self.layout
            && r.bound.len() == deps.len()
            && r.bound.iter().zip(deps).all(|(&v, &s)| self.exprs.symbol(s) == Some(v));
        if same && r.pointers == self.pointers {
            return Ok(());
        }
        if !same {
            r.layout = 0;
            self.resolve(p, index, r)?;
        }
        for &(word, slot) in &r.addresses {
            r.words[word as usize] = self.place(p, slot)?.0 as u64;
        }
        r.pointers = self.pointers;
        if !same {
            r.bound.clear();
            for &s in deps {
                match self.exprs.symbol(s) {
                    Some(v) => r.bound.push(v),
                    // A symbol that a chosen part of an expression does not need may be unbound: resolve again then.
                    None => break,
                }
            }
            r.layout = self.layout;
        }
        Ok(())
    }

    fn resolve(&mut self, p: &Program, index: usize, r: &mut Resolved) -> Result<()> {
        r.ops.clear();
        r.words.clear();
        r.sizes.clear();
        r.addresses.clear();
        let seg = &p.segments[index];
        for step in &p.plan.blocks[seg.block].steps[seg.start..seg.end] {
            match step {
                Step::Launch { kernel, args, extent, grain, round } => {
                    let extent = self.eval(p, *extent)?;
                    let grain = self.eval(p, *grain)?.max(1);
                    let round = round.map_or(Ok(extent), |r| self.eval(p, r))?.clamp(1, extent.max(1));
                    let cut = Cut { extent, grain, round };
                    let words = r.words.len() as u32;
                    let rounds = extent.max(1) as u64 / round as u64;
                    let mut moved = Moved::default();
                    for (i, a) in args.iter().enumerate() {
                        match *a {
                            Arg::Slot(s) => {
                                let bytes = self.address_word(p, r, s)?;
                                let weights = in_weights(p, s);
                                let bytes = if weights { bytes * rounds } else { bytes };
                                if !args[..i].contains(a) {
                                    moved.bytes += bytes;
                                    moved.weights += if weights { bytes } else { 0 };
                                }
                            }
                            Arg::Scalar(e) => {
                                r.words.push(self.eval(p, e)? as u64);
                                r.sizes.push(0);
                            }
                        }
                    }
                    if extent <= 0 {
                        continue;
                    }
                    let kernel = kernel.0;
                    r.ops.push(match &p.code {
                        Code::Native(f) => Op::Native { f: f[kernel as usize], kernel, words, cut, moved },
                        Code::Host(_) => Op::Host { kernel, words, count: args.len() as u32, cut, moved },
                    });
                }
                Step::Copy { dst, src } => {
                    if dst == src {
                        continue;
                    }
                    let words = r.words.len() as u32;
                    let (_, bytes) = self.slot_bytes(p, *src)?;
                    self.ensure_dims(p, *dst)?;
                    self.ensure(p, *dst, bytes, 0)?;
                    self.address_word(p, r, *dst)?;
                    self.address_word(p, r, *src)?;
                    if bytes > 0 {
                        r.ops.push(Op::Copy { words, bytes });
                    }
                }
                Step::Require { cond, error } => {
                    if self.eval(p, *cond)? == 0 {
                        fail!(Data, "{}", p.plan.errors[error.index()]);
                    }
                }
                Step::Count { counter, value: Value::Expr(e) } => {
                    r.ops.push(Op::Count { counter: counter.index(), value: self.eval(p, *e)? });
                }
                Step::Count { counter, value: Value::Slot(s) } => {
                    let word = r.words.len();
                    if self.address_word(p, r, *s)? < 8 {
                        fail!(Program, "slot {s} is counted but empty");
                    }
                    r.ops.push(Op::CountAt { counter: counter.index(), word });
                }
                _ => fail!(Program, "a step of a straight line binds symbols"),
            }
        }
        Ok(())
    }

    /// Adds the word of a slot; returns the slot's bytes.
    fn address_word(&mut self, p: &Program, r: &mut Resolved, s: SlotId) -> Result<u64> {
        let bytes = self.ensure_dims(p, s)?;
        let (ptr, _) = self.place(p, s)?;
        r.addresses.push((r.words.len() as u32, s));
        r.words.push(ptr as u64);
        r.sizes.push(bytes as u64);
        Ok(bytes as u64)
    }

    fn run_ops(&mut self, p: &Program, r: &Resolved) -> Result<()> {
        for op in &r.ops {
            match *op {
                Op::Native { f, kernel, words, cut, moved } => {
                    let args = r.words[words as usize..].as_ptr() as usize;
                    let ctx = &raw const self.ctx as usize;
                    let call = move |lo: i64, hi: i64| {
                        // SAFETY: the words are addresses of slots of the sizes the plan declares and scalars, which
                        // is what the kernel was compiled for; the context lives in the session.
                        unsafe { f(args as *const u64, lo, hi, ctx as *mut crate::kernel::Ctx) }
                    };
                    let start = self.profile_start();
                    cut.run(self.pool.as_deref(), &call);
                    self.profile_end(kernel, start, moved);
                }
                Op::Host { kernel, words, count, cut, moved } => {
                    let Code::Host(host) = &p.code else { fail!(Program, "no table of host kernels") };
                    let range = words as usize..(words + count) as usize;
                    let (args, sizes) = (&r.words[range.clone()], &r.sizes[range]);
                    let ctx = &self.ctx;
                    // SAFETY: as above; `sizes` are the bytes that belong to the slots.
                    let call = |lo: i64, hi: i64| unsafe { host.launch(kernel, args, sizes, lo, hi, ctx) };
                    let start = self.profile_start();
                    cut.run(self.pool.as_deref().filter(|_| host.parallel()), &call);
                    self.profile_end(kernel, start, moved);
                }
                Op::Copy { words, bytes } => {
                    let w = words as usize;
                    // SAFETY: both slots hold `bytes` bytes (checked when resolved); they may overlap.
                    unsafe { p.memory.copy(r.words[w] as *mut u8, r.words[w + 1] as *const u8, bytes)? };
                    continue;
                }
                Op::Count { counter, value } => {
                    self.counters[counter] = self.counters[counter].wrapping_add(value as u64);
                    continue;
                }
                Op::CountAt { counter, word } => {
                    let mut value = [0u8; 8];
                    // SAFETY: the slot holds an i64 (checked when resolved).
                    unsafe { p.memory.read(&mut value, r.words[word] as *const u8)? };
                    self.counters[counter] = self.counters[counter].wrapping_add(u64::from_ne_bytes(value));
                    continue;
                }
            }
            self.check(p)?;
        }
        if let Code::Host(host) = &p.code {
            host.settle(&self.ctx)?;
            self.check(p)?;
        }
        Ok(())
    }

    /// Whether a kernel has stored an error.
    fn check(&self, p: &Program) -> Result<()> {
        match self.ctx.error.load(core::sync::atomic::Ordering::Relaxed) {
            0 => Ok(()),
            code => Err(kernel_error(p, code)),
        }
    }
}

fn in_weights(p: &Program, mut s: SlotId) -> bool {
    loop {
        match p.plan.slots[s.index()].place {
            Place::Alias { slot, .. } => s = slot,
            Place::Weights { .. } => return true,
            _ => return false,
        }
    }
}

fn kernel_error(p: &Program, code: i32) -> Error {
    match usize::try_from(code).ok().and_then(|c| p.plan.errors.get(c.checked_sub(1)?)) {
        Some(m) => Error::new(ErrorKind::Data, m.clone()),
        None => Error::new(ErrorKind::Program, alloc::format!("a kernel stored the unknown error {code}")),
    }
}
