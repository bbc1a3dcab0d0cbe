//! Runs one operation on values, checking its shape rule against its results under several states of knowledge.

use crate::diag::Diag;
use crate::dim::{Dim, SymId};
use crate::editor::Editor;
use crate::graph::Graph;
use crate::interp;
use crate::op::Op;
use crate::tensor::{Tensor, Value};
use crate::types::{TensorType, Type};
use crate::verify::verify;
use std::collections::BTreeMap;

/// What the shape rule is told of the operands.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Known {
    /// Everything: constants.
    Values,
    /// Dims.
    Dims,
    /// Ranks.
    Ranks,
}

/// The results of an operation on these operands. Panics when its shape rule contradicts them.
pub(crate) fn try_run(op: impl Into<Op>, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, Diag> {
    let op = op.into();
    let mut last = None;
    for known in [Known::Values, Known::Dims, Known::Ranks] {
        match run_knowing(&op, inputs, known) {
            Err(d) if d.is_unsupported() && known != Known::Values => {}
            Err(d) => return Err(d),
            Ok(out) => last = last.or(Some(out)),
        }
    }
    last.ok_or_else(|| Diag::error("internal-eval", "no result"))
}

fn run_knowing(op: &Op, inputs: &[Option<Tensor>], known: Known) -> Result<Vec<Tensor>, Diag> {
    let mut graph = Graph::new("test");
    let (mut operands, mut args) = (Vec::new(), Vec::new());
    let mut bound: BTreeMap<SymId, i64> = BTreeMap::new();
    let mut e = Editor::new(&mut graph);
    for (i, t) in inputs.iter().enumerate() {
        let Some(t) = t else {
            operands.push(None);
            continue;
        };
        if known == Known::Values {
            operands.push(Some(e.constant(t.clone())?));
            continue;
        }
        let ty = if known == Known::Dims {
            t.ty()
        } else {
            let mut dims = Vec::new();
            for (k, n) in t.shape().iter().enumerate() {
                let s = e.graph_mut().symbols.named(&format!("n{i}_{k}"));
                bound.insert(s, *n as i64);
                dims.push(Dim::from(s));
            }
            TensorType::new(t.dtype(), dims)
        };
        operands.push(Some(e.input(&format!("x{i}"), Type::from(ty))));
        args.push(Value::from(t.clone()));
    }
    let results = e.node(op.clone(), &operands)?;
    for v in &results {
        e.output(*v, None);
    }
    let facts: Vec<_> = results.iter().map(|v| graph.value(*v).fact.clone()).collect();
    assert_eq!(verify(&graph), [], "{known:?}");
    let text = crate::text::print(&graph);
    let again = crate::text::parse(&text).unwrap_or_else(|d| panic!("{d}\n{text}"));
    assert_eq!(crate::text::print(&again), text);
    let values = interp::run(&graph, args)?.values;
    let mut out = Vec::new();
    for (fact, value) in facts.iter().zip(values) {
        let t = value.tensor()?.clone();
        let ty = fact.ty.as_tensor().expect("a tensor");
        assert_eq!(ty.dtype, t.dtype(), "{known:?}");
        if let Some(dims) = &ty.shape {
            assert_eq!(dims.len(), t.rank(), "{known:?}: rank of {dims:?} for {:?}", t.shape());
            for (d, n) in dims.iter().zip(t.shape()) {
                match d.as_symbol() {
                    Some(s) if !bound.contains_key(&s) => {
                        let (lo, hi) = d.bounds(&graph.symbols);
                        let n = *n as i64;
                        assert!(lo.is_none_or(|l| l <= n) && hi.is_none_or(|h| h >= n), "{known:?}: {n}");
                        bound.insert(s, n);
                    }
                    _ => {}
                }
                let got = d.eval(&|s| bound.get(&s).copied());
                assert_eq!(got, Some(*n as i64), "{known:?}: {dims:?} for {:?}", t.shape());
            }
        }
        if let Some(content) = &fact.content {
            let got: Vec<_> = content.iter().map(|d| d.eval(&|s| bound.get(&s).copied())).collect();
            let want: Vec<_> = t.to_i64()?.into_iter().map(Some).collect();
            assert_eq!(got, want, "{known:?}: content");
        }
        out.push(t);
    }
    Ok(out)
}

/// [`try_run`] with all operands given, and a single result.
pub(crate) fn run(op: impl Into<Op>, inputs: &[Tensor]) -> Tensor {
    let inputs: Vec<_> = inputs.iter().cloned().map(Some).collect();
    try_run(op, &inputs).unwrap_or_else(|d| panic!("{d}")).swap_remove(0)
}

/// The id of the diagnostic that these operands give.
pub(crate) fn fails(op: impl Into<Op>, inputs: &[Tensor]) -> &'static str {
    let inputs: Vec<_> = inputs.iter().cloned().map(Some).collect();
    try_run(op, &inputs).expect_err("must fail").id
}

/// A tensor of `f32`.
pub(crate) fn f(shape: &[usize], v: &[f32]) -> Tensor {
    Tensor::f32s(shape, v).unwrap_or_else(|d| panic!("{d}"))
}

/// `0, 1, 2, ...` as `f32`.
pub(crate) fn iota(shape: &[usize]) -> Tensor {
    let v: Vec<f32> = (0..shape.iter().product()).map(|i: usize| i as f32).collect();
    f(shape, &v)
}

/// A tensor of `i64`.
pub(crate) fn i(shape: &[usize], v: &[i64]) -> Tensor {
    Tensor::vec_i64(v).reshaped(shape).unwrap_or_else(|d| panic!("{d}"))
}
