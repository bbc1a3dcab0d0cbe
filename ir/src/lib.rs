//! The graph IR of Planish: types, operations, regions, constants, verifier, text format, diagnostics and the
//! reference interpreter. See `docs/ir.md` for the language reference.
//!
//! A [`Graph`] owns arenas of nodes, values, regions and constants. A node belongs to one region and uses only values
//! of that region; an operation with regions lists what they capture as operands. Graphs change only through
//! [`Editor`]. Types are computed by [`op::Op::infer`] alone, and values by [`op::Op::eval`] alone.
#![forbid(unsafe_code)]

pub mod attr;
pub mod constant;
pub mod diag;
pub mod dim;
pub mod dtype;
pub mod editor;
pub mod engine;
pub mod entity;
pub mod graph;
pub mod interp;
pub mod op;
pub mod tensor;
pub mod text;
pub mod types;
pub mod verify;
pub mod visit;

pub use constant::{ConstId, Constant, Encoding, Matrix, Order};
pub use diag::{Diag, Loc, Severity};
pub use dim::{Dim, SymId, Symbol, Symbols};
pub use dtype::DType;
pub use editor::Editor;
pub use engine::{Engine, PrepareOptions, Program, RunResult, Session};
pub use graph::{Graph, NodeId, RegionId, ValueId};
pub use interp::Interpreter;
pub use op::Op;
pub use tensor::{Elems, Tensor, Value};
pub use types::{Quant, TensorType, Type};
