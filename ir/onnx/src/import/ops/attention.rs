//! Attention and what surrounds it, as products, masks and softmax.

use super::Made;
use super::parts::unsqueeze;
use super::parts::{
    add, at, concat, div, matmul, mul, reduce, reshape_to, scale, size, size1, slice, sub, transpose,
};
use crate::import::table::{Entry, onnx, other};
use crate::import::{ImportCx, OnnxNode};
use planish_ir::op::binary::BinaryKind;
use planish_ir::op::concat::{Pad, PadMode};
use planish_ir::op::generate::Range;
use planish_ir::op::matmul::MatMul;
use planish_ir::op::reduce::ReduceKind;
use planish_ir::op::softmax::{Softmax, SoftmaxKind};
use planish_ir::op::unary::UnaryKind;
use planish_ir::op::views::Expand;
use planish_ir::{DType, Diag, Tensor, ValueId};

pub(super) const OPS: &[Entry] = &[
    onnx("Attention", attention),
    onnx("RotaryEmbedding", rotary),
    onnx("SwiGLU", swiglu),
    other("ai.onnx.preview", "FlexAttention", flex_attention),
];

type One = Result<ValueId, Diag>;

/// `[B, S, H * D]` as `[B, H, S, D]`.
pub(super) fn split_heads(cx: &mut ImportCx<'_, '_>, x: ValueId, heads: i64) -> One {
    let x = cx.reshape(x, &[0, 0, heads, -1])?;
    transpose(cx, x, &[0, 2, 1, 3])
}

/// `[B, H, S, D]` as `[B, S, H * D]`.
pub(super) fn join_heads(cx: &mut ImportCx<'_, '_>, x: ValueId) -> One {
    let x = transpose(cx, x, &[0, 2, 1, 3])?;
    cx.reshape(x, &[0, 0, -1])
}

/// Each head of `[B, H, ..]` repeated `times` in a row.
pub(super) fn repeat_heads(cx: &mut ImportCx<'_, '_>, x: ValueId, heads: i64, times: i64) -> One {
    if times == 1 {
        return Ok(x);
    }
    let rank = cx.rank(x)?;
    let mut parts = vec![size1(cx, x, 0)?, cx.const_i64s(&[heads * times])?];
    for axis in 2..rank {
        parts.push(size1(cx, x, axis)?);
    }
    let wide = unsqueeze(cx, x, &[2])?;
    let mut spec = vec![1; rank + 1];
    spec[2] = times;
    let spec = cx.const_i64s(&spec)?;
    let wide = cx.op(Expand {}, &[wide, spec])?;
    reshape_to(cx, wide, &parts)
}

/// How often key and value heads are repeated for the query heads.
fn groups(cx: &ImportCx<'_, '_>, node: &OnnxNode<'_>, q: ValueId, k: ValueId) -> Result<(i64, i64), Diag> {
    let (hq, hk) = (cx.dims(q)?[1].clone(), cx.dims(k)?[1].clone());
    if hq == hk {
        return Ok((hk.as_const().unwrap_or(1), 1));
    }
    match (hq.as_const(), hk.as_const()) {
        (Some(q), Some(k)) if k > 0 && q % k == 0 => Ok((k, q / k)),
        _ => Err(node.error("shape-mismatch", "the query heads are no multiple of the key and value heads")),
    }
}

/// Sets the square root of the scale, `1 / sqrt(head size)` unless given.
fn root_scale(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>, q: ValueId) -> One {
    let dtype = cx.dtype(q)?;
    let given = node.float("scale")?.map(f64::from);
    let fixed = cx.dims(q)?[3].as_const().map(|d| 1.0 / (d as f64).sqrt());
    if let Some(s) = given.or(fixed) {
        return cx.const_scalar(dtype, s.sqrt());
    }
    let d = size(cx, q, 3)?;
    let d = cx.cast(d, DType::F32)?;
    let root = cx.unary(UnaryKind::Sqrt, d)?;
    let root = cx.unary(UnaryKind::Sqrt, root)?;
    let root = cx.unary(UnaryKind::Reciprocal, root)?;
    cx.cast(root, dtype)
}

