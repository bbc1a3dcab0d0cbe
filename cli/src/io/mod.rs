//! Tensors, pictures and tables in files.

pub mod csv;
pub mod idx;
pub mod npy;
pub mod npz;
pub mod picture;
pub mod spill;
