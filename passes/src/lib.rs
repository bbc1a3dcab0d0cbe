//! Graph -> graph passes. Each is declared once (name, kind, options, documentation), changes the graph only through
//! [`planish_ir::Editor`], and leaves a remark wherever it declines. No pass names a target: what it needs to know of
//! one comes in through [`PassCx`].
#![forbid(unsafe_code)]

mod eliminate_dead;
mod fold_batch_norm;
mod fold_constants;
mod fuse_epilogues;
mod merge_duplicates;
pub mod options;
pub mod pass;
pub mod pipeline;
pub mod registry;
mod simplify_algebra;
mod simplify_shapes;
mod util;

pub use options::Options;
pub use pass::{Pass, PassCx, PassKind, PassMeta, TargetFacts};
pub use pipeline::{Level, Pipeline, Report};
pub use registry::{PassSpec, parse_specs};
