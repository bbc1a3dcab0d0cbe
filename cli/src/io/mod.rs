//! Tensors in files.

pub mod npy;
pub mod npz;
