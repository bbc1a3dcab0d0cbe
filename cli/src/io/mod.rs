//! Tensors and pictures in files.

pub mod idx;
pub mod npy;
pub mod npz;
pub mod picture;
pub mod spill;
