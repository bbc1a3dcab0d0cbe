//! Graph -> plan, weights and linked machine code for each target.

use super::cache::Cache;
use crate::failure::{Failure, Result};
use planish_codegen::kernel::{EmitError, KernelModule, ObjectBytes, TargetSpec};
use planish_codegen::link::{CodeImage, link};
use planish_codegen::lower::{LowerOptions, Module, Precision, lower};
use planish_ir::{Diag, Graph};
use planish_rt::cpu::Isa;

/// What makes machine code of kernels.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Generator {
    /// LLVM: the code of artifacts.
    #[default]
    Llvm,
    /// Cranelift: quick, needs no LLVM.
    Cranelift,
}

/// What to build and how.
#[derive(Clone, Debug)]
pub struct BuildOptions {
    /// What makes the code.
    pub generator: Generator,
    /// One code variant for each.
    pub targets: Vec<TargetSpec>,
    /// Processes that compile at a time. The result does not depend on it.
    pub jobs: usize,
    /// The most bytes of weights.
    pub max_weights: u64,
    /// Whether convolutions may be computed by Winograd's transforms.
    pub winograd: bool,
    /// Whether approximations may stand for functions of f32.
    pub fast_math: bool,
    /// What products of f32 matrices on GPUs multiply.
    pub precision: Precision,
    /// Where compiled kernels are kept.
    pub cache: Option<Cache>,
}

impl Default for BuildOptions {
    fn default() -> Self {
        BuildOptions {
            generator: Generator::Llvm,
            targets: Vec::new(),
            jobs: std::thread::available_parallelism().map_or(1, usize::from),
            max_weights: LowerOptions::default().max_weights,
            winograd: true,
            fast_math: false,
            precision: Precision::F32,
            cache: None,
        }
    }
}

impl BuildOptions {
    /// What lowering is told.
    pub fn lower(&self) -> LowerOptions {
        LowerOptions {
            targets: self.targets.clone(),
            max_weights: self.max_weights,
            winograd: self.winograd,
            fast_math: self.fast_math,
            precision: self.precision,
        }
    }
}

/// Machine code of one variant.
#[derive(Clone, Debug)]
pub struct BuiltVariant {
    /// The target.
    pub target: TargetSpec,
    /// The object files, before linking.
    pub objects: Vec<ObjectBytes>,
    /// Linked code.
    pub image: CodeImage,
    /// Offset in the code of each kernel of the plan.
    pub entries: Vec<u32>,
}

/// A compiled model.
#[derive(Clone, Debug)]
pub struct Built {
    /// Plan, weights and kernels.
    pub module: Module,
    /// Code, in the order of the targets.
    pub variants: Vec<BuiltVariant>,
}

/// Lowers and compiles a graph.
pub fn build(graph: &Graph, options: &BuildOptions) -> Result<Built> {
    compiled(lowered(graph, options)?, options)
}

/// Compiles the kernels of a module.
pub fn compiled(module: Module, options: &BuildOptions) -> Result<Built> {
    let variants = module
        .variants
        .iter()
        .map(|v| compile_variant(&v.kernels, &v.target, options))
        .collect::<Result<Vec<_>>>()?;
    if let Some(cache) = &options.cache {
        cache.trim();
    }
    Ok(Built { module, variants })
}

/// The passes of the default level, as `compile` runs them.
pub fn optimise(graph: &mut Graph) -> Result<()> {
    let mut plan = crate::pipeline::Plan::level(2);
    if let Some(host) = TargetSpec::host() {
        plan.aim(&[host.lanes_f32], None);
    }
    let mut report = plan.compress(graph, &mut |_| {})?;
    plan.fuse(graph, &mut |_| {}, &mut report)
}

/// Lowers a graph for the targets of `options`.
pub fn lowered(graph: &Graph, options: &BuildOptions) -> Result<Module> {
    Ok(lower(graph, &options.lower())?)
}

/// The kernels of a module for a GPU as one PTX text.
pub fn ptx(module: &Module, options: &BuildOptions) -> Result<String> {
    let mut out = String::new();
    for v in &module.variants {
        let t = &v.target;
        let version = format!("{}.{}", t.ptx / 10, t.ptx % 10);
        out += &format!(".version {version}\n.target sm_{}\n.address_size 64\n", t.sm);
        for part in llvm::objects(&v.kernels, t, options)? {
            // Kernels are compiled in parts, and each has that head.
            let text = String::from_utf8_lossy(&part.bytes);
            let body = text.split_once(".address_size 64\n").map(|p| p.1);
            let none = || Failure::new("internal-codegen", "PTX without a head");
            out += body.ok_or_else(none)?;
        }
    }
    Ok(out)
}

fn compile_variant(
    kernels: &KernelModule,
    target: &TargetSpec,
    options: &BuildOptions,
) -> Result<BuiltVariant> {
    let objects = match options.generator {
        Generator::Llvm => llvm::objects(kernels, target, options)?,
        Generator::Cranelift => cranelift(kernels, target)?,
    };
    let parts: Vec<&[u8]> = objects.iter().map(|o| o.bytes.as_slice()).collect();
    let image = link(&parts).map_err(|e| Failure::new("internal-link", format!("{}: {e}", target.name)))?;
    let entry = |name: &str| {
        let missing = || Failure::new("internal-link", format!("no code for the kernel {name}"));
        image.symbols.get(name).copied().ok_or_else(missing)
    };
    let entries = kernels.kernels.iter().map(|k| entry(&k.name)).collect::<Result<Vec<_>>>()?;
    Ok(BuiltVariant { target: target.clone(), objects, image, entries })
}

