//! The runtime linked into emitted programs.
#![no_std]
extern crate alloc;
