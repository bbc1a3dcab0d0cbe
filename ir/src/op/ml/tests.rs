use crate::diag::Diag;
use crate::interp;
use crate::tensor::{MapKeys, Tensor, Value};
use crate::text::parse;

fn run(lines: &str, inputs: &str, results: &str, args: Vec<Value>) -> Result<Vec<Value>, Diag> {
    let text =
        format!("planish-ir 1\nsym A 0..\ngraph @\"main\"({inputs}) {{\n{lines}  return {results}\n}}\n");
    let g = parse(&text)?;
    assert_eq!(crate::verify::verify(&g), []);
    Ok(interp::run(&g, args)?.values)
}

/// Tree 0: x0 <= 1 (NaN holds) ? leaf 0 : (x1 > 2 ? leaf 1 : leaf 2). Tree 1: leaf 0.
const TREE: &str = r#"  v1 = const i64[2] [0, 1]
  v2 = const u8[2] [0, 3]
  v3 = const f32[2] [1.0, 2.0]
  v4 = const i64[2] [-1, -2]
  v5 = const i64[2] [1, -3]
  v6 = const u8[2] [1, 0]
  v7 = const i64[2] [0, -1]
  v8 = const i64[4] [0, 2, 3, 4]
  v9 = const i64[4] [0, 1, 1, 0]
  v10 = const f32[4] [1.0, 10.0, 100.0, 1000.0]
  v11 = tree-ensemble{targets=2, aggregate=sum} v0, v1, v2, v3, v4, v5, v6, v7, v8, v9, v10 : f32[A,2]
"#;

#[test]
fn rows_walk_to_their_leaves() -> Result<(), Diag> {
    let x = Tensor::f32s(&[4, 2], &[1.0, 0.0, 2.0, 3.0, 2.0, 2.0, f32::NAN, 9.0])?;
    let out = run(TREE, "v0 \"x\": f32[A,2]", "v11 \"y\"", vec![x.clone().into()])?;
    let want = [2.0, 20.0, 1.0, 110.0, 1001.0, 10.0, 2.0, 20.0];
    assert_eq!(out[0].tensor()?.to_f64(), want);
    let out = run(&TREE.replace("=sum", "=max"), "v0 \"x\": f32[A,2]", "v11 \"y\"", vec![x.into()])?;
    assert_eq!(out[0].tensor()?.to_f64()[2..6], [1.0, 100.0, 1000.0, 10.0]);
    Ok(())
}

#[test]
fn a_tree_that_points_nowhere_is_an_error() -> Result<(), Diag> {
    for (from, to) in [("[1, -3]", "[0, -3]"), ("[0, -1]", "[7, -1]"), ("[-1, -2]", "[-9, -2]")] {
        let x = Tensor::f32s(&[2, 2], &[1.0, 0.0, 2.0, 3.0])?;
        let d = run(&TREE.replace(from, to), "v0 \"x\": f32[A,2]", "v11 \"y\"", vec![x.into()]).err();
        assert_eq!(d.map(|d| d.id), Some("tree-malformed"), "{to}");
    }
    Ok(())
}

#[test]
fn labels_are_looked_up() -> Result<(), Diag> {
    let lines = "  v4 = label-encode v0, v1, v2, v3 : i64[3]\n";
    let x = Tensor::f32s(&[3], &[f32::NAN, 2.0, 3.0])?;
    let keys = Tensor::f32s(&[3], &[2.0, f32::NAN, 2.0])?;
    let args = vec![x.into(), keys.into(), Tensor::vec_i64(&[5, 6, 7]).into(), Tensor::scalar_i64(-1).into()];
    let inputs = "v0 \"x\": f32[3], v1 \"k\": f32[3], v2 \"v\": i64[3], v3 \"d\": i64[]";
    assert_eq!(run(lines, inputs, "v4 \"y\"", args)?[0].tensor()?.to_i64()?, [6, 5, -1]);
    Ok(())
}

#[test]
fn maps_are_zipped_and_read() -> Result<(), Diag> {
    let lines = r#"  v2 = zip-map v0, v1 : seq<map<i64,f32[]>>
  v3 = const i64[] [1]
  v4 = sequence-at v2, v3 : map<i64,f32[]>
  v5 = const i64[3] [9, 4, 9]
  v6 = dict-vectorize v4, v5 : f32[1,3]
  v7 = cast-map{to=i64, width=11} v4 : i64[1,11]
"#;
    let x = Tensor::f32s(&[2, 2], &[1.0, 2.0, 3.0, 4.0])?;
    let keys = Tensor::vec_i64(&[7, 9]);
    let inputs = "v0 \"x\": f32[2,2], v1 \"k\": i64[2]";
    let out = run(lines, inputs, "v2 \"m\", v6 \"y\", v7 \"z\"", vec![x.into(), keys.into()])?;
    let Value::Sequence(_, maps) = &out[0] else { return Err(Diag::error("type-mismatch", "no sequence")) };
    assert!(matches!(&maps[1], Value::Map(MapKeys::Int(_, _, m)) if m.keys().eq(&[7, 9])));
    assert_eq!(out[1].tensor()?.to_f64(), [4.0, 0.0, 4.0]);
    assert_eq!(out[2].tensor()?.to_i64()?, [0, 0, 0, 0, 0, 0, 0, 3, 0, 4, 0]);
    Ok(())
}
