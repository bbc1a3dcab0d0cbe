//! What the processor can do, how many cores may be used, and the treatment of subnormal numbers.
use crate::sys;

/// An instruction set that code variants are compiled for. A larger one includes the smaller ones.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u32)]
pub enum Isa {
    /// What every 64-bit processor of the architecture has.
    Base = 0,
    /// AVX2, FMA, F16C, BMI: x86-64-v3.
    Avx2 = 1,
    /// AVX-512 F, BW, CD, DQ, VL and VNNI.
    Avx512 = 2,
    /// The same with BF16.
    Avx512Bf16 = 3,
}

impl Isa {
    /// Every instruction set, smallest first.
    pub const ALL: [Isa; 4] = [Isa::Base, Isa::Avx2, Isa::Avx512, Isa::Avx512Bf16];

    /// The instruction set with this number.
    pub fn from_code(code: u32) -> Option<Isa> {
        Isa::ALL.get(code as usize).copied()
    }

    /// Name, as in `--cpu` and in symbols.
    pub const fn name(self) -> &'static str {
        match self {
            Isa::Base => "base",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
            Isa::Avx512Bf16 => "avx512bf16",
        }
    }
}

/// The largest instruction set that this processor and its operating system support.
pub fn detect() -> Isa {
    imp::detect()
}

#[cfg(target_arch = "x86_64")]
mod imp {
    use super::Isa;
    use core::arch::asm;
    use core::arch::x86_64::{__cpuid, __cpuid_count};

    fn bits(word: u32, wanted: &[u32]) -> bool {
        wanted.iter().all(|b| word >> b & 1 == 1)
    }

    pub(super) fn detect() -> Isa {
        let max = __cpuid(0).eax;
        if max < 7 || __cpuid(0x8000_0000).eax < 0x8000_0001 {
            return Isa::Base;
        }
        let one = __cpuid(1);
        // FMA, MOVBE, XSAVE enabled by the system, AVX, F16C.
        if !bits(one.ecx, &[12, 22, 27, 28, 29]) {
            return Isa::Base;
        }
        let (low, high): (u32, u32);
        // SAFETY: OSXSAVE is set, so the instruction exists.
        unsafe { asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") high, options(nomem, nostack)) };
        let _ = high;
        let seven = __cpuid_count(7, 0);
        // The system saves SSE and AVX state; BMI1, AVX2, BMI2; LZCNT.
        if !bits(low, &[1, 2]) || !bits(seven.ebx, &[3, 5, 8]) || !bits(__cpuid(0x8000_0001).ecx, &[5]) {
            return Isa::Base;
        }
        // The system saves mask and 512-bit state; F, DQ, CD, BW, VL; VNNI.
        if !bits(low, &[5, 6, 7]) || !bits(seven.ebx, &[16, 17, 28, 30, 31]) || !bits(seven.ecx, &[11]) {
            return Isa::Avx2;
        }
        if seven.eax >= 1 && bits(__cpuid_count(7, 1).eax, &[5]) { Isa::Avx512Bf16 } else { Isa::Avx512 }
    }

    /// Subnormal operands are taken as zero (bit 6), subnormal results become zero (bit 15).
    pub(super) const FLUSH: u64 = 1 << 6 | 1 << 15;

    pub(super) fn read() -> u64 {
        let mut v = 0u32;
        // SAFETY: stores MXCSR to the variable.
        unsafe { asm!("stmxcsr [{}]", in(reg) &mut v, options(nostack)) };
        u64::from(v)
    }

    pub(super) fn write(v: u64) {
        let v = v as u32;
        // SAFETY: the value is one that `read` returned, with flush bits changed: no reserved bit is set.
        unsafe { asm!("ldmxcsr [{}]", in(reg) &v, options(nostack, readonly)) };
    }
}

#[cfg(target_arch = "aarch64")]
mod imp {
    use super::Isa;
    use core::arch::asm;

    pub(super) fn detect() -> Isa {
        Isa::Base
    }

    /// FZ, and FZ16 for half precision.
    pub(super) const FLUSH: u64 = 1 << 24 | 1 << 19;

