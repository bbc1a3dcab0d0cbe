//! Programs for GPUs, end to end: compiled, run with a driver, compared with the interpreter.
//!
//! The driver is the stand-in over the PTX interpreter, which also reports accesses outside buffers, races and results that are not
//! written. With `PLANISH_GPU=1` (`cargo xtask gpu`) it is that of this machine.
#![cfg(all(feature = "llvm", target_os = "linux", target_arch = "x86_64"))]

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

type Outcomes = Result<(), Box<dyn Error>>;

/// Numbers from -1 to 1.
fn noise(n: usize, seed: u32) -> Vec<f32> {
    let mut s = u64::from(seed).wrapping_mul(0x9E37_79B9_7F4A_7C15) + 1;
    let mut next = || {
        s ^= s << 13;
        s ^= s >> 7;
        s ^= s << 17;
        (s >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

fn hex(bytes: impl IntoIterator<Item = u8>) -> String {
    bytes.into_iter().fold("0x".to_owned(), |s, b| s + &format!("{b:02x}"))
}

/// A constant of small numbers.
fn weights(rows: usize, cols: usize, seed: u32) -> String {
    let scale = 1.0 / (rows as f32).sqrt();
    let all = noise(rows * cols, seed).into_iter().flat_map(|x| (x * scale).to_le_bytes());
    format!("const f32[{rows},{cols}] {}", hex(all))
}

fn vector(n: usize, seed: u32) -> String {
    format!("const f32[{n}] {}", hex(noise(n, seed).into_iter().flat_map(f32::to_le_bytes)))
}

/// Two layers with what follows them, f32[N,70] -> f32[N,33].
fn mlp() -> String {
    format!(
        "planish-ir 1\ngraph @\"mlp\"(v0 \"x\": f32[N,70]) {{
  v1 = {}
  v2 = {}
  v3 = {}
  v4 = {}
  v5 = matmul{{trans_a=false, trans_b=false}} v0, v1 : f32[N,96]
  v6 = binary{{kind=add}} v5, v2 : f32[N,96]
  v7 = unary{{kind=relu}} v6 : f32[N,96]
  v8 = matmul{{trans_a=false, trans_b=false}} v7, v3 : f32[N,33]
  v9 = binary{{kind=add}} v8, v4 : f32[N,33]
  return v9 \"y\"\n}}\n",
        weights(70, 96, 1),
        vector(96, 2),
        weights(96, 33, 3),
        vector(33, 4)
    )
}

/// One layer of a transformer with 4 heads of 16, f32[N,64] -> f32[N,64].
fn layer() -> String {
    let product = "matmul{trans_a=false, trans_b=false}";
    let norm = "layer-norm{axis=1, epsilon=0.00001, rms=false}";
    let head = "reshape{allow_zero=false}";
    let matrices: String = (0..4).map(|i| format!("  v{} = {}\n", i + 1, weights(64, 64, i))).collect();
    format!(
        "planish-ir 1\ngraph @\"layer\"(v0 \"x\": f32[N,64]) {{
{matrices}  v5 = {}
  v6 = {}
  v7 = {}
  v8 = {}
  v9 = {}
  v10 = {}
  v11 = const i64[3] [0, 4, 16]
  v12 = const i64[2] [0, 64]
  v13 = const f32[] [0.25]
  v14, v40, v41 = {norm} v0, v7, v8 : f32[N,64], f32[N,1], f32[N,1]
  v15 = {product} v14, v1 : f32[N,64]
  v16 = {product} v14, v2 : f32[N,64]
  v17 = {product} v14, v3 : f32[N,64]
  v18 = {head} v15, v11 : f32[N,4,16]
  v19 = {head} v16, v11 : f32[N,4,16]
  v20 = {head} v17, v11 : f32[N,4,16]
  v21 = transpose{{perm=[1, 0, 2]}} v18 : f32[4,N,16]
  v22 = transpose{{perm=[1, 2, 0]}} v19 : f32[4,16,N]
  v23 = transpose{{perm=[1, 0, 2]}} v20 : f32[4,N,16]
  v24 = {product} v21, v22 : f32[4,N,N]
  v25 = binary{{kind=mul}} v24, v13 : f32[4,N,N]
  v26 = softmax{{kind=softmax, axis=2}} v25 : f32[4,N,N]
  v27 = {product} v26, v23 : f32[4,N,16]
  v28 = transpose{{perm=[1, 0, 2]}} v27 : f32[N,4,16]
  v29 = {head} v28, v12 : f32[N,64]
  v30 = {product} v29, v4 : f32[N,64]
  v31 = binary{{kind=add}} v30, v0 : f32[N,64]
  v32, v42, v43 = {norm} v31, v9, v10 : f32[N,64], f32[N,1], f32[N,1]
  v33 = {product} v32, v5 : f32[N,128]
  v34 = unary{{kind=gelu}} v33 : f32[N,128]
  v35 = {product} v34, v6 : f32[N,64]
  v36 = binary{{kind=add}} v35, v31 : f32[N,64]
  return v36 \"y\"\n}}\n",
        weights(64, 128, 5),
        weights(128, 64, 6),
        vector(64, 7),
        vector(64, 8),
        vector(64, 9),
        vector(64, 10)
    )
}

/// A product with a matrix of which every third block of 32 x 32 is kept, f32[N,96] -> f32[N,64].
fn blocks() -> String {
    let mut w = noise(96 * 64, 11);
    for (i, x) in w.iter_mut().enumerate() {
        let (row, col) = (i / 64 / 32, i % 64 / 32);
        if (row * 2 + col) % 3 != 1 {
            *x = 0.0;
        }
    }
    format!(
        "planish-ir 1\ngraph @\"blocks\"(v0 \"x\": f32[N,96]) {{
  v1 = const f32[96,64] {}
  v2 = matmul{{trans_a=false, trans_b=false}} v0, v1 : f32[N,64]
  return v2 \"y\"\n}}\n",
        hex(w.into_iter().flat_map(f32::to_le_bytes))
    )
}

/// A product of bytes, between quantisation and its inverse, f32[N,70] -> f32[N,40].
fn bytes() -> String {
    let w = noise(70 * 40, 12).into_iter().map(|x| ((x * 127.0) as i8).cast_unsigned());
    format!(
        "planish-ir 1\ngraph @\"bytes\"(v0 \"x\": f32[N,70]) {{
  v1 = const i8[70,40] {}
  v2 = const f32[] [0.01]
  v3 = const u8[] [131]
  v4 = quantize{{axis=1, block=0, to=u8, saturate=true, precision=f32}} v0, v2, v3 : u8[N,70]
  v5 = matmul-integer v4, v1, v3 : i32[N,40]
  v6 = cast{{to=f32, saturate=true}} v5 : f32[N,40]
  v7 = const f32[] [0.0001]
  v8 = binary{{kind=mul}} v6, v7 : f32[N,40]
  return v8 \"y\"\n}}\n",
        hex(w)
    )
}

/// Rows by number, which may be none there are, f32[5,8], i64[N] -> f32[N,8].
const ROWS: &str = "planish-ir 1
graph @\"rows\"(v0 \"x\": f32[5,8], v1 \"i\": i64[N]) {
  v2 = gather{axis=0} v0, v1 : f32[N,8]
  return v2 \"y\"
}
";

struct Scene {
    dir: tempfile::TempDir,
    /// Where the driver is, if not where the system has it.
    driver: Option<PathBuf>,
}

fn said(out: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

impl Scene {
    fn new() -> Result<Scene, Box<dyn Error>> {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
        if std::env::var_os("PLANISH_GPU").is_some() {
            return Ok(Scene { dir, driver: None });
        }
        // Cargo puts the stand-in, on which this test depends, where the test is.
        let program = std::env::current_exe()?;
        let beside = program.parent().ok_or("a folder")?.join("libcuda.so");
        let place = dir.path().join("driver");
        fs::create_dir(&place)?;
        std::os::unix::fs::symlink(&beside, place.join("libcuda.so.1"))?;
        assert!(beside.exists(), "{} is not there", beside.display());
        Ok(Scene { dir, driver: Some(place) })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn planish(&self, args: &[&str]) -> Result<Output, Box<dyn Error>> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_planish"));
        Ok(command.current_dir(self.dir.path()).args(args).stdin(Stdio::null()).output()?)
    }

    /// Compiles a text to the program `name`.
    fn compile(&self, name: &str, model: &str, more: &[&str]) -> Outcomes {
        fs::write(self.path(&format!("{name}.pir")), model)?;
        let file = format!("{name}.pir");
        let args = ["compile", &file, "-o", name, "--target", "nvptx:sm_80", "--emit", "exe", "--no-check"];
        let done = self.planish(&[&args[..], more].concat())?;
        assert_eq!(done.status.code(), Some(0), "{name}: {}", said(&done));
        Ok(())
    }

    /// Runs the program `name`.
    fn program(&self, name: &str, args: &[&str]) -> Result<Output, Box<dyn Error>> {
        let mut command = Command::new(self.path(name));
        command.current_dir(self.dir.path()).args(args).stdin(Stdio::null()).env("PLANISH_CUDA_COUNT", "1");
        if let Some(driver) = &self.driver {
            command.env("LD_LIBRARY_PATH", driver);
        }
        Ok(command.output()?)
    }

    /// Compares a run of the program `name` on `x` of `rows` rows with the interpreter.
    fn agrees(&self, name: &str, (rows, cols): (usize, usize), tolerance: &str) -> Outcomes {
        npy(&self.path("x.npy"), "<f4", &[rows, cols], noise(rows * cols, 99), f32::to_le_bytes)?;
        let want = format!("want-{name}-{rows}");
        let file = format!("{name}.pir");
        let args = ["run", &file, "--engine", "interp", "--input", "x=@x.npy", "--output-dir", &want];
        let done = self.planish(&args)?;
        assert_eq!(done.status.code(), Some(0), "{}", said(&done));
        let args = ["--input", "x=@x.npy", "--expect", &want, "--rtol", tolerance, "--atol", tolerance];
        let done = self.program(name, &args)?;
        assert_eq!(done.status.code(), Some(0), "{name} {rows}: {}", said(&done));
        Ok(())
    }
}

fn npy<T: Copy, const N: usize>(
    path: &Path,
    kind: &str,
    dims: &[usize],
    data: Vec<T>,
    bytes: fn(T) -> [u8; N],
) -> std::io::Result<()> {
    let shape: String = dims.iter().map(|d| format!("{d},")).collect();
    let mut head = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': ({shape}), }}");
    while (10 + head.len() + 1) % 64 != 0 {
        head.push(' ');
    }
    head.push('\n');
    let mut out = b"\x93NUMPY\x01\x00".to_vec();
    out.extend_from_slice(&(head.len() as u16).to_le_bytes());
    out.extend_from_slice(head.as_bytes());
    out.extend(data.into_iter().flat_map(bytes));
    fs::write(path, out)
}

#[test]
fn a_perceptron_runs() -> Outcomes {
    let scene = Scene::new()?;
    scene.compile("mlp", &mlp(), &[])?;
    for rows in [0, 1, 5, 70] {
        scene.agrees("mlp", (rows, 70), "1e-5")?;
    }
    Ok(())
}

#[test]
fn a_layer_of_a_transformer_runs() -> Outcomes {
    let scene = Scene::new()?;
    scene.compile("layer", &layer(), &[])?;
    // Rows shorter and longer than what a block of threads does together.
    for rows in [1, 7, 80] {
        scene.agrees("layer", (rows, 64), "1e-4")?;
    }
    Ok(())
}

#[test]
fn products_of_blocks_bytes_and_rounded_factors_run() -> Outcomes {
    let scene = Scene::new()?;
    scene.compile("blocks", &blocks(), &["--pass", "detect-sparsity"])?;
    scene.compile("bytes", &bytes(), &[])?;
    scene.compile("tf32", &mlp(), &["--precision", "tf32"])?;
    scene.compile("bf16", &mlp(), &["--precision", "bf16"])?;
    for rows in [0, 1, 67] {
        scene.agrees("blocks", (rows, 96), "1e-5")?;
        scene.agrees("bytes", (rows, 70), "1e-6")?;
        scene.agrees("tf32", (rows, 70), "2e-3")?;
        scene.agrees("bf16", (rows, 70), "2e-2")?;
    }
    let about = scene.program("bf16", &["--describe", "--json"])?;
    assert!(said(&about).contains("precision bf16"), "{}", said(&about));
    Ok(())
}

/// Machine code for every generation, in registers alone.
#[test]
fn ptxas_needs_no_memory_for_registers() -> Outcomes {
    let scene = Scene::new()?;
    let ptxas = planish_testsuite::tools::ptxas();
    let models: [(&str, String, &[&str]); 5] = [
        ("mlp", mlp(), &[]),
        ("layer", layer(), &[]),
        ("blocks", blocks(), &["--pass", "detect-sparsity"]),
        ("bytes", bytes(), &[]),
        ("tf32", mlp(), &["--precision", "tf32"]),
    ];
    for (name, model, more) in models {
        let file = format!("{name}.pir");
        fs::write(scene.path(&file), model)?;
        for sm in ["sm_80", "sm_89", "sm_90"] {
            let target = format!("nvptx:{sm}");
            let args = ["compile", &file, "-o", "k.ptx", "--target", &target, "--emit", "ptx", "--no-check"];
            let done = scene.planish(&[&args[..], more].concat())?;
            assert_eq!(done.status.code(), Some(0), "{}", said(&done));
            let mut command = Command::new(&ptxas);
            command.current_dir(scene.dir.path()).args([
                "-v",
                &format!("-arch={sm}"),
                "k.ptx",
                "-o",
                "k.cubin",
            ]);
            let hint = "set PLANISH_PTXAS to a ptxas 13.0 or run `cargo xtask setup`";
            let done = command.output().map_err(|e| format!("{}: {e}; {hint}", ptxas.display()))?;
            assert_eq!(done.status.code(), Some(0), "{name}: {}", said(&done));
            let text = said(&done);
            let ptx = fs::read_to_string(scene.path("k.ptx"))?;
            let wanted = match name {
                "blocks" => "k_matmul_sparse_0",
                "bytes" => ".s32.s8.s8.s32",
                "tf32" => ".f32.tf32.tf32.f32",
                _ => "fma.rn.f32",
            };
            assert!(ptx.contains(wanted), "{name}: no {wanted} in\n{ptx}");
            let kernels = ptx.matches(".entry ").count();
            let usage: Vec<&str> = text.lines().filter(|l| l.contains("spill stores")).collect();
            assert_eq!(usage.len(), kernels, "{name} {sm}: {text}");
            for line in usage {
                assert!(line.contains("0 bytes spill stores, 0 bytes spill loads"), "{name} {sm}: {text}");
                assert!(line.trim().starts_with("0 bytes stack"), "{name} {sm}: {text}");
            }
        }
    }
    Ok(())
}

#[test]
fn weights_are_uploaded_and_memory_is_taken_once() -> Outcomes {
    let scene = Scene::new()?;
    if scene.driver.is_none() {
        return Ok(());
    }
    scene.compile("mlp", &mlp(), &[])?;
    let mut counts = Vec::new();
    for samples in [1, 3] {
        for i in 0..samples {
            let dir = scene.path(&format!("data{samples}/test_data_set_{i}"));
            fs::create_dir_all(&dir)?;
            npy(&dir.join("x.npy"), "<f4", &[4, 70], noise(280, i), f32::to_le_bytes)?;
        }
        let done = scene.program("mlp", &["--inputs", &format!("data{samples}")])?;
        assert_eq!(done.status.code(), Some(0), "{}", said(&done));
        let text = said(&done);
        let line = text.lines().find(|l| l.starts_with("ptxsim:")).ok_or("no counts")?;
        let numbers: Vec<u64> = line.split([' ', ',']).filter_map(|w| w.parse().ok()).collect();
        let [launches, _, uploaded, allocations] = numbers[..] else { return Err(line.into()) };
        counts.push((launches, uploaded, allocations));
    }
    let (one, three) = (counts[0], counts[1]);
    assert!(one.0 > 0 && three.0 == 3 * one.0, "{counts:?}");
    assert_eq!(three.1 - one.1, 2 * (4 * 70 * 4 + 4), "two more inputs and error words: {counts:?}");
    assert!(one.1 > 4 * 70 * 96, "the weights too: {counts:?}");
    assert_eq!(one.2, three.2, "{counts:?}");
    Ok(())
}

#[test]
fn errors_of_kernels_reach_the_user() -> Outcomes {
    let scene = Scene::new()?;
    scene.compile("rows", ROWS, &[])?;
    npy(&scene.path("x.npy"), "<f4", &[5, 8], noise(40, 1), f32::to_le_bytes)?;
    for (index, code) in [([4i64, -5, 0], 0), ([1, 5, 0], 2)] {
        npy(&scene.path("i.npy"), "<i8", &[3], index.to_vec(), i64::to_le_bytes)?;
        let done = scene.program("rows", &["--input", "x=@x.npy", "--input", "i=@i.npy"])?;
        assert_eq!(done.status.code(), Some(code), "{}", said(&done));
        assert_eq!(said(&done).contains("range"), code != 0, "{}", said(&done));
    }
    Ok(())
}

#[test]
fn what_cannot_run_says_so_with_exit_code_6() -> Outcomes {
    let scene = Scene::new()?;
    let Some(driver) = &scene.driver else { return Ok(()) };
    scene.compile("mlp", &mlp(), &[])?;
    npy(&scene.path("x.npy"), "<f4", &[1, 70], noise(70, 1), f32::to_le_bytes)?;
    let run = |driver: &Path, sm: &str| -> Result<Output, Box<dyn Error>> {
        let mut command = Command::new(scene.path("mlp"));
        command.current_dir(scene.dir.path()).args(["--input", "x=@x.npy"]).stdin(Stdio::null());
        Ok(command.env("LD_LIBRARY_PATH", driver).env("PLANISH_CUDA_SM", sm).output()?)
    };
    assert_eq!(run(driver, "90")?.status.code(), Some(0), "newer GPUs compile the text");
    let old = run(driver, "75")?;
    assert_eq!(old.status.code(), Some(6), "{}", said(&old));
    assert!(said(&old).contains("sm_75") && said(&old).contains("sm_80"), "{}", said(&old));
    let (empty, broken) = (scene.path("empty"), scene.path("broken"));
    fs::create_dir(&broken)?;
    fs::write(broken.join("libcuda.so.1"), "no library")?;
    for place in [empty, broken] {
        let none = run(&place, "80")?;
        // A machine with a driver has one without ours.
        if !Path::new("/proc/driver/nvidia").exists() || place.join("libcuda.so.1").exists() {
            assert_eq!(none.status.code(), Some(6), "{}", said(&none));
            assert_eq!(none.stdout, b"");
            assert!(said(&none).contains("libcuda.so.1"), "{}", said(&none));
        }
    }
    // What needs no GPU works without one.
    let about = Command::new(scene.path("mlp")).arg("--describe").output()?;
    assert_eq!(about.status.code(), Some(0), "{}", said(&about));
    Ok(())
}
