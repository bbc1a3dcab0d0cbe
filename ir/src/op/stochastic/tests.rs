//! Moments of what gates draw, their estimators, and their parts.

use super::*;
use crate::editor::Editor;
use crate::graph::{Graph, NodeId};
use crate::op::checked::{f, fails, try_run};
use crate::op::composites::expand_composites;
use crate::op::gradient::sweep;
use crate::op::random::{stream, unit};
use crate::{interp, verify};

/// Samples of a moment.
const MANY: usize = 1_000_000;

fn f64s(shape: &[usize], v: Vec<f64>) -> Result<Tensor, Diag> {
    Tensor::floats(DType::F64, shape, v)
}

fn noise(seed: u64, shape: &[usize]) -> Result<Tensor, Diag> {
    let n: usize = shape.iter().product();
    f64s(shape, (0..n as u64).map(|i| unit(stream(seed, i))).collect())
}

fn filled(shape: &[usize], x: f64) -> Result<Tensor, Diag> {
    f64s(shape, vec![x; shape.iter().product()])
}

/// A graph of the gate alone with its operands as inputs; with seeds also of its gradients by what comes in and by the temperature.
fn graph(op: &StochasticGate, inputs: &[Tensor], seeds: bool) -> Result<Graph, Diag> {
    let mut g = Graph::new("gate");
    let mut ed = Editor::new(&mut g);
    let v: Vec<_> =
        inputs.iter().enumerate().map(|(i, t)| ed.input(&format!("x{i}"), Type::from(t.ty()))).collect();
    let h = ed.node1(op.clone(), &v)?;
    ed.output(h, None);
    if seeds {
        let dy = ed.input("dy", Type::from(inputs[0].ty()));
        let nodes: Vec<NodeId> = ed.graph().nodes_in(ed.graph().root()).collect();
        let wanted: Vec<_> = v.iter().enumerate().filter(|(i, _)| *i != 1).map(|(_, v)| *v).collect();
        for (d, v) in sweep(&mut ed, &nodes, &[(h, dy)], &wanted)?.into_iter().zip(&wanted) {
            let none = crate::op::build::Build::new(&mut ed, "test").zeros(*v)?;
            ed.output(d.unwrap_or(none), None);
        }
    }
    assert_eq!(verify::verify(&g), []);
    Ok(g)
}

fn run(g: &Graph, inputs: &[Tensor]) -> Result<Vec<Vec<f64>>, Diag> {
    let values = interp::run(g, inputs.iter().map(|t| Value::from(t.clone())).collect())?.values;
    values.iter().map(|v| Ok(v.tensor()?.to_f64())).collect()
}

fn forward(op: &StochasticGate, inputs: &[Tensor]) -> Result<Vec<f64>, Diag> {
    Ok(run(&graph(op, inputs, false)?, inputs)?.swap_remove(0))
}

/// Results, and the gradients of the sum of results times `dy`.
fn backward(op: &StochasticGate, inputs: &[Tensor], dy: &Tensor) -> Result<Vec<Vec<f64>>, Diag> {
    let mut all = inputs.to_vec();
    all.push(dy.clone());
    run(&graph(op, inputs, true)?, &all)
}

/// Mean and standard deviation.
fn moments(v: &[f64]) -> (f64, f64) {
    let n = v.len() as f64;
    let mean = v.iter().sum::<f64>() / n;
    (mean, (v.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / n).sqrt())
}

/// The mean of numbers is this one within four of its deviations, or a little more.
fn near(what: &str, v: &[f64], want: f64, more: f64) {
    let (mean, sd) = moments(v);
    let limit = 4.0 * sd / (v.len() as f64).sqrt() + more;
    assert!((mean - want).abs() <= limit, "{what}: {mean}, not {want} within {limit}");
}

fn above(v: &[f64], bar: f64) -> Vec<f64> {
    v.iter().map(|x| f64::from(*x > bar)).collect()
}

