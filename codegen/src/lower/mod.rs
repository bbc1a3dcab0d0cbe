//! Lowering: graph -> [`Module`] (a plan, weights, and one set of kernels per CPU variant).
//!
//! [`lower`] walks the regions in order and calls the `lower_*` function of each operation's family, chosen by the
//! exhaustive match in `dispatch.rs`. A family function reads its operands and results through [`LowerCx`], and
//! emits steps: mostly launches of kernels that it builds.
//!
//! # Slots
//! Every value has a *slot* (memory with a dtype and dims). [`LowerCx::input`] gives an operand's slot;
//! [`LowerCx::output`] makes the slot of a result (arena, output buffer, or heap when its size depends on data);
//! [`LowerCx::alias`] makes a result a view of another slot (reshape and friends cost nothing). Lifetimes follow
//! from use: a slot lives from its first to its last step.
//!
//! # Kernels
//! ```text
//! // y = 2 x, over all elements in chunks
//! let (x, y) = (cx.input(0)?, cx.output(0)?);
//! let n = Dim::product(&y.dims);
//! cx.launch(
//!     Launch::new("double").read(&x).write(&y).dim(&n).extent(n.ceil_div(&CHUNK.into())).cost(CHUNK),
//!     |k| {
//!         let (x, y, n) = (k.buf(0), k.buf(1), k.dim(0));
//!         let lanes = k.lanes(Elem::F32);
//!         k.b.parallel_for(|b, chunk| {
//!             let lo = b.mul(chunk, CHUNK);
//!             let hi = b.add(lo, CHUNK);
//!             let hi = b.smin(hi, n);
//!             b.for_lanes(lo, hi, lanes, |b, i, mask| {
//!                 let v = b.load_opt(x, i, lanes, mask);
//!                 let v = b.fmul(v, 2.0);
//!                 b.store_opt(y, i, v, mask);
//!             });
//!         });
//!     },
//! )
//! ```
//! The closure runs once per variant; it must declare no parameters itself, and may look at `k.target`. Buffers come first in the
//! order of `read`/`write`/`update`, then one scalar per `dim` that is not a known number. `dim` takes any [`Dim`], so static and
//! symbolic shapes share one code path: a known dim is a literal and folds away.
//!
//! # Data-dependent dims
//! A result dim that `infer` made with `fresh` is a symbol of data. The family function computes it into a small i64
//! slot with a kernel (or has it in a tensor already) and calls [`LowerCx::bind`] before it makes the result's slot.

mod automaton;
mod concat;
mod contraction;
mod control;
mod cx;
mod dispatch;
mod einsum;
mod elem;
mod elementwise;
mod exprs;
mod finish;
mod fits;
mod gate;
#[cfg(test)]
mod gate_tests;
mod generate;
mod indexing;
mod launch;
mod layout;
mod lines;
mod mel;
mod movement;
#[cfg(test)]
mod movement_tests;
mod nest;
mod nn;
mod objects;
mod quantised;
mod reduce;
#[cfg(test)]
mod region_tests;
mod reshape;
mod signal;
mod specialised;
#[cfg(test)]
mod specialised_tests;
mod steps;
mod strings;
#[cfg(test)]
mod tests;
mod trees;

pub use cx::{LowerCx, Opnd, rt_dtype};
pub use elem::{compute_elem, convert, load, mem_elem, saturate, store};
pub use elementwise::scalar_op;
pub use launch::{CHUNK, KernelCx, Launch};
pub use specialised::{Body, lower_bodies};

use crate::kernel::{Arch, KernelModule, TargetSpec};
use crate::weights::Weights;
use planish_ir::op::composites::without_composites;
use planish_ir::{Diag, Graph};
use planish_rt::plan::Plan;

/// What [`lower`] needs to know.
#[derive(Clone, Debug)]
pub struct LowerOptions {
    /// The code variants, weakest first. All share the plan and the packed weights.
    pub targets: Vec<TargetSpec>,
    /// The most bytes of weights that may be made from constants, splats included.
    pub max_weights: u64,
    /// Whether convolutions may be computed by Winograd's transforms, which round more.
    pub winograd: bool,
    /// Whether [approximations](crate::math) may stand for functions of `F32`.
    pub fast_math: bool,
    /// What products of f32 matrices on GPUs multiply.
    pub precision: Precision,
}

/// Factors of products of f32 matrices; sums are f32 always.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Precision {
    /// f32, without tensor cores.
    #[default]
    F32,
    /// Rounded to 10 bits of mantissa, by tensor cores.
    Tf32,
    /// Rounded to 7 bits of mantissa, by tensor cores.
    Bf16,
}

impl Default for LowerOptions {
    fn default() -> Self {
        LowerOptions {
            targets: vec![TargetSpec::generic128()],
            max_weights: 64 << 30,
            winograd: true,
            fast_math: false,
            precision: Precision::F32,
        }
    }
}

impl LowerOptions {
    /// Whether the target is a GPU.
    pub(crate) fn for_gpu(&self) -> bool {
        self.targets.iter().any(|t| t.arch == Arch::Nvptx)
    }
}

/// The kernels for one target.
#[derive(Clone, Debug)]
pub struct Variant {
    /// The target.
    pub target: TargetSpec,
    /// One kernel for each [`Plan::kernels`] entry, in that order.
    pub kernels: KernelModule,
}

/// A lowered model.
#[derive(Clone, Debug)]
pub struct Module {
    /// The host side.
    pub plan: Plan,
    /// Constants and packed weights.
    pub weights: Weights,
    /// Kernels by target, in the order of [`LowerOptions::targets`].
    pub variants: Vec<Variant>,
}

/// All operations of a graph that cannot be lowered. Builds no kernels and touches no weights.
pub fn check(graph: &Graph) -> Vec<Diag> {
    let options = LowerOptions { targets: Vec::new(), ..LowerOptions::default() };
    let graph = match without_composites(graph, false) {
        Ok(graph) => graph,
        Err(diag) => return vec![diag],
    };
    let mut cx = LowerCx::new(&graph, &options);
    cx.dry = true;
    cx.signature();
    cx.body(graph.root());
    cx.findings()
}

/// Lowers a graph. All operations that cannot be lowered are reported together.
///
/// With a GPU among the targets it must be the only one. Its kernels take three more parameters than the plan gives: see
/// [`per_thread`](crate::simt::per_thread). The parallel axis of a launch then counts threads. Builders are those of CPUs with
/// vectors of one lane, and a unit of the axis is one thread's; products and long reductions have builders of their own, in which a
/// block works together.
pub fn lower(graph: &Graph, options: &LowerOptions) -> Result<Module, Vec<Diag>> {
    if options.targets.len() > 1 && options.for_gpu() {
        return Err(vec![Diag::error("internal-lower", "a GPU is the only target or none")]);
    }
    let graph = without_composites(graph, options.for_gpu()).map_err(|diag| vec![diag])?;
    let mut cx = LowerCx::new(&graph, options);
    cx.signature();
    cx.body(graph.root());
    cx.finish()
}
