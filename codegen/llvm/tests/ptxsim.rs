//! PTX text, executed: every operation and the SIMT kernels by the PTX interpreter against the kernel interpreter.

use planish_codegen::kernel::difftest::{Case, Rng, memory, ops, random};
use planish_codegen::kernel::interp::{self, run_simt};
use planish_codegen::kernel::{BinOp, Block, Elem, Kernel, KernelModule, Op, TargetSpec};
use planish_codegen::simt::per_thread::per_thread;
use planish_codegen::simt::{Grid, elementwise, gate, matmul, mma, reduce, tensor};
use planish_llvm::ptx::emit_ptx;
use planish_ptxsim::{Arg, Fault, FaultKind, Limits, Module, Stats};

fn parse(k: &Kernel, sm: u16) -> Module {
    let module = KernelModule { kernels: vec![k.clone()] };
    let text = emit_ptx(&module, &TargetSpec::nvptx(sm)).unwrap_or_else(|e| panic!("{e}"));
    Module::parse(&text).unwrap_or_else(|e| panic!("{}: {e}\n{text}", k.name))
}

fn launch(k: &Kernel, sm: u16, args: &[interp::Arg], grid: Grid) -> Result<Stats, Fault> {
    let module = parse(k, sm);
    let args: Vec<Arg> = args
        .iter()
        .map(|a| match *a {
            interp::Arg::Buf(ptr, bytes) => Arg::Buf(ptr, bytes),
            interp::Arg::Scalar(v) => Arg::Scalar(v),
        })
        .collect();
    // SAFETY: the tests pass whole live vectors.
    unsafe { module.entries[0].launch(&args, grid, Limits::default()) }
}

/// [`launch`] with buffers whose contents nobody may read before they are written, and all of which must be written.
fn launch_fresh(
    k: &Kernel,
    sm: u16,
    args: &[interp::Arg],
    fresh: &[usize],
    grid: Grid,
) -> Result<Stats, Fault> {
    let module = parse(k, sm);
    let args: Vec<Arg> = (0..)
        .zip(args)
        .map(|(i, a)| match *a {
            interp::Arg::Buf(ptr, bytes) if fresh.contains(&i) => Arg::Out(ptr, bytes),
            interp::Arg::Buf(ptr, bytes) => Arg::Buf(ptr, bytes),
            interp::Arg::Scalar(v) => Arg::Scalar(v),
        })
        .collect();
    // SAFETY: the tests pass whole live vectors.
    unsafe { module.entries[0].launch(&args, grid, Limits::default()) }
}

fn agree(cases: &[Case], sm: u16) {
    assert!(!cases.is_empty());
    let mut wrong = Vec::new();
    for c in cases {
        // One thread, because iterations of a random program may depend on each other.
        let simt = per_thread(c.kernel.clone(), 1);
        let run = |_: &Kernel, args: &[interp::Arg], lo, hi| {
            let mut error = [0i32];
            let extra = [interp::Arg::Scalar(lo), interp::Arg::Scalar(hi), interp::Arg::slice(&mut error)];
            match launch(&simt, sm, &[args, &extra].concat(), [1, 1, 1]) {
                Ok(_) => Ok(error[0]),
                Err(f) => Err(f.to_string()),
            }
        };
        wrong.extend(c.compare(run).err());
    }
    let heads: Vec<&str> = wrong.iter().filter_map(|w| w.lines().next()).collect();
    assert!(wrong.is_empty(), "sm_{sm}: {} of {} cases\n{heads:#?}", wrong.len(), cases.len());
}

#[test]
fn every_operation_agrees() {
    for sm in [80, 90] {
        for lanes in [1, 4] {
            agree(&ops::cases(lanes), sm);
            agree(&memory::cases(lanes, &[0, 1, 2, 3, 17]), sm);
        }
    }
}

#[test]
fn random_programs_agree() {
    let cases: Vec<Case> =
        (0..30).map(|seed| random::case(seed, if seed % 2 == 0 { 1 } else { 4 })).collect();
    agree(&cases, 80);
}

fn noise(rng: &mut Rng, n: usize) -> Vec<f32> {
    (0..n).map(|_| (rng.next_u64() % 2001) as f32 / 1000.0 - 1.0).collect()
}

