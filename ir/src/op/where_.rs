//! Element-wise choice.

use crate::diag::Diag;
use crate::dim::Dim;
use crate::dtype::DType;
use crate::graph::Fact;
use crate::op::binary::{broadcast_concrete, broadcast_positions};
use crate::op::gradient::GradCx;
use crate::op::{EvalCx, InferCx, OpDef};
use crate::tensor::{Elems, Tensor, Value};
use crate::types::{TensorType, Type};

crate::op_struct! {
    /// `where(c, a, b)`: elements of `a` where the bool `c` is true, else of `b`; all three are broadcast.
    Where {}
}

impl OpDef for Where {
    const NAME: &'static str = "where";
    const INPUTS: (usize, usize) = (3, 3);
    fn is_elementwise(&self) -> bool {
        true
    }
    fn infer(&self, cx: &mut InferCx<'_>) -> Result<Vec<Fact>, Diag> {
        cx.expect_dtype(0, |d| d == DType::Bool, "bool")?;
        let dtype = cx.expect_same_dtype(1)?;
        let shape = cx.broadcast_all()?;
        let content = match (cx.const_ints(0), cx.ints(1), cx.ints(2)) {
            (Some(c), Some(a), Some(b)) if shape.as_ref().is_some_and(|s| s.len() <= 1) => {
                let n = c.len().max(a.len()).max(b.len());
                let pick = |v: &[Dim], i: usize| v.get(if v.len() == 1 { 0 } else { i }).cloned();
                let flag = |i: usize| c.get(if c.len() == 1 { 0 } else { i }).copied();
                (0..n).map(|i| if flag(i)? != 0 { pick(&a, i) } else { pick(&b, i) }).collect()
            }
            _ => None,
        };
        Ok(vec![Fact { ty: Type::from(TensorType { dtype, shape, quant: None }), content }])
    }
    fn gradient(&self, cx: &mut GradCx<'_, '_>) -> Result<(), Diag> {
        let (dy, c) = (cx.only_seed()?, cx.input(0)?);
        for (i, when) in [(1, true), (2, false)] {
            let d = cx.only(c, when, dy)?;
            cx.give(i, d)?;
        }
        Ok(())
    }
    fn eval(&self, cx: &mut EvalCx<'_>) -> Result<Vec<Value>, Diag> {
        let (c, a, b) = (cx.tensor(0)?, cx.tensor(1)?, cx.tensor(2)?);
        let shape = broadcast_concrete(&broadcast_concrete(c.shape(), a.shape())?, b.shape())?;
        let flags = c.to_i64()?;
        let pc = broadcast_positions(c.shape(), &shape)?;
        let (pa, pb) = (broadcast_positions(a.shape(), &shape)?, broadcast_positions(b.shape(), &shape)?);
        let n = pc.len();
        let elems = match (a.elems(), b.elems()) {
            (Elems::F(x), Elems::F(y)) => {
                Elems::F((0..n).map(|i| if flags[pc[i]] != 0 { x[pa[i]] } else { y[pb[i]] }).collect())
            }
            (Elems::I(x), Elems::I(y)) => {
                Elems::I((0..n).map(|i| if flags[pc[i]] != 0 { x[pa[i]] } else { y[pb[i]] }).collect())
            }
            (Elems::S(x), Elems::S(y)) => Elems::S(
                (0..n).map(|i| if flags[pc[i]] != 0 { x[pa[i]].clone() } else { y[pb[i]].clone() }).collect(),
            ),
            _ => return Err(Diag::error("dtype-mismatch", "operands of different kinds")),
        };
        Ok(vec![Tensor::from_elems(a.dtype(), shape, elems)?.into()])
    }
}
