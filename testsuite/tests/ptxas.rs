//! ptxas assembles the PTX of the kernels that blocks do together, without spills. Needs no GPU, but a ptxas.
#![cfg(feature = "llvm")]

use planish_codegen::kernel::{BinOp, Elem, Kernel, KernelModule, TargetSpec};
use planish_codegen::simt::{elementwise, gate, matmul, mma, reduce, tensor};
use planish_llvm::ptx::emit_ptx;
use planish_testsuite::tools;
use std::path::Path;
use std::process::Command;

fn library() -> Vec<Kernel> {
    vec![
        elementwise::elementwise("axpy", &[Elem::F32, Elem::F32], Elem::F32, |b, v| b.fma(v[0], 2.0, v[1])),
        reduce::reduce_rows("row_sum", BinOp::FAdd, 0.0),
        reduce::reduce_rows("row_max", BinOp::FMax, f32::NEG_INFINITY),
        matmul::matmul("matmul", matmul::Tile::default()),
        mma::matmul_bf16("matmul_bf16"),
        tensor::matmul("tensor_bf16", Elem::BF16),
        tensor::matmul("tensor_f16", Elem::F16),
        tensor::matmul("tensor_tf32", Elem::F32),
        tensor::matmul("tensor_s8", Elem::I8),
        gate::compact("compact"),
        gate::gated_rows("gated_rows", |b, v| b.fmul(v, 2.0)),
    ]
}

/// What ptxas says of one kernel.
#[derive(Debug, PartialEq, Eq)]
struct Usage {
    registers: u32,
    stack: u32,
    spill_stores: u32,
    spill_loads: u32,
}

fn assemble(ptxas: &Path, ptx: &str, sm: u16) -> Usage {
    let dir = tempfile::tempdir().unwrap();
    let (text, cubin) = (dir.path().join("k.ptx"), dir.path().join("k.cubin"));
    std::fs::write(&text, ptx).unwrap();
    let mut command = Command::new(ptxas);
    command.arg("-v").arg(format!("-arch=sm_{sm}")).arg(&text).arg("-o").arg(&cubin);
    let out = command.output().unwrap_or_else(|e| {
        panic!("{}: {e}; set PLANISH_PTXAS to a ptxas 13.0 or run `cargo xtask setup`", ptxas.display())
    });
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.success(), "{} refuses the text: {said}", ptxas.display());
    assert!(std::fs::metadata(&cubin).is_ok_and(|m| m.len() > 0), "no cubin was written");
    let number = |after: &str, before: &str| -> u32 {
        let end = said.find(before).unwrap_or_else(|| panic!("no `{before}` in: {said}"));
        let digits = said[..end].rsplit(after).next().unwrap_or_default();
        digits.trim().parse().unwrap_or_else(|_| panic!("no number before `{before}` in: {said}"))
    };
    Usage {
        registers: number("Used ", " registers"),
        stack: number("\n", " bytes stack frame"),
        spill_stores: number(",", " bytes spill stores"),
        spill_loads: number(",", " bytes spill loads"),
    }
}

/// Few enough registers for two blocks of 256 threads on a multiprocessor with 65536 of them.
const MAX_REGISTERS: u32 = 128;

#[test]
fn ptxas_accepts_the_library() {
    let ptxas = tools::ptxas();
    for sm in [80, 89, 90] {
        for k in library() {
            let name = k.name.clone();
            let ptx = emit_ptx(&KernelModule { kernels: vec![k] }, &TargetSpec::nvptx(sm)).unwrap();
            let usage = assemble(&ptxas, &ptx, sm);
            let clean = Usage { registers: usage.registers, stack: 0, spill_stores: 0, spill_loads: 0 };
            assert_eq!(usage, clean, "{name} sm_{sm}");
            assert!((1..=MAX_REGISTERS).contains(&usage.registers), "{name} sm_{sm}: {usage:?}");
            let product = match name.as_str() {
                "matmul_bf16" | "tensor_bf16" => "m16n8k16.row.col.f32.bf16.bf16.f32",
                "tensor_f16" => "m16n8k16.row.col.f32.f16.f16.f32",
                "tensor_tf32" => "m16n8k8.row.col.f32.tf32.tf32.f32",
                "tensor_s8" => "m16n8k32.row.col.s32.s8.s8.s32",
                _ => "",
            };
            let found = ptx.split("mma.sync.aligned.").nth(1).map(|t| t.starts_with(product));
            assert_eq!(found, (!product.is_empty()).then_some(true), "{name} sm_{sm}");
        }
    }
}
