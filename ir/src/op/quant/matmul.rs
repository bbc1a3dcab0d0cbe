//! Products of matrices of stored integers.

use crate::diag::Diag;
use crate::dtype::DType;
use crate::graph::Fact;
use crate::op::binary::{broadcast_concrete, broadcast_positions};
use crate::op::{EvalCx, InferCx, OpDef, broadcast_shapes};
use crate::tensor::{Elems, Tensor, Value, elem_count};
use crate::types::Type;

crate::op_struct! {
    /// The matrix product of `a - a_zero` (.., m, k) and `b - b_zero` (.., k, n) in i32, wrapping. Operands: a and b (8-bit integers, rank 2 at least, leading axes broadcast), a_zero and b_zero (of the type of a and b, broadcast against them and of size 1 along k; omitted: 0).
    MatMulInteger {}
}

impl MatMulInteger {
    fn check_zero(cx: &InferCx<'_>, zero: usize, of: usize) -> Result<(), Diag> {
        if !cx.has(zero) {
            return Ok(());
        }
        if cx.dtype(zero)? != cx.dtype(of)? {
            return Err(Diag::error("dtype-mismatch", format!("operand {zero} must have the type of {of}")));
        }
        let (z, x) = (cx.dims(zero)?, cx.dims(of)?);
        let k = if of == 0 { 1 } else { 2 };
        if z.len() > x.len() || (z.len() >= k && !z[z.len() - k].is(1)) {
            return Err(Diag::error("shape-mismatch", format!("zero points of operand {of} vary along k")));
        }
        broadcast_shapes(z, x, cx.symbols).map(|_| ())
    }
}

impl OpDef for MatMulInteger {
    const NAME: &'static str = "matmul-integer";
    const INPUTS: (usize, usize) = (2, 4);
    fn infer(&self, cx: &mut InferCx<'_>) -> Result<Vec<Fact>, Diag> {
        for i in 0..2 {
            cx.expect_dtype(i, |d| matches!(d, DType::U8 | DType::I8), "an 8-bit integer")?;
            Self::check_zero(cx, i + 2, i)?;
        }
        let (a, b) = (cx.dims(0)?, cx.dims(1)?);
        let ([la @ .., m, ka], [lb @ .., kb, n]) = (a, b) else {
            return Err(Diag::error("shape-mismatch", "matrices are needed"));
        };
        if let (Some(x), Some(y)) = (ka.as_const(), kb.as_const())
            && x != y
        {
            return Err(Diag::error("shape-mismatch", format!("inner sizes {x} and {y} differ")));
        }
        let mut shape = broadcast_shapes(la, lb, cx.symbols)?;
        shape.extend([m.clone(), n.clone()]);
        Ok(vec![Type::tensor(DType::I32, shape).into()])
    }
    fn eval(&self, cx: &mut EvalCx<'_>) -> Result<Vec<Value>, Diag> {
        let (a, b) = (cx.tensor(0)?, cx.tensor(1)?);
        let ([la @ .., m, k], [lb @ .., kb, n]) = (a.shape(), b.shape()) else {
            return Err(Diag::error("shape-mismatch", "matrices are needed"));
        };
        if k != kb {
            return Err(Diag::error("shape-mismatch", format!("inner sizes {k} and {kb} differ")));
        }
        let lead = broadcast_concrete(la, lb)?;
        let (pa, pb) = (broadcast_positions(la, &lead)?, broadcast_positions(lb, &lead)?);
        let (va, vb) = (shifted(a, cx.opt_tensor(2)?)?, shifted(b, cx.opt_tensor(3)?)?);
        let mut shape = lead;
        shape.extend([*m, *n]);
        let mut out = Vec::with_capacity(elem_count(&shape)?);
        for (i, j) in pa.into_iter().zip(pb) {
            for r in 0..*m {
                for c in 0..*n {
                    let dot: i64 = (0..*k).map(|t| va[(i * m + r) * k + t] * vb[(j * k + t) * n + c]).sum();
                    out.push(i128::from(dot as i32));
                }
            }
        }
        Ok(vec![Tensor::from_elems(DType::I32, shape, Elems::I(out))?.into()])
    }
    fn weight_input(&self) -> Option<usize> {
        Some(1)
    }
}

/// The elements less their zero points.
pub(super) fn shifted(x: &Tensor, zero: Option<&Tensor>) -> Result<Vec<i64>, Diag> {
    let mut v = x.to_i64()?;
    if let Some(z) = zero {
        let at = broadcast_positions(z.shape(), x.shape())?;
        let z = z.to_i64()?;
        v.iter_mut().zip(at).for_each(|(v, i)| *v -= z[i]);
    }
    Ok(v)
}
