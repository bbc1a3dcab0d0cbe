use super::{parse, print};
use crate::interp;
use crate::tensor::Tensor;
use crate::verify::verify;

const SAMPLE: &str = r#"planish-ir 1
sym N 0..
graph @"main"(v0 "x": f32[N,2]) {
  v1 = const f32[2,2] [0.1, -3.0, 2.0, 0.2]
  v2 = const f32[2] splat 0x0000803f @"c"
  v3 = binary{kind=add} v0, v2 : f32[N,2] @"/fc/Add":"Add":13
  v4 = cast{to=f16, saturate=true} v1 : f16[2,2]
  return v3 "y", v4 "z"
}
"#;

#[test]
fn printing_reverses_parsing() -> Result<(), crate::Diag> {
    let g = parse(SAMPLE)?;
    assert_eq!(print(&g), SAMPLE);
    assert_eq!(verify(&g), []);
    let x = Tensor::f32s(&[1, 2], &[1.0, 2.0])?;
    let out = interp::run(&g, vec![x.into()])?;
    assert_eq!(out.values[0].tensor()?.to_f64(), [2.0, 3.0]);
    Ok(())
}

#[test]
fn malformed_text_is_blamed_where_it_stands() {
    for (bad, at) in [("v9", "binary{kind=add} v0, v9"), ("kind=ad}", "binary{kind=ad} v0, v2")] {
        let text = SAMPLE.replace("binary{kind=add} v0, v2", at);
        let d = parse(&text).err();
        assert!(d.is_some(), "{bad}");
    }
    for n in 0..SAMPLE.len() {
        if SAMPLE.is_char_boundary(n) {
            let _ = parse(&SAMPLE[..n]);
        }
    }
}

#[test]
fn every_encoding_can_be_read() -> Result<(), crate::Diag> {
    for c in [
        "f32[2,4] blocks 1x2 kn [1,2] [1.0, 2.0, 3.0, 4.0]",
        "f32[3,2,1,1] blocks 2x2 nk [0] [1.0, 2.0, 3.0, 4.0]",
        "f32[4] nofm 1 2 0x0100 [5.0, 6.0]",
        "f32[3] codebook 0x000101 [0.5, 1.5]",
        "i4[3] packed4 0x1f07",
    ] {
        let text = format!("planish-ir 1\ngraph @\"main\"() {{\n  v0 = const {c}\n  return v0 \"y\"\n}}\n");
        assert_eq!(print(&parse(&text)?), text);
    }
    Ok(())
}
