//! Values that are right under a condition only.

use crate::diag::Diag;
use crate::dtype::DType;
use crate::graph::{Fact, ValueId};
use crate::op::{Effects, EvalCx, InferCx, OpDef};
use crate::tensor::Value;

crate::op_struct! {
    /// The second operand, of any type, where the first, a bool scalar, is `expected`; else the run ends with the message. Made for an ONNX `If` of which only one branch fits what follows.
    Require {
        /// The value that the condition must have.
        expected: bool,
        /// What the error says.
        message: String,
    }
}

impl OpDef for Require {
    const NAME: &'static str = "require";
    const INPUTS: (usize, usize) = (2, 2);
    fn infer(&self, cx: &mut InferCx<'_>) -> Result<Vec<Fact>, Diag> {
        cx.expect_dtype(0, |d| d == DType::Bool, "bool")?;
        if !cx.dims(0)?.is_empty() {
            return Err(Diag::error("shape-mismatch", "the condition must be a scalar"));
        }
        Ok(vec![cx.fact(1)?.clone()])
    }
    fn eval(&self, cx: &mut EvalCx<'_>) -> Result<Vec<Value>, Diag> {
        if cx.ints(0)? != [i64::from(self.expected)] {
            return Err(Diag::error("condition-failed", self.message.clone()));
        }
        Ok(vec![cx.take(1)?])
    }
    fn effects(&self, _: &[Option<ValueId>]) -> Effects {
        Effects::Stops
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tensor;
    use crate::op::checked::{f, fails, run};

    #[test]
    fn lets_through_or_fails() {
        let flag = |v| Tensor::ints(DType::Bool, &[], vec![v]).unwrap_or_else(|d| panic!("{d}"));
        let op = Require { expected: false, message: "no".into() };
        assert_eq!(run(op.clone(), &[flag(0), f(&[2], &[1.0, 2.0])]), f(&[2], &[1.0, 2.0]));
        assert_eq!(fails(op, &[flag(1), f(&[0], &[])]), "condition-failed");
    }
}
