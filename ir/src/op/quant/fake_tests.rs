//! Rounding for training: values, gradients by the formulas, parts.

use super::{Dequantize, FakeQuantize, Quantize};
use crate::diag::Diag;
use crate::dtype::DType;
use crate::editor::Editor;
use crate::graph::{Graph, NodeId};
use crate::op::checked::{f, fails, run};
use crate::op::composites::expand_composites;
use crate::op::gradient::sweep;
use crate::op::random::{stream, unit};
use crate::tensor::{Tensor, Value};
use crate::types::Type;
use crate::{interp, verify};

fn fake(bits: usize, signed: bool, axis: i64) -> FakeQuantize {
    FakeQuantize { bits, signed, axis, batch: false }
}

fn f64s(shape: &[usize], v: &[f64]) -> Result<Tensor, Diag> {
    Tensor::floats(DType::F64, shape, v.to_vec())
}

fn random(seed: u64, n: usize, low: f64, high: f64) -> Vec<f64> {
    (0..n).map(|i| low + (high - low) * unit(stream(seed, i as u64))).collect()
}

/// The operation on inputs x and s, then what they get by a seed.
fn graph(op: &FakeQuantize, x: &Tensor, s: &Tensor, seed: Option<&Tensor>) -> Result<Graph, Diag> {
    let mut g = Graph::new("g");
    let mut ed = Editor::new(&mut g);
    let (x, s) = (ed.input("x", Type::from(x.ty())), ed.input("s", Type::from(s.ty())));
    let y = ed.node1(op.clone(), &[x, s])?;
    ed.output(y, Some("y"));
    if let Some(seed) = seed {
        let nodes: Vec<NodeId> = ed.graph().nodes_in(ed.graph().root()).collect();
        let seed = ed.constant(seed.clone())?;
        for d in sweep(&mut ed, &nodes, &[(y, seed)], &[x, s])? {
            let d = d.ok_or_else(|| Diag::error("unsupported-gradient", "none"))?;
            ed.output(d, None);
        }
    }
    assert_eq!(verify::verify(&g), []);
    Ok(g)
}

fn outputs(g: &Graph, inputs: &[&Tensor]) -> Result<Vec<Tensor>, Diag> {
    let values = interp::run(g, inputs.iter().map(|t| Value::from((*t).clone())).collect())?.values;
    values.into_iter().map(|v| v.tensor().cloned()).collect()
}

#[test]
fn values_are_multiples_of_the_step_within_the_range() {
    let x = f(&[8], &[0.0, 0.24, 0.25, 0.75, -0.75, 1.6, -3.0, f32::NAN]);
    let y = run(fake(2, true, 0), &[x.clone(), f(&[], &[0.5])]).to_f64();
    assert_eq!(y[..7], [0.0, 0.0, 0.0, 0.5, -1.0, 0.5, -1.0]);
    assert!(y[7].is_nan());
    let y = run(fake(2, false, 0), &[x.clone(), f(&[], &[0.5])]).to_f64();
    assert_eq!(y[..7], [0.0, 0.0, 0.0, 1.0, 0.0, 1.5, 0.0]);
    // Steps are magnitudes, and never nothing.
    assert_eq!(run(fake(2, false, 0), &[x.clone(), f(&[], &[-0.5])]).to_f64()[..7], y[..7]);
    let least = f64::from(f32::MIN_POSITIVE);
    assert_eq!(
        run(fake(8, true, 0), &[x, f(&[], &[0.0])]).to_f64()[..3],
        [0.0, 127.0 * least, 127.0 * least]
    );
    // A step for each index of an axis.
    let x = f(&[2, 3], &[1.0, 1.0, 1.0, -9.0, -9.0, -9.0]);
    let y = run(fake(4, true, 1), &[x.clone(), f(&[3], &[1.0, 0.25, 2.0])]);
    assert_eq!(y.to_f64(), [1.0, 1.0, 0.0, -8.0, -2.0, -8.0]);
    let y = run(fake(4, true, -2), &[x, f(&[2], &[0.5, 2.0])]);
    assert_eq!(y.to_f64(), [1.0, 1.0, 1.0, -8.0, -8.0, -8.0]);
    assert_eq!(run(fake(8, true, 0), &[f(&[], &[0.3]), f(&[], &[0.25])]), f(&[], &[0.25]));
    assert_eq!(run(fake(8, true, 0), &[f(&[0, 2], &[]), f(&[], &[1.0])]), f(&[0, 2], &[]));
    assert_eq!(run(fake(8, true, 0), &[f(&[1], &[0.3]), f(&[1], &[0.25])]), f(&[1], &[0.25]));
}

