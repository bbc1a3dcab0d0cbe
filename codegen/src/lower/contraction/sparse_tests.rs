//! Products with matrices in blocks against the graph interpreter.

use crate::lower::tests::{has, printed, ramp, same};
use planish_ir::{Constant, DType, Diag, Tensor};

/// A constant of this shape with one of three blocks kept, as text.
fn blocks(shape: &[usize], block: [u32; 2], transposed: bool) -> Result<String, Diag> {
    constant(shape, block, transposed, DType::F32)
}

fn constant(shape: &[usize], block: [u32; 2], transposed: bool, d: DType) -> Result<String, Diag> {
    let m = planish_ir::Matrix::new(shape, transposed).expect("a matrix");
    let mut v = vec![0f32; m.k * m.n];
    let across = m.grid(block)[1];
    m.each(block, |at, i| {
        if (at / across + at % across * 2) % 3 == 1 {
            v[i] = ((i * 37 % 101) as f32 - 50.0) / if d == DType::I8 { 1.0 } else { 64.0 };
        }
    });
    let t = match d {
        DType::I8 => Tensor::ints(d, shape, v.iter().map(|x| *x as i128).collect())?,
        _ => Tensor::f32s(shape, &v)?,
    };
    printed(Constant::in_blocks(&t, block, transposed)?)
}

#[test]
fn products_follow_the_interpreter() -> Result<(), Diag> {
    for block in [[1, 16], [1, 32], [4, 16], [4, 32], [32, 32], [1, 1], [1, 2], [1, 4]] {
        let label = if block[1] < 16 { "matmul_scattered" } else { "matmul_sparse" };
        for (m, k, n) in
            [(1, 64, 96), (7, 33, 40), (17, 12, 16), (64, 32, 17), (130, 40, 32), (0, 8, 16), (3, 0, 16)]
        {
            for trans in [false, true] {
                let shape = if trans { [n, k] } else { [k, n] };
                let w = blocks(&shape, block, trans)?;
                let body = |rows: &str| {
                    format!(
                        "graph @\"g\"(v0: f32[{rows},{k}], v1: f32[{n}]) {{ v2 = const {w}
                     v3 = fused v0, v2, v1 (v4: f32[{rows},{k}], v5: f32[{}], v6: f32[{n}]) {{
                       v7 = matmul{{trans_a=false, trans_b={trans}}} v4, v5 : f32[{rows},{n}]
                       v8 = binary{{kind=add}} v7, v6 : f32[{rows},{n}]
                       yield v8
                     }} : f32[{rows},{n}]
                     return v3 }}",
                        shape.map(|d| d.to_string()).join(",")
                    )
                };
                for rows in [m.to_string(), "M".to_owned()] {
                    let body = body(&rows);
                    assert!(has(&body, label)?, "{body}");
                    same(&body, vec![ramp(&[m, k])?, ramp(&[n])?], 1e-5)?;
                }
            }
        }
    }
    Ok(())
}

#[test]
fn other_blocks_are_computed_densely() -> Result<(), Diag> {
    let w = blocks(&[24, 24], [4, 4], false)?;
    let body = format!(
        "graph @\"g\"(v0: f32[5,24]) {{ v1 = const {w}
         v2 = matmul{{trans_a=false, trans_b=false}} v0, v1 : f32[5,24]
         return v2 }}"
    );
    assert!(!has(&body, "matmul_sparse")?);
    same(&body, vec![ramp(&[5, 24])?], 1e-5)
}

#[test]
fn convolutions_follow_the_interpreter() -> Result<(), Diag> {
    let cases: [(&[usize], &[usize], &str, &str, &str, &str); 8] = [
        (&[1, 32, 1, 1], &[16, 32, 1, 1], "1, 1", "0, 0, 0, 0", "1,1", "conv1x1_sparse"),
        (&[2, 40, 5, 7], &[33, 40, 1, 1], "1, 1", "0, 0, 0, 0", "5,7", "conv1x1_sparse"),
        (&[1, 18, 9, 40], &[64, 18, 1, 1], "1, 1", "0, 0, 0, 0", "9,40", "conv1x1_sparse"),
        (&[1, 32, 7, 9], &[48, 32, 1, 1], "2, 2", "0, 0, 0, 0", "4,5", "conv_sparse"),
        (&[1, 32, 12, 12], &[32, 32, 3, 3], "1, 1", "1, 1, 1, 1", "12,12", "conv_sparse"),
        (&[2, 10, 9, 8], &[18, 10, 3, 3], "2, 2", "1, 1, 1, 1", "5,4", "conv_sparse"),
        (&[0, 16, 3, 3], &[16, 16, 1, 1], "1, 1", "0, 0, 0, 0", "3,3", "conv1x1_sparse"),
        (&[1, 16, 30], &[24, 16, 5], "1", "2, 2", "30", "conv_sparse"),
    ];
    for block in [[1, 16], [1, 32], [4, 16], [4, 32], [32, 32]] {
        for (x, w, strides, pads, out, label) in cases {
            convolution(x, w, (strides, pads, out), block, label)?;
        }
    }
    Ok(())
}