    pub(super) fn read() -> u64 {
        let v;
        // SAFETY: reads the floating point control register.
        unsafe { asm!("mrs {}, fpcr", out(reg) v, options(nomem, nostack)) };
        v
    }

    pub(super) fn write(v: u64) {
        // SAFETY: the value is one that `read` returned, with flush bits changed.
        unsafe { asm!("msr fpcr, {}", in(reg) v, options(nomem, nostack)) };
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
mod imp {
    pub(super) fn detect() -> super::Isa {
        super::Isa::Base
    }
    pub(super) const FLUSH: u64 = 0;
    pub(super) fn read() -> u64 {
        0
    }
    pub(super) fn write(_: u64) {}
}

/// Flushes subnormal numbers to zero on this thread until it is dropped, which restores what was set before.
#[derive(Debug)]
pub struct FlushGuard {
    before: u64,
    /// Not for another thread.
    _local: core::marker::PhantomData<*const ()>,
}

impl FlushGuard {
    /// Begins flushing.
    pub fn new() -> Self {
        let before = imp::read();
        if before & imp::FLUSH != imp::FLUSH {
            imp::write(before | imp::FLUSH);
        }
        FlushGuard { before, _local: core::marker::PhantomData }
    }
}

impl Default for FlushGuard {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for FlushGuard {
    fn drop(&mut self) {
        if self.before & imp::FLUSH != imp::FLUSH {
            imp::write(imp::read() & !imp::FLUSH | self.before & imp::FLUSH);
        }
    }
}

/// The processors that work may run on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cores {
    /// Logical processors allowed by the affinity mask.
    pub logical: usize,
    /// Physical cores among them.
    pub physical: usize,
    /// Processors' worth of time that the control group grants, rounded up; `usize::MAX` without a quota.
    pub quota: usize,
}

impl Cores {
    /// The number of threads to use unless told otherwise, >= 1.
    pub fn threads(&self) -> usize {
        self.physical.min(self.quota).max(1)
    }

    /// Whether `threads` threads may wait by spinning: each has a processor and the quota is not exceeded by it.
    pub fn may_spin(&self, threads: usize) -> bool {
        threads <= self.logical && threads <= self.quota
    }
}

/// The processors of the calling thread.
pub fn cores() -> Cores {
    let mask = sys::affinity();
    let logical = mask.iter().map(|w| w.count_ones() as usize).sum::<usize>().max(1);
    let mut physical = 0;
    for cpu in 0..mask.len() * 64 {
        let allowed = |c: usize| mask.get(c / 64).is_some_and(|w| w >> (c % 64) & 1 == 1);
        if allowed(cpu) && first_sibling(cpu, allowed).is_none_or(|first| first == cpu) {
            physical += 1;
        }
    }
    Cores { logical, physical: physical.clamp(1, logical), quota: quota() }
}

/// The first processor allowed among those that share a core with `cpu`.
fn first_sibling(cpu: usize, allowed: impl Fn(usize) -> bool) -> Option<usize> {
    let mut path = Path::default();
    path.push(b"/sys/devices/system/cpu/cpu");
    path.number(cpu);
    path.push(b"/topology/thread_siblings_list");
    let mut buf = [0; 256];
    let n = sys::read_file(path.finish()?, &mut buf)?;
    parse_list(&buf[..n]).filter(|&c| allowed(c)).min()
}

/// The numbers of a list such as `0-3,8`.
fn parse_list(text: &[u8]) -> impl Iterator<Item = usize> + '_ {
    text.split(|&b| b == b',')
        .filter_map(|part| {
            let mut ends = part.split(|&b| b == b'-').map(number);
            let first = ends.next()??;
            Some(first..=ends.next().flatten().unwrap_or(first).min(first + 4096))
        })
        .flatten()
}

fn number(text: &[u8]) -> Option<usize> {
    core::str::from_utf8(text).ok()?.trim().parse().ok()
}

/// A path built without allocation.
struct Path {
    bytes: [u8; 512],
    len: usize,
}

impl Default for Path {
    fn default() -> Self {
        Path { bytes: [0; 512], len: 0 }
    }
}

impl Path {
    fn push(&mut self, part: &[u8]) {
        let end = self.len.saturating_add(part.len());
        if end < self.bytes.len() {
            self.bytes[self.len..end].copy_from_slice(part);
        }
        // A path that is too long stays so, and `finish` refuses it.
        self.len = end;
    }

