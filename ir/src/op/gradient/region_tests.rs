//! Gradients of graphs with regions, against central differences.

use super::sweep;
use crate::diag::Diag;
use crate::dtype::DType;
use crate::editor::Editor;
use crate::graph::NodeId;
use crate::interp;
use crate::tensor::{Tensor, Value};
use crate::text::parse;
use crate::verify::verify;

/// Compares the gradients of the sum of all outputs with respect to all inputs that are floats.
fn check(text: &str, inputs: &[Tensor]) -> Result<(), Diag> {
    let forward =
        parse(&format!("planish-ir 1\nsym T 0..\nsym R 0..\nsym Q 0..\nsym N 0..\ngraph @\"g\"{text}"))?;
    let mut g = forward.clone();
    let mut ed = Editor::new(&mut g);
    let nodes: Vec<NodeId> = ed.graph().nodes_in(ed.graph().root()).collect();
    let floats: Vec<usize> = (0..inputs.len()).filter(|i| inputs[*i].dtype().is_float()).collect();
    let variables: Vec<_> = floats.iter().map(|i| ed.graph().inputs()[*i]).collect();
    let run = |g: &crate::graph::Graph, inputs: &[Tensor]| -> Result<Vec<Vec<f64>>, Diag> {
        let values = interp::run(g, inputs.iter().map(|t| Value::from(t.clone())).collect())?.values;
        values.iter().map(|v| Ok(v.tensor()?.to_f64())).collect()
    };
    let shapes = interp::run(&forward, inputs.iter().map(|t| Value::from(t.clone())).collect())?.values;
    let mut seeds = Vec::new();
    for (v, result) in ed.graph().outputs().to_vec().into_iter().zip(shapes) {
        let t = result.tensor()?;
        seeds.push((v, ed.constant(Tensor::floats(DType::F64, t.shape(), vec![1.0; t.len()])?)?));
    }
    let outputs = seeds.len();
    for d in sweep(&mut ed, &nodes, &seeds, &variables)? {
        ed.output(d.ok_or_else(|| Diag::error("arity", "no gradient"))?, None);
    }
    if let Some(d) = verify(&g).into_iter().next() {
        return Err(d);
    }
    let found = run(&g, inputs)?;
    let loss = |inputs: &[Tensor]| Ok::<f64, Diag>(run(&forward, inputs)?.iter().flatten().sum());
    for (k, i) in floats.into_iter().enumerate() {
        let got = &found[outputs + k];
        assert_eq!(got.len(), inputs[i].len(), "input {i}");
        for (e, got) in got.iter().enumerate() {
            let at = |by: f64| {
                let mut v = inputs[i].to_f64();
                v[e] += by;
                let mut moved = inputs.to_vec();
                moved[i] = Tensor::floats(DType::F64, inputs[i].shape(), v)?;
                loss(&moved)
            };
            let want = (at(1e-5)? - at(-1e-5)?) / 2e-5;
            assert!(
                (got - want).abs() <= 1e-6 * (1.0 + want.abs()),
                "input {i}, element {e}: {got}, not {want}"
            );
        }
    }
    Ok(())
}

fn f64s(shape: &[usize], v: &[f64]) -> Result<Tensor, Diag> {
    Tensor::floats(DType::F64, shape, v.to_vec())
}

#[test]
fn branches_give_the_gradient_of_the_one_that_is_taken() -> Result<(), Diag> {
    let text = "(v0 \"c\": bool[], v1 \"x\": f64[3], v2 \"y\": f64[3]) {
        v3, v4 = if v0, v1, v2 (v5: f64[3], v6: f64[3]) {
          v7 = binary{kind=mul} v5, v6 : f64[3]
          v8 = unary{kind=exp} v7 : f64[3]
          yield v8, v5
        } (v9: f64[3], v10: f64[3]) {
          v11 = unary{kind=sin} v9 : f64[3]
          yield v11, v11
        } : f64[3], f64[3]
        v12 = binary{kind=mul} v3, v1 : f64[3]
        return v12 \"a\", v4 \"b\" }";
    for taken in [0, 1] {
        let c = Tensor::ints(DType::Bool, &[], vec![taken])?;
        check(text, &[c, f64s(&[3], &[0.5, -0.2, 1.0])?, f64s(&[3], &[1.5, 0.3, -0.7])?])?;
    }
    Ok(())
}

