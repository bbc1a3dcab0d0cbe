//! Graph -> graph passes. Each is declared once (name, kind, options, documentation), changes the graph only through
//! [`planish_ir::Editor`], and leaves a remark wherever it declines. No pass names a target: what it needs to know of
//! one comes in through [`PassCx`].
#![forbid(unsafe_code)]

pub mod calibrate;
pub mod cluster_weights;
pub mod compressed;
pub mod cost;
pub mod detect_sparsity;
pub mod determinize;
pub mod eliminate_dead;
pub mod embed_preprocessing;
pub mod expand_composites;
mod experts;
pub mod fake_quantize;
pub mod flops;
pub mod fold_batch_norm;
pub mod fold_constants;
pub mod freeze;
pub mod fuse_epilogues;
pub mod fuse_quantised;
pub mod grad;
pub mod insert_gates;
pub mod merge_duplicates;
pub mod options;
pub mod pass;
pub mod pipeline;
pub mod prune_magnitude;
pub mod quantize;
pub mod quantize_trained;
pub mod recognize;
pub mod recompute;
pub mod registry;
pub mod route_experts;
pub mod simplify_algebra;
pub mod simplify_shapes;
pub mod sink_transposes;
pub mod sparsify_blocks;
pub mod stats;
mod threshold;
pub mod training;
mod util;
mod weights;

pub use calibrate::{Ask, Calibrate, Cover, Samples};
pub use cost::{GatedCosts, SparseCosts};
pub use options::Options;
pub use pass::{Pass, PassCx, PassKind, PassMeta, TargetFacts};
pub use pipeline::{Level, Pipeline, Report};
pub use registry::{PassSpec, parse_specs};
pub use stats::{Channels, Histogram, Stats};
pub use threshold::Threshold;