    fn number(&mut self, n: usize) {
        let mut digits = [0; 20];
        let mut at = digits.len();
        let mut rest = n;
        loop {
            at -= 1;
            digits[at] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        self.push(&digits[at..]);
    }

    fn finish(&self) -> Option<&core::ffi::CStr> {
        core::ffi::CStr::from_bytes_with_nul(self.bytes.get(..=self.len)?).ok()
    }
}

/// The smallest quota of the control groups this process is in.
fn quota() -> usize {
    let mut best = usize::MAX;
    let mut buf = [0; 1024];
    let n = sys::read_file(c"/proc/self/cgroup", &mut buf).unwrap_or(0);
    let groups = &buf[..n];
    let v2 = groups.split(|&b| b == b'\n').find_map(|l| l.strip_prefix(b"0::"));
    let mut group = v2.unwrap_or(b"/");
    loop {
        let mut path = Path::default();
        path.push(b"/sys/fs/cgroup");
        path.push(group.strip_suffix(b"/").unwrap_or(group));
        path.push(b"/cpu.max");
        let mut text = [0; 64];
        if let Some(n) = path.finish().and_then(|p| sys::read_file(p, &mut text)) {
            best = best.min(parse_max(&text[..n]));
        }
        match group.iter().rposition(|&b| b == b'/') {
            Some(at) if group.len() > 1 => group = &group[..at.max(1)],
            _ => break,
        }
    }
    let mut text = [[0; 32]; 2];
    let q = sys::read_file(c"/sys/fs/cgroup/cpu/cpu.cfs_quota_us", &mut text[0])
        .and_then(|n| number(&text[0][..n]));
    let p = sys::read_file(c"/sys/fs/cgroup/cpu/cpu.cfs_period_us", &mut text[1])
        .and_then(|n| number(&text[1][..n]));
    match (q, p) {
        (Some(q), Some(p)) if p > 0 => best.min(q.div_ceil(p).max(1)),
        _ => best,
    }
}

/// The processors that a `cpu.max` such as `150000 100000` grants, rounded up.
fn parse_max(text: &[u8]) -> usize {
    let mut parts = text.split(|b| b.is_ascii_whitespace()).filter(|p| !p.is_empty());
    match (parts.next().and_then(number), parts.next().and_then(number)) {
        (Some(q), Some(p)) if p > 0 => q.div_ceil(p).max(1),
        _ => usize::MAX,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    #[test]
    fn lists_and_quotas_parse() {
        assert_eq!(parse_list(b"0-2,8\n").collect::<Vec<_>>(), [0, 1, 2, 8]);
        assert_eq!(parse_list(b"").count(), 0);
        assert_eq!(parse_max(b"max 100000\n"), usize::MAX);
        assert_eq!(parse_max(b"150000 100000\n"), 2);
        assert_eq!(parse_max(b"1000 100000\n"), 1);
    }

    #[test]
    fn the_caller_is_counted() {
        let c = cores();
        assert!(c.threads() >= 1 && c.physical <= c.logical);
        assert!(c.may_spin(1));
        assert!(!c.may_spin(c.logical + 1));
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn detection_agrees_with_the_standard_library() {
        let avx2 = std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma");
        assert_eq!(detect() >= Isa::Avx2, avx2);
        let avx512 = std::arch::is_x86_feature_detected!("avx512vnni")
            && std::arch::is_x86_feature_detected!("avx512vl");
        assert_eq!(detect() >= Isa::Avx512, avx512);
        assert_eq!(detect() >= Isa::Avx512Bf16, avx512 && std::arch::is_x86_feature_detected!("avx512bf16"));
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn subnormals_are_flushed_inside_and_kept_outside() {
        let small = core::hint::black_box(f32::MIN_POSITIVE);
        let half = || core::hint::black_box(small) * core::hint::black_box(0.5);
        assert_ne!(half(), 0.0);
        {
            let _g = FlushGuard::new();
            assert_eq!(half().to_bits(), 0);
        }
        assert_ne!(half(), 0.0);
    }
}
