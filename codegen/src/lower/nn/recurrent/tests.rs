//! Layers with packed weights: sizes around those of tiles, and threads.

use crate::engine::KernelInterpreter;
use crate::kernel::TargetSpec;
use crate::lower::tests::{ramp, same, weights};
use planish_ir::{DType, Diag, Engine, PrepareOptions, Tensor, Value, text};

/// A layer of `h` units with constant weights, 5 inputs, biases and a first h, and its inputs.
#[allow(clippy::too_many_arguments)]
fn layer(
    cell: &str,
    direction: &str,
    linear: bool,
    [t, b, h]: [usize; 3],
    lens: Option<Vec<i128>>,
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
    let (results, types) = match cell {
        "lstm" => ("v6, v7, v8", format!("f32[{t},{d},B,{h}], f32[{d},B,{h}], f32[{d},B,{h}]")),
        _ => ("v6, v7", format!("f32[{t},{d},B,{h}], f32[{d},B,{h}]")),
    };
    let mut constants = String::new();
    for (k, s) in [vec![d, gates * h, 5], vec![d, gates * h, h], vec![d, 2 * gates * h]].iter().enumerate() {
        constants += &format!("v{} = const {} ", k + 1, weights(s));
    }
    let (lens_name, lens_input) = if lens.is_some() { ("v4", ", v4: i32[B]") } else { ("_", "") };
    let body = format!(
        "graph @\"g\"(v0: f32[{t},B,5]{lens_input}, v5: f32[{d},B,{h}]) {{ {constants}{results} = recurrent{{cell={cell}, \
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

#[test]
fn threads_do_not_change_a_bit() -> Result<(), Diag> {
    for (cell, linear) in CELLS {
        for (direction, h) in [("forward", 132usize), ("both", 100)] {
            let (body, given) = layer(cell, direction, linear, [3, 2, h], Some(vec![3, 2]))?;
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
