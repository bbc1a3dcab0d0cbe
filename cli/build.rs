//! Compiles the two runtime crates with the same compiler: into the launcher of executables, which `artifact::exe`
//! embeds, and into one object for libraries, which `artifact::object` embeds. Nothing but `rustc` and the system's C
//! library is needed.
use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR"));
    let root = root.parent().expect("the crate is in a workspace").to_owned();
    let runtime = root.join("codegen/runtime");
    for watched in ["core/src", "main/src", "main/launcher.rs"] {
        println!("cargo::rerun-if-changed={}", runtime.join(watched).display());
    }
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=RUSTC");
    let target = env::var("TARGET").expect("cargo sets TARGET");
    let (launcher, object) = (out.join("launcher"), out.join("runtime.o"));
    let launcher_gpu = out.join("launcher-gpu");
    let (launcher_aarch64, object_aarch64) = (out.join("launcher-aarch64"), out.join("runtime-aarch64.o"));
    std::fs::write(&launcher_aarch64, b"").expect("OUT_DIR is writable");
    std::fs::write(&object_aarch64, b"").expect("OUT_DIR is writable");
    if target.contains("linux") {
        // All are independent; each takes some seconds on one processor.
        let cross = out.join("aarch64");
        let gpu = out.join("gpu");
        std::fs::create_dir_all(&gpu).expect("OUT_DIR is writable");
        std::thread::scope(|s| {
            s.spawn(|| build_launcher(&root, &runtime, &out, &target, &launcher, Kind::Static));
            s.spawn(|| build_launcher(&root, &runtime, &gpu, &target, &launcher_gpu, Kind::Gpu));
            s.spawn(|| build_object(&root, &runtime, &out, &target, &object));
            if !target.starts_with("aarch64") && installed(CROSS) {
                std::fs::create_dir_all(&cross).expect("OUT_DIR is writable");
                s.spawn(|| build_launcher(&root, &runtime, &cross, CROSS, &launcher_aarch64, Kind::Static));
                s.spawn(|| build_object(&root, &runtime, &cross, CROSS, &object_aarch64));
            }
        });
    } else {
        // Artifacts are made for Linux only; their writers say so when they find nothing here.
        std::fs::write(&launcher, b"").expect("OUT_DIR is writable");
        std::fs::write(&launcher_gpu, b"").expect("OUT_DIR is writable");
        std::fs::write(&object, b"").expect("OUT_DIR is writable");
    }
}

/// What the launcher of executables for aarch64 is built for: this target links with nothing but what comes with `rustc`.
/// The runtime of libraries is built for it too: what it asks of the C library is the same for all of them.
const CROSS: &str = "aarch64-unknown-linux-musl";

fn rustc() -> Command {
    Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
}

/// Whether the standard library for a target is there. Without it, executables for that target cannot be made.
fn installed(target: &str) -> bool {
    let found = rustc().args(["--print", "target-libdir", "--target", target]).output();
    found.is_ok_and(|out| {
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        let folder = Path::new(text.trim());
        // rustlib/<target>/lib: the folder of all targets changes when one is added.
        if let Some(all) = folder.ancestors().nth(2) {
            println!("cargo::rerun-if-changed={}", all.display());
        }
        out.status.success() && folder.is_dir()
    })
}

/// The runtime core as one relocatable object that needs nothing but the C library.
fn build_object(root: &Path, runtime: &Path, out: &Path, target: &str, object: &Path) {
    let archive = out.join("libplanish_rt_core.a");
    let mut c = rustc();
    c.args([
        "--edition",
        "2024",
        "--crate-type",
        "staticlib",
        "--crate-name",
        "planish_rt",
        "--target",
        target,
    ]);
    c.args(["-C", "opt-level=3", "-C", "panic=abort", "-C", "codegen-units=1", "-C", "lto=fat"]);
    c.args(["-C", "relocation-model=pic", "--cfg", "planish_standalone", "--cap-lints", "allow"]);
    if target.starts_with("aarch64") {
        // Else atomic operations are functions of the compiler's support library.
        c.args(["-C", "target-feature=-outline-atomics"]);
    }
    c.arg(format!("--remap-path-prefix={}=.", root.display()));
    run(c.arg(runtime.join("core/src/lib.rs")).arg("-o").arg(&archive));
    let bytes = std::fs::read(&archive).expect("the archive was just made");
    let mut member = own_member(&bytes).expect("the archive has a member of the crate").to_vec();
    for (from, to) in
        [("_Unwind_Resume\0", "planish_unwind\0"), ("rust_eh_personality\0", "planish_personality\0")]
    {
        rename(&mut member, from.as_bytes(), to.as_bytes());
    }
    std::fs::write(object, member).expect("OUT_DIR is writable");
}

