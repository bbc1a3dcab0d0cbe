//! An LSTM whose products are of quantised numbers: the input as a whole and the state of each step are quantised by
//! their range when they are known. A loop over the steps.

use super::Made;
use super::contrib::{columns, constant_part, like, reshape_as};
use super::parts::{add, at, concat, expand, flip, mul, size, sub, unsqueeze};
use super::quantised::{quantize_dynamically, scaled_product};
use crate::import::{ImportCx, OnnxNode};
use planish_ir::op::binary::BinaryKind;
use planish_ir::op::control::Loop;
use planish_ir::op::unary::UnaryKind;
use planish_ir::{DType, Diag, Tensor, Type, ValueId};

/// Constants of one direction.
struct Weights {
    w: [Tensor; 3],
    r: [Tensor; 3],
    /// Sum of both biases \[4 H\].
    bias: Option<Tensor>,
    /// Peepholes \[3 H\] in the order i, o, f.
    peepholes: Option<Tensor>,
    hidden: usize,
}

impl Weights {
    fn new(cx: &ImportCx<'_, '_>, node: &OnnxNode<'_>, direction: usize) -> Result<Weights, Diag> {
        let part = |i: usize| constant_part(cx, node, node.input(i)?, direction);
        let r = part(2)?;
        let [hidden, gates] = *r.shape() else {
            return Err(node.error("shape-mismatch", "recurrent weights need 3 axes"));
        };
        if gates != hidden * 4 || part(1)?.shape().get(1) != Some(&gates) {
            return Err(node.error("shape-mismatch", "weights of 4 gates are needed"));
        }
        let bias = match node.opt(3) {
            None => None,
            Some(_) => {
                let v = part(3)?.to_f64();
                let sums = (0..gates).filter_map(|i| Some(v.get(i)? + v.get(gates + i)?)).collect::<Vec<_>>();
                Some(Tensor::floats(DType::F32, &[gates], sums)?)
            }
        };
        let peepholes = node.opt(7).map(|_| part(7)).transpose()?;
        Ok(Weights {
            w: [part(1)?, part(8)?, part(9)?],
            r: [r, part(10)?, part(11)?],
            bias,
            peepholes,
            hidden,
        })
    }
}

/// The product of a tensor, quantised as a whole, and quantised weights with scales and zero points.
fn product(cx: &mut ImportCx<'_, '_>, x: ValueId, weights: &[Tensor; 3]) -> Result<ValueId, Diag> {
    let (q, s, z) = quantize_dynamically(cx, x)?;
    let [w, sw, zw] = weights;
    let (w, sw, zw) = (cx.constant(w.clone())?, cx.constant(sw.clone())?, cx.constant(zw.clone())?);
    scaled_product(cx, (q, s, Some(z)), (w, sw, Some(zw)))
}

/// One step: the next h and c of gates \[B, 4 H\] and c.
fn cell(
    cx: &mut ImportCx<'_, '_>,
    gates: ValueId,
    c: ValueId,
    weights: &Weights,
    input_forget: bool,
) -> Result<(ValueId, ValueId), Diag> {
    let n = weights.hidden;
    let parts = columns(cx, gates, 4, n)?;
    let [mut i, mut o, mut f, g] = parts[..] else {
        return Err(Diag::error("internal-import", "4 gates"));
    };
    let peephole = |cx: &mut ImportCx<'_, '_>, k: usize, gate: ValueId, c: ValueId| match &weights.peepholes {
        None => Ok(gate),
        Some(p) => {
            let v = p.to_f64().get(k * n..(k + 1) * n).map(<[f64]>::to_vec);
            let v = v.ok_or_else(|| Diag::error("shape-mismatch", "peepholes of 3 gates are needed"))?;
            let p = cx.constant(Tensor::floats(DType::F32, &[n], v)?)?;
            let p = mul(cx, p, c)?;
            add(cx, gate, p)
        }
    };
    i = peephole(cx, 0, i, c)?;
    i = cx.unary(UnaryKind::Sigmoid, i)?;
    f = if input_forget {
        let one = cx.const_f32(1.0)?;
        sub(cx, one, i)?
    } else {
        f = peephole(cx, 2, f, c)?;
        cx.unary(UnaryKind::Sigmoid, f)?
    };
    let g = cx.unary(UnaryKind::Tanh, g)?;
    let (kept, new) = (mul(cx, f, c)?, mul(cx, i, g)?);
    let next = add(cx, kept, new)?;
    o = peephole(cx, 1, o, next)?;
    o = cx.unary(UnaryKind::Sigmoid, o)?;
    let t = cx.unary(UnaryKind::Tanh, next)?;
    Ok((mul(cx, o, t)?, next))
}

