//! Kernel IR: what a back end translates.
//!
//! A [`Kernel`] is post-schedule: every loop, vector width, mask and address is explicit, and emitters only translate. Its
//! code is structured (`for`, `if`, `while` with carried values instead of branches) over SSA registers, which are scalars or
//! vectors of a power of two of lanes; memory is buffers, indexed in elements with `I64`. The meaning of every operation is
//! written in [`inst`] and [`opcode`]; no operation on values is undefined, only an access outside a buffer is.
//!
//! # A worked example
//!
//! `y[i] = max(a * x[i] + b, 0)` over `n` elements, in vectors of 8 with a masked tail. One unit of the parallel axis is a
//! chunk of 1024 elements.
//!
//! ```
//! use planish_codegen::kernel::{Builder, Elem};
//!
//! let mut b = Builder::cpu("k_scale_relu");
//! let x = b.input("x", Elem::F32);        // argument words in this order
//! let y = b.output("y", Elem::F32);
//! let n = b.scalar("n");
//! b.parallel_for(|b, chunk| {
//!     let lo = b.mul(chunk, 1024);        // integer literals take the type of the other operand
//!     let hi = b.add(lo, 1024);
//!     let hi = b.smin(hi, n);
//!     b.for_lanes(lo, hi, 8, |b, i, mask| {
//!         let v = b.load_opt(x, i, 8, mask);
//!         let v = b.fma(v, 2.0, 0.5);     // literals and scalars are splatted
//!         let v = b.fmax(v, 0.0);
//!         b.store_opt(y, i, v, mask);
//!     });
//! });
//! let kernel = b.finish();                // verified
//! assert!(kernel.to_string().contains("fma"));
//! ```
//!
//! A sum with a loop-carried vector: `let s = b.for_(0, n, 8, &[zero], |b, i, c| { let v = b.load(x, i, 8); vec![b.fadd(c[0], v)] });`
//! then `b.reduce(BinOp::FAdd, s[0])`. In-place operation: declare the buffers with [`Builder::may_alias`], otherwise a buffer
//! that is written overlaps no other. What data decides (an index from a tensor) is clamped by the kernel and reported with
//! [`Builder::error_if`]; it must never lead outside a buffer.

pub mod backend;
pub mod build;
pub mod difftest;
mod fold;
pub mod func;
pub mod inst;
pub mod interp;
pub mod native;
pub mod opcode;
mod print;
mod rules;
pub mod target;
pub mod types;
pub mod verify;
pub mod wire;

pub use backend::{Backend, EmitError, ObjectBytes, Unsupported};
pub use build::{Builder, Opd};
pub use fold::{int_bin, int_cmp, sext};
pub use func::{Class, Kernel, KernelModule, Local, Param, ParamKind};
pub use inst::{Axis, BinOp, Block, CastOp, CmpOp, Dot4, Frag, Inst, Op, Special, UnOp};
pub use target::{Arch, Features, TargetSpec};
pub use types::{Access, Buf, Elem, Space, Ty, Val};
pub use verify::{Invalid, verify, verify_module};

#[cfg(test)]
mod tests;
