//! Another shape for the same elements.

use crate::diag::Diag;
use crate::dim::Dim;
use crate::dtype::DType;
use crate::graph::Fact;
use crate::op::gradient::GradCx;
use crate::op::infer::MAX_CONTENT;
use crate::op::{EvalCx, InferCx, OpDef};
use crate::tensor::Value;
use crate::types::{TensorType, Type};

crate::op_struct! {
    /// The elements of the first operand under the shape that the second lists. A -1 stands for what remains; a 0 for the dim of the operand at that place, unless `allow_zero`.
    Reshape {
        /// Whether a 0 means an axis of size 0.
        allow_zero: bool,
    }
}

impl Reshape {
    fn target(&self, from: &[Dim], spec: &[Dim]) -> Result<Vec<Dim>, Diag> {
        let mut out = Vec::new();
        let mut hole = None;
        for (i, d) in spec.iter().enumerate() {
            match d.as_const() {
                Some(-1) if hole.is_none() => {
                    hole = Some(i);
                    out.push(Dim::Const(1));
                }
                Some(0) if !self.allow_zero => {
                    out.push(from.get(i).cloned().ok_or_else(|| {
                        Diag::error("axis-out-of-range", "a 0 copies a dim that is not there")
                    })?)
                }
                Some(v) if v < 0 => {
                    return Err(Diag::error("shape-mismatch", format!("a dim cannot be {v}")));
                }
                _ => out.push(d.clone()),
            }
        }
        let (have, rest) = (Dim::product(from), Dim::product(&out));
        match hole {
            Some(i) => {
                if let (Some(a), Some(b)) = (have.as_const(), rest.as_const())
                    && (b == 0 || a % b != 0)
                {
                    return Err(Diag::error(
                        "shape-mismatch",
                        format!("{a} elements cannot be divided among {b}"),
                    ));
                }
                out[i] = quotient(from, &have, &out, &rest);
            }
            None => {
                if let (Some(a), Some(b)) = (have.as_const(), rest.as_const())
                    && a != b
                {
                    return Err(Diag::error("shape-mismatch", format!("{a} elements cannot become {b}")));
                }
            }
        }
        Ok(out)
    }
}

/// `product(from) / product(out)`, cancelling equal factors first so that a dim of 0 does no harm.
fn quotient(from: &[Dim], have: &Dim, out: &[Dim], rest: &Dim) -> Dim {
    if let Some(q) = have.exact_div(rest) {
        return q;
    }
    let (mut top, mut bottom) = (from.to_vec(), Vec::new());
    for d in out {
        match top.iter().position(|t| t == d) {
            Some(i) => {
                top.swap_remove(i);
            }
            None => bottom.push(d.clone()),
        }
    }
    Dim::product(&top).floor_div(&Dim::product(&bottom))
}

impl OpDef for Reshape {
    const NAME: &'static str = "reshape";
    const INPUTS: (usize, usize) = (2, 2);
    fn infer(&self, cx: &mut InferCx<'_>) -> Result<Vec<Fact>, Diag> {
        cx.expect_dtype(1, |d| d == DType::I64, "i64")?;
        let ty = cx.ty(0)?;
        let shape = match cx.ints(1) {
            Some(spec) => Some(self.target(ty.dims()?, &spec)?),
            None => match cx.dims(1)? {
                [n] if n.as_const().is_some_and(|n| (0..=64).contains(&n)) => {
                    let n = n.as_const().unwrap_or(0) as usize;
                    Some((0..n).map(|axis| cx.fresh(0, axis, 0, None)).collect())
                }
                [_] => None,
                _ => return Err(Diag::error("shape-mismatch", "the shape must be a vector")),
            },
        };
        let content = match &shape {
            Some(s) if s.len() <= 1 => cx.ints(0).filter(|c| c.len() <= MAX_CONTENT),
            _ => None,
        };
        Ok(vec![Fact {
            ty: Type::from(TensorType { dtype: ty.dtype, shape, quant: ty.quant.clone() }),
            content,
        }])
    }
    fn gradient(&self, cx: &mut GradCx<'_, '_>) -> Result<(), Diag> {
        cx.give_reshaped()
    }
    fn eval(&self, cx: &mut EvalCx<'_>) -> Result<Vec<Value>, Diag> {
        let x = cx.tensor(0)?;
        let from: Vec<Dim> = x.shape().iter().map(|d| Dim::from(*d)).collect();
        let spec: Vec<Dim> = cx.ints(1)?.into_iter().map(Dim::from).collect();
        let shape: Option<Vec<usize>> = self
            .target(&from, &spec)?
            .iter()
            .map(|d| d.as_const().and_then(|v| usize::try_from(v).ok()))
            .collect();
        let shape = shape.ok_or_else(|| Diag::error("shape-mismatch", "a dim is negative"))?;
        Ok(vec![x.reshaped(&shape)?.into()])
    }
}
