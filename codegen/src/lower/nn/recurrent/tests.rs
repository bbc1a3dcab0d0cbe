//! Layers with packed weights: sizes around those of tiles, and threads.

use crate::engine::KernelInterpreter;
use crate::kernel::TargetSpec;
use crate::lower::tests::{has, printed, ramp, same, weights};
use planish_ir::{Constant, DType, Diag, Engine, Matrix, Order, PrepareOptions, Tensor, Value, text};

/// A layer of `h` units with constant weights, 5 inputs, biases and a first h, and its inputs.
fn layer(
    cell: &str,
    direction: &str,
    linear: bool,
    sizes: [usize; 3],
    lens: Option<Vec<i128>>,
) -> Result<(String, Vec<Value>), Diag> {
    layer_of((cell, linear), (direction, "B"), sizes, lens, &|shape| Ok(weights(shape)))
}

/// [`layer`] with a batch of this name, whose matrices of weights are these.
fn layer_of(
    (cell, linear): (&str, bool),
    (direction, batch): (&str, &str),
    [t, b, h]: [usize; 3],
    lens: Option<Vec<i128>>,
    matrix: &dyn Fn(&[usize]) -> Result<String, Diag>,
) -> Result<(String, Vec<Value>), Diag> {
    let (gates, acts) = match cell {
        "lstm" => (4, "sigmoid, tanh, tanh"),
        "gru" => (3, "sigmoid, tanh"),
        _ => (1, "tanh"),
    };
    let d = if direction == "both" { 2 } else { 1 };
    let n = acts.split(',').count() * d;
    let acts = vec![acts; d].join(", ");
    let none = vec!["0"; n].join(", ");
    let last = format!("f32[{d},{batch},{h}]");
    let (results, types) = match cell {
        "lstm" => ("v6, v7, v8", format!("f32[{t},{d},{batch},{h}], {last}, {last}")),
        _ => ("v6, v7", format!("f32[{t},{d},{batch},{h}], {last}")),
    };
    let mut constants = String::new();
    for (k, s) in [vec![d, gates * h, 5], vec![d, gates * h, h], vec![d, 2 * gates * h]].iter().enumerate() {
        let values = if k < 2 { matrix(s)? } else { weights(s) };
        constants += &format!("v{} = const {values} ", k + 1);
    }
    let (lens_name, lens_input) = match lens {
        Some(_) => ("v4", format!(", v4: i32[{batch}]")),
        None => ("_", String::new()),
    };
    let body = format!(
        "graph @\"g\"(v0: f32[{t},{batch},5]{lens_input}, v5: {last}) {{ {constants}{results} = recurrent{{cell={cell}, \
         direction={direction}, activations=[{acts}], alpha=[{none}], beta=[{none}], clip=none, \
         linear_before_reset={linear}, input_forget=false}} v0, v1, v2, v3, {lens_name}, v5 : {types} return {results} }}"
    );
    let mut given = vec![ramp(&[t, b, 5])?];
    if let Some(lens) = lens {
        given.push(Tensor::ints(DType::I32, &[b], lens)?.into());
    }
    given.push(ramp(&[d, b, h])?);
    Ok((body, given))
}

const CELLS: [(&str, bool); 4] = [("rnn", false), ("gru", false), ("gru", true), ("lstm", false)];

#[test]
fn sizes_around_those_of_tiles() -> Result<(), Diag> {
    let shapes =
        [[0usize, 2, 4], [1, 1, 1], [4, 1, 16], [3, 7, 17], [2, 3, 33], [2, 0, 8], [2, 1, 70], [5, 4, 31]];
    for (i, shape) in shapes.into_iter().enumerate() {
        for (j, (cell, linear)) in CELLS.into_iter().enumerate() {
            let direction = ["forward", "reverse", "both"][(i + j) % 3];
            let lens =
                ((i + j) % 2 == 0).then(|| (0..shape[1]).map(|n| (n * 2 % (shape[0] + 1)) as i128).collect());
            let (body, given) = layer(cell, direction, linear, shape, lens)?;
            same(&body, given, 1e-3)?;
        }
    }
    Ok(())
}

