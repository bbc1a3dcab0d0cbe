//! All 2^32 numbers through math functions, for every instruction set that this machine has:
//! `cargo run -p planish-llvm --example every-float -- [FUNCTION...]`. Prints the largest error of each; exits 1 when one is beyond
//! its bound.

#![expect(clippy::print_stdout, reason = "a program for a terminal")]

use planish_codegen::kernel::TargetSpec;
use planish_codegen::kernel::difftest::functions::{Compiled, functions};
use planish_llvm::Llvm;
use std::process::ExitCode;

const CHUNK: u32 = 1 << 20;

fn main() -> Result<ExitCode, String> {
    let asked: Vec<String> = std::env::args().skip(1).collect();
    let mut list = functions();
    list.retain(|f| asked.is_empty() || asked.iter().any(|a| a == f.name));
    if list.is_empty() {
        return Err(format!("no function among {asked:?}"));
    }
    let mut compiled = Vec::new();
    for t in TargetSpec::all_cpu().into_iter().filter(TargetSpec::runs_here) {
        let code = Compiled::new(&Llvm, &t, &list, t.lanes_f32)?;
        compiled.push((t, code));
    }
    let mut ok = true;
    for f in &list {
        let mut worst = vec![(0.0, String::new()); compiled.len()];
        for first in (0..=u32::MAX).step_by(CHUNK as usize) {
            let mut x: Vec<f32> = (first..=first + (CHUNK - 1)).map(f32::from_bits).collect();
            let want: Vec<f64> = x.iter().map(|x| (f.want)(f64::from(*x))).collect();
            for ((_, code), worst) in compiled.iter().zip(&mut worst) {
                let y = code.run(f, &mut x)?;
                let found = f.judge(&x, &y, &want);
                if found.error > worst.0 {
                    *worst = (found.error, found.text);
                }
            }
        }
        for ((t, _), (error, text)) in compiled.iter().zip(worst) {
            let verdict = if error <= f.bound { "ok" } else { "BEYOND" };
            ok &= error <= f.bound;
            println!("{:12} {:20} {verdict} {error:.3} of {} ulp  {text}", f.name, t.name, f.bound);
        }
    }
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::from(1) })
}
