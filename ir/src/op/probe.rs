//! Helpers for unit tests of operations.

use crate::diag::Diag;
use crate::editor::Editor;
use crate::graph::Graph;
use crate::interp;
use crate::op::Op;
use crate::tensor::{Tensor, Value};
use crate::types::Type;

/// Runs one operation on tensors, and checks that what `infer` says of the results holds.
pub(crate) fn eval_op(op: impl Into<Op>, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, Diag> {
    let mut graph = Graph::default();
    let mut ed = Editor::new(&mut graph);
    let mut operands = Vec::new();
    let mut values: Vec<Value> = Vec::new();
    for (i, t) in inputs.iter().enumerate() {
        operands.push(match t {
            // Integers may be shapes, which `infer` wants to know.
            Some(t) if t.dtype().is_int() || t.rank() <= 1 && t.len() < 9 => Some(ed.constant(t.clone())?),
            Some(t) => {
                values.push(t.clone().into());
                Some(ed.input(&format!("x{i}"), Type::from(t.ty())))
            }
            None => None,
        });
    }
    let outputs = ed.node(op, &operands)?;
    for v in &outputs {
        ed.output(*v, None);
    }
    let results = interp::run(&graph, values)?.values;
    let mut tensors = Vec::new();
    for (v, r) in outputs.iter().zip(&results) {
        let (inferred, real) = (graph.ty(*v), r.ty());
        assert!(real.fits(inferred), "{real:?} is not {inferred:?}");
        tensors.push(r.tensor()?.clone());
    }
    Ok(tensors)
}

/// An f32 tensor whose elements are `first`, `first + step`, ...
pub(crate) fn ramp(shape: &[usize], first: f64, step: f64) -> Result<Tensor, Diag> {
    let n = crate::tensor::elem_count(shape)?;
    Tensor::floats(crate::DType::F32, shape, (0..n).map(|i| first + step * i as f64).collect())
}
