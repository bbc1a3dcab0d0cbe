//! Linear attention: a recurrence over a state of key and value products.

use super::Made;
use super::attention::{repeat_heads, split_heads};
use super::parts::{
    add, at, matmul, mul, reshape_to, scale, size, size1, squeeze, sub, transpose, unsqueeze,
};
use crate::import::table::{Entry, onnx};
use crate::import::{ImportCx, OnnxNode};
use planish_ir::op::control::Loop;
use planish_ir::op::matmul::MatMul;
use planish_ir::op::unary::UnaryKind;
use planish_ir::op::views::Expand;
use planish_ir::{DType, Diag, ValueId};

pub(super) const OPS: &[Entry] = &[onnx("LinearAttention", linear_attention)];

/// Row `i` along axis 2 of `[B, H, T, D]`, as `[B, H, 1, D]`.
fn row(cx: &mut ImportCx<'_, '_>, x: ValueId, i: ValueId) -> Result<ValueId, Diag> {
    let x = at(cx, x, 2, i)?;
    unsqueeze(cx, x, &[2])
}

fn linear_attention(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    // A hint for other ways to compute the same.
    node.ignore(&["chunk_size"]);
    let (hq, hk) = (node.need_int("q_num_heads")?, node.need_int("kv_num_heads")?);
    if hk < 1 || hq < hk || hq % hk != 0 {
        return Err(
            node.error("attribute-range", "the query heads are no multiple of the key and value heads")
        );
    }
    let rule = node.choice("update_rule", 3, &["linear", "gated", "delta", "gated_delta"])?;
    let (gated, delta) = (rule == 1 || rule == 3, rule >= 2);
    if gated != node.opt(4).is_some() || delta != node.opt(5).is_some() {
        return Err(node.error("operand-missing", "decay and beta must be given as the update rule says"));
    }
    let dtype = cx.dtype(node.input(0)?)?;
    let wide = |cx: &mut ImportCx<'_, '_>, i: usize, heads: i64| {
        let x = split_heads(cx, node.input(i)?, heads)?;
        cx.cast(x, DType::F32)
    };
    let (q, k, v) = (wide(cx, 0, hq)?, wide(cx, 1, hk)?, wide(cx, 2, hk)?);
    let factor = match node.float_or("scale", 0.0)? {
        0.0 => match cx.dims(q)?[3].as_const() {
            Some(d) => 1.0 / (d as f64).sqrt(),
            None => return Err(node.unsupported("the head size must be a number")),
        },
        s => s.into(),
    };
    let q = scale(cx, q, factor)?;
    let mut captured = vec![q, k, v];
    for i in [4, 5] {
        let Some(x) = node.opt(i) else { continue };
        // One number a head, or (decay only) one for each of its elements.
        let last = cx.dims(x)?.last().and_then(|d| d.as_const());
        let x = match last {
            Some(n) if n == hk || (i == 5 && n == 1) => {
                let x = cx.reshape(x, &[0, 0, n, 1])?;
                transpose(cx, x, &[0, 2, 1, 3])?
            }
            _ if i == 4 => split_heads(cx, x, hk)?,
            _ => return Err(node.error("shape-mismatch", "beta must have one number for each head, or one")),
        };
        captured.push(cx.cast(x, DType::F32)?);
    }
    let (state, state_dtype) = match node.opt(3) {
        Some(past) => (cx.cast(past, DType::F32)?, cx.dtype(past)?),
        None => {
            let parts = [size1(cx, k, 0)?, size1(cx, k, 1)?, size1(cx, k, 3)?, size1(cx, v, 3)?];
            let zero = cx.const_f32(0.0)?;
            let one = cx.const_i64s(&[1, 1, 1, 1])?;
            let zero = cx.op(Expand {}, &[zero, one])?;
            let shape = super::parts::concat(cx, &parts, 0)?;
            (cx.op(Expand {}, &[zero, shape])?, dtype)
        }
    };
    let steps = size(cx, q, 2)?;

    let outer = cx.ed.region();
    let region = cx.ed.new_region();
    let i = cx.ed.param(region, planish_ir::Type::tensor(DType::I64, Vec::new()).into());
    let fact = cx.ty(state).clone().into();
    let mut next = cx.ed.param(region, fact);
    let mut inner = Vec::new();
    for v in &captured {
        let fact = cx.graph().value(*v).fact.clone();
        inner.push(cx.ed.param(region, fact));
    }
    cx.ed.at_end(region);
    let (q, k) = (row(cx, inner[0], i)?, row(cx, inner[1], i)?);
    let mut v = row(cx, inner[2], i)?;
    if gated {
        let g = at(cx, inner[3], 2, i)?;
        let g = cx.unary(UnaryKind::Exp, g)?;
        let g = unsqueeze(cx, g, &[3])?;
        next = mul(cx, next, g)?;
    }
    if delta {
        let known = matmul(cx, k, next)?;
        let beta = row(cx, inner[if gated { 4 } else { 3 }], i)?;
        v = sub(cx, v, known)?;
        v = mul(cx, v, beta)?;
    }
    let written = cx.op(MatMul { trans_a: true, trans_b: false }, &[k, v])?;
    next = add(cx, next, written)?;
    let shared = repeat_heads(cx, next, hk, hq / hk)?;
    let read = matmul(cx, q, shared)?;
    let read = squeeze(cx, read, &[2])?;
    cx.ed.result(region, next);
    cx.ed.result(region, read);
    cx.ed.at_end(outer);

    let mut inputs = vec![Some(steps), None, Some(state)];
    inputs.extend(captured.iter().map(|v| Some(*v)));
    let out =
        cx.ed.node_with_regions(Loop { carried: 1, scans: 1, conditional: false }, &inputs, vec![region])?;
    let [state, rows] = out[..] else { return Err(node.error("internal-import", "a loop lost its results")) };
    let y = transpose(cx, rows, &[1, 0, 2, 3])?;
    let last = cx.const_i64s(&[-1])?;
    let parts = [size1(cx, y, 0)?, size1(cx, y, 1)?, last];
    let y = reshape_to(cx, y, &parts)?;
    Ok(vec![cx.cast(y, dtype)?, cx.cast(state, state_dtype)?])
}
