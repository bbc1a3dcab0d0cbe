//! What `compile` writes.
mod elf;
pub mod exe;
pub mod object;
pub mod symbols;
