use super::*;
use crate::interp;
use crate::text::parse;

fn run(text: &str, inputs: Vec<Tensor>) -> Result<Tensor, Diag> {
    let g = parse(text)?;
    assert_eq!(crate::verify::verify(&g), []);
    let out = interp::run(&g, inputs.into_iter().map(Value::from).collect())?;
    Ok(out.values[0].tensor()?.clone())
}

fn f32s(v: &[f32]) -> Result<Tensor, Diag> {
    Tensor::f32s(&[v.len()], v)
}

#[test]
fn quantisation_rounds_to_even_and_saturates() -> Result<(), Diag> {
    let text = r#"planish-ir 1
graph @"main"(v0 "x": f32[6], v1 "s": f32[], v2 "z": u8[]) {
  v3 = quantize{axis=1, block=0, to=u8, saturate=true, precision=f32} v0, v1, v2 : u8[6]
  return v3 "y"
}
"#;
    let x = f32s(&[0.0, 2.0, 3.0, 1000.0, -254.0, -1000.0])?;
    let z = Tensor::ints(DType::U8, &[], vec![128])?;
    let y = run(text, vec![x, Tensor::f32s(&[], &[2.0])?, z])?;
    assert_eq!(y.to_f64(), [128.0, 129.0, 130.0, 255.0, 1.0, 0.0]);
    Ok(())
}

#[test]
fn blocks_and_axes_pick_their_scale() -> Result<(), Diag> {
    let text = r#"planish-ir 1
graph @"main"(v0 "x": i8[2,3], v1 "s": f32[2,2]) {
  v2 = dequantize{axis=1, block=2, to=f32} v0, v1 : f32[2,3]
  return v2 "y"
}
"#;
    let x = Tensor::ints(DType::I8, &[2, 3], vec![1, 2, 3, 4, 5, -6])?;
    let y = run(text, vec![x.clone(), Tensor::f32s(&[2, 2], &[1.0, 10.0, 100.0, 1000.0])?])?;
    assert_eq!(y.to_f64(), [1.0, 2.0, 30.0, 400.0, 500.0, -6000.0]);
    let text = text.replace("axis=1, block=2", "axis=-2, block=0").replace("f32[2,2]", "f32[2]");
    let y = run(&text, vec![x, f32s(&[1.0, 0.5])?])?;
    assert_eq!(y.to_f64(), [1.0, 2.0, 3.0, 2.0, 2.5, -3.0]);
    Ok(())
}

#[test]
fn eight_bit_floats_overflow_as_asked() -> Result<(), Diag> {
    for (saturate, want) in [(true, 448.0), (false, f64::NAN)] {
        let text = format!(
            r#"planish-ir 1
graph @"main"(v0 "x": f32[2], v1 "s": f32[]) {{
  v2 = quantize{{axis=1, block=0, to=f8e4m3fn, saturate={saturate}, precision=f32}} v0, v1 : f8e4m3fn[2]
  return v2 "y"
}}
"#
        );
        let y = run(&text, vec![f32s(&[1e6, 3.0])?, Tensor::f32s(&[], &[2.0])?])?.to_f64();
        assert_eq!((y[0].to_bits(), y[1]), (want.to_bits(), 1.5));
    }
    Ok(())
}

#[test]
fn integer_products_take_zero_points_of_rows_and_columns() -> Result<(), Diag> {
    let text = r#"planish-ir 1
sym M 0..
graph @"main"(v0 "a": u8[M,2], v1 "b": i8[2,2], v2 "az": u8[M,1], v3 "bz": i8[2]) {
  v4 = matmul-integer v0, v1, v2, v3 : i32[M,2]
  return v4 "y"
}
"#;
    let a = Tensor::ints(DType::U8, &[2, 2], vec![1, 2, 255, 4])?;
    let b = Tensor::ints(DType::I8, &[2, 2], vec![-128, 1, 2, 3])?;
    let (az, bz) =
        (Tensor::ints(DType::U8, &[2, 1], vec![1, 0])?, Tensor::ints(DType::I8, &[2], vec![0, 1])?);
    let y = run(text, vec![a, b, az, bz])?;
    assert_eq!(y.to_f64(), [2.0, 2.0, 255.0 * -128.0 + 8.0, 8.0]);
    Ok(())
}

#[test]
fn scales_of_another_number_are_refused() {
    let text = r#"planish-ir 1
graph @"main"(v0 "x": i8[2,3], v1 "s": f32[2]) {
  v2 = dequantize{axis=1, block=0, to=f32} v0, v1 : f32[2,3]
  return v2 "y"
}
"#;
    assert_eq!(parse(text).err().map(|d| d.id), Some("shape-mismatch"));
}