#[test]
fn loops_go_back_through_their_iterations() -> Result<(), Diag> {
    let text = "(v0 \"n\": i64[], v1 \"x\": f64[2], v2 \"w\": f64[2]) {
        v3, v4 = loop{carried=1, scans=1, conditional=false} v0, _, v1, v2 (v5: i64[], v6: f64[2], v7: f64[2]) {
          v8 = binary{kind=mul} v6, v7 : f64[2]
          v9 = cast{to=f64, saturate=true} v5 : f64[]
          v10 = binary{kind=add} v8, v9 : f64[2]
          v11 = unary{kind=tanh} v10 : f64[2]
          v12 = binary{kind=mul} v6, v6 : f64[2]
          yield v11, v12
        } : f64[2], f64[T,2]
        return v3 \"last\", v4 \"all\" }";
    for n in [0, 1, 4] {
        check(text, &[Tensor::scalar_i64(n), f64s(&[2], &[0.3, -0.8])?, f64s(&[2], &[1.2, 0.6])?])?;
    }
    Ok(())
}

#[test]
fn loops_that_read_a_row_of_their_own_in_each_iteration() -> Result<(), Diag> {
    // The first capture is read row by row, the second too but also whole, the third in another order.
    for (rows, fixed) in [("N", "3"), ("3", "N")] {
        let text = format!(
            "(v0 \"n\": i64[], v1 \"h\": f64[2], v2 \"x\": f64[{rows},2], v3 \"y\": f64[{fixed}]) {{
        v4, v5 = loop{{carried=1, scans=1, conditional=false}} v0, _, v1, v2, v3, v2 (v6: i64[], v7: f64[2], v8: f64[{rows},2], v9: f64[{fixed}], v10: f64[{rows},2]) {{
          v11 = gather{{axis=0}} v8, v6 : f64[2]
          v12 = gather{{axis=0}} v9, v6 : f64[]
          v13 = const i64[] [0]
          v14 = gather{{axis=0}} v10, v13 : f64[2]
          v15 = binary{{kind=mul}} v7, v11 : f64[2]
          v16 = binary{{kind=add}} v15, v12 : f64[2]
          v17 = binary{{kind=mul}} v16, v14 : f64[2]
          v18 = unary{{kind=tanh}} v17 : f64[2]
          yield v18, v11
        }} : f64[2], f64[T,2]
        return v4 \"last\", v5 \"all\" }}"
        );
        let h = f64s(&[2], &[0.3, -0.8])?;
        let x = f64s(&[3, 2], &[0.5, 1.5, -0.7, 0.2, 1.1, -0.4])?;
        let y = f64s(&[3], &[0.1, -0.6, 0.9])?;
        // Not all rows need to be read.
        for n in [0, 1, 2, 3] {
            check(&text, &[Tensor::scalar_i64(n), h.clone(), x.clone(), y.clone()])?;
        }
    }
    Ok(())
}

#[test]
fn loops_that_decide_when_to_end() -> Result<(), Diag> {
    // Doubles until the sum is above 10.
    let text = "(v0 \"x\": f64[2], v1 \"w\": f64[]) {
        v2 = loop{carried=1, scans=0, conditional=true} _, _, v0, v1 (v3: i64[], v4: f64[2], v5: f64[]) {
          v6 = binary{kind=mul} v4, v5 : f64[2]
          v7 = reduce{kind=sum, axes=none, keepdims=false, noop_empty=false} v6 : f64[]
          v8 = const f64[] [10.0]
          v9 = binary{kind=less} v7, v8 : bool[]
          yield v9, v6
        } : f64[2]
        return v2 \"y\" }";
    check(text, &[f64s(&[2], &[0.3, 0.5])?, f64s(&[], &[2.1])?])
}

#[test]
fn a_branch_in_a_loop() -> Result<(), Diag> {
    let text = "(v0 \"n\": i64[], v1 \"x\": f64[2]) {
        v2 = loop{carried=1, scans=0, conditional=false} v0, _, v1, v1 (v3: i64[], v4: f64[2], v5: f64[2]) {
          v6 = const i64[] [2]
          v7 = binary{kind=less} v3, v6 : bool[]
          v8 = if v7, v4, v5 (v9: f64[2], v10: f64[2]) {
            v11 = binary{kind=mul} v9, v10 : f64[2]
            yield v11
          } (v12: f64[2], v13: f64[2]) {
            v14 = unary{kind=sigmoid} v12 : f64[2]
            yield v14
          } : f64[2]
          yield v8
        } : f64[2]
        return v2 \"y\" }";
    check(text, &[Tensor::scalar_i64(4), f64s(&[2], &[0.7, -1.1])?])
}

