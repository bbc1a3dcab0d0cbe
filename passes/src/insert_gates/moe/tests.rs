use crate::calibrate::Interpreted;
use crate::insert_gates::InsertGates;
use crate::insert_gates::linear::Mix;
use crate::{Options, Pass, PassCx, TargetFacts};
use planish_ir::op::binary::{Binary, BinaryKind};
use planish_ir::op::control::Gate;
use planish_ir::op::matmul::MatMul;
use planish_ir::op::slice::Slice;
use planish_ir::op::unary::{Unary, UnaryKind};
use planish_ir::text::print;
use planish_ir::verify::verify;
use planish_ir::{
    Constant, DType, Diag, Dim, Editor, Graph, NodeId, Op, RunResult, Tensor, Type, Value, ValueId, interp,
};
use std::collections::HashMap;
use std::rc::Rc;

const EXPERTS: usize = 4;
const D: usize = 16;
const HIDDEN: usize = 32;
const OUT: usize = 24;

/// Rows that lie in one of four directions, and a pair of products whose hidden units each see one of them; units of a direction are
/// spread over the matrix.
struct Planted {
    graph: Graph,
    samples: Vec<Vec<Value>>,
}

fn number(mix: &mut Mix) -> f32 {
    mix.below(2001) as f32 / 1000.0 - 1.0
}

fn planted(
    dims: Vec<Dim>,
    symbols: &[(&str, i64)],
    function: UnaryKind,
    transposed: bool,
) -> Result<Planted, Diag> {
    let mut mix = Mix::new(11);
    let part = D / EXPERTS;
    let mut up = vec![0f32; D * HIDDEN];
    for j in 0..HIDDEN {
        let direction = j % EXPERTS;
        for i in 0..part {
            up[(direction * part + i) * HIDDEN + j] = number(&mut mix).abs();
        }
    }
    let bias: Vec<f32> = (0..HIDDEN).map(|_| 0.05 * number(&mut mix)).collect();
    let down: Vec<f32> = (0..HIDDEN * OUT).map(|_| number(&mut mix)).collect();
    let mut graph = Graph::new("main");
    let mut ed = Editor::new(&mut graph);
    let mut shape = dims.clone();
    for (name, size) in symbols {
        let id = ed.graph_mut().symbols.named(name);
        ed.graph_mut().symbols.set_range(id, 0, None);
        let at = shape.iter().position(|d| d.is(*size));
        if let Some(at) = at {
            shape[at] = Dim::from(id);
        }
    }
    shape.push(Dim::from(D));
    let x = ed.input("x", Type::tensor(DType::F32, shape));
    let matrix = |k: usize, n: usize, v: &[f32]| match transposed {
        false => Tensor::f32s(&[k, n], v),
        true => {
            let t: Vec<f32> =
                (0..n).flat_map(|j| (0..k).map(move |i| (i, j))).map(|(i, j)| v[i * n + j]).collect();
            Tensor::f32s(&[n, k], &t)
        }
    };
    let product = MatMul { trans_a: false, trans_b: transposed };
    let w = ed.constant(Constant::from(matrix(D, HIDDEN, &up)?))?;
    let v = ed.node1(product.clone(), &[x, w])?;
    let b = ed.constant(Constant::from(Tensor::f32s(&[HIDDEN], &bias)?))?;
    let v = ed.node1(Binary { kind: BinaryKind::Add }, &[b, v])?;
    let v = ed.node1(Unary { kind: function }, &[v])?;
    let w = ed.constant(Constant::from(matrix(HIDDEN, OUT, &down)?))?;
    let y = ed.node1(product, &[v, w])?;
    ed.output(y, Some("y"));
    let fixed: Vec<usize> = dims.iter().filter_map(|d| usize::try_from(d.as_const()?).ok()).collect();
    let rows: usize = fixed.iter().product();
    let mut sizes = fixed;
    sizes.push(D);
    let samples = (0..8)
        .map(|_| {
            let mut v = vec![0f32; rows * D];
            for row in v.chunks_exact_mut(D) {
                let at = mix.below(EXPERTS as u64) as usize * part;
                row[at..at + part].iter_mut().for_each(|v| *v = 1.0 + number(&mut mix));
            }
            Ok(vec![Tensor::f32s(&sizes, &v)?.into()])
        })
        .collect::<Result<_, Diag>>()?;
    Ok(Planted { graph, samples })
}

fn gated(p: &Planted, options: &[(&str, &str)]) -> Result<(Graph, PassCx), Diag> {
    let mut o = Options::default();
    o.set("kind", "moe");
    o.set("gain", "0");
    options.iter().for_each(|(k, v)| o.set(k, v));
    let mut cx = PassCx {
        facts: TargetFacts::default(),
        calibrate: Some(Rc::new(Interpreted { samples: p.samples.clone(), labels: None })),
        ..PassCx::default()
    };
    let mut graph = p.graph.clone();
    InsertGates::new(&o)?.run(&mut Editor::new(&mut graph), &mut cx)?;
    assert_eq!(verify(&graph), []);
    Ok((graph, cx))
}

