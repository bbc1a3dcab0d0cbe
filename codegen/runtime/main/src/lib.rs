//! The launcher of executables: files, JSON, benchmarks. What it prints and how it exits is the contract of an
//! emitted program; `planish run` uses the same readers and writers.
pub mod app;
pub mod args;
pub mod bench;
mod counters;
// A static program cannot load a driver.
#[cfg(all(target_os = "linux", not(target_feature = "crt-static")))]
pub mod cuda;
mod files;
mod inflate;
pub mod inputs;
pub mod json;
pub mod npy;
pub mod outputs;
pub mod pb;
pub mod peaks;
pub mod profile;
mod zip;

pub use files::{Result, decode_name, encode_name};
