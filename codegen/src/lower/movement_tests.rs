//! Lowered data movement, indexing and reductions against the graph interpreter, with operands known as constants, by
//! their dims, and by their ranks only.

use crate::engine::KernelInterpreter;
use crate::kernel::TargetSpec;
use planish_ir::op::concat::{Concat, Pad, PadMode, Split, Tile};
use planish_ir::op::gather::{Gather, GatherElements, GatherNd};
use planish_ir::op::reduce::{Reduce, ReduceKind};
use planish_ir::op::scatter::{Reduction, ScatterElements, ScatterNd, TensorScatter};
use planish_ir::op::select::ReverseSequence;
use planish_ir::op::slice::Slice;
use planish_ir::op::views::{Expand, Flatten, Transpose};
use planish_ir::{
    DType, Diag, Dim, Editor, Engine, Graph, Op, PrepareOptions, Tensor, TensorType, Type, Value, interp,
};

#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Known {
    /// Integers are constants.
    Integers,
    /// Dims are numbers.
    Dims,
    /// Dims are symbols.
    Ranks,
}

/// Runs one operation lowered and interpreted.
pub(super) fn agree(op: impl Into<Op>, inputs: &[Tensor]) -> Result<(), Diag> {
    let op = op.into();
    for known in [Known::Integers, Known::Dims, Known::Ranks] {
        agree_knowing(&op, inputs, known)?;
    }
    Ok(())
}

fn agree_knowing(op: &Op, inputs: &[Tensor], known: Known) -> Result<(), Diag> {
    let mut graph = Graph::new("test");
    let mut e = Editor::new(&mut graph);
    let (mut operands, mut args) = (Vec::new(), Vec::new());
    for (i, t) in inputs.iter().enumerate() {
        if known == Known::Integers && t.dtype() == DType::I64 && i > 0 {
            operands.push(Some(e.constant(t.clone())?));
            continue;
        }
        let mut ty = t.ty();
        if known == Known::Ranks && t.dtype() != DType::I64 {
            let dims = (0..t.rank()).map(|a| Dim::from(e.graph_mut().symbols.named(&format!("n{i}_{a}"))));
            ty = TensorType::new(t.dtype(), dims.collect());
        }
        operands.push(Some(e.input(&format!("x{i}"), Type::from(ty))));
        args.push(Value::from(t.clone()));
    }
    let results = e.node(op.clone(), &operands)?;
    for v in &results {
        e.output(*v, None);
    }
    let want = interp::run(&graph, args.clone())?.values;
    for target in [TargetSpec::generic128(), TargetSpec::x86_64_v4(), TargetSpec::nvptx(80)] {
        let engine = KernelInterpreter { target };
        let program = engine.prepare(&graph, &PrepareOptions::default()).map_err(|mut d| d.swap_remove(0))?;
        let given: Vec<_> = args.iter().cloned().map(Some).collect();
        let got = program.session()?.run(&given)?.values;
        for (g, w) in got.iter().zip(&want) {
            let (g, w) = (g.tensor()?, w.tensor()?);
            assert_eq!((g.dtype(), g.shape()), (w.dtype(), w.shape()), "{op:?} {known:?}");
            for (x, y) in g.to_f64().iter().zip(w.to_f64()) {
                let near = (x - y).abs() <= 1e-5 * y.abs().max(1.0);
                assert!(near || *x == y || x.is_nan() && y.is_nan(), "{op:?} {known:?}: {x} is not {y}");
            }
        }
    }
    Ok(())
}

pub(super) fn f(shape: &[usize]) -> Tensor {
    let n: usize = shape.iter().product();
    let v: Vec<f32> = (0..n).map(|i| (i as f32 * 0.7).sin() * 4.0).collect();
    Tensor::f32s(shape, &v).unwrap_or_else(|d| panic!("{d}"))
}

