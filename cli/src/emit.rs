//! Compiled models as files.

use crate::artifact::exe;
use crate::artifact::object::{self, LibraryError};
use crate::artifact::symbols::{self, KernelSymbol};
use crate::engine;
use crate::engine::cache::Cache;
use crate::engine::codegen::{self, BuildOptions, Built};
#[cfg(feature = "llvm")]
use crate::equivalence;
use crate::equivalence::{Case, Verdict};
use crate::failure::{Failure, Result};
use crate::files::Writer;
use crate::interrupt::Temporary;
use crate::verbs::compile::Kind;
use planish_codegen::Module;
use planish_codegen::kernel::Arch;
use planish_codegen::kernel::Class;
use planish_codegen::weights::Weights;
use planish_ir::Graph;
#[cfg(feature = "llvm")]
use planish_ir::{PrepareOptions, Program};
use planish_rt::gpu::{Form, GpuCode, GpuImage};
use planish_rt::image::{self, Parts};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The processor family that a model was compiled for.
fn arch(built: &Built) -> image::Arch {
    match built.variants.first().map(|v| v.target.arch) {
        Some(Arch::Aarch64) => image::Arch::Aarch64,
        _ => image::Arch::X86_64,
    }
}

/// Plan and code of a model in the form that programs hold them.
pub fn parts(built: &Built) -> Result<Parts> {
    let variants: Vec<image::Variant<'_>> = built
        .variants
        .iter()
        .map(|v| image::Variant {
            isa: codegen::isa(&v.target),
            code: &v.image.bytes,
            text_len: v.image.text_len,
            entries: v.entries.clone(),
        })
        .collect();
    image::build(&built.module.plan, built.module.weights.len(), arch(built), &variants)
        .map_err(|e| Failure::new("internal-image", e.to_string()))
}

/// Writes the weights as one block.
pub fn write_weights(weights: &Weights, out: &mut dyn Write) -> std::io::Result<()> {
    let mut at = 0u64;
    for (offset, bytes) in weights.chunks() {
        while at < offset {
            let n = (offset - at).min(4096);
            out.write_all(&[0u8; 4096][..n as usize])?;
            at += n;
        }
        out.write_all(bytes)?;
        at += bytes.len() as u64;
    }
    Ok(())
}

/// The names of the kernels for tools, if they are wanted.
fn kernels(built: &Built, parts: &Parts, perf_map: bool) -> Vec<KernelSymbol> {
    if perf_map { symbols::kernel_symbols(&built.module.plan, parts) } else { Vec::new() }
}

/// Writes an executable, with names of kernels if `perf_map`, and gives its size. `examine` sees the finished file before it is put into place.
pub fn executable(
    built: &Built,
    perf_map: bool,
    path: &Path,
    writer: &Writer,
    examine: impl FnOnce(&Path) -> Result<()>,
) -> Result<u64> {
    let parts = parts(built)?;
    let kernels = kernels(built, &parts, perf_map);
    let weights = &built.module.weights;
    compose(exe::launcher(arch(built)), &parts, &kernels, weights, path, writer, examine)
}

/// Compiles a graph that has been through its passes for this machine and writes the executable, whatever is at `path`.
pub fn host_executable(fused: &Graph, path: &Path) -> Result<()> {
    let options = BuildOptions {
        targets: vec![engine::host()?],
        cache: Cache::from_option(None),
        ..BuildOptions::default()
    };
    executable(&codegen::build(fused, &options)?, false, path, &Writer::new(true), |_| Ok(()))?;
    Ok(())
}

