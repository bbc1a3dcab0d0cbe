//! Launches: building a kernel once per variant and the step that runs it.

use super::cx::{LowerCx, Opnd};
use super::elem::mem_elem;
use crate::kernel::{Access, Arch, Buf, Builder, Elem, Kernel, KernelModule, TargetSpec, Val};
use crate::simt::per_thread;
use planish_ir::{Diag, Dim, NodeId};
use planish_rt::plan::{Arg, ErrorId, KernelDecl, KernelId, SlotId, Step};
use std::collections::HashMap;

/// Elements of a chunk of the parallel axis of element-wise kernels for CPUs.
pub const CHUNK: i64 = 4096;

/// Basic operations in about 2 us of one core: a launch is not cut into smaller parts.
const GRAIN_OPS: i64 = 14 * 1024;

/// A kernel launch being described. Buffers get the numbers 0, 1, ... in the order of `read`, `write` and `update`;
/// dims in the order of `dim`.
#[derive(Clone, Debug)]
pub struct Launch {
    label: String,
    bufs: Vec<(SlotId, Elem, Access, bool)>,
    dims: Vec<Dim>,
    errors: Vec<ErrorId>,
    extent: Dim,
    rounds: Option<Dim>,
    cost: Dim,
    flops: Option<Dim>,
    bytes: Option<Dim>,
    /// A node that it does besides the current one.
    also: Option<NodeId>,
}

impl Launch {
    /// A launch whose kernel is called after `label` (letters, digits, underscores).
    pub fn new(label: &str) -> Launch {
        Launch {
            label: label.to_owned(),
            bufs: Vec::new(),
            dims: Vec::new(),
            errors: Vec::new(),
            extent: Dim::Const(1),
            rounds: None,
            cost: Dim::Const(1),
            flops: None,
            bytes: None,
            also: None,
        }
    }
    fn buf(mut self, x: &Opnd, access: Access, may_alias: bool) -> Launch {
        self.bufs.push((x.slot, mem_elem(x.dtype), access, may_alias));
        self
    }
    /// The next buffer, which is read.
    #[must_use]
    pub fn read(self, x: &Opnd) -> Launch {
        self.buf(x, Access::Read, false)
    }
    /// The next buffer, which is written.
    #[must_use]
    pub fn write(self, x: &Opnd) -> Launch {
        self.buf(x, Access::Write, false)
    }
    /// The next buffer, which is read and written, and may overlap others.
    #[must_use]
    pub fn update(self, x: &Opnd) -> Launch {
        self.buf(x, Access::ReadWrite, true)
    }
    /// The next buffer, seen as elements of another type of the same or another size (bits, not values).
    #[must_use]
    pub fn raw(mut self, x: &Opnd, elem: Elem, access: Access) -> Launch {
        self.bufs.push((x.slot, elem, access, false));
        self
    }
    /// The next dim.
    #[must_use]
    pub fn dim(mut self, d: &Dim) -> Launch {
        self.dims.push(d.clone());
        self
    }
    /// The next dims.
    #[must_use]
    pub fn dims(mut self, d: &[Dim]) -> Launch {
        self.dims.extend_from_slice(d);
        self
    }
    /// An error that the kernel may raise by [`KernelCx::raise`].
    #[must_use]
    pub fn raises(mut self, e: ErrorId) -> Launch {
        self.errors.push(e);
        self
    }
    /// The length of the parallel axis; 1 if not given.
    #[must_use]
    pub fn extent(mut self, d: Dim) -> Launch {
        self.extent = d;
        self
    }
    /// The parallel axis is done in rounds of so many units, see [`Step::Launch`]; not for GPUs.
    #[must_use]
    pub fn rounds(mut self, d: Dim) -> Launch {
        self.rounds = Some(d);
        self
    }
    /// About how many basic operations one step of the parallel axis takes: decides how finely threads share it.
    #[must_use]
    pub fn cost(mut self, d: impl Into<Dim>) -> Launch {
        self.cost = d.into();
        self
    }
    /// Floating-point operations of the launch, for reports.
    #[must_use]
    pub fn flops(mut self, d: Dim) -> Launch {
        self.flops = Some(d);
        self
    }
    /// A node that the launch computes besides the current one, for reports.
    #[must_use]
    pub fn describes(mut self, n: Option<NodeId>) -> Launch {
        self.also = n;
        self
    }
    /// Bytes the launch reads and writes, for reports.
    #[must_use]
    pub fn bytes(mut self, d: Dim) -> Launch {
        self.bytes = Some(d);
        self
    }
}