pub(super) fn i(shape: &[usize], v: &[i64]) -> Tensor {
    Tensor::vec_i64(v).reshaped(shape).unwrap_or_else(|d| panic!("{d}"))
}

pub(super) fn of(d: DType, shape: &[usize], v: &[i128]) -> Tensor {
    Tensor::ints(d, shape, v.to_vec()).unwrap_or_else(|d| panic!("{d}"))
}

#[test]
fn axes_are_rearranged() -> Result<(), Diag> {
    for perm in [vec![0, 2, 1, 3], vec![3, 2, 1, 0], vec![0, 2, 3, 1], vec![1, 0, 2, 3]] {
        agree(Transpose { perm: perm.clone() }, &[f(&[2, 3, 17, 5])])?;
        agree(Transpose { perm }, &[of(DType::I8, &[1, 2, 2, 3], &(0..12).collect::<Vec<_>>())])?;
    }
    agree(Transpose { perm: vec![1, 0] }, &[f(&[40, 0])])?;
    agree(Flatten { axis: 2 }, &[f(&[2, 3, 4])])?;
    agree(Expand {}, &[f(&[3, 1]), i(&[3], &[2, 1, 20])])?;
    agree(Expand {}, &[f(&[]), i(&[2], &[2, 3])])
}

#[test]
fn blocks_are_joined_and_cut() -> Result<(), Diag> {
    agree(Concat { axis: 1 }, &[f(&[2, 3, 2]), f(&[2, 0, 2]), f(&[2, 19, 2])])?;
    agree(Concat { axis: 0 }, &[f(&[3]), f(&[1])])?;
    agree(Split { axis: 1, parts: 3 }, &[f(&[2, 8, 3])])?;
    agree(Split { axis: 0, parts: 2 }, &[f(&[5, 3]), i(&[2], &[1, 4])])?;
    agree(Split { axis: 1, parts: 2 }, &[f(&[2, 5]), i(&[2], &[5, 0])])?;
    agree(Tile {}, &[f(&[2, 1, 3]), i(&[3], &[2, 3, 2])])?;
    agree(Tile {}, &[f(&[2]), i(&[1], &[0])])
}

#[test]
fn slices_follow_the_interpreter() -> Result<(), Diag> {
    let x = f(&[4, 20]);
    let big = i64::MAX;
    for (s, e, k) in [
        ([1, 2], [3, 17], [1, 1]),
        ([-3, -1], [big, 0], [2, -3]),
        ([0, 0], [0, big], [1, 1]),
        ([3, 100], [i64::MIN, i64::MIN], [-1, -1]),
        ([0, 5], [big, -5], [i64::MAX, 4]),
    ] {
        agree(Slice {}, &[x.clone(), i(&[2], &s), i(&[2], &e), i(&[2], &[0, -1]), i(&[2], &k)])?;
    }
    agree(Slice {}, &[x.clone(), i(&[1], &[1]), i(&[1], &[3])])?;
    agree(Slice {}, &[f(&[0, 3]), i(&[1], &[-1]), i(&[1], &[i64::MIN]), i(&[1], &[0]), i(&[1], &[-1])])
}

#[test]
fn pads_follow_the_interpreter() -> Result<(), Diag> {
    let x = f(&[3, 4]);
    for mode in [PadMode::Constant, PadMode::Reflect, PadMode::Edge, PadMode::Wrap] {
        agree(Pad { mode }, &[x.clone(), i(&[4], &[1, 2, 0, 3])])?;
        agree(Pad { mode }, &[x.clone(), i(&[4], &[-1, 0, 2, -2])])?;
        agree(Pad { mode }, &[f(&[1]), i(&[2], &[3, 3])])?;
    }
    let value = f(&[1]);
    agree(Pad { mode: PadMode::Constant }, &[x, i(&[2], &[2, 1]), value, i(&[1], &[-1])])
}

