//! Handlers of the operators, one file per family. Each file lists its operators in `OPS`.

use super::table::Entry;
use planish_ir::{Diag, ValueId};

mod attention;
mod batch_norm;
mod contrib;
mod control;
mod dynamic_lstm;
mod elementwise;
mod indexing;
mod layers;
mod linear_attention;
mod losses;
mod ml;
mod movement;
mod norm;
mod parts;
mod quantised;
mod recurrent;
mod reduce;
mod regions;
mod resize;
mod sample;
mod scan;
mod sequences;
mod shape;
mod signal;
mod sizes;
mod text;
mod training;
mod windows;

/// The results of a handler.
type Made = Result<Vec<ValueId>, Diag>;

pub(super) const FAMILIES: &[&[Entry]] = &[
    attention::OPS,
    control::OPS,
    contrib::OPS,
    elementwise::OPS,
    movement::OPS,
    batch_norm::OPS,
    norm::OPS,
    resize::OPS,
    windows::OPS,
    layers::OPS,
    linear_attention::OPS,
    losses::OPS,
    recurrent::OPS,
    regions::OPS,
    sample::OPS,
    indexing::OPS,
    reduce::OPS,
    shape::OPS,
    signal::OPS,
    ml::OPS,
    quantised::OPS,
    scan::OPS,
    sequences::OPS,
    text::OPS,
    training::OPS,
];
