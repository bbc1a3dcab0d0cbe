use crate::calibrate::Interpreted;
use crate::insert_gates::InsertGates;
use crate::insert_gates::linear::Mix;
use crate::training::{determinized, inferred, work};
use crate::{Options, Pass, PassCx, Threshold};
use planish_ir::op::binary::{Binary, BinaryKind};
use planish_ir::op::control::{Gate, Granularity};
use planish_ir::op::matmul::MatMul;
use planish_ir::op::softmax::{Softmax, SoftmaxKind};
use planish_ir::op::unary::{Unary, UnaryKind};
use planish_ir::text::print;
use planish_ir::verify::verify;
use planish_ir::{Constant, DType, Diag, Dim, Editor, Graph, Op, Tensor, Type, Value, ValueId, interp};
use std::rc::Rc;

const D: usize = 6;
const CLASSES: usize = 3;

fn number(mix: &mut Mix) -> f32 {
    mix.below(2001) as f32 / 1000.0 - 1.0
}

/// Three layers for some rows, or for any number; with `mixing` each row gets something of all rows before the last one.
fn model(batch: Option<usize>, softmax: bool, mixing: bool) -> Result<Graph, Diag> {
    let mut mix = Mix::new(5);
    let mut graph = Graph::new("main");
    let mut ed = Editor::new(&mut graph);
    let batch = match batch {
        Some(n) => Dim::from(n),
        None => {
            let n = ed.graph_mut().symbols.named("N");
            ed.graph_mut().symbols.set_range(n, 0, None);
            Dim::from(n)
        }
    };
    let x = ed.input("x", Type::tensor(DType::F32, vec![batch, Dim::from(D)]));
    let mut layer = |ed: &mut Editor<'_>, x: ValueId, k: usize, n: usize, name: &str| {
        ed.set_loc(planish_ir::Loc::name(name));
        let w: Vec<f32> = (0..k * n).map(|_| number(&mut mix)).collect();
        let w = ed.constant(Constant::from(Tensor::f32s(&[k, n], &w)?))?;
        ed.node1(MatMul { trans_a: false, trans_b: false }, &[x, w])
    };
    let v = layer(&mut ed, x, D, 8, "first")?;
    let v = ed.node1(Unary { kind: UnaryKind::Relu }, &[v])?;
    let v = layer(&mut ed, v, 8, 64, "second")?;
    let mut v = ed.node1(Unary { kind: UnaryKind::Relu }, &[v])?;
    if mixing {
        let total = planish_ir::op::reduce::Reduce {
            kind: planish_ir::op::reduce::ReduceKind::Mean,
            axes: Some(vec![0]),
            keepdims: true,
            noop_empty: false,
        };
        let mean = ed.node1(total, &[v])?;
        v = ed.node1(Binary { kind: BinaryKind::Add }, &[v, mean])?;
    }
    let mut y = layer(&mut ed, v, 64, CLASSES, "third")?;
    if softmax {
        y = ed.node1(Softmax { kind: SoftmaxKind::Softmax, axis: 1 }, &[y])?;
    }
    ed.output(y, Some("y"));
    Ok(graph)
}

fn samples(batch: usize, count: usize) -> Result<Vec<Vec<Value>>, Diag> {
    let mut mix = Mix::new(3);
    (0..count)
        .map(|_| {
            let v: Vec<f32> = (0..batch * D).map(|_| number(&mut mix) * 3.0).collect();
            Ok(vec![Tensor::f32s(&[batch, D], &v)?.into()])
        })
        .collect()
}

fn gated(
    g: &Graph,
    samples: &[Vec<Value>],
    labels: Option<Vec<Vec<i64>>>,
    options: &[(&str, &str)],
) -> Result<(Graph, PassCx), Diag> {
    let mut o = Options::default();
    o.set("kind", "early-exit");
    options.iter().for_each(|(k, v)| o.set(k, v));
    let runs = Interpreted { samples: samples.to_vec(), labels };
    let mut cx = PassCx { calibrate: Some(Rc::new(runs)), ..PassCx::default() };
    let mut graph = g.clone();
    InsertGates::new(&o)?.run(&mut Editor::new(&mut graph), &mut cx)?;
    assert_eq!(verify(&graph), []);
    Ok((graph, cx))
}