#[test]
fn elements_are_gathered() -> Result<(), Diag> {
    let x = f(&[3, 4, 5]);
    for axis in 0..3 {
        agree(Gather { axis }, &[x.clone(), i(&[2, 2], &[0, -1, 2, 1])])?;
    }
    agree(Gather { axis: 0 }, &[f(&[3]), of(DType::I32, &[], &[-2])])?;
    agree(GatherElements { axis: 1 }, &[x.clone(), i(&[2, 2, 5], &[0; 20])])?;
    agree(GatherElements { axis: 2 }, &[f(&[2, 3]).reshaped(&[1, 2, 3])?, i(&[1, 2, 2], &[2, -3, 0, 1])])?;
    agree(GatherNd { batch_dims: 0 }, &[x.clone(), i(&[2, 2], &[0, 1, -1, -1])])?;
    agree(GatherNd { batch_dims: 0 }, &[x.clone(), i(&[2, 3], &[0, 1, 2, -1, -1, -1])])?;
    agree(GatherNd { batch_dims: 1 }, &[x, i(&[3, 1], &[3, 0, -1])])?;
    agree(ReverseSequence { batch_axis: 0, time_axis: 1 }, &[f(&[2, 4, 3]), i(&[2], &[1, 4])])?;
    let bad = agree(Gather { axis: 0 }, &[f(&[3]), i(&[1], &[3])]);
    assert_eq!(bad.err().map(|d| d.id), Some("index-out-of-range"));
    Ok(())
}

#[test]
fn elements_are_scattered() -> Result<(), Diag> {
    let x = f(&[3, 4]);
    for reduction in [Reduction::None, Reduction::Add, Reduction::Mul, Reduction::Min, Reduction::Max] {
        let at = i(&[2, 2], &[0, 3, 1, -3]);
        agree(ScatterElements { axis: 1, reduction }, &[x.clone(), at, f(&[2, 2])])?;
        agree(ScatterNd { reduction }, &[x.clone(), i(&[3, 1], &[0, 2, 0]), f(&[3, 4])])?;
        agree(ScatterNd { reduction }, &[x.clone(), i(&[2, 2], &[0, 2, -1, 1]), f(&[2])])?;
    }
    agree(TensorScatter { axis: 1, circular: true }, &[f(&[2, 5]), f(&[2, 3]), i(&[2], &[4, 1])])?;
    agree(TensorScatter { axis: 1, circular: false }, &[f(&[2, 5, 2]), f(&[2, 3, 2])])
}

#[test]
fn reductions_follow_the_interpreter() -> Result<(), Diag> {
    for kind in ReduceKind::ALL {
        for keepdims in [true, false] {
            for axes in [None, Some(vec![0]), Some(vec![1]), Some(vec![2]), Some(vec![0, 2]), Some(vec![])] {
                let op = Reduce { kind: *kind, axes, keepdims, noop_empty: false };
                let mut x = f(&[3, 4, 21]);
                if *kind == ReduceKind::LogSum {
                    x = Tensor::f32s(
                        &[3, 4, 21],
                        &x.to_f64().iter().map(|v| v.abs() as f32).collect::<Vec<_>>(),
                    )?;
                }
                agree(op.clone(), &[x])?;
                agree(op, &[f(&[2, 0, 3])])?;
            }
            let op = Reduce { kind: *kind, axes: None, keepdims, noop_empty: true };
            agree(op.clone(), &[f(&[2, 3, 4]), i(&[2], &[-1, 0])])?;
            agree(op, &[f(&[2, 3]), i(&[0], &[])])?;
        }
        if !matches!(kind, ReduceKind::LogSumExp | ReduceKind::LogSum) {
            for d in [DType::I8, DType::U8, DType::I32, DType::I64] {
                let op = Reduce { kind: *kind, axes: Some(vec![1]), keepdims: false, noop_empty: false };
                let v: Vec<i128> = (0..40).map(|v| v * 7 % 100).collect();
                agree(op, &[of(d, &[2, 20], &v)])?;
            }
        }
    }
    Ok(())
}

