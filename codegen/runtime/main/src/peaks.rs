//! What this machine can do at most: products per second on registers, and bytes per second read from each level of
//! memory, by one core and by several at once. Measured in about a third of a second.
mod loops;

use crate::json;
use loops::{Read, Work};
use planish_rt::{cpu, sys};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Parts of a measurement, of which the fastest counts: what disturbs the machine only ever makes it slower.
const BURSTS: usize = 10;

/// Time of one part, in nanoseconds: short, so that in one of them all threads have their cores to themselves.
const BURST: f64 = 1e6;

/// The largest buffer that stands for memory beyond all caches.
const LARGEST: usize = 512 << 20;

/// Sizes of the caches in bytes: first and second level of a core, and the last level of all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Caches {
    /// First level, data.
    pub l1: usize,
    /// Second level.
    pub l2: usize,
    /// Third level; the second where there is none.
    pub l3: usize,
}

impl Caches {
    /// As the system tells them; common sizes where it does not.
    pub fn of_this_machine() -> Caches {
        let folder = std::path::Path::new("/sys/devices/system/cpu/cpu0/cache");
        let of = |level: &str| {
            (0..8).find_map(|i| {
                let read = |name: &str| std::fs::read_to_string(folder.join(format!("index{i}/{name}"))).ok();
                let instructions = read("type")?.trim() == "Instruction";
                if read("level")?.trim() != level || instructions { None } else { size(read("size")?.trim()) }
            })
        };
        let l2 = of("2").unwrap_or(1 << 20);
        Caches { l1: of("1").unwrap_or(32 << 10), l2, l3: of("3").map_or(l2, |l3| l3.max(l2)) }
    }
}

/// `48K` and the like, in bytes.
fn size(text: &str) -> Option<usize> {
    let digits = text.trim_end_matches(['K', 'M']);
    let unit = match text.as_bytes().last()? {
        b'K' => 1 << 10,
        b'M' => 1 << 20,
        _ => 1,
    };
    digits.parse::<usize>().ok()?.checked_mul(unit)
}

/// What some cores do together.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Rates {
    /// Fused multiply-adds of f32, G operations (a product and a sum are two) a second.
    pub fp32: Option<f64>,
    /// The same for 8-bit integers (`vpdpbusd`).
    pub int8: Option<f64>,
    /// GB/s read from the first, second, third level and from memory.
    pub read: [f64; 4],
}

impl Rates {
    fn at_least(self, other: Rates) -> Rates {
        let mut read = self.read;
        for (mine, other) in read.iter_mut().zip(other.read) {
            *mine = mine.max(other);
        }
        let more = |a: Option<f64>, b: Option<f64>| a.zip(b).map(|(a, b)| a.max(b));
        Rates { fp32: more(self.fp32, other.fp32), int8: more(self.int8, other.int8), read }
    }
}

/// The peaks of this machine.
#[derive(Clone, PartialEq, Debug)]
pub struct Peaks {
    /// Of one core.
    pub one: Rates,
    /// Of `threads` at once.
    pub all: Rates,
    /// How many those are.
    pub threads: usize,
    /// Sizes of the caches.
    pub caches: Caches,
}

impl Peaks {
    /// Measures them.
    pub fn measure(threads: usize) -> Peaks {
        let (caches, threads) = (Caches::of_this_machine(), threads.max(1));
        let memory = vec![1u8; (caches.l3 * 4).clamp(64 << 20, LARGEST)];
        // Vectors that lie across two cache lines take two reads.
        let memory = &memory[memory.as_ptr().align_offset(64)..];
        let one = rates(1, caches, memory);
        let all = if threads == 1 { one } else { rates(threads, caches, memory).at_least(one) };
        Peaks { one, all, threads, caches }
    }

    /// GB/s at which these threads can read data of `bytes` that stays where it fits.
    pub fn read(&self, bytes: u64) -> f64 {
        let (c, n) = (self.caches, self.threads);
        let level = [c.l1 * n, c.l2 * n, c.l3].iter().position(|&size| bytes <= size as u64).unwrap_or(3);
        self.all.read[level]
    }

    /// As an object for reports.
    pub fn json(&self) -> String {
        let rates = |r: &Rates| {
            let or_null = |v: Option<f64>| v.map_or(String::from("null"), rounded);
            let [l1, l2, l3, dram] = r.read.map(rounded);
            format!(
                "{{\"fp32_gflops\":{},\"int8_gops\":{},\"read_gbs\":{{\"l1\":{l1},\"l2\":{l2},\"l3\":{l3},\"dram\":{dram}}}}}",
                or_null(r.fp32),
                or_null(r.int8)
            )
        };
        let Caches { l1, l2, l3 } = self.caches;
        format!(
            "{{\"threads\":{},\"one\":{},\"all\":{},\"caches\":{{\"l1\":{l1},\"l2\":{l2},\"l3\":{l3}}}}}",
            self.threads,
            rates(&self.one),
            rates(&self.all)
        )
    }

