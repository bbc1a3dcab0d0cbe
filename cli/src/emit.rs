//! Compiled models as files.

use crate::artifact::exe;
use crate::engine::codegen::{self, Built};
use crate::failure::{Failure, Result};
use crate::files::Writer;
use planish_codegen::Module;
use planish_codegen::kernel::Arch;
use planish_codegen::weights::Weights;
use planish_rt::image::{self, Parts};
use std::io::Write;
use std::path::Path;

/// Plan and code of a model in the form that programs hold them.
pub fn parts(built: &Built) -> Result<Parts> {
    let arch = match built.variants.first().map(|v| v.target.arch) {
        Some(Arch::Aarch64) => image::Arch::Aarch64,
        _ => image::Arch::X86_64,
    };
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
    image::build(&built.module.plan, built.module.weights.len(), arch, &variants)
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

/// Writes an executable and gives its size. `examine` sees the finished file before it is put into place.
pub fn executable(
    built: &Built,
    path: &Path,
    writer: &Writer,
    examine: impl FnOnce(&Path) -> Result<()>,
) -> Result<u64> {
    let parts = parts(built)?;
    let weights = &built.module.weights;
    let mut failed = None;
    let mut size = 0;
    let fill = |file: &mut std::fs::File| {
        let mut out = std::io::BufWriter::with_capacity(1 << 20, &mut *file);
        let composed =
            exe::compose(&mut out, exe::LAUNCHER, &parts, weights.len(), |w| write_weights(weights, w));
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
