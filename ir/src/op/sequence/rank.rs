//! The rank of the items of a sequence whose type does not tell, because it began as an empty one.

use crate::graph::{Def, NodeId, RegionId, ValueId};
use crate::op::{InferCx, Op};

/// What is known of the items.
#[derive(Clone, Copy, PartialEq)]
enum Items {
    /// There are none.
    None,
    /// All have this rank.
    Rank(usize),
    /// They may have different ranks.
    Unknown,
}

impl Items {
    fn and(self, other: Items) -> Items {
        match (self, other) {
            (Items::None, x) | (x, Items::None) => x,
            (x, y) if x == y => x,
            _ => Items::Unknown,
        }
    }
}

/// The most nodes that are looked at.
const MOST: usize = 1000;

/// The rank that all items of operand `i` have, as far as it follows from where they are put in.
pub(super) fn item_rank(cx: &InferCx<'_>, i: usize) -> Option<usize> {
    let v = cx.operand(i)?;
    match (Search { cx, left: MOST, inside: Vec::new(), open: Vec::new() }).items(v) {
        Items::Rank(r) => Some(r),
        _ => None,
    }
}

struct Search<'s, 'a> {
    cx: &'s InferCx<'a>,
    left: usize,
    /// Regions that the search went into.
    inside: Vec<RegionId>,
    /// Carried values of loops whose items are being looked for.
    open: Vec<(NodeId, usize)>,
}

impl Search<'_, '_> {
    fn items(&mut self, v: ValueId) -> Items {
        let Some(left) = self.left.checked_sub(1) else { return Items::Unknown };
        self.left = left;
        let known = match self.cx.ty_of(v) {
            crate::Type::Sequence(t) => t.as_tensor().and_then(|t| t.shape.as_ref()),
            _ => return Items::Unknown,
        };
        if let Some(dims) = known {
            return Items::Rank(dims.len());
        }
        let (n, k) = match self.cx.def_of(v) {
            Def::Node(n, k) => (n, k as usize),
            Def::Param(r, k) => return self.param(r, k as usize),
        };
        let node = self.cx.node_of(n);
        let operand = |i: usize| node.inputs.get(i).copied().flatten();
        match &node.op {
            Op::Sequence(_) => node.inputs.iter().map(|v| self.rank(*v)).fold(Items::None, Items::and),
            Op::SequenceInsert(_) => self.sequence(operand(0)).and(self.rank(operand(1))),
            Op::SequenceErase(_) => self.sequence(operand(0)),
            Op::If(_) => node.regions.iter().map(|r| self.result(*r, k)).fold(Items::None, Items::and),
            Op::Loop(_) => self.carried(n, k),
            _ => Items::Unknown,
        }
    }
    fn sequence(&mut self, v: Option<ValueId>) -> Items {
        v.map_or(Items::Unknown, |v| self.items(v))
    }
    fn rank(&self, v: Option<ValueId>) -> Items {
        let dims = v.and_then(|v| self.cx.ty_of(v).as_tensor()).and_then(|t| t.shape.as_ref());
        dims.map_or(Items::Unknown, |d| Items::Rank(d.len()))
    }
    fn result(&mut self, r: RegionId, k: usize) -> Items {
        let Some(v) = self.cx.region_of(r).results.get(k).copied() else { return Items::Unknown };
        self.inside.push(r);
        let items = self.items(v);
        self.inside.pop();
        items
    }
    /// Carried value `k` of a loop: items of what it is at first, or of what an iteration makes of it.
    fn carried(&mut self, n: NodeId, k: usize) -> Items {
        let node = self.cx.node_of(n);
        let Op::Loop(l) = &node.op else { return Items::Unknown };
        if k >= l.carried {
            return Items::Unknown;
        }
        // What is being looked for already adds nothing to itself.
        if self.open.contains(&(n, k)) {
            return Items::None;
        }
        self.open.push((n, k));
        let first = self.sequence(node.inputs.get(2 + k).copied().flatten());
        let yielded = k + usize::from(l.conditional);
        let body = node.regions.first().map_or(Items::Unknown, |r| self.result(*r, yielded));
        self.open.pop();
        first.and(body)
    }
    /// A parameter of a region that the search went into: a carried value, or an operand of the node.
    fn param(&mut self, r: RegionId, k: usize) -> Items {
        let parent = self.cx.region_of(r).parent.filter(|_| self.inside.contains(&r));
        let Some(n) = parent else { return Items::Unknown };
        let node = self.cx.node_of(n);
        match &node.op {
            Op::Loop(l) if (1..=l.carried).contains(&k) => self.carried(n, k - 1),
            Op::Loop(_) | Op::If(_) => self.sequence(node.inputs.get(k + 1).copied().flatten()),
            _ => Items::Unknown,
        }
    }
}