/// Compiles kernels in this process.
fn cranelift(kernels: &KernelModule, target: &TargetSpec) -> Result<Vec<ObjectBytes>> {
    use planish_codegen::kernel::Backend;
    let backend = planish_clif::Clif;
    if let Some(u) = backend.check(kernels, target).first() {
        return Err(Failure::new("unsupported-kernel", format!("Cranelift: {u}")));
    }
    Ok(vec![backend.emit(kernels, target).map_err(|e| emit_error(&e))?])
}

/// The instruction set that the code of a target needs at run time.
pub fn isa(target: &TargetSpec) -> Isa {
    let f = target.features;
    match (f.avx2, f.avx512, f.bf16) {
        (_, true, true) => Isa::Avx512Bf16,
        (_, true, false) => Isa::Avx512,
        (true, false, _) => Isa::Avx2,
        _ => Isa::Base,
    }
}

/// An error of a code generator as a finding, with the reproducer in a file.
pub fn emit_error(e: &EmitError) -> Failure {
    let mut d = Diag::error("internal-codegen", e.to_string().lines().next().unwrap_or("").to_owned());
    if let Some(text) = &e.reproducer {
        d.message = EmitError { reproducer: None, ..e.clone() }.to_string();
        let name = format!("planish-crash-{}.kir", &Cache::key("crash", text.as_bytes())[..16]);
        let path = std::env::temp_dir().join(name);
        d = match std::fs::write(&path, text) {
            Ok(()) => d.note(format!("the kernel that fails is in {}", path.display())),
            Err(_) => d.note(text.clone()),
        };
    }
    d.into()
}

#[cfg(feature = "llvm")]
pub use llvm::{CODEGEN_ARGUMENT, in_children};

#[cfg(feature = "llvm")]
mod llvm {
    use super::{BuildOptions, Cache, Failure, Result, emit_error};
    use planish_codegen::kernel::{Backend, KernelModule, ObjectBytes, TargetSpec};
    use planish_llvm::Llvm;
    use planish_llvm::child::{Limits, Pool, encode_request, partition};
    use std::path::PathBuf;
    use std::sync::{Mutex, OnceLock};

    /// The hidden argument that makes the command a code generator process.
    pub const CODEGEN_ARGUMENT: &str = "__codegen";

    static CHILD: OnceLock<PathBuf> = OnceLock::new();
    static POOL: Mutex<Option<(usize, std::sync::Arc<Pool>)>> = Mutex::new(None);

    /// From now on, code is generated by child processes: `exe` with [`CODEGEN_ARGUMENT`]. A crash of LLVM then becomes
    /// an error. Without this call it happens in this process.
    pub fn in_children(exe: PathBuf) {
        let _ = CHILD.set(exe);
    }

    fn pool(jobs: usize) -> Option<std::sync::Arc<Pool>> {
        let exe = CHILD.get()?;
        let mut slot = POOL.lock().ok()?;
        match &*slot {
            Some((n, pool)) if *n == jobs => Some(pool.clone()),
            _ => {
                let pool = Pool::new(exe.clone(), vec![CODEGEN_ARGUMENT.into()], jobs, Limits::default());
                let pool = std::sync::Arc::new(pool);
                *slot = Some((jobs, pool.clone()));
                Some(pool)
            }
        }
    }

    /// Compiles kernels, in parts that depend on the kernels only.
    pub(super) fn objects(
        kernels: &KernelModule,
        target: &TargetSpec,
        options: &BuildOptions,
    ) -> Result<Vec<ObjectBytes>> {
        let found = Llvm.check(kernels, target);
        if let Some(u) = found.first() {
            return Err(Failure::new("internal-codegen", format!("{}: {u}", target.name)));
        }
        let parts = partition(kernels.kernels.clone());
        let keys: Vec<String> =
            parts.iter().map(|p| Cache::key("llvm", &encode_request(p, target))).collect();
        let mut out: Vec<Option<ObjectBytes>> = keys
            .iter()
            .map(|k| options.cache.as_ref().and_then(|c| c.get(k)).map(|bytes| ObjectBytes { bytes }))
            .collect();
        let missing: Vec<usize> = (0..parts.len()).filter(|i| out[*i].is_none()).collect();
        let wanted: Vec<KernelModule> = missing.iter().map(|i| parts[*i].clone()).collect();
        let made = match pool(options.jobs) {
            Some(pool) => pool.emit_all(&wanted, target),
            None => wanted.iter().map(|m| Llvm.emit(m, target)).collect(),
        };
        for (i, object) in missing.into_iter().zip(made) {
            let object = object.map_err(|e| emit_error(&e))?;
            if let Some(cache) = &options.cache {
                cache.put(&keys[i], &object.bytes);
            }
            out[i] = Some(object);
        }
        Ok(out.into_iter().flatten().collect())
    }
}

#[cfg(not(feature = "llvm"))]
mod llvm {
    use super::{BuildOptions, Failure, Result};
    use planish_codegen::kernel::{KernelModule, ObjectBytes, TargetSpec};

    pub(super) fn objects(_: &KernelModule, _: &TargetSpec, _: &BuildOptions) -> Result<Vec<ObjectBytes>> {
        Err(Failure::new("machine-llvm", "this build of planish has no LLVM"))
    }
}
