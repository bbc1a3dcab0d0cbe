//! Values that gradients do not go through.

use crate::diag::Diag;
use crate::graph::Fact;
use crate::op::gradient::GradCx;
use crate::op::{EvalCx, InferCx, OpDef};
use crate::tensor::Value;

crate::op_struct! {
    /// The operand, a tensor, which counts as a constant where gradients are taken. `expand-composites` removes it, so gradients come before that pass. ONNX `Identity`.
    Detach {}
}

impl OpDef for Detach {
    const NAME: &'static str = "detach";
    const INPUTS: (usize, usize) = (1, 1);
    fn infer(&self, cx: &mut InferCx<'_>) -> Result<Vec<Fact>, Diag> {
        cx.ty(0)?;
        Ok(vec![cx.fact(0)?.clone()])
    }
    fn eval(&self, cx: &mut EvalCx<'_>) -> Result<Vec<Value>, Diag> {
        Ok(vec![cx.take(0)?])
    }
    fn gradient(&self, _: &mut GradCx<'_, '_>) -> Result<(), Diag> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::editor::Editor;
    use crate::graph::{Graph, NodeId};
    use crate::op::binary::BinaryKind;
    use crate::op::build::Build;
    use crate::op::checked::{f, i, run};
    use crate::op::gradient::sweep;
    use crate::{DType, Tensor, Type, interp};

    #[test]
    fn values_go_through_and_gradients_do_not() -> Result<(), Diag> {
        assert_eq!(run(Detach {}, &[f(&[2, 0], &[])]), f(&[2, 0], &[]));
        assert_eq!(run(Detach {}, &[i(&[1], &[7])]), i(&[1], &[7]));
        // x * detach(x) at 3: the gradient is 3, not 6.
        let mut g = Graph::new("g");
        let mut ed = Editor::new(&mut g);
        let x = ed.input("x", Type::tensor(DType::F64, vec![]));
        let fixed = ed.node1(Detach {}, &[x])?;
        let mut b = Build::new(&mut ed, "test");
        let y = b.binary(BinaryKind::Mul, x, fixed)?;
        let one = b.number(1.0, x)?;
        let nodes: Vec<NodeId> = ed.graph().nodes_in(ed.graph().root()).collect();
        let found = sweep(&mut ed, &nodes, &[(y, one)], &[x])?;
        ed.output(found[0].unwrap_or(y), None);
        let got = interp::run(&g, vec![Tensor::scalar(DType::F64, 3.0)?.into()])?.values;
        assert_eq!(got[0].tensor()?.to_f64(), [3.0]);
        Ok(())
    }
}
