//! Ensembles of decision trees: nodes are numbered so that children follow their parents.

use super::super::Made;
use super::super::parts::add;
use super::post::{Other, Post, above, best, two_classes};
use super::{class_labels, rows};
use crate::import::{ImportCx, OnnxNode};
use planish_ir::op::ml::{Aggregate, TreeEnsemble};
use planish_ir::{DType, Diag, Tensor, ValueId};
use std::collections::{BTreeMap, BTreeSet};

/// Where a branch goes.
#[derive(Clone, Copy)]
enum Child {
    Node(usize),
    Leaf(usize),
}

/// A comparison of a feature.
struct Branch {
    feature: i64,
    mode: u8,
    threshold: f64,
    yes: Child,
    no: Child,
    missing: bool,
}

/// Trees in any order of nodes.
#[derive(Default)]
struct Forest {
    branches: Vec<Branch>,
    /// Targets and weights of each leaf.
    leaves: Vec<Vec<(i64, f64)>>,
    roots: Vec<Child>,
}

impl Forest {
    /// Numbers of the branches in an order in which parents come before children; an error for a cycle.
    fn order(&self, node: &OnnxNode<'_>) -> Result<Vec<usize>, Diag> {
        let mut state = vec![0u8; self.branches.len()];
        let mut post = Vec::new();
        for root in &self.roots {
            let mut stack = vec![(*root, false)];
            while let Some((at, done)) = stack.pop() {
                let Child::Node(n) = at else { continue };
                if done {
                    state[n] = 2;
                    post.push(n);
                } else if state[n] == 0 {
                    state[n] = 1;
                    stack.push((at, true));
                    stack.push((self.branches[n].no, false));
                    stack.push((self.branches[n].yes, false));
                } else if state[n] == 1 {
                    return Err(node.error("tree-malformed", "the branches of a tree form a cycle"));
                }
            }
        }
        post.reverse();
        Ok(post)
    }
    /// The scores, rows x targets.
    fn build(
        &self,
        cx: &mut ImportCx<'_, '_>,
        node: &OnnxNode<'_>,
        x: ValueId,
        targets: usize,
        aggregate: Aggregate,
    ) -> Result<ValueId, Diag> {
        let order = self.order(node)?;
        let mut place = vec![0i64; self.branches.len()];
        order.iter().enumerate().for_each(|(i, n)| place[*n] = i as i64);
        let child = |c: Child| match c {
            Child::Node(n) => place[n],
            Child::Leaf(l) => -1 - l as i64,
        };
        let list = |f: &dyn Fn(&Branch) -> i64| -> Vec<i64> {
            order.iter().map(|n| f(&self.branches[*n])).collect()
        };
        let float = cx.dtype(x)?;
        let bytes =
            |v: Vec<i64>| Tensor::ints(DType::U8, &[v.len()], v.into_iter().map(i128::from).collect());
        let floats = |v: Vec<f64>| Tensor::floats(float, &[v.len()], v);
        let mut starts = vec![0i64];
        for leaf in &self.leaves {
            starts.push(starts[starts.len() - 1] + leaf.len() as i64);
        }
        let parts = || self.leaves.iter().flatten();
        let tensors = [
            Tensor::vec_i64(&list(&|b| b.feature)),
            bytes(list(&|b| b.mode.into()))?,
            floats(order.iter().map(|n| self.branches[*n].threshold).collect())?,
            Tensor::vec_i64(&list(&|b| child(b.yes))),
            Tensor::vec_i64(&list(&|b| child(b.no))),
            bytes(list(&|b| b.missing.into()))?,
            Tensor::vec_i64(&self.roots.iter().map(|r| child(*r)).collect::<Vec<_>>()),
            Tensor::vec_i64(&starts),
            Tensor::vec_i64(&parts().map(|p| p.0).collect::<Vec<_>>()),
            floats(parts().map(|p| p.1).collect())?,
        ];
        let bad = |why: &str| Err(node.error("tree-malformed", why));
        if parts().any(|p| !usize::try_from(p.0).is_ok_and(|t| t < targets)) {
            return bad("a leaf has a target that is not there");
        }
        let width = cx.dims(x)?.get(1).and_then(|d| d.as_const());
        if self.branches.iter().any(|b| b.feature < 0 || width.is_some_and(|w| b.feature >= w)) {
            return bad("a branch compares a feature that is not there");
        }
        let mut operands = vec![x];
        for t in tensors {
            operands.push(cx.constant(t)?);
        }
        cx.op(TreeEnsemble { targets, aggregate }, &operands)
    }
}

