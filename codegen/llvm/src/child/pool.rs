//! The parent's side.

use super::{decode_reply, encode_request, read_frame, write_frame};
use crate::{Llvm, refuse};
use planish_codegen::kernel::{
    Backend, EmitError, Kernel, KernelModule, ObjectBytes, TargetSpec, Unsupported,
};
use std::ffi::OsString;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What a child may use in its life, which is at most 64 requests.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Address space in bytes.
    pub memory_bytes: u64,
    /// Processor time in seconds.
    pub cpu_seconds: u64,
}

impl Default for Limits {
    /// 8 GiB and 10 minutes.
    fn default() -> Limits {
        Limits { memory_bytes: 8 << 30, cpu_seconds: 600 }
    }
}

impl Limits {
    fn to_bytes(self) -> [u8; 16] {
        let mut out = [0; 16];
        out[..8].copy_from_slice(&self.memory_bytes.to_le_bytes());
        out[8..].copy_from_slice(&self.cpu_seconds.to_le_bytes());
        out
    }

    pub(super) fn from_bytes(b: &[u8]) -> Option<Limits> {
        let word = |at: usize| Some(u64::from_le_bytes(b.get(at..at + 8)?.try_into().ok()?));
        (b.len() == 16).then_some(())?;
        Some(Limits { memory_bytes: word(0)?, cpu_seconds: word(8)? })
    }
}

/// Splits kernels into modules that are compiled separately: in order, a new module when about 1500 instructions are reached.
/// Depends on the kernels only, never on how many processes compile them.
pub fn partition(kernels: Vec<Kernel>) -> Vec<KernelModule> {
    const INSTS: usize = 1500;
    let mut out: Vec<KernelModule> = Vec::new();
    let mut size = INSTS;
    for k in kernels {
        let mut n = 0;
        k.body.visit(&mut |_| n += 1);
        if size + n > INSTS {
            out.push(KernelModule::default());
            size = 0;
        }
        size += n;
        if let Some(last) = out.last_mut() {
            last.kernels.push(k);
        }
    }
    out
}

/// Requests after which a child is replaced, so that its limits are those of a bounded amount of work.
const REQUESTS_PER_CHILD: u32 = 64;

/// Children that compile kernels.
#[derive(Debug)]
pub struct Pool {
    exe: PathBuf,
    args: Vec<OsString>,
    limits: Limits,
    jobs: usize,
    idle: Mutex<Vec<Worker>>,
}

impl Pool {
    /// `exe args..` must lead to [`super::serve_stdio`]. At most `jobs` children (at least one) work at a time; they are
    /// started when needed.
    pub fn new(exe: PathBuf, args: Vec<OsString>, jobs: usize, limits: Limits) -> Pool {
        Pool { exe, args, limits, jobs: jobs.max(1), idle: Mutex::new(Vec::new()) }
    }