/// Runs a kernel by both interpreters, the last buffer being the result, and compares bits.
fn same(k: &Kernel, sm: u16, inputs: &[&[u8]], result: usize, scalars: &[i64], grid: Grid) -> Vec<f32> {
    let run = |by: &dyn Fn(&[interp::Arg])| -> Vec<f32> {
        let mut bufs: Vec<Vec<u64>> = inputs
            .iter()
            .map(|bytes| {
                // Words of eight bytes give the alignment that the kernels ask for, twice over.
                let mut words = vec![0u64; bytes.len().div_ceil(8) + 2];
                let at = aligned(&words);
                // SAFETY: `at` is at most one word behind the start and the vector has two to spare.
                unsafe {
                    let to = words.as_mut_ptr().add(at).cast::<u8>();
                    std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len());
                }
                words
            })
            .collect();
        let mut out = vec![f32::NAN; result];
        let mut args: Vec<interp::Arg> = bufs
            .iter_mut()
            .zip(inputs)
            .map(|(words, bytes)| {
                let at = aligned(words);
                interp::Arg::Buf(words[at..].as_mut_ptr().cast(), bytes.len())
            })
            .collect();
        args.push(interp::Arg::slice(&mut out));
        args.extend(scalars.iter().map(|s| interp::Arg::Scalar(*s)));
        by(&args);
        out
    };
    let want = run(&|args| {
        // SAFETY: whole live vectors.
        unsafe { run_simt(k, args, grid) }.unwrap_or_else(|t| panic!("{t}"));
    });
    let got = run(&|args| {
        let result = inputs.len();
        launch_fresh(k, sm, args, &[result], grid).unwrap_or_else(|f| panic!("{scalars:?}: {f}"));
    });
    let bits = |v: &[f32]| v.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    assert!(bits(&want) == bits(&got), "{} {scalars:?} sm_{sm}", k.name);
    assert!(got.iter().all(|v| !v.is_nan()), "{} {scalars:?}: a result is not written", k.name);
    got
}

/// The first word whose address is a multiple of 16.
fn aligned(words: &[u64]) -> usize {
    words.as_ptr() as usize / 8 % 2
}

fn bytes(v: &[f32]) -> Vec<u8> {
    v.iter().flat_map(|x| x.to_le_bytes()).collect()
}

#[test]
fn elementwise_kernels_agree_on_any_size() {
    let mut rng = Rng(1);
    let axpy =
        elementwise::elementwise("axpy", &[Elem::F32, Elem::F32], Elem::F32, |b, v| b.fma(v[0], 2.0, v[1]));
    let math = elementwise::elementwise("math", &[Elem::F32, Elem::F32], Elem::F32, |b, v| {
        let e = planish_codegen::math::exp(b, v[0]);
        let s = b.fabs(v[1]);
        let s = b.sqrt(s);
        b.fsub(e, s)
    });
    for n in [0usize, 1, 31, 255, 256, 257, 1000, 3001] {
        let (x, y) = (bytes(&noise(&mut rng, n)), bytes(&noise(&mut rng, n)));
        for k in [&axpy, &math] {
            same(k, 80, &[&x, &y], n, &[n as i64], elementwise::grid(n as u64));
            // Fewer blocks than elements: the grid goes round.
            same(k, 80, &[&x, &y], n, &[n as i64], [2, 1, 1]);
        }
    }
}

#[test]
fn reductions_agree_on_any_size() {
    let mut rng = Rng(2);
    let ops = [(BinOp::FAdd, 0.0), (BinOp::FMul, 1.0), (BinOp::FMax, f32::NEG_INFINITY)];
    for (op, neutral) in ops {
        let k = reduce::reduce_rows("rows", op, neutral);
        for cols in [0usize, 1, 5, 32, 255, 256, 257, 700] {
            let rows = 1 + (rng.next_u64() % 4) as usize;
            let x = bytes(&noise(&mut rng, rows * cols));
            same(&k, 80, &[&x], rows, &[cols as i64], reduce::grid(rows as u32));
        }
    }
}

