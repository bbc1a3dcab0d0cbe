//! Gated products against the graph interpreter: results, and which blocks are left out.

use crate::lower::tests::same;
use planish_ir::{Diag, Tensor, Value};

/// Some elements are small, some zero, and one is no number where `nan` says so.
fn inputs(shape: &[usize], nan: bool) -> Result<Value, Diag> {
    let n: usize = shape.iter().product();
    let mut v: Vec<f32> = (0..n)
        .map(|i| match (i * 7) % 5 {
            0 => 0.0,
            1 | 2 => ((i % 13) as f32 - 6.0) / 64.0,
            _ => ((i % 11) as f32 - 5.0) / 4.0,
        })
        .collect();
    if let Some(last) = v.last_mut().filter(|_| nan) {
        *last = f32::NAN;
    }
    Ok(Tensor::f32s(shape, &v)?.into())
}

fn weights(n: usize) -> String {
    let v: Vec<String> = (0..n).map(|i| format!("{:?}", ((i * 37 % 101) as f32 - 50.0) / 64.0)).collect();
    v.join(", ")
}

#[test]
fn left_out_blocks_are_those_of_the_interpreter() -> Result<(), Diag> {
    let sizes = [(1usize, 1usize), (0, 5), (7, 3), (33, 50), (20, 130), (5, 300)];
    for (at, (k, n)) in sizes.into_iter().enumerate() {
        for (block, threshold) in [(1, "0.1"), (3, "0.0"), (4, "inf")] {
            let trans = (at + block) % 2 == 1;
            let dims = if trans { format!("{n},{k}") } else { format!("{k},{n}") };
            let body = |rows: &str| {
                format!(
                    "graph @\"g\"(v0: f32[{rows},{k}], v9: f32[{n}]) {{
                      v1 = const f32[{dims}] [{}]
                      v2 = gated-matmul{{threshold={threshold}, block={block}, trans_b={trans}}} v0, v1 : f32[{rows},{n}]
                      v3 = fused v2, v9 (v4: f32[{rows},{n}], v5: f32[{n}]) {{
                        v6 = binary{{kind=add}} v4, v5 : f32[{rows},{n}]
                        v7 = unary{{kind=relu}} v6 : f32[{rows},{n}]
                        yield v7
                      }} : f32[{rows},{n}]
                      return v3
                    }}",
                    weights(k * n)
                )
            };
            // Rows that are known, and that are not.
            let bias = inputs(&[n], false)?;
            for rows in [0usize, 1, 3, 6] {
                let known = rows > 0 && (rows + at + block) % 2 == 0;
                let text = if known { body(&rows.to_string()) } else { body("N") };
                same(&text, vec![inputs(&[rows, k], known && k > 5)?, bias.clone()], 1e-5)?;
            }
        }
    }
    Ok(())
}

#[test]
fn what_follows_is_fused_into_gated_products() -> Result<(), Diag> {
    let body = |rows: &str| {
        format!(
            "graph @\"g\"(v0: f32[{rows},24], v1: f32[40], v2: f32[{rows},40]) {{
              v3 = const f32[24,40] [{}]
              v4 = fused v0, v3, v1, v2 (v5: f32[{rows},24], v6: f32[24,40], v7: f32[40], v8: f32[{rows},40]) {{
                v9 = gated-matmul{{threshold=0.1, block=2, trans_b=false}} v5, v6 : f32[{rows},40]
                v10 = binary{{kind=add}} v9, v7 : f32[{rows},40]
                v11 = unary{{kind=tanh}} v10 : f32[{rows},40]
                v12 = binary{{kind=add}} v11, v8 : f32[{rows},40]
                yield v12
              }} : f32[{rows},40]
              return v4
            }}",
            weights(24 * 40)
        )
    };
    for rows in [1usize, 3, 6] {
        let given = || {
            Ok::<_, Diag>(vec![
                inputs(&[rows, 24], false)?,
                inputs(&[40], false)?,
                inputs(&[rows, 40], false)?,
            ])
        };
        same(&body("N"), given()?, 1e-5)?;
        same(&body(&rows.to_string()), given()?, 1e-5)?;
    }
    Ok(())
}