/// All h \[T, B, H\], the last h and the last c of one direction.
fn direction(
    cx: &mut ImportCx<'_, '_>,
    node: &OnnxNode<'_>,
    x: ValueId,
    weights: &Weights,
    state: [ValueId; 2],
) -> Result<[ValueId; 3], Diag> {
    let n = weights.hidden;
    let inputs = weights.w[0].shape()[0] as i64;
    let flat = cx.reshape(x, &[-1, inputs])?;
    let mut xw = product(cx, flat, &weights.w)?;
    if let Some(b) = &weights.bias {
        let b = cx.constant(b.clone())?;
        xw = add(cx, xw, b)?;
    }
    let xw = reshape_as(cx, xw, x, &[0, 1], &[4 * n as i64])?;
    let count = size(cx, x, 0)?;
    let input_forget = node.flag("input_forget", false)?;
    let outer = cx.ed.region();
    let region = cx.ed.new_region();
    let step = cx.ed.param(region, Type::tensor(DType::I64, Vec::new()).into());
    let mut params = Vec::new();
    for v in state.into_iter().chain([xw]).chain(node.opt(4)) {
        let fact = cx.ty(v).clone().into();
        params.push(cx.ed.param(region, fact));
    }
    cx.ed.at_end(region);
    let (h, c) = (params[0], params[1]);
    let gates = at(cx, params[2], 0, step)?;
    let back = product(cx, h, &weights.r)?;
    let gates = add(cx, gates, back)?;
    let (mut next_h, mut next_c) = cell(cx, gates, c, weights, input_forget)?;
    let mut y = next_h;
    if let Some(lengths) = params.get(3) {
        let dtype = cx.dtype(*lengths)?;
        let now = cx.cast(step, dtype)?;
        let within = cx.binary(BinaryKind::Less, now, *lengths)?;
        let within = unsqueeze(cx, within, &[1])?;
        let zero = cx.const_f32(0.0)?;
        y = cx.select(within, next_h, zero)?;
        next_h = cx.select(within, next_h, h)?;
        next_c = cx.select(within, next_c, c)?;
    }
    for v in [next_h, next_c, y] {
        cx.ed.result(region, v);
    }
    cx.ed.at_end(outer);
    let mut operands = vec![Some(count), None, Some(state[0]), Some(state[1]), Some(xw)];
    operands.extend(node.opt(4).map(Some));
    let op = Loop { carried: 2, scans: 1, conditional: false };
    let out = cx.ed.node_with_regions(op, &operands, vec![region])?;
    match out[..] {
        [h, c, y] => Ok([y, h, c]),
        _ => Err(Diag::error("internal-import", "a loop has 3 results here")),
    }
}

pub(super) fn lstm(cx: &mut ImportCx<'_, '_>, node: &OnnxNode<'_>) -> Made {
    node.ignore(&["hidden_size", "activation_alpha", "activation_beta"]);
    let usual = ["sigmoid", "tanh", "tanh"];
    let names = node.strings("activations")?.unwrap_or_default();
    if names.iter().enumerate().any(|(i, n)| !n.eq_ignore_ascii_case(usual[i % 3])) {
        return Err(node.unsupported("activations other than Sigmoid, Tanh, Tanh"));
    }
    if node.float("clip")?.is_some_and(|c| c > 0.0) {
        return Err(node.unsupported("clip"));
    }
    let backwards: &[bool] = match node.choice("direction", 0, &["forward", "reverse", "bidirectional"])? {
        0 => &[false],
        1 => &[true],
        _ => &[false, true],
    };
    if node.opt(4).is_some() && backwards.contains(&true) {
        return Err(node.unsupported("lengths of sequences that are read backwards"));
    }
    let x = node.input(0)?;
    let mut all: [Vec<ValueId>; 3] = Default::default();
    for (d, reverse) in backwards.iter().enumerate() {
        let weights = Weights::new(cx, node, d)?;
        let x = if *reverse { flip(cx, x, 0)? } else { x };
        let mut state = [x; 2];
        for (k, s) in state.iter_mut().enumerate() {
            *s = match node.opt(5 + k) {
                Some(v) => super::parts::at_const(cx, v, 0, d as i64)?,
                None => {
                    let zero = cx.const_f32(0.0)?;
                    let shape = like(cx, x, &[1], &[weights.hidden as i64])?;
                    let shape = concat(cx, &shape, 0)?;
                    expand(cx, zero, shape)?
                }
            };
        }
        let [mut y, h, c] = direction(cx, node, x, &weights, state)?;
        if *reverse {
            y = flip(cx, y, 0)?;
        }
        all[0].push(unsqueeze(cx, y, &[1])?);
        all[1].push(unsqueeze(cx, h, &[0])?);
        all[2].push(unsqueeze(cx, c, &[0])?);
    }
    Ok(vec![concat(cx, &all[0], 1)?, concat(cx, &all[1], 0)?, concat(cx, &all[2], 0)?])
}
