//! The dispatch table: domain and operator type to handler. One file per family of operators in `ops/`.

use super::{ImportCx, OnnxNode, ops};
use planish_ir::{Diag, ValueId};
use std::collections::BTreeMap;
use std::sync::OnceLock;

/// Builds the IR of one node and gives its results, at least as many as the node wants.
pub(crate) type Handler = for<'g, 'm> fn(&mut ImportCx<'g, 'm>, &OnnxNode<'m>) -> Result<Vec<ValueId>, Diag>;

/// One operator that can be imported.
#[derive(Clone, Copy)]
pub struct Entry {
    /// Domain; empty for the default one.
    pub domain: &'static str,
    /// Operator type.
    pub op_type: &'static str,
    /// Oldest operator set version that is handled.
    pub since: i64,
    pub(crate) handler: Handler,
}

/// An operator of the default domain, in all its versions.
pub(crate) const fn onnx(op_type: &'static str, handler: Handler) -> Entry {
    Entry { domain: "", op_type, since: 1, handler }
}

/// An operator of another domain, in all its versions.
pub(crate) const fn other(domain: &'static str, op_type: &'static str, handler: Handler) -> Entry {
    Entry { domain, op_type, since: 1, handler }
}

/// Every operator that can be imported, sorted by domain and operator type.
pub fn entries() -> impl Iterator<Item = &'static Entry> {
    table().values().copied()
}

pub(crate) fn find(domain: &str, op_type: &str) -> Option<&'static Entry> {
    table().get(&(domain, op_type)).copied()
}

fn table() -> &'static BTreeMap<(&'static str, &'static str), &'static Entry> {
    static TABLE: OnceLock<BTreeMap<(&'static str, &'static str), &'static Entry>> = OnceLock::new();
    TABLE.get_or_init(|| {
        ops::FAMILIES.iter().flat_map(|f| f.iter()).map(|e| ((e.domain, e.op_type), e)).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_operator_is_listed_twice() {
        let listed: usize = ops::FAMILIES.iter().map(|f| f.len()).sum();
        assert_eq!(entries().count(), listed);
        assert!(find("", "Add").is_some() && find("", "add").is_none());
    }
}