/// A matrix of weights with one of three blocks kept.
fn blocks(shape: &[usize], block: [u32; 2]) -> Result<String, Diag> {
    let m = Matrix::new(shape, Order::Rows).expect("a matrix");
    let mut v = vec![0f32; m.k * m.n];
    let across = m.grid(block)[1];
    m.each(block, |at, i| {
        if (at / across + at % across * 2) % 3 == 1 {
            v[i] = ((i * 37 % 101) as f32 - 50.0) / 64.0;
        }
    });
    printed(Constant::in_blocks(&Tensor::f32s(shape, &v)?, block, Order::Rows)?)
}

#[test]
fn blocks_that_are_not_kept_are_skipped() -> Result<(), Diag> {
    let shapes =
        [[0usize, 2, 4], [1, 1, 1], [4, 1, 16], [3, 7, 17], [2, 3, 33], [2, 0, 8], [3, 1, 70], [5, 4, 31]];
    let sizes = [[1, 16], [1, 8], [4, 16], [1, 32], [3, 5], [64, 64]];
    for (i, shape) in shapes.into_iter().enumerate() {
        for (j, cell) in CELLS.into_iter().enumerate() {
            for k in 0..2 {
                let block = sizes[(i + j + 3 * k) % sizes.len()];
                let direction = ["forward", "reverse", "both"][(i + j + k) % 3];
                let [steps, batch, _] = shape;
                let lens =
                    ((i + j) % 2 == 0).then(|| (0..batch).map(|n| (n * 2 % (steps + 1)) as i128).collect());
                let name = if (i + k) % 2 == 0 { batch.to_string() } else { "B".to_owned() };
                let matrix = |s: &[usize]| blocks(s, block);
                let (body, given) = layer_of(cell, (direction, &name), shape, lens, &matrix)?;
                assert!(has(&body, &format!("{}_sparse", cell.0))?, "{body}");
                same(&body, given, 1e-3)?;
            }
        }
    }
    Ok(())
}

#[test]
fn weights_of_zeros_only_are_none() -> Result<(), Diag> {
    for cell in CELLS {
        let zeros = |shape: &[usize]| {
            let n = shape.iter().product();
            printed(Constant::in_blocks(&Tensor::f32s(shape, &vec![0.0; n])?, [1, 16], Order::Rows)?)
        };
        let (body, given) = layer_of(cell, ("both", "2"), [3, 2, 20], None, &zeros)?;
        same(&body, given, 1e-5)?;
    }
    Ok(())
}

#[test]
fn threads_do_not_change_a_bit() -> Result<(), Diag> {
    for (cell, linear) in CELLS {
        for (direction, h, sparse) in
            [("forward", 132usize, false), ("both", 100, false), ("both", 132, true)]
        {
            let matrix = |s: &[usize]| if sparse { blocks(s, [1, 16]) } else { Ok(weights(s)) };
            let sizes = [3, 2, h];
            let (body, given) = layer_of((cell, linear), (direction, "B"), sizes, Some(vec![3, 2]), &matrix)?;
            let g = text::parse(&format!("planish-ir 1\n{body}"))?;
            let given: Vec<_> = given.into_iter().map(Some).collect();
            let mut first: Option<Vec<Value>> = None;
            for threads in [1, 2, 3] {
                let options = PrepareOptions { threads, ..PrepareOptions::default() };
                let engine = KernelInterpreter { target: TargetSpec::x86_64_v4() };
                let program = engine.prepare(&g, &options).map_err(|mut d| d.swap_remove(0))?;
                let mut session = program.session()?;
                for _ in 0..2 {
                    let got = session.run(&given)?.values;
                    let want = first.get_or_insert_with(|| got.clone());
                    for (g, w) in got.iter().zip(want.iter()) {
                        assert_eq!(g.tensor()?.bytes(), w.tensor()?.bytes(), "{threads} threads: {cell}");
                    }
                }
            }
        }
    }
    Ok(())
}
