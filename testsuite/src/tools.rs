//! Programs that tests run: what the environment names, else what `cargo xtask setup` installs. A test that finds none
//! fails.

use std::path::{Path, PathBuf};

/// The folder that `cargo xtask setup` writes: `PLANISH_CACHE`, by default `~/.cache/planish`.
fn cache() -> PathBuf {
    let home = std::env::var_os("HOME").unwrap_or_default();
    std::env::var_os("PLANISH_CACHE").map_or_else(|| Path::new(&home).join(".cache/planish"), PathBuf::from)
}

/// A Python with NumPy: `PLANISH_PYTHON`, else that of the virtual environment.
pub fn python() -> PathBuf {
    let named = std::env::var_os("PLANISH_PYTHON").map(PathBuf::from);
    named.unwrap_or_else(|| cache().join("venv/bin/python"))
}

/// NVIDIA's assembler of PTX: `PLANISH_PTXAS`, else that of the virtual environment, else that of the search path.
pub fn ptxas() -> PathBuf {
    if let Some(path) = std::env::var_os("PLANISH_PTXAS") {
        return path.into();
    }
    let versions = cache().join("venv/lib").read_dir().into_iter().flatten().flatten();
    let mut installed = versions.map(|v| v.path().join("site-packages/nvidia/cu13/bin/ptxas"));
    installed.find(|path| path.exists()).unwrap_or_else(|| "ptxas".into())
}