#[test]
fn what_does_not_fit_is_refused() {
    let (x, s) = (f(&[2, 3], &[0.5; 6]), f(&[], &[0.5]));
    for bits in [0, 1, 9] {
        assert_eq!(fails(fake(bits, true, 0), &[x.clone(), s.clone()]), "field-range");
    }
    assert_eq!(fails(fake(8, true, 0), &[x.clone(), f(&[3], &[0.5; 3])]), "shape-mismatch");
    assert_eq!(fails(fake(8, true, 2), &[x.clone(), f(&[3], &[0.5; 3])]), "axis-out-of-range");
    assert_eq!(fails(fake(8, true, 0), &[x.clone(), f(&[1, 1], &[0.5])]), "shape-mismatch");
    let other = Tensor::scalar(DType::F64, 0.5).map(|s| fails(fake(8, true, 0), &[x, s]));
    assert_eq!(other.ok(), Some("dtype-mismatch"));
}

#[test]
fn quantised_and_back_gives_the_same() {
    let x: Vec<f32> = random(1, 60, -20.0, 20.0).into_iter().map(|x| x as f32).collect();
    let (x, s) = (f(&[20, 3], &x), f(&[3], &[0.11, 0.07, 0.013]));
    for (signed, to) in [(true, DType::I8), (false, DType::U8)] {
        let op = Quantize { axis: 1, block: 0, to, saturate: true, precision: DType::F32 };
        let q = run(op, &[x.clone(), s.clone()]);
        let back = run(Dequantize { axis: 1, block: 0, to: DType::F32 }, &[q, s.clone()]);
        assert_eq!(run(fake(8, signed, 1), &[x.clone(), s.clone()]), back);
    }
}

/// Esser et al., equations 3 and 5, and the factor of section 2.2.
#[test]
fn gradients_follow_the_formulas() -> Result<(), Diag> {
    for (case, (signed, axis, batch)) in [
        (true, None, false),
        (true, None, true),
        (false, None, true),
        (true, Some(0), false),
        (false, Some(1), true),
    ]
    .into_iter()
    .enumerate()
    {
        let op = FakeQuantize { bits: 3, signed, axis: axis.unwrap_or(0) as i64, batch };
        let (low, high) = if signed { (-4.0, 3.0) } else { (0.0, 7.0) };
        let shape = [4, 5];
        let seed = case as u64;
        let mut x = random(seed, 20, -6.0, 9.0);
        let (s, scales) = match axis {
            None => (vec![0.5], f64s(&[], &[0.5])?),
            Some(a) => {
                // The second scale is negative.
                let s: Vec<f64> =
                    (0..shape[a]).map(|i| if i == 1 { -0.75 } else { 0.5 + 0.25 * i as f64 }).collect();
                (s.clone(), f64s(&[shape[a]], &s)?)
            }
        };
        let place = |i: usize| axis.map_or(0, |a| if a == 0 { i / 5 } else { i % 5 });
        // The ends of the range are not within it.
        x[0] = low * s[place(0)].abs();
        x[7] = high * s[place(7)].abs();
        let dy = random(seed + 10, 20, -1.0, 1.0);
        let x = f64s(&shape, &x)?;
        let g = graph(&op, &x, &scales, Some(&f64s(&shape, &dy)?))?;
        let got = outputs(&g, &[&x, &scales])?;
        let (mut dx, mut ds) = (Vec::new(), vec![0.0; s.len()]);
        for (i, v) in x.to_f64().into_iter().enumerate() {
            let ratio = v / s[place(i)].abs();
            let inside = ratio > low && ratio < high;
            dx.push(if inside { dy[i] } else { 0.0 });
            let slope = if inside { ratio.round_ties_even() - ratio } else { ratio.clamp(low, high) };
            ds[place(i)] += dy[i] * slope;
        }
        let examples = if batch && axis != Some(0) { 4.0 } else { 1.0 };
        let shared = axis.map_or(20.0, |a| 20.0 / shape[a] as f64) / examples;
        for (d, s) in ds.iter_mut().zip(&s) {
            *d *= s.signum() / (shared * high).sqrt();
        }
        assert_eq!(got[1].to_f64(), dx, "case {case}");
        assert_eq!(got[2].shape(), scales.shape());
        assert!(dx.contains(&0.0) && dx.iter().any(|d| *d != 0.0));
        let near = got[2].to_f64().iter().zip(&ds).all(|(a, b)| (a - b).abs() < 1e-12);
        assert!(near, "case {case}: {:?}, not {ds:?}", got[2].to_f64());
    }
    Ok(())
}

