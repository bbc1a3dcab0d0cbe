use super::*;
use crate::editor::Editor;
use crate::graph::Graph;
use crate::interp;
use crate::op::control::without_gates;
use crate::op::gradient::tests::{Random, check};
use crate::op::probe::eval_op;
use crate::text::{parse, print};
use crate::verify::verify;

const SIZES: [usize; 5] = [4, 2, 3, 4, 2];

fn layer(cell: Cell, linear: bool, theta: f64) -> SkimRecurrent {
    SkimRecurrent { cell, linear_before_reset: linear, theta, temperature: 0.7 }
}

const CELLS: [(Cell, bool); 3] = [(Cell::Gru, false), (Cell::Gru, true), (Cell::Lstm, false)];

/// All operands but theta, noise and temperature; T, B, I, H and H' are given.
fn operands(
    r: &mut Random,
    cell: Cell,
    sizes: [usize; 5],
    dtype: DType,
) -> Result<Vec<Option<Tensor>>, Diag> {
    let [t, b, i, h, small] = sizes;
    let g = if cell == Cell::Lstm { 4 } else { 3 };
    let mut shapes = vec![
        vec![t, b, i],
        vec![1, g * h, i],
        vec![1, g * h, h],
        vec![1, g * small, i],
        vec![1, g * small, small],
        vec![i + h, 2],
        vec![1, 2 * g * h],
        vec![1, 2 * g * small],
        vec![2],
        vec![1, b, h],
    ];
    if cell == Cell::Lstm {
        shapes.push(vec![1, b, h]);
    }
    shapes.iter().map(|s| Tensor::floats(dtype, s, r.some(s)?.to_f64()).map(Some)).collect()
}

/// The operands with numbers in the last places.
fn with(mut given: Vec<Option<Tensor>>, more: &[(usize, Tensor)]) -> Vec<Option<Tensor>> {
    for (i, t) in more {
        given.resize(given.len().max(i + 1), None);
        given[*i] = Some(t.clone());
    }
    given
}

fn difference(a: &[Tensor], b: &[Tensor]) -> f64 {
    assert_eq!(a.len(), b.len());
    let one = |(a, b): (&Tensor, &Tensor)| {
        assert_eq!(a.shape(), b.shape());
        a.to_f64().iter().zip(b.to_f64()).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
    };
    a.iter().zip(b).map(one).fold(0.0, f64::max)
}

#[test]
fn above_one_nothing_skims() -> Result<(), Diag> {
    let mut r = Random(41_000);
    for (cell, linear) in CELLS {
        let op = layer(cell, linear, 1.0);
        let given = operands(&mut r, cell, SIZES, DType::F32)?;
        let mut plain = vec![given[0].clone(), given[1].clone(), given[2].clone(), given[6].clone(), None];
        plain.extend_from_slice(&given[9..]);
        let want = eval_op(op.plain(), &plain)?;
        let as_operand = with(given.clone(), &[(SkimRecurrent::THETA, Tensor::f32s(&[1], &[1.0])?)]);
        for (op, given) in [(op, given), (layer(cell, linear, 0.0), as_operand)] {
            let got = eval_op(op, &given)?;
            assert_eq!(got.len(), want.len() + 1);
            for (g, w) in got.iter().zip(&want) {
                assert_eq!(g.bytes(), w.bytes());
            }
            assert!(got[want.len()].to_f64().iter().all(|p| (0.0..1.0).contains(p)));
        }
    }
    Ok(())
}

#[test]
fn at_zero_only_the_first_units_change() -> Result<(), Diag> {
    let mut r = Random(42_000);
    let [t, b, _, h, small] = SIZES;
    for (cell, linear) in CELLS {
        for small in [small, 0, h] {
            let sizes = [t, b, SIZES[2], h, small];
            let given = operands(&mut r, cell, sizes, DType::F32)?;
            let got = eval_op(layer(cell, linear, 0.0), &given)?;
            let all = got[0].to_f64();
            let first = given[9].as_ref().map(Tensor::to_f64).unwrap_or_default();
            for (k, v) in all.iter().enumerate() {
                let (unit, start) = (k % h, first[k % (b * h)]);
                assert_eq!(*v == start, unit >= small, "{cell:?}: {k}");
            }
        }
    }
    Ok(())
}

/// The results of one operation in a graph, in parts, and in parts of which none is a gate; and the counters of the first.
fn every_form(op: SkimRecurrent, given: &[Option<Tensor>]) -> Result<(Vec<Vec<Tensor>>, [u64; 2]), Diag> {
    let mut g = Graph::new("g");
    let mut ed = Editor::new(&mut g);
    let operands: Vec<_> = given
        .iter()
        .enumerate()
        .map(|(i, t)| t.as_ref().map(|t| ed.input(&format!("x{i}"), Type::from(t.ty()))))
        .collect();
    for v in ed.node(op, &operands)? {
        ed.output(v, None);
    }
    assert_eq!(print(&parse(&print(&g))?), print(&g));
    let parts = without_skims(&g)?;
    assert!(!print(&parts).contains("skim-recurrent"));
    let basic = without_gates(&parts)?;
    let inputs: Vec<Value> = given.iter().flatten().cloned().map(Value::from).collect();
    let mut out = Vec::new();
    let mut counters = [0; 2];
    for (k, g) in [&g, &*parts, &*basic].into_iter().enumerate() {
        assert_eq!(verify(g), [], "{}", print(g));
        let ran = interp::run(g, inputs.clone())?;
        if k == 0 {
            let count = |name: &str| ran.counters.get(name).copied().unwrap_or(0);
            counters = [count("skim.steps"), count("skim.skipped")];
        } else if k == 1 && counters[0] > 0 {
            assert_eq!(ran.counters["gate.skipped-rows"], counters[1]);
        }
        out.push(ran.values.iter().map(|v| v.tensor().cloned()).collect::<Result<_, _>>()?);
    }
    Ok((out, counters))
}