/// Writes an executable whose kernels run on a GPU, and gives its size. It holds the PTX text and, where there is one, the machine
/// code for the target.
pub fn gpu_executable(
    module: &Module,
    ptx: &str,
    cubin: Option<&[u8]>,
    path: &Path,
    writer: &Writer,
) -> Result<u64> {
    let wrong = |why: &str| Failure::new("internal-image", why);
    let host = image::Arch::HOST
        .ok_or_else(|| Failure::new("machine-launcher", "no launcher for this processor"))?;
    let variant = module.variants.first().ok_or_else(|| wrong("a module without kernels"))?;
    let threads = variant.kernels.kernels.iter().map(|k| match k.class {
        Class::Simt { block } => Ok(block.iter().product()),
        Class::Cpu => Err(wrong("a kernel for processors in a program for GPUs")),
    });
    let mut text = ptx.as_bytes().to_vec();
    text.push(0);
    let sm = u32::from(variant.target.sm);
    let mut images: Vec<GpuImage<'_>> =
        cubin.iter().map(|bytes| GpuImage { form: Form::Cubin, sm, bytes }).collect();
    images.push(GpuImage { form: Form::Ptx, sm, bytes: &text });
    let code = GpuCode { sm, threads: threads.collect::<Result<_>>()?, images };
    let weights = &module.weights;
    let mut parts =
        image::build(&module.plan, weights.len(), host, &[]).map_err(|e| wrong(&e.to_string()))?;
    parts.code = code.encode();
    compose(exe::gpu_launcher(), &parts, &[], weights, path, writer, |_| Ok(()))
}

fn compose(
    launcher: &[u8],
    parts: &Parts,
    kernels: &[KernelSymbol],
    weights: &Weights,
    path: &Path,
    writer: &Writer,
    examine: impl FnOnce(&Path) -> Result<()>,
) -> Result<u64> {
    let mut failed = None;
    let mut size = 0;
    let fill = |file: &mut std::fs::File| {
        let mut out = std::io::BufWriter::with_capacity(1 << 20, &mut *file);
        let composed = exe::compose_with(&mut out, launcher, parts, kernels, weights.len(), |w| {
            write_weights(weights, w)
        });
        drop(out);
        if let Err(e) = composed {
            failed = Some(e);
            return Err(std::io::Error::other("the executable could not be composed"));
        }
        size = file.metadata()?.len();
        Ok(())
    };
    let written = writer.write_checked(path, 0o777, fill, examine);
    written.map_err(|other| match failed.take() {
        Some(e @ exe::ExeError::NoLauncher) => Failure::new("machine-launcher", e.to_string()),
        Some(exe::ExeError::Io(e)) => Failure::file(path, e),
        Some(e) => Failure::new("internal-launcher", e.to_string()),
        None => other,
    })?;
    Ok(size)
}

/// Writes an object, an archive or a shared object, with names of kernels if `perf_map`, and gives its size.
pub fn library(
    kind: Kind,
    name: &str,
    built: &Built,
    perf_map: bool,
    path: &Path,
    writer: &Writer,
) -> Result<u64> {
    let fail = |e: LibraryError| match e {
        LibraryError::NoRuntime => Failure::new("machine-runtime", e.to_string()),
        LibraryError::NoLinker(_) => Failure::new("machine-linker", e.to_string()),
        LibraryError::Linker(_) | LibraryError::Object(_) => Failure::new("internal-library", e.to_string()),
        LibraryError::Io(e) => Failure::file(path, e),
    };
    let (arch, parts) = (arch(built), parts(built)?);
    let kernels = kernels(built, &parts, perf_map);
    let weights = built.module.weights.to_vec();
    let model = object::model_object(name, arch, &parts, &kernels, &weights).map_err(fail)?;
    match kind {
        Kind::Shared => {
            writer.check(path)?;
            let folder = crate::files::parent(path);
            std::fs::create_dir_all(folder).map_err(|e| Failure::file(folder, e))?;
            let made = Temporary::new(crate::files::beside(path));
            object::shared_object(name, arch, &model, made.path()).map_err(fail)?;
            let size = std::fs::metadata(made.path()).map_or(0, |m| m.len());
            writer.adopt(made, path)?;
            Ok(size)
        }
        Kind::Static => {
            let archive = object::static_archive(name, arch, &model).map_err(fail)?;
            writer.write(path, &archive)?;
            Ok(archive.len() as u64)
        }
        _ => {
            writer.write(path, &model)?;
            Ok(model.len() as u64)
        }
    }
}

/// The kernels of all variants as LLVM IR.
#[cfg(feature = "llvm")]
pub fn llvm_ir(module: &Module) -> Result<String> {
    let one = |v: &planish_codegen::Variant| {
        format!("; target {}\n{}\n", v.target.name, planish_llvm::llvm_ir(&v.kernels, &v.target))
    };
    Ok(module.variants.iter().map(one).collect())
}

