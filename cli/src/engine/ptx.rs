//! The engine that emits PTX and runs the text in the PTX interpreter, on plans that are those of CPUs.
//!
//! The plan's memory stands for that of the device, so that nothing is copied between the two. What it shows is that
//! lowering, text and launches are right; it says nothing about speed.
#![allow(unsafe_code)]

use super::codegen::{self, BuildOptions};
use crate::failure::{Failure, Result};
use planish_codegen::Module;
use planish_codegen::engine::ModuleProgram;
use planish_codegen::kernel::{ParamKind, TargetSpec};
use planish_codegen::simt::per_thread;
use planish_ir::{Diag, Engine, Graph, PrepareOptions, Program, RunResult, Session, Value};
use planish_ptxsim::{Arg, Entry, Fault, FaultKind, Limits};
use planish_rt::kernel::{Code, Ctx, HostKernels};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// More instructions than any run that somebody waits for.
const MOST_STEPS: u64 = 1 << 44;

/// Emits for sm_80 and interprets the text.
#[derive(Clone, Copy, Debug)]
pub(super) struct PtxSim;

impl Engine for PtxSim {
    fn name(&self) -> &'static str {
        "ptxsim"
    }
    fn prepare(
        &self,
        graph: &Graph,
        options: &PrepareOptions,
    ) -> std::result::Result<Box<dyn Program>, Vec<Diag>> {
        let build = BuildOptions { targets: vec![TargetSpec::nvptx(80)], ..BuildOptions::default() };
        let graph = planish_codegen::engine::tapped(graph, &options.taps).map_err(|d| vec![d])?;
        let mut fused = graph.clone().into_owned();
        codegen::optimise(&mut fused).map_err(|f| f.diags)?;
        let module = codegen::lowered(&fused, &build).map_err(|f| f.diags)?;
        let text = codegen::ptx(&module, &build).map_err(|f| f.diags)?;
        program(&graph, module, &text, options, MOST_STEPS)
            .map(|p| Box::new(p) as Box<dyn Program>)
            .map_err(|f| f.diags)
    }
}

/// A program whose kernels are the entries of a PTX text. At most `steps` instructions of warps are executed in all.
pub fn program(
    graph: &Graph,
    module: Module,
    text: &str,
    options: &PrepareOptions,
    steps: u64,
) -> Result<PtxProgram> {
    let wrong = |why: String| Failure::new("internal-ptx", why);
    let parsed = planish_ptxsim::Module::parse(text).map_err(|e| wrong(e.to_string()))?;
    let mut kernels = Vec::new();
    for k in &module.variants[0].kernels.kernels {
        let entry = parsed.entry(&k.name).ok_or_else(|| wrong(format!("no entry is called {}", k.name)))?;
        let pointers = k.params.iter().map(|p| matches!(p.kind, ParamKind::Buffer { .. })).collect();
        kernels.push((entry.clone(), pointers));
    }
    let simulated =
        Arc::new(Simulated { kernels, steps_left: AtomicU64::new(steps), fault: Mutex::new(None) });
    let weights = module.weights.to_vec();
    let code = Code::Host(simulated.clone());
    let inner = ModuleProgram::new(graph, module, code, weights, Box::new(()), options)?;
    Ok(PtxProgram { inner, simulated })
}

struct Simulated {
    /// Each with whether its parameters are addresses.
    kernels: Vec<(Entry, Vec<bool>)>,
    steps_left: AtomicU64,
    /// Why the last launch stopped.
    fault: Mutex<Option<Fault>>,
}

/// An error word that no kernel stores.
const STOPPED: i32 = i32::MIN;

impl Simulated {
    unsafe fn run(
        &self,
        kernel: u32,
        args: &[u64],
        sizes: &[u64],
        lo: i64,
        hi: i64,
        ctx: &Ctx,
    ) -> std::result::Result<(), Fault> {
        let (entry, pointers) = &self.kernels[kernel as usize];
        let mut list: Vec<Arg> =
            args.iter()
                .zip(sizes)
                .zip(pointers)
                .map(|((a, n), pointer)| {
                    if *pointer { Arg::Buf(*a as *mut u8, *n as usize) } else { Arg::Scalar(a.cast_signed()) }
                })
                .collect();
        let mut error = [0i32];
        list.extend([Arg::Scalar(lo), Arg::Scalar(hi), Arg::slice(&mut error)]);
        let threads = entry.block.iter().product();
        let extent = (hi - lo).max(0).cast_unsigned();
        let steps = self.steps_left.load(Ordering::Relaxed);
        let ran = match per_thread::grid(extent, threads) {
            // SAFETY: the caller promises that addresses are valid for their sizes, and the error word lives here.
            Some(grid) => unsafe { entry.launch(&list, grid, Limits { steps }) }?,
            None => {
                return Err(Fault {
                    kind: FaultKind::Launch,
                    kernel: entry.name.clone(),
                    line: 0,
                    inst: String::new(),
                    thread: None,
                    message: format!("{extent} threads are more than a grid has"),
                });
            }
        };
        self.steps_left.fetch_sub(ran.steps.min(steps), Ordering::Relaxed);
        if error[0] != 0 {
            ctx.error.store(error[0], Ordering::Relaxed);
        }
        Ok(())
    }
    fn fault(&self) -> Option<Fault> {
        self.fault.lock().ok()?.take()
    }
}

impl HostKernels for Simulated {
    unsafe fn launch(&self, kernel: u32, args: &[u64], sizes: &[u64], lo: i64, hi: i64, ctx: &Ctx) {
        // SAFETY: what the caller promises is what `run` needs.
        if let Err(fault) = unsafe { self.run(kernel, args, sizes, lo, hi, ctx) } {
            if let Ok(mut slot) = self.fault.lock() {
                *slot = Some(fault);
            }
            ctx.error.store(STOPPED, Ordering::Relaxed);
        }
    }
}

/// A prepared model.
pub struct PtxProgram {
    inner: ModuleProgram,
    simulated: Arc<Simulated>,
}

impl Program for PtxProgram {
    fn session(&self) -> std::result::Result<Box<dyn Session>, Diag> {
        Ok(Box::new(PtxSession { inner: self.inner.session()?, simulated: self.simulated.clone() }))
    }
}

struct PtxSession {
    inner: Box<dyn Session>,
    simulated: Arc<Simulated>,
}

impl Session for PtxSession {
    fn run(&mut self, inputs: &[Option<Value>]) -> std::result::Result<RunResult, Diag> {
        let result = self.inner.run(inputs);
        match self.simulated.fault() {
            Some(f) if f.kind == FaultKind::Steps => Err(Diag::error("step-limit", f.to_string())),
            // An access outside a buffer and the like is a bug of the compiler: no message of the plan stands for it.
            Some(f) => Err(Diag::error("internal-ptx", f.to_string())),
            None => result,
        }
    }
    fn state(&self, input: usize) -> std::result::Result<Option<Value>, Diag> {
        self.inner.state(input)
    }
    fn reset(&mut self) {
        self.inner.reset();
    }
}
