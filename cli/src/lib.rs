//! The driver: everything that the `planish` command does, as a library.
//!
//! [`load`] reads a model, [`inputs`] and [`outputs`] move tensors between files and values, [`engine`] finds what
//! executes a graph, and [`verbs`] are the commands, one module each. Only [`ui`] prints.
#![deny(unsafe_code)]

pub mod accuracy;
pub mod advise;
pub mod artifact;
pub mod artifact_run;
pub mod bench;
pub mod bodies;
pub mod calibrate;
pub mod compare;
pub mod cost;
pub mod data;
pub mod diagnostics;
pub mod emit;
pub mod engine;
pub mod equivalence;
pub mod exit;
pub mod export;
pub mod failure;
pub mod files;
pub mod inputs;
pub mod interrupt;
pub mod io;
pub mod load;
pub mod lock;
pub mod manifest;
pub mod outputs;
pub mod percent;
pub mod pipeline;
pub mod preprocess;
pub mod report;
pub mod shapes;
pub mod specialise;
pub mod synthetic;
pub mod train;
pub mod tune;
pub mod ui;
pub mod units;
pub mod verbs;

pub use exit::Exit;
pub use failure::{Failure, Result};
pub use load::{LoadOptions, Model, load};