#[test]
fn draws_have_their_moments() -> Result<(), Diag> {
    use GateKind::*;
    let u = noise(1, &[MANY])?;
    for a in [-2.2, 0.0, 1.5] {
        let p = sigmoid(a);
        let given = filled(&[MANY], a)?;
        let draw = |op: StochasticGate| forward(&op, &[given.clone(), u.clone()]);
        let h = draw(StochasticGate::binary(Estimator::Identity))?;
        near("binary", &h, p, 0.0);
        assert!(h.iter().all(|h| *h == 0.0 || *h == 1.0));
        let h = draw(StochasticGate::new(Smooth))?;
        near("smooth", &h, p, 0.0);
        near("smooth above 0", &above(&h, 0.0), p.sqrt(), 0.0);
        let h = draw(StochasticGate::new(Logistic))?;
        near("logistic", &h, a.exp().ln_1p(), 1e-6);
        near("logistic above 0", &above(&h, 0.0), p, 0.0);
        for sd in [1.0, 0.5] {
            let h = draw(StochasticGate { sd, ..StochasticGate::new(Gaussian) })?;
            let share = 0.5 * (1.0 + crate::op::unary::erf(a / sd / std::f64::consts::SQRT_2));
            let bell = (-0.5 * (a / sd) * (a / sd)).exp() / std::f64::consts::TAU.sqrt();
            near("gaussian", &h, a * share + sd * bell, 1e-6);
            near("gaussian above 0", &above(&h, 0.0), share, 1e-6);
        }
        let hard = StochasticGate { estimator: Estimator::StraightThrough, ..StochasticGate::new(Sigmoid) };
        let h = draw(hard)?;
        near("gumbel-sigmoid, hard", &h, p, 0.0);
        // At temperature 1 the odds are those of the noise times e^a.
        let h = draw(StochasticGate::new(Sigmoid))?;
        let r = f64::exp(a);
        let want = if a == 0.0 { 0.5 } else { r / (r - 1.0) - r * a / ((r - 1.0) * (r - 1.0)) };
        near("gumbel-sigmoid", &h, want, 1e-6);
        near("gumbel-sigmoid above 1/2", &above(&h, 0.5), p, 0.0);
    }
    Ok(())
}

#[test]
fn gumbel_draws_follow_the_softmax() -> Result<(), Diag> {
    let (n, a): (usize, [f64; 5]) = (100_000, [0.3, -1.0, 1.2, 0.0, -0.4]);
    let total: f64 = a.iter().map(|a| a.exp()).sum();
    let p = a.map(|a| a.exp() / total);
    let logits = f64s(&[n, 5], a.repeat(n))?;
    let u = noise(2, &[n, 5])?;
    let op = StochasticGate::new(GateKind::Softmax);
    let hard = StochasticGate { estimator: Estimator::StraightThrough, ..op.clone() };
    let hot = forward(&hard, &[logits.clone(), u.clone()])?;
    let mut counts = [0.0; 5];
    for row in hot.chunks_exact(5) {
        assert_eq!(row.iter().sum::<f64>(), 1.0);
        row.iter().zip(&mut counts).for_each(|(x, c)| *c += x);
    }
    let expected = p.map(|p| p * n as f64);
    let chi: f64 = counts.iter().zip(&expected).map(|(c, e)| (c - e) * (c - e) / e).sum();
    // Of 4 degrees of freedom this is exceeded once in a thousand.
    assert!(chi < 18.47, "{chi}: {counts:?} for {expected:?}");
    for (class, p) in p.iter().enumerate() {
        let own: Vec<f64> = hot.iter().skip(class).step_by(5).copied().collect();
        near("hard sample", &own, *p, 0.0);
    }
    // The first maximum of what is soft is the hard one, at any temperature.
    for t in [1.0, 0.1] {
        let soft = forward(&op, &[logits.clone(), u.clone(), filled(&[], t)?])?;
        for (row, hot) in soft.chunks_exact(5).zip(hot.chunks_exact(5)) {
            assert!((row.iter().sum::<f64>() - 1.0).abs() < 1e-12);
            let best = row.iter().copied().fold(0.0, f64::max);
            let at = hot.iter().position(|x| *x == 1.0).unwrap_or(9);
            assert_eq!(row[at], best);
        }
    }
    // The ends of the noise give finite results and gradients.
    let ends = f64s(&[2, 5], vec![0.0, 1.0, 0.5, 1.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.3])?;
    let inputs = [f64s(&[2, 5], a.repeat(2))?, ends.clone(), filled(&[], 0.1)?];
    for op in [op, hard] {
        let got = backward(&op, &inputs, &ends)?;
        assert!(got.iter().flatten().all(|x| x.is_finite()), "{got:?}");
    }
    Ok(())
}

/// Mean and deviation of the estimates of d/da E[(h - 0.45)^2].
fn toy(op: &StochasticGate, a: f64, u: &Tensor, t: Option<f64>) -> Result<(f64, f64), Diag> {
    let shape = u.shape().to_vec();
    let mut inputs = vec![filled(&shape, a)?, u.clone()];
    if let Some(t) = t {
        inputs.push(filled(&[], t)?);
    }
    let dy = forward(op, &inputs)?.iter().map(|h| 2.0 * (h - 0.45)).collect();
    let got = backward(op, &inputs, &f64s(&shape, dy)?)?;
    Ok(moments(&got[1]))
}

