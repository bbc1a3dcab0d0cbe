//! Builders of SIMT kernels.
//!
//! Element-wise and reduction kernels take the same expression closures as CPU builders do; contractions are separate: thread tiles over
//! shared memory ([`matmul`]) and tensor cores ([`tensor`], [`mma`]). Each builder states its grid. What is built for a CPU with vectors of one
//! lane becomes a SIMT kernel by [`per_thread`].

pub mod elementwise;
pub mod gate;
pub mod matmul;
pub mod mma;
pub mod per_thread;
pub mod reduce;
pub mod tensor;
#[cfg(test)]
mod tests;

/// Threads of a warp.
pub const WARP: u32 = 32;

/// A grid to launch a kernel with: blocks along x, y, z.
pub type Grid = [u32; 3];