#[test]
fn shared_memory_products_agree_on_any_size() {
    let mut rng = Rng(3);
    let tiles = [matmul::Tile { block: [32, 32, 8], thread: [4, 2] }, matmul::Tile::default()];
    for tile in tiles {
        let k = matmul::matmul("matmul", tile);
        let mut sizes = vec![[1, 1, 1], [1, 5, 0], [33, 40, 17], [64, 32, 8]];
        sizes.extend((0..4).map(|_| [0; 3].map(|_: usize| 1 + (rng.next_u64() % 70) as usize)));
        for [m, n, kk] in sizes {
            let (a, b) = (noise(&mut rng, m * kk), noise(&mut rng, kk * n));
            let dims = [m as i64, n as i64, kk as i64];
            let c = same(&k, 80, &[&bytes(&a), &bytes(&b)], m * n, &dims, tile.grid(m as u32, n as u32));
            for (i, v) in c.iter().enumerate() {
                let want = (0..kk).fold(0f32, |s, q| a[i / n * kk + q].mul_add(b[q * n + i % n], s));
                assert_eq!(*v, want, "{i} of {m}x{n}x{kk}");
            }
        }
    }
}

fn half_words(v: &[f32]) -> Vec<u8> {
    // Noise is made of few bits, so that the upper half of the word is the number rounded down.
    v.iter().flat_map(|x| ((x.to_bits() >> 16) as u16).to_le_bytes()).collect()
}

#[test]
fn tensor_core_products_agree() {
    let mut rng = Rng(4);
    let k = mma::matmul_bf16("matmul_bf16");
    for (sm, m, n, kk) in [(80, 64, 64, 32), (80, 64, 128, 96), (89, 128, 64, 64), (90, 64, 64, 160)] {
        let (a, b) = (half_words(&noise(&mut rng, m * kk)), half_words(&noise(&mut rng, n * kk)));
        let grid = mma::grid(m as u32, n as u32);
        let c = same(&k, sm, &[&a, &b], m * n, &[n as i64, kk as i64], grid);
        let at = |v: &[u8], i: usize| {
            f64::from(f32::from_bits(u32::from(u16::from_le_bytes([v[2 * i], v[2 * i + 1]])) << 16))
        };
        for (i, v) in c.iter().enumerate() {
            let want: f64 = (0..kk).map(|q| at(&a, i / n * kk + q) * at(&b, i % n * kk + q)).sum();
            assert!((f64::from(*v) - want).abs() < 1e-4, "{i}: {v} {want}");
        }
    }
}

#[test]
fn tensor_core_products_of_any_size_agree() {
    let mut rng = Rng(5);
    for (elem, bits) in [(Elem::BF16, 8), (Elem::F16, 11), (Elem::F32, 11)] {
        let k = tensor::matmul("tensor", elem);
        let mut sizes = vec![[1, 1, 1], [2, 3, 0], [64, 64, 32], [65, 130, 33]];
        sizes.extend((0..3).map(|_| [0; 3].map(|_: usize| 1 + (rng.next_u64() % 90) as usize)));
        for [m, n, kk] in sizes {
            let (a, b) = (noise(&mut rng, m * kk), noise(&mut rng, kk * n));
            let dims = [m as i64, n as i64, kk as i64];
            let c = same(&k, 80, &[&bytes(&a), &bytes(&b)], m * n, &dims, tensor::grid(m as u32, n as u32));
            for (i, v) in c.iter().enumerate() {
                let (r, j) = (i / n, i % n);
                let products = (0..kk).map(|q| f64::from(a[r * kk + q]) * f64::from(b[q * n + j]));
                let (want, size) = products.fold((0.0, 0.0), |(s, t), p| (s + p, t + p.abs()));
                // Each factor is off by half a unit in its last place at most.
                let most = size * 2.2 / f64::from(1 << bits) + 1e-6;
                assert!((f64::from(*v) - want).abs() <= most, "{elem:?} {m}x{n}x{kk}: {v} for {want}");
            }
        }
    }
}

