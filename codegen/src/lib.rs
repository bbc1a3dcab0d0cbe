//! Kernel IR, graph -> plan + kernels lowering, kernel interpreter. See ARCHITECTURE.md.

pub mod kernel;
pub mod link;
