//! Every rule against central differences in f64, over random shapes.

use crate::diag::Diag;
use crate::dtype::DType;
use crate::editor::Editor;
use crate::graph::{Def, Graph};
use crate::interp;
use crate::op::Op;
use crate::op::binary::{Binary, BinaryKind};
use crate::op::cast::Cast;
use crate::op::concat::{Concat, Pad, PadMode, Split, Tile};
use crate::op::conv::Conv;
use crate::op::conv_transpose::ConvTranspose;
use crate::op::einsum::Einsum;
use crate::op::gather::{Gather, GatherElements, GatherNd};
use crate::op::generate::Trilu;
use crate::op::gradient::of_node;
use crate::op::layer_norm::LayerNorm;
use crate::op::matmul::MatMul;
use crate::op::pool::{IndexOrder, Pool, PoolKind};
use crate::op::random::{stream, unit};
use crate::op::recurrent::{Activation, Cell, Direction, Recurrent};
use crate::op::reduce::{Cumulate, Reduce, ReduceKind};
use crate::op::reshape::Reshape;
use crate::op::scatter::{Reduction, ScatterElements, ScatterNd};
use crate::op::select::ReverseSequence;
use crate::op::slice::Slice;
use crate::op::softmax::{Softmax, SoftmaxKind};
use crate::op::sort::TopK;
use crate::op::unary::{Unary, UnaryKind};
use crate::op::views::{Expand, Flatten, Squeeze, Transpose, Unsqueeze};
use crate::op::where_::Where;
use crate::op::window::AutoPad;
use crate::tensor::{Tensor, Value, elem_count};
use crate::types::Type;
use crate::verify::verify;

/// Half the distance of the two points of a difference.
const STEP: f64 = 1e-5;

pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> f64 {
        self.0 += 1;
        unit(stream(29, self.0))
    }
    pub(super) fn below(&mut self, n: usize) -> usize {
        (self.next() * n as f64) as usize
    }
    /// f64s between two numbers.
    pub(crate) fn floats(&mut self, shape: &[usize], low: f64, high: f64) -> Result<Tensor, Diag> {
        let n = elem_count(shape)?;
        Tensor::floats(DType::F64, shape, (0..n).map(|_| low + (high - low) * self.next()).collect())
    }
    /// Between -1 and 1.
    pub(crate) fn some(&mut self, shape: &[usize]) -> Result<Tensor, Diag> {
        self.floats(shape, -1.0, 1.0)
    }
    /// Numbers far enough apart that no difference changes their order.
    pub(super) fn apart(&mut self, shape: &[usize]) -> Result<Tensor, Diag> {
        let n = elem_count(shape)?;
        let mut v: Vec<f64> = (0..n).map(|i| (i as f64 - n as f64 / 2.0) * 0.1 + 0.05).collect();
        for i in (1..n).rev() {
            v.swap(i, self.below(i + 1));
        }
        Tensor::floats(DType::F64, shape, v)
    }
    pub(super) fn shape(&mut self, rank: usize, most: usize) -> Vec<usize> {
        (0..rank).map(|_| 1 + self.below(most)).collect()
    }
}

pub(super) fn ints(v: &[i64]) -> Option<Tensor> {
    Some(Tensor::vec_i64(v))
}

/// Results of the operation, and of its rule for seeds that are the last inputs.
fn graph(op: &Op, inputs: &[Option<Tensor>], seeds: &[Tensor], rule: bool) -> Result<Graph, Diag> {
    let mut g = Graph::new("g");
    let mut ed = Editor::new(&mut g);
    let mut operands = Vec::new();
    for (i, t) in inputs.iter().enumerate() {
        operands.push(match t {
            Some(t) if t.dtype().is_float() => Some(ed.input(&format!("x{i}"), Type::from(t.ty()))),
            Some(t) => Some(ed.constant(t.clone())?),
            None => None,
        });
    }
    let out = ed.node(op.clone(), &operands)?;
    if !rule {
        for v in out {
            ed.output(v, None);
        }
        return Ok(g);
    }
    let Def::Node(node, _) = ed.graph().value(out[0]).def else {
        return Err(Diag::error("arity", "no node"));
    };
    let seeds: Vec<_> = seeds.iter().map(|t| ed.constant(t.clone()).map(Some)).collect::<Result<_, _>>()?;
    let given = of_node(&mut ed, node, &seeds, &vec![true; operands.len()])?;
    for (v, t) in given.into_iter().zip(inputs) {
        if let Some(t) = t.as_ref().filter(|t| t.dtype().is_float()) {
            let v = match v {
                Some(v) => v,
                None => ed.constant(Tensor::floats(t.dtype(), t.shape(), vec![0.0; t.len()])?)?,
            };
            ed.output(v, None);
        }
    }
    if let Some(d) = verify(&g).into_iter().next() {
        return Err(d);
    }
    Ok(g)
}