    /// A line for people.
    pub fn text(&self) -> String {
        let r = &self.all;
        let shown = |v: Option<f64>| v.map_or(String::from("-"), |v| format!("{v:.0}"));
        let [l1, l2, l3, dram] = r.read;
        format!(
            "peaks of {} threads: f32 {} GFLOP/s, int8 {} GOP/s; reading L1 {l1:.0}, L2 {l2:.0}, L3 {l3:.0}, memory {dram:.0} GB/s\n",
            self.threads,
            shown(r.fp32),
            shown(r.int8)
        )
    }
}

fn rounded(v: f64) -> String {
    json::number((v * 10.0).round() / 10.0)
}

fn rates(threads: usize, caches: Caches, memory: &[u8]) -> Rates {
    let isa = cpu::detect();
    let work = |w: Option<Work>| {
        let w = w?;
        let per = w.operations;
        Some(fastest(threads, per, &|_, times| w.run(times)))
    };
    let read = Read::of(isa);
    let over = |bytes: usize, from: &[u8]| {
        // Each thread has its own part, whole rounds of the loop's step.
        let part = (bytes / read.step * read.step).min(from.len() / threads / read.step * read.step);
        fastest(threads, part as f64, &|thread, times| {
            let place = &from[thread * part..(thread + 1) * part];
            for _ in 0..times {
                read.run(place);
            }
        })
    };
    let l3 = if caches.l3 > caches.l2 { (caches.l3 / 2 / threads).max(caches.l2 * 2) } else { caches.l2 / 2 };
    Rates {
        fp32: work(Work::fp32(isa)),
        int8: work(Work::int8(isa)),
        read: [
            over(caches.l1 / 2, memory),
            over(caches.l2 / 2, memory),
            over(l3, memory),
            over(memory.len() / threads, memory),
        ],
    }
}

/// Units a nanosecond, in the fastest of some bursts that all threads begin together. `run(thread, times)` does
/// `times` times `units`.
fn fastest(threads: usize, units: f64, run: &(dyn Fn(usize, usize) + Sync)) -> f64 {
    run(0, 1);
    let mut times = 1;
    loop {
        let start = sys::now_ns();
        run(0, times);
        let took = (sys::now_ns() - start) as f64;
        if took >= BURST / 4.0 || times > 1 << 40 {
            times = ((times as f64 * BURST / took.max(1.0)) as usize).max(1);
            break;
        }
        times *= 4;
    }
    let arrived = AtomicUsize::new(0);
    // Waking a thread that sleeps would take as long as a good part of a burst.
    let meet = |burst: usize| {
        arrived.fetch_add(1, Ordering::AcqRel);
        let mut turns = 0;
        while arrived.load(Ordering::Acquire) < threads * (burst + 1) {
            turns += 1;
            if turns % 4096 == 0 { std::thread::yield_now() } else { std::hint::spin_loop() }
        }
    };
    let one = |thread: usize| {
        let mut spans = [(0, 0); BURSTS];
        for (burst, span) in spans.iter_mut().enumerate() {
            meet(burst);
            let start = sys::now_ns();
            run(thread, times);
            *span = (start, sys::now_ns());
        }
        spans
    };
    let spans: Vec<_> = std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|t| scope.spawn(move || one(t))).collect();
        let mine = one(0);
        std::iter::once(mine).chain(others.into_iter().filter_map(|o| o.join().ok())).collect()
    });
    let rate = |burst: usize| {
        let begin = spans.iter().map(|s| s[burst].0).min().unwrap_or(0);
        let end = spans.iter().map(|s| s[burst].1).max().unwrap_or(0);
        spans.len() as f64 * units * times as f64 / end.saturating_sub(begin).max(1) as f64
    };
    (0..BURSTS).map(rate).fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_caches_are_read() {
        assert_eq!(
            (size("48K"), size("32M"), size("512"), size("x")),
            (Some(49152), Some(32 << 20), Some(512), None)
        );
        let c = Caches::of_this_machine();
        assert!(c.l1 >= 8 << 10 && c.l1 <= c.l2 && c.l2 <= c.l3, "{c:?}");
    }

    #[test]
    fn peaks_are_ordered_as_the_levels_are() {
        let start = std::time::Instant::now();
        let p = Peaks::measure(1);
        // No cache is slower than half of what lies behind it, even beside other work.
        let [l1, l2, l3, dram] = p.one.read;
        assert!(l1 > 1.0 && l2 > l3 / 2.0 && l3 > dram / 2.0 && dram > 0.1, "{p:?}");
        if let (Some(f), Some(i)) = (p.one.fp32, p.one.int8) {
            assert!(f > 1.0 && i > f, "{p:?}");
        }
        assert_eq!(p.read(1), l1);
        assert_eq!(p.read(u64::MAX), dram);
        assert!(start.elapsed().as_secs() < 10);
        assert!(p.json().starts_with("{\"threads\":1,\"one\":{\"fp32_gflops\":"), "{}", p.json());
    }
}
