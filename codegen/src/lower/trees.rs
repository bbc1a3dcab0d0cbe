//! Ensembles of decision trees: every row walks down every tree.

use super::cx::LowerCx;
use super::launch::Launch;
use crate::kernel::{CmpOp, Ty, Val};
use planish_ir::op::ml::{Aggregate, TreeEnsemble};
use planish_ir::{Diag, Dim};

/// The vectors of integers of operands `range`, which must be constants.
fn constants(cx: &LowerCx<'_>, i: usize) -> Result<Vec<i64>, Diag> {
    let c = cx.constant(cx.input_value(i)?);
    c.ok_or_else(|| Diag::unsupported("trees that are not constant"))?.decode()?.to_i64()
}

/// An error unless every walk ends at a leaf whose weights are there: children after parents, all indices in range.
fn check(cx: &LowerCx<'_>, op: &TreeEnsemble, width: i64) -> Result<(), Diag> {
    let bad = || Diag::error("tree-malformed", "a tree refers to something that is not there");
    let (feature, mode, yes, no) =
        (constants(cx, 1)?, constants(cx, 2)?, constants(cx, 4)?, constants(cx, 5)?);
    let (roots, starts, targets) = (constants(cx, 7)?, constants(cx, 8)?, constants(cx, 9)?);
    let (nodes, leaves) = (feature.len() as i64, starts.len() as i64 - 1);
    let child = |parent: i64, c: i64| if c < 0 { -1 - c < leaves } else { c > parent && c < nodes };
    let nodes_ok = (0..feature.len()).all(|i| {
        let p = i as i64;
        (0..width).contains(&feature[i]) && (0..=5).contains(&mode[i]) && child(p, yes[i]) && child(p, no[i])
    });
    let starts_ok = starts.windows(2).all(|w| w[0] <= w[1])
        && starts.first() == Some(&0)
        && starts.last() == Some(&(targets.len() as i64));
    let targets_ok = targets.iter().all(|t| (0..op.targets as i64).contains(t));
    if nodes_ok && starts_ok && targets_ok && roots.iter().all(|r| child(-1, *r)) {
        Ok(())
    } else {
        Err(bad())
    }
}

pub(super) fn lower_tree_ensemble(cx: &mut LowerCx<'_>, op: &TreeEnsemble) -> Result<(), Diag> {
    let x = cx.input(0)?;
    let width = x.dims.get(1).and_then(Dim::as_const);
    let width = width.ok_or_else(|| Diag::unsupported("a number of features that is not known"))?;
    check(cx, op, width)?;
    let trees = constants(cx, 7)?.len() as i64;
    let y = cx.output(0)?;
    // For minima and maxima: whether a target has a leaf already.
    let seen = cx.temp(planish_ir::DType::U8, &y.dims);
    let rows = x.dims[0].clone();
    let mut l = Launch::new("trees").read(&x).update(&y).update(&seen);
    for i in 1..11 {
        let t = cx.input(i)?;
        l = l.read(&t);
    }
    let cost = trees.saturating_mul(64).max(1);
    let (targets, aggregate) = (op.targets as i64, op.aggregate);
    cx.launch(l.extent(rows).cost(cost), |k| {
        let (x, y, seen) = (k.buf(0), k.buf(1), k.buf(2));
        let [feature, mode, threshold, yes, no, missing, roots, starts, target, weight] =
            std::array::from_fn(|i| k.buf(3 + i));
        let float = k.b.elem(x);
        let b = &mut k.b;
        b.parallel_for(|b, row| {
            let (features, scores) = (b.mul(row, width), b.mul(row, targets));
            b.loop_(0, targets, 1, |b, t| {
                let at = b.add(scores, t);
                let (zero, none) = (b.zero(Ty::scalar(float)), b.zero(Ty::scalar(crate::kernel::Elem::I8)));
                b.store(y, at, zero);
                b.store(seen, at, none);
            });
            b.loop_(0, trees, 1, |b, tree| {
                let root = b.load(roots, tree, 1);
                let leaf = b.while_(
                    &[root],
                    |b, v| b.cmp(CmpOp::Sge, v[0], 0),
                    |b, v| {
                        let n = v[0];
                        let f = b.load(feature, n, 1);
                        let at = b.add(features, f);
                        let (v, t, m) = (b.load(x, at, 1), b.load(threshold, n, 1), b.load(mode, n, 1));
                        let ops = [CmpOp::FLe, CmpOp::FLt, CmpOp::FGe, CmpOp::FGt, CmpOp::FEq, CmpOp::FNe];
                        let mut holds: Option<Val> = None;
                        for (i, op) in ops.into_iter().enumerate() {
                            let c = b.cmp(op, v, t);
                            holds = Some(match holds {
                                None => c,
                                Some(h) => {
                                    let this = b.cmp(CmpOp::Eq, m, i as i64);
                                    b.select(this, c, h)
                                }
                            });
                        }
                        let nan = b.cmp(CmpOp::FNe, v, v);
                        let tracks = b.load(missing, n, 1);
                        let tracks = b.cmp(CmpOp::Ne, tracks, 0);
                        let lost = b.and(nan, tracks);
                        let holds = match holds {
                            Some(h) => b.or(h, lost),
                            None => lost,
                        };
                        let (yes, no) = (b.load(yes, n, 1), b.load(no, n, 1));
                        vec![b.select(holds, yes, no)]
                    },
                )[0];
                let leaf = b.not(leaf);
                let from = b.load(starts, leaf, 1);
                let next = b.add(leaf, 1);
                let to = b.load(starts, next, 1);
                b.loop_(from, to, 1, |b, i| {
                    let t = b.load(target, i, 1);
                    let at = b.add(scores, t);
                    let (w, old) = (b.load(weight, i, 1), b.load(y, at, 1));
                    let new = match aggregate {
                        Aggregate::Sum | Aggregate::Average => b.fadd(old, w),
                        Aggregate::Min | Aggregate::Max => {
                            let both =
                                if aggregate == Aggregate::Min { b.fmin(old, w) } else { b.fmax(old, w) };
                            let s = b.load(seen, at, 1);
                            let s = b.cmp(CmpOp::Ne, s, 0);
                            b.select(s, both, w)
                        }
                    };
                    b.store(y, at, new);
                    let one = b.int(Ty::scalar(crate::kernel::Elem::I8), 1);
                    b.store(seen, at, one);
                });
            });
            if aggregate == Aggregate::Average {
                b.loop_(0, targets, 1, |b, t| {
                    let at = b.add(scores, t);
                    let s = b.load(y, at, 1);
                    let s = b.fdiv(s, trees.max(1) as f64);
                    b.store(y, at, s);
                });
            }
        });
    })
}
