//! Handlers of the operators, one file per family. Each file lists its operators in `OPS`.

use super::table::Entry;
use planish_ir::{Diag, ValueId};

mod control;
mod elementwise;
mod movement;

/// The results of a handler.
type Made = Result<Vec<ValueId>, Diag>;

pub(super) const FAMILIES: &[&[Entry]] = &[control::OPS, elementwise::OPS, movement::OPS];
