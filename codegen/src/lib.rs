//! Kernel IR, graph -> plan + kernels lowering, kernel interpreter. See ARCHITECTURE.md.

pub mod engine;
pub mod kernel;
pub mod link;
pub mod lower;
pub mod math;
pub mod simt;
pub mod weights;

pub use engine::KernelInterpreter;
pub use lower::{LowerOptions, Module, Variant, check, lower};