#[test]
fn tensor_core_products_of_bytes_are_exact() {
    let mut rng = Rng(6);
    let k = tensor::matmul("bytes", Elem::I8);
    let mut sizes = vec![[1, 1, 1], [3, 2, 0], [64, 64, 32], [66, 70, 129]];
    sizes.extend((0..4).map(|_| [0; 3].map(|_: usize| 1 + (rng.next_u64() % 100) as usize)));
    for [m, n, kk] in sizes {
        let mut random = |len: usize| -> Vec<i8> { (0..len).map(|_| rng.next_u64() as i8).collect() };
        let (mut a, mut b) = (random(m * kk), random(kk * n));
        let mut c = vec![0i32; m * n];
        let mut args =
            vec![interp::Arg::slice(&mut a), interp::Arg::slice(&mut b), interp::Arg::slice(&mut c)];
        args.extend([m, n, kk].map(|d| interp::Arg::Scalar(d as i64)));
        let grid = tensor::grid(m as u32, n as u32);
        let run = launch_fresh(&k, 80, &args, &[2], grid);
        run.unwrap_or_else(|f| panic!("{m}x{n}x{kk}: {f}"));
        for (i, v) in c.iter().enumerate() {
            let want: i32 = (0..kk).map(|q| i32::from(a[i / n * kk + q]) * i32::from(b[q * n + i % n])).sum();
            assert_eq!(*v, want, "{i} of {m}x{n}x{kk}");
        }
        // SAFETY: the vectors live.
        unsafe { run_simt(&k, &args, grid) }.unwrap_or_else(|t| panic!("{t}"));
        let first = (0..kk).map(|q| i32::from(a[q]) * i32::from(b[q * n])).sum::<i32>();
        assert_eq!(c.first().copied().unwrap_or(first), first);
    }
}

#[test]
fn gates_do_the_open_rows_only() {
    let mut rng = Rng(7);
    let (compact, rows) = (gate::compact("compact"), gate::gated_rows("rows", |b, v| b.fmul(v, 2.0)));
    for n in [0usize, 1, 31, 32, 33, 255, 256, 257, 1000] {
        for density in [0, 1, 3, 8] {
            let mut mask: Vec<u8> = (0..n).map(|_| u8::from(rng.next_u64() % 8 < density) * 5).collect();
            let want: Vec<i32> = (0..n as i32).filter(|i| mask[*i as usize] != 0).collect();
            let (mut index, mut count) = (vec![-1i32; n], [0i32]);
            let args = [
                interp::Arg::slice(&mut mask),
                interp::Arg::slice(&mut index),
                interp::Arg::slice(&mut count),
                interp::Arg::Scalar(n as i64),
            ];
            launch_fresh(&compact, 80, &args, &[2], [1, 1, 1]).unwrap_or_else(|f| panic!("{n}: {f}"));
            assert_eq!((&index[..want.len()], count[0] as usize), (&want[..], want.len()), "{n}");
            assert!(index[want.len()..].iter().all(|i| *i == -1), "{n}: more was written");
            let cols = 1 + (rng.next_u64() % 300) as usize;
            let mut x = noise(&mut rng, n * cols);
            let mut out = vec![0f32; want.len() * cols];
            let args = [
                interp::Arg::slice(&mut x),
                interp::Arg::slice(&mut index),
                interp::Arg::slice(&mut count),
                interp::Arg::slice(&mut out),
                interp::Arg::Scalar(cols as i64),
            ];
            // Closed rows get blocks too, and do nothing.
            let grid = gate::rows_grid(n as u32);
            launch_fresh(&rows, 80, &args, &[3], grid).unwrap_or_else(|f| panic!("{n}x{cols}: {f}"));
            for (i, v) in out.iter().enumerate() {
                assert_eq!(*v, 2.0 * x[want[i / cols] as usize * cols + i % cols], "{n}x{cols}");
            }
        }
    }
}

/// Replaces what `change` finds in the text of a kernel, once.
fn changed(k: &Kernel, change: &[(&str, &str)]) -> Module {
    let module = KernelModule { kernels: vec![k.clone()] };
    let mut text = emit_ptx(&module, &TargetSpec::nvptx(80)).unwrap_or_else(|e| panic!("{e}"));
    for (from, to) in change {
        assert!(text.contains(from), "no {from} in\n{text}");
        text = text.replacen(from, to, 1);
    }
    Module::parse(&text).unwrap_or_else(|e| panic!("{e}"))
}

/// What a run of a kernel came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verdict {
    Right,
    Wrong,
    Stopped(FaultKind),
}

/// Runs a text whose kernel multiplies matrices of the sizes m, n, k.
fn judged(module: &Module, [m, n, kk]: [usize; 3], grid: Grid) -> Verdict {
    let mut rng = Rng(8);
    let (mut a, mut b) = (noise(&mut rng, m * kk), noise(&mut rng, kk * n));
    let mut c = vec![0f32; m * n];
    let mut args = vec![Arg::slice(&mut a), Arg::slice(&mut b), Arg::out(&mut c)];
    args.extend([m, n, kk].map(|d| Arg::Scalar(d as i64)));
    // SAFETY: the vectors live.
    if let Err(f) = unsafe { module.entries[0].launch(&args, grid, Limits::default()) } {
        return Verdict::Stopped(f.kind);
    }
    let right = c.iter().enumerate().all(|(i, v)| {
        let want: f64 = (0..kk).map(|q| f64::from(a[i / n * kk + q]) * f64::from(b[q * n + i % n])).sum();
        (f64::from(*v) - want).abs() < 0.1
    });
    if right { Verdict::Right } else { Verdict::Wrong }
}

