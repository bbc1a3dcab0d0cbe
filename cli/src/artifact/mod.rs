//! What `compile` writes.
mod elf;
pub mod exe;
