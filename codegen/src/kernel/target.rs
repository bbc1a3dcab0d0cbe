//! What lowering and back ends need to know of a target.

/// Instruction set family.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Arch {
    X86_64,
    Aarch64,
    Nvptx,
}

/// Instruction-set extensions that change what a kernel builder emits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Features {
    /// AVX2 with FMA and F16C.
    pub avx2: bool,
    pub fma: bool,
    /// AVX-512 F, BW, CD, DQ, VL.
    pub avx512: bool,
    /// AVX-512 VNNI: `dot4_u8s8` is one instruction.
    pub vnni: bool,
    /// AVX-512 BF16: `dot2_bf16` is one instruction.
    pub bf16: bool,
    pub neon: bool,
    /// Arm `sdot`/`udot`.
    pub dotprod: bool,
}

/// One code variant.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct TargetSpec {
    /// Short stable name, as in symbol and report names: `x86-64-v3`.
    pub name: String,
    pub arch: Arch,
    /// f32 lanes of the vector that kernels are written for (0 for SIMT targets).
    pub lanes_f32: u16,
    /// Architectural vector registers.
    pub registers: u16,
    pub features: Features,
    /// Compute capability times ten for `Nvptx` (80 = sm_80), else 0.
    pub sm: u16,
    /// PTX ISA version times ten for `Nvptx` (80 = 8.0), else 0.
    pub ptx: u16,
}

impl TargetSpec {
    fn x86(name: &str, lanes_f32: u16, registers: u16, features: Features) -> TargetSpec {
        TargetSpec { name: name.into(), arch: Arch::X86_64, lanes_f32, registers, features, sm: 0, ptx: 0 }
    }

    /// AVX2, FMA, F16C: 8 lanes, 16 registers.
    pub fn x86_64_v3() -> TargetSpec {
        Self::x86("x86-64-v3", 8, 16, Features { avx2: true, fma: true, ..Features::default() })
    }

    /// AVX-512 F/BW/CD/DQ/VL: 16 lanes, 32 registers.
    pub fn x86_64_v4() -> TargetSpec {
        let features = Features { avx512: true, ..Self::x86_64_v3().features };
        Self::x86("x86-64-v4", 16, 32, features)
    }

    /// [`Self::x86_64_v4`] and VNNI.
    pub fn x86_64_v4_vnni() -> TargetSpec {
        let features = Features { vnni: true, ..Self::x86_64_v4().features };
        Self::x86("x86-64-v4-vnni", 16, 32, features)
    }

    /// [`Self::x86_64_v4_vnni`] and AVX-512 BF16.
    pub fn x86_64_v4_bf16() -> TargetSpec {
        let features = Features { bf16: true, ..Self::x86_64_v4_vnni().features };
        Self::x86("x86-64-v4-bf16", 16, 32, features)
    }

    /// 128-bit vectors on a machine of level v3: what Cranelift compiles, and LLVM too for cross-checks.
    pub fn generic128() -> TargetSpec {
        Self::x86("generic128", 4, 16, Self::x86_64_v3().features)
    }

    /// Armv8.2 with NEON and dot products: 4 lanes, 32 registers.
    pub fn aarch64() -> TargetSpec {
        let features = Features { fma: true, neon: true, dotprod: true, ..Features::default() };
        TargetSpec {
            name: "aarch64".into(),
            arch: Arch::Aarch64,
            lanes_f32: 4,
            registers: 32,
            features,
            sm: 0,
            ptx: 0,
        }
    }

    /// NVIDIA GPU of compute capability `sm / 10` (80, 89, 90), PTX ISA 8.0.
    pub fn nvptx(sm: u16) -> TargetSpec {
        TargetSpec {
            name: format!("sm_{sm}"),
            arch: Arch::Nvptx,
            lanes_f32: 0,
            registers: 255,
            features: Features { fma: true, ..Features::default() },
            sm,
            ptx: 80,
        }
    }

    /// The GPU targets that are offered.
    pub fn all_gpu() -> Vec<TargetSpec> {
        [80, 86, 89, 90].map(Self::nvptx).to_vec()
    }

    /// The CPU targets with the given `--cpu` style names, by [`Self::name`].
    pub fn by_name(name: &str) -> Option<TargetSpec> {
        Self::all_cpu().into_iter().find(|t| t.name == name)
    }

    /// Every CPU target, weakest first.
    pub fn all_cpu() -> Vec<TargetSpec> {
        vec![
            Self::generic128(),
            Self::x86_64_v3(),
            Self::x86_64_v4(),
            Self::x86_64_v4_vnni(),
            Self::x86_64_v4_bf16(),
            Self::aarch64(),
        ]
    }

    /// Whether the machine running this process executes code for this target.
    pub fn runs_here(&self) -> bool {
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::is_x86_feature_detected as has;
            let f = self.features;
            let v3 = || {
                has!("avx2") && has!("fma") && has!("f16c") && has!("bmi1") && has!("bmi2") && has!("lzcnt")
            };
            let v4 = || {
                has!("avx512f")
                    && has!("avx512bw")
                    && has!("avx512cd")
                    && has!("avx512dq")
                    && has!("avx512vl")
            };
            self.arch == Arch::X86_64
                && v3()
                && (!f.avx512 || v4())
                && (!f.vnni || has!("avx512vnni"))
                && (!f.bf16 || has!("avx512bf16"))
        }
        #[cfg(target_arch = "aarch64")]
        {
            self.arch == Arch::Aarch64
        }
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        {
            false
        }
    }

    /// The strongest target that runs on this machine.
    pub fn host() -> Option<TargetSpec> {
        Self::all_cpu().into_iter().rev().find(TargetSpec::runs_here)
    }
}
