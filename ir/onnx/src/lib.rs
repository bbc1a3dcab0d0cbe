//! ONNX import and export: the only crate that knows protobuf.
//!
//! A model file is untrusted input. It passes through these stages, and each one bounds what the next may cost:
//!
//! 1. [`map`]: the file is mapped (or read) into one shared [`bytes::Bytes`].
//! 2. [`scan`]: an iterative walk over the wire format checks lengths, depths, counts and a memory budget.
//! 3. [`proto`]: prost decodes; every `bytes` field is a slice of the file.
//! 4. [`functions`]: model-local functions are measured (cycles, expanded size) before anything is expanded.
//! 5. [`tensor`] and [`external`]: tensor contents are validated against their shapes.
//! 6. [`import`]: everything becomes a graph of the IR.
#![deny(unsafe_code)]

pub mod error;
pub mod export;
pub mod external;
pub mod functions;
pub mod import;
pub mod limits;
pub mod map;
pub mod proto;
pub mod scan;
pub mod tensor;
#[cfg(test)]
mod testing;
pub mod value;

pub use error::OnnxError;
pub use export::{ExportOptions, Exported, export};
pub use external::{ExternalData, ExternalOptions};
pub use import::{ImportOptions, Imported, import_bytes, import_file};
pub use limits::Limits;
