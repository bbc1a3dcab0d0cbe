//! What a build and the tests need beyond Rust: LLVM 22 with headers, a C compiler, Python with venv, and a virtual
//! environment with pinned packages.

use crate::shell::{Failure, Result, cache, output, root, run, succeeds};
use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

const LLVM_VARIABLE: &str = "LLVM_SYS_221_PREFIX";
const LLVM_VERSION: &str = "22.1";

/// Something the machine must have: how to see that it is there, and the Debian package that brings it.
struct Need {
    what: String,
    package: &'static str,
    present: fn() -> bool,
}

fn llvm_prefix() -> PathBuf {
    env::var_os(LLVM_VARIABLE).map_or_else(|| "/usr/lib/llvm-22".into(), PathBuf::from)
}

fn has_llvm() -> bool {
    let prefix = llvm_prefix();
    let version = Command::new(prefix.join("bin/llvm-config")).arg("--version").output();
    let right = version.is_ok_and(|done| String::from_utf8_lossy(&done.stdout).starts_with(LLVM_VERSION));
    right && prefix.join("include/llvm-c/Core.h").exists()
}

fn has_linker() -> bool {
    succeeds(Command::new("cc").arg("--version"))
}

fn has_python() -> bool {
    let code = "import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))";
    succeeds(Command::new("python3").args(["-c", code]))
}

fn needs() -> Vec<Need> {
    let llvm = format!("LLVM {LLVM_VERSION} with headers (looked in {})", llvm_prefix().display());
    vec![
        Need { what: llvm, package: "llvm-22-dev", present: has_llvm },
        Need { what: "a C compiler called cc".into(), package: "gcc libc6-dev", present: has_linker },
        Need { what: "Python 3.11 or later with venv".into(), package: "python3-venv", present: has_python },
    ]
}

/// What set-up made.
pub(crate) struct Tools {
    /// The Python of the virtual environment.
    pub(crate) python: PathBuf,
    /// NVIDIA's assembler, which the tests of PTX run; the product needs none.
    pub(crate) ptxas: Option<PathBuf>,
}

/// Brings the machine to where everything builds and runs; says what it installs. Fails with exit code 2 and the
/// exact commands where it cannot install.
pub(crate) fn setup() -> Result<Tools> {
    system_packages()?;
    let python = python_packages(true)?;
    let ptxas = Some(ptxas_package(&python)?);
    cross_target();
    Ok(Tools { python, ptxas })
}

/// The standard library for aarch64, with which `planish` can make executables for it. Without rustup, or without a
/// network, those executables are left out.
fn cross_target() {
    const TARGET: &str = "aarch64-unknown-linux-musl";
    let listed = output(Command::new("rustup").args(["target", "list", "--installed"]));
    let Ok(listed) = listed else {
        println!("setup: no rustup; executables for aarch64 are left out");
        return;
    };
    if listed.lines().any(|line| line.trim() == TARGET) {
        return;
    }
    println!("setup: rustup target add {TARGET}");
    if !succeeds(Command::new("rustup").args(["target", "add", TARGET])) {
        println!("setup: that failed; executables for aarch64 are left out");
    }
}

/// [`setup`] without ptxas, content without ONNX Runtime where that has no package for this machine.
pub(crate) fn setup_for_demo() -> Result<Tools> {
    system_packages()?;
    Ok(Tools { python: python_packages(false)?, ptxas: None })
}

