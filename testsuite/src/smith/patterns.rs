//! Recipes for groups of operations that passes put together: what exporters write out for one layer.

use super::elementwise::{float_type, holds_exactly};
use super::values::{broadcastable, small_dim};
use super::{Domain, Item, Quality, Smith};
use planish_ir::{DType, Tensor};

/// An inner operation: nothing else uses its result.
fn step(s: &mut Smith, name: &str, fields: &[(&str, String)], operands: &[&Item], size: f64) -> Option<Item> {
    let before = s.pool.len();
    let exact = operands.iter().all(|x| x.exact) && matches!(name, "transpose" | "reshape");
    let made = s.emit1(name, fields, operands, Quality { exact, size });
    s.pool.truncate(before);
    made
}

fn unary(s: &mut Smith, kind: &str, x: &Item, size: f64) -> Option<Item> {
    step(s, "unary", &[("kind", kind.to_owned())], &[x], size)
}

fn binary(s: &mut Smith, kind: &str, a: &Item, b: &Item, size: f64) -> Option<Item> {
    step(s, "binary", &[("kind", kind.to_owned())], &[a, b], size)
}

fn scalar(s: &mut Smith, dtype: DType, value: f64) -> Option<Item> {
    let tensor = Tensor::scalar(dtype, value).ok()?;
    let v = s.constant(tensor);
    Some(Item { v, dtype, shape: Vec::new(), exact: true, size: value.abs() })
}

fn matmul(s: &mut Smith, a: &Item, b: &Item, trans_b: bool, size: f64) -> Option<Item> {
    let fields = [("trans_a", "false".to_owned()), ("trans_b", trans_b.to_string())];
    step(s, "matmul", &fields, &[a, b], size)
}

fn keep(s: &mut Smith, item: Option<Item>) -> Option<Item> {
    let item = item?;
    s.pool.push(item.clone());
    Some(item)
}

/// Queries, keys and values, and a mask for the scores.
struct Heads {
    q: Item,
    k: Item,
    v: Item,
    mask: Option<Item>,
    trans_k: bool,
    scale: f64,
}

fn heads(s: &mut Smith) -> Heads {
    let dtype = if s.rng.one_in(6) { DType::F64 } else { DType::F32 };
    let rank = s.rng.below(3);
    let mut lead: Vec<usize> = (0..rank).map(|_| 1 + s.rng.below(3)).collect();
    let (l, n) = (1 + s.rng.below(20), 1 + s.rng.below(40));
    let (d, e) = (1 + s.rng.below(20), 1 + s.rng.below(20));
    let trans_k = s.rng.one_in(2);
    let with = |lead: &[usize], a: usize, b: usize| [lead, &[a, b]].concat();
    let q = s.get(dtype, &with(&lead, l, d), Domain::Exact);
    let k = if trans_k { with(&lead, n, d) } else { with(&lead, d, n) };
    let k = s.get(dtype, &k, Domain::Exact);
    let v = s.get(dtype, &with(&lead, n, e), Domain::Exact);
    lead.extend([l, n]);
    let mask = s.rng.one_in(2).then(|| {
        let dims = broadcastable(&mut s.rng, &lead);
        s.get(dtype, &dims, Domain::Exact)
    });
    Heads { q, k, v, mask, trans_k, scale: s.rng.choose(&[1.0, 0.5, 0.25]) }
}

pub(crate) fn attention(s: &mut Smith) -> Option<Item> {
    let h = heads(s);
    let fields = [("scale", format!("{:?}", h.scale)), ("trans_k", h.trans_k.to_string())];
    let size = 2.0 * h.v.size;
    let operands = [Some(&h.q), Some(&h.k), Some(&h.v), h.mask.as_ref()];
    s.emit("attention", &fields, &operands, Quality { exact: false, size })?.into_iter().next()
}