fn gate(fields: &str, params: &str, expert: &str, second: &str) -> String {
    format!(
        "(v0 \"c\": {params}, v1 \"x\": f64[4,2], v2 \"w\": f64[2,2]) {{
        v3 = gate{{{fields}}} v0, v1, v2 ({expert}v5: f64[R,2], v6: f64[2,2]) {{
          v7 = matmul{{trans_a=false, trans_b=false}} v5, v6 : f64[R,2]
          v8 = unary{{kind=tanh}} v7 : f64[R,2]
          yield v8
        }} {second} : f64[4,2]
        return v3 \"y\" }}"
    )
}

#[test]
fn gates_give_the_gradient_of_what_they_let_through() -> Result<(), Diag> {
    let x = f64s(&[4, 2], &[0.1, 0.9, -0.4, 0.3, 0.8, -0.6, 1.2, -0.2])?;
    let w = f64s(&[2, 2], &[0.5, -0.3, 0.7, 1.1])?;
    let none = "() {\n yield\n }";
    for fallback in ["zero", "identity"] {
        let fields = format!("granularity=rows, axis=0, block=0, k=0, fallback={fallback}");
        for mask in [[0, 0, 0, 0], [1, 0, 0, 1], [1, 1, 1, 1]] {
            let mask = Tensor::ints(DType::Bool, &[4], mask.to_vec())?;
            check(&gate(&fields, "bool[4]", "", none), &[mask, x.clone(), w.clone()])?;
        }
    }
    for fallback in ["zero", "identity", "region"] {
        let second = match fallback {
            "region" => {
                "(v9: f64[Q,2], v10: f64[2,2]) {\n v11 = unary{kind=exp} v9 : f64[Q,2]\n yield v11\n }"
            }
            _ => none,
        };
        for mask in [[0, 0], [1, 0], [1, 1]] {
            let fields = format!("granularity=blocks, axis=0, block=3, k=0, fallback={fallback}");
            let mask = Tensor::ints(DType::Bool, &[2], mask.to_vec())?;
            check(&gate(&fields, "bool[2]", "", second), &[mask, x.clone(), w.clone()])?;
        }
    }
    let columns = "(v0 \"c\": bool[2], v1 \"x\": f64[4,2]) {
        v2 = gate{granularity=rows, axis=1, block=0, k=0, fallback=identity} v0, v1 (v3: f64[4,R]) {
          v4 = unary{kind=sin} v3 : f64[4,R]
          yield v4
        } () {
          yield
        } : f64[4,2]
        return v2 \"y\" }";
    check(columns, &[Tensor::ints(DType::Bool, &[2], vec![0, 1])?, x.clone()])?;
    let routing = f64s(&[4, 3], &[0.1, 0.7, 0.2, 0.5, 0.3, 0.2, 0.9, 0.04, 0.06, 0.2, 0.1, 0.7])?;
    for k in [1, 2, 3] {
        let fields = format!("granularity=routed, axis=0, block=0, k={k}, fallback=zero");
        let text = gate(&fields, "f64[4,3]", "v4: i64[], ", none);
        check(&text, &[routing.clone(), x.clone(), w.clone()])?;
    }
    Ok(())
}

#[test]
fn groups_are_differentiated_by_their_nodes() -> Result<(), Diag> {
    let text = "(v0 \"x\": f64[3], v1 \"y\": f64[3]) {
        v2 = fused v0, v1 (v3: f64[3], v4: f64[3]) {
          v5 = binary{kind=mul} v3, v4 : f64[3]
          v6 = unary{kind=tanh} v5 : f64[3]
          yield v6
        } : f64[3]
        return v2 \"z\" }";
    check(text, &[f64s(&[3], &[0.5, -0.2, 1.0])?, f64s(&[3], &[1.5, 0.3, -0.7])?])
}

#[test]
fn attention_is_differentiated_by_its_parts() -> Result<(), Diag> {
    let text = "(v0 \"q\": f64[2,3], v1 \"k\": f64[4,3], v2 \"v\": f64[4,2]) {
        v3 = attention{scale=0.5, trans_k=true} v0, v1, v2 : f64[2,2]
        v4 = binary{kind=mul} v3, v3 : f64[2,2]
        return v4 \"y\" }";
    let ramp = |n: usize, by: f64| (0..n).map(|i| (i as f64 * by).sin()).collect::<Vec<_>>();
    check(
        text,
        &[f64s(&[2, 3], &ramp(6, 1.1))?, f64s(&[4, 3], &ramp(12, 0.7))?, f64s(&[4, 2], &ramp(8, 1.9))?],
    )
}
