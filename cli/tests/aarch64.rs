//! Libraries for aarch64: what they export and need, and a program of that processor that calls a model.
#![cfg(all(feature = "llvm", target_os = "linux", target_arch = "x86_64"))]
#![allow(clippy::print_stdout, reason = "shown with --nocapture")]

use object::read::elf::ElfFile64;
use object::{Architecture, Endianness, Object, ObjectSymbol};
use std::collections::BTreeSet;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

type Outcome = Result<(), Box<dyn Error>>;

/// What the runtime for aarch64 is built for.
const CROSS: &str = "aarch64-unknown-linux-musl";

/// `y = relu(x) + x * w` on f32[N,3].
const MODEL: &str = r#"planish-ir 1
graph @"m"(v0 "x": f32[N,3]) {
  v1 "r" = unary{kind=relu} v0 : f32[N,3]
  v2 = const f32[3] [1, 2, 3]
  v3 = binary{kind=mul} v0, v2 : f32[N,3]
  v4 "y" = binary{kind=add} v1, v3 : f32[N,3]
  return v4 "y"
}
"#;

/// Calls the model on two threads; the structures are those of `planish.h`.
const PROGRAM: &str = r#"
use std::ffi::{c_char, c_void, CStr};
use std::ptr::null_mut;
type Error = (*mut c_char, usize);
#[repr(C)] struct Shape { dtype: i32, rank: u32, dims: *const i64 }
#[repr(C)] struct Buffer { data: *mut f32, bytes: usize }
#[repr(C)] struct Options { size: u32, threads: i32, pool: *mut c_void, steps: u64, memory: u64 }
#[repr(C)] struct Model {
    abi: u32, size: u32, name: *const c_char, inputs: u32, outputs: u32,
    describe: *const c_void, pool_create: *const c_void, pool_destroy: *const c_void,
    create: unsafe extern "C" fn(*const Model, *const Options, *mut *mut c_void, *mut c_char, usize) -> i32,
    bind: unsafe extern "C" fn(*mut c_void, *const Shape, usize, *mut c_char, usize) -> i32,
    output_shape: *const c_void,
    run: unsafe extern "C" fn(*mut c_void, *const Buffer, usize, *mut Buffer, usize, *mut c_char, usize) -> i32,
    add_state: *const c_void, reset: *const c_void,
    destroy: unsafe extern "C" fn(*mut c_void),
}
unsafe extern "C" { fn planish_model_m() -> *const Model; }
fn main() {
    let (rows, mut text) = (50_000, [0 as c_char; 200]);
    let (e, n): Error = (text.as_mut_ptr(), text.len());
    let mut x: Vec<f32> = (0..3 * rows).map(|i| (i % 1000) as f32 - 500.0).collect();
    let mut y = vec![0f32; x.len()];
    unsafe {
        let m = &*planish_model_m();
        let options = Options { size: size_of::<Options>() as u32, threads: 2, pool: null_mut(), steps: 0, memory: 0 };
        let mut session = null_mut();
        assert_eq!((m.create)(m, &options, &mut session, e, n), 0, "{:?}", CStr::from_ptr(e));
        let dims = [rows as i64, 3];
        assert_eq!((m.bind)(session, &Shape { dtype: 1, rank: 2, dims: dims.as_ptr() }, 1, e, n), 0, "{:?}", CStr::from_ptr(e));
        let input = Buffer { data: x.as_mut_ptr(), bytes: 4 * x.len() };
        let mut output = Buffer { data: y.as_mut_ptr(), bytes: 4 * y.len() };
        for _ in 0..20 {
            assert_eq!((m.run)(session, &input, 1, &mut output, 1, e, n), 0, "{:?}", CStr::from_ptr(e));
        }
        (m.destroy)(session);
        println!("{}", CStr::from_ptr(m.name).to_str().unwrap());
    }
    for (i, (x, y)) in x.iter().zip(&y).enumerate() {
        assert_eq!(*y, x.max(0.0) + x * (i % 3 + 1) as f32, "element {i}");
    }
}
"#;