fn is_gated(g: &Graph) -> Option<Granularity> {
    g.all_nodes().into_iter().find_map(|n| match &g.node(n).op {
        Op::Gate(Gate { granularity, .. }) => Some(*granularity),
        _ => None,
    })
}

fn largest(v: &[f64]) -> usize {
    (0..v.len()).fold(0, |best, i| if v[i] > v[best] { i } else { best })
}

#[test]
fn at_1_nothing_leaves_and_below_0_everything() -> Result<(), Diag> {
    for (batch, size) in [(Some(1), 1), (Some(5), 5), (None, 4)] {
        for softmax in [false, true] {
            let g = model(batch, softmax, false)?;
            let data = samples(size, 40)?;
            let (never, cx) = gated(&g, &data, None, &[("threshold", "1")])?;
            let want = if size == 1 { Granularity::Whole } else { Granularity::Rows };
            assert_eq!(is_gated(&never), Some(want), "{:?}", cx.remarks);
            let (always, _) = gated(&g, &data, None, &[("threshold", "0")])?;
            for sample in data.iter().take(10) {
                let old = interp::run(&g, sample.clone())?;
                let new = interp::run(&never, sample.clone())?;
                assert_eq!(old.values[0].tensor()?.bytes(), new.values[0].tensor()?.bytes());
                let left = interp::run(&always, sample.clone())?;
                assert_eq!(left.values[0].tensor()?.shape(), [size, CLASSES]);
                let count = |name: &str| left.counters.get(name).copied().unwrap_or(0);
                match want {
                    Granularity::Whole => {
                        assert_eq!((new.counters["gate.regions"], count("gate.regions")), (1, 0));
                        assert_eq!(count("gate.skipped-regions"), 1);
                    }
                    _ => {
                        assert_eq!((new.counters["gate.rows"], count("gate.rows")), (size as u64, 0));
                        assert_eq!(count("gate.skipped-rows"), size as u64);
                    }
                }
                if softmax {
                    for row in left.values[0].tensor()?.to_f64().chunks_exact(CLASSES) {
                        assert!((row.iter().sum::<f64>() - 1.0).abs() < 1e-5);
                    }
                }
            }
        }
    }
    Ok(())
}

