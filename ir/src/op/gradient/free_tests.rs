//! Rules where sizes are not known, against central differences of graphs whose dims are symbols.

use super::sweep;
use super::tests::{Random, ints};
use crate::diag::Diag;
use crate::dim::Dim;
use crate::editor::Editor;
use crate::graph::{Graph, NodeId};
use crate::interp;
use crate::op::Op;
use crate::op::build::Build;
use crate::op::conv::Conv;
use crate::op::conv_transpose::ConvTranspose;
use crate::op::gather::Gather;
use crate::op::pool::{Pool, PoolKind};
use crate::op::reduce::ReduceKind;
use crate::op::slice::Slice;
use crate::op::window::AutoPad;
use crate::tensor::{Tensor, Value};
use crate::types::Type;
use crate::verify::verify;

/// The sum of the squares of the first result, and its gradients; the axes of the first operand that are named are free.
fn graph(op: &Op, inputs: &[Option<Tensor>], free: &[usize]) -> Result<Graph, Diag> {
    let mut g = Graph::new("g");
    let mut ed = Editor::new(&mut g);
    let (mut operands, mut variables) = (Vec::new(), Vec::new());
    for (i, t) in inputs.iter().enumerate() {
        let Some(t) = t else {
            operands.push(None);
            continue;
        };
        if !t.dtype().is_float() {
            operands.push(Some(ed.constant(t.clone())?));
            continue;
        }
        let mut dims: Vec<Dim> = t.shape().iter().map(|n| Dim::from(*n)).collect();
        for a in free.iter().filter(|_| i == 0) {
            dims[*a] = Dim::from(ed.graph_mut().symbols.named(&format!("n{a}")));
        }
        let v = ed.input(&format!("x{i}"), Type::tensor(t.dtype(), dims));
        operands.push(Some(v));
        variables.push(v);
    }
    let y = ed.node(op.clone(), &operands)?[0];
    let mut b = Build::new(&mut ed, "test");
    let squares = b.mul(y, y)?;
    let all: Vec<usize> = (0..b.dims(y)?.len()).collect();
    let loss = b.reduce(ReduceKind::Sum, squares, &all, false)?;
    let one = b.number(1.0, loss)?;
    let nodes: Vec<NodeId> = ed.graph().nodes_in(ed.graph().root()).collect();
    ed.output(loss, None);
    for d in sweep(&mut ed, &nodes, &[(loss, one)], &variables)? {
        ed.output(d.ok_or_else(|| Diag::error("arity", "no gradient"))?, None);
    }
    match verify(&g).into_iter().next() {
        Some(d) => Err(d),
        None => Ok(g),
    }
}

fn check(op: impl Into<Op>, inputs: &[Option<Tensor>], free: &[usize]) -> Result<(), Diag> {
    let op = op.into();
    let g = graph(&op, inputs, free)?;
    let floats: Vec<Tensor> = inputs.iter().flatten().filter(|t| t.dtype().is_float()).cloned().collect();
    let run = |inputs: &[Tensor]| -> Result<Vec<Tensor>, Diag> {
        let values = interp::run(&g, inputs.iter().map(|t| Value::from(t.clone())).collect())?.values;
        values.into_iter().map(|v| v.tensor().cloned()).collect()
    };
    let found = run(&floats)?;
    for (i, t) in floats.iter().enumerate() {
        assert_eq!(found[i + 1].shape(), t.shape(), "{op:?}: operand {i}");
        for (k, got) in found[i + 1].to_f64().into_iter().enumerate() {
            let at = |by: f64| -> Result<f64, Diag> {
                let mut v = t.to_f64();
                v[k] += by;
                let mut moved = floats.clone();
                moved[i] = Tensor::floats(t.dtype(), t.shape(), v)?;
                Ok(run(&moved)?[0].to_f64()[0])
            };
            let want = (at(1e-5)? - at(-1e-5)?) / 2e-5;
            let near = (got - want).abs() <= 1e-6 * (1.0 + want.abs());
            assert!(near, "{op:?}, free {free:?}: operand {i}, element {k}: {got}, not {want}");
        }
    }
    Ok(())
}