/// What the closure of a launch sees for one variant.
pub struct KernelCx<'a> {
    /// The kernel under construction.
    pub b: Builder,
    /// The target.
    pub target: &'a TargetSpec,
    bufs: Vec<Buf>,
    dims: Vec<Val>,
    errors: Vec<i32>,
}

impl KernelCx<'_> {
    /// Buffer `i`.
    pub fn buf(&self, i: usize) -> Buf {
        self.bufs[i]
    }
    /// Dim `i` as an `I64` value; a literal if it is known.
    pub fn dim(&self, i: usize) -> Val {
        self.dims[i]
    }
    /// Dims `from..from + n`.
    pub fn dims(&self, from: usize, n: usize) -> Vec<Val> {
        self.dims[from..from + n].to_vec()
    }
    /// Lanes of one native vector of this element type; one of 16-bit and narrower elements has as many lanes as one
    /// of f32, because they are computed in 32 bits.
    pub fn lanes(&self, elem: Elem) -> u16 {
        let f32s = self.target.lanes_f32.max(1);
        match elem.bits() {
            64 => (f32s / 2).max(1),
            _ => f32s,
        }
    }
    /// Elements of a chunk, as [`LowerCx::chunk`].
    pub(super) fn chunk(&self) -> i64 {
        if self.target.arch == Arch::Nvptx { 1 } else { CHUNK }
    }
    /// The unit of a launch by blocks that the executing block does.
    pub(super) fn unit(&mut self) -> Val {
        self.b.block_id(0)
    }
    /// The code of error `i` for `Builder::error_if`.
    pub fn error(&self, i: usize) -> i32 {
        self.errors[i]
    }
}

/// The kernels made so far, one module per target.
pub(super) struct Kernels {
    targets: Vec<TargetSpec>,
    modules: Vec<KernelModule>,
    decls: Vec<KernelDecl>,
    seen: HashMap<Vec<Kernel>, KernelId>,
    names: HashMap<String, u32>,
}

impl Kernels {
    pub(super) fn new(targets: &[TargetSpec]) -> Kernels {
        Kernels {
            targets: targets.to_vec(),
            modules: vec![KernelModule::default(); targets.len()],
            decls: Vec::new(),
            seen: HashMap::new(),
            names: HashMap::new(),
        }
    }
    pub(super) fn finish(self) -> (Vec<KernelDecl>, Vec<KernelModule>) {
        (self.decls, self.modules)
    }
    /// Adds a kernel that was built once per target under a name that is replaced here.
    fn add(&mut self, label: &str, mut built: Vec<Kernel>, decl: KernelDecl) -> KernelId {
        if let Some(id) = self.seen.get(&built) {
            let nodes = &mut self.decls[id.index()].nodes;
            nodes.extend(decl.nodes);
            return *id;
        }
        let id = KernelId(self.decls.len() as u32);
        self.seen.insert(built.clone(), id);
        let n = self.names.entry(label.to_owned()).or_insert(0);
        let name = format!("k_{label}_{n}");
        *n += 1;
        for (k, m) in built.iter_mut().zip(&mut self.modules) {
            k.name.clone_from(&name);
            m.kernels.push(k.clone());
        }
        self.decls.push(KernelDecl { name, ..decl });
        id
    }
}

/// How the parallel axis of a launch meets the threads of a GPU.
#[derive(Clone, Copy)]
enum Threads {
    /// A unit is one thread's work.
    PerUnit,
    /// A unit is the work of a block of so many threads.
    Blocks(u32),
}

