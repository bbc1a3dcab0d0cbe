//! The code generator in child processes.

use planish_codegen::kernel::difftest::random;
use planish_codegen::kernel::{Backend, Builder, Elem, Kernel, KernelModule, TargetSpec};
use planish_llvm::Llvm;
use planish_llvm::child::{ChildLlvm, Limits, Pool, decode_request, encode_request, partition};

fn pool(jobs: usize, limits: Limits) -> Pool {
    Pool::new(env!("CARGO_BIN_EXE_planish-codegen-child").into(), vec![], jobs, limits)
}

fn kernels() -> Vec<Kernel> {
    (0..12).map(|s| random::case(s, 8).kernel).collect()
}

#[test]
fn any_number_of_children_gives_the_bytes_of_this_process() {
    let target = TargetSpec::x86_64_v3();
    let modules: Vec<KernelModule> =
        kernels().chunks(3).map(|c| KernelModule { kernels: c.to_vec() }).collect();
    let here: Vec<_> = modules.iter().map(|m| Llvm.emit(m, &target)).collect();
    assert!(here.iter().all(Result::is_ok));
    for jobs in [1, 2, 3] {
        let p = pool(jobs, Limits::default());
        assert_eq!(p.emit_all(&modules, &target), here, "{jobs} jobs");
        assert_eq!(p.emit_all(&modules, &target), here, "again with warm children");
    }
    let child = ChildLlvm { pool: pool(1, Limits::default()) };
    assert_eq!(child.emit(&modules[0], &target), here[0]);
}

#[test]
fn partition_keeps_order_and_every_kernel() {
    let all = kernels();
    let parts = partition([all.clone(), all.clone()].concat());
    let names: Vec<String> = parts.iter().flat_map(|m| &m.kernels).map(|k| k.name.clone()).collect();
    let want: Vec<String> = all.iter().chain(&all).map(|k| k.name.clone()).collect();
    assert_eq!(names, want);
    assert!(parts.len() > 1 && parts.iter().all(|m| !m.kernels.is_empty()));
}

#[test]
fn an_error_is_the_same_as_in_this_process() {
    let mut b = Builder::simt("gpu_only", [32, 1, 1]);
    let y = b.output("y", Elem::F32);
    let one = b.f32(1.0);
    b.store(y, 0, one);
    let m = KernelModule { kernels: vec![b.finish()] };
    let target = TargetSpec::x86_64_v3();
    let here = Llvm.emit(&m, &target).unwrap_err();
    assert_eq!(pool(1, Limits::default()).emit(&m, &target).unwrap_err(), here);
    assert!(here.to_string().contains("kernel gpu_only: simt kernel"), "{here}");
}

#[test]
fn death_of_a_child_is_an_error_with_a_reproducer() {
    let target = TargetSpec::x86_64_v3();
    let starved = pool(1, Limits { memory_bytes: 1 << 20, cpu_seconds: 5 });
    let m = KernelModule { kernels: vec![kernels().remove(1)] };
    let e = starved.emit(&m, &target).unwrap_err();
    assert!(e.message.starts_with("the code generator "), "{e:?}");
    assert_eq!(e.kernel.as_deref(), Some("random_1x8"));
    assert!(e.reproducer.unwrap().starts_with("; target x86-64-v3\nkernel @random_1x8 cpu {"));

    let missing = Pool::new("/nonexistent/planish".into(), vec![], 2, Limits::default());
    let e = missing.emit(&m, &target).unwrap_err();
    assert!(e.message.contains("cannot start the code generator /nonexistent/planish"), "{e:?}");
}

#[test]
fn requests_round_trip_and_damage_is_refused() {
    let m = KernelModule { kernels: kernels() };
    let t = TargetSpec::x86_64_v4_vnni();
    let bytes = encode_request(&m, &t);
    assert_eq!(decode_request(&bytes).unwrap(), (m, t));
    for cut in [0, 3, 10, bytes.len() / 2, bytes.len() - 1] {
        assert!(decode_request(&bytes[..cut]).is_err());
    }
}
