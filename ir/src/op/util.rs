//! What several data-movement operations share.

use crate::diag::Diag;
use crate::dim::{Dim, Symbols};
use crate::dtype::DType;
use crate::graph::Fact;
use crate::op::infer::MAX_CONTENT;
use crate::tensor::{Tensor, elem_count};
use crate::types::{Quant, TensorType, Type};
use bytes::Bytes;
use std::sync::Arc;

/// A tensor of shape `shape` whose elements are those of `t` at these row-major positions, bit for bit.
pub(crate) fn pick(t: &Tensor, shape: Vec<usize>, positions: &[usize]) -> Result<Tensor, Diag> {
    let bad = || Diag::error("internal-eval", "position beyond the tensor");
    if t.dtype() == DType::Str {
        let s = t.strings();
        let out = positions.iter().map(|p| s.get(*p).cloned().ok_or_else(bad)).collect::<Result<_, _>>()?;
        return Tensor::from_strings(shape, out);
    }
    let (size, data) = (t.dtype().size(), t.bytes());
    let mut out = Vec::with_capacity(positions.len() * size);
    for p in positions {
        out.extend_from_slice(data.get(p * size..(p + 1) * size).ok_or_else(bad)?);
    }
    Tensor::from_bytes(t.dtype(), shape, Bytes::from(out))
}

/// Calls `f` with every index of `shape`, in row-major order.
pub(crate) fn for_each_index(
    shape: &[usize],
    mut f: impl FnMut(&[usize]) -> Result<(), Diag>,
) -> Result<(), Diag> {
    let mut index = vec![0usize; shape.len()];
    for _ in 0..elem_count(shape)? {
        f(&index)?;
        for axis in (0..shape.len()).rev() {
            index[axis] += 1;
            if index[axis] < shape[axis] {
                break;
            }
            index[axis] = 0;
        }
    }
    Ok(())
}

/// The elements of `t` that `source` names for every index of `shape`.
pub(crate) fn gather_by(
    t: &Tensor,
    shape: Vec<usize>,
    mut source: impl FnMut(&[usize]) -> Result<usize, Diag>,
) -> Result<Tensor, Diag> {
    let mut positions = Vec::new();
    for_each_index(&shape, |i| {
        positions.push(source(i)?);
        Ok(())
    })?;
    pick(t, shape, &positions)
}

/// The row-major position of an index.
pub(crate) fn flat(index: &[usize], strides: &[usize]) -> usize {
    index.iter().zip(strides).map(|(i, s)| i * s).sum()
}

/// A possibly negative index into an axis of size `n`.
pub(crate) fn element_index(i: i64, n: usize) -> Result<usize, Diag> {
    let at = if i < 0 { i128::from(i) + n as i128 } else { i128::from(i) };
    usize::try_from(at)
        .ok()
        .filter(|a| *a < n)
        .ok_or_else(|| Diag::error("index-out-of-range", format!("index {i} into an axis of size {n}")))
}

/// A size that must not be negative.
pub(crate) fn size_of(v: i64) -> Result<usize, Diag> {
    usize::try_from(v).map_err(|_| Diag::error("shape-mismatch", format!("a dim cannot be {v}")))
}

/// Sizes that must not be negative.
pub(crate) fn sizes_of(v: &[i64]) -> Result<Vec<usize>, Diag> {
    v.iter().map(|d| size_of(*d)).collect()
}

/// The product of the sizes before, at and after an axis.
pub(crate) fn split_at_axis(shape: &[usize], axis: usize) -> (usize, usize, usize) {
    let before = shape[..axis].iter().product();
    let after = shape[axis + 1..].iter().product();
    (before, shape[axis], after)
}

/// An error unless the two dims may be equal.
pub(crate) fn expect_equal(a: &Dim, b: &Dim, what: &str) -> Result<(), Diag> {
    match (a.as_const(), b.as_const()) {
        (Some(x), Some(y)) if x != y => {
            Err(Diag::error("shape-mismatch", format!("{what}: {x} and {y} differ")))
        }
        _ => Ok(()),
    }
}

/// The smaller of two dims, decided by the ranges of the symbols where they suffice.
pub(crate) fn smaller(a: &Dim, b: &Dim, symbols: &Symbols) -> Dim {
    match a.sub(b).bounds(symbols) {
        (_, Some(hi)) if hi <= 0 => a.clone(),
        (Some(lo), _) if lo >= 0 => b.clone(),
        _ => a.smaller(b),
    }
}

/// The larger of two dims, decided by the ranges of the symbols where they suffice.
pub(crate) fn larger(a: &Dim, b: &Dim, symbols: &Symbols) -> Dim {
    match a.sub(b).bounds(symbols) {
        (_, Some(hi)) if hi <= 0 => b.clone(),
        (Some(lo), _) if lo >= 0 => a.clone(),
        _ => a.larger(b),
    }
}

/// Quantisation that survives when elements move: one scale for all.
pub(crate) fn moved_quant(ty: &TensorType) -> Result<Option<Arc<Quant>>, Diag> {
    match &ty.quant {
        Some(q) if q.axis.is_some() => Err(Diag::error(
            "unsupported-quant",
            "a tensor quantised along an axis cannot be rearranged here",
        )),
        q => Ok(q.clone()),
    }
}

/// The fact of a tensor.
pub(crate) fn fact(dtype: DType, dims: Vec<Dim>) -> Fact {
    Type::from(TensorType::new(dtype, dims)).into()
}

/// The fact of a tensor whose elements come from `like`, with content if it is small and of rank 0 or 1.
pub(crate) fn moved(
    like: &TensorType,
    dims: Vec<Dim>,
    content: impl FnOnce() -> Option<Vec<Dim>>,
) -> Result<Fact, Diag> {
    let content = if dims.len() <= 1 { content().filter(|c| c.len() <= MAX_CONTENT) } else { None };
    let ty = TensorType { dtype: like.dtype, shape: Some(dims), quant: moved_quant(like)? };
    Ok(Fact { ty: ty.into(), content })
}

/// The integers an operand must hold, one per element of a vector whose length is known.
pub(crate) fn vector_len(dims: &[Dim], what: &str) -> Result<usize, Diag> {
    match dims {
        [n] => n
            .as_const()
            .and_then(|n| usize::try_from(n).ok())
            .filter(|n| *n <= 64)
            .ok_or_else(|| Diag::error("unsupported-rank", format!("the length of {what} is not known"))),
        _ => Err(Diag::error("shape-mismatch", format!("{what} must be a vector"))),
    }
}

/// Floats of an operand, whatever the numeric type.
pub(crate) fn scalar_f64(t: &Tensor, what: &str) -> Result<f64, Diag> {
    match t.to_f64().as_slice() {
        [v] => Ok(*v),
        _ => Err(Diag::error("shape-mismatch", format!("{what} must be one number"))),
    }
}

/// The single integer of an operand.
pub(crate) fn scalar_i64(t: &Tensor, what: &str) -> Result<i64, Diag> {
    match t.to_i64()?.as_slice() {
        [v] => Ok(*v),
        _ => Err(Diag::error("shape-mismatch", format!("{what} must be one integer"))),
    }
}

/// Whether a dtype is one of the two index types.
pub(crate) fn is_index(d: DType) -> bool {
    matches!(d, DType::I32 | DType::I64)
}