/// The five faults that a GPU would hide, planted in the text of a kernel for tensor cores.
#[test]
fn five_planted_faults_are_found() {
    let k = tensor::matmul("tensor", Elem::BF16);
    let sizes = [70, 50, 40];
    let grid = tensor::grid(70, 50);
    let kind = |change: &[(&str, &str)]| judged(&changed(&k, change), sizes, grid);
    assert_eq!(kind(&[]), Verdict::Right);
    let text = emit_ptx(&KernelModule { kernels: vec![k.clone()] }, &TargetSpec::nvptx(80)).unwrap();
    let line = |part: &str| text.lines().find(|l| l.contains(part)).unwrap_or_else(|| panic!("no {part}"));
    // A barrier is missing: the tiles are read with no order to the threads that write them.
    assert_eq!(kind(&[(line("bar.sync"), "")]), Verdict::Stopped(FaultKind::Race));
    // The last barrier is missing in a kernel in which everything was written before: a race.
    let product = matmul::matmul("matmul", matmul::Tile { block: [32, 32, 8], thread: [4, 2] });
    let race = judged(&changed(&without(&product, |op| *op == Op::Barrier, &[2]), &[]), sizes, [2, 3, 1]);
    assert_eq!(race, Verdict::Stopped(FaultKind::Race));
    // One block too many in a kernel that does not check where it is.
    let rows = parse(&reduce::reduce_rows("rows", BinOp::FAdd, 0.0), 80);
    let (mut x, mut y) = (vec![1f32; 600], [0f32; 2]);
    let args = [Arg::slice(&mut x), Arg::out(&mut y), Arg::Scalar(300)];
    // SAFETY: the arrays live.
    let run = |grid| unsafe { rows.entries[0].launch(&args, grid, Limits::default()) }.map_err(|f| f.kind);
    assert_eq!(run([3, 1, 1]).unwrap_err(), FaultKind::OutOfBounds);
    // A block too few: a result is not written.
    assert_eq!(run([1, 1, 1]).unwrap_err(), FaultKind::Unwritten);
    // Two blocks that write different results to one place.
    let same_row = changed(&reduce::reduce_rows("rows", BinOp::FAdd, 0.0), &[]);
    let mut rising: Vec<f32> = (0..600).map(|i| i as f32).collect();
    let args = [Arg::slice(&mut rising), Arg::out(&mut y), Arg::Scalar(300)];
    let sums = emit_ptx(
        &KernelModule { kernels: vec![reduce::reduce_rows("rows", BinOp::FAdd, 0.0)] },
        &TargetSpec::nvptx(80),
    )
    .unwrap();
    // SAFETY: the arrays live.
    let good = unsafe { same_row.entries[0].launch(&args, [2, 1, 1], Limits::default()) };
    assert!(good.is_ok(), "{good:?}");
    let stored = sums.lines().rfind(|l| l.contains("st.global")).expect("a store").trim();
    let base = stored.split(['[', ']']).nth(1).expect("an address");
    let parameter = sums.lines().find(|l| l.contains("ld.param") && l.contains("param_1")).expect("out");
    let out = parameter.split_whitespace().nth(1).expect("a register").trim_end_matches(',');
    let both = sums.replacen(stored, &stored.replace(base, out), 1);
    let both = Module::parse(&both).unwrap_or_else(|e| panic!("{e}"));
    // SAFETY: the arrays live.
    let fault = unsafe { both.entries[0].launch(&args, [2, 1, 1], Limits::default()) }.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Race, "{fault}");
    // The wrong layout of a fragment: two registers of the left factor change places.
    let at = text.find("mma.sync").expect("a product");
    let end = at + text[at..].find(';').expect("an end");
    let mma = &text[at..end];
    let mut operands: Vec<String> = mma.lines().map(str::to_owned).collect();
    let left = operands[2].trim().trim_start_matches('{').trim_end_matches("},").to_owned();
    let mut registers: Vec<&str> = left.split(", ").collect();
    assert_eq!(registers.len(), 4, "{mma}");
    registers.swap(1, 2);
    operands[2] = format!("{{{}}},", registers.join(", "));
    let wrong = operands.join("\n");
    assert_eq!(kind(&[(mma, &wrong)]), Verdict::Wrong);
}

