//! Symbols of dims and their table.

use super::SymId;
use crate::entity::PrimaryMap;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Where the value of a symbol comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SymOrigin {
    /// The dims of the inputs.
    Input,
    /// Data: known only after a node has run.
    Data,
}

/// A symbol: an unknown non-negative integer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Symbol {
    /// Name for people; unique within a graph so that the text format can use it.
    pub name: Arc<str>,
    /// Smallest value.
    pub min: i64,
    /// Largest value, if bounded.
    pub max: Option<i64>,
    /// Where its value comes from.
    pub origin: SymOrigin,
}

/// The symbols of a graph.
#[derive(Clone, Debug, Default)]
pub struct Symbols {
    map: PrimaryMap<SymId, Symbol>,
    by_name: BTreeMap<Arc<str>, SymId>,
}

impl Symbols {
    /// The symbol with this name, made as an unbounded input symbol if there is none.
    pub fn named(&mut self, name: &str) -> SymId {
        if let Some(&id) = self.by_name.get(name) {
            return id;
        }
        self.add(Symbol { name: name.into(), min: 0, max: None, origin: SymOrigin::Input })
    }
    /// Adds a symbol; its name gets a suffix if it is taken.
    pub fn add(&mut self, mut symbol: Symbol) -> SymId {
        if self.by_name.contains_key(&symbol.name) {
            let base = symbol.name.clone();
            symbol.name = (1u64..)
                .map(|k| Arc::<str>::from(format!("{base}.{k}")))
                .find(|n| !self.by_name.contains_key(n))
                .unwrap_or(base);
        }
        let name = symbol.name.clone();
        let id = self.map.push(symbol);
        self.by_name.insert(name, id);
        id
    }
    /// A new symbol whose value comes from data.
    pub fn fresh(&mut self, min: i64, max: Option<i64>) -> SymId {
        let name = format!("d{}", self.map.len());
        self.add(Symbol { name: name.into(), min, max, origin: SymOrigin::Data })
    }
    /// The symbol with this name.
    pub fn find(&self, name: &str) -> Option<SymId> {
        self.by_name.get(name).copied()
    }
    /// The data of a symbol.
    pub fn get(&self, id: SymId) -> &Symbol {
        &self.map[id]
    }
    /// Changes the range of a symbol.
    pub fn set_range(&mut self, id: SymId, min: i64, max: Option<i64>) {
        self.map[id].min = min;
        self.map[id].max = max;
    }
    /// Changes where the value of a symbol comes from.
    pub fn set_origin(&mut self, id: SymId, origin: SymOrigin) {
        self.map[id].origin = origin;
    }
    /// All symbols in order of creation.
    pub fn iter(&self) -> impl Iterator<Item = (SymId, &Symbol)> {
        self.map.iter()
    }
}
