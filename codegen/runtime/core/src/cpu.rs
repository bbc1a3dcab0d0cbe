//! What the processor can do, how many cores may be used, and the treatment of subnormal numbers.
mod cores;

pub use cores::{Cores, cores};

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

#[cfg(test)]
mod tests {
    use super::*;

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
