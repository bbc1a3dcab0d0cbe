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

#[test]
fn items_put_in_by_a_loop_have_a_rank() -> Result<(), Diag> {
    let text = |body: &str, last: &str| {
        format!(
            "planish-ir 1
    sym A 0.. data
    sym B 0.. data
    graph @\"g\"(v0 \"n\": i64[], v1 \"x\": f32[N,3], v2 \"w\": f32[2]) {{
      v3 = sequence{{item=f32}} : seq<f32[..]>
      v4, v5 = loop{{carried=2, scans=0, conditional=false}} v0, _, v3, v3, v1, v2 (v6: i64[], v7: seq<f32[..]>, v8: seq<f32[..]>, v9: f32[N,3], v10: f32[2]) {{
        {body}
      }} : seq<f32[..]>, seq<f32[..]>
      v20 = concat-sequence{{axis=0, new_axis=false}} v4 : {last}
      return v20 \"y\"
    }}"
        )
    };
    let swapped = "v11 = sequence-insert v8, v9 : seq<f32[..]>
        yield v11, v7";
    let g = crate::text::parse(&text(swapped, "f32[A,B]"))?;
    crate::verify::check(&g)?;
    let x = Tensor::f32s(&[1, 3], &[1.0, 2.0, 3.0])?;
    let w = Tensor::f32s(&[2], &[0.0, 0.0])?;
    let out = crate::interp::run(&g, vec![Tensor::scalar_i64(3).into(), x.into(), w.into()])?.values;
    assert_eq!(out[0].tensor()?.shape(), [2, 3]);
    // What comes from the other list may have another rank.
    let mixed = "v11 = sequence-insert v8, v9 : seq<f32[..]>
        v12 = sequence-insert v7, v10 : seq<f32[..]>
        yield v11, v12";
    for (body, rank) in [(swapped, Some(2)), (mixed, None)] {
        let mut g = crate::text::parse(&text(body, "f32[..]"))?;
        let y = g.outputs()[0];
        let n = g.def_node(y).unwrap_or_else(|| panic!("no node"));
        crate::Editor::new(&mut g).reinfer(n)?;
        assert_eq!(g.dims(y).map(<[_]>::len), rank);
    }
    Ok(())
}