    /// Compiles modules for one target; results in the order of the modules.
    pub fn emit_all(
        &self,
        modules: &[KernelModule],
        target: &TargetSpec,
    ) -> Vec<Result<ObjectBytes, EmitError>> {
        let next = AtomicUsize::new(0);
        let work = || {
            let mut done = Vec::new();
            loop {
                let i = next.fetch_add(1, Ordering::Relaxed);
                let Some(m) = modules.get(i) else { return done };
                done.push((i, self.emit(m, target)));
            }
        };
        let mut all: Vec<(usize, Result<ObjectBytes, EmitError>)> = std::thread::scope(|s| {
            let threads: Vec<_> = (1..self.jobs.min(modules.len())).map(|_| s.spawn(work)).collect();
            let mut all = work();
            for t in threads {
                match t.join() {
                    Ok(part) => all.extend(part),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            all
        });
        all.sort_by_key(|(i, _)| *i);
        all.into_iter().map(|(_, r)| r).collect()
    }

    /// Compiles one module in a child. If the child dies, the error names the first kernel that kills one alone and carries its
    /// text.
    pub fn emit(&self, module: &KernelModule, target: &TargetSpec) -> Result<ObjectBytes, EmitError> {
        match self.ask(module, target) {
            Ok(reply) => decode_reply(reply),
            Err(mut death) => {
                let alone = module.kernels.iter().find(|k| {
                    module.kernels.len() == 1
                        || self.ask(&KernelModule { kernels: vec![(*k).clone()] }, target).is_err()
                });
                death.kernel = alone.map(|k| k.name.clone());
                let text = alone.map_or_else(|| module.to_string(), Kernel::to_string);
                death.reproducer = Some(format!("; target {}\n{text}", target.name));
                Err(death)
            }
        }
    }

    /// One request to some child; an error means that the child is gone.
    fn ask(&self, module: &KernelModule, target: &TargetSpec) -> Result<Vec<u8>, EmitError> {
        let reused = self.idle.lock().ok().and_then(|mut idle| idle.pop());
        let mut worker = match reused {
            Some(w) => w,
            None => Worker::start(self)?,
        };
        match worker.ask(&encode_request(module, target)) {
            Some(reply) => {
                worker.requests += 1;
                if worker.requests < REQUESTS_PER_CHILD
                    && let Ok(mut idle) = self.idle.lock()
                {
                    idle.push(worker);
                }
                Ok(reply)
            }
            None => Err(worker.death()),
        }
    }
}

#[derive(Debug)]
struct Worker {
    child: Child,
    requests: u32,
}

impl Worker {
    fn start(pool: &Pool) -> Result<Worker, EmitError> {
        let fail = |e: std::io::Error| {
            EmitError::new(format!("cannot start the code generator {}: {e}", pool.exe.display()))
        };
        let child = Command::new(&pool.exe)
            .args(&pool.args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(fail)?;
        let mut worker = Worker { child, requests: 0 };
        // A child that is gone already is noticed by the first request.
        if let Some(stdin) = &mut worker.child.stdin {
            let _ = write_frame(stdin, &[&pool.limits.to_bytes()]);
        }
        Ok(worker)
    }

    fn ask(&mut self, request: &[u8]) -> Option<Vec<u8>> {
        write_frame(self.child.stdin.as_mut()?, &[request]).ok()?;
        read_frame(self.child.stdout.as_mut()?).ok()?
    }

    /// What became of a child that gave no reply.
    fn death(mut self) -> EmitError {
        self.child.stdin = None;
        let mut said = String::new();
        if let Some(err) = self.child.stderr.take() {
            let mut bytes = Vec::new();
            // What it said is an addition to the message only.
            let _ = err.take(4096).read_to_end(&mut bytes);
            said = String::from_utf8_lossy(&bytes).lines().next().unwrap_or("").to_string();
        }
        // It has closed its output without a reply; if it is not dead yet, it is of no more use.
        let _ = self.child.kill();
        let how = match self.child.wait() {
            Ok(s) => match (s.signal(), s.code()) {
                (Some(n), _) => format!("died of signal {n}"),
                (_, Some(c)) => format!("ended with code {c}"),
                _ => "ended".into(),
            },
            Err(e) => format!("is lost: {e}"),
        };
        let said = if said.is_empty() { said } else { format!(": {said}") };
        EmitError::new(format!("the code generator {how}{said}"))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // The end of its input tells it to go.
        self.child.stdin = None;
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The LLVM back end behind a [`Pool`].
#[derive(Debug)]
pub struct ChildLlvm {
    pub pool: Pool,
}

impl Backend for ChildLlvm {
    fn name(&self) -> &'static str {
        "llvm"
    }

    fn check(&self, module: &KernelModule, target: &TargetSpec) -> Vec<Unsupported> {
        Llvm.check(module, target)
    }

    fn emit(&self, module: &KernelModule, target: &TargetSpec) -> Result<ObjectBytes, EmitError> {
        refuse(&self.check(module, target))?;
        self.pool.emit(module, target)
    }
}
