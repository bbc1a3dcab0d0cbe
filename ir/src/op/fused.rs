//! Groups of operations that become one kernel.

use crate::diag::Diag;
use crate::graph::Fact;
use crate::op::{EvalCx, InferCx, MANY, OpDef};
use crate::tensor::Value;

crate::op_struct! {
    /// Runs its region once, on its operands. A group for one kernel: at most one contraction (convolution or matrix product), which then comes first, and element-wise operations after it, all with the dims of the first result.
    Fused {}
}

impl OpDef for Fused {
    const NAME: &'static str = "fused";
    const INPUTS: (usize, usize) = (0, MANY);
    const REGIONS: usize = 1;
    fn infer(&self, cx: &mut InferCx<'_>) -> Result<Vec<Fact>, Diag> {
        let params = cx.region_params(0);
        if params.len() != cx.len() {
            return Err(Diag::error(
                "arity",
                format!("{} operands for {} parameters", cx.len(), params.len()),
            ));
        }
        for (i, p) in params.into_iter().enumerate() {
            if !cx.value_ty(i)?.fits(&p.ty) {
                return Err(Diag::error("type-mismatch", format!("operand {i} does not fit its parameter")));
            }
        }
        Ok(cx.region_results(0).into_iter().cloned().collect())
    }
    fn eval(&self, cx: &mut EvalCx<'_>) -> Result<Vec<Value>, Diag> {
        let args = (0..cx.inputs.len()).map(|i| cx.take(i)).collect::<Result<Vec<_>, _>>()?;
        cx.env.run_region(0, args)
    }
}
