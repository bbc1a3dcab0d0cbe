use super::*;
use planish_rt::cpu::Isa;
use planish_rt::image::{self, Arch, Variant};
use planish_rt::plan::*;
use planish_rt::{DType, Object, Plan, Tensor};
use std::process::{Command, Output};

/// `y[i] = a[i] + b[i]` for `lo <= i < hi`, f32, with the arguments a, b, y.
const ADD: [u8; 37] = [
    0x48, 0x8b, 0x07, // mov rax, [rdi]
    0x48, 0x8b, 0x4f, 0x08, // mov rcx, [rdi + 8]
    0x48, 0x8b, 0x7f, 0x10, // mov rdi, [rdi + 16]
    0x48, 0x39, 0xd6, // 1: cmp rsi, rdx
    0x7d, 0x14, // jge 2f
    0xf3, 0x0f, 0x10, 0x04, 0xb0, // movss xmm0, [rax + 4 * rsi]
    0xf3, 0x0f, 0x58, 0x04, 0xb1, // addss xmm0, [rcx + 4 * rsi]
    0xf3, 0x0f, 0x11, 0x04, 0xb7, // movss [rdi + 4 * rsi], xmm0
    0x48, 0xff, 0xc6, // inc rsi
    0xeb, 0xe7, // jmp 1b
    0xc3, // 2: ret
];

/// `y = x + w` for `x: f32[n]`, where `w` are weights: 1, 2, 3, ... up to 100. The state pair feeds y back to x.
fn plan() -> Plan {
    let mut pool = ExprPool::new();
    let n = pool.sym(SymId(0));
    let one = pool.constant(1);
    let hundred = pool.constant(100);
    let tensor =
        |dims: ExprId, place| Slot { kind: SlotKind::Tensor { dtype: DType::F32, dims: vec![dims] }, place };
    let port = |name: &str, slot| Port {
        name: name.into(),
        ty: ValueType::Tensor(DType::F32),
        dims: Some(vec![n]),
        slot: SlotId(slot),
    };
    let args = [0, 2, 1].map(|s| Arg::Slot(SlotId(s))).to_vec();
    Plan {
        meta: Meta { name: "add".into(), tool: "test".into(), precision: "f32".into(), ..Meta::default() },
        symbols: vec![Symbol { name: "n".into(), min: 1, max: 100, values: vec![] }],
        exprs: pool.finish(),
        slots: vec![
            tensor(n, Place::Input(0)),
            tensor(n, Place::Output(0)),
            tensor(hundred, Place::Weights { offset: 0, len: 400 }),
        ],
        inputs: vec![port("x", 0)],
        outputs: vec![port("y", 1)],
        blocks: vec![Block {
            steps: vec![Step::Launch { kernel: KernelId(0), args, extent: n, grain: one, round: None }],
        }],
        kernels: vec![KernelDecl {
            name: "add".into(),
            params: 3,
            nodes: vec![],
            flops: Some(n),
            bytes: None,
        }],
        ..Plan::default()
    }
}

pub(in crate::artifact) fn parts(weights_len: u64, isa: Isa) -> Parts {
    let v = Variant { isa, code: &ADD, text_len: ADD.len(), entries: vec![0] };
    image::build(&plan(), weights_len, Arch::X86_64, &[v]).expect("builds")
}

pub(in crate::artifact) fn weights(out: &mut dyn Write) -> io::Result<()> {
    (1..=100).try_for_each(|i| out.write_all(&(i as f32).to_le_bytes()))
}

fn f32s(v: &[f32]) -> Object {
    let data = v.iter().flat_map(|x| x.to_le_bytes()).collect();
    Object::Tensor(Tensor { dtype: DType::F32, dims: vec![v.len() as i64], data })
}

fn run(dir: &Path, args: &[&str]) -> Output {
    patiently(Command::new(dir.join("model")).current_dir(dir).args(args)).expect("starts")
}