impl LowerCx<'_> {
    /// Whether kernels are for GPUs.
    pub(super) fn simt(&self) -> bool {
        self.options.targets.iter().any(|t| t.arch == Arch::Nvptx)
    }

    /// What products of f32 matrices on GPUs multiply.
    pub(super) fn precision(&self) -> super::Precision {
        self.options.precision
    }

    /// Elements of a chunk of the parallel axis of element-wise kernels.
    pub(super) fn chunk(&self) -> i64 {
        if self.simt() { 1 } else { CHUNK }
    }

    /// Builds the kernel for every target and appends the step that runs it.
    pub fn launch(&mut self, l: Launch, build: impl Fn(&mut KernelCx<'_>)) -> Result<(), Diag> {
        self.launch_as(l, Threads::PerUnit, build)
    }

    /// [`LowerCx::launch`] of a kernel for GPUs of which a whole block of `threads` does each unit of the parallel axis,
    /// together: the closure gets the index of the unit from [`KernelCx::unit`].
    pub(super) fn launch_blocks(
        &mut self,
        mut l: Launch,
        threads: u32,
        build: impl Fn(&mut KernelCx<'_>),
    ) -> Result<(), Diag> {
        // The axis counts threads.
        l.extent = l.extent.mul(&i64::from(threads).into());
        self.launch_as(l, Threads::Blocks(threads), build)
    }

    fn launch_as(
        &mut self,
        l: Launch,
        threads: Threads,
        build: impl Fn(&mut KernelCx<'_>),
    ) -> Result<(), Diag> {
        let mut args: Vec<Arg> = l.bufs.iter().map(|b| Arg::Slot(b.0)).collect();
        for d in &l.dims {
            if d.as_const().is_none() {
                let e = self.expr(d);
                args.push(Arg::Scalar(e));
            }
        }
        let targets = self.kernels.targets.clone();
        let mut built = Vec::with_capacity(targets.len());
        for target in &targets {
            let mut b = match threads {
                Threads::PerUnit => Builder::cpu("k"),
                Threads::Blocks(n) => Builder::simt("k", [n, 1, 1]),
            };
            b.set_fast_math(self.options.fast_math);
            let mut bufs = Vec::new();
            for (i, (_, elem, access, alias)) in l.bufs.iter().enumerate() {
                let buf = b.buffer(&format!("b{i}"), *elem, *access);
                if *alias {
                    b.may_alias(buf);
                }
                bufs.push(buf);
            }
            let mut dims = Vec::new();
            for (i, d) in l.dims.iter().enumerate() {
                dims.push(match d.as_const() {
                    Some(v) => b.i64(v),
                    None => b.scalar(&format!("d{i}")),
                });
            }
            let errors = l.errors.iter().map(|e| e.code()).collect();
            let mut k = KernelCx { b, target, bufs, dims, errors };
            build(&mut k);
            built.push(match threads {
                Threads::PerUnit if target.arch == Arch::Nvptx => {
                    per_thread::per_thread(k.b.finish(), per_thread::THREADS)
                }
                Threads::PerUnit => k.b.finish(),
                Threads::Blocks(_) => per_thread::with_range(k.b),
            });
        }
        let nodes = l.also.into_iter().chain(self.node_id()).map(|n| self.graph.describe(n)).collect();
        let flops = l.flops.as_ref().map(|d| self.expr(d));
        let bytes = l.bytes.as_ref().map(|d| self.expr(d));
        let decl = KernelDecl { name: String::new(), params: args.len() as u32, nodes, flops, bytes };
        let kernel = self.kernels.add(&l.label, built, decl);
        let grain = Dim::Const(GRAIN_OPS).ceil_div(&l.cost.larger(&Dim::Const(1))).larger(&Dim::Const(1));
        let (extent, grain) = (self.expr(&l.extent), self.expr(&grain));
        let round = l.rounds.as_ref().map(|d| self.expr(d));
        self.step(Step::Launch { kernel, args, extent, grain, round });
        Ok(())
    }
}
