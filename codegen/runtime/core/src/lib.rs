//! The runtime linked into emitted programs: the plan of a compiled model and what executes it.
//!
//! `no_std` with `alloc` and no dependencies. The same source is used in two ways: as a normal crate by the engines
//! that run in the compiler's process, and compiled on its own (`--cfg planish_standalone`) into the archive and the
//! launcher that programs consist of.
#![no_std]
extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod dtype;
pub mod library;
pub mod plan;

pub use dtype::DType;
pub use plan::Plan;