fn run(g: &Graph, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, Diag> {
    let floats = inputs.iter().flatten().filter(|t| t.dtype().is_float());
    let values = interp::run(g, floats.map(|t| Value::from(t.clone())).collect())?.values;
    values.into_iter().map(|v| v.tensor().cloned()).collect()
}

/// Compares the rule with differences, for a random weight of every element of the float results.
pub(crate) fn check(random: &mut Random, op: impl Into<Op>, inputs: &[Option<Tensor>]) -> Result<(), Diag> {
    check_by(random, op.into(), inputs, (STEP, 1e-6))
}

/// The same with half the distance of the two points, and how far the rule may be from the difference.
pub(crate) fn check_by(
    random: &mut Random,
    op: Op,
    inputs: &[Option<Tensor>],
    (step, near): (f64, f64),
) -> Result<(), Diag> {
    let forward = graph(&op, inputs, &[], false)?;
    let results = run(&forward, inputs)?;
    let mut seeds = Vec::new();
    for t in results.iter().filter(|t| t.dtype().is_float()) {
        let seed = random.some(t.shape())?.to_f64();
        seeds.push(Tensor::floats(t.dtype(), t.shape(), seed)?);
    }
    let loss = |inputs: &[Option<Tensor>]| -> Result<f64, Diag> {
        let results = run(&forward, inputs)?;
        let floats = results.iter().filter(|t| t.dtype().is_float());
        Ok(floats
            .zip(&seeds)
            .map(|(y, w)| y.to_f64().iter().zip(w.to_f64()).map(|(y, w)| y * w).sum::<f64>())
            .sum())
    };
    let gradients = run(&graph(&op, inputs, &seeds, true)?, inputs)?;
    let floats = inputs.iter().enumerate().filter(|(_, t)| t.as_ref().is_some_and(|t| t.dtype().is_float()));
    for ((i, t), got) in floats.zip(gradients) {
        let t = t.as_ref().ok_or_else(|| Diag::error("arity", "no operand"))?;
        assert_eq!(got.shape(), t.shape(), "{op:?}: operand {i}");
        for (k, got) in got.to_f64().into_iter().enumerate() {
            let at = |by: f64| -> Result<f64, Diag> {
                let mut v = t.to_f64();
                v[k] += by;
                let mut moved = inputs.to_vec();
                moved[i] = Some(Tensor::floats(t.dtype(), t.shape(), v)?);
                loss(&moved)
            };
            let want = (at(step)? - at(-step)?) / (2.0 * step);
            assert!(
                (got - want).abs() <= near * (1.0 + want.abs()),
                "{op:?} of {inputs:?}: operand {i}, element {k}: {got}, not {want}"
            );
        }
    }
    Ok(())
}

/// Numbers that are no integers or halves, and not near a kink.
fn smooth(r: &mut Random, shape: &[usize], low: f64, high: f64) -> Result<Tensor, Diag> {
    let n = elem_count(shape)?;
    let mut v = Vec::new();
    while v.len() < n {
        let x = low + (high - low) * r.next();
        if (x * 2.0 - (x * 2.0).round()).abs() > 0.01 {
            v.push(x);
        }
    }
    Tensor::floats(DType::F64, shape, v)
}

#[test]
fn functions_of_one_element() -> Result<(), Diag> {
    use UnaryKind::*;
    let mut r = Random(1000);
    for kind in UnaryKind::ALL {
        let (low, high) = match kind {
            Sqrt | Log | Reciprocal => (0.3, 3.0),
            Asin | Acos | Atanh | Tan => (-0.8, 0.8),
            Acosh => (1.2, 3.0),
            Not | BitNot | IsNan | IsInf | IsPosInf | IsNegInf => continue,
            _ => (-4.0, 4.0),
        };
        for rank in 0..3 {
            let shape = r.shape(rank, 5);
            let x = smooth(&mut r, &shape, low, high)?;
            check(&mut r, Unary { kind: *kind }, &[Some(x)])?;
        }
    }
    Ok(())
}

#[test]
fn functions_of_two_elements_that_are_broadcast() -> Result<(), Diag> {
    use BinaryKind::*;
    let mut r = Random(2000);
    let shapes: [(&[usize], &[usize]); 6] = [
        (&[3, 4], &[3, 4]),
        (&[3, 1], &[4]),
        (&[], &[2, 3]),
        (&[2, 1, 3], &[4, 1]),
        (&[0, 2], &[1, 2]),
        (&[5], &[]),
    ];
    for kind in [Add, Sub, Mul, Div, Pow, Mod, Fmod, Min, Max, PRelu] {
        for (a, b) in shapes {
            let (low, high) = if kind == Pow { (0.4, 2.0) } else { (-3.0, 3.0) };
            let x = smooth(&mut r, a, low, high)?;
            let y = match kind {
                Div | Mod | Fmod => r.floats(b, 0.7, 1.4)?,
                _ => smooth(&mut r, b, -2.0, 2.0)?,
            };
            check(&mut r, Binary { kind }, &[Some(x), Some(y)])?;
        }
    }
    // A power by integers, of negative numbers too.
    let (x, n) = (smooth(&mut r, &[2, 4], -2.0, 2.0)?, Tensor::ints(DType::I64, &[4], vec![0, 1, 2, 3])?);
    check(&mut r, Binary { kind: Pow }, &[Some(x), Some(n)])
}

#[test]
fn choices_conversions_and_views() -> Result<(), Diag> {
    let mut r = Random(3000);
    let c = Tensor::ints(DType::Bool, &[2, 1, 3], vec![1, 0, 1, 0, 0, 1])?;
    let (a, b) = (r.some(&[4, 1])?, r.some(&[3])?);
    check(&mut r, Where {}, &[Some(c), Some(a), Some(b)])?;
    let x = r.some(&[2, 3, 4])?;
    check(&mut r, Cast { to: DType::F64, saturate: true }, &[Some(x.clone())])?;
    check(&mut r, Cast { to: DType::I64, saturate: true }, &[Some(x.clone())])?;
    check(&mut r, Reshape { allow_zero: false }, &[Some(x.clone()), ints(&[4, -1])])?;
    check(&mut r, Flatten { axis: 1 }, &[Some(x.clone())])?;
    check(&mut r, Unsqueeze { axes: vec![0, 2] }, &[Some(x.clone())])?;
    check(&mut r, Transpose { perm: vec![2, 0, 1] }, &[Some(x.clone())])?;
    check(&mut r, Expand {}, &[Some(x.clone()), ints(&[5, 2, 3, 4])])?;
    let x = r.some(&[1, 3, 1])?;
    check(&mut r, Squeeze { axes: vec![0, 2] }, &[Some(x.clone())])?;
    check(&mut r, Expand {}, &[Some(x), ints(&[2, 1, 4])])
}

#[test]
fn parts_and_joins() -> Result<(), Diag> {
    let mut r = Random(4000);
    for axis in 0..2 {
        let mut parts = Vec::new();
        for n in [2, 0, 3] {
            let mut shape = [2, 4];
            shape[axis] = n;
            parts.push(Some(r.some(&shape)?));
        }
        check(&mut r, Concat { axis }, &parts)?;
    }
    let x = r.some(&[3, 7])?;
    check(&mut r, Split { axis: 1, parts: 3 }, &[Some(x.clone())])?;
    check(&mut r, Split { axis: 1, parts: 2 }, &[Some(x.clone()), ints(&[2, 5])])?;
    check(&mut r, Tile {}, &[Some(x.clone()), ints(&[2, 3])])?;
    check(&mut r, Trilu { upper: true }, &[Some(x.clone())])?;
    check(&mut r, Trilu { upper: false }, &[Some(x.clone()), Some(Tensor::scalar_i64(1))])?;
    check(&mut r, ReverseSequence { batch_axis: 0, time_axis: 1 }, &[Some(x.clone()), ints(&[1, 7, 4])])?;
    for mode in [PadMode::Constant, PadMode::Edge, PadMode::Reflect, PadMode::Wrap] {
        check(&mut r, Pad { mode }, &[Some(x.clone()), ints(&[1, 2, 0, 3])])?;
        check(&mut r, Pad { mode }, &[Some(x.clone()), ints(&[3, 1]), None, ints(&[-1])])?;
    }
    check(&mut r, Pad { mode: PadMode::Constant }, &[Some(x.clone()), ints(&[0, -2, 1, -1])])?;
    for (start, end, step) in [(1, 6, 1), (-2, -9, -1), (0, 100, 3), (6, 0, -2), (4, 2, 1)] {
        check(&mut r, Slice {}, &[Some(x.clone()), ints(&[start]), ints(&[end]), ints(&[1]), ints(&[step])])?;
    }
    check(&mut r, Slice {}, &[Some(x), ints(&[1, 2]), ints(&[3, 6])])
}

#[test]
fn elements_by_index() -> Result<(), Diag> {
    let mut r = Random(5000);
    let x = r.some(&[3, 4])?;
    let table = |shape: &[usize], v: &[i128]| Tensor::ints(DType::I64, shape, v.to_vec()).map(Some);
    for (axis, at) in
        [(0, table(&[], &[2])?), (1, table(&[3], &[-1, 0, 0])?), (0, table(&[2, 2], &[0, 2, 1, 2])?)]
    {
        check(&mut r, Gather { axis }, &[Some(x.clone()), at])?;
    }
    let at = table(&[2, 4], &[0, 2, 1, 1, 0, 2, 2, -1])?;
    check(&mut r, GatherElements { axis: 0 }, &[Some(x.clone()), at.clone()])?;
    check(&mut r, GatherNd { batch_dims: 0 }, &[Some(x.clone()), table(&[2, 2], &[0, 1, 2, 3])?])?;
    check(&mut r, GatherNd { batch_dims: 0 }, &[Some(x.clone()), table(&[3, 1], &[0, 2, 0])?])?;
    let new = r.some(&[2, 4])?;
    let apart = table(&[2, 4], &[0, 2, 1, 1, 1, 0, 2, -1])?;
    for reduction in [Reduction::Max, Reduction::Min] {
        let (x, new) = (r.apart(&[3, 4])?, r.floats(&[2, 4], -0.6, 0.6)?);
        let inputs = [Some(x), at.clone(), Some(new)];
        check(&mut r, ScatterElements { axis: 0, reduction }, &inputs)?;
        let (x, new) = (r.apart(&[3])?, r.apart(&[4])?);
        let inputs = [Some(x), table(&[4, 1], &[2, 0, 2, 2])?, Some(new)];
        check(&mut r, ScatterNd { reduction }, &inputs)?;
    }
    for (reduction, at) in [(Reduction::Add, at), (Reduction::None, apart)] {
        check(&mut r, ScatterElements { axis: 0, reduction }, &[Some(x.clone()), at, Some(new.clone())])?;
        check(
            &mut r,
            ScatterNd { reduction },
            &[Some(x.clone()), table(&[2, 1], &[2, 0])?, Some(new.clone())],
        )?;
    }
    for largest in [true, false] {
        let x = r.apart(&[3, 5])?;
        check(&mut r, TopK { axis: 1, largest }, &[Some(x), Some(Tensor::vec_i64(&[2]))])?;
    }
    Ok(())
}

#[test]
fn reductions() -> Result<(), Diag> {
    let mut r = Random(6000);
    for kind in ReduceKind::ALL {
        for axes in [None, Some(vec![1]), Some(vec![0, 2]), Some(vec![])] {
            for keepdims in [true, false] {
                let mut x = r.apart(&[2, 3, 2])?;
                if *kind == ReduceKind::LogSum {
                    x = r.floats(&[2, 3, 2], 0.2, 2.0)?;
                }
                let op = Reduce { kind: *kind, axes: axes.clone(), keepdims, noop_empty: true };
                check(&mut r, op, &[Some(x)])?;
            }
        }
        let op = Reduce { kind: *kind, axes: None, keepdims: false, noop_empty: false };
        let x = r.floats(&[3, 2], 0.2, 2.0)?;
        check(&mut r, op, &[Some(x), ints(&[-1])])?;
    }
    for (exclusive, reverse) in [(false, false), (true, false), (false, true), (true, true)] {
        let x = r.some(&[3, 4])?;
        let op = Cumulate { product: false, exclusive, reverse };
        check(&mut r, op, &[Some(x), Some(Tensor::scalar_i64(1))])?;
    }
    // A product with zeros in it.
    let x = Tensor::floats(DType::F64, &[2, 3], vec![0.0, 2.0, 3.0, 0.0, 0.0, 1.5])?;
    let op = Reduce { kind: ReduceKind::Prod, axes: Some(vec![1]), keepdims: false, noop_empty: true };
    check(&mut r, op, &[Some(x)])
}

#[test]
fn products() -> Result<(), Diag> {
    let mut r = Random(7000);
    for (trans_a, trans_b) in [(false, false), (true, false), (false, true), (true, true)] {
        let leads: [(&[usize], &[usize]); 4] = [(&[], &[]), (&[2], &[]), (&[2, 1], &[3]), (&[1], &[2])];
        for (lead_a, lead_b) in leads {
            let [m, k, n] = [(); 3].map(|()| 1 + r.below(4));
            let a = if trans_a { [k, m] } else { [m, k] };
            let b = if trans_b { [n, k] } else { [k, n] };
            let (a, b) = (r.some(&[lead_a, &a].concat())?, r.some(&[lead_b, &b].concat())?);
            check(&mut r, MatMul { trans_a, trans_b }, &[Some(a), Some(b)])?;
        }
    }
    for (equation, shapes) in [
        ("bij,bjk->bik", vec![vec![2, 3, 4], vec![2, 4, 2]]),
        ("ij,jk,kl->il", vec![vec![2, 3], vec![3, 4], vec![4, 2]]),
        ("ij->j", vec![vec![2, 3]]),
        ("i,j->", vec![vec![3], vec![2]]),
        ("...ij,...kj->...ik", vec![vec![2, 3, 4], vec![2, 4]]),
    ] {
        let inputs = shapes.iter().map(|s| r.some(s).map(Some)).collect::<Result<Vec<_>, _>>()?;
        check(&mut r, Einsum { equation: equation.into() }, &inputs)?;
    }
    Ok(())
}

#[test]
fn normalisations() -> Result<(), Diag> {
    let mut r = Random(8000);
    for kind in [SoftmaxKind::Softmax, SoftmaxKind::LogSoftmax, SoftmaxKind::Hardmax] {
        for axis in 0..3 {
            let x = r.apart(&[2, 3, 2])?;
            check(&mut r, Softmax { kind, axis }, &[Some(x)])?;
        }
    }
    for rms in [false, true] {
        for (axis, scale, bias) in [(2, true, true), (1, true, false), (2, false, false), (1, false, true)] {
            let x = r.some(&[2, 3, 4])?;
            let shape: &[usize] = if axis == 2 { &[4] } else { &[3, 4] };
            let scale = scale.then(|| r.some(shape)).transpose()?;
            let bias = bias.then(|| r.some(shape)).transpose()?;
            check(&mut r, LayerNorm { axis, epsilon: 1e-2, rms }, &[Some(x), scale, bias])?;
        }
    }
    Ok(())
}

#[test]
fn convolutions() -> Result<(), Diag> {
    let mut r = Random(9000);
    for round in 0..24 {
        let rank = 1 + round % 2;
        let groups = 1 + r.below(2);
        let (n, c, m) = (1 + r.below(2), 1 + r.below(2), 1 + r.below(2));
        let kernel: Vec<usize> = r.shape(rank, 3);
        let space: Vec<usize> = (0..rank).map(|_| 5 + r.below(4)).collect();
        let some =
            |r: &mut Random, most: usize| (0..rank).map(|_| 1 + r.below(most) as i64).collect::<Vec<_>>();
        let (strides, dilations) = (some(&mut r, 3), some(&mut r, 2));
        let pads: Vec<i64> = (0..2 * rank).map(|_| r.below(3) as i64).collect();
        let x = r.some(&[vec![n, groups * c], space].concat())?;
        let w = r.some(&[vec![groups * m, c], kernel.clone()].concat())?;
        let bias = r.some(&[groups * m])?;
        let auto_pad = if round % 5 == 4 { AutoPad::SameUpper } else { AutoPad::Explicit };
        let op = Conv {
            strides: strides.clone(),
            dilations: dilations.clone(),
            pads: pads.clone(),
            auto_pad,
            groups: groups as i64,
        };
        check(&mut r, op, &[Some(x.clone()), Some(w), Some(bias)])?;
        let w = r.some(&[vec![groups * c, m], kernel].concat())?;
        let bias = r.some(&[groups * m])?;
        let output_padding = strides.iter().map(|s| r.below(*s as usize) as i64).collect();
        let op = ConvTranspose { strides, dilations, pads, output_padding, groups: groups as i64 };
        check(&mut r, op, &[Some(x), Some(w), Some(bias)])?;
    }
    Ok(())
}

#[test]
fn pools() -> Result<(), Diag> {
    let mut r = Random(10_000);
    for round in 0..24 {
        let rank = 1 + round % 2;
        let kind = if round % 3 == 0 { PoolKind::Max } else { PoolKind::Average };
        let space: Vec<usize> = (0..rank).map(|_| 4 + r.below(3)).collect();
        let x = r.apart(&[vec![2, 2], space].concat())?;
        let kernel: Vec<i64> = (0..rank).map(|_| 1 + r.below(3) as i64).collect();
        let op = Pool {
            kind,
            strides: (0..rank).map(|_| 1 + r.below(2) as i64).collect(),
            dilations: vec![1; rank],
            pads: [&kernel[..], &kernel].concat().iter().map(|k| r.below(*k as usize) as i64).collect(),
            kernel,
            auto_pad: AutoPad::Explicit,
            ceil_mode: round % 4 == 1,
            count_include_pad: round % 4 > 1,
            p: 2,
            indices: (kind == PoolKind::Max && round % 2 == 0).then_some(IndexOrder::RowMajor),
        };
        check(&mut r, op, &[Some(x)])?;
    }
    Ok(())
}

#[test]
fn operations_without_a_rule_are_named() -> Result<(), Diag> {
    let mut r = Random(11_000);
    let (x, new) = (r.some(&[2, 3])?, r.some(&[1, 3])?);
    let op = Op::from(ScatterNd { reduction: Reduction::Mul });
    let at = Some(Tensor::ints(DType::I64, &[1, 1], vec![1])?);
    let seeds = [r.some(&[2, 3])?];
    let Err(d) = graph(&op, &[Some(x), at, Some(new)], &seeds, true) else { panic!("a rule for products") };
    assert_eq!(d.id, "unsupported-gradient");
    assert!(d.message.contains("scatter-nd"), "{}", d.message);
    Ok(())
}

#[test]
fn recurrent_layers() -> Result<(), Diag> {
    let mut r = Random(12_000);
    let (steps, batch, inputs, hidden) = (3, 2, 2, 2);
    for (cell, gates, activations) in [
        (Cell::Rnn, 1, vec![Activation::Tanh]),
        (Cell::Gru, 3, vec![Activation::Sigmoid, Activation::Tanh]),
        (Cell::Lstm, 4, vec![Activation::Sigmoid, Activation::Tanh, Activation::Softsign]),
        (Cell::Lstm, 4, vec![Activation::HardSigmoid, Activation::Elu, Activation::ScaledTanh]),
    ] {
        for (round, direction) in
            [Direction::Forward, Direction::Reverse, Direction::Both].into_iter().enumerate()
        {
            let dirs = if direction == Direction::Both { 2 } else { 1 };
            let op = Recurrent {
                cell,
                direction,
                activations: activations.repeat(dirs),
                alpha: activations.repeat(dirs).iter().map(|a| a.defaults().0).collect(),
                beta: activations.repeat(dirs).iter().map(|a| a.defaults().1).collect(),
                clip: (round == 1).then_some(3.0),
                linear_before_reset: round == 2,
                input_forget: round == 1,
            };
            let mut args = vec![
                Some(r.some(&[steps, batch, inputs])?),
                Some(r.some(&[dirs, gates * hidden, inputs])?),
                Some(r.some(&[dirs, gates * hidden, hidden])?),
            ];
            if round > 0 {
                args.push(Some(r.some(&[dirs, 2 * gates * hidden])?));
                args.push(Some(Tensor::ints(DType::I32, &[batch], vec![3, 1])?));
                args.push(Some(r.some(&[dirs, batch, hidden])?));
            }
            if round > 0 && cell == Cell::Lstm {
                args.push(Some(r.some(&[dirs, batch, hidden])?));
                args.push(Some(r.some(&[dirs, 3 * hidden])?));
            }
            check(&mut r, op, &args)?;
        }
    }
    Ok(())
}