/// The system's side of [`setup`] alone.
pub(crate) fn system_packages() -> Result<()> {
    let missing: Vec<Need> = needs().into_iter().filter(|need| !(need.present)()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let list: Vec<&str> = missing.iter().flat_map(|need| need.package.split(' ')).collect();
    let root_user = output(Command::new("id").arg("-u")).is_ok_and(|id| id == "0");
    let custom_llvm =
        env::var_os(LLVM_VARIABLE).is_some_and(|dir| Path::new(&dir) != Path::new("/usr/lib/llvm-22"));
    if !root_user || custom_llvm || !Path::new("/usr/bin/apt-get").exists() {
        return Err(how_to_install(&missing, &list));
    }
    println!("setup: installing {} with apt-get", list.join(" "));
    if !apt_install(&list) {
        println!("setup: refreshing the package lists with apt-get update");
        if !succeeds(Command::new("apt-get").arg("update")) || !apt_install(&list) {
            return Err(how_to_install(&missing, &list));
        }
    }
    match missing.iter().find(|need| !(need.present)()) {
        Some(need) => {
            Err(Failure::usage(format!("{} was installed, but {} is still missing", need.package, need.what)))
        }
        None => Ok(()),
    }
}

fn apt_install(packages: &[&str]) -> bool {
    let mut command = Command::new("apt-get");
    command.args(["install", "--yes", "--quiet", "--no-install-recommends"]).args(packages);
    run(command.env("DEBIAN_FRONTEND", "noninteractive")).is_ok()
}

fn how_to_install(missing: &[Need], packages: &[&str]) -> Failure {
    let mut text = String::from("this machine lacks:\n");
    for need in missing {
        text += &format!("  - {}\n", need.what);
    }
    text += &format!(
        "On Debian 12 or later, as root:\n  apt-get update && apt-get install --no-install-recommends {}\n\
         On other systems install the same by their own means, and set {LLVM_VARIABLE} to the folder that holds\n\
         LLVM's bin/llvm-config and include/llvm-c. Then run the command again.",
        packages.join(" ")
    );
    Failure::usage(text)
}

/// Makes or updates the virtual environment in the cache folder; returns its Python. With `all` every package must
/// install, without it ONNX Runtime may be absent.
fn python_packages(all: bool) -> Result<PathBuf> {
    let venv = cache().join("venv");
    let python = venv.join("bin/python");
    let requirements = root().join("testsuite/python/requirements.txt");
    let wanted = std::fs::read_to_string(&requirements)?;
    let stamp = venv.join("requirements.installed");
    if python.exists() && std::fs::read_to_string(&stamp).is_ok_and(|have| have == wanted) {
        return Ok(python);
    }
    println!("setup: Python packages into {}", venv.display());
    if !python.exists() {
        std::fs::create_dir_all(cache())?;
        run(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
    }
    let mut pip = Command::new(&python);
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
    let done = run(pip.arg("--requirement").arg(&requirements));
    if done.is_err() && !all {
        println!("setup: trying again without ONNX Runtime");
        let mut pip = Command::new(&python);
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
        run(pip.args(wanted.lines().filter(|line| !line.starts_with("onnxruntime"))))?;
        return Ok(python);
    }
    done?;
    std::fs::write(&stamp, wanted)?;
    Ok(python)
}

/// Installs the pinned assembler of PTX into the virtual environment; returns its path. Its own requirements (a whole
/// compiler) are left out.
fn ptxas_package(python: &Path) -> Result<PathBuf> {
    let wanted = std::fs::read_to_string(root().join("testsuite/python/requirements-ptx.txt"))?;
    let venv = cache().join("venv");
    let stamp = venv.join("requirements-ptx.installed");
    if std::fs::read_to_string(&stamp).is_ok_and(|have| have == wanted)
        && let Some(found) = find_ptxas(&venv)
    {
        return Ok(found);
    }
    println!("setup: {} into {}", wanted.trim(), venv.display());
    let mut pip = Command::new(python);
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]);
    run(pip.arg("--requirement").arg(root().join("testsuite/python/requirements-ptx.txt")))?;
    let found = find_ptxas(&venv)
        .ok_or_else(|| Failure::usage(format!("{} brought no ptxas that runs", wanted.trim())))?;
    std::fs::write(&stamp, wanted)?;
    Ok(found)
}

/// `ptxas` in a virtual environment, if it runs on this machine.
fn find_ptxas(venv: &Path) -> Option<PathBuf> {
    let versions = venv.join("lib").read_dir().ok()?;
    versions
        .flatten()
        .map(|version| version.path().join("site-packages/nvidia/cu13/bin/ptxas"))
        .find(|path| succeeds(Command::new(path).arg("--version")))
}