/// Runs a command. A process that another test has just forked may still hold the file open for writing, as which the
/// system refuses to execute it: that passes.
fn patiently(command: &mut Command) -> std::io::Result<Output> {
    for _ in 0..200 {
        match command.output() {
            Err(e) if e.kind() == std::io::ErrorKind::ExecutableFileBusy => {}
            Ok(out) if out.status.code() == Some(126) && text(&out.stderr).contains("Text file busy") => {}
            other => return other,
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    command.output()
}

fn text(b: &[u8]) -> String {
    String::from_utf8_lossy(b).into_owned()
}

/// A folder with the executable `model` and the input `x.npy`.
fn made(isa: Isa) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("folder");
    write_file(&dir.path().join("model"), &parts(400, isa), 400, weights).expect("writes");
    let x = planish_main::npy::write(&f32s(&[10.0, 20.0, 30.0])).expect("npy");
    std::fs::write(dir.path().join("x.npy"), x).expect("written");
    dir
}

#[test]
fn a_composed_executable_computes() {
    let dir = made(Isa::Base);
    let d = dir.path();
    let out = run(d, &["--input", "x=@x.npy", "--output-dir", "out", "--pb", "--named"]);
    assert_eq!((out.status.code(), text(&out.stderr)), (Some(0), String::new()));
    let got = planish_main::npy::read(&std::fs::read(d.join("out/output_0.npy")).expect("file"), DType::F32);
    assert_eq!(got, Ok(f32s(&[11.0, 22.0, 33.0])));
    assert!(d.join("out/output_0.pb").exists() && d.join("out/y.npy").exists());
    let out = run(d, &["--inputs", ".", "--expect", "out", "--threads", "2"]);
    assert_eq!((out.status.code(), text(&out.stdout)), (Some(0), "1 samples agree\n".into()));
    std::fs::write(d.join("out/output_0.npy"), planish_main::npy::write(&f32s(&[1.0; 3])).expect("npy"))
        .expect("ok");
    std::fs::remove_file(d.join("out/output_0.pb")).expect("removed");
    let out = run(d, &["--inputs", ".", "--expect", "out"]);
    assert_eq!(out.status.code(), Some(4));
    assert!(text(&out.stdout).contains("3 of 3 elements differ"), "{}", text(&out.stdout));
}

#[test]
fn states_flow_between_samples() {
    let dir = made(Isa::Base);
    let d = dir.path();
    for k in 0..3 {
        let set = d.join(format!("s/test_data_set_{k}"));
        std::fs::create_dir_all(&set).expect("folder");
        if k == 0 {
            std::fs::copy(d.join("x.npy"), set.join("x.npy")).expect("copied");
        }
    }
    let out = run(d, &["--inputs", "s", "--state", "y=x", "--output-dir", "out"]);
    assert_eq!((out.status.code(), text(&out.stderr)), (Some(0), String::new()));
    let last = std::fs::read(d.join("out/test_data_set_2/output_0.npy")).expect("file");
    assert_eq!(planish_main::npy::read(&last, DType::F32), Ok(f32s(&[13.0, 26.0, 39.0])));
}

#[test]
fn it_describes_and_measures_itself() {
    let dir = made(Isa::Base);
    let out = run(dir.path(), &["--describe", "--json"]);
    let v: serde_json::Value = serde_json::from_slice(&out.stdout).expect("JSON");
    assert_eq!(v["schema"], "planish.describe");
    assert_eq!(v["inputs"][0], serde_json::json!({"name": "x", "dtype": "f32", "shape": ["n"]}));
    assert_eq!((&v["weights_bytes"], &v["cpu"][0]), (&400.into(), &"base".into()));
    let out = run(
        dir.path(),
        &["--bench", "--json", "--duration", "20ms", "--warmup", "1ms", "--set", "batch=50", "--profile"],
    );
    let v: serde_json::Value = serde_json::from_slice(&out.stdout).expect("JSON");
    assert_eq!(
        (&v["schema"], &v["version"], &v["name"]),
        (&"planish.bench".into(), &1.into(), &"add".into())
    );
    assert!(v["runs"].as_u64() > Some(10) && v["latency_ms"]["median"] == v["median_ms"]);
    let k = &v["kernels"][0];
    assert_eq!((&k["name"], &k["flops"]), (&"add".into(), &50.into()));
    assert!(k["bytes"].as_f64() >= Some(400.0) && k["percent_of_peak"].as_f64() > Some(0.0), "{k}");
    assert!(v["accounted_ms"].as_f64() > Some(0.0), "{v}");
    assert!(
        v["unaccounted_ms"].is_number() && v["peaks"]["one"]["read_gbs"]["dram"].as_f64() > Some(0.1),
        "{v}"
    );
    let out = run(dir.path(), &["--bench"]);
    assert_eq!(out.status.code(), Some(2));
    assert!(text(&out.stderr).contains("--set n=1"), "{}", text(&out.stderr));
}

#[test]
fn mistakes_exit_with_2() {
    let dir = made(Isa::Base);
    let d = dir.path();
    std::fs::write(d.join("bad.npy"), b"\x93NUMPY").expect("written");
    std::fs::write(d.join("long.npy"), planish_main::npy::write(&f32s(&[0.0; 101])).expect("npy"))
        .expect("written");
    for (args, message) in [
        (&["--input", "x=@bad.npy"][..], "not a .npy file"),
        (&["--input", "x=@none.npy"], "No such file"),
        (&["--input", "z=@x.npy"], "the inputs are x"),
        (&["--input", "x=@long.npy"], "outside the range 1..=100"),
        (&[], "missing"),
        (&["--frobnicate"], "--help"),
    ] {
        let out = run(d, args);
        assert_eq!(out.status.code(), Some(2), "{args:?}");
        let e = text(&out.stderr);
        assert!(e.starts_with("error: ") && e.contains(message), "{args:?}: {e}");
        assert!(out.stdout.is_empty());
    }
    let help = run(d, &["--help"]);
    assert!(help.status.success() && text(&help.stdout).contains("--samples-axis"));
}

#[test]
fn segments_are_mapped_with_least_rights() {
    let mut exe = Vec::new();
    let parts = parts(400, Isa::Base);
    compose(&mut exe, LAUNCHER, &parts, 400, weights).expect("composes");
    let (_, segments) = elf::segments(&exe, EM_X86_64).expect("a program");
    let loads: Vec<&Segment> = segments.iter().filter(|s| s.kind == PT_LOAD).collect();
    assert!(loads.windows(2).all(|w| w[0].address + w[0].memory_len <= w[1].address));
    let [.., data, code] = &loads[..] else { panic!("two segments") };
    assert_eq!((data.flags, code.flags), (PF_R, PF_R | PF_X));
    assert_eq!(data.file_len, parts.head.len() as u64 + 400);
    for s in &loads {
        assert_eq!(s.offset % s.align, s.address % s.align);
        assert_ne!(s.flags & 3, 3, "writable and executable");
    }
    const PT_GNU_RELRO: u32 = 0x6474_e552;
    assert!(segments.iter().any(|s| s.kind == PT_GNU_RELRO));
    // A static program needs no symbol of the system's C library, and no interpreter.
    const PT_INTERP: u32 = 3;
    assert!(segments.iter().all(|s| s.kind != PT_INTERP));
    let mut again = Vec::new();
    compose(&mut again, LAUNCHER, &parts, 400, weights).expect("composes");
    assert!(exe == again);
}

#[test]
fn programs_for_another_processor_are_whole_or_refused() {
    let none = |_: &mut dyn Write| Ok(());
    let (p, mut exe) = (parts(0, Isa::Base), Vec::new());
    match (compose(&mut exe, launcher(Arch::Aarch64), &p, 0, none), launcher(Arch::Aarch64).is_empty()) {
        (Ok(()), false) => {}
        (Err(ExeError::NoLauncher), true) => return,
        (other, _) => panic!("{other:?}"),
    }
    let (_, segments) = elf::segments(&exe, EM_AARCH64).expect("a program");
    let loads: Vec<&Segment> = segments.iter().filter(|s| s.kind == PT_LOAD).collect();
    assert!(loads.windows(2).all(|w| w[0].address + w[0].memory_len <= w[1].address));
    // Kernels with pages of 64 KiB map these segments too.
    assert!(loads.iter().all(|s| s.align >= 1 << 16 && s.offset % s.align == s.address % s.align));
    let [.., data, code] = &loads[..] else { panic!("two segments") };
    assert_eq!((data.flags, code.flags), (PF_R, PF_R | PF_X));
}

#[test]
fn an_unsuitable_launcher_or_processor_is_refused() {
    let p = parts(0, Isa::Base);
    let none = |_: &mut dyn Write| Ok(());
    assert!(matches!(compose(&mut Vec::new(), b"", &p, 0, none), Err(ExeError::NoLauncher)));
    assert!(matches!(compose(&mut Vec::new(), b"\x7fELF", &p, 0, none), Err(ExeError::Launcher(_))));
    assert!(matches!(compose(&mut Vec::new(), LAUNCHER, &p, 1, none), Err(ExeError::Weights { .. })));
    let twice = [LAUNCHER, &MAGIC.concat()].concat();
    assert!(matches!(compose(&mut Vec::new(), &twice, &p, 0, none), Err(ExeError::Launcher(_))));
    if planish_rt::cpu::detect() < Isa::Avx512Bf16 {
        let dir = made(Isa::Avx512Bf16);
        let out = run(dir.path(), &["--input", "x=@x.npy"]);
        assert_eq!(out.status.code(), Some(6));
        assert!(text(&out.stderr).contains("avx512bf16"));
    }
}

#[test]
fn it_runs_where_there_is_nothing_else() {
    // A root folder that holds the executable only; entering one takes privileges, without which the rest of this
    // test has nothing to run.
    let dir = made(Isa::Base);
    let out = patiently(Command::new("chroot").arg(dir.path()).args(["/model", "--input", "x=@/x.npy"]));
    match out {
        Ok(out) if out.status.code() != Some(125) => {
            assert_eq!((out.status.code(), text(&out.stderr)), (Some(0), String::new()));
            assert!(text(&out.stdout).starts_with("y f32[3] min 11"), "{}", text(&out.stdout));
        }
        _ => assert!(!rustix::process::geteuid().is_root(), "chroot failed for root"),
    }
}
