//! Scopes of names: the main graph, subgraphs and function bodies.

use crate::functions::Bindings;
use crate::proto::{OperatorSetIdProto, canonical_domain};
use planish_ir::{RegionId, ValueId};
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slot {
    /// A value of the scope's region.
    Value(ValueId),
    /// A formal input of a function that the call omits.
    Absent,
    /// Something that could not be imported; the reason has been reported.
    Failed,
}

/// Operator set versions by domain.
pub(crate) type Opsets = BTreeMap<String, i64>;

/// Names of one graph or function body.
#[derive(Debug)]
pub(crate) struct Scope<'m> {
    /// Where nodes go. A function body is built into the region of its call.
    pub(crate) region: RegionId,
    pub(crate) names: HashMap<&'m str, Slot>,
    pub(crate) opsets: Rc<Opsets>,
    pub(crate) bindings: Bindings<'m>,
    /// Path of the call for locations; empty or ends with a slash.
    pub(crate) path: String,
}

/// Versions by domain; the highest where a domain is imported twice.
pub(crate) fn opsets(imports: &[OperatorSetIdProto]) -> Opsets {
    let mut all = Opsets::new();
    for import in imports {
        let slot = all.entry(canonical_domain(import.domain()).to_string()).or_insert(0);
        *slot = import.version().max(*slot);
    }
    all
}