/// In between, what stays is bit-equal to the model, and counters agree with the report on the samples held out.
#[test]
fn counters_agree_with_what_is_told() -> Result<(), Diag> {
    for size in [1, 6] {
        let g = model(Some(size), false, false)?;
        let data = samples(size, 240 / size)?;
        let labels: Vec<Vec<i64>> = data
            .iter()
            .map(|s| {
                let y = interp::run(&g, s.clone())?.values[0].tensor()?.to_f64();
                Ok(y.chunks_exact(CLASSES).map(|r| largest(r) as i64).collect())
            })
            .collect::<Result<_, Diag>>()?;
        let (proxy, cx) = gated(&g, &data, None, &[("threshold", "0.99"), ("after", "first")])?;
        let (after, told) =
            gated(&g, &data, Some(labels.clone()), &[("threshold", "0.99"), ("after", "first")])?;
        // The labels are what the model says, so the fit is the same.
        assert_eq!(print(&proxy), print(&after));
        assert!(cx.remarks.iter().any(|d| d.message.contains("proxy")));
        assert!(told.remarks.iter().any(|d| d.message.contains("accuracy")), "{:?}", told.remarks);
        let (mut stayed, mut rows, mut right) = (0, 0, 0);
        for (i, sample) in data.iter().enumerate().filter(|(i, _)| i % 4 == 3) {
            let (old, new) = (interp::run(&g, sample.clone())?, interp::run(&after, sample.clone())?);
            let count = |name: &str| new.counters.get(name).copied().unwrap_or(0);
            let name = if size == 1 { "gate.regions" } else { "gate.rows" };
            stayed += count(name);
            let (old, new) = (old.values[0].tensor()?.to_f64(), new.values[0].tensor()?.to_f64());
            let pairs = old.chunks_exact(CLASSES).zip(new.chunks_exact(CLASSES));
            let equal = pairs.filter(|(a, b)| a == b).count() as u64;
            assert!(equal >= count(name));
            for (row, label) in new.chunks_exact(CLASSES).zip(&labels[i]) {
                rows += 1;
                right += usize::from(largest(row) as i64 == *label);
            }
        }
        let exits = 1.0 - stayed as f64 / rows as f64;
        assert!((0.02..0.99).contains(&exits), "{exits}");
        assert!((told.metrics["exits"] - exits).abs() < 1e-9);
        assert!((told.metrics["right"] - right as f64 / rows as f64).abs() < 1e-9);
        let [before, head, rest] = ["before", "head", "after"].map(|n| told.metrics[&format!("flops-{n}")]);
        let share = (before + head + (1.0 - exits) * rest) / (before + rest);
        assert!((told.metrics["flops-share"] - share).abs() < 1e-9);
    }
    Ok(())
}

#[test]
fn an_exit_may_be_named() -> Result<(), Diag> {
    let g = model(Some(1), false, false)?;
    let data = samples(1, 40)?;
    let first = gated(&g, &data, None, &[("after", "first")])?;
    let auto = gated(&g, &data, None, &[])?;
    assert!(is_gated(&first.0).is_some() && is_gated(&auto.0).is_some());
    assert!(first.1.metrics["flops-before"] < auto.1.metrics["flops-before"] + 1.0);
    for (options, why) in [
        ([("after", "nowhere"), ("threshold", "0.9")], "no node is called"),
        ([("after", "third"), ("threshold", "0.9")], "an output is computed before it"),
    ] {
        let (same, cx) = gated(&g, &data, None, &options)?;
        assert_eq!(print(&same), print(&g));
        assert!(cx.remarks.iter().any(|d| d.message.contains(why)), "{:?}", cx.remarks);
    }
    Ok(())
}

#[test]
fn batches_whose_rows_see_each_other_are_left_alone() -> Result<(), Diag> {
    let g = model(Some(5), false, true)?;
    let (same, cx) = gated(&g, &samples(5, 20)?, None, &[("after", "first")])?;
    assert_eq!(print(&same), print(&g));
    assert!(cx.remarks.iter().any(|d| d.message.contains("may mix samples")), "{:?}", cx.remarks);
    // One sample alone has no others.
    let g = model(Some(1), false, true)?;
    assert!(is_gated(&gated(&g, &samples(1, 20)?, None, &[("after", "first")])?.0).is_some());
    Ok(())
}

#[test]
fn other_outputs_and_missing_samples_are_declined() -> Result<(), Diag> {
    let mut g = model(Some(1), false, false)?;
    let (same, cx) = gated(&g, &samples(1, 2)?, None, &[])?;
    assert_eq!(print(&same), print(&g));
    assert!(cx.remarks.iter().any(|d| d.message.contains("to measure on")), "{:?}", cx.remarks);
    let x = g.inputs()[0];
    Editor::new(&mut g).output(x, Some("again"));
    let (same, cx) = gated(&g, &samples(1, 20)?, None, &[])?;
    assert_eq!(print(&same), print(&g));
    assert!(cx.remarks.iter().any(|d| d.message.contains("2 outputs")), "{:?}", cx.remarks);
    Ok(())
}

