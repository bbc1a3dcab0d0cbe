//! The loops that peaks are measured with: nothing but products on registers, or nothing but loads.
use planish_rt::cpu::Isa;

/// Products on registers.
#[derive(Clone, Copy)]
pub(super) struct Work {
    run: unsafe fn(usize),
    /// Operations of one time round.
    pub(super) operations: f64,
}

impl Work {
    /// Does `times` rounds.
    pub(super) fn run(&self, times: usize) {
        if times > 0 {
            // SAFETY: the constructors choose a loop that the processor has the instructions for.
            unsafe { (self.run)(times) }
        }
    }
}

/// Loads from memory.
#[derive(Clone, Copy)]
pub(super) struct Read {
    run: unsafe fn(*const u8, usize),
    /// Bytes of a round of the loop.
    pub(super) step: usize,
}

impl Read {
    /// Reads all of it, whose length is a multiple of `step`.
    pub(super) fn run(&self, from: &[u8]) {
        if from.len() >= self.step {
            // SAFETY: as in `Work`; the loop reads `len / step` whole steps of the slice.
            unsafe { (self.run)(from.as_ptr(), from.len() / self.step) }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod imp {
    use super::{Isa, Read, Work};
    use core::arch::asm;

    /// `times` rounds over these instructions on vector registers, which are zero before: no subnormal numbers.
    macro_rules! products {
        ($name:ident, $features:literal, $op:literal, $zero:literal, $a:literal, $b:literal, [$($to:literal)*]) => {
            #[target_feature(enable = $features)]
            unsafe fn $name(times: usize) {
                // SAFETY: works on registers that are given up, and ends after `times` rounds (at least one).
                unsafe {
                    asm!(
                        "vzeroall",
                        concat!($zero, " ", $a, ", ", $a, ", ", $a),
                        concat!($zero, " ", $b, ", ", $b, ", ", $b),
                        "2:",
                        $(concat!($op, " ", $to, ", ", $a, ", ", $b),)*
                        "dec rcx",
                        "jnz 2b",
                        inout("rcx") times => _,
                        clobber_abi("C"),
                        options(nomem, nostack)
                    );
                }
            }
        };
    }

    products!(fp32_zmm, "avx512f", "vfmadd231ps", "vpxord", "zmm30", "zmm31", [
        "zmm0" "zmm1" "zmm2" "zmm3" "zmm4" "zmm5" "zmm6" "zmm7" "zmm8" "zmm9" "zmm10" "zmm11" "zmm12" "zmm13" "zmm14" "zmm15"
    ]);
    products!(int8_zmm, "avx512f,avx512vnni", "vpdpbusd", "vpxord", "zmm30", "zmm31", [
        "zmm0" "zmm1" "zmm2" "zmm3" "zmm4" "zmm5" "zmm6" "zmm7" "zmm8" "zmm9" "zmm10" "zmm11" "zmm12" "zmm13" "zmm14" "zmm15"
    ]);
    products!(fp32_ymm, "avx2,fma", "vfmadd231ps", "vpxor", "ymm14", "ymm15", [
        "ymm0" "ymm1" "ymm2" "ymm3" "ymm4" "ymm5" "ymm6" "ymm7" "ymm8" "ymm9" "ymm10" "ymm11"
    ]);

    /// `steps` rounds over loads of consecutive vectors.
    macro_rules! loads {
        ($name:ident, $features:literal, $op:literal, $step:literal, [$($to:literal $at:literal)*]) => {
            #[target_feature(enable = $features)]
            unsafe fn $name(from: *const u8, steps: usize) {
                // SAFETY: the caller has `steps` steps of bytes at `from`, and at least one.
                unsafe {
                    asm!(
                        "2:",
                        $(concat!($op, " ", $to, ", [rsi + ", $at, "]"),)*
                        concat!("add rsi, ", $step),
                        "dec rcx",
                        "jnz 2b",
                        inout("rsi") from => _,
                        inout("rcx") steps => _,
                        clobber_abi("C"),
                        options(nostack, readonly)
                    );
                }
            }
        };
    }

    loads!(read_zmm, "avx512f", "vmovups", 512, [
        "zmm0" 0 "zmm1" 64 "zmm2" 128 "zmm3" 192 "zmm4" 256 "zmm5" 320 "zmm6" 384 "zmm7" 448
    ]);
    loads!(read_ymm, "avx2", "vmovups", 256, [
        "ymm0" 0 "ymm1" 32 "ymm2" 64 "ymm3" 96 "ymm4" 128 "ymm5" 160 "ymm6" 192 "ymm7" 224
    ]);
    loads!(read_xmm, "sse2", "movups", 128, [
        "xmm0" 0 "xmm1" 16 "xmm2" 32 "xmm3" 48 "xmm4" 64 "xmm5" 80 "xmm6" 96 "xmm7" 112
    ]);

    impl Work {
        /// Multiply-adds of f32, where the processor has them fused.
        pub(in super::super) fn fp32(isa: Isa) -> Option<Work> {
            match isa {
                Isa::Base => None,
                Isa::Avx2 => Some(Work { run: fp32_ymm, operations: 12.0 * 8.0 * 2.0 }),
                Isa::Avx512 | Isa::Avx512Bf16 => Some(Work { run: fp32_zmm, operations: 16.0 * 16.0 * 2.0 }),
            }
        }

        /// Products of 8-bit integers summed in fours.
        pub(in super::super) fn int8(isa: Isa) -> Option<Work> {
            (isa >= Isa::Avx512).then_some(Work { run: int8_zmm, operations: 16.0 * 64.0 * 2.0 })
        }
    }

    impl Read {
        /// With the widest registers.
        pub(in super::super) fn of(isa: Isa) -> Read {
            match isa {
                Isa::Base => Read { run: read_xmm, step: 128 },
                Isa::Avx2 => Read { run: read_ymm, step: 256 },
                Isa::Avx512 | Isa::Avx512Bf16 => Read { run: read_zmm, step: 512 },
            }
        }
    }
}

#[cfg(target_arch = "aarch64")]
mod imp {
    use super::{Isa, Read, Work};
    use core::arch::asm;

    unsafe fn fp32(times: usize) {
        // SAFETY: works on registers that are given up, and ends after `times` rounds (at least one).
        unsafe {
            asm!(
                "movi v30.4s, #0",
                "movi v31.4s, #0",
                "2:",
                "fmla v0.4s, v30.4s, v31.4s",
                "fmla v1.4s, v30.4s, v31.4s",
                "fmla v2.4s, v30.4s, v31.4s",
                "fmla v3.4s, v30.4s, v31.4s",
                "fmla v4.4s, v30.4s, v31.4s",
                "fmla v5.4s, v30.4s, v31.4s",
                "fmla v6.4s, v30.4s, v31.4s",
                "fmla v7.4s, v30.4s, v31.4s",
                "fmla v16.4s, v30.4s, v31.4s",
                "fmla v17.4s, v30.4s, v31.4s",
                "fmla v18.4s, v30.4s, v31.4s",
                "fmla v19.4s, v30.4s, v31.4s",
                "fmla v20.4s, v30.4s, v31.4s",
                "fmla v21.4s, v30.4s, v31.4s",
                "fmla v22.4s, v30.4s, v31.4s",
                "fmla v23.4s, v30.4s, v31.4s",
                "subs x0, x0, #1",
                "b.ne 2b",
                inout("x0") times => _,
                clobber_abi("C"),
                options(nomem, nostack)
            );
        }
    }

    unsafe fn read(from: *const u8, steps: usize) {
        // SAFETY: the caller has `steps` steps of bytes at `from`, and at least one.
        unsafe {
            asm!(
                "2:",
                "ldp q0, q1, [x1]",
                "ldp q2, q3, [x1, #32]",
                "ldp q4, q5, [x1, #64]",
                "ldp q6, q7, [x1, #96]",
                "add x1, x1, #128",
                "subs x0, x0, #1",
                "b.ne 2b",
                inout("x1") from => _,
                inout("x0") steps => _,
                clobber_abi("C"),
                options(nostack, readonly)
            );
        }
    }

    impl Work {
        /// Multiply-adds of f32.
        pub(in super::super) fn fp32(_: Isa) -> Option<Work> {
            Some(Work { run: fp32, operations: 16.0 * 4.0 * 2.0 })
        }

        /// No instruction that every processor of the architecture has.
        pub(in super::super) fn int8(_: Isa) -> Option<Work> {
            None
        }
    }

    impl Read {
        /// With 128-bit registers.
        pub(in super::super) fn of(_: Isa) -> Read {
            Read { run: read, step: 128 }
        }
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
mod imp {
    use super::{Isa, Read, Work};

    unsafe fn read(from: *const u8, steps: usize) {
        for i in 0..steps * 8 {
            // SAFETY: the caller has `steps` steps of 64 bytes at `from`.
            core::hint::black_box(unsafe { from.add(i * 8).cast::<u64>().read_unaligned() });
        }
    }

    impl Work {
        /// Unknown here.
        pub(in super::super) fn fp32(_: Isa) -> Option<Work> {
            None
        }

        /// Unknown here.
        pub(in super::super) fn int8(_: Isa) -> Option<Work> {
            None
        }
    }

    impl Read {
        /// Word by word.
        pub(in super::super) fn of(_: Isa) -> Read {
            Read { run: read, step: 64 }
        }
    }
}