/// `softmax(x)` along the last of four axes, in the given precision.
fn softmax(cx: &mut ImportCx<'_, '_>, x: ValueId, precision: Option<DType>) -> One {
    let x = match precision {
        Some(precision) => cx.cast(x, precision)?,
        None => x,
    };
    cx.op(Softmax { kind: SoftmaxKind::Softmax, axis: 3 }, &[x])
}

fn range(cx: &mut ImportCx<'_, '_>, count: ValueId) -> One {
    let (zero, one) = (cx.constant(Tensor::scalar_i64(0))?, cx.constant(Tensor::scalar_i64(1))?);
    cx.op(Range {}, &[zero, count, one])
}

fn both(cx: &mut ImportCx<'_, '_>, a: Option<ValueId>, b: ValueId) -> Result<Option<ValueId>, Diag> {
    Ok(Some(match a {
        Some(a) => cx.binary(BinaryKind::And, a, b)?,
        None => b,
    }))
}

/// `attn_mask`, made as long as there are keys: the ones it does not mention are masked.
fn padded_mask(cx: &mut ImportCx<'_, '_>, mask: ValueId, keys: ValueId) -> One {
    let dims = cx.dims(mask)?;
    let total = cx.dims(keys)?[2].clone();
    if dims.last() == Some(&total) {
        return Ok(mask);
    }
    let (have, want) = (size1(cx, mask, dims.len() - 1)?, size1(cx, keys, 2)?);
    let missing = sub(cx, want, have)?;
    let zero = cx.const_i64s(&[0])?;
    let missing = cx.binary(BinaryKind::Max, missing, zero)?;
    let pads = concat(cx, &[zero, missing], 0)?;
    let dtype = cx.dtype(mask)?;
    let fill = cx.const_scalar(dtype, if dtype == DType::Bool { 0.0 } else { f64::NEG_INFINITY })?;
    let axes = cx.const_i64s(&[dims.len() as i64 - 1])?;
    cx.op(Pad { mode: PadMode::Constant }, &[mask, pads, fill, axes])
}

/// What decides which keys a query sees.
struct Masks {
    /// True where it does.
    allowed: Option<ValueId>,
    /// Added to the scores.
    bias: Option<ValueId>,
    /// Whether there may be queries that see nothing.
    rows_may_be_empty: bool,
}

fn masks(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>, q: ValueId, k: ValueId) -> Result<Masks, Diag> {
    let mut masks = Masks { allowed: None, bias: None, rows_may_be_empty: false };
    if let Some(mask) = node.opt(3) {
        let mask = padded_mask(cx, mask, k)?;
        masks.rows_may_be_empty = true;
        if cx.dtype(mask)? == DType::Bool {
            masks.allowed = Some(mask);
        } else {
            masks.bias = Some(mask);
        }
    }
    let past = node.opt(4);
    let valid = node.opt(6);
    let causal = node.flag("is_causal", false)?;
    let left = node.int_in("left_window_size", -1, -1..=i64::MAX)?;
    let right = node.int_in("right_window_size", -1, -1..=i64::MAX)?;
    if causal || left >= 0 || right >= 0 {
        let (queries, keys) = (size(cx, q, 2)?, size(cx, k, 2)?);
        let (i, j) = (range(cx, queries)?, range(cx, keys)?);
        let mut i = unsqueeze(cx, i, &[1])?;
        let offset = match (past, valid) {
            (Some(past), _) => Some(size(cx, past, 2)?),
            (None, Some(valid)) => {
                masks.rows_may_be_empty = true;
                let valid = cx.cast(valid, DType::I64)?;
                let offset = sub(cx, valid, queries)?;
                Some(cx.reshape(offset, &[-1, 1, 1, 1])?)
            }
            (None, None) => None,
        };
        if let Some(offset) = offset {
            i = add(cx, i, offset)?;
        }
        if causal {
            let seen = cx.binary(BinaryKind::LessEqual, j, i)?;
            masks.allowed = both(cx, masks.allowed, seen)?;
        }
        for (size, sign) in [(left, 1), (right, -1)] {
            if size >= 0 {
                masks.rows_may_be_empty = true;
                let ahead = if sign > 0 { sub(cx, i, j)? } else { sub(cx, j, i)? };
                let limit = cx.constant(Tensor::scalar_i64(size))?;
                let seen = cx.binary(BinaryKind::LessEqual, ahead, limit)?;
                masks.allowed = both(cx, masks.allowed, seen)?;
            }
        }
    }
    if let Some(valid) = valid {
        masks.rows_may_be_empty = true;
        let keys = size(cx, k, 2)?;
        let j = range(cx, keys)?;
        let valid = cx.cast(valid, DType::I64)?;
        let valid = cx.reshape(valid, &[-1, 1, 1, 1])?;
        let seen = cx.binary(BinaryKind::Less, j, valid)?;
        masks.allowed = both(cx, masks.allowed, seen)?;
    }
    Ok(masks)
}