pub(crate) fn attention_in_parts(s: &mut Smith) -> Option<Item> {
    let h = heads(s);
    let size = h.q.size * h.k.size * 20.0;
    let scores = matmul(s, &h.q, &h.k, h.trans_k, size)?;
    let scale = scalar(s, h.q.dtype, h.scale)?;
    let mut scores = binary(s, "mul", &scores, &scale, size)?;
    if let Some(mask) = &h.mask {
        scores = binary(s, "add", &scores, mask, size + 6.0)?;
    }
    let fields = [("kind", "softmax".to_owned()), ("axis", (scores.rank() - 1).to_string())];
    let weights = step(s, "softmax", &fields, &[&scores], 1.0)?;
    let out = matmul(s, &weights, &h.v, false, 2.0 * h.v.size);
    keep(s, out)
}

/// Gelu, its approximation, mish, hard-swish and swish, as exporters write them.
pub(crate) fn activation(s: &mut Smith) -> Option<Item> {
    let dtype = float_type(s);
    let x = s.some(&[dtype], |item| item.size <= 64.0, super::values::any_shape);
    let size = x.size;
    let out = match s.rng.below(5) {
        0 => {
            let (root, one, half) =
                (scalar(s, dtype, 2f64.sqrt())?, scalar(s, dtype, 1.0)?, scalar(s, dtype, 0.5)?);
            let y = binary(s, "div", &x, &root, size)?;
            let y = unary(s, "erf", &y, 1.0)?;
            let y = binary(s, "add", &y, &one, 2.0)?;
            let y = binary(s, "mul", &x, &y, 2.0 * size)?;
            binary(s, "mul", &y, &half, size)
        }
        1 => {
            let y = unary(s, "softplus", &x, size + 1.0)?;
            let y = unary(s, "tanh", &y, 1.0)?;
            binary(s, "mul", &x, &y, size)
        }
        2 => {
            let (three, six, zero) = (scalar(s, dtype, 3.0)?, scalar(s, dtype, 6.0)?, scalar(s, dtype, 0.0)?);
            let y = binary(s, "add", &x, &three, size + 3.0)?;
            let y = binary(s, "max", &y, &zero, size + 3.0)?;
            let y = binary(s, "min", &y, &six, 6.0)?;
            let y = binary(s, "mul", &x, &y, 6.0 * size)?;
            binary(s, "div", &y, &six, size)
        }
        3 => {
            let y = unary(s, "sigmoid", &x, 1.0)?;
            binary(s, "mul", &x, &y, size)
        }
        _ => {
            let y = unary(s, "abs", &x, size)?;
            let one = scalar(s, dtype, 1.0)?;
            let y = binary(s, "add", &y, &one, size + 1.0)?;
            binary(s, "div", &x, &y, 1.0)
        }
    };
    keep(s, out)
}

/// Layer normalisation or its root-mean-square form over the last axis, in parts.
pub(crate) fn norm(s: &mut Smith) -> Option<Item> {
    let dims = [small_dim(&mut s.rng), 1 + s.rng.below(40)];
    let x = s.get(DType::F32, &dims, Domain::Exact);
    let mean = |s: &mut Smith, x: &Item, size: f64| {
        let fields = [
            ("kind", "mean".to_owned()),
            ("axes", "[1]".to_owned()),
            ("keepdims", "true".to_owned()),
            ("noop_empty", "false".to_owned()),
        ];
        step(s, "reduce", &fields, &[x], size)
    };
    let centred = if s.rng.one_in(3) {
        x
    } else {
        let m = mean(s, &x, 6.0)?;
        binary(s, "sub", &x, &m, 12.0)?
    };
    let square = binary(s, "mul", &centred, &centred, 144.0)?;
    let variance = mean(s, &square, 144.0)?;
    // A large epsilon: of nearly equal elements the quotient would amplify rounding errors.
    let epsilon = scalar(s, DType::F32, 0.1)?;
    let y = binary(s, "add", &variance, &epsilon, 145.0)?;
    let y = unary(s, "sqrt", &y, 13.0)?;
    let y = binary(s, "div", &centred, &y, 40.0)?;
    let scale = s.get(DType::F32, &dims[1..], Domain::Exact);
    let y = binary(s, "mul", &y, &scale, 240.0)?;
    let bias = s.get(DType::F32, &dims[1..], Domain::Exact);
    let out = binary(s, "add", &y, &bias, 246.0);
    keep(s, out)
}

