//! A SIMT interpreter of PTX text: the dialect that our code generator writes, and nothing beyond it.
//!
//! [`Module::parse`] reads the text; whatever it does not know is an error with the line. [`Entry::launch`] runs a grid,
//! block after block, in warps of 32 lanes that run in lock-step and reconverge at the lowest address. Besides results it
//! reports what a GPU would hide: accesses outside a buffer or misaligned, reads of shared memory that was never written,
//! races between the threads of a block since the last barrier, barriers and warp operations that not all threads reach, stores
//! to memory that is also read through the read-only path, and programs that do not end.
//!
//! It shares no code with the translation to PTX, nor with the kernel interpreter. Not modelled: time, the order of blocks, caches,
//! and races between blocks.

mod decode;
mod entry;
mod fault;
mod memory;
mod op;
mod parse;
mod run;
mod token;
mod value;
mod warp;

#[cfg(test)]
mod tests;

pub use entry::{Entry, Module};
pub use fault::{Fault, FaultKind, ParseError, ParseErrorKind};
pub use run::{Arg, Limits, Stats};
