//! Values that passes do not look through.

use crate::diag::Diag;
use crate::graph::Fact;
use crate::op::gradient::GradCx;
use crate::op::{EvalCx, InferCx, OpDef};
use crate::tensor::Value;

crate::op_struct! {
    /// Its operand, of any type. What is computed of the result is for passes another thing than what is computed of the operand, so that work that is done twice on purpose stays so. Takes no time and no memory in programs. ONNX `Identity`.
    Barrier {}
}

impl OpDef for Barrier {
    const NAME: &'static str = "barrier";
    const INPUTS: (usize, usize) = (1, 1);
    fn infer(&self, cx: &mut InferCx<'_>) -> Result<Vec<Fact>, Diag> {
        Ok(vec![cx.fact(0)?.clone()])
    }
    fn gradient(&self, cx: &mut GradCx<'_, '_>) -> Result<(), Diag> {
        let dy = cx.only_seed()?;
        cx.give(0, dy)
    }
    fn eval(&self, cx: &mut EvalCx<'_>) -> Result<Vec<Value>, Diag> {
        Ok(vec![cx.take(0)?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::checked::{f, i, run};

    #[test]
    fn gives_its_operand() {
        for x in [f(&[2, 0], &[]), f(&[], &[1.5]), i(&[3], &[1, -2, 3])] {
            assert_eq!(run(Barrier {}, std::slice::from_ref(&x)), x);
        }
    }
}