/// An attribute of numbers that has a variant as a tensor.
fn numbers<'m>(cx: &mut ImportCx<'_, 'm>, node: &OnnxNode<'m>, name: &str) -> Result<Vec<f64>, Diag> {
    if let Some(t) = node.tensor(&format!("{name}_as_tensor"))? {
        return Ok(cx.tensor(t)?.to_f64());
    }
    Ok(node.floats(name)?.unwrap_or_default().iter().map(|v| f64::from(*v)).collect())
}

/// The forest of the operators of the first versions; `kind` is `class` or `target`.
fn classic<'m>(cx: &mut ImportCx<'_, 'm>, node: &OnnxNode<'m>, kind: &str) -> Result<Forest, Diag> {
    node.ignore(&["nodes_hitrates", "nodes_hitrates_as_tensor"]);
    let ints = |name: &str| -> Result<&'m [i64], Diag> { Ok(node.ints(name)?.unwrap_or_default()) };
    let bad = |why: &str| node.error("tree-malformed", why);
    let (trees, ids) = (ints("nodes_treeids")?, ints("nodes_nodeids")?);
    let (yes, no, features) =
        (ints("nodes_truenodeids")?, ints("nodes_falsenodeids")?, ints("nodes_featureids")?);
    let missing = ints("nodes_missing_value_tracks_true")?;
    let modes = node.strings("nodes_modes")?.unwrap_or_default();
    let values = numbers(cx, node, "nodes_values")?;
    let n = ids.len();
    if [trees.len(), yes.len(), no.len(), features.len(), modes.len(), values.len()].iter().any(|l| *l != n) {
        return Err(bad("the lists of nodes have different lengths"));
    }
    let mut forest = Forest::default();
    let mut places: BTreeMap<(i64, i64), Child> = BTreeMap::new();
    for i in 0..n {
        let child = if modes[i] == "LEAF" {
            forest.leaves.push(Vec::new());
            Child::Leaf(forest.leaves.len() - 1)
        } else {
            forest.branches.push(Branch {
                feature: features[i],
                mode: 0,
                threshold: values[i],
                yes: Child::Leaf(0),
                no: Child::Leaf(0),
                missing: missing.get(i).is_some_and(|m| *m != 0),
            });
            Child::Node(forest.branches.len() - 1)
        };
        if places.insert((trees[i], ids[i]), child).is_some() {
            return Err(bad("two nodes of a tree have one number"));
        }
    }
    let mut inner = BTreeSet::new();
    let mut next = 0;
    for i in 0..n {
        if modes[i] == "LEAF" {
            continue;
        }
        let find = |id: i64| places.get(&(trees[i], id)).copied().ok_or_else(|| bad("a child is missing"));
        let b = &mut forest.branches[next];
        next += 1;
        (b.yes, b.no) = (find(yes[i])?, find(no[i])?);
        inner.extend([(trees[i], yes[i]), (trees[i], no[i])]);
        let names = ["BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ"];
        let mode = names.iter().position(|m| *m == modes[i]);
        b.mode = mode.ok_or_else(|| bad("a mode of a node is not known"))? as u8;
    }
    // The root of a tree is the node that is nobody's child; the first one listed, if several are.
    let mut seen = BTreeSet::new();
    for i in 0..n {
        if !inner.contains(&(trees[i], ids[i])) && seen.insert(trees[i]) {
            forest.roots.push(places[&(trees[i], ids[i])]);
        }
    }
    let (w_trees, w_ids) = (ints(&format!("{kind}_treeids"))?, ints(&format!("{kind}_nodeids"))?);
    let w_targets = ints(&format!("{kind}_ids"))?;
    let weights = numbers(cx, node, &format!("{kind}_weights"))?;
    if [w_ids.len(), w_targets.len(), weights.len()].iter().any(|l| *l != w_trees.len()) {
        return Err(bad("the lists of weights have different lengths"));
    }
    for i in 0..w_trees.len() {
        match places.get(&(w_trees[i], w_ids[i])) {
            Some(Child::Leaf(l)) => forest.leaves[*l].push((w_targets[i], weights[i])),
            _ => return Err(bad("a weight belongs to no leaf")),
        }
    }
    Ok(forest)
}