fn attention(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let (mut q, mut k, mut v) = (node.input(0)?, node.input(1)?, node.input(2)?);
    let dtype = cx.dtype(q)?;
    let packed = cx.rank(q)? == 3;
    if packed {
        let (hq, hk) = (node.need_int("q_num_heads")?, node.need_int("kv_num_heads")?);
        if hq < 1 || hk < 1 {
            return Err(node.error("attribute-range", "there must be heads"));
        }
        q = split_heads(cx, q, hq)?;
        k = split_heads(cx, k, hk)?;
        v = split_heads(cx, v, hk)?;
    } else {
        node.ignore(&["q_num_heads", "kv_num_heads"]);
    }
    for x in [q, k, v] {
        if cx.rank(x)? != 4 {
            return Err(node.error("shape-mismatch", "query, key and value must have rank 3 or 4"));
        }
    }
    match (node.opt(4), node.opt(5)) {
        (Some(past_k), Some(past_v)) => {
            k = concat(cx, &[past_k, k], 2)?;
            v = concat(cx, &[past_v, v], 2)?;
        }
        (None, None) => {}
        _ => return Err(node.error("operand-missing", "past key and past value belong together")),
    }
    let (present_k, present_v) = (k, v);
    let masks = masks(cx, node, q, k)?;
    let (heads, times) = groups(cx, node, q, k)?;
    let (k, v) = (repeat_heads(cx, k, heads, times)?, repeat_heads(cx, v, heads, times)?);

    let root = root_scale(cx, node, q)?;
    let (q, k) = (mul(cx, q, root)?, mul(cx, k, root)?);
    let raw = cx.op(MatMul { trans_a: false, trans_b: true }, &[q, k])?;
    let cap = node.float_or("softcap", 0.0)?;
    let mut capped = raw;
    if cap > 0.0 {
        let cap = cx.scalar_like(raw, cap.into())?;
        let inner = div(cx, raw, cap)?;
        let inner = cx.unary(UnaryKind::Tanh, inner)?;
        capped = mul(cx, inner, cap)?;
    }
    let mut bias = masks.bias;
    if let Some(allowed) = masks.allowed {
        let (zero, hidden) = (cx.const_scalar(dtype, 0.0)?, cx.const_scalar(dtype, f64::NEG_INFINITY)?);
        let hiding = cx.select(allowed, zero, hidden)?;
        bias = Some(match bias {
            Some(bias) => add(cx, bias, hiding)?,
            None => hiding,
        });
    }
    let scores = match bias {
        Some(bias) => add(cx, capped, bias)?,
        None => capped,
    };
    let mut p = softmax(cx, scores, node.dtype("softmax_precision")?)?;
    if let Some(bias) = bias.filter(|_| masks.rows_may_be_empty) {
        let last = cx.rank(bias)? - 1;
        let best = reduce(cx, ReduceKind::Max, bias, Some(&[last]), true)?;
        let empty = cx.unary(UnaryKind::IsNegInf, best)?;
        let zero = cx.scalar_like(p, 0.0)?;
        p = cx.select(empty, zero, p)?;
    }
    let p = cx.cast(p, dtype)?;
    let shown = match node.int_in("qk_matmul_output_mode", 0, 0..=3)? {
        0 => raw,
        1 => capped,
        2 => scores,
        _ => p,
    };
    let y = matmul(cx, p, v)?;
    let y = if packed { join_heads(cx, y)? } else { y };
    Ok(vec![y, present_k, present_v, shown])
}