/// The kernels of all variants as assembly.
#[cfg(feature = "llvm")]
pub fn assembly(module: &Module) -> Result<String> {
    let mut out = String::new();
    for v in &module.variants {
        out.push_str(&format!("# target {}\n", v.target.name));
        out.push_str(&planish_llvm::assembly(&v.kernels, &v.target).map_err(|e| codegen::emit_error(&e))?);
        out.push('\n');
    }
    Ok(out)
}

/// The kernels of all variants as LLVM IR.
#[cfg(not(feature = "llvm"))]
pub fn llvm_ir(_: &Module) -> Result<String> {
    Err(Failure::new("machine-llvm", "this build of planish has no LLVM"))
}

/// The kernels of all variants as assembly.
#[cfg(not(feature = "llvm"))]
pub fn assembly(_: &Module) -> Result<String> {
    Err(Failure::new("machine-llvm", "this build of planish has no LLVM"))
}

/// NVIDIA's assembler, which makes machine code of PTX.
pub struct Ptxas(PathBuf);

impl Ptxas {
    /// The one that `PLANISH_PTXAS` names, else `ptxas` of the search path.
    pub fn find() -> Result<Ptxas> {
        let named = std::env::var_os("PLANISH_PTXAS").map(PathBuf::from);
        let path = named.unwrap_or_else(|| "ptxas".into());
        let quiet = Command::new(&path).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        if quiet.is_ok_and(|s| s.success()) {
            return Ok(Ptxas(path));
        }
        let text = format!(
            "a cubin needs NVIDIA's ptxas, and {} does not run; PLANISH_PTXAS may name one",
            path.display()
        );
        Err(Failure::new("machine-ptxas", text))
    }

    /// Machine code of a PTX text for a processor, as in `sm_80`.
    pub fn assemble(&self, ptx: &str, processor: &str) -> Result<Vec<u8>> {
        let dir = tempfile::Builder::new().prefix("planish-ptx-").tempdir();
        let dir = dir.map_err(|e| Failure::file(&std::env::temp_dir(), e))?;
        let (text, cubin) = (dir.path().join("kernels.ptx"), dir.path().join("kernels.cubin"));
        std::fs::write(&text, ptx).map_err(|e| Failure::file(&text, e))?;
        let mut command = Command::new(&self.0);
        command.arg(format!("-arch={processor}")).arg(&text).arg("-o").arg(&cubin);
        let done = command.output().map_err(|e| Failure::file(&self.0, e))?;
        if !done.status.success() {
            let said = String::from_utf8_lossy(&done.stderr);
            return Err(Failure::new("internal-ptx", format!("ptxas refuses the text: {}", said.trim())));
        }
        std::fs::read(&cubin).map_err(|e| Failure::file(&cubin, e))
    }
}

/// Most instructions of warps that the check of a compilation interprets: some seconds of it.
#[cfg(feature = "llvm")]
const CHECK_STEPS: u64 = 20_000_000;

/// Runs the kernels of a PTX text in the PTX interpreter and compares with the graph interpreter.
#[cfg(feature = "llvm")]
pub fn check_ptx(module: &Module, text: &str, case: Case<'_>) -> Verdict {
    let options =
        PrepareOptions { max_steps: Some(10_000), max_memory: Some(2 << 30), ..PrepareOptions::default() };
    equivalence::check(case, &mut |reference| {
        let program = crate::engine::ptx::program(case.graph, module.clone(), text, &options, CHECK_STEPS);
        let program = program.map_err(|f| Verdict::Different(f.message()))?;
        let inputs: Vec<_> = reference.inputs.iter().cloned().map(Some).collect();
        match program.session().and_then(|mut s| s.run(&inputs)) {
            Ok(made) => Ok(made.values),
            Err(d) if d.id == "step-limit" => Err(Verdict::NotChecked(
                "the kernels were not done after the steps that a check may take".into(),
            )),
            Err(d) => Err(Verdict::Different(d.to_string())),
        }
    })
}

/// Nothing to check: without LLVM there is no PTX.
#[cfg(not(feature = "llvm"))]
pub fn check_ptx(_: &Module, _: &str, _: Case<'_>) -> Verdict {
    Verdict::NotChecked("this build of planish has no LLVM".into())
}