/// Scores plus `base_values`, if there are any.
fn with_base(cx: &mut ImportCx<'_, '_>, scores: ValueId, base: &[f64]) -> Result<ValueId, Diag> {
    if base.iter().all(|b| *b == 0.0) {
        return Ok(scores);
    }
    let base = Tensor::floats(cx.dtype(scores)?, &[base.len()], base.to_vec())?;
    let base = cx.constant(base)?;
    add(cx, scores, base)
}

pub(super) fn regress<'m>(cx: &mut ImportCx<'_, 'm>, node: &OnnxNode<'m>) -> Made {
    let x = rows(cx, node.input(0)?)?;
    let aggregate = match node.choice("aggregate_function", 0, &["SUM", "AVERAGE", "MIN", "MAX"])? {
        0 => Aggregate::Sum,
        1 => Aggregate::Average,
        2 => Aggregate::Min,
        _ => Aggregate::Max,
    };
    let targets = node.int_in("n_targets", 1, 1..=i64::from(i32::MAX))? as usize;
    let forest = classic(cx, node, "target")?;
    let scores = forest.build(cx, node, x, targets, aggregate)?;
    let base = numbers(cx, node, "base_values")?;
    let scores = with_base(cx, scores, &base)?;
    let y = Post::named(node)?.apply(cx, scores)?;
    Ok(vec![cx.cast(y, DType::F32)?])
}

pub(super) fn classify<'m>(cx: &mut ImportCx<'_, 'm>, node: &OnnxNode<'m>) -> Made {
    let x = rows(cx, node.input(0)?)?;
    let forest = classic(cx, node, "class")?;
    let classes: BTreeSet<i64> = forest.leaves.iter().flatten().map(|p| p.0).collect();
    let most = classes.last().map_or(1, |c| usize::try_from(*c).unwrap_or(0).saturating_add(1));
    let (labels, count) = class_labels(cx, node, "classlabels_int64s", "classlabels_strings", most)?;
    let base = numbers(cx, node, "base_values")?;
    let post = Post::named(node)?;
    let (label, scores) = if count == 2 && classes.len() == 1 {
        // One score for two classes: that of the second.
        let only = classes.first().map_or(0, |c| *c);
        let scores = forest.build(cx, node, x, most.max(2), Aggregate::Sum)?;
        let score = super::super::parts::slice(cx, scores, 1, only, only + 1, 1)?;
        let score = with_base(cx, score, base.last().map_or(&[], std::slice::from_ref))?;
        let positive = forest.leaves.iter().flatten().all(|p| p.1 >= 0.0);
        let (bound, other) = if positive { (0.5, Other::Complement) } else { (0.0, Other::Opposite) };
        // Probabilities need no further transformation.
        let post = if positive && post == Post::Logistic { Post::None } else { post };
        (above(cx, score, bound, labels)?, two_classes(cx, score, other, post)?)
    } else {
        let scores = forest.build(cx, node, x, count, Aggregate::Sum)?;
        let scores = with_base(cx, scores, &base)?;
        (best(cx, scores, labels)?, post.apply(cx, scores)?)
    };
    Ok(vec![label, cx.cast(scores, DType::F32)?])
}