/// Removes the barriers or waits that `which` counts, one being the first.
fn without(k: &Kernel, drop: fn(&Op) -> bool, which: &[usize]) -> Kernel {
    fn walk(b: &mut Block, drop: fn(&Op) -> bool, which: &[usize], seen: &mut usize) {
        b.insts.retain_mut(|inst| {
            for nested in inst.op.blocks_mut() {
                walk(nested, drop, which, seen);
            }
            let hit = drop(&inst.op);
            *seen += usize::from(hit);
            !(hit && which.contains(seen))
        });
    }
    let (mut k, mut seen) = (k.clone(), 0);
    walk(&mut k.body, drop, which, &mut seen);
    assert!(which.iter().all(|w| *w <= seen), "{} has {seen}", k.name);
    k
}

#[test]
fn planted_faults_are_found() {
    let tile = matmul::Tile { block: [32, 32, 8], thread: [4, 2] };
    let product = matmul::matmul("matmul", tile);
    let (m, n, kk) = (32usize, 32usize, 24usize);
    let run = |k: &Kernel, short: usize| {
        let (mut a, mut b, mut c) = (vec![1f32; m * kk - short], vec![1f32; kk * n], vec![0f32; m * n]);
        let sizes = [m, n, kk].map(|d| interp::Arg::Scalar(d as i64));
        let mut args =
            vec![interp::Arg::slice(&mut a), interp::Arg::slice(&mut b), interp::Arg::slice(&mut c)];
        args.extend(sizes);
        launch(k, 80, &args, tile.grid(m as u32, n as u32)).map_err(|f| f.kind)
    };
    let barrier = |op: &Op| *op == Op::Barrier;
    assert!(run(&product, 0).is_ok());
    assert_eq!(run(&product, 1), Err(FaultKind::OutOfBounds));
    assert_eq!(run(&without(&product, barrier, &[1]), 0), Err(FaultKind::Race));
    assert_eq!(run(&without(&product, barrier, &[2]), 0), Err(FaultKind::Race));

    let tensor = mma::matmul_bf16("tensor");
    let run = |k: &Kernel| {
        let (mut a, mut b) = (vec![[0u64; 2]; 64 * 96 / 8], vec![[0u64; 2]; 64 * 96 / 8]);
        let mut c = vec![[0u64; 2]; 64 * 64 / 4];
        for v in [&mut a, &mut b, &mut c] {
            // Addresses that are a multiple of 16 follow from a length that is one allocation of pages.
            v.reserve_exact(1 << 16);
            assert!((v.as_ptr() as usize).is_multiple_of(16));
        }
        let mut args =
            vec![interp::Arg::slice(&mut a), interp::Arg::slice(&mut b), interp::Arg::slice(&mut c)];
        args.extend([64, 96].map(interp::Arg::Scalar));
        launch(k, 80, &args, mma::grid(64, 64)).map_err(|f| f.kind)
    };
    assert!(run(&tensor).is_ok());
    assert_eq!(run(&without(&tensor, barrier, &[1])), Err(FaultKind::Uninitialised));
    assert_eq!(run(&without(&tensor, barrier, &[2])), Err(FaultKind::Race));
    let wait = |op: &Op| matches!(op, Op::CopyWait(_));
    assert_eq!(run(&without(&tensor, wait, &[1])), Err(FaultKind::Uninitialised));

    let rows = reduce::reduce_rows("rows", BinOp::FAdd, 0.0);
    let mut x = vec![1f32; 600];
    let mut y = [0f32; 2];
    let args = [interp::Arg::slice(&mut x), interp::Arg::slice(&mut y), interp::Arg::Scalar(300)];
    assert!(launch(&rows, 80, &args, [2, 1, 1]).is_ok());
    assert_eq!(y, [300.0; 2]);
    let kind = |k: &Kernel, grid| launch(k, 80, &args, grid).map_err(|f| f.kind);
    assert_eq!(kind(&without(&rows, barrier, &[1]), [2, 1, 1]), Err(FaultKind::Uninitialised));
    assert_eq!(kind(&rows, [3, 1, 1]), Err(FaultKind::OutOfBounds), "a block too many");
}