#[test]
fn estimates_have_their_means_and_deviations() -> Result<(), Diag> {
    use Estimator::*;
    let u = noise(3, &[MANY / 4])?;
    let close = |what: &str, a: f64, (mean, sd): (f64, f64), want: (f64, f64)| {
        let limit = 4.0 * want.1 / (u.len() as f64).sqrt() + 6e-4;
        assert!((mean - want.0).abs() < limit, "{what} at {a}: mean {mean}, not {}", want.0);
        assert!((sd - want.1).abs() < 0.01 * want.1 + 6e-4, "{what} at {a}: deviation {sd}, not {}", want.1);
    };
    for a in [0.0, -2.2] {
        let s = sigmoid(a);
        let slope = s * (1.0 - s);
        let truth = slope * 0.1;
        // Of a binary unit: slopes at 1 and at 0.
        let two =
            |one: f64, zero: f64| (s * one + (1.0 - s) * zero, (s * (1.0 - s)).sqrt() * (one - zero).abs());
        for (estimator, want) in [
            (Identity, two(1.1, -0.9)),
            (SigmoidDeriv, two(1.1 * slope, -0.9 * slope)),
            (Masked, two(1.1, 0.0)),
            (Reinforce, (0.0, 0.0)),
        ] {
            let got = toy(&StochasticGate::binary(estimator), a, &u, None)?;
            close(estimator.name(), a, got, want);
        }
        let h = forward(&StochasticGate::binary(Reinforce), &[filled(u.shape(), a)?, u.clone()])?;
        let reinforce = |base: f64| -> Vec<f64> {
            h.iter().map(|h| (h - s) * ((h - 0.45) * (h - 0.45) - base)).collect()
        };
        let (one, zero) = (0.55 * 0.55, 0.45 * 0.45);
        close("reinforce", a, moments(&reinforce(0.0)), two((1.0 - s) * one, -s * zero));
        // With the baseline of least variance there is none at all.
        let weights: Vec<f64> = h.iter().map(|h| (h - s) * (h - s)).collect();
        assert!(weights.iter().sum::<f64>() > 0.0);
        let best = (1.0 - s) * one + s * zero;
        assert!(reinforce(best).iter().all(|x| (x - truth).abs() < 1e-15));
        let root = s.sqrt();
        let part = (root - 0.45) * root * (1.0 - s);
        let smooth = toy(&StochasticGate::new(GateKind::Smooth), a, &u, None)?;
        close("smooth", a, smooth, (root * part, (root * (1.0 - root)).sqrt() * part.abs()));
        let gumbel = |t: f64| toy(&StochasticGate::new(GateKind::Sigmoid), a, &u, Some(t));
        let all = [gumbel(1.0)?, gumbel(0.5)?, gumbel(0.1)?];
        for pair in all.windows(2) {
            assert!((pair[1].0 - truth).abs() < (pair[0].0 - truth).abs(), "at {a}: {all:?}");
            assert!(pair[1].1 > pair[0].1, "at {a}: {all:?}");
        }
        let means = if a == 0.0 { [0.0167, 0.0214, 0.0241] } else { [-0.032, -0.022, 0.002] };
        for (got, want) in all.iter().zip(means) {
            assert!((got.0 - want).abs() < 1e-3 + 4.0 * got.1 / 500.0, "at {a}: {all:?}");
        }
    }
    Ok(())
}

#[test]
fn derivatives_agree_with_differences() -> Result<(), Diag> {
    use GateKind::*;
    let a = f64s(&[3, 4], (0..12).map(|i| f64::from(i) * 0.37 - 2.0).collect())?;
    let (u, dy) = (noise(4, &[3, 4])?, noise(5, &[3, 4])?);
    let near = |got: f64, want: f64| (got - want).abs() < 1e-7 * (1.0 + want.abs());
    for kind in [Smooth, Gaussian, Logistic, Sigmoid, Softmax] {
        let op = StochasticGate::new(kind);
        let mut inputs = vec![a.clone(), u.clone()];
        if op.is_gumbel() {
            inputs.push(filled(&[], 0.7)?);
        }
        let got = backward(&op, &inputs, &dy)?;
        let loss = |i: usize, k: usize, by: f64| -> Result<f64, Diag> {
            let mut moved = inputs.clone();
            let mut v = moved[i].to_f64();
            v[k] += by;
            moved[i] = f64s(inputs[i].shape(), v)?;
            Ok(forward(&op, &moved)?.iter().zip(dy.to_f64()).map(|(h, d)| h * d).sum())
        };
        for (i, got) in [0, 2].into_iter().zip(&got[1..]) {
            for (k, got) in got.iter().enumerate() {
                let want = (loss(i, k, 1e-6)? - loss(i, k, -1e-6)?) / 2e-6;
                assert!(near(*got, want), "{kind:?}: operand {i}, element {k}: {got}, not {want}");
            }
        }
        // What is hard goes back as what is soft does.
        if op.is_gumbel() {
            let hard = StochasticGate { estimator: Estimator::StraightThrough, ..op };
            assert_eq!(backward(&hard, &inputs, &dy)?[1..], got[1..]);
        }
    }
    Ok(())
}