#[test]
fn gradients_of_none_and_one() -> Result<(), Diag> {
    let (x, s) = (f64s(&[0, 3], &[])?, f64s(&[], &[0.5])?);
    let got = outputs(&graph(&fake(8, true, 0), &x, &s, Some(&x))?, &[&x, &s])?;
    assert_eq!((got[1].len(), got[2].to_f64()), (0, vec![0.0]));
    let (x, dy) = (f64s(&[], &[0.3])?, f64s(&[], &[2.0])?);
    let got = outputs(&graph(&fake(2, true, 0), &x, &s, Some(&dy))?, &[&x, &s])?;
    assert_eq!(got[1].to_f64(), [2.0]);
    assert!((got[2].to_f64()[0] - 2.0 * 0.4).abs() < 1e-12);
    Ok(())
}

#[test]
fn parts_give_the_same() -> Result<(), Diag> {
    for dtype in [DType::F64, DType::F32, DType::F16, DType::BF16] {
        for (scale, axis) in [(vec![], 0), (vec![4], 0), (vec![3], -2), (vec![2], 2)] {
            for bits in [2, 5, 8] {
                let op = fake(bits, bits != 5, axis);
                let x = Tensor::floats(dtype, &[4, 3, 2], random(5, 24, -3.0, 3.0))?;
                let n = scale.iter().product::<usize>();
                let s = Tensor::floats(dtype, &scale, random(6, n, -0.2, 0.3))?;
                let mut g = graph(&op, &x, &s, None)?;
                let want = outputs(&g, &[&x, &s])?;
                assert_eq!(expand_composites(&mut Editor::new(&mut g), false)?.rounded, 1);
                assert_eq!(verify::verify(&g), []);
                assert!(g.all_nodes().iter().all(|n| g.node(*n).op.name() != "fake-quantize"));
                assert_eq!(outputs(&g, &[&x, &s])?, want, "{dtype} {scale:?} {bits}");
            }
        }
    }
    Ok(())
}

#[test]
fn what_is_constant_stays_constant() -> Result<(), Diag> {
    let mut g = Graph::new("g");
    let mut ed = Editor::new(&mut g);
    let x = ed.constant(f(&[3], &[0.3, -0.8, 5.0]))?;
    let s = ed.constant(f(&[], &[0.5]))?;
    let y = ed.node1(fake(3, true, 0), &[x, s])?;
    ed.output(y, None);
    expand_composites(&mut ed, false)?;
    let y = g.as_const(g.outputs()[0]).map(|(_, c)| c.decode()).transpose()?;
    assert_eq!(y, Some(f(&[3], &[0.5, -1.0, 1.5])));
    Ok(())
}