#[test]
fn parts_give_the_same_and_skip_as_many_rows() -> Result<(), Diag> {
    let mut r = Random(43_000);
    let mut skipped = 0;
    for (cell, linear) in CELLS {
        for sizes in [SIZES, [6, 1, 2, 3, 0], [5, 3, 1, 2, 2], [0, 2, 2, 3, 1], [3, 0, 2, 3, 1]] {
            let given = operands(&mut r, cell, sizes, DType::F64)?;
            let (forms, [steps, skips]) = every_form(layer(cell, linear, 0.5), &given)?;
            assert_eq!(steps, (sizes[0] * sizes[1]) as u64);
            assert!(difference(&forms[0], &forms[1]) < 1e-12 && difference(&forms[0], &forms[2]) < 1e-12);
            // Without biases and first states.
            let (forms, _) = every_form(layer(cell, linear, 0.5), &given[..6])?;
            assert!(difference(&forms[0], &forms[1]) < 1e-12);
            skipped += skips;
            let noise = r.floats(&[sizes[0], sizes[1], 2], 0.0, 1.0)?;
            let given = with(given, &[(SkimRecurrent::NOISE, noise)]);
            let (forms, counters) = every_form(layer(cell, linear, 0.5), &given)?;
            assert_eq!(counters, [0, 0]);
            assert!(difference(&forms[0], &forms[1]) < 1e-12);
        }
    }
    assert!(skipped > 10, "{skipped}");
    Ok(())
}

#[test]
fn noise_that_decides_gives_what_the_decision_gives() -> Result<(), Diag> {
    let mut r = Random(44_000);
    let [t, b, ..] = SIZES;
    for (cell, linear) in CELLS {
        let given = operands(&mut r, cell, SIZES, DType::F64)?;
        for (theta, u) in [(0.0, [1e-9, 1.0]), (1.0, [1.0, 1e-9])] {
            let want = eval_op(layer(cell, linear, theta), &given)?;
            let noise = Tensor::floats(DType::F64, &[t, b, 2], u.repeat(t * b))?;
            let cold = Tensor::f32s(&[], &[0.1])?;
            let noisy =
                with(given.clone(), &[(SkimRecurrent::NOISE, noise), (SkimRecurrent::TEMPERATURE, cold)]);
            let got = eval_op(layer(cell, linear, 0.5), &noisy)?;
            assert!(difference(&got, &want) < 1e-9, "{}", difference(&got, &want));
        }
    }
    Ok(())
}

#[test]
fn gradients() -> Result<(), Diag> {
    let mut r = Random(45_000);
    for (cell, linear) in CELLS {
        for sizes in [[3, 2, 2, 3, 2], [2, 1, 2, 2, 0], [2, 2, 1, 2, 2]] {
            let given = operands(&mut r, cell, sizes, DType::F64)?;
            let noise = r.floats(&[sizes[0], sizes[1], 2], 0.1, 0.9)?;
            let warm = Tensor::floats(DType::F64, &[], vec![0.8])?;
            let noisy = with(given.clone(), &[(SkimRecurrent::NOISE, noise), (13, warm)]);
            check(&mut r, layer(cell, linear, 0.5), &noisy)?;
            // Where it decides, the gradient is that of what was decided.
            check(&mut r, layer(cell, linear, 0.5), &given)?;
        }
    }
    Ok(())
}

#[test]
fn malformed_layers_are_refused() -> Result<(), Diag> {
    let mut r = Random(46_000);
    let given = operands(&mut r, Cell::Lstm, SIZES, DType::F32)?;
    let id = |op: SkimRecurrent, given: &[Option<Tensor>]| eval_op(op, given).err().map(|d| d.id);
    assert_eq!(id(layer(Cell::Rnn, false, 0.5), &given), Some("field-range"));
    assert_eq!(id(layer(Cell::Lstm, false, f64::NAN), &given), Some("field-range"));
    let frozen = SkimRecurrent { temperature: 0.0, ..layer(Cell::Lstm, false, 0.5) };
    assert_eq!(id(frozen, &given), Some("field-range"));
    assert_eq!(id(layer(Cell::Gru, false, 0.5), &given), Some("shape-mismatch"));
    let gru = operands(&mut r, Cell::Gru, SIZES, DType::F32)?;
    let with_cell = with(gru.clone(), &[(10, Tensor::f32s(&[1, 2, 4], &[0.0; 8])?)]);
    assert_eq!(id(layer(Cell::Gru, false, 0.5), &with_cell), Some("arity"));
    let two = with(gru.clone(), &[(SkimRecurrent::THETA, Tensor::f32s(&[2], &[0.5; 2])?)]);
    assert_eq!(id(layer(Cell::Gru, false, 0.5), &two), Some("shape-mismatch"));
    let mut turned = gru;
    turned[5] = Some(Tensor::f32s(&[2, 7], &[0.0; 14])?);
    assert_eq!(id(layer(Cell::Gru, false, 0.5), &turned), Some("shape-mismatch"));
    let [t, b, i, h, _] = SIZES;
    let large = operands(&mut r, Cell::Gru, [t, b, i, h, h + 1], DType::F32)?;
    assert_eq!(id(layer(Cell::Gru, false, 0.5), &large), Some("shape-mismatch"));
    Ok(())
}
