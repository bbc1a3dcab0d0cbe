//! The runtime linked into emitted programs: the plan of a compiled model and what executes it.
//!
//! `no_std` with `alloc` and no dependencies. The same source is used in two ways: as a normal crate by the engines
//! that run in the compiler's process, and compiled on its own (`--cfg planish_standalone`) into the archive and the
//! launcher that programs consist of.
#![no_std]
extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod abi;
pub mod arena;
pub mod cpu;
pub mod describe;
pub mod device;
pub mod dtype;
pub mod error;
pub mod exec;
pub mod gpu;
pub mod image;
pub mod kernel;
pub mod library;
pub mod loader;
pub mod mem;
pub mod object;
pub mod plan;
pub mod pool;
pub mod sys;

pub use device::Device;
pub use dtype::DType;
pub use error::{Error, ErrorKind};
pub use exec::{Desc, OutputView, Program, Session, SessionOptions};
pub use kernel::{Code, Ctx, HostKernels, KernelFn};
pub use object::{Object, Tensor};
pub use plan::Plan;
pub use pool::Pool;

/// What the runtime needs that a program in Rust gets from `std`.
#[cfg(planish_standalone)]
mod standalone;
