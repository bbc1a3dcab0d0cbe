//! What is done with scores at the end, and the choice of a class.

use super::super::parts::{add, concat, div, mul, reduce, scale, sub};
use crate::import::{ImportCx, OnnxNode};
use planish_ir::op::binary::BinaryKind;
use planish_ir::op::gather::Gather;
use planish_ir::op::reduce::ReduceKind;
use planish_ir::op::softmax::{Softmax, SoftmaxKind};
use planish_ir::op::sort::ArgReduce;
use planish_ir::op::unary::UnaryKind;
use planish_ir::{DType, Diag, ValueId};

/// `post_transform`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Post {
    None,
    Softmax,
    Logistic,
    SoftmaxZero,
    Probit,
}

const ALL: [Post; 5] = [Post::None, Post::Softmax, Post::Logistic, Post::SoftmaxZero, Post::Probit];

impl Post {
    pub(super) fn named(node: &OnnxNode<'_>) -> Result<Post, Diag> {
        Ok(ALL
            [node.choice("post_transform", 0, &["NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT"])?])
    }
    pub(super) fn numbered(node: &OnnxNode<'_>) -> Result<Post, Diag> {
        Ok(ALL[node.int_in("post_transform", 0, 0..=4)? as usize])
    }
    /// Scores, rows x classes, transformed.
    pub(super) fn apply(self, cx: &mut ImportCx<'_, '_>, x: ValueId) -> Result<ValueId, Diag> {
        match self {
            Post::None => Ok(x),
            Post::Softmax => cx.op(Softmax { kind: SoftmaxKind::Softmax, axis: 1 }, &[x]),
            Post::Logistic => cx.unary(UnaryKind::Sigmoid, x),
            Post::SoftmaxZero => softmax_zero(cx, x),
            Post::Probit => probit(cx, x),
        }
    }
}

/// Softmax over the scores that are not 0, which stay 0.
fn softmax_zero(cx: &mut ImportCx<'_, '_>, x: ValueId) -> Result<ValueId, Diag> {
    let zero = cx.scalar_like(x, 0.0)?;
    let top = reduce(cx, ReduceKind::Max, x, Some(&[1]), true)?;
    let shifted = sub(cx, x, top)?;
    let e = cx.unary(UnaryKind::Exp, shifted)?;
    let tiny = cx.scalar_like(x, 1e-7)?;
    let size = cx.unary(UnaryKind::Abs, x)?;
    let counts = cx.binary(BinaryKind::Greater, size, tiny)?;
    // What does not count is scaled like everything else, and is 0 almost exactly.
    let floor = cx.unary(UnaryKind::Neg, top)?;
    let floor = cx.unary(UnaryKind::Exp, floor)?;
    let rest = mul(cx, x, floor)?;
    let e = cx.select(counts, e, rest)?;
    let sum = reduce(cx, ReduceKind::Sum, e, Some(&[1]), true)?;
    let flat = cx.binary(BinaryKind::Equal, sum, zero)?;
    let one = cx.scalar_like(x, 1.0)?;
    let sum = cx.select(flat, one, sum)?;
    div(cx, e, sum)
}

/// `sqrt(2) * erfinv(2 x - 1)`, by the approximation that ONNX Runtime uses.
fn probit(cx: &mut ImportCx<'_, '_>, x: ValueId) -> Result<ValueId, Diag> {
    let one = cx.scalar_like(x, 1.0)?;
    let y = scale(cx, x, 2.0)?;
    let y = sub(cx, y, one)?;
    let sign = cx.unary(UnaryKind::Sign, y)?;
    let (below, above) = (sub(cx, one, y)?, add(cx, one, y)?);
    let product = mul(cx, below, above)?;
    let log = cx.unary(UnaryKind::Log, product)?;
    let half = scale(cx, log, 0.5)?;
    let offset = cx.scalar_like(x, 2.0 / (std::f64::consts::PI * 0.147))?;
    let v = add(cx, half, offset)?;
    let v2 = scale(cx, log, 1.0 / 0.147)?;
    let square = mul(cx, v, v)?;
    let root = sub(cx, square, v2)?;
    let root = cx.unary(UnaryKind::Sqrt, root)?;
    let inner = sub(cx, root, v)?;
    let inner = cx.unary(UnaryKind::Sqrt, inner)?;
    let signed = mul(cx, sign, inner)?;
    scale(cx, signed, std::f64::consts::SQRT_2)
}

/// The labels of the classes with the greatest score in each row.
pub(super) fn best(cx: &mut ImportCx<'_, '_>, scores: ValueId, labels: ValueId) -> Result<ValueId, Diag> {
    let index = cx.op(ArgReduce { largest: true, axis: 1, keepdims: false, last: false }, &[scores])?;
    cx.op(Gather { axis: 0 }, &[labels, index])
}

/// The second of two labels for rows whose only score (rows x 1) is above a bound, else the first.
pub(super) fn above(
    cx: &mut ImportCx<'_, '_>,
    score: ValueId,
    bound: f64,
    labels: ValueId,
) -> Result<ValueId, Diag> {
    let bound = cx.scalar_like(score, bound)?;
    let positive = cx.binary(BinaryKind::Greater, score, bound)?;
    let index = cx.cast(positive, DType::I64)?;
    let index = cx.reshape(index, &[-1])?;
    cx.op(Gather { axis: 0 }, &[labels, index])
}

/// How the score of the first class follows from that of the second.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Other {
    /// 1 less it.
    Complement,
    /// Its negative.
    Opposite,
}

/// Scores of two classes from that of the second, rows x 1, transformed.
pub(super) fn two_classes(
    cx: &mut ImportCx<'_, '_>,
    score: ValueId,
    other: Other,
    post: Post,
) -> Result<ValueId, Diag> {
    if post == Post::Probit {
        return probit(cx, score);
    }
    let one = cx.scalar_like(score, 1.0)?;
    let (first, second) = match (other, post) {
        (Other::Opposite, Post::Logistic) => {
            let negative = cx.unary(UnaryKind::Neg, score)?;
            (cx.unary(UnaryKind::Sigmoid, negative)?, cx.unary(UnaryKind::Sigmoid, score)?)
        }
        (Other::Opposite, _) => (cx.unary(UnaryKind::Neg, score)?, score),
        (Other::Complement, Post::Logistic) => {
            let s = cx.unary(UnaryKind::Sigmoid, score)?;
            (sub(cx, one, s)?, s)
        }
        (Other::Complement, _) => (sub(cx, one, score)?, score),
    };
    concat(cx, &[first, second], 1)
}