fn said(out: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

fn rustc(args: &[&str]) -> Result<PathBuf, Box<dyn Error>> {
    let out = Command::new("rustc").args(args).output()?;
    if out.status.success() { Ok(PathBuf::from(said(&out).trim())) } else { Err(said(&out).into()) }
}

/// Whether this planish has the runtime for aarch64: the build looks for the same folder.
fn has_runtime() -> Result<bool, Box<dyn Error>> {
    Ok(rustc(&["--print", "target-libdir", "--target", CROSS])?.is_dir())
}

/// Compiles the model with `path` as the search path.
fn compile(dir: &Path, out: &str, target: &str, emit: &str, path: &Path) -> Result<Output, Box<dyn Error>> {
    fs::write(dir.join("m.pir"), MODEL)?;
    let args = ["compile", "m.pir", "-o", out, "--name", "m", "--target", target, "--emit", emit];
    let mut planish = Command::new(env!("CARGO_BIN_EXE_planish"));
    Ok(planish.current_dir(dir).args(args).env("PATH", path).output()?)
}

/// Exported and needed symbols of a shared object for a processor.
fn symbols(path: &Path, architecture: Architecture) -> Result<[BTreeSet<String>; 2], Box<dyn Error>> {
    let bytes = fs::read(path)?;
    let file = ElfFile64::<Endianness>::parse(&*bytes)?;
    assert_eq!(file.architecture(), architecture);
    let mut sets = [BTreeSet::new(), BTreeSet::new()];
    for s in file.dynamic_symbols().filter(|s| s.name().is_ok_and(|n| !n.is_empty())) {
        sets[usize::from(s.is_undefined())].insert(s.name()?.to_owned());
    }
    Ok(sets)
}

#[test]
fn libraries_are_for_aarch64() -> Outcome {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let d = dir.path();
    let aarch64 = "aarch64-unknown-linux-gnu";
    // The linker that comes with Rust, under the name that its users give it.
    let lld = rustc(&["--print", "sysroot"])?.join("lib/rustlib/x86_64-unknown-linux-gnu/bin/gcc-ld");
    let made = compile(d, "m", aarch64, "shared,static", &lld)?;
    if !has_runtime()? {
        assert_eq!(made.status.code(), Some(6), "{}", said(&made));
        assert!(said(&made).contains("rustup target add") && !d.join("m.so").exists());
        println!("this planish was built without {CROSS}: it refuses");
        return Ok(());
    }
    assert_eq!(made.status.code(), Some(0), "{}", said(&made));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let native = compile(d, "native.so", "x86_64-unknown-linux-gnu", "shared", Path::new(&path))?;
    assert_eq!(native.status.code(), Some(0), "{}", said(&native));
    let [exported, needed] = symbols(&d.join("m.so"), Architecture::Aarch64)?;
    assert_eq!(exported, BTreeSet::from(["planish_model_m".to_owned()]));
    // Those of x86-64 are functions of the C library: `object_tests` holds the list.
    let [_, usual] = symbols(&d.join("native.so"), Architecture::X86_64)?;
    assert!(needed.is_subset(&usual), "{:?}", needed.difference(&usual));
    assert!(!needed.is_empty());
    run_static(d)
}

/// Links a program with the archive and the C library that comes with Rust, and runs it where there is an emulator.
fn run_static(dir: &Path) -> Outcome {
    fs::write(dir.join("main.rs"), PROGRAM)?;
    let archive = format!("-Clink-arg={}", dir.join("m.a").display());
    let (source, program) = (dir.join("main.rs"), dir.join("main"));
    let (source, out) = (source.to_string_lossy(), program.to_string_lossy());
    let linker = ["-Clinker=rust-lld", "-Clinker-flavor=ld.lld", "-Clink-self-contained=yes", &archive];
    rustc(&[&["--edition=2024", "--target", CROSS, &source, "-o", &out][..], &linker].concat())?;
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let paths = std::env::split_paths(&paths);
    let mut emulators = paths.flat_map(|p| ["qemu-aarch64-static", "qemu-aarch64"].map(|n| p.join(n)));
    match emulators.find(|p| p.exists()) {
        Some(emulator) => {
            let ran = Command::new(emulator).arg(&program).output()?;
            assert!(ran.status.success() && ran.stdout == b"m\n", "{}", said(&ran));
        }
        None => println!("linked, not run: there is no qemu-aarch64"),
    }
    Ok(())
}

#[test]
fn a_shared_object_needs_a_linker_of_its_processor() -> Outcome {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let empty = dir.path().join("empty");
    fs::create_dir(&empty)?;
    let made = compile(dir.path(), "m.so", "aarch64-unknown-linux-gnu", "shared", &empty)?;
    assert_eq!(made.status.code(), Some(6), "{}", said(&made));
    let why = if has_runtime()? { "`aarch64-linux-gnu-gcc` or `ld.lld`" } else { "rustup target add" };
    assert!(said(&made).contains(why), "{}", said(&made));
    assert!(!dir.path().join("m.so").exists());
    Ok(())
}
