//! Products with blocks whose elements are data, and blocks of products, against the graph interpreter.

use crate::lower::tests::{ramp, same};
use crate::lower::{LowerOptions, lower};
use planish_ir::{Diag, text};

/// Positions of some blocks of a grid, in no order.
fn some(count: usize) -> Vec<usize> {
    (0..count).filter(|at| (at * 7 + at / 3) % 3 == 1).rev().collect()
}

fn texts(v: &[usize]) -> String {
    v.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")
}

/// The three operations over a grid of blocks, for `m` rows.
fn follows(m: usize, [down, across]: [usize; 2], [bk, bn]: [usize; 2], index: &[usize]) -> Result<(), Diag> {
    let (k, n, s) = (down * bk, across * bn, index.len());
    let fields = format!("k={k}, n={n}, bk={bk}, bn={bn}");
    for rows in [m.to_string(), "M".to_owned()] {
        let body = format!(
            "graph @\"g\"(v0: f32[{rows},{k}], v1: f32[{rows},{n}], v2: f32[{s},{bk},{bn}]) {{
               v3 = const i64[{s}] [{}]
               v4 = block-matmul{{{fields}, trans=false}} v0, v2, v3 : f32[{rows},{n}]
               v5 = block-matmul{{{fields}, trans=true}} v1, v2, v3 : f32[{rows},{k}]
               v6 = block-outer{{{fields}}} v0, v1, v3 : f32[{s},{bk},{bn}]
               return v4, v5, v6 }}",
            texts(index)
        );
        same(&body, vec![ramp(&[m, k])?, ramp(&[m, n])?, ramp(&[s, bk, bn])?], 1e-4)?;
    }
    Ok(())
}

#[test]
fn blocks_follow_the_interpreter() -> Result<(), Diag> {
    for block in [[1, 1], [1, 2], [4, 1], [2, 4], [1, 16], [16, 1], [4, 16], [8, 8], [32, 32], [1, 32]] {
        for (m, grid) in [(1, [3, 2]), (20, [5, 3]), (64, [2, 2]), (130, [3, 1]), (0, [2, 2]), (3, [0, 2])] {
            follows(m, grid, block, &some(grid[0] * grid[1]))?;
        }
    }
    Ok(())
}

#[test]
fn no_block_and_one_block_twice() -> Result<(), Diag> {
    for m in [2, 17] {
        follows(m, [3, 4], [4, 8], &[])?;
        follows(m, [3, 4], [1, 16], &[5, 5, 0])?;
    }
    Ok(())
}

/// Sizes of blocks without a kernel, positions that are data and other types are computed as dense products.
#[test]
fn other_blocks_are_dense_products() -> Result<(), Diag> {
    follows(5, [2, 2], [3, 5], &[2, 0])?;
    follows(5, [1, 1], [64, 2], &[0])?;
    let body = "graph @\"g\"(v0: f64[5,4], v1: f64[1,2,2]) {
        v2 = const i64[1] [3]
        v3 = block-matmul{k=4, n=4, bk=2, bn=2, trans=false} v0, v1, v2 : f64[5,4]
        return v3 }";
    let wide = |shape: &[usize]| -> Result<planish_ir::Value, Diag> {
        let count: usize = shape.iter().product();
        let values = (0..count).map(|i| i as f64 - 2.5).collect();
        Ok(planish_ir::Tensor::floats(planish_ir::DType::F64, shape, values)?.into())
    };
    same(body, vec![wide(&[5, 4])?, wide(&[1, 2, 2])?], 1e-12)
}

/// A position beyond the grid is an error of the model, not of the program.
#[test]
fn positions_are_checked() -> Result<(), Diag> {
    let g = text::parse(
        "planish-ir 1
        graph @\"g\"(v0: f32[2,2], v1: f32[1,1,2]) {
          v2 = const i64[1] [4]
          v3 = block-matmul{k=2, n=4, bk=1, bn=2, trans=false} v0, v1, v2 : f32[2,4]
          return v3 }",
    )?;
    let found = lower(&g, &LowerOptions::default()).err().unwrap_or_default();
    assert!(found.iter().any(|d| d.id == "index-out-of-range"), "{found:?}");
    Ok(())
}
