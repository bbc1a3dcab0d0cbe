use crate::diag::Diag;
use crate::interp;
use crate::tensor::{Tensor, Value};
use crate::text::{parse, print};

fn run(body: &str, inputs: &str, results: &str, args: Vec<Value>) -> Result<Vec<Value>, Diag> {
    let text = format!(
        "planish-ir 1\nsym A 0..\nsym B 0..\ngraph @\"main\"({inputs}) {{\n{body}  return {results}\n}}\n"
    );
    let g = parse(&text)?;
    assert_eq!(crate::verify::verify(&g), []);
    assert_eq!(print(&parse(&print(&g))?), print(&g));
    Ok(interp::run(&g, args)?.values)
}

#[test]
fn items_are_inserted_erased_and_found() -> Result<(), Diag> {
    let body = r#"  v2 = sequence{item=f32} v0, v1 : seq<f32[A]>
  v3 = const i64[] [-1]
  v4 = sequence-insert v2, v1, v3 : seq<f32[A]>
  v5 = sequence-at v4, v3 : f32[A]
  v6 = sequence-erase v4 : seq<f32[A]>
  v7 = sequence-length v6 : i64[]
  v8 = concat-sequence{axis=0, new_axis=false} v4 : f32[B]
"#;
    let args = vec![Tensor::f32s(&[1], &[1.0])?.into(), Tensor::f32s(&[2], &[2.0, 3.0])?.into()];
    let out = run(body, "v0 \"x\": f32[1], v1 \"y\": f32[2]", "v5 \"a\", v7 \"n\", v8 \"c\"", args)?;
    assert_eq!(out[0].tensor()?.to_f64(), [2.0, 3.0]);
    assert_eq!(out[1].tensor()?.to_i64()?, [2]);
    assert_eq!(out[2].tensor()?.to_f64(), [1.0, 2.0, 3.0, 2.0, 3.0]);
    Ok(())
}

#[test]
fn pieces_of_a_tensor_join_again() -> Result<(), Diag> {
    let body = r#"  v1 = const i64[] [2]
  v2 = split-sequence{axis=1, keepdims=true} v0, v1 : seq<f32[2,A]>
  v3 = concat-sequence{axis=-1, new_axis=false} v2 : f32[2,B]
  v4 = split-sequence{axis=0, keepdims=false} v0 : seq<f32[3]>
  v5 = concat-sequence{axis=1, new_axis=true} v4 : f32[3,B]
"#;
    let x = Tensor::f32s(&[2, 3], &[1., 2., 3., 4., 5., 6.])?;
    let out = run(body, "v0 \"x\": f32[2,3]", "v3 \"a\", v5 \"b\"", vec![x.clone().into()])?;
    assert_eq!(out[0].tensor()?, &x);
    assert_eq!(out[1].tensor()?.to_f64(), [1., 4., 2., 5., 3., 6.]);
    Ok(())
}

#[test]
fn a_position_beyond_the_end_is_an_error() -> Result<(), Diag> {
    let body = r#"  v1 = sequence{item=f32} v0 : seq<f32[1]>
  v2 = const i64[] [1]
  v3 = sequence-at v1, v2 : f32[1]
"#;
    let x = Tensor::f32s(&[1], &[1.0])?;
    let d = run(body, "v0 \"x\": f32[1]", "v3 \"a\"", vec![x.into()]).err();
    assert_eq!(d.map(|d| d.id), Some("index-out-of-range"));
    Ok(())
}

#[test]
fn optionals_tell_whether_they_hold_something() -> Result<(), Diag> {
    let body = r#"  v1 = optional{item=f32[..]} v0 : opt<f32[1]>
  v2 = optional{item=f32[..]} : opt<f32[..]>
  v3 = optional-has v1 : bool[]
  v4 = optional-has v2 : bool[]
  v5 = optional-get v1 : f32[1]
"#;
    let x = Tensor::f32s(&[1], &[7.0])?;
    let out = run(body, "v0 \"x\": f32[1]", "v3 \"a\", v4 \"b\", v5 \"c\"", vec![x.into()])?;
    let flags: Vec<_> = out.iter().map(|v| v.tensor().map(Tensor::to_f64)).collect::<Result<_, _>>()?;
    assert_eq!(flags, [[1.0], [0.0], [7.0]]);
    Ok(())
}
