//! Layers that skim against the graph interpreter, and those that read everything against layers that cannot skim.

use crate::engine::KernelInterpreter;
use crate::kernel::TargetSpec;
use crate::lower::tests::{ramp, same, weights};
use planish_ir::{Diag, Engine, PrepareOptions, Tensor, Value, text};

/// T, B, I, H, H'.
type Sizes = [usize; 5];

const CELLS: [(&str, bool); 3] = [("lstm", false), ("gru", false), ("gru", true)];

fn gates(cell: &str) -> usize {
    if cell == "lstm" { 4 } else { 3 }
}

/// The shapes of all weights, in the order of operands 1 to 8.
fn shapes(cell: &str, [_, _, i, h, s]: Sizes) -> [Vec<usize>; 8] {
    let g = gates(cell);
    [
        vec![1, g * h, i],
        vec![1, g * h, h],
        vec![1, g * s, i],
        vec![1, g * s, s],
        vec![i + h, 2],
        vec![1, 2 * g * h],
        vec![1, 2 * g * s],
        vec![2],
    ]
}

fn shape_text(d: &str, shape: &[usize]) -> String {
    format!("{d}{shape:?}").replace(' ', "")
}

/// A layer whose batch is a symbol, with first states; `more` are further inputs with their operands.
fn layer(
    (cell, linear): (&str, bool),
    sizes: Sizes,
    (d, constant, theta): (&str, bool, f64),
    more: &[(&str, &str)],
) -> Result<(String, Vec<Value>), Diag> {
    let [t, b, i, h, _] = sizes;
    let mut given = vec![ramp(&[t, b, i])?, ramp(&[1, b, h])?];
    let mut params = format!("v0: {d}[{t},B,{i}], v9: {d}[1,B,{h}]");
    let mut constants = String::new();
    for (k, shape) in shapes(cell, sizes).iter().enumerate() {
        if constant {
            constants += &format!("v{} = const {} ", k + 1, weights(shape));
        } else {
            params += &format!(", v{}: {}", k + 1, shape_text(d, shape));
            given.push(small(shape)?);
        }
    }
    let mut operands: Vec<String> = (0..10).map(|k| format!("v{k}")).collect();
    let lstm = cell == "lstm";
    operands.push(if lstm { "v9" } else { "_" }.to_owned());
    for (name, ty) in more {
        params += &format!(", {name}: {ty}");
        operands.push((*name).to_owned());
    }
    while operands.last().is_some_and(|o| o == "_") {
        operands.pop();
    }
    let last = format!("{d}[1,B,{h}]");
    let (names, types) = match lstm {
        true => ("v30, v31, v32, v33", format!("{d}[{t},1,B,{h}], {last}, {last}, {d}[{t},B]")),
        false => ("v30, v31, v33", format!("{d}[{t},1,B,{h}], {last}, {d}[{t},B]")),
    };
    let body = format!(
        "graph @\"g\"({params}) {{ {constants}{names} = skim-recurrent{{cell={cell}, linear_before_reset={linear}, \
         theta={theta:?}, temperature=0.8}} {} : {types} return {names} }}",
        operands.join(", ")
    );
    Ok((body, given))
}

fn small(shape: &[usize]) -> Result<Value, Diag> {
    let n = shape.iter().product::<usize>();
    Ok(Tensor::f32s(shape, &(0..n).map(|i| (i as f32 * 0.71).sin() * 0.4).collect::<Vec<_>>())?.into())
}

fn cast(values: Vec<Value>, d: planish_ir::DType) -> Result<Vec<Value>, Diag> {
    let one = |v: &Value| {
        let t = v.tensor()?;
        Ok(Tensor::floats(d, t.shape(), t.to_f64())?.into())
    };
    values.iter().map(one).collect()
}

#[test]
fn sizes_around_those_of_tiles() -> Result<(), Diag> {
    let sizes: [Sizes; 9] = [
        [0, 2, 3, 4, 2],
        [1, 1, 1, 1, 1],
        [7, 1, 5, 16, 5],
        [4, 7, 3, 17, 17],
        [3, 2, 6, 33, 0],
        [3, 0, 2, 8, 1],
        [5, 1, 2, 70, 40],
        [6, 9, 3, 31, 16],
        [9, 3, 33, 32, 20],
    ];
    for sizes in sizes {
        for cell in CELLS {
            for constant in [true, false] {
                let (body, given) = layer(cell, sizes, ("f32", constant, 0.5), &[])?;
                same(&body, given, 1e-3)?;
            }
        }
    }
    Ok(())
}

#[test]
fn theta_may_be_known_late_and_types_may_be_others() -> Result<(), Diag> {
    let sizes = [6, 4, 3, 20, 6];
    for cell in CELLS {
        for (d, dtype, tolerance) in
            [("f32", planish_ir::DType::F32, 1e-3), ("f64", planish_ir::DType::F64, 1e-9)]
        {
            let (body, given) = layer(cell, sizes, (d, false, 0.0), &[("v20", "f32[]")])?;
            for theta in [0.0, 0.45, 1.0] {
                let mut given = cast(given.clone(), dtype)?;
                given.push(Tensor::f32s(&[], &[theta])?.into());
                same(&body, given, tolerance)?;
            }
        }
        let (body, mut given) = layer(cell, sizes, ("f32", true, 0.0), &[("v20", "f64[1]")])?;
        given.push(Tensor::floats(planish_ir::DType::F64, &[1], vec![0.55])?.into());
        same(&body, given, 1e-3)?;
    }
    Ok(())
}