#[test]
fn convolutions_of_free_shapes() -> Result<(), Diag> {
    let mut r = Random(20_000);
    for round in 0..24 {
        let rank = 1 + round % 2;
        let groups = 1 + r.below(2);
        let free: Vec<usize> = match round % 3 {
            0 => vec![0],
            1 => (2..rank + 2).collect(),
            _ => [0].into_iter().chain(2..rank + 2).collect(),
        };
        let images = if round % 8 == 2 { 0 } else { 1 + r.below(2) };
        let space: Vec<usize> = (0..rank).map(|_| 5 + r.below(4)).collect();
        let kernel = r.shape(rank, 3);
        let some =
            |r: &mut Random, most: usize| (0..rank).map(|_| 1 + r.below(most) as i64).collect::<Vec<_>>();
        let (strides, dilations) = (some(&mut r, 3), some(&mut r, 2));
        let pads: Vec<i64> = (0..2 * rank).map(|_| r.below(3) as i64).collect();
        let x = r.some(&[vec![images, groups * 2], space].concat())?;
        let w = r.some(&[vec![groups * 2, 2], kernel.clone()].concat())?;
        let op = Conv {
            strides: strides.clone(),
            dilations: dilations.clone(),
            pads: pads.clone(),
            auto_pad: AutoPad::Explicit,
            groups: groups as i64,
        };
        let bias = r.some(&[groups * 2])?;
        check(op.clone(), &[Some(x.clone()), Some(w.clone()), Some(bias.clone())], &free)?;
        if round % 3 == 0 || strides.iter().all(|s| *s == 1) {
            let op = Conv { auto_pad: AutoPad::SameLower, ..op };
            check(op, &[Some(x.clone()), Some(w), None], &free)?;
        }
        let w = r.some(&[vec![groups * 2, 1], kernel].concat())?;
        let bias = r.some(&[groups])?;
        let output_padding = strides.iter().map(|s| r.below(*s as usize) as i64).collect();
        let op = ConvTranspose { strides, dilations, pads, output_padding, groups: groups as i64 };
        check(op, &[Some(x), Some(w), Some(bias)], &free)?;
    }
    Ok(())
}

#[test]
fn pools_of_free_shapes() -> Result<(), Diag> {
    let mut r = Random(21_000);
    for round in 0..36 {
        let rank = 1 + round % 2;
        let kind = [PoolKind::Max, PoolKind::Average, PoolKind::Lp][round % 3];
        let free: Vec<usize> = if round % 4 < 2 { vec![0] } else { (0..rank + 2).collect() };
        let space: Vec<usize> = (0..rank).map(|_| 4 + r.below(3)).collect();
        let x = r.apart(&[vec![if round % 9 == 4 { 0 } else { 2 }, 2], space].concat())?;
        let kernel: Vec<i64> = (0..rank).map(|_| 1 + r.below(3) as i64).collect();
        let include = round % 6 < 3;
        let op = Pool {
            kind,
            strides: (0..rank).map(|_| 1 + r.below(2) as i64).collect(),
            dilations: vec![1; rank],
            pads: [&kernel[..], &kernel].concat().iter().map(|k| r.below(*k as usize) as i64).collect(),
            kernel,
            auto_pad: AutoPad::Explicit,
            ceil_mode: !include && round % 4 == 1,
            count_include_pad: include,
            p: 3,
            indices: None,
        };
        check(op, &[Some(x)], &free)?;
    }
    Ok(())
}

#[test]
fn parts_of_free_shapes() -> Result<(), Diag> {
    let mut r = Random(22_000);
    let x = r.some(&[3, 7, 2])?;
    for (start, end, step) in [(1, 100, 1), (0, -1, 1), (-2, -9, -1), (0, 100, 3), (4, 2, 1)] {
        let operands = [Some(x.clone()), ints(&[start]), ints(&[end]), ints(&[1]), ints(&[step])];
        check(Slice {}, &operands, &[0, 1])?;
    }
    check(Slice {}, &[Some(x.clone()), ints(&[1, 2]), ints(&[3, 6])], &[0, 1, 2])?;
    let at = Some(Tensor::ints(crate::dtype::DType::I64, &[2, 2], vec![0, 2, -1, 2])?);
    check(Gather { axis: 1 }, &[Some(x), at], &[0, 1, 2])
}
