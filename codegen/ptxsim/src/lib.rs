//! A SIMT interpreter of PTX text: the dialect that our code generator writes, and nothing beyond it.
//!
//! [`Module::parse`] reads the text; whatever it does not know is an error with the line. [`Entry::launch`] runs a grid,
//! block after block, in warps of 32 lanes that run in lock-step and reconverge at the lowest address. Besides results it
//! reports what a GPU would hide: accesses outside a buffer or misaligned, reads of memory that was never written, results that are
//! not written, races between the threads of a block since the last barrier and between blocks, barriers and warp operations that not all threads reach, stores
//! to memory that is also read through the read-only path, and programs that do not end.
//!
//! It shares no code with the translation to PTX, nor with the kernel interpreter. Not modelled: time, the order of blocks, caches,
//! and races in global memory by a read before the write of another thread.
//!
//! [`Memory`] is that of a device: buffers that outlive launches and know which of their bytes were written.

mod decode;
mod entry;
mod fault;
mod memory;
mod mma;
mod op;
mod parse;
mod rows;
mod run;
mod shared;
mod token;
mod value;
mod warp;

#[cfg(test)]
mod tests;

pub use entry::{Entry, Module};
pub use fault::{Fault, FaultKind, ParseError, ParseErrorKind};
pub use memory::Memory;
pub use run::{Arg, Limits, Stats};