#[test]
fn estimators_are_their_formulas() -> Result<(), Diag> {
    let (a, u, dy) = ([0.4, -0.3, 2.0, -2.0], [0.5, 0.6, 0.95, 0.01], [1.0, -2.0, 3.0, 0.5]);
    let inputs = [f64s(&[4], a.to_vec())?, f64s(&[4], u.to_vec())?];
    let h = [1.0, 0.0, 0.0, 1.0];
    for estimator in [Estimator::Identity, Estimator::SigmoidDeriv, Estimator::Masked, Estimator::Reinforce] {
        let got = backward(&StochasticGate::binary(estimator), &inputs, &f64s(&[4], dy.to_vec())?)?;
        assert_eq!(got[0], h);
        for i in 0..4 {
            let s = sigmoid(a[i]);
            let want = dy[i]
                * match estimator {
                    Estimator::Identity => 1.0,
                    Estimator::SigmoidDeriv => s * (1.0 - s),
                    Estimator::Masked => h[i],
                    _ => 0.0,
                };
            assert!((got[1][i] - want).abs() < 1e-15, "{estimator:?}: {got:?}");
        }
    }
    Ok(())
}

#[test]
fn parts_give_the_same() -> Result<(), Diag> {
    let mut gates: Vec<StochasticGate> = GateKind::ALL[1..].iter().map(|k| StochasticGate::new(*k)).collect();
    gates.push(StochasticGate::binary(Estimator::Masked));
    gates.push(StochasticGate { sd: 0.25, ..StochasticGate::new(GateKind::Gaussian) });
    for kind in [GateKind::Sigmoid, GateKind::Softmax] {
        gates.push(StochasticGate { estimator: Estimator::StraightThrough, ..StochasticGate::new(kind) });
    }
    for op in gates {
        for (dtype, limit) in [(DType::F64, 1e-12), (DType::F32, 1e-5), (DType::F16, 2e-3)] {
            let of = |v: Vec<f64>| Tensor::floats(dtype, &[16, 5], v);
            let mut u = noise(6, &[16, 5])?.to_f64();
            u[..2].copy_from_slice(&[0.0, 1.0]);
            let a = (0..80).map(|i| f64::from(i % 13) * 0.5 - 3.0).collect();
            let mut inputs = vec![of(a)?, of(u)?];
            if op.is_gumbel() {
                inputs.push(Tensor::scalar(dtype, 0.5)?);
            }
            let mut g = graph(&op, &inputs, false)?;
            let want = run(&g, &inputs)?;
            let count = expand_composites(&mut Editor::new(&mut g), false)?;
            assert_eq!(count.gates, 1);
            assert_eq!(verify::verify(&g), []);
            for (got, want) in run(&g, &inputs)?[0].iter().zip(&want[0]) {
                assert!(
                    (got - want).abs() <= limit * (1.0 + want.abs()),
                    "{op:?} {dtype}: {got}, not {want}"
                );
            }
        }
    }
    Ok(())
}

#[test]
fn what_does_not_fit_is_said() -> Result<(), Diag> {
    let (x, t) = (f(&[2, 3], &[0.5; 6]), f(&[], &[0.5]));
    let op = StochasticGate::binary(Estimator::Identity);
    for (estimator, kind, sd) in [
        (Estimator::Derivative, GateKind::Binary, 1.0),
        (Estimator::Identity, GateKind::Smooth, 1.0),
        (Estimator::StraightThrough, GateKind::Logistic, 1.0),
        (Estimator::Derivative, GateKind::Logistic, 2.0),
        (Estimator::Derivative, GateKind::Gaussian, -1.0),
    ] {
        assert_eq!(fails(StochasticGate { kind, estimator, sd }, &[x.clone(), x.clone()]), "field-invalid");
    }
    assert_eq!(fails(op.clone(), &[x.clone(), f(&[3, 2], &[0.5; 6])]), "shape-mismatch");
    assert_eq!(fails(op.clone(), &[x.clone(), f(&[6], &[0.5; 6])]), "shape-mismatch");
    assert_eq!(fails(op.clone(), &[x.clone(), x.clone(), t.clone()]), "shape-mismatch");
    assert_eq!(fails(StochasticGate::new(GateKind::Softmax), &[t.clone(), t]), "shape-mismatch");
    for kind in [GateKind::Sigmoid, GateKind::Softmax] {
        for shape in [vec![0, 3], vec![2, 0], vec![1, 1]] {
            let x = f(&shape, &vec![0.5; shape.iter().product()]);
            let y = try_run(StochasticGate::new(kind), &[Some(x.clone()), Some(x)])?;
            assert_eq!(y[0].shape(), shape);
        }
    }
    Ok(())
}