#[test]
fn lines_follow_the_interpreter() -> Result<(), Diag> {
    use planish_ir::op::reduce::Cumulate;
    use planish_ir::op::sort::{ArgReduce, TopK};
    let mut x = f(&[3, 5, 2]);
    let ties = Tensor::f32s(&[2, 4], &[1.0, 3.0, 3.0, f32::NAN, -1.0, -1.0, f32::NAN, f32::NAN])?;
    for flags in 0..8 {
        let (p, q, r) = (flags & 1 != 0, flags & 2 != 0, flags & 4 != 0);
        for axis in 0..3 {
            agree(ArgReduce { largest: p, axis, keepdims: q, last: r }, &[x.clone()])?;
            agree(
                Cumulate { product: p, exclusive: q, reverse: r },
                &[x.clone(), i(&[], &[axis as i64 - 3])],
            )?;
        }
        agree(ArgReduce { largest: p, axis: 1, keepdims: q, last: r }, std::slice::from_ref(&ties))?;
        agree(TopK { axis: 1, largest: p }, &[ties.clone(), i(&[1], &[3])])?;
        agree(TopK { axis: 1, largest: p }, &[x.clone(), i(&[1], &[flags % 5])])?;
        x = Tensor::floats(DType::F16, x.shape(), x.to_f64())?;
    }
    let u = of(DType::U8, &[4], &[200, 3, 255, 3]);
    agree(TopK { axis: 0, largest: true }, &[u.clone(), i(&[1], &[4])])?;
    agree(Cumulate { product: true, exclusive: false, reverse: false }, &[u, i(&[], &[0])])
}

#[test]
fn tensors_are_generated() -> Result<(), Diag> {
    use planish_ir::op::generate::{EyeLike, OneHot, Range, Trilu};
    use planish_ir::op::select::{Compress, NonZero};
    for (s, e, k) in [(1, 10, 3), (5, -7, -4), (3, 3, 1), (0, 5, -1)] {
        agree(Range {}, &[i(&[], &[s]), i(&[], &[e]), i(&[], &[k])])?;
        let v = |x: i64| Tensor::f32s(&[], &[x as f32 * 0.5]);
        agree(Range {}, &[v(s)?, v(e)?, v(k)?])?;
    }
    for k in [-1, 0, 2, 100] {
        agree(EyeLike { dtype: DType::F16, k }, &[f(&[3, 4])])?;
        for upper in [true, false] {
            agree(Trilu { upper }, &[f(&[2, 3, 4]), i(&[], &[k])])?;
        }
    }
    agree(Trilu { upper: true }, &[f(&[3, 3])])?;
    agree(OneHot { axis: 1 }, &[i(&[3, 2], &[0, 1, -1, 5, 2, -9]), i(&[], &[4]), f(&[2])])?;
    agree(OneHot { axis: 0 }, &[f(&[3]), i(&[1], &[3]), i(&[2], &[7, 8])])?;
    agree(NonZero {}, &[of(DType::I8, &[2, 3], &[0, 1, 2, 0, 0, 3])])?;
    agree(NonZero {}, &[f(&[0, 3])])?;
    agree(Compress { axis: Some(1) }, &[f(&[2, 4, 3]), of(DType::Bool, &[3], &[1, 0, 1])])?;
    agree(Compress { axis: None }, &[f(&[2, 4]), of(DType::Bool, &[8], &[1, 0, 1, 1, 0, 0, 0, 1])])
}

#[test]
fn sums_of_products_follow_the_interpreter() -> Result<(), Diag> {
    use planish_ir::op::einsum::Einsum;
    let e = |s: &str| Einsum { equation: s.into() };
    agree(e("bij,bjk->bik"), &[f(&[2, 3, 4]), f(&[2, 4, 5])])?;
    agree(e("...ii->...i"), &[f(&[2, 3, 3])])?;
    agree(e("ij->"), &[f(&[3, 5])])?;
    agree(e("...ij,...jk"), &[f(&[2, 1, 3, 4]), f(&[5, 4, 2])])?;
    agree(e("i,j,k->kij"), &[f(&[2]), f(&[3]), f(&[4])])?;
    agree(e("ij,ij->i"), &[of(DType::I32, &[2, 2], &[1, 2, 3, 4]), of(DType::I32, &[2, 2], &[5, 6, 7, 8])])
}