/// A convolution with a bias and a sum after it has a kernel called `label` and the interpreter's results.
fn convolution(
    x: &[usize],
    w: &[usize],
    (strides, pads, out): (&str, &str, &str),
    block: [u32; 2],
    label: &str,
) -> Result<(), Diag> {
    let join = |d: &[usize]| d.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
    let (n, m) = (x[0], w[0]);
    let ones = strides.replace('2', "1");
    let dims = format!("f32[{n},{m},{out}]");
    let body = format!(
        "graph @\"g\"(v0: f32[{}], v2: f32[{m}], v3: {dims}) {{ v1 = const {}
         v4 = conv{{strides=[{strides}], dilations=[{ones}], pads=[{pads}], auto_pad=explicit, groups=1}} v0, v1, v2 : {dims}
         v5 = binary{{kind=add}} v4, v3 : {dims}
         return v5 }}",
        join(x),
        blocks(w, block, true)?
    );
    assert!(has(&body, label)?, "no {label}: {body}");
    let out: Vec<usize> = out.split(',').map(|d| d.parse().expect("a size")).collect();
    same(&body, vec![ramp(x)?, ramp(&[m])?, ramp(&[&[n, m], &out[..]].concat())?], 1e-5)
}

#[test]
fn convolutions_with_scattered_zeros_follow_the_interpreter() -> Result<(), Diag> {
    let cases: [(&[usize], &[usize], &str, &str, &str, &str); 7] = [
        (&[1, 32, 1, 1], &[16, 32, 1, 1], "1, 1", "0, 0, 0, 0", "1,1", "conv1x1_scattered"),
        (&[2, 40, 5, 7], &[33, 40, 1, 1], "1, 1", "0, 0, 0, 0", "5,7", "conv1x1_scattered"),
        (&[1, 18, 9, 40], &[64, 18, 1, 1], "1, 1", "0, 0, 0, 0", "9,40", "conv1x1_scattered"),
        (&[1, 24, 70], &[24, 24, 1], "1", "0, 0", "70", "conv1x1_scattered"),
        (&[0, 16, 3, 3], &[16, 16, 1, 1], "1, 1", "0, 0, 0, 0", "3,3", "conv1x1_scattered"),
        // These have no such kernel.
        (&[1, 32, 7, 9], &[48, 32, 1, 1], "2, 2", "0, 0, 0, 0", "4,5", "conv"),
        (&[2, 10, 9, 8], &[18, 10, 3, 3], "2, 2", "1, 1, 1, 1", "5,4", "conv"),
    ];
    for block in [[1, 1], [1, 2], [1, 4]] {
        for (x, w, strides, pads, out, label) in cases {
            convolution(x, w, (strides, pads, out), block, label)?;
        }
    }
    Ok(())
}

#[test]
fn the_batch_of_a_convolution_may_be_unknown() -> Result<(), Diag> {
    let w = blocks(&[20, 32, 1, 1], [1, 2], true)?;
    let body = format!(
        "graph @\"g\"(v0: f32[N,32,H,6]) {{ v1 = const {w}
         v2 = conv{{strides=[1, 1], dilations=[1, 1], pads=[0, 0, 0, 0], auto_pad=explicit, groups=1}} v0, v1 : f32[N,20,H,6]
         return v2 }}"
    );
    assert!(has(&body, "conv1x1_scattered")?);
    for (n, h) in [(1, 1), (3, 12), (0, 4), (2, 0)] {
        same(&body, vec![ramp(&[n, 32, h, 6])?], 1e-5)?;
    }
    Ok(())
}

#[test]
fn integer_products_follow_the_interpreter() -> Result<(), Diag> {
    for (m, k, n) in [(1, 64, 96), (7, 32, 40), (17, 12, 16), (65, 32, 17), (0, 8, 16), (3, 4, 8)] {
        let w = constant(&[k, n], [4, 16], false, DType::I8)?;
        for d in [DType::U8, DType::I8] {
            for zero in [false, true] {
                for rows in [m.to_string(), "M".to_owned()] {
                    let body = format!(
                        "graph @\"g\"(v0: {d}[{rows},{k}], v1: {d}[]) {{ v2 = const {w}
                         v3 = matmul-integer v0, v2{} : i32[{rows},{n}]
                         return v3 }}",
                        if zero { ", v1" } else { "" }
                    );
                    assert!(has(&body, "matmul_integer_sparse")?, "{body}");
                    let low = if d == DType::I8 { -128 } else { 0 };
                    let x = (0..m * k).map(|i| low + (i * 89 % 256) as i128).collect();
                    let x = Tensor::ints(d, &[m, k], x)?;
                    same(&body, vec![x.into(), Tensor::ints(d, &[], vec![low + 100])?.into()], 0.0)?;
                }
            }
        }
    }
    Ok(())
}