pub(super) fn ensemble<'m>(cx: &mut ImportCx<'_, 'm>, node: &OnnxNode<'m>) -> Made {
    node.ignore(&["nodes_hitrates"]);
    let x = rows(cx, node.input(0)?)?;
    let bad = |why: &str| node.error("tree-malformed", why);
    let ints = |name: &str| -> Result<&'m [i64], Diag> { Ok(node.ints(name)?.unwrap_or_default()) };
    let tensor = |cx: &mut ImportCx<'_, 'm>, name: &str| match node.tensor(name)? {
        Some(t) => cx.tensor(t).map(|t| t.to_f64()),
        None => Ok(Vec::new()),
    };
    let (yes, no) = (ints("nodes_truenodeids")?, ints("nodes_falsenodeids")?);
    let (yes_leaf, no_leaf) = (ints("nodes_trueleafs")?, ints("nodes_falseleafs")?);
    let (features, missing) = (ints("nodes_featureids")?, ints("nodes_missing_value_tracks_true")?);
    let (modes, splits) = (tensor(cx, "nodes_modes")?, tensor(cx, "nodes_splits")?);
    let (members, weights) = (tensor(cx, "membership_values")?, tensor(cx, "leaf_weights")?);
    let targets = ints("leaf_targetids")?;
    let n = features.len();
    let lengths = [yes.len(), no.len(), yes_leaf.len(), no_leaf.len(), modes.len(), splits.len()];
    if lengths.iter().any(|l| *l != n) || targets.len() != weights.len() {
        return Err(bad("lists of different lengths"));
    }
    let mut forest = Forest {
        leaves: targets.iter().zip(&weights).map(|(t, w)| vec![(*t, *w)]).collect(),
        ..Forest::default()
    };
    let child = |id: i64, leaf: i64| {
        let id = usize::try_from(id).map_err(|_| bad("a child is missing"))?;
        match leaf {
            0 if id < n => Ok(Child::Node(id)),
            0 => Err(bad("a child is missing")),
            _ if id < targets.len() => Ok(Child::Leaf(id)),
            _ => Err(bad("a leaf is missing")),
        }
    };
    // Tests of membership become chains of comparisons; their further links come after all given nodes.
    let mut sets = members.split(|v| v.is_nan());
    let mut links: Vec<Branch> = Vec::new();
    for i in 0..n {
        let (yes, no) = (child(yes[i], yes_leaf[i])?, child(no[i], no_leaf[i])?);
        let (feature, missing) = (features[i], missing.get(i).is_some_and(|m| *m != 0));
        let link =
            |mode: u8, threshold: f64, no: Child| Branch { feature, mode, threshold, yes, no, missing };
        match modes[i] as u8 {
            mode @ 0..=5 => forest.branches.push(link(mode, splits[i], no)),
            6 => {
                let set = sets.next().ok_or_else(|| bad("a set of members is missing"))?;
                let mut next = no;
                for v in set.iter().skip(1) {
                    links.push(link(4, *v, next));
                    next = Child::Node(n + links.len() - 1);
                }
                // Nothing is in an empty set: nothing is below minus infinity.
                forest.branches.push(match set.first() {
                    Some(v) => link(4, *v, next),
                    None => link(1, f64::NEG_INFINITY, no),
                });
            }
            _ => return Err(bad("a mode of a node is not known")),
        }
    }
    forest.branches.append(&mut links);
    for r in ints("tree_roots")? {
        forest.roots.push(child(*r, 0)?);
    }
    let aggregate = [Aggregate::Average, Aggregate::Sum, Aggregate::Min, Aggregate::Max]
        [node.int_in("aggregate_function", 1, 0..=3)? as usize];
    let targets = node.int_in("n_targets", 1, 1..=i64::from(i32::MAX))? as usize;
    let scores = forest.build(cx, node, x, targets, aggregate)?;
    Ok(vec![Post::numbered(node)?.apply(cx, scores)?])
}