fn gate(g: &Graph) -> Option<NodeId> {
    g.all_nodes().into_iter().find(|n| matches!(g.node(*n).op, Op::Gate(_)))
}

fn largest_difference(a: &RunResult, b: &RunResult, i: usize, j: usize) -> Result<f64, Diag> {
    let (a, b) = (a.values[i].tensor()?, b.values[j].tensor()?);
    assert_eq!(a.shape(), b.shape());
    Ok(a.to_f64().iter().zip(b.to_f64()).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max))
}

fn shapes() -> Vec<(Vec<Dim>, Vec<(&'static str, i64)>)> {
    let d = |v: &[usize]| v.iter().map(|d| Dim::from(*d)).collect::<Vec<_>>();
    vec![
        (d(&[24]), vec![]),
        (d(&[24]), vec![("N", 24)]),
        (d(&[1, 20]), vec![]),
        (d(&[2, 12]), vec![("B", 2), ("T", 12)]),
        (d(&[1]), vec![]),
    ]
}

#[test]
fn planted_experts_are_found() -> Result<(), Diag> {
    for (dims, symbols) in shapes() {
        for cluster in ["activations", "weights"] {
            let p = planted(dims.clone(), &symbols, UnaryKind::Relu, cluster == "weights")?;
            let (after, cx) = gated(&p, &[("experts", "4"), ("active", "1"), ("cluster", cluster)])?;
            assert!(gate(&after).is_some(), "{:?}", cx.remarks);
            if dims.len() == 1 && dims[0].is(1) {
                continue;
            }
            // Each row is in one direction: one expert is nearly all there is.
            let error = cx.metrics["largest-output-error"];
            assert!(error < 0.15, "{cluster} {dims:?}: {error} {:?}", cx.remarks);
            let (old, new) =
                (interp::run(&p.graph, p.samples[0].clone())?, interp::run(&after, p.samples[0].clone())?);
            let norm = old.values[0].tensor()?.to_f64().into_iter().fold(0.0, |m: f64, v| m.max(v.abs()));
            assert!(largest_difference(&old, &new, 0, 0)? < 0.5 * norm);
        }
    }
    Ok(())
}

#[test]
fn all_experts_are_the_dense_pair() -> Result<(), Diag> {
    for (dims, symbols) in shapes() {
        let p = planted(dims, &symbols, UnaryKind::Gelu, false)?;
        let (after, _) = gated(&p, &[("experts", "4"), ("active", "4")])?;
        assert!(gate(&after).is_some());
        for sample in &p.samples {
            let (old, new) = (interp::run(&p.graph, sample.clone())?, interp::run(&after, sample.clone())?);
            assert!(largest_difference(&old, &new, 0, 0)? < 1e-4);
        }
    }
    Ok(())
}

/// Copies a region in front of the end of the root.
fn inline(ed: &mut Editor<'_>, n: NodeId, args: &[ValueId]) -> Result<ValueId, Diag> {
    let r = ed.graph().node(n).regions[0];
    let params = ed.graph().region(r).params.clone();
    let mut map: HashMap<ValueId, ValueId> = params.into_iter().zip(args.iter().copied()).collect();
    let nodes: Vec<NodeId> = ed.graph().nodes_in(r).collect();
    for n in nodes {
        let node = ed.graph().node(n).clone();
        let inputs: Vec<_> = node.inputs.iter().map(|v| v.map(|v| map[&v])).collect();
        let made = ed.node(node.op, &inputs)?;
        map.extend(node.outputs.into_iter().zip(made));
    }
    Ok(map[&ed.graph().region(r).results[0]])
}

#[test]
fn compacted_equals_the_masked_dense_computation_and_does_its_share() -> Result<(), Diag> {
    for (dims, symbols) in shapes() {
        let p = planted(dims.clone(), &symbols, UnaryKind::Gelu, false)?;
        let rows: i64 = dims.iter().filter_map(Dim::as_const).product();
        for active in [1, 2, 3] {
            let (mut after, cx) = gated(&p, &[("experts", "4"), ("active", &active.to_string())])?;
            let n = gate(&after).ok_or_else(|| Diag::error("arity", "no gate"))?;
            assert!(matches!(&after.node(n).op, Op::Gate(Gate { k, .. }) if *k == active as usize));
            let (mask, x) = (after.node(n).inputs[0], after.node(n).inputs[1]);
            let (Some(mask), Some(x)) = (mask, x) else { return Err(Diag::error("arity", "operands")) };
            let y = after.node(n).outputs[0];
            // Every expert on every row, times the mask.
            let mut ed = Editor::new(&mut after);
            let mut sum = None;
            for e in 0..EXPERTS as i64 {
                let i = |ed: &mut Editor<'_>, v: i64| ed.constant(Constant::from(Tensor::vec_i64(&[v])));
                let expert = ed.constant(Constant::from(Tensor::scalar_i64(e)))?;
                let all = inline(&mut ed, n, &[expert, x])?;
                let (from, to, axis) = (i(&mut ed, e)?, i(&mut ed, e + 1)?, i(&mut ed, 1)?);
                let column = ed.node1(Slice {}, &[mask, from, to, axis])?;
                let part = ed.node1(Binary { kind: BinaryKind::Mul }, &[all, column])?;
                sum = Some(match sum {
                    None => part,
                    Some(s) => ed.node1(Binary { kind: BinaryKind::Add }, &[s, part])?,
                });
            }
            ed.output(y, None);
            sum.iter().for_each(|s| ed.output(*s, None));
            ed.output(mask, None);
            assert_eq!(verify(&after), []);
            let run = interp::run(&after, p.samples[1].clone())?;
            assert!(largest_difference(&run, &run, 1, 2)? < 1e-5);
            let mask = run.values[3].tensor()?.to_f64();
            for row in mask.chunks_exact(EXPERTS) {
                assert_eq!(row.iter().sum::<f64>(), active as f64);
                assert!(row.iter().all(|v| *v == 0.0 || *v == 1.0));
            }
            // Multiply-adds: those of executed rows of experts, and the router.
            let of_row = (HIDDEN / EXPERTS * (D + OUT)) as u64;
            let executed = run.counters["gate.rows"] * of_row + (rows as usize * D * EXPERTS) as u64;
            let dense = rows as f64 * (HIDDEN * (D + OUT)) as f64;
            let share = active as f64 / EXPERTS as f64 + (D * EXPERTS) as f64 / (HIDDEN * (D + OUT)) as f64;
            assert!((executed as f64 / dense - share).abs() < 1e-12);
            assert_eq!(cx.metrics["row-macs-after"] / cx.metrics["row-macs-before"], share);
        }
    }
    Ok(())
}

#[test]
fn the_same_samples_give_the_same_graph() -> Result<(), Diag> {
    let p = planted(vec![Dim::from(24usize)], &[], UnaryKind::Relu, false)?;
    let options = [("experts", "4"), ("active", "2")];
    assert_eq!(print(&gated(&p, &options)?.0), print(&gated(&p, &options)?.0));
    Ok(())
}

#[test]
fn what_cannot_pay_is_left_alone() -> Result<(), Diag> {
    let p = planted(vec![Dim::from(24usize)], &[], UnaryKind::Relu, false)?;
    for (options, why) in [
        (vec![("experts", "5"), ("active", "1")], "32 hidden units cannot be divided among 5 experts"),
        (vec![("experts", "8"), ("active", "1")], "4 hidden units of an expert are fewer than 8"),
        (vec![("experts", "4"), ("active", "1"), ("gain", "1.1")], "a speed-up of 0.0"),
        (vec![("experts", "4"), ("exclude", ".")], "`exclude` names it"),
    ] {
        let (after, cx) = gated(&p, &options)?;
        assert_eq!(print(&after), print(&p.graph));
        assert!(
            cx.remarks.iter().any(|d| d.id == "gate-skipped" && d.message.contains(why)),
            "{:?}",
            cx.remarks
        );
    }
    let mut none = planted(vec![Dim::from(24usize)], &[], UnaryKind::Relu, false)?;
    none.samples[0] = vec![Tensor::f32s(&[24, D], &[f32::NAN; 24 * D])?.into()];
    none.samples.truncate(1);
    let (_, cx) = gated(&none, &[("experts", "4")])?;
    assert!(cx.remarks.iter().any(|d| d.message.contains("no finite rows")), "{:?}", cx.remarks);
    Ok(())
}

#[test]
fn options_are_checked() {
    for bad in [
        [("experts", "1"), ("active", "1")],
        [("experts", "4"), ("active", "5")],
        [("experts", "4"), ("active", "0")],
        [("cluster", "size"), ("active", "1")],
        [("gain", "nan"), ("active", "1")],
        [("samples", "none"), ("active", "1")],
    ] {
        let mut o = Options::default();
        o.set("kind", "moe");
        bad.iter().for_each(|(k, v)| o.set(k, v));
        assert_eq!(InsertGates::new(&o).err().map(|d| d.id), Some("pass-option"), "{bad:?}");
    }
    let mut o = Options::default();
    o.set("kind", "tree");
    assert!(InsertGates::new(&o).is_err());
}
