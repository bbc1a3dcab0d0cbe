//! The table of recipes: at least one for every operation.

use super::{Item, Smith, arrays, control, elementwise};

/// How operations of one kind come into a random graph.
pub struct Recipe {
    /// The operation it is about, by its name in the text format.
    pub op: &'static str,
    pub(crate) make: fn(&mut Smith<'_>) -> Option<Item>,
}

macro_rules! recipes {
    ($($op:literal: $make:path,)*) => {
        /// All recipes. An operation that stands several times is drawn more often.
        pub const RECIPES: &[Recipe] = &[$(Recipe { op: $op, make: $make },)*];
    };
}

recipes! {
    "const": constant,
    "unary": elementwise::unary,
    "unary": elementwise::unary,
    "binary": elementwise::binary,
    "binary": elementwise::binary,
    "where": elementwise::select,
    "cast": elementwise::cast,
    "reshape": arrays::reshape,
    "if": control::branch,
    "loop": control::repeat,
    "gate": control::gate,
}

/// A tensor of any type that later steps may use.
fn constant(s: &mut Smith<'_>) -> Option<Item> {
    Some(arrays::anything(s, |_| false))
}
