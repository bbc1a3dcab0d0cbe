//! Ensembles of decision trees.

use super::is_feature;
use crate::diag::Diag;
use crate::dim::Dim;
use crate::dtype::DType;
use crate::graph::Fact;
use crate::op::{EvalCx, InferCx, OpDef};
use crate::tensor::{Tensor, Value, elem_count};
use crate::types::Type;

crate::attr_enum! {
    /// How the leaves that a row reaches are combined for each target.
    Aggregate {
        /// Their sum.
        Sum = "sum",
        /// Their sum divided by the number of trees.
        Average = "average",
        /// The smallest; 0 where no leaf has the target.
        Min = "min",
        /// The largest; 0 where no leaf has the target.
        Max = "max",
    }
}

crate::op_struct! {
    /// Decision trees on rows of features \[N, F\] (operand 0): \[N, targets\]. Operands 1 to 6 describe the nodes, vectors of one length: feature (i64), comparison (u8: 0 `<=`, 1 `<`, 2 `>=`, 3 `>`, 4 `==`, 5 `!=` of feature and threshold), threshold (the type of the features), the child if it holds and the child if not (i64), and whether NaN counts as holding (u8). A child below 0 is the leaf number -1 - child. Operand 7: the children that are the roots. Operands 8 to 10 describe the leaves: where the weights of each leaf begin (i64, one more than there are leaves), and for each weight its target (i64) and value (the type of the features). Children come after their parents, so that every walk ends.
    TreeEnsemble {
        /// Number of targets.
        targets: usize,
        /// How leaves are combined.
        aggregate: Aggregate,
    }
}

impl OpDef for TreeEnsemble {
    const NAME: &'static str = "tree-ensemble";
    const INPUTS: (usize, usize) = (11, 11);
    fn infer(&self, cx: &mut InferCx<'_>) -> Result<Vec<Fact>, Diag> {
        let t = cx.expect_dtype(0, is_feature, "f32 or f64")?;
        for i in [1, 4, 5, 7, 8, 9] {
            cx.expect_dtype(i, |d| d == DType::I64, "i64")?;
        }
        for i in [2, 6] {
            cx.expect_dtype(i, |d| d == DType::U8, "u8")?;
        }
        for i in [3, 10] {
            cx.expect_dtype(i, |d| d == t, t.name())?;
        }
        let lengths = (1..11).map(|i| match cx.dims(i)? {
            [n] => Ok(n.as_const()),
            _ => Err(Diag::error("shape-mismatch", format!("operand {i} must be a vector"))),
        });
        let lengths = lengths.collect::<Result<Vec<_>, Diag>>()?;
        if lengths[..6].windows(2).any(|w| w[0] != w[1]) || lengths[8] != lengths[9] {
            return Err(Diag::error(
                "shape-mismatch",
                "descriptions of nodes or leaves of different lengths",
            ));
        }
        let [n, _] = cx.dims(0)? else {
            return Err(Diag::error("shape-mismatch", "features are rows x features"));
        };
        Ok(vec![Type::tensor(t, vec![n.clone(), Dim::from(self.targets)]).into()])
    }
    fn eval(&self, cx: &mut EvalCx<'_>) -> Result<Vec<Value>, Diag> {
        let x = cx.tensor(0)?;
        let [rows, width] = *x.shape() else {
            return Err(Diag::error("shape-mismatch", "features are rows x features"));
        };
        let nodes = Nodes {
            feature: cx.ints(1)?,
            mode: cx.ints(2)?,
            threshold: cx.tensor(3)?.to_f64(),
            yes: cx.ints(4)?,
            no: cx.ints(5)?,
            missing: cx.ints(6)?,
        };
        let (roots, starts, targets) = (cx.ints(7)?, cx.ints(8)?, cx.ints(9)?);
        let weights = cx.tensor(10)?.to_f64();
        let bad = || Diag::error("tree-malformed", "a tree refers to something that is not there");
        let values = x.to_f64();
        let mut out = vec![0.0; elem_count(&[rows, self.targets])?];
        for r in 0..rows {
            let row = &values[r * width..(r + 1) * width];
            let mut scores: Vec<Option<f64>> = vec![None; self.targets];
            for root in &roots {
                let leaf = nodes.walk(*root, row).ok_or_else(bad)?;
                let part = starts.get(leaf).zip(starts.get(leaf + 1)).ok_or_else(bad)?;
                for k in usize::try_from(*part.0).map_err(|_| bad())?
                    ..usize::try_from(*part.1).map_err(|_| bad())?
                {
                    let w = *weights.get(k).ok_or_else(bad)?;
                    let t = targets.get(k).and_then(|t| usize::try_from(*t).ok()).ok_or_else(bad)?;
                    let s = scores.get_mut(t).ok_or_else(bad)?;
                    *s = Some(match (*s, self.aggregate) {
                        (None, _) => w,
                        (Some(s), Aggregate::Sum | Aggregate::Average) => s + w,
                        (Some(s), Aggregate::Min) => s.min(w),
                        (Some(s), Aggregate::Max) => s.max(w),
                    });
                }
            }
            for (t, s) in scores.into_iter().enumerate() {
                let s = s.unwrap_or(0.0);
                let count = if self.aggregate == Aggregate::Average { roots.len().max(1) } else { 1 };
                out[r * self.targets + t] = s / count as f64;
            }
        }
        Ok(vec![Tensor::floats(x.dtype(), &[rows, self.targets], out)?.into()])
    }
}

struct Nodes {
    feature: Vec<i64>,
    mode: Vec<i64>,
    threshold: Vec<f64>,
    yes: Vec<i64>,
    no: Vec<i64>,
    missing: Vec<i64>,
}

impl Nodes {
    /// The leaf that a row reaches; none if the tree is malformed.
    fn walk(&self, root: i64, row: &[f64]) -> Option<usize> {
        let mut at = root;
        for _ in 0..=self.feature.len() {
            if at < 0 {
                return usize::try_from(-1 - at).ok();
            }
            let n = usize::try_from(at).ok()?;
            let v = *row.get(usize::try_from(*self.feature.get(n)?).ok()?)?;
            let t = *self.threshold.get(n)?;
            let holds = match *self.mode.get(n)? {
                0 => v <= t,
                1 => v < t,
                2 => v >= t,
                3 => v > t,
                4 => v == t,
                5 => v != t,
                _ => return None,
            };
            let holds = holds || (v.is_nan() && *self.missing.get(n)? != 0);
            at = if holds { *self.yes.get(n)? } else { *self.no.get(n)? };
        }
        None
    }
}