/// Of each row, whether a head leaves at a threshold.
fn leaves(scores: &[f64], softmax: bool, threshold: f64) -> bool {
    let most = scores.iter().copied().fold(f64::MIN, f64::max);
    let p = if softmax { most } else { 1.0 / scores.iter().map(|s| (s - most).exp()).sum::<f64>() };
    p > threshold
}

#[test]
fn trained_heads_become_gates() -> Result<(), Diag> {
    for (batch, size) in [(Some(1), 1), (Some(5), 5), (None, 4)] {
        for softmax in [false, true] {
            let g = model(batch, softmax, false)?;
            let data = samples(size, 40)?;
            let (open, cx) = gated(&g, &data, None, &[("train", "true")])?;
            assert_eq!((is_gated(&open), open.outputs().len()), (None, 2), "{:?}", cx.remarks);
            assert_eq!(open.output_name(1), "exit");
            if batch.is_some() {
                let w = work(&open).ok_or_else(|| Diag::error("arity", "no work"))?;
                // 64 units with a relu and 3 classes behind it, a head of as many before it.
                let last = 3.0 * f64::from(u8::from(softmax));
                assert_eq!(w.gated, size as f64 * (64.0 + 384.0 + last));
                assert!((384.0..400.0).contains(&(w.gates / size as f64)), "{w:?}");
            }
            for threshold in [0.0, 0.45, 0.6, 1.0] {
                let with = |t: Threshold| {
                    let mut graph = open.clone();
                    determinized(&mut graph, Some(t))?;
                    assert_eq!(verify(&graph), []);
                    assert!(is_gated(&graph).is_some() && graph.outputs().len() == 1);
                    Ok::<_, Diag>(graph)
                };
                let (fixed, knob) = (with(Threshold::At(threshold))?, with(Threshold::Input)?);
                let (all, _) = inferred(&open, Some(Threshold::At(threshold)))?;
                for sample in data.iter().take(8) {
                    let said = interp::run(&open, sample.clone())?;
                    let (y, exit) = (said.values[0].tensor()?.to_f64(), said.values[1].tensor()?.to_f64());
                    let rows = y.chunks(CLASSES).zip(exit.chunks(CLASSES));
                    let left: Vec<bool> = rows.clone().map(|(_, e)| leaves(e, softmax, threshold)).collect();
                    let want: Vec<f64> =
                        rows.zip(&left).flat_map(|((y, e), l)| if *l { e } else { y }).copied().collect();
                    let got = interp::run(&fixed, sample.clone())?;
                    assert_eq!(got.values[0].tensor()?.to_f64(), want);
                    let t: Value = Tensor::f32s(&[], &[threshold as f32])?.into();
                    let turned = interp::run(&knob, [sample.clone(), vec![t]].concat())?;
                    assert_eq!(turned.values, got.values);
                    assert_eq!(turned.counters, got.counters);
                    let whole = interp::run(&all, sample.clone())?.values;
                    assert_eq!(whole[0], got.values[0]);
                    let stays = left.iter().filter(|l| !**l).count();
                    let share = whole[1].tensor()?.to_f64()[0];
                    assert!((share - stays as f64 / size as f64).abs() < 1e-6);
                    let counter = if size == 1 { "gate.regions" } else { "gate.rows" };
                    let count = got.counters.get(counter).copied().unwrap_or(0);
                    assert_eq!(count, stays as u64, "{:?}", got.counters);
                }
            }
        }
    }
    let mixing = model(Some(5), false, true)?;
    let (same, cx) = gated(&mixing, &samples(5, 40)?, None, &[("train", "true"), ("after", "second")])?;
    assert_eq!(same.outputs().len(), 1, "{:?}", cx.remarks);
    let (same, cx) = gated(&model(Some(5), false, false)?, &[], None, &[("head", "exit")])?;
    assert!(is_gated(&same).is_none() && cx.remarks[0].message.contains("is called `exit`"));
    assert!(gated(&mixing, &[], None, &[("head", "exit"), ("train", "true")]).is_err());
    Ok(())
}