fn flex_attention<'m>(cx: &mut ImportCx<'_, 'm>, node: &OnnxNode<'m>) -> Made {
    let (q, k, v) = (node.input(0)?, node.input(1)?, node.input(2)?);
    let dtype = cx.dtype(v)?;
    let precision = match node.dtype("softmax_precision")? {
        Some(precision) => precision,
        None if cx.dtype(q)? == DType::F64 => DType::F64,
        None => DType::F32,
    };
    for x in [q, k, v] {
        if cx.rank(x)? != 4 {
            return Err(node.error("shape-mismatch", "query, key and value must have rank 4"));
        }
    }
    let (heads, times) = groups(cx, node, q, k)?;
    let (k, v) = (repeat_heads(cx, k, heads, times)?, repeat_heads(cx, v, heads, times)?);
    let root = root_scale(cx, node, q)?;
    let (q, k) = (mul(cx, q, root)?, mul(cx, k, root)?);
    let scores = cx.op(MatMul { trans_a: false, trans_b: true }, &[q, k])?;
    let mut scores = cx.cast(scores, precision)?;
    let modified = |cx: &mut ImportCx<'_, 'm>, name: &str, x: ValueId| -> One {
        if node.attr(name).is_none() {
            return Ok(x);
        }
        match cx.inline(node, node.graph(name)?, &[x])?[..] {
            [y] => Ok(y),
            _ => Err(node.error("subgraph-arity", format!("{name} must give one result"))),
        }
    };
    scores = modified(cx, "score_mod", scores)?;
    let p = softmax(cx, scores, None)?;
    let p = modified(cx, "prob_mod", p)?;
    let v = cx.cast(v, precision)?;
    let y = matmul(cx, p, v)?;
    Ok(vec![cx.cast(y, dtype)?])
}

fn swiglu(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let (a, b) = (node.input(0)?, node.input(1)?);
    let inner = scale(cx, a, node.float_or("alpha", 1.0)?.into())?;
    let gate = cx.unary(UnaryKind::Sigmoid, inner)?;
    let gate = mul(cx, a, gate)?;
    Ok(vec![mul(cx, gate, b)?])
}

/// Rotates pairs of elements of the last axis, as `[B, S, H, D]`.
fn rotary(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    let input = node.input(0)?;
    let packed = cx.rank(input)? == 3;
    let x = if packed {
        let heads = node.int_in("num_heads", 0, 1..=i64::MAX)?;
        cx.reshape(input, &[0, 0, heads, -1])?
    } else {
        node.ignore(&["num_heads"]);
        transpose(cx, input, &[0, 2, 1, 3])?
    };
    let head = cx.dims(x)?.get(3).and_then(|d| d.as_const());
    let head = head.ok_or_else(|| node.unsupported("the head size must be a number"))?;
    let rotated = match node.int_in("rotary_embedding_dim", 0, 0..=head)? {
        0 => head,
        d => d,
    };
    let mut caches = Vec::new();
    for i in [1, 2] {
        let mut cache = node.input(i)?;
        if let Some(positions) = node.opt(3) {
            cache = at(cx, cache, 0, positions)?;
        }
        caches.push(unsqueeze(cx, cache, &[2])?);
    }
    let [cos, sin] = caches[..] else {
        return Err(node.error("operand-missing", "cosines and sines are needed"));
    };
    let rest = if rotated < head { Some(slice(cx, x, 3, rotated, head, 1)?) } else { None };
    let interleaved = node.flag("interleaved", false)?;
    let (a, b) = if interleaved {
        (slice(cx, x, 3, 0, rotated, 2)?, slice(cx, x, 3, 1, rotated, 2)?)
    } else {
        (slice(cx, x, 3, 0, rotated / 2, 1)?, slice(cx, x, 3, rotated / 2, rotated, 1)?)
    };
    let (ca, sb) = (mul(cx, cos, a)?, mul(cx, sin, b)?);
    let (sa, cb) = (mul(cx, sin, a)?, mul(cx, cos, b)?);
    let (real, imaginary) = (sub(cx, ca, sb)?, add(cx, sa, cb)?);
    let mut y = if interleaved {
        let pair = [unsqueeze(cx, real, &[4])?, unsqueeze(cx, imaginary, &[4])?];
        let pair = concat(cx, &pair, 4)?;
        cx.reshape(pair, &[0, 0, 0, rotated])?
    } else {
        concat(cx, &[real, imaginary], 3)?
    };
    if let Some(rest) = rest {
        y = concat(cx, &[y, rest], 3)?;
    }
    Ok(vec![if packed { cx.reshape(y, &[0, 0, -1])? } else { transpose(cx, y, &[0, 2, 1, 3])? }])
}