#[test]
fn noise_mixes_both_cells() -> Result<(), Diag> {
    for sizes in [[4, 3, 3, 6, 2], [3, 1, 2, 17, 0], [2, 2, 2, 5, 5]] {
        let noise = (0..sizes[0] * sizes[1] * 2).map(|i| (i as f32 * 0.37).fract()).collect::<Vec<_>>();
        for cell in CELLS {
            for constant in [true, false] {
                let ty = format!("f32[{},B,2]", sizes[0]);
                let more = [("_", "f32[]"), ("v21", ty.as_str()), ("v22", "f32[1]")];
                let (body, mut given) = layer(cell, sizes, ("f32", constant, 0.5), &more)?;
                let body = body.replace(", _: f32[]", "");
                given.push(Tensor::f32s(&[sizes[0], sizes[1], 2], &noise)?.into());
                given.push(Tensor::f32s(&[1], &[0.6])?.into());
                same(&body, given, 1e-3)?;
            }
        }
    }
    Ok(())
}

/// A layer that does not skim, with the weights of the big cell.
fn plain((cell, linear): (&str, bool), sizes: Sizes, constant: bool) -> String {
    let [t, _, i, h, _] = sizes;
    let mut params = format!("v0: f32[{t},B,{i}], v9: f32[1,B,{h}]");
    let mut constants = String::new();
    for (k, shape) in shapes(cell, sizes).iter().enumerate() {
        if constant {
            constants += &format!("v{} = const {} ", k + 1, weights(shape));
        } else {
            params += &format!(", v{}: {}", k + 1, shape_text("f32", shape));
        }
    }
    let last = format!("f32[1,B,{h}]");
    let (acts, none) = match cell {
        "lstm" => ("sigmoid, tanh, tanh", "0, 0, 0"),
        _ => ("sigmoid, tanh", "0, 0"),
    };
    let (names, more, types) = match cell {
        "lstm" => ("v30, v31, v32", ", v9", format!("f32[{t},1,B,{h}], {last}, {last}")),
        _ => ("v30, v31", "", format!("f32[{t},1,B,{h}], {last}")),
    };
    format!(
        "graph @\"g\"({params}) {{ {constants}{names} = recurrent{{cell={cell}, direction=forward, activations=[{acts}], \
         alpha=[{none}], beta=[{none}], clip=none, linear_before_reset={linear}, input_forget=false}} v0, v1, v2, v6, _, \
         v9{more} : {types} return {names} }}"
    )
}

fn run(body: &str, given: &[Value], target: &TargetSpec, threads: usize) -> Result<Vec<Value>, Diag> {
    let g = text::parse(&format!("planish-ir 1\n{body}"))?;
    let options = PrepareOptions { threads, ..PrepareOptions::default() };
    let engine = KernelInterpreter { target: target.clone() };
    let program = engine.prepare(&g, &options).map_err(|mut d| d.swap_remove(0))?;
    let given: Vec<_> = given.iter().cloned().map(Some).collect();
    let mut session = program.session()?;
    session.run(&given)?;
    Ok(session.run(&given)?.values)
}

#[test]
fn what_reads_everything_gives_the_bits_of_a_layer_that_cannot_skim() -> Result<(), Diag> {
    let targets =
        [TargetSpec::generic128(), TargetSpec::x86_64_v3(), TargetSpec::x86_64_v4(), TargetSpec::nvptx(80)];
    for sizes in [[5, 1, 7, 33, 5], [4, 3, 3, 16, 2], [3, 8, 20, 40, 20]] {
        for cell in CELLS {
            for constant in [true, false] {
                let (body, given) = layer(cell, sizes, ("f32", constant, 1.0), &[])?;
                let want = plain(cell, sizes, constant);
                for target in &targets {
                    let got = run(&body, &given, target, 2)?;
                    let want = run(&want, &given, target, 2)?;
                    for (g, w) in got.iter().zip(&want) {
                        assert_eq!(g.tensor()?.bytes(), w.tensor()?.bytes(), "{}: {body}", target.name);
                    }
                }
            }
        }
    }
    Ok(())
}

#[test]
fn threads_do_not_change_a_bit() -> Result<(), Diag> {
    for cell in CELLS {
        let (body, given) = layer(cell, [6, 3, 9, 132, 12], ("f32", true, 0.5), &[])?;
        let want = run(&body, &given, &TargetSpec::x86_64_v4(), 1)?;
        for threads in [2, 3] {
            let got = run(&body, &given, &TargetSpec::x86_64_v4(), threads)?;
            for (g, w) in got.iter().zip(&want) {
                assert_eq!(g.tensor()?.bytes(), w.tensor()?.bytes(), "{threads} threads: {cell:?}");
            }
        }
    }
    Ok(())
}
