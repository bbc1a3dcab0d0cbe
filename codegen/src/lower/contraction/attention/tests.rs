//! Against the interpreter, on every ISA level of this CPU.

use crate::lower::tests::{ramp, same};
use planish_ir::{Diag, Tensor, Value};

fn graph(inputs: &str, nodes: &str) -> String {
    format!("graph @\"g\"({inputs}) {{ {nodes} return y }}").replace(" y", " v9")
}

fn filled(shape: &[usize], value: f32) -> Result<Value, Diag> {
    Ok(Tensor::f32s(shape, &vec![value; shape.iter().product()])?.into())
}

#[test]
fn any_numbers_of_queries_keys_and_columns() -> Result<(), Diag> {
    let inputs = "v0: f32[B,L,D], v1: f32[B,D,S], v2: f32[B,S,E]";
    let op = "y = attention{scale=0.25, trans_k=false} v0, v1, v2 : f32[B,L,E]";
    let transposed = "v0: f32[B,L,D], v1: f32[B,S,D], v2: f32[B,S,E]";
    let other = "y = attention{scale=0.25, trans_k=true} v0, v1, v2 : f32[B,L,E]";
    for [n, l, s, d, e] in [
        [1usize, 1usize, 1usize, 1usize, 1usize],
        [2, 33, 129, 5, 17],
        [3, 7, 300, 16, 64],
        [1, 64, 128, 32, 33],
        [2, 1, 77, 8, 40],
        [2, 4, 0, 8, 3],
        [2, 0, 5, 8, 3],
        [0, 3, 5, 8, 3],
        [1, 3, 5, 0, 3],
        [1, 3, 5, 2, 0],
    ] {
        let known = |text: &str| {
            [("B", n), ("L", l), ("S", s), ("D", d), ("E", e)]
                .iter()
                .fold(text.to_owned(), |t, (name, size)| t.replace(name, &size.to_string()))
        };
        let given = |k: &[usize]| Ok::<_, Diag>(vec![ramp(&[n, l, d])?, ramp(k)?, ramp(&[n, s, e])?]);
        same(&graph(inputs, op), given(&[n, d, s])?, 1e-5)?;
        same(&graph(&known(inputs), &known(op)), given(&[n, d, s])?, 1e-5)?;
        same(&graph(transposed, other), given(&[n, s, d])?, 1e-5)?;
    }
    Ok(())
}

#[test]
fn masks_are_broadcast_and_may_hide_all_keys_of_a_block() -> Result<(), Diag> {
    let op = "y = attention{scale=0.5, trans_k=false} v0, v1, v2, v3 : f32[B,2,L,E]";
    let mut hidden = vec![0.0f32; 300];
    hidden[..140].fill(f32::NEG_INFINITY);
    let hide = Tensor::f32s(&[300], &hidden)?.into();
    for (dims, mask) in [
        ("S", hide),
        ("1,1", filled(&[1, 1], 3.0)?),
        ("L,1", ramp(&[20, 1])?),
        ("B,1,1,S", ramp(&[3, 1, 1, 300])?),
        ("2,L,S", ramp(&[2, 20, 300])?),
        ("S", filled(&[300], f32::MIN)?),
    ] {
        let inputs = format!("v0: f32[B,2,L,D], v1: f32[2,D,S], v2: f32[B,1,S,E], v3: f32[{dims}]");
        let given = vec![ramp(&[3, 2, 20, 6])?, ramp(&[2, 6, 300])?, ramp(&[3, 1, 300, 9])?, mask];
        same(&graph(&inputs, op), given, 1e-5)?;
    }
    Ok(())
}

#[test]
fn transpositions_around_it_need_no_memory() -> Result<(), Diag> {
    let inputs = "v0: f32[B,L,H,D], v1: f32[B,S,H,D], v2: f32[B,S,H,E]";
    let parts = "v3 = transpose{perm=[0, 2, 1, 3]} v0 : f32[B,H,L,D] \
        v4 = transpose{perm=[0, 2, 3, 1]} v1 : f32[B,H,D,S] \
        v5 = transpose{perm=[0, 2, 1, 3]} v2 : f32[B,H,S,E] \
        v6 = attention{scale=0.5, trans_k=false} v3, v4, v5 : f32[B,H,L,E]";
    let given =
        || Ok::<_, Diag>(vec![ramp(&[2, 37, 3, 8])?, ramp(&[2, 150, 3, 8])?, ramp(&[2, 150, 3, 20])?]);
    let out = "y = transpose{perm=[0, 2, 1, 3]} v6 : f32[B,L,H,E]";
    same(&graph(inputs, &format!("{parts} {out}")), given()?, 1e-5)?;
    // The result is read by the next attention, too.
    let next = "v7 = transpose{perm=[2, 0, 1, 3]} v6 : f32[L,B,H,E] \
        v8 = transpose{perm=[1, 2, 0, 3]} v7 : f32[B,H,L,E] \
        y = attention{scale=0.125, trans_k=true} v8, v5, v5 : f32[B,H,L,E]";
    same(&graph(inputs, &format!("{parts} {next}")), given()?, 1e-4)
}
