//! Compiles the two runtime crates with the same compiler into the launcher of executables, which `artifact::exe`
//! embeds. Nothing but `rustc` and the system's C library is needed.
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
    let launcher = out.join("launcher");
    if target.contains("linux") {
        build_launcher(&root, &runtime, &out, &target, &launcher);
    } else {
        // Executables are made for Linux only; the composer says so when it finds no launcher.
        std::fs::write(&launcher, b"").expect("OUT_DIR is writable");
    }
}

fn build_launcher(root: &Path, runtime: &Path, out: &Path, target: &str, launcher: &Path) {
    let rlib = |name: &str| out.join(format!("lib{name}.rlib"));
    let common = |crate_type: &str, name: &str| {
        let mut c = Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
        c.args(["--edition", "2024", "--crate-type", crate_type, "--crate-name", name, "--target", target]);
        c.args(["-C", "opt-level=3", "-C", "panic=abort", "-C", "codegen-units=1", "-C", "embed-bitcode=no"]);
        c.args(["-C", "target-feature=+crt-static", "-C", "relocation-model=pie", "--cap-lints", "allow"]);
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
    run(common("bin", "launcher")
        .arg(runtime.join("main/launcher.rs"))
        .args(["--extern", &rt, "--extern", &main, "-C", "strip=symbols", "-o"])
        .arg(launcher));
}

fn run(command: &mut Command) {
    let status = command.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS").status();
    match status {
        Ok(s) if s.success() => {}
        Ok(s) => panic!("{command:?}: {s}"),
        Err(e) => panic!("{command:?}: {e}"),
    }
}