/// A convolution or matrix product with scale, offset, activation and a residual behind it.
pub(crate) fn layer(s: &mut Smith) -> Option<Item> {
    let conv = s.rng.one_in(2);
    let (channels, out) = (1 + s.rng.below(20), 1 + s.rng.below(40));
    let mut y = if conv {
        let (h, w, k) = (3 + s.rng.below(6), 3 + s.rng.below(6), s.rng.choose(&[1, 3]));
        let batch = 1 + s.rng.below(2);
        let x = s.get(DType::F32, &[batch, channels, h, w], Domain::Exact);
        let weights = s.fresh_constant(DType::F32, &[out, channels, k, k], Domain::Any);
        let pad = k / 2;
        let fields = [
            ("strides", "[1, 1]".to_owned()),
            ("dilations", "[1, 1]".to_owned()),
            ("pads", format!("[{pad}, {pad}, {pad}, {pad}]")),
            ("auto_pad", "explicit".to_owned()),
            ("groups", "1".to_owned()),
        ];
        step(s, "conv", &fields, &[&x, &weights], 36.0 * (channels * k * k) as f64)?
    } else {
        let rows = small_dim(&mut s.rng);
        let x = s.get(DType::F32, &[rows, channels], Domain::Exact);
        let weights = s.fresh_constant(DType::F32, &[channels, out], Domain::Any);
        matmul(s, &x, &weights, false, 36.0 * channels as f64)?
    };
    let per_channel: Vec<usize> = if conv { vec![out, 1, 1] } else { vec![out] };
    let mut size = y.size;
    for _ in 0..1 + s.rng.below(4) {
        (y, size) = match s.rng.below(6) {
            0 => {
                let b = s.fresh_constant(DType::F32, &per_channel, Domain::Any);
                (binary(s, "mul", &y, &b, 6.0 * size)?, 6.0 * size)
            }
            1 => {
                let b = s.fresh_constant(DType::F32, &per_channel, Domain::Any);
                (binary(s, "add", &y, &b, size + 6.0)?, size + 6.0)
            }
            2 => {
                let dims = y.shape.clone();
                let b = s.get(DType::F32, &dims, Domain::Exact);
                (binary(s, "add", &b, &y, size + 6.0)?, size + b.size)
            }
            3 => (unary(s, "relu", &y, size)?, size),
            4 => (unary(s, "sigmoid", &y, 1.0)?, 1.0),
            _ => {
                let (lo, hi) = (scalar(s, DType::F32, 0.0)?, scalar(s, DType::F32, 6.0)?);
                let low = binary(s, "max", &y, &lo, size)?;
                (binary(s, "min", &low, &hi, 6.0)?, 6.0)
            }
        };
    }
    keep(s, Some(y))
}

/// A reshape whose dims are computed from those of the operand.
pub(crate) fn reshape_by_shape(s: &mut Smith) -> Option<Item> {
    let dims = [small_dim(&mut s.rng), 1 + s.rng.below(6), 1 + s.rng.below(6)];
    let x = s.get(DType::F32, &dims, Domain::Any);
    let fields = [("start", "0".to_owned()), ("end", "none".to_owned())];
    let shape = step(s, "shape", &fields, &[&x], 64.0)?;
    let at = s.int(0);
    let first = step(s, "gather", &[("axis", "0".to_owned())], &[&shape, &at], 64.0)?;
    let first = step(s, "unsqueeze", &[("axes", "[0]".to_owned())], &[&first], 64.0)?;
    let rest = s.ints(&[-1]);
    let target = step(s, "concat", &[("axis", "0".to_owned())], &[&first, &rest], 64.0)?;
    let allow = dims[0] == 0;
    if allow {
        return None;
    }
    let quality = Quality { exact: x.exact, size: x.size };
    s.emit1("reshape", &[("allow_zero", "false".to_owned())], &[&x, &target], quality)
}