/// The first object of an archive that is not one of the compiler's own support routines: link-time optimisation has
/// put everything else into it.
fn own_member(archive: &[u8]) -> Option<&[u8]> {
    let mut at = 8;
    let mut names: &[u8] = b"";
    while let Some(header) = archive.get(at..at + 60) {
        let text =
            |r: std::ops::Range<usize>| std::str::from_utf8(&header[r]).map(str::trim_end).unwrap_or("");
        let size: usize = text(48..58).parse().ok()?;
        let data = archive.get(at + 60..at + 60 + size)?;
        let name = text(0..16);
        match name.strip_prefix('/') {
            Some("/") => names = data,
            Some(offset) if !offset.is_empty() => {
                let name = names.get(offset.parse::<usize>().ok()?..)?;
                if name.starts_with(b"planish_rt") || name.starts_with(b"libplanish_rt") {
                    return Some(data);
                }
            }
            _ => {}
        }
        at += 60 + size.next_multiple_of(2);
    }
    None
}

/// Replaces a name by one of the same length wherever it stands in the table of strings.
fn rename(object: &mut [u8], from: &[u8], to: &[u8]) {
    assert_eq!(from.len(), to.len());
    let hits: Vec<usize> =
        object.windows(from.len()).enumerate().filter(|(_, w)| *w == from).map(|(i, _)| i).collect();
    for at in hits {
        object[at..at + to.len()].copy_from_slice(to);
    }
}

/// What a launcher is linked to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Nothing.
    Static,
    /// The C library of the system, so that it can load the driver of a GPU.
    Gpu,
}

fn build_launcher(root: &Path, runtime: &Path, out: &Path, target: &str, launcher: &Path, kind: Kind) {
    let rlib = |name: &str| out.join(format!("lib{name}.rlib"));
    let common = |crate_type: &str, name: &str| {
        let mut c = rustc();
        c.args(["--edition", "2024", "--crate-type", crate_type, "--crate-name", name, "--target", target]);
        c.args(["-C", "opt-level=3", "-C", "panic=abort", "-C", "codegen-units=1", "-C", "embed-bitcode=no"]);
        c.args(["-C", "relocation-model=pie", "--cap-lints", "allow"]);
        c.args(match kind {
            Kind::Static => ["-C", "target-feature=+crt-static"],
            Kind::Gpu => ["-C", "target-feature=-crt-static"],
        });
        c.arg("-L").arg(out);
        // No path of this machine gets into the launcher: builds in two folders are equal.
        c.arg(format!("--remap-path-prefix={}=.", root.display()));
        c
    };
    run(common("rlib", "planish_rt").arg(runtime.join("core/src/lib.rs")).arg("-o").arg(rlib("planish_rt")));
    let rt = format!("planish_rt={}", rlib("planish_rt").display());
    let main = format!("planish_main={}", rlib("planish_main").display());
    run(common("rlib", "planish_main")
        .arg(runtime.join("main/src/lib.rs"))
        .args(["--extern", &rt, "-o"])
        .arg(rlib("planish_main")));
    let mut bin = common("bin", "launcher");
    bin.arg(runtime.join("main/launcher.rs"));
    bin.args(["--extern", &rt, "--extern", &main, "-C", "strip=symbols", "-o"]).arg(launcher);
    if target == CROSS {
        bin.args(["-C", "linker=rust-lld", "-C", "linker-flavor=ld.lld", "-C", "link-self-contained=yes"]);
        // The note is a segment that the composer may give up for one of the model's; kernels of this family may have
        // pages of 64 KiB.
        for arg in ["--build-id=sha1", "-z", "max-page-size=65536"] {
            bin.arg(format!("-Clink-arg={arg}"));
        }
    }
    run(&mut bin);
}

fn run(command: &mut Command) {
    let status = command.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS").status();
    match status {
        Ok(s) if s.success() => {}
        Ok(s) => panic!("{command:?}: {s}"),
        Err(e) => panic!("{command:?}: {e}"),
    }
}