#[test]
fn signals_follow_the_interpreter() -> Result<(), Diag> {
    use planish_ir::op::matmul::Det;
    use planish_ir::op::random::Random;
    use planish_ir::op::signal::{Dft, SignalWindow, Stft, WindowKind};
    agree(Det {}, &[f(&[2, 4, 4])])?;
    agree(Det {}, &[Tensor::f32s(&[2, 2], &[0.0, 0.0, 1.0, 2.0])?])?;
    for inverse in [false, true] {
        for onesided in [false, true] {
            let op = Dft { inverse, onesided };
            for x in [f(&[2, 7, 2]), f(&[1, 6, 1])] {
                agree_knowing(&op.clone().into(), std::slice::from_ref(&x), Known::Dims)?;
                agree_knowing(&op.clone().into(), &[x, i(&[], &[8]), i(&[], &[1])], Known::Integers)?;
            }
        }
    }
    let frames = [f(&[2, 20, 1]), i(&[], &[3]), f(&[8])];
    agree_knowing(&Stft { onesided: true }.into(), &frames, Known::Integers)?;
    for kind in [WindowKind::Blackman, WindowKind::Hamming, WindowKind::Hann] {
        for periodic in [false, true] {
            for n in [0, 1, 9] {
                agree(SignalWindow { kind, periodic, dtype: DType::F32 }, &[i(&[], &[n])])?;
            }
        }
    }
    let mel = planish_ir::op::signal::MelWeights { dtype: DType::F32 };
    let edges = [Tensor::f32s(&[], &[20.0])?, Tensor::f32s(&[], &[3800.0])?];
    let [low, high] = edges;
    agree(mel, &[i(&[], &[8]), i(&[], &[64]), i(&[], &[8192]), low, high])?;
    for normal in [false, true] {
        // With a seed, and with the first number of the stream of a session, both draw the same numbers.
        for seed in [Some(5), None] {
            let op = Random { dtype: DType::F32, normal, a: -1.0, b: 2.0, seed };
            agree(op.clone(), &[i(&[2], &[3, 40])])?;
            for given in [0, -9] {
                agree(op.clone(), &[i(&[2], &[3, 40]), i(&[], &[given])])?;
            }
        }
    }
    Ok(())
}

#[test]
fn gates_that_draw_follow_the_interpreter() -> Result<(), Diag> {
    use planish_ir::op::detach::Detach;
    use planish_ir::op::stochastic::{Estimator, GateKind, StochasticGate};
    let numbers = |low: f32, step: f32| {
        let v: Vec<f32> = (0..60).map(|i| low + step * (i * 7 % 60) as f32).collect();
        Tensor::f32s(&[12, 5], &v)
    };
    let (a, u) = (numbers(-3.0, 0.101)?, numbers(0.0, 1.0 / 59.0)?);
    for kind in &GateKind::ALL[1..] {
        agree(StochasticGate::new(*kind), &[a.clone(), u.clone()])?;
    }
    agree(StochasticGate::binary(Estimator::Identity), &[a.clone(), u.clone()])?;
    let t = Tensor::f32s(&[], &[0.5])?;
    for kind in [GateKind::Sigmoid, GateKind::Softmax] {
        let hard = StochasticGate { estimator: Estimator::StraightThrough, ..StochasticGate::new(kind) };
        agree(hard, &[a.clone(), u.clone(), t.clone()])?;
    }
    agree(Detach {}, &[a])?;
    agree(Detach {}, &[i(&[3], &[1, 2, 3])])
}