/// A layer between quantised tensors: dequantised operands, a product, and a result quantised again.
pub(crate) fn quantised_layer(s: &mut Smith) -> Option<Item> {
    let storage = s.rng.choose(&[DType::U8, DType::I8]);
    let (rows, k, n) = (1 + s.rng.below(9), 1 + s.rng.below(20), 1 + s.rng.below(40));
    let x = s.get(storage, &[rows, k], Domain::Any);
    let w = s.fresh_constant(DType::I8, &[k, n], Domain::Any);
    let dequantise = |s: &mut Smith, x: &Item, scale: f64| {
        let scale = scalar(s, DType::F32, scale)?;
        let zero = s.rng.one_in(2).then(|| s.fresh_constant(x.dtype, &[], Domain::Between(0, 3)));
        let fields = [("axis", "0".to_owned()), ("block", "0".to_owned()), ("to", "f32".to_owned())];
        let before = s.pool.len();
        let quality = Quality { exact: x.exact, size: (x.size + 3.0) * 2.0 };
        let made = s.emit("dequantize", &fields, &[Some(x), Some(&scale), zero.as_ref()], quality);
        s.pool.truncate(before);
        made?.into_iter().next()
    };
    let scales = [s.rng.choose(&[0.5, 1.0, 2.0]), s.rng.choose(&[0.5, 1.0])];
    let (a, b) = (dequantise(s, &x, scales[0])?, dequantise(s, &w, scales[1])?);
    let size = a.size * b.size * k as f64;
    if !(a.exact && b.exact && holds_exactly(DType::F32, size / 8.0)) {
        return None;
    }
    let mut y = matmul(s, &a, &b, false, size)?;
    if s.rng.one_in(2) {
        let bias = s.fresh_constant(DType::F32, &[n], Domain::Any);
        y = binary(s, "add", &y, &bias, size + 6.0)?;
    }
    if s.rng.one_in(2) {
        y = unary(s, "relu", &y, size + 6.0)?;
    }
    let scale = s.rng.choose(&[1.0, 4.0, 16.0]);
    let scale = scalar(s, DType::F32, scale)?;
    let zero = s.fresh_constant(storage, &[], Domain::Between(0, 3));
    let fields = [
        ("axis", "0".to_owned()),
        ("block", "0".to_owned()),
        ("to", storage.name().to_owned()),
        ("saturate", "true".to_owned()),
        ("precision", "f32".to_owned()),
    ];
    let quality = Quality { exact: true, size: 255.0 };
    s.emit("quantize", &fields, &[Some(&y), Some(&scale), Some(&zero)], quality)?.into_iter().next()
}

/// Columns that overlap, added up to an image.
pub(crate) fn col2im(s: &mut Smith) -> Option<Item> {
    let axes = 1 + s.rng.below(2);
    let block: Vec<i64> = (0..axes).map(|_| s.rng.range(1, 3)).collect();
    let strides: Vec<i64> = (0..axes).map(|_| s.rng.range(1, 2)).collect();
    let dilations: Vec<i64> = (0..axes).map(|_| s.rng.range(1, 2)).collect();
    let pads: Vec<i64> = (0..2 * axes).map(|_| s.rng.range(0, 1)).collect();
    let image: Vec<i64> = (0..axes).map(|_| s.rng.range(6, 12)).collect();
    let places = |i: usize| {
        let reach = dilations[i] * (block[i] - 1) + 1;
        (image[i] + pads[i] + pads[axes + i] - reach) / strides[i] + 1
    };
    let blocks: i64 = (0..axes).map(places).product();
    let (n, c) = (1 + s.rng.below(2), 1 + s.rng.below(3));
    let rows = c as i64 * block.iter().product::<i64>();
    let x = s.get(DType::F32, &[n, rows as usize, blocks as usize], Domain::Any);
    let fields = [
        ("strides", format!("{strides:?}")),
        ("dilations", format!("{dilations:?}")),
        ("pads", format!("{pads:?}")),
    ];
    let (image, block) = (s.ints(&image), s.ints(&block));
    let quality = Quality { exact: x.exact && x.size <= 6.0, size: 9.0 * x.size };
    s.emit1("col2im", &fields, &[&x, &image, &block], quality)
}
